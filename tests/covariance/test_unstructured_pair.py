"""One name for `Unstructured` with `VarIdent` of the same column: the model, nlme's and SAS's numbers, and words."""

import json

import pandas as pd
import pytest
from references import data_elsewhere, references_of

import hierlmm as hl
from hierlmm.errors import SpecificationError

REFERENCE = references_of("residual")
# SAS PROC MIXED, TYPE=UN, FEV1 ~ ARMCD * AVISIT + RACE + SEX: -2 log-likelihood, up to 1.3e-5 above the optimum.
SAS_UN = {"REML": 3386.44987722, "ML": 3397.57220025}


def marginal(data, **structure):
    return hl.MarginalModel("distance ~ sex * time", subject="subject", data=data, **structure)


@pytest.fixture(scope="module")
def dental():
    return hl.load_dataset("dental")


@pytest.mark.parametrize("method", ["fit_reml", "fit_ml"])
def test_it_is_the_explicit_pair_and_nlmes(dental, method):
    one = getattr(marginal(dental, correlation=hl.UnstructuredHeterogeneous("age")), method)()
    two = getattr(marginal(dental, correlation=hl.Unstructured("age"), variance=hl.VarIdent("age")), method)()
    assert one.loglik == pytest.approx(two.loglik, abs=1e-10)
    pd.testing.assert_frame_equal(one.variance_components(), two.variance_components(), rtol=1e-10)
    assert repr(one) == repr(two)
    reference = json.loads((REFERENCE / f"pr_gls_un_{method.removeprefix('fit_')}.json").read_text())
    assert one.loglik == pytest.approx(reference["logLik"], abs=1e-6)


def test_beside_random_effects_it_is_the_pair_too(dental):
    formula = "distance ~ sex * time + (0 + time | subject)"
    pair = {"residual": hl.Unstructured("age"), "residual_variance": hl.VarIdent("age")}
    one = hl.TwoLevelModel.from_formula(formula, dental, residual=hl.UnstructuredHeterogeneous("age"))
    two = hl.TwoLevelModel.from_formula(formula, dental, **pair)
    assert (one.residual, one.residual_variance) == (two.residual, two.residual_variance) == tuple(pair.values())
    by_levels = hl.TwoLevelModel(
        "distance ~ time", {"Intercept": "sex", "time": "sex"}, subject="subject", data=dental,
        random="time", residual=hl.UnstructuredHeterogeneous("age"),
    )  # fmt: skip
    assert (by_levels.residual, by_levels.residual_variance) == tuple(pair.values())


@pytest.mark.parametrize("method", ["REML", "ML"])
def test_it_is_un_of_sas(method):
    data = pd.read_csv(data_elsewhere("fev")).dropna(subset=["FEV1"])
    model = hl.MarginalModel(
        "FEV1 ~ ARMCD * AVISIT + RACE + SEX", correlation=hl.UnstructuredHeterogeneous("AVISIT"), subject="USUBJID",
        data=data,
    )  # fmt: skip
    fit = model.fit_reml() if method == "REML" else model.fit_ml()
    assert -2 * fit.loglik == pytest.approx(SAS_UN[method], abs=2e-5)
    assert fit.n_parameters == len(fit.beta) + 10


def test_a_second_variance_and_a_missing_column_are_refused(dental):
    with pytest.raises(SpecificationError, match="the variance is said twice"):
        marginal(dental, correlation=hl.UnstructuredHeterogeneous("age"), variance=hl.VarIdent("sex"))
    with pytest.raises(SpecificationError, match=r"UnstructuredHeterogeneous\('time'\)"):
        hl.UnstructuredHeterogeneous("")
    with pytest.raises(SpecificationError, match=r"hl\.VarIdent"):
        marginal(dental, variance=hl.UnstructuredHeterogeneous("age"))


def test_unstructured_alone_says_that_it_has_one_variance(dental):
    says = "one for all occasions; the UN of SAS has one for each, UnstructuredHeterogeneous('age')"
    alone = marginal(dental, correlation=hl.Unstructured("age"))
    fit = alone.fit_reml()
    for text in (alone, fit):
        assert says in " ".join(repr(text).split())
        assert says.replace("'", "&#x27;") in text._repr_html_()
    assert "one variance for all" in " ".join(hl.Unstructured.__doc__.split())
    for structure in (
        {"correlation": hl.UnstructuredHeterogeneous("age")},
        {"correlation": hl.Unstructured("age"), "variance": hl.VarIdent("sex")},
        {"correlation": hl.AR1()},
    ):
        model = marginal(dental, **structure)
        assert says not in " ".join(repr(model).split()) + repr(model.fit_reml())
