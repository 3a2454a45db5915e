"""More variance than a family has: squared residuals beside what they sum to, no χ² where means are small.

Pearson's statistic ``Σ (y − nμ)² / var y`` counts every row alike, and has few digits to tell by where means are small;
``Σ (y − nμ)²`` beside ``Σ var y`` counts rows by their variance. Given the means, a squared residual has the variance
``(var y)² (2 + 1/μ)`` for Poisson counts, ``(var y)² (2 + (1 − 6v)/(nv))`` with ``v = μ(1 − μ)`` for successes. Where
that does not settle it, responses are simulated at the fitted means.
"""

from __future__ import annotations

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.design.design import Design

WIDE = 1.5
"""Statistic over degrees of freedom from which it matters."""
SURELY = 100.0
"""Standard deviations beyond which one in 10,000 is too much, whatever the distribution (Cantelli's inequality)."""
POSSIBLE = 3.0
SIMULATED = 999


def overdispersion(
    design: Design, eta: FloatArray, psi: FloatArray, parameters: int, uncertainty: str = "Standard errors"
) -> list[str]:
    """Say that the rows of a family whose variance follows from its mean vary more; empty where they do not."""
    family, n = design.family, design.trials
    if family.name != "poisson" and not (family.name == "binomial" and np.mean(n) > 1.5):
        return []
    mu = family.mean(eta)
    variance, v = family.variance(mu, psi, n), mu * (1.0 - mu)
    freedom = design.n_obs - parameters
    if freedom < 1 or not np.all(variance > 0.0):
        return []
    spread = variance * np.sqrt(2.0 + (1.0 / mu if family.name == "poisson" else (1.0 - 6.0 * v) / (n * v)))
    squares = (design.y - n * mu) ** 2
    judged = (
        _judged(design, mu, psi, squares, variance, spread, w, freedom) for w in (1.0 / variance, np.ones(len(v)))
    )
    ratio = max((found for found in judged if found is not None), default=None)
    if ratio is None:
        return []
    other = (
        "family='negative_binomial'"
        if family.name == "poisson"
        else "a random intercept of the row (a column that numbers the rows)"
    )
    return [
        f"Overdispersion: the rows vary about {ratio:.1f} times as much around their means as a {family.title} "
        f"response does (squared residuals on {freedom} degrees of freedom, beside what responses with these means "
        f"have). {uncertainty} are too small. To go on: use {other}, or look for a covariate that is missing."
    ]


def _judged(
    design: Design,
    mu: FloatArray,
    psi: FloatArray,
    squares: FloatArray,
    variance: FloatArray,
    spread: FloatArray,
    weight: FloatArray,
    freedom: int,
) -> float | None:
    """Weighted squares over their expectation, where these are too many; None where they are not."""
    total, expected = float(weight @ squares), float(weight @ variance) * freedom / len(mu)
    distance = (total - expected) / float(np.linalg.norm(weight * spread))
    if total < WIDE * expected or distance < POSSIBLE:
        return None
    rng, n = np.random.default_rng(0), design.trials
    for _ in range(SIMULATED if distance < SURELY else 0):
        if weight @ (design.family.draw(rng, mu, psi, n) - n * mu) ** 2 >= total:
            return None
    return total / expected
