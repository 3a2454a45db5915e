"""Fits with several grouping factors that the tests of this folder share."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from dense_factors import Dense

import hierlmm as hl
from hierlmm.fit.make import fit_of
from hierlmm.likelihood.estimate import LikelihoodEstimate, make_criterion
from hierlmm.likelihood.maximise import maximise


@pytest.fixture(scope="package")
def pastes() -> pd.DataFrame:
    return hl.load_dataset("pastes")


@pytest.fixture(scope="package")
def pupils() -> pd.DataFrame:
    """Classes in schools, crossed with raters; a slope that differs between schools."""
    rng = np.random.default_rng(7)
    n = 160
    rows = pd.DataFrame({"school": rng.integers(0, 8, n), "rater": rng.integers(0, 5, n)})
    rows["class"] = rng.integers(0, 10**6, n) % 3
    rows["x"] = rng.normal(size=n)
    rows["kind"] = np.where(rng.random(n) < 0.5, "p", "q")
    of_class = rng.normal(size=(8, 3))[rows["school"], rows["class"]]
    of_school = rng.normal(size=(8, 2))[rows["school"]] * [1.5, 0.8]
    rows["y"] = 10 + rows["x"] * (1 + of_school[:, 1]) + of_school[:, 0] + of_class
    rows["y"] += rng.normal(size=5)[rows["rater"]] + rng.normal(size=n)
    return rows


@pytest.fixture(scope="package")
def model(pupils: pd.DataFrame) -> hl.MultilevelModel:
    return hl.MultilevelModel.from_formula("y ~ x * kind + (1 + x | school) + (1 | school:class) + (1 | rater)", pupils)


@pytest.fixture(scope="package")
def fit(model: hl.MultilevelModel) -> hl.MultilevelFit:
    """By REML at the minimum next to the truth: a search over five parameters takes seconds and says no more here."""
    criterion = make_criterion(model.design, reml=True)
    start = np.array([1.5, 0.0, 0.8, 1.0, 1.0])
    return fit_of(LikelihoodEstimate(model.design, criterion, maximise(criterion, start)))


@pytest.fixture(scope="package")
def dense(fit: hl.MultilevelFit) -> Dense:
    return Dense(fit)


@pytest.fixture(scope="package")
def posterior(model: hl.MultilevelModel) -> hl.MultilevelPosterior:
    return model.fit(seed=1, progressbar=False)


@pytest.fixture(scope="package")
def count_model(pupils: pd.DataFrame) -> hl.MultilevelModel:
    """Counts: the pupils of the linear model, another response."""
    rng = np.random.default_rng(3)
    eta = 0.5 + 0.4 * (pupils["y"] - 10.0)
    rows = pupils.assign(n=rng.poisson(np.exp(eta)), hours=np.exp(0.1 * rng.normal(size=len(pupils))))
    formula = "n ~ x + kind + (1 + x | school) + (1 | school:class) + (1 | rater)"
    return hl.MultilevelModel.from_formula(formula, rows, family="poisson", exposure="hours")


@pytest.fixture(scope="package")
def count_posterior(count_model: hl.MultilevelModel) -> hl.GeneralisedMultilevelPosterior:
    return count_model.fit(seed=1, progressbar=False)


@pytest.fixture(scope="package")
def nested(pastes: pd.DataFrame) -> hl.MultilevelFit:
    return hl.MultilevelModel.from_formula("strength ~ 1 + (1 | batch / cask)", pastes).fit_reml()
