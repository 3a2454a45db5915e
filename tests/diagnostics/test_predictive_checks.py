"""Predictive checks: statistics by hand, p-values where the truth is known, and what is refused."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2, kstest, linregress, norm

import hierlmm as hl
from hierlmm.diagnostics import predictive_checks
from hierlmm.diagnostics.predictive_checks import (
    _in_words,
    _verdict,
    combined,
    components,
    curve_band,
    pit_curves,
    smooth_p,
)
from hierlmm.diagnostics.statistics import built_in, chosen
from hierlmm.errors import NotAvailableError, SpecificationError

SHORT = {"draws": 250, "tune": 300, "chains": 2, "seed": 1, "progressbar": False}


@pytest.fixture(scope="module")
def frame():
    data = hl.simulate(
        beta={"Intercept": 20.0, "time": 1.0},
        D=[[4.0, 0.2], [0.2, 0.3]],
        sigma=1.0,
        n_subjects=40,
        n_times=(2, 6),
        times=range(6),
        seed=4,
    )
    return data.sample(frac=1.0, random_state=0).reset_index(drop=True)  # rows in no order


@pytest.fixture(scope="module")
def fit(frame):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", hl.FitWarning)  # short chains
        return hl.TwoLevelModel.from_formula("y ~ time + (time | subject)", frame).fit(**SHORT)


def test_statistics_by_hand(frame, fit):
    known = built_in(fit.design)
    assert list(known) == ["sd_within", "sd_between", "sd_slope", "lag1", "skewness", "maximum"]
    found = {name: own(np.vstack([frame["y"], 2.0 * frame["y"]])) for name, own in known.items()}
    groups = [own.sort_values("time") for _, own in frame.groupby("subject")]
    means = np.array([own["y"].mean() for own in groups])
    within = sum(((own["y"] - own["y"].mean()) ** 2).sum() for own in groups)
    e = frame["y"] - np.polyval(np.polyfit(frame["time"], frame["y"], 1), frame["time"])
    slopes = np.array([linregress(own["time"], own["y"]).slope for own in groups])
    weights = np.array([((own["time"] - own["time"].mean()) ** 2).sum() for own in groups])
    centre = np.average(slopes, weights=weights)
    products, squares = 0.0, 0.0
    for own in groups:
        left = e[own.index] - np.polyval(np.polyfit(own["time"], e[own.index], 1), own["time"])
        products, squares = products + (left.to_numpy()[1:] * left.to_numpy()[:-1]).sum(), squares + (left**2).sum()
    expected = {
        "sd_within": np.sqrt(within / (len(frame) - 40)),
        "sd_between": means.std(ddof=1),
        "sd_slope": np.sqrt(np.average((slopes - centre) ** 2, weights=weights)),
        "lag1": products / squares,
        "skewness": (e**3).mean() / (e**2).mean() ** 1.5,
        "maximum": frame["y"].max(),
    }
    for name, value in expected.items():
        scale = 1.0 if name in ("lag1", "skewness") else 2.0
        np.testing.assert_allclose(found[name], [value, scale * value], rtol=1e-9, err_msg=name)


def test_statistics_that_data_do_not_have():
    data = pd.DataFrame({"g": np.repeat(range(8), 2), "y": np.arange(16.0) ** 1.5})
    design = hl.TwoLevelModel("y ~ 1", subject="g", data=data).design
    assert list(built_in(design)) == ["sd_within", "sd_between", "skewness", "maximum"]
    with pytest.raises(SpecificationError, match="have no such statistic"):
        chosen(design, "sd_slope")
    (own,) = chosen(design, {"range": np.ptp}).values()
    np.testing.assert_allclose(own(design.y[None]), [np.ptp(design.y)])


@pytest.mark.parametrize("n", [2, 5])
def test_calibrated_p_is_uniform_where_the_usual_one_is_not(n):
    """y ~ N(θ, 1), n rows, θ | y ~ N(ȳ, 1/n); the statistic is the first row, of whose variation 1/n is followed."""
    rng = np.random.default_rng(0)
    sims, K = 3000, 200
    y = rng.standard_normal((sims, n))
    theta = y.mean(axis=1) + rng.standard_normal((K, sims)) / np.sqrt(n)
    score, absorbed = combined(y[:, 0] - theta)
    p = norm.cdf(score)
    assert absorbed.mean() == pytest.approx(1 / n, abs=0.01)
    assert kstest(p, "uniform").pvalue > 0.01
    usual = norm.cdf(-np.abs(y[:, 0] - y.mean(axis=1)) / np.sqrt(1 + 1 / n)) * 2
    assert kstest(usual, "uniform").pvalue < 1e-4
    assert np.mean(usual < 0.05) < 0.03


def test_what_the_fit_follows_is_judged_by_one_draw():
    score, absorbed = combined(np.random.default_rng(1).standard_normal((400, 3000)))  # of z nothing is left by the fit
    assert absorbed.min() > 0.65
    assert kstest(score, "norm").pvalue > 0.01


@pytest.mark.parametrize("spread", [False, True])
def test_pit_values_of_a_fitted_model_are_judged_rightly(spread):
    """Normal rows with a fitted mean, and SD: p of all draws is uniform though that of the mean PIT is not."""
    rng = np.random.default_rng(11)
    n, K, found, plain = 60, 200, [], []
    for _ in range(800):
        y = rng.standard_normal(n)
        sd = np.sqrt(np.sum((y - y.mean()) ** 2) / rng.chisquare(n - 1, (K, 1))) if spread else np.ones((K, 1))
        theta = y.mean() + sd * rng.standard_normal((K, 1)) / np.sqrt(n)
        own = components(norm.cdf((y - theta) / sd))
        found.append(smooth_p(own))
        plain.append(smooth_p(own.mean(axis=0)[None]))
    assert kstest(found, "uniform").pvalue > 0.005
    assert 0.03 < np.mean(np.array(found) < 0.05) < 0.08
    assert kstest(plain, "uniform").pvalue < 1e-4
    assert smooth_p(components(rng.beta(2, 5, (1, n)))) < 0.001


def test_components_are_orthonormal_where_values_are_uniform():
    found = components((np.arange(20_000) + 0.5)[:, None] / 20_000)
    np.testing.assert_allclose(found.T @ found / 20_000, np.eye(4), atol=1e-3)
    null = np.random.default_rng(3).normal(size=(50, 4)) @ np.diag([1.0, 2.0, 3.0, 0.5])
    c = np.array([[1.0, -2.0, 0.5, 0.3]])
    expected = chi2.sf(c[0] @ np.linalg.solve(null.T @ null / 50, c[0]), 4)
    assert smooth_p(c, null) == pytest.approx(expected)


def test_the_band_holds_the_curves_of_single_draws():
    curves = pit_curves(np.random.default_rng(2).random((4 * 501, 60))).reshape(4, 501, -1)
    frame = curve_band(curves, 0.95)
    inside = (np.abs(curves[:, 1:]) <= frame["upper"].to_numpy()).all(axis=2)
    assert inside.mean() == pytest.approx(0.95, abs=0.01)
    np.testing.assert_allclose(frame["difference"], curves[:, 0].mean(axis=0))


def test_a_check_of_a_model_that_fits(fit):
    check = fit.ppc(draws=40)
    assert list(check.table.columns) == ["observed", "mean", "lower", "upper", "absorbed", "p", "verdict"]
    assert (check.table["lower"] < check.table["mean"]).all() and (check.table["mean"] < check.table["upper"]).all()
    assert check.verdict.startswith("No statistic")
    assert fit.ppc(draws=40).table.equals(check.table)
    np.testing.assert_allclose(check.table.loc["maximum", "observed"], fit.design.y.max())
    assert "absorbed" in repr(check) and "<table>" in check._repr_html_()
    assert check.table.loc["sd_between", "absorbed"] > 0.6 > check.table.loc["lag1", "absorbed"]
    for level in ("subject", "mixed"):
        assert fit.ppc(level, ["skewness", "maximum"], draws=30).verdict.startswith("No statistic")


def test_statistics_of_groups_are_those_of_their_rows(frame, fit):
    data = frame.assign(arm=np.where(frame["subject"].astype(int) % 2, "a", "b"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", hl.FitWarning)
        model = hl.TwoLevelModel.from_formula("y ~ time + arm + (time | subject)", data)
        by_arm = model.fit(**SHORT).ppc(by="arm", draws=20)
    assert by_arm.table.index.names == ["arm", "statistic"]
    own = data[data["arm"] == "b"]
    observed = by_arm.table.loc["b", "observed"]
    means = own.groupby("subject")["y"].mean()
    assert observed["maximum"] == own["y"].max()
    np.testing.assert_allclose(observed["sd_between"], means.std(ddof=1))
    centred = own["y"] - own.groupby("subject")["y"].transform("mean")
    np.testing.assert_allclose(observed["sd_within"], np.sqrt((centred**2).sum() / (len(own) - len(means))))
    e = data["y"] - np.linalg.lstsq(model.design.X, data["y"], rcond=None)[0] @ model.design.X.T
    e = e[data["arm"] == "b"]
    np.testing.assert_allclose(observed["skewness"], (e**3).mean() / (e**2).mean() ** 1.5)
    assert (by_arm.table["lower"] < by_arm.table["upper"]).all()
    assert by_arm.table.loc["a", "observed"].drop("skewness").ne(observed.drop("skewness")).all()
    subjects = fit.ppc("mixed", {"range": np.ptp}, by="subject", draws=5).table
    assert len(subjects) == 12
    some = subjects.index[3][0]
    assert subjects["observed"].iloc[3] == np.ptp(frame["y"][frame["subject"] == some])
    assert "maximum of subject" in _verdict(fit.ppc(by="subject", draws=5).table.assign(p=1e-6), 1.0)


def test_a_check_finds_what_the_model_has_not(frame):
    """Errors that grow into rare jumps are skew: the check says so, and by which statistic."""
    rng = np.random.default_rng(5)
    skew = frame.assign(y=frame["y"] + rng.gamma(0.3, 6.0, len(frame)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", hl.FitWarning)
        fit = hl.TwoLevelModel.from_formula("y ~ time + (time | subject)", skew).fit(**SHORT)
    check = fit.ppc()
    assert check.table.loc["skewness", "p"] < 0.01
    assert "skewness is larger" in check.verdict
    assert fit.ppc("mixed").pit_p < 0.01


def test_a_test_of_one_draw_says_that_it_is_one(fit):
    """The mean and the interval beside it are of that draw too."""
    assert [_in_words(0.001, absorbed, True) for absorbed in (0.9, 0.1)] == [
        "larger than one draw of the posterior expects",
        "larger than the model expects",
    ]
    assert "those of one draw" in " ".join(repr(fit.ppc(draws=5)).split())


def test_levels_and_kept_effects(fit, frame):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", hl.FitWarning)
        model = hl.TwoLevelModel.from_formula("y ~ time + (time | subject)", frame)
        summary = model.fit(**SHORT, random_effects="summary")
    for level in ("new_subject", "mixed"):
        tree = summary.posterior_predictive(20, seed=1, level=level)
        assert tree["posterior_predictive"]["y"].shape == (2, 20, len(frame))
        assert summary.ppc(level, draws=10).draws == 10
    for refused in (lambda: summary.posterior_predictive(level="subject"), lambda: summary.ppc("subject")):
        with pytest.raises(NotAvailableError, match="not their draws"):
            refused()
    with pytest.raises(SpecificationError, match="level='population'"):
        fit.ppc("population")
    same, named = (
        fit.posterior_predictive(20, seed=1, **o)["posterior_predictive"] for o in ({}, {"level": "subject"})
    )
    assert same.to_dataset().equals(named.to_dataset())


def test_replications_of_new_subjects_spread_as_their_law(fit):
    """Over the draws: mean Xβ, variance z'Dz + σ² plus that of Xβ, at every row."""
    y = fit.posterior_predictive(seed=2, level="new_subject")["posterior_predictive"]["y"].to_numpy()
    y = y.reshape(-1, y.shape[-1])
    beta, D, sigma = (fit.draws(n).reshape(len(y), *fit.draws(n).shape[2:]) for n in ("beta", "D", "sigma"))
    lines = beta @ fit.design.X.T
    variance = np.einsum("nk,skl,nl->sn", fit.design.Z, D, fit.design.Z) + sigma[:, None] ** 2
    z = (y - lines) / np.sqrt(variance)
    assert np.abs(z.mean(axis=0)).max() < 5 / np.sqrt(len(z))
    assert np.abs((z**2).mean(axis=0) - 1).max() < 5 * np.sqrt(2 / len(z))


def test_large_data_take_fewer_simulations(fit, monkeypatch):
    monkeypatch.setattr(predictive_checks, "BUDGET", 1)
    assert len(fit.ppc(draws=10).replicated) == 200  # 20 data sets at each draw, the least
