"""Whether residuals and random effects look normal: their quantiles beside those of the standard normal.

Residuals around the subjects' lines and BLUPs are linear functions of the data at the fit's covariance parameters,

    r_i = M_i (y_i - X_i β̂),      Cov(r_i) = M_i (V_i - X_i C X_i') M_i',      C = (Σ X_i'V_i⁻¹X_i)⁻¹

with ``M_i = D Z_i'V_i⁻¹`` for b̂_i. Each is divided by its own SD, and all by their root mean square, since the
variance was fitted. The same is done with data simulated under the model, where the numbers of one subject are
correlated and the more so the fewer rows it has; the band that holds a share of whole curves follows, and needs no
independence.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from scipy.stats import norm

from hierlmm.arrays import FloatArray, IntArray, Rng
from hierlmm.design.questions import rows_by_subject
from hierlmm.diagnostics.curve_band import CurveBand, curve_band
from hierlmm.diagnostics.factor_residuals import factor_normality
from hierlmm.diagnostics.serial_residuals import SEE, LinearResiduals, linear_residuals
from hierlmm.drawing.style import evenly
from hierlmm.errors import NotAvailableError
from hierlmm.fits.base import Fit
from hierlmm.fits.components import zero_terms
from hierlmm.fits.multilevel import MultilevelNumbers

LONGEST = 2000
"""Most rows of a subject; the cost is cubic in them."""
MOST_SUBJECTS = 1000
"""More subjects than these are thinned out, evenly."""
RESIDUALS = "residuals"


@dataclass(frozen=True, eq=False)
class Normality:
    """Quantiles beside normal ones: of the residuals (level 1), of each random effect that varies (level 2).

    Attributes
    ----------
    bands : dict of str to CurveBand
        Over normal quantiles, the sorted standardised numbers.
    shown, total : int
        Subjects that were looked at, and all.
    """

    bands: dict[str, CurveBand]
    shown: int
    total: int


def normality(fit: Fit, levels: tuple[int, ...], ci: float, simulations: int, seed: int | None = 0) -> Normality:
    """Compare residuals (level 1) and random effects (level 2) with the normal distribution.

    Parameters
    ----------
    fit : Fit
    levels : tuple of {1, 2}
    ci : float
    simulations : int
    seed : int, optional
    """
    design, rng = fit.design, np.random.default_rng(seed)
    if design.has_several_factors:
        bands = factor_normality(cast("MultilevelNumbers", fit), levels, ci, simulations, rng, RESIDUALS)
        return Normality(bands, 0, 0)
    subjects = rows_by_subject(design)
    if (longest := max(map(len, subjects))) > LONGEST:
        received, reason = (
            f"a subject with {longest:,} rows",
            f"the cost is cubic in them (at most {LONGEST:,} are taken)",
        )
        raise NotAvailableError(received, reason, "fit and check shorter stretches of each subject", SEE)
    kept = evenly(len(subjects), MOST_SUBJECTS)
    linear = linear_residuals(fit, subjects, "subject" if fit.has_random_effects else "population", "normalized")
    y = [(design.y - design.offset)[rows, None] for rows in subjects]
    asked = {RESIDUALS: linear} if 1 in levels else {}
    if 2 in levels:
        zero = zero_terms(fit)
        terms = enumerate(design.term)
        asked |= {term: effects_of(fit, linear, subjects, k) for k, term in terms if term not in zero}
    bands = {name: _quantiles(part, y, kept, ci, simulations, rng) for name, part in asked.items()}
    return Normality(bands, len(kept), len(subjects))


def effects_of(fit: Fit, linear: LinearResiduals, subjects: list[IntArray], k: int) -> LinearResiduals:
    """The k-th random effect of every subject as a linear function of its rows, with its variance over samples."""
    D, M, S = fit._D_values, [], []
    for rows, root, x in zip(subjects, linear.root, linear.X, strict=True):
        half = np.linalg.solve(root, fit.design.Z[rows] @ D[:, [k]])
        own = np.linalg.solve(root.T, half).T
        M.append(own)
        S.append(own @ (root @ root.T - x @ linear.C @ x.T) @ own.T)
    return replace(linear, M=M, S=S)


def _quantiles(
    linear: LinearResiduals, y: list[FloatArray], kept: IntArray, ci: float, simulations: int, rng: Rng
) -> CurveBand:
    fields = (linear.X, linear.M, linear.root, linear.half, linear.S)
    X, M, root, half, S = ([own[j] for j in kept] for own in fields)
    others = set(range(len(linear.half))) - set(kept.tolist())
    rest = sum((linear.half[j].T @ linear.half[j] for j in sorted(others)), np.zeros_like(linear.C))
    part = replace(linear, X=X, M=M, root=root, half=half, S=S, rest=rest)
    ends = np.cumsum([len(M) for M in linear.M])
    rows = np.concatenate([np.arange(ends[j] - len(linear.M[j]), ends[j]) for j in kept])
    sd = np.sqrt(np.maximum(np.concatenate([np.diag(S) for S in part.S]), 0.0))
    known = sd > 1e-8 * sd.max()  # a row that the model fits exactly has no residual
    observed = _standardised(linear.residuals(y)[rows][known], sd[known])[:, 0]
    simulated = _standardised(part.simulated(simulations, rng)[known], sd[known])
    expected = np.asarray(norm.ppf((np.arange(len(observed)) + 0.5) / len(observed)))
    return curve_band(expected, np.sort(observed), np.sort(simulated, axis=0), ci)


def _standardised(values: FloatArray, sd: FloatArray) -> FloatArray:
    """Divided by their SDs, and each column by its root mean square."""
    scaled = values / sd[:, None]
    return np.asarray(scaled / np.sqrt(np.mean(scaled**2, axis=0)))
