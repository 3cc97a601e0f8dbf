"""A run's stay on a cluster: the worker plugin, the window of tasks, the pulse; leaves nothing."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

from daskprs.events import ClusterReady, Event, Noticed
from daskprs.exceptions import ClusterLostError, TargetError
from daskprs.host_tasks import survey_piece
from daskprs.job import Job
from daskprs.pulse import Pulse
from daskprs.stay import AGAIN, check_progress, tell_end
from daskprs.targets import Target, check_software, within
from daskprs.window import Window
from daskprs.wording import counted
from daskprs.work import Group, Survey, packed
from daskprs.worker import (
    ScriptPlugin,
    abort_host,
    finish_host,
    plugin_name,
    run_mini_batches,
    waiting_tasks,
)

__all__ = ["Session"]

logger = logging.getLogger(__name__)

_ABORT_SECONDS = 10.0
_GOODBYE_SECONDS = 30.0
_REGISTER_SECONDS = 5.0


class Session:
    """Use of one cluster by one run; as a context manager.

    Parameters
    ----------
    job : Job
    target : Target
    wake : threading.Event
        Set when a task has ended.
    emit : callable
        Takes events.

    Raises
    ------
    TargetError
        The cluster cannot take the script.
    """

    window: Window
    pulse: Pulse

    def __init__(
        self, job: Job, target: Target, wake: threading.Event, emit: Callable[[Event], None]
    ) -> None:
        self.job, self.target, self._wake, self._emit = job, target, wake, emit
        self.name = plugin_name(job.token)
        self.client = target.client
        self._package = job.package(in_place=target.is_local)
        self._is_finished = False
        self._registered = 0.0
        self._leave = contextlib.ExitStack()

    def __enter__(self) -> Session:
        with contextlib.ExitStack() as undo:
            if not self.target.is_local:
                check_software(self.client)
            undo.callback(self._unregister)
            self.register()
            self.window = Window(self.client, self.job.token, self._wake, self._allowed)
            undo.callback(self.window.close)
            self.pulse = self._feel_pulse()
            undo.callback(self.pulse.close)
            self._leave = undo.pop_all()
        return self

    def ready(self) -> ClusterReady:
        return ClusterReady(self.workers, self.slots, self.target.dashboard_link)

    @property
    def workers(self) -> int:
        """Workers that are there."""
        return self.pulse.workers

    @property
    def slots(self) -> int:
        """How many mini-batches can run at a time."""
        return self.pulse.slots

    def _feel_pulse(self) -> Pulse:
        processes = self.job.config.process_count_per_node
        try:
            return Pulse(self.client, self.name, processes, self.target.lease, self._take_back)
        except Exception as error:
            raise TargetError(
                f"the scheduler does not answer ({type(error).__name__}: {error}): look whether it "
                "is still there."
            ) from error

    def register(self) -> None:
        """Send the script to the workers, also to those that come later.

        Does nothing where the scheduler has it already.

        Raises
        ------
        TargetError
            The workers cannot take it.
        """
        if self._registered and time.monotonic() - self._registered < _REGISTER_SECONDS:
            return
        limit = self.job.config.first_task_creation_timeout
        plugin = ScriptPlugin(self._package, self.target.lease)
        try:
            within(limit, lambda: self.client.register_plugin(plugin))
        except TimeoutError as error:
            raise TargetError(
                f"the script could not be sent to all workers within {limit:g} s "
                "(first_task_creation_timeout): look for a worker that does not answer."
            ) from error
        except Exception as error:
            raise TargetError(
                f"the script could not be sent to the workers ({type(error).__name__}: {error})."
            ) from error
        self._registered = time.monotonic()

    # While the run goes on

    def run_group(self, group: Group, *how: Any) -> None:
        """Run mini-batches, as one task; `how` is what `run_mini_batches` takes besides.

        Raises
        ------
        ClusterLostError
        """
        arguments = (self.name, packed(group.mini_batches), *how, group.frame)
        self.window.submit(group, run_mini_batches, *arguments)

    def run_partitions(self, groups: Sequence[Group], *how: Any) -> None:
        """Run partitions of Dask dataframes, all in one graph.

        Raises
        ------
        ClusterLostError
        """
        arguments = [(self.name, packed(g.mini_batches), *how, g.frame) for g in groups]
        self.window.submit_delayed(groups, run_mini_batches, arguments)

    def survey(self, work: Survey) -> None:
        """Look through a large table file.

        Raises
        ------
        ClusterLostError
        """
        self.window.submit(work, survey_piece, work.piece)

    def _allowed(self) -> list[str] | None:
        return self.pulse.allowed()

    def _take_back(self, address: str) -> None:
        """Let other workers do what a paused one has not begun."""
        asked = self.client.run(waiting_tasks, self.job.token, workers=[address], on_error="ignore")
        self.window.take_back(asked.get(address) or [])

    def hosted(self, address: str) -> None:
        """Take note that a worker has run the script."""
        self.pulse.accepted(address)

    def refused(self, address: str, why: str) -> None:
        """A worker cannot run the script: leave it out for a while, and try it again.

        Raises
        ------
        ClusterLostError
            None of the workers takes it.
        """
        if self.pulse.refused(address, why):
            self._emit(
                Noticed(f"the worker {address} cannot run the script ({why}); it is tried again.")
            )
        final = self.pulse.final_refusal()
        if final:
            raise ClusterLostError(
                f"no worker can run the script: {final}. Look whether there is room, and "
                f"permission to write, in their local directories; {AGAIN}"
            )
        self.register()  # the scheduler may be another one by now

    def check_connected(self) -> None:
        """Raise when the scheduler is gone for good.

        Raises
        ------
        ClusterLostError
        """
        if self.client.status not in ("running", "connecting"):
            raise ClusterLostError(
                f"the connection to the scheduler was lost ({self.client.status}): start the "
                f"scheduler again, or give another one; {AGAIN}"
            )

    def check_alive(self, last_progress: float, stuck: Callable[[], str]) -> None:
        """Raise when waiting makes no sense any more.

        Parameters
        ----------
        last_progress : float
            When something last came back (monotonic).
        stuck : callable
            Tells what is waited for, for the message.

        Raises
        ------
        ClusterLostError
        """
        self.check_connected()
        config, now, pulse = self.job.config, time.monotonic(), self.pulse
        limit = config.first_task_creation_timeout
        lonely = now - max(pulse.had_slots, self._registered)
        if lonely > limit:
            setting = f"for {lonely:.0f} s (first_task_creation_timeout={limit:g})"
            raise ClusterLostError(f"{self._why_lonely(limit)} {setting}; {AGAIN}")
        check_progress(config, last_progress, counted(pulse.workers, "worker"), stuck)

    def _why_lonely(self, limit: float) -> str:
        if time.monotonic() - self.pulse.heard > limit:
            return "look at the scheduler: it has not answered"
        if self.pulse.workers:
            return f"look at {counted(self.pulse.workers, 'worker')}: none has taken work"
        return "start workers, or raise that limit: the cluster has had none"

    # The end

    def finish(self) -> None:
        """All is done: shutdown() in every process, and the last of the logs."""
        self._is_finished = True
        for end in self._broadcast(finish_host, self._package.shutdown_timeout + 30):
            tell_end(self._emit, end)

    def abort(self) -> None:
        """Kill the entry processes now; their tasks end by themselves."""
        self._broadcast(abort_host, _ABORT_SECONDS)

    def _broadcast(self, function: Callable[..., Any], timeout: float) -> list[Any]:
        """Run on all workers that answer in time."""
        with contextlib.suppress(Exception):
            told = within(timeout, lambda: self.client.run(function, self.name, on_error="ignore"))
            return [value for value in told.values() if value is not None]
        return []

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._leave:
            self.pulse.close()
            if not self._is_finished and self.client.status == "running":
                self.abort()
                self.window.close()
                self.finish()

    def _unregister(self) -> None:
        if self.client.status != "running":
            return
        try:
            within(_GOODBYE_SECONDS, lambda: self.client.unregister_worker_plugin(self.name))
        except Exception as error:
            logger.debug("the plugin could not be taken back: %s", error)
