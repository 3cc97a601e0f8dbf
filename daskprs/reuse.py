"""Whether an earlier run is what this one would be: to reuse it, or to retry what failed in it."""

from __future__ import annotations

from threading import Event

from daskprs.exceptions import ConfigError, RunCanceledError
from daskprs.job import Job
from daskprs.journal import Journal
from daskprs.outcomes import Tally, threshold_exceeded
from daskprs.records import Records
from daskprs.wording import counted

__all__ = ["check_retry", "is_reusable", "tally_of"]


def tally_of(records: Records) -> Tally:
    """Count what the mini-batches of a run have come to."""
    tally = Tally()
    for _, row in records.current_rows():
        tally.add(total=row.total, succeeded=row.succeeded, failed=row.length < 0)
    return tally


def is_reusable(job: Job, journal: Journal, canceled: Event) -> bool:
    """Say whether a finished run has run today's mini-batches, within today's limits.

    Raises
    ------
    RunCanceledError
    """
    tally = tally_of(journal.records)
    planned = tally.mini_batches.total
    if threshold_exceeded(job.config, tally, planned=planned) is not None:
        return False
    return _other_mini_batch(job, journal, canceled) is None


def check_retry(job: Job, journal: Journal | None, canceled: Event) -> Journal:
    """Return the journal of the run before, if what has failed in it can run again alone.

    Raises
    ------
    ConfigError, RunCanceledError
    """
    if journal is None:
        raise _not_possible(
            f"there is no earlier run in {job.folder.url!r}. Run without retry_failed first."
        )
    changed = job.changed_settings(journal)
    if changed:
        raise _not_possible(
            f"{' and '.join(changed)} must be as in the earlier run, since its rows stay. Only the "
            "script, its arguments, environment, models and side inputs may change. Run without "
            "retry_failed to begin from the beginning."
        )
    other = _other_mini_batch(job, journal, canceled, may_change_if_failed=True)
    if other is not None:
        raise _not_possible(
            f"the inputs are not as in the earlier run, since {other}. Run without retry_failed: "
            "a finished run begins from the beginning then, an unfinished one goes on."
        )
    return journal


def _not_possible(why: str) -> ConfigError:
    accepted = "False where there is no earlier run with the same inputs and settings"
    message = f"retry_failed is not possible: {why}"
    return ConfigError(message, field="retry_failed", value=True, accepted=accepted)


def _other_mini_batch(
    job: Job, journal: Journal, canceled: Event, *, may_change_if_failed: bool = False
) -> str | None:
    """Say which mini-batch of the plan is not as it was; None where all are."""
    records, is_finished = journal.records, journal.finished is not None
    left = sum(1 for _ in records.current())
    for mini_batch in job.plan_without_cluster():
        if canceled.is_set():
            raise RunCanceledError("the run was canceled before it began.")
        at = records.find(mini_batch.index)
        if at is None and is_finished:
            return f"mini-batch {mini_batch.index} ({mini_batch.piece}) was not there"
        if at is None:
            continue
        left -= 1
        record = records[at]
        may_change = may_change_if_failed and record.succeeded != record.total
        if record.key != mini_batch.key and not may_change:
            return f"mini-batch {mini_batch.index} ({mini_batch.piece}) has changed"
    if left and is_finished and not job.is_shuffled:
        return counted(left, "mini-batch is gone", "mini-batches are gone")
    return None
