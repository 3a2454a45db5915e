"""Is a covariate exogenous: level, power, the jackknife, words."""

import numpy as np
import pandas as pd
import pytest

import hierlmm as hl
from hierlmm.errors import DataError, SpecificationError


def panel(rng, J=60, n=5, feedback=0.0, irregular=False):
    """x has a stable part and an autoregressive one; y follows x; feedback: x follows the previous y."""
    stable, b, e = rng.normal(size=(3, J))
    t = np.cumsum(rng.uniform(0.5, 1.5, (J, n)), axis=1) if irregular else np.tile(np.arange(float(n)), (J, 1))
    x, y = np.zeros((J, n)), np.zeros((J, n))
    for j in range(n):
        if j:
            rho = 0.5 ** (t[:, j] - t[:, j - 1])
            e = rho * e + np.sqrt(1 - rho**2) * rng.normal(size=J)
        x[:, j] = stable + e + (feedback * y[:, j - 1] if j else 0.0)
        y[:, j] = 1 + 0.2 * t[:, j] + x[:, j] + b + rng.normal(size=J)
    i = np.repeat(np.arange(J), n)
    return pd.DataFrame({"id": i, "t": t.ravel(), "x": x.ravel(), "y": y.ravel()})


def check(data, **options):
    return hl.check_exogeneity(data, response="y", variable="x", subject="id", time="t", **options)


@pytest.mark.parametrize("irregular", [False, True])
def test_an_exogenous_covariate_is_rejected_at_the_level(irregular):
    rng = np.random.default_rng(11)
    runs = 250
    rate = np.mean([check(panel(rng, irregular=irregular)).endogenous for _ in range(runs)])
    assert abs(rate - 0.05) < 3 * np.sqrt(0.05 * 0.95 / runs)


def test_feedback_is_found_with_the_power_that_is_promised():
    rng = np.random.default_rng(12)
    runs = 200
    found = [check(panel(rng, feedback=0.25)) for _ in range(runs)]
    rate, mcse = np.mean([f.endogenous for f in found]), 0.5 / np.sqrt(runs)
    assert rate > 0.9
    # The standardised coefficient that is detectable with a chance of 0.8: a normal approximation predicts the rate.
    z = np.mean([f.table["estimate"].iloc[0] / f.table["se"].iloc[0] for f in found])
    from scipy.stats import norm

    assert abs(rate - norm.cdf(z - 1.96)) < 3 * mcse
    assert np.mean([f.detectable for f in found]) < np.mean([f.table["standardised"].iloc[0] for f in found])


@pytest.mark.parametrize("options", [{}, {"lags": 2}, {"adjust_for": ["z", "g"], "time_degree": 1}])
def test_the_jackknife_is_leaving_subjects_out(options):
    data = panel(np.random.default_rng(13), J=25, n=6, feedback=0.2, irregular=True)
    data["z"], data["g"] = np.sin(np.arange(len(data))), np.where(data["id"] % 3, "a", "b")
    whole = check(data, **options)
    lags = options.get("lags", 1)
    rows = data[data.groupby("id").cumcount() >= lags].index.to_numpy()
    columns = [np.ones(len(rows))] + [data["x"].to_numpy()[rows - k] for k in range(1, lags + 1)]
    columns.append(data.groupby("id")["x"].transform(lambda x: x.expanding().mean()).to_numpy()[rows - 1])
    columns += [data["t"].to_numpy()[rows] ** d for d in range(1, options.get("time_degree", 3) + 1)]
    gap = data["t"].to_numpy()[rows] - data["t"].to_numpy()[rows - 1]
    columns += [gap, gap * data["x"].to_numpy()[rows - 1]]
    if "adjust_for" in options:
        columns += [data["z"].to_numpy()[rows], (data["g"].to_numpy()[rows] == "b").astype(float)]
    columns += [data["y"].to_numpy()[rows - k] for k in range(1, lags + 1)]
    X, x, who = np.column_stack(columns), data["x"].to_numpy()[rows], data["id"].to_numpy()[rows]
    full = np.linalg.lstsq(X, x)[0][-lags:]
    left = np.array([np.linalg.lstsq(X[who != i], x[who != i])[0][-lags:] for i in np.unique(who)])
    J = len(left)
    V = (J - 1) / J * (left - left.mean(axis=0)).T @ (left - left.mean(axis=0))
    np.testing.assert_allclose(whole.table["estimate"], full, rtol=1e-7)
    np.testing.assert_allclose(whole.table["se"], np.sqrt(np.diag(V)), rtol=1e-7)
    assert whole.statistic == pytest.approx(full @ np.linalg.solve(V, full) / lags, rel=1e-7)
    assert (whole.n_obs, whole.n_subjects, whole.df1, whole.df2) == (len(rows), J, lags, J - 1)


def test_neither_order_nor_units_matter():
    data = panel(np.random.default_rng(14), feedback=0.2)
    found = check(data)
    other = check(
        data.sample(frac=1, random_state=1).assign(x=lambda d: 100 + 7 * d["x"], t=lambda d: 50 + 365 * d["t"])
    )
    assert other.p == pytest.approx(found.p, rel=1e-6)
    assert other.table["standardised"].iloc[0] == pytest.approx(found.table["standardised"].iloc[0], rel=1e-7)
    assert other.detectable == pytest.approx(found.detectable, rel=1e-7)


def test_prothrombin_is_endogenous_and_the_words_say_what_that_means():
    pbc = hl.load_dataset("pbc").assign(logbili=lambda d: np.log(d["bili"]))
    found = hl.check_exogeneity(
        pbc, response="logbili", variable="protime", subject="subject", time="year", adjust_for=["sex", "age", "trt"]
    )
    assert found.endogenous and found.p < 1e-10
    assert (found.n_obs, found.n_subjects) == (1945 - 312, 285)
    text = " ".join(repr(found).split())
    for words in ("is endogenous", "random effects", "independence working correlation", "JMbayes2", "within_between"):
        assert words in text
        assert words in found._repr_html_()


def test_no_evidence_is_not_called_exogenous():
    found = check(panel(np.random.default_rng(1)))
    assert not found.endogenous
    text = " ".join(repr(found).split())
    assert "does not show that 'x' is exogenous" in text
    assert f"{found.detectable:.3f}" in text


def test_few_subjects_are_said():
    with pytest.warns(hl.FitWarning, match="12 subjects"):
        check(panel(np.random.default_rng(1), J=12))


def test_a_level2_covariate_is_not_checked_from_rounding_error():
    data = panel(np.random.default_rng(1))
    for share in (0.1, 1 / 3):  # values of which means and differences round
        level2 = data.assign(x=100 + share * data["id"])
        with pytest.raises(DataError, match="the same in all rows of each subject"):
            check(level2)
    with pytest.raises(DataError, match="'y', which is the same in all rows"):
        check(data.assign(y=0.1 * data["id"]))


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda d: d.assign(y=lambda e: 2 * e["x"]), {}, "exact linear function"),
        (lambda d: d.assign(x=1.0), {}, "constant"),
        (lambda d: d.assign(x="a"), {}, "needs numbers"),
        (lambda d: d.assign(t=0.0), {}, "several rows of subject"),
        (lambda d: d.groupby("id").head(1), {}, "0 rows of 0 subjects"),
        (lambda d: d.head(15), {}, "cannot be judged"),
        (lambda d: d.assign(y=d["y"].where(d["t"] > 0)), {}, "missing values in y"),
        (lambda d: d, {"lags": 0}, "1 or more"),
        (lambda d: d, {"time_degree": 1.5}, "whole number"),
        (lambda d: d, {"alpha": 5}, "not between 0 and 1"),
        (lambda d: d, {"adjust_for": ["q"]}, "no column of this name"),
        (lambda d: d.assign(q=(d["id"] == 3) * 1.0), {"adjust_for": ["q"]}, "one subject alone decides"),
    ],
)
def test_data_that_cannot_be_checked(change, options, message):
    with pytest.raises((DataError, SpecificationError), match=message):
        check(change(panel(np.random.default_rng(1))), **options)


def test_incomplete_rows_are_dropped_and_said():
    data = panel(np.random.default_rng(1))
    data.loc[data.index[::7], "y"] = np.nan
    with pytest.warns(hl.FitWarning, match="rows were dropped"):
        found = check(data, missing="drop")
    assert found.n_obs == len(data) - data["y"].isna().sum() - data.dropna()["id"].nunique()
