"""Refuses structures whose matrices are no correlation matrices: R symmetric, 1 on the diagonal, positive definite."""

from __future__ import annotations

from typing import Any

import numpy as np

from hierlmm.covariance.declared import specification_error
from hierlmm.covariance.parameters import Parameter, natural_values
from hierlmm.covariance.residual.base import FloatArray, ResidualCorrelation

__all__ = ["check_matrix"]


def check_matrix(spec: ResidualCorrelation, t: FloatArray, parameters: tuple[Parameter, ...]) -> None:
    """Refuse a structure whose matrices at positions t (..., n) are no correlation matrices.

    They are looked at where the search begins, and a little away from it.

    Raises
    ------
    SpecificationError
    """
    eta = np.array([p.unconstrained(float(p.start)) for p in parameters])
    for k, shift in enumerate((0.0, 0.4)):
        values = natural_values(parameters, eta + shift)
        with np.errstate(all="ignore" if k else None):
            R = spec.matrix(t, values.copy())
        wrong = _why_no_correlation(R, t, everything=k == 0)
        if wrong:
            at = ", ".join(f"{p.name} = {v:.4g}" for p, v in zip(parameters, values, strict=True))
            raise specification_error(
                f"{type(spec).__name__}, whose `matrix`{f' at {at}' if at else ''} {wrong[0]}",
                "R_i is the correlation matrix of a subject's rows: symmetric, 1 on the diagonal, positive definite",
                wrong[1],
            )


def _why_no_correlation(R: Any, t: FloatArray, *, everything: bool) -> tuple[str, str] | None:
    """What is wrong with matrices at positions t, and what to do; not everywhere need they exist."""
    shape = (*t.shape, t.shape[-1])
    if not isinstance(R, np.ndarray) or R.shape != shape or R.dtype.kind not in "fiu":
        got = f"shape {R.shape}" if isinstance(R, np.ndarray) else type(R).__name__
        return (
            f"returns {got} for positions of shape {t.shape}",
            f"return an array of numbers of shape {shape}: with lag = np.abs(t[..., :, None] - t[..., None, :]) it "
            "comes out so",
        )
    if not np.all(np.isfinite(R)):
        wrong = "has entries that are not finite", "check the formula, and let the search begin where it is defined"
        return wrong if everything else None
    diagonal = np.diagonal(R, axis1=-2, axis2=-1)
    if np.any(np.abs(diagonal - 1.0) > 1e-8):
        bad = float(diagonal.flat[int(np.argmax(np.abs(diagonal - 1.0)))])
        return (
            f"has {bad:.4g} on the diagonal, not 1",
            "divide by it: the size of the residuals is sigma, and unequal sizes are a residual variance",
        )
    if np.any(np.abs(R - np.swapaxes(R, -1, -2)) > 1e-8):
        return "is not symmetric", "let it depend on the distance, np.abs(t[..., :, None] - t[..., None, :])"
    if everything and float(np.linalg.eigvalsh(R)[..., 0].min(initial=1.0)) < -1e-8:
        return "is not positive definite", "let the search begin at other values, or narrow the bounds"
    return None
