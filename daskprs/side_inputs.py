"""Side inputs: data that every worker reads as a whole, at a local path."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from daskprs.exceptions import UsageError
from daskprs.listing import ListedFile, base_folder, is_local, list_files

__all__ = ["MODELS", "NamedModel", "SideInput", "SideModel", "SidePath", "models_text"]

MOST_BYTES = 300 * 1024**2
MODELS = "DASKPRS_MODELS"  # environment variable: where the models of a step are


@dataclass(frozen=True)
class SidePath:
    """An argument that stands for the local path of a side input, wherever that is."""

    name: str


@dataclass(frozen=True)
class NamedModel:
    """A model as a step is given it.

    Attributes
    ----------
    content : str, PathLike or FileDataset
        A file or a folder.
    """

    name: str
    version: int
    content: Any = field(repr=False)


@dataclass(frozen=True)
class SideModel:
    """A model that every worker has, as the side input with this name."""

    name: str
    version: int
    side_input: str


def models_text(models: Iterable[SideModel], paths: Mapping[str, str]) -> str:
    """Tell a script where its models are: JSON of names to versions and local paths."""
    found: dict[str, list[dict[str, Any]]] = {}
    for model in models:
        version = {"version": model.version, "path": paths[model.side_input]}
        found.setdefault(model.name, []).append(version)
    return json.dumps(found)


@dataclass(frozen=True)
class SideInput:
    """One side input.

    Attributes
    ----------
    name : str
        Names its folder on the workers.
    url : str
        A file, a folder or a glob.
    archive : bytes or None
        The content, for workers that do not see the files of the driver.
    """

    name: str
    url: str
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    is_file: bool = False
    archive: bytes | None = field(default=None, repr=False)

    @classmethod
    def find(
        cls, name: str, url: str, storage_options: Mapping[str, Any] | None = None
    ) -> SideInput:
        """Look whether it is there.

        Raises
        ------
        InputNotFoundError
        """
        options = dict(storage_options or {})
        next(iter(list_files([url], storage_options=options)))
        from fsspec.core import strip_protocol, url_to_fs

        if is_local(url):
            url = os.path.abspath(strip_protocol(url))
            return cls(name, url, options, os.path.isfile(url))
        fs, path = url_to_fs(url, **options)
        return cls(name, url, options, bool(fs.isfile(path)))

    def _files(self) -> list[ListedFile]:
        return list(list_files([self.url], storage_options=self.storage_options))

    def identity(self) -> list[Any]:
        """What changes when the content may have changed."""
        return [self.name, self.url, [[f.path, f.size, f.version] for f in self._files()]]

    def packed(self, *, in_place: bool) -> SideInput:
        """Take the content along, where the workers cannot reach it by themselves.

        Raises
        ------
        UsageError
            It is too large to be sent to every worker.
        """
        import fsspec

        if not is_local(self.url) and not self.url.startswith("memory:"):
            return self
        if in_place and os.path.exists(self.url):  # a glob has no path of its own
            return self
        buffer, size = io.BytesIO(), 0
        files = self._files()
        # tar, since zip does not take every file name.
        with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as bundle:
            for file, name in zip(files, self._names(files), strict=True):
                with fsspec.open(file.path, "rb", **self.storage_options) as stream:
                    data = stream.read()
                size += len(data)
                if size > MOST_BYTES:
                    raise UsageError(
                        f"the side input {self.url!r} holds more than {MOST_BYTES // 1024**2} MB, "
                        "too much to send to every worker: put it where the workers can open it, "
                        "such as an object store, and give that url."
                    )
                member = tarfile.TarInfo(name)
                member.size = len(data)
                bundle.addfile(member, io.BytesIO(data))
        return replace(self, archive=buffer.getvalue())

    def _names(self, files: list[ListedFile]) -> list[str]:
        """Names below the side input's own folder."""
        if self.is_file:
            base = files[0].folder
        else:
            base = base_folder(self.url, storage_options=self.storage_options)
        return [file.path[len(base) :].lstrip("/") or "file" for file in files]

    def local_path(self, folder: Path) -> str:
        """Return the path that the script opens, fetching into `folder` what is not local."""
        if self.archive is None and is_local(self.url):
            return self.url
        place = folder / self.name
        if not place.exists():
            place.mkdir(parents=True)
            self._fetch(place)
        return str(next(place.iterdir()) if self.is_file else place)

    def _fetch(self, place: Path) -> None:
        if self.archive is not None:
            with tarfile.open(fileobj=io.BytesIO(self.archive)) as bundle:
                bundle.extraction_filter = lambda member, path: member  # our own archive
                bundle.extractall(place)  # noqa: S202
            return
        import fsspec

        files = self._files()
        for file, name in zip(files, self._names(files), strict=True):
            target = place / name
            target.parent.mkdir(parents=True, exist_ok=True)
            opened = fsspec.open(file.path, "rb", **self.storage_options)
            with opened as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
