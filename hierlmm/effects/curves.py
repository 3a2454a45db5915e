"""Effect curves: the mean along one covariate, at stated values of the others, with bands.

A curve is ``f(x) = w(x)'β + offset(x)``, with w(x) the row of the design at x: other numbers stand at a value, other
factors at a level, or are averaged over their levels. With ``se(x)² = w(x)' Cov(β̂) w(x)``:

- pointwise band: ``f̂(x) ± t_df(x) se(x)``, or quantiles of the posterior draws of f(x); right for one x at a time;
- simultaneous band: ``f̂(x) ± c se(x)``, right for all grid points of a curve together (`hierlmm.effects.judge`).

On the scale exp(f) of a log response a curve is the median, not the mean: exp is monotone, and medians follow it.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, Unpack

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.design.formula import unquoted
from hierlmm.drawing.figure import Figure, pictured
from hierlmm.drawing.style import evenly
from hierlmm.effects import averages, headline
from hierlmm.effects import curve_checks as checks
from hierlmm.effects.grid import WEIGHTS, Grid, as_names, average_rows, plain_name, reference_grid
from hierlmm.effects.judge import Judge, PosteriorDraws, bands, covariance_of, notes_of
from hierlmm.effects.scale import Scale, check_points, level_text, scale_of, told_bands, transformed
from hierlmm.errors import FitWarning, NotAvailableError, SpecificationError
from hierlmm.fits.base import Fit
from hierlmm.fits.side_by_side import label_fits
from hierlmm.frames import apart
from hierlmm.likelihood.quantiles import DIRECTIONS
from hierlmm.likelihood.wald import Asked
from hierlmm.options import checked, choose, renamed
from hierlmm.results import Page, Result, Table
from hierlmm.text import sayer, show, table_lines

SAY = sayer(__file__)
SEE = "docs, page 'Effect plots'"
LIMITS = ("estimate", "lower", "upper", "lower_simultaneous", "upper_simultaneous")
RESULTS = (*LIMITS, "se", "extrapolated")


@checked
@dataclass(frozen=True, eq=False, repr=False)
class EffectCurves(Result):
    """Curves of the mean along one covariate. Frozen.

    Attributes
    ----------
    variable : str
        The covariate along which the curves run.
    by : tuple of str
        Variables that tell curves apart.
    panels : tuple of str
        Variables that ``at`` holds at several values: a set of curves for each combination.
    held : dict
        Variable -> the value at which it is held.
    averaged : dict
        Factor -> the levels that are averaged over.
    response, estimator : str
    level : {"population", "marginal"}
    ci : float
    simultaneous : {"curve", "all"} or None
        Whether there is a band that holds for all points of a curve together, or of all curves together.
    transform : {"exp"} or None
    L : (k, p)
        One row per grid point: what it multiplies β with, before the transformation. Read-only.
    offset : (k,)
    critical : (curves,)
        Half-width of the simultaneous band in standard errors, the widest point of each curve.
    fit : Fit
    scale : Scale or None
    """

    variable: str
    by: tuple[str, ...]
    panels: tuple[str, ...]
    held: dict[str, Any]
    averaged: dict[str, tuple[Any, ...]]
    weights: str
    grid: Grid
    L: FloatArray
    offset: FloatArray
    fit: Fit
    judge: Judge
    level: str
    ci: float
    simultaneous: str | None
    transform: str | None
    seed: int
    critical: FloatArray
    _linear: pd.DataFrame
    notes: tuple[str, ...] = ()
    scale: Scale | None = None

    @property
    def response(self) -> str:
        """The response, as in the formula."""
        return unquoted(self.fit.design.hierarchy.response)

    @property
    def estimator(self) -> str:
        """The estimator of the fit."""
        return self.fit.estimator

    @property
    def ylabel(self) -> str:
        """What the curves are drawn in: the response, its mean or link, or what it is the logarithm of."""
        if self.scale is not None and (self.scale.of != "mean" or self.scale.name != f"mean of {self.response}"):
            return self.scale.name
        if self.transform is None:
            return self.response
        found = checks.LOG.fullmatch(self.response)
        assert found is not None  # refused otherwise
        return unquoted(found[2].strip())

    @property
    def table(self) -> pd.DataFrame:
        """One row per grid point. A copy.

        Columns: the values of ``panels``, ``by`` and ``variable``; ``estimate``, ``se``, ``lower``, ``upper``; with a
        simultaneous band ``lower_simultaneous``, ``upper_simultaneous``; and ``extrapolated``.
        With ``transform="exp"`` limits are transformed, and ``se`` is that of the estimate by the delta method.
        A variable whose name is that of a column of results stands as ``at estimate``, ``at se`` and so on.
        """
        found = self._linear.copy()
        if self.transform is not None:
            limits = [c for c in found.columns if c in LIMITS]
            found[limits] = self._back(found[limits])
            found["se"] *= found["estimate"] * math.log(self._base)
        return found

    @cached_property
    def columns(self) -> dict[str, str]:
        """Variable of ``panels``, ``by`` and ``variable`` -> its column of the table."""
        return apart([*self.panels, *self.by, self.variable], RESULTS)

    @cached_property
    def jumps(self) -> FloatArray:
        """Last point before and first point after each jump of the mean along ``variable``, (2, jumps)."""
        points = np.array(self.grid.points[self.variable], dtype=np.float64)
        return checks.jumps_along(self.fit.design, self.variable, points)

    @cached_property
    def point_columns(self) -> dict[str, str]:
        """Variable of ``panels``, ``by`` and ``variable`` -> its column of ``points``."""
        return apart([*self.panels, *self.by, self.variable], ["y"])

    @property
    def _base(self) -> float:
        """Base of the logarithm that ``transform`` undoes."""
        found = checks.LOG.fullmatch(self.response)
        return math.e if found is None or found[1] is None else float(found[1])

    def _back(self, values: Any) -> Any:
        """The scale that the response is the logarithm of."""
        return np.exp(values * math.log(self._base))

    @property
    def curves(self) -> list[tuple[dict[str, Any], IntArray]]:
        """Each curve: its values of ``panels`` and ``by``, and the positions of its rows in the table."""
        names = [*self.panels, *self.by]
        if not names:
            return [({}, np.arange(len(self._linear)))]
        n = len(self.grid.points[self.variable])
        keys = self._linear[[self.columns[v] for v in names]].iloc[::n].itertuples(index=False, name=None)
        return [(dict(zip(names, key, strict=True)), k * n + np.arange(n)) for k, key in enumerate(keys)]

    def rows_at(self, keys: pd.DataFrame) -> tuple[FloatArray, FloatArray]:
        """X and offset (n, p), (n,) at rows of ``variable``, ``by`` and ``panels``, all else as on the curves.

        Parameters
        ----------
        keys : pandas.DataFrame
            A column for each of ``panels``, ``by`` and ``variable``.
        """
        if not isinstance(keys, pd.DataFrame):
            received = f"rows of type {type(keys).__name__}"
            raise SpecificationError(received, "their values stand in columns", "use pd.DataFrame({...})", SEE)
        return average_rows(self.grid, keys, self.weights)

    @renamed(residuals="residual_level")
    def points(
        self,
        kind: Literal["points", "partial"] = "points",
        residual_level: Literal["subject", "population"] | None = None,
    ) -> pd.DataFrame:
        """The data behind the curves: one row for every row of the data and panel in which it is drawn.

        Parameters
        ----------
        kind : {"points", "partial"}
            The response as measured, or partial residuals: the curve at the row's own value of ``variable``, at the
            curve's values of everything else, plus the row's residual. Partial residuals show what is left when the
            other covariates are as held; a bend that the model lacks is visible in them.
        residual_level : {"subject", "population"}, optional
            Residuals around the subject's own line (what is left within subjects; the default where there are random
            effects; with several factors the line of all groups of the row) or around the population line (with the
            differences between subjects).

        Returns
        -------
        pandas.DataFrame
            Columns of ``panels``, ``by``, ``variable``, and ``y``, on the scale of the curves; index of the rows of the
            data. A row belongs to the curve of its own level of a factor, and to the nearest value of a number.
            Measured values appear only where they belong: not with a level of a factor that the curves do not have.

        Raises
        ------
        NotAvailableError
            If residuals around subjects' lines are asked of a fit without random effects.
        """
        choose("kind", kind, ("points", "partial"))
        check_points(self.scale, kind)
        frame, design = self.fit.design.frame, self.fit.design
        names = [*self.panels, *self.by]
        found = pd.DataFrame({self.variable: frame[self.variable].to_numpy(dtype=np.float64)}, index=frame.index)
        keep = np.ones(len(frame), dtype=bool)
        # Partial residuals have been moved to the held values; measurements have not.
        split = list(self.by) if kind == "partial" else [*names, *(v for v in self.held if v in self.grid.factors)]
        for name in split:
            own, inside = checks.nearest(frame[name], self.grid.points[name], name in self.grid.factors)
            keep &= inside
            if name in names:
                found[name] = own
        if kind == "points":
            parts = [self._with_y(found[keep], (design.y / design.trials)[keep])]
        else:
            residual = self.fit.residuals("response", level=self._level_of_residuals(residual_level)).to_numpy()[keep]
            parts = []
            for combination in itertools.product(*(self.grid.points[v] for v in self.panels)):
                part = found[keep].assign(**dict(zip(self.panels, combination, strict=True)))
                X, offset = self.rows_at(part[[*names, self.variable]])
                parts.append(self._with_y(part, X @ self._beta + offset + residual))
        table = pd.concat(parts)
        return table if self.transform is None else table.assign(y=self._back(table["y"]))

    def _with_y(self, rows: pd.DataFrame, y: FloatArray) -> pd.DataFrame:
        return rows[[*self.panels, *self.by, self.variable]].rename(columns=self.point_columns).assign(y=y)

    def _level_of_residuals(self, residual_level: str | None) -> Any:
        effects, several = self.fit.has_random_effects, self.fit.design.has_several_factors
        level = ("subject" if effects else "population") if residual_level is None else residual_level
        choose("residual_level", level, ("subject", "population"))
        if level == "subject" and not effects:
            received = f"residual_level='subject' of a fit by {self.estimator} without random effects"
            reason = "there is no line of a subject to measure them from"
            raise NotAvailableError(received, reason, "use residual_level='population'", SEE)
        return "all" if several and level == "subject" else level

    @property
    def _beta(self) -> FloatArray:
        return self.judge.beta.mean(axis=0) if isinstance(self.judge, PosteriorDraws) else self.judge.beta

    @property
    def title(self) -> str:
        """Title of the table and the plot."""
        what = self.scale.title if self.scale is not None else self.ylabel
        return f"{what} along {self.variable}{self.by_text} ({self.estimator})"

    @property
    def by_text(self) -> str:
        """`` by a and b``, of the variables that tell curves apart beside the categories of the response."""
        by = self.by[1:] if self.scale is not None and self.scale.of == "probability" else self.by
        return f" by {' and '.join(by)}" if by else ""

    @property
    def headline(self) -> str:
        """How the slopes of two straight curves differ; empty where the curves are others."""
        return headline.curves(self)

    def held_text(self) -> str:
        """What is held at which value, and what is averaged over, in words."""
        parts = []
        if self.held:
            parts.append(f"At {', '.join(f'{v} = {show(x)}' for v, x in self.held.items())}.")
        if self.averaged:
            parts.append(f"Averaged over {', '.join(self.averaged)} with {self.weights} weights.")
        return " ".join(parts) or "No other covariate."

    def notes_text(self) -> list[str]:
        """How the numbers were made, one statement a line."""
        lines = [f"Curve: {self._curve_text()}.", self.held_text(), self._band_text()]
        lines += transformed(self.scale, self.judge)
        if self.simultaneous is not None:
            lines.append(self._simultaneous_text())
        if bool(self._linear["extrapolated"].any()):
            lines.append(SAY("curve.dashed", variable=self.variable))
        return [*lines, *notes_of(self.notes, self.judge)]

    def _band_text(self) -> str:
        percent = 100 * self.ci
        if isinstance(self.judge, PosteriorDraws):
            return SAY("curve.band_of_draws", percent=percent, n=len(self.judge.beta))
        return SAY("curve.band", percent=percent, how=self.judge.description, kind=covariance_of(self.fit))

    def _simultaneous_text(self) -> str:
        low, high = float(self.critical.min()), float(self.critical.max())
        size = f"{low:z.2f}" if high - low < 0.005 else f"{low:z.2f} to {high:z.2f}"
        draws = isinstance(self.judge, PosteriorDraws)
        how = SAY("curve.by_draws" if draws else "curve.by_t", directions=2**DIRECTIONS, seed=self.seed)
        slots = {"n": len(self.grid.points[self.variable]), "what": SAY(f"curve.{self.simultaneous}")}
        return SAY("curve.simultaneous", percent=100 * self.ci, size=size, how=how, **slots)

    def _curve_text(self) -> str:
        if self.scale is not None:
            return level_text(self.fit, self.scale, self.level)
        which = SAY(f"curve.{self.level if self.fit.has_random_effects else 'fixed'}")
        if self.transform is None:
            return which
        back = "exp" if self._base == math.e else f"{self._base:g} to its power"
        return f"{which}, {SAY('curve.median', response=self.response, back=back, y=self.ylabel)}"

    @pictured
    def plot(
        self,
        *,
        data: Literal["none", "points", "partial"] = "none",
        residual_level: Literal["subject", "population"] | None = None,
        labels: Sequence[str] | None = None,
        xlabel: str | None = None,
        ylabel: str | None = None,
        col_wrap: int | None = None,
        **figure: Unpack[Figure],
    ) -> Any:
        """Draw the curves with their bands.

        Parameters
        ----------
        data, residual_level, labels, xlabel, ylabel, col_wrap
            As for `hierlmm.plots.plot_effects`.

        Returns
        -------
        Picture
        """
        from hierlmm.drawing.curves import draw_curves

        asked: dict[str, Any] = {"data": data, "residual_level": residual_level, "xlabel": xlabel, "ylabel": ylabel}
        curves = dict.fromkeys(label_fits([self.fit], labels), self)
        return draw_curves(curves, col_wrap=col_wrap, **asked, **figure)

    def __len__(self) -> int:
        return len(self._linear)

    def _shown_rows(self) -> list[int]:
        rows: list[int] = []
        for _, own in self.curves:
            some = own if len(own) <= 7 else own[evenly(len(own), 5)]
            rows.extend(int(i) for i in some)
        return rows[:40]

    def _page(self) -> Page:
        rows, table = self._shown_rows(), self.table
        shown = table.iloc[rows].drop(columns="extrapolated").reset_index(drop=True)
        rest = f"({len(rows)} of {len(table)} rows; all in .table)" if len(rows) < len(table) else ""
        printed = [*table_lines(shown, list(self.columns.values())), *([rest] if rest else [])]
        return Page(self.title, ["", Table(shown, printed, self.ylabel), "", *self.notes_text()])


@checked
def effect_curves(
    fit: Fit,
    variable: str | None = None,
    by: str | Sequence[str] | None = None,
    at: Mapping[str, Any] | None = None,
    *,
    n: int = 101,
    ci: float = 0.95,
    simultaneous: bool | str = False,
    level: str = "population",
    weights: str = "equal",
    df: str | None = None,
    se: str | None = None,
    transform: str | None = None,
    seed: int = 0,
    scale: str = "response",
) -> EffectCurves:
    """Curves of the mean along a covariate; see `hierlmm.fits.base.Fit.effects`."""
    checks.check_level(fit, level)
    chosen, at = averages.asked_categories(fit.design, scale, at)
    told = scale_of(fit.design, scale, "marginal means", categories=chosen is not None)
    if transform is not None:
        choose("transform", transform, ("exp",))
        checks.check_log(fit)
    choose("weights", weights, WEIGHTS)
    scope = checks.scope_of(simultaneous)
    response = averages.response_of(fit.design)
    groups = tuple(v for v in as_names(by) if chosen is None or v != response)
    variable, panels, grid = _grid(fit, variable, groups, at, n)
    keep = (*panels, *groups, variable)
    averaged = {v: x for v, x in grid.points.items() if v not in keep and len(x) > 1}
    held = {v: x[0] for v, x in grid.points.items() if v not in keep and len(x) == 1}
    notes = checks.check_companions(fit, variable, grid)
    keys = grid.keys(keep)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", FitWarning)
        X, offset, judge = averages.averages(fit, grid, keys, weights, level, Asked(df, se), chosen)
    beyond, sentences = checks.extrapolated(fit, grid, variable, keys, held)
    checks.warn_of(sentences, caught)
    length = len(grid.points[variable])
    if chosen is not None:  # a curve for each category
        keep, groups = (*panels, *groups, response, variable), (response, *groups)
        keys, order = averages.curves_of_categories(keys, response, chosen, length)
        keys, X, offset, beyond = keys[list(keep)], X[order], offset[order], np.repeat(beyond, len(chosen))[order]
        grid = replace(grid, points={**grid.points, response: tuple(chosen)})
    pieces = [np.arange(len(keys))] if scope == "all" else np.split(np.arange(len(keys)), len(keys) // length)
    columns, critical = bands(judge, X, offset, ci, pieces if scope else [], seed)
    columns = columns if told is None else told_bands(told, judge, X, offset, ci, columns)
    shown = keys.rename(columns=apart(keep, RESULTS))
    table = pd.concat([shown, pd.DataFrame({**columns, "extrapolated": beyond})], axis=1)
    what, made = (variable, groups, panels, held, averaged, weights), (grid, X, offset)
    return EffectCurves(
        *what, *made, fit, judge, level, ci, scope, transform, seed, critical, table, tuple(notes), told
    )


def _grid(
    fit: Fit, variable: str | None, groups: tuple[str, ...], at: Mapping[str, Any] | None, n: int
) -> tuple[str, tuple[str, ...], Grid]:
    """What the curves run along, the variables that make panels, and the grid."""
    variable = None if variable is None else plain_name(variable)
    wanted = {plain_name(v): x for v, x in (at or {}).items()}
    known = reference_grid(fit.design, {v: x for v, x in wanted.items() if v != variable})  # refuses strange names
    variable = checks.check_variable(known, variable, fit)
    checks.check_by(known, groups, variable)
    wanted[variable] = checks.variable_values(fit, variable, wanted.get(variable), n)
    for name in groups:
        if name not in known.factors and name not in wanted:
            wanted[name] = checks.typical_values(fit.design.frame[name])
    grid = reference_grid(fit.design, wanted)
    panels = tuple(v for v in wanted if len(grid.points[v]) > 1 and v not in (variable, *groups))
    return variable, panels, grid
