"""β, D and the random effects of a likelihood fit as tables, whatever was maximised."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray
from hierlmm.design.design import own_covariances, own_effects
from hierlmm.fits.base import Fit


class AnySolution(Protocol):
    """What follows from the parameters, in the user's units."""

    @property
    def beta(self) -> FloatArray:
        """Fixed effects, (p,)."""

    @property
    def D(self) -> FloatArray:
        """Covariance of the random effects, (q, q)."""

    @property
    def b(self) -> FloatArray:
        """Random effects, (J, q)."""

    @property
    def b_cov(self) -> FloatArray:
        """Their conditional covariances, (J, q, q)."""


class PointEstimates(Fit):
    """What the solution at an optimum says of β, D and b, on the scale of the link."""

    @property
    @abstractmethod
    def solution(self) -> Any:
        """What follows from the optimum, an `AnySolution`; every likelihood fit has its own."""

    @cached_property
    def beta(self) -> pd.Series:
        """Fixed effects, Series by ``coef``; of another family on the scale of the link, given the random effects."""
        return pd.Series(self._at_optimum.beta, index=pd.Index(self.design.coef, name="coef"), name="beta")

    @cached_property
    def D(self) -> pd.DataFrame:
        """Covariance of the random effects, ``term`` × ``term``; of another family on the scale of the link."""
        index = pd.Index(self.design.term, name="term")
        return pd.DataFrame(self._at_optimum.D, index=index, columns=index)

    @cached_property
    def b(self) -> pd.DataFrame:
        """Random effects, ``subject`` × ``term``: means (BLUPs) or modes given y and the estimates."""
        return self._by_subject(own_effects(self.design, self._at_optimum.b))

    @cached_property
    def b_sd(self) -> pd.DataFrame:
        """Conditional standard deviations of b given y and the estimates (lme4's condVar), ``subject`` × ``term``."""
        return self._by_subject(np.sqrt(np.einsum("jkk->jk", self.b_cov)))

    @property
    def b_cov(self) -> FloatArray:
        """Conditional covariances of b given y and the estimates: (J, q, q), subjects as in ``b.index``, read-only."""
        return own_covariances(self.design, self._at_optimum.b_cov)

    @property
    def _at_optimum(self) -> AnySolution:
        return self.solution

    @property
    def _D_values(self) -> FloatArray:
        return self._at_optimum.D

    def _by_subject(self, values: FloatArray) -> pd.DataFrame:
        return pd.DataFrame(values, index=self.design.subjects, columns=pd.Index(self.design.own_term, name="term"))
