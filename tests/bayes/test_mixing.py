"""Effective sample sizes and R-hat are ArviZ's, and what nutpie recorded is read as it converts it."""

from __future__ import annotations

from dataclasses import replace

import arviz as az
import numpy as np
import pytest
import xarray as xr

import hierlmm as hl
from hierlmm.bayes import nuts
from hierlmm.bayes.convergence import diagnostics
from hierlmm.bayes.mixing import mixing
from hierlmm.bayes.sample_collapsed import nutpie_model, posterior_of

COLUMNS = ["ess_bulk", "ess_tail", "r_hat", "mcse"]


def by_arviz(draws):
    """Diagnostics of draws (chain, draw, n), (n, 4)."""
    data = xr.Dataset({"x": (("chain", "draw", "entry"), draws)})
    with np.errstate(all="ignore"):
        found = [
            az.ess(data, method="bulk"),
            az.ess(data, method="tail", prob=(0.05, 0.95)),
            az.rhat(data) if len(draws) > 1 else data.isel(chain=0, draw=0) * np.nan,
            az.mcse(data),
        ]
    return np.column_stack([own["x"].to_numpy() for own in found])


def chains(rng, number, length, phi):
    """Autoregressive chains of three quantities, (chain, draw, 3)."""
    noise = rng.normal(size=(number, length, 3))
    found = noise.copy()
    for t in range(1, length):
        found[:, t] = phi * found[:, t - 1] + noise[:, t]
    return found


@pytest.mark.parametrize("phi", [-0.9, 0.0, 0.5, 0.99, 1.0])
@pytest.mark.parametrize("length", [4, 5, 6, 7, 8, 9, 10, 11, 25, 100, 251])
def test_diagnostics_are_arviz_s(length, phi):
    rng = np.random.default_rng(length)
    for number in (1, 2, 5):
        found = chains(rng, number, length, phi)
        apart = found + 3.0 * (np.arange(number) == 0)[:, None, None]
        repeated = np.repeat(found, 2, axis=1)
        stuck = np.concatenate([found[:, :1] + 1e-3, np.repeat(found[:, :1], length, axis=1)], axis=1)
        for draws in (found, apart, repeated, np.round(10.0 * found), stuck):
            table = diagnostics(draws, list("abc"))
            assert list(table.columns) == COLUMNS
            np.testing.assert_allclose(table.to_numpy(), by_arviz(draws), rtol=1e-9)


def test_what_does_not_vary_or_is_no_number_has_none(monkeypatch):
    draws = chains(np.random.default_rng(1), 4, 50, 0.3)
    whole = diagnostics(draws, list("abc"))
    monkeypatch.setattr("hierlmm.bayes.convergence.AT_ONCE", 1)  # one by one
    np.testing.assert_array_equal(diagnostics(draws, list("abc")), whole)
    draws[..., 0], draws[2, 7, 1] = 1.5, np.nan
    found = diagnostics(draws, list("abc"))
    assert found.loc[["a", "b"]].isna().to_numpy().all()
    np.testing.assert_array_equal(found.loc["c"], whole.loc["c"])
    assert diagnostics(draws[:, :3], list("abc")).isna().to_numpy().all()


def test_trends_lower_the_effective_size():
    rng = np.random.default_rng(3)
    slow, fast = (chains(rng, 4, 500, phi).transpose(2, 0, 1) for phi in (0.95, 0.0))
    assert mixing(slow)[0].max() < 200 < 1500 < mixing(fast)[0].min()


@pytest.fixture(scope="module")
def sampled():
    model = hl.TwoLevelModel.from_formula("distance ~ time + (1 | subject)", hl.load_dataset("dental"))
    posterior = posterior_of(model.design, model.priors)
    compiled, _ = nutpie_model(posterior, np.zeros(len(posterior.mode)))
    settings = nuts.Settings(draws=60, tune=40, chains=3, seed=4, progressbar=False)
    return compiled, settings, nuts.run(compiled, settings)


def test_draws_are_read_as_nutpie_converts_them(sampled):
    compiled, settings, tree = sampled
    draws, statistics = nuts.draws_of(compiled, "z", settings)
    np.testing.assert_array_equal(draws, tree["posterior"]["z"].to_numpy())
    theirs = tree["sample_stats"].to_dataset()
    assert list(statistics.data_vars) == list(theirs.data_vars)
    for name, values in theirs.data_vars.items():
        assert statistics[name].dims == values.dims
        assert statistics[name].dtype == values.dtype
        np.testing.assert_array_equal(statistics[name], values)


def test_another_nutpie_is_read_by_its_own_conversion(sampled, monkeypatch):
    compiled, settings, tree = sampled

    def unknown(*_):
        raise AttributeError

    monkeypatch.setattr(nuts, "read_trace", unknown)
    draws, statistics = nuts.draws_of(compiled, "z", settings)
    np.testing.assert_array_equal(draws, tree["posterior"]["z"].to_numpy())
    assert "energy" in statistics


def test_a_shorter_trace_is_an_interrupt(sampled, monkeypatch):
    compiled, settings, _ = sampled
    short, run = replace(settings, draws=20), nuts.run
    monkeypatch.setattr(nuts, "run", lambda model, _, **options: run(model, short, **options))
    with pytest.raises(KeyboardInterrupt):
        nuts.draws_of(compiled, "z", settings)
