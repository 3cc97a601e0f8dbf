"""Tests of splitting parts by keys, and of putting the pieces together in buckets."""

from __future__ import annotations

import datetime as dt
import decimal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskprs.buckets import (
    Bucket,
    Part,
    bucket_of,
    listing_of,
    report_of,
    split_files,
    split_partition,
    types_of,
)
from daskprs.key_hashes import UnusableKeyError, row_hashes
from daskprs.mini_batches import FrameRows

NOON = pd.Timestamp("2024-05-01 12:00")


def brought_together(
    split: Sequence[pd.DataFrame], keys: list[str], buckets: int
) -> list[tuple[list[Any], pd.DataFrame]]:
    """Do what the shuffle does, without a cluster: give combinations in order of appearance."""
    pieces = pd.concat(split, ignore_index=True)
    types = types_of(pieces[pieces["bucket"] == buckets])
    found = []
    for number in range(buckets):
        bucket = bucket_of(pieces[pieces["bucket"] == number], types, keys)
        listing = listing_of(bucket, keys)
        assert len(bucket) == len(listing.rows)
        for position, first in enumerate(listing.first.tolist()):
            frame = bucket[position]
            assert len(frame) == listing.rows[position]
            found.append((first, [values[position] for values in listing.values], frame))
    return [(values, frame) for _, values, frame in sorted(found, key=lambda f: f[0])]


def split(frames: Sequence[pd.DataFrame], keys: list[str], buckets: int, files_in_part: int = 1):
    parts = [frames[i : i + files_in_part] for i in range(0, len(frames), files_in_part)]
    return [
        split_files(Part("run", number, tuple(map(FrameRows, part))), keys, buckets)
        for number, part in enumerate(parts)
    ]


def whole_table(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat([f for f in frames if len(f)] or [frames[0]], ignore_index=True)


def assert_as_pandas_groups(
    found: list[tuple[list[Any], pd.DataFrame]], whole: pd.DataFrame, keys: list[str]
) -> None:
    groups = whole.groupby(keys, dropna=False, sort=False, observed=True)
    expected = [(values, frame.reset_index(drop=True)) for values, frame in groups]
    assert len(found) == len(expected)
    for (values, frame), (group, rows) in zip(found, expected, strict=True):
        pd.testing.assert_frame_equal(frame, rows)
        for value, wanted in zip(values, group, strict=True):
            assert value is None if pd.isna(wanted) else value == wanted


# Random tables, against pandas

KINDS: dict[str, tuple[list[Any], Any]] = {
    "int": ([0, 1, 2, 3], "int64"),
    "int8": ([0, 1, 2, 3], "int8"),
    "float": ([0.0, -0.0, 1.0, 2.5, np.nan], "float64"),
    "float32": ([0.0, 1.0, 0.1, np.nan], "float32"),
    "bool": ([True, False], "bool"),
    "nullable": ([0, 1, None], "Int64"),
    "text": (["", "0", "1", "a", "ä", None], "str"),
    "python text": (["", "0", "1", "a", None], pd.StringDtype("python")),
    "arrow text": (["", "0", "1", "a", None], pd.ArrowDtype(pa.string())),
    "mixed": (["1", 1, 1.0, True, None, np.nan, b"1", (1, 2), decimal.Decimal(1)], object),
    "time": ([NOON, NOON + pd.Timedelta(1, "ns"), pd.NaT], "datetime64[ns]"),
    "coarse time": ([NOON, pd.NaT], "datetime64[s]"),
    "zoned time": ([NOON.tz_localize("UTC"), pd.NaT], "datetime64[us, UTC]"),
    "span": ([pd.Timedelta(1, "h"), pd.NaT], "timedelta64[ns]"),
    "category": (["a", "b", None], pd.CategoricalDtype(["a", "b", "c"])),
    "turned category": (["a", "b"], pd.CategoricalDtype(["c", "b", "a"])),
    "other category": (["a", "x"], pd.CategoricalDtype(["a", "x"])),
    "number category": ([1, 2], pd.CategoricalDtype([1, 2])),
    "nothing": ([None], object),
}


@st.composite
def columns(draw: st.DrawFn, rows: int) -> pd.Series:
    values, dtype = KINDS[draw(st.sampled_from(list(KINDS)))]
    picked = draw(st.lists(st.sampled_from(values), min_size=rows, max_size=rows))
    if dtype is object:
        array = np.empty(rows, dtype=object)
        array[:] = picked
        return pd.Series(array, dtype=object)
    return pd.Series(picked, dtype=dtype)


@st.composite
def tables(draw: st.DrawFn) -> pd.DataFrame:
    rows = draw(st.integers(0, 6))
    names = draw(st.permutations(["k", "l", "v"]))
    names = names if draw(st.booleans()) else [n for n in names if n != "v"]
    return pd.DataFrame({name: draw(columns(rows)) for name in names})


@settings(max_examples=80, deadline=None)
@given(
    frames=st.lists(tables(), min_size=1, max_size=4),
    keys=st.sampled_from([["k"], ["k", "l"], ["l", "k"]]),
    buckets=st.integers(1, 3),
    files_in_part=st.integers(1, 3),
)
def test_each_combination_is_as_pandas_groups_the_whole_table(frames, keys, buckets, files_in_part):
    whole = whole_table(frames)
    found = brought_together(split(frames, keys, buckets, files_in_part), keys, buckets)
    assert_as_pandas_groups(found, whole, keys)


# What decides the bucket

EQUAL = {
    "one": [
        pd.Series([1]),
        pd.Series([1.0]),
        pd.Series([True]),
        pd.Series([1], dtype="int8"),
        pd.Series([1], dtype="float32"),
        pd.Series([1], dtype="Int64"),
        pd.Series([1], dtype="boolean"),
        pd.Series([1], dtype="category"),
        pd.Series([1], dtype=pd.ArrowDtype(pa.int64())),
        pd.Series([1, "a"], dtype=object)[:1],
        pd.Series([decimal.Decimal("1.0")], dtype=object),
        pd.Series([1 + 0j]),
    ],
    "text": [
        pd.Series(["ä"]),
        pd.Series(["ä"], dtype=object),
        pd.Series(["ä", 1], dtype=object)[:1],
        pd.Series(["ä"], dtype="category"),
        pd.Series(["ä"], dtype=pd.ArrowDtype(pa.string())),
        pd.Series(["ä", "\udcff"], dtype=object)[:1],
    ],
    "time": [
        pd.Series([NOON], dtype="datetime64[s]"),
        pd.Series([NOON], dtype="datetime64[ns]"),
        pd.Series([NOON], dtype=object),
        pd.Series([NOON.to_pydatetime()], dtype=object),
        pd.Series([NOON], dtype="category"),
        pd.Series([NOON], dtype=pd.ArrowDtype(pa.timestamp("us"))),
    ],
    "zoned time": [
        pd.Series([NOON.tz_localize("UTC")]),
        pd.Series([NOON.tz_localize("UTC").tz_convert("Asia/Tokyo")]),
        pd.Series([NOON.tz_localize("UTC").to_pydatetime()], dtype=object),
    ],
    "span": [
        pd.Series([pd.Timedelta(1, "h")]),
        pd.Series([dt.timedelta(hours=1)], dtype=object),
        pd.Series([np.timedelta64(1, "h")], dtype=object),
    ],
    "missing": [
        pd.Series([None], dtype=object),
        pd.Series([np.nan]),
        pd.Series([pd.NaT]),
        pd.Series([pd.NA], dtype="Int64"),
        pd.Series([None], dtype="str"),
        pd.Series([None], dtype="category"),
    ],
    "tuple": [
        pd.Series([(1, "a")], dtype=object),
        pd.Series([(1.0, "a")], dtype=object),
    ],
}


def key_hash(column: pd.Series) -> int:
    return int(row_hashes(pd.DataFrame({"key": column}), ["key"])[0])


@pytest.mark.parametrize("values", EQUAL.values(), ids=EQUAL)
def test_equal_values_go_to_one_bucket_whatever_their_types(values):
    assert len({key_hash(column) for column in values}) == 1


def test_values_that_differ_are_spread():
    """Also those that a float, a text or a unit of time could confuse."""
    columns = [values[0] for name, values in EQUAL.items() if name != "zoned time"]
    columns += [pd.Series(["1"]), pd.Series([b"x"], dtype=object), pd.Series([2]), pd.Series([0])]
    columns += [pd.Series([dt.date(2024, 5, 1)], dtype=object), pd.Series([(1, "b")], dtype=object)]
    assert len({key_hash(column) for column in columns}) == len(columns)
    many = pd.DataFrame({"a": np.arange(4000) // 40, "b": [f"b{i % 40}" for i in range(4000)]})
    sizes = np.bincount((row_hashes(many, ["a", "b"]) % np.uint64(8)).astype(int))
    assert sizes.min() > 400


def test_a_number_too_large_for_a_float_is_still_a_key():
    huge = pd.Series([10**400, -(10**400)], dtype=object)
    first, second = row_hashes(pd.DataFrame({"key": huge}), ["key"])
    assert first != second
    assert first == key_hash(pd.Series([decimal.Decimal(10**400)], dtype=object))


def test_every_process_has_the_same_hashes():
    code = (
        "import pandas as pd; from daskprs.key_hashes import row_hashes;"
        "print(row_hashes(pd.DataFrame({'a': ['x', 1, None], 'b': [1.5, 2, 3]}), ['a', 'b']))"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(told) == 1


# Cases of their own


def test_text_and_numbers_are_different_combinations():
    frames = [pd.DataFrame({"k": ["1"], "v": [1]}), pd.DataFrame({"k": [1], "v": [2]})]
    found = brought_together(split(frames, ["k"], 4), ["k"], 4)
    assert [values for values, _ in found] == [["1"], [1]]


def test_a_key_that_a_file_lacks_is_missing_in_its_rows():
    frames = [pd.DataFrame({"k": [1, 2]}), pd.DataFrame({"v": [1.5]}), pd.DataFrame({"k": [2]})]
    found = brought_together(split(frames, ["k"], 2), ["k"], 2)
    assert [values for values, _ in found] == [[1], [2], [None]]
    assert_as_pandas_groups(found, whole_table(frames), ["k"])


def test_many_kinds_of_types_in_one_part_keep_the_order_of_the_rows():
    """Files of one part are only joined where their types are alike."""
    frames = [pd.DataFrame({"k": [0, 1], "v": v}) for v in ([1, 2], ["a", "b"], [3, 4], [5.5, 6])]
    found = brought_together(split(frames, ["k"], 3, files_in_part=4), ["k"], 3)
    assert [frame["v"].tolist() for _, frame in found] == [[1, "a", 3, 5.5], [2, "b", 4, 6.0]]


def test_parts_of_one_table_get_the_categories_of_the_whole():
    """As pandas.read_csv(dtype='category') gives them for the whole file."""
    texts = ["b", "a", "c", "a", None, "d"]
    parts = [pd.DataFrame({"k": [0], "v": pd.Series([text], dtype="category")}) for text in texts]
    pieces = [
        split_partition(part, "run", ["v", "k"], 2, partition_info={"number": number})
        for number, part in enumerate(parts)
    ]
    found = brought_together(pieces, ["v", "k"], 2)
    whole = pd.DataFrame({"k": 0, "v": pd.Series(texts, dtype="category")})
    assert_as_pandas_groups(found, whole, ["v", "k"])


def test_pieces_do_not_carry_all_categories():
    categories = [f"category {i}" for i in range(5000)]
    column = pd.Categorical(categories[:200], categories=categories)
    frame = pd.DataFrame({"k": range(200), "v": column})
    (pieces,) = split([frame], ["k"], 50)
    assert max(map(len, pieces["payload"][pieces["bucket"] < 50])) < 5000
    assert_as_pandas_groups(brought_together([pieces], ["k"], 50), frame, ["k"])


def test_a_part_sends_its_types_without_its_large_values():
    frame = pd.DataFrame({"k": [1], "v": [b"x" * 10**6], "w": ["y" * 10**6]})
    (pieces,) = split([frame], ["k"], 1)
    assert len(pieces["payload"].iloc[-1]) < 10_000


class Broken:
    def load(self, scratch: str = "") -> pd.DataFrame:
        raise OSError("no such disk")

    def count_items(self) -> int:
        return 7


def test_a_file_that_cannot_be_read_is_reported_beside_the_rows_of_the_others():
    part = Part("run", 3, (FrameRows(pd.DataFrame({"k": [1]})), Broken()))
    pieces = split_files(part, ["k"], 2)
    (unread,) = report_of(pieces[pieces["bucket"] == 2]).unread
    assert (unread.part, unread.position, unread.items) == (3, 1, 7)
    assert unread.error == "OSError: no such disk"
    assert len(brought_together([pieces], ["k"], 2)) == 1


def test_a_file_with_two_columns_of_one_name_is_reported():
    twice = pd.DataFrame([[1, 2, 3]], columns=["k", "v", "v"])
    (pieces,) = split([twice], ["k"], 2)
    (unread,) = report_of(pieces).unread
    assert "'v'" in unread.error


def test_values_that_cannot_be_compared_are_reported_with_their_column():
    (pieces,) = split([pd.DataFrame({"k": [1], "lists": [[1, 2]]})], ["k", "lists"], 2)
    key, reason = report_of(pieces).unusable
    assert key == "lists"
    assert "unhashable" in reason
    with pytest.raises(UnusableKeyError):
        row_hashes(pd.DataFrame({"lists": [[1]]}), ["lists"])


def test_a_bucket_tells_dask_how_large_it_is():
    frame = pd.DataFrame({"k": [1, 2], "v": ["x" * 10**6, "y" * 10**6]})
    pieces = pd.concat(split([frame], ["k"], 1))
    types = types_of(pieces[pieces["bucket"] == 1])
    bucket = bucket_of(pieces[pieces["bucket"] == 0], types, ["k"])
    assert isinstance(bucket, Bucket)
    assert 2 * 10**6 < sys.getsizeof(bucket) < 3 * 10**6
