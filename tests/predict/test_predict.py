"""Predictions: what levels and intervals contain, against R, closed forms, dense matrices, refits and simulation."""

import inspect
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from references import IDS, align, formula, reference, reference_data
from samples import SLEEP
from scipy.stats import multivariate_normal, norm
from scipy.stats import t as student
from textbook import dense_fit, generalised_least_squares, marginal_covariance, mixed_model_equations

import hierlmm as hl
from hierlmm.errors import DataError, FitWarning, FormulaError, NotAvailableError, SpecificationError
from hierlmm.fit.make import fit_of
from hierlmm.likelihood.estimate import maximise_design
from hierlmm.likelihood.quantiles import mixture_quantiles, t_quantile
from hierlmm.predict import likelihood as likelihood_predictions
from hierlmm.predict import rows as prediction_rows
from hierlmm.predict.dynamic import _history_loglik
from hierlmm.predict.history import courses_of
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
    with pytest.raises(NotAvailableError):
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
    with pytest.raises(NotAvailableError):
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


# --- dynamic prediction ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("h", [1, 3, 6])
def test_dynamic_prediction_is_a_refit_at_fixed_theta(without, held_out, h):
    """Exactly: dense generalised least squares with the new subject's rows, at the same D and σ."""
    old, new = held_out
    D, sigma = without.D.to_numpy(), without.sigma
    both = hl.TwoLevelModel.from_formula(SLEEP, pd.concat([old, new.head(h)])).design
    V = marginal_covariance(both, D, sigma)
    rows = both.subject_index == list(both.subjects).index(372)
    times = np.array([6.0, 9.0, 20.0])
    x = np.column_stack([np.ones(3), times])
    cross = np.where(rows, x @ D @ both.Z.T, 0.0)
    beta, C, W = generalised_least_squares(both.X, both.y, V)
    gain = cross @ W
    mean = x @ beta + gain @ (both.y - both.X @ beta)
    left = x - gain @ both.X
    variance = np.einsum("ia,ab,ib->i", x, D, x) - np.einsum("ij,ij->i", gain, cross)
    variance += np.einsum("ia,ab,ib->i", left, C, left)
    table = without.predict_subject(new.head(h), times, interval="confidence")
    np.testing.assert_allclose(table["estimate"], mean, rtol=1e-9)
    np.testing.assert_array_equal(table["days"], times)
    from hierlmm.predict.dynamic import updated

    (course,) = courses_of(without.design, new.head(h), times, None, retrospective=False).subjects
    state = without.large_sample.neighbours()[0][0]
    np.testing.assert_allclose(updated(without, course, state, measurement=False)[1], variance, rtol=1e-8)
    measured = updated(without, course, state, measurement=True)[1]
    np.testing.assert_allclose(measured, variance + sigma**2, rtol=1e-8)


def test_dynamic_prediction_with_serial_correlation_is_the_conditional_normal(held_out):
    """A measurement leans on the residuals nearby; its line does not."""
    old, new = held_out
    fit = hl.TwoLevelModel.from_formula("reaction ~ days + (1 | subject)", old, residual=hl.CAR1("days")).fit_reml()
    phi, sigma, d = fit.residual_estimate.parameters["phi"], fit.sigma, float(fit.D.to_numpy()[0, 0])
    days = np.append(fit.design.frame["days"].to_numpy(), [0.0, 1.0, 2.0])
    who = np.append(fit.design.subject_index, [-1, -1, -1])
    X = np.column_stack([np.ones(len(days)), days])
    same = who[:, None] == who[None, :]
    V = np.where(same, d + sigma**2 * phi ** np.abs(days[:, None] - days), 0.0)
    y = np.append(fit.design.y, new["reaction"].head(3))
    x, future = np.array([[1.0, 3.0], [1.0, 7.0]]), np.array([3.0, 7.0])
    lag = sigma**2 * phi ** np.abs(future[:, None] - days)
    beta, _, W = generalised_least_squares(X, y, V)
    estimates = {}
    for interval, covariance in (("confidence", d), ("prediction", d + lag)):
        cross = np.where(who == -1, covariance, 0.0)
        mean = x @ beta + cross @ W @ (y - X @ beta)
        table = fit.predict_subject(new.head(3), future, interval=interval)
        np.testing.assert_allclose(table["estimate"], mean, rtol=1e-8)
        estimates[interval] = mean
    assert abs(estimates["prediction"][0] - estimates["confidence"][0]) > 1.0
    # The same for a subject of the data, from its own residuals.
    own = fit.predict(pd.DataFrame({"subject": [308], "days": [10.0]}), interval="prediction")
    rows = fit.design.subject_index == list(fit.design.subjects).index(308)
    Vj = marginal_covariance(fit.design, fit.D.to_numpy(), sigma)[np.ix_(rows, rows)] - sigma**2 * np.eye(10)
    t = fit.design.frame["days"].to_numpy()[rows]
    Vj = Vj + sigma**2 * phi ** np.abs(t[:, None] - t)
    b = fit.beta.to_numpy()
    gain = np.linalg.solve(Vj, d + sigma**2 * phi ** (10.0 - t))
    expected = b @ [1.0, 10.0] + gain @ (fit.design.y[rows] - fit.design.X[rows] @ b)
    assert own["estimate"][0] == pytest.approx(expected, rel=1e-8)
    with pytest.raises(NotAvailableError, match="fitted rows"):
        fit.predict(interval="prediction")
    with pytest.raises(NotAvailableError, match="was measured"):
        fit.predict_subject(new.head(3), [2.0], interval="prediction")


@pytest.mark.filterwarnings("ignore::hierlmm.errors.FitWarning")  # about these draws, whatever their quality
def test_posterior_with_serial_correlation_is_the_mixture_over_its_draws(held_out):
    old, new = held_out
    model = hl.TwoLevelModel.from_formula("reaction ~ days + (1 | subject)", old, residual=hl.CAR1("days"))
    fit = model.fit(draws=250, tune=500, chains=4, seed=1, progressbar=False)
    beta, d, sigma = fit.draws("beta").reshape(-1, 2), fit.draws("D").ravel(), fit.draws("sigma").ravel()
    phi = np.array([s.parameters["phi"] for s in (fit.residual_at(e) for e in fit.residual_draws().reshape(-1, 1))])
    cases = {  # level -> days and response of the history, the day to predict, and what predicts it
        "new": (new["days"][:3], new["reaction"][:3], 4.0),
        "own": (old["days"][:10], old["reaction"][:10], 11.0),
    }
    for case, (t, y, ahead) in cases.items():
        t, y = t.to_numpy(dtype=float), y.to_numpy()
        means, variances = [], []
        for B, D, S, P in zip(beta, d, sigma, phi, strict=True):
            V = D + S**2 * P ** np.abs(t[:, None] - t)
            gain = np.linalg.solve(V, D + S**2 * P ** (ahead - t))
            means.append(B @ [1.0, ahead] + gain @ (y - B[0] - B[1] * t))
            variances.append(D + S**2 - gain @ (D + S**2 * P ** (ahead - t)))
        if case == "new":
            table = fit.predict_subject(new.head(3), [ahead], interval="prediction", reweight=False)
        else:
            row = pd.DataFrame({"subject": old["subject"].iloc[:1], "days": [ahead]})
            table = fit.predict(row, interval="prediction")
        sd = np.sqrt(np.mean(variances) + np.var(means))
        np.testing.assert_allclose(table[["estimate", "se"]].iloc[0], [np.mean(means), sd], rtol=1e-8)
        below = [np.mean(norm.cdf((table[c].iloc[0] - means) / np.sqrt(variances))) for c in ("lower", "upper")]
        np.testing.assert_allclose(below, [0.025, 0.975], atol=1e-8)
    t, y = cases["new"][0].to_numpy(dtype=float), cases["new"][1]
    weight = likelihood_of_history(fit, new.head(3))
    for k in range(0, len(sigma), 101):
        V = d[k] + sigma[k] ** 2 * phi[k] ** np.abs(t[:, None] - t)
        assert weight[k] == pytest.approx(multivariate_normal.logpdf(y, beta[k, 0] + beta[k, 1] * t, V), rel=1e-9)
    with pytest.raises(NotAvailableError, match="correlated residuals"):
        fit.predict(kind="draws", interval="prediction")


def test_prediction_variance_follows_a_variance_function(dental):
    model = hl.TwoLevelModel.from_formula(
        "distance ~ sex * time + (1 | subject)", dental, residual_variance=hl.VarIdent("sex")
    )
    new = pd.DataFrame({"sex": ["Female", "Male"], "time": [4.0, 4.0]})
    fit = model.fit_reml()
    line, whole = (fit.predict(new, "new_subject", i)["se"] ** 2 for i in ("confidence", "prediction"))
    ratio = fit.residual_estimate.sd_ratio(new)
    np.testing.assert_allclose(whole - line, fit.sigma**2 * ratio**2, rtol=1e-8)
    assert ratio[0] / ratio[1] != pytest.approx(1.0, abs=0.1)


def likelihood_of_history(fit, new):
    """Log-likelihood of a new subject's history at every draw."""
    (course,) = courses_of(fit.design, new, [9.0], None, retrospective=False).subjects
    S = fit.draws("sigma").size
    beta, D = fit.draws("beta").reshape(S, -1), fit.draws("D").reshape(S, len(fit.design.term), -1)
    return _history_loglik(fit, course, beta, D, fit.draws("sigma").ravel())


def test_a_history_weighs_by_its_marginal_normal_density(nuts, held_out):
    """What the draws are reweighted by: scipy's normal density with V dense, draw by draw."""
    new = held_out[1].head(4)
    found = likelihood_of_history(nuts, new)
    Z = np.column_stack([np.ones(4), new["days"]])
    beta, D, sigma = nuts.draws("beta").reshape(-1, 2), nuts.draws("D").reshape(-1, 2, 2), nuts.draws("sigma").ravel()
    for s in range(0, len(sigma), 97):
        V = Z @ D[s] @ Z.T + sigma[s] ** 2 * np.eye(4)
        exact = multivariate_normal.logpdf(new["reaction"].to_numpy(), Z @ beta[s], V)
        assert found[s] == pytest.approx(exact, rel=1e-10)


def test_reweighted_posterior_is_that_of_a_refit(nuts, held_out):
    old, new = held_out
    times = [3.0, 9.0]
    table = nuts.predict_subject(new.head(3), times, interval="prediction")
    both = pd.concat([old, new.head(3)])
    refit = hl.TwoLevelModel.from_formula(SLEEP, both).fit(draws=4000, seed=3, progressbar=False)
    draws = refit.predict(pd.DataFrame({"subject": 372, "days": times}), interval="prediction", kind="draws")
    draws = draws.to_numpy().reshape(-1, 2)
    sd = draws.std(axis=0)
    np.testing.assert_allclose(table["estimate"], draws.mean(axis=0), atol=0.04 * sd.max())
    np.testing.assert_allclose(table["se"], sd, rtol=0.03)
    np.testing.assert_allclose(
        table[["lower", "upper"]].T, np.quantile(draws, [0.025, 0.975], axis=0), atol=0.1 * sd.max()
    )
    assert table.attrs["pareto_k"][372] < 0.7 and table.attrs["ess"][372] > 1000


def test_a_history_that_the_draws_cannot_follow_is_said(nuts):
    far = pd.DataFrame({"days": np.arange(8.0), "reaction": 3000.0 + 400.0 * np.arange(8.0)})
    with pytest.warns(FitWarning, match="Pareto k"):
        nuts.predict_subject(far, [9.0])
    plain = nuts.predict_subject(far, [9.0], reweight=False)
    assert "pareto_k" not in plain.attrs


def test_several_new_subjects_are_predicted_each_from_its_own_history(without, nuts, held_out):
    new = held_out[1]
    two = pd.concat([new.head(2), new.head(4).assign(subject=999)])
    for fit in (without, nuts):
        table = fit.predict_subject(two, [5.0, 7.0], interval="prediction")
        assert list(table["subject"]) == [372, 372, 999, 999] and list(table["days"]) == [5.0, 7.0] * 2
        for label, rows in table.groupby("subject"):
            alone = fit.predict_subject(two[two["subject"] == label], [5.0, 7.0], interval="prediction")
            np.testing.assert_allclose(rows[["estimate", "se", "lower", "upper"]], alone.iloc[:, 2:])
        shuffled = pd.DataFrame({"subject": [999, 372], "days": [7.0, 5.0]}, index=["x", "y"])
        rows = fit.predict_subject(two, newdata=shuffled, interval="prediction")
        assert list(rows.index) == ["x", "y"]
        np.testing.assert_allclose(rows, table.iloc[[3, 0], 2:])


def test_without_a_level_1_variable_times_are_not_needed():
    data = hl.load_dataset("dyestuff")
    fit = hl.TwoLevelModel("yield ~ 1", subject="batch", data=data).fit_reml()
    table = fit.predict_subject(pd.DataFrame({"yield": [1600.0, 1620.0]}))
    d, v = float(fit.D.to_numpy()[0, 0]), fit.sigma**2
    # One mean among seven, weighted by their precisions.
    weight = np.append(np.full(6, 1 / (d + v / 5)), 1 / (d + v / 2))
    means = np.append(data.groupby("batch", observed=True)["yield"].mean(), 1610.0)
    grand = weight @ means / weight.sum()
    assert table["estimate"][0] == pytest.approx(grand + d / (d + v / 2) * (1610.0 - grand), rel=1e-9)
    with pytest.raises(SpecificationError, match="no level-1 variable"):
        fit.predict_subject(pd.DataFrame({"yield": [1600.0]}), [1.0])


# --- calibration -----------------------------------------------------------------------------------------------------

D_TRUE = np.array([[1.0, 0.1], [0.1, 0.25]])
TIMES = np.arange(7.0)
BETA = np.array([10.0, 1.0])


def _study(n_subjects, seed):
    data = hl.simulate(
        beta={"Intercept": 10.0, "time": 1.0},
        D=D_TRUE,
        sigma=1.0,
        random=["Intercept", "time"],
        n_subjects=n_subjects,
        times=np.arange(4.0),
        seed=0,
    )
    design = hl.TwoLevelModel.from_formula("y ~ time + (1 + time | subject)", data).design
    rng, root = np.random.default_rng(seed), np.linalg.cholesky(D_TRUE)
    while True:
        b = rng.standard_normal((n_subjects, 2)) @ root.T
        line = design.X @ BETA + np.einsum("ij,ij->i", design.Z, b[design.subject_index])
        yield design.with_response(line + rng.standard_normal(design.n_obs)), rng


def _coverage(table, mean, sd):
    return norm.cdf((table["upper"] - mean) / sd) - norm.cdf((table["lower"] - mean) / sd)


def _future(rng, h):
    """A new subject's first h measurements, and the true mean and variance of the line given them."""
    x = np.column_stack([np.ones(7), TIMES])
    b = np.linalg.cholesky(D_TRUE) @ rng.standard_normal(2)
    y = x[:h] @ (BETA + b) + rng.standard_normal(h)
    gain = x @ D_TRUE @ x[:h].T @ np.linalg.inv(x[:h] @ D_TRUE @ x[:h].T + np.eye(h))
    variance = np.einsum("ia,ab,ib->i", x, D_TRUE, x) - np.einsum("ij,ij->i", gain, x @ D_TRUE @ x[:h].T)
    return pd.DataFrame({"time": TIMES[:h], "y": y}), x @ BETA + gain @ (y - x[:h] @ BETA), variance


# One study's exact coverage varies as its standard error does: 2 z φ(z) / √(2 · 14) = 0.043, and a little for the mean.
SD_OF_COVERAGE = 0.05


def test_reml_intervals_for_new_subjects_cover_with_15_subjects():
    """Coverage is computed exactly for each simulated study, so 100 of them give a Monte-Carlo error below 0.7 %."""
    x = np.column_stack([np.ones(7), TIMES])
    sd = np.sqrt(np.einsum("ia,ab,ib->i", x, D_TRUE, x) + 1.0)
    new = pd.DataFrame({"time": TIMES})
    fresh, dynamic, plug_in = [], [], []
    for (design, rng), _ in zip(_study(15, 1), range(100), strict=False):
        fit = fit_of(maximise_design(design, reml=True))
        table = fit.predict(new, "new_subject", "prediction")
        fresh.append(_coverage(table, x @ BETA, sd))
        normal = norm.ppf(0.975) * table["se"]
        plug_in.append(_coverage({"lower": table.estimate - normal, "upper": table.estimate + normal}, x @ BETA, sd))
        history, mean, variance = _future(rng, 2)
        table = fit.predict_subject(history, TIMES[2:], interval="prediction")
        dynamic.append(_coverage(table, mean[2:], np.sqrt(variance[2:] + 1.0)))
    for covered in (np.array(fresh), np.array(dynamic)):
        assert np.all(np.abs(covered.mean(axis=0) - 0.95) < 0.02 + 2 * SD_OF_COVERAGE / np.sqrt(len(covered)))
    # With normal quantiles they would be short: the test can tell.
    assert np.mean(plug_in) < np.mean(fresh) - 0.008


@pytest.mark.filterwarnings("ignore::hierlmm.errors.FitWarning")  # short chains, a hard history: all count
def test_nuts_intervals_for_new_subjects_cover():
    x = np.column_stack([np.ones(7), TIMES])
    sd = np.sqrt(np.einsum("ia,ab,ib->i", x, D_TRUE, x) + 1.0)
    fresh, dynamic = [], []
    for (design, rng), seed in zip(_study(15, 2), range(25), strict=False):
        data = design.frame.assign(y=design.y)
        model = hl.TwoLevelModel.from_formula("y ~ time + (1 + time | subject)", data)
        fit = model.fit(draws=1000, tune=500, chains=2, seed=seed, progressbar=False, random_effects="none")
        fresh.append(_coverage(fit.predict(pd.DataFrame({"time": TIMES}), "new_subject", "prediction"), x @ BETA, sd))
        history, mean, variance = _future(rng, 2)
        table = fit.predict_subject(history, TIMES[2:], interval="prediction")
        dynamic.append(_coverage(table, mean[2:], np.sqrt(variance[2:] + 1.0)))
    for covered in (np.array(fresh), np.array(dynamic)):
        assert np.all(np.abs(covered.mean(axis=0) - 0.95) < 0.02 + 2 * SD_OF_COVERAGE / np.sqrt(len(covered)))


# --- bad input -------------------------------------------------------------------------------------------------------


HISTORY = pd.DataFrame({"sex": "Male", "time": [0.0, 2.0], "distance": [25.0, 26.0]})


@pytest.mark.parametrize(
    ("history", "times", "says"),
    [
        (HISTORY.drop(columns="distance"), [4], "'distance'"),
        (HISTORY.drop(columns="sex"), [4], "'sex'"),
        (HISTORY.assign(sex="Unknown"), [4], "Unknown"),
        (HISTORY.assign(sex=["Male", "Female"]), [4], "level-2 variable"),
        (HISTORY.assign(distance=[25.0, np.nan]), [4], "missing values"),
        (HISTORY.assign(distance=[25.0, np.inf]), [4], "infinite"),
        (HISTORY.head(0), [4], "without rows"),
        (HISTORY.assign(subject=1), [4], "count twice"),
        (HISTORY, [1], "come later"),
        (HISTORY, [], "one or more"),
        (HISTORY, [np.nan], "finite"),
    ],
)
def test_histories_that_cannot_be_used(dental_reml, history, times, says):
    with pytest.raises(DataError, match=says):
        dental_reml.predict_subject(history, times)


def test_what_to_predict_must_be_said(dental_reml):
    new = pd.DataFrame({"sex": ["Male"], "time": [4.0]})
    with pytest.raises(SpecificationError, match="neither times nor newdata"):
        dental_reml.predict_subject(HISTORY)
    with pytest.raises(SpecificationError, match="times and newdata"):
        dental_reml.predict_subject(HISTORY, [4], newdata=new)
    with pytest.raises(DataError, match="level-2 variable"):
        dental_reml.predict_subject(HISTORY, newdata=new.assign(sex="Female"))
    with pytest.raises(DataError, match="history without it"):
        dental_reml.predict_subject(HISTORY, newdata=new.assign(subject=98))
    with pytest.raises(DataError, match="no measurements of them"):
        dental_reml.predict_subject(HISTORY.assign(subject=98), newdata=new.assign(subject=99))
    with pytest.raises(SpecificationError, match="ci"):
        dental_reml.predict_subject(HISTORY, [4], interval="prediction", ci=95)
    early = dental_reml.predict_subject(HISTORY, [1], retrospective=True, interval="confidence")
    late = dental_reml.predict_subject(HISTORY, [5], interval="confidence")
    assert early["se"][0] < late["se"][0]


def test_level_1_variables_besides_time_must_be_given(sleepstudy):
    rng = np.random.default_rng(1)
    data = sleepstudy.assign(dose=rng.normal(size=180), extra=rng.normal(size=180))
    fit = hl.TwoLevelModel.from_formula("reaction ~ days + dose + (1 | subject)", data).fit_reml()
    history = data.head(3).assign(subject=999)
    with pytest.raises(SpecificationError, match="'days', 'dose'"):
        fit.predict_subject(history, [4])
    new = pd.DataFrame({"subject": 999, "days": [4.0], "dose": [0.5]})
    with pytest.raises(SpecificationError, match="which of these level-1 variables is the time"):
        fit.predict_subject(history, newdata=new)
    assert len(fit.predict_subject(history, newdata=new, retrospective=True)) == 1
    shifted = hl.TwoLevelModel.from_formula("reaction ~ days + offset(extra) + (1 | subject)", data).fit_reml()
    with pytest.raises(DataError, match="'extra' with more than one value"):
        shifted.predict_subject(history, [4])


def test_a_response_that_depends_on_all_rows_is_refused(sleepstudy):
    history = sleepstudy.head(2).assign(subject=999)
    logged = hl.TwoLevelModel.from_formula("np.log(reaction) ~ days + (1 | subject)", sleepstudy).fit_reml()
    assert 5 < logged.predict_subject(history, [4])["estimate"][0] < 6
    centred = hl.TwoLevelModel.from_formula("center(reaction) ~ days + (1 | subject)", sleepstudy).fit_reml()
    with pytest.raises(FormulaError, match="depend on all rows"):
        centred.predict_subject(history, [4])


def test_requests_that_mean_nothing(sleep_reml, nuts):
    new = pd.DataFrame({"subject": [308], "days": [1.0]})
    for fit in (sleep_reml, nuts):
        with pytest.raises(SpecificationError, match="level"):
            fit.predict(new, level="conditional")
        with pytest.raises(SpecificationError, match="interval"):
            fit.predict(new, interval="tolerance")
        with pytest.raises(SpecificationError, match="ci"):
            fit.predict(new, interval="prediction", ci=1.0)
        with pytest.raises(DataError, match="new_subject"):
            fit.predict(new.assign(subject=999))
        with pytest.raises(DataError, match="'days'"):
            fit.predict(new.drop(columns="days"))
        with pytest.raises(DataError, match="subject"):
            fit.predict(new.drop(columns="subject"))


@pytest.fixture(scope="module")
def dosed(sleepstudy):
    rng = np.random.default_rng(1)
    return sleepstudy.assign(dose=rng.normal(size=180))


@pytest.mark.parametrize("residual", [None, hl.CAR1("days")])
def test_the_time_of_a_dynamic_prediction_can_be_named(dosed, residual):
    """With several level-1 variables; the residual structure names it as well."""
    fit = hl.TwoLevelModel.from_formula("reaction ~ days + dose + (1 | subject)", dosed, residual=residual).fit_reml()
    history = dosed.head(3).assign(subject=999)
    new = pd.DataFrame({"subject": 999, "days": [4.0], "dose": [0.5]})
    named = {} if residual else {"time": "days"}
    found = fit.predict_subject(history, newdata=new, **named)
    pd.testing.assert_frame_equal(found, fit.predict_subject(history, newdata=new, retrospective=True))
    with pytest.raises(DataError, match="come later"):
        fit.predict_subject(history, newdata=new.assign(days=1.0), **named)
    with pytest.raises(DataError, match="'dose' besides 'days'"):  # one measurement: its dose need not stay
        fit.predict_subject(history.head(1), [4], **named)
    for wrong in ("subject", "Days"):
        with pytest.raises(SpecificationError, match="use one of 'days', 'dose'"):
            fit.predict_subject(history, newdata=new, time=wrong)


def test_the_time_of_the_residual_structure_is_the_time(dosed):
    """The one level-1 variable is a dose; it is not taken for the time."""
    model = hl.TwoLevelModel.from_formula("reaction ~ dose + (1 | subject)", dosed, residual=hl.CAR1("days"))
    fit, history = model.fit_reml(), dosed.head(3).assign(subject=999)
    new = pd.DataFrame({"days": [5.0], "dose": [history["dose"].min() - 1], "subject": 999})
    later = fit.predict_subject(history, newdata=new, interval="prediction")
    assert len(later) == 1
    with pytest.raises(DataError, match="come later"):
        fit.predict_subject(history, newdata=new.assign(days=1.5, dose=9.0))
    with pytest.raises(DataError, match="add the column 'days'"):
        fit.predict_subject(history, newdata=new.drop(columns="days"))
    with pytest.raises(DataError, match="'dose' besides 'days'"):
        fit.predict_subject(history, [5])
    constant = hl.TwoLevelModel.from_formula("reaction ~ 1 + (1 | subject)", dosed, residual=hl.CAR1("days")).fit_reml()
    near, far = constant.predict_subject(history, [4, 9], interval="prediction")["se"]
    assert near < far
    with pytest.raises(SpecificationError, match="values of days"):
        constant.predict_subject(history, interval="confidence")


def test_an_absent_column_is_to_be_added(dental_reml):
    new = pd.DataFrame({"subject": [1], "time": [3.0]})
    with pytest.raises(DataError, match="add the column 'sex'") as caught:
        dental_reml.predict(new)
    assert "use one of the columns" not in str(caught.value)
    with pytest.raises(DataError, match="add the column 'subject'"):
        dental_reml.predict(new.assign(sex="Male")[["sex", "time"]])
    with pytest.raises(DataError, match="add the column 'distance'"):
        dental_reml.predict_subject(new.assign(sex="Male", subject=99), [4])


def test_labels_of_another_type_are_named(dental_reml):
    own = dental_reml.design.frame.iloc[[0]]
    with pytest.raises(DataError, match=r"\(str\)(.|\n)*labels of another type, such as 1 \(int") as caught:
        dental_reml.predict(own.assign(subject=own["subject"].astype(str)))
    assert "astype('int64')" in str(caught.value)
    assert len(dental_reml.predict(own.assign(subject=own["subject"].astype(float)))) == 1


def test_a_subject_keeps_its_level_2_covariates(dental_reml):
    own = dental_reml.design.frame.iloc[[0, 1]]
    other = own.assign(sex=["Female" if s == "Male" else "Male" for s in own["sex"]])
    for interval in (None, "confidence"):
        with pytest.raises(DataError, match="in the fitted data it is"):
            dental_reml.predict(other, interval=interval)
    assert len(dental_reml.predict(other, level="new_subject")) == 2
    as_factor = own.assign(sex=pd.Categorical(own["sex"], categories=["other", "Male", "Female"]))
    np.testing.assert_allclose(dental_reml.predict(as_factor), dental_reml.predict(own))


def test_a_numeric_level_2_covariate_is_compared_up_to_rounding(dental):
    data = dental.assign(weight=dental["subject"] / 7.0)
    fit = hl.TwoLevelModel.from_formula("distance ~ time + weight + (1 | subject)", data).fit_reml()
    own = data.head(1)
    np.testing.assert_allclose(
        fit.predict(own.assign(weight=own["weight"] * (1 + 1e-15))), fit.predict(own), rtol=1e-12
    )
    with pytest.raises(DataError, match=r"'weight' = 0\.2"):
        fit.predict(own.assign(weight=0.2))


@pytest.mark.parametrize("factor", ["g", "C(g)"])
@pytest.mark.parametrize("one", [True, 1, 1.0, np.True_, pd.Categorical([1])])
def test_new_data_for_a_factor_of_truth_values(dental, one, factor):
    data = dental.assign(g=dental["subject"] % 2 == 0)
    fit = hl.TwoLevelModel.from_formula(f"distance ~ time + {factor} + (1 | subject)", data).fit_reml()
    found = fit.predict(pd.DataFrame({"time": [1.0], "g": one}), "population")
    assert found["estimate"][0] == pytest.approx(fit.beta.sum())
    for other in (2, "1"):
        with pytest.raises(DataError, match=f"g = {other!r}" if factor == "g" else f"level {other!r}|numbers in this"):
            fit.predict(pd.DataFrame({"time": [1.0], "g": [other]}), "population")


def test_a_marginal_posterior_has_every_level_but_the_subjects(dental):
    model = hl.MarginalModel("distance ~ sex*time", correlation=hl.CompoundSymmetry(), subject="subject", data=dental)
    fit = model.fit(draws=1000, tune=500, chains=2, seed=1, progressbar=False)
    new, reml = dental.head(2), model.fit_reml()
    tables = {level: fit.predict(new, level, "prediction") for level in ("population", "new_subject", "marginal")}
    for level, table in tables.items():
        pd.testing.assert_frame_equal(table, tables["marginal"])
        assert table.attrs["level"] == level and "random effects drawn" not in table.attrs["estimate"]
        expected = reml.predict(new, level, "prediction")
        np.testing.assert_allclose(table["se"], expected["se"], rtol=0.15)
    lines = fit.predict(new, "new_subject", kind="draws")
    np.testing.assert_allclose(lines.mean(("chain", "draw")), tables["marginal"]["estimate"])
    with pytest.raises(NotAvailableError):
        fit.predict(new, "subject", "prediction")
    assert not fit.predict(new, interval="prediction", seed=1).equals(fit.predict(new, interval="prediction", seed=2))


def test_a_marginal_fit_says_which_arguments_it_has(dental):
    model = hl.MarginalModel("distance ~ time", correlation=hl.CompoundSymmetry(), subject="subject", data=dental)
    two_level = inspect.signature(hl.LikelihoodFit.predict).parameters
    assert list(inspect.signature(type(model.fit_reml()).predict).parameters) == list(two_level)
    own = inspect.signature(hl.fits.marginal.MarginalPosterior.predict).parameters
    assert list(own) == list(inspect.signature(hl.PosteriorFit.predict).parameters)


def test_gee_has_no_dynamic_prediction(dental):
    fit = hl.MarginalModel(
        "distance ~ sex*time", correlation=hl.CompoundSymmetry(), subject="subject", data=dental
    ).fit_gee()
    for method in (fit.predict_subject, fit.plot_subject_prediction):
        with pytest.raises(NotAvailableError, match="no distribution of a subject's measurements"):
            method(HISTORY, [4])


# --- the picture -----------------------------------------------------------------------------------------------------


def test_picture_of_a_dynamic_prediction(without, held_out):
    collection = without.plot_subject_prediction(held_out[1].head(4), after=[0, 1, 3], backend="none")
    panels = ["before any measurement", "after 1 measurement", "after 3 measurements"]
    assert list(collection.viz["panel"].values) == panels
    line = collection.viz["line"]["prediction"].sel(panel=panels[2]).item()
    expected = without.predict_subject(held_out[1].head(3), np.asarray(line["x"]), retrospective=True)
    np.testing.assert_allclose(line["y"], expected["estimate"])
    used = collection.viz["used"]["prediction"].sel(panel=panels[2]).item()
    later = collection.viz["later"]["prediction"].sel(panel=panels[2]).item()
    np.testing.assert_array_equal(np.asarray(used["y"])[:3], held_out[1]["reaction"].head(3))
    assert np.asarray(later["y"])[0] == held_out[1]["reaction"][3]
    with pytest.raises(SpecificationError, match="4 measurements"):
        without.plot_subject_prediction(held_out[1].head(4), after=5, backend="none")
    with pytest.raises(SpecificationError, match="2 subjects"):
        two = pd.concat([held_out[1].head(2), held_out[1].head(2).assign(subject=999)])
        without.plot_subject_prediction(two, backend="none")


@pytest.mark.parametrize("backend", ["matplotlib", "bokeh", "plotly"])
def test_the_picture_in_every_backend(nuts, held_out, backend):
    collection = nuts.plot_subject_prediction(held_out[1].head(3), after=2, backend=backend)
    assert set(collection.viz.children) >= {"line", "used", "later"}
    if backend == "matplotlib":
        import matplotlib.pyplot as plt

        plt.close("all")


# --- positions that the residual structure cannot use ---------------------------------------------------------------


def _serial(dental, residual):
    rows = dental.assign(v=(dental["time"] / 2).astype(int))
    return hl.TwoLevelModel.from_formula("distance ~ sex * time + (1 | subject)", rows, residual=residual).fit_reml()


def _row(**values):
    return pd.DataFrame({"subject": [1], "time": [9.0], "sex": ["Female"]} | {k: [v] for k, v in values.items()})


def test_positions_between_counted_occasions_are_refused(dental):
    fit = _serial(dental, hl.AR1("v"))
    with pytest.raises(DataError, match=r"v = 4\.5[\s\S]*whole numbers"):
        fit.predict(_row(v=4.5), "subject", "prediction")
    history = dental.head(3).assign(subject=99, v=[0.0, 0.5, 1.0])
    with pytest.raises(DataError, match=r"v = 0\.5"):
        fit.predict_subject(history, newdata=_row(v=4.0).assign(subject=99), interval="prediction")
    table = fit.predict(_row(v=4), "subject", "prediction")
    assert np.isfinite(table.to_numpy()).all()


def test_new_rows_without_the_column_of_the_residual_structure_are_refused(dental):
    fit = _serial(dental, hl.Exponential("age"))
    with pytest.raises(DataError, match="'age'"):
        fit.predict(_row(), "subject", "prediction")
    history = dental.head(3).assign(subject=99)
    with pytest.raises(DataError, match="'age'"):
        fit.predict_subject(history, newdata=_row().assign(subject=99), interval="prediction")
    with pytest.raises(DataError, match="'age'"):
        fit.predict_subject(history.drop(columns="age"), newdata=_row(age=17.0).assign(subject=99))


@pytest.mark.parametrize("residual", [hl.Exponential("age"), hl.AR1("v"), hl.Unstructured("age")], ids=repr)
def test_a_history_that_repeats_a_time_is_refused(dental, residual):
    fit = _serial(dental, residual)
    rows = dental.assign(v=(dental["time"] / 2).astype(int)).head(4).assign(subject=99)
    twice = pd.concat([rows.head(3), rows.head(1)])
    with pytest.raises(DataError, match=r"two measurements of one subject at (age|v) = (8|0)"):
        fit.predict_subject(twice, newdata=rows.iloc[[3]], interval="prediction")
    # Rows to predict may repeat a time: each is predicted by itself.
    table = fit.predict_subject(rows.head(3), newdata=rows.iloc[[3, 3]], interval="prediction")
    assert table["se"].iloc[0] == table["se"].iloc[1]


def test_advice_for_a_variance_of_fitted_values_can_be_followed(dental):
    model = hl.TwoLevelModel.from_formula(
        "distance ~ sex * time + (1 | subject)", dental, residual_variance=hl.VarPower()
    )
    fit, history = model.fit_reml(), dental.head(3).assign(subject=99)
    with pytest.raises(NotAvailableError, match="new_subject"):
        fit.predict_subject(history, [9.0], interval="prediction")
    assert np.isfinite(fit.predict(history, level="new_subject", interval="prediction").to_numpy()).all()


def test_known_subject_of_a_marginal_model_gets_advice_that_works(dental):
    fit = hl.MarginalModel("distance ~ time", correlation=hl.AR1("age"), subject="subject", data=dental).fit_reml()
    with pytest.raises(DataError, match="refit without the rows") as refused:
        fit.predict_subject(dental.head(3), [9.0])
    assert "level='subject'" not in str(refused.value)


@pytest.mark.parametrize("residual", [hl.AR1(), hl.AR1(nugget=True), hl.Toeplitz()], ids=str)
def test_the_place_of_new_rows_among_counted_ones_is_not_guessed(residual, sleepstudy):
    old, new = sleepstudy[sleepstudy["subject"] != 372], sleepstudy[sleepstudy["subject"] == 372]
    fit = hl.TwoLevelModel.from_formula("reaction ~ days + (1 | subject)", old, residual=residual).fit_reml()
    with pytest.raises(NotAvailableError, match="counts the rows of a subject"):
        fit.predict_subject(new.head(3), [8.0], interval="prediction")
    with pytest.raises(NotAvailableError, match="counts the rows of a subject"):
        fit.predict(pd.DataFrame({"subject": [308], "days": [12.0]}), interval="prediction")
    assert np.isfinite(fit.predict_subject(new.head(3), [8.0], interval="confidence")["se"]).all()


def test_rows_of_equal_correlation_have_no_place(sleepstudy):
    model = hl.MarginalModel(
        "reaction ~ days", correlation=hl.CompoundSymmetry(), subject="subject", data=sleepstudy[18:]
    )
    fit, new = model.fit_reml(), sleepstudy.head(3).assign(subject=1)
    one = fit.predict_subject(new, [8.0, 2.0], interval="prediction").drop(columns=["subject", "days"])
    other = fit.predict_subject(new[::-1], [2.0, 8.0], interval="prediction").drop(columns=["subject", "days"])
    np.testing.assert_allclose(one.to_numpy(), other.to_numpy()[::-1], rtol=1e-10)
