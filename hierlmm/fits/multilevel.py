"""The REML or ML fit of a model with several grouping factors: what is by subject elsewhere is by factor here.

y = Xβ + Σ_k Z_k b_k + e,      b_kj ~ N(0, D_k) for every group j of factor k,      e ~ N(0, σ²I)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray
from hierlmm.design.design import Design
from hierlmm.design.factors import unknown_factor
from hierlmm.design.rows import RandomTerm
from hierlmm.fits.by_factor import ByFactor
from hierlmm.fits.capabilities import Lack
from hierlmm.fits.likelihood_tables import LikelihoodNumbers
from hierlmm.fits.several import ANSWERED, SEVERAL, unanswered
from hierlmm.fits.several_numbers import FactorNumbers, by_group
from hierlmm.likelihood.conditional import (
    ConditionalEffects,
    blup_variances,
    blup_variances_dataset,
    blup_variances_frame,
)
from hierlmm.likelihood.several_factors import FactorSolution
from hierlmm.options import checked


@checked
class MultilevelNumbers(FactorNumbers, LikelihoodNumbers):
    """The numbers of a model with several grouping factors."""

    lacks: ClassVar[Mapping[str, Lack]] = SEVERAL
    _answered_by: ClassVar[frozenset[str]] = ANSWERED
    """Functions of the package that take such a fit; all others refuse it."""
    _unanswered = unanswered("a fit with several grouping factors", "use what the fit says by factor: print(fit)")

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

    @cached_property
    def b_sd(self) -> ByFactor[pd.DataFrame]:  # type: ignore[override]
        """Conditional standard deviations of b by factor given y and the estimates (lme4's condVar)."""

        def own(k: int, term: RandomTerm) -> pd.DataFrame:
            # An effect without variance has 0, which rounding may leave below.
            variance = np.einsum("jkk->jk", self._by[k].covariance)
            return by_group(term, np.sqrt(np.maximum(variance, 0.0)))

        return self._of_factors("b_sd", own)

    @cached_property
    def b_cov(self) -> ByFactor[FloatArray]:  # type: ignore[override]
        """Conditional covariances of b by factor given y and the estimates: (J, q, q), groups as in ``b``."""
        return self._of_factors("b_cov", lambda k, _: self._by[k].covariance)

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


class OfFactor(LikelihoodNumbers):
    """The random effects of one factor as if its groups were subjects: for pictures of b, and nothing else."""

    @property
    def _D_values(self) -> FloatArray:
        return self.D.to_numpy()


def one_factor(design: Design, k: int) -> Design:
    """The design with the random effects of one factor alone, whose groups are its subjects."""
    own = design.random[k]
    hierarchy = replace(design.hierarchy, subject=own.columns.group)
    terms = replace(design.terms, random=(own.columns,), hierarchy=hierarchy)
    return replace(design, terms=terms, rows=replace(design.rows, subject=own.group), random=(own,))


def of_factor(fit: MultilevelNumbers, factor: str | None) -> OfFactor:
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
    found = OfFactor(one, fit.criterion_function, fit.optimum)
    vars(found).update(D=fit.D[factor], b=fit.b[factor], b_sd=fit.b_sd[factor])  # where it would keep its own
    return found
