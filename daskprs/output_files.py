"""Files on a disk or objects in a store, each there whole or not at all.

A disk and each kind of store promise different things; what is promised here holds on all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Any, Self

__all__ = ["WORK", "Files", "NewFile", "UnnamedFile"]

WORK = ".daskprs"  # what is not for people stands in this folder of the output folder


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
    def move_folder(self, path: str, to: str) -> None:
        """Put all files below a folder in the place of those below another, if there are any."""

    @abstractmethod
    def remove(self, path: str) -> None: ...

    @abstractmethod
    def touch(self, path: str, data: bytes) -> None:
        """Make a file look as if it was just written with `data`, which it has already."""

    def be_brief(self) -> None:  # noqa: B027 - a disk has nobody to wait for
        """Wait little for all answers to come, where there is somebody to wait for."""
