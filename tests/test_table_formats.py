"""Tests of reading parts of JSON lines and parquet files, and compressed files."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from daskprs.tables import TableFile, TableReader, count_items, format_of, read_part, survey

# --- JSON lines -------------------------------------------------------------------------------

AS_THEY_ARE: dict[str, Any] = {"lines": True, "dtype": False, "convert_axes": False}
if pd.__version__ < "3.1":
    AS_THEY_ARE["convert_dates"] = False


def read_json_parts(text: bytes, parts: int, **options: Any) -> list[pd.DataFrame]:
    reader = TableReader("jsonl", options)
    file = TableFile("table.jsonl", content=text)
    found = survey(file, parts, reader)
    return [read_part(file, reader, part=n, parts=parts, found=found) for n in range(parts)]


def check_json_parts(text: bytes, parts: int, **options: Any) -> None:
    whole = pd.read_json(io.BytesIO(text), **AS_THEY_ARE, **options)
    frames = read_json_parts(text, parts, **options)
    for frame in frames:
        assert frame.dtypes.to_dict() == whole.dtypes.to_dict()
    together = pd.concat([frame for frame in frames if len(frame)] or frames, ignore_index=True)
    pd.testing.assert_frame_equal(together, whole, check_exact=True)


VALUES = st.one_of(
    st.integers(-9, 9),
    st.integers(2**53, 2**63 - 1),
    st.floats(-5, 5).map(lambda number: round(number, 3)),
    st.none(),
    st.booleans(),
    st.sampled_from(["", "a", "007", "1.5", "2024-01-01", 'é\n"', "\u2028"]),
    st.lists(st.integers(0, 3), max_size=2),
    st.dictionaries(st.sampled_from("xy"), st.none() | st.integers(0, 3), max_size=2),
)
KINDS = [
    st.integers(-9, 9),
    st.floats(-5, 5).map(lambda number: round(number, 3)),
    st.booleans(),
    st.sampled_from(["", "a", "007"]),
    st.none(),
    st.lists(st.integers(0, 3), max_size=2),
]
KEYS = ["a", "b", "date", "x_at", "1", "2024-01-01"]


@st.composite
def json_lines(draw: st.DrawFn) -> bytes:
    """Draw records whose keys mostly hold one kind of value, and are mostly there."""
    keys = draw(st.lists(st.sampled_from(KEYS), unique=True, min_size=1, max_size=4))
    kinds = {key: draw(st.sampled_from(KINDS)) for key in keys}
    text = ""
    for _ in range(draw(st.integers(1, 10))):
        order = draw(st.permutations(keys))
        record = {
            key: draw(VALUES if draw(st.integers(0, 9)) == 0 else kinds[key])
            for key in order
            if draw(st.integers(0, 7))
        }
        text += draw(st.sampled_from(["", "", "", "\n", " \r\n"]))
        text += json.dumps(record, ensure_ascii=draw(st.booleans()))
        text += draw(st.sampled_from(["\n", "\n", "\r\n", " \n"]))
    return (text.rstrip() if draw(st.booleans()) else text).encode()


@settings(max_examples=150, deadline=None)
@given(json_lines(), st.integers(2, 30))
@example(b'{"a":"007"}\n{"a":"x"}\n', 2)
@example(b'{"a":1}\n{"a":null}\n{"b":1}\n', 3)
@example(b'{"a":true}\n{"a":null}\n{"a":false}\n', 3)
@example(b'{"a":1,\r"b":2}\n{"a":3,\r"b":4}\n', 2)
def test_parts_of_json_lines_are_those_of_the_whole(text: bytes, parts: int) -> None:
    """Rows, order of columns and types of all parts are those that pandas gives for all lines."""
    check_json_parts(text, parts)


@pytest.mark.parametrize(
    ("text", "options"),
    [
        (b"[1,2]\n[3,4]\n[5,6]\n", {}),
        ('{"é":"ü"}\n{"é":"x"}\n'.encode("latin-1"), {"encoding": "latin-1"}),
        ('\ufeff{"é":"ü"}\n{"é":1}\n'.encode(), {"encoding": "utf-8-sig"}),
        (b'{"a":0.1234567890123456789}\n{"a":2}\n', {"precise_float": True}),
    ],
)
def test_json_lines_with_options(text: bytes, options: dict[str, Any]) -> None:
    """Every option with which files are cut gives the same for parts as for the whole."""
    assert TableReader("jsonl", options).can_cut("a.jsonl")
    check_json_parts(text, 3, **options)


@pytest.mark.parametrize(
    "options", [{"dtype": True}, {"dtype": {"a": str}}, {"convert_dates": ["a"]}, {"nrows": 1}]
)
def test_guesses_of_pandas_keep_json_lines_in_one_piece(options: dict[str, Any]) -> None:
    """Whether text is a number or a date for pandas is known from all of it only."""
    assert not TableReader("jsonl", options).can_cut("a.jsonl")


def test_line_that_is_no_json_fails_its_part_only() -> None:
    """A broken line is an error of its own part, and the types of the others are found."""
    text = b'{"a":1}\n{"a":2 \n{"a":3}\n{"a":4.5}\n'
    reader = TableReader("jsonl")
    file = TableFile("table.jsonl", content=text)
    found = survey(file, 40, reader)
    values = []
    failures = 0
    for part in range(40):
        try:
            frame = read_part(file, reader, part=part, parts=40, found=found)
        except ValueError:
            failures += 1
        else:
            assert str(frame["a"].dtype) == "float64"
            values += frame["a"].tolist()
    assert (values, failures) == ([1, 3, 4.5], 1)


def test_json_array_is_told_from_json_lines() -> None:
    """A file with one array of objects is not taken for a table with a column for each."""
    with pytest.raises(ValueError, match="JSON array"):
        read_json_parts(b'[{"a":1},{"a":2}]', 1)


# --- Parquet ----------------------------------------------------------------------------------


def parquet_bytes(table: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def read_parquet_parts(
    data: bytes, parts: int, order: list[int] | None = None, **options: Any
) -> list[pd.DataFrame]:
    reader = TableReader("parquet", options)
    file = TableFile("table.parquet", content=data)
    frames = {
        part: read_part(file, reader, part=part, parts=parts)
        for part in (range(parts) if order is None else order)
    }
    return [frames[part] for part in range(parts)]


def check_parquet_parts(
    data: bytes, parts: int, order: list[int] | None = None, **options: Any
) -> None:
    whole = pd.read_parquet(io.BytesIO(data), **options)
    frames = read_parquet_parts(data, parts, order, **options)
    for frame in frames:
        assert frame.dtypes.to_dict() == whole.dtypes.to_dict()
        assert frame.attrs == whole.attrs
    counted = isinstance(whole.index, pd.RangeIndex) and whole.index.name is None
    together = pd.concat(frames, ignore_index=counted)
    pd.testing.assert_frame_equal(together, whole, check_exact=True)


TABLE = pa.table(
    {
        "small": pa.array([1, None, 3, 4, 5, 6], pa.int8()),
        "whole": pa.array([1, 2, 3, 4, 5, 2**60 + 1]),
        "holes": pa.array([1, 2, 3, 4, None, 2**60 + 1]),
        "flags": [True, False, None, True, True, True],
        "sure": [True, False, True, True, True, True],
        "real": [0.5, None, 1.0, 2.0, 3.0, 4.0],
        "text": ["a", None, "007", "", "é", "x"],
        "kind": pa.array(["x", "y", "x", "z", "y", None]).dictionary_encode(),
        "time": pa.array([0, 1, 2, None, 4, 5], pa.timestamp("ms", "Europe/Rome")),
        "day": pa.array([0, 1, 2, None, 4, 5], pa.date32()),
        "cents": pa.array([1, 2, 3, None, 5, 6]).cast(pa.decimal128(21, 2)),
        "list": [[1], [], None, [2, 3], [4], [5]],
        "record": [{"n": 1, "m": [1]}, {"n": 2, "m": None}, None, {"n": 4}, {"n": 5}, {"n": 6}],
        "bytes": [b"a", b"", None, b"b", b"c", b"d"],
        "nothing": pa.nulls(6),
        "n.m": [1, 2, 3, 4, 5, 6],
    }
)


@settings(max_examples=50, deadline=None)
@given(
    st.integers(1, 7),
    st.integers(1, 9).flatmap(lambda parts: st.permutations(range(parts))),
    st.booleans(),
    st.sampled_from([None, ["text", "whole"], ["holes"], ["kind", "flags"], ["list", "record"]]),
)
def test_parts_of_parquet_are_those_of_the_whole(
    group: int, order: list[int], statistics: bool, columns: list[str] | None
) -> None:
    """Whatever the row groups and the order of reading, rows and types are those of the whole."""
    data = parquet_bytes(TABLE, row_group_size=group, write_statistics=statistics)
    check_parquet_parts(data, len(order), order, columns=columns)


def test_large_row_group_is_cut_by_rows() -> None:
    """One row group makes as many parts as any, read forward, backward and with gaps."""
    rows = 200_000
    table = pa.table({"n": range(rows), "x": pa.array([None, *range(1, rows)])})
    data = parquet_bytes(table, row_group_size=rows)
    for order in (list(range(9)), list(range(8, -1, -1)), [0, 4, 8, 1, 3, 2, 5, 7, 6]):
        check_parquet_parts(data, 9, order)


def test_more_parts_than_rows() -> None:
    """Parts without rows are empty frames with the types of the whole."""
    frames = read_parquet_parts(parquet_bytes(TABLE, row_group_size=2), 20)
    assert sum(map(len, frames)) == 6
    check_parquet_parts(parquet_bytes(TABLE, row_group_size=2), 20)


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame({"a": [1, 2, 3]}, index=pd.Index(["x", "y", "z"], name="k")),
        pd.DataFrame({"a": [1, 2, 3]}, index=[5, 3, 4]),
        pd.DataFrame({"a": [1, 2, 3]}, index=pd.MultiIndex.from_tuples([(1, "x")] * 3)),
        pd.DataFrame({"a": pd.array([1, None, 3], "Int64"), "b": pd.array([True] * 3, "boolean")}),
        pd.DataFrame({"a": pd.Categorical(["b", "a", None], ["z", "b", "a"], ordered=True)}),
        pd.DataFrame({"a": pd.Series(["2024-01-01"] * 3, dtype="datetime64[ns]")}),
        pd.DataFrame({"a": np.array([1, 2, 3], "uint8"), "b": np.array([1, 2, 3], "float32")}),
        pd.DataFrame({"a": [1, 2, 3]}).iloc[:0],
        pd.DataFrame(index=pd.RangeIndex(3)),
        pd.DataFrame({"a": [1, 2, 3]}).assign(b=lambda f: f.a.astype("int32[pyarrow]")),
    ],
)
def test_parquet_of_pandas(frame: pd.DataFrame) -> None:
    """What pandas has written about index and types holds for every part."""
    frame.attrs = {"unit": "m"}
    sink = io.BytesIO()
    frame.to_parquet(sink, row_group_size=2)
    check_parquet_parts(sink.getvalue(), 3)
    if "a" in frame:
        check_parquet_parts(sink.getvalue(), 2, columns=["a"])


def test_categories_of_all_row_groups() -> None:
    """Row groups with different dictionaries give the categories of the whole, in order."""
    sink = io.BytesIO()
    schema = pa.schema([("d", pa.dictionary(pa.int32(), pa.string()))])
    with pq.ParquetWriter(sink, schema) as writer:
        for values in (["x", "y"], ["z", "x"], [None, "a"]):
            column = pa.array(values, pa.string()).dictionary_encode()
            writer.write_table(pa.table({"d": column}))
    check_parquet_parts(sink.getvalue(), 5, [4, 0, 2, 1, 3])


def test_column_that_is_not_there() -> None:
    """The error names the column that was asked for, and those that there are."""
    with pytest.raises(ValueError, match="no column 'b'; it has \\['a'\\]"):
        read_parquet_parts(parquet_bytes(pa.table({"a": [1, 2]})), 2, columns=["b"])


def test_broken_parquet_file_can_be_mended(tmp_path: Path) -> None:
    """After an error the file is opened anew."""
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1 nothing")
    reader = TableReader("parquet")
    for _ in range(2):
        with pytest.raises(pa.ArrowInvalid):
            read_part(TableFile(str(path)), reader, part=0, parts=2)
    path.write_bytes(parquet_bytes(TABLE))
    assert len(read_part(TableFile(str(path)), reader, part=1, parts=2)) == 3


@pytest.mark.parametrize(
    "options",
    [
        {"engine": "fastparquet"},
        {"filters": [("a", ">", 1)]},
        {"dtype_backend": "pyarrow"},
        {"columns": ["record.n"]},
    ],
)
def test_parquet_in_one_piece(options: dict[str, Any]) -> None:
    """Options that only the reader of pandas understands keep the file whole."""
    assert not TableReader("parquet", options).can_cut("a.parquet")


# --- Compressed files, formats and counts -----------------------------------------------------


def zipped(data: bytes) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("a.csv", data)
    return sink.getvalue()


CSV = b"a,b\n1,x\n2,y\n"


@pytest.mark.parametrize(
    ("name", "data", "options"),
    [
        ("a.csv.gz", gzip.compress(CSV, mtime=0), {}),
        ("a.csv.gz", gzip.compress(CSV[:7], mtime=0) + gzip.compress(CSV[7:], mtime=0), {}),
        ("a.csv.gz", gzip.compress(CSV, mtime=0), {"compression": "gzip"}),
        ("a.csv", gzip.compress(CSV, mtime=0), {"compression": {"method": "gzip"}}),
        ("a.csv.gz", CSV, {"compression": None}),
        ("a.csv.bz2", bz2.compress(CSV), {}),
        ("a.csv.xz", lzma.compress(CSV), {}),
        ("a.csv.zip", zipped(CSV), {}),
        ("a.csv", CSV, {"compression": "infer"}),
    ],
)
def test_compressed_files(name: str, data: bytes, options: dict[str, Any]) -> None:
    """A compressed file is read as what is in it, in all its members."""
    file = TableFile(name, content=data)
    frame = read_part(file, TableReader("csv", options), part=0, parts=1)
    pd.testing.assert_frame_equal(frame, pd.read_csv(io.BytesIO(CSV)))
    assert count_items(file, TableReader("csv", options)) == 2


def test_compressed_json_lines() -> None:
    """JSON lines can be compressed, too."""
    file = TableFile("a.jsonl.gz", content=gzip.compress(b'{"a":"007"}\n', mtime=0))
    frame = read_part(file, TableReader("jsonl"), part=0, parts=1)
    assert frame["a"].tolist() == ["007"]


@pytest.mark.parametrize("data", [b"", gzip.compress(b"", mtime=0), gzip.compress(b"\n", mtime=0)])
def test_empty_compressed_file_is_an_empty_table(data: bytes) -> None:
    """Nothing at all in a file is no row, not an error."""
    frame = read_part(TableFile("a.csv.gz", content=data), TableReader("csv"), part=0, parts=1)
    assert frame.empty


def test_compression_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the file and the package that is missing."""
    monkeypatch.delitem(__import__("fsspec").compression.compr, "zstd", raising=False)
    with pytest.raises(ImportError, match=r"a\.csv\.zst is compressed with zstd.*'zstandard'"):
        read_part(TableFile("a.csv.zst", content=b"x"), TableReader("csv"), part=0, parts=1)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.csv", "csv"),
        ("/d.csv/a.TSV", "tsv"),
        ("a.tab", "tsv"),
        ("a.txt", "csv"),
        ("a.jsonl.gz", "jsonl"),
        ("a.ndjson", "jsonl"),
        ("s3://b/a.parquet", "parquet"),
        ("https://h/a.csv?v=1", "csv"),
        ("a.csv.zst", "csv"),
        ("a.csv.lz4", "csv"),
        ("a.pq", "parquet"),
        ("a.png", None),
        ("/d.csv/a", None),
        ("csv", None),
    ],
)
def test_format_of(name: str, expected: str | None) -> None:
    """The last suffix tells the format, below one that tells a compression."""
    assert format_of(name) == expected


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("a.csv", b"a\n1\n2\n3", 3),
        ("a.csv", b"", 1),
        ("a.csv", b'a\n"\n1', 2),
        ("a.csv.gz", gzip.compress(b"a\n" + b"1\n" * 5, mtime=0)[:-9], 1),
        ("a.csv.gz", b"no gzip", 1),
        ("a.jsonl", b"{}\n{}\n", 2),
        ("a.parquet", parquet_bytes(TABLE), 6),
        ("a.parquet", b"no parquet", 1),
    ],
)
def test_records_of_a_file_that_cannot_be_read(name: str, data: bytes, expected: int) -> None:
    """They are counted as well as it can be, and there is at least one that has failed."""
    reader = TableReader(format_of(name) or "")
    assert count_items(TableFile(name, content=data), reader) >= expected
    assert count_items(TableFile("/none" + name), reader) == 1
