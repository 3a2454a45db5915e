"""Models and fits that several files of this room look at, made once."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from structures_by_definition import build

import hierlmm as hl
from hierlmm.errors import FitWarning


@pytest.fixture(scope="session")
def irregular():
    """Fourteen subjects with one to six rows at times of their own; covariates far from zero; an offset."""
    rng = np.random.default_rng(11)
    counts = np.array([1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 6])
    subject = np.repeat(np.arange(14), counts)
    n = len(subject)
    frame = pd.DataFrame({"subject": subject, "t": rng.normal(8, 2, n), "u": rng.normal(-3, 0.5, n)})
    frame["group"] = np.array(["a", "b", "c"])[subject % 3]
    frame["w"] = rng.normal(size=14)[subject]
    frame["start"] = rng.normal(100, 5, n)
    b = rng.normal(size=(14, 2)) @ np.array([[6.0, 0.0], [1.0, 1.5]])
    frame["y"] = 40 + 3 * frame["t"] + b[subject, 0] + b[subject, 1] * frame["t"] + rng.normal(0, 4, n)
    return frame


@pytest.fixture(scope="session")
def range_and_intercept(thirty):
    return build(thirty, hl.Exponential("t"), None, 1, "y ~ t")


@pytest.fixture(scope="session")
def fitted(range_and_intercept):
    """A random intercept beside exponential decay."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        return range_and_intercept.fit(draws=1000, seed=3, progressbar=False)


@pytest.fixture(scope="session")
def marginal(thirty):
    """Autoregression with a nugget, and an SD for each group."""
    return build(thirty, hl.AR1("occasion", nugget=True), hl.VarIdent("group"), 0, "y ~ t")


@pytest.fixture(scope="session")
def fitted_marginal(marginal):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        return marginal.fit(draws=1000, seed=3, progressbar=False)
