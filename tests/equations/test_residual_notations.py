"""Equations of residual structures as MathML and HTML."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from residual_models import CORRELATIONS, marginal, two_level

import hierlmm as hl
from hierlmm.equations.residual_symbols import spec_text

ROOT = Path(__file__).parents[2]


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
