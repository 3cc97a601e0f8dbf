"""Rows of items that have failed and run again stand where they belong."""

from __future__ import annotations

import io
import itertools
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskprs.entry_process.results import to_rows
from daskprs.entry_process.wire import Rows
from daskprs.outcome_rows import recorded
from daskprs.outcomes import Outcome, Stretch
from daskprs.records import Record
from daskprs.row_formats import RowFormat, row_format


def rows_of(items: list[int], output_format: str) -> Rows:
    """Rows of different lengths; of an item that is a multiple of three, there are none."""
    return to_rows([{"n": 10**n} for n in items if n % 3], output_format, {})


def read(payload: bytes, output_format: str) -> list[int]:
    if not payload:
        return []
    if output_format == "parquet":
        values = pa.ipc.open_stream(io.BytesIO(payload)).read_all().column("n").to_pylist()
    else:
        values = [int(line.strip(b'{"n: }')) for line in payload.splitlines()]
    return [len(str(value)) - 1 for value in values]


def outcome(ranges: list[tuple[int, int]], bad: set[int], output_format: str, again: bool) -> Any:
    """Bad items stand alone, and those between them together, as the halving leaves them."""
    stretches: list[Stretch] = []
    for start, stop in ranges:
        edges = sorted({start, stop, *(x for b in bad for x in (b, b + 1) if start < x < stop)})
        for first, last in itertools.pairwise(edges):
            failed = last - first if first in bad else 0
            rows = None if failed else rows_of(list(range(first, last)), output_format)
            stretches.append(Stretch(first, last, failed, rows))
    total, failed = sum(b - a for a, b in ranges), sum(s.failed for s in stretches)
    return Outcome(
        index=0, key="k", label="", total=total, returned=total - failed, failed=failed == total,
        rows=None, attempts=(), stretches=tuple(stretches), again=again,
    )  # fmt: skip


@pytest.mark.parametrize("output_format", ["jsonl", "parquet"])
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_fails_in_whatever_round_all_rows_are_there_in_their_order(
    output_format: str, data: st.DataObject
) -> None:
    count = data.draw(st.integers(2, 15))
    kept: RowFormat = row_format(output_format)

    def fit(rows: Rows) -> bytes:
        return kept.fit(rows, lambda: iter(()))

    everything = set(range(count))
    bad = data.draw(st.sets(st.sampled_from(sorted(everything)), min_size=1, max_size=count - 1))
    record, payload = recorded(
        outcome([(0, count)], bad, output_format, again=False), None, b"", kept, fit
    )
    while True:
        good = sorted(everything - bad)
        assert read(payload, output_format) == [n for n in good if n % 3]
        assert (record.total, record.succeeded) == (count, len(good))
        assert {n for b in record.bad_items for n in range(b.start, b.stop)} == bad
        if not bad:
            break
        ranges = [(b.start, b.stop) for b in record.bad_items]
        bad = data.draw(st.sets(st.sampled_from(sorted(bad)), max_size=len(bad) - 1))
        told = outcome(ranges, bad, output_format, again=True)
        record, payload = recorded(told, record, payload, kept, fit)


def test_new_rows_replace_those_of_a_result_that_was_too_short_unless_they_are_fewer() -> None:
    kept = row_format("text")

    def told(stretch: Stretch, again: bool) -> Outcome:
        total, failed = stretch.stop - stretch.start, stretch.failed
        return Outcome(
            index=0, key="k", label="", total=total, returned=total - failed, failed=False,
            rows=None, attempts=(), stretches=(stretch,), again=again,
        )  # fmt: skip

    def fit(rows: Rows) -> bytes:
        return rows.payload

    record: Record | None = None
    payload = b""
    for failed, text, expected in (
        (2, b"a\nb\n", b"a\nb\n"),
        (3, b"x\n", b"a\nb\n"),
        (2, b"cc\ndd\n", b"cc\ndd\n"),
        (0, b"1\n2\n3\n4\n", b"1\n2\n3\n4\n"),
    ):
        stretch = Stretch(0, 4, failed, Rows(text, 4 - failed))
        record, payload = recorded(told(stretch, record is not None), record, payload, kept, fit)
        assert payload == expected
    assert record == Record(0, "k", len(payload), 4, 4)
