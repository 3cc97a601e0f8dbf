"""Survey: what must be known of a whole CSV or JSON lines file to read a part of it.

A part has to come out as it would inside the whole file. So the bytes that pandas parses have
two things in front: the header, and an example, whose row is dropped afterwards. The example of
CSV is the first record, from which pandas takes the number of fields; that of JSON lines is a
made one, from which every column gets its place and its type.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, BinaryIO

from daskprs.column_types import Traits, converted_type, csv_type, json_example, merge_traits
from daskprs.near_cuts import (
    can_cut_nearby,
    column_names,
    find_near_cuts,
    gives_all_types,
    may_have_more_fields,
)
from daskprs.record_ends import BOM, Cuts, find_cuts, find_line_cuts
from daskprs.table_files import TableFile
from daskprs.table_reader import TableReader

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Survey", "read_records", "survey"]

_STRETCH = 4 << 20  # bytes that are parsed at once to look for types


@dataclass(frozen=True)
class Survey:
    """What must be known of a whole file to read a part of it.

    Attributes
    ----------
    header_end : int
        Where the header ends, in bytes.
    offsets : tuple of int
        Byte offsets of the cuts, one more than parts.
    records : tuple of int
        Records in each part; empty where nobody has counted them.
    first_part : int
        Number of the part that `offsets` and `records` begin with.
    header : bytes
        Goes in front of every part.
    example : bytes
        A record that goes in front of every part from `example_from` on, and is dropped again.
    example_from : int
        Byte offset.
    has_index : bool
        Whether the records have more fields than the header: pandas makes an index of them.
    types : mapping
        Column to its type in the whole file, as `daskprs.column_types.csv_type` tells it.
    """

    header_end: int
    offsets: tuple[int, ...]
    records: tuple[int, ...]
    header: bytes = field(default=b"", repr=False)
    example: bytes = field(default=b"", repr=False)
    example_from: int = 0
    has_index: bool = False
    types: Mapping[Any, str] = field(default_factory=dict)
    first_part: int = 0

    def span(self, part: int) -> tuple[int, int]:
        """Where a part begins and ends, in bytes."""
        at = part - self.first_part
        return self.offsets[at], self.offsets[at + 1]

    def records_in(self, part: int) -> int | None:
        """How many records a part has; None where nobody has counted them."""
        return self.records[part - self.first_part] if self.records else None

    def only(self, part: int) -> Survey:
        """Return what one part needs: with all parts in each, memory grows with their square."""
        records = self.records_in(part)
        counted = () if records is None else (records,)
        return replace(self, offsets=self.span(part), records=counted, first_part=part)


def survey(
    file: TableFile,
    parts: int,
    reader: TableReader,
    *,
    types: bool = True,
    records: bool = False,
) -> Survey:
    """Find the cuts of a CSV or JSON lines file, and the types of its columns.

    Reads the file once for the cuts, and parses it once for the types, unless the reader's
    options give the type of all columns, or `types` is false. Records that cannot be parsed are
    left out: the part that they are in fails when it is read. Of CSV without newlines in fields
    only the places of the cuts are read, where types are not looked for.

    Parameters
    ----------
    records : bool
        Whether the records of each part are to be counted in any case.

    Raises
    ------
    InputChangedError
    """
    file.check_unchanged()
    size = file.size if file.content is None else len(file.content)
    if not records and can_cut_nearby(reader):
        found = _found_nearby(file, size, parts, reader, types=types)
        if found is not None:
            return found
    with file.open() as stream:
        if reader.format == "jsonl":
            found = _with_mark(find_line_cuts(stream, size, parts), stream)
        else:
            cuts = find_cuts(
                stream, size, parts, has_header=reader.has_header, dialect=reader.dialect
            )
            header = _bytes_at(stream, 0, cuts.header_end)
            first = _bytes_at(stream, cuts.header_end, cuts.first_end)
            found = _with_first_record(cuts, header, first, reader)
        if parts == 1 or not types:
            return found
        look = _Look(reader, found, lambda start, stop: _bytes_at(stream, start, stop))
        return look.json() if reader.format == "jsonl" else look.csv()


def _found_nearby(
    file: TableFile, size: int, parts: int, reader: TableReader, *, types: bool
) -> Survey | None:
    """Look at the places of the cuts only; None where types have to be looked for as well."""
    if types and reader.options.get("dtype") is None:
        return None
    cuts = find_near_cuts(file.read_ranges, size, parts, reader)
    header, first = file.read_ranges([(0, cuts.header_end), (cuts.header_end, cuts.first_end)])
    if types and not gives_all_types(reader, column_names(reader, header)):
        return None
    return _with_first_record(cuts, header, first, reader)


def _bytes_at(stream: BinaryIO, start: int, stop: int) -> bytes:
    stream.seek(start)
    return stream.read(stop - start)


def _with_first_record(cuts: Cuts, header: bytes, first: bytes, reader: TableReader) -> Survey:
    return Survey(
        *(cuts.header_end, cuts.offsets, cuts.records),
        header=header,
        example=first,
        example_from=cuts.first_end,
        has_index=_has_index(reader, header, first),
    )


def _has_index(reader: TableReader, header: bytes, records: bytes) -> bool:
    """Say whether pandas takes fields of the records for an index."""
    names = column_names(reader, header)
    if names is not None and not may_have_more_fields(reader, names, records):
        return False
    # An index of fields has everything twice then, one that counts has not.
    twice = io.BytesIO(header + records + b"\n" + records)
    try:
        frame = reader.read(twice, dtype=str, converters=None)
    except ValueError:
        return False
    return frame.index.has_duplicates


def _with_mark(cuts: Cuts, stream: BinaryIO) -> Survey:
    """Take a byte order mark for the header, so that it stays in front of the example."""
    mark = _bytes_at(stream, 0, len(BOM))
    if mark != BOM:
        return Survey(cuts.header_end, cuts.offsets, cuts.records)
    offsets = tuple(max(offset, len(mark)) for offset in cuts.offsets)
    return Survey(len(mark), offsets, cuts.records, header=mark)


def read_records(
    reader: TableReader, found: Survey, start: int, body: bytes, **more: Any
) -> pd.DataFrame:
    """Parse records as they are parsed inside the whole file, types of columns aside.

    Parameters
    ----------
    start : int
        Where they are in the file.
    body : bytes
    **more
        Options for pandas.
    """
    if not found.example or (start < found.example_from and body):
        return reader.read(io.BytesIO(found.header + body), **more)
    try:
        frame = reader.read(io.BytesIO(found.header + found.example + body), **more)
    except Exception as error:
        if found.has_index or not _may_be_the_example(error, reader):
            raise
        return _read_without_example(reader, found, body, error, **more)
    kept = frame.iloc[1:]
    return kept.copy() if found.has_index else kept.reset_index(drop=True)


def _may_be_the_example(error: Exception, reader: TableReader) -> bool:
    """Say whether a value of the first record, not of these, can be what pandas refuses."""
    import pandas as pd

    names_are_known = reader.has_header or reader.options.get("names") is not None
    return names_are_known and not isinstance(error, pd.errors.ParserError)


def _read_without_example(
    reader: TableReader, found: Survey, body: bytes, error: Exception, **more: Any
) -> pd.DataFrame:
    frame = reader.read(io.BytesIO(found.header + body), **more)
    if _has_index(reader, found.header, body):
        raise error  # its first record has more fields than the others
    return frame


class _Look:
    """Looks through the file for the types of its columns, stretch by stretch."""

    def __init__(
        self, reader: TableReader, found: Survey, bytes_at: Callable[[int, int], bytes]
    ) -> None:
        self._reader = reader
        self._found = found
        self._bytes_at = bytes_at
        given = reader.options.get("dtype")
        self._given = set(given) if isinstance(given, Mapping) else set()
        self._converted = set(reader.options.get("converters") or ())
        others = {"usecols", "names", "header", "converters"}
        self._can_narrow = reader.format != "jsonl" and not others & set(reader.options)
        self._traits: dict[Any, Traits] = {}
        self._stretches = 0
        self._in_stretches: dict[Any, int] = {}
        self._open: list[int] | None = None  # positions of columns whose type is not settled

    def csv(self) -> Survey:
        """Find the types of the columns of a CSV file."""
        given = self._reader.options.get("dtype")
        if given is not None and not isinstance(given, Mapping):
            return self._found  # one type for all columns
        for first, last in self._stretches_of_parts():
            if self._open == []:
                break
            self._add(first, last)
        types = {label: self._csv_type(label, traits) for label, traits in self._traits.items()}
        return replace(self._found, types={label: kind for label, kind in types.items() if kind})

    def _csv_type(self, label: Any, traits: Traits) -> Any:
        if label in self._converted:
            return converted_type(traits)
        return "" if self._is_given(label) else csv_type(traits)

    def _is_given(self, label: Any) -> bool:
        return label in self._given or hasattr(self._reader.options.get("dtype"), "default_factory")

    def json(self) -> Survey:
        """Find the types of the columns of a JSON lines file."""
        for first, last in self._stretches_of_parts():
            self._add(first, last)
        if not all(isinstance(label, str) for label in self._traits):
            return self._found  # lines that are lists
        example = {
            label: json_example(traits, everywhere=self._in_stretches[label] == self._stretches)
            for label, traits in self._traits.items()
        }
        encoding = self._reader.options.get("encoding") or "utf-8"
        line = f"{json.dumps(example)}\n".encode(encoding).removeprefix(BOM)
        return replace(self._found, example=line)

    def _stretches_of_parts(self) -> Iterator[tuple[int, int]]:
        offsets, first = self._found.offsets, 0
        for last in range(1, len(offsets)):
            if offsets[last] - offsets[first] >= _STRETCH or last == len(offsets) - 1:
                yield first, last
                first = last

    def _add(self, first: int, last: int) -> None:
        """Add the parts from `first` to before `last`; of those that fail, nothing."""
        if not any(self._found.records[first:last]):
            return
        start, stop = self._found.offsets[first], self._found.offsets[last]
        more = {} if self._open is None else {"usecols": self._open}
        try:
            frame = read_records(
                self._reader, self._found, start, self._bytes_at(start, stop), **more
            )
        except Exception:
            if last - first > 1:
                middle = (first + last) // 2
                self._add(first, middle)
                self._add(middle, last)
            return
        merge_traits(self._traits, frame)
        self._stretches += 1
        for label in frame.columns:
            self._in_stretches[label] = self._in_stretches.get(label, 0) + 1
        if self._can_narrow and not self._found.has_index:
            labels = list(self._traits)
            self._open = [n for n, label in enumerate(labels) if not self._is_settled(label)]

    def _is_settled(self, label: Any) -> bool:
        return "str" in self._traits[label] or self._is_given(label)
