"""Who shares what: covariances of two rows by the groups that they have in common, and the picture of V."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pandas as pd
import pytest

import hierlmm as hl
from hierlmm.errors import DataError, SpecificationError

build = hl.MultilevelModel.from_formula
close = np.testing.assert_allclose


def test_rows_of_a_cask_share_the_cask_and_the_batch(nested):
    found = nested.implied_marginal()
    pairs, cask, batch = found.pairs, *(nested.D[name].iloc[0, 0] for name in ("batch:cask", "batch"))
    noise, both = nested.sigma**2, pairs["batch:cask"] + " " + pairs["batch"]
    assert both.tolist() == ["same same", "other same", "other other"]
    assert pairs["pairs"].tolist() == [30, 120, 60 * 59 // 2 - 150]
    close(pairs["covariance"], [batch + cask, batch, 0.0], rtol=1e-12)
    close(pairs["correlation"], pairs["covariance"] / (batch + cask + noise), rtol=1e-12)
    close(pairs["covariance"], nested.marginal_covariance([0, 1, 2, 59]).iloc[0, 1:], rtol=1e-12)
    inside = (pairs["lower"] < pairs["correlation"]) & (pairs["correlation"] < pairs["upper"])
    assert inside.tolist() == [True, True, False] and pairs["upper"].iloc[2] == 0.0
    close(found.variance, [[cask, batch, noise, cask + batch + noise]], rtol=1e-12)
    assert "same        same      30" in repr(found) and "by the groups that they share (REML)" in repr(found)
    half = nested.implied_marginal(ci=0.5).pairs
    assert (half["upper"] - half["lower"]).iloc[0] < 0.5 * (pairs["upper"] - pairs["lower"]).iloc[0]  # normal: 0.34
    assert nested.implied_marginal(draws=0).pairs["lower"].isna().all()


def test_pairs_and_covariances_are_those_of_all_pairs_of_rows(fit, dense):
    """Of crossed and nested factors with a random slope: every pair of rows against its entry of V."""
    groups = {term.columns.group: term.group.index for term in fit.design.random}
    names = ["school:class", "school", "rater"]
    x, seen = fit.design.frame["x"].to_numpy(), {}
    for i, j in itertools.combinations(range(fit.n_obs), 2):
        key = tuple("same" if groups[name][i] == groups[name][j] else "other" for name in names)
        seen.setdefault(key, []).append((i, j))
    table = fit.implied_marginal().pairs.set_index(names)
    assert {key: len(pairs) for key, pairs in seen.items()} == table["pairs"].to_dict()
    for key, pairs in seen.items():
        i, j = pairs[-1]
        own = fit.implied_marginal({"x": [x[i], x[j]]}, draws=0).pairs.set_index(names)
        close(own.loc[key, "covariance"], dense.V[i, j], rtol=1e-6, atol=1e-10)
        correlation = dense.V[i, j] / np.sqrt(dense.V[i, i] * dense.V[j, j])
        close(own.loc[key, "correlation"], correlation, rtol=1e-6, atol=1e-10)


def test_intervals_of_the_correlation_are_near_those_of_the_share():
    """One quantity, the correlation of two rows of a school: logit and profile against draws of log SDs."""
    rng = np.random.default_rng(5)
    school, group = np.repeat(np.arange(12), 12), np.tile(np.repeat(np.arange(3), 4), 12)
    y = rng.normal(size=12)[school] + 0.7 * rng.normal(size=36)[3 * school + group] + rng.normal(size=144)
    rows = pd.DataFrame({"y": y, "school": school, "group": group})
    fit = build("y ~ 1 + (1 | school / group)", rows).fit_reml()
    pairs = fit.implied_marginal(draws=4000, seed=1).pairs.iloc[1]
    for method in ("delta", "profile"):
        share = fit.intraclass_correlation(method=method).table.loc["school"]
        close(pairs[["lower", "upper"]].astype(float), share[["lower", "upper"]], atol=0.03)


def test_draws_on_the_scale_of_logs_agree_with_the_others_next_to_the_estimate(fit):
    large = fit.large_sample
    near = dataclasses.replace(large, covariance=1e-8 * large.covariance)
    sample = near.sample(50, np.random.default_rng(1))
    moved, of_logs = (s - large.centre for s in (sample, near.on_logs(sample)))
    assert np.any(of_logs != moved) and np.abs(moved).max() > 1e-5
    close(of_logs, moved, atol=1e-2 * np.abs(moved).max())
    held = large.centre.copy()
    held[:2] = 0.0  # a row without variance, which the boundary holds
    at_zero = dataclasses.replace(large, centre=held, covariance=np.diag((held != 0.0) * 1e-4))
    close(at_zero.on_logs(at_zero.sample(5, np.random.default_rng(1)))[:, :2], 0.0, atol=0.0)


def test_slopes_stand_at_their_means_unless_said(fit):
    found = fit.implied_marginal(draws=0)
    mean = float(fit.design.frame["x"].mean())
    assert found.at == {"x": (mean, mean)} and f"x = {mean:.4g}" in repr(found)
    assert len(found.variance) == 1 and len(fit.implied_marginal({"x": [0, 1]}, draws=0).variance) == 2
    with pytest.raises(SpecificationError, match="no random effect depends on it"):
        fit.implied_marginal({"kind": "p"})
    with pytest.raises(SpecificationError, match="quantiles of so few draws"):
        fit.implied_marginal(draws=-1)
    for wrong in ([1.0, 2.0, 3.0], np.nan):
        with pytest.raises(SpecificationError, match="finite numbers"):
            fit.implied_marginal({"x": wrong})


def test_the_picture_has_the_covariances_of_its_rows(nested, fit):
    found = nested.implied_marginal(draws=0)
    assert len(found.V) == 30 and list(found.V.index[:5]) == ["A:a", "A:a", "A:b", "A:b", "A:c"]
    close(found.V, nested.marginal_covariance(list(range(30))), rtol=1e-12)
    few = fit.implied_marginal(draws=0, rows=[3, 1, 77])
    close(few.V, fit.marginal_covariance([3, 1, 77]), rtol=1e-12)
    close(np.diag(few.correlation), 1.0)
    assert few.plot_heatmap(backend="none") is not None
    drawn = found.plot_heatmap().get_viz("figure")
    names = [text.get_text() for text in drawn.axes[0].get_yticklabels()]
    assert names == ["A:a", "A:c", "B:b", "C:a", "C:c", "D:b", "E:a", "E:c"]  # every second cask, once
    close(drawn.axes[0].get_yticks()[:2], [28.5, 24.5])
    assert "its own" not in drawn.get_suptitle()
    title = few.plot_heatmap().get_viz("figure").get_suptitle().replace("\n", " ")
    assert title.endswith("(REML), each row at its own x")
    cells = few.plot_heatmap().get_viz("figure").axes[0].collections
    assert [len(row.get_facecolor()) for row in cells] == [3, 3, 3]
    with pytest.raises(DataError, match="no row that was fitted has such a label"):
        fit.implied_marginal(rows=[1000])


def test_a_model_asks_its_own_fits(nested, fit, model, pastes):
    own = build("strength ~ 1 + (1 | batch / cask)", pastes)
    assert own.implied_marginal(nested, draws=0).pairs.equals(nested.implied_marginal(draws=0).pairs)
    with pytest.raises(SpecificationError, match="another formula"):
        own.implied_marginal(fit)
    alone = build("strength ~ 1 + (1 | batch:cask)", pastes)
    assert isinstance(alone.implied_marginal(alone.fit_reml(), draws=0), hl.ImpliedMarginal)
