"""Priors of a D of its own for each group: those of one D, in every group, unless others are given."""

from __future__ import annotations

import numpy as np
import pytest

import hierlmm as hl
from hierlmm.bayes.log_prior import log_prior
from hierlmm.bayes.predictive import prior_draws_with_eta
from hierlmm.bayes.tree import dataset

FORMULA = "distance ~ sex * time + (time | gr(subject, by = sex))"
GIVEN, OTHER = hl.HalfNormal(0.7), hl.HalfStudentT(4, 2)


def model(dental, formula=FORMULA, **options):
    return hl.TwoLevelModel.from_formula(formula, dental, **options)


@pytest.mark.parametrize("bar", ["time |", "time ||", "0 + age |"])
def test_every_group_has_the_priors_of_one_d(dental, bar):
    common = model(dental, f"distance ~ sex * time + ({bar} subject)").priors
    by_sex = model(dental, f"distance ~ sex * time + ({bar} gr(subject, by = sex))").priors
    assert by_sex.sd_b == common.sd_b * 2
    assert by_sex.corr_b == common.corr_b
    assert (by_sex.beta, by_sex.sigma) == (common.beta, common.sigma)
    np.testing.assert_array_equal(by_sex.random_center, np.tile(common.random_center, 2))


def test_priors_for_all_groups_and_for_one(dental):
    own = model(dental, priors=hl.Priors(sd_b={"time": GIVEN, "time[Male]": OTHER})).priors
    default = model(dental).priors
    assert own.sd_b == (default.sd_b[0], GIVEN, default.sd_b[2], OTHER)
    assert model(dental, priors=hl.Priors(sd_b=GIVEN)).priors.sd_b == (GIVEN,) * 4
    with pytest.raises(hl.SpecificationError, match=r"time\[Male\]"):
        model(dental, priors=hl.Priors(sd_b={"time[male]": GIVEN}))


def test_an_intercept_as_written_moves_its_own_group_only(dental):
    own = model(dental, priors=hl.Priors(sd_b={"Intercept[Male]": GIVEN})).priors
    np.testing.assert_array_equal(own.random_center, [0.0, 3.0, 0.0, 0.0])  # the mean of time is 3
    assert own.stated_sd[0].endswith("(at average covariates)")
    assert own.stated_sd[2] == "sd(Intercept[Male])"


@pytest.mark.parametrize("covariance", ["unstructured", "diagonal", "identity", "compound_symmetry"])
def test_log_prior_of_draws_is_that_of_the_priors(dental, covariance):
    design = model(dental, covariance=covariance).design
    priors = model(dental, covariance=covariance).priors
    drawn, eta = prior_draws_with_eta(design, priors, 5, np.random.default_rng(2))
    assert drawn["b"].shape == (5, 27, 2)
    draws = {name: values[None] for name, values in drawn.items() if name not in ("b", "y")}
    each = log_prior(design, priors, draws, eta[None])
    for s in range(5):
        total = sum(float(values[0, s].sum()) for values in each.data_vars.values())
        expected = priors.logpdf(
            drawn["beta"][s], drawn["sd_b"][s], drawn["corr_b"][s], drawn["sigma"][s], design.blocks
        )
        assert total == pytest.approx(expected, rel=1e-10)
    tree = dataset(design, draws)
    assert tree["sd_b"].dims == ("chain", "draw", "term_by_group")


def test_prior_draws_of_b_have_the_covariance_of_their_group(dental):
    own = hl.Priors(sd_b={"Intercept[Female]": hl.HalfNormal(1e-6), "Intercept[Male]": hl.Gamma(400, 100)})
    by_sex = model(dental, "distance ~ sex + (1 | gr(subject, by = sex))", priors=own)
    drawn, _ = prior_draws_with_eta(by_sex.design, by_sex.priors, 400, np.random.default_rng(1))
    girls = by_sex.design.subject_group == 0
    assert np.abs(drawn["b"][:, girls]).max() < 1e-4
    assert drawn["b"][:, ~girls].std() == pytest.approx(4.0, abs=4 * 4.0 / np.sqrt(2 * 400 * 16))
