"""Marginal means, contrasts and slopes as a frozen table that knows its linear functions.

Every row is ``L β + offset``. A `Wald` gives it a standard error, degrees of freedom, an interval and (for contrasts
and slopes) t and p, corrected within each family; posterior draws give it a mean, a standard deviation, an equal-tailed
interval and the probability of being positive. Simultaneous intervals of a posterior are ``mean ± c sd``, c the
quantile over draws of the largest standardised distance from the mean in the family (a sup-t band; Montiel Olea and
Plagborg-Møller 2019, J. Appl. Econom. 34, 1-17).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from hierlmm.arrays import BoolArray, FloatArray, IntArray
from hierlmm.drawing.effect_rows import plot_effects as draw_effects
from hierlmm.drawing.figure import as_verb
from hierlmm.effects import judge as judging
from hierlmm.effects.headline import Found, difference, scaled, slope
from hierlmm.effects.scale import Scale, told_estimates, transformed
from hierlmm.effects.weights import contrast_rows, default_adjust, in_own_words
from hierlmm.errors import NotAvailableError, SpecificationError
from hierlmm.frames import apart
from hierlmm.likelihood.wald import Wald
from hierlmm.options import checked
from hierlmm.results import Page, Result, Table
from hierlmm.text import PROBABILITIES, probability_text, sayer, show, table_lines

SEE = "docs, page 'Contrasts'"
NUMBERS = ("estimate", "se", "df", "lower", "upper")
TESTS = (*NUMBERS, "t", "p", "prob_positive", "prob_rope")
RESULTS = {"marginal means": NUMBERS, "contrasts": ("contrast", *TESTS), "slopes": ("slope", *TESTS)}
"""Columns that a table of each kind can have, whatever the estimator: a covariate of such a name stands aside."""
SAY = sayer(__file__)
OTHER_INTERVALS = ("holm", "fdr")
ROUNDING = {"marginal means": 1e-12, "slopes": 1e-8}
"""Rounding of what is compared, relative: rows of the design are exact, slopes are differences with a short step."""


@checked
@dataclass(frozen=True, eq=False, repr=False)
class Effects(Result):
    """Linear functions of the fixed effects with their uncertainty (marginal means, contrasts or slopes). Frozen.

    Attributes
    ----------
    kind : str
        "marginal means", "contrasts" or "slopes".
    response : str
    estimator : str
    L : (k, p)
        One row per effect: what it multiplies β with; of draws of means over subjects, or of probabilities of
        categories, the draws themselves, (k, draws). Read-only.
    offset : (k,)
    by : tuple of str
        Columns that split the rows into families.
    adjust : str
        Correction of p-values and intervals within each family ("none" for a posterior).
    simultaneous : bool
        Posterior: whether the intervals hold together within each family.
    together : bool
        Whether the rows of all families are one family in corrections and simultaneous intervals.
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
    unit : str
        Unit of the numbers, where the data set knows it.
    pairs : tuple
        The two rows that each contrast compares, where it is a difference of two.
    scale : Scale or None
        What the numbers are, of a fit with a family: means or ratios, or the scale of the link.
    comparison, comparison_level
        The same of contrasts of these rows, and what they are in words.
    occasion : str
        Column of the occasions of the fit, along which pictures run; empty without one.
    """

    kind: str
    response: str
    estimator: str
    keys: pd.DataFrame
    L: FloatArray
    offset: FloatArray
    by: tuple[str, ...]
    judge: judging.Judge
    ci: float = 0.95
    adjust: str = "none"
    n_means: int = 1
    simultaneous: bool = False
    together: bool = False
    rope: tuple[float, float] | None = None
    level: str = ""
    averaged: str = ""
    notes: tuple[str, ...] = ()
    row_names: tuple[str, ...] = ()
    of: str = "marginal means"
    unit: str = ""
    pairs: tuple[tuple[str, str] | None, ...] = ()
    scale: Scale | None = None
    comparison: Scale | None = None
    comparison_level: str = ""
    occasion: str = ""

    @cached_property
    def table(self) -> pd.DataFrame:
        """What the effects are, ``estimate``, ``se``, ``lower``, ``upper`` and more. A copy.

        Likelihood fits and GEE: ``df`` and, but for means, ``t`` and ``p``. Posteriors: but for means,
        ``prob_positive``, and ``prob_rope`` with a region of practical equivalence. Where no coefficient is left in a
        row the model itself fixes it: its standard error is 0, and there is no test.

        A variable of the data has a column of its own name, or, if that is the name of a column of results of this
        kind of table (a time called ``t``), of that name after ``at``: ``at t``.
        """
        judge = self.judge
        columns = self._from_draws(judge) if isinstance(judge, judging.PosteriorDraws) else self._from_wald(judge)
        named = {} if self.kind == "marginal means" else {RESULTS[self.kind][0]: list(self.row_names)}
        keys = self.keys.reset_index(drop=True).rename(columns=self._columns)
        return pd.concat([keys, pd.DataFrame({**named, **columns})], axis=1)

    @property
    def draws(self) -> FloatArray:
        """Posterior draws of the effects, (draws, k), on the scale of the table.

        Raises
        ------
        NotAvailableError
            If the fit is no posterior.
        """
        if isinstance(self.judge, judging.PosteriorDraws):
            draws = self.judge.of(self.L, self.offset)
            return draws if self.scale is None or self.scale.back is None else self.scale.back(draws)
        raise NotAvailableError(f"draws of a fit by {self.estimator}", "it has none", "use .table", SEE)

    @cached_property
    def families(self) -> list[IntArray]:
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
    def _fixed(self) -> BoolArray:
        """Rows in which no coefficient is left."""
        return np.asarray(~np.any(self.L, axis=1))

    def _tested(self) -> list[IntArray]:
        """What is corrected together: the families, or all of them, without the rows that the model itself fixes."""
        known = ~self._fixed
        if isinstance(self.judge, Wald):
            known &= np.isfinite(self.judge.rows(self.L)[1])  # not of a coefficient of which nothing is known
        families = [np.arange(len(self.L))] if self.together else self.families
        return [own for rows in families if len(own := rows[known[rows]])]

    def _from_wald(self, judge: Wald) -> dict[str, FloatArray]:
        found = judging.estimates(judge, self.L, self.offset, self.ci)
        assert found.df is not None
        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.where(found.se > 0.0, found.estimate / found.se, np.nan)
        df = np.where(self._fixed, np.nan, found.df)
        half, p = np.where(np.isnan(found.se), np.nan, 0.0), np.full(len(t), np.nan)
        for rows in self._tested():
            corr = _correlations(self.L[rows], judge.cov)
            half[rows] = judging.adjusted_quantiles(df[rows], self.ci, self.adjust, self.n_means, corr) * found.se[rows]
            if self.kind != "marginal means":
                p[rows] = judging.adjusted_p(t[rows], df[rows], self.adjust, self.n_means, corr)
        columns = self._on_scale(
            found._replace(df=df, lower=found.estimate - half, upper=found.estimate + half)
        ).columns
        return columns if self.kind == "marginal means" else {**columns, "t": t, "p": p}

    def _from_draws(self, judge: judging.PosteriorDraws) -> dict[str, FloatArray]:
        found = told_estimates(self.scale, judge, self.L, self.offset, self.ci)
        if self.simultaneous:
            line = judging.estimates(judge, self.L, self.offset, self.ci)
            for rows in self._tested():
                half = judging.sup_t(judge, self.L, self.offset, line, rows, self.ci) * line.se[rows]
                line.lower[rows], line.upper[rows] = line.estimate[rows] - half, line.estimate[rows] + half
            ends = line if self.scale is None else self.scale.with_ends(line)
            found = found._replace(lower=ends.lower, upper=ends.upper)
        columns = found.columns
        if self.kind != "marginal means":
            assert found.positive is not None
            columns["prob_positive"] = np.where(self._fixed, np.nan, found.positive)
            if self.rope is not None:
                columns["prob_rope"] = np.where(self._fixed, np.nan, judging.share_inside(self.draws, self.rope))
        return columns

    def _on_scale(self, found: judging.Estimates) -> judging.Estimates:
        return found if self.scale is None else self.scale.told(found)

    def contrasts(
        self,
        method: str | Mapping[str, Any] = "pairwise",
        *,
        adjust: str | None = None,
        reference: Any = None,
        simultaneous: bool = False,
        together: bool = False,
        rope: float | tuple[float, float] | None = None,
        ci: float | None = None,
    ) -> Effects:
        """Compare the rows within each family (means with means, slopes with slopes).

        Parameters
        ----------
        method, adjust, reference, simultaneous, together, rope
            As for ``fit.contrasts``.
        ci : float, optional
            Probability of the intervals; by default that of this table.
        """
        if self.kind == "contrasts":
            remedy = "give the weights of the means: method={'name': [...]}; or write it with fit.hypothesis(...)"
            raise SpecificationError("contrasts of contrasts", "their families would no longer be clear", remedy, SEE)
        method, adjust = in_own_words(method, adjust)
        keys, by = self.keys, list(self.by)
        rows = (self.L, self.offset, self.families, [", ".join(texts) for texts in self.key_texts])
        what = ", ".join(c for c in keys.columns if c not in by) or "one mean"
        sign = " / " if self.comparison is not None and self.comparison.is_ratio else " - "
        found = contrast_rows(*rows, what, method, reference, ROUNDING[self.kind], sign)
        if adjust is None and isinstance(self.judge, Wald):
            adjust = "mvt" if together else default_adjust(method)
        pairwise = method == "pairwise" and not together
        adjust = judging.check_multiplicity(self.judge, adjust, simultaneous, pairwise=pairwise)
        made: dict[str, Any] = {"L": found.L, "offset": found.offset, "n_means": found.n_means}
        own = [c for c in keys.columns if c not in by]
        number = f"{own[0]} = " if len(own) == 1 and pd.api.types.is_numeric_dtype(keys[own[0]].dtype) else ""
        pairs = tuple(pair and (number + pair[0], number + pair[1]) for pair in found.pairs)
        made |= {"pairs": pairs, "row_names": found.names, "kind": "contrasts", "of": self.kind}
        made |= {"keys": keys.iloc[found.families][by].reset_index(drop=True)}
        made |= {
            "adjust": adjust,
            "simultaneous": simultaneous,
            "together": together,
            "rope": judging.check_rope(rope, self.judge, ratio=sign == " / "),
        }
        made |= {"ci": self.ci if ci is None else ci, "notes": tuple(dict.fromkeys([*self.notes, *found.notes]))}
        if self.scale is not None:
            made |= {"scale": self.comparison, "level": self.comparison_level}
        return replace(self, **made)

    plot = as_verb(draw_effects, name="plot")

    @property
    def labels(self) -> list[str]:
        """What each row is, without the ``by`` columns."""
        parts = zip(self.key_texts, self.row_names or [""] * len(self), strict=True)
        return [", ".join(filter(None, [*own, name])) for own, name in parts]

    @property
    def key_texts(self) -> list[list[str]]:
        """The values of each row's own variables, those that are not in ``by``, as text."""
        own = [[show(v) for v in self.keys[c]] for c in self.keys.columns if c not in self.by]
        return [[column[i] for column in own] for i in range(len(self))]

    @property
    def null(self) -> float:
        """What a comparison is where there is no difference: 0, of ratios 1."""
        return 0.0 if self.scale is None else self.scale.null

    @property
    def title(self) -> str:
        """Title of the table and the plot."""
        if self.scale is None:
            return f"{self.kind.capitalize()} of {self.response} ({self.estimator})"
        of = f" of {self.response}" if self.scale.is_ratio else ""
        return f"{self.scale.names[:1].upper()}{self.scale.names[1:]}{of} ({self.estimator})"

    @property
    def headline(self) -> str:
        """The message of a single row; empty for several."""
        if len(self) != 1:
            return ""
        row = self.table.iloc[0]
        found = Found(*(float(row[side]) for side in ("estimate", "lower", "upper")))
        pair = self.pairs[0] if self.pairs else None
        if self.scale is not None:
            return scaled(found, self.scale.name, self.scale.is_ratio, pair, self.labels[0])
        if pair is not None and not self._fixed[0]:
            return difference(found, self.of, self.response, self.unit, pair)
        if self.kind == "slopes" and not self.key_texts[0]:
            return slope(found, self.response, self.row_names[0].removeprefix("per unit of "), self.unit)
        return SAY("headline.plain", name=f"{self.labels[0] or self.response}:", **found.slots(self.unit))

    @property
    def xlabel(self) -> str:
        """What the numbers are: the response, its change per unit, or a difference of either."""
        if self.scale is not None:
            return f"{self.scale.name} {self.row_names[0]}" if self.kind == "slopes" else self.scale.name
        if self.kind == "slopes":
            return f"{self.response} {self.row_names[0]}"
        what = self.response if self.of == "marginal means" else f"slopes of {self.response}"
        return f"difference of {what}" if self.kind == "contrasts" else what

    @property
    def axis_label(self) -> str:
        """The same with its unit, where the data set knows it."""
        if not self.unit:
            return self.xlabel
        return f"{f'change of {self.response}' if self.kind == 'slopes' else self.xlabel} ({self.unit})"

    @property
    def intervals_text(self) -> str:
        """The intervals in a few words, for a title."""
        text = f"{100 * self.ci:g} % intervals"
        if self._family_size > 1 and self.adjust != "none":
            return f"{text} ({SAY(f'intervals.{self.adjust}')})"
        return f"{text} (simultaneous)" if self._family_size > 1 and self.simultaneous else text

    def notes_text(self) -> list[str]:
        """How the numbers were made, one statement a line."""
        percent = 100 * self.ci
        lines = [f"Level: {self.level}.", *([self.averaged] if self.averaged else [])]
        if isinstance(self.judge, Wald):
            lines += [SAY("table.wald", percent=percent, how=self.judge.description), self._adjustment_text()]
        else:
            name = "table.together" if self.simultaneous else "table.draws"
            lines.append(SAY(name, percent=percent, n=len(self.judge.beta)))
            if not self.simultaneous and self._family_size > 1:
                lines.append(SAY("table.uncorrected"))
        lines += transformed(self.scale, self.judge)
        if self.rope is not None:
            lines.append(SAY("table.rope", low=self.rope[0], high=self.rope[1]))
        return [*lines, *([SAY("table.fixed")] if self._fixed.any() else []), *judging.notes_of(self.notes, self.judge)]

    @property
    def _family_size(self) -> int:
        return max((len(rows) for rows in self._tested()), default=0)

    def _adjustment_text(self) -> str:
        m = self._family_size
        what = "p-values and intervals" if self.kind != "marginal means" else "intervals"
        each = f" of {m} within each {' and '.join(self.by)}" if self.by and not self.together else f" of {m}"
        if m == 0:
            return "Multiplicity: no row is tested."
        if m <= 1 or self.adjust == "none":
            return f"Multiplicity: {what} are not corrected." if m > 1 else "Multiplicity: one row in each family."
        words = SAY(f"p.{self.adjust}", of=self.n_means if self.adjust == "tukey" else each)
        if self.adjust in OTHER_INTERVALS:
            kind = "p-values" if self.kind != "marginal means" else "no p-values"
            return f"Multiplicity: {kind} by {words}; intervals by {SAY(f'intervals.{self.adjust}')}."
        return f"Multiplicity: {what} by {words}."

    def __len__(self) -> int:
        return len(self.L)

    def _page(self) -> Page:
        table = self.table
        shown = table.copy()
        for name in self._columns.values():
            shown[name] = [show(v) for v in table[name]]
        for name in table.columns.intersection(list(PROBABILITIES)):
            shown[name] = [probability_text(v) for v in table[name]]
        texts = list(table.columns[: list(table.columns).index("estimate")])
        body = Table(shown, table_lines(table, texts), self.kind.capitalize())
        return Page(self.title, ["", body, "", *self.notes_text()])


def _correlations(L: FloatArray, cov: FloatArray) -> FloatArray:
    joint = L @ cov @ L.T
    sd = np.sqrt(np.maximum(np.diag(joint), 0.0))
    known = np.where(sd > 0.0, sd, 1.0)
    corr = joint / np.outer(known, known)
    corr[np.diag_indices_from(corr)] = 1.0
    return corr
