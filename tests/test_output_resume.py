"""A run on a local disk that was cut off anywhere goes on: every row is there once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from output_runs import (
    ENDED,
    FACTS,
    FORMATS,
    NAME,
    PLAN,
    content,
    missing_in,
    outcome,
    rows_in,
    run,
    start,
)

from daskprs.exceptions import OutputError
from daskprs.output import JOURNAL, open_store
from daskprs.output_folder import OutputFolder

EXPECTED = {
    "text": "".join(f"{row}\n" for rows in PLAN if rows for row in rows).encode(),
    "csv": 'a,b\n1,"x,\n"\n2,ü\n3,\n4,y\n5,z\n'.encode(),
    "jsonl": (
        '{"a": 1, "b": "x,\\n"}\n{"a": 2, "b": "ü"}\n{"a": 3, "b": ""}\n{"a": 4, "b": "y"}\n'
        '{"b": "z", "a": 5}\n'
    ).encode(),
    "parquet": [{"a": row["a"], "b": row["b"]} for rows in PLAN if rows for row in rows],
    None: None,
}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut files stand for what a crash leaves, so nothing needs to reach the disk."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def killed(path: Path, output_format: str | None, *, plan: Any = PLAN) -> OutputFolder:
    """Leave a folder as a run does that is killed when all is flushed, and nothing published."""
    folder = OutputFolder(path)
    folder.make()
    store = start(folder, output_format)
    for index, result in enumerate(plan):
        store.add(outcome(index, result, output_format))
        store.flush()
    store.close()
    return folder


def rows_path(path: Path, output_format: str | None) -> Path:
    return path / (".daskprs/rows" if output_format == "parquet" else f"{NAME}.partial")


def finish(folder: OutputFolder, output_format: str | None, *, ordered: bool = False) -> None:
    """Go on to the end, and see that all is there once, and nothing is left over."""
    journal = run(folder, output_format, ordered=ordered)
    assert content(folder, output_format) == EXPECTED[output_format]
    assert folder.size(f"{NAME}.partial") is None
    left = {name.removesuffix(".previous") for name in folder.sizes(".daskprs")}
    assert left <= {"journal.jsonl", "rows"}
    assert folder.size(".daskprs/rows") is None
    last = {index: journal.records.find(index) for index in range(len(PLAN))}
    failed = {at for at, position in last.items() if journal.records[position or 0].failed}
    assert failed == {index for index, result in enumerate(PLAN) if result is None}


@pytest.mark.parametrize("output_format", FORMATS)
def test_a_run_writes_the_rows_of_all_mini_batches(
    tmp_path: Path, output_format: str | None
) -> None:
    folder = OutputFolder(tmp_path / "new" / "out")
    folder.make()
    finish(folder, output_format)
    loaded = open_store(folder, NAME, output_format).load()
    assert loaded is not None
    assert (loaded.header, loaded.finished) == (FACTS, ENDED)
    assert loaded.size == folder.size(NAME)


@pytest.mark.parametrize("output_format", FORMATS)
def test_nothing_has_the_final_name_before_the_run_has_completed(
    tmp_path: Path, output_format: str | None
) -> None:
    folder = killed(tmp_path, output_format)
    store = start(folder, output_format)
    store.show_partial()
    store.close()
    assert not (tmp_path / NAME).exists()
    if output_format is not None:
        assert content(folder, output_format, f"{NAME}.partial") == EXPECTED[output_format]
    finish(folder, output_format)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("output_format", FORMATS)
def test_the_journal_can_be_cut_at_every_byte(
    tmp_path: Path, output_format: str | None, ordered: bool
) -> None:
    killed(tmp_path / "killed", output_format)
    journal = (tmp_path / "killed" / JOURNAL).read_bytes()
    step = 5 if output_format == "parquet" else 1 + ordered
    for end in range(ordered, len(journal) + 1, step):
        again = shutil.copytree(tmp_path / "killed", tmp_path / "again")
        (again / JOURNAL).write_bytes(journal[:end])
        finish(OutputFolder(again), output_format, ordered=ordered)
        shutil.rmtree(again)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("output_format", ["text", "csv", "jsonl", "parquet"])
def test_the_rows_can_be_cut_at_every_byte(
    tmp_path: Path, output_format: str, ordered: bool
) -> None:
    killed(tmp_path / "killed", output_format)
    rows = rows_path(tmp_path / "killed", output_format).read_bytes()
    for end in range(ordered, len(rows) + 1, 17 if output_format == "parquet" else 1):
        again = shutil.copytree(tmp_path / "killed", tmp_path / "again")
        rows_path(again, output_format).write_bytes(rows[:end])
        finish(OutputFolder(again), output_format, ordered=ordered)
        shutil.rmtree(again)


@settings(max_examples=60, deadline=None)
@given(
    output_format=st.sampled_from(["text", "csv", "jsonl", "parquet"]),
    journal_end=st.integers(0, 1000),
    rows_end=st.integers(0, 3000),
    junk=st.sampled_from([b"", b"\0" * 700, b"\xff\n[0]\n", b'[5,"', b'{"columns"', b"\n\n"]),
    ordered=st.booleans(),
)
def test_journal_and_rows_can_be_cut_both_with_junk_behind(
    tmp_path_factory: pytest.TempPathFactory,
    output_format: str,
    journal_end: int,
    rows_end: int,
    junk: bytes,
    ordered: bool,
) -> None:
    path = tmp_path_factory.mktemp("out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        folder = killed(path, output_format)
        journal, rows = path / JOURNAL, rows_path(path, output_format)
        journal.write_bytes(journal.read_bytes()[:journal_end] + junk)
        kept = rows.read_bytes()[:rows_end]
        # Rows that were synced stay what they are: junk is only behind them.
        rows.write_bytes(kept if len(kept) == rows_end else kept + junk)
        finish(folder, output_format, ordered=ordered)
    shutil.rmtree(path)


@settings(max_examples=40, deadline=None)
@given(
    output_format=st.sampled_from(FORMATS),
    stops=st.lists(st.tuples(st.integers(0, 9), st.booleans(), st.integers(0, 40)), max_size=5),
    ordered=st.booleans(),
)
def test_a_run_can_be_stopped_again_and_again(
    tmp_path_factory: pytest.TempPathFactory,
    output_format: str | None,
    stops: list[tuple[int, bool, int]],
    ordered: bool,
) -> None:
    path = tmp_path_factory.mktemp("out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        folder = OutputFolder(path)
        folder.make()
        for count, shown, cut in stops:
            store = start(folder, output_format)
            assert store.journal is not None
            # From the last one to the first: the order that the run was in is not that of the plan.
            for index in missing_in(store.journal)[::-1][:count]:
                store.add(outcome(index, PLAN[index], output_format))
                store.flush()
            if shown:
                store.show_partial()
            store.close()
            journal = path / JOURNAL
            journal.write_bytes(journal.read_bytes()[: journal.stat().st_size - cut])
        result = run(folder, output_format, ordered=ordered)
        got = rows_in(content(folder, output_format), output_format)
        expected = rows_in(EXPECTED[output_format], output_format)
        if not ordered:
            got.sort(key=repr)
            expected.sort(key=repr)
        assert got == expected
        assert all(PLAN[index] is None for index in missing_in(result))
    shutil.rmtree(path)


def test_a_file_of_rows_that_is_gone_is_made_again(tmp_path: Path) -> None:
    folder = killed(tmp_path, "csv")
    rows_path(tmp_path, "csv").unlink()
    finish(folder, "csv")


def test_a_header_line_is_written_again_when_its_record_is_lost(tmp_path: Path) -> None:
    folder = killed(tmp_path, "csv")
    journal = tmp_path / JOURNAL
    lines = journal.read_bytes().splitlines(keepends=True)
    at = next(n for n, text in enumerate(lines) if text.startswith(b'{"shape"'))
    journal.write_bytes(b"".join(lines[:at]))
    loaded = open_store(folder, NAME, "csv").load()
    assert loaded is not None
    assert (loaded.shape, len(loaded.records)) == (None, 2)
    finish(folder, "csv")


@pytest.mark.parametrize("output_format", FORMATS)
def test_an_output_without_rows_is_published(tmp_path: Path, output_format: str | None) -> None:
    folder = OutputFolder(tmp_path)
    folder.make()
    run(folder, output_format, plan=([], None))
    empty = {None: None, "parquet": []}
    assert content(folder, output_format) == empty.get(output_format, b"")
    loaded = open_store(folder, NAME, output_format).load()
    assert loaded is not None
    assert loaded.finished == ENDED


CHANGES: dict[str, Callable[[Path], object]] = {
    "removed": lambda path: path.unlink(),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"more"),
    "shorter": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "a folder now": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("output_format", ["text", "parquet"])
def test_a_finished_run_whose_output_was_changed_runs_again(
    tmp_path: Path, output_format: str, change: str
) -> None:
    folder = OutputFolder(tmp_path)
    folder.make()
    run(folder, output_format)
    CHANGES[change](tmp_path / NAME)
    changed = (tmp_path / NAME).read_bytes() if (tmp_path / NAME).is_file() else None
    loaded = open_store(folder, NAME, output_format).load()
    assert loaded is not None
    assert (loaded.finished, loaded.output_missing, loaded.header) == (None, True, FACTS)
    assert all(record.length <= 0 for record in loaded.records)
    start(folder, output_format).close()
    assert not (tmp_path / NAME).exists()
    finish(folder, output_format)
    if changed is not None:
        assert (tmp_path / f"{NAME}.previous").read_bytes() == changed


def test_a_finished_run_without_rows_needs_no_file(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path)
    folder.make()
    run(folder, None)
    (tmp_path / NAME).write_bytes(b"somebody else's")
    loaded = open_store(folder, NAME, None).load()
    assert loaded is not None
    assert (loaded.finished, loaded.output_missing) == (ENDED, False)
    assert folder.read(NAME) == b"somebody else's"


@pytest.mark.parametrize("output_format", FORMATS)
def test_a_new_run_moves_the_old_output_aside(tmp_path: Path, output_format: str | None) -> None:
    folder = killed(tmp_path, output_format)
    store = start(folder, output_format)
    store.show_partial()
    store.close()
    partial = folder.read(f"{NAME}.partial")
    (tmp_path / NAME).write_bytes(b"an older result")
    for _ in range(2):  # the second time there is nothing but empty files: they push nothing out
        store = open_store(folder, NAME, output_format)
        store.load()
        store.begin(FACTS)
        store.close()
        assert folder.read(f"{NAME}.partial.previous") == partial
        assert folder.read(f"{NAME}.previous") == b"an older result"
    finish(folder, output_format)


def test_a_run_with_another_name_leaves_the_finished_output_alone(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path)
    folder.make()
    run(folder, "text")
    store = open_store(folder, "other.csv", "csv")
    old = store.load()
    assert old is not None
    assert (old.name, old.output_format) == (NAME, "text")
    store.begin(FACTS)
    store.publish(None, ENDED)
    store.close()
    assert folder.read(NAME) == EXPECTED["text"]
    assert folder.read("other.csv") == b""


def test_facts_that_json_cannot_hold_are_refused_in_front_of_everything(tmp_path: Path) -> None:
    folder = killed(tmp_path, "text")
    store = open_store(folder, NAME, "text")
    store.load()
    with pytest.raises(TypeError, match="not JSON serializable"):
        store.begin({"when": object()})
    finish(folder, "text")


def test_only_the_same_output_goes_on(tmp_path: Path) -> None:
    folder = killed(tmp_path, "text")
    for name, output_format in (("other.out", "text"), (NAME, "csv")):
        store = open_store(folder, name, output_format)
        store.load()
        with pytest.raises(ValueError, match="another output"):
            store.resume()


@pytest.mark.parametrize("name", ["../up", "a/../../b", "/etc/x", "a//b", "./b", "a\0b"])
def test_a_name_in_the_journal_cannot_lead_out_of_the_folder(tmp_path: Path, name: str) -> None:
    outside = tmp_path / "up.partial"
    outside.write_bytes(b"not ours")
    folder = killed(tmp_path / "out", "text")
    journal = tmp_path / "out" / JOURNAL
    text = journal.read_text().replace(NAME, name.replace("\0", "\\u0000"))
    journal.write_text(text)
    store = open_store(folder, NAME, "text")
    with pytest.raises(OutputError, match="no name inside"):
        store.load()
    assert outside.read_bytes() == b"not ours"
