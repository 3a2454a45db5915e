"""Answers of the package are those that were frozen (tests/same_numbers.py says which, and how to freeze anew)."""

from __future__ import annotations

import freezing
import pytest
import same_models
import same_numbers


@pytest.mark.parametrize(
    "entry",
    [pytest.param(e, marks=pytest.mark.slow) if e in same_models.SLOW else e for e in same_numbers.ENTRIES],
)
def test_same_numbers(entry, monkeypatch):
    monkeypatch.delenv("HIERLMM_DATA", raising=False)  # only what ships
    changed = freezing.differences(entry, same_numbers.frozen()[entry], same_numbers.answer(entry))
    assert not changed, "\n".join([f"{len(changed)} answers changed", *changed[:40]])


def test_every_frozen_entry_is_asked():
    assert [*same_numbers.frozen()] == [*same_numbers.ENTRIES]


@pytest.mark.parametrize(
    ("old", "now", "far"),
    [
        (1.0, 1.0 + 1e-8, True),
        (1.0, 1.0 + 1e-11, False),
        ("a 1", "a 2", True),
        ({"#2": [1.0, 1e-12]}, {"#2": [1.0, 2e-12]}, False),
        ({"#2": [1.0, 2.0]}, {"#2": [2.0, 1.0]}, True),
        (None, 1.0, True),
        ("nan", 1.0, True),
    ],
)
def test_the_comparison_itself_sees_a_change(old, now, far):
    assert bool(freezing.differences("e", {"q": old}, {"q": now})) == far


@pytest.mark.parametrize(
    ("now", "good"),
    [
        ("its arguments are formula, family, data\n", True),
        ("its arguments are formula, data\n", True),
        ("its arguments are formula\n", False),
        ("its arguments are data, formula\n", False),
        ("its names are formula, data\n", False),
    ],
)
def test_a_listing_of_arguments_may_only_gain_names(now, good):
    changed = freezing.differences("refusals", {"misspelt": "its arguments are formula, data\n"}, {"misspelt": now})
    assert bool(changed) != good


@pytest.mark.parametrize(
    ("old", "now", "good"),
    [
        ("(self)", "(self, *, digits=None, size=(1, 2))", True),
        ("(self, caption=None)", "(self, caption=None, title=None)", True),
        ("(self)", "(self, title)", False),
        ("(self, a=1)", "(self, a=2)", False),
        ("(self, a)", "(self, *, a=1)", False),
        ("(self, a, *, b)", "(self, a, *, b=1)", True),
        ("(self, a=1, b=2)", "(self, b=2, a=1)", False),
        ("(self, **options)", "(self, *, a=1, size=None)", True),
        ("(self, **options)", "(self)", False),
        ("(self, **options)", "(self, *, a)", False),
    ],
)
def test_a_signature_may_only_gain_arguments_that_have_defaults(old, now, good):
    entry = {"Comparison/to_gt": old}
    assert bool(freezing.differences("public names", entry, {"Comparison/to_gt": now})) != good
