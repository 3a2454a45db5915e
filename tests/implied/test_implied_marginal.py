"""The implied marginal covariance: closed forms, the fitted rows, draws, what is refused, the pictures."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2

import hierlmm as hl
from hierlmm.implied.marginal import implied_marginal

BASE = "distance ~ sex * time"


def two_level(dental, bar, **options):
    return hl.TwoLevelModel.from_formula(f"{BASE} + ({bar} | subject)", dental, **options)


def marginal(dental, **options):
    return hl.MarginalModel(BASE, subject="subject", data=dental, **options)


@pytest.fixture(scope="module")
def slope(dental_reml):
    return dental_reml


@pytest.fixture(scope="module")
def posterior(dental):
    return two_level(dental, "1 + time").fit(seed=1, progressbar=False)


@pytest.fixture(scope="module")
def several(dental, slope):
    return [
        two_level(dental, "1").fit_reml(),
        slope,
        two_level(dental, "1", residual=hl.Exponential("time")).fit_reml(),
        marginal(dental, correlation=hl.Unstructured("time"), variance=hl.VarIdent("time")).fit_reml(),
    ]


# --- V ------------------------------------------------------------------------------------------------------------


def test_v_of_every_structure_is_that_of_the_fitted_rows(dental, several):
    fits = [
        *several,
        two_level(dental, "1 + time", residual=hl.AR1(), residual_variance=hl.VarPower("age")).fit_ml()
        if "age" in dental
        else two_level(dental, "1", residual=hl.AR1()).fit_ml(),
        marginal(dental, correlation=hl.Toeplitz()).fit_reml(),
        marginal(dental, correlation=hl.CompoundSymmetry(), variance=hl.VarExp("time")).fit_ml(),
        two_level(dental, "1").fit_gee("ar1", time="time"),
        two_level(dental, "1").fit_gee("unstructured", time="time"),
        two_level(dental, "1").fit_gee(),
    ]
    for fit in fits:
        found = fit.implied_marginal(draws=0)
        np.testing.assert_allclose(found.V, fit.marginal_covariance(), rtol=1e-10)
        sd = np.sqrt(np.diag(found.V))
        np.testing.assert_allclose(found.correlation, found.V / np.outer(sd, sd), rtol=1e-10)
        assert found.V.index.tolist() == [0, 2, 4, 6]
        assert found.V.index.name == "time"


def test_closed_forms(slope, several):
    t = np.array([0.0, 1.0, 2.5, 6.0])
    D, s2 = slope.D.to_numpy(), slope.sigma**2
    found = slope.implied_marginal(t, draws=0)
    variance = D[0, 0] + 2 * t * D[0, 1] + t**2 * D[1, 1] + s2
    np.testing.assert_allclose(found.variance["variance"], variance)
    np.testing.assert_allclose(found.variance["within"], s2)
    cov = D[0, 0] + (t[:, None] + t) * D[0, 1] + np.outer(t, t) * D[1, 1] + s2 * np.eye(4)
    np.testing.assert_allclose(found.V, cov)
    assert not slope.implied_marginal([0, 1, 2], draws=0).stationary
    serial = several[2]
    range_ = serial.residual_estimate.parameters["range"]
    D, s2 = float(serial.D.iloc[0, 0]), serial.sigma**2
    lag = np.abs(np.subtract.outer(t, t))
    found = serial.implied_marginal(t, draws=0)
    np.testing.assert_allclose(found.correlation, (D + s2 * np.exp(-lag / range_)) / (D + s2))
    assert serial.implied_marginal([0, 1, 2], draws=0).stationary


def test_other_columns_are_given_or_follow_from_time(dental):
    fit = marginal(dental, variance=hl.VarIdent("sex"), correlation=hl.CompoundSymmetry()).fit_reml()
    with pytest.raises(hl.SpecificationError, match="V depends on it"):
        fit.implied_marginal()
    for sex in ("Male", "Female"):
        subject = dental.loc[dental["sex"] == sex, "subject"].iloc[0]
        found = fit.implied_marginal(at={"sex": sex}, draws=0)
        np.testing.assert_allclose(found.V, fit.marginal_covariance(subject))
        rows = dental["sex"] == sex
        assert found.empirical["n"].tolist() == [rows.sum() // 4] * 4
        assert f"sex = {sex}" in repr(found)
    aged = dental.assign(years=dental["time"] + 8)
    fit = two_level(aged, "1 + time", residual_variance=hl.VarPower("years")).fit_reml()
    found = fit.implied_marginal([0, 2, 4, 6], draws=0)
    np.testing.assert_allclose(found.V, fit.marginal_covariance(), rtol=1e-10)
    between = fit.implied_marginal([1, 3], draws=0)  # years = time + 8 holds at times that were not measured
    power = fit.residual_estimate.parameters["power"]
    np.testing.assert_allclose(between.variance["within"], fit.sigma**2 * np.array([9.0, 11.0]) ** (2 * power))


def test_occasions_without_numbers(dental):
    visits = dental.assign(visit=pd.Categorical("v" + (dental["time"] // 2).astype(int).astype(str)))
    fit = hl.MarginalModel(
        "distance ~ sex + visit", correlation=hl.Unstructured("visit"), subject="subject", data=visits
    ).fit_reml()
    found = fit.implied_marginal(draws=0)
    assert found.V.index.tolist() == ["v0", "v1", "v2", "v3"]
    np.testing.assert_allclose(found.V, fit.marginal_covariance(), rtol=1e-10)
    assert fit.implied_marginal(["v3", "v1"], draws=0).V.index.tolist() == ["v1", "v3"]
    with pytest.raises(hl.DataError, match="no such occasion"):
        fit.implied_marginal(["v9"])


def test_models_without_a_time_count_rows():
    fit = hl.TwoLevelModel.from_formula("yield ~ 1 + (1 | batch)", hl.load_dataset("dyestuff")).fit_ml()
    found = fit.implied_marginal(draws=0)
    assert found.time == "row"
    np.testing.assert_allclose(found.V, fit.marginal_covariance())
    assert found.correlation.iloc[0, 1] == pytest.approx(fit.icc)


def test_many_times_become_25(sleepstudy):
    rng = np.random.default_rng(0)
    frame = sleepstudy.assign(days=sleepstudy["days"] + rng.uniform(0, 0.5, len(sleepstudy)))
    found = hl.TwoLevelModel.from_formula("reaction ~ days + (1 + days | subject)", frame).fit_reml().implied_marginal()
    assert len(found.x) == 25
    assert found.x[0] == frame["days"].min() and found.x[-1] == frame["days"].max()
    assert found.empirical["n"].sum() == 180
    assert len(found.empirical) == 10


# --- bands --------------------------------------------------------------------------------------------------------


def test_bands_of_a_variance_without_random_effects(dental):
    """σ² of independent rows: the normal approximation of log σ, whose standard error is 1/√(2 df)."""
    fit = marginal(dental).fit_reml()
    found = fit.implied_marginal(draws=20_000, seed=1).variance.iloc[0]
    df = 108 - 4
    want = fit.sigma**2 * np.exp(np.array([-1, 1]) * 1.959964 * 2 / np.sqrt(2 * df))
    np.testing.assert_allclose([found["lower"], found["upper"]], want, rtol=0.02)
    exact = df * fit.sigma**2 / chi2.ppf([0.975, 0.025], df)
    np.testing.assert_allclose([found["lower"], found["upper"]], exact, rtol=0.06)


def test_bands_of_reml_cover_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(4)
    D = np.array([[2.0, 0.3], [0.3, 0.5]])
    times = np.arange(5.0)
    Z = np.column_stack([np.ones(5), times])
    V = Z @ D @ Z.T + np.eye(5)
    root = np.linalg.cholesky(V)
    sd = np.sqrt(np.diag(V))
    frame = pd.DataFrame({"id": np.repeat(np.arange(60), 5), "t": np.tile(times, 60)})
    hits = []
    for k in range(40):
        frame["y"] = (rng.standard_normal((60, 5)) @ root.T).ravel()
        fit = hl.TwoLevelModel.from_formula("y ~ t + (1 + t | id)", frame).fit_reml()
        found = fit.implied_marginal(draws=200, seed=k)
        R = V / np.outer(sd, sd)
        hits.append(
            [
                found.variance["lower"].iloc[4] < V[4, 4] < found.variance["upper"].iloc[4],
                found.correlation_lower.iloc[0, 4] < R[0, 4] < found.correlation_upper.iloc[0, 4],
            ]
        )
    assert np.all(np.mean(hits, axis=0) > 0.84)  # 0.95 less three standard errors of 40 trials


def test_posterior_bands_are_quantiles_of_its_draws(posterior):
    found = posterior.implied_marginal([0, 3], ci=0.8)
    D = posterior.draws("D").reshape(-1, 2, 2)
    sigma = posterior.draws("sigma").ravel()
    kept = np.unique(np.linspace(0, len(sigma) - 1, 2000).round().astype(int))
    at3 = (D[:, 0, 0] + 6 * D[:, 0, 1] + 9 * D[:, 1, 1] + sigma**2)[kept]
    assert found.variance["variance"].iloc[1] == pytest.approx(at3.mean())
    np.testing.assert_allclose(found.variance.iloc[1][["lower", "upper"]].to_numpy(float), np.quantile(at3, [0.1, 0.9]))
    at0 = (D[:, 0, 0] + sigma**2)[kept]
    corr = (D[:, 0, 0] + 3 * D[:, 0, 1])[kept] / np.sqrt(at0 * at3)
    assert found.correlation.iloc[0, 1] == pytest.approx(corr.mean())
    assert found.correlation_upper.iloc[0, 1] == pytest.approx(np.quantile(corr, 0.9))
    assert found.draws.shape == (2000, 2, 2)
    with pytest.raises(ValueError, match="read-only"):
        found.draws[0, 0, 0] = 1.0


def test_posterior_with_a_residual_structure(sleepstudy):
    model = hl.TwoLevelModel.from_formula(
        "reaction ~ days + (1 | subject)", sleepstudy, residual=hl.Exponential("days")
    )
    fit = model.fit(seed=1, progressbar=False)
    found = model.implied_marginal(fit, [0, 1], draws=4000)
    D, sigma = fit.draws("D").ravel(), fit.draws("sigma").ravel()
    range_ = fit.draws("residual_correlation").ravel()
    np.testing.assert_allclose(found.draws[:, 0, 1], D + sigma**2 * np.exp(-1 / range_))


def test_what_the_bands_cannot_say_is_said(dental):
    fit = hl.TwoLevelModel.from_formula("yield ~ 1 + (1 | batch)", hl.load_dataset("dyestuff2")).fit_reml()
    assert "held at zero" in fit.implied_marginal().note
    gee = two_level(dental, "1").fit_gee().implied_marginal()
    assert "No bands" in gee.note
    assert gee.V_lower is None and gee.draws is None
    assert gee.variance["between"].isna().all()


# --- what the data show -------------------------------------------------------------------------------------------


def test_empirical_moments_by_hand(dental, several):
    fit = several[1]
    found = fit.implied_marginal(draws=0)
    r = fit.residuals(level="population").to_numpy()
    X, C = fit.design.X, fit.beta_cov.to_numpy()
    extra = X @ C @ X.T
    table = {t: np.flatnonzero(dental["time"] == t) for t in (0, 2, 4, 6)}
    variance = {t: np.mean(r[i] ** 2 + np.diag(extra)[i]) for t, i in table.items()}
    np.testing.assert_allclose(found.empirical["variance"], list(variance.values()))
    pairs = found.empirical_correlation
    assert pairs["n"].tolist() == [27] * 6
    i, j = table[2], table[6]  # rows of one subject follow one another, so that both are in the order of subjects
    want = np.mean(r[i] * r[j] + extra[i, j]) / np.sqrt(variance[2] * variance[6])
    own = pairs[(pairs["time"] == 2) & (pairs["time_bis"] == 6)]["correlation"]
    assert own.item() == pytest.approx(want)
    # With generalised least squares the correction makes them unbiased: E r_i r_j + x_i'C x_j = V_ij.
    index = fit.design.subject_index
    V = np.zeros((len(r), len(r)))
    for subject in range(27):
        rows = np.flatnonzero(index == subject)
        V[np.ix_(rows, rows)] = fit.marginal_covariance(fit.design.subjects[subject])
    P = np.eye(len(V)) - X @ C @ X.T @ np.linalg.inv(V)
    np.testing.assert_allclose((P @ V @ P.T + extra)[i, j], found.V.loc[2, 6], rtol=1e-8)


# --- several fits -------------------------------------------------------------------------------------------------


def test_compare_implied(several, dental):
    found = hl.compare_implied(*several, draws=0)
    assert list(found.implied) == [
        "random Intercept",
        "random Intercept, time",
        "random Intercept + Exponential('time')",
        "Unstructured('time') + VarIdent('time')",
    ]
    assert found.variance.shape == (4, 4)
    np.testing.assert_allclose(found.variance.iloc[:, 1], np.diag(several[1].marginal_covariance()))
    assert len(found.correlation) == 6
    assert "Correlation with time = 0" in repr(found)
    same = hl.compare_implied(several[0], two_level(dental, "1").fit_ml(), draws=0)
    assert list(same.implied) == ["random Intercept, REML", "random Intercept, ML"]
    by_sex = marginal(dental, variance=hl.VarIdent("sex")).fit_reml()
    mixed = hl.compare_implied(several[0], by_sex, at={"sex": "Male"}, labels=["a", "b"], draws=0)
    assert mixed.implied["b"].at == {"sex": "Male"} and mixed.implied["a"].at == {}
    with pytest.raises(hl.SpecificationError, match="none of these fits depends"):
        hl.compare_implied(*several, at={"sex": "Male"})
    with pytest.raises(hl.SpecificationError, match="other times"):
        hl.compare_implied(several[0].implied_marginal([0, 1]), several[1].implied_marginal([0, 2]))
    with pytest.raises(hl.SpecificationError, match="name of its own"):
        hl.compare_implied(*several, labels=["a"])
    with pytest.raises(hl.SpecificationError, match="nothing to compare"):
        hl.compare_implied()


# --- pictures -----------------------------------------------------------------------------------------------------


def drawn(collection, visual, **where):
    return collection.viz[visual].dataset["implied"].sel(where).to_numpy().item()


def test_pictures_hold_the_numbers(slope, several):
    one = slope.implied_marginal(np.arange(0, 7))
    line = drawn(one.plot_variance(backend="none"), "line", quantity="variance (distance²)", fit=one.label)
    np.testing.assert_allclose(line["y"], one.variance["variance"])
    line = drawn(one.plot_variance(sd=True, backend="none"), "line", quantity="SD (distance)", fit=one.label)
    np.testing.assert_allclose(np.square(line["y"]), one.variance["variance"])
    collection = one.plot_correlation(reference=2, backend="none")
    line = drawn(collection, "line", quantity="correlation", fit=one.label)
    np.testing.assert_allclose(line["x"], np.arange(-2, 5))
    want = one.correlation.loc[2].to_numpy().copy()
    want[2] = np.nan
    np.testing.assert_allclose(line["y"], want)
    assert "pairs" in collection.viz.children
    assert "pairs" not in several[0].implied_marginal().plot_correlation(backend="none").viz.children
    with pytest.raises(hl.DataError, match="none of the times"):
        one.plot_correlation(reference=2.5)


@pytest.mark.parametrize("backend", ["none", "matplotlib"])
def test_every_picture_is_drawn(several, backend):
    found = hl.compare_implied(*several, draws=50)
    one = found.implied["random Intercept, time"]
    for picture in (
        found.plot_heatmap(backend=backend),
        found.plot_correlation(backend=backend),
        found.plot_variance(backend=backend),
        one.plot_heatmap(what="covariance", numbers=False, backend=backend),
        one.plot_correlation(all_pairs=False, empirical=False, bands=False, backend=backend),
        one.plot_variance(backend=backend),
    ):
        assert picture.backend == backend
        if backend == "matplotlib":
            picture.get_viz("figure").canvas.draw()


# --- words and refusals -------------------------------------------------------------------------------------------


def test_text_and_frozen(slope):
    found = slope.implied_marginal()
    assert "implied by random Intercept, time (REML)" in repr(found)
    assert "normal approximation" in repr(found)
    assert "<table" in found._repr_html_()
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.time = "t"
    again = slope.implied_marginal()
    pd.testing.assert_frame_equal(found.variance, again.variance)


@pytest.mark.parametrize(
    ("times", "options", "words"),
    [
        ([0, 0], {}, "occurs twice"),
        (["a"], {}, "is a number"),
        ([np.inf], {}, "finite"),
        (None, {"at": {"sex": "Male"}}, "does not depend"),
        (None, {"at": {"time": 3}}, "time variable"),
        (None, {"at": [3]}, "which column"),
        (None, {"time": "day"}, "keeps only"),
        (None, {"ci": 0}, "between 0 and 1"),
        (None, {"draws": 3}, "so few draws"),
    ],
)
def test_refusals(slope, times, options, words):
    with pytest.raises(hl.HierlmmError, match=words):
        slope.implied_marginal(times, **options)


def test_more_refusals(dental, slope):
    ar1, noisy = (marginal(dental, correlation=hl.AR1(nugget=nugget)).fit_reml() for nugget in (False, True))
    for fit in (ar1, noisy):
        with pytest.raises(hl.NotAvailableError, match="counts the rows"):
            fit.implied_marginal([0, 3])
    np.testing.assert_allclose(
        ar1.implied_marginal([0, 4], draws=0).correlation.iloc[0, 1], ar1.residual_estimate.parameters["rho"] ** 2
    )
    toeplitz = marginal(dental.assign(visit=(dental["time"] / 2).astype(int)), correlation=hl.Toeplitz("visit"))
    with pytest.raises(hl.DataError, match="beyond those in the data"):
        toeplitz.fit_reml().implied_marginal([0, 9], time="visit")
    own = two_level(dental, "1", residual_variance=hl.VarPower()).fit_reml()
    with pytest.raises(hl.NotAvailableError, match="own line"):
        own.implied_marginal()
    sex = marginal(dental, variance=hl.VarIdent("sex")).fit_reml()
    with pytest.raises(hl.DataError, match="no such value"):
        sex.implied_marginal(at={"sex": "male"})
    with pytest.raises(hl.SpecificationError, match="one for each time"):
        sex.implied_marginal(at={"sex": ["Male", "Female"]})
    model = two_level(dental, "1")
    with pytest.raises(hl.SpecificationError, match="another formula, covariance"):
        model.implied_marginal(slope)
    with pytest.raises(hl.SpecificationError, match="that of a fit"):
        implied_marginal(model)


def test_the_time_is_asked_for_among_columns_that_v_depends_on():
    """``load`` varies within subjects too, but has no random slope, so that it may stand neither as time nor in at."""
    data = hl.load_dataset("sleepstudy").assign(load=lambda d: np.cos(d.index.to_numpy()))
    one, two = (
        hl.TwoLevelModel.from_formula(f"reaction ~ days + load + ({bar} | subject)", data).fit_reml()
        for bar in ("days", "days + load")
    )
    with pytest.raises(hl.SpecificationError) as refused:
        implied_marginal(one)
    assert refused.value.remedy == "say time='days'"
    assert implied_marginal(one, [0, 3], time="days", draws=0).V.shape == (2, 2)
    with pytest.raises(hl.SpecificationError) as refused:
        hl.compare_implied(two, one)
    assert refused.value.remedy == "say time='days' (or 'load'), and give the other columns of V by at={...}"
    assert implied_marginal(two, [0, 3], time="days", at={"load": 1.0}, draws=0).V.shape == (2, 2)
