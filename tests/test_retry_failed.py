"""submit(retry_failed=True): only what has failed runs again, into the same output."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import pandas as pd
import pytest
from commands import command, in_process, journaled, report_of
from stores import new_store

from daskprs import (
    ConfigError,
    FileDataset,
    ParallelRunConfig,
    ParallelRunStep,
    TabularDataset,
    ThresholdExceededError,
    UsageError,
)
from daskprs.output_folder import OutputFolder

SCRIPT = """
import ctypes, time

BAD = {bad!r}

def run(mini_batch):
    mark("run")
    numbers = [int(os.path.basename(path)[1:6]) for path in mini_batch]
    for number in numbers:
        mark(str(number))
    time.sleep({delay})
    for number in numbers:
        if BAD.get(number) == "raise":
            raise ValueError(f"item {{number}}")
        if BAD.get(number) == "crash":
            ctypes.string_at(0)
    return [{{"n": n, "square": n * n}} for n in numbers if BAD.get(n) != "short"]
"""
COUNT = 12


def make_step(
    workplace: Any,
    bad: dict[int, str],
    *,
    output: Any = None,
    delay: float = 0,
    step: dict[str, Any] | None = None,
    **config: Any,
) -> ParallelRunStep:
    script = workplace.script(SCRIPT.format(bad=bad, delay=delay))
    if not (workplace.folder / "input").exists():
        workplace.files(COUNT)
    settings = {
        "mini_batch_size": 4, "process_count_per_node": 1, "run_max_try": 1, "ordered": True,
        "output_format": "jsonl", **config,
    }  # fmt: skip
    return ParallelRunStep(
        "retried",
        ParallelRunConfig(entry_script=script, **settings),
        inputs=[FileDataset(workplace.folder / "input")],
        output=workplace.output if output is None else output,
        **(step or {}),
    )


def completed(step: ParallelRunStep, *, retry: bool = False) -> Any:
    run = step.submit(retry_failed=retry)
    assert run.wait_for_completion() == "Completed"
    return run


def refused(step: ParallelRunStep, match: str) -> None:
    """It is wrong usage, before any work is started."""
    with pytest.raises(UsageError, match=match):
        step.submit(retry_failed=True).wait_for_completion()


def calls(workplace: Any) -> Counter[str]:
    return Counter({path.name: path.stat().st_size for path in workplace.calls.iterdir()})


def numbers(run: Any) -> list[int]:
    return [json.loads(line)["n"] for line in Path(run.output_file).read_text().splitlines()]


def failed_items(workplace: Any) -> list[int]:
    path = workplace.output / "logs/failed_items.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return sorted(int(json.loads(line)["path"][-9:-4]) for line in lines)


FAULTS: dict[str, tuple[dict[int, str], bool, list[int], int]] = {
    # What fails; whether mini-batches are split; which items run again, in how many calls.
    "a mini-batch": ({5: "raise"}, False, [4, 5, 6, 7], 1),
    "a crash": ({0: "crash"}, False, [0, 1, 2, 3], 1),
    "two items": ({5: "raise", 6: "raise"}, True, [5, 6], 2),
    "an item that crashes": ({11: "crash"}, True, [11], 1),
    "all items": (dict.fromkeys(range(4, 8), "raise"), True, [4, 5, 6, 7], 1),
    "too few rows": ({2: "short", 3: "short"}, False, [0, 1, 2, 3], 1),
    "no rows": (dict.fromkeys(range(4), "short"), False, [0, 1, 2, 3], 1),
    "too few rows of a part": ({4: "raise", 6: "short"}, True, [4, 6, 7], 2),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_exactly_what_failed_runs_again(workplace: Any, fault: str) -> None:
    """With the repaired script; the output is that of a run in which nothing has failed."""
    bad, split, again, runs = FAULTS[fault]
    config = {"split_failed_mini_batches": split}
    first = completed(make_step(workplace, bad, **config))
    missing = set(again) if fault in ("a mini-batch", "a crash", "all items") else set(bad)
    assert numbers(first) == [n for n in range(COUNT) if n not in missing]
    before = calls(workplace)

    run = completed(make_step(workplace, {}, **config), retry=True)
    assert calls(workplace) - before == Counter({"run": runs, **{str(n): 1 for n in again}})
    assert numbers(run) == list(range(COUNT))
    report = run.report
    assert (report.items.total, report.items.failed) == (COUNT, 0)
    assert (report.mini_batches.total, report.mini_batches.failed, report.kept) == (3, 0, 2)
    assert (report.failures, failed_items(workplace)) == ([], [])
    # It is the run of the repaired script now.
    assert completed(make_step(workplace, {}, **config)).report.reused
    assert not (workplace.output / "parallel_run_step.jsonl.previous").exists()


@pytest.mark.parametrize(
    ("output_format", "ordered"),
    [("text", False), ("csv", True), ("jsonl", False), ("parquet", True)],
)
def test_the_output_is_that_of_a_run_in_which_nothing_failed(
    workplace: Any, output_format: str, ordered: bool
) -> None:
    """Rows stand in their place, in two steps, in each format."""
    config = {
        "output_format": output_format, "ordered": ordered, "split_failed_mini_batches": True,
    }  # fmt: skip
    bad = {1: "raise", 4: "raise", 6: "short", **dict.fromkeys(range(8, 12), "raise")}
    completed(make_step(workplace, bad, **config))
    assert failed_items(workplace) == [1, 4, 6, 7, 8, 9, 10, 11]
    still = completed(make_step(workplace, {1: "raise", 9: "raise"}, **config), retry=True)
    assert failed_items(workplace) == [1, 9]
    assert (still.report.items.failed, len(still.report.failures)) == (2, 2)
    last = completed(make_step(workplace, {}, **config), retry=True)
    whole = completed(make_step(workplace, {}, output=workplace.folder / "whole", **config))
    found, expected = (Path(run.output_file) for run in (last, whole))
    if output_format == "parquet":
        tables = [pd.read_parquet(path) for path in (found, expected)]
        found_rows, expected_rows = ([*map(tuple, t.values.tolist())] for t in tables)
    else:
        found_rows, expected_rows = (path.read_bytes().splitlines() for path in (found, expected))
    if not ordered:
        found_rows, expected_rows = sorted(found_rows), sorted(expected_rows)
    assert found_rows == expected_rows


def test_a_run_in_which_nothing_failed_is_reused_and_says_so(workplace: Any) -> None:
    completed(make_step(workplace, {}))
    before = calls(workplace)
    run = completed(make_step(workplace, {}, delay=0.01), retry=True)
    assert run.report.reused
    assert run.notices == ["nothing has failed in the earlier run: it stays as it is."]
    assert calls(workplace) == before


def test_without_an_earlier_run_nothing_starts(workplace: Any) -> None:
    refused(make_step(workplace, {}), "there is no earlier run in .*without retry_failed first")
    assert not calls(workplace)


CHANGES: tuple[tuple[dict[str, Any], str], ...] = (
    ({"mini_batch_size": 3}, "the inputs or mini_batch_size must be"),
    ({"output_format": "csv"}, "output_format and append_row_file_name must"),
    ({"ordered": False}, "ordered must be as in the earlier run"),
    ({"step": {"allow_reuse": False}}, "retry_failed=True is not accepted"),
)


def test_settings_that_decide_the_rows_must_be_the_same(workplace: Any) -> None:
    """The error names the setting, and nothing of the earlier run is touched."""
    first = completed(make_step(workplace, {5: "raise"}))
    before = Path(first.output_file).read_bytes()
    for given, match in CHANGES:
        refused(make_step(workplace, {}, **given), match)
        assert Path(first.output_file).read_bytes() == before
        assert failed_items(workplace) == [4, 5, 6, 7]
    completed(make_step(workplace, {}), retry=True)


def test_a_retry_is_asked_for_with_true_or_false(workplace: Any) -> None:
    with pytest.raises(ConfigError, match="retry_failed='yes'"):
        make_step(workplace, {}).submit(retry_failed="yes")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "match"),
    [("f00001.bin", "mini-batch 0 .*has changed"), ("f00020.bin", "mini-batch 3 .*was not there")],
)
def test_inputs_whose_rows_stay_must_be_the_same(workplace: Any, name: str, match: str) -> None:
    completed(make_step(workplace, {5: "raise"}))
    (workplace.folder / "input" / name).write_text("another")
    refused(make_step(workplace, {}), match)


def test_an_input_that_has_failed_may_have_been_repaired(workplace: Any) -> None:
    """Its mini-batch is another one then: it runs as a whole, and its old rows are left out."""
    config = {"split_failed_mini_batches": True}
    completed(make_step(workplace, {5: "raise"}, **config))
    before = calls(workplace)
    (workplace.folder / "input" / "f00005.bin").write_text("repaired")
    run = completed(make_step(workplace, {}, **config), retry=True)
    assert calls(workplace) - before == Counter({"run": 1, "4": 1, "5": 1, "6": 1, "7": 1})
    assert numbers(run) == list(range(COUNT))


def test_limits_hold_for_the_whole_and_the_output_stays_when_they_are_exceeded(
    workplace: Any,
) -> None:
    config = {"split_failed_mini_batches": True}
    bad = {1: "raise", 5: "raise", 9: "raise"}
    first = completed(make_step(workplace, bad, **config))
    before = Path(first.output_file).read_bytes()
    left = make_step(workplace, {5: "raise", 9: "raise"}, error_threshold=1, **config)
    run = left.submit(retry_failed=True)
    with pytest.raises(ThresholdExceededError, match="2 failed items exceed error_threshold=1"):
        run.wait_for_completion()
    assert Path(first.output_file).read_bytes() == before
    allowed = completed(make_step(workplace, {5: "raise", 9: "raise"}, **config))
    assert numbers(allowed) == [n for n in range(COUNT) if n not in (5, 9)]
    assert failed_items(workplace) == [5, 9]


def test_a_run_that_has_failed_goes_on_with_its_failed_items_and_the_rest(workplace: Any) -> None:
    config = {"split_failed_mini_batches": True}
    step = make_step(workplace, {1: "raise", 6: "raise"}, error_threshold=1, **config)
    with pytest.raises(ThresholdExceededError):
        step.submit().wait_for_completion()
    before = calls(workplace)
    run = completed(make_step(workplace, {}, **config), retry=True)
    again = calls(workplace) - before
    assert {n: again[n] for n in ("0", "1", "2", "3", "4", "5", "6", "7")} == {
        **dict.fromkeys(("0", "2", "3", "4", "5", "7"), 0), "1": 1, "6": 1,
    }  # fmt: skip
    assert numbers(run) == list(range(COUNT))


def test_without_rows_it_counts(workplace: Any) -> None:
    config = {
        "output_action": "summary_only", "split_failed_mini_batches": True, "output_format": "text",
    }  # fmt: skip
    completed(make_step(workplace, {5: "raise", 8: "short"}, **config))
    before = calls(workplace)
    run = completed(make_step(workplace, {}, **config), retry=True)
    assert calls(workplace) - before == Counter(
        {"run": 2, "5": 1, "8": 1, "9": 1, "10": 1, "11": 1}
    )
    assert (run.report.items.succeeded, run.report.items.failed) == (COUNT, 0)


def test_in_a_store_it_is_the_same(workplace: Any) -> None:
    config = {"split_failed_mini_batches": True}
    with new_store("memory") as url:
        folder = OutputFolder(url)
        completed(make_step(workplace, {1: "raise", 6: "raise"}, output=url, **config))
        before = calls(workplace)
        completed(make_step(workplace, {6: "raise"}, output=url, **config), retry=True)
        assert calls(workplace) - before == Counter({"run": 2, "1": 1, "6": 1})
        told = folder.read("logs/failed_items.jsonl") or b""
        assert [json.loads(line)["path"][-9:-4] for line in told.splitlines()] == ["00006"]
        completed(make_step(workplace, {}, output=url, **config), retry=True)
        rows = (folder.read("parallel_run_step.jsonl") or b"").splitlines()
        assert [json.loads(row)["n"] for row in rows] == list(range(COUNT))
        assert folder.read("logs/failed_items.jsonl") is None
        assert folder.sizes(".daskprs/segments") == {}


TABLE_SCRIPT = """
BAD = {bad!r}

def run(mini_batch):
    mark("run")
    for x in mini_batch.x:
        mark(str(x))
    if set(mini_batch.x) & BAD:
        raise ValueError("poison")
    return mini_batch
"""


@pytest.mark.parametrize("kind", ["file", "pandas", "dask"])
def test_rows_of_tables_run_again_alone(workplace: Any, kind: str) -> None:
    """Also rows of a file that is cut, and of partitions that the cluster holds."""
    table = pd.DataFrame({"x": range(200), "text": "some text"})
    path = workplace.folder / "table.csv"
    table.to_csv(path, index=False)
    inputs: dict[str, Any] = {
        "file": TabularDataset(path), "pandas": table, "dask": dd.from_pandas(table, npartitions=3)
    }  # fmt: skip
    bad: set[int]
    for bad in ({7, 8, 150}, {150}, set()):
        config = ParallelRunConfig(
            entry_script=workplace.script(TABLE_SCRIPT.format(bad=bad)),
            mini_batch_size="1KB", run_max_try=1, process_count_per_node=1, ordered=True,
            output_format="csv", split_failed_mini_batches=True,
        )  # fmt: skip
        step = ParallelRunStep("tables", config, [inputs[kind]], workplace.output)
        before = calls(workplace)
        run = completed(step, retry=len(bad) < 3)
        if len(bad) < 3:
            again = {7, 8, 150} if bad else {150}
            ran = calls(workplace) - before
            assert ran == Counter({"run": len(again), **{str(x): 1 for x in again}})
        found = pd.read_csv(run.output_file)
        assert found.x.tolist() == [x for x in range(200) if x not in bad]


def test_a_command_that_is_killed_while_it_retries_goes_on(workplace: Any) -> None:
    """SIGKILL: each row once; what the journal has is not run again."""
    here = workplace.folder
    workplace.files(COUNT)
    workplace.script(SCRIPT.format(bad=dict.fromkeys(range(1, 12, 2), "raise"), delay=0))
    words = ["run", "scripts/score.py", "--files", "input", "--output", "out"]
    words += ["--mini-batch-size", "2", "--process-count-per-node", "1", "--run-max-try", "1"]
    words += ["--split-failed-mini-batches", "--quiet"]
    assert in_process(*words, cwd=here).returncode == 0
    output = workplace.output / "parallel_run_step.txt"
    before = output.read_bytes()
    workplace.script(SCRIPT.format(bad={}, delay=0.4))
    known = len(journaled(workplace.output))
    with command(*words, "--retry-failed", cwd=here) as started:
        started.wait_until(lambda: len(journaled(workplace.output)) >= known + 2)
        started.process.kill()
        started.end()
    assert output.read_bytes() == before
    done = set(journaled(workplace.output)[known:])
    assert 0 < len(done) < 6
    ran = {n: workplace.count(str(n)) for n in range(COUNT)}
    told = in_process(*words, "--retry-failed", cwd=here)
    assert told.returncode == 0, told.stderr
    assert re.search(r"Items +12 of 12 succeeded\n", told.stdout)
    rows = sorted(int(re.findall(r"\d+", row)[0]) for row in workplace.rows())
    assert rows == list(range(COUNT))
    for index in range(6):
        good, bad = 2 * index, 2 * index + 1
        assert workplace.count(str(good)) == ran[good]
        assert workplace.count(str(bad)) == ran[bad] + (index not in done)
    assert report_of(workplace.output)["items"] == {"total": 12, "succeeded": 12, "failed": 0}


def test_the_command_line_refuses_what_cannot_be_retried(workplace: Any) -> None:
    workplace.files(2)
    workplace.script(SCRIPT.format(bad={}, delay=0))
    words = ["run", "scripts/score.py", "--files", "input", "--output", "out", "--retry-failed"]
    none = in_process(*words, cwd=workplace.folder)
    assert none.returncode == 2
    assert "Run without --retry-failed first." in none.stderr
    both = in_process(*words, "--no-reuse", cwd=workplace.folder)
    assert both.returncode == 2
    assert "--retry-failed and --no-reuse exclude each other" in both.stderr
    assert not calls(workplace)
