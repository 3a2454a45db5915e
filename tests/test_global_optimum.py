"""Likelihoods with several maxima: the best one is reported, and the others are listed.

Referees: lme4 1.1-31 from several starts for the first models (both of its optimisers agree), a direct minimisation of
the dense criterion on a grid for the proof. The data of the other cases are simulated.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import hierlmm as hl
from hierlmm.likelihood.estimate import make_criterion
from hierlmm.likelihood.search import search_plain

DATA = Path(__file__).parent / "data"
DENTAL = "distance ~ sex + (0 + age | subject)"


def simulated(name):
    return pd.read_csv(DATA / f"two_minima_{name}.csv")


@pytest.mark.parametrize(
    ("formula", "data", "reml", "best", "second"),
    [
        pytest.param(DENTAL, None, True, 499.6136, 501.5826, id="dental, REML"),
        pytest.param(DENTAL, None, False, 502.7238, 503.1927, id="dental, ML"),
        pytest.param("y ~ 1 + f + z + (1 + x || subject)", "a", False, -808.872, -795.730, id="two variances, ML"),
        pytest.param("y ~ 1 + sex + (1 + x + z || subject)", "b", True, 167.875, 189.087, id="three variances, REML"),
    ],
)
def test_the_lowest_of_several_minima_is_reported(dental, formula, data, reml, best, second):
    model = hl.TwoLevelModel.from_formula(formula, dental if data is None else simulated(data))
    fit = model.fit_reml() if reml else model.fit_ml()
    digits = 1e-4 if data is None else 1e-3  # the referee's printed digits
    assert fit.criterion == pytest.approx(best, abs=digits)
    assert fit.converged
    criteria = fit.optima["criterion"]
    assert criteria.is_monotonic_increasing
    assert criteria.iloc[0] == fit.criterion
    assert np.min(np.abs(criteria - second)) < digits


def test_dental_slope_without_a_fixed_one_has_the_estimates_of_the_best_optimum(dental):
    fit = hl.TwoLevelModel.from_formula(DENTAL, dental).fit_reml()
    assert fit.sd_b["age"] == pytest.approx(0.506, abs=5e-4)
    assert fit.beta["sex[T.Male]"] == pytest.approx(-0.0007, abs=5e-5)


@pytest.mark.filterwarnings("ignore:AR1 without a column takes the order:hierlmm.errors.FitWarning")
def test_two_minima_with_residual_structure():
    model = hl.TwoLevelModel.from_formula(
        "y ~ t + sex + (1 + t | subject)", simulated("residual"), residual=hl.AR1(), residual_variance=hl.VarExp("x")
    )
    assert model.fit_ml().loglik >= -235.3215 - 1e-4


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("formula", [DENTAL, "distance ~ sex + (1 + age || subject)"])
def test_exhaustive_search_against_a_dense_grid(dental, formula, reml):
    criterion = make_criterion(hl.TwoLevelModel.from_formula(formula, dental)._design, reml=reml)
    found = search_plain(criterion)
    assert found.exhaustive
    best = min(criterion(lam) for lam in found.points)
    axis = np.concatenate([[0.0], np.geomspace(1e-3, 1e3, 60)])
    grid = np.stack(np.meshgrid(*[axis] * criterion.structure.n_parameters, indexing="ij"), axis=-1)
    assert best <= min(criterion(lam) for lam in grid.reshape(-1, criterion.structure.n_parameters)) + 1e-5


def test_print_names_the_optima_that_count(dental):
    fit = hl.TwoLevelModel.from_formula(DENTAL, dental).fit_reml()
    assert "2 optima: 499.61 and 501.58 (fit.optima)" in str(fit)
    assert "Global search: exhaustive, no lower optimum exists" in str(fit)
    one = hl.TwoLevelModel.from_formula("distance ~ age + (1 + age | subject)", dental).fit_reml()
    assert "optima:" not in str(one)
    assert "no lower optimum found" in str(one)
    with pytest.raises(hl.NotAvailableError, match="one optimum"):
        one.plot_optima()
    gee = hl.TwoLevelModel.from_formula(DENTAL, dental).fit_gee()
    with pytest.raises(hl.NotAvailableError, match="maximises no criterion"):
        hl.plots.plot_optima(gee)


def test_criterion_between_the_optima_has_a_barrier(dental):
    fit = hl.TwoLevelModel.from_formula(DENTAL, dental).fit_reml()
    plot = fit.plot_optima(backend="none")
    line = plot.data["criterion"].isel(optimum=0).sel(plot_axis="y").to_numpy()
    x = plot.data["criterion"].isel(optimum=0).sel(plot_axis="x").to_numpy()
    between = (x > 0.2046) & (x < 0.5059)
    assert line[between].max() > 501.5826 + 1e-3
    assert line.min() == pytest.approx(499.6136, abs=1e-3)


def test_profile_interval_covers_both_optima(dental):
    """A grid over sd(age) with β and σ at their best: all values within the quantile belong to the interval."""
    fit = hl.TwoLevelModel.from_formula(DENTAL, dental).fit_ml()
    interval = fit.variance_components(method="profile").loc["sd(age)"]
    values = np.linspace(0.02, 1.2, 600)
    design, inside = fit.design, []
    same = design.subject_index[:, None] == design.subject_index[None, :]

    def deviance(sd, sigma):
        V = np.where(same, sd**2 * np.outer(design.Z[:, 0], design.Z[:, 0]), 0.0) + sigma**2 * np.eye(design.n_obs)
        L = np.linalg.cholesky(V)
        X, y = np.linalg.solve(L, design.X), np.linalg.solve(L, design.y)
        rest = y - X @ np.linalg.lstsq(X, y)[0]
        return rest @ rest + 2 * np.log(np.diag(L)).sum() + design.n_obs * np.log(2 * np.pi)

    sigmas = np.linspace(1.2, 2.6, 29)
    for sd in values[::6]:
        lowest = min(deviance(sd, sigma) for sigma in sigmas)
        if lowest < fit.criterion + 3.841 - 0.1:
            inside.append(sd)
    assert interval["lower"] <= min(inside)
    assert interval["upper"] >= max(inside)
    assert interval["lower"] == pytest.approx(min(inside), abs=0.03)
