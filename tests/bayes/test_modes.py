"""NUTS where the posterior of the covariance parameters has several modes: chains begin in each, and it is said."""

from dataclasses import replace

import numpy as np
import pytest

import hierlmm as hl
from hierlmm.bayes.collapsed import collapsed_posterior
from hierlmm.bayes.nuts import Settings
from hierlmm.bayes.priors import resolve_priors
from hierlmm.bayes.sample_collapsed import mode_notes, sample_theta


@pytest.fixture(scope="module")
def posterior():
    model = hl.TwoLevelModel.from_formula("distance ~ time + (1 | subject)", hl.load_dataset("dental"))
    return collapsed_posterior(model.design, resolve_priors(None, model.design))


def test_the_mode_is_stationary_and_alone(posterior):
    assert len(posterior.modes) == 1
    assert np.abs(posterior.log_density(posterior.modes[0])[1]).max() < 1e-3


def test_chains_begin_in_each_mode_and_keep_their_places(posterior):
    """A second starting point stands in for a second mode: the draws are those of the one posterior all the same."""
    away = posterior.mode + posterior.root @ np.array([2.0, 0.0])
    two = replace(posterior, modes=np.stack([posterior.mode, away]))
    options = {"tune": 500, "draws": 1000, "target_accept": 0.9, "cores": None, "progressbar": False}
    theta, statistics, _ = sample_theta(two, Settings(chains=3, seed=5, **options))
    assert theta.shape == (3, 1000, 2)
    assert statistics.sizes["chain"] == 3
    single = {"chains": 2, "seed": 5, **options}
    first, _, _ = sample_theta(replace(posterior, modes=two.modes[:1]), Settings(**single))
    np.testing.assert_array_equal(theta[[0, 2]], first)  # chains of the first mode: a run of its own
    z = np.linalg.solve(posterior.root, (theta.reshape(-1, 2) - posterior.mode).T)
    assert np.all(np.abs(z.mean(axis=1)) < 0.5)


class Two:
    """A posterior with modes at ±10 standard deviations."""

    modes = np.array([[0.0, 0.0], [10.0, 0.0]])
    mode, root, signed = modes[0], np.eye(2), np.array([], dtype=int)


def test_chains_in_different_modes_are_named():
    rng = np.random.default_rng(1)
    theta = rng.normal(size=(4, 200, 2)) + Two.modes[[0, 1, 0, 1]][:, None]
    (note,) = mode_notes(Two(), theta)
    assert "mode 1: chains 1, 3; mode 2: chains 2, 4" in note


def test_chains_that_visit_both_modes_are_told_apart():
    rng = np.random.default_rng(2)
    theta = rng.normal(size=(4, 200, 2)) + Two.modes[rng.integers(0, 2, (4, 200))]
    (note,) = mode_notes(Two(), theta)
    assert "2 modes, and every chain visits each" in note


def test_one_mode_needs_no_words(posterior):
    assert mode_notes(posterior, np.zeros((2, 10, len(posterior.mode)))) == ()
