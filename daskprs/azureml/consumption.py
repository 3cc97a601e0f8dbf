"""``DatasetConsumptionConfig`` and ``PipelineParameter``."""

from __future__ import annotations

from typing import Any

from daskprs.azureml.partial import Partial, refuse
from daskprs.pipelines import parameters as native
from daskprs.pipelines.data import Data
from daskprs.pipelines.datastores import DataPath
from daskprs.pipelines.steps import NamedInput

__all__ = ["DataPathComputeBinding", "DatasetConsumptionConfig", "PipelineParameter", "as_input"]


class PipelineParameter(native.PipelineParameter):
    """A value that is given when a pipeline is submitted.

    Parameters
    ----------
    name : str
    default_value
        Text, a number, or a dataset.
    """

    def __init__(self, name: str, default_value: Any) -> None:
        super().__init__(name, as_input(default_value))


class DatasetConsumptionConfig(Partial):
    """A dataset under the name that it has in a step.

    Parameters
    ----------
    name : str
    dataset : FileDataset, TabularDataset or PipelineParameter
    mode : {"direct", "mount", "download"}
        All the same here: files are read in place where they are local, and fetched else.
    path_on_compute : str, optional
        Not supported: the script is told the path.
    """

    def __init__(
        self,
        name: str | None,
        dataset: Any,
        mode: str = "direct",
        path_on_compute: str | None = None,
    ) -> None:
        refuse(path_on_compute=(path_on_compute, "the script is told the path"))
        self.name, self.dataset, self.mode = name, dataset, mode
        source = as_input(dataset)
        # Asked for twice, it is the same input.
        self._native = source if name is None else NamedInput(name, source)

    def as_mount(self, path_on_compute: str | None = None) -> DatasetConsumptionConfig:
        return DatasetConsumptionConfig(self.name, self.dataset, "mount", path_on_compute)

    def as_download(self, path_on_compute: str | None = None) -> DatasetConsumptionConfig:
        return DatasetConsumptionConfig(self.name, self.dataset, "download", path_on_compute)

    def as_direct(self) -> DatasetConsumptionConfig:
        return DatasetConsumptionConfig(self.name, self.dataset)

    def __repr__(self) -> str:
        return f"DatasetConsumptionConfig({self.name!r}, {self.dataset!r})"


class DataPathComputeBinding(Partial):
    """How a path gets to a step, as the second of a pair: all the same here.

    Parameters
    ----------
    mode : {"mount", "download", "upload"}
    """

    def __init__(
        self,
        mode: str = "mount",
        path_on_compute: str | None = None,
        overwrite: bool | None = False,
    ) -> None:
        refuse(path_on_compute=(path_on_compute, "the script is told the path"))
        self.mode = mode


def as_input(value: Any) -> Any:
    """Turn what a step of Azure ML takes into what `pipelines.ParallelStep` takes."""
    if (
        isinstance(value, tuple)
        and len(value) == 2
        and isinstance(value[1], DataPathComputeBinding)
    ):
        value = value[0]
    found = getattr(value, "_native", value)
    return Data.files(found) if isinstance(found, DataPath) else found
