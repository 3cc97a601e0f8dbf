"""The Dask worker's side of an entry process: start, init, run, stack, kill."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from daskprs.entry_process import stages
from daskprs.entry_process.entry_script_api import write_facts
from daskprs.entry_process.logs import ProcessLogs
from daskprs.entry_process.stacks import format_stacks, innermost_line
from daskprs.entry_process.stages import Stage
from daskprs.entry_process.surroundings import (
    data_references,
    kill_marked,
    link_package,
    link_source,
    make_environment,
)
from daskprs.entry_process.wire import (
    Channel,
    Done,
    Failed,
    InitDone,
    Loaded,
    MessageError,
    MiniBatchContext,
    Returned,
    Rows,
    Run,
    Shutdown,
    Start,
)

__all__ = ["EntryProcess", "Reply", "ScriptStart"]

# A healthy process tells its stack in milliseconds; this is for a machine that is overloaded.
_STACK_WAIT = 1.0
_KILL_WAIT = 10.0
_ATEXIT_WAIT = 5.0
_STDERR_TAIL = 4000
_BOOT = (
    "import sys; sys.path.append(sys.argv[1]); from daskprs.entry_process.child import main; "
    "main(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])"
)
_PACKAGE_PARENT = str(Path(__file__).parents[2])


@dataclass(frozen=True)
class ScriptStart:
    """What every entry process of a run has in common."""

    script: str
    source_directory: str
    arguments: Sequence[str]
    output_format: str | None
    to_csv_options: Mapping[str, Any]
    logging_level: str
    environment: Mapping[str, str]
    output_folder: str
    run_id: str = ""
    side_inputs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Reply:
    """One try of one mini-batch, or of init(), as a value.

    `status` is RUN_DONE, RUN_EXCEPTION, RUN_TIMEOUT, PROCESS_DIED, LOAD_EXCEPTION,
    LOAD_TIMEOUT, OUT_OF_MEMORY, INIT_DONE, INIT_EXCEPTION, INIT_TIMEOUT or INIT_DIED.
    """

    status: str
    total: int | None = None
    returned: int = 0
    rows: Rows | None = None
    result: bytes | None = None
    error: str = ""
    traceback: str = ""
    load_seconds: float = 0.0
    run_seconds: float = 0.0

    @property
    def ok(self) -> bool:
        return self.status in ("RUN_DONE", "INIT_DONE")


class _EndedError(Exception):
    """The process has been stopped, or is gone, instead of answering."""

    def __init__(self, status: str, error: str, traceback: str) -> None:
        super().__init__(error)
        self.reply = Reply(status, error=error, traceback=traceback)


class EntryProcess:
    """One process with the user's script in it; used by one thread at a time.

    Parameters
    ----------
    start : ScriptStart
    folder : Path
        Private to this process; made here, and removed by `remove`.
    logs : ProcessLogs
        Where its output goes.
    name : str
    gpu : str or None
        Value of ``CUDA_VISIBLE_DEVICES``; None leaves it unset where `has_gpus`.
    has_gpus : bool

    Raises
    ------
    OSError
        The machine cannot start another process: nothing is left of this one.
    """

    def __init__(
        self,
        start: ScriptStart,
        folder: Path,
        logs: ProcessLogs,
        name: str,
        *,
        gpu: str | None = None,
        has_gpus: bool = False,
    ) -> None:
        self.name, self.folder, self.logs, self.gpu = name, folder, logs, gpu
        self._stacks = folder / "stacks.txt"
        self._stderr_start = 0
        self._stop_lock = threading.Lock()
        self._stopped = False
        self._stopped_why = ""
        work = folder / "work"
        script, source = Path(start.script), Path(start.source_directory)
        given = {**data_references(start.side_inputs), **start.environment}
        environment = make_environment(folder, given, start.output_folder, gpu, has_gpus)
        with contextlib.ExitStack() as undo:
            undo.callback(self.remove)
            work.mkdir(parents=True)
            link_source(script.parent, source, work)
            link_package(source, folder)
            facts = {
                "log_dir": str(folder / "user_logs"),
                "log_file": str(logs.entry_script_log),
                "metrics_file": str(logs.metrics),
                "run_id": start.run_id,
                "side_inputs": dict(start.side_inputs),
                "agent_name": f"{logs.node}-{name}",
                "working_dir": str(work),
                "output_dir": start.output_folder,
                "logging_level": start.logging_level,
            }
            write_facts(folder, facts)
            ours, theirs = socket.socketpair()
            undo.callback(ours.close)
            alive, self._lifeline = os.pipe()
            undo.callback(os.close, self._lifeline)
            try:
                self._process = self._popen(theirs.fileno(), alive, work, environment)
            finally:
                theirs.close()
                os.close(alive)
            undo.pop_all()
        self._channel = Channel(ours)
        self._start = Start(
            script=start.script,
            source_directory=start.source_directory,
            arguments=list(start.arguments),
            output_format=start.output_format,
            scratch=str(folder / "fetched"),
            to_csv_options=dict(start.to_csv_options),
            logging_level=start.logging_level,
        )

    def _popen(
        self, channel: int, lifeline: int, work: Path, environment: Mapping[str, str]
    ) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-P", "-c", _BOOT, _PACKAGE_PARENT]
        command += [str(channel), str(lifeline), str(self._stacks)]
        with self.logs.stdout.open("ab") as out, self.logs.stderr.open("ab") as err:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=work,
                env=environment,
                pass_fds=(channel, lifeline),
                start_new_session=True,  # Ctrl-C is for the driver; a kill takes the whole group
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def init(self, timeout: float) -> Reply:
        """Import the script and call init(), once, before the first mini-batch."""
        try:
            answer = self._ask(self._start, timeout, stages.INIT)
        except _EndedError as ended:
            return ended.reply
        if isinstance(answer, InitDone):
            return Reply("INIT_DONE", run_seconds=answer.seconds)
        self.kill()
        return self._told("INIT_EXCEPTION", answer)

    def run(
        self,
        piece: object,
        context: MiniBatchContext,
        *,
        load_timeout: float,
        timeout: float,
        wants_result: bool = False,
    ) -> Reply:
        """Run one mini-batch; afterwards the process is alive, or `alive` says it is not."""
        known, began = Reply(""), 0.0
        try:
            answer = self._ask(Run(piece, context, wants_result), load_timeout, stages.LOAD)
            if isinstance(answer, Failed):
                return self._told("LOAD_EXCEPTION", answer)
            loaded: Loaded = answer
            known = Reply("", total=loaded.total, load_seconds=loaded.seconds)
            began = time.perf_counter()
            answer = self._answer(timeout, stages.RUN)
            if isinstance(answer, Returned):
                known = replace(known, returned=answer.count, run_seconds=answer.seconds)
                answer = self._answer(max(timeout, load_timeout), stages.RESULT)
        except MessageError as error:
            return Reply("LOAD_EXCEPTION", error=f"the mini-batch cannot be sent: {error}")
        except _EndedError as ended:
            seconds = time.perf_counter() - began if began else 0.0
            return replace(
                ended.reply,
                total=known.total,
                load_seconds=known.load_seconds,
                run_seconds=known.run_seconds or seconds,
            )
        if isinstance(answer, Failed):
            told = self._told("RUN_EXCEPTION", answer)
            return replace(told, total=known.total, load_seconds=known.load_seconds)
        done: Done = answer
        return replace(known, status="RUN_DONE", rows=done.rows, result=done.result)

    def shutdown(self, timeout: float) -> Failed | None:
        """Call the script's shutdown() and end the process; what went wrong, if anything."""
        try:
            answer = self._ask(Shutdown(), timeout, stages.SHUTDOWN)
        except _EndedError as ended:
            return Failed("shutdown", ended.reply.error, ended.reply.traceback)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_ATEXIT_WAIT)
        self.kill()
        return answer if isinstance(answer, Failed) else None

    # Asking and being told

    def _ask(self, message: object, timeout: float, stage: Stage) -> Any:
        self._stderr_start = _size(self.logs.stderr)
        return self._answer(timeout, stage, message)

    def _answer(self, timeout: float, stage: Stage, message: object = None) -> Any:
        """Wait for the next message; where there is none, the process has been stopped.

        Raises
        ------
        _EndedError
        """
        try:
            if message is not None:
                self._channel.send(message, timeout)
            return self._channel.receive(timeout)
        except TimeoutError:
            stack = self.stack()
            self.kill()
            error = stage.too_long.format(limit=timeout)
            where = innermost_line(stack, self._start.source_directory)
            if where:
                error += f" It hung at {where}."
            raise _EndedError(stage.timed_out, error, stack) from None
        except (EOFError, OSError):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(2)
            how = stages.how_it_ended(self._process.poll())
            self.kill()
            if self._stopped_why:
                raise _EndedError("OUT_OF_MEMORY", f"{self._stopped_why}.", "") from None
            error = f"the process {how} {stage.where}."
            raise _EndedError(stage.died, error, self._last_words()) from None

    def _told(self, status: str, failed: Failed) -> Reply:
        error = failed.error
        if error.startswith("SystemExit"):
            # argparse has written to stderr what is wrong; the exception has only a number.
            printed = self._stderr_tail(len(failed.traceback)).replace(failed.traceback, "")
            lines = [line for line in printed.splitlines() if line.strip()]
            if lines:
                error = "\n".join([f"{error} ({lines[-1]})", *lines[-5:-1]])
        return Reply(status, error=error, traceback=failed.traceback, run_seconds=failed.seconds)

    def _last_words(self) -> str:
        parts = (self._stacks_since(0).rstrip(), self._stderr_tail().rstrip())
        return "\n\n".join(part for part in parts if part)

    def _stderr_tail(self, more: int = 0) -> str:
        """What was written to stderr since the process was last asked; only its end if long."""
        with contextlib.suppress(OSError), self.logs.stderr.open("rb") as stream:
            end = stream.seek(0, os.SEEK_END)
            stream.seek(max(self._stderr_start, end - _STDERR_TAIL - more))
            return stream.read().decode("utf-8", "replace")
        return ""

    def stack(self) -> str:
        """Have the process write where it is, also while C code holds the GIL."""
        start = _size(self._stacks)
        with contextlib.suppress(OSError):
            self._process.send_signal(signal.SIGUSR1)
        deadline = time.monotonic() + _STACK_WAIT
        size = before = start
        while time.monotonic() < deadline and (size == start or size != before):
            time.sleep(0.05)
            before, size = size, _size(self._stacks)
        return self._stacks_since(start) or "(the process did not tell its stack)"

    def _stacks_since(self, start: int) -> str:
        try:
            with self._stacks.open("rb") as stream:
                main_thread = int(stream.readline(), 16)
                stream.seek(start)
                return format_stacks(stream.read().decode("utf-8", "replace"), main_thread)
        except (OSError, ValueError):  # it has not come so far as to make the file
            return ""

    # The end

    @property
    def alive(self) -> bool:
        if self._process.poll() is None:
            return True
        self.stop()  # what it has started may still be there
        return False

    def stop(self, why: str = "") -> None:
        """Kill the process and its group, from any thread, without waiting."""
        with self._stop_lock:
            if self._stopped:  # its number may be that of another process by now
                return
            self._stopped = True
            self._stopped_why = why
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            if self._process.poll() is None:
                self._process.kill()
            self._channel.interrupt()

    def kill(self) -> None:
        """End the process and all that it started, from the thread that uses it."""
        self.stop()
        if self._lifeline < 0:
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_KILL_WAIT)
        kill_marked(self.folder)
        self._channel.close()
        os.close(self._lifeline)
        self._lifeline = -1

    def remove(self) -> None:
        """Remove the private folder."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
