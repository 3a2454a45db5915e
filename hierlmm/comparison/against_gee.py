"""A mixed model against GEE on the same rows: what the two say about the same coefficients, and how surely.

With an identity link β is the same in both: the mean over subjects. The mixed model's standard error trusts its
covariance ``Z_i D Z_i' + σ² I``, the naive one of GEE trusts its working correlation, the robust one trusts neither.
Where they differ, the covariance is what the data do not support, or the subjects are few. The same holds of a marginal
model fitted by likelihood, with its own V_i.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
import pandas as pd

from hierlmm.comparison.compare import Comparison, compare
from hierlmm.drawing.figure import Figure, pictured
from hierlmm.equations.residual_symbols import spec_text
from hierlmm.errors import SpecificationError
from hierlmm.fits.base import Fit
from hierlmm.fits.gee import GEENumbers
from hierlmm.fits.gee_text import correlation_sentence, fixed_formula
from hierlmm.fits.text import counts_text
from hierlmm.gee.counterpart import working_correlation
from hierlmm.options import checked
from hierlmm.results import Page, Result, Table
from hierlmm.text import table_text

SEE = "docs, page 'GEE'"
SHORT = ("naive", "robust", "bias-reduced")
LABELS = {name.replace("-", "_"): f"GEE, {name}" for name in SHORT}
RATIOS = ["naive / mixed", "robust / mixed", "robust / naive"]


@checked
@dataclass(frozen=True, eq=False, repr=False)
class MarginalComparison(Result):
    """A fit of a mixed model and a GEE fit of its fixed part (made by ``fit.compare_marginal()``).

    Attributes
    ----------
    mixed : Fit
        The fit that was asked.
    gee : GEENumbers
    ci : float
        Probability of the intervals in plots.
    """

    mixed: Fit
    gee: GEENumbers
    ci: float = 0.95

    @property
    def table(self) -> pd.DataFrame:
        """One row per coefficient.

        ``mixed`` and ``gee`` are estimates (posterior means, if the fit is a posterior); ``mixed_se``, ``naive_se``,
        ``robust_se`` and ``bias_reduced_se`` their standard errors (NaN where one does not exist);
        ``naive / mixed``, ``robust / mixed`` and ``robust / naive`` ratios of standard errors.
        """
        se = self.gee.standard_errors()
        errors = pd.DataFrame({"mixed": self.mixed.beta_se.loc[se.index], **{kind: se[kind] for kind in LABELS}})
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = {ratio: errors[a] / errors[b] for ratio in RATIOS for a, b in [ratio.split(" / ")]}
        estimates = pd.DataFrame({"mixed": self.mixed.beta.loc[se.index], "gee": self.gee.beta})
        return estimates.join(errors.add_suffix("_se")).assign(**ratios)

    def comparison(self) -> Comparison:
        """The same as a `Comparison`: the mixed fit, and the GEE fit once for each of its standard errors."""
        kinds = [kind for kind in LABELS if kind != "bias_reduced" or not self.gee.estimate.alone]
        fits = [self.mixed, *(self.gee.with_se(kind) for kind in kinds)]  # type: ignore[arg-type]
        return compare(*fits, labels=[self.mixed.estimator, *(LABELS[kind] for kind in kinds)], ci=self.ci)

    @pictured
    def plot_forest(
        self,
        *,
        parameters: str | Sequence[str] | None = "fixed",
        ci: float | None = None,
        inner_ci: float | None = 0.5,
        col_wrap: int | None = None,
        **figure: Unpack[Figure],
    ) -> Any:
        """Draw the coefficients with the interval of each standard error.

        Parameters
        ----------
        parameters, ci, inner_ci, col_wrap
            As for `hierlmm.plots.plot_forest`; by default the coefficients.

        Returns
        -------
        Picture
        """
        asked: dict[str, Any] = {"parameters": parameters, "ci": ci, "inner_ci": inner_ci, "col_wrap": col_wrap}
        return self.comparison().plot_forest(**asked, **figure)

    def _page(self) -> Page:
        table, name, design = self.table, self.mixed.estimator, self.mixed.design
        kind, mean = ("Mixed", "Marginal:") if self.mixed.has_random_effects else ("Marginal", "GEE:")
        own = "".join(f", {spec_text(s)}" for s in (design.residual, design.residual_variance) if s is not None)
        estimates = table[["mixed", "gee"]].set_axis([name, "GEE"], axis=1)
        errors = table[[f"{c}_se" for c in ("mixed", *LABELS)]].set_axis([name, *SHORT], axis=1)
        ratios = table[RATIOS].set_axis([r.replace("mixed", name) for r in RATIOS], axis=1).rename_axis(None)
        divisor = {"n-p": "N - p", "n": "N"}[self.gee.estimate.scale_divisor]
        parts: list[str | Table] = [
            f"{kind + ':':<9} {design.hierarchy.formula}{own}",
            f"{mean:<9} {fixed_formula(self.gee)}, working correlation {correlation_sentence(self.gee)}",
            counts_text(self.gee.design),
            "",
            _captioned("Estimates", estimates, table_text(estimates, 6)),
            "",
            _captioned("Standard errors", errors, table_text(errors, 5)),
            "",
            _captioned("Ratios of standard errors", ratios, ratios.to_string(float_format=lambda v: f"{v:z.3f}")),
            "",
            f"Naive: the working correlation is true (dispersion divided by {divisor}). Robust: it need not be.",
            *(f"Note ({name}): {w}" for w in self.mixed.warnings),
            *(f"Note (GEE): {w}" for w in self.gee.warnings),
        ]
        return Page(f"{kind} model by {name} against GEE", parts)


def _captioned(caption: str, frame: pd.DataFrame, text: str) -> Table:
    return Table(frame, [f"{caption}:", *text.splitlines()], caption, index=True)


def beside_gee(mixed: Fit, gee: GEENumbers, ci: float, **options: Any) -> MarginalComparison:
    """Put a fit beside one by GEE; ``options`` of GEE, given together with a fit that has been made, are refused.

    Raises
    ------
    SpecificationError
        If the GEE fit is of other rows or coefficients, or options were given with it.
    """
    return MarginalComparison(mixed, _same_question(mixed, gee, options), ci)


def counterpart(mixed: Fit, correlation: str | None, time: Any) -> tuple[str, Any]:
    """The working correlation that GEE is to have beside a fit, and its times.

    Raises
    ------
    SpecificationError
        If a model without random effects has a correlation that GEE lacks, and no other is named.
    """
    if correlation is not None or mixed.has_random_effects:
        return "exchangeable" if correlation is None else correlation, time
    try:
        correlation, own = working_correlation(mixed.design)
    except SpecificationError as error:
        named = "compare_marginal('ar1', time='name of the column') or compare_marginal('independence')"
        remedy = f"name one: compare_marginal('exchangeable'), {named}"
        raise SpecificationError(error.received, error.reason, remedy, SEE) from None
    return correlation, own if time is None else time


def _same_question(mixed: Fit, found: GEENumbers, options: dict[str, Any]) -> GEENumbers:
    """The GEE fit, if it answers the question of the mixed one: the same response, rows and coefficients."""
    own, other = mixed.design, found.design
    same = own.coef == other.coef and own.n_obs == other.n_obs and own.subjects.equals(other.subjects)
    if not same or not np.array_equal(own.y, other.y) or not np.array_equal(own.X, other.X):
        received = f"a GEE fit of {other.hierarchy.formula} beside a fit of {own.hierarchy.formula}"
        remedy = "fit both to the same data with the same fixed part: model.fit_gee()"
        raise SpecificationError(received, "the two are of different rows or have different coefficients", remedy, SEE)
    time, scale = options.get("time"), options.get("scale", "n-p")
    if time is not None or scale != "n-p" or options.keys() - {"time", "scale"}:
        received, reason = "a GEE fit together with options of GEE", "the fit has been made already, with its own"
        raise SpecificationError(received, reason, "give the options to model.fit_gee(...)", SEE)
    return found
