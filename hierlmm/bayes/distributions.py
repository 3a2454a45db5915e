"""Prior distributions as data: readable, checked when they are made, and independent of any sampler.

A prior knows its log density and how to draw from itself in numpy; `as_pymc_variable` turns one
or several of them into a PyMC random variable. Scales are standard deviations (or scales) in the units of the
parameter, never precisions.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hierlmm.errors import SpecificationError
from hierlmm.options import checked_with_constructor

__all__ = [
    "LKJ",
    "Exponential",
    "Gamma",
    "HalfCauchy",
    "HalfNormal",
    "HalfStudentT",
    "LogNormal",
    "Normal",
    "Prior",
    "ScaledBeta",
    "StudentT",
    "Uniform",
    "as_pymc_variable",
]

FloatArray = NDArray[np.float64]
SEE = "docs, page 'Priors'"


class Distribution:
    """Parameters that are checked when they are made, and printed.

    Subclasses are frozen dataclasses; their fields are the parameters, in the order in which they are printed.
    """

    __slots__ = ()
    _scales: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            what = f"{type(self).__name__}({field.name}={value!r})"
            if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
                raise SpecificationError(
                    what,
                    "a parameter of a prior is one number",
                    f"write a number, for example {type(self).__name__}({self._example()})",
                    SEE,
                )
            if not math.isfinite(value):
                raise SpecificationError(what, "a parameter of a prior must be finite", "write a finite number", SEE)
            if field.name in self._scales and value <= 0:
                raise SpecificationError(
                    what,
                    f"{field.name!r} must be positive",
                    f"write a positive number (it is in the units of the parameter), for example {abs(value) or 1}",
                    SEE,
                )

    def _example(self) -> str:
        return ", ".join(f"{field.name}=1" for field in fields(self))  # type: ignore[arg-type]

    def __str__(self) -> str:
        values = ", ".join(number(getattr(self, field.name)) for field in fields(self))  # type: ignore[arg-type]
        return f"{type(self).__name__}({values})"


class Prior(Distribution, ABC):
    """A prior distribution of one number."""

    __slots__ = ()
    positive: ClassVar[bool] = False

    @property
    def is_positive(self) -> bool:
        """Whether the prior gives no mass to negative values."""
        return self.positive

    @property
    def support(self) -> tuple[float, float]:
        """Ends of the interval outside which the density is zero."""
        return (0.0 if self.is_positive else -math.inf), math.inf

    @abstractmethod
    def logpdf(self, x: ArrayLike) -> FloatArray:
        """Log density, elementwise; −∞ outside the support.

        Parameters
        ----------
        x : array
            Values, of any shape.
        """

    @abstractmethod
    def sample(self, rng: np.random.Generator, size: int | tuple[int, ...] | None = None) -> FloatArray:
        """Independent draws.

        Parameters
        ----------
        rng : numpy.random.Generator
            Source of random numbers.
        size : int or tuple of int, optional
            Shape of the draws; one number by default.
        """

    @abstractmethod
    def pymc(self) -> tuple[str, dict[str, float]]:
        """Name of the PyMC distribution, and its parameters."""


def number(value: float) -> str:
    """Write a number of a prior with four significant digits, large ones in full."""
    return f"{value:z.0f}" if 1e4 <= abs(value) < 1e7 else f"{value:.4g}"


def _inside(x: FloatArray, value: FloatArray) -> FloatArray:
    return np.where(x >= 0, value, -np.inf)


def _student_logpdf(z: FloatArray, nu: float, scale: float) -> FloatArray:
    constant = math.lgamma((nu + 1) / 2) - math.lgamma(nu / 2) - 0.5 * math.log(nu * math.pi) - math.log(scale)
    return constant - (nu + 1) / 2 * np.log1p(z**2 / nu)


@checked_with_constructor
@dataclass(frozen=True)
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

    def logpdf(self, x: ArrayLike) -> FloatArray:
        """Log density."""
        z = (np.asarray(x, dtype=float) - self.mean) / self.sd
        return -0.5 * z**2 - math.log(self.sd) - 0.5 * math.log(2 * math.pi)

    def sample(self, rng: np.random.Generator, size: int | tuple[int, ...] | None = None) -> FloatArray:
        """Independent draws."""
        return np.asarray(rng.normal(self.mean, self.sd, size))

    def pymc(self) -> tuple[str, dict[str, float]]:
        """PyMC's ``Normal``."""
        return "Normal", {"mu": self.mean, "sigma": self.sd}


@checked_with_constructor
@dataclass(frozen=True)
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

    def logpdf(self, x: ArrayLike) -> FloatArray:
        """Log density."""
        return _student_logpdf((np.asarray(x, dtype=float) - self.mean) / self.scale, self.nu, self.scale)

    def sample(self, rng: np.random.Generator, size: int | tuple[int, ...] | None = None) -> FloatArray:
        """Independent draws."""
        return np.asarray(self.mean + self.scale * rng.standard_t(self.nu, size))

    def pymc(self) -> tuple[str, dict[str, float]]:
        """PyMC's ``StudentT``."""
        return "StudentT", {"nu": self.nu, "mu": self.mean, "sigma": self.scale}


class Bounded(Prior):
    """A prior between two ends, ``lower`` and ``upper``."""

    __slots__ = ()
    lower: float
    upper: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.lower < self.upper:
            raise SpecificationError(
                str(self),
                "the lower end is not below the upper end",
                f"write {type(self).__name__}(..., lower=0, upper=1), for example",
                SEE,
            )

    @property
    def is_positive(self) -> bool:
        """Whether the lower end is at zero or above."""
        return self.lower >= 0

    @property
    def support(self) -> tuple[float, float]:
        """From ``lower`` to ``upper``."""
        return self.lower, self.upper


@checked_with_constructor
@dataclass(frozen=True)
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

    def logpdf(self, x: ArrayLike) -> FloatArray:
        """Log density."""
        value = np.asarray(x, dtype=float)
        return np.where((value >= self.lower) & (value <= self.upper), -math.log(self.upper - self.lower), -np.inf)

    def sample(self, rng: np.random.Generator, size: int | tuple[int, ...] | None = None) -> FloatArray:
        """Independent draws."""
        return np.asarray(rng.uniform(self.lower, self.upper, size))

    def pymc(self) -> tuple[str, dict[str, float]]:
        """PyMC's ``Uniform``."""
        return "Uniform", {"lower": self.lower, "upper": self.upper}


@dataclass(frozen=True)
class ScaledBeta(Bounded):
    """Beta(shape, shape) distribution over the range from ``lower`` to ``upper``, symmetric about its middle."""

    shape: float = 2.0
    lower: float = -1.0
    upper: float = 1.0
    _scales: ClassVar[tuple[str, ...]] = ("shape",)

    def logpdf(self, x: ArrayLike) -> FloatArray:
        """Log density."""
        width, a = self.upper - self.lower, self.shape
        p = (np.asarray(x, dtype=float) - self.lower) / width
        with np.errstate(divide="ignore", invalid="ignore"):
            value = (a - 1) * (np.log(p) + np.log1p(-p)) if a != 1 else np.zeros_like(p)
        constant = math.lgamma(2 * a) - 2 * math.lgamma(a) - math.log(width)
        return np.where((p >= 0) & (p <= 1), value + constant, -np.inf)

    def sample(self, rng: np.random.Generator, size: int | tuple[int, ...] | None = None) -> FloatArray:
        """Independent draws."""
        return np.asarray(self.lower + (self.upper - self.lower) * rng.beta(self.shape, self.shape, size))

    def pymc(self) -> tuple[str, dict[str, float]]:
        """PyMC's ``Beta``, of which the parameter is a linear function."""
        return "Beta", {"alpha": self.shape, "beta": self.shape}


@checked_with_constructor
@dataclass(frozen=True)
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

    def logpdf(self, x: ArrayLike) -> FloatArray:
        """Log density."""
        value = np.asarray(x, dtype=float)
        with np.errstate(divide="ignore", invalid="ignore"):
            result = Normal(math.log(self.median), self.spread).logpdf(np.log(value)) - np.log(value)
        return np.where(value > 0, result, -np.inf)

    def sample(self, rng: np.random.Generator, size: int | tuple[int, ...] | None = None) -> FloatArray:
        """Independent draws."""
        return np.asarray(rng.lognormal(math.log(self.median), self.spread, size))

    def pymc(self) -> tuple[str, dict[str, float]]:
        """PyMC's ``LogNormal``."""
        return "LogNormal", {"mu": math.log(self.median), "sigma": self.spread}


@checked_with_constructor
@dataclass(frozen=True)
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

    def logpdf(self, x: ArrayLike) -> FloatArray:
        """Log density."""
        value = np.asarray(x, dtype=float)
        return _inside(value, Normal(0.0, self.sd).logpdf(value) + math.log(2))

    def sample(self, rng: np.random.Generator, size: int | tuple[int, ...] | None = None) -> FloatArray:
        """Independent draws."""
        return np.abs(rng.normal(0.0, self.sd, size))

    def pymc(self) -> tuple[str, dict[str, float]]:
        """PyMC's ``HalfNormal``."""
        return "HalfNormal", {"sigma": self.sd}


@checked_with_constructor
@dataclass(frozen=True)
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

    def logpdf(self, x: ArrayLike) -> FloatArray:
        """Log density."""
        value = np.asarray(x, dtype=float)
        return _inside(value, _student_logpdf(value / self.scale, self.nu, self.scale) + math.log(2))

    def sample(self, rng: np.random.Generator, size: int | tuple[int, ...] | None = None) -> FloatArray:
        """Independent draws."""
        return self.scale * np.abs(rng.standard_t(self.nu, size))

    def pymc(self) -> tuple[str, dict[str, float]]:
        """PyMC's ``HalfStudentT``."""
        return "HalfStudentT", {"nu": self.nu, "sigma": self.scale}


@checked_with_constructor
@dataclass(frozen=True)
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

    def logpdf(self, x: ArrayLike) -> FloatArray:
        """Log density."""
        return HalfStudentT(1.0, self.scale).logpdf(x)

    def sample(self, rng: np.random.Generator, size: int | tuple[int, ...] | None = None) -> FloatArray:
        """Independent draws."""
        return self.scale * np.abs(rng.standard_cauchy(size))

    def pymc(self) -> tuple[str, dict[str, float]]:
        """PyMC's ``HalfCauchy``."""
        return "HalfCauchy", {"beta": self.scale}


@checked_with_constructor
@dataclass(frozen=True)
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

    def logpdf(self, x: ArrayLike) -> FloatArray:
        """Log density."""
        value = np.asarray(x, dtype=float)
        return _inside(value, -value / self.mean - math.log(self.mean))

    def sample(self, rng: np.random.Generator, size: int | tuple[int, ...] | None = None) -> FloatArray:
        """Independent draws."""
        return np.asarray(rng.exponential(self.mean, size))

    def pymc(self) -> tuple[str, dict[str, float]]:
        """PyMC's ``Exponential``."""
        return "Exponential", {"scale": self.mean}


@checked_with_constructor
@dataclass(frozen=True)
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

    def logpdf(self, x: ArrayLike) -> FloatArray:
        """Log density."""
        value = np.asarray(x, dtype=float)
        with np.errstate(divide="ignore", invalid="ignore"):
            power = (self.shape - 1) * np.log(value) if self.shape != 1 else 0.0
            result = power - self.rate * value
        return _inside(value, result + self.shape * math.log(self.rate) - math.lgamma(self.shape))

    def sample(self, rng: np.random.Generator, size: int | tuple[int, ...] | None = None) -> FloatArray:
        """Independent draws."""
        return np.asarray(rng.gamma(self.shape, 1.0 / self.rate, size))

    def pymc(self) -> tuple[str, dict[str, float]]:
        """PyMC's ``Gamma``."""
        return "Gamma", {"alpha": self.shape, "beta": self.rate}


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
        L = np.zeros((size, q, q))
        L[:, 0, 0] = 1.0
        for i in range(1, q):
            rest = np.ones(size)
            for j, a in enumerate(self.partial_shapes(q)[:i]):
                p = rng.beta(a, a, size)
                L[:, i, j] = (2 * p - 1) * rest
                rest = rest * np.sqrt(4 * p * (1 - p))
            L[:, i, i] = rest
        return L


def as_pymc_variable(
    name: str,
    priors: Sequence[Prior],
    dims: str | None,
    labels: Sequence[str],
    *,
    fold: bool = False,
    start: FloatArray | None = None,
) -> Any:
    """Make PyMC random variables inside the current model.

    Parameters
    ----------
    name : str
        Name of the vector in the model.
    priors : sequence of Prior, length n
    dims : str or None
        Name of the vector's dimension; None makes a scalar of the one prior.
    labels : sequence of str, length n
        Names of the elements, used where the priors are of different families.
    fold : bool
        Whether to sample half-distributions as the absolute value of a real number and not on the log scale. The log
        scale has a tail that never ends where the data allow an SD of zero; the fold has none.
    start : (n,), optional
        Where samplers begin, if not at the priors' centres.

    Returns
    -------
    (n,) or () PyTensor variable
        One random vector if all priors are of one family; else a Deterministic of scalars ``name[label]``.
    """
    import pymc as pm

    def make(label: str, family: str, values: Any, dims: str | None, initval: Any = start) -> Any:
        folded = {"default_transform": _fold()} if fold and family in FOLDABLE else {}
        return getattr(pm, family)(label, **values, dims=dims, initval=initval, **folded)

    made = [p.pymc() for p in priors]
    if dims is None:
        return make(name, *made[0], None)
    if len({family for family, _ in made}) == 1:
        family, first = made[0]
        return make(name, family, {key: np.array([values[key] for _, values in made]) for key in first}, dims)
    scalars = [
        make(f"{name}[{label}]", family, values, None, None if start is None else start[k])
        for k, ((family, values), label) in enumerate(zip(made, labels, strict=True))
    ]
    return pm.Deterministic(name, pm.math.stack(scalars), dims=dims)


FOLDABLE = ("HalfNormal", "HalfStudentT", "HalfCauchy", "Exponential")


def _fold() -> Any:
    """Transform of a positive variable: the absolute value of a real one, both signs equally likely."""
    import pytensor.tensor as pt
    from pymc.logprob.transforms import Transform

    class Fold(Transform):
        name = "fold"
        ndim_supp = 0

        def forward(self, value: Any, *inputs: Any) -> Any:
            return value

        def backward(self, value: Any, *inputs: Any) -> Any:
            return pt.abs(value)

        def log_jac_det(self, value: Any, *inputs: Any) -> Any:
            return pt.zeros_like(value) - math.log(2)

    return Fold()
