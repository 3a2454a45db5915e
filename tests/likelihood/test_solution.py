"""The solution at one θ against dense generalised least squares with the same V."""

import numpy as np
import pytest
from textbook import generalised_least_squares, marginal_covariance, random_effects, residual_blocks

import hierlmm as hl
from hierlmm.likelihood.estimate import make_criterion


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize(
    ("residual", "variance", "eta"),
    [(None, None, []), (hl.AR1(), None, [0.4]), (hl.AR1(), hl.VarIdent("sex"), [0.4, -0.3])],
)
@pytest.mark.parametrize("working_sd", [None, 0.7])
def test_solution_is_dense_least_squares(dental, reml, residual, variance, eta, working_sd):
    model = hl.TwoLevelModel.from_formula(
        "distance ~ sex * time + (1 + time | subject)", dental, residual=residual, residual_variance=variance
    )
    design = model.design
    at = make_criterion(design, reml=reml).solution(np.array([0.8, 0.3, 0.5, *eta]), working_sd)
    V = marginal_covariance(design, at.D, at.sigma, residual_blocks(design, at.residual))
    beta, cov, W = generalised_least_squares(design.X, design.y, V)
    r = design.y - design.X @ beta
    np.testing.assert_allclose(at.beta, beta, rtol=1e-9)
    np.testing.assert_allclose(at.beta_cov, cov, rtol=1e-9)
    np.testing.assert_allclose(at.b, random_effects(design, at.D, r, W)[0], rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(at.root @ at.root.T, at.D)
    if working_sd is None:  # σ is at its best: the quadratic form is N - p, or N
        assert r @ W @ r == pytest.approx(design.n_obs - reml * len(beta), rel=1e-9)
    else:
        assert at.whitened_sd == pytest.approx(working_sd * np.std(design.y), rel=1e-9)
    assert list(at.residual_parameters) == ([] if at.residual is None else list(at.residual.parameters))
