"""The working correlation of GEE that is the counterpart of a residual correlation."""

from __future__ import annotations

from hierlmm.covariance.residual import AR1, CAR1, CompoundSymmetry, Exponential, Unstructured
from hierlmm.design.design import Design
from hierlmm.errors import SpecificationError

__all__ = ["working_correlation"]


def working_correlation(design: Design) -> tuple[str, str | None]:
    """GEE's working correlation for the model's own, and its column of times."""
    match design.residual:
        case None:
            return "independence", None
        case CompoundSymmetry():
            return "exchangeable", None
        case AR1(time=str(time), nugget=False):
            return "ar1", time
        case CAR1(time=time, nugget=False) | Exponential(time=time, nugget=False):
            return "ar1", time  # alpha ** |t_j - t_k|, times may be irregular
        case Unstructured(time=time):
            return "unstructured", time
    raise SpecificationError(
        f"GEE for {design.residual}",
        "no working correlation of GEE is its counterpart"
        + (" (a working AR(1) needs a column of times)" if isinstance(design.residual, AR1) else ""),
        "name one: fit_gee('exchangeable'), fit_gee('ar1', time='...'), fit_gee('unstructured', time='...') or "
        "fit_gee('independence'); the robust standard errors do not depend on its being right",
        "docs, page 'GEE'",
    )
