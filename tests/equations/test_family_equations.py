"""Equations and prints of generalised models: exact strings, three notations, and what is known of the parameters."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import hierlmm as hl
from hierlmm.equations.describe import describe_model, describe_model_html, model_facts
from hierlmm.families import Binomial, Gamma, Gaussian, Poisson


@pytest.fixture(scope="module")
def visits() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    subject = np.repeat(np.arange(8), 4)
    return pd.DataFrame(
        {
            "subject": subject,
            "sex": np.where(subject < 4, "Female", "Male"),
            "time": np.tile(np.arange(4.0), 8),
            "hours": rng.uniform(1, 2, 32),
            "n": rng.integers(3, 8, 32),
            "count": rng.poisson(3.0, 32),
            "yes": np.tile(["no", "yes", "yes", "no"], 8),
            "hits": rng.integers(0, 4, 32),
            "amount": rng.gamma(3.0, 1.0, 32),
            "rating": np.tile([1, 2, 3, 4], 8),
        }
    )


def model(data, formula, family, **more):
    return hl.TwoLevelModel.from_formula(formula, data, family=family, **more)


def test_a_poisson_model_has_a_distribution_and_no_residual(visits):
    eq = model(visits, "count ~ sex * time + (time | subject)", "poisson", exposure="hours").equations()
    assert str(eq.response) == "countᵢⱼ ~ Poisson(μᵢⱼ)"
    assert str(eq.level1) == "log μᵢⱼ = β₀ᵢ + β₁ᵢ·timeᵢⱼ + offset(log(hours))ᵢⱼ"
    assert [str(e) for e in eq.level2][1] == "β₁ᵢ = β₁₀ + β₁₁·sex[Male] + b₁ᵢ"
    assert len(eq.random) == 2 and eq.random[1].left.text == "D"
    assert str(eq.combined).startswith("log μᵢⱼ = (β₀₀ + β₀₁·sex[Male] + b₀ᵢ)")
    mean, spread = eq.marginal
    assert "exp((β₀₀ + β₀₁·sex[Male]) + (β₁₀ + β₁₁·sex[Male])·timeᵢⱼ + offset(log(hours))ᵢⱼ + vᵢⱼ / 2)" in str(mean)
    assert str(spread) == "vᵢⱼ = D₀₀ + 2·D₀₁·timeᵢⱼ + D₁₁·timeᵢⱼ²"
    assert "there is no residual e" in eq.text and "σ²\n" not in eq.text
    assert eq.marginal[0].latex.startswith(r"\mathrm{E}(\mathrm{count}_{ij}) = \mathrm{E}_{b}\, \exp(")
    assert eq.response.html == "count<sub>ij</sub> ~ Poisson(μ<sub>ij</sub>)"


@pytest.mark.parametrize(
    ("formula", "family", "response", "predictor", "mean"),
    [
        (
            "yes ~ time + (1 | subject)",
            "bernoulli",
            "yesᵢⱼ ~ Bernoulli(μᵢⱼ)",
            "logit μᵢⱼ",
            "E(yesᵢⱼ) = E_b logit⁻¹((β₀₀ + b₀ᵢ) + β₁₀·timeᵢⱼ)",
        ),
        (
            "p(hits, n) ~ time + (1 | subject)",
            Binomial("probit"),
            "hitsᵢⱼ ~ Binomial(nᵢⱼ, μᵢⱼ)",
            "probit μᵢⱼ",
            "E(hitsᵢⱼ) = nᵢⱼ·E_b Φ((β₀₀ + b₀ᵢ) + β₁₀·timeᵢⱼ) = nᵢⱼ·Φ((β₀₀ + β₁₀·timeᵢⱼ) / √(1 + vᵢⱼ))",
        ),
        (
            "count ~ time + (1 | subject)",
            "negative_binomial",
            "countᵢⱼ ~ NegBinomial(μᵢⱼ, shape)",
            "log μᵢⱼ",
            "E(countᵢⱼ) = E_b exp((β₀₀ + b₀ᵢ) + β₁₀·timeᵢⱼ) = exp(β₀₀ + β₁₀·timeᵢⱼ + vᵢⱼ / 2)",
        ),
        (
            "count ~ time + (1 | subject)",
            Poisson("sqrt"),
            "countᵢⱼ ~ Poisson(μᵢⱼ)",
            "√μᵢⱼ",
            "E(countᵢⱼ) = E_b ((β₀₀ + b₀ᵢ) + β₁₀·timeᵢⱼ)² = (β₀₀ + β₁₀·timeᵢⱼ)² + vᵢⱼ",
        ),
        (
            "count ~ time + (1 | subject)",
            Poisson("identity"),
            "countᵢⱼ ~ Poisson(μᵢⱼ)",
            "μᵢⱼ",
            "E(countᵢⱼ) = β₀₀ + β₁₀·timeᵢⱼ",
        ),
        (
            "amount ~ time + (1 | subject)",
            Gamma("inverse"),
            "amountᵢⱼ ~ Gamma(μᵢⱼ, shape)",
            "1 / μᵢⱼ",
            "E(amountᵢⱼ) = E_b 1 / ((β₀₀ + b₀ᵢ) + β₁₀·timeᵢⱼ)",
        ),
        (
            "amount ~ time + (1 | subject)",
            Gaussian("log"),
            "amountᵢⱼ ~ N(μᵢⱼ, σ²)",
            "log μᵢⱼ",
            "E(amountᵢⱼ) = E_b exp((β₀₀ + b₀ᵢ) + β₁₀·timeᵢⱼ) = exp(β₀₀ + β₁₀·timeᵢⱼ + vᵢⱼ / 2)",
        ),
        (
            "rating ~ time + (1 | subject)",
            "ordinal",
            "P(ratingᵢⱼ ≤ k) = logit⁻¹(τₖ − ηᵢⱼ)",
            "ηᵢⱼ",
            "P(ratingᵢⱼ ≤ k) = E_b logit⁻¹(τₖ − ((β₀₀ + b₀ᵢ) + β₁₀·timeᵢⱼ))",
        ),
    ],
)
def test_families_and_links(visits, formula, family, response, predictor, mean):
    from matplotlib.mathtext import MathTextParser

    eq = model(visits, formula, family).equations()
    assert str(eq.response) == response
    assert eq.level1.left.text == eq.combined.left.text == predictor
    assert str(eq.marginal[0]) == mean
    closed = "/ 2)" in mean or "√" in mean or "² +" in mean
    assert (len(eq.marginal) == 2) == closed
    remedy = "population-averaged coefficients: fit.marginal_coefficients()"
    if family == "ordinal":
        remedy = "shares of all subjects: fit.probabilities(level='marginal')"
    assert (f"no closed form; {remedy}" in eq.text.replace("\n  ", " ")) == ("E_b" in mean and not closed)
    parser = MathTextParser("path")
    for section in eq.sections:
        for equation in section.equations:
            if "pmatrix" not in equation.latex:
                parser.parse(f"${equation.latex}$")
    assert max(map(len, eq.text.splitlines())) <= 92


def test_estimates_are_put_in(visits):
    fitted = model(visits, "count ~ time + (1 | subject)", "negative_binomial")
    fit = fitted.fit_ml()
    eq = fitted.equations(fit)
    assert str(eq.response).startswith("countᵢⱼ ~ NegBinomial(μᵢⱼ, ") and "shape" not in str(eq.response)
    assert f"{abs(fit.beta['time']):.1g}"[:3] in str(eq.combined)


@pytest.mark.parametrize(
    ("formula", "family", "more", "facts"),
    [
        (
            "count ~ time + (1 | subject)",
            "poisson",
            {"exposure": "hours"},
            {"family": "Poisson (log link)", "exposure": "column hours", "covariance parameters": "1 (1 in D)"},
        ),
        (
            "yes ~ time + (1 | subject)",
            "bernoulli",
            {},
            {"family": "Bernoulli (logit link); success: yes = 'yes'"},
        ),
        (
            "hits ~ time + (time | subject)",
            "binomial",
            {"trials": "n"},
            {"trials": "column n", "covariance parameters": "3 (3 in D)"},
        ),
        (
            "count ~ time + (1 | subject)",
            "negative_binomial",
            {},
            {"covariance parameters": "2 (1 in D, and shape)"},
        ),
        (
            "rating ~ time + (1 | subject)",
            "ordinal",
            {},
            {"covariance parameters": "3 (1 in D, and threshold 2, threshold 3)"},
        ),
    ],
)
def test_what_is_known_before_fitting(visits, formula, family, more, facts):
    design = model(visits, formula, family, **more).design
    found = model_facts(design)
    assert facts.items() <= found.items()
    assert not {"residual correlation", "residual variance"} & found.keys()


def test_the_print_says_how_to_go_on(visits):
    design = model(visits, "count ~ time + (1 | subject)", "poisson").design
    text = describe_model(design)
    assert text.startswith("Generalised two-level model: count by subject")
    assert text.endswith("Fit with .fit() (NUTS), .fit_ml() or .fit_gee(); .equations() gives LaTeX.")
    assert "fit_reml" not in text and "Poisson(μ" in describe_model_html(design)
