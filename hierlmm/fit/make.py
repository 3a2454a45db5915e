"""The one place where the record of an estimator becomes a fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

from hierlmm.likelihood.estimate import LikelihoodEstimate
from hierlmm.loading import loading

if TYPE_CHECKING:
    from hierlmm.bayes.record import PosteriorRecord
    from hierlmm.fit.gee import GEEFit
    from hierlmm.fit.generalised import GeneralisedFit
    from hierlmm.fit.likelihood import LikelihoodFit
    from hierlmm.fit.posterior import PosteriorFit
    from hierlmm.gee.record import GEERecord
    from hierlmm.likelihood.generalised import GeneralisedEstimate


@overload
def fit_of(record: LikelihoodEstimate) -> LikelihoodFit: ...
@overload
def fit_of(record: PosteriorRecord) -> PosteriorFit: ...
@overload
def fit_of(record: GEERecord) -> GEEFit: ...
@overload
def fit_of(record: GeneralisedEstimate) -> GeneralisedFit: ...
@loading()
def fit_of(record: Any) -> Any:
    """Make the fit of a record; the fit of a marginal model where the design has no random effects.

    Parameters
    ----------
    record : LikelihoodEstimate, GeneralisedEstimate, PosteriorRecord or GEERecord
        What an estimator returned. What each needs is imported here, so that REML loads neither PyMC nor ArviZ.
    """
    hierarchical = bool(record.design.term)
    if isinstance(record, LikelihoodEstimate):
        from hierlmm.fit.likelihood import LikelihoodFit, MarginalFit
        from hierlmm.fit.multilevel import MultilevelFit

        one = LikelihoodFit if hierarchical else MarginalFit
        if record.design.whole is not None:
            from hierlmm.fit.streamed import LargeFit, LargeMarginalFit

            one = LargeFit if hierarchical else LargeMarginalFit
        kind = MultilevelFit if record.design.has_several_factors else one
        return kind(record.design, record.criterion, record.optimum, record.warnings)
    from hierlmm.likelihood.generalised import GeneralisedEstimate

    if isinstance(record, GeneralisedEstimate):
        from hierlmm.fit.generalised import GeneralisedFit
        from hierlmm.fit.generalised_multilevel import GeneralisedMultilevelFit

        several = record.design.has_several_factors
        return (GeneralisedMultilevelFit if several else GeneralisedFit)(record, record.warnings)
    from hierlmm.gee.record import GEERecord

    if isinstance(record, GEERecord):
        from hierlmm.fit.gee import gee_fit

        return gee_fit(record)
    if not record.design.is_gaussian:
        from hierlmm.fit.generalised_factor_draws import GeneralisedMultilevelPosterior
        from hierlmm.fit.posterior_generalised import GeneralisedPosterior

        of_family = GeneralisedMultilevelPosterior if record.design.has_several_factors else GeneralisedPosterior
        return of_family(record.design, record.datatree, record.priors, record.estimator, record.warnings)
    from hierlmm.fit.posterior import MarginalPosterior, PosteriorFit

    if record.design.has_several_factors:
        from hierlmm.fit.multilevel_posterior import MultilevelPosterior

        return MultilevelPosterior(record.design, record.datatree, record.priors, record.estimator, record.warnings)
    posterior = PosteriorFit if hierarchical else MarginalPosterior
    if record.design.whole is not None:
        from hierlmm.fit.streamed import LargeMarginalPosterior, LargePosterior

        posterior = LargePosterior if hierarchical else LargeMarginalPosterior
    return posterior(record.design, record.datatree, record.priors, record.estimator, record.warnings)
