"""Quasi-likelihood information criteria of GEE (Pan 2001, Biometrics 57, 120-125), in the conventions of geepack.

    QIC = −2 Q(μ̂) + 2 tr(Ω V_robust),   QICu = −2 Q(μ̂) + 2 p,   Q = Σ ∫ (y − t) / v(t) dt, as of independent rows

Ω is the inverse of the naive covariance of the same mean fitted to independent rows. Terms of y alone are left out of
Q.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy.special import xlogy

from hierlmm.arrays import FloatArray
from hierlmm.design.design import Design
from hierlmm.errors import NotAvailableError
from hierlmm.gee.estimate import SEE, GEEEstimate, estimate_gee


def _successes(y: FloatArray, mu: FloatArray, n: FloatArray, shape: float) -> FloatArray:
    return np.asarray(xlogy(y, mu) + xlogy(n - y, 1.0 - mu))


QUASI: dict[str, Callable[[FloatArray, FloatArray, FloatArray, float], FloatArray]] = {
    "gaussian": lambda y, mu, n, shape: -0.5 * (y - mu) ** 2,
    "poisson": lambda y, mu, n, shape: xlogy(y, mu) - mu,
    "negative_binomial": lambda y, mu, n, shape: xlogy(y, mu) - (y + shape) * np.log(mu + shape),
    "bernoulli": _successes,
    "binomial": _successes,
    "beta": _successes,
    "gamma": lambda y, mu, n, shape: -y / mu - np.log(mu),
}
"""Family -> quasi-likelihood of each row at φ = 1: y, mean of a trial, trials and shape -> (N,)."""


def quasi_information(design: Design, estimate: GEEEstimate, scale: float) -> pd.Series:
    """QIC, QICu and their parts.

    Parameters
    ----------
    design : Design
    estimate : GEEEstimate
    scale : float
        φ of the quasi-likelihood.

    Raises
    ------
    NotAvailableError
        For a family whose quasi-likelihood is not written down.
    """
    family = design.family
    if family.name not in QUASI:
        reason = "the integral of its quasi-likelihood is not written down"
        raise NotAvailableError(f"QIC of family={family.name!r}", reason, "compare predictions", SEE)
    shape = float(np.exp(estimate.psi[0])) if family.name == "negative_binomial" else None
    mu = family.mean(design.offset + design.X @ estimate.beta)
    quasi = float(design.known_weights @ QUASI[family.name](design.y, mu, design.trials, shape or 1.0)) / scale
    apart = estimate
    if estimate.correlation != "independence":
        divisor = estimate.scale_divisor
        apart = estimate_gee(
            design,
            None,
            correlation="independence",
            scale=divisor,
            ar_pairs="all",
            max_iterations=200,
            shape=shape,
        )
    cic = float(np.trace(np.linalg.solve(apart.cov_naive, estimate.cov_robust)))
    p = len(estimate.beta)
    values = {"QIC": -2.0 * (quasi - cic), "QICu": -2.0 * (quasi - p), "quasi-likelihood": quasi, "CIC": cic}
    return pd.Series({**values, "parameters": float(p)}, name="value")
