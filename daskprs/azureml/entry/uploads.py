"""Files that a script keeps with its run, in the workspace."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daskprs.azureml.entry.opened import open_workspace
from daskprs.azureml.entry.unsupported import UserErrorException

if TYPE_CHECKING:
    from daskprs.pipelines.run_files import RunFiles

__all__ = ["download_file", "local_path", "names", "upload_file", "upload_folder"]


def _files(run_id: str, what: str) -> RunFiles:
    workspace = open_workspace(what)
    from daskprs.pipelines.run_files import RunFiles

    return RunFiles(workspace.folder, run_id)


def _checked(name: str) -> str:
    parts = str(name).replace("\\", "/").strip("/").removeprefix("./").split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise UserErrorException(f"{name!r} is no name of a file in the run, such as 'a/b.txt'")
    return "/".join(parts)


def upload_file(run_id: str, name: str, path_or_stream: Any) -> None:
    """Keep a file with a run.

    Raises
    ------
    UserErrorException
    """
    files = _files(run_id, "Run.upload_file")
    if hasattr(path_or_stream, "read"):
        with tempfile.NamedTemporaryFile(prefix="daskprs-") as copy:
            copy.write(path_or_stream.read())
            copy.flush()
            files.upload({_checked(name): Path(copy.name)})
        return
    path = Path(path_or_stream)
    if not path.is_file():
        raise UserErrorException(f"Run.upload_file: there is no file {os.fspath(path)!r}")
    files.upload({_checked(name): path})


def upload_folder(run_id: str, name: str, path: str) -> None:
    """Keep the files of a folder with a run.

    Raises
    ------
    UserErrorException
    """
    files = _files(run_id, "Run.upload_folder")
    root = Path(path)
    if not root.is_dir():
        raise UserErrorException(f"Run.upload_folder: there is no folder {os.fspath(path)!r}")
    below = _checked(name)
    found = [file for file in sorted(root.rglob("*")) if file.is_file()]
    files.upload({f"{below}/{file.relative_to(root).as_posix()}": file for file in found})


def download_file(run_id: str, name: str, target: str | os.PathLike[str] | None) -> None:
    """Copy a file of a run.

    Raises
    ------
    UserErrorException
    """
    files = _files(run_id, "Run.download_file")
    if files.names(_checked(name)) != [_checked(name)]:
        raise UserErrorException(f"the run has no file {name!r}: it has {files.names()}")
    place = Path(target or os.path.basename(name))
    files.fetch(_checked(name), place / os.path.basename(name) if place.is_dir() else place)


def names(run_id: str) -> list[str]:
    return _files(run_id, "Run.get_file_names").names()


@contextlib.contextmanager
def local_path(run_id: str, path: str | os.PathLike[str]) -> Iterator[str]:
    """Give a path here for what was uploaded under a name; else the path itself.

    Raises
    ------
    UserErrorException
        There is neither.
    """
    name = os.fspath(path)
    files = _files(run_id, "Run.register_model")
    inner = os.path.normpath(name)
    is_name = not (os.path.isabs(inner) or inner.startswith("."))
    found = files.names(inner) if is_name else []
    if not found:
        if not os.path.exists(name):
            raise UserErrorException(
                f"Run.register_model: {name!r} was not uploaded, and is no file here: call "
                "Run.upload_file before, or give another model_path"
            )
        yield name
    elif files.local is not None:
        yield str(files.local / inner)
    else:
        with tempfile.TemporaryDirectory(prefix="daskprs-") as folder:
            for known in found:
                files.fetch(known, Path(folder, known))
            yield str(Path(folder, inner))
