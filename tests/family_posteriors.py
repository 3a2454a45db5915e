"""A posterior of every family on small data, made once; and its draws as plain arrays."""

from __future__ import annotations

import warnings
from functools import cache

import numpy as np
import pandas as pd
from scipy import special, stats

import hierlmm as hl
from hierlmm.families.names import FAMILIES

NAMES = ("poisson", "negative_binomial", "bernoulli", "binomial", "gamma", "beta", "student_t", "ordinal")
LOG = ("poisson", "negative_binomial", "gamma")
PSI = {"negative_binomial": [0.7], "gamma": [1.0], "beta": [2.0], "student_t": [0.0, 1.5], "ordinal": [0.2]}
CATEGORIES = ["none", "some", "much"]


def inverse(name):
    """The inverse of a family's default link."""
    return np.exp if name in LOG else np.asarray if name == "student_t" else special.expit


@cache
def data_of(name):
    """Fourteen subjects with five rows: x and the factor h within, g between them."""
    rng = np.random.default_rng(8)
    subject = np.repeat(np.arange(14), 5)
    frame = pd.DataFrame({"subject": [f"s{k:02}" for k in subject], "x": rng.uniform(0.0, 2.0, 70)})
    frame["g"], frame["h"] = np.where(subject % 2, "b", "a"), np.array(["u", "v", "w"])[np.arange(70) % 3]
    eta = 0.4 + 0.5 * frame["x"] - 0.4 * (frame["g"] == "b") + 0.3 * (frame["h"] == "v")
    eta = (eta + 0.6 * rng.normal(size=14)[subject]).to_numpy()
    family = FAMILIES[name]()
    n = np.full(70, 6.0 if name == "binomial" else 1.0)
    y = family.draw(rng, eta if name == "ordinal" else family.mean(eta), np.array(PSI.get(name, [])), n)
    if name == "ordinal":
        y = pd.Categorical.from_codes(y.astype(int), CATEGORIES, ordered=True)
    return frame.assign(y=y, n=n)


@cache
def posterior_of(name, **options):
    """A posterior of 400 draws: y on x, g and h, with random intercepts."""
    model = hl.TwoLevelModel.from_formula(
        "y ~ x + g + h + (1 | subject)", data_of(name), family=name, trials="n" if name == "binomial" else None
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", hl.FitWarning)
        return model.fit(draws=200, tune=300, chains=2, seed=3, progressbar=False, **options)


def lines(fit, x, g):
    """Linear predictors at b = 0 at the levels of h, by draw: (400, 3)."""
    beta = dict(zip(fit.design.coef, np.concatenate(fit.draws("beta")).T, strict=True))
    middle = beta["Intercept"] + beta["x"] * x + beta["g[T.b]"] * (g == "b")
    return np.column_stack([middle, middle + beta["h[T.v]"], middle + beta["h[T.w]"]])


def thresholds(fit):
    """Thresholds by draw, (400, K - 1)."""
    return np.column_stack([np.zeros(400), np.concatenate(fit.draws("threshold_2"))])


def over_subjects(function, eta, sd):
    """Mean of a function of eta + b, b ~ N(0, sd²) by draw, on a fine grid: (400, ...) and (400,) -> (400, ...)."""
    node = np.linspace(-8.0, 8.0, 801)
    sd = sd.reshape(-1, *(1 for _ in eta.shape[1:]))
    return sum(stats.norm.pdf(z) * function(eta + sd * z) for z in node) * (node[1] - node[0])


def summary(draws, ci=0.95):
    """Estimate, se and ends of an interval of draws, (400, k) -> (k, 4)."""
    ends = np.quantile(draws, [0.5 - ci / 2, 0.5 + ci / 2], axis=0)
    return np.column_stack([draws.mean(axis=0), draws.std(axis=0, ddof=1), *ends])
