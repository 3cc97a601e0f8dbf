"""The output of a run, by its public names; see `row_store` for how it works."""

from __future__ import annotations

from daskprs.local_store import LocalStore
from daskprs.output_folder import OutputFolder
from daskprs.row_formats import ColumnsChangedError
from daskprs.row_store import JOURNAL, RowStore
from daskprs.segment_store import SegmentStore

__all__ = ["JOURNAL", "ColumnsChangedError", "RowStore", "open_store"]


def open_store(folder: OutputFolder, name: str, output_format: str | None) -> RowStore:
    """Choose the store that fits the folder.

    Parameters
    ----------
    folder : OutputFolder
    name : str
        Of the output file.
    output_format : {"text", "csv", "jsonl", "parquet"} or None
        None: summary_only, only the journal is kept.
    """
    kind = SegmentStore if folder.local is None else LocalStore
    return kind(folder, name, output_format)
