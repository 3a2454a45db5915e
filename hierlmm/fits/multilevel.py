"""The REML or ML fit of a model with several grouping factors: what is by subject elsewhere is by factor here.

y = Xβ + Σ_k Z_k b_k + e,      b_kj ~ N(0, D_k) for every group j of factor k,      e ~ N(0, σ²I)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from hierlmm.arrays import FloatArray
from hierlmm.design.design import Design
from hierlmm.design.factors import unknown_factor
from hierlmm.design.rows import RandomTerm
from hierlmm.fits.by_factor import ByFactor
from hierlmm.fits.capabilities import Lack
from hierlmm.fits.generalised import GeneralisedNumbers
from hierlmm.fits.likelihood_tables import LikelihoodNumbers
from hierlmm.fits.point import PointEstimates
from hierlmm.fits.several import ANSWERED, OF_MODELS, SEVERAL, unanswered
from hierlmm.fits.several_numbers import ModesByFactor
from hierlmm.likelihood.conditional import (
    ConditionalEffects,
    blup_variances,
    blup_variances_dataset,
    blup_variances_frame,
)
from hierlmm.likelihood.several_factors import FactorSolution
from hierlmm.options import checked


@checked
class MultilevelNumbers(ModesByFactor, LikelihoodNumbers):  # type: ignore[misc]  # by factor, not one table
    """The numbers of a model with several grouping factors."""

    lacks: ClassVar[Mapping[str, Lack]] = SEVERAL
    _answered_by: ClassVar[frozenset[str]] = ANSWERED
    """Functions of the package that take such a fit; all others refuse it."""
    _unanswered = unanswered(
        "a fit with several grouping factors", "use what the fit says by factor: print(fit)", OF_MODELS
    )

    @property
    def _by(self) -> tuple[ConditionalEffects, ...]:
        """Distribution of the random effects of each factor given y."""
        solution = self.solution
        assert isinstance(solution, FactorSolution)
        return solution.by_factor

    @property
    def _D_values(self) -> FloatArray:
        return self.solution.D

    def _effects(self, k: int) -> FloatArray:
        return self._by[k].mean(self.beta.to_numpy())

    def _covariances(self, k: int) -> FloatArray:
        return self._by[k].covariance

    def blup_variances(self, covariances: bool = False) -> ByFactor[Any]:
        """Variances of the random effects' estimates by factor; see `LikelihoodFit.blup_variances` for the three.

        Parameters
        ----------
        covariances : bool
            Return the (term, term) matrices instead of their diagonals.

        Returns
        -------
        ByFactor of DataFrame by (group, term), or of xarray.Dataset
        """
        V = self.beta_cov.to_numpy()

        def own(k: int, term: RandomTerm) -> Any:
            name = term.columns.group
            found, b = blup_variances(self._by[k], self.D[name].to_numpy(), V), self.b[name]
            return blup_variances_dataset(b, found) if covariances else blup_variances_frame(b, found)

        return self._of_factors("blup_variances", own)


class _OneFactor(PointEstimates):
    """The random effects of one factor as if its groups were subjects: for pictures of b, and nothing else."""

    @property
    def _D_values(self) -> FloatArray:
        return self.D.to_numpy()


class OfFactor(_OneFactor, LikelihoodNumbers):
    """One factor of a linear model."""


class GeneralisedOfFactor(_OneFactor, GeneralisedNumbers):
    """One factor of a generalised model."""


def one_factor(design: Design, k: int) -> Design:
    """The design with the random effects of one factor alone, whose groups are its subjects."""
    own = design.random[k]
    hierarchy = replace(design.hierarchy, subject=own.columns.group)
    terms = replace(design.terms, random=(own.columns,), hierarchy=hierarchy)
    return replace(design, terms=terms, rows=replace(design.rows, subject=own.group), random=(own,))


def of_factor(fit: ModesByFactor, factor: str | None) -> OfFactor | GeneralisedOfFactor:
    """What a picture of the random effects of one factor is drawn from.

    Raises
    ------
    DataError
        If there is no such factor.
    """
    design = fit.design
    if factor is None or factor not in fit.b:
        raise unknown_factor(factor, list(fit.b))
    (k,) = (k for k, term in enumerate(design.random) if term.columns.group == factor)
    one = one_factor(design, k)
    found: OfFactor | GeneralisedOfFactor
    if isinstance(fit, GeneralisedNumbers):
        found = GeneralisedOfFactor(replace(fit.record, design=one))
    else:
        assert isinstance(fit, LikelihoodNumbers)
        found = OfFactor(one, fit.criterion_function, fit.optimum)
    vars(found).update(D=fit.D[factor], b=fit.b[factor], b_sd=fit.b_sd[factor])  # where it would keep its own
    return found
