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

import itertools
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any, NamedTuple, NoReturn

import numpy as np
from scipy.linalg import lapack
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.covariance.random import RandomCovariance, random_covariance
from hierlmm.design.design import Design
from hierlmm.design.formula import MULTILEVEL
from hierlmm.errors import NotAvailableError
from hierlmm.likelihood.conditional import ConditionalEffects
from hierlmm.likelihood.criterion import Criterion
from hierlmm.likelihood.crossproducts import Scaling, working_rows
from hierlmm.likelihood.forest import Factor, Forest, plant
from hierlmm.likelihood.forest_kernel import come_back, eliminate, mirror
from hierlmm.likelihood.forest_rows import products_of_rows, squares_of_rest
from hierlmm.likelihood.kernel import PatternSums
from hierlmm.likelihood.solution import Solution

MOST_CELLS = 0.7
"""Cells of equal rows, as a share of the rows, up to which rows are summed up by them."""
WELL_DETERMINED = 1e-3
"""Of the smallest λ² z'z of a factor: from there on Λ may be divided by."""


@cache
def blas() -> ThreadpoolController:
    """The BLAS libraries in use."""
    return ThreadpoolController()


class Gathered(NamedTuple):
    """What the data say at one Λ, beside `PatternSums`: modes and covariances of the random effects, σ = 1."""

    sums: PatternSums
    mean: FloatArray
    own: tuple[FloatArray, ...]


@dataclass(frozen=True, eq=False)
class FactorProducts:
    """Rows of a model with several grouping factors, in working columns, and their products in order of elimination.

    Attributes
    ----------
    forest : Forest
    sizes, n_groups : tuple of int
        Random effects a group, and groups, of every factor in the order of the formula.
    Z : (Q, N), XY : (P, N), group : (m, N), zr : (N, w)
        Columns of the chain, [X̃, ỹ], groups of the chain, columns of the rest.
    E, leaf, upper, rest, c
        See `forest_rows.products_of_rows`.
    n_obs, n_fixed : int
    scaling : Scaling
    S_w : (P, P)
        Cross-products of [X̃, ỹ] that no random effect can reach: within cells of rows with the same random effects.
    log_det : float
        Zero.
    """

    forest: Forest
    sizes: tuple[int, ...]
    n_groups: tuple[int, ...]
    Z: FloatArray
    XY: FloatArray
    group: np.ndarray
    zr: FloatArray
    E: FloatArray
    leaf: FloatArray
    upper: FloatArray
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
        """Whether an evaluation takes so little that the space can be searched: below some milliseconds."""
        return self.forest.n_rest**3 + 100 * self.n_obs < 2e7

    @cached_property
    def start(self) -> FloatArray:
        """Relative factors Λ (Q, Q), diagonal, from moments: quadratic forms of the response set to what they expect.

        MIVQUE(0) (Rao 1972): with r the residuals of least squares and τ the variances of all columns, σ² the last,
        ``‖Z_k'r‖² = Σ_l ‖Z_k'Z_l‖² τ_l``; X is left out on the right side.
        """
        from scipy.sparse import eye_array

        N = self.XY.shape[1]
        all_rows = self.XY @ self.XY.T + self.S_w
        gamma = np.append(-np.linalg.solve(all_rows[:-1, :-1], all_rows[:-1, -1]), 1.0)
        r = gamma @ self.XY
        parts = [own for each in self.columns for own in each]
        parts.append(eye_array(N, format="csr"))
        S = np.array([[float((a.T @ b).power(2).sum()) for b in parts] for a in parts])
        squares = np.array([float(np.sum((Z.T @ r) ** 2)) for Z in parts])
        S[-1, -1], squares[-1] = self.n_obs, gamma @ all_rows @ gamma
        tau = np.linalg.lstsq(S, squares, rcond=None)[0]
        relative = tau[:-1] / max(tau[-1], 1e-3 * squares[-1] / self.n_obs)
        Lambda = np.zeros((self.at[-1], self.at[-1]))
        Lambda[np.diag_indices(len(Lambda))] = np.sqrt(np.clip(relative, 1e-2, 1e2))
        return Lambda

    @cached_property
    def at(self) -> tuple[int, ...]:
        """Position of the first random effect of each factor in Λ."""
        return tuple(int(k) for k in np.concatenate([[0], np.cumsum(self.sizes)]))

    def own(self, k: int) -> slice:
        """Positions of the random effects of factor k in Λ."""
        return slice(self.at[k], self.at[k + 1])

    def block(self, Lambda: FloatArray, k: int) -> FloatArray:
        """Λ of factor k."""
        return Lambda[self.own(k), self.own(k)]

    @cached_property
    def columns(self) -> list[list[Any]]:
        """Sparse columns of Z by factor, in the order of the formula, and by random effect: (N, J) each."""
        from scipy.sparse import csr_array

        f, N = self.forest, self.XY.shape[1]
        found: list[list[Any]] = [[] for _ in self.sizes]
        rows, at = np.arange(N), 0
        for level, k in enumerate(f.chain):
            for _ in range(self.sizes[k]):
                found[k].append(csr_array((self.Z[at], (rows, self.group[level])), shape=(N, self.n_groups[k])))
                at += 1
        at = 0
        for k, (lo, _) in zip(f.rest, self.rest_slices, strict=True):
            for _ in range(self.sizes[k]):
                group = (f.rest_column[:, at] - lo) // self.sizes[k]
                found[k].append(csr_array((self.zr[:, at], (rows, group)), shape=(N, self.n_groups[k])))
                at += 1
        return found

    @property
    def dense_Z(self) -> FloatArray:
        """Z of all random effects, factor by factor and group by group: (N, T)."""
        parts = [np.stack([own.toarray() for own in each], axis=2) for each in self.columns]
        return np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)

    def gather(self, Lambda: FloatArray) -> Gathered:
        """What the data say at one Λ (Q, Q); a search asks for the last one again."""
        key = Lambda.tobytes()
        last: tuple[bytes, Gathered] | None = self._last.get("at")
        if last is None or last[0] != key:
            # Threads of a BLAS library that wait for each other cost more than they bring as soon as others work too.
            with blas().limit(limits=1, user_api="blas") if self.forest.n_rest else nullcontext():
                last = self._last["at"] = (key, self._gather(Lambda))
        return last[1]

    def _gather(self, Lambda: FloatArray) -> Gathered:
        f = self.forest
        E, leaf, upper, rest, c = (a.copy() for a in (self.E, self.leaf, self.upper, self.rest, self.c))
        plan = (f.q, f.J, f.first, f.width, f.above, f.start, f.column)
        order = [i for k in f.chain for i in range(self.at[k], self.at[k + 1])]
        of_chain = np.ascontiguousarray(Lambda[np.ix_(order, order)])
        log_det = eliminate(E, leaf, upper, rest, c, of_chain, *plan)
        q, P = self.at[-1], len(self.XY)
        EE, U = np.zeros((q, q)), np.zeros((q, q, P, P))
        mean, u = np.zeros((len(c), P)), np.zeros((len(c), P))
        own: list[FloatArray] = [np.empty(0)] * len(self.sizes)
        chain_end = f.first[-1]
        root = _Rest(self, Lambda, rest, c[chain_end:])
        log_det += root.log_det
        mean[chain_end:], u[chain_end:] = root.mean, root.u
        for k, sums, spread in root.parts:
            EE[self.own(k), self.own(k)] = sums
            own[k] = spread
        of_levels, u[:chain_end], spreads = come_back(E, leaf, upper, c, of_chain, root.Pi, mean, *plan)
        EE[np.ix_(order, order)] += of_levels
        for level, k in enumerate(f.chain):
            size = self.sizes[k]
            own[k] = spreads[f.first[level] : f.first[level + 1], :size].reshape(-1, size, size)
        G = squares_of_rest(self.Z, self.XY, self.group, f.q, f.first, self.zr, f.rest_column, mean)
        for k, part in self.parts(u):
            rows = part.reshape(len(part), -1)
            size = self.sizes[k]
            products = (rows.T @ rows).reshape(size, P, size, P).transpose(0, 2, 1, 3)
            U[self.own(k), self.own(k)] = products
            Lam = self.block(Lambda, k)
            G += np.einsum("ij,ijab->ab", Lam @ Lam.T, products)
        return Gathered(PatternSums(G, log_det, EE, U), mean, tuple(own))

    def parts(self, values: FloatArray) -> list[tuple[int, FloatArray]]:
        """Rows of all random effects (T, P) by factor: pairs of a factor and its (J, q, P)."""
        f, found = self.forest, []
        for level, k in enumerate(f.chain):
            found.append((k, values[f.first[level] : f.first[level + 1]].reshape(-1, self.sizes[k], values.shape[1])))
        begin = int(f.first[-1])
        for k, (lo, hi) in zip(f.rest, self.rest_slices, strict=True):
            found.append((k, values[begin + lo : begin + hi].reshape(-1, self.sizes[k], values.shape[1])))
        return found

    @cached_property
    def rest_slices(self) -> list[tuple[int, int]]:
        """Columns of each factor of the rest."""
        ends = np.cumsum([0, *(self.n_groups[k] * self.sizes[k] for k in self.forest.rest)]).tolist()
        return list(itertools.pairwise(ends))


class _Rest:
    """The dense block: log-determinant, Π, conditional means m = Πc, and u = c − C m (r, P) of the factors left over.

    With M = I + Λ'CΛ, Π = ΛM⁻¹Λ'. The diagonal blocks of ``Z'V⁻¹Z = C − CΠC`` are those of Λ⁻ᵀ(I − M⁻¹)Λ⁻¹ as well,
    and ``u = Λ⁻ᵀM⁻¹Λ'c``, which costs nothing but loses digits where Λ is small; there the first form is used.
    """

    def __init__(self, data: FactorProducts, Lambda: FloatArray, C: FloatArray, c: FloatArray) -> None:
        self.parts: list[tuple[int, FloatArray, FloatArray]] = []
        self.log_det, self.Pi, self.mean, self.u = 0.0, C, np.zeros_like(c), np.zeros_like(c)
        r = len(c)
        if r == 0:
            return
        blocks = [
            (k, slice(*ends), data.block(Lambda, k)) for k, ends in zip(data.forest.rest, data.rest_slices, strict=True)
        ]
        M = _between(C, blocks, transposed=True)
        M[np.diag_indices(r)] += 1.0
        # Symmetric: the transpose is the same matrix in the order of columns that LAPACK wants.
        L, info = lapack.dpotrf(M.T, lower=1, overwrite_a=1)
        if info:
            raise np.linalg.LinAlgError("a covariance of random effects that is not positive definite")
        self.log_det = 2.0 * float(np.log(np.diag(L)).sum())
        inverse = lapack.dpotri(L, lower=1, overwrite_c=1)[0].T
        mirror(inverse)
        self.Pi = _between(inverse, blocks, transposed=False)
        self.mean = self.Pi @ c
        for k, own, Lam in blocks:
            q = len(Lam)
            at = np.arange(own.start, own.stop).reshape(-1, q)
            Pi, here = (A[at[:, :, None], at[:, None, :]] for A in (self.Pi, C))
            smallest = np.linalg.svd(Lam, compute_uv=False)[-1] ** 2
            if smallest * np.einsum("gaa->ga", here).min() > WELL_DETERMINED:
                back = np.linalg.inv(Lam)
                inner = inverse[at[:, :, None], at[:, None, :]].sum(axis=0)
                sums = back.T @ (len(at) * np.eye(q) - inner) @ back
                self.u[own] = (back.T @ (back @ self.mean[own].reshape(len(at), q, -1))).reshape(len(at) * q, -1)
            else:
                rows = C[own].reshape(len(at), q, r)
                sums = here.sum(axis=0) - np.einsum("gar,gbr->ab", rows @ self.Pi, rows)
                self.u[own] = c[own] - C[own] @ self.mean
            self.parts.append((k, 0.5 * (sums + sums.T), Pi))


def _between(A: FloatArray, blocks: list[tuple[int, slice, FloatArray]], *, transposed: bool) -> FloatArray:
    """(I ⊗ Λ)' A (I ⊗ Λ) of the factors of the rest, or (I ⊗ Λ) A (I ⊗ Λ)': a new array."""
    if all(len(Lam) == 1 for _, _, Lam in blocks):
        scale = np.concatenate([np.full(own.stop - own.start, Lam[0, 0]) for _, own, Lam in blocks])
        return A * scale[:, None] * scale
    for _ in range(2):  # A is symmetric: right, turned, right
        out = np.empty_like(A)
        for _, own, Lam in blocks:
            right = Lam if transposed else Lam.T
            out[:, own] = (A[:, own].reshape(len(A), -1, len(Lam)) @ right).reshape(len(A), -1)
        A = np.ascontiguousarray(out.T)
    return A


def factor_products(design: Design) -> FactorProducts:
    """Rows of a design with several random terms, in working columns, and their products."""
    XY, Zs, scaling = working_rows(design, np.arange(design.n_obs))
    indices = [term.group.index.astype(np.int64) for term in design.random]
    Zs, XY, indices, S_w = _cells(Zs, XY, indices)
    n_groups = [len(term.group.labels) for term in design.random]
    factors = [Factor(*own) for own in zip(indices, n_groups, Zs, strict=True)]
    forest = plant(factors)
    Z = np.concatenate([factors[k].Z for k in forest.chain])
    group = np.array([factors[k].index for k in forest.chain])
    zr = np.concatenate([np.empty((0, XY.shape[1])), *(factors[k].Z for k in forest.rest)]).T.copy()
    parts = products_of_rows(
        Z,
        XY,
        group,
        forest.q,
        forest.J,
        forest.first,
        forest.width,
        zr,
        forest.rest_column,
        forest.place,
        len(forest.column),
        forest.n_rest,
    )
    E, leaf, upper, rest, c = parts
    arrays = {"Z": Z, "XY": XY, "group": group, "zr": zr, "E": E, "leaf": leaf, "upper": upper, "rest": rest, "c": c}
    sizes, own = tuple(f.q for f in factors), {"n_obs": design.n_obs, "n_fixed": len(design.coef), "scaling": scaling}
    return FactorProducts(forest=forest, sizes=sizes, n_groups=tuple(n_groups), S_w=S_w, **arrays, **own)  # type: ignore[arg-type]


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

    def _sums(self, Lambda: FloatArray) -> PatternSums:
        return self.products.gather(Lambda).sums

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


def factor_criterion(design: Design, *, reml: bool) -> FactorCriterion:
    """The criterion of a design with several random terms."""
    return FactorCriterion(factor_products(design), structure_of(design), reml)
