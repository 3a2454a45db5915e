"""What a posterior with a residual structure is refused, and why."""

from __future__ import annotations

import pytest

import hierlmm as hl
from hierlmm.errors import NotAvailableError, SpecificationError
from hierlmm.marginal import MarginalModel

QUIET = {"progressbar": False}


@pytest.mark.parametrize(
    ("residual", "message"),
    [
        ({"roh": hl.Uniform(0, 1)}, "Did you mean 'rho'"),
        ({"rho": hl.Uniform(2, 3)}, "no mass between -1 and 1"),
        ({"rho": 0.5}, "not a prior of one number"),
        ({"rho": hl.LKJ(2)}, "not a prior of one number"),
        (hl.Uniform(0, 1), "different ranges"),
    ],
)
def test_bad_priors(dental, residual, message):
    with pytest.raises(SpecificationError, match=message):
        MarginalModel(
            "distance ~ time",
            correlation=hl.AR1(),
            subject="subject",
            data=dental,
            priors=hl.Priors(residual=residual),
        )


def test_priors_of_a_structure_that_the_model_lacks(dental):
    with pytest.raises(SpecificationError, match="no residual parameter of this name"):
        MarginalModel(
            "distance ~ time", subject="subject", data=dental, priors=hl.Priors(residual={"rho": hl.Normal()})
        )


def test_refusals(dental):
    def fit(sampler="auto", priors=None, **structure):
        model = MarginalModel("distance ~ time", subject="subject", data=dental, priors=priors, **structure)
        model.fit(sampler=sampler, draws=10, tune=10, chains=1, **QUIET)

    for variance in (hl.VarPower(), hl.VarExp()):
        with pytest.raises(NotAvailableError, match="fitted value is itself a parameter"):
            fit(variance=variance)
    for correlation in (hl.Unstructured("age"), hl.Toeplitz(), hl.Gaussian("age")):
        with pytest.raises(NotAvailableError, match="written for AR1"):
            fit("explicit", correlation=correlation)
    for prior in (hl.Normal(0, 1), hl.HalfNormal(1), hl.Uniform(-2, 2)):
        with pytest.raises(NotAvailableError, match="cut a prior off"):
            fit("explicit", hl.Priors(residual={"rho": prior}), correlation=hl.AR1())


def test_what_belongs_to_a_maximum_is_refused_with_a_reason(fitted, fitted_marginal):
    for fit in (fitted, fitted_marginal):
        for name in ("criterion", "aic", "bic", "n_parameters", "is_singular"):
            with pytest.raises(NotAvailableError, match=f"{name} of a fit by NUTS"):
                getattr(fit, name)
        for call in (fit.information_criteria, fit.subject_loglik):
            with pytest.raises(NotAvailableError, match="maximum of a likelihood"):
                call()


def test_effects_of_a_marginal_posterior_are_refused_with_advice_that_can_be_followed(fitted_marginal):
    for call in (fitted_marginal.plot_random_effects, fitted_marginal.plot_shrinkage):
        with pytest.raises(NotAvailableError, match="of a marginal model") as refused:
            call()
        assert "random_effects=" not in str(refused.value)
    with pytest.raises(NotAvailableError) as refused:
        fitted_marginal.draws("b")
    assert "random_effects=" not in str(refused.value)
