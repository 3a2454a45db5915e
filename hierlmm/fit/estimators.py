"""Fitting by the name of an estimator, alone or beside others (`hierlmm.fit.registry` lists them)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hierlmm import plots
from hierlmm.bound import BoundModel
from hierlmm.drawing.figure import as_verb
from hierlmm.errors import MissingPackageError, NotAvailableError, SpecificationError
from hierlmm.fit.make import fit_of
from hierlmm.fit.prior import PriorVerbs
from hierlmm.fit.registry import ESTIMATORS, Estimator
from hierlmm.options import checked

if TYPE_CHECKING:
    from hierlmm.comparison.compare import Comparison
    from hierlmm.missingness.patterns import MissingPatterns


def fit_by(name: str, model: BoundModel, *arguments: Any, **options: Any) -> Any:
    """Fit a model by the estimator of this name."""
    return fit_of(ESTIMATORS[name].solve(model, *arguments, **options))


def not_shown(estimator: Estimator, error: MissingPackageError | SpecificationError) -> str:
    """Why an optional estimator is absent from a comparison."""
    return f"{estimator.label} is not shown: {error.reason}. {error.remedy[:1].upper()}{error.remedy[1:]}."


@checked
class FittedModel[F](PriorVerbs):
    """A bound model that every estimator of this registry fits, alone or beside others."""

    fit: Callable[..., Any]
    plot_data = as_verb(plots.plot_data, "by", "facet", chosen=lambda model: model.design)

    def missing_data(self, time: str | None = None, by: str | None = None) -> MissingPatterns:
        """Which visits were measured and which are missing, as patterns with their frequencies.

        Parameters
        ----------
        time : str, optional
            Column of the visits; by default the time of the residual structure, or the one level-1 variable.
        by : str, optional
            Column that is constant within subjects: counts for each of its values, too.

        Returns
        -------
        MissingPatterns
            See `hierlmm.missing_patterns`, which also takes tables.
        """
        from hierlmm.missingness.patterns import missing_patterns

        return missing_patterns(self, time=time, by=by)

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
