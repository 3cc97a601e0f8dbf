"""What run() returned becomes rows: counted, and formatted as bytes that only need writing."""

from __future__ import annotations

import csv
import inspect
import io
import pickle
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from daskprs.entry_process.arrow_csv import arrow_csv
from daskprs.entry_process.plain import escaped, is_missing, json_line, utf8
from daskprs.entry_process.wire import Rows

__all__ = ["BadResultError", "joined", "materialise", "to_rows"]

SCALAR_COLUMN = "result"


class BadResultError(TypeError):
    """run() returned something that cannot be rows."""


def materialise(result: Any) -> Any:
    """Return a DataFrame as it is, and anything else that can be rows as a list or tuple.

    Raises
    ------
    BadResultError
        For None, text, bytes, and what cannot be iterated: the try has failed.
    """
    if is_frame(result) or type(result) in (list, tuple):
        return result
    if callable(getattr(result, "to_pandas", None)):  # polars, Arrow, ...: they iterate columns
        frame = result.to_pandas()
        return frame if is_frame(frame) else list(frame)
    refused = result is None or isinstance(result, str | bytes | bytearray | memoryview)
    if refused or not _iterable(result):
        raise BadResultError(
            f"run() returned {_kind(result)}; it must return a list, tuple, DataFrame, array or "
            "other iterable with one element for each item that succeeded."
        )
    return list(result)


def _iterable(value: Any) -> bool:
    try:
        iter(value)
    except TypeError:
        return False
    return True


def _kind(value: Any) -> str:
    if inspect.iscoroutine(value) or inspect.isasyncgen(value):
        close = getattr(value, "close", None)
        if close is not None:
            close()  # or Python warns that nobody awaited it
        return f"{_article(type(value).__name__)} (it is an async function)"
    return "None" if value is None else f"a value of type {type(value).__name__}"


def _article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


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
    output_format : {"text", "csv", "jsonl", "parquet", "pickle"}
    to_csv_options : mapping
        Keyword arguments for `DataFrame.to_csv`, from the settings file of the script.

    Returns
    -------
    Rows
        `text`: what Azure ML writes, byte for byte. `parquet`: an Arrow IPC stream; the one
        writer makes the parquet file of them. `pickle`: the result itself, for collections.
    """
    if not len(result):
        return Rows(b"", 0)
    if output_format == "text":
        return Rows(_text(result, to_csv_options), len(result))
    if output_format == "jsonl":
        return Rows(_jsonl(result), len(result))
    if output_format == "pickle":
        return Rows(_pickled(result), len(result))
    formatter = {"csv": _csv, "parquet": _arrow}[output_format]
    payload, columns = formatter(result)
    return Rows(payload, len(result), columns)


def joined(rows: Sequence[Rows], output_format: str | None) -> Rows | None:
    """Make one of the rows of several calls; tables may differ in their columns."""
    rows = [piece for piece in rows if piece.count]
    if output_format is None or not rows:
        return None if output_format is None else Rows(b"", 0)
    count = sum(piece.count for piece in rows)
    if output_format == "parquet":
        import pyarrow as pa

        tables = [pa.ipc.open_stream(piece.payload).read_all() for piece in rows]
        table = pa.concat_tables(tables, promote_options="permissive")
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return Rows(sink.getvalue().to_pybytes(), count, tuple(table.column_names))
    columns = rows[0].columns
    if columns is None or all(piece.columns == columns for piece in rows):
        return Rows(b"".join(piece.payload for piece in rows), count, columns)
    names = list(dict.fromkeys(name for piece in rows for name in piece.columns or ()))
    cells: list[list[str]] = []
    for piece in rows:
        text = io.StringIO(piece.payload.decode("utf-8", "surrogateescape"), newline="")
        for row in csv.reader(text):
            known = dict(zip(piece.columns or (), row, strict=True))
            cells.append([known.get(name, "") for name in names])
    return Rows(utf8(_csv_text(cells, csv.QUOTE_MINIMAL)), count, tuple(names))


def _text(result: Any, to_csv_options: Mapping[str, Any]) -> bytes:
    if is_frame(result):
        fast = None if to_csv_options else arrow_csv(result, " ")
        if fast is not None:
            return fast
        options = {"sep": " ", "header": False, "index": False, **to_csv_options}
        return utf8(result.to_csv(**options))
    return utf8("".join([f"{element!s}\n" for element in result]))


def _csv(result: Any) -> tuple[bytes, tuple[str, ...]]:
    if is_frame(result):
        columns = _names(result.columns)
        fast = arrow_csv(result)
        if fast is not None:
            return fast, columns
        text = _frame_csv(result, csv.QUOTE_MINIMAL)
        if "\r" in text:
            text = _frame_csv(result, csv.QUOTE_ALL)
        return utf8(text), columns
    columns, rows = _as_table(result)
    cells = [["" if is_missing(value) else value for value in row] for row in rows]
    text = _csv_text(cells, csv.QUOTE_MINIMAL)
    if "\r" in text:
        # Readers take it for the end of a row, and csv does not quote it before Python 3.13.
        text = _csv_text(cells, csv.QUOTE_ALL)
    return utf8(text), columns


def _frame_csv(frame: Any, quoting: int) -> str:
    text: str = frame.to_csv(header=False, index=False, lineterminator="\n", quoting=quoting)
    return text


def _csv_text(rows: Sequence[Sequence[Any]], quoting: Any) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n", quoting=quoting).writerows(rows)
    return buffer.getvalue()


def _as_table(elements: Sequence[Any]) -> tuple[tuple[str, ...], list[list[Any]]]:
    """Dicts by their keys, sequences by position, anything else as one column."""
    elements = [_labelled(element) for element in elements]
    if all(isinstance(element, Mapping) for element in elements) and any(elements):
        keys = list(dict.fromkeys(key for element in elements for key in element))
        return _names(keys), [[element.get(key) for key in keys] for element in elements]
    if all(map(_is_sequence, elements)) and any(map(len, elements)):
        width = max(map(len, elements))
        rows = [[*element, *[None] * (width - len(element))] for element in elements]
        return tuple(map(str, range(width))), rows
    return (SCALAR_COLUMN,), [[element] for element in elements]


def _labelled(element: Any) -> Any:
    """Make a dict of a pandas Series: a row of a table, with the names of its columns."""
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(element, pandas.Series):
        return element.to_dict()
    return element


def _is_sequence(element: Any) -> bool:
    return isinstance(element, list | tuple) or getattr(element, "ndim", None) == 1


def _names(columns: Any) -> tuple[str, ...]:
    # Only exact text travels: a subclass of str would be pickled as a class of the script.
    return tuple(str.__str__(str(column)) for column in columns)


def _jsonl(result: Any) -> bytes:
    elements = result
    if is_frame(result):
        names = _names(result.columns)
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise BadResultError(
                f"run() returned a table with more than one column named {', '.join(twice)}: "
                "in JSON every value needs a name of its own."
            )
        columns = [result.iloc[:, i].tolist() for i in range(len(names))]
        elements = [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]
    return b"".join([json_line(_labelled(element)) for element in elements])


def _pickled(result: Any) -> bytes:
    try:
        return pickle.dumps(result, protocol=5)
    except Exception as error:
        raise BadResultError(
            f"run() returned something that cannot leave its process ({error}): return a "
            "DataFrame, or a list of plain values, dicts or arrays."
        ) from error


def _arrow(result: Any) -> tuple[bytes, tuple[str, ...]]:
    import pyarrow as pa

    if is_frame(result):
        frame = result.set_axis(list(_names(result.columns)), axis=1)
        table = pa.Table.from_pandas(frame, preserve_index=False)
    else:
        columns, rows = _as_table(result)
        cells = list(zip(*rows, strict=True))
        arrays = [_arrow_column(*column) for column in zip(columns, cells, strict=True)]
        table = pa.Table.from_arrays(arrays, names=list(columns))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes(), tuple(table.column_names)


def _arrow_column(name: str, values: Sequence[Any]) -> Any:
    import pyarrow as pa

    cells = [value.tolist() if getattr(value, "ndim", 0) > 1 else value for value in values]
    try:
        try:
            return pa.array(cells, from_pandas=True)
        except UnicodeEncodeError:
            cells = [escaped(value) if isinstance(value, str) else value for value in cells]
            return pa.array(cells, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise BadResultError(
            f"the column {name!r} of what run() returned has no single type ({error}): "
            "return the same type in every row, or use output_format='jsonl'."
        ) from error
