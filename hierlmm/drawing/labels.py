"""Names of lines at their right ends, in their colours, in place of a legend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hierlmm.arrays import FloatArray

MOST = 8


def label_ends(panels: Any, panel: Any, ends: Mapping[str, float], colours: Mapping[str, str]) -> bool:
    """Name lines to the right of a panel, moved up and down where they would overlap.

    Parameters
    ----------
    panels : Panels
        Of matplotlib; other backends have legends.
    panel
        One of its panels.
    ends : mapping of str to float
        Name -> height of its line at the right end.
    colours : mapping of str to str

    Returns
    -------
    bool
        Whether the names were written: not in other backends, nor for many lines.
    """
    if panels.backend != "matplotlib" or not 0 < len(ends) <= MOST:
        return False
    ax = panels.target(panel)
    figure = ax.get_figure(root=True)
    low, high = ax.get_ylim()
    points = 0.68 * figure.get_size_inches()[1] * 72.0 / ax.get_subplotspec().get_gridspec().nrows
    heights = spread(np.array(list(ends.values())), 1.25 * panels.theme.size * (high - low) / points, low, high)
    look: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "va": "center"}
    for name, y in zip(ends, heights, strict=True):
        ax.annotate(name, (1.0, y), xytext=(0.4 * panels.theme.size, 0), color=colours[name], **look)
    return True


def spread(at: FloatArray, gap: float, low: float, high: float) -> FloatArray:
    """Positions nearest to those asked for that are this far apart, within limits where there is room.

    Parameters
    ----------
    at : (n,)
    gap, low, high : float

    Returns
    -------
    (n,)
    """
    order = np.argsort(at, kind="stable")
    # Groups of neighbours that touch are centred on the mean of what they were asked for.
    groups: list[list[float]] = []
    for value in at[order]:
        groups.append([float(value), 1.0])
        while len(groups) > 1 and groups[-1][0] - groups[-2][0] < 0.5 * gap * (groups[-1][1] + groups[-2][1]):
            (b, m), (a, n) = groups.pop(), groups.pop()
            groups.append([(a * n + b * m) / (n + m), n + m])
    placed = np.concatenate([c + gap * (np.arange(n) - 0.5 * (n - 1)) for c, n in groups])
    placed += max(0.0, low - placed[0]) if placed[0] < low else min(0.0, high - placed[-1])
    found = np.empty_like(at)
    found[order] = placed
    return found
