"""What the driver hands out, and the outcome of what never came back."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from distributed.protocol import pickle

from daskprs.mini_batches import MiniBatch, TableSlice
from daskprs.outcomes import Attempt, Outcome
from daskprs.splitting import items_to_run
from daskprs.survey_queue import Source
from daskprs.worker import SurveyFailure

__all__ = ["Group", "Survey", "killed", "packed", "portable", "unreadable"]


@dataclass
class Group:
    """Mini-batches that ride in one task; `frame` is a future of their rows, if there is one."""

    mini_batches: list[MiniBatch]
    frame: Any = None
    lost: int = 0


@dataclass
class Survey:
    """A task that looks through a large table file."""

    source: Source
    piece: TableSlice
    lost: int = 0


def portable(mini_batch: MiniBatch) -> MiniBatch:
    """Take along what only this process can open."""
    piece = mini_batch.piece.portable()
    return mini_batch if piece is mini_batch.piece else replace(mini_batch, piece=piece)


def packed(mini_batches: Sequence[MiniBatch]) -> bytes:
    """Pack what rides in one task: a scheduler takes tasks apart, and keeps thousands of them."""
    data: bytes = pickle.dumps(list(mini_batches))
    return data


def unreadable(mini_batch: MiniBatch, failure: SurveyFailure, part: int) -> Outcome:
    total = _only(mini_batch) or failure.items[part]
    return Outcome(
        index=mini_batch.index, key=mini_batch.key, label=str(mini_batch.piece),
        total=total, returned=0, failed=True, rows=None, attempts=(),
        items=items_to_run(mini_batch, total),
        error=f"{failure.error}\n[mini-batch {mini_batch.index} ({mini_batch.piece})]",
        traceback=failure.traceback,
    )  # fmt: skip


def killed(mini_batch: MiniBatch, why: str, tries: int) -> Outcome:
    total = _only(mini_batch) or mini_batch.items
    if total is None:
        total = mini_batch.piece.count_items()
    now = time.time()
    attempts = tuple(
        Attempt(number, "WORKER_DIED", "", "", "", now, 0.0, 0.0, 0.0, error=why)
        for number in range(1, tries + 1)
    )
    return Outcome(
        index=mini_batch.index, key=mini_batch.key, label=str(mini_batch.piece),
        total=total, returned=0, failed=True, rows=None, attempts=attempts,
        items=items_to_run(mini_batch, total), error=f"its Dask workers died: {why}",
    )  # fmt: skip


def _only(mini_batch: MiniBatch) -> int | None:
    """Count the items that are to run, where these are not all."""
    if mini_batch.only is None:
        return None
    return sum(stop - start for start, stop in mini_batch.only)
