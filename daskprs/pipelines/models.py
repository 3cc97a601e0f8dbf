"""Models: files or folders under a name, with versions, for the scripts of a step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from daskprs.datasets import FileDataset
from daskprs.exceptions import ConfigError, UsageError
from daskprs.pipelines.records import Records, check_name
from daskprs.pipelines.transfer import copy_files, fetch_files, relative_paths
from daskprs.side_inputs import NamedModel

if TYPE_CHECKING:
    from daskprs.pipelines.workspace import Workspace

__all__ = ["Model", "Models"]


@dataclass(frozen=True)
class Model:
    """A version of a model; `Models.register` makes it.

    Attributes
    ----------
    name : str
    version : int
    url : str
        The file or the folder.
    tags, properties : dict
    description : str or None
    """

    name: str
    version: int
    url: str
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    tags: Mapping[str, str] = field(default_factory=dict)
    properties: Mapping[str, str] = field(default_factory=dict)
    description: str | None = None

    @property
    def content(self) -> FileDataset:
        return FileDataset(self.url, storage_options=self.storage_options)

    def as_input(self) -> NamedModel:
        """Give it in the form that a step takes."""
        return NamedModel(self.name, self.version, self.content)

    def download(self, target: str | Path = ".", *, overwrite: bool = False) -> Path:
        """Copy it to this machine; return the file or folder.

        Raises
        ------
        UsageError
            It is there already.
        """
        name = self.url.rstrip("/").rpartition("/")[2]
        place = Path(target)
        fetch_files(self.url, self.storage_options, place, below=name, overwrite=overwrite)
        return place / name


class Models(Mapping[str, Model]):
    """The registered models of a workspace, by name: the latest version of each.

    Parameters
    ----------
    workspace : Workspace
    """

    def __init__(self, workspace: Workspace) -> None:
        self._folder = workspace.folder
        self._records = Records(workspace.folder, "models")

    def register(
        self,
        path: str | Path,
        name: str,
        *,
        tags: Mapping[str, str] | None = None,
        properties: Mapping[str, str] | None = None,
        description: str | None = None,
    ) -> Model:
        """Copy a file or folder into the workspace, as a new version.

        Raises
        ------
        ConfigError
            The path is not there, or is empty.
        """
        check_name("name", name)
        source = Path(path).expanduser()
        files = [source] if source.is_file() else sorted(source.rglob("*"))
        named = relative_paths(
            [file for file in files if file.is_file()], None if source.is_file() else source
        )
        if not named:
            raise ConfigError.of("path", str(path), "a file, or a folder with files in it")
        record: dict[str, Any] = {
            "tags": _texts(tags),
            "properties": _texts(properties),
            "description": description,
            "file": source.name if source.is_file() else None,
            "is_whole": False,
        }
        made = self._records.add(name, record)
        where = self._folder.url_of(self._place(name, made["version"]))
        copy_files(named, where, self._folder.storage_options, overwrite=True)
        # Only now others see it.
        return self._model(self._records.replace(name, {**made, "is_whole": True}, made["version"]))

    @staticmethod
    def _place(name: str, version: int) -> str:
        return f"models/{quote(name, safe='')}/{version}"

    def _model(self, record: Mapping[str, Any]) -> Model:
        url = self._folder.url_of(self._place(record["name"], record["version"]))
        if record["file"] is not None:
            url = f"{url}/{record['file']}"
        return Model(
            record["name"],
            record["version"],
            url,
            self._folder.storage_options,
            record["tags"],
            record["properties"],
            record["description"],
        )

    def versions(self, name: str) -> list[Model]:
        """Return all versions, the latest last."""
        return self._read(name, self._records.all().get(name, []))

    def _read(self, name: str, numbers: list[int]) -> list[Model]:
        found = [self._records.read(name, number) for number in numbers]
        return [self._model(record) for record in found if record and record["is_whole"]]

    def all(self) -> dict[str, list[Model]]:
        """Return all versions of all models, the latest last."""
        found = {name: self._read(name, numbers) for name, numbers in self._records.all().items()}
        return {name: models for name, models in found.items() if models}

    def get(  # type: ignore[override]
        self, name: str, version: int | None = None, tags: Mapping[str, str] | None = None
    ) -> Model:
        """Return a model.

        Parameters
        ----------
        version : int, optional
            Default: the latest.
        tags : mapping, optional
            That it has to have.

        Raises
        ------
        UsageError
            It is not there.
        """
        for model in reversed(self.versions(name)):
            has_tags = all(model.tags.get(tag) == value for tag, value in (tags or {}).items())
            if (version is None or model.version == int(version)) and has_tags:
                return model
        which = "" if version is None else f" with version {version}"
        which += f" with the tags {dict(tags)}" if tags else ""
        raise UsageError(
            f"the workspace has no model {name!r}{which}: it has {self._records.all()}."
        )

    def unregister(self, name: str) -> None:
        """Forget all versions; their files stay."""
        self._records.remove(name)

    def __getitem__(self, name: str) -> Model:
        if not self.versions(name):
            raise KeyError(name)
        return self.get(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.all())

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _texts(given: Mapping[str, Any] | None) -> dict[str, str]:
    return {str(name): str(value) for name, value in (given or {}).items()}
