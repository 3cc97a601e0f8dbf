"""``PipelineData`` and ``OutputFileDatasetConfig``."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from daskprs.azureml.data_types import DataType
from daskprs.azureml.datasets import delimited_options
from daskprs.azureml.datastores import DataPath
from daskprs.azureml.partial import refuse
from daskprs.pipelines import outputs as native
from daskprs.pipelines.base import Step

__all__ = [
    "OutputFileDatasetConfig",
    "OutputTabularDatasetConfig",
    "PipelineData",
    "PipelineOutputFileDataset",
    "as_output",
    "set_producer",
]

_KEYS = "take partition_format for keys in the paths"


def as_output(value: Any) -> Any:
    """Return the output itself, where it is given as what the next step reads."""
    return value.output if isinstance(value, native.OutputFiles) else value


class _AsInput(native.OutputFiles):
    """The output of a step as an input; how it gets there is the same for all."""

    def register(
        self, name: str, create_new_version: bool = True, tags: Mapping[str, str] | None = None
    ) -> Any:
        """Register what is read as a dataset when the step has completed."""
        self.output.register_as, self.output.register_how = name, self
        return self

    def register_on_complete(
        self,
        name: str,
        description: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Any:
        """Register what is read as a dataset when the step has completed."""
        return self.register(name)

    def as_named_input(self, name: str) -> Any:
        return type(self)(self.output, self.kind, self.options, name, self.pattern)

    as_input = as_named_input

    def as_mount(self, path_on_compute: str | None = None) -> Any:
        return self

    def as_download(self, path_on_compute: str | None = None) -> Any:
        return self

    def as_direct(self) -> Any:
        return self


class OutputTabularDatasetConfig(_AsInput):
    """The output of a step, read as tables."""


class PipelineOutputFileDataset(_AsInput):
    """The output of a step, read as files."""

    def parse_delimited_files(
        self,
        include_path: bool = False,
        separator: str = ",",
        header: Any = True,
        partition_format: str | None = None,
        file_extension: str = "",
        set_column_types: Mapping[str, DataType] | None = None,
        quoted_line_breaks: bool = False,
    ) -> OutputTabularDatasetConfig:
        refuse(include_path=(include_path, _KEYS))
        pattern = _with_ending(file_extension)
        return _delimited(
            self.output, separator, header, partition_format, set_column_types, pattern
        )

    def parse_parquet_files(
        self,
        include_path: bool = False,
        partition_format: str | None = None,
        file_extension: str = ".parquet",
        set_column_types: Mapping[str, DataType] | None = None,
    ) -> OutputTabularDatasetConfig:
        refuse(include_path=(include_path, _KEYS))
        return _parquet(self.output, partition_format, _with_ending(file_extension))


def set_producer(step: Step) -> None:
    """Let the outputs of a step know it: a pipeline brings in the steps that it needs."""
    for output in step.outputs:
        output.producer = step  # type: ignore[attr-defined]


class PipelineData(native.StepOutput):
    """The folder that a step writes to.

    Parameters
    ----------
    name : str
    datastore : Datastore, optional
    output_name, output_mode, output_path_on_compute, output_overwrite, data_type, is_directory
        Of no meaning here: a script finds the folder in ``AZUREML_BI_OUTPUT_PATH``, or in its
        arguments.
    """

    def __init__(
        self,
        name: str,
        datastore: Any = None,
        output_name: str | None = None,
        output_mode: str = "mount",
        output_path_on_compute: str | None = None,
        output_overwrite: bool | None = None,
        data_type: str | None = None,
        is_directory: bool | None = None,
        pipeline_output_name: str | None = None,
        training_output: object = None,
    ) -> None:
        refuse(training_output=(training_output, "there are no training steps"))
        super().__init__(output_name or name, getattr(datastore, "_native", datastore))

    def as_dataset(self) -> PipelineOutputFileDataset:
        return PipelineOutputFileDataset(self)

    def as_mount(self) -> PipelineData:
        return self

    def as_download(self, *args: object, **kwargs: object) -> PipelineData:
        return self

    def as_input(self, input_name: str) -> PipelineOutputFileDataset:
        return PipelineOutputFileDataset(self, name=input_name)


class OutputFileDatasetConfig(native.StepOutput):
    """The folder that a step writes to.

    Parameters
    ----------
    name : str, optional
    destination : tuple, optional
        A datastore and a path in it; ``{run-id}`` and ``{output-name}`` become theirs.
    partition_format : str, optional
        Keys in the paths, for the step that has it as an input.
    """

    def __init__(
        self,
        name: str | None = None,
        destination: tuple[Any, str] | DataPath | None = None,
        source: object = None,
        partition_format: str | None = None,
    ) -> None:
        refuse(source=(source, "write to the output folder that the script is told"))
        store, path = None, None
        if isinstance(destination, DataPath):
            store, path = destination._native.datastore, destination.path_on_datastore
        elif isinstance(destination, tuple):
            store, path = getattr(destination[0], "_native", destination[0]), destination[1]
        elif destination is not None:
            store = getattr(destination, "_native", destination)
        super().__init__(name or f"output_{uuid.uuid4().hex[:8]}", store, path=path)
        self._options = {} if partition_format is None else {"partition_format": partition_format}

    def as_mount(self, disable_metadata_cache: bool = False) -> OutputFileDatasetConfig:
        return self

    def as_upload(
        self, overwrite: bool = False, source_globs: object = None
    ) -> OutputFileDatasetConfig:
        refuse(source_globs=(source_globs, "write only what is wanted to the output folder"))
        return self

    def as_input(self, name: str | None = None) -> PipelineOutputFileDataset:
        return PipelineOutputFileDataset(self, "files", self._options, name)

    def register_on_complete(
        self,
        name: str,
        description: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> OutputFileDatasetConfig:
        self.register_as = name
        return self

    def read_delimited_files(
        self,
        include_path: bool = False,
        separator: str = ",",
        header: Any = True,
        partition_format: str | None = None,
        path_glob: str | None = None,
        set_column_types: Mapping[str, DataType] | None = None,
    ) -> OutputTabularDatasetConfig:
        refuse(include_path=(include_path, _KEYS))
        return _delimited(self, separator, header, partition_format, set_column_types, path_glob)

    def read_parquet_files(
        self,
        include_path: bool = False,
        partition_format: str | None = None,
        path_glob: str | None = None,
        set_column_types: Mapping[str, DataType] | None = None,
    ) -> OutputTabularDatasetConfig:
        refuse(include_path=(include_path, _KEYS))
        return _parquet(self, partition_format, path_glob)


def _with_ending(extension: str | None) -> str | None:
    """Make a pattern of the ending that files have to have; without one, all are taken."""
    return f"**/*{extension}" if extension else None


def _delimited(
    output: native.StepOutput,
    separator: str,
    header: Any,
    partition_format: str | None,
    types: Mapping[str, DataType] | None,
    pattern: str | None,
) -> OutputTabularDatasetConfig:
    options = {"format": "csv", **delimited_options(separator, header, types)}
    return _tables(output, options, partition_format, pattern)


def _parquet(
    output: native.StepOutput, partition_format: str | None, pattern: str | None
) -> OutputTabularDatasetConfig:
    return _tables(output, {"format": "parquet"}, partition_format, pattern)


def _tables(
    output: native.StepOutput,
    options: dict[str, Any],
    partition_format: str | None,
    pattern: str | None,
) -> OutputTabularDatasetConfig:
    if partition_format is not None:
        options["partition_format"] = partition_format
    made = output.as_tables(pattern=pattern, **options)
    return OutputTabularDatasetConfig(output, "tables", options, None, made.pattern)
