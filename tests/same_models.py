"""Models and fits whose answers are frozen (`same_numbers.py`); each is made once in a process."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

import hierlmm as hl


@functools.cache
def data(name: str) -> pd.DataFrame:
    frame = hl.load_dataset(name)
    if name == "dental":
        frame["visit"] = frame["time"] // 2 + 1
    if name == "sleepstudy":
        frame["phase"] = np.select([frame["days"] < 3, frame["days"] < 6], ["early", "middle"], "late")
    if name == "pbc":
        frame = frame[frame["subject"] <= 60].reset_index(drop=True)
    if name == "active":
        frame = frame[frame["subject"].isin(sorted(frame["subject"].unique())[:120])].reset_index(drop=True)
    return frame


@functools.cache
def simulated() -> pd.DataFrame:
    """Irregular times, dropout, a covariate of each level."""
    return hl.simulate(
        beta={"Intercept": 10, "time": -1, "group[T.b]": 2, "group[T.b]:time": 0.5, "x": 0.3},
        D=np.array([[4, 0.5], [0.5, 0.25]]),
        sigma=1.5,
        random=["Intercept", "time"],
        n_subjects=25,
        times=(0, 1, 2, 3, 4),
        irregular=True,
        level2={"group": ["a", "b"]},
        level1={"x": lambda rng, n: rng.normal(size=n)},
        dropout=0.1,
        seed=11,
    )


def mixed(formula: str, name: str, **options: Any) -> hl.TwoLevelModel:
    return hl.TwoLevelModel.from_formula(formula, simulated() if name == "simulated" else data(name), **options)


def marginal(formula: str, name: str, subject: str = "subject", **options: Any) -> hl.MarginalModel:
    return hl.MarginalModel(formula, subject=subject, data=data(name), **options)


GROWTH, SLEEP = "distance ~ sex * time + (1 + time | subject)", "reaction ~ days + (1 + days | subject)"
PARALLEL = "distance ~ sex * time + (1 | subject)"
MEAN = "distance ~ sex * time"
YEARS = "log(bili) ~ ns(year, 2) * sex + age + (1 + year | subject)"
SHORT = {"draws": 60, "tune": 120, "chains": 2, "seed": 1, "progressbar": False}

MODELS: dict[str, Callable[[], Any]] = {
    "sleepstudy": lambda: mixed(SLEEP, "sleepstudy"),
    "sleepstudy two-level": lambda: hl.TwoLevelModel("reaction ~ days", subject="subject", data=data("sleepstudy")),
    "sleepstudy diagonal": lambda: mixed("reaction ~ days + (1 + days || subject)", "sleepstudy"),
    "sleepstudy identity": lambda: mixed(
        "reaction ~ days + (0 + phase | subject)", "sleepstudy", covariance="identity"
    ),
    "sleepstudy cs": lambda: mixed(
        "reaction ~ days + (0 + phase | subject)", "sleepstudy", covariance="compound_symmetry"
    ),
    "sleepstudy car1": lambda: mixed("reaction ~ days + (1 | subject)", "sleepstudy", residual=hl.CAR1("days")),
    "sleepstudy power": lambda: mixed(SLEEP, "sleepstudy", residual_variance=hl.VarPower()),
    "sleepstudy bs": lambda: mixed("reaction ~ bs(days, df=4) + (1 + days | subject)", "sleepstudy"),
    "sleepstudy poly": lambda: mixed("reaction ~ poly(days, 3) + (poly(days, 2) | subject)", "sleepstudy"),
    "dental": lambda: hl.TwoLevelModel(
        "distance ~ time", {"Intercept": "sex", "time": "sex"}, subject="subject", data=data("dental")
    ),
    "dental parallel": lambda: mixed(PARALLEL, "dental"),
    "dental by sex": lambda: mixed(PARALLEL, "dental", residual_variance=hl.VarIdent("sex")),
    "dental log": lambda: mixed("log(distance) ~ sex * time + (1 + time | subject)", "dental"),
    "rats": lambda: mixed("bodyweight ~ age + activitylevel + (1 | litter)", "rats"),
    "petri": lambda: mixed("y ~ group + (1 | dish)", "petri"),
    "pastes": lambda: mixed("strength ~ 1 + (1 | batch)", "pastes"),
    "penicillin": lambda: mixed("diameter ~ sample + (1 | plate)", "penicillin"),
    "dyestuff": lambda: mixed("yield ~ 1 + (1 | batch)", "dyestuff"),
    "dyestuff2": lambda: mixed("yield ~ 1 + (1 | batch)", "dyestuff2"),
    "rat_pups": lambda: mixed("weight ~ treatment * sex + lsize + (1 | litter)", "rat_pups"),
    "negative_icc": lambda: mixed("y ~ time + x + (1 | subject)", "negative_icc"),
    "active": lambda: mixed("memory ~ years * intgrp + (1 + years | subject)", "active"),
    "pbc": lambda: mixed(YEARS, "pbc"),
    "simulated": lambda: mixed("y ~ group * time + x + (1 + time | subject)", "simulated"),
    "simulated exponential": lambda: mixed(
        "y ~ group * time + x + (1 | subject)", "simulated", residual=hl.Exponential("time", nugget=True)
    ),
    "m independent": lambda: marginal(MEAN, "dental"),
    "m ar1": lambda: marginal(MEAN, "dental", correlation=hl.AR1()),
    "m ar1 nugget": lambda: marginal("reaction ~ days", "sleepstudy", correlation=hl.AR1("days", nugget=True)),
    "m car1 varexp": lambda: marginal(MEAN, "dental", correlation=hl.CAR1("time"), variance=hl.VarExp("age")),
    "m cs": lambda: marginal("y ~ time + x", "negative_icc", correlation=hl.CompoundSymmetry()),
    "m exponential varpower": lambda: marginal(
        MEAN, "dental", correlation=hl.Exponential("age"), variance=hl.VarPower("age")
    ),
    "m gaussian nugget": lambda: marginal(
        "reaction ~ days", "sleepstudy", correlation=hl.Gaussian("days", nugget=True)
    ),
    "m toeplitz": lambda: marginal(MEAN, "dental", correlation=hl.Toeplitz("visit")),
    "m unstructured": lambda: marginal(MEAN, "dental", correlation=hl.Unstructured("age")),
    "m unstructured varident": lambda: marginal(MEAN, "dental", correlation=hl.UnstructuredHeterogeneous("age")),
    "m rats": lambda: marginal(
        "bodyweight ~ age", "rats", "litter", correlation=hl.CompoundSymmetry(), variance=hl.VarIdent("activitylevel")
    ),
}

GEE = {
    "gee dental": ("dental parallel", {}),
    "gee dental ar1": ("dental parallel", {"correlation": "ar1", "time": "time"}),
    "gee dental unstructured": (
        "dental parallel",
        {"correlation": "unstructured", "time": "time", "se": "bias_reduced"},
    ),
    "gee active independence": ("active", {"correlation": "independence", "scale": "n", "se": "naive"}),
    "gee sleepstudy adjacent": ("sleepstudy", {"correlation": "ar1", "time": "days", "ar_pairs": "adjacent"}),
    "gee marginal": ("m car1 varexp", {}),
}
NUTS = {
    "nuts dental": ("dental", {"sampler": "collapsed"}),
    "nuts sleepstudy car1": ("sleepstudy car1", {"sampler": "collapsed"}),
    "nuts marginal": ("m ar1", {}),
}
EXPLICIT = {"nuts explicit": ("dental parallel", {"sampler": "explicit", "draws": 200, "tune": 200})}

REML = [m for m in MODELS if m not in ("sleepstudy two-level", "dental parallel", "pastes", "rats", "m rats", "active")]
ML = [
    "active",
    "dental",
    "dental by sex",
    "dyestuff2",
    "rat_pups",
    "negative_icc",
    "simulated",
    "rats",
    "m ar1",
    "m rats",
]
FITS = [*(f"reml {name}" for name in REML), *(f"ml {name}" for name in ML), *GEE, *NUTS]
# Those of which everything is asked; of the others, what is quick and short.
WHOLE = {
    "reml sleepstudy",
    "reml dental",
    "ml rat_pups",
    "reml dental by sex",
    "reml m ar1",
    "gee dental",
    "nuts dental",
}
# Those whose sentences are read: one of a kind.
TOLD = WHOLE | {"reml sleepstudy bs", "reml sleepstudy cs", "reml sleepstudy car1", "reml petri", "ml dyestuff2"}
TOLD |= {"reml pbc", "reml m cs", "reml m unstructured varident", "reml simulated exponential", "nuts sleepstudy car1"}
# Models that are like another one in what they say before a fit.
ALIKE = {
    "sleepstudy two-level",
    "dental parallel",
    "rats",
    "pastes",
    "penicillin",
    "dyestuff2",
    "negative_icc",
    "active",
}
ALIKE |= {"m ar1 nugget", "m cs", "m rats", "m unstructured", "m toeplitz", "m exponential varpower", "simulated"}
SLOW = {"calibrate", "nuts explicit", "effects: nuts dental"}


@functools.cache
def model(name: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", hl.FitWarning)
        return MODELS[name]()


@functools.cache
def fit(name: str) -> Any:
    """The fit of a name, made once in a process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", hl.FitWarning)  # they are in fit.warnings
        if name in GEE:
            return model(GEE[name][0]).fit_gee(**GEE[name][1])
        if name in NUTS or name in EXPLICIT:
            of, options = (NUTS | EXPLICIT)[name]
            return model(of).fit(**(SHORT | options))
        how, of = name.split(" ", 1)
        return getattr(model(of), f"fit_{how}")()
