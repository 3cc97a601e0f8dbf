"""TableFile: where the bytes of a table file are, and whether it is still the file listed."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, NoReturn

from daskprs.exceptions import InputChangedError
from daskprs.file_trees import is_local

__all__ = ["TableFile"]

_SECOND = 10**9  # in nanoseconds


@dataclass(frozen=True)
class TableFile:
    """A file: a local path, a url, or bytes that were sent along.

    Parameters
    ----------
    path : str
    storage_options : mapping
        For urls; see fsspec.
    content : bytes, optional
        What is in the file, where only another process could open it.
    size : int
        Number of bytes when it was listed; 0 if the store did not tell.
    version : str
        As in `daskprs.listing.ListedFile`.
    """

    path: str
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    content: bytes | None = field(default=None, repr=False)
    size: int = 0
    version: str = ""

    def open(self) -> BinaryIO:
        """Open the bytes as they are."""
        if self.content is not None:
            return io.BytesIO(self.content)
        if is_local(self.path):
            return open(self.path, "rb")
        import fsspec

        opened: BinaryIO = fsspec.open(self.path, "rb", **self.storage_options).open()
        return opened

    def open_uncompressed(self, compression: str | None) -> BinaryIO:
        """Open the bytes that are in a compressed file."""
        if compression is None:
            return self.open()
        from fsspec.compression import compr

        codec = compr.get(compression)
        if codec is None:
            raise ImportError(
                f"{self.path} is compressed with {compression}, which needs a package that is not "
                "installed on this worker: 'zstandard' for zstd, 'lz4' for lz4."
            )
        opened: BinaryIO = codec(self.open(), mode="rb")
        return opened

    def read(self, start: int, stop: int) -> bytes:
        """Read the bytes from `start` to before `stop`."""
        if stop <= start:
            return b""
        if self.content is None and not is_local(self.path):
            fs, inside = self._store()
            data: bytes = fs.cat_file(inside, start=start, end=stop)
            return data
        with self.open() as stream:
            stream.seek(start)
            return stream.read(stop - start)

    def read_ranges(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Read several ranges of bytes; those of a store at the same time."""
        if self.content is None and not is_local(self.path):
            fs, inside = self._store()
            wanted = [(start, stop) for start, stop in ranges if start < stop]
            starts, stops = [start for start, _ in wanted], [stop for _, stop in wanted]
            data = iter(fs.cat_ranges([inside] * len(wanted), starts, stops, on_error="raise"))
            return [next(data) if start < stop else b"" for start, stop in ranges]
        found = []
        with self.open() as stream:
            for start, stop in ranges:
                stream.seek(start)
                found.append(stream.read(stop - start))
        return found

    def check_unchanged(self) -> None:
        """Compare the file with what was listed.

        Raises
        ------
        InputChangedError
            It is gone, or has another size or (a local file) another time.
        """
        if self.content is not None:
            return
        try:
            size, time = self._size_and_time()
        except FileNotFoundError:
            self._changed("is gone")
        if self.size and size is not None and size != self.size:
            self._changed(f"has now {size} bytes, not {self.size}")
        if time is not None and self.version and not _same_time(time, int(self.version)):
            self._changed("was written again")

    def _size_and_time(self) -> tuple[int | None, int | None]:
        if is_local(self.path):
            status = os.stat(self.path)
            return status.st_size, status.st_mtime_ns
        fs, inside = self._store()
        fs.invalidate_cache()
        # Times and digests are not written alike by all calls of a store: the size is.
        size = fs.info(inside).get("size")
        return None if size is None else int(size), None

    def _store(self) -> tuple[Any, str]:
        """Return the file system of a url, and the path of the file there."""
        from fsspec.core import url_to_fs

        found: tuple[Any, str] = url_to_fs(self.path, **self.storage_options)
        return found

    def _changed(self, how: str) -> NoReturn:
        raise InputChangedError(
            f"the input file {self.path} {how}: it was changed after the input was listed. "
            "Start again when nothing writes to the input any more.",
            path=self.path,
        )


def _same_time(one: int, other: int) -> bool:
    """Compare two times in nanoseconds; some mounts know seconds only."""
    if one % _SECOND == 0 or other % _SECOND == 0:
        return abs(one - other) < _SECOND
    return abs(one - other) < 1000
