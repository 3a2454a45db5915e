"""Prints of fits with residual structures, against nlme, and the digits of tables."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from references import reference
from residual_models import NamedTent, Tent, marginal

import hierlmm as hl
from hierlmm.fits.named_draws import parameter_draws
from hierlmm.fits.side_by_side import MARGINAL_SIGMA
from hierlmm.text import table_text

REFERENCE = reference("dental_print", "structures")


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


def test_no_line_of_a_print_begins_with_a_comma(visits):
    for model in (marginal(visits, NamedTent()), marginal(visits, Tent())):
        for text in (repr(model), model.equations(model.fit_ml()).text):
            assert not [line for line in text.splitlines() if line.lstrip().startswith(",")], text
