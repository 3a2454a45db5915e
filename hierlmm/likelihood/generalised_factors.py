"""The criterion of a generalised model with several grouping factors, nested or crossed, by Laplace's method.

    η = Xβ + o + Σ_k Z_k b_k,      b_kj = Λ_k u_kj,      u ~ N(0, I),      Λ = diag(Λ_1, ..., Λ_K)

The random effects of all groups together have one mode û, the maximum of ``h(u) = Σ l_r(η_r) − ½ u'u``. With weights
``w_r = −l''_r`` the curvature there is ``H = I + Λ'Z'WZΛ``, which `forest_kernel` eliminates as it does for a normal
response, of rows with weights; so

    log p(y) ≈ h(û) − ½ log|H|.

Each step of Newton's method solves ``H u = Λ'Z'(W Zb + l')`` (`forest_solve`). Quadrature, as in `generalised_kernel`,
is out of reach: no group's random effects are independent of those of the others.

**Gradient**, as there, with ``Π = ΛH⁻¹Λ'`` and all sums over rows:

    s_r = z_r'Πz_r,   t = ½ l''' s,   ρ = H⁻¹Λ'Z't,   d = t − W ZΛρ,   e = l' + d
    β:  Σ x_r e_r          ψ:  Σ ∂_ψ l + ∂_ψ l' z'Λρ + ½ ∂_ψ l'' s

and because ``û = Λ'Z'l'`` and ``ρ = Λ'Z'd``, that of ``B_k = Λ_kΛ_k'`` needs no Λ and holds at the boundary too: with
``g = Z_kj'l'`` and ``δ = Z_kj'd`` of every group j it is ½ M_k (the gradient in Λ_k is M_k Λ_k),

    M_k = Σ_j (gg' + δg' + gδ') − Σ_j Z_kj'(W⁻¹ + ZBZ')⁻¹Z_kj.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, NoReturn, Self

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.design.design import Design
from hierlmm.design.formula import MULTILEVEL
from hierlmm.errors import NotAvailableError
from hierlmm.families.rows import rowwise
from hierlmm.likelihood.forest import Factor
from hierlmm.likelihood.forest_kernel import come_back, eliminate
from hierlmm.likelihood.forest_layout import GroupedRows, grouped_rows
from hierlmm.likelihood.forest_rest import Rest, one_thread
from hierlmm.likelihood.forest_rows import variances_of_rows
from hierlmm.likelihood.forest_solve import backward, forward
from hierlmm.likelihood.generalised_criterion import (
    GeneralisedCriterion,
    GeneralisedRows,
    GeneralisedSolution,
    free_structure,
    generalised_rows,
)
from hierlmm.likelihood.generalised_kernel import MAX_HALVINGS, MAX_NEWTON, SMALL_STEP
from hierlmm.likelihood.several_factors import SMALL_REST, structure_of
from hierlmm.likelihood.solution import Evaluation

NOISE = 1e-12
"""Relative fall of h that may be rounding."""
MUCH_WORK = 1e6
"""Of an evaluation: the cube of the dense block, and a hundred for each row."""


class Curvature:
    """``H = I + Λ'Z'WZΛ`` of all random effects, factorised."""

    def __init__(self, rows: GroupedRows, Lambda: FloatArray, weight: FloatArray) -> None:
        self.rows, self.Lambda, self.chain = rows, Lambda, rows.of_chain(Lambda)
        E, rest = rows.products(weight)
        self.log_det, H = eliminate(E, rest, self.chain, rows.forest.plan)
        self.parts = E, H
        self.root = Rest(rows, Lambda, rest)
        self.log_det += self.root.log_det

    def solve(self, v: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Solutions u = H⁻¹Λ'Z'v and Λu, (T,) each, of v (N,)."""
        c, end = (self.rows.Zt @ v)[:, None], self.rows.forest.end
        forward(*self.parts, c, self.chain, self.rows.forest.plan)
        u, mean = np.zeros(c.shape), np.zeros(c.shape)
        whitened, mean[end:] = self.root.solve(c[end:])
        backward(*self.parts, c, self.chain, mean, u, np.empty((0, 1)), self.rows.forest.plan)
        u = self.rows.times(self.Lambda.T, u)
        u[end:] = whitened
        return u[:, 0], mean[:, 0]

    def spread(self) -> tuple[FloatArray, tuple[FloatArray, ...], FloatArray]:
        """Σ_g Z_g'(W⁻¹ + ZBZ')⁻¹Z_g (q, q), conditional covariances by factor, and z'Πz of the rows (N,)."""
        rows, f, Pi = self.rows, self.rows.forest, self.root.Pi
        of_chain, spreads, within = come_back(*self.parts, self.chain, Pi, f.plan)
        EE, own = rows.collect(of_chain, spreads, self.root.moments(np.empty((f.n_rest, 0)))[2])
        return EE, own, variances_of_rows(rows.z, f.number, f.place, within, Pi, f.plan)


@dataclass(frozen=True, eq=False)
class JointMode:
    """The mode of all random effects at one point, what the criterion is there, and its gradient.

    Attributes
    ----------
    u, mean : (T,)
        û, and Λû, in the order of elimination.
    value : float
        Log-likelihood without the constants of the rows; minus infinity where no mode was found.
    e : (N,)
        Derivatives by the linear predictors.
    M, in_Lambda : (q, q)
        M_k of the factors on the diagonal, and M Λ.
    in_psi : (m,)
    covariance : tuple of (J, q, q)
        Conditional covariances of Λu by factor.
    """

    u: FloatArray
    mean: FloatArray
    value: float
    e: FloatArray
    M: FloatArray
    in_Lambda: FloatArray
    in_psi: FloatArray
    covariance: tuple[FloatArray, ...]

    @property
    def found(self) -> bool:
        """Whether there is a mode."""
        return bool(np.isfinite(self.value))


@dataclass(eq=False, kw_only=True)
class FactorLaplace(GeneralisedCriterion):
    """−2 log-likelihood by Laplace's method of a model with several grouping factors, in (λ, β̃, ψ).

    Attributes
    ----------
    grouped : GroupedRows
        The rows by their groups.
    first : (T,), optional
        Mode from which every evaluation sets out; see `GeneralisedCriterion`.
    """

    grouped: GroupedRows
    has_quadrature: ClassVar[bool] = False
    _last: dict[bytes, JointMode] = field(init=False, default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        f = self.grouped.forest
        self._modes = np.zeros(f.end + f.n_rest) if self.first is None else self.first

    @property
    def is_small(self) -> bool:
        """Whether an evaluation takes some milliseconds at the most."""
        return self.grouped.forest.n_rest**3 + 100 * len(self.rows.y) < MUCH_WORK

    def at(self, parameters: FloatArray) -> JointMode:  # type: ignore[override]
        """The mode and what follows from it at one point; that of the last point is kept."""
        parameters = np.array(parameters, dtype=np.float64)
        key = parameters.tobytes()
        if key not in self._last:
            with one_thread() if self.grouped.forest.n_rest > SMALL_REST else nullcontext():
                found = self._at(parameters)
            self._last.clear()
            self._last[key] = found
            if self.first is None and np.isfinite(found.value):
                self._modes = found.u
        return self._last[key]

    def _at(self, parameters: FloatArray) -> JointMode:
        lam, beta, psi = self.split(parameters)
        rows, grouped, Lambda = self.rows, self.grouped, self.structure.factor(lam)
        psi = np.ascontiguousarray(psi)
        given = rows.offset + rows.X @ beta
        with np.errstate(all="ignore"):
            mode = self._mode(given, Lambda, psi)
            if mode is None:
                return self._nowhere()
            u, mean = mode
            d = rowwise(rows.family.derivatives, rows.y, rows.n, given + grouped.Z @ mean, psi, 3)
            curvature = Curvature(grouped, Lambda, -d[:, 2])
            EE, covariance, s = curvature.spread()
            t = 0.5 * d[:, 3] * s
            along = grouped.Z @ curvature.solve(t)[1]
            moved = t + d[:, 2] * along
            M = -EE
            for k, part in grouped.parts(grouped.Zt @ np.column_stack([d[:, 1], moved])):
                own, g, delta = grouped.own(k), part[:, :, 0], part[:, :, 1]
                M[own, own] += g.T @ g + delta.T @ g + g.T @ delta
            value = float(np.sum(d[:, 0]) - 0.5 * (u @ u) - 0.5 * curvature.log_det)
        by_psi = d[:, 4::3].sum(axis=0) + along @ d[:, 5::3] + 0.5 * s @ d[:, 6::3]
        value = value if np.isfinite(value) else -np.inf
        return JointMode(u, mean, value, d[:, 1] + moved, M, M @ Lambda, by_psi, covariance)

    def _nowhere(self) -> JointMode:
        q, nothing = self.structure.q, np.zeros(len(self._modes))
        no_spread = tuple(np.zeros((J, k, k)) for J, k in zip(self.grouped.n_groups, self.grouped.sizes, strict=True))
        e, M, in_psi = np.zeros(len(self.rows.y)), np.zeros((q, q)), np.zeros(self.n_psi)
        return JointMode(nothing, nothing, -np.inf, e, M, M, in_psi, no_spread)

    def _mode(self, given: FloatArray, Lambda: FloatArray, psi: FloatArray) -> tuple[FloatArray, FloatArray] | None:
        """û and Λû by Newton's method, from the mode before; None where it fails."""
        rows, grouped = self.rows, self.grouped

        def densities(line: FloatArray) -> FloatArray:
            found: FloatArray = rowwise(rows.family.derivatives, rows.y, rows.n, given + line, psi, 2)
            return found

        for u in (self._modes, 0.5 * self._modes, np.zeros(len(self._modes))):
            # a mode of other parameters may have no density at these: back towards zero
            mean = grouped.times(Lambda, u[:, None])[:, 0]
            line = grouped.Z @ mean
            d = densities(line)
            h = float(np.sum(d[:, 0]) - 0.5 * (u @ u))
            if np.isfinite(h):
                break
        for _ in range(MAX_NEWTON if np.isfinite(h) else 0):
            try:
                towards = Curvature(grouped, Lambda, -d[:, 2]).solve(d[:, 1] - d[:, 2] * line)
            except np.linalg.LinAlgError:
                return None
            step, moves = towards[0] - u, grouped.Z @ towards[1] - line
            length = float(step @ step - d[:, 2] @ moves**2)
            if not np.isfinite(length):
                return None
            share, least = 1.0, h - NOISE * (1.0 + abs(h))
            for _ in range(MAX_HALVINGS):
                d = densities(line + share * moves)
                trial = u + share * step
                h = float(np.sum(d[:, 0]) - 0.5 * (trial @ trial))
                if h >= least:
                    break
                share *= 0.5
            else:
                return None
            u, line, mean = trial, line + share * moves, mean + share * (towards[1] - mean)
            if length < SMALL_STEP:
                return u, mean
        return None

    def settled(self, parameters: FloatArray) -> Self:
        """The same criterion, whose evaluations all set out from the mode at these parameters."""
        return replace(self, first=self.at(parameters).u)

    def solution(self, parameters: FloatArray) -> FactorLaplaceSolution:
        """What follows from parameters."""
        return FactorLaplaceSolution(self, parameters)

    def _evaluation(self, parameters: FloatArray, *, boundary: bool) -> Evaluation:
        at = self.at(parameters)
        value = -2.0 * (at.value + float(np.sum(self.rows.constant)))
        if not np.isfinite(value):
            return Evaluation(np.inf, np.zeros(len(parameters)), np.zeros_like(at.M))
        by_lam = self.structure.pull_back(at.in_Lambda)
        return Evaluation(value, -2.0 * np.concatenate([by_lam, self.rows.X.T @ at.e, at.in_psi]), -at.M)

    def gradients(self, parameters: FloatArray) -> NoReturn:
        """Not by subject: rows share groups of several factors."""
        raise _no_subjects("the gradient by subject")


@dataclass(frozen=True, eq=False)
class FactorLaplaceSolution(GeneralisedSolution):
    """β, ψ, D and the random effects of every factor at one point, in the user's units; D is block diagonal."""

    criterion: FactorLaplace

    @cached_property
    def by_factor(self) -> tuple[tuple[FloatArray, FloatArray], ...]:
        """Conditional modes (J, q) of each factor in the order of the formula, and the inverse curvature (J, q, q)."""
        grouped, Bz, at = self.criterion.grouped, self.criterion.scaling.Bz, self.criterion.at(self.parameters)
        found: list[Any] = [()] * len(grouped.sizes)
        for k, mean in grouped.parts(at.mean[:, None]):
            back = np.linalg.inv(grouped.block(Bz, k))
            found[k] = (mean[:, :, 0] @ back.T, back @ at.covariance[k] @ back.T)
        return tuple(found)

    def line(self, design: Design) -> FloatArray:
        """Linear predictors of the rows of a design, random effects at their modes, (N,)."""
        eta = design.offset + design.X @ self.beta
        for term, (b, _) in zip(design.random, self.by_factor, strict=True):
            eta = eta + np.einsum("ij,ij->i", term.Z, b[term.group.index])
        return eta

    @property
    def b(self) -> NoReturn:
        """Not by subject: ``by_factor`` has the effects of each factor."""
        raise _no_subjects("random effects by subject")

    @property
    def b_cov(self) -> NoReturn:
        """Not by subject either."""
        raise _no_subjects("random effects by subject")

    @property
    def subject_loglik(self) -> NoReturn:
        """Not by subject: the likelihood is no product over the groups of any factor."""
        raise _no_subjects("the log-likelihood by subject")


def _no_subjects(what: str) -> NotAvailableError:
    reason = "there is one kind of groups for each of several factors"
    return NotAvailableError(what, reason, "use solution.by_factor", MULTILEVEL)


def factor_laplace(design: Design, rows: GeneralisedRows | None = None) -> FactorLaplace:
    """The criterion of a design with a family and several random terms (or one); of rows in another order."""
    rows = generalised_rows(design) if rows is None else rows
    factors, at = [], 0
    for term in design.random:
        q = len(term.columns.names)
        index = term.group.index[rows.order].astype(np.int64)
        factors.append(Factor(index, len(term.group.labels), np.ascontiguousarray(rows.Z.T[at : at + q])))
        at += q
    n_psi = len(design.family.first_psi(rows.y, rows.n))
    return FactorLaplace(rows, structure_of(design), 1, n_psi, grouped=grouped_rows(factors))


def laplace_log_likelihood(design: Design, beta: FloatArray, D: FloatArray, psi: FloatArray) -> float:
    """Log-likelihood by Laplace's method with D = diag(D_1, ..., D_K), in the user's units."""
    laplace = factor_laplace(design)
    scaling, free = laplace.scaling, replace(laplace, structure=free_structure(len(D)))
    Lambda = scaling.Bz @ laplace.grouped.root(D)
    at = free.at(np.concatenate([Lambda.ravel(), scaling.Bx @ (beta - scaling.shift), psi]))
    return at.value + float(np.sum(laplace.rows.constant))
