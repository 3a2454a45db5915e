"""Bands around curves, against closed forms, simulation and draws."""

from __future__ import annotations

import tracemalloc
import warnings

import numpy as np
import pandas as pd
import pytest
from cirrhosis_trial import HELD
from scipy import integrate, stats

import hierlmm as hl
from hierlmm.effects import judge as judge_module
from hierlmm.effects.judge import PosteriorDraws, bands
from hierlmm.errors import FitWarning
from hierlmm.fit.make import fit_of
from hierlmm.likelihood.estimate import maximise_design
from hierlmm.likelihood.quantiles import band_quantile


def test_band_of_independent_rows():
    """Three independent errors over a common s: an integral over s."""
    for df in (np.inf, 6.0):
        c = band_quantile(np.eye(3) * [1.0, 5.0, 0.2], np.eye(3), np.full(3, df), 0.95)
        np.testing.assert_allclose(c, c[0])

        def inside(s, df=df, c=c[0]):
            return (2.0 * stats.norm.cdf(c * s) - 1.0) ** 3 * stats.chi.pdf(s * np.sqrt(df), df) * np.sqrt(df)

        got = inside_normal(c[0]) if np.isinf(df) else integrate.quad(inside, 0, 6)[0]
        assert got == pytest.approx(0.95, abs=2e-4)


def inside_normal(c):
    return (2.0 * stats.norm.cdf(c) - 1.0) ** 3


def test_band_in_all_directions_is_scheffes():
    angle = np.linspace(0, np.pi, 4001)
    L = np.column_stack([np.cos(angle), np.sin(angle)])
    for df, exact in ((np.inf, stats.chi2.ppf(0.9, 2)), (9.0, 2 * stats.f.ppf(0.9, 2, 9))):
        c = band_quantile(L, np.array([[2.0, 0.3], [0.3, 1.0]]), np.full(4001, df), 0.9)
        np.testing.assert_allclose(c, np.sqrt(exact), rtol=1e-4)


def test_band_of_one_direction_is_pointwise():
    L, df = np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 0.0]]), np.array([4.0, 8.0, np.inf])
    np.testing.assert_allclose(band_quantile(L, np.eye(2), df, 0.95), stats.t.ppf(0.975, df))


def test_band_at_each_rows_own_degrees(cirrhosis):
    """Interpolated in 1/df: the same as a band of its own for each number of degrees."""
    curves = cirrhosis.effects("year", at={"sex": "male", **HELD}, n=21)
    L, cov, df = curves.L, curves.judge.cov, curves.judge.rows(curves.L)[2]
    together = band_quantile(L, cov, df, 0.95)
    for k in (0, 10, 20):
        assert together[k] == pytest.approx(band_quantile(L, cov, np.full(21, df[k]), 0.95)[0], abs=1e-4)
    assert abs(band_quantile(L, cov, df, 0.95, seed=7) - together).max() < 2e-3


def test_a_band_is_nowhere_narrower_than_a_pointwise_interval():
    """Rows next to one direction, degrees of freedom from 1 to infinity: interpolation must not go below."""
    df = np.array([1.0, 1.3, 2.0, 3.0, 5.0, 12.0, 60.0, np.inf])
    for tilt in (1e-6, 1e-3, 0.1):
        L = np.column_stack([np.ones(8), tilt * np.arange(8.0)])
        c = band_quantile(L, np.eye(2), df, 0.95)
        single = stats.t.ppf(0.975, df)
        assert np.all(c >= single)
        scheffe = np.where(np.isinf(df), np.sqrt(stats.chi2.ppf(0.95, 2)), np.sqrt(2 * stats.f.ppf(0.95, 2, df)))
        assert np.all(c <= 1.02 * scheffe)


@pytest.mark.parametrize("scope", ["curve", "all"])
def test_simultaneous_coverage_of_the_estimate(cirrhosis, scope):
    """Errors of β̂ drawn from its normal distribution: 95 % of curves lie inside everywhere, far fewer pointwise."""
    curves = cirrhosis.effects("year", by="sex", at=HELD, simultaneous=scope, df="normal", n=51)
    table, n = curves.table, 20_000
    rng = np.random.default_rng(20)
    error = rng.multivariate_normal(np.zeros(10), cirrhosis.beta_cov.to_numpy(), size=n) @ curves.L.T
    size = np.abs(error)
    pieces = [rows for _, rows in curves.curves] if scope == "curve" else [np.arange(len(curves))]
    mcse = np.sqrt(0.95 * 0.05 / n)
    for rows in pieces:
        part = table.iloc[rows]
        half = (part["upper_simultaneous"] - part["estimate"]).to_numpy()
        assert np.mean(np.all(size[:, rows] <= half, axis=1)) == pytest.approx(0.95, abs=3.5 * mcse)
        pointwise = np.all(size[:, rows] <= (part["upper"] - part["estimate"]).to_numpy(), axis=1)
        assert pointwise.mean() < 0.90


def test_simultaneous_coverage_of_refitted_data():
    """The whole procedure on new data of few subjects, where θ is poorly known."""
    n_data, rng = 240, np.random.default_rng(2026)
    time = np.tile([0.0, 1.0, 2.0, 4.0], 12)
    subject = np.repeat(np.arange(12), 4)
    data = pd.DataFrame({"subject": subject, "time": time, "y": rng.normal(size=48)})
    design = hl.TwoLevelModel.from_formula("y ~ time + I(time ** 2) + (1 + time | subject)", data).design
    truth, inside = None, np.zeros(n_data, dtype=bool)
    for k in range(n_data):
        b = rng.normal(size=(12, 2)) * [2.0, 0.7]
        y = 1 + 0.5 * time - 0.1 * time**2 + b[subject, 0] + b[subject, 1] * time + rng.normal(size=48)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FitWarning)
            curves = fit_of(maximise_design(design.with_response(y), reml=True)).effects(
                "time", n=15, simultaneous=True
            )
        table = curves.table
        truth = curves.L @ [1.0, 0.5, -0.1] if truth is None else truth
        inside[k] = np.all((table["lower_simultaneous"] <= truth) & (truth <= table["upper_simultaneous"]))
    mcse = np.sqrt(0.95 * 0.05 / n_data)
    assert inside.mean() == pytest.approx(0.95, abs=3 * mcse)


def test_posterior_bands(dental_like_nuts):
    curves = dental_like_nuts.effects("time", by="sex", simultaneous=True, n=11, ci=0.9)
    table, draws = curves.table, dental_like_nuts.draws("beta").reshape(-1, 4) @ curves.L.T
    np.testing.assert_allclose(table["estimate"], draws.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(table["lower"], np.quantile(draws, 0.05, axis=0), rtol=1e-12)
    for _, rows in curves.curves:
        part = table.iloc[rows]
        inside = np.all(
            (draws[:, rows] >= part["lower_simultaneous"].to_numpy() - 1e-12)
            & (draws[:, rows] <= part["upper_simultaneous"].to_numpy() + 1e-12),
            axis=1,
        )
        assert inside.mean() == pytest.approx(0.9, abs=2 / len(draws))
    assert "draws" in repr(curves) and "Student" not in repr(curves)


def test_posterior_bands_in_pieces(monkeypatch):
    rng = np.random.default_rng(0)
    judge, L = PosteriorDraws(rng.normal(size=(4000, 6))), rng.normal(size=(1000, 6))
    tracemalloc.start()
    whole = bands(judge, L, np.zeros(1000), 0.95, [np.arange(1000)], 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6
    monkeypatch.setattr(judge_module, "VALUES", 40_000)
    pieces = bands(judge, L, np.zeros(1000), 0.95, [np.arange(1000)], 0)
    for name in whole[0]:
        np.testing.assert_allclose(pieces[0][name], whole[0][name], rtol=1e-10)
