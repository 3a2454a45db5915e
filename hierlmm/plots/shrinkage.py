"""Shrinkage: each subject's own least-squares fit, the pooled fit, and the partial pooling between them.

Separate fits regress ``y_ij`` less offset and non-varying level-1 terms on ``z_ij``, subject by subject. The pooled fit
is least squares on X, all rows alike. Partial pooling is the fit's ``subject_coef``: in a balanced two-level model it
is the separate estimate drawn towards what level 2 predicts, the more so the less the subject's own data say.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import chi2

from hierlmm.design.design import level2_prediction
from hierlmm.design.questions import rows_by_subject
from hierlmm.drawing.style import (
    GREY,
    LABELLED,
    PALETTE,
    backend_module,
    canvas,
    finish,
    join_with_gaps,
    percent,
    resolve_backend,
    stack_points,
)
from hierlmm.errors import SpecificationError, closest
from hierlmm.fits.base import Fit
from hierlmm.fits.side_by_side import SideBySide
from hierlmm.options import checked, renamed
from hierlmm.plots.fits import one_fit, refuse_without_effects, unit_of

__all__ = ["plot_shrinkage", "pooled_coefficients", "separate_coefficients"]

FloatArray = NDArray[np.float64]
SEPARATE, PARTIAL, POOLED = "separate fits", "partial pooling", "pooled fit"
COLORS = {SEPARATE: GREY, PARTIAL: PALETTE[0], POOLED: PALETTE[1]}


@renamed(ellipse="coverage")
@checked
def plot_shrinkage(
    fits: Fit | SideBySide,
    *,
    terms: str | Sequence[str] | None = None,
    coverage: float | None = 0.5,
    backend: str | None = None,
    figure_kwargs: dict[str, Any] | None = None,
) -> Any:
    """Draw separate, pooled and partially pooled coefficients of every subject.

    Two terms: a scatter with an arrow from each subject's separate fit to its partial pooling, the pooled fit for each
    combination of level-2 values, and an ellipse of D around what level 2 predicts. One term: a line for each subject,
    sorted. Subjects whose rows do not determine a separate fit have no separate point. Separate fits far outside their
    bulk (two close visits make a slope of any size) do not set the scale: their arrows come in from the border, and the
    title counts them.

    Parameters
    ----------
    fits : Fit or Comparison
        A fit by any estimator with random effects; of a `Comparison` the reference.
    terms : str or sequence of str, optional
        One or two random effects; by default the first two.
    coverage : float or None
        Share of the subjects expected inside the ellipse of D; None leaves it out.
    backend : {"matplotlib", "bokeh", "plotly", "none"}, optional
        ArviZ's default otherwise. Arrow heads are drawn by matplotlib only.
    figure_kwargs : mapping, optional
        Passed to ArviZ: ``{"figsize": (7, 5)}`` in inches.

    Returns
    -------
    arviz_plots.PlotCollection
        Visuals ``shift`` (the arrows), ``points`` over ``estimate``, and ``ellipse``.

    Examples
    --------
    >>> import hierlmm as hl
    >>> model = hl.TwoLevelModel.from_formula("reaction ~ days + (1 + days | subject)", hl.load_dataset("sleepstudy"))
    >>> collection = model.fit_reml().plot_shrinkage()  # doctest: +SKIP
    """
    name, fit = resolve_backend(backend), one_fit(fits)
    refuse_without_effects(fit, "plot_shrinkage")
    chosen = _terms(fit, terms)
    separate = separate_coefficients(fit)[chosen]
    names = [fit.design.level1[k] for k in fit.design.term_level1]
    partial = fit.subject_coef[names].set_axis(list(fit.design.term), axis=1)[chosen]
    pooled = pooled_coefficients(fit)[chosen]
    if len(chosen) == 1:
        return _sorted_lines(fit, chosen[0], separate, partial, pooled, name, figure_kwargs)
    return _scatter(fit, chosen, separate, partial, pooled, coverage, name, figure_kwargs)


def separate_coefficients(fit: Fit) -> pd.DataFrame:
    """Least squares of every subject alone, ``subject`` × ``term``; NaN where its rows do not determine them.

    Level-1 terms that do not vary between subjects are taken from the fit.
    """
    design = fit.design
    own = level2_prediction(design, fit.beta.to_numpy())
    own[:, design.term_level1] = 0.0
    response = design.y - design.offset - np.einsum("ik,ik->i", design.X1, own[design.subject_index])
    q = len(design.term)
    values = np.full((design.n_subjects, q), np.nan)
    for j, rows in enumerate(rows_by_subject(design)):
        Z = design.Z[rows]
        if len(rows) >= q:
            solution, _, rank, _ = np.linalg.lstsq(Z, response[rows])
            if rank == q:
                values[j] = solution
    return pd.DataFrame(values, index=design.subjects, columns=list(design.term))


def pooled_coefficients(fit: Fit) -> pd.DataFrame:
    """Complete pooling: what least squares on X, blind to subjects, predicts for each subject's coefficients."""
    design = fit.design
    beta = np.linalg.lstsq(design.X, design.y - design.offset)[0] if design.coef else np.empty(0)
    values = level2_prediction(design, beta)[:, design.term_level1]
    return pd.DataFrame(values, index=design.subjects, columns=list(design.term))


def _scatter(
    fit: Fit,
    terms: list[str],
    separate: pd.DataFrame,
    partial: pd.DataFrame,
    pooled: pd.DataFrame,
    coverage: float | None,
    backend: str,
    figure_kwargs: dict[str, Any] | None,
) -> Any:
    from arviz_plots import visuals

    centres = np.unique(np.round(pooled.to_numpy(), 12), axis=0)
    if len(centres) > 12:
        centres = pooled.to_numpy().mean(axis=0, keepdims=True)
    level2 = _level2_centres(fit, terms)
    contours = [] if coverage is None else [_ellipse(fit, terms, centre, coverage) for centre in level2]
    core = np.hstack([partial.to_numpy().T, centres.T, *contours])
    limits = _limits(separate.to_numpy().T, core)
    known = separate.notna().all(axis=1).to_numpy()
    outside = _outside(separate.to_numpy().T, limits)
    parts = {SEPARATE: separate.to_numpy().T[:, ~outside], PARTIAL: partial.to_numpy().T, POOLED: centres.T}
    collection = _canvas(parts, (6.2, 5.2), backend, figure_kwargs)
    if contours:
        lines = join_with_gaps(contours)
        data = stack_points({"": lines}, "panel", "shrinkage")
        look = {"color": PALETTE[0], "width": 1.0, "alpha": 0.8, "ignore_aes": "all"}
        collection.map(visuals.line_xy, "ellipse", data=data, **look)
    moves = np.stack([separate.to_numpy()[known], partial.to_numpy()[known]], axis=2)
    if outside.any():
        moves = _clip(moves, limits)
    shifts = stack_points({"": join_with_gaps(list(moves))}, "panel", "shrinkage")
    collection.map(_arrows if backend == "matplotlib" else visuals.line_xy, "shift", data=shifts, ignore_aes="all")
    _draw_points(collection, parts)
    if outside.any():
        draw, target = backend_module(backend), collection.get_target("shrinkage", {"panel": ""})
        draw.xlim(tuple(limits[0]), target)
        draw.ylim(tuple(limits[1]), target)
    response = fit.design.hierarchy.response
    share = "" if coverage is None else f"\nellipse: {percent(coverage)} of subjects by D"
    return finish(
        collection,
        "panel",
        {"": f"{response}, {fit.estimator}: from separate fits to partial pooling{share}{_beyond(outside, known)}"},
        title=None,
        xlabel={"": f"{terms[0]} ({unit_of(fit.design, terms[0])})"},
        ylabel=f"{terms[1]} ({unit_of(fit.design, terms[1])})",
        legend="estimate",
    )


def _sorted_lines(
    fit: Fit,
    term: str,
    separate: pd.DataFrame,
    partial: pd.DataFrame,
    pooled: pd.DataFrame,
    backend: str,
    figure_kwargs: dict[str, Any] | None,
) -> Any:
    from arviz_plots import visuals

    order = partial[term].sort_values(kind="stable").index
    y = np.arange(len(order), dtype=float)
    columns = {SEPARATE: separate, PARTIAL: partial, POOLED: pooled}
    parts = {key: np.vstack([frame.loc[order, term].to_numpy(), y]) for key, frame in columns.items()}
    height = 1.3 + min(10.0, max(2.2, 0.19 * len(order)))
    collection = _canvas(parts, (6.0, height), backend, figure_kwargs)
    limits = _limits(parts[SEPARATE][:1], np.hstack([parts[PARTIAL][:1], parts[POOLED][:1]]))
    known = np.isfinite(parts[SEPARATE][0])
    outside = _outside(parts[SEPARATE][:1], limits)
    moves = np.stack([parts[SEPARATE].T[known], parts[PARTIAL].T[known]], axis=2)
    if outside.any():
        moves = _clip(moves, np.vstack([limits, [[-1.0, len(order)]]]))
        parts[SEPARATE] = parts[SEPARATE][:, ~outside]
    shifts = stack_points({"": join_with_gaps(list(moves))}, "panel", "shrinkage")
    collection.map(_arrows if backend == "matplotlib" else visuals.line_xy, "shift", data=shifts, ignore_aes="all")
    _draw_points(collection, parts)
    draw = backend_module(backend)
    target = collection.get_target("shrinkage", {"panel": ""})
    small = len(order) > LABELLED
    draw.yticks([] if small else list(y), [] if small else [str(s) for s in order], target)
    draw.ylim((-0.8, len(order) - 0.2), target)
    if outside.any():
        draw.xlim(tuple(limits[0]), target)
    response = fit.design.hierarchy.response
    return finish(
        collection,
        "panel",
        {"": f"{response}, {fit.estimator}: from separate fits to partial pooling{_beyond(outside, known)}"},
        title=None,
        xlabel={"": f"{term} ({unit_of(fit.design, term)})"},
        ylabel=f"{fit.design.hierarchy.subject} (sorted)",
        legend="estimate",
    )


def _limits(separate: FloatArray, core: FloatArray) -> FloatArray:
    """Limits of each axis (d, 2): all of ``core``, and the separate fits but for those far outside their bulk.

    Two close visits give a slope with an enormous standard error, and one such subject would squash all others. Far
    outside is what Tukey (1977) calls so: three interquartile ranges beyond the quartiles.
    """
    limits = np.empty((len(core), 2))
    for k, values in enumerate(separate):
        values = values[np.isfinite(values)]
        low, high = np.quantile(values, [0.25, 0.75]) if len(values) else (np.nan, np.nan)
        bulk = values[(values >= low - 3 * (high - low)) & (values <= high + 3 * (high - low))]
        every = np.concatenate([bulk, core[k]])
        margin = 0.05 * (float(np.ptp(every)) or 1.0)
        limits[k] = every.min() - margin, every.max() + margin
    return limits


def _outside(points: FloatArray, limits: FloatArray) -> NDArray[np.bool_]:
    """Which points (d, n) lie beyond the limits (d, 2); unknown ones do not."""
    return np.asarray(((points < limits[:, :1]) | (points > limits[:, 1:])).any(axis=0))


def _clip(moves: FloatArray, limits: FloatArray) -> FloatArray:
    """Arrows (n, d, 2) that start at the border of the panel where their subject lies outside it."""
    start, end = moves[..., 0], moves[..., 1]
    way = start - end
    room = np.where(way > 0, limits[:, 1], limits[:, 0]) - end
    share = np.divide(room, way, out=np.ones_like(way), where=way != 0)
    moves = moves.copy()
    moves[..., 0] = end + np.minimum(1.0, share.min(axis=1, keepdims=True)) * way
    return moves


def _beyond(outside: NDArray[np.bool_], known: NDArray[np.bool_]) -> str:
    """Say how many separate fits are not shown."""
    n = int(outside.sum())
    verb = "lies" if n == 1 else "lie"
    return f"\n{n} of {int(known.sum())} separate fits {verb} outside the panel" if n else ""


def _canvas(
    parts: dict[str, FloatArray], size: tuple[float, float], backend: str, figure_kwargs: dict[str, Any] | None
) -> Any:
    data = stack_points(parts, "estimate", "shrinkage").expand_dims(panel=[""])
    return canvas(
        data,
        "panel",
        backend=backend,
        size=size,
        col_wrap=1,
        figure_kwargs=figure_kwargs,
        aes={"color": ["estimate"]},
        color=list(COLORS.values()),
    )


def _draw_points(collection: Any, parts: dict[str, FloatArray]) -> None:
    from arviz_plots import visuals

    n = parts[PARTIAL].shape[1]
    small = 10 if n > LABELLED else 22
    sizes = {SEPARATE: small, PARTIAL: small, POOLED: 90 if parts[POOLED].shape[1] < n or n == 1 else small}
    markers = collection_markers(collection.backend)
    for key, part in parts.items():
        data = stack_points({key: part}, "estimate", "shrinkage").expand_dims(panel=[""])
        collection.map(visuals.scatter_xy, f"points_{key}", data=data, size=sizes[key], marker=markers[key])


def collection_markers(backend: str) -> dict[str, Any]:
    """Markers of the three kinds of estimate, in the names of the backend."""
    marks = backend_module(backend).get_default_aes("marker", 5)
    return {SEPARATE: marks[0], PARTIAL: marks[0], POOLED: marks[4] if backend == "matplotlib" else marks[1]}


def _arrows(da: Any, target: Any, **kwargs: Any) -> Any:
    """Arrows between the pairs of points of a line with gaps (matplotlib)."""
    x, y = da.sel(plot_axis="x").to_numpy().ravel(), da.sel(plot_axis="y").to_numpy().ravel()
    start, end = np.vstack([x[0::3], y[0::3]]), np.vstack([x[1::3], y[1::3]])
    look = {"angles": "xy", "scale_units": "xy", "scale": 1.0, "width": 0.003, "headwidth": 6.0, "zorder": 1.5}
    return target.quiver(*start, *(end - start), color="#b0b0b0", **look, **kwargs)


def _level2_centres(fit: Fit, terms: list[str]) -> FloatArray:
    """Return the distinct level-2 predictions of the fit for these terms (their mean if there are many), (m, 2)."""
    columns = [fit.design.term_level1[fit.design.term.index(t)] for t in terms]
    values = level2_prediction(fit.design, fit.beta.to_numpy())[:, columns]
    centres = np.unique(np.round(values, 12), axis=0)
    return centres if len(centres) <= 12 else values.mean(axis=0, keepdims=True)


def _ellipse(fit: Fit, terms: list[str], centre: FloatArray, probability: float) -> FloatArray:
    """Contour of N(centre, D) that holds this share of subjects, (2, 121)."""
    if not 0.0 < probability < 1.0:
        raise SpecificationError(f"coverage={probability!r}", "a share lies between 0 and 1", "use 0.5, or None")
    values, vectors = np.linalg.eigh(fit.D.loc[terms, terms].to_numpy())
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    angle = np.linspace(0.0, 2.0 * np.pi, 121)
    radius = np.sqrt(chi2.ppf(probability, 2))
    return centre[:, None] + radius * root @ np.vstack([np.cos(angle), np.sin(angle)])


def _terms(fit: Fit, terms: str | Sequence[str] | None) -> list[str]:
    known = list(getattr(fit.design, "term", ()))
    wanted = known[:2] if terms is None else [terms] if isinstance(terms, str) else list(terms)
    for term in wanted:
        if term not in known:
            raise SpecificationError(
                f"terms={term!r}",
                f"no random effect has this name.{closest(term, known)}",
                f"use one or two of {', '.join(map(repr, known))}",
            )
    if not 1 <= len(wanted) <= 2 or len(set(wanted)) != len(wanted):
        raise SpecificationError(
            f"terms={wanted!r}",
            "the plot has one or two axes for coefficients",
            f"name one or two random effects of {', '.join(map(repr, known)) or 'a mixed model'}",
        )
    return wanted
