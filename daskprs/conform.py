"""Make DataFrames fit the meta of a Dask dataframe: the same columns, order and types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from daskprs.wording import counted

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["DoesNotFitError", "fit_frame", "fit_result"]

# Dask's only category of a column whose categories it does not know.
_UNKNOWN = "__UNKNOWN_CATEGORIES__"


class DoesNotFitError(ValueError):
    """A table has other columns or types than its meta says."""


def fit_result(result: Any, meta: Any, index: Any) -> Any:
    """Make what run() returned a DataFrame or Series like `meta`.

    Parameters
    ----------
    result : DataFrame, list or tuple
    meta : DataFrame or Series
        A Series has one value for each row of the mini-batch.
    index : Index
        Of the mini-batch: of a list with one element for each row, too.

    Raises
    ------
    DoesNotFitError
    """
    import pandas as pd

    if meta.ndim == 1:
        return fit_column(_as_column(result, index).rename(meta.name), meta.dtype)
    frame = result if isinstance(result, pd.DataFrame) else _as_frame(result, meta)
    fitted = fit_frame(frame, meta)
    if not isinstance(result, pd.DataFrame) and len(fitted) == len(index):
        fitted = fitted.set_axis(index, axis=0)
    return fitted


def _as_column(result: Any, index: Any) -> pd.Series[Any]:
    import pandas as pd

    if len(result) != len(index):
        raise DoesNotFitError(
            f"{counted(len(result), 'value is', 'values are')} not one for each of "
            f"{counted(len(index), 'row')}, as a Series in meta says: return them all, or name the "
            "columns of a table in meta"
        )
    if not isinstance(result, pd.DataFrame):
        return pd.Series(list(result), index=index, dtype=None if len(result) else object)
    if result.shape[1] != 1:
        raise DoesNotFitError(
            f"a table with the columns {list(result.columns)} is not one column, as meta says"
        )
    column = result.iloc[:, 0]
    if column.index.equals(index):
        return column
    if column.index.equals(pd.RangeIndex(len(index))):
        return column.set_axis(index)
    raise DoesNotFitError("the table has another index than the rows of the mini-batch")


def _as_frame(elements: Sequence[Any], meta: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    if not len(elements):
        return meta.iloc[:0]
    rows = [row.to_dict() if isinstance(row, pd.Series) else row for row in elements]
    if all(isinstance(row, Mapping) for row in rows):
        return pd.DataFrame(rows)
    if all(isinstance(row, list | tuple) or getattr(row, "ndim", 0) == 1 for row in rows):
        widths = {len(row) for row in rows}
        if widths == {meta.shape[1]}:
            return pd.DataFrame([list(row) for row in rows], columns=meta.columns)
        raise DoesNotFitError(
            f"rows of {' and '.join(map(str, sorted(widths)))} values do not fit the columns "
            f"{list(meta.columns)} of meta"
        )
    if meta.shape[1] == 1:
        return pd.DataFrame({meta.columns[0]: pd.Series(list(elements))})
    raise DoesNotFitError(
        f"a list of {type(elements[0]).__name__} does not fit the columns {list(meta.columns)} of "
        "meta: return a DataFrame, or a dict or tuple for each row"
    )


def fit_frame(frame: pd.DataFrame, meta: pd.DataFrame) -> pd.DataFrame:
    """Give `frame` the columns of `meta`, in its order and with its types.

    Raises
    ------
    DoesNotFitError
        It has other columns, or values that these types do not hold.
    """
    import pandas as pd

    if list(frame.columns) != list(meta.columns):
        frame = frame[_checked_labels(frame, meta)]
    if frame.dtypes.equals(meta.dtypes):
        return frame
    columns = [
        fit_column(frame.iloc[:, position], dtype) for position, dtype in enumerate(meta.dtypes)
    ]
    fitted = pd.concat(columns, axis=1) if columns else frame.copy()
    fitted.columns = meta.columns
    return fitted


def _checked_labels(frame: pd.DataFrame, meta: pd.DataFrame) -> list[Any]:
    missing = [label for label in meta.columns if label not in frame.columns]
    extra = [label for label in frame.columns if label not in meta.columns]
    if missing or extra or len(frame.columns) != len(meta.columns):
        differences = [f"{label!r} is missing" for label in missing]
        differences += [f"{label!r} is not in meta" for label in extra]
        raise DoesNotFitError(
            f"the columns are {list(frame.columns)}, and meta says {list(meta.columns)}: "
            + (", ".join(differences) or "one is there twice")
        )
    return list(meta.columns)


def fit_column(column: pd.Series[Any], dtype: Any) -> pd.Series[Any]:
    """Give a column another type, if that holds all its values.

    Raises
    ------
    DoesNotFitError
    """
    import pandas as pd

    if column.dtype == dtype:
        return column
    wanted = _family(dtype)
    if isinstance(dtype, pd.CategoricalDtype) and list(dtype.categories) == [_UNKNOWN]:
        return column.astype("category")
    if wanted == "object" or not len(column):
        return column.astype(dtype)
    if column.isna().all():
        return _nulls(column, dtype)
    if wanted not in ("category", _family(column.dtype), _family_of_objects(column)):
        raise _does_not_fit(column, dtype)
    if wanted == "category" and not column.dropna().isin(dtype.categories).all():
        raise _does_not_fit(column, dtype)
    try:
        cast = column.astype(dtype)
    except (ValueError, TypeError, OverflowError) as error:
        raise _does_not_fit(column, dtype) from error
    if not (cast.isna() == column.isna()).all():
        raise _does_not_fit(column, dtype)
    to_whole_numbers = wanted == "number" and not pd.api.types.is_float_dtype(dtype)
    if to_whole_numbers and not (cast == column)[column.notna()].all():
        raise _does_not_fit(column, dtype)
    return cast


def _nulls(column: pd.Series[Any], dtype: Any) -> pd.Series[Any]:
    import pandas as pd

    try:
        return pd.Series([None] * len(column), index=column.index, name=column.name, dtype=dtype)
    except (ValueError, TypeError) as error:
        raise _does_not_fit(column, dtype) from error


def _does_not_fit(column: pd.Series[Any], dtype: Any) -> DoesNotFitError:
    missing = " with missing values" if column.isna().any() else ""
    return DoesNotFitError(
        f"the column {column.name!r} is {column.dtype}{missing}, and meta says {dtype}"
    )


def _family(dtype: Any) -> str:
    """Tell which types may be made of one another without a guess."""
    import pandas as pd

    kinds = pd.api.types
    if isinstance(dtype, pd.CategoricalDtype):
        return "category"
    if kinds.is_bool_dtype(dtype):
        return "bool"
    if kinds.is_numeric_dtype(dtype):
        return "number"
    if kinds.is_datetime64_any_dtype(dtype):
        return "time"
    if kinds.is_object_dtype(dtype):
        return "object"
    return "text" if kinds.is_string_dtype(dtype) else str(dtype)


def _family_of_objects(column: pd.Series[Any]) -> str:
    import pandas as pd

    if not pd.api.types.is_object_dtype(column.dtype):
        return ""
    inferred = pd.api.types.infer_dtype(column, skipna=True)
    families = {
        "string": "text",
        "boolean": "bool",
        "integer": "number",
        "floating": "number",
        "mixed-integer-float": "number",
        "datetime64": "time",
        "datetime": "time",
    }
    return families.get(inferred, "")
