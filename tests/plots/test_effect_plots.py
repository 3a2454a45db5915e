"""Effect plots: curves against R, bands against closed forms and simulation, and what is drawn."""

from __future__ import annotations

import tracemalloc
import warnings
from html.parser import HTMLParser

import matplotlib as mpl

mpl.use("Agg")

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from references import data_elsewhere, reference
from scipy import integrate, stats

import hierlmm as hl
from hierlmm.effects import judge as judge_module
from hierlmm.effects.curve_checks import _moves_along
from hierlmm.effects.judge import PosteriorDraws, bands
from hierlmm.errors import FitWarning, NotAvailableError, SpecificationError
from hierlmm.fit.make import fit_of
from hierlmm.likelihood.estimate import maximise_design
from hierlmm.likelihood.quantiles import band_quantile

FORMULA = "log(bili) ~ ns(year, 2) * sex + (age + basepro) * sex + (ns(year, 2) | subject)"
HELD = {"age": 49, "basepro": 10.6}


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def pbc():
    data = hl.load_dataset("pbc")
    data["sex"] = data["sex"].cat.rename_categories({"Male": "male", "Female": "female"})
    return data.assign(basepro=data.groupby("subject")["protime"].transform("first"))


@pytest.fixture(scope="module")
def fit(pbc):
    return hl.TwoLevelModel.from_formula(FORMULA, pbc).fit_reml()


@pytest.fixture(scope="module")
def simple(dental_reml):
    return dental_reml


@pytest.fixture(scope="module")
def posterior(dental_like_nuts):
    return dental_like_nuts


@pytest.fixture(scope="module")
def gee(dental):
    return hl.TwoLevelModel.from_formula("distance ~ sex * time + (1 + time | subject)", dental).fit_gee()


# Against R ----------------------------------------------------------------------------------------------------------


def on_the_grid_of(fit, ref, **options):
    """Our curves at the rows of an R grid, in its order."""
    rows = pd.DataFrame(ref["grid"])
    at = {v: rows[v].unique().tolist() for v in ("year", "age", "basepro")}
    table = fit.effects("year", by="sex", at=at, df="normal", **options).table
    keys = [v for v in ("year", "sex", "age", "basepro") if v in table]
    return rows.merge(table.astype({"sex": str}), on=keys, how="left", validate="one_to_one")


@pytest.mark.parametrize("name", ["pbcseq", "pbc2"])
@pytest.mark.parametrize("part", ["inside", "beyond"])
def test_curve_and_limits_against_r(name, part, fit, pbc):
    if name == "pbc2":
        fit = hl.TwoLevelModel.from_formula(FORMULA, _pbc2()).fit_reml()
    ref = reference(f"{name}_curve", "effect_plots")[part]
    if part == "beyond":
        with pytest.warns(FitWarning, match="extrapolated: year from -1 to 18, data from 0 to 14.1"):
            table = on_the_grid_of(fit, ref)
        rows = zip(ref["grid"]["year"], ref["grid"]["sex"], strict=True)  # the last man was seen before year 14
        assert table["extrapolated"].tolist() == [x in (-1, 18) or (x, sex) == (14, "male") for x, sex in rows]
    else:
        table = on_the_grid_of(fit, ref)
        assert not table["extrapolated"].any()
    for ours, theirs in (("estimate", "pred"), ("se", "se")):
        np.testing.assert_allclose(table[ours], ref[theirs], atol=1e-5, rtol=0)
    # R's file has 1.96 for the quantile, 3.6e-5 more than it is.
    exact = 1.96 / stats.norm.ppf(0.975)
    for ours, theirs in (("lower", "low"), ("upper", "upp")):
        limit = table["estimate"] + exact * (table[ours] - table["estimate"])
        np.testing.assert_allclose(limit, ref[theirs], atol=1e-5, rtol=0)


def test_curve_of_nlme_before_the_optimum():
    ref = reference("pbc_effectplot_grid", "splines")
    fit = hl.TwoLevelModel.from_formula(FORMULA, _pbc2()).fit_reml()
    table = on_the_grid_of(fit, ref)
    for ours, theirs in (("estimate", "pred"), ("lower", "low"), ("upper", "upp")):
        np.testing.assert_allclose(table[ours], ref[theirs], atol=1e-4, rtol=0)


def _pbc2():
    data = pd.read_csv(data_elsewhere("pbc2")).rename(columns={"id": "subject", "serbilir": "bili"})
    data["sex"] = pd.Categorical(data["sex"], ["male", "female"])
    return data.assign(basepro=data.groupby("subject")["prothrombin"].transform("first"))


# The curves ---------------------------------------------------------------------------------------------------------


def test_curves_are_predictions(fit, gee):
    for one, variable, held in ((fit, "year", HELD), (gee, "time", {})):
        curves = one.effects(variable, by="sex", at=held, n=7, df="normal")
        table = curves.table
        rows = table[[variable, "sex"]].assign(**curves.held)
        expected = one.predict(rows, level="population", interval="confidence")
        np.testing.assert_allclose(table["estimate"], expected["estimate"], rtol=1e-12)
        np.testing.assert_allclose(table["se"], expected["se"], rtol=1e-9)
        half = stats.norm.ppf(0.975) * table["se"]
        np.testing.assert_allclose(table["upper"] - table["estimate"], half, rtol=1e-9)


def test_means_are_points_of_the_curve(fit):
    """Averaged factors, held means and Satterthwaite's quantiles are those of marginal means."""
    curves = fit.effects("year", at={"year": [0, 2, 9]})
    assert list(curves.averaged) == ["sex"]
    means = fit.marginal_means("year", at={"year": [0, 2, 9]}).table
    for column in ("estimate", "se", "lower", "upper"):
        np.testing.assert_allclose(curves.table[column], means[column], rtol=1e-10)
    share = fit.effects("year", at={"year": [0, 2, 9]}, weights="proportional")
    means = fit.marginal_means("year", at={"year": [0, 2, 9]}, weights="proportional").table
    np.testing.assert_allclose(share.table["estimate"], means["estimate"], rtol=1e-10)
    assert np.abs(share.table["estimate"] - curves.table["estimate"]).min() > 1e-3


def test_what_is_asked_is_what_is_there(fit, pbc):
    curves = fit.effects("year", by=["age", "sex"], n=5)
    assert curves.by == ("age", "sex") and curves.panels == ()
    quartiles = [float(f"{v:.3g}") for v in pbc["age"].quantile([0.25, 0.5, 0.75])]
    assert curves.grid.points["age"] == tuple(quartiles)
    assert curves.held == {"basepro": pytest.approx(pbc["basepro"].mean())}
    assert len(curves.curves) == 6 and len(curves) == 30
    several = fit.effects("year", by="sex", at={"basepro": [10, 11], "age": [40, 50, 60]}, n=3)
    assert several.panels == ("basepro", "age")
    assert several.table.columns[:4].tolist() == ["basepro", "age", "sex", "year"]
    key, rows = several.curves[3]
    assert key == {"basepro": 10.0, "age": 50.0, "sex": "female"}
    own = several.table.iloc[rows]
    assert set(own["age"]) == {50.0} and set(own["sex"]) == {"female"} and own["year"].is_monotonic_increasing


def test_frozen_copied_and_said(fit):
    curves = fit.effects("year", by="sex", at=HELD, simultaneous=True, n=9)
    before = curves.table
    before.loc[:, "estimate"] = 0.0
    assert curves.table["estimate"].abs().min() > 0.0
    with pytest.raises(ValueError, match="read-only"):
        curves.L[0, 0] = 1.0
    text = repr(curves)
    for words in (
        "b = 0",
        "At age = 49, basepro = 10.6.",
        "95 %, pointwise",
        "Satterthwaite",
        "16384 directions",
        "seed 0",
    ):
        assert words in text, words
    assert "<table" in curves._repr_html_()
    averaged = repr(fit.effects("year", n=5))
    assert "Averaged over sex with equal weights." in averaged
    assert "directions" not in averaged


def test_other_kinds_of_fits(dental, gee):
    naive = gee.with_se("naive").effects("time", n=3)
    assert "naive covariance" in repr(naive) and "robust covariance" in repr(gee.effects("time", n=3))
    assert np.abs(naive.table["se"] / gee.effects("time", n=3).table["se"] - 1).max() > 0.01
    marginal = hl.MarginalModel(
        "distance ~ sex * time", correlation=hl.CompoundSymmetry(), subject="subject", data=dental
    ).fit_reml()
    curves = marginal.effects("time", by="sex", n=3, simultaneous=True)
    assert "marginal mean (no random effects)" in repr(curves)
    np.testing.assert_allclose(curves.points("partial")["y"], dental["distance"], rtol=1e-10)
    with pytest.raises(NotAvailableError, match="without random effects"):
        marginal.effects("time", level="subject")


def test_default_covariate_is_of_level_1(fit, sleep_reml):
    assert fit.effects(n=3).variable == "year"
    assert sleep_reml.effects(n=3).variable == "days"


def test_exp_is_the_median(fit):
    linear = fit.effects("year", by="sex", at=HELD, n=5, simultaneous=True)
    scaled = fit.effects("year", by="sex", at=HELD, n=5, simultaneous=True, transform="exp")
    for column in ("estimate", "lower", "upper", "lower_simultaneous", "upper_simultaneous"):
        np.testing.assert_allclose(scaled.table[column], np.exp(linear.table[column]), rtol=1e-12)
    np.testing.assert_allclose(scaled.table["se"], np.exp(linear.table["estimate"]) * linear.table["se"], rtol=1e-12)
    assert scaled.ylabel == "bili" and "median of bili" in repr(scaled) and "not its mean" in repr(scaled)
    y = scaled.points("partial")["y"]
    np.testing.assert_allclose(np.log(y), linear.points("partial")["y"], rtol=1e-9, atol=1e-12)


# Bands --------------------------------------------------------------------------------------------------------------


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


def test_band_at_each_rows_own_degrees(fit):
    """Interpolated in 1/df: the same as a band of its own for each number of degrees."""
    curves = fit.effects("year", at={"sex": "male", **HELD}, n=21)
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
def test_simultaneous_coverage_of_the_estimate(fit, scope):
    """Errors of β̂ drawn from its normal distribution: 95 % of curves lie inside everywhere, far fewer pointwise."""
    curves = fit.effects("year", by="sex", at=HELD, simultaneous=scope, df="normal", n=51)
    table, n = curves.table, 20_000
    rng = np.random.default_rng(20)
    error = rng.multivariate_normal(np.zeros(10), fit.beta_cov.to_numpy(), size=n) @ curves.L.T
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


def test_posterior_bands(posterior):
    curves = posterior.effects("time", by="sex", simultaneous=True, n=11, ci=0.9)
    table, draws = curves.table, posterior.draws("beta").reshape(-1, 4) @ curves.L.T
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


# Data behind --------------------------------------------------------------------------------------------------------


def test_partial_residuals_of_the_full_curve_are_the_data(simple, dental):
    """Nothing is held: the population line plus its residual is the measurement."""
    curves = simple.effects("time", by="sex")
    partial = curves.points("partial", residual_level="population")
    np.testing.assert_allclose(partial["y"], dental["distance"], rtol=1e-10)
    own = curves.points("partial")
    shift = simple.fitted("subject") - simple.fitted("population")
    np.testing.assert_allclose(own["y"], dental["distance"] - shift, rtol=1e-10)
    np.testing.assert_allclose(curves.points("points")["y"], dental["distance"])


def test_partial_residuals_are_adjusted_data(fit, pbc):
    """They are moved by the effects of what is held, and by nothing else."""
    partial = fit.effects("year", by="sex", at=HELD).points("partial", residual_level="population")
    beta, female = fit.beta, (pbc["sex"] == "female").to_numpy()
    moved = np.log(pbc["bili"])
    for name, value in HELD.items():
        slope = beta[name] + female * beta[next(c for c in beta.index if c.startswith(f"{name}:"))]
        moved = moved + slope * (value - pbc[name])
    np.testing.assert_allclose(partial["y"], moved, atol=1e-9)


def test_points_belong_to_their_curve(fit, pbc):
    at = {"age": [40, 50, 60]}
    curves = fit.effects("year", by="age", at=at | {"sex": "male"}, n=3)
    points = curves.points()
    assert len(points) == (pbc["sex"] == "male").sum()
    ages = pbc.loc[points.index, "age"]
    assert np.all(np.abs(points["age"] - ages) <= [min(abs(a - v) for v in at["age"]) + 1e-12 for a in ages])
    assert len(curves.points("partial")) == len(pbc)
    panels = fit.effects("year", by="sex", at=at, n=3)
    assert len(panels.points()) == len(pbc) and len(panels.points("partial")) == 3 * len(pbc)


def test_residuals_that_are_not_there(gee, simple):
    with pytest.raises(NotAvailableError, match="no line of a subject"):
        gee.effects("time").points("partial", residual_level="subject")
    y = gee.effects("time", by="sex").points("partial")["y"]
    np.testing.assert_allclose(y, simple.design.y, rtol=1e-10)


# Beyond the data, and what cannot be asked ---------------------------------------------------------------------------


def test_beyond_the_groups_own_data_is_dashed_without_a_warning(fit, pbc):
    last = pbc.groupby("sex", observed=True)["year"].max()
    table = fit.effects("year", by="sex", at=HELD, n=2001).table
    for sex, own in table.groupby("sex", observed=True):
        assert own.loc[~own["extrapolated"], "year"].max() == pytest.approx(last[sex], abs=0.01)
    assert table["extrapolated"].any()


def test_held_values_beyond_the_data_are_said(fit):
    with pytest.warns(FitWarning, match=r"age = 200, data from 26\.\d+ to 78\.\d+"):
        assert fit.effects("year", at={"age": 200}, n=3).table["extrapolated"].all()
    with pytest.warns(FitWarning, match="age = 200"):
        table = fit.effects("year", by="age", at={"age": [50, 200], "sex": "male"}, n=3).table
    assert table.groupby("age")["extrapolated"].all().tolist() == [False, True]


def test_boundary_knots_inside_the_data(pbc):
    formula = "log(bili) ~ bs(year, df=4, boundary_knots=[0, 8]) + (1 | subject)"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        fit = hl.TwoLevelModel.from_formula(formula, pbc).fit_reml()
    with pytest.warns(FitWarning, match="beyond the boundary knots"):
        table = fit.effects("year", n=29).table
    assert table.loc[table["extrapolated"], "year"].min() > 8.0
    assert not table.loc[table["year"] <= 8.0, "extrapolated"].any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"variable": "yaer"}, "no covariate of this name. Did you mean 'year'"),
        ({"variable": "chol_unused"}, "no covariate"),
        ({"variable": "sex"}, "is a factor in this model"),
        ({"variable": "year", "by": "year"}, "what the curves run along"),
        ({"variable": "year", "by": "sx"}, "Did you mean 'sex'"),
        ({"variable": "year", "by": ["sex", "age", "basepro"]}, "no third way"),
        ({"variable": "year", "at": {"sex": "other"}}, "no such level"),
        ({"variable": "year", "at": {"weight": 3}}, "no covariate of this name"),
        ({"variable": "year", "at": {"age": "old"}}, "is a number"),
        ({"variable": "year", "at": {"year": 3}}, "two points at least"),
        ({"variable": "year", "at": {"year": ["a", 1]}}, "is a number"),
        ({"variable": "year", "n": 1}, "two points at least"),
        ({"variable": "year", "ci": 1.5}, "between 0 and 1"),
        ({"variable": "year", "transform": "log"}, "not one of the choices"),
        ({"variable": "year", "simultaneous": "panel"}, "not one of the choices"),
        ({"variable": "year", "level": "mean"}, "not one of the choices"),
    ],
)
def test_refusals(fit, arguments, message):
    with pytest.raises(SpecificationError, match=message):
        fit.effects(**arguments)


def test_refused_levels(fit, gee):
    with pytest.raises(NotAvailableError, match="mean over subjects"):
        gee.effects("time", level="subject")
    with pytest.raises(NotAvailableError, match="about the mean"):
        fit.effects("year", level="subject")
    assert fit.effects("year", level="marginal", n=3).table.equals(fit.effects("year", n=3).table)


def test_constant_covariate(dental):
    model = hl.TwoLevelModel.from_formula("distance ~ 0 + one + time + (1 | subject)", dental.assign(one=2.5))
    with pytest.raises(SpecificationError, match=r"same value, 2\.5, in all rows"):
        model.fit_reml().effects("one")


def test_covariates_that_cannot_stand_still(dental, pbc):
    square = hl.TwoLevelModel.from_formula(
        "distance ~ time + t2 + (1 | subject)", dental.assign(t2=dental["time"] ** 2)
    )
    with pytest.raises(SpecificationError, match="function of 'time'"):
        square.fit_reml().effects("time")
    late = hl.TwoLevelModel.from_formula(
        "log(bili) ~ year + late + (1 | subject)", pbc.assign(late=np.where(pbc["year"] > 3, "yes", "no"))
    )
    with pytest.raises(SpecificationError, match="function of 'year'"):
        late.fit_reml().effects("year", by="late")
    inside = hl.TwoLevelModel.from_formula("log(bili) ~ year + I(year > 3) + (1 | subject)", pbc).fit_reml()
    table = inside.effects("year", at={"year": [2.9, 3.1]}).table
    step = table["estimate"].diff().iloc[1] - 0.2 * inside.beta["year"]
    assert step == pytest.approx(inside.beta.iloc[-1] if "I(" in inside.beta.index[-1] else inside.beta.iloc[1])
    older = hl.TwoLevelModel.from_formula(
        "log(bili) ~ year + now + (1 | subject)", pbc.assign(now=pbc["age"] + pbc["year"])
    )
    assert "within subjects now changes exactly with year" in repr(older.fit_reml().effects("year", n=3))


def test_a_factor_within_subjects(sleepstudy):
    data = sleepstudy.assign(room=np.where(sleepstudy["days"] % 2 < 0.5, "a", "b"))
    rng = np.random.default_rng(1)
    free = data.assign(room=rng.permutation(data["room"]))
    fit = hl.TwoLevelModel.from_formula("reaction ~ days * room + (1 | subject)", free).fit_reml()
    assert len(fit.effects("days", by="room", n=5).curves) == 2


# Pictures -----------------------------------------------------------------------------------------------------------


def drawn(collection, visual, **where):
    return collection.get_viz(visual, "effects", where)


def test_what_is_drawn_is_the_table(fit):
    with pytest.warns(FitWarning, match="extrapolated"):
        curves = fit.effects(
            "year", by=["sex", "age"], at={"year": np.linspace(0, 16, 33), **HELD, "age": [40, 60]}, simultaneous=True
        )
    collection = curves.plot(data="partial", backend="none")
    table, (key, rows) = curves.table, curves.curves[3]
    assert key == {"sex": "female", "age": 60.0}
    where = {"panel": "age = 60", "line": "sex = female"}
    part = table.iloc[rows]
    line = drawn(collection, "curve", **where)
    seen = ~part["extrapolated"].to_numpy()
    np.testing.assert_allclose(np.asarray(line["y"])[seen], part.loc[seen, "estimate"])
    assert np.isnan(np.asarray(line["y"])[~seen]).all() and (~seen).any()
    dashed = np.asarray(drawn(collection, "extrapolated", **where)["y"])
    np.testing.assert_allclose(dashed[~seen], part.loc[~seen, "estimate"])
    assert np.isfinite(dashed).sum() == (~seen).sum() + 1
    for visual, ending in (("band", ""), ("simultaneous", "_simultaneous")):
        band = drawn(collection, visual, **where)
        np.testing.assert_allclose(band["y_bottom"], part[f"lower{ending}"])
        np.testing.assert_allclose(band["y_top"], part[f"upper{ending}"])
    points = curves.points("partial")
    own = points[(points["age"] == 60) & (points["sex"] == "female")]
    y = np.asarray(drawn(collection, "points", **where)["y"])
    np.testing.assert_allclose(y[np.isfinite(y)], own["y"])


def test_estimators_on_one_picture(simple, posterior, gee):
    collection = hl.plot_effects(posterior, simple, gee, "time", by="sex", data="points", backend="none")
    colours = set()
    for label, one in (("NUTS", posterior), ("REML", simple), ("GEE", gee)):
        where = {"panel": "sex = Male", "line": label}
        table = one.effects("time", by="sex").table
        line = drawn(collection, "curve", **where)
        np.testing.assert_allclose(line["y"], table.loc[table["sex"] == "Male", "estimate"])
        colours.add(line["color"])
    assert len(colours) == 3
    named = hl.plot_effects({"a": simple, "b": gee}, variable="time", by="sex", backend="none")
    assert drawn(named, "curve", panel="sex = Male", line="b")
    same = hl.compare(simple, gee).plot_effects("time", by="sex", backend="none")
    assert drawn(same, "curve", panel="sex = Male", line="GEE")


def test_fits_are_asked_at_the_same_values(pbc, fit):
    younger = hl.TwoLevelModel.from_formula(
        "log(bili) ~ year * sex + age + (year | subject)", pbc[pbc["age"] < 50]
    ).fit_reml()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        collection = hl.plot_effects(
            fit, younger, variable="year", by="sex", at={"basepro": 10}, labels=["all", "young"], backend="none"
        )
        expected = younger.effects(
            "year", by="sex", at={"age": pbc["age"].mean(), "year": np.linspace(0, pbc["year"].max(), 101)}
        )
    y = drawn(collection, "curve", panel="sex = male", line="young")["y"]
    dashed = drawn(collection, "extrapolated", panel="sex = male", line="young")["y"]
    table = expected.table
    np.testing.assert_allclose(
        np.where(np.isnan(y), dashed, y), table.loc[table["sex"] == "male", "estimate"], rtol=1e-10
    )


def test_pictures_that_cannot_be(simple, sleep_reml, fit, pbc):
    with pytest.raises(SpecificationError, match="one response"):
        hl.plot_effects(simple, sleep_reml, backend="none")
    with pytest.raises(SpecificationError, match="so many colours"):
        fit.plot_effects("year", by="age", at={"age": range(40, 50)}, backend="none")
    with pytest.raises(SpecificationError, match="so many panels"):
        fit.plot_effects("year", by="sex", at={"age": range(40, 70)}, backend="none")
    with pytest.raises(SpecificationError, match="made already"):
        hl.plot_effects(fit.effects("year", n=3), by="sex", backend="none")
    with pytest.raises(SpecificationError, match="not one of the choices"):
        fit.plot_effects("year", data="residuals", backend="none")


def test_a_table_of_effects_is_drawn_as_one(simple):
    assert hl.plot_effects(simple.marginal_means("sex"), backend="none").get_viz("point_estimate")


def test_page_has_room_for_its_words(fit):
    collection = fit.plot_effects("year", by="sex", at=HELD, data="partial", simultaneous=True, backend="matplotlib")
    figure = collection.get_viz("figure")
    figure.canvas.draw()
    box = figure._suptitle.get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
    text = figure._suptitle.get_text().replace("\n", " ")
    assert "At age = 49, basepro = 10.6." in text and "simultaneous" in text and "partial residuals" in text
    low, high = figure.axes[0].get_ylim()
    assert low < fit.design.y.min() + 2.0 and high > 4.0


def test_sliders_combine(fit):
    pytest.importorskip("plotly")
    pytest.importorskip("webcolors")
    at = {"age": [40, 50, 60], "basepro": [10, 12], "year": [0, 3, 9]}
    collection = fit.plot_effects("year", by="sex", at=at, data="points", simultaneous=True, backend="plotly")
    figure = collection.get_viz("figure")
    first, second = figure.layout.sliders
    assert [s.label for s in first.steps] == ["40", "50", "60"] and [s.label for s in second.steps] == ["10", "12"]
    table = fit.effects("year", by="sex", at=at).table
    for a, age in enumerate(at["age"]):
        for b, basepro in enumerate(at["basepro"]):
            (visible, traces), (shown, _) = first.steps[a].args, second.steps[b].args
            seen = [
                figure.data[i]
                for i, v, o in zip(traces, visible["visible"], shown["opacity"], strict=True)
                if v and o > 0 and figure.data[i].mode == "lines" and figure.data[i].line.width > 2
            ]
            own = table[(table["age"] == age) & (table["basepro"] == basepro)]
            np.testing.assert_allclose(np.concatenate([t.y for t in seen]), own["estimate"])
            fills = [
                f for i, f in zip(traces, shown["fillcolor"], strict=True) if figure.data[i].fill and f[-3:] != " 0)"
            ]
            assert len(fills) == 3 * 4  # two bands of two curves, at three ages
    active = [first.steps[first.active].label, second.steps[second.active].label]
    now = [t for t in figure.data if t.visible and t.opacity != 0.0 and t.mode == "lines" and (t.line.width or 0) > 2]
    assert active == ["50", "12"] and len(now) == 2


def test_saved_page_needs_no_network(fit, tmp_path):
    pytest.importorskip("plotly")
    pytest.importorskip("webcolors")
    fit.plot_effects("year", at={"age": [40, 60], "sex": "male"}, backend="plotly", n=5).savefig(tmp_path / "page.html")
    found = []

    class Addresses(HTMLParser):
        def handle_starttag(self, tag, attrs):
            found.extend(v for k, v in attrs if k in ("src", "href", "data") and v)

    Addresses().feed((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert not found


# Level 2, names, and labels ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def between(dental):
    """Two unrelated numbers and a factor of level 2; every subject has its own numbers."""
    rng, subjects = np.random.default_rng(20), dental["subject"].unique()
    iq, ses = (dict(zip(subjects, rng.normal(size=len(subjects)), strict=True)) for _ in range(2))
    return dental.assign(iq=[iq[s] for s in dental["subject"]], ses=[ses[s] for s in dental["subject"]])


def test_curves_along_level_2_beside_other_covariates_of_level_2(between):
    fit = hl.TwoLevelModel.from_formula("distance ~ time + sex + iq + ses + (1 | subject)", between).fit_reml()
    found = fit.effects("iq", by="sex", at={"iq": [-1, 1]})
    means = fit.marginal_means(["sex", "iq"], at={"iq": [-1, 1]}).table
    np.testing.assert_allclose(found.table["estimate"], means["estimate"], rtol=1e-10)
    few = between[between["subject"].isin(between["subject"].unique()[[0, 3, 6, 12, 15, 18, 21]])]
    fit = hl.TwoLevelModel.from_formula("distance ~ time + iq + ses + (1 | subject)", few).fit_reml()
    assert len(fit.effects("iq", n=5)) == 5


@pytest.mark.parametrize("function", [lambda x: x**2, lambda x: np.where(x > 0, "high", "low"), lambda x: 3 - x**3])
def test_functions_of_a_covariate_of_level_2_are_refused(between, function):
    data = between.assign(other=function(between["iq"]))
    fit = hl.TwoLevelModel.from_formula("distance ~ time + iq + other + (1 | subject)", data).fit_reml()
    with pytest.raises(SpecificationError, match="'other' is a function of 'iq'"):
        fit.effects("iq")


@pytest.mark.parametrize("log", ["log", "np.log", "np.log2", "np.log10"])
def test_a_logarithm_is_undone_by_its_base(log, dental):
    fit = hl.TwoLevelModel.from_formula(f"{log}(distance) ~ sex * time + (1 | subject)", dental).fit_reml()
    natural = hl.TwoLevelModel.from_formula("log(distance) ~ sex * time + (1 | subject)", dental).fit_reml()
    options = {"by": "sex", "at": {"time": [0, 6]}, "transform": "exp"}
    found, expected = fit.effects("time", **options), natural.effects("time", **options)
    assert found.ylabel == "distance" and found.table["estimate"].between(20, 30).all()
    pd.testing.assert_frame_equal(found.table, expected.table, rtol=1e-6)
    for kind in ("points", "partial"):
        pd.testing.assert_frame_equal(found.points(kind), expected.points(kind), rtol=1e-6)


@pytest.mark.parametrize("response", ["distance", "I(distance / 10)", "sqrt(distance)", "np.log1p(distance)"])
def test_what_is_no_logarithm_is_not_undone(response, dental):
    text = f"np.{response}" if response.startswith("sqrt") else response
    fit = hl.TwoLevelModel.from_formula(f"{text} ~ time + (1 | subject)", dental).fit_reml()
    with pytest.raises(SpecificationError, match="not written as one"):
        fit.effects("time", transform="exp")


@pytest.mark.parametrize("name", ["estimate", "se", "lower", "extrapolated", "y", "t"])
def test_covariates_named_like_a_column_of_curves(name, dental):
    data = dental.rename(columns={"time": name})
    fit = hl.TwoLevelModel.from_formula(f"distance ~ sex * {name} + (1 | subject)", data).fit_reml()
    curves = fit.effects(name, by="sex", at={name: [0, 3, 6]})
    expected = f"at {name}" if name in ("estimate", "se", "lower", "extrapolated") else name
    assert curves.table.columns[:2].tolist() == ["sex", expected] and curves.table.columns.is_unique
    assert curves.table[expected].tolist() == [0, 3, 6] * 2 and curves.table["estimate"].between(20, 30).all()
    points = curves.points("partial")
    assert points.columns.tolist() == ["sex", "at y" if name == "y" else name, "y"]
    assert repr(curves).count("Female") == 3 and "<table" in curves._repr_html_()
    assert len(fit.effects(name, at={name: [0, 6]}).curves) == 1
    axes = curves.plot(data="points", backend="matplotlib").get_viz("figure").axes[0]
    assert axes.get_xlabel() == name
    np.testing.assert_allclose(axes.lines[0].get_xdata()[:3], [0, 3, 6])
    assert np.nanmin(np.asarray(axes.collections[0].get_offsets())[:, 1]) > 15


def test_the_legend_is_not_cut_off_and_names_have_no_backticks(dental):
    arms = ["placebo control", "low dose arm", "high dose arm", "standard of care"]
    arm = {s: arms[k % 4] for k, s in enumerate(dental["subject"].unique())}
    data = dental.assign(arm=pd.Categorical([arm[s] for s in dental["subject"]], arms))
    data = data.rename(columns={"time": "my time", "distance": "my distance"})
    fit = hl.TwoLevelModel.from_formula("`my distance` ~ arm * `my time` + (1 | subject)", data).fit_reml()
    figure = fit.plot_effects("`my time`", by="arm", backend="matplotlib").get_viz("figure")
    figure.draw_without_rendering()
    (legend,) = figure.legends
    box = legend.get_window_extent(figure.canvas.get_renderer())
    assert box.x0 >= 0.0 and box.x1 <= figure.bbox.width
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("my time", "my distance")
    fit = hl.TwoLevelModel.from_formula("log(`my distance`) ~ `my time` + (1 | subject)", data).fit_reml()
    assert fit.effects("my time", transform="exp").ylabel == "my distance"


def test_remedies_name_what_can_be_done(dental):
    with pytest.raises(SpecificationError, match=r"plot_effects\(fit, 'time'\)") as caught:
        hl.plot_effects("time")
    assert "Effect plots" in caught.value.see
    fit = hl.TwoLevelModel.from_formula("distance ~ time + (1 | subject)", dental).fit_reml()
    with pytest.raises(SpecificationError, match="leave by= out"):
        fit.effects("time", by="sex")


def test_one_curve_without_by_is_one_line(dental):
    fit = hl.TwoLevelModel.from_formula("distance ~ sex * time + (1 + time | subject)", dental).fit_reml()
    collection = fit.plot_effects("time")
    axes = collection.get_viz("figure").axes[0]
    (line,) = axes.lines
    table = fit.effects("time").table
    np.testing.assert_allclose(line.get_xdata(), table["time"])
    np.testing.assert_allclose(line.get_ydata(), table["estimate"])
    assert len(axes.collections) == 1  # the band


def test_lines_break_where_the_mean_jumps():
    rng = np.random.default_rng(1)
    data = pd.DataFrame({"years": np.tile(np.arange(7.0), 12), "id": np.repeat(np.arange(12), 7)})
    data["y"] = data["years"] + 3.0 * (data["years"] > 3) + rng.normal(size=12)[data["id"]] + rng.normal(size=84)
    fit = hl.TwoLevelModel.from_formula("y ~ years * I(years > 3) + (1 | id)", data).fit_reml()
    effects = fit.plot_effects("years").get_viz("figure").axes[0].lines[0]
    lines = fit.plot_trajectories().get_viz("figure").axes[0].lines
    before, after = fit.predict(pd.DataFrame({"years": [3.0, 3.0 + 1e-9]}), level="population")["estimate"]
    for line in (effects, lines[1]):
        x, y = line.get_xdata(), line.get_ydata()
        (gap,) = np.flatnonzero(np.isnan(x[:-1]) & np.isfinite(x[1:]) & (np.arange(len(x) - 1) > 0))
        np.testing.assert_allclose([x[gap - 1], x[gap + 1]], 3.0, atol=1e-9)
        np.testing.assert_allclose([y[gap - 1], y[gap + 1]], [before, after], atol=1e-6)
    smooth = hl.TwoLevelModel.from_formula("y ~ ns(years, 3) + (1 | id)", data).fit_reml()
    assert smooth.effects("years").jumps.shape == (2, 0) and len(smooth.effects("years", n=11).table) == 11


@pytest.mark.parametrize("unit", [-1e4, 1e-4, 1.0, 1e4])
def test_a_covariate_moves_along_where_its_deviations_within_subjects_do(unit):
    """A correlation of 0.999 within subjects, whatever the unit and the subjects' means."""
    rng = np.random.default_rng(2)
    subject = np.repeat(np.arange(20), 5)
    x, mean = rng.normal(size=100), rng.normal(size=20)[subject]
    assert _moves_along(x, unit * (x + 100.0 * mean), subject)
    assert not _moves_along(x, unit * (x + 0.3 * rng.normal(size=100)), subject)
    assert not _moves_along(x, unit * mean, subject)
