"""The kernel and the criterion against dense definitions, finite differences and invariances."""

import numpy as np
import pandas as pd
import pytest
from differences import relative_central
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import random_design
from textbook import dense_fit

from hierlmm.covariance.random import random_covariance
from hierlmm.design.build import design_from_formula
from hierlmm.design.formula import parse_formula
from hierlmm.likelihood.conditional import conditional_effects
from hierlmm.likelihood.criterion import Criterion
from hierlmm.likelihood.crossproducts import cross_products
from hierlmm.model import TwoLevelModel


def criterion_of(design, reml):
    return Criterion(cross_products(design), random_covariance(design.covariance, design.blocks), reml)


def natural(criterion, lam):
    """D and σ̂ in the user's units at λ."""
    cp = criterion.products
    ne = criterion.normal_equations(criterion.structure.factor(lam))
    sigma = np.sqrt(ne.rss / criterion.degrees) * cp.scaling.y_scale
    half = cp.scaling.factor(criterion.structure.factor(lam)) * sigma
    return half @ half.T, sigma


@pytest.mark.parametrize("reml", [True, False], ids=["REML", "ML"])
@pytest.mark.parametrize("structure", ["unstructured", "diagonal", "identity"])
@pytest.mark.parametrize(("q", "p"), [(1, 1), (1, 5), (2, 2), (2, 8), (3, 3), (3, 8)])
def test_gradient_equals_finite_differences(q, p, structure, reml):
    design = random_design(q * 10 + p, q, p, 12, 5, structure)
    criterion = criterion_of(design, reml)
    rng = np.random.default_rng(1)
    for _ in range(3):
        lam = rng.normal(size=criterion.structure.n_parameters)
        exact = criterion.evaluate(lam).gradient
        numeric = relative_central(criterion, lam)
        np.testing.assert_allclose(exact, numeric, rtol=1e-6, atol=1e-6 * np.abs(exact).max())
        joint = np.append(lam, rng.normal(scale=0.3))
        exact = criterion.joint(joint)[1]
        numeric = relative_central(lambda point: criterion.joint(point)[0], joint)
        np.testing.assert_allclose(exact, numeric, rtol=1e-6, atol=1e-6 * np.abs(exact).max())


def test_profiled_and_joint_criteria_meet_at_the_profiled_sigma():
    criterion = criterion_of(random_design(3, 2, 4, 10, 4), True)
    lam = np.array([0.7, 0.2, 0.4])
    ne = criterion.normal_equations(criterion.structure.factor(lam))
    log_sigma = 0.5 * np.log(ne.rss / criterion.degrees)
    value, gradient = criterion.joint(np.append(lam, log_sigma))
    assert value == pytest.approx(criterion(lam), rel=1e-13)
    np.testing.assert_allclose(gradient[:-1], criterion.evaluate(lam).gradient, rtol=1e-10)
    assert abs(gradient[-1]) < 1e-9


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10_000),
    q=st.integers(1, 3),
    extra=st.integers(0, 4),
    structure=st.sampled_from(["unstructured", "diagonal", "identity"]),
    reml=st.booleans(),
    balanced=st.booleans(),
)
def test_criterion_and_effects_equal_the_dense_definition(seed, q, extra, structure, reml, balanced):
    design = random_design(seed, q, q + extra, 9, 4, structure, balanced)
    criterion = criterion_of(design, reml)
    lam = np.random.default_rng(seed).normal(size=criterion.structure.n_parameters)
    D, sigma = natural(criterion, lam)
    value, beta, beta_cov, blup, condvar = dense_fit(design, D, sigma, reml)
    assert criterion(lam) == pytest.approx(value, rel=1e-10)
    Lambda = criterion.structure.factor(lam)
    ne = criterion.normal_equations(Lambda)
    scaling = criterion.products.scaling
    np.testing.assert_allclose(scaling.beta(ne.beta), beta, rtol=1e-7, atol=1e-7)
    ours = scaling.beta_cov(ne.Qxx_inverse * (sigma / scaling.y_scale) ** 2)
    np.testing.assert_allclose(ours, beta_cov, rtol=1e-7, atol=1e-8 * np.abs(beta_cov).max())
    effects = conditional_effects(criterion.products, Lambda, sigma)
    np.testing.assert_allclose(effects.mean(beta), blup, rtol=1e-7, atol=1e-8 * np.abs(blup).max())
    np.testing.assert_allclose(effects.covariance, condvar, rtol=1e-7, atol=1e-8 * np.abs(condvar).max())


def test_large_balanced_designs_have_one_pattern_and_few_rows():
    design = random_design(4, 2, 3, 200, 5, balanced=True)
    cp = cross_products(design)
    assert cp.n_patterns == 1
    assert cp.C.shape == (2, 4, 2 * 4)
    lam = np.array([0.9, 0.1, 0.5])
    criterion = criterion_of(design, True)
    D, sigma = natural(criterion, lam)
    assert criterion(lam) == pytest.approx(dense_fit(design, D, sigma, True)[0], rel=1e-11)


def test_designs_that_differ_a_little_are_not_pooled():
    """Sixty subjects whose times differ by 1e-4 of their spread (or 1e-8): sixty patterns, and the dense criterion."""
    rng = np.random.default_rng(6)
    for size in (1e-4, 1e-8):
        time = np.arange(5.0) * (1.0 + size * rng.normal(size=(60, 1)))
        y = rng.normal(size=(60, 1)) + rng.normal(size=(60, 1)) * time + rng.normal(size=(60, 5))
        frame = pd.DataFrame({"g": np.repeat(np.arange(60), 5), "t": time.ravel(), "y": y.ravel()})
        design = design_from_formula(parse_formula("y ~ t + (1 + t | g)"), frame)
        criterion = criterion_of(design, True)
        assert criterion.products.n_patterns == 60
        lam = np.array([0.9, 0.4, 1.5])
        assert criterion(lam) == pytest.approx(dense_fit(design, *natural(criterion, lam), True)[0], rel=1e-11)


@pytest.mark.parametrize("shift", [0.0, 1e3, 1e6])
def test_a_large_mean_costs_no_digits(shift):
    # 2,000 rows around a mean of 1e6 with sd 1: raw sums of squares would keep four digits.
    rng = np.random.default_rng(5)
    subject = np.repeat(np.arange(200), 10)
    time = np.tile(np.arange(10.0), 200)
    y = 3.0 + rng.normal(size=200)[subject] + 0.3 * time + rng.normal(size=2000)
    frame = pd.DataFrame({"subject": subject, "time": time, "y": y})
    base = TwoLevelModel.from_formula("y ~ time + (1 | subject)", frame).fit_reml()
    moved = frame.assign(y=frame["y"] + shift)
    fit = TwoLevelModel.from_formula("y ~ time + (1 | subject)", moved).fit_reml()
    assert fit.sigma == pytest.approx(base.sigma, rel=1e-8)
    assert fit.criterion == pytest.approx(base.criterion, rel=1e-9)
    assert fit.beta["Intercept"] - shift == pytest.approx(base.beta["Intercept"], abs=1e-8)


def test_calendar_years_give_the_same_fit_as_years_since(sleepstudy):
    base = TwoLevelModel.from_formula("reaction ~ days + (days | subject)", sleepstudy).fit_reml()
    late = sleepstudy.assign(days=sleepstudy["days"] + 2000.0)
    fit = TwoLevelModel.from_formula("reaction ~ days + (days | subject)", late).fit_reml()
    assert fit.converged
    assert fit.criterion == pytest.approx(base.criterion, rel=1e-10)
    assert fit.sigma == pytest.approx(base.sigma, rel=1e-7)
    assert fit.D.loc["days", "days"] == pytest.approx(base.D.loc["days", "days"], rel=1e-6)
    np.testing.assert_allclose(fit.fitted(), base.fitted(), rtol=1e-8)


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_units_of_the_response_and_of_time_do_not_matter(sleepstudy, factor):
    base = TwoLevelModel.from_formula("reaction ~ days + (days | subject)", sleepstudy).fit_reml()
    scaled = sleepstudy.assign(reaction=sleepstudy["reaction"] * factor, days=sleepstudy["days"] / factor)
    fit = TwoLevelModel.from_formula("reaction ~ days + (days | subject)", scaled).fit_reml()
    assert fit.sigma == pytest.approx(base.sigma * factor, rel=1e-7)
    assert fit.sd_b["days"] == pytest.approx(base.sd_b["days"] * factor**2, rel=1e-6)
    assert fit.corr_b.iloc[0, 1] == pytest.approx(base.corr_b.iloc[0, 1], rel=1e-5)
    assert not fit.is_singular


def test_row_order_does_not_matter(dental):
    formula = "distance ~ sex * time + (1 + time | subject)"
    base = TwoLevelModel.from_formula(formula, dental).fit_reml()
    shuffled = dental.sample(frac=1.0, random_state=2)
    fit = TwoLevelModel.from_formula(formula, shuffled).fit_reml()
    assert fit.criterion == pytest.approx(base.criterion, rel=1e-12)
    np.testing.assert_allclose(fit.fitted().sort_index(), base.fitted(), rtol=1e-7)
    assert list(fit.fitted().index) == list(shuffled.index)


def test_ml_loglik_is_the_sum_over_subjects(dental):
    fit = TwoLevelModel.from_formula("distance ~ sex * time + (1 + time | subject)", dental).fit_ml()
    assert fit.subject_loglik().sum() == pytest.approx(fit.loglik, rel=1e-12)


def test_reml_of_balanced_one_way_layout_is_the_anova_estimate():
    # Searle, Casella & McCulloch 1992, section 4.3: σ² = MSE, σ_b² = (MSA - MSE) / n.
    rng = np.random.default_rng(8)
    J, n = 15, 6
    y = 10 + 2.0 * rng.normal(size=J)[:, None] + rng.normal(size=(J, n))
    frame = pd.DataFrame({"g": np.repeat(np.arange(J), n), "y": y.ravel()})
    fit = TwoLevelModel.from_formula("y ~ 1 + (1 | g)", frame).fit_reml()
    mse = np.sum((y - y.mean(1, keepdims=True)) ** 2) / (J * (n - 1))
    msa = n * np.sum((y.mean(1) - y.mean()) ** 2) / (J - 1)
    assert fit.sigma**2 == pytest.approx(mse, rel=1e-9)
    assert fit.D.iloc[0, 0] == pytest.approx((msa - mse) / n, rel=1e-8)
    assert fit.beta_se.iloc[0] == pytest.approx(np.sqrt(msa / (J * n)), rel=1e-8)
