"""Estimating equations in working units, so that one stopping rule means the same in any units and for any family.

    Σ_i D_i' V_i⁻¹ (y_i - μ_i) = 0,   V_i = φ A_i^½ R_i A_i^½,   D_i = ∂μ_i/∂β,   A_i = diag v(μ_ij) / n_ij

The unknowns are the distances from a first solution, that of independent rows, along columns that are orthonormal in
its weights; residuals are in units of their root mean square there. A Gaussian response with identity link has v = 1
and least squares as its first solution; others have Fisher's scoring. Means and residuals are those of one trial.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy.optimize import brentq

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.design.constant import centre_columns, constant_combination
from hierlmm.design.design import Design
from hierlmm.design.outcome import NORMAL
from hierlmm.errors import DataError
from hierlmm.families.family import Family
from hierlmm.frames import quote

SEE = "docs, page 'GEE'"
RANK_TOLERANCE = 1e-9
ROUNDS = 100
AT_AN_END = 1e-9
"""A row whose variance is below this share of the middle one has its mean at an end of the range."""
OPEN_ENDED = ("identity", "inverse", "sqrt")
"""Links whose linear predictors lead out of the range of a mean."""
SHAPES = (-12.0, 14.0)
"""Logarithms between which the shape of a negative binomial is looked for."""


@dataclass(frozen=True)
class Problem:
    """The equations as the solver gets them, rows sorted by subject.

    Attributes
    ----------
    y, offset : (N,)
        Response of one trial, and linear predictor at the first solution.
    columns : (N, p)
    root : (N,)
        √trials.
    family : Family
    psi : FloatArray
        What the variance function needs besides the mean.
    spread : float
        √φ of the first solution, the unit of residuals.
    weighted : (N, p)
        Orthonormal: the columns times the roots of the weights at the first solution.
    base : (p,)
        Coefficients of the first solution.
    back : (p, p)
        From working coefficients to distances of coefficients.
    """

    y: FloatArray
    offset: FloatArray
    columns: FloatArray
    root: FloatArray
    family: Family
    psi: FloatArray
    spread: float
    weighted: FloatArray
    base: FloatArray
    back: FloatArray

    def variance(self, mu: FloatArray) -> FloatArray:
        """Variance of one trial at means, in units of the first φ: (...) -> (...)."""
        return self.spread**2 * self.family.variance(mu, self.psi)


def problem_of(design: Design, order: IntArray, shape: float | None) -> Problem:
    """The equations of a design in working units.

    Parameters
    ----------
    design : Design
    order : (N,)
        Sorts the rows by subject.
    shape : float, optional
        Of a negative binomial; by default from the rows taken as independent.

    Raises
    ------
    DataError
        If X is rank deficient, the residuals vanish, or the first solution does not exist.
    """
    X = design.X if design.weights is None else np.sqrt(design.known_weights)[:, None] * design.X
    Q, back, constant = _orthonormal(X, order, design.coef)
    if design.is_gaussian:
        return _gaussian(design, order, Q, back, constant)
    family, n = design.family, design.trials[order]
    root, y, offset = np.sqrt(n), design.y[order] / n, design.offset[order]
    # A precision of zero: the variance of beta is μ(1 − μ), and what it is divided by is in φ.
    psi = np.full(len(family.dispersion), -np.inf if family.name == "beta" else 0.0)
    eta = family.function.link(family.first_mean(design.y[order], n))
    if family.name == "negative_binomial":
        gamma, psi = _shape(family, Q, offset, y, root, eta, shape)
    else:
        gamma = _scoring(family, psi, Q, offset, y, root, eta)
    eta = offset + Q @ gamma
    with np.errstate(over="ignore"):
        mu = family.mean(eta)
        # Rows of little exposure have small means without any coefficient growing.
        variance = family.variance(family.mean(Q @ gamma) if family.link == "log" else mu, psi)
    _refuse_ends(design, order, variance)
    sd = np.sqrt(family.variance(mu, psi)) / root
    spread = _size((y - mu) / sd, y / sd)
    weight = family.function.slope(eta) / (sd * spread)
    weighted, R = np.linalg.qr(weight[:, None] * Q)
    columns = weighted / weight[:, None]
    return Problem(y, eta, columns, root, family, psi, spread, weighted, back @ gamma, back @ np.linalg.inv(R))


def _gaussian(design: Design, order: IntArray, Q: FloatArray, back: FloatArray, constant: Any) -> Problem:
    """Least squares, of rows times the roots of their weights; the response is its residual."""
    response = (design.y - design.offset)[order]
    if design.weights is not None:
        response = np.sqrt(design.known_weights)[order] * response
    centre = 0.0 if constant is None else float(response.mean())
    shift = np.zeros(len(back)) if constant is None else centre * constant
    working, residual = _least_squares(Q, response - centre)
    size, zero = _size(residual, response), np.zeros(len(response))
    base = back @ working + shift
    return Problem(residual, zero, size * Q, zero + 1.0, NORMAL, np.zeros(1), size, Q, base, size * back)


def _orthonormal(X: FloatArray, order: IntArray, coef: tuple[str, ...]) -> tuple[FloatArray, FloatArray, Any]:
    """Orthonormal columns of the sorted rows, the matrix that leads back to coefficients, and the constant's share."""
    columns, constant = np.array(X.T[:, order]), constant_combination(X)
    B = np.eye(X.shape[1]) if constant is None else centre_columns(columns, constant)[0]
    Q, R = np.linalg.qr(columns.T)
    weak = np.flatnonzero(np.abs(np.diag(R)) <= RANK_TOLERANCE * np.sqrt(np.einsum("ij,ij->j", X, X)))
    if weak.size:
        received = f"coefficients {', '.join(coef)}"
        reason = f"the column {coef[weak[0]]!r} is zero or a linear combination of the columns before"
        remedy = "take the term out, merge levels that never occur together, or recode"
        raise DataError(received, reason, remedy, "docs, page 'Errors', section 'Rank deficiency'")
    return Q, np.linalg.inv(R @ B), constant


def _least_squares(Q: FloatArray, response: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Coefficients of orthonormal columns and residuals; a second round removes the rounding errors of the first."""
    working = Q.T @ response
    residual = response - Q @ working
    again = Q.T @ residual
    return working + again, residual - Q @ again


def _size(residual: FloatArray, response: FloatArray) -> float:
    """Root mean square of the residuals, which must be more than rounding."""
    size = float(np.sqrt(np.mean(residual**2)))
    if size <= 1e-14 * float(np.abs(response).max()):
        received = "a response that the coefficients reproduce exactly"
        reason = "no residual is left to estimate a variance from"
        raise DataError(received, reason, "check for a response computed from a covariate, or duplicated columns", SEE)
    return size


@np.errstate(over="ignore")  # too long a step has infinite means
def _scoring(
    family: Family,
    psi: FloatArray,
    Q: FloatArray,
    offset: FloatArray,
    y: FloatArray,
    root: FloatArray,
    eta: FloatArray,
) -> FloatArray:
    """Coefficients of the columns for independent rows, by Fisher's scoring from η; steps stay where means exist."""
    link = family.function
    for _ in range(ROUNDS):
        mu = link.inverse(eta)
        slope, sd = link.slope(eta), np.sqrt(family.variance(mu, psi)) / root
        weight = slope / sd
        found = np.linalg.lstsq(weight[:, None] * Q, weight * (eta - offset) + (y - mu) / sd, rcond=None)[0]
        step = offset + Q @ found - eta
        far = float(np.linalg.norm(weight * step))
        while not _possible(family, psi, y, link.inverse(eta + step)) and far > 0.0:
            step, far = 0.5 * step, 0.0 if np.abs(step).max() < 1e-12 else far
        eta = eta + step
        # The solver has its own, stricter rule; coefficients without end are seen before their weights underflow.
        if far <= 1e-8 * float(np.linalg.norm((y - mu) / sd)):
            break
    return found


def _possible(family: Family, psi: FloatArray, y: FloatArray, mu: FloatArray) -> bool:
    """Whether these are means of the family: the response's sign, and a variance."""
    variance = family.variance(mu, psi)
    return bool(np.all(np.isfinite(variance) & (variance > 0.0)) and (np.any(y < 0.0) or np.all(mu > 0.0)))


def _shape(
    family: Family,
    Q: FloatArray,
    offset: FloatArray,
    y: FloatArray,
    root: FloatArray,
    eta: FloatArray,
    given: float | None,
) -> tuple[FloatArray, FloatArray]:
    """Coefficients and log shape: as given, or where Pearson's χ² of independent rows is N − p."""
    if given is not None:
        psi = np.log([given])
        return _scoring(family, psi, Q, offset, y, root, eta), psi
    psi, wanted = np.log([1.0]), len(y) - Q.shape[1]
    for _ in range(ROUNDS):
        gamma = _scoring(family, psi, Q, offset, y, root, eta)
        eta = offset + Q @ gamma
        excess = partial(_excess, family, y, family.mean(eta), wanted)

        if excess(SHAPES[1]) <= 0.0:
            received = "a negative binomial by GEE with a shape from the data"
            reason = "the counts vary no more around their means than Poisson counts, so its shape has no estimate"
            raise DataError(received, reason, "use family='poisson', or state it: fit_gee(shape=10)", SEE)
        last, psi = psi, np.array([brentq(excess, *SHAPES, xtol=1e-13) if excess(SHAPES[0]) < 0.0 else SHAPES[0]])
        if abs(psi[0] - last[0]) < 1e-11:
            break
    return gamma, psi


def _excess(family: Family, y: FloatArray, mu: FloatArray, wanted: int, log_shape: float) -> float:
    """Pearson's χ² at a shape, less its degrees of freedom."""
    return float(np.sum((y - mu) ** 2 / family.variance(mu, np.array([log_shape])))) - wanted


def _refuse_ends(design: Design, order: IntArray, variance: FloatArray) -> None:
    """Refuse means at an end of their range: coefficients that go on without end."""
    ends = np.flatnonzero(~((variance > AT_AN_END * np.median(variance)) & np.isfinite(variance)))
    if not ends.size:
        return
    row, link = design.frame.index[order[ends[0]]], design.family.link
    received = f"fitted means at an end of their range in {ends.size} rows, first in row {row}"
    reason = "a combination of covariates separates these rows from the others (all successes, all failures or all "
    reason += "zeros), so that a coefficient grows without end"
    remedy = "take the term out or merge levels; a prior holds such a coefficient: model.fit()"
    if link in OPEN_ENDED or (link == "log" and design.family.name in ("bernoulli", "binomial")):
        reason = f"the {link} link does not keep means inside their range, and the best ones lie at its end"
        remedy = f"use a link that does: {type(design.family).__name__}() has the {design.family.links[0]} link"
    elif design.family.name == "gamma":
        largest = quote(design.frame.index[int(np.argmax(design.y))])
        received = (
            f"positive amounts whose fitted means differ by more than {AT_AN_END**-0.5:.0e} times (first row {row})"
        )
        reason = "an outlier of the response, or of a covariate, pulls a coefficient away from what the other rows say"
        remedy = f"look at the largest response (row {largest}) and at the covariates' ends; correct or drop such rows"
    raise DataError(received, reason, remedy, SEE)
