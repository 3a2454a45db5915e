"""Ranks of subjects by a coefficient, with their uncertainty.

The rank of subject i is 1 + the number of subjects whose coefficient is larger. It is a function of all coefficients
together, so it is computed in every joint draw of ``c_i = l_i'β + b_ki``: posterior draws, or draws of (θ, β, b)

    θ around its estimate,    β | θ ~ N(β̂(θ), V),    c_i | β, θ ~ N(o_i + (l_i - K_i)'β, M_i)

independently over subjects, o, K, M at the draw of θ (`hierlmm.interpret.theta`). One θ serves several draws of (β, b);
Monte-Carlo errors are those of batch means. With several grouping factors b is drawn jointly for all of them, and the
coefficient of a group holds its own effect and those of the groups that it lies in.

The expected rank minimises squared error of the ranks (Laird and Louis 1989, J. Educ. Stat. 14, 29-46); ranks of point
estimates do not. Work is done in chunks of draws; memory holds one integer for each draw and subject.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.arrays import FloatArray
from hierlmm.drawing.figure import Figure, pictured
from hierlmm.errors import NotAvailableError, SpecificationError
from hierlmm.fits.base import Fit
from hierlmm.fits.components import zero_terms
from hierlmm.interpret.coefficients import (
    coefficient_notes,
    need_effects,
    position_of,
    tails,
)
from hierlmm.interpret.grammar import render
from hierlmm.interpret.kinds import Kind, kind_of
from hierlmm.interpret.ranked import RankedEffect
from hierlmm.options import checked
from hierlmm.results import Page, Result, Table
from hierlmm.text import table_lines

CHUNK = 2_000_000
MOST = 1_000_000_000
SHOWN = 20
SEE = "docs, page 'In words'"


@checked
@dataclass(frozen=True, eq=False, repr=False)
class Ranking(Result):
    """Subjects ranked by a coefficient (made by ``fit.rank_subjects()``). Frozen.

    Attributes
    ----------
    term : str
    estimator : str
    top : int
    ci : float
    largest_first : bool
        Whether rank 1 is the largest coefficient.
    subject : str
        Name of the subject column.
    notes : tuple of str
    table : DataFrame
        By subject, sorted by expected rank, a copy. ``coefficient`` (level 2's part and random effect), ``se``;
        ``rank`` of the coefficient; ``expected_rank`` with ``rank_lower``, ``rank_upper``; ``prob_top``, the
        probability to be among the first ``top``; ``mcse_rank`` and ``mcse_top``, Monte-Carlo standard errors.
    factor : str
        Whose groups are ranked, of several grouping factors; empty where subjects are.
    """

    term: str
    estimator: str
    top: int
    ci: float
    largest_first: bool
    subject: str
    notes: tuple[str, ...]
    table: pd.DataFrame
    factor: str = ""

    @pictured
    def plot(self, *, term: str | None = None, max_subjects: int | None = None, **figure: Unpack[Figure]) -> Any:
        """Draw every subject's expected rank with its interval, first ranks on top.

        Parameters
        ----------
        term, max_subjects
            As for `hierlmm.plots.plot_ranks`.

        Returns
        -------
        Picture

        Raises
        ------
        SpecificationError
            If ``term`` is another than the one of this ranking.
        """
        from hierlmm.drawing.ranks import plot_ranks

        if term not in (None, self.term):
            received, reason = f"term={term!r} for {self._who} ranked by {self.term!r}", "the ranking has been made"
            own = f"{self.factor!r}, {term!r}" if self.factor else repr(term)
            raise SpecificationError(received, reason, f"use fit.rank_subjects({own}).plot()", SEE)
        return plot_ranks(self, max_subjects=max_subjects, **figure)

    @property
    def _who(self) -> str:
        return f"groups of {self.factor}" if self.factor else "subjects"

    def _page(self) -> Page:
        first = "largest" if self.largest_first else "smallest"
        table, columns = self.table, ["coefficient", "se", "expected_rank", "rank_lower", "rank_upper", "prob_top"]
        n = len(table)
        part = table if n <= SHOWN else pd.concat([table.head(SHOWN // 2), table.tail(SHOWN // 2)])
        shown = part[columns].reset_index().astype({table.index.name or "index": str})
        who = self._who[:1].upper() + self._who[1:]
        body = Table(shown, table_lines(shown, [str(shown.columns[0])]), f"{who} by expected rank")
        cut = [render("ranks.cut", shown=SHOWN // 2, n=n, who=self._who)] if n > SHOWN else []
        title = f"{who} ranked by {self.term}, rank 1 the {first} ({self.estimator})"
        return Page(title, ["", body, "", *cut, *self.notes])


def rank_subjects(
    fit: Fit,
    term: str | None = None,
    *,
    top: int | None = None,
    largest_first: bool = True,
    ci: float = 0.95,
    draws: int = 4000,
    seed: int | None = 0,
    factor: str | None = None,
) -> Ranking:
    """Rank the subjects by a coefficient; see `hierlmm.fits.base.Fit.rank_subjects`."""
    need_effects(fit, "rank_subjects")
    kind = kind_of(fit, factor)
    design, J = kind.design, kind.design.n_subjects
    k = position_of(design, term, what="rank_subjects")
    name = design.level1[k]
    _refuse_ties(fit, kind, k)
    first = max(1, round(J / 10)) if top is None else top
    if isinstance(first, bool) or not isinstance(first, (int, np.integer)) or not 1 <= first < J:
        raise SpecificationError(f"top={top!r}", f"there are {J} {kind.who}", f"use a number from 1 to {J - 1}", SEE)
    if isinstance(draws, bool) or not isinstance(draws, (int, np.integer)) or draws < 100:
        raise SpecificationError(f"draws={draws!r}", "ranks need draws enough to be told apart", "use draws=4000", SEE)
    chains, per_chain = _shape(fit) or (1, int(draws))
    size = chains * per_chain
    whole = np.dtype(np.uint16 if J < 2**16 else np.uint32)
    if size * J * whole.itemsize > MOST:
        reason = f"they would take {size * J * whole.itemsize / 1e9:z.1f} GB of memory"
        remedy = "use fewer draws" + (", or a likelihood fit with draws=1000" if fit.has_draws else ": draws=1000")
        raise SpecificationError(f"ranks of {J} {kind.who} in {size} draws", reason, remedy, SEE)
    own = RankedEffect(fit, kind, k)
    estimate = own.rows @ fit.beta.to_numpy() + own.estimate
    drawn = own.drawn() if fit.has_draws else own.sampled(size, seed)
    ranks, se = _ranks(drawn, estimate, (size, J), whole, largest_first)
    index = pd.Index(design.subjects, name=design.hierarchy.subject)
    table = pd.DataFrame({"coefficient": estimate, "se": se}, index=index)
    table["rank"] = table["coefficient"].rank(ascending=not largest_first, method="min").astype(int)
    for column, values in _summaries(ranks, first, ci, chains).items():
        table[column] = values
    table = table.sort_values("expected_rank", kind="stable")
    about = (design.hierarchy.subject, _notes(fit, kind, k, size, first, ci))
    return Ranking(name, fit.estimator, int(first), ci, largest_first, *about, table, kind.factor)


def _shape(fit: Any) -> tuple[int, int] | None:
    """Chains and draws of each, of a posterior."""
    return fit.draw_shape if fit.has_draws else None


def _ranks(
    draws: Iterator[FloatArray], estimate: FloatArray, shape: tuple[int, int], kind: np.dtype[Any], largest_first: bool
) -> tuple[NDArray[Any], FloatArray]:
    """Ranks in every draw, and the standard deviation of every subject's coefficient over the draws."""
    ranks, done = np.empty(shape, dtype=kind), 0
    centre, square = np.zeros(shape[1]), np.zeros(shape[1])
    for values in draws:
        order = np.argsort(-values if largest_first else values, axis=1)
        places = np.arange(1, shape[1] + 1, dtype=kind)[None, :]
        np.put_along_axis(ranks[done : done + len(values)], order, places, axis=1)
        deviation = values - estimate
        centre += deviation.sum(axis=0)
        square += (deviation**2).sum(axis=0)
        done += len(values)
    return ranks, np.sqrt(np.maximum(square - centre**2 / shape[0], 0.0) / (shape[0] - 1))


def _summaries(ranks: NDArray[Any], top: int, ci: float, chains: int) -> dict[str, FloatArray]:
    size, J = ranks.shape
    names = ("expected_rank", "rank_lower", "rank_upper", "prob_top", "mcse_rank", "mcse_top")
    made = {name: np.empty(J) for name in names}
    step = max(1, CHUNK // size)
    # The smallest ranks with at least the tail probabilities below or at them.
    ends = [max(int(np.ceil(size * p)) - 1, 0) for p in tails(ci)]
    for start in range(0, J, step):
        own = slice(start, start + step)
        part = np.ascontiguousarray(ranks[:, own].T)
        inside = part <= top
        made["expected_rank"][own], made["mcse_rank"][own] = part.mean(axis=1), _mcse(part, chains)
        made["prob_top"][own], made["mcse_top"][own] = inside.mean(axis=1), _mcse(inside, chains)
        part.sort(axis=1, kind="stable")
        made["rank_lower"][own], made["rank_upper"][own] = part[:, ends[0]], part[:, ends[1]]
    return made


def _mcse(values: NDArray[Any], chains: int) -> FloatArray:
    """Monte-Carlo standard error of each row's mean: batch means within chains."""
    n = len(values)
    by_chain = values.reshape(n, chains, -1)
    length = max(1, int(np.sqrt(by_chain.shape[2])))
    batches = by_chain.shape[2] // length
    means = by_chain[:, :, : batches * length].reshape(n, chains * batches, length).mean(axis=2)
    return means.std(axis=1, ddof=1) / np.sqrt(chains * batches)


def _refuse_ties(fit: Fit, kind: Kind, k: int) -> None:
    design, zero = kind.design, zero_terms(fit)
    name = design.level1[k]
    varies = name in design.own_term
    if varies and any(fit.design.term[at] not in zero for at in kind.places(design.own_term.index(name))):
        return
    fixed = f"it does not vary by {kind.factor or 'subject'} in this model"
    why = f"its estimated variance between {kind.who} is zero" if varies else fixed
    received = f"{kind.who} ranked by {name!r}"
    remedy = "rank by a coefficient that varies, or compare groups by fit.contrasts(...)"
    alike = "groups with equal covariates" if kind.factor else "subjects with equal level-2 covariates"
    raise NotAvailableError(received, f"{why}: {alike} all share one rank", remedy, SEE)


def _notes(fit: Fit, kind: Kind, k: int, size: int, top: int, ci: float) -> tuple[str, ...]:
    posterior = fit.has_draws
    notes = [render("ranks.draws" if posterior else "ranks.joint", n=size)]
    notes.append(
        render("ranks.columns", ci=f"{100 * ci:g}", first="the first" if top == 1 else f"among the first {top}")
    )
    if kind.factor:
        above = " and ".join(kind.above)
        notes.append(render("ranks.above" if above else "ranks.factor", factor=kind.factor, above=above))
    if not posterior and fit.is_singular:
        notes.append(render("ranks.singular"))
    return (*notes, *coefficient_notes(kind.design, k))
