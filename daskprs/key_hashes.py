"""Hashes of key values, which decide where the rows of a combination are brought together.

Two rows of one combination may stand in parts where the key has different types: 1 in one file
and 1.0 in another are equal in the whole table. Their hashes must be equal in every process,
so each value is hashed as a float or as text, whatever its type. Values that differ may share a
hash: they are told apart later.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from numbers import Complex
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

__all__ = ["UnusableKeyError", "factorize", "row_hashes"]

_MISSING = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIER = np.uint64(0x100000001B3)
_TICKS_PER_MICROSECOND = {"ns": 1000, "us": 1}
_MICROSECONDS_PER_TICK = {"ms": 1000, "s": 1_000_000}


class UnusableKeyError(Exception):
    """A key column holds values, such as lists, that cannot be compared."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(key, reason)
        self.key = key
        self.reason = reason


def factorize(frame: pd.DataFrame, key: str) -> tuple[NDArray[np.int64], Any]:
    """Number the distinct values of a column in order of appearance; all missing ones are one.

    Raises
    ------
    UnusableKeyError
    """
    import pandas as pd

    if key not in frame.columns:
        return np.zeros(len(frame), np.int64), pd.Index([None], dtype=object)
    try:
        codes, values = pd.factorize(frame[key], use_na_sentinel=False)
    except Exception as error:
        raise UnusableKeyError(key, f"{type(error).__name__}: {error}") from error
    return codes, values


def row_hashes(frame: pd.DataFrame, keys: Sequence[str]) -> NDArray[np.uint64]:
    """Hash the combination of each row.

    Raises
    ------
    UnusableKeyError
    """
    combined = np.zeros(len(frame), np.uint64)
    for key in keys:
        codes, values = factorize(frame, key)
        combined = (combined * _MULTIPLIER) ^ _value_hashes(values)[codes]
    # The low bits choose the bucket: they must depend on all others.
    return combined ^ (combined >> np.uint64(32))


def _value_hashes(values: Any) -> NDArray[np.uint64]:
    import pandas as pd

    column = pd.Series(values, dtype=values.dtype)
    missing = column.isna().to_numpy(dtype=bool)
    hashes = np.full(len(column), _MISSING, np.uint64)
    hashes[~missing] = _hashes_of_present(column[~missing])
    return hashes


def _hashes_of_present(column: pd.Series[Any]) -> NDArray[np.uint64]:
    import pandas as pd

    kinds = pd.api.types
    if kinds.is_bool_dtype(column.dtype) or kinds.is_integer_dtype(column.dtype):
        return _float_hashes(column.to_numpy(dtype=np.float64))
    if kinds.is_float_dtype(column.dtype):
        return _float_hashes(column.to_numpy(dtype=np.float64))
    index = pd.Index(column, dtype=column.dtype)
    if isinstance(index, pd.DatetimeIndex | pd.TimedeltaIndex):
        return _float_hashes(_microseconds(index.asi8, index.unit).astype(np.float64))
    if kinds.infer_dtype(column, skipna=False) == "string":
        return _text_hashes(column.to_numpy(dtype=object))
    plain = [_plain(value) for value in column.to_numpy(dtype=object)]
    is_text = np.fromiter((isinstance(value, str) for value in plain), bool, len(plain))
    hashes = np.zeros(len(plain), np.uint64)
    texts = np.array([v for v in plain if isinstance(v, str)], dtype=object)
    hashes[is_text] = _text_hashes(texts)
    hashes[~is_text] = _float_hashes(np.array([v for v in plain if not isinstance(v, str)], float))
    return hashes


def _float_hashes(numbers: NDArray[np.float64]) -> NDArray[np.uint64]:
    import pandas as pd

    return pd.util.hash_array(numbers + 0.0)  # -0.0 equals 0.0


def _text_hashes(texts: NDArray[np.object_]) -> NDArray[np.uint64]:
    import pandas as pd

    try:
        return pd.util.hash_array(texts, categorize=False)
    except UnicodeEncodeError:
        encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
        return pd.util.hash_array(np.array(encoded, dtype=object), categorize=False)


def _plain(value: Any) -> float | str:
    """Give a float or a text that is the same for all values that are equal to this one."""
    import pandas as pd

    if isinstance(value, str):
        return str(value)
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, datetime | np.datetime64):
        moment = pd.Timestamp(value)
        return float(_microseconds(int(moment.asm8.astype(np.int64)), moment.unit))
    if isinstance(value, timedelta | np.timedelta64):
        span = pd.Timedelta(value)
        return float(_microseconds(int(span.asm8.astype(np.int64)), span.unit))
    # Behind the times: numpy's timedelta64 calls itself an integer.
    if isinstance(value, Complex | Decimal | Fraction | np.bool_):
        return _number(value.real)
    if isinstance(value, date):
        return float(value.toordinal())
    if isinstance(value, uuid.UUID | pd.Period):
        return str(value)
    if isinstance(value, pd.Interval):
        return _plain(value.left)
    if isinstance(value, tuple):
        return repr([_plain(element) for element in value])
    # Nothing is known of the type: right for every one, but all of its values go to one bucket.
    return 0.0


def _number(value: Any) -> float:
    try:
        return float(value) + 0.0
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _microseconds(ticks: Any, unit: str) -> Any:
    if unit in _TICKS_PER_MICROSECOND:
        return ticks // _TICKS_PER_MICROSECOND[unit]
    return ticks * _MICROSECONDS_PER_TICK[unit]
