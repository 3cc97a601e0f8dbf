"""Job: everything that a run is, checked and ready; and what makes two runs the same run."""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from daskprs.config import ParallelRunConfig
from daskprs.dask_imports import DASK_IMPORTS
from daskprs.data_files import changed_files, files_named, without_own_streams
from daskprs.datasets import FrameDataset
from daskprs.entry_script import EntryScriptSource
from daskprs.journal import Journal
from daskprs.listing import is_local
from daskprs.mini_batches import (
    Dataset,
    MiniBatch,
    bytes_of,
    count_of,
    frame_token,
    is_shuffled,
    plan,
)
from daskprs.output_folder import OutputFolder
from daskprs.redaction import Secrets
from daskprs.script_host import ScriptPackage, SourcePath
from daskprs.side_inputs import SideInput, SideModel, SidePath

__all__ = ["Job"]

Argument = str | SourcePath | SidePath


@dataclass(frozen=True)
class Job:
    """One submission of a step.

    Attributes
    ----------
    arguments : tuple
        For the script's ``sys.argv``; paths that every worker has to find are objects.
    surroundings : mapping
        Environment variables that tell the script where its run belongs; they do not make it
        another run.
    token : str
        Of this submission alone: names the worker plugin and the tasks.
    """

    name: str
    config: ParallelRunConfig
    inputs: tuple[Dataset, ...]
    source: EntryScriptSource
    folder: OutputFolder
    arguments: tuple[Argument, ...] = ()
    side_inputs: tuple[SideInput, ...] = ()
    models: tuple[SideModel, ...] = ()
    surroundings: Mapping[str, str] = field(default_factory=dict)
    allow_reuse: bool = True
    retry_failed: bool = False
    token: str = field(default_factory=lambda: uuid.uuid4().hex[:12])

    @property
    def output_format(self) -> str | None:
        """Format of the rows; None where none are wanted."""
        summary = self.config.output_action == "summary_only"
        return None if summary else self.config.output_format

    def package(self, *, in_place: bool) -> ScriptPackage:
        """Make ready the script for the workers; `in_place` where they see its folder."""
        config = self.config
        return ScriptPackage(
            token=self.token,
            script=self.source.relative,
            folder=str(self.source.folder),
            archive=None if in_place else self.source.archive(),
            arguments=self.arguments,
            side_inputs=tuple(side.packed(in_place=in_place) for side in self.side_inputs),
            models=self.models,
            output_format=self.output_format,
            to_csv_options=self.source.to_csv_options(),
            logging_level=config.logging_level,
            environment={**self.surroundings, **config.environment_variables},
            output_folder=self.folder.url,
            init_timeout=config.init_timeout,
            process_count=config.process_count_per_node,
            memory_limit=config.memory_limit,
        )

    @cached_property
    def secrets(self) -> Secrets:
        """What must not stand in anything that the run writes or says."""
        urls = [self.folder.url, *(side.url for side in self.side_inputs)]
        options = [self.folder.storage_options, *(s.storage_options for s in self.side_inputs)]
        for dataset in self.inputs:
            if not isinstance(dataset, FrameDataset):
                urls += dataset.urls
                options.append(dataset.storage_options)
        return Secrets(options, urls, self.config.environment_variables)

    @property
    def is_shuffled(self) -> bool:
        """Whether the mini-batches are known only when the rows have been read."""
        return any(is_shuffled(dataset, self.config) for dataset in self.inputs)

    def plan_without_cluster(self) -> Iterator[MiniBatch]:
        """Plan what can be planned by listing; nothing of an input that has to be shuffled.

        With such an input, `identity` holds its listing: no need to read it to know it again.
        """
        return iter(()) if self.is_shuffled else plan(self.inputs, self.config)

    # Is an earlier run the same run?

    def facts(self) -> dict[str, Any]:
        """What the journal says about the run in its first line."""
        return {
            "run": self.identity(),
            "settings": {name: _digest(value) for name, value in self._settings().items()},
            "started": time.time(),
            "files": self._other_files(),
        }

    def identity(self) -> str:
        """Hash of all that decides the rows: the script, its arguments, inputs and settings.

        How often, how long, how many at a time and how many may fail are not a part of it.
        """
        return _digest(
            {
                "script": [self.source.relative, self.source.code_token()],
                "arguments": [repr(argument) for argument in self.arguments],
                "environment": sorted(self.config.environment_variables.items()),
                "side_inputs": [side.identity() for side in self.side_inputs],
                "models": [[m.name, m.version, m.side_input] for m in self.models],
                **self._settings(),
            }
        )

    def _settings(self) -> dict[str, Any]:
        """What decides the mini-batches and the form of the output, whatever the script does."""
        config = self.config
        return {
            "the inputs or mini_batch_size": [_describe(d, config) for d in self.inputs],
            "partition_keys": config.partition_keys,
            "output_action": config.output_action,
            "output_format": config.output_format,
            "ordered": config.ordered,
            "append_row_file_name": config.append_row_file_name,
            "the input files": [_listing(d) for d in self.inputs] if self.is_shuffled else None,
        }

    def changed_settings(self, journal: Journal) -> list[str]:
        """Name what of it is not as in the run of a journal."""
        before = journal.header.get("settings", {})
        return [name for name, value in self._settings().items()
                if before.get(name) != _digest(value)]  # fmt: skip

    def _other_files(self) -> dict[str, list[int]]:
        """Size and time (ns) of files that the script may read: beside it, or as arguments."""
        named = files_named(self.arguments, self.folder.local)
        return without_own_streams({**self.source.data_files(), **named}, self.source.folder)

    def is_same_run(self, journal: Journal, written: Collection[str]) -> bool:
        """Say whether a journal is of this run, so that it can go on, or be reused.

        Parameters
        ----------
        written : collection of str
            Files that changed while that run was going on: it does not read but write them.
        """
        if journal.header.get("run") != self.identity():
            return False
        return self.changed_files(journal) <= set(written)

    def changed_files(self, journal: Journal) -> set[str]:
        """Tell which data files are not as they were when the run of a journal began."""
        return changed_files(journal.header.get("files", {}), self.source.folder)

    def with_changes(self, **changes: Any) -> Job:
        return replace(self, **changes)


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _listing(dataset: Dataset) -> list[Any] | None:
    if isinstance(dataset, FrameDataset):
        return None
    return [[file.path, file.size, file.version] for file in dataset.files()]


def _describe(dataset: Dataset, config: ParallelRunConfig) -> list[Any]:
    if isinstance(dataset, FrameDataset):
        size = None if dataset.is_lazy else bytes_of(config.mini_batch_size)
        return ["frame", frame_token(dataset.frame), size]
    urls = [str(Path(url).absolute()) if is_local(url) else url for url in dataset.urls]
    where = dataset.partition_format.text if dataset.partition_format else None
    reader = getattr(dataset, "reader_options", None)
    if reader is None:
        size = count_of(config.mini_batch_size)
        return ["files", urls, where, size if config.partition_keys is None else None]
    with DASK_IMPORTS:
        from dask.base import tokenize

    size = bytes_of(config.mini_batch_size)
    facts = [dataset.format, dataset.quoted_newlines, tokenize(reader)]  # type: ignore[union-attr]
    return ["table", urls, where, size if config.partition_keys is None else None, *facts]
