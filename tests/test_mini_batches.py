"""Tests of the plan: which part of which input each mini-batch is."""

from __future__ import annotations

import itertools
import os
import pickle
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from watched_store import WatchedFileSystem, watched_store

from daskprs.config import ParallelRunConfig
from daskprs.datasets import FileDataset, FrameDataset, TabularDataset
from daskprs.exceptions import ConfigError, InputNotFoundError, UsageError
from daskprs.mini_batches import (
    FilePaths,
    FrameRows,
    MiniBatch,
    TableParts,
    TableSlice,
    is_shuffled,
    plan,
)


@pytest.fixture
def watched() -> Iterator[WatchedFileSystem]:
    yield from watched_store()


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("script") / "score.py"
    path.write_text("def run(mini_batch): return mini_batch\n")
    return path


def fill(root: Path, sizes: dict[str, int]) -> None:
    for name, size in sizes.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * size)


# --- Files ------------------------------------------------------------------------------------

TREES = st.dictionaries(
    st.sampled_from(["", "a/", "b/", "a/c/", "a-b/"]), st.integers(0, 7), min_size=1
).filter(lambda tree: any(tree.values()))


@settings(max_examples=60, deadline=None)
@given(tree=TREES, count=st.integers(1, 5))
def test_every_file_is_in_one_mini_batch(
    tmp_path_factory: pytest.TempPathFactory, script: Path, tree: dict[str, int], count: int
) -> None:
    """All files come in order, so many at once, and a mini-batch never mixes folders."""
    root = tmp_path_factory.mktemp("tree")
    fill(root, {f"{folder}{n}.png": n for folder, size in tree.items() for n in range(size)})
    config = ParallelRunConfig(entry_script=script, mini_batch_size=count)
    dataset = FileDataset(root)
    planned = list(plan([dataset], config))
    pieces = [m.piece for m in planned if isinstance(m.piece, FilePaths)]
    assert len(pieces) == len(planned)
    files = list(dataset.files())
    assert [path for piece in pieces for path in piece.paths] == [file.path for file in files]
    folders = Counter(file.folder for file in files)
    assert len(planned) == sum(-(-size // count) for size in folders.values())
    for mini_batch, piece in zip(planned, pieces, strict=True):
        assert 1 <= mini_batch.items == len(piece.paths) <= count
        assert len({os.path.dirname(path) for path in piece.paths}) == 1
    assert [m.index for m in planned] == list(range(len(planned)))
    assert len({m.key for m in planned}) == len(planned)
    assert sum(m.nbytes or 0 for m in planned) == sum(file.size or 0 for file in files)
    assert list(plan([dataset], config)) == planned


def test_default_is_ten_files(tmp_path: Path, script: Path) -> None:
    """Without a size, ten files make a mini-batch."""
    fill(tmp_path, {f"{n:02}": 1 for n in range(25)})
    planned = plan([FileDataset(tmp_path)], ParallelRunConfig(entry_script=script))
    assert [m.items for m in planned] == [10, 10, 5]


@pytest.mark.parametrize("size", ["10KB", "1mb"])
def test_bytes_are_no_number_of_files(tmp_path: Path, script: Path, size: str) -> None:
    """A size in bytes is refused for files, with an example of what is accepted."""
    fill(tmp_path, {"a": 1})
    config = ParallelRunConfig(entry_script=script, mini_batch_size=size)
    with pytest.raises(ConfigError, match="number of files") as caught:
        list(plan([FileDataset(tmp_path)], config))
    assert caught.value.field == "mini_batch_size"


def test_several_inputs_are_not_mixed(tmp_path: Path, script: Path) -> None:
    """Each input is cut on its own; mini-batches are counted through and name their input."""
    fill(tmp_path, {"a/1": 1, "a/2": 1, "a/3": 1, "b/1": 1})
    inputs = [FileDataset(tmp_path / "a", name="first"), FileDataset(tmp_path / "b")]
    planned = list(plan(inputs, ParallelRunConfig(entry_script=script, mini_batch_size=2)))
    assert [(m.index, m.dataset, m.items) for m in planned] == [
        (0, "first", 2),
        (1, "first", 1),
        (2, str(tmp_path / "b"), 1),
    ]


def test_key_says_what_a_mini_batch_is(tmp_path: Path, script: Path) -> None:
    """Another time, size or name of a file changes the keys of its own mini-batches only."""
    fill(tmp_path, {"a": 1, "b": 2, "c": 3})
    config = ParallelRunConfig(entry_script=script, mini_batch_size=1)

    def keys() -> list[str]:
        return [m.key for m in plan([FileDataset(tmp_path)], config)]

    first = keys()
    os.utime(tmp_path / "b", ns=(1, 1))
    second = keys()
    assert [one == other for one, other in zip(first, second, strict=True)] == [True, False, True]
    status = (tmp_path / "c").stat()
    (tmp_path / "c").write_bytes(b"four")
    os.utime(tmp_path / "c", ns=(status.st_atime_ns, status.st_mtime_ns))
    third = keys()
    assert [one == other for one, other in zip(second, third, strict=True)] == [True, True, False]
    (tmp_path / "c").rename(tmp_path / "d")
    assert keys()[2] != third[2]


def test_first_mini_batch_comes_while_the_listing_goes_on(
    watched: WatchedFileSystem, script: Path
) -> None:
    """Of a thousand folders only the first are listed for the first mini-batch."""
    for n in range(1000):
        watched.pipe(f"/in/{n:04}/x.png", b"x")
    watched.calls.clear()
    config = ParallelRunConfig(entry_script=script)
    planned = plan([FileDataset("watched://in")], config)
    assert next(planned).items == 1
    assert watched.calls["ls"] < 10
    assert sum(1 for _ in planned) == 999
    assert watched.calls["open"] == 0


def test_input_without_files_is_an_error_in_its_turn(tmp_path: Path, script: Path) -> None:
    """Mini-batches of the inputs before come first."""
    fill(tmp_path, {"a/1": 1})
    inputs = [FileDataset(tmp_path / "a"), FileDataset(tmp_path / "none")]
    planned = plan(inputs, ParallelRunConfig(entry_script=script))
    assert next(planned).index == 0
    with pytest.raises(InputNotFoundError, match="none"):
        next(planned)


# --- Tables -----------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=5),
    size=st.integers(1, 50),
    suffix=st.sampled_from(["csv", "parquet", "jsonl", "csv.gz"]),
)
def test_every_byte_of_a_table_is_in_one_mini_batch(
    tmp_path_factory: pytest.TempPathFactory,
    script: Path,
    sizes: list[int],
    size: int,
    suffix: str,
) -> None:
    """Files come in order, each in even parts of at most the size, compressed ones whole."""
    root = tmp_path_factory.mktemp("tables")
    fill(root, {f"{n}.{suffix}": length for n, length in enumerate(sizes)})
    config = ParallelRunConfig(entry_script=script, mini_batch_size=size)
    planned = list(plan([TabularDataset(root)], config))
    slices = [m.piece for m in planned if isinstance(m.piece, TableSlice)]
    expected = [
        (str(root / f"{n}.{suffix}"), part, parts)
        for n, length in enumerate(sizes)
        if length
        for parts in [1 if suffix.endswith("gz") else -(-length // size)]
        for part in range(parts)
    ]
    assert [(piece.path, piece.part, piece.parts) for piece in slices] == expected
    assert len({m.key for m in planned}) == len(planned)
    assert all((m.nbytes or 0) <= size for m in planned) or suffix == "csv.gz"
    assert list(plan([TabularDataset(root)], config)) == planned


def load_as_on_a_worker(mini_batch: MiniBatch, found: dict[str, Any]) -> Any:
    """Read a mini-batch with what travels to a worker."""
    piece = mini_batch.piece
    if isinstance(piece, TableSlice) and piece.needs_survey:
        if piece.path not in found:
            found[piece.path] = piece.survey()
        piece = piece.narrowed(found[piece.path])
    return pickle.loads(pickle.dumps(piece)).load("")


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("size", [1, 7, 100, "1KB", "1GB"])
def test_mini_batches_of_a_table_are_the_table(
    tmp_path: Path, script: Path, suffix: str, size: int | str
) -> None:
    """From one byte to more than the file: all rows once, in order, with their types."""
    text = ["a", None, 'q"\n,', "007"] * 10
    table = pd.DataFrame({"n": [0.5, *range(1, 40)], "text": text, "flag": [True] * 40})
    path = tmp_path / f"t.{suffix}"
    if suffix == "csv":
        table.to_csv(path, index=False)
    elif suffix == "jsonl":
        table.to_json(path, orient="records", lines=True)
    else:
        table.to_parquet(path, row_group_size=7)
    config = ParallelRunConfig(entry_script=script, mini_batch_size=size)
    found: dict[str, Any] = {}
    planned = list(plan([TabularDataset(path)], config))
    frames = [load_as_on_a_worker(mini_batch, found) for mini_batch in planned]
    assert len(frames) == -(-path.stat().st_size // {"1KB": 1024, "1GB": 2**30}.get(size, size))
    assert all(frame.dtypes.equals(table.dtypes) for frame in frames)
    together = pd.concat([frame for frame in frames if len(frame)], ignore_index=True)
    pd.testing.assert_frame_equal(together, table)
    if found:
        counts = [
            piece.narrowed(found[str(path)]).count_items()
            for piece in (m.piece for m in planned)
            if isinstance(piece, TableSlice)
        ]
        assert counts == [max(1, len(frame)) for frame in frames]


@pytest.mark.parametrize("mini_batch_size", [10, 10**6])
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda path: path.write_bytes(b"a,b\n" + b"1,x\n" * 101), "has now 408 bytes, not 404"),
        (lambda path: os.utime(path, (5, 5)), "was written again"),
        (lambda path: path.unlink(), "is gone"),
    ],
)
def test_table_that_changes_after_it_was_listed(
    tmp_path: Path, script: Path, mini_batch_size: int, change: Any, reason: str
) -> None:
    """A changed or removed file is an error that says so, not other rows."""
    path = tmp_path / "t.csv"
    path.write_bytes(b"a,b\n" + b"1,x\n" * 100)
    config = ParallelRunConfig(entry_script=script, mini_batch_size=mini_batch_size)
    piece = next(plan([TabularDataset(path)], config)).piece
    assert len(piece.load("")) > 0
    change(path)
    with pytest.raises(UsageError.__base__, match=f"{path} {reason}"):
        piece.load("")


def test_plan_reads_no_data(watched: WatchedFileSystem, script: Path) -> None:
    """Cutting tables takes names and sizes only."""
    for name in ("a.csv", "b.parquet", "c.jsonl", "d.csv.gz"):
        watched.pipe(f"/in/{name}", b"x" * 100)
    watched.calls.clear()
    config = ParallelRunConfig(entry_script=script, mini_batch_size=10)
    assert len(list(plan([TabularDataset("watched://in")], config))) == 31
    assert watched.calls["open"] == 0


def test_table_without_a_known_suffix(tmp_path: Path, script: Path) -> None:
    """The error says which suffixes are known, and how to name the format."""
    fill(tmp_path, {"a.dat": 5})
    config = ParallelRunConfig(entry_script=script)
    with pytest.raises(UsageError, match=r"a\.dat.*\.parquet.*format='csv'"):
        list(plan([TabularDataset(tmp_path)], config))
    assert len(list(plan([TabularDataset(tmp_path, format="csv")], config))) == 1


def test_files_of_another_store(watched: WatchedFileSystem, script: Path) -> None:
    """Parts of a file in a store are read by ranges of bytes, and give its rows."""
    watched.pipe("/in/t.csv", b"a\n" + b"1\n" * 50 + b"x\n")
    config = ParallelRunConfig(entry_script=script, mini_batch_size=20)
    found: dict[str, Any] = {}
    planned = list(plan([TabularDataset("watched://in/*.csv")], config))
    frames = [load_as_on_a_worker(mini_batch, found) for mini_batch in planned]
    assert pd.concat(frames)["a"].tolist() == ["1"] * 50 + ["x"]
    watched.pipe("/in/t.csv", b"a\n1\n")
    with pytest.raises(Exception, match="has now 4 bytes, not 104"):
        load_as_on_a_worker(planned[0], found)


# --- Partitions -------------------------------------------------------------------------------


def test_files_by_keys_in_their_paths(tmp_path: Path, script: Path) -> None:
    """There is one mini-batch for each combination of keys that exists."""
    names = [
        "ann/winter/jazz.wav",
        "ann/winter/folk.wav",
        "ann/summer/jazz.wav",
        "bob/winter/x.wav",
    ]
    fill(tmp_path, dict.fromkeys(names, 1))
    dataset = FileDataset(tmp_path, partition_format="{user}/{season}/{genre}.wav")
    config = ParallelRunConfig(entry_script=script, partition_keys=["season", "user"])
    planned = list(plan([dataset], config))
    assert [(m.partition_key_value, m.items) for m in planned] == [
        ({"season": "summer", "user": "ann"}, 1),
        ({"season": "winter", "user": "ann"}, 2),
        ({"season": "winter", "user": "bob"}, 1),
    ]
    assert not is_shuffled(dataset, config)


def test_tables_by_keys_in_their_paths(tmp_path: Path, script: Path) -> None:
    """All files of a combination make one frame, and the keys are columns of it."""
    for name, rows in {"r/2020/1": "1", "r/2020/2": "2\n3", "s/2021/1": "4"}.items():
        path = tmp_path / f"{name}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"n\n{rows}\n")
    (tmp_path / "s/2021/2.csv").touch()
    dataset = TabularDataset(tmp_path, partition_format="{region}/{year:yyyy}/*.csv")
    config = ParallelRunConfig(entry_script=script, partition_keys=["region"])
    planned = list(plan([dataset], config))
    assert [m.partition_key_value for m in planned] == [{"region": "r"}, {"region": "s"}]
    frames = [m.piece.load("") for m in planned]
    assert [frame["n"].tolist() for frame in frames] == [[1, 2, 3], [4]]
    assert frames[0]["region"].tolist() == ["r"] * 3
    assert frames[0]["year"].tolist() == [pd.Timestamp(2020, 1, 1)] * 3
    assert isinstance(planned[0].piece, TableParts)
    assert planned[0].piece.count_items() == 3


@pytest.mark.parametrize("keys", [["other"], ["user", "other"]])
def test_keys_that_are_not_in_the_paths(tmp_path: Path, script: Path, keys: list[str]) -> None:
    """The error names the keys that there are."""
    fill(tmp_path, {"ann/x.wav": 1})
    dataset = FileDataset(tmp_path, partition_format="{user}/*.wav")
    config = ParallelRunConfig(entry_script=script, partition_keys=keys)
    with pytest.raises(ConfigError, match=r"this input has \['user'\]"):
        list(plan([dataset], config))


def test_file_that_does_not_match_the_format(tmp_path: Path, script: Path) -> None:
    """A file without the keys is an error that names it, not a file left out."""
    fill(tmp_path, {"ann/x.wav": 1, "ann/y.mp3": 1})
    dataset = FileDataset(tmp_path, partition_format="{user}/*.wav")
    config = ParallelRunConfig(entry_script=script, partition_keys=["user"])
    with pytest.raises(UsageError, match=r"y\.mp3.*partition_format"):
        list(plan([dataset], config))


# --- DataFrames -------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(1, 60), size=st.integers(1, 600))
def test_every_row_of_a_frame_is_in_one_mini_batch(script: Path, rows: int, size: int) -> None:
    """Rows come in order, in even runs of at least one row and about the size."""
    frame = pd.DataFrame({"n": range(rows)}, index=range(100, 100 + rows))
    config = ParallelRunConfig(entry_script=script, mini_batch_size=size)
    planned = list(plan([FrameDataset(frame)], config))
    assert len(planned) == min(rows, -(-rows * 8 // size))
    pd.testing.assert_frame_equal(pd.concat([m.piece.load("") for m in planned]), frame)
    counts = [m.items for m in planned]
    assert max(counts) - min(counts) <= 1
    starts = [m.piece.start for m in planned if isinstance(m.piece, FrameRows)]
    assert starts == list(itertools.accumulate(counts[:-1], initial=0))
    again = plan([FrameDataset(frame.copy())], config)
    assert [m.key for m in again] == [m.key for m in planned]


def test_frame_with_other_values_has_other_keys(script: Path) -> None:
    """The content of a frame tells its mini-batches from those of another one."""
    config = ParallelRunConfig(entry_script=script)
    one, other = (FrameDataset(pd.DataFrame({"n": [1, n]})) for n in (2, 3))
    assert next(plan([one], config)).key != next(plan([other], config)).key


def test_frame_without_rows(script: Path) -> None:
    """No rows at all are an input that is not there."""
    config = ParallelRunConfig(entry_script=script)
    with pytest.raises(InputNotFoundError, match="no rows"):
        list(plan([FrameDataset(pd.DataFrame({"a": []}))], config))
