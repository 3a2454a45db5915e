"""The maximum of a likelihood, as tests of models ask for it: of a fit, or of a design that is fitted for the test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hierlmm.covariance.random import SPECTRAL
from hierlmm.design.design import Design
from hierlmm.equations.residual_symbols import spec_text
from hierlmm.errors import SpecificationError
from hierlmm.fits.base import Fit
from hierlmm.likelihood.estimate import maximise_design
from hierlmm.likelihood.maximise import Optimum

PAGE = "docs, page 'Tests and model building'"
SEE = f"{PAGE}, section 'Likelihood-ratio tests'"


@dataclass(frozen=True, eq=False)
class Maximum:
    """A design at the maximum of its (restricted) likelihood.

    Attributes
    ----------
    design : Design
    criterion : AnyCriterion or GeneralisedCriterion
        −2 log-likelihood as a function.
    optimum : Optimum
        Where it is smallest.
    """

    design: Design
    criterion: Any
    optimum: Optimum

    @property
    def reml(self) -> bool:
        """Whether it is of the restricted likelihood."""
        return bool(getattr(self.criterion, "reml", False))

    @property
    def points(self) -> int:
        """Points of quadrature in each dimension; 1 also where nothing had to be approximated."""
        return int(getattr(self.criterion, "points", 1))

    @property
    def loglik(self) -> float:
        """Log-likelihood."""
        return -0.5 * float(self.optimum.value)

    @property
    def n_parameters(self) -> int:
        """Parameters as AIC counts them."""
        return len(self.optimum.lam) + (len(self.design.coef) + 1 if self.design.is_gaussian else 0)

    @property
    def aic(self) -> float:
        """−2 log-likelihood + 2 · number of parameters."""
        return 2.0 * (self.n_parameters - self.loglik)

    @property
    def bic(self) -> float:
        """−2 log-likelihood + log(N) · number of parameters."""
        return float(np.log(self.design.n_obs)) * self.n_parameters - 2.0 * self.loglik

    @property
    def is_singular(self) -> bool:
        """Whether D has no full rank."""
        return self.optimum.n_boundary > 0


def maximum_of(fit: Any) -> Maximum:
    """The maximum that a fit has found."""
    return Maximum(fit.design, fit.criterion_function, fit.optimum)


def maximise(design: Design, *, reml: bool, points: int = 1) -> Maximum:
    """Fit a design: by REML or ML, or of another family by ML with so many points of quadrature."""
    if design.is_gaussian:
        record: Any = maximise_design(design, reml=reml)
    else:
        from hierlmm.likelihood.generalised import maximise_generalised

        record = maximise_generalised(design, points)
    return Maximum(record.design, record.criterion, record.optimum)


def as_fit(fit: Any, maximum: Maximum) -> Any:
    """A fit of the same class at another maximum, as the bootstrap asks for."""
    parts = {"design": maximum.design, "optimum": maximum.optimum}
    if not maximum.design.is_gaussian:
        return replace(fit, record=replace(fit.record, criterion=maximum.criterion, **parts), warnings=())
    return replace(fit, criterion_function=maximum.criterion, warnings=(), **parts)


def model_text(design: Design) -> str:
    """A model in one line: formula, structure of D where the formula does not say it, residual structures."""
    parts = [design.hierarchy.formula]
    if design.covariance in SPECTRAL and len(design.term) > 1:
        parts.append(f"covariance={design.covariance!r}")
    parts += [spec_text(spec) for spec in (design.residual, design.residual_variance) if spec is not None]
    if not design.is_gaussian:
        parts.append(f"{design.family}")
    return ", ".join(parts)


def likelihood_fits(fits: Sequence[Any], labels: Sequence[str] | None, what: str) -> dict[str, Any]:
    """Fits by label, ``m1``, ``m2``, ... by default; refuse what is no maximum of a likelihood.

    Raises
    ------
    SpecificationError
    """
    named = labelled(fits, labels, what)
    for label, fit in named.items():
        if not isinstance(fit, Fit):
            remedy = "fit the model first: model.fit_ml() or model.fit_reml()"
            received = f"a {type(fit).__name__} as {label}"
            raise SpecificationError(received, f"{what} compares fits", remedy, SEE)
        if fit.has_draws:
            received, reason = f"{label}, a posterior, in {what}", "a posterior is a distribution and has no maximum"
            remedy = "fit by ML or REML (model.fit_ml()); compare posteriors by hl.compare_models, by loo_subject"
            raise SpecificationError(received, reason, remedy, SEE)
        if not fit.has_likelihood:
            received = f"{label}, fitted by {fit.estimator}, in {what}"
            reason = "estimating equations have no likelihood, so that there is no likelihood ratio"
            remedy = "test its coefficients by fit.hypothesis(...) or fit.anova(); fit_ml() has a likelihood"
            raise SpecificationError(received, reason, remedy, SEE)
    return named


def labelled(fits: Sequence[Any], labels: Sequence[str] | None, what: str) -> dict[str, Any]:
    """Models by label, two of them at least.

    Raises
    ------
    SpecificationError
    """
    if len(fits) < 2:
        received, reason = f"{len(fits)} model{'s' * (len(fits) != 1)} in {what}", "there is nothing to compare it with"
        raise SpecificationError(received, reason, f"pass two fits or more: hl.{what}(m1, m2)", SEE)
    names = [f"m{i + 1}" for i in range(len(fits))] if labels is None else [str(label) for label in labels]
    if len(names) != len(fits) or len(set(names)) != len(names):
        received, reason = f"labels={names!r} for {len(fits)} fits", "every fit needs a label of its own"
        raise SpecificationError(received, reason, "give as many different labels as fits, or leave labels out", SEE)
    return dict(zip(names, fits, strict=True))
