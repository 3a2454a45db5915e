"""Semivariogram and autocorrelation of residuals: nlme, dense matrices, simulation."""

import dataclasses
import itertools
import json

import numpy as np
import pandas as pd
import pytest
from references import references_of
from textbook import marginal_covariance, projection, residual_blocks

import hierlmm as hl
from hierlmm.diagnostics.serial_residuals import information, linear_residuals, make_pairs
from hierlmm.errors import DataError

REFERENCE = references_of("serial")
KINDS = ("pearson", "response", "normalized")


@pytest.fixture(scope="module")
def models(dental, sleepstudy):
    return {
        "sleepstudy_ri": hl.TwoLevelModel.from_formula("reaction ~ days + (1 | subject)", sleepstudy),
        "sleepstudy_rirs": hl.TwoLevelModel.from_formula("reaction ~ days + (1 + days | subject)", sleepstudy),
        "sleepstudy_ri_exp": hl.TwoLevelModel.from_formula(
            "reaction ~ days + (1 | subject)", sleepstudy, residual=hl.Exponential("days")
        ),
        "dental_ri": hl.TwoLevelModel.from_formula("distance ~ sex * time + (1 | subject)", dental),
        "dental_gls_cs": hl.MarginalModel(
            "distance ~ sex * time", correlation=hl.CompoundSymmetry(), subject="subject", data=dental
        ),
    }


@pytest.fixture(scope="module")
def fits(models, sleep_reml):
    others = {name: model.fit_reml() for name, model in models.items() if name != "sleepstudy_rirs"}
    return others | {"sleepstudy_rirs": sleep_reml}


# --- nlme ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(p.stem for p in REFERENCE.glob("*.json")))
def test_semivariogram_and_autocorrelation_of_nlme(fits, name):
    found = json.loads((REFERENCE / f"{name}.json").read_text())
    fit = fits[name]
    assert fit.loglik == pytest.approx(found["logLik"], abs=1e-6)
    for kind in KINDS:
        # nlme takes another square root of compound symmetry, so that its normalized residuals are a rotation of ours.
        if f"variogram_{kind}" not in found or (name, kind) == ("dental_gls_cs", "normalized"):
            continue
        theirs = found[f"variogram_{kind}"]
        ours = hl.semivariogram(fit, kind=kind, simulations=40).table
        assert ours["pairs"].tolist() == theirs["pairs"]
        np.testing.assert_allclose(ours["lag"], theirs["lag"])
        np.testing.assert_allclose(ours["semivariance"], theirs["value"], rtol=5e-6)
        theirs = found[f"acf_{kind}"]
        ours = hl.autocorrelation(fit, kind=kind, simulations=40).table
        assert ours["pairs"].tolist() == theirs["pairs"][1:]
        np.testing.assert_allclose(ours["autocorrelation"], theirs["value"][1:], rtol=1e-6, atol=1e-8)


# --- the expected curve -------------------------------------------------------------------------------------------


def dense_residual_covariance(fit, level, kind):
    """Cov(r) of all rows, from N × N matrices."""
    design = fit.design
    structure = residual_blocks(design, fit.residual_estimate)
    q = design.Z.shape[1]
    V = marginal_covariance(design, fit._D_values.reshape(q, q), fit.sigma, structure)
    Sigma = fit.sigma**2 * structure
    P = projection(design.X, V)
    base = Sigma if level == "subject" else V
    covariance = base @ P @ base.T
    if kind == "response":
        return covariance
    T = np.diag(1 / np.sqrt(np.diag(base))) if kind == "pearson" else np.linalg.inv(np.linalg.cholesky(base))
    return T @ covariance @ T.T


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("level", ["subject", "population"])
@pytest.mark.parametrize("residual", [None, hl.Exponential("days")])
def test_expected_curve_is_that_of_the_dense_covariance(sleepstudy, residual, level, kind):
    rows = sleepstudy[np.random.default_rng(3).uniform(size=len(sleepstudy)) < 0.5].reset_index(drop=True)
    fit = hl.TwoLevelModel.from_formula("reaction ~ days + (1 + days | subject)", rows, residual=residual).fit_reml()
    S = dense_residual_covariance(fit, level, kind)
    days, subject = rows["days"].to_numpy(), fit.design.subject_index
    a, b = np.nonzero((subject[:, None] == subject) & (days[:, None] < days))
    lag = days[b] - days[a]
    half = 0.5 * (S[a, a] + S[b, b] - 2 * S[a, b])
    found = hl.semivariogram(fit, level=level, kind=kind, simulations=40)
    np.testing.assert_allclose(found.table["expected"], [half[lag == u].mean() for u in found.table["lag"]], rtol=1e-9)
    assert found.expected_mean_square == pytest.approx(np.diag(S).mean(), rel=1e-9)
    r = fit.residuals(kind, level)
    assert found.mean_square == pytest.approx(np.mean(r**2), rel=1e-6)
    acf = hl.autocorrelation(fit, level=level, kind=kind, time="days", simulations=40)
    expected = [S[a, b][lag == u].mean() / np.diag(S).mean() for u in acf.table["lag"]]
    np.testing.assert_allclose(acf.table["expected"], expected, rtol=1e-8, atol=1e-10)


def test_closed_forms_of_a_balanced_random_intercept():
    """Around subject means with n rows: residuals of one mean, correlated -1/(n - 1); nothing of it is serial."""
    n, J = 5, 12
    rng = np.random.default_rng(2)
    frame = pd.DataFrame({"id": np.repeat(np.arange(J), n), "t": np.tile(np.arange(n), J)})
    frame["y"] = rng.normal(0, 2, J)[frame["id"]] + rng.normal(size=J * n)
    fit = hl.TwoLevelModel.from_formula("y ~ 1 + (1 | id)", frame).fit_reml()
    D, s2 = float(fit.D.iloc[0, 0]), fit.sigma**2
    population = hl.semivariogram(fit, level="population", kind="response", simulations=40)
    # Half the variance of y_j - y_k is σ² at every lag: what the pair shares drops out.
    np.testing.assert_allclose(population.table["expected"], s2)
    assert population.expected_mean_square == pytest.approx((D + s2) - (D + s2 / n) / J)
    within = hl.autocorrelation(fit, level="subject", simulations=40)
    # e = y - ȳ_i + (1 - λ)(ȳ_i - ȳ): variance σ²(1 - 1/n) + v, covariance v - σ²/n, v = (1 - λ)²(D + σ²/n)(1 - 1/J).
    v = (s2 / n / (D + s2 / n)) ** 2 * (D + s2 / n) * (1 - 1 / J)
    np.testing.assert_allclose(within.table["expected"], (v - s2 / n) / (s2 * (1 - 1 / n) + v))


def test_simulated_residuals_have_the_covariance_that_is_computed(fits):
    fit = fits["sleepstudy_ri_exp"]
    days = fit.design.frame["days"].to_numpy(dtype=float)
    pairs = make_pairs(fit, days, count_rows=False, bins=None, max_lag=None, time="days")
    linear = linear_residuals(fit, pairs.subjects, "subject", "pearson")
    draws = linear.simulated(20_000, np.random.default_rng(1))[:10]
    np.testing.assert_allclose(draws @ draws.T / 20_000, linear.S[0], atol=4 * np.sqrt(2 / 20_000))


# --- does it see what it should, and only that --------------------------------------------------------------------


def simulated(rng, J, n, chol=None):
    frame = pd.DataFrame({"id": np.repeat(np.arange(J), n), "t": np.tile(np.arange(float(n)), J)})
    errors = rng.standard_normal((J, n))
    errors = errors if chol is None else errors @ chol.T
    frame["y"] = 1 + 0.5 * frame["t"] + rng.normal(size=J)[frame["id"]] + errors.ravel()
    return frame


def test_under_the_true_model_the_bands_cover_and_the_test_keeps_its_level():
    rng = np.random.default_rng(7)
    cover, p = {"sv": [], "acf": []}, {"sv": [], "acf": []}
    for k in range(60):
        fit = hl.TwoLevelModel.from_formula("y ~ t + (1 | id)", simulated(rng, 30, 6)).fit_reml()
        for name, function in (("sv", hl.semivariogram), ("acf", hl.autocorrelation)):
            found = function(fit, simulations=99, seed=k)
            table = found.table
            inside = (table[found.column] >= table["lower"]) & (table[found.column] <= table["upper"])
            cover[name].append(inside.mean())
            p[name].append(found.p_value)
    for name in cover:
        error = np.std(cover[name]) / np.sqrt(60)
        # Quantiles of 99 simulations reach 0.94 on average, not 0.95.
        assert abs(np.mean(cover[name]) - 0.94) < 3.5 * error + 0.01, (name, np.mean(cover[name]))
        assert np.mean(np.array(p[name]) <= 0.05) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 60)
        assert abs(np.mean(p[name]) - 0.5) < 0.12


def test_a_serial_term_that_is_needed_is_seen_and_one_that_is_there_is_not():
    rng = np.random.default_rng(11)
    n = 8
    chol = np.linalg.cholesky(np.exp(-np.abs(np.subtract.outer(range(n), range(n))) / 2))
    frame = simulated(rng, 60, n, chol)
    plain = hl.TwoLevelModel.from_formula("y ~ t + (1 | id)", frame).fit_reml()
    for check in (hl.semivariogram(plain), hl.autocorrelation(plain), hl.semivariogram(plain, level="population")):
        assert check.stands_out
        assert check.p_value < 0.01
        assert check.table["outside"].iloc[0]
        assert "more alike than the fitted model says" in check.verdict
        assert "Exponential" in check.verdict
    serial = hl.TwoLevelModel.from_formula("y ~ t + (1 | id)", frame, residual=hl.Exponential("t")).fit_reml()
    for check in (hl.semivariogram(serial), hl.autocorrelation(serial)):
        assert not check.stands_out
        assert "No lag stands out" in check.verdict


def test_refitting_gives_a_band_around_the_same_curve(fits):
    quick = hl.semivariogram(fits["dental_ri"], simulations=60)
    refitted = hl.semivariogram(fits["dental_ri"], simulations=60, refit=True)
    assert refitted.refit
    assert "fitted anew" in refitted.note
    pd.testing.assert_frame_equal(
        quick.table[["lag", "pairs", "semivariance", "expected"]],
        refitted.table[["lag", "pairs", "semivariance", "expected"]],
    )
    assert np.all(refitted.table["lower"] < refitted.table["expected"])
    assert refitted.p_value > 0.1
    again = hl.semivariogram(fits["dental_ri"], simulations=60, refit=True)
    np.testing.assert_array_equal(again.table["lower"], refitted.table["lower"])


# --- lags and bins ------------------------------------------------------------------------------------------------


def test_irregular_times_are_binned_with_about_equal_numbers_of_pairs():
    rng = np.random.default_rng(5)
    frame = simulated(rng, 25, 5)
    frame["t"] += rng.uniform(-0.3, 0.3, len(frame))
    fit = hl.TwoLevelModel.from_formula("y ~ t + (1 | id)", frame).fit_reml()
    found = hl.semivariogram(fit, simulations=40).table
    assert len(found) == 12
    assert found["pairs"].sum() == 25 * 10
    assert found["pairs"].max() - found["pairs"].min() <= 2
    assert np.all(found["from"] <= found["lag"]) and np.all(found["lag"] <= found["to"])
    edges = hl.semivariogram(fit, bins=[0, 1, 2, 9], simulations=40).table
    assert len(edges) == 3
    assert np.all(edges["to"] <= [1, 2, 9])
    near = hl.semivariogram(fit, bins=4, max_lag=2.0, simulations=40).table
    assert len(near) == 4
    assert near["to"].max() <= 2.0
    # The first pair by hand.
    r = fit.residuals("pearson").to_numpy()
    t = frame["t"].to_numpy()
    gap = [(abs(t[i] - t[j]), 0.5 * (r[i] - r[j]) ** 2) for i in range(125) for j in range(i) if i // 5 == j // 5]
    want = np.mean([v for u, v in gap if u <= 1])
    assert edges["semivariance"].iloc[0] == pytest.approx(want, rel=1e-8)


def test_lags_that_differ_by_rounding_are_one(sleepstudy):
    tenths = sleepstudy.assign(days=sleepstudy["days"] * 0.1)
    fit = hl.TwoLevelModel.from_formula("reaction ~ days + (1 | subject)", tenths).fit_reml()
    np.testing.assert_allclose(hl.semivariogram(fit, simulations=40).table["lag"], 0.1 * np.arange(1, 10))


def test_the_order_of_the_rows_does_not_matter(sleepstudy, fits):
    mixed = sleepstudy.sample(frac=1.0, random_state=0)
    fit = hl.TwoLevelModel.from_formula("reaction ~ days + (1 | subject)", mixed).fit_reml()
    for function in (hl.semivariogram, hl.autocorrelation):
        ours, want = (function(f, simulations=40).table for f in (fit, fits["sleepstudy_ri"]))
        np.testing.assert_allclose(ours.iloc[:, :6].to_numpy(float), want.iloc[:, :6].to_numpy(float), rtol=1e-6)


def test_missed_occasions_leave_a_lag_of_two(sleepstudy):
    rows = sleepstudy[sleepstudy["days"] != 4]
    fit = hl.TwoLevelModel.from_formula("reaction ~ days + (1 | subject)", rows).fit_reml()
    by_row, by_day = (hl.autocorrelation(fit, time=t, simulations=40).table for t in (None, "days"))
    assert by_row["pairs"].iloc[0] == 18 * 8
    assert by_day["pairs"].iloc[0] == 18 * 7


# --- other estimators ---------------------------------------------------------------------------------------------


def test_gee_and_a_posterior(models, sleep_nuts):
    gee = models["dental_ri"].fit_gee()
    found = hl.semivariogram(gee, simulations=40)
    assert found.level == "population"
    assert found.mean_square == pytest.approx(np.mean(gee.residuals("pearson") ** 2))
    assert "working correlation exchangeable" in repr(found)
    sampled = sleep_nuts
    posterior = hl.semivariogram(sampled, simulations=40)
    assert "posterior means" in posterior.note
    np.testing.assert_allclose(posterior.mean_square, np.mean(sampled.residuals("pearson") ** 2), rtol=0.1)


# --- words, plots, refusals ---------------------------------------------------------------------------------------


def test_words_and_frozen(fits):
    found = hl.semivariogram(fits["sleepstudy_ri"])
    assert "lag 1, 2 (days) are more alike" in found.verdict
    assert "independent residuals" in repr(found)
    assert "<table" in found._repr_html_()
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.p_value = 1.0
    again = hl.semivariogram(fits["sleepstudy_ri"])
    pd.testing.assert_frame_equal(found.table, again.table)


def test_one_lag_says_that_nothing_is_left(sleepstudy):
    two = sleepstudy[sleepstudy["days"] < 2]
    fit = hl.TwoLevelModel.from_formula("reaction ~ days + (1 | subject)", two).fit_reml()
    found = hl.semivariogram(fit, simulations=40)
    assert not found.stands_out
    assert "one lag only" in found.verdict


def test_a_level_that_the_model_could_not_fit_is_said():
    """Rows that repel each other: the random intercept collapses, and pairs differ more than all rows do."""
    fit = hl.TwoLevelModel.from_formula("y ~ time + x + (1 | subject)", hl.load_dataset("negative_icc")).fit_reml()
    found = hl.semivariogram(fit, level="population")
    assert found.scale_ratio == pytest.approx(1.21, abs=0.02)
    assert found.scale_p_value < 0.02
    assert found.stands_out
    assert "less alike than the fitted model says" in found.verdict
    free = hl.MarginalModel(
        "y ~ time + x", correlation=hl.CompoundSymmetry(), subject="subject", data=hl.load_dataset("negative_icc")
    ).fit_reml()
    found = hl.semivariogram(free)
    assert found.scale_ratio == pytest.approx(1.0, abs=0.02)
    assert not found.stands_out


@pytest.mark.parametrize("backend", ["none", "matplotlib"])
def test_plot(fits, backend):
    for check in (hl.semivariogram(fits["sleepstudy_ri"]), hl.autocorrelation(fits["dental_ri"])):
        collection = check.plot(backend=backend)
        if backend == "none":
            line = collection.viz["expected"].dataset["serial"].to_numpy().item()
            np.testing.assert_allclose(line["y"], check.table["expected"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"level": "marginal"}, "not one of the choices"),
        ({"kind": "raw"}, "not one of the choices"),
        ({"time": "day"}, "keeps only the columns"),
        ({"bins": [20, 30]}, "no lag lies between"),
        ({"bins": [3, 2]}, "increasing"),
        ({"bins": 0}, "at least one bin"),
        ({"max_lag": 0.5}, "two rows"),
        ({"max_lag": -1}, "a lag is positive"),
        ({"ci": 1.0}, "between 0 and 1"),
        ({"simulations": 10}, "at least 20"),
    ],
)
def test_refusals(fits, options, words):
    with pytest.raises(hl.HierlmmError, match=words):
        hl.semivariogram(fits["sleepstudy_ri"], **options)


def test_more_refusals(fits, models, sleepstudy):
    with pytest.raises(hl.NotAvailableError, match="without random effects"):
        hl.semivariogram(fits["dental_gls_cs"], level="subject")
    with pytest.raises(hl.NotAvailableError, match="REML and ML only"):
        hl.semivariogram(models["dental_ri"].fit_gee(), refit=True)
    with pytest.raises(hl.SpecificationError, match="residuals of a fit"):
        hl.autocorrelation(models["dental_ri"])
    halves = sleepstudy.assign(days=sleepstudy["days"] / 2)
    fit = hl.TwoLevelModel.from_formula("reaction ~ days + (1 | subject)", halves).fit_reml()
    with pytest.raises(hl.DataError, match="no whole numbers"):
        hl.autocorrelation(fit, time="days")


def test_a_factor_without_an_order_measures_no_lag(dental):
    fit = hl.TwoLevelModel.from_formula("distance ~ sex * time + (1 | subject)", dental).fit_reml()
    with pytest.raises(DataError, match="order of the alphabet"):
        hl.semivariogram(fit, time="sex", simulations=40)
    numbered = dental.assign(boy=(dental["sex"] == "Male").astype(int))
    fit = hl.TwoLevelModel.from_formula("distance ~ boy * time + (1 | subject)", numbered).fit_reml()
    with pytest.raises(DataError, match="every lag would be 0"):
        hl.semivariogram(fit, time="boy", simulations=40)
    # Labels that are in order count occasions, and so do those that the fit itself took as occasions.
    labels = dental["age"].map({8: "first", 10: "second", 12: "third", 14: "fourth"})  # not alphabetical
    ordered = pd.Categorical(labels, ["first", "second", "third", "fourth"], ordered=True)
    fit = hl.TwoLevelModel.from_formula("distance ~ visit + (1 | subject)", dental.assign(visit=ordered)).fit_reml()
    assert hl.semivariogram(fit, time="visit", simulations=40).table["lag"].tolist() == [1.0, 2.0, 3.0]
    rows = dental.assign(visit=dental["age"].map({8: "a", 10: "b", 12: "c", 14: "d"}))
    gee = hl.TwoLevelModel.from_formula("distance ~ visit + (1 | subject)", rows).fit_gee("unstructured", time="visit")
    assert hl.semivariogram(gee, simulations=40).table["lag"].tolist() == [1.0, 2.0, 3.0]


def test_counted_rows_are_said_where_the_time_is_not_known():
    data = hl.load_dataset("sleepstudy").assign(load=lambda d: np.cos(d.index.to_numpy()))
    fit = hl.TwoLevelModel.from_formula("reaction ~ days + load + (1 | subject)", data).fit_reml()
    said = "Lags count rows: which of the level-1 variables 'days', 'load' is the time is not known."
    for check, how in ((hl.semivariogram, "time='days'"), (hl.autocorrelation, "time='visit', with a column of whole")):
        note = check(fit, simulations=50).note
        assert note.startswith(said) and how in note
        assert "Lags count" not in check(fit, time="days", simulations=50).note
    known = hl.TwoLevelModel.from_formula("reaction ~ days + (1 | subject)", data).fit_reml()
    assert "Lags count" not in hl.autocorrelation(known, simulations=50).note


# --- some of the subjects -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["subject", "population"])
def test_residuals_of_some_subjects_are_those_of_a_fit_to_all(fits, level):
    fit = fits["sleepstudy_rirs"]
    subjects = [np.flatnonzero(fit.design.subject_index == j) for j in range(fit.n_subjects)]
    full = linear_residuals(fit, subjects, level, "response")
    some = linear_residuals(fit, subjects[:3], level, "response", information(fit, subjects[3:]))
    np.testing.assert_allclose(some.C, full.C, rtol=1e-10)
    ends = np.cumsum([0, *map(len, subjects[:3])])
    X, M, V = np.vstack(full.X[:3]), np.zeros((ends[-1], ends[-1])), np.zeros((ends[-1], ends[-1]))
    for j, (lo, hi) in enumerate(itertools.pairwise(ends)):
        M[lo:hi, lo:hi], V[lo:hi, lo:hi] = full.M[j], full.root[j] @ full.root[j].T
    wanted = M @ (V - X @ full.C @ X.T) @ M.T  # between subjects, too
    drawn = some.simulated(40_000, np.random.default_rng(1))
    sd = np.sqrt(np.diag(wanted))
    assert np.abs((np.cov(drawn) - wanted) / np.outer(sd, sd)).max() < 0.03
