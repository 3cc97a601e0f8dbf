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

from daskprs.entry_process.host import EntryProcess, ScriptStart
from daskprs.entry_process.logs import LogChunk, ProcessLogs
from daskprs.entry_process.wire import Failed
from daskprs.entry_script import unpack
from daskprs.gpus import visible_gpus
from daskprs.memory_watch import MemoryWatch
from daskprs.script_package import ScriptPackage, SourcePath
from daskprs.side_inputs import MODELS, SidePath, models_text
from daskprs.slots import InitGaveUpError, Slot, StoppedError

__all__ = [
    "InitGaveUpError",
    "LogChunk",
    "ScriptHost",
    "ScriptPackage",
    "Slot",
    "SourcePath",
    "StoppedError",
]

_IDLE_WAIT = 10.0  # a thread whose process has been killed gives its slot back in milliseconds
_IDLE_POLL = 0.02
_DISK_BYTES = 1 << 16


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
        self._early: queue.SimpleQueue[Slot] = queue.SimpleQueue()
        self._early_left = 0  # not claimed yet; they may still be on their way into the queue
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

    def disk_trouble(self) -> str:
        """Say why processes cannot write what they need to start; "" where they can."""
        try:
            with tempfile.TemporaryFile(dir=self.folder) as stream:
                stream.write(bytes(_DISK_BYTES))
                stream.flush()
        except OSError as error:
            return (
                f"the temporary folder {self.folder.parent} cannot be written to ({error}): make "
                "room there, or set the environment variable TMPDIR to another one."
            )
        return ""

    @contextlib.contextmanager
    def slot(self, timeout: float) -> Iterator[Slot]:
        """Lend a slot that no other thread uses.

        Raises
        ------
        StoppedError
            The run was stopped, or no slot became free in `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        with self._lock:
            is_early = self._early_left > 0
            self._early_left -= is_early
        free = self._early if is_early else self._idle
        while True:
            self.check_not_stopped()
            try:
                slot = free.get(timeout=0.5)
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

    def start_early(self, count: int) -> None:
        """Begin to start processes in so many of the slots, which are lent first."""

        def start(slot: Slot) -> None:
            try:
                with contextlib.suppress(StoppedError):
                    slot.start_early()
            finally:
                if self._stopped.is_set():
                    slot.discard()
                self._early.put(slot)

        slots = self._take_idle(count, 0.0)
        self._early_slots = slots
        self._early_left = len(slots)
        for slot in slots:
            threading.Thread(target=start, args=(slot,), name="daskprs-early").start()

    @property
    def are_started(self) -> bool:
        """Whether each slot that starts early has a process, which may be gone."""
        return all(slot.current is not None for slot in self._early_slots)

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
        while len(taken) < most:
            left = max(0.0, deadline - time.monotonic())
            free = self._idle if self._early.empty() else self._early
            try:
                taken.append(free.get(timeout=min(left, _IDLE_POLL)))
            except queue.Empty:
                if not left:
                    break
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
