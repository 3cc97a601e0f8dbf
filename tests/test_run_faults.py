"""What run() and init() can do wrong, as tables with the exact number of calls (spec 3 and 4)."""

from __future__ import annotations

from typing import Any

import pytest

from daskprs import (
    FileDataset,
    InitFailedError,
    NothingSucceededError,
    ParallelRun,
    ParallelRunConfig,
    ParallelRunStep,
    ThresholdExceededError,
)

BODY = """
import ctypes, sys, time

class Dying:
    def __str__(self):
        os._exit(3)

def fault(kind, path):
    if kind == "exit after run()":
        return [Dying()]
    if kind == "raise":
        raise ValueError("bad item " + path)
    if kind == "hang":
        while True:
            time.sleep(1)
    if kind == "hang in C":
        ctypes.PyDLL(None).sleep(1000)
    if kind == "segfault":
        ctypes.string_at(0)
    if kind == "exit":
        os._exit(3)
    if kind == "sys.exit":
        sys.exit(42)
    if kind == "None":
        return None
    if kind == "str":
        return "text"
    if kind == "int":
        return 3
    if kind == "short":
        return []
    if kind == "generator":
        return (path for _ in range(1))
    if kind == "long":
        return [path, path]
    if kind == "generator that raises":
        def rows():
            yield path
            raise ValueError("half-way")
        return rows()
    return [path]

def init():
    mark("init")

def run(mini_batch):
    name = os.path.basename(mini_batch[0])
    number = int(name[1:6])
    tried = marks(name)
    mark(name)
    kinds = TABLE.get(number, [])
    return fault(kinds[tried] if tried < len(kinds) else "ok", name)
"""


def run_step(workplace: Any, table: dict[int, list[str]], count: int, **config: Any) -> ParallelRun:
    script = workplace.script(f"TABLE = {table!r}\n{BODY}")
    inputs = workplace.files(count)
    settings = {"process_count_per_node": 2, "run_invocation_timeout": 1.0, **config}
    step = ParallelRunStep(
        "fault-table",
        ParallelRunConfig(entry_script=script, mini_batch_size=1, **settings),
        inputs=[FileDataset(inputs)],
        output=workplace.output,
    )
    return step.submit()


# fault -> (calls of run() for the mini-batch, whether its row is there, inits it costs)
ONCE = {
    "raise": (2, 1, 0),
    "hang": (2, 1, 1),
    "hang in C": (2, 1, 1),
    "segfault": (2, 1, 1),
    "exit": (2, 1, 1),
    "exit after run()": (2, 1, 1),
    "sys.exit": (2, 1, 0),
    "None": (2, 1, 0),
    "str": (2, 1, 0),
    "int": (2, 1, 0),
    "generator that raises": (2, 1, 0),
    "short": (1, 0, 0),
    "generator": (1, 1, 0),
    "long": (1, 2, 0),
}


@pytest.mark.usefixtures("no_daskprs_threads")
def test_a_fault_that_happens_once_costs_one_more_call(workplace: Any) -> None:
    """Spec 3: an attempt that fails is tried again; a short list is not a failed attempt."""
    table = {number: [kind] for number, kind in enumerate(ONCE)}
    run = run_step(workplace, table, len(ONCE) + 3)
    assert run.wait_for_completion() == "Completed"
    rows = workplace.row_counts()
    for number, (kind, (calls, times, _)) in enumerate(ONCE.items()):
        name = f"f{number:05d}.bin"
        assert (kind, workplace.count(name)) == (kind, calls)
        assert (kind, rows[name]) == (kind, times)
    for number in range(len(ONCE), len(ONCE) + 3):
        assert rows[f"f{number:05d}.bin"] == 1
        assert workplace.count(f"f{number:05d}.bin") == 1
    lost = sum(inits for _, _, inits in ONCE.values())
    # A process that died at the very end is not replaced.
    assert 1 + lost <= workplace.count("init") <= 2 + lost
    report = run.report
    assert (report.mini_batches.total, report.mini_batches.failed) == (len(ONCE) + 3, 0)
    assert (report.items.total, report.items.failed) == (len(ONCE) + 3, 1)
    assert any("2 results for 1 item " in notice for notice in run.notices)


ALWAYS = ["raise", "hang", "hang in C", "segfault", "exit", "sys.exit", "None", "str"]
ALWAYS += ["exit after run()"]


@pytest.mark.usefixtures("no_daskprs_threads")
def test_a_fault_that_happens_always_uses_up_the_tries(workplace: Any) -> None:
    """Spec 3 and 4: run_max_try tries, then the mini-batch and all its items have failed."""
    table = {number: [kind] * 9 for number, kind in enumerate(ALWAYS)}
    run = run_step(workplace, table, len(ALWAYS) + 2, run_max_try=2)
    assert run.wait_for_completion() == "Completed"
    for number, kind in enumerate(ALWAYS):
        assert (kind, workplace.count(f"f{number:05d}.bin")) == (kind, 2)
    assert workplace.row_counts() == {"f00009.bin": 1, "f00010.bin": 1}
    report = run.report
    assert report.mini_batches.failed == report.items.failed == len(ALWAYS)
    errors = {failure.mini_batch: failure for failure in report.failures}
    assert errors[0].error.startswith("ValueError: bad item f00000.bin")
    assert all(failure.tries == 2 and failure.items == 1 for failure in errors.values())
    for number, text in {
        1: "run_invocation_timeout=1",
        2: "run_invocation_timeout=1",
        3: "SIGSEGV",
        4: "exit code 3",
        5: "SystemExit: 42",
        6: "None",
        7: "str",
        8: "while the result of run() was made into rows",
    }.items():
        assert text in errors[number].error
    for number in (1, 2):
        assert "score.py" in errors[number].traceback, "the stack where it hung"


@pytest.mark.parametrize(
    ("settings", "failing", "status"),
    [
        ({"error_threshold": 3}, 3, "Completed"),
        ({"error_threshold": 2}, 3, "Failed"),
        ({"error_threshold": 0}, 1, "Failed"),
        ({"error_threshold": -1}, 3, "Completed"),
        ({"allowed_failed_count": 3}, 3, "Completed"),
        ({"allowed_failed_count": 2}, 3, "Failed"),
        ({"allowed_failed_percent": 30}, 3, "Completed"),
        ({"allowed_failed_percent": 29.9}, 3, "Failed"),
        ({"error_threshold": 5, "allowed_failed_count": 2}, 3, "Failed"),
    ],
)
def test_a_threshold_is_exceeded_strictly(
    workplace: Any, settings: dict[str, Any], failing: int, status: str
) -> None:
    """Spec 1: abort when more than the threshold have failed, not when as many have."""
    table = {number: ["raise"] * 9 for number in range(failing)}
    run = run_step(workplace, table, 10, run_max_try=1, **settings)
    assert run.wait_for_completion(raise_on_error=False) == status
    if status == "Failed":
        with pytest.raises(ThresholdExceededError) as caught:
            run.wait_for_completion()
        text = str(caught.value)
        assert text.startswith("Traceback"), "the script's own traceback comes first"
        assert "bad item" in text
        assert "/daskprs/" not in text.split("\n\n")[0]
        assert next(iter(settings)) in text or "allowed_failed" in text
        assert not (workplace.output / "parallel_run_step.txt").exists()
    else:
        assert len(workplace.rows()) == 10 - failing


def test_missing_results_that_exceed_a_threshold_are_told_from_failures(workplace: Any) -> None:
    """One result for many items is what a script for partitions may want to give."""
    script = workplace.script("def run(mini_batch):\n    return mini_batch[:1]\n")
    config = ParallelRunConfig(entry_script=script, mini_batch_size=5, error_threshold=3)
    inputs = [FileDataset(workplace.files(5))]
    run = ParallelRunStep("one-row", config, inputs=inputs, output=workplace.output).submit()
    with pytest.raises(ThresholdExceededError, match="No mini-batch has failed"):
        run.wait_for_completion()


def test_a_run_in_which_nothing_succeeds_has_failed(workplace: Any) -> None:
    """Spec 3: append_row without one success is a failed run, whatever the thresholds."""
    run = run_step(workplace, {n: ["raise"] * 3 for n in range(3)}, 3, run_max_try=1)
    with pytest.raises(NothingSucceededError, match="not one of 3 items succeeded"):
        run.wait_for_completion()


def test_with_summary_only_a_run_in_which_nothing_succeeds_is_completed(workplace: Any) -> None:
    """Spec 3 asks for a success only where rows are appended."""
    table = {n: ["raise"] * 3 for n in range(3)}
    run = run_step(workplace, table, 3, run_max_try=1, output_action="summary_only")
    assert run.wait_for_completion() == "Completed"
    assert run.output_file is None
    assert run.report.items.failed == 3


INIT = """
import sys, time

def init():
    mark("init")
    tried = marks("init")
    if tried <= FAILS:
        if HOW == "raise":
            raise RuntimeError("no model here")
        if HOW == "exit":
            os._exit(7)
        if HOW == "hang":
            time.sleep(1000)

def run(mini_batch):
    return mini_batch
"""


def run_init(workplace: Any, how: str, fails: int) -> ParallelRun:
    script = workplace.script(f"HOW, FAILS = {how!r}, {fails}\n{INIT}")
    step = ParallelRunStep(
        "init-faults",
        ParallelRunConfig(entry_script=script, process_count_per_node=1, init_timeout=1),
        inputs=[FileDataset(workplace.files(5))],
        output=workplace.output,
    )
    return step.submit()


@pytest.mark.parametrize("how", ["raise", "exit", "hang"])
def test_init_is_tried_in_three_fresh_processes(workplace: Any, how: str) -> None:
    """Spec 4: two failures are forgiven."""
    assert run_init(workplace, how, fails=2).wait_for_completion() == "Completed"
    assert workplace.count("init") == 3
    assert len(workplace.rows()) == 5


@pytest.mark.parametrize(
    ("how", "text"),
    [("raise", "no model here"), ("exit", "exit code 7"), ("hang", "init_timeout=1")],
)
def test_a_third_failure_of_init_ends_the_run(workplace: Any, how: str, text: str) -> None:
    """Spec 4: with the script's traceback."""
    with pytest.raises(InitFailedError, match=text) as caught:
        run_init(workplace, how, fails=9).wait_for_completion()
    assert workplace.count("init") == 3
    if how == "raise":
        assert str(caught.value).startswith("Traceback")
        assert 'raise RuntimeError("no model here")' in str(caught.value)


@pytest.mark.usefixtures("no_daskprs_threads")
def test_items_whose_process_dies_after_run_count_as_failed_and_can_be_run_again(
    workplace: Any,
) -> None:
    """Spec 4: an item succeeds when its mini-batch does, not when run() has returned."""
    table = {2: ["exit after run()"] * 2}
    run = run_step(workplace, table, 6, run_max_try=2, error_threshold=0)
    with pytest.raises(ThresholdExceededError, match="1 failed item exceeds error_threshold=0"):
        run.wait_for_completion()
    run = run_step(workplace, table, 6, run_max_try=2, error_threshold=0)
    assert run.wait_for_completion() == "Completed"
    assert workplace.row_counts() == {f"f{number:05d}.bin": 1 for number in range(6)}
