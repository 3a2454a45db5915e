"""More variance than a family has: Pearson's statistic against its own distribution, no χ² where means are small.

``X² = Σ (y − nμ)² / var y``. Given the means it has the expectation N and the variance ``Σ (2 + 1/μ)`` for Poisson
counts, ``Σ (2 + (1 − 6v)/(nv))`` with ``v = μ(1 − μ)`` for successes. Where that does not settle it, responses are
simulated at the fitted means.
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


def overdispersion(design: Design, eta: FloatArray, psi: FloatArray, parameters: int) -> list[str]:
    """Say that the rows of a family whose variance follows from its mean vary more; empty where they do not."""
    family, n = design.family, design.trials
    if family.name != "poisson" and not (family.name == "binomial" and np.mean(n) > 1.5):
        return []
    mu = family.mean(eta)
    variance = family.variance(mu, psi, n)
    statistic = float(np.sum((design.y - n * mu) ** 2 / variance))
    freedom = design.n_obs - parameters
    if not (freedom > 0 and np.all(variance > 0.0) and statistic > WIDE * freedom):
        return []
    v = mu * (1.0 - mu)
    excess = 1.0 / mu if family.name == "poisson" else (1.0 - 6.0 * v) / (n * v)
    distance = (statistic - freedom) / float(np.sqrt(np.sum(2.0 + excess)))
    if distance < POSSIBLE or (distance < SURELY and _reached(design, mu, psi, variance, statistic)):
        return []
    other = (
        "family='negative_binomial'"
        if family.name == "poisson"
        else "a random intercept of the row (a column that numbers the rows)"
    )
    beside = "" if distance >= SURELY else f", more than in any of {SIMULATED} simulated from this fit"
    return [
        f"Overdispersion: the rows vary about {statistic / freedom:.1f} times as much around their means as a "
        f"{family.title} response does (Pearson's statistic {statistic:.1f} on {freedom} degrees of freedom{beside}). "
        f"Standard errors are too small. To go on: use {other}, or look for a covariate that is missing."
    ]


def _reached(design: Design, mu: FloatArray, psi: FloatArray, variance: FloatArray, statistic: float) -> bool:
    """Whether a response simulated at these means has a statistic as large."""
    rng, n = np.random.default_rng(0), design.trials
    for _ in range(SIMULATED):
        drawn = design.family.draw(rng, mu, psi, n)
        if np.sum((drawn - n * mu) ** 2 / variance) >= statistic:
            return True
    return False
