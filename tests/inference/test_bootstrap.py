"""Bootstraps: lme4's bootMer, closed forms, what intervals may not do, and what is said."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

import hierlmm as hl
from hierlmm.inference.bootstrap import Bootstrap, named_values

BOOTMER = json.loads((Path(__file__).parent / "reference" / "bootmer.json").read_text())


@pytest.fixture(scope="module")
def sleep_bootstrap(sleep_reml):
    return sleep_reml.bootstrap(500, seed=1, progressbar=False)


@pytest.fixture(scope="module")
def by_subject(sleep_reml):
    return sleep_reml.bootstrap(
        300, "subject", statistic=lambda fit: {"ratio": fit.beta["days"] / fit.sigma}, seed=1, progressbar=False
    )


def test_draws_have_the_distribution_of_bootmer(sleep_bootstrap):
    """Shares of our draws below lme4's quantiles, within the error of both."""
    draws, probs = sleep_bootstrap.draws, np.array(BOOTMER["probs"])
    assert list(draws.columns) == BOOTMER["names"]
    error = np.sqrt(probs * (1 - probs) * (1 / len(draws) + 1 / BOOTMER["nsim"]))
    for name, limits in zip(BOOTMER["names"], BOOTMER["quantiles"], strict=True):
        shares = np.array([np.mean(draws[name] <= limit) for limit in limits])
        assert np.all(np.abs(shares - probs) < 4 * error), (name, shares)
    np.testing.assert_allclose(draws.std(), BOOTMER["sd"], rtol=4 * np.sqrt(1 / 1000 + 1 / 4000))


def test_fixed_effects_vary_as_the_standard_errors_say(sleep_bootstrap, sleep_reml):
    """Balanced: β̂ does not depend on θ, so that its draws are exactly normal with the covariance of the fit."""
    draws = sleep_bootstrap.draws[["Intercept", "days"]]
    np.testing.assert_allclose(draws.std(), sleep_reml.beta_se, rtol=4 / np.sqrt(1000))
    np.testing.assert_allclose(draws.mean(), sleep_reml.beta, atol=4 * sleep_reml.beta_se.max() / np.sqrt(500))


def test_subjects_drawn_anew_are_the_ordinary_bootstrap_of_a_mean():
    """Equal numbers of rows: the intercept is the mean of the subjects' means, of which the SE is known."""
    rng = np.random.default_rng(5)
    means = rng.gamma(1.0, 2.0, 40)
    data = pd.DataFrame({"subject": np.repeat(np.arange(40), 3), "y": np.repeat(means, 3) + rng.normal(size=120)})
    fit = hl.TwoLevelModel.from_formula("y ~ 1 + (1 | subject)", data).fit_ml()
    found = fit.bootstrap(400, "subject", seed=3, progressbar=False)
    own = data.groupby("subject")["y"].mean().to_numpy()
    assert found.draws["Intercept"].std() == pytest.approx(own.std() / np.sqrt(40), rel=4 / np.sqrt(800))
    # The acceleration of a mean is a sixth of the skewness over √n (Efron 1987).
    d = own - own.mean()
    a = np.sum(d**3) / (6 * np.sum(d**2) ** 1.5)
    draws, t = found.draws["Intercept"].to_numpy(), found.estimate["Intercept"]
    z0, z = norm.ppf(np.mean(draws < t)), norm.ppf([0.025, 0.975])
    expected = np.quantile(draws, norm.cdf(z0 + (z0 + z) / (1 - a * (z0 + z))))
    np.testing.assert_allclose(found.table(method="bca").loc["Intercept", ["lower", "upper"]], expected, rtol=1e-3)


def test_a_statistic_is_followed(by_subject, sleep_reml):
    assert by_subject.parameters[-1] == "ratio"
    np.testing.assert_allclose(by_subject.draws["ratio"], by_subject.draws["days"] / by_subject.draws["sigma"])
    assert by_subject.estimate["ratio"] == pytest.approx(sleep_reml.beta["days"] / sleep_reml.sigma)
    assert named_values(2.0) == {"statistic": 2.0}
    assert named_values(np.array([1.0, 3.0])) == {"statistic[0]": 1.0, "statistic[1]": 3.0}
    with pytest.raises(hl.SpecificationError, match="returns numbers"):
        sleep_reml.bootstrap(2, statistic=lambda fit: "days", progressbar=False)


@pytest.mark.parametrize("method", ["percentile", "basic", "bca"])
def test_no_interval_leaves_the_parameter_space(method, dental):
    """Half of the data sets have a singular D here."""
    fit = hl.TwoLevelModel.from_formula("distance ~ sex * time + (1 + time | subject)", dental).fit_ml()
    kind = "subject" if method == "bca" else "parametric"
    found = fit.bootstrap(60, kind, seed=2, progressbar=False)
    for ci in (0.5, 0.95, 0.99):
        table = found.table(ci, method)
        ends = table[["lower", "upper"]]
        sds = ends[[name.startswith(("sd(", "sigma")) for name in table.index]]
        assert np.all(sds >= 0.0) and np.all(ends["lower"] <= ends["upper"])
        assert np.all(np.abs(ends.loc["corr(Intercept, time)"]) <= 1.0)
    assert found.singular > 0 or kind == "subject"


def test_basic_is_the_mirror_of_percentile(sleep_bootstrap):
    percentile, basic = (sleep_bootstrap.table(0.9, method) for method in ("percentile", "basic"))
    for name, g in (("days", float), ("sigma", np.log), ("corr(Intercept, days)", np.arctanh), ("sd(days)", float)):
        t, low, high = (g(percentile.loc[name, c]) for c in ("estimate", "lower", "upper"))
        np.testing.assert_allclose(
            [g(basic.loc[name, "lower"]), g(basic.loc[name, "upper"])], [2 * t - high, 2 * t - low]
        )


def test_the_same_seed_is_the_same_study(sleep_reml, sleep_bootstrap):
    again = sleep_reml.bootstrap(20, seed=1, cores=1, progressbar=False)
    np.testing.assert_array_equal(again.draws, sleep_bootstrap.draws[:20])
    free = sleep_reml.bootstrap(3, progressbar=False)
    np.testing.assert_array_equal(sleep_reml.bootstrap(3, seed=free.seed, progressbar=False).draws, free.draws)


def test_what_is_said(by_subject, sleep_bootstrap):
    assert "Few subjects: 18 subjects" in str(by_subject) and "Few data sets" in str(by_subject)
    assert "if the model is right" in sleep_bootstrap._repr_html_()
    with pytest.raises(hl.NotAvailableError, match="fits without a subject"):
        sleep_bootstrap.table(method="bca")
    assert sleep_bootstrap.frame.equals(sleep_bootstrap.table())


def test_refits_that_fail_are_said_and_left_out(monkeypatch, sleep_reml):
    from hierlmm.inference.refits import Refitter

    real, calls = Refitter.to_response, []

    def sometimes(self, y):
        calls.append(1)
        if len(calls) % 4 == 1:
            raise hl.DataError("these data", "they are unlucky", "draw others")
        return real(self, y)

    monkeypatch.setattr(Refitter, "to_response", sometimes)
    found = sleep_reml.bootstrap(12, seed=1, cores=1, progressbar=False)
    assert (len(found.draws), len(found.failures)) == (9, 3)
    assert "3 of 12 data sets could not be fitted" in str(found) and "they are unlucky" in str(found)
    with pytest.raises(hl.DataError, match="could not be fitted"):
        monkeypatch.setattr(Refitter, "to_response", _never)
        sleep_reml.bootstrap(3, seed=1, cores=1, progressbar=False)


def _never(self, y):
    raise hl.DataError("these data", "they are unlucky", "draw others")


def test_counts_and_residual_structures(patients, dental):
    model = hl.TwoLevelModel.from_formula("seizures ~ week + (1 | patient)", patients, family="negative_binomial")
    found = model.fit_ml().bootstrap(3, seed=1, progressbar=False)
    assert isinstance(found, Bootstrap) and list(found.draws.columns) == ["Intercept", "week", "sd(Intercept)", "shape"]
    marginal = hl.MarginalModel(
        "distance ~ sex * time", correlation=hl.AR1(), subject="subject", data=dental
    ).fit_reml()
    found = marginal.bootstrap(10, seed=1, progressbar=False)
    assert list(found.draws.columns)[-2:] == ["rho", "sigma"] and found.draws["rho"].abs().max() < 1.0


def test_who_has_no_bootstrap(dental):
    gee = hl.TwoLevelModel.from_formula("distance ~ time + (1 | subject)", dental).fit_gee()
    for name in ("bootstrap", "profile"):
        with pytest.raises(hl.NotAvailableError, match="maximum of none"):
            getattr(gee, name)


def test_a_statistic_that_is_undefined_is_named_and_counted(sleep_reml):
    """In about half of the data sets, by no number or by an error, and nothing else is to blame."""
    centre = sleep_reml.beta["days"]

    def statistic(fit):
        above = float(fit.beta["days"] - centre)
        return {"half": np.log(above) if above > 0.0 else np.nan, "all": 1.0}

    def fails(fit):
        if fit.beta["days"] < centre - 1e-9:
            raise ZeroDivisionError
        return {"half": 1.0}

    for own in (statistic, fails):
        found = sleep_reml.bootstrap(40, statistic=own, seed=2, progressbar=False)
        below = int((found.draws["days"] <= centre).sum())
        assert 5 < below < 35 and len(found.draws) == 40 and not found.failures
        text = " ".join(str(found).split())
        assert f"The statistic half is undefined (no finite number, or an error) in {below} of 40" in text
        assert "standard deviation is zero" not in text


def test_a_statistic_needs_a_name_of_its_own(sleep_reml):
    for name in ("days", "sigma"):
        with pytest.raises(hl.SpecificationError, match=f"a statistic named '{name}'"):
            sleep_reml.bootstrap(5, statistic=lambda fit, name=name: {name: 1.0}, progressbar=False)
