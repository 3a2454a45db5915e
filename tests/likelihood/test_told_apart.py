"""Random effects of several factors that cannot be told apart are named, and so is every kind of singularity."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import hierlmm as hl
from hierlmm.likelihood.estimate import singular_message

GROUP = np.repeat(np.arange(30), 6)


def rows(seed: int, **columns: np.ndarray) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    y = rng.normal(size=30)[GROUP] + rng.normal(size=180)
    return pd.DataFrame({"y": y, "a": GROUP, **columns})


def almost_the_same() -> np.ndarray:
    other = GROUP.copy()
    other[[3, 50, 100]] = [7, 2, 9]
    return np.array([f"b{k}" for k in other])


def mostly_one_each() -> np.ndarray:
    own = GROUP * 2
    own[12:15] += 1
    own[30:33] += 1
    return own


def nearly_every_row() -> np.ndarray:
    own = np.arange(180)
    own[[1, 9]] = [0, 8]
    return np.array([f"r{k}" for k in own])


CASES = {
    "y ~ 1 + (1 | a) + (1 | b)": ({"b": almost_the_same()}, "Intercept | a apart from Intercept | b"),
    "y ~ 1 + (1 | a / c)": ({"c": mostly_one_each()}, "Intercept | a apart from Intercept | a:c"),
    "y ~ 1 + (1 | a) + (1 | r)": ({"r": nearly_every_row()}, "Intercept | r apart from the residual"),
}


@pytest.mark.parametrize("seed", [2, 12])
@pytest.mark.parametrize("formula", CASES)
def test_what_cannot_be_told_apart_is_named(formula, seed):
    columns, names = CASES[formula]
    fit = hl.MultilevelModel.from_formula(formula, rows(seed, **columns)).fit_ml()
    assert sum(f"cannot tell {names}" in said for said in fit.warnings) == 1
    assert "cannot tell" in " ".join(str(fit).split())


def test_an_uncorrelated_slope_far_from_its_origin_is_an_intercept():
    rng = np.random.default_rng(1)
    data = rows(1, x=rng.normal(size=180) + 1000.0, k=rng.integers(0, 12, 180))
    fit = hl.MultilevelModel.from_formula("y ~ x + (1 + x || a) + (1 | k)", data).fit_reml()
    assert sum("cannot tell Intercept | a apart from x | a" in said for said in fit.warnings) == 1


def test_factors_that_differ_are_told_apart():
    for name, formula in (
        ("pastes", "strength ~ 1 + (1 | batch / cask)"),
        ("penicillin", "diameter ~ 1 + (1 | plate) + (1 | sample)"),
    ):
        assert not hl.MultilevelModel.from_formula(formula, hl.load_dataset(name)).fit_reml().warnings
    few = rows(14, b=almost_the_same())  # three rows that lie in other groups say by chance which of the two it is
    fit = hl.MultilevelModel.from_formula("y ~ 1 + (1 | a) + (1 | b)", few).fit_ml()
    assert fit.criterion_function(fit.optimum.lam[::-1]) - fit.criterion > 3
    assert not any("cannot tell" in said for said in fit.warnings)
    nested = rows(2, c=np.tile([0, 0, 0, 1, 1, 1], 30))  # nothing between classes: zero, and no valley
    fit = hl.MultilevelModel.from_formula("y ~ 1 + (1 | a / c)", nested).fit_reml()
    assert not any("cannot tell" in said for said in fit.warnings)


def test_a_variance_of_zero_beside_a_perfect_correlation_are_both_said():
    data = rows(3, k=np.random.default_rng(3).integers(0, 12, 180), x=np.tile(np.arange(6.0), 30))
    model = hl.MultilevelModel.from_formula("y ~ x + (1 + x | a) + (1 | k)", data)
    criterion = model.fit_reml().criterion_function
    Lambda = np.zeros((3, 3))
    Lambda[:2, 0] = [1.0, 0.5]
    lam = Lambda[criterion.structure.row, criterion.structure.col]
    said = singular_message(model.design, criterion, SimpleNamespace(lam=lam))
    assert "no variation in Intercept | k" in said
    assert "random effects of Intercept | a, x | a are perfectly dependent" in said
