"""Mini-batches that were there when workers died: each runs alone, to show whether it kills."""

from __future__ import annotations

from collections import Counter, deque

from daskprs.mini_batches import MiniBatch
from daskprs.work import Group

__all__ = ["Suspects"]


class Suspects:
    """Dask gives a task up when several workers have died with it, whoever killed them.

    Parameters
    ----------
    most_deaths : int
        A mini-batch with which so many workers died, while nothing else was there, has failed.
    """

    def __init__(self, most_deaths: int) -> None:
        self._most_deaths = most_deaths
        self._waiting: deque[Group] = deque()
        self._on_trial: Group | None = None
        self._deaths: Counter[int] = Counter()

    def __bool__(self) -> bool:
        """Whether nothing else may run."""
        return self.are_waiting or self._on_trial is not None

    @property
    def are_waiting(self) -> bool:
        return bool(self._waiting)

    def accuse(self, group: Group, deaths: int) -> list[tuple[MiniBatch, int]]:
        """Take the mini-batches of a lost task; return those that have failed, and their deaths."""
        if group is self._on_trial:
            self._on_trial = None
            for mini_batch in group.mini_batches:
                self._deaths[mini_batch.index] += deaths
        failed = []
        for mini_batch in group.mini_batches:
            count = self._deaths[mini_batch.index]
            if count >= self._most_deaths:
                failed.append((mini_batch, count))
            else:
                self._waiting.append(Group([mini_batch], group.frame))
        return failed

    def next(self, in_flight: int) -> Group | None:
        """Return the next one, when there is nothing else in flight."""
        if in_flight or self._on_trial is not None or not self._waiting:
            return None
        self._on_trial = self._waiting.popleft()
        return self._on_trial

    def acquit(self, work: object) -> None:
        """A task came back: if it was on trial, it is not any more."""
        if work is self._on_trial:
            self._on_trial = None
