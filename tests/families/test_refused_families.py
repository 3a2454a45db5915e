"""Responses and arguments of families that are refused, in words, or read as they are meant."""

import numpy as np
import pandas as pd
import pytest

import hierlmm as hl
from hierlmm.errors import DataError, SpecificationError

G = np.repeat(np.arange(10), 4)


def model(y, family, **options):
    return hl.TwoLevelModel.from_formula(
        "y ~ 1 + (1 | g)", pd.DataFrame({"y": y, "g": G, "n": 9.0}), family=family, **options
    )


def pains(**options):
    labels = np.array(["none", "some", "much"])[np.random.default_rng(1).integers(3, size=40)]
    return pd.Categorical(labels, **options)


def test_a_factor_without_an_order_is_no_ordinal_response():
    with pytest.raises(DataError, match=r"(?s)'y', a factor without an order .*'much', 'none', 'some'.*ordered=True"):
        model(pains(), "ordinal")
    order = ["none", "some", "much"]
    for used in (pains(categories=order, ordered=True), pains(categories=[*order, "worst"], ordered=True)):
        assert list(model(used, "ordinal").design.rows.categories) == order
    numbers = pd.Categorical(np.random.default_rng(1).integers(3, size=40) * 10, categories=[20, 0, 10])
    assert list(model(numbers, "ordinal").design.rows.categories) == [0, 10, 20]


def test_an_enum_of_polars_has_an_order():
    polars = pytest.importorskip("polars")
    order = ["none", "some", "much"]
    data = polars.DataFrame({"y": polars.Series(list(pains()), dtype=polars.Enum(order)), "g": G})
    made = hl.TwoLevelModel.from_formula("y ~ 1 + (1 | g)", data, family="ordinal")
    assert list(made.design.rows.categories) == order


def test_levels_that_do_not_occur_are_none_of_a_yes_or_no():
    answers = np.where(np.arange(40) % 3 == 0, "yes", "no")
    design = model(pd.Categorical(answers, categories=["no", "maybe", "yes"]), "bernoulli").design
    np.testing.assert_array_equal(design.y, answers == "yes")
    with pytest.raises(DataError, match="3 levels"):
        model(np.array(["no", "maybe", "yes", "no"] * 10), "bernoulli")


def test_infinite_numbers_of_trials():
    y = np.random.default_rng(1).integers(5, size=40)
    with pytest.raises(DataError, match="trials' with infinite values"):
        hl.TwoLevelModel.from_formula(
            "y ~ 1 + (1 | g)",
            pd.DataFrame({"y": y, "g": G, "n": np.where(np.arange(40) == 3, np.inf, 9.0)}),
            family="binomial",
            trials="n",
        )


@pytest.mark.parametrize("nu", ["4", True, np.nan, 0, -1, np.inf])
def test_degrees_of_freedom_that_are_none(nu):
    with pytest.raises(SpecificationError, match=r"(?s)Received: StudentT\(nu=.*degrees of freedom lie between"):
        hl.families.StudentT(nu=nu)
