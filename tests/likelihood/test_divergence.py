"""Likelihoods without a maximum are refused, and an estimate at an honest boundary is not."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import hierlmm as hl
from hierlmm.likelihood.estimate import make_criterion
from hierlmm.likelihood.residual_messages import unbounded_rays

UNBOUNDED = pd.read_csv(Path(__file__).parents[1] / "data" / "unbounded_cs.csv")  # simulated


def deviance(design, rho, ratio):
    """-2 log-likelihood of a compound-symmetric model, β and σ at their best, with dense matrices."""
    same = design.subject_index[:, None] == design.subject_index[None, :]
    V = np.where(same, rho, 0.0) * np.outer(ratio, ratio)
    np.fill_diagonal(V, ratio**2)
    L = np.linalg.cholesky(V)
    X, y = np.linalg.solve(L, design.X), np.linalg.solve(L, design.y)
    rss, n = np.sum((y - X @ np.linalg.lstsq(X, y)[0]) ** 2), len(y)
    return n * (np.log(2 * np.pi * rss / n) + 1) + 2 * np.log(np.diag(L)).sum()


def unbounded_model():
    return hl.MarginalModel(
        "y ~ t + sex",
        subject="subject",
        data=UNBOUNDED,
        correlation=hl.CompoundSymmetry(),
        variance=hl.VarIdent("trt"),
    )


def test_the_likelihood_of_these_data_grows_by_a_constant_for_every_decade():
    """With dense matrices: two subjects of five rows lose one direction each, which the coefficients reproduce."""
    model = unbounded_model()
    levels = sorted(UNBOUNDED["trt"].unique())
    ratio = np.select([UNBOUNDED["trt"] == level for level in levels[1:]], [0.45, 1.0], 1.0)
    along = [deviance(model.design, -0.25 + 10.0**-k, ratio) for k in (5, 6, 7)]
    np.testing.assert_allclose(np.diff(along), -2.0 * np.log(10.0), rtol=1e-2)
    with pytest.raises(hl.DataError, match=r"rho goes to -0\.25.*2\.30 for every factor of ten"):
        model.fit_ml()


def one_longer(seed, share=0.95):
    rng = np.random.default_rng(seed)
    n = [5] + [3] * 9
    rows = pd.DataFrame({"id": np.repeat(np.arange(10), n), "t": np.concatenate([np.arange(k) for k in n]) * 1.0})
    # Rows of a subject repel each other by ``share``, so that the data pull towards the end of the range; or attract.
    noise = rng.normal(size=len(rows))
    return rows.assign(y=noise - share * pd.Series(noise).groupby(rows["id"]).transform("mean"))


@pytest.mark.parametrize(("share", "outcome"), [(0.95, "refused"), (-2.0, "inside")])
@pytest.mark.parametrize("seed", range(3))
def test_one_longer_subject_under_compound_symmetry(seed, share, outcome):
    data = one_longer(seed, share)
    model = hl.MarginalModel("y ~ t", subject="id", data=data, correlation=hl.CompoundSymmetry())
    # Dense: the end of the range is bottomless, whatever lies inside.
    ends = [deviance(model.design, -0.25 + 10.0**-k, np.ones(len(data))) for k in (6, 7)]
    assert ends[1] - ends[0] == pytest.approx(-np.log(10.0), rel=1e-2)
    if outcome == "refused":
        with pytest.raises(hl.DataError, match=r"rows of id 0;.*1\.15 for every factor of ten"):
            model.fit_ml()
    else:
        fit = model.fit_ml()
        assert "no highest value" in fit.warnings[0]
        assert fit.optimum.lam[0] > -6
    # REML leaves the reproduced direction out: what is reported is finite in the dense likelihood too.
    assert "no highest value" not in " ".join(model.fit_reml().warnings)


@pytest.mark.filterwarnings("ignore::hierlmm.FitWarning")  # by REML the ratio of that group is in nothing: flat
@pytest.mark.parametrize("few", ["c", "A"])  # the group that vanishes is the last level, or the reference
@pytest.mark.parametrize("formula", ["y ~ t + trt", "y ~ t * trt"])
def test_a_group_that_its_coefficients_reproduce(few, formula):
    rng = np.random.default_rng(0)
    data = pd.DataFrame({"id": np.repeat(np.arange(12), 4), "t": np.tile(np.arange(4.0), 12)})
    data["trt"] = np.where(np.arange(48) < 2, few, np.where(data["id"] % 2 == 0, "a", "b"))
    data["y"] = rng.normal(size=48)
    model = hl.MarginalModel(formula, subject="id", data=data, variance=hl.VarIdent("trt"))
    what = r"sigma, the residual SD of trt=A, goes to 0" if few == "A" else r"ratio\(c/a\) goes to 0"
    # Two rows: σ⁻² each, one log-likelihood unit a row and e-fold of the ratio.
    with pytest.raises(hl.DataError, match=rf"{what}.*rows of id 0.*4\.6. for every factor of ten"):
        model.fit_ml()
    model.fit_reml()


@pytest.mark.parametrize("reml", [True, False])
def test_honest_ends_of_ranges_are_no_divergence(reml):
    litter = hl.load_dataset("negative_icc")
    model = hl.MarginalModel("y ~ time + x", correlation=hl.CompoundSymmetry(), subject="subject", data=litter)
    criterion = make_criterion(model.design, reml=reml)
    fit = model.fit_reml() if reml else model.fit_ml()
    assert unbounded_rays(criterion, fit.optimum.lam) == []
    dental = hl.load_dataset("dental")
    for correlation in (hl.AR1(nugget=True), hl.Exponential("time", nugget=True), hl.Gaussian("time", nugget=True)):
        model = hl.TwoLevelModel.from_formula("distance ~ sex * time + (1 | subject)", dental, residual=correlation)
        fit = model.fit_reml() if reml else model.fit_ml()
        assert unbounded_rays(fit.criterion_function, fit.optimum.lam) == []


def years(seed):
    rng = np.random.default_rng(seed)
    g, t = np.repeat(np.arange(20), 5), np.tile(np.arange(5.0), 20)
    y = 10 + 0.3 * t + rng.normal(size=20)[g] + rng.normal(size=100) * (1 + 0.3 * t)
    return pd.DataFrame({"g": g, "year": 1990 + t, "y": y})


def test_a_variance_function_of_a_calendar_year_is_refused_where_sigma_is_none_of_the_numbers():
    """The SD of year 1 would be 10⁻⁶⁰⁰ of that of the rows: it came out as 0 and every SD of a row as NaN."""
    model = hl.MarginalModel("y ~ year", variance=hl.VarPower("year"), subject="g", data=years(3))
    for fit in (model.fit_reml, model.fit_ml, lambda: model.fit(progressbar=False)):
        with pytest.raises(hl.DataError, match=r"count the variable from a point near the data"):
            fit()
    near = years(3).assign(year=lambda d: d["year"] - 1989)
    fit = hl.MarginalModel("y ~ year", variance=hl.VarPower("year"), subject="g", data=near).fit_reml()
    assert np.all(np.isfinite(fit.variance_components()["estimate"]))


@pytest.mark.parametrize("variance", [hl.VarExp("out"), hl.VarPower("twice")])
def test_the_power_of_a_variance_function_may_have_no_maximum(variance):
    """One row with a value of its own, through which two coefficients pass: its variance goes to zero."""
    rng = np.random.default_rng(3)
    data = pd.DataFrame({"g": np.repeat(np.arange(8), 5), "k": np.tile(np.arange(5.0), 8), "y": rng.normal(size=40)})
    data["out"] = np.where(np.arange(40) == 7, 1.0, 0.0)
    data["twice"] = 1.0 + data["out"]
    model = hl.MarginalModel("y ~ k", variance=variance, subject="g", data=data)
    ends = [deviance(model.design, 0.0, np.where(data["out"] == 1.0, 10.0**-k, 1.0)) for k in (5, 6)]
    assert ends[1] - ends[0] == pytest.approx(-2.0 * np.log(10.0), rel=1e-2)
    with pytest.raises(hl.DataError, match=r"goes to -infinity.*rows of g 1;.*2\.30 for every factor of ten"):
        model.fit_ml()
