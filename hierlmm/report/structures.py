"""Residual structures as the command line names them: ``car1:time``, ``varpower:dose``, ``compoundsymmetry``."""

from __future__ import annotations

from typing import Any

from hierlmm.covariance import residual, variance
from hierlmm.errors import HierlmmError, SpecificationError, closest

SEE = "docs, page 'Residual structures'"
CORRELATIONS = (
    *("AR1", "CAR1", "AnteDependence", "CompoundSymmetry", "Exponential", "Gaussian", "Toeplitz"),
    *("Unstructured", "UnstructuredHeterogeneous"),
)
VARIANCES = ("VarIdent", "VarPower", "VarExp")


def correlation_named(text: str | None) -> Any:
    """The residual correlation of ``--residual``; None where it was not given."""
    return _named("--residual", text, CORRELATIONS, residual)


def variance_named(text: str | None) -> Any:
    """The variance function of ``--residual-variance``; None where it was not given."""
    return _named("--residual-variance", text, VARIANCES, variance)


def _named(option: str, text: str | None, known: tuple[str, ...], room: Any) -> Any:
    if text is None:
        return None
    name, _, column = text.partition(":")
    kinds = {kind.lower(): kind for kind in known}
    if name.lower() not in kinds:
        reason = f"there is no such structure.{closest(name.lower(), kinds)}"
        raise SpecificationError(f"{option} {text}", reason, f"use one of {', '.join(kinds)}", SEE)
    try:
        return getattr(room, kinds[name.lower()])(*([column] if column else []))
    except (HierlmmError, TypeError) as error:
        reason = "it needs a column" if not column else "it has no column"
        remedy = f"use {option} {name}:COLUMN" if not column else f"use {option} {name}"
        raise SpecificationError(f"{option} {text}", reason, remedy, SEE) from error
