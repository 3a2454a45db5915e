"""The covariance of a trial: visits by visits, with the names of the visits, whoever stands first in the table."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import hierlmm as hl

VISITS = ["week 8", "week 10", "week 12", "week 14"]


@pytest.fixture(scope="module")
def trial(dental):
    """Visits by name; the first girl and the first boy miss some, and the table has no order."""
    data = dental.assign(visit="week " + dental["age"].astype(int).astype(str))
    missed = data["subject"].isin([1, 12]) & data["age"].isin([8, 12])
    return data[~missed].sample(frac=1.0, random_state=3)


def fitted(trial, **options):
    return hl.MarginalModel("distance ~ sex * time", subject="subject", data=trial, **options).fit_ml()


@pytest.mark.parametrize("spec", [hl.UnstructuredHeterogeneous("visit"), hl.AnteDependence("visit")], ids=str)
def test_all_visits_are_there_by_name_and_in_order(trial, spec):
    fit = fitted(trial, correlation=spec)
    V = fit.marginal_covariance()
    assert V.index.tolist() == V.columns.tolist() == VISITS and V.index.name == "visit"
    rows = trial.index[trial["subject"] == 2]  # who has all four, in the order of the table
    own = fit.marginal_covariance(2)
    assert set(own.index) == set(rows)
    seen = trial.loc[own.index, "visit"]
    np.testing.assert_allclose(own, V.loc[seen, seen], rtol=1e-12)
    assert fit.marginal_covariance(1).shape == (2, 2)


def test_every_group_has_its_matrix(trial):
    fit = fitted(trial, correlation=hl.AR1("age"), variance=hl.VarIdent("visit"), group="sex")
    found = fit.marginal_covariance()
    assert found.index.names == ["sex", "age"] and found.shape == (8, 4)
    for sex, subject in (("Female", 2), ("Male", 13)):
        own = fit.marginal_covariance(subject)
        ages = trial.loc[own.index, "age"]
        np.testing.assert_allclose(own, found.loc[sex].loc[ages, ages], rtol=1e-12)
    assert np.abs(found.loc["Female"] - found.loc["Male"]).to_numpy().min() > 1e-3


@pytest.mark.parametrize(
    "options",
    [
        {"correlation": hl.AR1("age"), "variance": hl.VarIdent("sex")},
        {"correlation": hl.AR1("age"), "weights": "subject"},
        {"correlation": hl.CompoundSymmetry()},
    ],
    ids=["by sex", "weights", "no visits"],
)
def test_what_depends_on_more_is_of_one_subject(trial, options):
    fit = fitted(trial, **options)
    pd.testing.assert_frame_equal(fit.marginal_covariance(), fit.marginal_covariance(1))


@pytest.mark.parametrize(("correlation", "time"), [("unstructured", "visit"), ("ar1", "age")])
def test_gee_has_all_visits(trial, correlation, time):
    model = hl.MarginalModel("distance ~ sex + visit", subject="subject", data=trial, correlation=hl.AR1("age"))
    fit = model.fit_gee(correlation, time=time)
    R, V = fit.working_correlation(), fit.marginal_covariance()
    assert R.index.tolist() == R.columns.tolist() == (VISITS if time == "visit" else [8, 10, 12, 14])
    own = fit.working_correlation(2)
    seen = trial.loc[own.index, time]
    np.testing.assert_allclose(own, R.loc[seen, seen], rtol=1e-12)
    np.testing.assert_allclose(V, fit.scale * R, rtol=1e-12)


def test_the_heat_map_has_the_names_of_the_visits(trial):
    picture = fitted(trial, correlation=hl.Unstructured("visit")).implied_marginal(draws=0).plot_heatmap()
    figure = picture.get_viz("figure")
    written = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert written == VISITS and figure.axes[0].get_xlabel() == "visit"
