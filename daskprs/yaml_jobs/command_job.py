"""A command job as a step of a pipeline."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from daskprs.config import ParallelRunConfig
from daskprs.input_checks import first_file
from daskprs.listing import is_local
from daskprs.output_folder import OutputFolder
from daskprs.pipelines import DataPath, Datastore, Model, ParallelStep, StepOutput
from daskprs.pipelines.parameters import PipelineParameter
from daskprs.redaction import Secrets
from daskprs.side_inputs import SideInput
from daskprs.step import ParallelRunStep
from daskprs.yaml_jobs.command_run import Command, CommandRun
from daskprs.yaml_jobs.expressions import Reference, substitute, without_missing
from daskprs.yaml_jobs.file_states import input_state
from daskprs.yaml_jobs.jobs import JobSpec
from daskprs.yaml_jobs.parallel_job import variables
from daskprs.yaml_jobs.sources import Sources
from daskprs.yaml_jobs.values import DataInput

__all__ = ["CommandJob"]

_LOOKUP_SECONDS = 60.0


@dataclass(frozen=True)
class _NoSettings:
    """A command needs none of the settings of a parallel run."""

    compute_target: None = None
    environment: None = None


class CommandJob(ParallelStep):
    """A command job as a step of a pipeline.

    It takes part in the order, the record and the end of the pipeline as a `ParallelStep` does;
    what it starts is a `CommandRun`.

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
        self.config = cast(ParallelRunConfig, _NoSettings())
        self.output = StepOutput(spec.name, store, path=spec.name)
        self.inputs, self.side_inputs, self.arguments = [], [], []
        self.models, self.after, self.parameters = [], [], {}
        self.allow_reuse, self.azure_compatible = not spec.is_fresh, False
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
            yield self._sources.steps[name].output

    def all_parameters(self) -> Iterator[PipelineParameter]:
        return iter(())

    def settings(self, values: Mapping[str, Any]) -> ParallelRunConfig:
        return self.config

    def build(
        self,
        config: ParallelRunConfig,
        values: Mapping[str, Any],
        places: Mapping[StepOutput, DataPath],
        models: Sequence[Model],
    ) -> ParallelRunStep:
        return cast(ParallelRunStep, _Ready(self))

    def command(self) -> Command:
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
        return Command(
            name=spec.name,
            text=substitute(without_missing(spec.get("command"), spec.missing), text),
            folder=spec.folder,
            code=None if spec.get("code") is None else self._code(),
            root=self._root,
            outputs={
                name: (Path(output.path), output.file_name is None, output.is_own)
                for name, output in spec.outputs.items()
            },
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

    def __repr__(self) -> str:
        return f"CommandJob({self.spec.name!r})"


class _Ready:
    """What a pipeline starts, in the place of a `ParallelRunStep`."""

    def __init__(self, job: CommandJob) -> None:
        self._job = job

    def make_job(self, *, surroundings: Mapping[str, str] | None = None) -> Command:
        OutputFolder(self._job.spec.folder).make()
        return self._job.command()

    def start(self, command: Command) -> CommandRun:
        return CommandRun(command)

    def secrets(self) -> Secrets:
        return Secrets([], [], variables(self._job.spec))
