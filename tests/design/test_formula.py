"""Formulas as text: what they are taken apart into, what is refused, and that nothing unsafe is ever evaluated."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import hierlmm as hl
from hierlmm.design.brackets import outline
from hierlmm.design.formula import (
    categorical_arguments,
    join_terms,
    parse_formula,
    parse_rhs,
    quoted,
    unquoted,
    variables_of,
)
from hierlmm.errors import FormulaError, HierlmmError

COLUMNS = ["y", "t", "x", "g", "sex", "my var", "log10"]


@pytest.mark.parametrize(
    ("rhs", "terms"),
    [
        ("1", [()]),
        ("x", [(), ("x",)]),
        ("0 + x", [("x",)]),
        ("x - 1", [("x",)]),
        ("-1 + x", [("x",)]),
        ("x + 0", [("x",)]),
        ("x + -1", [("x",)]),
        ("0 + x - -1", [(), ("x",)]),
        ("a * b", [(), ("a",), ("b",), ("a", "b")]),
        ("(a + b)**2", [(), ("a",), ("b",), ("a", "b")]),
        ("(a + b)^2", [(), ("a",), ("b",), ("a", "b")]),
        ("a / b", [(), ("a",), ("a", "b")]),
        ("a * b * c - a:b:c", [(), ("a",), ("b",), ("c",), ("a", "b"), ("a", "c"), ("b", "c")]),
        ("x + x", [(), ("x",)]),
        ("I(x**2) + poly(t,2)", [(), ("I(x ** 2)",), ("poly(t, 2)",)]),
        ("{x + t}:sex", [(), ("{x + t}", "sex")]),
        ("`my var` * x", [(), ("`my var`",), ("x",), ("`my var`", "x")]),
        ("I((x > 0) | (t > 1))", [(), ("I((x > 0) | (t > 1))",)]),
        ("\n  x +\n  t ", [(), ("x",), ("t",)]),
    ],
)
def test_terms_are_expanded_as_wilkinson_and_rogers_say(rhs, terms):
    parsed = parse_formula(f"y ~ {rhs} + (1 | g)")
    assert list(parsed.fixed) == terms
    assert parse_rhs(join_terms(parsed.fixed)) == parsed.fixed


@pytest.mark.parametrize(
    ("text", "terms", "correlated"),
    [
        ("(1|g)", [()], True),
        ("(x | g)", [(), ("x",)], True),
        ("(1 + x | g)", [(), ("x",)], True),
        ("(x || g)", [(), ("x",)], False),
        ("(0 + x | g)", [("x",)], True),
        ("(x - 1 | g)", [("x",)], True),
        ("((x | g))", [(), ("x",)], True),
        ("(poly(t, 2) | g)", [(), ("poly(t, 2)",)], True),
        ("(I((x > 0) | (t > 1)) | g)", [(), ("I((x > 0) | (t > 1))",)], True),
        ("(`a|b` | g)", [(), ("`a|b`",)], True),
        ("(a * b | g)", [(), ("a",), ("b",), ("a", "b")], True),
    ],
)
def test_random_effects_terms(text, terms, correlated):
    parsed = parse_formula(f"y ~ x + {text}")
    assert parsed.fixed == ((), ("x",))
    (random,) = parsed.random
    assert (list(random.terms), random.subject, random.correlated) == (terms, "g", correlated)


@pytest.mark.parametrize("name", ["my subject", "a:b", "a+b", "a|b", "it's", 'q"q', " lead", "x(1)", "g/h", "{z}"])
def test_a_grouping_column_with_an_odd_name_stands_in_backticks(name):
    assert parse_formula(f"y ~ x + (1 | `{name}`)").random[0].subject == name


@pytest.mark.parametrize(
    ("left", "response"),
    [
        ("y", "y"),
        ("`y`", "y"),
        ("`my var`", "`my var`"),
        ("`a~b`", "`a~b`"),
        ("log(y)", "log(y)"),
        ("I(a+b)", "I(a + b)"),
    ],
)
def test_responses_are_spelled_one_way(left, response):
    assert parse_formula(f"{left} ~ x").response == response


@pytest.mark.parametrize("left", ["y - x", "y + x", "-y", "y:x", "y / x", "y * 2", "y | x", "1", "0", "y^2"])
def test_arithmetic_in_a_response_needs_I(left):
    """R computes ``y - x ~``; a Wilkinson parser would drop x without a word."""
    with pytest.raises(FormulaError, match=r"is not one column or function of columns[\s\S]*write arithmetic as 'I\("):
        parse_formula(f"{left} ~ t + (1 | g)")


def test_offsets_are_taken_out_wherever_they_stand():
    parsed = parse_formula("y ~ offset(log(x)) + t + offset(-w) + (1 | g)")
    assert parsed.offsets == ("log(x)", "-w")
    assert parsed.fixed == ((), ("t",))
    assert parse_formula("y ~ 0 + offset(x) + (1 | g)").fixed == ()


@pytest.mark.parametrize(
    ("formula", "fragment"),
    [
        ("", "needs a response, a '~' and terms"),
        ("y", "needs a response, a '~' and terms"),
        ("y ~", "needs a response, a '~' and terms"),
        ("~ x", "needs a response, a '~' and terms"),
        ("y ~ x ~ z", "a '~' or a '|' stands where only terms can stand"),
        ("y ~ x + (1 | g", "parentheses or quotes do not match"),
        ("y ~ x) + (1 | g)", "parentheses or quotes do not match"),
        ("y ~ log(x] + (1 | g)", "parentheses or quotes do not match"),
        ("y ~ `x + (1 | g)", "parentheses or quotes do not match"),
        ("y ~ x | g", "'x | g' are not in parentheses of their own"),
        ("y ~ x + 1 | g", "'1 | g' are not in parentheses of their own"),
        ("y ~ x * (1 | g)", "'x * (1 | g)' are not in parentheses of their own"),
        ("y ~ (x + (1 | g))", "'x + (1 | g)' are not in parentheses of their own"),
        ("y ~ x + (1 | g | h)", "'(1 | g | h)' is incomplete"),
        ("y ~ x + (| g)", "'(| g)' is incomplete"),
        ("y ~ x + (1 |)", "'(1 |)' is incomplete"),
        ("y ~ x + (1 ||| g)", "'(1 ||| g)' is incomplete"),
        ("y ~ x + (0 | g)", "contains no random effect"),
        ("y ~ x - (1 | g)", "a random-effects term is subtracted"),
        ("y ~ x - offset(z) + (1 | g)", "an offset is added"),
        ("y ~ (1 | g:h)", "'g:h' is not one column"),
        ("y ~ (1 | g/h)", "'g/h' is not one column"),
        ("y ~ (1 | g + h)", "'g + h' is not one column"),
        ("y ~ (1 | factor(g))", "'factor(g)' is not one column"),
        ("y ~ . + (1 | g)", "'.' (all other columns) does not say what the model is"),
        ("y ~ x z + (1 | g)", "Missing operator between `x` and `z`"),
        ("y ~ 'x' + (1 | g)", "String literals are not valid"),
        ("y ~ x + 2 + (1 | g)", "Numeric literals other than `1`"),
        ("y ~ 2:x + (1 | g)", "the number 2 scales a term"),
        ("y ~ `1` + (1 | g)", "the column name '1' is reserved"),
        ("y ~ if x: 3 + (1 | g)", "cannot be read"),
    ],
)
def test_what_is_no_formula_says_why(formula, fragment):
    with pytest.raises(FormulaError) as caught:
        parse_formula(formula)
    assert fragment in caught.value.reason + caught.value.received
    assert caught.value.received and caught.value.remedy and caught.value.see
    assert "\x1b" not in str(caught.value)  # formulaic colours its messages


def test_a_formula_is_text():
    with pytest.raises(FormulaError, match="a formula of type list"):
        parse_formula(["y ~ x"])  # type: ignore[arg-type]


def test_outline_blanks_what_is_inside():
    assert outline("a + f(b | c) + `d|e`", "").replace("\0", ".") == "a + f(.....) + `...`"


def test_quoting_is_its_own_inverse():
    for name in ("x", "my var", "a.b", "größe", "class", "x[1]"):
        assert unquoted(quoted(name)) == name
    assert quoted("größe") == "größe"
    assert unquoted("{a + b}") == "a + b"
    assert unquoted("`a` * `b`") == "`a` * `b`"


@pytest.mark.parametrize(
    ("expression", "variables"),
    [
        ("x", ("x",)),
        ("`my var`", ("my var",)),
        ("log(`my var` + x)", ("my var", "x")),
        ("I(x**2 + t)", ("x", "t")),
        ("np.log(x)", ("x",)),
        ("np.where(x > 0, x, 0)", ("x",)),
        ("C(sex, contr.treatment('F'))", ("sex",)),
        ("C(sex, Sum)", ("sex",)),
        ("bs(x, df=4, knots=[1.0, 2.0])", ("x",)),
        ("{x / t}", ("x", "t")),
        ("I(sex == 'F')", ("sex",)),
        ("abs(x)", ("x",)),
        ("I(True)", ()),
    ],
)
def test_the_columns_an_expression_uses(expression, variables):
    assert variables_of(expression, COLUMNS) == variables


def test_labels_are_told_from_numbers():
    assert categorical_arguments("C(g)") == ("g",)
    assert categorical_arguments("C(`my var`, contr.sum)") == ("my var",)
    assert categorical_arguments("I(g**2)") == ()
    assert categorical_arguments("g") == ()


@pytest.mark.parametrize(
    ("expression", "fragment"),
    [
        ("nope", "there is no column named 'nope'"),
        ("log(nope)", "there is no column named 'nope'"),
        ("log(`nope`)", "there is no column named 'nope'"),
        ("sxe", "Did you mean 'sex'?"),
        ("logg(x)", "there is no function named 'logg'. Did you mean 'log'?"),
        ("sqrt(x)", "there is no function named 'sqrt'"),
        ("log10(x)", "a column is named 'log10' too and hides the function"),
        ("lag(x)", "from one subject into the next"),
        ("Q('x')", "patsy quotes a name"),
        ("offset(x)", "an offset is not a term"),
        ("min(x)", "there is no function named 'min'"),
        ("x.mean()", "attributes ('mean') cannot stand in a formula"),
        ("I(x - x.mean())", "attributes ('mean') cannot stand in a formula"),
        ("I(x - np.mean(x))", "np.mean does not work row by row"),
        ("np.cumsum(x)", "np.cumsum does not work row by row"),
        ("np.load('file')", "np.load does not work row by row"),
        ("np.random.normal(x)", "cannot stand in a formula"),
        ("I(x[0])", "Python code of this kind (Subscript)"),
        ("I((lambda: 3)())", "Python code of this kind (Lambda)"),
        ("I([v for v in x])", "Python code of this kind (ListComp)"),
        ("I(x if t else g)", "Python code of this kind (IfExp)"),
        ("I(x.__class__)", "attributes ('__class__') cannot stand"),
        ("contr.__class__", "attributes ('__class__') cannot stand"),
        ("x y", "neither a column nor an expression"),
    ],
)
def test_what_cannot_stand_in_an_expression_says_why(expression, fragment):
    with pytest.raises(FormulaError) as caught:
        variables_of(expression, COLUMNS)
    assert fragment in caught.value.reason


@pytest.mark.parametrize(
    "code",
    [
        "__import__('os').system('touch {path}')",
        "I(__import__('os').system('touch {path}'))",
        "{{__import__('os').system('touch {path}')}}",
        "I(open('{path}', 'w'))",
        "I(exec('open(chr(34))'))",
        "np.savetxt('{path}', x)",
        "I(x.to_csv('{path}'))",
        "I(np.lib.npyio.os.system('touch {path}'))",
        "I(().__class__.__base__.__subclasses__())",
    ],
)
@pytest.mark.parametrize(
    "place", ["y ~ {} + (1 | g)", "y ~ x + (1 + {} | g)", "{} ~ x + (1 | g)", "y ~ offset({}) + (1 | g)"]
)
def test_code_is_refused_before_it_runs(code, place, tmp_path):
    path = tmp_path / "touched"
    data = pd.DataFrame({"g": np.repeat(range(4), 3), "x": np.arange(12.0), "y": np.arange(12.0) ** 2})
    with pytest.raises(HierlmmError):
        hl.TwoLevelModel.from_formula(place.format(code.format(path=path)), data)
    assert not path.exists()


def test_names_of_the_calling_scope_do_not_leak_in(dental):
    slope = dental["age"]
    with pytest.raises(FormulaError, match="there is no column named 'slope'"):
        hl.TwoLevelModel.from_formula("distance ~ slope + (1 | subject)", dental)
    double = lambda v: 2 * v  # noqa: E731
    with pytest.raises(FormulaError, match="there is no function named 'double'"):
        hl.TwoLevelModel.from_formula("distance ~ double(age) + (1 | subject)", dental)
    assert len(slope) == len(double(slope))


@pytest.mark.parametrize(
    "text",
    ["y ~ t + (1 | y)", "log(y) ~ t + (1 | y)", "`y` ~ t + (1 | `y`)", "I(a + y) ~ (t | y)", "`a b` ~ t + (1 | `a b`)"],
)
def test_the_response_is_no_grouping(text):
    with pytest.raises(FormulaError, match="as the response and as the grouping"):
        parse_formula(text)


@pytest.mark.parametrize(
    ("written", "remedy"),
    [
        ("I(x^2)", "write ** for a power: I(x ** 2)"),
        ("np.log(x^2 + 1)", "write ** for a power: np.log(x ** 2 + 1)"),
        ("factor(g)", "write C(...) where numbers are labels: C(g)"),
        ("as.factor(g)", "write C(...) where numbers are labels: C(g)"),
        ("x:ordered(g)", "write C(...) where numbers are labels: x:C(g)"),
    ],
)
def test_idioms_of_r_are_answered(written, remedy):
    """``^`` of whole numbers was Python's exclusive or, and was fitted without a word."""
    data = pd.DataFrame({"id": np.repeat(np.arange(8), 3), "x": np.tile([1, 2, 3], 8), "g": np.tile([1, 2, 3], 8)})
    data["y"] = np.random.default_rng(1).normal(size=24)
    for formula in (f"y ~ {written} + (1 | id)", f"y ~ x + (0 + {written} | id)"):
        with pytest.raises(FormulaError) as refused:
            hl.TwoLevelModel.from_formula(formula, data)
        assert refused.value.remedy.replace("0 + ", "") == remedy
