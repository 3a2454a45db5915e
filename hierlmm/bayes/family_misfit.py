"""What a posterior says of its family: more variance or more zeros than it has, judged at the posterior means.

The same checks as of a fit by maximum likelihood, at the means of the linear predictors and of ψ; predictive checks
(`hierlmm.diagnostics`) judge everything else, when asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.bayes.family_draws import psi_draws
from hierlmm.bayes.predictive import effect_lines
from hierlmm.bayes.tree import effects_names
from hierlmm.design.design import Design
from hierlmm.likelihood.generalised_checks import many_zeros
from hierlmm.likelihood.overdispersion import overdispersion

JUDGED = ("poisson", "binomial", "negative_binomial")


def misfit(design: Design, draws: Mapping[str, FloatArray], groups: Mapping[str, Any]) -> tuple[str, ...]:
    """Messages; none where nothing was kept of b.

    Parameters
    ----------
    design : Design
    draws : mapping of str to (chain, draw, ...)
    groups : mapping of str to xarray.Dataset
        ``random_effects``, where only means of b were kept.
    """
    names = effects_names(design)
    if design.family.name not in JUDGED or not (names[0] in draws or "random_effects" in groups):
        return ()
    if names[0] in draws:
        b = {name: draws[name].mean(axis=(0, 1)) for name in names}
    else:
        b = {name: groups["random_effects"][f"mean{name[1:]}"].to_numpy() for name in names}
    psi = psi_draws(design, draws).mean(axis=(0, 1))
    beta = draws["beta"].mean(axis=(0, 1)) if design.coef else np.zeros(0)
    eta = effect_lines(design, beta, b)
    parameters = len(design.coef) + design.n_random_parameters + len(psi)
    wide = overdispersion(design, eta, psi, parameters, "Posterior standard deviations")
    return (*wide, *many_zeros(design, eta, psi))
