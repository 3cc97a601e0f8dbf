"""Cuts of a CSV file in which every newline ends a record: found without reading the file.

Around each place where a part should begin a few kilobytes are read, and at its start the header
with the first record.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence

from daskprs.dialects import Dialect
from daskprs.record_ends import Cuts, find_cuts
from daskprs.record_scanner import RETURN, Scanner
from daskprs.table_reader import TableReader

__all__ = [
    "can_cut_nearby",
    "column_names",
    "find_near_cuts",
    "gives_all_types",
    "may_have_more_fields",
]

# Gives the bytes of some ranges of the file, each from its start to before its stop.
ReadRanges = Callable[[Sequence[tuple[int, int]]], Sequence[bytes]]

_WINDOW = 1 << 13
_STRETCH = 1 << 20
_AT_ONCE = 256  # ranges, which bounds the memory used


def can_cut_nearby(reader: TableReader) -> bool:
    """Say whether every newline of the reader's CSV files ends a record, whatever is before it."""
    if reader.format not in ("csv", "tsv"):
        return False
    return not reader.dialect.quoting and reader.dialect.escapechar is None


def find_near_cuts(read: ReadRanges, size: int, parts: int, reader: TableReader) -> Cuts:
    """Cut a file as `find_cuts` does, where `can_cut_nearby` says so; records are not counted.

    Parameters
    ----------
    read : callable
    size : int
        Number of bytes of the file.
    parts : int
    reader : TableReader
    """
    head = _head(read, size, reader)
    nominal = [round(part * size / parts) for part in range(1, parts)]
    after = [place for place in nominal if place > head.header_end]
    offsets = [head.header_end] * (parts - len(after))
    for first in range(0, len(after), _AT_ONCE):
        found = _line_ends(read, size, after[first : first + _AT_ONCE], reader.dialect)
        offsets += [max(head.header_end, offset) for offset in found]
    return Cuts(head.header_end, (*offsets, size), (), head.first_end)


def _head(read: ReadRanges, size: int, reader: TableReader) -> Cuts:
    """Find the end of the header, and of the first record."""
    length = _WINDOW
    while True:
        (head,) = read([(0, min(length, size))])
        is_whole = length >= size  # or shorter by now, which whoever reads a part will say
        if not is_whole and head.endswith(b"\r"):
            head = head[:-1]  # nobody knows yet whether a newline follows
        cuts = find_cuts(
            io.BytesIO(head), len(head), 1, has_header=reader.has_header, dialect=reader.dialect
        )
        # What ends with the bytes that were read may go on after them.
        if is_whole or cuts.header_end < cuts.first_end < len(head):
            return cuts
        length *= 8


def _line_ends(
    read: ReadRanges, size: int, nominal: Sequence[int], dialect: Dialect
) -> Sequence[int]:
    """Find the first end of a line at or after each of these places."""
    # From the byte before: where a line ends with it, that is the place.
    ranges = [(place - 1, min(place - 1 + _WINDOW, size)) for place in nominal]
    found: list[int] = []
    for place, (start, stop), data in zip(nominal, ranges, read(ranges), strict=True):
        if found and found[-1] >= place:
            found.append(found[-1])  # in the middle of a line that is longer than a part
            continue
        end = _first_end(data, dialect, is_whole=stop == size)
        found.append(_end_of_long_line(read, start, size, dialect) if end is None else start + end)
    return found


def _first_end(data: bytes, dialect: Dialect, *, is_whole: bool) -> int | None:
    """Find the first end of a line; None where more must be read to know it."""
    if data and data[-1] == RETURN and not is_whole:
        data = data[:-1]  # a newline may follow
    ends = Scanner(dialect).scan(data) if data else None
    if ends is not None and ends.size:
        return int(ends[0])
    return len(data) if is_whole else None


def _end_of_long_line(read: ReadRanges, start: int, size: int, dialect: Dialect) -> int:
    """Find the first end of a line after this byte, stretch by stretch."""
    while True:
        stop = min(start + _STRETCH, size)
        (data,) = read([(start, stop)])
        end = _first_end(data, dialect, is_whole=stop == size)
        if end is not None:
            return start + end
        start = stop - 1  # it may be the first half of a newline


def column_names(reader: TableReader, header: bytes) -> list[str] | None:
    """Return the names in a header; None where only pandas knows what they become."""
    if not reader.has_header or {"names", "usecols"} & set(reader.options):
        return None
    names = _fields(reader, header)
    is_plain = names and all(names) and len(set(names)) == len(names)
    return names if is_plain else None


def may_have_more_fields(reader: TableReader, names: Sequence[str], record: bytes) -> bool:
    """Say whether a record may have more fields than there are names."""
    fields = _fields(reader, record)
    return bool(record.strip()) if fields is None else len(fields) > len(names)


def _fields(reader: TableReader, record: bytes) -> list[str] | None:
    """Take a record apart; None where there is none, or pandas may see another one."""
    dialect, encoding = reader.dialect, reader.options.get("encoding") or "utf-8"
    try:
        text = record.decode("utf-8-sig" if encoding == "utf-8" else encoding)
        rows = csv.reader(
            io.StringIO(text, newline=""),
            delimiter=dialect.delimiter.decode(),
            quotechar=str(reader.options.get("quotechar", '"')),
            doublequote=dialect.doublequote,
            quoting=reader.options.get("quoting", csv.QUOTE_MINIMAL),
            skipinitialspace=dialect.skipinitialspace,
        )
        fields = [row for row in rows if len(row) > 1 or "".join(row).strip()]
    except (UnicodeError, csv.Error, TypeError, ValueError):
        return None
    return fields[0] if len(fields) == 1 else None


def gives_all_types(reader: TableReader, names: Sequence[str] | None) -> bool:
    """Say whether the reader's options give the types of all columns."""
    given = reader.options.get("dtype")
    if given is None or reader.options.get("converters"):
        return False
    if not isinstance(given, Mapping) or hasattr(given, "default_factory"):
        return True
    return names is not None and set(names) <= set(given)
