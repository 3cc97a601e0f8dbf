"""What a store takes, in which order it publishes, and when it makes things safe."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from output_runs import ENDED, NAME, content, key_of, outcome, start

from daskprs.exceptions import WriteFailedError
from daskprs.output import JOURNAL
from daskprs.output_folder import OutputFolder


@pytest.fixture
def folder(tmp_path: Path) -> OutputFolder:
    folder = OutputFolder(tmp_path)
    folder.make()
    return folder


def test_a_mini_batch_that_is_reported_twice_is_written_once(folder: OutputFolder) -> None:
    store = start(folder, "text")
    for result in (["first"], ["second"], None):
        store.add(outcome(0, result, "text"))
        store.flush()
    store.publish(None, ENDED)
    store.close()
    assert folder.read(NAME) == b"first\n"


@pytest.mark.parametrize("output_format", ["text", "parquet"])
def test_of_two_mini_batches_with_one_index_the_last_one_counts(
    folder: OutputFolder, output_format: str
) -> None:
    store = start(folder, output_format)
    for key, result in (("old", [1]), ("new", [2, 3]), ("newest", [4])):
        store.add(outcome(0, result, output_format, key=key))
    store.add(outcome(1, [5], output_format, key="gone"))
    store.add(outcome(1, None, output_format, key="failing now"))
    store.show_partial()
    store.publish(None, ENDED)
    store.close()
    expected = [{"result": 4}] if output_format == "parquet" else b"4\n"
    assert content(folder, output_format) == expected


def test_rows_are_published_in_the_order_that_is_asked_for(folder: OutputFolder) -> None:
    store = start(folder, "csv")
    for index in (3, 0, 2, 1):
        store.add(outcome(index, [{"n": index}] if index else None, "csv"))
    store.publish([2, 0, 1], ENDED)
    store.close()
    assert folder.read(NAME) == b"n\n2\n3\n"


@pytest.mark.parametrize("order", [[0, 0], [2], [-1]])
def test_an_order_with_a_position_twice_is_refused(folder: OutputFolder, order: list[int]) -> None:
    store = start(folder, "text")
    store.add(outcome(0, [1], "text"))
    store.add(outcome(1, [2], "text"))
    with pytest.raises(ValueError, match="position"):
        store.publish(order, ENDED)
    store.close()
    assert folder.read(NAME) is None


def test_behind_the_end_there_is_nothing_to_add_or_show(folder: OutputFolder) -> None:
    store = start(folder, "parquet")
    store.add(outcome(0, [{"a": 1}], "parquet"))
    store.publish(None, ENDED)
    store.show_partial()
    for action in (
        lambda: store.add(outcome(1, [{"a": 2}], "parquet")),
        lambda: store.publish(None, ENDED),
        store.resume,
    ):
        with pytest.raises(ValueError, match=r"comes first|nothing to go on with"):
            action()
    store.close()
    assert folder.size(f"{NAME}.partial") is None
    assert content(folder, "parquet") == [{"a": 1}]


def test_a_flush_is_due_after_a_while_or_many_bytes(folder: OutputFolder) -> None:
    store = start(folder, "text")
    assert not store.flush_is_due
    store.add(outcome(0, ["x"], "text"))
    assert not store.flush_is_due
    store.add(outcome(1, ["x" * store.flush_bytes], "text"))
    assert store.flush_is_due
    store.flush()
    assert not store.flush_is_due
    store.close()


def test_rows_are_on_the_disk_before_the_journal_tells_of_them(
    folder: OutputFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = start(folder, "text")
    calls: list[tuple[str, str]] = []
    paths = (tmp_path / f"{NAME}.partial", tmp_path / JOURNAL)
    names = {path.stat().st_ino: path.name for path in paths}
    for name in ("write", "fsync"):
        monkeypatch.setattr(os, name, recorded(name, names, calls))
    store.add(outcome(0, ["x"], "text"))
    store.flush()
    rows, journal = f"{NAME}.partial", "journal.jsonl"
    assert calls == [("write", rows), ("fsync", rows), ("write", journal), ("fsync", journal)]
    store.close()


def recorded(name: str, names: dict[int, str], calls: list[tuple[str, str]]) -> Callable[..., Any]:
    function = getattr(os, name)

    def wrapped(handle: int, *args: Any) -> Any:
        calls.append((name, names[os.fstat(handle).st_ino]))
        return function(handle, *args)

    return wrapped


def test_two_runs_that_write_the_same_file_are_noticed(
    folder: OutputFolder, tmp_path: Path
) -> None:
    start(folder, "text").close()
    one, other = start(folder, "text"), start(folder, "text")
    one.add(outcome(20, ["one"], "text"))
    one.flush()
    other.add(outcome(21, ["other"], "text"))
    with pytest.raises(WriteFailedError, match="something else has written"):
        other.flush()
    one.close()
    other.close()
    assert key_of(21) not in (tmp_path / JOURNAL).read_text()
