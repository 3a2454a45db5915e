"""Dropping out: the hazard model against statsmodels, and what it says of data with a known mechanism."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import stats

import hierlmm as hl
from hierlmm.errors import DataError


def trial(seed, effect, n=150, K=4):
    """Growth in two arms; the log odds of not coming back rise by ``effect`` for each unit of the last response."""
    rng = np.random.default_rng(seed)
    arm = np.arange(n) % 2
    y = 10.0 + np.arange(K) + rng.normal(size=(n, 1)) + 0.5 * rng.normal(size=(n, K))
    last = np.full(n, K - 1)
    for k in range(1, K):
        hazard = 1.0 / (1.0 + np.exp(1.4 - effect * (y[:, k - 1] - 10.0 - (k - 1))))
        gone = (last == K - 1) & (rng.random(n) < hazard)
        last[gone] = k - 1
    frame = pd.DataFrame({"id": np.repeat(np.arange(n), K), "t": np.tile(np.arange(K), n), "y": y.ravel()})
    frame["arm"] = np.repeat(np.array(["placebo", "drug"])[arm], K)
    return frame[frame["t"].to_numpy() <= np.repeat(last, K)]


COLUMNS = {"response": "y", "subject": "id", "time": "t"}


def test_odds_ratios_and_tests_are_those_of_statsmodels():
    data = trial(1, -0.8)
    found = hl.check_dropout(data, **COLUMNS, by="arm")
    wide = data.pivot_table(index="id", columns="t", values="y")
    arms = data.groupby("id")["arm"].first()
    rows = []
    for k in range(1, 4):
        there = wide[k - 1].notna()
        out = wide[k].isna()
        rows.append(pd.DataFrame({"out": out[there], "prev": wide.loc[there, k - 1], "k": k, "arm": arms[there]}))
    long = pd.concat(rows)
    x = (long["prev"] - long["prev"].mean()) / long["prev"].std(ddof=0)
    base = pd.get_dummies(long["k"], dtype=float).assign(drug=(long["arm"] == "drug").astype(float))
    families = {"family": sm.families.Binomial()}
    null, one = (sm.GLM(long["out"].astype(float), X, **families).fit() for X in (base, base.assign(x=x)))
    both = base.assign(x1=x * (long["arm"] == "drug"), x2=x * (long["arm"] == "placebo"))
    many = sm.GLM(long["out"].astype(float), both, **families).fit()
    first = found.table.iloc[0]
    assert first["odds_ratio"] == pytest.approx(np.exp(one.params["x"]), rel=1e-6)
    assert [first["lower"], first["upper"]] == pytest.approx(list(np.exp(one.conf_int().loc["x"])), rel=1e-6)
    assert first["chi2"] == pytest.approx(2 * (one.llf - null.llf), rel=1e-6)
    assert found.p == pytest.approx(stats.chi2.sf(2 * (one.llf - null.llf), 1), rel=1e-6)
    by_arm = found.table.set_index("effect")["odds_ratio"]
    assert by_arm["last response, drug"] == pytest.approx(np.exp(many.params["x1"]), rel=1e-6)
    assert found.table.iloc[-1]["chi2"] == pytest.approx(2 * (many.llf - one.llf), rel=1e-5)
    at_risk = found.hazards.groupby(level="t")["at_risk"].sum()
    assert at_risk.to_dict() == long.groupby("k").size().to_dict()


def test_it_sees_what_it_should():
    assert hl.check_dropout(trial(2, -1.0), **COLUMNS).p < 1e-4
    none = hl.check_dropout(trial(3, 0.0), **COLUMNS)
    assert none.p > 0.05
    assert "does not contradict" in " ".join(repr(none).split())


def test_reml_and_gee_stand_side_by_side():
    data = trial(4, -1.0, n=120)
    model = hl.TwoLevelModel.from_formula("y ~ t * arm + (1 | id)", data)
    found = hl.check_dropout(model, by="arm")
    reml, gee = model.fit_reml(), model.fit_gee("independence")
    np.testing.assert_allclose(found.estimates["reml"], reml.beta, rtol=1e-8)
    np.testing.assert_allclose(found.estimates["gee"], gee.beta, rtol=1e-8)
    np.testing.assert_allclose(found.estimates["gee_se"], gee.beta_se, rtol=1e-8)
    # Those with low values leave, so that the mean of those who stay rises too fast.
    assert found.estimates.loc["t", "difference"] > 1.0
    text = " ".join(repr(found).split())
    assert "Between REML and GEE the estimates differ most in t" in text
    assert "had lower values" in text


def test_separated_and_empty_data(dental):
    with pytest.raises(DataError, match="0 subjects that drop out"):
        hl.check_dropout(dental, response="distance", subject="subject", time="age")
    data = trial(5, 0.0, n=60)
    first = data.groupby("id")["y"].transform("first")
    gone = (first > first.median()) & (data["t"] > 0)  # all with a high value leave at once, nobody else
    data = data[~gone].assign(y=first)
    found = hl.check_dropout(data, **COLUMNS)
    assert found.p < 1e-6
    assert np.isfinite(found.table["odds_ratio"].iloc[0])


def from_baseline(seed, n=200, K=4):
    """Changes from a noisy baseline; who leaves depends on the last score, which is baseline and change together."""
    rng = np.random.default_rng(seed)
    baseline = rng.normal(50.0, 8.0, n)
    y = 50.0 + 0.2 * (baseline[:, None] - 50.0) + 4.0 * rng.normal(size=(n, K))
    out = rng.random((n, K)) < 1.0 / (1.0 + np.exp(1.5 + 0.25 * (y - 50.0)))
    here = np.cumsum(out, axis=1) - out == 0
    frame = pd.DataFrame({"id": np.repeat(np.arange(n), K), "t": np.tile(np.arange(K), n)})
    frame["baseline"] = np.repeat(baseline, K)
    frame["change"], frame["site"] = y.ravel() - frame["baseline"], np.where(frame["id"] % 3, "a", "b")
    return frame[here.ravel()]


def test_a_change_from_baseline_is_looked_at_beside_the_baseline():
    data = from_baseline(5)
    columns = COLUMNS | {"response": "change"}
    alone = hl.check_dropout(data, **columns)
    found = hl.check_dropout(data, **columns, covariates=["baseline", "site"])
    assert alone.covariates == () and found.covariates == ("baseline", "site")
    assert alone.table["chi2"].iloc[0] < 10.0 and found.p < 1e-8
    assert "last change, given baseline and site?" in repr(found)
    model = hl.TwoLevelModel.from_formula("change ~ baseline + t + (1 | id)", data)
    of_model = hl.check_dropout(model)
    assert of_model.covariates == ("baseline",) and of_model.p < 1e-8
    assert hl.check_dropout(model, covariates=[]).table.equals(alone.table)


def test_with_covariates_the_test_is_that_of_statsmodels():
    data = from_baseline(6)
    found = hl.check_dropout(data, **(COLUMNS | {"response": "change"}), covariates=["site", "baseline"])
    data = data.assign(out=data.groupby("id")["t"].transform("max") == data["t"])[data["t"] < 3]
    base = pd.get_dummies(data["t"], dtype=float).assign(b=data["baseline"], s=(data["site"] == "a").astype(float))
    families = {"family": sm.families.Binomial()}
    fits = [sm.GLM(data["out"].astype(float), X, **families).fit() for X in (base, base.assign(x=data["change"]))]
    assert found.table["chi2"].iloc[0] == pytest.approx(2 * (fits[1].llf - fits[0].llf), rel=1e-6)


def test_a_covariate_is_of_subjects():
    with pytest.raises(DataError, match="covariates='t', which varies within id"):
        hl.check_dropout(trial(2, -1.0), **COLUMNS, covariates="t")
