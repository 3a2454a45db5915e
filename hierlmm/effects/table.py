"""Marginal means, contrasts and slopes as a frozen table that knows its linear functions.

Every row is ``L β + offset``. A `Wald` gives it a standard error, degrees of freedom, an interval and (for contrasts
and slopes) t and p, corrected within each family; posterior draws give it a mean, a standard deviation, an equal-tailed
interval and the probability of being positive. Simultaneous intervals of a posterior are ``mean ± c sd``, c the
quantile over draws of the largest standardised distance from the mean in the family (a sup-t band; Montiel Olea and
Plagborg-Møller 2019, J. Appl. Econom. 34, 1-17).
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.effects.adjust import adjusted_p, adjusted_quantiles
from hierlmm.effects.judge import PosteriorDraws
from hierlmm.errors import NotAvailableError, SpecificationError
from hierlmm.frames import apart
from hierlmm.frozen import ReadOnlyArrays
from hierlmm.likelihood.wald import Wald
from hierlmm.options import checked
from hierlmm.text import PROBABILITIES, probability_text, show, table_lines

__all__ = ["Effects", "check_rope"]

FloatArray = NDArray[np.float64]
SEE = "docs, page 'Contrasts'"
NUMBERS = ("estimate", "se", "df", "lower", "upper")
TESTS = (*NUMBERS, "t", "p", "prob_positive", "prob_rope")
RESULTS = {"marginal means": NUMBERS, "contrasts": ("contrast", *TESTS), "slopes": ("slope", *TESTS)}
"""Columns that a table of each kind can have, whatever the estimator: a covariate of such a name stands aside."""
SHORT = {
    "tukey": "Tukey's method",
    "mvt": "multivariate t",
    "holm": "Bonferroni's method",
    "fdr": "Bonferroni's method",
    "bonferroni": "Bonferroni's method",
    "sidak": "Šidák's method",
}
"""Corrections of intervals."""
INTERVALS_OF = {"holm": "Bonferroni's", "fdr": "Bonferroni's"}


@checked
@dataclass(frozen=True, eq=False, repr=False)
class Effects(ReadOnlyArrays):
    """Linear functions of the fixed effects with their uncertainty (marginal means, contrasts or slopes). Frozen.

    Attributes
    ----------
    kind : str
        "marginal means", "contrasts" or "slopes".
    response : str
    estimator : str
    L : (k, p)
        One row per effect: what it multiplies β with. Read-only.
    offset : (k,)
    by : tuple of str
        Columns that split the rows into families.
    adjust : str
        Correction of p-values and intervals within each family ("none" for a posterior).
    simultaneous : bool
        Posterior: whether the intervals hold together within each family.
    ci : float
    rope : (float, float) or None
        Posterior: region of practical equivalence to zero.
    level : str
        Which mean is meant, on which scale.
    notes : tuple of str
    row_names : tuple of str
        Names of the contrasts, or what a slope is per unit of; empty for marginal means.
    of : str
        What contrasts compare: "marginal means" or "slopes".
    """

    kind: str
    response: str
    estimator: str
    keys: pd.DataFrame = field(repr=False)
    L: FloatArray
    offset: FloatArray
    by: tuple[str, ...]
    judge: Wald | PosteriorDraws
    ci: float = 0.95
    adjust: str = "none"
    n_means: int = 1
    simultaneous: bool = False
    rope: tuple[float, float] | None = None
    level: str = ""
    averaged: str = ""
    notes: tuple[str, ...] = ()
    row_names: tuple[str, ...] = ()
    of: str = "marginal means"

    ARRAYS: ClassVar[tuple[str, ...]] = ("L", "offset")

    @property
    def table(self) -> pd.DataFrame:
        """What the effects are, ``estimate``, ``se``, ``lower``, ``upper`` and more. A copy.

        Likelihood fits and GEE: ``df`` and, but for means, ``t`` and ``p``. Posteriors: but for means,
        ``prob_positive``, and ``prob_rope`` with a region of practical equivalence. Where no coefficient is left in a
        row the model itself fixes it: its standard error is 0, and there is no test.

        A variable of the data has a column of its own name, or, if that is the name of a column of results of this
        kind of table (a time called ``t``), of that name after ``at``: ``at t``.
        """
        return self._table.copy()

    @property
    def draws(self) -> FloatArray:
        """Posterior draws of the effects, (draws, k).

        Raises
        ------
        NotAvailableError
            If the fit is no posterior.
        """
        if isinstance(self.judge, PosteriorDraws):
            return self.judge.of(self.L, self.offset)
        raise NotAvailableError(f"draws of a fit by {self.estimator}", "it has none", "use .table", SEE)

    @cached_property
    def families(self) -> list[NDArray[np.intp]]:
        """Positions of the rows of each family: those that agree in the ``by`` columns."""
        if not self.by or self.keys.empty:
            return [np.arange(len(self.L))]
        groups = self.keys.groupby(list(self.by), observed=True, sort=False).indices
        return [np.asarray(rows, dtype=np.intp) for rows in groups.values()]

    @cached_property
    def _columns(self) -> dict[str, str]:
        """Variable of the data -> its column of the table."""
        return apart(self.keys.columns, RESULTS[self.kind])

    @cached_property
    def _fixed(self) -> NDArray[np.bool_]:
        """Rows in which no coefficient is left."""
        return np.asarray(~np.any(self.L, axis=1))

    def _tested(self) -> list[NDArray[np.intp]]:
        """The families without the rows that the model itself fixes."""
        return [own for rows in self.families if len(own := rows[~self._fixed[rows]])]

    @cached_property
    def _table(self) -> pd.DataFrame:
        columns = self._from_draws() if isinstance(self.judge, PosteriorDraws) else self._from_wald(self.judge)
        named = {} if self.kind == "marginal means" else {RESULTS[self.kind][0]: list(self.row_names)}
        keys = self.keys.reset_index(drop=True).rename(columns=self._columns)
        return pd.concat([keys, pd.DataFrame({**named, **columns})], axis=1)

    def _from_wald(self, judge: Wald) -> dict[str, FloatArray]:
        estimate, se, df = judge.rows(self.L)
        estimate = estimate + self.offset
        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.where(se > 0.0, estimate / se, np.nan)
        df = np.where(self._fixed, np.nan, df)
        half, p = np.zeros(len(se)), np.full(len(se), np.nan)
        for rows in self._tested():
            corr = _correlations(self.L[rows], judge.cov)
            half[rows] = adjusted_quantiles(df[rows], self.ci, self.adjust, self.n_means, corr) * se[rows]
            if self.kind != "marginal means":
                p[rows] = adjusted_p(t[rows], df[rows], self.adjust, self.n_means, corr)
        columns = {"estimate": estimate, "se": se, "df": df, "lower": estimate - half, "upper": estimate + half}
        return columns if self.kind == "marginal means" else {**columns, "t": t, "p": p}

    def _from_draws(self) -> dict[str, FloatArray]:
        draws = self.draws
        mean, sd = draws.mean(axis=0), draws.std(axis=0, ddof=1)
        lower, upper = np.quantile(draws, [0.5 - self.ci / 2.0, 0.5 + self.ci / 2.0], axis=0)
        if self.simultaneous:
            for rows in self._tested():
                some = rows[sd[rows] > 0.0]
                distance = np.abs(draws[:, some] - mean[some]) / sd[some]
                half = np.quantile(distance.max(axis=1, initial=0.0), self.ci) * sd[rows]
                lower[rows], upper[rows] = mean[rows] - half, mean[rows] + half
        columns = {"estimate": mean, "se": sd, "lower": lower, "upper": upper}
        if self.kind != "marginal means":
            columns["prob_positive"] = np.mean(draws > 0.0, axis=0)
            if self.rope is not None:
                columns["prob_rope"] = np.mean((draws > self.rope[0]) & (draws < self.rope[1]), axis=0)
            for name in ("prob_positive", "prob_rope"):
                if name in columns:
                    columns[name][self._fixed] = np.nan
        return columns

    def contrasts(
        self,
        method: str | Mapping[str, Any] = "pairwise",
        *,
        adjust: str | None = None,
        reference: Any = None,
        simultaneous: bool = False,
        rope: float | tuple[float, float] | None = None,
        ci: float | None = None,
    ) -> Effects:
        """Compare the rows within each family (means with means, slopes with slopes).

        Parameters
        ----------
        method, adjust, reference, simultaneous, rope
            As for ``fit.contrasts``.
        ci : float, optional
            Probability of the intervals; by default that of this table.
        """
        from hierlmm.effects.contrasts import contrast_effects

        return contrast_effects(
            self, method, adjust=adjust, reference=reference, simultaneous=simultaneous, rope=rope, ci=ci
        )

    def plot(self, **options: Any) -> Any:
        """Estimates with intervals; see `hierlmm.drawing.effect_rows.plot_effects`.

        Parameters
        ----------
        **options
            As for `hierlmm.drawing.effect_rows.plot_effects`.
        """
        from hierlmm.drawing.effect_rows import plot_effects

        return plot_effects(self, **options)

    @property
    def labels(self) -> list[str]:
        """What each row is, without the ``by`` columns."""
        parts = [[*own, name] for own, name in zip(self.key_texts, self.row_names or [""] * len(self), strict=True)]
        return [", ".join(text for text in row if text) for row in parts]

    @property
    def key_texts(self) -> list[list[str]]:
        """The values of each row's own variables, those that are not in ``by``, as text."""
        own = [[show(v) for v in self.keys[c]] for c in self.keys.columns if c not in self.by]
        return [[column[i] for column in own] for i in range(len(self))]

    @property
    def title(self) -> str:
        """Title of the table and the plot."""
        return f"{self.kind[:1].upper()}{self.kind[1:]} of {self.response} ({self.estimator})"

    @property
    def xlabel(self) -> str:
        """What the numbers are: the response, its change per unit, or a difference of either."""
        if self.kind == "slopes":
            return f"{self.response} {self.row_names[0]}"
        what = self.response if self.of == "marginal means" else f"slopes of {self.response}"
        return f"difference of {what}" if self.kind == "contrasts" else what

    @property
    def intervals_text(self) -> str:
        """The intervals in a few words, for a title."""
        text = f"{100 * self.ci:g} % intervals"
        if self._family_size > 1 and self.adjust != "none":
            return f"{text} ({SHORT[self.adjust]})"
        return f"{text} (simultaneous)" if self._family_size > 1 and self.simultaneous else text

    def notes_text(self) -> list[str]:
        """How the numbers were made, one statement a line."""
        percent = f"{100 * self.ci:g} %"
        lines = [f"Level: {self.level}."]
        if self.averaged:
            lines.append(self.averaged)
        if isinstance(self.judge, Wald):
            lines.append(f"Intervals: {percent}, {self.judge.description}.")
            lines.append(self._adjustment_text())
        elif self.simultaneous:
            lines.append(
                f"Intervals: {percent} for all of a family together (sup-t over {len(self.judge.beta)} draws)."
            )
        else:
            lines.append(f"Intervals: {percent}, equal-tailed, each by itself ({len(self.judge.beta)} draws).")
        if isinstance(self.judge, PosteriorDraws) and not self.simultaneous and self._family_size > 1:
            lines.append(
                "Multiplicity: no correction is applied to a posterior; simultaneous=True gives intervals that hold "
                "together."
            )
        if self.rope is not None:
            lines.append(f"prob_rope: probability of lying between {self.rope[0]:g} and {self.rope[1]:g}.")
        if self._fixed.any():
            lines.append(
                "Note: in rows with a standard error of 0 no coefficient is left. The model itself fixes them, so "
                "there is nothing to test, and they do not count in their family."
            )
        return [*lines, *(f"Note: {note}." for note in [*self.notes, *getattr(self.judge, "notes", ())])]

    @property
    def _family_size(self) -> int:
        return max((len(rows) for rows in self._tested()), default=0)

    def _adjustment_text(self) -> str:
        m = self._family_size
        what = "p-values and intervals" if self.kind != "marginal means" else "intervals"
        each = f" of {m} within each {' and '.join(self.by)}" if self.by else f" of {m}"
        if m == 0:
            return "Multiplicity: no row is tested."
        if m <= 1 or self.adjust == "none":
            return f"Multiplicity: {what} are not corrected." if m > 1 else "Multiplicity: one row in each family."
        words = {
            "tukey": f"Tukey's method for all pairs of {self.n_means}",
            "mvt": f"the multivariate t distribution of the family{each}",
            "holm": f"Holm's method for a family{each}",
            "fdr": f"Benjamini and Hochberg's false discovery rate for a family{each}",
            "bonferroni": f"Bonferroni's method for a family{each}",
            "sidak": f"Šidák's method for a family{each}",
        }[self.adjust]
        if self.adjust in INTERVALS_OF:
            kind = "p-values" if self.kind != "marginal means" else "no p-values"
            return f"Multiplicity: {kind} by {words}; intervals by {INTERVALS_OF[self.adjust]} method."
        return f"Multiplicity: {what} by {words}."

    def __len__(self) -> int:
        return len(self.L)

    def __repr__(self) -> str:
        table = self._table
        texts = list(table.columns[: list(table.columns).index("estimate")])
        return "\n".join([self.title, "", *table_lines(table, texts), "", *self.notes_text()])

    def _repr_html_(self) -> str:
        body = self._table.copy()
        for name in self._columns.values():
            body[name] = [show(v) for v in body[name]]
        for name in body.columns.intersection(list(PROBABILITIES)):
            body[name] = [probability_text(v) for v in body[name]]
        notes = "<br>".join(html.escape(line) for line in self.notes_text())
        table = body.to_html(index=False, float_format=lambda v: f"{v:.4g}", na_rep="", border=0)
        return f"<div><p><strong>{html.escape(self.title)}</strong></p>{table}<p>{notes}</p></div>"


def _correlations(L: FloatArray, cov: FloatArray) -> FloatArray:
    joint = L @ cov @ L.T
    sd = np.sqrt(np.maximum(np.diag(joint), 0.0))
    known = np.where(sd > 0.0, sd, 1.0)
    corr = joint / np.outer(known, known)
    corr[np.diag_indices_from(corr)] = 1.0
    return corr


def check_rope(rope: float | tuple[float, float] | None, judge: Wald | PosteriorDraws) -> tuple[float, float] | None:
    """A region of practical equivalence: (low, high), or a number r for (-r, r); for posteriors only."""
    if rope is None:
        return None
    if not isinstance(judge, PosteriorDraws):
        raise NotAvailableError(
            f"rope={rope!r} for a fit that is no posterior",
            "the probability that an effect is practically zero needs a posterior",
            "use model.fit(), or look whether the interval lies inside the region",
            SEE,
        )
    limits = (-rope, rope) if isinstance(rope, (int, float)) else tuple(rope)
    low, high = limits if len(limits) == 2 else (0.0, 0.0)
    if not low < high:
        raise SpecificationError(
            f"rope={rope!r}",
            "the region is empty" if len(limits) == 2 else "a region has two limits",
            "use (low, high), or one positive number",
            SEE,
        )
    return float(low), float(high)
