"""The window of work: the tasks in flight on the cluster, and what comes back from them."""

from __future__ import annotations

import contextlib
import itertools
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from distributed import Client, Future, KilledWorker

from daskprs.exceptions import ClusterLostError
from daskprs.stay import drained
from daskprs.worker_results import Finished

__all__ = ["Window"]

logger = logging.getLogger(__name__)

COLLECTORS = 4
_END_SECONDS = 5.0


@dataclass
class _Task:
    work: Any
    future: Future
    call: tuple[Any, ...] = ()
    is_ended: bool = False


class Window:
    """Tasks in flight.

    Parameters
    ----------
    client : distributed.Client
    token : str
        Begins the keys of the tasks: it names them on the dashboard.
    wake : threading.Event
        Set when a task has ended.
    allowed : callable
        Tells on which workers tasks may run; None is any.
    """

    def __init__(
        self,
        client: Client,
        token: str,
        wake: threading.Event,
        allowed: Callable[[], list[str] | None] = lambda: None,
    ) -> None:
        self._client, self._token, self._wake = client, token, wake
        self._allowed = allowed
        self._lock = threading.Lock()
        self._tasks: dict[str, _Task] = {}
        self._ended: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._finished: deque[Finished] = deque()
        self._numbers = itertools.count()
        # A result that is on a worker that does not answer holds up one of them.
        self._collectors = [
            threading.Thread(target=self._collect, name="daskprs-collector", daemon=True)
            for _ in range(COLLECTORS)
        ]
        for collector in self._collectors:
            collector.start()

    def __len__(self) -> int:
        return len(self._tasks)

    def submit(self, work: Any, function: Callable[..., Any], *args: Any) -> None:
        """Run ``function(*args)`` on the cluster; `work` comes back with its value.

        Raises
        ------
        ClusterLostError
        """
        key = self._next_key(function)
        with self._connected():
            future = self._client.submit(function, *args, key=key, pure=False, **self._where())
        self.watch(work, future, (function, *args))

    def submit_delayed(
        self, works: Sequence[Any], function: Callable[..., Any], arguments: Sequence[Any]
    ) -> None:
        """Run a function on lazy values, all in one graph.

        Raises
        ------
        ClusterLostError
        """
        from dask.delayed import delayed

        lazy = delayed(function, pure=False)
        tasks = [lazy(*given, dask_key_name=self._next_key(function)) for given in arguments]
        with self._connected():
            futures = self._client.compute(tasks, **self._where())
        for work, future in zip(works, futures, strict=True):
            self.watch(work, future)

    def _next_key(self, function: Callable[..., Any]) -> str:
        return f"{function.__name__.replace('_', '-')}-{self._token}-{next(self._numbers)}"

    def _where(self) -> dict[str, Any]:
        workers = self._allowed()
        # Where they all go away, another one is better than none.
        return {} if workers is None else {"workers": workers, "allow_other_workers": True}

    @contextlib.contextmanager
    def _connected(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if self._client.status in ("running", "connecting"):
                raise
            raise ClusterLostError(
                f"the connection to the scheduler was lost ({error}): start the scheduler again; "
                "the same run goes on with what is missing."
            ) from error

    def watch(self, work: Any, future: Future, call: tuple[Any, ...] = ()) -> None:
        """Take a future of whatever origin into the window; `call` is for doing it once more."""
        with self._lock:
            self._tasks[future.key] = _Task(work, future, call)
        future.add_done_callback(lambda done: self._ended.put(done.key))

    def take(self) -> list[Finished]:
        """Return what has ended since the last call."""
        return drained(self._finished)

    def works(self) -> list[Any]:
        """What is in flight, for messages."""
        with self._lock:
            return [task.work for task in self._tasks.values()]

    def take_back(self, keys: Sequence[str]) -> None:
        """Give tasks to other workers, where theirs has not begun them."""
        with self._lock:
            tasks = [self._tasks[key] for key in keys if key in self._tasks]
            tasks = [task for task in tasks if not task.is_ended]
            for task in tasks:
                if task.call:
                    del self._tasks[task.future.key]
        if tasks:
            self._client.cancel([task.future for task in tasks])
        for task in tasks:
            if task.call:  # else it comes back as lost
                self.submit(task.work, *task.call)

    # In the threads of the collectors

    def _collect(self) -> None:
        while (key := self._ended.get()) is not None:
            keys = [key]
            with contextlib.suppress(queue.Empty):
                while len(keys) < 64:
                    key = self._ended.get_nowait()
                    if key is None:
                        self._ended.put(None)
                        break
                    keys.append(key)
            with self._lock:
                tasks = {key: self._tasks[key] for key in keys if key in self._tasks}
                for task in tasks.values():
                    task.is_ended = True
            values = self._gather({k: t.future for k, t in tasks.items()
                                   if t.future.status == "finished"})  # fmt: skip
            for key, task in tasks.items():
                value = values.get(key)
                self._finished.append(
                    self._lost(task) if value is None else Finished(task.work, value)
                )
                # Only now: a task is always in flight or finished, in the eyes of the driver.
                with self._lock:
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
        deaths = error.allowed_failures + 1 if isinstance(error, KilledWorker) else 0
        return Finished(task.work, lost=f"{type(error).__name__}: {error}", deaths=deaths)

    def close(self) -> None:
        """Cancel what is in flight, and end the collectors."""
        for _ in self._collectors:
            self._ended.put(None)
        with self._lock:
            futures = [task.future for task in self._tasks.values()]
            self._tasks.clear()
        if futures and self._client.status == "running":
            with contextlib.suppress(Exception):
                self._client.cancel(futures, force=True)
        deadline = time.monotonic() + _END_SECONDS
        for collector in self._collectors:
            collector.join(max(0.0, deadline - time.monotonic()))
