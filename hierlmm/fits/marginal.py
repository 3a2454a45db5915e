"""The REML or ML fit of a marginal model (generalised least squares), frozen."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.errors import NotAvailableError, SpecificationError
from hierlmm.fits.base import Fit, Level
from hierlmm.fits.likelihood import LikelihoodFit
from hierlmm.fits.posterior import PosteriorFit
from hierlmm.options import checked
from hierlmm.predict.rows import Interval, PredictionLevel

__all__ = ["MarginalFit", "MarginalPosterior"]

SEE = "docs, page 'Hierarchical and marginal models'"


@checked
class _WithoutEffects(Fit):
    """What a fit of a marginal model does not have, and the one level that it has."""

    def _no_effects(self, what: str) -> NotAvailableError:
        return NotAvailableError(
            f"{what} of a marginal model",
            "it describes the mean and the covariance of a subject's rows, not what a subject has of its own",
            "fit a hierarchy, hl.TwoLevelModel, for random effects; fit.marginal_covariance() has the covariance",
            SEE,
        )

    @property
    def D(self) -> pd.DataFrame:
        """Not part of a marginal model."""
        raise self._no_effects("D")

    @property
    def sd_b(self) -> pd.Series:
        """Not part of a marginal model."""
        raise self._no_effects("sd_b")

    @property
    def corr_b(self) -> pd.DataFrame:
        """Not part of a marginal model."""
        raise self._no_effects("corr_b")

    @property
    def b(self) -> pd.DataFrame:
        """Not part of a marginal model."""
        raise self._no_effects("b")

    @property
    def b_sd(self) -> pd.DataFrame:
        """Not part of a marginal model."""
        raise self._no_effects("b_sd")

    @property
    def b_cov(self) -> NDArray[np.float64]:
        """Not part of a marginal model."""
        raise self._no_effects("b_cov")

    @property
    def subject_coef(self) -> pd.DataFrame:
        """Not part of a marginal model."""
        raise self._no_effects("subject_coef")

    @property
    def icc(self) -> float:
        """Not part of a marginal model; compound symmetry has ``rho``."""
        raise self._no_effects("icc")

    def plot_random_effects(self, **options: Any) -> Any:
        """Not part of a marginal model."""
        raise self._no_effects("plot_random_effects")

    def fitted(self, level: Level = "population") -> pd.Series:
        """Fitted means of the rows used; a marginal model has them at the population level only."""
        return super().fitted(_population(level))

    def residuals(
        self, kind: Literal["response", "pearson", "normalized"] = "response", level: Level = "population"
    ) -> pd.Series:
        """Residuals of the rows used: in units of the response, over their SD, or with the correlation taken out."""
        return super().residuals(kind, _population(level))

    def _refuse_subject(self, level: str) -> None:
        if level == "subject":
            raise self._no_effects("predict(level='subject')")


@checked
class MarginalFit(_WithoutEffects, LikelihoodFit):
    """A marginal model fitted by restricted (REML) or full (ML) maximum likelihood, as nlme's ``gls`` does.

    It has β, the correlation and the variance of the rows of a subject, and no random effects: what a subject has of
    its own is not part of the model. ``D``, ``b`` and what follows from them raise `NotAvailableError`.
    """

    def predict(
        self,
        newdata: Any = None,
        level: PredictionLevel = "population",
        interval: Interval | None = None,
        ci: float = 0.95,
    ) -> pd.DataFrame:
        """Predict the mean response; see `LikelihoodFit.predict`. There is no level ``"subject"``."""
        self._refuse_subject(level)
        return super().predict(newdata, level, interval, ci)


@checked
class MarginalPosterior(_WithoutEffects, PosteriorFit):
    """Posterior draws of a marginal model: β, residual parameters and σ, without random effects."""

    def _need_effects(self, asked: str, *, draws: bool = False, instead: str = "") -> None:
        raise self._no_effects(asked)

    def predict(
        self,
        newdata: Any = None,
        level: PredictionLevel = "population",
        interval: Interval | None = None,
        ci: float = 0.95,
        seed: int | None = 0,
        *,
        kind: Literal["summary", "draws"] = "summary",
    ) -> Any:
        """Predict the mean response; see `PosteriorFit.predict`. There is no level ``"subject"``."""
        self._refuse_subject(level)
        return super().predict(newdata, level, interval, ci, seed, kind=kind)


def _population(level: str) -> Literal["population"]:
    if level != "population":
        raise SpecificationError(
            f"level={level!r} of a marginal model",
            "without random effects there is no line of a subject",
            "use level='population'",
            SEE,
        )
    return "population"
