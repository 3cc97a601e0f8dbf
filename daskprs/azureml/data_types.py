"""``DataType`` and ``PromoteHeadersBehavior`` of ``azureml.data``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

__all__ = ["DataType", "PromoteHeadersBehavior", "reader_types"]


@dataclass(frozen=True)
class DataType:
    """The type of a column; see `to_string` and the others."""

    dtype: str
    formats: tuple[str, ...] = ()

    @staticmethod
    def to_string() -> DataType:
        return DataType("str")

    @staticmethod
    def to_long() -> DataType:
        return DataType("Int64")

    @staticmethod
    def to_float(decimal_mark: str = ".") -> DataType:
        return DataType("float64")

    @staticmethod
    def to_bool() -> DataType:
        return DataType("boolean")

    @staticmethod
    def to_datetime(formats: str | Sequence[str] | None = None) -> DataType:
        """With at most one format; a file with such a column is one mini-batch."""
        given = [formats] if isinstance(formats, str) else list(formats or ())
        return DataType("datetime", tuple(given))


class PromoteHeadersBehavior(Enum):
    """Which files of a table have a header."""

    NO_HEADERS = 0
    ONLY_FIRST_FILE_HAS_HEADERS = 1
    COMBINE_ALL_FILES_HEADERS = 2
    ALL_FILES_HAVE_SAME_HEADERS = 3


def reader_types(types: Mapping[str, DataType] | None) -> dict[str, Any]:
    """Give types of columns as options of ``pandas.read_csv``."""
    if not types:
        return {}
    options: dict[str, Any] = {}
    plain = {name: given.dtype for name, given in types.items() if given.dtype != "datetime"}
    dates = {name: given for name, given in types.items() if given.dtype == "datetime"}
    if plain:
        options["dtype"] = plain
    if dates:
        options["parse_dates"] = list(dates)
        formats = {name: given.formats[0] for name, given in dates.items() if given.formats}
        if formats:
            options["date_format"] = formats
    return options
