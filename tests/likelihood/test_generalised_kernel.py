"""The marginal likelihood of a subject: gradients by differences, quadrature, closed forms and brute force."""

import numpy as np
import pytest
from family_cases import CASES
from scipy.special import logsumexp

from hierlmm.families.names import FAMILIES
from hierlmm.families.rows import rowwise
from hierlmm.likelihood.generalised_criterion import quadrature
from hierlmm.likelihood.generalised_kernel import marginal_sums

SUBJECTS, ROWS = 6, 5
START = np.arange(0, SUBJECTS * ROWS + 1, ROWS)


def problem(name, link, q):
    """Data and parameters of a family, with q random effects."""
    rng = np.random.default_rng(q + len(name))
    N, family = SUBJECTS * ROWS, FAMILIES[name](link=link)
    X = rng.normal(size=(N, 2)) * 0.1
    Z = np.column_stack([np.ones(N), 0.3 * rng.normal(size=(N, 2))])[:, :q].copy()
    base = {"inverse": 2.0, "sqrt": 3.0, "log": -1.5 if family.name in ("bernoulli", "binomial") else 0.5}.get(
        link, 0.0
    )
    if link == "identity":
        base = {"gaussian": 0.0, "student_t": 0.0, "bernoulli": 0.5, "binomial": 0.5}.get(name, 4.0)
    size = 0.05 if link == "identity" and base == 0.5 else 0.3
    Lambda = size * (np.eye(q) + np.tril(0.4 * rng.normal(size=(q, q)), -1))
    n = np.full(N, 5.0 if name == "binomial" else 1.0)
    m = 2 if name == "ordinal" else len(family.dispersion)
    psi = 0.3 * rng.normal(size=m) + (1.0 if name == "student_t" else 0.0)
    draw_from = np.full(N, 0.2) if name == "ordinal" else family.mean(np.full(N, base))
    y = family.draw(rng, draw_from, psi, n)
    return family, y, n, X, base, Z, np.array([0.2, -0.3]), Lambda, psi


def evaluate(case, beta, Lambda, psi, points):
    family, y, n, X, base, Z, *_ = case
    q, N = Z.shape[1], len(y)
    modes, value, e, covariance = np.zeros((SUBJECTS, q)), np.zeros(SUBJECTS), np.zeros(N), np.zeros((SUBJECTS, q, q))
    nodes, weights = quadrature(points, q)
    data = (START, y, n, base + X @ beta, Z, Lambda, psi, nodes, weights)
    in_Lambda, in_psi, found = marginal_sums(family.derivatives, 0, SUBJECTS, *data, modes, value, e, covariance)
    assert found
    return value.sum(), X.T @ e, in_Lambda, in_psi


@pytest.mark.parametrize(("name", "link"), CASES)
@pytest.mark.parametrize(("q", "points"), [(1, 1), (2, 1), (2, 3), (3, 2)])
def test_gradient_is_that_of_the_value(name, link, q, points):
    case = problem(name, link, q)
    beta, Lambda, psi = case[-3:]
    _, in_beta, in_Lambda, in_psi = evaluate(case, beta, Lambda, psi, points)

    def slope(move):
        h = 1e-5
        above, below = (evaluate(case, *move(s * h), points)[0] for s in (1, -1))
        return (above - below) / (2 * h)

    for k in range(2):
        unit = np.eye(2)[k]
        assert in_beta[k] == pytest.approx(slope(lambda h, u=unit: (beta + h * u, Lambda, psi)), rel=1e-6, abs=1e-6)
    for i in range(q):
        for k in range(q):
            unit = np.zeros((q, q))
            unit[i, k] = 1.0
            expected = slope(lambda h, u=unit: (beta, Lambda + h * u, psi))
            assert in_Lambda[i, k] == pytest.approx(expected, rel=1e-6, abs=1e-6)
    for k in range(len(psi)):
        unit = np.eye(len(psi))[k]
        assert in_psi[k] == pytest.approx(slope(lambda h, u=unit: (beta, Lambda, psi + h * u)), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(("name", "link"), [c for c in CASES if c[0] != "gaussian"])
def test_many_points_are_the_integral(name, link):
    case = problem(name, link, 1)
    family, y, n, X, base, Z, beta, Lambda, psi = case
    found = evaluate(case, beta, Lambda, psi, 51)[0]
    u = np.linspace(-9.0, 9.0, 4001)  # the trapezoidal rule is exact to rounding for what decays like this
    total = 0.0
    for j in range(SUBJECTS):
        rows = slice(START[j], START[j + 1])
        eta = (base + X[rows] @ beta)[:, None] + (Z[rows] @ Lambda) * u
        size = eta.shape
        d = rowwise(
            family.derivatives, *(np.broadcast_to(v[rows, None], size).ravel() for v in (y, n)), eta.ravel(), psi, 2
        )
        h = np.nan_to_num(d[:, 0].reshape(size).sum(axis=0), nan=-np.inf) - 0.5 * u**2 - 0.5 * np.log(2 * np.pi)
        total += logsumexp(h) + np.log(u[1] - u[0])
    assert found == pytest.approx(total, abs=1e-7)


@pytest.mark.parametrize("points", [1, 5])
def test_a_normal_response_is_integrated_exactly(points):
    case = problem("gaussian", "identity", 2)
    _, y, _, X, base, Z, beta, Lambda, psi = case
    expected = 0.0
    for j in range(SUBJECTS):
        rows = slice(START[j], START[j + 1])
        V = Z[rows] @ Lambda @ Lambda.T @ Z[rows].T + np.exp(2 * psi[0]) * np.eye(ROWS)
        r = y[rows] - base - X[rows] @ beta
        expected -= 0.5 * (np.linalg.slogdet(2 * np.pi * V)[1] + r @ np.linalg.solve(V, r))
    assert evaluate(case, beta, Lambda, psi, points)[0] == pytest.approx(expected, abs=1e-9)
