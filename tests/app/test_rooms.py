"""The rooms of the app without a browser: their numbers, pages and code."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from rooms import run

import hierlmm as hl
from hierlmm.app import hierarchy, negative_icc, own_data, shrinkage, study, two_meanings
from hierlmm.app.settings import Choice, Heights, Number

KINDS = (shrinkage.SEPARATE, shrinkage.PARTIAL, shrinkage.POOLED)
ROOMS = {r.ROOM.name: r.ROOM for r in (hierarchy, study, shrinkage, negative_icc, two_meanings, own_data)}


def ends(room):
    """The default, and every setting at its ends with the others as they are."""
    yield {}
    for one in room.settings:
        if isinstance(one, Number):
            yield from ({one.name: one.low}, {one.name: one.high})
        elif isinstance(one, Choice):
            yield from ({one.name: option} for option in list(one.options)[:4])
        else:
            yield from ({one.name: [value] * one.n} for value in (one.low, one.high))


@pytest.mark.filterwarnings("ignore::hierlmm.FitWarning")  # a D on its boundary, at the ends of sliders
@pytest.mark.parametrize("name", ROOMS)
def test_every_setting_at_its_ends_makes_a_page(name):
    room = ROOMS[name]
    for given in ends(room):
        page = room.show(room.numbers(**room.read(given)))
        assert "nan" not in re.sub(r"<[^>]*>", " ", page).lower().split(), given
        for svg in re.findall(r"<svg.*?</svg>", page, re.S):
            ET.fromstring(svg)
            assert "nan" not in svg, given
        ast.parse(room.code(room.read(given)))


@pytest.mark.parametrize("name", ROOMS)
def test_a_room_has_three_questions_and_answers(name):
    texts = ROOMS[name].texts
    assert len(texts["questions"]) == len(texts["answers"]) == 3
    assert texts["title"] and texts["lead"]


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"errors": "ar1", "rho": 0.3, "visits": 4},
        {"errors": "exponential", "spacing": "growing", "sd_slope": 0.5, "correlation": -0.5},
    ],
)
def test_code_of_the_hierarchy(given):
    room = ROOMS["hierarchy"]
    values = room.read(given)
    found, names = room.numbers(**values), run(room.code(values))
    np.testing.assert_allclose(found.V, names["V"], rtol=1e-12)
    np.testing.assert_allclose(found.correlation, names["correlation"], rtol=1e-12)
    assert bool(found.check) == bool(names["check"]) == (not given)
    assert found.pair.same and names["pair"].same
    lines = names["data"].groupby("subject")["time"].count()
    assert (lines == len(found.times)).all() and len(lines) == len(found.truth.subject_coef)


def test_v_by_hand():
    """Variance and covariances written out: sd₀² + (t + s) ρ sd₀ sd₁ + t s sd₁², and σ² on the diagonal."""
    found = hierarchy.numbers(
        **ROOMS["hierarchy"].read({"sd_intercept": 2, "sd_slope": 0.5, "correlation": -0.5, "visits": 3})
    )
    t = np.arange(3.0)
    by_hand = 4.0 - 0.5 * np.add.outer(t, t) + 0.25 * np.outer(t, t) + np.eye(3)
    np.testing.assert_allclose(found.V, by_hand, rtol=1e-12)
    assert found.later and not found.alone
    # Counted from the last visit, at t = 2, the intercept is the line's height there.
    assert found.later.D.iloc[0, 0] == pytest.approx(4.0 - 2.0 + 1.0)
    assert hierarchy.numbers(**ROOMS["hierarchy"].read({"sd_slope": 0})).alone


def test_code_of_shrinkage():
    room = ROOMS["shrinkage"]
    for given in ({}, {"child": "3", "points": "20,22,21,30"}):
        values = room.read(given)
        found, names = room.numbers(**values), run(room.code(values))
        for kind, name in (
            (shrinkage.SEPARATE, "separate"),
            (shrinkage.PARTIAL, "partial"),
            (shrinkage.POOLED, "pooled"),
        ):
            np.testing.assert_allclose(found.kinds[kind], names[name], rtol=1e-10)


def test_a_moved_point_moves_the_child():
    room = ROOMS["shrinkage"]
    before = room.numbers(**room.read({"child": "15"}))
    points = [*before.y[:-1], before.y[-1] + 6]
    after = room.numbers(**room.read({"child": "15", "points": points}))
    slopes = [float(a.own.loc[kind, "time"]) for kind in KINDS for a in (before, after)]
    moved = np.diff(np.reshape(slopes, (3, 2)), axis=1).ravel()
    assert moved[0] == pytest.approx(6 * 3 / 20)  # Σ(t - t̄)² = 20, and the last time is 3 from the mean
    assert moved[0] > moved[1] > moved[2] > 0
    assert moved[2] == pytest.approx(moved[0] / 27)


def test_code_of_negative_icc():
    room = ROOMS["negative_icc"]
    values = room.read({})
    found, names = room.numbers(**values), run(room.code(values))
    np.testing.assert_allclose(found.y, names["y"], rtol=1e-12)
    for row, fit in zip(found.table.index, (names["mixed"], names["free"]), strict=True):
        assert found.table.loc[row, "loglik"] == pytest.approx(fit.loglik, abs=1e-8)
        assert found.table.loc[row, "time"] == pytest.approx(fit.beta_se["time"], rel=1e-6)
    assert not found.check and found.check.is_covariance


def test_one_v_two_models():
    """As the texts say: one fit where the correlation is positive; below zero the intercept stops and errs."""
    room = ROOMS["negative_icc"]
    for seed in range(1, 6):
        same = room.numbers(**room.read({"icc": 0.5, "seed": seed})).table
        assert same["loglik"].iloc[0] == pytest.approx(same["loglik"].iloc[1], abs=1e-6)
        table = room.numbers(**room.read({"icc": -0.2, "seed": seed})).table
        assert table["icc"].iloc[0] == 0.0 > table["icc"].iloc[1]
        assert table["loglik"].iloc[1] > table["loglik"].iloc[0] + 0.1
        assert table["Intercept"].iloc[0] > table["Intercept"].iloc[1]
        assert table["time"].iloc[0] < table["time"].iloc[1]


def test_a_correlation_that_no_covariance_has():
    room = ROOMS["negative_icc"]
    for icc, visits, possible in ((-0.4, 4, False), (-0.4, 3, True), (-0.35, 4, False), (-0.3, 4, True)):
        found = room.numbers(**room.read({"icc": icc, "visits": visits}))
        assert (found.y is not None) == found.check.is_covariance == possible
        assert ("There is no such V" in room.show(found)) == (not possible)


def test_code_of_two_meanings():
    room = ROOMS["two_meanings"]
    for given in ({}, {"link": "probit", "sd": 3, "intercept": 1}):
        values = room.read(given)
        found, names = room.numbers(**values), run(room.code(values))
        np.testing.assert_allclose(found.conditional, names["conditional"], rtol=1e-12)
        np.testing.assert_allclose(found.marginal, names["marginal"], rtol=1e-12)
        assert found.marginal_slope == pytest.approx(names["marginal_slope"], rel=1e-12)


def test_mean_curves():
    """Probit has the mean in closed form; without differences between subjects the two meanings are one."""
    room = ROOMS["two_meanings"]
    probit = room.numbers(**room.read({"link": "probit", "sd": 2, "slope": 1.5}))
    assert probit.marginal_slope == pytest.approx(1.5 / np.sqrt(5.0))
    alike = room.numbers(**room.read({"sd": 0}))
    np.testing.assert_allclose(alike.marginal, alike.conditional, rtol=1e-12)


@pytest.mark.parametrize("given", ["", "abc", "nan", "inf", "-inf", "1e999", None, [], {}, True, "9" * 500, "١"])
def test_whatever_is_read_is_possible(given):
    number = Number("n", "n", 0.2, 3.0, 0.1, 1.0)
    assert 0.2 <= number.read(given) <= 3.0
    assert Choice("c", "c", {"a": "A"}, "a").read(given) == "a"
    heights = Heights("h", 2, 0.0, 1.0)
    assert heights.read(given) == ()
    assert heights.read([given, 0.5]) in {(), (0.0, 0.5), (1.0, 0.5)}


def test_numbers_are_put_on_their_steps():
    number = Number("n", "n", 0.2, 3.0, 0.1, 1.0)
    assert (number.read("0.7000000001"), number.read(99), number.read("-5")) == (0.7, 3.0, 0.2)
    whole = Number("k", "k", 3, 8, 1, 5)
    assert whole.read("4.4") == 4 and isinstance(whole.read("4.4"), int)
    assert Heights("h", 2, 0.0, 9.0).read("1,99") == (1.0, 9.0)


def test_rooms_need_no_sampler_and_no_server():
    """What the static pages will run on: no NUTS, no matplotlib, no server."""
    code = (
        "import sys\nfrom hierlmm.app import hierarchy, negative_icc, shrinkage, study, two_meanings\n"
        "for m in (hierarchy, negative_icc, shrinkage, two_meanings): m.ROOM.show(m.ROOM.numbers(**m.ROOM.read({})))\n"
        "print(sorted({'pymc', 'nutpie', 'arviz', 'matplotlib', 'shiny', 'statsmodels'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.strip() == "[]"


def test_texts_name_what_exists():
    """Every name of the package in code and texts is public."""
    text = (Path(hl.__file__).parent / "app" / "sentences.toml").read_text(encoding="utf-8")
    for name in re.findall(r"\bhl\.(\w+)", text):
        assert hasattr(hl, name), name
