"""The journal comes back as it was written, up to the first line that is not whole."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskprs.bad_items import BadItems
from daskprs.exceptions import OutputError
from daskprs.journal import (
    Journal,
    finished_line,
    header_line,
    piece_head_line,
    read_journal,
    read_piece,
    record_line,
    retry_line,
    shape_line,
)
from daskprs.records import Record

HEADER = header_line(Journal({"script": "score.py"}, "rows.txt", "text"))
LINES = [HEADER, *(record_line(Record(i, f"key{i}", 10, 3, 2)) for i in range(3))]

numbers = st.integers(0, 2**40)
bad_items = st.builds(
    lambda start, more, failed, at, length: BadItems(
        start, start + failed + more, failed, at, length
    ),
    *(numbers, numbers, st.integers(1, 2**40), numbers, numbers),
)
records = st.builds(
    Record,
    index=st.one_of(st.integers(0, 5), st.integers(0, 10**9)),
    key=st.text(max_size=20),
    length=st.integers(-1, 2**40),
    total=st.integers(0, 2**40),
    succeeded=st.integers(0, 2**40),
    bad_items=st.lists(bad_items, max_size=3).map(tuple),
)


def read(data: bytes, rows_size: int | None = None) -> Journal | None:
    return read_journal(io.BytesIO(data), "there/journal.jsonl", rows_size)


def whole(data: bytes, rows_size: int | None = None) -> Journal:
    journal = read(data, rows_size)
    assert journal is not None
    return journal


@settings(max_examples=100, deadline=None)
@given(st.lists(records, max_size=30))
def test_records_come_back_as_they_were_written(written: list[Record]) -> None:
    journal = whole(HEADER + b"".join(map(record_line, written)))
    assert list(journal.records) == written
    assert journal.records.nbytes == sum(r.length for r in written if r.length > 0)


@settings(max_examples=100, deadline=None)
@given(st.lists(records, max_size=30))
def test_the_last_record_of_an_index_is_found_and_counts(written: list[Record]) -> None:
    journal = whole(HEADER + b"".join(map(record_line, written)))
    found = journal.records
    last = {record.index: at for at, record in enumerate(written)}
    assert {index: found.find(index) for index in last} == last
    assert list(found.current()) == sorted(last.values())
    others = set(range(len(written))) - set(last.values())
    assert found.replaced == sum(written[at].length > 0 for at in others)


def test_facts_of_any_text_come_back() -> None:
    facts = {"ü": "\udcff \u2028 \"'\n", "n": [1, 2.5, None, True]}
    assert whole(header_line(Journal(facts, "r\udc80", "csv"))).header == facts
    journal = whole(HEADER + finished_line(facts, 7))
    assert (journal.finished, journal.size) == (facts, 7)


@pytest.mark.parametrize("end", range(sum(map(len, LINES)) + 1))
def test_a_journal_cut_anywhere_has_the_records_of_its_whole_lines(end: int) -> None:
    data = b"".join(LINES)[:end]
    journal = read(data)
    lines = data.count(b"\n")
    assert (journal is None) == (lines == 0)
    if journal is not None:
        assert len(journal.records) == lines - 1
        assert journal.nbytes == sum(map(len, LINES[:lines]))


@pytest.mark.parametrize(
    "junk",
    [
        b"\0" * 5000,
        b"\0" * 3 + b"\n",
        b"\xff\xfe\n",
        b"\n",
        b"[9]\n",
        b'[9,"k",1,1]\n',
        b'[9,"k",1,1,1,1]\n',
        b'[9,"k",1,1,1,[[0,1,1,0]]]\n',
        b'[9,"k",1,1,1,[[1,1,1,0,0]]]\n',
        b'[9,"k",1,1,1,[[0,2,3,0,0]]]\n',
        b"[9,7,1,1,1]\n",
        b'[9,"k",1.5,1,1]\n',
        b'["9","k",1,1,1]\n',
        b'[-9,"k",1,1,1]\n',
        b'[9,"k",-2,1,1]\n',
        b'[9,"k",1,1,99999999999999999999]\n',
        b'[9,"k",1,1,1]]\n',
        b'[8,"k",0,0,0],[9,"k",1,1,1]\n',
        b'[9,"k",1\n,1,1]\n',
        b"7\n",
        b"null\n",
        b"[" * 100_000 + b"\n",
    ],
    ids=lambda junk: repr(junk[:30]),
)
def test_junk_ends_the_journal_and_what_is_behind_it_does_not_count(junk: bytes) -> None:
    data = b"".join(LINES)
    journal = whole(data + junk + record_line(Record(5, "behind", 1, 1, 1)))
    assert [record.index for record in journal.records] == [0, 1, 2]
    assert journal.nbytes == len(data)
    journal.records.append(9, "next", 4, 1, 1)
    assert journal.records[-1] == Record(9, "next", 4, 1, 1)
    assert journal.records.row_at(3).offset == 30


@pytest.mark.parametrize(
    "first",
    [b"", b"{}\n", b"[]\n", b"7\n", b'{"daskprs_journal":"x"}\n', b'{"daskprs_journal":1}\n'],
)
def test_without_a_whole_header_there_is_no_journal(first: bytes) -> None:
    assert read(first + LINES[1]) is None


def test_a_journal_of_a_newer_version_is_refused_with_both_versions() -> None:
    newer = json.dumps({**json.loads(HEADER), "daskprs_journal": 2}).encode() + b"\n"
    with pytest.raises(OutputError, match=r"there/journal.jsonl.*version 2.*up to 1"):
        read(newer)


@pytest.mark.parametrize(
    ("rows_size", "left"), [(0, 0), (9, 0), (10, 1), (29, 2), (30, 3), (99, 3)]
)
def test_records_whose_rows_are_not_there_are_left_out(rows_size: int, left: int) -> None:
    journal = whole(b"".join(LINES), rows_size)
    assert len(journal.records) == left
    assert journal.nbytes == sum(map(len, LINES[: left + 1]))


def test_columns_count_only_with_their_header_line() -> None:
    data = HEADER + record_line(Record(0, "k", 0, 1, 0)) + shape_line(["a", "b"], 4) + LINES[1]
    assert (whole(data).shape, whole(data).start, whole(data).rows_end) == (["a", "b"], 4, 14)
    lost = whole(data, 3)
    assert (lost.shape, lost.start, len(lost.records)) == (None, 0, 1)


def test_a_run_whose_output_is_missing_goes_on_with_all_that_has_its_rows() -> None:
    data = b"".join(LINES) + finished_line({}, 30)
    journal = whole(data, rows_size=30)
    assert (journal.finished, len(journal.records), journal.nbytes) == (None, 3, len(data))
    assert whole(data, rows_size=29).nbytes == sum(map(len, LINES[:-1]))


def test_a_retry_takes_back_that_the_run_has_finished() -> None:
    """From then on it is another run; what its next end says holds again."""
    facts = {"script": "repaired.py"}
    data = b"".join(LINES) + finished_line({}, 30, "kept") + retry_line(facts, 3)
    journal = whole(data)
    assert (journal.finished, journal.size, journal.rows) == (None, 30, "kept")
    assert (journal.header, journal.retried, len(journal.records)) == (facts, 3, 3)
    ended = whole(data + record_line(Record(7, "new", 10, 1, 1)) + finished_line({}, 40))
    assert (ended.finished, ended.size, ended.rows, ended.retried) == ({}, 40, None, 0)
    assert ended.header == facts


@pytest.mark.parametrize("end", range(0, 70, 3))
def test_a_piece_of_journal_counts_only_when_it_is_whole(end: int) -> None:
    lines = [record_line(Record(i, "key", 5, 1, 1)) for i in range(2)]
    data = piece_head_line(2, 10, ["a"]) + b"".join(lines)
    assert read_piece(data) == (10, ["a"], [[0, "key", 5, 1, 1], [1, "key", 5, 1, 1]])
    assert end < len(data)
    assert read_piece(data[:end]) is None


MEASURE = """
    import resource, sys, time
    from daskprs.journal import Record, header_line, Journal, read_journal, record_line
    path = sys.argv[1]
    with open(path, "wb") as stream:
        stream.write(header_line(Journal({}, "rows.txt", "text")))
        for index in range(300_000):
            stream.write(record_line(Record(index, f"{index:016x}", 1200, 10, 10)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    with open(path, "rb") as stream:
        journal = read_journal(stream, path)
    seconds = time.process_time() - started
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    unit = 1 if sys.platform == "darwin" else 1024
    print(sum(1 for _ in journal.records.by_index()), seconds, grown * unit / 2**20)
"""


def test_many_records_take_little_time_and_memory(tmp_path: object) -> None:
    code = textwrap.dedent(MEASURE)
    done = subprocess.run(
        [sys.executable, "-c", code, f"{tmp_path}/journal.jsonl"],
        capture_output=True, text=True, check=True, timeout=100,
    )  # fmt: skip
    count, seconds, megabytes = map(float, done.stdout.split())
    assert count == 300_000
    assert seconds < 10  # 1.7 on a quiet machine
    assert megabytes < 15  # as for ten times as many
