"""From whatever table the user has (pandas, or anything narwhals reads) to the pandas columns a model needs."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

import numpy as np
import pandas as pd

from hierlmm.errors import DataError, FitWarning, SpecificationError, closest

__all__ = ["column_names", "complete_rows", "quote", "require_columns", "shorten", "to_pandas"]

MISSING_CHOICES = ("raise", "drop")


def column_names(data: Any) -> list[str]:
    """Return the column names of a table without converting it."""
    if isinstance(data, pd.DataFrame):
        if data.columns.nlevels > 1:
            raise DataError(
                f"a table whose column names have {data.columns.nlevels} levels",
                "a formula names a column by one name",
                "flatten them, for example data.columns = ['_'.join(map(str, c)) for c in data.columns]",
            )
        return [str(c) for c in data.columns]
    return [str(c) for c in _narwhals_frame(data).columns]


def to_pandas(data: Any, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Return a pandas copy of the wanted columns, in the order of the rows, keeping categories and their order.

    Numbers become int64 or float64 (nullable, Arrow-backed, 8-bit and object columns of numbers too, so that
    ``I(x**2)`` cannot overflow 8 bits and a missing value is always NaN).

    Parameters
    ----------
    data : pandas.DataFrame or any eager frame that narwhals reads (polars, pyarrow, modin, ...)
        The table.
    columns : sequence of str, optional
        Which columns; all of them by default.

    Raises
    ------
    DataError
        If ``data`` is no table, or has two columns of one name.
    """
    names = column_names(data)
    wanted = names if columns is None else list(columns)
    twice = [name for name in wanted if names.count(name) > 1]
    if twice:
        _refuse_duplicate(twice[0])
    if isinstance(data, pd.DataFrame):
        series = {name: data.iloc[:, names.index(name)] for name in wanted}
        return pd.DataFrame({name: _plain(column) for name, column in series.items()}, index=data.index)
    narwhal = _narwhals_frame(data)
    return pd.DataFrame({name: _plain(pd.Series(_series_to_pandas(narwhal[name]))) for name in wanted})


def _refuse_duplicate(name: str) -> NoReturn:
    raise DataError(
        f"a table with more than one column named {name!r}",
        "a formula could mean either of them",
        "rename or drop one of them",
    )


def _narwhals_frame(data: Any) -> Any:
    import narwhals as nw
    from narwhals.exceptions import DuplicateError

    try:
        frame = nw.from_native(data)
        frame = frame.collect() if isinstance(frame, nw.LazyFrame) else frame
        _ = frame.columns
    except TypeError as error:
        raise DataError(
            f"data of type {type(data).__name__}",
            "it is not a table with named columns",
            "pass a pandas, polars or pyarrow table (pd.DataFrame(...) makes one from a dictionary)",
        ) from error
    except DuplicateError:
        names = [str(c) for c in getattr(data, "column_names", ["?"])]
        _refuse_duplicate(next((n for n in names if names.count(n) > 1), names[0]))
    return frame


def _series_to_pandas(series: Any) -> Any:
    import narwhals as nw

    if series.dtype in (nw.Categorical, nw.Enum):
        return pd.Categorical(series.cast(nw.String).to_list(), categories=_categories(series))
    if series.dtype == nw.String:
        return pd.Series(series.to_list(), dtype="str")
    if series.dtype.is_numeric() and series.null_count() > 0:
        return series.cast(nw.Float64).fill_null(float("nan")).to_numpy()
    return series.to_numpy()


def _categories(series: Any) -> list[str]:
    """Levels in the order that the table gives them (an Enum, an Arrow dictionary), or sorted."""
    declared = getattr(series.dtype, "categories", None)
    native = series.to_native()
    if declared is None and hasattr(native, "unify_dictionaries") and native.num_chunks:
        declared = native.unify_dictionaries().chunk(0).dictionary.to_pylist()
    if declared is None:
        declared = sorted(c for c in series.unique().to_list() if c is not None)
    return [str(c) for c in declared]


def _plain(column: pd.Series) -> pd.Series:
    """Give numbers and truth values numpy types; everything else stays as it is."""
    api, dtype = pd.api.types, column.dtype
    if dtype in (np.int64, np.float64) or isinstance(dtype, pd.CategoricalDtype) or api.is_complex_dtype(dtype):
        return column
    if api.is_object_dtype(dtype):
        return _plain_objects(column)
    if api.is_bool_dtype(dtype):
        return column.astype(object if column.hasnans else bool)
    if api.is_integer_dtype(dtype) and dtype != np.uint64 and not column.hasnans:
        return column.astype(np.int64)
    if api.is_numeric_dtype(dtype):
        return pd.Series(column.to_numpy(np.float64, na_value=np.nan), column.index)
    return column


def _plain_objects(column: pd.Series) -> pd.Series:
    kind = pd.api.types.infer_dtype(column, skipna=True)
    if kind == "integer" and not column.hasnans:
        return column.astype(np.int64)
    if kind in ("integer", "floating", "mixed-integer-float", "decimal"):
        return column.astype(np.float64)
    if kind == "boolean" and not column.hasnans:
        return column.astype(bool)
    return column


def require_columns(wanted: Iterable[str], present: Sequence[str], role: str) -> None:
    """Raise a `DataError` that names the first column that is not there, and the nearest one that is."""
    for name in wanted:
        if name not in present:
            raise DataError(
                f"{role} {name!r}",
                f"the data have no column of this name.{closest(name, present)}",
                f"use one of the columns: {shorten(present)}",
            )


def complete_rows(frame: pd.DataFrame, missing: str) -> tuple[pd.DataFrame, int]:
    """Refuse or drop rows with missing values, and say how many.

    Returns
    -------
    frame, n_dropped : (pandas.DataFrame, int)
        The complete rows with their original index, and the number of rows left out.

    Raises
    ------
    DataError
        If values are missing and ``missing="raise"``, or if no complete row is left.
    """
    if missing not in MISSING_CHOICES:
        raise SpecificationError(
            f"missing={missing!r}", "this is not a way to treat missing values", "use missing='raise' or missing='drop'"
        )
    absent = frame.isna()
    counts = absent.sum()
    counts = counts[counts > 0]
    if counts.empty:
        return frame, 0
    incomplete = absent.any(axis=1)
    n_dropped = int(incomplete.sum())
    listing = ", ".join(f"{name} ({count})" for name, count in counts.items())
    if missing == "raise":
        raise DataError(
            f"missing values in {listing}",
            f"{n_dropped} of {len(frame)} rows are incomplete and cannot enter the likelihood",
            "pass missing='drop' to fit the complete rows (valid if values are missing at random given the model), "
            "or impute them first",
            "docs, page 'Limitations', section 'Missing values'",
        )
    if n_dropped == len(frame):
        raise DataError(
            f"missing values in {listing}",
            "no row is complete",
            "check that the columns hold numbers, and that joins or pivots did not empty them",
        )
    warnings.warn(
        f"{n_dropped} of {len(frame)} rows were dropped because values are missing in {listing}.",
        FitWarning,
        stacklevel=5,
    )
    return frame.loc[~incomplete], n_dropped


def shorten(values: Iterable[Any], limit: int = 8) -> str:
    """Join values for a message, cutting long lists."""
    items = [str(v) for v in (values.tolist() if isinstance(values, np.ndarray) else values)]
    more = f", ... ({len(items)} in all)" if len(items) > limit else ""
    return ", ".join(items[:limit]) + more


def quote(value: Any) -> str:
    """Write a label for a message: ``'308'`` or ``308``, never ``np.int64(308)``."""
    return repr(value.item() if isinstance(value, np.generic) else value)
