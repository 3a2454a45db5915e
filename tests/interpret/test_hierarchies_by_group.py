"""What a fit with a D of its own for each group says: by group, under the terms' own names, after a round trip."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import hierlmm as hl

FORMULA = "distance ~ sex * time + (time | gr(subject, by = sex))"


@pytest.fixture(scope="module")
def model(dental):
    return hl.TwoLevelModel.from_formula(FORMULA, dental)


@pytest.fixture(scope="module")
def reml(model):
    return model.fit_reml()


@pytest.fixture(scope="module")
def nuts(model):
    return model.fit(draws=1000, tune=500, chains=2, seed=1, progressbar=False)


@pytest.fixture(scope="module")
def weights():
    """Three groups, and no variance at zero."""
    model = hl.TwoLevelModel.from_formula(
        "weight ~ sex + treatment + (1 | litter)", hl.load_dataset("rat_pups"), group="treatment"
    )
    return model.fit_reml()


def test_the_formula_is_read_back(model, dental):
    assert "(1 + time | gr(subject, by = sex))" in model.formula
    again = hl.TwoLevelModel.from_formula(model.formula, dental)
    stated = hl.TwoLevelModel(
        "distance ~ time", {"Intercept": "sex", "time": "sex"}, subject="subject", data=dental, group="sex"
    )
    for other in (again, stated):
        assert other.hierarchy == model.hierarchy
        assert other.group == "sex"
        assert other.covariance == "unstructured"


def test_equations_have_one_d_for_each_group(model, reml):
    text = model.equations().text
    assert "(b₀ᵢ, b₁ᵢ) ~ N(0, D_F), sex = Female" in text
    assert "D_M = " in text
    assert "Vᵢ = Zᵢ D_sex(i) Zᵢᵀ + σ²I" in text
    assert r"D_{M} &= \begin{pmatrix} \sigma_{b0,M}^{2}" in model.equations().latex
    sd = reml.sd_b
    assert f"sex = Male, sd {sd['Intercept[Male]']:.2f} and {sd['time[Male]']:.2f}" in model.equations(reml).text
    assert "one D for each sex (Female, Male)" in " ".join(repr(model).split())


def test_heterogeneity_has_each_group_s_sd(reml, nuts):
    for fit in (reml, nuts):
        table = fit.heterogeneity("time").table.set_index("group")
        for sex in ("Female", "Male"):
            assert table.loc[f"sex = {sex}", "sd"] == pytest.approx(fit.sd_b[f"time[{sex}]"], rel=1e-9)
    own = nuts.heterogeneity("time", at={"sex": "Male"}).table
    assert own["group"].tolist() == ["sex = Male"]
    sd = np.abs(nuts.draws("sd_b")[..., 3])
    np.testing.assert_allclose(own[["sd_lower", "sd_upper"]].iloc[0], np.quantile(sd, [0.025, 0.975]), rtol=1e-10)


def test_a_group_that_explains_no_mean_still_has_rows(dental):
    fit = hl.TwoLevelModel.from_formula("distance ~ time + (1 | gr(subject, by = sex))", dental).fit_reml()
    table = fit.heterogeneity().table
    assert table["group"].tolist() == ["sex = Female", "sex = Male"]
    np.testing.assert_allclose(table["sd"], fit.sd_b, rtol=1e-12)
    assert len(set(table["mean"])) == 1


def test_sentences_tell_the_groups_apart(reml):
    text = " ".join(repr(reml.interpret()).split())
    sd = reml.variance_components().loc["sd(time[Male])"]
    assert (
        f"Subjects with sex = Male differ in their slope of distance on time with an SD of {sd['estimate']:.4g}" in text
    )
    assert "Subjects with sex = Female differ in their slope" in text
    assert "Two measurements of one subject with sex = Male" in text


def test_implied_covariance_is_that_of_the_group(reml):
    Z = np.column_stack([np.ones(4), [0, 2, 4, 6]])
    for sex in ("Female", "Male"):
        names = [f"Intercept[{sex}]", f"time[{sex}]"]
        V = Z @ reml.D.loc[names, names].to_numpy() @ Z.T + reml.sigma**2 * np.eye(4)
        np.testing.assert_allclose(reml.implied_marginal([0, 2, 4, 6], at={"sex": sex}).V, V, rtol=1e-10)


def test_groups_compared_by_the_delta_method():
    """Balanced groups: by REML s² = (MSB - MSE) / n, and mean squares are independent with variances 2 MS² / df."""
    rng, (J, n) = np.random.default_rng(3), (30, 2)
    who = np.repeat(np.arange(2 * J), n)
    frame = pd.DataFrame({"g": who, "arm": np.where(who < J, "a", "b")})
    frame["y"] = (np.where(np.arange(2 * J) < J, 1.0, 1.4) * rng.normal(size=2 * J))[who] + rng.normal(size=len(who))
    fit = hl.TwoLevelModel.from_formula("y ~ arm + (1 | gr(g, by = arm))", frame).fit_reml()
    means = frame.groupby("g")["y"].mean().to_numpy()
    MSE, nu = ((frame["y"] - means[who]) ** 2).sum() / (2 * J * (n - 1)), 2 * J * (n - 1)
    MSB = np.array([n * means[own].var(ddof=1) for own in (slice(0, J), slice(J, 2 * J))])
    variance = (MSB - MSE) / n
    np.testing.assert_allclose(fit.sd_b, np.sqrt(variance), rtol=1e-6)
    slope = 0.5 / (n * variance)  # of log s in MSB, and of the opposite sign in MSE, which the groups share
    se = np.sqrt(np.sum(slope**2 * 2 * MSB**2 / (J - 1)) + (slope[1] - slope[0]) ** 2 * 2 * MSE**2 / nu)
    row = fit.compare_groups().table.iloc[0]
    ratio = np.sqrt(variance[1] / variance[0])
    assert row["comparison"] == "b / a"
    assert row["estimate"] == pytest.approx(ratio, rel=1e-6)
    limits = ratio * np.exp(stats.norm.ppf(0.975) * se * np.array([-1.0, 1.0]))
    np.testing.assert_allclose(row[["lower", "upper"]].astype(float), limits, rtol=1e-4)
    assert row["p"] == pytest.approx(2 * stats.norm.sf(np.log(ratio) / se), rel=1e-3)


def test_every_pair_of_groups_or_one_reference(weights):
    assert list(weights.compare_groups().table["comparison"]) == ["Low / Control", "High / Control", "High / Low"]
    assert list(weights.compare_groups("Low").table["comparison"]) == ["Control / Low", "High / Low"]


def test_groups_compared_by_draws(nuts, reml):
    table = nuts.compare_groups().table.set_index("quantity")
    sd = np.abs(nuts.draws("sd_b")).reshape(-1, 4)
    ratio = sd[:, 3] / sd[:, 1]
    np.testing.assert_allclose(table.loc["sd(time)", ["lower", "estimate", "upper"]].astype(float),
                               np.quantile(ratio, [0.025, 0.5, 0.975]), rtol=1e-3)  # fmt: skip
    assert table.loc["sd(time)", "probability"] == pytest.approx(np.mean(ratio > 1))
    corr = nuts.draws("corr_b").reshape(-1, 4, 4)
    assert table.loc["corr(Intercept, time)", "estimate"] == pytest.approx(np.median(corr[:, 3, 2] - corr[:, 1, 0]))
    at_boundary = reml.compare_groups()
    assert at_boundary.table["p"].isna().all()
    assert "singular for Female" in " ".join(at_boundary.notes)


def test_draws_have_the_subjects_own_effects(nuts):
    """Means of b against the average over draws of each group's own conditional means."""
    design = nuts.design
    assert nuts.draws("b").shape[-2:] == (27, 2)
    assert nuts.datatree["posterior"]["b"].dims[-2:] == ("subject", "term")
    assert list(nuts.datatree["posterior"]["sd_b"]["term_by_group"].to_numpy()) == list(design.term)
    few = slice(None, None, 20)
    beta, D, sigma = (nuts.draws(n).reshape(2000, *nuts.draws(n).shape[2:])[few] for n in ("beta", "D", "sigma"))
    b = nuts.draws("b").reshape(2000, 27, 2)[few]
    for j in (0, 26):
        rows = design.subject_index == j
        own = slice(0, 2) if design.frame["sex"][rows].iloc[0] == "Female" else slice(2, 4)
        Z, Dj = design.X1[rows], D[:, own, own]
        V = Z @ Dj @ Z.T + sigma[:, None, None] ** 2 * np.eye(4)
        gain = Dj @ Z.T @ np.linalg.inv(V)
        mean = np.einsum("sqn,sn->sq", gain, design.y[rows] - beta @ design.X[rows].T)
        sd = np.sqrt(np.einsum("sqq->sq", Dj - gain @ Z @ Dj))
        z = (b[:, j] - mean) / sd
        assert np.abs(z.mean(axis=0)).max() < 4.5 / np.sqrt(len(z))
        assert np.abs(z.std(axis=0) - 1.0).max() < 4.5 / np.sqrt(2 * len(z))


def test_a_round_trip_keeps_the_groups(reml, nuts, tmp_path):
    for fit in (reml, nuts):
        for data in (True, False):
            fit.save(tmp_path / "fit.nc", data=data, overwrite=True)
            again = hl.load_fit(tmp_path / "fit.nc")
            np.testing.assert_array_equal(again.b, fit.b)
            np.testing.assert_array_equal(again.D, fit.D)
            assert list(again.b.columns) == ["Intercept", "time"]


def test_beside_the_fit_with_one_d(reml, dental, model):
    common = hl.TwoLevelModel.from_formula("distance ~ sex * time + (time | subject)", dental)
    both = hl.compare(common.fit_reml(), reml, labels=["one D", "by sex"])
    assert "of its own for each sex" in " ".join(both.notes)
    assert {"sd(time)", "sd(time[Male])"} <= set(both.table["parameter"])
    test = hl.anova(both.fits["one D"], reml).table.iloc[1]
    assert test["chisq"] == pytest.approx(both.fits["one D"].criterion - reml.criterion, abs=1e-8)
    assert test["df"] == 3
    assert test["p"] == pytest.approx(0.3090, abs=1e-4)  # χ² with three degrees of freedom


def test_leave_one_subject_out_of_the_marginal_likelihood(nuts, model):
    """Log-likelihood of a subject at a draw: the normal density with V of its own group."""
    with pytest.warns(hl.FitWarning, match="Pareto k"):  # boys 20 and 24 are known for it
        found = nuts.loo()
    design, D = model.design, nuts.D.to_numpy()
    beta, total = nuts.beta.to_numpy(), 0.0
    for j in range(27):
        rows = design.subject_index == j
        V = design.Z[rows] @ D @ design.Z[rows].T + nuts.sigma**2 * np.eye(4)
        total += stats.multivariate_normal(design.X[rows] @ beta, V).logpdf(design.y[rows])
    assert nuts.loglik == pytest.approx(total, rel=1e-9)
    assert total - 25 < found.elpd < total
