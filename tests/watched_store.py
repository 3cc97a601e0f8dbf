"""A store in memory that counts what is asked of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, ClassVar

import fsspec
from fsspec.implementations.memory import MemoryFileSystem


class WatchedFileSystem(MemoryFileSystem):
    """Files in memory, with a count of what is asked of them."""

    protocol = "watched"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    calls: ClassVar[Counter[str]] = Counter()

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.replace("watched://", "memory://"))

    def ls(self, path: str, detail: bool = True, **options: Any) -> Any:
        self.calls["ls"] += 1
        return super().ls(path, detail, **options)

    def _open(self, path: str, *args: Any, **options: Any) -> Any:
        self.calls["open"] += 1
        return super()._open(path, *args, **options)

    def cat_file(self, path: str, *args: Any, **options: Any) -> Any:
        self.calls["open"] += 1
        return super().cat_file(path, *args, **options)


def watched_store() -> Iterator[WatchedFileSystem]:
    """Give the store, empty; the body of a fixture."""
    fsspec.register_implementation("watched", WatchedFileSystem, clobber=True)
    fs = fsspec.filesystem("watched")
    yield fs
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]
    fs.calls.clear()
