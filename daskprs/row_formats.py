"""What the formats of the output ask of rows: columns that fit together, a header line.

Rows come as bytes that are ready to be written, those of one mini-batch at a time. Text and JSON
lines only need to be put one after another. A table has one set of columns, its *shape*, which
every mini-batch has to fit.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from daskprs.entry_process.wire import Rows

__all__ = ["ColumnsChangedError", "CsvRows", "RowFormat", "row_format"]

Earlier = Callable[[], Iterator[bytes]]


class ColumnsChangedError(ValueError):
    """The columns of a mini-batch do not fit those of the rows before it."""


class RowFormat:
    """Rows that are only put one after another.

    Attributes
    ----------
    shape : object
        The columns so far, as JSON can hold them; None while there are none.
    """

    def __init__(self, shape: Any = None) -> None:
        self.shape = shape

    def expect(self, parts: Sequence[Rows]) -> None:
        """Look at the rows of all parts of a mini-batch before the first is made to fit."""

    def fit(self, rows: Rows, earlier: Earlier) -> bytes:
        """Return the rows of a mini-batch as they are to be kept.

        Parameters
        ----------
        rows : Rows
        earlier : callable
            Gives the rows of each mini-batch before this one.

        Raises
        ------
        ColumnsChangedError
            `shape` is what it was.
        """
        return rows.payload

    # Rows as they are kept

    def length(self, rows: bytes) -> int:
        """Tell how long rows are, in the unit of `cut`."""
        return len(rows)

    def cut(self, rows: bytes, start: int, stop: int) -> bytes:
        return rows[start:stop]

    def join(self, pieces: list[bytes]) -> bytes:
        return b"".join(pieces)

    # The final file

    def header(self) -> bytes:
        """Return what stands in front of all rows."""
        return b""

    def compose(self, payloads: Iterable[bytes]) -> Iterator[bytes]:
        """Make the content of the final file, in pieces, of rows as they were kept."""
        yield self.header()
        yield from payloads


class CsvRows(RowFormat):
    """Rows under one header line: the columns of the first mini-batch that has any."""

    shape: list[str] | None

    def expect(self, parts: Sequence[Rows]) -> None:
        columns = list(dict.fromkeys(rows.columns for rows in parts if rows.columns is not None))
        if self.shape is None and len(columns) > 1:
            self.shape = list(dict.fromkeys(name for names in columns for name in names))

    def fit(self, rows: Rows, earlier: Earlier) -> bytes:
        if rows.columns is None:
            return rows.payload
        columns = list(rows.columns)
        if self.shape is None:
            self.shape = columns
        if columns == self.shape:
            return rows.payload
        return self._arranged(rows, columns, self.shape)

    def _arranged(self, rows: Rows, columns: list[str], shape: list[str]) -> bytes:
        if not set(columns) <= set(shape) or len(set(shape)) < len(shape):
            raise ColumnsChangedError(
                f"run() returned the columns {columns}, but the output file began with {shape}: "
                "return the same columns from every call, or use output_format='jsonl'."
            )
        table = _parsed(rows.payload)
        if len(table) != rows.count or any(len(row) > len(columns) for row in table):
            raise ColumnsChangedError(
                f"run() returned the columns {columns}, but the output file began with {shape}, "
                "and its values cannot be told apart to be put in that order: return the same "
                "columns in the same order from every call."
            )
        named = (dict(zip(columns, row, strict=False)) for row in table)
        return b"".join(_csv_line([row.get(name, "") for name in shape]) for row in named)

    def header(self) -> bytes:
        return b"" if self.shape is None else _csv_line(self.shape)


def row_format(output_format: str | None, shape: Any = None) -> RowFormat:
    """Make what knows an output format, with the columns so far."""
    if output_format == "parquet":
        # Only who wants parquet pays for its import.
        from daskprs.parquet_format import ParquetRows

        return ParquetRows(shape)
    return CsvRows(shape) if output_format == "csv" else RowFormat(shape)


def _csv_line(values: Sequence[str]) -> bytes:
    buffer = io.StringIO()
    # Before Python 3.13 a carriage return alone is no reason for quotes, but ends a line.
    has_return = any("\r" in value for value in values)
    csv.writer(
        buffer, lineterminator="\n", quoting=csv.QUOTE_ALL if has_return else csv.QUOTE_MINIMAL
    ).writerow(values)
    return buffer.getvalue().encode("utf-8", "surrogateescape")


def _parsed(payload: bytes) -> list[list[str]]:
    text = io.StringIO(payload.decode("utf-8", "surrogateescape"), newline="")
    # By default no field may be longer than 128 KiB.
    limit = csv.field_size_limit(max(len(payload), csv.field_size_limit()))
    try:
        return list(csv.reader(text))
    except csv.Error as error:
        raise ColumnsChangedError(f"its columns cannot be put in order: {error}.") from error
    finally:
        csv.field_size_limit(limit)
