"""Marginal models beside others, and their pictures."""

from __future__ import annotations

import numpy as np
import pytest
from residual_models import marginal, two_level

import hierlmm as hl
from hierlmm.errors import NotAvailableError, SpecificationError
from hierlmm.fits.side_by_side import MARGINAL_SIGMA


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
