"""Pipeline: steps in the order that their inputs and outputs ask for."""

from __future__ import annotations

import graphlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from daskprs.exceptions import ConfigError, UsageError
from daskprs.pipelines.base import Step
from daskprs.pipelines.outputs import StepOutput
from daskprs.pipelines.parameters import PipelineParameter
from daskprs.targets import check_target

if TYPE_CHECKING:
    from daskprs.pipelines.runs import PipelineRun
    from daskprs.pipelines.workspace import Workspace

__all__ = ["Pipeline"]


class Pipeline:
    """Steps that are submitted together, as often as wanted.

    Parameters
    ----------
    workspace : Workspace
    steps : list of ParallelStep and ScriptStep
        In any order: one whose input is the output of another runs after it. They run one after
        another, each with all of its compute target.
    description : str, optional

    Raises
    ------
    ConfigError, UsageError
        Two steps have the same name or output; one needs an output that no step writes, or its
        own; two parameters have the same name.

    Examples
    --------
    >>> from daskprs import ParallelRunConfig
    >>> from daskprs.pipelines import Data, ParallelStep, Pipeline, StepOutput, Workspace
    >>> import pathlib, tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> _ = (folder / "a.txt").write_text("abc")
    >>> _ = (folder / "size.py").write_text(
    ...     "import os\\ndef run(mini_batch): return [os.path.getsize(p) for p in mini_batch]"
    ... )
    >>> config = ParallelRunConfig(entry_script=folder / "size.py", process_count_per_node=1)
    >>> sizes = StepOutput("sizes")
    >>> step = ParallelStep("size", config, [Data.files(folder / "a.txt")], sizes)
    >>> pipeline = Pipeline(Workspace.create(folder / "ws"), [step])
    >>> run = pipeline.submit("first")
    >>> run.wait_for_completion()
    'Completed'
    >>> [path] = run.find_step_run("size")[0].get_output_data("sizes").download(folder / "got")
    >>> path.read_text()
    '3\\n'
    """

    def __init__(
        self,
        workspace: Workspace,
        steps: Sequence[Step],
        description: str | None = None,
    ) -> None:
        self.workspace, self.description = workspace, description
        self.steps = _ordered(list(_flat(steps)))
        self.parameters = _parameters(self.steps)

    def validate(self) -> list[str]:
        """Look for what can be known to be wrong; say it, and start nothing."""
        errors = []
        for step in self.steps:
            for model in step.models:
                if isinstance(model, str) and not self.workspace.models.versions(model):
                    errors.append(f"step {step.name!r}: the workspace has no model {model!r}")
            target = step.compute_target
            if isinstance(target, str) and target not in self.workspace.compute_targets:
                try:
                    check_target(target)
                except UsageError as error:
                    known = list(self.workspace.compute_targets)
                    errors.append(f"step {step.name!r}: {error} Known by name are {known}")
        return errors

    def values(self, given: Mapping[str, Any] | None) -> dict[str, Any]:
        """Check values for the parameters, and add the default ones.

        Raises
        ------
        UsageError
            There is no such parameter.
        """
        unknown = sorted(set(given or {}) - set(self.parameters))
        if unknown:
            known = ", ".join(self.parameters) or "none"
            raise UsageError(
                f"the pipeline has no parameter {', '.join(map(repr, unknown))}: it has {known}."
            )
        defaults = {name: one.default_value for name, one in self.parameters.items()}
        return {**defaults, **(given or {})}

    def submit(
        self, experiment_name: str, parameters: Mapping[str, Any] | None = None, **more: Any
    ) -> PipelineRun:
        """Start a run in the background; see `Experiment.submit`."""
        return self.workspace.experiments[experiment_name].submit(self, parameters, **more)

    def __repr__(self) -> str:
        return f"Pipeline({', '.join(step.name for step in self.steps)})"


def _flat(steps: Any) -> Any:
    if not isinstance(steps, list | tuple) or not steps:
        raise ConfigError.of("steps", steps, "a list of steps")
    for step in steps:
        if isinstance(step, list | tuple):
            yield from _flat(step)
        elif isinstance(step, Step):
            yield step
        else:
            raise ConfigError.of("steps", step, "a list of steps, such as ParallelStep(...)")


def _ordered(steps: list[Step]) -> list[Step]:
    by_name: dict[str, Step] = {}
    writers: dict[StepOutput, Step] = {}
    for step in steps:
        if by_name.setdefault(step.name, step) is not step:
            raise UsageError(f"two steps have the name {step.name!r}: give them different names.")
        for output in step.outputs:
            if writers.setdefault(output, step) is not step:
                raise UsageError(
                    f"the steps {writers[output].name!r} and {step.name!r} write the same output "
                    f"{output.name!r}: give each its own."
                )
    needs: dict[str, list[str]] = {}
    for step in steps:
        needs[step.name] = [other.name for other in step.after if other.name in by_name]
        for output in step.needs():
            if output not in writers:
                raise UsageError(
                    f"the step {step.name!r} needs the output {output.name!r}, which no step of "
                    "the pipeline writes: add the step that does."
                )
            needs[step.name].append(writers[output].name)
        if step.reads_itself:
            raise UsageError(f"the step {step.name!r} has its own output as an input.")
    try:
        return [by_name[name] for name in graphlib.TopologicalSorter(needs).static_order()]
    except graphlib.CycleError as error:
        raise UsageError(
            f"the steps {error.args[1]} need one another: there is no order."
        ) from None


def _parameters(steps: list[Step]) -> dict[str, PipelineParameter]:
    found: dict[str, PipelineParameter] = {}
    for step in steps:
        for parameter in step.all_parameters():
            known = found.setdefault(parameter.name, parameter)
            if not _is_same(known.default_value, parameter.default_value):
                raise UsageError(
                    f"two parameters have the name {parameter.name!r}, and different default "
                    "values: give one of them to both places."
                )
    return found


def _is_same(one: Any, other: Any) -> bool:
    plain = isinstance(one, str | int | float) and type(one) is type(other)
    return one is other or bool(plain and one == other)
