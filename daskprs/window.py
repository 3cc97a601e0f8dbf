"""The window of work: the tasks in flight on the cluster, and what comes back from them."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from distributed import Client, Future

from daskprs.worker import renew_lease

__all__ = ["Finished", "GroupSizer", "Pulse", "Window"]

logger = logging.getLogger(__name__)

GROUP_SECONDS = 1.0
MOST_IN_GROUP = 1000


class GroupSizer:
    """How many mini-batches ride in one task: as many as make about a second of work."""

    def __init__(self) -> None:
        self._size = 1
        self._each: float | None = None

    def saw(self, count: int, seconds: float) -> None:
        """Learn from a task that ran `count` mini-batches in `seconds`."""
        if count == 0:
            return
        each = seconds / count
        self._each = each if self._each is None else (self._each + each) / 2
        wanted = int(GROUP_SECONDS / max(self._each, 1e-6))
        # Growing by doubling keeps one lucky mini-batch from deciding for a thousand.
        self._size = max(1, min(wanted, self._size * 2, MOST_IN_GROUP))

    def size(self, left: int | None, slots: int) -> int:
        """Return how many to take; `left` (None: unknown) are to be shared by all slots."""
        if left is None:
            return self._size
        return max(1, min(self._size, left // (2 * max(1, slots))))


@dataclass
class Finished:
    """A task that ended; `lost` says why there is no value, if there is none."""

    work: Any
    value: Any = None
    lost: str = ""
    worker_died: bool = False


@dataclass
class _Task:
    work: Any
    future: Future
    submitted: float = field(default_factory=time.monotonic)


class Window:
    """Tasks in flight.

    Parameters
    ----------
    client : distributed.Client
    token : str
        Begins the keys of the tasks: it names them on the dashboard.
    wake : threading.Event
        Set when a task has ended.
    """

    def __init__(self, client: Client, token: str, wake: threading.Event) -> None:
        self._client, self._token, self._wake = client, token, wake
        self._tasks: dict[str, _Task] = {}
        self._ended: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._finished: deque[Finished] = deque()
        self._count = 0
        self._collector = threading.Thread(
            target=self._collect, name="daskprs-collector", daemon=True
        )
        self._collector.start()

    def __len__(self) -> int:
        return len(self._tasks)

    def submit(self, work: Any, function: Callable[..., Any], *args: Any) -> None:
        """Run ``function(*args)`` on the cluster; `work` comes back with its value."""
        name = function.__name__.replace("_", "-")
        key = f"{name}-{self._token}-{self._count}"
        self._count += 1
        future = self._client.submit(function, *args, key=key, pure=False)
        self.watch(work, future)

    def submit_delayed(
        self, works: Sequence[Any], function: Callable[..., Any], arguments: Sequence[Any]
    ) -> None:
        """Run a function on lazy values, all in one graph."""
        from dask.delayed import delayed

        lazy = delayed(function, pure=False)
        tasks = []
        for given in arguments:
            key = f"{function.__name__.replace('_', '-')}-{self._token}-{self._count}"
            self._count += 1
            tasks.append(lazy(*given, dask_key_name=key))
        for work, future in zip(works, self._client.compute(tasks), strict=True):
            self.watch(work, future)

    def watch(self, work: Any, future: Future) -> None:
        """Take a future of whatever origin into the window."""
        self._tasks[future.key] = _Task(work, future)
        future.add_done_callback(lambda done: self._ended.put(done.key))

    def take(self) -> list[Finished]:
        """Return what has ended since the last call."""
        finished = []
        with contextlib.suppress(IndexError):
            while True:
                finished.append(self._finished.popleft())
        return finished

    def works(self) -> list[Any]:
        """What is in flight, for messages."""
        return [task.work for task in self._tasks.values()]

    # In the collector's thread

    def _collect(self) -> None:
        while (key := self._ended.get()) is not None:
            keys = [key]
            with contextlib.suppress(queue.Empty):
                while len(keys) < 64:
                    key = self._ended.get_nowait()
                    if key is None:
                        return
                    keys.append(key)
            tasks = {key: self._tasks[key] for key in keys if key in self._tasks}
            values = self._gather({k: t.future for k, t in tasks.items()
                                   if t.future.status == "finished"})  # fmt: skip
            for key, task in tasks.items():
                value = values.get(key)
                self._finished.append(
                    self._lost(task) if value is None else Finished(task.work, value)
                )
                # Only now: a task is always in flight or finished, in the eyes of the driver.
                self._tasks.pop(key, None)
            self._wake.set()

    def _gather(self, futures: dict[str, Future]) -> dict[str, Any]:
        if not futures:
            return {}
        try:
            values: dict[str, Any] = self._client.gather(futures, errors="skip")
        except Exception as error:
            logger.debug("results were lost on their way: %s", error)
            return {}
        return values

    @staticmethod
    def _lost(task: _Task) -> Finished:
        error: BaseException | None = None
        if task.future.status == "error":
            with contextlib.suppress(Exception):
                error = task.future.exception(timeout=5)
        if error is None:
            return Finished(task.work, lost=f"its task was {task.future.status}")
        died = type(error).__name__ == "KilledWorker"
        return Finished(task.work, lost=f"{type(error).__name__}: {error}", worker_died=died)

    def close(self) -> None:
        """Cancel what is in flight, and end the collector."""
        self._ended.put(None)
        futures = [task.future for task in list(self._tasks.values())]
        self._tasks.clear()
        if futures:
            with contextlib.suppress(Exception):
                self._client.cancel(futures, force=True)
        self._collector.join(5)


class Pulse:
    """Asks the cluster regularly who is there, and tells the workers that the driver lives.

    Parameters
    ----------
    client : distributed.Client
    plugin : str
        Name of the worker plugin.
    process_count : int or None
        At most so many entry processes a worker.
    lease : float or None
        Seconds of the workers' lease.

    Attributes
    ----------
    workers, slots : int
        Workers that are there, and how many mini-batches they can run at a time.
    heard, had_workers : float
        When the scheduler last answered, and when there was last a worker (monotonic seconds).
    """

    def __init__(
        self, client: Client, plugin: str, process_count: int | None, lease: float | None
    ) -> None:
        self._client, self._plugin, self._lease = client, plugin, lease
        self._process_count = process_count
        self.workers = self.slots = 0
        self.heard = self.had_workers = time.monotonic()
        self._stopped = threading.Event()
        self._look()
        self._thread = threading.Thread(target=self._work, name="daskprs-pulse", daemon=True)
        self._thread.start()

    def _look(self) -> None:
        threads: dict[str, int] = self._client.nthreads()
        most = self._process_count
        self.slots = sum(count if most is None else min(count, most) for count in threads.values())
        self.workers = len(threads)
        self.heard = time.monotonic()
        if threads:
            self.had_workers = self.heard

    def _work(self) -> None:
        renewed = time.monotonic()
        while not self._stopped.wait(0.5 if not self.workers else 2.0):
            with contextlib.suppress(Exception):
                self._look()
                if self._lease is not None and time.monotonic() - renewed > self._lease / 4:
                    self._client.run(renew_lease, self._plugin, on_error="ignore")
                    renewed = time.monotonic()

    def close(self) -> None:
        self._stopped.set()
        self._thread.join(5)
