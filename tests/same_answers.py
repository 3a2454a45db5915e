"""What models, fits and functions are asked for `same_numbers.py`: path -> answer."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from freezing import INNER, ask, freeze, html_numbers, number, public
from same_models import GROWTH, TOLD, WHOLE, data, fit, mixed, model, simulated

import hierlmm as hl


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


def one(f: Any) -> Any:
    """The subject whose rows were asked for without naming it, before the default became all occasions."""
    return f.design.subjects[int(np.argmax(f.design.rows_per_subject)) if f.has_working_correlation else 0]


# What is asked of every fit: a method, and its arguments.
SHORTLY: dict[str, Callable[[Any], Any]] = {
    "summary()": lambda f: f.summary(),
    "variance_components()": lambda f: f.variance_components(),
    "residuals(response)": lambda f: f.residuals(),
    "residuals(pearson)": lambda f: f.residuals("pearson"),
    "residuals(normalized, population)": lambda f: f.residuals("normalized", level="population"),
    "information_criteria()": lambda f: f.information_criteria(),
    "marginal_covariance()": lambda f: f.marginal_covariance(one(f)),
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
    "working_correlation()": lambda f: f.working_correlation(one(f)),
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
