"""Tests of making tables like a meta: what fits, what is cast, and what the error says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from daskprs.conform import DoesNotFitError, fit_frame, fit_result

INDEX = pd.Index([5, 6, 7])
ABC = pd.CategoricalDtype(["a", "b", "c"])


def frame(meta: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame({name: pd.Series(dtype=dtype) for name, dtype in meta.items()})


def column(values: Any, dtype: Any = None) -> pd.DataFrame:
    return pd.DataFrame({"a": pd.Series(values, dtype=dtype)})


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (pd.DataFrame({"b": ["x", "y", "z"], "a": [1, 2, 3]}), [0, 1, 2]),
        (pd.DataFrame({"a": [1, 2, 3], "b": ["x", "y", "z"]}, index=[9, 8, 7]), [9, 8, 7]),
        ([{"b": "x", "a": 1}, {"a": 2, "b": "y"}, {"a": 3, "b": "z"}], [5, 6, 7]),
        ([(1, "x"), (2, "y"), (3, "z")], [5, 6, 7]),
        (([1, "x"], [2, "y"], [3, "z"]), [5, 6, 7]),
        ([np.array([1, "x"], object), np.array([2, "y"], object), (3, "z")], [5, 6, 7]),
        ([pd.Series({"a": n, "b": t}) for n, t in ((1, "x"), (2, "y"), (3, "z"))], [5, 6, 7]),
    ],
)
def test_tables(result: Any, expected: list[int]) -> None:
    """Frames keep their index; lists of rows get that of the mini-batch."""
    fitted = fit_result(result, frame({"a": "int64", "b": "str"}), INDEX)
    wanted = pd.DataFrame({"a": [1, 2, 3], "b": ["x", "y", "z"]}, index=expected)
    pd.testing.assert_frame_equal(fitted, wanted)


def test_scalars_make_the_only_column() -> None:
    """A list of plain values is a table where meta has one column."""
    fitted = fit_result([0.5, 1, 2], frame({"a": "float64"}), INDEX)
    pd.testing.assert_frame_equal(fitted, pd.DataFrame({"a": [0.5, 1.0, 2.0]}, index=INDEX))


def test_list_of_another_length_has_row_numbers() -> None:
    """Nobody knows which rows fewer results are of."""
    assert list(fit_result([1, 2], frame({"a": "int64"}), INDEX).index) == [0, 1]


@pytest.mark.parametrize("result", [[], (), frame({"a": "object", "b": "float64"})])
def test_no_rows(result: Any) -> None:
    """Nothing at all has the columns and types of meta."""
    meta = frame({"a": "int64", "b": "str"})
    pd.testing.assert_frame_equal(fit_result(result, meta, INDEX), meta)


@pytest.mark.parametrize(
    "result",
    [
        [1, 2, 3],
        (1, 2, 3),
        pd.DataFrame({"a": [1, 2, 3]}),
        pd.DataFrame({"a": [1, 2, 3]}, index=INDEX),
    ],
)
def test_series(result: Any) -> None:
    """A Series has the name of meta and the index of its rows."""
    fitted = fit_result(result, pd.Series(dtype="float64", name="score"), INDEX)
    pd.testing.assert_series_equal(fitted, pd.Series([1.0, 2.0, 3.0], INDEX, name="score"))
    assert len(fit_result([], pd.Series(dtype="int64"), INDEX[:0])) == 0


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        (column([1, 2]), "float64", [1.0, 2.0]),
        (column([1.0, 2.0]), "int64", [1, 2]),
        (column([1, 2]), "int8", [1, 2]),
        (column([0.1]), "float32", [np.float32(0.1)]),
        (column([1, None], "Int64"), "float64", [1.0, None]),
        (column([1, 2], object), "int64", [1, 2]),
        (column([1, 2.5], object), "float64", [1.0, 2.5]),
        (column(["x", None], object), "string", ["x", None]),
        (column(["x", None]), "string", ["x", None]),
        (column([None, None]), "string", [None, None]),
        (column([np.nan, np.nan]), "string", [None, None]),
        (column([None, None]), "datetime64[ns]", [None, None]),
        (column([True, None], object), "boolean", [True, None]),
        (column([True, False], object), "bool", [True, False]),
        (column([1, "x", None]), object, [1, "x", None]),
        (column([[1], {"a": 2}]), object, [[1], {"a": 2}]),
        (column(pd.to_datetime(["2024-01-01"])), "datetime64[s]", [pd.Timestamp("2024-01-01")]),
        (column(["a", None, "c"]), ABC, ["a", None, "c"]),
        (column(["c", "a"], "category"), ABC, ["c", "a"]),
    ],
)
def test_types_that_are_cast(values: pd.DataFrame, dtype: Any, expected: list[Any]) -> None:
    """A column gets the type of meta where that holds all its values."""
    fitted = fit_frame(values, frame({"a": dtype}))["a"]
    assert fitted.dtype == dtype
    given = [None if value is None or value is pd.NA or value != value else value
             for value in fitted.tolist()]  # fmt: skip
    assert given == expected


@pytest.mark.parametrize(
    ("values", "dtype", "says"),
    [
        (column([1.5]), "int64", "'a' is float64, and meta says int64"),
        (column([1, None]), "int64", "float64 with missing values, and meta says int64"),
        (column([None]), "int64", "with missing values"),
        (column([300]), "int8", "int64, and meta says int8"),
        (column([-1]), "uint64", "int64, and meta says uint64"),
        (column([np.inf]), "int64", "float64, and meta says int64"),
        (column(["1"], "string"), "int64", "string, and meta says int64"),
        (column([1]), "string", "int64, and meta says string"),
        (column([1]), "bool", "int64, and meta says bool"),
        (column([True]), "int64", "bool, and meta says int64"),
        (column(["2024-01-01"], "string"), "datetime64[ns]", "string, and meta says datetime64"),
        (column(pd.to_datetime(["2024-01-01"], utc=True)), "datetime64[ns]", "UTC"),
        (column([1, "x"]), "string", "object, and meta says string"),
        (column(["a", "z"]), ABC, "meta says category"),
    ],
)
def test_types_that_do_not_fit(values: pd.DataFrame, dtype: Any, says: str) -> None:
    """Nothing is guessed, rounded or lost: the error names both types."""
    with pytest.raises(DoesNotFitError) as caught:
        fit_frame(values, frame({"a": dtype}))
    assert says in str(caught.value)


def test_categories_that_dask_does_not_know() -> None:
    """Dask's mark for unknown categories takes any."""
    unknown = pd.CategoricalDtype(["__UNKNOWN_CATEGORIES__"])
    fitted = fit_frame(column(["x", "y"]), frame({"a": unknown}))
    assert list(fitted["a"].cat.categories) == ["x", "y"]


@pytest.mark.parametrize(
    ("result", "meta", "says"),
    [
        (pd.DataFrame({"a": [1]}), frame({"a": "int64", "b": "int64"}), "'b' is missing"),
        (pd.DataFrame({"a": [1], "b": [1]}), frame({"a": "int64"}), "'b' is not in meta"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), frame({"a": "int64"}), "there twice"),
        ([1, 2], frame({"a": "int64", "b": "int64"}), "a list of int does not fit"),
        ([(1, 2), (3,)], frame({"a": "int64", "b": "int64"}), "rows of 1 and 2 values"),
        ([1, 2], pd.Series(dtype="int64"), "2 values are not one for each of 3 rows"),
        (pd.DataFrame({"a": [1, 2, 3], "b": 1}), pd.Series(dtype="int64"), "is not one column"),
        (pd.DataFrame({"a": [1, 2, 3]}, index=[7, 6, 5]), pd.Series(dtype="int64"), "index"),
    ],
)
def test_columns_that_do_not_fit(result: Any, meta: Any, says: str) -> None:
    """The error says what is missing, too much, or of another shape."""
    with pytest.raises(DoesNotFitError) as caught:
        fit_result(result, meta, INDEX)
    assert says in str(caught.value)
