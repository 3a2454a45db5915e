"""The marginal model: means and the covariance of a subject's rows, without random effects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hierlmm.checks import check_design
from hierlmm.covariance.residual import ResidualCorrelation
from hierlmm.covariance.variance import VarianceFunction
from hierlmm.design import Design, design_from_fixed, make_residual
from hierlmm.formula import parse_formula

if TYPE_CHECKING:
    from hierlmm.fits.marginal import MarginalFit
    from hierlmm.fits.posterior import PosteriorFit

__all__ = ["MarginalModel"]


class MarginalModel:
    """A Gaussian marginal model ``y_i ~ N(X_i β, V_i)``, ``V_i = σ² G_i R_i G_i``, bound to its data.

    Every two-level model implies a marginal model; not every marginal model comes from a two-level one. Compound
    symmetry with a negative correlation, for example, is no random intercept's.

    Parameters
    ----------
    formula : str
        Fixed effects, ``"distance ~ sex * time"``.
    correlation : ResidualCorrelation, optional
        R_i: ``hl.CompoundSymmetry()``, ``hl.AR1()``, ``hl.Unstructured("age")``, ... Independent by default.
    variance : VarianceFunction, optional
        G_i: ``hl.VarIdent("sex")``, ... Equal variances by default.
    subject : str
        Column that says which rows belong together.
    data : table
        Long format, one row per measurement: pandas, polars, pyarrow or anything narwhals reads.
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
        correlation: ResidualCorrelation | None = None,
        variance: VarianceFunction | None = None,
        priors: Any = None,
        missing: str = "raise",
    ) -> None:
        structure = make_residual(correlation, variance)
        design = design_from_fixed(parse_formula(formula), subject, data, residual=structure, missing=missing)
        check_design(design)
        self._design, self._priors = design, priors
        if priors is not None:
            _ = self.priors  # a prior that cannot be used is refused here, not when sampling starts

    @property
    def design(self) -> Design:
        """Matrices, names and subject index (shapes in its docstring); it has no random effects."""
        return self._design

    @property
    def subject(self) -> str:
        """Name of the grouping column."""
        return self._design.hierarchy.subject

    @property
    def correlation(self) -> ResidualCorrelation | None:
        """Structure of R_i; None for independent rows."""
        return self._design.residual

    @property
    def variance(self) -> VarianceFunction | None:
        """Structure of G_i; None for equal variances."""
        return self._design.residual_variance

    @property
    def formula(self) -> str:
        """The fixed effects as a formula."""
        return self._design.hierarchy.formula

    @property
    def data(self) -> Any:
        """The rows and columns in use (pandas), a copy."""
        return self._design.frame.copy()

    @property
    def priors(self) -> Any:
        """Every prior, with the defaults filled in."""
        from hierlmm.bayes.priors import resolve_priors

        return resolve_priors(self._priors, self._design)

    def equations(self, fit: Any = None) -> Any:
        """The model as text and LaTeX.

        Parameters
        ----------
        fit : Fit, optional
            Put its estimates in.
        """
        from hierlmm.equations import equations

        return equations(self._design, fit)

    def __repr__(self) -> str:
        from hierlmm.describe import describe_model

        return describe_model(self._design)

    def _repr_html_(self) -> str:
        from hierlmm.describe import describe_model_html

        return describe_model_html(self._design)

    def fit_reml(self) -> MarginalFit:
        """Fit by generalised least squares, covariance parameters by restricted maximum likelihood."""
        return self._fit_likelihood(reml=True)

    def fit_ml(self) -> MarginalFit:
        """Fit by generalised least squares, covariance parameters by maximum likelihood."""
        return self._fit_likelihood(reml=False)

    def _fit_likelihood(self, *, reml: bool) -> MarginalFit:
        from hierlmm.fits.likelihood import fit_likelihood
        from hierlmm.fits.marginal import MarginalFit

        return fit_likelihood(self._design, reml=reml, kind=MarginalFit, stacklevel=4)  # type: ignore[return-value]

    def fit(
        self,
        draws: int = 1000,
        tune: int = 1000,
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
        from hierlmm.bayes.route import sample_posterior

        return sample_posterior(
            self._design,
            self.priors,
            sampler=sampler,
            centered=False,
            draws=draws,
            tune=tune,
            chains=chains,
            seed=seed,
            target_accept=target_accept,
            progressbar=progressbar,
            random_effects="auto",
        )
