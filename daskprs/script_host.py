"""The entry processes of one Dask worker: the unpacked script, and one slot per thread."""

from __future__ import annotations

import contextlib
import io
import os
import queue
import shutil
import tempfile
import threading
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from daskprs.entry_process.host import EntryProcess, Reply, ScriptStart
from daskprs.entry_process.wire import Failed
from daskprs.gpus import visible_gpus

__all__ = ["InitGaveUpError", "LogChunk", "ScriptHost", "ScriptPackage", "Slot", "StoppedError"]

INIT_TRIES = 3
MOST_LOG_BYTES = 1 << 22  # of one stream in one answer; the rest follows with the next


@dataclass(frozen=True)
class SourcePath:
    """An argument that stands for a path inside the source directory, wherever that is."""

    relative: str


@dataclass(frozen=True)
class ScriptPackage:
    """The entry script and all that its processes have in common, ready to travel.

    Attributes
    ----------
    archive : bytes or None
        Zip of the source directory; None where `folder` can be used in place.
    """

    token: str
    script: str
    folder: str
    archive: bytes | None = field(repr=False)
    arguments: tuple[str | SourcePath, ...] = ()
    output_format: str | None = "text"
    to_csv_options: Mapping[str, Any] = field(default_factory=dict)
    logging_level: str = "INFO"
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    output_folder: str = ""
    init_timeout: float = 600.0
    process_count: int | None = None
    shutdown_timeout: float = 60.0


@dataclass(frozen=True)
class LogChunk:
    """New bytes of one log of one entry process; `kind` is the folder below logs/user."""

    kind: str
    node: str
    process: str
    data: bytes


class StoppedError(Exception):
    """The run has been stopped: nothing more is started here."""


class InitGaveUpError(Exception):
    """init() has failed in each of three fresh processes, one after another."""

    def __init__(self, reply: Reply, process: str) -> None:
        super().__init__(reply.error)
        self.reply = reply
        self.process = process


class Slot:
    """One place for an entry process; a process that is gone is replaced at the next use."""

    def __init__(self, host: ScriptHost) -> None:
        self._host = host
        self._process: EntryProcess | None = None
        self._pending: list[LogChunk] = []
        self._read: dict[Path, int] = {}
        self.inits: list[tuple[str, Reply, float]] = []

    def process(self) -> EntryProcess:
        """Return the live process, or start one and wait for its init().

        Raises
        ------
        InitGaveUpError, StoppedError
        """
        if self._process is not None and self._process.alive:
            return self._process
        for number in range(1, INIT_TRIES + 1):
            self.discard()
            self._host.check_not_stopped()
            started = time.time()
            process = self._host.start_process()
            self._process = process
            reply = process.init(self._host.package.init_timeout)
            self.inits.append((process.name, reply, started))
            if reply.ok:
                return process
            self._host.check_not_stopped()
            if number == INIT_TRIES:
                raise InitGaveUpError(reply, process.name)
        raise AssertionError("unreachable")

    def discard(self) -> None:
        """Kill the process, if there is one, and keep what it has logged."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            self._pending += self._logs_of(process, everything=True)
            self._host.ended(process)

    def kill(self) -> None:
        """Kill the process from another thread; the one that waits for it is told by EOF."""
        process = self._process
        if process is not None:
            process.kill()

    def shutdown(self, timeout: float) -> Failed | None:
        """Call the script's shutdown() in the live process, if any, and end it."""
        failed = None
        if self._process is not None and self._process.alive:
            failed = self._process.shutdown(timeout)
        self.discard()
        return failed

    def take_logs(self) -> list[LogChunk]:
        """Return what was logged since the last call."""
        chunks, self._pending = self._pending, []
        if self._process is not None:
            chunks += self._logs_of(self._process)
        return chunks

    def take_inits(self) -> list[tuple[str, Reply, float]]:
        inits, self.inits = self.inits, []
        return inits

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    @property
    def process_name(self) -> str:
        return "" if self._process is None else self._process.name

    def _logs_of(self, process: EntryProcess, everything: bool = False) -> list[LogChunk]:
        kinds = {
            "stdout": process.stdout,
            "stderr": process.stderr,
            "entry_script_log": process.script_log,
        }
        chunks = []
        for kind, path in kinds.items():
            with contextlib.suppress(OSError), path.open("rb") as stream:
                stream.seek(self._read.get(path, 0))
                while data := stream.read(MOST_LOG_BYTES):
                    chunks.append(LogChunk(kind, self._host.node, process.name, data))
                    self._read[path] = stream.tell()
                    if not everything:
                        break
        return chunks


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
    """

    def __init__(
        self, package: ScriptPackage, *, node: str, ip: str, threads: int, folder: str | None = None
    ) -> None:
        self.package = package
        self.node, self.ip = node, ip
        self.folder = Path(tempfile.mkdtemp(prefix="daskprs-", dir=folder))
        self._gpus = visible_gpus()
        self._free_gpus = list(self._gpus)
        self._lock = threading.Lock()
        self._started = 0
        self._stopped = threading.Event()
        self._start = self._unpack()
        count = threads
        if package.process_count is not None:
            count = min(threads, package.process_count)
        self.slots = [Slot(self) for _ in range(count)]
        self._idle: queue.SimpleQueue[Slot] = queue.SimpleQueue()
        for slot in self.slots:
            self._idle.put(slot)
        self.last_used = time.monotonic()

    def _unpack(self) -> ScriptStart:
        package = self.package
        source = Path(package.folder)
        if package.archive is not None:
            source = self.folder / "source"
            with zipfile.ZipFile(io.BytesIO(package.archive)) as bundle:
                bundle.extractall(source)
        arguments = [
            str(source / a.relative) if isinstance(a, SourcePath) else a for a in package.arguments
        ]
        return ScriptStart(
            script=str(source / package.script),
            source_directory=str(source),
            arguments=arguments,
            output_format=package.output_format,
            to_csv_options=package.to_csv_options,
            logging_level=package.logging_level,
            environment=package.environment,
            output_folder=package.output_folder,
        )

    def check_not_stopped(self) -> None:
        if self._stopped.is_set():
            raise StoppedError

    def start_process(self) -> EntryProcess:
        with self._lock:
            number, self._started = self._started, self._started + 1
            gpu = self._free_gpus.pop(0) if self._free_gpus else None
        process = EntryProcess(
            self._start,
            self.folder / f"process{number:03d}",
            number,
            self.node,
            gpu=gpu,
            has_gpus=bool(self._gpus),
        )
        if self._stopped.is_set():  # stop() may have looked before this process was there
            process.kill()
        return process

    def ended(self, process: EntryProcess) -> None:
        """Take back the GPU and the folder of a process that is gone."""
        with self._lock:
            if process.gpu is not None:
                self._free_gpus.append(process.gpu)
                self._free_gpus.sort(key=self._gpus.index)
        process.remove()

    @contextlib.contextmanager
    def slot(self, timeout: float) -> Any:
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
            self.last_used = time.monotonic()
            yield slot
        finally:
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
            slot.kill()

    def finish(self) -> tuple[list[LogChunk], list[tuple[str, Failed]]]:
        """Call shutdown() in every process, at the same time, and give the rest of the logs."""
        failures: list[tuple[str, Failed]] = []

        def end(slot: Slot) -> None:
            name = slot.process_name
            failed = slot.shutdown(self.package.shutdown_timeout)
            if failed is not None:
                failures.append((name, failed))

        call = not self._stopped.is_set()
        self._stopped.set()
        if call:
            threads = [threading.Thread(target=end, args=(slot,)) for slot in self.slots]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(self.package.shutdown_timeout + 20)
        chunks = [chunk for slot in self.slots for chunk in slot.take_logs()]
        return chunks, failures

    def close(self) -> None:
        """Kill what is left and remove every file."""
        self.abort()
        deadline = time.monotonic() + 10
        while self.busy and time.monotonic() < deadline:
            time.sleep(0.01)
        for slot in self.slots:
            slot.discard()
        shutil.rmtree(self.folder, ignore_errors=True)

