"""Is one model a special case of another? Asked of columns and structures, not of names.

    E(y):  the columns of X of the smaller lie in the span of those of the larger
    D:     every block of correlated random effects lies in the span of one block of the larger; where the larger has a
           D for each level of a group, every block is first cut into the levels, between which it is the same
    Σ_i:   every correlation (and every variance) of the smaller is one of the larger

A change that the larger model adds lies *inside* its parameter space (a correlation of 0), at its *boundary* (a
variance of 0), or leaves another parameter without meaning (a nugget of 1, where the range is of nothing).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.covariance.composed import group_of, stated
from hierlmm.covariance.positions import make_rows
from hierlmm.covariance.random import SPECTRAL
from hierlmm.covariance.residual import ResidualCorrelation
from hierlmm.covariance.variance import VarIdent
from hierlmm.design.design import Design
from hierlmm.design.rows import RandomTerm
from hierlmm.equations.residual_symbols import spec_text
from hierlmm.groups import group_order, group_starts
from hierlmm.inference.rows import same_groups, same_subjects

Where = Literal["inside", "boundary", "unidentified"]
SPAN = 1e-7
"""Share of its norm that a column of the span may have outside of it."""
type Pair = tuple[FloatArray, FloatArray]
"""Two columns (N,) each: the direction ``u v' + v u'`` within subjects."""


@dataclass(frozen=True, eq=False)
class Cone:
    """New random effects whose covariance is zero in the smaller model: a positive semi-definite matrix of size k.

    ``columns`` (N, k) are theirs; a spectral structure has one variance for all columns (``common``).
    """

    columns: FloatArray
    common: bool = False

    @property
    def size(self) -> int:
        """Rows of the matrix."""
        return 1 if self.common else self.columns.shape[1]


@dataclass(frozen=True, eq=False)
class Change:
    """One part in which the larger model has more.

    Attributes
    ----------
    part : str
        "fixed effects", "random effects", "residual correlation" or "residual variance".
    where : {"inside", "boundary", "unidentified"}
    words : str
        The null value, for a sentence.
    cones : tuple of Cone
        New variances.
    free : tuple of Pair
        Directions of D that are free in the larger model where new variances are positive.
    """

    part: str
    where: Where
    words: str
    cones: tuple[Cone, ...] = ()
    free: tuple[Pair, ...] = ()


class NotNested(Exception):
    """Why a model is no special case of another."""


def changes(small: Design, large: Design) -> list[Change]:
    """What the larger model adds to the smaller.

    Raises
    ------
    NotNested
        If the smaller is no special case of the larger.
    """
    fixed = _fixed(small, large)
    several = small.has_several_factors or large.has_several_factors or not same_subjects(small, large)
    if several and small.has_residual_structure:
        raise NotNested(f"its residuals have a structure by {small.hierarchy.subject}, and the larger other groups")
    if small.term and not large.term and not several:
        return [*fixed, _effects_in_correlation(small, large)]
    random = _factors(small, large) if several else _random(small, large)
    return fixed + random + _groups(small, large) + _correlation(small, large) + _variance(small, large)


def _factors(small: Design, large: Design) -> list[Change]:
    """Each grouping factor of the smaller is one of the larger, by whatever name, and its effects lie in theirs."""
    if small.group or large.group:
        raise NotNested("a D of its own for each level of a group, and other grouping factors")
    left, found = list(small.random), list[Change]()
    for own in large.random:
        same = [k for k, other in enumerate(left) if same_groups(other.group, own.group)]
        found += _random(_with_factor(small, *(left.pop(k) for k in same)), _with_factor(large, own))
    if left:
        names = " and ".join(other.columns.group or small.hierarchy.subject for other in left)
        raise NotNested(f"{names} is no grouping factor of the larger")
    return found


def _with_factor(design: Design, *own: RandomTerm) -> Design:
    """The design with the random effects of one factor, or of none."""
    terms = replace(design.terms, random=tuple(term.columns for term in own))
    return replace(design, terms=terms, random=own)


def same_fixed(a: Design, b: Design) -> bool:
    """Whether two models have the same columns of fixed effects (REML likelihoods depend on them), and offset."""
    if a.X.shape != b.X.shape or not np.allclose(a.offset, b.offset, rtol=1e-10, atol=0.0):
        return False
    names = set(a.coef) == set(b.coef)
    order = [b.coef.index(name) for name in a.coef] if names else range(len(b.coef))
    return bool(np.allclose(a.X, b.X[:, list(order)], rtol=1e-10, atol=0.0))


def inside(columns: FloatArray, span: FloatArray) -> bool:
    """Whether columns (N, a) lie in the span of others (N, b)."""
    if columns.shape[1] == 0:
        return True
    if span.shape[1] == 0:
        return not np.any(columns)
    size = np.linalg.norm(columns, axis=0)
    basis = np.linalg.qr(span / np.maximum(np.linalg.norm(span, axis=0), 1e-300))[0]
    rest = columns / np.maximum(size, 1e-300)
    for _ in range(2):
        rest = rest - basis @ (basis.T @ rest)
    return bool(np.linalg.norm(rest, axis=0).max() <= SPAN)


def _fixed(small: Design, large: Design) -> list[Change]:
    shift = (small.offset - large.offset)[:, None]
    own = [c for i, c in enumerate(small.coef) if not inside(small.X[:, [i]], large.X)]
    if own:
        raise NotNested(f"the fixed effects of {', '.join(own)} are not among those of the larger, nor a combination")
    if np.any(shift) and not inside(shift, large.X):
        raise NotNested("the offsets differ by what is no fixed effect of the larger")
    added = len(large.coef) - len(small.coef)
    return [Change("fixed effects", "inside", f"{added} coefficients of zero")] if added else []


def _pieces(design: Design, groups: Sequence[tuple[int, ...]] | None = None) -> list[FloatArray]:
    """Columns of the random effects that may correlate, block by block (or of other groups of them)."""
    if groups is None:
        spectral = design.covariance == "compound_symmetry" and design.n_own > 1
        groups = design.terms.by_subject.parts if spectral else design.blocks
    return [design.Z[:, list(own)] for own in groups]


def _cut(pieces: list[FloatArray], large: Design) -> list[FloatArray]:
    """Each piece in the levels by which the larger model has a D of its own; levels without rows of it fall away."""
    level = large.subject_group[large.subject_index]
    own = [p * (level == k)[:, None] for p in pieces for k in range(max(len(large.group_levels), 1))]
    return [columns for p in own if (columns := p[:, np.any(p != 0.0, axis=0)]).shape[1]]


def _alike_random(small: Design, large: Design) -> bool:
    if small.Z.shape != large.Z.shape or not np.allclose(small.Z, large.Z, rtol=1e-10, atol=0.0):
        return False
    return small.blocks == large.blocks and small.covariance == large.covariance


# Branches: a case for each kind of structure of D.
def _random(small: Design, large: Design) -> list[Change]:
    if _alike_random(small, large) or not large.term:
        return []
    if large.covariance in SPECTRAL and large.n_own > 1:
        return _in_spectral(small, large)
    blocks, pieces = _pieces(large), _pieces(small)
    cut = _cut(pieces, large)
    same = _same_in_levels(large) if len(cut) > len(pieces) else []
    assigned: list[list[FloatArray]] = [[] for _ in blocks]
    for piece in cut:
        home = next((k for k, block in enumerate(blocks) if inside(piece, block)), None)
        if home is None:
            raise NotNested(
                "random effects that may vary, or correlate, in the smaller may not in the larger "
                f"({_effects(small)} and {_effects(large)})"
            )
        assigned[home].append(piece)
    cones, free, more = [], [], False
    for block, mine in zip(blocks, assigned, strict=True):
        known = np.column_stack(mine) if mine else block[:, :0]
        r, q = known.shape[1], block.shape[1]
        if r > q or (r and np.linalg.matrix_rank(known / np.linalg.norm(known, axis=0), tol=SPAN) < r):
            raise NotNested(f"two variances of the smaller ({_effects(small)}) are one in the larger")
        columns = [known[:, j] for j in range(r)]
        more = more or len(mine) > 1 or (small.covariance in SPECTRAL and small.n_own > 1)
        free += [(u, v) for u, v in itertools.combinations_with_replacement(columns, 2)]
        if q > r:
            new = _complement(block, known)
            cones.append(Cone(new))
            free += [(u, new[:, j]) for u in columns for j in range(q - r)]
    if cones:
        k = sum(c.size for c in cones)
        words = ["a variance of zero" if k == 1 else f"{k} variances of zero", *same]
        return [Change("random effects", "boundary", " and ".join(words), tuple(cones), tuple(free))]
    words = [*(["covariances of zero, or equal variances"] if more else []), *same]
    return [Change("random effects", "inside", " and ".join(words))] if words else []


def _same_in_levels(large: Design) -> list[str]:
    return [f"the same D for each {large.group}"]


def _in_spectral(small: Design, large: Design) -> list[Change]:
    """In a structure in which all random effects (of a level) share one variance."""
    if not small.term:
        projections = large.random_structure.projections
        assert projections is not None
        cones = tuple(Cone(large.Z @ P, common=True) for P in projections)
        zero = "a variance of zero" if len(cones) == 1 else "a common variance of zero"
        return [Change("random effects", "boundary", zero, cones)]
    whole, theirs = _pieces(small, small.terms.by_subject.parts), _pieces(large, large.terms.by_subject.parts)
    cut = _cut(whole, large)
    alike = all(any(a.shape == b.shape and np.allclose(a, b, rtol=1e-10, atol=0.0) for b in theirs) for a in cut)
    if not alike or small.covariance not in ("identity", large.covariance):
        reason = f"the random effects of the larger share one variance, those of the smaller have {_effects(small)}"
        raise NotNested(reason)
    words = ["a correlation of zero"] if small.covariance != large.covariance else []
    words += _same_in_levels(large) if len(cut) > len(whole) else []
    return [Change("random effects", "inside", " and ".join(words))] if words else []


def _effects(design: Design) -> str:
    blocks = ["(" + ", ".join(design.term[m] for m in block) + ")" for block in design.blocks]
    return " ".join(blocks) or "no random effects"


def _complement(block: FloatArray, known: FloatArray) -> FloatArray:
    """Columns of a block (N, q) in the directions of its coefficients that known columns (N, r) in it have not."""
    scaled = block / np.linalg.norm(block, axis=0)
    T = np.linalg.lstsq(scaled, known, rcond=None)[0]
    full = np.linalg.qr(np.column_stack([T, np.eye(block.shape[1])]))[0]
    return scaled @ full[:, known.shape[1] :]


def same_structure(a: Any, b: Any) -> bool:
    """Whether two structures are the same but for where the search begins."""
    if type(a) is not type(b):
        return False
    return a is None or all(v == vars(b).get(k) for k, v in vars(a).items() if k not in ("start", "_bounds"))


def _correlation(small: Design, large: Design) -> list[Change]:
    a, b, part = small.residual, large.residual, "residual correlation"
    if same_structure(a, b):
        return []
    if b is None:
        assert a is not None
        raise NotNested(f"the residuals of the smaller are correlated ({spec_text(a)}), those of the larger are not")
    if a is None:
        if b.has_nugget:
            words = "a nugget of 1, where the rest of the correlation has no meaning"
            return [Change(part, "unidentified", words)]
        if b.independent_at is None:
            raise NotNested(f"{spec_text(b)} does not say where rows are independent (`independent_at` of its class)")
        low, high = _first_range(large)
        within = low < b.independent_at < high
        return [Change(part, "inside" if within else "boundary", "independent residuals")]
    if b.contains(a):
        nugget = b.has_nugget and not a.has_nugget
        words = "a nugget of zero" if nugget else spec_text(a)
        return [Change(part, "boundary" if nugget else "inside", words)]
    if b.free and determines(large, small, a):
        return [Change(part, "inside", spec_text(a))]
    raise NotNested(f"{spec_text(a)} is no special case of {spec_text(b)}, for all that is known of these structures")


def _first_range(design: Design) -> tuple[float, float]:
    """Bounds of the first parameter of the residual correlation in these data."""
    from hierlmm.likelihood.residual_rows import residual_rows

    bound = residual_rows(design).correlation
    assert bound is not None
    return bound.parameters[0].lower, bound.parameters[0].upper


def _groups(small: Design, large: Design) -> list[Change]:
    """Residual parameters of their own in groups of subjects; weights must be the same."""
    if not np.allclose(small.known_weights, large.known_weights, rtol=1e-10, atol=0.0):
        raise NotNested("the weights of the rows are others")
    a, b = group_of(small.residual_variance), group_of(large.residual_variance)
    if a == b:
        return []
    if a is not None and (b is None or not _within(small, a, large, b)):
        raise NotNested(f"residual parameters of the smaller differ between groups by {a}, those of the larger do not")
    only = f"residual parameters that differ between groups by {a} alone, not by {b}"
    words = f"the same residual parameters in every group by {b}" if a is None else only
    return [Change("residual variance", "inside", words)]


def _within(small: Design, coarse: str, large: Design, fine: str) -> bool:
    """Whether every level of a column of the larger model lies in one level of a column of the smaller."""
    return _function_of(_codes(large.frame[fine].to_numpy()), _codes(small.frame[coarse].to_numpy()))


def _variance(small: Design, large: Design) -> list[Change]:
    a, b, part = stated(small.residual_variance), stated(large.residual_variance), "residual variance"
    group = group_of(large.residual_variance)
    by_group = (
        isinstance(a, VarIdent) and b is None and group is not None and _within(small, str(a.variable), large, group)
    )
    if same_structure(a, b) or by_group:  # every group has a variance of its own
        return []
    if b is None:
        assert a is not None
        raise NotNested(
            f"the residuals of the smaller have unequal variances ({spec_text(a)}), those of the larger not"
        )
    if a is None:
        if b.equal_at is None:
            raise NotNested(f"{spec_text(b)} does not say where the variances are equal (`equal_at` of its class)")
        return [Change(part, "inside", "equal variances")]
    if b.free and a.variable is not None and b.variable is not None and _within(small, a.variable, large, b.variable):
        return [Change(part, "inside", spec_text(a))]
    raise NotNested(f"{spec_text(a)} is no special case of {spec_text(b)}, for all that is known of these functions")


def _effects_in_correlation(small: Design, large: Design) -> Change:
    """Random effects in a marginal model whose correlations (and variances) are free where these need it."""
    a, b = small.residual, large.residual
    grouped = any(group_of(d.residual_variance) is not None for d in (small, large))
    if grouped or small.weights is not None or large.weights is not None:
        raise NotNested("random effects beside weights or groups of the residuals are no covariance of the larger")
    reason = f"random effects of the smaller ({_effects(small)}), and a larger model without"
    exchangeable = b is not None and b.time is None and not b.counts_rows
    if b is None or not (b.free or exchangeable) or (a is not None and not determines(large, small, a)):
        raise NotNested(f"{reason}, whose residual correlation does not contain what they imply")
    if exchangeable and a is not None and not (a.time is None and not a.counts_rows):
        raise NotNested(f"{reason}, whose rows are equally correlated")
    constant = small.Z.shape[1] == 1 and np.ptp(small.Z) == 0.0 and stated(small.residual_variance) is None
    if not constant:
        at = b.time if b.free and not b.stationary else None
        variance = stated(large.residual_variance)
        if at is None or variance is None or not variance.free or variance.variable != at:
            raise NotNested(f"{reason}, which has no variance and correlation of their own for every occasion")
        occasion = _codes(large.frame[at].to_numpy())
        if not all(_function_of(occasion, _codes(column)) for column in small.Z.T):
            raise NotNested(f"{reason}: their columns differ between subjects at the same {at}")
        own = stated(small.residual_variance)
        if own is not None and (
            own.variable is None or not _function_of(occasion, _codes(small.frame[own.variable].to_numpy()))
        ):
            raise NotNested(f"{reason}, whose variance does not contain {spec_text(own)}")
    return Change("random effects", "inside", f"the covariances that {_effects(small)} implies")


def determines(large: Design, small: Design, spec: ResidualCorrelation) -> bool:
    """Whether pairs of rows that have one correlation in the larger model have one in the smaller, whatever its own."""
    assert large.residual is not None
    ours, theirs = [], []
    for mine, other in zip(_pairs(large, large.residual), _pairs(small, spec), strict=True):
        ours.append(mine)
        theirs.append(other)
    return _function_of(_codes(np.concatenate(ours)), _codes(np.concatenate(theirs)))


def _pairs(design: Design, spec: ResidualCorrelation) -> Iterator[np.ndarray]:
    """What the correlation of each pair of rows of a subject depends on, subject by subject: (pairs, 2)."""
    column = None if spec.time is None else design.frame[spec.time]
    rows = make_rows(spec, column, design.subject_index, design.subjects)
    place = np.empty(design.n_obs)
    place[rows.order] = rows.t
    order = group_order(design.subject_index)
    start = group_starts(design.subject_index, design.n_subjects)
    for lo, hi in itertools.pairwise(start):
        t = place[order[lo:hi]]
        i, j = np.tril_indices(hi - lo, -1)
        if spec.time is None and not spec.counts_rows:
            yield np.zeros((len(i), 2))
        elif spec.stationary:
            yield np.column_stack([np.round(np.abs(t[i] - t[j]), 9), np.zeros(len(i))])
        else:
            yield np.column_stack([np.minimum(t[i], t[j]), np.maximum(t[i], t[j])])


def _codes(values: np.ndarray) -> np.ndarray:
    """Number the distinct values, or rows."""
    if values.dtype == object:
        import pandas as pd

        return pd.factorize(values)[0]
    return np.unique(values, axis=0, return_inverse=True)[1].ravel()


def _function_of(key: np.ndarray, value: np.ndarray) -> bool:
    """Whether equal keys have equal values."""
    pairs = np.unique(np.column_stack([key, value]), axis=0)
    return len(pairs) == len(np.unique(key))
