"""Satterthwaite's degrees of freedom for linear functions of the fixed effects.

The variance of ``l'β̂`` is ``v(θ) = l'V_β(θ) l``. With θ estimated, v̂ is taken for a multiple of χ² with the same first
two moments (Satterthwaite 1946; Giesbrecht & Burns 1985):

    df = 2 v² / (g' Cov(θ̂) g),      g = dv/dθ.

Several rows L together (Fai & Cornelius 1996): ``L V_β L' = P diag(d) P'`` turns them into uncorrelated rows ``P'L``
with t-tests of ν_m degrees of freedom; F = Σ t_m² / r then gets the denominator degrees of freedom 2E / (E - r) for
which its mean is right, ``E = Σ ν_m / (ν_m - 2)``, and 2 where a ν_m is 2 or less (lmerTest's rule).

The module knows no covariance structure: it asks for V_β at values of θ. The derivatives are central differences along
the principal directions of Cov(θ̂). Directions without variance (a boundary
optimum holds them) do not count: the degrees of freedom are those given the boundary.

References
----------
Fai, A. H.-T. and Cornelius, P. L. (1996). Approximate F-tests of multiple degree of freedom hypotheses in generalized
least squares analyses of unbalanced split-plot experiments. J. Stat. Comput. Simul. 54, 363-378.

Giesbrecht, F. G. and Burns, J. C. (1985). Two-stage analysis based on a mixed model. Biometrics 41, 477-486.

Satterthwaite, F. E. (1946). An approximate distribution of estimates of variance components. Biometrics Bulletin 2,
110-114.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hierlmm.likelihood.large_sample import LargeSample, differences

__all__ = ["SatterthwaiteDegrees", "denominator_df", "satterthwaite_degrees", "satterthwaite_df"]

FloatArray = NDArray[np.float64]


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
