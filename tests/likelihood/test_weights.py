"""Known weights: the residual variance of a row is σ² / w. Against lme4, nlme and a likelihood written out in R."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from references import data_elsewhere, reference

import hierlmm as hl
from hierlmm.errors import DataError, HierlmmError, NotAvailableError
from hierlmm.predict.residual import residual_variance


@pytest.fixture(scope="module")
def sleep():
    """As `weighted()` of tests/reference/R/structures.R makes it."""
    data = hl.load_dataset("sleepstudy")
    number = data["subject"].astype(str).astype(int)
    return data.assign(w=1.0 + (7 * data["days"] + 3 * number) % 5, day=data["days"].astype(int))


def by_formula(random, **options):
    return lambda data: hl.TwoLevelModel.from_formula(f"reaction ~ days + {random}", data, weights="w", **options)


def marginal(correlation, **options):
    return lambda data: hl.MarginalModel(
        "reaction ~ days", correlation=correlation, subject="subject", data=data, weights="w", **options
    )


MODELS = {
    "weights_lmer_reml": by_formula("(days | subject)"),
    "weights_lmer_ml": by_formula("(days || subject)"),
    "weights_gls_ar1_reml": marginal(hl.AR1("days")),
    "weights_lme_ar1_reml": by_formula("(1 | subject)", residual=hl.AR1("day")),
}


@pytest.mark.parametrize("name", MODELS)
def test_weights_are_those_of_lme4_and_nlme(sleep, name):
    ref, model = reference(name, "trial"), MODELS[name](sleep)
    fit = model.fit_reml() if name.endswith("reml") else model.fit_ml()
    assert fit.converged and not fit.warnings
    assert fit.loglik == pytest.approx(ref["logLik"], rel=1e-8)  # with the constants, Σ ½ log w among them
    assert fit.loglik > ref["logLik"] - 1e-8
    np.testing.assert_allclose(fit.beta, list(ref["coef"].values()), rtol=1e-5)
    np.testing.assert_allclose(fit.beta_se, list(ref["se"].values()), rtol=2e-4)
    assert fit.sigma == pytest.approx(ref["sigma"], rel=2e-4)


def test_weights_with_unstructured_residuals_are_those_of_a_likelihood_written_out():
    ref, fev = reference("fev_weights_un_own_reml", "trial"), pd.read_csv(data_elsewhere("fev")).dropna(subset="FEV1")
    model = hl.MarginalModel(
        "FEV1 ~ ARMCD * AVISIT + RACE + SEX", correlation=hl.UnstructuredHeterogeneous("AVISIT"), weights="WEIGHT",
        subject="USUBJID", data=fev,
    )  # fmt: skip
    fit = model.fit_reml()
    assert fit.loglik == pytest.approx(ref["logLik"], rel=1e-9)
    np.testing.assert_allclose(sorted(fit.beta), sorted(ref["coef"]), rtol=1e-4)


def test_ante_dependence_with_weights_is_that_of_a_likelihood_written_out(sleep):
    ref = reference("weights_own_ante_ml", "trial")
    fit = marginal(hl.AnteDependence("days"))(sleep[sleep["days"] < 4]).fit_ml()
    assert fit.loglik == pytest.approx(ref["logLik"], rel=1e-9)
    np.testing.assert_allclose(fit.beta, ref["coef"], rtol=1e-5)
    np.testing.assert_allclose(fit.beta_se, ref["se"], rtol=1e-5)
    found = np.array([fit.marginal_covariance(subject) for subject in fit.design.subjects])
    for V in ref["V"]:  # a pattern of weights each
        assert np.abs(found - V).max(axis=(1, 2)).min() < 1e-4 * np.max(V)


@pytest.mark.parametrize("df", ["satterthwaite", "kenward-roger"])
def test_degrees_of_freedom_are_those_of_rows_multiplied_by_the_root_of_their_weight(sleep, df):
    """Which have independent residuals of equal variance, and no weights."""
    s = np.sqrt(sleep["w"])
    rows = sleep.assign(one=s, y=s * sleep["reaction"], x=s * sleep["days"])
    plain = hl.TwoLevelModel.from_formula("y ~ 0 + one + x + (0 + one + x | subject)", rows).fit_reml()
    table, other = by_formula("(days | subject)")(sleep).fit_reml().summary(df=df), plain.summary(df=df)
    columns = ["estimate", "se", "lower", "upper", "df", "p"]
    np.testing.assert_allclose(table[columns], other[columns], rtol=2e-4)


def test_equal_weights_change_sigma_only_and_the_unit_of_weights_nothing_else(sleep):
    plain = hl.TwoLevelModel.from_formula("reaction ~ days + (days | subject)", sleep).fit_reml()
    four = by_formula("(days | subject)")(sleep.assign(w=4.0)).fit_reml()
    assert four.loglik == pytest.approx(plain.loglik, rel=1e-10)
    assert four.sigma == pytest.approx(2.0 * plain.sigma, rel=1e-6)
    np.testing.assert_allclose(four.D, plain.D, rtol=1e-4)
    own = by_formula("(days | subject)")(sleep).fit_ml()
    other = by_formula("(days | subject)")(sleep.assign(w=1e9 * sleep["w"])).fit_ml()
    assert other.loglik == pytest.approx(own.loglik, rel=1e-10)
    assert other.sigma == pytest.approx(np.sqrt(1e9) * own.sigma, rel=1e-6)
    np.testing.assert_allclose(other.beta_se, own.beta_se, rtol=1e-6)


def test_a_mean_of_four_rows_has_the_weight_four():
    """Rows that are alike but for noise, and their means with the number of rows as weight: β and its SE agree."""
    rng = np.random.default_rng(1)
    rows = pd.DataFrame({"id": np.repeat(np.arange(40), 6), "x": np.tile([0.0, 0.0, 0.0, 0.0, 1.0, 1.0], 40)})
    rows["y"] = rows["x"] + rng.normal(size=40)[rows["id"]] + rng.normal(size=240)
    means = rows.groupby(["id", "x"], as_index=False).agg(y=("y", "mean"), n=("y", "size"))
    model = hl.TwoLevelModel.from_formula("y ~ x + (1 | id)", means, weights="n")
    all_rows = hl.TwoLevelModel.from_formula("y ~ x + (1 | id)", rows)
    sigma, D = 1.3, np.array([[0.8]])

    def beta_at(model):
        design = model.design
        V = design.Z @ D @ design.Z.T * (design.subject_index[:, None] == design.subject_index)
        V = V + sigma**2 * np.diag(1.0 / design.known_weights)
        inverse = np.linalg.inv(design.X.T @ np.linalg.solve(V, design.X))
        return inverse @ design.X.T @ np.linalg.solve(V, design.y), inverse

    for one, two in zip(beta_at(model), beta_at(all_rows), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-10)
    fit = model.fit_reml()
    V = fit.marginal_covariance(0).to_numpy()
    np.testing.assert_allclose(np.diag(V), fit.D.iloc[0, 0] + fit.sigma**2 / np.array([4, 2]), rtol=1e-9)
    np.testing.assert_allclose(
        fit.residuals("pearson"), fit.residuals("response") / (fit.sigma / np.sqrt(means["n"])), rtol=1e-9
    )


def test_new_measurements_need_the_weights_and_lines_do_not(sleep):
    fit = by_formula("(days | subject)")(sleep).fit_reml()
    new = pd.DataFrame({"subject": sleep["subject"].iloc[0], "days": [3.0, 3.0], "w": [1.0, 4.0]})
    wide = fit.predict(new, level="new_subject", interval="prediction")
    half = (wide["upper"] - wide["lower"]).to_numpy()
    line = fit.predict(new, level="new_subject", interval="confidence")
    own = (line["upper"] - line["lower"]).to_numpy()
    assert own[0] == pytest.approx(own[1])
    assert half[0] > half[1] > own[0]
    np.testing.assert_allclose(residual_variance(fit, new), fit.sigma**2 / new["w"], rtol=1e-12)
    with pytest.raises(DataError, match="without the column 'w'"):
        fit.predict(new.drop(columns="w"), level="new_subject", interval="prediction")
    assert len(fit.predict(new.drop(columns="w"), level="population")) == 2


def test_gee_and_independent_rows_agree_with_weighted_least_squares(sleep):
    model = marginal(None)(sleep)
    X, y, w = model.design.X, model.design.y, sleep["w"].to_numpy()
    beta = np.linalg.solve(X.T @ (w[:, None] * X), X.T @ (w * y))
    s2 = w @ (y - X @ beta) ** 2 / (len(y) - 2)
    reml, gee = model.fit_reml(), model.fit_gee("independence")
    for fit in (reml, gee):
        np.testing.assert_allclose(fit.beta, beta, rtol=1e-9)
        assert fit.sigma**2 == pytest.approx(s2, rel=1e-8)
    np.testing.assert_allclose(reml.beta_cov, s2 * np.linalg.inv(X.T @ (w[:, None] * X)), rtol=1e-8)
    np.testing.assert_allclose(gee.residuals("pearson"), reml.residuals("pearson"), rtol=1e-8)
    # Exchangeable: the fixed point of the equations at its own α, written out.
    gee = model.fit_gee("exchangeable")
    alpha, bread = gee.correlation_parameters["alpha"], np.zeros((2, 2))
    score = np.zeros(2)
    for j in range(gee.n_subjects):
        rows = model.design.subject_index == j
        R = np.where(np.eye(rows.sum()) > 0, 1.0, alpha) / np.sqrt(np.outer(w[rows], w[rows]))
        bread += X[rows].T @ np.linalg.solve(R, X[rows])
        score += X[rows].T @ np.linalg.solve(R, y[rows])
    np.testing.assert_allclose(gee.beta, np.linalg.solve(bread, score), rtol=1e-8)
    assert "Weights: w" in str(gee) and "dropped by GEE" not in str(gee)


def test_prints_say_it(sleep, tmp_path):
    model = by_formula("(1 | subject)", residual_variance=hl.VarIdent("half"))(
        sleep.assign(half=np.where(sleep["days"] < 5, "first", "second"))
    )
    fit = model.fit_ml()
    assert model.weights == "w" and model.residual_variance == hl.VarIdent("half")
    assert "VarIdent('half'), weights='w', SD = sigma · ratio[half] / sqrt(w)" in str(fit)
    assert "w" in str(model.equations()) and r"\mathrm{w}_{ij}^{-1/2}" in model.equations().latex
    assert list(fit.residual_estimate.parameters) == ["ratio(second/first)"]
    fit.save(tmp_path / "fit.nc")
    loaded = hl.load_fit(tmp_path / "fit.nc")
    assert loaded.design.weights == "w" and loaded.loglik == fit.loglik
    assert "weights='w'" in str(marginal(None)(sleep).fit_ml())


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ([1.0, 0.0, *[2.0] * 178], r"1 weight that are zero or negative \(rows 1: 0\)"),
        ([1.0, -3.0, -2.0, *[2.0] * 177], r"2 weights that are zero or negative \(rows 1: -3, 2: -2\)"),
        ([1.0, np.inf, *[2.0] * 178], "not finite"),
        ([np.nan, *[2.0] * 179], "missing"),
        (["a"] * 180, "a residual variance is divided by its weight, which is a positive number"),
        ([True] * 180, "a positive number"),
    ],
)
def test_weights_that_cannot_be_used(sleep, column, words):
    with pytest.raises(DataError, match=words) as caught:
        by_formula("(1 | subject)")(sleep.assign(w=column))
    assert caught.value.remedy and caught.value.see


def test_weights_in_the_wrong_place(sleep):
    with pytest.raises(HierlmmError, match="nothing"):
        hl.TwoLevelModel.from_formula("reaction ~ days + (1 | subject)", sleep, weights="nothing")
    with pytest.raises(HierlmmError, match="the response 'reaction' in a residual structure"):
        hl.TwoLevelModel.from_formula("reaction ~ days + (1 | subject)", sleep, weights="reaction")
    with pytest.raises(NotAvailableError, match=r"weights='w' with Poisson|weights='w' with poisson"):
        hl.TwoLevelModel.from_formula("day ~ w + (1 | subject)", sleep, weights="w", family="poisson")
