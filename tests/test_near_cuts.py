"""Tests of cuts that are found without reading the file: they are those of reading it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import example, given, settings
from hypothesis import strategies as st

from daskprs import near_cuts
from daskprs.near_cuts import can_cut_nearby, find_near_cuts
from daskprs.pieces import TableSlice
from daskprs.record_ends import find_cuts
from daskprs.tables import TableFile, TableReader, read_part, survey

TYPES = {"id": "int64", "name": "str", "price": "float64"}
PLAIN = TableReader("csv", {"dtype": TYPES}, quoted_newlines=False)
TABLE = b"id,name,price\n" + b"".join(b"%d,n%d,%d.5\n" % (n, n % 7, n) for n in range(3000))


class Watched:
    """A file in memory that counts what is read of it."""

    def __init__(self, text: bytes) -> None:
        self.text, self.bytes = text, 0

    def read(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        self.bytes += sum(stop - start for start, stop in ranges)
        return [self.text[start:stop] for start, stop in ranges]


LINES = st.lists(st.text(st.sampled_from('a,b" \t;'), max_size=9), max_size=30)
NEWLINES = st.sampled_from(["\n", "\r\n", "\r", "\n\n", "\r\r\n"])


@settings(deadline=None)
@given(
    lines=LINES,
    newline=NEWLINES,
    start=st.sampled_from(["", "\ufeff", "\n", "\ufeff\n"]),
    end=st.booleans(),
    parts=st.integers(1, 12),
    window=st.integers(1, 9),
    options=st.sampled_from([{}, {"header": None}, {"sep": "\t"}, {"skipinitialspace": True}]),
)
@example(["a,b", "1,2"], "\r\n", "", True, 5, 1, {})
def test_cuts_are_those_of_reading_the_whole_file(
    lines: list[str],
    newline: str,
    start: str,
    end: bool,
    parts: int,
    window: int,
    options: dict[str, Any],
) -> None:
    """Wherever the windows begin and end, the cuts are those that `find_cuts` finds."""
    text = (start + newline.join(lines) + newline * end).encode()
    reader = TableReader("csv", options, quoted_newlines=False)
    whole = find_cuts(
        io.BytesIO(text), len(text), parts, has_header=reader.has_header, dialect=reader.dialect
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(near_cuts, "_WINDOW", window)
        patch.setattr(near_cuts, "_STRETCH", window + 1)
        patch.setattr(near_cuts, "_AT_ONCE", 3)
        near = find_near_cuts(Watched(text).read, len(text), parts, reader)
    assert (near.header_end, near.offsets, near.first_end) == (
        whole.header_end,
        whole.offsets,
        whole.first_end,
    )
    assert near.records == ()


def test_a_large_file_is_read_around_its_cuts_only() -> None:
    """What is read does not grow with the file, but with the parts."""
    few, many = Watched(TABLE), Watched(TABLE * 100)
    for file in (few, many):
        find_near_cuts(file.read, len(file.text), 4, PLAIN)
    assert few.bytes <= 4 * 8192
    assert many.bytes <= 4 * 8192


def test_a_record_that_is_longer_than_all_windows() -> None:
    """The search goes on until a line ends."""
    text = b"id,name\n1," + b"x" * 100_000 + b"\n2,y\n"
    cuts = find_near_cuts(Watched(text).read, len(text), 3, PLAIN)
    assert cuts.offsets == (8, len(text) - 4, len(text) - 4, len(text))


@pytest.mark.parametrize("left", [0, 3, 20])
def test_a_file_that_gets_shorter_meanwhile_does_not_hang(left: int) -> None:
    """What is gone is told by whoever reads a part, which compares the file with the plan."""
    cuts = find_near_cuts(Watched(TABLE[:left]).read, len(TABLE), 4, PLAIN)
    assert len(cuts.offsets) == 5


def test_lines_of_many_parts_are_read_once() -> None:
    """However many cuts would fall into one line, no stretch of it is read for each of them."""
    file = Watched(b"id,name\n" + (b"1," + b"x" * 3_000_000 + b"\n") * 3)
    cuts = find_near_cuts(file.read, len(file.text), 200, PLAIN)
    assert len(set(cuts.offsets)) == 4
    assert file.bytes <= 4.5 * len(file.text)


def test_a_part_of_a_mark_and_blank_lines_has_the_columns() -> None:
    """A byte order mark is no record."""
    text = b"\xef\xbb\xbf\n\n\na,b\nc,d\n"
    reader = TableReader("csv", {"header": None, "dtype": "str"}, quoted_newlines=False)
    file = TableFile("table.csv", content=text)
    found = survey(file, 4, reader)
    frames = [read_part(file, reader, part=n, parts=4, found=found) for n in range(4)]
    assert [list(frame.columns) for frame in frames] == [[0, 1]] * 4
    assert sum(len(frame) for frame in frames) == 2


@pytest.mark.parametrize("parts", [2, 3, 50])
def test_parts_read_like_the_whole_file(parts: int) -> None:
    """The rows of all parts are those of the whole file, with the same types."""
    file = TableFile("table.csv", content=TABLE)
    found = survey(file, parts, PLAIN)
    assert found.records == ()
    frames = [read_part(file, PLAIN, part=n, parts=parts, found=found) for n in range(parts)]
    whole = pd.read_csv(io.BytesIO(TABLE), dtype=TYPES)
    pd.testing.assert_frame_equal(pd.concat(frames, ignore_index=True), whole, check_exact=True)


def test_a_part_of_blank_lines_is_empty() -> None:
    """Lines without a record give no row."""
    text = b"id,name,price\n1,a,2.5\n" + b"\n" * 60 + b"2,b,3.5\n"
    file = TableFile("table.csv", content=text)
    found = survey(file, 4, PLAIN)
    frames = [read_part(file, PLAIN, part=n, parts=4, found=found) for n in range(4)]
    assert [frame["id"].tolist() for frame in frames] == [[1], [], [], [2]]
    assert all(frame.dtypes.equals(frames[0].dtypes) for frame in frames)


@pytest.mark.parametrize(
    ("text", "options"),
    [
        (TABLE, {"dtype": {"id": "int64"}}),
        (TABLE, {"dtype": {"id": "int64", "price": float}, "converters": {"name": str.strip}}),
        (TABLE, {}),
        (b"id,,price\n" + b"1,a,2\n" * 50, {"dtype": TYPES}),
    ],
)
def test_types_that_are_not_given_are_looked_for(text: bytes, options: dict[str, Any]) -> None:
    """Only a reader that gives the types of all columns spares the reading."""
    reader = TableReader("csv", options, quoted_newlines=False)
    found = survey(TableFile("table.csv", content=text), 4, reader)
    assert len(found.records) == 4


@pytest.mark.parametrize(
    ("reader", "can"),
    [
        (PLAIN, True),
        (TableReader("tsv", {}, quoted_newlines=False), True),
        (TableReader("csv", {"quoting": 3}), True),
        (TableReader("csv"), False),
        (TableReader("csv", {"escapechar": "\\"}, quoted_newlines=False), False),
        (TableReader("jsonl", {}, quoted_newlines=False), False),
    ],
)
def test_where_every_newline_ends_a_record(reader: TableReader, can: bool) -> None:
    """Quoted or escaped newlines need all bytes before them."""
    assert can_cut_nearby(reader) is can


def test_fields_without_a_name_are_still_an_index() -> None:
    """Records with more fields than the header are read as they are in the whole file."""
    text = b"id,name,price\n" + b"".join(b"r%d,%d,x,1.5\n" % (n, n) for n in range(20))
    file = TableFile("table.csv", content=text)
    found = survey(file, 3, PLAIN)
    assert (found.has_index, found.records) == (True, ())
    frames = [read_part(file, PLAIN, part=n, parts=3, found=found) for n in range(3)]
    assert [label for frame in frames for label in frame.index] == [f"r{n}" for n in range(20)]


def test_items_of_a_part_that_fails_are_counted() -> None:
    """Nobody has counted the records of the parts; of one that cannot be read they are."""
    text = TABLE.replace(b"2999,", b"x2999,")
    piece = TableSlice("table.csv", PLAIN, 3, 4, len(text), content=text)
    piece = piece.narrowed(piece.survey())
    with pytest.raises(ValueError, match="x2999"):
        piece.load()
    first = 3000 - piece.count_items()
    start, stop = piece.items(None)[0]["bytes"]
    assert text[start:stop].startswith(b"%d," % first)
    assert stop == len(text)


def test_positions_of_rows_are_counted_where_they_are_wanted() -> None:
    """For the position of its first row, records of a part are counted in any case."""
    piece = TableSlice("table.csv", PLAIN, 0, 4, len(TABLE), content=TABLE)
    assert sum(piece.survey(records=True).records) == 3000


def test_ranges_of_a_local_file_and_of_a_store(tmp_path: Path) -> None:
    """Ranges come in the order in which they were asked for."""
    local = tmp_path / "table.csv"
    local.write_bytes(TABLE)
    MemoryFileSystem().pipe("/near-cuts/table.csv", TABLE)
    ranges = [(5, 9), (0, 3), (7, 7), (len(TABLE) - 2, len(TABLE))]
    for path in (str(local), "memory://near-cuts/table.csv"):
        assert TableFile(path).read_ranges(ranges) == [TABLE[a:b] for a, b in ranges]
