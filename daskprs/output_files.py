"""Files on a disk or objects in a store, each there whole or not at all.

A disk and each kind of store promise different things; what is promised here holds on all.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import fsspec

__all__ = ["WORK", "Disk", "Files", "NewFile", "Store", "UnnamedFile", "sync_folder"]

WORK = ".daskprs"  # what is not for people stands in this folder of the output folder

# An object of theirs appears when it is closed; elsewhere a file grows under its name.
_OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az"})
_COPY_SECONDS = 600.0
_BUFFER = 1 << 20


class UnnamedFile(ABC):
    """A file that gets its name when it is committed; left without that, nothing is there.

    Attributes
    ----------
    size : int
        Bytes in it.
    """

    size = 0
    _committed = False

    def commit(self) -> None:
        self._commit()
        self._committed = True

    @abstractmethod
    def _commit(self) -> None: ...

    @abstractmethod
    def _discard(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._committed:
            self._discard()


class NewFile(UnnamedFile):
    """A file that is being written."""

    _stream: Any

    def write(self, data: bytes) -> None:
        self._stream.write(data)
        self.size += len(data)

    @abstractmethod
    def finish(self) -> None:
        """Make safe what was written, so that only the name is missing."""


class Files(ABC):
    """What the output needs of a disk or a store; paths are those of the place itself.

    Methods that read raise FileNotFoundError where there is nothing.
    """

    @abstractmethod
    def make_folder(self, path: str) -> None: ...

    @abstractmethod
    def read(self, path: str) -> bytes: ...

    @abstractmethod
    def write(self, path: str, data: bytes) -> None:
        """Write a whole file, over an older one."""

    @abstractmethod
    def create(self, path: str, data: bytes) -> bool:
        """Write a whole file if there is none; say whether it was written.

        `data` is unlike that of any other writer.
        """

    @abstractmethod
    def new(self, path: str, temporary: str) -> NewFile:
        """Begin a file of any size; `temporary` is a path that may be used until it is whole."""

    @abstractmethod
    def size(self, path: str) -> int | None:
        """Return the bytes of a file; None where there is no file."""

    @abstractmethod
    def exists(self, path: str) -> bool:
        """Say whether anything has that name, be it a folder or a broken link."""

    @abstractmethod
    def sizes(self, path: str) -> dict[str, int]:
        """Return the names and sizes of the files in a folder; none where it is not there."""

    @abstractmethod
    def modified(self, path: str) -> float | None:
        """Return when a file was written, by the clock of the place; None if it has none."""

    @abstractmethod
    def move(self, path: str, to: str) -> None:
        """Give a file another name, over an older one."""

    @abstractmethod
    def remove(self, path: str) -> None: ...

    @abstractmethod
    def touch(self, path: str, data: bytes) -> None:
        """Make a file look as if it was just written with `data`, which it has already."""


# A disk


class Disk(Files):
    """Local files."""

    def make_folder(self, path: str) -> None:
        Path(path).mkdir(parents=True, exist_ok=True)

    def read(self, path: str) -> bytes:
        return Path(path).read_bytes()

    def write(self, path: str, data: bytes) -> None:
        self.make_folder(os.path.dirname(path))
        with self.new(path, f"{path}.{uuid.uuid4().hex}.writing") as new:
            new.write(data)
            new.finish()
            new.commit()

    def create(self, path: str, data: bytes) -> bool:
        temporary = f"{path}.{uuid.uuid4().hex}.writing"
        try:
            Path(temporary).write_bytes(data)
            # Unlike open(..., "x"), a link appears with all its content.
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
                raise
            return self._create_without_link(path, data)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
        return True

    def _create_without_link(self, path: str, data: bytes) -> bool:
        try:
            with open(path, "xb") as stream:
                stream.write(data)
        except FileExistsError:
            return False
        return True

    def new(self, path: str, temporary: str) -> NewFile:
        return _NewDiskFile(path, temporary)

    def size(self, path: str) -> int | None:
        return os.stat(path).st_size if os.path.isfile(path) else None

    def exists(self, path: str) -> bool:
        return os.path.lexists(path)

    def sizes(self, path: str) -> dict[str, int]:
        try:
            with os.scandir(path) as entries:
                return {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
        except FileNotFoundError:
            return {}

    def modified(self, path: str) -> float:
        return os.stat(path).st_mtime

    def move(self, path: str, to: str) -> None:
        os.replace(path, to)
        sync_folder(os.path.dirname(path))
        if os.path.dirname(to) != os.path.dirname(path):
            sync_folder(os.path.dirname(to))

    def remove(self, path: str) -> None:
        os.unlink(path)

    def touch(self, path: str, data: bytes) -> None:
        os.utime(path)


class _NewDiskFile(NewFile):
    def __init__(self, path: str, temporary: str) -> None:
        self._path, self._temporary = path, temporary
        self._stream = open(temporary, "wb", buffering=_BUFFER)  # noqa: SIM115 - closed in finish

    def finish(self) -> None:
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()

    def _commit(self) -> None:
        os.replace(self._temporary, self._path)
        # It has its name; whether that survives a power failure, who reads it has to see.
        with contextlib.suppress(OSError):
            sync_folder(os.path.dirname(self._path))

    def _discard(self) -> None:
        # Closing may fail for the same reason as writing did.
        with contextlib.suppress(OSError):
            self._stream.close()
        with contextlib.suppress(OSError):
            os.unlink(self._temporary)


def sync_folder(path: str) -> None:
    """Make safe that names were given or taken in a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network and FUSE file systems know no fsync of a folder.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.ENOSYS):
            raise
    finally:
        os.close(handle)


# A store


class Store(Files):
    """Objects of anything that fsspec opens."""

    def __init__(self, fs: Any) -> None:
        self._fs = fs
        protocols = {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)
        self._appears_whole = bool(protocols & _OBJECT_STORES)
        # pipe_file() of the memory store puts an object in place with its content.
        self._pipes_whole = self._appears_whole or "memory" in protocols
        self._renames = type(fs).mv is not fsspec.AbstractFileSystem.mv

    def make_folder(self, path: str) -> None:
        self._fs.makedirs(path, exist_ok=True)

    def read(self, path: str) -> bytes:
        data: bytes = self._fs.cat_file(path)
        return data

    def write(self, path: str, data: bytes) -> None:
        if self._pipes_whole:
            self._fs.pipe_file(path, data)
            return
        self.make_folder(path.rpartition("/")[0])
        with self.new(path, f"{path}.{uuid.uuid4().hex}.writing") as new:
            new.write(data)
            new.finish()
            new.commit()

    def create(self, path: str, data: bytes) -> bool:
        try:
            self._fs.pipe_file(path, data, mode="create")
        except FileExistsError:
            return False
        except Exception:
            # Some stores say it in their own words, some know no exclusive creation, and of
            # some the answer can get lost: look who is there.
            self._fs.invalidate_cache()
            if not self._fs.exists(path):
                self._fs.pipe_file(path, data)
            return self.read(path) == data
        return True

    def new(self, path: str, temporary: str) -> NewFile:
        if self._appears_whole:
            return _NewObject(self._fs, path)
        return _NewStoreFile(self, self._fs, path, temporary)

    def size(self, path: str) -> int | None:
        info = self._info(path)
        return info["size"] if info.get("type") == "file" else None

    def exists(self, path: str) -> bool:
        return bool(self._info(path))

    def _info(self, path: str) -> dict[str, Any]:
        self._fs.invalidate_cache()
        try:
            info: dict[str, Any] = self._fs.info(path)
        except FileNotFoundError:
            return {}
        return info

    def sizes(self, path: str) -> dict[str, int]:
        self._fs.invalidate_cache()
        try:
            entries = self._fs.ls(path, detail=True)
        except FileNotFoundError:
            return {}
        return {
            entry["name"].rpartition("/")[2]: entry["size"]
            for entry in entries
            if entry["type"] == "file"
        }

    def modified(self, path: str) -> float | None:
        self._fs.invalidate_cache()
        try:
            when = self._fs.modified(path)
        except (NotImplementedError, KeyError, AttributeError):
            return None
        return when.timestamp() if isinstance(when, datetime) else None

    def move(self, path: str, to: str) -> None:
        if self._renames:
            self._fs.mv(path, to)
            return
        size = self.size(path)
        self._fs.cp_file(path, to)
        # Azure copies in the background: what is removed too early is lost.
        for waited in _waits(_COPY_SECONDS):
            if self.size(to) == size:
                break
            time.sleep(waited)
        else:
            raise OSError(errno.EIO, f"the copy of {path} is not complete", to)
        self._fs.rm_file(path)

    def remove(self, path: str) -> None:
        self._fs.rm_file(path)

    def touch(self, path: str, data: bytes) -> None:
        self.write(path, data)


def _waits(seconds: float) -> Iterator[float]:
    end, wait = time.monotonic() + seconds, 0.05
    while time.monotonic() < end:
        yield wait
        wait = min(wait * 2, 5.0)


class _NewObject(NewFile):
    """In a store where an object appears when its stream is closed."""

    def __init__(self, fs: Any, path: str) -> None:
        self._stream = fs.open(path, "wb")

    def finish(self) -> None:
        """Everything is in the store, or will be when the stream is closed."""

    def _commit(self) -> None:
        self._stream.close()

    def _discard(self) -> None:
        # discard() frees what was uploaded, where it does anything. The mark keeps close(), which
        # the garbage collector calls, from making half an object visible.
        with contextlib.suppress(Exception):
            self._stream.discard()
        self._stream.closed = True


class _NewStoreFile(NewFile):
    """In a store where a file is seen while it grows."""

    def __init__(self, store: Store, fs: Any, path: str, temporary: str) -> None:
        self._store, self._path, self._temporary = store, path, temporary
        self._stream = fs.open(temporary, "wb")

    def finish(self) -> None:
        self._stream.close()
        if self._store.size(self._temporary) != self.size:
            raise OSError(errno.EIO, "the file is not as long as what was written", self._temporary)

    def _commit(self) -> None:
        self._store.move(self._temporary, self._path)

    def _discard(self) -> None:
        with contextlib.suppress(Exception):
            self._stream.close()
        with contextlib.suppress(Exception):
            self._store.remove(self._temporary)
