"""What was said about the level-1 residuals: their correlation within a subject and their variance."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from hierlmm.covariance.composed import composed, group_of, weights_of
from hierlmm.covariance.residual import ResidualCorrelation, UnstructuredHeterogeneous
from hierlmm.covariance.variance import VarianceFunction
from hierlmm.errors import SpecificationError

SEE = "docs, page 'Residual structures'"
specification_error = partial(SpecificationError, see=SEE)


@dataclass(frozen=True)
class Residual:
    """The structure of the residuals.

    Attributes
    ----------
    correlation : ResidualCorrelation or None
        None: independent.
    variance : VarianceFunction or None
        None: equal.
    """

    correlation: ResidualCorrelation | None = None
    variance: VarianceFunction | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the data that the structures look at."""
        times = () if self.correlation is None or self.correlation.time is None else (self.correlation.time,)
        return tuple(dict.fromkeys([*times, *(() if self.variance is None else self.variance.columns)]))

    @property
    def group(self) -> str | None:
        """Column of the groups with residual parameters of their own."""
        return group_of(self.variance)

    @property
    def weights(self) -> str | None:
        """Column of the weights."""
        return weights_of(self.variance)


INDEPENDENT = Residual()


def make_residual(correlation: Any, variance: Any, *, group: str | None = None, weights: str | None = None) -> Residual:
    """Check what was given for the residual structure.

    Parameters
    ----------
    correlation, variance
        Structures, or None.
    group : str, optional
        Column of the groups with residual parameters of their own.
    weights : str, optional
        Column of the weights.

    Raises
    ------
    SpecificationError
        If it is of another kind, each is in the place of the other, or one name stands for both and there is another.
    """
    if isinstance(correlation, UnstructuredHeterogeneous):
        if variance is not None:
            reason = "the first is a correlation and a variance function in one, so that the variance is said twice"
            remedy = f"leave the second out, or write {correlation.correlation!r} for the correlation alone"
            raise specification_error(f"{correlation!r} and {variance!r}", reason, remedy)
        correlation, variance = correlation.correlation, correlation.variance
    for name, value, kind, example in (
        ("correlation", correlation, ResidualCorrelation, "hl.AR1() or hl.Exponential('time')"),
        ("variance", variance, VarianceFunction, "hl.VarIdent('sex') or hl.VarPower('time')"),
    ):
        if value is not None and not isinstance(value, kind):
            what = f"{value!r} for the residual {name}"
            if isinstance(value, type):
                raise specification_error(what, "a class was given, not a structure", f"write {value.__name__}(...)")
            raise specification_error(what, f"it is no residual {name}", f"use for example {example}")
    return Residual(correlation, composed(variance, group, weights))
