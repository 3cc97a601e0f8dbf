"""The Dask worker's side of an entry process: start, init, run, stack, kill."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from daskprs.entry_process import stages
from daskprs.entry_process.conversation import Conversation, Following
from daskprs.entry_process.entry_script_api import write_facts
from daskprs.entry_process.logs import ProcessLogs
from daskprs.entry_process.progress import Progress
from daskprs.entry_process.stacks import innermost_line
from daskprs.entry_process.stages import Stage
from daskprs.entry_process.surroundings import (
    data_references,
    kill_marked,
    link_package,
    link_source,
    make_environment,
)
from daskprs.entry_process.traces import Traces
from daskprs.entry_process.wire import (
    Channel,
    Failed,
    InitDone,
    MessageError,
    MiniBatchContext,
    Rows,
    Shutdown,
    Start,
)

__all__ = ["EntryProcess", "Reply", "ScriptStart"]

_KILL_WAIT = 10.0
_ATEXIT_WAIT = 5.0
_SOCKET_BYTES = 1 << 18
_BOOT = (
    "import sys; sys.path.append(sys.argv[1]); from daskprs.entry_process.child import main; "
    "main(int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])"
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


class Reply(NamedTuple):
    """One try of one mini-batch, or of init(), as a value.

    `status` is RUN_DONE, RUN_EXCEPTION, RUN_TIMEOUT, PROCESS_DIED, LOAD_EXCEPTION,
    LOAD_TIMEOUT, OUT_OF_MEMORY, INIT_DONE, INIT_EXCEPTION, INIT_TIMEOUT or INIT_DIED. Or
    NOT_BEGUN, which is no try: the process was gone before it came to this mini-batch.
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

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.error)
        self.reply = reply


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
        self._traces = Traces(logs.stderr, folder / "stacks.txt")
        self._progress = folder / "progress"
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
            progress = Progress(self._progress, make=True)
            undo.callback(progress.close)
            ours, theirs = socket.socketpair()
            undo.callback(ours.close)
            for sock in (ours, theirs):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BYTES)
            alive, self._lifeline = os.pipe()
            undo.callback(os.close, self._lifeline)
            try:
                self._process = self._popen(theirs.fileno(), alive, work, environment)
            finally:
                theirs.close()
                os.close(alive)
            undo.pop_all()
        self._channel = Channel(ours)
        self._talk = Conversation(self._channel, progress)
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
        command += [str(channel), str(lifeline), str(self._traces.stacks), str(self._progress)]
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

    @property
    def is_ahead(self) -> bool:
        """Whether it was sent mini-batches that `run` was not called for yet."""
        return self._lifeline >= 0 and self._talk.is_ahead

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
        whole_only: bool = False,
        following: Following | None = None,
    ) -> Reply:
        """Run one mini-batch; afterwards the process is alive, or `alive` says it is not.

        Parameters
        ----------
        following : callable, optional
            Gives what the next calls will be for, so that it can be sent ahead.
        whole_only : bool
            Fewer results than items are a failure: what was sent ahead waits.
        """
        slow = max(timeout, load_timeout)
        limits = {stages.LOAD: load_timeout, stages.RUN: timeout, stages.RESULT: slow}
        talk = self._talk
        try:
            talk.ask(piece, context, load_timeout, wants_result=wants_result, whole_only=whole_only)
            if following is not None:
                talk.send_ahead(following, load_timeout)
            answer = talk.answer(limits)
        except MessageError as error:
            return Reply("LOAD_EXCEPTION", error=f"the mini-batch cannot be sent: {error}")
        except (EOFError, OSError) as error:
            return self._ended_in_run(isinstance(error, TimeoutError), limits)
        if isinstance(answer, Failed):
            status = "LOAD_EXCEPTION" if answer.stage == "load" else "RUN_EXCEPTION"
            self._traces.stderr_start = talk.step().stderr_start
            told = self._told(status, answer)
            return told._replace(total=answer.total, load_seconds=answer.load_seconds)
        return Reply(
            "RUN_DONE",
            total=answer.total,
            returned=answer.returned,
            rows=answer.rows,
            result=answer.result,
            load_seconds=answer.load_seconds,
            run_seconds=answer.run_seconds,
        )

    def _ended_in_run(self, is_late: bool, limits: Mapping[Stage, float]) -> Reply:
        step = self._talk.step()
        self._traces.stderr_start = step.stderr_start
        if not is_late and self._talk.was_not_begun():
            self.kill()
            return Reply("NOT_BEGUN")
        ended = self._late(step.stage, limits[step.stage]) if is_late else self._died(step.stage)
        seconds = step.run_seconds
        if step.stage is stages.RUN:
            seconds = time.monotonic() - step.since
        return ended._replace(
            total=step.total if step.total >= 0 else None,
            load_seconds=step.load_seconds,
            run_seconds=seconds,
        )

    def shutdown(self, timeout: float) -> Failed | None:
        """Call the script's shutdown() and end the process; what went wrong, if anything."""
        try:
            answer = self._ask(Shutdown(), timeout, stages.SHUTDOWN)
        except _EndedError as ended:
            return Failed("shutdown", ended.reply.error, ended.reply.traceback)
        self._wait_for_end(_ATEXIT_WAIT)
        self.kill()
        return answer if isinstance(answer, Failed) else None

    def _wait_for_end(self, seconds: float) -> None:
        """Wait as `Popen.wait` does, which looks up to 0.05 s later."""
        with contextlib.suppress(OSError, AttributeError):  # not every system has that
            handle = os.pidfd_open(self._process.pid)
            try:
                poll = select.poll()
                poll.register(handle, select.POLLIN)
                poll.poll(seconds * 1000)
                seconds = 0
            finally:
                os.close(handle)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)

    # Asking and being told

    def _ask(self, message: object, timeout: float, stage: Stage) -> Any:
        """Send a message and wait for the answer; without one, the process has been stopped.

        Raises
        ------
        _EndedError
        """
        self._traces.mark()
        try:
            self._channel.send(message, timeout)
            return self._channel.receive(timeout)
        except TimeoutError:
            raise _EndedError(self._late(stage, timeout)) from None
        except (EOFError, OSError):
            raise _EndedError(self._died(stage)) from None

    def _late(self, stage: Stage, limit: float) -> Reply:
        """Kill the process, which takes too long, and tell where it was."""
        stack = self._traces.stack(self._process)
        self.kill()
        error = stage.too_long.format(limit=limit)
        where = innermost_line(stack, self._start.source_directory)
        if where:
            error += f" It hung at {where}."
        return Reply(stage.timed_out, error=error, traceback=stack)

    def _died(self, stage: Stage) -> Reply:
        """Kill what is left of a process that is gone, and tell its last words."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(2)
        how = stages.how_it_ended(self._process.poll())
        self.kill()
        if self._stopped_why:
            return Reply("OUT_OF_MEMORY", error=f"{self._stopped_why}.")
        error = f"the process {how} {stage.where}."
        return Reply(stage.died, error=error, traceback=self._traces.last_words())

    def _told(self, status: str, failed: Failed) -> Reply:
        error = failed.error
        if error.startswith("SystemExit"):
            # argparse has written to stderr what is wrong; the exception has only a number.
            lines = self._traces.lines_but(failed.traceback)
            if lines:
                error = "\n".join([f"{error} ({lines[-1]})", *lines[-5:-1]])
        return Reply(status, error=error, traceback=failed.traceback, run_seconds=failed.seconds)

    # The end

    @property
    def alive(self) -> bool:
        """Whether `run` can be called: there it is told how far it came with what it was sent."""
        if self.is_ahead or self._process.poll() is None:
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
        self._talk.close()
        os.close(self._lifeline)
        self._lifeline = -1

    def remove(self) -> None:
        """Remove the private folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
