"""Means, contrasts and slopes against emmeans."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from effect_fits import AT, METHODS, fitted, frozen

from hierlmm.errors import NotAvailableError


def agree(effects, rows, *, p_rtol=1e-5, p_atol=0.0):
    """Compare a table with emmeans' rows, in emmeans' order (its first factor changes fastest)."""
    theirs, ours = pd.DataFrame(rows), effects.table
    assert len(ours) == len(theirs)
    estimate = next(c for c in theirs.columns if c in ("estimate", "emmean") or c.endswith(".trend"))
    np.testing.assert_allclose(ours["estimate"], theirs[estimate].astype(float), rtol=1e-7)
    np.testing.assert_allclose(ours["se"], theirs["SE"], rtol=1e-7)
    np.testing.assert_allclose(ours["df"], theirs["df"], rtol=2e-7)
    scale = theirs["SE"].max()
    for side in ("lower", "upper"):
        np.testing.assert_allclose(ours[side], theirs[f"{side}.CL"], rtol=1e-6, atol=2e-6 * scale)
    if "p" in ours:
        np.testing.assert_allclose(ours["t"], theirs["t.ratio"], rtol=1e-6)
        np.testing.assert_allclose(ours["p"], theirs["p.value"], rtol=p_rtol, atol=p_atol)


@pytest.mark.parametrize("name", ["dental_reml", "dental_ml", "dental_diagonal_reml"])
@pytest.mark.parametrize("method", METHODS)
def test_dental_means_contrasts_and_slopes_are_emmeans(name, method):
    ref, fit, df = frozen(name), fitted(name), METHODS[method]
    if (name, method) == ("dental_ml", "kenward_roger"):
        with pytest.raises(NotAvailableError, match="corrects the REML estimates"):
            fit.marginal_means("sex", df=df)
        return
    agree(fit.marginal_means("sex", by="time", at=AT, df=df), ref["means"][method])
    agree(fit.marginal_means("sex", df=df), ref["means_overall"][method])
    agree(fit.contrasts("sex", by="time", at=AT, df=df), ref["pairs"][method])
    agree(fit.slopes("time", by="sex", df=df), ref["slopes"][method])
    agree(fit.slopes("time", by="sex", df=df).contrasts(), ref["slopes_pairs"][method])
    # Tukey for all six pairs of cells; emmeans orders the cells with sex fastest.
    cells = fit.contrasts(["time", "sex"], at=AT, df=df)
    agree(cells, ref["cells_tukey"][method], p_rtol=1e-4, p_atol=1e-10)
    assert cells.adjust == "tukey" and "all pairs of 4" in repr(cells)


@pytest.mark.parametrize("method", METHODS)
def test_petri_with_every_correction(method):
    ref, fit, df = frozen("petri_reml"), fitted("petri_reml"), METHODS[method]
    agree(fit.marginal_means("group", df=df), ref["means"][method])
    for adjust in ("tukey", "holm", "bonferroni", "sidak", "none", "fdr"):
        # emmeans computes 1 - (1 - p)^m and 1 - ptukey-like tails with rounding errors of 1e-13.
        agree(fit.contrasts("group", adjust=adjust, df=df), ref[f"pairs_{adjust}"][method], p_rtol=1e-4, p_atol=1e-12)
    agree(fit.contrasts("group", "trt.vs.ctrl", adjust="none", df=df), ref["control_none"][method])
    agree(fit.contrasts("group", "consecutive", adjust="none", df=df), ref["consecutive_none"][method])
    weights = {"treated - control": [-1, 0.5, 0.5]}
    agree(fit.contrasts("group", weights, df=df), ref["custom"][method])
    by_label = {"treated - control": {"A": 0.5, "Control": -1, "B": 0.5}}
    agree(fit.contrasts("group", by_label, df=df), ref["custom"][method])


@pytest.mark.parametrize("method", METHODS)
def test_rat_pups_with_weights_families_and_a_covariate(method):
    ref, fit, df = frozen("rat_pups_reml"), fitted("rat_pups_reml"), METHODS[method]
    agree(fit.marginal_means("treatment", df=df), ref["means_equal"][method])
    agree(fit.marginal_means("treatment", weights="proportional", df=df), ref["means_proportional"][method])
    held, some = {"sex": "Male", "lsize": [10, 14]}, {"treatment": ["Control", "High"]}
    agree(fit.marginal_means("lsize", at=held, weights="proportional", df=df), ref["means_held"][method])
    agree(fit.marginal_means("treatment", at=some, weights="proportional", df=df), ref["means_some"][method])
    agree(fit.marginal_means("treatment", by="sex", at={"lsize": 10}, df=df), ref["means_by"][method])
    agree(fit.contrasts("treatment", df=df), ref["pairs"][method], p_rtol=1e-4)
    agree(fit.contrasts("treatment", by="sex", df=df), ref["pairs_by"][method], p_rtol=1e-4)
    agree(fit.contrasts("treatment", by="sex", adjust="holm", df=df), ref["pairs_by_holm"][method])
    agree(fit.contrasts("treatment", "trt.vs.ctrl", by="sex", adjust="none", df=df), ref["control_by"][method])


@pytest.mark.parametrize("method", METHODS)
def test_slopes_of_a_curve(method):
    ref = frozen("sleepstudy_quadratic_reml")["slopes"][method]
    effects = fitted("sleepstudy_quadratic_reml").slopes("days", at={"days": [0, 4.5, 9]}, df=METHODS[method])
    theirs = pd.DataFrame(ref)
    # emtrends takes a forward difference with a step of 1e-6: 1e-6 of the curvature.
    np.testing.assert_allclose(effects.table["estimate"], theirs["days.trend"], rtol=1e-5)
    np.testing.assert_allclose(effects.table["se"], theirs["SE"], rtol=1e-5)
    np.testing.assert_allclose(effects.table["df"], theirs["df"], rtol=1e-4)
    expected = [[0.0, 1.0, 2 * d] for d in (0, 4.5, 9)]
    np.testing.assert_allclose(effects.L, expected, atol=1e-9)


def test_curves_count_the_rows_of_the_levels_that_are_held():
    fit, held = fitted("rat_pups_reml"), {"sex": "Male", "lsize": [10, 14]}
    rows = frozen("rat_pups_reml")["means_held"]["satterthwaite"]
    curve = fit.effects("lsize", at=held, weights="proportional", df="satterthwaite").table
    np.testing.assert_allclose(curve["estimate"], [row["emmean"] for row in rows], rtol=1e-7)
    np.testing.assert_allclose(curve["se"], [row["SE"] for row in rows], rtol=1e-7)
