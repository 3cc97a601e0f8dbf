"""Rows in a local file that grows, ``<name>.partial``, which is renamed in the end."""

from __future__ import annotations

import contextlib
import errno
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from daskprs.exceptions import OutputError
from daskprs.journal import (
    Journal,
    finished_line,
    header_line,
    read_journal,
    retry_line,
    shape_line,
)
from daskprs.output_disk import sync_folder
from daskprs.output_files import WORK, UnnamedFile
from daskprs.output_folder import OutputFolder
from daskprs.row_store import JOURNAL, KEPT, RowStore

__all__ = ["LocalStore"]

_HIDDEN = f"{WORK}/rows"


class LocalStore(RowStore):
    """Rows are appended and synced, then journaled and synced."""

    def __init__(self, folder: OutputFolder, name: str, output_format: str | None) -> None:
        super().__init__(folder, name, output_format)
        if folder.local is None:
            raise ValueError(f"{folder.url} is not local")
        self._base: Path = folder.local
        self._rows_name = _rows_name(name, output_format)
        self._rows_file: _GrowingFile | None = None
        self._journal_file: _GrowingFile | None = None
        self._torn = False

    @property
    def partial_grows(self) -> bool:
        return self._rows_name == self.partial_name

    # The beginning

    def _load(self) -> Journal | None:
        where = self.folder.url_of(JOURNAL)
        try:
            stream = open(self._base / JOURNAL, "rb")  # noqa: SIM115 - closed below
        except FileNotFoundError:
            return None
        with stream:
            journal = read_journal(stream, where)
            if journal is None or self._is_published(journal):
                return journal
            had_finished = journal.finished is not None
            if had_finished and journal.rows == KEPT:
                self._move_kept_rows(journal)
            rows_size = self.folder.size(_rows_name(journal.name, journal.output_format)) or 0
            if had_finished or journal.rows_end > rows_size:
                stream.seek(0)
                journal = read_journal(stream, where, rows_size)
        if journal is not None:
            journal.output_missing = had_finished
        return journal

    def _move_kept_rows(self, journal: Journal) -> None:
        rows_name = _rows_name(journal.name, journal.output_format)
        if rows_name != _HIDDEN:
            self.folder.move(_HIDDEN, rows_name)

    def _begin(self, journal: Journal) -> None:
        header = header_line(journal)
        # The journal goes first: without it, what else is left counts for nothing.
        self.folder.move(JOURNAL, f"{JOURNAL}.previous")
        for name in (self.partial_name, self.name, _HIDDEN):
            self.folder.set_aside(name)
        self._open(journal)
        self._append(b"", [header])

    def _resume(self, journal: Journal) -> None:
        self._open(journal)

    def _bring_back(self, journal: Journal) -> Journal:
        if journal.rows == KEPT:
            self._move_kept_rows(journal)
        elif self.output_format is not None:
            self._copy_final_file(journal)
        there = self.folder.size(self._rows_name) or 0
        if self.output_format is not None and there < journal.rows_end:
            raise OutputError(
                f"the rows of the run before are not in {self.folder.url_of(WORK)} any more: what "
                "has failed cannot be run alone."
            )
        journal.finished = None
        return journal

    def _copy_final_file(self, journal: Journal) -> None:
        """The output stays what it is until another one takes its place."""
        crc = 0
        with (
            open(self._base / self.name, "rb") as stream,
            self.folder.new(self._rows_name) as new,
        ):
            while data := stream.read(1 << 20):
                crc = zlib.crc32(data, crc)
                new.write(data)
            if journal.rows != f"{crc:08x}":
                raise OutputError(
                    f"{self.final_url} was changed after the run had ended, so that nobody knows "
                    "which rows are whose: what has failed cannot be run alone."
                )
            new.finish()
            new.commit()

    def _mark_retry(self, journal: Journal) -> None:
        self._append(b"", [retry_line(journal.header, journal.retried)])

    def _open(self, journal: Journal) -> None:
        self.close()
        (self._base / WORK).mkdir(parents=True, exist_ok=True)
        # The journal is cut first: it must not vouch for what will stand in the rows' place.
        self._journal_file = _GrowingFile(self._base / JOURNAL, journal.nbytes)
        if self.output_format is not None:
            self._rows_file = _GrowingFile(self._base / self._rows_name, journal.rows_end)
        sync_folder(str(self._base / WORK))
        sync_folder(str(self._base))

    # Adding

    def _shape_changed(self, journal: Journal) -> None:
        header = self._format.header()
        self._buffer(header)
        journal.start += len(header)
        self._lines.append(shape_line(journal.shape, len(header)))

    def _append(self, rows: bytes, lines: list[bytes]) -> None:
        if self._journal_file is None:
            raise ValueError("begin() or resume() comes first")
        files = (self._journal_file, self._rows_file)
        if self._torn:
            for file in files:
                if file is not None:
                    file.cut()
        self._torn = True
        journal = b"".join(lines)
        if rows and self._rows_file is not None:
            self._rows_file.append(rows)
        self._journal_file.append(journal)
        if self._rows_file is not None:
            self._rows_file.size += len(rows)
        self._journal_file.size += len(journal)
        self._torn = False

    def _payloads(self, positions: Iterable[int]) -> Iterator[bytes]:
        journal = self._begun()
        records, start = journal.records, journal.start
        with open(self._base / self._rows_name, "rb", buffering=1 << 20) as stream:
            for position in positions:
                row = records.row_at(position)
                if row.length > 0:
                    stream.seek(start + row.offset)
                    yield _read(stream, row.length)

    # The end

    def _final_file(self, journal: Journal, order: Iterable[int] | None) -> UnnamedFile:
        as_it_stands = order is None and not journal.records.replaced
        if not as_it_stands or not self.partial_grows:
            return super()._final_file(journal, order)
        if journal.rows == KEPT:
            journal.rows = _crc(self._base / self._rows_name)
        return _RenamedFile(self._base / self._rows_name, self._base / self.name, journal.rows_end)

    def _mark_finished(self, journal: Journal, facts: Mapping[str, Any], size: int | None) -> None:
        self._append(b"", [finished_line(facts, size, journal.rows)])

    def _forget_rows(self, journal: Journal) -> None:
        for name in (_HIDDEN, f"{journal.name}.partial"):
            self.folder.remove(name)

    def _put_away_rows(self, journal: Journal) -> None:
        if _rows_name(journal.name, journal.output_format) == _HIDDEN:
            self.folder.remove(f"{journal.name}.partial")
        else:
            self.folder.move(f"{journal.name}.partial", _HIDDEN)

    def close(self) -> None:
        for file in (self._rows_file, self._journal_file):
            if file is not None:
                file.close()
        self._rows_file = self._journal_file = None


def _rows_name(name: str, output_format: str | None) -> str:
    # Arrow messages are no file that a person could use: they stay out of sight.
    return _HIDDEN if output_format in (None, "parquet") else f"{name}.partial"


def _crc(path: Path) -> str:
    crc = 0
    with open(path, "rb") as stream:
        while data := stream.read(1 << 20):
            crc = zlib.crc32(data, crc)
    return f"{crc:08x}"


def _read(stream: BinaryIO, length: int) -> bytes:
    data = stream.read(length)
    if len(data) < length:
        raise OSError(errno.EIO, "rows that the journal tells of are not there", stream.name)
    return data


class _GrowingFile:
    """A file of `size` safe bytes; what else it has is cut away.

    Without a buffer, since what a full disk has refused would be written again on closing.
    """

    def __init__(self, path: Path, size: int) -> None:
        self._path, self.size = path, size
        self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            self.cut()
        except BaseException:
            self.close()
            raise

    def cut(self) -> None:
        there = os.fstat(self._handle).st_size
        if there < self.size:
            raise OSError(
                errno.EIO, "the file has become shorter than what was written", self._path
            )
        if there > self.size:
            os.ftruncate(self._handle, self.size)
            os.fsync(self._handle)

    def append(self, data: bytes) -> None:
        if os.fstat(self._handle).st_size != self.size:
            raise OSError(errno.EIO, "something else has written to the file", self._path)
        view = memoryview(data)
        while view:
            view = view[os.write(self._handle, view) :]
        os.fsync(self._handle)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self._handle)


class _RenamedFile(UnnamedFile):
    """A file that is whole already and only needs its name."""

    def __init__(self, path: Path, final: Path, size: int) -> None:
        self._path, self._final, self.size = path, final, size
        if path.stat().st_size != size:
            raise OSError(errno.EIO, "the file is not as long as what was written", path)

    def _commit(self) -> None:
        os.replace(self._path, self._final)
        # It has its name. Should a power failure take it back, the next load sees that.
        with contextlib.suppress(OSError):
            sync_folder(str(self._final.parent))

    def _discard(self) -> None:
        """It stays where it is."""
