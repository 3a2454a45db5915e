"""Replications of counts and of yes and no: their laws at known parameters, by sums and integrals."""

from __future__ import annotations

import numpy as np
import pytest
from generalised_cases import data_of, model_of
from scipy import stats

import hierlmm as hl
from hierlmm.bayes.family_replications import FamilyReplicator, replicator_of
from hierlmm.bayes.replications import Draw

BETA, SD = np.array([0.5, 0.1, 0.2]), 0.9
GRID = np.linspace(-8.0, 8.0, 4001)


def draw_of(design, b=None):
    return Draw(BETA, np.array([[SD]]), 1.0, np.empty(0), b)


def of_means(name, eta):
    return np.exp(eta) if name == "poisson" else 1.0 / (1.0 + np.exp(-eta))


@pytest.mark.parametrize(("name", "link", "pmf"), [("poisson", "log", stats.poisson), ("bernoulli", "logit", None)])
def test_rows_left_out_have_their_law(name, link, pmf):
    """Mean and probability of zero given the subject's other rows, by integrals over b on a grid."""
    rows = data_of(name, link).sample(frac=1.0, random_state=0)  # in no order
    design = hl.TwoLevelModel.from_formula("y ~ x + w + (1 | subject)", rows, family=name).design
    replicator, rng = FamilyReplicator(design), np.random.default_rng(1)
    found = replicator.again(draw_of(design), np.tile(design.y, (300, 1)), rng, 8).reshape(-1, design.n_obs)
    pmf = stats.bernoulli if pmf is None else pmf
    mean = of_means(name, (design.X @ BETA)[:, None] + SD * GRID)
    log_rows = pmf.logpmf(design.y[:, None], mean)
    for r in (0, 6, 13, 31):
        others = np.flatnonzero(design.subject_index == design.subject_index[r])
        weight = stats.norm.logpdf(GRID) + log_rows[others[others != r]].sum(axis=0)
        weight = np.exp(weight - weight.max())
        weight /= weight.sum()
        expected, zero = weight @ mean[r], weight @ pmf.pmf(0, mean[r])
        assert found[:, r].mean() == pytest.approx(expected, abs=0.03 * (1 + expected))
        assert np.mean(found[:, r] == 0) == pytest.approx(zero, abs=0.04)


def test_rows_of_subjects_old_and_new():
    design = model_of("poisson", "log", "1").design
    replicator, rng = replicator_of(design), np.random.default_rng(2)
    b = np.random.default_rng(3).normal(size=(design.n_subjects, 1))
    same = replicator.replicate(draw_of(design, b), "subject", rng, 4000).mean(axis=0)
    new = replicator.replicate(draw_of(design), "new_subject", rng, 20_000).mean(axis=0)
    line = design.X @ BETA
    np.testing.assert_allclose(same, np.exp(line + b[design.subject_index, 0]), rtol=0.1)
    np.testing.assert_allclose(new, np.exp(line + 0.5 * SD**2), rtol=0.1)


@pytest.mark.parametrize("level", ["subject", "new_subject", "mixed"])
@pytest.mark.parametrize(("name", "link"), [("poisson", "log"), ("bernoulli", "logit")])
def test_randomised_pit_values_are_uniform_where_the_model_is_true(name, link, level):
    """And are not, were ties not broken: a third and more of the rows are zero."""
    design = model_of(name, link, "1").design
    replicator, rng = FamilyReplicator(design), np.random.default_rng(4)
    b = rng.normal(size=(design.n_subjects, 1)) * SD
    draw = draw_of(design, b)
    source = "subject" if level == "subject" else "new_subject"
    u = np.vstack([replicator.pit(draw, level, replicator.replicate(draw, source, rng, 40), rng) for _ in range(10)])
    one = u[:, :: design.n_obs // design.n_subjects].ravel()  # a row of each subject
    assert stats.kstest(one, "uniform").pvalue > 0.01
    assert np.abs(np.quantile(u, [0.1, 0.5, 0.9]) - [0.1, 0.5, 0.9]).max() < 0.03
