"""The output after a retry is that of a run in which nothing has failed."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from output_runs import FORMATS, NAME, content, rows_in
from retry_runs import BAD, BAD_ITEMS, ITEMS, SHORT, run
from stores import Killed, StoreError, fault, new_store

from daskprs.exceptions import OutputError, WriteFailedError
from daskprs.journal import Journal
from daskprs.output import JOURNAL, open_store
from daskprs.output_folder import OutputFolder
from daskprs.reuse import tally_of

ITEM_COUNT = sum(map(len, ITEMS))


@pytest.fixture(params=["disk", "memory", "closing"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OutputFolder]:
    if request.param == "disk":
        folder = OutputFolder(tmp_path / "out")
        folder.make()
        yield folder
        return
    with new_store(request.param) as url:
        folder = OutputFolder(url)
        folder.make()
        yield folder


def never_failed(output_format: str | None, ordered: bool) -> Any:
    with new_store("memory") as url:
        folder = OutputFolder(url)
        run(folder, output_format, {}, ordered=ordered)
        return content(folder, output_format)


def failed_items(journal: Journal) -> int:
    return tally_of(journal.records).items.failed


@pytest.mark.parametrize("output_format", FORMATS)
@pytest.mark.parametrize("ordered", [False, True])
def test_only_what_failed_runs_again_and_its_rows_stand_in_their_place(
    folder: OutputFolder, output_format: str | None, ordered: bool
) -> None:
    """In two steps; nothing is left behind after the last."""
    first = run(folder, output_format, BAD, ordered=ordered)
    assert failed_items(first) == BAD_ITEMS
    ran: dict[int, Any] = {}
    second = run(
        folder, output_format, {2: {1}, 3: {2}}, retry=True, ordered=ordered, ran=ran.__setitem__
    )
    assert ran == {0: ((1, 2),), 2: None, 3: ((0, 1), (2, 3), (3, 4)), 4: None}
    assert failed_items(second) == 2
    ran = {}
    last = run(folder, output_format, {}, retry=True, ordered=ordered, ran=ran.__setitem__)
    assert ran == {2: ((1, 2),), 3: ((2, 3),)}
    assert (failed_items(last), tally_of(last.records).items.total) == (0, ITEM_COUNT)
    found, expected = content(folder, output_format), never_failed(output_format, ordered)
    if ordered:
        assert found == expected
    else:
        assert sorted(rows_in(found, output_format)) == sorted(rows_in(expected, output_format))
    left = set(folder.sizes(".daskprs")) - {"journal.jsonl"}
    assert (left, folder.sizes(".daskprs/segments")) == (set(), {})
    assert folder.size(f"{NAME}.partial") is None


def test_rows_of_a_mini_batch_stand_together_also_without_an_order(folder: OutputFolder) -> None:
    run(folder, "jsonl", BAD)
    run(folder, "jsonl", {}, retry=True)
    found = [int(dict(row)["a"]) for row in rows_in(content(folder, "jsonl"), "jsonl")]
    starts = [found.index(items[0]["a"]) for items in ITEMS]
    for start, items in zip(starts, ITEMS, strict=True):
        assert found[start : start + len(items)] == [item["a"] for item in items]


def test_a_result_that_is_worse_than_the_one_before_changes_nothing(folder: OutputFolder) -> None:
    """Too few rows again are taken; no rows at all are not."""
    run(folder, "text", {4: SHORT}, ordered=True)
    before = content(folder, "text")
    for bad in ({4: {0, 1}}, {4: SHORT}):
        journal = run(folder, "text", bad, retry=True, ordered=True)
        assert (content(folder, "text"), failed_items(journal)) == (before, 1)


def test_the_output_stays_until_another_takes_its_place(folder: OutputFolder) -> None:
    run(folder, "csv", BAD)
    before = content(folder, "csv")

    def look() -> None:
        assert content(folder, "csv") == before

    run(folder, "csv", {}, retry=True, step=look)
    assert content(folder, "csv") != before
    assert folder.size(f"{NAME}.previous") is None


def test_a_retry_that_was_interrupted_goes_on_without_being_told_to_retry(
    folder: OutputFolder,
) -> None:
    """It is the run that the retry has made of it, and what has failed before still runs again."""
    run(folder, "text", BAD, ordered=True)
    count = 0

    def stop() -> None:
        nonlocal count
        count += 1
        if count == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(folder, "text", {}, retry=True, ordered=True, step=stop)
    loaded = open_store(folder, NAME, "text").load()
    assert loaded is not None
    assert (loaded.finished, loaded.header) == (None, {"run": "again"})
    ran: dict[int, Any] = {}
    run(folder, "text", {}, ordered=True, ran=ran.__setitem__)
    assert set(ran) <= {0, 3, 4}
    assert ran[3] == ((0, 1), (2, 3), (3, 4))
    assert content(folder, "text") == never_failed("text", True)


@pytest.mark.parametrize("ordered", [False, True])
def test_rows_that_are_gone_or_changed_are_told_of_and_nothing_is_touched(
    tmp_path: Path, ordered: bool
) -> None:
    """Without order the rows are in the output alone; with it they are kept beside it."""
    folder = OutputFolder(tmp_path / "out")
    folder.make()
    run(folder, "text", BAD, ordered=ordered)
    output, journal = tmp_path / "out" / NAME, tmp_path / "out" / JOURNAL
    if ordered:
        (tmp_path / "out/.daskprs/rows").unlink()
    else:
        output.write_bytes(b"".join(sorted(output.read_bytes().splitlines(keepends=True))))
    before = output.read_bytes(), journal.read_bytes()
    with pytest.raises(OutputError, match="cannot be run alone"):
        run(folder, "text", {}, retry=True, ordered=ordered)
    assert (output.read_bytes(), journal.read_bytes()) == before
    again = open_store(folder, NAME, "text").load()
    assert again is not None
    assert again.finished is not None


def test_segments_that_are_gone_are_told_of() -> None:
    with new_store("memory") as url:
        folder = OutputFolder(url)
        run(folder, "text", BAD)
        for name in folder.sizes(".daskprs/segments"):
            folder.remove(f".daskprs/segments/{name}")
        with pytest.raises(OutputError, match="cannot be run alone"):
            run(folder, "text", {}, retry=True)


def test_a_run_that_begins_from_the_beginning_removes_rows_that_were_kept(
    folder: OutputFolder,
) -> None:
    run(folder, "text", BAD, ordered=True)
    store = open_store(folder, NAME, "text")
    store.load()
    store.begin({"run": "another"})
    store.close()
    assert folder.size(".daskprs/rows") is None
    assert folder.sizes(".daskprs/segments") == {}


def test_an_output_that_was_removed_is_made_again_with_what_had_failed(
    folder: OutputFolder,
) -> None:
    """Rows that were kept need not run again for it."""
    run(folder, "text", BAD, ordered=True)
    folder.remove(NAME)
    ran: dict[int, Any] = {}
    run(folder, "text", {}, retry=True, ordered=True, ran=ran.__setitem__)
    assert set(ran) == set(BAD)
    assert content(folder, "text") == never_failed("text", True)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("output_format", ["csv", "parquet"])
def test_a_retry_in_a_store_survives_a_fault_in_any_call(
    output_format: str, killed: bool, after: bool
) -> None:
    """The output is the old one or the new one at any time, and the next retry ends it."""
    expected = never_failed(output_format, True)
    for at in range(1, 200):
        with new_store("memory") as url:
            folder = OutputFolder(url)
            run(folder, output_format, BAD, ordered=True)
            before = content(folder, output_format)
            with fault("memory", at, after=after, killed=killed) as calls:
                with contextlib.suppress(Killed, StoreError, WriteFailedError, OutputError):
                    run(folder, output_format, {}, retry=True, ordered=True)
                count = calls()
            assert content(folder, output_format) in (before, expected)
            run(folder, output_format, {}, retry=True, ordered=True)
            assert content(folder, output_format) == expected
            if count < at:
                break
    assert 5 < at < 199


@pytest.mark.parametrize(
    ("output_format", "order", "step"),
    [("text", "as-done", 1), ("csv", "ordered", 2), ("jsonl", "as-done", 3),
     ("parquet", "ordered", 3), ("none", "as-done", 3)],
)  # fmt: skip
def test_a_retry_that_is_killed_anywhere_loses_and_doubles_nothing(
    tmp_path: Path, output_format: str, order: str, step: int
) -> None:
    program = Path(__file__).with_name("retry_runs.py")
    words = [sys.executable, str(program), str(tmp_path), output_format, order, str(step)]
    kept = {n: v for n, v in os.environ.items() if n != "PYTHONDONTWRITEBYTECODE"}
    told = subprocess.run(words, capture_output=True, text=True, env=kept, timeout=120, check=False)
    assert told.returncode == 0, told.stderr[-3000:]
    assert int(told.stdout) > 20 / step
