"""Watches the memory of entry processes; one that uses too much is killed, and told why."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence

import psutil

from daskprs.entry_process.host import EntryProcess

__all__ = ["MemoryWatch"]

# Often enough for a process that takes a gigabyte a second.
_SECONDS = 0.05
_CHILDREN_SECONDS = 0.5


class MemoryWatch:
    """A thread that looks at some processes until `close`.

    Parameters
    ----------
    processes : callable
        Gives the processes that are there at the moment.
    limit : int
        Bytes that one of them and its children may use.
    """

    def __init__(self, processes: Callable[[], Sequence[EntryProcess]], limit: int) -> None:
        self._processes, self._limit = processes, limit
        self._closed = threading.Event()
        self._of_children: dict[int, int] = {}
        self._children_due = 0.0
        self._thread = threading.Thread(target=self._watch, name="daskprs-memory", daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._closed.wait(_SECONDS):
            now = time.monotonic()
            with_children = now >= self._children_due
            if with_children:
                self._children_due = now + _CHILDREN_SECONDS
                self._of_children.clear()
            for process in self._processes():
                used = self._used(process.pid, with_children)
                if used > self._limit:
                    process.stop(self._too_much(used))

    def _too_much(self, used: int) -> str:
        from dask.utils import format_bytes

        return (
            f"out of memory: used {format_bytes(used)} of {format_bytes(self._limit)}; "
            "make the mini-batches smaller, or raise memory_limit_per_process"
        )

    def _used(self, pid: int, with_children: bool) -> int:
        used = 0
        # It may end while it is looked at.
        with contextlib.suppress(psutil.Error, OSError):
            process = psutil.Process(pid)
            used = process.memory_info().rss
            if with_children:
                self._of_children[pid] = _memory_of_children(process)
        return int(used + self._of_children.get(pid, 0))

    def close(self) -> None:
        self._closed.set()
        self._thread.join(5)


def _memory_of_children(process: psutil.Process) -> int:
    total = 0
    for child in process.children(recursive=True):
        with contextlib.suppress(psutil.Error, OSError):
            # Pages shared with the parent are the parent's.
            memory = child.memory_info()
            total += memory.rss - getattr(memory, "shared", 0)
    return total
