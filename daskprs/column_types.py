"""The types that columns have in a whole file, from what each stretch of it shows.

Traits are the set of what has been seen in a column: "missing" and "null" (nothing but what is
not there, or is null), "int", "negative", "uint", "bigint" (beyond 64 bits), "float", "fraction",
"bool", "bool or null", "str", "mixed", or the name of another type of pandas.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Traits", "converted_type", "csv_type", "json_example", "merge_traits", "traits_of"]

Traits = frozenset[str]

_WHOLE_NUMBERS = {"int", "negative", "uint"}
_NUMBERS = {*_WHOLE_NUMBERS, "float", "fraction"}
_BOOLEANS = {"bool", "bool or null"}
_NOTHING = {"missing", "null"}


def merge_traits(known: dict[Any, Traits], frame: pd.DataFrame) -> None:
    """Add what a stretch of the file shows to what is known of its columns."""
    for position, label in enumerate(frame.columns):
        known[label] = known.get(label, frozenset()) | traits_of(frame.iloc[:, position])


def traits_of(column: pd.Series[Any]) -> Traits:
    """Look at a column as pandas has inferred it from one stretch of the file."""
    import pandas as pd

    kind = column.dtype.kind
    if kind == "b":
        return frozenset({"bool"})
    if kind in "iu":
        sign = {"negative"} if (column < 0).any() else set()
        return frozenset({"int" if kind == "i" else "uint", *sign})
    if kind == "f":
        values = column.dropna()
        if not len(values):
            return frozenset({"missing"})
        # Whole numbers with missing ones between them are floats here, but not for the parser.
        is_real = len(values) == len(column) or (values % 1 != 0).any()
        return frozenset({"float", "fraction"} if is_real else {"float"})
    if pd.api.types.is_object_dtype(column.dtype):
        inferred = pd.api.types.infer_dtype(column, skipna=True)
        kinds = {"boolean": "bool or null", "empty": "null", "integer": "bigint", "string": "str"}
        return frozenset({kinds.get(inferred, "mixed")})
    return frozenset({"str" if pd.api.types.is_string_dtype(column) else str(column.dtype)})


def csv_type(traits: Traits) -> str:
    """Return what read_csv makes of a column that shows all this.

    Returns
    -------
    str
        "int64", "uint64", "bool", "boolean" (True, False and NaN as objects), "bigint"
        (Python's, as objects), "str"; "float64", or "int to float" where pandas reads whole
        numbers and makes them floats as some are missing.
    """
    seen = traits - _NOTHING
    if seen <= _BOOLEANS and seen:
        return "bool" if traits == {"bool"} else "boolean"
    if not seen <= {*_NUMBERS, "bigint"}:
        return "str"
    if "fraction" in seen:
        return "float64"
    if "bigint" in seen:
        return "bigint"
    if "uint" in seen:
        # Nothing else fits into this type, and the others hold no such numbers.
        return "uint64" if traits <= {"uint", "int"} else "str"
    return "int64" if traits <= _WHOLE_NUMBERS else "int to float"


def converted_type(traits: Traits) -> str:
    """Return the type of a column that a converter of the user's makes.

    Returns
    -------
    str
        "float64", or "object" where it is of several types; "" leaves the column as it is.
    """
    seen = traits - _NOTHING
    if seen <= _NUMBERS:
        return "" if traits <= _WHOLE_NUMBERS else "float64"
    return "" if len(seen) == 1 and not seen & {"mixed", "bigint", "bool or null"} else "object"


# JSON values that make pandas give the type to the column they are in.
_JSON_EXAMPLES: Mapping[str, Any] = {
    "int64": 0,
    "uint64": 2**63,
    "float64": 0.5,
    "bool": True,
    "str": "",
    "null": None,
    "object": [],
}


def json_example(traits: Traits, *, everywhere: bool) -> Any:
    """Return a value like those of the column, for a line in front of every part.

    Parameters
    ----------
    everywhere : bool
        Whether every stretch of the file has the column.
    """
    return _JSON_EXAMPLES[_json_type(traits if everywhere else traits | {"missing"})]


def _json_type(traits: Traits) -> str:
    seen = traits - _NOTHING
    if not seen:
        return "null" if traits == {"null"} else "float64"
    if seen == {"str"}:
        return "str"
    if traits == {"bool"}:
        return "bool"
    if not seen <= _NUMBERS or ({"uint", "negative"} <= seen and "fraction" not in seen):
        return "object"
    if traits <= {"int", "negative"}:
        return "int64"
    return "uint64" if traits <= {"int", "uint"} else "float64"
