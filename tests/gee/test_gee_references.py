"""GEE against geepack and gee in R."""

import numpy as np
import pandas as pd
import pytest
from gee_references import IDS, data_of, read
from references import align

import hierlmm as hl

CLOSE, STOPPED = 1e-6, 1e-3


STOPPED_EARLY = [name for name in IDS if "default_stop" in read(name)]


@pytest.fixture(scope="module", params=IDS)
def pair(request):
    ref = read(request.param)
    data, subject, time = data_of(ref["data"])
    model = hl.TwoLevelModel.from_formula(f"{ref['formula']} + (1 | {subject})", data)

    def fit(scale, **options):
        return model.fit_gee(ref["correlation"], time=time, scale=scale, **options)

    fits = {"geepack": fit("n")}
    if "gee" in ref:  # package gee knows no waves
        fits["gee"] = fit("n-p", ar_pairs="adjacent")
    return ref, fits


def assert_like(fit, theirs, rtol):
    se = fit.standard_errors()
    names = fit.beta.index
    # A coefficient is as exact as its standard error is small; some are close to zero.
    np.testing.assert_allclose(fit.beta / se["naive"], align(theirs["coef"], names) / se["naive"], rtol=rtol, atol=rtol)
    np.testing.assert_allclose(se["naive"], align(theirs["se_naive"], names), rtol=rtol)
    np.testing.assert_allclose(se["robust"], align(theirs["se_robust"], names), rtol=rtol)
    assert fit.scale == pytest.approx(theirs["scale"], rel=rtol)


def test_coefficients_and_standard_errors_are_those_of_r(pair):
    ref, fits = pair
    for package, fit in fits.items():
        assert fit.converged and fit.n_obs == ref["n_obs"] and fit.n_subjects == ref["n_subjects"]
        assert_like(fit, ref[package], CLOSE)
        ours = fit.correlation_parameters.to_numpy()
        if package == "geepack":
            theirs = np.ravel(ref["geepack"]["alpha"] or [])
        else:
            matrix = np.array(ref["gee"]["working_correlation"])
            theirs = matrix[np.triu_indices(len(matrix), 1)][: len(ours)]
        np.testing.assert_allclose(ours, theirs, rtol=CLOSE)


@pytest.mark.parametrize("pair", STOPPED_EARLY, indirect=True)
@pytest.mark.parametrize("package", ["geepack", "gee"])
def test_the_packages_own_stopping_rules_are_within_a_thousandth(pair, package):
    ref, fits = pair
    balanced = ref["correlation"] != "ar1" and ref["data"] != "sim_active"
    if package == "gee" and ref["correlation"] == "ar1":
        assert fits["gee"].estimate.moments.neighbours_only
    assert_like(fits[package], ref["default_stop"][package], CLOSE if balanced else STOPPED)


@pytest.mark.parametrize("name", ["potthoffroy_ml", "potthoffroy_reml", "negicc"])
def test_mixed_against_gee_tables(name):
    theirs = pd.DataFrame(read("gee_vs_lmm")["comparisons"][name]["table"]).T
    if name == "negicc":
        model = hl.TwoLevelModel.from_formula("y ~ time + x + (1 | subject)", hl.load_dataset("negative_icc"))
    else:
        model = hl.TwoLevelModel.from_formula("distance ~ sex * time + (1 | subject)", hl.load_dataset("dental"))
    fit = model.fit_reml() if name.endswith("reml") else model.fit_ml()
    comparison = fit.compare_marginal(scale="n")
    for ours, r in (
        ("mixed", "lmm_coef"),
        ("gee", "gee_coef"),
        ("mixed_se", "lmm_se"),
        ("naive_se", "gee_naive_se"),
        ("robust_se", "gee_robust_se"),
    ):
        table = comparison.table
        # lme4 stopped at its own tolerance: 2e-5 in the standard errors.
        rtol = 1e-4 if ours == "mixed_se" else CLOSE
        np.testing.assert_allclose(table[ours], align(theirs[r].to_dict(), table.index), rtol=rtol)
    np.testing.assert_allclose(table["robust / naive"], table["robust_se"] / table["naive_se"])
    np.testing.assert_allclose(table["bias_reduced_se"], comparison.gee.standard_errors()["bias_reduced"])
    name = fit.estimator
    assert f"Mixed model by {name} against GEE" in repr(comparison) and "bias-reduced" in repr(comparison)
    assert "<table" in comparison._repr_html_()
