"""Tests of variances: the exact null against closed forms and refits, mixtures by their definition, the choice."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2, f

import hierlmm as hl
from hierlmm.inference.chibar import matrix_weights, orthant_weights
from hierlmm.inference.exact import null_draws, spectrum
from hierlmm.inference.maximum import maximise
from hierlmm.inference.simpler import with_blocks


def balanced(groups, rows):
    frame = pd.DataFrame({"g": np.repeat(np.arange(groups), rows), "y": 0.0})
    frame["y"] = np.random.default_rng(0).normal(size=len(frame))
    return hl.TwoLevelModel.from_formula("y ~ 1 + (1 | g)", frame).design


def ratio_of_f(F, J, n, reml):
    """The likelihood ratio of a balanced one-way layout, from the F of its analysis of variance, over a fine grid."""
    B, W, N = F * (J - 1), float(J * (n - 1)), J * n - reml
    eigenvalues = J - reml
    t = np.linspace(0.0, 0.999, 200_000)  # 1 - 1/(1 + n λ)
    return np.max(N * np.log((B + W) / (B * (1.0 - t) + W)) + eigenvalues * np.log1p(-t))


@pytest.mark.parametrize("reml", [True, False])
def test_the_exact_null_of_a_balanced_layout_is_that_of_f(reml):
    J, n, size = 6, 5, 40_000
    draws = null_draws(spectrum(balanced(J, n)), reml=reml, draws=size, seed=1)
    # The variance is zero where F is below 1 (by REML) or J/(J - 1) (by ML).
    zero = f.cdf(1.0 if reml else J / (J - 1.0), J - 1, J * (n - 1))
    assert np.mean(draws < 1e-9) == pytest.approx(zero, abs=4.0 * np.sqrt(zero * (1 - zero) / size))
    for level in (0.9, 0.95, 0.99):
        statistic = ratio_of_f(f.ppf(level, J - 1, J * (n - 1)), J, n, reml)
        error = np.sqrt(level * (1.0 - level) / size)
        assert np.mean(draws >= statistic) == pytest.approx(1.0 - level, abs=4.0 * error)


@pytest.mark.parametrize("reml", [True, False])
def test_the_exact_null_is_that_of_refits(reml):
    """Unequal numbers of rows and a covariate between them: 200 data sets without random effects, fitted twice."""
    rng = np.random.default_rng(5)
    sizes = [2, 3, 3, 4, 6, 7, 9, 2]
    frame = pd.DataFrame({"g": np.repeat(np.arange(8), sizes)})
    frame["x"] = rng.normal(size=len(frame)) + frame["g"] / 3
    frame["y"] = rng.normal(size=len(frame))
    design = hl.TwoLevelModel.from_formula("y ~ x + (1 | g)", frame).design
    small = with_blocks(design, [], "none")
    found = []
    for _ in range(200):
        y = rng.normal(size=len(frame))
        fits = [maximise(d.with_response(y), reml=reml).loglik for d in (small, design)]
        found.append(2.0 * (fits[1] - fits[0]))
    draws, found = null_draws(spectrum(design), reml=reml, draws=50_000, seed=2), np.array(found)
    for level in (0.75, 0.9, 0.95):
        at = np.quantile(draws, level)
        assert np.mean(found > at) == pytest.approx(1.0 - level, abs=3.5 * np.sqrt(level * (1 - level) / 200))
    zero = np.mean(draws < 1e-8)
    assert np.mean(found < 1e-6) == pytest.approx(zero, abs=3.5 * np.sqrt(zero * (1 - zero) / 200))


def test_weights_of_several_variances():
    assert orthant_weights(np.array([[3.0]])) == (0.5, 0.5)
    assert orthant_weights(np.diag([2.0, 5.0])) == pytest.approx([0.25, 0.5, 0.25])
    assert orthant_weights(np.eye(3)) == pytest.approx([1 / 8, 3 / 8, 3 / 8, 1 / 8], abs=0.006)
    # By brute force: project normal vectors onto the quadrant, and onto the semi-definite matrices.
    information = np.array([[2.0, 0.9], [0.9, 1.0]])
    rng = np.random.default_rng(3)
    z = rng.normal(size=(20_000, 2)) @ np.linalg.cholesky(np.linalg.inv(information)).T
    rays = [np.array([1.0, 0.0]), np.array([0.0, 1.0])]
    inner = np.mean(np.all(z > 0.0, axis=1))
    outside = np.mean((z @ information @ rays[0] <= 0.0) & (z @ information @ rays[1] <= 0.0))
    assert orthant_weights(information) == pytest.approx([outside, 0.5, inner], abs=0.015)


def test_weights_of_two_random_effects_with_their_covariance():
    """Against the statistic itself: the projection onto 2 × 2 matrices found by a search over their factors."""
    rng = np.random.default_rng(8)
    A = rng.normal(size=(3, 3))
    information = A @ A.T + np.eye(3)
    w = matrix_weights(information)
    assert sum(w) == pytest.approx(1.0)
    assert min(w) > 0.0
    z = rng.normal(size=(3000, 3)) @ np.linalg.cholesky(np.linalg.inv(information)).T
    angle, size = np.meshgrid(np.linspace(0.0, np.pi, 60), np.linspace(0.0, np.pi / 2, 30))
    # Matrices of the cone's surface and inside: mixtures of two rank-one matrices at right angles.
    u, v = np.cos(angle).ravel(), np.sin(angle).ravel()
    a, b = np.cos(size).ravel(), np.sin(size).ravel()
    C = np.column_stack([a * u**2 + b * v**2, a * v**2 + b * u**2, (a - b) * u * v])
    norm = np.einsum("ij,jk,ik->i", C, information, C)
    gain = np.maximum(z @ information @ C.T, 0.0) ** 2 / norm
    statistic = gain.max(axis=1)
    for x in (1.0, 3.0, 6.0):
        expected = sum(wj * chi2.sf(x, j) for j, wj in enumerate(w) if j)
        assert np.mean(statistic > x) == pytest.approx(expected, abs=4.0 * np.sqrt(expected * (1 - expected) / 3000))


def test_methods_are_chosen_and_said(sleep_reml, growth):
    one = growth["intercept"].test_random_effects(seed=1)
    assert one.table.loc["Intercept", "method"] == "exact, simulated"
    assert one.table.loc["Intercept", "chisq"] == pytest.approx(
        2.0 * (growth["intercept"].loglik - growth["independent"].loglik), abs=1e-8
    )
    assert "independent residuals" in repr(one)
    two = sleep_reml.test_random_effects()
    assert list(two.table.index) == ["days"]
    assert two.table.loc["days", "method"] == "½χ²(1) + ½χ²(2)"
    assert any("Intercept, which another" in note for note in two.notes)
    with pytest.raises(hl.NotAvailableError, match="one variance in all"):
        sleep_reml.test_random_effects(test="exact")
    with pytest.raises(hl.SpecificationError, match="no such method"):
        sleep_reml.test_random_effects(test="lucky")
    with pytest.raises(hl.NotAvailableError, match="what a subject has of its own"):
        growth["cs"].test_random_effects()


def test_the_exact_p_of_dyestuff_is_near_that_of_f():
    data = hl.load_dataset("dyestuff")
    fit = hl.TwoLevelModel.from_formula("yield ~ 1 + (1 | batch)", data).fit_reml()
    means = data.groupby("batch")["yield"].mean()
    within = data["yield"] - data["batch"].map(means).astype(float)
    F = (5.0 * means.var()) / (float(within @ within) / 24.0)
    row = fit.test_random_effects(seed=3).table.loc["Intercept"]
    assert row["p"] == pytest.approx(f.sf(F, 5, 24), abs=4.0 * row["mcse"])
    boot = fit.test_random_effects("bootstrap", n=200, seed=3, progressbar=False).table.loc["Intercept"]
    assert boot["p"] == pytest.approx(row["p"], abs=4.0 * boot["mcse"] + 1 / 200)


def test_covariance_questions(growth, sleep_reml):
    found = growth["intercept"].test_covariance()
    sex = "residual variance by sex"
    assert set(found.table.index) == {
        "serial correlation",
        sex,
        "residual variance along time",
        "any covariance of the occasions",
        "D by sex",
    }
    assert found.table.loc["any covariance of the occasions", "chisq"] == pytest.approx(9.21044900, abs=1e-4)
    assert found.table.loc["any covariance of the occasions", "p"] == pytest.approx(0.32485511, abs=1e-4)
    assert "5 questions" in repr(found)
    back = growth["ar1"].test_covariance().table
    assert back.loc["residual correlation", "df"] == 1
    sleep = sleep_reml.test_covariance().table
    assert sleep.loc["correlation of random effects", "p"] == pytest.approx(0.83949619, abs=1e-4)


def test_what_could_not_be_asked_is_told(dental):
    data = dental.assign(dose=np.tile([1.0, 3.0, 2.0, 5.0], 27))
    fit = hl.TwoLevelModel.from_formula("distance ~ sex * time + dose + (1 | subject)", data).fit_reml()
    silent = fit.test_covariance()
    assert list(silent.table.index) == ["D by sex", "residual variance by sex"]
    text = " ".join(repr(silent).split())
    assert "Not asked: serial correlation, and residual variance along time" in text
    assert "time, dose). Name the time: test_covariance(time='time')" in text
    named = fit.test_covariance(time="time")
    assert {"serial correlation", "residual variance along time"} < set(named.table.index)
    assert "Not asked" not in repr(named)
    with pytest.raises(hl.SpecificationError, match="no numeric variable of level 1"):
        fit.test_covariance(time="sex")
    twice = pd.concat([data, data.assign(distance=data["distance"] + 0.1 * data["dose"])])
    fit = hl.TwoLevelModel.from_formula("distance ~ sex * time + (1 | subject)", twice).fit_reml()
    assert "a subject has several rows at one time" in " ".join(repr(fit.test_covariance()).split())


def test_families(patients):
    fit = hl.TwoLevelModel.from_formula("seizures ~ week + (week | patient)", patients, family="poisson").fit_ml()
    row = fit.test_random_effects().table.loc["week"]
    assert row["method"] == "½χ²(1) + ½χ²(2)"
    one = hl.TwoLevelModel.from_formula("seizures ~ week + (1 | patient)", patients, family="poisson").fit_ml()
    assert row["chisq"] == pytest.approx(max(2.0 * (fit.loglik - one.loglik), 0.0), abs=1e-5)
    import statsmodels.api as sm

    X = sm.add_constant(patients[["week"]].to_numpy())
    plain = sm.GLM(patients["seizures"].to_numpy(), X, family=sm.families.Poisson()).fit()
    none = one.test_random_effects().table.loc["Intercept"]
    assert none["chisq"] == pytest.approx(2.0 * (one.loglik - plain.llf), abs=1e-5)
    assert none["p"] == pytest.approx(0.5 * none["p_naive"])


def test_weights_stay_and_are_no_special_case_of_others(dental):
    data = dental.assign(w=np.where(dental["time"] > 2, 2.0, 1.0))

    def fit(bar, **options):
        return hl.TwoLevelModel.from_formula(f"distance ~ sex * time + ({bar} | subject)", data, **options).fit_reml()

    weighted = fit("time", weights="w")
    row = weighted.test_random_effects().table.loc["time"]
    assert row["chisq"] == pytest.approx(2.0 * (weighted.loglik - fit("1", weights="w").loglik), abs=1e-8)
    with pytest.raises(hl.SpecificationError, match="weights of the rows are others"):
        hl.anova(fit("1"), weighted)


def test_different_hierarchies_by_group(dental):
    model = hl.TwoLevelModel.from_formula("distance ~ sex * time + (time | subject)", dental, group="sex")
    common = hl.TwoLevelModel.from_formula("distance ~ sex * time + (time | subject)", dental).fit_reml()
    fit = model.fit_reml()
    table = fit.test_covariance().table
    assert table.loc["D by sex", "chisq"] == pytest.approx(2.0 * (fit.loglik - common.loglik), abs=1e-6)
    assert table.loc["D by sex", "df"] == 3
    asked = common.test_covariance().table.loc["D by sex"]
    np.testing.assert_allclose(
        asked[["chisq", "df"]].astype(float), table.loc["D by sex", ["chisq", "df"]].astype(float)
    )
    row = fit.test_random_effects().table.loc["time"]
    assert row["df"] == 4
    assert row["p"] < row["p_naive"]
    assert hl.build_random(model).table["chosen"].sum() == 1


def test_residual_covariance_by_arm(dental, growth):
    """Asked of a model that has one for all, and of a model that has one for each: the same two likelihoods."""
    by_sex = hl.MarginalModel(
        "distance ~ sex * time", subject="subject", data=dental, correlation=hl.AR1(), group="sex"
    )
    fit, name = by_sex.fit_reml(), "residual covariance by sex"
    needed, dropped = growth["ar1"].test_covariance(), fit.test_covariance()
    for row in (needed.table.loc[name], dropped.table.loc[name]):
        assert row["chisq"] == pytest.approx(2.0 * (fit.loglik - growth["ar1"].loglik), abs=1e-5)
        assert row["df"] == 2  # a variance and a correlation
        assert row["p"] == pytest.approx(chi2.sf(row["chisq"], 2), rel=1e-4)
    few = " ".join(repr(growth["un"].test_covariance()).split())
    assert name not in few and "a covariance for each level of sex, because there are too few subjects" in few


def test_a_family_says_what_cannot_be_asked(patients):
    found = hl.TwoLevelModel.from_formula("seizures ~ week + (1 | patient)", patients, family="poisson").fit_ml()
    tests = found.test_covariance()
    assert tests.table.empty
    text = " ".join(repr(tests).split())
    assert "Nothing was tested." in text and "variance of a Poisson response follows from its mean" in text
    assert "there is one random effect" in text
