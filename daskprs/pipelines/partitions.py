"""Writing tables so that each combination of keys has a file of its own."""

from __future__ import annotations

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


def write_partitions(
    dataset: FileDataset | TabularDataset,
    keys: list[str],
    url: str,
    storage_options: Mapping[str, Any],
) -> None:
    """Write ``<key>=<value>/.../<part>.parquet`` below a url; the columns stay in the files.

    Raises
    ------
    ConfigError
        The keys are not columns.
    OutputError
        The folder is not empty.
    """
    if not isinstance(dataset, TabularDataset):
        raise ConfigError.of("dataset", dataset, "a dataset of tables")
    import dask
    from dask.delayed import delayed

    frame = dataset.to_dask_dataframe("64MB")
    if not keys or not set(keys) <= set(frame.columns):
        raise ConfigError.of("partition_keys", keys, f"a list of columns of {list(frame.columns)}")
    fs, root = fsspec.core.url_to_fs(url, **storage_options)
    if fs.exists(root) and fs.find(root):
        raise OutputError(f"{url!r} is not empty: give a folder for these partitions alone.")
    write = delayed(_write, pure=False)
    parts = frame.to_delayed()
    dask.compute(*(write(part, keys, fs, root.rstrip("/")) for part in parts))


def _write(frame: pd.DataFrame, keys: list[str], fs: Any, root: str) -> None:
    for values, rows in frame.groupby(keys, dropna=False, sort=False, observed=True):
        named = zip(keys, values if isinstance(values, tuple) else (values,), strict=True)
        folder = "/".join(
            f"{quote(key, safe='')}={quote(str(value), safe='')}" for key, value in named
        )
        path = f"{root}/{folder}/{uuid.uuid4().hex}.parquet"
        fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        with fs.open(path, "wb") as stream:
            rows.to_parquet(stream, index=False)
