"""Opened: the inputs and arguments of a step, when values and places are known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from daskprs.datasets import FileDataset, TabularDataset, as_dataset
from daskprs.pipelines.base import NamedInput, source_of
from daskprs.pipelines.data import Data
from daskprs.pipelines.datastores import DataPath
from daskprs.pipelines.outputs import OutputFiles, StepOutput
from daskprs.pipelines.parameters import PipelineParameter, value_of

__all__ = ["Opened", "check_source"]


class Opened:
    """What stands for data becomes data; the same thing becomes the same object.

    Parameters
    ----------
    values : mapping
        Of the pipeline's parameters.
    places : mapping
        Where outputs are.
    """

    def __init__(self, values: Mapping[str, Any], places: Mapping[StepOutput, DataPath]) -> None:
        self._values, self._places = values, places
        self._side: dict[int, FileDataset | str] = {}
        self._kept: list[Any] = []  # so that no id is given twice

    def value(self, thing: Any) -> Any:
        """Put values in the place of parameters, and take names away."""
        source = value_of(source_of(thing), self._values)
        return source_of(source)

    def dataset(self, thing: Any) -> Any:
        """Make what a step cuts into mini-batches."""
        value = self.value(thing)
        if isinstance(value, StepOutput):
            value = value.as_files()
        name = thing.name if isinstance(thing, NamedInput) else None
        if isinstance(value, OutputFiles):
            name = name or value.name or value.output.name
            value = value.data(self._places[value.output])
        return value.open(name) if isinstance(value, Data) else as_dataset(value)

    def side_input(self, thing: Any) -> FileDataset | str:
        """Make what is read as a whole."""
        value = self.value(thing)
        if id(value) not in self._side:
            self._kept.append(value)
            name = thing.name if isinstance(thing, NamedInput) else None
            self._side[id(value)] = self._opened_side(value, name)
        return self._side[id(value)]

    def _opened_side(self, value: Any, name: str | None) -> FileDataset | str:
        if isinstance(value, OutputFiles | StepOutput):
            output = value.output if isinstance(value, OutputFiles) else value
            place = self._places[output]
            return FileDataset(place.url, storage_options=place.storage_options, name=name)
        if isinstance(value, Data):
            value = value.open(name)
        if isinstance(value, TabularDataset):
            options = value.storage_options
            return FileDataset(value.urls, storage_options=options, name=value.name)
        return value if isinstance(value, FileDataset) else str(value)

    def argument(self, thing: Any) -> Any:
        """Make what is given to the script."""
        value = self.value(thing)
        if id(value) in self._side or isinstance(value, Data | FileDataset | TabularDataset):
            return self.side_input(thing)
        if isinstance(value, OutputFiles | StepOutput):
            output = value.output if isinstance(value, OutputFiles) else value
            return self._places[output].url
        return value


def check_source(thing: Any) -> None:
    """Look whether something can be an input.

    Raises
    ------
    ConfigError
    """
    value = source_of(thing)
    if isinstance(value, PipelineParameter):
        value = source_of(value.default_value)
    if not isinstance(value, Data | OutputFiles | StepOutput | FileDataset | str):
        as_dataset(value)
