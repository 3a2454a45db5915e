"""Many subjects: a nearly normal posterior is recognised and tuned briefly; moments of b do not depend on threads."""

from __future__ import annotations

import numpy as np
import pytest
from draws import largest_difference

import hierlmm as hl
from hierlmm import threads
from hierlmm.bayes import sample_collapsed
from hierlmm.bayes.collapsed import collapsed_posterior
from hierlmm.bayes.moments import TILE, summarise_random_effects
from hierlmm.bayes.recover import recover_beta
from hierlmm.bayes.sample_collapsed import nearly_normal

FORMULA = "y ~ time + (time | subject)"


def grown(n_subjects, *, irregular=False, sigma=10.0, D=((600.0, 10.0), (10.0, 35.0))):
    return hl.simulate(
        beta={"Intercept": 250.0, "time": 10.0},
        D=[list(row) for row in D],
        sigma=sigma,
        random=["Intercept", "time"],
        n_subjects=n_subjects,
        times=np.arange(4.0),
        irregular=irregular,
        seed=1,
    )


@pytest.fixture(scope="module")
def many():
    return hl.TwoLevelModel.from_formula(FORMULA, grown(2500))


@pytest.fixture(scope="module")
def brief(many):
    return many.fit(seed=1, progressbar=False)


def of(*arguments, formula=FORMULA, **options):
    model = hl.TwoLevelModel.from_formula(formula, grown(*arguments, **options))
    return collapsed_posterior(model.design, model.priors)


def settings(fit):
    return fit.datatree.attrs["tune"], fit.datatree.attrs["target_accept"]


def steps(fit):
    return float(fit.sample_stats["n_steps"].mean())


def test_brief_tuning_has_the_same_posterior_by_fewer_steps(many, brief):
    long = many.fit(tune=1000, target_accept=0.9, draws=2000, seed=2, progressbar=False)
    assert settings(brief) == (200, 0.7)
    assert settings(long) == (1000, 0.9)
    for name in ("beta", "sd_b", "corr_b", "sigma"):
        assert largest_difference(brief, long, name) < 4
        assert largest_difference(brief, long, name, "sd") < 4
    found = brief.convergence()
    assert found.ok
    assert found.min_ess_bulk > 2500
    assert steps(brief) < 3.5
    assert steps(brief) < 0.75 * steps(long)


def test_what_is_asked_for_stays(many):
    fit = many.fit(tune=300, draws=500, seed=1, target_accept=0.85, progressbar=False)
    assert settings(fit) == (300, 0.85)


def test_few_subjects_and_crooked_posteriors_are_tuned_as_ever(many, monkeypatch):
    few = hl.TwoLevelModel.from_formula(FORMULA, grown(60))
    assert settings(few.fit(draws=400, seed=1, progressbar=False)) == (1000, 0.9)
    assert not nearly_normal(of(60))
    assert nearly_normal(collapsed_posterior(many.design, many.priors))
    assert not nearly_normal(of(2500, sigma=25.0))  # slopes that the data hardly determine
    # a variance of zero: the standard deviation is held as a signed number, on whose scale the density is no normal one
    posterior = of(2500, formula="y ~ time + (1 | subject)", D=((1e-4, 0.0), (0.0, 1e-4)))
    assert len(posterior.signed)
    assert not nearly_normal(posterior)
    monkeypatch.setattr(sample_collapsed, "CROOKED", 1e-9)
    assert not nearly_normal(collapsed_posterior(many.design, many.priors))


def test_moments_of_b_do_not_depend_on_the_number_of_threads(monkeypatch):
    model = hl.TwoLevelModel.from_formula(FORMULA, grown(5 * TILE + 7, irregular=True))
    posterior = collapsed_posterior(model.design, model.priors)
    theta = posterior.mode + np.random.default_rng(1).normal(scale=0.1, size=(20, len(posterior.mode)))
    natural = recover_beta(posterior, theta, np.random.default_rng(2))
    found = []
    for number in (1, 2, 4):
        monkeypatch.setattr(threads, "THREADS", number)
        found.append(summarise_random_effects(posterior, natural))
    for mean, sd in found[1:]:
        np.testing.assert_array_equal(mean, found[0][0])
        np.testing.assert_array_equal(sd, found[0][1])
