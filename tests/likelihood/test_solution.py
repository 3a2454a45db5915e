"""The solution at one θ against dense generalised least squares with the same V."""

import numpy as np
import pytest

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
    N, J, q = design.n_obs, design.n_subjects, len(design.term)
    V, ZD = np.zeros((N, N)), np.zeros((J, q, N))
    for j in range(J):
        rows = np.flatnonzero(design.subject_index == j)
        own = np.eye(len(rows)) if at.residual is None else at.residual.covariance(design.frame.iloc[rows])
        Z = design.Z[rows]
        V[np.ix_(rows, rows)] = Z @ at.D @ Z.T + at.sigma**2 * own
        ZD[j][:, rows] = at.D @ Z.T
    W = np.linalg.inv(V)
    cov = np.linalg.inv(design.X.T @ W @ design.X)
    beta = cov @ design.X.T @ W @ design.y
    r = design.y - design.X @ beta
    np.testing.assert_allclose(at.beta, beta, rtol=1e-9)
    np.testing.assert_allclose(at.beta_cov, cov, rtol=1e-9)
    np.testing.assert_allclose(at.b, ZD @ W @ r, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(at.root @ at.root.T, at.D)
    if working_sd is None:  # σ is at its best: the quadratic form is N - p, or N
        assert r @ W @ r == pytest.approx(N - reml * len(beta), rel=1e-9)
    else:
        assert at.whitened_sd == pytest.approx(working_sd * np.std(design.y), rel=1e-9)
    assert list(at.residual_parameters) == ([] if at.residual is None else list(at.residual.parameters))
