"""The implied marginal covariance as a heat map, as correlation against lag, and as variance against time."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hierlmm.drawing.style import (
    PALETTE,
    backend_module,
    canvas,
    finish,
    grid_shape,
    join_with_gaps,
    percent,
    resolve_backend,
)
from hierlmm.errors import DataError
from hierlmm.frames import quote, shorten
from hierlmm.options import checked, choose

__all__ = ["plot_correlation", "plot_heatmap", "plot_variance"]

FloatArray = NDArray[np.float64]
SEE = "docs, page 'Implied marginal model'"
WRITTEN, MOST_CELLS, MOST_BANDS = 10, 30, 3
BLUE, WHITE, RED = (0x05, 0x30, 0x61), (0xF7, 0xF7, 0xF7), (0x67, 0x00, 0x1F)


@checked
def plot_heatmap(
    implied: Mapping[str, Any],
    *,
    what: str = "correlation",
    numbers: bool | None = None,
    col_wrap: int | None = None,
    backend: str | None = None,
    figure_kwargs: Mapping[str, Any] | None = None,
) -> Any:
    """Draw correlations or covariances as coloured cells, one panel for each fit.

    Blue is positive, red negative, on one scale for all panels (correlations: from -1 to 1).

    Parameters
    ----------
    implied : mapping
        Label -> `ImpliedMarginal`.
    what : {"correlation", "covariance"}
    numbers : bool, optional
        Write the numbers into the cells; by default up to 10 times.
    col_wrap : int, optional
        Panels in a row.
    backend : {"matplotlib", "bokeh", "plotly", "none"}, optional
        ArviZ's default otherwise.
    figure_kwargs : mapping, optional
        Passed to ArviZ: ``{"figsize": (9, 4)}`` in inches.

    Returns
    -------
    arviz_plots.PlotCollection
        One panel over ``fit``; at most 30 times are drawn.
    """
    import xarray as xr

    choose("what", what, ("correlation", "covariance"))
    name = resolve_backend(backend)
    first = next(iter(implied.values()))
    kept = np.unique(np.linspace(0, len(first.x) - 1, min(len(first.x), MOST_CELLS)).round().astype(int))
    n = len(kept)
    matrices = {
        label: (one.correlation if what == "correlation" else one.V).to_numpy()[np.ix_(kept, kept)]
        for label, one in implied.items()
    }
    top = 1.0 if what == "correlation" else max(float(np.max(np.abs(m))) for m in matrices.values())
    write = n <= WRITTEN if numbers is None else numbers
    rows, columns = grid_shape(len(implied), col_wrap)
    side = min(max(2.6, 0.62 * n), 5.2)
    data = xr.Dataset({"implied": (("fit",), np.zeros(len(implied)))}, coords={"fit": list(implied)})
    collection = canvas(
        data,
        "fit",
        backend=name,
        size=(1.6 + (side + 0.6) * columns, 0.9 + (side + 0.7) * rows),
        col_wrap=columns,
        figure_kwargs=figure_kwargs,
    )
    draw = backend_module(name)
    labels = [_tick(v) for v in first.V.index[kept]]
    shown = np.arange(0, n, -(-n // 10))
    for label, matrix in matrices.items():
        target = collection.get_target("implied", {"fit": label})
        for i in range(n):
            y = float(n - 1 - i)
            for j in range(n):
                colour = _colour(matrix[i, j] / top)
                edges = np.array([j - 0.5, j + 0.5])
                draw.fill_between_y(edges, np.full(2, y - 0.5), np.full(2, y + 0.5), target, color=colour, alpha=1.0)
                if write:
                    ink = "#ffffff" if abs(matrix[i, j]) > 0.55 * top else "#202020"
                    text = f"{matrix[i, j]:.2f}" if what == "correlation" else f"{matrix[i, j]:.3g}"
                    draw.text(float(j), y, text, target, color=ink)
        draw.xticks(shown.tolist(), [labels[k] for k in shown], target)
        draw.yticks((n - 1 - shown).tolist(), [labels[k] for k in shown], target)
        draw.xlim((-0.5, n - 0.5), target)
        draw.ylim((-0.5, n - 0.5), target)
    if name == "matplotlib":
        _colour_bar(collection, top, what if what == "correlation" else f"covariance ({first.response}²)")
    return finish(
        collection,
        "fit",
        {label: textwrap.fill(label, 34) if len(implied) > 1 else "" for label in implied},
        title=_title(f"{what} of one subject's {first.response}", implied),
        xlabel=first.time,
        ylabel=first.time,
    )


@checked
def plot_correlation(
    implied: Mapping[str, Any],
    *,
    reference: Any = None,
    all_pairs: bool | None = None,
    bands: bool | None = None,
    empirical: bool = True,
    backend: str | None = None,
    figure_kwargs: Mapping[str, Any] | None = None,
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
    backend, figure_kwargs
        As for `plot_heatmap`.

    Returns
    -------
    arviz_plots.PlotCollection
        Visuals ``line``, ``pairs`` and ``data``.

    Raises
    ------
    DataError
        If the reference is none of the times.
    """
    first = next(iter(implied.values()))
    bands = len(implied) <= MOST_BANDS if bands is None else bands
    times = list(first.V.index)
    if len(times) < 2:
        raise DataError("one time", "a correlation needs two", "give more times", SEE)
    if reference is not None and reference not in times:
        raise DataError(
            f"reference={quote(reference)}",
            "it is none of the times at which V was evaluated",
            f"use one of {shorten(map(_tick, times))}",
            SEE,
        )
    start = 0 if reference is None else times.index(reference)
    x = first.x
    curves, areas, thin = {}, {}, {}
    many = len(implied) == 1 if all_pairs is None else all_pairs
    lag = x - x[start]
    for label, one in implied.items():
        R = one.correlation.to_numpy()
        # At lag 0 the correlation is 1 by definition; a line from there would suggest values in between.
        curves[label] = np.vstack([lag, np.where(lag == 0.0, np.nan, R[start])])
        if bands and one.correlation_lower is not None and one.correlation_upper is not None:
            low, high = one.correlation_lower.to_numpy()[start], one.correlation_upper.to_numpy()[start]
            areas[label] = (lag, low, high)
        if many and not one.stationary:
            thin[label] = [np.vstack([x[k:] - x[k], R[k, k:]]) for k in range(len(x) - 1) if k != start]
    points = []
    table = first.empirical_correlation
    if empirical and table is not None:
        at = np.isclose(table.iloc[:, 0], x[start]) | np.isclose(table.iloc[:, 1], x[start])
        sign = np.where(np.isclose(table.iloc[:, 1], x[start]), -1.0, 1.0)
        all_lags = np.vstack([table["lag"] * sign, table["correlation"]])
        points = [
            (all_lags[:, at], True),
            (np.vstack([table["lag"], table["correlation"]])[:, ~at] if many else None, False),
        ]
    origin = f"{first.time} = {_tick(times[start])}"
    shown = " (thin: from the other times)" if thin else ""
    return _curves(
        implied,
        curves,
        areas,
        thin,
        points,
        title=_title(f"correlation of one subject's {first.response} with that at {origin}{shown}", implied),
        xlabel=f"lag ({first.time} − {_tick(times[start])})",
        ylabel="correlation",
        zero=True,
        backend=backend,
        figure_kwargs=figure_kwargs,
    )


@checked
def plot_variance(
    implied: Mapping[str, Any],
    *,
    sd: bool = False,
    bands: bool | None = None,
    empirical: bool = True,
    backend: str | None = None,
    figure_kwargs: Mapping[str, Any] | None = None,
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
    backend, figure_kwargs
        As for `plot_heatmap`.

    Returns
    -------
    arviz_plots.PlotCollection
        Visuals ``line`` and ``data``.
    """
    first = next(iter(implied.values()))
    bands = len(implied) <= MOST_BANDS if bands is None else bands

    def shape(values: Any) -> FloatArray:
        found = np.asarray(values, dtype=np.float64)
        return np.sqrt(found) if sd else found

    curves = {label: np.vstack([one.x, shape(one.variance["variance"])]) for label, one in implied.items()}
    areas = {
        label: (one.x, shape(one.variance["lower"]), shape(one.variance["upper"]))
        for label, one in implied.items()
        if bands and one.V_lower is not None
    }
    points = []
    if empirical and first.empirical is not None:
        points = [(np.vstack([first.empirical[first.time], shape(first.empirical["variance"])]), True)]
    what = "standard deviation" if sd else "variance"
    return _curves(
        implied,
        curves,
        areas,
        {},
        points,
        title=_title(f"{what} of one subject's {first.response}", implied),
        xlabel=first.time,
        ylabel=f"SD ({first.response})" if sd else f"variance ({first.response}²)",
        zero=False,
        backend=backend,
        figure_kwargs=figure_kwargs,
    )


def _curves(
    implied: Mapping[str, Any],
    curves: dict[str, FloatArray],
    areas: dict[str, tuple[FloatArray, FloatArray, FloatArray]],
    thin: dict[str, list[FloatArray]],
    points: Sequence[tuple[FloatArray | None, bool]],
    *,
    title: str,
    xlabel: str,
    ylabel: str,
    zero: bool,
    backend: str | None,
    figure_kwargs: Mapping[str, Any] | None,
) -> Any:
    from arviz_plots import visuals

    name = resolve_backend(backend)
    labels = list(implied)
    colours = dict(zip(labels, np.resize(PALETTE, len(labels)).tolist(), strict=True))
    data = _by_fit(curves, ylabel)
    # Long labels: as many columns of the legend as fit into the width.
    columns = max(1, min(len(labels), int(98 / (8 + max(map(len, labels))))))
    collection = canvas(
        data,
        "quantity",
        backend=name,
        size=(7.6, 4.6 + 0.22 * -(-len(labels) // columns)),
        col_wrap=1,
        figure_kwargs=figure_kwargs,
        aes={"color": ["fit"]},
        color=list(colours.values()),
    )
    draw = backend_module(name)
    target = collection.get_target("implied", {"quantity": ylabel})
    if zero:
        draw.hline(0.0, target, color="#8c8c8c", width=1.0)
    for label, (x, low, high) in areas.items():
        for side in (x < 0.0, x > 0.0) if zero else (np.ones(len(x), dtype=bool),):
            if side.sum() > 1:
                draw.fill_between_y(x[side], low[side], high[side], target, color=colours[label], alpha=0.18)
    if zero:
        draw.scatter(np.zeros(1), np.ones(1), target, size=36, facecolor="#ffffff", edgecolor="#202020")
    if thin:
        lines = {label: join_with_gaps(thin.get(label, [])) for label in labels}
        collection.map(visuals.line_xy, "pairs", data=_by_fit(lines, ylabel), width=0.9, alpha=0.55)
    collection.map(visuals.line_xy, "line", data=data, width=2.6)
    if len(labels) == 1 or any(v.shape[1] <= 12 for v in curves.values()):
        collection.map(visuals.scatter_xy, "mark", data=data, size=26)
    for part, filled in points:
        if part is not None and part.shape[1]:
            draw.scatter(
                part[0],
                part[1],
                target,
                size=42 if filled else 26,
                color="#202020",
                facecolor="#202020" if filled else "#ffffff",
                edgecolor="#202020",
            )
    first = next(iter(implied.values()))
    occasions = not np.issubdtype(np.asarray(first.V.index).dtype, np.number)
    if occasions and not zero:
        draw.xticks(first.x.tolist(), [_tick(v) for v in first.V.index], target)
    said = [
        f"bands: {percent(first.ci)}" if areas else "",
        "points: residuals around the population line" if points else "",
    ]
    finish(
        collection,
        "quantity",
        {ylabel: "; ".join(s for s in said if s)},
        title=title,
        xlabel=xlabel,
        ylabel=ylabel,
    )
    if len(labels) > 1:
        place = {"loc": "outside lower center", "ncols": columns, "frameon": False} if name == "matplotlib" else {}
        collection.add_legend("fit", title="", **place)
    return collection


def _by_fit(lines: Mapping[str, FloatArray], quantity: str) -> Any:
    """Lines (2, n) by fit as a Dataset ``quantity`` × ``fit`` × ``plot_axis`` × ``point``."""
    import xarray as xr

    width = max(line.shape[1] for line in lines.values())
    stacked = np.full((1, len(lines), 2, width), np.nan)
    for k, line in enumerate(lines.values()):
        stacked[0, k, :, : line.shape[1]] = line
    coords = {"quantity": [quantity], "fit": list(lines), "plot_axis": ["x", "y"]}
    return xr.Dataset({"implied": (("quantity", "fit", "plot_axis", "point"), stacked)}, coords=coords)


def _title(what: str, implied: Mapping[str, Any]) -> str:
    one = next(iter(implied.values()))
    where = "".join(f", {k} = {_tick(v)}" for k, v in one.at.items() if not isinstance(v, list))
    who = f", implied by {one.label} ({one.estimator})" if len(implied) == 1 else ", as each fit implies it"
    return f"{what[:1].upper()}{what[1:]}{who}{where}"


def _tick(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, (float, np.floating)) else str(value)


def _colour(share: float) -> str:
    """Blue for 1, white for 0, red for -1."""
    end = BLUE if share >= 0 else RED
    weight = min(abs(share), 1.0) ** 0.9
    return "#" + "".join(f"{round(w + (e - w) * weight):02x}" for w, e in zip(WHITE, end, strict=True))


def _colour_bar(collection: Any, top: float, label: str) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    figure = collection.get_viz("figure")
    colours = ListedColormap([_colour(v) for v in np.linspace(-1.0, 1.0, 201)])
    figure.colorbar(ScalarMappable(Normalize(-top, top), colours), ax=figure.axes, label=label, shrink=0.8)
