"""Large table files are looked through once, before any of their parts is run."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from daskprs.mini_batches import MiniBatch, TableSlice

if TYPE_CHECKING:
    from daskprs.tables import Survey

__all__ = ["Source", "Surveys", "source_of"]


Source = tuple[str, int]


def source_of(piece: TableSlice) -> Source:
    """Tell the file, and how it is read: two inputs may read the same one in two ways."""
    return piece.path, id(piece.reader)


class Surveys:
    """Which files have been surveyed, and the mini-batches that wait for it.

    The plan gives the parts of a file one after another: what a survey found is kept until a
    part of another file comes.
    """

    def __init__(self) -> None:
        self._queue: deque[TableSlice] = deque()
        self._parked: dict[Source, list[MiniBatch]] = {}
        self._found: dict[Source, Survey] = {}
        self._in_flight = 0
        self._last: Source | None = None

    @property
    def parked(self) -> int:
        """How many mini-batches wait."""
        return sum(map(len, self._parked.values()))

    @property
    def waiting(self) -> bool:
        """Whether there are files to be surveyed, or surveys that have not come back."""
        return bool(self._parked)

    def offer(self, mini_batch: MiniBatch) -> list[MiniBatch]:
        """Give back a mini-batch that can run now; keep one that has to wait."""
        piece = mini_batch.piece
        if not isinstance(piece, TableSlice) or not piece.needs_survey:
            return [mini_batch]
        key = source_of(piece)
        if key != self._last:
            self._found.clear()
            self._last = key
        known = self._found.get(key)
        if known is not None:
            return [_narrowed(mini_batch, piece, known)]
        if key not in self._parked:
            self._parked[key] = []
            self._queue.append(piece)
        self._parked[key].append(mini_batch)
        return []

    def next(self, most: int) -> TableSlice | None:
        """Give the next file to be surveyed, while fewer than `most` are being surveyed."""
        if not self._queue or self._in_flight >= most:
            return None
        self._in_flight += 1
        return self._queue.popleft()

    def found(self, source: Source, survey: Survey) -> list[MiniBatch]:
        """Take what a survey found; give the mini-batches that can run now."""
        self._in_flight -= 1
        if source == self._last:
            self._found[source] = survey
        return [
            _narrowed(mini_batch, mini_batch.piece, survey)  # type: ignore[arg-type]
            for mini_batch in self._parked.pop(source, [])
        ]

    def failed(self, source: Source) -> list[MiniBatch]:
        """Give the mini-batches of a file that cannot be read."""
        self._in_flight -= 1
        return self._parked.pop(source, [])


def _narrowed(mini_batch: MiniBatch, piece: TableSlice, survey: Survey) -> MiniBatch:
    return mini_batch._replace(piece=piece.narrowed(survey))
