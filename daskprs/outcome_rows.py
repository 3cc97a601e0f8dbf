"""What an outcome makes of the rows of its mini-batch, and of its record (pure)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from daskprs.bad_items import BadItems, count_failed
from daskprs.entry_process.wire import Rows
from daskprs.outcomes import Outcome, Stretch
from daskprs.records import Record
from daskprs.row_formats import RowFormat

__all__ = ["recorded"]

Fit = Callable[[Rows], bytes]


def recorded(
    outcome: Outcome, before: Record | None, rows: bytes, row_format: RowFormat, fit: Fit
) -> tuple[Record, bytes]:
    """Return the record of a mini-batch, and its rows as they are to be kept.

    Parameters
    ----------
    outcome : Outcome
    before : Record or None
        Of the mini-batch, where it has rows and only what had failed was run `again`.
    rows : bytes
        Its rows then.
    row_format : RowFormat
    fit : callable
        Gives new rows as they are to be kept.

    Raises
    ------
    ColumnsChangedError
    """
    index, key, total = outcome.index, outcome.key, outcome.total
    if outcome.failed:
        return Record(index, key, -1, total, 0), b""
    if before is None and not outcome.failed_items:
        payload = b"" if outcome.rows is None else fit(outcome.rows)
        return Record(index, key, len(payload), total, total), payload
    bad_items: tuple[BadItems, ...] = (BadItems(0, total, total, 0, 0),)
    if before is not None:
        total, bad_items = before.total, before.bad_items
    stretches = outcome.stretches or (Stretch(0, total, outcome.failed_items, outcome.rows),)
    row_format.expect([s.rows for s in stretches if s.rows is not None])
    payload, bad = _put_in_place(stretches, rows, bad_items, row_format, fit)
    return Record(index, key, len(payload), total, total - count_failed(bad), bad), payload


def _put_in_place(
    stretches: Sequence[Stretch],
    rows: bytes,
    bad_items: Iterable[BadItems],
    row_format: RowFormat,
    fit: Fit,
) -> tuple[bytes, tuple[BadItems, ...]]:
    """Put what came of bad items into their place; return all rows, and what is bad now.

    Where more of them have failed than before, what was there before stays.
    """
    pieces: list[bytes] = []
    still_bad: list[BadItems] = []
    taken = end = 0  # of the rows that there were, and of the new ones

    def add(piece: bytes, start: int, stop: int, failed: int) -> None:
        nonlocal end
        at, end = end, end + row_format.length(piece)
        pieces.append(piece)
        if failed:
            still_bad.append(BadItems(start, stop, failed, at, end - at))

    for bad in bad_items:
        add(row_format.cut(rows, taken, bad.at), 0, 0, 0)
        taken = bad.at + bad.length
        inside = [s for s in stretches if bad.start <= s.start and s.stop <= bad.stop]
        if not inside or sum(s.failed for s in inside) > bad.failed:
            add(row_format.cut(rows, bad.at, taken), bad.start, bad.stop, bad.failed)
            continue
        for stretch in inside:
            piece = b"" if stretch.rows is None else fit(stretch.rows)
            add(piece, stretch.start, stretch.stop, stretch.failed)
    add(row_format.cut(rows, taken, row_format.length(rows)), 0, 0, 0)
    return row_format.join(pieces), tuple(still_bad)
