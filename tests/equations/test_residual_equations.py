"""Equations of residual structures and marginal models, against the matrices."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from residual_models import CORRELATIONS, VARIANCES, NamedTent, Squared, marginal, two_level

import hierlmm as hl
from hierlmm.design.build import design_from_fixed
from hierlmm.design.formula import parse_formula
from hierlmm.design.residual import make_residual
from hierlmm.equations.describe import describe_model
from hierlmm.equations.residual_symbols import formula_of, spec_text
from hierlmm.errors import DataError, SpecificationError


def evaluate(text, rows):
    """Value of the right side of an equation in text, for two rows j and k of a subject."""
    text = re.sub(r",\s+j ≠ k$", "", text.split(" = ")[-1])
    for mark, row in (("ⱼ", rows[0]), ("ₖ", rows[1])):
        for name in ("visit", "time", "age"):
            text = text.replace(f"{name}ᵢ{mark}", f"({row[name]})")
    text = text.replace("j − k", f"{rows[0]['place']} − {rows[1]['place']}")
    digits = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
    text = re.sub(r"·10(⁻?[⁰¹²³⁴⁵⁶⁷⁸⁹]+)", lambda m: f"e{m[1].translate(digits)}", text)
    for mark, power in (("²", "**2"), ("⁻", "-"), ("·", "*"), ("−", "-"), ("^", "**")):
        text = text.replace(mark, power)
    text = re.sub(r"\|([^|]*)\|", r"abs(\1)", text)
    return eval(text, {"exp": np.exp, "abs": abs})  # the text was made here


@pytest.mark.parametrize("spec", CORRELATIONS[:6], ids=spec_text)
def test_estimated_correlation_is_the_matrix(spec, visits):
    model = marginal(visits, spec)
    fit = model.fit_ml()
    text = next(e.text for e in model.equations(fit).residual if e.text.startswith("Corr("))
    rows = visits[visits["subject"] == visits["subject"].iloc[0]].sort_values("time")
    R = fit.residual_estimate.correlations(rows)
    records = [{**row, "place": i} for i, row in enumerate(rows.to_dict("records"))]
    for j, k in ((0, 1), (0, 3), (2, 1)):
        assert evaluate(text, (records[j], records[k])) == pytest.approx(R[j, k], abs=0.02)


@pytest.mark.parametrize("variance", [hl.VarPower("age"), hl.VarExp("time")], ids=spec_text)
def test_estimated_marginal_covariance_is_v(variance, visits):
    model = two_level(visits, residual=hl.Exponential("time"), residual_variance=variance)
    fit = model.fit_reml()
    V = fit.marginal_covariance().to_numpy()
    rows = visits.loc[fit.marginal_covariance().index]
    records = [{**row, "place": i} for i, row in enumerate(rows.to_dict("records"))]
    texts = [e.text for e in model.equations(fit).marginal]
    for j, k in ((0, 0), (3, 3), (0, 1), (0, 3)):
        text = next(t for t in texts if t.startswith("Var(" if j == k else "Cov("))
        assert evaluate(text, (records[j], records[k])) == pytest.approx(V[j, k], rel=0.03)


def test_two_level_with_structure(dental, serial):
    model = two_level(dental, residual=hl.AR1(), residual_variance=hl.VarIdent("sex"))
    eq = model.equations()
    assert eq.random[-1].text == "eᵢ ~ N(0, Σᵢ)"
    assert [e.text for e in eq.residual] == [
        "Σᵢ = σ² Gᵢ Rᵢ Gᵢ",
        "Corr(eᵢⱼ, eᵢₖ) = Rᵢ[j, k] = ρ^|j − k|",
        "SD(eᵢⱼ) = σ·Gᵢ[j, j] = σ·ratio(sexᵢ)",
        "ratio(sexᵢ) = 1 for Female",
    ]
    assert [e.text for e in eq.marginal[1:]] == [
        "Var(distanceᵢⱼ) = σ²_b0 + σ²·ratio(sexᵢ)²",
        "Cov(distanceᵢⱼ, distanceᵢₖ) = σ²_b0 + σ²·ratio(sexᵢ)²·ρ^|j − k|,  j ≠ k",
        "Vᵢ = Zᵢ D Zᵢᵀ + Σᵢ",
    ]
    assert eq.residual[1].latex == (r"\mathrm{Corr}(e_{ij}, e_{ik}) = (R_{i})_{jk} = \rho^{|j - k|}")
    assert "Residuals of a subject are correlated (AR1, by the order of the rows), and their SD differs with sex." in (
        " ".join(eq.text.split())
    )
    estimated = [e.text for e in model.equations(serial).residual]
    assert estimated[0] == "Σᵢ = σ² Gᵢ Rᵢ Gᵢ,  σ = 0.79"
    assert estimated[1].endswith("= 0.077^|j − k|")
    assert estimated[3] == "ratio(sexᵢ) = 1 for Female, 2.17 for Male"


def test_structures_in_symbols(visits):
    written = {
        spec_text(s): marginal(visits, s).equations().residual[0].text.split("Rᵢ[j, k]")[1] for s in CORRELATIONS
    }
    assert written == {
        "AR1()": " = ρ^|j − k|",
        "AR1('visit', nugget=True)": " = (1 − nugget)·ρ^|visitᵢⱼ − visitᵢₖ|,  j ≠ k",
        "CAR1('time')": " = φ^|timeᵢⱼ − timeᵢₖ|",
        "Exponential('time', nugget=True)": " = (1 − nugget)·exp(−|timeᵢⱼ − timeᵢₖ| / range),  j ≠ k",
        "Gaussian('time')": " = exp(−(|timeᵢⱼ − timeᵢₖ| / range)²)",
        "CompoundSymmetry()": " = ρ,  j ≠ k",
        "Toeplitz('visit')": " = ρ(|visitᵢⱼ − visitᵢₖ|),  j ≠ k",
        "Unstructured('age')": " = ρ(ageᵢⱼ, ageᵢₖ),  j ≠ k",
        "Tent()": " = Tent(timeᵢⱼ, timeᵢₖ)",
        "NamedTent()": ", where R[s, t] = max(0, 1 - |lag| / reach) & <more>",
        "Squared()": " = Squared(j, k)",
    }
    deviations = {spec_text(v): marginal(visits, None, v).equations().residual[0].text for v in VARIANCES[1:]}
    assert deviations == {
        "VarIdent('sex')": "SD(distanceᵢⱼ) = σ·Gᵢ[j, j] = σ·ratio(sexᵢ)",
        "VarIdent('age')": "SD(distanceᵢⱼ) = σ·Gᵢ[j, j] = σ·ratio(ageᵢⱼ)",
        "VarPower('age')": "SD(distanceᵢⱼ) = σ·Gᵢ[j, j] = σ·|ageᵢⱼ|^power",
        "VarExp('time')": "SD(distanceᵢⱼ) = σ·Gᵢ[j, j] = σ·exp(rate·timeᵢⱼ)",
        "Steps()": "SD(distanceᵢⱼ) = σ·Gᵢ[j, j]",
    }
    assert formula_of(Squared()) == "" and formula_of(NamedTent()).startswith("max(")


def test_marginal_model_has_no_levels(dental, cs):
    model = marginal(dental, hl.CompoundSymmetry())
    eq = model.equations()
    assert eq.level1 is None and eq.combined is None and not eq.level2 and not eq.random
    assert [e.text for e in (*eq.marginal, *eq.residual)] == [
        "E(distanceᵢⱼ) = β₀ + β₁·sex[Male] + β₂·timeᵢⱼ + β₃·sex[Male]·timeᵢⱼ",
        "distanceᵢ ~ N(E(distanceᵢ), Vᵢ)",
        "Vᵢ = σ² Rᵢ",
        "Corr(distanceᵢⱼ, distanceᵢₖ) = Rᵢ[j, k] = ρ,  j ≠ k",
    ]
    text = repr(model)
    lines = text.splitlines()
    assert lines[0] == "Marginal model: distance by subject"
    assert "Formula: distance ~ 1 + sex + time + sex:time" in lines
    for word in ("Level", "level-1", "random effects b", "structure of D"):
        assert word not in text
    assert "  covariance parameters       2 (1 in the residual correlation, and σ)" in lines
    assert lines[-1].startswith("Fit with .fit() (NUTS), .fit_reml() or .fit_ml()")
    estimated = model.equations(cs)
    assert estimated.estimator == "REML"
    assert estimated.marginal[0].text == "E(distanceᵢⱼ) = 21.21 + 1.41·sex[Male] + 0.48·timeᵢⱼ + 0.30·sex[Male]·timeᵢⱼ"
    assert estimated.marginal[2].text == "Vᵢ = σ² Rᵢ,  σ = 2.28"
    assert "ordinary regression" in repr(marginal(dental))


def test_marginal_mean_without_intercept_with_offset(dental):
    data = dental.assign(o=dental["time"] * 0.1)
    model = hl.MarginalModel(
        "distance ~ 0 + sex + time + offset(o)", correlation=hl.AR1(), subject="subject", data=data
    )
    assert model.equations().marginal[0].text == (
        "E(distanceᵢⱼ) = β₁·sex[Female] + β₂·sex[Male] + β₃·timeᵢⱼ + offset(o)ᵢⱼ"
    )


def test_variance_of_the_fitted_value_is_not_averaged_over_b(dental):
    model = two_level(dental, residual_variance=hl.VarPower())
    assert model.equations().residual[1].text == "SD(eᵢⱼ) = σ·Gᵢ[j, j] = σ·|E(distanceᵢⱼ | bᵢ)|^power"
    assert [e.left.text for e in model.equations().marginal] == ["E(distanceᵢⱼ)", "Vᵢ"]


def test_correlations_close_to_one_do_not_become_one(sleepstudy):
    data = sleepstudy.assign(minutes=sleepstudy["days"] * 1440.0)
    model = hl.MarginalModel("reaction ~ days", correlation=hl.CAR1("minutes"), subject="subject", data=data)
    text = model.equations(model.fit_reml()).residual[0].text
    assert re.search(r"= 0\.999\d+\^\|", text)


def test_parameters_are_counted_as_the_fit_counts_them(visits):
    for correlation in CORRELATIONS:
        for variance in (None, hl.VarIdent("sex")):
            model = marginal(visits, correlation, variance)
            counted = int(re.search(r"covariance parameters +(\d+)", repr(model)).group(1))
            fit = model.fit_ml()
            assert counted == fit.n_parameters - len(fit.beta)
    mixed = repr(two_level(visits, residual=hl.Toeplitz("visit"), residual_variance=hl.VarIdent("sex")))
    expected = "covariance parameters 6 (1 in D, 3 in the residual correlation, 1 in the residual variance, and σ)"
    assert expected in " ".join(mixed.split())
    assert "Toeplitz('visit'): rho(1), rho(2), rho(3)" in mixed and "VarIdent('sex'): ratio(Male/Female)" in mixed


def test_a_structure_that_the_data_cannot_carry_is_said(dental):
    doubled = pd.concat([dental, dental], ignore_index=True)
    with pytest.raises(DataError, match="108 such pairs"):
        marginal(doubled, hl.Exponential("time"))
    structure = make_residual(hl.Exponential("time"), None)
    design = design_from_fixed(parse_formula("distance ~ sex * time"), "subject", doubled, residual=structure)
    text = describe_model(design)
    assert "cannot be fitted" in text and "same" in text
    assert "not known: the residual structure does not fit these data" in " ".join(text.split())


def test_estimates_of_another_structure_are_refused(dental, cs, intercepts, un):
    with pytest.raises(SpecificationError, match=r"estimates of a model with CompoundSymmetry\(\)"):
        marginal(dental, hl.AR1()).equations(cs)
    with pytest.raises(SpecificationError, match="random effects Intercept"):
        marginal(dental).equations(intercepts)
    with pytest.raises(SpecificationError, match="independent residuals"):
        two_level(dental, residual=hl.AR1()).equations(intercepts)
    with pytest.raises(SpecificationError, match="Unstructured"):
        marginal(dental, hl.CompoundSymmetry()).equations(un)
