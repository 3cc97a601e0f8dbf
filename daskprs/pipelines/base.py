"""Step: what all steps of a pipeline have in common, and what they find when they start."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from daskprs.exceptions import ConfigError
from daskprs.pipelines.datastores import DataPath
from daskprs.pipelines.outputs import OutputFiles, StepOutput
from daskprs.pipelines.parameters import PipelineParameter
from daskprs.redaction import Secrets

if TYPE_CHECKING:
    from daskprs.pipelines.command_run import CommandRun
    from daskprs.pipelines.environments import Environment
    from daskprs.pipelines.models import Model
    from daskprs.pipelines.workspace import Workspace
    from daskprs.run import ParallelRun

__all__ = ["Launch", "NamedInput", "Step", "as_list", "source_of"]


@dataclass(frozen=True)
class NamedInput:
    """An input under a name of its own.

    Parameters
    ----------
    name : str
    source : Data, StepOutput, PipelineParameter, FileDataset or TabularDataset
    """

    name: str
    source: Any


@dataclass
class Launch:
    """What a step finds when it starts.

    Attributes
    ----------
    values : mapping
        Of the pipeline's parameters.
    places : dict
        Where outputs are, also those of steps before; the step adds its own.
    run_id : str
        Of the step's run.
    surroundings : mapping
        Environment variables that tell a script where its run belongs.
    regenerates : bool
        Nothing of earlier runs may be taken over.
    note : callable
        Takes what a person should know.
    secrets : Secrets
        To be kept out of messages; the step says them as soon as it knows them.
    """

    workspace: Workspace
    values: Mapping[str, Any]
    places: dict[StepOutput, DataPath]
    run_id: str
    surroundings: Mapping[str, str]
    regenerates: bool
    note: Callable[[list[str]], None]
    secrets: Secrets = field(default_factory=Secrets)


class Step(ABC):
    """A part of a pipeline: see `ParallelStep` and `ScriptStep`.

    Attributes
    ----------
    name : str
    inputs, side_inputs, arguments : list
        What may be data, outputs of other steps, or parameters.
    outputs : list of StepOutput
    models : list
        Models, or their names in the workspace.
    after : list of Step
    """

    name: str
    allow_reuse: bool
    inputs: list[Any]
    side_inputs: list[Any]
    arguments: list[Any]
    outputs: list[StepOutput]
    models: list[Model | str]
    after: list[Step]

    def run_after(self, step: Step) -> None:
        """Have it run after another step, also without an input from there."""
        self.after.append(step)

    def _given(self) -> Iterator[Any]:
        for thing in (*self.inputs, *self.side_inputs, *self.arguments):
            yield source_of(thing)

    def all_parameters(self) -> Iterator[PipelineParameter]:
        return (source for source in self._given() if isinstance(source, PipelineParameter))

    def needs(self) -> Iterator[StepOutput]:
        """Tell the outputs of other steps that this one reads."""
        for source in self._given():
            output = source.output if isinstance(source, OutputFiles) else source
            if isinstance(output, StepOutput) and output not in self.outputs:
                yield output

    @property
    def reads_itself(self) -> bool:
        """Whether an output of its own is among its inputs."""
        sources = [source_of(thing) for thing in self.inputs]
        return any(getattr(source, "output", source) in self.outputs for source in sources)

    @property
    def environment(self) -> Environment | None:
        return None

    @property
    def compute_target(self) -> Any:
        """Where it runs; None is this machine."""
        return None

    @abstractmethod
    def check_values(self, values: Mapping[str, Any]) -> None:
        """Look whether the values of the parameters are accepted.

        Raises
        ------
        ConfigError
        """

    @abstractmethod
    def start(self, launch: Launch) -> AbstractContextManager[ParallelRun | CommandRun]:
        """Start it in the background; what was made for it alone ends with the context.

        Raises
        ------
        UsageError
        """

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"


def source_of(thing: Any) -> Any:
    """Return an input without the name that it has in the step."""
    return thing.source if isinstance(thing, NamedInput) else thing


def as_list(field: str, value: Any) -> list[Any]:
    """Check that something is a list.

    Raises
    ------
    ConfigError
    """
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Sequence):
        raise ConfigError.of(field, value, "a list")
    return list(value)
