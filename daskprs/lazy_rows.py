"""Rows that the cluster holds: a partition of a Dask dataframe, or a combination of keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from daskprs.pieces import FrameRows, TableSlice

if TYPE_CHECKING:
    from daskprs.partitioning import CombinationRows

__all__ = ["LazyRows", "UnreadableRows"]


@dataclass(frozen=True)
class LazyRows:
    """A mini-batch without its rows; the task gets them from the cluster, and binds them.

    Attributes
    ----------
    source : str
        Names the future of the rows; the driver knows it.
    combination : CombinationRows or None
        Which rows of a shuffle's bucket; None for a whole partition of a Dask dataframe.
    """

    source: str
    label: str
    combination: CombinationRows | None = None

    @property
    def is_partition(self) -> bool:
        """Whether they are a partition of a Dask dataframe."""
        return self.combination is None

    def bind(self, held: Any) -> Any:
        """Take the rows out of what the future holds."""
        if self.combination is None:
            return FrameRows(held, 0, self.label)
        return self.combination.bind(held)

    def load(self, scratch: str = "") -> Any:
        raise RuntimeError(f"the rows of {self.label} were not bound")

    def portable(self) -> LazyRows:
        return self

    def count_items(self) -> int:
        return 1 if self.combination is None else self.combination.count_items()

    def items(self, total: int | None) -> list[dict[str, Any]]:
        if self.combination is None:
            return [{"file": self.label, "rows": total}]
        return self.combination.items(total)

    def __str__(self) -> str:
        return self.label if self.combination is None else str(self.combination)


@dataclass(frozen=True)
class UnreadableRows:
    """A part of a file that could not be read, so that nobody knows the keys of its rows."""

    piece: TableSlice
    error: str

    def load(self, scratch: str = "") -> Any:
        raise OSError(self.error)

    def portable(self) -> UnreadableRows:
        return self

    def count_items(self) -> int:
        return self.piece.count_items()

    def items(self, total: int | None) -> list[dict[str, Any]]:
        return self.piece.items(total)

    def __str__(self) -> str:
        return str(self.piece)
