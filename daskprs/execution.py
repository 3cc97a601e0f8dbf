"""What happens in the thread of a run, from the journal of an earlier start to the final name."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import traceback
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from daskprs.cluster_rows import ClusterRows
from daskprs.dask_imports import import_session
from daskprs.data_files import WrittenFiles
from daskprs.driver import Driver
from daskprs.earlier import Earlier, only_what_failed
from daskprs.events import (
    ClusterReady,
    Event,
    Listener,
    MiniBatchDone,
    Noticed,
    RunEnded,
    RunStarted,
    without_secrets,
)
from daskprs.exceptions import (
    DaskprsError,
    InputNotFoundError,
    NothingSucceededError,
    RunFailedError,
    WriteFailedError,
)
from daskprs.job import Job
from daskprs.journal import Journal
from daskprs.local_start import slots_here
from daskprs.logs import FAILED_ITEMS, LogFolder
from daskprs.mini_batches import MiniBatch
from daskprs.outcomes import Tally
from daskprs.output import open_store
from daskprs.output_folder import Lock
from daskprs.planner import Planner
from daskprs.progress import Progress
from daskprs.records import Records
from daskprs.report import REPORT, RunReport, read_report, say_completed, status_after
from daskprs.reuse import check_retry, is_reusable, tally_of
from daskprs.stored_logs import StoredLogs
from daskprs.targets import open_target
from daskprs.wording import counted

if TYPE_CHECKING:
    from daskprs.session import Session

__all__ = ["Execution", "Progress"]

logger = logging.getLogger(__name__)

_SENT_EARLY = (f"logs/{FAILED_ITEMS}", REPORT, "logs/job_result.txt", "logs/job_error.txt")
_REPORT_SECONDS = 2.0


class Execution:
    """The work of one run; `run` is called once, in a thread of its own.

    Attributes
    ----------
    report : RunReport
    error : BaseException or None
        What made the run fail.
    ended : threading.Event
    """

    def __init__(self, job: Job, lock: Lock, compute_target: object) -> None:
        self.job, self._lock, self._compute_target = job, lock, compute_target
        self.canceled, self.wake, self.ended = (threading.Event() for _ in range(3))
        self.error: BaseException | None = None
        self.listeners: list[Listener] = []
        self.notices: list[str] = []
        self.dashboard_link: str | None = None
        self.store = open_store(job.folder, job.config.append_row_file_name, job.output_format)
        self.store.before_commit = lock.refresh
        self._has_partial = self.store.partial_grows
        self.report = RunReport(
            name=job.name,
            description=job.config.description,
            logs=job.secrets.hide(job.folder.url_of("logs")),
        )
        self._began = time.monotonic()
        self._tally, self._kept = Tally(), Tally()
        self._planner: Planner | None = None
        self._driver: Driver | None = None
        self._earlier = Earlier(Records())
        self._is_begun = False
        self._kept_failures = 0
        self._written = WrittenFiles(job.folder)
        self._report_due = 0.0
        self._stored_logs: StoredLogs | None = None
        log_path = job.folder.local
        if log_path is None:
            self._stored_logs = StoredLogs(job.folder)
            log_path = self._stored_logs.path
        self._log_path = log_path
        self._logs = LogFolder(log_path / "logs", lambda: self.progress.line)

    @property
    def progress(self) -> Progress:
        """How far the run is."""
        tally = self._tally + self._kept
        return Progress(
            done=tally.mini_batches.total,
            total=self._totals(tally)[0],
            kept=self._kept.mini_batches.total,
            failed=tally.mini_batches.failed,
            items=tally.items.total,
            failed_items=tally.items.failed,
            seconds=time.monotonic() - self._began,
        )

    def _totals(self, tally: Tally) -> tuple[int | None, int | None]:
        """Count the mini-batches and items of the whole plan, where that is known."""
        if self.report.status == "Completed":
            return tally.mini_batches.total, tally.items.total
        return (None, None) if self._planner is None else self._planner.totals

    def current_report(self) -> RunReport:
        """Return the report, as far as the run is."""
        if not self.ended.is_set() and self._is_begun:
            self._update_report()
            journal = self.store.journal
            if self.report.status == "Running" and not (journal and journal.records.nbytes):
                return replace(self.report, output_file=None)
        return self.report

    def run(self) -> None:
        """Work until the end, whatever it is; nothing is raised."""
        with ExitStack() as keeping:
            error = self._what_goes_wrong(keeping)
            if error is not None and self._is_begun:
                error = self._leave_partial(error)
            self.error = error
            message = say_completed(self._tally + self._kept) if error is None else _message(error)
            self.report.status, self.report.message = status_after(error), message
            with contextlib.suppress(Exception):
                self._tell_the_end()
            if self._stored_logs is not None:
                self._stored_logs.close()
            with contextlib.suppress(Exception):
                self.store.close()
        self._lock.release()
        self.ended.set()

    def _what_goes_wrong(self, keeping: ExitStack) -> BaseException | None:
        """Do the work; None where nothing goes wrong."""
        try:
            keeping.enter_context(self._lock.kept())
            self._run()
        except BaseException as raised:
            error = raised
            if not isinstance(raised, DaskprsError):
                logger.error("the run failed inside daskprs", exc_info=raised)
                error = RunFailedError(
                    f"daskprs itself failed ({type(raised).__name__}: {raised}). The same run "
                    "goes on with what is missing.\n" + "".join(traceback.format_exception(raised))
                )
            return self.job.secrets.hide_in_error(error)
        return None

    def _run(self) -> None:
        job = self.job
        journal = self._earlier_run()
        if journal is not None and journal.finished is not None:
            tally = tally_of(journal.records)
            if not (job.retry_failed and tally.items.failed):
                self._reuse(tally)
                return
        with ExitStack() as stack:
            session = None
            if self._compute_target is not None:
                # A cluster that cannot be used is found out before anything is touched.
                target = stack.enter_context(open_target(self._compute_target, job.config))
                session_type = import_session()
                session = stack.enter_context(session_type(job, target, self.wake, self._emit))
            self._begin(journal)
            self._plan_and_drive(session)
        self._check_something_succeeded()
        self._publish()

    def _begin(self, journal: Journal | None) -> None:
        """Go on with a journal, or start a new one."""
        if self.job.retry_failed:
            self.store.retry(self.job.facts())
            journal = self.store.journal
        self._is_begun = True
        if journal is not None:
            if not self.job.retry_failed:
                self.store.resume()
            if self._stored_logs is not None:
                for name in _SENT_EARLY:
                    self._stored_logs.fetch(name)
            self._earlier = Earlier(journal.records, journal.retried)
            self.report.failures = self._logs.keep_failed_items(self._earlier.failed_items)
            self._kept_failures = len(self.report.failures)
        else:
            self.job.folder.set_folder_aside("logs")
            self._written.forget()
            self.store.begin(self.job.facts())
        self._emit(RunStarted(self._earlier.count))

    def _plan_and_drive(self, session: Session | None) -> None:
        job = self.job
        rows = ClusterRows(job, self.canceled, self.wake)
        pause_at = slots_here(job.config) if session is None and not job.is_shuffled else 0
        self._planner = Planner(rows.plan(), self._left_of, self.wake, pause_at)
        self._driver = Driver(
            *(job, self._planner, rows, self.store, self._tally),
            *(self._emit, self.canceled, self.wake),
        )
        self._driver.tick = self._tick
        self._driver.kept_tally = self._kept
        self._driver.run(session)

    def _left_of(self, mini_batch: MiniBatch) -> MiniBatch | None:
        """Give what is to run of a mini-batch, if an earlier start has not done it."""
        record = self._earlier.take(mini_batch)
        if record is None:
            return mini_batch
        if self._earlier.runs_again(mini_batch):
            return only_what_failed(mini_batch, record)
        self._kept.add(total=record.total, succeeded=record.succeeded)
        return None

    def _check_something_succeeded(self) -> None:
        items = (self._tally + self._kept).items
        if not items.total:
            names = ", ".join(repr(dataset.name) for dataset in self.job.inputs)
            raise InputNotFoundError(
                f"the input has no rows: every table of {names} is empty. Give one that has rows."
            )
        if self.job.output_format is None or items.succeeded:
            return
        assert self._driver is not None
        failures = self._driver.failures
        raise NothingSucceededError(
            f"not one of {counted(items.total, 'item')} succeeded. First failures:\n"
            f"{failures.text()}",
            script_traceback=failures.traceback,
        )

    def _publish(self) -> None:
        if self._earlier.has_stale:
            self._forget_failures()
        assert self.store.journal is not None
        order = self._earlier.order_of(self.store.journal.records, self.job.config.ordered)
        self._written.look(self._data_files_changed, last=True)
        self._send_logs()
        facts = {"ended": time.time(), "report": self._final_report()}
        self.store.publish(order, facts, keep=self.report.items.failed > 0)

    def _forget_failures(self) -> None:
        """Forget what has failed in mini-batches that are not in the plan any more."""
        is_wanted, failures = self._earlier.is_taken, self.report.failures
        kept = [f for f in failures[: self._kept_failures] if is_wanted(f.mini_batch)]
        self.report.failures = kept + failures[self._kept_failures :]
        self._logs.forget_failed_items(is_wanted)

    def _final_report(self) -> dict[str, Any]:
        self._update_report()
        counts = self.report.to_dict()
        return {key: counts[key] for key in ("mini_batches", "items")}

    # Reuse

    def _earlier_run(self) -> Journal | None:
        """Return the journal of the run to go on with; of a finished one, to take it over."""
        job, journal, written = self.job, self.store.load(), self._written.load()
        if job.retry_failed:
            return check_retry(job, journal, self.canceled)
        if journal is None or not (job.allow_reuse and job.is_same_run(journal, written)):
            return None
        if journal.finished is None:
            return journal
        return journal if is_reusable(job, journal, self.canceled) else None

    def _data_files_changed(self) -> set[str]:
        journal = self.store.journal
        return self.job.changed_files(journal) if journal is not None else set()

    def _reuse(self, tally: Tally) -> None:
        """Take over a finished run."""
        self._kept = tally
        self.report.status = "Completed"
        self._update_report()
        with contextlib.suppress(DaskprsError):  # its logs may have been removed
            self.report = read_report(self.job.folder)
        self.report.name, self.report.reused = self.job.name, True
        if self.job.retry_failed:
            self.notices.append("nothing has failed in the earlier run: it stays as it is.")

    # Telling

    def _emit(self, event: Event) -> None:
        event = without_secrets(event, self.job.secrets)
        if isinstance(event, ClusterReady):
            self.dashboard_link = event.dashboard_link
        if isinstance(event, Noticed):
            self.notices.append(event.text)
        if isinstance(event, MiniBatchDone) and event.outcome.failed_items:
            self.report.add_failure(event.outcome)
        if not self._lock.is_lost:  # else they are those of another run
            self._logs(event)
        for listener in self.listeners:
            try:
                listener(event)
            except Exception:
                logger.exception("a listener of the run %r failed", self.job.name)

    def _tick(self) -> None:
        now, is_first = time.monotonic(), not self._report_due
        self._logs.tick()
        if now >= self._report_due:
            self._report_due = now + _REPORT_SECONDS
            self._update_report()
            self._write_report()
        # What a mini-batch has written is known before the journal says that it is done.
        is_due = self.store.flush_is_due
        self._written.look(self._data_files_changed, now=is_due)
        if is_due or is_first:
            self._send_logs()
        self._lock.check()

    def _update_report(self) -> None:
        report = self.report
        tally = self._tally + self._kept
        report.take(tally, *self._totals(tally))
        report.kept = self._kept.mini_batches.total
        report.seconds = time.monotonic() - self._began
        url = None
        if report.status == "Completed" and self.job.output_format is not None:
            url = self.store.final_url
        elif self._has_partial and (report.status == "Running" or tally.mini_batches.succeeded):
            url = self.store.partial_url
        report.output_file = url and self.job.secrets.hide(url)

    def _leave_partial(self, error: BaseException) -> BaseException:
        """Keep the rows of a run that did not complete, and say where they are."""
        self._has_partial = False
        if self._lock.is_lost:
            return error
        if isinstance(error, WriteFailedError):
            self.job.folder.be_brief()
        with contextlib.suppress(DaskprsError, OSError):
            self.store.flush()
        with contextlib.suppress(DaskprsError, OSError):
            self._has_partial = self.store.show_partial()
        kept = (self._tally + self._kept).mini_batches.succeeded
        if kept and self._has_partial and isinstance(error, DaskprsError):
            rows = f"The rows of {counted(kept, 'mini-batch')} are in {self.store.partial_url}"
            return type(error)(f"{error.message}\n{rows}", **error.facts)
        return error

    def _tell_the_end(self) -> None:
        if self.report.reused or not self._is_begun:
            return
        self._update_report()
        self._emit(RunEnded(self.report.status, self.report.message))
        if self._lock.is_lost:
            return
        self._write_report()
        if self._stored_logs is not None:
            self._stored_logs.send_all()

    def _write_report(self) -> None:
        data = self.report.to_json().encode("utf-8")
        with contextlib.suppress(OSError):
            if self.job.folder.local is not None:
                self.job.folder.write(REPORT, data)
                return
            path = self._log_path / REPORT
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    def _send_logs(self) -> None:
        """Tell what failed before the journal says that it is done; and how far the run is."""
        if self._stored_logs is not None:
            self._stored_logs.send(*_SENT_EARLY)


def _message(error: BaseException) -> str:
    return error.message if isinstance(error, DaskprsError) else str(error)
