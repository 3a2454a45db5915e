"""Savage-Dickey: the Bayes factor of a hypothesis L β = c from one posterior.

    p(y | L β = c) / p(y) = p(L β = c | y) / p(L β = c)                                   (Dickey 1971)

The prior density is that of a normal, exactly. Given θ, β is normal a posteriori as well, so that the posterior density
is the mean over draws of θ of normal densities (Rao-Blackwell), without any smoothing of draws of β. The model with the
hypothesis has the conditional priors of all else given L β = c, which is the prior that a model without the coefficient
has by default.

References
----------
Dickey, J. M. (1971). The weighted likelihood ratio, linear hypotheses on normal location parameters. Annals of
Mathematical Statistics 42, 204-223.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
import pandas as pd
from scipy.special import expit, logsumexp

from hierlmm.arrays import FloatArray
from hierlmm.bayes.convergence import pareto_smoothed
from hierlmm.bayes.evidence import GOOD_K, SEE
from hierlmm.bayes.marginal_draws import beta_moments
from hierlmm.drawing.densities import draw_savage_dickey
from hierlmm.drawing.figure import Figure, pictured
from hierlmm.effects.parse import Hypothesis, parse_hypotheses
from hierlmm.errors import NotAvailableError, SpecificationError, warn
from hierlmm.fits.posterior import PosteriorNumbers
from hierlmm.inference.bayes_factor import FARTHEST, LOOSE, LogFactor, told
from hierlmm.options import checked
from hierlmm.results import Page, Paragraph, Table
from hierlmm.text import table_lines

POINTS = 401
"""Of the densities that are drawn."""


@checked
@dataclass(frozen=True, eq=False, repr=False)
class SavageDickey(LogFactor):
    """The Bayes factor of a hypothesis on fixed effects against the model that was fitted. Frozen.

    Attributes
    ----------
    hypothesis : str
    log_bf : float
        Log Bayes factor of the hypothesis against the fitted model: negative if the data speak against it.
    error : float
        Its Monte-Carlo standard error.
    pareto_k : float
        Of the normal densities over the draws; above 0.7 value and error cannot be relied on.
    table : DataFrame
        One row, a copy: log densities at the value, ``log_bf``, ``error``, ``bf`` and ``probability``, that of the
        hypothesis if both were equally probable before.
    curves : DataFrame
        Densities of ``prior`` and ``posterior`` by ``value``, for one hypothesis.
    value : float
        Right side of one hypothesis.
    """

    hypothesis: str
    log_bf: float
    error: float
    pareto_k: float
    table: pd.DataFrame
    curves: pd.DataFrame
    value: float

    @property
    def verdict(self) -> str:
        """The factor in words."""
        hypothesis = f"under {self.hypothesis!r}"
        return told(self.log_bf, hypothesis, "under the fitted model", "the hypothesis", self.probability)

    @checked
    @pictured
    def plot(self, **figure: Unpack[Figure]) -> Any:
        """Draw prior and posterior density, with the two heights at the hypothesis of which the factor is the ratio.

        Returns
        -------
        Picture
        """
        if self.curves.empty:
            received, reason = self.hypothesis, "a picture shows the density of one number"
            raise NotAvailableError(received, reason, "ask for one equality at a time", SEE)
        return draw_savage_dickey(self, figure)

    def _page(self) -> Page:
        frame = self.table.reset_index()
        table = Table(frame, table_lines(frame, ["hypothesis"]), "Densities at the hypothesis")
        title = f"Savage-Dickey: log Bayes factor {self.log_bf:.3f} (error {self.error:.2g}) of {self.hypothesis}"
        said = (
            "The hypothesis leaves everything else with its prior given the hypothesis. The factor depends on how wide "
            "the prior of the coefficient is."
        )
        return Page(title, ["", table, "", Paragraph(self.verdict), Paragraph(said)])


def savage_dickey(fit: PosteriorNumbers, hypothesis: str | Sequence[str]) -> SavageDickey:
    """Bayes factor of equalities of fixed effects; see `hierlmm.PosteriorFit.savage_dickey`."""
    parsed = _of_coefficients(hypothesis, fit)
    priors = _usable(fit, parsed)
    L, c = np.array([h.weights for h in parsed]), np.array([h.value for h in parsed])
    if np.linalg.matrix_rank(L) < len(L):
        reason = "one of the equalities follows from the others, or contradicts them"
        raise SpecificationError(", ".join(h.text for h in parsed), reason, "leave out what the others say", SEE)
    m0, P0 = priors.beta_normal()
    own_prior = L @ m0, L @ np.linalg.solve(P0, L.T)
    mean, covariance = beta_moments(fit.design, priors, _covariance_draws(fit), _eta(fit))
    centre, spread = mean @ L.T, L @ covariance @ L.T
    logs = _log_normal(c, centre, spread)
    posterior = float(logsumexp(logs) - math.log(len(logs)))
    prior = float(_log_normal(c, own_prior[0][None], own_prior[1][None])[0])
    error, k = _error(logs, posterior, fit.draw_shape)
    text, log_bf = ", ".join(h.text for h in parsed), posterior - prior
    if k > GOOD_K or error > LOOSE:
        warn(
            f"The posterior density at {text} is estimated with an error of {error:.2g} on the log scale "
            f"(Pareto k {k:.2f}): the hypothesis is far out, where few draws count. To do: compare with "
            "the model without the coefficient by hl.bayes_factor(), which needs no draws."
        )
    row = {
        "log_posterior_density": posterior,
        "log_prior_density": prior,
        "log_bf": log_bf,
        "error": error,
        "bf": float(np.exp(min(log_bf, FARTHEST))),
        "probability": float(expit(log_bf)),
    }
    table = pd.DataFrame(row, index=pd.Index([text], name="hypothesis"))
    curves = _curves(own_prior, centre, spread, c) if len(L) == 1 else pd.DataFrame()
    return SavageDickey(text, log_bf, error, k, table, curves, float(c[0]))


def _of_coefficients(hypothesis: str | Sequence[str], fit: PosteriorNumbers) -> list[Hypothesis]:
    """The hypotheses as weights of coefficients; those on other parameters are refused.

    Raises
    ------
    NotAvailableError
    """
    try:
        return parse_hypotheses(hypothesis, fit.design)
    except SpecificationError:
        texts = [hypothesis] if isinstance(hypothesis, str) else list(hypothesis)
        other = [label for label in map(str, fit.variance_components().index) if any(label in str(t) for t in texts)]
        if not other:
            raise
        received = f"savage_dickey of {max(other, key=len)}"
        reason = (
            "the posterior density of a covariance parameter has no closed form, and smoothed draws do not tell its "
            "height at zero, where the range of a standard deviation ends"
        )
        remedy = "compare with the model without it: hl.bayes_factor(model, smaller_model); see its interval in the fit"
        raise NotAvailableError(received, reason, remedy, SEE) from None


def _usable(fit: PosteriorNumbers, parsed: Sequence[Hypothesis]) -> Any:
    """The priors of a fit, or a refusal."""
    if any(h.sign != "=" for h in parsed):
        text = next(h.text for h in parsed if h.sign != "=")
        reason = "the ratio of densities is that of a point, and an inequality is a region"
        raise SpecificationError(text, reason, "write an equality; of inequalities see fit.hypothesis(...)", SEE)
    if fit.priors is None:
        reason = "its priors are not known here, and the factor compares with the prior density"
        raise NotAvailableError("savage_dickey", reason, "refit with model.fit()", SEE)
    if not fit.priors.beta_is_normal:
        reason = "a fixed effect has a prior that is not normal, so that its densities are not in closed form"
        raise NotAvailableError("savage_dickey", reason, "use Normal(...) priors for the fixed effects", SEE)
    return fit.priors


def _covariance_draws(fit: PosteriorNumbers) -> dict[str, FloatArray]:
    names = ("sd_b", "corr_b", "sigma") if fit.design.term else ("sigma",)
    return {name: fit.draws(name) for name in names}


def _eta(fit: PosteriorNumbers) -> FloatArray:
    if not fit.design.has_residual_structure:
        return np.empty((*fit.draw_shape, 0))
    found: FloatArray = fit.datatree["residual"]["unconstrained"].to_numpy()
    return found


def _log_normal(c: FloatArray, mean: FloatArray, covariance: FloatArray) -> FloatArray:
    """Log normal densities at c of means (S, r) and covariances (S, r, r)."""
    half = np.linalg.cholesky(covariance)
    z = np.linalg.solve(half, (c - mean)[..., None])[..., 0]
    log_det = np.log(np.diagonal(half, axis1=-2, axis2=-1)).sum(axis=-1)
    found: FloatArray = -0.5 * np.sum(z**2, axis=-1) - log_det - 0.5 * len(c) * math.log(2.0 * math.pi)
    return found


def _error(logs: FloatArray, value: float, shape: tuple[int, int]) -> tuple[float, float]:
    """Monte-Carlo standard error of the log of the mean of densities, and Pareto k of their tail."""
    from arviz_stats.base import array_stats

    relative = np.exp(logs - value).reshape(shape)
    if np.ptp(relative) < 1e-12:
        return 0.0, -math.inf
    error = float(array_stats.mcse(relative, chain_axis=0, draw_axis=1, method="mean"))
    return error, pareto_smoothed(logs)[1]


def _curves(prior: tuple[FloatArray, FloatArray], mean: FloatArray, spread: FloatArray, c: FloatArray) -> pd.DataFrame:
    """Both densities where either of them is seen."""
    m, s = float(prior[0][0]), float(np.sqrt(prior[1][0, 0]))
    centre = float(mean.mean())
    own = float(np.sqrt(spread.mean() + mean.var()))
    reach = max(5.0 * own, 1.15 * abs(float(c[0]) - centre))
    x = np.linspace(centre - reach, centre + reach, POINTS)
    posterior = [float(np.exp(logsumexp(_log_normal(np.array([v]), mean, spread)) - math.log(len(mean)))) for v in x]
    density = np.exp(-0.5 * ((x - m) / s) ** 2) / (s * math.sqrt(2.0 * math.pi))
    return pd.DataFrame({"value": x, "prior": density, "posterior": posterior})
