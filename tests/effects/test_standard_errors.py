"""The same standard errors through every door, and who has no choice of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import hierlmm as hl
from hierlmm.errors import NotAvailableError, SpecificationError


def refused(call, kind, *words):
    with pytest.raises(kind) as caught:
        call()
    for part in ("Received:", "Why not:", "To do:", "Read:", *words):
        assert part in str(caught.value), (part, str(caught.value))


KINDS = ("empirical", "empirical-jackknife", "empirical-bias-reduced")


@pytest.fixture(scope="module")
def fit(dental):
    return hl.TwoLevelModel.from_formula("distance ~ sex * time + (1 + time | subject)", dental).fit_reml()


@pytest.mark.parametrize("se", KINDS)
def test_every_door_has_the_same_standard_errors(fit, se):
    table = fit.summary(se=se)
    sex, slope = "sex[T.Male]", "sex[T.Male]:time"
    assert abs(table.loc[sex, "se"] / fit.beta_se[sex] - 1.0) > 0.005
    of_sex, of_slope = (table.loc[name, ["se", "df"]].astype(float) for name in (sex, slope))
    one = fit.contrasts("sex", at={"time": 0.0}, se=se).table.iloc[0]
    np.testing.assert_allclose(one[["se", "df"]].astype(float), of_sex, rtol=1e-9)
    np.testing.assert_allclose(fit.marginal_means("sex", at={"time": 0.0}, se=se).table["se"][0], table["se"].iloc[0])
    slopes = fit.slopes("time", by="sex", se=se).contrasts().table.iloc[0]
    np.testing.assert_allclose(slopes[["se", "df"]].astype(float), of_slope, rtol=1e-9)
    test = fit.hypothesis(f"{slope} = 0", se=se).table.iloc[0]
    np.testing.assert_allclose(test[["se", "df"]].astype(float), of_slope, rtol=1e-9)
    terms = fit.anova(se=se)
    assert terms.attrs["se"] == se
    np.testing.assert_allclose(terms.loc["sex:time", "F"], table.loc[slope, "t"] ** 2, rtol=1e-9)
    curve = fit.effects("time", by="sex", at={"time": [0.0, 6.0]}, se=se).table
    np.testing.assert_allclose(curve["se"].iloc[0], table["se"].iloc[0], rtol=1e-9)
    spread = fit.heterogeneity("Intercept", se=se).table
    half = (spread["mean_upper"] - spread["mean_lower"]).iloc[0]
    plain = fit.heterogeneity("Intercept").table
    assert half != pytest.approx((plain["mean_upper"] - plain["mean_lower"]).iloc[0], rel=1e-3)


def test_tables_and_sentences_say_which_standard_errors_they_have(fit):
    assert "empirical (sandwich) standard errors" in str(fit.contrasts("sex", se="empirical"))
    assert "bias reduction" in str(fit.hypothesis("time = 0", se="empirical-bias-reduced"))
    assert "jackknife" in str(fit.interpret(se="empirical-jackknife").text)
    assert "sandwich" not in str(fit.contrasts("sex"))


def test_synonyms_and_slips(fit):
    np.testing.assert_allclose(fit.summary(df="satterthwaite", se="model"), fit.summary(df="satterthwaite"))
    np.testing.assert_allclose(fit.summary(se="Empirical_Jackknife"), fit.summary(se="empirical-jackknife"))
    for theirs, own in {"CR0": 0, "sandwich": 0, "CR3": 1, "cr2": 2}.items():
        pd.testing.assert_frame_equal(fit.summary(se=theirs), fit.summary(se=KINDS[own]))
    refused(lambda: fit.contrasts("sex", se="robust"), SpecificationError, "empirical-bias-reduced")
    refused(lambda: fit.contrasts("sex", df="kr", se="empirical"), NotAvailableError, "leave se out")


def test_other_fits_have_their_own(dental):
    model = hl.TwoLevelModel.from_formula("distance ~ sex * time + (1 | subject)", dental)
    refused(lambda: model.fit_gee().contrasts("sex", se="empirical"), NotAvailableError, "model.fit_gee(se='robust')")
    counts = dental.assign(n=dental["distance"].round().astype(int))
    poisson = hl.TwoLevelModel.from_formula("n ~ time + (1 | subject)", counts, family="poisson").fit_ml()
    refused(lambda: poisson.anova(se="empirical"), NotAvailableError, "model.fit_gee()")


def test_a_posterior_has_none_to_choose(dental_posterior):
    refused(lambda: dental_posterior.contrasts("sex", se="empirical"), NotAvailableError, "leave se out")


def test_a_fit_without_its_rows_says_what_it_needs(dental, tmp_path):
    model = hl.MarginalModel("distance ~ sex * time", correlation=hl.AR1(), subject="subject", data=dental)
    fit = model.fit_reml()
    without = hl.load_fit(fit.save(tmp_path / "fit.nc", data=False))
    for asked in ({"df": "kenward-roger"}, {"se": "empirical"}):
        refused(lambda asked=asked: without.summary(**asked), NotAvailableError, "data=...")
    with_rows = hl.load_fit(tmp_path / "fit.nc", data=dental)
    np.testing.assert_allclose(with_rows.summary(df="kr")["se"], fit.summary(df="kr")["se"])
