"""Rows of a parquet output: kept as Arrow messages, which one schema has to hold in the end.

Whether a mini-batch fits is found out when it comes, not at the end of the run, when its failure
would cost everything. Types are widened where every value that is kept stays what it is.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from daskprs.entry_process.wire import Rows
from daskprs.row_formats import ColumnsChangedError, Earlier, RowFormat

__all__ = ["ParquetRows"]

_GROUP_BYTES = 64 << 20
_GATHER = 1000
_MOST_HEADS = 1000
_ADVICE = "return the same types from every call, or use output_format='jsonl'."


class ParquetRows(RowFormat):
    """Arrow IPC streams; `shape` is the schema that holds them all, in base64."""

    shape: str | None

    def __init__(self, shape: Any = None) -> None:
        super().__init__(shape)
        self._schema: Any = pa.schema([])
        if shape is not None:
            self._schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(shape)))
        self._same: set[bytes] = set()  # heads of messages that need no conversion

    def fit(self, rows: Rows, earlier: Earlier) -> bytes:
        payload = rows.payload
        # The head of a stream is its schema: most mini-batches are known by it.
        head = bytes(payload[: 8 + int.from_bytes(payload[4:8], "little")])
        if not payload or head in self._same:
            return payload
        try:
            table = _read(payload)
            schema = self._widened(table.schema)
            fitted = _conform(table, schema)
            if self.shape is None or not schema.equals(self._schema):
                self._check(fitted, schema, earlier)
                self._schema = schema
                self.shape = base64.b64encode(schema.serialize()).decode("ascii")
                self._same.clear()
        except pa.ArrowException as error:
            raise ColumnsChangedError(
                f"run() returned columns that a parquet file cannot hold ({error}): {_ADVICE}"
            ) from error
        if all(field.type == schema.field(field.name).type for field in table.schema):
            if len(self._same) >= _MOST_HEADS:
                self._same.clear()  # each is different, such as the attrs of a frame
            self._same.add(head)
        return payload

    def _widened(self, schema: Any) -> Any:
        """Return the schema that holds the rows so far, and those of `schema`."""
        names = schema.names
        if len(set(names)) < len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise ColumnsChangedError(
                f"run() returned more than one column with the name {', '.join(twice)}: the "
                "columns of a parquet file need names of their own."
            )
        for field in schema:
            at = self._schema.get_field_index(field.name)
            if at >= 0:
                _check_widening(field, self._schema.field(at))
        return pa.unify_schemas([self._schema, schema], promote_options="permissive")

    def _check(self, table: Any, schema: Any, earlier: Earlier) -> None:
        """Try what could fail in the end: to write these types, to convert the earlier rows."""
        with pq.ParquetWriter(io.BytesIO(), schema) as writer:
            writer.write_table(table.slice(0, 1))
        changed = [
            schema.field(field.name)
            for field in self._schema
            if not pa.types.is_null(field.type) and field.type != schema.field(field.name).type
        ]
        if changed:
            for payload in earlier():
                _conform(_read(payload), pa.schema(changed))

    def length(self, rows: bytes) -> int:
        return _read(rows).num_rows if rows else 0

    def cut(self, rows: bytes, start: int, stop: int) -> bytes:
        if start >= stop:
            return b""
        table = _read(rows)
        count = stop - start
        return rows if count == table.num_rows else _written(table.slice(start, count))

    def join(self, pieces: list[bytes]) -> bytes:
        pieces = [piece for piece in pieces if self.length(piece)] or pieces[:1]
        if len(pieces) == 1:
            return pieces[0]
        return _written(pa.concat_tables([_conform(_read(p), self._schema) for p in pieces]))

    def compose(self, payloads: Iterable[bytes]) -> Iterator[bytes]:
        sink = _Drain()
        with pq.ParquetWriter(sink, self._schema) as writer:
            for table in self._groups(payloads):
                writer.write_table(table)
                yield sink.take()
        yield sink.take()

    def _groups(self, payloads: Iterable[bytes]) -> Iterator[Any]:
        """Put small tables together: a file of many small row groups is slow to read."""
        tables: list[Any] = []
        gathered: list[Any] = []
        waiting = nbytes = 0
        for payload in payloads:
            tables.append(_conform(_read(payload), self._schema))
            waiting += len(payload)
            if len(tables) < _GATHER and waiting < _GROUP_BYTES:
                continue
            # A table costs some kilobytes, however few rows it has.
            gathered.append(pa.concat_tables(tables).combine_chunks())
            nbytes += waiting
            tables, waiting = [], 0
            if nbytes >= _GROUP_BYTES:
                yield pa.concat_tables(gathered)
                gathered, nbytes = [], 0
        if gathered or tables:
            yield pa.concat_tables(gathered + tables)


def _read(payload: bytes) -> Any:
    """Open an Arrow IPC stream as columns of plain types, without what pandas notes in it."""
    table = pa.ipc.open_stream(payload).read_all()
    columns, fields = [], []
    for field, column in zip(table.schema, table.columns, strict=True):
        kind = _plain(field.type)
        columns.append(column if column.type == kind else column.cast(kind))
        fields.append(pa.field(field.name, kind))
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))


def _written(table: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    written: bytes = sink.getvalue().to_pybytes()
    return written


def _plain(kind: Any) -> Any:
    """Return the type of the values themselves: every mini-batch has categories of its own."""
    if isinstance(kind, pa.BaseExtensionType):
        return _plain(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return _plain(kind.value_type)
    if pa.types.is_list(kind):
        return pa.list_(_plain(kind.value_type))
    if pa.types.is_large_list(kind):
        return pa.large_list(_plain(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(field.name, _plain(field.type)) for field in kind])
    return kind


def _conform(table: Any, schema: Any) -> Any:
    """Return the table with the columns of `schema`, in its order and types."""
    columns = []
    for field in schema:
        at = table.schema.get_field_index(field.name)
        if at < 0:
            columns.append(pa.nulls(table.num_rows, field.type))
        elif table.column(at).type == field.type:
            columns.append(table.column(at))
        else:
            columns.append(_cast(table.column(at), field))
    return pa.Table.from_arrays(columns, schema=schema)


def _cast(column: Any, field: Any) -> Any:
    try:
        return column.cast(field.type)
    except pa.ArrowException as error:
        raise ColumnsChangedError(
            f"run() returned the column {field.name!r} as {column.type} in one mini-batch, and "
            f"together with others it needs {field.type}, which cannot hold all its values "
            f"({error}): {_ADVICE}"
        ) from error


def _check_widening(field: Any, before: Any) -> None:
    """Refuse what cannot be one column, or would not stay what it was."""
    one, other = pa.schema([before]), pa.schema([field])
    try:
        pa.unify_schemas([one, other], promote_options="permissive")
        fits = not _would_change(field.type, before.type)
    except pa.ArrowException:
        fits = False
    if not fits:
        raise ColumnsChangedError(
            f"run() returned the column {field.name!r} as {field.type}, but in the rows before it "
            f"is {before.type}, and a column of a parquet file has one type: {_ADVICE}"
        )


def _would_change(one: Any, other: Any) -> bool:
    """Say whether Arrow would make bytes of text, or rounded floats of exact decimals."""
    pairs = ((one, other), (other, one))
    return any(_is_text(a) and _is_binary(b) for a, b in pairs) or any(
        pa.types.is_decimal(a) and pa.types.is_floating(b) for a, b in pairs
    )


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_binary(kind: Any) -> bool:
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
    )


class _Drain(io.RawIOBase):
    """A file that is written by one side and emptied by the other."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []
        self._at = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        self._at += len(data)
        return len(data)

    def tell(self) -> int:
        return self._at

    def take(self) -> bytes:
        data = b"".join(self._parts)
        self._parts = []
        return data
