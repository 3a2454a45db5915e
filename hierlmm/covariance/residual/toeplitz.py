"""One correlation for each lag.

    R[s, t] = ρ_|s - t|,     ρ from partial autocorrelations π_m in (-1, 1) by the Durbin-Levinson recursion

(`hierlmm.covariance.partial`): every positive definite sequence, and nothing else, comes from free numbers π_m.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hierlmm.covariance.declared import data_error
from hierlmm.covariance.parameters import Parameter
from hierlmm.covariance.partial import autocorrelations
from hierlmm.covariance.residual.base import (
    MOST_OCCASIONS,
    FloatArray,
    Observed,
    ResidualCorrelation,
    Writer,
    check_time,
    lags,
)
from hierlmm.options import checked_constructor


@checked_constructor
@dataclass(frozen=True)
class Toeplitz(ResidualCorrelation):
    """One correlation for each lag: ``R[s, t] = ρ_|s - t|``, any positive definite sequence.

    ```
    1    ρ1   ρ2   ρ3
    ρ1   1    ρ1   ρ2
    ρ2   ρ1   1    ρ1
    ρ3   ρ2   ρ1   1
    ```

    The parameters that move freely are the partial autocorrelations, each between -1 and 1 (Barndorff-Nielsen & Schou
    1973); tables show the correlations.

    Parameters
    ----------
    time : str, optional
        Column of whole numbers that count the occasions, or of their labels (text or categories), which are counted in
        their order over all subjects; left out: the order of the rows within a subject.
    """

    time: str | None = None
    integer: ClassVar[bool] = True
    _off_diagonal: ClassVar[bool] = True
    correlations: ClassVar[bool] = True
    kernel: ClassVar[str] = "toeplitz"
    free: ClassVar[bool] = True
    independent_at: ClassVar[float | None] = 0.0

    def __post_init__(self) -> None:
        if self.time is not None:
            check_time("Toeplitz", self.time)

    def parameters(self, observed: Observed) -> tuple[Parameter, ...]:
        """Partial autocorrelations of lag 1, 2, ..."""
        lags_ = max(observed.largest - 1, 1)
        first = observed.neighbour * (0.5 if observed.mixed else 1.0)
        return tuple(Parameter(f"partial({k + 1})", first if k == 0 else 0.0, -1.0, 1.0) for k in range(lags_))

    def matrix(self, t: FloatArray, values: FloatArray) -> FloatArray:
        """Autocorrelations at the lags."""
        return autocorrelations(values)[0][lags(t).astype(np.intp)]

    def derivatives(self, t: FloatArray, values: FloatArray) -> FloatArray:
        """Exact, through the Durbin-Levinson recursion."""
        return autocorrelations(values)[1][:, lags(t).astype(np.intp)]

    def _largest(self, t: FloatArray, start: NDArray[np.int64]) -> int:
        """Largest lag of any subject and one; refuse where a shorter one is seen nowhere, or there are very many."""
        longest = int(np.max(t[start[1:] - 1] - t[start[:-1]]))
        column = "the order of the rows" if self.time is None else repr(self.time)
        remedy = "use a column 1, 2, 3, ... of planned occasions, or Exponential for continuous time"
        if self.time is not None:
            remedy += f"; data[{self.time!r}].astype('category') counts its values"
        if longest > MOST_OCCASIONS:
            reason = f"it has one correlation for each lag, more than {MOST_OCCASIONS} of them"
            raise data_error(f"Toeplitz and lags up to {longest} in {column}", reason, remedy)
        seen = np.zeros(longest + 1, dtype=bool)
        for lo, hi in pairwise(start):
            seen[lags(t[lo:hi])[np.tril_indices(hi - lo, -1)].astype(np.intp)] = True
        missing = np.flatnonzero(~seen[1:]) + 1
        if missing.size:
            raise data_error(
                f"Toeplitz and no two rows of a subject at lag {missing[0]} of {column}"
                + (f" (nor at {missing.size - 1} other lags)" if missing.size > 1 else ""),
                "it has one correlation for each lag, and this one cannot be estimated",
                remedy,
            )
        return longest + 1

    def report(self, observed: Observed, values: FloatArray) -> dict[str, float]:
        """Correlations by lag."""
        return {f"rho({k + 1})": float(r) for k, r in enumerate(autocorrelations(values)[0][1:])}

    def _table(self, values: Sequence[float], labels: Sequence[str]) -> tuple[list[str], FloatArray]:
        """Rows by their order."""
        at = np.arange(len(values) + 1.0)
        return [f"{i + 1:.0f}" for i in at], np.array([1.0, *values])[lags(at).astype(np.intp)]

    def formula(self) -> str:
        """As in the docstring."""
        return "rho_|s - t|"

    def symbols(self, write: Writer) -> Any:
        """ρ(lag)."""
        return write.letter("ρ") + "(" + write.lag() + ")"
