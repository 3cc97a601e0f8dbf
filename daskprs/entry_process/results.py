"""What run() returned becomes rows: counted, and formatted as bytes that only need writing."""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from daskprs.entry_process.wire import Rows

__all__ = ["BadResultError", "materialise", "to_rows"]

SCALAR_COLUMN = "result"


class BadResultError(TypeError):
    """run() returned something that cannot be rows."""


def materialise(result: Any) -> Any:
    """Return a DataFrame as it is, and anything else that can be rows as a list or array.

    Raises
    ------
    BadResultError
        For None, text, bytes, and what cannot be iterated: the try has failed.
    """
    if is_frame(result):
        return result
    if result is None or isinstance(result, str | bytes | bytearray) or not _iterable(result):
        raise BadResultError(
            f"run() returned {_kind(result)}; it must return a list, tuple, DataFrame, array or "
            "other iterable with one element for each item that succeeded."
        )
    return result if isinstance(result, list | tuple) else list(result)


def _iterable(value: Any) -> bool:
    try:
        iter(value)
    except TypeError:
        return False
    return True


def _kind(value: Any) -> str:
    return "None" if value is None else f"a value of type {type(value).__name__}"


def is_frame(value: Any) -> bool:
    """Say whether `value` is a pandas DataFrame, without importing pandas for the question."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(value, pandas.DataFrame)


def to_rows(result: Any, output_format: str, to_csv_options: Mapping[str, Any]) -> Rows:
    """Format a materialised result.

    Parameters
    ----------
    result : list, tuple or DataFrame
        From `materialise`.
    output_format : {"text", "csv", "jsonl", "parquet"}
    to_csv_options : mapping
        Keyword arguments for `DataFrame.to_csv`, from the settings file of the script.

    Returns
    -------
    Rows
        `text`: what Azure ML writes, byte for byte. `parquet`: an Arrow IPC stream; the one
        writer makes the parquet file of them.
    """
    if not len(result):
        return Rows(b"", 0)
    formatter = {"text": _text, "csv": _csv, "jsonl": _jsonl, "parquet": _arrow}[output_format]
    payload, columns = formatter(result, to_csv_options)
    return Rows(payload, len(result), columns)


def _encode(text: str) -> bytes:
    # File names that are not UTF-8 come as surrogate escapes: give back the original bytes.
    return text.encode("utf-8", "surrogateescape")


_Formatted = tuple[bytes, tuple[str, ...] | None]


def _text(result: Any, to_csv_options: Mapping[str, Any]) -> _Formatted:
    if is_frame(result):
        options = {"sep": " ", "header": False, "index": False, **to_csv_options}
        return _encode(result.to_csv(**options)), None
    return _encode("".join(f"{element}\n" for element in result)), None


def _csv(result: Any, to_csv_options: Mapping[str, Any]) -> _Formatted:
    if is_frame(result):
        columns = tuple(map(str, result.columns))
        text = result.to_csv(header=False, index=False, lineterminator="\n")
        return _encode(text), columns
    columns, rows = _as_table(result)
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return _encode(buffer.getvalue()), columns


def _as_table(elements: Sequence[Any]) -> tuple[tuple[str, ...], Iterable[Sequence[Any]]]:
    """Dicts by their keys, sequences by position, anything else as one column."""
    if all(isinstance(element, Mapping) for element in elements):
        columns = list(dict.fromkeys(key for element in elements for key in element))
        rows = [[element.get(key) for key in columns] for element in elements]
        return tuple(map(str, columns)), rows
    if all(_is_sequence(element) for element in elements):
        width = max(len(element) for element in elements)
        return tuple(map(str, range(width))), [list(element) for element in elements]
    return (SCALAR_COLUMN,), [[element] for element in elements]


def _is_sequence(element: Any) -> bool:
    if isinstance(element, list | tuple):
        return True
    return hasattr(element, "ndim") and element.ndim == 1


def _jsonl(result: Any, to_csv_options: Mapping[str, Any]) -> _Formatted:
    elements = result
    if is_frame(result):
        names = [str(name) for name in result.columns]
        columns = [result.iloc[:, i].tolist() for i in range(len(names))]
        elements = [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]
    lines = (json.dumps(_plain(element), ensure_ascii=False, allow_nan=False) for element in elements)
    return _encode("".join(f"{line}\n" for line in lines)), None


def _plain(value: Any) -> Any:
    """Make JSON of numpy, pandas, dates and paths; what has no value becomes null."""
    if value is None or isinstance(value, str | bool | int) and type(value) in (str, bool, int):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # numpy arrays and scalars
        return _plain(value.tolist())
    pandas = sys.modules.get("pandas")
    if pandas is not None and (value is pandas.NaT or value is pandas.NA):
        return None
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return int(value)
    return str(value)


def _arrow(result: Any, to_csv_options: Mapping[str, Any]) -> _Formatted:
    import pyarrow as pa

    if is_frame(result):
        names = [str(name) for name in result.columns]
        table = pa.Table.from_pandas(result.set_axis(names, axis=1), preserve_index=False)
    else:
        columns, rows = _as_table(result)
        width = len(columns)
        padded = [[*row, *[None] * (width - len(row))] for row in map(list, rows)]
        arrays = [pa.array([_cell(row[i]) for row in padded]) for i in range(width)]
        table = pa.Table.from_arrays(arrays, names=list(columns))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes(), tuple(table.column_names)


def _cell(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value
