"""Tests of text columns that pandas looks at itself: nothing is different but the time."""

from __future__ import annotations

import io
import warnings
from collections import defaultdict
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskprs import inferred_text
from daskprs.inferred_text import read_csv

HAS_TEXT_TYPE = isinstance(pd.Series([""]).dtype, pd.StringDtype)
VALUES = st.sampled_from(
    ["", "NA", "007", "1", "-1", "1.0", "1e5", "inf", "True", "false", "x", " y", "ä", '"q,""r"']
)


@pytest.fixture(autouse=True)
def _nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inferred_text, "_other_looks", set())


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The types that pandas was told, for each time that it has read."""
    told: list[dict[str, Any]] = []
    real = pd.read_csv

    def watched(source: Any, **options: Any) -> Any:
        told.append(dict(options["dtype"]))
        return real(source, **options)

    monkeypatch.setattr(pd, "read_csv", watched)
    return told


def read(text: str, types: dict[Any, Any], **options: Any) -> pd.DataFrame:
    """Read a table in both ways; they are the same."""
    options = {"low_memory": False, "dtype": types, **options}
    frame = read_csv(io.BytesIO(text.encode()), options)
    expected = pd.read_csv(io.BytesIO(text.encode()), **options)
    pd.testing.assert_frame_equal(frame, expected, check_exact=True)
    assert [type(v) for v in frame.to_numpy().ravel()] == [
        type(v) for v in expected.to_numpy().ravel()
    ]
    return frame


@settings(deadline=None)
@given(
    rows=st.lists(st.tuples(VALUES, VALUES, VALUES), max_size=6),
    types=st.dictionaries(
        st.sampled_from(["a", "b", "c", "z"]), st.sampled_from([str, "str", object]), max_size=4
    ),
    header=st.sampled_from(["a,b,c", "a,a,b", "a,a.1,a", "b,c"]),
    options=st.sampled_from(
        [{}, {"na_filter": False}, {"keep_default_na": False}, {"true_values": ["x"]},
         {"na_values": ["x"]}, {"thousands": ","}, {"low_memory": True}]
    ),
)  # fmt: skip
def test_tables_are_those_of_pandas(
    rows: list[tuple[str, ...]], types: dict[str, Any], header: str, options: dict[str, Any]
) -> None:
    """Whatever the values look like, the types and values are those that were asked for."""
    text = "\n".join([header, *map(",".join, rows), ""])
    read(text, types, **options)


def test_text_is_read_once(reads: list[dict[str, Any]]) -> None:
    """A column with text in it is not announced to pandas, and needs no second reading."""
    read_csv(io.BytesIO(b"a,b\n1,x\n2,y\n"), {"dtype": {"a": "int64", "b": "str"},
                                                "low_memory": False})  # fmt: skip
    assert reads == ([{"a": "int64"}] if HAS_TEXT_TYPE else [{"a": "int64", "b": "str"}])


def test_what_looks_like_numbers_is_read_twice_only_once(reads: list[dict[str, Any]]) -> None:
    """After the first table with codes of digits, the column is announced at once."""
    options = {"dtype": {"code": str}, "low_memory": False}
    for _ in range(3):
        frame = read_csv(io.BytesIO(b"code\n007\n008\n"), options)
        assert frame["code"].tolist() == ["007", "008"]
    told = [{"code": str}] * 3
    assert reads == ([{}, *told] if HAS_TEXT_TYPE else told)


@pytest.mark.parametrize(
    "types",
    [
        defaultdict(lambda: str, {"a": str}),
        defaultdict(lambda: "float64", {"a": str}),
        {"a": np.dtype("U")},
        {"a": np.str_},
        {"a": pd.StringDtype("python", na_value=np.nan)},
        {"a": pd.StringDtype("python")},
        {"a": "string"},
        {"a": "U"},
        str,
    ],
)
def test_types_that_are_like_text_are_what_pandas_makes_of_them(types: Any) -> None:
    """Only the plain type of text is left to pandas, and only where each column has its own."""
    read("a,b\nx,007\ny,008\n", types)


@pytest.mark.parametrize(
    ("text", "options", "warned"),
    [
        (b"a,b\n007,1\n008,2,9\n", {"on_bad_lines": "warn"}, 1),
        (b"a,b\n007,1\n", {"converters": {"b": lambda text: text + "!"}}, 0),
    ],
)
def test_what_would_be_noticed_twice_is_read_once(
    text: bytes, options: dict[str, Any], warned: int, reads: list[dict[str, Any]]
) -> None:
    """Warnings and functions of the user come once for each table."""
    options = {"dtype": {"a": str}, "low_memory": False, **options}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        read_csv(io.BytesIO(text), options)
    assert reads == [{"a": str}]
    assert len(caught) == warned


def test_what_cannot_be_read_again_is_read_as_it_was_said(reads: list[dict[str, Any]]) -> None:
    """A path, or a stream without a way back, is left to pandas."""

    class Stream:
        def __init__(self) -> None:
            self._inner = io.BytesIO(b"code\n007\n")

        def read(self, size: int = -1) -> bytes:
            return self._inner.read(size)

        def __iter__(self) -> Any:
            return iter(self._inner)

    frame = read_csv(Stream(), {"dtype": {"code": str}, "low_memory": False})
    assert frame["code"].tolist() == ["007"]
    assert reads == [{"code": str}]
