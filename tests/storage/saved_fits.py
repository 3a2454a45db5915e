"""Fits of every kind, small, to be saved."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
import same_models

import hierlmm as hl
from hierlmm.bayes.distribution import Prior, family
from hierlmm.fit.estimators import fit_by

SHORT = {"draws": 60, "tune": 120, "chains": 2, "seed": 1, "progressbar": False}


@dataclass(frozen=True)
class Linear(hl.ResidualCorrelation):
    """A structure of a user: correlations that fall to a share of rho at the largest distance."""

    time: str
    reach: float = 12.0

    def parameters(self, observed):
        return (hl.Parameter("rho", 0.4, 0.0, 1.0),)

    def matrix(self, t, values):
        lag = np.abs(t[..., :, None] - t[..., None, :])
        return np.where(lag > 0, values[0] * np.exp(-lag / self.reach), 1.0)


@family(
    "Laplace",
    lambda p: {"mu": 0.0, "b": p.scale},
    lambda p, x: -np.abs(x) / p.scale - np.log(2 * p.scale),
    lambda p, rng, size: rng.laplace(0.0, p.scale, size),
)
class DoubleExponential(Prior):
    """A prior of a user."""

    scale: float = 1.0


@dataclass(frozen=True)
class Failures(hl.families.Family):
    """A family of a user: failures before the ``wins``-th success."""

    wins: float = 1.0
    name: ClassVar[str] = "failures"
    links: ClassVar[tuple[str, ...]] = ("log",)

    @staticmethod
    def density(y, n, mu, psi, order, d):
        d[0] = y * math.log(mu) - (y + 1) * math.log1p(mu)
        d[1] = y / mu - (y + 1) / (1 + mu)
        d[2] = -y / mu**2 + (y + 1) / (1 + mu) ** 2
        d[3] = 2 * y / mu**3 - 2 * (y + 1) / (1 + mu) ** 3

    def variance(self, mu, psi, n=1.0):
        return mu + mu**2


def responses() -> pd.DataFrame:
    """One linear predictor behind a response of every family."""
    rng = np.random.default_rng(3)
    who = np.repeat(np.arange(25), 8)
    frame = pd.DataFrame({"who": who, "x": rng.normal(size=200), "years": rng.uniform(0.5, 2.0, 200), "n": 6})
    eta = 0.2 + 0.6 * rng.normal(size=25)[who] + 0.5 * frame["x"]
    p = 1 / (1 + np.exp(-eta))
    frame["count"] = rng.poisson(frame["years"] * np.exp(eta))
    frame["wins"] = rng.binomial(6, p)
    frame["ill"] = pd.Categorical(np.where(rng.random(200) < p, "yes", "no"), categories=["yes", "no"])
    frame["amount"] = rng.gamma(3.0, np.exp(eta) / 3.0)
    frame["share"] = rng.beta(4.0 * p, 4.0 * (1.0 - p))
    frame["far"] = eta + rng.standard_t(4.0, 200)
    levels = ["none", "some", "much"]
    cut = np.digitize(eta + rng.logistic(size=200), [0.0, 1.5])
    frame["pain"] = pd.Categorical.from_codes(cut, categories=levels, ordered=True)
    return frame


def generalised(formula, points=1, **options):
    return hl.TwoLevelModel.from_formula(formula, responses(), **options).fit_ml(n_quadrature=points)


def strange() -> pd.DataFrame:
    """Missing rows, an index of text, categories out of order with one unused, dates as labels, nullable integers."""
    rng, J, n = np.random.default_rng(5), 14, 5
    subject = pd.Timestamp("2024-02-01") + pd.to_timedelta(np.repeat(rng.permutation(J), n), "D")
    frame = pd.DataFrame({"person": subject, "week": pd.array(np.tile(np.arange(n), J), dtype="Int16")})
    frame["arm"] = pd.Categorical(np.repeat(["low", "high"] * (J // 2), n), categories=["low", "none", "high"])
    frame["wet"] = rng.integers(0, 2, J * n).astype(bool)
    frame["room one"] = rng.choice(["é", "b\u00df", "c"], J * n)
    frame["dose"] = rng.integers(1, 9, J * n).astype("int8")
    frame["base"] = rng.normal(size=J * n)
    line = 2.0 * rng.normal(size=J).repeat(n) + frame["week"].astype(float)
    frame["y"] = 10.0 + line + frame["base"] + rng.normal(size=J * n)
    frame.loc[[3, 20, 21], "y"] = np.nan
    frame.loc[7, "week"] = pd.NA
    return frame.set_index(pd.Index([f"row {k}" for k in range(J * n)], name="which"))


def two_minima():
    return hl.TwoLevelModel.from_formula("distance ~ sex + (0 + age | subject)", same_models.data("dental"))


def bambi():
    made = hl.TwoLevelModel.from_formula("distance ~ sex * time + (time || subject)", same_models.data("dental"))
    return fit_by("bambi", made, **SHORT)


def model(name: str):
    return same_models.model(name)


def strange_model(**options):
    formula = "y ~ week * arm + C(wet) + `room one` + I(dose ** 2) + offset(base) + (week | person)"
    return hl.TwoLevelModel.from_formula(formula, strange(), missing="drop", **options)


def chosen_priors() -> hl.Priors:
    return hl.Priors(
        intercept=hl.Normal(20, 10),
        beta={"time": hl.Normal(0, 2)},
        sd_b={"Intercept": hl.HalfStudentT(3, 2)},
        corr_b=hl.LKJ(3),
        sigma=hl.HalfNormal(3),
    )


def own_structure():
    return hl.MarginalModel(
        "distance ~ sex * time", subject="subject", data=same_models.data("dental"), correlation=Linear("age", 9.0)
    )


def growth(**options):
    return hl.TwoLevelModel.from_formula(same_models.GROWTH, same_models.data("dental"), **options)


QUICK = {
    **{f"reml {n}": (lambda n=n: model(n).fit_reml()) for n in same_models.MODELS if n not in ("active", "dental")},
    **{f"ml {n}": (lambda n=n: model(n).fit_ml()) for n in ("dental", "sleepstudy power", "m ar1", "m rats")},
    **{n: (lambda n=n: same_models.fit(n)) for n in same_models.GEE},
    "reml two optima": lambda: two_minima().fit_reml(),
    "reml strange": lambda: strange_model().fit_reml(),
    "gee strange": lambda: strange_model().fit_gee("exchangeable"),
    "gee other time": lambda: model("dental parallel").fit_gee("ar1", time=same_models.data("dental")["age"] * 0.5),
    "reml own structure": lambda: own_structure().fit_reml(),
    "family poisson": lambda: generalised("count ~ x + (x | who)", family="poisson", exposure="years"),
    "family binomial": lambda: generalised("p(wins, n) ~ x + (1 | who)", 9, family="binomial"),
    "family bernoulli": lambda: generalised("ill ~ x + (1 | who)", family=hl.families.Bernoulli(link="probit")),
    "family negative binomial": lambda: generalised("count ~ x + (x || who)", family="negative_binomial"),
    "family gamma": lambda: generalised("amount ~ x + (1 | who)", family="gamma"),
    "family beta": lambda: generalised("share ~ x + (1 | who)", family="beta"),
    "family ordinal": lambda: generalised("pain ~ x + (1 | who)", family="ordinal"),
    "family student": lambda: generalised("far ~ x + (1 | who)", family=hl.families.StudentT(nu=5)),
    "family own": lambda: generalised("count ~ x + (1 | who)", family=Failures(wins=1.0)),
    "reml three levels of blocks": lambda: hl.TwoLevelModel(
        "distance ~ time", {"time": "sex", "Intercept": "0"}, subject="subject", data=same_models.data("dental")
    ).fit_reml(),
}
SAMPLED = {
    **{n: (lambda n=n: same_models.fit(n)) for n in same_models.NUTS},
    "nuts explicit": lambda: model("dental parallel").fit(sampler="explicit", **SHORT),
    "nuts summary": lambda: model("dental").fit(random_effects="summary", **SHORT),
    "nuts without b": lambda: model("dental").fit(random_effects="none", **SHORT),
    "nuts strange": lambda: strange_model().fit(**SHORT),
    "nuts priors": lambda: growth(priors=chosen_priors()).fit(**SHORT),
    "nuts by sex": lambda: model("dental by sex").fit(**SHORT),
    "nuts own prior": lambda: growth(priors=hl.Priors(beta={"time": DoubleExponential(1.5)})).fit(**SHORT),
    "nuts extended": lambda: same_models.fit("nuts dental").extend(draws=20, seed=1),
    "bambi": bambi,
}
ALL = QUICK | SAMPLED
