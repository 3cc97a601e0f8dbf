"""The same run again: it goes on where it was, or is reused, or is another run by now."""

from __future__ import annotations

import csv
import json
import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from commands import command, journaled, report_of

from daskprs import (
    FileDataset,
    ParallelRun,
    ParallelRunConfig,
    ParallelRunStep,
    ThresholdExceededError,
)

SLOW = """
import time

def run(mini_batch):
    time.sleep(DELAY)
    with open(os.path.join(os.path.dirname(__file__), "log.txt"), "a") as stream:
        stream.write("called\\n")
    names = [os.path.basename(path) for path in mini_batch]
    for name in names:
        mark(name)
    return names
"""


def names_of(count: int) -> list[str]:
    return [f"f{number:05d}.bin" for number in range(count)]


def make_step(workplace: Any, *, step: dict[str, Any] | None = None, **config: Any) -> Any:
    settings = {"mini_batch_size": 1, "process_count_per_node": 2, **config}
    script = workplace.folder / "scripts" / "score.py"
    return ParallelRunStep(
        "resumed",
        ParallelRunConfig(entry_script=script, **settings),
        **{
            "inputs": [FileDataset(workplace.folder / "input")],
            "output": workplace.output,
            **(step or {}),
        },
    )


def wait_until(holds: Callable[[], Any], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def canceled_after(count: int, workplace: Any, **given: Any) -> ParallelRun:
    """Start a run and cancel it when so many mini-batches are done."""
    run: ParallelRun = make_step(workplace, **given).submit()
    wait_until(lambda: run.progress.done >= count or run.status != "Running")
    run.cancel()
    assert run.wait_for_completion(raise_on_error=False) == "Canceled"
    return run


def test_a_command_that_is_killed_again_and_again_loses_and_doubles_nothing(workplace: Any) -> None:
    """SIGKILL at several moments: each row once, and run() never again for what the journal has.

    The script writes a file beside itself that was there before: it is no input that changed.
    """
    here, count = workplace.folder, 30
    workplace.script("DELAY = 0.3\n" + SLOW)
    (here / "scripts" / "log.txt").write_text("")
    workplace.files(count)
    words = ["run", "scripts/score.py", "--files", "input", "--output", "out"]
    words += ["--mini-batch-size", 1, "--process-count-per-node", 2]
    journal = here / "out" / ".daskprs" / "journal.jsonl"
    done: set[int] = set()
    for wanted in (0, 3, 8, 16):
        with command(*words, cwd=here) as started:
            started.wait_until(
                lambda n=wanted: journal.exists() and len(journaled(here / "out")) >= n
            )
            started.process.kill()
            assert started.end()[0] == -9
        now = set(journaled(here / "out"))
        assert done <= now
        done = now
        if wanted:
            assert report_of(here / "out")["status"] == "Interrupted"
        assert not (here / "out" / "parallel_run_step.txt").exists()
    names = names_of(count)
    calls = {index: workplace.count(names[index]) for index in done}

    run = make_step(workplace).submit()
    assert run.wait_for_completion() == "Completed"
    assert workplace.row_counts() == Counter(names)
    assert run.report.kept == len(done)
    assert {index: workplace.count(names[index]) for index in done} == calls
    assert run.report.items.total == run.report.items.succeeded == count


FORMATS: dict[str, dict[str, Any]] = {
    "text": {},
    "csv": {"output_format": "csv", "process_count_per_node": 1},
    "jsonl": {"output_format": "jsonl", "ordered": True},
    "parquet": {"output_format": "parquet", "process_count_per_node": 1},
    "summary": {"output_action": "summary_only", "process_count_per_node": 1},
}

TABLE = """
import random, time
import pandas as pd

def run(mini_batch):
    names = [os.path.basename(path) for path in mini_batch]
    for name in names:
        mark(name)
    time.sleep(random.choice([0.0, 0.05]))
    return pd.DataFrame({"name": names, "number": [int(name[1:6]) for name in names]})
"""


@pytest.mark.parametrize("how", FORMATS)
@pytest.mark.usefixtures("no_daskprs_threads")
def test_a_canceled_run_goes_on_in_every_format(workplace: Any, how: str) -> None:
    """Each row once, in input order where that is wanted; then the run is reused."""
    workplace.script(TABLE)
    workplace.files(24)
    config = FORMATS[how]
    first = canceled_after(6, workplace, **config)
    done = journaled(workplace.output)
    second = make_step(workplace, **config).submit()
    assert second.wait_for_completion() == "Completed"
    expected = [(name, number) for number, name in enumerate(names_of(24))]
    kept = second.report.kept
    assert 6 <= kept == first.report.mini_batches.succeeded < 24
    assert all(workplace.count(expected[index][0]) == 1 for index in done)
    assert second.report.items.succeeded == 24
    if how == "summary":
        assert second.output_file is None
        assert [path.name for path in workplace.output.iterdir() if path.is_file()] == []
    else:
        assert second.output_file is not None
        rows = read_rows(Path(second.output_file))
        assert Counter(rows) == Counter(expected)
        assert not config.get("ordered") or rows == expected

    calls = sum(workplace.count(name) for name, _ in expected)
    third = make_step(workplace, **config).submit()
    assert third.wait_for_completion() == "Completed"
    assert third.report.reused
    assert third.report.items == second.report.items
    assert sum(workplace.count(name) for name, _ in expected) == calls


def read_rows(path: Path) -> list[tuple[str, int]]:
    if path.suffix == ".parquet":
        frame = pd.read_parquet(path)
        return list(zip(frame["name"], frame["number"], strict=True))
    text = path.read_text()
    if path.suffix == ".jsonl":
        objects = [json.loads(line) for line in text.splitlines()]
        return [(row["name"], row["number"]) for row in objects]
    rows = list(csv.reader(text.splitlines(), delimiter="," if path.suffix == ".csv" else " "))
    if path.suffix == ".csv":
        assert rows.pop(0) == ["name", "number"]
    return [(name, int(number)) for name, number in rows]


COUNTING = """
import sys

def run(mini_batch):
    mark("run")
    with open(os.path.join(os.path.dirname(__file__), "cache.txt"), "a") as stream:
        stream.write("x")
    return [os.path.basename(path) for path in mini_batch]
"""


class Reused:
    """A run whose surroundings are changed, and which then runs again or is reused."""

    def __init__(self, workplace: Any) -> None:
        self.workplace = workplace
        self.input: Path = workplace.files(3)
        self.script: Path = workplace.script(COUNTING)
        self.beside = self.script.parent / "weights.bin"
        self.model = workplace.folder / "model.bin"
        self.models = workplace.folder / "models"
        self.models.mkdir()
        self.side = workplace.folder / "side.txt"
        self.output = workplace.output / "parallel_run_step.txt"
        for path in (self.beside, self.model, self.models / "a", self.side):
            path.write_text("old")
        (self.script.parent / "cache.txt").write_text("")
        self.config: dict[str, Any] = {"process_count_per_node": 1}
        self.step: dict[str, Any] = {
            "arguments": ["--model", self.model, f"--models={self.models}"],
            "side_inputs": [str(self.side)],
        }

    def submit(self) -> bool:
        """Say whether the run was reused."""
        before = self.workplace.count("run")
        run = make_step(self.workplace, step=self.step, **self.config).submit()
        assert run.wait_for_completion() == "Completed"
        called = self.workplace.count("run") > before
        assert called != run.report.reused
        files = sorted(path.name for path in self.input.iterdir())
        assert sorted(self.workplace.rows()) == files
        return run.report.reused

    def change_in_place(self, path: Path) -> None:
        """Change a file, with the same size."""
        path.write_bytes(path.read_bytes()[::-1])


CHANGES: dict[str, Callable[[Reused], Any]] = {
    "an input file changed": lambda r: (r.input / "f00001.bin").write_bytes(b"changed"),
    "an input file was added": lambda r: (r.input / "new.bin").write_bytes(b"new"),
    "an input file was removed": lambda r: (r.input / "f00000.bin").unlink(),
    "the script changed": lambda r: r.script.write_text(r.script.read_text() + "\n# changed\n"),
    "a module beside it came": lambda r: (r.script.parent / "more.py").write_text("x = 1\n"),
    "a data file beside it changed": lambda r: r.change_in_place(r.beside),
    "a data file beside it is gone": lambda r: r.beside.unlink(),
    "a model in the arguments changed": lambda r: r.change_in_place(r.model),
    "a file in a folder in the arguments": lambda r: r.change_in_place(r.models / "a"),
    "a side input changed": lambda r: r.change_in_place(r.side),
    "another argument": lambda r: r.step["arguments"].append("--more"),
    "another mini_batch_size": lambda r: r.config.update(mini_batch_size=2),
    "another variable": lambda r: r.config.update(environment_variables={"A": "1"}),
    "the output was removed": lambda r: r.output.unlink(),
    "the output was changed": lambda r: r.output.write_text("less"),
}  # fmt: skip

NO_CHANGES: dict[str, Callable[[Reused], Any]] = {
    "nothing": lambda r: None,
    "limits": lambda r: r.config.update(error_threshold=0, allowed_failed_count=0, run_max_try=5),
    "timeouts": lambda r: r.config.update(run_invocation_timeout=5, init_timeout=6),
    "processes": lambda r: r.config.update(process_count_per_node=2, node_count=2),
    "words": lambda r: r.config.update(description="new", logging_level="DEBUG"),
    "what the script itself wrote": lambda r: (r.script.parent / "cache.txt").write_text("y"),
    "a notebook": lambda r: (r.script.parent / "notes.ipynb").write_text("{}"),
    "a new data file": lambda r: (r.script.parent / "unknown.bin").write_text("z"),
}


def test_a_finished_run_is_reused_until_something_changes_that_decides_its_rows(
    workplace: Any,
) -> None:
    """Thresholds, limits and process counts do not; the input, the script and its data do."""
    reused = Reused(workplace)
    assert not reused.submit()
    for what, change in NO_CHANGES.items():
        change(reused)
        assert (what, reused.submit()) == (what, True)
    reused.config["process_count_per_node"] = 1
    for what, change in CHANGES.items():
        change(reused)
        assert (what, reused.submit()) == (what, False)
        assert (what, reused.submit()) == (what, True)


FAILING = """
def run(mini_batch):
    name = os.path.basename(mini_batch[0])
    mark(name)
    if name == "f00001.bin":
        raise ValueError("bad")
    if name == "f00002.bin":
        return []
    return [name]
"""


def test_a_finished_run_is_not_reused_where_it_exceeds_a_threshold(workplace: Any) -> None:
    """With the new threshold it would have failed: so it runs, and fails."""
    workplace.script(FAILING)
    workplace.files(4)
    run = make_step(workplace, run_max_try=1).submit()
    assert run.wait_for_completion() == "Completed"
    reused = make_step(workplace, run_max_try=1, error_threshold=2).submit()
    assert reused.wait_for_completion() == "Completed"
    assert reused.report.reused
    assert reused.report.to_dict()["failures"] == run.report.to_dict()["failures"]
    assert workplace.count("f00001.bin") == 1
    again = make_step(workplace, run_max_try=1, error_threshold=1).submit()
    with pytest.raises(ThresholdExceededError, match="2 failed items exceed error_threshold=1"):
        again.wait_for_completion()
    assert workplace.count("f00001.bin") == 2
    # The rows of the run before are not lost.
    old = sorted(workplace.rows("parallel_run_step.txt.previous"))
    assert old == ["f00000.bin", "f00003.bin"]


def test_without_reuse_everything_runs_again_and_the_old_output_is_kept(workplace: Any) -> None:
    """The old rows and logs stand under *.previous."""
    workplace.script(COUNTING)
    workplace.files(3)
    assert make_step(workplace).submit().wait_for_completion() == "Completed"
    old = workplace.rows()
    (workplace.output / "logs" / "marker").write_text("old")
    run = make_step(workplace, step={"allow_reuse": False}).submit()
    assert run.wait_for_completion() == "Completed"
    assert workplace.count("run") == 6
    assert sorted(workplace.rows()) == sorted(old)
    assert workplace.rows("parallel_run_step.txt.previous") == old
    assert (workplace.output / "logs.previous" / "marker").read_text() == "old"
    assert not (workplace.output / "logs" / "marker").exists()


CHANGING = """
import time

def run(mini_batch):
    name = os.path.basename(mini_batch[0])
    mark(name)
    if name > "f00009.bin":
        time.sleep(0.3)
    return [] if name in ("f00001.bin", "f00002.bin", "f00003.bin") else [name]
"""


def test_an_unfinished_run_forgets_what_its_input_has_no_more(workplace: Any) -> None:
    """Neither its rows, nor its failed items, nor its failures are told."""
    workplace.script(CHANGING)
    inputs = workplace.files(20)
    canceled_after(10, workplace)
    # The last mini-batches are gone; one with a failed item is another one by now.
    (inputs / "f00001.bin").write_bytes(b"changed")
    for number in (18, 19):
        (inputs / f"f{number:05d}.bin").unlink()
    (inputs / "f00003.bin").unlink()
    run = make_step(workplace).submit()
    assert run.wait_for_completion() == "Completed"
    left = [n for n in names_of(18) if n not in ("f00001.bin", "f00002.bin", "f00003.bin")]
    assert workplace.row_counts() == Counter(left)
    report = run.report
    assert (report.items.total, report.items.failed, report.mini_batches.total) == (17, 2, 17)
    assert sorted(failure.mini_batch for failure in report.failures) == [1, 2]
    lines = (workplace.output / "logs" / "failed_items.jsonl").read_text().splitlines()
    items = [json.loads(line) for line in lines]
    told = sorted((item["mini_batch"], os.path.basename(item["path"])) for item in items)
    assert told == [(1, "f00001.bin"), (2, "f00002.bin")]
    assert workplace.count("f00001.bin") == 2
    assert workplace.count("f00002.bin") == 1


def test_a_data_file_that_changes_after_a_kill_makes_it_another_run(workplace: Any) -> None:
    """Even within the same second: rows of two models are never mixed."""
    here = workplace.folder
    workplace.script("DELAY = 0.4\n" + SLOW)
    (here / "scripts" / "log.txt").write_text("")
    (here / "scripts" / "model.bin").write_text("old")
    workplace.files(12)
    words = ["run", "scripts/score.py", "--files", "input", "--output", "out"]
    words += ["--mini-batch-size", 1, "--process-count-per-node", 2]
    with command(*words, cwd=here) as started:
        started.wait_until(lambda: len(journaled(here / "out")) >= 4)
        started.process.kill()
        started.end()
    (here / "scripts" / "model.bin").write_text("new")
    run = make_step(workplace).submit()
    assert run.wait_for_completion() == "Completed"
    assert run.report.kept == 0
    assert workplace.row_counts() == Counter(names_of(12))
