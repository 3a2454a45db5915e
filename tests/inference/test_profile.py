"""Profile likelihoods: lme4's limits, closed forms, what happens at boundaries, and the pictures' numbers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from references import reference, reference_data
from scipy.integrate import trapezoid
from scipy.stats import chi2, norm

import hierlmm as hl
from hierlmm.likelihood.profile_beta import HeldBeta

LME4 = {"(Intercept)": "Intercept", "sexMale": "sex[T.Male]", "sexMale:time": "sex[T.Male]:time"}
# confint(lmer(Reaction ~ Days + (Days | Subject), sleepstudy), method = "profile"), lme4 1.1-31
SLEEP = {"Intercept": (237.680695469373, 265.129514691758), "days": (7.35865329530723, 13.5759187414981)}
SLEEP |= {"sd(Intercept)": (14.3814811164783, 37.7160187403218), "sd(days)": (3.80116476238599, 8.75336665926302)}
SLEEP |= {"corr(Intercept, days)": (-0.48150044319655, 0.6849861389666), "sigma": (22.8982662150128, 28.8579973227459)}


@pytest.fixture(scope="module")
def sleep_profile(sleep_ml):
    return sleep_ml.profile()


@pytest.mark.parametrize("name", ["pr_ci_male_ri", "pr_ci_male_rirs", "pr_ci_sextime_rirs"])
def test_limits_of_fixed_effects_are_those_of_lme4(name):
    """lme4 refits by ML for them: a fit by REML has the same limits, and says so."""
    ref = reference("lme4_profile_intervals", "residual")["models"][name]
    data = reference_data({"data": "dental", "subset": ref["subset"]})
    fit = hl.TwoLevelModel.from_formula(ref["formula"], data).fit_reml()
    found = fit.summary(method="profile")
    theirs = {
        LME4.get(k, k): tuple(v.values()) for k, v in ref["profile"].items() if not k.startswith(("sd", "cor", "sig"))
    }
    assert len(theirs) == len(found)
    for coef, limits in theirs.items():
        np.testing.assert_allclose(found.loc[coef, ["lower", "upper"]], limits, rtol=1e-4, err_msg=coef)
    assert "by ML" in found.attrs["notes"][0]


def test_limits_of_sleepstudy_are_those_of_lme4(sleep_profile):
    table = sleep_profile.table()
    assert list(table.index) == list(SLEEP)
    np.testing.assert_allclose(table[["lower", "upper"]], list(SLEEP.values()), rtol=1e-4)


def test_profiles_are_made_once(sleep_ml, monkeypatch):
    from hierlmm.inference import profile

    made = []
    for name in ("FixedProfiles", "CovarianceProfiles"):
        own = getattr(profile, name)
        monkeypatch.setattr(profile, name, lambda fit, own=own: made.append(own) or own(fit))
    sleep_ml.profile("Intercept").table()
    assert len(made) == 2


def test_one_table_is_the_two_others(sleep_ml, sleep_profile):
    table = sleep_profile.table(0.8)
    both = [sleep_ml.summary(0.8, method="profile"), sleep_ml.variance_components(0.8, method="profile")]
    for part in both:
        np.testing.assert_allclose(table.loc[part.index, ["lower", "upper"]], part[["lower", "upper"]], rtol=1e-9)


def test_zeta_of_independent_rows_has_a_closed_form():
    """−2 log-likelihood of a mean rises by ``n log(1 + t² / (n - 1))``, t Student's statistic."""
    y = np.random.default_rng(1).normal(3.0, 2.0, 12)
    data = pd.DataFrame({"y": y, "subject": np.arange(12) // 3})
    fit = hl.MarginalModel("y ~ 1", subject="subject", data=data).fit_ml()
    values, zeta = fit.profile("Intercept").curve("Intercept")
    t = (values - y.mean()) / (y.std(ddof=1) / np.sqrt(12))
    np.testing.assert_allclose(zeta, np.sign(t) * np.sqrt(12 * np.log1p(t**2 / 11)), atol=1e-6)
    low = fit.summary(method="profile").loc["Intercept", "lower"]
    half = y.std(ddof=1) / np.sqrt(12) * np.sqrt(11 * np.expm1(chi2.ppf(0.95, 1) / 12))
    assert low == pytest.approx(y.mean() - half, rel=1e-8)


@pytest.mark.parametrize("which", ["cross-products", "rows"])
def test_a_coefficient_that_is_held_is_an_offset(which, dental, sleepstudy):
    """The same deviance with the term taken out of the formula, and its part of y subtracted."""
    if which == "rows":
        more, value = {"residual": hl.AR1()}, 0.2
        formula, without = "distance ~ sex + sex:time + time + (1 | subject)", "rest ~ sex + sex:time + (1 | subject)"
        data = dental.assign(time=dental["age"] - 8.0, sex=(dental["sex"] == "Male") * 1.0)
        column, response = "time", "distance"
    else:
        more, value = {}, 12.0
        formula, without = "reaction ~ days + (1 + days | subject)", "rest ~ 1 + (1 + days | subject)"
        data, column, response = sleepstudy, "days", "reaction"
    fit = hl.TwoLevelModel.from_formula(formula, data, **more).fit_ml()
    held = HeldBeta(fit.criterion_function, fit.optimum.lam, np.eye(len(fit.beta))[list(fit.beta.index).index(column)])
    rest = hl.TwoLevelModel.from_formula(without, data.assign(rest=data[response] - value * data[column]), **more)
    rise = rest.fit_ml().criterion - fit.criterion
    assert held.zeta(value) == pytest.approx(np.sign(value - fit.beta[column]) * np.sqrt(rise), rel=1e-6)


def test_curves_rise_through_zero_and_meet_the_limits(sleep_profile):
    table, z = sleep_profile.table(), norm.ppf(0.975)
    for name in sleep_profile.parameters:
        values, zeta = sleep_profile.curve(name)
        assert np.all(np.diff(values) > 0.0) and np.all(np.diff(zeta) > 0.0)
        assert np.interp(0.0, zeta, values) == pytest.approx(table.loc[name, "estimate"], rel=1e-6)
        near = np.interp([-z, z], zeta, values)
        np.testing.assert_allclose(near, table.loc[name, ["lower", "upper"]], atol=0.02 * np.ptp(values))
        x, density = sleep_profile.density(name)
        assert trapezoid(density, x) == pytest.approx(norm.cdf(zeta[-1]) - norm.cdf(zeta[0]), abs=0.01)


def test_at_a_variance_of_zero_the_curve_stops_where_the_smaller_model_is(dental):
    """The height of ζ there is the likelihood ratio against the model without that random effect."""
    fit = hl.TwoLevelModel.from_formula("distance ~ sex * time + (1 + time | subject)", dental).fit_reml()
    smaller = hl.TwoLevelModel.from_formula("distance ~ sex * time + (1 | subject)", dental).fit_reml()
    found = fit.profile(["sd(time)", "corr(Intercept, time)"])
    values, zeta = found.curve("sd(time)")
    height = np.sqrt(smaller.criterion - fit.criterion)
    assert values[0] == 0.0 and zeta[0] == pytest.approx(-height, abs=0.01)
    # On the way to a standard deviation of zero every correlation costs no more.
    values, zeta = found.curve("corr(Intercept, time)")
    assert (values[0], values[-1]) == (-1.0, 1.0) and np.abs(zeta).max() <= height + 0.01
    just_above = fit.variance_components(float(chi2.cdf(1.125**2, 1)), method="profile")
    assert just_above.loc["corr(Intercept, time)", ["lower", "upper"]].tolist() == [-1.0, 1.0]
    assert "do not exclude a standard deviation of zero: sd(time)" in str(found)
    assert "fitted again" in str(found) and found.frame.equals(found.table())


def test_an_estimate_of_zero_and_a_perfect_fit_of_one_side():
    data = hl.load_dataset("dyestuff2")
    found = hl.TwoLevelModel.from_formula("yield ~ 1 + (1 | batch)", data).fit_ml().profile()
    values, zeta = found.curve("sd(Intercept)")
    assert (values[0], zeta[0]) == (0.0, 0.0) and values[-1] > 0.0
    assert found.table().loc["sd(Intercept)", "lower"] == 0.0


def test_what_cannot_be_profiled(sleep_ml, dental, patients):
    with pytest.raises(hl.SpecificationError, match="there is no such parameter"):
        sleep_ml.profile("sd(day)")
    many = hl.MarginalModel(
        "distance ~ time", correlation=hl.UnstructuredHeterogeneous("age"), subject="subject", data=dental
    ).fit_ml()
    with pytest.raises(hl.SpecificationError) as refused:
        many.profile(["sigma^2"])
    names = [*many.beta.index, *many.variance_components().index]
    assert len(names) > 8 and all(name in str(refused.value).replace("\n", " ") for name in names)
    with pytest.raises(hl.SpecificationError, match="rest on no distribution of t"):
        sleep_ml.summary(df="satterthwaite", method="profile")
    variance = hl.TwoLevelModel.from_formula(
        "distance ~ time + (1 | subject)", dental, residual_variance=hl.VarPower()
    ).fit_ml()
    with pytest.raises(hl.NotAvailableError, match="depends on the fitted values"):
        variance.summary(method="profile")
