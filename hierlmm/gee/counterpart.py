"""The working correlation of GEE that is the counterpart of a residual correlation."""

from __future__ import annotations

from hierlmm.design.design import Design
from hierlmm.errors import SpecificationError


def working_correlation(design: Design) -> tuple[str, str | None]:
    """GEE's working correlation for the model's own, and its column of times."""
    spec = design.residual
    found = ("independence", None) if spec is None else spec.working()
    if found is not None:
        return found
    raise SpecificationError(
        f"GEE for {spec}",
        "no working correlation of GEE is its counterpart" + (spec._working_hint if spec else ""),
        "name one: fit_gee('exchangeable'), fit_gee('ar1', time='...'), fit_gee('unstructured', time='...') or "
        "fit_gee('independence'); the robust standard errors do not depend on its being right",
        "docs, page 'GEE'",
    )
