"""The LKJ distribution of a correlation matrix R (d, d): a density that depends on |R| alone.

    p(R) = |R|^(η - 1) / c,     log c = Σ_{k=1..d-1} (d - k) [ (2η - 2 + d - k) log 2 + log B(a_k, a_k) ]

with a_k = η + (d - k - 1)/2.

Canonical partial correlations are independent under it: ``(c_ij + 1)/2 ~ Beta(α, α)``, α = η + (d - 2 - j)/2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hierlmm.bayes.distribution import Distribution
from hierlmm.covariance.partial import factor_of_partials
from hierlmm.options import checked_with_constructor

__all__ = ["LKJ"]

FloatArray = NDArray[np.float64]


@checked_with_constructor
@dataclass(frozen=True)
class LKJ(Distribution):
    """Distribution of a correlation matrix R with density proportional to ``|R|**(eta - 1)``.

    ``eta = 1`` is uniform over correlation matrices; larger values favour small correlations.

    Parameters
    ----------
    eta : float
        1: uniform over correlation matrices; larger values favour small correlations.

    References
    ----------
    Lewandowski, D., Kurowicka, D., Joe, H. (2009). Generating random correlation matrices based on vines and extended
    onion method. Journal of Multivariate Analysis 100, 1989-2001 (density and constant: equation 16).
    """

    eta: float = 2.0
    _scales: ClassVar[tuple[str, ...]] = ("eta",)

    def logpdf(self, x: ArrayLike) -> FloatArray:
        """Log density of a correlation matrix (..., q, q) with respect to its q(q−1)/2 correlations.

        Parameters
        ----------
        x : (..., q, q)
            Correlation matrices.
        """
        R = np.asarray(x, dtype=float)
        d, constant = R.shape[-1], 0.0
        for k in range(1, d):
            a = self.eta + (d - k - 1) / 2
            log_beta = 2 * math.lgamma(a) - math.lgamma(2 * a)
            constant += (d - k) * ((2 * self.eta - 2 + d - k) * math.log(2) + log_beta)
        sign, logdet = np.linalg.slogdet(R)
        return np.where(sign > 0, (self.eta - 1) * logdet - constant, -np.inf)

    def equal_shapes(self, q: int) -> tuple[float, float]:
        """Shapes of the Beta distribution of u when all correlations are equal, ``r = low + (1 − low) u``.

        With ``low = −1/(q − 1)``: ``|R| = (1 − r)^(q−1) (1 + (q − 1) r)`` is proportional to ``(1 − u)^(q−1) u``, so
        that the density on the line of equal correlations is Beta; at ``eta = 1`` it is uniform.

        Parameters
        ----------
        q : int
            Number of random effects.
        """
        return self.eta, (q - 1) * (self.eta - 1) + 1

    def logpdf_equal(self, r: ArrayLike, q: int) -> FloatArray:
        """Log density of the common correlation r of q random effects, on ``(−1/(q − 1), 1)``.

        Parameters
        ----------
        r : array
            Common correlations.
        q : int
            Number of random effects.
        """
        a, b = self.equal_shapes(q)
        width = q / (q - 1)
        u = (np.asarray(r, dtype=float) + 1 / (q - 1)) / width
        constant = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) - math.log(width)
        inside = (u > 0) & (u < 1)
        v = np.where(inside, u, 0.5)
        return np.where(inside, (a - 1) * np.log(v) + (b - 1) * np.log1p(-v) + constant, -np.inf)

    def partial_shapes(self, q: int) -> FloatArray:
        """Shapes ``a_j`` of the partial correlations, (q − 1,).

        On the C-vine the partial correlations in column j of the Cholesky factor are independent, each distributed as
        ``2 Beta(a_j, a_j) − 1`` with ``a_j = eta + (q − 2 − j) / 2``, j = 0, 1, ...

        Parameters
        ----------
        q : int
            Number of random effects.
        """
        return self.eta + (q - 2 - np.arange(q - 1)) / 2

    def sample_cholesky(self, rng: np.random.Generator, q: int, size: int) -> FloatArray:
        """Cholesky factors of ``size`` random correlation matrices, (size, q, q).

        Parameters
        ----------
        rng : numpy.random.Generator
            Source of random numbers.
        q : int
            Number of random effects.
        size : int
            Number of matrices.
        """
        p = np.full((size, q, q), 0.5)
        for i in range(1, q):
            for j, a in enumerate(self.partial_shapes(q)[:i]):
                p[:, i, j] = rng.beta(a, a, size)
        return factor_of_partials(2 * p - 1, np.sqrt(4 * p * (1 - p)))
