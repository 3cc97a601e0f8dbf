"""The output folder: names in it, wherever it is."""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from daskprs.exceptions import OutputError
from daskprs.listing import is_local
from daskprs.output_disk import Disk
from daskprs.output_files import WORK, Files, NewFile
from daskprs.output_lock import Lock
from daskprs.output_remote import Store
from daskprs.store_calls import one_line

__all__ = ["Lock", "OutputFolder"]

_THREADS = 16
_UNFINISHED = "unfinished"
_Result = TypeVar("_Result")


class OutputFolder:
    """Names inside the output folder; none of them leads out of it.

    Parameters
    ----------
    url : str or Path
        A local path, or a url of a store that fsspec opens.
    storage_options : mapping, optional
    seconds : float
        What one call to a store may take.

    Attributes
    ----------
    url : str
    local : Path or None
        None in a store.

    Raises
    ------
    OutputError
        The store cannot be opened.
    """

    def __init__(
        self,
        url: str | Path,
        storage_options: Mapping[str, Any] | None = None,
        *,
        seconds: float = 600.0,
    ) -> None:
        self.storage_options = dict(storage_options or {})
        text = str(url)
        self.local: Path | None = None
        self._files: Files
        if is_local(text):
            path = _without_protocol(text) if "://" in text else text
            self._root = self.url = os.path.abspath(os.path.expanduser(path))
            self.local = Path(self._root)
            self._files = Disk()
            return
        from fsspec.core import url_to_fs

        try:
            fs, root = url_to_fs(text, **self.storage_options)
        except Exception as error:
            raise OutputError(
                f"output={text!r} cannot be used ({one_line(error)}): give a local folder, or the "
                "url of a store with the storage options that open it."
            ) from error
        self._root, self.url = root.rstrip("/"), text.rstrip("/")
        self._files = Store(fs, seconds)

    def make(self) -> None:
        """Make the folder, and try whether it can be written to.

        Raises
        ------
        OutputError
            It cannot.
        """
        try:
            self._files.make_folder(f"{self._root}/{WORK}")
            probe = self._path(f"{WORK}/probe-{uuid.uuid4().hex}")
            self._files.write(probe, b"daskprs")
            self._files.remove(probe)
        except Exception as error:
            where = "a folder that you may write to"
            if self.local is None:
                where = "a url in a bucket or container that exists, and storage_options that may "
                where += "write there"
            raise OutputError(
                f"output={self.url!r} cannot be written to ({one_line(error)}): give {where}."
            ) from error

    def be_brief(self) -> None:
        """Wait little for a store that has failed: what comes is only a farewell."""
        self._files.be_brief()

    def _path(self, name: str) -> str:
        if "\0" in name or any(part in ("", ".", "..") for part in name.split("/")):
            raise OutputError(f"{name!r} is no name inside the output folder {self.url!r}.")
        return f"{self._root}/{name}"

    def url_of(self, name: str) -> str:
        return f"{self.url}/{name}"

    def read(self, name: str) -> bytes | None:
        """Return the content of a file, or None where it is not there."""
        try:
            return self._files.read(self._path(name))
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        """Write a whole file, over an older one."""
        self._files.write(self._path(name), data)

    def create(self, name: str, data: bytes) -> bool:
        """Write a whole file if there is none; say whether it was written.

        Parameters
        ----------
        data : bytes
            Unlike that of any other writer.
        """
        return self._files.create(self._path(name), data)

    def touch(self, name: str, data: bytes) -> None:
        """Make a file look as if it was just written with `data`, which it has already."""
        self._files.touch(self._path(name), data)

    def new(self, name: str) -> NewFile:
        """Begin a file of any size, which appears when it is committed."""
        temporary = f"{WORK}/{_UNFINISHED}-{uuid.uuid4().hex}"
        return self._files.new(self._path(name), self._path(temporary))

    def remove_unfinished(self) -> None:
        """Remove what killed processes have left of `new` files."""
        left = [name for name in self.sizes(WORK) if name.startswith(_UNFINISHED)]
        self.remove_all(f"{WORK}/{name}" for name in left)

    def size(self, name: str) -> int | None:
        """Return the bytes of a file, or None where there is none."""
        return self._files.size(self._path(name))

    def sizes(self, name: str) -> dict[str, int]:
        """Return the names and sizes of the files in a sub-folder."""
        return self._files.sizes(self._path(name))

    def age(self, name: str) -> float | None:
        """Return the seconds since a file was written; None where the place tells no times.

        Raises
        ------
        FileNotFoundError
        """
        # The clock of the place, which is not always ours.
        then = self._files.modified(self._path(name))
        clock = self._path(f"{WORK}/clock-{uuid.uuid4().hex}")
        try:
            self._files.write(clock, b"daskprs")
            now = self._files.modified(clock)
            self._files.remove(clock)
        except Exception:
            now = time.time()  # it may only be read
        return None if now is None or then is None else now - then

    def move(self, name: str, to: str) -> None:
        """Give a file another name, over an older one; nothing happens where it is not there."""
        path, target = self._path(name), self._path(to)
        if self._files.exists(path):
            self._files.move(path, target)

    def set_aside(self, name: str) -> None:
        """Keep what stands under a name as ``<name>.previous``; an empty file is not kept."""
        if self.size(name) == 0:
            self.remove(name)
        else:
            self.move(name, f"{name}.previous")

    def set_folder_aside(self, name: str) -> None:
        """Keep all files below a folder below ``<name>.previous``, in the place of older ones.

        Raises
        ------
        OutputError
        """
        try:
            self._files.move_folder(self._path(name), self._path(f"{name}.previous"))
        except OSError as error:
            raise OutputError(
                f"{self.url_of(name)} cannot be kept as {name}.previous ({one_line(error)}): give "
                "a folder that you may read and write."
            ) from error

    def remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._files.remove(self._path(name))

    def remove_all(self, names: Iterable[str]) -> None:
        self.each(self.remove, names)

    def each(self, function: Callable[[str], _Result], names: Iterable[str]) -> list[_Result]:
        """Call a function with each name, several at a time: a store takes its time."""
        with ThreadPoolExecutor(_THREADS) as pool:
            return list(pool.map(function, names))


def _without_protocol(url: str) -> str:
    from fsspec.core import strip_protocol

    path: str = strip_protocol(url)
    return path
