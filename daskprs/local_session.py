"""A run's stay on this machine alone: threads in place of Dask workers, and their window of work.

It takes what a `Session` takes, but for rows that a cluster holds.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from daskprs.events import ClusterReady, Event
from daskprs.host_tasks import end_host, run_on_host, survey_piece
from daskprs.job import Job
from daskprs.script_host import ScriptHost
from daskprs.stay import check_progress, drained, tell_end
from daskprs.wording import counted
from daskprs.work import Group, Survey
from daskprs.worker_results import Finished, GroupResult

__all__ = ["LocalSession"]

logger = logging.getLogger(__name__)

_END_SECONDS = 15.0

_Place = tuple[str, Future[ScriptHost]]


class LocalSession:
    """Use of this machine by one run, without Dask, until `end`.

    Parameters
    ----------
    job : Job
    hosts : mapping of str to Future of ScriptHost
        One for each node; whoever made them closes them.
    places : sequence of str
        The node of each thread; those whose processes start already come first.
    wake : threading.Event
        Set when a task has ended.
    emit : callable
        Takes events.

    Attributes
    ----------
    window : LocalWindow
    slots : int
        How many mini-batches can run at a time; 0 where the script has no place here.
    client : None
        There is no cluster.
    """

    client = None

    def __init__(
        self,
        job: Job,
        hosts: dict[str, Future[ScriptHost]],
        places: Sequence[str],
        wake: threading.Event,
        emit: Callable[[Event], None],
    ) -> None:
        self._job, self._hosts, self._emit = job, hosts, emit
        self.slots = len(places)
        self.workers = len(hosts)
        self.window = LocalWindow([(node, hosts[node]) for node in places], wake)
        self._is_finished = False

    def ready(self) -> ClusterReady:
        return ClusterReady(self.workers, self.slots, None)

    def run_group(self, group: Group, *how: Any) -> None:
        """Run mini-batches one after another; `how` is what `run_on_host` takes besides."""

        def run(node: str, made: Future[ScriptHost]) -> GroupResult:
            indexes = tuple(mini_batch.index for mini_batch in group.mini_batches)
            try:
                host = made.result()
            except Exception as error:
                why = f"{type(error).__name__}: {error}"
                return GroupResult([], indexes, worker=node, host_missing=why)
            return run_on_host(host, node, group.mini_batches, *how)

        self.window.put(group, run)

    def survey(self, work: Survey) -> None:
        """Look through a large table file."""
        self.window.put(work, lambda node, made: survey_piece(work.piece))

    def hosted(self, node: str) -> None:
        """A node has run the script: as expected."""

    def refused(self, node: str, why: str) -> None:
        """The script has no place here: take nothing more, a cluster may do better."""
        logger.debug("%s cannot run the script: %s", node, why)
        self.slots = 0

    def check_connected(self) -> None:
        """There is nothing that could be gone."""

    def check_alive(self, last_progress: float, stuck: Callable[[], str]) -> None:
        """Raise when waiting makes no sense any more; as that of a `Session`.

        Raises
        ------
        ClusterLostError
        """
        check_progress(self._job.config, last_progress, counted(self.workers, "node"), stuck)

    def finish(self) -> None:
        """All is done: shutdown() in every process, and the last of the logs."""
        self._is_finished = True
        for made in self._hosts.values():
            end = None
            with contextlib.suppress(Exception):  # there was no place for the script
                end = end_host(made.result())
            if end is not None:
                tell_end(self._emit, end)

    def abort(self) -> None:
        """Kill the entry processes now; what waits for them ends by itself."""
        for made in self._hosts.values():
            with contextlib.suppress(Exception):
                made.result().abort()

    def end(self) -> None:
        """Kill the entry processes, if they have not ended, and end the threads; again is fine."""
        try:
            if not self._is_finished:
                self.abort()
                self.finish()
        finally:
            self.window.close()


class LocalWindow:
    """Tasks that wait or run in threads of this process.

    Parameters
    ----------
    places : sequence of (str, Future of ScriptHost)
        Each is for one task at a time; those that come first are used first.
    wake : threading.Event
        Set when a task has ended.
    """

    def __init__(self, places: Sequence[_Place], wake: threading.Event) -> None:
        self._wake = wake
        self._lock = threading.Lock()
        self._open: dict[int, Any] = {}
        self._number = 0
        self._finished: deque[Finished] = deque()
        self._waiting: queue.SimpleQueue[tuple[int, Any, Callable[..., Any]] | None]
        self._waiting = queue.SimpleQueue()
        self._places: queue.SimpleQueue[_Place] = queue.SimpleQueue()
        for place in places:
            self._places.put(place)
        self._threads = [
            threading.Thread(target=self._work, name="daskprs-local", daemon=True) for _ in places
        ]
        for thread in self._threads:
            thread.start()

    def __len__(self) -> int:
        return len(self._open)

    def put(self, work: Any, function: Callable[[str, Future[ScriptHost]], Any]) -> None:
        """Run a function at a place; `work` comes back with its value."""
        with self._lock:
            self._number += 1
            self._open[self._number] = work
            number = self._number
        self._waiting.put((number, work, function))

    def take(self) -> list[Finished]:
        """Return what has ended since the last call."""
        return drained(self._finished)

    def works(self) -> list[Any]:
        """What is in flight, for messages."""
        with self._lock:
            return list(self._open.values())

    def _work(self) -> None:
        while (given := self._waiting.get()) is not None:
            number, work, function = given
            place = self._places.get()  # there are as many as threads
            try:
                finished = Finished(work, function(*place))
            except Exception as error:
                finished = Finished(work, lost=f"{type(error).__name__}: {error}")
            self._places.put(place)
            self._finished.append(finished)
            # Only now: a task is always in flight or finished, in the eyes of the driver.
            with self._lock:
                del self._open[number]
            self._wake.set()

    def close(self) -> None:
        """Leave out what has not begun, and end the threads."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._waiting.get_nowait()
        for _ in self._threads:
            self._waiting.put(None)
        deadline = time.monotonic() + _END_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
