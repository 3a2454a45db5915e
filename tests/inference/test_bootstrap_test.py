"""The bootstrap likelihood-ratio test: where its distribution is known, its refusals, and what it says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import chi2, f

import hierlmm as hl
from hierlmm.inference.bootstrap_test import BootstrapTest, bootstrap_lrt
from hierlmm.likelihood.solution import AnyCriterion


@pytest.fixture(scope="module")
def dyestuff():
    data = hl.load_dataset("dyestuff")
    model = hl.MarginalModel("yield ~ 1", subject="batch", data=data)
    return model.fit_reml(), hl.TwoLevelModel.from_formula("yield ~ 1 + (1 | batch)", data).fit_reml()


def test_one_variance_of_a_balanced_design_has_the_exact_p_of_anova(dyestuff):
    """The restricted likelihood ratio is a monotone function of F = MSA / MSE, whose distribution is known."""
    found = bootstrap_lrt(*dyestuff, 600, seed=1, progressbar=False)
    y = hl.load_dataset("dyestuff")["yield"].to_numpy().reshape(6, 5)
    F = 5 * y.mean(axis=1).var(ddof=1) / y.var(axis=1, ddof=1).mean()
    exact = f.sf(F, 5, 24)
    assert abs(found.p - exact) < 4 * np.sqrt(exact * (1 - exact) / 600) + 1 / 601
    # F below 1 has a likelihood ratio of zero.
    below = f.cdf(1.0, 5, 24)
    assert abs(np.mean(found.draws < 1e-7) - below) < 4 * np.sqrt(below * (1 - below) / 600)
    assert "boundary" in str(found) and found.df == 1


def test_p_and_its_error():
    test = BootstrapTest(3.0, 1, np.array([0.0, 1.0, 3.0, 5.0]), 4, (), "ML", 1, "a", "b")
    assert test.p == 3 / 5
    assert test.mcse == pytest.approx(np.sqrt(0.6 * 0.4 / 4))
    assert test.table.loc["bootstrap", "p"] == test.p


def test_a_fixed_effect_is_near_chi2_with_many_subjects(sleepstudy, sleep_ml):
    smaller = hl.TwoLevelModel.from_formula("reaction ~ 1 + (1 + days | subject)", sleepstudy).fit_ml()
    found = bootstrap_lrt(smaller, sleep_ml, 200, seed=2, progressbar=False)
    assert found.statistic == pytest.approx(23.5365375, abs=1e-5)  # sleepstudy_lrt: lme4
    assert found.p == 1 / 201
    share = np.mean(found.draws > chi2.ppf(0.5, 1))  # 18 subjects: somewhat above χ²
    assert abs(share - 0.53) < 4 * 0.5 / np.sqrt(200)


def test_an_optimum_that_is_missed_is_sought_again(monkeypatch, sleep_intercepts, sleep_ml):
    """Were refits to stop anywhere, the larger model would fit worse than the one inside it."""
    from hierlmm.inference import refits
    from hierlmm.likelihood import refit
    from hierlmm.likelihood.maximise import maximise

    calls = []

    def lazy(criterion: AnyCriterion, start):
        found = maximise(criterion, np.zeros(len(start)))
        return found if len(start) == 1 else replace(found, value=found.value + 50.0)

    monkeypatch.setattr(refit, "maximise_again", lazy)
    monkeypatch.setattr(refits, "maximise", lambda criterion: calls.append(1) or maximise(criterion))
    found = bootstrap_lrt(sleep_intercepts, sleep_ml, 3, seed=1, cores=1, progressbar=False)
    assert len(calls) == 6 and np.all(found.draws < 20.0)


def test_refits_that_fail_are_said(monkeypatch, dyestuff):
    from hierlmm.inference.refits import Refitter

    real, calls = Refitter.to_response, []

    def sometimes(self, y):
        calls.append(1)
        if len(calls) % 5 == 1:
            raise hl.DataError("these data", "they are unlucky", "draw others")
        return real(self, y)

    monkeypatch.setattr(Refitter, "to_response", sometimes)
    found = bootstrap_lrt(*dyestuff, 20, seed=1, cores=1, progressbar=False)
    assert len(found.failures) == 20 - len(found.draws) > 2
    assert "could not be fitted" in str(found) and "they are unlucky" in found._repr_html_()
    monkeypatch.setattr(Refitter, "to_response", lambda self, y: (_ for _ in ()).throw(hl.DataError("x", "no", "y")))
    with pytest.raises(hl.DataError, match="none of 3 could be fitted"):
        bootstrap_lrt(*dyestuff, 3, seed=1, cores=1, progressbar=False)


def test_fits_that_cannot_be_compared(sleep_reml, sleep_ml, dental_reml, sleepstudy):
    # Rows in another order have the same likelihood, but a response drawn from one model is not in the other's order.
    sorted_by_days = hl.TwoLevelModel.from_formula("reaction ~ days + (1 | subject)", sleepstudy.sort_values("days"))
    for pair, reason in (
        ((sleep_reml, sleep_ml), "one is by REML and the other by ML"),
        ((sleep_reml, dental_reml), "the responses are reaction and distance"),
        ((sorted_by_days.fit_reml(), sleep_reml), "not in the same order"),
        (
            (hl.TwoLevelModel.from_formula("reaction ~ 1 + (1 + days | subject)", sleepstudy).fit_reml(), sleep_reml),
            "restricted likelihoods of different fixed effects",
        ),
    ):
        with pytest.raises((hl.SpecificationError, hl.DataError), match=reason):
            bootstrap_lrt(*pair, 5, progressbar=False)
    gee = hl.TwoLevelModel.from_formula("reaction ~ days + (1 | subject)", sleepstudy).fit_gee()
    with pytest.raises(hl.NotAvailableError, match="maximum likelihood"):
        bootstrap_lrt(gee, gee, 5, progressbar=False)


def test_counts(patients):
    fits = []
    for fixed in ("week", "week * arm"):
        model = hl.TwoLevelModel.from_formula(
            f"seizures ~ {fixed} + (1 | patient)", patients, family="negative_binomial"
        )
        fits.append(model.fit_ml())
    found = bootstrap_lrt(*fits, 3, seed=3, progressbar=False)
    assert found.df == 2 and len(found.draws) == 3 and np.all(found.draws >= 0.0)
