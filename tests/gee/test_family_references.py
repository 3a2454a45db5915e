"""GEE of other families against geepack, QIC included."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from references import HERE, align, reference, references_of

import hierlmm as hl

NAMES = sorted(path.stem for path in references_of("generalized_gee").glob("*.json"))
CLOSE = 1e-7


@pytest.fixture(scope="module", params=NAMES)
def pair(request):
    ref = reference(request.param, "generalized_gee")
    data = pd.read_csv(HERE / "data" / "generalized.csv").astype({"group": "category", "treat": "category"})
    formula = (
        ref["formula"]
        .replace(" + offset(log(exposure))", "")
        .replace("cbind(successes, trials - successes)", "successes")
    )
    more = {"exposure": "exposure"} if "exposure" in ref["formula"] else {}
    more |= {"trials": "trials"} if "cbind" in ref["formula"] else {}
    model = hl.TwoLevelModel.from_formula(f"{formula} + (1 | group)", data, family=ref["family"], **more)
    return ref, model.fit_gee(ref["correlation"], scale="n")


def test_coefficients_and_standard_errors_are_those_of_geepack(pair):
    ref, fit = pair
    assert fit.converged and fit.family.link == ref["link"]
    names, se = fit.beta.index, fit.standard_errors()
    np.testing.assert_allclose(fit.beta, align(ref["coef"], names), rtol=CLOSE)
    np.testing.assert_allclose(se["robust"], align(ref["se_robust"], names), rtol=CLOSE)
    if "se_naive" in ref:  # not with trials, which geepack leaves out of the variance
        np.testing.assert_allclose(se["naive"], align(ref["se_naive"], names), rtol=CLOSE)
        assert fit.scale == pytest.approx(ref["scale"], rel=CLOSE)
        np.testing.assert_allclose(fit.correlation_parameters, np.ravel(ref["alpha"] or []), rtol=CLOSE)


def test_qic_is_that_of_geepack(pair):
    ref, fit = pair
    ours = fit.qic()
    assert ours["QIC"] == pytest.approx(-2 * ours["quasi-likelihood"] + 2 * ours["CIC"], rel=1e-12)
    for theirs, name in (("QIC", "QIC"), ("QICu", "QICu"), ("Quasi Lik", "quasi-likelihood"), ("CIC", "CIC")):
        if "qic" in ref:
            assert ours[name] == pytest.approx(ref["qic"][theirs], rel=CLOSE)
