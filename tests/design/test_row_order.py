"""Structures that count rows say so where the rows are in the order of no time, and only there."""

import warnings

import numpy as np
import pandas as pd
import pytest

import hierlmm as hl
from hierlmm.design.questions import row_order_messages
from hierlmm.errors import FitWarning

FIXED = "distance ~ sex * age"


@pytest.fixture(scope="module")
def dental():
    return hl.load_dataset("dental")


@pytest.fixture(scope="module")
def mixed(dental):
    return dental.sample(frac=1.0, random_state=5).reset_index(drop=True)


def warned(make):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = make()
    assert all(w.category is FitWarning for w in caught)
    return model, [str(w.message) for w in caught]


def marginal(data, formula=FIXED, correlation=None, **more):
    options = {"correlation": hl.AR1() if correlation is None else correlation, "subject": "subject", **more}
    return hl.MarginalModel(formula, data=data, **options)


@pytest.mark.parametrize("name", ["AR1", "Toeplitz"])
def test_rows_out_of_order_are_said_by_model_and_fit(mixed, name):
    model, (message,) = warned(lambda: marginal(mixed, correlation=getattr(hl, name)()))
    own = mixed.groupby("subject")["age"].apply(lambda t: not (t.is_monotonic_increasing or t.is_monotonic_decreasing))
    first = mixed.loc[mixed["subject"] == own.index[own][0], "age"]
    assert 0 < own.sum() < 27
    assert f"in {own.sum()} of 27 subjects they are not in the order of age" in message
    assert f"(subject {own.index[own][0]}: age {', '.join(map(str, first))})" in message
    assert f"{name}('occasion')" in message and "sort the data by it" in message
    assert "Read: docs, page 'Residual structures', section 'The order of the rows'" in message
    assert message in model.fit_reml().warnings and "Note: " in repr(model.fit_reml())


def test_two_level_models_say_it_too(mixed):
    formula = "distance ~ sex * age + (1 | subject)"
    _, messages = warned(lambda: hl.TwoLevelModel.from_formula(formula, mixed, residual=hl.AR1()))
    assert len(messages) == 1 and "order of age" in messages[0]
    with pytest.warns(FitWarning, match="order of age"):
        hl.TwoLevelModel("distance ~ age", {}, subject="subject", data=mixed, residual=hl.AR1(), random="Intercept")


def test_the_remedies_take_it_away(mixed, dental):
    fitted = marginal(dental).fit_reml()
    for data, correlation in (
        (mixed.sort_values("age"), hl.AR1()),
        (mixed.sort_values("age", ascending=False), hl.AR1()),  # backwards is as good
        (mixed.assign(occasion=(mixed["age"] - 6) // 2), hl.AR1("occasion")),
    ):
        model, messages = warned(lambda d=data, c=correlation: marginal(d, correlation=c))
        assert not messages
        assert model.fit_reml().loglik == pytest.approx(fitted.loglik, abs=1e-8)


def test_it_is_silent_where_nothing_is_wrong_or_nothing_can_be_known(mixed, dental):
    rng = np.random.default_rng(1)
    other = dental.assign(dose=rng.normal(size=len(dental)), on=rng.integers(0, 2, len(dental)))
    silent = (
        lambda: marginal(dental),
        lambda: marginal(mixed, correlation=hl.CompoundSymmetry()),
        lambda: marginal(mixed, formula="distance ~ sex"),  # no time
        lambda: marginal(other, formula=f"{FIXED} + dose"),  # in order of age
        lambda: marginal(other, formula=f"{FIXED} + I(age > 10) + on"),
        lambda: marginal(other, formula="distance ~ sex + on"),  # a time has no ties
        lambda: marginal(other, formula="distance ~ sex + dose", variance=hl.VarExp("age")),
        lambda: marginal(dental.assign(age="a" + dental["age"].astype(str)), formula="distance ~ sex + age"),
        lambda: marginal(dental.assign(days=dental["age"] + dental["subject"].factorize()[0]), "distance ~ days"),
    )
    for make in silent:
        assert warned(make)[1] == []
    _, (message,) = warned(lambda: marginal(other.sample(frac=1.0, random_state=2), formula=f"{FIXED} + dose"))
    assert "not in the order of any of age, dose" in message and "sort the data by time first" in message


def test_a_posterior_keeps_the_note(mixed, monkeypatch):
    from hierlmm.bayes import route
    from hierlmm.bayes.record import PosteriorRecord

    seen = {}

    def sampled(design, priors, **options):
        seen.update(options)
        return PosteriorRecord(design, None, priors, "NUTS")

    monkeypatch.setattr(route, "sample_collapsed", sampled)
    model, (message,) = warned(lambda: marginal(mixed))
    model.fit()
    assert message in seen["notes"]
    assert isinstance(model.data, pd.DataFrame)


@pytest.mark.parametrize("labels", ["ordered", "text"])
def test_labelled_visits_are_a_time_that_rows_are_in_the_order_of(labels):
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({"s": np.repeat(np.arange(12), 4), "visit": np.tile(["V1", "V2", "V10", "V11"], 12)})
    if labels == "ordered":
        names = ["base", "one", "two", "end"]
        frame["visit"] = pd.Categorical(np.tile(names, 12), names, ordered=True)
    frame["y"] = rng.normal(size=48)
    in_order = hl.MarginalModel("y ~ visit", subject="s", data=frame, correlation=hl.AR1()).design
    assert row_order_messages(in_order) == []
    shuffled = frame.sample(frac=1.0, random_state=1)
    with pytest.warns(hl.FitWarning, match="visit"):
        hl.MarginalModel("y ~ visit", subject="s", data=shuffled, correlation=hl.AR1())


def test_labels_of_treatments_are_no_time():
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({"s": np.repeat(np.arange(12), 4), "drug": rng.permuted([list("pqrs")] * 12, axis=1).ravel()})
    frame["y"] = rng.normal(size=48)
    assert row_order_messages(hl.MarginalModel("y ~ drug", subject="s", data=frame, correlation=hl.AR1()).design) == []
