"""The distribution of the subjects' coefficients: its density, the share above a value, its range, a new subject's."""

from __future__ import annotations

from typing import Any, Unpack

import numpy as np
from scipy.stats import norm

from hierlmm.arrays import FloatArray
from hierlmm.drawing.figure import Figure, pictured
from hierlmm.drawing.letters import break_text
from hierlmm.drawing.panels import Panels, each
from hierlmm.drawing.style import percent, segments
from hierlmm.drawing.theme import theme
from hierlmm.text import percentage

HEIGHT = 0.45
"""Of a density, in rows."""
RANGE, ENDS, NEW = -0.08, -0.15, -0.23
"""Height of the range, of the intervals of its ends, and of the interval of a new subject, below the row."""
NAMED = 28
"""Letters in a line of a group's name."""


@pictured
def plot_heterogeneity(found: Any, *, col_wrap: int | None = None, **figure: Unpack[Figure]) -> Any:
    """Draw how much subjects differ: a panel for each coefficient, a row for each group of subjects.

    The curve is the distribution of the subjects' coefficients at the estimates, its dark part the share above the
    value asked for, which is written over it. Thick line: the range that holds the share ``coverage`` of the subjects;
    below it, in the second colour, the interval of each of its ends; below these, thin: the predictive interval of one
    new subject, which is wider because mean and SD are not known.

    Parameters
    ----------
    found : Heterogeneity
    col_wrap : int, optional
        Panels in a row.

    Returns
    -------
    Picture
        Visuals ``density``, ``above``, ``range``, ``ends``, ``new`` and ``mean`` over ``term``.
    """
    table = found.table
    terms = list(dict.fromkeys(table["term"]))
    rows = {term: table[table["term"] == term].reset_index(drop=True) for term in terms}
    longest = max(len(part) for part in rows.values())
    groups = {t: [break_text(str(group), NAMED, len) for group in part["group"]] for t, part in rows.items()}
    letters = max(len(line) for own in groups.values() for text in own for line in text.split("\n"))
    first = {term: np.zeros((2, 1)) for term in terms}
    size = each(0.8, 3.6 + 0.09 * letters, 1.1, 0.4 + 1.2 * longest, text=True)
    panels = Panels(first, "term", size, figure, col_wrap, name="heterogeneity")
    blue, ink = theme().palette[0], theme().ink
    at = {term: np.arange(len(part), 0, -1, dtype=np.float64) for term, part in rows.items()}
    for term, part in rows.items():
        panels.rule(term, x=found.above, linestyle=panels.dashes)
        for y, (_, row) in zip(at[term], part.iterrows(), strict=True):
            _area(panels, term, row, float(y), found.above, blue)
    densities = {term: _outlines(rows[term], at[term]) for term in terms}
    panels.map("line_xy", "density", densities, color=blue, width=1.3)
    spans = {"range": ("low", "high", RANGE, 3.2), "new": ("new_low", "new_high", NEW, 1.1)}
    for visual, (low, high, below, width) in spans.items():
        lines = {t: segments(rows[t][low].to_numpy(), rows[t][high].to_numpy(), at[t] + below) for t in terms}
        panels.map("line_xy", visual, lines, color=ink, width=width)
    ends = {
        term: np.hstack(
            [
                segments(rows[term][f"{end}_lower"].to_numpy(), rows[term][f"{end}_upper"].to_numpy(), at[term] + ENDS)
                for end in ("low", "high")
            ]
        )
        for term in terms
    }
    panels.map("line_xy", "ends", ends, color=theme().palette[1], width=1.3)
    means = {term: np.vstack([rows[term]["mean"].to_numpy(), at[term] + RANGE]) for term in terms}
    panels.map("scatter_xy", "mean", means, color=ink, size=26)
    for term, part in rows.items():
        panels.name_rows(term, at[term], groups[term], most=len(part))
        panels.limit(term, y=(0.6, len(part) + 0.95))
        first_x, last_x = _span(part, found.above)
        room = 0.04 * (last_x - first_x)
        panels.limit(term, x=(first_x - room, last_x + room))
        for y, (_, row) in zip(at[term], part.iterrows(), strict=True):
            _say_share(panels, term, row, (0.5 * (first_x + last_x), float(y)), found.above)
    shared, one = percent(found.coverage), "group" if found.factor else "subject"
    who = f"groups of {found.factor}" if found.factor else "subjects"
    return panels.finish(
        {term: term for term in terms},
        title=f"How much {who} differ ({found.estimator})",
        caption=f"Thick: range of {shared} of the {one}s; below it: {percent(found.ci)} intervals of its ends; "
        f"thin: {shared} interval of a new {one}; dashed: {found.above:g}.",
        xlabel=f"coefficient of a {one}{found.scale}",
    )


def _span(rows: Any, above: float) -> tuple[float, float]:
    """Smallest and largest of what is drawn in a panel."""
    columns = [c for c in rows.columns if c.startswith(("mean", "low", "high", "new_"))]
    values = np.concatenate([rows[columns].to_numpy(dtype=np.float64).ravel(), [above]])
    curves = np.concatenate([_curve(row)[0] for _, row in rows.iterrows()])
    low, high = np.nanmin(values), np.nanmax(values)
    return float(min(low, curves.min())), float(max(high, curves.max()))


def _say_share(panels: Panels, term: str, row: Any, place: tuple[float, float], above: float) -> None:
    """The share above a value and its interval, over the curve."""
    low, high = (_percent(row[name]) for name in ("share_lower", "share_upper"))
    text = f"{_percent(row['share'])} % above {above:g}"
    if low != high and not np.isnan(row["share_lower"]):
        text += f" ({low} to {high})"
    look: dict[str, Any] = {"color": theme().ink, "vertical_align": "bottom", "horizontal_align": "center"}
    panels.draw.text(place[0], place[1] + HEIGHT + 0.05, text, panels.target(term), **look)


def _percent(share: float) -> str:
    """A share in hundredths; near none and all a bound."""
    return percentage(share).removesuffix(" %").replace("more than ", ">").replace("less than ", "<")


def _curve(row: Any, n: int = 161) -> tuple[FloatArray, FloatArray]:
    """The density over four SDs on either side, 1 at the top; a spike without variation."""
    mean, sd = float(row["mean"]), float(row["sd"])
    if not sd > 0.0:
        return np.array([mean, mean]), np.array([0.0, 1.0])
    x = np.linspace(mean - 3.5 * sd, mean + 3.5 * sd, n)
    return x, np.asarray(norm.pdf((x - mean) / sd) / norm.pdf(0.0))


def _area(panels: Panels, term: str, row: Any, y: float, above: float, colour: str) -> None:
    x, height = _curve(row)
    if len(x) == 2:
        return
    low = np.full(len(x), y)
    panels.band(term, x, low, y + HEIGHT * height, alpha=0.18, color=colour)
    if x[-1] > above:
        part = np.r_[max(above, x[0]), x[x > above]]
        top = HEIGHT * np.interp(part, x, height)
        panels.band(term, part, np.full(len(part), y), y + top, alpha=0.4, color=colour)


def _outlines(rows: Any, at: FloatArray) -> FloatArray:
    """Densities of all rows as one line with gaps."""
    parts = []
    for y, (_, row) in zip(at, rows.iterrows(), strict=True):
        x, height = _curve(row)
        parts += [np.vstack([x, y + HEIGHT * height]), np.full((2, 1), np.nan)]
    return np.hstack(parts)
