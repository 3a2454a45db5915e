"""What the two front doors share: a model bound to its data, its prints and its equations."""

from __future__ import annotations

from typing import Any, Self

from hierlmm.covariance.composed import stated
from hierlmm.covariance.residual import ResidualCorrelation
from hierlmm.covariance.variance import VarianceFunction
from hierlmm.design.design import Design
from hierlmm.design.questions import refuse_without_likelihood, row_order_messages
from hierlmm.errors import warn
from hierlmm.fits.streamed import ANSWERED, unanswered
from hierlmm.frozen import Frozen
from hierlmm.likelihood.checks import check_design
from hierlmm.options import checked

# Why (and where to read more) when an argument of the other kind of model is written.
OTHER_MODEL = (
    "hl.TwoLevelModel takes residual and residual_variance, hl.MarginalModel correlation and variance",
    "docs, page 'Residual structures'",
)


@checked
class BoundModel(Frozen):
    """A model and its data; `TwoLevelModel` and `MarginalModel` are made of it."""

    _design: Design
    _priors: Any
    _unanswered = staticmethod(unanswered)

    def _answered_by(self) -> frozenset[str] | None:
        """Functions of the package that take the model: all, unless its rows are not in memory."""
        return None if self._design.whole is None else ANSWERED

    def _set(self, design: Design, priors: Any) -> None:
        check_design(design)
        for message in row_order_messages(design):
            warn(message)
        self.__dict__.update(_design=design, _priors=priors)
        if priors is not None:
            _ = self.priors  # a prior that cannot be used is refused here, not when sampling starts

    def with_design(self, design: Design) -> Self:
        """Return a model of this class with another design, and the same priors.

        Parameters
        ----------
        design : Design
            Of the same rows.
        """
        other = type(self).__new__(type(self))
        other._set(design, self._priors)
        return other

    @property
    def design(self) -> Design:
        """Matrices, names and subject index (shapes in its docstring)."""
        return self._design

    @property
    def subject(self) -> str:
        """Name of the grouping column."""
        return self._design.hierarchy.subject

    @property
    def residual(self) -> ResidualCorrelation | None:
        """Correlation of a subject's residuals; None where they are independent."""
        return self._design.residual

    @property
    def residual_variance(self) -> VarianceFunction | None:
        """Variance function of the residuals as it was stated, beside weights; None without any."""
        return stated(self._design.residual_variance)

    @property
    def residual_group(self) -> str | None:
        """Column of the groups with residual parameters of their own; None without any."""
        return self._design.residual_group

    @property
    def weights(self) -> str | None:
        """Column of the known weights of the rows; None where all count alike."""
        return self._design.weights

    @property
    def data(self) -> Any:
        """The rows and columns in use (pandas), a copy."""
        return self._design.frame.copy()

    @property
    def priors(self) -> Any:
        """Every prior, with the defaults filled in."""
        from hierlmm.bayes.priors import resolve_priors

        refuse_without_likelihood(self._design, "priors")
        return resolve_priors(self._priors, self._design)

    def equations(self, fit: Any = None) -> Any:
        """The model as text and LaTeX: its levels, if it has any, and the marginal model.

        Parameters
        ----------
        fit : Fit, optional
            Put its estimates in.
        """
        from hierlmm.equations.equations import equations

        return equations(self._design, fit)

    def implied_marginal(self, fit: Any, times: Any = None, **options: Any) -> Any:
        """Covariance of one subject's measurements at chosen times, as a fit of this model implies it.

        Parameters
        ----------
        fit : Fit
            Of this model, by any estimator.
        times, **options
            As for ``fit.implied_marginal``.

        Returns
        -------
        ImpliedMarginal
        """
        from hierlmm.implied.marginal import implied_marginal, refuse_other_model

        refuse_other_model(self._design, fit)
        return implied_marginal(fit, times, **options)

    def __repr__(self) -> str:
        from hierlmm.equations.describe import describe_model

        return describe_model(self._design)

    def _repr_html_(self) -> str:
        from hierlmm.equations.describe import describe_model_html

        return describe_model_html(self._design)
