"""Residual structures against their definitions: dense matrices, differences, other parametrisations, bad input."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from differences import central
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import chi2
from structures_by_definition import (
    CORRELATIONS,
    IN_NO_ORDER,
    STRUCTURED,
    VARIANCES,
    WITH_EFFECTS,
    Damped,
    VarConstPower,
    build,
    second_definition,
)
from textbook import dense_fit

import hierlmm as hl
from hierlmm.covariance.parameters import Parameter
from hierlmm.covariance.residual import Observed
from hierlmm.errors import DataError, FitWarning, HierlmmError, SpecificationError
from hierlmm.fits.covariance_table import covariance_parameters
from hierlmm.likelihood.estimate import make_criterion
from hierlmm.likelihood.maximise import maximise
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
        N = M.shape[1]
        tape = (np.empty(N), np.empty(N), np.empty(N), np.empty_like(M))
        work = M.copy()
        return serial_whiten(work, start, float(form.u), form.decay, *tape), work, form, tape

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
    d_adjoint = np.empty(M.shape[1])
    u_adjoint = serial_pull_back(adjoint.copy(), work, start, float(form.u), form.decay, *tape, d_adjoint)
    gradient = u_adjoint * form.du + form.d_decay @ d_adjoint

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


@pytest.mark.parametrize("together", [2, 3])
def test_a_correlation_needs_three_subjects_with_both_occasions(together):
    rng = np.random.default_rng(3)
    seen = [[0, 1, 2]] * together + [[0, 1], [1, 2]] * 6
    rows = pd.DataFrame([(f"s{i}", o) for i, own in enumerate(seen) for o in own], columns=["id", "o"])
    rows["y"] = rng.normal(size=len(rows))
    options = {"correlation": hl.Unstructured("o"), "subject": "id", "data": rows}
    if together == 3:
        assert len(make_criterion(hl.MarginalModel("y ~ 1", **options).design, reml=True).rows.parameters) == 3
    else:
        with pytest.raises(DataError, match="2 subjects with rows at both 0 and 2"):
            hl.MarginalModel("y ~ 1", **options)


# One model in several forms.


def same(first, second, *, rel=1e-7):
    assert first.loglik == pytest.approx(second.loglik, rel=1e-10)
    np.testing.assert_allclose(first.beta, second.beta, rtol=rel, atol=1e-9)
    np.testing.assert_allclose(first.beta_se, second.beta_se, rtol=rel)
    assert first.sigma == pytest.approx(second.sigma, rel=rel)
    assert first.converged and second.converged


@pytest.mark.parametrize("q", [0, 1])
def test_continuous_time_autoregression_is_exponential(thirty, q):
    for nugget in (False, True) if q == 0 else (False,):
        exponential = build(thirty, hl.Exponential("t", nugget=nugget), None, q).fit_reml()
        car = build(thirty, hl.CAR1("t", nugget=nugget), None, q).fit_reml()
        same(exponential, car, rel=1e-5)
        a, b = exponential.residual_estimate.parameters, car.residual_estimate.parameters
        assert b["phi"] == pytest.approx(np.exp(-1 / a["range"]), rel=1e-5, abs=1e-12)


def test_autoregression_on_whole_times_is_exponential():
    dental = hl.load_dataset("dental")
    dental["occasion"] = (dental["age"] - 6) // 2
    ar, car, exponential, order = (
        hl.MarginalModel("distance ~ sex * time", correlation=c, subject="subject", data=dental).fit_reml()
        for c in (hl.AR1("occasion"), hl.CAR1("occasion"), hl.Exponential("age"), hl.AR1())
    )
    for other in (car, exponential, order):
        same(ar, other, rel=1e-6)
    rho = ar.residual_estimate.parameters["rho"]
    assert car.residual_estimate.parameters["phi"] == pytest.approx(rho, rel=1e-6)
    assert exponential.residual_estimate.parameters["range"] == pytest.approx(-2 / np.log(rho), rel=1e-6)
    assert order.residual_estimate.parameters["rho"] == pytest.approx(rho, rel=1e-6)


@pytest.mark.parametrize("method", ["fit_reml", "fit_ml"])
def test_positive_compound_symmetry_is_a_random_intercept(thirty, method):
    marginal = getattr(build(thirty, hl.CompoundSymmetry(), None, 0), method)()
    mixed = getattr(build(thirty, None, None, 1), method)()
    assert marginal.loglik == pytest.approx(mixed.loglik, rel=1e-11)
    np.testing.assert_allclose(marginal.beta_cov, mixed.beta_cov, rtol=1e-5)
    total = mixed.sigma**2 + mixed.D.iloc[0, 0]
    assert marginal.sigma**2 == pytest.approx(total, rel=1e-6)
    assert marginal.residual_estimate.parameters["rho"] == pytest.approx(mixed.icc, rel=1e-6)


def test_structures_that_coincide_with_two_rows_each():
    data = hl.load_dataset("dental").query("age <= 10")
    fits = [
        hl.MarginalModel("distance ~ sex", correlation=c, subject="subject", data=data).fit_reml()
        for c in (hl.Toeplitz(), hl.CompoundSymmetry(), hl.Unstructured("age"), hl.AR1(), hl.CAR1("age"))
    ]
    for other in fits[1:]:
        same(fits[0], other, rel=1e-6)
    found = [next(iter(f.residual_estimate.parameters.values())) for f in fits[:4]]
    np.testing.assert_allclose(found, found[0], rtol=1e-6)


def test_a_toeplitz_matrix_of_autoregressive_data_nests_autoregression(thirty):
    toeplitz = build(thirty, hl.Toeplitz("occasion"), None, 0).fit_ml()
    ar = build(thirty, hl.AR1("occasion"), None, 0).fit_ml()
    unstructured = build(thirty, hl.Unstructured("occasion"), None, 0).fit_ml()
    assert ar.loglik <= toeplitz.loglik <= unstructured.loglik
    assert (toeplitz.n_parameters, ar.n_parameters) == (4 + 3 + 1, 4 + 1 + 1)


def test_unstructured_covariance_of_complete_data_has_the_closed_form():
    """ML with a saturated mean: Σ̂ is the covariance of the occasions around their means, divided by J."""
    dental = hl.load_dataset("dental")
    fit = hl.MarginalModel(
        "distance ~ C(age)", correlation=hl.Unstructured("age"), variance=hl.VarIdent("age"), subject="subject",
        data=dental,
    ).fit_ml()  # fmt: skip
    wide = dental.pivot_table(index="subject", columns="age", values="distance")
    np.testing.assert_allclose(fit.marginal_covariance(), np.cov(wide.T, bias=True), rtol=1e-6)
    J, m = wide.shape
    closed = -0.5 * J * (m * np.log(2 * np.pi) + np.linalg.slogdet(np.cov(wide.T, bias=True))[1] + m)
    assert fit.loglik == pytest.approx(closed, rel=1e-11)


def test_separate_variances_of_separate_groups_have_the_closed_form():
    """Independent rows, a mean and a variance for each group: the estimates are those of each group alone."""
    dental = hl.load_dataset("dental")
    fit = hl.MarginalModel("distance ~ sex", variance=hl.VarIdent("sex"), subject="subject", data=dental).fit_reml()
    sd = dental.groupby("sex", observed=True)["distance"].std()
    assert fit.sigma == pytest.approx(sd.iloc[0], rel=1e-7)
    assert fit.residual_estimate.parameters["ratio(Male/Female)"] == pytest.approx(sd.iloc[1] / sd.iloc[0], rel=1e-7)


# What must not matter.


@pytest.mark.parametrize(
    ("correlation", "variance"),
    [
        (hl.Exponential("t"), hl.VarIdent("group")),
        (hl.AR1("occasion", nugget=True), None),
        (hl.Unstructured("occasion"), None),
        (hl.Toeplitz("occasion"), hl.VarExp("size")),
    ],
    ids=str,
)
def test_order_of_rows_and_names_of_subjects_do_not_matter(thirty, correlation, variance):
    base = build(thirty, correlation, variance, 0).fit_reml()
    shuffled = thirty.sample(frac=1.0, random_state=11).assign(id=lambda d: "z" + d["id"].str[:0:-1])
    other = build(shuffled, correlation, variance, 0).fit_reml()
    same(base, other)
    a, b = base.residual_estimate.parameters, other.residual_estimate.parameters
    assert list(a) == list(b)
    np.testing.assert_allclose(list(a.values()), list(b.values()), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(base.fitted("population").sort_index(), other.fitted("population").sort_index())
    np.testing.assert_allclose(
        base.residuals("normalized").sort_index(), other.residuals("normalized").sort_index(), atol=1e-6
    )


@pytest.mark.parametrize("unit", [1e-6, 12.0, 86400e6])
@pytest.mark.parametrize("q", [0, 1])
def test_unit_and_origin_of_time_do_not_matter(thirty, unit, q):
    """Times in microseconds, or in centuries; calendar times rather than time since the start."""
    moved = thirty.assign(t2=unit * (thirty["t"] + 1e3))
    for structure in (hl.Exponential, hl.Gaussian):
        base = build(thirty, structure("t"), None, q).fit_reml()
        other = build(moved, structure("t2"), None, q).fit_reml()
        assert other.loglik == pytest.approx(base.loglik, rel=1e-9)
        assert other.converged
        expected = unit * base.residual_estimate.parameters["range"]
        assert other.residual_estimate.parameters["range"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("q", [0, 1])
def test_unit_and_origin_of_the_response_do_not_matter(thirty, q):
    moved = thirty.assign(y=1e4 + 1e-3 * thirty["y"])
    for correlation, variance in ((hl.AR1("occasion"), None), (None, hl.VarPower("size"))):
        base = build(thirty, correlation, variance, q).fit_reml()
        other = build(moved, correlation, variance, q).fit_reml()
        degrees = base.n_obs - len(base.beta)
        assert other.loglik == pytest.approx(base.loglik - degrees * np.log(1e-3), rel=1e-9)
        assert other.sigma == pytest.approx(1e-3 * base.sigma, rel=1e-5)
        a, b = base.residual_estimate.parameters, other.residual_estimate.parameters
        np.testing.assert_allclose(list(a.values()), list(b.values()), rtol=1e-4, atol=1e-7)


def test_reference_group_does_not_matter(thirty):
    base = build(thirty, None, hl.VarIdent("group"), 1).fit_reml()
    turned = thirty.assign(group=pd.Categorical(thirty["group"], ["c", "b", "a"]))
    other = build(turned, None, hl.VarIdent("group"), 1).fit_reml()
    assert other.loglik == pytest.approx(base.loglik, rel=1e-11)
    a, b = base.residual_estimate.parameters, other.residual_estimate.parameters
    assert other.sigma == pytest.approx(base.sigma * a["ratio(c/a)"], rel=1e-5)
    assert b["ratio(a/c)"] == pytest.approx(1 / a["ratio(c/a)"], rel=1e-5)
    assert b["ratio(b/c)"] == pytest.approx(a["ratio(b/a)"] / a["ratio(c/a)"], rel=1e-5)


def test_a_starting_value_does_not_matter(thirty):
    base = build(thirty, hl.AR1("occasion"), None, 0).fit_reml()
    for start in (-0.9, 0.0, 0.95):
        same(base, build(thirty, hl.AR1("occasion", start=start), None, 0).fit_reml(), rel=1e-6)


# A structure of the user's own.


@pytest.mark.parametrize("q", [0, 1])
def test_a_structure_of_the_users_own(thirty, q):
    """Damped exponential: with the power held at one it would be CAR1, so it can only be better."""
    fit = build(thirty, Damped("t"), None, q).fit_reml()
    car = build(thirty, hl.CAR1("t"), None, q).fit_reml()
    assert fit.converged
    assert fit.loglik >= car.loglik - 1e-8
    assert list(fit.residual_estimate.parameters) == ["rho", "power"]
    table = fit.variance_components()
    assert {"rho", "power"} <= set(table.index)
    assert "rho" in repr(fit)
    assert np.isfinite(fit.predict(thirty.head(3), level="population")["estimate"]).all()


def test_a_users_structure_that_repeats_a_built_in_one(thirty):
    @dataclass(frozen=True)
    class Mine(hl.ResidualCorrelation):
        time: str

        def parameters(self, observed):
            return (Parameter("range", observed.step, 0.0),)

        def matrix(self, t, values):
            return np.exp(-np.abs(t[..., :, None] - t[..., None, :]) / values[0])

    same(build(thirty, Mine("t"), None, 1).fit_reml(), build(thirty, hl.Exponential("t"), None, 1).fit_reml(), rel=1e-4)


def test_a_variance_function_of_the_users_own(thirty):
    fit = build(thirty, None, VarConstPower("size"), 1).fit_ml()
    assert fit.converged
    assert fit.residual_estimate.parameters["const"] >= 0.0


# Profile intervals.


def held_elsewhere(fit, label, value, rng):
    """How much the criterion rises with one table entry held at a value: the best of several searches over the rest."""
    criterion, table = fit.criterion_function, covariance_parameters(fit)
    centre, k = fit.large_sample.centre, table.labels.index(label)
    found = []
    for size in (0.0, 0.4):
        with np.errstate(all="ignore"):
            x = minimize(
                lambda x: criterion.joint(x)[0],
                centre + size * rng.normal(size=len(centre)),
                jac=lambda x: criterion.joint(x)[1],
                method="SLSQP",
                constraints=[{"type": "eq", "fun": lambda x: table.values(x)[k] / value - 1.0}],
                options={"maxiter": 300, "ftol": 1e-10},
            ).x
            if abs(table.values(x)[k] / value - 1.0) < 1e-5:
                found.append(criterion.joint(x)[0])
    return min(found) - criterion.joint(centre)[0]


@pytest.mark.parametrize(
    ("correlation", "variance", "q"),
    [
        (hl.AR1("occasion"), None, 0),
        (hl.CompoundSymmetry(), hl.VarExp("size"), 0),
        (hl.Exponential("t"), hl.VarIdent("group"), 0),
        (hl.Exponential("t"), None, 1),
    ],
    ids=str,
)
def test_profile_limits_are_where_the_profile_crosses(thirty, correlation, variance, q):
    """For each parameter: held at its limit and optimised over everything else, the criterion has risen by χ²."""
    fit = build(thirty, correlation, variance, q).fit_reml()
    table, rng = fit.variance_components(method="profile"), np.random.default_rng(0)
    inside = fit.variance_components(ci=0.5, method="profile")
    drop, checked = chi2.ppf(0.95, 1), 0
    for label, row in table.iterrows():
        for limit in (row["lower"], row["upper"]):
            if np.isfinite(limit) and abs(limit) > 1e-6 and not (label == "corr" and abs(limit) > 1 - 1e-6):
                assert held_elsewhere(fit, label, limit, rng) == pytest.approx(drop, abs=0.02), label
                checked += 1
        assert (
            row["lower"] <= inside.loc[label, "lower"] <= row["estimate"] <= inside.loc[label, "upper"] <= row["upper"]
        )
    assert checked >= len(table)


@pytest.mark.parametrize("seed", range(6))
def test_intervals_never_leave_the_natural_range(seed):
    """Small data sets of any kind of correlation; estimates at ends of ranges among them."""
    rng = np.random.default_rng(seed)
    J, m = int(rng.integers(5, 15)), 4
    S = np.linalg.cholesky(np.cov(rng.normal(size=(m, 9))) + 0.05 * np.eye(m))
    frame = pd.DataFrame(
        [(f"s{i}", o, o + rng.uniform(-0.3, 0.3), v) for i in range(J) for o, v in enumerate(S @ rng.normal(size=m))],
        columns=["id", "occasion", "t", "y"],
    )
    frame["size"], frame["group"] = rng.uniform(0.5, 3, len(frame)), rng.choice(list("ab"), len(frame))
    for correlation in (hl.AR1(nugget=True), hl.CAR1("t"), hl.Gaussian("t", nugget=True), hl.CompoundSymmetry()):
        for q in (0, 1):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FitWarning)
                fit = build(frame, correlation, hl.VarIdent("group"), q, "y ~ t").fit_reml()
            lowest = -1 / 3 if isinstance(correlation, hl.CompoundSymmetry) else -1.0
            range_of = {"rho": (lowest, 1), "phi": (0, 1), "nugget": (0, 1)}
            quick = seed < 2 and q == 0 and len(fit.optimum.lam) < 3
            for method in ("wald", "profile") if quick else ("wald",):
                table = fit.variance_components(method=method)
                for label, row in table.iterrows():
                    low, high = range_of.get(label, (0.0, np.inf))
                    values = row[["lower", "estimate", "upper"]].dropna()
                    assert ((values >= low) & (values <= high)).all(), (label, row)
                    if len(values) == 3:
                        assert values.is_monotonic_increasing, (label, row)


# What must be said.


def test_a_correlation_at_the_end_of_its_range_is_said():
    rng = np.random.default_rng(2)
    data = pd.DataFrame(
        {"id": np.repeat(np.arange(40), 4), "t": np.tile(np.arange(4.0), 40), "y": rng.normal(size=160)}
    )
    data["y"] -= data.groupby("id")["y"].transform("mean")  # no correlation that a decay could have
    fit = hl.MarginalModel("y ~ t", correlation=hl.Exponential("t"), subject="id", data=data).fit_reml()
    assert fit.converged
    assert any("range is at the end of its range, 0" in w for w in fit.warnings)
    assert np.isnan(fit.variance_components().loc["range", "se"])
    assert fit.variance_components(method="profile").loc["range", "lower"] == 0.0


@pytest.mark.parametrize("correlation", [hl.CompoundSymmetry(), hl.Unstructured("age")])
def test_what_is_not_identified_is_said(correlation):
    dental = hl.load_dataset("dental")
    model = hl.TwoLevelModel.from_formula("distance ~ time + (1 | subject)", dental, residual=correlation)
    fit = model.fit_reml()
    assert any("not identified together" in w and "random effects" in w for w in fit.warnings)
    marginal = hl.MarginalModel("distance ~ time", correlation=correlation, subject="subject", data=dental).fit_reml()
    assert marginal.warnings == ()
    assert fit.loglik == pytest.approx(marginal.loglik, rel=1e-9)  # one curve of estimates, one likelihood
    np.testing.assert_allclose(fit.beta, marginal.beta, rtol=1e-5)
    np.testing.assert_allclose(fit.beta_se, marginal.beta_se, rtol=1e-4)


def test_a_correlation_at_a_distance_that_was_never_seen_is_said():
    dental = hl.load_dataset("dental")
    fit = hl.MarginalModel("distance ~ time", correlation=hl.AR1("age"), subject="subject", data=dental).fit_reml()
    assert len(fit.warnings) == 1 and "multiples of 2" in fit.warnings[0]
    data = dental.assign(age=dental["age"] // 2)
    assert (
        not hl.MarginalModel("distance ~ time", correlation=hl.AR1("age"), subject="subject", data=data)
        .fit_ml()
        .warnings
    )


def test_a_reference_group_without_residual_variance_is_said():
    """The first row of each subject is its intercept, without error."""
    rng = np.random.default_rng(3)
    data = pd.DataFrame({"id": np.repeat(np.arange(30), 4), "occasion": np.tile(np.arange(4), 30)})
    data["y"] = np.repeat(rng.normal(size=30), 4) + (data["occasion"] > 0) * rng.normal(size=120)
    model = hl.TwoLevelModel.from_formula("y ~ 1 + (1 | id)", data, residual_variance=hl.VarIdent("occasion"))
    fit = model.fit_reml()
    assert any("sigma, the residual SD of occasion=0, is at the end of its range, 0" in w for w in fit.warnings)


# Extremes.


def test_a_range_much_longer_than_the_study():
    """Brownian motion: only σ² / range is determined, and the likelihood rises to its limit as the range grows."""
    rng = np.random.default_rng(0)
    walk = np.cumsum(rng.normal(size=(30, 6)), axis=1) + 50 * rng.normal(size=(30, 1))
    data = pd.DataFrame({"id": np.repeat(np.arange(30), 6), "t": np.tile(np.arange(6.0), 30), "y": walk.ravel()})
    fit = hl.MarginalModel("y ~ 1", correlation=hl.Exponential("t"), subject="id", data=data).fit_reml()
    ar = hl.MarginalModel("y ~ 1", correlation=hl.AR1(), subject="id", data=data).fit_reml()
    assert fit.converged
    assert fit.loglik == pytest.approx(ar.loglik, rel=1e-9)
    assert ar.residual_estimate.parameters["rho"] > 0.995
    step = 2 * fit.sigma**2 / fit.residual_estimate.parameters["range"]
    assert step == pytest.approx(np.var(np.diff(walk, axis=1)), rel=0.05)


def test_one_long_subject_among_many_short():
    rng = np.random.default_rng(1)
    frames = []
    for i, n in enumerate([500] + [3] * 40):
        e = np.empty(n)
        e[0] = rng.normal()
        for t in range(1, n):
            e[t] = 0.6 * e[t - 1] + 0.8 * rng.normal()
        frames.append(pd.DataFrame({"id": i, "t": np.arange(n, dtype=float), "y": e}))
    data = pd.concat(frames, ignore_index=True)
    serial = hl.MarginalModel("y ~ 1", correlation=hl.AR1("t"), subject="id", data=data).fit_reml()
    dense = hl.MarginalModel("y ~ 1", correlation=Damped("t"), subject="id", data=data)
    criterion = make_criterion(dense.design, reml=True)
    rho = serial.residual_estimate.parameters["rho"]
    assert abs(rho - 0.6) < 4 * serial.variance_components().loc["rho", "se"]
    assert criterion(np.array([np.log(rho / (1 - rho)), 0.0])) == pytest.approx(serial.criterion, rel=1e-10)
    with pytest.raises(DataError, match="more than 60"):
        hl.MarginalModel("y ~ 1", correlation=hl.Toeplitz("t"), subject="id", data=data)


def test_three_subjects_with_two_rows():
    data = hl.load_dataset("dental").query("subject <= 3 and age <= 10")
    fit = hl.MarginalModel("distance ~ time", correlation=hl.AR1(), subject="subject", data=data).fit_reml()
    assert fit.converged and -1 < fit.residual_estimate.parameters["rho"] < 1


# Bad input.

T = np.tile(np.arange(4.0), 27)
GOOD_TIMES = {
    "negative": T - 100,
    "seconds since 1970": 1.7e9 + 86400 * T,
    "nanoseconds since 1970": 1.7e18 + 86400e9 * T,
    "8-bit": T.astype("int8"),
    "Decimal": [Decimal(str(t)) for t in T],
    "objects": T.astype(object),
    "nullable": pd.array(T.astype(int), dtype="Int64"),
    "tiny": 1e-9 * T,
}


@pytest.mark.parametrize("times", GOOD_TIMES)
def test_any_numbers_are_times(times):
    dental = hl.load_dataset("dental")
    fit = hl.MarginalModel(
        "distance ~ sex * time", correlation=hl.Exponential("t"), subject="subject",
        data=dental.assign(t=GOOD_TIMES[times]),
    ).fit_reml()  # fmt: skip
    assert fit.loglik == pytest.approx(-222.293724287844, rel=1e-10)
    assert fit.converged and not fit.warnings


def test_polars_and_categories_without_rows():
    polars = pytest.importorskip("polars")
    dental = hl.load_dataset("dental")
    dental["sex"] = pd.Categorical(dental["sex"].astype(str), ["Female", "Other", "Male"])
    options = {"correlation": hl.Unstructured("age"), "variance": hl.VarIdent("sex"), "subject": "subject"}
    ours = hl.MarginalModel("distance ~ time", data=dental, **options).fit_ml()
    theirs = hl.MarginalModel("distance ~ time", data=polars.from_pandas(dental), **options).fit_ml()
    assert list(ours.residual_estimate.variance_parameters) == ["ratio(Male/Female)"]
    same(ours, theirs)


def dental_with(**columns):
    return hl.load_dataset("dental").assign(**columns)


DATES = pd.Timestamp("2020-01-01") + pd.to_timedelta(T, "D")
DUPLICATED = np.where(np.arange(108) == 1, 0.0, T)
BAD = {
    "text": (lambda: hl.Exponential("t"), None, {"t": T.astype(str)}, "type"),
    "dates": (lambda: hl.CAR1("t"), None, {"t": DATES}, "a distance in time needs a unit"),
    "python dates": (lambda: hl.CAR1("t"), None, {"t": pd.Series(DATES).dt.date.to_numpy()}, "needs a unit"),
    "durations": (lambda: hl.Gaussian("t"), None, {"t": pd.to_timedelta(T, "D")}, "total_seconds"),
    "truth values": (lambda: hl.AR1("t"), None, {"t": T > 1}, "positions of a serial structure are numbers"),
    "categories": (lambda: hl.AR1("t"), None, {"t": pd.Categorical(T)}, "astype"),
    "complex": (lambda: hl.Exponential("t"), None, {"t": T + 1j}, "numbers"),
    "infinite": (lambda: hl.Exponential("t"), None, {"t": np.where(T == 3, np.inf, T)}, "27 times in 't'"),
    "fractions": (lambda: hl.AR1("t"), None, {"t": T / 2}, "0.5.*whole numbers"),
    "duplicated": (lambda: hl.Exponential("t"), None, {"t": DUPLICATED}, r"t 0.0 \(rows 0, 1; 1 such"),
    "duplicated, order": (lambda: hl.AR1("t"), None, {"t": DUPLICATED}, "nugget=True"),
    "duplicated, lags": (lambda: hl.Toeplitz("t"), None, {"t": DUPLICATED}, "average the replicates"),
    "duplicated, occasions": (lambda: hl.Unstructured("t"), None, {"t": DUPLICATED}, "average the replicates"),
    "duplicated to rounding": (lambda: hl.CAR1("t"), None, {"t": np.where(T == 1, 1e-13, T)}, "27 such pairs"),
    "constant": (lambda: hl.Exponential("t"), None, {"t": 1.0}, "81 such pairs"),
    "missing": (lambda: hl.Exponential("t"), None, {"t": np.where(T == 2, np.nan, T)}, r"missing values in t \(27\)"),
    "occasions that do not line up": (
        lambda: hl.Unstructured("t"), None, {"t": T + np.linspace(0, 0.3, 108)}, "do not line up"),
    "occasions seen together too rarely": (
        lambda: hl.Unstructured("t"), None, {"t": np.where((T == 3) & (np.arange(108) > 8), 2.5, T)}, "0 subjects"),
    "occasions of two kinds": (lambda: hl.Unstructured("t"), None, {"t": [1, "a", 2, 3] * 27}, "of type int, str"),
    "lags never seen": (lambda: hl.Toeplitz("age"), None, {}, "lag 1 of 'age'"),
    "lags without end": (lambda: hl.Toeplitz("t"), None, {"t": (1e9 * T).astype(int)}, "lags up to 3000000000"),
    "one unit is no distance": (lambda: hl.CAR1("t"), None, {"t": 86400e6 * T}, "here 1 to many digits"),
    "one unit is far": (lambda: hl.CAR1("t"), None, {"t": 1e-6 * T}, "here 0 to many digits"),
    "unknown column": (lambda: hl.AR1("tiem"), None, {}, "Did you mean 'time'"),
    "unknown variance column": (lambda: None, lambda: hl.VarIdent("sx"), {}, "Did you mean 'sex'"),
    "the response as time": (lambda: hl.Exponential("distance"), None, {}, "response"),
    "the response in the variance": (lambda: None, lambda: hl.VarPower("distance"), {}, "depend on the response"),
    "the subject as time": (lambda: hl.Exponential("subject"), None, {}, "81 such pairs"),
    "a class": (lambda: hl.AR1, None, {}, r"write AR1\(...\)"),
    "text for a structure": (lambda: "ar1", None, {}, "no residual correlation"),
    "a variance as correlation": (lambda: hl.VarIdent("sex"), None, {}, "no residual correlation"),
    "a correlation as variance": (lambda: None, lambda: hl.AR1(), {}, "no residual variance"),
    "rho of 1": (lambda: hl.AR1(start=1), None, {}, "bounds excluded"),
    "rho not a number": (lambda: hl.AR1(start=float("nan")), None, {}, "bounds excluded"),
    "rho as text": (lambda: hl.AR1(start="0.3"), None, {}, "bounds excluded"),
    "rho as truth value": (lambda: hl.AR1(start=True), None, {}, "bounds excluded"),
    "a range of 0": (lambda: hl.Exponential("t", start=0), None, {}, "between 0 and ∞"),
    "phi above 1": (lambda: hl.CAR1("t", start=1.2), None, {}, "between 0 and 1"),
    "rho below the bound of four rows": (lambda: hl.CompoundSymmetry(start=-0.5), None, {}, "between -0.3333 and 1"),
    "a share for nugget": (lambda: hl.AR1(nugget=0.2), None, {}, "write nugget=True"),
    "a number for the column": (lambda: hl.AR1(0.5), None, {}, "name of the column"),
    "a number of lags": (lambda: hl.Toeplitz(3), None, {}, "name of the column"),
    "no column": (lambda: hl.Exponential(), None, {}, r"Exponential\(\)"),
    "no group": (lambda: None, lambda: hl.VarIdent(), {}, r"VarIdent\(\)"),
    "two groups' columns": (lambda: None, lambda: hl.VarIdent(["sex", "age"]), {}, "name of a column"),
    "a group with one row": (lambda: None, lambda: hl.VarIdent("g"), {"g": ["x"] + ["y"] * 107}, "one row with 'x'"),
    "one group": (lambda: None, lambda: hl.VarIdent("g"), {"g": "x"}, "two groups or more"),
    "a group for every row": (lambda: None, lambda: hl.VarIdent("g"), {"g": np.arange(108.0)}, "108 groups"),
    "groups of two kinds": (lambda: None, lambda: hl.VarIdent("g"), {"g": [1, "a"] * 54}, "labels of type int, str"),
    "a power of zero": (lambda: None, lambda: hl.VarPower("time"), {}, "a zero in row 0"),
    "a power of text": (lambda: None, lambda: hl.VarPower("sex"), {}, "use VarIdent"),
    "a power of a constant": (lambda: None, lambda: hl.VarPower("g"), {"g": 2.0}, "2 in every row"),
    "a power of ±1": (lambda: None, lambda: hl.VarPower("g"), {"g": np.where(T > 1, 1.0, -1.0)}, "on average"),
    "a power of infinity": (lambda: None, lambda: hl.VarPower("g"), {"g": np.where(T > 2, np.inf, 1.0)}, "not finite"),
    "an exponential far from zero": (lambda: None, lambda: hl.VarExp("g"), {"g": 1e12 + T}, r"data\['g'\].mean\(\)"),
    "an exponential of dates": (lambda: None, lambda: hl.VarExp("g"), {"g": DATES}, "function of a number"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("kind", ["marginal", "hierarchical"])
def test_bad_input_is_refused_when_the_model_is_made(case, kind):
    correlation, variance, columns, match = BAD[case]
    with pytest.raises(HierlmmError, match="(?s)" + match) as caught:
        data = dental_with(**columns)
        spec = correlation(), variance() if variance else None
        if kind == "marginal":
            hl.MarginalModel("distance ~ sex", correlation=spec[0], variance=spec[1], subject="subject", data=data)
        else:
            hl.TwoLevelModel.from_formula(
                "distance ~ sex + (1 | subject)", data, residual=spec[0], residual_variance=spec[1]
            )
    error = caught.value
    assert all(isinstance(part, str) and part for part in (error.received, error.reason, error.remedy, error.see))


def test_rows_without_a_time_can_be_dropped():
    data = dental_with(t=np.where(np.arange(108) == 5, np.nan, T))
    with pytest.warns(FitWarning, match="1 of 108 rows were dropped"):
        model = hl.MarginalModel(
            "distance ~ time", correlation=hl.Exponential("t"), subject="subject", data=data, missing="drop"
        )
    complete = hl.MarginalModel(
        "distance ~ time", correlation=hl.Exponential("t"), subject="subject", data=data.drop(index=data.index[5])
    )
    same(model.fit_reml(), complete.fit_reml())


def test_one_row_for_each_subject():
    data = dental_with().query("age == 8")
    with pytest.raises(DataError, match="no two rows are correlated"):
        hl.MarginalModel("distance ~ sex", correlation=hl.AR1(), subject="subject", data=data)


def test_more_parameters_than_rows():
    data = dental_with().query("subject in (1, 2, 12, 13)")
    with pytest.raises(DataError, match="for every pair of occasions"):
        hl.MarginalModel("distance ~ sex", correlation=hl.Unstructured("age"), subject="subject", data=data)


def test_a_variance_covariate_in_any_unit(thirty):
    base = build(thirty, None, hl.VarExp("size"), 1).fit_reml()
    for unit in (1e-6, 1e6):
        other = build(thirty.assign(size=unit * thirty["size"]), None, hl.VarExp("size"), 1).fit_reml()
        assert other.converged
        assert other.loglik == pytest.approx(base.loglik, rel=1e-10)
        rate = base.residual_estimate.parameters["rate"]
        assert unit * other.residual_estimate.parameters["rate"] == pytest.approx(rate, rel=1e-5, abs=1e-8)


def test_wrong_kinds_are_named():
    with pytest.raises(SpecificationError):
        hl.MarginalModel("distance ~ time", correlation=hl.Gaussian, subject="subject", data=dental_with())


# Several maxima.


@pytest.mark.parametrize("seed", [0, 3, 5])
def test_no_better_maximum_elsewhere(seed):
    """Incomplete data and structures that compete: the fit is the best of many searches from random starts."""
    rng = np.random.default_rng(seed)
    S = np.linalg.cholesky(np.cov(rng.normal(size=(4, 7))) + 0.3 * np.eye(4))
    rows = []
    for i in range(25):
        e = S @ rng.normal(size=4)
        rows += [(i, o, o + rng.uniform(-0.3, 0.3), e[o]) for o in rng.choice(4, rng.integers(2, 5), replace=False)]
    frame = pd.DataFrame(rows, columns=["id", "occasion", "t", "y"])
    for correlation, q in (
        (hl.Gaussian("t"), 0),
        (hl.Gaussian("t", nugget=True), 1),
        (hl.Unstructured("occasion"), 0),
        (hl.AR1("occasion"), 2),
    ):
        model = build(frame, correlation, None, q, "y ~ t")
        criterion = make_criterion(model.design, reml=True)
        found = maximise(criterion).value
        for _ in range(6):
            m = criterion.structure.n_parameters
            start = np.concatenate(
                [rng.normal(size=m), criterion.starts[0] + 1.5 * rng.normal(size=len(criterion.starts[0]))]
            )
            if np.isfinite(criterion(start)):
                assert found <= maximise(criterion, start).value + 1e-4, correlation


@pytest.mark.parametrize("shift", [0.0, 70.0, 1940.0])
def test_the_origin_of_a_variance_covariate_does_not_matter(shift):
    """σ is the SD where the covariate is zero, which may be far outside the data: nothing else may notice."""
    rng = np.random.default_rng(4)
    subject = np.repeat(np.arange(60), 4)
    c = rng.uniform(-10, 10, 240)
    y = 6.5 - 0.05 * c + rng.normal(size=60)[subject] + np.exp(-0.1 * c) * rng.normal(size=240)
    data = pd.DataFrame({"id": subject, "c": c, "y": y, "v": c + shift})

    def fitted(column):
        formula = "y ~ c + (1 | id)"
        return hl.TwoLevelModel.from_formula(formula, data, residual_variance=hl.VarExp(column)).fit_reml()

    base, moved = fitted("c"), fitted("v")
    assert moved.converged
    assert not moved.warnings
    assert moved.loglik == pytest.approx(base.loglik, rel=1e-9)
    at = {"v": [shift - 5, shift + 5]}
    bands = [base.implied_marginal([-5, 5]).variance, moved.implied_marginal([-5, 5], at=at).variance]
    np.testing.assert_allclose(bands[0].to_numpy(), bands[1].to_numpy(), rtol=1e-4)
    draws = [fit.to_datatree()["posterior"]["sd_b"].to_numpy().ravel() for fit in (base, moved)]
    np.testing.assert_allclose(*(np.quantile(d, [0.025, 0.5, 0.975]) for d in draws), rtol=1e-4)
    assert moved.subject_loglik().sum() == pytest.approx(base.subject_loglik().sum(), rel=1e-8)
    one = data.head(1)
    for level in ("marginal", "population", "subject", "new_subject"):
        first, second = (fit.predict(one, level, "prediction").to_numpy() for fit in (base, moved))
        np.testing.assert_allclose(first, second, rtol=1e-5)


def test_one_row_has_a_prediction_interval(thirty):
    fit = build(thirty, None, hl.VarPower("size"), 1).fit_reml()
    both = fit.predict(thirty.head(2), "marginal", "prediction")
    np.testing.assert_allclose(fit.predict(thirty.head(1), "marginal", "prediction"), both.head(1))
