"""Dynamic prediction of a subject from its own measurements: formulas, the picture, positions."""

import numpy as np
import pandas as pd
import pytest
from samples import SLEEP
from scipy.stats import multivariate_normal, norm
from textbook import generalised_least_squares, marginal_covariance

import hierlmm as hl
from hierlmm.errors import DataError, FitWarning, NotAvailableError, SpecificationError
from hierlmm.predict.dynamic import _history_loglik
from hierlmm.predict.history import courses_of


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


def test_a_history_far_out_moves_the_posterior_towards_it(sleepstudy):
    """Few subjects, and a new one far above them: the refit is as much further up, and narrower, as the weights say."""
    few, formula = sleepstudy[sleepstudy["subject"] <= 332], "reaction ~ days + (1 | subject)"
    high = sleepstudy[sleepstudy["subject"] == 337].head(4).assign(subject=999)
    high["reaction"] += 60.0
    options = {"draws": 2000, "seed": 1, "progressbar": False}
    fit = hl.TwoLevelModel.from_formula(formula, few).fit(**options)
    refit = hl.TwoLevelModel.from_formula(formula, pd.concat([few, high])).fit(**options)
    plain, found = (
        fit.predict_subject(high, [8.0], interval="credible", reweight=again).iloc[0] for again in (False, True)
    )
    exact = refit.predict(pd.DataFrame({"subject": [999], "days": [8.0]}), interval="credible").iloc[0]
    assert exact["estimate"] > plain["estimate"] + 3.0
    assert found["estimate"] == pytest.approx(exact["estimate"], abs=0.06 * exact["se"])
    assert found["se"] == pytest.approx(exact["se"], rel=0.04)


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
