"""ParallelRun: a run that goes on in the background, and the handle on it."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
import threading
import time
import traceback
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daskprs.cluster_rows import ClusterRows
from daskprs.driver import Driver
from daskprs.earlier import Earlier
from daskprs.events import (
    ClusterReady,
    Event,
    Listener,
    MiniBatchDone,
    Noticed,
    RunEnded,
    RunStarted,
)
from daskprs.exceptions import (
    DaskprsError,
    InputNotFoundError,
    NothingSucceededError,
    RunCanceledError,
    RunFailedError,
)
from daskprs.job import Job
from daskprs.journal import Journal, Record, Records
from daskprs.logs import LogFolder, overview_line
from daskprs.mini_batches import MiniBatch
from daskprs.outcomes import Tally, threshold_exceeded
from daskprs.output import JOURNAL, RowStore, open_store
from daskprs.output_folder import Lock
from daskprs.planner import Planner
from daskprs.report import REPORT, RunReport, read_report

__all__ = ["ParallelRun", "Progress"]

logger = logging.getLogger(__name__)

_REPORT_SECONDS = 10.0
_LOCK_SECONDS = 20.0


@dataclass(frozen=True)
class Progress:
    """How far a run is. `total` is None while the input is still being listed."""

    done: int
    total: int | None
    kept: int
    failed: int
    items: int
    failed_items: int
    seconds: float

    @property
    def line(self) -> str:
        return overview_line(self.done, self.total, self.seconds, self.done - self.kept)


class ParallelRun:
    """A run in the background; made by `ParallelRunStep.submit`.

    Attributes
    ----------
    status : str
        Running, Completed, Failed or Canceled.
    report : RunReport
        Counts, failures, times; while the run goes on, as far as it is.
    output_file : str
        Where the rows are when the run has Completed.
    """

    def __init__(self, job: Job, lock: Lock, compute_target: object) -> None:
        self._job, self._lock, self._compute_target = job, lock, compute_target
        self._canceled, self._wake, self._ended = (threading.Event() for _ in range(3))
        self._error: BaseException | None = None
        self._began = time.monotonic()
        self._tally, self._kept = Tally(), Tally()
        self._driver: Driver | None = None
        self._planner: Planner | None = None
        self._listeners: list[Listener] = []
        self._store: RowStore = open_store(
            job.folder, job.config.append_row_file_name, job.output_format
        )
        local = job.folder.local
        self._log_path = Path(tempfile.mkdtemp(prefix="daskprs-logs-")) if local is None else local
        self._logs = LogFolder(self._log_path / "logs", lambda: self.progress.line)
        self._report = RunReport(
            name=job.name,
            description=job.config.description,
            logs=job.folder.url_of("logs"),
        )
        self._earlier = Earlier(Records())
        self.dashboard_link: str | None = None
        self.processes = 0
        self.notices: list[str] = []
        self._thread = threading.Thread(target=self._work, name=f"daskprs-{job.name}", daemon=True)
        _running.add(self)

    def _start(self) -> None:
        self._thread.start()

    # For users

    @property
    def name(self) -> str:
        return self._job.name

    @property
    def status(self) -> str:
        return self._report.status

    @property
    def report(self) -> RunReport:
        if not self._ended.is_set():
            self._update_report()
        return self._report

    @property
    def output_file(self) -> str | None:
        """Path or url of the rows; None with summary_only."""
        if self._job.output_format is None:
            return None
        return self._store.final_url

    @property
    def progress(self) -> Progress:
        """How far the run is."""
        tally = self._tally + self._kept
        planner = self._planner
        total = planner.planned if planner is not None and planner.is_complete else None
        if self._report.reused:
            total = tally.mini_batches.total
        return Progress(
            done=tally.mini_batches.total,
            total=total,
            kept=self._kept.mini_batches.total,
            failed=tally.mini_batches.failed,
            items=tally.items.total,
            failed_items=tally.items.failed,
            seconds=time.monotonic() - self._began,
        )

    def wait_for_completion(
        self, show_output: bool = False, timeout: float | None = None, raise_on_error: bool = True
    ) -> str:
        """Wait until the run has ended.

        Parameters
        ----------
        show_output : bool
            Show a progress bar, in a terminal or a notebook.
        timeout : float, optional
            Seconds to wait at most; the run goes on.
        raise_on_error : bool
            Raise what made the run fail; False only returns the status.

        Returns
        -------
        str
            The status.

        Raises
        ------
        RunFailedError
            Its text begins with the traceback of the user's script, where that has failed.
        TimeoutError
            The run has not ended in time.

        Notes
        -----
        Ctrl-C while waiting cancels the run: what is done is kept, and the same run goes on
        from there. A second Ctrl-C does not wait for the end.
        """
        from daskprs.progress import watch

        try:
            with watch(self) if show_output else contextlib.nullcontext():
                ended = self._ended.wait(timeout)
        except KeyboardInterrupt:
            self.cancel()
            self._ended.wait(60)
            raise
        if not ended:
            raise TimeoutError(f"the run {self.name!r} has not ended within {timeout:g} s.")
        if self._error is not None and raise_on_error:
            # The frames of our thread say nothing to the user.
            raise self._error.with_traceback(None) from None
        return self.status

    def cancel(self) -> None:
        """Stop the run: running mini-batches are stopped, what is written stays."""
        self._canceled.set()
        self._wake.set()

    def subscribe(self, listener: Callable[[Event], None]) -> None:
        """Have every event of the run told to `listener`, in the thread of the run."""
        self._listeners.append(listener)

    def __repr__(self) -> str:
        return f"ParallelRun({self.name!r}, {self.status})"

    def _repr_html_(self) -> str:
        return self.report._repr_html_()

    # The run itself, in its thread

    def _work(self) -> None:
        error: BaseException | None = None
        try:
            self._run()
            status, message = "Completed", self._say_completed()
        except BaseException as raised:
            error = raised
            status = "Canceled" if isinstance(raised, RunCanceledError) else "Failed"
            if not isinstance(raised, DaskprsError):
                logger.error("the run failed inside daskprs", exc_info=raised)
                error = RunFailedError(
                    f"daskprs itself failed ({type(raised).__name__}: {raised}). The same run "
                    "goes on with what is missing.\n" + "".join(traceback.format_exception(raised))
                )
            message = str(error)
        with contextlib.suppress(Exception):
            error = self._leave_partial(error)
            message = message if error is None else str(error)
        with contextlib.suppress(Exception):
            self._end(status, message)
        self._error = error
        self._ended.set()
        _running.discard(self)

    def _run(self) -> None:
        job = self._job
        journal = self._store.load()
        if journal is not None and not (job.allow_reuse and self._is_same_run(journal)):
            journal = None
        if journal is not None and journal.finished is not None:
            if self._reuse(journal):
                return
            journal = None
        if journal is not None:
            self._store.resume()
            self._earlier = Earlier(journal.records)
            self._logs.keep_failed_items(self._earlier.has_rows)
        else:
            self._set_logs_aside()
            self._store.begin(job.facts())
        self._emit(RunStarted(self._earlier.count))
        self._plan_and_drive()
        self._check_something_succeeded()
        self._publish()

    def _plan_and_drive(self) -> None:
        job = self._job
        rows = ClusterRows(job, self._canceled, self._wake)
        self._planner = Planner(rows.plan(), self._take_over, self._wake)
        self._driver = Driver(
            *(job, self._planner, rows, self._store, self._tally),
            *(self._emit, self._canceled, self._wake),
        )
        self._driver.tick = self._tick
        self._driver.kept_tally = self._kept
        self._driver.run(self._compute_target)
        if not self._planner.planned:
            self._emit(Noticed("the input has no rows: there was nothing to run."))

    def _take_over(self, mini_batch: MiniBatch) -> Record | None:
        """Tell the record of a mini-batch that an earlier start has done."""
        record = self._earlier.take(mini_batch)
        if record is not None:
            self._kept.add(total=record.total, succeeded=record.succeeded)
        return record

    def _check_something_succeeded(self) -> None:
        items = (self._tally + self._kept).items
        if self._job.output_format is None or not items.total or items.succeeded:
            return
        assert self._driver is not None
        failures = self._driver.failures
        raise NothingSucceededError(
            f"not one of {items.total} items succeeded. First failures:\n{failures.text()}",
            script_traceback=failures.traceback,
        )

    def _publish(self) -> None:
        order = None
        if self._earlier.has_stale or self._job.config.ordered:
            assert self._store.journal is not None
            records = self._store.journal.records
            # Rows of mini-batches that are not in the plan any more are left out.
            order = [at for at in records.current() if self._earlier.is_wanted(at)]
            if self._job.config.ordered:
                order.sort(key=records.index_at)
        self._store.publish(order, {"ended": time.time(), "report": self._final_report()})

    def _final_report(self) -> dict[str, Any]:
        self._update_report()
        counts = self._report.to_dict()
        return {key: counts[key] for key in ("mini_batches", "items")}

    # Reuse

    def _is_same_run(self, journal: Journal) -> bool:
        return self._job.is_same_run(journal, self._last_sign(journal))

    def _last_sign(self, journal: Journal) -> float:
        """When the earlier run last wrote something; 0 where nobody can tell."""
        if journal.finished is not None:
            return float(journal.finished.get("ended", 0.0))
        local = self._job.folder.local
        return 0.0 if local is None else (local / JOURNAL).stat().st_mtime

    def _reuse(self, journal: Journal) -> bool:
        """Take over a finished run, if it is what this run would be."""
        earlier, tally = Earlier(journal.records), Tally()
        for at in journal.records.current():
            record = journal.records[at]
            tally.add(total=record.total, succeeded=record.succeeded, failed=record.failed)
        count = tally.mini_batches.total
        if threshold_exceeded(self._job.config, tally, planned=count) is not None:
            return False
        for mini_batch in self._job.plan_without_cluster():
            if not earlier.knows(mini_batch):
                return False
            count -= 1
            if self._canceled.is_set():
                raise RunCanceledError("the run was canceled before it began.")
        if count and not self._job.is_shuffled:
            return False
        with contextlib.suppress(DaskprsError):
            report = read_report(self._job.folder)
            report.reused = True
            report.name = self._job.name
            self._report = report
            self._kept = tally
            return True
        return False

    def _set_logs_aside(self) -> None:
        logs = self._logs.folder
        if logs.is_dir() and any(logs.iterdir()):
            previous = logs.with_name("logs.previous")
            shutil.rmtree(previous, ignore_errors=True)
            logs.rename(previous)

    # Telling

    def _emit(self, event: Event) -> None:
        if isinstance(event, ClusterReady):
            self.dashboard_link, self.processes = event.dashboard_link, event.processes
        if isinstance(event, Noticed):
            self.notices.append(event.text)
        if isinstance(event, MiniBatchDone) and event.outcome.failed_items:
            self._report.add_failure(event.outcome)
        self._logs(event)
        for listener in self._listeners:
            try:
                listener(event)
            except Exception:
                logger.exception("a listener of the run %r failed", self.name)

    _report_due = 0.0
    _lock_due = 0.0

    def _tick(self) -> None:
        now = time.monotonic()
        self._logs.tick()
        if now >= self._report_due:
            self._report_due = now + _REPORT_SECONDS
            self._update_report()
            self._write_report()
        if now >= self._lock_due:
            self._lock_due = now + _LOCK_SECONDS
            self._lock.refresh()

    def _update_report(self) -> None:
        report = self._report
        report.take(self._tally + self._kept)
        report.kept = self._kept.mini_batches.total
        report.seconds = time.monotonic() - self._began
        report.output_file = None
        if self._job.output_format is not None:
            done = report.status == "Completed"
            report.output_file = self._store.final_url if done else self._store.partial_url

    def _say_completed(self) -> str:
        tally = self._tally + self._kept
        text = f"{tally.mini_batches.total} mini-batches are done"
        if tally.mini_batches.failed:
            text += f", {tally.mini_batches.failed} of them failed"
        if tally.items.failed:
            text += f", {tally.items.failed} of {tally.items.total} items failed"
        return f"{text}."

    def _leave_partial(self, error: BaseException | None) -> BaseException | None:
        """Keep the rows of a run that did not complete, and say where they are."""
        if error is None or isinstance(error, InputNotFoundError):
            return error
        with contextlib.suppress(DaskprsError, OSError):
            self._store.flush()
        with contextlib.suppress(DaskprsError, OSError):
            self._store.show_partial()
        kept = (self._tally + self._kept).mini_batches.succeeded
        if kept and self._job.output_format is not None and isinstance(error, DaskprsError):
            where = f"\nThe rows of {kept} mini-batches are in {self._store.partial_url}"
            return type(error)(error.message + where, **error.facts)
        return error

    def _end(self, status: str, message: str) -> None:
        reused = self._report.reused
        self._report.status, self._report.message = status, message
        if not reused:
            self._update_report()
            self._emit(RunEnded(status, message))
            self._write_report()
        self._store.close()
        if self._job.folder.local is None:
            self._upload_logs()
            shutil.rmtree(self._log_path, ignore_errors=True)
        self._lock.release()

    def _write_report(self) -> None:
        data = self._report.to_json().encode("utf-8")
        with contextlib.suppress(OSError):
            if self._job.folder.local is not None:
                self._job.folder.write(REPORT, data)
                return
            path = self._log_path / REPORT
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    def _upload_logs(self) -> None:
        for folder, _, names in os.walk(self._log_path):
            for name in names:
                path = Path(folder, name)
                relative = path.relative_to(self._log_path).as_posix()
                with contextlib.suppress(Exception):
                    self._job.folder.write(relative, path.read_bytes())


_running: weakref.WeakSet[ParallelRun] = weakref.WeakSet()


def _wait_for_all() -> None:
    """A script that ends without waiting gets its runs done."""
    for run in list(_running):
        run._ended.wait()


# Before concurrent.futures refuses new work, which is before atexit.
_register = getattr(threading, "_register_atexit", None)
if _register is not None:
    _register(_wait_for_all)
