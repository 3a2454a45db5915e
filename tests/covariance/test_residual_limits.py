"""Residual structures: profile intervals, what a fit must say, extreme data."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize
from scipy.stats import chi2
from structures_by_definition import Damped, build

import hierlmm as hl
from hierlmm.errors import DataError, FitWarning
from hierlmm.fits.covariance_table import covariance_parameters
from hierlmm.likelihood.estimate import make_criterion


def held_elsewhere(fit, label, value, rng):
    """How much the criterion rises with one table entry held at a value: the best of several searches over the rest."""
    criterion, table = fit.criterion_function, covariance_parameters(fit)
    centre, k = fit.large_sample.centre, table.labels.index(label)
    found = []
    for size in (0.0, 0.4):
        with np.errstate(all="ignore"):
            x = minimize(
                lambda x: criterion.joint(x)[0],
                centre + size * rng.normal(size=len(centre)),
                jac=lambda x: criterion.joint(x)[1],
                method="SLSQP",
                constraints=[{"type": "eq", "fun": lambda x: table.values(x)[k] / value - 1.0}],
                options={"maxiter": 300, "ftol": 1e-10},
            ).x
            if abs(table.values(x)[k] / value - 1.0) < 1e-5:
                found.append(criterion.joint(x)[0])
    return min(found) - criterion.joint(centre)[0]


@pytest.mark.parametrize(
    ("correlation", "variance", "q"),
    [
        (hl.AR1("occasion"), None, 0),
        (hl.CompoundSymmetry(), hl.VarExp("size"), 0),
        (hl.Exponential("t"), hl.VarIdent("group"), 0),
        (hl.Exponential("t"), None, 1),
    ],
    ids=str,
)
def test_profile_limits_are_where_the_profile_crosses(thirty, correlation, variance, q):
    """For each parameter: held at its limit and optimised over everything else, the criterion has risen by χ²."""
    fit = build(thirty, correlation, variance, q).fit_reml()
    table, rng = fit.variance_components(method="profile"), np.random.default_rng(0)
    inside = fit.variance_components(ci=0.5, method="profile")
    drop, checked = chi2.ppf(0.95, 1), 0
    for label, row in table.iterrows():
        for limit in (row["lower"], row["upper"]):
            if np.isfinite(limit) and abs(limit) > 1e-6 and not (label == "corr" and abs(limit) > 1 - 1e-6):
                assert held_elsewhere(fit, label, limit, rng) == pytest.approx(drop, abs=0.02), label
                checked += 1
        assert (
            row["lower"] <= inside.loc[label, "lower"] <= row["estimate"] <= inside.loc[label, "upper"] <= row["upper"]
        )
    assert checked >= len(table)


@pytest.mark.parametrize("seed", range(3))
def test_intervals_never_leave_the_natural_range(seed):
    """Small data sets of any kind of correlation; estimates at ends of ranges among them."""
    rng = np.random.default_rng(seed)
    J, m = int(rng.integers(5, 15)), 4
    S = np.linalg.cholesky(np.cov(rng.normal(size=(m, 9))) + 0.05 * np.eye(m))
    frame = pd.DataFrame(
        [(f"s{i}", o, o + rng.uniform(-0.3, 0.3), v) for i in range(J) for o, v in enumerate(S @ rng.normal(size=m))],
        columns=["id", "occasion", "t", "y"],
    )
    frame["size"], frame["group"] = rng.uniform(0.5, 3, len(frame)), rng.choice(list("ab"), len(frame))
    ordered = 0
    for correlation in (hl.AR1(nugget=True), hl.CAR1("t"), hl.Gaussian("t", nugget=True), hl.CompoundSymmetry()):
        for q in (0, 1):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FitWarning)
                fit = build(frame, correlation, hl.VarIdent("group"), q, "y ~ t").fit_reml()
            lowest = -1 / 3 if isinstance(correlation, hl.CompoundSymmetry) else -1.0
            range_of = {"rho": (lowest, 1), "phi": (0, 1), "nugget": (0, 1)}
            quick = seed < 2 and q == 0 and len(fit.optimum.lam) < 3
            for method in ("wald", "profile") if quick else ("wald",):
                table = fit.variance_components(method=method)
                for label, row in table.iterrows():
                    low, high = range_of.get(label, (0.0, np.inf))
                    values = row[["lower", "estimate", "upper"]].dropna()
                    assert ((values >= low) & (values <= high)).all(), (label, row)
                    if len(values) == 3:
                        assert values.is_monotonic_increasing, (label, row)
                        ordered += 1
    assert ordered > 10


def test_a_correlation_at_the_end_of_its_range_is_said():
    rng = np.random.default_rng(2)
    data = pd.DataFrame(
        {"id": np.repeat(np.arange(40), 4), "t": np.tile(np.arange(4.0), 40), "y": rng.normal(size=160)}
    )
    data["y"] -= data.groupby("id")["y"].transform("mean")  # no correlation that a decay could have
    fit = hl.MarginalModel("y ~ t", correlation=hl.Exponential("t"), subject="id", data=data).fit_reml()
    assert fit.converged
    assert any("range is at the end of its range, 0" in w for w in fit.warnings)
    assert np.isnan(fit.variance_components().loc["range", "se"])
    assert fit.variance_components(method="profile").loc["range", "lower"] == 0.0


@pytest.mark.parametrize("correlation", [hl.CompoundSymmetry(), hl.Unstructured("age")])
def test_what_is_not_identified_is_said(correlation):
    dental = hl.load_dataset("dental")
    model = hl.TwoLevelModel.from_formula("distance ~ time + (1 | subject)", dental, residual=correlation)
    fit = model.fit_reml()
    assert any("not identified together" in w and "random effects" in w for w in fit.warnings)
    marginal = hl.MarginalModel("distance ~ time", correlation=correlation, subject="subject", data=dental).fit_reml()
    assert marginal.warnings == ()
    assert fit.loglik == pytest.approx(marginal.loglik, rel=1e-9)  # one curve of estimates, one likelihood
    np.testing.assert_allclose(fit.beta, marginal.beta, rtol=1e-5)
    np.testing.assert_allclose(fit.beta_se, marginal.beta_se, rtol=1e-4)


def test_a_correlation_at_a_distance_that_was_never_seen_is_said():
    dental = hl.load_dataset("dental")
    fit = hl.MarginalModel("distance ~ time", correlation=hl.AR1("age"), subject="subject", data=dental).fit_reml()
    assert len(fit.warnings) == 1 and "multiples of 2" in fit.warnings[0]
    model = hl.MarginalModel("distance ~ time", correlation=hl.AR1("age"), subject="subject", data=dental)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", hl.FitWarning)
        drawn = model.fit(draws=20, tune=50, chains=1, seed=1, progressbar=False)
    assert any("multiples of 2" in said for said in drawn.warnings)
    data = dental.assign(age=dental["age"] // 2)
    assert (
        not hl.MarginalModel("distance ~ time", correlation=hl.AR1("age"), subject="subject", data=data)
        .fit_ml()
        .warnings
    )


def test_a_reference_group_without_residual_variance_is_said():
    """The first row of each subject is its intercept, without error."""
    rng = np.random.default_rng(3)
    data = pd.DataFrame({"id": np.repeat(np.arange(30), 4), "occasion": np.tile(np.arange(4), 30)})
    data["y"] = np.repeat(rng.normal(size=30), 4) + (data["occasion"] > 0) * rng.normal(size=120)
    model = hl.TwoLevelModel.from_formula("y ~ 1 + (1 | id)", data, residual_variance=hl.VarIdent("occasion"))
    with warnings.catch_warnings():  # at the end of the range rounding leaves a gradient of about 1e-6
        warnings.filterwarnings("ignore", "The optimiser stopped at a gradient norm of [1-9].[0-9]e-06", hl.FitWarning)
        fit = model.fit_reml()
    assert any("sigma, the residual SD of occasion=0, is at the end of its range, 0" in w for w in fit.warnings)


def test_a_range_much_longer_than_the_study():
    """Brownian motion: only σ² / range is determined, and the likelihood rises to its limit as the range grows."""
    rng = np.random.default_rng(0)
    walk = np.cumsum(rng.normal(size=(30, 6)), axis=1) + 50 * rng.normal(size=(30, 1))
    data = pd.DataFrame({"id": np.repeat(np.arange(30), 6), "t": np.tile(np.arange(6.0), 30), "y": walk.ravel()})
    fit = hl.MarginalModel("y ~ 1", correlation=hl.Exponential("t"), subject="id", data=data).fit_reml()
    ar = hl.MarginalModel("y ~ 1", correlation=hl.AR1(), subject="id", data=data).fit_reml()
    assert fit.converged
    assert fit.loglik == pytest.approx(ar.loglik, rel=1e-9)
    assert ar.residual_estimate.parameters["rho"] > 0.995
    step = 2 * fit.sigma**2 / fit.residual_estimate.parameters["range"]
    assert step == pytest.approx(np.var(np.diff(walk, axis=1)), rel=0.05)


def test_one_long_subject_among_many_short():
    rng = np.random.default_rng(1)
    frames = []
    for i, n in enumerate([500] + [3] * 40):
        e = np.empty(n)
        e[0] = rng.normal()
        for t in range(1, n):
            e[t] = 0.6 * e[t - 1] + 0.8 * rng.normal()
        frames.append(pd.DataFrame({"id": i, "t": np.arange(n, dtype=float), "y": e}))
    data = pd.concat(frames, ignore_index=True)
    serial = hl.MarginalModel("y ~ 1", correlation=hl.AR1("t"), subject="id", data=data).fit_reml()
    dense = hl.MarginalModel("y ~ 1", correlation=Damped("t"), subject="id", data=data)
    criterion = make_criterion(dense.design, reml=True)
    rho = serial.residual_estimate.parameters["rho"]
    assert abs(rho - 0.6) < 4 * serial.variance_components().loc["rho", "se"]
    assert criterion(np.array([np.log(rho / (1 - rho)), 0.0])) == pytest.approx(serial.criterion, rel=1e-10)
    with pytest.raises(DataError, match="more than 60"):
        hl.MarginalModel("y ~ 1", correlation=hl.Toeplitz("t"), subject="id", data=data)


def test_three_subjects_with_two_rows():
    data = hl.load_dataset("dental").query("subject <= 3 and age <= 10")
    fit = hl.MarginalModel("distance ~ time", correlation=hl.AR1(), subject="subject", data=data).fit_reml()
    assert fit.converged and -1 < fit.residual_estimate.parameters["rho"] < 1
