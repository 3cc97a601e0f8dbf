"""``azureml.core.Model``, in the code that submits; entry scripts have one of their own."""

from __future__ import annotations

import builtins
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from daskprs.azureml.errors import WebserviceException
from daskprs.azureml.partial import Partial
from daskprs.azureml.workspaces import Workspace
from daskprs.exceptions import UsageError
from daskprs.listing import is_local
from daskprs.pipelines.models import Model as NativeModel

__all__ = ["Model", "ResourceConfiguration"]


class ResourceConfiguration(Partial):
    """What a model needs where it is a web service: accepted, and of no meaning here."""

    def __init__(
        self, cpu: float | None = None, memory_in_gb: float | None = None, gpu: int | None = None
    ) -> None:
        self.cpu, self.memory_in_gb, self.gpu = cpu, memory_in_gb, gpu


class Model(Partial):
    """A registered model.

    Parameters
    ----------
    workspace : Workspace
    name : str
    id : str
        ``"name:version"``, in place of both.
    version : int, optional
        Default: the latest.

    Raises
    ------
    WebserviceException
        There is none.
    """

    class Framework:
        """Names of frameworks, which are accepted, and mean nothing here."""

        CUSTOM = "Custom"
        MULTI = "Multi"
        ONNX = "Onnx"
        PYTORCH = "PyTorch"
        SCIKITLEARN = "ScikitLearn"
        TENSORFLOW = "TensorFlow"
        TFKERAS = "TfKeras"

    def __init__(
        self,
        workspace: Workspace,
        name: str | None = None,
        id: str | None = None,  # noqa: A002  (as Azure ML names it)
        tags: Sequence[Any] | Mapping[str, str] | None = None,
        properties: object = None,
        version: int | None = None,
        **kwargs: object,
    ) -> None:
        if name is None and id is not None:
            name, _, number = id.partition(":")
            version = int(number) if number else None
        try:
            self._native = workspace._native.models.get(str(name), version, _tags(tags))
        except UsageError as error:
            raise WebserviceException(f"ModelNotFound: {error.message}") from None
        self.workspace = workspace

    @classmethod
    def _of(cls, workspace: Workspace, model: NativeModel) -> Model:
        made = cls.__new__(cls)
        made.workspace, made._native = workspace, model
        return made

    @staticmethod
    def register(
        workspace: Workspace,
        model_path: str | os.PathLike[str],
        model_name: str,
        tags: Mapping[str, str] | None = None,
        properties: Mapping[str, str] | None = None,
        description: str | None = None,
        **kwargs: object,
    ) -> Model:
        """Copy a file or folder into the workspace, as a new version."""
        made = workspace._native.models.register(
            os.fspath(model_path),
            model_name,
            tags=tags,
            properties=properties,
            description=description,
        )
        return Model._of(workspace, made)

    @staticmethod
    def get_model_path(
        model_name: str, version: int | None = None, _workspace: Workspace | None = None
    ) -> str:
        """Return the local path of a model; one in a store is copied to ``azureml-models/``."""
        workspace = _workspace or Workspace.from_config()
        model = Model(workspace, model_name, version=version)._native
        if is_local(model.url):
            return model.url
        target = Path("azureml-models", model.name, str(model.version))
        return str(model.download(target, overwrite=True))

    @staticmethod
    def list(
        workspace: Workspace,
        name: str | None = None,
        tags: Sequence[Any] | None = None,
        properties: object = None,
        run_id: object = None,
        latest: bool = False,
        **kwargs: object,
    ) -> builtins.list[Model]:
        models = workspace._native.models
        found: builtins.list[Model] = []
        wanted = _tags(tags)
        for known in models.all().values() if name is None else [models.versions(name)]:
            for model in known[-1:] if latest else reversed(known):
                if all(model.tags.get(tag) == value for tag, value in wanted.items()):
                    found.append(Model._of(workspace, model))
        return found

    @property
    def name(self) -> str:
        return self._native.name

    @property
    def version(self) -> int:
        return self._native.version

    @property
    def id(self) -> str:
        return f"{self.name}:{self.version}"

    @property
    def tags(self) -> dict[str, str]:
        return dict(self._native.tags)

    @property
    def properties(self) -> dict[str, str]:
        return dict(self._native.properties)

    @property
    def description(self) -> str | None:
        return self._native.description

    def download(
        self, target_dir: str = ".", exist_ok: bool = False, exists_ok: bool | None = None
    ) -> str:
        """Copy it to this machine; return the file or folder."""
        return str(self._native.download(target_dir, overwrite=bool(exist_ok or exists_ok)))

    def __repr__(self) -> str:
        return f"Model(name={self.name}, id={self.id}, version={self.version})"


def _tags(given: Sequence[Any] | Mapping[str, str] | None) -> dict[str, str]:
    """Read tags: a mapping, or a list of pairs."""
    if isinstance(given, Mapping):
        return dict(given)
    return {str(tag[0]): str(tag[1]) for tag in given or () if not isinstance(tag, str)}
