"""The rows of one subject at chosen times: which column is the time, what the others hold (see `implied.marginal`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from hierlmm.arrays import BoolArray, FloatArray
from hierlmm.design.design import Design
from hierlmm.design.formula import variables_of
from hierlmm.design.questions import time_variable
from hierlmm.equations.residual_symbols import spec_text
from hierlmm.errors import DataError, NotAvailableError, SpecificationError, closest
from hierlmm.fits.base import Fit
from hierlmm.frames import is_number, occasions_in_use, quote, shorten
from hierlmm.groups import group_order

SEE = "docs, page 'Implied marginal model'"
MOST_TIMES = 25


@dataclass(frozen=True)
class Grid:
    """Rows of one subject at the chosen times.

    ``index``: the times; ``x``: as numbers; ``frame``, ``Z``: columns and design of the random effects; ``place``:
    positions for a structure that counts rows; ``column``: time of every row of the data, as a number, NaN where it
    is none of ``index``'s labels; ``keep``: rows of the data with the values of ``at``; ``fitted``: expected values.
    """

    name: str
    index: pd.Index
    x: FloatArray
    frame: pd.DataFrame
    Z: FloatArray
    place: FloatArray
    at: dict[str, Any]
    column: FloatArray
    keep: BoolArray
    fitted: FloatArray | None


def check_request(fit: Any, at: Any, draws: int | None) -> None:
    """Refuse what is no fit, unusable arguments, and a variance that has no single V."""
    if not isinstance(fit, Fit):
        received = f"a {type(fit).__name__}"
        raise SpecificationError(received, "the covariance is that of a fit", "pass a fit: model.fit_reml()", SEE)
    if at is not None and not isinstance(at, Mapping):
        raise SpecificationError(f"at={at!r}", "it says which column has which value", "use at={'sex': 'Male'}", SEE)
    if draws is not None and (draws < 0 or 0 < draws < 20):
        reason = "quantiles of so few draws say nothing"
        raise SpecificationError(f"draws={draws!r}", reason, "use draws=1000, or 0 for no bands", SEE)
    variance = fit.design.residual_variance
    if variance is not None and variance.variable is None and fit.design.term and not fit.has_working_correlation:
        received = f"the marginal covariance under {spec_text(variance)} of the fitted value"
        reason = "the variance depends on each subject's own line, so that no single V holds for all"
        column = f"let it depend on a column, as in {type(variance).__name__}('time')"
        remedy = f"{column}; fit.marginal_covariance(subject) has the V_i of one subject"
        raise NotAvailableError(received, reason, remedy, SEE)


def relevant_columns(fit: Any) -> list[str]:
    """Columns that V depends on."""
    design: Design = fit.design
    columns = list(design.frame.columns)
    if fit.has_working_correlation:
        return [fit.time] if fit.time in columns else []
    factors = [factor for k in design.own_level1 for factor, _ in design.level1_columns[k]]
    found = [v for f in factors for v in variables_of(f, columns)] + list(design.residual_columns)
    found += [design.group] if design.group else []
    if design.residual_variance is not None and design.residual_variance.variable is None:
        found += [v for c in design.fixed_columns for f in c.term for v in variables_of(f, columns)]
    return list(dict.fromkeys(found))


def make_grid(fit: Any, times: Any, at: dict[str, Any], time: str | None) -> Grid:
    """Rows of one subject at the chosen times; see `implied_marginal` for the arguments and what is refused."""
    design: Design = fit.design
    relevant = relevant_columns(fit)
    name = _axis(fit, time, relevant)
    for key in at:
        received = f"at={{{key!r}: ...}}"
        if key == name:
            raise SpecificationError(received, "it is the time variable", "give its values as times=[...]", SEE)
        if key not in relevant:
            reason = f"V does not depend on it.{closest(key, relevant)}"
            remedy = f"use {shorten(map(repr, [v for v in relevant if v != name])) or 'no at='}"
            raise SpecificationError(received, reason, remedy, SEE)
    column, index, x = _times(fit, name, times)
    frame = pd.DataFrame({c: [design.frame[c].iloc[0]] * len(index) for c in design.frame.columns})
    frame = frame.astype(dict(design.frame.dtypes))
    if name in frame.columns:
        dtype = design.frame[name].dtype
        frame[name] = pd.Series(list(index), dtype=dtype if isinstance(dtype, pd.CategoricalDtype) else None)
    keep, used = np.ones(design.n_obs, dtype=bool), {}
    for variable in relevant:
        if variable == name:
            continue
        values, scalar = _carried(design, variable, name, column, x, at)
        frame[variable] = values
        if scalar:
            used[variable] = values[0]
            keep &= (design.frame[variable] == values[0]).to_numpy()
        elif variable in at:
            used[variable] = list(values)
            keep[:] = False
    new = design.new(frame, need_subject=False)
    place = _places(fit, name, column, x)
    fitted = None
    if design.residual_variance is not None and design.residual_variance.variable is None:
        fitted = new.offset + new.X @ fit.beta.to_numpy()
    return Grid(name, index, x, new.frame.assign(**frame[relevant]), new.Z, place, used, column, keep, fitted)


def _axis(fit: Any, time: str | None, relevant: list[str]) -> str:
    design: Design = fit.design
    columns = design.frame.columns
    if time is not None:
        if time not in columns:
            reason = f"the model keeps only the columns it uses ({', '.join(map(str, columns))})"
            raise DataError(f"time={time!r}", reason, "use one of these", SEE)
        return time
    own = fit._time
    found = time_variable(design)
    if found is not None and (own is None or own == found or found in relevant or own not in columns):
        return found
    if own is not None and own in columns:
        return str(own)
    if found is not None:
        return found
    variance = design.residual_variance
    if variance is not None and variance.variable is not None and not fit.has_working_correlation:
        column = design.frame[variance.variable]
        if pd.api.types.is_numeric_dtype(column.dtype) and column.groupby(design.subject_index).nunique().max() > 1:
            return variance.variable
    if candidates := [v for v in design.level1_variables() if v in relevant]:
        received = f"a model with level-1 variables {shorten(map(repr, design.level1_variables()))}"
        reason = "which of them is the time is not known"
        remedy = f"say time={quote(candidates[0])}"
        if others := candidates[1:]:
            remedy += f" (or {' or '.join(map(quote, others))}), and give the other columns of V by at={{...}}"
        raise SpecificationError(received, reason, remedy, SEE)
    return "row"


def _times(fit: Any, name: str, times: Any) -> tuple[FloatArray, pd.Index, FloatArray]:
    """Time of every row as a number; the chosen times, and these as numbers."""
    column, labels = _column(fit.design, name)
    if labels is not None:
        chosen = _occasions(name, labels, times)
        return column, pd.Index(chosen, name=name), np.array([float(labels.index(v)) for v in chosen])
    found = _numbers_in(column) if times is None else _numbers_given(name, times)
    whole = np.all(found == np.round(found)) and np.all(np.abs(found) < 2.0**53)
    return column, pd.Index(found.astype(int) if whole else found, name=name), found


def _column(design: Design, name: str) -> tuple[FloatArray, list[Any] | None]:
    """Time of every row as a number, and its labels where it is none."""
    if name not in design.frame.columns:
        order = group_order(design.subject_index)
        column = np.empty(design.n_obs)
        column[order] = np.concatenate([np.arange(1.0, n + 1.0) for n in design.rows_per_subject])
        return column, None
    series = design.frame[name]
    if is_number(series):
        return series.to_numpy(dtype=np.float64), None
    labels = occasions_in_use(series)[0]
    return series.map({label: k for k, label in enumerate(labels)}).to_numpy(dtype=np.float64), labels


def _occasions(name: str, labels: list[Any], times: Any) -> list[Any]:
    chosen = labels if times is None else list(_sequence(times))
    unknown = [v for v in chosen if v not in labels]
    if unknown:
        reason = "there is no such occasion in the data"
        raise DataError(f"{name} {quote(unknown[0])}", reason, f"use {shorten(map(quote, labels))}", SEE)
    return sorted(dict.fromkeys(chosen), key=labels.index)


def _numbers_in(column: FloatArray) -> FloatArray:
    """The times in the data, or equally spaced ones where there are many."""
    distinct = np.unique(column)
    if len(distinct) <= MOST_TIMES:
        return distinct
    spaced = np.linspace(distinct[0], distinct[-1], MOST_TIMES)
    return np.unique(np.round(spaced)) if np.all(distinct == np.round(distinct)) else spaced


def _numbers_given(name: str, times: Any) -> FloatArray:
    received, remedy = f"times={times!r}", "use times=[0, 1, 2]"
    try:
        found = np.asarray(_sequence(times), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(received, f"{name!r} is a number", "use for example times=[0, 1, 2]", SEE) from error
    if found.ndim != 1 or not len(found) or not np.all(np.isfinite(found)):
        raise DataError(received, "times are finite numbers, one or more", remedy, SEE)
    if len(np.unique(found)) < len(found):
        raise DataError(received, "a time occurs twice, and would be one measurement", "give every time once", SEE)
    return np.sort(found)


def _sequence(times: Any) -> Any:
    return times if isinstance(times, Iterable) and not isinstance(times, str) else [times]


def _carried(
    design: Design, variable: str, name: str, column: FloatArray, x: FloatArray, at: dict[str, Any]
) -> tuple[list[Any], bool]:
    """Values of a column at the times, and whether it is one value chosen (not a function of time)."""
    series = design.frame[variable]
    if variable in at:
        given = at[variable]
        if isinstance(given, Iterable) and not isinstance(given, (str, bytes)):
            values = list(given)
            if len(values) != len(x):
                received = f"at={{{variable!r}: {len(values)} values}} for {len(x)} times"
                reason = "it has one value, or one for each time"
                raise SpecificationError(received, reason, "give as many as there are times", SEE)
            return values, False
        known = list(pd.unique(series))
        if not pd.api.types.is_numeric_dtype(series.dtype) and given not in known:
            reason = f"there is no such value in the data.{closest(str(given), map(str, known))}"
            raise DataError(f"{variable} {quote(given)}", reason, f"use {shorten(map(quote, known))}", SEE)
        return [given] * len(x), True
    known = list(pd.unique(series))
    if len(known) == 1:
        return known * len(x), False
    if (found := _function_of_time(series, column, x)) is not None:
        return found, False
    reason = f"V depends on it, and it has {len(known)} values in the data that {name} does not determine"
    remedy = f"say at={{{variable!r}: {quote(known[0])}}}, or give one value for each time"
    raise SpecificationError(f"no value of {variable!r}", reason, remedy, SEE)


def _function_of_time(series: pd.Series, column: FloatArray, x: FloatArray) -> list[Any] | None:
    """Values at x of a column that is a function of time in the data: looked up, or on a straight line through it."""
    table = pd.DataFrame({"t": column, "v": pd.Series(series.to_numpy())})
    first = table.groupby("t", observed=True)["v"]
    if first.nunique().max() > 1:
        return None
    values = first.first()
    if np.all(np.isin(x, values.index.to_numpy())):
        return values.reindex(x).tolist()
    if not pd.api.types.is_numeric_dtype(series.dtype) or len(values) < 3:
        return None
    t, v = values.index.to_numpy(dtype=np.float64), values.to_numpy(dtype=np.float64)
    slope = (v[-1] - v[0]) / (t[-1] - t[0])
    if np.max(np.abs(v - v[0] - slope * (t - t[0]))) > 1e-9 * np.ptp(v):
        return None
    return list(v[0] + slope * (x - t[0]))


def _places(fit: Any, name: str, column: FloatArray, x: FloatArray) -> FloatArray:
    """Positions for a structure that counts rows: 0, 1, ... where every subject's rows are neighbouring times."""
    design: Design = fit.design
    spec = None if fit.has_working_correlation else design.residual
    if spec is None or not spec.counts_rows:
        return np.arange(len(x), dtype=np.float64)
    if name == "row":
        if np.any(x != np.round(x)):
            raise DataError("rows that are no whole numbers", "rows are counted", "use times=[1, 2, 3]", SEE)
        return x - 1.0
    distinct, code = np.unique(column, return_inverse=True)
    order = group_order(design.subject_index)
    own, step = design.subject_index[order], np.diff(code[order])
    if np.all(step[own[1:] == own[:-1]] == 1) and np.all(np.isin(x, distinct)):
        return np.searchsorted(distinct, x).astype(np.float64)
    received = f"correlations at chosen times of {name!r} under residual={spec_text(spec)}"
    reason = f"it counts the rows of a subject, and the values of {name!r} in the data do not say which row a time is"
    remedy = f"name the time in the structure, as in hl.AR1({name!r}) or hl.Exponential({name!r})"
    raise NotAvailableError(received, reason, remedy, SEE)
