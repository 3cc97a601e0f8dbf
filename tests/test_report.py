"""What a report says of a run that has not come to its end: totals are those of the plan."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import command, daskprs, journaled, report_of

from daskprs import FileDataset, ParallelRun, ParallelRunConfig, ParallelRunStep, TabularDataset
from daskprs.mini_batches import MiniBatch
from daskprs.pieces import FilePaths
from daskprs.planner import Planner
from daskprs.report import RunCounts

SLOW = """
import time

def run(mini_batch):
    time.sleep(0.15)
    if BAD in str(mini_batch):
        raise ValueError("bad")
    return list(range(len(mini_batch)))
"""
COUNT = 20


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        (RunCounts(6, 6, 0), "6 of 6 succeeded"),
        (RunCounts(6, 5, 1), "5 of 6 succeeded, 1 failed"),
        (RunCounts(20, 6, 1), "6 of 20 succeeded, 1 failed, 13 not run"),
        (RunCounts(2000, 0, 0), "0 of 2,000 succeeded, 2,000 not run"),
        (RunCounts(None, 1200, 5), "1,200 succeeded, 5 failed so far"),
        (RunCounts(None, 0, 0), "0 succeeded so far"),
    ],
)
def test_counts_say_what_is_left_and_no_total_that_nobody_knows(
    counts: RunCounts, said: str
) -> None:
    assert counts.told("not run") == said


def planner_of(items: list[int | None], go_on: threading.Event) -> Planner:
    def mini_batches() -> Iterator[MiniBatch]:
        for index, count in enumerate(items):
            yield MiniBatch(index, "key", FilePaths(("path",)), count, None)
        go_on.wait(10)

    return Planner(mini_batches(), lambda mini_batch: mini_batch, threading.Event())


@pytest.mark.parametrize(("items", "totals"), [([2, 3], (2, 5)), ([2, None, 3], (3, None))])
def test_a_plan_knows_its_totals_at_its_end(items: list[int | None], totals: Any) -> None:
    go_on = threading.Event()
    planner = planner_of(items, go_on)
    try:
        planner.wait(0.05)
        assert planner.totals == (None, None)
        go_on.set()
        planner.wait(10)
        assert planner.totals == totals
    finally:
        planner.stop()


def test_a_plan_that_was_stopped_knows_no_totals() -> None:
    def endless() -> Iterator[MiniBatch]:
        while True:
            yield MiniBatch(0, "key", FilePaths(("path",)), 1, None)

    planner = Planner(endless(), lambda mini_batch: mini_batch, threading.Event())
    planner.stop()
    assert (planner.is_complete, planner.totals) == (True, (None, None))


def started(workplace: Any, inputs: list[Any], bad: str = "nothing", **config: Any) -> ParallelRun:
    script = workplace.script(f"BAD = {bad!r}\n{SLOW}")
    settings = {"process_count_per_node": 1, "run_max_try": 1, "mini_batch_size": 1, **config}
    given = ParallelRunConfig(entry_script=script, **settings)
    return ParallelRunStep("report", given, inputs=inputs, output=workplace.output).submit()


def wait_for_a_success(run: ParallelRun) -> None:
    deadline = time.monotonic() + 30
    while not run.progress.done:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def on_disk(workplace: Any) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((workplace.output / "logs/report.json").read_text())
    return report


def test_after_a_failure_the_rest_of_the_plan_is_told_as_not_run(workplace: Any) -> None:
    files = FileDataset(workplace.files(COUNT))
    run = started(workplace, [files], bad="f00002.bin", error_threshold=0)
    assert run.wait_for_completion(raise_on_error=False) == "Failed"
    batches, items = run.report.mini_batches, run.report.items
    assert (batches.total, items.total, batches.failed, items.failed) == (COUNT, COUNT, 1, 1)
    done = batches.succeeded
    assert done < COUNT - 1
    said = f"{done} of {COUNT} succeeded, 1 failed, {COUNT - 1 - done} not run"
    assert f"Mini-batches  {said}\nItems         {said}\n" in str(run.report)
    assert on_disk(workplace)["items"] == {"total": COUNT, "succeeded": done, "failed": 1}


def test_the_rows_of_tables_have_a_total_when_all_are_read(workplace: Any) -> None:
    """Before that, only the mini-batches have one, also when the run is canceled."""
    folder = workplace.folder / "tables"
    folder.mkdir()
    for number in range(COUNT):
        (folder / f"t{number:02d}.csv").write_text("x\n1\n2\n")
    run = started(workplace, [TabularDataset(folder)], mini_batch_size="1KB")
    wait_for_a_success(run)
    now = run.report
    assert (now.status, now.mini_batches.total, now.items.total) == ("Running", COUNT, None)
    assert f"\nItems         {now.items.succeeded} succeeded so far\n" in str(now)
    assert f"{COUNT - now.mini_batches.succeeded} not done yet\n" in str(now)
    run.cancel()
    assert run.wait_for_completion(raise_on_error=False) == "Canceled"
    told = on_disk(workplace)
    done = told["mini_batches"]["succeeded"]
    assert told["mini_batches"] == {"total": COUNT, "succeeded": done, "failed": 0}
    assert told["items"] == {"total": None, "succeeded": 2 * done, "failed": 0}
    last = started(workplace, [TabularDataset(folder)], mini_batch_size="1KB")
    assert last.wait_for_completion() == "Completed"
    assert (last.report.mini_batches.total, last.report.items.total) == (COUNT, 2 * COUNT)


def test_a_killed_run_tells_the_totals_of_its_plan_from_the_first_report_on(
    workplace: Any,
) -> None:
    """And names the file of rows only when there is one."""
    here: Path = workplace.folder
    workplace.script(f"BAD = 'nothing'\n{SLOW}")
    workplace.files(COUNT)
    words = ["run", "scripts/score.py", "--files", "input", "--output", "out"]
    words += ["--mini-batch-size", 1, "--process-count-per-node", 1]
    first_report = workplace.output / "logs/report.json"
    for wanted in (0, 3):
        with command(*words, cwd=here) as running:
            running.wait_until(
                lambda n=wanted: first_report.exists() and len(journaled(workplace.output)) >= n
            )
            now = report_of(workplace.output) if wanted else None
            running.process.kill()
            assert running.end()[0] == -9
        told = report_of(workplace.output)
        assert told["status"] == "Interrupted"
        assert told["mini_batches"]["total"] == told["items"]["total"] == COUNT
        is_there = bool(journaled(workplace.output))
        assert (told["output_file"] is not None) == is_there == bool(wanted)
        if now is not None:
            assert (now["status"], now["items"]["total"]) == ("Running", COUNT)
            assert now["output_file"] == told["output_file"]
    said = daskprs("report", "out", cwd=here).stdout
    assert f"of {COUNT} succeeded, " in said
    assert " not run\n" in said
