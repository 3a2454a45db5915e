"""From whatever table the user has (pandas, or anything narwhals reads) to the pandas columns a model needs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
import pandas as pd

from hierlmm.errors import DataError, SpecificationError, closest, warn

MISSING_CHOICES = ("raise", "drop")
SEE = "docs, page 'Limitations', section 'Missing values'"
ROUNDING = 1e-12
"""Difference of two numbers, relative to the largest, that arithmetic makes of one."""
INT64_MAX = np.iinfo(np.int64).max


def is_number(values: Any) -> bool:
    """Whether a column holds numbers: truth values are none, and neither are categories, whatever they look like."""
    return pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)


def levels_in_use(column: pd.Series) -> list[Any]:
    """Distinct labels of a column: its categories in their order, without those that never occur, or sorted."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        return column.cat.remove_unused_categories().cat.categories.tolist()
    return sorted(column.unique())


def refuse_rounding(column: pd.Series, levels: Sequence[Any]) -> None:
    """Refuse numbers that are labels and differ by rounding alone, as 0.3 and 3 times 0.1: they are meant to be one.

    Raises
    ------
    DataError
    """
    if not all(isinstance(label, float) for label in levels) or len(levels) < 2:
        return
    steps = np.diff(levels)
    close = np.flatnonzero(steps <= ROUNDING * np.max(np.abs(levels)))
    if close.size:
        received = f"{column.name!r} with the values {levels[close[0]]!r} and {levels[close[0] + 1]!r}"
        reason = "they differ by a rounding error, and would count as two occasions or levels"
        raise DataError(received, reason, f"round the column: data[{column.name!r}] = data[{column.name!r}].round(6)")


def occasions_in_use(column: pd.Series) -> tuple[list[Any], bool]:
    """Distinct occasions of a column in their order, and whether the order is known.

    Categories stand in their order and numbers by size. Text is put in order by the numbers in it, "week -1" before
    "week 2" before "week 10", and so are categories in alphabetical order that nobody called ordered, which is what
    text becomes that is also a factor of the model. That is known to be the order of time where the labels differ in
    nothing but one number.
    """
    levels = levels_in_use(column)
    stated = isinstance(column.dtype, pd.CategoricalDtype) and bool(column.dtype.ordered)
    if stated or not all(isinstance(label, str) for label in levels) or levels != sorted(levels):
        return levels, True
    parts = {label: re.split(r"((?:(?<!\w)-)?\d+)", label) for label in levels}
    alike = len({tuple(own[::2]) for own in parts.values()}) <= 1 and all(len(own) == 3 for own in parts.values())
    ordered = sorted(levels, key=lambda label: [int(x) if k % 2 else x for k, x in enumerate(parts[label])])
    return ordered, alike


def column_names(data: Any) -> list[str]:
    """Return the column names of a table without converting it."""
    if isinstance(data, pd.DataFrame):
        if data.columns.nlevels > 1:
            received = f"a table whose column names have {data.columns.nlevels} levels"
            remedy = "flatten them, for example data.columns = ['_'.join(map(str, c)) for c in data.columns]"
            raise DataError(received, "a formula names a column by one name", remedy)
        return [str(c) for c in data.columns]
    return [str(c) for c in _narwhals_frame(data).columns]


def apart(names: Iterable[str], results: Iterable[str]) -> dict[str, str]:
    """Name variables of the data in a table that has columns of results: ``t`` beside a statistic ``t`` is ``at t``.

    Returns
    -------
    dict
        Variable -> its column; itself where no column of results, and no other variable, has the name.
    """
    names = list(names)
    taken, own = {*results, *names}, {}
    for name in names:
        shown = name
        while shown in results or (shown != name and shown in taken):
            shown = f"at {shown}"
        taken.add(shown)
        own[name] = shown
    return own


def to_pandas(data: Any, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Return a pandas copy of the wanted columns, in the order of the rows, keeping categories and their order.

    Numbers become int64 or float64 (nullable, Arrow-backed, 8-bit and object columns of numbers too, so that
    ``I(x**2)`` cannot overflow 8 bits). Integers may be labels and never pass through floats, which hold 53 bits: with
    missing values they are ``Int64`` until `complete_rows`, and beyond int64 they are uint64 or Python integers.

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
    received = f"a table with more than one column named {name!r}"
    raise DataError(received, "a formula could mean either of them", "rename or drop one of them")


def _narwhals_frame(data: Any) -> Any:
    import narwhals as nw
    from narwhals.exceptions import DuplicateError

    try:
        frame = nw.from_native(data)
        frame = frame.collect() if isinstance(frame, nw.LazyFrame) else frame
        _ = frame.columns
    except TypeError as error:
        received = f"data of type {type(data).__name__}"
        remedy = "pass a pandas, polars or pyarrow table (pd.DataFrame(...) makes one from a dictionary)"
        raise DataError(received, "it is not a table with named columns", remedy) from error
    except DuplicateError:
        names = [str(c) for c in getattr(data, "column_names", ["?"])]
        _refuse_duplicate(next((n for n in names if names.count(n) > 1), names[0]))
    return frame


def _series_to_pandas(series: Any) -> Any:
    import narwhals as nw

    if series.dtype in (nw.Categorical, nw.Enum):
        ordered = series.dtype == nw.Enum or getattr(getattr(series.to_native(), "type", None), "ordered", False)
        labels = series.cast(nw.String).to_list()
        return pd.Categorical(labels, categories=_categories(series), ordered=bool(ordered))
    if series.dtype == nw.String:
        return pd.Series(series.to_list(), dtype="str")
    if series.dtype in (nw.Int128, nw.UInt128, nw.Decimal, nw.Struct, nw.List, nw.Array):
        return pd.Series(series.to_list(), dtype=object)
    if series.dtype.is_integer() and series.null_count() > 0:
        return pd.arrays.IntegerArray(np.array(series.fill_null(0).to_numpy()), np.array(series.is_null().to_numpy()))
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
    if api.is_integer_dtype(dtype):
        return _plain_integers(column)
    if api.is_numeric_dtype(dtype) and "decimal" not in str(dtype):
        return pd.Series(column.to_numpy(np.float64, na_value=np.nan), column.index)
    return _plain_objects(column.astype(object)) if api.is_numeric_dtype(dtype) else column


def _plain_integers(column: pd.Series) -> pd.Series:
    """int64 where the values fit, uint64 where they do not; the nullable types of these with missing values."""
    unsigned = "uint" in str(column.dtype).lower()
    values = column.fillna(0) if column.hasnans else column  # astype("Int64") of an Arrow column would round
    exact = values.to_numpy(np.uint64 if unsigned else np.int64)
    if unsigned and not np.any(exact > INT64_MAX):
        exact = exact.astype(np.int64)
    if column.hasnans:
        return pd.Series(pd.arrays.IntegerArray(exact.copy(), column.isna().to_numpy(bool)), column.index)
    return pd.Series(exact, column.index)


def _plain_objects(column: pd.Series) -> pd.Series:
    kind = pd.api.types.infer_dtype(column, skipna=True)
    if kind in ("integer", "decimal", "mixed-integer-float"):
        return _whole_numbers(column)
    if kind == "floating":
        return column.astype(np.float64)
    if kind == "boolean" and not column.hasnans:
        return column.astype(bool)
    return column


def _whole_numbers(column: pd.Series) -> pd.Series:
    """Object integers (whole decimals and floats too) without rounding; floats if there is a fraction among them."""
    absent = column.isna().to_numpy()
    given = column.to_numpy()[~absent]
    if not all(_is_whole(v) for v in given):
        return pd.Series(pd.to_numeric(column.where(~absent, np.nan).map(float)), column.index)
    whole = [int(v) for v in given]
    low, high = min(whole, default=0), max(whole, default=0)
    fits = {"Int64": low >= -INT64_MAX - 1 and high <= INT64_MAX, "UInt64": low >= 0 and high <= 2 * INT64_MAX + 1}
    exact = next((dtype for dtype, yes in fits.items() if yes), None)
    values = np.zeros(len(column), dtype=object if exact is None else exact.lower())
    values[~absent] = whole
    if exact is not None:
        return pd.Series(pd.arrays.IntegerArray(values, absent) if absent.any() else values, column.index)
    values[absent] = None
    return pd.Series(values, column.index, dtype=object)


def _is_whole(value: Any) -> bool:
    try:
        return bool(value == int(value))
    except (OverflowError, ValueError):  # infinite, or no number
        return False


def require_columns(wanted: Iterable[str], present: Sequence[str], role: str, *, add: bool = False) -> None:
    """Raise a `DataError` that names the first column that is not there, and the nearest one that is.

    With ``add`` the table must have the column (new data for a fitted model): another one is no way out.
    """
    for name in wanted:
        if name not in present:
            added = f"add the column {name!r}, or rename the one that holds it (there are: {shorten(present)})"
            reason = f"the data have no column of this name.{closest(name, present)}"
            raise DataError(f"{role} {name!r}", reason, added if add else f"use one of the columns: {shorten(present)}")


def complete_rows(
    frame: pd.DataFrame, missing: str, groupings: Sequence[str] = (), *, new: bool = False
) -> tuple[pd.DataFrame, int]:
    """Refuse or drop rows with missing values, and say how many.

    Parameters
    ----------
    frame : pandas.DataFrame
        What `to_pandas` returned.
    missing : {"raise", "drop"}
    groupings : sequence of str
        The grouping columns; the warning counts the groups of which no row is left.
    new : bool
        Whether these are new data, for which there is no ``missing="drop"``.

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
        reason = "this is not a way to treat missing values"
        raise SpecificationError(f"missing={missing!r}", reason, "use missing='raise' or missing='drop'")
    for name in groupings:
        _refuse_rounded_labels(frame[name])
    absent = frame.isna()
    counts = absent.sum()
    counts = counts[counts > 0]
    if counts.empty:
        return _numpy_integers(frame), 0
    incomplete = absent.any(axis=1)
    n_dropped = int(incomplete.sum())
    refuse_missing(dict(counts), n_dropped, len(frame), "new" if new else missing)
    kept = frame.loc[~incomplete]
    lost = []
    for name in groupings:
        before, after = frame[name].nunique(), kept[name].nunique()
        if after < before:
            lost.append(f"{before - after} of {before} {'subjects' if len(groupings) == 1 else 'groups'} ({name!r})")
    tell_dropped(dict(counts), n_dropped, len(frame), lost)
    return _numpy_integers(kept), n_dropped


def _listed(counts: Mapping[Any, int]) -> str:
    return ", ".join(f"{name} ({count})" for name, count in counts.items())


def refuse_missing(counts: Mapping[Any, int], n_dropped: int, n_rows: int, missing: str) -> None:
    """Refuse incomplete rows, unless they may be dropped and others are left.

    Parameters
    ----------
    counts : mapping
        Column -> how many of its values are missing, where any is.
    n_dropped, n_rows : int
        Incomplete rows, and all rows.
    missing : {"raise", "drop", "new"}
        How they are treated; ``"new"`` in new data.

    Raises
    ------
    DataError
    """
    received = f"missing values in {_listed(counts)}"
    incomplete_rows = f"{n_dropped} of {n_rows} rows {'is' if n_dropped == 1 else 'are'} incomplete"
    if missing == "new":
        reason = f"{incomplete_rows}, and nothing can be predicted for them"
        remedy = "drop these rows first, for example data.dropna(subset=[...]), or fill in the values"
        raise DataError(f"new data with {received}", reason, remedy, SEE)
    if missing == "raise":
        drop = "pass missing='drop' to fit the complete rows (valid if values are missing at random given the model)"
        reason = f"{incomplete_rows} and cannot enter the likelihood"
        raise DataError(received, reason, f"{drop}, or impute them first", SEE)
    if n_dropped == n_rows:
        remedy = "check that the columns hold numbers, and that joins or pivots did not empty them"
        raise DataError(received, "no row is complete", remedy)


def tell_dropped(counts: Mapping[Any, int], n_dropped: int, n_rows: int, lost: Sequence[str]) -> None:
    """Warn of rows that were dropped, and of groups that are gone with them."""
    gone, were = f"{n_dropped} of {n_rows} rows", "was" if n_dropped == 1 else "were"
    if lost:
        them, were = "it" if n_dropped == 1 else "them", "were"
        gone += f", and with {them} {' and '.join(lost)},"
    warn(f"{gone} {were} dropped because values are missing in {_listed(counts)}.")


def _refuse_rounded_labels(column: pd.Series) -> None:
    """Refuse float labels beyond 53 bits: different subjects were merged when they became floats."""
    if pd.api.types.is_float_dtype(column.dtype) and bool((column.abs() > 2.0**53).any()):
        reason = "floats of this size are rounded, so that different subjects have the same label"
        remedy = "read the labels as text or as integers: dtype 'str' or 'Int64', also where values are missing"
        raise DataError(f"a subject column {column.name!r} of floats above 2**53", reason, remedy, SEE)


def _numpy_integers(frame: pd.DataFrame) -> pd.DataFrame:
    """int64 and uint64 for the nullable integers of complete rows."""
    nullable = {n: str(d).lower() for n, d in frame.dtypes.items() if str(d) in ("Int64", "UInt64")}
    return frame.astype(nullable) if nullable else frame


def shorten(values: Iterable[Any], limit: int = 8) -> str:
    """Join values for a message, cutting long lists."""
    items = [str(v) for v in (values.tolist() if isinstance(values, np.ndarray) else values)]
    more = f", ... ({len(items)} in all)" if len(items) > limit else ""
    return ", ".join(items[:limit]) + more


def quote(value: Any) -> str:
    """Write a label for a message: ``'308'`` or ``308``, never ``np.int64(308)``."""
    return repr(value.item() if isinstance(value, np.generic) else value)
