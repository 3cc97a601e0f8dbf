"""A command job as a step of a pipeline."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from daskprs.input_checks import first_file
from daskprs.listing import is_local
from daskprs.output_folder import OutputFolder
from daskprs.pipelines import Datastore, StepOutput
from daskprs.pipelines.base import Launch, Step
from daskprs.pipelines.command_run import CommandRun
from daskprs.pipelines.file_states import input_state
from daskprs.redaction import Secrets
from daskprs.side_inputs import SideInput
from daskprs.yaml_jobs.expressions import Reference, substitute, without_missing
from daskprs.yaml_jobs.jobs import JobSpec
from daskprs.yaml_jobs.parallel_job import variables
from daskprs.yaml_jobs.recorded_command import RecordedCommand
from daskprs.yaml_jobs.sources import Sources
from daskprs.yaml_jobs.values import DataInput

__all__ = ["CommandJob"]

_LOOKUP_SECONDS = 60.0


class CommandJob(Step):
    """A command job as a step of a pipeline.

    Parameters
    ----------
    spec : JobSpec
    step_name : str
    store : Datastore
        Of all outputs.
    sources : Sources
    root : Path
        Of all outputs.
    """

    def __init__(
        self, spec: JobSpec, step_name: str, store: Datastore, sources: Sources, root: Path
    ) -> None:
        self.spec, self.name, self._sources, self._root = spec, step_name, sources, root
        self.output = StepOutput(spec.name, store, path=spec.name)
        self.outputs = [self.output]
        self.inputs, self.side_inputs, self.arguments = [], [], []
        self.models, self.after = [], []
        self.allow_reuse = not spec.is_fresh
        self._check()

    def _check(self) -> None:
        spec = self.spec
        section = spec.find("command")
        text = section.get("command")
        if text is None:
            raise spec.body.error("the key 'command' is missing.")
        where = section.child("command")
        spec.check_text(where, without_missing(text, spec.missing))
        code = spec.get("code")
        if code is not None and not self._code().is_dir():
            raise spec.find("code").error(
                f"{code!r} is not there: there is no folder {self._code()}.", "code"
            )

    def check_inputs(self) -> None:
        """Look whether the inputs are there.

        Raises
        ------
        InputNotFoundError
        """
        for given in self.spec.inputs.values():
            if isinstance(given, DataInput) and given.produced is None:
                first_file(given.url, {}, seconds=_LOOKUP_SECONDS)

    def _code(self) -> Path:
        section = self.spec.find("code")
        return Path(os.path.abspath(section.folder / section.get("code")))

    def needs(self) -> Iterator[StepOutput]:
        for name in sorted(self.spec.upstream()):
            yield from self._sources.steps[name].outputs

    def check_values(self, values: Mapping[str, Any]) -> None:
        """There are no parameters."""

    @contextlib.contextmanager
    def start(self, launch: Launch) -> Iterator[CommandRun]:
        launch.places[self.output] = self.output.place(launch.workspace.datastores.default, "")
        launch.secrets = Secrets([], [], variables(self.spec))
        OutputFolder(self.spec.folder).make()
        yield CommandRun(self.command(), launch.secrets)

    def command(self) -> RecordedCommand:
        """Fill in the paths; fetch what is not on this machine.

        Raises
        ------
        InputNotFoundError
        """
        spec = self.spec
        self._sources.publish(spec)
        fetched: dict[str, str] = {}

        def text(reference: Reference) -> str:
            [name] = reference.names
            if reference.scope == "inputs" and name in fetched:
                return fetched[name]
            return self._sources.text(spec, reference)

        states: list[list[Any]] = []
        for name, given in spec.inputs.items():
            if isinstance(given, DataInput):
                url = self._sources.locate(given)
                states.append([name, input_state(url)])
                if not is_local(url) and given.mode != "direct":
                    fetched[name] = self._fetch(name, url, states[-1])
        limits = spec.get("limits", {})
        timeout = limits.get("timeout")
        return RecordedCommand(
            name=spec.name,
            text=substitute(without_missing(spec.get("command"), spec.missing), text),
            folder=spec.folder,
            code=None if spec.get("code") is None else self._code(),
            root=self._root,
            targets=spec.outputs,
            inputs=states,
            variables=variables(spec),
            timeout=None if timeout is None else float(timeout),
            allow_reuse=self.allow_reuse,
        )

    def _fetch(self, name: str, url: str, state: list[Any]) -> str:
        """Copy an input to this machine, as it is now; whole, or not at all."""
        digest = hashlib.sha256(json.dumps(state).encode()).hexdigest()[:16]
        folder = self.spec.folder / "inputs"
        target = folder / f"{name}-{digest}"
        side = SideInput.find(name, url)
        if not target.exists():
            folder.mkdir(parents=True, exist_ok=True)
            for old in folder.glob(f"{name}-*"):
                shutil.rmtree(old)
            half = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=folder))
            side.local_path(half)
            half.rename(target)
        return side.local_path(target)
