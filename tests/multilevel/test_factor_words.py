"""Several factors in plain words."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import hierlmm as hl
from hierlmm.fits.by_factor import ByFactor

build = hl.MultilevelModel.from_formula


def test_nested_factors_in_words(nested):
    told = nested.interpret(units={"strength": "kg"})
    text = " ".join(told.text.split())
    assert "60 rows in 30 groups of batch:cask and 10 groups of batch, fitted by REML." in text
    assert "The mean of strength in the population is 60.05 kg" in text
    assert "Groups of batch:cask differ in their mean of strength with an SD of 2.904 kg" in text
    assert "groups of batch:cask lie within 5.692 kg of the average of those of one batch." in text
    assert "groups of batch lie within 2.523 kg of the average of all." in text
    assert "78.3 % lies between groups of batch:cask, 15.4 % lies between groups of batch and 6.3 % lies within" in text
    assert "most of it between groups of batch:cask" in text
    assert "Two rows of one batch:cask correlate by 0.94 (30 pairs of rows)." in text
    assert "Two rows of one batch, but not of one batch:cask, correlate by 0.15 (120 pairs of rows)." in text
    assert "subject" not in text
    facts = told.facts.set_index(["section", "fact"])["value"]
    half = 1.96 * nested.sd_b["batch:cask"].iloc[0]
    assert facts["How much groups differ", "half"].iloc[0] == pytest.approx(half, rel=1e-4)


def test_slopes_and_crossed_factors_in_words(fit):
    text = " ".join(fit.interpret().text.split())
    assert "160 rows in 24 groups of school:class, 8 groups of school and 5 groups of rater" in text
    assert "Of the grouping factors, school:class is nested in school;" in text  # names begin no sentence
    assert "school and rater are crossed" in text
    assert "Groups of school differ in their mean of y where x = 0 with an SD of" in text
    assert "Groups of school differ in their coefficient of x with an SD of" in text
    assert "per unit of x of the average of all" in text  # x goes with kind: no one average coefficient
    assert "Two rows of one school:class and one rater correlate by" in text
    assert "Two rows of one school, but not of one school:class or rater, correlate by" in text
    assert "Two rows of one rater, but not of one school, correlate by" in text  # and so of other classes
    assert "With random slopes the variance divides in another way" in text


def test_a_factor_without_variance_in_words(pastes):
    rows = pastes.assign(strength=pastes["strength"] - pastes.groupby("batch")["strength"].transform("mean"))
    text = " ".join(build("strength ~ 1 + (1 | batch / cask)", rows).fit_reml().interpret().text.split())
    assert "groups of batch do not differ in their mean of strength: the SD is estimated as 0" in text


def test_the_range_of_slopes_in_words(pupils):
    fit = build("y ~ x + (1 + x || school) + (1 | rater)", pupils).fit_ml()
    low, high = (fit.beta["x"] + sign * 1.959964 * fit.sd_b["school"]["x"] for sign in (-1, 1))
    facts = fit.interpret().facts.set_index("fact")["value"]
    np.testing.assert_allclose([facts["low"], facts["high"]], [low, high], rtol=1e-6)


def test_rows_need_no_labels_of_their_own(nested, pastes):
    """Two tables one below the other keep the labels of both."""
    rows = pastes.set_axis([0] * len(pastes))
    assert build("strength ~ 1 + (1 | batch / cask)", rows).fit_reml().interpret().text == nested.interpret().text


def test_values_by_factor_print_as_values():
    table = pd.DataFrame({"Intercept": np.arange(12.0)}, index=pd.Index(range(12), name="g"))
    shown = repr(ByFactor("b", {"g": table, "h": np.zeros((2, 3))}))
    assert "b['g']" in shown and "11.0" in shown and "(12 rows)" in shown
    assert shown.endswith("b['h']\narray of 2 × 3")
    assert "1.5" in repr(ByFactor("sd_b", {"g": pd.Series({"Intercept": 1.5})}))


@pytest.fixture(scope="module")
def growth():
    """Visits of patients, more of them in later hospitals; the arm and age of a patient, the beds of a hospital."""
    rng = np.random.default_rng(5)
    hospital = np.repeat(np.arange(6), np.arange(2, 8))
    patient = np.arange(len(hospital))
    people = pd.DataFrame({"hospital": hospital, "patient": patient, "arm": np.where(patient % 2, "drug", "placebo")})
    people["age"] = rng.integers(30, 70, len(people))
    people["beds"] = (100 + 10 * people["hospital"] ** 2).astype(float)
    rows = people.loc[people.index.repeat(4)].assign(visit=np.tile(np.arange(4), len(people)))
    rows["rater"] = rng.integers(0, 4, len(rows))
    rows["years"] = np.array([3.0, 5.0, 11.0, 17.0])[rows["rater"]]
    rows["y"] = 30 + rows["visit"] * (1 - 0.6 * (rows["arm"] == "drug")) + rng.normal(size=6)[rows["hospital"]]
    rows["y"] += rng.normal(size=len(people))[rows["patient"]] + rng.normal(size=len(rows))
    return rows.reset_index(drop=True)


def test_slopes_by_a_factor_of_the_inner_groups_in_words(growth):
    fit = build("y ~ arm * visit + age + beds + (1 | hospital / patient)", growth).fit_ml()
    told, beta = fit.interpret(), fit.beta
    text = " ".join(told.text.split())
    assert "The slope of the mean of y on visit in the population with arm = placebo is" in text
    assert "The slope of the mean on visit: the difference, arm = placebo minus arm = drug, is" in text
    assert "The slope of the mean on visit is taken by the model as the same whatever age and beds is" in text
    assert "belong together" not in text and "extrapolation" not in text and "age = 0" not in text
    people, hospitals = growth.groupby("patient").first(), growth.groupby("hospital").first()
    age, beds = people["age"].mean(), hospitals["beds"].mean()
    assert f"arm = drug, age = {age:.4g} (the mean) and beds = {beds:.4g} (the mean)" in text
    drug = beta["Intercept"] + age * beta["age"] + beds * beta["beds"]
    wanted = [drug, drug + beta["arm[T.placebo]"], beta["visit"], beta["visit"] + beta["arm[T.placebo]:visit"]]
    facts = told.facts[told.facts["fact"] == "estimate"].groupby("section")["value"]
    np.testing.assert_allclose(facts.get_group("The mean"), wanted)
    wanted = [beta[name] for name in ("arm[T.placebo]", "age", "beds", "arm[T.placebo]:visit")]
    np.testing.assert_allclose(facts.get_group("Differences in the mean"), wanted)


def test_covariates_of_crossed_factors_stand_at_their_means_in_words(growth):
    fit = build("y ~ visit + age + years + (1 + visit | patient) + (1 | rater)", growth).fit_ml()
    age, years = (growth.groupby(own).first()[name].mean() for own, name in (("patient", "age"), ("rater", "years")))
    told = f"with age = {age:.4g} (the mean) and years = {years:.4g} (the mean) is"
    assert told in " ".join(fit.interpret().text.split())


def test_curves_are_said_to_be_drawn_along_numbers(pupils):
    fit = build("y ~ kind * x + (1 | school) + (1 | rater)", pupils).fit_ml()
    assert "fit.plot_effects('x'), fit.marginal_means('kind')" in " ".join(fit.interpret().text.split())
    fit.plot_effects("x", backend="none")
