"""``azureml.core.Run``: in the scripts of steps, with a workspace that is open."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from daskprs.azureml.datasets import TabularDataset
from daskprs.azureml.entry import facts, runs
from daskprs.azureml.entry.datasets import InputDatasets
from daskprs.azureml.entry.opened import has_workspace, open_workspace
from daskprs.azureml.experiments import Experiment
from daskprs.azureml.models import Model
from daskprs.azureml.workspaces import Workspace

__all__ = ["Run"]


class Run(runs.Run):
    """The run that this script works for, from ``Run.get_context()``.

    Attributes
    ----------
    id : str
    parent : Run
        The run of the pipeline.
    experiment : Experiment
    input_datasets : dict
        Tables, and local paths of other inputs, by their names.
    output_datasets : dict
        Local paths of outputs by their names.
    """

    @classmethod
    def _experiment_of(cls, name: str) -> Any:
        if not has_workspace():  # no script of a step
            return super()._experiment_of(name)
        return Experiment(Workspace._of(open_workspace("Run.get_context()")), name)

    @property
    def input_datasets(self) -> InputDatasets:
        found = super().input_datasets
        for name, told in facts.tables().items():
            data = open_workspace("input_datasets").datasets.described(told)
            found[name] = TabularDataset(data)  # type: ignore[assignment]
        return found

    @property
    def output_datasets(self) -> dict[str, str]:
        return facts.outputs()

    def _register(
        self,
        path: str,
        name: str,
        tags: Mapping[str, str] | None,
        properties: Mapping[str, str] | None,
        description: str | None,
    ) -> Model:
        workspace: Any = self.experiment.workspace
        return Model.register(workspace, path, name, tags, properties, description)
