"""Where a run without a compute target works: in threads of this process, later on a cluster too.

Importing Dask takes half a second of processor time, which a short run spends better. A longer one
gets a cluster for its dashboard, and goes on there with the same processes.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import TYPE_CHECKING

from daskprs.dask_imports import import_session
from daskprs.early_hosts import early_hosts
from daskprs.events import Event, Noticed
from daskprs.exceptions import RunCanceledError, TargetError
from daskprs.local_session import LocalSession
from daskprs.script_host import ScriptHost
from daskprs.targets import open_target, processes_per_node

if TYPE_CHECKING:
    from daskprs.config import ParallelRunConfig
    from daskprs.job import Job
    from daskprs.session import Session

__all__ = ["LocalStart", "slots_here"]

logger = logging.getLogger(__name__)

ALONE_SECONDS = 10.0  # a run that takes longer gets a cluster
_END_SECONDS = 60.0
_SPAWN_SECONDS = 0.05


def slots_here(config: ParallelRunConfig) -> int:
    """Count the mini-batches that run at a time on this machine."""
    return processes_per_node(config.process_count_per_node) * config.node_count


class LocalStart:
    """Finds a place on this machine for the work of a run, and later a better one.

    Parameters
    ----------
    job : Job
    wake : threading.Event
        Set when there is a better place.
    emit : callable
        Takes events.

    Attributes
    ----------
    slots : int
        How many mini-batches can run at a time.
    """

    def __init__(self, job: Job, wake: threading.Event, emit: Callable[[Event], None]) -> None:
        self._job, self._wake, self._emit = job, wake, emit
        self._threads = processes_per_node(job.config.process_count_per_node)
        self.slots = slots_here(job.config)
        self._hosts: dict[str, Future[ScriptHost]] | None = None
        self._session: LocalSession | None = None
        self._began = time.monotonic()
        self._cluster: Future[tuple[Session, contextlib.ExitStack]] | None = None
        self._is_told = False
        self._is_over = threading.Event()

    def start_processes(self, stack: contextlib.ExitStack, most: int) -> None:
        """Start processes, at most so many; again does nothing."""
        if self._hosts is None:
            package = self._job.package(in_place=True)
            given = (package, self._job.config.node_count, self._threads, most)
            try:
                self._hosts = stack.enter_context(early_hosts(*given))
                _wait_for_processes(self._hosts.values())
            except OSError as error:  # the cluster will say so, or do without
                logger.debug("no process can be started before the cluster: %s", error)
                self._hosts = {}

    def place(
        self, stack: contextlib.ExitStack, most: int, needs_cluster: bool, is_quick: bool = False
    ) -> LocalSession | Session | None:
        """Return where work goes from now on, if that has changed.

        Parameters
        ----------
        stack : ExitStack
            Ends what is begun here.
        most : int
            Mini-batches that are known.
        needs_cluster : bool
            Some of the work is for a cluster only.
        is_quick : bool
            The threads of a cluster in this process would cost more than its dashboard is worth.

        Raises
        ------
        TargetError
            There is no place on this machine.
        """
        self.start_processes(stack, most)
        is_new = self._session is None and self._cluster is None
        if self._hosts and is_new and not needs_cluster:
            nodes = list(self._hosts)
            places = [nodes[number % len(nodes)] for number in range(self.slots)]
            self._session = LocalSession(self._job, self._hosts, places, self._wake, self._emit)
            stack.callback(self._session.end)
            return self._session
        is_long = time.monotonic() - self._began > ALONE_SECONDS and not is_quick
        is_alone = self._session is not None and self._session.slots > 0
        if self._cluster is None and (needs_cluster or is_long or not is_alone):
            self._start_cluster(stack)
        return self._started(is_alone and not needs_cluster)

    def _start_cluster(self, stack: contextlib.ExitStack) -> None:
        if not threading.main_thread().is_alive():
            # Python takes no more work for its thread pools, which Dask uses.
            error = TargetError(
                "no cluster can be started on this machine after the main thread has ended: let "
                "it wait for the run."
            )
            self._cluster = Future()
            self._cluster.set_exception(error)
            return
        self._cluster = Future()
        thread = threading.Thread(target=self._make, args=(self._cluster,), name="daskprs-cluster")
        thread.daemon = True
        stack.callback(self._end_cluster, self._cluster)
        thread.start()

    def _make(self, made: Future[tuple[Session, contextlib.ExitStack]]) -> None:
        try:
            session_type = import_session()
            if self._is_over.is_set():
                raise RunCanceledError("nobody wants a cluster any more")
            with contextlib.ExitStack() as undo:
                target = undo.enter_context(open_target(None, self._job.config))
                session = session_type(self._job, target, self._wake, self._emit)
                made.set_result((undo.enter_context(session), undo.pop_all()))
        except BaseException as error:
            made.set_exception(error)
        self._wake.set()

    def _started(self, is_dispensable: bool) -> Session | None:
        if self._cluster is None or not self._cluster.done():
            return None
        error = self._cluster.exception()
        if error is not None and not is_dispensable:
            raise error
        if self._is_told:
            return None
        self._is_told = True
        if error is None:
            return self._cluster.result()[0]
        self._emit(Noticed(f"the run goes on without Dask's dashboard: {error}"))
        return None

    def _end_cluster(self, made: Future[tuple[Session, contextlib.ExitStack]]) -> None:
        self._is_over.set()
        if self._session is not None:
            self._session.end()  # now: a cluster that is being made keeps us waiting
        with contextlib.suppress(Exception):
            made.result(_END_SECONDS)[1].close()


def _wait_for_processes(hosts: Iterable[Future[ScriptHost]]) -> None:
    """Let the system start them, if it soon does: threads that compute would be in the way."""
    deadline = time.monotonic() + _SPAWN_SECONDS
    while time.monotonic() < deadline and not all(map(_is_begun, hosts)):
        time.sleep(0.001)


def _is_begun(host: Future[ScriptHost]) -> bool:
    return host.done() and (host.exception() is not None or host.result().are_started)
