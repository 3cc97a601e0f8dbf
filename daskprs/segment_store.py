"""Rows in numbered objects of a store that cannot append, which are put together in the end.

``.daskprs/segments/<run>-000007-<start>.rows`` counts once the ``.journal`` of that name is there,
whole. The header of the journal, with the name of the run, is an object of its own.

Each start of a run, and each try to write, has names of its own: what a process that was given up
has sent may arrive much later, and must not change what another one has written since.
"""

from __future__ import annotations

import errno
import io
import uuid
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any, NamedTuple

from daskprs.exceptions import OutputError
from daskprs.journal import (
    Journal,
    finished_line,
    header_line,
    piece_head_line,
    read_journal,
    read_piece,
    record_line,
    retry_line,
    shape_line,
)
from daskprs.output_files import WORK
from daskprs.output_folder import OutputFolder
from daskprs.records import Records
from daskprs.row_store import JOURNAL, RowStore

__all__ = ["SegmentStore"]

SEGMENTS = f"{WORK}/segments"
_CACHE_BYTES = 128 << 20
_READ_AT_ONCE = 256
_WRITTEN_AT_ONCE = 1000


class _Segment(NamedTuple):
    name: str  # without the kind
    start: int  # bytes of rows in the segments before it
    nbytes: int


class SegmentStore(RowStore):
    """A segment is written with each flush, and is there whole or not at all."""

    flush_bytes = 32 << 20

    def __init__(self, folder: OutputFolder, name: str, output_format: str | None) -> None:
        super().__init__(folder, name, output_format)
        self._run, self._start = "", uuid.uuid4().hex[:8]
        self._segments: list[_Segment] = []
        self._next = 0
        self._cache: OrderedDict[str, bytes] = OrderedDict()

    @property
    def partial_grows(self) -> bool:
        return False

    @property
    def flush_seconds(self) -> float:
        """How much work a kill may cost.

        Grows with the number of segments, so that a week makes 5,000 of them, not 120,000; it is
        4 minutes then.
        """
        return 5.0 * max(1.0, len(self._segments) / 100)

    # The beginning

    def _load(self) -> Journal | None:
        data = self.folder.read(JOURNAL)
        if data is None:
            return None
        head = read_journal(io.BytesIO(data), self.folder.url_of(JOURNAL))
        if head is None or head.segments is None or self._is_published(head):
            return head
        journal = Journal(
            head.header,
            head.name,
            head.output_format,
            size=head.size,
            retried=head.retried,
            segments=head.segments,
            output_missing=head.finished is not None,
        )
        self._read_segments(journal)
        return journal

    def _bring_back(self, journal: Journal) -> Journal:
        found = replace(journal, records=Records(), finished=None)
        self._read_segments(found)
        if len(found.records) < len(journal.records):
            raise OutputError(
                f"the rows of the run before are not in {self.folder.url_of(SEGMENTS)} any more: "
                "what has failed cannot be run alone."
            )
        return found

    def _mark_retry(self, journal: Journal) -> None:
        lines = [header_line(journal)]
        if journal.size is not None:
            lines.append(finished_line({}, journal.size))
        lines.append(retry_line(journal.header, journal.retried))
        self.folder.write(JOURNAL, b"".join(lines))

    def _read_segments(self, journal: Journal) -> None:
        self._run = journal.segments or ""
        sizes = self.folder.sizes(SEGMENTS)
        numbers = {name: _number(name, self._run) for name in sizes}
        self._next = 1 + max((n for n in numbers.values() if n is not None), default=-1)
        self._segments = []
        found = sorted(
            name.removesuffix(".journal")
            for name, number in numbers.items()
            if number is not None and name.endswith(".journal")
        )
        for start in range(0, len(found), _READ_AT_ONCE):
            some = found[start : start + _READ_AT_ONCE]
            pieces = self.folder.each(self.folder.read, [_journal_of(name) for name in some])
            for name, data in zip(some, pieces, strict=True):
                self._take(journal, name, data or b"", sizes.get(f"{name}.rows", 0))

    def _take(self, journal: Journal, name: str, data: bytes, rows_size: int) -> None:
        piece = read_piece(data)
        if piece is None or rows_size < piece[0]:
            return  # its mini-batches are missing, as if it had never been
        nbytes, shape, records = piece
        self._segments.append(_Segment(name, journal.records.nbytes, nbytes))
        for record in records:
            journal.records.append(*record)
        journal.shape = shape

    def _begin(self, journal: Journal) -> None:
        self._run = journal.segments = uuid.uuid4().hex[:12]
        self._segments, self._next = [], 0
        header = header_line(journal)
        for name in (self.partial_name, self.name):
            self.folder.set_aside(name)
        # From here on the segments of earlier runs count for nothing.
        self.folder.write(JOURNAL, header)
        self._remove_segments()

    def _resume(self, journal: Journal) -> None:
        """What does not count stays until the end: its numbers are not given again."""

    def _remove_segments(self) -> None:
        names = self.folder.sizes(SEGMENTS)
        self.folder.remove_all(f"{SEGMENTS}/{name}" for name in names)

    # Adding

    def _shape_changed(self, journal: Journal) -> None:
        """Each piece of journal tells the columns."""

    def _append(self, rows: bytes, lines: list[bytes]) -> None:
        journal = self._begun()
        name = f"{self._run}-{self._next:06d}-{self._start}"
        self._next += 1
        if rows:
            self.folder.write(f"{SEGMENTS}/{name}.rows", rows)
        head = piece_head_line(len(lines), len(rows), journal.shape)
        self.folder.write(_journal_of(name), b"".join([head, *lines]))
        start = journal.records.nbytes - len(rows)
        self._segments.append(_Segment(name, start, len(rows)))

    def _payloads(self, positions: Iterable[int]) -> Iterator[bytes]:
        records = self._begun().records
        starts = [segment.start for segment in self._segments]
        for position in positions:
            row = records.row_at(position)
            if row.length > 0:
                segment = self._segments[bisect_right(starts, row.offset) - 1]
                at = row.offset - segment.start
                yield self._content(segment)[at : at + row.length]

    def _content(self, segment: _Segment) -> bytes:
        """Read a segment; rows in the order of the input come from few segments at a time."""
        if segment.name in self._cache:
            self._cache.move_to_end(segment.name)
            return self._cache[segment.name]
        name = f"{SEGMENTS}/{segment.name}.rows"
        data = self.folder.read(name) or b""
        if len(data) < segment.nbytes:
            raise OSError(errno.EIO, "rows that the journal tells of are not there", name)
        while self._cache and sum(map(len, self._cache.values())) + len(data) > _CACHE_BYTES:
            self._cache.popitem(last=False)
        self._cache[segment.name] = data
        return data

    # The end

    def _mark_finished(self, journal: Journal, facts: Mapping[str, Any], size: int | None) -> None:
        with self.folder.new(JOURNAL) as new:
            new.write(header_line(journal) + shape_line(journal.shape, 0))
            lines = map(record_line, journal.records)
            while some := b"".join(islice(lines, _WRITTEN_AT_ONCE)):
                new.write(some)
            new.write(finished_line(facts, size, journal.rows))
            new.finish()
            new.commit()

    def _forget_rows(self, journal: Journal) -> None:
        self._put_away_rows(journal)
        self._remove_segments()

    def _put_away_rows(self, journal: Journal) -> None:
        self._cache.clear()
        self.folder.remove(f"{journal.name}.partial")

    def close(self) -> None:
        self._cache.clear()


def _journal_of(name: str) -> str:
    return f"{SEGMENTS}/{name}.journal"


def _number(name: str, run: str) -> int | None:
    """Return the number in the name of a segment of this run."""
    stem, _, kind = name.partition(".")
    parts = stem.split("-")
    if kind not in ("rows", "journal") or len(parts) != 3 or parts[0] != run:
        return None
    return int(parts[1]) if parts[1].isdecimal() else None
