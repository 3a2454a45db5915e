"""Cross-products that were read before, in place of an engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from hierlmm.design.columns import FactorColumns
from hierlmm.design.unread import Sample, Unread
from hierlmm.errors import NotAvailableError
from hierlmm.sources.coordinates import Coordinates
from hierlmm.sources.engine import LARGE
from hierlmm.sources.sums import Sums
from hierlmm.sources.whole import SummedRows


class KeptRows(SummedRows):
    """All rows, of which the cross-products are left."""

    def __init__(self, sums: Sums, coordinates: Coordinates, n_dropped: int, label: str) -> None:
        super().__init__(sums.n_rows, sums.n_subjects, n_dropped, label)
        self._read, self.categories = (sums, coordinates), dict[str, tuple[str, ...]]()

    def read(self, design: Any) -> tuple[Sums, Coordinates]:
        """See `SummedRows.read`."""
        return self._read

    def batches(self, subject: str) -> Any:
        """See `SummedRows.batches`."""
        received, reason = "what needs the rows of a model of cross-products", "the rows are not in the file"
        raise NotAvailableError(received, reason, "make the model of the data again", LARGE)


@dataclass(frozen=True)
class KeptTable(Unread):
    """Rows of some subjects, and what was learnt of all."""

    frame: pd.DataFrame
    whole: KeptRows
    known: Mapping[str, Any]

    @property
    def columns(self) -> list[str]:
        """Names of its columns."""
        return list(self.frame.columns)

    def sample(self, said: Any, residual: Any, missing: str) -> Sample:
        """See `Unread.sample`."""
        return Sample(self.frame, self.whole)

    def states(self, factors: FactorColumns) -> Mapping[str, Any]:
        """See `Unread.states`."""
        return self.known
