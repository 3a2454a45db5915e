"""Equal correlation of any two rows of a subject.

    R_i = (1 - ρ) I + ρ 11',   eigenvalues 1 - ρ and 1 + (n_i - 1) ρ

so ρ lies between -1/(n - 1), n the largest n_i, and 1. In O(n) form all decays are 1 and the share u is ρ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.covariance.declared import data_error
from hierlmm.covariance.parameters import Parameter, check_start
from hierlmm.covariance.residual.base import Markov, Observed, ResidualCorrelation, Writer
from hierlmm.options import checked_constructor


@checked_constructor
@dataclass(frozen=True)
class CompoundSymmetry(ResidualCorrelation):
    """Equal correlation of any two rows of a subject: ``R[s, t] = ρ``, ``-1/(n - 1) < ρ < 1``, n the largest n_i.

    ```
    1    ρ    ρ    ρ
    ρ    1    ρ    ρ
    ρ    ρ    1    ρ
    ρ    ρ    ρ    1
    ```

    With ρ > 0 this is the marginal model of a random intercept with ICC ρ; a negative ρ is no random intercept's.

    Parameters
    ----------
    start : float, optional
        Where the search for ρ begins.
    """

    start: float | None = None
    time: ClassVar[None] = None  # type: ignore[misc]
    ties: ClassVar[bool] = True
    counts_rows: ClassVar[bool] = False
    _off_diagonal: ClassVar[bool] = True
    kernel: ClassVar[str] = "share"
    explicit: ClassVar[bool] = True
    independent_at: ClassVar[float | None] = 0.0

    def parameters(self, observed: Observed) -> tuple[Parameter, ...]:
        """``rho``, with the bound that the largest subject sets."""
        if observed.largest < 2:
            received = "one row for each subject, and compound symmetry"
            reason = "there is no pair of rows within a subject to correlate"
            raise data_error(received, reason, "check the subject column, or leave the correlation out")
        lower = -1.0 / (observed.largest - 1)
        check_start(f"CompoundSymmetry with up to {observed.largest} rows for a subject", "rho", self.start, lower, 1.0)
        start = observed.neighbour * (0.3 if observed.mixed else 1.0) if self.start is None else self.start
        return (Parameter("rho", float(np.clip(start, 0.6 * lower, 0.95)), lower, 1.0),)

    def matrix(self, t: FloatArray, values: FloatArray) -> FloatArray:
        """Ones on the diagonal, ρ elsewhere."""
        n = t.shape[-1]
        R = (1.0 - values[0]) * np.eye(n) + values[0]
        return np.broadcast_to(R, (*t.shape[:-1], n, n)).copy()

    def markov(self, gaps: FloatArray, values: FloatArray) -> Markov:
        """Share ρ without decay."""
        return Markov(values[0], np.ones_like(gaps), np.ones(1), np.zeros((1, len(gaps))))

    def formula(self) -> str:
        """As in the docstring."""
        return "rho for s ≠ t"

    def explicit_form(self, gaps: FloatArray, values: Sequence[Any], xp: Any) -> tuple[Any, None]:
        """Share ρ; no decay."""
        return values[0], None

    def symbols(self, write: Writer) -> Any:
        """ρ."""
        return write.parameter("rho")

    def words(self) -> str:
        """Equally correlated."""
        return "equally correlated"

    def working(self) -> tuple[str, None]:
        """Exchangeable."""
        return "exchangeable", None
