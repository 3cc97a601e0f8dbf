"""Records and the files below them are what was written, with a few pages of it in memory."""

from __future__ import annotations

import contextlib
import gc
import os
import stat
import struct
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from output_runs import NAME, run
from stores import new_store

from daskprs import paged_file
from daskprs.exceptions import WriteFailedError
from daskprs.output_folder import OutputFolder
from daskprs.paged_file import MOST_PAGES, PAGE, PagedFile
from daskprs.records import Record, Records

writes = st.lists(st.tuples(st.integers(0, 300), st.binary(max_size=60)), max_size=40)


@contextlib.contextmanager
def small_pages() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paged_file, "PAGE", 16)
        patch.setattr(paged_file, "MOST_PAGES", 3)
        yield


@settings(max_examples=150, deadline=None)
@given(writes, st.lists(st.tuples(st.integers(0, 400), st.integers(0, 80)), max_size=20))
def test_what_is_read_is_what_was_written_last_at_that_place(
    written: list[tuple[int, bytes]], asked: list[tuple[int, int]]
) -> None:
    file, model = PagedFile(), bytearray(500)
    with small_pages():
        for at, data in written:
            file.write(at, data)
            model[at : at + len(data)] = data
        for at, length in [*asked, (0, 500)]:
            assert file.read(at, length) == model[at : at + length]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(-1, 9)), max_size=60))
def test_records_in_the_order_of_the_input_are_the_last_of_each(
    written: list[tuple[int, int]],
) -> None:
    found = Records()
    last: dict[int, int] = {}
    with small_pages():
        for at, (index, length) in enumerate(written):
            found.append(index, f"key {at}", length, 3, 2)
            last[index] = at
        assert list(found.by_index()) == [last[index] for index in sorted(last)]
        assert list(found.current()) == sorted(last.values())
        assert [record.key for record in found] == [f"key {at}" for at in range(len(written))]


def test_a_record_that_does_not_fit_leaves_the_others_as_they_are() -> None:
    found = Records()
    found.append(3, "a", 5, 1, 1)
    for bad in ((4, "b", 2**70, 1, 1), (-1, "b", 1, 1, 1), (2**62, "b", 1, 1, 1)):
        with pytest.raises((struct.error, ValueError)):
            found.append(*bad)
    found.append(4, "c", 6, 1, 1)
    assert list(found) == [Record(3, "a", 5, 1, 1), Record(4, "c", 6, 1, 1)]
    assert (found[-1], found[0:1], found.find(9)) == (found[1], [found[0]], None)


def unnamed_files() -> set[int]:
    """Tell the inodes of the files that this process has open and that no folder has."""
    found = set()
    for name in os.listdir("/dev/fd"):
        with contextlib.suppress(OSError):
            status = os.fstat(int(name))
            if stat.S_ISREG(status.st_mode) and not status.st_nlink:
                found.add(status.st_ino)
    return found


def test_the_file_has_no_name_and_is_closed_when_nobody_needs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = unnamed_files()
    file = PagedFile()
    for number in range(MOST_PAGES):
        file.write(number * PAGE, b"x")
    assert unnamed_files() == before
    file.write(MOST_PAGES * PAGE, b"x")
    assert len(unnamed_files() - before) == 1
    assert os.listdir(tmp_path) == []
    del file
    gc.collect()
    assert unnamed_files() == before


def test_without_a_temporary_folder_the_error_says_which_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    file = PagedFile()
    for number in range(MOST_PAGES):
        file.write(number * PAGE, b"x")
    with pytest.raises(WriteFailedError, match=r"/gone cannot be used.*TMPDIR to another one"):
        file.write(MOST_PAGES * PAGE, b"x")


FULL = """
    import resource, sys
    from daskprs.exceptions import WriteFailedError
    from daskprs.records import Record, Records

    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
    records = Records()
    try:
        for index in range(200_000):
            records.append(index, f"{index:016x}", 1200, 10, 9, [[0, 1, 1, 0, 0]])
    except WriteFailedError as error:
        assert "the temporary folder" in str(error), error
    assert 10_000 < len(records) < 200_000, len(records)
    assert records.nbytes == 1200 * len(records)
    assert records.find(len(records)) is None
    for at in range(len(records) - 1, len(records) - 2000, -1):
        record = Record(at, f"{at:016x}", 1200, 10, 9, ((0, 1, 1, 0, 0),))
        assert (records[at], records.find(at)) == (record, at)
    print("done")
"""


def test_a_full_disk_loses_no_record_that_was_taken() -> None:
    command = [sys.executable, "-c", textwrap.dedent(FULL)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.stdout == "done\n", done.stderr


def test_records_are_right_for_a_thread_that_reads_while_another_appends() -> None:
    records, wrong = Records(), []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            for at in range(len(records)):
                if records[at].key != f"key {at}" or records.find(at) != at:
                    wrong.append(at)

    reader = threading.Thread(target=read)
    with small_pages():
        reader.start()
        try:
            for index in range(1000):
                records.append(index, f"key {index}", 1, 1, 1)
        finally:
            done.set()
            reader.join()
    assert wrong == []


@pytest.mark.parametrize("kind", ["disk", "memory"])
def test_a_run_that_finds_no_temporary_folder_stops_and_goes_on_later(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    with contextlib.ExitStack() as stack:
        url = tmp_path / "out" if kind == "disk" else stack.enter_context(new_store(kind))
        folder, plan = OutputFolder(url), [[f"row {index}"] for index in range(300)]
        folder.make()
        with small_pages(), monkeypatch.context() as full:
            full.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
            with pytest.raises(WriteFailedError, match="TMPDIR"):
                run(folder, "text", plan)
        assert folder.size(NAME) is None
        run(folder, "text", plan)
        rows = (folder.read(NAME) or b"").decode().splitlines()
        assert sorted(rows) == sorted(row for [row] in plan)
