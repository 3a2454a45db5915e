"""Random effects of several factors that cannot be told apart: the variance of one may be that of the other.

Two random effects that enter V in nearly the same way (two factors with nearly the same groups, one group in most
groups of the next level, a group for nearly every row) leave a valley in the likelihood, of which a fit shows one
point: inside, or at its end, where one variance is zero. It is found from the criterion itself: the whole variance of
a pair is moved to the one, then to the other, and neither counts at 5 %, while the pair cannot be left out. Where the
partner is the residual, none and half of the joint variance is the random effect's.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.design.design import Design
from hierlmm.likelihood.residual_messages import HALF_CHI2_95
from hierlmm.likelihood.several_factors import FactorCriterion

ALIKE = 0.8
"""Cosine of the angle between what two effects add to V from which the pair is looked at, to save evaluations."""
RIDGE = 1e-12


def not_told_apart(design: Design, criterion: FactorCriterion, lam: FloatArray, value: float) -> list[str]:
    """Say which random effects the data cannot tell apart from each other, or from the residual.

    Parameters
    ----------
    design : Design
    criterion : FactorCriterion
    lam : (m,)
        The optimum.
    value : float
        The criterion there.
    """
    S, structure = criterion.products.overlaps, criterion.structure
    size = np.sqrt(np.diag(S))
    alike = ALIKE * size[:, None] * size < S
    Lambda = structure.factor(lam)
    B = Lambda @ Lambda.T

    def counts(other: FloatArray) -> bool:
        at = structure.parameters(other + RIDGE * np.eye(len(B)))
        return bool(criterion(at) - value > HALF_CHI2_95)

    def moved(to: tuple[int, ...], away: tuple[int, ...]) -> FloatArray:
        found = _without(B, away)
        found[np.ix_(to, to)] += B[np.ix_(away, away)]
        return found

    messages = []
    for one, two in combinations(structure.blocks, 2):
        if len(one) != len(two) or not all(alike[a, b] for a, b in zip(one, two, strict=True)):
            continue
        if counts(moved(one, two)) or counts(moved(two, one)) or not counts(_without(B, one + two)):
            continue
        first, second = (" and ".join(design.term[k] for k in block) for block in (one, two))
        messages.append(_message(first, second, "drop one of the two from the random effects"))
    for block in structure.blocks:
        if len(block) == 1 and alike[block[0], -1]:
            k = block[0]
            none = _without(B, block) / (1.0 + B[k, k])
            half = 2.0 * none
            half[k, k] = 1.0
            if not counts(none) and not counts(half):
                messages.append(_message(design.term[k], "the residual", f"drop {design.term[k]}"))
    return messages


def _without(B: FloatArray, block: tuple[int, ...]) -> FloatArray:
    found = B.copy()
    found[list(block)] = 0.0
    found[:, list(block)] = 0.0
    return found


def _message(one: str, two: str, drop: str) -> str:
    return (
        f"The data cannot tell {one} apart from {two}: both enter the covariance of the rows in nearly the same way, "
        "and the likelihood is nearly the same whichever of the two has their variance. The fit shows one point of a "
        "valley; the single variances, their standard errors and shares, and which of the two is zero if one is, mean "
        f"little, while their sum is determined. To go on: {drop}, or fit by NUTS, whose posterior shows the valley."
    )
