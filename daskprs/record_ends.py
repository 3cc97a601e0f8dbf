"""Find where the records of a CSV or JSON lines file end, to cut the file into pieces.

A quoted field may hold newlines, so whether a newline ends a record is only known once all the
bytes before it were seen.  The file is therefore read once from its start, with the semantics of
the C parser of pandas: a piece cut here is parsed just as it is within the whole file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from daskprs.dialects import Dialect
from daskprs.record_scanner import RETURN, Flags, LineScanner, Positions, Scanner

__all__ = ["BOM", "Cuts", "find_cuts", "find_line_cuts"]

BOM = b"\xef\xbb\xbf"
_BLOCK_SIZE = 4 << 20


@dataclass(frozen=True, slots=True)
class Cuts:
    """Where a file is cut.

    Parameters
    ----------
    header_end
        Length of the header in bytes: everything up to and including the end of the first
        record that is not blank, 0 if there is no header.
    offsets
        Ascending byte offsets, one more than parts: part ``i`` is from ``offsets[i]`` to before
        ``offsets[i + 1]`` and may be empty. The first is `header_end`, the last the file size.
    records
        Number of records in each part, blank lines not counted.
    first_end
        Where the first record after the header ends; `header_end` if there is none.
    """

    header_end: int
    offsets: tuple[int, ...]
    records: tuple[int, ...]
    first_end: int


def find_cuts(
    stream: BinaryIO,
    size: int,
    parts: int,
    *,
    has_header: bool,
    dialect: Dialect | None = None,
    block_size: int = _BLOCK_SIZE,
) -> Cuts:
    """Cut a CSV file into parts of about the same number of bytes, at ends of records.

    A record belongs to the part in which it starts, part ``k`` nominally being from
    ``k * size / parts`` on.

    Parameters
    ----------
    stream
        The file, at its start; read once, from the start to the end.
    size
        Number of bytes of the file.
    parts
        Number of parts.
    has_header
        Whether the first record is a header, which is in no part.
    dialect
        How the file is written. Commas and double quotes by default.
    block_size
        Bytes to read at once, which bounds the memory used.

    Returns
    -------
    Cuts
        End of the header, cuts and number of records of each part.

    Raises
    ------
    ValueError
        If the stream ends before `size` bytes.
    """
    dialect = dialect or Dialect()
    blanks = b" \t".replace(dialect.delimiter, b"")
    cutter = _Cutter(size, parts, has_header, blanks)
    return _cut(_Blocks(stream, size), Scanner(dialect), cutter, block_size)


def find_line_cuts(
    stream: BinaryIO, size: int, parts: int, *, block_size: int = _BLOCK_SIZE
) -> Cuts:
    """Cut a file in which every ``\\n`` ends a record, as `find_cuts` does.

    That is JSON lines: a newline inside a text is escaped there, and a lone ``\\r`` is a blank.
    """
    return _cut(
        _Blocks(stream, size), LineScanner(), _Cutter(size, parts, False, b" \t"), block_size
    )


def _cut(blocks: _Blocks, scanner: Scanner | LineScanner, cutter: _Cutter, block_size: int) -> Cuts:
    if block_size < 1:
        raise ValueError(f"cannot cut a file by blocks of {block_size} bytes")
    held = b""
    while len(held) < len(BOM) and not blocks.done:
        held += blocks.read(len(BOM) - len(held))
    base = 0
    if held == BOM:
        base, held = len(BOM), b""
    while held or not blocks.done:
        data = held + blocks.read(block_size)
        held = b""
        if data[-1] == RETURN and not blocks.done:
            # Whether the record ends after this byte or after a following \n is not known yet.
            data, held = data[:-1], data[-1:]
        if data:
            cutter.add(base, data, scanner.scan(data))
            base += len(data)
    return cutter.finish()


class _Blocks:
    """The first `size` bytes of a stream, block by block."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream = stream
        self._size = size
        self._position = 0

    @property
    def done(self) -> bool:
        return self._position == self._size

    def read(self, count: int) -> bytes:
        count = min(count, self._size - self._position)
        if not count:
            return b""
        block = self._stream.read(count)
        if not block:
            raise ValueError(
                f"the file ended after {self._position} of {self._size} bytes: "
                "was it changed while it was read?"
            )
        self._position += len(block)
        return block


class _Cutter:
    """Picks the cuts from the ends of all records, and counts the records between."""

    def __init__(self, size: int, parts: int, has_header: bool, blanks: bytes) -> None:
        if parts < 1 or size < 0:
            raise ValueError(f"cannot cut {size} bytes into {parts} parts")
        self._size = size
        # Division of Python integers is exact to the last bit, that of floats is not.
        self._nominal = np.array([round(k * size / parts) for k in range(parts + 1)], np.int64)
        self._offsets = np.full(parts + 1, size, np.int64)
        self._counts = np.zeros(parts + 1, np.int64)
        self._settled = 0
        self._header_end: int | None = None
        self._first_end: int | None = None
        self._total = 0
        self._record_is_blank = True
        self._blank_run = re.compile(b"[" + re.escape(blanks) + b"]*+")
        self._may_start_blank = np.zeros(256, np.bool_)
        self._may_start_blank[list(blanks + b"\r\n")] = True
        if not has_header:
            self._settle_up_to(0)

    def add(self, base: int, data: bytes, ends: Positions) -> None:
        """Add a block at offset `base` with the ends of records in it."""
        if ends.size:
            counted = self._not_blank(data, ends)
            first = 0
            if self._header_end is None and counted.any():
                first = int(counted.argmax()) + 1
                self._total += 1
                self._settle_up_to(base + int(ends[first - 1]))
            if self._header_end is not None:
                self._note_first(base, ends[first:], counted[first:])
                self._add_cuts(base, ends[first:], counted[first:])
            self._record_is_blank = True
        last = int(ends[-1]) if ends.size else 0
        if self._record_is_blank:
            self._record_is_blank = self._skip_blanks(data, last) == len(data)

    def finish(self) -> Cuts:
        """Give the cuts, after the last block."""
        if not self._record_is_blank:
            self._total += 1
        if self._header_end is None:
            self._settle_up_to(self._size)
        elif self._first_end is None and not self._record_is_blank:
            self._first_end = self._size
        # All cuts without a record end after them are at the end of the file, as prefilled.
        self._counts[self._settled :] = self._total
        assert self._header_end is not None
        return Cuts(
            self._header_end,
            tuple(self._offsets.tolist()),
            tuple(np.diff(self._counts).tolist()),
            self._header_end if self._first_end is None else self._first_end,
        )

    def _settle_up_to(self, header_end: int) -> None:
        self._header_end = header_end
        self._settled = int(np.searchsorted(self._nominal, header_end, side="right"))
        self._offsets[: self._settled] = header_end
        self._counts[: self._settled] = self._total

    def _note_first(self, base: int, ends: Positions, counted: Flags) -> None:
        if self._first_end is None and counted.any():
            self._first_end = base + int(ends[counted.argmax()])

    def _add_cuts(self, base: int, ends: Positions, counted: Flags) -> None:
        if not ends.size:
            return
        start = self._settled
        stop = int(np.searchsorted(self._nominal, base + ends[-1], side="right"))
        if stop > start:
            chosen = np.searchsorted(ends, self._nominal[start:stop] - base)
            self._offsets[start:stop] = base + ends[chosen]
            self._counts[start:stop] = self._total + np.cumsum(counted)[chosen]
            self._settled = stop
        self._total += int(np.count_nonzero(counted))

    def _not_blank(self, data: bytes, ends: Positions) -> Flags:
        starts = np.empty_like(ends)
        starts[0] = 0
        starts[1:] = ends[:-1]
        counted: Flags = ~self._may_start_blank[np.frombuffer(data, np.uint8)[starts]]
        if not self._record_is_blank:
            counted[0] = True
        for index in np.flatnonzero(~counted).tolist():
            # A line of blanks only is no record for pandas; one that begins with blanks is.
            counted[index] = data[self._skip_blanks(data, int(starts[index]))] not in b"\r\n"
        return counted

    def _skip_blanks(self, data: bytes, start: int) -> int:
        match = self._blank_run.match(data, start)
        assert match is not None
        return match.end()
