"""A posterior fit of draws that somebody else made of the covariance parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from hierlmm.bound import BoundModel
from hierlmm.errors import NotAvailableError
from hierlmm.fit.make import fit_of
from hierlmm.options import checked

if TYPE_CHECKING:
    from hierlmm.fit.posterior import PosteriorFit


@checked
def recover(
    model: BoundModel,
    trace: Any,
    *,
    seed: int | None = 0,
    random_effects: Literal["auto", "draws", "summary", "none"] = "auto",
) -> PosteriorFit:
    """Draw β and b, given draws of the covariance parameters, exactly.

    Parameters
    ----------
    model : TwoLevelModel or MarginalModel
        Whose marginal likelihood was sampled.
    trace : DataTree
        From ``pm.sample``, nutpie or any other sampler of ``model.to_pymc(marginalized=True)``, or of a larger model
        with `hl.marginal_logp`. Its posterior has ``sigma``, the residual parameters if there are any, and either
        the free variables of ``to_pymc(marginalized=True)``, or ``sd_b`` (term) and ``corr_b`` (pair, or a matrix),
        or ``D``. A ``beta`` (coef) is kept; without it β is drawn, with the normal prior of the model.
    seed : int, optional
        Of the draws.
    random_effects : {"auto", "draws", "summary", "none"}
        Keep draws of b; or its posterior mean and SD, averaged over the draws analytically; or neither. ``"auto"``
        keeps draws up to 10 million values.

    Returns
    -------
    PosteriorFit
        With the chains and sampler statistics of the trace. Its priors are known (``psense``, ``plot_prior_posterior``)
        if the trace has the free variables of ``model.to_pymc(marginalized=True)``: any other PyMC model has its own.

    Raises
    ------
    DataError
        If the trace lacks a variable.
    """
    from hierlmm.bayes.marginal_draws import recovered_record

    if not model.design.is_gaussian:
        received = f"recover for {model.design.hierarchy.response!r}, {model.design.family}"
        reason = "random effects can be integrated out exactly, and drawn afterwards, only beside a Gaussian response"
        remedy = "sample model.to_pymc(), which has them, and pass the tree to hl.from_datatree(model, tree)"
        raise NotAvailableError(received, reason, remedy, "docs, page 'Families'")
    return fit_of(recovered_record(model.design, model.priors, trace, seed, random_effects))
