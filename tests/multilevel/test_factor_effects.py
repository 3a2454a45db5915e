"""Curves of the mean along a covariate of models with several factors."""

from __future__ import annotations

import numpy as np
import pytest

import hierlmm as hl


def test_partial_residuals_are_around_the_lines_of_all_groups(fit):
    curves = fit.effects("x", by="kind")
    points, frame = curves.points("partial"), fit.design.frame
    line = fit.fitted("population").to_numpy()
    np.testing.assert_allclose(points["y"], line + fit.residuals().to_numpy(), rtol=1e-9)
    around = curves.points("partial", residual_level="population")
    np.testing.assert_allclose(around["y"], frame["y"], rtol=1e-9)


def test_curves_say_what_moves_together_within_which_groups(pupils):
    """z has a level of its own in every class, and along x a constant slope: within classes only."""
    level = np.random.default_rng(2).normal(size=(8, 3))[pupils["school"], pupils["class"]]
    rows = pupils.assign(z=pupils["x"] + 20.0 * level)
    found = hl.MultilevelModel.from_formula("y ~ x + z + (1 | school / class)", rows).fit_ml().effects("x")
    assert "within groups of school:class z changes exactly with x" in " ".join(repr(found).split())
    rows["z"] = rows["x"] + 20.0 * np.sqrt(rows["school"])
    found = hl.MultilevelModel.from_formula("y ~ x + z + (1 | school / class)", rows).fit_ml().effects("x")
    assert "within groups of school z changes" in " ".join(repr(found).split())  # and so within their classes
    other = hl.MultilevelModel.from_formula("y ~ x + (1 | school / class)", rows).fit_ml().effects("x")
    assert "changes exactly" not in repr(other)


def test_a_covariate_of_groups_that_follows_another_is_refused(pupils):
    """Of schools: u is a function of w there, whatever the classes and rows do."""
    w = np.random.default_rng(3).permutation(8).astype(float)
    rows = pupils.assign(w=w[pupils["school"]], u=np.exp(0.3 * w)[pupils["school"]])
    fit = hl.MultilevelModel.from_formula("y ~ w + u + (1 | school / class)", rows).fit_ml()
    with pytest.raises(hl.errors.SpecificationError, match="'u' is a function of 'w'"):
        fit.effects("w")
