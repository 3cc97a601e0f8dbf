"""What runs in the Dask workers: the plugin that owns the entry processes, and the task."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import pickle
import re
import threading
import time
from typing import Any

from distributed import Worker, WorkerPlugin, get_worker

from daskprs._version import __version__ as __version__  # asked for by targets.check_software
from daskprs.attempts import Limits
from daskprs.early_hosts import take_early_host
from daskprs.host_tasks import end_host, run_on_host
from daskprs.lazy_rows import LazyRows
from daskprs.mini_batches import MiniBatch
from daskprs.parquet_rows import close_idle_files
from daskprs.script_host import ScriptHost, ScriptPackage, StoppedError
from daskprs.worker_results import GroupResult, HostEnd

__all__ = [
    "ScriptPlugin",
    "abort_host",
    "finish_host",
    "renew_lease",
    "run_mini_batches",
    "waiting_tasks",
]

logger = logging.getLogger(__name__)


class ScriptPlugin(WorkerPlugin):  # type: ignore[misc]
    """Unpacks the script once per worker and keeps one entry process per thread.

    Parameters
    ----------
    package : ScriptPackage
    lease : float or None
        Seconds after which a worker that has not heard of the run's driver cleans up by itself;
        None where driver and workers live and die together.
    """

    # Its name is that of one run: on a worker that has it, another one would end its processes.
    idempotent = True

    def __init__(self, package: ScriptPackage, lease: float | None) -> None:
        self.package = package
        self.name = plugin_name(package.token)
        self.lease = lease

    def setup(self, worker: Worker) -> None:
        """Take note of the worker; what takes time waits for the first task."""
        self._worker = worker
        self._host: ScriptHost | None = None
        self._making = threading.Lock()
        self._ended = False
        self._renewed = time.monotonic()
        self._watch: asyncio.Task[None] | None = None
        if self.lease is not None:
            self._watch = asyncio.ensure_future(self._watch_lease(worker))

    def host(self) -> ScriptHost:
        """Return the place for the processes; it is made at its first use.

        In the thread of a task: fetching and unpacking would block the worker's event loop. What
        goes wrong is raised to each task that asks, and the next one tries again.

        Raises
        ------
        StoppedError
        Exception
            The script cannot be unpacked here.
        """
        worker = self._worker
        with self._making:
            if self._host is None and not self._ended:
                self._host = take_early_host(self.package, _node_name(worker)) or ScriptHost(
                    self.package,
                    node=_node_name(worker),
                    ip=_ip(worker),
                    threads=worker.state.nthreads,
                    folder=worker.local_directory,
                    memory_limit=worker.memory_manager.memory_limit,
                )
                if self._ended:  # meanwhile
                    self._host.close()
            if self._host is None or self._ended:
                raise StoppedError("the script was stopped there")
            return self._host

    def renew(self) -> None:
        self._renewed = time.monotonic()

    def abort(self) -> None:
        """Kill the processes, and start none any more."""
        self._ended = True
        if self._host is not None:
            self._host.abort()

    def finish(self) -> HostEnd:
        """Call shutdown() in every process; give the rest of the logs, and what failed."""
        return HostEnd([], []) if self._host is None else end_host(self._host)

    def close(self) -> None:
        """Kill what is left of the processes, and remove their files."""
        self._ended = True
        if self._host is not None:
            self._host.close()
        # What was read in the threads of this worker, before a shuffle, may still be open.
        close_idle_files()

    async def _watch_lease(self, worker: Worker) -> None:
        assert self.lease is not None
        while time.monotonic() - self._renewed < self.lease:
            await asyncio.sleep(min(1.0, self.lease / 4))
        logger.warning(
            "daskprs has not heard of the run's driver for %g s: cleaning up", self.lease
        )
        await asyncio.to_thread(self.close)
        with contextlib.suppress(Exception):
            await worker.scheduler.unregister_worker_plugin(name=self.name)

    async def teardown(self, worker: Worker) -> None:
        """Leave the worker as it was."""
        if self._watch is not None and self._watch is not asyncio.current_task():
            self._watch.cancel()
        await asyncio.to_thread(self.close)


def plugin_name(token: str) -> str:
    return f"daskprs-{token}"


def _node_name(worker: Worker) -> str:
    if isinstance(worker.name, int) or str(worker.name).isdigit():
        return f"node{int(worker.name)}"
    return re.sub(r"[^\w.-]+", "_", str(worker.name)).strip("_") or "node"


def _ip(worker: Worker) -> str:
    address = str(worker.address)
    match = re.match(r"\w+://\[?([^\]/]+?)\]?:\d+$", address)
    return match[1] if match else "127.0.0.1"


def _plugin(dask_worker: Worker, name: str) -> ScriptPlugin | None:
    plugin: ScriptPlugin | None = dask_worker.plugins.get(name)
    return plugin


# Broadcasts of the driver


async def renew_lease(name: str, dask_worker: Worker) -> bool:
    """Say that the driver lives."""
    plugin = _plugin(dask_worker, name)
    if plugin is not None:
        plugin.renew()
    return plugin is not None


def waiting_tasks(token: str, dask_worker: Worker) -> list[str]:
    """Return keys of our tasks that this worker has not begun."""
    tasks = dask_worker.state.tasks.values()
    waiting = {"waiting", "ready", "constrained"}
    return [str(task.key) for task in tasks if task.state in waiting and token in str(task.key)]


async def abort_host(name: str, dask_worker: Worker) -> None:
    """Kill the entry processes; the tasks that wait for them end."""
    plugin = _plugin(dask_worker, name)
    if plugin is not None:
        await asyncio.to_thread(plugin.abort)


async def finish_host(name: str, dask_worker: Worker) -> HostEnd:
    """No work is left: shutdown() in every process, and the rest of the logs."""
    plugin = _plugin(dask_worker, name)
    if plugin is None:
        return HostEnd([], [])
    return await asyncio.to_thread(plugin.finish)


# The task


def run_mini_batches(
    name: str,
    packed: bytes,
    limits: Limits,
    stop_at_failure: bool,
    budget: float,
    frame: Any = None,
) -> GroupResult:
    """Run consecutive mini-batches in one entry process, as one Dask task.

    Parameters
    ----------
    name : str
        Of the plugin.
    packed : bytes
        The mini-batches, as `daskprs.work.packed` makes them.
    stop_at_failure : bool
        Come back at once when a mini-batch has failed, so that thresholds are looked at.
    budget : float
        Seconds after which no more of the mini-batches are begun: others may have idle
        processes for them.
    frame : optional
        The partition of a Dask dataframe, or the bucket of a shuffle, that holds their rows.
    """
    mini_batches: list[MiniBatch] = pickle.loads(packed)
    if frame is not None:
        mini_batches = [_bound(mini_batch, frame) for mini_batch in mini_batches]
    indexes = [mini_batch.index for mini_batch in mini_batches]
    worker = get_worker()
    try:
        host = _host(worker, name)
    except StoppedError as error:  # the run is ending, and has said why
        return GroupResult([], tuple(indexes), worker=worker.address, host_missing=str(error))
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        logger.warning("daskprs cannot host the script on %s: %s", worker.address, why)
        return GroupResult([], tuple(indexes), worker=worker.address, host_missing=why)
    return run_on_host(host, worker.address, mini_batches, limits, stop_at_failure, budget)


def _host(worker: Worker, name: str) -> ScriptHost:
    plugin = _plugin(worker, name)
    if plugin is None:
        raise StoppedError("the script was taken back from it")
    plugin.renew()
    return plugin.host()


def _bound(mini_batch: MiniBatch, frame: Any) -> MiniBatch:
    piece = mini_batch.piece
    return (
        mini_batch._replace(piece=piece.bind(frame)) if isinstance(piece, LazyRows) else mini_batch
    )
