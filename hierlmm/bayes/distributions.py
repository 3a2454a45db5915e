"""Prior distributions as data: readable, checked when they are made, and independent of any sampler.

A prior knows its log density and how to draw from itself in numpy; `hierlmm.bayes.distribution` turns one or several
of them into a PyMC random variable. Scales are standard deviations (or scales) in the units of the parameter, never
precisions. What differs from one distribution to the next stands above its class, in `family`.

`LKJ` is a distribution of a correlation matrix R (d, d), a density that depends on |R| alone:

    p(R) = |R|^(η - 1) / c,     log c = Σ_{k=1..d-1} (d - k) [ (2η - 2 + d - k) log 2 + log B(a_k, a_k) ]

with a_k = η + (d - k - 1)/2. Canonical partial correlations are independent under it: ``(c_ij + 1)/2 ~ Beta(α, α)``,
α = η + (d - 2 - j)/2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gammaln

from hierlmm.arrays import FloatArray
from hierlmm.bayes.distribution import SEE, Distribution, Prior, family, number
from hierlmm.covariance.partial import factor_of_partials
from hierlmm.errors import SpecificationError
from hierlmm.options import checked_with_constructor


def _normal(z: FloatArray, sd: float) -> FloatArray:
    return -0.5 * z**2 - math.log(sd) - 0.5 * math.log(2 * math.pi)


def _student(z: FloatArray, nu: float, scale: float) -> FloatArray:
    constant = math.lgamma((nu + 1) / 2) - math.lgamma(nu / 2) - 0.5 * math.log(nu * math.pi) - math.log(scale)
    return constant - (nu + 1) / 2 * np.log1p(z**2 / nu)


def _half_t(nu: float, scale: float, t: float) -> tuple[tuple[float, ...], float]:
    constant = np.log(2.0) + gammaln((nu + 1) / 2) - gammaln(nu / 2) - 0.5 * np.log(nu * np.pi) - np.log(scale)
    return (1.0, 0.0, 0.0, nu + 1.0, t), float(constant)


@family(
    "Normal",
    lambda p: {"mu": p.mean, "sigma": p.sd},
    lambda p, x: _normal((x - p.mean) / p.sd, p.sd),
    lambda p, rng, size: rng.normal(p.mean, p.sd, size),
)
class Normal(Prior):
    """Normal distribution with mean ``mean`` and standard deviation ``sd``.

    Parameters
    ----------
    mean : float
        Mean.
    sd : float
        Standard deviation, positive.
    """

    mean: float = 0.0
    sd: float = 1.0
    _scales: ClassVar[tuple[str, ...]] = ("sd",)


@family(
    "StudentT",
    lambda p: {"nu": p.nu, "mu": p.mean, "sigma": p.scale},
    lambda p, x: _student((x - p.mean) / p.scale, p.nu, p.scale),
    lambda p, rng, size: p.mean + p.scale * rng.standard_t(p.nu, size),
)
class StudentT(Prior):
    """Student's t with ``nu`` degrees of freedom, location ``mean`` and scale ``scale``.

    Parameters
    ----------
    nu : float
        Degrees of freedom, positive.
    mean : float
        Location.
    scale : float
        Scale, positive.
    """

    nu: float = 4.0
    mean: float = 0.0
    scale: float = 1.0
    _scales: ClassVar[tuple[str, ...]] = ("nu", "scale")


class Bounded(Prior):
    """A prior between two ends, ``lower`` and ``upper``."""

    __slots__ = ()
    lower: float
    upper: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.lower < self.upper:
            remedy = f"write {type(self).__name__}(..., lower=0, upper=1), for example"
            raise SpecificationError(str(self), "the lower end is not below the upper end", remedy, SEE)

    @property
    def is_positive(self) -> bool:
        """Whether the lower end is at zero or above."""
        return self.lower >= 0

    @property
    def support(self) -> tuple[float, float]:
        """From ``lower`` to ``upper``."""
        return self.lower, self.upper


def _scaled_beta(prior: ScaledBeta, x: FloatArray) -> FloatArray:
    width, a = prior.upper - prior.lower, prior.shape
    p = (x - prior.lower) / width
    value = (a - 1) * (np.log(p) + np.log1p(-p)) if a != 1 else np.zeros_like(p)
    return value + (math.lgamma(2 * a) - 2 * math.lgamma(a) - math.log(width))


def _gamma(prior: Gamma, x: FloatArray) -> FloatArray:
    power = (prior.shape - 1) * np.log(x) if prior.shape != 1 else 0.0
    return power - prior.rate * x + prior.shape * math.log(prior.rate) - math.lgamma(prior.shape)


@family(
    "Uniform",
    lambda p: {"lower": p.lower, "upper": p.upper},
    lambda p, x: np.full_like(x, -math.log(p.upper - p.lower)),
    lambda p, rng, size: rng.uniform(p.lower, p.upper, size),
)
class Uniform(Bounded):
    """Uniform distribution between ``lower`` and ``upper``.

    Parameters
    ----------
    lower : float
        Lower end.
    upper : float
        Upper end.
    """

    lower: float = 0.0
    upper: float = 1.0


@family(
    "Beta",  # of which the parameter is a linear function
    lambda p: {"alpha": p.shape, "beta": p.shape},
    _scaled_beta,
    lambda p, rng, size: p.lower + (p.upper - p.lower) * rng.beta(p.shape, p.shape, size),
)
class ScaledBeta(Bounded):
    """Beta(shape, shape) distribution over the range from ``lower`` to ``upper``, symmetric about its middle."""

    shape: float = 2.0
    lower: float = -1.0
    upper: float = 1.0
    _scales: ClassVar[tuple[str, ...]] = ("shape",)


@family(
    "LogNormal",
    lambda p: {"mu": math.log(p.median), "sigma": p.spread},
    lambda p, x: np.where(x > 0, _normal((np.log(x) - math.log(p.median)) / p.spread, p.spread) - np.log(x), -np.inf),
    lambda p, rng, size: rng.lognormal(math.log(p.median), p.spread, size),
)
class LogNormal(Prior):
    """Log-normal distribution with median ``median`` and standard deviation ``spread`` of the logarithm.

    Parameters
    ----------
    median : float
        Median, positive.
    spread : float
        Standard deviation of the logarithm, positive.
    """

    median: float = 1.0
    spread: float = 1.0
    positive: ClassVar[bool] = True
    _scales: ClassVar[tuple[str, ...]] = ("median", "spread")


@family(
    "HalfNormal",
    lambda p: {"sigma": p.sd},
    lambda p, x: _normal(x / p.sd, p.sd) + math.log(2),
    lambda p, rng, size: np.abs(rng.normal(0.0, p.sd, size)),
    closed=lambda p: ((1.0, 0.0, p.sd**-2.0, 0.0, 0.0), 0.5 * np.log(2.0 / np.pi) - np.log(p.sd)),
)
class HalfNormal(Prior):
    """Normal distribution with mean 0 and standard deviation ``sd``, folded to positive values.

    Parameters
    ----------
    sd : float
        Standard deviation before folding, positive.
    """

    sd: float = 1.0
    positive: ClassVar[bool] = True
    _scales: ClassVar[tuple[str, ...]] = ("sd",)


@family(
    "HalfStudentT",
    lambda p: {"nu": p.nu, "sigma": p.scale},
    lambda p, x: _student(x / p.scale, p.nu, p.scale) + math.log(2),
    lambda p, rng, size: p.scale * np.abs(rng.standard_t(p.nu, size)),
    closed=lambda p: _half_t(p.nu, p.scale, 1.0 / (p.nu * p.scale**2)),
)
class HalfStudentT(Prior):
    """Student's t around 0 with ``nu`` degrees of freedom and scale ``scale``, folded to positive values.

    Parameters
    ----------
    nu : float
        Degrees of freedom, positive.
    scale : float
        Scale, positive.
    """

    nu: float = 4.0
    scale: float = 1.0
    positive: ClassVar[bool] = True
    _scales: ClassVar[tuple[str, ...]] = ("nu", "scale")


@family(
    "HalfCauchy",
    lambda p: {"beta": p.scale},
    lambda p, x: _student(x / p.scale, 1.0, p.scale) + math.log(2),
    lambda p, rng, size: p.scale * np.abs(rng.standard_cauchy(size)),
    closed=lambda p: _half_t(1.0, p.scale, p.scale**-2.0),
)
class HalfCauchy(Prior):
    """Cauchy distribution around 0 with scale ``scale``, folded to positive values.

    Parameters
    ----------
    scale : float
        Scale, positive; the median.
    """

    scale: float = 1.0
    positive: ClassVar[bool] = True
    _scales: ClassVar[tuple[str, ...]] = ("scale",)


@family(
    "Exponential",
    lambda p: {"scale": p.mean},
    lambda p, x: -x / p.mean - math.log(p.mean),
    lambda p, rng, size: rng.exponential(p.mean, size),
    closed=lambda p: ((1.0, 1.0 / p.mean, 0.0, 0.0, 0.0), -np.log(p.mean)),
)
class Exponential(Prior):
    """Exponential distribution with mean ``mean`` (its rate is ``1 / mean``).

    Parameters
    ----------
    mean : float
        Mean, positive.
    """

    mean: float = 1.0
    positive: ClassVar[bool] = True
    _scales: ClassVar[tuple[str, ...]] = ("mean",)

    def __str__(self) -> str:
        return f"Exponential(mean={number(self.mean)})"


@family(
    "Gamma",
    lambda p: {"alpha": p.shape, "beta": p.rate},
    _gamma,
    lambda p, rng, size: rng.gamma(p.shape, 1.0 / p.rate, size),
    closed=lambda p: ((p.shape, p.rate, 0.0, 0.0, 0.0), float(p.shape * np.log(p.rate) - gammaln(p.shape))),
)
class Gamma(Prior):
    """Gamma distribution with shape ``shape`` and rate ``rate``; shape 2 keeps an SD away from zero.

    Parameters
    ----------
    shape : float
        Shape, positive.
    rate : float
        Rate, positive: the mean is ``shape / rate``.
    """

    shape: float = 2.0
    rate: float = 0.1
    positive: ClassVar[bool] = True
    _scales: ClassVar[tuple[str, ...]] = ("shape", "rate")


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
