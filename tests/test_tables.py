"""Tests of reading parts of CSV files: each part reads as it does inside the whole file."""

from __future__ import annotations

import io
import math
from collections import defaultdict
from typing import Any

import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from daskprs.tables import TableFile, TableReader, read_part, survey


def read_parts(text: bytes, parts: int, reader: TableReader) -> list[pd.DataFrame]:
    file = TableFile("table.csv", content=text)
    found = survey(file, parts, reader)
    return [read_part(file, reader, part=n, parts=parts, found=found) for n in range(parts)]


def check_parts(text: bytes, parts: int, reader: TableReader) -> list[pd.DataFrame]:
    """Compare the parts with what pandas makes of the whole file; give them back."""
    whole = pd.read_csv(io.BytesIO(text), low_memory=False, **reader.options)
    frames = read_parts(text, parts, reader)
    for frame in frames:
        assert frame.dtypes.to_dict() == whole.dtypes.to_dict()
    together = pd.concat([frame for frame in frames if len(frame)] or frames, ignore_index=True)
    pd.testing.assert_frame_equal(together, whole, check_exact=True)
    return frames


WORDS = st.text(st.sampled_from(' ,"\n\r;aé0'), max_size=5)
LARGE_NUMBERS = [
    st.integers(-(2**63), 2**63 - 1).map(str),
    st.integers(10**15, 2**63 - 1).map(str),
]
COLUMNS = [
    # Before pandas 3, the parser of floats is off in the last bit of some of these.
    *(LARGE_NUMBERS if pd.__version__ >= "3" else []),
    st.integers(-9, 9).map(str),
    st.integers(0, 999).map(lambda n: f"{n:03}"),
    st.floats(allow_infinity=False, allow_nan=False).map(str),
    st.floats(-1e3, 1e3).map(lambda number: f"{number:.3f}"),
    st.sampled_from(["True", "False"]),
    st.sampled_from(["True", "false", "1", "no"]),
    st.sampled_from(["", "NA", "nan"]),
    st.sampled_from(["x", "y", "007"]),
    st.sampled_from(["2024-01-01", "1", "1.0", "inf", "-inf", "1e5", " 7"]),
    WORDS,
]


@st.composite
def csv_columns(draw: st.DrawFn, rows: int) -> list[str]:
    """Draw a column that is mostly of one kind, but not always."""
    kind = draw(st.sampled_from(COLUMNS))
    others = draw(st.sampled_from([st.just(""), *COLUMNS]))
    odd_ones = draw(st.sets(st.integers(0, max(0, rows - 1)), max_size=2))
    return [draw(others if row in odd_ones else kind) for row in range(rows)]


@st.composite
def csv_texts(draw: st.DrawFn) -> bytes:
    """Draw a CSV file as tools write them."""
    rows = draw(st.integers(0, 12))
    name = st.sampled_from(["a", "b", "a.1", "c d", "", "é,"])
    names = draw(st.lists(name, min_size=1, max_size=4))
    columns = [draw(csv_columns(rows)) for _ in names]
    newline = draw(st.sampled_from(["\n", "\r\n"]))
    always_quoted = draw(st.booleans())
    blank = st.sampled_from(["", "", "", newline, " \t" + newline])

    def written(field: str) -> str:
        if always_quoted or set(field) & set('",\r\n') or (len(names) == 1 and not field.strip()):
            return '"' + field.replace('"', '""') + '"'
        return field

    text = ""
    for record in [names, *zip(*columns, strict=True)]:
        text += draw(blank) + ",".join(map(written, record)) + newline
    if draw(st.booleans()):
        text = text.removesuffix(newline)
    return ("\ufeff" if draw(st.booleans()) else "").encode() + text.encode()


@settings(max_examples=80, deadline=None)
@given(csv_texts(), st.integers(2, 30))
@example(b"a\n1\n2\n3\n\n\n", 9)
@example(b"a,b\n1,x\n,y\n3,z\n", 3)
@example(b"a\n007\n08\nx\n", 3)
@example(b"a\nTrue\nFalse\nx\n", 3)
@example(b"a,b\nTrue,1\n,1\nFalse,1\n", 3)
@example(b"a\n9007199254740993\n1.5\n", 2)
@example(b"a,a\n1,x\n2,3\n", 2)
def test_parts_of_a_csv_are_those_of_the_whole(text: bytes, parts: int) -> None:
    """Rows and types of all parts are those that pandas gives for the whole file."""
    check_parts(text, parts, TableReader("csv"))


NUMBERS = b"a;b\n1.234,5;x\n;7\n10,0;007\n"
TABLE = b"a,b,c\n1,x,0.5\n2,007,1\n,1,True\n4,,2\n"


@pytest.mark.parametrize(
    ("text", "options"),
    [
        (NUMBERS, {"sep": ";", "decimal": ",", "thousands": "."}),
        (TABLE, {"header": None}),
        (TABLE, {"header": 0, "names": ["p", "q", "r"]}),
        (TABLE, {"names": ["p", "q", "r", "s"]}),
        (TABLE, {"usecols": ["c", "a"]}),
        (TABLE, {"usecols": [1]}),
        (TABLE, {"usecols": lambda name: name != "b"}),
        (TABLE, {"dtype": str}),
        (TABLE, {"dtype": {"b": str}}),
        (TABLE, {"dtype": {"a": "float32", "b": pd.CategoricalDtype(["x", "007", "1"])}}),
        (TABLE, {"dtype": defaultdict(lambda: "str", a="float64")}),
        (TABLE, {"na_values": ["x", "4"], "keep_default_na": False}),
        (TABLE, {"na_filter": False}),
        (TABLE, {"converters": {"b": str}}),
        (TABLE, {"converters": {"b": lambda text: int(text) if text.isdigit() else 0.5}}),
        (TABLE, {"converters": {"b": lambda text: int(text) if text.isdigit() else text}}),
        (TABLE, {"memory_map": False, "engine": "c", "low_memory": True}),
        (b"a\nyes\nno\n,\nyes\n", {"true_values": ["yes"], "false_values": ["no"], "usecols": [0]}),
        (b"a, b\n1, 2\n3, \"x\n4\"\n5, 6\n", {"skipinitialspace": True}),
        (b"a,b\n1,\"x\n2,y\n3,z\"\n", {"quoting": 3}),
        (b"a,b\n1,x\\\ny\n2,\\\"z\n3,v\n", {"escapechar": "\\"}),
        (b"a b\n1 x\n2 'y z'\n3 v\n", {"sep": " ", "quotechar": "'"}),
        (b"a,b\n1,2\n1,2,3\n4,5\n6,7,8\n9,10\n", {"on_bad_lines": "skip"}),
        (b"a,b\nr1,1,2\nr2,3,\nr3,5,6\n", {}),
        (b"a,b\n1,2,\n3,4,\n5,6,\n", {"index_col": None}),
        ("a,b\né,1\nü,2\n".encode("latin-1"), {"encoding": "latin-1"}),
        ("\ufeffa,b\né,1\nü,2\n".encode(), {"encoding": "utf-8-sig"}),
        ("\ufeffé,1\nü,2\n".encode(), {"header": None}),
        ("a\né\n".encode("latin-1") + b"x\n", {"encoding_errors": "replace"}),
    ],
)  # fmt: skip
def test_parts_read_as_the_whole_with_options(text: bytes, options: dict[str, Any]) -> None:
    """Every option with which files are cut gives the same for parts as for the whole."""
    reader = TableReader("csv", options)
    assert reader.can_cut("a.csv")
    for parts in (2, 3, 5, len(text)):
        whole = pd.read_csv(io.BytesIO(text), **{"low_memory": False, **options})
        frames = read_parts(text, parts, reader)
        full = [frame for frame in frames if len(frame)]
        together = pd.concat(full, ignore_index=bool(whole.index[0] == 0))
        pd.testing.assert_frame_equal(together, whole, check_exact=True)
        assert all(frame.dtypes.to_dict() == whole.dtypes.to_dict() for frame in full)


def test_row_numbers_without_a_name_are_an_index() -> None:
    """Where records have a field more than the header, every part has its own row numbers."""
    text = b"a,b\n0,1,2\n1,3,4\n2,5,6\n3,7,8\n"
    frames = read_parts(text, 4, TableReader("csv"))
    assert [list(frame.index) for frame in frames] == [[0], [1], [2], [3]]


@pytest.mark.parametrize(
    "options",
    [
        {"skiprows": 1},
        {"nrows": 3},
        {"comment": "#"},
        {"index_col": 0},
        {"parse_dates": ["a"]},
        {"skip_blank_lines": False},
        {"sep": r"\s+"},
        {"sep": None},
        {"sep": "§"},
        {"sep": " ", "skipinitialspace": True},
        {"header": [0, 1]},
        {"header": 1},
        {"engine": "python"},
        {"engine": "pyarrow"},
        {"encoding": "utf-16"},
        {"encoding": "no such thing"},
        {"compression": "gzip"},
        {"quoting": 2},
        {"quotechar": ","},
        {"dtype_backend": "pyarrow"},
        {"dtype": "category"},
        {"dtype": {"a": pd.CategoricalDtype()}},
        {"lineterminator": "x"},
    ],
)
def test_files_stay_in_one_piece(options: dict[str, Any]) -> None:
    """A file is not cut with options that mean something for the whole file only."""
    assert not TableReader("csv", options).can_cut("a.csv")


@pytest.mark.parametrize("name", ["a.csv.gz", "a.CSV.BZ2", "a.csv.xz", "a.csv.zip", "a.csv.zst"])
def test_compressed_files_stay_in_one_piece(name: str) -> None:
    """Nobody can begin to read in the middle of a compressed file."""
    assert not TableReader("csv").can_cut(name)


@pytest.mark.parametrize("numbers", [["1", str(2**63), "3"], ["1", str(2**64), "-3"]])
def test_large_whole_numbers(numbers: list[str]) -> None:
    """Numbers beyond 63 bits have the type of the whole in every part."""
    check_parts("\n".join(["a", *numbers]).encode(), 4, TableReader("csv"))


def test_keys_of_64_bits_with_missing_ones_are_text() -> None:
    """No numeric type holds them: they are text in every part, and missing is NaN."""
    text = f"a,b\n{2**63},x\n,y\n5,z\n{2**63 + 1},v\n".encode()
    frames = read_parts(text, 4, TableReader("csv"))
    values = pd.concat(frames)["a"].tolist()
    assert [values[0], *values[2:]] == [str(2**63), "5", str(2**63 + 1)]
    assert math.isnan(values[1])


def test_quotes_without_newlines() -> None:
    """With quoted_newlines=False every newline ends a record, and quotes are still quotes."""
    text = b'a,b\n1,"x,y"\n2,"z"\n3,5" pipe\n'
    reader = TableReader("csv", quoted_newlines=False)
    check_parts(text, 4, reader)


def test_wide_and_long_records() -> None:
    """Thousands of columns, and a record of many parts, come out as they are."""
    names = ",".join(f"c{n}" for n in range(2000))
    row = ",".join(str(n) for n in range(2000))
    check_parts(f"{names}\n{row}\n{row}x\n".encode(), 7, TableReader("csv"))
    check_parts(b'a,b\n1,"' + b"x\n" * 5000 + b'"\n2,y\n', 50, TableReader("csv"))


def failures_of(text: bytes, parts: int, **options: Any) -> dict[int, str]:
    """Read all parts; give the errors by part."""
    reader = TableReader("csv", options)
    file = TableFile("table.csv", content=text)
    found = survey(file, parts, reader)
    failures = {}
    for part in range(parts):
        try:
            read_part(file, reader, part=part, parts=parts, found=found)
        except ValueError as error:
            failures[part] = f"{type(error).__name__}: {error}"
    return failures


ROWS = [f"{n},x" for n in range(9)]


@pytest.mark.parametrize("bad", range(1, 9))
def test_record_with_too_many_fields_fails_its_part_only(bad: int) -> None:
    """A ragged record is an error wherever it stands in its part, and of its part alone."""
    rows = [row + ",9" if n == bad else row for n, row in enumerate(ROWS)]
    text = "\n".join(["a,b", *rows, ""]).encode()
    (failure,) = failures_of(text, 4).values()
    assert "Expected 2 fields" in failure
    assert "table.csv" in failure


@pytest.mark.parametrize("bad", range(9))
def test_value_of_a_wrong_type_fails_its_part_only(bad: int) -> None:
    """What does not fit the type that the user gave fails one part, even in the first record."""
    rows = ["q,x" if n == bad else row for n, row in enumerate(ROWS)]
    text = "\n".join(["a,b", *rows, ""]).encode()
    (failure,) = failures_of(text, 9, dtype={"a": "int64"}).values()
    assert "q" in failure


@pytest.mark.parametrize("bad", range(9))
def test_bytes_that_are_no_text_fail_their_part_only(bad: int) -> None:
    """One byte that is not UTF-8 neither fails other parts nor keeps types from being found."""
    rows = [f"{n},\udcff" if n == bad else row for n, row in enumerate(ROWS)]
    rows = ["0.5,x", *rows, *["1.5,x"] * 9]
    text = "\n".join(["a,b", *rows, ""]).encode("utf-8", "surrogateescape")
    (failure,) = failures_of(text, 9).values()
    assert "UnicodeDecodeError" in failure
    reader = TableReader("csv")
    file = TableFile("table.csv", content=text)
    found = survey(file, 9, reader)
    assert found.types["a"] == "float64"


def test_ragged_first_record_of_a_part_after_a_first_one_of_a_wrong_type() -> None:
    """A part is not read without the first record where that would hide a ragged one."""
    text = b"a,b\nq,x\n1,x\n2,x,9\n3,x\n4,x\n"
    failures = failures_of(text, 6, dtype={"a": "int64"})
    assert len(failures) == 2


def test_unfinished_quote_fails_the_last_part_only() -> None:
    """A quote that nobody closes takes the rest of the file, and nothing before it."""
    (failure,) = failures_of(b'a,b\n1,x\n2,y\n3,"z\n4,v\n', 8).values()
    assert "EOF inside string" in failure
