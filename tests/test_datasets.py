"""Tests of inputs: what they accept, refuse and show."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import pandas as pd
import pytest

from daskprs.datasets import (
    FileDataset,
    FrameDataset,
    PartitionFormat,
    TabularDataset,
    as_dataset,
)
from daskprs.exceptions import ConfigError, InputNotFoundError, UsageError
from daskprs.table_reader import _CUT_SAFE

BOTH = pytest.mark.parametrize("kind", [FileDataset, TabularDataset])


@BOTH
@pytest.mark.parametrize(
    ("urls", "expected"),
    [
        ("a", ("a",)),
        (Path("a/b"), ("a/b",)),
        (["a", Path("b")], ("a", "b")),
        (("s3://x/*",), ("s3://x/*",)),
    ],
)
def test_urls(kind: Any, urls: Any, expected: tuple[str, ...]) -> None:
    """One url or path, or several of them, become texts; the first is the name."""
    dataset = kind(urls)
    assert dataset.urls == expected
    assert dataset.name == expected[0]
    assert kind(urls, name="images").name == "images"


@BOTH
@pytest.mark.parametrize(
    "options",
    [
        *({"urls": urls} for urls in (None, 3, "", " ", [], (), [""], ["a", 3], b"a", [b"a"])),
        *({"urls": urls} for urls in ({"a"}, {"a": 1}, ["a", None], [["a"]], iter(["a"]))),
        *({"storage_options": given} for given in (3, "key", ["key"], [("a", 1)])),
        *({"name": given} for given in (3, "", " ", b"a")),
        *({"partition_format": given} for given in (3, "", "a/b", "{}", "{a b}", "{a}/{a}", "{a")),
        *({"partition_format": given} for given in ("{a}}", "a}/{b}", "{a:}", "{a:x}", "{1a}")),
        *({"partition_format": given} for given in ("{a:yyyy/yyyy}", "{:yyyy}", b"{a}", ["{a}"])),
    ],
)
def test_wrong_arguments(kind: Any, options: dict[str, Any]) -> None:
    """Every wrong argument is a ConfigError that names it."""
    with pytest.raises(ConfigError, match=r"is not accepted: it must be .*such as") as caught:
        kind(**{"urls": "a", **options})
    assert caught.value.field == next(iter(options))


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"format": "xml"}, "format"),
        ({"format": "CSV"}, "format"),
        ({"format": 3}, "format"),
        ({"quoted_newlines": 1}, "quoted_newlines"),
        ({"quoted_newlines": None}, "quoted_newlines"),
        ({"chunksize": 5}, "chunksize"),
        ({"iterator": True}, "iterator"),
        ({"format": "csv", "seperator": ";"}, "seperator"),
        ({"format": "tsv", "filepath_or_buffer": "a"}, "filepath_or_buffer"),
        ({"format": "jsonl", "sep": ";"}, "sep"),
    ],
)
def test_wrong_arguments_of_tables(options: dict[str, Any], field: str) -> None:
    """Formats that are not known, and options that pandas has not, are refused at once."""
    with pytest.raises(ConfigError) as caught:
        TabularDataset("a", **options)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("format_", "reader"),
    [
        ("csv", pd.read_csv),
        ("tsv", pd.read_csv),
        ("jsonl", pd.read_json),
        ("parquet", pd.read_parquet),
    ],
)
def test_options_that_are_taken_without_pandas_are_those_of_pandas(
    format_: str, reader: Callable[..., Any]
) -> None:
    """Their names are known, so that a run need not wait for the import of pandas."""
    assert _CUT_SAFE[format_] <= set(inspect.signature(reader).parameters)


def test_misspelt_option_is_refused_once_the_format_is_known() -> None:
    """Where the file's name tells the format, the plan refuses the option, not a worker."""
    dataset = TabularDataset("a.csv", seperator=";")
    with pytest.raises(ConfigError, match="such as 'sep'"):
        dataset.reader("a.csv")


@BOTH
def test_arguments_are_given_by_name(kind: Any) -> None:
    """Only the urls are positional."""
    with pytest.raises(TypeError):
        kind("a", {"anon": True})


@BOTH
def test_secrets_are_not_shown(kind: Any) -> None:
    """storage_options are in no repr and no error."""
    secret = {"key": "s3cr3t"}
    dataset = kind("s3://b/*", storage_options=secret)
    assert repr(dataset) == f"{kind.__name__}(['s3://b/*'])"
    assert dataset.storage_options == secret
    with pytest.raises(ConfigError) as caught:
        kind("a", storage_options=["s3cr3t"])
    assert "s3cr3t" not in f"{caught.value} {caught.value.value}"


def test_pieces_do_not_show_secrets(tmp_path: Path) -> None:
    """Nor are they in what a mini-batch shows of itself."""
    from daskprs.config import ParallelRunConfig
    from daskprs.mini_batches import plan

    (tmp_path / "a.csv").write_text("a\n1\n")
    script = tmp_path / "score.py"
    script.write_text("def run(mini_batch): return mini_batch\n")
    config = ParallelRunConfig(entry_script=script)
    for kind in (FileDataset, TabularDataset):
        dataset = kind(tmp_path / "a.csv", storage_options={"key": "s3cr3t"})
        (mini_batch,) = plan([dataset], config)
        assert "s3cr3t" not in f"{mini_batch!r} {mini_batch.piece} {mini_batch.piece.items(1)}"


@BOTH
def test_datasets_pickle(kind: Any) -> None:
    """A dataset survives the way to another process."""
    dataset = kind("a", partition_format="{x}/*", storage_options={"a": 1}, name="n")
    other = pickle.loads(pickle.dumps(dataset))
    assert (other.urls, other.keys, other.name) == (("a",), ["x"], "n")
    assert other.partition_format.values("/v/f") == {"x": "v"}


def test_files_are_listed(tmp_path: Path) -> None:
    """Tables leave out what other tools mark with an underscore, files do not."""
    for name in ("_SUCCESS", ".hidden", "a.csv"):
        (tmp_path / name).touch()
    assert [Path(file.path).name for file in FileDataset(tmp_path).files()] == ["_SUCCESS", "a.csv"]
    assert [Path(file.path).name for file in TabularDataset(tmp_path).files()] == ["a.csv"]
    with pytest.raises(InputNotFoundError):
        list(FileDataset(tmp_path / "none").files())


def test_local_folders(tmp_path: Path) -> None:
    """Folders of this machine that the input lies in are known, those of stores are not."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d/a").touch()
    dataset = FileDataset([tmp_path / "d/a", f"{tmp_path}/*.csv", "s3://b/c"])
    assert dataset.local_folders() == [tmp_path / "d", tmp_path]
    assert FrameDataset(pd.DataFrame()).local_folders() == []


def test_format_comes_from_the_name_or_is_given() -> None:
    """Each file's name tells its format, unless one is given for all."""
    dataset = TabularDataset("in", encoding="latin-1")
    assert dataset.reader("/in/a.csv.gz").format == "csv"
    assert dataset.reader("/in/a.jsonl").options == {"encoding": "latin-1"}
    assert TabularDataset("in", format="tsv").reader("/in/a.dat").separator == "\t"
    with pytest.raises(UsageError, match="no suffix that tells"):
        dataset.reader("/in/a.dat")


@pytest.mark.parametrize(
    ("text", "path", "expected"),
    [
        ("{user}/{genre}.wav", "/data/ann/jazz.wav", {"user": "ann", "genre": "jazz"}),
        ("/{user}/*.wav", "/ann/x.wav", {"user": "ann"}),
        ("{user}.wav", "ann.wav", {"user": "ann"}),
        ("{a}-{b}.c", "/x/1-2-3.c", {"a": "1-2", "b": "3"}),
        ("year={y}/*", "s3://b/year=2024/f.csv", {"y": "2024"}),
        ("{d:yyyy/MM/dd}/*", "/x/2024/05/31/f", {"d": datetime(2024, 5, 31)}),
        ("{d:yyyy-MM-dd}T{t:HHmmss}.csv", "/2024-05-31T235959.csv",
         {"d": datetime(2024, 5, 31), "t": datetime(1900, 1, 1, 23, 59, 59)}),
        ("{d:yyyy%MM}/*", "/2024%05/f", {"d": datetime(2024, 5, 1)}),
        ("{k}/*.csv", "zip://v/a.csv::/data/z.zip", {"k": "v"}),
        ("{k}/(x).csv", "/v/(x).csv", {"k": "v"}),
        ("{k}/*", "/a\nb/c", {"k": "a\nb"}),
    ],
)  # fmt: skip
def test_keys_in_paths(text: str, path: str, expected: dict[str, Any]) -> None:
    """Keys are read from the end of the path, dates as datetimes."""
    assert PartitionFormat(text).values(path) == expected


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("{user}/*.wav", "/x.wav.mp3"),
        ("{user}/x.wav", "/x.wav"),
        ("{user}/x.wav", "/annx.wav"),
        ("{d:yyyy/MM/dd}/*", "/2024/13/01/x"),
        ("{d:yyyy/MM/dd}/*", "/24/12/01/x"),
        ("{k}.a", "/x/.a"),
    ],
)
def test_path_without_the_keys(text: str, path: str) -> None:
    """A path that does not end so, or has no such date, is an error that names both."""
    with pytest.raises(UsageError) as caught:
        PartitionFormat(text).values(path)
    assert repr(path) in str(caught.value)
    assert repr(text) in str(caught.value)


def test_frames_are_inputs() -> None:
    """DataFrames of pandas and Dask, and of classes made from them, become datasets."""

    class Special(pd.DataFrame):
        pass

    for frame in (pd.DataFrame({"a": [1]}), Special({"a": [1]})):
        dataset = as_dataset(frame)
        assert isinstance(dataset, FrameDataset)
        assert not dataset.is_lazy
    lazy = as_dataset(dd.from_pandas(pd.DataFrame({"a": [1]}), npartitions=1))
    assert isinstance(lazy, FrameDataset)
    assert lazy.is_lazy
    assert repr(lazy) == "FrameDataset(name='dataframe')"
    assert lazy.keys == []


def test_datasets_are_inputs_as_they_are() -> None:
    """What is a dataset already is not touched."""
    for dataset in (FileDataset("a"), TabularDataset("a"), FrameDataset(pd.DataFrame())):
        assert as_dataset(dataset) is dataset


@pytest.mark.parametrize("value", [None, 3, "images/*.png", ["a"], pd.Series([1]), object()])
def test_other_things_are_no_inputs(value: Any) -> None:
    """The error shows how an input is made."""
    with pytest.raises(ConfigError, match="FileDataset") as caught:
        as_dataset(value)
    assert caught.value.field == "inputs"
