"""The Dask worker's side of an entry process: start, init, run, stack, kill."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from daskprs.entry_process.wire import (
    Channel,
    Done,
    Failed,
    InitDone,
    Loaded,
    MiniBatchContext,
    Rows,
    Run,
    Shutdown,
    Start,
)

__all__ = ["EntryProcess", "Reply", "ScriptStart"]

# Reading the answer of a healthy process takes milliseconds; this is for a stopped machine.
_STACK_WAIT = 1.0
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


@dataclass(frozen=True)
class Reply:
    """One try of one mini-batch, or of init(), as a value.

    `status` is RUN_DONE, RUN_EXCEPTION, RUN_TIMEOUT, PROCESS_DIED, LOAD_EXCEPTION,
    LOAD_TIMEOUT, INIT_DONE, INIT_EXCEPTION, INIT_TIMEOUT or INIT_DIED.
    """

    status: str
    total: int | None = None
    returned: int = 0
    rows: Rows | None = None
    error: str = ""
    traceback: str = ""
    load_seconds: float = 0.0
    run_seconds: float = 0.0

    @property
    def ok(self) -> bool:
        return self.status in ("RUN_DONE", "INIT_DONE")


class EntryProcess:
    """One process with the user's script in it.

    Parameters
    ----------
    start : ScriptStart
    folder : Path
        Private to this process; made here, and removed by `remove`.
    number : int
        Counts the processes of a node; the ``NNN`` of its log files.
    node : str
    gpu : str or None
        Value of ``CUDA_VISIBLE_DEVICES``; None leaves it unset where `has_gpus`.
    has_gpus : bool
    """

    def __init__(
        self,
        start: ScriptStart,
        folder: Path,
        number: int,
        node: str,
        *,
        gpu: str | None = None,
        has_gpus: bool = False,
    ) -> None:
        self.number = number
        self.name = f"process{number:03d}"
        self.folder = folder
        self.gpu = gpu
        self.stdout, self.stderr = folder / "stdout.txt", folder / "stderr.txt"
        self.script_log, self._stacks = folder / "entry_script_log.txt", folder / "stacks.txt"
        work = folder / "work"
        work.mkdir(parents=True)
        _link_source(Path(start.source_directory), work)
        ours, theirs = socket.socketpair()
        alive, self._lifeline = os.pipe()
        environment = _environment(start, gpu, has_gpus)
        with self.stdout.open("wb") as out, self.stderr.open("wb") as err:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-P", "-c", _BOOT, _PACKAGE_PARENT),
                    *(str(theirs.fileno()), str(alive), str(self._stacks)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=work,
                env=environment,
                pass_fds=(theirs.fileno(), alive),
                start_new_session=True,  # Ctrl-C is for the driver; a kill takes the whole group
            )
        theirs.close()
        os.close(alive)
        self._channel = Channel(ours)
        facts = {
            "log_dir": str(folder / "user_logs"),
            "log_file": str(self.script_log),
            "agent_name": f"{node}-{self.name}",
            "working_dir": str(work),
            "output_dir": start.output_folder,
            "logging_level": start.logging_level,
        }
        self._start = Start(
            script=start.script,
            source_directory=start.source_directory,
            arguments=list(start.arguments),
            output_format=start.output_format,
            scratch=str(folder / "fetched"),
            to_csv_options=dict(start.to_csv_options),
            logging_level=start.logging_level,
            facts=facts,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def init(self, timeout: float) -> Reply:
        """Import the script and call init(), once, before the first mini-batch."""
        try:
            self._channel.send(self._start)
            answer = self._channel.receive(timeout)
        except TimeoutError:
            stack = self.stack()
            self.kill()
            error = f"init() did not return within init_timeout={timeout:g} s; it was stopped."
            return Reply("INIT_TIMEOUT", error=error, traceback=stack)
        except (EOFError, OSError):
            return self._died("INIT_DIED", "while importing the script or in init()")
        if isinstance(answer, InitDone):
            return Reply("INIT_DONE", run_seconds=answer.seconds)
        self.kill()
        return self._told("INIT_EXCEPTION", answer)

    def run(
        self, piece: object, context: MiniBatchContext, *, load_timeout: float, timeout: float
    ) -> Reply:
        """Run one mini-batch; afterwards the process is alive, or `alive` says it is not."""
        try:
            self._channel.send(Run(piece, context))
            answer = self._channel.receive(load_timeout)
        except TimeoutError:
            stack = self.stack()
            self.kill()
            error = f"the mini-batch could not be loaded within {load_timeout:g} s."
            return Reply("LOAD_TIMEOUT", error=error, traceback=stack)
        except (EOFError, OSError):
            return self._died("PROCESS_DIED", "while loading the mini-batch")
        if isinstance(answer, Failed):
            return self._told("LOAD_EXCEPTION", answer)
        loaded: Loaded = answer
        known = Reply("", total=loaded.total, load_seconds=loaded.seconds)
        began = time.perf_counter()
        try:
            answer = self._channel.receive(timeout)
        except TimeoutError:
            stack = self.stack()
            self.kill()
            error = (
                f"run() did not return within run_invocation_timeout={timeout:g} s; "
                "its process was stopped."
            )
            seconds = time.perf_counter() - began
            return replace(
                known, status="RUN_TIMEOUT", error=error, traceback=stack, run_seconds=seconds
            )
        except (EOFError, OSError):
            died = self._died("PROCESS_DIED", "in run()")
            seconds = time.perf_counter() - began
            return replace(
                known, status=died.status, error=died.error, traceback=died.traceback,
                run_seconds=seconds,
            )
        if isinstance(answer, Failed):
            told = self._told("RUN_EXCEPTION", answer)
            return replace(told, total=loaded.total, load_seconds=loaded.seconds)
        done: Done = answer
        return replace(
            known,
            status="RUN_DONE",
            returned=done.returned,
            rows=done.rows,
            run_seconds=done.seconds,
        )

    def shutdown(self, timeout: float) -> Failed | None:
        """Call the script's shutdown() and end the process; what went wrong, if anything."""
        try:
            self._channel.send(Shutdown())
            answer = self._channel.receive(timeout)
            self._process.wait(5)
        except TimeoutError:
            stack = self.stack()
            return Failed("shutdown", f"shutdown() did not return within {timeout:g} s", stack)
        except (EOFError, OSError, subprocess.TimeoutExpired):
            return None
        finally:
            self.kill()
        return answer if isinstance(answer, Failed) else None

    def _told(self, status: str, failed: Failed) -> Reply:
        error = failed.error
        if error.startswith("SystemExit"):
            # argparse has written to stderr what is wrong; the exception has only a number.
            error = "\n".join([*self._stderr_lines(failed.traceback), error])
        return Reply(
            status, error=error, traceback=failed.traceback, run_seconds=failed.seconds
        )

    def _stderr_lines(self, printed: str) -> list[str]:
        text = self._tail(self.stderr).replace(printed.rstrip(), "")
        return [line for line in text.splitlines() if line.strip()][-5:]

    def _died(self, status: str, where: str) -> Reply:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(2)
        code = self._process.poll()
        self.kill()
        if code is None:
            how = "closed its connection"
        elif code >= 0:
            how = f"ended with exit code {code}"
        else:
            how = f"was killed by {_signal_name(-code)}"
            if -code == signal.SIGKILL:
                how += " (often: the machine was out of memory)"
        tail = self._tail(self.stderr)
        return Reply(status, error=f"the process {how} {where}.", traceback=tail)

    @staticmethod
    def _tail(path: Path) -> str:
        with contextlib.suppress(OSError), path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - _STDERR_TAIL))
            return stream.read().decode("utf-8", "replace")
        return ""

    def stack(self) -> str:
        """Have the process write where it is, also while C code holds the GIL."""
        with contextlib.suppress(OSError):
            self._process.send_signal(signal.SIGUSR1)
        deadline = time.monotonic() + _STACK_WAIT
        text, before = "", None
        while time.monotonic() < deadline and (not text or text != before):
            before = text
            time.sleep(0.05)
            text = self._stacks.read_text("utf-8", "replace")
        return _without_our_frames(text) or "(the process did not tell its stack)"

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """End the process and all that it started; again does no harm."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        if self._process.poll() is None:
            self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        self._channel.close()
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1

    def remove(self) -> None:
        """Remove the private folder, logs too."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _environment(start: ScriptStart, gpu: str | None, has_gpus: bool) -> dict[str, str]:
    environment = {
        **os.environ,
        "AZUREML_BI_OUTPUT_PATH": start.output_folder,
        "PYTHONIOENCODING": "utf-8",
        **start.environment,
    }
    if has_gpus:
        environment.pop("CUDA_VISIBLE_DEVICES", None)
        if gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = gpu
    return environment


def _link_source(source: Path, work: Path, most: int = 200) -> None:
    """Let names beside the script be opened by a relative path, from the private folder."""
    entries = [e for e in os.scandir(source) if not e.name.startswith((".", "__pycache__"))]
    if len(entries) <= most:
        for entry in entries:
            (work / entry.name).symlink_to(entry.path)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _without_our_frames(text: str) -> str:
    """Keep the thread that runs the script, down to the script's own frames."""
    threads = [part for part in text.split("\n\n") if part.strip()]
    ours = f'File "{Path(__file__).parent}'
    main = [part for part in threads if f"{ours}{os.sep}child.py" in part and "lifeline" not in part]
    chosen = [part for part in main if " in watch" not in part] or threads
    lines = [line for part in chosen for line in part.splitlines()]
    kept = [line for line in lines if ours not in line and 'File "<string>"' not in line]
    return "\n".join(kept)
