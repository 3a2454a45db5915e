"""Bayes factors: two roads to one number, what they rest on, and what has none."""

from __future__ import annotations

import numpy as np
import pytest

import hierlmm as hl
from hierlmm.errors import DataError, FitWarning, NotAvailableError, SpecificationError

LINE, LEVEL = "distance ~ sex + time + (1 | subject)", "distance ~ time + (1 | subject)"


@pytest.fixture(scope="module")
def line(dental):
    return hl.TwoLevelModel.from_formula(LINE, dental)


@pytest.fixture(scope="module")
def line_nuts(line):
    return line.fit(seed=1, progressbar=False, random_effects="none")


@pytest.fixture(scope="module")
def factor(line, dental):
    return hl.bayes_factor(line, hl.TwoLevelModel.from_formula(LEVEL, dental), labels=["sex", "no sex"])


def test_savage_dickey_is_the_ratio_of_marginal_likelihoods(line_nuts, factor):
    found = line_nuts.savage_dickey("sex[T.Male] = 0")
    assert found.error < 0.05
    assert abs(found.log_bf + factor.log_bf) < 4.0 * found.error
    assert found.probability == pytest.approx(1.0 - factor.probability, abs=4.0 * found.error)


def test_savage_dickey_beside_residual_structures(dental):
    kind = {"correlation": hl.AR1(), "variance": hl.VarIdent("sex"), "subject": "subject", "data": dental}
    whole, part = (hl.MarginalModel(f"distance ~ {x}time", **kind) for x in ("sex + ", ""))
    found = whole.fit(seed=1, progressbar=False).savage_dickey("sex[T.Male] = 0")
    exact = hl.bayes_factor(part, whole)
    assert abs(found.log_bf - exact.log_bf) < 4.0 * np.hypot(found.error, exact.error)


def test_two_equalities_together_and_another_value(line_nuts):
    alone = line_nuts.savage_dickey("time = 0.6")
    with pytest.raises(SpecificationError, match="follows from the others"):
        line_nuts.savage_dickey(["time = 0.6", "2 * time = 1.2"])
    both = line_nuts.savage_dickey("time = 0.6, sex[T.Male] = 2")
    assert both.log_bf > alone.log_bf > 0.0  # the data speak for both values
    curve = alone.curves
    assert np.trapezoid(curve["posterior"], curve["value"]) == pytest.approx(1.0, abs=1e-3)
    at = np.interp(0.6, curve["value"], curve["posterior"])
    assert np.log(at) == pytest.approx(alone.table["log_posterior_density"].iloc[0], abs=1e-3)
    with pytest.raises(NotAvailableError, match="one equality"):
        both.plot(backend="none")


def test_far_out_it_says_so(line_nuts):
    with pytest.warns(FitWarning, match="far out"):
        found = line_nuts.savage_dickey("time = 0")
    assert found.log_bf < -20.0


def test_probabilities_are_those_of_bayes_theorem(line, factor, dental):
    level = hl.TwoLevelModel.from_formula(LEVEL, dental)
    found = hl.model_probabilities(line, level, prior=[0.2, 0.8]).table
    odds = 0.25 * np.exp(factor.log_bf)
    assert found["probability"].iloc[0] == pytest.approx(odds / (1.0 + odds), rel=1e-10)
    assert found["probability"].sum() == pytest.approx(1.0)
    assert hl.bayes_factor(level, line).log_bf == pytest.approx(-factor.log_bf)
    assert factor.probability == pytest.approx(1.0 / (1.0 + np.exp(-factor.log_bf)))
    assert np.exp(factor.log_bf) == pytest.approx(factor.bf)


def test_print_says_what_it_rests_on(factor, line, dental):
    text = " ".join(repr(factor).split())
    assert "times as probable under 'sex' as under 'no sex': they hardly tell the two apart" in text
    assert "depends on the priors" in text and "uses the data twice" in text
    other = hl.TwoLevelModel.from_formula(LEVEL, dental, priors=hl.Priors(sigma=hl.HalfNormal(1)))
    assert "sigma has HalfNormal(1) there" in " ".join(repr(hl.bayes_factor(line, other)).split())


def test_a_fit_and_its_model_have_the_same(line, line_nuts):
    found = line_nuts.log_marginal_likelihood()
    assert float(found) == pytest.approx(hl.model_probabilities(line, line).table["log_marginal_likelihood"].iloc[0])
    assert "quadrature over 2 covariance parameters" in " ".join(repr(found).split())


def test_other_data_are_refused(line, dental, line_nuts):
    log = hl.TwoLevelModel.from_formula("np.log(distance) ~ time + (1 | subject)", dental)
    with pytest.raises(SpecificationError, match="another density"):
        hl.bayes_factor(line, log)
    fewer = hl.TwoLevelModel.from_formula(LEVEL, dental.iloc[4:])
    with pytest.raises(DataError, match="the same data"):
        hl.bayes_factor(line, fewer)
    with pytest.raises(NotAvailableError, match="averages the likelihood over the priors"):
        hl.bayes_factor(line, line.fit_reml())
    with pytest.raises(NotAvailableError, match="needs no fit"):
        line.fit_reml().log_marginal_likelihood()
    with pytest.raises(SpecificationError, match="inequality is a region"):
        line_nuts.savage_dickey("time > 0")
    with pytest.raises(SpecificationError, match="no coefficient"):
        line_nuts.savage_dickey("tim = 0")
    for of, name in (("sd(Intercept) = 0", "sd(Intercept)"), (["time = 0", "sigma = 2"], "sigma")):
        with pytest.raises(NotAvailableError, match="no closed form") as refused:
            line_nuts.savage_dickey(of)
        assert f"savage_dickey of {name}" in str(refused.value) and "hl.bayes_factor(" in str(refused.value)
    with pytest.raises(SpecificationError, match="two or more"):
        hl.model_probabilities(line)
    with pytest.raises(SpecificationError, match="sum to 1"):
        hl.model_probabilities(line, line, prior=[0.5, 0.6])
