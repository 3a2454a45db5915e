"""Where the criterion has its minima: a global search before anything is polished or called an optimum.

Likelihoods of variance components can have several maxima (the criterion is a logarithm of a convex function of
B = ΛΛ' plus a concave one). Two searches:

*Exhaustive*, where B = Σ τ_m E_m has one or two parameters τ ≥ 0 and projections E_m (one variance; two uncorrelated
ones; compound symmetry). In τ the residual sum of squares rss is convex and decreases, the log-determinants ld are
concave and increase. On a box with corners v, for every corner c with its tangent t_c of rss,

    n log rss(τ) + ld(τ)  ≥  min_v { n log t_c(v) + ld(v) },      ≥  n log rss(v_highest) + ld(v_lowest),

the first because log of an affine function plus the interpolation of a concave one is concave on the triangles of the
box. Boxes whose bound is above the best value found are dropped, the others divided, until none is left: then no value
anywhere is lower by more than `PROOF`.

*Multi-level single linkage* (Rinnooy Kan & Timmer 1987, Math. Program. 39, 57-78) elsewhere: many points, spread evenly
over scales and shapes of D; descents from those that have no better neighbour within a critical distance; and more
points until the posterior expectation of the share of the space in basins not yet seen, ``W (W + 1) / (N (N − 1))``
for W minima from N points (Boender & Rinnooy Kan 1987, Math. Program. 37, 59-80), is below `UNSEEN`.

*With a residual structure* the search is over η, with the minima over λ found anew at every η. At given η the rows
are whitened once; of the plain criterion that is left a compiled search finds the minima in a fraction of a
millisecond. So only η, one to a few numbers, has to be covered by a design; from its points without a better
neighbour (multi-level single linkage) and from the structure's own starting values, descents go on in (λ, η)
together. How many points there are follows the number of rows, which is what an evaluation costs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Protocol

import numpy as np

from hierlmm.arrays import BoolArray, FloatArray, IntArray
from hierlmm.covariance.partial import products_before
from hierlmm.covariance.random import RandomCovariance, random_covariance
from hierlmm.likelihood.crossproducts import CrossProducts
from hierlmm.likelihood.descent import Counter, descend
from hierlmm.likelihood.residual_criterion import ResidualCriterion
from hierlmm.likelihood.search_kernel import DESCEND, PARTS, VALUES, explore
from hierlmm.likelihood.solution import GivenResiduals

PROOF = 1e-5
UNSEEN = 1e-3
WITHIN = 30.0
"""Minima further above the best than this are not kept: their likelihood is smaller by a factor of 3 million."""
MOST_KEPT = 12
MOST_LOOKS = 20_000
FEW_ROWS = 400
"""Rows of patterns up to which an evaluation costs microseconds; more are searched on a part of the subjects."""
OUTSTANDING = 100
"""Of those, the subjects with the largest residuals."""
LINKS, INNER_LINKS, FEW_LINKS = 1.0, 2.0, 4.0
"""σ of multi-level single linkage: the smaller, the more points are descended from."""
LOWEST, HIGHEST = 0.02, 300.0
MOST_POINTS = 2_000


@dataclass(frozen=True)
class Search:
    """What a search looked at.

    Attributes
    ----------
    points : (W, m)
        Distinct minima found (rough, to be polished), best first.
    n_points : int
        Points of the design.
    n_descents : int
        Descents made from them.
    n_evaluations : int
    exhaustive : bool
        Whether every other value is proved to be higher than the best one less `PROOF`, to rounding.
    unseen : float
        Otherwise: expected share of the space in basins that were not seen.
    """

    points: FloatArray
    n_points: int
    n_descents: int
    n_evaluations: int
    exhaustive: bool
    unseen: float


class AnyPoints(Protocol):
    """A criterion at many points."""

    def values(self, points: FloatArray) -> FloatArray:
        """The criterion at λ: (M, m) -> (M,)."""

    def descend(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Ends of descents, and the criterion there: (M, m) -> (M, m), (M,)."""


class _Compiled:
    """The criterion as `explore` takes it; f of the kernel is the criterion less a constant."""

    def __init__(self, criterion: GivenResiduals, products: CrossProducts) -> None:
        self.basis = criterion.structure.basis
        self.degrees = float(criterion.degrees)
        self.data = (products.R, products.C, products.weight, products.S_w, self.basis, criterion.reml, self.degrees)
        self.calls = 0

    def values(self, points: FloatArray) -> FloatArray:
        """F at λ: (M, m) -> (M,)."""
        self.calls += len(points)
        return explore(*self.data, points, VALUES)[1][:, 0]

    def parts(self, tau: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Rss and ld, (M,) each, and their gradients (M, m) at τ."""
        self.calls += len(tau)
        m = tau.shape[1]
        slopes, values, _ = explore(*self.data, np.concatenate([tau, tau], axis=1), PARTS)
        return values[:, 0], values[:, 1], slopes[:, :m], slopes[:, m:]

    def descend(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Ends of descents, and f there: (M, m) -> (M, m), (M,)."""
        found, values, calls = explore(*self.data, np.ascontiguousarray(points), DESCEND)
        self.calls += calls
        return found, values[:, 0]


def search_plain(criterion: GivenResiduals, *, thorough: bool = True, start: FloatArray | None = None) -> Search:
    """Minima of a plain criterion.

    Parameters
    ----------
    criterion : Criterion
    thorough : bool
        Prove where that is possible, and apply the stopping rule; otherwise one round of few points (for searches
        inside a search).
    start : (m,), optional
        A point to descend from besides.
    """
    structure = criterion.structure
    if structure.n_parameters == 0:
        return Search(np.empty((1, 0)), 1, 0, 0, True, 0.0)
    full = _Compiled(criterion, criterion.products)
    small = criterion.products.R.shape[2] <= FEW_ROWS
    compiled = full if small else _Compiled(criterion, _part_of(criterion.products))
    centre = best_scale(compiled, structure)
    found, values, n_points, n_descents, unseen = linkage(compiled, structure, centre, thorough, start)
    exhaustive = False
    if small and thorough and structure.n_parameters <= 2 and structure.is_diagonal:
        found, values, exhaustive = _prove(compiled, found, values)
    if not small and thorough:
        # The likelihood of all subjects has its minima close to those of a part of them.
        found, values = full.descend(found[:2])
        full.calls += compiled.calls
    order = distinct(structure, found, values)
    return Search(found[order], n_points, n_descents, full.calls, exhaustive, 0.0 if exhaustive else unseen)


def distinct(structure: RandomCovariance, points: FloatArray, values: FloatArray) -> IntArray:
    """Indices of points that stand for different minima, best first: different in value, in B or in η."""
    order = np.argsort(values, kind="stable")
    first = order[0]
    near = [k for k in order.tolist() if k == first or values[k] < values[first] + WITHIN]
    if len(near) == 1:
        return np.array(near, dtype=np.intp)
    f, eta = values[near], points[near, structure.n_parameters :]
    apart = _differences(structure, points[near]).max(axis=(2, 3), initial=0.0)
    same = (np.abs(f[:, None] - f) < 0.02) & (apart < 0.2)
    if eta.shape[1]:
        same &= np.abs(eta[:, None] - eta).max(axis=2) < 0.1
    kept: list[int] = []
    for k in range(len(near)):
        if not same[k, kept].any():
            kept.append(k)
    return np.array(near, dtype=np.intp)[kept[:MOST_KEPT]]


def _differences(structure: RandomCovariance, points: FloatArray) -> FloatArray:
    """Sizes of the differences between the B = ΛΛ' of points, relative to the scales of the first: (w, w, q, q)."""
    factors = structure.factor(points)
    B = factors @ np.swapaxes(factors, -1, -2)
    size = 0.02 + np.sqrt(np.einsum("wii->wi", B))
    difference = B[:, None] - B
    difference /= (size[:, :, None] * size[:, None, :])[:, None]
    return np.abs(difference, out=difference)


def spread(n: int, m: int) -> FloatArray:
    """The first n points of a sequence that fills the unit cube evenly, (n, m): multiples of powers of one number.

    The additive recurrence with the root of ``g^(m+1) = g + 1`` (Roberts 2018), the golden ratio for m = 1.
    """
    g = 2.0
    for _ in range(40):
        g = (1.0 + g) ** (1.0 / (m + 1))
    return (0.5 + np.outer(np.arange(1, n + 1), g ** -np.arange(1.0, m + 1))) % 1.0


def best_scale(compiled: AnyPoints, structure: RandomCovariance) -> float:
    """The best multiple of the identity, from 0.01 to 10⁷."""
    trials = 10.0 ** np.arange(-2.0, 7.5, 0.5)[:, None] * structure.parameters(np.eye(structure.q))
    best = int(np.argmin(compiled.values(trials)))
    return float(10.0 ** (-2.0 + 0.5 * best))


@lru_cache(maxsize=64)
def _design(
    structure: str, blocks: tuple[tuple[int, ...], ...], parts: tuple[tuple[int, ...], ...], n: int
) -> tuple[FloatArray, FloatArray]:
    """Points in the unit cube, and as λ: scales from `LOWEST` to `HIGHEST`, all shapes.

    In an unstructured block λ is a row of Cholesky factor of a correlation matrix, times the row's scale; its canonical
    partial correlations follow an arcsine law, which reaches close to ±1 often: there minima hide.
    """
    D = random_covariance(structure, blocks, parts)
    cube = spread(n, D.n_parameters)
    scale = LOWEST * (HIGHEST / LOWEST) ** cube
    if D.projections is not None or D.is_diagonal:
        return cube, scale
    lam = np.empty_like(cube)
    corr = -np.cos(np.pi * cube)
    place = {(int(r), int(c)): int(k) for r, c, k in zip(D.row, D.col, D.index, strict=True)}
    for block in blocks:
        P = np.zeros((n, len(block), len(block)))
        for i, r in enumerate(block):
            P[:, i, :i] = corr[:, [place[r, c] for c in block[:i]]]
        before = products_before(np.sqrt(1.0 - P**2))
        for i, r in enumerate(block):
            row = [place[r, c] for c in block[: i + 1]]
            P[:, i, i] = 1.0
            lam[:, row] = scale[:, row[-1:]] * P[:, i, : i + 1] * before[:, i, : i + 1]
    return cube, lam


def linkage(
    compiled: AnyPoints,
    structure: RandomCovariance,
    centre: float,
    thorough: bool,
    start: FloatArray | None = None,
) -> tuple[FloatArray, FloatArray, int, int, float]:
    """Minima by multi-level single linkage: points, values, N, descents, share unseen."""
    m = structure.n_parameters
    # A search inside a search has fewer points; one variance alone is covered well all the same.
    n, links = (40 * m, LINKS) if thorough else (24, LINKS) if m == 1 else (16 * m, INNER_LINKS)
    # Where the best multiple of the identity is extreme, the design is looked at there as well.
    scales = [1.0] if LOWEST * 5.0 <= centre <= HIGHEST / 5.0 else [1.0, centre / math.sqrt(LOWEST * HIGHEST)]
    unit = structure.parameters(np.eye(structure.q))
    first = centre * unit[None]
    found, values = compiled.descend(first if start is None else np.concatenate([first, start[None]]))
    started: set[tuple[float, int]] = set()
    while True:
        cube, design = _design(structure.structure, structure.blocks, structure.parts, n)
        for scale in scales:
            lam = scale * design
            f = compiled.values(lam)
            near = f < values.min() + 50.0 * WITHIN
            fresh = [k for k in alone(cube, f, links) if near[k] and (scale, k) not in started]
            if fresh:
                ends, at = compiled.descend(lam[fresh])
                found, values = np.concatenate([found, ends]), np.concatenate([values, at])
                started.update((scale, k) for k in fresh)
        order = distinct(structure, found, values)
        W = len(order)
        unseen = W * (W + 1) / (n * (n - 1.0))
        if not thorough or unseen < UNSEEN or n >= MOST_POINTS:
            break
        n *= 2
    return found[order], values[order], n, len(started) + 1, unseen


def alone(cube: FloatArray, f: FloatArray, links: float = FEW_LINKS, alike: BoolArray | None = None) -> IntArray:
    """Points (n, m) of the unit cube without a better one (that is ``alike``) at the critical distance, best first."""
    n, m = cube.shape
    volume = links * math.log(max(n, 2)) / n
    radius = (math.gamma(1.0 + 0.5 * m) * volume) ** (1.0 / m) / math.sqrt(math.pi)
    squares = np.einsum("ik,ik->i", cube, cube)
    near = squares[:, None] + squares - 2.0 * cube @ cube.T <= radius**2
    better = f < f[:, None] if alike is None else (f < f[:, None]) & alike
    alone = np.flatnonzero(~np.any(near & better, axis=1) & np.isfinite(f))
    return alone[np.argsort(f[alone], kind="stable")]


def _part_of(products: CrossProducts) -> CrossProducts:
    """All subjects, seen through a part of them: a few that stand out, and others for the rest.

    Those with the largest residuals count for themselves, since they alone can make a minimum; evenly chosen others
    count for all that are left.
    """
    C, J = products.subject_C, len(products.subject_C)
    S = products.S_w + np.einsum("jka,jkb->ab", C, C)
    gamma = np.append(-np.linalg.lstsq(S[:-1, :-1], S[:-1, -1])[0], 1.0)
    stands_out = np.einsum("jk,jk->j", C @ gamma, C @ gamma)
    order = np.argsort(stands_out, kind="stable")
    own, rest = order[J - OUTSTANDING :], np.sort(order[: J - OUTSTANDING])
    others = rest[np.unique(np.linspace(0, len(rest) - 1, FEW_ROWS - OUTSTANDING).astype(np.intp))]
    chosen = np.concatenate([own, others])
    weight = np.where(np.arange(len(chosen)) < len(own), 1.0, len(rest) / len(others))
    R = np.ascontiguousarray(np.moveaxis(products.subject_R[chosen], 0, -1))
    C = np.ascontiguousarray(np.moveaxis(C[chosen] * np.sqrt(weight)[:, None, None], 0, -1))
    # X̃ is orthonormal: a little of it keeps columns that these subjects do not show from being lost.
    return replace(products, R=R, C=C, weight=weight, S_w=products.S_w + 1e-6 * np.eye(len(products.S_w)))


def _prove(compiled: _Compiled, found: FloatArray, values: FloatArray) -> tuple[FloatArray, FloatArray, bool]:
    """Divide the parameter space until nothing lower can be in any part of it; minima found on the way are kept.

    Returns the minima and their values, and whether the proof was completed.
    """
    m = found.shape[1]
    nodes = np.array([0.0, 1e-3, 1.0, 1e3, 1e10])
    steps = np.indices((len(nodes) - 1,) * m).reshape(m, -1).T
    upper = np.indices((2,) * m).reshape(m, -1).T == 1
    lo, hi = nodes[steps], nodes[steps + 1]
    if not _beyond(compiled, nodes[-1], m) > values.min() - PROOF:
        return found, values, False
    n, budget = compiled.degrees, compiled.calls + MOST_LOOKS
    while len(lo):
        if compiled.calls + lo.size * 2**m > budget:
            return found, values, False
        tau = np.where(upper, hi[:, None], lo[:, None])
        looked = compiled.parts(tau.reshape(-1, m))
        rss, ld, by_rss, by_ld = (a.reshape(len(lo), 2**m, *a.shape[1:]) for a in looked)
        at = n * np.log(rss) + ld
        best = np.unravel_index(np.argmin(at), at.shape)
        if at[best] < values.min() - PROOF:
            ends, lower = compiled.descend(np.sqrt(tau[best])[None])
            found, values = np.concatenate([found, ends]), np.concatenate([values, lower])
        # Tangents of every corner c at every corner v, (boxes, c, v): they overestimate ld and underestimate rss.
        across = tau[:, None] - tau[:, :, None]
        below = rss[:, :, None] + np.einsum("bcm,bcvm->bcv", by_rss, across)
        above = ld[:, :, None] + np.einsum("bcm,bcvm->bcv", by_ld, across)
        live = _bound(n, rss, ld, below) < values.min() - PROOF
        with np.errstate(invalid="ignore", divide="ignore"):
            loose = n * (np.log(rss)[:, None] - np.log(below)) + 0.25 * (above - ld[:, None])
        loose = np.where(below > 0.0, loose, 1e6 + n * np.log(rss[:, :1, None] / rss[:, -1:, None]))
        lo, hi = _divide(lo[live], hi[live], _edges(loose[live], upper))
    return found, values, True


def _beyond(compiled: _Compiled, end: float, m: int) -> float:
    """A bound of f where any τ is above ``end``: what no random effect can reach of rss, and the smallest ld there."""
    S = compiled.data[3]
    within = float(S[-1, -1] - S[-1, :-1] @ np.linalg.pinv(S[:-1, :-1], hermitian=True) @ S[:-1, -1])
    if not within > 1e-10 * S[-1, -1]:
        return -np.inf
    return compiled.degrees * math.log(within) + float(compiled.parts(end * np.eye(m))[1].min())


def _bound(n: float, rss: FloatArray, ld: FloatArray, below: FloatArray) -> FloatArray:
    """Lower bound of f on each box, from rss and ld at its corners (boxes, 2^m) and the tangents of rss."""
    bound = n * np.log(rss[:, -1]) + ld[:, 0]
    for line in [*np.moveaxis(below, 1, 0), below.mean(axis=1)]:
        positive = np.all(line > 0.0, axis=1)
        log = np.log(np.where(positive[:, None], line, 1.0))
        bound = np.maximum(bound, np.where(positive, np.min(n * log + ld, axis=1), -np.inf))
    return bound


def _edges(loose: FloatArray, upper: BoolArray) -> FloatArray:
    """How loose the bounds are along the edges in each direction: (boxes, m)."""
    pairs = np.argwhere(np.sum(upper[:, None] != upper, axis=2) == 1)
    along = [[loose[:, c, v] for c, v in pairs if upper[c, k] != upper[v, k]] for k in range(upper.shape[1])]
    return np.stack([np.max(own, axis=0, initial=0.0) for own in along], axis=1)


def _divide(lo: FloatArray, hi: FloatArray, loose: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Halve every box at its geometric middle (an eighth of the way from zero) in the directions that need it most."""
    needed = loose >= 0.25 * loose.max(axis=1, keepdims=True)
    for k in range(lo.shape[1]):
        middle = np.where(lo[:, k] > 0.0, np.sqrt(lo[:, k] * hi[:, k]), hi[:, k] / 8.0)
        cut = needed[:, k]
        upper_lo, lower_hi = lo[cut].copy(), hi[cut].copy()
        upper_lo[:, k] = lower_hi[:, k] = middle[cut]
        lo = np.concatenate([lo[~cut], lo[cut], upper_lo])
        hi = np.concatenate([hi[~cut], lower_hi, hi[cut]])
        needed = np.concatenate([needed[~cut], needed[cut], needed[cut]])
    return lo, hi


REACH, CORE = 8.0, 0.4
"""Half-width of the design in an unconstrained parameter (correlations to 0.999, ratios to a factor of 3,000), and the
density of its points in the middle: η = REACH (CORE u + (1 - CORE) u³), u from -1 to 1."""
FULL_DESIGN_ROWS = 1_500
MOST_DESCENTS = 24
RESIDUAL_LINKS = 1.0
SHEETS = 3
SHEET = 0.5
"""Relative difference of B from which two points belong to different sheets."""


def search_residual(criterion: ResidualCriterion, *, thorough: bool = True) -> Search:
    """Minima of a criterion with a residual structure (rough, to be polished), best first.

    Parameters
    ----------
    criterion : ResidualCriterion
    thorough : bool
        Look at a design of points; otherwise at the structure's own starting values only.
    """
    if not criterion.rows.parameters:  # known weights: the rows are whitened once for all
        return search_plain(criterion.given(np.empty(criterion.n_parameters)), thorough=thorough)
    counter = Counter(criterion)
    k, m = len(criterion.rows.parameters), criterion.structure.n_parameters
    n = int(max(4, min(32 * k, 128) * min(1.0, FULL_DESIGN_ROWS / criterion.n_obs))) if thorough else 0
    first = criterion.starts[0]
    cube = spread(n, k) if k else np.empty((0, 0))
    starts = criterion.starts if criterion.many_maxima or n > 4 else criterion.starts[:1]
    own = np.array(starts).reshape(len(starts), k)
    two_ends = [np.isfinite(p.lower) and np.isfinite(p.upper) for p in criterion.rows.parameters]
    centre = np.where(two_ends, 0.0, first)
    u = 2.0 * cube - 1.0
    etas = np.concatenate([own, centre + REACH * (CORE * u + (1.0 - CORE) * u**3)]) if k else own
    grid = np.linspace(-1.0, 1.0, 201)
    places = np.interp((own - centre) / REACH, CORE * grid + (1.0 - CORE) * grid**3, 0.5 + 0.5 * grid)
    places = np.concatenate([places, cube])
    minima = [_minima_given(counter, criterion, eta) for eta in etas]
    at = [(place, psi) for place, found in zip(places, minima, strict=True) for psi in found]
    points = np.array([psi for _, psi in at]).reshape(len(at), m + k)
    f = np.array([counter.value(psi) for psi in points])
    # Minima over λ that are alike form a sheet over η; each sheet has minima of its own.
    chosen = (
        alone(np.array([place for place, _ in at]), f, RESIDUAL_LINKS, _alike(criterion.structure, points))
        if k
        else [0]
    )
    chosen = [s for s in chosen if f[s] < f[chosen[0]] + WITHIN][: MOST_DESCENTS if criterion.many_maxima else 2]
    found = np.array([descend(counter, points[s]) for s in chosen]).reshape(len(chosen), m + k)
    order = distinct(criterion.structure, found, np.array([counter.value(psi) for psi in found]))
    W, N = len(order), len(etas)
    unseen = W * (W + 1) / (N * (N - 1.0)) if N > 1 else 0.0
    return Search(found[order], N, len(chosen), counter.calls, False, min(unseen, 1.0))


def _alike(structure: RandomCovariance, points: FloatArray) -> BoolArray:
    """Which points have a similar B = ΛΛ', and so may lie on one sheet of minima over η: (s, s)."""
    if structure.n_parameters == 0:
        return np.ones((len(points),) * 2, dtype=bool)
    difference = _differences(structure, points)
    difference = np.minimum(difference, np.swapaxes(difference, 0, 1))
    return difference.max(axis=(2, 3)) < SHEET


def _minima_given(counter: Counter, criterion: ResidualCriterion, eta: FloatArray) -> list[FloatArray]:
    """The best minima over λ at η, as (λ, η); none where the rows cannot be whitened."""
    plain = criterion.plain_at(eta)
    if plain is None:
        return []
    inner = search_plain(plain, thorough=False)
    counter.calls += inner.n_evaluations
    return [np.concatenate([lam, eta]) for lam in inner.points[:SHEETS]]
