"""Intra-class correlation and R²: closed forms of balanced designs, definitions, and ranges that are not left."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from references import reference
from scipy.optimize import brentq, minimize_scalar
from scipy.stats import chi2, norm

import hierlmm as hl


@pytest.fixture(scope="module")
def dyestuff():
    data = hl.load_dataset("dyestuff")
    y = data["yield"].to_numpy().reshape(6, 5)
    within, between = np.sum((y - y.mean(axis=1, keepdims=True)) ** 2), 5 * np.sum((y.mean(axis=1) - y.mean()) ** 2)
    return hl.TwoLevelModel.from_formula("yield ~ 1 + (1 | batch)", data).fit_reml(), within, between


def deviance(rho, within, between):
    """−2 restricted log-likelihood of ρ in a balanced one-way design of 6 × 5, but for a constant."""
    Q = within / (1 - rho) + between / (1 + 4 * rho)
    return 29 * np.log(Q) + 24 * np.log(1 - rho) + 5 * np.log(1 + 4 * rho)


def test_the_profile_of_a_balanced_one_way_design_has_a_closed_form(dyestuff):
    fit, within, between = dyestuff
    best = minimize_scalar(deviance, bounds=(0.0, 0.99), args=(within, between), method="bounded").x
    rise = lambda rho: deviance(rho, within, between) - deviance(best, within, between) - chi2.ppf(0.95, 1)  # noqa: E731
    expected = best, brentq(rise, 1e-6, best), brentq(rise, best, 0.9999)
    np.testing.assert_allclose(fit.intraclass_correlation(method="profile").table.loc["ICC"], expected, rtol=1e-4)
    # ANOVA: (MSA - MSE) / (MSA + (n - 1) MSE).
    A, E = between / 5, within / 24
    assert fit.intraclass_correlation().estimate == pytest.approx((A - E) / (A + 4 * E), rel=1e-6)


def test_the_delta_method_is_on_the_logit(dyestuff):
    fit, within, between = dyestuff
    table = fit.intraclass_correlation().table.loc["ICC"]
    logit = np.log(table / (1 - table))
    assert logit["upper"] - logit["estimate"] == pytest.approx(logit["estimate"] - logit["lower"])
    # The variance of log(D/σ²) from the independent mean squares, Var(log MS) ≈ 2/df: (F/(F - 1))² (2/5 + 2/24).
    F = (between / 5) / (within / 24)
    se = F / (F - 1) * np.sqrt(2 / 5 + 2 / 24)
    assert (logit["upper"] - logit["lower"]) / (2 * norm.ppf(0.975)) == pytest.approx(se, rel=1e-4)


def test_a_bootstrap_has_the_distribution_of_f(dyestuff):
    """The estimate is a function of F, which is F(5, 24) times a constant."""
    from scipy.stats import f

    fit, within, between = dyestuff
    found = fit.intraclass_correlation(method="bootstrap", n=400, seed=1).table.loc["ICC"]
    F = (between / 5) / (within / 24) * f.ppf([0.025, 0.975], 5, 24)
    expected = np.maximum((F - 1) / (F + 4), 0.0)
    assert found["lower"] == pytest.approx(expected[0], abs=0.02) and found["upper"] == pytest.approx(
        expected[1], abs=0.05
    )


def test_with_slopes_there_is_no_single_value(sleep_reml):
    found = sleep_reml.intraclass_correlation()
    D, s2 = sleep_reml.D.to_numpy(), sleep_reml.sigma**2
    for row in found.table.itertuples():
        z = np.array([1.0, row.days])
        assert row.estimate == pytest.approx(z @ D @ z / (z @ D @ z + s2))
        assert 0.0 < row.lower < row.estimate < row.upper < 1.0
    assert "no single value" in str(found) and "days" in str(found)
    with pytest.raises(hl.NotAvailableError, match="changes from row to row"):
        found.estimate  # noqa: B018
    profile = sleep_reml.intraclass_correlation(method="profile").table
    assert np.all(np.abs(profile[["lower", "upper"]] - found.table[["lower", "upper"]]) < 0.05)


def test_unequal_residual_variances_have_an_icc_each(dental):
    model = hl.TwoLevelModel.from_formula(
        "distance ~ sex * time + (1 | subject)", dental, residual_variance=hl.VarIdent("sex")
    )
    fit = model.fit_reml()
    table = fit.intraclass_correlation().table.set_index("sex")
    ratio = dict(zip(dental["sex"], fit.residual_estimate.sd_ratio(fit.design.frame), strict=True))
    for sex in ("Female", "Male"):
        D = fit.D.iloc[0, 0]
        assert table.loc[sex, "estimate"] == pytest.approx(D / (D + (fit.sigma * ratio[sex]) ** 2))


def test_only_what_it_depends_on_is_named(dental):
    """Time is a fixed effect alone here: the ICC differs by sex, and has one value without unequal variances."""
    data = dental.assign(cold=np.random.default_rng(1).normal(size=len(dental)))
    formula = "distance ~ sex * time + cold + (1 | subject)"
    by_sex = hl.TwoLevelModel.from_formula(formula, data, residual_variance=hl.VarIdent("sex")).fit_reml()
    found = by_sex.intraclass_correlation()
    assert list(found.table.columns) == ["sex", "estimate", "lower", "upper"]
    assert "depends on sex. In" in " ".join(str(found).split())
    assert "Johnson" not in str(by_sex.r_squared())  # the variance of the random effects is the same in all rows
    slopes = hl.TwoLevelModel.from_formula("distance ~ sex * time + cold + (time | subject)", data).fit_reml()
    assert list(slopes.intraclass_correlation().table.columns) == ["time", "estimate", "lower", "upper"]


def test_r_squared_by_its_definition_at_the_optimum_of_lme4(sleep_reml, sleepstudy):
    """MuMIn::r.squaredGLMM and performance::r2 give 0.279 and 0.799."""
    best = reference("sleepstudy_rirs_reml")["optimum"]
    v0, v1, c, s2 = (row["vcov"] for row in best["varcorr"])
    fixed = np.var(best["coef"]["days"] * sleepstudy["days"], ddof=1)
    random = np.mean(v0 + 2 * c * sleepstudy["days"] + v1 * sleepstudy["days"] ** 2)
    expected = [fixed / (fixed + random + s2), (fixed + random) / (fixed + random + s2)]
    found = sleep_reml.r_squared()
    np.testing.assert_allclose(found.table["estimate"], expected, rtol=1e-5)
    np.testing.assert_allclose(found.table["estimate"], [0.279, 0.799], atol=5e-4)
    assert "Johnson" in str(found)


def test_the_interval_of_r_squared_is_that_of_a_regression():
    """Independent rows: R²'s standard error by the delta method is that of f² = β²s²/σ², 2|β|s√(…)/σ² by hand."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=60)
    data = pd.DataFrame({"y": 1.0 + 0.8 * x + rng.normal(size=60), "x": x, "subject": np.arange(60) // 3})
    fit = hl.MarginalModel("y ~ x", subject="subject", data=data).fit_ml()
    table = fit.r_squared().table.loc["marginal"]
    b, s2, v = fit.beta["x"], fit.sigma**2, np.var(x, ddof=1)
    # logit R² = log(b² v) - log σ²; Var(log b²) = 4 Var(b)/b², Var(log σ̂²) = 2/N.
    se = np.sqrt(4 * fit.beta_se["x"] ** 2 / b**2 + 2 / 60)
    logit = np.log(b**2 * v / s2)
    ends = 1 / (1 + np.exp(-(logit + np.array([-1, 1]) * norm.ppf(0.975) * se)))
    np.testing.assert_allclose(table, [b**2 * v / (b**2 * v + s2), *ends], rtol=1e-4)


def test_a_variance_of_zero():
    fit = hl.TwoLevelModel.from_formula("yield ~ 1 + (1 | batch)", hl.load_dataset("dyestuff2")).fit_reml()
    assert fit.intraclass_correlation().table[["lower", "upper"]].isna().all(axis=None)
    assert "at the boundary" in str(fit.intraclass_correlation())
    profile = fit.intraclass_correlation(method="profile").table.loc["ICC"]
    assert profile["lower"] == 0.0 and 0.2 < profile["upper"] < 0.5


def test_a_negative_correlation_has_its_own_range():
    data = hl.load_dataset("negative_icc")
    model = hl.MarginalModel("y ~ time + x", correlation=hl.CompoundSymmetry(), subject="subject", data=data)
    fit = model.fit_reml()
    for method in ("delta", "profile"):
        found = fit.intraclass_correlation(method=method)
        own = fit.variance_components(method="wald" if method == "delta" else "profile").loc["rho"]
        np.testing.assert_allclose(found.table.loc["ICC"], own[["estimate", "lower", "upper"]])
        assert -1 / 3 < found.table.loc["ICC", "lower"] < found.estimate < found.table.loc["ICC", "upper"] < 0.0
    assert "may be negative" in str(found)
    # Four rows a subject: symmetric on Fisher's transformation, log((1 + 3ρ) / (1 - ρ)), and the print says which.
    rho = fit.intraclass_correlation().table.loc["ICC"]
    on_line = np.log((1 + 3 * rho) / (1 - rho))
    assert on_line["upper"] - on_line["estimate"] == pytest.approx(on_line["estimate"] - on_line["lower"])
    text = " ".join(str(fit.intraclass_correlation()).split())
    assert "log((1 + 3 ρ) / (1 − ρ))" in text and "logit" not in text
    assert list(fit.r_squared().table.index) == ["marginal"]


def test_a_posterior_has_the_quantiles_of_its_draws(dental_like_nuts):
    fit = dental_like_nuts
    table = fit.intraclass_correlation().table
    D, sigma = fit.draws("D").reshape(-1, 2, 2), fit.draws("sigma").reshape(-1)
    between = D[:, 0, 0]
    share = between / (between + sigma**2)
    first = table[table["time"] == 0.0].iloc[0]
    np.testing.assert_allclose(first[["lower", "upper"]].to_numpy(dtype=float), np.quantile(share, [0.025, 0.975]))
    r = fit.r_squared().table
    assert np.all((r > 0.0) & (r < 1.0)) and np.all(r.loc["marginal"] < r.loc["conditional"])


def test_who_has_none(dental, patients):
    ar1 = hl.MarginalModel("distance ~ time", correlation=hl.AR1(), subject="subject", data=dental).fit_reml()
    with pytest.raises(hl.NotAvailableError, match="no single number"):
        ar1.intraclass_correlation()
    with pytest.raises(hl.SpecificationError, match="depends on the fixed effects too"):
        ar1.r_squared(method="profile")
    gee = hl.TwoLevelModel.from_formula("distance ~ time + (1 | subject)", dental).fit_gee()
    counts = hl.TwoLevelModel.from_formula("seizures ~ week + (1 | patient)", patients, family="negative_binomial")
    for fit in (gee, counts.fit_ml()):
        for ask in (fit.intraclass_correlation, fit.r_squared):
            with pytest.raises(hl.NotAvailableError):
                ask()
