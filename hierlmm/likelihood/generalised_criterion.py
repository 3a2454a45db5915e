"""The criterion of a generalised two-level model, by Laplace's method or adaptive Gauss-Hermite quadrature.

−2 log-likelihood as a function of ``(λ, β̃, ψ)``: Λ(λ) as for Gaussian models (`RandomCovariance`), β̃ in working
columns of mean square 1, ψ the family's dispersion parameters. Value and gradient come from one pass of
`generalised_kernel`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, cached_property, lru_cache
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.covariance.random import RandomCovariance
from hierlmm.design.design import Design
from hierlmm.design.rows import Grouping
from hierlmm.families.family import Family
from hierlmm.groups import group_order, group_starts
from hierlmm.likelihood.crossproducts import Scaling, working_rows
from hierlmm.likelihood.generalised_kernel import marginal_sums
from hierlmm.likelihood.maximise import SINGULAR_TOLERANCE
from hierlmm.likelihood.mode_starts import mode_starts
from hierlmm.likelihood.solution import Evaluation

ROWS_OF_A_THREAD = 4_000


@lru_cache(maxsize=8)
def quadrature(points: int, q: int) -> tuple[FloatArray, FloatArray]:
    """Nodes (K, q) and log weights (K,) of the product rule for exp(−z'z), divided by π^(q/2)."""
    node, weight = np.polynomial.hermite.hermgauss(points)
    log_weight = np.log(weight) - 0.5 * np.log(np.pi)
    nodes = np.stack(np.meshgrid(*[node] * q, indexing="ij"), axis=-1).reshape(-1, q)
    weights = sum(np.meshgrid(*[log_weight] * q, indexing="ij"), start=np.zeros((points,) * q)).ravel()
    return np.ascontiguousarray(nodes), weights


@dataclass(frozen=True, eq=False)
class GeneralisedRows:
    """The rows of a generalised model sorted by subject, or by the groups of a factor, in working columns.

    Attributes
    ----------
    family : Family
    y, n, offset, constant : (N,)
        Response, trials, offset, and the terms of the log density that depend on y alone.
    X : (N, p), Z : (N, q)
        Working columns, of mean square 1 in units of the linear predictor (`Family.scale`).
    start : (J + 1,)
        Rows of subject j are ``start[j]:start[j + 1]``.
    scaling : Scaling
    order : (N,)
        Positions of the rows in the design.
    """

    family: Family
    y: FloatArray
    n: FloatArray
    offset: FloatArray
    constant: FloatArray
    X: FloatArray
    Z: FloatArray
    start: IntArray
    scaling: Scaling
    order: IntArray

    @cached_property
    def targets(self) -> FloatArray:
        """Linear predictors that fit a row exactly, (N, T)."""
        with np.errstate(all="ignore"):
            eta = self.family.function.link(self.family.first_mean(self.y, self.n))
        return np.stack([eta, -eta] if self.family.link == "sqrt" else [eta], axis=1)

    def part(self, subjects: IntArray) -> GeneralisedRows:
        """Rows of some of the subjects."""
        rows = np.concatenate([np.arange(self.start[j], self.start[j + 1]) for j in subjects])
        start = np.concatenate([[0], np.cumsum(np.diff(self.start)[subjects])])
        names = ("y", "n", "offset", "constant", "X", "Z")
        own: dict[str, Any] = {name: np.ascontiguousarray(getattr(self, name)[rows]) for name in names}
        return replace(self, start=start, **own)


def generalised_rows(design: Design, group: Grouping | None = None) -> GeneralisedRows:
    """Sort and scale the rows of a design: by subject, or by other groups."""
    group = design.rows.subject if group is None else group
    order, start = group_order(group.index), group_starts(group.index, len(group.labels))
    XY, Zs, scaling = working_rows(design, order)
    root = np.sqrt(design.n_obs)
    family, y, n, offset = design.family, design.y[order], design.trials[order], design.offset[order]
    unit, shift = family.scale(y), np.zeros(len(scaling.Bx))
    if family.link == "identity" and not family.has_trials:  # β̃ is what differs from the mean
        shift = scaling.shift
        offset = offset + design.X[order] @ shift
    if family.location:  # differences of large numbers are taken once
        y, offset = y - offset, np.zeros(len(y))
    X, Z = np.ascontiguousarray(XY[:-1].T) * (root * unit), np.concatenate(Zs).T.copy() * unit
    scaling = replace(scaling, Bx=scaling.Bx / (root * unit), Bz=scaling.Bz / unit, shift=shift, y_scale=1.0)
    return GeneralisedRows(family, y, n, offset, family.constant(y, n), X, Z, start, scaling, order)


class Marginal:
    """What the kernel returns at one point: values by subject, gradient, modes and their covariances in u."""

    def __init__(self, rows: GeneralisedRows, modes: FloatArray) -> None:
        J, q = modes.shape
        self.modes = modes.copy()
        self.value, self.e, self.covariance = np.zeros(J), np.zeros(len(rows.y)), np.zeros((J, q, q))
        self.in_Lambda, self.in_psi, self.found = np.zeros((q, q)), np.zeros(0), True


@dataclass(eq=False)
class GeneralisedCriterion:
    """−2 log-likelihood as a function of ``(λ, β̃, ψ)``.

    Attributes
    ----------
    rows : GeneralisedRows
    structure : RandomCovariance
    points : int
        Quadrature points in each dimension; 1 is Laplace's method.
    n_psi : int
        Number of dispersion parameters.
    first : (J, q), optional
        Modes from which every evaluation sets out, so that equal parameters have equal values to the last bit; by
        default those of the evaluation before, which are close by while a search goes on.
    """

    rows: GeneralisedRows
    structure: RandomCovariance
    points: int
    n_psi: int
    reml: bool = False
    first: FloatArray | None = None
    has_quadrature: ClassVar[bool] = True
    """Whether the integral is one of few dimensions for each subject, which quadrature can do as well."""

    def __post_init__(self) -> None:
        self.nodes, self.log_weights = quadrature(self.points, self.structure.q)
        self._modes = np.zeros((len(self.rows.start) - 1, self.structure.q)) if self.first is None else self.first

    @property
    def scaling(self) -> Scaling:
        """How the working columns relate to the user's."""
        return self.rows.scaling

    def solution(self, parameters: FloatArray) -> GeneralisedSolution:
        """What follows from parameters."""
        return GeneralisedSolution(self, parameters)

    @property
    def is_small(self) -> bool:
        """Whether the search may set out from several points, or from one only, because an evaluation takes long."""
        return True

    def split(self, parameters: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """λ, β̃ and ψ."""
        m, p = self.structure.n_parameters, len(self.scaling.Bx)
        return parameters[:m], parameters[m : m + p], parameters[m + p :]

    def at(self, parameters: FloatArray) -> Marginal:
        """Integrate the random effects out at one point."""
        found, pieces = self._integrated(parameters, self._pieces)
        found.in_Lambda = np.sum([piece[0] for piece in pieces], axis=0)
        found.in_psi = np.sum([piece[1] for piece in pieces], axis=0)
        if self.first is None and found.found and np.all(np.isfinite(found.modes)):
            self._modes = found.modes
        return found

    def gradients(self, parameters: FloatArray) -> FloatArray:
        """Gradient of what every subject adds to the criterion, (J, k)."""
        found, pieces = self._integrated(parameters, list(pairwise(range(len(self.rows.start)))))
        by_lam = [self.structure.pull_back(piece[0]) for piece in pieces]
        by_beta = np.add.reduceat(self.rows.X * found.e[:, None], self.rows.start[:-1])
        return -2.0 * np.column_stack([np.array(by_lam), by_beta, np.array([piece[1] for piece in pieces])])

    def _integrated(
        self, parameters: FloatArray, ranges: list[tuple[int, int]]
    ) -> tuple[Marginal, list[tuple[FloatArray, FloatArray, bool]]]:
        """What the kernel returns: by subject, and its sums over each range of subjects."""
        lam, beta, psi = self.split(np.asarray(parameters, dtype=np.float64))
        rows, Lambda = self.rows, np.ascontiguousarray(self.structure.factor(lam))
        # From modes close by; where a subject can have several, from the same points every time.
        found = Marginal(rows, self._modes)
        given, derivatives = rows.offset + rows.X @ beta, rows.family.derivatives
        data = (rows.start, rows.y, rows.n, given, rows.Z, Lambda, np.ascontiguousarray(psi))

        def some(ends: tuple[int, int]) -> tuple[FloatArray, FloatArray, bool]:
            if not rows.family.log_concave:
                mode_starts(derivatives, *ends, *data, rows.targets, found.modes)
            quadrature = self.nodes, self.log_weights
            own = found.modes, found.value, found.e, found.covariance
            return marginal_sums(derivatives, *ends, *data, *quadrature, *own)

        pieces = list(_pool().map(some, ranges)) if len(self._pieces) > 1 else list(map(some, ranges))
        found.found = all(piece[2] for piece in pieces)
        return found, pieces

    def settled(self, parameters: FloatArray) -> GeneralisedCriterion:
        """The same criterion, whose evaluations all set out from the modes at these parameters."""
        return replace(self, first=np.nan_to_num(self.at(parameters).modes, posinf=0.0, neginf=0.0))

    @cached_property
    def _pieces(self) -> list[tuple[int, int]]:
        """Ranges of subjects for the threads, of about as many rows."""
        start = self.rows.start
        number = int(np.clip(start[-1] // ROWS_OF_A_THREAD, 1, os.cpu_count() or 1))
        ends = np.searchsorted(start, np.linspace(0, start[-1], number + 1)[1:-1])
        bounds = np.unique([0, *ends, len(start) - 1])
        return [(int(a), int(b)) for a, b in pairwise(bounds)]

    def __call__(self, parameters: FloatArray) -> float:
        """Value."""
        return self.evaluate(parameters).value

    def evaluate(self, parameters: FloatArray) -> Evaluation:
        """Value, gradient, and where D is singular the gradient in B = ΛΛ'."""
        return self._evaluation(parameters, boundary=True)

    def both(self, parameters: FloatArray) -> tuple[float, FloatArray]:
        """Value and gradient."""
        found = self._evaluation(parameters, boundary=False)
        return found.value, found.gradient

    def _evaluation(self, parameters: FloatArray, *, boundary: bool) -> Evaluation:
        at, m = self.at(parameters), self.structure.n_parameters
        value = -2.0 * float(np.sum(at.value) + np.sum(self.rows.constant))
        nothing = np.zeros((self.structure.q, self.structure.q))
        if not (at.found and np.isfinite(value)):
            return Evaluation(np.inf, np.zeros(len(parameters)), nothing)
        gradient = np.concatenate([self.structure.pull_back(at.in_Lambda), self.rows.X.T @ at.e, at.in_psi])
        if boundary:
            nothing = self._in_B(parameters[:m], parameters)
        return Evaluation(value, -2.0 * gradient, nothing)

    def _in_B(self, lam: FloatArray, parameters: FloatArray) -> FloatArray:
        """Gradient in B on the null directions of Λ, by differences; zero where Λ has none.

        The criterion is even in a column of Λ that is zero: with a column ``τ v`` more, it changes by ``τ² v'Gv``.
        """
        Lambda = self.structure.factor(lam)
        vectors, values, right = np.linalg.svd(Lambda)
        null = np.flatnonzero(values < SINGULAR_TOLERANCE)
        G = np.zeros_like(Lambda)
        if not null.size:
            return G
        free, step = right[null[0]], 1e-3
        slopes = np.zeros((len(null), len(null)))
        for a, i in enumerate(null):
            for c, k in enumerate(null[: a + 1]):
                v = vectors[:, i] + (vectors[:, k] if i != k else 0.0)
                slopes[a, c] = slopes[c, a] = self._slope(Lambda, np.outer(v, free), parameters, step)
        diagonal = np.diag(slopes).copy()
        for a in range(len(null)):
            for c in range(a):
                slopes[a, c] = slopes[c, a] = 0.5 * (slopes[a, c] - diagonal[a] - diagonal[c])
        return vectors[:, null] @ slopes @ vectors[:, null].T

    def _slope(self, Lambda: FloatArray, direction: FloatArray, parameters: FloatArray, step: float) -> float:
        """Derivative of the criterion by τ² along ``Λ + τ direction``, whose own derivative by τ is odd."""
        _, beta, psi = self.split(parameters)
        free = replace_structure(self, np.asarray(Lambda))
        gradient = free(Lambda + step * direction, beta, psi)
        return -2.0 * float(np.sum(gradient * direction)) / (2.0 * step)


def replace_structure(criterion: GeneralisedCriterion, Lambda: FloatArray) -> Callable[..., FloatArray]:
    """The gradient of the log-likelihood in a Λ of any form."""
    other = free_criterion(criterion.rows, len(Lambda), criterion.points, criterion.n_psi)

    def gradient(at: FloatArray, beta: FloatArray, psi: FloatArray) -> FloatArray:
        return other.at(np.concatenate([at.ravel(), beta, psi])).in_Lambda

    return gradient


def free_criterion(rows: GeneralisedRows, q: int, points: int, n_psi: int) -> GeneralisedCriterion:
    """The criterion as a function of all entries of Λ, row by row."""
    return GeneralisedCriterion(rows, free_structure(q), points, n_psi)


def free_structure(q: int) -> RandomCovariance:
    """All entries of Λ, row by row."""
    return RandomCovariance("free", q, (tuple(range(q)),), *np.divmod(np.arange(q * q), q), np.arange(q * q))


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count() or 1)


@dataclass(frozen=True, eq=False)
class GeneralisedSolution:
    """β, ψ, D and the subjects' random effects at one point, in the user's units."""

    criterion: GeneralisedCriterion
    parameters: FloatArray

    @cached_property
    def parts(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """λ, β̃ and ψ."""
        return self.criterion.split(self.parameters)

    @cached_property
    def marginal(self) -> Marginal:
        """What the kernel says there."""
        return self.criterion.at(self.parameters)

    @cached_property
    def beta(self) -> FloatArray:
        """Fixed effects, (p,)."""
        return self.criterion.scaling.beta(self.parts[1])

    @property
    def psi(self) -> FloatArray:
        """Unconstrained dispersion parameters, (m,)."""
        return self.parts[2]

    @cached_property
    def root(self) -> FloatArray:
        """H with D = HH', (q, q)."""
        return self.criterion.scaling.factor(self.criterion.structure.factor(self.parts[0]))

    @cached_property
    def D(self) -> FloatArray:
        """Covariance of the random effects, (q, q)."""
        return self.root @ self.root.T

    def line(self, design: Design) -> FloatArray:
        """Linear predictors of the rows of a design, random effects at their modes, (N,)."""
        return design.offset + design.X @ self.beta + np.einsum("ij,ij->i", design.Z, self.b[design.subject_index])

    @cached_property
    def b(self) -> FloatArray:
        """Conditional modes of the random effects given y, β̂, θ̂ and ψ̂, (J, q)."""
        return self.marginal.modes @ self.root.T

    @cached_property
    def b_cov(self) -> FloatArray:
        """Inverse curvature at the modes (lme4's ``condVar``), (J, q, q)."""
        return self.root @ self.marginal.covariance @ self.root.T

    @cached_property
    def subject_loglik(self) -> FloatArray:
        """Marginal log-likelihood of each subject, (J,)."""
        rows = self.criterion.rows
        return self.marginal.value + np.add.reduceat(rows.constant, rows.start[:-1])


def generalised_criterion(design: Design, points: int = 1) -> GeneralisedCriterion:
    """The criterion of a design with a family."""
    structure = design.random_structure
    rows = generalised_rows(design)
    return GeneralisedCriterion(rows, structure, points, len(design.family.first_psi(rows.y, rows.n)))
