"""Subjects that drop out because of what was measured before (MAR) are no fault of a model that made the data."""

import numpy as np
import pandas as pd
import pytest

import hierlmm as hl
from hierlmm.checks.material import Material
from hierlmm.checks.registry import SIMULATED


def left(y, rng, level, slope):
    """Rows up to the first after which a subject leaves, more likely the higher its response: (J, K)."""
    leaves = rng.random(y.shape) < 1.0 / (1.0 + np.exp(level + slope * y))
    return np.cumsum(leaves, axis=1) - leaves == 0


def marginal(seed):
    """Two arms at five visits, unstructured; four of ten subjects complete."""
    rng = np.random.default_rng(seed)
    sd, lag = np.array([4.0, 4.5, 5.0, 5.5, 6.0]), np.abs(np.subtract.outer(range(5), range(5)))
    y = rng.multivariate_normal(np.zeros(5), np.outer(sd, sd) * 0.7**lag, 150)
    frame, here = long(y, left(y, rng, 1.8, 0.3))
    visit = hl.UnstructuredHeterogeneous("visit")
    return hl.MarginalModel("y ~ arm * visit", subject="id", data=frame[here], correlation=visit).fit_reml()


def slopes(seed):
    """Random intercepts and slopes at six times."""
    rng = np.random.default_rng(seed)
    y = 2.0 * rng.normal(size=(100, 1)) + np.arange(6) * (0.5 + 0.6 * rng.normal(size=(100, 1)))
    y += rng.normal(size=y.shape)
    frame, here = long(y, left(y, rng, 1.2, 0.6))
    return hl.TwoLevelModel.from_formula("y ~ t * arm + (t | id)", frame[here]).fit_reml()


def long(y, here):
    J, K = y.shape
    frame = pd.DataFrame({"id": np.repeat(np.arange(J), K), "t": np.tile(np.arange(float(K)), J), "y": y.ravel()})
    frame["arm"], frame["visit"] = np.where(frame["id"] % 2, "new", "old"), "V" + frame["t"].astype(int).astype(str)
    return frame, here.ravel()


@pytest.mark.parametrize("design", [marginal, slopes])
def test_drop_out_at_random_is_no_alarm(design):
    """Residuals around the line and ranks among new subjects had p-values of 0.01 in nearly all such data sets."""
    p = {name: [] for name in SIMULATED}
    for seed in range(5):
        material = Material(design(seed), 199, seed)
        for name, look in SIMULATED.items():
            p[name].append(getattr(look(material), "p", np.nan))
    for name in ("mean", "ranks", "level2", "effect_normality", "spread"):
        assert np.isnan(p[name]).all() or np.median(p[name]) > 0.05, (name, p[name])


def test_a_curve_is_found_beside_drop_out():
    rng = np.random.default_rng(2)
    y = 2.0 * rng.normal(size=(100, 1)) + np.arange(6) * 0.5 + rng.normal(size=(100, 6))
    here = left(y, rng, 1.2, 0.6)
    frame, here = long(y - 0.35 * (np.arange(6) - 2.5) ** 2, here)
    page = hl.TwoLevelModel.from_formula("y ~ t * arm + (1 | id)", frame[here]).fit_reml().check(simulations=279)
    assert page["mean"].severity == "act" and "along t" in page["mean"].seen
