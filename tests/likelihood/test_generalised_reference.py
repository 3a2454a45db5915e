"""Laplace and quadrature against glmmTMB, lme4, ordinal and GLMMadaptive at the optimum."""

import re

import numpy as np
import pytest
from generalized_references import NAMES, case

from hierlmm import families
from hierlmm.fit.make import fit_of
from hierlmm.likelihood.generalised import maximise_generalised
from hierlmm.model import TwoLevelModel

CLOSE = 1e-6
LOOSE = 1e-5
"""The references' own convergence in ordinal and GLMMadaptive, and node rules that differ beyond one random effect."""
KINDS = {"cumulative": families.Ordinal} | {
    kind.name: kind
    for kind in (
        families.Gaussian,
        families.Poisson,
        families.NegativeBinomial,
        families.Bernoulli,
        families.Binomial,
        families.Gamma,
        families.Beta,
        families.StudentT,
    )
}


def ours(name):
    """A name of R's as formulaic writes it."""
    return re.sub(r"^treat(\w)$", r"treat[T.\1]", name.replace("(Intercept)", "Intercept"))


@pytest.fixture(scope="module", params=NAMES)
def pair(request):
    found = case(request.param)
    given = {"nu": found.fixed["df"]} if found.fixed else {}
    formula = re.sub(r"cbind\((\w+), (\w+) - \w+\)", r"p(\1, \2)", found.formula)
    model = TwoLevelModel.from_formula(formula, found.data, family=KINDS[found.family](link=found.link, **given))
    if model.design.is_gaussian:
        return found, fit_of(maximise_generalised(model.design))
    return found, model.fit_ml(n_quadrature=25 if found.method == "agq" else 1)


def test_loglik_is_the_maximum(pair):
    found, fit = pair
    reference = found.reference.get("logLik_full", found.reference["logLik"])
    assert fit.converged
    assert fit.loglik == pytest.approx(reference, abs=CLOSE)
    assert fit.loglik > reference - 5e-7
    assert fit.subject_loglik().sum() == pytest.approx(fit.loglik, abs=1e-9)


def test_estimates(pair):
    found, fit = pair
    for name, value in found.reference["coef"].items():
        if ours(name) in fit.beta.index:
            assert fit.beta[ours(name)] == pytest.approx(value, rel=LOOSE, abs=LOOSE)
    np.testing.assert_allclose(fit.sd_b, found.reference["sd"], rtol=LOOSE)
    for name, value in found.reference.get("se", {}).items():
        if ours(name) in fit.beta.index:
            assert fit.beta_se[ours(name)] == pytest.approx(value, rel=1e-4)


def test_dispersion(pair):
    found, fit = pair
    words = {"size": "shape", "scale": "sigma", "df": "nu"}
    for name, value in found.reference.get("dispersion", {}).items():
        if words.get(name, name) in fit.dispersion:
            assert fit.dispersion[words.get(name, name)] == pytest.approx(value, rel=LOOSE)


def test_conditional_modes(pair):
    found, fit = pair
    shown = slice(0, len(found.modes))
    np.testing.assert_allclose(fit.b[shown], np.reshape(found.modes, (-1, fit.b.shape[1])), rtol=1e-4, atol=1e-4)
    expected = np.reshape(found.conditional_sd, (-1, fit.b.shape[1]))
    np.testing.assert_allclose(fit.b_sd[shown], expected, rtol=1e-4, atol=1e-5)


def test_averaged_coefficients(pair):
    found, fit = pair
    averaged = found.reference.get("check", {}).get("marginal_coefs")
    if averaged is None:
        return
    table = fit.marginal_coefficients().table
    for name, value in averaged.items():
        assert table.loc[ours(name), "estimate"] == pytest.approx(value, abs=LOOSE)
    for name, value in found.reference["marginal_coefs"]["coef"].items():  # GLMMadaptive simulates 20,000 groups
        assert table.loc[ours(name), "estimate"] == pytest.approx(value, abs=5e-3)
