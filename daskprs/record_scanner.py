"""Find the ends of records block by block; those of CSV as the C parser of pandas does."""

from __future__ import annotations

import re
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from daskprs.dialects import Dialect

__all__ = ["RETURN", "Flags", "LineScanner", "Positions", "Scanner"]

Positions: TypeAlias = npt.NDArray[np.int64]
Flags: TypeAlias = npt.NDArray[np.bool_]
Chars: TypeAlias = npt.NDArray[np.uint8]

NEWLINE = ord("\n")
RETURN = ord("\r")
_SPACE = ord(" ")

# What the next byte is: the first of a field, in an unquoted field, in a quoted field, or right
# after a quote that closes a field unless it turns out to be the first half of an escaped quote.
_FIELD_START, _UNQUOTED, _QUOTED, _QUOTE_SEEN = range(4)

_SEQUENTIAL_STRETCH = 16 << 10
_MAX_VECTORISED_SPACES = 8


class LineScanner:
    """Finds the ends of lines in successive blocks."""

    def scan(self, data: bytes) -> Positions:
        """Give the offsets after each line that ends in the next block of the file."""
        return np.flatnonzero(np.frombuffer(data, np.uint8) == NEWLINE) + 1


class Scanner:
    """Finds the ends of records in successive blocks, keeping the state in between."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._quote = dialect.quotechar[0] if dialect.quoting else -1
        self._escape = dialect.escapechar[0] if dialect.escapechar is not None else -1
        self._delimiter = dialect.delimiter[0]
        self._is_separator = np.zeros(256, np.bool_)
        self._is_separator[[self._delimiter, NEWLINE, RETURN]] = True
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

    def scan(self, data: bytes) -> Positions:
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

    def _scan_after_quote(self, data: bytes) -> Positions:
        if data[0] == self._quote:
            self._state, skipped = _QUOTED, 1
        else:
            # The parser takes an escapechar right after a closing quote as text.
            self._state, skipped = _UNQUOTED, int(data[0] == self._escape)
        if skipped == len(data):
            return np.empty(0, np.int64)
        return self.scan(data[skipped:]) + skipped

    @staticmethod
    def _newlines(data: bytes, chars: Chars) -> Positions:
        """Positions of the last byte of each newline, quoted or not."""
        newlines = np.flatnonzero(chars == NEWLINE)
        if b"\r" not in data:
            return newlines
        returns = np.flatnonzero(chars == RETURN)
        alone = returns[chars.take(returns + 1, mode="clip") != NEWLINE]
        if not alone.size:
            return newlines
        merged = np.concatenate((newlines, alone))
        merged.sort()
        return merged

    def _escaped(self, data: bytes, chars: Chars) -> Flags | None:
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

    def _scan_by_parity(self, data: bytes) -> Positions:
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
        misfits: dict[int, Positions] = {}
        pieces: list[Positions] = []
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
        self, chars: Chars, quotes: Positions, escaped: Flags | None
    ) -> tuple[Flags, Flags]:
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
        opens: Flags = self._is_separator[chars[before]]
        if escaped is not None:
            opens &= ~escaped[before]
        opens[before < 0] = self._state == _FIELD_START
        closes: Flags = self._is_separator[chars.take(quotes + 1, mode="clip")]
        closes[-1] |= quotes[-1] == chars.size - 1
        if self._dialect.doublequote:
            adjacent = np.diff(quotes) == 1
            opens[1:] |= adjacent
            closes[:-1] |= adjacent
        return opens, closes

    def _state_at_end(self, chars: Chars, start: int, escaped: Flags | None) -> int:
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
                elif last in (NEWLINE, RETURN):
                    state = _FIELD_START
                    ends.append(start)
                    if start >= until:
                        break
                else:
                    state = _QUOTED if last == self._quote else _FIELD_START
        self._state = state
        return ends, start
