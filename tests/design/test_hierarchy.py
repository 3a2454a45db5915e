"""Two ways to say one model: level 1 and level 2, or one combined formula; each turns into the other."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hierlmm as hl
from hierlmm.design.build import design_from_formula, design_from_hierarchy
from hierlmm.design.formula import parse_formula, term_name
from hierlmm.design.hierarchy import hierarchy_from_levels
from hierlmm.errors import FormulaError, SpecificationError

RNG = np.random.default_rng(7)
SUBJECTS, ROWS = 24, 6
DATA = pd.DataFrame(
    {
        "g": np.repeat(np.arange(SUBJECTS), ROWS),
        "t": np.tile(np.arange(ROWS, dtype=float), SUBJECTS),
        "x": RNG.normal(size=SUBJECTS * ROWS),
        "cond": np.tile(["a", "b", "c"], SUBJECTS * ROWS // 3),
        "w": np.repeat(RNG.normal(size=SUBJECTS), ROWS),
        "sex": np.repeat(np.where(np.arange(SUBJECTS) % 2, "F", "M"), ROWS),
        "arm": np.repeat(np.array(["p", "q", "r"])[np.arange(SUBJECTS) % 3], ROWS),
        "y": RNG.normal(size=SUBJECTS * ROWS),
    }
)


def from_levels(level1, level2=None, random=None, covariance="unstructured", data=DATA):
    return hl.TwoLevelModel(level1, level2, subject="g", data=data, random=random, covariance=covariance)


def from_formula(formula, data=DATA, covariance=None):
    return hl.TwoLevelModel.from_formula(formula, data, covariance=covariance)


def blocks_of(model):
    """``random=`` that says which effects correlate."""
    return [[term_name(t) for t in block.terms] for block in model.hierarchy.blocks]


def same_columns(a, b):
    """Equal up to the order of columns and of the factors in a column's name."""

    def by_name(design):
        return {frozenset(c.parts): design.X[:, i] for i, c in enumerate(design.fixed_columns)}

    left, right = by_name(a), by_name(b)
    assert left.keys() == right.keys()
    for name, column in left.items():
        np.testing.assert_allclose(right[name], column)


LEVEL1 = st.lists(
    st.sampled_from(["t", "x", "I(t ** 2)", "poly(x, 2)", "center(t)", "cond", "t:x"]), unique=True, max_size=3
)
LEVEL2 = st.sampled_from(["1", "sex", "w", "arm", "sex + w", "sex * w", "sex + arm", "w + I(w ** 2)"])


@st.composite
def hierarchies(draw):
    """A random hierarchy: level-1 terms, level-2 formulas, which coefficients vary, and how."""
    terms = draw(LEVEL1)
    intercept = draw(st.booleans()) or not terms or "cond" in terms
    level1 = "y ~ " + " + ".join(["1" if intercept else "0", *terms])
    names = (["Intercept"] if intercept else []) + terms
    level2 = {name: draw(LEVEL2) for name in draw(st.lists(st.sampled_from(names), unique=True))}
    if "cond" in terms:  # the intercept stands for its reference level
        level2["cond"] = level2["Intercept"] = draw(LEVEL2)
    chosen = draw(st.lists(st.sampled_from(names), unique=True, min_size=1, max_size=2))
    if "cond" in chosen:  # coded against the intercept, so the two vary together
        chosen = ["Intercept", "cond"]
    split = draw(st.booleans()) and len(chosen) > 1 and "cond" not in chosen
    covariance = "unstructured" if split else draw(st.sampled_from(["unstructured", "diagonal", "identity"]))
    return level1, level2, [[c] for c in chosen] if split else chosen, covariance


def design_of(level1, level2, random, covariance):
    hierarchy = hierarchy_from_levels(level1, level2, subject="g", random=random, covariance=covariance)
    return design_from_hierarchy(hierarchy, DATA)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(hierarchies())
def test_formula_and_levels_turn_into_each_other(spec):
    first = design_of(*spec)
    hierarchy = first.hierarchy
    override = "identity" if hierarchy.covariance == "identity" else None  # a formula has no sign for it
    second = design_from_formula(parse_formula(hierarchy.formula), DATA, covariance=override)
    assert second.hierarchy == hierarchy
    assert (second.coef, second.term, second.level1, second.blocks) == (
        first.coef,
        first.term,
        first.level1,
        first.blocks,
    )
    np.testing.assert_array_equal(second.X, first.X)
    np.testing.assert_array_equal(second.Z, first.Z)
    names = [[term_name(t) for t in block.terms] for block in hierarchy.blocks]
    structure = "unstructured" if hierarchy.covariance == "blocks" else hierarchy.covariance
    third = design_of(second.hierarchy.level1, second.hierarchy.level2, names, structure)
    assert third.hierarchy == hierarchy
    np.testing.assert_array_equal(third.X, first.X)
    np.testing.assert_array_equal(third.W, first.W)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(hierarchies())
def test_every_column_is_a_level_1_column_times_a_level_2_value(spec):
    design = design_of(*spec)
    for c in range(len(design.coef)):
        product = design.X1[:, design.coef_level1[c]] * design.W[design.subject_index, c]
        np.testing.assert_array_equal(design.X[:, c], product)
    np.testing.assert_array_equal(design.Z, design.X1[:, design.term_level1])
    assert design.Z.shape == (len(DATA), len(design.term))  # never expanded to J * q columns


@pytest.mark.parametrize(
    "formula",
    [
        "y ~ t + (t | g)",
        "y ~ sex * t + (t | g)",
        "y ~ t * sex + (t || g)",
        "y ~ sex * t * w + (1 | g) + (0 + t | g)",
        "y ~ sex / t + (t | g)",
        "y ~ t / sex + (t | g)",
        "y ~ 0 + t + (0 + t | g)",
        "y ~ 0 + t + (t | g)",
        "y ~ 1 + (t | g)",
        "y ~ (sex + arm + w)**2 + t + (1 | g)",
        "y ~ cond * sex + (cond | g)",
        "y ~ 0 + cond + (0 + cond | g)",
        "y ~ 0 + cond + cond:sex + (0 + cond || g)",
        "y ~ poly(t, 2) * sex + (poly(t, 2) | g)",
        "y ~ bs(t, df=4) * sex + (1 | g)",
        "y ~ t + x + (t + x | g) + (0 + cond | g)",
        "y ~ t * x * sex + (t + x | g)",
        "y ~ C(sex, contr.sum) * scale(t) + (scale(t) | g)",
        "y ~ t + offset(log(exp(x))) + (t | g)",
        "y ~ t:sex + sex + (1 | g)",
        "log(I(y ** 2)) ~ t + sex:t + (t | g)",
    ],
)
def test_a_formula_comes_back_from_its_levels(formula):
    model = from_formula(formula)
    structure = "unstructured" if model.covariance == "blocks" else model.covariance
    again = from_levels(model.level1, model.level2, blocks_of(model), structure)
    assert again.hierarchy == model.hierarchy
    same_columns(model.design, again.design)
    np.testing.assert_allclose(again.design.Z, model.design.Z)
    assert again.design.term == model.design.term
    assert again.design.blocks == model.design.blocks
    from_text = from_formula(model.formula)
    assert from_text.hierarchy == model.hierarchy
    assert from_text.design.coef == model.design.coef
    np.testing.assert_array_equal(from_text.design.X, model.design.X)


def test_the_two_forms_in_words(dental):
    model = hl.TwoLevelModel(
        "distance ~ age", {"Intercept": "sex", "age": "sex"}, subject="subject", data=dental, random=["Intercept"]
    )
    assert model.formula == "distance ~ 1 + sex + age + sex:age + (1 | subject)"
    combined = hl.TwoLevelModel.from_formula("distance ~ sex * age + (1 | subject)", dental)
    assert combined.level1 == "distance ~ age"
    assert combined.level2 == {"Intercept": "sex", "age": "sex"}
    assert combined.random == ["Intercept"]
    assert combined.hierarchy == model.hierarchy
    assert combined.design.coef == model.design.coef == ("Intercept", "sex[T.Male]", "age", "sex[T.Male]:age")


def test_which_level_a_covariate_lives_on_is_read_off_the_data():
    moved = DATA.assign(w=DATA["w"] + (np.arange(len(DATA)) == 50))
    assert from_formula("y ~ w + (1 | g)").level2 == {"Intercept": "w"}
    model = from_formula("y ~ w + (1 | g)", moved)
    assert (model.level1, model.level2) == ("y ~ w", {"Intercept": "1", "w": "1"})


@pytest.mark.parametrize(
    ("one", "other", "covariance"),
    [
        ("(t || g)", "(1 | g) + (0 + t | g)", "diagonal"),
        ("(t || g)", "(1 | g) + (t - 1 | g)", "diagonal"),
        ("(t | g)", "(1 + t | g)", "unstructured"),
        ("(1 || g)", "(1 | g)", "unstructured"),
        ("(t + x || g)", "(1 | g) + (0 + t | g) + (0 + x | g)", "diagonal"),
        ("(t || g)", "(0 + t | g) + (1 | g)", "diagonal"),
        ("(t + x | g)", "(t + 0 + 1 + x | g)", "unstructured"),
    ],
)
def test_spellings_of_one_covariance_structure(one, other, covariance):
    a, b = from_formula(f"y ~ t + x + {one}"), from_formula(f"y ~ t + x + {other}")
    assert a.hierarchy == b.hierarchy
    assert a.covariance == b.covariance == covariance


def test_blocks_correlate_within_and_not_between():
    model = from_levels("y ~ t + x", random=[["Intercept", "t"], ["x"]])
    assert model.design.blocks == ((0, 1), (2,))
    assert model.covariance == "blocks"
    assert model.formula == "y ~ 1 + t + x + (1 + t | g) + (0 + x | g)"
    assert from_formula("y ~ t + x + (cond || g)").design.blocks == ((0,), (1,), (2,))


@pytest.mark.parametrize("random", [["t", "Intercept"], [["t"], ["Intercept"]], [["t", "Intercept"], ["x"]]])
def test_the_order_in_which_random_effects_are_named_does_not_matter(random):
    flipped = random[::-1] if isinstance(random[0], str) else [names[::-1] for names in random[::-1]]
    model = from_levels("y ~ t + x", random=random)
    assert (
        model.hierarchy == from_levels("y ~ t + x", random=flipped).hierarchy == from_formula(model.formula).hierarchy
    )
    assert model.design.term[:2] == ("Intercept", "t")


def test_a_factor_keeps_its_coding_when_bars_are_rewritten():
    """``(1 + cond || g)`` has two effects of cond, ``(1 | g) + (0 + cond || g)`` three."""
    model = from_formula("y ~ t + (1 | g) + (0 + cond || g)")
    assert model.design.term == ("Intercept", "cond[a]", "cond[b]", "cond[c]")
    assert from_formula(model.formula).design.term == model.design.term
    assert from_formula("y ~ t + (cond || g)").design.term == ("Intercept", "cond[T.b]", "cond[T.c]")


@pytest.mark.parametrize("bars", ["(t | g)", "(t || g)", "(1 | g) + (0 + t | g)", "(0 + t | g) + (1 | g)"])
@pytest.mark.parametrize("covariance", ["unstructured", "diagonal", "identity"])
def test_the_covariance_overrides_the_bars(bars, covariance):
    model = from_formula(f"y ~ t + {bars}", covariance=covariance)
    assert model.hierarchy == from_levels("y ~ t", covariance=covariance).hierarchy
    assert model.design.blocks == (((0, 1),) if covariance == "unstructured" else ((0,), (1,)))


def test_identity_is_kept_apart_from_diagonal():
    model = from_levels("y ~ t", covariance="identity")
    assert model.covariance == "identity"
    assert from_formula("y ~ t + (t | g)", covariance="identity").hierarchy == model.hierarchy


@pytest.mark.parametrize("key", ["1", "(Intercept)", "intercept", "Intercept", " Intercept "])
def test_the_intercept_has_aliases(key):
    assert from_levels("y ~ t", {key: "sex"}).level2 == {"Intercept": "sex", "t": "1"}


def test_keys_are_matched_as_terms_not_as_text():
    model = from_levels("y ~ I(t**2) + `odd name`", {"I(t**2)": "sex", "odd name": "w"}, ["odd name"], data=ODD)
    assert model.level2 == {"Intercept": "1", "I(t ** 2)": "sex", "`odd name`": "w"}
    assert model.random == ["`odd name`"]
    assert model.design.term == ("odd name",)


ODD = DATA.rename(columns={"x": "odd name"})


def test_level_2_may_code_a_factor_in_full():
    model = from_levels("y ~ t", {"t": "0 + sex"})
    assert model.design.coef == ("Intercept", "sex[F]:t", "sex[M]:t")
    assert from_levels("y ~ t", {"Intercept": "0 + sex"}).design.coef == ("sex[F]", "sex[M]", "t")


@pytest.mark.parametrize("level2", [{"cond": "sex"}, {"cond": "0 + sex"}, {"Intercept": "w", "cond": "sex * w"}])
def test_a_factor_at_level_1_cannot_smuggle_a_covariate_into_the_intercept(level2):
    """``1 + cond + sex:cond`` has an effect of sex at the reference level of cond; "Intercept" says there is none."""
    with pytest.raises(SpecificationError, match=r"the intercept would depend on 'sex'[\s\S]*I\(cond == 'b'\)"):
        from_levels("y ~ cond", level2)
    assert from_levels("y ~ cond", {"Intercept": "sex", "cond": "sex"}).design.coef[-1] == "sex[T.M]:cond[T.c]"
    assert from_levels("y ~ 0 + cond", {"cond": "sex"}).design.coef[-1] == "sex[T.M]:cond[c]"
    numeric = from_levels("y ~ I(cond == 'b') + I(cond == 'c')", {"I(cond == 'b')": "sex", "I(cond == 'c')": "sex"})
    assert len(numeric.design.coef) == 5


def test_level_2_may_leave_a_coefficient_without_a_fixed_part():
    model = from_levels("y ~ t", {"t": "0"})
    assert model.design.coef == ("Intercept",)
    assert model.design.term == ("Intercept", "t")
    assert model.level2 == {"Intercept": "1", "t": "0"}


def test_level_1_without_an_intercept():
    model = from_levels("y ~ 0 + t", {"t": "sex"})
    assert model.design.coef == ("t", "sex[T.M]:t")
    assert model.design.term == ("t",)
    assert model.level1 == "y ~ 0 + t"


def test_a_slope_may_vary_alone():
    model = from_levels("y ~ t", random=["t"])
    assert model.formula == "y ~ 1 + t + (0 + t | g)"
    assert from_levels("y ~ t", random="t").hierarchy == model.hierarchy


@pytest.mark.parametrize(
    ("arguments", "error", "fragment"),
    [
        ({"level2": "sex"}, SpecificationError, "level 2 needs one formula for each level-1 coefficient"),
        ({"level2": [("Intercept", "sex")]}, SpecificationError, "level 2 needs one formula for each level-1 coeff"),
        ({"level2": {"time": "sex"}}, SpecificationError, "level 1 ('y ~ t') has no coefficient of this name"),
        ({"level2": {"tt": "sex"}}, SpecificationError, "Did you mean 't'?"),
        ({"level2": {"1": "sex", "Intercept": "w"}}, SpecificationError, "level2 with two formulas for 'Intercept'"),
        ({"level2": {"t": None}}, SpecificationError, "a level-2 formula is text"),
        ({"level2": {"t": "t ~ sex"}}, FormulaError, "a right-hand side without '~' or '|'"),
        ({"level2": {"t": "(1 | g)"}}, FormulaError, "a right-hand side without '~' or '|'"),
        ({"level2": {"t": "sex +"}}, FormulaError, "cannot be read"),
        ({"level2": {"t": "offset(w)"}}, FormulaError, "add it at the top of the formula (level 1)"),
        ({"level2": {"t": "sxe"}}, FormulaError, "there is no column named 'sxe'. Did you mean 'sex'?"),
        ({"level1": "y ~ t + (1 | g)"}, FormulaError, "name the coefficients that vary with random=[...]"),
        ({"level1": "y ~ t + sex"}, SpecificationError, "it is constant within every g"),
        ({"random": []}, SpecificationError, "needs at least one coefficient that varies"),
        ({"random": [[]]}, SpecificationError, "needs at least one coefficient that varies"),
        ({"random": ["time"]}, SpecificationError, "use names of level-1 terms: Intercept, t"),
        ({"random": ["t", "t"]}, FormulaError, "the random effect 't', twice"),
        ({"random": [["Intercept", "t"], ["t"]]}, FormulaError, "the random effect 't', twice"),
        ({"covariance": "diag"}, SpecificationError, "not a structure of D"),
    ],
)
def test_hierarchies_that_do_not_fit_together(arguments, error, fragment):
    with pytest.raises(error) as caught:
        from_levels(**{"level1": "y ~ t", **arguments})
    assert fragment in str(caught.value)
    assert all([caught.value.received, caught.value.reason, caught.value.remedy, caught.value.see])


@pytest.mark.parametrize(
    ("formula", "error", "fragment"),
    [
        ("y ~ t", FormulaError, "the formula has no random effects"),
        ("body weight $ ~ t + (1 | g)", FormulaError, "goes into backticks"),
        ("y ~ t + (1 | g) + (1 | sex)", FormulaError, "random effects for g and sex"),
        ("y ~ t + (1 | g) + (t | g)", FormulaError, "the random effect 'Intercept', twice"),
        ("y ~ t + (w | g)", SpecificationError, "'w' is constant within every g"),
        ("y ~ sex * t + (sex * t | g)", SpecificationError, "a random effect of 'sex' by 'g'"),
        ("y ~ cond + (0 + cond | g)", SpecificationError, "the hierarchy needs one set of level-1 coefficients"),
        ("y ~ y + (1 | g)", FormulaError, "'y' on both sides of the formula"),
        ("log(y) ~ I(y + 1) + (1 | g)", FormulaError, "'y' on both sides of the formula"),
    ],
)
def test_formulas_that_are_no_two_level_model(formula, error, fragment):
    with pytest.raises(error) as caught:
        from_formula(formula)
    assert fragment in str(caught.value)


def test_a_covariance_override_is_checked():
    with pytest.raises(SpecificationError, match="covariance='ar1'"):
        from_formula("y ~ t + (t | g)", covariance="ar1")


def test_blocks_round_trip():
    rng = np.random.default_rng(3)
    data = pd.DataFrame(rng.normal(size=(120, 4)), columns=["y", "time", "dose", "age"]).assign(
        g=np.repeat(range(20), 6)
    )
    combined = hl.TwoLevelModel.from_formula("y ~ time + dose + (1 + time | g) + (0 + dose | g)", data)
    assert combined.random == [["Intercept", "time"], ["dose"]]
    assert combined.covariance == "blocks"
    for covariance in ("blocks", "unstructured"):
        same = hl.TwoLevelModel(
            combined.level1, combined.level2, subject="g", data=data, random=combined.random, covariance=covariance
        )
        assert same.hierarchy == combined.hierarchy
    mixed = hl.TwoLevelModel.from_formula("y ~ time + dose + age + (1 + time | g) + (0 + dose + age || g)", data)
    assert mixed.random == [["Intercept", "time"], ["dose"], ["age"]]
    again = hl.TwoLevelModel(
        mixed.level1, mixed.level2, subject="g", data=data, random=mixed.random, covariance=mixed.covariance
    )
    assert again.design.blocks == mixed.design.blocks == ((0, 1), (2,), (3,))
    with pytest.raises(SpecificationError, match="correlated with each other is not said"):
        hl.TwoLevelModel("y ~ time", subject="g", data=data, random=["Intercept", "time"], covariance="blocks")


def test_the_response_is_no_subject():
    with pytest.raises(FormulaError, match="as the response and as the grouping"):
        hierarchy_from_levels("log(y) ~ time", None, subject="y", random=None, covariance="unstructured")
