"""What every posterior answers, and that draws do not depend on the number of threads."""

from __future__ import annotations

import numpy as np
import pytest

import hierlmm as hl
from hierlmm.bayes.collapsed_residual import posterior_of
from hierlmm.bayes.posterior import Posterior
from hierlmm.bayes.priors import resolve_priors
from hierlmm.bayes.sample import ExplicitPosterior

FORMULA = "distance ~ time + (1 + time | subject)"
THREADS = (1, 2, 3, 5)


def design(dental, residual=None, formula=FORMULA):
    return hl.TwoLevelModel.from_formula(formula, dental, residual=residual).design


@pytest.fixture(params=[None, hl.AR1("time")], ids=["independent", "AR1"])
def posterior(dental, request):
    made = design(dental, request.param)
    return posterior_of(made, resolve_priors(None, made))


def recovered(posterior, random_effects):
    """β, and b or its summary, from 41 draws: no number of threads but one divides them."""
    theta = posterior.mode + np.random.default_rng(1).normal(scale=0.1, size=(41, len(posterior.mode)))
    found = posterior.conditional(theta, np.random.default_rng(2), random_effects)
    return found.natural.beta, *((found.b,) if random_effects == "draws" else found.summary)


@pytest.mark.parametrize("random_effects", ["draws", "summary"])
def test_any_number_of_threads_gives_the_same(posterior, random_effects, monkeypatch):
    found = []
    for threads in THREADS:
        monkeypatch.setattr("hierlmm.threads.THREADS", threads)
        found.append(recovered(posterior, random_effects))
    for other in found[1:]:
        for first, second in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(first, second)


def test_a_posterior_names_what_it_samples_and_has_its_gradient(posterior):
    asked: Posterior = posterior
    assert asked.names[-1] == ("log sigma" if posterior.n_theta == len(posterior.mode) else "rho")
    assert [name.split(" ", 1)[1] for name in asked.names[:3]] == ["sd(Intercept)", "sd(time)", "corr(Intercept, time)"]
    assert len(asked.names) == len(posterior.mode)
    gradient_of(asked, posterior.mode + 0.1)


def test_the_explicit_hierarchy_answers_the_same_questions(dental):
    made = design(dental, formula="distance ~ time + (1 | subject)")
    asked: Posterior = ExplicitPosterior(made, resolve_priors(None, made))
    assert set(asked.names) == {"beta_centered", "sd_b", "z", "sigma"}
    gradient_of(asked, np.full(2 + 1 + 27 + 1, 0.3))
    raw = {"beta_centered": np.ones((1, 4, 2)), "sd_b": np.ones((1, 4, 1)), "sigma": np.ones((1, 4))}
    draws, groups = asked.recover(raw | {"z": np.ones((1, 4, 27, 1))}, np.random.default_rng(1), "draws")
    assert groups == {}
    np.testing.assert_array_equal(draws["b"], 1.0)


def gradient_of(posterior, theta):
    value, gradient = posterior.log_density(theta)
    step = 1e-5 * np.random.default_rng(1).normal(size=len(theta))
    difference = posterior.log_density(theta + step)[0] - posterior.log_density(theta - step)[0]
    assert np.isfinite(value)
    assert difference == pytest.approx(2.0 * gradient @ step, rel=1e-5, abs=1e-8)
