"""Files on their way between this machine and a store."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec

from daskprs.exceptions import ConfigError, UsageError
from daskprs.listing import base_folder, is_local, list_files

__all__ = ["copy_files", "fetch_files", "fetch_to", "relative_paths"]

_THREADS = 8
_BUFFER = 1 << 20


def relative_paths(files: Sequence[Path], root: str | Path | None) -> dict[str, Path]:
    """Name files by their paths below a folder; without one, by their own names.

    Raises
    ------
    ConfigError
        One does not exist, or two have the same name.
    """
    named: dict[str, Path] = {}
    for file in files:
        if not file.is_file():
            raise ConfigError.of("files", str(file), "a file that exists")
        path = Path(os.path.abspath(file))
        base = path.parent if root is None else Path(os.path.abspath(Path(root).expanduser()))
        if not path.is_relative_to(base):
            raise ConfigError.of("files", str(file), f"a path inside {base}")
        name = path.relative_to(base).as_posix()
        if name in named:
            raise ConfigError.of("files", [str(named[name]), str(file)], "files of different names")
        named[name] = path
    return named


def copy_files(
    named: Mapping[str, Path],
    url: str,
    storage_options: Mapping[str, Any],
    *,
    overwrite: bool,
    skip_existing: bool = False,
) -> None:
    """Copy files of this machine to below a url, several at a time.

    Parameters
    ----------
    overwrite, skip_existing : bool
        What to do with files that are there: write them anew, or leave them alone.

    Raises
    ------
    UsageError
        One is there already.
    """
    fs, root = fsspec.core.url_to_fs(url, **storage_options)
    targets = {f"{root.rstrip('/')}/{name}": path for name, path in named.items()}
    with ThreadPoolExecutor(_THREADS) as pool:
        there = list(pool.map(fs.exists, targets)) if not overwrite else []
        for target, found in zip(list(targets), there, strict=False):
            if found and skip_existing:
                del targets[target]
            elif found:
                raise UsageError(f"{target} is there already: take overwrite=True.")
        if is_local(url):
            for folder in {os.path.dirname(target) for target in targets}:
                os.makedirs(folder, exist_ok=True)
        list(pool.map(lambda item: fs.put_file(str(item[1]), item[0]), targets.items()))


def fetch_files(
    url: str,
    storage_options: Mapping[str, Any],
    target: Path,
    *,
    below: str = "",
    overwrite: bool = False,
    skip_existing: bool = False,
    leave_out: Sequence[str] = (),
) -> list[Path]:
    """Copy what a url lists to this machine, several at a time.

    Parameters
    ----------
    below : str
        Put the files into this sub-folder of `target`; of a single file, its own path.
    leave_out : sequence of str
        Names right below the url that are not wanted.
    """
    base = base_folder(url, storage_options=storage_options)
    found = list(list_files([url], storage_options=storage_options))
    if not _is_same_place(base, url):  # a single file
        below = os.path.dirname(below)
    wanted: dict[str, str] = {}
    for file in found:
        name = file.path[len(base) :].lstrip("/")
        if name.partition("/")[0] not in leave_out:
            wanted[file.path] = os.path.join(below, name)
    places = {path: target / name for path, name in wanted.items()}
    for path, place in list(places.items()):
        if place.exists() and skip_existing:
            del places[path]
        elif place.exists() and not overwrite:
            raise UsageError(f"{place} is there already: take overwrite=True.")
    with ThreadPoolExecutor(_THREADS) as pool:
        fetched = pool.map(lambda pair: fetch_to(pair[0], storage_options, pair[1]), places.items())
        return list(fetched)


def _is_same_place(folder: str, url: str) -> bool:
    plain = [str(fsspec.core.strip_protocol(text)).rstrip("/") for text in (folder, url)]
    return plain[0] == plain[1]


def fetch_to(path: str, storage_options: Mapping[str, Any], place: Path) -> Path:
    """Copy one file; it has its name when it is whole."""
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = place.with_name(f"{place.name}.{uuid.uuid4().hex}.writing")
    try:
        with fsspec.open(path, "rb", **storage_options) as source, temporary.open("wb") as sink:
            shutil.copyfileobj(source, sink, _BUFFER)
        os.replace(temporary, place)
    finally:
        temporary.unlink(missing_ok=True)
    return place
