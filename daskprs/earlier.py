"""What an earlier start of the same run has done, by its journal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from daskprs.mini_batches import MiniBatch
from daskprs.records import Record, Records, Row

__all__ = ["Earlier", "Order", "only_what_failed"]


class Earlier:
    """The records that were there when this start of the run began.

    Parameters
    ----------
    records : Records
        Grows while the run goes on; only what is there now is earlier.
    retried : int
        What failed in so many of the first records is to run again, also where there are rows.
    """

    def __init__(self, records: Records, retried: int = 0) -> None:
        self._records, self._retried = records, retried
        self._count = len(records)
        self._taken = bytearray(self._count)
        self._with_rows = self._again = 0
        for at, row in records.current_rows():
            self._with_rows += row.length >= 0
            self._again += self._runs_again(at, row)
        self._left = self._with_rows

    @property
    def count(self) -> int:
        """How many mini-batches have their rows already."""
        return self._with_rows - self._again

    def _find(self, index: int) -> int | None:
        at = self._records.find(index)
        return None if at is None or at >= self._count else at

    def failed_items(self, index: int) -> int:
        """How many items have failed of a mini-batch that does not run again."""
        at = self._find(index)
        if at is None:
            return 0
        row = self._records.row_at(at)
        return 0 if row.length < 0 or self._runs_again(at, row) else row.failed_items

    def runs_again(self, mini_batch: MiniBatch) -> bool:
        """Whether something of it, which has rows, is to run again."""
        at = self._find(mini_batch.index)
        return at is not None and self._runs_again(at, self._records.row_at(at))

    def _runs_again(self, at: int, row: Row) -> bool:
        return at < self._retried and row.length >= 0 and row.failed_items > 0

    def is_taken(self, index: int) -> bool:
        """Whether the plan had this mini-batch, so that it was not run again."""
        at = self._find(index)
        return at is not None and bool(self._taken[at])

    def take(self, mini_batch: MiniBatch) -> Record | None:
        """Return the record of a mini-batch whose rows are there; it is wanted from now on."""
        at = self._find(mini_batch.index)
        record = None if at is None else self._records[at]
        if at is None or record is None or record.failed or record.key != mini_batch.key:
            return None
        self._taken[at] = 1
        self._left -= 1
        return record

    @property
    def has_stale(self) -> bool:
        """Whether there are rows of mini-batches that the plan did not have."""
        return self._left > 0

    def order_of(self, records: Records, ordered: bool) -> Order | None:
        """Give the positions of the rows that belong into the output; None where all do.

        Parameters
        ----------
        records : Records
            Those from before, and those of this start of the run.
        ordered : bool
            In the order of the input.
        """
        if not ordered and not self.has_stale:
            return None
        return Order(records, self._is_wanted, ordered)

    def _is_wanted(self, at: int) -> bool:
        return at >= self._count or bool(self._taken[at])


@dataclass(frozen=True)
class Order:
    """Positions of records, as often as one asks: a list of a million would take its room."""

    records: Records
    is_wanted: Callable[[int], bool]
    ordered: bool

    def __iter__(self) -> Iterator[int]:
        positions = self.records.by_index() if self.ordered else self.records.current()
        return filter(self.is_wanted, positions)


def only_what_failed(mini_batch: MiniBatch, record: Record) -> MiniBatch:
    """Return a mini-batch that has rows as one of those items that have failed."""
    ranges = tuple((bad.start, bad.stop) for bad in record.bad_items)
    is_whole = ranges == ((0, record.total),)
    return mini_batch._replace(again=True, only=None if is_whole else ranges)
