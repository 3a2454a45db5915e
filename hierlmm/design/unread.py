"""Tables that are not in memory: a design has the rows of some subjects, and knows what it needs to know of all.

An engine below the front doors (`hierlmm.sources`) answers what must be asked of all rows before terms are learnt, and
reads them once for the cross-products, which is all that the likelihood needs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    from hierlmm.design.columns import FactorColumns


class Whole(ABC):
    """All rows of a model, of which its design has those of some subjects.

    Attributes
    ----------
    n_obs, n_subjects, n_dropped : int
        Complete rows, the subjects they belong to, and rows left out for missing values.
    label : str
        Where they are, in a few words: ``rows.parquet, read by DuckDB``.
    """

    n_obs: int
    n_subjects: int
    n_dropped: int
    label: str

    @abstractmethod
    def cross_products(self, design: Any) -> Any:
        """Cross-products of all rows; those by subject are of the subjects of the design."""

    @abstractmethod
    def look_alike(self, design: Any) -> Any:
        """A design of as many rows, in which the columns of X, X1, Z and y have the means and covariances of all."""


@dataclass(frozen=True)
class Sample:
    """Rows of some subjects, complete, in which every level of every factor and the ends of every number are found."""

    frame: pd.DataFrame
    whole: Whole


class Unread(ABC):
    """A table that an engine reads."""

    @property
    @abstractmethod
    def columns(self) -> list[str]:
        """Names of its columns."""

    @abstractmethod
    def sample(self, said: Any, residual: Any, missing: str) -> Sample:
        """Rows from which the terms of a model can be learnt, after all rows were looked through.

        Parameters
        ----------
        said : Said
            What the model asks of the data (`hierlmm.design.rows`).
        residual : Residual
        missing : {"raise", "drop"}

        Raises
        ------
        DataError, FormulaError, SpecificationError
            As for a table in memory.
        """

    @abstractmethod
    def states(self, factors: FactorColumns) -> Mapping[str, Any]:
        """What functions of the formula learn of all rows (centres, knots), by their calls: ``ns(time, 3)``."""
