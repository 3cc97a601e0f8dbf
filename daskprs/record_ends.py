"""Find where the records of a CSV file end, to cut the file into pieces.

A quoted field may hold newlines, so whether a newline ends a record is only known once all the
bytes before it were seen.  The file is therefore read once from its start, with the semantics of
the C parser of pandas: a piece cut here is parsed just as it is within the whole file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Cuts", "Dialect", "find_cuts"]

_Positions: TypeAlias = npt.NDArray[np.int64]
_Flags: TypeAlias = npt.NDArray[np.bool_]
_Chars: TypeAlias = npt.NDArray[np.uint8]

_BOM = b"\xef\xbb\xbf"
_NEWLINE = ord("\n")
_RETURN = ord("\r")
_SPACE = ord(" ")

# What the next byte is: the first of a field, in an unquoted field, in a quoted field, or right
# after a quote that closes a field unless it turns out to be the first half of an escaped quote.
_FIELD_START, _UNQUOTED, _QUOTED, _QUOTE_SEEN = range(4)

_SEQUENTIAL_STRETCH = 16 << 10
_MAX_VECTORISED_SPACES = 8


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a CSV file is written, in single bytes.

    The encoding has to be one in which these bytes and newlines never are a part of another
    character, such as UTF-8 and Latin-1; UTF-16 is not.  Blanks as delimiter by
    ``delim_whitespace`` or a regular expression, comments and own line terminators are not
    supported.

    Parameters
    ----------
    delimiter
        Byte between two fields.
    quotechar
        Byte around quoted fields.
    escapechar
        Byte that takes away the meaning of the next one, if any.
    doublequote
        Whether two quotes within a quoted field are one literal quote.
    quoting
        Whether there are quoted fields at all (False is ``csv.QUOTE_NONE``).
    skipinitialspace
        Whether spaces after a delimiter are skipped.
    """

    delimiter: bytes = b","
    quotechar: bytes = b'"'
    escapechar: bytes | None = None
    doublequote: bool = True
    quoting: bool = True
    skipinitialspace: bool = False

    def __post_init__(self) -> None:
        special = {"delimiter": self.delimiter}
        if self.quoting:
            special["quotechar"] = self.quotechar
        if self.escapechar is not None:
            special["escapechar"] = self.escapechar
        for name, char in special.items():
            blanks = b"\r\n" if name == "delimiter" else b" \t\r\n"
            if len(char) != 1 or char in blanks:
                raise ValueError(f"the {name} of a CSV file cannot be {char!r}")
        if len(set(special.values())) < len(special):
            raise ValueError(f"{', '.join(special)} of a CSV file must differ: {self}")


@dataclass(frozen=True, slots=True)
class Cuts:
    """Where a CSV file is cut.

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
    """

    header_end: int
    offsets: tuple[int, ...]
    records: tuple[int, ...]


def find_cuts(
    stream: BinaryIO,
    size: int,
    parts: int,
    *,
    has_header: bool,
    dialect: Dialect | None = None,
    block_size: int = 4 << 20,
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
    if parts < 1 or block_size < 1 or size < 0:
        raise ValueError(f"cannot cut {size} bytes into {parts} parts by blocks of {block_size}")
    dialect = dialect or Dialect()
    scanner = _Scanner(dialect)
    cutter = _Cutter(size, parts, has_header, dialect)
    blocks = _Blocks(stream, size)
    held = b""
    while len(held) < len(_BOM) and not blocks.done:
        held += blocks.read(len(_BOM) - len(held))
    base = 0
    if held == _BOM:
        base, held = len(_BOM), b""
    while held or not blocks.done:
        data = held + blocks.read(block_size)
        held = b""
        if data[-1] == _RETURN and not blocks.done:
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

    def __init__(self, size: int, parts: int, has_header: bool, dialect: Dialect) -> None:
        self._size = size
        # Division of Python integers is exact to the last bit, that of floats is not.
        self._nominal = np.array([round(k * size / parts) for k in range(parts + 1)], np.int64)
        self._offsets = np.full(parts + 1, size, np.int64)
        self._counts = np.zeros(parts + 1, np.int64)
        self._settled = 0
        self._header_end: int | None = None
        self._total = 0
        self._record_is_blank = True
        blanks = b" \t".replace(dialect.delimiter, b"")
        self._blank_run = re.compile(b"[" + re.escape(blanks) + b"]*+")
        self._may_start_blank = np.zeros(256, np.bool_)
        self._may_start_blank[list(blanks + b"\r\n")] = True
        if not has_header:
            self._settle_up_to(0)

    def add(self, base: int, data: bytes, ends: _Positions) -> None:
        """Add a block at offset `base` with the ends of records in it."""
        if ends.size:
            counted = self._not_blank(data, ends)
            first = 0
            if self._header_end is None and counted.any():
                first = int(counted.argmax()) + 1
                self._total += 1
                self._settle_up_to(base + int(ends[first - 1]))
            if self._header_end is not None:
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
        # All cuts without a record end after them are at the end of the file, as prefilled.
        self._counts[self._settled :] = self._total
        assert self._header_end is not None
        return Cuts(
            self._header_end,
            tuple(self._offsets.tolist()),
            tuple(np.diff(self._counts).tolist()),
        )

    def _settle_up_to(self, header_end: int) -> None:
        self._header_end = header_end
        self._settled = int(np.searchsorted(self._nominal, header_end, side="right"))
        self._offsets[: self._settled] = header_end
        self._counts[: self._settled] = self._total

    def _add_cuts(self, base: int, ends: _Positions, counted: _Flags) -> None:
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

    def _not_blank(self, data: bytes, ends: _Positions) -> _Flags:
        starts = np.empty_like(ends)
        starts[0] = 0
        starts[1:] = ends[:-1]
        counted: _Flags = ~self._may_start_blank[np.frombuffer(data, np.uint8)[starts]]
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


class _Scanner:
    """Finds the ends of records in successive blocks, keeping the state in between."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._quote = dialect.quotechar[0] if dialect.quoting else -1
        self._escape = dialect.escapechar[0] if dialect.escapechar is not None else -1
        self._delimiter = dialect.delimiter[0]
        self._is_separator = np.zeros(256, np.bool_)
        self._is_separator[[self._delimiter, _NEWLINE, _RETURN]] = True
        self._state = _FIELD_START
        self._next_is_escaped = False

        escape = b"|" + re.escape(dialect.escapechar) if dialect.escapechar is not None else b""
        quote = re.escape(dialect.quotechar)
        spaces = b" *+" if dialect.skipinitialspace else b""
        delimiter = re.escape(dialect.delimiter)
        # Only such delimiters matter after which the state is not that of an unquoted field.
        self._unquoted_event = re.compile(
            rb"\n|\r\n?" + escape + b"|" + delimiter + spaces + b"(?:" + quote + rb"|\Z)"
        )
        self._quoted_event = re.compile(quote + escape)
        self._spaces = re.compile(spaces)

    def scan(self, data: bytes) -> _Positions:
        """Give the offsets after each record that ends in the next block of the file.

        The block must not be empty, nor end with a ``\\r`` that more data follow.
        """
        if self._state == _QUOTE_SEEN:
            return self._scan_after_quote(data)
        if self._next_is_escaped or self._holds(data, self._quote, self._escape):
            return self._scan_by_parity(data)
        if self._state == _QUOTED:
            return np.empty(0, np.int64)
        chars = np.frombuffer(data, np.uint8)
        self._state = self._state_at_end(chars, 0, None)
        return self._newlines(data, chars) + 1

    @staticmethod
    def _holds(data: bytes, *chars: int) -> bool:
        return any(char >= 0 and char in data for char in chars)

    def _scan_after_quote(self, data: bytes) -> _Positions:
        if data[0] == self._quote:
            self._state, skipped = _QUOTED, 1
        else:
            # The parser takes an escapechar right after a closing quote as text.
            self._state, skipped = _UNQUOTED, int(data[0] == self._escape)
        if skipped == len(data):
            return np.empty(0, np.int64)
        return self.scan(data[skipped:]) + skipped

    @staticmethod
    def _newlines(data: bytes, chars: _Chars) -> _Positions:
        """Positions of the last byte of each newline, quoted or not."""
        newlines = np.flatnonzero(chars == _NEWLINE)
        if b"\r" not in data:
            return newlines
        returns = np.flatnonzero(chars == _RETURN)
        alone = returns[chars.take(returns + 1, mode="clip") != _NEWLINE]
        if not alone.size:
            return newlines
        merged = np.concatenate((newlines, alone))
        merged.sort()
        return merged

    def _escaped(self, data: bytes, chars: _Chars) -> _Flags | None:
        """Flag the escaped bytes of a block and, as one more, the first after the block."""
        if not (self._next_is_escaped or self._holds(data, self._escape)):
            return None
        flags = np.zeros(chars.size + 1, np.bool_)
        places = np.flatnonzero(chars == self._escape)
        if places.size:
            new_run = np.empty(places.size, np.bool_)
            new_run[0] = True
            new_run[1:] = np.diff(places) > 1
            run_starts = np.flatnonzero(new_run)
            in_run = np.arange(places.size) - run_starts[np.cumsum(new_run) - 1]
            if self._next_is_escaped and places[0] == 0:
                first_run = run_starts[1] if run_starts.size > 1 else places.size
                in_run[:first_run] += 1
            flags[places[in_run % 2 == 0] + 1] = True
        flags[0] = self._next_is_escaped
        return flags

    def _scan_by_parity(self, data: bytes) -> _Positions:
        """Scan by counting quotes, and sequentially where they are not as RFC 4180 has them.

        As long as every second quote is at the start of a field or doubles the one before it,
        and all others are at the end of a field or doubled, a newline is quoted if and only if
        the number of quotes before it is odd.
        """
        chars = np.frombuffer(data, np.uint8)
        newlines = self._newlines(data, chars)
        quotes = np.flatnonzero(chars == self._quote) if self._quote >= 0 else newlines[:0]
        escaped = self._escaped(data, chars)
        if escaped is not None:
            newlines = newlines[~escaped[newlines]]
            quotes = quotes[~escaped[quotes]]
        opens, closes = self._conforming(chars, quotes, escaped)
        misfits: dict[int, _Positions] = {}
        pieces: list[_Positions] = []
        start = 0
        while start < len(data):
            past = int(np.searchsorted(quotes, start))
            opening = past + (self._state == _QUOTED)
            if opening % 2 not in misfits:
                conforms = closes.copy()
                conforms[opening % 2 :: 2] = opens[opening % 2 :: 2]
                misfits[opening % 2] = np.flatnonzero(~conforms)
            odd_ones = misfits[opening % 2]
            odd_one = int(np.searchsorted(odd_ones, past))
            all_fit = odd_one == odd_ones.size
            stop = len(data) if all_fit else int(quotes[odd_ones[odd_one]])
            span = newlines[np.searchsorted(newlines, start) : np.searchsorted(newlines, stop)]
            unquoted = (np.searchsorted(quotes, span) - opening) % 2 == 0
            ends = span[unquoted] + 1
            pieces.append(ends)
            if all_fit:
                if (quotes.size - opening) % 2:
                    self._state = _QUOTED
                elif chars[-1] == self._quote and quotes.size and quotes[-1] == chars.size - 1:
                    self._state = _QUOTE_SEEN if self._dialect.doublequote else _UNQUOTED
                else:
                    self._state = self._state_at_end(chars, start, escaped)
                self._next_is_escaped = bool(escaped[-1]) if escaped is not None else False
                break
            # Restarting at a record end needs no trust in what was assumed of this record.
            if ends.size:
                start = int(ends[-1])
                self._state, self._next_is_escaped = _FIELD_START, False
            found, start = self._scan_sequentially(
                data, start, max(stop + 1, start + _SEQUENTIAL_STRETCH)
            )
            pieces.append(np.array(found, np.int64))
        return np.concatenate(pieces)

    def _conforming(
        self, chars: _Chars, quotes: _Positions, escaped: _Flags | None
    ) -> tuple[_Flags, _Flags]:
        """Flag the quotes that may open a field, and those that may close one."""
        if not quotes.size:
            return np.empty(0, np.bool_), np.empty(0, np.bool_)
        before = quotes - 1
        if self._dialect.skipinitialspace and self._delimiter != _SPACE:
            for _ in range(_MAX_VECTORISED_SPACES):
                is_space = (chars[before] == _SPACE) & (before >= 0)
                if escaped is not None:
                    is_space &= ~escaped[before]
                if not is_space.any():
                    break
                before -= is_space
        opens: _Flags = self._is_separator[chars[before]]
        if escaped is not None:
            opens &= ~escaped[before]
        opens[before < 0] = self._state == _FIELD_START
        closes: _Flags = self._is_separator[chars.take(quotes + 1, mode="clip")]
        closes[-1] |= quotes[-1] == chars.size - 1
        if self._dialect.doublequote:
            adjacent = np.diff(quotes) == 1
            opens[1:] |= adjacent
            closes[:-1] |= adjacent
        return opens, closes

    def _state_at_end(self, chars: _Chars, start: int, escaped: _Flags | None) -> int:
        """State after a stretch that ends outside of quotes, from `start` on."""
        end = chars.size
        while end > start:
            is_escaped = escaped is not None and bool(escaped[end - 1])
            if not is_escaped and self._is_separator[chars[end - 1]]:
                return _FIELD_START
            skippable = self._dialect.skipinitialspace and chars[end - 1] == _SPACE
            if is_escaped or not skippable:
                return _UNQUOTED
            end -= 1
        return self._state

    def _scan_sequentially(self, data: bytes, start: int, until: int) -> tuple[list[int], int]:
        """Scan from event to event, up to the first record end at or after `until`.

        Parameters
        ----------
        data
            The block.
        start
            Where to start, in the present state.
        until
            Where to stop at the earliest.

        Returns
        -------
        tuple of list of int and int
            The record ends found, and where the scan stopped.
        """
        ends: list[int] = []
        size = len(data)
        state = self._state
        while start < size:
            if self._next_is_escaped:
                start += 1
                self._next_is_escaped = False
                state = _UNQUOTED if state == _FIELD_START else state
            elif state == _FIELD_START:
                blanks = self._spaces.match(data, start)
                start = blanks.end() if blanks is not None else start
                if start < size:
                    state = _UNQUOTED
                    if data[start] == self._quote:
                        state, start = _QUOTED, start + 1
            elif state == _QUOTED:
                event = self._quoted_event.search(data, start)
                if event is None:
                    start = size
                    break
                start = event.end()
                if data[start - 1] == self._escape:
                    self._next_is_escaped = True
                elif not self._dialect.doublequote:
                    state = _UNQUOTED
                elif start == size:
                    state = _QUOTE_SEEN
                elif data[start] == self._quote:
                    start += 1
                else:
                    # The parser takes an escapechar right after a closing quote as text.
                    start += data[start] == self._escape
                    state = _UNQUOTED
            else:
                event = self._unquoted_event.search(data, start)
                if event is None:
                    start = size
                    break
                start = event.end()
                last = data[start - 1]
                if last == self._escape:
                    self._next_is_escaped = True
                elif last in (_NEWLINE, _RETURN):
                    state = _FIELD_START
                    ends.append(start)
                    if start >= until:
                        break
                else:
                    state = _QUOTED if last == self._quote else _FIELD_START
        self._state = state
        return ends, start
