"""Residual structures and marginal models in print: equations against the matrices, prints against nlme, refusals."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from references import reference

import hierlmm as hl
from hierlmm.covariance.parameters import Parameter
from hierlmm.covariance.residual import ResidualCorrelation
from hierlmm.covariance.variance import VarianceFunction
from hierlmm.design.build import design_from_fixed
from hierlmm.design.formula import parse_formula
from hierlmm.design.residual import make_residual
from hierlmm.equations.describe import describe_model
from hierlmm.equations.residual_symbols import formula_of, spec_text
from hierlmm.errors import DataError, NotAvailableError, SpecificationError
from hierlmm.fits.side_by_side import MARGINAL_SIGMA
from hierlmm.plots.posterior import parameter_draws
from hierlmm.text import table_text

ROOT = Path(__file__).parents[2]
REFERENCE = reference("dental_print", "structures")


@dataclasses.dataclass(frozen=True)
class Tent(ResidualCorrelation):
    """A user's structure: ``max(0, 1 - lag / reach)``."""

    time: str = "time"

    def parameters(self, observed):
        return (Parameter("reach", 12.0, 6.5),)

    def matrix(self, t, values):
        return np.maximum(0.0, 1.0 - np.abs(t[..., :, None] - t[..., None, :]) / values[0])


@dataclasses.dataclass(frozen=True)
class NamedTent(Tent):
    def formula(self):
        return "max(0, 1 - |lag| / reach) & <more>"


@dataclasses.dataclass(frozen=True)
class Squared(hl.AR1):
    """Inherits a formula that is not its own."""

    def matrix(self, t, values):
        return super().matrix(t, values) ** 2

    def markov(self, gaps, values):
        return None


@dataclasses.dataclass(frozen=True)
class Steps(VarianceFunction):
    variable: str = "time"

    def prepare(self, column):
        return column.to_numpy(dtype=float), None

    def parameters(self, v, state):
        return (Parameter("jump", 1.2, 0.0),)

    def log_ratio(self, v, values):
        return np.log(values[0]) * (v > 2)


def two_level(data, **structure):
    return hl.TwoLevelModel(
        "distance ~ time",
        {"Intercept": "sex", "time": "sex"},
        subject="subject",
        data=data,
        random=["Intercept"],
        **structure,
    )


def marginal(data, correlation=None, variance=None):
    return hl.MarginalModel(
        "distance ~ sex * time", correlation=correlation, variance=variance, subject="subject", data=data
    )


CORRELATIONS = [
    hl.AR1(),
    hl.AR1("visit", nugget=True),
    hl.CAR1("time"),
    hl.Exponential("time", nugget=True),
    hl.Gaussian("time"),
    hl.CompoundSymmetry(),
    hl.Toeplitz("visit"),
    hl.Unstructured("age"),
    Tent(),
    NamedTent(),
    Squared(),
]
VARIANCES = [None, hl.VarIdent("sex"), hl.VarIdent("age"), hl.VarPower("age"), hl.VarExp("time"), Steps()]


@pytest.fixture(scope="module")
def visits(dental):
    return dental.assign(visit=(dental["time"] / 2 + 1).astype(int))


@pytest.fixture(scope="module")
def un(dental):
    return marginal(dental, hl.Unstructured("age"), hl.VarIdent("age")).fit_reml()


@pytest.fixture(scope="module")
def cs(dental):
    return marginal(dental, hl.CompoundSymmetry()).fit_reml()


@pytest.fixture(scope="module")
def intercepts(dental):
    return two_level(dental).fit_reml()


@pytest.fixture(scope="module")
def serial(dental):
    return two_level(dental, residual=hl.AR1(), residual_variance=hl.VarIdent("sex")).fit_reml()


# --- equations -------------------------------------------------------------------------------------------------------


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
            fit = model.fit_ml() if correlation == CORRELATIONS[0] or variance is None else None
            if fit is not None:
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


# --- three notations -------------------------------------------------------------------------------------------------


class Balanced(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attrs):
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def mathml(latex):
    pytest.importorskip("sphinx")
    if "hierlmm_mathml" not in sys.modules:
        spec = importlib.util.spec_from_file_location("hierlmm_mathml", ROOT / "docs" / "_ext" / "mathml.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules["hierlmm_mathml"] = module
        spec.loader.exec_module(module)
    return sys.modules["hierlmm_mathml"].to_mathml(latex, block=True)


@pytest.fixture(scope="module")
def awkward(visits):
    """Names and labels that need escaping."""
    labels = np.where(visits["sex"] == "Male", "<M & m>", "F_1 %")
    return visits.rename(columns={"time": "dose 1"}).assign(**{"g & h": labels})


@pytest.mark.parametrize("correlation", [None, *CORRELATIONS], ids=lambda s: s and spec_text(s))
@pytest.mark.parametrize("variance", [None, "ident", "power"])
def test_every_structure_renders(correlation, variance, awkward):
    if correlation is not None and correlation.time == "time":
        correlation = dataclasses.replace(correlation, time="dose 1")
    spec = {"ident": hl.VarIdent("g & h"), "power": hl.VarPower("age"), None: None}[variance]
    two = hl.TwoLevelModel(
        "distance ~ `dose 1`", subject="subject", data=awkward, residual=correlation, residual_variance=spec
    )
    one = hl.MarginalModel(
        "distance ~ `dose 1` * `g & h`", correlation=correlation, variance=spec, subject="subject", data=awkward
    )
    for model in (two, one):
        eq = model.equations()
        markup = mathml(eq.latex)
        assert markup.startswith("<math") and "merror" not in markup
        assert eq.latex.count("{") - eq.latex.count(r"\{") == eq.latex.count("}") - eq.latex.count(r"\}")
        for source in (model._repr_html_(), eq._repr_html_()):
            page = Balanced()
            page.feed(source)
            assert page.open == [] and "<M" not in source and "http" not in source
        assert max(map(len, repr(model).splitlines())) <= 100


def test_estimates_render(un, serial, visits):
    toeplitz = marginal(visits, hl.Toeplitz("visit"))
    for model, fit in (
        (marginal(visits, hl.Unstructured("age"), hl.VarIdent("age")), un),
        (two_level(visits, residual=hl.AR1(), residual_variance=hl.VarIdent("sex")), serial),
        (toeplitz, toeplitz.fit_ml()),
    ):
        eq = model.equations(fit)
        assert mathml(eq.latex).count("<mtable") >= 1
        for source in (eq._repr_html_(), fit._repr_html_()):
            page = Balanced()
            page.feed(source)
            assert page.open == []
    R = next(e for e in marginal(visits, hl.Unstructured("age"), hl.VarIdent("age")).equations(un).residual[1:])
    assert R.text.splitlines()[0] == "R at age 8, 10, 12, 14 = ⎡ 1      0.57   0.66   0.52 ⎤"


def test_long_labels_and_many_lags(visits, sleepstudy):
    names = ["baseline visit", "second, after a year", "third", "final check-up at the clinic"]
    data = visits.assign(place=[names[v - 1] for v in visits["visit"]])
    model = marginal(data, hl.Unstructured("place"), hl.VarIdent("place"))
    fit = model.fit_reml()
    for text in (repr(model), repr(fit), model.equations(fit).text):
        assert max(map(len, text.splitlines())) <= 110
    assert "R at the values of place in order = ⎡ 1 " in model.equations(fit).text
    lags = hl.MarginalModel("reaction ~ days", correlation=hl.Toeplitz("days"), subject="subject", data=sleepstudy)
    fit = lags.fit_reml()
    rho = fit.residual_estimate.correlation_parameters
    assert lags.equations(fit).residual[1].text == f"ρ between {min(rho.values()):.2f} and {max(rho.values()):.2f}"
    rows = repr(fit).splitlines()
    start = rows.index("Residual correlation: Toeplitz('days'), R[s, t] = rho_|s - t| in days")
    assert rows[start + 10].split() == ["10", *(f"{v:.3f}" for v in reversed(rho.values()))]


# --- fits ------------------------------------------------------------------------------------------------------------


def scaled(text):
    line = text.splitlines()[text.splitlines().index("Scaled residuals:") + 2]
    return list(map(float, line.split()))


def test_marginal_print_has_nlme_numbers(un):
    text, ref = repr(un), REFERENCE["un"]
    lines = text.splitlines()
    assert lines[0] == "Marginal linear model fitted by REML (generalised least squares)"
    assert lines[1] == "Formula: distance ~ 1 + sex + time + sex:time"
    assert "Random effects" not in text and "Coefficients:" in lines
    np.testing.assert_allclose(scaled(text), ref["quantiles"], atol=2e-4)
    start = lines.index("Residual correlation: Unstructured('age'), R[s, t] = rho_st, one for each pair of occasions")
    assert lines[start + 1].split() == ["8", "10", "12"]
    printed = [float(v) for line in lines[start + 2 : start + 5] for v in line.split()[1:]]
    r = ref["corr"]  # by column of the lower triangle
    np.testing.assert_allclose(printed, [r[0], r[1], r[3], r[2], r[4], r[5]], atol=6e-4)
    start = lines.index("Residual variance: VarIdent('age'), SD = sigma · ratio[age]")
    table = [list(map(float, line.split())) for line in lines[start + 2 : start + 6]]
    np.testing.assert_allclose([row[1] for row in table], [1.0, *ref["ratio"]], rtol=2e-4)
    np.testing.assert_allclose([row[2] for row in table], ref["sigma"] * np.array([1.0, *ref["ratio"]]), rtol=2e-4)


def test_two_level_print_has_nlme_numbers(serial):
    text, ref = repr(serial), REFERENCE["lme"]
    lines = text.splitlines()
    assert lines[0] == "Two-level linear mixed model fitted by REML"
    np.testing.assert_allclose(scaled(text), ref["quantiles"], atol=5e-4)
    start = lines.index("Residual correlation: AR1(), R[s, t] = rho^|s - t| in the order of the rows")
    assert float(lines[start + 2]) == pytest.approx(ref["rho"], abs=1e-4)
    groups = {line.split()[0]: float(line.split()[2]) for line in lines if re.match(r" (Fem|M)ale ", line)}
    # nlme takes Male as the group with ratio 1.
    assert groups == pytest.approx({"Male": ref["sigma"], "Female": ref["sigma"] * ref["ratio"][1]}, rel=2e-4)
    assert max(map(len, lines)) <= 110
    note = lines.index(next(line for line in lines if line.startswith("Note: ")))
    assert lines[note + 1].startswith("      ")


def test_print_of_other_variances(visits):
    fit = marginal(visits, None, hl.VarPower("age")).fit_reml()
    lines = repr(fit).splitlines()
    start = lines.index("Residual variance: VarPower('age'), SD = sigma · |age|^power")
    low, high = map(float, re.fullmatch(r" SD of a row: (\S+) to (\S+)", lines[start + 3]).groups())
    power = fit.residual_estimate.parameters["power"]
    ends = sorted([fit.sigma * 8**power, fit.sigma * 14**power])
    assert [low, high] == pytest.approx(ends, rel=1e-4)


def posterior_of(fit):
    from hierlmm.fit.posterior import PosteriorFit

    return PosteriorFit(fit.design, fit.to_datatree(draws=200), None)


def test_large_sample_draws_hold_the_residual_parameters(un, serial):
    draws = parameter_draws(un)
    assert set(draws) >= {"rho(8, 10)", "ratio(14/8)", "sigma", MARGINAL_SIGMA}
    components = un.variance_components()
    for name in ("rho(8, 10)", "rho(12, 14)", "ratio(10/8)"):
        values = draws[name].ravel()
        np.testing.assert_allclose(np.quantile(values, 0.5), components.loc[name, "estimate"], atol=0.02)
        np.testing.assert_allclose(values.std(), components.loc[name, "se"], rtol=0.15)
    assert "b" not in un.to_datatree()["posterior"]
    assert "rho" in parameter_draws(serial)


def test_posterior_print_shows_residual_parameters(serial, un):
    text = repr(posterior_of(serial))
    assert text.startswith("Two-level model, posterior by NUTS")
    block = text[text.index("Residual correlation: AR1()") :].splitlines()
    draws = serial.to_datatree(draws=200)["posterior"]["residual_correlation"].to_numpy().ravel()
    found = [float(v) for v in block[2].split()[1:]]
    np.testing.assert_allclose(found, [draws.mean(), *np.quantile(draws, [0.025, 0.975])], rtol=1e-3)
    assert "Residual variance: VarIdent('sex')" in text
    assert "ratio(Male/Female)" in posterior_of(serial)._repr_html_()
    text = repr(posterior_of(un))
    assert text.startswith("Marginal model, posterior by NUTS")
    assert "Random effects" not in text and "\n sigma " in text


def test_equations_of_a_posterior_have_its_means(dental, un):
    fit = posterior_of(un)
    mean = fit.datatree["posterior"]["residual_correlation"].mean(("chain", "draw")).to_numpy()
    text = marginal(dental, hl.Unstructured("age"), hl.VarIdent("age")).equations(fit).residual[1].text
    last = [float(v) for v in text.splitlines()[-1].strip(" ⎣⎦").split()[:3]]
    np.testing.assert_allclose(last, mean[3:], atol=0.0051)


# --- side by side ----------------------------------------------------------------------------------------------------


def test_hierarchy_beside_marginal_and_gee(dental, intercepts, cs):
    gee = two_level(dental).fit_gee(correlation="exchangeable")
    comparison = hl.compare(intercepts, cs, gee)
    assert comparison.labels == ["REML", "REML marginal", "GEE"]
    wide = comparison.wide()
    fixed = list(intercepts.beta.index)
    # Balanced, and rho positive: the three agree on beta, REML of the two models also on its standard error.
    for label in comparison.labels:
        np.testing.assert_allclose(wide.loc[fixed, (label, "estimate")], intercepts.beta, rtol=1e-6)
    np.testing.assert_allclose(wide.loc[fixed, ("REML marginal", "se")], intercepts.beta_se, rtol=1e-5)
    present = wide.xs("estimate", axis=1, level=1).notna()
    assert present.loc["sd(Intercept)"].tolist() == [True, False, False]
    assert present.loc["sigma"].tolist() == [True, False, False]
    assert present.loc[MARGINAL_SIGMA].tolist() == [False, True, False]
    assert present.loc["rho"].tolist() == [False, True, False]
    total = intercepts.sigma**2 + intercepts.sd_b["Intercept"] ** 2
    assert wide.loc[MARGINAL_SIGMA, ("REML marginal", "estimate")] == pytest.approx(np.sqrt(total), rel=1e-5)
    text = " ".join(repr(comparison).split())
    assert "REML marginal has no random effects: its sigma is the SD of a row" in text
    assert "Residual correlation and variance" in text
    for written in (comparison._repr_html_(), comparison.to_latex()):
        assert "sigma (marginal)" in written
    comparison.plot_forest(backend="none")
    only = comparison.plot_forest(parameters="residual", backend="none")
    assert only.data["parameter"].to_numpy().tolist() == ["rho"]


def test_reml_beside_ml_of_a_marginal_model(dental, un):
    ml = marginal(dental, hl.Unstructured("age"), hl.VarIdent("age")).fit_ml()
    comparison = hl.compare(un, ml)
    assert comparison.labels == ["REML", "ML"]
    assert comparison.wide().notna().all(axis=None)
    assert "not comparable with those of ML" in " ".join(repr(comparison).split())
    assert comparison.notes == ()


def test_other_structures_are_noted_and_other_means_refused(dental, un, cs, intercepts, serial):
    both = hl.compare(cs, un)
    assert both.labels == ["REML 1", "REML 2"]
    assert "REML 2 has Unstructured('age') and VarIdent('age') and REML 1 has CompoundSymmetry()" in both.notes[0]
    assert "independent residuals" in hl.compare(serial, intercepts).notes[0]
    # REML criteria of different fixed effects are not comparable; such fits cannot stand side by side at all.
    smaller = hl.MarginalModel(
        "distance ~ sex + time", correlation=hl.CompoundSymmetry(), subject="subject", data=dental
    ).fit_reml()
    with pytest.raises(SpecificationError, match="different fixed effects"):
        hl.compare(cs, smaller)


def test_a_parameter_of_two_structures_is_one_row(dental, cs):
    ar1 = marginal(dental, hl.AR1()).fit_reml()
    comparison = hl.compare(cs, ar1)
    assert comparison.wide().loc["rho"].xs("estimate", level=1).notna().all()
    assert comparison.notes


# --- plots -----------------------------------------------------------------------------------------------------------


def test_plots_of_a_marginal_fit(cs, intercepts):
    collection = cs.plot_trajectories(backend="none")
    assert {"lines", "points", "population"} <= set(collection.viz.children)
    assert "subject" not in collection.viz.children
    for draw in (
        lambda: cs.plot_trajectories(show="subject", backend="none"),
        lambda: cs.plot_shrinkage(backend="none"),
        lambda: cs.plot_random_effects(backend="none"),
    ):
        with pytest.raises(NotAvailableError, match="a marginal model"):
            draw()
    hl.compare(intercepts, cs).plot_random_effects(backend="none")
    panels = cs.plot_posterior(backend="none").data["parameter"].to_numpy().tolist()
    assert panels == [*cs.beta.index, "sigma", "rho"]
    hl.compare(intercepts, cs).plot_posterior(backend="none")


# --- rows of different size in one table -----------------------------------------------------------------------------


def _cells(text: str, row: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith(f"{row} ") and not line.endswith(":")][:1]
    return line[len(row) :].split()


def test_small_rows_of_a_table_keep_their_digits(dental: pd.DataFrame) -> None:
    """A slope beside an intercept in calendar years, by REML and by GEE."""
    data = dental.assign(year=dental["time"] + 2000)
    model = hl.TwoLevelModel.from_formula("distance ~ year + I(year**2) + (1 | subject)", data)
    for fit in (model.fit_reml(), hl.TwoLevelModel.from_formula("distance ~ sex*year + (1|subject)", data).fit_gee()):
        table = fit.summary()
        for name, row in table.iterrows():
            shown = [float(c) for c in _cells(repr(fit), str(name))[:4]]
            expected = row[["estimate", "se", "lower", "upper"]].to_numpy()
            np.testing.assert_allclose(shown, expected, rtol=6e-3)
    lines = table_text(pd.DataFrame({"a": [1234.5, 0.001234, np.nan]}, index=["x", "y", "z"]), 5).splitlines()
    assert lines[1:] == ["x  1234.5", "y     0.001234", "z"]
    assert lines[1].index(".") == lines[2].index(".")


def test_ordinary_tables_share_their_decimals(dental: pd.DataFrame) -> None:
    fit = hl.TwoLevelModel.from_formula("distance ~ sex*time + (1 + time | subject)", dental).fit_reml()
    assert _cells(repr(fit), "time") == ["0.480", "0.10372", "0.276", "0.683", "4.623"]
    assert _cells(repr(fit), "sex[T.Male]:time") == ["0.305", "0.13474", "0.041", "0.569", "2.262"]
    assert table_text(pd.DataFrame({"a": [1e-12, 5.0]}), 5).splitlines()[1].split() == ["0", "1.000e-12"]
    assert table_text(pd.DataFrame({"a": [0.0, 0.0]}), 3).splitlines()[1].split() == ["0", "0.00"]
