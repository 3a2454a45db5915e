"""Generalised estimating equations: from the arrays of a design to estimates.

With the mean ``g(μ_ij) = x_ij'β``, its derivatives ``D_i``, the working covariance ``V_i = φ A_i^½ R_i A_i^½`` of
subject i and ``A_i`` the variances that the family gives to the means, the coefficients solve
``Σ D_i' V_i⁻¹ (y_i − μ_i) = 0``, and

    naive           B = (Σ D_i' V_i⁻¹ D_i)⁻¹
    robust          B [ Σ D_i' V_i⁻¹ r_i r_i' V_i⁻¹ D_i ] B,   r_i = y_i − μ_i            (Liang and Zeger 1986)
    bias reduced    the same with (I − H_i)⁻¹ r_i for r_i,   H_i = D_i B D_i' V_i⁻¹      (Mancl and DeRouen 2001)

A Gaussian response with identity link has ``D_i = X_i`` and ``A_i = I``. statsmodels solves the equations and forms
the three covariances. The working correlation is estimated from Pearson's residuals by `hierlmm.gee.correlation`,
because statsmodels' structures cannot be relied on for it: its AR(1) estimates α from ``time`` and then ignores
``time`` in R_i, knows no negative α, and its exchangeable structure goes on with an α that makes V_i no covariance
matrix. The equations are solved in the working units of `hierlmm.gee.problem`, because statsmodels states its stopping
rule for the raw score.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.design.design import Design
from hierlmm.errors import DataError, SpecificationError, closest
from hierlmm.frames import quote, shorten
from hierlmm.gee.correlation import (
    AutoregressiveMoments,
    ExchangeableMoments,
    Independent,
    Rows,
    UnstructuredMoments,
    WorkingMoments,
)
from hierlmm.gee.problem import problem_of
from hierlmm.groups import group_order, group_starts
from hierlmm.likelihood.wald import PART

Scale = Literal["n-p", "n"]

CORRELATIONS = ("independence", "exchangeable", "ar1", "unstructured")
SEE = "docs, page 'GEE'"
TOLERANCE = 1e-9
ALONE = 1.0 - 1e-6
"""A subject whose share in a combination of coefficients exceeds this determines it alone."""


@dataclass(frozen=True)
class GEEEstimate:
    """Solution of the estimating equations.

    Attributes
    ----------
    beta : (p,)
    cov_naive, cov_robust : (p, p)
        The robust one is NaN for coefficients in what a subject alone determines: its residuals are fitted away.
    cov_bias_reduced : (p, p) or None
        None where a subject alone determines a combination of coefficients (``alone``).
    correlation : str
        One of `CORRELATIONS`.
    moments : WorkingMoments
        The working correlation, rows sorted by subject (``order``).
    order : (N,)
        The rows in that order.
    spacing : float or None
        AR(1): the distance in time at which α is the correlation.
    positions : tuple
        Unstructured: the distinct times, in the order of the rows of the correlation matrix.
    scale : float
        φ, the variance of a row.
    scale_divisor : {"n-p", "n"}
    alone : tuple of int
        Subjects without which the coefficients would not be determined.
    score_norm : float
        Norm of the estimating equations at the end, in working units (below ``TOLERANCE`` is converged).
    n_iterations : int
    converged : bool
    psi : FloatArray
        What the variance function has besides the mean: the log shape of a negative binomial; zeros elsewhere.
    shape_given : bool
        Whether the shape was stated, and not found from the rows taken as independent.
    """

    beta: FloatArray
    cov_naive: FloatArray
    cov_robust: FloatArray
    cov_bias_reduced: FloatArray | None
    correlation: str
    moments: WorkingMoments
    order: IntArray
    spacing: float | None
    positions: tuple[object, ...]
    scale: float
    scale_divisor: Scale
    alone: tuple[int, ...]
    score_norm: float
    n_iterations: int
    converged: bool
    psi: FloatArray = field(default_factory=lambda: np.zeros(1))
    shape_given: bool = False

    def working_correlation(self, i: int) -> FloatArray:
        """R_i of subject i, its rows in the order of the data."""
        start = self.moments.rows.start
        own = self.order[start[i] : start[i + 1]]
        back = np.argsort(own)
        return self.moments.subject_matrix(i)[np.ix_(back, back)]


def estimate_gee(
    design: Design,
    times: NDArray[np.generic] | None,
    *,
    correlation: str,
    scale: Scale,
    ar_pairs: Literal["all", "adjacent"],
    max_iterations: int,
    shape: float | None = None,
) -> GEEEstimate:
    """Solve the estimating equations of a marginal model.

    Parameters
    ----------
    design : Design
        Of which ``y``, ``X``, ``offset``, ``coef``, ``subject_index``, ``subjects`` and the outcome are used.
    times : (N,), optional
        Position of each row, needed by ``"ar1"`` (numbers) and ``"unstructured"`` (any labels).
    correlation : {"independence", "exchangeable", "ar1", "unstructured"}
    scale : {"n-p", "n"}
        Divisor of the dispersion: N − p (and the number of pairs less p for an exchangeable correlation), as in
        statsmodels and R's gee; or N (and the number of pairs), as in geepack.
    ar_pairs : {"all", "adjacent"}
        AR(1): α from all pairs of rows (geepack) or from neighbours (package gee).
    max_iterations : int
    shape : float, optional
        Of a negative binomial, whose variance ``μ + μ²/shape`` is taken as known; by default where Pearson's χ² of
        independent rows is N − p.

    Raises
    ------
    SpecificationError
        If an argument is not one of its choices, or the correlation lacks its times.
    DataError
        If X is rank deficient, there are no more subjects than coefficients, times repeat within a subject, or the
        moments make no correlation matrix.

    References
    ----------
    Liang and Zeger (1986), Biometrika 73, 13-22. Mancl and DeRouen (2001), Biometrics 57, 126-134.
    """
    _choices(correlation, scale, ar_pairs, max_iterations)
    subject_index, labels, p = design.subject_index, list(design.subjects), design.X.shape[1]
    if p >= len(labels):
        raise DataError(
            f"{len(labels)} subjects and {p} coefficients",
            "robust standard errors add up one contribution of each subject, and so few cannot fill their covariance",
            "use fewer coefficients, or a likelihood: fit_reml()",
            SEE,
        )
    rows, order, spacing, positions = _sorted_rows(subject_index, times, correlation, labels)
    problem = problem_of(design, order, shape)
    removed = p if scale == "n-p" else 0
    moments = _working(correlation, rows, removed, ar_pairs, positions)
    alone, theirs = _alone(problem.weighted, rows)

    from hierlmm.gee.solver import solve

    options: dict[str, Any] = {"bias_reduced": not alone, "max_iterations": max_iterations}
    result, residual = solve(problem, subject_index[order], moments, tolerance=TOLERANCE, **options)
    if not np.all(np.isfinite(residual)):
        _refuse_lost_means(design, correlation)
    if not moments.inside:
        _refuse_moments(moments, positions)
    phi = float(residual @ residual) / (len(residual) - removed)
    robust = _covariance(problem.back, result.cov_robust)
    if alone:
        size = np.sum(problem.back**2, axis=1)
        lost = np.any((problem.back @ theirs) ** 2 > PART * size[:, None], axis=1)
        robust[lost] = robust[:, lost] = np.nan
    return GEEEstimate(
        beta=problem.base + problem.back @ np.asarray(result.params),
        cov_naive=_covariance(problem.back, phi * np.asarray(result.cov_naive)),
        cov_robust=robust,
        cov_bias_reduced=None if alone else _covariance(problem.back, result.cov_robust_bc),
        correlation=correlation,
        moments=moments,
        order=order,
        spacing=spacing,
        positions=positions,
        scale=phi * problem.spread**2,
        scale_divisor=scale,
        alone=alone,
        score_norm=float(result.score_norm),
        n_iterations=len(result.fit_history["params"]),
        converged=bool(result.converged),
        psi=problem.psi,
        shape_given=shape is not None,
    )


def _refuse_lost_means(design: Design, correlation: str) -> None:
    """Refuse equations whose solver left the range of the means."""
    link = design.family.link
    received = f"GEE with correlation={correlation!r} and a {link} link"
    reason = "a step of the solver left the range of the means, which this link does not keep"
    remedy = "use correlation='independence', or a link that keeps the range"
    if link == design.family.links[0]:
        reason = "a step of the solver led to means that are no numbers: an outlier pulls a coefficient far away"
        remedy = "look at the largest responses and at the ends of the covariates; correct or drop such rows"
    raise DataError(received, reason, remedy, SEE)


def _covariance(half: FloatArray, values: FloatArray) -> FloatArray:
    """A covariance of working coefficients on the scale of the columns, symmetric to the last digit."""
    found = half @ np.asarray(values) @ half.T
    return 0.5 * (found + found.T)


def _choices(correlation: str, scale: str, ar_pairs: str, max_iterations: int) -> None:
    if max_iterations < 1:
        raise SpecificationError(f"max_iterations={max_iterations!r}", "it must be at least 1", "use 200", SEE)
    choices = {"correlation": (correlation, CORRELATIONS), "scale": (scale, ("n-p", "n"))}
    for name, (value, allowed) in (choices | {"ar_pairs": (ar_pairs, ("all", "adjacent"))}).items():
        if value not in allowed:
            reason = f"this is not one of the choices.{closest(str(value), allowed)}"
            raise SpecificationError(f"{name}={value!r}", reason, f"use one of {', '.join(map(repr, allowed))}", SEE)


def _sorted_rows(
    subject_index: IntArray, times: NDArray[np.generic] | None, correlation: str, labels: list[object]
) -> tuple[Rows, IntArray, float | None, tuple[object, ...]]:
    """Sort rows by subject (and time), and put the times on the axis of the correlation."""
    start = group_starts(subject_index, len(labels))
    if correlation in ("independence", "exchangeable"):
        order = group_order(subject_index)
        return Rows(start, np.zeros(len(order))), order, None, ()
    if times is None:
        raise SpecificationError(
            f"correlation={correlation!r} without time",
            "this correlation depends on when the rows were measured, and their order in the table need not be that",
            "say which column holds the times: time='name of the column'",
            SEE,
        )
    distinct, code = np.unique(times, return_inverse=True)
    order = group_order(subject_index, code)
    twice = np.flatnonzero((np.diff(code[order]) == 0) & (np.diff(subject_index[order]) == 0))
    if twice.size:
        row = order[twice[0]]
        raise DataError(
            f"{twice.size} repeated times, first {quote(times[row])} of subject {quote(labels[subject_index[row]])}",
            f"two rows at the same time have no place of their own in an {correlation} correlation",
            "average them, drop one, or use correlation='exchangeable'",
            SEE,
        )
    if correlation == "unstructured":
        return Rows(start, code[order].astype(float)), order, None, tuple(distinct.tolist())
    if not np.issubdtype(np.asarray(times).dtype, np.number):
        reason = "an autoregressive correlation falls with the distance in time, which needs numbers"
        remedy = "turn them into numbers (days since the first visit), or use correlation='unstructured'"
        raise DataError(f"times of type {np.asarray(times).dtype}", reason, remedy, SEE)
    values = np.asarray(times, dtype=float)[order]
    gaps = np.diff(values)[np.diff(subject_index[order]) == 0]
    if not np.all(np.isfinite(values)):
        raise DataError("missing or infinite times", "they have no place in time", "correct or drop these rows", SEE)
    if gaps.size == 0:
        _no_pairs(correlation)
    shortest = float(gaps.min())
    steps = gaps / shortest
    regular = bool(np.all(np.abs(steps - np.round(steps)) <= 1e-6 * np.maximum(steps, 1.0)))
    spacing = shortest if regular else float(np.median(gaps))
    first = np.repeat(values[start[:-1]], np.diff(start))
    position = (values - first) / spacing  # from the subject's first row: equal patterns of visits share a matrix
    return Rows(start, np.round(position) if regular else position), order, spacing, ()


def _working(
    correlation: str, rows: Rows, removed: int, ar_pairs: str, positions: tuple[object, ...]
) -> WorkingMoments:
    if correlation == "independence":
        return Independent(rows, removed)
    if int(rows.sizes.max()) < 2:
        _no_pairs(correlation)
    if correlation == "unstructured":
        table = UnstructuredMoments(rows, removed)
        absent = np.argwhere(table.counts == 0)
        if len(absent):
            a, b = absent[0]
            raise DataError(
                f"{len(positions)} different times, of which no subject has both {positions[a]} and {positions[b]}",
                "an unstructured correlation has one parameter for every pair of times, and nothing informs this one",
                "use correlation='exchangeable' or 'ar1', or round the times to the planned visits",
                SEE,
            )
        return table
    if correlation == "ar1":
        if ar_pairs == "adjacent" and not np.array_equal(rows.position, np.round(rows.position)):
            reason = "neighbours are at different distances, so their mean product is no correlation at one distance"
            raise DataError("ar_pairs='adjacent' with irregular times", reason, "use ar_pairs='all'", SEE)
        return AutoregressiveMoments(rows, removed, neighbours_only=ar_pairs == "adjacent")
    structure = ExchangeableMoments(rows, removed)
    if structure.n_pairs <= removed:
        received = f"{structure.n_pairs} pairs of rows of the same subject and {removed} coefficients"
        reason = "the number of pairs less the number of coefficients is the divisor of the correlation"
        raise DataError(received, reason, "use scale='n' (geepack's divisors), or correlation='independence'", SEE)
    return structure


def _no_pairs(correlation: str) -> None:
    received = f"correlation={correlation!r} and no subject with two rows"
    reason = "a correlation within subjects cannot be estimated"
    raise DataError(received, reason, "use correlation='independence', and check the subject column", SEE)


def _alone(Q: FloatArray, rows: Rows) -> tuple[tuple[int, ...], FloatArray]:
    """Subjects without which X loses rank, and the directions that they determine: (p, k).

    Their ``Q_i'Q_i`` has an eigenvalue of one, whatever the correlation.
    """
    p = Q.shape[1]
    shares = np.empty((len(rows.sizes), p, p))
    for a in range(p):
        for b in range(a, p):
            shares[:, a, b] = shares[:, b, a] = np.add.reduceat(Q[:, a] * Q[:, b], rows.start[:-1])
    share, direction = np.linalg.eigh(shares)
    full = share > ALONE
    return tuple(np.flatnonzero(full.any(axis=1)).tolist()), np.swapaxes(direction, 1, 2)[full].T


def _refuse_moments(moments: WorkingMoments, positions: tuple[object, ...]) -> None:
    largest, other = int(moments.rows.sizes.max()), "'exchangeable'"
    if isinstance(moments, UnstructuredMoments):
        raw = np.asarray(moments.raw)
        a, b = np.unravel_index(int(np.argmax(np.abs(raw))), raw.shape)
        received = (
            f"moments of an unstructured correlation between {len(positions)} times, up to {raw[a, b]:z.3f} "
            f"(between {positions[a]} and {positions[b]})"
        )
        reason = "they make no positive definite correlation matrix (few subjects have both times of a pair, or the "
        reason += "variance changes much over time)"
    elif isinstance(moments, ExchangeableMoments):
        received = f"an exchangeable correlation of {float(moments.raw):z.4f} and up to {largest} rows of a subject"
        reason = f"it must lie between -1/({largest} - 1) = {-1.0 / (largest - 1):z.4f} and 1 for every subject's "
        reason += "covariance to be one"
        other = "'ar1'"
    else:
        received = f"an autoregressive correlation of {float(moments.raw):z.4f}"
        reason = "it must lie between -1 and 1: rows of a subject hardly differ from one another, or their variance "
        reason += "changes much over time"
    remedy = f"use correlation='independence' (its robust standard errors need no correlation), or {other}"
    raise DataError(received, reason, remedy, SEE)


def describe_estimate(estimate: GEEEstimate, design: Design) -> tuple[str, ...]:
    """What must be known before the standard errors are used, in plain words."""
    messages: list[str] = []
    if not estimate.converged:
        messages.append(
            f"The equations were not solved after {estimate.n_iterations} iterations (norm {estimate.score_norm:.1e}; "
            f"below {TOLERANCE:.0e} is converged). Use another working correlation, or raise max_iterations."
        )
    if estimate.alone:
        names = shorten([quote(design.subjects[i]) for i in estimate.alone])
        without = shorten([c for c, v in zip(design.coef, np.diag(estimate.cov_robust), strict=True) if np.isnan(v)])
        messages.append(
            f"Without subject {names} a coefficient would not be determined: its contribution has no residual, so "
            f"that such coefficients ({without}) have no robust standard error, and none a bias-reduced one. Read the "
            "naive ones (se='naive'), or take the term out."
        )
    elif design.n_subjects < FEW:
        messages.append(
            f"{design.n_subjects} subjects: robust standard errors are too small on average with fewer than about "
            f"{FEW}. Prefer se='bias_reduced'."
        )
    if isinstance(estimate.moments, AutoregressiveMoments) and estimate.moments.parameter == 0.0:
        messages.append(
            "The rows of a subject are not positively correlated, and at irregular times an autoregressive correlation "
            "cannot be negative: it is zero here, as under independence."
        )
    return tuple(messages)


FEW = 40
"""Subjects below which the bias of robust standard errors is worth a remark."""
