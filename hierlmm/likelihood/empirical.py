"""Empirical (sandwich) covariance of the fixed effects, with corrections for few subjects, and its degrees of freedom.

With whitened rows, ``X̃_i = V_i^(-1/2) X_i``, residuals r̃_i, ``Φ = (X̃'X̃)⁻¹`` and the leverages ``H_i = X̃_i Φ X̃_i'``,

    V_E = Φ { Σ_i X̃_i'A_i r̃_i r̃_i'A_i X̃_i } Φ,       A_i = (I - H_i)^a

of the subjects' scores, which is right in large samples whatever the covariance of a subject's rows: "empirical" has
a = 0 (Liang & Zeger 1986; CR0), "empirical-bias-reduced" a = -1/2 (Bell & McCaffrey 2002; CR2), unbiased where V is
right, "empirical-jackknife" a = -1 (CR3, close to leaving every subject out in turn). These are the names of R's mmrm;
no version has a factor J/(J - 1). Where a subject alone determines a combination of coefficients, I - H_i is
singular, and the power is that of its pseudo-inverse (Pustejovsky & Tipton 2018). Its residuals in that direction are
zero whatever its errors were, and every version is far too small there: what such combinations have a part in has no
standard error of this kind (``lost``). The plain version is too small long before, by the share 1 - h of a leverage h.

*Degrees of freedom* (Bell & McCaffrey 2002; Pustejovsky & Tipton 2018; mmrm and clubSandwich): under the model,
``l'V_E l = Σ_i u_i²`` with u normal and ``Γ_ij = Cov(u_i, u_j)``, so that it is taken for a multiple of χ² with

    df = (Σ_i Γ_ii)² / Σ_ij Γ_ij².

Several rows have u_i of r entries and Γ_ij of r × r, in units in which ``Σ_i Γ_ii = I``. Their ``Σ_i u_i u_i'`` is
taken for a Wishart matrix of η degrees of freedom with the same sum of variances of its entries, and Hotelling's T²
gives the F test (clubSandwich's HTZ; Tipton & Pustejovsky 2015):

    η = r (r + 1) / Σ_ij { (tr Γ_ij)² + tr Γ_ij² },      F = (η - r + 1) / (η r) · Q  on r and η - r + 1.

Nothing of the size of the data is needed. With ``Φ = N N'``, ``E_i = N'X̃_i'X̃_i N`` and
``z_i = (I - E_i)^a N'X̃_i'r̃_i``, V_E is ``N (Σ z_i z_i') N'``, and with ``B_i = E_i (I - E_i)^a`` and
``C_i = E_i (I - E_i)^2a`` rows l in units of N have ``Γ_ij = l (δ_ij C_i - B_i B_j) l'``: sums over subjects.

References
----------
Bell, R. M. and McCaffrey, D. F. (2002). Bias reduction in standard errors for linear regression with multi-stage
samples. Survey Methodology 28, 169-181.

Liang, K.-Y. and Zeger, S. L. (1986). Longitudinal data analysis using generalized linear models. Biometrika 73, 13-22.

Pustejovsky, J. E. and Tipton, E. (2018). Small-sample methods for cluster-robust variance estimation and hypothesis
testing in fixed effects models. J. Bus. Econ. Stat. 36, 672-683.

Tipton, E. and Pustejovsky, J. E. (2015). Small-sample adjustments for tests of moderators and model fit using robust
variance estimation in meta-regression. J. Educ. Behav. Stat. 40, 604-634.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hierlmm.arrays import BoolArray, FloatArray
from hierlmm.design.design import Design
from hierlmm.errors import NotAvailableError
from hierlmm.likelihood.crossproducts import subject_rows, working_columns
from hierlmm.likelihood.kernel import RANK_TOLERANCE, within_subject_qr
from hierlmm.likelihood.residual_rows import ResidualRows
from hierlmm.likelihood.solution import Solution

POWERS = {"empirical": 0.0, "empirical-bias-reduced": -0.5, "empirical-jackknife": -1.0}
"""The a of each version."""
FULL = {"empirical": 0.1, "empirical-bias-reduced": 1e-6, "empirical-jackknife": 1e-6}
"""What a leverage may lack of 1: the plain version has that share of an error in its residual, others put it right."""
SEE = "docs, page 'Contrasts', section 'Empirical standard errors'"


@dataclass(frozen=True)
class EmpiricalDegrees:
    """What empirical standard errors and their degrees of freedom follow from.

    Attributes
    ----------
    half : (p, p)
        N, so that ``L @ half`` are rows in its units.
    meat : (p, p)
        ``Σ z_i z_i'``.
    B, C : (J, p, p)
    full : (J,)
        Which subjects alone determine a combination of coefficients.
    lost : (k, p)
        Those combinations: of ``l'(half half')l``, the variance of ``l'β̂`` under the model, ``(lost @ l)²`` is what a
        subject determines alone.
    """

    half: FloatArray
    meat: FloatArray
    B: FloatArray
    C: FloatArray
    full: BoolArray
    lost: FloatArray

    @property
    def cov(self) -> FloatArray:
        """V_E: (p, p)."""
        return self.half @ self.meat @ self.half.T

    def of_rows(self, L: FloatArray) -> FloatArray:
        """Degrees of freedom of each row: (k, p) -> (k,)."""
        df = np.empty(len(L))
        for k, row in enumerate(L @ self.half):
            s, c = row @ self.B, row @ self.C @ row
            own = np.einsum("ja,ja->j", s, s)
            squares = c @ c - 2.0 * (c @ own) + np.sum((s.T @ s) ** 2)
            df[k] = np.sum(c - own) ** 2 / squares
        return df

    def of_all(self, L: FloatArray) -> tuple[float, float]:
        """Scale of F and its denominator degrees of freedom, for rows of full rank.

        Raises
        ------
        NotAvailableError
            If there are too few subjects for so many hypotheses.
        """
        r = len(L)
        if r == 1:
            return 1.0, float(self.of_rows(L)[0])
        rows = L @ self.half
        S = rows @ self.B
        expected = rows @ self.C.sum(axis=0) @ rows.T - np.einsum("jsa,jta->st", S, S)
        values, vectors = np.linalg.eigh(expected)
        if not values[0] > 1e-12 * values[-1]:
            raise _too_few(r)
        root = vectors / np.sqrt(values)
        S, C = root.T @ S, root.T @ (rows @ self.C @ rows.T) @ root
        SS = S @ np.swapaxes(S, 1, 2)
        trace, own = np.einsum("jss->j", C), np.einsum("jss->j", SS)
        K = np.einsum("jsa,jtb->satb", S, S, optimize=True)
        spread = float(trace @ trace - 2.0 * (trace @ own) + np.sum(K * K))
        spread += float(np.sum(C * C) - 2.0 * np.sum(C * SS) + np.sum(K * K.transpose(2, 1, 0, 3)))
        eta = r * (r + 1) / spread
        if not eta - r + 1 > 0.0:
            raise _too_few(r)
        return (eta - r + 1) / eta, eta - r + 1


def _too_few(r: int) -> NotAvailableError:
    received = f"an F test of {r} hypotheses together by empirical standard errors"
    reason = "there are too few subjects to estimate the covariance of so many from their scores"
    return NotAvailableError(received, reason, "test them one by one, or leave se out", SEE)


def empirical(design: Design, solution: Solution, kind: str) -> EmpiricalDegrees:
    """Evaluate one version at the estimates.

    Parameters
    ----------
    design : Design
    solution : Solution
        Of REML or ML.
    kind : str
        "empirical", "empirical-bias-reduced" or "empirical-jackknife".

    Notes
    -----
    Costs O(N p² + J p³).
    """
    XX, Xr, Bx = _subject_products(design, solution)
    half = np.linalg.cholesky(np.linalg.inv(XX.sum(axis=0)))
    values, vectors = np.linalg.eigh(half.T @ XX @ half)
    left = 1.0 - values
    full, a = left < FULL[kind], POWERS[kind]
    power = np.where(full, 0.0 if a else 1.0, np.where(full, 1.0, left) ** a)
    back = np.swapaxes(vectors, 1, 2)
    adjust, B, C = ((vectors * w[:, None, :]) @ back for w in (power, values * power, values * power**2))
    z = np.einsum("jab,jb->ja", adjust, Xr @ half)
    user = np.linalg.solve(Bx, half) * solution.criterion.scaling.y_scale
    lost = (user @ vectors).swapaxes(1, 2)[full]
    return EmpiricalDegrees(user, z.T @ z, B, C, np.any(full, axis=1), lost)


def _subject_products(design: Design, solution: Solution) -> tuple[FloatArray, FloatArray, FloatArray]:
    """``X_i'V_i⁻¹X_i`` (J, p, p) and ``X_i'V_i⁻¹r_i`` (J, p), in working columns ``X Bx⁻¹``; and Bx.

    The columns need not be those of the criterion: a refit of other data keeps the scaling of the first ones.
    """
    criterion, rows, Lambda = solution.criterion, solution.criterion.rows, solution.Lambda
    q, p = criterion.structure.q, criterion.data.n_fixed
    if isinstance(rows, ResidualRows):
        whitened = rows.whiten(criterion.split(solution.lam)[1])
        assert whitened is not None  # it is at the optimum
        start, rest, products, Bx = rows.start, whitened.work[q:], whitened.products, rows.scaling.Bx
        R, C = products.subject_R, products.subject_C.copy()
        rest[p] -= solution.equations.beta @ rest[:p]
        C[:, :, p] -= C[:, :, :p] @ solution.equations.beta
    else:
        order, start = subject_rows(design)
        Z, rest, own = working_columns(design, order)
        rest[p] = (design.y - design.offset - design.X @ solution.beta)[order] / criterion.scaling.y_scale
        R, C, _ = within_subject_qr(Z, rest, start, RANK_TOLERANCE)
        Bx, Lambda = own.Bx, own.Bz @ criterion.scaling.factor(Lambda)
    F = R @ Lambda
    T = np.eye(q) + F @ np.swapaxes(F, 1, 2)
    G = np.swapaxes(C, 1, 2) @ np.linalg.solve(T, C)
    for a in range(p):
        for b in range(a, p + 1):
            G[:, a, b] += np.add.reduceat(rest[a] * rest[b], start[:-1])
            G[:, b, a] = G[:, a, b]
    G = G / solution.working_sd**2
    return G[:, :p, :p], G[:, :p, p], Bx
