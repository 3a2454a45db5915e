"""What is refused, and in which words, for `same_numbers.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
from same_models import GROWTH, MEAN, PARALLEL, SHORT, data, fit, marginal, mixed, model

import hierlmm as hl

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
