"""Every estimator by name: what `compare`, the command line and the report know of them.

A new estimator is one entry: a function from a bound model to the frozen record that `hierlmm.fit.make` makes a fit of.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hierlmm.bound import BoundModel
from hierlmm.errors import MissingPackageError, NotAvailableError, SpecificationError, warn
from hierlmm.fit.make import fit_of
from hierlmm.options import checked

if TYPE_CHECKING:
    from hierlmm.comparison.compare import Comparison

SAMPLING: dict[str, Any] = {"draws": 1000, "tune": 1000, "chains": 4, "seed": None, "target_accept": None}
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


def _likelihood(model: BoundModel, *, reml: bool) -> Any:
    from hierlmm.likelihood.estimate import maximise_design

    record = maximise_design(model.design, reml=reml)
    if not record.optimum.converged:
        warn(record.warnings[0])
    return record


def _gee(model: BoundModel, correlation: str | None = None, *, time: Any = None, **options: Any) -> Any:
    from hierlmm.gee.counterpart import working_correlation
    from hierlmm.gee.record import solve_gee

    if correlation is None:
        correlation, own = ("exchangeable", None) if model.design.term else working_correlation(model.design)
        time = own if time is None else time
    return solve_gee(model.design, correlation, time=time, **options)


def _nuts(model: BoundModel, **options: Any) -> Any:
    from hierlmm.bayes.route import sample_posterior

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
        Estimator("ml", "ML", lambda model: _likelihood(model, reml=False)),
        Estimator("gee", "GEE", _gee),
        Estimator("bambi", "Bambi", _bambi, samples=True, marginal=False, optional=True),
    )
}


def fit_by(name: str, model: BoundModel, *arguments: Any, **options: Any) -> Any:
    """Fit a model by the estimator of this name."""
    return fit_of(ESTIMATORS[name].solve(model, *arguments, **options))


def not_shown(estimator: Estimator, error: MissingPackageError | SpecificationError) -> str:
    """Why an optional estimator is absent from a comparison."""
    return f"{estimator.label} is not shown: {error.reason}. {error.remedy[:1].upper()}{error.remedy[1:]}."


@checked
class FittedModel[F](BoundModel):
    """A bound model that every estimator of this registry fits, alone or beside others."""

    fit: Callable[..., Any]

    def fit_reml(self) -> F:
        """Fit by restricted maximum likelihood, the fixed effects by generalised least squares."""
        return fit_by("reml", self)

    def fit_ml(self) -> F:
        """Fit by maximum likelihood (compare models with different fixed effects on this scale)."""
        return fit_by("ml", self)

    def compare(
        self, *estimators: str, ci: float = 0.95, seed: int | None = None, progressbar: bool = True, **fit_options: Any
    ) -> Comparison:
        """Fit by several estimators and put the answers side by side.

        Parameters
        ----------
        *estimators : {"nuts", "reml", "ml", "gee", "bambi"}
            ``"nuts"`` and ``"reml"`` by default. The first one is the reference for differences. Bambi fits two-level
            models only.
        ci : float
            Probability of the intervals.
        seed, progressbar, **fit_options
            For the samplers, as in `fit`.

        Returns
        -------
        Comparison
            ``.table`` (tidy), ``.wide()``, a text and HTML view, ``.plot_forest()`` and more. If Bambi cannot express
            the model, the comparison says so in its notes and shows the other estimators.
        """
        from hierlmm.comparison.compare import check_options, compare, estimator_names

        known = tuple(e.name for e in ESTIMATORS.values() if e.marginal or self.design.term)
        names = estimator_names(estimators, known)
        check_options(names, fit_options, type(self).fit)
        sampling = {"seed": seed, "progressbar": progressbar, **fit_options}
        fits: list[Any] = []
        notes: list[str] = []
        for estimator in (ESTIMATORS[name] for name in names):
            try:
                fits.append(fit_by(estimator.name, self, **(sampling if estimator.samples else {})))
            except (MissingPackageError, SpecificationError) as error:
                if not estimator.optional:
                    raise
                notes.append(not_shown(estimator, error))
        if not fits:
            reason, remedy = " ".join(notes), "name further estimators: 'nuts', 'reml', 'ml'"
            raise NotAvailableError(f"a comparison of {', '.join(names)}", reason, remedy)
        return compare(*fits, ci=ci, notes=tuple(notes))
