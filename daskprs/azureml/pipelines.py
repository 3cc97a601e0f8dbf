"""``azureml.pipeline.core.Pipeline``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from daskprs.azureml.computes import target_of
from daskprs.azureml.partial import Partial
from daskprs.azureml.workspaces import Workspace
from daskprs.pipelines import pipeline as native
from daskprs.pipelines.base import Step
from daskprs.pipelines.steps import ParallelStep

if TYPE_CHECKING:
    from daskprs.azureml.experiments import PipelineRun

__all__ = ["Pipeline", "StepSequence"]


class StepSequence(Partial):
    """Steps that run one after another, also without inputs from one another.

    Parameters
    ----------
    steps : list
    """

    def __init__(self, steps: Sequence[Any] | None = None) -> None:
        self.steps = list(steps or ())
        for before, after in zip(self.steps, self.steps[1:], strict=False):
            after.run_after(before)


class Pipeline(Partial):
    """Steps that are submitted together.

    Parameters
    ----------
    workspace : Workspace
    steps : list
    description : str, optional
    default_datastore : Datastore, optional
        For outputs that name no other.
    resolve_closure : bool
        Bring in the steps that these need.
    """

    def __init__(
        self,
        workspace: Workspace,
        steps: Any,
        description: str | None = None,
        default_datastore: Any = None,
        default_source_directory: str | None = None,
        resolve_closure: bool = True,
        **kwargs: object,
    ) -> None:
        self.workspace = workspace
        given = _with_needed(_listed(steps)) if resolve_closure else _listed(steps)
        store = getattr(default_datastore, "_native", default_datastore)
        for step in given:
            for output in step.outputs if isinstance(step, Step) else ():
                output.datastore = output.datastore or store
            if isinstance(step, ParallelStep):
                _settle(step, workspace)
        self._native = native.Pipeline(workspace._native, given, description)

    def validate(self) -> list[str]:
        """Say what can be known to be wrong."""
        return self._native.validate()

    def submit(
        self,
        experiment_name: str,
        pipeline_parameters: Mapping[str, Any] | None = None,
        continue_on_step_failure: bool = False,
        regenerate_outputs: bool = False,
        **kwargs: object,
    ) -> PipelineRun:
        """Start a run in the background."""
        from daskprs.azureml.experiments import Experiment

        return Experiment(self.workspace, experiment_name).submit(
            self,
            pipeline_parameters=pipeline_parameters,
            continue_on_step_failure=continue_on_step_failure,
            regenerate_outputs=regenerate_outputs,
        )


def _with_needed(steps: list[Any]) -> list[Any]:
    """Add the steps whose outputs are read, and those that are to run before."""
    found = list(steps)
    for step in found:  # which grows
        if isinstance(step, Step):
            producers = [getattr(output, "producer", None) for output in step.needs()]
            for needed in (*producers, *step.after):
                if needed is not None and needed not in found:
                    found.append(needed)
    return found


def _settle(step: ParallelStep, workspace: Workspace) -> None:
    """Give the step its compute target, of which it may have the name alone."""
    name = step.config.compute_target
    if isinstance(name, str) and ":" not in name:  # not an address
        step.config = step.config.with_changes(compute_target=target_of(workspace, name))


def _listed(steps: Any) -> list[Any]:
    if isinstance(steps, StepSequence):
        return steps.steps
    if isinstance(steps, list | tuple):
        return [inner for step in steps for inner in _listed(step)]
    return [steps]
