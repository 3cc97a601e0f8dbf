"""``azureml.core.Workspace``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daskprs._version import __version__
from daskprs.azureml.partial import Partial
from daskprs.exceptions import ConfigError
from daskprs.json_text import json_text
from daskprs.pipelines import workspace as native

if TYPE_CHECKING:
    from daskprs.azureml.computes import AmlCompute
    from daskprs.azureml.datasets import FileDataset, TabularDataset
    from daskprs.azureml.datastores import Datastore
    from daskprs.azureml.environments import Environment
    from daskprs.azureml.experiments import Experiment
    from daskprs.azureml.models import Model

__all__ = ["VERSION", "Workspace"]

VERSION = __version__


class Workspace(Partial):
    """A workspace; without a ``folder`` in its config.json, it is ``.daskprs/`` beside that.

    Parameters
    ----------
    subscription_id, resource_group : str, optional
        Told to the scripts.
    workspace_name : str
        The workspace is then ``.daskprs/<name>`` in the working directory.
    auth, kwargs
        Not needed.
    """

    def __init__(
        self,
        subscription_id: str | None = None,
        resource_group: str | None = None,
        workspace_name: str | None = None,
        auth: object = None,
        **kwargs: object,
    ) -> None:
        if not isinstance(workspace_name, str) or not workspace_name:
            raise ConfigError.of("workspace_name", workspace_name, "a name, such as 'digits'")
        self._native = native.Workspace.create(
            Path(".daskprs", workspace_name),
            name=workspace_name,
            exist_ok=True,
            subscription_id=subscription_id,
            resource_group=resource_group,
        )

    @classmethod
    def _of(cls, workspace: native.Workspace) -> Workspace:
        made = cls.__new__(cls)
        made._native = workspace
        return made

    @classmethod
    def from_config(
        cls,
        path: str | os.PathLike[str] | None = None,
        auth: object = None,
        _logger: object = None,
        _file_name: str | None = None,
    ) -> Workspace:
        """Open the workspace of a config.json in the working directory or above."""
        place = None if path is None else Path(path)
        if _file_name is not None:
            place = (place or Path()) / _file_name
        return cls._of(native.Workspace.from_config(place))

    @classmethod
    def get(
        cls,
        name: str,
        auth: object = None,
        subscription_id: str | None = None,
        resource_group: str | None = None,
        **kwargs: object,
    ) -> Workspace:
        """Open a workspace in the working directory by its name."""
        return cls(subscription_id, resource_group, name)

    @classmethod
    def create(
        cls,
        name: str,
        auth: object = None,
        subscription_id: str | None = None,
        resource_group: str | None = None,
        **kwargs: object,
    ) -> Workspace:
        """Make a workspace in the working directory, or open it."""
        return cls(subscription_id, resource_group, name)

    def write_config(self, path: str | None = None, file_name: str | None = None) -> None:
        """Write the config.json that `from_config` finds."""
        folder = Path(path or ".")
        folder = folder if folder.name == ".azureml" else folder / ".azureml"
        folder.mkdir(parents=True, exist_ok=True)
        config = {**self._native.config, "folder": self._native.folder.url}
        config["workspace_name"] = self.name
        (folder / (file_name or native.CONFIG)).write_text(json_text(config, indent=2), "utf-8")

    @property
    def name(self) -> str:
        return self._native.name

    @property
    def subscription_id(self) -> str:
        return str(self._native.config.get("subscription_id") or "")

    @property
    def resource_group(self) -> str:
        return str(self._native.config.get("resource_group") or "")

    @property
    def location(self) -> str:
        """The region that config.json names; without one, the work is done where this runs."""
        return str(self._native.config.get("location") or "local")

    def get_details(self) -> dict[str, str]:
        return {
            "name": self.name,
            "location": self.location,
            "subscription_id": self.subscription_id,
            "resource_group": self.resource_group,
            "folder": self._native.folder.url,
        }

    def get_default_datastore(self) -> Datastore:
        from daskprs.azureml.datastores import Datastore

        return Datastore._of(self, self._native.datastores.default)

    def set_default_datastore(self, name: Any) -> None:
        self._native.datastores.set_default(getattr(name, "name", name))

    @property
    def datastores(self) -> dict[str, Datastore]:
        from daskprs.azureml.datastores import Datastore

        return {name: Datastore.get(self, name) for name in self._native.datastores}

    @property
    def datasets(self) -> dict[str, FileDataset | TabularDataset]:
        from daskprs.azureml.datasets import Dataset

        return Dataset.get_all(self)

    @property
    def compute_targets(self) -> dict[str, AmlCompute]:
        from daskprs.azureml.computes import AmlComputes

        return AmlComputes(self)

    @property
    def environments(self) -> dict[str, Environment]:
        from daskprs.azureml.environments import Environment

        return Environment.list(self)

    @property
    def models(self) -> dict[str, Model]:
        from daskprs.azureml.models import Model

        return {name: Model(self, name) for name in self._native.models}

    @property
    def experiments(self) -> dict[str, Experiment]:
        from daskprs.azureml.experiments import Experiment

        return {name: Experiment(self, name) for name in self._native.experiments}

    def __repr__(self) -> str:
        return f"Workspace.create(name={self.name!r})"
