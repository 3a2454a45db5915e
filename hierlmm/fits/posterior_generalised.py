"""The posterior of a generalised two-level model as numbers of a fit: on the scale of the link, and of the response."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray
from hierlmm.bayes.family_draws import family_subject_loglik, psi_draws
from hierlmm.bayes.predictive import subject_lines
from hierlmm.bayes.tree import dispersion_labels, dispersion_variables
from hierlmm.errors import NotAvailableError
from hierlmm.families.family import Family
from hierlmm.fits.base import Level
from hierlmm.fits.capabilities import GENERALISED_POSTERIOR, Lack
from hierlmm.fits.posterior import PosteriorNumbers, flattened
from hierlmm.likelihood.by_subject import covariance_root
from hierlmm.options import checked, choose

SEE = "docs, page 'Families'"
MANY = 500
"""Draws over which the means of rows are averaged."""


@checked
class GeneralisedPosteriorNumbers(PosteriorNumbers):
    """Posterior draws of a generalised two-level model."""

    lacks: ClassVar[Mapping[str, Lack]] = GENERALISED_POSTERIOR

    @property
    def family(self) -> Family:
        """Distribution of the response."""
        return self.design.family

    @property
    def dispersion(self) -> pd.Series:
        """Posterior means of the family's dispersion parameters by name; empty where it has none."""
        names = dispersion_labels(self.design)
        return pd.Series({n: float(self.draws(n).mean()) for n in names}, dtype=float, name="dispersion")

    @property
    def sigma(self) -> float:
        """Posterior mean of the residual SD or scale, of a family that has one."""
        if "sigma" not in dispersion_variables(self.design):
            reason, remedy = f"a {self.family.title} response has none", "see fit.dispersion"
            raise NotAvailableError("sigma", reason, remedy, SEE)
        return float(self.draws("sigma").mean())

    def psi_draws(self) -> FloatArray:
        """Draws of the unconstrained dispersion parameters ψ, (chain, draw, m)."""
        own = {name: self.draws(name) for name in dispersion_variables(self.design)}
        return psi_draws(self.design, own or {"beta": self.draws("beta")})

    @property
    def pareto_k(self) -> float | None:
        """Pareto k of ``sampler="laplace"``: how good the approximation was (at most 0.7); None of an exact sampler."""
        found = self.datatree.attrs.get("pareto_k")
        return None if found is None else float(found)

    @property
    def loglik(self) -> float:
        """Marginal log-likelihood (random effects integrated out) at the posterior means of beta, D and dispersion."""
        psi = flattened(self.psi_draws()).mean(axis=0, keepdims=True)
        root = covariance_root(self._D_values)[None]
        return float(family_subject_loglik(self.design, self.beta.to_numpy()[None], root, psi).sum())

    def line_draws(self, level: Level = "subject", most: int = MANY) -> tuple[FloatArray, FloatArray]:
        """Linear predictors of the rows used at evenly spaced draws, (S, N), and ψ there, (S, m).

        Parameters
        ----------
        level : {"subject", "population"}
        most : int
            Number of draws.
        """
        keep = self.evenly_kept(most)
        beta = flattened(self.draws("beta"))[keep]
        if level == "subject":
            self.need_effects("fitted(level='subject')", draws=True)
            b = flattened(self.draws("b"))[keep]
        else:
            b = np.zeros((len(keep), self.design.n_subjects, len(self.design.term)))
        return subject_lines(self.design, beta, b), flattened(self.psi_draws())[keep]

    def residual_draws(self) -> FloatArray:
        """Draws of ψ, (chain, draw, m): what stands in the place of residual parameters."""
        return self.psi_draws()

    def fitted(self, level: Level = "subject", scale: Literal["response", "link"] = "response") -> pd.Series:
        """Posterior means of the fitted values of the rows used.

        Parameters
        ----------
        level : {"subject", "population"}
            Given the random effects, or at b = 0.
        scale : {"response", "link"}
            Means of the response (of a binomial one its number of successes), averaged over draws; or linear
            predictors.
        """
        choose("scale", scale, ("response", "link"))
        eta, _ = self.line_draws(level)
        if scale == "response" and self.family.name == "ordinal":
            remedy = "use fit.probabilities() for those of the categories, or scale='link' for linear predictors"
            raise NotAvailableError("fitted values of categories", "a category has no mean", remedy, SEE)
        values = eta if scale == "link" else self.family.mean(eta) * self.design.trials
        return pd.Series(values.mean(axis=0), index=self.design.frame.index, name="fitted")

    def residuals(  # type: ignore[override]  # of a distribution, not of a normal error
        self, kind: Literal["response", "pearson", "deviance"] = "response", level: Level = "subject"
    ) -> pd.Series:
        """Residuals of the rows used, around `fitted`.

        Parameters
        ----------
        kind : {"response", "pearson", "deviance"}
            In units of the response; divided by the SD of the row given its mean; or the signed root of what the row
            adds to twice the log-likelihood ratio against a fit of the row alone.
        level : {"subject", "population"}
        """
        choose("kind", kind, ("response", "pearson", "deviance"))
        mean, n, y = self.fitted(level), self.design.trials, self.design.y
        found, psi = y - mean, flattened(self.psi_draws()).mean(axis=0)
        if kind == "pearson":
            found = found / np.sqrt(self.family.variance(mean.to_numpy() / n, psi, n))
        elif kind == "deviance":
            found = np.sign(found) * np.sqrt(self.family.deviance(y, mean.to_numpy() / n, psi, n))
        return found.rename(f"{kind} residual")
