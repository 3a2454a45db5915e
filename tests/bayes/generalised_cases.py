"""Generalised two-level models of every family and link, on small data drawn from them."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd

import hierlmm as hl
from hierlmm.families.names import FAMILIES

SUBJECTS, ROWS = 8, 4
BASE = {"inverse": 2.0, "sqrt": 3.0, "log": 0.5}
DISPERSION = {"negative_binomial": [0.7], "gamma": [1.0], "beta": [2.0], "student_t": [0.0, 1.5], "gaussian": [-2.0]}


def data_of(name, link, seed=5):
    """Rows with a response ``y`` (and ``n`` trials), a covariate ``x`` within and ``w`` between subjects."""
    rng = np.random.default_rng(seed)
    family, N = FAMILIES[name](link=link), SUBJECTS * ROWS
    subject = np.repeat(np.arange(SUBJECTS), ROWS)
    frame = pd.DataFrame({"x": rng.normal(3.0, 1.0, N), "w": rng.normal(size=SUBJECTS)[subject], "subject": subject})
    centre = BASE.get(link, 0.0)
    if name in ("bernoulli", "binomial") and link in ("log", "identity"):
        centre = -1.0 if link == "log" else 0.45
    elif link == "identity":
        centre = 4.0
    size = 0.05 if name in ("bernoulli", "binomial") and link == "identity" else 0.2
    eta = centre + size * (0.5 * (frame["x"].to_numpy() - 3.0) + rng.normal(size=SUBJECTS)[subject])
    n = np.full(N, 6.0 if name == "binomial" else 1.0)
    psi = np.array([0.2, 0.4] if name == "ordinal" else DISPERSION.get(name, []))
    y = family.draw(rng, eta if name == "ordinal" else family.mean(eta), psi, n)
    if name == "ordinal":
        y[:4] = np.arange(4)  # every category
    return frame.assign(y=y, **({"n": n} if name == "binomial" else {}))


@cache
def model_of(name, link, random="x"):
    """A model with a random intercept, or with a slope beside it."""
    return build(name, link, random)


def build(name, link, random="x", **options):
    """The same with priors or another structure of D."""
    trials = "n" if name == "binomial" else None
    formula = f"y ~ x + w + ({random} | subject)"
    return hl.TwoLevelModel.from_formula(
        formula, data_of(name, link), family=FAMILIES[name](link=link), trials=trials, **options
    )
