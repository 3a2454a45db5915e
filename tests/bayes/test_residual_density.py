"""Density and gradient of a posterior with a residual structure, against the definition."""

from __future__ import annotations

import numpy as np
import pytest
from differences import central
from priors_by_definition import natural, prior_of_theta
from residual_by_definition import dense_log_posterior, prior_of_eta
from structures_by_definition import (
    CORRELATIONS,
    IN_NO_ORDER,
    VARIANCES,
    WITH_EFFECTS,
    build,
    second_definition,
)
from textbook import dense_fit

import hierlmm as hl
from hierlmm.bayes.collapsed_residual import residual_posterior
from hierlmm.bayes.distributions import ScaledBeta
from hierlmm.bayes.priors import resolve_priors
from hierlmm.bayes.residual_priors import narrowed
from hierlmm.bayes.structured_kernel import compiled_structured
from hierlmm.covariance.parameters import Parameter


def by_c_function(posterior, z):
    """Value and gradient of the compiled density in whitened coordinates."""
    import ctypes

    gradient, value = np.empty(len(z)), np.empty(1)
    pointer = ctypes.POINTER(ctypes.c_double)
    packed = posterior.packed
    arguments = [a.ctypes.data_as(pointer) for a in (np.ascontiguousarray(z), gradient, value)]
    status = compiled_structured().ctypes(len(z), *arguments, ctypes.c_void_p(packed.ctypes.data))
    assert status == 0
    return value[0], gradient


def check_density(pair, design, priors, n=2):
    posterior = residual_posterior(design, priors, signed=False)
    rng = np.random.default_rng(1)
    evaluate = posterior.evaluator()
    for scale in (0.3, 0.8)[:n]:
        point = posterior.mode + rng.normal(scale=scale, size=len(posterior.mode))
        value, gradient = posterior.log_density(point)
        if pair[0] == "Damped" and value == -np.inf:  # not every pair of its parameters makes a covariance matrix
            with pytest.raises(np.linalg.LinAlgError):
                dense_log_posterior(pair, design, priors, posterior, point)
            continue
        assert value == pytest.approx(dense_log_posterior(pair, design, priors, posterior, point), rel=1e-9)
        np.testing.assert_allclose(
            gradient, central(lambda p: posterior.log_density(p)[0], point), rtol=1e-5, atol=1e-5
        )
        if posterior.packed is not None:
            z = np.linalg.solve(posterior.root, point - posterior.mode)
            compiled, python = by_c_function(posterior, z), evaluate(z)
            assert compiled[0] == pytest.approx(python[0], rel=1e-10)
            np.testing.assert_allclose(compiled[1], python[1], rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(posterior.log_density(posterior.mode)[1], 0.0, atol=1e-2)
    return posterior


@IN_NO_ORDER
@pytest.mark.parametrize(("pair", "q"), WITH_EFFECTS)
def test_density_and_gradient_are_those_of_the_definition(thirty, pair, q):
    design = build(thirty, CORRELATIONS[pair[0]][0], VARIANCES[pair[1]][0], q).design
    posterior = check_density(pair, design, resolve_priors(None, design), n=1 if q else 2)
    own = {"Damped"}
    assert (posterior.packed is None) == (pair[0] in own or pair[1] == "VarConstPower")


CHOSEN = [
    (("AR1", "equal"), {"rho": hl.Uniform(0, 1)}, True),
    (("AR1", "equal"), {"rho": ScaledBeta(3.0, -1, 1)}, True),
    (("AR1", "equal"), {"rho": hl.Normal(0.2, 0.3)}, False),
    (("AR1", "equal"), {"rho": hl.HalfNormal(0.5)}, False),
    (("AR1, nugget", "equal"), {"nugget": ScaledBeta(2.0, 0, 1)}, True),
    (("CompoundSymmetry", "equal"), {"rho": hl.Uniform(-0.3, 0.2)}, True),
    (("Exponential", "equal"), {"range": hl.Gamma(2, 1)}, False),
    (("Exponential", "equal"), {"range": hl.LogNormal(0.7, 0.4)}, True),
    (("Exponential", "equal"), {"range": hl.Uniform(0, 3)}, True),
    (("Exponential", "equal"), {"range": hl.Uniform(0.1, 3)}, True),
    (("CAR1", "equal"), {"phi": hl.Uniform(0.1, 0.7)}, False),
    (("CAR1", "equal"), {"phi": ScaledBeta(2.0, 0, 1)}, False),
    (("independent", "VarIdent"), {"ratio(b/a)": hl.LogNormal(1, 0.3), "ratio(c/a)": hl.HalfNormal(2)}, False),
    (("independent", "VarIdent"), {"ratio(b/a)": hl.Uniform(0.5, 3)}, False),
    (("independent", "VarPower"), {"power": hl.Normal(0.5, 0.1)}, True),
    (("independent", "VarExp"), {"rate": hl.StudentT(4, 0, 1)}, False),
]


@pytest.mark.parametrize("case", CHOSEN, ids=lambda c: f"{c[0][0]} {c[0][1]} {next(iter(c[1].values()))}")
def test_density_with_chosen_priors(thirty, case):
    pair, chosen, compiled = case
    design = build(thirty, CORRELATIONS[pair[0]][0], VARIANCES[pair[1]][0], 1).design
    posterior = check_density(pair, design, resolve_priors(hl.Priors(residual=chosen), design), n=1)
    assert (posterior.packed is not None) == compiled


def test_a_prior_on_a_part_of_the_range_narrows_the_parameter():
    rho = Parameter("rho", -0.5, -1.0, 1.0)
    assert narrowed(rho, hl.Normal(0, 5)) is rho
    assert narrowed(rho, hl.Uniform(-3, 3)) is rho
    part = narrowed(rho, hl.Uniform(0.0, 4.0))
    assert (part.lower, part.upper, part.start) == (0.0, 1.0, 0.5)
    distance = narrowed(Parameter("range", 1.0, 0.0, unit=2.0), hl.Uniform(3, 5))
    assert (distance.lower, distance.upper, distance.start) == (3.0, 5.0, 4.0)
    assert narrowed(Parameter("power", 0.0), hl.HalfNormal(1)).lower == 0.0


def test_flat_priors_give_the_restricted_likelihood(thirty):
    """Differences of log p(y | θ, η) between points are those of REML when the prior of β is flat."""
    pair = ("AR1, nugget", "VarIdent")
    model = build(thirty, CORRELATIONS[pair[0]][0], VARIANCES[pair[1]][0], 1)
    design = model.design
    flat = hl.Priors(intercept=hl.Normal(0, 1e5), beta=hl.Normal(0, 1e5))
    priors = resolve_priors(flat, design)
    posterior = residual_posterior(design, priors, signed=False)
    rng, found = np.random.default_rng(0), []
    for _ in range(4):
        point = posterior.mode + rng.normal(scale=0.5, size=len(posterior.mode))
        theta, eta = point[: posterior.n_theta], point[posterior.n_theta :]
        scale = posterior.products.scaling.y_scale
        sd, _, sigma, _ = natural(design, theta, scale)
        residual = second_definition(pair, design, posterior.rows.report(eta))
        reml = dense_fit(design, np.diag(sd**2), sigma, True, residual)[0]
        prior = prior_of_theta(design, priors, theta, scale)
        prior += prior_of_eta(posterior.rows.parameters, priors.residual, eta)
        found.append(posterior.log_density(point)[0] - prior + 0.5 * reml)
    np.testing.assert_allclose(found, found[0], atol=1e-5)
