"""Posterior densities of the parameters, with the likelihood estimates as lines."""

from __future__ import annotations

import contextlib
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
from hierlmm.errors import NotAvailableError
from hierlmm.fits.base import Fit
from hierlmm.fits.components import component_labels, component_values, correlated_pairs
from hierlmm.fits.side_by_side import MARGINAL_SIGMA, SideBySide, estimates, is_marginal
from hierlmm.options import checked
from hierlmm.plots.fits import is_posterior, pick_side_by_side
from hierlmm.plots.forest import choose_parameters, table_dataset

__all__ = ["parameter_draws", "plot_posterior"]


@checked
def plot_posterior(
    fits: Fit | SideBySide | Mapping[str, Fit] | Sequence[Fit],
    *,
    labels: Sequence[str] | None = None,
    parameters: str | Sequence[str] | None = None,
    ci: float | None = None,
    col_wrap: int | None = None,
    backend: str | None = None,
    figure_kwargs: Mapping[str, Any] | None = None,
) -> Any:
    """Draw the posterior density of every parameter; likelihood estimates are vertical lines in their own panels.

    Under each density stand the equal-tailed interval and the mean, as in the table of a `Comparison`. Without any
    posterior among the fits, the densities are those of the likelihood fits' large-sample distributions
    (``to_datatree()``), and the title says so; a parameter at the boundary has no density.

    Parameters
    ----------
    fits : Fit, Comparison, mapping or sequence of Fit
        Posterior fits give densities, likelihood fits give lines.
    labels : sequence of str, optional
        Names of the fits.
    parameters : str or sequence of str, optional
        Names of parameters, or of their kinds ("fixed", "sd", "corr", "sigma", "residual"); all by default.
    ci : float, optional
        Probability of the interval; the comparison's, or 0.95.
    col_wrap : int, optional
        Panels in a row; 3 or 4 by default.
    backend : {"matplotlib", "bokeh", "plotly", "none"}, optional
        ArviZ's default otherwise.
    figure_kwargs : mapping, optional
        Passed to ArviZ: ``{"figsize": (9, 4)}`` in inches.

    Returns
    -------
    arviz_plots.PlotCollection
        Visuals ``face`` and ``dist`` over ``parameter`` × ``estimator``; ``interval_<label>``,
        ``point_estimate_<label>`` and ``estimate_line_<label>`` over ``parameter``.

    Examples
    --------
    >>> import hierlmm as hl
    >>> model = hl.TwoLevelModel.from_formula("reaction ~ days + (1 + days | subject)", hl.load_dataset("sleepstudy"))
    >>> hl.compare(model.fit(seed=1), model.fit_reml()).plot_posterior()  # doctest: +SKIP
    """
    import xarray as xr
    from arviz_plots import visuals

    name = resolve_backend(backend)
    named, reference, probability = pick_side_by_side(fits, labels, ci)
    table = estimates(named, probability, reference)
    chosen = choose_parameters(table, parameters)
    sampled = [label for label, fit in named.items() if is_posterior(fit)]
    approximate = not sampled
    dense = sampled or list(named)
    density = xr.concat(
        [_densities(named[label], chosen).expand_dims(estimator=[label]) for label in dense], "estimator"
    )
    lines = [label for label in named if label not in sampled]
    rows, columns = grid_shape(len(chosen), col_wrap)
    collection = canvas(
        table_dataset(table, chosen, list(named), ["estimate"]),
        "parameter",
        backend=name,
        size=(max(4.2, 0.4 + 2.5 * columns), 0.8 + 1.9 * rows),
        col_wrap=columns,
        figure_kwargs=figure_kwargs,
        aes={"color": ["estimator"]},
        color=list(np.resize(PALETTE, len(named))),
    )
    face = density.rename(plot_axis="kwarg").sel(kwarg=["x", "y"]).pad(kwarg=(0, 1), constant_values=0.0)
    face = face.assign_coords(kwarg=["x", "y_top", "y_bottom"])
    collection.map(visuals.fill_between_y, "face", data=face, alpha=0.2)
    collection.map(visuals.line_xy, "dist", data=density, width=1.6)
    height = density["estimate"].sel(plot_axis="y").max(["point", "estimator"])
    for k, label in enumerate(dense):
        depth = -0.08 * (k + 1) * height
        one = {"data": table_dataset(table, chosen, [label], ["lower", "upper"]), "y": depth}
        collection.map(visuals.line_x, f"interval_{label}", width=2.5, **one)
        one["data"] = table_dataset(table, chosen, [label], ["estimate"])
        collection.map(visuals.scatter_x, f"point_estimate_{label}", size=26, edgecolor="white", **one)
    draw = backend_module(name)
    styles = draw.get_default_aes("linestyle", 4)[1:]
    for k, label in enumerate(lines):
        # Estimates that coincide (β of REML and ML in balanced data) stay visible through the gaps of the later line.
        look = {"linestyle": styles[k % 3], "width": 1.4 + 0.5 * k}
        data = table_dataset(table, chosen, [label], ["estimate"])
        collection.map(visuals.vline, f"estimate_line_{label}", data=data, **look)
    for parameter in chosen:
        target = collection.get_target("estimate", {"parameter": parameter})
        draw.yticks([], [], target)
    response = next(iter(named.values())).design.hierarchy.response
    what = "large-sample distributions, estimate" if approximate else "posterior densities, mean"
    tail = "" if not lines or approximate else f"; lines: {' and '.join(lines)}"
    return finish(
        collection,
        "parameter",
        {p: wrap_title(p) for p in chosen},
        title=f"{response}: {what} and {percent(probability)} interval{tail}",
        legend="estimator" if len(named) > 1 else None,
    )


def parameter_draws(fit: Fit) -> dict[str, np.ndarray]:
    """Draws of β, the SDs and correlations of D, residual parameters and σ by label of the tables: (chain, draw)."""
    posterior = fit.to_datatree()["posterior"].to_dataset()
    draws: dict[str, np.ndarray] = {}
    if "beta" in posterior:
        beta = posterior["beta"].transpose("chain", "draw", "coef").to_numpy()
        draws |= {name: beta[..., k] for k, name in enumerate(fit.design.coef)}
    if "D" in posterior:
        D = posterior["D"].transpose("chain", "draw", "term", "term_bis").to_numpy()
        values = component_values(fit.design, D, posterior["sigma"].to_numpy())
        draws |= {name: values[..., k] for k, name in enumerate(component_labels(fit.design))}
        term = fit.design.term
        for a, b in correlated_pairs(fit.design):
            draws[f"corr({term[b]}, {term[a]})"] = draws[f"corr({term[a]}, {term[b]})"]
    elif "sigma" in posterior:
        draws["sigma"] = posterior["sigma"].to_numpy()
    for name in ("residual_correlation", "residual_variance"):
        if name in posterior:
            dimension = f"{name}_parameter"
            values = posterior[name].transpose("chain", "draw", dimension).to_numpy()
            draws |= {str(label): values[..., k] for k, label in enumerate(posterior[dimension].to_numpy())}
    if is_marginal(fit) and "sigma" in draws:
        draws[MARGINAL_SIGMA] = draws["sigma"]  # its label beside a fit with random effects
    return draws


def _densities(fit: Fit, parameters: list[str]) -> Any:
    """Kernel density of every parameter, Dataset ``parameter`` × ``plot_axis`` × ``point``; NaN where there is none."""
    import xarray as xr
    from arviz_stats.base import array_stats

    draws = parameter_draws(fit)
    held: set[str] = set()
    if not is_posterior(fit) and (fit.has_random_effects or fit.design.has_residual_structure):
        # At its boundary a parameter has no interval, and draws that stay there are no density either.
        with contextlib.suppress(NotAvailableError):
            components = fit.variance_components()
            held = set(components.index[components["lower"].isna()])
    curves = np.full((len(parameters), 2, 512), np.nan)
    for k, name in enumerate(parameters):
        values = draws.get(name)
        if values is None or not np.isfinite(values).all() or name in held:
            continue
        if np.ptp(values) <= 1e-9 * np.abs(values).max():
            continue
        x, y, _ = array_stats.kde(values.ravel())
        curves[k] = x, y
    coords = {"parameter": parameters, "plot_axis": ["x", "y"]}
    return xr.Dataset({"estimate": (("parameter", "plot_axis", "point"), curves)}, coords=coords)
