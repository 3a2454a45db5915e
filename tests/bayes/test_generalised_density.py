"""The compiled posterior of generalised models: its gradient by differences, and PyMC's density of the same model."""

from __future__ import annotations

import numpy as np
import pytest
from family_cases import CASES
from generalised_cases import build, model_of
from pymc_density import log_density_of

import hierlmm as hl
from hierlmm.bayes.distributions import Exponential
from hierlmm.bayes.generalised import Marginal, joint_posterior
from hierlmm.covariance.partial import partials_of_correlation

GENERALISED = [case for case in CASES if case != ("gaussian", "identity")]
FIRST = [case for k, case in enumerate(GENERALISED) if case[0] not in [name for name, _ in GENERALISED[:k]]]


def inside(posterior, seed=1):
    """Random coordinates at which every mean has a density: links that do not bound the mean have ends."""
    rng = np.random.default_rng(seed)
    for scale in np.repeat([0.4, 0.1, 0.4], 100):
        z = scale * rng.normal(size=posterior.dimension)
        if np.isfinite(posterior.log_density(z)[0]):
            return z
    raise AssertionError("no point inside the support")


def differences(function, at, step=1e-5):
    return np.array([(function(at + step * e)[0] - function(at - step * e)[0]) / (2 * step) for e in np.eye(len(at))])


@pytest.mark.parametrize(("name", "link"), GENERALISED)
@pytest.mark.parametrize("random", ["1", "x"])
def test_gradients_are_those_of_the_densities(name, link, random):
    model = model_of(name, link, random)
    posterior = joint_posterior(model.design, model.priors)
    z = inside(posterior)
    value, gradient = posterior.log_density(z)
    found = differences(posterior.log_density, z)
    assert np.isfinite(value)
    np.testing.assert_allclose(gradient, found, atol=1e-6 + 2e-7 * np.abs(found).max())

    if (name, link) == ("bernoulli", "identity"):  # a subject of ones has its mode at the end of the means' range
        return
    phi = posterior.settled(z[None], effects=False)[0][0]
    marginal = Marginal(posterior.model)
    value, gradient = marginal.log_density(phi)
    found = differences(marginal.log_density, phi)
    assert np.isfinite(value)
    np.testing.assert_allclose(gradient, found, atol=1e-6 + 2e-6 * np.abs(found).max())


def free_variables(posterior, z):
    """Values of PyMC's free variables at whitened coordinates, and log|∂(these)/∂z| but for constants."""
    model, priors = posterior.model, posterior.model.priors
    k, (J, q), p = model.n_phi, model.data.c.shape, len(model.data.K)
    (phi,), _ = posterior.settled(z[None], effects=False)
    _, _, psi = model.parts(phi)
    found = {name: values[0] for name, values in model.natural(phi[None]).items()}
    A = priors.random_centering
    D = A @ found["D"] @ A.T
    L = np.linalg.cholesky(D)
    sd = np.sqrt(np.diag(D))

    def standardised(at):
        return np.linalg.solve(L, A @ posterior.settled(at[None])[1][0].T).T

    def moved(positions, of):
        origin = z.copy()
        origin[positions] = 0.0
        columns = []
        for i in positions:
            at = origin.copy()
            at[i] = 1.0
            columns.append(of(at) - of(origin))
        return np.linalg.slogdet(np.array(columns))[1]

    jacobian = moved(range(k - p, k), lambda at: posterior.settled(at[None], effects=False)[0][0, -p:])
    for j in range(J):
        jacobian += moved(range(k + j * q, k + (j + 1) * q), lambda at, j=j: standardised(at)[j])
    scale = model.data.sd_prior[:, -1]
    jacobian += np.sum(np.where(scale > 0.0, np.log(np.where(scale > 0.0, 0.5 * scale, 1.0)), np.log(sd)))
    point = {"sd_b": sd, "sd_b_centered": sd, "z": standardised(z)}
    point |= {"beta": found["beta"], "beta_centered": priors.centering @ found["beta"]}
    if q > 1:
        c = partials_of_correlation(D / np.outer(sd, sd))[1, 0]
        point["corr_b_partial"] = np.array([0.5 * (1.0 + c)])
        jacobian += np.log(1.0 - c**2)
    for name, value in zip(priors.dispersion_names, psi, strict=True):
        point[name.replace(" ", "_")] = np.exp(value)
        jacobian += value
    return point, jacobian


@pytest.mark.parametrize(
    ("name", "link"), [pytest.param(*case, marks=[] if case in FIRST else [pytest.mark.slow]) for case in GENERALISED]
)
def test_the_density_is_that_of_the_explicit_model(name, link):
    model = model_of(name, link)
    posterior, explicit = joint_posterior(model.design, model.priors), log_density_of(model.to_pymc())
    apart = []
    for seed in (2, 3, 4):
        z = inside(posterior, seed)
        point, jacobian = free_variables(posterior, z)
        apart.append(posterior.log_density(z)[0] - jacobian - explicit(point))
    np.testing.assert_allclose(apart, apart[0], atol=1e-8)


def test_other_priors_enter_the_density():
    student = hl.StudentT(3, 0.5, 1)
    chosen = hl.Priors(intercept=student, beta=student, sd_b=hl.HalfStudentT(3, 1), dispersion=Exponential(2))
    model = build("negative_binomial", "log", priors=chosen)
    posterior, explicit = joint_posterior(model.design, model.priors), log_density_of(model.to_pymc())
    rng, apart = np.random.default_rng(2), []
    for _ in range(3):
        z = 0.5 * rng.normal(size=posterior.dimension)
        point, jacobian = free_variables(posterior, z)
        apart.append(posterior.log_density(z)[0] - jacobian - explicit(point))
    np.testing.assert_allclose(apart, apart[0], atol=1e-8)
    assert "Exponential" in str(model.priors)
    assert "StudentT" in str(model.priors)


@pytest.mark.parametrize("covariance", ["identity", "compound_symmetry", "diagonal"])
def test_structures_of_D(covariance):
    model = build("poisson", "log", covariance=covariance)
    posterior = joint_posterior(model.design, model.priors)
    z = 0.4 * np.random.default_rng(1).normal(size=posterior.dimension)
    found = differences(posterior.log_density, z)
    np.testing.assert_allclose(posterior.log_density(z)[1], found, atol=2e-7 * np.abs(found).max())


def test_coordinates_are_close_to_standard_normal():
    """A subject's v hardly depends on φ: the gradient at z = 0 in v and w is near that of a normal's mode."""
    model = model_of("poisson", "log")
    posterior = joint_posterior(model.design, model.priors)
    k, p = posterior.model.n_phi, len(model.design.coef)
    rest = slice(k - p, None)
    _, gradient = posterior.log_density(np.zeros(posterior.dimension))
    assert np.abs(gradient[rest]).max() < 0.2
    step = np.zeros(posterior.dimension)
    step[0] = 1.0  # another D
    _, moved = posterior.log_density(step)
    assert np.abs(moved[rest]).max() < 0.3
