r"""Estimates without one subject at a time, from sums by subject: no model is fitted again.

With ``Q_j = σ² [X, y]_j' V_j⁻¹ [X, y]_j`` of every subject (`SubjectSums`; P × P) and ``Q_(j) = Q - Q_j``,

    β_(j) = Q_(j),xx⁻¹ Q_(j),xy,    rss_(j) = Q_(j),yy - Q_(j),yx β_(j),    σ_(j)² = rss_(j) / n_(j)

are exactly what a fit without the subject has at the same ψ = (λ, η), the relative covariance parameters (n_(j): its
rows, less p for REML). So is its criterion,

    f_(j)(ψ) = n_(j) (log 2π σ_(j)² + 1) + Σ_{l≠j} log|V_l/σ²| + [log|Q_(j),xx|]

for every subject at once, at the cost of one pass over the subjects. Differences of f_(j) around ψ̂, over steps that
are small against standard errors, give its gradient g_j and Hessian H_j: the Newton step is ``ψ_(j) = ψ̂ - H_j⁻¹ g_j``.
Where it moves ψ by more than `FURTHER` standard errors, quasi-Newton steps follow (new gradients, the Hessian updated
by them; with a residual structure the exact gradient of the criterion of the other rows), at most `ROUNDS`, halved
where f_(j) would rise. Parameters that the boundary holds at zero stay there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from hierlmm.arrays import BoolArray, FloatArray
from hierlmm.design.design import Design
from hierlmm.frozen import OwnArrays
from hierlmm.likelihood.crossproducts import subject_rows, working_columns
from hierlmm.likelihood.descent import bfgs, hessian
from hierlmm.likelihood.kernel import RANK_TOLERANCE, pattern_sums, within_subject_qr
from hierlmm.likelihood.maximise import SINGULAR_TOLERANCE
from hierlmm.likelihood.residual_criterion import ResidualCriterion
from hierlmm.likelihood.residual_rows import ResidualRows, whiten_columns
from hierlmm.likelihood.solution import AnyCriterion

ALL = slice(None)
UNKNOWN = 1e-9
"""Share of the information on some combination of coefficients, left without a subject, below which it is lost."""
STEP = 0.1
"""Step of the differences, in standard errors."""
FURTHER = 0.1
ROUNDS, HALVINGS = 10, 10
FLAT = 1e-6
"""Curvature, over that of one standard error, below which there is no step along a direction."""
DONE = 1e-2
"""Size of a step, in standard errors, after which no other follows."""


@dataclass(frozen=True, eq=False)
class Deletion(OwnArrays):
    """Estimates without each subject in turn, in the user's units; NaN where the other subjects do not determine β.

    Attributes
    ----------
    beta : (J, p), beta_cov : (J, p, p)
        Coefficients and their covariance at ``sd`` and ``psi``.
    psi : (J, m)
        Relative covariance parameters (λ, η); of another family all parameters (λ, β̃, ψ).
    sd : (J,)
        SD of the whitened rows, in working units of y; NaN of another family.
    known : (J,)
        Whether the other subjects determine all coefficients.
    moved : (J,)
        How far ψ moved, in standard errors: ``√(δ'H_jδ/2)``.
    """

    beta: FloatArray
    beta_cov: FloatArray
    psi: FloatArray
    sd: FloatArray
    known: BoolArray
    moved: FloatArray


class SubjectSums:
    """``Q_j`` and ``log|V_j/σ²|`` of every subject as functions of ψ, in working columns."""

    def __init__(self, design: Design, criterion: AnyCriterion) -> None:
        self.criterion, self.design = criterion, design
        order, self.start = subject_rows(design)
        self.sizes = np.diff(self.start)
        self.plain: tuple[FloatArray, FloatArray, FloatArray] | None = None
        if isinstance(criterion.rows, ResidualRows):
            self.columns = np.empty(criterion.rows.M.T.shape)
            self.columns[criterion.rows.rows.order] = criterion.rows.M.T
            self.order = order
        else:
            Z, XY, _ = working_columns(design, order)
            self.plain = self._reduced(Z, XY)

    def at(self, psi: FloatArray, only: slice) -> tuple[FloatArray, float, FloatArray, FloatArray]:
        """Q (P, P) and log|V/σ²| of all subjects; Q_j (·, P, P) and log|V_j/σ²| (·,) of these."""
        lam, eta = self.criterion.split(psi)
        Lambda = self.criterion.structure.factor(lam)
        one = only != ALL
        if self.plain is None:
            parts, log_det = self._whitened(eta)
        else:
            parts, log_det = self.plain, np.zeros(len(self.sizes))
        own, own_log_det = _integrated(Lambda, *(part[only] for part in parts))
        own_log_det = own_log_det + log_det[only]
        if not one:
            return own.sum(axis=0), float(own_log_det.sum()), own, own_log_det
        if self.plain is None:
            every, every_log_det = _integrated(Lambda, *parts)
            return every.sum(axis=0), float((every_log_det + log_det).sum()), own, own_log_det
        products = self.criterion.given(psi).products
        found = pattern_sums(products.R, products.C, products.weight, np.ascontiguousarray(Lambda))
        return products.S_w + found.G, float(found.log_det_T), own, own_log_det

    def _whitened(self, eta: FloatArray) -> tuple[tuple[FloatArray, FloatArray, FloatArray], FloatArray]:
        """The same parts of rows whitened at η, and ``log|Σ_j/σ²|`` at the shift of the variance function."""
        rows = self.criterion.rows
        estimate = rows.at(eta)
        if estimate is None:
            found, log_det = self.columns, np.zeros(len(self.sizes))
        else:
            found, log_det = whiten_columns(estimate, self.columns)
            shift = rows.shift(eta)  # σ̃ = σ exp(shift): rows of SD σ̃, as the criterion has them
            found, log_det = found * np.exp(shift), log_det - 2.0 * shift * self.sizes
        q = self.criterion.structure.q
        working = np.ascontiguousarray(found[self.order].T)
        return self._reduced(working[:q].copy(), working[q:].copy()), log_det

    def _reduced(self, Z: FloatArray, XY: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """R_j, C_j and what is left of [X, y]_j outside the span of Z_j: (J, q, q), (J, q, P), (J, P, P)."""
        R, C, _ = within_subject_qr(Z, XY, self.start, RANK_TOLERANCE)
        return R, C, np.add.reduceat(XY.T[:, :, None] * XY.T[:, None, :], self.start[:-1])

    @cached_property
    def degrees(self) -> FloatArray:
        """Rows of all but one subject, less p for REML: (J,)."""
        return np.asarray(self.criterion.degrees - self.sizes, dtype=np.float64)


def _integrated(Lambda: FloatArray, R: FloatArray, C: FloatArray, S: FloatArray) -> tuple[FloatArray, FloatArray]:
    """``S_j + C_j'T_j⁻¹C_j`` and log|T_j| of subjects."""
    F = R @ Lambda
    root = np.linalg.cholesky(np.eye(F.shape[1]) + F @ np.swapaxes(F, 1, 2))
    half = np.linalg.solve(root, C)
    return S + np.swapaxes(half, 1, 2) @ half, 2.0 * np.log(np.diagonal(root, axis1=1, axis2=2)).sum(axis=1)


@dataclass(frozen=True, eq=False)
class _Without:
    """What the fits without each subject have at one ψ, in working columns: β, Q_xx⁻¹, log σ, the criterion."""

    beta: FloatArray
    inverse: FloatArray
    log_sd: FloatArray
    value: FloatArray
    known: BoolArray

    def moved(self, up: list[_Without], down: list[_Without], units: FloatArray) -> _Without:
        """To first order in units (J, k) of the steps between ``up`` and ``down``."""
        fields = ("beta", "inverse", "log_sd", "value")
        found = {name: getattr(self, name).copy() for name in fields}
        for name in fields:
            for own, above, below in zip(units.T, up, down, strict=True):
                slope = 0.5 * (getattr(above, name) - getattr(below, name))
                found[name] += own.reshape(-1, *[1] * (slope.ndim - 1)) * slope
        return _Without(**found, known=self.known)


def delete_subjects(
    design: Design, criterion: AnyCriterion, psi: FloatArray, sd: float, *, update: bool = True
) -> Deletion:
    """Estimate without each subject in turn.

    Parameters
    ----------
    design : Design
    criterion : AnyCriterion
    psi : (m,)
        The optimum.
    sd : float
        SD of the whitened rows there, in working units of y.
    update : bool
        Whether ψ and σ are estimated anew, by Newton steps; else they stay where they are, and β is exact.

    Notes
    -----
    Costs about m² + m + 1 passes over the subjects, and with a residual structure over the rows.
    """
    sums = SubjectSums(design, criterion)
    at, J = _without(sums, psi), len(sums.sizes)
    free = criterion.structure.filled(psi, SINGULAR_TOLERANCE)
    if not update:
        held = replace(at, log_sd=np.full(J, np.log(sd)))
        return _told(sums, held, np.tile(psi, (J, 1)), np.zeros(J))
    if not free.any():
        return _told(sums, at, np.tile(psi, (J, 1)), np.zeros(J))
    search = _Search(sums, psi, np.diag(_steps(criterion, psi, free))[free])
    units, found = search.first(at)
    for j in np.flatnonzero((search.length(units) > FURTHER) & at.known):
        units[j], own = search.further(int(j), units[j])
        for name in ("beta", "inverse", "log_sd"):
            getattr(found, name)[j] = getattr(own, name)[0]
    return _told(sums, found, psi + units @ search.moves, search.length(units))


def _steps(criterion: AnyCriterion, psi: FloatArray, free: BoolArray) -> FloatArray:
    """A tenth of a standard error of every parameter given the others, (m,)."""
    curvature = np.diag(hessian(lambda at: criterion.evaluate(at)[:2], psi))
    se = np.sqrt(2.0 / np.maximum(np.abs(curvature), 1e-4))
    return np.where(free, STEP * np.minimum(se, np.maximum(1.0, np.abs(psi))), 0.0)


class _Search:
    """Newton steps of all subjects, in units of the steps of the differences: the rows of ``moves`` (k, m)."""

    def __init__(self, sums: SubjectSums, psi: FloatArray, moves: FloatArray) -> None:
        self.sums, self.psi, self.moves = sums, psi, moves
        self.H = self.inverse = np.empty(0)

    def first(self, at: _Without) -> tuple[FloatArray, _Without]:
        """One step for every subject (J, k), and what follows from it."""
        up, down = self._beside(self.psi)
        J, k = len(at.value), len(self.moves)
        gradient, self.H = _slope(up, down), np.empty((J, k, k))
        for a in range(k):
            self.H[:, a, a] = up[a].value - 2.0 * at.value + down[a].value
            for b in range(a):
                corner = self.moves[a] + self.moves[b]
                cross = _without(self.sums, self.psi + corner).value + _without(self.sums, self.psi - corner).value
                cross += 2.0 * at.value - up[a].value - up[b].value - down[a].value - down[b].value
                self.H[:, a, b] = self.H[:, b, a] = 0.5 * cross
        values, vectors = np.linalg.eigh(self.H)
        flat = np.abs(values) < FLAT * STEP**2
        size = np.where(flat, 0.0, 1.0 / np.where(flat, 1.0, np.abs(values)))  # downhill where curvature is negative
        self.inverse = (vectors * size[:, None, :]) @ np.swapaxes(vectors, 1, 2)
        units = -np.einsum("jab,jb->ja", self.inverse, gradient)
        return units, at.moved(up, down, units)

    def further(self, j: int, units: FloatArray) -> tuple[FloatArray, _Without]:
        """More steps of one subject: where they end, and what is found there."""
        ask = self._asked(j)
        best, inverse = np.zeros_like(units), self.inverse[j]
        value, slope = ask(best)
        for _ in range(ROUNDS):
            found, new = ask(units)
            halvings = 0
            while not found <= value + 1e-9 * max(1.0, abs(value)) and halvings < HALVINGS:
                units, halvings = 0.5 * (units + best), halvings + 1
                found, new = ask(units)
            inverse = bfgs(inverse, units - best, new - slope)
            best, value, slope = units, found, new
            step = -inverse @ slope
            if np.sqrt(max(0.5 * step @ self.H[j] @ step, 0.0)) < DONE:
                break
            units = units + step
        return best, _without(self.sums, self.psi + best @ self.moves, slice(j, j + 1))

    def _asked(self, j: int) -> Callable[[FloatArray], tuple[float, FloatArray]]:
        """The criterion without a subject and its gradient, in units of the steps."""
        criterion = self.sums.criterion
        if isinstance(criterion, ResidualCriterion):  # a pass over whitened rows is dear: gradients are exact
            others = ResidualCriterion(criterion.rows.without(j), criterion.structure, criterion.reml)

            def exact(units: FloatArray) -> tuple[float, FloatArray]:
                found = others.evaluate(self.psi + units @ self.moves)
                return found.value, self.moves @ found.gradient

            return exact
        own = slice(j, j + 1)

        def differenced(units: FloatArray) -> tuple[float, FloatArray]:
            psi = self.psi + units @ self.moves
            return float(_without(self.sums, psi, own).value[0]), _slope(*self._beside(psi, own))[0]

        return differenced

    def length(self, units: FloatArray) -> FloatArray:
        """How far ψ moves, in standard errors, (J,)."""
        return np.sqrt(np.maximum(0.5 * np.einsum("ja,jab,jb->j", units, self.H, units), 0.0))

    def _beside(self, psi: FloatArray, only: slice = ALL) -> tuple[list[_Without], list[_Without]]:
        up, down = ([_without(self.sums, psi + sign * move, only) for move in self.moves] for sign in (1.0, -1.0))
        return up, down


def _slope(up: list[_Without], down: list[_Without]) -> FloatArray:
    """Gradients of the criteria, in units of the steps: (J, k)."""
    return np.stack([0.5 * (above.value - below.value) for above, below in zip(up, down, strict=True)], axis=1)


def _without(sums: SubjectSums, psi: FloatArray, only: slice = ALL) -> _Without:
    """Normal equations without each of these subjects."""
    total, total_log_det, Q, log_det = sums.at(psi, only)
    left, p, degrees = total - Q, len(total) - 1, sums.degrees[only]
    back = np.linalg.inv(np.linalg.cholesky(total[:p, :p]))
    known = (np.linalg.eigvalsh(back @ left[:, :p, :p] @ back.T)[:, 0] > UNKNOWN) & (degrees > 0)
    left[~known] = total  # a place holder
    inverse = np.linalg.inv(left[:, :p, :p])
    beta = (inverse @ left[:, :p, p:])[..., 0]
    rss = left[:, p, p] - np.einsum("ja,ja->j", left[:, p, :p], beta)
    known &= rss > 1e-14 * left[:, p, p]
    log_sd = 0.5 * np.log(np.where(known, rss, 1.0) / np.where(known, degrees, 1.0))
    value = 2.0 * degrees * log_sd + total_log_det - log_det
    if sums.criterion.reml:
        value -= np.linalg.slogdet(inverse)[1]
    return _Without(beta, inverse, log_sd, value, known)


def _told(sums: SubjectSums, at: _Without, psi: FloatArray, moved: FloatArray) -> Deletion:
    """In the user's units; NaN where nothing is known."""
    scaling, known, sd = sums.criterion.scaling, at.known, np.exp(at.log_sd)
    Bx = np.linalg.inv(scaling.Bx)
    beta = at.beta @ Bx.T * scaling.y_scale + scaling.shift
    cov = Bx @ at.inverse @ Bx.T * ((sd * scaling.y_scale) ** 2)[:, None, None]
    beta, cov, psi, sd, moved = (where_known(known, v) for v in (beta, cov, psi, sd, moved))
    return Deletion(beta, cov, psi, sd, known, moved)


def where_known(known: BoolArray, values: FloatArray) -> FloatArray:
    """Values by subject, (J, ...), NaN where nothing is known."""
    return np.where(known.reshape(-1, *[1] * (values.ndim - 1)), values, np.nan)
