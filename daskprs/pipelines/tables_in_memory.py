"""Tables of a dataset in the memory of this process, to be looked at."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from daskprs.datasets import FileDataset, TabularDataset
from daskprs.exceptions import ConfigError
from daskprs.listing import ListedFile
from daskprs.table_files import TableFile

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["column_count", "read_rows"]


def read_rows(dataset: FileDataset | TabularDataset, start: int, count: int | None) -> pd.DataFrame:
    """Read rows, file by file, until there are enough."""
    import pandas as pd

    frames: list[pd.DataFrame] = []
    left = None if count is None else start + count
    for frame in _frames(dataset):
        frames.append(frame if left is None else frame[:left])
        if left is not None:
            left -= len(frames[-1])
            if left <= 0:
                break
    whole = pd.concat(frames, ignore_index=True)
    return whole[start:].reset_index(drop=True)


def column_count(dataset: FileDataset | TabularDataset) -> int:
    """Count the columns of the first file."""
    return len(next(_frames(dataset, rows=1)).columns)


def _frames(
    dataset: FileDataset | TabularDataset, rows: int | None = None
) -> Iterator[pd.DataFrame]:
    if not isinstance(dataset, TabularDataset):
        raise ConfigError.of("dataset", dataset, "a dataset of tables")
    for file in dataset.files():
        if file.size:
            yield _frame(dataset, file, rows)


def _frame(dataset: TabularDataset, file: ListedFile, rows: int | None) -> pd.DataFrame:
    reader = dataset.reader(file.path)
    more: dict[str, int | None] = {} if rows is None else {"nrows": rows}
    if "compression" in reader.options:  # the stream is uncompressed
        more["compression"] = None
    data = TableFile(file.path, dataset.storage_options)
    with data.open_uncompressed(reader.compression(file.path)) as stream:
        frame = reader.read(stream, **more)
    if dataset.partition_format is not None:
        frame = frame.assign(**dataset.partition_format.values(file.path))
    return frame
