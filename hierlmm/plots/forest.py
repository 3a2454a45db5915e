"""Forest plot: every parameter has a panel and a scale of its own, the estimators are its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import numpy as np

from hierlmm.design.formula import INTERCEPT
from hierlmm.design.telling import scale_text
from hierlmm.drawing.figure import Figure, pictured
from hierlmm.drawing.panels import Panels, each
from hierlmm.drawing.style import percent
from hierlmm.errors import SpecificationError, closest
from hierlmm.fits.base import Fit
from hierlmm.fits.components import sd_label, zero_terms
from hierlmm.fits.side_by_side import SideBySide, same_question
from hierlmm.implied.meanings import MARKED, stacked
from hierlmm.options import checked, renamed
from hierlmm.plots.fits import colours_of, legend_of, pick_side_by_side


@renamed(inner="inner_ci")
@checked
@pictured
def plot_forest(
    fits: Fit | SideBySide | Mapping[str, Fit] | Sequence[Fit],
    *,
    labels: Sequence[str] | None = None,
    parameters: str | Sequence[str] | None = None,
    ci: float | None = None,
    inner_ci: float | None = 0.5,
    col_wrap: int | None = None,
    **figure: Unpack[Figure],
) -> Any:
    """Draw estimates and intervals of all parameters, one panel each, estimators as rows.

    Each panel has its own scale, so that an intercept of 250 does not squash a slope of 10. The numbers are those of
    ``summary()`` and ``variance_components()``, and so of the table of a `Comparison`: posterior means with
    equal-tailed intervals, and likelihood estimates with Wald intervals. Where an interval does not exist (a variance
    at its boundary) only the point is drawn. Effects and correlations have a line at zero, unless it is so far away
    that it would squash the interval.

    Parameters
    ----------
    fits : Fit, Comparison, mapping or sequence of Fit
        What to draw.
    labels : sequence of str, optional
        Names of the fits.
    parameters : str or sequence of str, optional
        Names of parameters, or of their kinds ("fixed", "marginal", "sd", "corr", "sigma", "residual"); all by
        default.
    ci : float, optional
        Probability of the thin interval; the comparison's, or 0.95.
    inner_ci : float or None
        Probability of the thick interval; None leaves it out.
    col_wrap : int, optional
        Panels in a row; 3 or 4 by default.

    Returns
    -------
    Picture
        Visuals ``interval``, ``inner_interval`` and ``point_estimate`` over ``parameter`` × ``estimator``.

    Examples
    --------
    >>> import hierlmm as hl
    >>> model = hl.TwoLevelModel.from_formula("reaction ~ days + (1 + days | subject)", hl.load_dataset("sleepstudy"))
    >>> collection = hl.compare(model.fit_reml(), model.fit_ml()).plot_forest()
    >>> collection.savefig("forest.png")  # doctest: +SKIP
    """
    named, reference, outer = pick_side_by_side(fits, labels, ci)
    same_question(named, reference)
    names, n = list(named), len(named)
    table = stacked(named, outer, reference)
    for label, fit in named.items():
        without = zero_terms(fit)
        at_zero = [sd_label(fit.design, fit.design.term.index(term)) for term in without]
        table.loc[table["parameter"].isin(at_zero) & (table["estimator"] == label), "estimate"] = 0.0
    chosen = choose_parameters(without_twins(table) if parameters is None else table, parameters)
    point = table_dataset(table, chosen, names, ["estimate"])
    size = each(0.3 + 0.08 * max(map(len, names)), 2.5, 0.8, 0.85 + 0.27 * n, least=4.2, text=True)
    colours = colours_of(named)
    looks: dict[str, Any] = {
        "color": ("estimator", list(colours.values())),
        "y": ("estimator", range(n, 0, -1)),
    }
    panels = Panels(point, "parameter", size, figure, col_wrap, **looks)
    for parameter in chosen:
        if _zero_in_view(table[table["parameter"] == parameter]):
            panels.rule(parameter, x=0.0, linestyle=panels.dashes)
    panels.map("line_x", "interval", table_dataset(table, chosen, names, ["lower", "upper"]), width=1.4)
    if inner_ci is not None:
        thick = table_dataset(stacked(named, inner_ci, reference), chosen, names, ["lower", "upper"])
        panels.map("line_x", "inner_interval", thick, width=4)
    panels.map("scatter_x", "point_estimate", point, size=38, edgecolor=panels.theme.paper)
    for parameter in chosen:
        first = int(panels.collection.viz.dataset.sel(parameter=parameter)["col_index"]) == 0
        panels.name_rows(parameter, range(n, 0, -1), names if first else [""] * n, room=0.6, most=n)
    thick_text = "" if inner_ci is None else f"{percent(inner_ci)} and "
    response = named[reference].design.hierarchy.response
    scale = scale_text(named[reference].design)
    return panels.finish(
        title=f"{response}: estimates{scale} with {thick_text}{percent(outer)} intervals",
        legend=legend_of(colours, marker="circle", size=38),
    )


def _zero_in_view(rows: Any) -> bool:
    """Whether zero says something about a parameter and its interval is still seen beside it."""
    if rows["kind"].iloc[0] not in ("fixed", "marginal", "corr") or rows["parameter"].iloc[0].startswith(INTERCEPT):
        return False
    low, high = rows[["lower", "estimate"]].min().min(), rows[["upper", "estimate"]].max().max()
    return bool(high - low > 0.15 * (max(high, 0.0) - min(low, 0.0)))


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


def without_twins(table: Any) -> Any:
    """The table without marginal coefficients that are the conditional ones in every fit: one panel says both."""
    columns = ["estimate", "lower", "upper"]
    marginal, twins = table["kind"] == "marginal", []
    for name, own in table[marginal].set_index("estimator").groupby("parameter"):
        other = table[table["parameter"] == str(name).removesuffix(MARKED)].set_index("estimator").reindex(own.index)
        distance = np.abs(own[columns].to_numpy(dtype=float) - other[columns].to_numpy(dtype=float))
        if np.all(distance <= 1e-3 * (own["upper"] - own["lower"]).to_numpy(dtype=float)[:, None]):
            twins.append(name)
    return table[~(marginal & table["parameter"].isin(twins))]


def choose_parameters(table: Any, wanted: str | Sequence[str] | None) -> list[str]:
    """Return names of parameters, in the order of the table, from names and kinds."""
    known = list(table["parameter"].unique())
    if wanted is None:
        return known
    kinds = dict(zip(table["parameter"], table["kind"], strict=True))
    asked = [wanted] if isinstance(wanted, str) else list(wanted)
    if not asked:
        raise SpecificationError("parameters=[]", "there is nothing to draw", f"use names ({', '.join(known)})")
    for item in asked:
        if item not in known and item not in kinds.values():
            reason = f"no parameter or kind of parameter has this name.{closest(item, known)}"
            remedy = f"use names ({', '.join(known)}) or kinds ({', '.join(dict.fromkeys(kinds.values()))})"
            raise SpecificationError(f"parameters={item!r}", reason, remedy)
    return [p for p in known if p in asked or kinds[p] in asked]
