"""The covariance of two rows by the groups that they share, as a fit with several grouping factors implies it.

    Cov(y_i, y_j) = Σ z_ki' D_k z_kj    over the factors k of which both rows have the same group,    i ≠ j

Two rows of one cask share the cask and its batch, two rows of two casks of a batch the batch alone, all others nothing.
With S the factors that both rows share, and n_g the rows of the combinations g of groups of S, Σ_g n_g(n_g - 1)/2 pairs
share S or more; pairs that share exactly S follow by differences (inclusion and exclusion).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.design.design import Design
from hierlmm.design.factors import coarser, finest_first, own_part
from hierlmm.design.formula import unquoted, variables_of
from hierlmm.design.questions import is_label, levels_of
from hierlmm.drawing import implied
from hierlmm.drawing.figure import as_verb
from hierlmm.errors import SpecificationError, closest
from hierlmm.fits.several import SEE
from hierlmm.fits.several_numbers import FactorNumbers
from hierlmm.frames import shorten
from hierlmm.implied.covariance import large_sample_parameters
from hierlmm.implied.grid import check_request
from hierlmm.options import checked
from hierlmm.results import Page, Paragraph, Result, Table
from hierlmm.text import align

MOST_DRAWN = 30
"""Rows of the picture that are chosen where none are named."""
ROWS_A_CELL = 2
"""Of them, rows that share all groups."""
SAME, OTHER = "same", "other"


def _pictured(found: SharedGroups) -> Mapping[str, SharedGroups]:
    return {found.label: found}


@checked
@dataclass(frozen=True, eq=False, repr=False)
class SharedGroups(Result):
    """The covariance of two rows by the groups that they share.

    Attributes
    ----------
    pairs : DataFrame
        A row for every combination of shared factors that occurs in the data, those that share most first: ``same`` or
        ``other`` for every factor (the finest first), ``pairs`` of rows of the data, ``covariance`` and
        ``correlation``, with ``lower`` and ``upper`` of the correlation.
    variance : DataFrame
        Variance of each of the two rows: a column for each factor, ``residual`` and ``total``.
    at : dict
        Values of the columns with random slopes in the two rows, ``(first, second)``.
    V, correlation : DataFrame
        Of chosen rows of the data, with their own values of all columns.
    estimator, response : str
    ci : float
        Probability of the intervals.
    note : str
        What the intervals are.
    """

    pairs: pd.DataFrame
    variance: pd.DataFrame
    at: dict[str, Any]
    V: pd.DataFrame
    correlation: pd.DataFrame
    estimator: str
    response: str
    ci: float
    note: str
    label: str
    time: str

    plot_heatmap = as_verb(implied.plot_heatmap, chosen=_pictured)

    _whose = "rows of"

    @property
    def _where(self) -> str:
        """Where the picture stands, for its title: not at ``at``, as the table does."""
        return f", each row at its own {' and '.join(self.at)}" if self.at else ""

    @property
    def table(self) -> pd.DataFrame:
        """`pairs`."""
        return self.pairs

    @property
    def x(self) -> IntArray:
        """Places of the chosen rows in the picture."""
        return np.arange(len(self.V))

    def _page(self) -> Page:
        where = ", ".join(f"{name} = {_both(values)}" for name, values in self.at.items())
        title = f"Covariance of two rows of {self.response} by the groups that they share ({self.estimator})"
        title += f"; {where}" if where else ""
        forms: dict[Any, str] = {"covariance": ".4g", **dict.fromkeys(("correlation", "lower", "upper"), "z.3f")}
        shown = self.pairs.dropna(axis=1, how="all")
        written = [list(shown.columns)]
        written += [[format(v, forms.get(c, "")) for c, v in zip(shown, own, strict=True)] for own in shown.to_numpy()]
        n_factors = self.variance.shape[1] - 2
        cells = align(written, range(n_factors))
        heads = [list(self.variance.columns)]
        spread = align([*heads, *([f"{v:.4g}" for v in own] for own in self.variance.to_numpy())], ())
        parts = Table(self.variance, ["", "Variance of a row, by factor", *(f"  {x}" for x in spread)], "Variance")
        pairs = Table(shown, [f"  {line}" for line in cells], "Two rows")
        return Page(title, [pairs, parts, Paragraph(self.note, 110)])


def _both(values: Any) -> str:
    first, second = (f"{v:.4g}" if isinstance(v, float) else str(v) for v in values)
    return first if first == second else f"{first} and {second}"


@checked
def shared_groups(
    fit: FactorNumbers,
    at: Mapping[str, Any] | None,
    rows: Any,
    ci: float,
    draws: int,
    seed: int | None,
) -> SharedGroups:
    """See `FactorVerbs.implied_marginal`."""
    check_request(fit, at, draws)
    design = fit.design
    names = list(finest_first(design))
    values, X1 = _two_rows(design, at)
    kinds, counts = sharing(design, names)
    D, sigma, note = _parameters(fit, draws, ci, seed)
    drawn = _moments(design, names, X1, kinds, D, sigma)
    here = drawn if fit.has_draws else _moments(design, names, X1, kinds, fit._D_values[None], np.array([fit.sigma]))
    covariance, correlation, parts = (part.mean(axis=0) for part in here)
    low = high = np.full(len(kinds), np.nan)
    if draws:
        low, high = np.quantile(drawn[1], [0.5 * (1.0 - ci), 0.5 * (1.0 + ci)], axis=0)
    same = {name: np.where(kinds[:, k], SAME, OTHER) for k, name in enumerate(names)}
    numbers = {"covariance": covariance, "correlation": correlation, "lower": low, "upper": high}
    at_rows = chosen_rows(fit, names, rows)
    V = fit._covariance_of(at_rows)
    sd = np.sqrt(np.diag(V))
    V.index = V.columns = _labels(design, names, at_rows) if rows is None else V.index
    variance = pd.DataFrame(parts, columns=[*names, "residual"])
    return SharedGroups(
        pairs=pd.DataFrame({**same, "pairs": counts, **numbers}),
        variance=variance.assign(total=variance.sum(axis=1)).drop_duplicates(),
        at=values,
        V=V,
        correlation=V.div(sd, axis=0).div(sd, axis=1),
        estimator=fit.estimator,
        response=unquoted(design.hierarchy.response),
        ci=ci,
        note=note,
        label=f"random effects of {', '.join(names)}",
        time="row" if rows is not None else ", ".join(_told(design, names)),
    )


def _parameters(fit: FactorNumbers, draws: int, ci: float, seed: int | None) -> tuple[FloatArray, FloatArray, str]:
    """D (S, T, T) and σ (S,) behind the intervals, and what these are; without intervals D and σ themselves."""
    note = "No intervals (draws=0)."
    if fit.has_draws:
        D, sigma = fit.draws("D"), fit.draws("sigma").ravel()
        if draws:
            note = f"Posterior means; intervals: {100 * ci:g} %, equal-tailed quantiles of {len(sigma):,} draws."
        return D.reshape(-1, *D.shape[2:]), sigma, note
    if not draws:
        return fit._D_values[None], np.array([fit.sigma]), note
    (D, sigma, _), note = large_sample_parameters(fit, draws, ci, seed, logs=True)
    return D, sigma, note.replace("Bands:", "Intervals:").replace("the bands are", "the intervals are")


def sharing(design: Design, names: list[str]) -> tuple[np.ndarray, IntArray]:
    """Which combinations of factors two rows of the data share, (m, K), and how many pairs do; most shared first."""
    groups = {term.columns.group: term.group for term in design.random}
    K, shared = len(names), dict[frozenset[int], int]()
    for size in range(K + 1):
        for own in combinations(range(K), size):
            key = np.zeros(design.n_obs, dtype=np.int64)
            for k in own:  # numbered anew each time, so that no product of sizes is too large
                group = groups[names[k]]
                key = np.unique(key * len(group.labels) + group.index, return_inverse=True)[1]
            n = np.bincount(key)
            shared[frozenset(own)] = int(np.sum(n * (n - 1)) // 2)
    exact: dict[frozenset[int], int] = {}
    for both in sorted(shared, key=len, reverse=True):
        exact[both] = shared[both] - sum(count for more, count in exact.items() if both < more)
    kinds = [both for both in sorted(exact, key=lambda both: (-len(both), sorted(both))) if exact[both]]
    return np.array([[k in both for k in range(K)] for both in kinds]), np.array([exact[both] for both in kinds])


def _two_rows(design: Design, at: Mapping[str, Any] | None) -> tuple[dict[str, Any], FloatArray]:
    """Values of the columns of random slopes in two rows, and X1 of these rows (2, k)."""
    frame = design.frame
    used = [part[0] for term in design.random for k in term.columns.columns for part in design.level1_columns[k]]
    relevant = list(dict.fromkeys(v for factor in used for v in variables_of(factor, list(frame.columns))))
    rows, values = frame.iloc[[0, 0]].reset_index(drop=True), {}
    for name in at or {}:
        if name not in relevant:
            reason = f"no random effect depends on it.{closest(name, relevant)}"
            remedy = f"use {shorten(map(repr, relevant))}" if relevant else "leave at= out"
            raise SpecificationError(f"at={{{name!r}: ...}}", reason, remedy, SEE)
    for name in relevant:
        known = levels_of(design, name) if is_label(design, name) else None
        given = (at or {}).get(name, known[0] if known else float(frame[name].mean()))
        both = list(given) if pd.api.types.is_list_like(given) else [given] * 2
        if len(both) != 2 or any(v not in known if known else not np.isfinite(float(v)) for v in both):
            what = f"levels of {name!r} ({shorten(map(str, known))})" if known else "finite numbers"
            reason = f"two rows have one value in common, or one each, and these are {what}"
            raise SpecificationError(f"at={{{name!r}: {given!r}}}", reason, f"use at={{{name!r}: [a, b]}}", SEE)
        values[name] = tuple(both)
        rows[name] = pd.Series(both, dtype=frame[name].dtype if known else float)
    return values, design.terms.apply(rows).X1


def _moments(
    design: Design, names: list[str], X1: FloatArray, kinds: np.ndarray, D: FloatArray, sigma: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Covariances and correlations of two rows by what they share (S, m); parts of their variances (S, 2, K + 1)."""
    at = {term.columns.group: k for k, term in enumerate(design.random)}
    own = [(X1[:, design.random[at[n]].columns.columns], D[:, *own_part(design, at[n])]) for n in names]
    both = np.stack([Z @ part @ Z.T for Z, part in own], axis=-1)  # (S, 2, 2, K)
    noise = np.broadcast_to(sigma[:, None, None] ** 2, (len(sigma), 2, 1))
    parts = np.concatenate([both[:, [0, 1], [0, 1]], noise], axis=2)
    covariance = both[:, 0, 1] @ kinds.T
    return covariance, covariance / np.sqrt(np.prod(parts.sum(axis=2), axis=1))[:, None], parts


def chosen_rows(fit: FactorNumbers, names: list[str], rows: Any) -> IntArray:
    """Positions of named rows, or of some of the first groups of every factor in the order of the groups."""
    if rows is not None:
        return fit._positions(rows)
    design = fit.design
    groups = {term.columns.group: term.group for term in design.random}
    index = np.column_stack([groups[name].index for name in reversed(names)])
    order = np.lexsort(index.T[::-1])
    place = pd.DataFrame(index[order]).groupby(list(range(index.shape[1]))).cumcount().to_numpy()
    order = order[place < ROWS_A_CELL]
    reach = np.sort(index[order].max(axis=1))
    allowed = reach[MOST_DRAWN] if len(reach) > MOST_DRAWN else reach[-1] + 1
    few = order[index[order].max(axis=1) < max(allowed, 2)]
    return few[:MOST_DRAWN]


def _told(design: Design, names: list[str]) -> list[str]:
    """Factors that no finer one tells the group of."""
    told = {above for name in names for above in coarser(design, name)}
    return [name for name in names if name not in told]


def _labels(design: Design, names: list[str], at: IntArray) -> pd.Index:
    groups = {term.columns.group: term.group for term in design.random}
    own = [groups[name].labels.astype(str).to_numpy()[groups[name].index[at]] for name in _told(design, names)]
    return pd.Index([", ".join(values) for values in zip(*own, strict=True)], name="row")
