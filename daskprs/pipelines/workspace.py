"""Workspace: a folder that knows datastores, datasets, models, clusters and runs by name."""

from __future__ import annotations

import functools
import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daskprs.entry_script import WORKSPACE_MARK
from daskprs.exceptions import ConfigError, UsageError
from daskprs.json_text import json_text
from daskprs.listing import is_local
from daskprs.output_folder import OutputFolder
from daskprs.pipelines.secrets import from_record, to_record

if TYPE_CHECKING:
    from daskprs.pipelines.compute import ComputeTargets
    from daskprs.pipelines.data import Datasets
    from daskprs.pipelines.datastores import Datastores
    from daskprs.pipelines.environments import Environments
    from daskprs.pipelines.models import Models
    from daskprs.pipelines.runs import Experiments

__all__ = ["Workspace"]

CONFIG = "config.json"
_FOLDERS = ("", ".azureml", "aml_config", ".daskprs")
_SETTINGS = "settings.json"
_TOLD = ("subscription_id", "resource_group", "location")
_ITSELF = "workspace"  # in the place of a datastore, in the names of its secrets


class Workspace:
    """A folder that knows datastores, datasets, models, clusters and runs by name.

    Parameters
    ----------
    folder : str or Path
        Of this machine, or of any store that fsspec opens; `create` has made it.
    storage_options : mapping, optional
        For the store; not written.

    Attributes
    ----------
    name : str
    datastores, datasets, models, environments, compute_targets, experiments
        What it knows, by name.

    Examples
    --------
    >>> from daskprs.pipelines import Workspace
    >>> import tempfile
    >>> workspace = Workspace.create(tempfile.mkdtemp(), name="digits")
    >>> workspace
    Workspace('digits')
    >>> list(workspace.datastores)
    ['workspaceblobstore']
    """

    def __init__(
        self, folder: str | Path, *, storage_options: Mapping[str, Any] | None = None
    ) -> None:
        self.folder = OutputFolder(folder, storage_options)
        data = self.folder.read(CONFIG)
        if data is None:
            raise UsageError(
                f"{self.folder.url!r} is no workspace, since it has no {CONFIG}: make one with "
                "Workspace.create(folder)."
            )
        self._take(_as_config(data, self.folder.url_of(CONFIG)), self.folder.url)

    def _take(self, config: Mapping[str, Any], base: str) -> None:
        self.config, self.base = dict(config), base
        self.name: str = str(config.get("workspace_name") or os.path.basename(base) or "workspace")

    @classmethod
    def create(
        cls,
        folder: str | Path,
        *,
        name: str | None = None,
        storage_options: Mapping[str, Any] | None = None,
        exist_ok: bool = False,
        **config: Any,
    ) -> Workspace:
        """Make a workspace of a folder.

        Parameters
        ----------
        exist_ok : bool
            Open the one that is there.
        config
            What else its ``config.json`` says, such as `accounts` and `compute`.

        Raises
        ------
        UsageError
            There is one already.
        """
        place = OutputFolder(folder, storage_options)
        place.make()
        facts = {"workspace_name": name or place.url.rstrip("/").rpartition("/")[2], **config}
        place.write(WORKSPACE_MARK, b"This folder is a workspace of daskprs.\n")
        if not place.create(CONFIG, json_text(facts, indent=2).encode()) and not exist_ok:
            raise UsageError(
                f"{place.url!r} is a workspace already: open it with Workspace({place.url!r}), or "
                "take exist_ok=True."
            )
        return cls(folder, storage_options=storage_options)

    @classmethod
    def from_config(cls, path: str | Path | None = None) -> Workspace:
        """Open the workspace that a ``config.json`` names, such as that of Azure ML.

        Parameters
        ----------
        path : str or Path, optional
            The file, or a folder in or above which it is; default: the working directory. It may
            be in ``.azureml/``. Its ``"folder"`` says where the workspace is; without that, it is
            ``.daskprs/`` beside the file.

        Raises
        ------
        UsageError
            There is none.
        """
        file = _find_config(Path.cwd() if path is None else Path(path).expanduser())
        config = _as_config(file.read_bytes(), str(file))
        base = file.parent if file.parent.name not in _FOLDERS[1:] else file.parent.parent
        name = str(config.get("workspace_name") or "workspace")
        where = str(config.get("folder") or Path(".daskprs", name))
        if is_local(where) and "://" not in where:
            where = str(base / Path(where).expanduser())
        options = from_record(config.get("storage_options", {}), workspace=where, datastore=_ITSELF)
        folder = OutputFolder(where, options)
        if folder.read(WORKSPACE_MARK) is None:
            folder.make()
            folder.write(WORKSPACE_MARK, b"This folder is a workspace of daskprs.\n")
        workspace = cls.__new__(cls)
        workspace.folder = folder
        workspace._take(config, str(base))
        return workspace

    # For other processes

    def facts(self) -> dict[str, Any]:
        """Tell what `from_facts` opens it by in another process; no secret is among it."""
        told = {key: self.config[key] for key in _TOLD if key in self.config}
        facts: dict[str, Any] = {**told, "name": self.name, "folder": self.folder.url}
        try:
            facts["storage_options"] = to_record(
                self.folder.storage_options,
                workspace=self.folder.url,
                datastore=_ITSELF,
                write_secrets=False,
            )
        except ConfigError as error:
            facts |= {"folder": "", "why_not": str(error)}
        return facts

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> Workspace:
        """Open the workspace that `facts` has told of, such as from a worker.

        Raises
        ------
        UsageError
            It cannot be reached from here.
        """
        url = facts.get("folder")
        if not url:
            why = f" ({facts['why_not']})" if facts.get("why_not") else ""
            raise UsageError(f"the workspace cannot be opened in another process{why}.")
        options = from_record(facts.get("storage_options", {}), workspace=url, datastore=_ITSELF)
        told = f"the workspace {url!r} cannot be reached from {socket.gethostname()}"
        try:
            folder = OutputFolder(url, options)
            is_there = folder.read(WORKSPACE_MARK) is not None
        except OSError as error:
            raise UsageError(f"{told}: {error}.") from error
        if not is_there:
            raise UsageError(
                f"{told}: put it where all machines see it under this path, or into a store."
            )
        workspace = cls.__new__(cls)
        workspace.folder = folder
        workspace._take({**facts, "workspace_name": facts.get("name")}, url)
        return workspace

    # What config.json says

    @property
    def accounts(self) -> dict[str, dict[str, Any]]:
        """Where the data of storage accounts are now: names to url and storage_options."""
        found: dict[str, dict[str, Any]] = {}
        for name, told in self.config.get("accounts", {}).items():
            if not isinstance(told, Mapping) or not isinstance(told.get("url"), str):
                raise ConfigError.of(
                    f'"accounts" of {CONFIG}', name, 'with a url, such as {"url": "/data/account"}'
                )
            options = from_record(
                told.get("storage_options", {}), workspace=self.folder.url, datastore=name
            )
            found[name] = {"url": told["url"], "storage_options": options}
        return found

    def settings(self) -> dict[str, Any]:
        """What was set for all who use the workspace."""
        data = self.folder.read(_SETTINGS)
        told: dict[str, Any] = {} if data is None else json.loads(data)
        return told

    def change_settings(self, **changes: Any) -> None:
        self.folder.write(_SETTINGS, json_text({**self.settings(), **changes}, indent=2).encode())

    # What it knows

    @functools.cached_property
    def datastores(self) -> Datastores:
        from daskprs.pipelines.datastores import Datastores

        return Datastores(self)

    @functools.cached_property
    def datasets(self) -> Datasets:
        from daskprs.pipelines.data import Datasets

        return Datasets(self)

    @functools.cached_property
    def models(self) -> Models:
        from daskprs.pipelines.models import Models

        return Models(self)

    @functools.cached_property
    def environments(self) -> Environments:
        from daskprs.pipelines.environments import Environments

        return Environments(self)

    @functools.cached_property
    def compute_targets(self) -> ComputeTargets:
        from daskprs.pipelines.compute import ComputeTargets

        return ComputeTargets(self)

    @functools.cached_property
    def experiments(self) -> Experiments:
        from daskprs.pipelines.runs import Experiments

        return Experiments(self)

    def __repr__(self) -> str:
        return f"Workspace({self.name!r})"


def _find_config(start: Path) -> Path:
    start = Path(os.path.abspath(start))
    if start.is_file():
        return start
    for folder in (start, *start.parents):
        for inner in _FOLDERS:
            file = folder / inner / CONFIG
            if file.is_file() and _is_of_workspace(file):
                return file
    raise UsageError(
        f"there is no {CONFIG} of a workspace in {start} or above: keep the one of Azure ML there, "
        'or write one, such as {"workspace_name": "digits"}.'
    )


def _is_of_workspace(file: Path) -> bool:
    try:
        return "workspace_name" in _as_config(file.read_bytes(), str(file))
    except (OSError, UsageError):
        return False


def _as_config(data: bytes, where: str) -> dict[str, Any]:
    try:
        config = json.loads(data)
    except ValueError as error:
        raise UsageError(f"{where} is not JSON: {error}.") from None
    if not isinstance(config, dict):
        raise UsageError(f'{where} is not accepted: write it as {{"workspace_name": "digits"}}.')
    return config
