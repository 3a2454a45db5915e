"""Equations of several factors: nested ones level by level, crossed ones a line a factor, and the marginal model."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import hierlmm as hl
from hierlmm.errors import SpecificationError
from hierlmm.fit.make import fit_of
from hierlmm.likelihood.estimate import LikelihoodEstimate, make_criterion
from hierlmm.likelihood.maximise import maximise

build = hl.MultilevelModel.from_formula


@pytest.fixture(scope="module")
def classes() -> pd.DataFrame:
    """Pupils in classes in schools; x varies within classes, w between the classes of a school, s between schools."""
    rng = np.random.default_rng(3)
    school, room = (own.ravel() for own in np.mgrid[:6, :3].repeat(4, axis=2))
    w, s = rng.normal(size=(6, 3))[school, room], rng.normal(size=6)[school]
    table = {"school": school, "class": room, "w": w, "s": s, "x": rng.normal(size=72), "y": rng.normal(size=72)}
    return pd.DataFrame(table)


def test_nested_factors_have_an_equation_a_level(pastes, nested):
    written = build("strength ~ 1 + (1 | batch / cask)", pastes).equations()
    assert [section.title for section in written.levels] == ["Level 1: rows", "Level 2: batch:cask", "Level 3: batch"]
    lines = [line.strip() for line in written.text.splitlines()]
    assert "strengthᵢ = β₀[batch:cask] + eᵢ" in lines
    assert "β₀[batch:cask] = β₀₀[batch] + b₀[batch:cask]" in lines
    assert "β₀₀[batch] = β₀₀₀ + b₀₀[batch]" in lines
    assert written.combined.text == "strengthᵢ = β₀₀₀ + b₀₀[batch] + b₀[batch:cask] + eᵢ"
    mean, variance, covariance, _ = (equation.text for equation in written.marginal)
    assert mean == "E(strengthᵢ) = β₀₀₀"
    assert variance == "Var(strengthᵢ) = σ²[batch] + σ²[batch:cask] + σ²"
    shared = "σ²[batch]·1(same batch) + σ²[batch:cask]·1(same batch:cask),  i ≠ j"
    assert covariance == f"Cov(strengthᵢ, strengthⱼ) = {shared}"
    assert r"b_{0,\mathrm{batch:cask}} &\sim N(0, \sigma_{\mathrm{batch:cask}}^{2})" in written.latex
    assert "<sub>00</sub>[batch]" in written._repr_html_()
    filled = build("strength ~ 1 + (1 | batch / cask)", pastes).equations(nested).text
    assert "Estimates: REML" in filled and "β₀₀[batch] = 60.05 + b₀₀[batch]" in filled
    assert "Var(strengthᵢ) = 1.66 + 8.43 + 0.68" in filled


def test_covariates_and_slopes_stand_at_their_levels(classes):
    model = build("y ~ x * w + x * s + (1 + x + w | school) + (1 | school:class)", classes)
    lines = [line.strip() for line in model.equations().text.splitlines()]
    assert "yᵢ = β₀[school:class] + β₁[school:class]·xᵢ + eᵢ" in lines
    assert "β₀[school:class] = β₀₀[school] + β₀₁[school]·w + b₀[school:class]" in lines
    assert "β₁[school:class] = β₁₀[school] + β₁₁·w" in lines
    assert "β₀₀[school] = β₀₀₀ + β₀₀₁·s + b₀₀[school]" in lines
    assert "β₀₁[school] = β₀₁₀ + b₀₁[school]" in lines
    assert "β₁₀[school] = β₁₀₀ + β₁₀₁·s + b₁₀[school]" in lines
    assert "(b₀₀[school], b₁₀[school], b₀₁[school]) ~ N(0, D[school])" in lines
    assert "Var(yᵢ) = z[school](i)ᵀ D[school] z[school](i) + σ²[school:class] + σ²" in lines


def test_crossed_factors_have_a_line_each(model, fit):
    written = model.equations()
    assert written.combined is None and written.levels[0].title == "Rows"
    fixed = "yᵢ = β₀ + β₁·xᵢ + β₂·kind[q]ᵢ + β₃·xᵢ·kind[q]ᵢ"
    said = f"{fixed} + b₀[school] + b₁[school]·xᵢ + b₀[school:class] + b₀[rater] + eᵢ"
    assert written.levels[0].equations[0].text == said
    assert [e.left.text for e in written.levels[1].equations] == [
        "b₀[school:class]",
        "(b₀[school], b₁[school])",
        "D[school]",
        "b₀[rater]",
    ]
    variance, covariance = (equation.text for equation in written.marginal[1:3])
    of_school = "D₀₀[school] + 2·D₀₁[school]·xᵢ + D₁₁[school]·xᵢ²"
    assert variance == f"Var(yᵢ) = {of_school} + σ²[school:class] + σ²[rater] + σ²"
    of_school = "(D₀₀[school] + D₀₁[school]·(xᵢ + xⱼ) + D₁₁[school]·xᵢ·xⱼ)·1(same school)"
    rest = "σ²[school:class]·1(same school:class) + σ²[rater]·1(same rater)"
    assert covariance == f"Cov(yᵢ, yⱼ) = {of_school} + {rest},  i ≠ j"
    sd, corr = fit.sd_b["school"], fit.corr_b["school"].iloc[0, 1]
    assert f"sd {sd.iloc[0]:.2f} and {sd.iloc[1]:.2f}, corr {corr:.2f}".replace("-", "−") in model.equations(fit).text


def test_long_names_of_factors_stand_once_and_lines_start_with_words(pupils):
    longer = build(
        "y ~ x + (1 + x | school_of_town) + (1 | rater)", pupils.rename(columns={"school": "school_of_town"})
    )
    criterion = make_criterion(longer.design, reml=True)
    start = np.array([1.5, 0.0, 0.8, 1.0])
    fit = fit_of(LikelihoodEstimate(longer.design, criterion, maximise(criterion, start)))
    components = fit.variance_components()
    assert "corr(Intercept, x | school_of_town)" in repr(components) and "..." not in repr(components)
    assert "corr(Intercept, x | school_of_town)" in components._repr_html_()
    assert "corr(Intercept | school_of_town, x | school_of_town)" in components.index  # as draws have it
    lines = [line.strip() for line in str(longer.equations(fit)).splitlines()]
    assert not [line for line in lines if line.startswith(",")]
    assert sum(line.startswith("sd ") and ", corr " in line for line in lines) == 1


def test_estimates_keep_their_signs(classes):
    """Of a slope and a covariance below zero; the offset is part of the mean."""
    b = np.random.default_rng(4).normal(size=6)[classes["school"]]
    rows = classes.assign(y=classes["y"] + b - 2 * (1 + b) * classes["x"])
    model = build("y ~ x + offset(w) + (1 + x | school) + (1 | school:class)", rows)
    fit = model.fit_ml()
    text, D = model.equations(fit).text, fit.D["school"].iloc[0, 1]
    assert fit.beta["x"] < 0 and D < 0
    assert f"{fit.beta['Intercept']:.2f} − {-fit.beta['x']:.2f}·xᵢ + offset(w)ᵢ".removeprefix("-") in text
    assert f"− {-2 * D:.2f}·xᵢ + " in text and f"⎣ −{-D:.2f}" in text and f" + {fit.sigma**2:.2f} I" in text


def test_random_effects_that_do_not_correlate_have_no_covariance(classes):
    written = build("y ~ 1 + (1 + x || school) + (0 + x | school:class)", classes).equations()
    assert written.marginal[1].text == "Var(yᵢ) = D₀₀[school] + D₁₁[school]·xᵢ² + σ²[school:class]·xᵢ² + σ²"
    assert "0" in written.levels[2].equations[-1].text.split()


def test_prints_begin_with_the_equations(pastes):
    model = build("strength ~ 1 + (1 | batch / cask)", pastes)
    title, rest = repr(model).split("\n\n", 1)
    assert title == "Multilevel model: strength by batch:cask, batch"
    assert rest.startswith(model.equations().text)
    assert model.equations().html in model._repr_html_()
    alone = build("strength ~ 1 + (1 | batch:cask)", pastes)
    assert "Level 2: between subjects" in repr(alone) and alone.equations().level1 is not None


def test_estimates_of_another_model_are_refused(model, fit, nested, pastes):
    with pytest.raises(SpecificationError, match="fixed effects"):
        model.equations(nested)
    other = build("strength ~ 1 + (1 | batch)", pastes)
    with pytest.raises(SpecificationError, match="random effects"):
        other.equations(nested)
