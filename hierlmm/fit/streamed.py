"""Fits of data that are not in memory: estimates of all rows, and what is shown by row of some subjects."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import pandas as pd

from hierlmm.fit.likelihood import LikelihoodFit, MarginalFit
from hierlmm.fit.posterior import MarginalPosterior, PosteriorFit
from hierlmm.fits.capabilities import NO_EFFECTS, Lack, both
from hierlmm.fits.streamed import ANSWERED, STREAMED, STREAMED_POSTERIOR, unanswered
from hierlmm.options import checked


@checked
class LargeFit(LikelihoodFit):
    """A two-level model fitted by REML or ML to data that are not in memory.

    ``beta``, ``D``, ``sigma``, their standard errors and the criterion are those of all rows. What is by row or by
    subject (``b``, ``fitted()``, pictures) is of the subjects that were drawn at random; `write_random_effects` and
    `write_fitted` go through all of them.
    """

    lacks: ClassVar[Mapping[str, Lack]] = STREAMED
    _answered_by: ClassVar[frozenset[str]] = ANSWERED
    _unanswered = staticmethod(unanswered)

    def summary(
        self,
        ci: float = 0.95,
        df: str | None = None,
        se: str | None = None,
        *,
        method: Literal["wald", "profile"] = "wald",
    ) -> pd.DataFrame:
        """Fixed effects: estimate, se, lower, upper (Wald, normal quantiles) and t = estimate / se.

        Parameters
        ----------
        ci : float
            Probability of the interval.
        df, se, method
            Of fits of data in memory.
        """
        asked = {"df": df, "se": se, "method": None if method == "wald" else method}
        for name, value in asked.items():
            if value is not None:
                self._absent(f"summary({name})")
        return super().summary(ci)

    def variance_components(self, ci: float = 0.95, method: Literal["wald", "profile"] = "wald") -> pd.DataFrame:
        """Standard deviations, correlations and σ: estimate, se, lower, upper (Wald, on the log scale).

        Parameters
        ----------
        ci : float
            Probability of the intervals.
        method : {"wald"}
        """
        if method != "wald":
            self._absent("variance_components(method)")
        return super().variance_components(ci)

    def write_random_effects(self, path: Any, *, overwrite: bool = False) -> Path:
        """Write the random effects of all subjects to a Parquet file, with their conditional SDs, in one pass.

        Parameters
        ----------
        path : str or path-like
        overwrite : bool
            Whether a file of this name is replaced.

        Returns
        -------
        pathlib.Path
            The file: the subject, a column for each random effect, and ``sd(...)`` of each (lme4's condVar).
        """
        from hierlmm.predict.written import write_random_effects

        return write_random_effects(self, path, overwrite=overwrite)

    def write_fitted(self, path: Any, *, overwrite: bool = False) -> Path:
        """Write all rows with their fitted values to a Parquet file, sorted by subject, in one pass.

        Parameters
        ----------
        path : str or path-like
        overwrite : bool
            Whether a file of this name is replaced.

        Returns
        -------
        pathlib.Path
            The file: the columns that the model uses, ``fitted (population)``, ``fitted (subject)`` and ``residual``.
        """
        from hierlmm.predict.written import write_fitted

        return write_fitted(self, path, overwrite=overwrite)


@checked
class LargePosterior(PosteriorFit):
    """The posterior of a model of data that are not in memory, sampled with the random effects integrated out.

    Draws of β, D and σ are given all rows; random effects are those of the subjects that were drawn at random.
    """

    lacks: ClassVar[Mapping[str, Lack]] = STREAMED_POSTERIOR
    _answered_by: ClassVar[frozenset[str]] = ANSWERED
    _unanswered = staticmethod(unanswered)


@checked
class LargeMarginalFit(LargeFit, MarginalFit):
    """A marginal model with independent rows, fitted to data that are not in memory."""

    lacks: ClassVar[Mapping[str, Lack]] = both(STREAMED, NO_EFFECTS)


@checked
class LargeMarginalPosterior(LargePosterior, MarginalPosterior):
    """The posterior of a marginal model with independent rows of data that are not in memory."""

    lacks: ClassVar[Mapping[str, Lack]] = both(STREAMED_POSTERIOR, NO_EFFECTS)
