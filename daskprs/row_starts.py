"""Where each mini-batch of a table begins in its whole input; takes an extra look at every file.

Only for scripts that mention ``global_row_index_lower_bound``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

from daskprs.mini_batches import FilePaths, FrameRows, MiniBatch, TableParts, TableSlice

if TYPE_CHECKING:
    from daskprs.tables import Survey

__all__ = ["known_rows", "with_row_starts"]

_AHEAD = 8


def known_rows(piece: TableSlice) -> tuple[Survey | None, tuple[int, ...]] | None:
    """Count the records of each part of a file, as a Dask task; None where it is unreadable."""
    try:
        if piece.needs_survey:
            found = piece.survey(records=True)
            return found, found.records
        parts = [replace(piece, part=part) for part in range(piece.parts)]
        return None, tuple(len(part.load()) for part in parts)
    except Exception:
        return None


def with_row_starts(
    mini_batches: Iterator[MiniBatch], ask: Callable[[TableSlice], Callable[[], Any]]
) -> Iterator[MiniBatch]:
    """Tell each mini-batch the position of its first item in its input.

    Parameters
    ----------
    mini_batches : iterator of MiniBatch
        In the order of the plan.
    ask : callable
        Starts `known_rows` on the cluster; returns what waits for its answer.
    """
    waiting: deque[tuple[list[MiniBatch], Callable[[], Any]]] = deque()
    starts: dict[str, int | None] = {}
    for _, group in groupby(mini_batches, key=_source):
        batches = list(group)
        waiting.append((batches, _question(batches[0], ask)))
        if len(waiting) >= _AHEAD:
            yield from _answered(*waiting.popleft(), starts)
    while waiting:
        yield from _answered(*waiting.popleft(), starts)


def _source(mini_batch: MiniBatch) -> Any:
    piece = mini_batch.piece
    if isinstance(piece, TableSlice):
        return mini_batch.dataset, piece.path, id(piece.reader)
    return mini_batch.index


def _question(mini_batch: MiniBatch, ask: Callable[[TableSlice], Callable[[], Any]]) -> Any:
    piece = mini_batch.piece
    if isinstance(piece, TableSlice):
        return ask(piece.portable())
    return lambda: (None, (mini_batch.items,))


def _answered(
    batches: list[MiniBatch], answer: Callable[[], Any], starts: dict[str, int | None]
) -> Iterator[MiniBatch]:
    told = answer()
    found, records = told if told is not None else (None, None)
    for mini_batch in batches:
        piece = mini_batch.piece
        start = starts.setdefault(mini_batch.dataset, 0)
        part = piece.part if isinstance(piece, TableSlice) else 0
        count = None if records is None else records[part]
        known = None if start is None or count is None else start + count
        starts[mini_batch.dataset] = known
        if isinstance(piece, TableSlice) and found is not None:
            piece = piece.narrowed(found)
        if isinstance(piece, TableParts | FilePaths | FrameRows | TableSlice):
            mini_batch = mini_batch._replace(piece=piece, row_start=start)
        yield mini_batch
