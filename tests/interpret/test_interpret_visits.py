"""A trial in words: visits, arms and their covariance, nothing of parameters that only the program knows."""

from __future__ import annotations

import numpy as np
import pytest

import hierlmm as hl


@pytest.fixture(scope="module")
def trial(dental):
    return dental.assign(visit="week " + dental["age"].astype(int).astype(str))


def around(fit):
    return [s for s in fit.interpret().sentences if s.section == "Around the mean"]


def fitted(trial, **options):
    return hl.MarginalModel("distance ~ sex * visit", subject="subject", data=trial, **options).fit_reml()


def test_sds_and_correlations_are_those_of_the_visits(trial):
    fit = fitted(trial, correlation=hl.UnstructuredHeterogeneous("visit"))
    sds, pairs = around(fit)
    V = fit.marginal_covariance()
    for visit in V.index:
        assert sds.facts[f"sd({visit})"] == pytest.approx(np.sqrt(V.loc[visit, visit]), rel=1e-12)
        assert f"{np.sqrt(V.loc[visit, visit]):.4g} at {visit}" in sds.text
    R = V / np.sqrt(np.outer(np.diag(V), np.diag(V)))
    for k, first in enumerate(V.index):
        for second in V.index[k + 1 :]:
            assert f"{R.loc[first, second]:.4g} at {first} and {second} (95 % confidence interval" in pairs.text
    whole = str(fit.interpret())
    for word in ("Unstructured", "rho", "ratio of 1", "random effect", "VarIdent"):
        assert word not in whole


def test_every_arm_is_told(trial):
    fit = fitted(trial, correlation=hl.AnteDependence("visit"), group="sex")
    first, second, females, males = around(fit)
    table = fit.variance_components()
    for sentence, sex in ((first, "Female"), (second, "Male")):
        assert sentence.text.startswith(f"Measurements of subjects with sex = {sex} scatter")
        assert sentence.facts["sd"] == pytest.approx(table.loc[f"sigma[{sex}]", "estimate"], rel=1e-9)
        assert sentence.facts["upper"] == pytest.approx(table.loc[f"sigma[{sex}]", "upper"], rel=1e-9)
    for sentence, sex in ((females, "Female"), (males, "Male")):
        names = [f"rho(week {a}, week {b})[{sex}]" for a, b in ((8, 10), (10, 12), (12, 14))]
        assert [sentence.facts[name] for name in names] == table.loc[names, "estimate"].tolist()
        assert "at neighbouring values of visit" in sentence.text
