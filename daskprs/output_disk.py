"""Files of the output on a local disk."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import uuid
from pathlib import Path

from daskprs.output_files import Files, NewFile

__all__ = ["Disk", "sync_folder"]

_BUFFER = 1 << 20


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
        try:
            status = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    def exists(self, path: str) -> bool:
        return os.path.lexists(path)

    def sizes(self, path: str) -> dict[str, int]:
        try:
            names = os.listdir(path)
        except FileNotFoundError:
            return {}
        sizes = {name: self.size(f"{path}/{name}") for name in names}
        return {name: size for name, size in sizes.items() if size is not None}

    def modified(self, path: str) -> float:
        return os.stat(path).st_mtime

    def move(self, path: str, to: str) -> None:
        os.replace(path, to)
        sync_folder(os.path.dirname(path))
        if os.path.dirname(to) != os.path.dirname(path):
            sync_folder(os.path.dirname(to))

    def move_folder(self, path: str, to: str) -> None:
        if os.path.isdir(path) and os.listdir(path):
            shutil.rmtree(to, ignore_errors=True)
            os.rename(path, to)

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
