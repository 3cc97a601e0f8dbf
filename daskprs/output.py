"""The one writer: rows of finished mini-batches become the single output file, exactly once.

::

    outcome ─▶ add() ─▶ buffer ─▶ flush(): rows, then journal ─▶ publish(): the final name

Local folder: rows are appended to ``<name>.partial``, synced, journaled, synced. Stores cannot
append: rows go into numbered segments, each made valid by its own piece of journal. In both,
the journal alone says what is done; after a crash the rest is cut away.
"""

from __future__ import annotations

import csv
import io
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from daskprs.exceptions import WriteFailedError
from daskprs.journal import Journal, Record, header_line, line, parse, rows_of
from daskprs.outcomes import Outcome
from daskprs.output_folder import OutputFolder

__all__ = ["ColumnsChangedError", "RowStore", "open_store"]

WORK = ".daskprs"
JOURNAL = f"{WORK}/journal.jsonl"
_FLUSH_BYTES = 8 << 20
_COPY_BYTES = 8 << 20


class ColumnsChangedError(ValueError):
    """A mini-batch has columns that the header of the CSV file does not have."""


class RowStore:
    """Rows and journal of one run in one output folder.

    Parameters
    ----------
    folder : OutputFolder
    name : str
        Of the output file.
    output_format : str or None
        None: summary_only, only the journal is kept.
    """

    flush_seconds = 0.5

    def __init__(self, folder: OutputFolder, name: str, output_format: str | None) -> None:
        self.folder, self.name, self.output_format = folder, name, output_format
        self.journal: Journal | None = None
        self.columns: tuple[str, ...] | None = None
        self._buffer: list[bytes] = []
        self._lines: list[bytes] = []
        self._buffered = 0
        self._flushed = time.monotonic()

    # Names

    @property
    def partial_name(self) -> str:
        return f"{self.name}.partial"

    @property
    def final_url(self) -> str:
        return self.folder.url_of(self.name)

    @property
    def partial_url(self) -> str:
        return self.folder.url_of(self.partial_name)

    # What every kind of store does in its own way

    def load(self) -> Journal | None:
        """Read what an earlier run has left, if anything."""
        raise NotImplementedError  # pragma: no cover

    def begin(self, facts: Mapping[str, Any]) -> None:
        """Start a new journal, and move aside what an earlier run has left."""
        raise NotImplementedError  # pragma: no cover

    def resume(self) -> None:
        """Go on with the journal that `load` has read."""
        raise NotImplementedError  # pragma: no cover

    def _append(self, rows: bytes, journal: bytes) -> None:
        raise NotImplementedError  # pragma: no cover

    def _spans(self, records: list[Record]) -> Iterator[bytes]:
        """Give the rows of these records, in their order."""
        raise NotImplementedError  # pragma: no cover

    def _write_final(self, chunks: Iterator[bytes], name: str) -> int:
        raise NotImplementedError  # pragma: no cover

    def close(self) -> None:
        """Let go of open files."""

    # Adding

    def add(self, outcome: Outcome) -> None:
        """Take the rows of a mini-batch that is done, or the fact that it has failed.

        Raises
        ------
        ColumnsChangedError
            Nothing was taken.
        """
        rows = outcome.rows
        payload = b"" if rows is None else rows.payload
        if rows is not None and rows.columns is not None and self.output_format == "csv":
            payload = self._fit_columns(payload, rows.columns)
        length = -1 if outcome.failed else len(payload)
        self._buffer.append(payload)
        record = Record(
            outcome.index, outcome.key, length, outcome.total, outcome.succeeded_items
        )
        self._lines.append(line(record))
        self._buffered += len(payload)

    def _fit_columns(self, payload: bytes, columns: tuple[str, ...]) -> bytes:
        if self.columns is None:
            self.columns = columns
            header = _csv_line(columns)
            self._buffer.append(header)
            self._buffered += len(header)
            self._lines.append(line({"columns": columns, "length": len(header)}))
            return payload
        if columns == self.columns:
            return payload
        extra = [name for name in columns if name not in self.columns]
        if extra:
            raise ColumnsChangedError(
                f"run() returned the columns {list(columns)}, but the output file began with "
                f"{list(self.columns)}: return the same columns from every call, or use "
                "output_format='jsonl'."
            )
        text = io.StringIO(payload.decode("utf-8", "surrogateescape"), newline="")
        rows = [dict(zip(columns, row, strict=True)) for row in csv.reader(text)]
        return b"".join(_csv_line([row.get(name, "") for name in self.columns]) for row in rows)

    @property
    def flush_is_due(self) -> bool:
        waited = time.monotonic() - self._flushed
        return bool(self._lines) and (
            self._buffered >= _FLUSH_BYTES or waited >= self.flush_seconds
        )

    def flush(self) -> None:
        """Make safe what was added.

        Raises
        ------
        WriteFailedError
            The disk is full, the folder is gone, ... : what was flushed before is kept.
        """
        if self._lines:
            try:
                self._append(b"".join(self._buffer), b"".join(self._lines))
            except OSError as error:
                raise self._write_failed(error) from error
        self._buffer, self._lines, self._buffered = [], [], 0
        self._flushed = time.monotonic()

    def _write_failed(self, error: Exception) -> WriteFailedError:
        return WriteFailedError(
            f"the output could not be written to {self.folder.url} "
            f"({type(error).__name__}: {error}). What was written before is kept: when there is "
            "room and permission, the same run goes on from there."
        )

    # The end

    def publish(self, records: list[Record] | None, facts: Mapping[str, Any]) -> None:
        """Give the rows their final name, at once and whole.

        Parameters
        ----------
        records : list of Record or None
            The rows to take, in this order; None takes all as they stand.
        facts : mapping
            Kept in the journal.
        """
        self.flush()
        size = None
        try:
            if self.output_format is not None:
                size = self._publish_rows(records)
            self._append(b"", line({"finished": {**facts, "size": size}}))
            self._forget_rows()
        except OSError as error:
            raise self._write_failed(error) from error

    def _publish_rows(self, records: list[Record] | None) -> int:
        if records is None:
            records = self.all_records()
        return self._write_final(self._final_chunks(records), self.name)

    def _forget_rows(self) -> None:
        """Remove rows that stand in the final file now."""

    def all_records(self) -> list[Record]:
        journal = self.load()
        return [] if journal is None else [r for r in journal.records if r.length >= 0]

    def _final_chunks(self, records: list[Record]) -> Iterator[bytes]:
        if self.output_format == "parquet":
            yield from _parquet(lambda: self._spans(records))
            return
        if self.columns is not None:
            yield _csv_line(self.columns)
        yield from self._spans(records)


def _csv_line(values: Any) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(values)
    return buffer.getvalue().encode("utf-8", "surrogateescape")


def _parquet(spans: Any) -> Iterator[bytes]:
    """Make one parquet file of Arrow IPC streams, in two passes: schema, then rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schemas: dict[str, Any] = {}
    for span in spans():
        schema = pa.ipc.open_stream(span).schema.remove_metadata()
        schemas.setdefault(str(schema), schema)
    if not schemas:
        return
    schema = pa.unify_schemas(list(schemas.values()), promote_options="permissive")
    sink = _Drain()
    with pq.ParquetWriter(sink, schema) as writer:
        waiting: list[Any] = []
        nbytes = 0
        for span in spans():
            table = pa.ipc.open_stream(span).read_all()
            waiting.append(_conform(table, schema))
            nbytes += table.nbytes
            if nbytes > 64 << 20:
                writer.write_table(pa.concat_tables(waiting))
                waiting, nbytes = [], 0
                yield sink.take()
        if waiting:
            writer.write_table(pa.concat_tables(waiting))
    yield sink.take()


def _conform(table: Any, schema: Any) -> Any:
    import pyarrow as pa

    columns = [
        table[name.name].cast(name.type)
        if name.name in table.column_names
        else pa.nulls(table.num_rows, name.type)
        for name in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


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


class LocalStore(RowStore):
    """Rows in a local file that grows."""

    def __init__(self, folder: OutputFolder, name: str, output_format: str | None) -> None:
        super().__init__(folder, name, output_format)
        assert folder.local is not None
        self._base: Path = folder.local
        # Arrow messages are no file that a person could use: they stay out of sight.
        hidden = output_format in (None, "parquet")
        self._rows_name = f"{WORK}/rows" if hidden else self.partial_name
        self._rows_file: BinaryIO | None = None
        self._journal_file: BinaryIO | None = None

    def load(self) -> Journal | None:
        data = self.folder.read(JOURNAL)
        if data is None:
            return None
        where = self.folder.url_of(JOURNAL)
        journal = parse(data, where)
        if journal is None or journal.finished is not None:
            self.journal = journal
            return journal
        if journal.header.get("name") == self.name and self._published_unrecorded(journal):
            # Killed between the final name and the journal's last line: take the name back.
            os.replace(self._base / self.name, self._base / self._rows_name)
        rows_size = self.folder.size(self._rows_name) or 0
        self.journal = parse(data, where, rows_size)
        return self.journal

    def _published_unrecorded(self, journal: Journal) -> bool:
        return (
            self._rows_name == self.partial_name
            and self.folder.size(self._rows_name) is None
            and self.folder.size(self.name) == journal.rows_end
        )

    def begin(self, facts: Mapping[str, Any]) -> None:
        self._set_aside()
        self.journal = None
        self._open()
        assert self._journal_file is not None
        self._journal_file.write(header_line({"name": self.name, **facts}))
        self._sync(self._journal_file)
        _sync_folder(self._base / WORK)

    def _set_aside(self) -> None:
        old = self.journal
        name = self.name if old is None else old.header.get("name", self.name)
        self.folder.move(f"{name}.partial", f"{name}.partial.previous")
        self.folder.move(self.name, f"{self.name}.previous")
        self.folder.move(f"{WORK}/rows", f"{WORK}/rows.previous")
        self.folder.move(JOURNAL, f"{WORK}/journal.previous.jsonl")

    def resume(self) -> None:
        assert self.journal is not None
        self.columns = self.journal.columns
        self._open()
        assert self._journal_file is not None
        _cut(self._journal_file, self.journal.nbytes)
        if self._rows_file is not None:
            _cut(self._rows_file, self.journal.rows_end)

    def _open(self) -> None:
        self._journal_file = open(self._base / JOURNAL, "ab")
        if self.output_format is not None:
            self._rows_file = open(self._base / self._rows_name, "ab")

    def _append(self, rows: bytes, journal: bytes) -> None:
        assert self._journal_file is not None
        if rows and self._rows_file is not None:
            self._rows_file.write(rows)
            self._sync(self._rows_file)
        self._journal_file.write(journal)
        self._sync(self._journal_file)

    @staticmethod
    def _sync(stream: BinaryIO) -> None:
        stream.flush()
        os.fsync(stream.fileno())

    def _spans(self, records: list[Record]) -> Iterator[bytes]:
        journal = self.load()
        assert journal is not None
        offsets = {record.index: offset for record, offset in rows_of(journal.records)}
        with open(self._base / self._rows_name, "rb") as stream:
            for record in records:
                stream.seek(journal.start + offsets[record.index])
                yield stream.read(record.length)

    def _publish_rows(self, records: list[Record] | None) -> int:
        if records is None and self.output_format != "parquet":
            assert self._rows_file is not None
            self._rows_file.close()
            self._rows_file = None
            os.replace(self._base / self._rows_name, self._base / self.name)
            _sync_folder(self._base)
            return (self._base / self.name).stat().st_size
        return super()._publish_rows(records)

    def _write_final(self, chunks: Iterator[bytes], name: str) -> int:
        temporary = self._base / WORK / "final.writing"
        with temporary.open("wb") as stream:
            for chunk in chunks:
                stream.write(chunk)
            self._sync(stream)
        os.replace(temporary, self._base / name)
        _sync_folder(self._base)
        return (self._base / name).stat().st_size

    def _forget_rows(self) -> None:
        if self._rows_file is not None:
            self._rows_file.close()
            self._rows_file = None
        self.folder.remove(self._rows_name)

    def show_partial(self) -> None:
        """After a run that did not complete: rows that a person can read."""
        if self.output_format == "parquet" and self.all_records():
            self._write_final(self._final_chunks(self.all_records()), self.partial_name)

    def close(self) -> None:
        for stream in (self._rows_file, self._journal_file):
            if stream is not None:
                stream.close()
        self._rows_file = self._journal_file = None


def _cut(stream: BinaryIO, size: int) -> None:
    stream.truncate(size)
    stream.seek(0, os.SEEK_END)
    os.fsync(stream.fileno())


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class SegmentStore(RowStore):
    """Rows in numbered objects of a store that cannot append.

    ``.daskprs/segments/000007.rows`` counts when ``000007.journal`` is there.
    """

    flush_seconds = 5.0
    FOLDER = f"{WORK}/segments"

    def __init__(self, folder: OutputFolder, name: str, output_format: str | None) -> None:
        super().__init__(folder, name, output_format)
        self._next = 0

    def load(self) -> Journal | None:
        parts = []
        for name in self.folder.names(self.FOLDER):
            if name.endswith(".journal"):
                data = self.folder.read(f"{self.FOLDER}/{name}")
                parts.append(data or b"")
                self._next = int(name.split(".")[0]) + 1
        self.journal = parse(b"".join(parts), self.folder.url_of(self.FOLDER))
        return self.journal

    def begin(self, facts: Mapping[str, Any]) -> None:
        old = self.journal
        name = self.name if old is None else old.header.get("name", self.name)
        for segment in self.folder.names(self.FOLDER):
            self.folder.remove(f"{self.FOLDER}/{segment}")
        self.folder.move(f"{name}.partial", f"{name}.partial.previous")
        self.folder.move(self.name, f"{self.name}.previous")
        self._next = 0
        self._append(b"", header_line({"name": self.name, **facts}))

    def resume(self) -> None:
        assert self.journal is not None
        self.columns = self.journal.columns

    def _append(self, rows: bytes, journal: bytes) -> None:
        stem = f"{self.FOLDER}/{self._next:06d}"
        self.folder.write(f"{stem}.rows", rows)
        self.folder.write(f"{stem}.journal", journal)
        self._next += 1

    def _places(self) -> dict[int, tuple[str, int]]:
        """Segment and offset of the rows of each mini-batch."""
        places = {}
        for name in self.folder.names(self.FOLDER):
            if not name.endswith(".journal"):
                continue
            data = self.folder.read(f"{self.FOLDER}/{name}") or b""
            segment, offset = name.replace(".journal", ".rows"), 0
            text = data if name.startswith("000000") else header_line({}) + data
            piece = parse(text, name)
            assert piece is not None
            for record, start in rows_of(piece.records):
                places[record.index] = (segment, offset + piece.start + start)
        return places

    def _spans(self, records: list[Record]) -> Iterator[bytes]:
        places = self._places()
        current, content = "", b""
        for record in records:
            segment, offset = places[record.index]
            if segment != current:
                current = segment
                content = self.folder.read(f"{self.FOLDER}/{segment}") or b""
            yield content[offset : offset + record.length]

    def _write_final(self, chunks: Iterator[bytes], name: str) -> int:
        size, stream = 0, self.folder.open_new(name)
        try:
            for chunk in chunks:
                stream.write(chunk)
                size += len(chunk)
        except BaseException:
            # close() would make half a file visible
            discard = getattr(stream, "discard", None)
            if discard is not None:
                discard()
            raise
        stream.close()
        return size

    def _forget_rows(self) -> None:
        for name in self.folder.names(self.FOLDER):
            if name.endswith(".rows"):
                self.folder.remove(f"{self.FOLDER}/{name}")

    def show_partial(self) -> None:
        """After a run that did not complete: the rows so far, in one object."""
        if self.output_format is not None:
            self._write_final(self._final_chunks(self.all_records()), self.partial_name)


def open_store(
    folder: OutputFolder, name: str, output_format: str | None
) -> LocalStore | SegmentStore:
    """Choose the store that fits the folder."""
    kind = SegmentStore if folder.local is None else LocalStore
    return kind(folder, name, output_format)
