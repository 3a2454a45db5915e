"""The record of an estimator that a fit was made of: the way back from `hierlmm.fit.make.fit_of`."""

from __future__ import annotations

from typing import Any

from hierlmm.fits.base import Fit
from hierlmm.likelihood.estimate import LikelihoodEstimate


def record_of(fit: Fit) -> Any:
    """What `fit_of` made this fit of."""
    it: Any = fit
    if it.has_likelihood:
        record = LikelihoodEstimate(it.design, it.criterion_function, it.optimum)
        vars(record)["warnings"] = it.warnings  # not worked out again, which may take further fits
        return record
    if it.has_working_correlation:
        from hierlmm.gee.record import GEERecord

        return GEERecord(it.design, it.estimate, it.time, it.se, it.warnings)
    from hierlmm.bayes.record import PosteriorRecord

    return PosteriorRecord(it.design, it.datatree, it.priors, it.estimator, it.warnings)
