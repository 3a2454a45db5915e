"""Marginal models: means and covariance of a subject's rows, and nothing that a subject has of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import pandas as pd

from hierlmm.arrays import FloatArray
from hierlmm.errors import SpecificationError
from hierlmm.fits.base import Fit, Level
from hierlmm.fits.capabilities import LIKELIHOOD, NO_EFFECTS, POSTERIOR, Lack, both
from hierlmm.fits.likelihood_tables import LikelihoodNumbers
from hierlmm.fits.posterior import PosteriorNumbers
from hierlmm.options import checked


@checked
class _WithoutEffects(Fit):
    """The one level that a marginal model has."""

    @property
    def b_cov(self) -> FloatArray:
        """Not part of a marginal model."""
        self._absent("b_cov")

    def fitted(self, level: Level = "population") -> pd.Series:
        """Fitted means of the rows used; a marginal model has them at the population level only."""
        return super().fitted(_population(level))

    def residuals(
        self, kind: Literal["response", "pearson", "normalized"] = "response", level: Level = "population"
    ) -> pd.Series:
        """Residuals of the rows used: in units of the response, over their SD, or with the correlation taken out."""
        return super().residuals(kind, _population(level))


class MarginalNumbers(_WithoutEffects, LikelihoodNumbers):
    """A marginal model fitted by restricted (REML) or full (ML) maximum likelihood."""

    lacks: ClassVar[Mapping[str, Lack]] = both(LIKELIHOOD, NO_EFFECTS)


@checked
class MarginalPosteriorNumbers(_WithoutEffects, PosteriorNumbers):
    """Posterior draws of a marginal model."""

    lacks: ClassVar[Mapping[str, Lack]] = both(POSTERIOR, NO_EFFECTS)

    def need_effects(self, asked: str, *, draws: bool = False, instead: str = "") -> None:
        """Refuse: there are none."""
        raise NO_EFFECTS["b"].refusal(asked, self.estimator)


def refuse_subject(level: str) -> None:
    """Refuse the level of a subject, which a marginal model does not have."""
    if level == "subject":
        raise NO_EFFECTS["b"].refusal("predict(level='subject')", "")


def _population(level: str) -> Literal["population"]:
    if level != "population":
        received = f"level={level!r} of a marginal model"
        reason, remedy = "without random effects there is no line of a subject", "use level='population'"
        raise SpecificationError(received, reason, remedy, "docs, page 'Hierarchical and marginal models'")
    return "population"
