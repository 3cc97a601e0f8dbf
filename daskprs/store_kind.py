"""What every kind of row store does in its own way."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from daskprs.journal import Journal

__all__ = ["StoreKind"]


class StoreKind(ABC):
    """Where rows and journal stand; `RowStore` decides what becomes of them, and when."""

    @property
    @abstractmethod
    def partial_grows(self) -> bool:
        """Whether the rows stand in the partial file while the run goes on."""

    @abstractmethod
    def _load(self) -> Journal | None: ...

    @abstractmethod
    def _begin(self, journal: Journal) -> None: ...

    @abstractmethod
    def _resume(self, journal: Journal) -> None: ...

    @abstractmethod
    def _bring_back(self, journal: Journal) -> Journal:
        """Make the rows of a finished run those of one that goes on.

        Until the journal says that it goes on, the run is finished all the same.

        Raises
        ------
        OutputError
            Rows are not there any more.
        """

    @abstractmethod
    def _mark_retry(self, journal: Journal) -> None:
        """Note in the journal that what has failed is to run again."""

    @abstractmethod
    def _shape_changed(self, journal: Journal) -> None:
        """Note the columns in the journal."""

    @abstractmethod
    def _append(self, rows: bytes, lines: list[bytes]) -> None:
        """Make rows safe, then their records. After an error, nothing has been appended."""

    @abstractmethod
    def _payloads(self, positions: Iterable[int]) -> Iterator[bytes]:
        """Give the rows of these records, in their order."""

    @abstractmethod
    def _mark_finished(
        self, journal: Journal, facts: Mapping[str, Any], size: int | None
    ) -> None: ...

    @abstractmethod
    def _forget_rows(self, journal: Journal) -> None:
        """Remove rows that stand in the final file now."""

    @abstractmethod
    def _put_away_rows(self, journal: Journal) -> None:
        """Keep rows that stand in the final file, too, out of sight."""

    @abstractmethod
    def close(self) -> None:
        """Let go of open files, without a flush. Never fails."""
