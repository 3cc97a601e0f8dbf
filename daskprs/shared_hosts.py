"""Entry processes that outlive a task: each process of Dask keeps one host for each script.

A lazy collection has no driver that says when it is over. So a host is made for the first
mini-batch, kept for the next ones, and closed when none has come for a while, or when its
process ends.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from daskprs.script_host import ScriptHost, ScriptPackage, Slot

__all__ = ["close_hosts", "lent_slot"]

logger = logging.getLogger(__name__)
script_logger = logging.getLogger("daskprs.script")

_IDLE_SECONDS = 60.0
_SLOT_WAIT = 24 * 3600.0
# Of a scheduler that does not tell: as many processes as it has threads at work.
_MOST_THREADS = 256


@dataclass(eq=False)
class _Shared:
    host: ScriptHost
    users: int = 0
    last_used: float = 0.0


class _Hosts:
    """The hosts of this process, by the content of their scripts."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._hosts: dict[str, _Shared] = {}
        self._is_watched = False

    def enter(self, package: ScriptPackage) -> _Shared:
        with self._lock:
            shared = self._hosts.get(package.token)
            if shared is None:
                shared = _Shared(_make_host(package))
                self._hosts[package.token] = shared
            shared.users += 1
            if not self._is_watched:
                self._is_watched = True
                threading.Thread(target=self._watch, name="daskprs-hosts", daemon=True).start()
        return shared

    def leave(self, shared: _Shared) -> None:
        with self._lock:
            shared.users -= 1
            shared.last_used = time.monotonic()

    def take(self, idle_seconds: float) -> list[ScriptHost]:
        """Take out the hosts that nobody has used for so long."""
        since = time.monotonic() - idle_seconds
        with self._lock:
            idle = [
                token
                for token, shared in self._hosts.items()
                if not shared.users and shared.last_used <= since
            ]
            return [self._hosts.pop(token).host for token in idle]

    def take_all(self) -> list[ScriptHost]:
        with self._lock:
            hosts = [shared.host for shared in self._hosts.values()]
            self._hosts.clear()
        return hosts

    def _watch(self) -> None:
        while True:
            time.sleep(min(1.0, _IDLE_SECONDS / 4))
            for host in self.take(_IDLE_SECONDS):
                _end(host)
            with self._lock:
                if not self._hosts:
                    self._is_watched = False
                    return


_hosts = _Hosts()


def _forget_hosts() -> None:
    """A fork has none: those of its parent are not its own to use or to close."""
    global _hosts
    _hosts = _Hosts()


os.register_at_fork(after_in_child=_forget_hosts)


@contextlib.contextmanager
def lent_slot(package: ScriptPackage) -> Iterator[tuple[ScriptHost, Slot]]:
    """Lend an entry process of the script to the thread that asks; what it logs goes to logging.

    Raises
    ------
    StoppedError
        This process is ending.
    """
    hosts = _hosts
    shared = hosts.enter(package)
    try:
        with shared.host.slot(_SLOT_WAIT) as slot:
            try:
                yield shared.host, slot
            finally:
                _log(slot)
    finally:
        hosts.leave(shared)


@atexit.register
def close_hosts() -> None:
    """Call shutdown() in all entry processes of this process, and end them."""
    for host in _hosts.take_all():
        _end(host)


def _end(host: ScriptHost) -> None:
    try:
        _, failures = host.finish()
        for process, failed in failures:
            logger.warning("shutdown() failed in %s: %s", process, failed.error)
        host.close()
    except Exception:
        logger.exception("the entry processes in %s could not be closed", host.folder)


def _log(slot: Slot) -> None:
    for chunk in slot.take_logs():
        for line in chunk.data.decode("utf-8", "replace").splitlines():
            script_logger.info("%s %s: %s", chunk.process, chunk.kind, line)
    slot.take_inits()


def _make_host(package: ScriptPackage) -> ScriptHost:
    worker = _dask_worker()
    threads, folder = _MOST_THREADS, None
    if worker is not None:
        threads = worker.state.nthreads
        # With a nanny the process ends with the worker, and the worker's folder with both.
        folder = worker.local_directory if worker.nanny else None
    return ScriptHost(
        package, node="node0", ip="127.0.0.1", threads=threads, folder=folder, latest_first=True
    )


def _dask_worker() -> Any:
    """Return the distributed worker that runs this thread's task, or None."""
    get_worker = getattr(sys.modules.get("distributed"), "get_worker", None)
    if get_worker is None:
        return None
    try:
        return get_worker()
    except ValueError:
        return None
