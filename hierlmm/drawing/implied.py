"""The implied marginal covariance as a heat map, as correlation against lag, and as variance against time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Unpack

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.drawing.figure import Figure, pictured
from hierlmm.drawing.finishing import DOTS, Entry
from hierlmm.drawing.panels import Panels, each
from hierlmm.drawing.style import evenly, join_with_gaps, percent, stack_points
from hierlmm.drawing.theme import Theme, blend, theme
from hierlmm.errors import DataError
from hierlmm.frames import quote, shorten
from hierlmm.options import checked, choose

SEE = "docs, page 'Implied marginal model'"
WRITTEN, MOST_CELLS, MOST_BANDS, MOST_NAMES = 10, 30, 3, 10
BLUE, RED = "#053061", "#67001f"
PALE_BLUE, PALE_RED = "#9ecae1", "#fcae91"
"""The ends of the scale on light paper, and on dark paper."""


@checked
@pictured
def plot_heatmap(
    implied: Mapping[str, Any],
    *,
    what: str = "correlation",
    numbers: bool | None = None,
    col_wrap: int | None = None,
    **figure: Unpack[Figure],
) -> Any:
    """Draw correlations or covariances as coloured cells, one panel for each fit.

    Blue is positive, red negative, on one scale for all panels: from -1 to 1 for correlations, and from 0 where none is
    negative.

    Parameters
    ----------
    implied : mapping
        Label -> `ImpliedMarginal`.
    what : {"correlation", "covariance"}
    numbers : bool, optional
        Write the numbers into the cells; by default up to 10 times.
    col_wrap : int, optional
        Panels in a row.

    Returns
    -------
    Picture
        One panel over ``fit``; at most 30 times are drawn.
    """
    choose("what", what, ("correlation", "covariance"))
    correlation = what == "correlation"
    first = next(iter(implied.values()))
    kept = evenly(len(first.x), MOST_CELLS)
    n = len(kept)
    matrices = {
        label: (one.correlation if correlation else one.V).to_numpy()[np.ix_(kept, kept)]
        for label, one in implied.items()
    }
    top = 1.0 if correlation else max(float(np.max(np.abs(m))) for m in matrices.values())
    side = min(max(2.6, 0.62 * n), 5.2)
    nothing = dict.fromkeys(implied, np.zeros((2, 1)))
    panels = Panels(nothing, "fit", each(1.6, side + 0.6, 0.9, side + 0.7), figure, col_wrap, name="implied")
    scale = _Scale(0.0 if min(float(m.min()) for m in matrices.values()) >= 0.0 else -top, top, panels.theme)
    places, labels = _named([_tick(v) for v in first.V.index[kept]])
    form = "" if not (n <= WRITTEN if numbers is None else numbers) else ".2f" if correlation else ".3g"
    for label, matrix in matrices.items():
        target = panels.target(label)
        _cells(panels, label, matrix, scale, form)
        panels.draw.xticks(places.tolist(), labels, target)
        panels.draw.yticks((n - 1 - places).tolist(), labels, target)
        panels.limit(label, (-0.5, n - 0.5), (-0.5, n - 0.5))
    if panels.backend == "matplotlib":
        _colour_bar(panels, scale, what if correlation else f"covariance ({first.response}²)")
    return panels.finish(
        {label: label if len(implied) > 1 else "" for label in implied},
        title=_title(f"{what} of {first._whose} {first.response}", implied),
        xlabel=first.time,
        ylabel=first.time,
    )


def _named(labels: list[str]) -> tuple[FloatArray, list[str]]:
    """Where labels stand, about ten of them: neighbours of one name have it once, in their middle."""
    starts = [k for k, label in enumerate(labels) if k == 0 or label != labels[k - 1]]
    middles = 0.5 * (np.array(starts) + np.append(starts[1:], len(labels)) - 1)
    step = -(-len(starts) // MOST_NAMES)
    return middles[::step], [labels[k] for k in starts[::step]]


@dataclass(frozen=True)
class _Scale:
    """From a number to a colour: paper is zero."""

    low: float
    top: float
    theme: Theme

    def colour(self, value: float) -> str:
        """Towards blue above zero, towards red below it."""
        blue, red = (PALE_BLUE, PALE_RED) if self.theme.dark else (BLUE, RED)
        weight = min(abs(value) / (self.top or 1.0), 1.0) ** 0.9
        return blend(self.theme.paper, blue if value >= 0 else red, weight)

    def ink(self, value: float) -> str:
        """Colour of a number on that colour."""
        return self.theme.paper if abs(value) > 0.55 * self.top else self.theme.ink


def _cells(panels: Panels, label: str, matrix: FloatArray, scale: _Scale, form: str) -> None:
    """Colour the cells of a matrix, and write the numbers into them in this form, if there is one."""
    n = len(matrix)
    # The letters of a number fit into its cell.
    letters = min(panels.theme.size, 5.2 * 72.0 / max(n, 1) / 2.4 / max(1, 0.16 * len(format(scale.top, form or "g"))))
    size = {"bokeh": f"{letters:.3g}pt", "plotly": DOTS * letters}.get(panels.backend, letters)
    for i, row in enumerate(matrix):
        y, colours = float(n - 1 - i), [scale.colour(value) for value in row]
        panels.row_of_cells(label, y, colours)
        for j, value in enumerate(row if form else ()):
            text = format(value, form)
            panels.draw.text(float(j), y, text, panels.target(label), color=scale.ink(value), size=size)


@checked
@pictured
def plot_correlation(
    implied: Mapping[str, Any],
    *,
    reference: Any = None,
    all_pairs: bool | None = None,
    bands: bool | None = None,
    empirical: bool = True,
    **figure: Unpack[Figure],
) -> Any:
    """Draw the correlation with a reference time against the lag, with bands.

    Parameters
    ----------
    implied : mapping
        Label -> `ImpliedMarginal`.
    reference : optional
        The time from which lags are measured; the first one by default.
    all_pairs : bool, optional
        Thin lines from every other time as well: they coincide with the thick one only where the correlation depends
        on the lag alone. By default for one fit.
    bands : bool, optional
        By default for up to three fits.
    empirical : bool
        Points for the correlations of residuals around the population line with those at the reference time, where
        the data have few common times (hollow: of the other pairs).

    Returns
    -------
    Picture
        Visuals ``line``, ``pairs`` and ``data``.

    Raises
    ------
    DataError
        If the reference is none of the times.
    """
    first = next(iter(implied.values()))
    start, times, x = _reference(first, reference), first.V.index, first.x
    many = len(implied) == 1 if all_pairs is None else all_pairs
    lag = x - x[start]
    origin = f"{first.time} = {_tick(times[start])}"
    what = f"correlation of one subject's {first.response} with that at {origin}"
    shapes = _Shapes(what, f"lag ({first.time} − {_tick(times[start])})", "correlation", zero=True)
    for label, one in implied.items():
        R = one.correlation.to_numpy()
        # At lag 0 the correlation is 1 by definition; a line from there would suggest values in between.
        shapes.lines[label] = np.vstack([lag, np.where(lag == 0.0, np.nan, R[start])])
        if _banded(implied, bands) and one.correlation_lower is not None and one.correlation_upper is not None:
            low, high = (side.to_numpy()[start] for side in (one.correlation_lower, one.correlation_upper))
            shapes.areas[label] = (lag, low, high)
        if many and not one.stationary:
            shapes.thin[label] = [np.vstack([x[k:] - x[k], R[k, k:]]) for k in range(len(x) - 1) if k != start]
    table = first.empirical_correlation
    if empirical and table is not None:
        early, late = (np.isclose(table.iloc[:, k], x[start]) for k in (0, 1))
        at = early | late
        found = np.vstack([table["lag"], table["correlation"]])
        shapes.points = found[:, at] * np.vstack([np.where(late, -1.0, 1.0), np.ones(len(late))])[:, at]
        shapes.hollow = found[:, ~at] if many else None
    return _draw(implied, shapes, figure)


def _reference(one: Any, reference: Any) -> int:
    """Position of the time from which lags are measured."""
    times = list(one.V.index)
    if len(times) < 2:
        raise DataError("one time", "a correlation needs two", "give more times", SEE)
    if reference is not None and reference not in times:
        reason = "it is none of the times at which V was evaluated"
        raise DataError(f"reference={quote(reference)}", reason, f"use one of {shorten(map(_tick, times))}", SEE)
    return 0 if reference is None else times.index(reference)


def _banded(implied: Mapping[str, Any], bands: bool | None) -> bool:
    return len(implied) <= MOST_BANDS if bands is None else bands


@checked
@pictured
def plot_variance(
    implied: Mapping[str, Any],
    *,
    sd: bool = False,
    bands: bool | None = None,
    empirical: bool = True,
    **figure: Unpack[Figure],
) -> Any:
    """Draw the variance against time, with bands.

    Parameters
    ----------
    implied : mapping
        Label -> `ImpliedMarginal`.
    sd : bool
        Standard deviations, in units of the response, in place of variances.
    bands : bool, optional
        By default for up to three fits.
    empirical : bool
        Points for the variances of the residuals around the population line (of the first fit).

    Returns
    -------
    Picture
        Visuals ``line`` and ``data``.
    """
    first = next(iter(implied.values()))

    def shape(values: Any) -> FloatArray:
        found = np.asarray(values, dtype=np.float64)
        return np.sqrt(found) if sd else found

    what = f"{'standard deviation' if sd else 'variance'} of one subject's {first.response}"
    shapes = _Shapes(what, first.time, f"SD ({first.response})" if sd else f"variance ({first.response}²)")
    for label, one in implied.items():
        shapes.lines[label] = np.vstack([one.x, shape(one.variance["variance"])])
        if _banded(implied, bands) and one.V_lower is not None:
            shapes.areas[label] = (one.x, shape(one.variance["lower"]), shape(one.variance["upper"]))
    if empirical and first.empirical is not None:
        shapes.points = np.vstack([first.empirical[first.time], shape(first.empirical["variance"])])
    return _draw(implied, shapes, figure)


@dataclass
class _Shapes:
    """Lines by fit, areas of their bands, thin lines beside them; points of the data, filled and hollow.

    ``zero`` for correlations, which are 1 at lag 0 and have no band there.
    """

    what: str
    xlabel: str
    ylabel: str
    zero: bool = False
    lines: dict[str, FloatArray] = field(default_factory=dict)
    areas: dict[str, tuple[FloatArray, FloatArray, FloatArray]] = field(default_factory=dict)
    thin: dict[str, list[FloatArray]] = field(default_factory=dict)
    points: FloatArray | None = None
    hollow: FloatArray | None = None


def _draw(implied: Mapping[str, Any], shapes: _Shapes, figure: Figure) -> Any:
    """Curves of all fits in one panel."""
    labels, ylabel, zero, own = list(implied), shapes.ylabel, shapes.zero, theme()
    colours = dict(zip(labels, own.colours_of([one.estimator for one in implied.values()]), strict=True))

    def by_fit(lines: Mapping[str, FloatArray]) -> Any:
        return stack_points({(ylabel, k): line for k, line in lines.items()}, ("quantity", "fit"), "implied")

    data = by_fit(shapes.lines)
    size = (7.6, 4.8 + 0.22 * len(labels))
    panels = Panels(data, "quantity", size, figure, color=("fit", list(colours.values())))
    if zero:
        panels.rule(ylabel, y=0.0)
    for label, (x, low, high) in shapes.areas.items():
        for side in (x < 0.0, x > 0.0) if zero else (np.ones(len(x), dtype=bool),):
            if side.sum() > 1:
                panels.band(ylabel, x[side], low[side], high[side], color=colours[label], alpha=0.18)
    hollow = {"facecolor": own.paper, "edgecolor": own.data}
    if zero:
        panels.scatter(ylabel, [0.0], [1.0], size=36, **hollow)
    if shapes.thin:
        thin = by_fit({label: join_with_gaps(shapes.thin.get(label, [])) for label in labels})
        panels.map("line_xy", "pairs", thin, width=0.9, alpha=0.55)
    panels.map("line_xy", "line", data, width=2.6)
    marked = len(labels) == 1 or any(v.shape[1] <= 12 for v in shapes.lines.values())
    if marked:
        panels.map("scatter_xy", "mark", data, size=26)
    for part, dot, look in ((shapes.points, 42, {"color": own.data}), (shapes.hollow, 26, hollow)):
        if part is not None and part.shape[1]:
            panels.scatter(ylabel, *part, size=dot, **look)
    first = next(iter(implied.values()))
    if not zero and not np.issubdtype(np.asarray(first.V.index).dtype, np.number):
        panels.draw.xticks(first.x.tolist(), [_tick(v) for v in first.V.index], panels.target(ylabel))
    said = [f"bands: {percent(first.ci)}"] if shapes.areas else []
    said += ["points: residuals around the population line"] if shapes.points is not None else []
    said += ["1 at lag 0 by definition"] if zero else []
    return panels.finish(
        {ylabel: ""},
        title=_title(shapes.what, implied),
        caption="; ".join(said),
        xlabel=shapes.xlabel,
        ylabel=ylabel,
        legend=_entries(shapes, colours, own, "circle" if marked else ""),
    )


def _entries(shapes: _Shapes, colours: Mapping[str, str], own: Theme, marker: str) -> Sequence[Entry]:
    """What is drawn, where there is more than one kind of it."""
    marks = [Entry(label, colour, marker=marker, width=2.6, size=26) for label, colour in colours.items()]
    colour = next(iter(colours.values()))
    marks += [Entry("from the other times", colour, width=0.9, alpha=0.55)] if shapes.thin else []
    if shapes.points is not None and shapes.points.shape[1]:
        marks.append(Entry("data", own.data, line="", marker="circle", size=42))
    if shapes.hollow is not None and shapes.hollow.shape[1]:
        marks.append(Entry("data, other pairs", own.data, line="", marker="circle", hollow=True, size=26))
    return marks if len(marks) > 1 else ()


def _title(what: str, implied: Mapping[str, Any]) -> str:
    one = next(iter(implied.values()))
    who = f", implied by {one.label} ({one.estimator})" if len(implied) == 1 else ", as each fit implies it"
    return f"{what[:1].upper()}{what[1:]}{who}{one._where}"


def _tick(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, (float, np.floating)) else str(value)


def _colour_bar(panels: Panels, scale: _Scale, label: str) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    ax = panels.figure.get("ax")
    figure = panels.collection.get_viz("figure")
    colours = ListedColormap([scale.colour(v) for v in np.linspace(scale.low, scale.top, 201)])
    place = figure.axes if ax is None else ax
    figure.colorbar(ScalarMappable(Normalize(scale.low, scale.top), colours), ax=place, label=label, shrink=0.8)
