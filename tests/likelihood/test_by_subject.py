"""The marginal log-likelihood by subject: exact rational arithmetic, and the criterion that the fit maximised."""

from fractions import Fraction
from math import log, pi

import numpy as np
import pandas as pd
import pytest

import hierlmm as hl
from hierlmm.likelihood.by_subject import covariance_root, subject_loglik
from hierlmm.likelihood.residual_rows import residual_rows


def exact_loglik(y, mean, V):
    """Log density of a normal vector: y - mean and V of `Fraction`, elimination without rounding."""
    A = [[*row, own] for row, own in zip(V, [a - b for a, b in zip(y, mean, strict=True)], strict=True)]
    n, log_det, quadratic = len(A), 0.0, Fraction(0)
    for k in range(n):  # A = [V, r] becomes [L'D, D⁻¹-scaled r]: the quadratic form is Σ r_k² / pivot_k
        pivot = A[k][k]
        log_det += log(pivot.numerator) - log(pivot.denominator)
        quadratic += A[k][n] ** 2 / pivot
        for i in range(k + 1, n):
            share = A[i][k] / pivot
            A[i] = [a - share * b for a, b in zip(A[i], A[k], strict=True)]
    return -0.5 * (n * log(2.0 * pi) + log_det + float(quadratic))


def rational(values):
    return [[Fraction(float(v)) for v in row] for row in np.atleast_2d(values)]


def product(A, B):
    return [[sum(a * b for a, b in zip(row, column, strict=True)) for column in zip(*B, strict=True)] for row in A]


def transposed(A):
    return [list(column) for column in zip(*A, strict=True)]


def reference(design, beta, root, sigma, R=None, ratio=None):
    """By subject, with V_i = Z H H' Z' + σ² G R_i G in exact arithmetic; R maps positions to a correlation."""
    out = []
    for j in range(design.n_subjects):
        rows = np.flatnonzero(design.subject_index == j)
        n = len(rows)
        ZH = product(rational(design.Z[rows]), rational(root)) if design.Z.shape[1] else [[Fraction(0)]] * n
        V = product(ZH, transposed(ZH))
        own = np.eye(n) if R is None else R(n)
        g = np.ones(n) if ratio is None else ratio[rows]
        for a in range(n):
            for b in range(n):
                V[a][b] += Fraction(float(sigma)) ** 2 * Fraction(float(own[a, b])) * Fraction(g[a]) * Fraction(g[b])
        mean = product(rational(design.X[rows]), transposed(rational(beta)))
        y = [Fraction(float(a)) - Fraction(float(b)) for a, b in zip(design.y[rows], design.offset[rows], strict=True)]
        out.append(exact_loglik(y, [m[0] for m in mean], V))
    return np.array(out)


def precise_data(ratio, seed=3, J=12):
    """Lines of subjects with SD 1 around which the residuals have the SD ``ratio``."""
    rng = np.random.default_rng(seed)
    frames = []
    for j in range(J):
        t = np.sort(rng.uniform(0, 4, 4 + j % 3))
        b = rng.normal(size=2)
        y = 2 + b[0] + (0.5 + b[1]) * t + ratio * rng.normal(size=len(t))
        frames.append(pd.DataFrame({"g": j, "t": t, "y": y, "k": np.arange(len(t)), "arm": "ab"[j % 2]}))
    return pd.concat(frames, ignore_index=True)


@pytest.mark.parametrize("ratio", [1e-3, 1e-5, 1e-6])
@pytest.mark.parametrize("random", ["(1 + t | g)", "(1 + t || g)"])
def test_the_sum_over_subjects_is_the_likelihood_however_small_sigma(ratio, random):
    fit = hl.TwoLevelModel.from_formula(f"y ~ t + {random}", precise_data(ratio)).fit_ml()
    assert fit.sigma / fit.sd_b.min() < 10 * ratio
    assert fit.subject_loglik().sum() == pytest.approx(fit.loglik, rel=1e-10)


def with_cancellation(design, beta, root, sigma):
    """The textbook form, in which ``|r|² - w'M w/σ²`` cancels where σ is small against D: by subject."""
    out = []
    for j in range(design.n_subjects):
        rows = np.flatnonzero(design.subject_index == j)
        F, r = design.Z[rows] @ root, design.y[rows] - design.X[rows] @ beta
        T = np.eye(F.shape[1]) + F.T @ F / sigma**2
        w = F.T @ r
        quadratic = (r @ r - w @ np.linalg.solve(T, w) / sigma**2) / sigma**2
        out.append(-0.5 * (len(rows) * np.log(2 * np.pi * sigma**2) + np.linalg.slogdet(T)[1] + quadratic))
    return np.array(out)


@pytest.mark.parametrize("ratio", [1e-6, 1.0, 1e3])
def test_the_sum_is_the_likelihood_where_the_textbook_form_cancels(ratio):
    fit = hl.TwoLevelModel.from_formula("y ~ t + (1 + t | g)", precise_data(ratio)).fit_ml()
    assert fit.subject_loglik().sum() == pytest.approx(fit.loglik, rel=1e-10)
    root = covariance_root(fit.D.to_numpy()[None])[0]
    textbook = with_cancellation(fit.design, fit.beta.to_numpy(), root, fit.sigma).sum()
    assert (textbook == pytest.approx(fit.loglik, rel=1e-10)) == (ratio >= 1.0)


@pytest.mark.filterwarnings("ignore::hierlmm.FitWarning")  # with σ a millionth of D the gradient by η is rounding
@pytest.mark.parametrize("ratio", [1e-5, 1e-6])
@pytest.mark.parametrize(
    ("residual", "variance"), [(hl.AR1("k"), None), (None, hl.VarIdent("arm")), (hl.AR1("k"), hl.VarIdent("arm"))]
)
def test_the_same_with_residual_structures(ratio, residual, variance):
    model = hl.TwoLevelModel.from_formula(
        "y ~ t + (1 + t | g)", precise_data(ratio, J=24), residual=residual, residual_variance=variance
    )
    fit = model.fit_ml()
    assert fit.subject_loglik().sum() == pytest.approx(fit.loglik, rel=1e-10)


# Moving β by its last digit moves a residual of the size of σ by 1e-16 (|y|/σ), here 1e-10 of it and less.
@pytest.mark.parametrize("ratio", [1e-2, 1e-5, 1e-6])
@pytest.mark.parametrize("corr", [0.3, 1.0])
def test_against_exact_arithmetic(ratio, corr):
    design = hl.TwoLevelModel.from_formula("y ~ t + (1 + t | g)", precise_data(ratio)).design
    root = np.array([[1.0, 0.0], [0.7 * corr, 0.7 * np.sqrt(1 - corr**2)]])
    if corr == 1.0:  # subjects' lines that share one direction, as a singular D has them
        rng = np.random.default_rng(5)
        b = rng.normal(size=design.n_subjects)[design.subject_index]
        y = design.X @ [2.0, 0.5] + b * (1 + 0.7 * design.X[:, 1]) + ratio * rng.normal(size=design.n_obs)
        frame = design.frame.assign(y=y)
        design = hl.TwoLevelModel.from_formula("y ~ t + (1 + t | g)", frame).design
    beta = np.array([[2.0, 0.5], [2.01, 0.49]])
    found = subject_loglik(design, beta, np.stack([root, 2 * root]), np.array([ratio, 1.5 * ratio]))
    np.testing.assert_allclose(found[0], reference(design, beta[0], root, ratio), rtol=1e-9)
    np.testing.assert_allclose(found[1], reference(design, beta[1], 2 * root, 1.5 * ratio), rtol=1e-9)
    assert found[0].sum() == pytest.approx(reference(design, beta[0], root, ratio).sum(), rel=1e-10)


@pytest.mark.parametrize("ratio", [1e-2, 1e-5, 1e-6])
def test_against_exact_arithmetic_with_a_residual_structure(ratio):
    model = hl.TwoLevelModel.from_formula(
        "y ~ t + (1 | g)", precise_data(ratio), residual=hl.AR1("k"), residual_variance=hl.VarIdent("arm")
    )
    design = model.design
    rows = residual_rows(design)
    eta = np.array([p.unconstrained(v) for p, v in zip(rows.parameters, (0.4, 2.5), strict=True)])
    from hierlmm.covariance.estimate import ResidualEstimate

    residual = ResidualEstimate(rows.rows, rows.correlation, rows.variance, eta)
    beta, root = np.array([[2.0, 0.5]]), np.array([[[1.3]]])
    found = subject_loglik(design, beta, root, np.array([ratio]), [residual])[0]
    g = np.where(design.frame["arm"].to_numpy() == "b", 2.5, 1.0)
    expected = reference(
        design, beta[0], root[0], ratio, lambda n: 0.4 ** np.abs(np.subtract.outer(np.arange(n), np.arange(n))), g
    )
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_some_subjects_are_the_same_as_all():
    design = hl.TwoLevelModel.from_formula("y ~ t + (1 + t | g)", precise_data(0.1)).design
    rng = np.random.default_rng(0)
    S = 4000  # enough for two threads
    beta, sigma = rng.normal(size=(S, 2)), rng.uniform(0.5, 2, S)
    root = np.tril(rng.normal(size=(S, 2, 2)))
    every = subject_loglik(design, beta, root, sigma)
    np.testing.assert_allclose(
        subject_loglik(design, beta, root, sigma, subjects=slice(3, 7)), every[:, 3:7], rtol=1e-12
    )
    one = [subject_loglik(design, beta[s : s + 1], root[s : s + 1], sigma[s : s + 1])[0] for s in (0, S - 1)]
    np.testing.assert_allclose(np.array(one), every[[0, -1]], rtol=1e-10)


def test_root_of_a_covariance_keeps_small_variances():
    D = np.array([[1e12, 3e2, 0.0], [3e2, 1e-6, 0.0], [0.0, 0.0, 0.0]])
    root = covariance_root(D[None])[0]
    np.testing.assert_allclose(root @ root.T, D, rtol=1e-12)
    singular = np.array([[4.0, 2e-6], [2e-6, 1e-12]])
    root = covariance_root(singular)
    assert np.linalg.svd(root / np.sqrt(np.diag(singular))[:, None])[1][1] < 1e-7
