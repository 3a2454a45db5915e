"""Variance functions of the level-1 residuals: G_i in ``Σ_i = σ² G_i R_i G_i``, the residual SD relative to σ.

A function is a small class: which column it looks at, its parameters, and ``log g`` with its derivatives. The logarithm
is linear in δ for all functions here, as in nlme's ``varFunc`` (Pinheiro & Bates 2000, section 5.2).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray
from hierlmm.covariance.declared import (
    data_error,
    difference,
    group_places,
    keep_together,
    refuse_fields,
    specification_error,
)
from hierlmm.covariance.parameters import Parameter
from hierlmm.frames import is_number, levels_in_use, quote, refuse_rounding
from hierlmm.options import checked_constructor, renamed

SMALLEST_SPREAD = 1e-6


class Writer(Protocol):
    """Writes the SD of a row over σ, in text, LaTeX and HTML at once; its pieces add up like strings."""

    def parameter(self, name: str, times: int = 1) -> Any:
        """A parameter by its name in tables, or its estimate, perhaps times a whole number."""

    def covariate(self, row: str) -> Any:
        """The function's variable in row ``"j"`` or ``"k"``."""

    def code(self, name: str) -> Any:
        """A name as it is."""

    def powered(self, body: Any, power: int) -> Any:
        """A whole power."""

    def raised(self, base: Any, exponent: Any) -> Any:
        """A power."""

    def column(self, name: str, row: str) -> Any:
        """Another column of the data in row ``"j"`` or ``"k"``."""

    def product(self, *factors: Any) -> Any:
        """A product."""

    def exponential(self, *factors: Any) -> Any:
        """``exp`` of a product."""


class VarianceFunction(ABC):
    """How the residual SD depends on a covariate or on the fitted value.

    To add a function, write a frozen dataclass with `prepare`, `parameters` and `log_ratio`; all else is optional. What
    a class says of its `log_ratio` (`formula`, `symbols`, `derivatives`) is not inherited by one that replaces it.

    Attributes
    ----------
    variable : str or None
        Column it depends on; None is the fitted value.
    centred : bool
        Whether the search and the prior of σ refer to the average row rather than to the rows where the ratio is 1,
        which may lie far outside the data.
    free : bool
        Whether all SDs that depend on the variable alone are its own.
    equal_at : float or None
        Value of its parameters at which all rows have one SD.
    """

    variable: str | None
    centred: ClassVar[bool] = False
    free: ClassVar[bool] = False
    equal_at: ClassVar[float | None] = None
    _linear: ClassVar[bool] = False
    """Whether `log_ratio` is linear in the unconstrained parameters, which NUTS makes use of."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        refuse_fields(cls)
        keep_together(cls, VarianceFunction, ("log_ratio",), ("formula", "symbols", "derivatives", "free", "equal_at"))
        keep_together(cls, VarianceFunction, ("log_ratio", "parameters", "prepare"), ("_groups", "_linear"))

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the data that it depends on."""
        return () if self.variable is None else (self.variable,)

    def read(self, frame: pd.DataFrame, fitted: Any = None) -> Any:
        """What `prepare` and `apply` take, of rows of the data.

        Parameters
        ----------
        frame : pandas.DataFrame
            The rows.
        fitted : (N,), optional
            Their fitted values, where it depends on these.
        """
        if self.variable is not None:
            return frame[self.variable]
        return pd.Series(np.asarray(fitted), index=frame.index, name="fitted value")

    def bound(self, state: Any) -> VarianceFunction:
        """The function as one data set has it, by default itself.

        Parameters
        ----------
        state
            What `prepare` remembered.
        """
        return self

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
        steps = 1e-3 * np.maximum(np.abs(values), 1e-2)
        found = [difference(lambda at: self.log_ratio(v, at), values, j, step) for j, step in enumerate(steps)]
        return np.array(found).reshape(len(values), len(v))

    def formula(self) -> str:
        """The SD as text, for print and ``equations()``."""
        return type(self).__name__

    def symbols(self, write: Writer, row: str, power: int) -> Any:
        """A power of the SD of a row over σ in symbols, for ``equations()``; None where it has no short form.

        Parameters
        ----------
        write : Writer
            Writes parameters, covariates and powers.
        row : {"j", "k"}
            The row.
        power : {1, 2}
            The power.
        """
        return None

    def _groups(self, state: Any) -> tuple[str, ...]:
        """Labels of groups with an SD of their own, the reference first; empty for a function of a number.

        Parameters
        ----------
        state
            What `prepare` remembered.
        """
        return ()


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
    _linear: ClassVar[bool] = True
    free: ClassVar[bool] = True
    equal_at: ClassVar[float | None] = 1.0

    def __post_init__(self) -> None:
        _check_column("VarIdent", self.variable)

    def prepare(self, column: pd.Series) -> tuple[FloatArray, tuple[Any, ...]]:
        """Codes of the groups; their labels are remembered."""
        levels = sorted_levels("VarIdent", column)
        if len(levels) < 2:
            received = f"VarIdent({self.variable!r}) and a column with one value, {quote(levels[0])}"
            reason = "variances can differ only between two groups or more"
            raise data_error(received, reason, "use another column, or leave the variance function out")
        if len(levels) > max(2, len(column) // 3):
            received = f"VarIdent({self.variable!r}) and {len(levels)} groups in {len(column)} rows"
            remedy = f"use VarPower({self.variable!r}) or VarExp({self.variable!r}) for a covariate that is a number"
            raise data_error(received, "a variance for every group needs several rows in each of them", remedy)
        codes = column.map({label: k for k, label in enumerate(levels)})
        counts = codes.value_counts()
        if counts.min() < 2:
            label = levels[int(counts.index.to_numpy()[counts.argmin()])]
            received = f"VarIdent({self.variable!r}) and one row with {quote(label)}"
            raise data_error(received, "its variance cannot be estimated from one measurement", "merge small groups")
        return codes.to_numpy(dtype=np.float64), tuple(levels)

    def apply(self, column: pd.Series, state: tuple[Any, ...]) -> FloatArray:
        """Codes of the groups."""
        return group_places(column, state)

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

    def symbols(self, write: Writer, row: str, power: int) -> Any:
        """The ratio of the row's group."""
        return write.powered(write.code("ratio") + "(" + write.covariate(row) + ")", power)

    def _groups(self, state: tuple[Any, ...]) -> tuple[str, ...]:
        """All groups."""
        return tuple(map(str, state))


@dataclass(frozen=True)
class _OfNumber(VarianceFunction):
    """``log(SD / σ)`` proportional to a number that follows from a covariate or from the fitted value.

    Attributes
    ----------
    parameter : str
        Name of the factor.
    spreading : tuple of str
        What has to vary, and what to do where it hardly does; ``{0!r}`` is the column.
    """

    variable: str | None = None
    centred: ClassVar[bool] = True
    _linear: ClassVar[bool] = True
    equal_at: ClassVar[float | None] = 0.0
    parameter: ClassVar[str]
    spreading: ClassVar[tuple[str, str]]

    def __post_init__(self) -> None:
        if self.variable is not None:
            _check_column(type(self).__name__, self.variable)

    @abstractmethod
    def _number(self, v: FloatArray) -> FloatArray:
        """What the logarithm of the SD is proportional to."""

    def prepare(self, column: pd.Series) -> tuple[FloatArray, None]:
        """The numbers."""
        v, name = self.apply(column, None), f"{type(self).__name__}({self.variable or 'fitted value'})"
        if np.ptp(v) == 0.0:
            reason = "a variance that depends on a constant is one variance"
            remedy = "use another column, or leave the variance function out"
            raise data_error(f"{name} and {v[0]:g} in every row", reason, remedy)
        number, (what, remedy) = self._number(v), self.spreading
        if np.std(number) <= SMALLEST_SPREAD * np.abs(number).max():  # its coefficient and σ are known only together
            size = f"{np.mean(number):.6g} on average, with an SD of {np.std(number):.2g}"
            reason = "σ is the SD where this is zero, very far from the data: the two would be known only together"
            raise data_error(f"{name} and a covariate of which {what} is {size}", reason, remedy.format(self.variable))
        return v, None

    def apply(self, column: pd.Series, state: None) -> FloatArray:
        """The numbers of new data."""
        return _numbers(self, column)

    def parameters(self, v: FloatArray, state: Any) -> tuple[Parameter, ...]:
        """The factor; the default prior allows SDs to differ by a factor e or so over the range seen."""
        sd = float(np.std(self._number(v)))
        spread = 1.0 / sd if sd > 0 else 1.0
        return (Parameter(self.parameter, 0.0, spread=spread, unit=spread),)

    def log_ratio(self, v: FloatArray, values: FloatArray) -> FloatArray:
        """Factor times number."""
        return values[0] * self._number(v)

    def derivatives(self, v: FloatArray, values: FloatArray) -> FloatArray:
        """Exact."""
        return self._number(v)[None].copy()


@renamed(covariate="variable")
@checked_constructor
@dataclass(frozen=True)
class VarPower(_OfNumber):
    """A power of the size of a covariate or of the fitted value: ``SD = σ · |v|^power``.

    Parameters
    ----------
    variable : str, optional
        Column of numbers other than zero. Left out: the fitted value (with the subject's effects where there are any),
        by REML and ML: fitted values and variances are renewed in turn until they agree, as in nlme.
    """

    parameter: ClassVar[str] = "power"
    spreading: ClassVar[tuple[str, str]] = ("the logarithm of the size", "use VarExp")

    def _number(self, v: FloatArray) -> FloatArray:
        """``log|v|``."""
        return np.log(np.abs(v))

    def apply(self, column: pd.Series, state: None) -> FloatArray:
        """The numbers of new data, none of them zero."""
        v = super().apply(column, state)
        if np.any(v == 0.0):
            row = column.index[np.flatnonzero(v == 0.0)[0]]
            received = f"VarPower({self.variable or 'fitted value'}) and a zero in row {quote(row)}"
            reason = "a power of zero is a residual variance of zero (or infinity)"
            raise data_error(received, reason, "shift the covariate away from zero, or use VarExp")
        return v

    def formula(self) -> str:
        """As in the docstring."""
        return f"sigma · |{self.variable or 'fitted'}|^power"

    def symbols(self, write: Writer, row: str, power: int) -> Any:
        """As in the docstring."""
        return write.raised("|" + write.covariate(row) + "|", write.parameter("power", power))


@renamed(covariate="variable")
@checked_constructor
@dataclass(frozen=True)
class VarExp(_OfNumber):
    """Exponential in a covariate or in the fitted value: ``SD = σ · exp(rate · v)``.

    Parameters
    ----------
    variable : str, optional
        Column of numbers. Left out: the fitted value, as for `VarPower`.
    """

    parameter: ClassVar[str] = "rate"
    spreading: ClassVar[tuple[str, str]] = ("the value", "measure it from its mean: data[{0!r}] - data[{0!r}].mean()")

    def _number(self, v: FloatArray) -> FloatArray:
        """``v``."""
        return v

    def formula(self) -> str:
        """As in the docstring."""
        return f"sigma · exp(rate · {self.variable or 'fitted'})"

    def symbols(self, write: Writer, row: str, power: int) -> Any:
        """As in the docstring."""
        return write.exponential(write.parameter("rate", power), write.covariate(row))


def _check_column(name: str, covariate: Any) -> None:
    if not isinstance(covariate, str) or not covariate:
        received = f"{name}({'' if isinstance(covariate, str) else repr(covariate)})"
        raise specification_error(received, "its argument is the name of a column", f"write {name}('column')")


def _numbers(spec: VarianceFunction, column: pd.Series) -> FloatArray:
    name, covariate = type(spec).__name__, spec.variable
    if not is_number(column):
        received = f"{name}({covariate!r}) and a column of type {column.dtype}"
        raise data_error(received, "the variance is a function of a number", f"use VarIdent({covariate!r}) for groups")
    if pd.api.types.is_complex_dtype(column):
        received = f"{name}({covariate!r}) and complex numbers"
        raise data_error(received, "the variance is a function of a real number", "take .real")
    v = column.to_numpy(dtype=np.float64)
    if not np.all(np.isfinite(v)):
        received = f"{name}({covariate!r}) and {int(np.sum(~np.isfinite(v)))} values that are not finite"
        raise data_error(received, "the variance would be zero or infinite there", "correct or drop these rows")
    return v


def sorted_levels(name: str, column: pd.Series) -> list[Any]:
    """Distinct labels in order, that of the categories where there are any.

    Raises
    ------
    DataError
        If they have no order (numbers and text).
    """
    try:
        levels = levels_in_use(column)
    except TypeError as error:
        types = ", ".join(sorted({type(v).__name__ for v in column}))
        received = f"{name}({column.name!r}) and labels of type {types}"
        reason = "labels are of one type (1 and '1' could mean one group or two)"
        raise data_error(received, reason, f"make them text: data[{column.name!r}].astype(str)") from error
    refuse_rounding(column, levels)
    return levels
