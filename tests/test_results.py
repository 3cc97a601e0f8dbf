"""What run() returns becomes rows: counted as len() counts, and formatted, byte for byte."""

from __future__ import annotations

import array
import collections
import csv
import datetime as dt
import decimal
import enum
import io
import json
import math
import uuid
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from entry_hosts import hosted
from hypothesis import example, given, settings
from hypothesis import strategies as st

from daskprs.entry_process.results import BadResultError, materialise, to_rows
from daskprs.entry_process.wire import Rows


def rows_of(result: Any, output_format: str, **to_csv: Any) -> Rows:
    return to_rows(materialise(result), output_format, to_csv)


def text_of(result: Any, **to_csv: Any) -> str:
    return rows_of(result, "text", **to_csv).payload.decode("utf-8", "surrogateescape")


# What is a result


class OnlyGetItem:
    def __getitem__(self, index: int) -> int:
        if index > 2:
            raise IndexError
        return index


def generator() -> Iterator[str]:
    yield from ("a", "b")


RESULTS: dict[str, tuple[Any, list[Any]]] = {
    "list": (["a", 1], ["a", 1]),
    "tuple": (("a", 1), ["a", 1]),
    "set": ({"a"}, ["a"]),
    "dict": ({"a": 1, "b": 2}, ["a", "b"]),
    "dict items": ({"a": 1}.items(), [("a", 1)]),
    "generator": (generator(), ["a", "b"]),
    "map": (map(str, [1, 2]), ["1", "2"]),
    "range": (range(2), [0, 1]),
    "deque": (collections.deque([1, 2]), [1, 2]),
    "array": (array.array("i", [1, 2]), [1, 2]),
    "old protocol": (OnlyGetItem(), [0, 1, 2]),
    "numpy array": (np.array([1.5, 2.0]), [1.5, 2.0]),
    "Series": (pd.Series([1, 2], index=["x", "y"]), [1, 2]),
    "Index": (pd.Index(["x", "y"]), ["x", "y"]),
    "Arrow array": (pa.array([1, 2]), [1, 2]),
    "empty list": ([], []),
    "unhashable elements": ([{}, [], set()], [{}, [], set()]),
}


@pytest.mark.parametrize("what", RESULTS)
def test_an_iterable_is_materialised(what: str) -> None:
    result, expected = RESULTS[what]
    found = materialise(result)
    assert list(found) == expected
    assert len(found) == len(expected)


def test_a_dataframe_stays_as_it_is() -> None:
    frame = pd.DataFrame({"a": [1, 2]})
    assert materialise(frame) is frame


def test_a_table_of_another_library_counts_by_rows_and_not_by_columns() -> None:
    table = pa.table({"a": [1, 2, 3], "b": [4, 5, 6]})
    assert rows_of(table, "csv") == Rows(b"1,4\n2,5\n3,6\n", 3, ("a", "b"))


async def coroutine() -> list[str]:
    return ["a"]


async def async_generator() -> Any:
    yield "a"


REFUSED = {
    "None": (None, "run() returned None; it must return a list"),
    "str": ("text", "run() returned a value of type str;"),
    "bytes": (b"bytes", "run() returned a value of type bytes;"),
    "bytearray": (bytearray(b"b"), "run() returned a value of type bytearray;"),
    "int": (7, "run() returned a value of type int;"),
    "float": (math.nan, "run() returned a value of type float;"),
    "array without dimensions": (np.array(1), "run() returned a value of type ndarray;"),
    "object": (object(), "run() returned a value of type object;"),
    "Dask-like lazy value": (type("Delayed", (), {})(), "a value of type Delayed;"),
    "class": (dict, "run() returned a value of type type;"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_rows_is_refused_and_named(what: str) -> None:
    result, message = REFUSED[what]
    with pytest.raises(BadResultError) as caught:
        materialise(result)
    assert message in str(caught.value)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("function", [coroutine, async_generator])
def test_an_async_function_is_named_as_such(function: Any) -> None:
    with pytest.raises(BadResultError, match="it is an async function"):
        materialise(function())


@pytest.mark.parametrize("output_format", ["text", "csv", "jsonl", "parquet"])
@pytest.mark.parametrize("empty", [[], (), pd.DataFrame({"a": []}), pd.DataFrame(), np.array([])])
def test_an_empty_result_has_no_rows_and_no_columns(empty: Any, output_format: str) -> None:
    """Columns of an empty table would fix the header by a mini-batch that has no rows."""
    assert rows_of(empty, output_format) == Rows(b"", 0, None)


# Text: what Azure ML writes


class Color(str, enum.Enum):  # noqa: UP042  (format() differs from str() for this kind)
    RED = "red"


class Formatted:
    def __str__(self) -> str:
        return "str"

    def __format__(self, spec: str) -> str:
        return "format"

    def __repr__(self) -> str:
        return "repr"


TEXTS: dict[str, tuple[Any, str]] = {
    "text": (["a", "b c"], "a\nb c\n"),
    "numbers": ([1, 2.5, True, None, math.nan], "1\n2.5\nTrue\nNone\nnan\n"),
    "a list in a list": ([["a", 1]], "['a', 1]\n"),
    "a tuple": ([("a", 1)], "('a', 1)\n"),
    "a dict": ([{"a": 1}], "{'a': 1}\n"),
    "bytes": ([b"a"], "b'a'\n"),
    "a newline stays": (["a\nb", "c\r\nd"], "a\nb\nc\r\nd\n"),
    "not str.format": ([Formatted()], "str\n"),
    "an enum": ([Color.RED], "Color.RED\n"),
    "numpy numbers": (np.array([1.5, 2]), "1.5\n2.0\n"),
    "a numpy row": (np.array([[1, 2]]), "[1 2]\n"),
    "a Series of the result": (pd.Series([1.5, 2]), "1.5\n2.0\n"),
    "a date": ([dt.date(2020, 1, 2)], "2020-01-02\n"),
    "other scripts": (["ビッグ", "è"], "ビッグ\nè\n"),
    "a name that is not UTF-8": (["caf\udce9"], "caf\udce9\n"),
    "an empty text": (["", ""], "\n\n"),
}


@pytest.mark.parametrize("what", TEXTS)
def test_text_is_str_of_each_element_and_a_newline(what: str) -> None:
    result, expected = TEXTS[what]
    rows = rows_of(result, "text")
    assert rows.payload == expected.encode("utf-8", "surrogateescape")
    assert (rows.count, rows.columns) == (len(result), None)


@given(st.lists(st.text() | st.integers() | st.floats() | st.none()))
def test_text_of_any_list_is_what_azure_writes(elements: list[Any]) -> None:
    """The reference is the loop that everyone would write."""
    stream = io.BytesIO()
    for element in elements:
        stream.write((str(element) + "\n").encode("utf-8"))
    assert rows_of(elements, "text").payload == stream.getvalue()


FRAME = pd.DataFrame(
    {
        "name": ["plain", "with blank", 'with "quotes"', "with\nnewline", None],
        "number": [1.5, 2.0, math.nan, -0.1, 1e100],
        "day": pd.to_datetime(["2020-01-02", None, "2020-01-02", "2020-01-02", "2020-01-02"]),
    },
    index=[5, 6, 7, 8, 9],
)


def test_text_of_a_dataframe_has_blanks_no_header_no_index_and_csv_quotes() -> None:
    assert text_of(FRAME) == (
        "plain 1.5 2020-01-02\n"
        '"with blank" 2.0 \n'
        '"with ""quotes"""  2020-01-02\n'
        '"with\nnewline" -0.1 2020-01-02\n'
        " 1e+100 2020-01-02\n"
    )


def test_text_of_a_dataframe_takes_options_from_the_settings_file() -> None:
    frame = pd.DataFrame({"a": [1.25, None], "b": ["x", "y z"]})
    assert text_of(frame, sep=",", na_rep="NA") == "1.25,x\nNA,y z\n"
    assert text_of(frame, header=True, index=True, float_format="%.1f") == (
        ' a b\n0 1.2 x\n1  "y z"\n'
    )


def test_options_for_dataframes_do_not_touch_lists() -> None:
    assert text_of(["a b"], sep=",") == "a b\n"


# CSV


def read_csv(rows: Rows) -> list[list[str]]:
    text = rows.payload.decode("utf-8", "surrogateescape")
    return list(csv.reader(io.StringIO(text, newline="")))


TABLES: dict[str, tuple[Any, tuple[str, ...], list[list[str]]]] = {
    "dicts": ([{"a": 1, "b": "x"}], ("a", "b"), [["1", "x"]]),
    "dicts with other keys": (
        *([{"a": 1}, {"b": 2}, {"b": 3, "a": 4}], ("a", "b")),
        [["1", ""], ["", "2"], ["4", "3"]],
    ),
    "keys that are no text": ([{1: "x", None: "y"}], ("1", "None"), [["x", "y"]]),
    "tuples": ([("a", 1), ("b", 2)], ("0", "1"), [["a", "1"], ["b", "2"]]),
    "tuples of other lengths": ([("a",), ("b", 2)], ("0", "1"), [["a", ""], ["b", "2"]]),
    "numpy rows": (np.array([[1, 2], [3, 4]]), ("0", "1"), [["1", "2"], ["3", "4"]]),
    "rows of a table": (
        *([pd.Series({"a": 1, "b": 2})], ("a", "b")),
        [["1", "2"]],
    ),
    "scalars": ([1, "a,b", None], ("result",), [["1"], ["a,b"], [""]]),
    "scalars and dicts": ([1, {"a": 1}], ("result",), [["1"], ["{'a': 1}"]]),
    "no values": ([math.nan, None, pd.NA, pd.NaT, np.nan], ("result",), [[""]] * 5),
    "empty dicts": ([{}, {}], ("result",), [["{}"], ["{}"]]),
    "a name that is not UTF-8": (["caf\udce9"], ("result",), [["caf\udce9"]]),
    "a DataFrame": (
        *(pd.DataFrame({"a": [1, 2], "b": ["x,y", None]}, index=[7, 8]), ("a", "b")),
        [["1", "x,y"], ["2", ""]],
    ),
    "a DataFrame with numbers for names": (
        *(pd.DataFrame([[1, 2]]), ("0", "1")),
        [["1", "2"]],
    ),
    "two columns of one name": (
        *(pd.DataFrame([[1, 2]], columns=["a", "a"]), ("a", "a")),
        [["1", "2"]],
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", TABLES)
def test_csv_has_columns_and_one_row_for_each_element(what: str) -> None:
    result, columns, expected = TABLES[what]
    rows = rows_of(result, "csv")
    assert (rows.columns, rows.count) == (columns, len(result))
    assert read_csv(rows) == expected


CELLS = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('\r\n",; '))


@settings(max_examples=150)
@given(st.lists(st.tuples(CELLS, CELLS), min_size=1), st.booleans())
@example([("a\rb", "")], False)
@example([("a\rb", "")], True)
@example([("", "")], True)
def test_csv_gives_back_every_text(cells: list[tuple[str, str]], as_frame: bool) -> None:
    """Also with carriage returns, which csv does not quote before Python 3.13."""
    result: Any = cells
    if as_frame:
        result = pd.DataFrame(cells, columns=["a", "b"], dtype=object)
    rows = rows_of(result, "csv")
    assert read_csv(rows) == [list(row) for row in cells]
    table = pd.read_csv(
        io.BytesIO(rows.payload), header=None, keep_default_na=False, dtype=str,
        skip_blank_lines=False,
    )  # fmt: skip
    if not any("\0" in cell for row in cells for cell in row):
        assert table.to_numpy().tolist() == [list(row) for row in cells]


# JSON lines


class Point(collections.namedtuple("Point", "x y")):
    pass


class Level(enum.IntEnum):
    LOW = 1


JSONS: dict[str, tuple[Any, Any]] = {
    "dict": ({"a": 1, "b": [None, True, "è"]}, {"a": 1, "b": [None, True, "è"]}),
    "scalar": ("a\nb", "a\nb"),
    "no number": ({"a": math.nan, "b": [math.inf, -math.inf]}, {"a": None, "b": [None, None]}),
    "no value": ([pd.NA, pd.NaT, np.datetime64("NaT", "ns")], [None, None, None]),
    "numpy": ([np.int64(1), np.float32(0.5), np.bool_(True)], [1, 0.5, True]),
    "numpy array": (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
    "numpy array with NaN": (np.array([1.0, np.nan]), [1.0, None]),
    "numpy text": (np.array(["a"]), ["a"]),
    "numpy dates": (np.array(["2020-01-02"], "datetime64[ns]"), ["2020-01-02T00:00:00.000000000"]),
    "dates": (
        [dt.date(2020, 1, 2), dt.datetime(2020, 1, 2, 3), pd.Timestamp("2020-01-02T03:04")],
        ["2020-01-02", "2020-01-02T03:00:00", "2020-01-02T03:04:00"],
    ),
    "set": ({"a": {1}}, {"a": [1]}),
    "tuple": (Point(1, 2), [1, 2]),
    "enum": ([Level.LOW, Color.RED], [1, "red"]),
    "path": (PurePosixPath("/a"), "/a"),
    "decimal": (decimal.Decimal("1.10"), "1.10"),
    "uuid": (uuid.UUID(int=0), "00000000-0000-0000-0000-000000000000"),
    "keys": (
        {1: "a", (2, 3): "b", None: "c", 1.5: math.nan},
        {"1": "a", "(2, 3)": "b", "null": "c", "1.5": None},
    ),
    "Series": (pd.Series({"a": 1, "b": math.nan}), {"a": 1.0, "b": None}),
    "a name that is not UTF-8": ({"path": "caf\udce9/è"}, {"path": "caf\udce9/è"}),
}  # fmt: skip


@pytest.mark.parametrize("what", JSONS)
def test_jsonl_is_one_line_of_strict_json_for_each_element(what: str) -> None:
    """NaN and infinity are not JSON: they become null. All lines are UTF-8."""
    element, expected = JSONS[what]
    rows = rows_of([element, "next"], "jsonl")
    first, second, rest = rows.payload.decode("utf-8").split("\n")
    assert json.loads(first, parse_constant=lambda name: pytest.fail(name)) == expected
    assert (second, rest) == ('"next"', "")
    assert (rows.count, rows.columns) == (2, None)


def test_jsonl_of_a_dataframe_is_a_dict_for_each_row() -> None:
    frame = FRAME.assign(count=pd.array([1, None, 3, 4, 5], dtype="Int64"))
    lines = rows_of(frame, "jsonl").payload.decode().splitlines()
    assert json.loads(lines[0]) == {
        "name": "plain", "number": 1.5, "day": "2020-01-02T00:00:00", "count": 1,
    }  # fmt: skip
    assert json.loads(lines[1])["day"] is None
    assert json.loads(lines[1])["count"] is None
    assert json.loads(lines[2])["number"] is None
    assert len(lines) == 5


def test_jsonl_of_two_columns_of_one_name_is_refused() -> None:
    """One of them would be lost."""
    with pytest.raises(BadResultError, match="more than one column named a"):
        rows_of(pd.DataFrame([[1, 2]], columns=["a", "a"]), "jsonl")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=10,
    )
)
def test_jsonl_gives_back_what_json_can_say(element: Any) -> None:
    [line] = rows_of([element], "jsonl").payload.splitlines()
    assert json.loads(line) == without_nan(element)


def without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# Arrow, for parquet

ARROWS: dict[str, tuple[Any, dict[str, list[Any]]]] = {
    "dicts": ([{"a": 1}, {"b": "x"}], {"a": [1, None], "b": [None, "x"]}),
    "tuples": ([("a", 1), ("b",)], {"0": ["a", "b"], "1": [1, None]}),
    "scalars": ([1, 2.5, None], {"result": [1.0, 2.5, None]}),
    "numpy": ([np.float64(1.5), np.nan], {"result": [1.5, None]}),
    "nested": ([{"a": np.array([1, 2]), "b": {"c": 1}}], {"a": [[1, 2]], "b": [{"c": 1}]}),
    "matrix": ([{"a": np.array([[1, 2], [3, 4]])}], {"a": [[[1, 2], [3, 4]]]}),
    "dates": (
        [{"a": dt.date(2020, 1, 2), "b": np.datetime64("2020-01-02T03:00", "s")}],
        {"a": [dt.date(2020, 1, 2)], "b": [dt.datetime(2020, 1, 2, 3)]},
    ),
    "no values": ([None, None], {"result": [None, None]}),
    "a name that is not UTF-8": (["caf\udce9"], {"result": ["caf\\xe9"]}),
    "a DataFrame": (
        pd.DataFrame({"a": [1, 2], 5: ["x", None]}, index=[7, 8]),
        {"a": [1, 2], "5": ["x", None]},
    ),
}


@pytest.mark.parametrize("what", ARROWS)
def test_parquet_rows_are_an_arrow_stream(what: str) -> None:
    result, expected = ARROWS[what]
    rows = rows_of(result, "parquet")
    table = pa.ipc.open_stream(rows.payload).read_all()
    assert table.to_pydict() == expected
    assert (rows.count, rows.columns) == (len(result), tuple(expected))


def test_parquet_refuses_a_column_of_several_types_by_its_name() -> None:
    with pytest.raises(BadResultError, match="the column 'a' of what run"):
        rows_of([{"a": 1}, {"a": "x"}], "parquet")


# In the process


def test_what_travels_does_not_need_the_script_s_classes() -> None:
    """Column names and messages may be objects of the script, which the worker does not have."""
    script = """
        class Name(str):
            def __str__(self):
                return self
        class Fails(Exception):
            def __str__(self):
                return Name("own text")
        def run(mini_batch):
            if mini_batch[0] == "fail":
                raise Fails
            return [{Name("a"): Name("x")}]
    """
    with hosted(script, output_format="csv") as host:
        outcome = host.run("a")
        failed = host.run("fail")
    assert outcome.rows == Rows(b"x\n", 1, ("a",))
    assert "own text" in failed.error


def test_an_element_that_cannot_be_text_fails_the_try_with_the_script_s_frames() -> None:
    script = """
        class Broken:
            def __str__(self):
                raise ValueError("no text")
        def run(mini_batch):
            return [Broken()]
    """
    with hosted(script) as host:
        outcome = host.run("a")
    assert outcome.attempts[0].status == "RUN_EXCEPTION"
    assert "ValueError: no text" in outcome.error
    assert 'raise ValueError("no text")' in outcome.traceback
    assert "entry_process" not in outcome.traceback
