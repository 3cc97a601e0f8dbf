"""Whether a result is right: the same rows as those of a plain loop, in any order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import csv

__all__ = ["difference"]

_CLOSE = 1e-9


def difference(kind: str, result: Path, expected: Path) -> str:
    """Say how the rows of a result differ from the expected ones, as multisets; or ""."""
    if not result.is_file():
        return "there is no result"
    return (_of_tables if kind == "tables" else _of_lines)(result, expected)


def _of_lines(result: Path, expected: Path) -> str:
    got, wanted = (sorted(path.read_bytes().splitlines()) for path in (result, expected))
    if got == wanted:
        return ""
    if len(got) != len(wanted):
        return f"{len(got)} rows instead of {len(wanted)}"
    pairs = zip(got, wanted, strict=True)
    one, other = next((a, b) for a, b in pairs if a != b)
    return f"a row {one!r} instead of {other!r}"


def _of_tables(result: Path, expected: Path) -> str:
    got, wanted = _sorted(result), _sorted(expected)
    if got.column_names != wanted.column_names:
        return f"the columns {got.column_names} instead of {wanted.column_names}"
    if len(got) != len(wanted):
        return f"{len(got)} rows instead of {len(wanted)}"
    for name in wanted.column_names:
        one, other = got[name], wanted[name]
        if pa.types.is_floating(other.type):
            # Peers write the same number in different ways.
            both = (column.cast(pa.float64()).to_numpy() for column in (one, other))
            same = np.allclose(*both, rtol=_CLOSE, atol=0, equal_nan=True)
        else:
            same = one.type == other.type and one.equals(other)
        if not same:
            return f"other values in the column {name}"
    return ""


def _sorted(path: Path) -> pa.Table:
    table = csv.read_csv(path)
    return table.sort_by([(name, "ascending") for name in table.column_names]).combine_chunks()
