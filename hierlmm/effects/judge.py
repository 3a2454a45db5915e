"""What linear functions ``L β`` are judged by: an estimate with its covariance (`Wald`), or posterior draws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hierlmm.errors import NotAvailableError
from hierlmm.fits.base import Fit
from hierlmm.likelihood.wald import Wald

__all__ = ["PosteriorDraws", "judge_of", "level_text"]

FloatArray = NDArray[np.float64]
SEE = "docs, page 'Contrasts'"


@dataclass(frozen=True)
class PosteriorDraws:
    """Draws of β, (draws, p), all chains one after the other."""

    beta: FloatArray

    def of(self, L: FloatArray, offset: FloatArray | float = 0.0) -> FloatArray:
        """Draws of ``L β + offset``: (draws, k)."""
        return self.beta @ L.T + offset


def judge_of(fit: Fit, df: str | None) -> Wald | PosteriorDraws:
    """Draws where the fit is a posterior, else estimate and covariance with degrees of freedom by ``df``.

    Raises
    ------
    NotAvailableError
        If degrees of freedom are asked of a posterior, or of an estimator that has none.
    """
    if getattr(fit, "datatree", None) is None:
        return fit._wald(df)
    if df is not None:
        raise NotAvailableError(
            f"df={df!r} for a posterior",
            "its intervals are quantiles of draws, and there is no t distribution that needs degrees of freedom",
            "leave df out",
            SEE,
        )
    draws: Any = fit.draws("beta")  # type: ignore[attr-defined]
    return PosteriorDraws(draws.reshape(-1, draws.shape[-1]))


def level_text(fit: Fit) -> str:
    """Which mean the numbers are about, in words."""
    family = str(getattr(fit, "family", None) or "gaussian").lower()
    if "gaussian" not in family:
        return "scale of the linear predictor (link), at b = 0; not the marginal mean"
    if not fit.has_random_effects:
        return "scale of the response; marginal mean (no random effects)"
    return "scale of the response; population line (b = 0), which is the marginal mean as well (identity link)"
