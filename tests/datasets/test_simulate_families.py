"""Simulated responses of families: the model's own truth comes back, and what does not belong together is refused."""

import re

import numpy as np
import pandas as pd
import pytest

import hierlmm as hl

OF = {
    "poisson": {},
    "negative_binomial": {"dispersion": {"shape": 2.0}},
    "bernoulli": {},
    "binomial": {"trials": 6},
    "gamma": {"dispersion": {"shape": 3.0}},
    "beta": {"dispersion": {"precision": 5.0}},
    "student_t": {"dispersion": {"sigma": 0.8, "nu": 6.0}},
}


@pytest.mark.parametrize("family", OF)
def test_rows_have_the_mean_and_the_variance_of_the_family(family):
    asked = {
        "beta": {"Intercept": 0.2, "time": 0.3},
        "D": 0.2,
        "times": range(5),
        "n_subjects": 4000,
        "seed": 3,
    }
    data, truth = hl.simulate(**asked, family=family, **OF[family], return_truth=True)
    made, n = truth.family, OF[family].get("trials", 1)
    mu = truth.mu.to_numpy() / n
    psi = made.psi(truth.dispersion)
    standardised = (data["y"] - n * mu) / np.sqrt(made.variance(mu, psi, n))
    assert abs(standardised.mean()) < 5 / np.sqrt(len(data))
    assert standardised.var() == pytest.approx(1.0, abs=0.1)
    eta = truth.family.function.link(mu)
    own = truth.subject_coef.to_numpy()[data["subject"] - 1]
    np.testing.assert_allclose(eta, own[:, 0] + own[:, 1] * data["time"], rtol=1e-9, atol=1e-9)


def test_estimates_are_a_truth_to_start_from():
    data = hl.simulate(beta={"Intercept": 1.0, "time": 0.1}, D=0.3, family="gamma", dispersion={"shape": 4}, seed=1)
    fit = hl.TwoLevelModel.from_formula("y ~ time + (1 | subject)", data, family="gamma").fit_ml()
    _, truth = hl.simulate(
        beta=fit.beta, D=fit.D, family=fit.family, dispersion=fit.dispersion, seed=2, return_truth=True
    )
    assert truth.dispersion["shape"] == fit.dispersion["shape"]


def test_categories_are_numbered_and_their_shares_are_those_of_the_model():
    thresholds = {"threshold 2": 1.0, "threshold 3": 2.5}
    asked = {"beta": {"Intercept": 0.5}, "D": 0.4, "times": [0], "n_subjects": 20_000, "seed": 3}
    data, truth = hl.simulate(**asked, family="ordinal", dispersion=thresholds, return_truth=True)
    expected = truth.family.probabilities(truth.mu.to_numpy(), truth.family.psi(thresholds)).mean(axis=0)
    np.testing.assert_allclose(np.bincount(data["y"]) / len(data), expected, atol=0.015)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({}, "needs to know how far"),
        ({"family": hl.families.StudentT(nu=5)}, "needs to know how far"),
        ({"family": "student_t", "dispersion": {"nu": 5.0}}, "parameters are sigma, nu"),
        ({"sigma": 1.0, "dispersion": {"sigma": 2.0}}, "sigma is said twice"),
        ({"sigma": 1.0, "family": "poisson"}, "Leave sigma out"),
        ({"sigma": 1.0, "family": "gamma"}, "its dispersion is dispersion={'shape': ...}"),
        ({"sigma": 1.0, "family": "ordinal"}, "no residual standard deviation"),
        ({"shape": 1.0, "family": "gamma"}, "use dispersion={'shape': ...}"),
        ({"precision": 1.0, "family": "beta"}, "use dispersion={'precision': ...}"),
        ({"family": "binomial"}, "needs the number of trials"),
        ({"family": "poisson", "trials": 3}, "others count none"),
        ({"family": "gamma"}, "parameters are shape"),
        ({"family": "gamma", "dispersion": {"shape": -1.0}}, "positive numbers"),
        ({"family": "gamma", "dispersion": {"shape": "2"}}, "positive numbers"),
        ({"family": "ordinal", "dispersion": {"threshold 2": 2.0, "threshold 3": 1.0}}, "ascending order"),
        ({"family": hl.families.Poisson(link="identity")}, "out of its range"),
        ({"family": "poison"}, "no such family"),
    ],
)
def test_what_does_not_belong_together_is_refused(asked, words):
    with pytest.raises(hl.HierlmmError, match=re.escape(words)) as raised:
        hl.simulate(**{"beta": {"Intercept": 0.3, "time": 0.2}, "D": 0.5, **asked})
    for part in ("Received:", "Why not:", "To do:", "Read:"):
        assert part in str(raised.value)


def test_sigma_is_a_dispersion_parameter_like_any_other():
    asked = {"beta": {"Intercept": 1.0}, "D": 0.3, "seed": 1}
    pd.testing.assert_frame_equal(hl.simulate(**asked, sigma=2.0), hl.simulate(**asked, dispersion={"sigma": 2.0}))
    heavy = {"family": "student_t", **asked}
    one, other = (
        hl.simulate(**heavy, sigma=2.0, dispersion={"nu": 5.0}),
        hl.simulate(**heavy, dispersion={"nu": 5.0, "sigma": 2.0}),
    )
    pd.testing.assert_frame_equal(one, other)
