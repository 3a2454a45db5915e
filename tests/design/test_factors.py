"""Formulas with several grouping factors, and the designs that they make."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hierlmm.datasets import load_dataset
from hierlmm.design.factors import coarser, design_from_factors, relations, reused_labels
from hierlmm.design.formula import parse_formula
from hierlmm.errors import DataError, FormulaError, HierlmmError, SpecificationError
from hierlmm.likelihood.checks import check_design


def build(formula: str, data: pd.DataFrame, **options):
    return design_from_factors(parse_formula(formula, several=True), data, **options)


@pytest.fixture(scope="module")
def pastes():
    return load_dataset("pastes")


@pytest.fixture(scope="module")
def table():
    """Pupils in classes in schools, and raters: unbalanced, classes numbered anew in each school."""
    rng = np.random.default_rng(5)
    rows = pd.DataFrame({"school": rng.integers(0, 6, 150), "rater": rng.integers(0, 7, 150)})
    rows["class"] = rng.integers(0, 10**6, 150) % (2 + rows["school"] % 3)
    rows["x"] = rng.normal(size=150)
    rows["size"] = rows["school"] * 10.0
    rows["y"] = rng.normal(size=150) + rows["x"]
    return rows


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        ("y ~ (1 | a / b / c)", [("a", ("a",)), ("a:b", ("a", "b")), ("a:b:c", ("a", "b", "c"))]),
        ("y ~ (1 | a:b)", [("a:b", ("a", "b"))]),
        ("y ~ (1 | b) + (1 | a)", [("b", ("b",)), ("a", ("a",))]),
        ("y ~ (1 | a:b / c)", [("a:b", ("a", "b")), ("a:b:c", ("a", "b", "c"))]),
        ("y ~ (1 | `the a` / b)", [("the a", ("the a",)), ("the a:b", ("the a", "b"))]),
        ("y ~ (0 + x | a) + (1 | b) + (1 | a)", [("a", ("a",)), ("a", ("a",)), ("b", ("b",))]),
    ],
)
def test_factors_of_a_formula(formula, expected):
    bars = parse_formula(formula, several=True).random
    assert [(bar.subject, bar.columns) for bar in bars] == expected


@pytest.mark.parametrize("grouping", ["a + b", "a * b", "factor(a)", "a:", "/ a", "a / a", "(a / b):c"])
def test_what_is_no_grouping_says_what_one_is(grouping):
    with pytest.raises(FormulaError, match=r"\(1 \| a:b\) for combinations"):
        parse_formula(f"y ~ (1 | {grouping})", several=True)


def test_one_factor_only_points_to_the_other_front_door():
    with pytest.raises(FormulaError, match=r"hl\.MultilevelModel\.from_formula"):
        parse_formula("y ~ (1 | a / b)")


def test_groups_are_those_of_the_columns_and_of_their_combinations(table):
    design = build("y ~ x + (1 + x | school / class) + (0 + x || rater)", table)
    assert design.term == (
        "Intercept | school",
        "x | school",
        "Intercept | school:class",
        "x | school:class",
        "x | rater",
    )
    assert (design.blocks, design.covariance) == (((0, 1), (2, 3), (4,)), "blocks")
    for own, names in zip(design.random, (["school"], ["school", "class"], ["rater"]), strict=True):
        found = own.group.labels[own.group.index].astype(str)
        expected = table[names].astype(str).agg(":".join, axis=1)
        assert found.tolist() == expected.tolist() and own.group.labels.name == ":".join(names)
    one, x = np.ones(150), table["x"].to_numpy()
    np.testing.assert_allclose(design.Z, np.column_stack([one, x, one, x, x]))
    np.testing.assert_allclose(design.X, np.column_stack([one, x]))
    check_design(design)


def test_numbers_in_combined_labels_stand_in_the_order_of_numbers():
    rows = pd.DataFrame({"a": np.repeat([2, 10], 12), "b": np.tile([1, 9, 11], 8), "y": np.arange(24.0) ** 1.3})
    labels = build("y ~ (1 | a / b)", rows).random[1].group.labels
    assert labels.tolist() == ["2:1", "2:9", "2:11", "10:1", "10:9", "10:11"]


def test_factors_that_are_coded_in_two_ways_have_both(table):
    rows = table.assign(kind=np.where(table["x"] > 0, "p", "q"))
    design = build("y ~ kind + (0 + kind | school) + (1 | rater)", rows)
    assert design.term[:2] == ("kind[p] | school", "kind[q] | school") and design.coef == ("Intercept", "kind[T.q]")
    np.testing.assert_allclose(design.Z[:, :2].sum(axis=1), 1.0)


def test_units_are_the_coarsest_factor_or_what_shares_groups(pastes, table):
    nested = build("strength ~ (1 | batch / cask)", pastes)
    assert nested.hierarchy.subject == "batch" and nested.subjects.tolist() == list("ABCDEFGHIJ")
    assert coarser(nested, "batch:cask") == ["batch"] and coarser(nested, "batch") == []
    apart = table[(table["school"] < 3) == (table["rater"] < 4)]
    crossed = build("y ~ (1 | school) + (1 | rater)", apart)
    assert crossed.n_subjects == 2
    halves = [set(own) for _, own in apart.groupby(crossed.subject_index)["school"]]
    assert sorted(map(sorted, halves)) == [[0, 1, 2], [3, 4, 5]]


def test_what_is_nested_and_what_is_crossed_is_said(pastes):
    assert relations(build("strength ~ (1 | batch) + (1 | sample)", pastes)) == ["sample is nested in batch"]
    assert relations(build("strength ~ (1 | batch) + (1 | cask)", pastes)) == [
        "batch and cask are crossed: all 30 combinations occur"
    ]


def test_labels_that_start_anew_in_every_group_are_noticed(table, pastes):
    (said,) = reused_labels(build("y ~ (1 | school) + (1 | class)", table))
    assert (
        "Every school has the first 2 to 4 of the labels of class (0, 1, 2, 3)" in said
        and "(1 | school / class)" in said
    )
    for formula, data in [
        ("y ~ (1 | school / class)", table),
        ("y ~ (1 | school) + (1 | rater)", table),
        ("strength ~ (1 | batch) + (1 | cask)", pastes),  # all of them everywhere: crossed for all that labels say
    ]:
        assert not reused_labels(build(formula, data))


def test_the_formula_of_a_design_makes_it_again(table):
    design = build("y ~ x + (x || school / class) + (1 | rater)", table)
    assert design.hierarchy.formula == "y ~ 1 + x + (1 + x || school) + (1 + x || school:class) + (1 | rater)"
    again = build(design.hierarchy.formula, table)
    assert again.hierarchy == design.hierarchy
    np.testing.assert_array_equal(again.Z, design.Z)


def test_one_combination_alone_is_a_two_level_model(pastes):
    design = build("strength ~ (1 | batch:cask)", pastes)
    assert not design.has_several_factors and design.term == ("Intercept",) and design.n_subjects == 30
    with_hole = pastes.assign(cask=pastes["cask"].astype(object).where(np.arange(60) != 3))
    with pytest.raises(DataError, match="missing values in batch:cask"):
        build("strength ~ (1 | batch:cask)", with_hole)


def test_missing_labels_are_missing_values(table):
    rows = table.assign(rater=table["rater"].where(np.arange(150) > 9))
    with pytest.raises(DataError, match=r"missing values in rater \(10\)"):
        build("y ~ (1 | school) + (1 | rater)", rows)
    with pytest.warns(UserWarning, match="10 of 150 rows"):
        assert build("y ~ (1 | school) + (1 | rater)", rows, missing="drop").n_obs == 140


REFUSED = [
    ("y ~ (1 | school) + (1 | same)", DataError, "'same' with one group"),
    ("y ~ (1 | school) + (1 | row)", DataError, "'row' with as many groups as rows"),
    ("y ~ (1 | school) + (1 | copy)", DataError, "'school' and 'copy'.*same groups"),
    ("y ~ (1 | school / class) + (1 | class:school)", DataError, "'school:class' and 'class:school'"),
    ("y ~ (1 + size | school) + (1 | rater)", SpecificationError, "'size' is constant within every school"),
    ("y ~ (1 | school) + (1 | school) + (1 | rater)", FormulaError, "'Intercept', twice"),
    ("y ~ (1 | gr(school, by = x)) + (1 | rater)", FormulaError, "by = .*beside several grouping factors"),
    ("y ~ (1 | school) + (1 | nowhere)", DataError, "grouping factor 'nowhere'"),
    ("y ~ (1 | y) + (1 | rater)", FormulaError, "as the response and as the grouping"),
    ("y ~ (1 | rater:y) + (1 | rater)", FormulaError, "as the response and as the grouping"),
    ("y ~ (x | most) + (1 | rater)", DataError, "2 random effects .* for each of 75 groups of 'most'"),
    ("y ~ C(school) + (1 | school) + (1 | rater)", DataError, "explain 'Intercept' exactly in each of the 6 groups"),
    ("flat ~ (1 | school) + (1 | rater)", DataError, "reproduces exactly"),
    ("sum ~ (1 | school) + (1 | rater)", DataError, "all factors together leave no remainder"),
    ("y ~ (x + x2 | school) + (1 | rater)", DataError, r"'x2 \| school' follows from the columns before"),
    ("y ~ (1 | a1:a2) + (1 | rater)", DataError, "would both be called 'u:v:w'"),
]


@pytest.mark.parametrize(("formula", "kind", "match"), REFUSED)
def test_what_cannot_be_told_apart_is_refused(formula, kind, match, table):
    rows = table.assign(
        same=1,
        row=np.arange(150),
        copy=table["school"].map("abcdef".__getitem__),
        most=np.arange(150) // 2,
        flat=table["rater"] ** 2.0,
        sum=table["school"] ** 2.0 + np.sqrt(table["rater"]),
        x2=2.0 * table["x"],
        a1=np.where(table["x"] > 0, "u:v", "u"),
        a2=np.where(table["x"] > 0, "w", "v:w"),
    )
    with pytest.raises(HierlmmError, match=f"(?s){match}") as caught:
        check_design(build(formula, rows))
    assert isinstance(caught.value, kind) and caught.value.remedy
