"""Two-step iteration: it ends in the fit, and every row is what it says."""

import dataclasses

import numpy as np
import pytest
from references import reference
from samples import SLEEP
from textbook import dense_fit, deviance, marginal_covariance

import hierlmm as hl

AIDS = "cd4 ~ obstime + obstime:drug + (obstime | subject)"


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize(
    ("formula", "covariance"),
    [
        (SLEEP, None),
        ("reaction ~ days + (1 + days || subject)", None),
        (SLEEP, "identity"),
        (SLEEP, "compound_symmetry"),
        ("reaction ~ days + (1 | subject)", None),
    ],
)
def test_iteration_ends_in_the_fit(unbalanced, formula, covariance, reml):
    model = hl.TwoLevelModel.from_formula(formula, unbalanced, covariance=covariance)
    steps = hl.gls_steps(model, reml=reml)
    fit = model.fit_reml() if reml else model.fit_ml()
    assert steps.converged
    assert 2 < steps.iterations < 20
    assert steps.loglik == pytest.approx(fit.loglik, rel=1e-10)
    np.testing.assert_allclose(steps.beta, fit.beta, rtol=1e-6)
    np.testing.assert_allclose(steps.beta_se, fit.beta_se, rtol=1e-5)
    np.testing.assert_allclose(steps.D, fit.D, rtol=1e-4, atol=1e-5)
    assert steps.sigma == pytest.approx(fit.sigma, rel=1e-5)
    assert np.all(np.diff(steps.trace["loglik"]) > -1e-9)
    assert steps.trace["change"].iloc[-1] <= steps.tolerance < steps.trace["change"].iloc[-2]


def test_every_row_is_gls_at_its_own_covariance(unbalanced):
    model = hl.TwoLevelModel.from_formula(SLEEP, unbalanced)
    for reml in (True, False):
        trace = hl.gls_steps(model, reml=reml).trace
        for _, row in trace.iterrows():
            cross = row["D[days, Intercept]"]
            D = np.array([[row["D[Intercept, Intercept]"], cross], [cross, row["D[days, days]"]]])
            value, beta, *_ = dense_fit(model.design, D, np.sqrt(row["sigma2"]), reml)
            np.testing.assert_allclose(row[["Intercept", "days"]].to_numpy(dtype=float), beta, rtol=1e-8)
            assert row["loglik"] == pytest.approx(-0.5 * value, rel=1e-9)


def test_it_starts_at_least_squares(unbalanced):
    model = hl.TwoLevelModel.from_formula(SLEEP, unbalanced)
    X, y = model.design.X, model.design.y
    beta, rss, *_ = np.linalg.lstsq(X, y, rcond=None)
    for reml, degrees in ((True, len(y) - 2), (False, len(y))):
        first = hl.gls_steps(model, reml=reml).trace.iloc[0]
        np.testing.assert_allclose(first[["Intercept", "days"]].to_numpy(dtype=float), beta)
        assert first["sigma2"] == pytest.approx(rss[0] / degrees)
        assert first["D[Intercept, Intercept]"] == 0


def test_second_step_maximises_given_beta(unbalanced):
    """After step 2 no small move of D or σ² raises the criterion with β held at the row before."""
    model = hl.TwoLevelModel.from_formula(SLEEP, unbalanced)
    design = model.design
    trace = hl.gls_steps(model, reml=True).trace
    beta = trace.loc[0, ["Intercept", "days"]].to_numpy(dtype=float)

    def held(theta):
        D, sigma = np.array([[theta[0], theta[1]], [theta[1], theta[2]]]), np.sqrt(theta[3])
        V = marginal_covariance(design, D, sigma)
        return deviance(design.X, design.y - design.X @ beta, V, reml=True)

    names = ["D[Intercept, Intercept]", "D[days, Intercept]", "D[days, days]", "sigma2"]
    theta = trace.loc[1, names].to_numpy(dtype=float)
    best = held(theta)
    for k in range(4):
        for sign in (-1, 1):
            moved = theta.copy()
            moved[k] += sign * 0.02 * max(abs(theta[k]), 1.0)
            assert held(moved) > best


def test_balanced_data_need_one_pass(sleepstudy):
    steps = hl.gls_steps(hl.TwoLevelModel.from_formula(SLEEP, sleepstudy))
    assert steps.iterations == 2
    assert "β did not move" in str(steps)
    assert "Converged after 2 iterations" in str(steps)


def test_iteration_at_a_boundary():
    data = hl.load_dataset("negative_icc")
    model = hl.TwoLevelModel.from_formula("y ~ time + x + (1 | subject)", data)
    steps = hl.gls_steps(model)
    assert steps.converged
    assert steps.D.iloc[0, 0] == pytest.approx(0, abs=1e-12)
    assert steps.loglik == pytest.approx(model.fit_reml().loglik, rel=1e-10)


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize(
    ("formula", "covariance"), [(SLEEP, None), ("reaction ~ days + (0 + phase | subject)", "compound_symmetry")]
)
def test_em_climbs_to_the_same_place_more_slowly(unbalanced, formula, covariance, reml):
    data = unbalanced.assign(phase=np.where(unbalanced["days"] < 5, "early", "late"))
    model = hl.TwoLevelModel.from_formula(formula, data, covariance=covariance)
    steps = hl.gls_steps(model, reml=reml, update="em", tolerance=1e-7)
    assert steps.converged
    assert np.all(np.diff(steps.trace["loglik"]) > -1e-9)
    fit = model.fit_reml() if reml else model.fit_ml()
    assert steps.loglik == pytest.approx(fit.loglik, rel=1e-8)
    assert steps.iterations > 3 * hl.gls_steps(model, reml=reml).iterations
    assert "more (see .trace)" in str(steps)


def test_aids(aids):
    steps = hl.gls_steps(hl.TwoLevelModel.from_formula(AIDS, aids))
    assert steps.converged
    assert steps.iterations <= 20  # each step is a maximisation: few are needed, however many subjects there are
    at_optimum = reference("aids_lmer_slope_reml")["optimum"]
    assert steps.loglik == pytest.approx(at_optimum["logLik"], rel=1e-8)


def test_unfinished_iteration_says_so(unbalanced):
    steps = hl.gls_steps(hl.TwoLevelModel.from_formula(SLEEP, unbalanced), max_iterations=1)
    assert not steps.converged
    assert "NOT CONVERGED after 1 iteration" in str(steps)
    with pytest.raises(dataclasses.FrozenInstanceError):
        steps.converged = True


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"update": "newton"}, "update='newton'"),
        ({"tolerance": 0.0}, "positive tolerance"),
        ({"max_iterations": 0}, "at least one iteration"),
    ],
)
def test_bad_settings_of_the_iteration(sleepstudy, options, words):
    with pytest.raises(hl.SpecificationError, match=words):
        hl.gls_steps(hl.TwoLevelModel.from_formula(SLEEP, sleepstudy), **options)


def test_iteration_refuses_what_it_does_not_do(sleepstudy):
    with pytest.raises(hl.SpecificationError, match="D, the covariance of random effects"):
        hl.gls_steps("reaction ~ days")
    serial = hl.TwoLevelModel.from_formula("reaction ~ days + (1 | subject)", sleepstudy, residual=hl.AR1())
    with pytest.raises(hl.NotAvailableError, match="residual structure"):
        hl.gls_steps(serial)
    with pytest.raises(hl.NotAvailableError, match="without fixed effects"):
        hl.gls_steps(hl.TwoLevelModel.from_formula("reaction ~ 0 + (1 | subject)", sleepstudy))


def test_plot_of_the_iteration(unbalanced, sleepstudy):
    for data in (unbalanced, sleepstudy):
        collection = hl.gls_steps(hl.TwoLevelModel.from_formula(SLEEP, data)).plot(backend="none")
        panels = collection.viz["line"].to_dataset() if "line" in collection.viz.children else collection.viz["line"]
        assert panels.sizes["parameter"] == 7
