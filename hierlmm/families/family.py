"""A response distribution as data: what every estimator needs of it, and nothing that an estimator owns.

``y | η ~ family(μ = g⁻¹(η), ψ)`` with the linear predictor ``η = x'β + z'b``, the link g and unconstrained dispersion
parameters ψ (logarithms, mostly). Kernels meet a family as the address of one compiled function of a row,

    derivatives(y, n, eta, psi, order, d)

which writes into ``d`` the log density l and its derivatives: ``d[0:4] = l, ∂l, ∂²l, ∂³l`` in η, and for each ψ_k
``d[4 + 3k:7 + 3k] = ∂l/∂ψ_k, ∂²l/∂η∂ψ_k, ∂³l/∂²η∂ψ_k``. With ``order`` 1, l, ∂l and ∂l/∂ψ are wanted, with 2 the
first three, with 3 all. ``n`` is the number of trials, 1 where there are none. Terms of y alone stand in `constant`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any, ClassVar

import numba
import numpy as np
import pandas as pd
from numba.core import cgutils
from numba.extending import intrinsic

from hierlmm.arrays import FloatArray, Rng
from hierlmm.compiled import compiled, compiled_callback, with_names
from hierlmm.errors import DataError, NotAvailableError, SpecificationError
from hierlmm.families.links import LINKS, Link
from hierlmm.frames import quote

SEE = "docs, page 'Families'"
types = numba.types
VECTOR = types.Array(types.float64, 1, "C")
OF_ROW = types.void(types.float64, types.float64, types.float64, VECTOR, types.int64, VECTOR)
"""Signature of the compiled function of a row."""


@intrinsic
def function_of_row(typing_context: Any, address: Any) -> Any:
    """Turn an address into `Family.derivatives` as a compiled function's argument: for code that is called from C."""
    kind = types.FunctionType(OF_ROW)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        made = cgutils.create_struct_proxy(kind)(context, builder)
        made.c_addr = builder.inttoptr(args[0], cgutils.voidptr_t)
        return made._getvalue()

    return kind(types.int64), codegen


# What the names stand for is filled in by `Family.derivatives`.
inverse: Any = None
density: Any = None
in_eta: Any = None


def chained(y: float, n: float, eta: float, psi: FloatArray, order: int, d: FloatArray) -> None:
    """Derivatives in η from those in μ, by the chain rule."""
    mu, m1, m2, m3 = inverse(eta)
    density(y, n, mu, psi, order, d)
    d1, d2, d3 = d[1], d[2], d[3]
    d[1] = d1 * m1
    d[2] = d2 * m1 * m1 + d1 * m2
    d[3] = d3 * m1 * m1 * m1 + 3.0 * d2 * m1 * m2 + d1 * m3
    for k in range(4, len(d), 3):
        d1, d2 = d[k + 1], d[k + 2]
        d[k + 1] = d1 * m1
        d[k + 2] = d2 * m1 * m1 + d1 * m2


@dataclass(frozen=True)
class Family:
    """A response distribution with its link; a subclass is a family.

    Parameters
    ----------
    link : str, optional
        What joins the mean and the linear predictor; the first of ``links`` by default.

    Attributes
    ----------
    name : str
        As ``family=`` takes it.
    title : str
        In prints; the name of the class if it says none.
    links : tuple of str
        Links that make sense.
    dispersion : tuple of str
        Names of the dispersion parameters, positive, ψ being their logarithms.
    has_trials : bool
        Whether a row is a number of successes among trials.
    discrete : bool
        Whether y are whole numbers: counts, successes, categories.
    location : bool
        Whether η is the location of y: the density depends on y − η alone.
    concave : tuple of str
        Links with which l is concave in η, so that a subject has one mode.
    elsewhere : mapping
        The name of the same thing in ``"pymc"``, ``"bambi"``, ``"statsmodels"``.
    """

    link: str = ""
    name: ClassVar[str] = ""
    title: ClassVar[str] = ""
    links: ClassVar[tuple[str, ...]] = ("identity",)
    dispersion: ClassVar[tuple[str, ...]] = ()
    has_trials: ClassVar[bool] = False
    discrete: ClassVar[bool] = False
    location: ClassVar[bool] = False
    concave: ClassVar[tuple[str, ...]] = ()
    elsewhere: ClassVar[Mapping[str, str]] = MappingProxyType({})

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.title = cls.title or cls.__name__

    def __post_init__(self) -> None:
        if not self.link:
            object.__setattr__(self, "link", self.links[0])
        if self.link not in self.links:
            received, remedy = f"{type(self).__name__}(link={self.link!r})", f"use {', '.join(map(repr, self.links))}"
            raise SpecificationError(received, f"the links of this family are {len(self.links)} others", remedy, SEE)

    @property
    def function(self) -> Link:
        """The link with its inverse and derivatives."""
        return LINKS[self.link]

    @property
    def log_concave(self) -> bool:
        """Whether l is concave in η."""
        return self.link in self.concave

    @property
    def derivatives(self) -> Any:
        """The compiled function of a row (see the opening of this module), as kernels take it."""
        return _derivatives(self)

    def direct(self) -> Any:
        """The function of a row in η, where that of the link is written out; None: `density` and the chain rule."""
        return None

    @staticmethod
    def density(y: float, n: float, mu: float, psi: FloatArray, order: int, d: FloatArray) -> None:
        """The same derivatives in μ instead of η; compiled when it is first used.

        Parameters
        ----------
        y, n, mu : float
            Response, trials and mean of a trial.
        psi : (m,)
            Unconstrained dispersion parameters.
        order : int
            What is wanted, 1, 2 or 3: see the opening of this module.
        d : (4 + 3m,)
            Where it is written.
        """
        # Never compiled: `_derivatives` refuses a family without a density of its own. A compiled function of a row
        # cannot say that it failed, and would leave zeros.

    # What estimators ask on arrays.

    def response(self, values: pd.Series, name: str) -> tuple[FloatArray, str]:
        """The response as numbers, and what the print says of it (which level is a success).

        Parameters
        ----------
        values : pandas.Series
            The column.
        name : str
            Its name, for messages.

        Raises
        ------
        DataError
        """
        return values.to_numpy(dtype=np.float64), ""

    def psi(self, natural: Mapping[str, float]) -> FloatArray:
        """ψ of dispersion parameters by name: the way back from `natural`.

        Parameters
        ----------
        natural : mapping
            Name -> value.

        Raises
        ------
        SpecificationError
            If they are not those of this family, or not positive.
        """
        needed = ", ".join(f"{name!r}: 2.0" for name in self.dispersion)
        remedy = f"give dispersion={{{needed}}}" if needed else "leave it out"
        received = f"dispersion={dict(natural)!r} of a {self.title} response"
        if set(natural) != set(self.dispersion):
            reason = f"its dispersion parameters are {', '.join(self.dispersion) or 'none'}"
            raise SpecificationError(received, reason, remedy, SEE)
        return np.log([positive(natural[name], received, remedy) for name in self.dispersion])

    def categories(self, values: pd.Series, name: str) -> list[Any]:
        """Labels of the ordered categories of a response, lowest first; empty where it has none.

        Parameters
        ----------
        values : pandas.Series
            The column.
        name : str
            Its name, for messages.
        """
        return []

    def check(self, y: FloatArray, n: FloatArray, name: str) -> None:
        """Refuse a response that this family cannot have.

        Parameters
        ----------
        y : (N,)
            Responses.
        n : (N,)
            Trials, 1 where there are none.
        name : str
            Of the response, for messages.

        Raises
        ------
        DataError
        """

    def constant(self, y: FloatArray, n: FloatArray) -> FloatArray:
        """Terms of the log density that depend on y alone, (N,).

        Parameters
        ----------
        y : (N,)
            Responses.
        n : (N,)
            Trials, 1 where there are none.
        """
        return np.zeros(len(y))

    def mean(self, eta: FloatArray) -> FloatArray:
        """Mean of a row (of one trial) at a linear predictor: (...) -> (...).

        Parameters
        ----------
        eta : (...)
            Linear predictors.
        """
        return self.function.inverse(np.asarray(eta, dtype=np.float64))

    def variance(self, mu: FloatArray, psi: FloatArray, n: FloatArray | float = 1.0) -> FloatArray:
        """Variance of y given the mean of a trial, (...).

        Parameters
        ----------
        mu : (...)
            Means of a trial.
        psi : (m,)
            Unconstrained dispersion parameters.
        n : (...)
            Trials.
        """
        raise self._unwritten("the variance", "variance(self, mu, psi, n=1.0)")

    def deviance(self, y: FloatArray, mu: FloatArray, psi: FloatArray, n: FloatArray | float = 1.0) -> FloatArray:
        """Twice the log-likelihood that a row loses against a mean of its own, (N,).

        Parameters
        ----------
        y : (N,)
            Responses.
        mu : (...)
            Means of a trial.
        psi : (m,)
            Unconstrained dispersion parameters.
        n : (...)
            Trials.

        Raises
        ------
        NotAvailableError
            If the family is no exponential dispersion model, where this depends on more than the mean.
        """
        received, reason = f"deviance residuals of a {self.title} response", "this family has no deviance by row"
        raise NotAvailableError(received, reason, "use kind='pearson' or kind='response'", SEE)

    def draw(self, rng: Rng, mu: FloatArray, psi: FloatArray, n: FloatArray | float = 1.0) -> FloatArray:
        """Draw responses at means of a trial: (...) -> (...).

        Parameters
        ----------
        rng : numpy.random.Generator
        mu : (...)
            Means of a trial.
        psi : (..., m)
            Unconstrained dispersion parameters.
        n : (...)
            Trials.
        """
        raise self._unwritten("draws", "draw(self, rng, mu, psi, n=1.0)")

    def _unwritten(self, what: str, method: str) -> NotAvailableError:
        received, reason = f"{what} of a {self.title} response", "its family does not say what they are"
        return NotAvailableError(received, reason, f"write the method {method} of the class", SEE)

    def first_mean(self, y: FloatArray, n: FloatArray) -> FloatArray:
        """Means inside their range at which the search begins, (N,).

        Parameters
        ----------
        y : (N,)
            Responses.
        n : (N,)
            Trials, 1 where there are none.
        """
        return y

    def first_psi(self, y: FloatArray, n: FloatArray) -> FloatArray:
        """ψ at which the search begins, (m,).

        Parameters
        ----------
        y : (N,)
            Responses.
        n : (N,)
            Trials, 1 where there are none.
        """
        return np.zeros(len(self.dispersion))

    def scale(self, y: FloatArray) -> float:
        """Size of η that default priors and the search go by: the SD of the link of y, 1 where η has no unit.

        Parameters
        ----------
        y : (N,)
            Responses.
        """
        spread, mean = float(np.std(y)), abs(float(np.mean(y))) or 1.0
        return {"identity": spread, "inverse": spread / mean**2, "sqrt": 0.5 * spread / mean**0.5}.get(self.link) or 1.0

    def natural(self, psi: FloatArray) -> dict[str, float]:
        """Dispersion parameters by name.

        Parameters
        ----------
        psi : (m,)
            Unconstrained dispersion parameters.
        """
        return {name: float(np.exp(value)) for name, value in zip(self.dispersion, psi, strict=True)}

    def __str__(self) -> str:
        return f"{self.title} ({self.link} link)"


def guarded(y: float, n: float, eta: float, psi: FloatArray, order: int, d: FloatArray) -> None:
    """A function of a row that a user wrote: no number where it raises, since C could not be told."""
    try:
        in_eta(y, n, eta, psi, order, d)
    except Exception:
        for k in range(len(d)):
            d[k] = np.nan


@lru_cache(maxsize=64)
def _derivatives(family: Family) -> Any:
    """The compiled function of a row; on disk where the family is of this package."""
    keep, own = is_own(type(family)), of_row(family)
    if not keep:
        own = with_names(guarded, family.name, in_eta=own)
    return compiled_callback(OF_ROW, getattr(own, "py_func", own), keep=keep)


def of_row(family: Family) -> Any:
    """The function of a row in η before it goes to C: to be compiled, or of a user compiled and able to raise.

    Raises
    ------
    NotAvailableError
        If the family has no density.
    """
    keep = is_own(type(family))
    made = compiled(keep=keep, error_model="numpy")
    own = family.direct()
    if own is None:
        given = type(family).density
        if given is Family.density:
            raise family._unwritten("the log density", "density(y, n, mu, psi, order, d)")
        in_mu = given if hasattr(given, "py_func") else made(given)
        own = with_names(chained, f"{family.name}_{family.link}", inverse=family.function.compiled, density=in_mu)
    return own if keep or hasattr(own, "py_func") else made(own)


def is_own(kind: type[Family]) -> bool:
    """Whether a family is one of this package, whose machine code may be kept."""
    return kind.__module__.startswith("hierlmm.")


def positive(value: Any, received: str, remedy: str) -> float:
    """A positive number.

    Raises
    ------
    SpecificationError
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not 0.0 < value < np.inf:
        raise SpecificationError(received, "these are positive numbers", remedy, SEE)
    return float(value)


def refuse_rows(bad: Any, y: FloatArray, name: str, what: str, reason: str, remedy: str) -> None:
    """Refuse a response in which some rows are bad, naming the first."""
    rows = np.flatnonzero(bad)
    if rows.size:
        received = f"{name!r} with {what} in {rows.size} rows, first {quote(float(y[rows[0]]))} in position {rows[0]}"
        raise DataError(received, reason, remedy, SEE)
