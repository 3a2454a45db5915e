"""AR(1) and Toeplitz of labelled visits: lags are places among all visits of the data, as in SAS and mmrm."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import multivariate_normal

import hierlmm as hl
from hierlmm.diagnostics.serial_residuals import positions_of

PLACE = {8: 0, 10: 1, 12: 2, 14: 3}
LABELS = {
    "text": lambda age: "week " + age.astype(str),
    "categories": lambda age: pd.Categorical(age.map({8: "z", 10: "m", 12: "p", 14: "a"}), [*"zmp", "unused", "a"]),
    "categories of numbers": lambda age: pd.Categorical(age),
}


def missed(dental):
    """Rows in no order; every third child missed the second visit, the first child the two in the middle."""
    gone = ((dental["subject"] % 3 == 0) & (dental["age"] == 10)) | (
        (dental["subject"] == 1) & dental["age"].isin([10, 12])
    )
    return dental[~gone].sample(frac=1.0, random_state=1)


def fitted(data, spec, **options):
    return hl.MarginalModel("distance ~ sex * time", correlation=spec, subject="subject", data=data, **options).fit_ml()


def by_hand(fit, data, correlation, sd):
    """The log-likelihood with V written out, subject by subject."""
    total = 0.0
    for _, own in data.groupby("subject"):
        t = own["age"].map(PLACE).to_numpy()
        V = correlation(np.abs(t[:, None] - t)) * np.outer(sd(t), sd(t))
        r = own["distance"] - fit.predict(own, level="population")["estimate"]
        total += multivariate_normal(cov=V).logpdf(r)
    return total


@pytest.mark.parametrize("kind", LABELS)
def test_a_missed_visit_keeps_its_lag(dental, kind):
    data = missed(dental).assign(visit=lambda d: LABELS[kind](d["age"]), place=lambda d: d["age"].map(PLACE))
    fit = fitted(data, hl.AR1("visit"))
    rho = fit.residual_estimate.parameters["rho"]
    expected = by_hand(fit, data, lambda lag: rho**lag, lambda t: np.full(len(t), fit.sigma))
    assert fit.loglik == pytest.approx(expected, rel=1e-10)
    assert fit.loglik == pytest.approx(fitted(data, hl.AR1("place")).loglik, rel=1e-10)
    V = fit.marginal_covariance()
    np.testing.assert_allclose(V / fit.sigma**2, rho ** np.abs(np.subtract.outer(range(4), range(4))), rtol=1e-12)
    np.testing.assert_allclose(fit.implied_marginal(draws=0).V, V, rtol=1e-12)
    if kind != "categories of numbers":  # lags of these are differences
        np.testing.assert_array_equal(positions_of(fit, None, by_order=False)[0], data["place"])


def test_toeplitz_and_unequal_variances_of_labels(dental):
    data = missed(dental).assign(visit=lambda d: LABELS["text"](d["age"]))
    fit = fitted(data, hl.Toeplitz("visit"), variance=hl.VarIdent("visit"))
    found = fit.residual_estimate.parameters
    rho = np.array([1.0, *(found[f"rho({k})"] for k in (1, 2, 3))])
    ratio = np.array([found["ratio(week 8/week 10)"], 1.0, *(found[f"ratio(week {k}/week 10)"] for k in (12, 14))])
    expected = by_hand(fit, data, lambda lag: rho[lag], lambda t: fit.sigma * ratio[t])
    assert fit.loglik == pytest.approx(expected, rel=1e-10)
    assert "R[s, t] = rho_|s - t| in visit (week 8, week 10, week 12, week 14)" in str(fit)


def test_a_history_has_the_lags_of_the_data(dental):
    data = missed(dental).assign(visit=lambda d: LABELS["text"](d["age"]), place=lambda d: d["age"].map(PLACE))
    past = pd.DataFrame({"subject": 99, "sex": "Male", "time": [0.0], "age": 8, "distance": 27.0})
    new = past.assign(time=6.0, age=14)
    found = []
    for column in ("visit", "place"):
        rows = [d.assign(visit=LABELS["text"](d["age"]), place=d["age"].map(PLACE)) for d in (new, past)]
        fit = hl.TwoLevelModel.from_formula(
            "distance ~ sex * time + (1 | subject)", data, residual=hl.AR1(column)
        ).fit_ml()
        found.append(fit.predict_subject(rows[1], newdata=rows[0], interval="prediction"))
    for name in ("estimate", "se"):
        np.testing.assert_allclose(found[0][name], found[1][name], rtol=1e-8)


@pytest.mark.parametrize(
    "labels", [["day -4", "day -1", "day 0", "day 3"], ["b 9", "b 10", "b 11", "b 2"], ["a", "b", "c", "d"]]
)
@pytest.mark.parametrize("formula", ["distance ~ sex * time", "distance ~ sex * visit"])
def test_an_order_that_is_stated_stands(dental, labels, formula):
    """Ordered categories say the order of time, whatever their labels look like, in the mean as well."""
    place = dental["age"].map(PLACE)
    visit = pd.Categorical([labels[k] for k in place], labels, ordered=True)
    data = dental.assign(visit=visit, place=place).sample(frac=0.9, random_state=2)
    found = [
        hl.MarginalModel(formula, correlation=hl.AR1(column), subject="subject", data=data).fit_ml()
        for column in ("visit", "place")
    ]
    assert found[0].loglik == pytest.approx(found[1].loglik, rel=1e-10)
    assert list(found[0].marginal_covariance().index) == labels


def test_text_before_zero_is_in_order(dental):
    data = dental.assign(visit=dental["age"].map({8: "day -10", 10: "day -1", 12: "day 0", 14: "day 2"}))
    assert list(fitted(data, hl.AR1("visit")).marginal_covariance().index) == ["day -10", "day -1", "day 0", "day 2"]


def test_text_that_is_a_factor_too_tells_no_order(dental):
    data = dental.assign(visit=dental["age"].map({8: "base", 10: "early", 12: "middle", 14: "end"}))
    with pytest.raises(hl.DataError, match=r"order of these in time cannot be told from text[\s\S]*ordered=True"):
        hl.MarginalModel("distance ~ sex * visit", correlation=hl.AR1("visit"), subject="subject", data=data).fit_ml()
    two = data[data["visit"].isin(["base", "end"])]  # neighbours in any order
    model = hl.MarginalModel("distance ~ sex * visit", correlation=hl.AR1("visit"), subject="subject", data=two)
    assert model.fit_ml().converged


def test_an_order_that_cannot_be_told_is_refused(dental):
    data = dental.assign(visit=dental["age"].map({8: "base", 10: "early", 12: "middle", 14: "end"}))
    for spec in (hl.AR1, hl.Toeplitz):
        with pytest.raises(hl.DataError, match=r"order of these in time cannot be told from text[\s\S]*pd.Categorical"):
            fitted(data, spec("visit"))
    with pytest.raises(hl.DataError, match=r"\['age'\]\.astype\('category'\) counts its values"):
        fitted(dental, hl.Toeplitz("age"))
    with pytest.raises(hl.DataError, match="AR1 or Toeplitz to count them"):
        fitted(data, hl.CAR1("visit"))
