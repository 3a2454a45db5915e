"""Refits against fits of the same data from scratch, and simulated criteria."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import hierlmm as hl
from hierlmm.design.taken import take_subjects
from hierlmm.inference.refits import Refitter, simulated_criteria, simulator
from hierlmm.likelihood.estimate import maximise_design

MODELS = {
    "slopes": ("distance ~ sex * time + (1 + time | subject)", {}),
    "two optima": ("distance ~ sex + (0 + age | subject)", {}),
    "diagonal": ("distance ~ 0 + sex + sex:time + (1 + time || subject)", {}),
    "AR(1)": ("distance ~ sex * time + (1 | subject)", {"residual": hl.AR1()}),
    "by sex": ("distance ~ sex * time + (1 | subject)", {"residual_variance": hl.VarIdent("sex")}),
}


@pytest.fixture(scope="module")
def fits(dental):
    return {name: hl.TwoLevelModel.from_formula(f, dental, **more).fit_reml() for name, (f, more) in MODELS.items()}


@pytest.mark.parametrize("name", MODELS)
def test_a_refit_is_the_fit_of_these_data(name, fits):
    """Everything that does not depend on y is kept: the numbers are those of a search from nothing all the same."""
    fit = fits[name]
    draw, refitter, rng = simulator(fit), Refitter(fit), np.random.default_rng(4)
    for _ in range(3):
        y = draw(rng)
        found, other = refitter.to_response(y), maximise_design(fit.design.with_response(y), reml=True)
        assert found.criterion == pytest.approx(other.optimum.value, abs=1e-7)
        np.testing.assert_allclose(found.beta, other.solution.beta, rtol=1e-6)
        np.testing.assert_allclose(found.D, other.solution.D, atol=1e-5)
        assert found.sigma == pytest.approx(other.solution.sigma, rel=1e-5)
        np.testing.assert_allclose(found.fitted() + found.residuals(), y)


@pytest.mark.parametrize("name", ["slopes", "diagonal", "AR(1)"])
def test_subjects_that_are_drawn_twice_count_twice(name, fits):
    """The same rows, copied in a table under new labels, and fitted from nothing."""
    fit, (formula, more) = fits[name], MODELS[name]
    chosen = np.random.default_rng(2).integers(0, fit.n_subjects, fit.n_subjects)
    found = Refitter(fit).to_subjects(chosen)
    frame = fit.design.frame
    parts = [frame[frame["subject"] == fit.design.subjects[j]].assign(subject=k) for k, j in enumerate(chosen)]
    other = hl.TwoLevelModel.from_formula(formula, pd.concat(parts), **more).fit_reml()
    assert found.criterion == pytest.approx(other.criterion, abs=1e-6)
    np.testing.assert_allclose(found.beta, other.beta, rtol=1e-6)
    np.testing.assert_allclose(found.D, other.D, atol=1e-5)


def test_a_large_pattern_is_replaced_by_few_rows():
    """10 rows of a triangular factor stand for 400 subjects of one design, of any response."""
    data = hl.simulate(
        beta={"Intercept": 1.0, "time": 0.5}, D=[[1.0, 0.2], [0.2, 0.3]], sigma=0.7, random=["Intercept", "time"],
        n_subjects=400, times=[0.0, 1.0, 2.0, 3.0], seed=1,
    )  # fmt: skip
    fit = hl.TwoLevelModel.from_formula("y ~ time + (1 + time | subject)", data).fit_ml()
    y = simulator(fit)(np.random.default_rng(0))
    found = Refitter(fit).to_response(y)
    assert found.criterion_function.data.R.shape[2] <= 6
    assert found.criterion == pytest.approx(maximise_design(fit.design.with_response(y), reml=False).optimum.value)


def test_simulated_responses_have_the_covariance_of_the_model(sleep_reml):
    draw, rng = simulator(sleep_reml), np.random.default_rng(3)
    y = np.array([draw(rng) for _ in range(400)])
    rows = np.flatnonzero(sleep_reml.design.subject_index == 0)
    V = sleep_reml.marginal_covariance().to_numpy()
    r = (y - sleep_reml.fitted("population").to_numpy()).reshape(400, 18, 10).reshape(-1, 10)
    se = np.sqrt((V**2 + np.outer(np.diag(V), np.diag(V))) / len(r))
    assert np.all(np.abs(r.T @ r / len(r) - V) < 4.5 * se)
    assert len(rows) == 10


def test_simulated_responses_of_two_hierarchies_have_a_covariance_each(dental):
    model = hl.TwoLevelModel.from_formula("distance ~ sex * time + (1 + time | subject)", dental, group="sex")
    fit = model.fit_reml()
    draw, rng = simulator(fit), np.random.default_rng(3)
    r = np.array([draw(rng) for _ in range(300)]) - fit.fitted("population").to_numpy()
    sexes = fit.design.frame["sex"].to_numpy()[::4]
    for sex in ("Female", "Male"):
        who = np.flatnonzero(sexes == sex)
        V = fit.marginal_covariance(fit.design.subjects[who[0]]).to_numpy()
        own = r.reshape(300, -1, 4)[:, who].reshape(-1, 4)
        se = np.sqrt((V**2 + np.outer(np.diag(V), np.diag(V))) / len(own))
        assert np.all(np.abs(own.T @ own / len(own) - V) < 4.5 * se), sex
    y = draw(rng)
    other = maximise_design(fit.design.with_response(y), reml=True)
    assert Refitter(fit).to_response(y).criterion == pytest.approx(other.optimum.value, abs=1e-7)


def test_a_level_that_nobody_has_is_a_failure_that_is_said(fits):
    boys = np.flatnonzero(fits["slopes"].design.W[:, 1] == 1.0)
    with pytest.raises(hl.DataError, match="a level that nobody has"):
        Refitter(fits["slopes"]).to_subjects(np.resize(boys, 27))


def test_taken_subjects_have_labels_of_their_own(fits):
    design = take_subjects(fits["slopes"].design, np.array([3, 3, 0]))
    assert design.n_subjects == 3 and design.frame["subject"].nunique() == 3
    np.testing.assert_array_equal(design.y[:4], design.y[4:8])


def test_draws_do_not_depend_on_the_number_of_threads(sleep_ml, sleep_intercepts):
    asked = {"seed": 7, "progressbar": False}
    one = simulated_criteria(sleep_intercepts, [sleep_intercepts, sleep_ml], 12, cores=1, **asked)
    two = simulated_criteria(sleep_intercepts, [sleep_intercepts, sleep_ml], 6, cores=2, **asked)
    np.testing.assert_array_equal(one.criteria[:6], two.criteria)
    assert np.all(one.criteria[:, 0] >= one.criteria[:, 1] - 1e-6) and not one.failures
