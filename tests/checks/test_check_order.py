"""In which order a subject's rows are taken, and correlations that are ones."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import hierlmm as hl
from hierlmm.checks.material import Material
from hierlmm.checks.residuals import serial


@pytest.fixture(scope="module")
def frame():
    rng = np.random.default_rng(1)
    found = pd.DataFrame({"id": np.repeat(np.arange(30), 5), "k": np.tile(np.arange(5), 30)})
    found["x"] = rng.normal(size=150)
    found["y"] = rng.normal(size=30)[found["id"]] + rng.normal(size=150)
    return found


def fitted(formula, frame):
    return hl.TwoLevelModel.from_formula(formula, frame).fit_ml()


def test_rows_are_in_the_order_of_the_column_that_is_named(frame):
    """Whatever their order in the data."""
    own, mixed = (fitted("y ~ k + x + (1 | id)", data) for data in (frame, frame.sample(frac=1.0, random_state=3)))
    known = [Material(fit, 99, 0, time="k") for fit in (own, mixed)]
    np.testing.assert_allclose(*(m.simulated.ahead[:, 0] for m in known), atol=1e-10)
    assert known[0].order == []
    assert "not known which column is the time (these vary within subjects: 'k', 'x')" in Material(own, 99, 0).order[0]
    assert np.abs(np.subtract(*(Material(fit, 99, 0).simulated.ahead[:, 0] for fit in (own, mixed)))).max() > 0.1
    page = mixed.check(simulations=279, time="k")
    assert "order of" not in page.note
    assert "in the order of the data, because it is not known" in mixed.check(simulations=279).note


def test_what_the_order_rests_on_is_said(frame):
    assert "no column that could be the time" in Material(fitted("y ~ 1 + (1 | id)", frame), 99, 0).order[0]
    assert "C(k)" in Material(fitted("y ~ C(k) + (1 | id)", frame), 99, 0).order[0]
    twice = fitted("y ~ k + (1 | id)", frame.assign(k=frame["k"] // 2))
    assert Material(twice, 99, 0).order == ["Rows of a subject at the same k are taken in the order of the data."]
    assert Material(fitted("y ~ k + (1 | id)", frame), 99, 0).order == []


def test_codes_of_a_factor_that_were_taken_for_the_time_are_named(frame):
    fit = fitted("y ~ C(k) + (1 | id)", frame)
    assert "taken for the time, though the formula takes them for names, C(k)" in str(fit.test_covariance()).replace(
        "\n  ", " "
    ).replace("\n", " ")
    assert "C(k)." not in " ".join(str(fit.test_covariance(time="k")).split())


def test_an_autocorrelation_is_a_correlation():
    """Few subjects have several rows, whose large residuals alternate: products over the mean square were below -1."""
    sizes = np.where(np.arange(60) < 20, 3, 1)
    place = np.concatenate([np.arange(size) for size in sizes])
    r = np.random.default_rng(5).normal(size=(100, 200))
    r[:, 0] = np.where(np.repeat(sizes, sizes) > 1, 6.0 * (-1.0) ** place, 1.0) * (1.0 + 0.1 * r[:, 0])
    one, two = r[place > 0, 0], r[np.flatnonzero(place > 0) - 1, 0]
    assert np.mean(one * two) / np.mean(r[:, 0] ** 2) < -1.0
    design = SimpleNamespace(design=SimpleNamespace(is_gaussian=True))
    found = serial(SimpleNamespace(fit=design, simulated=SimpleNamespace(normalised=r), sizes=sizes))
    assert found.panels[0].curve[1, 0] == pytest.approx(one @ two / np.sqrt(one @ one * (two @ two)), rel=1e-12)
    assert -1.0 <= float(found.slots["observed"]) < -0.9 and found.slots["lag"] == 1
