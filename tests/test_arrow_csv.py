"""CSV by Arrow is that of pandas, byte for byte."""

from __future__ import annotations

import csv
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskprs.entry_process.arrow_csv import arrow_csv

SEPARATORS = st.sampled_from([",", " "])
NUMBERS = st.floats(width=64) | st.floats(-1e6, 1e6).map(lambda value: round(value, 2))
TEXTS = st.text(max_size=5) | st.sampled_from(
    ['"', "a,b", "a b", "\n", "\r", "", "#", " a", "\x00"]
)
COLUMNS = st.sampled_from(
    [
        st.integers(-(2**63), 2**63 - 1),
        NUMBERS,
        st.none() | NUMBERS,
        TEXTS,
        st.none() | TEXTS,
        st.booleans(),
        st.integers() | NUMBERS,
        st.integers() | NUMBERS | TEXTS | st.none() | st.booleans(),
    ]
)


def by_pandas(frame: pd.DataFrame, separator: str) -> bytes:
    text = frame.to_csv(header=False, index=False, sep=separator, lineterminator="\n")
    return text.encode("utf-8", "surrogatepass")


@st.composite
def tables(draw: st.DrawFn) -> pd.DataFrame:
    rows = draw(st.integers(1, 5))
    columns = draw(st.lists(COLUMNS, min_size=1, max_size=3))
    cells = [draw(st.lists(column, min_size=rows, max_size=rows)) for column in columns]
    kind = draw(st.sampled_from([None, object]))
    return pd.DataFrame({f"c{n}": pd.Series(c, dtype=kind) for n, c in enumerate(cells)})


@settings(max_examples=300, deadline=None)
@given(tables(), SEPARATORS)
def test_what_it_writes_is_what_pandas_writes(frame: pd.DataFrame, separator: str) -> None:
    written = arrow_csv(frame, separator)
    assert written is None or written == by_pandas(frame, separator)


@pytest.mark.parametrize("exponent", range(-8, 23))
def test_numbers_of_every_size_are_those_of_pandas(exponent: int) -> None:
    chance = np.random.default_rng(exponent + 8)
    values = chance.uniform(-10, 10, 2000) * 10.0**exponent
    frame = pd.DataFrame({"a": values, "b": np.floor(values), "c": np.round(values, 3)})
    assert arrow_csv(frame) == by_pandas(frame, ",")


def test_the_edges_of_the_numbers_are_those_of_pandas() -> None:
    edges = [0.0, -0.0, 1e-4, 1e10, 1e16, math.inf, -math.inf, math.nan, 5e-324, 1.8e308]
    near = [math.nextafter(edge, way) for edge in edges for way in (-math.inf, math.inf)]
    for value in edges + near:
        frame = pd.DataFrame({"a": [value, 0.5], "b": [1, 2]})
        assert arrow_csv(frame) == by_pandas(frame, ","), value


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame({"a": [1, 2], "b": [0.5, 2.0]}),
        pd.DataFrame({"a": ["x", None], "b": [2**63 - 1, -1]}),
        pd.DataFrame({"a": pd.array([1, None], dtype="Int64"), "b": ["", "é"]}),
    ],
    ids=["numbers", "missing text", "missing numbers"],
)
def test_plain_tables_are_written_by_it(frame: pd.DataFrame) -> None:
    assert arrow_csv(frame) == by_pandas(frame, ",")


@pytest.mark.parametrize(
    "column",
    [
        *(["a,b", "c"], ['"', "c"], ["\r", "c"], [True, False]),
        *(pd.to_datetime(["2026-01-01"] * 2), pd.Series([1, 0.5], dtype=object)),
    ],
    ids=["separator", "quote", "carriage return", "boolean", "date", "numbers of two kinds"],
)
def test_other_tables_are_left_to_pandas(column: list[object]) -> None:
    assert arrow_csv(pd.DataFrame({"a": [1, 2], "b": column})) is None


def test_rows_can_be_read_again() -> None:
    frame = pd.DataFrame({"a": [1, 2], "b": [0.1, 3.0], "c": ["x", "y"]})
    data = arrow_csv(frame)
    assert data is not None
    assert list(csv.reader(data.decode().splitlines())) == [["1", "0.1", "x"], ["2", "3.0", "y"]]
