"""What every prior distribution has: parameters that are checked and printed, a density, draws, a name in PyMC.

`as_pymc_variable` makes one or several of them random variables of the explicit model.
"""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from types import FunctionType
from typing import Any, ClassVar, NamedTuple, dataclass_transform

import numpy as np
from numpy.typing import ArrayLike

from hierlmm.arrays import FloatArray
from hierlmm.errors import SpecificationError
from hierlmm.options import checked_with_constructor

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
                example = ", ".join(f"{field.name}=1" for field in fields(self))  # type: ignore[arg-type]
                remedy = f"write a number, for example {type(self).__name__}({example})"
                raise SpecificationError(what, "a parameter of a prior is one number", remedy, SEE)
            if not math.isfinite(value):
                raise SpecificationError(what, "a parameter of a prior must be finite", "write a finite number", SEE)
            if field.name in self._scales and value <= 0:
                remedy = f"write a positive number (it is in the units of the parameter), for example {abs(value) or 1}"
                raise SpecificationError(what, f"{field.name!r} must be positive", remedy, SEE)

    def __str__(self) -> str:
        values = ", ".join(number(getattr(self, field.name)) for field in fields(self))  # type: ignore[arg-type]
        return f"{type(self).__name__}({values})"


class Family(NamedTuple):
    """What makes one distribution another; every function is given the prior first.

    ``pymc`` is PyMC's name and ``parameters`` PyMC's parameters, ``density`` the log density within the support;
    ``draw`` takes a generator and a size; ``closed`` gives (a, r, k, ν + 1, t) of a prior of a standard deviation in
    the form that `collapsed_kernel` compiles, ``(a-1) log x - r x - ½ k x² - ½ (ν+1) log(1 + t x²)``, and its constant.
    """

    pymc: str
    parameters: Callable[[Any], dict[str, float]]
    density: Callable[[Any, FloatArray], FloatArray]
    draw: Callable[[Any, np.random.Generator, Any], Any]
    closed: Callable[[Any], tuple[tuple[float, ...], float]] | None = None


class Prior(Distribution, ABC):
    """A prior distribution of one number."""

    __slots__ = ()
    positive: ClassVar[bool] = False
    _family: ClassVar[Family]

    @property
    def is_positive(self) -> bool:
        """Whether the prior gives no mass to negative values."""
        return self.positive

    @property
    def support(self) -> tuple[float, float]:
        """Ends of the interval outside which the density is zero."""
        return (0.0 if self.is_positive else -math.inf), math.inf

    def logpdf(self, x: ArrayLike) -> FloatArray:
        """Log density, elementwise; −∞ outside the support.

        Parameters
        ----------
        x : array
            Values, of any shape.
        """
        value, (low, high) = np.asarray(x, dtype=float), self.support
        with np.errstate(divide="ignore", invalid="ignore"):
            found = self._family.density(self, value)
        return found if math.isinf(low) else np.where((value >= low) & (value <= high), found, -np.inf)

    def sample(self, rng: np.random.Generator, size: int | tuple[int, ...] | None = None) -> FloatArray:
        """Independent draws.

        Parameters
        ----------
        rng : numpy.random.Generator
            Source of random numbers.
        size : int or tuple of int, optional
            Shape of the draws; one number by default.
        """
        return np.asarray(self._family.draw(self, rng, size))

    def pymc(self) -> tuple[str, dict[str, float]]:
        """Name of the PyMC distribution, and its parameters."""
        return self._family.pymc, self._family.parameters(self)

    def closed_form(self) -> tuple[tuple[float, ...], float] | None:
        """Coefficients and constant of `Family`'s closed form; None for a prior of another form."""
        return None if self._family.closed is None else self._family.closed(self)


@dataclass_transform(frozen_default=True)
def family[T: type](*parts: Any, **closed: Any) -> Callable[[T], T]:
    """Make a class of parameters a distribution, of the parts of `Family`; its methods are its own for messages."""

    def decorate(kind: T) -> T:
        setattr(kind, "_family", Family(*parts, **closed))  # noqa: B010
        for method in (Prior.logpdf, Prior.sample, Prior.pymc):
            own = FunctionType(method.__code__, method.__globals__, method.__name__, method.__defaults__)
            own.__qualname__, own.__annotations__ = f"{kind.__name__}.{method.__name__}", method.__annotations__
            own.__doc__, own.__module__ = method.__doc__, kind.__module__
            setattr(kind, method.__name__, own)
        made: Any = dataclass(frozen=True)(kind)
        return checked_with_constructor(made)

    return decorate


def number(value: float) -> str:
    """Write a number of a prior with four significant digits, large ones in full."""
    return f"{value:z.0f}" if 1e4 <= abs(value) < 1e7 else f"{value:.4g}"


FOLDABLE = ("HalfNormal", "HalfStudentT", "HalfCauchy", "Exponential")


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
