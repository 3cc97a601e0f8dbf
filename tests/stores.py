"""File systems of the tests of the output: stores in the memory of this process, and faults."""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import fsspec
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.spec import AbstractBufferedFile

STORES = ("memory", "closing")


class ClosingFileSystem(MemoryFileSystem):
    """An object is seen when its stream is closed, also after an error: as in Azure, S3 and GCS.

    Streams have no discard() that does anything, and close() is called by the garbage collector.
    """

    protocol = ("closing", "az")
    store: dict[str, Any] = {}  # noqa: RUF012 - as in the class above
    pseudo_dirs: list[str] = [""]  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        return super()._strip_protocol(path.removeprefix("closing://"))

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        if mode == "wb" and "data" not in kwargs:
            return _ClosingFile(self, path, mode)
        return super()._open(path, mode, **kwargs)


class _ClosingFile(AbstractBufferedFile):
    DEFAULT_BLOCK_SIZE = 20

    def _initiate_upload(self) -> None:
        self.parts: list[bytes] = []

    def _upload_chunk(self, final: bool = False) -> bool:
        self.parts.append(self.buffer.getvalue())
        if final:
            self.fs.pipe_file(self.path, b"".join(self.parts))
        return True


fsspec.register_implementation("closing", ClosingFileSystem, clobber=True)


class SlowFileSystem(MemoryFileSystem):
    """A store to which files of any size, such as the final one, are slow to write.

    Attributes
    ----------
    is_writing : threading.Event
        Set while one of them is written.
    go_on : threading.Event
        Until it is set, none of them gets on.
    """

    protocol = ("slow", "memory")
    store: dict[str, Any] = {}  # noqa: RUF012 - as in the class above
    pseudo_dirs: list[str] = [""]  # noqa: RUF012
    is_writing, go_on = threading.Event(), threading.Event()

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        return super()._strip_protocol(path.removeprefix("slow://"))

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        if mode == "wb" and "data" not in kwargs:
            self.is_writing.set()
            assert self.go_on.wait(30)
        return super()._open(path, mode, **kwargs)


fsspec.register_implementation("slow", SlowFileSystem, clobber=True)


@contextlib.contextmanager
def new_store(kind: str) -> Iterator[str]:
    """Give the url of an empty folder, and remove it with all that is in it."""
    url = f"{kind}://bucket-{uuid.uuid4().hex}/a [1] folder"
    yield url
    fs, path = fsspec.core.url_to_fs(url)
    with contextlib.suppress(FileNotFoundError):
        fs.rm(path.rpartition("/")[0], recursive=True)


class Killed(BaseException):
    """Stands for SIGKILL: after it nothing of the process reaches the store any more."""


class StoreError(RuntimeError):
    """What a store raises, which is no OSError."""


CHANGES = ("pipe_file", "_open", "cp_file", "rm_file")


@contextlib.contextmanager
def fault(kind: str, at: int, *, after: bool, killed: bool) -> Iterator[Callable[[], int]]:
    """Fail at the `at`-th call that changes a store, in front of it or behind it.

    Gives a function that tells how many calls there were.
    """
    fs = type(fsspec.filesystem(kind))
    count = 0
    depth = 0

    def failing(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
            nonlocal count, depth
            if depth or (function.__name__ == "_open" and _mode(args, kwargs) == "rb"):
                return function(self, *args, **kwargs)
            count += 1
            if (count == at and not after) or (killed and 0 < at < count):
                raise Killed if killed else StoreError("the store is unwell")
            depth += 1
            try:
                result = function(self, *args, **kwargs)
            finally:
                depth -= 1
            # Opening a stream asks nothing of the store, so no answer to it can be lost.
            if count == at and after and function.__name__ != "_open":
                raise Killed if killed else StoreError("the answer was lost")
            return result

        return wrapped

    originals = {name: getattr(fs, name) for name in CHANGES}
    for name, function in originals.items():
        setattr(fs, name, failing(function))
    try:
        yield lambda: count
    finally:
        for name in CHANGES:
            delattr(fs, name) if name not in _OWN[kind] else setattr(fs, name, originals[name])


def _mode(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    mode: str = args[1] if len(args) > 1 else kwargs.get("mode", "rb")
    return mode


_OWN = {
    kind: {name for name in CHANGES if name in vars(type(fsspec.filesystem(kind)))}
    for kind in STORES
}
