"""Residual parameters by group, and ante-dependence: against nlme and likelihoods written out in R."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from references import data_elsewhere, reference

import hierlmm as hl
from hierlmm.errors import DataError, HierlmmError

ANTE = {"correlation": hl.AnteDependence("AVISIT")}
HETEROGENEOUS = {**ANTE, "variance": hl.VarIdent("AVISIT")}
FEV = {
    "fev_ad_own_ml": ANTE,
    "fev_adh_own_reml": HETEROGENEOUS,
    "fev_adh_arm_own_reml": {**HETEROGENEOUS, "group": "ARMCD"},
    "fev_un_arm_own_reml": {"correlation": hl.UnstructuredHeterogeneous("AVISIT"), "group": "ARMCD"},
    "fev_ar1_arm_own_reml": {"correlation": hl.AR1("visit"), "group": "ARMCD"},
    "fev_varident_arm_gls_reml": {"group": "ARMCD"},
}
DENTAL = {
    "dental_un_sex_gls_reml": {"correlation": hl.UnstructuredHeterogeneous("age")},
    "dental_ar1_sex_gls_ml": {"correlation": hl.AR1()},
    "dental_cs_sex_own_reml": {"correlation": hl.CompoundSymmetry()},
    "dental_toep_sex_own_ml": {"correlation": hl.Toeplitz()},
}


def fitted(name, model):
    fit = model.fit_reml() if name.endswith("reml") else model.fit_ml()
    assert fit.converged and not fit.warnings
    return fit


def by_sex(**options):
    data = hl.load_dataset("dental")
    return hl.MarginalModel("distance ~ sex * time", subject="subject", data=data, group="sex", **options)


@pytest.fixture(scope="module")
def fev():
    data = pd.read_csv(data_elsewhere("fev")).dropna(subset="FEV1")
    return data.assign(visit=data["AVISIT"].str[3:].astype(int))


@pytest.mark.parametrize("name", FEV)
def test_a_trial_has_the_likelihood_written_out(fev, name):
    ref = reference(name, "trial")
    fit = fitted(name, hl.MarginalModel("FEV1 ~ ARMCD * AVISIT + RACE + SEX", subject="USUBJID", data=fev, **FEV[name]))
    assert fit.loglik == pytest.approx(ref["logLik"], rel=1e-9)
    coef = ref["coef"] if isinstance(ref["coef"], list) else list(ref["coef"].values())
    se = ref["se"] if isinstance(ref["se"], list) else list(ref["se"].values())
    np.testing.assert_allclose(sorted(fit.beta), sorted(coef), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(sorted(fit.beta_se), sorted(se), rtol=1e-5)
    # V of subjects seen at all visits, by group.
    everybody = fev.groupby("USUBJID")["visit"].nunique() == 4
    for pattern, V in zip(np.atleast_1d(ref.get("patterns", [])), ref.get("V", []), strict=True):
        own = everybody[everybody].index
        if pattern.count("|"):
            arm = pattern.split("|")[1].split()[0]
            own = own.intersection(fev.loc[fev["ARMCD"] == arm, "USUBJID"])
        np.testing.assert_allclose(fit.marginal_covariance(own[0]), V, rtol=2e-4, atol=2e-3)


@pytest.mark.parametrize("name", DENTAL)
def test_groups_are_those_of_nlme_and_of_the_likelihood_written_out(name):
    ref, fit = reference(name, "trial"), fitted(name, by_sex(**DENTAL[name]))
    assert fit.loglik == pytest.approx(ref["logLik"], rel=1e-9)
    for V in ref["V"]:  # of girls and of boys, in the order of R
        found = [fit.marginal_covariance(s).to_numpy() for s in (1, 20)]
        assert min(np.abs(own - V).max() for own in found) < 2e-4
    if len(np.atleast_1d(ref.get("sigma", 0.0))) == 2:
        ratio = fit.residual_estimate.parameters["ratio(Male/Female)"]
        np.testing.assert_allclose(sorted([fit.sigma, fit.sigma * ratio]), sorted(ref["sigma"]), rtol=1e-4)


def test_groups_without_a_correlation_are_a_variance_for_each():
    dental = hl.load_dataset("dental")
    formula = "distance ~ sex * time + (1 | subject)"
    one = hl.TwoLevelModel.from_formula(formula, dental, residual_group="sex")
    two = hl.TwoLevelModel.from_formula(formula, dental, residual_variance=hl.VarIdent("sex"))
    first, second = one.fit_reml(), two.fit_reml()
    assert first.loglik == pytest.approx(second.loglik, rel=1e-12)
    table = first.variance_components(method="profile").drop(index=["sigma[Female]", "sigma[Male]"])
    pd.testing.assert_frame_equal(table, second.variance_components(method="profile"), rtol=1e-5)
    assert one.residual_group == "sex" and one.residual_variance is None
    assert str(one.priors) == str(two.priors)


@pytest.mark.parametrize("method", ["wald", "profile"])
def test_sigma_of_every_group_is_that_of_a_model_that_begins_with_the_group(method):
    dental = hl.load_dataset("dental")
    tables = {}
    for order in (["Female", "Male"], ["Male", "Female"]):
        data = dental.assign(sex=pd.Categorical(dental["sex"], order))
        options = {"residual_group": "sex", "residual": hl.AR1()}
        fit = hl.TwoLevelModel.from_formula("distance ~ sex * time + (1 | subject)", data, **options).fit_reml()
        tables[order[0]] = fit.variance_components(method=method)
    for own, table in tables.items():
        pd.testing.assert_series_equal(table.loc["sigma"], table.loc[f"sigma[{own}]"], check_names=False, rtol=1e-6)
        for other in tables:
            expected = tables[other].loc["sigma"]
            pd.testing.assert_series_equal(table.loc[f"sigma[{other}]"], expected, check_names=False, rtol=2e-4)


def test_equal_groups_are_one():
    """Both groups the same data: each has the parameters of one group alone, and the likelihood is twice that."""
    males = hl.load_dataset("dental").query("sex == 'Male'").drop(columns="sex")
    both = pd.concat([males.assign(g="a"), males.assign(g="b", subject=males["subject"] + 100)], ignore_index=True)
    options = {"subject": "subject", "correlation": hl.AnteDependence("age"), "variance": hl.VarIdent("age")}
    alone = hl.MarginalModel("distance ~ time", data=males, **options).fit_ml()
    fit = hl.MarginalModel("distance ~ g * time", data=both, group="g", **options).fit_ml()
    assert fit.loglik == pytest.approx(2.0 * alone.loglik, rel=1e-10)
    own, found = alone.residual_estimate.parameters, fit.residual_estimate.parameters
    assert found["ratio(b/a)"] == pytest.approx(1.0, rel=1e-5)
    for name, value in own.items():
        assert found[f"{name}[a]"] == pytest.approx(value, rel=1e-4)
        assert found[f"{name}[b]"] == pytest.approx(value, rel=1e-4)


def test_a_fit_by_group_answers_like_any_other(tmp_path):
    model = by_sex(correlation=hl.AnteDependence("age"), variance=hl.VarIdent("age"))
    fit = model.fit_reml()
    assert model.group == "sex" and model.variance == hl.VarIdent("age")
    text = str(fit)
    assert (
        "parameters by sex" in text and "sex = Female:" in text and "group='sex', SD = sigma[sex] · ratio[age]" in text
    )
    table = fit.variance_components()
    assert {"rho(8, 10)[Female]", "rho(8, 10)[Male]", "ratio(Male/Female)", "ratio(14/8)[Male]"} <= set(table.index)
    male, female = fit.marginal_covariance(20).to_numpy(), fit.marginal_covariance(1).to_numpy()
    for who, V in (("Male", male), ("Female", female)):
        implied = fit.implied_marginal(times=[8, 10, 12, 14], at={"sex": who})
        np.testing.assert_allclose(np.diag(implied.correlation), 1.0)
        R = V / np.sqrt(np.outer(np.diag(V), np.diag(V)))
        np.testing.assert_allclose(implied.correlation, R, atol=1e-10)
        assert R[0, 2] == pytest.approx(R[0, 1] * R[1, 2], rel=1e-10)
        assert R[0, 3] == pytest.approx(R[0, 1] * R[1, 2] * R[2, 3], rel=1e-10)
    new = pd.DataFrame({"sex": ["Male", "Female"], "time": 0.0, "age": 8, "subject": [500, 501]})
    wide = fit.predict(new, level="new_subject", interval="prediction")
    assert wide["se"].iloc[0] ** 2 - male[0, 0] < 1.0 and wide["se"].iloc[0] > np.sqrt(male[0, 0])
    assert wide["se"].iloc[1] > np.sqrt(female[0, 0])
    fit.save(tmp_path / "fit.nc")
    loaded = hl.load_fit(tmp_path / "fit.nc")
    assert loaded.design.residual_group == "sex" and str(loaded) == text
    latex = model.equations(fit).latex
    assert r"\text{ for }\mathrm{Male}" in latex and "0.5" in latex


SMALL = hl.load_dataset("dental").assign(once="a", own=lambda d: d["subject"], late=lambda d: d["age"] > 10)
BAD = {
    "varies": ({"group": "late"}, r"groups by 'late'[\s\S]*it varies within subject 1 \(rows 0, 1, 2, 3\)"),
    "one value": ({"group": "once"}, "which has one value, 'a'"),
    "one subject": ({"group": "own"}, "groups by 'own' with one subject in 1"),
    "unknown": ({"group": "nothing"}, "nothing"),
    "response": ({"group": "distance"}, "the response 'distance' in a residual structure"),
}


@pytest.mark.parametrize("case", BAD)
def test_groups_that_cannot_be_used(case):
    options, words = BAD[case]
    with pytest.raises(HierlmmError, match=words) as caught:
        hl.MarginalModel("distance ~ time", correlation=hl.AR1(), subject="subject", data=SMALL, **options)
    assert caught.value.remedy and caught.value.see


@pytest.mark.parametrize(
    ("kept", "spec", "words"),
    [
        (lambda d: d["age"] != 14, hl.Unstructured, "rows at both 8 and 14 of 'age', in sex 'Female'"),
        (lambda d: d["age"] != 10, hl.AnteDependence, "rows at both 8 and 10 of 'age', in sex 'Female'"),
        (lambda d: (d["age"] != 14) | (d["subject"] == 1), hl.UnstructuredHeterogeneous, "in sex 'Female'"),
    ],
)
def test_visits_that_a_group_lacks_are_named(kept, spec, words):
    dental = hl.load_dataset("dental")
    data = dental[(dental["sex"] == "Male") | kept(dental)]
    with pytest.raises(DataError, match=words):
        hl.MarginalModel("distance ~ sex + time", correlation=spec("age"), group="sex", subject="subject", data=data)


def test_ante_dependence_needs_neighbours_only():
    """Nobody is seen at 8 and at 14, which their neighbours stand for; unstructured correlations are refused."""
    dental = hl.load_dataset("dental")
    data = dental[
        ((dental["subject"] % 2 == 0) | (dental["age"] != 14)) & ((dental["subject"] % 2 == 1) | (dental["age"] != 8))
    ]
    options = {"subject": "subject", "data": data}
    fit = hl.MarginalModel("distance ~ sex + time", correlation=hl.AnteDependence("age"), **options).fit_reml()
    assert fit.converged and list(fit.residual_estimate.parameters) == ["rho(8, 10)", "rho(10, 12)", "rho(12, 14)"]
    with pytest.raises(DataError, match="0 subjects with rows at both 8 and 14"):
        hl.MarginalModel("distance ~ sex + time", correlation=hl.Unstructured("age"), **options)


def test_equal_correlations_of_neighbours_are_ar1():
    spec, t = hl.AnteDependence("age"), np.arange(5.0)
    np.testing.assert_allclose(
        spec.matrix(t[[0, 2, 3]], np.full(4, -0.6)), hl.AR1("age").matrix(t[[0, 2, 3]], np.array([-0.6])), rtol=1e-13
    )
    with pytest.raises(HierlmmError, match="its first argument is the name of the column"):
        hl.AnteDependence(3)


NESTED = {
    "AR1 in ante-dependence": ({"correlation": hl.AR1("visit")}, {"correlation": hl.AnteDependence("visit")}, 2),
    "ante-dependence in unstructured": (
        {"correlation": hl.AnteDependence("visit")}, {"correlation": hl.Unstructured("visit")}, 3,
    ),
    "one group": ({"correlation": hl.AR1("visit")}, {"correlation": hl.AR1("visit"), "group": "sex"}, 2),
    "variances only": ({"variance": hl.VarIdent("sex")}, {"correlation": hl.AR1("visit"), "group": "sex"}, 2),
}  # fmt: skip


@pytest.mark.parametrize("case", NESTED)
def test_are_parameters_equal_in_all_groups(case):
    data = hl.load_dataset("dental").assign(visit=lambda d: (d["age"] // 2).astype(int))
    small, large, df = NESTED[case]
    fits = [
        hl.MarginalModel("distance ~ sex * time", subject="subject", data=data, **o).fit_ml() for o in (small, large)
    ]
    row = hl.anova(*fits).table.iloc[1]
    assert row["df"] == df and row["chisq"] == pytest.approx(2.0 * (fits[1].loglik - fits[0].loglik), rel=1e-8)
    weighted = hl.MarginalModel("distance ~ sex * time", subject="subject", data=data, weights="age", **large).fit_ml()
    with pytest.raises(HierlmmError, match="weights"):
        hl.anova(fits[0], weighted)
