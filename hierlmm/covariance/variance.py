"""Variance functions of the level-1 residuals: G_i in ``Σ_i = σ² G_i R_i G_i``, the residual SD relative to σ.

A function is a small class: which column it looks at, its parameters, and ``log g`` with its derivatives. The logarithm
is linear in δ for all functions here, as in nlme's ``varFunc`` (Pinheiro & Bates 2000, section 5.2).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.covariance.parameters import Parameter
from hierlmm.errors import DataError, SpecificationError
from hierlmm.frames import is_number, levels_in_use, quote
from hierlmm.options import checked_constructor, renamed

__all__ = ["VarExp", "VarIdent", "VarPower", "VarianceFunction", "sorted_levels"]

FloatArray = NDArray[np.float64]
SMALLEST_SPREAD = 1e-6
SEE = "docs, page 'Residual structures'"


class VarianceFunction(ABC):
    """How the residual SD depends on a covariate or on the fitted value.

    To add a function, write a frozen dataclass with `prepare`, `parameters` and `log_ratio`; `derivatives` is optional.

    Attributes
    ----------
    variable : str or None
        Column it depends on; None is the fitted value.
    centred : bool
        Whether the search and the prior of σ refer to the average row rather than to the rows where the ratio is 1,
        which may lie far outside the data.
    """

    variable: str | None
    centred: ClassVar[bool] = False

    @abstractmethod
    def prepare(self, column: pd.Series) -> tuple[FloatArray, Any]:
        """Numbers v (N,) that `log_ratio` takes, and what must be remembered to make them of new data.

        Parameters
        ----------
        column : pandas.Series
            The column `variable` of the data, or the fitted values.
        """

    def apply(self, column: pd.Series, state: Any) -> FloatArray:
        """Numbers v of new data.

        Parameters
        ----------
        column : pandas.Series
            The column `variable` of the new data.
        state
            What `prepare` remembered.
        """
        return self.prepare(column)[0]

    @abstractmethod
    def parameters(self, v: FloatArray, state: Any) -> tuple[Parameter, ...]:
        """Names, bounds and starting values.

        Parameters
        ----------
        v : (N,)
            Numbers that `prepare` made.
        state
            What `prepare` remembered.
        """

    @abstractmethod
    def log_ratio(self, v: FloatArray, values: FloatArray) -> FloatArray:
        """``log(SD / σ)`` of each row: (N,) and (k,) -> (N,).

        Parameters
        ----------
        v : (N,)
            Numbers that `prepare` or `apply` made.
        values : (k,)
            Parameters, in the order of `parameters`.
        """

    def derivatives(self, v: FloatArray, values: FloatArray) -> FloatArray:
        """Derivatives of `log_ratio` by parameter: (k, N). By default differences of fourth order.

        Parameters
        ----------
        v : (N,)
            Numbers that `prepare` or `apply` made.
        values : (k,)
            Parameters, in the order of `parameters`.
        """
        found = []
        for j in range(len(values)):
            step = 1e-3 * max(abs(values[j]), 1e-2)

            def moved(by: float, j: int = j, step: float = step) -> FloatArray:
                shifted = values.copy()
                shifted[j] += by * step
                return self.log_ratio(v, shifted)

            found.append((8.0 * (moved(1.0) - moved(-1.0)) - (moved(2.0) - moved(-2.0))) / (12.0 * step))
        return np.array(found).reshape(len(values), len(v))

    def formula(self) -> str:
        """The SD as text, for ``equations()``."""
        return type(self).__name__


@renamed(covariate="variable")
@checked_constructor
@dataclass(frozen=True)
class VarIdent(VarianceFunction):
    """An SD of its own in every group: ``SD = σ · ratio[group]``, ratio 1 in the reference group.

    The reference is the first level, as for a factor in a formula.

    Parameters
    ----------
    variable : str
        Column of the groups (or occasions).
    """

    variable: str = ""

    def __post_init__(self) -> None:
        _check_column("VarIdent", self.variable)

    def prepare(self, column: pd.Series) -> tuple[FloatArray, tuple[Any, ...]]:
        """Codes of the groups; their labels are remembered."""
        levels = sorted_levels("VarIdent", column)
        if len(levels) < 2:
            raise DataError(
                f"VarIdent({self.variable!r}) and a column with one value, {quote(levels[0])}",
                "variances can differ only between two groups or more",
                "use another column, or leave the variance function out",
                SEE,
            )
        if len(levels) > max(2, len(column) // 3):
            raise DataError(
                f"VarIdent({self.variable!r}) and {len(levels)} groups in {len(column)} rows",
                "a variance for every group needs several rows in each of them",
                f"use VarPower({self.variable!r}) or VarExp({self.variable!r}) for a covariate that is a number",
                SEE,
            )
        codes = column.map({label: k for k, label in enumerate(levels)})
        counts = codes.value_counts()
        if counts.min() < 2:
            label = levels[int(counts.index.to_numpy()[counts.argmin()])]
            raise DataError(
                f"VarIdent({self.variable!r}) and one row with {quote(label)}",
                "its variance cannot be estimated from one measurement",
                "merge small groups",
                SEE,
            )
        return codes.to_numpy(dtype=np.float64), tuple(levels)

    def apply(self, column: pd.Series, state: tuple[Any, ...]) -> FloatArray:
        """Codes of the groups."""
        unknown = [v for v in column.unique() if v not in state]
        if unknown:
            raise DataError(
                f"{self.variable} {quote(unknown[0])}",
                "this group was not in the fitted data, so its residual variance is unknown",
                f"use one of {', '.join(map(quote, state))}",
                SEE,
            )
        return column.map({label: k for k, label in enumerate(state)}).to_numpy(dtype=np.float64)

    def parameters(self, v: FloatArray, state: tuple[Any, ...]) -> tuple[Parameter, ...]:
        """SD ratios to the reference group."""
        return tuple(Parameter(f"ratio({label}/{state[0]})", 1.0, 0.0) for label in state[1:])

    def log_ratio(self, v: FloatArray, values: FloatArray) -> FloatArray:
        """Logarithm of the group's ratio."""
        return np.concatenate([[0.0], np.log(values)])[v.astype(np.intp)]

    def derivatives(self, v: FloatArray, values: FloatArray) -> FloatArray:
        """Exact."""
        return np.array([(v == k + 1) / value for k, value in enumerate(values)])

    def formula(self) -> str:
        """As in the docstring."""
        return f"sigma · ratio[{self.variable}]"


@renamed(covariate="variable")
@checked_constructor
@dataclass(frozen=True)
class VarPower(VarianceFunction):
    """A power of the size of a covariate or of the fitted value: ``SD = σ · |v|^power``.

    Parameters
    ----------
    variable : str, optional
        Column of numbers other than zero. Left out: the fitted value (with the subject's effects where there are any),
        by REML and ML: fitted values and variances are renewed in turn until they agree, as in nlme.
    """

    variable: str | None = None
    centred: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.variable is not None:
            _check_column("VarPower", self.variable)

    def prepare(self, column: pd.Series) -> tuple[FloatArray, None]:
        """The numbers."""
        v = self.apply(column, None)
        _check_varying("VarPower", self.variable, v)
        _check_spread("VarPower", self.variable, np.log(np.abs(v)), "the logarithm of the size", "use VarExp")
        return v, None

    def apply(self, column: pd.Series, state: None) -> FloatArray:
        """The numbers of new data."""
        v = _numbers("VarPower", self.variable, column)
        if np.any(v == 0.0):
            row = column.index[np.flatnonzero(v == 0.0)[0]]
            raise DataError(
                f"VarPower({self.variable or 'fitted value'}) and a zero in row {quote(row)}",
                "a power of zero is a residual variance of zero (or infinity)",
                "shift the covariate away from zero, or use VarExp",
                SEE,
            )
        return v

    def parameters(self, v: FloatArray, state: Any) -> tuple[Parameter, ...]:
        """``power``; the default prior allows SDs to differ by a factor e or so over the range seen."""
        spread = _spread(np.log(np.abs(v)))
        return (Parameter("power", 0.0, spread=spread, unit=spread),)

    def log_ratio(self, v: FloatArray, values: FloatArray) -> FloatArray:
        """``power · log|v|``."""
        return values[0] * np.log(np.abs(v))

    def derivatives(self, v: FloatArray, values: FloatArray) -> FloatArray:
        """Exact."""
        return np.log(np.abs(v))[None]

    def formula(self) -> str:
        """As in the docstring."""
        return f"sigma · |{self.variable or 'fitted'}|^power"


@renamed(covariate="variable")
@checked_constructor
@dataclass(frozen=True)
class VarExp(VarianceFunction):
    """Exponential in a covariate or in the fitted value: ``SD = σ · exp(rate · v)``.

    Parameters
    ----------
    variable : str, optional
        Column of numbers. Left out: the fitted value, as for `VarPower`.
    """

    variable: str | None = None
    centred: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.variable is not None:
            _check_column("VarExp", self.variable)

    def prepare(self, column: pd.Series) -> tuple[FloatArray, None]:
        """The numbers."""
        v = self.apply(column, None)
        _check_varying("VarExp", self.variable, v)
        away = f"measure it from its mean: data[{self.variable!r}] - data[{self.variable!r}].mean()"
        _check_spread("VarExp", self.variable, v, "the value", away)
        return v, None

    def apply(self, column: pd.Series, state: None) -> FloatArray:
        """The numbers of new data."""
        return _numbers("VarExp", self.variable, column)

    def parameters(self, v: FloatArray, state: Any) -> tuple[Parameter, ...]:
        """``rate``, per unit of the covariate."""
        spread = _spread(v)
        return (Parameter("rate", 0.0, spread=spread, unit=spread),)

    def log_ratio(self, v: FloatArray, values: FloatArray) -> FloatArray:
        """``rate · v``."""
        return values[0] * v

    def derivatives(self, v: FloatArray, values: FloatArray) -> FloatArray:
        """Exact."""
        return v[None].copy()

    def formula(self) -> str:
        """As in the docstring."""
        return f"sigma · exp(rate · {self.variable or 'fitted'})"


def _spread(v: FloatArray) -> float:
    """SD of the default prior: one unit of log SD over the covariate's own SD."""
    sd = float(np.std(v))
    return 1.0 / sd if sd > 0 else 1.0


def _check_column(name: str, covariate: Any) -> None:
    if not isinstance(covariate, str) or not covariate:
        raise SpecificationError(
            f"{name}({'' if isinstance(covariate, str) else repr(covariate)})",
            "its argument is the name of a column",
            f"write {name}('column')",
            SEE,
        )


def _numbers(name: str, covariate: str | None, column: pd.Series) -> FloatArray:
    if not is_number(column):
        raise DataError(
            f"{name}({covariate!r}) and a column of type {column.dtype}",
            "the variance is a function of a number",
            f"use VarIdent({covariate!r}) for groups",
            SEE,
        )
    if pd.api.types.is_complex_dtype(column):
        raise DataError(
            f"{name}({covariate!r}) and complex numbers",
            "the variance is a function of a real number",
            "take .real",
            SEE,
        )
    v = column.to_numpy(dtype=np.float64)
    if not np.all(np.isfinite(v)):
        raise DataError(
            f"{name}({covariate!r}) and {int(np.sum(~np.isfinite(v)))} values that are not finite",
            "the variance would be zero or infinite there",
            "correct or drop these rows",
            SEE,
        )
    return v


def _check_varying(name: str, covariate: str | None, v: FloatArray) -> None:
    """Refuse a covariate that is constant in the data to be fitted."""
    if np.ptp(v) == 0.0:
        raise DataError(
            f"{name}({covariate or 'fitted value'}) and {v[0]:g} in every row",
            "a variance that depends on a constant is one variance",
            "use another column, or leave the variance function out",
            SEE,
        )


def _check_spread(name: str, covariate: str | None, v: FloatArray, what: str, remedy: str) -> None:
    """Refuse what hardly varies around its mean: its coefficient and σ would be known only together."""
    if np.std(v) <= SMALLEST_SPREAD * np.abs(v).max():
        raise DataError(
            f"{name}({covariate or 'fitted value'}) and a covariate of which {what} is {np.mean(v):.6g} on average, "
            f"with an SD of {np.std(v):.2g}",
            "σ is the SD where this is zero, very far from the data: the two would be known only together",
            remedy,
            SEE,
        )


def sorted_levels(name: str, column: pd.Series) -> list[Any]:
    """Distinct labels in order, that of the categories where there are any.

    Raises
    ------
    DataError
        If they have no order (numbers and text).
    """
    try:
        return levels_in_use(column)
    except TypeError as error:
        types = ", ".join(sorted({type(v).__name__ for v in column}))
        raise DataError(
            f"{name}({column.name!r}) and labels of type {types}",
            "labels are of one type (1 and '1' could mean one group or two)",
            f"make them text: data[{column.name!r}].astype(str)",
            SEE,
        ) from error
