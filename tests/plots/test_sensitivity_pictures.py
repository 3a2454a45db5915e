"""Power-scaling and leave-one-out PIT: the numbers behind their pictures, and what their titles say of them."""

from __future__ import annotations

import warnings

import arviz as az
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from drawn_by_none import title_of
from samples import SLEEP
from scipy import stats

import hierlmm as hl
from hierlmm.diagnostics.pit import loo_pit
from hierlmm.diagnostics.psense import CONFLICT
from hierlmm.likelihood.by_subject import covariance_root, subject_loglik


def test_sensitivities_are_those_of_the_marginal_likelihood(sleep_nuts):
    found = sleep_nuts.psense()
    design = sleep_nuts.design
    S = sleep_nuts.draws("sigma").size
    root = covariance_root(sleep_nuts.draws("D").reshape(S, 2, 2))
    loglik = subject_loglik(design, sleep_nuts.draws("beta").reshape(S, 2), root, sleep_nuts.draws("sigma").ravel())
    group = sleep_nuts.datatree["log_prior"]
    log_prior = sum(v.sum([d for d in v.dims if d not in ("chain", "draw")]) for v in group.data_vars.values())
    draws = xr.Dataset({"x": (("chain", "draw"), sleep_nuts.draws("sd_b")[..., 1])})
    tree = xr.DataTree.from_dict(
        {
            "posterior": draws,
            "log_prior": xr.Dataset({"all": log_prior}),
            "log_likelihood": xr.Dataset({"y": (("chain", "draw", "subject"), loglik.reshape(4, -1, 18))}),
        }
    )
    for what in ("prior", "likelihood"):
        assert found.table.loc["sd(days)", what] == pytest.approx(float(az.psense(tree, group=what)["x"]), rel=1e-6)
    # The shift is the derivative of a weighted mean, found here by weighting.
    x, step = sleep_nuts.draws("corr_b")[..., 0, 1].ravel(), 1e-4
    weight = np.exp(step * (log_prior.to_numpy().ravel() - float(log_prior.mean())))
    slope = (np.sum(weight * x) / np.sum(weight) - x.mean()) / step / x.std()
    assert found.table.loc["corr(Intercept, days)", "shift"] == pytest.approx(np.log(2) * slope, rel=1e-3)
    conditional = sleep_nuts.psense("observation").table
    assert conditional.loc["sigma", "likelihood"] > 2 * found.table.loc["sigma", "likelihood"]
    assert found.ok and "without contradicting" in found.verdict


def test_a_planted_conflict_is_named(sleepstudy):
    priors = hl.Priors(beta={"days": hl.Normal(0.0, 2.0)})
    model = hl.TwoLevelModel.from_formula(SLEEP, sleepstudy, priors=priors)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", hl.FitWarning)
        fit = model.fit(draws=500, tune=500, chains=4, seed=1, random_effects="none", progressbar=False)
    found = fit.psense()
    assert found.table.loc["days", "diagnosis"] == CONFLICT
    assert not found.ok and "contradict each other on days" in found.verdict
    assert "prior-data conflict: days" in title_of(fit.plot_psense("fixed"))
    assert "days" in repr(found) and "<table>" in found._repr_html_()


# --- left out in turn ------------------------------------------------------------------------------------------------


def test_pit_of_a_mean_is_that_of_a_mixture_of_normals(sleep_nuts):
    """With the weights of ArviZ's leave-one-out, the distribution of a subject's mean is known in closed form."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pit = loo_pit(sleep_nuts, "subject", "mean", 1).pit
        slope = loo_pit(sleep_nuts, "subject", "days", 1).pit
        weights = sleep_nuts.loo().elpd_data.log_weights
    weights = np.exp(weights.transpose("chain", "draw", ...).to_numpy().reshape(sleep_nuts.draws("sigma").size, -1))
    weights /= weights.sum(axis=0)
    design, S = sleep_nuts.design, len(weights)
    beta, D = sleep_nuts.draws("beta").reshape(S, 2), sleep_nuts.draws("D").reshape(S, 2, 2)
    sigma = sleep_nuts.draws("sigma").ravel()
    for j, label in enumerate(design.subjects):
        if np.sum(weights[:, j] ** 2) > 0.005:
            continue  # fewer than 200 draws count
        rows = design.subject_index == j
        X, y = design.X[rows], design.y[rows]
        V = np.einsum("ra,sab,tb->srt", design.Z[rows], D, design.Z[rows]) + sigma[:, None, None] ** 2 * np.eye(len(y))
        own = np.polyfit(X[:, 1], np.eye(len(y)), 1)[0]
        for a, found in ((np.full(len(y), 1 / len(y)), pit), (own, slope)):
            sd = np.sqrt(np.einsum("r,srt,t->s", a, V, a))
            expected = np.sum(weights[:, j] * stats.norm.cdf((a @ y - beta @ (a @ X)) / sd))
            assert found[label] == pytest.approx(expected, abs=0.04)


def test_pit_of_a_spread_and_of_rows(sleep_nuts):
    spread = loo_pit(sleep_nuts, "subject", "sd", 0)
    assert spread.pit.between(0, 1).all() and len(spread.pit) == 18
    rows = loo_pit(sleep_nuts, "observation")
    assert len(rows.pit) == 180 and rows.statistic == "y"
    said = title_of(sleep_nuts.plot_loo_pit())
    assert "LOO-PIT of the mean of a subject's rows" in said
    assert f"p = {loo_pit(sleep_nuts).p:.2f}" in said
    assert isinstance(spread.table, pd.DataFrame) and "p = " in repr(spread)


def test_intervals_that_the_others_predict_and_means_as_the_weight_changes(sleep_nuts):
    intervals = sleep_nuts.plot_loo_pit(kind="interval", backend="none")
    assert {d for v in intervals.data.data_vars.values() for d in v.dims} & {"unit"}
    said = title_of(sleep_nuts.plot_psense("sd", kind="quantities"))
    assert "means and SDs as the weight changes" in said
    with pytest.raises(hl.SpecificationError, match="kind='ecdf'"):
        sleep_nuts.plot_loo_pit(kind="ecdf")


def test_a_smaller_tree_for_arviz(sleep_nuts):
    tree = sleep_nuts.extend("prior", draws=50).for_arviz(["sd", "b[308, days]"])
    assert tree["posterior"]["parameter"].to_numpy().tolist() == ["sd(Intercept)", "sd(days)", "b[308, days]"]
    np.testing.assert_array_equal(tree["posterior"]["draws"][..., 2], sleep_nuts.draws("b")[:, :, 0, 1])
    assert tree["prior"]["parameter"].to_numpy().tolist() == ["sd(Intercept)", "sd(days)"]
    assert tree["log_likelihood"]["reaction"].dims == ("chain", "draw", "subject")
    assert {"sample_stats", "log_prior", "observed_data"} <= set(tree.children)


@pytest.mark.parametrize("asked", ["b", "b[308, days]", ["days", "b[308, days]"]])
def test_random_effects_have_no_prior_to_draw(sleep_nuts, asked):
    for plot in (sleep_nuts.plot_prior_posterior, sleep_nuts.plot_psense):
        with pytest.raises(hl.errors.SpecificationError, match="have no prior of their own"):
            plot(asked, backend="none")


def test_a_factor_that_is_called_b(sleepstudy):
    data = sleepstudy.assign(b=np.where(sleepstudy["subject"] < 340, "low", "up"))
    model = hl.TwoLevelModel.from_formula("reaction ~ days + b + (1 | subject)", data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", hl.FitWarning)
        fit = model.fit(draws=40, tune=60, chains=2, seed=1, progressbar=False)
    for name in ("b[T.up]", "b[308, Intercept]"):
        assert fit.plot_trace(name, backend="none").data["parameter"].to_numpy().tolist() == [name]
