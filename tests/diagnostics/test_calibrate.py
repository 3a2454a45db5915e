"""Simulation-based calibration: it passes where it must, fails where it must, and says what it did."""

from __future__ import annotations

import dataclasses

import matplotlib as mpl

mpl.use("Agg")

import numpy as np
import pytest
from matplotlib import pyplot as plt
from scipy.stats import binom

import hierlmm as hl
from hierlmm.diagnostics.calibrate import calibrate
from hierlmm.diagnostics.calibration import LOGLIK, ecdf_band, mildest_error
from hierlmm.diagnostics.recovered import thinned
from hierlmm.diagnostics.replicate import binomial_interval, replicate

SLEEP = "reaction ~ days + (1 + days | subject)"
FAST = {"draws": 400, "tune": 200, "seed": 1, "progressbar": False}


@pytest.fixture(scope="module")
def sleep(sleepstudy):
    return hl.TwoLevelModel.from_formula(SLEEP, sleepstudy)


@pytest.fixture(scope="module")
def batches():
    priors = hl.Priors(sd_b=hl.HalfNormal(50), sigma=hl.HalfNormal(50), intercept=hl.Normal(1500, 100))
    return hl.TwoLevelModel.from_formula("yield ~ 1 + (1 | batch)", _dyestuff(), priors=priors)


def _dyestuff():
    data = hl.load_dataset("dyestuff")
    return data.rename(columns={c: c.lower() for c in data.columns})


@pytest.fixture(scope="module")
def right(sleep):
    return calibrate(sleep, 120, subjects=[sleep.design.subjects[0]], **FAST)


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def test_a_right_sampler_passes(right):
    table = right.summary()
    assert right.ok, right.verdict
    assert set(table.index) >= {"Intercept", "days", "sd(days)", "corr(Intercept, days)", "sigma", LOGLIK}
    assert [c for c in table.index if c.startswith("b(")] == ["b(Intercept, 308)", "b(days, 308)"]
    # Every nominal coverage within four binomial standard errors, and z-scores standard.
    for level in (0.5, 0.8, 0.95):
        share = table[f"cover{round(100 * level)}"]
        assert (np.abs(share - level) < 4 * np.sqrt(level * (1 - level) / 120)).all()
    assert (table["z_mean"].abs() < 4 / np.sqrt(120)).all()
    assert table["z_sd"].between(0.7, 1.4).all()
    assert table.loc["sigma", "contraction"] > 0.9
    assert right.checks["divergences"].sum() <= 2
    assert right.autocorrelation.abs().max() < 0.15


def test_one_random_effect_passes(batches):
    result = calibrate(batches, 120, **FAST)
    assert result.ok, result.verdict
    assert result.ranks.shape == (120, 4)
    assert result.ranks.to_numpy().min() >= 0
    assert result.ranks.to_numpy().max() <= result.n_ranks == 99


def test_a_wrong_prior_fails(batches):
    """The study can fail: data from large variances between batches, and a fit that believes in small ones."""
    narrow = hl.TwoLevelModel.from_formula(
        "yield ~ 1 + (1 | batch)", _dyestuff(), priors=hl.Priors(sd_b=hl.HalfNormal(10), sigma=hl.HalfNormal(50))
    )
    result = calibrate(narrow, 100, truth=hl.Priors(sd_b=hl.HalfNormal(100), sigma=hl.HalfNormal(50)), **FAST)
    assert not result.ok
    assert not result.summary().loc["sd(Intercept)", "in_band"]
    assert "NOT CALIBRATED" in result.verdict
    assert "sd(Intercept): the posterior lies too low" in result.verdict
    assert "other priors" in repr(result)


def test_too_narrow_a_posterior_is_seen_and_named(right):
    from dataclasses import replace

    spread = 99 - right.rank_table
    folded = right.rank_table.where(right.rank_table < 50, spread)  # only small ranks: the posterior lies too high
    high = replace(right, rank_table=folded)
    assert not high.ok
    assert "the posterior lies too high" in high.verdict
    extreme = (right.rank_table - 49.5).abs() ** 0.3 * np.sign(right.rank_table - 49.5)
    ends = (49.5 + extreme * (49.5 / extreme.abs().max())).round()
    assert "the posterior is too narrow" in replace(right, rank_table=ends).verdict


def test_the_same_seed_gives_the_same_study_and_its_beginning(batches):
    a, b = (calibrate(batches, 16, **FAST) for _ in range(2))
    assert a.ranks.equals(b.ranks)
    assert a.truth.equals(b.truth)
    shorter = calibrate(batches, 10, cores=1, **FAST)
    assert shorter.ranks.equals(a.ranks.iloc[:10])
    other = calibrate(batches, 10, **{**FAST, "seed": 2})
    assert not other.truth.equals(shorter.truth)


def test_default_priors_are_resolved_once(sleep):
    result = calibrate(sleep, 10, **FAST)
    assert result.priors is not None
    assert str(result.priors) == str(sleep.priors)


def test_identity_covariance_has_one_standard_deviation(sleepstudy):
    model = hl.TwoLevelModel.from_formula(SLEEP, sleepstudy, covariance="identity")
    for method in ("nuts", "reml"):
        names = calibrate(model, 10, estimator=method, **FAST).parameters
        assert names[:4] == ["Intercept", "days", "sd(all random effects)", "sigma"]


@pytest.mark.parametrize(("method", "bias"), [("reml", 0.1), ("ml", 0.25)])
def test_likelihood_fits_recover_the_truth(sleep, method, bias):
    fit = sleep.fit_reml()
    result = calibrate(sleep, 200, estimator=method, truth=fit, seed=1, progressbar=False)
    table = result.summary()
    assert (result.truth["days"] == fit.beta["days"]).all()
    assert "p_uniform" not in table
    assert table.loc[["Intercept", "days"], "cover95"].between(0.88, 0.99).all()
    assert table.loc["sigma", "cover95"] > 0.88
    relative = (table["bias"] / result.truth.iloc[0]).drop("corr(Intercept, days)")
    assert (relative.abs() < bias).all()
    assert result.truth.equals(calibrate(sleep, 200, estimator=method, truth=fit, seed=1, progressbar=False).truth)
    assert "Recovery" in repr(result)
    with pytest.raises(hl.NotAvailableError, match="posterior draws"):
        _ = result.ranks


def test_band_holds_its_probability():
    """Of uniform samples, 95 % stay inside, and the p-value is uniform."""
    band = ecdf_band(120, 99)
    rng = np.random.default_rng(3)
    samples = rng.integers(0, 100, size=(2000, 120))
    p = np.array([band.p_value(s) for s in samples])
    assert abs((p > 0.05).mean() - 0.95) < 0.02
    lower, upper = band.limits(0.95)
    for s, value in zip(samples[:300], p[:300], strict=True):
        F = np.searchsorted(np.sort(s), np.arange(1, 100), side="left") / 120
        assert bool(np.all((lower - 1e-12 <= F) & (upper + 1e-12 >= F))) == (value > 0.05)


def test_band_agrees_with_arviz():
    from arviz_stats.ecdf_utils import ecdf_pit

    x, _, lower, upper = ecdf_pit(np.linspace(0, 1, 100), 0.95, 4000)
    ours = ecdf_band(100, 99).limits(0.95)
    np.testing.assert_allclose(lower[1:-1], ours[0], atol=0.021)
    np.testing.assert_allclose(upper[1:-1], ours[1], atol=0.021)
    np.testing.assert_allclose(x[1:-1], ecdf_band(100, 99).z)


def test_thinning_keeps_equally_spaced_draws():
    assert len(thinned(1000)) == 99
    assert set(np.diff(thinned(1000))) == {10}
    assert len(thinned(50)) == 50


def test_wilson_interval():
    low, high = binomial_interval(np.array([95.0]), np.array([100.0]))
    np.testing.assert_allclose([low[0], high[0]], [0.8882, 0.9785], atol=1e-4)


def test_failures_are_counted_and_mistakes_are_not_hidden():
    def work(k):
        if k == 3:
            raise np.linalg.LinAlgError("Matrix is not positive definite")
        return k

    results, failures = replicate(work, 6, cores=2, progressbar=False, label="")
    assert results == [0, 1, 2, None, 4, 5]
    assert failures == [(3, "Matrix is not positive definite")]
    with pytest.raises(KeyError):
        replicate(lambda k: {}[k], 3, cores=2, progressbar=False, label="")


def test_text_html_and_plots(right, sleep):
    text = repr(right)
    assert text.startswith("Simulation-based calibration: reaction ~")
    assert "120 data sets drawn from the model's priors, fitted by NUTS (1 × (200 + 400)" in text
    assert "Divergences in" in text
    assert "<table" in right._repr_html_()
    drawn = right.plot(backend="none")
    assert drawn.viz["ecdf_lines"]["rank"].sizes["parameter"] == len(right.parameters)
    assert "band" in drawn.viz.children
    assert right.plot("sigma", ci=0.9, backend="none").viz["band"]["rank"].sizes["parameter"] == 1
    recovery = right.plot_recovery(backend="none")
    assert recovery.viz["interval"]["recovery"].sizes == {"parameter": len(right.parameters) - 1, "result": 2}
    right.plot(["days", "sigma"])
    right.plot_recovery(["days", "sigma"])
    wald = calibrate(sleep, 20, estimator="reml", seed=1, progressbar=False)
    wald.plot()
    wald.plot_recovery()


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"simulations": 3}, "simulations is a whole number, at least 10"),
        ({"estimator": "gee"}, "not one of the choices"),
        ({"draws": 0}, "draws is a whole number"),
        ({"cores": 0}, "cores is a whole number"),
        ({"subjects": ["nobody"]}, "no such subject"),
        ({"subjects": ["308"], "estimator": "reml"}, "posterior draws"),
        ({"truth": 3}, "drawn from priors or from the estimates of a fit"),
    ],
)
def test_bad_arguments(sleep, options, part):
    with pytest.raises(hl.SpecificationError) as error:
        calibrate(sleep, **{"simulations": 10, "progressbar": False, **options})
    message = str(error.value)
    assert part in message
    assert all(word in message for word in ("Received:", "Why not:", "To do:", "Read:"))


def test_priors_and_fits_that_do_not_fit(sleep, batches, sleepstudy, right):
    odd = hl.TwoLevelModel.from_formula(SLEEP, sleepstudy, priors=hl.Priors(beta=hl.StudentT(4, 0, 10)))
    with pytest.raises(hl.SpecificationError, match="not normal"):
        calibrate(odd, 10)
    with pytest.raises(hl.SpecificationError, match="parameters are not those"):
        calibrate(sleep, 10, truth=batches.fit_reml())
    with pytest.raises(hl.SpecificationError, match="Did you mean 'sigma'"):
        right.plot("sigm", backend="none")
    with pytest.raises(hl.SpecificationError, match="probability"):
        right.plot(ci=95, backend="none")


@pytest.mark.parametrize("n", [5, 10, 20, 100, 500])
def test_the_mildest_error_is_found_four_times_in_five(n):
    """By enumeration of all counts, at the coverage and a little closer to 95 %."""
    c, k = mildest_error(n), np.arange(n + 1.0)
    seen = binomial_interval(k, np.full(n + 1, float(n)))[1] < 0.95
    assert binom.pmf(k, n, c)[seen].sum() == pytest.approx(0.8, abs=1e-10)
    assert binom.pmf(k, n, c + 0.01)[seen].sum() < 0.8


def test_few_simulations_say_how_little_they_show():
    """Ten data sets whose ranks could not be more even."""
    model = hl.TwoLevelModel.from_formula("reaction ~ days + (1 | subject)", hl.load_dataset("sleepstudy"))
    found = calibrate(model, simulations=10, draws=50, tune=50, seed=1, progressbar=False)
    even = np.linspace(0.05, 0.95, 10)[:, None] * found.n_ranks
    found = dataclasses.replace(found, rank_table=found.rank_table * 0.0 + np.round(even))
    assert found.verdict.startswith("Calibrated: ")
    assert found.verdict.endswith("10 data sets tell from 95 % (four times in five) is a coverage of 73 %.")
