"""A mixed model against GEE on the same rows: what the two say about the same coefficients, and how surely.

With an identity link β is the same in both: the mean over subjects. The mixed model's standard error trusts its
covariance ``Z_i D Z_i' + σ² I``, the naive one of GEE trusts its working correlation, the robust one trusts neither.
Where they differ, the covariance is what the data do not support, or the subjects are few. The same holds of a marginal
model fitted by likelihood, with its own V_i.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from hierlmm.comparison.compare import Comparison, compare
from hierlmm.equations.residual_symbols import spec_text
from hierlmm.errors import NotAvailableError, SpecificationError
from hierlmm.fits.base import Fit
from hierlmm.fits.gee import GEEFit, fit_gee
from hierlmm.fits.gee_text import correlation_sentence, fixed_formula
from hierlmm.fits.text import counts_text, html_page
from hierlmm.options import checked
from hierlmm.text import table_text

__all__ = ["MarginalComparison", "compare_marginal"]

SEE = "docs, page 'GEE'"
LABELS = {"naive": "GEE, naive", "robust": "GEE, robust", "bias_reduced": "GEE, bias-reduced"}


@checked
@dataclass(frozen=True, eq=False, repr=False)
class MarginalComparison:
    """A fit of a mixed model and a GEE fit of its fixed part (made by ``fit.compare_marginal()``).

    Attributes
    ----------
    mixed : Fit
        The fit that was asked.
    gee : GEEFit
    ci : float
        Probability of the intervals in plots.
    """

    mixed: Fit
    gee: GEEFit
    ci: float = 0.95

    @property
    def table(self) -> pd.DataFrame:
        """One row per coefficient.

        ``mixed`` and ``gee`` are estimates (posterior means, if the fit is a posterior); ``mixed_se``, ``naive_se``,
        ``robust_se`` and ``bias_reduced_se`` their standard errors (NaN where one does not exist);
        ``naive / mixed``, ``robust / mixed`` and ``robust / naive`` ratios of standard errors.
        """
        se = self.gee.standard_errors()
        mixed = self.mixed.beta_se.loc[se.index]
        with np.errstate(divide="ignore", invalid="ignore"):
            return pd.DataFrame(
                {
                    "mixed": self.mixed.beta.loc[se.index],
                    "gee": self.gee.beta,
                    "mixed_se": mixed,
                    "naive_se": se["naive"],
                    "robust_se": se["robust"],
                    "bias_reduced_se": se["bias_reduced"],
                    "naive / mixed": se["naive"] / mixed,
                    "robust / mixed": se["robust"] / mixed,
                    "robust / naive": se["robust"] / se["naive"],
                }
            )

    def comparison(self) -> Comparison:
        """The same as a `Comparison`: the mixed fit, and the GEE fit once for each of its standard errors."""
        kinds = [kind for kind in LABELS if kind != "bias_reduced" or not self.gee.estimate.alone]
        fits = [self.mixed, *(self.gee.with_se(kind) for kind in kinds)]  # type: ignore[arg-type]
        return compare(*fits, labels=[self.mixed.estimator, *(LABELS[kind] for kind in kinds)], ci=self.ci)

    def plot_forest(self, **options: Any) -> Any:
        """Coefficients with the interval of each standard error; see `hierlmm.plots.plot_forest`.

        Parameters
        ----------
        **options
            As for `hierlmm.plots.plot_forest`.
        """
        options.setdefault("parameters", "fixed")
        return self.comparison().plot_forest(**options)

    def __repr__(self) -> str:
        table, name = self.table, self.mixed.estimator
        estimates = table[["mixed", "gee"]].set_axis([name, "GEE"], axis=1)
        errors = table[["mixed_se", "naive_se", "robust_se", "bias_reduced_se"]]
        ratios = table[RATIOS].set_axis([r.replace("mixed", name) for r in RATIOS], axis=1)
        model = f"{self._kind}:"
        design = self.mixed.design
        own = ", ".join(spec_text(s) for s in (design.residual, design.residual_variance) if s is not None)
        parts = [
            f"{self._kind} model by {name} against GEE",
            f"{model:<9} {design.hierarchy.formula}" + (f", {own}" if own else ""),
            f"{'Marginal:' if self._kind == 'Mixed' else 'GEE:':<9} {fixed_formula(self.gee)}, working correlation "
            f"{correlation_sentence(self.gee)}",
            counts_text(self.gee.design),
            "",
            "Estimates:",
            table_text(estimates, 6),
            "",
            "Standard errors:",
            table_text(errors.set_axis([name, "naive", "robust", "bias-reduced"], axis=1), 5),
            "",
            "Ratios of standard errors:",
            ratios.rename_axis(None).to_string(float_format=lambda v: f"{v:z.3f}"),
            "",
            *self._notes(),
        ]
        return "\n".join(parts)

    def _repr_html_(self) -> str:
        name = self.mixed.estimator
        return html_page(
            f"{self._kind} model by {name} against GEE ({self.gee.correlation})",
            self.mixed.design,
            [("Coefficients and standard errors", self.table)],
            self._notes(),
        )

    @property
    def _kind(self) -> str:
        return "Mixed" if self.mixed.has_random_effects else "Marginal"

    def _notes(self) -> list[str]:
        divisor = {"n-p": "N - p", "n": "N"}[self.gee.estimate.scale_divisor]
        notes = [f"Naive: the working correlation is true (dispersion divided by {divisor}). Robust: it need not be."]
        notes += [f"Note ({self.mixed.estimator}): {w}" for w in self.mixed.warnings]
        return notes + [f"Note (GEE): {w}" for w in self.gee.warnings]


RATIOS = ["naive / mixed", "robust / mixed", "robust / naive"]


@checked
def compare_marginal(
    mixed: Fit, correlation: str | GEEFit | None = None, *, time: Any = None, ci: float = 0.95, **gee: Any
) -> MarginalComparison:
    """Fit the fixed part of a model's design by GEE and put it beside the fit.

    The working correlation is exchangeable by default; without random effects the model's own, where GEE has it. A GEE
    fit of the same rows and coefficients, in its place, is used as it is.

    Raises
    ------
    NotAvailableError
        If the fit is a GEE fit itself.
    SpecificationError
        If a model without random effects has a correlation that GEE lacks, and no other is named.
    """
    if isinstance(mixed, GEEFit):
        raise NotAvailableError(
            "compare_marginal of a fit by GEE",
            "it compares a mixed model with GEE, and this is the GEE",
            "start from the mixed model: model.fit_ml().compare_marginal()",
            SEE,
        )
    if isinstance(correlation, GEEFit):
        return MarginalComparison(mixed, _same_question(mixed, correlation, time, gee), ci)
    if correlation is None:
        correlation, own = ("exchangeable", None) if mixed.has_random_effects else _counterpart(mixed)
        time = own if time is None else time
    return MarginalComparison(mixed, fit_gee(mixed.design, correlation, time=time, **gee), ci)


def _same_question(mixed: Fit, found: GEEFit, time: Any, options: dict[str, Any]) -> GEEFit:
    """The GEE fit, if it answers the question of the mixed one: the same response, rows and coefficients."""
    own, other = mixed.design, found.design
    same = own.coef == other.coef and own.n_obs == other.n_obs and own.subjects.equals(other.subjects)
    if not same or not np.array_equal(own.y, other.y) or not np.array_equal(own.X, other.X):
        raise SpecificationError(
            f"a GEE fit of {other.hierarchy.formula} beside a fit of {own.hierarchy.formula}",
            "the two are of different rows or have different coefficients",
            "fit both to the same data with the same fixed part: model.fit_gee()",
            SEE,
        )
    if time is not None or options.get("scale", "n-p") != "n-p" or len(options.keys() - {"scale"}):
        raise SpecificationError(
            "a GEE fit together with options of GEE",
            "the fit has been made already, with its own",
            "give the options to model.fit_gee(...)",
            SEE,
        )
    return found


def _counterpart(fit: Fit) -> tuple[str, str | None]:
    """GEE's working correlation for that of a fit without random effects, and its column of times."""
    from hierlmm.marginal import _working_correlation

    try:
        return _working_correlation(fit.design)
    except SpecificationError as error:
        raise SpecificationError(
            error.received,
            error.reason,
            "name one: compare_marginal('exchangeable'), compare_marginal('ar1', time='name of the column') or "
            "compare_marginal('independence')",
            SEE,
        ) from None
