"""Shrinkage: each subject's own least-squares fit, the pooled fit, and the partial pooling between them.

Separate fits regress ``y_ij`` less offset and non-varying level-1 terms on ``z_ij``, subject by subject. The pooled fit
is least squares on X, all rows alike. Partial pooling is the fit's ``subject_coef``: in a balanced two-level model it
is the separate estimate drawn towards what level 2 predicts, the more so the less the subject's own data say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

import numpy as np
import pandas as pd
from scipy.stats import chi2

from hierlmm.arrays import BoolArray, FloatArray
from hierlmm.design.design import Design, level2_prediction
from hierlmm.design.questions import first_row_of_subjects, is_label, rows_by_subject
from hierlmm.drawing.figure import Figure, pictured
from hierlmm.drawing.finishing import Entry
from hierlmm.drawing.panels import Panels
from hierlmm.drawing.ranks import chosen_rows, sorted_size
from hierlmm.drawing.style import LABELLED, crowd, evenly, join_with_gaps, percent, stack_points
from hierlmm.drawing.theme import theme
from hierlmm.errors import SpecificationError
from hierlmm.fits.base import Fit
from hierlmm.fits.side_by_side import SideBySide
from hierlmm.options import checked, renamed
from hierlmm.plots.fits import choose_terms, one_named, refuse_without_effects, unit_of

SEPARATE, PARTIAL, POOLED = "separate fits", "partial pooling", "pooled fit"
MOST_CENTRES = 12
MOST_ARROWS = 300


@renamed(ellipse="coverage")
@checked
@pictured
def plot_shrinkage(
    fits: Fit | SideBySide,
    *,
    terms: str | Sequence[str] | None = None,
    coverage: float | None = 0.5,
    max_subjects: int | None = None,
    **figure: Unpack[Figure],
) -> Any:
    """Draw separate, pooled and partially pooled coefficients of every subject.

    Two terms: a scatter with an arrow from each subject's separate fit to its partial pooling, the pooled fit for each
    combination of level-2 values, and an ellipse of D around what level 2 predicts; where level 2 predicts more than 12
    different values (it has a number among its covariates) there is one of each, at the average, and the title says so.
    One term: a line for each subject,
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
    max_subjects : int, optional
        Draw at most that many subjects, 300 by default, evenly spaced in the order of their labels; of one term 60: the
        lowest, the highest and some between them. What is drawn is said below the picture.

    Returns
    -------
    Picture
        Visuals ``shift`` (the arrows), ``points`` over ``estimate``, and ``ellipse``.

    Examples
    --------
    >>> import hierlmm as hl
    >>> model = hl.TwoLevelModel.from_formula("reaction ~ days + (1 + days | subject)", hl.load_dataset("sleepstudy"))
    >>> collection = model.fit_reml().plot_shrinkage()  # doctest: +SKIP
    """
    name, fit = one_named(fits)
    refuse_without_effects(fit, "plot_shrinkage")
    chosen = _terms(fit, terms)
    names = [fit.design.level1[k] for k in fit.design.own_level1]
    partial = fit.subject_coef[names].set_axis(list(fit.design.own_term), axis=1)[chosen]
    kinds = {SEPARATE: separate_coefficients(fit)[chosen], PARTIAL: partial, POOLED: pooled_coefficients(fit)[chosen]}
    sort = len(chosen) == 1
    subjects = _drawn(partial, sort, max_subjects)
    contours = [] if sort or coverage is None else _ellipses(fit, chosen, coverage)
    parts, limits = _geometry(kinds, subjects, contours)
    known, outside = np.isfinite(parts[SEPARATE]).all(axis=0), _outside(parts[SEPARATE], limits)
    moves = np.stack([parts[SEPARATE].T[known], parts[PARTIAL].T[known]], axis=2)
    moves = _clip(moves, limits) if outside.any() else moves
    parts[SEPARATE] = parts[SEPARATE][:, ~outside]
    size: Any = sorted_size(5.0, len(subjects)) if sort else (6.2, 5.4)
    own, colour = theme(), theme().colour_of(fit.estimator)
    colours = {SEPARATE: own.grey, PARTIAL: colour, POOLED: own.ink}
    panels = Panels(_by_kind(parts), "panel", size, figure, color=("estimate", list(colours.values())))
    if contours:
        look = {"color": colour, "width": 1.0, "alpha": 0.8, "ignore_aes": "all"}
        panels.map("line_xy", "ellipse", {"": join_with_gaps(contours)}, **look)
    shift, faint = {"": join_with_gaps(list(moves))}, own.mix(0.35)
    if panels.backend == "matplotlib":
        panels.map(_arrows, "shift", shift, ignore_aes="all", arrow_color=faint)
    else:
        panels.map("line_xy", "shift", shift, ignore_aes="all", color=faint, width=0.8)
    marks = _draw_points(panels, parts, colours)
    if sort:
        panels.name_rows("", range(len(subjects)), subjects)
    if outside.any():
        panels.limit("", limits[0], None if sort else limits[1])
    design = fit.design
    said = [] if sort or coverage is None else [f"ellipse: {percent(coverage)} of subjects by D"]
    said += [_beyond(outside, known)] if outside.any() else []
    said += [f"{len(subjects)} of {design.n_subjects:,} subjects"] if len(subjects) < design.n_subjects else []
    said += [] if sort else [_averaged(kinds[POOLED].to_numpy(), contours), _groups(design, kinds[POOLED].to_numpy())]
    axes = [f"{term} ({unit_of(design, term)})" for term in chosen] + [f"{design.hierarchy.subject} (sorted)"]
    what = f"{design.hierarchy.response}, {name}: from separate fits to partial pooling"
    return panels.finish(
        {"": ""}, title=what, caption="; ".join(filter(None, said)), xlabel={"": axes[0]}, ylabel=axes[1], legend=marks
    )


def _drawn(partial: pd.DataFrame, sort: bool, most: int | None) -> pd.Index:
    """The subjects that are drawn, of one term sorted."""
    if not sort:
        return partial.index[evenly(len(partial), MOST_ARROWS if most is None else most)]
    rows, _ = chosen_rows(len(partial), LABELLED if most is None else most)
    return partial.iloc[:, 0].sort_values(kind="stable").index[rows]


def separate_coefficients(fit: Fit) -> pd.DataFrame:
    """Least squares of every subject alone, ``subject`` × ``term``; NaN where its rows do not determine them.

    Level-1 terms that do not vary between subjects are taken from the fit.
    """
    design = fit.design
    own = level2_prediction(design, fit.beta.to_numpy())
    own[:, design.own_level1] = 0.0
    response = design.y - design.offset - np.einsum("ik,ik->i", design.X1, own[design.subject_index])
    q = design.n_own
    values = np.full((design.n_subjects, q), np.nan)
    for j, rows in enumerate(rows_by_subject(design)):
        Z = design.own_Z[rows]
        if len(rows) >= q:
            solution, _, rank, _ = np.linalg.lstsq(Z, response[rows])
            if rank == q:
                values[j] = solution
    return pd.DataFrame(values, index=design.subjects, columns=list(design.own_term))


def pooled_coefficients(fit: Fit) -> pd.DataFrame:
    """Complete pooling: what least squares on X, blind to subjects, predicts for each subject's coefficients."""
    design = fit.design
    beta = np.linalg.lstsq(design.X, design.y - design.offset)[0] if design.coef else np.empty(0)
    values = level2_prediction(design, beta)[:, design.own_level1]
    return pd.DataFrame(values, index=design.subjects, columns=list(design.own_term))


def _geometry(
    kinds: Mapping[str, pd.DataFrame], subjects: pd.Index, contours: Sequence[FloatArray]
) -> tuple[dict[str, FloatArray], FloatArray]:
    """Points of each kind of estimate, (2, n), and limits of the axes, (2, 2); one term: by subject, sorted."""
    parts = {key: frame.loc[subjects].to_numpy().T for key, frame in kinds.items()}
    if len(parts[PARTIAL]) == 1:
        rows = np.arange(len(subjects), dtype=float)
        limits = _limits(parts[SEPARATE], np.hstack([parts[PARTIAL], parts[POOLED]]))
        parts = {key: np.vstack([part, rows]) for key, part in parts.items()}
        return parts, np.vstack([limits, [[-1.0, len(subjects)]]])
    parts[POOLED] = _centres(parts[POOLED].T).T
    return parts, _limits(parts[SEPARATE], np.hstack([parts[PARTIAL], parts[POOLED], *contours]))


def _centres(predicted: FloatArray) -> FloatArray:
    """The distinct rows of what level 2 predicts; their mean, if there are more than can be told apart."""
    centres = np.unique(np.round(predicted, 12), axis=0)
    return centres if len(centres) <= MOST_CENTRES else predicted.mean(axis=0, keepdims=True)


def _averaged(pooled: FloatArray, contours: Sequence[FloatArray]) -> str:
    """Say where the pooled fit and the ellipse stand for many."""
    n = len(np.unique(np.round(pooled, 12), axis=0))
    what = "pooled fit and ellipse" if contours else "pooled fit"
    return f"{what}: average of {n} level-2 predictions" if n > MOST_CENTRES else ""


def _groups(design: Design, pooled: FloatArray) -> str:
    """Say which group each pooled fit is of, where level 2 has a few."""
    labels = [v for v in design.level2_variables() if is_label(design, v)]
    centres, which = np.unique(np.round(pooled, 12), axis=0, return_inverse=True)
    if not labels or not 1 < len(centres) <= MOST_CENTRES or len(np.unique(centres[:, 0])) < len(centres):
        return ""
    values = design.frame[labels].iloc[first_row_of_subjects(design)].astype(str).agg(", ".join, axis=1).to_numpy()
    names = [np.unique(values[which.ravel() == k]) for k in range(len(centres))]
    of = f"{', '.join(labels)}: pooled fits from the left are those of {' | '.join(str(own[0]) for own in names)}"
    return of if all(len(own) == 1 for own in names) else ""


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


def _outside(points: FloatArray, limits: FloatArray) -> BoolArray:
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


def _beyond(outside: BoolArray, known: BoolArray) -> str:
    """Say how many separate fits are not shown."""
    n = int(outside.sum())
    verb = "lies" if n == 1 else "lie"
    return f"{n} of {int(known.sum())} separate fits {verb} outside the panel"


def _by_kind(parts: Mapping[str, FloatArray]) -> Any:
    return stack_points({("", key): part for key, part in parts.items()}, ("panel", "estimate"), "shrinkage")


def _draw_points(panels: Panels, parts: Mapping[str, FloatArray], colours: Mapping[str, str]) -> list[Entry]:
    """Draw the three kinds of points; return the entries of the legend, which have the marks as they are drawn."""
    n = parts[PARTIAL].shape[1]
    small, alpha = (10, crowd(n)) if n > 4 * LABELLED else (22, 1.0)
    sizes = {SEPARATE: small, PARTIAL: small, POOLED: 90 if parts[POOLED].shape[1] < n or n == 1 else small}
    entries = []
    for key, part in parts.items():
        look: dict[str, Any] = {"size": sizes[key], "marker": "diamond" if key == POOLED else "circle"}
        look["alpha"] = 1.0 if key == POOLED else alpha
        panels.map("scatter_xy", f"points_{key}", _by_kind({key: part}), **look)
        entries.append(Entry(key, colours[key], line="", marker=look["marker"], size=min(look["size"], 50)))
    return entries


def _arrows(da: Any, target: Any, arrow_color: str, **kwargs: Any) -> Any:
    """Arrows between the pairs of points of a line with gaps (matplotlib)."""
    x, y = da.sel(plot_axis="x").to_numpy().ravel(), da.sel(plot_axis="y").to_numpy().ravel()
    start, end = np.vstack([x[0::3], y[0::3]]), np.vstack([x[1::3], y[1::3]])
    look = {"angles": "xy", "scale_units": "xy", "scale": 1.0, "width": 0.003, "headwidth": 6.0, "zorder": 1.5}
    return target.quiver(*start, *(end - start), color=arrow_color, **look, **kwargs)


def _ellipses(fit: Fit, terms: list[str], probability: float) -> list[FloatArray]:
    """Contours of N(centre, D) that hold this share of subjects, (2, 121), one for each level-2 prediction.

    Centres are the distinct predictions of the fit for these terms; their mean, if there are many.
    """
    if not 0.0 < probability < 1.0:
        raise SpecificationError(f"coverage={probability!r}", "a share lies between 0 and 1", "use 0.5, or None")
    design, angle, found = fit.design, np.linspace(0.0, 2.0 * np.pi, 121), list[FloatArray]()
    at = [design.own_term.index(t) for t in terms]
    predicted = level2_prediction(design, fit.beta.to_numpy())[:, design.own_level1[at]]
    for g, part in enumerate(design.terms.by_subject.parts):
        own = [part[r] for r in at]
        values, vectors = np.linalg.eigh(fit.D.to_numpy()[np.ix_(own, own)])
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        circle = np.sqrt(chi2.ppf(probability, 2)) * root @ np.vstack([np.cos(angle), np.sin(angle)])
        found += [centre[:, None] + circle for centre in _centres(predicted[design.subject_group == g])]
    return found


def _terms(fit: Fit, terms: str | Sequence[str] | None) -> list[str]:
    wanted = choose_terms(fit.design, terms, "use one or two of")[: 2 if terms is None else None]
    if not 1 <= len(wanted) <= 2 or len(set(wanted)) != len(wanted):
        remedy = f"name one or two random effects of {', '.join(map(repr, fit.design.own_term)) or 'a mixed model'}"
        raise SpecificationError(f"terms={wanted!r}", "the plot has one or two axes for coefficients", remedy)
    return wanted
