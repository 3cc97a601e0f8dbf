"""Reading a part of a table file as the whole file would be read.

A large file is cut into parts. Its rows must come out of a part exactly as they would come out
of pandas reading the whole file: records are not cut inside quotes (`record_ends`), and a column
has the type of the whole file, although a part alone may look like another type ("007" is a
number where a part has nothing but digits, and 1 is 1.0 where another part has an empty field).
`survey` finds both out, once per file.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from daskprs.parquet_rows import count_rows, read_parquet_part
from daskprs.record_ends import BOM, find_cuts
from daskprs.surveys import Survey, read_records, survey
from daskprs.table_files import TableFile
from daskprs.table_reader import FORMATS, TableReader, format_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "FORMATS",
    "Survey",
    "TableFile",
    "TableReader",
    "count_items",
    "count_records",
    "format_of",
    "read_part",
    "survey",
]


def read_part(
    file: TableFile, reader: TableReader, *, part: int, parts: int, found: Survey | None = None
) -> pd.DataFrame:
    """Read part number `part` of `parts` as a DataFrame.

    Parameters
    ----------
    found : Survey, optional
        Of CSV and JSON lines of more than one part; made here if it is not given.

    Raises
    ------
    InputChangedError
        The file is not the one that was listed.
    """
    file.check_unchanged()
    if reader.format == "parquet" and reader.can_cut(file.path):
        return read_parquet_part(file, reader, part, parts)
    if parts == 1:
        return _read_whole(file, reader)
    if found is None:
        found = survey(file, parts, reader)
    return _read_records_of_part(file, reader, found, part)


def _read_whole(file: TableFile, reader: TableReader) -> pd.DataFrame:
    compression = None if reader.format == "parquet" else reader.compression(file.path)
    more: dict[str, Any] = {"compression": None} if "compression" in reader.options else {}
    with file.open_uncompressed(compression) as stream:
        return reader.read(stream, **more)


def _read_records_of_part(
    file: TableFile, reader: TableReader, found: Survey, part: int
) -> pd.DataFrame:
    import pandas as pd

    start, stop = found.span(part)
    body = b"" if found.records_in(part) == 0 else file.read(start, stop)
    if found.records_in(part) is None and not _has_records(body, reader):
        body = b""
    try:
        frame = read_records(reader, found, start, body, **_dtypes(reader, found.types))
    except pd.errors.ParserError as error:
        raise type(error)(
            f"{error} (lines are counted from byte {start} of {file.path}, the header included)"
        ) from error
    for label, kind in found.types.items():
        if label in frame.columns:
            _finish(frame, label, kind)
    return frame


def _has_records(body: bytes, reader: TableReader) -> bool:
    blanks = b" \t\r\n".replace(reader.dialect.delimiter, b"")
    return bool(body.removeprefix(BOM).strip(blanks))


def _dtypes(reader: TableReader, types: Mapping[Any, Any]) -> dict[str, Any]:
    """Give the types that pandas can make while it parses, which is exact."""
    given = reader.options.get("dtype")
    converted = reader.options.get("converters") or ()
    if given is not None and not isinstance(given, Mapping):
        return {}
    made: dict[Any, Any] = {}
    for label, kind in types.items():
        if kind == "int to float" and _is_duplicate(label, types):
            kind = "float64"  # pandas would take the type of the first column of that name
        if label not in converted and kind != "int to float":
            made[label] = str if kind in ("str", "bigint") else kind
    return {"dtype": {**made, **(given or {})}} if made else {}


def _is_duplicate(label: Any, labels: Collection[Any]) -> bool:
    """Say whether pandas has made this name of that of another column."""
    return isinstance(label, str) and label.rpartition(".")[0] in labels


def _finish(frame: pd.DataFrame, label: Any, kind: str) -> None:
    """Make the other types of what was parsed."""
    column = frame[label]
    if kind == "bigint":
        frame[label] = column.astype(object).map(int, na_action="ignore").astype(object)
    elif kind in ("boolean", "object"):
        frame[label] = column.astype(object).where(column.notna(), float("nan"))
    elif kind in ("float64", "int to float") and column.dtype.kind in "iu":
        frame[label] = column.astype("float64")


def count_items(file: TableFile, reader: TableReader) -> int:
    """Count the records of a file that cannot be read, as well as it can be; at least 1."""
    try:
        counted = count_rows(file) if reader.format == "parquet" else _lines(file, reader)
    except Exception:
        return 1
    return max(1, counted)


def count_records(file: TableFile, reader: TableReader, span: tuple[int, int]) -> int:
    """Count the records of a part of a CSV file; 1 if it cannot be read."""
    try:
        body = file.read(*span)
    except Exception:
        return 1
    stream = io.BytesIO(body)
    cuts = find_cuts(stream, len(body), 1, has_header=False, dialect=reader.dialect)
    return cuts.records[0]


def _lines(file: TableFile, reader: TableReader) -> int:
    lines = 0
    with file.open_uncompressed(reader.compression(file.path)) as stream:
        try:
            for _ in stream:
                lines += 1
        except Exception:  # a truncated archive: what can be read counts
            lines += 1
    return lines - reader.has_header
