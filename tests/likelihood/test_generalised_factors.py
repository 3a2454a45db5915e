"""Laplace's method with several grouping factors: its definition by dense matrices, differences, one factor alone."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from factor_designs import SHAPES, drawn, some_lambda, with_family
from scipy.optimize import minimize

import hierlmm as hl
from hierlmm.design.design import Design
from hierlmm.families.rows import rowwise
from hierlmm.likelihood.generalised_criterion import generalised_criterion
from hierlmm.likelihood.generalised_factors import FactorLaplace, factor_laplace

FAMILIES = ["bernoulli", "binomial", "poisson", "negative_binomial", "gamma", "ordinal", "bernoulli"]
CASES = [(shape, FAMILIES[k % 7], k) for k, shape in enumerate([*SHAPES, *SHAPES])]


def some_parameters(criterion: FactorLaplace, seed: int, *, inside: bool = False) -> np.ndarray:
    rng = np.random.default_rng(seed)
    lam = rng.normal(size=criterion.structure.n_parameters) if inside else some_lambda(criterion, rng)
    return np.concatenate(
        [lam, 0.3 * rng.normal(size=len(criterion.scaling.Bx)), 0.2 * rng.normal(size=criterion.n_psi)]
    )


def groups_of(criterion: FactorLaplace, design: Design) -> list[tuple[np.ndarray, int, slice]]:
    """Group of every row of the criterion, number of groups, and place in Λ of every factor."""
    ends = np.cumsum([0, *(len(term.columns.names) for term in design.random)])
    own = [slice(int(a), int(b)) for a, b in pairwise(ends)]
    order = criterion.rows.order
    return [(t.group.index[order], len(t.group.labels), k) for t, k in zip(design.random, own, strict=True)]


def by_definition(criterion: FactorLaplace, design: Design, parameters: np.ndarray) -> dict[str, Any]:
    """−2 log-likelihood, modes of Λu and their covariances by factor: a mode by scipy, polished by Newton's method."""
    lam, beta, psi = criterion.split(parameters)
    rows, Lambda, groups = criterion.rows, criterion.structure.factor(lam), groups_of(criterion, design)
    given = rows.offset + rows.X @ beta
    columns = [
        np.where((index == j)[:, None], rows.Z[:, own] @ Lambda[own, own], 0.0)
        for index, J, own in groups
        for j in range(J)
    ]
    A = np.concatenate(columns, axis=1)

    def derivatives(u: np.ndarray) -> np.ndarray:
        return rowwise(rows.family.derivatives, rows.y, rows.n, given + A @ u, psi.copy(), 2)

    def minus_h(u: np.ndarray) -> tuple[float, np.ndarray]:
        d = derivatives(u)
        return -d[:, 0].sum() + 0.5 * u @ u, -A.T @ d[:, 1] + u

    def curvature(u: np.ndarray) -> np.ndarray:
        return np.eye(len(u)) - (A * derivatives(u)[:, [2]]).T @ A

    u = minimize(minus_h, np.zeros(A.shape[1]), jac=True, method="L-BFGS-B").x
    for _ in range(20):
        u = u - np.linalg.solve(curvature(u), minus_h(u)[1])
    log_det = 2.0 * np.log(np.diag(np.linalg.cholesky(curvature(u)))).sum()
    inverse, at = np.linalg.inv(curvature(u)), 0
    modes, covariances = [], []
    for _, J, own in groups:
        L, q = Lambda[own, own], own.stop - own.start
        mine = np.arange(at, at + J * q).reshape(J, q)
        modes.append(u[mine] @ L.T)
        covariances.append(L @ inverse[mine[:, :, None], mine[:, None, :]] @ L.T)
        at += J * q
    value = 2.0 * minus_h(u)[0] + log_det - 2.0 * rows.constant.sum()
    return {"value": value, "modes": modes, "covariances": covariances, "line": given + A @ u}


@pytest.mark.parametrize(("shape", "family", "seed"), CASES)
def test_the_criterion_is_its_definition(shape, family, seed):
    design = with_family(drawn(shape, seed), family, seed)
    criterion = factor_laplace(design)
    parameters = some_parameters(criterion, seed)
    expected = by_definition(criterion, design, parameters)
    assert criterion(parameters) == pytest.approx(expected["value"], rel=1e-10, abs=1e-8)
    solution = criterion.solution(parameters)
    Bz = criterion.scaling.Bz
    for k, (_, _, own) in enumerate(groups_of(criterion, design)):
        b, covariance = solution.by_factor[k]
        size = max(1.0, float(np.abs(expected["covariances"][k]).max()))
        np.testing.assert_allclose(b @ Bz[own, own].T, expected["modes"][k], atol=1e-8 * size)
        working = Bz[own, own] @ covariance @ Bz[own, own].T
        np.testing.assert_allclose(working, expected["covariances"][k], atol=1e-10 * size)
    np.testing.assert_allclose(solution.line(design)[criterion.rows.order], expected["line"], atol=1e-8 * size)


@pytest.mark.parametrize(("shape", "family", "seed"), CASES)
def test_the_gradient_is_that_of_differences(shape, family, seed):
    criterion = factor_laplace(with_family(drawn(shape, seed), family, seed))
    at = some_parameters(criterion, seed + 1, inside=True)
    gradient = criterion.evaluate(at).gradient
    by_differences = [(criterion(at + e) - criterion(at - e)) / 2e-5 for e in 1e-5 * np.eye(len(at))]
    np.testing.assert_allclose(gradient, by_differences, rtol=1e-6, atol=1e-6 * np.abs(gradient).max())


@pytest.mark.parametrize("family", ["bernoulli", "negative_binomial"])
def test_at_the_boundary_the_gradient_is_that_in_the_covariance(family):
    """A column τv more of a Λ that is zero in one factor: the criterion changes by τ² v'Gv."""
    criterion = factor_laplace(with_family(drawn("nested beside crossed", 2), family, 2))
    structure, at = criterion.structure, some_parameters(criterion, 0, inside=True)
    block = structure.blocks[-1]
    entries = np.flatnonzero(np.isin(structure.row, block))
    at[structure.index[entries]] = 0.0
    G = criterion.evaluate(at).gradient_B
    first = structure.index[entries[structure.col[entries] == block[0]]]
    for v in np.random.default_rng(1).normal(size=(3, len(block))):
        moved, tau = at.copy(), 1e-3
        moved[first] = tau * v
        slope = (criterion(moved) - criterion(at)) / tau**2
        assert slope == pytest.approx(v @ G[np.ix_(block, block)] @ v, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("bars", ["(1 | subject)", "(time | subject)", "(time || subject)"])
def test_with_one_factor_it_is_the_two_level_criterion(dental, bars):
    rows = dental.assign(n=dental["distance"].round())
    design = hl.TwoLevelModel.from_formula(f"n ~ sex * time + {bars}", rows, family="poisson").design
    two, several = generalised_criterion(design), factor_laplace(design)
    for seed in range(3):
        at = some_parameters(several, seed)
        own, other = two.evaluate(at), several.evaluate(at)
        assert own.value == pytest.approx(other.value, rel=1e-11)
        np.testing.assert_allclose(own.gradient, other.gradient, rtol=1e-7, atol=1e-7 * np.abs(own.gradient).max())
    first, second = two.solution(at), several.solution(at)
    np.testing.assert_allclose(first.b, second.by_factor[0][0], atol=1e-7 * np.abs(first.b).max())
    np.testing.assert_allclose(first.b_cov, second.by_factor[0][1], atol=1e-9 * np.abs(first.b_cov).max())


def test_rows_without_a_density_are_no_error():
    criterion = factor_laplace(with_family(drawn("crossed", 1), "poisson", 1))
    at = some_parameters(criterion, 0, inside=True)
    value = criterion(at)
    assert criterion(np.full(len(at), 1e200)) == np.inf
    assert criterion(at) == pytest.approx(value, rel=1e-13)
