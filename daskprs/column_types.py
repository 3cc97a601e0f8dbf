"""The types that the columns of a file have in the whole, found part by part."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from daskprs.table_reader import TableReader

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["whole_file_types"]


def whole_file_types(
    part_bytes: Callable[[int], bytes], records: tuple[int, ...], reader: TableReader
) -> tuple[tuple[Any, ...], dict[Any, str]]:
    kinds: dict[Any, str] = {}
    given = reader.options.get("dtype")
    decided = set(given) if isinstance(given, Mapping) else set()
    decided |= set(reader.options.get("converters") or ())
    narrow = _can_read_some_columns(reader)
    for part in range(len(records)):
        if not records[part]:
            continue
        more: dict[str, Any] = {}
        open_columns = [c for c, kind in kinds.items() if kind != "str" and c not in decided]
        if kinds and narrow:
            # Text stays text: only columns that can still change are parsed.
            if not open_columns:
                break
            more["usecols"] = open_columns
        try:
            frame = reader.read(io.BytesIO(part_bytes(part)), **more)
        except Exception:  # noqa: S112  (this part fails again when it is run, with its reason)
            continue
        if not kinds and narrow and not _plain_labels(frame.columns):
            narrow = False
        for position, column in enumerate(frame.columns):
            kind = _kind(frame.iloc[:, position])
            kinds[column] = _widen(kinds[column], kind) if column in kinds else kind
    wide = {"str": "str", "float": "float", "object": "object"}
    types = {c: wide[k] for c, k in kinds.items() if k in wide and c not in decided}
    return tuple(kinds), types


def _can_read_some_columns(reader: TableReader) -> bool:
    others = {"usecols", "names", "header", "index_col", "parse_dates", "engine"}
    return reader.format in ("csv", "tsv") and not others & set(reader.options)


def _plain_labels(columns: Any) -> bool:
    """Say whether pandas has renamed no duplicate, and taken no column as the index."""
    return all(isinstance(c, str) and "." not in c and "Unnamed" not in c for c in columns)


def _kind(column: pd.Series[Any]) -> str:
    import pandas as pd

    kind = column.dtype.kind
    if kind == "b":
        return "bool"
    if kind in "iu":
        return "int"
    if kind == "f":
        return "float" if column.notna().any() else "null"
    if kind in "mM":
        return "time"
    inferred = pd.api.types.infer_dtype(column, skipna=True)
    return {"boolean": "object", "empty": "null"}.get(inferred, "str")


_NUMBERS = {"int", "float", "null"}
_BOOLEANS = {"bool", "object", "null"}


def _widen(one: str, other: str) -> str:
    """The kind that pandas gives a column whose parts are of these two kinds."""
    both = {one, other}
    if len(both) == 1:
        return one
    if "time" in both:
        return "time"
    if both <= _NUMBERS:
        return "float"
    return "object" if both <= _BOOLEANS else "str"
