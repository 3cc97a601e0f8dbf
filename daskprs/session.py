"""A run's stay on a cluster: the worker plugin, the window of tasks, the pulse; leaves nothing."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from daskprs.events import ClusterReady, Event, LogArrived, Noticed
from daskprs.exceptions import ClusterLostError, TargetError
from daskprs.job import Job
from daskprs.script_host import LogChunk
from daskprs.targets import Target
from daskprs.window import Pulse, Window
from daskprs.worker import ScriptPlugin, abort_host, finish_host, plugin_name

__all__ = ["Session"]

logger = logging.getLogger(__name__)

_GOODBYE_SECONDS = 30.0


class Session:
    """Use of one cluster by one run.

    Parameters
    ----------
    job : Job
    target : Target
    wake : threading.Event
        Set when a task has ended.
    emit : callable
        Takes events.
    """

    def __init__(
        self, job: Job, target: Target, wake: threading.Event, emit: Callable[[Event], None]
    ) -> None:
        self.job, self.target, self._emit = job, target, emit
        self.name = plugin_name(job.token)
        self._client = target.client
        self._is_finished = False
        self._registered = 0.0
        self.register()
        self.window = Window(self._client, job.token, wake)
        self.pulse = Pulse(self._client, self.name, job.config.process_count_per_node, target.lease)
        emit(ClusterReady(self.pulse.workers, self.pulse.slots, target.dashboard_link))

    @property
    def client(self) -> Any:
        return self._client

    def register(self) -> None:
        """Send the script to the workers, also to those that come later.

        Raises
        ------
        TargetError
            A worker cannot take it.
        """
        if time.monotonic() - self._registered < 5:
            return
        package = self.job.package(in_place=self.target.is_local)
        plugin = ScriptPlugin(package, self.target.lease)
        try:
            self._client.register_plugin(plugin)
        except (ModuleNotFoundError, AttributeError) as error:
            raise TargetError(
                f"the workers cannot load daskprs ({error}): install the same version of "
                "daskprs, and the packages of the script, on every worker."
            ) from error
        except Exception as error:
            raise TargetError(
                f"the script could not be sent to the workers ({type(error).__name__}: {error})."
            ) from error
        self._registered = time.monotonic()

    def check_alive(self, last_progress: float, stuck: str) -> None:
        """Raise when waiting makes no sense any more.

        Parameters
        ----------
        last_progress : float
            When something last came back (monotonic).
        stuck : str
            What is waited for, for the message.

        Raises
        ------
        ClusterLostError
        """
        config, now = self.job.config, time.monotonic()
        if self._client.status not in ("running", "connecting"):
            raise ClusterLostError(
                f"the connection to the scheduler was lost ({self._client.status}): start the "
                "scheduler again; the same run goes on with what is missing."
            )
        lonely = now - max(self.pulse.had_workers, self._registered)
        if lonely > config.first_task_creation_timeout:
            raise ClusterLostError(
                f"the cluster has had no worker for {lonely:.0f} s "
                f"(first_task_creation_timeout={config.first_task_creation_timeout:g}): start "
                "workers, or raise that limit; the same run goes on with what is missing."
            )
        patience = (
            config.progress_update_timeout
            + config.run_max_try * config.run_invocation_timeout
            + config.init_timeout
        )
        if now - last_progress > patience:
            raise ClusterLostError(
                f"nothing came back from {self.pulse.workers} workers for "
                f"{now - last_progress:.0f} s (progress_update_timeout="
                f"{config.progress_update_timeout:g} beyond the limits of run() and init()); "
                f"waiting for {stuck}. Look at the logs of the workers; the same run goes on "
                "with what is missing."
            )

    def finish(self) -> None:
        """All is done: shutdown() in every process, and the last of the logs."""
        self._is_finished = True
        ends = self._broadcast(finish_host, self.job.package(in_place=True).shutdown_timeout + 30)
        for end in ends:
            for chunk in end.logs:
                self._emit(LogArrived(chunk))
            for process, error, traceback in end.shutdown_failures:
                self._emit(Noticed(f"shutdown() failed in {process}: {error}"))
                text = f"{error}\n{traceback}\n".encode("utf-8", "replace")
                self._emit(LogArrived(LogChunk("stderr", "shutdown", process, text)))

    def abort(self) -> None:
        """Kill the entry processes now; their tasks end by themselves."""
        self._broadcast(abort_host, 10)

    def _broadcast(self, function: Callable[..., Any], timeout: float) -> list[Any]:
        """Run on all workers, without waiting for one that does not answer for ever."""
        answers: list[Any] = []

        def ask() -> None:
            with contextlib.suppress(Exception):
                told = self._client.run(function, self.name, on_error="ignore")
                answers.extend(value for value in told.values() if value is not None)

        thread = threading.Thread(target=ask, name="daskprs-broadcast", daemon=True)
        thread.start()
        thread.join(timeout)
        return answers

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.pulse.close()
        if not self._is_finished and self._client.status == "running":
            self.abort()
            self.window.close()
            self.finish()
        else:
            self.window.close()
        thread = threading.Thread(target=self._unregister, name="daskprs-goodbye", daemon=True)
        thread.start()
        thread.join(_GOODBYE_SECONDS)

    def _unregister(self) -> None:
        try:
            self._client.unregister_worker_plugin(self.name)
        except Exception as error:
            logger.debug("the plugin could not be taken back: %s", error)
