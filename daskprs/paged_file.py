"""Bytes that do not fit into memory: a few pages of them do, the rest is in a temporary file."""

from __future__ import annotations

import os
import tempfile
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterator

from daskprs.exceptions import WriteFailedError

__all__ = ["PagedFile"]

PAGE = 1 << 14
MOST_PAGES = 64


class PagedFile:
    """Bytes at any place, in about 1 MB of memory; those that were never written are zeros.

    The file has no name, so that nothing is left however the process ends. It is made when it is
    needed: few bytes never reach a disk. Any thread may call.

    Raises
    ------
    WriteFailedError
        By each method: the temporary folder is full, ... . What was written before can be read,
        as far as it is in memory or on the disk.
    """

    def __init__(self) -> None:
        self._pages: OrderedDict[int, bytearray] = OrderedDict()  # the one used last is the last
        self._changed: set[int] = set()
        self._handle: int | None = None
        self._lock = threading.Lock()

    def read(self, at: int, length: int) -> bytes:
        with self._lock:
            start = at % PAGE
            if start + length <= PAGE:  # most do, and this is fast
                return bytes(self._page(at // PAGE)[start : start + length])
            spans = _spans(at, length)
            return b"".join(self._page(number)[begin:end] for number, begin, end in spans)

    def write(self, at: int, data: bytes) -> None:
        with self._lock:
            number, start = divmod(at, PAGE)
            if start + len(data) <= PAGE:  # most do, and this is fast
                self._page(number)[start : start + len(data)] = data
                self._changed.add(number)
                return
            view = memoryview(data)
            for number, begin, end in _spans(at, len(data)):
                self._page(number)[begin:end] = view[: end - begin]
                self._changed.add(number)
                view = view[end - begin :]

    def _page(self, number: int) -> bytearray:
        page = self._pages.get(number)
        if page is not None:
            self._pages.move_to_end(number)
            return page
        if len(self._pages) >= MOST_PAGES:
            self._put_away(next(iter(self._pages)))
        page = self._pages[number] = self._fetched(number)
        return page

    def _put_away(self, number: int) -> None:
        if number in self._changed:
            if self._handle is None:
                self._handle = _new_file()
                weakref.finalize(self, os.close, self._handle)
            at, view = number * PAGE, memoryview(self._pages[number])
            try:
                while view:
                    written = os.pwrite(self._handle, view, at)
                    at, view = at + written, view[written:]
            except OSError as error:
                raise _not_usable(error) from error
            self._changed.discard(number)
        del self._pages[number]

    def _fetched(self, number: int) -> bytearray:
        page = bytearray(PAGE)
        if self._handle is not None:
            try:
                data = os.pread(self._handle, PAGE, number * PAGE)
            except OSError as error:
                raise _not_usable(error) from error
            page[: len(data)] = data
        return page


def _spans(at: int, length: int) -> Iterator[tuple[int, int, int]]:
    """Give page, first and last byte in it of each page that has a part of these bytes."""
    while length:
        number, start = divmod(at, PAGE)
        end = min(PAGE, start + length)
        yield number, start, end
        at, length = at + end - start, length - (end - start)


def _new_file() -> int:
    try:
        with tempfile.TemporaryFile(prefix="daskprs-") as file:
            return os.dup(file.fileno())
    except OSError as error:
        raise _not_usable(error) from error


def _not_usable(error: OSError) -> WriteFailedError:
    folder = tempfile.tempdir or "of this machine"
    return WriteFailedError(
        f"the temporary folder {folder} cannot be used ({type(error).__name__}: {error}): make "
        "room there, or set the environment variable TMPDIR to another one. What was written "
        "before is kept: the same run goes on from there."
    )
