"""TableReader: a table format, its options, and whether files of it can be cut."""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import fsspec.utils

from daskprs.record_ends import Dialect

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FORMATS", "TableReader", "format_of"]

FORMATS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".txt": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".parq": "parquet",
    ".pq": "parquet",
}

# Options under which a part, with the header in front, reads as it does inside the whole file.
_CUT_SAFE_CSV = {
    *("sep", "delimiter", "header", "names", "index_col", "usecols", "dtype", "engine"),
    *("converters", "true_values", "false_values", "skipinitialspace", "na_values"),
    *("keep_default_na", "na_filter", "skip_blank_lines", "parse_dates", "date_format"),
    *("dayfirst", "cache_dates", "thousands", "decimal", "quotechar", "quoting", "doublequote"),
    *("escapechar", "encoding", "encoding_errors", "on_bad_lines", "low_memory"),
    *("float_precision", "dtype_backend", "memory_map", "verbose"),
}
_CUT_SAFE_JSON = {"dtype", "convert_axes", "convert_dates", "keep_default_dates", "precise_float",
                  "date_unit", "encoding", "encoding_errors", "lines", "dtype_backend"}  # fmt: skip
_CUT_SAFE_PARQUET = {"columns", "engine"}
_QUOTE_NONE = 3


@dataclass(frozen=True)
class TableReader:
    """A format and the options that go through to the reader of pandas.

    Parameters
    ----------
    format : {"csv", "tsv", "jsonl", "parquet"}
    options : mapping
        Keyword arguments of ``pandas.read_csv``, ``read_json`` or ``read_parquet``.
    quoted_newlines : bool
        Whether quoted fields may hold newlines. False saves one reading of each large file.
    """

    format: str
    options: Mapping[str, Any] = field(default_factory=dict)
    quoted_newlines: bool = True

    def can_cut(self, path: str) -> bool:
        """Say whether a large file can be cut into parts that read like the whole."""
        if fsspec.utils.infer_compression(path) or self.options.get("compression", "infer") not in (
            "infer",
            None,
        ):
            return False
        given = set(self.options) - {"compression"}
        if self.format == "parquet":
            return given <= _CUT_SAFE_PARQUET
        if not _newline_is_a_byte(self.options.get("encoding", "utf-8")):
            return False
        if self.format == "jsonl":
            return given <= _CUT_SAFE_JSON
        header = self.options.get("header", "infer")
        return (
            given <= _CUT_SAFE_CSV
            and (header in ("infer", 0) or header is None)
            and self.options.get("engine", "c") in ("c", "pyarrow")
            and all(len(mark.encode()) == 1 for mark in self._marks())
            and self.options.get("index_col") is None
        )

    def _marks(self) -> list[str]:
        names = ("quotechar", "escapechar")
        return [self.separator, *(str(self.options[n]) for n in names if self.options.get(n))]

    @property
    def separator(self) -> str:
        default = "\t" if self.format == "tsv" else ","
        return str(self.options.get("sep") or self.options.get("delimiter") or default)

    @property
    def has_header(self) -> bool:
        """Whether the first record of the file is in front of every part."""
        if self.format not in ("csv", "tsv"):
            return False
        header = self.options.get("header", "infer")
        return header == 0 or (header == "infer" and self.options.get("names") is None)

    @property
    def dialect(self) -> Dialect:
        escape = self.options.get("escapechar")
        return Dialect(
            delimiter=self.separator.encode(),
            quotechar=str(self.options.get("quotechar", '"')).encode(),
            escapechar=str(escape).encode() if escape else None,
            doublequote=bool(self.options.get("doublequote", True)),
            quoting=self.quoted_newlines and self.options.get("quoting", 0) != _QUOTE_NONE,
            skipinitialspace=bool(self.options.get("skipinitialspace", False)),
        )

    def read(self, source: Any, **more: Any) -> pd.DataFrame:
        """Read a path or stream with pandas; a file without any column is an empty table."""
        import pandas as pd

        options = {**self.options, **more}
        try:
            if self.format == "parquet":
                return pd.read_parquet(source, **options)
            if self.format == "jsonl":
                return pd.read_json(source, **{**options, "lines": True})
            if self.format == "tsv" and "delimiter" not in options:
                options = {"sep": "\t", **options}
            return pd.read_csv(source, **options)
        except pd.errors.EmptyDataError:
            return pd.DataFrame()


def _newline_is_a_byte(encoding: object) -> bool:
    try:
        name = codecs.lookup(str(encoding)).name
    except LookupError:
        return False
    known = ("utf-8", "utf-8-sig", "ascii", "iso8859", "cp125", "koi8", "mac-")
    return name.startswith(known)


def format_of(path: str) -> str | None:
    """Tell the format from the name of a file, below a suffix such as ``.gz``."""
    name = path.lower().split("?")[0]
    if fsspec.utils.infer_compression(name):
        name = name.rsplit(".", 1)[0]
    dot = name.rfind(".", name.rfind("/") + 1)
    return FORMATS.get(name[dot:]) if dot >= 0 else None
