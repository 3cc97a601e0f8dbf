"""RunReport: what a run did, as an object, as text, as JSON, and as HTML in a notebook."""

from __future__ import annotations

import html
import json
import time
from dataclasses import asdict, dataclass, field
from typing import Any

from daskprs.exceptions import OutputError, RunCanceledError
from daskprs.json_text import json_text
from daskprs.outcomes import Counts, Outcome, Tally
from daskprs.output_folder import Lock, OutputFolder
from daskprs.wording import counted

__all__ = ["Failure", "RunCounts", "RunReport", "read_report", "say_completed", "status_after"]

REPORT = "logs/report.json"
MOST_FAILURES = 1000


@dataclass(frozen=True)
class Failure:
    """A mini-batch with items that failed.

    Attributes
    ----------
    mini_batch : int
        Its index in the plan.
    items : int
        How many of its items failed.
    """

    mini_batch: int
    items: int
    error: str
    tries: int
    input: str = ""
    traceback: str = ""

    @classmethod
    def of(cls, outcome: Outcome) -> Failure:
        return cls(
            mini_batch=outcome.index,
            items=outcome.failed_items,
            error=outcome.error,
            tries=outcome.tries,
            input=outcome.label,
            traceback=outcome.traceback,
        )

    def __str__(self) -> str:
        first = self.error.splitlines()[0] if self.error else ""
        return f"{counted(self.items, 'item')} of {self.input}: {first}"


@dataclass(frozen=True)
class RunCounts:
    """How many mini-batches, or items, there are, and what became of them.

    Attributes
    ----------
    total : int or None
        Of the whole plan, whatever was run of it. None while it is not known: before the input has
        been listed to its end; and for the items of tables, before all of them have been read.
    succeeded, failed : int
        The rest was not run, or not yet.
    """

    total: int | None = None
    succeeded: int = 0
    failed: int = 0

    @classmethod
    def of(cls, counts: Counts, total: int | None) -> RunCounts:
        return cls(total, counts.succeeded, counts.failed)

    @property
    def done(self) -> int:
        return self.succeeded + self.failed

    def told(self, rest: str) -> str:
        """Say it in words; `rest` is what is said of those that are neither."""
        failed = f", {self.failed:,} failed" if self.failed else ""
        if self.total is None:
            return f"{self.succeeded:,} succeeded{failed} so far"
        left = max(0, self.total - self.done)
        more = f", {left:,} {rest}" if left else ""
        return f"{self.succeeded:,} of {self.total:,} succeeded{failed}{more}"


@dataclass
class RunReport:
    """What a run of a `ParallelRunStep` did.

    Attributes
    ----------
    status : str
        Running, Completed, Failed, Canceled, or Interrupted (its process is gone).
    message : str
        One sentence; where the run failed, why.
    mini_batches, items : RunCounts
        ``total`` of the plan (None while it is not known), ``succeeded``, ``failed``.
    output_file : str or None
        Path or url of the rows; None with summary_only, and while there are none.
    seconds : float
        Wall time of this start of the run.
    failures : list of Failure
        The first 1,000; ``logs/failed_items.jsonl`` has all.
    kept : int
        Mini-batches that an earlier start of the same run had done.
    reused : bool
        Nothing was run: a finished run with the same settings and inputs was there.
    """

    name: str
    status: str = "Running"
    message: str = ""
    description: str | None = None
    mini_batches: RunCounts = field(default_factory=RunCounts)
    items: RunCounts = field(default_factory=RunCounts)
    output_file: str | None = None
    logs: str = ""
    seconds: float = 0.0
    started: float = field(default_factory=time.time)
    kept: int = 0
    reused: bool = False
    failures: list[Failure] = field(default_factory=list)

    def take(self, tally: Tally, mini_batches: int | None, items: int | None) -> None:
        """Take over the counts of what is done, and the totals of the plan where they are known."""
        if mini_batches == tally.mini_batches.total:
            items = tally.items.total
        self.mini_batches = RunCounts.of(tally.mini_batches, mini_batches)
        self.items = RunCounts.of(tally.items, items)

    def add_failure(self, outcome: Outcome) -> None:
        if len(self.failures) < MOST_FAILURES:
            self.failures.append(Failure.of(outcome))

    def to_dict(self) -> dict[str, Any]:
        """Return plain types, as they stand in ``logs/report.json``."""
        return asdict(self)

    def to_json(self) -> str:
        return json_text(self.to_dict(), indent=2)

    @classmethod
    def from_json(cls, text: str | bytes) -> RunReport:
        known = json.loads(text)
        known["mini_batches"] = RunCounts(**known["mini_batches"])
        known["items"] = RunCounts(**known["items"])
        known["failures"] = [Failure(**failure) for failure in known["failures"]]
        return cls(**known)

    def lines(self) -> list[tuple[str, str]]:
        """Return what a person wants to know, as (word, value)."""
        rest = "not done yet" if self.status == "Running" else "not run"
        lines = [("Status", self.status + (" (reused)" if self.reused else ""))]
        if self.message and self.status != "Completed":
            first = self.message.splitlines()[0]
            lines.append(("Reason", first.removesuffix(" First failures:")))
        lines.append(("Mini-batches", self.mini_batches.told(rest)))
        lines.append(("Items", self.items.told(rest)))
        rate = f", {self.items.done / self.seconds:,.0f} items/s" if self._has_rate else ""
        lines.append(("Time", f"{self.seconds:.1f} s{rate}"))
        if self.kept:
            before = ("mini-batch that was done before", "mini-batches that were done before")
            lines.append(("Kept", counted(self.kept, *before)))
        lines.append(("Output", self.output_file or "none"))
        lines.append(("Logs", self.logs))
        return lines

    @property
    def _has_rate(self) -> bool:
        return self.seconds > 0 and not self.reused and not self.kept and self.items.done > 0

    def __str__(self) -> str:
        text = [f"{word:<13} {value}" for word, value in self.lines()]
        text += [f"  failed      {failure}" for failure in self.failures[:3]]
        if len(self.failures) > 3:
            text.append(f"  ... all failed items: {self.logs}/failed_items.jsonl")
        return "\n".join(text)

    def _repr_html_(self) -> str:
        rows = [*self.lines()]
        rows += [("Failed", str(failure)) for failure in self.failures[:10]]
        cells = "".join(
            f"<tr><th style='text-align:left'>{html.escape(word)}</th>"
            f"<td style='text-align:left'>{html.escape(value)}</td></tr>"
            for word, value in rows
        )
        return f"<b>{html.escape(self.name)}</b><table>{cells}</table>"


def status_after(error: BaseException | None) -> str:
    """Say how a run has ended, in the word that reports use."""
    if error is None:
        return "Completed"
    return "Canceled" if isinstance(error, RunCanceledError) else "Failed"


def say_completed(tally: Tally) -> str:
    """Say what a run came to that has completed."""
    total, failed = tally.mini_batches.total, tally.mini_batches.failed
    text = counted(total, "mini-batch is done", "mini-batches are done")
    if failed:
        text += f", {failed:,} of them failed"
    if tally.items.failed:
        text += f", {tally.items.failed:,} of {counted(tally.items.total, 'item')} failed"
    return f"{text}."


def read_report(folder: OutputFolder) -> RunReport:
    """Read the report of the last run into an output folder.

    Raises
    ------
    OutputError
        There is none.
    """
    data = folder.read(REPORT)
    if data is None:
        raise OutputError(
            f"{folder.url!r} holds no report of a run: give the folder that was the run's output."
        )
    try:
        report = RunReport.from_json(data)
    except (ValueError, TypeError, KeyError) as error:
        raise OutputError(f"{folder.url_of(REPORT)} cannot be read: {error}") from error
    if report.status != "Running":
        return report
    if report.output_file and not folder.size(report.output_file.rpartition("/")[2]):
        report.output_file = None  # no row is there yet, or none that a person could read
    if not Lock(folder).is_held:
        report.status = "Interrupted"
        report.message = (
            "its process ended without a word: the same command again goes on with the rest."
        )
    return report
