"""What R says of generalised models is what the densities say: its log-likelihoods, evaluated without R."""

import pytest
from generalized_by_definition import DENSE, Likelihood
from generalized_references import GEE_NAMES, NAMES, case, gee_case

CLOSE = 1e-6
QUADRATURE = [name for name in NAMES if name.endswith("agq25")]


@pytest.mark.parametrize("name", NAMES)
def test_the_criterion_at_the_optimum(name):
    model = case(name)
    likelihood = Likelihood(model)
    here = likelihood(likelihood.optimum, model.nodes)
    assert here == pytest.approx(model.reference["logLik"], abs=CLOSE)
    assert here == pytest.approx(model.reference["check"]["loglik"], abs=1e-8)
    assert model.reference["check"]["max_abs_gradient"] < 2e-5


@pytest.mark.parametrize("name", [name for name in QUADRATURE if "_ri_" in name])
def test_the_integral_at_the_optimum(name):
    model = case(name)
    likelihood = Likelihood(model)
    exact = likelihood(likelihood.optimum, DENSE[1])
    assert exact == pytest.approx(model.reference["check"]["loglik_exact_at_optimum"], abs=1e-8)
    assert exact == pytest.approx(model.reference["logLik"], abs=3e-6 if model.family == "student_t" else CLOSE)


def test_every_family_has_its_fits():
    found = {(model.family, model.link) for model in map(case, NAMES)}
    assert found == {
        *(("poisson", link) for link in ("log", "sqrt")),
        *(("bernoulli", link) for link in ("logit", "probit", "cloglog")),
        *(("gamma", link) for link in ("log", "inverse")),
        *(("cumulative", link) for link in ("logit", "probit")),
        ("binomial", "logit"), ("negative_binomial", "log"), ("beta", "logit"), ("student_t", "identity"),
        ("gaussian", "identity"),
    }  # fmt: skip
    assert {gee_case(name).family for name in GEE_NAMES} == {"poisson", "bernoulli", "binomial", "gamma"}
