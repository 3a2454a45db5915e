"""Replications of the same subjects, of new subjects and row by row, against their dense normal distributions."""

from __future__ import annotations

import numpy as np
import pytest
from draws import check_moments
from structures_by_definition import CORRELATIONS, COVARIANCE, VARIANCES, build, second_definition
from textbook import marginal_covariance

from hierlmm.bayes.replications import Draw, Replicator

CASES = [
    ("independent", "equal", 2),
    ("independent", "VarIdent", 1),
    ("AR1, nugget", "VarIdent", 2),
    ("Unstructured", "VarIdent", 1),
    ("Toeplitz", "VarPower", 0),
]


@pytest.fixture(scope="module", params=CASES, ids=lambda c: f"{c[0]} + {c[1]}, q = {c[2]}")
def case(request, thirty):
    """A design, a draw of its parameters, and V and Σ of all rows by their definitions."""
    correlation, variance, q = request.param
    design = build(thirty, CORRELATIONS[correlation][0], VARIANCES[variance][0], q).design
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


def test_a_row_given_the_others_has_the_dense_conditional_distribution(case):
    replicator, draw, V, _ = case
    design = replicator.design
    mean, sd = replicator.law(draw, "mixed", np.vstack([design.y, design.y + 1.0]))
    expected, spread = left_out(design, draw.beta, V)
    np.testing.assert_allclose(mean[0], expected, rtol=1e-9)
    np.testing.assert_allclose(sd, spread, rtol=1e-9)
    one = np.flatnonzero(np.bincount(design.subject_index)[design.subject_index] == 1)
    assert len(one)  # a subject with one row has no others: its law is that of a new subject
    np.testing.assert_allclose(sd[one], np.sqrt(np.diag(V))[one])
    assert not np.allclose(mean[1], mean[0])


def test_laws_of_rows_of_the_same_and_of_new_subjects(case):
    replicator, draw, V, Sigma = case
    design = replicator.design
    mean, sd = replicator.law(draw, "new_subject", design.y[None])
    np.testing.assert_allclose(mean[0], design.X @ draw.beta)
    np.testing.assert_allclose(sd, np.sqrt(np.diag(V)))
    mean, sd = replicator.law(draw, "subject", design.y[None])
    lines = design.X @ draw.beta + np.einsum("nk,nk->n", design.Z, draw.b[design.subject_index])
    np.testing.assert_allclose(mean[0], lines)
    np.testing.assert_allclose(sd, np.sqrt(np.diag(Sigma)))


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
