"""The null distribution of a likelihood ratio where variances are zero: a mixture of χ² distributions.

Where the larger model adds variances, which cannot be negative (a cone C), beside m free parameters, the statistic
behaves like that of one normal vector z ~ N(0, I⁻¹), I the information on the cone's parameters with all others fitted
along with them:

    T = χ²_m + z'Iz − min_{c in C} (z − c)' I (z − c)   ~   Σ_j w_j χ²_{m + j}

One variance: w = (½, ½) whatever I is, hence ``½χ²_q + ½χ²_{q+1}`` for the step from q to q + 1 correlated random
effects (q covariances come along). Several variances without covariances, C = R₊^k: w depends on the correlations of z,
in closed form for k = 2, by simulation else. Two new correlated random effects, C the positive semi-definite 2 × 2
matrices: w_3 and w_0 by simulation, w_1 = ½ − w_3 and w_2 = ½ − w_0. Larger matrices, or several: the statistic itself
is simulated (`hierlmm.inference.cones`).

Where I is not known (another family, say), the bound: the weights of a cone of d dimensions that is no subspace add up
to ½ over even j and to ½ over odd j, so that none of its mixtures gives a larger p than ``½χ²_{m+d−1} + ½χ²_{m+d}``.

References
----------
Self, S. G., Liang, K.-Y. (1987). Asymptotic properties of maximum likelihood estimators and likelihood ratio tests
under nonstandard conditions. Journal of the American Statistical Association 82, 605-610.

Stram, D. O., Lee, J. W. (1994). Variance components testing in the longitudinal mixed effects model. Biometrics 50,
1171-1177.

Silvapulle, M. J., Sen, P. K. (2005). Constrained Statistical Inference. Wiley. Section 3.5.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from scipy.stats import chi2

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.design.design import Design
from hierlmm.drawing.style import evenly
from hierlmm.groups import group_order, group_starts
from hierlmm.inference.cones import cone_draws, entries
from hierlmm.inference.maximum import Maximum
from hierlmm.inference.nesting import Change, Cone, Pair

DRAWS = 100_000
MOST_SUBJECTS = 400
"""Kinds of subjects, or subjects, from which the information about several variances is worked out."""
MOST_VARIANCES = 6
"""Variances without covariances whose weights are counted."""
MOST_ENTRIES = 28
"""Entries of new matrices (seven rows) whose statistic is simulated."""
SINGULAR = 1e-12
"""Reciprocal condition of an information from which nothing is worked out."""


@dataclass(frozen=True)
class ChiBar:
    """A mixture of χ² distributions.

    Attributes
    ----------
    first : int
        Degrees of freedom of the first component; the next ones have one more each.
    weights : tuple of float
    kind : {"mixture", "bound"}
        A bound: no mixture that can belong here gives a larger p.
    """

    first: int
    weights: tuple[float, ...]
    kind: Literal["mixture", "bound"] = "mixture"

    def mcse(self, statistic: float) -> float:
        """NaN: weights that are simulated are known to three digits."""
        return float("nan")

    def sf(self, statistic: float) -> float:
        """Probability of a larger statistic."""
        if statistic <= 0.0:
            return 1.0
        return float(
            sum(w * chi2.sf(statistic, df) for df, w in enumerate(self.weights, self.first) if df > 0)  # χ²_0 is 0
        )

    def __str__(self) -> str:
        halves = {1.0: "", 0.5: "½", 0.25: "¼"}
        parts = [f"{halves.get(w, f'{w:.3f} ')}χ²({df})" for df, w in enumerate(self.weights, self.first) if w > 5e-4]
        return " + ".join(parts) + (" (bound)" if self.kind == "bound" else "")


@dataclass(frozen=True, eq=False)
class SimulatedMixture:
    """A mixture of χ² distributions whose weights have no closed form: what the cone adds to χ² is drawn.

    Attributes
    ----------
    first : int
        Free parameters beside the cone.
    last : int
        All parameters.
    draws : (n,)
        Of the statistic of the cone alone.
    """

    first: int
    last: int
    draws: FloatArray
    kind: ClassVar[str] = "simulated"

    def _tails(self, statistic: float) -> FloatArray:
        rest = statistic - self.draws
        return np.where(rest <= 0.0, 1.0, chi2.sf(rest, self.first) if self.first else 0.0)

    def sf(self, statistic: float) -> float:
        """Probability of a larger statistic; 1 / (n + 1) at least."""
        if statistic <= 0.0:
            return 1.0
        return float(max(np.mean(self._tails(statistic)), 1.0 / (len(self.draws) + 1)))

    def mcse(self, statistic: float) -> float:
        """Monte-Carlo standard error of that probability."""
        return float(np.std(self._tails(statistic)) / np.sqrt(len(self.draws)))

    def __str__(self) -> str:
        return f"χ²({self.first}) to χ²({self.last}), simulated"


type Mixture = ChiBar | SimulatedMixture


def null_distribution(small: Maximum, found: Sequence[Change], df: int, *, by_subject: bool = True) -> Mixture | None:
    """The mixture for what a larger model adds, ``df`` parameters, or its bound; None where none belongs there.

    Parameters
    ----------
    small : Maximum
        The smaller model at its optimum.
    found : sequence of Change
    df : int
        Difference of the numbers of parameters.
    by_subject : bool
        Whether rows are independent between subjects, by whom the information is summed up.
    """
    if any(c.where == "unidentified" for c in found):
        return None
    cones = [cone for c in found for cone in c.cones]
    edges = sum(c.where == "boundary" and not c.cones for c in found)
    if not cones and not edges:
        return ChiBar(df, (1.0,))
    if len(cones) + edges == 1 and (edges or cones[0].size == 1):
        return ChiBar(df - 1, (0.5, 0.5))
    dimension = sum(c.size * (c.size + 1) // 2 for c in cones)
    if by_subject and not edges and small.design.is_gaussian and dimension <= MOST_ENTRIES:
        information = _information(small, cones, [pair for c in found for pair in c.free])
        unit = np.sqrt(np.maximum(np.diag(information), 1e-300))
        if np.linalg.cond(information / unit[:, None] / unit) < 1.0 / SINGULAR:
            return _mixture(information, [c.size for c in cones], df)
    return ChiBar(df - 1, (0.5, 0.5), kind="bound")


def _mixture(information: FloatArray, sizes: Sequence[int], df: int) -> Mixture:
    if max(sizes) == 1 and len(sizes) <= MOST_VARIANCES:
        weights = orthant_weights(information)
    elif list(sizes) == [2]:
        weights = matrix_weights(information)
    else:
        return SimulatedMixture(df - len(information), df, cone_draws(information, sizes))
    return ChiBar(df - len(weights) + 1, weights)


def _information(small: Maximum, cones: Sequence[Cone], free: Sequence[Pair]) -> FloatArray:
    """Information on the cones' parameters at the smaller model's optimum, all others fitted along: (k, k).

    ``½ Σ_i tr(V_i⁻¹ A V_i⁻¹ B)`` for directions A and B of V_i, then what the others leave of it.
    """
    design, solution = small.design, small.criterion.solution(small.optimum.lam)
    tested = [pairs for cone in cones for pairs in _directions(cone)]
    eta = small.criterion.split(small.optimum.lam)[1]
    n, m = len(tested), len(free) + len(eta) + 1
    total = np.zeros((n + m, n + m))
    sigma2, D = solution.sigma**2, solution.D
    columns = [design.Z, *(c.columns for c in cones), *(np.column_stack(pair) for pair in free)]
    for rows, count in _kinds_of_subjects(design, np.column_stack(columns)):
        S = sigma2 * _residual_covariance(small, eta, rows)
        Z = design.Z[rows]
        V = Z @ D @ Z.T + S
        A = [sum(np.outer(u[rows], v[rows]) + np.outer(v[rows], u[rows]) for u, v in pairs) for pairs in tested]
        A += [np.outer(u[rows], v[rows]) + np.outer(v[rows], u[rows]) for u, v in free]
        for j in range(len(eta)):
            step = 1e-5 * np.eye(len(eta))[j]
            ends = [_residual_covariance(small, eta + sign * step, rows) for sign in (1.0, -1.0)]
            A.append(sigma2 * (ends[0] - ends[1]) / 2e-5)
        A.append(S)
        scaled = np.array([np.linalg.solve(V, a) for a in A])
        total += 0.5 * count * np.einsum("aij,bji->ab", scaled, scaled)
    nuisance = total[n:, n:]
    scale = 1.0 / np.sqrt(np.maximum(np.diag(nuisance), 1e-300))
    inverse = np.linalg.pinv(nuisance * scale[:, None] * scale, rcond=1e-10, hermitian=True) * scale[:, None] * scale
    return total[:n, :n] - total[:n, n:] @ inverse @ total[n:, :n]


def _kinds_of_subjects(design: Design, columns: FloatArray) -> list[tuple[IntArray, int]]:
    """Rows of subjects of every kind, and how many there are of it; of too many kinds some of the subjects, evenly.

    Kinds are told apart, and ordered, by what the columns hold (N, k): names of subjects and the order of rows make no
    difference. With a residual structure every subject is of its own kind.
    """
    order, start = group_order(design.subject_index), group_starts(design.subject_index, design.n_subjects)
    found: dict[tuple[int, bytes], list[IntArray]] = {}
    for lo, hi in itertools.pairwise(start):
        own = columns[order[lo:hi]]
        rows = order[lo:hi][np.lexsort(own.T)]
        found.setdefault((hi - lo, columns[rows].tobytes()), []).append(rows)
    kinds = [found[key] for key in sorted(found)]
    if len(kinds) <= MOST_SUBJECTS and not design.has_residual_structure:
        return [(own[0], len(own)) for own in kinds]
    subjects = [rows for own in kinds for rows in own]
    return [(subjects[k], 1) for k in evenly(len(subjects), MOST_SUBJECTS)]


def _directions(cone: Cone) -> list[list[Pair]]:
    """Directions of V for the entries of a cone's matrix: a common variance, or each entry (diagonal ones first).

    A pair is ``uv' + vu'``, twice the direction of a variance where u = v.
    """
    columns = cone.columns.T
    if cone.common:
        return [[(c, c) for c in columns]]
    return [[(columns[i], columns[j] * (0.5 if i == j else 1.0))] for i, j in entries(len(columns))]


def _residual_covariance(small: Maximum, eta: FloatArray, rows: IntArray) -> FloatArray:
    """Σ_i / σ² of one subject's rows."""
    residual = small.criterion.rows.at(eta)
    if residual is None:
        return np.eye(len(rows))
    fitted = small.design.variance_fitted
    return residual.covariance(small.design.frame.iloc[rows], None if fitted is None else fitted[rows])


def orthant_weights(information: FloatArray, seed: int = 0) -> tuple[float, ...]:
    """Weights w_0, ..., w_k for k variances: the shares of normal vectors whose projection has j positive entries.

    Parameters
    ----------
    information : (k, k)
        Information on the variances.
    seed : int
        Of the simulation, for k > 2.
    """
    k = len(information)
    C = np.linalg.inv(information)
    if k == 1:
        return (0.5, 0.5)
    if k == 2:
        both = 0.25 + np.arcsin(np.clip(C[0, 1] / np.sqrt(C[0, 0] * C[1, 1]), -1.0, 1.0)) / (2.0 * np.pi)
        return (0.5 - both, 0.5, both)
    z = np.random.default_rng(seed).normal(size=(DRAWS, k)) @ np.linalg.cholesky(C).T
    g = z @ information
    counts, undecided = np.zeros(k + 1), np.ones(len(z), dtype=bool)
    for size in range(k, -1, -1):
        for positive in itertools.combinations(range(k), size):
            own, rest = list(positive), [i for i in range(k) if i not in positive]
            c = g[:, own] @ np.linalg.inv(information[np.ix_(own, own)]) if own else np.empty((len(z), 0))
            slack = g[:, rest] - c @ information[np.ix_(own, rest)]
            met = undecided & np.all(c > 0.0, axis=1) & np.all(slack <= 0.0, axis=1)
            counts[size] += met.sum()
            undecided &= ~met
    return tuple(float(c) for c in counts / counts.sum())


def matrix_weights(information: FloatArray, seed: int = 0) -> tuple[float, ...]:
    """Weights w_0, ..., w_3 for a positive semi-definite 2 × 2 matrix, with entries (11), (22), (21) in this order.

    Parameters
    ----------
    information : (3, 3)
        Information on the entries.
    seed : int
        Of the simulation.
    """
    z = np.random.default_rng(seed).normal(size=(DRAWS, 3)) @ np.linalg.cholesky(np.linalg.inv(information)).T
    within = np.mean((z[:, 0] > 0) & (z[:, 0] * z[:, 1] > z[:, 2] ** 2))
    g = -z @ information  # in the dual cone, of b with b'c ≥ 0 for all c: half of its last entry off the diagonal
    polar = np.mean((g[:, 0] > 0) & (g[:, 0] * g[:, 1] > 0.25 * g[:, 2] ** 2))
    return (float(polar), float(0.5 - within), float(0.5 - polar), float(within))
