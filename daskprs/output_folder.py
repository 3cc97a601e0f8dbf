"""The output folder, of this machine or of a store, and the lock that keeps a second run out."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
import psutil

from daskprs.exceptions import OutputError
from daskprs.listing import is_local

__all__ = ["Lock", "OutputFolder"]

STALE_AFTER = 120.0


class OutputFolder:
    """Names inside the output folder.

    Parameters
    ----------
    url : str or Path
        A local path, or a url of a store that fsspec opens.
    storage_options : mapping, optional

    Raises
    ------
    OutputError
        It cannot be made or written to.
    """

    def __init__(self, url: str | Path, storage_options: Mapping[str, Any] | None = None) -> None:
        self.storage_options = dict(storage_options or {})
        text = str(url)
        self.local: Path | None = None
        if is_local(text):
            path = fsspec.core.strip_protocol(text) if "://" in text else text
            self.local = Path(os.path.abspath(os.path.expanduser(path)))
            self.url = str(self.local)
            return
        try:
            self.fs, self.path = fsspec.core.url_to_fs(text, **self.storage_options)
        except (ImportError, ValueError) as error:
            raise OutputError(f"output={text!r} cannot be used: {error}") from error
        self.path = self.path.rstrip("/")
        self.url = text.rstrip("/")

    def make(self) -> None:
        """Make the folder, and try whether it can be written to."""
        try:
            if self.local is not None:
                work = self.local / ".daskprs"
                work.mkdir(parents=True, exist_ok=True)
                probe = work / f"probe-{os.getpid()}"
                probe.write_bytes(b"")
                probe.unlink()
            else:
                self.fs.makedirs(self.path, exist_ok=True)
        except Exception as error:
            raise OutputError(
                f"output={self.url!r} cannot be written to ({type(error).__name__}: {error}): "
                "give a folder that you may write to."
            ) from error

    def url_of(self, name: str) -> str:
        return f"{self.url}/{name}"

    def read(self, name: str) -> bytes | None:
        """Return the content of a file, or None where it is not there."""
        try:
            if self.local is not None:
                return (self.local / name).read_bytes()
            self.fs.invalidate_cache()
            data: bytes = self.fs.cat_file(f"{self.path}/{name}")
            return data
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        """Write a whole file; it is there with all its content or not at all."""
        if self.local is None:
            self.fs.pipe_file(f"{self.path}/{name}", data)
            return
        path = self.local / name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.writing")
        temporary.write_bytes(data)
        os.replace(temporary, path)

    def size(self, name: str) -> int | None:
        try:
            if self.local is not None:
                return (self.local / name).stat().st_size
            self.fs.invalidate_cache()
            size: int = self.fs.info(f"{self.path}/{name}")["size"]
            return size
        except FileNotFoundError:
            return None

    def move(self, name: str, to: str) -> None:
        """Give a file another name, over an older one; nothing happens where it is not there."""
        with contextlib.suppress(FileNotFoundError):
            if self.local is not None:
                (self.local / to).parent.mkdir(parents=True, exist_ok=True)
                os.replace(self.local / name, self.local / to)
            elif self.fs.exists(f"{self.path}/{name}"):
                self.fs.mv(f"{self.path}/{name}", f"{self.path}/{to}")

    def remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            if self.local is not None:
                (self.local / name).unlink()
            else:
                self.fs.rm_file(f"{self.path}/{name}")

    def names(self, folder: str) -> list[str]:
        """List the names in a sub-folder, sorted."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if self.local is not None:
                return sorted(os.listdir(self.local / folder))
            self.fs.invalidate_cache()
            listed = self.fs.ls(f"{self.path}/{folder}", detail=False)
            return sorted(str(path).rstrip("/").rsplit("/", 1)[-1] for path in listed)
        return []

    def open_new(self, name: str) -> BinaryIO:
        """Open a store's file for writing; it appears when it is closed."""
        opened: BinaryIO = self.fs.open(f"{self.path}/{name}", "wb")
        return opened


class Lock:
    """Keeps a second run out of a local output folder; a dead run's lock is taken over."""

    NAME = ".daskprs/lock"

    def __init__(self, folder: OutputFolder) -> None:
        self._folder = folder
        self._path = None if folder.local is None else folder.local / self.NAME

    def acquire(self) -> None:
        """Take the lock.

        Raises
        ------
        OutputError
            Another run that is alive has it.
        """
        if self._path is None:
            return
        me = psutil.Process()
        mine = {"host": socket.gethostname(), "pid": me.pid, "born": me.create_time(),
                "since": time.time()}  # fmt: skip
        for _ in range(20):
            try:
                handle = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
            except FileExistsError:
                self._remove_if_stale()
                continue
            with os.fdopen(handle, "w") as stream:
                json.dump(mine, stream)
            return
        raise OutputError(f"the lock {self._path} cannot be taken: remove it if no run uses it.")

    def _remove_if_stale(self) -> None:
        assert self._path is not None
        try:
            age = time.time() - self._path.stat().st_mtime
            owner = json.loads(self._path.read_text() or "{}")
        except FileNotFoundError:
            return
        except ValueError:
            owner = {}
        if not owner and age < 2:
            time.sleep(0.2)  # it is being written
            return
        if owner.get("host") == socket.gethostname():
            stale = not _is_alive(owner.get("pid", -1), owner.get("born", 0.0))
        else:
            stale = age > STALE_AFTER
        if stale:
            self._path.unlink(missing_ok=True)
            return
        since = time.time() - owner.get("since", time.time())
        raise OutputError(
            f"output={self._folder.url!r} is in use: process {owner.get('pid')} on host "
            f"{owner.get('host')} has been writing to it for {since:.0f} s. Wait until it has "
            "ended, or give another output folder."
        )

    def refresh(self) -> None:
        """Show runs on other machines that this one is alive."""
        if self._path is not None:
            with contextlib.suppress(OSError):
                os.utime(self._path)

    def release(self) -> None:
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._path.unlink()


def _is_alive(pid: int, born: float) -> bool:
    try:
        return abs(psutil.Process(pid).create_time() - born) < 2
    except psutil.Error:
        return False
