"""Parts of a parquet file: no survey, the footer tells; rows stream through a row group."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from daskprs.table_files import open_bytes
from daskprs.table_reader import TableReader

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["count_rows", "read_parquet_part"]

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


def read_parquet_part(
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


def count_rows(path: str, storage_options: Mapping[str, Any], content: bytes | None) -> int:
    import pyarrow.parquet as pq

    with open_bytes(path, storage_options, content) as stream:
        rows: int = pq.ParquetFile(stream).metadata.num_rows
        return rows
