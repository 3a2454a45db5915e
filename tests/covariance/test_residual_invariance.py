"""Residual structures: one model in several forms, what must not matter, structures of the user's own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from structures_by_definition import Damped, VarConstPower, build, same

import hierlmm as hl
from hierlmm.covariance.parameters import Parameter
from hierlmm.likelihood.estimate import make_criterion
from hierlmm.likelihood.maximise import maximise


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


def test_a_variance_covariate_in_any_unit(thirty):
    base = build(thirty, None, hl.VarExp("size"), 1).fit_reml()
    for unit in (1e-6, 1e6):
        other = build(thirty.assign(size=unit * thirty["size"]), None, hl.VarExp("size"), 1).fit_reml()
        assert other.converged
        assert other.loglik == pytest.approx(base.loglik, rel=1e-10)
        rate = base.residual_estimate.parameters["rate"]
        assert unit * other.residual_estimate.parameters["rate"] == pytest.approx(rate, rel=1e-5, abs=1e-8)


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
        found, tried = maximise(criterion).value, 0
        for _ in range(6):
            m = criterion.structure.n_parameters
            start = np.concatenate(
                [rng.normal(size=m), criterion.starts[0] + 1.5 * rng.normal(size=len(criterion.starts[0]))]
            )
            if np.isfinite(criterion(start)):
                assert found <= maximise(criterion, start).value + 1e-4, correlation
                tried += 1
        assert tried >= 3, correlation


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
