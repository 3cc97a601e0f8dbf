"""What an earlier start of the same run has done, by its journal."""

from __future__ import annotations

from daskprs.journal import Record, Records
from daskprs.mini_batches import MiniBatch

__all__ = ["Earlier"]


class Earlier:
    """The records that were there when this start of the run began.

    Parameters
    ----------
    records : Records
        Grows while the run goes on; only what is there now is earlier.
    """

    def __init__(self, records: Records) -> None:
        self._records = records
        self._count = len(records)
        self._taken = bytearray(self._count)
        self._with_rows = sum(1 for at in records.current() if records.length_at(at) >= 0)
        self._left = self._with_rows

    @property
    def count(self) -> int:
        """How many mini-batches have their rows already."""
        return self._with_rows

    def _find(self, index: int) -> int | None:
        at = self._records.find(index)
        return None if at is None or at >= self._count else at

    def failed_items(self, index: int) -> int:
        """How many items have failed of a mini-batch that has its rows."""
        at = self._find(index)
        if at is None or self._records.length_at(at) < 0:
            return 0
        return self._records[at].total - self._records[at].succeeded

    def is_taken(self, index: int) -> bool:
        """Whether the plan had this mini-batch, so that it was not run again."""
        at = self._find(index)
        return at is not None and bool(self._taken[at])

    def knows(self, mini_batch: MiniBatch) -> bool:
        """Whether it was done, or had failed for good."""
        at = self._find(mini_batch.index)
        return at is not None and self._records.key_at(at) == mini_batch.key

    def take(self, mini_batch: MiniBatch) -> Record | None:
        """Return the record of a mini-batch whose rows are there; it is wanted from now on."""
        at = self._find(mini_batch.index)
        if at is None or self._records.length_at(at) < 0:
            return None
        if self._records.key_at(at) != mini_batch.key:
            return None
        self._taken[at] = 1
        self._left -= 1
        return self._records[at]

    @property
    def has_stale(self) -> bool:
        """Whether there are rows of mini-batches that the plan did not have."""
        return self._left > 0

    def is_wanted(self, at: int) -> bool:
        """Whether the rows of the record at this position, if any, belong into the output."""
        return at >= self._count or bool(self._taken[at])
