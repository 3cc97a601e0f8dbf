"""RecordedCommand: the command of a job, with a record of what it has done."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from daskprs.exceptions import OutputError
from daskprs.json_text import json_text
from daskprs.output_folder import OutputFolder
from daskprs.pipelines.command_run import Call, Command
from daskprs.pipelines.file_states import code_state, folder_state
from daskprs.wording import counted
from daskprs.yaml_jobs.copies import copy_output
from daskprs.yaml_jobs.values import Output

__all__ = ["RecordedCommand"]

_LOG = "logs/std_log.txt"
_RECORD = ".daskprs/command.json"
_LOCK = ".daskprs/command.lock"
_MODULES = str(Path(__file__).parent / "modules")


@dataclass
class RecordedCommand(Command):
    """The command of a job with its paths filled in.

    Attributes
    ----------
    folder : Path
        Of the job.
    code : Path or None
        Where it runs.
    root : Path
        Of all outputs: no part of the code.
    targets : mapping
        Names of outputs to them.
    inputs : list
        What is known of the files that it reads.
    """

    name: str
    text: str
    folder: Path
    code: Path | None
    root: Path
    targets: Mapping[str, Output]
    inputs: list[Any] = field(default_factory=list)
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout: float | None = None
    allow_reuse: bool = True

    words = ("job", "command", "limits.timeout")

    def __post_init__(self) -> None:
        self.log = self.folder / _LOG
        self._files = OutputFolder(self.folder)

    def identity(self) -> str:
        """Hash of all that decides what it does, besides the code."""
        facts = [self.text, str(self.code), self.inputs, sorted(self.variables.items())]
        return hashlib.sha256(json.dumps(facts).encode("utf-8", "surrogateescape")).hexdigest()

    def _code_now(self) -> dict[str, str]:
        return {} if self.code is None else code_state(self.code, self.root)

    @cached_property
    def _code_before(self) -> dict[str, str]:
        return self._code_now()

    @cached_property
    def _earlier(self) -> dict[str, Any]:
        """What the record says of the last run."""
        data = self._files.read(_RECORD)
        with contextlib.suppress(ValueError):
            record: dict[str, Any] = json.loads(data or b"{}")
            return record
        return {}

    def _write(self, record: dict[str, Any]) -> None:
        self._files.write(_RECORD, json_text(record, indent=2).encode())

    def _output_states(self) -> dict[str, dict[str, list[int]]]:
        return {name: folder_state(output.local) for name, output in self._written().items()}

    def _written(self) -> dict[str, Output]:
        """Those that are on this machine."""
        return {name: output for name, output in self.targets.items() if not output.is_direct}

    def _copy(self) -> None:
        for output in self.targets.values():
            copy_output(output, self.folder)

    def is_done(self) -> bool:
        before, code = self._earlier, self._code_before
        if not self.allow_reuse:
            return False
        if before.get("status") != "Completed" or before["run"] != self.identity():
            return False
        written = set(before["written"])
        same = {name: state for name, state in code.items() if name not in written}
        if same != before["code"] or before["outputs"] != self._output_states():
            return False
        self._copy()
        return True

    def begin(self) -> Call:
        self._make_room()
        self._write({"status": "Running"})
        folder = self.code or self.folder
        return Call(self.text, folder, self.folder / _LOCK, {**_found(), **self.variables})

    def _make_room(self) -> None:
        """Begin with empty outputs; what somebody else has put there is never removed."""
        for name, output in self._written().items():
            folder = output.folder
            if output.is_own and folder.is_dir() and any(folder.iterdir()):
                if not self._earlier:
                    raise OutputError(
                        f"the folder {str(folder)!r} of the output {name!r} is not empty, and no "
                        "run of this job has written it: give another --output."
                    )
                _empty(folder)
            folder.mkdir(parents=True, exist_ok=True)

    def finish(self) -> None:
        self._copy()
        # What it has written beside its own code is no change of the code.
        code, after = self._code_before, self._code_now()
        own = sorted(name for name, state in after.items() if code.get(name) != state)
        facts = {
            "status": "Completed",
            "run": self.identity(),
            "code": {name: state for name, state in code.items() if name not in own},
            "written": own,
            "outputs": self._output_states(),
        }
        self._write(facts)

    def close(self) -> None:
        """Leave all as it is."""

    def outputs(self) -> dict[str, str]:
        told = {}
        for name, output in self.targets.items():
            told[name] = output.path if output.url is None else output.url
            if output.file_name is None and not output.is_direct:
                told[name] += f" ({counted(len(folder_state(output.local)), 'file', 'files')})"
        return told


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _found() -> dict[str, str]:
    """Let scripts import what is not installed, and often imported for nothing."""
    if importlib.util.find_spec("mltable") is not None:
        return {}
    folders = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    path = [os.path.abspath(folder) for folder in folders if folder]
    return {"PYTHONPATH": os.pathsep.join([*path, _MODULES])}
