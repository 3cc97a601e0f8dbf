"""One place for an entry process: it is started when it is needed, and replaced when it is gone."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from daskprs.entry_process.host import EntryProcess, Reply
from daskprs.entry_process.logs import LogChunk, ProcessLogs
from daskprs.entry_process.wire import Failed

if TYPE_CHECKING:
    from daskprs.script_host import ScriptHost

__all__ = ["INIT_TRIES", "InitGaveUpError", "Slot", "StoppedError"]

INIT_TRIES = 3


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
        self._gave_up: InitGaveUpError | None = None

    def process(self) -> EntryProcess:
        """Return the live process, or start one and wait for its init().

        Raises
        ------
        InitGaveUpError, StoppedError
        """
        if self._process is not None and self._process.alive:
            return self._process
        if self._gave_up is not None:
            error, self._gave_up = self._gave_up, None
            raise error
        for _ in range(INIT_TRIES):
            self.discard()
            self._host.check_not_stopped()
            name, reply = self._start()
            self._host.check_not_stopped()
            if reply.ok and self._process is not None:
                return self._process
        raise InitGaveUpError(reply, name)

    def start_early(self) -> None:
        """Start a process before there is work for it; the first to ask is told of a failure."""
        try:
            self.process()
        except InitGaveUpError as error:
            self._gave_up = error

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
            if reply.status == "INIT_DIED" and (trouble := self._host.disk_trouble()):
                reply = reply._replace(error=trouble)
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
