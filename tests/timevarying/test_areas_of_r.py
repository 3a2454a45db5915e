"""Areas and values between visits of the cirrhosis trial, against R."""

import json

import numpy as np
import pandas as pd
import pytest
from references import data_elsewhere, references_of

import hierlmm as hl

REFERENCE = references_of("time_varying")


def test_areas_of_the_cirrhosis_trial_are_those_of_r():
    pbc = hl.load_dataset("pbc")
    ref = json.loads((REFERENCE / "pbc.json").read_text())
    shuffled = pbc.sample(frac=1, random_state=1)
    built = hl.time_varying(
        shuffled,
        {"trap": hl.Cumulative("protime"), "step": hl.Cumulative("protime", rule="step")},
        subject="subject",
        time="year",
    ).data.sort_index()
    assert built["subject"].head(ref["n"]).tolist() == ref["id"]
    year = (pbc["day"] / 365.25).to_numpy()
    np.testing.assert_allclose(pbc["year"], year, rtol=1e-14)
    np.testing.assert_allclose(built["trap"].head(ref["n"]), ref["trap"], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(built["step"].head(ref["n"]), ref["step"], rtol=1e-12, atol=1e-12)
    assert built["trap"].sum() == pytest.approx(ref["sum_trap_all"], rel=1e-12)
    assert built["step"].sum() == pytest.approx(ref["sum_step_all"], rel=1e-12)


def test_values_between_visits_are_those_of_r():
    pbc = hl.load_dataset("pbc")
    ref = json.loads((REFERENCE / "pbc.json").read_text())
    rows = pbc.head(ref["n"])[["subject", "year"]].assign(year=lambda d: d["year"] + 0.5)
    built = hl.time_varying(
        rows,
        {
            "linear": hl.Interpolate("protime", future=True),
            "carried": hl.LastValue("protime"),
            "area": hl.Cumulative("protime", future=True),
        },
        subject="subject",
        time="year",
        history=pbc,
    ).data
    linear = np.array(ref["linear"])
    np.testing.assert_allclose(built["linear"], linear, rtol=1e-12)
    np.testing.assert_allclose(built["carried"], ref["carried"], rtol=1e-12)
    np.testing.assert_allclose(built["area"], ref["area"], rtol=1e-12)


def test_the_areas_of_the_published_copy():
    pbc2 = pd.read_csv(data_elsewhere("pbc2_cumprothrombin")).sample(frac=1, random_state=1)
    rules = {"a": hl.Cumulative("prothrombin"), "b": hl.Cumulative("prothrombin", rule="step")}
    built = hl.time_varying(pbc2, rules | {"c": hl.Cumulative("prothrombin", origin=0)}, subject="id", time="year").data
    np.testing.assert_allclose(built["a"], built["cum_trap"], rtol=0, atol=1e-10)
    np.testing.assert_allclose(built["c"], built["cum_trap"], rtol=0, atol=1e-10)
    np.testing.assert_allclose(built["b"], built["cum_locf"], rtol=0, atol=1e-10)


@pytest.mark.parametrize("rule", ["trapezoid", "step"])
def test_the_cumulative_effect_of_prothrombin_is_that_of_nlme(rule):
    ref = json.loads((REFERENCE / "pbc_fits.json").read_text())["trap" if rule == "trapezoid" else "step"]
    pbc = hl.load_dataset("pbc")
    data = hl.time_varying(pbc, {"area": hl.Cumulative("protime", rule=rule)}, subject="subject", time="year").data
    fit = hl.TwoLevelModel.from_formula(
        "log(bili) ~ ns(year, 2) + sex + age + area + (ns(year, 2) || subject)", data
    ).fit_reml()
    # The years of the shipped copy differ from R's by up to 0.0004.
    np.testing.assert_allclose(fit.beta, ref["coef"], rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(fit.beta_se, ref["se"], rtol=1e-3)
    assert fit.loglik == pytest.approx(ref["logLik"], abs=1e-3)
