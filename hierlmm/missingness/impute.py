"""Multiple imputation from a fit: each data set has a draw of the parameters and missing responses drawn given them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray
from hierlmm.errors import DataError, NotAvailableError, SpecificationError
from hierlmm.frames import apart, shorten
from hierlmm.missingness.planned import SEE, Parameters, Planned, parameter_draws, planned_of, variables_of_response
from hierlmm.missingness.strategies import Assumption, conditional, strategy_named
from hierlmm.missingness.tables import counted
from hierlmm.options import checked
from hierlmm.results import Page, Paragraph, Result
from hierlmm.text import count, sayer

SAY = sayer(__file__)
FILLED = "imputed"
"""Column that tells which responses of a completed data set were filled in."""


@checked
@dataclass(frozen=True, eq=False, repr=False)
class Imputations(Result):
    """Completed data sets. Frozen.

    Attributes
    ----------
    planned : Planned
        The planned rows of the fit.
    assumption : str
        What is assumed after drop-out.
    y : (n, J, K)
        Completed responses by subject and visit; what was measured is the same in all.
    table : DataFrame
        By visit: how many responses are filled in, and their mean and SD over data sets beside those measured. A copy.
    """

    planned: Planned
    assumption: str
    y: FloatArray

    def __len__(self) -> int:
        return len(self.y)

    def data(self, k: int) -> pd.DataFrame:
        """One completed data set: all planned rows, with ``imputed`` beside the response.

        A transformed response is a column of its own name, such as ``log(y)``; ``y`` is left out.

        Parameters
        ----------
        k : int
            Its number, from 0.

        Raises
        ------
        SpecificationError
            If there is none of that number.
        """
        if not 0 <= k < len(self):
            raise SpecificationError(f"k={k}", f"there are {len(self)} data sets", f"use 0 to {len(self) - 1}", SEE)
        frame = self.planned.frame.drop(columns=self.left_out)
        frame[self.planned.visits.response] = self.y[k].ravel()
        return frame.assign(**{FILLED: ~self.planned.seen.ravel()})

    @property
    def left_out(self) -> list[str]:
        """Columns that a transformed response is made of, such as ``y`` of ``log(y)``; only the latter is imputed."""
        own = variables_of_response(self.planned.design)
        return [c for c in self.planned.frame.columns if c in own and c != self.planned.visits.response]

    def __iter__(self) -> Iterator[pd.DataFrame]:
        return (self.data(k) for k in range(len(self)))

    @property
    def table(self) -> pd.DataFrame:
        """By visit: what is filled in, beside what was measured."""
        visits, seen = self.planned.visits, self.planned.seen
        rows = []
        for k in range(seen.shape[1]):
            filled, own = self.y[:, ~seen[:, k], k], visits.y[seen[:, k], k]
            row = {
                "measured": len(own),
                "imputed": filled.shape[1],
                "mean_measured": own.mean() if len(own) else np.nan,
            }
            rows.append(row | {"mean_imputed": filled.mean() if filled.size else np.nan})
        found = pd.DataFrame(rows, index=visits.times)
        return found.rename_axis(index=apart([visits.time], found.columns)[visits.time])

    def _page(self) -> Page:
        title = f"{count(len(self), 'completed data set')} of {self.planned.visits.response}, {self.assumption}"
        said = "data(k) is a data set with all planned rows; a loop over this object goes through them."
        notes = [SAY("impute.left_out", columns=shorten(self.left_out), response=self.planned.visits.response)]
        parts = [Paragraph(said), *(map(Paragraph, notes) if self.left_out else ())]
        return Page(title, ["", counted(self.table.reset_index(), "What is filled in"), "", *parts])


@checked
def impute(
    fit: Any,
    n: int = 20,
    *,
    treatment: str | None = None,
    strategy: str = "at random",
    reference: Any = None,
    delta: float | Mapping[Any, float] = 0.0,
    each_visit: bool = False,
    time: str | None = None,
    data: Any = None,
    seed: int | None = 0,
) -> Imputations:
    """Fill in what was not measured, several times, from a fitted model.

    For each data set the parameters are a draw (of the posterior, or of their large-sample distribution), and the
    missing responses of each subject are drawn given its measured ones.

    Parameters
    ----------
    fit : LikelihoodFit or PosteriorFit
        Of a Gaussian model, such as an MMRM.
    n : int
        Number of data sets.
    treatment : str, optional
        Column of the arms, a factor between subjects; needed for a strategy with a reference arm and for a delta.
    strategy : {"at random", "jump to reference", "copy increments", "copy reference"}
        What is assumed after the last measurement of the subjects that drop out; also ``"mar"``, ``"j2r"``, ``"cir"``,
        ``"cr"``.
    reference : label, optional
        The reference arm; by default the first level of ``treatment``.
    delta : float or mapping of arm to float
        What is added after drop-out, in all arms but the reference or in those named.
    each_visit : bool
        Whether it is added anew at each further visit.
    time : str, optional
        Column of the visits; by default that of the residual structure, or the one level-1 variable.
    data : table, optional
        The planned rows with their covariates, where a covariate varies within subjects and within visits. It is asked
        for what was not measured; measured rows keep what they were fitted with.
    seed : int, optional

    Returns
    -------
    Imputations

    Raises
    ------
    NotAvailableError
        If the model is of another family, or its residual structure counts rows.
    SpecificationError
        If ``treatment`` is no factor between subjects, or is needed and not given.
    DataError
        If the model has a column called ``imputed``.
    """
    assumption = Assumption(strategy_named(strategy), delta, each_visit)
    arms = assumption.strategy != "at random" or assumption.delta != 0.0 or reference is not None
    planned = planned_of(fit, treatment, reference, time, data, caller="impute", arms=arms)
    if FILLED in (planned.visits.response, *planned.frame.columns):
        reason = "completed data sets tell in a column of this name which responses were filled in"
        remedy = f"give it another name, data.rename(columns={{{FILLED!r}: ...}}), and fit again"
        raise DataError(f"impute of a model with a column {FILLED!r}", reason, remedy, SEE)
    return Imputations(planned, assumption.text, completed(planned, assumption, n, seed))


class Drawn(NamedTuple):
    """What chance decides of imputations: parameters, and standard normal noise (n, J, K)."""

    at: Parameters
    noise: FloatArray


def completed(planned: Planned, assumption: Assumption, n: int, seed: int | None) -> FloatArray:
    """Completed responses, (n, J, K)."""
    return filled(planned, drawn(planned, n, seed), assumption)[0]


def filled(planned: Planned, draws: Drawn, *assumptions: Assumption) -> FloatArray:
    """Completed responses of the same draws under each assumption, (A, n, J, K)."""
    found = [conditional(planned, draws.at, s, *assumptions, noise=own) for s, own in enumerate(draws.noise)]
    return np.stack(found, axis=1)


def drawn(planned: Planned, n: int, seed: int | None) -> Drawn:
    """Draw parameters and noise of n imputations.

    Raises
    ------
    SpecificationError, NotAvailableError
        If fewer than two are asked for, or nothing is missing.
    """
    if n < 2:
        raise SpecificationError(f"n={n}", "the variance between data sets needs two or more", "use n=20 or more", SEE)
    if planned.seen.all():
        reason = "every subject was measured at every visit"
        raise NotAvailableError("imputations", reason, "analyse the data as they are", SEE)
    rng = np.random.default_rng(seed)
    return Drawn(parameter_draws(planned.fit, n, rng), rng.standard_normal((n, *planned.shape)))
