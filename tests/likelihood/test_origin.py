"""Where zero lies is a convention: a response far from zero, with and without an intercept column."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import hierlmm as hl
from hierlmm.bayes.collapsed import collapsed_posterior
from hierlmm.bayes.collapsed_residual import residual_posterior
from hierlmm.bayes.priors import resolve_priors
from hierlmm.design.constant import centre_columns, constant_combination

ORIGINS = (0.0, 1e3, 1e5, 1e6, 1e7, 1e8)


def measured(origin, first=0.0, sd=0.3, seed=1, J=16, n=5):
    """J subjects with n rows each: a response at ``origin``, times from ``first`` on."""
    rng = np.random.default_rng(seed)
    g, k = np.repeat(np.arange(J), n), np.tile(np.arange(n), J)
    t = k + rng.uniform(0, 0.5, J * n)
    b = rng.normal(0, sd, (J, 2))
    y = 1.3 * sd * (g % 2) + 0.3 * sd * t + b[g, 0] + 0.3 * b[g, 1] * t + rng.normal(0, sd, J * n)
    return pd.DataFrame({"g": g, "k": k, "t": first + t, "sex": np.array(["f", "m"])[g % 2], "y": origin + y})


# --- the same model with and without an intercept column --------------------------------------------------------------

TWICE = {
    "factor": ("0 + sex + t", "1 + sex + t"),
    "occasions": ("0 + C(k)", "1 + C(k)"),
    "cells": ("0 + sex:C(k)", "1 + sex * C(k)"),
    "own slopes": ("0 + sex + sex:t", "1 + sex * t"),
    "spline": ("0 + ns(t, knots=[1.5, 3], intercept=True)", "1 + ns(t, knots=[1.5, 3])"),
}
KINDS = {
    "intercepts": (" + (1 | g)", {}),
    "slopes": (" + (1 + t | g)", {}),
    "AR(1)": (" + (1 | g)", {"residual": hl.AR1("k")}),
    "unequal variances": (" + (1 | g)", {"residual_variance": hl.VarIdent("sex")}),
    "marginal, compound symmetric": ("", {"correlation": hl.CompoundSymmetry()}),
    "marginal, unstructured": ("", {"correlation": hl.Unstructured("k"), "variance": hl.VarIdent("k")}),
}


def model(fixed, kind, data, **more):
    bars, options = KINDS[kind]
    if bars:
        return hl.TwoLevelModel.from_formula(f"y ~ {fixed}{bars}", data, **options, **more)
    return hl.MarginalModel(f"y ~ {fixed}", subject="g", data=data, **options, **more)


def log_det_between(A, B):
    """Log|det M|² where X_A = X_B M: what the REML criteria of two parametrisations differ by."""
    M = np.linalg.lstsq(B.design.X, A.design.X, rcond=None)[0]
    return 2.0 * np.linalg.slogdet(M)[1]


@pytest.mark.parametrize("origin", (*ORIGINS, 310.0))
@pytest.mark.parametrize(("case", "kind"), [*((c, "intercepts") for c in TWICE), *(("factor", k) for k in KINDS)])
def test_both_parametrisations_are_one_model(case, kind, origin):
    data = measured(origin)
    A, B = (model(fixed, kind, data) for fixed in TWICE[case])
    for estimate in ("fit_reml", "fit_ml"):
        a, b = getattr(A, estimate)(), getattr(B, estimate)()
        assert a.converged
        assert b.converged
        between = log_det_between(A, B) if estimate == "fit_reml" else 0.0
        assert a.criterion == pytest.approx(b.criterion + between, rel=0, abs=1e-8)
        X_a, X_b = A.design.X, B.design.X
        np.testing.assert_allclose(X_a @ a.beta, X_b @ b.beta, rtol=1e-14, atol=1e-9)
        covariance = X_b @ b.beta_cov.to_numpy() @ X_b.T
        np.testing.assert_allclose(
            X_a @ a.beta_cov.to_numpy() @ X_a.T, covariance, atol=1e-8 * np.abs(covariance).max()
        )
        assert a.sigma == pytest.approx(b.sigma, rel=1e-8)
        if A.design.term:
            np.testing.assert_allclose(a.D, b.D, rtol=1e-6, atol=1e-8 * np.abs(b.D.to_numpy()).max())
            size = max(float(np.abs(b.b.to_numpy()).max()), 1e-8)
            np.testing.assert_allclose(a.b, b.b, rtol=0, atol=1e-7 * size + 1e-14 * origin)


@pytest.mark.parametrize("first", (0.0, 1990.0, 1e5))
def test_covariates_far_from_zero(first):
    data = measured(300.0, first)
    A, B = (model(fixed, "slopes", data) for fixed in TWICE["factor"])
    a, b = A.fit_reml(), B.fit_reml()
    assert a.converged
    assert a.criterion == pytest.approx(b.criterion, rel=0, abs=1e-8)
    assert a.beta["t"] == pytest.approx(b.beta["t"], rel=1e-8)
    assert a.beta_se["t"] == pytest.approx(b.beta_se["t"], rel=1e-8)
    assert a.beta["sex[f]"] == pytest.approx(b.beta["Intercept"], rel=1e-8)


def long_criterion(design, D, sigma, reml):
    """The dense criterion in extended precision (19 digits): Cholesky factors by plain loops, nothing centred."""
    same = design.subject_index[:, None] == design.subject_index[None, :]
    wide = np.longdouble
    Z, X, y = design.Z.astype(wide), design.X.astype(wide), design.y.astype(wide)
    V = np.where(same, Z @ D.astype(wide) @ Z.T, 0) + wide(sigma) ** 2 * np.eye(len(y), dtype=wide)

    def root(A):
        L = np.zeros_like(A)
        for j in range(len(A)):
            L[j, j] = np.sqrt(A[j, j] - L[j, :j] @ L[j, :j])
            L[j + 1 :, j] = (A[j + 1 :, j] - L[j + 1 :, :j] @ L[j, :j]) / L[j, j]
        return L

    L = root(V)
    white = np.column_stack([X, y])
    for j in range(len(y)):
        white[j] = (white[j] - L[j, :j] @ white[:j]) / L[j, j]
    Q, R = white.copy(), np.zeros((X.shape[1], X.shape[1]), dtype=wide)
    for a in range(X.shape[1]):
        for _ in range(2):
            for c in range(a):
                share = Q[:, c] @ Q[:, a]
                R[c, a] += share
                Q[:, a] -= share * Q[:, c]
        R[a, a] = np.sqrt(Q[:, a] @ Q[:, a])
        Q[:, a] /= R[a, a]
    residual = Q[:, -1]
    for _ in range(3):
        residual = residual - Q[:, :-1] @ (Q[:, :-1].T @ residual)
    n = len(y) - (X.shape[1] if reml else 0)
    value = n * np.log(2 * wide(np.pi)) + 2 * np.log(np.diag(L)).sum() + residual @ residual
    return float(value + (2 * np.log(np.diag(R)).sum() if reml else 0))


SPANNED = "y ~ 0 + sex + t + (1 | g)", "y ~ 1 + sex + t + (1 | g)"


@pytest.mark.parametrize("reml", (True, False))
@pytest.mark.parametrize(
    ("formula", "origin"),
    # Without the constant in the span of X there is nothing to centre: the variance of intercepts is the origin's.
    [*((f, o) for f in SPANNED for o in ORIGINS), *(("y ~ 0 + t + (1 | g)", o) for o in (0.0, 310.0, 1e3, 1e4))],
)
def test_criterion_in_extended_precision(formula, origin, reml):
    m = hl.TwoLevelModel.from_formula(formula, measured(origin, J=12))
    fit = m.fit_reml() if reml else m.fit_ml()
    assert fit.converged
    exact = long_criterion(m.design, fit.D.to_numpy(), fit.sigma, reml)
    assert fit.criterion == pytest.approx(exact, rel=0, abs=1e-8)


# --- everything that is computed from a fit ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_fit_answers_moves_with_the_response(kind):
    near, far = (model("0 + sex + t", kind, measured(origin)).fit_reml() for origin in (0.0, 1e6))
    moved = far.summary()["estimate"] - near.summary()["estimate"]
    np.testing.assert_allclose(moved, [1e6, 1e6, 0.0], atol=1e-8)
    np.testing.assert_allclose(far.summary()["se"], near.summary()["se"], rtol=1e-7)
    if kind in ("intercepts", "slopes"):
        for df in ("satterthwaite", "kenward-roger"):
            a, b = (fit.summary(df=df)[["se", "df"]] for fit in (far, near))
            np.testing.assert_allclose(a, b, rtol=1e-5)
    np.testing.assert_allclose(far.subject_loglik(), near.subject_loglik(), atol=1e-7)
    rows = measured(0.0).head(7)
    a, b = (fit.predict(rows, level="population", interval="confidence") for fit in (far, near))
    np.testing.assert_allclose(a.drop(columns="se") - 1e6, b.drop(columns="se"), atol=1e-7)


@pytest.mark.parametrize("correlation", ("independence", "exchangeable", "ar1"))
@pytest.mark.parametrize("origin", ORIGINS)
def test_gee(correlation, origin):
    data = measured(origin, first=origin / 10)
    own = {"time": data["k"]} if correlation == "ar1" else {}
    A, B = (
        hl.TwoLevelModel.from_formula(f"y ~ {fixed} + (1 | g)", data).fit_gee(correlation=correlation, **own)
        for fixed in TWICE["factor"]
    )
    near = hl.TwoLevelModel.from_formula("y ~ 0 + sex + t + (1 | g)", measured(0.0)).fit_gee(
        correlation=correlation, **own
    )
    for other, tolerance in ((B, 1e-8), (near, 1e-6)):  # moving the data rounds them
        assert A.beta["t"] == pytest.approx(other.beta["t"], rel=tolerance)
        assert A.beta_se["t"] == pytest.approx(other.beta_se["t"], rel=tolerance)


@pytest.mark.parametrize("origin", ORIGINS)
@pytest.mark.parametrize("kind", ("slopes", "AR(1)"))
def test_collapsed_density(kind, origin):
    near, far = (model("0 + sex + t", kind, measured(at)) for at in (0.0, origin))
    # The same normal priors of the coefficients, moved with the response.
    made = []
    for m, at in ((near, 0.0), (far, origin)):
        chosen = hl.Priors(
            beta={"sex[f]": hl.Normal(at, 2.0), "sex[m]": hl.Normal(at, 2.0), "t": hl.Normal(0, 1)},
            sd_b=hl.HalfNormal(1.0), sigma=hl.HalfNormal(1.0),
        )  # fmt: skip
        make = collapsed_posterior if kind == "slopes" else residual_posterior
        made.append(make(m.design, resolve_priors(chosen, m.design), signed=False))
    rng = np.random.default_rng(2)
    for _ in range(4):
        theta = made[0].mode + rng.normal(scale=0.3, size=len(made[0].mode))
        value, slope = made[0].log_density(theta)
        other, other_slope = made[1].log_density(theta)
        assert other == pytest.approx(value, rel=0, abs=1e-7 if origin < 1e8 else 1e-6)
        np.testing.assert_allclose(other_slope, slope, atol=1e-6)


def test_nuts_far_from_zero():
    near, far = (
        hl.TwoLevelModel.from_formula("y ~ 0 + sex + t + (1 | g)", measured(origin, J=40)).fit(
            seed=1, progressbar=False
        )
        for origin in (0.0, 1e6)
    )
    # The default priors of the coefficients grow with the distance from zero; the data decide all the same.
    for name in ("sd_b", "sigma"):
        a, b = (np.asarray(fit.datatree["posterior"][name]).ravel() for fit in (near, far))
        assert abs(a.mean() - b.mean()) < 5 * np.hypot(a.std(), b.std()) / np.sqrt(1000)
    np.testing.assert_allclose((far.beta - near.beta).to_numpy(), [1e6, 1e6, 0.0], atol=0.05)
    assert far.loo().elpd == pytest.approx(near.loo().elpd, abs=0.3)


def test_the_explicit_hierarchy_starts_where_the_data_are():
    data = measured(1e6)
    m = hl.TwoLevelModel.from_formula("y ~ 0 + sex + t + (1 | g)", data)
    start = m.to_pymc().initial_point()["beta_centered"]  # of sex at the average t, and of t
    np.testing.assert_allclose(start, [data["y"].mean(), data["y"].mean(), 0.0], rtol=1e-12, atol=1e-9)


# --- finding the constant ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (lambda t, f: [f == 0, f == 1, t], [1, 1, 0]),
        (lambda t, f: [t, f == 0, f == 1], [0, 1, 1]),
        (lambda t, f: [t + 1e8, f == 0, f == 1], [0, 1, 1]),
        (lambda t, f: [2 + 0 * t], [0.5]),
        (lambda t, f: [t, (t + 4) / 3], [-0.25, 0.75]),
        (lambda t, f: [f == 0, t + 1e8, f == 1, (t + 1e8) ** 2 / 1e8], [1, 0, 1, 0]),
        (lambda t, f: [t], None),
        (lambda t, f: [t + 1e8], None),
        (lambda t, f: [t + 1e8, f == 0], None),
        (lambda t, f: [1 + 1e-9 * t], None),
        (lambda t, f: [0 * t, t], None),
        (lambda t, f: [], None),
    ],
)
def test_combination_of_columns_that_is_constant(columns, expected):
    rng = np.random.default_rng(1)
    t, f = rng.normal(size=40), np.arange(40) % 2
    X = np.array(columns(t, f), dtype=float).T.reshape(40, -1)
    found = constant_combination(X)
    if expected is None:
        assert found is None
        return
    np.testing.assert_allclose(found, expected, atol=1e-12)
    rows = X.T.copy()
    B, log_det = centre_columns(rows, found)
    np.testing.assert_allclose(rows.T @ B, X, rtol=1e-9)
    assert log_det == pytest.approx(np.linalg.slogdet(B)[1])
