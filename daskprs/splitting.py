"""Poison items: a mini-batch that has failed is halved until the bad items stand alone.

Every part is tried once. With k bad items among n that takes about ``2 k log2(n / k)`` calls of
run(), and never more than ``min(2 n - 2, 2000)``; when those are used up, the parts that are left
fail as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from daskprs.bad_items import BadItems
from daskprs.entry_process.host import Reply
from daskprs.mini_batches import MiniBatch
from daskprs.pieces import FilePaths

__all__ = [
    "MOST_CALLS",
    "Part",
    "SubRows",
    "failed_items",
    "items_still_failed",
    "items_to_run",
    "part_of",
    "split",
]

MOST_CALLS = 2000
_NOT_A_NAME = ("certain", "failed", "of", "error")


@dataclass(frozen=True)
class SubRows:
    """Some rows of a table's mini-batch, counted from its first row."""

    piece: Any
    start: int
    stop: int

    def load(self, scratch: str = "") -> Any:
        return self.piece.load(scratch).iloc[self.start : self.stop].reset_index(drop=True)

    def portable(self) -> SubRows:
        return replace(self, piece=self.piece.portable())

    def count_items(self) -> int:
        return self.stop - self.start

    def items(self, total: int | None) -> list[dict[str, Any]]:
        item = dict((self.piece.items(total) or [{}])[0])
        first = item.pop("row_start", None)
        item.pop("row_stop", None)
        item["rows"] = self.count_items()
        if first is None:
            # Where the part begins in its file was never counted.
            item |= {"row_start_in_part": self.start, "row_stop_in_part": self.stop}
        else:
            item |= {"row_start": first + self.start, "row_stop": first + self.stop}
        return [item]

    def __str__(self) -> str:
        return f"{self.piece} rows {self.start} to {self.stop}"


def part_of(piece: Any, start: int, stop: int) -> Any:
    """Take some items of a piece."""
    if isinstance(piece, FilePaths):
        contents = None if piece.contents is None else piece.contents[start:stop]
        return replace(piece, paths=piece.paths[start:stop], contents=contents)
    return SubRows(piece, start, stop)


def failed_items(piece: Any, total: int, failed: int) -> list[dict[str, Any]]:
    """Name the items of a piece of which so many have failed.

    Where these are not all, since run() returned too few, nobody knows which, and each says so.
    """
    doubt = {"certain": False, "failed": failed, "of": total} if failed < total else {}
    return [{**item, **doubt} for item in piece.items(total)]


def items_still_failed(
    mini_batch: MiniBatch, bad_items: Iterable[BadItems], total: int, told: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Name the items of a mini-batch with rows that have failed, now that some were run again.

    Parameters
    ----------
    bad_items : iterable of BadItems
        What has failed now: where more of them failed than before, that is as it was.
    total : int
        All items of the mini-batch.
    told : sequence of dict
        What has failed when they were run again, and why.
    """
    whys = {_name_of(item): item["error"] for item in told if "error" in item}
    named = []
    for start, stop, failed, *_ in bad_items:
        is_whole = (start, stop) == (0, total)
        piece = mini_batch.piece if is_whole else part_of(mini_batch.piece, start, stop)
        named += failed_items(piece, stop - start, failed)
    return [{**item, **_why(whys.get(_name_of(item)))} for item in named]


def _name_of(item: Mapping[str, Any]) -> str:
    return repr(sorted((k, v) for k, v in item.items() if k not in _NOT_A_NAME))


def _why(error: str | None) -> dict[str, str]:
    return {} if error is None else {"error": error}


def items_to_run(mini_batch: MiniBatch, total: int) -> list[dict[str, Any]]:
    """Name the items that a mini-batch was to run, which are `total`."""
    if mini_batch.only is None:
        return mini_batch.piece.items(total)
    return [
        item
        for start, stop in mini_batch.only
        for item in part_of(mini_batch.piece, start, stop).items(stop - start)
    ]


@dataclass(frozen=True)
class Part:
    """Some items of a mini-batch, and what became of them."""

    start: int
    stop: int
    reply: Reply

    @property
    def total(self) -> int:
        return self.stop - self.start

    @property
    def succeeded(self) -> int:
        return min(self.reply.returned, self.total) if self.reply.ok else 0


def split(total: int, try_part: Callable[[int, int], Reply], *, first: int = 0) -> list[Part]:
    """Find the items that fail, and run all others.

    Parameters
    ----------
    total : int
        So many items have failed when they were run together.
    try_part : callable
        Runs the items from `start` to `stop`, once.
    first : int
        The first of them.

    Returns
    -------
    list of Part
        All of them, in their order.
    """
    done: list[Part] = []
    calls = 0
    waiting = list(reversed(_halves(first, first + total)))
    while waiting:
        start, stop = waiting.pop()
        reply = try_part(start, stop)
        calls += 1
        spent = calls + len(waiting) + 2 > MOST_CALLS
        if reply.ok or stop - start == 1 or spent or reply.status.startswith("LOAD"):
            done.append(Part(start, stop, reply))
        else:
            waiting += reversed(_halves(start, stop))
    return done


def _halves(start: int, stop: int) -> list[tuple[int, int]]:
    middle = (start + stop) // 2
    return [(start, middle), (middle, stop)]
