"""Residuals against fitted values, and normal quantiles, of several factors."""

from __future__ import annotations

import numpy as np
import pytest

import hierlmm as hl
from hierlmm.diagnostics.factor_residuals import FactorResiduals
from hierlmm.diagnostics.normality import normality
from hierlmm.diagnostics.residual_curve import residual_curve
from hierlmm.errors import DataError

close = np.testing.assert_allclose


def test_responses_become_what_the_fit_has(fit):
    own, y = FactorResiduals(fit), fit.design.y[:, None]
    found = own.coefficients(y)
    for level in ("all", "population", *fit.b):
        close(own.fitted(found, level)[:, 0], fit.fitted(level), rtol=1e-8)
    for k, name in enumerate(fit.b):
        close(own.effects(found, k)[..., 0], fit.b[name], atol=1e-8)


def test_residuals_have_the_spread_of_the_definition(fit, dense):
    """Cov(r) = σ⁴ P with P = V⁻¹ - V⁻¹X(X'V⁻¹X)⁻¹X'V⁻¹."""
    inverse = np.linalg.inv(dense.V)
    P = inverse - inverse @ dense.X @ np.linalg.solve(dense.X.T @ inverse @ dense.X, dense.X.T @ inverse)
    close(FactorResiduals(fit).sd, dense.s2 * np.sqrt(np.diag(P)), rtol=1e-6)
    bands = normality(fit, (1, 2), 0.95, 50).bands
    assert list(bands) == [
        "residuals",
        "Intercept | school",
        "x | school",
        "Intercept | school:class",
        "Intercept | rater",
    ]
    scaled = np.sort(fit.residuals() / FactorResiduals(fit).sd)
    close(bands["residuals"].observed, scaled / np.sqrt(np.mean(scaled**2)), rtol=1e-6)
    Z = np.equal.outer(np.arange(5), fit.design.random[2].group.index)
    spread = fit.D["rater"].iloc[0, 0] * np.sqrt(np.diag(Z @ P @ Z.T))
    scaled = np.sort(fit.b["rater"]["Intercept"] / spread)
    close(bands["Intercept | rater"].observed, scaled / np.sqrt(np.mean(scaled**2)), rtol=1e-5)


def test_what_a_model_lacks_stands_out(pupils):
    """A curve that is taken for a line, and a school far from all others."""
    bent = pupils.assign(y=pupils["y"] + 1.5 * pupils["x"] ** 2)
    fit = hl.MultilevelModel.from_formula("y ~ x + (1 | school / class)", bent).fit_reml()
    assert residual_curve(fit, "pearson", "population", 0.95, 99).p_value < 0.05
    far = pupils.assign(y=pupils["y"] + 60.0 * (pupils["school"] == 3))
    fit = hl.MultilevelModel.from_formula("y ~ x + (1 | school) + (1 | rater)", far).fit_reml()
    assert normality(fit, (2,), 0.95, 199).bands["Intercept | school"].p_value < 0.05


def test_residuals_stand_around_the_lines_of_a_level(nested):
    for level, words in (("batch", "around the lines of batch."), ("all", "around the lines of all groups.")):
        picture = nested.plot_residuals(level=level, simulations=19, backend="none")
        assert words in " ".join(picture.caption.split())
    with pytest.raises(DataError, match="no such level"):
        nested.plot_residuals(level="cask", backend="none")
    assert residual_curve(nested, "pearson", "batch", 0.95, 99).p_value > 0.05
    assert nested.plot_qq(level=1, simulations=19, backend="none") is not None
