"""CommandRun: a command in the background, and the record of what it has done."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from daskprs.exceptions import EntryScriptError, OutputError, RunCanceledError, RunFailedError
from daskprs.json_text import json_text
from daskprs.output_folder import OutputFolder
from daskprs.wording import counted
from daskprs.yaml_jobs import keeper
from daskprs.yaml_jobs.file_states import code_state, folder_state

__all__ = ["Command", "CommandRun"]

LOG = "logs/std_log.txt"
_RECORD = "command.json"
_SHOWN_LINES = 20
_SHOWN_BYTES = 8000


@dataclass(frozen=True)
class Command:
    """A command with its paths filled in.

    Attributes
    ----------
    folder : Path
        Of the job.
    code : Path or None
        Where it runs.
    root : Path
        Of all outputs: no part of the code.
    outputs : mapping
        Paths of the outputs; whether each is a folder, and of this job alone.
    inputs : list
        What is known of the files that it reads.
    """

    name: str
    text: str
    folder: Path
    code: Path | None
    root: Path
    outputs: Mapping[str, tuple[Path, bool, bool]]
    inputs: list[Any] = field(default_factory=list)
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout: float | None = None
    allow_reuse: bool = True

    def identity(self) -> str:
        """Hash of all that decides what it does, besides the code."""
        facts = [self.text, str(self.code), self.inputs, sorted(self.variables.items())]
        return hashlib.sha256(json.dumps(facts).encode("utf-8", "surrogateescape")).hexdigest()

    def code_state(self) -> dict[str, str]:
        return {} if self.code is None else code_state(self.code, self.root)

    def output_states(self) -> dict[str, dict[str, list[int]]]:
        return {name: folder_state(path) for name, (path, _, _) in self.outputs.items()}


class CommandRun:
    """A command in the background.

    Attributes
    ----------
    status : str
        Running, Completed, Failed or Canceled.
    is_reused : bool
        Nothing was run: what it would do has been done.
    seconds : float
    """

    def __init__(self, command: Command) -> None:
        self.command, self.status = command, "Running"
        self.is_reused, self.seconds = False, 0.0
        self.error: BaseException | None = None
        self._files = OutputFolder(command.folder)
        self._ended, self._canceled = threading.Event(), threading.Event()
        self._thread = threading.Thread(
            target=self._work, name=f"daskprs-command-{command.name}", daemon=True
        )
        self._thread.start()

    @property
    def log(self) -> Path:
        """Where its output is."""
        return self.command.folder / LOG

    def cancel(self) -> None:
        """Stop the command."""
        self._canceled.set()

    def wait_for_completion(
        self, show_output: bool = False, timeout: float | None = None, raise_on_error: bool = True
    ) -> str:
        """Wait until it has ended; see `ParallelRun.wait_for_completion`."""
        if not self._ended.wait(timeout):
            raise TimeoutError(f"the command {self.command.name!r} has not ended in time.")
        if self.error is not None and raise_on_error:
            raise self.error.with_traceback(None) from None
        return self.status

    # The thread

    def _work(self) -> None:
        began = time.monotonic()
        try:
            self._run()
            self.status = "Completed"
        except BaseException as error:  # whoever waits has to be told
            self.error = error
            self.status = "Canceled" if isinstance(error, RunCanceledError) else "Failed"
        finally:
            self.seconds = time.monotonic() - began
            self._ended.set()

    def _run(self) -> None:
        command = self.command
        before = self._record()
        code = command.code_state()
        if command.allow_reuse and self._is_done(before, code):
            self.is_reused = True
            return
        self._make_room(before)
        self._write({"status": "Running"})
        log = self.log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as stream:
            exit_code = self._call(stream)
        if self._canceled.is_set():
            raise RunCanceledError(f"the job {command.name!r} was canceled.")
        if exit_code != 0:
            raise self._failed(exit_code)
        # What it has written beside its own code is no change of the code.
        after = command.code_state()
        own = sorted(name for name, state in after.items() if code.get(name) != state)
        facts = {
            "status": "Completed",
            "run": command.identity(),
            "code": {name: state for name, state in code.items() if name not in own},
            "written": own,
            "outputs": command.output_states(),
        }
        self._write(facts)

    def _record(self) -> dict[str, Any]:
        data = self._files.read(f".daskprs/{_RECORD}")
        with contextlib.suppress(ValueError):
            record: dict[str, Any] = json.loads(data or b"{}")
            return record
        return {}

    def _write(self, record: dict[str, Any]) -> None:
        self._files.write(f".daskprs/{_RECORD}", json_text(record, indent=2).encode())

    def _is_done(self, before: dict[str, Any], code: dict[str, str]) -> bool:
        if before.get("status") != "Completed" or before["run"] != self.command.identity():
            return False
        written = set(before["written"])
        same = {name: state for name, state in code.items() if name not in written}
        return bool(same == before["code"] and before["outputs"] == self.command.output_states())

    def _make_room(self, before: dict[str, Any]) -> None:
        """Begin with empty outputs; what somebody else has put there is never removed."""
        for name, (path, is_folder, is_own) in self.command.outputs.items():
            folder = path if is_folder else path.parent
            if is_own and folder.is_dir() and any(folder.iterdir()):
                if not before:
                    raise OutputError(
                        f"the folder {str(folder)!r} of the output {name!r} is not empty, and no "
                        "run of this job has written it: give another --output."
                    )
                _empty(folder)
            folder.mkdir(parents=True, exist_ok=True)

    def _call(self, log: Any) -> int:
        command = self.command
        folder = command.code or command.folder
        # Isolated: the code of the user may have modules of any name.
        start = [sys.executable, "-I", keeper.__file__]
        # `python` in a command is the one that runs this.
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        process = subprocess.Popen(
            [*start, str(command.folder / ".daskprs" / "command.lock"), command.text],
            cwd=folder,
            env={**os.environ, "PATH": path, **command.variables},
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
            raise RunFailedError(
                f"the job {command.name!r} was stopped: its command took longer than "
                f"limits.timeout={command.timeout:g} s. Its output is in {self.log}."
            )
        return code

    def _failed(self, code: int) -> RunFailedError:
        name = self.command.name
        message = (
            f"the job {name!r} has failed: its command ended with exit code {code}. Its output is "
            f"in {self.log}."
        )
        data = self.log.read_bytes()[-_SHOWN_BYTES:]
        lines = data.decode("utf-8", "replace").splitlines()[-_SHOWN_LINES:]
        return EntryScriptError(message, script_traceback="\n".join(lines))

    # What a person wants to know

    def lines(self) -> list[tuple[str, str]]:
        """Return it as (word, value)."""
        lines = [("Status", self.status + (" (reused)" if self.is_reused else ""))]
        lines.append(("Time", f"{self.seconds:.1f} s"))
        for name, (path, is_folder, _) in self.command.outputs.items():
            count = len(folder_state(path)) if is_folder else None
            more = "" if count is None else f" ({counted(count, 'file', 'files')})"
            lines.append(("Output", f"{name}: {path}{more}"))
        return [*lines, ("Log", str(self.log))]

    @property
    def report(self) -> str:
        return "\n".join(f"{word:<13} {value}" for word, value in self.lines())


def _empty(folder: Path) -> None:
    import shutil

    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
