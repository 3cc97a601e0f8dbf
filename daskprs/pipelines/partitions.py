"""Writing tables so that each combination of keys has a file of its own."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import fsspec

from daskprs.datasets import FileDataset, TabularDataset
from daskprs.exceptions import ConfigError, OutputError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["write_partitions"]

_OURS = re.compile(r"/[0-9a-f]{32}\.parquet$")
_MARK = ".partitions.json"  # an input does not list names that start so


def write_partitions(
    dataset: FileDataset | TabularDataset,
    keys: list[str],
    url: str,
    storage_options: Mapping[str, Any],
) -> None:
    """Write ``<key>=<value>/.../<part>.parquet`` below a url; the columns stay in the files.

    The keys become the last columns, as those of Azure ML are, which reads them from the paths.

    Rows that stand there already are not written again. Other rows that were written here before,
    by the same keys, are replaced, and so is what a writer that was killed has left.

    Raises
    ------
    ConfigError
        The keys are not columns.
    OutputError
        The folder has other files.
    """
    if not isinstance(dataset, TabularDataset):
        raise ConfigError.of("dataset", dataset, "a dataset of tables")
    import dask
    from dask.delayed import delayed

    frame = dataset.to_dask_dataframe("64MB")
    if not keys or not set(keys) <= set(frame.columns):
        raise ConfigError.of("partition_keys", keys, f"a list of columns of {list(frame.columns)}")
    fs, root = fsspec.core.url_to_fs(url, **storage_options)
    root = root.rstrip("/")
    source = _source(dataset, keys)
    if fs.exists(root) and (found := fs.find(root)):
        known = _known(fs, root)
        if known == {"keys": keys, "source": source, "is_complete": True}:
            return
        ours = [path for path in found if _OURS.search(path)]
        if known.get("keys") != keys or len(ours) < len(found) - 1:
            raise OutputError(f"{url!r} is not empty: give a folder for these partitions alone.")
        _mark(fs, root, keys, source, is_complete=False)
        fs.rm(ours)
    _mark(fs, root, keys, source, is_complete=False)
    write = delayed(_write, pure=False)
    parts = frame.to_delayed()
    dask.compute(*(write(part, keys, fs, root) for part in parts))
    _mark(fs, root, keys, source, is_complete=True)


def _source(dataset: TabularDataset, keys: list[str]) -> str:
    """Name what is written: another content has another name."""
    from dask.base import tokenize

    files = [(file.path, file.size, str(file.version)) for file in dataset.files()]
    reader = [dataset.format, dataset.quoted_newlines, sorted(dataset.reader_options.items())]
    return str(tokenize(files, reader, keys))


def _known(fs: Any, root: str) -> dict[str, Any]:
    try:
        known: dict[str, Any] = json.loads(fs.cat_file(f"{root}/{_MARK}"))
    except (FileNotFoundError, ValueError):
        return {}
    return known


def _mark(fs: Any, root: str, keys: list[str], source: str, *, is_complete: bool) -> None:
    fs.makedirs(root, exist_ok=True)
    mark = json.dumps({"keys": keys, "source": source, "is_complete": is_complete})
    fs.pipe_file(f"{root}/{_MARK}", mark.encode())


def _write(frame: pd.DataFrame, keys: list[str], fs: Any, root: str) -> None:
    columns = [column for column in frame.columns if column not in keys] + keys
    for values, rows in frame[columns].groupby(keys, dropna=False, sort=False, observed=True):
        named = zip(keys, values if isinstance(values, tuple) else (values,), strict=True)
        folder = "/".join(
            f"{quote(key, safe='')}={quote(str(value), safe='')}" for key, value in named
        )
        path = f"{root}/{folder}/{uuid.uuid4().hex}.parquet"
        fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        with fs.open(path, "wb") as stream:
            rows.to_parquet(stream, index=False)
