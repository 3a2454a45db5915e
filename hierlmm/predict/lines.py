"""Algebra that the predictions of all fits share.

A row w = (x, z) has a line whose error is w'e with e the joint error of (β, b), covariance C, so that

    Var(line) = w'C w,     Var(new measurement) = w'C w + σ_w²

C is block diagonal in (β, b) at b = 0 and for a new subject, and full for a subject in the data.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.compiled import compiled
from hierlmm.design.design import Design
from hierlmm.families.links import carried
from hierlmm.likelihood.degrees import satterthwaite_df
from hierlmm.likelihood.quantiles import t_quantile
from hierlmm.predict.rows import check_request, described, rows_of

CHUNK = 50_000
FEW = 20_000


def quadratic_forms(W: FloatArray, C: FloatArray) -> FloatArray:
    """``w'C_t w`` for every row and every matrix: (n, k), (T, k, k) -> (n, T)."""
    out = np.empty((len(W), len(C)))
    for start in range(0, len(W), CHUNK):
        rows = W[start : start + CHUNK]
        for t, matrix in enumerate(C):
            out[start : start + CHUNK, t] = np.einsum("ia,ia->i", rows @ matrix, rows)
    return out


def grouped_forms(W: FloatArray, C: FloatArray, group: IntArray) -> FloatArray:
    """``w'C[g, t] w`` with every row's own group: (n, k), (G, T, k, k), (n,) -> (n, T)."""
    if len(W) <= FEW:  # numpy: no second is lost to compiling
        return np.einsum("ia,itab,ib->it", W, C[group], W, optimize=True)
    out = np.empty((len(W), C.shape[1]))
    _grouped_forms(np.ascontiguousarray(W), np.ascontiguousarray(C), group, out)
    return out


@compiled()
def _grouped_forms(W, C, group, out) -> None:  # type: ignore[no-untyped-def]
    n, k = W.shape
    for i in range(n):
        g = group[i]
        for t in range(C.shape[1]):
            total = 0.0
            for a in range(k):
                s = 0.5 * C[g, t, a, a] * W[i, a]
                for b in range(a):
                    s += C[g, t, a, b] * W[i, b]
                total += s * W[i, a]
            out[i, t] = 2.0 * total


def interval_table(
    estimate: FloatArray, variance: FloatArray, ci: float, df: FloatArray, index: pd.Index
) -> pd.DataFrame:
    """Estimate ± t quantile · se as columns ``estimate``, ``se``, ``lower``, ``upper``."""
    se = np.sqrt(np.maximum(variance, 0.0))
    half = t_quantile(ci, df) * se
    columns = {"estimate": estimate, "se": se, "lower": estimate - half, "upper": estimate + half}
    return pd.DataFrame(columns, index=index)


def through_link(table: pd.DataFrame, back: Callable[[FloatArray], FloatArray]) -> pd.DataFrame:
    """An interval table of linear predictors as one of what `back` makes of them: ends transformed, se by its slope."""
    eta = table["estimate"].to_numpy()
    found = {"estimate": back(eta)}
    if "se" in table:
        step = 1e-6 * (1.0 + np.abs(eta))
        slope = np.abs(back(eta + step) - back(eta - step)) / (2.0 * step)
        ends = carried(back, table["lower"].to_numpy(), table["upper"].to_numpy())
        found |= {"se": slope * table["se"].to_numpy(), "lower": ends[0], "upper": ends[1]}
    return pd.DataFrame(found, index=table.index)


def quantile_note(df: FloatArray) -> str:
    """Say which quantile was used, and with how many degrees of freedom."""
    if not len(df) or np.all(np.isinf(df)):
        return "normal"
    low, high = float(df.min()), float(df.max())
    found = f"{low:z.1f}" if high - low < 0.05 else f"{low:z.1f} to {high:z.1f}"
    return f"Student's t with {found} degrees of freedom (Satterthwaite: the uncertainty of θ)"


def with_theta(variances: FloatArray, shifts: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Variance including the sensitivity of the estimate to θ, and its degrees of freedom.

    Parameters
    ----------
    variances : (n, 1 + r)
        Variance given θ, and its derivatives along unit directions of θ̂.
    shifts : (n, r)
        Derivatives of the estimate along the same directions; (n, 0) where they do not count.
    """
    given = variances[:, 0]
    return given + np.einsum("ij,ij->i", shifts, shifts), satterthwaite_df(given, variances[:, 1:])


def linear_prediction(
    design: Design,
    beta: FloatArray,
    beta_cov: FloatArray,
    newdata: Any = None,
    level: str = "marginal",
    interval: str | None = None,
    ci: float = 0.95,
    *,
    contains: str,
    back: Callable[[FloatArray], FloatArray] | None = None,
) -> pd.DataFrame:
    """Predict the mean from fixed effects alone: for fits without random effects (GEE).

    Parameters
    ----------
    design : Design
    beta : (p,), beta_cov : (p, p)
        Estimates, and their covariance (robust, if the fit's is).
    newdata, interval, ci
        As for `LikelihoodFit.predict`; the interval is for the mean, with normal quantiles.
    level : {"population", "marginal"}
        One and the same line here.
    contains : str
        What the interval contains, in words.
    back : callable, optional
        From linear predictors to means: (n,) -> (n,).
    """
    check_request(design, level, interval, ci, ("population", "marginal"))
    rows = rows_of(design, newdata, level)
    estimate = rows.line(beta)
    table = pd.DataFrame({"estimate": estimate}, index=rows.index)
    if interval is not None:
        variance = quadratic_forms(rows.X, beta_cov[None])[:, 0]
        table = interval_table(estimate, variance, ci, np.full(len(estimate), np.inf), rows.index)
    if back is not None:
        table = through_link(table, back)
    return described(table, level, interval, ci, contains, "normal", effects=False)
