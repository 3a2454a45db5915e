"""Predictions: what must be said, and what is refused in words."""

import inspect

import numpy as np
import pandas as pd
import pytest

import hierlmm as hl
from hierlmm.errors import DataError, FormulaError, NotAvailableError, SpecificationError
from hierlmm.fit.posterior import MarginalPosterior

HISTORY = pd.DataFrame({"sex": "Male", "time": [0.0, 2.0], "distance": [25.0, 26.0]})


@pytest.mark.parametrize(
    ("history", "times", "says"),
    [
        (HISTORY.drop(columns="distance"), [4], "'distance'"),
        (HISTORY.drop(columns="sex"), [4], "'sex'"),
        (HISTORY.assign(sex="Unknown"), [4], "Unknown"),
        (HISTORY.assign(sex=["Male", "Female"]), [4], "level-2 variable"),
        (HISTORY.assign(distance=[25.0, np.nan]), [4], "missing values"),
        (HISTORY.assign(distance=[25.0, np.inf]), [4], "infinite"),
        (HISTORY.head(0), [4], "without rows"),
        (HISTORY.assign(subject=1), [4], "count twice"),
        (HISTORY, [1], "come later"),
        (HISTORY, [], "one or more"),
        (HISTORY, [np.nan], "finite"),
    ],
)
def test_histories_that_cannot_be_used(dental_reml, history, times, says):
    with pytest.raises(DataError, match=says):
        dental_reml.predict_subject(history, times)


def test_what_to_predict_must_be_said(dental_reml):
    new = pd.DataFrame({"sex": ["Male"], "time": [4.0]})
    with pytest.raises(SpecificationError, match="neither times nor newdata"):
        dental_reml.predict_subject(HISTORY)
    with pytest.raises(SpecificationError, match="times and newdata"):
        dental_reml.predict_subject(HISTORY, [4], newdata=new)
    with pytest.raises(DataError, match="level-2 variable"):
        dental_reml.predict_subject(HISTORY, newdata=new.assign(sex="Female"))
    with pytest.raises(DataError, match="history without it"):
        dental_reml.predict_subject(HISTORY, newdata=new.assign(subject=98))
    with pytest.raises(DataError, match="no measurements of them"):
        dental_reml.predict_subject(HISTORY.assign(subject=98), newdata=new.assign(subject=99))
    with pytest.raises(SpecificationError, match="ci"):
        dental_reml.predict_subject(HISTORY, [4], interval="prediction", ci=95)
    early = dental_reml.predict_subject(HISTORY, [1], retrospective=True, interval="confidence")
    late = dental_reml.predict_subject(HISTORY, [5], interval="confidence")
    assert early["se"][0] < late["se"][0]


def test_level_1_variables_besides_time_must_be_given(sleepstudy):
    rng = np.random.default_rng(1)
    data = sleepstudy.assign(dose=rng.normal(size=180), extra=rng.normal(size=180))
    fit = hl.TwoLevelModel.from_formula("reaction ~ days + dose + (1 | subject)", data).fit_reml()
    history = data.head(3).assign(subject=999)
    with pytest.raises(SpecificationError, match="'days', 'dose'"):
        fit.predict_subject(history, [4])
    new = pd.DataFrame({"subject": 999, "days": [4.0], "dose": [0.5]})
    with pytest.raises(SpecificationError, match="which of these level-1 variables is the time"):
        fit.predict_subject(history, newdata=new)
    assert len(fit.predict_subject(history, newdata=new, retrospective=True)) == 1
    shifted = hl.TwoLevelModel.from_formula("reaction ~ days + offset(extra) + (1 | subject)", data).fit_reml()
    with pytest.raises(DataError, match="'extra' with more than one value"):
        shifted.predict_subject(history, [4])


def test_a_response_that_depends_on_all_rows_is_refused(sleepstudy):
    history = sleepstudy.head(2).assign(subject=999)
    logged = hl.TwoLevelModel.from_formula("np.log(reaction) ~ days + (1 | subject)", sleepstudy).fit_reml()
    assert 5 < logged.predict_subject(history, [4])["estimate"][0] < 6
    centred = hl.TwoLevelModel.from_formula("center(reaction) ~ days + (1 | subject)", sleepstudy).fit_reml()
    with pytest.raises(FormulaError, match="depend on all rows"):
        centred.predict_subject(history, [4])


def test_requests_that_mean_nothing(sleep_reml, nuts):
    new = pd.DataFrame({"subject": [308], "days": [1.0]})
    for fit in (sleep_reml, nuts):
        with pytest.raises(SpecificationError, match="level"):
            fit.predict(new, level="conditional")
        with pytest.raises(SpecificationError, match="interval"):
            fit.predict(new, interval="tolerance")
        with pytest.raises(SpecificationError, match="ci"):
            fit.predict(new, interval="prediction", ci=1.0)
        with pytest.raises(DataError, match="new_subject"):
            fit.predict(new.assign(subject=999))
        with pytest.raises(DataError, match="'days'"):
            fit.predict(new.drop(columns="days"))
        with pytest.raises(DataError, match="subject"):
            fit.predict(new.drop(columns="subject"))


@pytest.fixture(scope="module")
def dosed(sleepstudy):
    rng = np.random.default_rng(1)
    return sleepstudy.assign(dose=rng.normal(size=180))


@pytest.mark.parametrize("residual", [None, hl.CAR1("days")])
def test_the_time_of_a_dynamic_prediction_can_be_named(dosed, residual):
    """With several level-1 variables; the residual structure names it as well."""
    fit = hl.TwoLevelModel.from_formula("reaction ~ days + dose + (1 | subject)", dosed, residual=residual).fit_reml()
    history = dosed.head(3).assign(subject=999)
    new = pd.DataFrame({"subject": 999, "days": [4.0], "dose": [0.5]})
    named = {} if residual else {"time": "days"}
    found = fit.predict_subject(history, newdata=new, **named)
    pd.testing.assert_frame_equal(found, fit.predict_subject(history, newdata=new, retrospective=True))
    with pytest.raises(DataError, match="come later"):
        fit.predict_subject(history, newdata=new.assign(days=1.0), **named)
    with pytest.raises(DataError, match="'dose' besides 'days'"):  # one measurement: its dose need not stay
        fit.predict_subject(history.head(1), [4], **named)
    for wrong in ("subject", "Days"):
        with pytest.raises(SpecificationError, match="use one of 'days', 'dose'"):
            fit.predict_subject(history, newdata=new, time=wrong)


def test_the_time_of_the_residual_structure_is_the_time(dosed):
    """The one level-1 variable is a dose; it is not taken for the time."""
    model = hl.TwoLevelModel.from_formula("reaction ~ dose + (1 | subject)", dosed, residual=hl.CAR1("days"))
    fit, history = model.fit_reml(), dosed.head(3).assign(subject=999)
    new = pd.DataFrame({"days": [5.0], "dose": [history["dose"].min() - 1], "subject": 999})
    later = fit.predict_subject(history, newdata=new, interval="prediction")
    assert len(later) == 1
    with pytest.raises(DataError, match="come later"):
        fit.predict_subject(history, newdata=new.assign(days=1.5, dose=9.0))
    with pytest.raises(DataError, match="add the column 'days'"):
        fit.predict_subject(history, newdata=new.drop(columns="days"))
    with pytest.raises(DataError, match="'dose' besides 'days'"):
        fit.predict_subject(history, [5])
    constant = hl.TwoLevelModel.from_formula("reaction ~ 1 + (1 | subject)", dosed, residual=hl.CAR1("days")).fit_reml()
    near, far = constant.predict_subject(history, [4, 9], interval="prediction")["se"]
    assert near < far
    with pytest.raises(SpecificationError, match="values of days"):
        constant.predict_subject(history, interval="confidence")


def test_an_absent_column_is_to_be_added(dental_reml):
    new = pd.DataFrame({"subject": [1], "time": [3.0]})
    with pytest.raises(DataError, match="add the column 'sex'") as caught:
        dental_reml.predict(new)
    assert "use one of the columns" not in str(caught.value)
    with pytest.raises(DataError, match="add the column 'subject'"):
        dental_reml.predict(new.assign(sex="Male")[["sex", "time"]])
    with pytest.raises(DataError, match="add the column 'distance'"):
        dental_reml.predict_subject(new.assign(sex="Male", subject=99), [4])


def test_labels_of_another_type_are_named(dental_reml):
    own = dental_reml.design.frame.iloc[[0]]
    with pytest.raises(DataError, match=r"\(str\)(.|\n)*labels of another type, such as 1 \(int") as caught:
        dental_reml.predict(own.assign(subject=own["subject"].astype(str)))
    assert "astype('int64')" in str(caught.value)
    assert len(dental_reml.predict(own.assign(subject=own["subject"].astype(float)))) == 1


def test_a_subject_keeps_its_level_2_covariates(dental_reml):
    own = dental_reml.design.frame.iloc[[0, 1]]
    other = own.assign(sex=["Female" if s == "Male" else "Male" for s in own["sex"]])
    for interval in (None, "confidence"):
        with pytest.raises(DataError, match="in the fitted data it is"):
            dental_reml.predict(other, interval=interval)
    assert len(dental_reml.predict(other, level="new_subject")) == 2
    as_factor = own.assign(sex=pd.Categorical(own["sex"], categories=["other", "Male", "Female"]))
    np.testing.assert_allclose(dental_reml.predict(as_factor), dental_reml.predict(own))


def test_a_numeric_level_2_covariate_is_compared_up_to_rounding(dental):
    data = dental.assign(weight=dental["subject"] / 7.0)
    fit = hl.TwoLevelModel.from_formula("distance ~ time + weight + (1 | subject)", data).fit_reml()
    own = data.head(1)
    np.testing.assert_allclose(
        fit.predict(own.assign(weight=own["weight"] * (1 + 1e-15))), fit.predict(own), rtol=1e-12
    )
    with pytest.raises(DataError, match=r"'weight' = 0\.2"):
        fit.predict(own.assign(weight=0.2))


@pytest.mark.parametrize("factor", ["g", "C(g)"])
@pytest.mark.parametrize("one", [True, 1, 1.0, np.True_, pd.Categorical([1])])
def test_new_data_for_a_factor_of_truth_values(dental, one, factor):
    data = dental.assign(g=dental["subject"] % 2 == 0)
    fit = hl.TwoLevelModel.from_formula(f"distance ~ time + {factor} + (1 | subject)", data).fit_reml()
    found = fit.predict(pd.DataFrame({"time": [1.0], "g": one}), "population")
    assert found["estimate"][0] == pytest.approx(fit.beta.sum())
    for other in (2, "1"):
        with pytest.raises(DataError, match=f"g = {other!r}" if factor == "g" else f"level {other!r}|numbers in this"):
            fit.predict(pd.DataFrame({"time": [1.0], "g": [other]}), "population")


def test_a_marginal_posterior_has_every_level_but_the_subjects(dental):
    model = hl.MarginalModel("distance ~ sex*time", correlation=hl.CompoundSymmetry(), subject="subject", data=dental)
    fit = model.fit(draws=1000, tune=500, chains=2, seed=1, progressbar=False)
    new, reml = dental.head(2), model.fit_reml()
    tables = {level: fit.predict(new, level, "prediction") for level in ("population", "new_subject", "marginal")}
    for level, table in tables.items():
        pd.testing.assert_frame_equal(table, tables["marginal"])
        assert table.attrs["level"] == level and "random effects drawn" not in table.attrs["estimate"]
        expected = reml.predict(new, level, "prediction")
        np.testing.assert_allclose(table["se"], expected["se"], rtol=0.15)
    lines = fit.predict(new, "new_subject", kind="draws")
    np.testing.assert_allclose(lines.mean(("chain", "draw")), tables["marginal"]["estimate"])
    with pytest.raises(NotAvailableError, match="not what a subject has of its own"):
        fit.predict(new, "subject", "prediction")
    assert not fit.predict(new, interval="prediction", seed=1).equals(fit.predict(new, interval="prediction", seed=2))


def test_a_marginal_fit_says_which_arguments_it_has(dental):
    model = hl.MarginalModel("distance ~ time", correlation=hl.CompoundSymmetry(), subject="subject", data=dental)
    two_level = inspect.signature(hl.LikelihoodFit.predict).parameters
    assert list(inspect.signature(type(model.fit_reml()).predict).parameters) == list(two_level)
    own = inspect.signature(MarginalPosterior.predict).parameters
    assert list(own) == list(inspect.signature(hl.PosteriorFit.predict).parameters)


def test_gee_has_no_dynamic_prediction(dental):
    fit = hl.MarginalModel(
        "distance ~ sex*time", correlation=hl.CompoundSymmetry(), subject="subject", data=dental
    ).fit_gee()
    for method in (fit.predict_subject, fit.plot_subject_prediction):
        with pytest.raises(NotAvailableError, match="no distribution of a subject's measurements"):
            method(HISTORY, [4])


def test_structures_are_named_as_users_write_them():
    data = hl.load_dataset("sleepstudy")
    variance = hl.VarPower()
    fit = hl.TwoLevelModel.from_formula("reaction ~ days + (1 | subject)", data, residual_variance=variance).fit_reml()
    with pytest.raises(NotAvailableError) as refused:
        fit.predict_subject(data[data["subject"] == 308].assign(subject=1), times=[10])
    assert refused.value.received.endswith(" under VarPower()")
