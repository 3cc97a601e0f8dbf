"""Tests of pieces: how a part of an input becomes what run() receives."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pandas as pd
import pytest
from watched_store import WatchedFileSystem, watched_store

from daskprs.config import ParallelRunConfig
from daskprs.datasets import FileDataset, TabularDataset
from daskprs.mini_batches import plan
from daskprs.pieces import FilePaths, FrameRows, TableSlice


@pytest.fixture
def watched() -> Iterator[WatchedFileSystem]:
    yield from watched_store()


def a_config(folder: Path, **options: object) -> ParallelRunConfig:
    script = folder / "score.py"
    script.write_text("def run(mini_batch): return mini_batch\n")
    return ParallelRunConfig(entry_script=script, **options)


def test_files_of_another_store_are_fetched(watched: WatchedFileSystem, tmp_path: Path) -> None:
    """run() gets local paths with the names of the files, also where names are the same."""
    urls = ["watched://in/a/x.png", "watched://in/b/x.png", "watched://in/b/y [1].png"]
    for url in urls:
        watched.pipe(url, url.encode())
    local = FilePaths(tuple(urls)).load(str(tmp_path / "fetched"))
    assert [Path(path).read_text() for path in local] == urls
    assert [os.path.basename(path) for path in local] == ["x.png", "x.png", "y [1].png"]


def test_files_in_an_archive_are_fetched(tmp_path: Path) -> None:
    """Urls that chain several protocols lead to files of their own names, too."""
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("d/a.txt", "A")
        archive.writestr("d/b.txt", "B")
    dataset = FileDataset(f"zip://d/*.txt::{tmp_path}/z.zip")
    piece = FilePaths(tuple(file.path for file in dataset.files()))
    local = piece.load(str(tmp_path / "fetched"))
    assert [(os.path.basename(path), Path(path).read_text()) for path in local] == [
        ("a.txt", "A"),
        ("b.txt", "B"),
    ]


def test_file_of_another_store_that_is_gone(watched: WatchedFileSystem, tmp_path: Path) -> None:
    """A file that is not there any more is an error that names it."""
    watched.pipe("/in/a", b"")
    with pytest.raises(FileNotFoundError, match="/in/"):
        FilePaths(("watched://in/a", "watched://in/none")).load(str(tmp_path))


@pytest.mark.parametrize("url", ["memory://portable", "simplecache::memory://portable"])
def test_files_in_memory_travel_with_the_mini_batch(tmp_path: Path, url: str) -> None:
    """What only this process could open is in the piece once it is portable."""
    fs = fsspec.filesystem("memory")
    fs.pipe("/portable/t.csv", b"a\n1\n")
    try:
        config = a_config(tmp_path)
        files = next(plan([FileDataset(url)], config)).piece.portable()
        table = next(plan([TabularDataset(url)], config)).piece.portable()
    finally:
        fs.rm("/portable", recursive=True)
    (local,) = pickle.loads(pickle.dumps(files)).load(str(tmp_path))
    assert Path(local).read_bytes() == b"a\n1\n"
    assert pickle.loads(pickle.dumps(table)).load("")["a"].tolist() == [1]


def test_pieces_say_what_they_are(tmp_path: Path) -> None:
    """Labels and the list of failed items name files, rows and bytes."""
    path = tmp_path / "t.csv"
    path.write_bytes(b"a\n1\n2\n3\n")
    piece = next(iter_slices(path, 4))
    assert str(piece) == f"{path} part 1 of 2"
    assert piece.items(2) == [{"file": str(path), "rows": 2, "part": 0, "parts": 2}]
    known = piece.narrowed(piece.survey())
    assert known.items(2) == [{"file": str(path), "rows": 2, "bytes": [2, 4]}]
    (whole,) = iter_slices(path, 100)
    assert whole.items(3) == [{"file": str(path), "rows": 3, "row_start": 0, "row_stop": 3}]
    files = FilePaths(("/a/x", "/a/y", "/a/z"))
    assert str(files) == "/a/x and 2 more"
    assert files.items(None) == [{"path": "/a/x"}, {"path": "/a/y"}, {"path": "/a/z"}]
    rows = FrameRows(pd.DataFrame({"a": [1, 2]}), 10)
    assert str(rows) == "dataframe rows 10 to 12"
    assert rows.items(2) == [{"file": "dataframe", "row_start": 10, "row_stop": 12}]


def iter_slices(path: Path, size: int) -> Iterator[TableSlice]:
    config = a_config(path.parent, mini_batch_size=size)
    for mini_batch in plan([TabularDataset(path)], config):
        assert isinstance(mini_batch.piece, TableSlice)
        yield mini_batch.piece
