"""The marginal covariances that several fits imply, at the same times (see `implied.marginal`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from hierlmm.errors import SpecificationError
from hierlmm.fits.base import Fit
from hierlmm.implied.grid import SEE, relevant_columns
from hierlmm.implied.marginal import ImpliedMarginal, ImpliedPictures, implied_marginal, value_text
from hierlmm.options import checked
from hierlmm.results import Page, Table


@checked
@dataclass(frozen=True, eq=False, repr=False)
class ImpliedComparison(ImpliedPictures):
    """What several fits imply for the same times, made by `compare_implied`.

    Attributes
    ----------
    implied : dict
        Label -> `ImpliedMarginal`.
    """

    implied: dict[str, ImpliedMarginal]

    @property
    def variance(self) -> pd.DataFrame:
        """Variance by time, a column for each fit."""
        return pd.DataFrame({k: v.variance["variance"] for k, v in self.implied.items()})

    @property
    def correlation(self) -> pd.DataFrame:
        """Correlation by pair of times, a column for each fit.

        The pair is in the columns of the time and the time with ``_bis`` ("once more"): ``month`` and ``month_bis``.
        """
        first = next(iter(self.implied.values()))
        keys = list(first.pairs().columns[:3])
        return first.pairs()[keys].assign(**{k: v.pairs()["correlation"] for k, v in self.implied.items()})

    @property
    def table(self) -> pd.DataFrame:
        """`variance`."""
        return self.variance

    def _pictured(self) -> Mapping[str, ImpliedMarginal]:
        return self.implied

    def _page(self) -> Page:
        first = next(iter(self.implied.values()))
        start = self.correlation
        start = start[start[first.time] == first.V.index[0]].iloc[:, 1:]
        variance = self.variance.to_string(float_format=lambda v: f"{v:.4g}")
        heading = f"Correlation with {first.time} = {value_text(first.V.index[0])}"
        shown = start.to_string(index=False, float_format=lambda v: f"{v:z.3f}")
        tables = [
            Table(self.variance, ["Variance", variance], "Variance", index=True),
            Table(start, [heading, shown], heading, number="z.3f"),
        ]
        title = f"Marginal covariance of one subject's {first.response}, as {len(self.implied)} fits imply it"
        return Page(title, tables)


@checked
def compare_implied(
    *fits: Any,
    times: Any = None,
    at: Any = None,
    time: str | None = None,
    labels: Sequence[str] | None = None,
    ci: float = 0.95,
    draws: int | None = None,
    seed: int | None = 0,
) -> ImpliedComparison:
    """Set the marginal covariances that several fits imply side by side, at the same times.

    Parameters
    ----------
    *fits : Fit or ImpliedMarginal
        Of the same response: for example a random intercept, a random slope, a serial and an unstructured model.
    times, at, time, ci, draws, seed
        As for `implied_marginal`; times and time variable are those of the first fit by default. A value in ``at`` goes
        to the fits whose V depends on it.
    labels : sequence of str, optional
        The covariance models in words otherwise.

    Returns
    -------
    ImpliedComparison

    Examples
    --------
    >>> import hierlmm as hl
    >>> dental = hl.load_dataset("dental")
    >>> fits = [
    ...     hl.TwoLevelModel.from_formula(f"distance ~ sex * time + ({bar} | subject)", dental).fit_reml()
    ...     for bar in ("1", "1 + time")
    ... ]
    >>> found = hl.compare_implied(*fits, labels=["intercept", "slope"], draws=0)
    >>> found.variance.round(2).to_dict("list")
    {'intercept': [5.22, 5.22, 5.22, 5.22], 'slope': [4.95, 4.96, 5.24, 5.77]}
    """
    if not fits:
        raise SpecificationError("no fits", "there is nothing to compare", "pass two or more fits", SEE)
    if labels is not None and (len(labels) != len(fits) or len(set(labels)) != len(labels)):
        received, reason = f"labels={list(labels)!r} for {len(fits)} fits", "every fit needs a name of its own"
        raise SpecificationError(received, reason, "give one for each", SEE)
    given = dict(at or {})
    used: set[str] = set()
    first: Any = next((f for f in fits if isinstance(f, ImpliedMarginal)), None)
    found: list[ImpliedMarginal] = []
    for fit in fits:
        if isinstance(fit, ImpliedMarginal):
            found.append(fit)
            continue
        axis = time if time is not None or first is None else first.time
        where = times if times is not None or first is None else list(first.V.index)
        own = {k: v for k, v in given.items() if not isinstance(fit, Fit) or k in relevant_columns(fit)}
        used |= set(own)
        one = implied_marginal(fit, where, at=own, time=axis, ci=ci, draws=draws, seed=seed)
        first = one if first is None else first
        found.append(one)
    unknown = [k for k in given if k not in used]
    if unknown:
        received = f"at={{{unknown[0]!r}: ...}}"
        raise SpecificationError(received, "the covariance of none of these fits depends on it", "leave it out", SEE)
    for one in found[1:]:
        if one.time != found[0].time or one.response != found[0].response or not one.V.index.equals(found[0].V.index):
            received = f"{one.label!r} at other times, or of another response, than {found[0].label!r}"
            reason = "covariances are compared entry by entry"
            raise SpecificationError(received, reason, "evaluate all of them at the same times", SEE)
    return ImpliedComparison(dict(zip(_names(found, labels), found, strict=True)))


def _names(found: list[ImpliedMarginal], labels: Sequence[str] | None) -> list[str]:
    if labels is not None:
        return [str(v) for v in labels]
    names = [one.label for one in found]
    if len(set(names)) < len(names):
        names = [f"{one.label}, {one.estimator}" if names.count(one.label) > 1 else one.label for one in found]
    return [f"{n} ({names[: i + 1].count(n)})" if names.count(n) > 1 else n for i, n in enumerate(names)]
