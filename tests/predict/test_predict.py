"""Predictions: what levels and intervals contain, against R, closed forms and dense matrices."""

import tracemalloc

import numpy as np
import pandas as pd
import pytest
from references import IDS, align, formula, reference, reference_data
from samples import SLEEP
from scipy.stats import norm
from scipy.stats import t as student
from textbook import dense_fit, mixed_model_equations

import hierlmm as hl
from hierlmm.errors import NotAvailableError, SpecificationError
from hierlmm.likelihood.quantiles import mixture_quantiles, t_quantile
from hierlmm.predict import likelihood as likelihood_predictions
from hierlmm.predict import rows as prediction_rows
from hierlmm.predict.lines import quantile_note

LEVELS = ("subject", "population", "new_subject", "marginal")


@pytest.fixture(scope="module")
def r_results():
    return reference("sleepstudy", "predict")


# --- against R -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", IDS)
def test_predictions_and_residuals_of_every_reference_fit(name):
    ref = reference(name)
    data = reference_data(ref)
    model = hl.TwoLevelModel.from_formula(formula(ref), data)
    fit = model.fit_reml() if ref["method"] == "REML" else model.fit_ml()
    best = ref["optimum"]
    response = fit.design.y[:5]
    for level, key in (
        ("subject", "fitted_first5"),
        ("population", "fitted_pop_first5"),
        ("marginal", "fitted_pop_first5"),
    ):
        np.testing.assert_allclose(fit.predict(level=level)["estimate"].iloc[:5], best[key], rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(fit.predict(data.head(5), level=level)["estimate"], best[key], rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(fit.residuals()[:5], response - best["fitted_first5"], atol=1e-5 * fit.sigma)
    np.testing.assert_allclose(
        fit.residuals(level="population")[:5], response - best["fitted_pop_first5"], atol=1e-5 * fit.sigma
    )
    np.testing.assert_allclose(fit.residuals("normalized"), fit.residuals("pearson"), rtol=1e-10)
    # The line at b = 0 with R's own covariance of β (its optimum), whatever the design.
    names = list(best["coef"])
    order = align({k: i for i, k in enumerate(names)}, fit.beta.index)
    V = np.reshape(best["vcov"], (len(names), len(names)))[np.ix_(order, order)]
    se = np.sqrt(np.einsum("ia,ab,ib->i", fit.design.X, V, fit.design.X))
    np.testing.assert_allclose(fit.predict(level="population", interval="confidence")["se"], se, rtol=1e-5)


@pytest.mark.parametrize(("name", "residual"), [("lme", None), ("lme_car1", "days")])
def test_new_rows_and_residuals_agree_with_nlme(r_results, sleepstudy, name, residual):
    ref = r_results[name]
    formula = SLEEP if residual is None else "reaction ~ days + (1 | subject)"
    structure = None if residual is None else hl.CAR1(residual)
    fit = hl.TwoLevelModel.from_formula(formula, sleepstudy, residual=structure).fit_reml()
    new = pd.DataFrame(ref["newdata"])
    for level in ("population", "subject"):
        np.testing.assert_allclose(fit.predict(new, level=level)["estimate"], ref[level], rtol=2e-5)
    for kind in ("response", "pearson", "normalized"):
        np.testing.assert_allclose(fit.residuals(kind).iloc[:10], ref[kind], atol=1e-3 * np.ptp(ref[kind]))


def test_marginal_model_agrees_with_gls(r_results, sleepstudy):
    ref = r_results["gls_car1"]
    fit = hl.MarginalModel(
        "reaction ~ days", correlation=hl.CAR1("days"), subject="subject", data=sleepstudy
    ).fit_reml()
    new = pd.DataFrame(ref["newdata"])
    np.testing.assert_allclose(fit.predict(new)["estimate"], ref["population"], rtol=1e-5)
    for kind in ("response", "pearson", "normalized"):
        np.testing.assert_allclose(fit.residuals(kind).iloc[:10], ref[kind], atol=1e-3 * np.ptp(ref[kind]))
    whole = fit.predict(new, level="marginal", interval="prediction")
    line = fit.predict(new, level="population", interval="confidence")
    np.testing.assert_allclose(whole["se"] ** 2 - line["se"] ** 2, fit.sigma**2)
    with pytest.raises(NotAvailableError, match="not what a subject has of its own"):
        fit.predict(new, level="subject")


def test_population_interval_is_that_of_lmertest(r_results, sleep_reml):
    ref = r_results["lmerTest"]
    table = sleep_reml.predict(pd.DataFrame({"days": ref["days"]}), level="population", interval="confidence")
    for column in ("estimate", "se", "lower", "upper"):
        np.testing.assert_allclose(table[column], ref[column], rtol=1e-5)
    half = table["upper"] - table["estimate"]
    np.testing.assert_allclose(half / table["se"], student.ppf(0.975, ref["df"]), rtol=1e-5)


def test_a_subject_that_was_not_fitted_agrees_with_lme4(r_results, sleep_reml):
    new = pd.DataFrame({"subject": [308, 999], "days": [12.0, 12.0]})
    assert sleep_reml.predict(new.head(1))["estimate"][0] == pytest.approx(r_results["lme4"]["subject_308"], rel=1e-5)
    table = sleep_reml.predict(new, level="new_subject")
    np.testing.assert_allclose(table["estimate"], r_results["lme4"]["new"], rtol=1e-6)


def test_gee_predicts_the_marginal_mean_with_its_own_covariance(dental):
    fit = hl.TwoLevelModel.from_formula("distance ~ sex * time + (1 | subject)", dental).fit_gee()
    new = pd.DataFrame({"sex": ["Female", "Male"], "time": [1.0, 8.0]})
    table = fit.predict(new, level="marginal", interval="confidence")
    x = np.array([[1, 0, 1, 0], [1, 1, 8, 8.0]])
    order = [list(fit.beta.index).index(c) for c in ("Intercept", "sex[T.Male]", "time", "sex[T.Male]:time")]
    V = fit.beta_cov.to_numpy()[np.ix_(order, order)]
    np.testing.assert_allclose(table["estimate"], x @ fit.beta.to_numpy()[order])
    np.testing.assert_allclose(table["se"], np.sqrt(np.einsum("ia,ab,ib->i", x, V, x)))
    np.testing.assert_allclose(table["upper"] - table["estimate"], norm.ppf(0.975) * table["se"])
    assert "robust" in table.attrs["interval"]
    with pytest.raises(NotAvailableError, match="no subject's own line"):
        fit.predict(new, level="new_subject")


# --- what the variances are made of ----------------------------------------------------------------------------------


def test_joint_covariance_of_a_line_against_dense_matrices(sleep_reml):
    """Var(x'(β̂ - β) + z'(b̂ - b)) from (D, V) alone: the mixed-model equations, inverted as one dense matrix."""
    design, D, sigma = sleep_reml.design, sleep_reml.D.to_numpy(), sleep_reml.sigma
    _, C, A = mixed_model_equations(design, D, sigma**2 * np.eye(design.n_obs))
    dense = np.sqrt(np.einsum("ia,ab,ib->i", A, C, A))
    states, _ = sleep_reml.large_sample.neighbours()
    _, joint = likelihood_predictions._subject_joint(states[0])
    W = np.hstack([design.X, design.Z])
    ours = np.sqrt(np.einsum("ia,iab,ib->i", W, joint[design.subject_index], W))
    np.testing.assert_allclose(ours, dense, rtol=1e-8)
    # The interval also holds how the BLUP moves with θ̂, by differences of whole dense fits.
    large = sleep_reml.large_sample
    slopes = []
    for j in range(len(large.centre)):
        moved = []
        for step in (1e-4, -1e-4):
            theta = large.centre.copy()
            theta[j] += step
            moved_D, moved_sigma = large.split(theta)
            _, beta, _, b, _ = dense_fit(design, moved_D, moved_sigma, True)
            moved.append(design.X @ beta + np.einsum("ij,ij->i", design.Z, b[design.subject_index]))
        slopes.append((moved[0] - moved[1]) / 2e-4)
    extra = np.einsum("ai,ab,bi->i", slopes, large.covariance, slopes)
    table = sleep_reml.predict(interval="confidence")
    np.testing.assert_allclose(table["se"] ** 2, dense**2 + extra, rtol=1e-5)
    assert np.all(extra > 0)


def test_levels_differ_by_what_they_say(sleep_reml):
    new = pd.DataFrame({"subject": 308, "days": [0.0, 5.0]})
    z = np.array([[1, 0], [1, 5.0]])
    variance = {
        (level, interval): sleep_reml.predict(new, level, interval)["se"].to_numpy() ** 2
        for level in LEVELS
        for interval in ("confidence", "prediction")
    }
    beta = np.einsum("ia,ab,ib->i", z, sleep_reml.beta_cov, z)
    D = np.einsum("ia,ab,ib->i", z, sleep_reml.D, z)
    residual = sleep_reml.sigma**2
    expected = {
        ("population", "confidence"): beta,
        ("population", "prediction"): beta + residual,
        ("new_subject", "confidence"): beta + D,
        ("new_subject", "prediction"): beta + D + residual,
        ("marginal", "confidence"): beta,
        ("marginal", "prediction"): beta + D + residual,
        ("subject", "prediction"): variance["subject", "confidence"] + residual,
    }
    for key, value in expected.items():
        np.testing.assert_allclose(variance[key], value, rtol=1e-8)
    words = {level: sleep_reml.predict(new, level, "prediction").attrs["interval"] for level in LEVELS}
    assert len(set(words.values())) == 4
    assert "that was not in the data" in words["new_subject"] and "b = 0" in words["population"]


@pytest.mark.parametrize("level", LEVELS)
def test_an_interval_says_what_its_variance_is_made_of(sleep_reml, sleepstudy, level):
    new = sleepstudy.head(3)
    words = {kind: sleep_reml.predict(new, level, kind).attrs["interval"] for kind in ("confidence", "prediction")}
    assert "residual variance" in words["prediction"] and "residual variance" not in words["confidence"]
    measured_anew = "the spread D of subjects" in words["prediction"]
    assert measured_anew == (level in ("marginal", "new_subject"))
    assert ("the spread D of subjects" in words["confidence"]) == (level == "new_subject")


def test_degrees_of_freedom_in_words():
    assert quantile_note(np.array([np.inf, np.inf])) == quantile_note(np.array([])) == "normal"
    assert quantile_note(np.array([4.31, 4.33])).startswith("Student's t with 4.3 degrees")
    assert quantile_note(np.array([4.3, 4.9, 4.5])).startswith("Student's t with 4.3 to 4.9 degrees")


def test_degrees_of_freedom_of_a_balanced_one_way_layout():
    """There the variances are sums of mean squares, for which Satterthwaite's formula is explicit."""
    data = hl.load_dataset("dyestuff")
    fit = hl.TwoLevelModel("yield ~ 1", subject="batch", data=data).fit_reml()
    J, n = 6, 5
    groups = data.groupby("batch", observed=True)["yield"]
    between = n * groups.mean().var()
    within = float(((data["yield"] - groups.transform("mean")) ** 2).sum()) / (J * (n - 1))
    new = pd.DataFrame({"x": [1.0]})
    line = fit.predict(new, "population", "confidence")
    assert line["se"][0] ** 2 == pytest.approx(between / (J * n), rel=1e-8)
    assert line["upper"][0] - line["estimate"][0] == pytest.approx(student.ppf(0.975, J - 1) * line["se"][0], rel=1e-5)
    # σ_b² + σ² + Var(mean) = a·MSA + e·MSE
    a, e = (1 + 1 / J) / n, 1 - 1 / n
    whole = fit.predict(new, "new_subject", "prediction")
    variance = a * between + e * within
    df = variance**2 / ((a * between) ** 2 / (J - 1) + (e * within) ** 2 / (J * (n - 1)))
    assert whole["se"][0] ** 2 == pytest.approx(variance, rel=1e-8)
    assert whole["upper"][0] - whole["estimate"][0] == pytest.approx(
        student.ppf(0.975, df) * np.sqrt(variance), rel=1e-5
    )


def test_quantiles_of_many_rows_are_those_of_few():
    df = np.concatenate([np.random.default_rng(1).uniform(2.5, 500.0, 30_000), [np.inf]])
    exact = np.append(student.ppf(0.975, df[:-1]), norm.ppf(0.975))
    np.testing.assert_allclose(t_quantile(0.95, df), exact, atol=1e-6)
    np.testing.assert_allclose(t_quantile(0.95, df[-1000:]), exact[-1000:], rtol=1e-12)
    np.testing.assert_allclose(t_quantile(0.95, np.full(30_000, 7.0)), student.ppf(0.975, 7.0))


def test_many_rows_are_those_of_few(sleep_reml, sleepstudy):
    """Compiled and interpolated, or by numpy row by row."""
    many = pd.concat([sleepstudy] * 150, ignore_index=True)
    for level in LEVELS:
        for interval in ("confidence", "prediction"):
            large = sleep_reml.predict(many, level, interval).iloc[-180:]
            small = sleep_reml.predict(sleepstudy, level, interval)
            np.testing.assert_allclose(large, small, rtol=1e-7)


def test_singular_fits_predict():
    fit = hl.TwoLevelModel("yield ~ 1", subject="batch", data=hl.load_dataset("dyestuff2")).fit_reml()
    assert fit.is_singular
    table = fit.predict(level="new_subject", interval="prediction")
    expected = np.sqrt(fit.sigma**2 * (1 + 1 / fit.n_obs))
    np.testing.assert_allclose(table["se"], expected, rtol=1e-6)
    assert np.all(np.isfinite(fit.predict(interval="confidence")))


# --- posteriors ------------------------------------------------------------------------------------------------------


def test_posterior_predictions_have_the_moments_of_their_mixture(nuts):
    new = pd.DataFrame({"subject": 308, "days": [0.0, 8.0]})
    z = np.array([[1, 0], [1, 8.0]])
    beta, D, sigma = (nuts.draws(name) for name in ("beta", "D", "sigma"))
    beta, D, sigma = beta.reshape(-1, 2), D.reshape(-1, 2, 2), sigma.ravel()
    lines = beta @ z.T
    spread = np.einsum("ia,sab,ib->si", z, D, z)
    parts = {
        ("population", "credible"): 0.0,
        ("population", "prediction"): (sigma**2)[:, None],
        ("new_subject", "credible"): spread,
        ("new_subject", "prediction"): spread + (sigma**2)[:, None],
        ("marginal", "credible"): 0.0,
        ("marginal", "prediction"): spread + (sigma**2)[:, None],
    }
    uniform = np.full(len(sigma), 1 / len(sigma))
    for (level, interval), part in parts.items():
        variance = np.broadcast_to(part, lines.shape)
        table = nuts.predict(new, level, interval)
        np.testing.assert_allclose(table["estimate"], lines.mean(axis=0))
        sd = np.sqrt(lines.var(axis=0) + np.mean(variance, axis=0))
        np.testing.assert_allclose(table["se"], sd, rtol=0.05)
        quantiles = mixture_quantiles(lines, np.sqrt(variance), uniform, (0.025, 0.975))
        np.testing.assert_allclose(table[["lower", "upper"]].T, quantiles, atol=0.12 * sd.max())
    credible, prediction = (nuts.predict(new, "subject", i)["se"] ** 2 for i in ("credible", "prediction"))
    np.testing.assert_allclose(prediction - credible, np.mean(sigma**2), rtol=0.1)


def test_draws_of_predictions(nuts):
    new = pd.DataFrame({"subject": [1, 1, 2], "days": [3.0, 3.0, 3.0]}, index=[5, 6, 7])
    draws = nuts.predict(new, level="new_subject", kind="draws")
    assert draws.dims == ("chain", "draw", "obs") and list(draws["obs"].values) == [5, 6, 7]
    one, same, other = draws.to_numpy().reshape(-1, 3).T
    np.testing.assert_array_equal(one, same)  # one line for each new subject
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.3 and one.std() == pytest.approx(other.std(), rel=0.1)
    measured = nuts.predict(new, level="new_subject", interval="prediction", kind="draws").to_numpy().reshape(-1, 3)
    assert np.corrcoef(measured.T)[0, 1] < 0.95
    own = nuts.predict(pd.DataFrame({"subject": [308], "days": [3.0]}), kind="draws")
    table = nuts.predict(pd.DataFrame({"subject": [308], "days": [3.0]}), interval="credible")
    np.testing.assert_allclose(np.quantile(own, [0.025, 0.975]), table[["lower", "upper"]].iloc[0])
    with pytest.raises(SpecificationError, match="draws"):
        nuts.predict(kind="draw")
    with pytest.raises(SpecificationError, match="budget"):
        nuts.predict(pd.DataFrame({"days": np.zeros(20_000)}), level="population", kind="draws")


@pytest.mark.parametrize("level", LEVELS)
def test_posterior_predictions_stay_within_the_memory_budget(nuts, held_out, level, monkeypatch):
    budget = 20_000_000
    monkeypatch.setattr(prediction_rows, "MEMORY_BUDGET", budget)
    many = pd.concat([held_out[0]] * 12, ignore_index=True)  # 2040 rows × 4000 draws: 65 MB as one array
    tracemalloc.start()
    table = nuts.predict(many, level, "prediction")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.1 * budget
    assert np.all(table["lower"] < table["upper"])
