"""Datastores: places for data under a name; a url, and what opens it."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daskprs.exceptions import ConfigError, UsageError
from daskprs.listing import is_local
from daskprs.pipelines.records import Records, check_name
from daskprs.pipelines.secrets import from_record, to_record
from daskprs.pipelines.transfer import copy_files, fetch_files, relative_paths
from daskprs.redaction import Secrets, has_secret

if TYPE_CHECKING:
    from daskprs.pipelines.workspace import Workspace

__all__ = ["DataPath", "Datastore", "Datastores"]

DEFAULT_DATASTORE = "workspaceblobstore"


@dataclass(frozen=True)
class Datastore:
    """A place for data under a name.

    Parameters
    ----------
    name : str
    url : str
        A folder of this machine, or of any store that fsspec opens.
    storage_options : mapping, optional
        For the store; never shown.

    Examples
    --------
    >>> from daskprs.pipelines import Datastore
    >>> Datastore("pictures", "abfs://pictures", {"account_key": "abc"}).path("2024/")
    DataPath(pictures: 2024)
    """

    name: str
    url: str
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def path(self, path: str = "") -> DataPath:
        """Name a file, folder or glob in it."""
        return DataPath(self, path)

    def url_of(self, path: str) -> str:
        """Return the url of a path in it.

        Raises
        ------
        ConfigError
            The path leads out of it.
        """
        inner = path.replace("\\", "/").strip("/")
        if ".." in inner.split("/"):
            raise ConfigError.of("path", path, "a path inside the datastore, such as 'images/'")
        inner = "" if inner in ("", ".") else posixpath.normpath(inner)
        return f"{self.url.rstrip('/')}/{inner}" if inner else self.url

    def upload(
        self, source: str | Path, target_path: str = "", *, overwrite: bool = False
    ) -> DataPath:
        """Copy a folder into it.

        Raises
        ------
        UsageError
            A file is there already.
        """
        folder = Path(source).expanduser()
        if not folder.is_dir():
            raise ConfigError.of("source", str(source), "a folder that exists, such as 'data'")
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return self.upload_files(files, target_path, relative_root=folder, overwrite=overwrite)

    def upload_files(
        self,
        files: Sequence[str | Path],
        target_path: str = "",
        *,
        relative_root: str | Path | None = None,
        overwrite: bool = False,
        skip_existing: bool = False,
    ) -> DataPath:
        """Copy files into it, under their names below `relative_root`; without that, their own."""
        paths = [Path(os.path.abspath(Path(file).expanduser())) for file in files]
        named = relative_paths(paths, relative_root)
        copy_files(
            named, self.url_of(target_path), self.storage_options,
            overwrite=overwrite, skip_existing=skip_existing,
        )  # fmt: skip
        return self.path(target_path)

    def download(
        self,
        target: str | Path,
        prefix: str = "",
        *,
        overwrite: bool = False,
        skip_existing: bool = False,
    ) -> list[Path]:
        """Copy what is below a path of it to this machine, under the same names as here."""
        return fetch_files(
            self.url_of(prefix), self.storage_options, Path(target),
            below=prefix.strip("/"), overwrite=overwrite, skip_existing=skip_existing,
        )  # fmt: skip


@dataclass(frozen=True)
class DataPath:
    """A path in a datastore; without one, a path of this machine or a url.

    Parameters
    ----------
    datastore : Datastore or None
    path : str
    """

    datastore: Datastore | None
    path: str

    @classmethod
    def of(cls, value: object) -> DataPath:
        """Make one of a path, a url, or a tuple of a datastore and a path.

        Raises
        ------
        ConfigError
        """
        if isinstance(value, DataPath):
            return value
        if isinstance(value, Datastore):
            return cls(value, "")
        if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], Datastore):
            return cls(value[0], str(value[1]))
        if isinstance(value, str | os.PathLike) and str(value).strip():
            text = os.fspath(value)
            return cls(None, os.path.abspath(os.path.expanduser(text)) if is_local(text) else text)
        accepted = "a path, a url, or a datastore and a path in it, such as (datastore, 'images/')"
        raise ConfigError.of("path", value, accepted)

    @property
    def url(self) -> str:
        return self.path if self.datastore is None else self.datastore.url_of(self.path)

    @property
    def storage_options(self) -> dict[str, Any]:
        return {} if self.datastore is None else dict(self.datastore.storage_options)

    def __repr__(self) -> str:
        if self.datastore is None:
            return Secrets((), [self.path], {}).hide(f"DataPath({self.path!r})")
        return f"DataPath({self.datastore.name}: {self.path.strip('/')})"


class Datastores(Mapping[str, Datastore]):
    """The datastores of a workspace, by name.

    Parameters
    ----------
    workspace : Workspace
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._records = Records(workspace.folder, "datastores")

    def register(
        self,
        name: str,
        url: str | Path,
        storage_options: Mapping[str, Any] | None = None,
        *,
        overwrite: bool = True,
        write_secrets: bool = False,
    ) -> Datastore:
        """Give a name to a url.

        Parameters
        ----------
        storage_options : mapping, optional
            What opens the store. The values of options such as ``account_key`` are not written:
            in their place stands the environment variable that has the value, or else one of a
            name made for it, which another process has to set; see `EnvironmentSecret`.
        overwrite : bool
            Take the place of a datastore of this name.
        write_secrets : bool
            Write all options as they are.

        Raises
        ------
        ConfigError, UsageError
        """
        check_name("name", name)
        text = os.fspath(url)
        if is_local(text):
            text = os.path.abspath(os.path.expanduser(text.removeprefix("file://")))
        elif has_secret(text):
            raise ConfigError.of("url", "...", "a url without a key: put it in storage_options")
        if not overwrite and name in self:
            raise UsageError(
                f"the datastore {name!r} is there already: take overwrite=True, or another name."
            )
        where = {"workspace": self._workspace.folder.url, "datastore": name}
        options = to_record(storage_options or {}, **where, write_secrets=write_secrets)
        self._records.replace(name, {"url": text, "storage_options": options})
        return self[name]

    def register_azure_blob_container(
        self,
        name: str,
        container: str,
        account: str,
        *,
        overwrite: bool = True,
        write_secrets: bool = False,
        **credentials: Any,
    ) -> Datastore:
        """Give a name to a container of Azure Blob Storage.

        The accounts in the workspace's ``config.json`` say where else an account's data are.

        Parameters
        ----------
        credentials
            Such as ``account_key`` or ``sas_token``; see adlfs.
        """
        options = {key: value for key, value in credentials.items() if value is not None}
        moved = self._workspace.accounts.get(account)
        if moved is None:
            url, options = f"abfs://{container}", {"account_name": account, **options}
        else:
            url = str(moved["url"])
            url = f"{url if url.endswith('/') else url + '/'}{container}"
            url = _absolute(url, self._workspace.base)
            options = dict(moved.get("storage_options", {}))
        return self.register(name, url, options, overwrite=overwrite, write_secrets=write_secrets)

    def unregister(self, name: str) -> None:
        """Forget a name; the data stay."""
        self._records.remove(name)

    @property
    def default(self) -> Datastore:
        """Where outputs go that name no other."""
        return self[self._workspace.settings().get("default_datastore", DEFAULT_DATASTORE)]

    def set_default(self, name: str) -> None:
        _ = self[name]
        self._workspace.change_settings(default_datastore=name)

    def __getitem__(self, name: str) -> Datastore:
        record = self._records.read(name)
        if record is None and name == DEFAULT_DATASTORE:
            folder = self._workspace.folder
            return Datastore(name, folder.url_of("data"), folder.storage_options)
        if record is None:
            raise KeyError(f"the workspace has no datastore {name!r}: it has {', '.join(self)}.")
        options = from_record(
            record["storage_options"], workspace=self._workspace.folder.url, datastore=name
        )
        return Datastore(name, record["url"], options)

    def __iter__(self) -> Iterator[str]:
        yield from sorted({DEFAULT_DATASTORE, *self._records.all()})

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _absolute(url: str, base: str) -> str:
    """Take a relative path for one beside the workspace's config.json."""
    if is_local(url) and "://" not in url and not os.path.isabs(os.path.expanduser(url)):
        return os.path.join(base, url)
    return url
