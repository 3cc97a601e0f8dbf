"""Files of the output in a store, which is anything that fsspec opens."""

from __future__ import annotations

import contextlib
import errno
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

from daskprs.output_files import Files, NewFile
from daskprs.store_calls import StoreCalls

__all__ = ["Store"]

# An object of theirs appears when it is closed; elsewhere a file grows under its name.
_OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az"})
_COPY_SECONDS = 600.0
_BUFFER = 1 << 20
_THREADS = 16


class Store(Files):
    """Objects of anything that fsspec opens; whatever goes wrong is an OSError.

    Parameters
    ----------
    fs : fsspec.AbstractFileSystem
    seconds : float
        What one call to the store may take.
    """

    def __init__(self, fs: Any, seconds: float) -> None:
        from fsspec import AbstractFileSystem

        self._fs = fs
        self._call = StoreCalls(seconds)
        protocols = {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)
        self._appears_whole = bool(protocols & _OBJECT_STORES)
        # pipe_file() of the memory store puts an object in place with its content.
        self._pipes_whole = self._appears_whole or "memory" in protocols
        self._renames = type(fs).mv is not AbstractFileSystem.mv

    def make_folder(self, path: str) -> None:
        # An object store needs no folders, and would make a bucket of a misspelt name.
        if not self._appears_whole:
            self._call(self._fs.makedirs, path, exist_ok=True)

    def read(self, path: str) -> bytes:
        data: bytes = self._call(self._fs.cat_file, path)
        return data

    def write(self, path: str, data: bytes) -> None:
        if self._pipes_whole:
            self._call(self._fs.pipe_file, path, data)
            return
        self.make_folder(path.rpartition("/")[0])
        with self.new(path, f"{path}.{uuid.uuid4().hex}.writing") as new:
            new.write(data)
            new.finish()
            new.commit()

    def create(self, path: str, data: bytes) -> bool:
        try:
            self._call(self._fs.pipe_file, path, data, mode="create")
        except FileExistsError:
            return False
        except TimeoutError:
            raise
        except OSError:
            # Some stores say it in their own words, some know no exclusive creation, and of
            # some the answer can get lost: look who is there.
            if not self.exists(path):
                self._call(self._fs.pipe_file, path, data)
            return self.read(path) == data
        return True

    def new(self, path: str, temporary: str) -> NewFile:
        if self._appears_whole:
            return _NewObject(self._fs, path, self._call)
        return _NewGrowingFile(self, self._fs, path, temporary, self._call)

    def size(self, path: str) -> int | None:
        info = self._info(path)
        return info["size"] if info.get("type") == "file" else None

    def exists(self, path: str) -> bool:
        return bool(self._info(path))

    def _info(self, path: str) -> dict[str, Any]:
        self._fs.invalidate_cache()
        try:
            info: dict[str, Any] = self._call(self._fs.info, path)
        except FileNotFoundError:
            return {}
        return info

    def sizes(self, path: str) -> dict[str, int]:
        self._fs.invalidate_cache()
        try:
            entries = self._call(self._fs.ls, path, detail=True)
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
            when = self._call(self._fs.modified, path)
        except (FileNotFoundError, TimeoutError):
            raise
        except OSError:
            return None  # it tells no times
        return when.timestamp() if isinstance(when, datetime) else None

    def move(self, path: str, to: str) -> None:
        if self._renames:
            self._call(self._fs.mv, path, to)
            return
        size = self.size(path)
        self._call(self._fs.cp_file, path, to)
        # Azure copies in the background: what is removed too early is lost.
        for waited in _waits(_COPY_SECONDS):
            if self.size(to) == size:
                break
            time.sleep(waited)
        else:
            raise OSError(errno.EIO, f"the copy of {path} is not complete", to)
        self.remove(path)

    def move_folder(self, path: str, to: str) -> None:
        moved = self._below(path)
        if not moved:
            return
        targets = [to + file[len(path) :] for file in moved]
        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(self.remove, self._below(to)))
            list(pool.map(self.move, moved, targets))

    def _below(self, path: str) -> list[str]:
        self._fs.invalidate_cache()
        try:
            files: list[str] = self._call(self._fs.find, path)
        except FileNotFoundError:
            return []
        return files

    def remove(self, path: str) -> None:
        self._call(self._fs.rm_file, path)

    def touch(self, path: str, data: bytes) -> None:
        self.write(path, data)

    def be_brief(self) -> None:
        self._call.be_brief()


def _waits(seconds: float) -> Iterator[float]:
    end, wait = time.monotonic() + seconds, 0.05
    while time.monotonic() < end:
        yield wait
        wait = min(wait * 2, 5.0)


class _NewRemoteFile(NewFile):
    """Passes on what is written in pieces of some size: a call costs more than a copy."""

    def __init__(self, fs: Any, path: str, call: StoreCalls) -> None:
        self._call = call
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._stream = call(fs.open, path, "wb")

    def write(self, data: bytes) -> None:
        self._waiting.append(data)
        self._waiting_bytes += len(data)
        self.size += len(data)
        if self._waiting_bytes >= _BUFFER:
            self._pass_on()

    def _pass_on(self) -> None:
        data = b"".join(self._waiting)
        self._waiting, self._waiting_bytes = [], 0
        self._call(self._stream.write, data)

    def finish(self) -> None:
        self._pass_on()


class _NewObject(_NewRemoteFile):
    """In a store where an object appears when its stream is closed."""

    def _commit(self) -> None:
        self._call(self._stream.close)

    def _discard(self) -> None:
        # discard() frees what was uploaded, where it does anything. The mark keeps close(), which
        # the garbage collector calls, from making half an object visible.
        with contextlib.suppress(Exception):
            self._call(self._stream.discard)
        self._stream.closed = True


class _NewGrowingFile(_NewRemoteFile):
    """In a store where a file is seen while it grows."""

    def __init__(self, store: Store, fs: Any, path: str, temporary: str, call: StoreCalls) -> None:
        super().__init__(fs, temporary, call)
        self._store, self._path, self._temporary = store, path, temporary

    def finish(self) -> None:
        super().finish()
        self._call(self._stream.close)
        if self._store.size(self._temporary) != self.size:
            raise OSError(errno.EIO, "the file is not as long as what was written", self._temporary)

    def _commit(self) -> None:
        self._store.move(self._temporary, self._path)

    def _discard(self) -> None:
        with contextlib.suppress(Exception):
            self._call(self._stream.close)
        with contextlib.suppress(Exception):
            self._store.remove(self._temporary)
