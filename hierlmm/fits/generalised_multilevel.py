"""The maximum-likelihood fit of a generalised model with several grouping factors, by Laplace's method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import pandas as pd

from hierlmm.arrays import FloatArray
from hierlmm.fits.capabilities import Lack
from hierlmm.fits.generalised import GeneralisedNumbers, Scale
from hierlmm.fits.several import GENERALISED_ANSWERED, GENERALISED_SEVERAL, OF_MODELS, unanswered
from hierlmm.fits.several_numbers import ModesByFactor
from hierlmm.likelihood.generalised_factors import FactorLaplaceSolution
from hierlmm.options import checked


@checked
class ScaledByFactor:
    """Fitted values and residuals by factor, of means of the response or of linear predictors."""

    _scaled: ClassVar[Any]
    """The numbers of two levels that are asked."""

    def fitted(self, level: str = "all", scale: Scale = "response") -> pd.Series:
        """Fitted values of the rows used, with the random effects of some factors; of a posterior their means.

        Parameters
        ----------
        level : str
            ``"all"``: of all factors; ``"population"``: of none; or a factor: its own, and those of the factors that
            it is nested in.
        scale : {"response", "link"}
            Means of the response (of a binomial one its number of successes), or linear predictors.
        """
        return self._scaled.fitted(self, level, scale)

    def residuals(self, kind: Literal["response", "pearson", "deviance"] = "response", level: str = "all") -> pd.Series:
        """Residuals of the rows used, around `fitted`.

        Parameters
        ----------
        kind : {"response", "pearson", "deviance"}
            In units of the response; divided by the SD of the row given its mean; or the signed root of what the row
            adds to twice the log-likelihood ratio against a fit of the row alone.
        level : str
            As for `fitted`.
        """
        return self._scaled.residuals(self, kind, level)


@checked
class GeneralisedMultilevelNumbers(ScaledByFactor, ModesByFactor, GeneralisedNumbers):  # type: ignore[misc]
    """The numbers of a generalised model with several grouping factors."""

    lacks: ClassVar[Mapping[str, Lack]] = GENERALISED_SEVERAL
    _scaled = GeneralisedNumbers
    _answered_by: ClassVar[frozenset[str]] = GENERALISED_ANSWERED
    """Functions of the package that take such a fit; all others refuse it."""
    _unanswered = unanswered(
        "a fit with several grouping factors", "use what the fit says by factor: print(fit)", OF_MODELS
    )

    @property
    def _by(self) -> tuple[tuple[FloatArray, FloatArray], ...]:
        solution = self.solution
        assert isinstance(solution, FactorLaplaceSolution)
        return solution.by_factor

    @property
    def _D_values(self) -> FloatArray:
        return self.solution.D

    def _effects(self, k: int) -> FloatArray:
        return self._by[k][0]

    def _covariances(self, k: int) -> FloatArray:
        return self._by[k][1]

    def _line(self, level: str) -> pd.Series:
        return ModesByFactor.fitted(self, level)
