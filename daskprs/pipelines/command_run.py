"""CommandRun: a command in the background, which ends when it is canceled, or with us."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from html import escape
from pathlib import Path
from typing import IO, Any

from daskprs.exceptions import EntryScriptError, RunCanceledError, RunFailedError
from daskprs.pipelines import keeper
from daskprs.redaction import Secrets
from daskprs.waiting import wait_for

__all__ = ["Call", "Command", "CommandReport", "CommandRun", "last_words"]

_SHOWN_LINES = 20
_SHOWN_BYTES = 16_000
_TRACEBACK = "Traceback (most recent call last):"
_CHAINS = ("During handling of the above exception", "The above exception was the direct cause")


@dataclass(frozen=True)
class Call:
    """What is started.

    Attributes
    ----------
    text : str
        For bash.
    folder, lock : Path
        Where it runs; the file that only one at a time holds.
    variables : mapping
        Environment variables besides ours.
    scratch : Path or None
        A private folder, by which all that it starts is known.
    """

    text: str
    folder: Path
    lock: Path
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    scratch: Path | None = None


class Command(ABC):
    """A command, and what is done before and after it.

    Attributes
    ----------
    name : str
    log : Path
        Where its output goes.
    timeout : float or None
        Seconds.
    words : tuple of str
        What it is part of, what it is, and how the timeout is called.
    """

    name: str
    log: Path
    timeout: float | None
    words: tuple[str, str, str]

    @property
    def log_place(self) -> str:
        """Where a person finds the log."""
        return str(self.log)

    @abstractmethod
    def is_done(self) -> bool:
        """Say whether what it would do has been done."""

    @abstractmethod
    def begin(self) -> Call:
        """Make ready what it needs."""

    @abstractmethod
    def finish(self) -> None:
        """Do what is to be done when it has succeeded."""

    @abstractmethod
    def close(self) -> None:
        """Do what is to be done when it has ended, however that was."""

    @abstractmethod
    def outputs(self) -> dict[str, str]:
        """Tell where its outputs are."""


@dataclass(frozen=True)
class CommandReport:
    """What a command has done.

    Attributes
    ----------
    status : str
        Running, Completed, Failed or Canceled.
    reused : bool
        Nothing was run: what it would do has been done.
    seconds : float
    outputs : mapping
        Names to places.
    log : str
    """

    status: str
    reused: bool
    seconds: float
    outputs: Mapping[str, str]
    log: str

    def facts(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[tuple[str, str]]:
        """Return it as (word, value)."""
        lines = [("Status", self.status + (" (reused)" if self.reused else ""))]
        lines.append(("Time", f"{self.seconds:.1f} s"))
        lines += [("Output", f"{name}: {place}") for name, place in self.outputs.items()]
        return [*lines, ("Log", self.log)]

    def __str__(self) -> str:
        return "\n".join(f"{word:<13} {value}" for word, value in self.lines())

    def _repr_html_(self) -> str:
        rows = [f"<tr><td>{word}</td><td>{escape(text)}</td></tr>" for word, text in self.lines()]
        return f"<table>{''.join(rows)}</table>"


class CommandRun:
    """A command in the background.

    Parameters
    ----------
    command : Command
    secrets : Secrets
        To be kept out of its log.

    Attributes
    ----------
    status : str
        Running, Completed, Failed or Canceled.
    """

    def __init__(self, command: Command, secrets: Secrets) -> None:
        self.command, self.status, self._secrets = command, "Running", secrets
        self._is_reused, self._seconds = False, 0.0
        self._error: BaseException | None = None
        self._ended, self._canceled = threading.Event(), threading.Event()
        self._thread = threading.Thread(
            target=self._work, name=f"daskprs-command-{command.name}", daemon=True
        )
        self._thread.start()

    @property
    def report(self) -> CommandReport:
        command = self.command
        return CommandReport(
            self.status, self._is_reused, self._seconds, command.outputs(), command.log_place
        )

    def cancel(self) -> None:
        """Stop the command."""
        self._canceled.set()

    def wait_for_completion(
        self, show_output: bool = False, timeout: float | None = None, raise_on_error: bool = True
    ) -> str:
        """Wait until it has ended; see `ParallelRun.wait_for_completion`."""
        if show_output and not self._ended.is_set():
            sys.stderr.write(f"{self.command.name}: Running\n")
        if not wait_for(self._ended, timeout):
            raise TimeoutError(f"the command {self.command.name!r} has not ended in time.")
        if show_output:
            how = "reused" if self._is_reused else f"{self._seconds:.1f} s"
            sys.stderr.write(f"{self.command.name}: {self.status} ({how})\n")
        if self._error is not None and raise_on_error:
            raise self._error.with_traceback(None) from None
        return self.status

    # The thread

    def _work(self) -> None:
        began = time.monotonic()
        try:
            self._run()
            status = "Completed"
        except BaseException as error:  # whoever waits has to be told
            self._error = error
            status = "Canceled" if isinstance(error, RunCanceledError) else "Failed"
        self._seconds = time.monotonic() - began
        self.status = status
        self._ended.set()

    def _run(self) -> None:
        command = self.command
        if command.is_done():
            self._is_reused = True
            return
        try:
            call = command.begin()
            command.log.parent.mkdir(parents=True, exist_ok=True)
            with command.log.open("wb") as stream:
                code = self._call(call, stream)
            if self._canceled.is_set():
                raise RunCanceledError(f"the {command.words[0]} {command.name!r} was canceled.")
            if code != 0:
                raise self._failed(code)
            command.finish()
        finally:
            with contextlib.suppress(OSError):
                _hide_in_file(command.log, self._secrets)
            command.close()

    def _call(self, call: Call, log: IO[bytes]) -> int:
        command = self.command
        # Isolated: the code of the user may have modules of any name.
        start = [sys.executable, "-I", keeper.__file__]
        # `python` in a command is the one that runs this.
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        process = subprocess.Popen(
            [*start, str(call.lock), call.text, *([str(call.scratch)] if call.scratch else ())],
            cwd=call.folder,
            env={**os.environ, "PATH": path, **call.variables},
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for us, who tell it in order
        )
        assert process.stdin is not None
        deadline = None if command.timeout is None else time.monotonic() + command.timeout
        try:
            while process.poll() is None:
                if self._canceled.is_set() or (deadline and time.monotonic() > deadline):
                    process.stdin.close()
                    process.wait()
                    break
                self._canceled.wait(0.02)
        finally:
            process.stdin.close()
            code = process.wait()
        if deadline is not None and time.monotonic() > deadline and code != 0:
            whole, part, limit = command.words
            raise RunFailedError(
                f"the {whole} {command.name!r} was stopped: its {part} took longer than "
                f"{limit}={command.timeout:g} s. Its output is in {command.log_place}."
            )
        return code

    def _failed(self, code: int) -> RunFailedError:
        whole, part, _ = self.command.words
        message = (
            f"the {whole} {self.command.name!r} has failed: its {part} ended with exit code "
            f"{code}. Its output is in {self.command.log_place}."
        )
        return EntryScriptError(message, script_traceback=last_words(self.command.log))


def last_words(log: Path) -> str:
    """Return the traceback at the end of a log; the last lines where there is none."""
    with contextlib.suppress(OSError), log.open("rb") as stream:
        stream.seek(max(0, stream.seek(0, os.SEEK_END) - _SHOWN_BYTES))
        lines = stream.read().decode("utf-8", "replace").splitlines()
        starts = [number for number, line in enumerate(lines) if line == _TRACEBACK]
        if not starts:
            return "\n".join(lines[-_SHOWN_LINES:])
        first = starts.pop()
        while starts and lines[first - 2].startswith(_CHAINS):
            first = starts.pop()
        return "\n".join(lines[first:])
    return ""


def _hide_in_file(path: Path, secrets: Secrets) -> None:
    """Take secrets out of a log that a command has written, line by line."""
    if not secrets or not path.exists():
        return
    fresh = path.with_name(f"{path.name}.hidden")
    with path.open("rb") as source, fresh.open("wb") as sink:
        sink.writelines(map(secrets.hide_bytes, source))
    os.replace(fresh, path)
