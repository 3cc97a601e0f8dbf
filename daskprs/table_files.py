"""Opening a table file: a local path, a url, or bytes that were sent along."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, BinaryIO

import fsspec
import fsspec.utils

from daskprs.file_trees import is_local
from daskprs.table_reader import TableReader

__all__ = ["open_bytes", "open_whole"]


def open_bytes(path: str, storage_options: Mapping[str, Any], content: bytes | None) -> BinaryIO:
    """Open a local path, a url, or bytes that were sent along."""
    if content is not None:
        return io.BytesIO(content)
    if is_local(path):
        return open(path, "rb")
    opened: BinaryIO = fsspec.open(path, "rb", **storage_options).open()
    return opened


def open_whole(
    path: str, storage_options: Mapping[str, Any], content: bytes | None, reader: TableReader
) -> BinaryIO:
    compression = reader.options.get("compression", "infer")
    if isinstance(compression, Mapping):
        compression = compression.get("method", "infer")
    if compression == "infer":
        compression = fsspec.utils.infer_compression(path)
    raw = open_bytes(path, storage_options, content)
    if compression is None or reader.format == "parquet":
        return raw
    opened: BinaryIO = fsspec.compression.compr[compression](raw, mode="rb")
    return opened
