"""Tests of inputs as lazy collections of Dask."""

from __future__ import annotations

import gzip
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import dask.bag as db
import dask.dataframe as dd
import pandas as pd
import pytest
from watched_store import WatchedFileSystem, watched_store

from daskprs.config import ParallelRunConfig
from daskprs.datasets import FileDataset, TabularDataset
from daskprs.exceptions import ConfigError, InputChangedError, InputNotFoundError, UsageError
from daskprs.mini_batches import plan


@pytest.fixture(autouse=True)
def synchronous() -> Iterator[None]:
    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.fixture
def watched() -> Iterator[WatchedFileSystem]:
    yield from watched_store()


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "scripts/score.py"
    path.parent.mkdir()
    path.write_text("def run(mini_batch): return mini_batch\n")
    return path


def parts_of(ddf: Any) -> list[pd.DataFrame]:
    return list(dask.compute(*ddf.to_delayed()))


# --- Bags -------------------------------------------------------------------------------------


def test_partitions_of_a_bag_are_the_mini_batches(tmp_path: Path, script: Path) -> None:
    """A bag of paths has the partitions that a run would have."""
    for name in ["a/1", "a/2", "a/3", "b/1"]:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).touch()
    dataset = FileDataset(tmp_path / "in")
    bag = dataset.to_dask_bag(2)
    config = ParallelRunConfig(entry_script=script, mini_batch_size=2)
    planned = [m.piece.load("") for m in plan([dataset], config)]
    assert isinstance(bag, db.Bag)
    assert bag.npartitions == len(planned) == 3
    assert list(dask.compute(*bag.to_delayed())) == planned
    assert bag.name == dataset.to_dask_bag(2).name
    assert dataset.to_dask_bag().npartitions == 2


def test_bag_reads_nothing(watched: WatchedFileSystem) -> None:
    """Neither making nor computing a bag opens a file."""
    watched.pipe("/in/a.png", b"x")
    watched.calls.clear()
    assert FileDataset("watched://in").to_dask_bag().compute() == ["watched:///in/a.png"]
    assert watched.calls["open"] == 0


def test_wrong_inputs_of_bags(tmp_path: Path) -> None:
    """A size in bytes, an input that is not there and one of another kind are refused."""
    with pytest.raises(InputNotFoundError):
        FileDataset(tmp_path / "none").to_dask_bag()
    (tmp_path / "a").touch()
    with pytest.raises(ConfigError, match="number of files"):
        FileDataset(tmp_path).to_dask_bag("1MB")


# --- Dataframes -------------------------------------------------------------------------------

TABLE = pd.DataFrame(
    {"n": range(40), "x": [0.5, *range(39)], "text": ["007", None, 'q"\n,', "a"] * 10}
)


def write(folder: Path, suffix: str, table: pd.DataFrame = TABLE, name: str = "t") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.{suffix}"
    if suffix.startswith("csv"):
        table.to_csv(path, index=False)
    elif suffix == "jsonl":
        table.to_json(path, orient="records", lines=True)
    else:
        table.to_parquet(path, row_group_size=9)
    return path


@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "jsonl", "parquet"])
@pytest.mark.parametrize("size", [40, "1MB"])
def test_partitions_of_a_dataframe_are_the_mini_batches(
    tmp_path: Path, script: Path, suffix: str, size: Any
) -> None:
    """As many partitions as mini-batches, also optimised, and all rows with their types."""
    write(tmp_path / "in", suffix)
    write(tmp_path / "in", suffix, TABLE.iloc[::-1], "u")
    dataset = TabularDataset(tmp_path / "in")
    ddf = dataset.to_dask_dataframe(size)
    config = ParallelRunConfig(entry_script=script, mini_batch_size=size)
    count = len(list(plan([dataset], config)))
    for lazy in (ddf, ddf[["n"]], ddf.n + 1, ddf[ddf.n > 3]):
        assert lazy.npartitions == lazy.optimize().npartitions == count
    parts = parts_of(ddf)
    assert len(parts) == count
    assert all(part.dtypes.equals(ddf.dtypes) for part in parts)
    together = pd.concat(parts, ignore_index=True)
    pd.testing.assert_frame_equal(together, pd.concat([TABLE, TABLE.iloc[::-1]], ignore_index=True))
    assert ddf.n.sum().compute() == 2 * sum(range(40))
    assert ddf["text"].count().compute() == 60
    pickle.loads(pickle.dumps(ddf))


def test_definition_reads_the_beginning_of_the_first_file(watched: WatchedFileSystem) -> None:
    """Other files are not opened, and nobody looks through a large file before it computes."""
    for name in "abc":
        watched.pipe(f"/in/{name}.csv", b"n,t\n" + b"1,x\n" * 50_000)
    watched.calls.clear()
    ddf = TabularDataset("watched://in").to_dask_dataframe("10KB")
    assert watched.calls["open"] == 1
    assert ddf.npartitions == 60
    assert len(ddf) == 150_000


def test_every_file_is_looked_through_once(tmp_path: Path) -> None:
    """The cuts of a large file are one task that all of its partitions share."""
    for name in "ab":
        (tmp_path / f"{name}.csv").write_text("n\n" + "1\n" * 100)
    ddf = TabularDataset(tmp_path).to_dask_dataframe(20)
    keys = [key for key in ddf.__dask_graph__() if "daskprs-cuts" in str(key)]
    assert len(keys) == 2
    assert len(ddf) == 200


def test_types_of_the_first_rows_hold_for_all_files(tmp_path: Path) -> None:
    """Text of the first file is text in all of them, and whole numbers may be floats."""
    (tmp_path / "a.csv").write_text("id,x\n007,0.5\nq,1.5\n")
    (tmp_path / "b.csv").write_text("x,id\n1,08\n,09\n")
    ddf = TabularDataset(tmp_path).to_dask_dataframe()
    frame = ddf.compute()
    assert frame["id"].tolist() == ["007", "q", "08", "09"]
    assert frame["x"].tolist()[:3] == [0.5, 1.5, 1.0]


@pytest.mark.parametrize("size", [8, "1MB"])
@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        ("n\n1\n2\n", "n\n1\n2.5\n2.5\n", "dtype="),
        ("n\n1\n2\n", "n\n1\nNA\nNA\n", "NA"),
        ("n\n1\n2\n", "n\nx\ny\nzz\n", "'[xyz]+'|x"),
        ("n\nTrue\n", "n\n1\n7\n8\n9\n", "."),
        ("n\n1\n2\n", "m\n1\n2\n3\n4\n", "'n' is missing, 'm' is not in meta"),
        ("n\n1\n2\n", "n,m\n1,2\n3,4\n", "'m' is not in meta"),
    ],
)
def test_file_that_does_not_fit(
    tmp_path: Path, first: str, second: str, reason: str, size: Any
) -> None:
    """The error names the file, what is different, where the types come from and what to do."""
    (tmp_path / "a.csv").write_text(first)
    (tmp_path / "b.csv").write_text(second)
    ddf = TabularDataset(tmp_path).to_dask_dataframe(size)
    with pytest.raises(UsageError, match=reason) as caught:
        ddf.compute()
    assert f"{tmp_path}/b.csv" in str(caught.value)
    assert f"first rows of {tmp_path}/a.csv" in str(caught.value)
    assert "such as dtype={'price': 'float64'}" in str(caught.value)


def test_given_types_hold(tmp_path: Path) -> None:
    """A type that the user gives is that of the dataframe, and mends a file that did not fit."""
    (tmp_path / "a.csv").write_text("n,t\n1,1\n2,2\n")
    (tmp_path / "b.csv").write_text("n,t\n1.5,x\n,\n")
    ddf = TabularDataset(tmp_path, dtype={"n": "float64", "t": str}).to_dask_dataframe(8)
    assert ddf.compute()["n"].tolist()[:3] == [1, 2, 1.5]
    assert ddf.compute()["t"].tolist()[:3] == ["1", "2", "x"]


def test_missing_keys_of_json_are_missing_values(tmp_path: Path) -> None:
    """A key that some lines lack is a column of all partitions."""
    rows: list[dict[str, Any]] = [{"a": 0.5, "b": "x", "c": [1]}, *({"a": n} for n in range(30))]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    parts = parts_of(TabularDataset(tmp_path).to_dask_dataframe(50))
    assert len(parts) > 3
    assert all(list(part.columns) == ["a", "b", "c"] for part in parts)
    assert {str(part["a"].dtype) for part in parts} == {"float64"}
    assert parts[0]["c"].iloc[0] == [1]


def test_keys_in_paths_are_columns(tmp_path: Path) -> None:
    """partition_format adds its keys to every partition, and to the meta."""
    for region in "rs":
        write(tmp_path / region, "parquet")
    dataset = TabularDataset(tmp_path, partition_format="{region}/*.parquet")
    ddf = dataset.to_dask_dataframe(300)
    assert ddf.region.value_counts().compute().to_dict() == {"r": 40, "s": 40}
    assert all(part.dtypes.equals(ddf.dtypes) for part in parts_of(ddf))


def test_index_of_pandas_is_kept(tmp_path: Path) -> None:
    """A named index in parquet files is that of the partitions."""
    table = pd.DataFrame({"v": [1, 2, 3]}, index=pd.Index(["x", "y", "z"], name="k"))
    table.to_parquet(tmp_path / "a.parquet")
    ddf = TabularDataset(tmp_path).to_dask_dataframe(1000)
    assert ddf.index.name == "k"
    assert ddf.compute().index.tolist() == ["x", "y", "z"]


def test_changed_file_is_an_error(tmp_path: Path) -> None:
    """Rows of another file than was listed are not taken."""
    path = write(tmp_path / "in", "csv")
    ddf = TabularDataset(path).to_dask_dataframe(100)
    path.write_text("n\n")
    with pytest.raises(InputChangedError, match=str(path)):
        ddf.compute()


def test_broken_record_fails_its_partition(tmp_path: Path) -> None:
    """The error of pandas comes through as it is, and other partitions can be read."""
    path = tmp_path / "a.csv"
    path.write_text("a,b\n" + "1,2\n" * 20 + "1,2,3\n" + "1,2\n" * 20)
    ddf = TabularDataset(path).to_dask_dataframe(40)
    with pytest.raises(pd.errors.ParserError, match="Expected 2 fields"):
        ddf.compute()
    assert len(ddf.partitions[0].compute()) > 0


def test_inputs_without_rows(tmp_path: Path) -> None:
    """No file, or nothing in any, is an error of the input."""
    with pytest.raises(InputNotFoundError):
        TabularDataset(tmp_path / "*.csv").to_dask_dataframe()
    (tmp_path / "a.csv").touch()
    with pytest.raises(InputNotFoundError, match="empty"):
        TabularDataset(tmp_path / "*.csv").to_dask_dataframe()


def test_empty_files_have_no_partition(tmp_path: Path) -> None:
    """Empty files beside others are left out, and files with only a header have no rows."""
    (tmp_path / "a.csv").write_text("n\n1\n")
    (tmp_path / "b.csv").touch()
    (tmp_path / "c.csv").write_text("n\n")
    (tmp_path / "d.csv.gz").write_bytes(gzip.compress(b"n\n5\n"))
    ddf = TabularDataset(tmp_path).to_dask_dataframe()
    assert ddf.npartitions == 3
    assert ddf.n.compute().tolist() == [1, 5]


@pytest.mark.parametrize("size", ["1TB", 0, -1, True, 1.5])
def test_wrong_sizes(tmp_path: Path, size: Any) -> None:
    """A size is refused as it is in a config."""
    write(tmp_path / "in", "csv")
    with pytest.raises(ConfigError, match="mini_batch_size"):
        TabularDataset(tmp_path / "in").to_dask_dataframe(size)


def test_graph_has_the_same_name_for_the_same_input(tmp_path: Path) -> None:
    """Dask knows the same files again, and a changed file is another dataframe."""
    path = write(tmp_path / "in", "csv")
    names = [TabularDataset(path).to_dask_dataframe(100)._name for _ in range(2)]
    assert names[0] == names[1]
    path.write_text(path.read_text() + "40,1,x\n")
    assert TabularDataset(path).to_dask_dataframe(100)._name != names[0]
    assert isinstance(TabularDataset(path).to_dask_dataframe(100), dd.DataFrame)
