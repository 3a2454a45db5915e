"""The room of simulated studies: who leaves, what the estimators say, and what many studies say."""

from __future__ import annotations

import numpy as np
import pytest
from rooms import run

import hierlmm as hl
from hierlmm.app import study

ROOM = study.ROOM
pytestmark = pytest.mark.filterwarnings("ignore::hierlmm.FitWarning")  # a D on its boundary, at the ends of sliders


def drawn(**given):
    values = ROOM.read(given)
    return values, *study.draw(values)


def test_code_gives_the_numbers():
    values = ROOM.read({})
    found, names = ROOM.numbers(**values), run(ROOM.code(values))
    assert found.data.equals(names["data"]) and found.complete.equals(names["complete"])
    for label, name in (("REML", "reml"), ("ML", "ml"), ("GEE", "gee"), ("GLS", "gls")):
        np.testing.assert_allclose(found.fits[label].beta, names[name].beta, rtol=1e-8)
        np.testing.assert_allclose(found.fits[label].beta_se, names[name].beta_se, rtol=1e-6)


def test_who_leaves_stays_away():
    """Rows are dropped from the end only, everyone is seen once, and about the share asked for has left."""
    for kind in ("mcar", "mar", "mnar"):
        values, complete, data = drawn(subjects=150, dropout=kind, share=0.5)
        times = data.groupby("subject")["time"]
        assert (times.max() + 1 == times.size()).all() and len(times) == 150
        assert abs((times.size() < values["visits"]).mean() - 0.5) < 0.12
        merged = data.merge(complete, on=["subject", "time"], how="left", suffixes=("", "_all"))
        assert (merged["y"] == merged["y_all"]).all()
    _, complete, data = drawn(dropout="none")
    assert data.equals(complete)


def test_why_they_leave():
    """Log odds of leaving rise by `EFFECT` for each SD of the last measurement (MAR), or the next one (MNAR)."""
    from scipy.special import logit

    many = hl.simulate(
        beta={"Intercept": 0.0}, D=[[1.0]], random=["Intercept"], sigma=1.0, n_subjects=40_000, times=[0, 1], seed=3
    )
    y = many["y"].to_numpy().reshape(-1, 2)
    for kind, column, other in (("mcar", None, None), ("mar", 0, 1), ("mnar", 1, 0)):
        data = study.drop_out(many, kind, 0.3, seed=1)
        left = data.groupby("subject").size().to_numpy() == 1
        if column is None:
            assert abs(left.mean() - 0.3) < 0.01 and abs(np.corrcoef(left, y[:, 0])[0, 1]) < 0.02
            continue
        high, low = (left[np.abs(y[:, column] / y[:, column].std() - at) < 0.1].mean() for at in (1.0, -1.0))
        assert logit(high) - logit(low) == pytest.approx(2 * study.EFFECT, abs=0.35)
        # Given what drives it, the other measurement says nothing.
        near = np.abs(y[:, column]) < 0.1
        assert abs(np.corrcoef(left[near], y[near, other])[0, 1]) < 0.06


def test_many_studies():
    """Under MAR, GEE with independence misses the slope and REML does not; the table is that of the estimates."""
    values = ROOM.read({"subjects": 100})
    found = [study.repetition(values, k) for k in range(1, 21)]
    table = study.repeated(values, found)
    slopes = np.array([one["REML"].estimate[1] for one in found])
    assert table.loc["REML", "bias"] == pytest.approx(slopes.mean() - values["slope"])
    assert table.loc["REML", "sd"] == pytest.approx(slopes.std(ddof=1))
    assert abs(table.loc["REML", "bias"]) < 0.06 and table.loc["GEE", "bias"] < -0.15
    assert table.loc["GEE", "coverage"] < 0.3 < 0.6 < table.loc["REML", "coverage"]
    page = study.show_repeated(values, [*found, None])
    assert "20 studies" in page and f"{table.loc['GEE', 'bias']:.3f}" in page
    assert "Stopped before" in study.show_repeated(values, found[:1])


def test_wald_intervals():
    values, _, data = drawn()
    one = study.repetition({**values, "seed": 0}, 1)["REML"]
    fit = hl.TwoLevelModel.from_formula(study.FORMULA, study.draw({**values, "seed": 1})[1]).fit_reml()
    np.testing.assert_allclose(one.estimate, fit.beta, rtol=1e-10)
    np.testing.assert_allclose(one.upper - one.lower, 2 * 1.959963984540054 * fit.beta_se, rtol=1e-8)
    assert one.rows == len(data) == fit.n_obs
