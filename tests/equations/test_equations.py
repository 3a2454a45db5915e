"""Equations of a model: exact strings for textbook models, and well-formed LaTeX and HTML for awkward names."""

from __future__ import annotations

from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from hierlmm.design.build import design_from_formula, design_from_hierarchy
from hierlmm.design.design import Design
from hierlmm.design.formula import parse_formula
from hierlmm.design.hierarchy import hierarchy_from_levels
from hierlmm.equations.describe import describe_model, describe_model_html, is_balanced
from hierlmm.equations.equations import Equations, equations
from hierlmm.equations.notation import number, two_decimals
from hierlmm.errors import SpecificationError

AWKWARD = [
    "distance ~ time + (1 | subject)",
    "distance ~ sex * time + (1 + time | subject)",
    "distance ~ sex * time + (1 + time || subject)",
    "log(distance) ~ bs(time, df=4) * sex + (1 + time | subject)",
    "distance ~ 0 + sex + sex:time + (0 + time | subject)",
    "distance ~ C(age) * sex + (1 + C(age) | subject)",
    "distance ~ `dose 1` * sex + np.log(w_x) + time:w_x + offset(w_x) + (1 + `dose 1` | subject) + (0 + age | subject)",
    "distance ~ time * C(site, contr.treatment('a & b')) + (1 | subject)",
    "distance ~ poly(time, 11, raw=True) + time:w_x + (1 + time:w_x | subject)",
    "np.sqrt(distance) ~ I(time ** 2) + I(w_x % 3) + (1 | subject)",
    "distance ~ poly(time, 3) + (1 + poly(time, 3) | subject)",
]


@pytest.fixture(scope="module")
def growth() -> pd.DataFrame:
    """Six subjects measured at four ages, with names that need escaping."""
    rng = np.random.default_rng(3)
    subject = np.repeat(np.arange(1, 7), 4)
    age = np.tile([8, 10, 12, 14], 6)
    return pd.DataFrame(
        {
            "subject": subject,
            "sex": np.where(subject <= 3, "Female", "Male"),
            "site": np.where(subject % 2 == 0, "a & b", "<c>"),
            "age": age,
            "time": age - 8.0,
            "w_x": rng.uniform(1, 9, 24),
            "dose 1": rng.normal(size=24),
            "distance": 20 + rng.uniform(0, 9, 24),
        }
    )


def build(formula: str, data: pd.DataFrame, covariance: str | None = None) -> Design:
    return design_from_formula(parse_formula(formula), data, covariance=covariance)


def stand_in(design: Design, beta: list[float], D: list[list[float]], sigma: float) -> SimpleNamespace:
    """What `equations` reads of a fit."""
    frame = pd.DataFrame(D, index=list(design.term), columns=list(design.term), dtype=float)
    sd = pd.Series(np.sqrt(np.diag(frame)), index=frame.index)
    with np.errstate(invalid="ignore"):
        corr = frame / np.outer(sd, sd)
    return SimpleNamespace(
        beta=pd.Series(beta, index=list(design.coef)), D=frame, sd_b=sd, corr_b=corr, sigma=sigma, estimator="REML"
    )


def texts(parts: tuple) -> list[str]:
    return [part.text for part in parts]


def test_random_intercept(growth: pd.DataFrame) -> None:
    eq = equations(build("distance ~ time + (1 | subject)", growth))
    assert eq.level1.text == "distanceᵢⱼ = β₀ᵢ + β₁ᵢ·timeᵢⱼ + eᵢⱼ"
    assert texts(eq.level2) == ["β₀ᵢ = β₀₀ + b₀ᵢ", "β₁ᵢ = β₁₀"]
    assert texts(eq.random) == ["b₀ᵢ ~ N(0, σ²_b0)", "eᵢⱼ ~ N(0, σ²)"]
    assert eq.combined.text == "distanceᵢⱼ = (β₀₀ + b₀ᵢ) + β₁₀·timeᵢⱼ + eᵢⱼ"
    assert texts(eq.marginal) == [
        "E(distanceᵢⱼ) = β₀₀ + β₁₀·timeᵢⱼ",
        "Var(distanceᵢⱼ) = σ²_b0 + σ²",
        "Corr(distanceᵢⱼ, distanceᵢₖ) = σ²_b0 / (σ²_b0 + σ²),  j ≠ k",
    ]
    assert eq.notes[1].text == "b₀ᵢ is subject i's own deviation; β₁ᵢ is the same for all subjects."


def test_random_intercept_and_slope(growth: pd.DataFrame) -> None:
    eq = equations(build("distance ~ time + (1 + time | subject)", growth))
    assert texts(eq.level2) == ["β₀ᵢ = β₀₀ + b₀ᵢ", "β₁ᵢ = β₁₀ + b₁ᵢ"]
    assert eq.combined.text == "distanceᵢⱼ = (β₀₀ + b₀ᵢ) + (β₁₀ + b₁ᵢ)·timeᵢⱼ + eᵢⱼ"
    assert eq.random[0].text == "(b₀ᵢ, b₁ᵢ) ~ N(0, D)"
    assert eq.random[1].text == "D = ⎡ σ²_b0       ρσ_b0σ_b1 ⎤\n    ⎣ ρσ_b0σ_b1   σ²_b1     ⎦"
    assert eq.random[1].latex == (
        r"D = \begin{pmatrix} \sigma_{b0}^{2} & \rho\sigma_{b0}\sigma_{b1} \\ "
        r"\rho\sigma_{b0}\sigma_{b1} & \sigma_{b1}^{2} \end{pmatrix}"
    )
    assert texts(eq.marginal) == [
        "E(distanceᵢⱼ) = β₀₀ + β₁₀·timeᵢⱼ",
        "Var(distanceᵢⱼ) = D₀₀ + 2·D₀₁·timeᵢⱼ + D₁₁·timeᵢⱼ² + σ²",
        "Cov(distanceᵢⱼ, distanceᵢₖ) = D₀₀ + D₀₁·(timeᵢⱼ + timeᵢₖ) + D₁₁·timeᵢⱼ·timeᵢₖ,  j ≠ k",
        "Vᵢ = Zᵢ D Zᵢᵀ + σ²I",
    ]


def test_group_difference_in_three_notations(growth: pd.DataFrame) -> None:
    eq = equations(build("distance ~ sex * time + (1 + time | subject)", growth))
    assert texts(eq.level2) == ["β₀ᵢ = β₀₀ + β₀₁·sex[Male] + b₀ᵢ", "β₁ᵢ = β₁₀ + β₁₁·sex[Male] + b₁ᵢ"]
    assert eq.combined.text == ("distanceᵢⱼ = (β₀₀ + β₀₁·sex[Male] + b₀ᵢ) + (β₁₀ + β₁₁·sex[Male] + b₁ᵢ)·timeᵢⱼ + eᵢⱼ")
    assert eq.level2[0].latex == r"\beta_{0i} = \beta_{00} + \beta_{01}\,\mathrm{sex[Male]} + b_{0i}"
    assert eq.level2[0].html == ("β<sub>0i</sub> = β<sub>00</sub> + β<sub>01</sub>·sex[Male] + b<sub>0i</sub>")
    assert eq.notes[1].text == "sex explains β₀ᵢ and β₁ᵢ; b₀ᵢ and b₁ᵢ are subject i's own deviations."
    assert "Level 1: within subject\n  distanceᵢⱼ = β₀ᵢ" in str(eq)
    assert "Level 2: between subjects\n  β₀ᵢ = β₀₀" in repr(eq)


def test_diagonal_and_identity(growth: pd.DataFrame) -> None:
    diagonal = equations(build("distance ~ time + (1 + time || subject)", growth))
    assert texts(diagonal.random[:-1]) == ["(b₀ᵢ, b₁ᵢ) ~ N(0, D)", "D = diag(σ²_b0, σ²_b1)"]
    assert texts(diagonal.marginal)[1:3] == [
        "Var(distanceᵢⱼ) = D₀₀ + D₁₁·timeᵢⱼ² + σ²",
        "Cov(distanceᵢⱼ, distanceᵢₖ) = D₀₀ + D₁₁·timeᵢⱼ·timeᵢₖ,  j ≠ k",
    ]
    identity = equations(build("distance ~ time + (1 + time | subject)", growth, "identity"))
    assert identity.random[1].text == "D = σ²_b I"
    assert identity.marginal[1].text == "Var(distanceᵢⱼ) = σ²_b + σ²_b·timeᵢⱼ² + σ²"


def test_blocks_have_zeros_between_them(growth: pd.DataFrame) -> None:
    eq = equations(build("distance ~ time + w_x + (1 + time | subject) + (0 + w_x | subject)", growth))
    assert eq.random[1].text.splitlines() == [
        "D = ⎡ σ²_b0         ρ₀₁σ_b0σ_b1   0     ⎤",
        "    ⎢ ρ₀₁σ_b0σ_b1   σ²_b1         0     ⎥",
        "    ⎣ 0             0             σ²_b2 ⎦",
    ]
    assert eq.marginal[1].text == "Var(distanceᵢⱼ) = D₀₀ + 2·D₀₁·timeᵢⱼ + D₁₁·timeᵢⱼ² + D₂₂·w_xᵢⱼ² + σ²"


def test_level1_without_intercept_starts_at_one(growth: pd.DataFrame) -> None:
    eq = equations(build("distance ~ 0 + time + w_x + (0 + time + w_x | subject)", growth))
    assert eq.level1.text == "distanceᵢⱼ = β₁ᵢ·timeᵢⱼ + β₂ᵢ·w_xᵢⱼ + eᵢⱼ"
    assert texts(eq.level2) == ["β₁ᵢ = β₁₀ + b₁ᵢ", "β₂ᵢ = β₂₀ + b₂ᵢ"]
    assert texts(eq.marginal)[1:3] == [
        "Var(distanceᵢⱼ) = D₁₁·timeᵢⱼ² + 2·D₁₂·timeᵢⱼ·w_xᵢⱼ + D₂₂·w_xᵢⱼ² + σ²",
        "Cov(distanceᵢⱼ, distanceᵢₖ) = D₁₁·timeᵢⱼ·timeᵢₖ + D₁₂·(timeᵢⱼ·w_xᵢₖ + timeᵢₖ·w_xᵢⱼ) + D₂₂·w_xᵢⱼ·w_xᵢₖ,  j ≠ k",
    ]


def test_level2_without_constant_starts_at_one(growth: pd.DataFrame) -> None:
    eq = equations(build("distance ~ 0 + sex + sex:time + (1 | subject)", growth))
    assert texts(eq.level2) == [
        "β₀ᵢ = β₀₁·sex[Female] + β₀₂·sex[Male] + b₀ᵢ",
        "β₁ᵢ = β₁₁·sex[Female] + β₁₂·sex[Male]",
    ]


def test_random_slope_with_nothing_fixed(growth: pd.DataFrame) -> None:
    eq = equations(build("distance ~ sex + (0 + time | subject)", growth))
    assert texts(eq.level2) == ["β₀ᵢ = β₀₀ + β₀₁·sex[Male]", "β₁ᵢ = b₁ᵢ"]
    assert eq.combined.text == "distanceᵢⱼ = (β₀₀ + β₀₁·sex[Male]) + b₁ᵢ·timeᵢⱼ + eᵢⱼ"
    assert texts(eq.marginal) == [
        "E(distanceᵢⱼ) = β₀₀ + β₀₁·sex[Male]",
        "Var(distanceᵢⱼ) = σ²_b1·timeᵢⱼ² + σ²",
        "Cov(distanceᵢⱼ, distanceᵢₖ) = σ²_b1·timeᵢⱼ·timeᵢₖ,  j ≠ k",
    ]


def test_hierarchy_as_stated(growth: pd.DataFrame) -> None:
    stated = hierarchy_from_levels(
        "distance ~ time + w_x",
        {"Intercept": "sex + site", "time": "0", "w_x": "1"},
        subject="subject",
        random=["Intercept", "time"],
        covariance="unstructured",
    )
    eq = equations(design_from_hierarchy(stated, growth))
    assert texts(eq.level2) == ["β₀ᵢ = β₀₀ + β₀₁·sex[Male] + β₀₂·site[a & b] + b₀ᵢ", "β₁ᵢ = b₁ᵢ", "β₂ᵢ = β₂₀"]
    assert "sex and site explain β₀ᵢ" in eq.notes[1].text
    assert "site[a &amp; b]" in eq.level2[0].html
    assert r"\mathrm{site[a\ \&\ b]}" in eq.level2[0].latex


def test_three_level1_covariates_and_offset(growth: pd.DataFrame) -> None:
    data = growth.assign(dose=growth["dose 1"])
    eq = equations(build("distance ~ time + w_x + time:dose + offset(dose) + (1 | subject)", data))
    assert eq.level1.text == "distanceᵢⱼ = β₀ᵢ + β₁ᵢ·timeᵢⱼ + β₂ᵢ·w_xᵢⱼ + β₃ᵢ·timeᵢⱼ·doseᵢⱼ + offset(dose)ᵢⱼ + eᵢⱼ"
    assert eq.combined.text.endswith(" + β₃₀·timeᵢⱼ·doseᵢⱼ + offset(dose)ᵢⱼ + eᵢⱼ")
    assert eq.marginal[0].text.endswith(" + offset(dose)ᵢⱼ")


def test_square_of_a_product(growth: pd.DataFrame) -> None:
    eq = equations(build("distance ~ time:w_x + (1 + time:w_x || subject)", growth))
    assert eq.marginal[1].text == "Var(distanceᵢⱼ) = D₀₀ + D₁₁·(timeᵢⱼ·w_xᵢⱼ)² + σ²"


def test_spline_and_response_expression(growth: pd.DataFrame) -> None:
    eq = equations(build("log(distance) ~ bs(time, df=4) + (1 | subject)", growth))
    assert eq.level1.text.startswith("log(distance)ᵢⱼ = β₀ᵢ + β₁ᵢ·bs(time, df=4)[1]ᵢⱼ + β₂ᵢ·bs(time, df=4)[2]ᵢⱼ")
    assert texts(eq.level2) == ["β₀ᵢ = β₀₀ + b₀ᵢ", "β₁ᵢ = β₁₀", "β₂ᵢ = β₂₀", "β₃ᵢ = β₃₀", "β₄ᵢ = β₄₀"]
    assert eq.notes[0].text == "Each subject's own regression on time, over its rows j."
    level1 = eq.sections[0].equations[0].wrapped(90)
    assert len(level1.splitlines()) == 2
    assert level1.splitlines()[1].startswith(" " * len("log(distance)ᵢⱼ = ") + "+ β₃ᵢ·")


def test_two_digits_are_kept_apart_by_commas(growth: pd.DataFrame) -> None:
    eq = equations(build("distance ~ poly(time, 11, raw=True) + (1 | subject)", growth))
    assert eq.level2[11].text == "β₁₁,ᵢ = β₁₁,₀"
    assert eq.level2[0].latex == r"\beta_{0,i} = \beta_{0,0} + b_{0,i}"


def test_names_in_backticks_and_dummies_at_level1(growth: pd.DataFrame) -> None:
    eq = equations(build("distance ~ `dose 1` + C(age) + (1 | subject)", growth))
    assert eq.level1.text == (
        "distanceᵢⱼ = β₀ᵢ + β₁ᵢ·(dose 1)ᵢⱼ + β₂ᵢ·C(age)[10]ᵢⱼ + β₃ᵢ·C(age)[12]ᵢⱼ + β₄ᵢ·C(age)[14]ᵢⱼ + eᵢⱼ"
    )
    assert r"\mathrm{(dose\ 1)}_{ij}" in eq.level1.latex


def test_estimates_put_in(growth: pd.DataFrame) -> None:
    design = build("distance ~ sex * time + (1 + time | subject)", growth)
    fit = stand_in(design, [21.2091, 1.4065, 0.4795, -0.3048], [[3.23394, -0.0295], [-0.0295, 0.03252]], 1.31)
    eq = equations(design, fit)
    assert texts(eq.level2) == ["β₀ᵢ = 21.21 + 1.41·sex[Male] + b₀ᵢ", "β₁ᵢ = 0.48 − 0.30·sex[Male] + b₁ᵢ"]
    assert texts(eq.random)[0] == "(b₀ᵢ, b₁ᵢ) ~ N(0, D), sd 1.80 and 0.18, corr −0.09"
    assert eq.random[0].latex == (r"(b_{0i}, b_{1i}) \sim N(0, D)\text{, sd }1.80\text{ and }0.18,\text{ corr }-0.09")
    assert texts(eq.random)[-1] == "eᵢⱼ ~ N(0, σ²), sd 1.31"
    assert eq.combined.text == (
        "distanceᵢⱼ = (21.21 + 1.41·sex[Male] + b₀ᵢ) + (0.48 − 0.30·sex[Male] + b₁ᵢ)·timeᵢⱼ + eᵢⱼ"
    )
    assert eq.marginal[1].text == "Var(distanceᵢⱼ) = 3.23 − 0.059·timeᵢⱼ + 0.033·timeᵢⱼ² + 1.72"
    assert eq.text.startswith("Estimates: REML\n")


def test_estimates_go_by_name(growth: pd.DataFrame) -> None:
    design = build("distance ~ sex * time + (1 + time | subject)", growth)
    fit = stand_in(design, [21.0, 1.5, 0.5, 0.25], [[4.0, 0.0], [0.0, 1.0]], 1.0)
    fit.beta = fit.beta[::-1]
    fit.D = fit.D.iloc[::-1, ::-1]
    eq = equations(design, fit)
    assert eq.level2[0].text == "β₀ᵢ = 21.00 + 1.50·sex[Male] + b₀ᵢ"
    assert eq.marginal[1].text.startswith("Var(distanceᵢⱼ) = 4.00 + 0")


def test_exchangeable_correlation_is_worked_out(growth: pd.DataFrame) -> None:
    design = build("distance ~ time + (1 | subject)", growth)
    eq = equations(design, stand_in(design, [22.61563, -0.78438], [[2.641]], np.sqrt(2.816)))
    assert eq.combined.text == "distanceᵢⱼ = (22.62 + b₀ᵢ) − 0.78·timeᵢⱼ + eᵢⱼ"
    assert texts(eq.level2)[1] == "β₁ᵢ = −0.78"
    assert texts(eq.marginal)[1:] == [
        "Var(distanceᵢⱼ) = 2.64 + 2.82 = 5.46",
        "Corr(distanceᵢⱼ, distanceᵢₖ) = 2.64 / (2.64 + 2.82) = 0.48,  j ≠ k",
    ]


def test_singular_estimates(growth: pd.DataFrame) -> None:
    design = build("distance ~ time + (1 + time | subject)", growth)
    eq = equations(design, stand_in(design, [1.0, 0.0], [[4.0, 0.0], [0.0, 0.0]], 1.0))
    assert eq.random[0].text == "(b₀ᵢ, b₁ᵢ) ~ N(0, D), sd 2.00 and 0, corr undefined"


def test_estimates_of_another_model_are_refused(growth: pd.DataFrame) -> None:
    small = build("distance ~ time + (1 | subject)", growth)
    large = build("distance ~ sex * time + (1 | subject)", growth)
    with pytest.raises(SpecificationError, match="fixed effects Intercept, time"):
        equations(large, stand_in(small, [1.0, 2.0], [[1.0]], 1.0))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (21.2091, "21.21"),
        (-0.0913, "0.091"),
        (0.000123, "0.00012"),
        (0, "0"),
        (12345.6, "12346"),
        (2.5e-7, "2.5·10⁻⁷"),
        (3.21e8, "3.2·10⁸"),
        (float("nan"), "undefined"),
    ],
)
def test_numbers(value: float, text: str) -> None:
    assert number(value).text == text


def test_correlation_never_shows_minus_zero() -> None:
    assert two_decimals(-0.001).text == "0.00"
    assert two_decimals(-1.0).text == "−1.00"


def every(eq: Equations) -> list:
    return [eq.level1, *eq.level2, *eq.random, eq.combined, *eq.marginal]


def with_estimates(design: Design) -> SimpleNamespace:
    q = len(design.term)
    return stand_in(design, list(np.linspace(-2e-6, 3e7, len(design.coef))), (np.eye(q) - 0.1).tolist(), 0.02)


@pytest.mark.parametrize("estimated", [False, True])
@pytest.mark.parametrize("formula", AWKWARD)
def test_latex_is_well_formed(formula: str, estimated: bool, growth: pd.DataFrame) -> None:
    from matplotlib.mathtext import MathTextParser

    design = build(formula, growth)
    eq = equations(design, with_estimates(design) if estimated else None)
    parser = MathTextParser("path")
    for equation in every(eq):
        if "pmatrix" not in equation.latex:
            parser.parse(f"${equation.latex}$".replace(r"\&", "+"))  # mathtext knows every escape but this one
    bare = eq.latex.replace(r"\{", "").replace(r"\}", "")
    depth = 0
    for char in bare:
        depth += (char == "{") - (char == "}")
        assert depth >= 0
    assert depth == 0
    assert bare.count(r"\begin{") == bare.count(r"\end{")
    assert eq.latex.startswith("\\begin{aligned}\n")
    assert eq._repr_latex_().startswith("$$\n\\begin{aligned}")
    assert eq._repr_latex_().count("$") == 4


class Balanced(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.open.append(tag)
        self.seen.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("formula", AWKWARD)
def test_html_is_well_formed(formula: str, growth: pd.DataFrame) -> None:
    design = build(formula, growth)
    for source in (
        describe_model_html(design),
        equations(design, with_estimates(design))._repr_html_(),
    ):
        page = Balanced()
        page.feed(source)
        assert page.open == []
        assert page.seen <= {
            *("div", "strong", "sub", "sup", "em", "table", "tr", "td", "th", "code", "pre", "details", "summary")
        }
        assert "http" not in source
        assert "script" not in source


@pytest.mark.parametrize("formula", AWKWARD)
def test_text_lines_are_short(formula: str, growth: pd.DataFrame) -> None:
    design = build(formula, growth)
    assert max(map(len, describe_model(design).splitlines())) <= 100
    assert max(map(len, str(equations(design, with_estimates(design))).splitlines())) <= 100


def test_description(growth: pd.DataFrame) -> None:
    text = describe_model(build("distance ~ sex * time + (1 + time | subject)", growth))
    lines = text.splitlines()
    assert lines[0] == "Two-level model: distance by subject"
    assert "Formula: distance ~ 1 + sex + time + sex:time + (1 + time | subject)" in lines
    assert [line.split(maxsplit=1) for line in lines if line.startswith("  rows  ")] == [["rows", "24"]]
    for part in (
        "Level 1: within subject",
        "Level 2: between subjects",
        "Combined model",
        "Marginal model",
        "  subjects               6 (column subject)",
        "  rows per subject       4 each",
        "  rows dropped           0",
        "  level-1 covariates     time",
        "  level-2 covariates     sex",
        "  balanced               yes: every subject has the same values of the level-1 covariates",
        "  structure of D         2 × 2, unstructured: variances and correlations",
        "  covariance parameters  4 (3 in D, and σ)",
    ):
        assert part in lines
    assert lines[-1].startswith("Fit with .fit() (NUTS)")


def test_description_of_unbalanced_data(growth: pd.DataFrame) -> None:
    text = describe_model(build("distance ~ time + (1 + time || subject)", growth.iloc[:-2]))
    assert "rows per subject       2–4 (median 4)" in text
    assert "balanced               no: the number of rows differs between subjects" in text
    assert "covariance parameters  3 (2 in D, and σ)" in text
    moved = growth.assign(time=growth["time"] + (growth["subject"] == 2))
    design = build("distance ~ time + (1 | subject)", moved)
    assert not is_balanced(design)
    assert "no: the values of the level-1 covariates differ between subjects" in describe_model(design)


def test_balance_does_not_depend_on_the_order_of_rows(growth: pd.DataFrame) -> None:
    shuffled = growth.sample(frac=1.0, random_state=1)
    assert is_balanced(build("distance ~ time + (1 | subject)", shuffled))
