"""Python, numpy and pandas values as JSON and as bytes."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from typing import Any

__all__ = ["escaped", "is_missing", "json_line", "utf8"]


def utf8(text: str) -> bytes:
    """Encode; file names that are not UTF-8 come as surrogates, and become their own bytes."""
    return text.encode("utf-8", "surrogateescape")


def escaped(text: str) -> str:
    r"""Make text that UTF-8 can hold: the other bytes of a file name become ``\xe9``."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def json_line(value: Any) -> bytes:
    """Make one line of JSON, which every reader of JSON accepts."""
    try:
        text = _encode(value)
    except (TypeError, ValueError):  # NaN, or keys that JSON does not have
        text = _encode(_plain(value))
    try:
        return text.encode() + b"\n"
    except UnicodeEncodeError:  # bytes of a file name: JSON can escape them
        return json.dumps(json.loads(text)).encode() + b"\n"


def is_missing(value: Any) -> bool:
    """Say whether a table has no value here: None, NaN, NaT, NA."""
    if value is None:
        return True
    if type(value) in (str, int, bool):
        return False
    pandas = sys.modules.get("pandas")
    if pandas is not None and (value is pandas.NA or value is pandas.NaT):
        return True
    try:
        return bool(value != value)
    except Exception:  # arrays and tensors, and what has no such comparison
        return False


def _plain(value: Any) -> Any:
    """Make what JSON has of numpy, pandas, dates and paths; what has no value becomes null."""
    if type(value) in (str, bool, int, type(None)):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {_key(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if hasattr(value, "dtype") and getattr(value, "ndim", 0) > 0:  # dates become numbers in tolist
        return [_plain(item) for item in value]
    if is_missing(value):
        return None
    if getattr(getattr(value, "dtype", None), "kind", "") in ("M", "m"):
        return str(value)
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return int(value) if isinstance(value, int) else str(value)


def _key(key: Any) -> Any:
    return key if isinstance(key, str | int | None) else str(key)


_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, default=_plain).encode
