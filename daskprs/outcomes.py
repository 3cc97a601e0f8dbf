"""What became of a mini-batch, how items are counted, and when failures are too many: all pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from daskprs.config import ParallelRunConfig
from daskprs.entry_process.wire import Rows
from daskprs.wording import counted

__all__ = [
    "Attempt",
    "Counts",
    "FirstFailures",
    "Outcome",
    "Stretch",
    "Tally",
    "distinct",
    "has_limits",
    "located",
    "threshold_exceeded",
]


_ONLY_SHORT = (
    "\nNo mini-batch has failed: items for which run() returns nothing count as failed ones. Where "
    "it returns one result for many items, set error_threshold=-1."
)


class Attempt(NamedTuple):
    """One try of one mini-batch, as the logs tell it. Times in seconds since the epoch."""

    number: int
    status: str
    node: str
    ip: str
    process: str
    started: float
    elapsed: float
    load_seconds: float
    run_seconds: float
    error: str = ""
    traceback: str = ""
    total: int | None = None
    returned: int = 0


class Stretch(NamedTuple):
    """What became of the items from `start` to `stop` of a mini-batch; `rows` are of all of them.

    One in which some have failed is as short as it could be made.
    """

    start: int
    stop: int
    failed: int
    rows: Rows | None


class Outcome(NamedTuple):
    """What became of one mini-batch.

    Attributes
    ----------
    total : int
        Its items: rows or files.
    returned : int
        ``len()`` of what run() returned in the try that did not fail; 0 where all failed.
    failed : bool
        Whether all tries failed: then all items have failed.
    stretches : tuple of Stretch
        Where the mini-batch was not run as a whole; the rows are in them then.
    again : bool
        The mini-batch has rows, and only those of its items were run that had failed.
    """

    index: int  # type: ignore[assignment]
    key: str
    label: str
    total: int
    returned: int
    failed: bool
    rows: Rows | None
    attempts: tuple[Attempt, ...]
    items: Sequence[dict[str, Any]] = ()
    error: str = ""
    traceback: str = ""
    stretches: tuple[Stretch, ...] = ()
    again: bool = False

    @property
    def succeeded_items(self) -> int:
        """More results than items are legal, and count as all items."""
        return min(self.returned, self.total)

    @property
    def failed_items(self) -> int:
        return self.total - self.succeeded_items

    @property
    def tries(self) -> int:
        return len(self.attempts)

    @property
    def too_many(self) -> str:
        """Say that there are more results than items; only where that is so."""
        returned, total = counted(self.returned, "result"), counted(self.total, "item")
        return f"run() returned {returned} for {total} ({self.label})"


@dataclass
class Counts:
    total: int = 0
    succeeded: int = 0
    failed: int = 0

    def add(self, total: int, succeeded: int) -> None:
        self.total += total
        self.succeeded += succeeded
        self.failed += total - succeeded

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.total + other.total, self.succeeded + other.succeeded, self.failed + other.failed
        )


@dataclass
class Tally:
    """Running counts of a run."""

    mini_batches: Counts = field(default_factory=Counts)
    items: Counts = field(default_factory=Counts)

    def add(self, *, total: int, succeeded: int, failed: bool = False) -> None:
        """Count one mini-batch; `total` and `succeeded` are its items."""
        self.mini_batches.add(1, 0 if failed else 1)
        self.items.add(total, succeeded)

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.mini_batches + other.mini_batches, self.items + other.items)


def has_limits(config: ParallelRunConfig) -> bool:
    """Say whether a failure may end the run."""
    limits = (config.error_threshold, config.allowed_failed_count, config.allowed_failed_percent)
    return any(limit is not None and limit > -1 for limit in limits)


def threshold_exceeded(
    config: ParallelRunConfig, tally: Tally, *, planned: int | None
) -> str | None:
    """Say which threshold the failures exceed, strictly, or None.

    Parameters
    ----------
    planned : int or None
        How many mini-batches there are, once every one has been scheduled; None before: only
        then is the percentage looked at.
    """
    items, batches = tally.items.failed, tally.mini_batches.failed
    if -1 < config.error_threshold < items:
        many = counted(items, "failed item exceeds", "failed items exceed")
        return f"{many} error_threshold={config.error_threshold}"
    if config.allowed_failed_count is not None and -1 < config.allowed_failed_count < batches:
        many = counted(batches, "failed mini-batch exceeds", "failed mini-batches exceed")
        return f"{many} allowed_failed_count={config.allowed_failed_count}"
    allowed = config.allowed_failed_percent
    if allowed is not None and planned and 100 * batches / planned > allowed:
        return (
            f"{batches:,} of {counted(planned, 'mini-batch')} failed, "
            f"{100 * batches / planned:.4g} percent, "
            f"which exceeds allowed_failed_percent={allowed:g}"
        )
    return None


def located(error: str, place: str) -> str:
    """Add to an error where it happened."""
    return f"{error}\n[{place}]"


def distinct(errors: Sequence[tuple[str, str]], most: int = 3) -> list[tuple[str, str]]:
    """Return the first errors that differ in more than their place, as (error, traceback)."""
    first: dict[str, tuple[str, str]] = {}
    for error, traceback in errors:
        first.setdefault(error.rpartition("\n[")[0] or error, (error, traceback))
    return list(first.values())[:most]


@dataclass
class FirstFailures:
    """The first failures of different text, for the message at the end."""

    seen: list[tuple[str, str]] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        if len(self.seen) < 100:
            # Where the rows could not be read, no frame is the user's.
            theirs = not outcome.attempts or not outcome.attempts[-1].status.startswith("LOAD")
            self.seen.append((outcome.error, outcome.traceback if theirs else ""))

    def text(self, tally: Tally | None = None) -> str:
        """Tell them; with a tally also what it means where no mini-batch has failed."""
        only_short = tally is not None and not tally.mini_batches.failed
        return "\n".join(error for error, _ in distinct(self.seen)) + _ONLY_SHORT * only_short

    @property
    def traceback(self) -> str:
        return next((traceback for _, traceback in self.seen if traceback), "")
