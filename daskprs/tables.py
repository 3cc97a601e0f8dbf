"""Reading a part of a table file as the whole file would be read.

A large file is cut into parts. Its rows must come out of a part exactly as they would come out
of pandas reading the whole file: records are not cut inside quotes (`record_ends`), and a column
has the type of the whole file, although a part alone may look like another type ("007" is a
number where a part has nothing but digits, and 1 is 1.0 where another part has an empty field).
`survey` finds both out, once per file.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO

import fsspec

from daskprs.column_types import whole_file_types
from daskprs.file_trees import is_local
from daskprs.parquet_rows import count_rows, read_parquet_part
from daskprs.record_ends import Dialect, find_cuts
from daskprs.table_files import open_bytes, open_whole
from daskprs.table_reader import FORMATS, TableReader, format_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FORMATS", "Survey", "TableReader", "count_items", "format_of", "read_part", "survey"]


@dataclass(frozen=True)
class Survey:
    """What must be known of a whole file to read a part of it.

    Attributes
    ----------
    header_end : int
        Bytes of the header, which go in front of every part.
    offsets : tuple of int
        Byte offsets of the cuts, one more than parts.
    records : tuple of int
        Records in each part.
    columns : tuple or None
        All columns in order (JSON lines, where a line may lack some).
    types : mapping
        Column to "str", "float" or "object", where a part must not decide by itself.
    """

    header_end: int
    offsets: tuple[int, ...]
    records: tuple[int, ...]
    columns: tuple[Any, ...] | None = None
    types: Mapping[Any, str] = field(default_factory=dict)


def survey(
    path: str,
    size: int,
    parts: int,
    reader: TableReader,
    storage_options: Mapping[str, Any],
    content: bytes | None = None,
) -> Survey:
    """Find the cuts of a CSV or JSON lines file, and the types of its columns.

    Reads the file once for the cuts, and parses it once for the types, unless the reader's
    options give the types of all columns.
    """
    with open_bytes(path, storage_options, content) as stream:
        if reader.format == "jsonl":
            # A newline inside a JSON text is escaped: every newline ends a record.
            plain = Dialect(delimiter=b"\0", quoting=False)
            cuts = find_cuts(stream, size, parts, has_header=False, dialect=plain)
        else:
            cuts = find_cuts(
                stream, size, parts, has_header=reader.has_header, dialect=reader.dialect
            )
        found = Survey(cuts.header_end, cuts.offsets, cuts.records)
        if isinstance(reader.options.get("dtype"), str | type) or parts == 1:
            return found
        columns, types = whole_file_types(
            lambda part: _part_bytes(stream, found, part), found.records, reader
        )
    return Survey(
        found.header_end,
        found.offsets,
        found.records,
        columns=columns if reader.format == "jsonl" else None,
        types=types,
    )


def _part_bytes(stream: BinaryIO, found: Survey, part: int) -> bytes:
    stream.seek(0)
    header = stream.read(found.header_end)
    start, stop = found.offsets[part], found.offsets[part + 1]
    stream.seek(start)
    return header + stream.read(stop - start)


def read_part(
    path: str,
    reader: TableReader,
    storage_options: Mapping[str, Any],
    *,
    part: int,
    parts: int,
    found: Survey | None,
    content: bytes | None = None,
) -> pd.DataFrame:
    """Read part number `part` of `parts` as a DataFrame with an index from 0.

    `found` is needed for CSV and JSON lines of more than one part.
    """
    if reader.format == "parquet" and reader.can_cut(path):
        return read_parquet_part(path, reader, storage_options, part, parts, content)
    if parts == 1:
        with open_whole(path, storage_options, content, reader) as stream:
            return reader.read(stream, **_uncompressed(reader))
    if found is None:
        found = survey(path, _size(path, storage_options, content), parts, reader, storage_options)
    if content is not None or is_local(path):
        with open_bytes(path, storage_options, content) as stream:
            data = _part_bytes(stream, found, part)
    else:
        fs, inside = fsspec.core.url_to_fs(path, **storage_options)
        start, stop = found.offsets[part], found.offsets[part + 1]
        header = fs.cat_file(inside, start=0, end=found.header_end) if found.header_end else b""
        data = header + (fs.cat_file(inside, start=start, end=stop) if stop > start else b"")
    return _as_in_the_whole(reader, data, found)


def _size(path: str, storage_options: Mapping[str, Any], content: bytes | None) -> int:
    with open_bytes(path, storage_options, content) as stream:
        return stream.seek(0, io.SEEK_END)


def _uncompressed(reader: TableReader) -> dict[str, Any]:
    return {"compression": None} if "compression" in reader.options else {}


def _as_in_the_whole(reader: TableReader, data: bytes, found: Survey) -> pd.DataFrame:
    texts = {c: (str if reader.format != "jsonl" else object)
             for c, kind in found.types.items() if kind == "str"}  # fmt: skip
    more: dict[str, Any] = {}
    given = reader.options.get("dtype")
    if texts and (given is None or isinstance(given, Mapping)):
        more["dtype"] = {**texts, **(given or {})}
    frame = reader.read(io.BytesIO(data), **more)
    if found.columns is not None and len(frame):
        frame = frame.reindex(columns=list(found.columns))
    casts = {"float": "float64", "object": "object"}
    for column, kind in found.types.items():
        if kind in casts and column in frame.columns and frame[column].dtype.kind in "iub":
            frame[column] = frame[column].astype(casts[kind])
    return frame


def count_items(
    path: str, reader: TableReader, storage_options: Mapping[str, Any], content: bytes | None
) -> int:
    """Count the records of a file that cannot be read, as well as it can be; at least 1."""
    counts: dict[str, Callable[[], int]] = {
        "parquet": lambda: count_rows(path, storage_options, content)
    }
    try:
        return max(
            1, counts.get(reader.format, lambda: _lines(path, storage_options, content, reader))()
        )
    except Exception:
        return 1


def _lines(
    path: str, storage_options: Mapping[str, Any], content: bytes | None, reader: TableReader
) -> int:
    lines = 0
    with open_whole(path, storage_options, content, reader) as stream:
        try:
            for _ in stream:
                lines += 1
        except Exception:  # a truncated archive: what can be read counts
            lines += 1
    return lines - reader.has_header
