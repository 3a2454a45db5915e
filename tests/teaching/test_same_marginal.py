"""Different hierarchies with one marginal model, and what tells them apart."""

import numpy as np
import pytest
from samples import SLEEP

import hierlmm as hl


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


def test_log_likelihood_beside_a_restricted_fit_is_called_what_it_is(dental):
    model = hl.TwoLevelModel.from_formula("distance ~ time + (1 | subject)", dental)
    assert "not the restricted log-likelihood" in repr(hl.same_marginal(model.fit_reml()))
    assert "not the restricted log-likelihood" not in repr(hl.same_marginal(model.fit_ml()))
    fit = model.fit_ml()
    assert f"full (ML) log-likelihood        {fit.loglik:.6f}" in repr(hl.same_marginal(fit))
