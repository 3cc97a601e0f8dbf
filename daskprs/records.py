"""The records of a journal: what is known of each mini-batch that is done, however many there are.

Three files that are in memory in part only::

    table      position -> a row of numbers
    last       index -> position of its last record, and 1; 0 where it has none
    texts      keys, and bad items of the few records that have some
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, overload

from daskprs.bad_items import BadItems, checked
from daskprs.paged_file import PagedFile

__all__ = ["Record", "Records", "Row"]

_ROW = struct.Struct("=6q2i")
_POSITION = struct.Struct("=q")
_BAD_ITEMS = struct.Struct("=5q")
_BLOCK = 512
_MOST = 1 << 40  # of what a file system takes


class Record(NamedTuple):
    """One mini-batch; `length` is -1 where it has failed as a whole."""

    index: int  # type: ignore[assignment]
    key: str
    length: int
    total: int
    succeeded: int
    bad_items: tuple[BadItems, ...] = ()

    @property
    def failed(self) -> bool:
        return self.length < 0


class Row(NamedTuple):
    """The numbers of a record, which cost less to read than all of it."""

    index: int  # type: ignore[assignment]
    length: int
    total: int
    succeeded: int
    offset: int  # bytes of rows in front of its own
    text_at: int
    key_length: int
    bad_items: int

    @property
    def failed_items(self) -> int:
        return self.total - self.succeeded


class Records(Sequence[Record]):
    """Records in the order of their rows, in a few MB of memory.

    An index can stand here more than once: when its mini-batch is another one than in an earlier
    run (another key), or had failed there. Its last record counts.

    One thread may append, any may read.

    Attributes
    ----------
    nbytes : int
        Bytes of all rows.
    replaced : int
        How many records with rows do not count, since a later one has the same index.

    Raises
    ------
    WriteFailedError
        By each method: the temporary folder is full, ... .
    """

    def __init__(self) -> None:
        self.nbytes = 0
        self.replaced = 0
        self._count = 0
        self._most_index = -1
        self._texts_end = 0
        self._table, self._last, self._texts = PagedFile(), PagedFile(), PagedFile()

    def append(
        self,
        index: int,
        key: str,
        length: int,
        total: int,
        succeeded: int,
        bad_items: Iterable[Sequence[int]] = (),
    ) -> None:
        if not 0 <= index < _MOST or length < -1:
            raise ValueError(f"no record: {index=}, {length=}")
        bad = () if bad_items == () else checked(bad_items)
        text = name = key.encode("utf-8", "surrogatepass")
        if bad:
            text += b"".join(_BAD_ITEMS.pack(*items) for items in bad)
        where = (self.nbytes, self._texts_end, len(name), len(bad))
        row = _ROW.pack(index, length, total, succeeded, *where)
        before = self.find(index)
        is_replaced = before is not None and self.row_at(before).length > 0
        self._texts.write(self._texts_end, text)
        self._table.write(self._count * _ROW.size, row)
        self._last.write(index * _POSITION.size, _POSITION.pack(self._count + 1))
        # Only now does it count: what goes wrong before leaves nothing half-added.
        self._count += 1
        self._most_index = max(self._most_index, index)
        self._texts_end += len(text)
        self.replaced += is_replaced
        self.nbytes += max(0, length)

    def find(self, index: int) -> int | None:
        """Return the position of the last record of a mini-batch, or None."""
        if index > self._most_index:  # mostly, while a run goes on
            return None
        at: int = _POSITION.unpack(self._last.read(index * _POSITION.size, _POSITION.size))[0]
        return at - 1 if at else None

    def _rows(self) -> Iterator[Row]:
        """Give the rows of all records that are there now; in blocks, which is faster."""
        count = self._count
        for start in range(0, count, _BLOCK):
            length = (min(start + _BLOCK, count) - start) * _ROW.size
            data = self._table.read(start * _ROW.size, length)
            yield from map(Row._make, _ROW.iter_unpack(data))

    def current(self) -> Iterator[int]:
        """Iterate over the positions of the records that count."""
        return (position for position, _ in self.current_rows())

    def current_rows(self) -> Iterator[tuple[int, Row]]:
        """Iterate over the positions and the numbers of the records that count."""
        for position, row in enumerate(self._rows()):
            if self.find(row.index) == position:
                yield position, row

    def by_index(self) -> Iterator[int]:
        """Iterate over the same positions, in the order of the mini-batches."""
        for start in range(0, self._most_index + 1, _BLOCK):
            data = self._last.read(start * _POSITION.size, _BLOCK * _POSITION.size)
            for (at,) in _POSITION.iter_unpack(data):
                if at:
                    yield at - 1

    def check_order(self, order: Iterable[int]) -> None:
        """Refuse positions that are not there, or there twice."""
        seen = bytearray(len(self))
        for position in order:
            if not 0 <= position < len(self) or seen[position]:
                raise ValueError(f"position {position} of {len(self)} is not there, or twice")
            seen[position] = 1

    def row_at(self, position: int) -> Row:
        return Row._make(_ROW.unpack(self._table.read(position * _ROW.size, _ROW.size)))

    def _record(self, row: Row) -> Record:
        text = self._texts.read(row.text_at, row.key_length + row.bad_items * _BAD_ITEMS.size)
        key = text[: row.key_length].decode("utf-8", "surrogatepass")
        bad: tuple[BadItems, ...] = ()
        if row.bad_items:
            bad = tuple(map(BadItems._make, _BAD_ITEMS.iter_unpack(text[row.key_length :])))
        return Record(row.index, key, row.length, row.total, row.succeeded, bad)

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, position: int) -> Record: ...
    @overload
    def __getitem__(self, position: slice) -> list[Record]: ...
    def __getitem__(self, position: int | slice) -> Record | list[Record]:
        if isinstance(position, slice):
            return [self[at] for at in range(*position.indices(len(self)))]
        return self._record(self.row_at(range(len(self))[position]))

    def __iter__(self) -> Iterator[Record]:
        return map(self._record, self._rows())
