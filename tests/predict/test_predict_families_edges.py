"""Predictions of generalised fits at the edge: D without full rank, means outside their range, trials that are none."""

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import hierlmm as hl
from hierlmm.bayes.predictive import drawn_responses


def fit(formula, data, family, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no maximum
        return hl.TwoLevelModel.from_formula(formula, data, family=family, **options).fit_ml()


@pytest.fixture(scope="module")
def singular():
    """A slope that does not vary between subjects."""
    rng = np.random.default_rng(3)
    g, x = np.repeat(np.arange(25), 4), np.tile(np.arange(4.0), 25)
    y = rng.poisson(np.exp(0.4 + 0.1 * x + 0.6 * rng.normal(size=25)[g]))
    return fit("y ~ x + (x | g)", pd.DataFrame({"g": g, "x": x, "y": y}), "poisson")


def test_new_responses_of_a_subject_where_D_is_singular(singular):
    assert singular.optimum.n_boundary
    found = singular.predict(level="subject", interval="prediction")
    assert np.all(found["lower"] <= found["estimate"])
    assert np.all(found["estimate"] <= found["upper"])
    assert np.mean((singular.design.y >= found["lower"]) & (singular.design.y <= found["upper"])) > 0.9


@pytest.mark.parametrize("family", [hl.families.Gamma, hl.families.Binomial, hl.families.Poisson])
def test_nothing_is_drawn_where_means_leave_their_range(family):
    own, rng = family(link="identity"), np.random.default_rng(1)
    psi = np.zeros((2, len(own.dispersion)))
    assert drawn_responses(own, np.full((2, 3), 0.5), psi, np.full(3, 4.0), rng).shape == (2, 3)
    with pytest.raises(hl.NotAvailableError, match=r"(?s)from -0\.2 to 0\.5.*the identity link does not keep means"):
        drawn_responses(own, np.array([[0.5, 0.1, 0.2], [0.5, -0.2, 0.1]]), psi, np.full(3, 4.0), rng)


def test_draws_of_a_fit_without_standard_errors(singular):
    record = replace(singular.record)
    record.__dict__["information"] = (np.full_like(singular.record.covariance, np.nan), singular.record.flat)
    lost = type(singular)(record)
    for ask in (lambda f: f.predict(interval="prediction"), lambda f: f.to_datatree()):
        with pytest.raises(hl.errors.NotAvailableError, match="draws of a fit without standard errors"):
            ask(lost)


@pytest.mark.parametrize("trials", [np.nan, "n", -5, 2.5, np.inf, 0, [1, np.nan]])
def test_trials_that_are_none(trials):
    rng = np.random.default_rng(1)
    data = pd.DataFrame({"g": np.repeat(np.arange(10), 3), "n": 5, "y": rng.binomial(5, 0.4, 30)})
    own = fit("y ~ 1 + (1 | g)", data, "binomial", trials="n")
    with pytest.raises(hl.errors.SpecificationError, match=r"(?s)Received: trials=.*numbers of trials are 1, 2"):
        own.predict(data.head(2), trials=trials)
    assert own.predict(data.head(2), trials=[2, 4])["estimate"].iloc[1] < 4


def test_trials_of_new_rows_are_those_of_their_column():
    rng = np.random.default_rng(4)
    who = np.repeat(np.arange(12), 3)
    data = pd.DataFrame({"who": who, "n": rng.integers(5, 30, 36)})
    data["y"] = rng.binomial(data["n"], 1 / (1 + np.exp(-0.7 * rng.normal(size=12)[who])))
    model = hl.TwoLevelModel.from_formula("y ~ 1 + (1 | who)", data, family="binomial", trials="n")
    fit, gee = model.fit_ml(), model.fit_gee()
    new, bare = data.head(4), data.head(4).drop(columns="n")
    found = fit.predict(new)
    np.testing.assert_allclose(found["estimate"], fit.fitted().head(4), rtol=1e-12)
    np.testing.assert_allclose(gee.predict(new)["estimate"], gee.fitted().head(4), rtol=1e-12)
    assert found.attrs["trials"] == gee.predict(new).attrs["trials"] == "column 'n'"
    np.testing.assert_allclose(fit.predict(bare)["estimate"] * new["n"], found["estimate"], rtol=1e-12)
    np.testing.assert_allclose(fit.predict(new, trials=1)["estimate"], fit.predict(bare)["estimate"], rtol=1e-12)
    assert "no column 'n'" in fit.predict(bare).attrs["trials"]
    assert fit.predict(new, level="population", interval="prediction")["upper"].max() > 3
    assert fit.predict(bare, level="population", interval="prediction")["upper"].max() == 1
    assert "trials" not in fit.predict(new, scale="link").attrs
    with pytest.raises(hl.SpecificationError, match="the column 'n'"):
        fit.predict(new.assign(n=0))
