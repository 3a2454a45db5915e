"""The marginal model: means and the covariance of a subject's rows, without random effects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hierlmm.bound import OTHER_MODEL
from hierlmm.covariance.residual import ResidualCorrelation, UnstructuredHeterogeneous
from hierlmm.covariance.variance import VarianceFunction
from hierlmm.design.build import design_from_fixed
from hierlmm.design.formula import parse_formula
from hierlmm.design.outcome import outcome_of
from hierlmm.design.questions import refuse_without_likelihood
from hierlmm.design.residual import Residual, make_residual
from hierlmm.equations.residual_symbols import spec_text
from hierlmm.errors import NotAvailableError
from hierlmm.families.family import Family
from hierlmm.fit.estimators import FittedModel, fit_by
from hierlmm.options import arguments_of, checked_with_constructor, refuse_arguments
from hierlmm.sources.door import readable

if TYPE_CHECKING:
    from hierlmm.fit.gee import GEEFit
    from hierlmm.fit.likelihood import MarginalFit  # noqa: F401  named in the base of the class
    from hierlmm.fit.posterior import PosteriorFit

SLIPS = {
    "residual": "correlation, as the residuals are all there is",
    "residual_group": "group, as the residuals are all there is",
    "residual_variance": "variance, as the residuals are all there is",
    "random": "hl.TwoLevelModel: a marginal model has no random effects",
    "covariance": "correlation=... and variance=...: a marginal model has no random effects",
}


@checked_with_constructor
class MarginalModel(FittedModel["MarginalFit"]):
    """A marginal model ``y_i ~ N(X_i β, V_i)``, ``V_i = σ² G_i R_i G_i``, bound to its data.

    Every two-level model implies a marginal model; not every marginal model comes from a two-level one. Compound
    symmetry with a negative correlation, for example, is no random intercept's.

    With another family it says the mean of a row, its variance as a function of the mean, and a working correlation.
    That is no distribution, so that ``fit_gee()`` is the one way to fit it.

    Parameters
    ----------
    formula : str
        Fixed effects, ``"distance ~ sex * time"``.
    correlation : ResidualCorrelation or UnstructuredHeterogeneous, optional
        R_i: ``hl.CompoundSymmetry()``, ``hl.AR1()``, ``hl.Unstructured("age")``, ... Independent by default.
        ``hl.UnstructuredHeterogeneous("age")``, the UN of SAS, is R_i and G_i together.
    variance : VarianceFunction, optional
        G_i: ``hl.VarIdent("sex")``, ... Equal variances by default. Another family has its own.
    group : str, optional
        Column of a factor that is constant within subjects: every group has its own parameters, those of
        ``correlation``, those of ``variance``, and its own sigma (SAS's ``GROUP=``, ``us(visit | arm / id)`` of mmrm).
    weights : str, optional
        Column of known weights w > 0 of the rows: the variance of a row is divided by its weight.
    subject : str
        Column that says which rows belong together.
    data : table
        Long format, one row per measurement: pandas, polars, pyarrow or anything narwhals reads.
    family, trials, exposure
        Distribution of the response, as for `TwoLevelModel`: means and variances of it. An ordinal response has no
        mean, Student's t no variance that follows from it.
    priors : Priors or "bambi", optional
        Priors for NUTS; data-scaled defaults otherwise.
    missing : {"raise", "drop"}
        Refuse missing values (naming columns and counts), or fit the complete rows and say how many were dropped.

    Raises
    ------
    FormulaError, SpecificationError, DataError
        In four parts: what was received, why it cannot be used, what to do, where to read more.

    Examples
    --------
    >>> import hierlmm as hl
    >>> dental = hl.load_dataset("dental")
    >>> model = hl.MarginalModel(
    ...     "distance ~ sex * time", correlation=hl.CompoundSymmetry(), subject="subject", data=dental
    ... )
    >>> round(model.fit_reml().loglik, 4)
    -216.8786
    """

    def __init__(
        self,
        formula: str,
        *,
        subject: str,
        data: Any,
        correlation: ResidualCorrelation | UnstructuredHeterogeneous | None = None,
        variance: VarianceFunction | None = None,
        group: str | None = None,
        weights: str | None = None,
        family: Any = "gaussian",
        trials: str | None = None,
        exposure: str | None = None,
        priors: Any = None,
        missing: str = "raise",
        **unknown: Any,
    ) -> None:
        refuse_arguments("MarginalModel", unknown, SLIPS, *OTHER_MODEL, arguments_of(MarginalModel))
        outcome = outcome_of(family, trials, exposure)
        structure = make_residual(correlation, variance, group=group, weights=weights)
        if not outcome.is_gaussian:
            _check_family(outcome.family, structure, priors)
        options: dict[str, Any] = {"residual": structure, "outcome": outcome, "missing": missing}
        self._set(design_from_fixed(parse_formula(formula), subject, readable(data), **options), priors)

    @property
    def correlation(self) -> ResidualCorrelation | None:
        """Structure of R_i; None for independent rows."""
        return self.residual

    @property
    def variance(self) -> VarianceFunction | None:
        """Structure of G_i (beside weights); None for equal variances."""
        return self.residual_variance

    @property
    def group(self) -> str | None:
        """Column of the groups with parameters of their own; None without any."""
        return self.residual_group

    @property
    def formula(self) -> str:
        """The fixed effects as a formula."""
        return self._design.hierarchy.formula

    def to_pymc(self, *, marginalized: bool = False) -> Any:
        """Build the model as a ``pymc.Model``: every measurement given the subject's earlier ones.

        Parameters
        ----------
        marginalized : bool
            Integrate β out instead, by a compiled density with exact gradient, for every structure; see
            `TwoLevelModel.to_pymc`.

        Raises
        ------
        NotAvailableError
            For structures that are not serial, unless marginalized.
        """
        from hierlmm.bayes.explicit import build_pymc_model
        from hierlmm.bayes.marginalized import build_marginalized_model

        refuse_without_likelihood(self._design, "to_pymc()")
        if marginalized:
            return build_marginalized_model(self._design, self.priors)
        return build_pymc_model(self._design, self.priors)

    def fit_gee(self, correlation: str | None = None, *, time: Any = None, **options: Any) -> GEEFit:
        """Fit the mean by generalised estimating equations (statsmodels).

        Parameters
        ----------
        correlation : {"exchangeable", "independence", "ar1", "unstructured"}, optional
            Working correlation; by default the one nearest to the model's own.
        time, **options
            As in `TwoLevelModel.fit_gee`.

        Raises
        ------
        SpecificationError
            If the model's correlation has no counterpart among the working correlations and none is named.
        """
        return fit_by("gee", self, correlation, time=time, **options)

    def fit(
        self,
        draws: int = 1000,
        tune: int | None = None,
        chains: int = 4,
        seed: int | None = None,
        *,
        sampler: str = "auto",
        target_accept: float | None = None,
        progressbar: bool = True,
    ) -> PosteriorFit:
        """Sample the posterior of β and the covariance parameters by NUTS.

        Parameters
        ----------
        draws, tune, chains, seed, sampler, target_accept, progressbar
            As in `TwoLevelModel.fit`.

        Returns
        -------
        PosteriorFit
            Frozen; without random effects.
        """
        given = {"draws": draws, "tune": tune, "chains": chains, "seed": seed, "target_accept": target_accept}
        return fit_by("nuts", self, **given, sampler=sampler, progressbar=progressbar)


def _check_family(family: Family, structure: Residual, priors: Any) -> None:
    """Refuse what no estimating equations can be made of, and what belongs to a normal response.

    Raises
    ------
    NotAvailableError
    """
    from hierlmm.gee.record import check_family

    check_family(family)
    see = "docs, page 'GEE'"
    if structure.variance is not None:
        received = f"{spec_text(structure.variance)} with {family}"
        reason = "the variance of this response follows from its mean"
        raise NotAvailableError(received, reason, "leave variance out; robust standard errors do not rest on it", see)
    if structure.correlation is not None and structure.correlation.working() is None:
        received = f"correlation={type(structure.correlation).__name__} with {family}"
        reason = "only estimating equations fit this model, and no working correlation is its counterpart"
        remedy = "use hl.CompoundSymmetry(), hl.CAR1('time'), hl.Unstructured('time'), or name one in fit_gee()"
        raise NotAvailableError(received, reason, remedy, see)
    if priors is not None:
        received, reason = f"priors for a marginal model with {family}", "it has no likelihood, and so no posterior"
        raise NotAvailableError(received, reason, "leave priors out, or use hl.TwoLevelModel", see)
