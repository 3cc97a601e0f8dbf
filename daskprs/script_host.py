"""The entry processes of one Dask worker: the unpacked script, and one slot per thread."""

from __future__ import annotations

import contextlib
import queue
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from daskprs.entry_process.host import EntryProcess, Reply, ScriptStart
from daskprs.entry_process.logs import LogChunk, ProcessLogs
from daskprs.entry_process.wire import Failed
from daskprs.entry_script import unpack
from daskprs.gpus import visible_gpus
from daskprs.memory_watch import MemoryWatch
from daskprs.script_package import ScriptPackage, SourcePath
from daskprs.side_inputs import MODELS, SidePath, models_text

__all__ = [
    "InitGaveUpError",
    "LogChunk",
    "ScriptHost",
    "ScriptPackage",
    "Slot",
    "SourcePath",
    "StoppedError",
]

INIT_TRIES = 3
_IDLE_WAIT = 10.0  # a thread whose process has been killed gives its slot back in milliseconds


class StoppedError(Exception):
    """The run has been stopped: nothing more is started here."""


class InitGaveUpError(Exception):
    """init() has failed in each of three fresh processes, one after another."""

    def __init__(self, reply: Reply, process: str) -> None:
        super().__init__(reply.error)
        self.reply = reply
        self.process = process


class Slot:
    """One place for an entry process; a process that is gone is replaced at the next use.

    Used by one thread at a time, but for `stop`.
    """

    def __init__(self, host: ScriptHost) -> None:
        self._host = host
        self._process: EntryProcess | None = None
        self._ended: list[ProcessLogs] = []
        self._inits: list[tuple[str, Reply, float]] = []

    def process(self) -> EntryProcess:
        """Return the live process, or start one and wait for its init().

        Raises
        ------
        InitGaveUpError, StoppedError
        """
        if self._process is not None and self._process.alive:
            return self._process
        for _ in range(INIT_TRIES):
            self.discard()
            self._host.check_not_stopped()
            name, reply = self._start()
            self._host.check_not_stopped()
            if reply.ok and self._process is not None:
                return self._process
        raise InitGaveUpError(reply, name)

    def _start(self) -> tuple[str, Reply]:
        started = time.time()
        name = self._host.next_name()
        try:
            self._process = self._host.start_process(name)
        except OSError as error:
            told = f"the process could not be started: {type(error).__name__}: {error}"
            reply = Reply("INIT_DIED", error=told)
        else:
            reply = self._process.init(self._host.package.init_timeout)
        self._inits.append((name, reply, started))
        return name, reply

    def discard(self) -> None:
        """Kill the process, if there is one, and keep what it has logged."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            self._ended.append(process.logs)
            self._host.ended(process)

    def stop(self) -> None:
        """Kill the process from any thread; the one that waits for it returns at once."""
        process = self._process
        if process is not None:
            process.stop()

    def shutdown(self, timeout: float) -> Failed | None:
        """Call the script's shutdown() in the live process, if any, and end it."""
        failed = None
        if self._process is not None and self._process.alive:
            failed = self._process.shutdown(timeout)
        self.discard()
        return failed

    def take_logs(self) -> list[LogChunk]:
        """Return what was logged since the last call, or as much as one answer should hold."""
        chunks = [chunk for logs in self._all_logs() for chunk in logs.take()]
        for logs in [logs for logs in self._ended if logs.all_taken]:
            logs.remove()
            self._ended.remove(logs)
        return chunks

    def take_last_logs(self) -> list[LogChunk]:
        return [chunk for logs in self._all_logs() for chunk in logs.take_last()]

    def _all_logs(self) -> list[ProcessLogs]:
        return [*self._ended, *([] if self._process is None else [self._process.logs])]

    def take_inits(self) -> list[tuple[str, Reply, float]]:
        """Return (process, reply, start time) of the init() calls since the last call."""
        inits, self._inits = self._inits, []
        return inits

    @property
    def is_ahead(self) -> bool:
        """Whether the process was sent mini-batches that nobody has asked for yet."""
        return self._process is not None and self._process.is_ahead

    @property
    def current(self) -> EntryProcess | None:
        """The process, if one was started; it may be gone."""
        return self._process

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    @property
    def process_name(self) -> str:
        return "" if self._process is None else self._process.name


class ScriptHost:
    """All entry processes of one Dask worker.

    Parameters
    ----------
    package : ScriptPackage
    node, ip : str
    threads : int
        Threads of the worker: at most one process each.
    folder : str, optional
        Where to make the private folder; default: the system's temporary folder.
    memory_limit : int, optional
        Bytes of the worker; a process may use its share of them, if the package says no other
        limit.
    latest_first : bool
        Lend the slot that was used last, so that there are no more processes than threads that
        come at the same time, where `threads` is only the most of them.
    """

    def __init__(
        self,
        package: ScriptPackage,
        *,
        node: str,
        ip: str,
        threads: int,
        folder: str | None = None,
        latest_first: bool = False,
        memory_limit: int | None = None,
    ) -> None:
        self.package = package
        self.node, self.ip = node, ip
        self._gpus = visible_gpus()
        self._free_gpus = list(self._gpus)
        self._lock = threading.Lock()
        self._closing = threading.Lock()
        self._started = 0
        self._stopped = threading.Event()
        self.folder = Path(tempfile.mkdtemp(prefix="daskprs-", dir=folder))
        try:
            self._start = self._unpack()
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise
        count = threads
        if package.process_count is not None:
            count = min(threads, package.process_count)
        self.slots = [Slot(self) for _ in range(count)]
        self._idle: queue.SimpleQueue[Slot] | queue.LifoQueue[Slot] = queue.SimpleQueue()
        if latest_first:
            self._idle = queue.LifoQueue()
        for slot in self.slots:
            self._idle.put(slot)
        self.last_used = time.monotonic()
        share = None if memory_limit is None else memory_limit // count
        limit = package.memory_limit or share
        self._memory = None if limit is None else MemoryWatch(self._processes, limit)

    def _processes(self) -> list[EntryProcess]:
        return [slot.current for slot in self.slots if slot.current is not None]

    def _unpack(self) -> ScriptStart:
        package = self.package
        source = Path(package.folder)
        if package.archive is not None:
            source = self.folder / "source"
            unpack(package.archive, source)
        sides = self.folder / "side_inputs"
        local = {side.name: side.local_path(sides) for side in package.side_inputs}

        models = {MODELS: models_text(package.models, local)} if package.models else {}

        def text(argument: str | SourcePath | SidePath) -> str:
            if isinstance(argument, SourcePath):
                return f"{argument.before}{source / argument.relative}"
            return local[argument.name] if isinstance(argument, SidePath) else argument

        return ScriptStart(
            script=str(source / package.script),
            source_directory=str(source),
            arguments=[text(argument) for argument in package.arguments],
            output_format=package.output_format,
            to_csv_options=package.to_csv_options,
            logging_level=package.logging_level,
            environment={**package.environment, **models},
            output_folder=package.output_folder,
            run_id=package.token,
            # Those that nobody has named, such as models, begin with a digit.
            side_inputs={name: path for name, path in local.items() if not name[0].isdigit()},
        )

    def check_not_stopped(self) -> None:
        if self._stopped.is_set():
            raise StoppedError

    def next_name(self) -> str:
        """Name a process; the number counts the processes of this node."""
        with self._lock:
            number, self._started = self._started, self._started + 1
        return f"process{number:03d}"

    def start_process(self, name: str) -> EntryProcess:
        """Start a process, with the first GPU that is free.

        Raises
        ------
        OSError
        """
        with self._lock:
            gpu = self._free_gpus.pop(0) if self._free_gpus else None
        try:
            process = EntryProcess(
                self._start,
                self.folder / name,
                ProcessLogs(self.folder / f"{name}.logs", self.node, name),
                name,
                gpu=gpu,
                has_gpus=bool(self._gpus),
            )
        except OSError:
            self._give_back(gpu)
            raise
        if self._stopped.is_set():  # abort() may have looked before this process was there
            process.stop()
        return process

    def ended(self, process: EntryProcess) -> None:
        """Take back the GPU and the folder of a process that is gone."""
        self._give_back(process.gpu)
        process.remove()

    def _give_back(self, gpu: str | None) -> None:
        if gpu is not None:
            with self._lock:
                self._free_gpus.append(gpu)
                self._free_gpus.sort(key=self._gpus.index)

    @contextlib.contextmanager
    def slot(self, timeout: float) -> Iterator[Slot]:
        """Lend a slot that no other thread uses.

        Raises
        ------
        StoppedError
            The run was stopped, or no slot became free in `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while True:
            self.check_not_stopped()
            try:
                slot = self._idle.get(timeout=0.5)
                break
            except queue.Empty:
                if time.monotonic() > deadline:
                    raise StoppedError from None
        try:
            self.check_not_stopped()
            self.last_used = time.monotonic()
            yield slot
        finally:
            if self._stopped.is_set():  # close() may have been and gone
                slot.discard()
            self.last_used = time.monotonic()
            self._idle.put(slot)

    @property
    def busy(self) -> bool:
        return self._idle.qsize() < len(self.slots)

    @property
    def stopped(self) -> bool:
        return self._stopped.is_set()

    def abort(self) -> None:
        """Kill all processes now; threads that wait for one return."""
        self._stopped.set()
        for slot in self.slots:
            slot.stop()

    def finish(self) -> tuple[list[LogChunk], list[tuple[str, Failed]]]:
        """Call shutdown() in every process, at the same time, and give the rest of the logs."""
        with self._closing:
            return self._finish()

    def _finish(self) -> tuple[list[LogChunk], list[tuple[str, Failed]]]:
        failures: list[tuple[str, Failed]] = []

        def end(slot: Slot) -> None:
            name = slot.process_name
            failed = slot.shutdown(self.package.shutdown_timeout)
            if failed is not None:
                failures.append((name, failed))

        aborted = self._stopped.is_set()
        self._stopped.set()
        idle = self._take_idle(len(self.slots), 0.0)
        if not aborted:
            threads = [threading.Thread(target=end, args=(slot,)) for slot in idle]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        self.abort()  # what is still at work is not wanted any more
        idle += self._take_idle(len(self.slots) - len(idle), _IDLE_WAIT)
        chunks = []
        for slot in idle:
            slot.discard()
            chunks += slot.take_last_logs()
            self._idle.put(slot)
        return chunks, failures

    def _take_idle(self, most: int, timeout: float) -> list[Slot]:
        """Take `most` slots that no thread uses, or are given back in time."""
        deadline = time.monotonic() + timeout
        taken: list[Slot] = []
        with contextlib.suppress(queue.Empty):
            while len(taken) < most:
                taken.append(self._idle.get(timeout=max(0.0, deadline - time.monotonic())))
        return taken

    def close(self) -> None:
        """Kill what is left and remove every file; again does no harm."""
        self.abort()
        if self._memory is not None:
            self._memory.close()
        with self._closing:
            for slot in self._take_idle(len(self.slots), _IDLE_WAIT):
                slot.discard()
                self._idle.put(slot)
            shutil.rmtree(self.folder, ignore_errors=True)
