"""Hypotheses: how they are read, and what a likelihood and a posterior say of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from effect_fits import METHODS, fitted, frozen
from scipy import stats

import hierlmm as hl
from hierlmm.effects.parse import parse_hypotheses
from hierlmm.errors import SpecificationError


@pytest.mark.parametrize(
    ("text", "weights", "sign", "value"),
    [
        ("sex[T.Male]:time = 0", [0, 0, 0, 1], "=", 0),
        ("time:sex[T.Male] = 0", [0, 0, 0, 1], "=", 0),  # the factors of an interaction in any order
        ("2*time - sex[T.Male]/2 == .5e0", [0, -0.5, 2, 0], "=", 0.5),
        ("time = sex[T.Male]", [0, -1, 1, 0], "=", 0),
        ("-(time - 2) + Intercept * 3 > 1 + 1", [3, 0, -1, 0], ">", 0),
        ("0.5 >= time", [0, 0, -1, 0], ">", -0.5),
        ("  time+6*sex[T.Male]:time<1e1", [0, 0, 1, 6], "<", 10),
        ("2 * (time + sex[T.Male]) / 4 = 0", [0, 0.5, 0.5, 0], "=", 0),
    ],
)
def test_hypotheses_are_read(dental_design, text, weights, sign, value):
    (found,) = parse_hypotheses(text, dental_design)
    np.testing.assert_allclose(found.weights, weights, atol=1e-15)
    assert (found.sign, found.value) == (sign, pytest.approx(value))


def test_names_with_signs_and_commas_are_read_whole(dental):
    data = dental.rename(columns={"time": "time - 2"})
    formula = "distance ~ C(sex, contr.treatment('Male')) * I(`time - 2` ** 2) + `time - 2` + (1 | subject)"
    design = hl.TwoLevelModel.from_formula(formula, data).fit_reml().design
    for i, name in enumerate(design.coef):
        (found,) = parse_hypotheses(f"{name} = 1", design)
        np.testing.assert_array_equal(found.weights, np.eye(len(design.coef))[i])


def test_chains_lists_and_commas_are_several(dental_design):
    both = parse_hypotheses("time = 0, sex[T.Male] = 0", dental_design)
    chain = parse_hypotheses("time = sex[T.Male] = 0", dental_design)
    assert [len(both), len(chain), len(parse_hypotheses(["time = 0", "Intercept = 1"], dental_design))] == [2, 2, 2]
    np.testing.assert_array_equal(chain[0].weights, [0, -1, 1, 0])
    np.testing.assert_array_equal(chain[1].weights, [0, 1, 0, 0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sex = 0", "no coefficient of this model"),
        ("time2 = 0", "Did you mean 'time'"),
        ("time", "compares nothing"),
        ("time * time = 0", "not linear"),
        ("1 / time = 0", "not linear"),
        ("time = time", "no coefficient is left"),
        ("(time = 0", "not closed"),
        ("time = 0,", "ends too early"),
        ("time / 0 = 1", "divides by zero"),
        ("time ) = 0", "cannot stand there"),
        ("* time = 0", "cannot stand there"),
        ("time 2 = 0", "cannot stand there"),
        (3, "text or a list of names is needed"),
        ([], "nothing to test"),
    ],
)
def test_what_is_no_hypothesis_is_refused(text, message):
    with pytest.raises(SpecificationError, match=message):
        fitted("dental_reml").hypothesis([text] if text == 3 else text)


def test_hypotheses_of_a_likelihood_fit():
    fit, ref = fitted("dental_reml"), frozen("dental_reml")
    one = fit.hypothesis("sex[T.Male]:time = 0")
    table = fit.summary(df="satterthwaite").loc["sex[T.Male]:time"]
    pd.testing.assert_series_equal(one.table.iloc[0][table.index], table, check_names=False, check_dtype=False)
    assert one.joint is None
    for method, df in METHODS.items():
        both = fit.hypothesis(["sex[T.Male] = 0.5", "time + sex[T.Male]:time = 0.7"], df=df)
        np.testing.assert_allclose(both.joint.F, ref["joint_value"][method]["F"], rtol=1e-7)
        np.testing.assert_allclose(both.joint.p, ref["joint_value"][method]["p"], rtol=1e-6)
        np.testing.assert_allclose(both.table["estimate"], fit.beta.to_numpy() @ both.L.T - [0.5, 0.7], rtol=1e-12)
    up, down = fit.hypothesis("time > 0.4").table.iloc[0], fit.hypothesis("time < 0.4").table.iloc[0]
    np.testing.assert_allclose(up["p"], stats.t.sf(up["t"], up["df"]), rtol=1e-12)
    np.testing.assert_allclose(up["p"] + down["p"], 1.0, rtol=1e-12)
    assert "one-sided" in repr(fit.hypothesis("time > 0.4"))
    with pytest.raises(SpecificationError, match="contradicts"):
        fit.hypothesis("time = 0, time = 1")


def test_posterior_hypotheses(dental_posterior):
    beta = dental_posterior.draws("beta").reshape(-1, 4)
    both = dental_posterior.hypothesis("time > 0.5, sex[T.Male] < 1")
    holds = np.column_stack([beta[:, 2] > 0.5, beta[:, 1] < 1])
    np.testing.assert_array_equal(both.table["prob"], holds.mean(0))
    assert both.probability == holds.all(1).mean() and both.joint is None
    near = dental_posterior.hypothesis("time = 0.5", rope=0.1).table.iloc[0]
    assert near["prob"] == (beta[:, 2] > 0.5).mean()
    assert near["prob_rope"] == (np.abs(beta[:, 2] - 0.5) < 0.1).mean()
    centre = beta.mean(0)
    at_mean = dental_posterior.hypothesis(
        [f"time = {centre[2]!r}".replace("np.float64(", "").rstrip(")"), "Intercept > 0"]
    )
    assert at_mean.probability is None
    inner = dental_posterior.hypothesis([f"time = {centre[2]:.12f}", f"sex[T.Male] = {centre[1]:.12f}"])
    outer = dental_posterior.hypothesis(["time = 0", "sex[T.Male]:time = 0"])
    assert inner.probability > 0.999 and outer.probability < 0.002


@pytest.mark.parametrize("ci", [0.95, 0.5])
def test_intervals_of_posterior_hypotheses_are_quantiles_of_the_draws(dental_posterior, ci):
    table = dental_posterior.hypothesis(["time > 0.5", "2 * time = sex[T.Male]"], ci=ci).table
    beta = dental_posterior.draws("beta").reshape(-1, 4)
    names = list(dental_posterior.beta.index)
    time, male = (beta[:, names.index(name)] for name in ("time", "sex[T.Male]"))
    for row, draws in zip(table.itertuples(), (time - 0.5, 2.0 * time - male), strict=True):
        place = (len(draws) - 1) * np.array([0.5 - ci / 2, 0.5 + ci / 2])  # between the draws on both sides
        expected = np.interp(place, np.arange(len(draws)), np.sort(draws))
        np.testing.assert_allclose([row.lower, row.upper], expected, rtol=1e-10)


@pytest.mark.parametrize("sign", ["<=", ">=", "==", "<", ">", "="])
def test_blanks_around_a_sign_mean_nothing(sign, dental_design):
    (close,), (wide,) = (parse_hypotheses(f"time{s}10", dental_design) for s in (sign, f"  {sign}  "))
    assert (close.sign, close.value) == (wide.sign, wide.value) == (sign[0], 10.0)
    np.testing.assert_array_equal(close.weights, wide.weights)
