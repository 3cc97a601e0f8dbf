"""``azureml.core.Dataset``, and the two kinds of datasets of ``azureml.data``."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from daskprs.azureml.consumption import DatasetConsumptionConfig
from daskprs.azureml.data_types import DataType, PromoteHeadersBehavior, reader_types
from daskprs.azureml.datastores import as_native
from daskprs.azureml.partial import Partial, refuse
from daskprs.azureml.workspaces import Workspace
from daskprs.listing import base_folder
from daskprs.pipelines.data import NUMBERED, Data

if TYPE_CHECKING:
    import dask.dataframe
    import pandas as pd


__all__ = [
    "Dataset",
    "FileDataset",
    "FileDatasetFactory",
    "MountContext",
    "TabularDataset",
    "delimited_options",
]

_INCLUDE_PATH = "take partition_format for keys in the paths, or a FileDataset"


class _Dataset(Partial):
    """What file and table datasets share."""

    def __init__(self, data: Data) -> None:
        self._native = data

    @property
    def name(self) -> str | None:
        return self._native.name

    @property
    def version(self) -> int | None:
        return self._native.version

    @property
    def tags(self) -> dict[str, str]:
        return dict(self._native.tags)

    @property
    def description(self) -> str | None:
        return self._native.description

    @property
    def partition_keys(self) -> list[str]:
        return list(self._native.partition_keys) or self._native.open().keys

    def as_named_input(self, name: str) -> DatasetConsumptionConfig:
        return DatasetConsumptionConfig(name, self)

    def _registered(
        self,
        workspace: Workspace,
        name: str,
        description: str | None,
        tags: Mapping[str, str] | None,
        create_new_version: bool,
    ) -> Data:
        return workspace._native.datasets.register(
            self._native, name, description=description, tags=tags, new_version=create_new_version
        )

    def unregister_all_versions(self, workspace: Workspace | None = None) -> None:
        """Forget the dataset; the workspace has to be given."""
        refuse(workspace=(workspace is None, "give the workspace"))
        if workspace is not None and self.name is not None:
            workspace._native.datasets.unregister(self.name)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._native!r})"


class MountContext(Partial):
    """A folder with a copy of the files, between ``start`` and ``stop`` or in a ``with`` block.

    Attributes
    ----------
    mount_point : str
    """

    def __init__(self, dataset: FileDataset, mount_point: str | None) -> None:
        self._dataset, self._made = dataset, mount_point is None
        self.mount_point = mount_point or tempfile.mkdtemp(prefix="daskprs-")

    def start(self) -> None:
        self._dataset.download(self.mount_point, overwrite=True)

    def stop(self) -> None:
        if self._made:
            shutil.rmtree(self.mount_point, ignore_errors=True)

    def __enter__(self) -> MountContext:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()


class FileDataset(_Dataset):
    """Files; ``Dataset.File.from_files`` makes it."""

    def register(
        self,
        workspace: Workspace,
        name: str,
        description: str | None = None,
        tags: Mapping[str, str] | None = None,
        create_new_version: bool = False,
    ) -> FileDataset:
        return FileDataset(self._registered(workspace, name, description, tags, create_new_version))

    def as_mount(self, path_on_compute: str | None = None) -> DatasetConsumptionConfig:
        return DatasetConsumptionConfig(self.name, self, "mount", path_on_compute)

    def as_download(self, path_on_compute: str | None = None) -> DatasetConsumptionConfig:
        return DatasetConsumptionConfig(self.name, self, "download", path_on_compute)

    def to_path(self) -> list[str]:
        """Return the paths of the files, below the path of the dataset."""
        found = []
        for path in self._native.paths:
            base = base_folder(path.url, storage_options=path.storage_options)
            found.append(base)
        paths = [file.path for file in self._native.open().files()]
        return [_below(path, found) for path in paths]

    def download(
        self,
        target_path: str | os.PathLike[str] | None = None,
        overwrite: bool = False,
        ignore_not_found: bool = False,
    ) -> list[str]:
        target = os.fspath(target_path or tempfile.mkdtemp(prefix="daskprs-"))
        return [str(place) for place in self._native.download(target, overwrite=overwrite)]

    def mount(self, mount_point: str | None = None, **kwargs: object) -> MountContext:
        """Give the files a folder here, while the context lasts."""
        return MountContext(self, mount_point)

    def take(self, count: int) -> FileDataset:
        return FileDataset(self._native.first_files(0, count))

    def skip(self, count: int) -> FileDataset:
        return FileDataset(self._native.first_files(count, None))


class TabularDataset(_Dataset):
    """Tables; ``Dataset.Tabular`` makes it."""

    def register(
        self,
        workspace: Workspace,
        name: str,
        description: str | None = None,
        tags: Mapping[str, str] | None = None,
        create_new_version: bool = False,
    ) -> TabularDataset:
        return TabularDataset(
            self._registered(workspace, name, description, tags, create_new_version)
        )

    def to_pandas_dataframe(
        self, on_error: str = "null", out_of_range_datetime: str = "null"
    ) -> pd.DataFrame:
        return self._native.to_pandas()

    def to_dask_dataframe(self, sample_size: object = None) -> dask.dataframe.DataFrame:
        return self._native.open().to_dask_dataframe()  # type: ignore[union-attr]

    def take(self, count: int) -> TabularDataset:
        """Take the first rows, to look at them."""
        return TabularDataset(self._native.rows(0, count))

    def skip(self, count: int) -> TabularDataset:
        """Leave out the first rows, to look at the others."""
        return TabularDataset(self._native.rows(count))

    def keep_columns(self, columns: str | Sequence[str], validate: bool = False) -> TabularDataset:
        wanted = [columns] if isinstance(columns, str) else list(columns)
        return TabularDataset(self._native.columns(wanted))

    def partition_by(
        self,
        partition_keys: Sequence[str],
        target: Any,
        name: str | None = None,
        show_progress: bool = True,
        partition_as_file_dataset: bool = False,
    ) -> TabularDataset | FileDataset:
        """Write the rows of each combination of keys to a folder of their own.

        Parameters
        ----------
        target : DataPath
            Or a tuple of a datastore and a path.
        name : str, optional
            Register the result in the workspace of the target's datastore.
        """
        made = self._native.partition_by(list(partition_keys), as_native(target))
        if partition_as_file_dataset:
            pattern = "/".join(f"{key}={{{key}}}" for key in partition_keys) + "/*.parquet"
            made = Data.files(*made.paths, partition_format=pattern)
        if name is not None:
            store = target[0] if isinstance(target, tuple) else target.datastore
            made = store.workspace._native.datasets.register(made, name)
        return FileDataset(made) if partition_as_file_dataset else TabularDataset(made)


class FileDatasetFactory(Partial):
    """``Dataset.File``."""

    @staticmethod
    def from_files(
        path: Any,
        validate: bool = True,
        partition_format: str | None = None,
        is_file: bool = False,
    ) -> FileDataset:
        """Describe files; with `validate`, look whether there are any."""
        data = Data.files(as_native(path), partition_format=partition_format)
        if validate:
            next(iter(data.open().files()))
        return FileDataset(data)

    @staticmethod
    def upload_directory(
        src_dir: str | os.PathLike[str],
        target: Any,
        pattern: str | None = None,
        overwrite: bool = False,
        show_progress: bool = True,
    ) -> FileDataset:
        """Copy a folder to a path of a datastore."""
        refuse(pattern=(pattern, "upload the files with datastore.upload_files"))
        path = as_native(target)
        store, inner = path if isinstance(path, tuple) else (path.datastore, path.path)
        store.upload(os.fspath(src_dir), inner, overwrite=overwrite)
        return FileDataset(Data.files((store, inner)))


class TabularDatasetFactory(Partial):
    """``Dataset.Tabular``."""

    @staticmethod
    def from_delimited_files(
        path: Any,
        validate: bool = True,
        include_path: bool = False,
        infer_column_types: bool = True,
        set_column_types: Mapping[str, DataType] | None = None,
        separator: str = ",",
        header: bool | PromoteHeadersBehavior = True,
        partition_format: str | None = None,
        support_multi_line: bool = False,
        empty_as_string: bool = False,
        encoding: str = "utf8",
    ) -> TabularDataset:
        refuse(include_path=(include_path, _INCLUDE_PATH))
        options = delimited_options(
            separator, header, set_column_types, infer_column_types, empty_as_string, encoding
        )
        return _tables(path, validate, partition_format, format="csv", **options)

    @staticmethod
    def from_parquet_files(
        path: Any,
        validate: bool = True,
        include_path: bool = False,
        set_column_types: Mapping[str, DataType] | None = None,
        partition_format: str | None = None,
    ) -> TabularDataset:
        refuse(
            include_path=(include_path, _INCLUDE_PATH),
            set_column_types=(set_column_types, "a parquet file has the types of its columns"),
        )
        return _tables(path, validate, partition_format, format="parquet")

    @staticmethod
    def from_json_lines_files(
        path: Any,
        validate: bool = True,
        include_path: bool = False,
        set_column_types: Mapping[str, DataType] | None = None,
        partition_format: str | None = None,
        invalid_lines: str = "error",
        encoding: str = "utf8",
    ) -> TabularDataset:
        refuse(
            include_path=(include_path, _INCLUDE_PATH),
            set_column_types=(set_column_types, "change the types in run()"),
            invalid_lines=(invalid_lines != "error", "a line that is not JSON is an error"),
        )
        return _tables(path, validate, partition_format, format="jsonl", encoding=encoding)

    @staticmethod
    def register_pandas_dataframe(
        dataframe: pd.DataFrame,
        target: Any,
        name: str,
        description: str | None = None,
        tags: Mapping[str, str] | None = None,
        show_progress: bool = True,
    ) -> TabularDataset:
        """Write a DataFrame as a parquet file below a path of a datastore, and register that."""
        from pathlib import Path

        store = target[0] if isinstance(target, tuple) else getattr(target, "datastore", target)
        inner = target[1] if isinstance(target, tuple) else getattr(target, "path_on_datastore", "")
        place = f"{inner.strip('/')}/{uuid.uuid4().hex}".strip("/")
        with tempfile.TemporaryDirectory(prefix="daskprs-") as folder:
            file = Path(folder, "data.parquet")
            dataframe.to_parquet(file, index=False)
            store._native.upload_files([file], place)
        made = TabularDataset(Data.tables((store._native, place), format="parquet"))
        return made.register(store.workspace, name, description, tags, create_new_version=True)


class Dataset(Partial):
    """Makes and finds datasets."""

    File = FileDatasetFactory
    Tabular = TabularDatasetFactory

    @staticmethod
    def get_by_name(
        workspace: Workspace, name: str, version: int | str = "latest", **kwargs: object
    ) -> FileDataset | TabularDataset:
        return _wrapped(workspace._native.datasets.get(name, version))

    @staticmethod
    def get_all(workspace: Workspace) -> dict[str, FileDataset | TabularDataset]:
        found = workspace._native.datasets
        return {name: _wrapped(data) for name, data in found.items()}


def _wrapped(data: Data) -> FileDataset | TabularDataset:
    return FileDataset(data) if data.kind == "files" else TabularDataset(data)


def _tables(
    path: Any, validate: bool, partition_format: str | None, **options: Any
) -> TabularDataset:
    if partition_format is not None:
        options["partition_format"] = partition_format
    data = Data.tables(as_native(path), **options)
    if validate:
        numbered = {name: text for name, text in data.options.items() if name != NUMBERED}
        next(iter(Data.tables(*data.paths, **numbered).open().files()))
    return TabularDataset(data)


def delimited_options(
    separator: str = ",",
    header: bool | PromoteHeadersBehavior = True,
    set_column_types: Mapping[str, DataType] | None = None,
    infer_column_types: bool = True,
    empty_as_string: bool = False,
    encoding: str = "utf8",
) -> dict[str, Any]:
    """Give options of ``from_delimited_files`` as those of ``pandas.read_csv``."""
    options: dict[str, Any] = reader_types(set_column_types)
    if separator != ",":
        options["sep"] = separator
    if header in (False, PromoteHeadersBehavior.NO_HEADERS):
        options |= {"header": None, NUMBERED: True}
    refuse(
        header=(
            header is PromoteHeadersBehavior.ONLY_FIRST_FILE_HAS_HEADERS,
            "write the files with headers, or all without",
        )
    )
    if not infer_column_types:
        options.setdefault("dtype", "str")
    if empty_as_string:
        options |= {"keep_default_na": False, "na_values": []}
    if encoding not in ("utf8", "utf-8"):
        options["encoding"] = encoding
    return options


def _below(path: str, folders: Sequence[str]) -> str:
    base = max((base for base in folders if path.startswith(base)), key=len, default="")
    return "/" + path[len(base) :].lstrip("/")
