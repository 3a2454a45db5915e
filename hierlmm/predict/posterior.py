"""Predictions of a posterior: every draw gives a line, and the draws of all parameters give its uncertainty.

    line_s = x'β_s + z'b_s,    measurement_s ~ N(line_s, σ_s²)

with b_s the draw of a subject's own effects, zero, or a draw from N(0, D_s). Nothing is held fixed: the spread of the
draws is the uncertainty of β, b, D and σ together. Rows are taken in pieces, so that working arrays stay below
`rows.MEMORY_BUDGET` however many rows and draws there are.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.errors import NotAvailableError, SpecificationError
from hierlmm.fits.posterior import PosteriorNumbers, flattened
from hierlmm.predict import rows as rows_module
from hierlmm.predict.dynamic import further_measurement_draws
from hierlmm.predict.residual import correlated, draws_of_structure, residual_variance
from hierlmm.predict.rows import SEE, Rows, asked_rows, check_request, described, pieces, rows_of

ARRAYS = 5
"""Working arrays of one piece: lines, a term of theirs or noise, and what quantiles sort."""
POSTERIOR_CONTENTS = {
    "subject": "the posterior uncertainty of β and of the subject's b",
    "population": "the posterior uncertainty of β",
    "new_subject": "the posterior uncertainty of β and D and the spread of subjects",
    "marginal": "the posterior uncertainty of β",
}


def predict_rows(
    fit: PosteriorNumbers,
    newdata: Any = None,
    level: str = "subject",
    interval: str | None = None,
    ci: float = 0.95,
    seed: int | None = 0,
) -> pd.DataFrame:
    """See `PosteriorFit.predict`. Costs O(n S (p + q)) for n rows and S draws."""
    check_request(fit.design, level, interval, ci)
    detail = "" if interval is None else f", interval={interval!r}"
    if level == "subject":
        fit.need_effects(f"predict(level='subject'{detail})", draws=interval is not None)
    rows, estimate = asked_rows(fit, newdata, level)
    table, effects = pd.DataFrame({"estimate": estimate}, index=rows.index), bool(fit.design.term)
    if interval is None:
        return described(table, level, None, ci, "", "", effects)
    if level == "subject" and interval == "prediction" and correlated(fit):
        return further_measurement_draws(fit, rows, ci, newdata is None)
    beta = flattened(fit.draws("beta"))
    rng = np.random.default_rng(seed)
    spread = _spread(fit, level, interval)
    tails = [(1 - ci) / 2, (1 + ci) / 2]
    found = np.empty((3, len(estimate)))
    # One new subject for all rows: an interval is about one row, and needs no other draw of b for the next.
    b = _effects(fit, spread, rng, 1)
    for piece in pieces(len(estimate), ARRAYS * len(beta)):
        lines = _lines(fit, rows.take(piece), beta, b, interval, rng, spread)
        found[0, piece] = lines.std(axis=1, ddof=1)
        found[1:, piece] = np.quantile(lines, tails, axis=1, overwrite_input=True)
    table = table.assign(se=found[0], lower=found[1], upper=found[2])
    contains = POSTERIOR_CONTENTS[spread]
    if interval == "prediction":
        contains += ", and the residual variance"
    return described(table, level, interval, ci, contains, "equal-tailed quantiles of the posterior draws", effects)


def prediction_draws(
    fit: PosteriorNumbers,
    newdata: Any = None,
    level: str = "subject",
    interval: str | None = None,
    seed: int | None = 0,
) -> Any:
    """Draws behind the predictions, joint over rows.

    At level ``"new_subject"`` (and at ``"marginal"`` for measurements) rows of one label of the subject column are one
    new subject; without that column all rows are.

    Returns
    -------
    xarray.DataArray
        (chain, draw, obs), ``obs`` labelled by the index of the rows; of lines, or with ``interval="prediction"`` of
        measurements.

    Raises
    ------
    SpecificationError
        If the draws would take more than `hierlmm.predict.rows.MEMORY_BUDGET`.
    """
    check_request(fit.design, level, interval, 0.5)
    if level == "subject":
        fit.need_effects("predict(level='subject', kind='draws')", draws=True)
    if interval == "prediction" and correlated(fit):
        received = "kind='draws' of measurements with correlated residuals"
        reason = "joint draws of several measurements of a subject have correlated errors, which are not drawn here"
        raise NotAvailableError(received, reason, "use kind='summary', or draws of lines (interval=None)", SEE)
    rows = rows_of(fit.design, newdata, level)
    beta = flattened(fit.draws("beta"))
    spread = _spread(fit, level, interval)
    who, labels = new_subjects(fit, rows) if spread == "new_subject" else (rows.subject, 0)
    check_budget(len(rows.X), len(beta), labels * rows.Z.shape[1])
    rng = np.random.default_rng(seed)
    effects = _effects(fit, spread, rng, labels)
    rows = replace(rows, subject=who)
    lines = _lines(fit, rows, beta, effects, interval, rng, "subject" if labels else spread)
    return as_draws(fit, lines.T, rows, level, "measurement" if interval == "prediction" else "line")


def check_budget(n: int, draws: int, beside: int) -> None:
    """Refuse draws of n rows that would not fit into memory; ``beside``: numbers of each draw that they need besides.

    Raises
    ------
    SpecificationError
    """
    values = draws * (n + beside)
    if 8 * values * ARRAYS > rows_module.MEMORY_BUDGET:
        most = rows_module.MEMORY_BUDGET // (8 * ARRAYS * draws)
        raise SpecificationError(
            f"kind='draws' for {n} rows and {draws} draws",
            f"with what it takes to make them they need {8e-6 * values * ARRAYS:,.0f} MB, and the budget is "
            f"{1e-6 * rows_module.MEMORY_BUDGET:,.0f} MB",
            f"ask for at most about {most} rows at a time, or for the summary (kind='summary')",
            SEE,
        )


def as_draws(fit: PosteriorNumbers, values: FloatArray, rows: Rows, level: str, name: str) -> Any:
    """Draws of rows, (S, n), as an ``xarray.DataArray`` (chain, draw, obs)."""
    import xarray as xr

    chains, draws = fit.draw_shape
    return xr.DataArray(
        values.reshape(chains, draws, len(rows.X)),
        dims=("chain", "draw", "obs"),
        coords={"chain": np.arange(chains), "draw": np.arange(draws), "obs": rows.index.to_numpy()},
        name=name,
        attrs={"level": level},
    )


def _spread(fit: PosteriorNumbers, level: str, interval: str | None) -> str:
    """Which random effects a row has: at the marginal level a measurement has those of a subject drawn at random."""
    if not fit.design.term:
        return "marginal"
    if level == "marginal":
        return "new_subject" if interval == "prediction" else "marginal"
    return level


def _effects(fit: PosteriorNumbers, spread: str, rng: np.random.Generator, labels: int) -> FloatArray | None:
    """Random effects: the subjects' draws (S, J, q), draws for new subjects (S, labels, q), or none."""
    if spread == "subject":
        return flattened(fit.draws("b"))
    if spread != "new_subject":
        return None
    values, vectors = np.linalg.eigh(flattened(fit.draws("D")))
    noise = rng.standard_normal((len(values), labels, values.shape[1]))
    return (noise * np.sqrt(np.clip(values, 0.0, None))[:, None]) @ np.swapaxes(vectors, 1, 2)


def _lines(
    fit: PosteriorNumbers,
    rows: Rows,
    beta: FloatArray,
    effects: FloatArray | None,
    interval: str | None,
    rng: np.random.Generator,
    spread: str,
) -> FloatArray:
    """Draws of the lines, or of measurements, of the rows: (rows, S), a row's draws side by side."""
    lines = rows.X @ beta.T
    lines += rows.offset[:, None]
    if effects is not None:
        Z = rows_module.random_columns(fit.design, rows, effects)
        for k in range(effects.shape[2]):  # term by term: all at once would be q times as large
            own = effects[:, rows.subject, k].T if spread == "subject" else effects[:, 0, k]
            lines += Z[:, k, None] * own
    if interval == "prediction":
        noise = rng.standard_normal(lines.shape)
        sigma, structure = fit.draws("sigma").ravel(), draws_of_structure(fit)
        if structure is None:  # one variance for all rows: no (rows, S) array of it
            noise *= sigma
        else:
            noise *= np.sqrt(residual_variance(fit, rows.frame, sigma=sigma, structure=structure)).T
        lines += noise
    return lines


def new_subjects(fit: PosteriorNumbers, rows: Rows) -> tuple[IntArray, int]:
    """Which new subject each row belongs to, and how many there are: one for each label of the subject column."""
    name = fit.design.hierarchy.subject
    if name not in rows.frame.columns:
        return np.zeros(len(rows.X), dtype=np.intp), 1
    codes, labels = pd.factorize(rows.frame[name])
    return codes.astype(np.intp), len(labels)
