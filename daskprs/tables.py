"""Reading a part of a table file as the whole file would be read.

A large file is cut into parts. Its rows must come out of a part exactly as they would come out
of pandas reading the whole file: records are not cut inside quotes (`record_ends`), and a column
has the type of the whole file, although a part alone may look like another type ("007" is a
number where a part has nothing but digits, and 1 is 1.0 where another part has an empty field).
`survey` finds both out, once per file.
"""

from __future__ import annotations

import codecs
import io
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO

import fsspec
import fsspec.utils

from daskprs.listing import is_local
from daskprs.record_ends import Dialect, find_cuts

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FORMATS", "Survey", "TableReader", "count_items", "format_of", "read_part", "survey"]

FORMATS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".txt": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".parq": "parquet",
    ".pq": "parquet",
}

# Options under which a part, with the header in front, reads as it does inside the whole file.
_CUT_SAFE_CSV = {
    *("sep", "delimiter", "header", "names", "index_col", "usecols", "dtype", "engine"),
    *("converters", "true_values", "false_values", "skipinitialspace", "na_values"),
    *("keep_default_na", "na_filter", "skip_blank_lines", "parse_dates", "date_format"),
    *("dayfirst", "cache_dates", "thousands", "decimal", "quotechar", "quoting", "doublequote"),
    *("escapechar", "encoding", "encoding_errors", "on_bad_lines", "low_memory"),
    *("float_precision", "dtype_backend", "memory_map", "verbose"),
}
_CUT_SAFE_JSON = {"dtype", "convert_axes", "convert_dates", "keep_default_dates", "precise_float",
                  "date_unit", "encoding", "encoding_errors", "lines", "dtype_backend"}  # fmt: skip
_CUT_SAFE_PARQUET = {"columns", "engine"}
_QUOTE_NONE = 3


@dataclass(frozen=True)
class TableReader:
    """A format and the options that go through to the reader of pandas.

    Parameters
    ----------
    format : {"csv", "tsv", "jsonl", "parquet"}
    options : mapping
        Keyword arguments of ``pandas.read_csv``, ``read_json`` or ``read_parquet``.
    quoted_newlines : bool
        Whether quoted fields may hold newlines. False saves one reading of each large file.
    """

    format: str
    options: Mapping[str, Any] = field(default_factory=dict)
    quoted_newlines: bool = True

    def can_cut(self, path: str) -> bool:
        """Say whether a large file can be cut into parts that read like the whole."""
        if fsspec.utils.infer_compression(path) or self.options.get("compression", "infer") not in (
            "infer",
            None,
        ):
            return False
        given = set(self.options) - {"compression"}
        if self.format == "parquet":
            return given <= _CUT_SAFE_PARQUET
        if not _newline_is_a_byte(self.options.get("encoding", "utf-8")):
            return False
        if self.format == "jsonl":
            return given <= _CUT_SAFE_JSON
        header = self.options.get("header", "infer")
        return (
            given <= _CUT_SAFE_CSV
            and (header in ("infer", 0) or header is None)
            and self.options.get("engine", "c") in ("c", "pyarrow")
            and all(len(mark.encode()) == 1 for mark in self._marks())
            and self.options.get("index_col") is None
        )

    def _marks(self) -> list[str]:
        names = ("quotechar", "escapechar")
        return [self.separator, *(str(self.options[n]) for n in names if self.options.get(n))]

    @property
    def separator(self) -> str:
        default = "\t" if self.format == "tsv" else ","
        return str(self.options.get("sep") or self.options.get("delimiter") or default)

    @property
    def has_header(self) -> bool:
        """Whether the first record of the file is in front of every part."""
        if self.format not in ("csv", "tsv"):
            return False
        header = self.options.get("header", "infer")
        return header == 0 or (header == "infer" and self.options.get("names") is None)

    @property
    def dialect(self) -> Dialect:
        escape = self.options.get("escapechar")
        return Dialect(
            delimiter=self.separator.encode(),
            quotechar=str(self.options.get("quotechar", '"')).encode(),
            escapechar=str(escape).encode() if escape else None,
            doublequote=bool(self.options.get("doublequote", True)),
            quoting=self.quoted_newlines and self.options.get("quoting", 0) != _QUOTE_NONE,
            skipinitialspace=bool(self.options.get("skipinitialspace", False)),
        )

    def read(self, source: Any, **more: Any) -> pd.DataFrame:
        """Read a path or stream with pandas; a file without any column is an empty table."""
        import pandas as pd

        options = {**self.options, **more}
        try:
            if self.format == "parquet":
                return pd.read_parquet(source, **options)
            if self.format == "jsonl":
                return pd.read_json(source, **{**options, "lines": True})
            if self.format == "tsv" and "delimiter" not in options:
                options = {"sep": "\t", **options}
            return pd.read_csv(source, **options)
        except pd.errors.EmptyDataError:
            return pd.DataFrame()


def _newline_is_a_byte(encoding: object) -> bool:
    try:
        name = codecs.lookup(str(encoding)).name
    except LookupError:
        return False
    known = ("utf-8", "utf-8-sig", "ascii", "iso8859", "cp125", "koi8", "mac-")
    return name.startswith(known)


def format_of(path: str) -> str | None:
    """Tell the format from the name of a file, below a suffix such as ``.gz``."""
    name = path.lower().split("?")[0]
    if fsspec.utils.infer_compression(name):
        name = name.rsplit(".", 1)[0]
    dot = name.rfind(".", name.rfind("/") + 1)
    return FORMATS.get(name[dot:]) if dot >= 0 else None


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


def open_bytes(path: str, storage_options: Mapping[str, Any], content: bytes | None) -> BinaryIO:
    """Open a local path, a url, or bytes that were sent along."""
    if content is not None:
        return io.BytesIO(content)
    if is_local(path):
        return open(path, "rb")
    opened: BinaryIO = fsspec.open(path, "rb", **storage_options).open()
    return opened


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
        columns, types = _whole_file_types(stream, found, reader)
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


def _whole_file_types(
    stream: BinaryIO, found: Survey, reader: TableReader
) -> tuple[tuple[Any, ...], dict[Any, str]]:
    kinds: dict[Any, str] = {}
    given = reader.options.get("dtype")
    decided = set(given) if isinstance(given, Mapping) else set()
    decided |= set(reader.options.get("converters") or ())
    narrow = _can_read_some_columns(reader)
    for part in range(len(found.records)):
        if not found.records[part]:
            continue
        more: dict[str, Any] = {}
        open_columns = [c for c, kind in kinds.items() if kind != "str" and c not in decided]
        if kinds and narrow:
            # Text stays text: only columns that can still change are parsed.
            if not open_columns:
                break
            more["usecols"] = open_columns
        try:
            frame = reader.read(io.BytesIO(_part_bytes(stream, found, part)), **more)
        except Exception:  # noqa: S112  (this part fails again when it is run, with its reason)
            continue
        if not kinds and narrow and not _plain_labels(frame.columns):
            narrow = False
        for position, column in enumerate(frame.columns):
            kind = _kind(frame.iloc[:, position])
            kinds[column] = _widen(kinds[column], kind) if column in kinds else kind
    wide = {"str": "str", "float": "float", "object": "object"}
    types = {c: wide[k] for c, k in kinds.items() if k in wide and c not in decided}
    return tuple(kinds), types


def _can_read_some_columns(reader: TableReader) -> bool:
    others = {"usecols", "names", "header", "index_col", "parse_dates", "engine"}
    return reader.format in ("csv", "tsv") and not others & set(reader.options)


def _plain_labels(columns: Any) -> bool:
    """Say whether pandas has renamed no duplicate, and taken no column as the index."""
    return all(isinstance(c, str) and "." not in c and "Unnamed" not in c for c in columns)


def _kind(column: pd.Series[Any]) -> str:
    import pandas as pd

    kind = column.dtype.kind
    if kind == "b":
        return "bool"
    if kind in "iu":
        return "int"
    if kind == "f":
        return "float" if column.notna().any() else "null"
    if kind in "mM":
        return "time"
    inferred = pd.api.types.infer_dtype(column, skipna=True)
    return {"boolean": "object", "empty": "null"}.get(inferred, "str")


_NUMBERS = {"int", "float", "null"}
_BOOLEANS = {"bool", "object", "null"}


def _widen(one: str, other: str) -> str:
    """The kind that pandas gives a column whose parts are of these two kinds."""
    both = {one, other}
    if len(both) == 1:
        return one
    if "time" in both:
        return "time"
    if both <= _NUMBERS:
        return "float"
    return "object" if both <= _BOOLEANS else "str"


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
        return _read_parquet_part(path, reader, storage_options, part, parts, content)
    if parts == 1:
        with _open_whole(path, storage_options, content, reader) as stream:
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


def _open_whole(
    path: str, storage_options: Mapping[str, Any], content: bytes | None, reader: TableReader
) -> BinaryIO:
    compression = reader.options.get("compression", "infer")
    if isinstance(compression, Mapping):
        compression = compression.get("method", "infer")
    if compression == "infer":
        compression = fsspec.utils.infer_compression(path)
    raw = open_bytes(path, storage_options, content)
    if compression is None or reader.format == "parquet":
        return raw
    opened: BinaryIO = fsspec.compression.compr[compression](raw, mode="rb")
    return opened


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


# Parquet: no survey, the footer tells; rows stream forward through a row group.

_open_parquet = threading.local()


class _ParquetRows:
    """Rows of one parquet file from any row on, forward, in little memory."""

    def __init__(self, stream: Any, columns: list[str] | None) -> None:
        import pyarrow.parquet as pq

        self.file = pq.ParquetFile(stream)
        self.rows: int = self.file.metadata.num_rows
        self._columns = columns
        self._batches: Iterator[Any] = iter(())
        self._left: Any = None
        self._at = -1

    def read(self, start: int, stop: int) -> Any:
        import pyarrow as pa

        if self._at < 0 or start < self._at or self._group_of(start) > self._group_of(self._at):
            self._restart(start, max(1, stop - start))
        kept = []
        while self._at < stop:
            if self._left is None or self._left.num_rows == 0:
                self._left = next(self._batches)
            skip = min(max(start - self._at, 0), self._left.num_rows)
            self._at += skip
            self._left = self._left.slice(skip)
            take = min(stop - self._at, self._left.num_rows)
            if take > 0 and self._at >= start:
                kept.append(self._left.slice(0, take))
                self._at += take
                self._left = self._left.slice(take)
        schema = kept[0].schema if kept else self.file.schema_arrow
        return pa.Table.from_batches(kept, schema)

    def _group_of(self, row: int) -> int:
        end = 0
        for group in range(self.file.metadata.num_row_groups):
            end += self.file.metadata.row_group(group).num_rows
            if row < end:
                return group
        return self.file.metadata.num_row_groups

    def _restart(self, row: int, batch_size: int) -> None:
        group = self._group_of(row)
        groups = list(range(group, self.file.metadata.num_row_groups))
        self._batches = self.file.iter_batches(
            batch_size=min(batch_size, 1 << 16), row_groups=groups, columns=self._columns,
            use_threads=False,
        )  # fmt: skip
        self._at = sum(self.file.metadata.row_group(g).num_rows for g in range(group))
        self._left = None

    def nullable(self) -> set[str]:
        """Columns with a missing value anywhere in the file, as far as the footer tells."""
        found = set()
        metadata = self.file.metadata
        for g in range(metadata.num_row_groups):
            group = metadata.row_group(g)
            for c in range(group.num_columns):
                column = group.column(c)
                statistics = column.statistics
                if statistics is not None and statistics.null_count:
                    found.add(column.path_in_schema)
        return found


def _read_parquet_part(
    path: str,
    reader: TableReader,
    storage_options: Mapping[str, Any],
    part: int,
    parts: int,
    content: bytes | None,
) -> pd.DataFrame:
    columns = reader.options.get("columns")
    key = (path, str(columns), content is None)
    cached = getattr(_open_parquet, "last", None)
    if cached is None or cached[0] != key or part == 0:
        stream = open_bytes(path, storage_options, content)
        cached = (key, _ParquetRows(stream, columns))
        _open_parquet.last = cached
    rows = cached[1]
    table = rows.read(part * rows.rows // parts, (part + 1) * rows.rows // parts)
    frame: pd.DataFrame = table.to_pandas()
    for column in rows.nullable() & set(map(str, frame.columns)):
        kind = frame[column].dtype.kind
        if kind in "iub" and isinstance(frame[column].dtype, _numpy_dtype()):
            frame[column] = frame[column].astype("object" if kind == "b" else "float64")
    return frame


def _numpy_dtype() -> type:
    import numpy as np

    return np.dtype


def count_items(
    path: str, reader: TableReader, storage_options: Mapping[str, Any], content: bytes | None
) -> int:
    """Count the records of a file that cannot be read, as well as it can be; at least 1."""
    counts: dict[str, Callable[[], int]] = {
        "parquet": lambda: _parquet_records(path, storage_options, content)
    }
    try:
        return max(1, counts.get(reader.format, lambda: _lines(path, storage_options, content, reader))())
    except Exception:
        return 1


def _parquet_records(path: str, storage_options: Mapping[str, Any], content: bytes | None) -> int:
    import pyarrow.parquet as pq

    with open_bytes(path, storage_options, content) as stream:
        rows: int = pq.ParquetFile(stream).metadata.num_rows
        return rows


def _lines(
    path: str, storage_options: Mapping[str, Any], content: bytes | None, reader: TableReader
) -> int:
    lines = 0
    with _open_whole(path, storage_options, content, reader) as stream:
        try:
            for _ in stream:
                lines += 1
        except Exception:  # a truncated archive: what can be read counts
            lines += 1
    return lines - reader.has_header
