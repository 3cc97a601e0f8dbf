"""TableReader: a table format, its options, and whether files of it can be cut."""

from __future__ import annotations

import codecs
import difflib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from daskprs.dialects import Dialect
from daskprs.exceptions import ConfigError
from daskprs.inferred_text import read_csv

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FORMATS", "TableReader", "check_options", "compression_of", "format_of"]

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

# fsspec knows these only where a package for them is installed.
_OPTIONAL_COMPRESSIONS = {"zst": "zstd", "lz4": "lz4"}

# Options under which a part, with the header in front, reads as it does inside the whole file.
_CUT_SAFE = {
    "csv": {
        *("sep", "delimiter", "header", "names", "index_col", "usecols", "dtype", "engine"),
        *("converters", "true_values", "false_values", "skipinitialspace", "na_values"),
        *("keep_default_na", "na_filter", "skip_blank_lines", "thousands", "decimal", "quotechar"),
        *("quoting", "doublequote", "escapechar", "encoding", "encoding_errors", "on_bad_lines"),
        *("low_memory", "float_precision", "memory_map"),
    },
    "jsonl": {
        *("dtype", "convert_axes", "convert_dates", "keep_default_dates", "precise_float"),
        *("date_unit", "encoding", "encoding_errors", "lines"),
    },
    "parquet": {"columns", "engine"},
}
_CUT_SAFE["tsv"] = _CUT_SAFE["csv"]
_QUOTE_MINIMAL, _QUOTE_ALL, _QUOTE_NONE = 0, 1, 3

_JSON_GUESSES = ("dtype", "convert_axes", "convert_dates")


@dataclass(frozen=True)
class TableReader:
    """A format and the options that go through to the reader of pandas.

    Parameters
    ----------
    format : {"csv", "tsv", "jsonl", "parquet"}
    options : mapping
        Keyword arguments of ``pandas.read_csv``, ``read_json`` or ``read_parquet``.
    quoted_newlines : bool
        Whether quoted fields may hold newlines; see `daskprs.near_cuts`.
    """

    format: str
    options: Mapping[str, Any] = field(default_factory=dict)
    quoted_newlines: bool = True

    def can_cut(self, path: str) -> bool:
        """Say whether a large file can be cut into parts that read like the whole."""
        return self.compression(path) is None and self._reads_parts_like_the_whole()

    def compression(self, path: str) -> str | None:
        """Tell how a file is compressed, from the options or from its name."""
        given = self.options.get("compression", "infer")
        if isinstance(given, Mapping):
            given = given.get("method", "infer")
        return compression_of(path) if given == "infer" else given

    def _reads_parts_like_the_whole(self) -> bool:
        if not self.options.keys() - {"compression"} <= _CUT_SAFE[self.format]:
            return False
        if self.format == "parquet":
            engine = self.options.get("engine", "auto")
            inner = any("." in str(name) for name in self.options.get("columns") or ())
            return engine in ("auto", "pyarrow") and not inner
        if not _newline_is_a_byte(self.options.get("encoding") or "utf-8"):
            return False
        if self.format == "jsonl":
            return all(self.options.get(name, False) is False for name in _JSON_GUESSES)
        header = self.options.get("header", "infer")
        return (
            (header == "infer" or header is None or (header == 0 and header is not False))
            and self.options.get("engine", "c") in ("c", None)
            and self.options.get("index_col") is None
            and self.options.get("skip_blank_lines", True) is True
            and not _has_open_categories(self.options.get("dtype"))
            and self._has_plain_dialect()
        )

    def _has_plain_dialect(self) -> bool:
        if "sep" in self.options and self.options["sep"] is None:
            return False  # pandas is asked to find it out
        if self.separator == " " and self.options.get("skipinitialspace"):
            return False
        if self.options.get("quoting", 0) not in (_QUOTE_MINIMAL, _QUOTE_ALL, _QUOTE_NONE):
            return False
        try:
            dialect = self.dialect
        except ValueError:
            return False
        marks = (dialect.delimiter, dialect.quotechar, dialect.escapechar or b"\\")
        return all(mark.isascii() for mark in marks)

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
        """How a CSV file is written.

        Raises
        ------
        ValueError
            It is not one that can be cut.
        """
        escape = self.options.get("escapechar")
        quote = self.options.get("quotechar", '"')
        quoting = self.options.get("quoting", _QUOTE_MINIMAL) != _QUOTE_NONE
        return Dialect(
            delimiter=self.separator.encode(),
            quotechar=str(quote).encode() if quoting else b'"',
            escapechar=str(escape).encode() if escape else None,
            doublequote=bool(self.options.get("doublequote", True)),
            quoting=self.quoted_newlines and quoting,
            skipinitialspace=bool(self.options.get("skipinitialspace", False)),
        )

    def read(self, source: Any, **more: Any) -> pd.DataFrame:
        """Read a path or stream with pandas; a file without any column is an empty table."""
        import pandas as pd

        options = {**self.options, **more}
        if self.format == "parquet":
            return pd.read_parquet(source, **options)
        if self.format == "jsonl":
            options = {**_json_types_as_they_are(), **options, "lines": True}
            frame: pd.DataFrame = pd.read_json(source, **options)
            _check_one_object_a_line(frame)
            return frame
        if self.format == "tsv" and "delimiter" not in options:
            options = {"sep": "\t", **options}
        # A stream is not a file that could be mapped.
        options.pop("memory_map", None)
        if self._reads_parts_like_the_whole():
            # Otherwise pandas gives different types to different stretches of a column.
            options = {"low_memory": False, **options}
        try:
            return read_csv(source, options)
        except pd.errors.EmptyDataError:
            return pd.DataFrame()


def check_options(format: str, options: Mapping[str, Any]) -> None:  # noqa: A002
    """Refuse options that the reader of pandas does not have.

    Raises
    ------
    ConfigError
    """
    if options.keys() <= _CUT_SAFE[format]:
        return  # every pandas has these; importing it would keep the processes waiting
    import pandas as pd

    readers = {"jsonl": pd.read_json, "parquet": pd.read_parquet}
    reader: Any = readers.get(format, pd.read_csv)
    parameters = inspect.signature(reader).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    known = list(parameters)[1:]  # the first one is the file
    for name, value in options.items():
        if name not in known:
            close = [option for option in known if name.startswith(option)]
            close = close or difflib.get_close_matches(name, known, 1) or ["encoding"]
            raise ConfigError.of(
                name, value, f"left out: pandas.{reader.__name__} has options such as {close[0]!r}"
            )


def _json_types_as_they_are() -> dict[str, bool]:
    """JSON has types of its own: text stays text, whatever pandas would guess from it."""
    import pandas as pd

    options = {"dtype": False, "convert_axes": False}
    if tuple(map(int, pd.__version__.split(".")[:2])) < (3, 1):
        options["convert_dates"] = False  # later ones guess no dates without the types
    return options


def _check_one_object_a_line(frame: pd.DataFrame) -> None:
    if len(frame) and all(isinstance(label, int) for label in frame.columns):
        cells = frame.iloc[0].tolist()
        if cells and isinstance(cells[0], dict):
            raise ValueError(
                "the file holds a JSON array; a table has to have one object a line (JSON lines), "
                'such as {"id": 1}: write it with DataFrame.to_json(orient="records", lines=True)'
            )


def _has_open_categories(dtype: Any) -> bool:
    """Say whether only the whole file tells the categories of a column."""
    given = dtype.values() if isinstance(dtype, Mapping) else [dtype]
    return any(
        kind == "category" if isinstance(kind, str) else getattr(kind, "categories", 0) is None
        for kind in given
    )


def _newline_is_a_byte(encoding: object) -> bool:
    try:
        name = codecs.lookup(str(encoding)).name
    except LookupError:
        return False
    known = ("utf-8", "utf-8-sig", "ascii", "iso8859", "cp125", "koi8", "mac-")
    return name.startswith(known)


def compression_of(path: str) -> str | None:
    """Tell the compression from the suffix of a file's name."""
    suffix = path.rsplit(".", 1)[-1].lower()
    if f".{suffix}" in FORMATS:
        return None
    from fsspec.utils import infer_compression

    known: str | None = infer_compression(path)
    return known or _OPTIONAL_COMPRESSIONS.get(suffix)


def format_of(path: str) -> str | None:
    """Tell the format from the name of a file, below a suffix such as ``.gz``."""
    name = path.lower().split("?")[0]
    if compression_of(name):
        name = name.rsplit(".", 1)[0]
    dot = name.rfind(".", name.rfind("/") + 1)
    return FORMATS.get(name[dot:]) if dot >= 0 else None
