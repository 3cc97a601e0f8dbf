"""StepOutput: the folder that a step writes to, for the steps after it and for people."""

from __future__ import annotations

import fnmatch
import glob
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from daskprs.exceptions import ConfigError, InputNotFoundError
from daskprs.listing import list_files
from daskprs.output_files import WORK
from daskprs.output_folder import OutputFolder
from daskprs.pipelines.data import Data
from daskprs.pipelines.datastores import DataPath, Datastore
from daskprs.pipelines.records import check_name
from daskprs.pipelines.transfer import fetch_files

__all__ = ["OutputFiles", "StepOutput", "WrittenOutput"]

# What a run itself writes into the folder besides its rows.
_NOT_DATA = (WORK, "logs", "logs.previous")


class StepOutput:
    """The folder that a step writes to; another step takes it as an input.

    Parameters
    ----------
    name : str
    datastore : Datastore, optional
        Default: that of the workspace.
    path : str, optional
        In the datastore; ``{run-id}`` and ``{output-name}`` become theirs. Default: a folder of
        each run.
    register_as : str, optional
        Name of the dataset that it becomes when the step has completed.

    Examples
    --------
    >>> from daskprs.pipelines import StepOutput
    >>> StepOutput("scores").as_tables(format="csv")
    OutputFiles('scores', tables)
    """

    def __init__(
        self,
        name: str,
        datastore: Datastore | None = None,
        *,
        path: str | None = None,
        register_as: str | None = None,
    ) -> None:
        self.name = check_name("name", name)
        if datastore is not None and not isinstance(datastore, Datastore):
            raise ConfigError.of("datastore", datastore, "a Datastore, such as ws.datastores['x']")
        self.datastore, self.path, self.register_as = datastore, path, register_as
        self.register_how: OutputFiles | None = None  # else as files

    def as_files(
        self,
        partition_format: str | None = None,
        name: str | None = None,
        pattern: str | None = None,
    ) -> OutputFiles:
        """Take it as files; see `FileDataset`.

        Parameters
        ----------
        pattern : str, optional
            A glob for the paths of those that are wanted, such as ``"**/*.csv"``.
        """
        options = {} if partition_format is None else {"partition_format": partition_format}
        return OutputFiles(self, "files", options, name, _checked(pattern))

    def as_tables(
        self, name: str | None = None, pattern: str | None = None, **options: Any
    ) -> OutputFiles:
        """Take it as tables; see `TabularDataset`.

        Parameters
        ----------
        pattern : str, optional
            A glob for the paths of those that are wanted, such as ``"**/*.csv"``.
        """
        return OutputFiles(self, "tables", options, name, _checked(pattern))

    def place(self, default: Datastore, run_id: str) -> DataPath:
        """Say where a run writes it."""
        path = self.path or "azureml/{run-id}/{output-name}"
        path = path.replace("{run-id}", run_id).replace("{output-name}", self.name)
        return DataPath(self.datastore or default, path.strip("/"))

    def registered_data(self, place: DataPath) -> Data:
        """Describe the dataset that it becomes, without the logs that a run leaves beside it."""
        if self.register_how is None and not _has_logs(place):
            return Data.files(place)
        return (self.register_how or OutputFiles(self)).data(place)

    @property
    def is_fixed(self) -> bool:
        """Whether all runs write to the same folder."""
        return self.path is not None and "{run-id}" not in self.path

    def __repr__(self) -> str:
        return f"StepOutput({self.name!r})"


@dataclass(frozen=True, repr=False)
class OutputFiles:
    """The output of a step, as the input of another."""

    output: StepOutput
    kind: Literal["files", "tables"] = "files"
    options: Mapping[str, Any] = field(default_factory=dict)
    name: str | None = None
    pattern: str | None = None

    def data(self, place: DataPath) -> Data:
        """Describe what a run has written, without its logs.

        Raises
        ------
        InputNotFoundError
            It has written nothing, or nothing that matches the pattern.
        """
        names = _names(place)
        if not names:
            raise InputNotFoundError(
                f"the output {self.output.name!r} is empty: the step that writes it has written "
                "nothing."
            )
        if self.pattern is not None:
            names = [path for path in _matching(self.pattern, names) if _is_there(place, path)]
            if not names:
                raise InputNotFoundError(
                    f"no file of the output {self.output.name!r} matches {self.pattern!r}."
                )
        paths = tuple(replace(place, path=f"{place.path}/{name}") for name in names)
        make = Data.files if self.kind == "files" else Data.tables
        return make(*paths, **self.options)

    def __repr__(self) -> str:
        return f"OutputFiles({self.output.name!r}, {self.kind})"


def _all_names(place: DataPath) -> list[str]:
    import fsspec

    fs, root = fsspec.core.url_to_fs(place.url, **place.storage_options)
    fs.invalidate_cache()
    try:
        found = fs.ls(root, detail=False)
    except FileNotFoundError:
        return []
    return [str(path).rstrip("/").rpartition("/")[2] for path in found]


def _names(place: DataPath) -> list[str]:
    names = _all_names(place)
    return sorted(name for name in names if name not in _NOT_DATA and not name.startswith("."))


def _has_logs(place: DataPath) -> bool:
    return not set(_NOT_DATA).isdisjoint(_all_names(place)) and bool(_names(place))


def _checked(pattern: object) -> str | None:
    accepted = "a glob inside the output, such as '**/*.csv'"
    if pattern is None:
        return None
    if not isinstance(pattern, str) or not pattern.strip("/"):
        raise ConfigError.of("pattern", pattern, accepted)
    parts = pattern.split("/")
    if pattern.startswith("/") or ".." in parts or "://" in pattern:
        raise ConfigError.of("pattern", pattern, accepted)
    return pattern


def _matching(pattern: str, names: list[str]) -> list[str]:
    """Put the names at the top in the place of wildcards, so that logs beside them do not match."""
    first, _, rest = pattern.partition("/")
    if first == "**":
        here = _matching(rest, names) if rest else names
        return list(dict.fromkeys([*here, *(f"{glob.escape(name)}/{pattern}" for name in names)]))
    found = [name for name in names if fnmatch.fnmatchcase(name, first)]
    return [f"{glob.escape(name)}/{rest}" for name in found] if rest else found


def _is_there(place: DataPath, path: str) -> bool:
    url = f"{place.url.rstrip('/')}/{path}"
    try:
        return next(list_files([url], storage_options=place.storage_options), None) is not None
    except InputNotFoundError:
        return False


@dataclass(frozen=True)
class WrittenOutput:
    """What a run has written.

    Attributes
    ----------
    name : str
    place : DataPath
    """

    name: str
    place: DataPath

    @property
    def path_on_datastore(self) -> str:
        return self.place.path

    def download(self, local_path: str | Path, overwrite: bool = False) -> list[Path]:
        """Copy it to this machine, to below its path on the datastore.

        Parameters
        ----------
        overwrite : bool
            Also over files that are there.

        Returns
        -------
        list of Path
            The files.
        """
        return fetch_files(
            self.place.url, self.place.storage_options, Path(local_path),
            below=self.place.path, overwrite=overwrite, leave_out=_NOT_DATA,
        )  # fmt: skip

    def folder(self) -> OutputFolder:
        return OutputFolder(self.place.url, self.place.storage_options)
