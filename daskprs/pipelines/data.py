"""Data: files or tables described well enough to be found again, and registered as datasets."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from daskprs.datasets import FileDataset, TabularDataset
from daskprs.exceptions import ConfigError, UsageError
from daskprs.pipelines.datastores import DataPath
from daskprs.pipelines.partitions import write_partitions
from daskprs.pipelines.records import Records, check_name
from daskprs.pipelines.tables_in_memory import column_count, read_rows
from daskprs.pipelines.transfer import fetch_files
from daskprs.redaction import has_secret

if TYPE_CHECKING:
    import pandas as pd

    from daskprs.pipelines.workspace import Workspace

__all__ = ["Data", "Datasets"]

_OF_COLUMNS = ("date_format", "dtype", "parse_dates", "usecols")
NUMBERED = "numbered_columns"  # not of pandas: Azure ML's names for columns without a header


@dataclass(frozen=True)
class Data:
    """Files or tables in datastores, or anywhere.

    `files` and `tables` make one. A step takes it as an input, and `Workspace.datasets` keeps it
    under a name.

    Attributes
    ----------
    kind : {"files", "tables"}
    paths : tuple of DataPath
    options : mapping
        What else `FileDataset` or `TabularDataset` is to be told.
    name, version, tags, description
        Of a registered dataset.
    partition_keys : tuple of str
        Columns by which the files were written.

    Examples
    --------
    >>> from daskprs.pipelines import Data
    >>> Data.files("abfs://pictures/2024").open()
    FileDataset(['abfs://pictures/2024'])
    """

    kind: Literal["files", "tables"]
    paths: tuple[DataPath, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    name: str | None = None
    version: int | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    description: str | None = None
    partition_keys: tuple[str, ...] = ()
    first_row: int = 0
    row_count: int | None = None

    @classmethod
    def files(cls, *paths: Any, partition_format: str | None = None) -> Data:
        """Describe files.

        Parameters
        ----------
        paths
            Each a path, a url, a `DataPath`, or a datastore and a path in it.
        partition_format : str, optional
            See `FileDataset`.
        """
        options = {} if partition_format is None else {"partition_format": partition_format}
        return cls("files", _paths(paths), options)._checked()

    @classmethod
    def tables(cls, *paths: Any, **options: Any) -> Data:
        """Describe tables.

        Parameters
        ----------
        paths
            As for `files`.
        options
            Of `TabularDataset`.
        """
        return cls("tables", _paths(paths), options)._checked()

    def _checked(self) -> Data:
        stores = {None if path.datastore is None else path.datastore.name for path in self.paths}
        if len(stores) > 1:
            named = sorted(name or "no datastore" for name in stores)
            raise ConfigError.of("paths", named, "paths of one datastore: give several inputs")
        self._make({name: text for name, text in self.options.items() if name != NUMBERED}, None)
        return self

    def _make(self, options: Mapping[str, Any], name: str | None) -> FileDataset | TabularDataset:
        make = FileDataset if self.kind == "files" else TabularDataset
        return make(
            [path.url for path in self.paths],
            storage_options=self.paths[0].storage_options,
            name=name or self.name,
            **options,
        )

    def open(self, name: str | None = None) -> FileDataset | TabularDataset:
        """Make the input of a step.

        Raises
        ------
        ConfigError
            It is a part of tables, by `rows`.
        """
        if self.row_count is not None or self.first_row:
            raise ConfigError.of(
                "inputs", "the first rows of a dataset", "a whole dataset: rows can be looked at"
            )
        options = dict(self.options)
        if options.pop(NUMBERED, False):
            plain = {key: value for key, value in options.items() if key not in _OF_COLUMNS}
            count = column_count(self._make(plain, name))
            options["names"] = [f"Column{n + 1}" for n in range(count)]
        return self._make(options, name)

    # A part of it

    def first_files(self, start: int, stop: int | None) -> Data:
        """Take some of the files, in the order of the listing."""
        found = itertools.islice(self.open().files(), start, stop)
        urls = [file.path for file in found]
        if not urls:
            raise UsageError("there are no such files in the dataset: take fewer away.")
        store = self.paths[0].datastore
        return replace(self, paths=tuple(_inside(url, store) for url in urls), version=None)

    def rows(self, start: int = 0, count: int | None = None) -> Data:
        """Take some of the rows, to look at them."""
        left = self.row_count
        if left is not None:
            left = max(0, left - start)
            count = left if count is None else min(count, left)
        return replace(self, first_row=self.first_row + start, row_count=count)

    def columns(self, names: list[str]) -> Data:
        """Take some of the columns."""
        option = "columns" if self.options.get("format") == "parquet" else "usecols"
        return replace(self, options={**self.options, option: list(names)}, version=None)

    # Its content

    def to_pandas(self) -> pd.DataFrame:
        """Read the rows into memory."""
        whole = replace(self, first_row=0, row_count=None).open()
        return read_rows(whole, self.first_row, self.row_count)

    def download(self, target: str | Path, *, overwrite: bool = False) -> list[Path]:
        """Copy the files to this machine."""
        return [
            place
            for path in self.paths
            for place in fetch_files(
                path.url, path.storage_options, Path(target), overwrite=overwrite
            )
        ]

    def partition_by(self, keys: list[str], target: Any, name: str | None = None) -> Data:
        """Write the rows of each combination of keys as a parquet file of their own.

        Parameters
        ----------
        keys : list of str
            Columns.
        target : DataPath
            An empty folder.

        Returns
        -------
        Data
            The tables that were written.
        """
        path = DataPath.of(target)
        write_partitions(self.open(), keys, path.url, path.storage_options)
        made = Data.tables(path, format="parquet")
        return replace(made, name=name, partition_keys=tuple(keys))

    # On disk

    def to_record(self) -> dict[str, Any]:
        """Describe it in plain types, without secrets.

        Raises
        ------
        ConfigError
            A url with a key in it.
        """
        if any(path.datastore is None and has_secret(path.path) for path in self.paths):
            raise ConfigError.of("paths", "...", "urls without keys: register a datastore first")
        if self.row_count is not None or self.first_row:
            raise ConfigError.of("dataset", "some rows of a dataset", "a whole dataset")
        return {
            "kind": self.kind,
            "paths": [
                {"datastore": path.datastore and path.datastore.name, "path": path.path}
                for path in self.paths
            ],
            "options": dict(self.options),
            "tags": dict(self.tags),
            "description": self.description,
            "partition_keys": list(self.partition_keys),
        }

    def __repr__(self) -> str:
        name = "" if self.name is None else f"{self.name!r}, "
        return f"Data({name}{self.kind}: {', '.join(map(repr, self.paths))})"


class Datasets(Mapping[str, Data]):
    """The registered datasets of a workspace, by name; each has versions.

    Parameters
    ----------
    workspace : Workspace
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._records = Records(workspace.folder, "datasets")

    def register(
        self,
        data: Data,
        name: str,
        *,
        description: str | None = None,
        tags: Mapping[str, str] | None = None,
        new_version: bool = True,
    ) -> Data:
        """Keep data under a name.

        Parameters
        ----------
        new_version : bool
            Whether other data of the same name become a new version; else they are refused.

        Raises
        ------
        UsageError
        """
        check_name("name", name)
        record = {**data.to_record(), "description": description, "tags": dict(tags or {})}
        latest = self._records.read(name)
        facts = ("kind", "paths", "options")
        if latest is not None:
            if all(latest[fact] == record[fact] for fact in facts):
                return self.described(latest)
            if not new_version:
                raise UsageError(
                    f"the dataset {name!r} is there already, with other data: ask for a new "
                    "version (create_new_version=True), or take another name."
                )
        return self.described(self._records.add(name, record))

    def get(  # type: ignore[override]
        self, name: str, version: int | str | None = None
    ) -> Data:
        """Return a registered dataset.

        Parameters
        ----------
        version : int, optional
            Default: the latest.

        Raises
        ------
        UsageError
            It is not there.
        """
        wanted = None if version in (None, "latest") else int(version or 0)
        record = self._records.read(name, wanted)
        if record is None:
            which = "" if wanted is None else f" with version {wanted}"
            raise UsageError(
                f"the workspace has no dataset {name!r}{which}: it has {self._records.all()}."
            )
        return self.described(record)

    def versions(self, name: str) -> list[int]:
        return self._records.all().get(name, [])

    def unregister(self, name: str) -> None:
        """Forget all versions; the data stay."""
        self._records.remove(name)

    def described(self, record: Mapping[str, Any]) -> Data:
        """Make data of what `Data.to_record` tells."""
        stores = self._workspace.datastores
        paths = tuple(
            DataPath(stores[told["datastore"]] if told["datastore"] else None, told["path"])
            for told in record["paths"]
        )
        return Data(
            record["kind"],
            paths,
            copy.deepcopy(record["options"]),
            record.get("name"),
            record.get("version"),
            record["tags"],
            record["description"],
            tuple(record["partition_keys"]),
        )

    def __getitem__(self, name: str) -> Data:
        if name not in self._records.all():
            raise KeyError(name)
        return self.get(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._records.all())

    def __len__(self) -> int:
        return len(self._records.all())


def _paths(given: tuple[Any, ...]) -> tuple[DataPath, ...]:
    flat: list[Any] = []
    for value in given:
        is_pair = isinstance(value, tuple) and len(value) == 2 and not isinstance(value[0], str)
        many = isinstance(value, list | tuple) and not (is_pair and isinstance(value[1], str))
        flat.extend(value if many else [value])
    if not flat:
        raise ConfigError.of("paths", given, "at least one path, such as 'images/*.png'")
    return tuple(map(DataPath.of, flat))


def _inside(url: str, store: Any) -> DataPath:
    """Name a listed file by its datastore, so that it opens with the same options."""
    if store is None:
        return DataPath.of(url)
    root = store.url_of("")
    if url.startswith(root):
        return DataPath(store, url[len(root) :])
    # A listing may write a url in another form, such as memory:///x for memory://x.
    inner = root.partition("://")[2].strip("/")
    return DataPath(store, url.partition("://")[2].lstrip("/")[len(inner) :])
