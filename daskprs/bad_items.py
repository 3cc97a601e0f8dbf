"""Items of a mini-batch that have failed while others of it have rows (pure).

Among the rows of such a mini-batch are places where rows are missing, or where nobody knows which
items they are of. When these items run again, what they give is put there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

__all__ = ["BadItems", "checked", "count_failed"]


class BadItems(NamedTuple):
    """The items from `start` to `stop`, of which `failed` have failed.

    `length` of the mini-batch's rows from `at` on are theirs: bytes, or rows of a table. There are
    some only where run() returned too few.
    """

    start: int
    stop: int
    failed: int
    at: int
    length: int


def checked(given: Iterable[Sequence[int]]) -> tuple[BadItems, ...]:
    """Return what was read back.

    Raises
    ------
    TypeError, ValueError
        It tells of no items.
    """
    found = tuple(BadItems(*map(int, numbers)) for numbers in given)
    for bad in found:
        if not 0 <= bad.start < bad.start + bad.failed <= bad.stop or min(bad.at, bad.length) < 0:
            raise ValueError(f"no items: {bad}")
    return found


def count_failed(bad_items: Iterable[BadItems]) -> int:
    return sum(bad.failed for bad in bad_items)
