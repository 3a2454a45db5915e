"""Sliders of a plotly figure: one for each variable, whose positions combine.

A trace belongs to one combination of values. The first slider sets which traces are visible, the second which are
opaque: two independent properties, so that a trace is seen where both agree, without a line of script. A third variable
and more share the second slider, which then steps through their combinations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hierlmm.text import show

__all__ = ["add_controls"]

SLIDER = 75
"""Height of a slider, in pixels."""
NOTHING = "rgba(0, 0, 0, 0)"


def add_controls(
    figure: Any, names: Sequence[str], selections: Sequence[tuple[Any, ...]], traces: Sequence[range]
) -> None:
    """Add the sliders, each in its middle position.

    Parameters
    ----------
    figure : plotly.graph_objects.Figure
    names : sequence of str
        Variables that can be selected.
    selections : sequence of tuple
        Combinations of their values.
    traces : sequence of range
        Positions in ``figure.data`` of the traces of each combination.
    """
    groups = [names[:1], names[1:]] if len(names) > 1 else [names]
    own = [[selection[:1], selection[1:]][: len(groups)] for selection in selections]
    positions = [list(dict.fromkeys(key[k] for key in own)) for k in range(len(groups))]
    start = [len(values) // 2 for values in positions]
    drawn = [i for part in traces for i in part]
    opacity = {i: 1.0 if figure.data[i].opacity is None else figure.data[i].opacity for i in drawn}
    fill = {i: figure.data[i].fillcolor or NOTHING for i in drawn}
    hover = {i: "all" if figure.data[i].line.width else "skip" for i in drawn}
    key_of = {i: key for key, part in zip(own, traces, strict=True) for i in part}
    sliders: list[dict[str, Any]] = []
    for k, (group, values) in enumerate(zip(groups, positions, strict=True)):
        steps: list[dict[str, Any]] = []
        for value in values:
            there = [key_of[i][k] == value for i in drawn]
            change: dict[str, list[Any]] = {"visible": there}
            if k == 1:
                change = {
                    "opacity": [opacity[i] if t else 0.0 for i, t in zip(drawn, there, strict=True)],
                    # The opacity of a trace is not that of its fill.
                    "fillcolor": [fill[i] if t else NOTHING for i, t in zip(drawn, there, strict=True)],
                    "hoverinfo": [hover[i] if t else "skip" for i, t in zip(drawn, there, strict=True)],
                }
            steps.append({"method": "restyle", "label": ", ".join(map(show, value)), "args": [change, drawn]})
        sliders.append(
            {
                "active": start[k],
                "currentvalue": {"prefix": f"{', '.join(group)} = ", "xanchor": "left"},
                "steps": steps,
                "len": 0.9,
                "x": 0.05,
                "y": 0.0,
                "pad": {"t": 55 + SLIDER * k},
            }
        )
    for position, i in enumerate(drawn):
        for k in range(len(groups)):
            for name, settings in sliders[k]["steps"][start[k]]["args"][0].items():
                figure.data[i][name] = settings[position]
    bottom = 60 + SLIDER * len(groups)
    height = (figure.layout.height or 450) + SLIDER * len(groups)
    # A click on the legend would undo what the sliders have hidden.
    figure.update_layout(
        sliders=sliders,
        height=height,
        template="plotly_white",
        margin={"b": bottom},
        legend={"itemclick": False, "itemdoubleclick": False},
    )
