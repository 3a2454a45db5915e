"""Every estimator by name: what `compare`, the command line and the report know of them.

A new estimator is one entry: a function from a bound model to the frozen record that `hierlmm.fit.make` makes a fit of.
Nothing heavy is imported before it is called, so that ``--help`` lists them at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hierlmm.errors import NotAvailableError, warn
from hierlmm.loading import loading

if TYPE_CHECKING:
    from hierlmm.bound import BoundModel

SAMPLING: dict[str, Any] = {"draws": 1000, "tune": None, "chains": 4, "seed": None, "target_accept": None}
ROUTE: dict[str, Any] = {"sampler": "auto", "centered": False, "random_effects": "auto", "progressbar": True}


@dataclass(frozen=True)
class Estimator:
    """One way to fit a model.

    Attributes
    ----------
    name, label : str
        In calls, and in prints.
    solve : callable
        From the bound model, and for a sampler its options, to a record.
    samples : bool
        Whether it takes the options of a sampler.
    marginal : bool
        Whether it fits marginal models.
    optional : bool
        Whether a model that it cannot express, or a package that is not installed, is a remark in a comparison.
    """

    name: str
    label: str
    solve: Callable[..., Any]
    samples: bool = False
    marginal: bool = True
    optional: bool = False


def _likelihood(model: BoundModel, *, reml: bool, n_quadrature: int = 1) -> Any:
    if not model.design.is_gaussian:
        return _generalised(model, reml=reml, n_quadrature=n_quadrature)
    from hierlmm.likelihood.estimate import maximise_design

    record = maximise_design(model.design, reml=reml)
    if not record.optimum.converged:
        warn(record.warnings[0])
    return record


def _generalised(model: BoundModel, *, reml: bool, n_quadrature: int) -> Any:
    from hierlmm.design.questions import refuse_without_likelihood
    from hierlmm.likelihood.generalised import maximise_generalised
    from hierlmm.likelihood.generalised_checks import unusable

    refuse_without_likelihood(model.design, "REML" if reml else "maximum likelihood")
    if reml:
        reason = (
            "REML is the likelihood of linear combinations of a normal response whose mean is zero whatever β is, and "
            "another response has none"
        )
        received, remedy = f"REML of a {model.design.family.title} model", "use fit_ml(), or fit() for a posterior"
        raise NotAvailableError(received, reason, remedy, "docs, page 'Families'")
    record = maximise_generalised(model.design, n_quadrature)
    for message in record.warnings if unusable(record) else ():
        warn(message)
    return record


def _gee(model: BoundModel, correlation: str | None = None, *, time: Any = None, **options: Any) -> Any:
    from hierlmm.gee.counterpart import working_correlation
    from hierlmm.gee.record import fit_gee

    if correlation is None:
        correlation, own = ("exchangeable", None) if model.design.term else working_correlation(model.design)
        time = own if time is None else time
    return fit_gee(model.design, correlation, time=time, **options)


def _nuts(model: BoundModel, **options: Any) -> Any:
    with loading():
        from hierlmm.bayes.route import sample_posterior
    from hierlmm.design.questions import refuse_without_likelihood

    refuse_without_likelihood(model.design, "a posterior")
    return sample_posterior(model.design, model.priors, **{**SAMPLING, **ROUTE, **options})


def _bambi(model: BoundModel, **options: Any) -> Any:
    from hierlmm.bayes.bambi import fit_bambi

    own = {name: value for name, value in options.items() if name not in ROUTE or name == "progressbar"}
    return fit_bambi(model.design, model.priors, **own)


ESTIMATORS = {
    estimator.name: estimator
    for estimator in (
        Estimator("nuts", "NUTS", _nuts, samples=True),
        Estimator("reml", "REML", lambda model: _likelihood(model, reml=True)),
        Estimator("ml", "ML", lambda model, **options: _likelihood(model, reml=False, **options)),
        Estimator("gee", "GEE", _gee),
        Estimator("bambi", "Bambi", _bambi, samples=True, marginal=False, optional=True),
    )
}
