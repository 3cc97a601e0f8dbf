"""CSV with columns that are given as text: pandas reads them faster where it may look itself.

What pandas 3 makes of text that it was not told about is what it makes of a column given as `str`,
in half of the time, unless all values of the column look like something else.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["read_csv"]

# Columns that have looked like something else in this process: reading them twice is slower.
_other_looks: set[Hashable] = set()


def read_csv(source: Any, options: Mapping[str, Any]) -> pd.DataFrame:
    """Return what ``pandas.read_csv(source, **options)`` returns."""
    import pandas as pd

    frame: pd.DataFrame
    text = _text_columns(options) if hasattr(source, "seek") else set()
    if text:
        begin = source.tell()
        others = {label: kind for label, kind in options["dtype"].items() if label not in text}
        frame = pd.read_csv(source, **{**options, "dtype": others})
        wrong = _not_text(frame, text)
        if not wrong:
            return frame
        _other_looks.update(wrong)
        source.seek(begin)
    frame = pd.read_csv(source, **options)
    return frame


def _text_columns(options: Mapping[str, Any]) -> set[Hashable]:
    """Return the columns given as text that pandas may look at itself."""
    import pandas as pd

    given = options.get("dtype")
    if type(given) is not dict:  # others may give a type to columns that are not named
        return set()
    # With low_memory pandas looks at one stretch of a column at a time.
    if options.get("low_memory", True) or _shows_itself(options):
        return set()
    if not isinstance(pd.Series([""]).dtype, pd.StringDtype):
        return set()  # before pandas 3, text is of a type that holds anything
    # Types of numpy and pandas may equal "str", and mean something else.
    text = {
        label
        for label, kind in given.items()
        if kind is str or (isinstance(kind, str) and kind == "str")
    }
    # A column without a type of its own gets that of the first one of the same name.
    return {label for label in text - _other_looks if _first_name(label) not in given}


def _shows_itself(options: Mapping[str, Any]) -> bool:
    """Say whether somebody would notice that a table is read twice."""
    return bool(options.get("converters")) or options.get("on_bad_lines") not in (
        *(None, "error", "skip"),
    )


def _first_name(label: Hashable) -> Hashable:
    return label.rpartition(".")[0] if isinstance(label, str) else None


def _not_text(frame: pd.DataFrame, text: set[Hashable]) -> set[Hashable]:
    """Return the columns of `text` that pandas has not read as it would if it was told."""
    import pandas as pd

    told = pd.Series([], dtype=str).dtype
    types: dict[Hashable, Any] = dict(zip(frame.columns, frame.dtypes, strict=True))
    wrong = {label for label in text if types.get(label) != told}
    return wrong | (text & {_first_name(label) for label in frame.columns})
