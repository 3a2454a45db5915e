"""REML and ML where rows share groups of several factors, nested or crossed.

    y = Xβ + Σ_k Z_k b_k + e,      b_kj ~ N(0, D_k) for every group j of factor k,      e ~ N(0, σ²I)

The criterion is that of `criterion`. Only what it needs of the data at one Λ, [X, y]'V⁻¹[X, y], log|V| and their
derivatives, is found in another way: by elimination (`forest_kernel`) of the factors that are nested in each other, and
one dense Cholesky factorisation for all others (Bates et al. 2015, J. Stat. Softw. 67, section 5; MixedModels.jl has
the same blocks). Λ = diag(Λ_1, ..., Λ_K) holds the factors in the order of the formula.

    [X, y]'V⁻¹[X, y] = E'E + Σ_k u_k'(I ⊗ B_k)u_k,      E = [X, y] − Z m,      m = (I ⊗ B)u,      u = Z'V⁻¹[X, y]

is a sum of squares, so that nothing cancels however well the groups explain the response.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, NoReturn

import numpy as np

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.covariance.random import RandomCovariance, random_covariance
from hierlmm.design.design import Design
from hierlmm.design.formula import MULTILEVEL
from hierlmm.errors import NotAvailableError
from hierlmm.likelihood.conditional import ConditionalEffects
from hierlmm.likelihood.criterion import Criterion, Evaluation
from hierlmm.likelihood.crossproducts import Scaling, working_rows
from hierlmm.likelihood.forest import Factor
from hierlmm.likelihood.forest_kernel import come_back, eliminate
from hierlmm.likelihood.forest_layout import GroupedRows, grouped_rows
from hierlmm.likelihood.forest_rest import Rest, Singular, one_thread
from hierlmm.likelihood.forest_rows import squares_of_rest
from hierlmm.likelihood.forest_solve import backward, forward
from hierlmm.likelihood.forest_sums import factor_sums
from hierlmm.likelihood.kernel import PatternSums
from hierlmm.likelihood.solution import Solution

MOST_CELLS = 0.7
"""Cells of equal rows, as a share of the rows, up to which rows are summed up by them."""
SEARCHABLE = 1.2e8
"""Work of a search, in a hundred ns, up to which it is made."""
SMALL_REST = 150
"""Random effects of the rest up to which plain loops are faster than a library for dense matrices."""


class Gathered(NamedTuple):
    """What the data say at one Λ, beside `PatternSums`: modes and covariances of the random effects, σ = 1."""

    sums: PatternSums
    mean: FloatArray
    own: tuple[FloatArray, ...]


@dataclass(frozen=True, eq=False)
class FactorProducts(GroupedRows):
    """Rows of a model with several grouping factors, in working columns, and their products in order of elimination.

    Attributes
    ----------
    XY : (P, N)
        [X̃, ỹ].
    E, rest
        See `forest_rows.products_of_rows`.
    c : (T, P)
        Z'[X̃, ỹ].
    n_obs, n_fixed : int
    scaling : Scaling
    S_w : (P, P)
        Cross-products of [X̃, ỹ] that no random effect can reach: within cells of rows with the same random effects.
    log_det : float
        Zero.
    """

    XY: FloatArray
    E: FloatArray
    rest: FloatArray
    c: FloatArray
    S_w: FloatArray
    n_obs: int
    n_fixed: int
    scaling: Scaling
    log_det: float = 0.0
    _last: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def is_small(self) -> bool:
        """Whether the space can be searched in some ten seconds.

        An evaluation takes about n_rest³ ns, or 500 ns a row with random slopes; a search of m parameters a hundred m².
        """
        m = sum(q * (q + 1) // 2 for q in self.sizes)
        return m**2 * (self.forest.n_rest**3 + 500 * self.XY.shape[1]) < SEARCHABLE

    @property
    def rest_is_small(self) -> bool:
        """Whether plain loops are faster for the rest than a library for dense matrices."""
        return self.forest.n_rest <= SMALL_REST

    @cached_property
    def start(self) -> FloatArray:
        """Relative factors Λ (Q, Q), diagonal, from moments: quadratic forms of the response set to what they expect.

        MIVQUE(0) (Rao 1972): with r the residuals of least squares and τ the variances of all columns, σ² the last,
        ``‖Z_k'r‖² = Σ_l ‖Z_k'Z_l‖² τ_l``; X is left out on the right side.
        """
        all_rows = self.XY @ self.XY.T + self.S_w
        gamma = np.append(-np.linalg.solve(all_rows[:-1, :-1], all_rows[:-1, -1]), 1.0)
        r = gamma @ self.XY
        squares = np.array([*(float(np.sum((Z.T @ r) ** 2)) for Z in self._columns), gamma @ all_rows @ gamma])
        tau = np.linalg.lstsq(self.overlaps, squares, rcond=None)[0]
        relative = tau[:-1] / max(tau[-1], 1e-3 * squares[-1] / self.n_obs)
        Lambda = np.zeros((self.at[-1], self.at[-1]))
        Lambda[np.diag_indices(len(Lambda))] = np.sqrt(np.clip(relative, 1e-2, 1e2))
        return Lambda

    @property
    def _columns(self) -> list[Any]:
        """Z of each random effect in the order of the formula, sparse (n, J)."""
        Z = self.Z.tocsc()
        return [Z[:, lo + a : hi : self.sizes[k]] for k, lo, hi in sorted(self.spans) for a in range(self.sizes[k])]

    @cached_property
    def overlaps(self) -> FloatArray:
        """Tr(Z_k Z_k' Z_l Z_l') of all random effects, the last of them I of the residual: (Q + 1, Q + 1)."""
        from scipy.sparse import eye_array

        parts = [*self._columns, eye_array(self.XY.shape[1], format="csc")]
        S = np.array([[float((a.T @ b).power(2).sum()) for b in parts] for a in parts])
        S[-1, -1] = self.n_obs
        return S

    @property
    def dense_Z(self) -> FloatArray:
        """Z of all random effects, factor by factor and group by group: (N, T)."""
        return np.concatenate([self.Z[:, lo:hi].toarray() for _, lo, hi in sorted(self.spans)], axis=1)

    def gather(self, Lambda: FloatArray) -> Gathered:
        """What the data say at one Λ (Q, Q); a search asks for the last one again."""
        key = Lambda.tobytes()
        last: tuple[bytes, Gathered] | None = self._last.get("at")
        if last is None or last[0] != key:
            with nullcontext() if self.rest_is_small else one_thread():
                last = self._last["at"] = (key, self._gather(Lambda))
        return last[1]

    @cached_property
    def packed(self) -> FloatArray:
        """Rows, products and the order of elimination as one vector, which `forest_sums.factor_sums` reads."""
        f = self.forest
        sizes = *self.z.shape, len(f.plan.q), f.plan.line[-1], len(f.plan.reach), len(self.E), f.n_rest
        integers = sizes, *f.plan, f.number, self.order, self.dense
        plan = (np.asarray(a, dtype=np.int64).ravel().view(np.float64) for a in integers)
        numbers = self.z, self.XY, self.E, self.rest, self.c
        return np.concatenate([*plan, *map(np.ravel, numbers)])

    @property
    def R(self) -> FloatArray:
        """No design patterns: these are of subjects whose rows share nothing."""
        return np.empty((self.at[-1], self.at[-1], 0))

    @property
    def C(self) -> FloatArray:
        """See ``R``."""
        return np.empty((self.at[-1], len(self.XY), 0))

    @property
    def weight(self) -> FloatArray:
        """See ``R``."""
        return np.empty(0)

    def _at_once(self, Lambda: FloatArray) -> Gathered:
        """What `_gather` finds, by one compiled function."""
        sums, mean, spreads, Pi = factor_sums(self.packed, len(self.XY), np.ascontiguousarray(Lambda))
        if np.isnan(sums.log_det_T) and np.isfinite(Lambda).all():
            raise Singular
        parts = []
        for k, lo, hi in self.rest_spans:
            at = np.arange(lo, hi).reshape(-1, self.sizes[k])
            parts.append((k, sums.EE[self.own(k), self.own(k)], Pi[at[:, :, None], at[:, None, :]]))
        own = self.collect(sums.EE[np.ix_(self.order, self.order)], spreads, parts)[1]
        return Gathered(sums, mean, own)

    def _gather(self, Lambda: FloatArray) -> Gathered:
        if self.rest_is_small:
            return self._at_once(Lambda)
        E, rest, c = self.E.copy(), self.rest.copy(), self.c.copy()
        plan, of_chain = self.forest.plan, self.of_chain(Lambda)
        log_det, H = eliminate(E, rest, of_chain, plan)
        forward(E, H, c, of_chain, plan)
        q, (T, P) = self.at[-1], c.shape
        U, mean, u, end = np.zeros((q, q, P, P)), np.zeros((T, P)), np.zeros((T, P)), self.forest.end
        root = Rest(self, Lambda, rest)
        log_det += root.log_det
        mean[end:], u[end:], of_rest = root.moments(c[end:])
        backward(E, H, c, of_chain, mean, u, np.empty((0, P)), plan)
        of_levels, spreads, *_ = come_back(E, H, of_chain, root.Pi, plan)
        EE, own = self.collect(of_levels, spreads, of_rest)
        G = squares_of_rest(self.z, self.forest.number, self.XY, mean)
        for k, part in self.parts(u):
            rows = part.reshape(len(part), -1)
            size = self.sizes[k]
            products = (rows.T @ rows).reshape(size, P, size, P).transpose(0, 2, 1, 3)
            U[self.own(k), self.own(k)] = products
            Lam = self.block(Lambda, k)
            G += np.einsum("ij,ijab->ab", Lam @ Lam.T, products)
        return Gathered(PatternSums(G, log_det, EE, U), mean, own)


def factor_products(design: Design) -> FactorProducts:
    """Rows of a design with several random terms, in working columns, and their products."""
    XY, Zs, scaling = working_rows(design, np.arange(design.n_obs))
    indices = [term.group.index.astype(np.int64) for term in design.random]
    Zs, XY, indices, S_w = _cells(Zs, XY, indices)
    n_groups = [len(term.group.labels) for term in design.random]
    factors = [Factor(*own) for own in zip(indices, n_groups, Zs, strict=True)]
    rows = grouped_rows(factors)
    E, rest = rows.products(np.ones(XY.shape[1]))
    data = {"XY": XY, "E": E, "rest": rest, "c": rows.Z.T @ XY.T, "S_w": S_w}
    own = {"n_obs": design.n_obs, "n_fixed": len(design.coef), "scaling": scaling}
    return FactorProducts(rows.forest, rows.sizes, rows.n_groups, rows.z, **data, **own)  # type: ignore[arg-type]


def _cells(
    Zs: list[FloatArray], XY: FloatArray, indices: list[IntArray]
) -> tuple[list[FloatArray], FloatArray, list[IntArray], FloatArray]:
    """Rows with the same groups of every factor as one, where each factor has an intercept only.

    n rows of equal Z are an orthogonal transformation away from one with √n Z and √n times the mean of [X, y], and
    n - 1 in which Z is zero, of which the cross-products are all that matters, (P, P).
    """
    nothing = np.zeros((len(XY), len(XY)))
    if any(len(Z) > 1 or np.ptp(Z) > 0.0 for Z in Zs):
        return Zs, XY, indices, nothing
    key = indices[0]
    for index in indices[1:]:  # numbered anew each time, so that no product of sizes is too large
        key = np.unique(key * (int(index.max()) + 1) + index, return_inverse=True)[1]
    _, first, count = np.unique(key, return_index=True, return_counts=True)
    if len(first) > MOST_CELLS * len(key):
        return Zs, XY, indices, nothing
    means = np.array([np.bincount(key, weights=row) for row in XY]) / count
    within, root = XY - means[:, key], np.sqrt(count)
    return [Z[:, first] * root for Z in Zs], means * root, [index[first] for index in indices], within @ within.T


def structure_of(design: Design) -> RandomCovariance:
    """The structure of D = diag(D_1, ..., D_K)."""
    blocks, at = [], 0
    for term in design.random:
        blocks += [tuple(at + k for k in block) for block in term.columns.blocks]
        at += len(term.columns.names)
    return random_covariance("diagonal" if all(len(b) == 1 for b in blocks) else "blocks", tuple(blocks))


@dataclass(frozen=True, eq=False)
class FactorCriterion(Criterion):
    """The REML or ML criterion of a design with several random terms, in λ of all of them."""

    products: FactorProducts  # type: ignore[assignment]

    @property
    def is_small(self) -> bool:
        """See `FactorProducts`."""
        return self.products.is_small

    def _sums(self, Lambda: FloatArray) -> PatternSums:
        return self.products.gather(Lambda).sums

    def __call__(self, lam: FloatArray) -> float:
        """See `Criterion`; infinite where Λ is so large that rounding takes what is left of V."""
        try:
            return super().__call__(lam)
        except Singular:
            return np.inf

    def evaluate(self, lam: FloatArray) -> Evaluation:
        """As a call, with gradients."""
        try:
            return super().evaluate(lam)
        except Singular:
            Lambda = self.structure.factor(np.asarray(lam, dtype=float))
            return Evaluation(np.inf, np.full(self.structure.n_parameters, np.nan), np.full_like(Lambda, np.nan))

    def expected_hessian(self, lam: FloatArray) -> FloatArray:
        """About the expected second derivatives in λ, (m, m), tr(V⁻¹ ∂V/∂λ_r V⁻¹ ∂V/∂λ_s), at no further evaluation.

        With E the mean of Z_g'V⁻¹Z_g over the J groups of a factor, J tr(E ∂B/∂λ_r E ∂B/∂λ_s): as if all groups were
        alike and no two of them were correlated given V⁻¹.
        """
        structure, Lambda = self.structure, self.structure.factor(lam)
        E = self._sums(Lambda).EE / np.sqrt(np.repeat(self.products.n_groups, self.products.sizes))
        d_Lambda = np.zeros((structure.n_parameters, *Lambda.shape))
        d_Lambda[structure.index, structure.row, structure.col] = 1.0
        half = d_Lambda @ Lambda.T
        found: FloatArray = np.einsum("rij,sji->rs", *2 * [E @ (half + half.transpose(0, 2, 1))])
        return found

    def solution(self, lam: FloatArray, working_sd: float | None = None) -> FactorSolution:
        """What follows from λ, and from σ̃ in working units of y (its best value, unless it is given)."""
        return FactorSolution(self, lam, working_sd)


@dataclass(frozen=True, eq=False)
class FactorSolution(Solution):
    """β, D, σ and the random effects of every factor at one θ, in the user's units; D is block diagonal."""

    criterion: FactorCriterion

    @property
    def effects(self) -> NoReturn:
        """Not by subject: ``by_factor`` has the effects of each factor."""
        reason, remedy = "there is one kind of groups for each of several factors", "use solution.by_factor"
        raise NotAvailableError("effects by subject", reason, remedy, MULTILEVEL)

    @cached_property
    def by_factor(self) -> tuple[ConditionalEffects, ...]:
        """Distribution of the random effects of each factor given y, in the order of the formula."""
        data, scaling, p = self.criterion.products, self.criterion.scaling, self.criterion.products.n_fixed
        found = data.gather(self.Lambda)
        effects: list[ConditionalEffects] = [ConditionalEffects(*[np.empty(0)] * 3)] * len(data.sizes)
        for k, mean in data.parts(found.mean):
            back = np.linalg.inv(data.block(scaling.Bz, k))
            user = back @ mean
            slope = user[:, :, :p] @ scaling.Bx
            origin = user[:, :, p] * scaling.y_scale + slope @ scaling.shift
            covariance = self.whitened_sd**2 * back @ found.own[k] @ back.T
            effects[k] = ConditionalEffects(origin, slope, covariance)
        return tuple(effects)


def marginal_log_likelihood(design: Design, beta: FloatArray, D: FloatArray, sigma: float) -> float:
    """Log density of the response with the random effects of all factors integrated out, in the user's units."""
    data = factor_products(design)
    scaling = data.scaling
    sums = data.gather(np.ascontiguousarray(scaling.Bz @ data.root(D) / sigma)).sums
    gamma = np.append(-(scaling.Bx @ (beta - scaling.shift)) / scaling.y_scale, 1.0)
    squares = float(gamma @ (data.S_w + sums.G) @ gamma) * (scaling.y_scale / sigma) ** 2
    return -0.5 * (design.n_obs * np.log(2.0 * np.pi * sigma**2) + sums.log_det_T + squares)


def factor_criterion(design: Design, *, reml: bool) -> FactorCriterion:
    """The criterion of a design with several random terms."""
    return FactorCriterion(factor_products(design), structure_of(design), reml)
