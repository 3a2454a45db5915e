"""Answers of the package that a redesign may not change: numbers, printed words, refusals, public names.

``tests/data/same_numbers.json`` holds them as they were before the package moved; ``tests/test_same_numbers.py`` asks
again and compares. Only the public interface is used: the test does not care where anything stands. To freeze anew,
which is right only if something has changed on purpose and the changelog says why:

    python tests/same_numbers.py --write                 # every entry
    python tests/same_numbers.py --write "fit: ml"       # only entries whose name begins so
    python tests/same_numbers.py --check                 # compare, and list the differences found, however small
    python tests/same_numbers.py --show "fit: ml"        # what the file says, in plain text

The file has one line for each answer within an entry; texts of more than 24 characters stand once, compressed, at its
end. An array is {"#shape": numbers}; one of more than 8 numbers is kept as its sum, norm, a weighted sum (which sees
an exchange of two entries), and its ends; NaN counts as zero in the sums, and how many there are stands in the shape.
How far an answer may move, and why, is in ``tests/freezing.py``.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import inspect
import json
import math
import os
import sys
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from freezing import INNER, ask, compact, distance, flat, freeze, html_numbers, number, public

import hierlmm as hl

FILE = Path(__file__).parent / "data" / "same_numbers.json"
LONG, TEXT = 24, "~"  # texts longer than this are written once

# Models and fits.


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


def first_draws(f: Any) -> Any:
    """What the sampler itself moved: the first three draws of every chain, number by number."""
    if not hasattr(f, "draws"):
        return None
    posterior = f.datatree["posterior"]
    return {
        f"{name} {chain} {draw}": [number(x) for x in posterior[name].to_numpy()[chain, draw].ravel()]
        for name in ("beta", "sd_b", "sigma")
        for chain in (0, 1)
        for draw in (0, 1, 2)
    }


# What is asked of every fit: a method, and its arguments.
SHORTLY: dict[str, Callable[[Any], Any]] = {
    "summary()": lambda f: f.summary(),
    "variance_components()": lambda f: f.variance_components(),
    "residuals(response)": lambda f: f.residuals(),
    "residuals(pearson)": lambda f: f.residuals("pearson"),
    "residuals(normalized, population)": lambda f: f.residuals("normalized", level="population"),
    "information_criteria()": lambda f: f.information_criteria(),
    "marginal_covariance()": lambda f: f.marginal_covariance(),
    "fitted()": lambda f: f.fitted(),
    "subject_loglik()": lambda f: f.subject_loglik(),
    "blup_variances()": lambda f: f.blup_variances(),
    "anova()": lambda f: f.anova(),
}
FULLY: dict[str, Callable[[Any], Any]] = {
    "summary(satterthwaite)": lambda f: f.summary(df="satterthwaite", ci=0.9),
    "summary(kenward-roger)": lambda f: f.summary(df="kenward-roger"),
    "summary(residual)": lambda f: f.summary(df="residual"),
    "summary(se=naive)": lambda f: f.summary(se="naive"),
    "residuals(normalized, subject)": lambda f: f.residuals("normalized", level="subject"),
    "residuals(pearson, population)": lambda f: f.residuals("pearson", level="population"),
    "fitted(population)": lambda f: f.fitted("population"),
    "marginal_covariance(last)": lambda f: f.marginal_covariance(f.design.subjects[-1]),
    "blup_variances(covariances)": lambda f: f.blup_variances(covariances=True),
    "heterogeneity()": lambda f: repr(f.heterogeneity()),
    "interpret(facts)": lambda f: f.interpret().facts,
    "heterogeneity(0.8)": lambda f: f.heterogeneity(ci=0.9, coverage=0.8, above=1.0),
    "rank_subjects()": lambda f: f.rank_subjects(),
    "rank_subjects(top)": lambda f: f.rank_subjects(f.b.columns[-1], top=3, largest_first=False, draws=500),
    "compare_subjects()": lambda f: f.compare_subjects(f.design.subjects[0], f.design.subjects[3]),
    "anova(kenward-roger)": lambda f: f.anova(df="kenward-roger"),
    "loo()": lambda f: f.loo(),
    "loo(observation)": lambda f: f.loo("observation"),
    "implied_marginal()": lambda f: f.implied_marginal(),
    "standard_errors()": lambda f: f.standard_errors(),
    "working_correlation()": lambda f: f.working_correlation(),
    "convergence()": lambda f: f.convergence(),
    "log_likelihood()": lambda f: f.log_likelihood(),
    "draws(beta)": lambda f: f.draws("beta"),
    "sample_stats": lambda f: f.sample_stats,
    "first draws": first_draws,
    "compare_marginal()": lambda f: f.compare_marginal(),
    "to_datatree()": lambda f: f.to_datatree(draws=20, chains=1, seed=3) if "REML" in f.estimator else None,
}


def everything(name: str) -> dict[str, Any]:
    """All that a fit says of itself."""
    f = fit(name)
    out: dict[str, Any] = {"print": freeze(repr(f))}
    for attribute in public(f):
        value = ask(lambda attribute=attribute: getattr(f, attribute)) if attribute not in INNER else None
        if value is not None and not callable(getattr(type(f), attribute, None)):
            out[attribute] = value
    for call, of in SHORTLY.items():
        out[call] = ask(lambda of=of: of(f))
    if name in TOLD:
        out["interpret()"] = ask(lambda: repr(f.interpret()))
    if name in WHOLE:
        out["html"] = {"numbers": html_numbers(f)}
        for call, of in FULLY.items():
            method = call.split("(")[0]
            if hasattr(f, method) or method == "first draws":
                out[call] = ask(lambda of=of: of(f))
    return out


def profile(name: str) -> Any:
    return ask(lambda: fit(name).variance_components(method="profile"))


def of_model(name: str) -> dict[str, Any]:
    """What a model says before and after its fit: print, equations, priors."""
    m = model(name)
    plain = name not in ("sleepstudy power",)
    return {
        "print": repr(m),
        "formula": m.formula,
        "equations": ask(lambda: repr(m.equations())),
        "equations(fit)": ask(lambda: repr(m.equations(fit(f"reml {name}")))),
        "latex(fit)": ask(lambda: m.equations(fit(f"reml {name}")).latex),
        "priors": ask(lambda: repr(m.priors)) if plain else None,
    }


# Questions to some fits. Each returns path -> answer.


def of_effects(name: str) -> dict[str, Any]:
    """Means, contrasts, slopes, hypotheses, curves: a factor `sex` and a number `time`."""
    f = fit(name)
    calls: dict[str, Callable[[], Any]] = {
        "means": lambda: f.marginal_means("sex"),
        "means at": lambda: f.marginal_means("sex", by="time", at={"time": [0, 6]}, weights="proportional"),
        "means simultaneous": lambda: f.marginal_means("sex", simultaneous=True),
        "contrasts": lambda: f.contrasts("sex"),
        "contrasts at": lambda: f.contrasts("sex", by="time", at={"time": [0, 6]}),
        "contrasts rope": lambda: f.contrasts("sex", rope=1.0, ci=0.9),
        "contrasts kenward-roger": lambda: f.contrasts("sex", df="kenward-roger"),
        "contrasts of means": lambda: f.marginal_means("sex").contrasts(),
        "slopes": lambda: f.slopes("time", by="sex"),
        "slopes contrasts": lambda: f.slopes("time", by="sex").contrasts(),
        "hypothesis": lambda: f.hypothesis("sex[T.Male]:time = 0"),
        "hypotheses": lambda: f.hypothesis(["sex[T.Male] = 0", "sex[T.Male]:time = 0"], ci=0.9),
        "hypothesis one-sided": lambda: f.hypothesis("2*time - sex[T.Male] > 0.5"),
        "curves": lambda: f.effects("time", by="sex", n=11, simultaneous=True),
        "curves all": lambda: f.effects("time", by="sex", at={"time": [0, 2, 6]}, simultaneous="all", ci=0.9),
        "curves marginal": lambda: f.effects("time", level="marginal", n=5),
        "curve subject": lambda: f.effects("time", level="subject"),
        "curve points": lambda: f.effects("time", by="sex", n=5).points("partial"),
    }
    return {path: ask(call) for path, call in calls.items()}


def of_predictions(name: str) -> dict[str, Any]:
    """The levels, with intervals, and a new subject measurement by measurement: dental."""
    f = fit(name)
    rows = pd.DataFrame({"subject": [1, 1, 20], "sex": ["Female", "Female", "Male"], "time": [1, 5, 9]})
    new = data("dental").query("subject == 5").assign(subject="new")
    out = {}
    for level in ("subject", "population", "new_subject", "marginal"):
        for interval in (None, "confidence", "prediction"):
            out[f"{level}, {interval}"] = ask(lambda lv=level, i=interval: f.predict(rows, lv, i, ci=0.9))
    for interval in ("confidence", "prediction"):
        out[f"new, {interval}"] = ask(lambda i=interval: f.predict_subject(new.head(2), times=[4, 6], interval=i))
    out["own rows"] = ask(lambda: f.predict())
    out["retrospective"] = ask(lambda: f.predict_subject(new, times=[1, 3], retrospective=True))
    out["backwards"] = ask(lambda: f.predict_subject(new, times=[1, 3]))
    return out


def of_terms() -> dict[str, Any]:
    """Families of more than two means, and their corrections."""
    petri, pups = fit("reml petri"), fit("ml rat_pups")
    curve, log = fit("reml pbc"), fit("reml dental log")
    calls: dict[str, Callable[[], Any]] = {
        f"petri {adjust}": lambda adjust=adjust: petri.contrasts("group", adjust=adjust)
        for adjust in ("tukey", "mvt", "holm", "bonferroni", "sidak", "fdr", "none")
    }
    calls |= {
        f"petri {method}": lambda method=method: petri.contrasts("group", method)
        for method in ("trt.vs.ctrl", "consecutive", "eff", "poly", "nonsense")
    }
    calls |= {
        "petri own": lambda: petri.contrasts("group", {"treated - control": {"Control": -1, "A": 0.5, "B": 0.5}}),
        "petri html": lambda: html_numbers(petri.contrasts("group")),
        "pups means": lambda: pups.marginal_means(["treatment", "sex"]),
        "pups proportional": lambda: pups.marginal_means("treatment", weights="proportional", adjust="bonferroni"),
        "pups slopes": lambda: pups.slopes("lsize"),
        "pbc curve": lambda: curve.effects("year", by="sex", n=7, simultaneous=True),
        "pbc exp": lambda: curve.effects("year", at={"age": [40, 60], "year": [0, 2]}, transform="exp"),
        "pbc slopes": lambda: curve.slopes("year", by="sex", at={"year": [0, 3]}),
        "pbc beyond": lambda: curve.effects("year", at={"year": [0, 30]}),
        "pbc anova": lambda: curve.anova(),
        "log units": lambda: repr(log.interpret(ci=0.9, units={"distance": "mm", "time": "year"})),
        "log curve": lambda: log.effects("time", n=5, transform="exp"),
        "cubic slopes": lambda: fit("reml sleepstudy poly").slopes("days", at={"days": [1, 5]}),
        "cubic anova": lambda: fit("reml sleepstudy poly").anova(df="kenward-roger"),
        "spline curve": lambda: fit("reml sleepstudy bs").effects("days", n=9, simultaneous=True),
    }
    return {path: ask(call) for path, call in calls.items()}


def of_comparisons() -> dict[str, Any]:
    """Fits side by side."""
    three = [fit("reml dental"), fit("ml dental"), fit("gee dental")]

    def whole(c: Any) -> dict[str, Any]:
        return {"all": freeze(c), "wide": freeze(c.wide()), "html": html_numbers(c)}

    calls: dict[str, Callable[[], Any]] = {
        "reml ml gee": lambda: whole(hl.compare(*three)),
        "labels": lambda: whole(hl.compare(*three[:2], labels=["a", "b"], reference="b", ci=0.9, flag_above=0.01)),
        "latex": lambda: hl.compare(*three[:2]).to_latex(caption="Growth"),
        "nuts reml": lambda: whole(hl.compare(fit("nuts dental"), fit("reml dental"))),
        "nuts marginal": lambda: whole(hl.compare(fit("nuts marginal"), fit("reml m ar1"), fit("ml m ar1"))),
        "of the model": lambda: whole(model("sleepstudy").compare("reml", "ml")),
        "marginal model": lambda: whole(model("m ar1").compare("reml", "ml", "gee")),
        "one fit": lambda: hl.compare(fit("reml dental")),
        "other data": lambda: hl.compare(fit("reml dental"), fit("reml sleepstudy")),
        "marginal": lambda: fit("ml negative_icc").compare_marginal(scale="n"),
        "marginal html": lambda: html_numbers(fit("ml negative_icc").compare_marginal(scale="n")),
        "marginal ar1": lambda: fit("ml dental").compare_marginal("ar1", time="time", ci=0.9),
        "marginal as comparison": lambda: fit("ml negative_icc").compare_marginal().comparison(),
        "marginal of nuts": lambda: fit("nuts dental").compare_marginal(),
    }
    return {path: ask(call) for path, call in calls.items()}


def of_serial() -> dict[str, Any]:
    return {
        f"{check.__name__} {name} {options}": ask(
            lambda check=check, name=name, options=options: check(fit(name), simulations=60, **options)
        )
        for check in (hl.semivariogram, hl.autocorrelation)
        for name, options in (
            ("reml sleepstudy", {}),
            ("reml sleepstudy car1", {"level": "population"}),
            ("reml m ar1", {}),
            ("gee dental", {}),
            ("ml simulated", {"max_lag": 3}),
            ("nuts dental", {}),
        )
    }


def of_time_varying() -> dict[str, Any]:
    pbc = data("pbc").assign(log_bili=lambda d: np.log(d["bili"]))
    key = {"subject": "subject", "time": "year"}
    rules = {
        "a_year_ago": hl.Lag("protime", lag=1.0),
        "area": hl.Cumulative("protime"),
        "mean": hl.Cumulative("protime", average=True),
        "last": hl.LastValue("albumin", within=2),
        "now": hl.CurrentValue("albumin"),
        "line": hl.Interpolate("albumin", future=True),
        "since": hl.TimeSince("albumin"),
    }

    def split() -> pd.DataFrame:
        return hl.within_between(pbc, "protime", subject="subject")

    def test(which: str) -> Any:
        m = hl.TwoLevelModel.from_formula("log_bili ~ year + protime_within + protime_between + (1 | subject)", split())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", hl.FitWarning)
            return hl.test_within_between(getattr(m, which)(), "protime_within", "protime_between")

    calls: dict[str, Callable[[], Any]] = {
        "rules": lambda: {k: v.describe() for k, v in rules.items()},
        "built": lambda: hl.time_varying(pbc, rules, **key, missing="drop"),
        "refused": lambda: hl.time_varying(pbc, rules, **key),
        "split": split,
        "reml": lambda: test("fit_reml"),
        "gee": lambda: test("fit_gee"),
        "exogeneity": lambda: hl.check_exogeneity(
            pbc, response="log_bili", variable="protime", adjust_for=["age"], **key
        ),
        "one-sided": lambda: hl.check_exogeneity(
            pbc, response="log_bili", variable="protime", lags=2, time_degree=1, **key
        ),
    }
    return {path: ask(call) for path, call in calls.items()}


def of_teaching() -> dict[str, Any]:
    times = [0, 2, 4, 6]
    serial = 0.6 ** np.abs(np.subtract.outer(range(4), range(4)))
    stated = {"beta": [21, 1.4, 0.5, 0.3], "residual": 2.0 * np.eye(4)}
    calls: dict[str, Callable[[], Any]] = {
        "cs negative": lambda: hl.is_hierarchical(1.2 * np.eye(4) - 0.2, ["Intercept"]),
        "serial": lambda: hl.is_hierarchical(serial, ["Intercept", "time"], times=times),
        "fitted": lambda: hl.is_hierarchical(
            fit("reml dental").marginal_covariance(), ["Intercept", "time"], times=times
        ),
        "no matrix": lambda: hl.is_hierarchical([[1, 2], [3, 4]], ["Intercept"]),
        "same": lambda: hl.same_marginal(model("dental parallel")),
        "same subject": lambda: hl.same_marginal(model("dental parallel")).subject(1),
        "same share": lambda: hl.same_marginal(model("dental parallel"), share=0.5),
        "not the same": lambda: hl.same_marginal(fit("reml dental"), fit("ml dental")),
        "stated": lambda: hl.subject_hierarchy(model("dental parallel"), D=[[3.0]], **stated),
        "stated loglik": lambda: hl.subject_hierarchy(model("dental parallel"), D=[[3.0]], **stated).loglik(),
        "stated effects": lambda: hl.subject_hierarchy(model("dental parallel"), D=[[3.0]], **stated).effects(),
        "steps reml": lambda: hl.gls_steps(model("rat_pups")),
        "steps ml em": lambda: hl.gls_steps(model("dyestuff"), reml=False, update="em", max_iterations=15),
        "implied": lambda: hl.compare_implied(fit("reml dental"), fit("reml m ar1"), labels=["lines", "ar1"]),
        "implied variance": lambda: (
            hl.compare_implied(fit("reml dental"), fit("reml m unstructured varident")).variance
        ),
        "implied correlation": lambda: hl.compare_implied(fit("reml dental"), fit("gee dental")).correlation,
        "implied pairs": lambda: fit("reml sleepstudy").implied_marginal([0, 4, 9]).pairs(),
        "implied nuts": lambda: fit("nuts dental").implied_marginal(times),
        "implied by sex": lambda: fit("reml dental by sex").implied_marginal(times, at={"sex": "Male"}),
        "implied html": lambda: html_numbers(fit("reml sleepstudy").implied_marginal([0, 4, 9])),
        "implied fitted value": lambda: fit("reml sleepstudy power").implied_marginal(),
    }
    return {path: ask(call) for path, call in calls.items()}


def of_data() -> dict[str, Any]:
    wide = pd.DataFrame({"id": [1, 2], "y_0": [1.0, 2.0], "y_1": [3.0, np.nan], "sex": ["f", "m"]})
    common: dict[str, Any] = {"beta": {"Intercept": 1, "time": 2}, "D": 0.5, "sigma": 1}
    out = {name: ask(lambda name=name: hl.load_dataset(name)) for name in ("dental", "pbc", "active", "none")}
    out |= {f"described {name}": ask(lambda name=name: hl.describe_dataset(name)) for name in ("rats", "aids")}
    out["listed"] = ask(lambda: hl.list_datasets())
    out["missing"] = ask(lambda: hl.load_dataset("aids"))
    out["simulated"] = ask(simulated)
    out["simulated plainly"] = ask(lambda: hl.simulate(**common, n_subjects=4, seed=3))
    out["simulated, no seed of this kind"] = ask(lambda: hl.simulate(**common, n_subjects=4, seed="a"))
    out["long"] = ask(lambda: hl.to_long(wide, subject="id", values=["y_0", "y_1"], names_pattern=r"y_(\d)"))
    out["long dropped"] = ask(lambda: hl.to_long(wide, subject="id", values=["y_0", "y_1"], missing="drop"))
    return out


def of_priors() -> dict[str, Any]:
    own = hl.Priors(
        intercept=hl.StudentT(4, 20, 5),
        beta={"time": hl.Normal(0, 1)},
        sd_b={"Intercept": hl.HalfStudentT(4, 2), "time": hl.HalfCauchy(1)},
        corr_b=hl.LKJ(1),
        sigma=hl.Gamma(2, 1),
    )
    families = [hl.Normal(1, 2), hl.StudentT(4, 0, 2), hl.HalfNormal(2), hl.HalfStudentT(3, 2), hl.HalfCauchy(2)]
    families += [hl.Gamma(2, 0.5), hl.Uniform(0, 3), hl.LogNormal(1, 0.5)]
    at = np.array([0.2, 1.0, 2.5])
    out: dict[str, Any] = {
        "printed": repr(own),
        "nothing": repr(hl.Priors()),
        "resolved": ask(lambda: own.resolve(model("dental").design)),
        "resolved print": ask(lambda: repr(own.resolve(model("dental").design))),
        "in a model": ask(lambda: repr(mixed(GROWTH, "dental", priors=own).priors)),
        "lkj": ask(lambda: hl.LKJ(2).logpdf(np.array([[1, 0.3], [0.3, 1]]))),
    }
    for prior in families:
        out[repr(prior)] = ask(lambda prior=prior: prior.logpdf(at))
        out[f"{prior!r} drawn"] = ask(lambda prior=prior: prior.sample(np.random.default_rng(1), 3))
    return out


REFUSED: dict[str, Callable[[], Any]] = {
    "formula": lambda: mixed("distance ~ sex *", "dental"),
    "column": lambda: mixed("distance ~ tme + (1 | subject)", "dental"),
    "no group": lambda: mixed("distance ~ time", "dental"),
    "two groups": lambda: mixed("distance ~ time + (1 | subject) + (1 | sex)", "dental"),
    "function": lambda: mixed("distance ~ open(time) + (1 | subject)", "dental"),
    "level 2 varies": lambda: hl.TwoLevelModel(
        "distance ~ time", {"Intercept": "age"}, subject="subject", data=data("dental")
    ),
    "level 2 unknown": lambda: hl.TwoLevelModel(
        "distance ~ time", {"slope": "sex"}, subject="subject", data=data("dental")
    ),
    "one row each": lambda: hl.TwoLevelModel("distance ~ 1", subject="subject", data=data("dental").query("time == 0")),
    "rank": lambda: mixed("distance ~ age + time + (1 | subject)", "dental").fit_reml(),
    "family": lambda: mixed(PARALLEL, "dental", family="poisson"),
    "no family": lambda: mixed(PARALLEL, "dental", family="normal"),
    "covariance": lambda: mixed(GROWTH, "dental", covariance="diag"),
    "no data": lambda: mixed(PARALLEL, "dental", nothing=1),
    "data": lambda: hl.TwoLevelModel("distance ~ time", subject="subject", data=3),
    "subject": lambda: hl.TwoLevelModel("distance ~ time", subject="child", data=data("dental")),
    "missing": lambda: hl.TwoLevelModel(
        "distance ~ time",
        subject="subject",
        data=data("dental").assign(distance=lambda d: d["distance"].where(d.time > 0)),
    ),
    "infinite": lambda: mixed("log(time) ~ distance + (1 | subject)", "dental"),
    "response text": lambda: mixed("sex ~ time + (1 | subject)", "dental"),
    "other kind of model": lambda: marginal(MEAN, "dental", residual=hl.AR1()),
    "other kind of model 2": lambda: mixed(PARALLEL, "dental", correlation=hl.AR1()),
    "misspelt": lambda: marginal(MEAN, "dental", corelation=hl.AR1()),
    "residual": lambda: mixed(PARALLEL, "dental", residual="ar1"),
    "residual column": lambda: mixed(PARALLEL, "dental", residual=hl.CAR1("tme")),
    "residual no time": lambda: hl.CAR1(),
    "residual start": lambda: hl.AR1(start=2),
    "residual argument": lambda: hl.AR1(lag=2),
    "ties": lambda: marginal(
        "bodyweight ~ age", "rats", "litter", correlation=hl.Unstructured("activitylevel")
    ).fit_reml(),
    "variance column": lambda: mixed(PARALLEL, "dental", residual_variance=hl.VarIdent("group")),
    "variance power of zero": lambda: mixed(PARALLEL, "dental", residual_variance=hl.VarPower("time")).fit_reml(),
    "prior": lambda: mixed(PARALLEL, "dental", priors=hl.Priors(sigma=hl.Normal(0, 1))),
    "prior name": lambda: mixed(PARALLEL, "dental", priors=hl.Priors(beta={"tme": hl.Normal(0, 1)})),
    "prior sd": lambda: hl.Normal(0, -1),
    "prior uniform": lambda: hl.Uniform(2, 1),
    "prior of no effects": lambda: marginal(MEAN, "dental", priors=hl.Priors(sd_b=hl.HalfNormal(1))),
    "sampler": lambda: model("dental").fit(sampler="gibbs"),
    "draws": lambda: model("dental").fit(draws=0),
    "collapsed": lambda: model("sleepstudy power").fit(**SHORT),
    "gee correlation": lambda: model("dental").fit_gee("ar2"),
    "gee time": lambda: model("dental").fit_gee("ar1"),
    "gee se": lambda: model("dental").fit_gee(se="jackknife"),
    "gee negative": lambda: mixed("y ~ time + x + (1 | subject)", "negative_icc").fit_gee("ar1", time="x"),
    "ci": lambda: fit("reml dental").summary(ci=95),
    "ci text": lambda: fit("reml dental").predict(ci="a"),
    "df": lambda: fit("reml dental").summary(df="welch"),
    "df of ml": lambda: fit("ml dental").summary(df="kenward-roger"),
    "df of structure": lambda: fit("reml m ar1").summary(df="kenward-roger"),
    "df of nuts": lambda: fit("nuts dental").contrasts("sex", df="satterthwaite"),
    "df of gee": lambda: fit("gee dental").contrasts("sex", df="satterthwaite"),
    "method": lambda: fit("reml dental").variance_components(method="bootstrap"),
    "method of nuts": lambda: fit("nuts dental").variance_components(method="profile"),
    "residual kind": lambda: fit("reml dental").residuals("deviance"),
    "residual level": lambda: fit("reml dental").residuals(level="group"),
    "level": lambda: fit("reml dental").predict(level="group"),
    "interval": lambda: fit("reml dental").predict(interval="tolerance"),
    "new subject as old": lambda: fit("reml dental").predict(
        pd.DataFrame({"subject": [99], "sex": ["Male"], "time": [1]}), "subject"
    ),
    "new level": lambda: fit("reml dental").predict(
        pd.DataFrame({"subject": [1], "sex": ["Unknown"], "time": [1]}), "population"
    ),
    "new data column": lambda: fit("reml dental").predict(pd.DataFrame({"subject": [1], "sex": ["Male"]})),
    "level 2 differs": lambda: fit("reml dental").predict(
        pd.DataFrame({"subject": [1], "sex": ["Male"], "time": [1]}), "subject"
    ),
    "gee prediction": lambda: fit("gee dental").predict(interval="prediction"),
    "gee subject": lambda: fit("gee dental").predict(level="subject"),
    "marginal subject": lambda: fit("reml m ar1").predict(level="subject"),
    "no such subject": lambda: fit("reml dental").compare_subjects(1, 99),
    "no such term": lambda: fit("reml dental").heterogeneity("sex"),
    "contrast of a number": lambda: fit("reml dental").contrasts("time"),
    "contrast of nothing": lambda: fit("reml dental").contrasts("group"),
    "adjust": lambda: fit("reml petri").contrasts("group", adjust="scheffe"),
    "slope of a factor": lambda: fit("reml dental").slopes("sex"),
    "hypothesis name": lambda: fit("reml dental").hypothesis("tme = 0"),
    "hypothesis grammar": lambda: fit("reml dental").hypothesis("time == = 0"),
    "hypothesis product": lambda: fit("reml dental").hypothesis("time * time = 0"),
    "effects at": lambda: fit("reml dental").effects("time", at={"group": 1}),
    "effects transform": lambda: fit("reml dental").effects("time", transform="exp"),
    "compare names": lambda: model("dental").compare("reml", "nust"),
    "compare options": lambda: model("dental").compare("reml", "ml", draws=100),
    "compare fits": lambda: hl.compare(fit("reml dental"), 3),
    "units": lambda: fit("reml dental").interpret(units={"weight": "kg"}),
    "calibrate": lambda: hl.calibrate(model("dental"), simulations=1, progressbar=False),
    "calibrate fitted value": lambda: hl.calibrate(model("sleepstudy power"), simulations=10, progressbar=False),
    "calibrate estimator": lambda: hl.calibrate(model("dental"), simulations=10, estimator="ols", progressbar=False),
    "design": lambda: hl.design_analysis(model("dental"), simulations=10, progressbar=False),
    "design formula": lambda: hl.design_analysis("y ~ time", n_subjects=10, progressbar=False),
    "simulate D": lambda: hl.simulate(beta={"Intercept": 1}, D=-1, sigma=1),
    "simulate sigma": lambda: hl.simulate(beta={"Intercept": 1}, D=1, sigma=-1),
    "to_long": lambda: hl.to_long(data("dental"), subject="subject", values=["a"]),
    "within": lambda: hl.within_between(data("dental"), "weight", subject="subject"),
    "lag": lambda: hl.Lag("x", lag=-1),
    "frozen model": lambda: hash(model("dental").fit_reml(1)),
    "attribute": lambda: mixed(PARALLEL, "dental", missing="ignore"),
}


def of_calibration() -> dict[str, Any]:
    tiny: dict[str, Any] = {"progressbar": False, "seed": 1, "cores": 1}
    truth = fit("reml sleepstudy two-level")
    plan: dict[str, Any] = {
        "beta": {"Intercept": 0, "time": 0.3, "group[T.b]": 0.0, "group[T.b]:time": 0.4},
        "D": [[1.0, 0.1], [0.1, 0.2]],
        "sigma": 1.0,
        "level2": {"group": ["a", "b"]},
        "times": (0, 1, 2, 3),
    }
    pilot = fit("reml dental")
    calls: dict[str, Callable[[], Any]] = {
        "reml": lambda: hl.calibrate(model("sleepstudy two-level"), 20, estimator="reml", truth=truth, **tiny),
        "nuts": lambda: hl.calibrate(model("dyestuff"), 10, draws=50, tune=50, **tiny),
        "design of a pilot": lambda: hl.design_analysis(pilot, n_subjects=(10, 20), simulations=20, **tiny),
        "design": lambda: hl.design_analysis(
            "y ~ group * time + (1 + time | subject)", n_subjects=20, simulations=20, **plan, **tiny
        ),
    }
    return {path: ask(call) for path, call in calls.items()}


def of_explicit() -> dict[str, Any]:
    """Draws of the explicit route within their Monte-Carlo error: they may depend on what a process did before."""
    f = fit("nuts explicit")
    tree = f.datatree["posterior"]
    out = {}
    for name in ("beta", "sd_b", "sigma"):
        draws = np.asarray(tree[name].to_numpy(), dtype=float)
        draws = draws.reshape(draws.shape[0] * draws.shape[1], -1)
        # A third of the draws taken for independent ones is a cautious reckoning of these short chains.
        error = draws.std(axis=0, ddof=1) / np.sqrt(draws.shape[0] / 3)
        out[name] = {"means": [number(x) for x in draws.mean(axis=0)], "errors": [number(x) for x in error]}
    return {**out, "priors": repr(f.priors), "names": freeze(f.beta.index)}


# Public names.

USERS = {"TwoLevelModel", "MarginalModel", "Priors", "Parameter", "LKJ", "AR1", "CAR1", "CompoundSymmetry", "Toeplitz"}
USERS |= {"Exponential", "Gaussian", "Unstructured", "UnstructuredHeterogeneous", "VarIdent", "VarPower", "VarExp"}
USERS |= {"Normal", "StudentT", "HalfNormal", "HalfStudentT", "HalfCauchy", "Gamma", "Uniform", "LogNormal"}
USERS |= {"CurrentValue", "LastValue", "Lag", "Interpolate", "Cumulative", "TimeSince", "Comparison"}
ONLY_TESTS_CALL = {"points_text"}  # public by oversight; nothing in the package or the documentation uses it


def signature(f: Any) -> str:
    """Names, kinds and defaults of the arguments."""
    plain = [p.replace(annotation=inspect.Parameter.empty) for p in inspect.signature(f).parameters.values()]
    return str(inspect.Signature(plain))


def members(value: Any) -> dict[str, str]:
    """Public names of an object or class: methods with their arguments, others without."""
    out = {}
    for name in public(value):
        if name not in ONLY_TESTS_CALL:
            static = inspect.getattr_static(value, name, None)
            method = static.__func__ if isinstance(static, staticmethod | classmethod) else static
            out[name] = signature(method) if inspect.isfunction(method) else ""
    return out


def of_names() -> dict[str, Any]:
    out: dict[str, Any] = {"__all__": dict.fromkeys(hl.__all__, "")}
    for name in hl.__all__:
        value = getattr(hl, name)
        if inspect.isclass(value):
            out[name] = members(value) | ({"()": signature(value)} if name in USERS else {})
        elif callable(value):
            out[name] = {"()": signature(value)}
    f, g = fit("reml dental"), fit("gee dental")
    curves = f.effects("time", by="sex", n=5)
    reached = [f, g, fit("reml m ar1"), fit("nuts dental"), model("dental"), model("m ar1"), curves, f.contrasts("sex")]
    reached += [f.marginal_means("sex"), f.slopes("time"), f.hypothesis("time = 0"), f.anova(), f.interpret()]
    reached += [f.heterogeneity(), f.compare_subjects(1, 2), f.rank_subjects(), f.implied_marginal()]
    reached += [fit("nuts dental").loo(), hl.compare(f, g), f.compare_marginal(), hl.semivariogram(f, simulations=20)]
    reached += [hl.autocorrelation(f, simulations=20), hl.same_marginal(model("dental parallel"))]
    reached += [hl.compare_implied(f, g), hl.gls_steps(model("dyestuff")), f.summary(), model("dental").equations()]
    reached += [f.variance_components(), model("dental").priors, f.residual_estimate]
    reached += [fit("reml m ar1").residual_estimate, model("dental").hierarchy, f.information_criteria()]
    for value in reached:
        if type(value).__module__.startswith("hierlmm"):
            name = type(value).__name__
            out[name if name in hl.__all__ else f"of {name}"] = out.get(name, {}) | members(value)
    return out


# All entries.

ENTRIES: dict[str, Callable[[], Any]] = {
    "public names": of_names,
    **{f"fit: {name}": functools.partial(everything, name) for name in FITS},
    **{f"model: {name}": functools.partial(of_model, name) for name in MODELS if name not in ALIKE},
    **{
        f"profile: {name}": functools.partial(profile, name)
        for name in ("reml sleepstudy", "ml dental", "reml m ar1", "reml dental by sex", "ml dyestuff2")
    },
    **{
        f"effects: {name}": functools.partial(of_effects, name)
        for name in ("reml dental", "ml dental by sex", "reml m ar1", "gee dental", "nuts dental")
    },
    **{
        f"predictions: {name}": functools.partial(of_predictions, name)
        for name in ("reml dental", "reml dental by sex", "reml m ar1", "gee dental", "nuts dental")
    },
    "terms": of_terms,
    "comparisons": of_comparisons,
    "serial": of_serial,
    "time-varying": of_time_varying,
    "teaching": of_teaching,
    "data": of_data,
    "priors": of_priors,
    "refusals": lambda: {name: ask(call) for name, call in REFUSED.items()},
    "calibrate": of_calibration,
    "nuts explicit": of_explicit,
}


def answer(entry: str) -> dict[str, Any]:
    """The answers of one entry now, path by path."""
    os.environ.pop("HIERLMM_DATA", None)  # only what ships
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of an answer are kept with it
        return {path: value for path, value in flat(ENTRIES[entry]()) if value is not None}


def answers(begins: str = "") -> dict[str, dict[str, Any]]:
    """All answers, by entry and path."""
    return {entry: answer(entry) for entry in ENTRIES if entry.startswith(begins)}


@functools.cache
def frozen() -> dict[str, dict[str, Any]]:
    """What the file says, by entry and path."""
    kept = json.loads(FILE.read_text(encoding="utf-8"))
    texts = json.loads(zlib.decompress(base64.b85decode("".join(kept.pop("texts")))))

    def filled(value: Any) -> Any:
        if isinstance(value, str) and value.startswith(TEXT):
            return texts[value.removeprefix(TEXT)]
        return {k: filled(v) for k, v in value.items()} if isinstance(value, dict) else value

    return {entry: dict(flat(filled(inside))) for entry, inside in kept.items()}


def write(begins: str) -> None:
    """Freeze the entries whose name begins so."""
    kept = (frozen() if begins else {}) | answers(begins)
    texts: dict[str, str] = {}

    def short(value: Any) -> Any:
        if isinstance(value, str) and len(value) > LONG:
            key = hashlib.sha256(value.encode()).hexdigest()[:6]
            assert texts.setdefault(key, value) == value
            return TEXT + key
        return value

    def lines(inside: dict[str, Any]) -> str:
        return ",\n".join(f"{compact(k)}: {compact(v)}" for k, v in inside.items())

    entries = []
    for entry in (e for e in ENTRIES if e in kept):
        nested: dict[str, Any] = {}
        for path, value in kept[entry].items():  # a tree again, which repeats no path
            *above, last = path.split("/")
            where = nested
            for part in above:
                where = where.setdefault(part, {})
            where[last] = short(value)
        entries.append(f"{compact(entry)}: {{\n{lines(nested)}\n}}")
    packed = base64.b85encode(zlib.compress(compact(dict(sorted(texts.items()))).encode(), 9)).decode()
    packed = [compact(packed[i : i + 10_000]) for i in range(0, len(packed), 10_000)]
    entries.append('"texts": [\n' + ",\n".join(packed) + "\n]")
    FILE.write_text("{\n" + ",\n".join(entries) + "\n}\n", encoding="utf-8")


# At the command line.


def check(begins: str) -> None:
    old = frozen()
    for entry in (e for e in ENTRIES if e.startswith(begins)):
        now = answer(entry)
        for path, was in old[entry].items():
            d = distance(f"{entry}/{path}", was, now[path]) if path in now else math.inf
            if d > 1e-12:
                print(f"{d:8.1e}  {entry}/{path}")
                if d == math.inf:
                    print(f"      was {str(was)[:300]}\n      now {str(now.get(path))[:300]}")


def show(begins: str) -> None:
    for entry, inside in frozen().items():
        for path, value in inside.items() if entry.startswith(begins) else ():
            print(f"{entry}/{path}: {value}")


if __name__ == "__main__":
    rest = [a for a in sys.argv[1:] if not a.startswith("--")]
    {"--write": write, "--show": show}.get(sys.argv[1] if sys.argv[1:] else "", check)(rest[0] if rest else "")
