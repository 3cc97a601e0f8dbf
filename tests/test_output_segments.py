"""In a store, too, a run that was cut off anywhere goes on: every row is there once."""

from __future__ import annotations

import contextlib
import gc
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from output_runs import (
    ENDED,
    FACTS,
    FORMATS,
    NAME,
    PLAN,
    content,
    key_of,
    missing_in,
    outcome,
    rows_in,
    run,
    start,
)
from stores import STORES, Killed, StoreError, fault, new_store

from daskprs.exceptions import OutputError, WriteFailedError
from daskprs.journal import Journal, header_line, piece_head_line, record_line
from daskprs.output import JOURNAL, open_store
from daskprs.output_folder import OutputFolder
from daskprs.records import Record

SEGMENTS = ".daskprs/segments"


@pytest.fixture(params=STORES)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder(kind: str) -> Iterator[OutputFolder]:
    with new_store(kind) as url:
        folder = OutputFolder(url)
        folder.make()
        yield folder


@pytest.fixture
def memory() -> Iterator[OutputFolder]:
    with new_store("memory") as url:
        folder = OutputFolder(url)
        folder.make()
        yield folder


def expected_of(output_format: str | None) -> object:
    """Tell the output of a run that nothing disturbs."""
    with new_store("memory") as url:
        folder = OutputFolder(url)
        run(folder, output_format)
        return content(folder, output_format)


def killed(folder: OutputFolder, output_format: str | None) -> None:
    """Leave a folder as a run does that is killed when all is flushed, and nothing published."""
    store = start(folder, output_format)
    for index, result in enumerate(PLAN):
        store.add(outcome(index, result, output_format))
        if index % 2:
            store.flush()
    store.close()


def snapshot(folder: OutputFolder) -> dict[str, bytes]:
    fs, path = fsspec.core.url_to_fs(folder.url)
    return {name: fs.cat_file(name) for name in fs.find(path)}


def restore(folder: OutputFolder, files: dict[str, bytes]) -> None:
    fs, path = fsspec.core.url_to_fs(folder.url)
    for name in fs.find(path):
        fs.rm_file(name)
    for name, data in files.items():
        fs.pipe_file(name, data)


def finish(
    folder: OutputFolder, output_format: str | None, expected: object, *, ordered: bool = False
) -> None:
    """Go on to the end, and see that all is there once, and nothing is left over."""
    journal = run(folder, output_format, ordered=ordered)
    got = content(folder, output_format)
    rows = rows_in(got, output_format)
    assert sorted(rows, key=repr) == sorted(rows_in(expected, output_format), key=repr)
    if ordered:
        assert got == expected
    if output_format == "csv":
        assert got.startswith(b"a,b\n")
    assert [PLAN[index] for index in missing_in(journal)] == [None, None]
    assert set(folder.sizes(".daskprs")) == {"journal.jsonl"}
    assert folder.sizes(SEGMENTS) == {}
    assert folder.size(f"{NAME}.partial") is None


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("output_format", FORMATS)
def test_a_run_writes_the_rows_of_all_mini_batches(
    folder: OutputFolder, output_format: str | None, ordered: bool
) -> None:
    finish(folder, output_format, expected_of(output_format), ordered=ordered)
    loaded = open_store(folder, NAME, output_format).load()
    assert loaded is not None
    assert (loaded.header, loaded.finished) == (FACTS, ENDED)
    assert loaded.size == folder.size(NAME)


@pytest.mark.parametrize("output_format", FORMATS)
def test_nothing_has_the_final_name_before_the_run_has_completed(
    folder: OutputFolder, output_format: str | None
) -> None:
    killed(folder, output_format)
    expected = expected_of(output_format)
    store = start(folder, output_format)
    store.show_partial()
    store.close()
    assert folder.size(NAME) is None
    if output_format is not None:
        assert content(folder, output_format, f"{NAME}.partial") == expected
    finish(folder, output_format, expected)


@pytest.mark.parametrize("output_format", ["csv", "parquet", None])
def test_each_object_can_be_cut_at_every_byte_or_be_missing(
    memory: OutputFolder, output_format: str | None
) -> None:
    killed(memory, output_format)
    files, expected = snapshot(memory), expected_of(output_format)
    for name, data in files.items():
        step = 37 if output_format == "parquet" else 5
        for end in (None, *range(0, len(data), step)):
            others = {other: files[other] for other in files if other != name}
            restore(memory, others if end is None else {**others, name: data[:end]})
            finish(memory, output_format, expected, ordered=end == 0)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("output_format", ["csv", "parquet", None])
def test_a_run_can_be_killed_at_every_call_to_the_store(
    folder: OutputFolder, kind: str, output_format: str | None, after: bool
) -> None:
    expected = expected_of(output_format)
    at = calls = 0
    while calls >= at:
        at += 1
        restore(folder, {})
        with fault(kind, at, after=after, killed=True) as count:
            with contextlib.suppress(Killed):
                run(folder, output_format)
            # What the dead process held does not reach the store when it is collected.
            gc.collect(1)
            calls = count()
        loaded = open_store(folder, NAME, output_format).load()
        finished = loaded is not None and loaded.finished is not None
        if output_format is not None:
            assert content(folder, output_format) == (expected if finished else None)
        finish(folder, output_format, expected)
    assert at >= 9


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("output_format", ["csv", "parquet", None])
def test_an_error_at_any_call_ends_the_run_and_the_next_one_goes_on(
    folder: OutputFolder, kind: str, output_format: str | None, after: bool
) -> None:
    expected = expected_of(output_format)
    errors = calls = 0
    while calls >= errors:
        errors += 1
        restore(folder, {})
        cause: BaseException | None = None
        with fault(kind, errors, after=after, killed=False) as count:
            try:
                run(folder, output_format)
            except (OutputError, WriteFailedError) as error:
                cause = error.__cause__
            gc.collect(1)
            calls = count()
        assert cause is None or isinstance(cause.__cause__, StoreError)
        assert content(folder, output_format) == (expected if cause is None else None)
        finish(folder, output_format, expected)
    assert errors >= 9


@pytest.mark.parametrize("after", [False, True])
def test_a_flush_that_failed_can_be_tried_again(memory: OutputFolder, after: bool) -> None:
    for at in range(1, 3):
        restore(memory, {})
        store = start(memory, "csv")
        with fault("memory", at, after=after, killed=False):
            store.add(outcome(2, PLAN[2], "csv"))
            with pytest.raises(WriteFailedError, match="when the store takes it again"):
                store.flush()
            store.add(outcome(3, PLAN[3], "csv"))
            store.flush()
        store.publish(None, ENDED)
        store.close()
        assert memory.read(NAME) == 'a,b\n1,"x,\n"\n2,ü\n3,\n'.encode()


@pytest.mark.parametrize("kind_of_object", [".rows", ".journal"])
def test_what_a_given_up_process_has_sent_may_arrive_at_any_time(
    memory: OutputFolder, kind_of_object: str
) -> None:
    killed(memory, "csv")
    late = {n: memory.read(f"{SEGMENTS}/{n}") or b"" for n in sorted(memory.sizes(SEGMENTS))[-2:]}
    for name in late:
        memory.remove(f"{SEGMENTS}/{name}")
    store = start(memory, "csv")
    for index in (3, 5):
        store.add(outcome(index, PLAN[index], "csv"))
        store.flush()
        for name, data in late.items():
            if name.endswith(kind_of_object):
                memory.write(f"{SEGMENTS}/{name}", data)
    store.close()
    finish(memory, "csv", expected_of("csv"))


@pytest.mark.parametrize("change", ["removed", "longer"])
def test_a_finished_run_whose_output_was_changed_runs_again(
    folder: OutputFolder, change: str
) -> None:
    run(folder, "text")
    expected = folder.read(NAME)
    assert expected is not None
    if change == "removed":
        folder.remove(NAME)
    else:
        folder.write(NAME, expected + b"more")
    loaded = open_store(folder, NAME, "text").load()
    assert loaded is not None
    assert (loaded.finished, loaded.output_missing, len(loaded.records)) == (None, True, 0)
    start(folder, "text").close()
    assert folder.size(NAME) is None
    finish(folder, "text", expected)
    kept = None if change == "removed" else expected + b"more"
    assert folder.read(f"{NAME}.previous") == kept


def test_a_new_run_moves_the_old_output_aside(folder: OutputFolder) -> None:
    run(folder, "text")
    expected = folder.read(NAME)
    store = open_store(folder, NAME, "csv")
    store.load()
    store.begin(FACTS)
    assert (folder.read(NAME), folder.read(f"{NAME}.previous")) == (None, expected)
    store.close()


def test_segments_of_earlier_runs_count_for_nothing_and_are_removed(memory: OutputFolder) -> None:
    killed(memory, "text")
    old = {name: memory.read(f"{SEGMENTS}/{name}") for name in memory.sizes(SEGMENTS)}
    store = open_store(memory, NAME, "text")
    store.load()
    store.begin({"another": "run"})
    assert memory.sizes(SEGMENTS) == {}
    # A run that is killed just here has not removed them yet.
    for name, data in old.items():
        memory.write(f"{SEGMENTS}/{name}", data or b"")
    loaded = open_store(memory, NAME, "text").load()
    assert loaded is not None
    assert (loaded.header, list(loaded.records)) == ({"another": "run"}, [])
    store.close()


def test_a_long_run_makes_ever_larger_segments(memory: OutputFolder) -> None:
    store = start(memory, "text")
    assert store.flush_seconds == 5
    seconds, segments = 0.0, 0
    while seconds < 7 * 86400:
        if segments < 1000:
            store.add(outcome(segments, ["x"], "text"))
            store.flush()
            seconds += store.flush_seconds
        else:  # as many more as it would take, without writing them
            seconds += 5 * segments / 100
        segments += 1
    store.close()
    assert segments < 6000
    assert store.flush_seconds == 50


def test_many_mini_batches_without_rows_are_written_before_they_fill_the_memory(
    memory: OutputFolder,
) -> None:
    store = start(memory, None)
    store.flush_bytes = 10_000
    for index in range(1000):
        store.add(outcome(index, [], None))
        if store.flush_is_due:
            break
    assert 100 < index < 500
    store.close()


def test_the_journal_of_a_finished_run_is_not_put_together_in_memory(tmp_path: Path) -> None:
    options = {"path": str(tmp_path), "target_protocol": "file"}
    store = start(OutputFolder("dir://out", options), None)
    assert store.journal is not None
    for index in range(100_000):
        store.journal.records.append(index, key_of(index), 0, 1, 1)
    tracemalloc.start()
    store.publish(None, ENDED)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    store.close()
    assert (tmp_path / "out" / JOURNAL).stat().st_size > 3_000_000
    assert most < 6_000_000  # as for ten times as many
    loaded = open_store(OutputFolder("dir://out", options), NAME, None).load()
    assert loaded is not None
    assert loaded.finished == ENDED


def test_rows_in_order_are_read_once_from_each_segment(
    memory: OutputFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = start(memory, "text")
    for index in range(200):
        # Neighbours change places, as mini-batches do that run at the same time.
        store.add(outcome(index ^ 3, [f"row {index ^ 3}"], "text"))
        if index % 10 == 9:
            store.flush()
    assert store.journal is not None
    order = list(store.journal.records.by_index())
    reads: list[str] = []
    monkeypatch.setattr(
        memory, "read", lambda name, read=memory.read: (reads.append(name), read(name))[1]
    )
    store.publish(order, ENDED)
    store.close()
    assert memory.read(NAME) == "".join(f"row {index}\n" for index in range(200)).encode()
    assert sum(name.endswith(".rows") for name in reads) == 20


def test_many_records_are_read_in_seconds(memory: OutputFolder) -> None:
    journal = Journal({}, NAME, "text", segments="abc")
    memory.write(JOURNAL, header_line(journal))
    for number in range(200):
        records = [Record(number * 1000 + i, "0123456789abcdef", 0, 1, 1) for i in range(1000)]
        piece = piece_head_line(1000, 0, None) + b"".join(map(record_line, records))
        memory.write(f"{SEGMENTS}/abc-{number:06d}-1234abcd.journal", piece)
    started = time.process_time()
    loaded = open_store(memory, NAME, "text").load()
    assert time.process_time() - started < 5  # 0.5 on a quiet machine
    assert loaded is not None
    assert len(loaded.records) == 200_000
