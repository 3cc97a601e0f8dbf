"""Parts of a parquet file: any rows of it, with the types that the whole file has in pandas."""

from __future__ import annotations

import bisect
import contextlib
import functools
import itertools
import json
import threading
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from daskprs.table_files import TableFile
from daskprs.table_reader import TableReader

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["close_idle_files", "count_rows", "read_parquet_part"]

_MOST_ROWS_AT_ONCE = 1 << 16

# One open file for each thread: the parts of a file mostly come one after another.
_open_files = threading.local()
_all_open: weakref.WeakSet[_ParquetRows] = weakref.WeakSet()


def read_parquet_part(file: TableFile, reader: TableReader, part: int, parts: int) -> pd.DataFrame:
    """Read the rows of part number `part` of `parts`."""
    columns = reader.options.get("columns")
    key = (file.path, file.size, file.version, repr(columns), file.content is None)
    rows: _ParquetRows | None = getattr(_open_files, "rows", None)
    if rows is None or rows.key != key or file.content is not None or not rows.take():
        if rows is not None:
            rows.close()
        rows = _open_files.rows = _ParquetRows(key, file, columns)
        _all_open.add(rows)
    try:
        count = rows.count
        return rows.frame(part * count // parts, (part + 1) * count // parts)
    except BaseException:
        _open_files.rows = None
        rows.close()
        raise
    finally:
        rows.in_use.release()


def close_idle_files() -> None:
    """Close what threads have left open, where they read nothing at this moment."""
    for rows in list(_all_open):
        if rows.in_use.acquire(blocking=False):
            rows.close()
            rows.in_use.release()


def count_rows(file: TableFile) -> int:
    """Read the number of rows from the footer."""
    import pyarrow.parquet as pq

    with file.open() as stream:
        rows: int = pq.ParquetFile(stream).metadata.num_rows
        return rows


class _ParquetRows:
    """A parquet file from which rows are read, forward as far as possible, in little memory."""

    def __init__(self, key: Any, file: TableFile, columns: list[str] | None) -> None:
        import pyarrow.parquet as pq

        self.key = key
        self.in_use, self._is_closed = threading.Lock(), False
        self.in_use.acquire()
        self._stream = file.open()
        self._file = pq.ParquetFile(self._stream)
        metadata = self._file.metadata
        sizes = [metadata.row_group(g).num_rows for g in range(metadata.num_row_groups)]
        self._starts = [0, *itertools.accumulate(sizes)]  # of the row groups
        self.count: int = metadata.num_rows
        self._columns = columns
        self._batches: Iterator[Any] = iter(())
        self._left: Any = None  # what is left of the batch that was read last
        self._at = -1  # the row that comes next
        self._nullable: list[str] | None = None
        self._dictionaries: dict[str, Any] = {}

    def take(self) -> bool:
        """Use it again, unless it was closed; whoever uses it releases `in_use`."""
        self.in_use.acquire()
        if self._is_closed:
            self.in_use.release()
        return not self._is_closed

    def close(self) -> None:
        self._is_closed = True
        self._batches, self._left = iter(()), None
        with contextlib.suppress(Exception):
            self._file.close()
            self._stream.close()

    def frame(self, start: int, stop: int) -> pd.DataFrame:
        """Read rows as they come out of ``pandas.read_parquet`` of the whole file."""
        table = self._with_whole_dictionaries(self._table(start, stop))
        frame: pd.DataFrame = table.to_pandas()
        attributes = (table.schema.metadata or {}).get(b"PANDAS_ATTRS")
        if attributes is not None:
            frame.attrs = json.loads(attributes)
        for name in self._nullable_numbers(table.schema):
            dtype = frame[name].dtype if name in frame.columns else None
            # A type of pandas for numbers with missing ones holds them as they are.
            if isinstance(dtype, np.dtype) and dtype.kind in "iub":
                wide: Any = "object" if dtype.kind == "b" else "float64"
                frame[name] = frame[name].astype(wide)
        return frame

    # Rows

    def _table(self, start: int, stop: int) -> Any:
        import pyarrow as pa

        kept: list[Any] = []
        if start == stop:
            return pa.Table.from_batches(kept, self._schema)
        if self._at < 0 or start < self._at or self._group_of(start) > self._group_of(self._at):
            self._go_to_group_of(start, stop - start)
        while self._at < stop:
            if self._left is None or self._left.num_rows == 0:
                self._left = next(self._batches)
            elif self._at < start:
                self._take(start - self._at)
            else:
                kept.append(self._take(stop - self._at))
        return pa.Table.from_batches(kept).select(self._schema.names).cast(self._schema)

    def _take(self, rows: int) -> Any:
        rows = min(rows, self._left.num_rows)
        taken, self._left = self._left.slice(0, rows), self._left.slice(rows)
        self._at += rows
        return taken

    def _group_of(self, row: int) -> int:
        return bisect.bisect_right(self._starts, row) - 1

    def _go_to_group_of(self, row: int, rows: int) -> None:
        group = self._group_of(row)
        self._batches = self._read(range(group, self._file.metadata.num_row_groups), rows)
        self._at, self._left = self._starts[group], None

    def _read(self, groups: Any, rows: int, columns: list[str] | None = None) -> Iterator[Any]:
        batches: Iterator[Any] = self._file.iter_batches(
            batch_size=max(1, min(rows, _MOST_ROWS_AT_ONCE)),
            row_groups=list(groups),
            columns=columns or self._columns,
            use_pandas_metadata=columns is None,
            use_threads=False,
        )
        return batches

    @functools.cached_property
    def _schema(self) -> Any:
        """The schema of what is read, with the metadata that pandas has written.

        Raises
        ------
        ValueError
            A column that is asked for is not in the file.
        """
        whole = self._file.schema_arrow
        if self._columns is None:
            return whole
        read = self._file.read_row_groups([], columns=self._columns, use_pandas_metadata=True)
        for name in self._columns:
            if name not in whole.names:
                raise ValueError(f"the file has no column {name!r}; it has {whole.names}")
        return read.select(list(dict.fromkeys([*self._columns, *read.column_names]))).schema

    # Types of the whole file

    def _nullable_numbers(self, schema: Any) -> list[str]:
        """Columns of numbers with a missing value anywhere: floats in pandas, or objects."""
        if self._nullable is None:
            self._nullable = [
                schema.field(i).name
                for i in range(len(schema))
                if _is_number(schema.field(i).type) and self._has_nulls(schema.field(i).name)
            ]
        return self._nullable

    def _has_nulls(self, name: str) -> bool:
        metadata = self._file.metadata
        leaf = next(
            i for i in range(metadata.num_columns)
            if metadata.schema.column(i).path == name
        )  # fmt: skip
        if metadata.schema.column(leaf).max_definition_level == 0:
            return False
        for group in range(metadata.num_row_groups):
            statistics = metadata.row_group(group).column(leaf).statistics
            if statistics is None or not statistics.has_null_count:
                batches = self._read([group], _MOST_ROWS_AT_ONCE, [name])
                has_nulls = any(batch.column(0).null_count for batch in batches)
            else:
                has_nulls = statistics.null_count > 0
            if has_nulls:
                return True
        return False

    def _with_whole_dictionaries(self, table: Any) -> Any:
        """Give the categories of the whole file to columns that are dictionaries."""
        import pyarrow as pa

        for i, field in enumerate(table.schema):
            if not pa.types.is_dictionary(field.type):
                continue
            if field.name not in self._dictionaries:
                self._dictionaries[field.name] = self._whole_dictionary(field.name, field.type)
            values = self._dictionaries[field.name]
            chunks = [_recoded(chunk, values) for chunk in table.column(i).chunks]
            chunks = chunks or [_recoded(pa.array([], field.type), values)]
            table = table.set_column(i, field, pa.chunked_array(chunks))
        return table

    def _whole_dictionary(self, name: str, kind: Any) -> Any:
        """Collect the values of all row groups, in the order in which they come."""
        import pyarrow as pa

        dictionaries = [pa.array([], kind.value_type)]
        groups = range(self._file.metadata.num_row_groups)
        for batch in self._read(groups, _MOST_ROWS_AT_ONCE, [name]):
            dictionary = batch.column(0).dictionary
            if not dictionary.equals(dictionaries[-1]):
                dictionaries.append(dictionary)
        return pa.chunked_array(dictionaries).unique()


def _recoded(chunk: Any, values: Any) -> Any:
    """Return the same with the dictionary `values`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    codes = pc.index_in(chunk.dictionary, value_set=values).take(chunk.indices)
    kind = chunk.type
    return pa.DictionaryArray.from_arrays(codes.cast(kind.index_type), values, ordered=kind.ordered)


def _is_number(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_integer(kind) or pa.types.is_boolean(kind))
