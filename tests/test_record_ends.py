"""Tests of cutting CSV files at the ends of records."""

from __future__ import annotations

import csv
import io
import itertools
import re
from typing import Any

import pandas as pd
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from daskprs import record_scanner
from daskprs.dialects import Dialect
from daskprs.record_ends import Cuts, find_cuts, find_line_cuts

DIALECTS = [
    Dialect(),
    Dialect(doublequote=False),
    Dialect(escapechar=b"\\"),
    Dialect(escapechar=b"\\", doublequote=False),
    Dialect(skipinitialspace=True),
    Dialect(skipinitialspace=True, escapechar=b"\\"),
    Dialect(skipinitialspace=True, delimiter=b" "),
    Dialect(delimiter=b"x", quotechar=b","),
    Dialect(quoting=False),
    Dialect(quoting=False, escapechar=b"\\"),
]


def reference_records(text: bytes, dialect: Dialect) -> list[tuple[int, bool]]:
    """Give the end of each record and whether it counts, byte by byte."""
    quote = dialect.quotechar if dialect.quoting else None
    blanks = b" \t".replace(dialect.delimiter, b"")
    position = 3 if text.startswith(b"\xef\xbb\xbf") else 0
    state = "field start"
    content = b""
    records = []
    while position < len(text):
        char = text[position : position + 1]
        position += 1
        if state in ("escaped", "escaped in quotes"):
            state = "quoted" if state == "escaped in quotes" else "unquoted"
        elif state == "quoted":
            if char == dialect.escapechar:
                state = "escaped in quotes"
            elif char == quote:
                state = "quote seen" if dialect.doublequote else "unquoted"
        elif state == "quote seen" and char == quote:
            state = "quoted"
        elif char in (b"\r", b"\n"):
            if text[position - 1 : position + 1] == b"\r\n":
                position += 1
            records.append((position, bool(content.strip(blanks))))
            state, content = "field start", b""
            continue
        elif char == dialect.delimiter:
            if not (state == "field start" and dialect.skipinitialspace and char == b" "):
                state = "field start"
        elif state == "quote seen":
            state = "unquoted"
        elif state == "field start" and char == quote:
            state = "quoted"
        elif char == dialect.escapechar:
            state = "escaped"
        elif not (state == "field start" and dialect.skipinitialspace and char == b" "):
            state = "unquoted"
        content += char
    if content.strip(blanks):
        records.append((position, True))
    return records


def reference_cuts(text: bytes, parts: int, has_header: bool, dialect: Dialect) -> Cuts:
    """Cut with one loop for each thing that is asked for."""
    records = reference_records(text, dialect)
    size = len(text)
    header_end = 0
    if has_header:
        header_end = next((end for end, counts in records if counts), size)
    offsets = []
    for part in range(parts + 1):
        nominal = round(part * size / parts)
        ends = [header_end, *(end for end, _ in records if end > header_end), size]
        offsets.append(next(end for end in ends if end >= nominal))
    counts = [
        sum(counts for end, counts in records if start < end <= stop)
        for start, stop in itertools.pairwise(offsets)
    ]
    first_end = next((end for end, count in records if count and end > header_end), header_end)
    return Cuts(header_end, tuple(offsets), tuple(counts), first_end)


def cut(text: bytes, parts: int = 2, **options: Any) -> Cuts:
    options = {"has_header": True, **options}
    return find_cuts(io.BytesIO(text), len(text), parts, **options)


def read(text: bytes, dialect: Dialect, **options: Any) -> pd.DataFrame:
    return pd.read_csv(
        io.BytesIO(text),
        dtype=str,
        keep_default_na=False,
        engine="c",
        sep=dialect.delimiter.decode(),
        quotechar=dialect.quotechar.decode(),
        escapechar=dialect.escapechar.decode() if dialect.escapechar else None,
        doublequote=dialect.doublequote,
        quoting=csv.QUOTE_MINIMAL if dialect.quoting else csv.QUOTE_NONE,
        skipinitialspace=dialect.skipinitialspace,
        **options,
    )


def read_parts(text: bytes, cuts: Cuts, dialect: Dialect, **options: Any) -> list[pd.DataFrame]:
    pieces = zip(cuts.offsets[:-1], cuts.offsets[1:], cuts.records, strict=True)
    frames = []
    for start, stop, records in pieces:
        if records:
            frames.append(read(text[: cuts.header_end] + text[start:stop], dialect, **options))
            assert len(frames[-1]) == records
    return frames


random_texts = st.text(st.sampled_from('"",,\n\n\r\r xy\\'), max_size=60).map(str.encode)


@st.composite
def valid_csvs(draw: st.DrawFn) -> bytes:
    columns = draw(st.integers(2, 3))
    field = st.text(st.sampled_from('",\n\r ab\u00e4'), max_size=6)
    rows = draw(st.lists(st.lists(field, min_size=columns, max_size=columns), max_size=8))
    newline = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    # After an empty line ended by a lone \r, the parser of pandas swallows a delimiter.
    blanks = st.sampled_from(["", "", newline, "\t " + newline] if newline != "\r" else [""])
    needs_quotes = re.compile("(?s).*" if draw(st.booleans()) else '(?s).*[",\r\n]')
    text = ""
    for row in [["he\nad", *"bcd"][:columns], *rows]:
        quoted = ['"' + value.replace('"', '""') + '"' for value in row]
        written = [q if needs_quotes.match(v) else v for q, v in zip(quoted, row, strict=True)]
        text += draw(blanks) + ",".join(written) + newline
    if draw(st.booleans()):
        text = text.removesuffix(newline)
    if draw(st.booleans()):
        text = "\ufeff" + text
    return text.encode()


@settings(max_examples=500, deadline=None)
@given(
    st.one_of(random_texts, valid_csvs()),
    st.integers(1, 9),
    st.integers(1, 16),
    st.booleans(),
    st.sampled_from(DIALECTS),
)
@example(b'"a"\\\n"b"\n', 3, 16, False, Dialect(escapechar=b"\\"))
@example(b'"a"\\"b\n"\n', 3, 3, False, Dialect(escapechar=b"\\"))
@example(b'x""\n"\n","a"\n', 4, 16, False, Dialect())
@example(b'x\\,"\n"\n', 4, 16, False, Dialect(escapechar=b"\\"))
@example(b"a\r\r\r\n\r", 5, 1, True, Dialect())
@example(b"", 3, 1, True, Dialect())
def test_cuts_are_those_of_a_state_machine_by_bytes(
    text: bytes, parts: int, block_size: int, has_header: bool, dialect: Dialect
) -> None:
    """Whatever the text, the dialect and the block size, the cuts are those of the reference."""
    expected = reference_cuts(text, parts, has_header, dialect)
    options: dict[str, Any] = {"has_header": has_header, "dialect": dialect}
    assert cut(text, parts, block_size=block_size, **options) == expected
    assert cut(text, parts, **options) == expected


@settings(max_examples=120, deadline=None)
@given(
    st.lists(random_texts, min_size=3, max_size=12).map(b"\n".join),
    st.integers(1, 64),
    st.sampled_from([1, 2, 7, 30, 200]),
    st.sampled_from(DIALECTS),
)
def test_resuming_after_unusual_quotes_is_exact(
    text: bytes, parts: int, stretch: int, dialect: Dialect
) -> None:
    """Going back and forth between both ways of scanning within a block loses nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record_scanner, "_SEQUENTIAL_STRETCH", stretch)
        cuts = cut(text, parts, has_header=False, dialect=dialect)
    assert cuts == reference_cuts(text, parts, False, dialect)


@settings(max_examples=100, deadline=None)
@given(valid_csvs(), st.integers(1, 6), st.integers(1, 16))
def test_parts_of_a_valid_csv_read_as_the_whole(text: bytes, parts: int, block_size: int) -> None:
    """Reading the parts, each with the header before it, gives the rows of the whole file."""
    cuts = cut(text, parts, block_size=block_size)
    whole = read(text, Dialect())
    assert sum(cuts.records) == len(whole)
    frames = read_parts(text, cuts, Dialect())
    if frames:
        pd.testing.assert_frame_equal(pd.concat(frames, ignore_index=True), whole)


@settings(max_examples=150, deadline=None)
@given(random_texts, st.integers(1, 4), st.sampled_from(DIALECTS))
def test_parts_of_any_text_read_as_the_whole(text: bytes, parts: int, dialect: Dialect) -> None:
    """What the parser makes of a text, however odd, is what it makes of its parts."""
    # The parser of pandas swallows a delimiter after an empty line ended by a lone \r, and does
    # not skip a space that is a delimiter after a lone \r.
    delimiter = re.escape(dialect.delimiter)
    assume(not re.search(rb"[\r\n][ \t]*\r" + delimiter, b"\n" + text))
    assume(dialect.delimiter != b" " or b"\r " not in text)
    cuts = cut(text, parts, has_header=False, dialect=dialect)
    names = [str(column) for column in range(70)]
    options: dict[str, Any] = {"header": None, "names": names, "index_col": False}
    if not sum(cuts.records):
        return
    try:
        whole = read(text, dialect, **options)
    except pd.errors.ParserError:
        assume(False)
    assert sum(cuts.records) == len(whole)
    frames = read_parts(text, cuts, dialect, **options)
    pd.testing.assert_frame_equal(pd.concat(frames, ignore_index=True), whole)


def spied_calls(monkeypatch: pytest.MonkeyPatch, text: bytes, **options: Any) -> list[str]:
    calls = []
    for name in ("_scan_by_parity", "_scan_sequentially"):
        original = getattr(record_scanner.Scanner, name)

        def spy(*args: Any, name: str = name, original: Any = original) -> Any:
            calls.append(name)
            return original(*args)

        monkeypatch.setattr(record_scanner.Scanner, name, spy)
    cuts = cut(text, 7, **options)
    dialect = options.get("dialect", Dialect())
    assert cuts == reference_cuts(text, 7, True, dialect)
    return calls


def test_text_without_quotes_needs_neither_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """A text without quotes is scanned for newlines only."""
    assert spied_calls(monkeypatch, b"a,b\n" * 1000, block_size=512) == []


@pytest.mark.parametrize(
    ("text", "dialect"),
    [
        (b'"a","b\n""c"""\r\n,""\n' * 500, Dialect()),
        (b'"a\\"\n","b"\\\n\n1,\\"x\n' * 500, Dialect(escapechar=b"\\", doublequote=False)),
        (b'"a",  "b\n"\n' * 500, Dialect(skipinitialspace=True)),
    ],
)
def test_regular_quotes_are_counted(
    monkeypatch: pytest.MonkeyPatch, text: bytes, dialect: Dialect
) -> None:
    """Quotes as RFC 4180 has them, and escaped ones, need no sequential scan."""
    if dialect.escapechar:
        text = text.replace(b'"\\\n', b'"\n')
    calls = spied_calls(monkeypatch, text, dialect=dialect, block_size=1000)
    assert set(calls) == {"_scan_by_parity"}


def test_irregular_quotes_are_scanned_sequentially(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quote within an unquoted field makes some text be scanned sequentially, not all of it."""
    regular = b'"a","b\n"\n' * 10_000
    calls = spied_calls(monkeypatch, regular + b'5" pipe,"b\n"\n' + regular + b'"a"x"\n' + regular)
    assert calls == ["_scan_by_parity", "_scan_sequentially", "_scan_sequentially"]


def test_quoted_newline_is_no_record_end() -> None:
    """A cut that falls into a quoted field is put off to the end of the record."""
    text = b'h,i\n1,"a\nb\nc\nd\ne\nf"\n2,x\n'
    assert cut(text, 3) == Cuts(4, (4, 20, 20, 24), (1, 0, 1), 20)


@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
def test_every_newline_ends_a_record(newline: bytes) -> None:
    """A lone carriage return ends a record, just as both other newlines do."""
    text = b"h,i" + newline + (b"1,2" + newline) * 4
    assert cut(text, 5).records == (0, 1, 1, 1, 1)
    assert cut(text, 5, block_size=1).records == (0, 1, 1, 1, 1)
    assert len(read(text, Dialect())) == 4


def test_lines_of_blanks_are_no_records() -> None:
    """Empty lines and lines of blanks are not counted, before the header or after it."""
    text = b"\n \t\nh\n\n1\n  \n 2\n \r\n   "
    assert cut(text, 1) == Cuts(6, (6, len(text)), (2,), 9)
    assert len(read(text, Dialect())) == 2


def test_tab_that_delimits_is_not_blank() -> None:
    """A line of tabs is a record if tabs are the delimiter."""
    text = b"a\tb\n\t\n \n"
    dialect = Dialect(delimiter=b"\t")
    assert cut(text, 1, dialect=dialect).records == (1,)
    assert len(read(text, dialect)) == 1


def test_quote_after_byte_order_mark_opens_a_field() -> None:
    """A byte order mark belongs to the header and does not hide the quote after it."""
    text = b'\xef\xbb\xbf"a\nb",c\n1,2\n'
    assert cut(text, 1, block_size=1) == Cuts(11, (11, 15), (1,), 15)


@pytest.mark.parametrize("text", [b"", b"\n\n", b"a,b", b"a,b\n", b'"a', b"\xef\xbb\xbf", b"\xef"])
def test_nothing_but_a_header(text: bytes) -> None:
    """A file that is empty or only a header gives empty parts at its end."""
    end = len(text)
    assert cut(text, 3) == Cuts(end, (end,) * 4, (0, 0, 0), end)


def test_more_parts_than_records() -> None:
    """Parts in which no record starts are empty, and nothing is lost."""
    text = b"a\n1\n2\n"
    cuts = cut(text, 50)
    assert len(cuts.offsets) == 51
    assert list(cuts.offsets) == sorted(cuts.offsets)
    assert sum(cuts.records) == 2
    assert max(cuts.records) == 1


def test_stream_is_read_once_in_blocks() -> None:
    """No read is larger than a block, even if one record spans many blocks."""
    text = b'a,b\n1,"' + b"x\n" * 5000 + b'"\n2,y\n'

    class Stream(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            assert size is not None
            assert 0 < size <= 100
            return super().read(min(size, 77))

        def seek(self, *_: object) -> int:
            raise AssertionError("the stream must not be sought")

    cuts = find_cuts(Stream(text), len(text), 2, has_header=True, block_size=100)
    assert cuts == reference_cuts(text, 2, True, Dialect())


def test_file_that_became_shorter_is_an_error() -> None:
    """A stream that ends too early is reported, not taken as the end of the file."""
    with pytest.raises(ValueError, match="after 4 of 10 bytes"):
        find_cuts(io.BytesIO(b"a\nb\n"), 10, 2, has_header=True)


def test_bytes_after_the_size_are_not_read() -> None:
    """A file that grew meanwhile is cut as if it had not."""
    assert find_cuts(io.BytesIO(b"a\n1\n2\n3\n"), 4, 1, has_header=True).records == (1,)


@pytest.mark.parametrize(
    "options",
    [
        {"delimiter": b""},
        {"delimiter": b",,"},
        {"delimiter": b"\n"},
        {"quotechar": b" "},
        {"escapechar": b"\r"},
        {"quotechar": b","},
        {"escapechar": b'"'},
    ],
)
def test_unusable_dialect_is_an_error(options: dict[str, bytes]) -> None:
    """Characters that are no single bytes, mean nothing or mean two things are refused."""
    with pytest.raises(ValueError, match="CSV file"):
        Dialect(**options)


@pytest.mark.parametrize(("parts", "block_size"), [(0, 1), (1, 0)])
def test_cutting_into_nothing_is_an_error(parts: int, block_size: int) -> None:
    """There is at least one part, and at least one byte in a block."""
    with pytest.raises(ValueError, match="cannot cut"):
        cut(b"a\n", parts, block_size=block_size)


@settings(max_examples=100, deadline=None)
@given(
    st.text(st.sampled_from('{"a\\ \t\r\n\n'), max_size=40).map(str.encode),
    st.integers(1, 9),
    st.integers(1, 16),
)
def test_lines_are_cut_at_newlines_only(text: bytes, parts: int, block_size: int) -> None:
    """Quotes and lone carriage returns mean nothing where every newline ends a record."""
    cuts = find_line_cuts(io.BytesIO(text), len(text), parts, block_size=block_size)
    ends = [n + 1 for n, char in enumerate(text) if char == ord("\n")]
    for part, offset in enumerate(cuts.offsets):
        nominal = round(part * len(text) / parts)
        assert offset == next(end for end in [0, *ends, len(text)] if end >= nominal)
    assert cuts.header_end == 0
