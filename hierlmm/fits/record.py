"""From an estimator's record to a fit."""

from __future__ import annotations

from hierlmm.bayes.record import PosteriorRecord
from hierlmm.fits.marginal import MarginalPosterior
from hierlmm.fits.posterior import PosteriorFit

__all__ = ["fit_of"]


def fit_of(record: PosteriorRecord) -> PosteriorFit:
    """The fit of a sampled posterior: of a marginal model where there are no random effects."""
    kind = PosteriorFit if record.design.term else MarginalPosterior
    return kind(record.design, record.datatree, record.priors, record.estimator, record.warnings)
