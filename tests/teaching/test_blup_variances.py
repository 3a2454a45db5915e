"""Three variances of a BLUP, against dense matrices."""

import json

import numpy as np
import pytest
from references import references_of
from samples import SLEEP
from textbook import marginal_covariance, projection, residual_blocks

import hierlmm as hl
from hierlmm.likelihood.conditional import blup_variances, conditional_effects

BLUP = references_of("blup")
AIDS = "cd4 ~ obstime + obstime:drug + (obstime | subject)"
KEYS = {
    "var_of_blup": "var_of_blup_DZKZD",
    "conditional": "conditional_var_given_theta_beta",
    "prediction_error": "prediction_error_var_D_minus_DZKZD",
}
CASES = {
    "dyestuff": ("dyestuff", "Yield ~ 1 + (1 | batch)"),
    "potthoffroy_rirs": ("dental", "distance ~ sex*time + (1 + time | subject)"),
    "sleepstudy_rirs": ("sleepstudy", SLEEP),
    "aids_slope": ("aids", AIDS),
}


@pytest.mark.parametrize("case", CASES)
def test_three_variances_agree_with_dense_matrices_in_r(case, request):
    dataset, formula = CASES[case]
    data = request.getfixturevalue("aids") if dataset == "aids" else hl.load_dataset(dataset)
    data = data.rename(columns={"yield": "Yield"})
    ref = json.loads((BLUP / f"{case}.json").read_text())
    fit = hl.TwoLevelModel.from_formula(formula, data).fit_reml()
    # At the θ of the reference, so that only the formulas are compared.
    D, sigma, products = np.array(ref["D"]), ref["sigma"], fit.criterion_function.products
    Lambda = np.linalg.cholesky(products.scaling.Bz @ D @ products.scaling.Bz.T / sigma**2)
    equations = fit.criterion_function.normal_equations(Lambda)
    cov = products.scaling.beta_cov(equations.Qxx_inverse * (sigma / products.scaling.y_scale) ** 2)
    at_reference = blup_variances(conditional_effects(products, Lambda, sigma), D, cov)
    own = fit.blup_variances(covariances=True)
    labels = list(map(str, fit.b.index))
    for row in ref["subjects"]:
        j = labels.index(row["level"])
        np.testing.assert_allclose(np.atleast_1d(row["blup"]), fit.b.iloc[j], rtol=1e-5, atol=1e-7)
        for name, key in KEYS.items():
            np.testing.assert_allclose(getattr(at_reference, name)[j], row[key], rtol=1e-6)
            np.testing.assert_allclose(own[name].to_numpy()[j], row[key], rtol=1e-5)


def test_table_of_the_three_variances(sleepstudy):
    fit = hl.TwoLevelModel.from_formula(SLEEP, sleepstudy).fit_reml()
    table = fit.blup_variances()
    assert list(table.columns) == ["blup", *KEYS]
    assert table.index.names == ["subject", "term"]
    assert len(table) == 36
    np.testing.assert_allclose(table["blup"], fit.b.to_numpy().ravel())
    np.testing.assert_allclose(np.sqrt(table["conditional"]), fit.b_sd.to_numpy().ravel())
    assert table.loc[(308, "days"), "blup"] == pytest.approx(fit.b.loc[308, "days"])
    np.testing.assert_allclose(table["var_of_blup"] + table["prediction_error"], np.tile(np.diag(fit.D), 18))
    assert np.all(table["prediction_error"] > table["conditional"])


def test_variances_at_a_boundary_are_not_negative():
    fit = hl.TwoLevelModel.from_formula("y ~ time + x + (1 | subject)", hl.load_dataset("negative_icc")).fit_reml()
    np.testing.assert_allclose(fit.blup_variances(), 0, atol=1e-12)


def test_with_correlated_residuals_they_are_those_of_dense_matrices(sleepstudy):
    fit = hl.TwoLevelModel.from_formula(SLEEP, sleepstudy, residual=hl.AR1()).fit_reml()
    design, D = fit.design, fit.D.to_numpy()
    V = marginal_covariance(design, D, fit.sigma, residual_blocks(design, fit.residual_estimate))
    inverse, K = np.linalg.inv(V), projection(design.X, V)
    found = fit.blup_variances(covariances=True)
    for j in (0, 7):
        rows = design.subject_index == j
        Z = design.Z[rows]
        blup = D @ Z.T @ K[np.ix_(rows, rows)] @ Z @ D
        conditional = D - D @ Z.T @ inverse[np.ix_(rows, rows)] @ Z @ D
        np.testing.assert_allclose(found["var_of_blup"][j], blup, rtol=1e-7, atol=1e-8)
        np.testing.assert_allclose(found["conditional"][j], conditional, rtol=1e-7, atol=1e-8)
        np.testing.assert_allclose(found["prediction_error"][j], D - blup, rtol=1e-7, atol=1e-8)


def test_a_posterior_has_one_variance(sleep_like_nuts):
    with pytest.raises(hl.NotAvailableError, match="one variance"):
        sleep_like_nuts.blup_variances()


def test_what_has_no_random_effects_has_no_blups(dental):
    marginal = hl.MarginalModel("distance ~ time", correlation=hl.CompoundSymmetry(), subject="subject", data=dental)
    gee = hl.TwoLevelModel.from_formula("distance ~ time + (1 | subject)", dental).fit_gee()
    for fit, received in ((marginal.fit_reml(), "of a marginal model"), (gee, "blup_variances of a fit by GEE")):
        with pytest.raises(hl.NotAvailableError, match=received) as error:
            fit.blup_variances()
        assert "b_sd" not in error.value.remedy  # which they have not either
