"""Level 1 of the explicit hierarchy for a response that is not Gaussian: its distribution around the linear predictor.

``eta`` (obs) is the linear predictor and ``mu`` (obs) the mean; dispersion parameters have their names, of ordered
categories ``threshold`` follows from ``step``. Probabilities with a logit link go to PyMC as logits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.bayes.distribution import as_pymc_variable
from hierlmm.bayes.family_priors import STEP
from hierlmm.bayes.resolved import ResolvedPriors
from hierlmm.design.design import Design
from hierlmm.errors import NotAvailableError

SEE = "docs, page 'Families'"


def _inverse(link: str, eta: Any) -> Any:
    """Mean of a linear predictor, as a graph."""
    import pymc as pm
    import pytensor.tensor as pt

    inverse: dict[str, Callable[[Any], Any]] = {
        "identity": lambda eta: eta,
        "log": pt.exp,
        "logit": pm.math.sigmoid,
        "probit": lambda eta: 0.5 * pt.erfc(-eta / np.sqrt(2.0)),
        "cloglog": lambda eta: -pt.expm1(-pt.exp(eta)),
        "inverse": lambda eta: 1.0 / eta,
        "sqrt": lambda eta: pt.switch(eta > 0.0, eta, np.nan) ** 2,
    }
    return inverse[link](eta)


ARGUMENTS: dict[str, Callable[[Any, Mapping[str, Any], FloatArray], dict[str, Any]]] = {
    "Normal": lambda mu, psi, n: {"mu": mu, "sigma": psi["sigma"]},
    "Poisson": lambda mu, psi, n: {"mu": mu},
    "NegativeBinomial": lambda mu, psi, n: {"mu": mu, "alpha": psi["shape"]},
    "Bernoulli": lambda mu, psi, n: {"p": mu},
    "Binomial": lambda mu, psi, n: {"n": n.astype(np.int64), "p": mu},
    "Gamma": lambda mu, psi, n: {"alpha": psi["shape"], "beta": psi["shape"] / mu},
    "Beta": lambda mu, psi, n: {"alpha": mu * psi["precision"], "beta": (1.0 - mu) * psi["precision"]},
    "StudentT": lambda mu, psi, n: {"nu": psi["nu"], "mu": mu, "sigma": psi["sigma"]},
}
"""PyMC's distribution -> its arguments from mean, dispersion and trials."""


def family_response(design: Design, priors: ResolvedPriors, eta: Any) -> None:
    """Declare dispersion, mean and the observed ``y`` inside the current model.

    Raises
    ------
    NotAvailableError
        If PyMC has no such distribution (a family of the user's own).
    """
    import pymc as pm
    import pytensor.tensor as pt

    family, name = design.family, design.family.elsewhere.get("pymc", "")
    if name != "Categorical" and name not in ARGUMENTS:
        reason = "a family says by elsewhere['pymc'] which distribution of PyMC it is, and this says none that is known"
        known = ", ".join(ARGUMENTS)
        raise NotAvailableError(f"a PyMC model of {family}", reason, f"use fit(), or one of {known}", SEE)
    named = zip(priors.dispersion_names, priors.dispersion, strict=True)
    psi = {own: as_pymc_variable(own.replace(" ", "_"), [prior], None, [own]) for own, prior in named}
    whole = design.y.astype(np.int64)
    if name == "Categorical":
        steps = pt.stack([psi[STEP.format(k)] for k in range(2, len(psi) + 2)])
        thresholds = pt.concatenate([pt.zeros(1), pt.cumsum(steps)])
        for k in range(1, len(psi) + 1):
            pm.Deterministic(f"threshold_{k + 1}", thresholds[k])
        below = _inverse(family.link, thresholds[None, :] - eta[:, None])
        ends = pt.zeros((design.n_obs, 1))
        p = pt.diff(pt.concatenate([ends, below, ends + 1.0], axis=1), axis=1)
        pm.Categorical("y", p=p, observed=whole, dims="obs")
        return
    mu = pm.Deterministic("mu", _inverse(family.link, eta), dims="obs")
    arguments = ARGUMENTS[name](mu, psi, design.trials)
    if "p" in arguments and family.link == "logit":
        arguments["logit_p"] = eta
        del arguments["p"]
    discrete = name in ("Poisson", "NegativeBinomial", "Bernoulli", "Binomial")
    getattr(pm, name)("y", **arguments, observed=whole if discrete else design.y, dims="obs")


def dispersion_draws(design: Design, raw: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    """Dispersion by the names of a tree from draws of the free variables: steps become thresholds."""
    if design.family.name != "ordinal":
        return {name: raw[name] for name in design.family.dispersion}
    total: Any = 0.0
    found, k = dict[str, FloatArray](), 2
    while (name := STEP.format(k).replace(" ", "_")) in raw:
        total = total + raw[name]
        found[f"threshold_{k}"] = np.asarray(total)
        k += 1
    return found
