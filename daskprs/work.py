"""What the driver hands out, how much at a time, and the outcome of what never came back."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from daskprs.mini_batches import MiniBatch, TableSlice
from daskprs.outcomes import Attempt, Outcome
from daskprs.splitting import items_to_run
from daskprs.survey_queue import Source
from daskprs.worker_results import SurveyFailure

__all__ = ["Group", "GroupSizer", "Survey", "killed", "packed", "portable", "unreadable"]


GROUP_SECONDS = 1.0
# A scheduler is good for some hundreds of tasks a second, whoever else uses it.
TASKS_PER_SECOND = 200
MOST_IN_GROUP = 1000
QUICK_SECONDS = 0.001


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


class GroupSizer:
    """How many mini-batches ride in one task: as many as make about a second of work.

    More on a large cluster, so that the scheduler can keep up with it.
    """

    def __init__(self) -> None:
        self._size = 1
        self._each: float | None = None

    @staticmethod
    def seconds(slots: int) -> float:
        """Return how long a task should take where so many run at a time."""
        return max(GROUP_SECONDS, slots / TASKS_PER_SECOND)

    def saw(self, count: int, seconds: float, slots: int) -> None:
        """Learn from a task that ran `count` mini-batches in `seconds`."""
        if count == 0:
            return
        each = seconds / count
        self._each = each if self._each is None else (self._each + each) / 2
        wanted = int(self.seconds(slots) / max(self._each, 1e-6))
        # Growing by doubling keeps one lucky mini-batch from deciding for a thousand.
        self._size = max(1, min(wanted, self._size * 2, MOST_IN_GROUP))

    @property
    def is_quick(self) -> bool:
        """Whether mini-batches take so little that each instruction of ours counts."""
        return self._each is not None and self._each < QUICK_SECONDS

    def size(self, left: int | None, slots: int) -> int:
        """Return how many to take; `left` (None: unknown) are to be shared by all slots.

        Not on a large cluster: the many small tasks in the end are more than its scheduler can do.
        """
        if left is None or self.seconds(slots) > GROUP_SECONDS:
            return self._size
        return max(1, min(self._size, left // (2 * max(1, slots))))


def portable(mini_batch: MiniBatch) -> MiniBatch:
    """Take along what only this process can open."""
    piece = mini_batch.piece.portable()
    return mini_batch if piece is mini_batch.piece else mini_batch._replace(piece=piece)


def packed(mini_batches: Sequence[MiniBatch]) -> bytes:
    """Pack what rides in one task: a scheduler takes tasks apart, and keeps thousands of them."""
    from distributed.protocol import pickle

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
