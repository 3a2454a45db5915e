"""Degrees of freedom for linear functions of the fixed effects: Satterthwaite's, Kenward and Roger's.

*Satterthwaite.* The variance of ``l'β̂`` is ``v(θ) = l'V_β(θ) l``. With θ estimated, v̂ is taken for a multiple of χ²
with the same first two moments (Satterthwaite 1946; Giesbrecht & Burns 1985):

    df = 2 v² / (g' Cov(θ̂) g),      g = dv/dθ.

Several rows L together (Fai & Cornelius 1996): ``L V_β L' = P diag(d) P'`` turns them into uncorrelated rows ``P'L``
with t-tests of ν_m degrees of freedom; F = Σ t_m² / r then gets the denominator degrees of freedom 2E / (E - r) for
which its mean is right, ``E = Σ ν_m / (ν_m - 2)``, and 2 where a ν_m is 2 or less (lmerTest's rule).

No covariance structure is known here: V_β is asked for at values of θ. The derivatives are central differences along
the principal directions of Cov(θ̂). Directions without variance (a boundary
optimum holds them) do not count: the degrees of freedom are those given the boundary.

*Kenward and Roger*, their covariance of the fixed effects as well, for V linear in its parameters (others:
`residual_degrees`). With ``V = Σ_s γ_s
G_s`` (the entries of D, and σ²), ``Φ = (X'V⁻¹X)⁻¹`` and

    P_s = -X'V⁻¹G_sV⁻¹X,      Q_rs = X'V⁻¹G_rV⁻¹G_sV⁻¹X,
    I_E[r, s] = tr(V⁻¹G_rV⁻¹G_s) - 2 tr(Φ Q_rs) + tr(Φ P_r Φ P_s)         (expected REML information, doubled)
    W = 2 I_E⁻¹,    Φ_A = Φ + 2 Φ { Σ_rs W_rs (Q_rs - P_r Φ P_s) } Φ      (1997, equation 5)

Φ_A corrects Φ for the bias of plugging in γ̂ and adds the variability that γ̂ brings to β̂. For hypotheses of rank r,
``Θ = L'(LΦL')⁻¹L``, the moments of F are matched to those of an F distribution through

    A₁ = Σ W_st tr(ΘΦP_sΦ) tr(ΘΦP_tΦ),    A₂ = Σ W_st tr(ΘΦP_sΦ ΘΦP_tΦ)     (1997, section 3)

All sums over rows reduce to the cross-products of `crossproducts`: with ``Z_i = U_i R_i`` and
``V_i = σ²(I + U_iR_iΛΛ'R_i'U_i')``, the power ``V_i⁻ᵏ`` is ``σ⁻²ᵏ (I - U_iU_i' + U_iT_i⁻ᵏU_i')``. Everything is in
working columns, where V is linear in the parameters too; the result does not depend on the basis of γ.

References
----------
Fai, A. H.-T. and Cornelius, P. L. (1996). Approximate F-tests of multiple degree of freedom hypotheses in generalized
least squares analyses of unbalanced split-plot experiments. J. Stat. Comput. Simul. 54, 363-378.

Giesbrecht, F. G. and Burns, J. C. (1985). Two-stage analysis based on a mixed model. Biometrics 41, 477-486.

Kenward, M. G. and Roger, J. H. (1997). Small sample inference for fixed effects from restricted maximum likelihood.
Biometrics 53, 983-997.

Satterthwaite, F. E. (1946). An approximate distribution of estimates of variance components. Biometrics Bulletin 2,
110-114.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse.csgraph import connected_components

from hierlmm.arrays import FloatArray
from hierlmm.covariance.random import RandomCovariance
from hierlmm.errors import NotAvailableError
from hierlmm.likelihood.factor_degrees import factor_sums
from hierlmm.likelihood.large_sample import LargeSample, differences
from hierlmm.likelihood.several_factors import FactorSolution
from hierlmm.likelihood.solution import Solution


@dataclass(frozen=True)
class SatterthwaiteDegrees:
    """V_β and its derivatives along uncorrelated unit directions of θ̂.

    Attributes
    ----------
    beta_cov : (p, p)
    derivatives : (r, p, p)
    """

    beta_cov: FloatArray
    derivatives: FloatArray

    def of_rows(self, L: FloatArray) -> FloatArray:
        """Degrees of freedom of each row: (k, p) -> (k,); infinite where the variance does not depend on θ."""
        v = np.einsum("ka,ab,kb->k", L, self.beta_cov, L)
        return satterthwaite_df(v, np.einsum("ka,rab,kb->kr", L, self.derivatives, L))

    def of_all(self, L: FloatArray) -> tuple[float, float]:
        """Scale 1 and the denominator degrees of freedom of the F test of all rows."""
        _, vectors = np.linalg.eigh(L @ self.beta_cov @ L.T)
        return 1.0, denominator_df(self.of_rows(vectors.T @ L))


def denominator_df(nu: FloatArray) -> float:
    """Denominator degrees of freedom of a sum of squared t of ν_m degrees of freedom each."""
    if len(nu) == 1 or np.all(np.isinf(nu)) or np.all(np.abs(nu - nu[0]) < 1e-8):
        return float(nu.mean())
    if np.any(nu <= 2.0):
        return 2.0
    excess = float(np.sum(2.0 / (nu - 2.0)))  # E - r, without the cancellation
    return 2.0 * (excess + len(nu)) / excess


def satterthwaite_df(variance: FloatArray, derivatives: FloatArray) -> FloatArray:
    """Degrees of freedom of estimated variances, from derivatives along uncorrelated unit directions of θ̂.

    Parameters
    ----------
    variance : (n,)
    derivatives : (n, r)

    Returns
    -------
    (n,), infinite where the variance does not depend on θ.
    """
    spread = np.einsum("ij,ij->i", derivatives, derivatives)
    known = spread <= 1e-20 * variance**2
    return np.where(known, np.inf, 2.0 * variance**2 / np.where(known, 1.0, spread))


def satterthwaite_degrees(large: LargeSample) -> SatterthwaiteDegrees:
    """Differentiate V_β at θ̂, along the directions of its large-sample distribution."""
    solutions, steps = large.neighbours()
    found = differences(np.stack([s.beta_cov for s in solutions]), steps)
    return SatterthwaiteDegrees(found[0], found[1:])


CHUNK = 50_000
SEE = "docs, page 'Contrasts'"


@dataclass(frozen=True)
class KenwardRogerDegrees:
    """Φ, the derivatives ``ΦP_sΦ`` and W, in the user's columns.

    Attributes
    ----------
    beta_cov : (p, p)
        Φ, not adjusted.
    adjusted : (p, p)
        Φ_A.
    derivatives : (m, p, p)
        ``Φ P_s Φ``, the derivative of Φ by γ_s with its sign changed.
    W : (m, m)
        Covariance of γ̂.
    second : (p, p) or float
        What second derivatives of V have changed in Φ_A; 0 where V is linear.
    """

    beta_cov: FloatArray
    adjusted: FloatArray
    derivatives: FloatArray
    W: FloatArray
    second: FloatArray | float = 0.0

    def of_rows(self, L: FloatArray) -> FloatArray:
        """Degrees of freedom of each row: (k, p) -> (k,); for one row the formulas reduce to ``2 / A₂``."""
        v = np.einsum("ka,ab,kb->k", L, self.beta_cov, L)
        g = np.einsum("ka,sab,kb->ks", L, self.derivatives, L) / v[:, None]
        spread = np.einsum("ks,st,kt->k", g, self.W, g)
        known = spread <= 1e-20
        return np.where(known, np.inf, 2.0 / np.where(known, 1.0, spread))

    def of_all(self, L: FloatArray) -> tuple[float, float]:
        """Scale λ of F and its denominator degrees of freedom, for rows of full rank."""
        r = len(L)
        if r == 1:
            return 1.0, float(self.of_rows(L)[0])
        inner = np.linalg.inv(L @ self.beta_cov @ L.T)
        M = np.einsum("ab,bc,scd,ed->sae", inner, L, self.derivatives, L, optimize=True)
        traces = np.einsum("saa->s", M)
        A1 = float(traces @ self.W @ traces)
        A2 = float(np.einsum("st,sab,tba->", self.W, M, M, optimize=True))
        if A2 <= 1e-20:
            return 1.0, np.inf
        B = (A1 + 6.0 * A2) / (2.0 * r)
        g = ((r + 1) * A1 - (r + 4) * A2) / ((r + 2) * A2)
        below = 3.0 * r + 2.0 * (1.0 - g)
        c1, c2, c3 = g / below, (r - g) / below, (r + 2 - g) / below
        v0, v1, v2 = 1.0 + c1 * B, 1.0 - c2 * B, 1.0 - c3 * B
        # v1 and 1 - A₂/r vanish together where the exact F has 2 degrees of freedom.
        ratio = 1.0 if abs(v1) < 1e-10 and abs(1.0 - A2 / r) < 1e-10 else (1.0 - A2 / r) / v1
        moment = ratio**2 * (0.0 if abs(v0) < 1e-10 else v0)
        df2 = 4.0 + (r + 2) * v2 / (moment - v2)  # ρ = moment / (r v₂) has a pole at 4 degrees of freedom
        if not df2 > 0.0:
            received = f"Kenward-Roger's F test of {r} hypotheses together"
            reason = "its moments match no F distribution on these data (too few subjects for so many hypotheses)"
            raise NotAvailableError(received, reason, "test them one by one, or use df='satterthwaite'", SEE)
        scale = 1.0 if abs(df2 - 2.0) < 1e-2 else df2 * (1.0 - A2 / r) / (df2 - 2.0)
        return scale, df2


def kenward_roger(solution: Solution) -> KenwardRogerDegrees:
    """Evaluate the adjustment at the REML estimates.

    Parameters
    ----------
    solution : Solution
        Of REML, with independent residuals.

    Notes
    -----
    Costs O(J q² p (q + p m)) for m parameters, in chunks of subjects.

    Raises
    ------
    NotAvailableError
        If D is not linear in its parameters as far as this module knows.
    """
    products, Lambda = solution.products, solution.Lambda
    p, n = products.n_fixed, products.n_obs
    basis = basis_of_D(solution.criterion.structure, products.scaling.Bz)
    s2 = solution.working_sd**2
    if isinstance(solution, FactorSolution):
        sums: Any = factor_sums(solution, basis, SEE)
    else:
        sums = _Sums(len(basis), p, len(Lambda))
        for start in range(0, len(products.subject_R), CHUNK):
            part = slice(start, start + CHUNK)
            sums.add(products.subject_R[part], products.subject_C[part, :, :p], Lambda, basis)
    outside = products.S_w[:p, :p]
    m = len(basis) + 1
    P, Q, K = np.empty((m, p, p)), np.empty((m, m, p, p)), np.empty((m, m))
    P[:-1], P[-1] = -sums.P / s2**2, -(outside + sums.X2X) / s2**2
    Q[:-1, :-1], K[:-1, :-1] = sums.Q / s2**3, sums.K / s2**2
    Q[:-1, -1], K[:-1, -1] = sums.Qs / s2**3, sums.Ks / s2**2
    Q[-1, :-1], K[-1, :-1] = np.swapaxes(Q[:-1, -1], 1, 2), K[:-1, -1]
    Q[-1, -1] = (outside + sums.X3X) / s2**3
    K[-1, -1] = (n - sums.rows + sums.trace) / s2**2
    Phi = np.linalg.inv((outside + sums.XX) / s2)
    PhiP = Phi @ P
    information = K - 2.0 * np.einsum("ab,stba->st", Phi, Q) + np.einsum("sab,tba->st", PhiP, PhiP)
    W = 2.0 * _inverse(information)
    middle = np.einsum("st,stab->ab", W, Q - np.einsum("sab,tbc->stac", P, PhiP))
    adjusted = Phi + 2.0 * Phi @ (0.5 * (middle + middle.T)) @ Phi
    covariance = products.scaling.beta_cov
    return KenwardRogerDegrees(covariance(Phi), covariance(adjusted), np.array([covariance(d) for d in PhiP @ Phi]), W)


class _Sums:
    """Sums over subjects, per unit of σ² (T, not V)."""

    def __init__(self, m: int, p: int, q: int) -> None:
        self.P, self.Q, self.K = np.zeros((m, p, p)), np.zeros((m, m, p, p)), np.zeros((m, m))
        self.Qs, self.Ks = np.zeros((m, p, p)), np.zeros(m)
        self.XX, self.X2X, self.X3X = np.zeros((p, p)), np.zeros((p, p)), np.zeros((p, p))
        self.trace, self.rows = 0.0, 0

    def add(self, R: FloatArray, C: FloatArray, Lambda: FloatArray, basis: FloatArray) -> None:
        """Add subjects: R (J, q, q), C (J, q, p), basis (m, q, q)."""
        q = R.shape[1]
        F = R @ Lambda
        inverse = np.linalg.inv(np.eye(q) + F @ np.swapaxes(F, 1, 2))
        C1 = inverse @ C
        C2 = inverse @ C1
        Rt = np.swapaxes(R, 1, 2)
        M = Rt @ C1  # Z'V⁻¹X (J, q, p)
        N = Rt @ inverse @ R  # Z'V⁻¹Z
        M2 = Rt @ C2  # Z'V⁻²X
        N2 = Rt @ inverse @ inverse @ R
        BM = np.einsum("sab,jbc->sjac", basis, M)
        BN = np.einsum("sab,jbc->sjac", basis, N)
        NBM = np.einsum("jab,sjbc->sjac", N, BM)
        self.P += np.einsum("jac,sjad->scd", M, BM, optimize=True)
        self.Q += np.einsum("rjac,sjad->rscd", BM, NBM, optimize=True)
        self.Qs += np.einsum("sjac,jad->scd", BM, M2, optimize=True)
        self.K += np.einsum("rjab,sjba->rs", BN, BN, optimize=True)
        self.Ks += np.einsum("sab,jba->s", basis, N2)
        self.XX += np.einsum("jac,jad->cd", C, C1)
        self.X2X += np.einsum("jac,jad->cd", C1, C1)
        self.X3X += np.einsum("jac,jad->cd", C1, C2)
        # tr V_i⁻² is n_i - q + tr T_i⁻²: a column that the subject's Z lacks has T = 1 and so adds nothing.
        self.trace += float(np.einsum("jab,jba->", inverse, inverse))
        self.rows += len(R) * q


def basis_of_D(structure: RandomCovariance, Bz: FloatArray) -> FloatArray:
    """Symmetric matrices of which D̃ in working columns is a linear combination: (m, q, q), orthonormal.

    Units of D where covariates are zero are all but parallel in working columns if that is far from the data.
    """
    q = structure.q
    units = [np.diag(np.isin(np.arange(q), part).astype(np.float64)) for part in structure.parts]
    if structure.structure == "identity":
        matrices = units
    elif structure.structure == "compound_symmetry":
        among = [np.outer(np.diag(unit), np.diag(unit)) - unit for unit in units]
        matrices = [matrix for pair in zip(units, among, strict=True) for matrix in pair]
    elif structure.structure in ("unstructured", "diagonal", "blocks", "none"):
        matrices = []
        for block in structure.blocks:
            for i, a in enumerate(block):
                for b in block[i:]:
                    unit = np.zeros((q, q))
                    unit[a, b] = unit[b, a] = 1.0
                    matrices.append(unit)
    else:
        received = f"Kenward-Roger with covariance={structure.structure!r}"
        reason = "the method is written for covariances that are linear in their parameters"
        raise NotAvailableError(received, reason, "use df='satterthwaite'", SEE)
    found = np.array([Bz @ unit @ Bz.T for unit in matrices]).reshape(len(matrices), q, q)
    if not len(found):
        return found
    used = np.array([unit.any(axis=1) for unit in matrices])
    own = connected_components((Bz != 0) | (used.T @ used))[1]  # factors, whose D have nothing to do with each other
    of_matrix = own[used.argmax(axis=1)]
    for part in np.unique(of_matrix):
        columns = np.flatnonzero(own == part)
        one, two = (columns[side] for side in np.triu_indices(len(columns)))
        weight = np.where(one == two, 1.0, np.sqrt(2.0))
        flat = found[of_matrix == part][:, one, two] * weight
        Q = np.linalg.qr((flat / np.linalg.norm(flat, axis=1, keepdims=True)).T)[0]
        orthonormal = np.zeros((len(flat), q, q))
        orthonormal[:, one, two] = orthonormal[:, two, one] = Q.T / weight
        found[of_matrix == part] = orthonormal
    return found


def _inverse(information: FloatArray) -> FloatArray:
    """Inverse; the generalised one where parameters cannot be told apart (pbkrtest does the same)."""
    scale = np.sqrt(np.diag(information))
    unit = information / np.outer(scale, scale)
    inverse = np.linalg.inv(unit) if np.linalg.cond(unit) < 1e12 else np.linalg.pinv(unit, rcond=1e-10)
    return inverse / np.outer(scale, scale)
