"""Forest plot: every parameter has a panel and a scale of its own, the estimators are its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hierlmm.drawing.style import (
    PALETTE,
    backend_module,
    canvas,
    finish,
    grid_shape,
    percent,
    resolve_backend,
    wrap_title,
)
from hierlmm.errors import SpecificationError, closest
from hierlmm.fits.base import Fit
from hierlmm.fits.components import COMMON_SD
from hierlmm.fits.side_by_side import SideBySide, estimates, same_question
from hierlmm.options import checked, renamed
from hierlmm.plots.fits import pick_side_by_side, zero_terms

__all__ = ["choose_parameters", "plot_forest", "table_dataset"]


@renamed(inner="inner_ci")
@checked
def plot_forest(
    fits: Fit | SideBySide | Mapping[str, Fit] | Sequence[Fit],
    *,
    labels: Sequence[str] | None = None,
    parameters: str | Sequence[str] | None = None,
    ci: float | None = None,
    inner_ci: float | None = 0.5,
    col_wrap: int | None = None,
    backend: str | None = None,
    figure_kwargs: Mapping[str, Any] | None = None,
) -> Any:
    """Draw estimates and intervals of all parameters, one panel each, estimators as rows.

    Each panel has its own scale, so that an intercept of 250 does not squash a slope of 10. The numbers are those of
    ``summary()`` and ``variance_components()``, and so of the table of a `Comparison`: posterior means with
    equal-tailed intervals, and likelihood estimates with Wald intervals. Where an interval does not exist (a variance
    at its boundary) only the point is drawn.

    Parameters
    ----------
    fits : Fit, Comparison, mapping or sequence of Fit
        What to draw.
    labels : sequence of str, optional
        Names of the fits.
    parameters : str or sequence of str, optional
        Names of parameters, or of their kinds ("fixed", "sd", "corr", "sigma", "residual"); all by default.
    ci : float, optional
        Probability of the thin interval; the comparison's, or 0.95.
    inner_ci : float or None
        Probability of the thick interval; None leaves it out.
    col_wrap : int, optional
        Panels in a row; 3 or 4 by default.
    backend : {"matplotlib", "bokeh", "plotly", "none"}, optional
        ArviZ's default otherwise.
    figure_kwargs : mapping, optional
        Passed to ArviZ: ``{"figsize": (9, 4)}`` in inches.

    Returns
    -------
    arviz_plots.PlotCollection
        Visuals ``interval``, ``inner_interval`` and ``point_estimate`` over ``parameter`` × ``estimator``.

    Examples
    --------
    >>> import hierlmm as hl
    >>> model = hl.TwoLevelModel.from_formula("reaction ~ days + (1 + days | subject)", hl.load_dataset("sleepstudy"))
    >>> collection = hl.compare(model.fit_reml(), model.fit_ml()).plot_forest()
    >>> collection.savefig("forest.png")  # doctest: +SKIP
    """
    from arviz_plots import visuals

    name = resolve_backend(backend)
    named, reference, outer = pick_side_by_side(fits, labels, ci)
    same_question(named, reference)
    names = list(named)
    table = estimates(named, outer, reference)
    for label, fit in named.items():
        without = zero_terms(fit)
        parameters_at_zero = [f"sd({term})" for term in without]
        if len(without) == len(getattr(fit.design, "term", ())):
            parameters_at_zero.append(COMMON_SD)
        zero = table["parameter"].isin(parameters_at_zero)
        table.loc[zero & (table["estimator"] == label), "estimate"] = 0.0
    chosen = choose_parameters(table, parameters)
    point = table_dataset(table, chosen, names, ["estimate"])
    interval = table_dataset(table, chosen, names, ["lower", "upper"])
    n = len(names)
    rows, columns = grid_shape(len(chosen), col_wrap)
    collection = canvas(
        point,
        "parameter",
        backend=name,
        size=(max(4.2, 0.7 + 2.5 * columns), 0.8 + rows * (0.75 + 0.27 * n)),
        col_wrap=columns,
        figure_kwargs=figure_kwargs,
        aes={"color": ["estimator"], "y": ["estimator"]},
        color=list(np.resize(PALETTE, n)),
        y=list(range(n, 0, -1)),
    )
    collection.map(visuals.line_x, "interval", data=interval, width=1.4)
    if inner_ci is not None:
        thick = estimates(named, inner_ci, reference)
        data = table_dataset(thick, chosen, names, ["lower", "upper"])
        collection.map(visuals.line_x, "inner_interval", data=data, width=4)
    collection.map(visuals.scatter_x, "point_estimate", data=point, size=38, edgecolor="white")
    _estimator_rows(collection, chosen, names)
    thick_text = "" if inner_ci is None else f"{percent(inner_ci)} and "
    response = named[reference].design.hierarchy.response
    return finish(
        collection,
        "parameter",
        {p: wrap_title(p) for p in chosen},
        title=f"{response}: estimates with {thick_text}{percent(outer)} intervals",
        legend="estimator" if n > 1 else None,
    )


def table_dataset(table: Any, parameters: list[str], labels: list[str], columns: list[str]) -> Any:
    """Columns of the table as a Dataset ``parameter`` × ``estimator`` (× ``ci_bound``)."""
    import xarray as xr

    keyed = table.set_index(["parameter", "estimator"])[columns]
    values = np.stack([keyed[c].unstack("estimator").reindex(index=parameters, columns=labels) for c in columns], -1)
    coords: dict[str, Any] = {"parameter": parameters, "estimator": labels}
    if len(columns) == 1:
        return xr.Dataset({"estimate": (("parameter", "estimator"), values[..., 0])}, coords=coords)
    coords["ci_bound"] = columns
    return xr.Dataset({"estimate": (("parameter", "estimator", "ci_bound"), values)}, coords=coords)


def _estimator_rows(collection: Any, parameters: list[str], labels: list[str]) -> None:
    draw, n = backend_module(collection.backend), len(labels)
    for parameter in parameters:
        cell = collection.viz.dataset.sel(parameter=parameter)
        target, first = cell["plot"].item(), int(cell["col_index"]) == 0
        draw.yticks(list(range(n, 0, -1)), labels if first else [""] * n, target)
        draw.ylim((0.4, n + 0.6), target)


def choose_parameters(table: Any, wanted: str | Sequence[str] | None) -> list[str]:
    """Return names of parameters, in the order of the table, from names and kinds."""
    known = list(table["parameter"].unique())
    if wanted is None:
        return known
    kinds = dict(zip(table["parameter"], table["kind"], strict=True))
    asked = [wanted] if isinstance(wanted, str) else list(wanted)
    for item in asked:
        if item not in known and item not in kinds.values():
            raise SpecificationError(
                f"parameters={item!r}",
                f"no parameter or kind of parameter has this name.{closest(item, known)}",
                f"use names ({', '.join(known)}) or kinds ({', '.join(dict.fromkeys(kinds.values()))})",
            )
    return [p for p in known if p in asked or kinds[p] in asked]
