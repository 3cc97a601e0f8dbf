"""ParallelRun: the handle on a run that goes on in the background."""

from __future__ import annotations

# Dask uses them, and nobody can import them once the main thread has ended.
import concurrent.futures.process
import concurrent.futures.thread  # noqa: F401
import contextlib
import logging
import threading
import weakref
from collections.abc import Callable

from daskprs.events import Event
from daskprs.execution import Execution, Progress
from daskprs.job import Job
from daskprs.output_folder import Lock
from daskprs.report import RunReport
from daskprs.waiting import end_if_interrupted, wait_for, wait_or_cancel

__all__ = ["ParallelRun", "Progress"]

logger = logging.getLogger(__name__)


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
        self._execution = Execution(job, lock, compute_target)
        self._is_told = False  # somebody knows how it has ended
        self._thread = threading.Thread(target=self._work, name=f"daskprs-{job.name}", daemon=True)
        _running.add(self)
        self._thread.start()

    def _work(self) -> None:
        """Run to the end; as a method, so that a run that nobody keeps is there until then."""
        self._execution.run()

    @property
    def name(self) -> str:
        return self._execution.job.name

    @property
    def status(self) -> str:
        return self._execution.report.status

    @property
    def report(self) -> RunReport:
        return self._execution.current_report()

    @property
    def output_file(self) -> str | None:
        """Path or url of the rows; None with summary_only."""
        execution = self._execution
        return None if execution.job.output_format is None else execution.store.final_url

    @property
    def progress(self) -> Progress:
        """How far the run is."""
        return self._execution.progress

    @property
    def dashboard_link(self) -> str | None:
        """Url of the Dask dashboard, when there is a cluster that has one."""
        return self._execution.dashboard_link

    @property
    def notices(self) -> list[str]:
        """What a person should know, though the run goes on."""
        return self._execution.notices

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
                ended = wait_for(self._execution.ended, timeout)
        except KeyboardInterrupt:
            self.cancel()
            wait_for(self._execution.ended, 60)
            raise
        if not ended:
            raise TimeoutError(f"the run {self.name!r} has not ended within {timeout:g} s.")
        self._is_told = True
        error = self._execution.error
        if error is not None and raise_on_error:
            # The frames of our thread say nothing to the user.
            raise error.with_traceback(None) from None
        return self.status

    def cancel(self) -> None:
        """Stop the run: running mini-batches are stopped, what is written stays."""
        self._execution.canceled.set()
        self._execution.wake.set()

    def subscribe(self, listener: Callable[[Event], None]) -> None:
        """Have every event of the run told to `listener`, in the thread of the run."""
        self._execution.listeners.append(listener)

    def __repr__(self) -> str:
        return f"ParallelRun({self.name!r}, {self.status})"

    def _repr_html_(self) -> str:
        return self.report._repr_html_()


_running: weakref.WeakSet[ParallelRun] = weakref.WeakSet()


def cancel_all() -> int:
    """Cancel every run of this process; return how many there were."""
    runs = list(_running)
    for run in runs:
        run._is_told = True
        run.cancel()
    return len(runs)


def _wait_for_all() -> None:
    """A script that ends without waiting gets its runs done."""
    runs = [run for run in _running if run._thread.is_alive()]
    try:
        wait_or_cancel({run._execution.ended: run.cancel for run in runs})
        for run in runs:
            if run._execution.error is not None and not run._is_told:
                logger.error("the run %r is %s. %s", run.name, run.status, run._execution.error)
    finally:
        end_if_interrupted()


# Before concurrent.futures, imported above, refuses new work, which is before atexit.
_register = getattr(threading, "_register_atexit", None)
if _register is not None:
    _register(_wait_for_all)
