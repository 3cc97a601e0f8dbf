"""Mini-batches with other columns or types make one table, or are refused when they come."""

from __future__ import annotations

import datetime as dt
import decimal
import io
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from output_runs import ENDED, NAME, outcome, start
from stores import new_store

from daskprs.entry_process.results import BadResultError
from daskprs.entry_process.wire import Rows
from daskprs.output import ColumnsChangedError, RowStore, open_store
from daskprs.output_folder import OutputFolder
from daskprs.parquet_format import ParquetRows
from daskprs.row_formats import CsvRows


@pytest.fixture(params=["disk", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OutputFolder]:
    if request.param == "disk":
        folder = OutputFolder(tmp_path)
        folder.make()
        yield folder
        return
    with new_store("memory") as url:
        yield OutputFolder(url)


def again(folder: OutputFolder, output_format: str) -> RowStore:
    """Go on, as after a kill."""
    store = open_store(folder, NAME, output_format)
    assert store.load() is not None
    store.resume()
    return store


def published(folder: OutputFolder, output_format: str, results: list[Any]) -> bytes:
    """Publish results, each of a mini-batch of its own, with a kill after each."""
    start(folder, output_format).close()
    for index, result in enumerate(results):
        store = again(folder, output_format)
        store.add(outcome(index, result, output_format))
        store.flush()
        store.close()
    store = again(folder, output_format)
    store.publish(None, ENDED)
    store.close()
    data = folder.read(NAME)
    assert data is not None
    return data


def refused(folder: OutputFolder, output_format: str, results: list[Any], match: str) -> None:
    """See that the last result is refused, and that nothing of it is left behind."""
    *good, bad = results
    store = start(folder, output_format)
    for index, result in enumerate(good):
        store.add(outcome(index, result, output_format))
    with pytest.raises(ColumnsChangedError, match=match):
        store.add(outcome(len(good), bad, output_format))
    assert store.journal is not None
    assert len(store.journal.records) == len(good)
    store.add(outcome(len(good), None, output_format))
    store.add(outcome(len(good) + 1, good[0], output_format))
    store.publish(None, ENDED)
    store.close()


# CSV


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ([[{"a": 1, "b": 2}], [{"b": 4, "a": 3}]], "a,b\n1,2\n3,4\n"),
        ([[{"a": 1, "b": 2}], [{"b": "x,\n\"'"}]], 'a,b\n1,2\n,"x,\n""\'"\n'),
        ([[{"a": 1, "b": 2}], [{"b": 4, "a": "x\ry"}]], 'a,b\n1,2\n"x\ry","4"\n'),
        ([[], [[1, 2]], [[4]]], "0,1\n1,2\n4,\n"),
        ([["ü"], ["\udcff"]], "result\nü\n\udcff\n"),
        ([pd.DataFrame({"a": [1.5], "a b": ["ü"]}), [{"a": None}]], 'a,a b\n1.5,ü\n,\n'),
        ([[{"a": "x" * 200_000, "b": 1}], [{"b": 2, "a": "y" * 200_000}]],
         f"a,b\n{'x' * 200_000},1\n{'y' * 200_000},2\n"),
        ([pd.DataFrame([[1, 2]], columns=["a", "a"])] * 2, "a,a\n1,2\n1,2\n"),
    ],
)  # fmt: skip
def test_csv_rows_are_put_under_one_header_line(
    folder: OutputFolder, results: list[Any], expected: str
) -> None:
    assert published(folder, "csv", results) == expected.encode("utf-8", "surrogateescape")


@pytest.mark.parametrize(
    ("results", "match"),
    [
        ([[{"a": 1}], [{"a": 1, "b": 2}]], r"\['a', 'b'\], but the output file began with \['a'\]"),
        ([[{"a": 1}], [7]], r"\['result'\], but the output file began"),
        ([pd.DataFrame([[1, 2]], columns=["a", "a"]), [{"a": 1}]], "return the same columns"),
    ],
)
def test_csv_rows_under_other_columns_are_refused(
    folder: OutputFolder, results: list[Any], match: str
) -> None:
    refused(folder, "csv", results, match)


@pytest.mark.parametrize("payload", [b"1,2,3\n", b"1,2\n3,4\n", b'1,"2\n'])
def test_csv_rows_that_cannot_be_told_apart_are_refused(payload: bytes) -> None:
    rows = CsvRows(["a", "b"])
    with pytest.raises(ColumnsChangedError):
        rows.fit(Rows(payload, 3, ("b", "a")), lambda: iter(()))


# Surrogates stand for bytes that are no text, which pandas does not read.
_CHARACTERS = st.characters(exclude_characters="\r", exclude_categories=["Cs"])


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.dictionaries(st.sampled_from("abc"), st.text(_CHARACTERS)),
        min_size=1,
        max_size=6,
    ).filter(lambda rows: len(rows[0]) == 3)
)
def test_values_of_any_text_stay_in_their_column(rows: list[dict[str, str]]) -> None:
    with new_store("memory") as url:
        data = published(OutputFolder(url), "csv", [[row] for row in rows if row])
    table = pd.read_csv(io.BytesIO(data), dtype=str, keep_default_na=False)
    expected = [{name: row.get(name, "") for name in "abc"} for row in rows if row]
    assert table[["a", "b", "c"]].to_dict("records") == expected


# Parquet


def table_of(data: bytes) -> Any:
    return pq.read_table(io.BytesIO(data))


DAY = dt.datetime(2026, 1, 2, 3, 4, 5)
BIG = 2**53 + 1


@pytest.mark.parametrize(
    ("values", "expected", "kind"),
    [
        ([[1], [2.5]], [1.0, 2.5], "double"),
        ([[2.5], [1]], [2.5, 1.0], "double"),
        ([[None], ["x"]], [None, "x"], "string"),
        ([["x"], [None]], ["x", None], "string"),
        ([[None], [None]], [None, None], "null"),
        ([[None], [2**60]], [None, 2**60], "int64"),
        ([[b"x"], [None]], [b"x", None], "binary"),
        ([[True], [None]], [True, None], "bool"),
        ([[[1]], [[]], [None], [[2.5, None]]], [[1.0], [], None, [2.5, None]],
         "list<item: double>"),
        ([[{"p": 1}], [{"q": "x"}]], [{"p": 1, "q": None}, {"p": None, "q": "x"}],
         "struct<p: int64, q: string>"),
        ([[decimal.Decimal("1.5")], [decimal.Decimal("10.25")]],
         [decimal.Decimal("1.50"), decimal.Decimal("10.25")], "decimal128(4, 2)"),
        ([[DAY], [None]], [DAY, None], "timestamp[us]"),
        ([[DAY.date()], [None]], [DAY.date(), None], "date32[day]"),
        ([[[]], [["x"]]], [[], ["x"]], "list<item: string>"),
    ],
)  # fmt: skip
def test_values_of_lists_are_widened_to_one_type(
    folder: OutputFolder, values: list[list[Any]], expected: list[Any], kind: str
) -> None:
    data = published(folder, "parquet", [[{"v": v} for v in value] for value in values])
    table = table_of(data)
    assert table["v"].to_pylist() == expected
    assert str(table.schema.field("v").type).replace("element", "item") == kind


ZONE = "Europe/Paris"


@pytest.mark.parametrize(
    "columns",
    [
        [pd.Series([1], dtype="int8"), pd.Series([300], dtype="int16")],
        [pd.Series([1, None], dtype="Int64"), pd.Series([2], dtype="int64")],
        [pd.Series(["a", "b"], dtype="category"), pd.Series(["c", None], dtype="category")],
        [pd.Series(["a"], dtype="category"), pd.Series(["b"], dtype="str")],
        [pd.Series(["a"], dtype="object"), pd.Series(["b"], dtype="str")],
        [pd.Series(pd.to_datetime(["2026-01-01"]).tz_localize(ZONE)),
         pd.Series(pd.to_datetime(["2026-07-01"]).tz_localize(ZONE))],
        [pd.Series(["2026-01-01"], dtype="datetime64[s]"),
         pd.Series(["2026-01-01T00:00:00.000000001"], dtype="datetime64[ns]")],
        [pd.Series(pd.to_timedelta([1], "s")), pd.Series(pd.to_timedelta([2], "h"))],
        [pd.Series([1.5], dtype="float32"), pd.Series([2.5], dtype="float64")],
    ],
    ids=lambda columns: "-".join(str(column.dtype) for column in columns),
)  # fmt: skip
def test_columns_of_frames_come_back_with_their_values(
    folder: OutputFolder, columns: list[Any]
) -> None:
    frames = [pd.DataFrame({"v": column, "n": 1}) for column in columns]
    table = pd.read_parquet(io.BytesIO(published(folder, "parquet", frames)))
    expected = [value for column in columns for value in column]
    for got, value in zip(table["v"], expected, strict=True):
        assert (pd.isna(got) and pd.isna(value)) or got == value
    assert list(table["n"]) == [1] * len(expected)


def test_columns_that_come_and_go_are_null_where_they_are_missing(folder: OutputFolder) -> None:
    results = [[{"a": 1, "b": "x"}], [{"c": 2.5, "a": 2}], [{"b": "y"}], []]
    data = published(folder, "parquet", results)
    assert table_of(data).to_pylist() == [
        {"a": 1, "b": "x", "c": None},
        {"a": 2, "b": None, "c": 2.5},
        {"a": None, "b": "y", "c": None},
    ]


@pytest.mark.parametrize(
    ("results", "match"),
    [
        ([[{"v": 1}], [{"v": "x"}]], "'v' as string, but in the rows before it is int64"),
        ([[{"v": "x"}], [{"v": b"x"}]], "'v' as binary, but in the rows before it is string"),
        ([[{"v": 1.5}], [{"v": decimal.Decimal("1.5")}]], "'v' as decimal"),
        ([[{"v": BIG}], [{"v": 1.5}]], "'v' as int64.*needs double.*not in range"),
        ([[{"v": 1.5}], [{"v": BIG}]], "'v' as int64.*needs double.*not in range"),
        ([[{"v": 1.5}], [{"v": 2}], [{"v": BIG}]], "'v' as int64.*needs double.*not in range"),
        ([[{"v": 1}], [{"v": 1.5}], [{"v": BIG}]], "'v' as int64.*needs double.*not in range"),
        ([[{"v": [BIG]}], [{"v": [1.5]}]], "'v'.*needs list<item: double>"),
        ([[{"v": dt.datetime(9999, 1, 1)}],
          pd.DataFrame({"v": pd.Series(["2026-01-01"], dtype="datetime64[ns]")})],
         "'v'.*timestamp.*out of bounds"),
        ([[{"v": 1}], [{"v": {}}]], "'v' as struct"),
        ([[{"w": 1}], [{"v": {}}]], "cannot hold.*no child field"),
    ],
)  # fmt: skip
def test_a_mini_batch_that_no_schema_can_hold_is_refused_when_it_comes(
    folder: OutputFolder, results: list[Any], match: str
) -> None:
    refused(folder, "parquet", results, match)
    expected = [row for rows in (*results[:-1], results[0]) for row in rows]
    assert table_of(folder.read(NAME) or b"").to_pylist() == expected


def test_two_columns_with_one_name_are_refused() -> None:
    table = pa.table([[1], [2]], names=["v", "v"])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    rows = Rows(sink.getvalue().to_pybytes(), 1, ("v", "v"))
    with pytest.raises(ColumnsChangedError, match="more than one column with the name v:"):
        ParquetRows().fit(rows, lambda: iter(()))


values = st.one_of(
    st.none(),
    st.integers(-(2**60), 2**60),
    st.floats(allow_nan=False),
    st.text(max_size=3),
    st.booleans(),
    st.lists(st.integers(-9, 9), max_size=2),
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(st.dictionaries(st.sampled_from("abc"), values), min_size=1, max_size=3),
        max_size=6,
    )
)
def test_what_was_taken_is_published_as_it_was(results: list[list[dict[str, Any]]]) -> None:
    """Whatever the types: a mini-batch is refused when it comes, or all its values are there."""
    taken = []
    with new_store("memory") as url:
        store = start(OutputFolder(url), "parquet")
        for index, result in enumerate(results):
            try:
                told = outcome(index, result, "parquet")
            except BadResultError:
                continue  # its own rows make no table
            try:
                store.add(told)
            except ColumnsChangedError:
                continue
            taken += result if any(result) else []
        store.publish(None, ENDED)
        store.close()
        data = OutputFolder(url).read(NAME)
    assert data is not None
    rows = [
        {name: value for name, value in row.items() if value is not None}
        for row in table_of(data).to_pylist()
    ]
    expected = [{n: v for n, v in row.items() if v is not None} for row in taken]
    assert rows == expected


def test_many_small_mini_batches_make_few_row_groups() -> None:
    rows = ParquetRows()
    payloads = []
    for index in range(2500):
        told = outcome(index, [{"n": index, "s": "x"}], "parquet").rows
        assert told is not None
        payloads.append(rows.fit(told, lambda: iter(payloads)))
    data = b"".join(rows.compose(payloads))
    file = pq.ParquetFile(io.BytesIO(data))
    assert file.num_row_groups == 1
    assert file.read()["n"].to_pylist() == list(range(2500))


def test_a_large_output_is_written_in_pieces() -> None:
    rows = ParquetRows()
    noise = random.Random(7).randbytes
    told = [outcome(i, [{"n": i, "s": noise(5 << 20)}], "parquet").rows for i in range(16)]
    payloads = [rows.fit(one, lambda: iter(())) for one in told if one is not None]
    pieces = list(rows.compose(iter(payloads)))
    assert max(map(len, pieces)) < 80 << 20
    file = pq.ParquetFile(io.BytesIO(b"".join(pieces)))
    assert file.num_row_groups > 1
    assert file.read(["n"])["n"].to_pylist() == list(range(16))


def test_an_output_without_rows_has_the_columns_that_are_known(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path)
    folder.make()
    store = start(folder, "parquet")
    store.add(outcome(0, [{"a": 1}], "parquet"))
    store.publish([], ENDED)
    store.close()
    assert str(table_of((tmp_path / NAME).read_bytes()).schema) == "a: int64"
