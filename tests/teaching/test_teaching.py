"""Two-step iteration, origin of a covariance matrix, hierarchies with one marginal model, variances of BLUPs."""

import dataclasses
import json
import pickle

import numpy as np
import pandas as pd
import pytest
from references import data_elsewhere, reference, references_of
from samples import SLEEP
from textbook import dense_fit, deviance, marginal_covariance, projection, residual_blocks

import hierlmm as hl
from hierlmm.likelihood.conditional import blup_variances, conditional_effects

BLUP = references_of("blup")
AIDS = "cd4 ~ obstime + obstime:drug + (obstime | subject)"


@pytest.fixture(scope="module")
def aids():
    data_elsewhere("aids")
    return hl.load_dataset("aids")


@pytest.fixture(scope="module")
def unbalanced(sleepstudy):
    """sleepstudy with rows missing, so that GLS depends on V."""
    return sleepstudy[np.random.default_rng(0).uniform(size=len(sleepstudy)) < 0.6]


# --- gls_steps ----------------------------------------------------------------------------------------------------


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


# --- is_hierarchical ----------------------------------------------------------------------------------------------

TIMES = [0, 2, 4, 6]
LINE = np.column_stack([np.ones(4), TIMES])


def exchangeable(n, rho, variance=1.0):
    return variance * ((1 - rho) * np.eye(n) + rho * np.ones((n, n)))


def test_random_intercept_implies_compound_symmetry():
    check = hl.is_hierarchical(exchangeable(4, 0.3, 2.0), ["Intercept"])
    assert check
    assert check.unique
    assert check.D.loc["Intercept", "Intercept"] == pytest.approx(0.6)
    assert check.sigma2 == pytest.approx(1.4)
    assert check.sigma2_interval == pytest.approx((1.4, 1.4))
    assert check.distance < 1e-12


def test_compound_symmetry_does_not_imply_a_random_intercept():
    check = hl.is_hierarchical(exchangeable(4, -0.2), ["Intercept"])
    assert not check
    assert check.is_covariance
    assert check.D.iloc[0, 0] == pytest.approx(-0.2)
    assert len(check.reasons) == 1
    assert "a variance of -0.2 for Intercept, i.e. a negative intra-class correlation of -0.2" in check.reasons[0]
    assert "A marginal model can have this V" in str(check)


def test_below_minus_one_over_n_minus_one_it_is_no_covariance():
    check = hl.is_hierarchical(exchangeable(4, -0.5), ["Intercept"])
    assert not check.is_covariance
    assert "V is no covariance matrix" in check.reasons[0]
    assert "-0.5" in check.reasons[0]  # 1 + 3 (-0.5), the variance of the scaled mean
    assert "A marginal model can have this V" not in str(check)


def test_serial_correlation_is_outside():
    V = 0.6 ** np.abs(np.subtract.outer(range(4), range(4)))
    check = hl.is_hierarchical(V, ["Intercept", "time"], times=TIMES)
    assert not check
    assert check.is_covariance
    # Least squares on the span, the long way.
    basis = [np.eye(4)] + [
        np.outer(LINE[:, a], LINE[:, b]) + np.outer(LINE[:, b], LINE[:, a]) for a in range(2) for b in range(a + 1)
    ]
    A = np.column_stack([m.ravel() for m in basis])
    solution, *_ = np.linalg.lstsq(A, V.ravel(), rcond=None)
    assert check.distance == pytest.approx(np.linalg.norm(V.ravel() - A @ solution))
    assert check.sigma2 == pytest.approx(solution[0])
    assert check.D.iloc[0, 0] == pytest.approx(2 * solution[1])
    assert check.D.iloc[1, 0] == pytest.approx(solution[2])
    np.testing.assert_allclose(check.outside, V - (A @ solution).reshape(4, 4), atol=1e-12)
    assert "outside Z D Zᵀ + σ²I" in check.reasons[0]


def test_the_covariance_of_a_fit_comes_from_its_hierarchy(dental):
    fit = hl.TwoLevelModel.from_formula("distance ~ sex*time + (1 + time | subject)", dental).fit_reml()
    check = hl.is_hierarchical(fit.marginal_covariance(), ["Intercept", "time"], times=TIMES)
    assert check
    np.testing.assert_allclose(check.D, fit.D, rtol=1e-8, atol=1e-10)
    assert check.sigma2 == pytest.approx(fit.sigma**2)
    assert not hl.is_hierarchical(fit.marginal_covariance(), ["Intercept"])


@pytest.mark.parametrize(
    ("D", "words"),
    [
        ([[1, 1.5], [1.5, 1]], "a correlation of 1.5 between Intercept and time"),
        ([[1, 0.2], [0.2, -0.05]], "a variance of -0.05 for time"),
        ([[-1, 0.2], [0.2, -0.05]], "a variance of -1 for Intercept and of -0.05 for time"),
    ],
)
def test_which_part_of_D_fails(D, words):
    Z = pd.DataFrame(LINE, columns=["Intercept", "time"])
    check = hl.is_hierarchical(LINE @ np.array(D) @ LINE.T + 60 * np.eye(4), Z)
    assert check.is_covariance == (np.linalg.eigvalsh(LINE @ np.array(D) @ LINE.T)[0] > -60)
    assert any(words in reason for reason in check.reasons)
    np.testing.assert_allclose(check.D, D, atol=1e-8)


def test_three_effects_name_the_combination():
    t = np.arange(6.0)
    Z = pd.DataFrame({"a": np.ones(6), "b": t, "c": t**2})
    D = np.array([[1, 0.6, 0.6], [0.6, 1, -0.6], [0.6, -0.6, 1]])  # every pair admissible, not all three
    check = hl.is_hierarchical(Z.to_numpy() @ D @ Z.to_numpy().T + 500 * np.eye(6), Z)
    assert "for the combination" in check.reasons[0]
    assert "-0.2" in check.reasons[0]


def test_saturated_designs_leave_sigma_open():
    """Two occasions, intercept and slope: every σ² up to the smallest eigenvalue has its own D."""
    V = np.array([[2.0, 0.5], [0.5, 1.0]])
    check = hl.is_hierarchical(V, ["Intercept", "time"], times=[0, 1])
    assert check
    assert not check.unique
    low, high = check.sigma2_interval
    assert (low, high) == pytest.approx((0, np.linalg.eigvalsh(V)[0]))
    Z = check.Z.to_numpy()
    np.testing.assert_allclose(Z @ check.D.to_numpy() @ Z.T + check.sigma2 * np.eye(2), V, atol=1e-12)
    assert np.linalg.eigvalsh(check.D)[0] > 0
    assert "any value from 0 to" in str(check)
    bad = hl.is_hierarchical(np.array([[1.0, 2.0], [2.0, 1.0]]), ["Intercept", "time"], times=[0, 1])
    assert not bad
    assert bad.sigma2 <= 0


def test_dependent_columns_leave_D_open():
    Z = np.column_stack([np.ones(3), 2 * np.ones(3)])
    check = hl.is_hierarchical(exchangeable(3, 0.5), Z)
    assert check
    assert not check.unique
    assert "linearly dependent" in str(check)
    np.testing.assert_allclose(Z @ check.D.to_numpy() @ Z.T, 0.5, atol=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_random_hierarchies_are_found_again(seed):
    rng = np.random.default_rng(seed)
    n, q = int(rng.integers(3, 9)), int(rng.integers(1, 4))
    Z = rng.normal(size=(n, q)) * 10.0 ** rng.integers(-3, 4, q)
    half = rng.normal(size=(q, q)) / np.abs(Z).max(axis=0)[:, None]
    V = Z @ half @ half.T @ Z.T + rng.uniform(0.1, 2) * np.eye(n)
    check = hl.is_hierarchical(V, Z)
    assert check
    if n > q:
        np.testing.assert_allclose(check.D, half @ half.T, rtol=1e-5, atol=1e-7 * np.abs(half @ half.T).max())
    # One eigenvalue of D turned around: never found.
    values, vectors = np.linalg.eigh(half @ half.T)
    values[-1] = -values[-1]
    if n > q:
        size = np.linalg.norm(Z @ (vectors * values) @ vectors.T @ Z.T)
        check = hl.is_hierarchical(Z @ (vectors * values) @ vectors.T @ Z.T + 2 * size * np.eye(n), Z)
        assert not check
        assert check.is_covariance


def test_rounded_matrices_need_a_tolerance():
    V = np.round(LINE @ np.array([[3.2, -0.03], [-0.03, 0.03]]) @ LINE.T + 1.7 * np.eye(4), 1)
    assert not hl.is_hierarchical(V, LINE)
    assert hl.is_hierarchical(V, LINE, tolerance=0.05)


def test_terms_may_be_expressions():
    check = hl.is_hierarchical(np.eye(4), ["1", "time", "I(time**2)"], times=TIMES)
    assert list(check.Z.columns)[:2] == ["Intercept", "time"]
    np.testing.assert_array_equal(check.Z.iloc[:, 2], np.square(TIMES))
    frame = pd.DataFrame({"week": TIMES})
    assert list(hl.is_hierarchical(np.eye(4), ["Intercept", "week"], times=frame).Z["week"]) == TIMES


@pytest.mark.parametrize(
    ("V", "Z", "options", "words"),
    [
        (np.ones((2, 3)), ["Intercept"], {}, "square"),
        ([[np.nan, 0], [0, 1]], ["Intercept"], {}, "missing or infinite"),
        (np.eye(3), np.ones((2, 1)), {}, "one row for each measurement"),
        (np.eye(3), ["Intercept", "time"], {}, "times=[0, 1, ...]"),
        (np.eye(3), ["Intercept", "time"], {"times": [1, 2]}, "2 times for a V of 3"),
        (np.eye(3), ["dose"], {"times": [1, 2, 3]}, "cannot be evaluated"),
        (np.eye(3), LINE[:3], {"times": [1, 2, 3]}, "leave times out"),
        (np.eye(3), ["Intercept"], {"tolerance": 0}, "small positive number"),
        (np.eye(3), "time~", {"times": [1, 2, 3]}, "cannot be evaluated"),
        ("text", ["Intercept"], {}, "numbers"),
    ],
)
def test_what_is_hierarchical_refuses(V, Z, options, words):
    with pytest.raises(hl.HierlmmError) as caught:
        hl.is_hierarchical(V, Z, **options)
    assert words in str(caught.value)


def test_asymmetric_matrices_are_no_covariances():
    check = hl.is_hierarchical([[1, 0.2], [0.3, 1]], [[1], [1]])
    assert not check
    assert "not symmetric" in check.reasons[0]


# --- same_marginal ------------------------------------------------------------------------------------------------


def test_random_intercept_and_compound_symmetric_errors(dental):
    model = hl.TwoLevelModel.from_formula("distance ~ sex*time + (1 | subject)", dental)
    pair = hl.same_marginal(model)
    assert pair.same
    assert pair.V_difference < 1e-14
    assert pair.loglik["A"] == pytest.approx(pair.loglik["B"], rel=1e-14)
    ml = model.fit_ml()
    assert hl.same_marginal(ml).loglik["B"] == pytest.approx(ml.loglik, rel=1e-12)
    fit = model.fit_reml()
    np.testing.assert_allclose(pair.b["A"], fit.b, rtol=1e-8)
    np.testing.assert_allclose(pair.b_sd["A"], fit.b_sd, rtol=1e-8)
    assert np.all(pair.b["B"] == 0)
    assert pair.between["A"] == pytest.approx(fit.icc)
    assert pair.between["B"] == 0
    assert np.allclose(pair.last["A same errors"], pair.last["B same errors"], rtol=1e-12)
    gap = pair.last["A new errors"] - pair.last["B new errors"]
    assert np.abs(gap).max() > 1
    population = fit.fitted("population").groupby(dental["subject"]).last()
    np.testing.assert_allclose(pair.last["B new errors"], population.loc[pair.last.index], rtol=1e-10)
    assert "can prefer one of them" in str(pair)


def test_any_share_of_D_will_do(dental):
    fit = hl.TwoLevelModel.from_formula("distance ~ sex*time + (1 + time | subject)", dental).fit_reml()
    for share in (0.0, 0.25, 1.0):
        pair = hl.same_marginal(fit, share=share)
        assert pair.same
        np.testing.assert_allclose(pair.b["B"], share * pair.b["A"], atol=1e-12)
        assert pair.between["B"] == pytest.approx(share * pair.between["A"])
    with pytest.raises(hl.SpecificationError, match=r"from 0 to 1"):
        hl.same_marginal(fit, share=1.2)


def test_moving_the_origin_of_time_changes_the_hierarchy_and_not_the_marginal(dental):
    shifted = dental.assign(later=dental["time"] - 4)
    pair = hl.same_marginal(
        hl.TwoLevelModel.from_formula("distance ~ sex*time + (1 + time | subject)", dental),
        hl.TwoLevelModel.from_formula("distance ~ sex*later + (1 + later | subject)", shifted),
    )
    assert pair.same
    assert abs(pair.first.D[0, 0] / pair.second.D[0, 0] - 1) > 0.05
    np.testing.assert_allclose(pair.b[("A", "time")], pair.b[("B", "later")], rtol=1e-6)
    # With a diagonal D the origin matters, and the data can tell.
    diagonal = hl.same_marginal(
        hl.TwoLevelModel.from_formula("distance ~ sex*time + (1 + time || subject)", dental),
        hl.TwoLevelModel.from_formula("distance ~ sex*later + (1 + later || subject)", shifted),
    )
    assert not diagonal.same
    assert "NOT the same marginal model" in str(diagonal)


def test_random_slope_or_drifting_errors(dental):
    """A slope of the subject's own, or a random intercept and errors that drift apart by a shared trend."""
    slopes = hl.TwoLevelModel.from_formula("distance ~ time + (1 + time | subject)", dental)
    intercepts = hl.TwoLevelModel.from_formula("distance ~ time + (1 | subject)", dental)
    d11, d12, d22, s2, beta = 3.0, -0.05, 0.1, 1.7, [22.0, 0.7]

    def drifting(rows):
        t = rows["time"].to_numpy(dtype=float)
        one = np.ones_like(t)
        return s2 * np.eye(len(t)) + d22 * np.outer(t, t) + d12 * (np.outer(one, t) + np.outer(t, one))

    first = hl.subject_hierarchy(slopes, beta=beta, D=[[d11, d12], [d12, d22]], residual=s2, name="random slopes")
    second = hl.subject_hierarchy(intercepts, beta=beta, D=[[d11]], residual=drifting, name="drifting errors")
    pair = hl.same_marginal(first, second)
    assert pair.same
    np.testing.assert_allclose(pair.loglik["A"], pair.loglik["B"], rtol=1e-12)
    assert np.abs(pair.b[("A", "Intercept")] - pair.b[("B", "Intercept")]).max() > 0.1
    assert "random slopes" in str(pair)
    assert set(pair.subject(pair.b.index[0]).loc["A"].index) == {"Intercept", "time"}
    with pytest.raises(hl.DataError, match="not in the data"):
        pair.subject("nobody")


def test_marginal_model_beside_its_hierarchy(dental):
    random = hl.TwoLevelModel.from_formula("distance ~ sex*time + (1 | subject)", dental).fit_reml()
    marginal = hl.MarginalModel(
        "distance ~ sex*time", correlation=hl.CompoundSymmetry(), subject="subject", data=dental
    ).fit_reml()
    pair = hl.same_marginal(random, marginal)
    assert pair.V_difference < 1e-6
    np.testing.assert_allclose(pair.loglik["A"], pair.loglik["B"], rtol=1e-8)
    assert pair.between["B"] == pytest.approx(0, abs=1e-12)
    assert "b is zero for everybody" in str(pair)


def test_last_measurement_by_hand(dental):
    fit = hl.TwoLevelModel.from_formula("distance ~ sex*time + (1 | subject)", dental).fit_reml()
    pair = hl.same_marginal(fit)
    rows = np.flatnonzero(fit.design.subject_index == 0)
    residual = fit.design.y[rows] - fit.design.X[rows] @ fit.beta.to_numpy()
    tau2, s2 = fit.D.iloc[0, 0], fit.sigma**2
    expected = fit.design.X[rows[-1]] @ fit.beta.to_numpy() + tau2 * residual[:3].sum() / (3 * tau2 + s2)
    assert pair.last["A new errors"].iloc[0] == pytest.approx(expected)
    assert pair.last["B same errors"].iloc[0] == pytest.approx(expected)


def test_what_same_marginal_refuses(dental, sleepstudy):
    a = hl.TwoLevelModel.from_formula("distance ~ time + (1 | subject)", dental)
    with pytest.raises(hl.DataError, match="same measurements"):
        hl.same_marginal(a, hl.TwoLevelModel.from_formula(SLEEP, sleepstudy))
    with pytest.raises(hl.SpecificationError, match="no hierarchy with numbers"):
        hl.same_marginal("a")
    with pytest.raises(hl.SpecificationError, match="2 fixed coefficients"):
        hl.subject_hierarchy(a, beta=[1.0], D=[[1.0]], residual=1.0)
    with pytest.raises(hl.SpecificationError, match="a negative variance"):
        hl.subject_hierarchy(a, beta=[1.0, 1.0], D=[[-0.1]], residual=1.0)
    with pytest.raises(hl.SpecificationError, match="it has 4 rows"):
        hl.subject_hierarchy(a, beta=[1.0, 1.0], D=[[1.0]], residual=lambda rows: np.eye(2))


# --- variances of the BLUPs ---------------------------------------------------------------------------------------

KEYS = {
    "var_of_blup": "var_of_blup_DZKZD",
    "conditional": "conditional_var_given_theta_beta",
    "prediction_error": "prediction_error_var_D_minus_DZKZD",
}
CASES = {
    "dyestuff": ("dyestuff", "Yield ~ 1 + (1 | batch)"),
    "potthoffroy_rirs": ("dental", "distance ~ sex*time + (1 + time | subject)"),
    "sleepstudy_rirs": ("sleepstudy", SLEEP),
    "aids_slope": ("aids", AIDS),
}


@pytest.mark.parametrize("case", CASES)
def test_three_variances_agree_with_dense_matrices_in_r(case, request):
    dataset, formula = CASES[case]
    data = request.getfixturevalue("aids") if dataset == "aids" else hl.load_dataset(dataset)
    data = data.rename(columns={"yield": "Yield"})
    ref = json.loads((BLUP / f"{case}.json").read_text())
    fit = hl.TwoLevelModel.from_formula(formula, data).fit_reml()
    # At the θ of the reference, so that only the formulas are compared.
    D, sigma, products = np.array(ref["D"]), ref["sigma"], fit.criterion_function.products
    Lambda = np.linalg.cholesky(products.scaling.Bz @ D @ products.scaling.Bz.T / sigma**2)
    equations = fit.criterion_function.normal_equations(Lambda)
    cov = products.scaling.beta_cov(equations.Qxx_inverse * (sigma / products.scaling.y_scale) ** 2)
    at_reference = blup_variances(conditional_effects(products, Lambda, sigma), D, cov)
    own = fit.blup_variances(covariances=True)
    labels = list(map(str, fit.b.index))
    for row in ref["subjects"]:
        j = labels.index(row["level"])
        np.testing.assert_allclose(np.atleast_1d(row["blup"]), fit.b.iloc[j], rtol=1e-5, atol=1e-7)
        for name, key in KEYS.items():
            np.testing.assert_allclose(getattr(at_reference, name)[j], row[key], rtol=1e-6)
            np.testing.assert_allclose(own[name].to_numpy()[j], row[key], rtol=1e-5)


def test_table_of_the_three_variances(sleepstudy):
    fit = hl.TwoLevelModel.from_formula(SLEEP, sleepstudy).fit_reml()
    table = fit.blup_variances()
    assert list(table.columns) == ["blup", *KEYS]
    assert table.index.names == ["subject", "term"]
    assert len(table) == 36
    np.testing.assert_allclose(table["blup"], fit.b.to_numpy().ravel())
    np.testing.assert_allclose(np.sqrt(table["conditional"]), fit.b_sd.to_numpy().ravel())
    assert table.loc[(308, "days"), "blup"] == pytest.approx(fit.b.loc[308, "days"])
    np.testing.assert_allclose(table["var_of_blup"] + table["prediction_error"], np.tile(np.diag(fit.D), 18))
    assert np.all(table["prediction_error"] > table["conditional"])


def test_variances_at_a_boundary_are_not_negative():
    fit = hl.TwoLevelModel.from_formula("y ~ time + x + (1 | subject)", hl.load_dataset("negative_icc")).fit_reml()
    np.testing.assert_allclose(fit.blup_variances(), 0, atol=1e-12)


def test_with_correlated_residuals_they_are_those_of_dense_matrices(sleepstudy):
    fit = hl.TwoLevelModel.from_formula(SLEEP, sleepstudy, residual=hl.AR1()).fit_reml()
    design, D = fit.design, fit.D.to_numpy()
    V = marginal_covariance(design, D, fit.sigma, residual_blocks(design, fit.residual_estimate))
    inverse, K = np.linalg.inv(V), projection(design.X, V)
    found = fit.blup_variances(covariances=True)
    for j in (0, 7):
        rows = design.subject_index == j
        Z = design.Z[rows]
        blup = D @ Z.T @ K[np.ix_(rows, rows)] @ Z @ D
        conditional = D - D @ Z.T @ inverse[np.ix_(rows, rows)] @ Z @ D
        np.testing.assert_allclose(found["var_of_blup"][j], blup, rtol=1e-7, atol=1e-8)
        np.testing.assert_allclose(found["conditional"][j], conditional, rtol=1e-7, atol=1e-8)
        np.testing.assert_allclose(found["prediction_error"][j], D - blup, rtol=1e-7, atol=1e-8)


def test_a_posterior_has_one_variance(sleep_like_nuts):
    with pytest.raises(hl.NotAvailableError, match="one variance"):
        sleep_like_nuts.blup_variances()


def test_what_has_no_random_effects_has_no_blups(dental):
    marginal = hl.MarginalModel("distance ~ time", correlation=hl.CompoundSymmetry(), subject="subject", data=dental)
    for fit in (
        marginal.fit_reml(),
        hl.TwoLevelModel.from_formula("distance ~ time + (1 | subject)", dental).fit_gee(),
    ):
        with pytest.raises(hl.NotAvailableError):
            fit.blup_variances()


# --- light --------------------------------------------------------------------------------------------------------


def test_teaching_loads_no_sampler():
    import subprocess
    import sys

    code = (
        "import sys, hierlmm as hl; data = hl.load_dataset('sleepstudy');"
        f"m = hl.TwoLevelModel.from_formula({SLEEP!r}, data); hl.gls_steps(m); hl.same_marginal(m);"
        "m.fit_reml().blup_variances();"
        "print([p for p in ('pytensor', 'pymc', 'nutpie', 'arviz', 'matplotlib') if p in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


# --- answers stay as they were given ----------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["steps", "implied", "semivariogram", "pair", "check"])
def test_what_is_written_to_an_answer_does_not_change_it(dental, what):
    model = hl.TwoLevelModel.from_formula("distance ~ time + (1 | subject)", dental)
    make, names = {
        "steps": (lambda: hl.gls_steps(model), ("trace", "D", "beta")),
        "implied": (
            lambda: model.fit_reml().implied_marginal(draws=50),
            ("V", "correlation", "variance", "V_lower", "correlation_upper"),
        ),
        "semivariogram": (lambda: hl.semivariogram(model.fit_reml(), simulations=40), ("table",)),
        "pair": (lambda: hl.same_marginal(model), ("last", "b", "loglik")),
        "check": (lambda: hl.is_hierarchical(exchangeable(4, 0.3), ["Intercept"]), ("D", "V", "outside")),
    }[what]
    found = make()
    text = repr(found)
    for name in names:
        table = getattr(found, name)
        before = table.to_numpy().copy()
        table.iloc[(0,) * table.ndim] = -99.0
        np.testing.assert_array_equal(getattr(found, name).to_numpy(), before)
    assert repr(found) == text
    again = pickle.loads(pickle.dumps(found))
    assert repr(again) == text
    for one in (found, again):
        for array in (v for v in vars(one) if isinstance(getattr(one, v), np.ndarray)):
            with pytest.raises(ValueError, match="read-only"):
                getattr(one, array)[...] = 0.0


def test_log_likelihood_beside_a_restricted_fit_is_called_what_it_is(dental):
    model = hl.TwoLevelModel.from_formula("distance ~ time + (1 | subject)", dental)
    assert "not the restricted log-likelihood" in repr(hl.same_marginal(model.fit_reml()))
    assert "not the restricted log-likelihood" not in repr(hl.same_marginal(model.fit_ml()))
    fit = model.fit_ml()
    assert f"full (ML) log-likelihood        {fit.loglik:.6f}" in repr(hl.same_marginal(fit))


def test_distance_counts_what_is_not_symmetric():
    V = np.triu(np.ones((3, 3)))
    check = hl.is_hierarchical(V, ["Intercept"])
    basis = np.array([np.ones((3, 3)).ravel(), np.eye(3).ravel()]).T
    closest = basis @ np.linalg.lstsq(basis, V.ravel(), rcond=None)[0]
    assert check.distance == pytest.approx(np.linalg.norm(V.ravel() - closest), rel=1e-12)
    np.testing.assert_allclose(check.outside.to_numpy().ravel(), V.ravel() - closest, atol=1e-14)


def test_zeros_print_as_zeros():
    for V in (np.eye(4), 2.7 * np.eye(3), exchangeable(5, 0.3), np.ones((3, 3))):
        for Z in (["Intercept"], np.column_stack([np.ones(len(V)), np.arange(len(V))])):
            text = repr(hl.is_hierarchical(V, Z))
            assert "e-1" not in text
            assert "-0" not in text.replace("e-0", "")
