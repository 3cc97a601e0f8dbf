"""``import mltable``, where that package is not installed: what many scripts import for nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MLTable", "load"]


def load(uri: str, storage_options: object = None, ml_client: object = None) -> MLTable:
    """Open the table of a folder with an MLTable file."""
    return MLTable(str(uri))


class MLTable:
    """A table; ``load`` makes it."""

    def __init__(self, uri: str) -> None:
        self._uri = uri

    def to_pandas_dataframe(self) -> pd.DataFrame:
        from daskprs.datasets import TabularDataset
        from daskprs.yaml_jobs.mltable import read_mltable

        found: Any = read_mltable(self._uri)
        if not isinstance(found, TabularDataset):
            _refuse("to_pandas_dataframe of files without a read_ transformation")
        table: pd.DataFrame = found.to_dask_dataframe().compute()
        return table

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(name if name.startswith("_") else _told(f"MLTable.{name}"))


def _told(name: str) -> str:
    return (
        f"mltable.{name} is not supported by daskprs: read the files with pandas, or install the "
        "package mltable."
    )


def _refuse(name: str) -> NoReturn:
    raise ImportError(_told(name))


def __getattr__(name: str) -> NoReturn:
    if name.startswith("_"):
        raise AttributeError(name)
    _refuse(name)
