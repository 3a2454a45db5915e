"""REML and ML against lme4 at the optimum: β, se, criterion to 1e-6; D, σ, BLUPs, conditional variances to 1e-5."""

import numpy as np
import pytest
from references import IDS, align, formula, reference, reference_data

from hierlmm.fits.components import correlated_pairs
from hierlmm.model import TwoLevelModel

CLOSE = 1e-6
LOOSE = 1e-5


@pytest.fixture(scope="module", params=IDS)
def pair(request):
    ref = reference(request.param)
    model = TwoLevelModel.from_formula(formula(ref), reference_data(ref))
    return ref, model.fit_reml() if ref["method"] == "REML" else model.fit_ml()


def covariance(ref):
    names = [v["var1"] for v in ref["optimum"]["varcorr"] if v["var2"] is None and v["group"] != "Residual"]
    D = np.zeros((len(names), len(names)))
    for v in ref["optimum"]["varcorr"]:
        if v["group"] == "Residual":
            continue
        a, b = names.index(v["var1"]), names.index(v["var2"] or v["var1"])
        D[a, b] = D[b, a] = v["vcov"]
    return D


def test_likelihood_is_never_lower(pair):
    ref, fit = pair
    assert fit.loglik == pytest.approx(ref["optimum"]["logLik"], rel=CLOSE)
    assert fit.loglik >= ref["optimum"]["logLik"] - 1e-9 * abs(ref["optimum"]["logLik"])


def test_the_optimum_is_a_true_one(pair):
    _, fit = pair
    assert fit.converged
    assert fit.gradient_norm < 1e-6


def test_fixed_effects(pair):
    ref, fit = pair
    np.testing.assert_allclose(fit.beta, align(ref["optimum"]["coef"], fit.beta.index), rtol=CLOSE, atol=1e-9)
    np.testing.assert_allclose(fit.beta_se, align(ref["optimum"]["se"], fit.beta.index), rtol=CLOSE)
    names = list(ref["optimum"]["coef"])
    order = align({name: position for position, name in enumerate(names)}, fit.beta.index)
    vcov = np.reshape(ref["optimum"]["vcov"], (len(names), len(names)))[np.ix_(order, order)]
    scale = np.sqrt(np.outer(np.diag(vcov), np.diag(vcov)))
    np.testing.assert_allclose(fit.beta_cov.to_numpy() / scale, vcov / scale, rtol=CLOSE, atol=1e-7)


def test_covariance_parameters(pair):
    ref, fit = pair
    assert fit.sigma == pytest.approx(ref["optimum"]["sigma"], rel=LOOSE)
    D = covariance(ref)
    scale = np.sqrt(np.outer(np.diag(D), np.diag(D)))
    np.testing.assert_allclose(fit.D, D, rtol=LOOSE, atol=LOOSE * max(scale.max(), fit.sigma**2) * 1e-3)


def test_information_criteria(pair):
    ref, fit = pair
    assert fit.n_parameters == ref["n_par"]
    assert fit.aic == pytest.approx(ref["AIC"], rel=CLOSE)
    assert fit.bic == pytest.approx(ref["BIC"], rel=CLOSE)
    assert fit.n_subjects == next(iter(ref["n_groups"].values()))


def test_blups_at_the_optimum(pair):
    ref, fit = pair
    for group in ref["optimum"]["ranef_first5"].values():
        blup = np.array(group["blup"], dtype=float).reshape(len(group["levels"]), -1)
        ours = fit.b.set_axis(fit.b.index.map(str), axis=0).loc[group["levels"]]
        spread = np.maximum(fit.sd_b.to_numpy(), 1e-8 * fit.sigma)
        np.testing.assert_allclose(ours / spread, blup / spread, rtol=LOOSE, atol=LOOSE)


def test_conditional_variances_at_the_optimum(pair):
    ref, fit = pair
    labels = [str(s) for s in fit.b.index]
    for level, condvar in ref["optimum"]["condvar_first5"]["levels"].items():
        ours = fit.b_cov[labels.index(level)]
        scale = np.sqrt(np.diag(fit.D)).max()
        if condvar["kind"] == "diag":  # lme4 gives no covariances between separate terms
            np.testing.assert_allclose(np.diag(ours), condvar["values"], rtol=LOOSE, atol=1e-7 * scale**2)
        else:
            theirs = np.reshape(condvar["values"], ours.shape)
            np.testing.assert_allclose(ours, theirs, rtol=LOOSE, atol=1e-6 * scale**2)


def test_residuals_and_fitted_values(pair):
    ref, fit = pair
    best = ref["optimum"]
    quantiles = np.quantile(fit.residuals("pearson"), [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(quantiles, best["scaled_resid_quantiles"], rtol=LOOSE, atol=1e-6)
    np.testing.assert_allclose(fit.fitted("subject").iloc[:5], best["fitted_first5"], rtol=CLOSE, atol=1e-7)
    np.testing.assert_allclose(fit.fitted("population").iloc[:5], best["fitted_pop_first5"], rtol=CLOSE, atol=1e-7)


def test_singular_fits_are_called_so(pair):
    ref, fit = pair
    if ref["isSingular"]:
        assert fit.is_singular
        assert "boundary" in fit.warnings[0]
    assert fit.is_singular == bool(fit.warnings)


def test_no_pair_of_correlated_effects_is_missed(pair):
    _, fit = pair
    assert len(correlated_pairs(fit.design)) == sum(len(b) * (len(b) - 1) // 2 for b in fit.design.blocks)
