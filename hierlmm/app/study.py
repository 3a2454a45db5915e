"""Room (b), simulate and refit: a study from a known truth, with drop-out, and what every estimator makes of it.

After each visit a subject may leave for good, with log odds ``logit(h) + c z``: c = 0 is missing completely at random
(MCAR); with z its last measurement, standardised, missing at random (MAR); with z the one that is then missing, missing
not at random (MNAR). h is such that about the share asked for has left at the end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit, logit
from scipy.stats import norm

from hierlmm.app.chart import Chart, limits
from hierlmm.app.room import Room, charts, paragraph, say, table
from hierlmm.app.settings import Choice, Number
from hierlmm.covariance.residual import CompoundSymmetry
from hierlmm.datasets.simulate import simulate
from hierlmm.diagnostics.study import Found as Analysed
from hierlmm.diagnostics.study import summaries
from hierlmm.errors import HierlmmError
from hierlmm.marginal import MarginalModel
from hierlmm.model import TwoLevelModel

FORMULA = "y ~ time + (1 + time | subject)"
INTERCEPT = 10.0
EFFECT = 1.5
"""Of one SD of the measurement on the log odds of leaving."""
REPETITIONS = 200
CI = 0.95
NONE, MCAR, MAR, MNAR = "none", "mcar", "mar", "mnar"
COLOURS = {"REML": "c0", "NUTS": "c1", "ML": "c2", "GEE": "c3", "GLS": "c4"}
SETTINGS = (
    Number("subjects", "Subjects", 10, 150, 5, 40),
    Number("visits", "Visits", 3, 8, 1, 5),
    Number("slope", "Mean slope (truth)", 0.0, 1.0, 0.05, 0.5),
    Number("sd_intercept", "sd(Intercept)", 0.0, 3.0, 0.1, 1.5),
    Number("sd_slope", "sd(slope)", 0.0, 1.0, 0.05, 0.3),
    Number("sigma", "σ, residual SD", 0.2, 3.0, 0.1, 1.0),
    Choice(
        "dropout",
        "Drop-out",
        {
            NONE: "none",
            MCAR: "MCAR: for no reason",
            MAR: "MAR: after a high measurement",
            MNAR: "MNAR: before a high measurement",
        },
        MAR,
    ),
    Number("share", "Share that has left at the end", 0.1, 0.8, 0.05, 0.5),
    Choice(
        "working",
        "Working correlation of GEE",
        {"independence": "independence", "exchangeable": "exchangeable"},
        "independence",
    ),
    Number("seed", "Study (another number, another draw)", 1, 100, 1, 1),
)


@dataclass(frozen=True, eq=False)
class Found:
    """A study, all of it and what was seen, and its fits by label."""

    values: dict[str, Any]
    complete: pd.DataFrame
    data: pd.DataFrame
    fits: dict[str, Any]


def draw(values: Mapping[str, Any]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All measurements, and those that are seen."""
    complete = simulate(
        beta={"Intercept": INTERCEPT, "time": values["slope"]},
        D=np.diag([values["sd_intercept"], values["sd_slope"]]) ** 2,
        random=["Intercept", "time"],
        sigma=values["sigma"],
        n_subjects=values["subjects"],
        times=range(values["visits"]),
        seed=values["seed"],
    )
    return complete, drop_out(complete, values["dropout"], values["share"], seed=values["seed"])


def drop_out(complete: pd.DataFrame, kind: str, share: float, *, seed: int) -> pd.DataFrame:
    """Leave out what is measured after subjects have left.

    Parameters
    ----------
    complete : DataFrame
        ``subject``, ``time`` and ``y``, every subject at every visit.
    kind : {"none", "mcar", "mar", "mnar"}
    share : float
        About how many have left at the last visit.
    seed : int

    Returns
    -------
    DataFrame
    """
    if kind == NONE:
        return complete
    y = complete["y"].to_numpy().reshape(complete["subject"].nunique(), -1)
    z = (y - y.mean(axis=0)) / y.std(axis=0)
    n, visits = y.shape
    hazard = 1.0 - (1.0 - share) ** (1.0 / (visits - 1))
    effect, back = {MCAR: (0.0, 0), MAR: (EFFECT, 1), MNAR: (EFFECT, 0)}[kind]
    stays = np.ones((n, visits), dtype=bool)
    u = np.random.default_rng([seed, 7]).random((n, visits))
    for k in range(1, visits):
        stays[:, k] = stays[:, k - 1] & (u[:, k] >= expit(logit(hazard) + effect * z[:, k - back]))
    return complete[stays.ravel()].reset_index(drop=True)


def fit_all(data: pd.DataFrame, working: str) -> dict[str, Any]:
    """REML, ML, GEE, and GLS with equal correlations, by label."""
    model = TwoLevelModel.from_formula(FORMULA, data)
    gls = MarginalModel("y ~ time", correlation=CompoundSymmetry(), subject="subject", data=data)
    return {"REML": model.fit_reml(), "ML": model.fit_ml(), "GEE": model.fit_gee(working), "GLS": gls.fit_reml()}


def fit_nuts(data: pd.DataFrame) -> Any:
    """The posterior, under the default priors."""
    return TwoLevelModel.from_formula(FORMULA, data).fit(seed=1, progressbar=False)


def warm() -> None:
    """Sample a small study, for what that loads and compiles."""
    _, data = draw(ROOM.read({"subjects": 10, "visits": 3}))
    TwoLevelModel.from_formula(FORMULA, data).fit(draws=10, tune=10, chains=1, seed=1, progressbar=False)


def numbers(**values: Any) -> Found:
    """Draw the study and fit it."""
    complete, data = draw(values)
    return Found(values, complete, data, fit_all(data, values["working"]))


def show(found: Found) -> str:
    """The study, and its fits."""
    return show_study(found.values, found.complete, found.data) + show_fits(found.values, found.fits)


def show_study(values: Mapping[str, Any], complete: pd.DataFrame, data: pd.DataFrame) -> str:
    """What was measured, and the means of those who are still there beside those of all."""
    chart = Chart("Measurements that were seen", limits(complete["time"]), limits(complete["y"]), "time", "y")
    drawn = data[data["subject"] <= 40]
    for _, rows in drawn.groupby("subject"):
        chart.line(rows["time"], rows["y"], "data thin", "subjects")
        if len(rows) < values["visits"]:
            chart.dots(rows["time"].iloc[-1:], rows["y"].iloc[-1:], "c1", "left after this", radius=2.5)
    every, seen = (frame.groupby("time")["y"].mean() for frame in (complete, data))
    means = Chart("Means by visit", limits(every.index), limits(every, seen, room=0.15), "time", "mean of y")
    means.line(every.index, every, "ink", "all, had nobody left")
    means.line(seen.index, seen, "c1 dashed", "those still there")
    means.dots(seen.index, seen, "c1")
    left = 1.0 - (data.groupby("subject").size() == values["visits"]).mean()
    said = say("study.left", left=f"{100 * left:.0f}", rows=len(data), all=len(complete))
    return charts([chart.svg(), means.svg()]) + paragraph(said)


def show_fits(values: Mapping[str, Any], fits: Mapping[str, Any]) -> str:
    """The truth beside the estimates."""
    slopes = {name: fit.summary(ci=CI).loc["time"] for name, fit in fits.items()}
    ends = [v for row in slopes.values() for v in (row["lower"], row["upper"])]
    chart = Chart(
        "Slope: estimates and 95 % intervals", limits(ends, [values["slope"]]), (-0.7, len(fits) - 0.3), "slope"
    )
    chart.line((values["slope"],) * 2, chart.y, "ink dashed", "truth")
    for k, (name, row) in enumerate(reversed(slopes.items())):
        chart.line((row["lower"], row["upper"]), (k, k), COLOURS[name])
        chart.dots([row["estimate"]], [k], COLOURS[name], radius=5)
    chart.tick(y=[(k, name) for k, name in enumerate(reversed(slopes))])
    return charts([chart.svg(), table(_beside(values, fits), say("study.beside"), ".3f")])


def _beside(values: Mapping[str, Any], fits: Mapping[str, Any]) -> pd.DataFrame:
    """Truth and estimates, a column each; what an estimator does not have is empty."""
    names = {"Intercept": "intercept", "time": "slope"}
    truth = {"intercept": INTERCEPT, "slope": values["slope"], "SE of intercept": np.nan, "SE of slope": np.nan}
    truth |= {"sd(Intercept)": values["sd_intercept"], "sd(slope)": values["sd_slope"], "σ": values["sigma"]}
    columns = {"truth": truth}
    for label, fit in fits.items():
        found = {names[name]: value for name, value in fit.beta.items()}
        found |= {f"SE of {names[name]}": value for name, value in fit.beta_se.items()}
        if fit.has_random_effects and len(fit.design.term):
            sd = fit.sd_b
            found |= {"sd(Intercept)": sd["Intercept"], "sd(slope)": sd["time"], "σ": fit.sigma}
        columns[label] = found
    return pd.DataFrame(columns, index=list(truth))


def repetition(values: Mapping[str, Any], k: int) -> dict[str, Analysed] | None:
    """Draw study number k and fit it by REML and GEE; None where it cannot be fitted."""
    _, data = draw({**values, "seed": 1000 * values["seed"] + k})
    try:
        model = TwoLevelModel.from_formula(FORMULA, data)
        return {
            "REML": _judged(model.fit_reml(), len(data)),
            "GEE": _judged(model.fit_gee(values["working"]), len(data)),
        }
    except HierlmmError:
        return None


def _judged(fit: Any, rows: int) -> Analysed:
    """Estimates with their Wald intervals by z, so that only standard errors differ."""
    estimate, se = fit.beta.to_numpy(), fit.beta_se.to_numpy()
    half = norm.ppf(0.5 + CI / 2.0) * se
    return Analysed(estimate, se, estimate - half, estimate + half, np.abs(estimate) > half, rows, False)


def repeated(values: Mapping[str, Any], found: Sequence[dict[str, Analysed] | None]) -> pd.DataFrame:
    """What many studies say of the slope, an estimator a row.

    Parameters
    ----------
    values : mapping
    found : sequence
        Of `repetition`.

    Returns
    -------
    DataFrame
        ``bias`` with its Monte-Carlo error ``bias_mcse``, ``sd`` of the estimates, mean ``se``, ``coverage`` with
        ``coverage_mcse``, and ``n_used``.
    """
    used = [one for one in found if one is not None]
    true = np.array([INTERCEPT, values["slope"]])
    rows = {
        name: summaries([one[name] for one in used], ["Intercept", "time"], true, max(len(found), 1)).loc["time"]
        for name in ("REML", "GEE")
    }
    columns = ["bias", "bias_mcse", "sd", "se", "coverage", "coverage_mcse", "n_used"]
    return pd.DataFrame(rows).T[columns].astype(float)


def show_repeated(values: Mapping[str, Any], found: Sequence[dict[str, Analysed] | None]) -> str:
    """The table of many studies, and all their slopes."""
    used = [one for one in found if one is not None]
    if len(used) < 2:
        return paragraph(say("study.few"))
    names = {"bias": "bias of the slope", "bias_mcse": "± (simulation)", "sd": "SD of the estimates", "se": "mean SE"}
    names |= {"coverage": "coverage of 95 % intervals", "coverage_mcse": "± (simulation) of it"}
    slopes = {name: np.sort([one[name].estimate[1] for one in used]) for name in ("REML", "GEE")}
    chart = Chart(
        f"Slopes of {len(used)} studies, sorted", (0.0, 1.0), limits(*slopes.values()), "share below", "slope"
    )
    chart.rule(values["slope"], "ink dashed")
    for name, own in slopes.items():
        chart.line((np.arange(len(own)) + 0.5) / len(own), own, f"{COLOURS[name]} bold", name)
    return charts(
        [
            chart.svg(),
            table(repeated(values, found)[list(names)].rename(columns=names).T, say("study.many", n=len(used)), ".3f"),
        ]
    )


def _slots(values: Mapping[str, Any]) -> dict[str, Any]:
    return {**values, "formula": FORMULA, "intercept": INTERCEPT}


ROOM = Room("study", SETTINGS, numbers, show, _slots)
