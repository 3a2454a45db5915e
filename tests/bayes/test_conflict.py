"""A prior that leaves no room for the data is named, and only then."""

import numpy as np
import pandas as pd
import pytest

import hierlmm as hl
from hierlmm.bayes.priors import resolve_priors
from hierlmm.bayes.route import prior_conflicts
from hierlmm.datasets import load_dataset


def calendar(origin):
    rng = np.random.default_rng(3)
    g = np.repeat(np.arange(40), 6)
    t = np.tile(np.arange(6.0), 40)
    b = rng.normal(size=(40, 2)) * [2, 1]
    return pd.DataFrame({"g": g, "yr": origin + t, "y": 10 + b[g, 0] + (0.5 + b[g, 1]) * t + rng.normal(size=240)})


def conflicts(formula, data, priors=None):
    design = hl.TwoLevelModel.from_formula(formula, data).design
    return prior_conflicts(design, resolve_priors(priors, design))


def test_a_calendar_year_is_named_with_the_way_out():
    """Where the prior of the intercepts is not stated at the averages, because it was given."""
    own = hl.Priors(sd_b={"Intercept": hl.HalfNormal(50.0)})
    (message,) = conflicts("y ~ yr + (1 + yr | g)", calendar(2015), own)
    assert "sd(Intercept) ~ HalfNormal" in message
    assert "count the covariate from a point within the data" in message
    assert not conflicts("y ~ I(yr - 2015) + (1 + I(yr - 2015) | g)", calendar(2015))
    assert not conflicts("y ~ yr + (1 + yr | g)", calendar(2015))


def test_a_prior_at_the_average_covariates_is_compared_there():
    data = calendar(2015).assign(y=lambda d: d["y"] + np.where(d["g"] % 10 == 0, 100.0, 0.0))
    assert conflicts("y ~ yr + (1 + yr | g)", data) == ()


def test_a_fixed_effect_far_outside_its_prior_is_named():
    data = calendar(2015).assign(y=lambda d: d["y"] + 0.5 * (d["yr"] - 2015) ** 2)
    (message,) = conflicts("y ~ yr + I(yr ** 2) + (1 | g)", data)
    assert "yr ~ Normal" in message


def test_the_fit_carries_the_note_and_still_says_that_it_converged():
    with pytest.warns(hl.FitWarning, match="leaves no room"):
        fit = hl.TwoLevelModel.from_formula(
            "y ~ I(yr - 2015) + (1 | g)", calendar(2015), priors=hl.Priors(sigma=hl.HalfNormal(0.05))
        ).fit(seed=1, progressbar=False)
    assert fit.converged
    assert "Before you use it" in repr(fit)


@pytest.mark.parametrize("name", ["dental", "sleepstudy", "pbc", "dyestuff", "dyestuff2", "petri", "rat_pups"])
def test_ordinary_data_have_no_conflict(name):
    formula = {
        "dental": "distance ~ sex * time + (1 + time | subject)",
        "sleepstudy": "reaction ~ days + (days | subject)",
        "pbc": "log(bili) ~ year * trt + (1 + year | subject)",
        "dyestuff": "yield ~ 1 + (1 | batch)",
        "dyestuff2": "yield ~ 1 + (1 | batch)",
        "petri": "y ~ group + (1 | dish)",
        "rat_pups": "weight ~ treatment * sex + lsize + (1 | litter)",
    }[name]
    assert conflicts(formula, load_dataset(name)) == ()
