"""``azureml.core.Datastore`` and ``azureml.data.datapath.DataPath``."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fsspec

from daskprs.azureml.partial import Partial
from daskprs.azureml.workspaces import Workspace
from daskprs.exceptions import UsageError
from daskprs.pipelines import datastores as native

__all__ = ["DataPath", "Datastore"]

_BLOB = "register_azure_blob_container, or a url in the accounts of config.json"


class Datastore(Partial):
    """A datastore of a workspace.

    Parameters
    ----------
    workspace : Workspace
    name : str, optional
        Default: the workspace's default datastore.
    """

    def __init__(self, workspace: Workspace, name: str | None = None) -> None:
        stores = workspace._native.datastores
        self.workspace = workspace
        self._native = stores.default if name is None else _get(workspace, name)

    @classmethod
    def _of(cls, workspace: Workspace, store: native.Datastore) -> Datastore:
        made = cls.__new__(cls)
        made.workspace, made._native = workspace, store
        return made

    @staticmethod
    def get(workspace: Workspace, datastore_name: str) -> Datastore:
        return Datastore(workspace, datastore_name)

    @staticmethod
    def get_default(workspace: Workspace) -> Datastore:
        return Datastore(workspace)

    @staticmethod
    def register_azure_blob_container(
        workspace: Workspace,
        datastore_name: str,
        container_name: str,
        account_name: str,
        sas_token: str | None = None,
        account_key: str | None = None,
        protocol: str | None = None,
        endpoint: str | None = None,
        overwrite: bool = False,
        create_if_not_exists: bool = False,
        skip_validation: bool = False,
        **kwargs: object,
    ) -> Datastore:
        """Give a name to a container; keys are not written, see `pipelines.Datastores`."""
        host = None if endpoint is None else f"{account_name}.blob.{endpoint}"
        made = workspace._native.datastores.register_azure_blob_container(
            datastore_name,
            container_name,
            account_name,
            overwrite=overwrite,
            sas_token=sas_token,
            account_key=account_key,
            account_host=host,
        )
        if create_if_not_exists:
            with contextlib.suppress(FileExistsError):
                fs, path = fsspec.core.url_to_fs(made.url, **made.storage_options)
                fs.makedirs(path, exist_ok=True)
        return Datastore._of(workspace, made)

    @staticmethod
    def register_azure_data_lake_gen2(
        workspace: Workspace,
        datastore_name: str,
        filesystem: str,
        account_name: str,
        tenant_id: str | None = None,
        client_id: str | None = None,
        client_secret: str | None = None,
        resource_url: str | None = None,
        authority_url: str | None = None,
        protocol: str | None = None,
        endpoint: str | None = None,
        overwrite: bool = False,
        **kwargs: object,
    ) -> Datastore:
        """Give a name to a file system of Data Lake Gen2."""
        host = None if endpoint is None else f"{account_name}.blob.{endpoint}"
        made = workspace._native.datastores.register_azure_blob_container(
            datastore_name,
            filesystem,
            account_name,
            overwrite=overwrite,
            tenant_id=tenant_id,
            client_id=client_id,
            client_secret=client_secret,
            account_host=host,
        )
        return Datastore._of(workspace, made)

    @staticmethod
    def register_azure_file_share(*args: object, **kwargs: object) -> Datastore:
        raise UsageError(f"Datastore.register_azure_file_share is not supported: take {_BLOB}.")

    @property
    def name(self) -> str:
        return self._native.name

    @property
    def account_name(self) -> str | None:
        return self._native.storage_options.get("account_name")

    @property
    def container_name(self) -> str:
        return self._native.url.rstrip("/").rpartition("/")[2]

    @property
    def datastore_type(self) -> str:
        return "AzureBlob"

    def path(self, path: str | None = None) -> DataPath:
        return DataPath(self, path)

    def upload(
        self,
        src_dir: str | os.PathLike[str],
        target_path: str | None = None,
        overwrite: bool = False,
        show_progress: bool = True,
    ) -> DataPath:
        """Copy a folder into it; files that are there are left alone without `overwrite`."""
        folder = Path(src_dir)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return self.upload_files(list(files), str(folder), target_path, overwrite)

    def upload_files(
        self,
        files: Sequence[str | os.PathLike[str]],
        relative_root: str | None = None,
        target_path: str | None = None,
        overwrite: bool = False,
        show_progress: bool = True,
    ) -> DataPath:
        """Copy files into it; those that are there are left alone without `overwrite`."""
        self._native.upload_files(
            [os.fspath(file) for file in files],
            target_path or "",
            relative_root=relative_root,
            overwrite=overwrite,
            skip_existing=not overwrite,
        )
        return self.path(target_path)

    def download(
        self,
        target_path: str | os.PathLike[str],
        prefix: str | None = None,
        overwrite: bool = False,
        show_progress: bool = True,
    ) -> int:
        """Copy what is below a prefix to this machine; return how many files."""
        made = self._native.download(
            os.fspath(target_path), prefix or "", overwrite=overwrite, skip_existing=not overwrite
        )
        return len(made)

    def as_mount(self) -> Any:
        """Take the whole datastore as an input of a step."""
        return self.path().as_mount()

    def as_download(self, path_on_compute: str | None = None) -> Any:
        """Take the whole datastore as an input of a step."""
        return self.path().as_mount()

    def set_as_default(self) -> None:
        self.workspace.set_default_datastore(self.name)

    def unregister(self) -> None:
        self.workspace._native.datastores.unregister(self.name)

    def __repr__(self) -> str:
        return f"Datastore({self.name!r})"


def _get(workspace: Workspace, name: str) -> native.Datastore:
    try:
        return workspace._native.datastores[name]
    except KeyError as error:
        raise UsageError(str(error.args[0])) from None


class DataPath(Partial):
    """A path in a datastore.

    Parameters
    ----------
    datastore : Datastore
    path_on_datastore : str, optional
    name : str, optional
    """

    def __init__(
        self,
        datastore: Datastore | None = None,
        path_on_datastore: str | None = None,
        name: str | None = None,
    ) -> None:
        self.datastore, self.path_on_datastore = datastore, path_on_datastore or ""
        self.name = name
        self._native = native.DataPath(
            None if datastore is None else datastore._native, self.path_on_datastore
        )

    def as_mount(self) -> Any:
        """Take it as an input of a step."""
        from daskprs.azureml.data_references import DataReference

        return DataReference.create(self.name, self)

    def as_download(self, path_on_compute: str | None = None, overwrite: bool = False) -> Any:
        """Take it as an input of a step."""
        return self.as_mount()

    def __repr__(self) -> str:
        return repr(self._native)


def as_native(path: Any) -> Any:
    """Turn what `from_files` takes into what `pipelines.Data` takes."""
    if isinstance(path, list):
        return [as_native(one) for one in path]
    if isinstance(path, tuple):
        return tuple(as_native(one) for one in path)
    return getattr(path, "_native", path)
