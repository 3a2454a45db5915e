"""Priors as PyMC random variables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hierlmm.bayes.distributions import Prior

__all__ = ["as_pymc_variable"]

FloatArray = NDArray[np.float64]
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
