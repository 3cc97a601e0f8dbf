"""ScriptInputs: the inputs and arguments of a script step, at local paths."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daskprs.datasets import FileDataset, TabularDataset
from daskprs.exceptions import ConfigError, InputNotFoundError
from daskprs.listing import is_local
from daskprs.pipelines.base import Launch, NamedInput
from daskprs.pipelines.data import Data
from daskprs.pipelines.datastores import DataPath
from daskprs.pipelines.file_states import input_state
from daskprs.pipelines.opened import Opened
from daskprs.pipelines.outputs import OutputFiles, StepOutput
from daskprs.side_inputs import SideInput

if TYPE_CHECKING:
    from daskprs.pipelines.script_step import ScriptStep

__all__ = ["Output", "ScriptInputs"]


@dataclass(frozen=True)
class Output:
    """A word that stands for the path of an output."""

    name: str


@dataclass
class _Source:
    """Files that the script reads as a whole.

    Attributes
    ----------
    name : str or None
        By which the script asks for it.
    urls : list of str
        What decides whether it is as it was: without logs, for the output of another step.
    table : Data or None
    """

    name: str | None
    url: str
    options: Mapping[str, Any] = field(repr=False)
    urls: list[str]
    table: Data | None = None
    path: str = ""

    def state(self) -> list[Any]:
        try:
            return [found for url in self.urls for found in input_state(url, self.options)]
        except InputNotFoundError:
            if os.path.isdir(self.url):  # a script may take a folder that is empty
                return []
            raise


class ScriptInputs:
    """The inputs and arguments of a script step, at local paths.

    Parameters
    ----------
    step : ScriptStep
    launch : Launch

    Raises
    ------
    InputNotFoundError
    """

    def __init__(self, step: ScriptStep, launch: Launch) -> None:
        self._opened = Opened(launch.values, launch.places)
        self._launch = launch
        self._sources: dict[int, _Source] = {}
        self._kept: list[Any] = []  # so that no id is given twice
        for thing in step.inputs:
            self._source(thing)
        self._words = [self._word(step, thing) for thing in step.arguments]

    def _word(self, step: ScriptStep, thing: Any) -> str | Output | _Source:
        value = self._opened.value(thing)
        if isinstance(value, StepOutput) and value in step.outputs:
            return Output(value.name)
        kinds = (Data, OutputFiles, StepOutput, FileDataset, TabularDataset)
        return self._source(thing) if isinstance(value, kinds) else str(value)

    def _source(self, thing: Any) -> _Source:
        value = self._opened.value(thing)
        output = value.output if isinstance(value, OutputFiles) else value
        # The output of a step is one input, in whatever form it is given.
        key = id(output) if isinstance(output, StepOutput) else id(value)
        made = self._made(thing, value)
        if key not in self._sources:
            self._sources[key] = made
            self._kept.append(value)
        known = self._sources[key]
        known.name, known.table = known.name or made.name, known.table or made.table
        return known

    def _made(self, thing: Any, value: Any) -> _Source:
        name = thing.name if isinstance(thing, NamedInput) else None
        if isinstance(value, OutputFiles | StepOutput):
            files = value if isinstance(value, OutputFiles) else value.as_files()
            place = self._launch.places[files.output]
            try:
                data = files.data(place)
                urls = [path.url for path in data.paths]
            except InputNotFoundError:  # the step has written nothing
                data, urls = None, []
            table = data if files.kind == "tables" else None
            name = name or files.name or files.output.name
            return _Source(name, place.url, place.storage_options, urls, table)
        if isinstance(value, Data):
            urls = [path.url for path in value.paths]
            table = value if value.kind == "tables" else None
            options = value.paths[0].storage_options
            return _Source(name or value.name, _one(urls, table), options, urls, table)
        if isinstance(value, FileDataset | TabularDataset):
            urls = list(value.urls)
            own = value.name if value.name != urls[0] else None
            return _Source(name or own, _one(urls, None), value.storage_options, urls)
        text = os.fspath(value)
        if is_local(text):
            text = os.path.abspath(os.path.expanduser(text))
        return _Source(name, text, {}, [text])

    # What is told of them

    def options(self) -> list[Mapping[str, Any]]:
        return [source.options for source in self._sources.values()]

    def urls(self) -> list[str]:
        return [url for source in self._sources.values() for url in (source.url, *source.urls)]

    def local_folders(self) -> Iterator[str]:
        return (url for url in self.urls() if is_local(url))

    def facts(self) -> list[Any]:
        """Tell what decides the outputs: the words, and what is known of the files.

        Raises
        ------
        InputNotFoundError
        """
        numbers = {id(source): number for number, source in enumerate(self._sources.values())}
        words = [
            ["input", numbers[id(word)]]
            if isinstance(word, _Source)
            else ["output", word.name] if isinstance(word, Output) else word
            for word in self._words
        ]  # fmt: skip
        tables = [repr(s.table and sorted(s.table.options.items())) for s in self._sources.values()]
        sources = [[s.name, s.urls, s.state()] for s in self._sources.values()]
        return [words, sources, tables]

    # At the start

    def fetch(self, folder: Path) -> None:
        """Copy what is not on this machine."""
        for number, source in enumerate(self._sources.values()):
            source.path = source.url
            if source.urls and not (is_local(source.url) and os.path.exists(source.url)):
                side = SideInput.find(source.name or str(number), source.url, source.options)
                source.path = side.packed(in_place=True).local_path(folder / str(number))

    def words(self, outputs: Mapping[Output, str]) -> list[str]:
        """Return the arguments, with paths in the place of what stands for them."""
        return [
            word.path
            if isinstance(word, _Source)
            else outputs[word] if isinstance(word, Output) else word
            for word in self._words
        ]  # fmt: skip

    def named_paths(self) -> dict[str, str]:
        return {s.name: s.path for s in self._sources.values() if s.name is not None}

    def named_tables(self) -> dict[str, dict[str, Any]]:
        """Tell how the tables among the inputs are read."""
        found = {}
        for source in self._sources.values():
            if source.name is not None and source.table is not None:
                found[source.name] = self._reachable(source.table).to_record()
        return found

    def _reachable(self, data: Data) -> Data:
        """Name places by their urls where the workspace has no such datastore."""
        known = self._launch.workspace.datastores
        paths = [
            path if path.datastore is None or path.datastore.name in known
            else DataPath(None, path.url) for path in data.paths
        ]  # fmt: skip
        return replace(data, paths=tuple(paths))


def _one(urls: list[str], table: Data | None) -> str:
    if len(urls) != 1 and table is None:
        raise ConfigError.of("inputs", urls, "data of one file, folder or glob for a script")
    return urls[0]
