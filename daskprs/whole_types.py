"""The types that columns have in one table made of many parts.

pandas.concat decides them by looking at all parts. No process has all parts, so each part sends
a sample, a row that stands for its types, and `whole_types` keeps the few that are needed:
concatenating them in front of any of the parts gives the types of the whole.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dask.base import tokenize

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Encoded", "Sample", "WholeTypes", "encode", "sample_of", "whole_types"]

_PLACEHOLDERS: Mapping[type, Any] = {str: "", bytes: b""}


@dataclass(frozen=True)
class Encoded:
    """Rows with codes instead of the values of categorical columns.

    Attributes
    ----------
    categories : mapping
        Categorical column to a token of its categories.
    source : int or None
        Number of the table of which each part knows only its own categories.
    """

    frame: pd.DataFrame
    categories: Mapping[Any, str]
    source: int | None = None


@dataclass(frozen=True)
class Sample:
    """One row with the types of some rows; the other fields are as in `Encoded`."""

    row: pd.DataFrame
    categories: Mapping[Any, str]
    source: int | None = None

    def kinds(self) -> dict[Any, Hashable]:
        """What pandas.concat looks at, by column."""
        missing = self.row.isna().iloc[0].tolist()
        dtypes = zip(self.row.columns, self.row.dtypes, missing, strict=True)
        # Categorical dtypes are equal in any order of their categories: tokens are not.
        return {column: (self.categories.get(column, d), m) for column, d, m in dtypes}


@dataclass(frozen=True)
class WholeTypes:
    """What gives encoded parts the types of the whole table."""

    columns: pd.Index[Any] | None = None
    rows: tuple[pd.DataFrame, ...] = ()
    categories: Mapping[str, pd.CategoricalDtype] = field(default_factory=dict)
    unions: Mapping[tuple[int, Any], pd.CategoricalDtype] = field(default_factory=dict)

    def concat(self, parts: Iterable[Encoded]) -> pd.DataFrame:
        """Concatenate at least one part; the rows keep their index."""
        import pandas as pd

        whole = pd.concat([*self.rows, *(self._decoded(part) for part in parts)])
        whole = whole.iloc[len(self.rows) :]
        if self.columns is not None and not whole.columns.equals(self.columns):
            whole = whole[list(self.columns)]
        return whole

    def _decoded(self, part: Encoded) -> pd.DataFrame:
        import pandas as pd

        columns = {}
        for column, token in part.categories.items():
            codes = part.frame[column].to_numpy()
            values = pd.Categorical.from_codes(codes, dtype=self.categories[token])
            union = None if part.source is None else self.unions.get((part.source, column))
            columns[column] = values if union is None else values.set_categories(union.categories)
        return _with(part.frame, columns)


def _with(frame: pd.DataFrame, columns: Mapping[Any, Any]) -> pd.DataFrame:
    changed = frame.copy(deep=False) if columns else frame
    for column, values in columns.items():
        changed[column] = values
    return changed


def encode(frame: pd.DataFrame, source: int | None = None) -> Encoded:
    """Leave out the categories: each of many pieces of the frame would carry all of them."""
    import pandas as pd

    codes, tokens = {}, {}
    for column, dtype in frame.dtypes.items():
        if isinstance(dtype, pd.CategoricalDtype):
            codes[column] = frame[column].cat.codes.to_numpy()
            tokens[column] = str(tokenize(dtype))
    return Encoded(_with(frame, codes), tokens, source)


def sample_of(frame: pd.DataFrame, encoded: Encoded) -> Sample:
    """Take one row of a frame with rows, with a value in each column that has one."""
    import pandas as pd

    row = {}
    for column in frame.columns:
        values = frame[column]
        present = values.notna().to_numpy(dtype=bool)
        at = int(present.argmax())
        # The values of these types may be large, and do not matter.
        placeholder = "" if values.dtype == object else _PLACEHOLDERS.get(values.dtype.type)
        if present[at] and placeholder is not None:
            row[column] = pd.Series([placeholder], dtype=values.dtype)
        else:
            row[column] = values.iloc[[at]].reset_index(drop=True)
    return Sample(pd.DataFrame(row, columns=frame.columns), encoded.categories, encoded.source)


def whole_types(samples: Iterable[Sample]) -> WholeTypes:
    """Find the types of the table whose parts, in this order, the samples were taken of."""
    import pandas as pd

    samples = _distinct(samples)
    if not samples:
        return WholeTypes()
    unions = _unions(samples)
    categories = {t: s.row[column].dtype for s in samples for column, t in s.categories.items()}
    samples = [_united(sample, unions) for sample in samples]
    labels = {tuple(sample.row.columns): sample.row.columns for sample in samples}
    columns = pd.concat([pd.DataFrame(columns=c) for c in labels.values()]).columns
    return WholeTypes(columns, _rows_of_all_kinds(samples, columns), categories, unions)


def _distinct(samples: Iterable[Sample]) -> list[Sample]:
    kept: dict[Any, Sample] = {}
    for sample in samples:
        source = sample.source if sample.categories else None
        kept.setdefault((source, *sample.kinds().items()), sample)
    return list(kept.values())


def _unions(samples: list[Sample]) -> dict[tuple[int, Any], pd.CategoricalDtype]:
    """All categories of a column, where each part knows only its own."""
    import pandas as pd

    found: dict[tuple[int, Any], list[Any]] = {}
    for sample in samples:
        if sample.source is not None:
            for column, dtype in sample.row.dtypes.items():
                found.setdefault((sample.source, column), []).append(dtype)
    unions = {}
    for place, dtypes in found.items():
        if len(set(dtypes)) == 1 or not all(_is_unordered(dtype) for dtype in dtypes):
            continue
        values = [pd.Categorical([], dtype=dtype) for dtype in dtypes if len(dtype.categories)]
        try:
            unions[place] = pd.api.types.union_categoricals(values, sort_categories=True).dtype
        except TypeError:  # categories of different types: the whole column has no categories
            continue
    return unions


def _is_unordered(dtype: Any) -> bool:
    import pandas as pd

    return isinstance(dtype, pd.CategoricalDtype) and not dtype.ordered


def _united(sample: Sample, unions: Mapping[tuple[int, Any], pd.CategoricalDtype]) -> Sample:
    columns, tokens = {}, dict(sample.categories)
    for column in sample.row.columns if sample.source is not None else ():
        union = unions.get((sample.source or 0, column))
        if union is not None:
            columns[column] = sample.row[column].cat.set_categories(union.categories)
            tokens[column] = f"union of {sample.source}"
    return Sample(_with(sample.row, columns), tokens, sample.source)


def _rows_of_all_kinds(samples: list[Sample], columns: Iterable[Any]) -> tuple[pd.DataFrame, ...]:
    """Give as few rows as have all kinds of each column; none where all parts are alike."""
    import pandas as pd

    found: dict[Any, dict[Hashable, Any]] = {column: {} for column in columns}
    for sample in samples:
        kinds = sample.kinds()
        for column, values in found.items():
            if column in kinds:
                values.setdefault(kinds[column], sample.row[column])
            else:
                values.setdefault("absent", None)
    values_of = {column: _differing(values) for column, values in found.items()}
    count = max(map(len, values_of.values()), default=0)
    if count <= 1:
        return ()
    rows = []
    for i in range(count):
        row = {column: values[min(i, len(values) - 1)] for column, values in values_of.items()}
        present = {column: value for column, value in row.items() if value is not None}
        rows.append(pd.DataFrame(present, index=[0]))
    return tuple(rows)


def _differing(values: Mapping[Hashable, Any]) -> list[Any]:
    """Leave out that some parts of one type have no values at all."""
    types = {kind[0] if isinstance(kind, tuple) else kind for kind in values}
    return list(values.values())[:1] if len(types) == 1 else list(values.values())
