"""``azureml.core.Model``: finds the models that the step was given, at local paths."""

from __future__ import annotations

import builtins
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daskprs.azureml.entry import facts
from daskprs.azureml.entry.opened import has_workspace, open_workspace
from daskprs.azureml.entry.unsupported import (
    ModelNotFoundException,
    Partial,
    UserErrorException,
)
from daskprs.exceptions import UsageError

if TYPE_CHECKING:
    from daskprs.pipelines.models import Model as NativeModel

__all__ = ["Model", "register"]

_MOST_NAMES = 20  # in a message


@dataclass(frozen=True)
class _Found:
    name: str
    version: int
    path: str
    tags: Mapping[str, str] = field(default_factory=dict)
    properties: Mapping[str, str] = field(default_factory=dict)
    description: str = ""
    native: NativeModel | None = None  # of the workspace


class Model(Partial):
    """A model that the step was given.

    Parameters
    ----------
    workspace : object
        Not needed: there is only one.
    name : str
    id : str
        ``"name:version"``, in place of both.
    version : int, optional
        Default: the latest.

    Raises
    ------
    ModelNotFoundException
        There is no such model.

    Attributes
    ----------
    name, id, description : str
    version : int
    tags, properties : dict
    """

    def __init__(
        self,
        workspace: object = None,
        name: str | None = None,
        id: str | None = None,  # noqa: A002  (as Azure ML names it)
        tags: Sequence[Any] | None = None,
        properties: Sequence[Any] | None = None,
        version: int | str | None = None,
    ) -> None:
        if name is None and id is not None:
            name, _, number = id.partition(":")
            version = number or None
        if name is None:
            raise UserErrorException("Model(workspace, name) needs the name, or the id, of a model")
        wanted = [
            v for v in _versions(name) if _has(v.tags, tags) and _has(v.properties, properties)
        ]
        self._take(_pick(name, wanted, version), workspace)

    def _take(self, found: _Found, workspace: object) -> None:
        self.workspace = workspace
        self.name, self.version = found.name, found.version
        self.id = f"{found.name}:{found.version}"
        self.description = found.description
        self.tags, self.properties = dict(found.tags), dict(found.properties)
        self._path, self._native = found.path, found.native

    @classmethod
    def _of(cls, found: _Found, workspace: object) -> Model:
        model = cls.__new__(cls)
        model._take(found, workspace)
        return model

    @staticmethod
    def register(
        workspace: object,
        model_path: str | os.PathLike[str],
        model_name: str,
        tags: Mapping[str, str] | None = None,
        properties: Mapping[str, str] | None = None,
        description: str | None = None,
        **_: object,
    ) -> Model:
        """Copy a file or folder into the workspace of the run, as a new version.

        Many processes may do so at the same time: each gets a version of its own.

        Raises
        ------
        UserErrorException
            There is no such path, or the workspace cannot be reached from here.
        """
        made = register(model_path, model_name, tags, properties, description)
        return Model._of(_found(made), workspace)

    @staticmethod
    def get_model_path(
        model_name: str, version: int | str | None = None, _workspace: object = None
    ) -> str:
        """Return the local path of a model: a file or a folder, as it was given to the step.

        Looked for among the models of the step, in the folder ``AZUREML_MODEL_DIR``, among the
        side inputs, and in the workspace, in this order.

        Raises
        ------
        ModelNotFoundException
            There is no such model; names those that are there.
        """
        found = _pick(model_name, _versions(model_name), version)
        if found.native is None or "://" not in found.path:
            return _existing(found)
        folder = Path("azureml-models", found.name, str(found.version))
        return str(found.native.download(folder, overwrite=True))

    @staticmethod
    def list(
        workspace: object = None,
        name: str | None = None,
        tags: Sequence[Any] | None = None,
        properties: Sequence[Any] | None = None,
        latest: bool = False,
    ) -> builtins.list[Model]:
        """Return the models of the step and of the workspace, the latest version first."""
        models = []
        for known in _all_versions() if name is None else [_versions(name)]:
            versions = sorted(known, key=lambda found: -found.version)
            for found in versions[:1] if latest else versions:
                if _has(found.tags, tags) and _has(found.properties, properties):
                    models.append(Model._of(found, workspace))
        return models

    def download(
        self, target_dir: str | os.PathLike[str] = ".", exist_ok: bool = False, **_: bool
    ) -> str:
        """Copy the model into a folder and return the path of the copy.

        Raises
        ------
        WebserviceException
            It is there already, and may not be overwritten.
        """
        if self._native is not None:
            try:
                return str(self._native.download(os.fspath(target_dir), overwrite=exist_ok))
            except UsageError as error:
                raise UserErrorException(f"{error}: use download(exist_ok=True)") from None
        source = _existing(_Found(self.name, self.version, self._path))
        target = Path(target_dir, os.path.basename(source.rstrip("/")))
        if target.exists() and not exist_ok:
            raise UserErrorException(f"{target} is there already: use download(exist_ok=True)")
        target.parent.mkdir(parents=True, exist_ok=True)
        if os.path.isdir(source):
            shutil.copytree(source, target, dirs_exist_ok=True)
        else:
            shutil.copyfile(source, target)
        return str(target)

    def __repr__(self) -> str:
        return f"Model(name={self.name}, id={self.id}, version={self.version})"


def _versions(name: str) -> list[_Found]:
    """All versions of a model, from the first place that has any."""
    given = [
        _Found(
            name,
            int(version["version"]),
            str(version["path"]),
            version.get("tags") or {},
            version.get("properties") or {},
            str(version.get("description") or ""),
        )
        for version in facts.models().get(name, [])
    ]
    if given:
        return given
    in_folder = _versions_in(_model_folder(), name)
    if in_folder:
        return in_folder
    side = facts.side_inputs().get(name)
    return _registered(name) if side is None else [_Found(name, 1, side)]


def _registered(name: str) -> list[_Found]:
    """All versions that the workspace has, if there is one."""
    if not has_workspace():
        return []
    models = open_workspace(f"Model {name!r}, which the step was not given,").models
    return [_found(model) for model in models.versions(name)]


def _all_versions() -> list[list[_Found]]:
    """All versions of each model that the step or the workspace has."""
    given = {name: _versions(name) for name in facts.models()}
    try:
        registered = open_workspace("Model.list").models.all() if has_workspace() else {}
    except UserErrorException:
        if not given:
            raise
        registered = {}  # those of the step are there
    found = {name: list(map(_found, models)) for name, models in registered.items()}
    return list({**found, **given}.values())


def _found(model: NativeModel) -> _Found:
    return _Found(
        model.name, model.version, model.url, model.tags, model.properties,
        model.description or "", model,
    )  # fmt: skip


def register(
    path: str | os.PathLike[str],
    name: str,
    tags: Mapping[str, str] | None,
    properties: Mapping[str, str] | None,
    description: str | None,
) -> NativeModel:
    """Copy a file or folder into the workspace of the run.

    Raises
    ------
    UserErrorException
    """
    workspace = open_workspace("Model.register")
    try:
        return workspace.models.register(
            os.fspath(path),
            name,
            tags=tags,
            properties=properties,
            description=description,
        )
    except UsageError as error:
        raise UserErrorException(str(error)) from None


def _model_folder() -> str:
    """Return the folder of models that the user has given, if any; else "".

    With models of the step, the variable is only there for scripts that read it by themselves.
    """
    return "" if facts.models() else os.environ.get("AZUREML_MODEL_DIR", "")


def _versions_in(root: str, name: str) -> list[_Found]:
    """Models in a folder of Azure ML: ``NAME/VERSION/FILE``, ``NAME``, or only one model's own."""
    if not root or not os.path.isdir(root):
        return []
    folder = Path(root, name)
    if Path(root).parent.name == name and Path(root).name.isdecimal():
        folder = Path(root).parent
    if not folder.exists():
        return []
    entries = sorted(os.listdir(folder)) if folder.is_dir() else []
    if not entries or not all(entry.isdecimal() for entry in entries):
        return [_Found(name, 1, str(folder))]
    return [_Found(name, int(entry), _only_entry(folder / entry)) for entry in entries]


def _only_entry(folder: Path) -> str:
    entries = os.listdir(folder) if folder.is_dir() else []
    return str(folder / entries[0] if len(entries) == 1 else folder)


def _pick(name: str, versions: list[_Found], version: int | str | None) -> _Found:
    wanted = [found for found in versions if version in (None, found.version, str(found.version))]
    if wanted:
        return max(wanted, key=lambda found: found.version)
    which = "" if version is None else f" version {version}"
    raise ModelNotFoundException(
        f"there is no model {name!r}{which} here; there are {_all_names()}. Give it to the step as "
        "one of its models, or as a side input of that name."
    )


def _all_names() -> str:
    told = [
        f"{name!r} (version {', '.join(str(v['version']) for v in versions)})"
        for name, versions in facts.models().items()
    ]
    root = _model_folder()
    if os.path.isdir(root):
        names = sorted(os.listdir(root))
        told += [f"{name!r} in AZUREML_MODEL_DIR" for name in names[:_MOST_NAMES]]
    told += [f"{name!r} (a side input)" for name in facts.side_inputs()]
    return ", ".join(told) or "none at all"


def _existing(found: _Found) -> str:
    if os.path.exists(found.path):
        return found.path
    raise ModelNotFoundException(
        f"the model {found.name!r} (version {found.version}) should stand at {found.path}, which "
        "is not there on this node: put it where every worker finds it under the same path, or "
        "give it as a side input."
    )


def _has(known: Mapping[str, str], wanted: Sequence[Any] | None) -> bool:
    """Whether it has all of the tags: names, or pairs of a name and its value."""
    for tag in wanted or ():
        if isinstance(tag, str):
            if tag not in known:
                return False
        elif tag[0] not in known or known[tag[0]] != tag[1]:
            return False
    return True
