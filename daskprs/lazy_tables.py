"""Parts of table files as the partitions of one Dask dataframe.

A Dask dataframe has one type for each column of all files, known before anything is read: that
of the first rows. So CSV is parsed with these types, and no file has to be looked through for
its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from daskprs.column_types import traits_of
from daskprs.conform import DoesNotFitError, fit_frame
from daskprs.exceptions import UsageError
from daskprs.parquet_rows import count_rows, read_parquet_part
from daskprs.pieces import TableSlice
from daskprs.surveys import Survey, survey
from daskprs.table_reader import TableReader

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["SliceReader", "find_cuts_of", "sample_of", "typed"]

# A record that cannot be read fails its part, not the dataframe: then fewer rows tell the types.
_SAMPLE_ROWS = (1000, 100, 10, 1)


def sample_of(piece: TableSlice) -> pd.DataFrame:
    """Read the beginning of a file, for the columns and their types."""
    file, reader = piece.file, piece.reader
    if reader.format == "parquet" and reader.can_cut(piece.path):
        return piece.with_keys(read_parquet_part(file, reader, 0, max(1, count_rows(file))))
    if reader.format == "parquet" or {"skipfooter", "nrows"} & set(reader.options):
        return piece.with_keys(_read_first(piece))
    for rows in _SAMPLE_ROWS:
        try:
            return piece.with_keys(_read_first(piece, nrows=rows))
        except ValueError as error:
            if rows == _SAMPLE_ROWS[-1]:
                error.add_note(f"This is the first record of {piece.path}.")
                raise
    raise AssertionError("unreachable")


def _read_first(piece: TableSlice, **more: Any) -> pd.DataFrame:
    reader = piece.reader
    if "compression" in reader.options:
        more["compression"] = None
    compression = None if reader.format == "parquet" else reader.compression(piece.path)
    with piece.file.open_uncompressed(compression) as stream:
        return reader.read(stream, **more)


def typed(reader: TableReader, sample: pd.DataFrame) -> TableReader:
    """Return the reader that parses CSV with the types of a sample."""
    given = reader.options.get("dtype")
    plain = given is None or (isinstance(given, Mapping) and not hasattr(given, "default_factory"))
    if reader.format not in ("csv", "tsv") or not plain:
        return reader
    untouched = {*(reader.options.get("converters") or ()), *_dates(reader)}
    types: dict[Any, str] = {}
    for label in sample.columns:
        traits = traits_of(sample[label])
        if traits == {"str"} or traits <= {"int", "uint", "negative", "float", "fraction", "bool"}:
            types[label] = "str" if traits == {"str"} else str(sample[label].dtype)
    types = {label: kind for label, kind in types.items() if label not in untouched}
    return replace(reader, options={**reader.options, "dtype": {**types, **(given or {})}})


def _dates(reader: TableReader) -> list[Any]:
    dates = reader.options.get("parse_dates")
    return list(dates) if isinstance(dates, list | tuple) else []


def find_cuts_of(piece: TableSlice) -> Survey:
    """Find where the records of a large file end, once for all its parts."""
    return survey(piece.file, piece.parts, piece.reader, types=False)


@dataclass(frozen=True)
class SliceReader:
    """Reads parts of files as partitions that are like `meta`.

    Attributes
    ----------
    first : str
        The file that the types come from, for messages.
    """

    meta: pd.DataFrame
    first: str

    def __call__(self, piece: TableSlice, found: Survey | None = None) -> pd.DataFrame:
        """Read one part.

        Raises
        ------
        UsageError
            It has other columns, or values of other types.
        """
        import pandas as pd

        if found is not None:
            piece = replace(piece, found=found)
        try:
            frame = piece.load()
            if piece.reader.format == "jsonl":
                # A key that is not there is a value that is missing.
                extra = [label for label in frame.columns if label not in self.meta.columns]
                frame = frame.reindex(columns=[*self.meta.columns, *extra])
            return fit_frame(frame, self.meta)
        except (UnicodeError, pd.errors.ParserError):
            raise
        except DoesNotFitError as error:
            raise self._other_types(piece, error) from None
        except (ValueError, TypeError) as error:
            raise self._other_types(piece, error) from error

    def _other_types(self, piece: TableSlice, error: Exception) -> UsageError:
        types = ", ".join(f"{label}: {dtype}" for label, dtype in self.meta.dtypes.items())
        advice = "Write the files with the same columns and types."
        if piece.reader.format in ("csv", "tsv"):
            advice = "Give the types of the columns, such as dtype={'price': 'float64'}."
        return UsageError(
            f"{piece} does not fit the Dask dataframe: {error}. Its columns and types are those "
            f"of the first rows of {self.first} ({types}). {advice}"
        )
