"""Residual structures against their definitions: dense matrices, differences, other parametrisations."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from differences import central
from hypothesis import given, settings
from hypothesis import strategies as st
from structures_by_definition import (
    CORRELATIONS,
    IN_NO_ORDER,
    STRUCTURED,
    VARIANCES,
    WITH_EFFECTS,
    build,
    second_definition,
)
from textbook import dense_fit

import hierlmm as hl
from hierlmm.covariance.parameters import Parameter
from hierlmm.covariance.residual import Observed
from hierlmm.errors import DataError
from hierlmm.likelihood.estimate import make_criterion
from hierlmm.likelihood.residual_rows import whiten_columns
from hierlmm.likelihood.rows import serial_pull_back, serial_whiten

# The plain model is a structured one only without random effects.


@IN_NO_ORDER
@pytest.mark.parametrize(("pair", "q"), WITH_EFFECTS)
def test_criterion_and_gradient_are_those_of_the_definition(thirty, pair, q):
    design = build(thirty, CORRELATIONS[pair[0]][0], VARIANCES[pair[1]][0], q).design
    rng = np.random.default_rng(q)
    for reml in (True, False):
        criterion = make_criterion(design, reml=reml)
        m = criterion.structure.n_parameters
        point = np.concatenate(
            [
                rng.uniform(0.3, 1.5, m),
                criterion.starts[0] + rng.normal(scale=0.4, size=len(criterion.starts[0])),
                [-0.4],
            ]
        )
        scaling = criterion.scaling
        sigma = float(np.exp(point[-1])) * scaling.y_scale
        half = scaling.factor(criterion.structure.factor(point[:m])) * sigma
        residual = second_definition(pair, design, criterion.rows.report(point[m:-1]))
        if design.residual_variance is not None and design.residual_variance.centred:  # the point has the average SD
            sigma *= np.exp(-0.5 * np.log(np.diag(residual)).mean())
        value, gradient = criterion.joint(point)
        expected, *_ = dense_fit(design, half @ half.T, sigma, reml, residual)
        assert value == pytest.approx(expected, rel=1e-11)
        np.testing.assert_allclose(gradient, central(lambda p, c=criterion: c.joint(p)[0], point), rtol=1e-6, atol=1e-6)
        # With σ profiled out: the definition is c + n log s² + rss / s² when σ is multiplied by s, smallest at rss / n.
        found, n = criterion.evaluate(point[:-1]), criterion.degrees
        double, *_ = dense_fit(design, 2.0 * half @ half.T, np.sqrt(2.0) * sigma, reml, residual)
        rss = 2.0 * (expected - double + n * np.log(2.0))
        assert found.value == pytest.approx(expected - rss + n * np.log(rss / n) + n, rel=1e-7)
        assert criterion(point[:-1]) == found.value
        np.testing.assert_allclose(found.gradient, central(criterion, point[:-1]), rtol=1e-6, atol=1e-6)


@IN_NO_ORDER
@pytest.mark.parametrize("pair", STRUCTURED, ids=" + ".join)
def test_whitened_rows_are_those_of_a_dense_factor(thirty, pair):
    fit = build(thirty, CORRELATIONS[pair[0]][0], VARIANCES[pair[1]][0], 0).fit_ml()
    sigma = second_definition(pair, fit.design, fit.residual_estimate.parameters)
    columns = np.random.default_rng(0).normal(size=(fit.n_obs, 3))
    white, log_det = whiten_columns(fit.residual_estimate, columns)
    np.testing.assert_allclose(white.T @ white, columns.T @ np.linalg.solve(sigma, columns), rtol=1e-8)
    assert log_det.sum() == pytest.approx(np.linalg.slogdet(sigma)[1], rel=1e-8, abs=1e-10)
    subject = fit.design.subjects[3]
    rows = np.flatnonzero(fit.design.subject_index == 3)
    np.testing.assert_allclose(
        fit.marginal_covariance(subject), fit.sigma**2 * sigma[np.ix_(rows, rows)], rtol=1e-9, atol=1e-12
    )
    # Any factor of V is a rotation of another one: the lengths agree by subject, and the sum is that of the criterion.
    normalized = fit.residuals("normalized").to_numpy()
    response = fit.residuals("response").to_numpy()
    for j in range(fit.n_subjects):
        rows = np.flatnonzero(fit.design.subject_index == j)
        V = fit.sigma**2 * sigma[np.ix_(rows, rows)]
        assert normalized[rows] @ normalized[rows] == pytest.approx(response[rows] @ np.linalg.solve(V, response[rows]))


@pytest.mark.parametrize("rho", [0.7, -0.7, 0.999999, -0.99, 0.0, 1e-12])
@pytest.mark.parametrize("nugget", [None, 0.0001, 0.3, 0.99])
def test_serial_whitening_in_one_pass_equals_a_cholesky_factor(rho, nugget):
    rng = np.random.default_rng(1)
    times = [np.array([4.0]), np.array([0, 1, 2, 3.0]), np.array([1, 2, 5, 6, 11.0]), np.array([3, 4.0])]
    if nugget:
        times.append(np.array([0, 0, 1, 1, 1, 3.0]))  # replicates
    start = np.cumsum([0, *map(len, times)]).astype(np.int64)
    gaps = np.concatenate([np.diff(t, prepend=t[0]) for t in times])
    spec = hl.AR1("t", nugget=nugget is not None)
    values = np.array([rho] if nugget is None else [rho, nugget])
    M = rng.normal(size=(2, start[-1]))
    adjoint = rng.normal(size=M.shape)

    def whiten(values):
        form = spec.markov(gaps, values)
        work, tape = M.copy(), np.empty((3 + len(M), M.shape[1]))
        return serial_whiten(work, start, np.full(len(gaps), form.u), form.decay, tape), work, form, tape

    log_det, work, form, tape = whiten(values)
    expected = 0.0
    for j, t in enumerate(times):
        R = spec.matrix(t, values)
        np.testing.assert_array_equal(R, R.T)
        L = np.linalg.cholesky(R)
        expected += 2 * np.log(np.diag(L)).sum()
        own = slice(start[j], start[j + 1])
        np.testing.assert_allclose(work[:, own], np.linalg.solve(L, M[:, own].T).T, rtol=1e-6, atol=1e-9)
    assert log_det == pytest.approx(expected, rel=1e-7, abs=1e-10)
    if abs(rho) > 0.99 or (rho == 0.0 and nugget):
        return
    u = np.full(len(gaps), form.u)
    u_adjoint, d_adjoint = serial_pull_back(adjoint.copy(), work, start, u, form.decay, tape)
    gradient = u_adjoint.sum() * form.du + form.d_decay @ d_adjoint

    def objective(values):
        log_det, work, _, _ = whiten(values)
        return log_det + float((adjoint * work).sum())

    step = min(1e-4, abs(rho) / 10, (nugget or 1) / 100, (1 - (nugget or 0)) / 100)
    np.testing.assert_allclose(gradient, central(objective, values, max(step, 1e-7)), rtol=1e-4, atol=1e-4)


def test_the_gradient_at_a_correlation_of_exactly_zero(thirty):
    criterion = make_criterion(build(thirty, hl.AR1("occasion"), None, 1).design, reml=True)
    point = np.array([0.7, 0.0])
    assert criterion.rows.report(point[1:])["rho"] == 0.0
    np.testing.assert_allclose(criterion.evaluate(point).gradient, central(criterion, point), rtol=1e-6, atol=1e-6)


def test_partial_correlations_of_exactly_zero(thirty):
    for spec in (hl.Unstructured("occasion"), hl.Toeplitz("occasion")):
        criterion = make_criterion(build(thirty, spec, None, 0).design, reml=True)
        point = np.zeros(len(criterion.rows.parameters))
        assert set(criterion.rows.report(point).values()) == {0.0}
        np.testing.assert_allclose(criterion.evaluate(point).gradient, central(criterion, point), rtol=1e-6, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-15, 15), min_size=10, max_size=10))
def test_every_unconstrained_vector_is_a_correlation_matrix(eta):
    labels = tuple("abcde")
    observed = Observed(5, 1.0, 0.3, labels, np.zeros((0, 0)), False)
    for spec, n in ((hl.Unstructured("t"), 10), (hl.Toeplitz("t"), 4)):
        parameters = spec.parameters(observed)
        assert len(parameters) == n
        values = np.array([p.natural(e) for p, e in zip(parameters, eta, strict=False)])
        assert np.all((values >= -1) & (values <= 1))
        R = spec.matrix(np.arange(5.0), values)
        np.testing.assert_allclose(np.diag(R), 1.0, rtol=1e-14)
        assert np.linalg.eigvalsh(R)[0] > -1e-12
        assert np.abs(R).max() <= 1 + 1e-12


@settings(max_examples=200, deadline=None)
@given(st.floats(-20, 20), st.sampled_from([(-1.0, 1.0), (0.0, 1.0), (-0.25, 1.0), (0.0, np.inf), (-np.inf, np.inf)]))
def test_parameters_there_and_back(eta, bounds):
    p = Parameter("p", 0.5, *bounds)
    value = p.natural(eta)
    assert bounds[0] <= value <= bounds[1]
    if bounds[0] < value < bounds[1] and abs(eta) < 12:
        assert p.unconstrained(value) == pytest.approx(eta, abs=1e-8)
        assert p.slope(eta) == pytest.approx(
            (p.natural(eta + 1e-5) - p.natural(eta - 1e-5)) / 2e-5, rel=1e-5, abs=1e-12
        )


@pytest.mark.parametrize(("neighbour", "correlation"), [(0.6, 0.6), (0.01, 0.05), (-0.5, 0.05), (0.98, 0.95)])
@pytest.mark.parametrize("nugget", [False, True])
def test_the_first_range_has_the_correlation_of_neighbours(neighbour, correlation, nugget):
    """Within 0.05 to 0.95, at the median distance; the prior of a range is centred there, too."""
    observed = Observed(5, 2.5, neighbour, (), np.zeros((0, 0)), False)
    for spec in (hl.Exponential("t", nugget=nugget), hl.Gaussian("t", nugget=nugget)):
        for mixed, share in ((False, 1.0), (True, 0.3)):
            first = spec.parameters(observed._replace(mixed=mixed))[0].start / share
            R = type(spec)("t").matrix(np.array([0.0, 2.5]), np.array([first]))
            assert R[0, 1] == pytest.approx(correlation, rel=1e-12)


@pytest.mark.parametrize("unit", [1.0, 1e-3, 1e6])
@pytest.mark.parametrize(("q", "share"), [(0, 0.8), (1, 0.4)])
def test_the_first_unstructured_matrix_is_that_of_the_residuals(thirty, unit, q, share):
    """Pairwise correlations of residuals of an ordinary regression, shrunk: in any unit of the response."""
    design = build(thirty.assign(y=thirty["y"] * unit), hl.Unstructured("occasion"), None, q).design
    residual = design.y - design.X @ np.linalg.lstsq(design.X, design.y)[0]
    frame = design.frame.assign(r=residual)
    table = frame.pivot_table(index="id", columns="occasion", values="r").to_numpy()
    expected = np.eye(4)
    for i in range(4):
        for j in range(i):
            product = np.nanmean(table[:, i] * table[:, j])
            expected[i, j] = share * product / np.sqrt(np.nanmean(table[:, i] ** 2) * np.nanmean(table[:, j] ** 2))
            expected[j, i] = expected[i, j]
    assert np.linalg.eigvalsh(expected)[0] > 0.02  # otherwise it is moved towards independence
    starts = np.array([p.start for p in make_criterion(design, reml=True).rows.parameters])
    np.testing.assert_allclose(hl.Unstructured("occasion").matrix(np.arange(4.0), starts), expected, atol=1e-10)


@pytest.mark.parametrize(("neighbour", "mixed", "rho"), [(0.6, False, 0.6), (0.6, True, 0.3), (-0.8, False, -0.3)])
def test_other_starts_of_an_unstructured_matrix(neighbour, mixed, rho):
    """Autoregressive, equal and weak correlations; equal ones must lie above -1/(m - 1)."""
    spec, observed = hl.Unstructured("t"), Observed(4, 1.0, neighbour, tuple("abcd"), np.zeros((0, 0)), mixed)
    distance = np.abs(np.subtract.outer(np.arange(4), np.arange(4)))
    expected = [rho**distance, np.where(distance == 0, 1.0, rho), np.where(distance == 0, 1.0, 0.1 * rho)]
    for start, R in zip(spec.other_starts(observed), expected, strict=True):
        np.testing.assert_allclose(spec.matrix(np.arange(4.0), start), R, atol=1e-12)


@pytest.mark.parametrize("m", range(2, 41))
def test_an_unstructured_matrix_of_any_size_there_and_back(m):
    spec, R = hl.Unstructured("t"), 0.6 ** np.abs(np.subtract.outer(np.arange(m), np.arange(m)))
    start = spec.other_starts(Observed(m, 1.0, 0.6, tuple(map(str, range(m))), np.zeros((0, 0)), False))[0]
    np.testing.assert_allclose(spec.matrix(np.arange(float(m)), start), R, atol=1e-12)


@pytest.mark.parametrize("together", [0, 3])
def test_a_correlation_needs_subjects_with_both_occasions(together):
    rng = np.random.default_rng(3)
    seen = [[0, 1, 2]] * together + [[0, 1], [1, 2]] * 6
    rows = pd.DataFrame([(f"s{i}", o) for i, own in enumerate(seen) for o in own], columns=["id", "o"])
    rows["y"] = rng.normal(size=len(rows))
    options = {"correlation": hl.Unstructured("o"), "subject": "id", "data": rows}
    if together == 3:
        assert len(make_criterion(hl.MarginalModel("y ~ 1", **options).design, reml=True).rows.parameters) == 3
    else:
        with pytest.raises(DataError, match="0 subjects with rows at both 0 and 2"):
            hl.MarginalModel("y ~ 1", **options)
