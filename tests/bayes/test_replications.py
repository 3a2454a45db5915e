"""Replications of the same subjects, of new subjects and row by row, against their dense normal distributions."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from draws import check_moments
from structures_by_definition import CORRELATIONS, COVARIANCE, IN_NO_ORDER, PAIRS, VARIANCES, build, second_definition
from textbook import marginal_covariance

from hierlmm.bayes.replications import Draw, Replicator
from hierlmm.errors import FitWarning

CASES = [
    ("independent", "equal", 2),
    ("independent", "VarIdent", 1),
    ("AR1, nugget", "VarIdent", 2),
    ("Unstructured", "VarIdent", 1),
    ("Toeplitz", "VarPower", 0),
]


def made(data, correlation, variance, q):
    """A replicator, a draw of its parameters, and V and Σ of all rows by their definitions."""
    design = build(data, CORRELATIONS[correlation][0], VARIANCES[variance][0], q).design
    replicator = Replicator(design)
    rows = replicator.residual
    eta = np.empty(0) if rows is None else np.array([p.unconstrained(p.start) for p in rows.parameters]) + 0.4
    report = {} if rows is None else rows.report(eta)
    root = np.array([[2.0, 0.0], [-0.3, 0.6]])[:q, :q]
    beta = np.array([50.0, 1.0, 2.0, 0.5])
    b = np.random.default_rng(1).normal(size=(design.n_subjects, q)) @ root.T
    residual = second_definition((correlation, variance), design, report)
    V = marginal_covariance(design, root @ root.T, 0.8, residual)
    same = design.subject_index[:, None] == design.subject_index
    assert (q == 0) == (COVARIANCE[q] is None)
    return replicator, Draw(beta, root, 0.8, eta, b), V, np.where(same, 0.64 * residual, 0.0)


@pytest.fixture(scope="module", params=CASES, ids=lambda c: f"{c[0]} + {c[1]}, q = {c[2]}")
def case(request, thirty):
    return made(thirty, *request.param)


def left_out(design, beta, V):
    """Mean and SD of every row given the others of its subject, by solving with the others' covariance."""
    r = design.y - design.X @ beta - design.offset
    mean, sd = np.empty(design.n_obs), np.empty(design.n_obs)
    for n in range(design.n_obs):
        others = np.flatnonzero((design.subject_index == design.subject_index[n]) & (np.arange(design.n_obs) != n))
        gain = np.linalg.solve(V[np.ix_(others, others)], V[others, n])
        mean[n] = design.y[n] - r[n] + gain @ r[others]
        sd[n] = np.sqrt(V[n, n] - gain @ V[others, n])
    return mean, sd


EVERY = [pytest.param(*pair, 2, id=" + ".join(pair)) for pair in PAIRS]
EVERY += [pytest.param("Unstructured", "VarIdent", 1), pytest.param("Toeplitz", "VarPower", 0)]


@IN_NO_ORDER
@pytest.mark.parametrize(("correlation", "variance", "q"), EVERY)
def test_laws_of_every_residual_structure_are_those_of_dense_matrices(thirty, correlation, variance, q):
    """Of rows given the subject's others, of new subjects and of the same; and of the noise, all rows together."""
    replicator, draw, V, Sigma = made(thirty, correlation, variance, q)
    design = replicator.design
    mean, sd = replicator.law(draw, "mixed", np.vstack([design.y, design.y + 1.0]))
    expected, spread = left_out(design, draw.beta, V)
    np.testing.assert_allclose(mean[0], expected, rtol=1e-8)
    np.testing.assert_allclose(sd, spread, rtol=1e-8)
    one = np.flatnonzero(np.bincount(design.subject_index)[design.subject_index] == 1)
    assert len(one)  # a subject with one row has no others: its law is that of a new subject
    np.testing.assert_allclose(sd[one], np.sqrt(np.diag(V))[one])
    assert not np.allclose(mean[1], mean[0])
    mean, sd = replicator.law(draw, "new_subject", design.y[None])
    np.testing.assert_allclose(mean[0], design.X @ draw.beta)
    np.testing.assert_allclose(sd, np.sqrt(np.diag(V)))
    mean, sd = replicator.law(draw, "subject", design.y[None])
    lines = design.X @ draw.beta + np.einsum("nk,nk->n", design.Z, draw.b[design.subject_index])
    np.testing.assert_allclose(mean[0], lines)
    np.testing.assert_allclose(sd, np.sqrt(np.diag(Sigma)))
    if replicator.residual is not None:
        columns = replicator.residual.colour(draw.eta, np.eye(design.n_obs))
        np.testing.assert_allclose(0.64 * columns.T @ columns, Sigma, atol=1e-10)


@pytest.mark.parametrize("level", ["subject", "new_subject", "mixed"])
def test_replications_have_the_moments_of_their_level(case, level):
    replicator, draw, V, Sigma = case
    design = replicator.design
    y = replicator.replicate(draw, level, np.random.default_rng(0), 4000)
    mean, _ = replicator.law(draw, level, design.y[None])
    conditional = np.diag(left_out(design, draw.beta, V)[1] ** 2)
    covariance = {"subject": Sigma, "new_subject": V, "mixed": conditional}[level]
    for j in (0, 5, 13):
        own = np.flatnonzero(design.subject_index == j)
        check_moments(y[:, own], mean[0, own], covariance[np.ix_(own, own)])


@pytest.fixture(scope="module")
def serial_fit(thirty):
    model = build(thirty, CORRELATIONS["AR1"][0], VARIANCES["VarIdent"][0], 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)  # short chains
        return model.fit(draws=20, tune=100, chains=2, seed=1, random_effects="draws", progressbar=False)


@pytest.mark.parametrize("level", ["subject", "new_subject", "mixed"])
def test_draws_of_a_fit_reach_the_replications_with_their_residual_parameters(serial_fit, level):
    """Serial correlation and unequal variances: the law at each draw is that of the parameters of the same draw."""
    fit = serial_fit
    replicator, design = Replicator(fit.design), fit.design
    flat = fit.evenly_kept(3)
    for k, draw in zip(flat, fit.parameter_draws(flat, b=level == "subject"), strict=True):
        own = fit.datatree["posterior"].to_dataset().isel(chain=k // 20, draw=k % 20)
        names = [str(v) for v in own["residual_variance"].coords[own["residual_variance"].dims[-1]].to_numpy()]
        report = {"rho": float(own["residual_correlation"].item())}
        report |= dict(zip(names, own["residual_variance"].to_numpy().tolist(), strict=True))
        residual = second_definition(("AR1", "VarIdent"), design, report)
        sigma = float(own["sigma"])
        V = marginal_covariance(design, np.atleast_2d(draw.root @ draw.root.T), sigma, residual)
        _, sd = replicator.law(draw, level, design.y[None])
        variance = {
            "subject": sigma**2 * np.diag(residual),
            "new_subject": np.diag(V),
            "mixed": left_out(design, draw.beta, V)[1] ** 2,
        }[level]
        np.testing.assert_allclose(sd**2, variance, rtol=1e-7)
        np.testing.assert_allclose(draw.root @ draw.root.T, np.atleast_2d(fit.draws("D")[k // 20, k % 20]), atol=1e-12)
        np.testing.assert_allclose(draw.beta, own["beta"].to_numpy())
