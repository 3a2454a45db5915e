"""A correlation structure and a variance function that are known by one name."""

from __future__ import annotations

from dataclasses import dataclass

from hierlmm.covariance.residual import Unstructured, check_time
from hierlmm.covariance.variance import VarIdent
from hierlmm.options import checked_constructor

__all__ = ["UnstructuredHeterogeneous"]


@checked_constructor
@dataclass(frozen=True)
class UnstructuredHeterogeneous:
    """A variance for every occasion and a correlation for every pair of them: any covariance matrix at all.

    This is the unstructured covariance of a repeated-measures analysis, ``UN`` in SAS and ``us`` in R's mmrm. It is one
    name for two structures, `Unstructured` and `VarIdent` of the same column, and the model has these two: it takes
    the place of ``correlation`` and ``variance`` together (in a two-level model of ``residual`` and
    ``residual_variance``).

    Parameters
    ----------
    time : str
        Column of the occasions, labels that all subjects share. A subject may miss some.

    Examples
    --------
    >>> import hierlmm as hl
    >>> model = hl.MarginalModel(
    ...     "distance ~ sex * time",
    ...     correlation=hl.UnstructuredHeterogeneous("age"),
    ...     subject="subject",
    ...     data=hl.load_dataset("dental"),
    ... )
    >>> model.correlation, model.variance
    (Unstructured(time='age'), VarIdent(variable='age'))
    """

    time: str = ""

    def __post_init__(self) -> None:
        check_time("UnstructuredHeterogeneous", self.time)

    @property
    def correlation(self) -> Unstructured:
        """A correlation for every pair of occasions."""
        return Unstructured(self.time)

    @property
    def variance(self) -> VarIdent:
        """A variance for every occasion."""
        return VarIdent(self.time)
