"""V, its draws and its empirical counterpart at chosen times (see `hierlmm.teaching.implied_marginal`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.covariance.estimate import ResidualEstimate
from hierlmm.design.design import Design
from hierlmm.design.formula import variables_of
from hierlmm.equations.residual_symbols import spec_text
from hierlmm.errors import DataError, NotAvailableError, SpecificationError, closest
from hierlmm.fits.base import Fit
from hierlmm.frames import quote, shorten
from hierlmm.predict.history import time_variable

__all__ = [
    "Grid",
    "check_request",
    "covariance_at",
    "covariance_draws",
    "describe_covariance",
    "empirical_moments",
    "is_posterior",
    "make_grid",
    "relevant_columns",
]

FloatArray = NDArray[np.float64]
SEE = "docs, page 'Implied marginal model'"
MOST_TIMES, LIKELIHOOD_DRAWS, POSTERIOR_DRAWS = 25, 1000, 2000
FEWEST = 3
"""Rows or pairs behind an empirical variance or correlation."""


def describe_covariance(fit: Any) -> str:
    """The covariance model in a few words: ``random Intercept, time + AR1('visit')``."""
    design = fit.design
    if fit.estimator == "GEE":
        return f"{fit.correlation} working correlation"
    parts = [f"random {', '.join(design.term)}"] if design.term else []
    parts += [spec_text(s) for s in (design.residual, design.residual_variance) if s is not None]
    words = " + ".join(parts) if parts else "independence"
    return words + (f" ({design.covariance} D)" if len(design.term) > 1 and design.covariance != "unstructured" else "")


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
    keep: NDArray[np.bool_]
    fitted: FloatArray | None


def check_request(fit: Any, at: Any, ci: float, draws: int | None) -> None:
    """Refuse what is no fit, unusable arguments, and a variance that has no single V."""
    if not isinstance(fit, Fit):
        raise SpecificationError(
            f"a {type(fit).__name__}", "the covariance is that of a fit", "pass a fit: model.fit_reml()", SEE
        )
    if at is not None and not isinstance(at, Mapping):
        raise SpecificationError(f"at={at!r}", "it says which column has which value", "use at={'sex': 'Male'}", SEE)
    if not 0.0 < ci < 1.0:
        raise SpecificationError(
            f"ci={ci!r}", "the probability of a band lies between 0 and 1", "use ci=0.95 for 95 %", SEE
        )
    if draws is not None and (draws < 0 or 0 < draws < 20):
        raise SpecificationError(
            f"draws={draws!r}", "quantiles of so few draws say nothing", "use draws=1000, or 0 for no bands", SEE
        )
    variance = fit.design.residual_variance
    if variance is not None and variance.variable is None and fit.design.term and fit.estimator != "GEE":
        raise NotAvailableError(
            f"the marginal covariance under {spec_text(variance)} of the fitted value",
            "the variance depends on each subject's own line, so that no single V holds for all",
            f"let it depend on a column, as in {type(variance).__name__}('time'); fit.marginal_covariance(subject) has "
            "the V_i of one subject",
            SEE,
        )


def relevant_columns(fit: Any) -> list[str]:
    """Columns that V depends on."""
    design: Design = fit.design
    columns = list(design.frame.columns)
    if fit.estimator == "GEE":
        return [fit.time] if fit.time in columns else []
    factors = [factor for k in design.term_level1 for factor, _ in design.level1_columns[k]]
    found = [v for f in factors for v in variables_of(f, columns)] + list(design.residual_columns)
    if design.residual_variance is not None and design.residual_variance.variable is None:
        found += [v for c in design.fixed_columns for f in c.term for v in variables_of(f, columns)]
    return list(dict.fromkeys(found))


def make_grid(fit: Any, times: Any, at: dict[str, Any], time: str | None) -> Grid:
    """Rows of one subject at the chosen times; see `implied_marginal` for the arguments and what is refused."""
    design: Design = fit.design
    relevant = relevant_columns(fit)
    name = _axis(fit, time, relevant)
    for key in at:
        if key == name or key not in relevant:
            raise SpecificationError(
                f"at={{{key!r}: ...}}",
                "it is the time variable" if key == name else f"V does not depend on it.{closest(key, relevant)}",
                "give its values as times=[...]"
                if key == name
                else f"use {shorten(map(repr, [v for v in relevant if v != name])) or 'no at='}",
                SEE,
            )
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
            raise DataError(
                f"time={time!r}",
                f"the model keeps only the columns it uses ({', '.join(map(str, columns))})",
                "use one of these",
                SEE,
            )
        return time
    structure = design.residual
    own = fit.time if fit.estimator == "GEE" else (structure.time if structure is not None else None)
    found = time_variable(design)
    if found is not None and (own is None or own == found or found in relevant or own not in columns):
        return found
    if own is not None and own in columns:
        return str(own)
    if found is not None:
        return found
    variance = design.residual_variance
    if variance is not None and variance.variable is not None and fit.estimator != "GEE":
        column = design.frame[variance.variable]
        if pd.api.types.is_numeric_dtype(column.dtype) and column.groupby(design.subject_index).nunique().max() > 1:
            return variance.variable
    if any(v in relevant for v in design.level1_variables()):
        raise SpecificationError(
            f"a model with level-1 variables {shorten(map(repr, design.level1_variables()))}",
            "which of them is the time is not known",
            "say time='...', and give the others by at={...}",
            SEE,
        )
    return "row"


def _times(fit: Any, name: str, times: Any) -> tuple[FloatArray, pd.Index, FloatArray]:
    """Time of every row as a number; the chosen times, and these as numbers."""
    design: Design = fit.design
    if name not in design.frame.columns:
        order = np.argsort(design.subject_index, kind="stable")
        column = np.empty(design.n_obs)
        column[order] = np.concatenate([np.arange(1.0, n + 1.0) for n in design.rows_per_subject])
        labels = None
    else:
        series = design.frame[name]
        labels = _labels(series)
        column = (
            series.to_numpy(dtype=np.float64)
            if labels is None
            else np.asarray(pd.Categorical(series, categories=labels).codes, dtype=np.float64)
        )
    if labels is not None:
        chosen = labels if times is None else list(_sequence(times))
        unknown = [v for v in chosen if v not in labels]
        if unknown:
            raise DataError(
                f"{name} {quote(unknown[0])}",
                "there is no such occasion in the data",
                f"use {shorten(map(quote, labels))}",
                SEE,
            )
        chosen = sorted(dict.fromkeys(chosen), key=labels.index)
        return column, pd.Index(chosen, name=name), np.array([float(labels.index(v)) for v in chosen])
    distinct = np.unique(column)
    if times is None:
        found = distinct
        if len(distinct) > MOST_TIMES:
            found = np.linspace(distinct[0], distinct[-1], MOST_TIMES)
            if np.all(distinct == np.round(distinct)):
                found = np.unique(np.round(found))
    else:
        try:
            found = np.asarray(_sequence(times), dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise DataError(
                f"times={times!r}", f"{name!r} is a number", "use for example times=[0, 1, 2]", SEE
            ) from error
        if found.ndim != 1 or not len(found) or not np.all(np.isfinite(found)):
            raise DataError(f"times={times!r}", "times are finite numbers, one or more", "use times=[0, 1, 2]", SEE)
        if len(np.unique(found)) < len(found):
            raise DataError(
                f"times={times!r}", "a time occurs twice, and would be one measurement", "give every time once", SEE
            )
        found = np.sort(found)
    whole = np.all(found == np.round(found))
    return column, pd.Index(found.astype(int) if whole and np.all(np.abs(found) < 2.0**53) else found, name=name), found


def _sequence(times: Any) -> Any:
    return times if isinstance(times, Iterable) and not isinstance(times, str) else [times]


def _labels(series: pd.Series) -> list[Any] | None:
    """Labels of a time that is no number, in order; None for numbers."""
    if isinstance(series.dtype, pd.CategoricalDtype):
        return [c for c in series.cat.categories if (series == c).any()]
    if pd.api.types.is_numeric_dtype(series.dtype) and not pd.api.types.is_bool_dtype(series.dtype):
        return None
    return sorted(series.unique())


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
                raise SpecificationError(
                    f"at={{{variable!r}: {len(values)} values}} for {len(x)} times",
                    "it has one value, or one for each time",
                    "give as many as there are times",
                    SEE,
                )
            return values, False
        known = list(pd.unique(series))
        if not pd.api.types.is_numeric_dtype(series.dtype) and given not in known:
            raise DataError(
                f"{variable} {quote(given)}",
                f"there is no such value in the data.{closest(str(given), map(str, known))}",
                f"use {shorten(map(quote, known))}",
                SEE,
            )
        return [given] * len(x), True
    known = list(pd.unique(series))
    if len(known) == 1:
        return known * len(x), False
    if (found := _function_of_time(series, column, x)) is not None:
        return found, False
    raise SpecificationError(
        f"no value of {variable!r}",
        f"V depends on it, and it has {len(known)} values in the data that {name} does not determine",
        f"say at={{{variable!r}: {quote(known[0])}}}, or give one value for each time",
        SEE,
    )


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
    spec = None if fit.estimator == "GEE" else design.residual
    if spec is None or not spec.counts_rows:
        return np.arange(len(x), dtype=np.float64)
    if name == "row":
        if np.any(x != np.round(x)):
            raise DataError("rows that are no whole numbers", "rows are counted", "use times=[1, 2, 3]", SEE)
        return x - 1.0
    distinct, code = np.unique(column, return_inverse=True)
    order = np.argsort(design.subject_index, kind="stable")
    own, step = design.subject_index[order], np.diff(code[order])
    if np.all(step[own[1:] == own[:-1]] == 1) and np.all(np.isin(x, distinct)):
        return np.searchsorted(distinct, x).astype(np.float64)
    raise NotAvailableError(
        f"correlations at chosen times of {name!r} under residual={spec_text(spec)}",
        f"it counts the rows of a subject, and the values of {name!r} in the data do not say which row a time is",
        f"name the time in the structure, as in hl.AR1({name!r}) or hl.Exponential({name!r})",
        SEE,
    )


# --- V ------------------------------------------------------------------------------------------------------------


def _residual(structure: ResidualEstimate | None, grid: Grid) -> FloatArray:
    """Σ / σ² at the grid."""
    n = len(grid.x)
    if structure is None:
        return np.eye(n)
    R = _correlations(structure, grid)
    g = structure.sd_ratio(grid.frame, grid.fitted)
    return R * g[:, None] * g


def _correlations(structure: ResidualEstimate, grid: Grid) -> FloatArray:
    if structure.correlation is None:
        return np.eye(len(grid.x))
    spec = structure.correlation.spec
    if spec.time is None:
        return structure.at(grid.place)
    values = grid.frame[spec.time]
    if spec.integer and np.any(values.to_numpy(dtype=np.float64) != np.round(values.to_numpy(dtype=np.float64))):
        raise DataError(
            f"{spec_text(spec)} at values of {spec.time!r} that are no whole numbers",
            "it counts occasions",
            "use whole numbers, or a structure in continuous time",
            SEE,
        )
    try:
        return structure.correlations(grid.frame)
    except IndexError as error:
        raise DataError(
            f"{spec_text(spec)} and lags beyond those in the data",
            "it has one correlation for each lag that was seen",
            "use times within the span of the data",
            SEE,
        ) from error


def covariance_at(fit: Any, grid: Grid) -> FloatArray:
    """V at the estimates, (n, n)."""
    if fit.estimator == "GEE":
        return fit.scale * _working(fit, grid)
    V = fit.sigma**2 * _residual(fit.residual_estimate, grid)
    return V + grid.Z @ fit._D_values @ grid.Z.T if grid.Z.shape[1] else V


def _working(fit: Any, grid: Grid) -> FloatArray:
    estimate = fit.estimate
    position = grid.x
    if fit.correlation == "ar1":
        position = grid.x / estimate.spacing
    elif fit.correlation == "unstructured":
        known = [str(p) for p in estimate.positions]
        wanted = [str(v) for v in grid.index]
        numbers = {float(p): k for k, p in enumerate(estimate.positions)} if _all_numbers(estimate.positions) else {}
        codes = (
            [numbers.get(float(v), -1) for v in grid.x]
            if numbers
            else [known.index(v) if v in known else -1 for v in wanted]
        )
        if min(codes) < 0:
            raise DataError(
                f"{grid.name} {wanted[codes.index(-1)]}",
                "this occasion was not in the fitted data, so its correlations are unknown",
                f"use {shorten(known)}",
                SEE,
            )
        position = np.array(codes, dtype=np.float64)
    if fit.correlation in ("ar1", "unstructured") and fit.time != grid.name:
        raise NotAvailableError(
            f"the working correlation by {grid.name}",
            f"its time is {fit.time!r}, which is no column of the model",
            "put the time into the model's formula, or use fit.working_correlation(subject)",
            SEE,
        )
    return estimate.moments.matrix(position)


def _all_numbers(values: Iterable[Any]) -> bool:
    return all(isinstance(v, (int, float, np.integer, np.floating)) for v in values)


def is_posterior(fit: Any) -> bool:
    """Whether the fit holds posterior draws."""
    return getattr(fit, "datatree", None) is not None


def covariance_draws(
    fit: Any, grid: Grid, ci: float, draws: int | None, seed: int | None
) -> tuple[FloatArray | None, str]:
    """Draws of V (S, n, n), and what the bands are."""
    if fit.estimator == "GEE":
        return None, "No bands: GEE estimates a working covariance, without a distribution of its parameters."
    posterior = is_posterior(fit)
    if draws == 0 and not posterior:
        return None, "No bands (draws=0)."
    if posterior:
        parameters = _posterior_parameters(fit, draws if draws else POSTERIOR_DRAWS)
        note = f"Posterior means; bands: {100 * ci:g} %, pointwise and equal-tailed."
    else:
        parameters, note = _large_sample_parameters(fit, LIKELIHOOD_DRAWS if draws is None else draws, ci, seed)
    D, sigma, eta = parameters
    structure = fit.residual_estimate
    if structure is None:
        Sigma = np.broadcast_to(_residual(None, grid), (len(sigma), len(grid.x), len(grid.x)))
    else:
        Sigma = np.array([_residual(dataclasses.replace(structure, eta=row), grid) for row in eta])
    V = sigma[:, None, None] ** 2 * Sigma
    if grid.Z.shape[1]:
        V = V + grid.Z @ D @ grid.Z.T
    return V, note


def _posterior_parameters(fit: Any, size: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    sigma = fit.draws("sigma").reshape(-1)
    kept = np.unique(np.linspace(0, len(sigma) - 1, min(size, len(sigma))).round().astype(int))
    q = len(fit.design.term)
    D = fit.draws("D").reshape(len(sigma), q, q)[kept] if q else np.empty((len(kept), 0, 0))
    eta = fit.residual_draws()
    return D, sigma[kept], eta.reshape(len(sigma), eta.shape[-1])[kept]


def _large_sample_parameters(
    fit: Any, size: int, ci: float, seed: int | None
) -> tuple[tuple[FloatArray, FloatArray, FloatArray], str]:
    large = fit.large_sample
    sample = large.sample(size, np.random.default_rng(seed))
    D, sigma = large.split_draws(sample)
    first = fit.criterion_function.structure.n_parameters
    note = (
        f"Bands: {100 * ci:g} %, pointwise, from {size} draws of the covariance parameters' normal approximation on "
        "the unconstrained scale."
    )
    if fit.is_singular:
        note += (
            " D is singular at the optimum: directions without variance are held at zero, so the bands are too narrow."
        )
    if large.flat.shape[1]:
        note += " The likelihood is flat in a residual parameter: its uncertainty is not in the bands."
    return (D, sigma, sample[:, first:-1]), note


# --- what the data show -------------------------------------------------------------------------------------------


def empirical_moments(fit: Any, grid: Grid) -> tuple[pd.DataFrame | None, pd.DataFrame | None]:
    """Empirical variances by time and correlations by pair of times, of residuals around the population line."""
    design: Design = fit.design
    rows = np.flatnonzero(grid.keep)
    if not len(rows):
        return None, None
    r = design.y[rows] - fit.fitted("population").to_numpy()[rows]
    X = design.X[rows]
    C = fit.covariance("naive").to_numpy() if fit.estimator == "GEE" else fit.beta_cov.to_numpy()
    square = r**2 + np.einsum("ia,ab,ib->i", X, C, X)
    t = grid.column[rows]
    distinct, code = np.unique(t, return_inverse=True)
    few = len(distinct) <= MOST_TIMES
    if not few:
        cuts = np.unique(np.quantile(t, np.linspace(0.0, 1.0, 11)[1:-1]))
        code = np.searchsorted(cuts, t, side="left")
    table = pd.DataFrame({"t": t, "v": square}).groupby(code).agg(t=("t", "mean"), n=("v", "size"), v=("v", "mean"))
    table = table[table["n"] >= FEWEST].reset_index(drop=True)
    table.columns = pd.Index([grid.name, "n", "variance"])
    if not few or len(distinct) > 12:
        return (table if len(table) else None), None
    return (table if len(table) else None), _empirical_correlation(design, grid, rows, r, X, C, code, distinct)


def _empirical_correlation(
    design: Design,
    grid: Grid,
    rows: NDArray[np.intp],
    r: FloatArray,
    X: FloatArray,
    C: FloatArray,
    code: NDArray[Any],
    distinct: FloatArray,
) -> pd.DataFrame | None:
    """Correlations of pairs of times, where no subject has a time twice."""
    owner = design.subject_index[rows]
    if pd.DataFrame({"s": owner, "t": code}).duplicated().any():
        return None
    shape = (design.n_subjects, len(distinct))
    seen, value, half = np.zeros(shape), np.zeros(shape), np.zeros((*shape, X.shape[1]))
    seen[owner, code], value[owner, code], half[owner, code] = 1.0, r, X
    n = seen.T @ seen
    total = value.T @ value + np.einsum("jsa,ab,jtb->st", half, C, half, optimize=True)
    with np.errstate(invalid="ignore"):
        cov = total / n
    sd = np.sqrt(np.diag(cov))
    found = [
        (distinct[i], distinct[j], distinct[j] - distinct[i], int(n[i, j]), cov[i, j] / (sd[i] * sd[j]))
        for i in range(len(distinct))
        for j in range(i + 1, len(distinct))
        if n[i, j] >= FEWEST
    ]
    if not found:
        return None
    return pd.DataFrame(found, columns=[grid.name, f"{grid.name}_bis", "lag", "n", "correlation"])
