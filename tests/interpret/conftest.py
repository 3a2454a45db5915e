"""Fits that several files of this room look at, made once."""

import numpy as np
import pandas as pd
import pytest
from sentences_found import FORMULA

import hierlmm as hl


@pytest.fixture(scope="session")
def sexes(dental_reml):
    return dental_reml


@pytest.fixture(scope="session")
def males(dental):
    own = dental[dental["sex"] == "Male"]
    return {
        "ri": FORMULA("distance ~ time + (1 | subject)", own).fit_reml(),
        "rirs": FORMULA("distance ~ time + (1 + time | subject)", own).fit_reml(),
    }


@pytest.fixture(scope="session")
def numeric_data():
    """Slopes that depend on a number and on a 0/1 column of the subject."""
    rng = np.random.default_rng(4)
    J, n = 60, 5
    s, t = np.repeat(np.arange(J), n), np.tile(np.arange(float(n)), J)
    iq, g = rng.normal(100.0, 15.0, J), rng.integers(0, 2, J)
    slope = 1.0 + 0.02 * (iq - 100.0) + 0.5 * g + 0.3 * rng.normal(size=J)
    y = 10.0 + 0.1 * (iq[s] - 100.0) + slope[s] * t + rng.normal(size=J)[s] + rng.normal(size=J * n)
    return pd.DataFrame({"id": s, "t": t, "iq": iq[s], "g": g[s], "y": y})


@pytest.fixture(scope="session")
def numeric(numeric_data):
    return FORMULA("y ~ t * iq * g + (1 + t | id)", numeric_data).fit_reml()


@pytest.fixture(scope="session")
def singular(numeric_data):
    """Subjects whose own least-squares lines are all the same: both variances are estimated as zero."""
    rng = np.random.default_rng(5)
    data = numeric_data.assign(y=10.0 + numeric_data["t"] + rng.normal(size=len(numeric_data)))
    for _, rows in data.groupby("id").groups.items():
        line = np.polyfit(data.loc[rows, "t"], data.loc[rows, "y"], 1)
        data.loc[rows, "y"] += 10.0 + data.loc[rows, "t"] - np.polyval(line, data.loc[rows, "t"])
    return FORMULA("y ~ t + (1 + t | id)", data).fit_reml()


@pytest.fixture(scope="session")
def posterior(dental):
    model = FORMULA("distance ~ sex * time + (1 + time | subject)", dental)
    return model.fit(draws=500, tune=500, chains=4, seed=3, progressbar=False)


@pytest.fixture(scope="session")
def all_fits(dental, sleepstudy, sexes, males, numeric, numeric_data, singular, posterior):
    formulas = [
        ("log(distance) ~ sex * time + (1 + time | subject)", dental),
        ("distance ~ sex * ns(time, 2) + offset(time / 2) + (1 | subject)", dental),
        ("distance ~ 0 + sex:C(time) + (1 | subject)", dental),
        ("distance ~ sex * age + (1 + age || subject)", dental),
        ("reaction ~ days + (1 + days | subject)", sleepstudy),
        ("y ~ t + bs(iq, df=4) + (1 + t | id)", numeric_data),
        ("np.sqrt(y) ~ t + I(t ** 2) + (1 | id)", numeric_data.assign(y=numeric_data["y"].abs())),
    ]
    fits = {f: FORMULA(f, data).fit_reml() for f, data in formulas}
    fits |= {"sexes": sexes, "numeric": numeric, "singular": singular, "NUTS": posterior, **males}
    model = FORMULA("distance ~ sex * time + (1 | subject)", dental)
    fits["GEE"] = model.fit_gee()
    marginal = hl.MarginalModel(
        "distance ~ sex * time", correlation=hl.CompoundSymmetry(), subject="subject", data=dental
    )
    fits["GLS"] = marginal.fit_reml()
    fits["ML"] = model.fit_ml()
    fits["identity"] = FORMULA("y ~ t + (1 + t | id)", numeric_data, covariance="identity").fit_reml()
    fits["serial"] = FORMULA(
        "y ~ t + (1 | id)", numeric_data, residual=hl.AR1(), residual_variance=hl.VarIdent("g")
    ).fit_reml()
    return fits
