"""Checks of subjects and rows: who lies far out, on whom coefficients rest, which covariates random effects follow."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import cbrt

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.checks.material import Material
from hierlmm.checks.outcome import LeftOut, Outcome
from hierlmm.checks.places import Places, furthest, joint_band, places, spread_ratio
from hierlmm.checks.residuals import UNEQUAL, no_effects
from hierlmm.diagnostics.curve_band import CurveBand
from hierlmm.drawing.check_panels import CheckPanel
from hierlmm.frames import shorten
from hierlmm.text import count, p_text

RESTS, HARDER, FOLLOWS = 0.5, 1.5, 0.3
"""What matters: standard errors that a subject moves a coefficient by, their growth without it, SDs of effects."""
SHOWN = 5
FEWEST = 10
"""Subjects below which nothing is said of where random effects go along a covariate."""


def outlying_subjects(material: Material) -> Outcome | LeftOut:
    """Whether a subject's rows together lie further from the population line than the model has it."""
    distance, n = material.simulated.distance, material.sizes[:, None]
    if not distance.any():
        return LeftOut(no_effects(material))
    d = distance / (distance.sum(axis=0) / n.sum())  # the overall variance was fitted
    score = (cbrt(d / n) - (1.0 - 2.0 / (9.0 * n))) / np.sqrt(2.0 / (9.0 * n))  # Wilson & Hilferty (1931)
    p, limit, out = _largest(score)
    labels = [str(v) for v in material.subjects[out]]
    subject = material.who
    slots = {
        "subject": subject,
        "who": shorten(labels, SHOWN),
        "n": count(len(out), material.many[:-1]),
        "size": f"{score[:, 0].max():.1f}",
    }
    panel = _ordered(f"{material.many}: distance (SDs)", subject, score[:, 0], p, limit, out, labels)
    return Outcome(slots, p, size=float(score[:, 0].max()), panels=(panel,))


def outlying_rows(material: Material) -> Outcome | LeftOut:
    """Whether a row lies further from its subject's line than the model has it."""
    size = np.abs(material.simulated.residual)
    p, limit, out = _largest(size)
    design, rows = material.fit.design, material.rows
    index = [material.name_of_row(rows[k]) for k in out]
    slots = {"which": shorten(index, SHOWN), "n": count(len(out), "row"), "size": f"{size[:, 0].max():.1f}"}
    names = [str(design.frame.index[rows[k]]) for k in out]
    panel = _ordered("rows: |residual| (SDs)", "row", size[:, 0], p, limit, out, names)
    return Outcome(slots, p, size=float(size[:, 0].max()), panels=(panel,))


def influential_subjects(material: Material) -> Outcome | LeftOut:
    """Whether the coefficients rest on single subjects more than under the model."""
    found = material.simulated
    if not material.fit.design.is_gaussian:
        return LeftOut("no data without a subject are simulated of such a response; see fit.influence()")
    if not material.fit.design.coef:
        return LeftOut("the model has no fixed effects that a subject could move")
    known = ~np.isnan(found.cook[:, 0])
    if known.sum() < 2:
        return LeftOut("no subject can be left out: the others do not determine the coefficients")
    cook = np.where(known[:, None], found.cook, 0.0)
    p, limit, out = _largest(cook)
    worst = int(np.argmax(cook[:, 0]))
    k = int(np.argmax(np.abs(found.dfbetas[worst])))
    moved = float(np.nanmax(np.abs(found.dfbetas)))
    subject = material.who
    labels = [str(v) for v in material.subjects[out]]
    slots = {
        "subject": subject,
        "who": shorten(labels or [str(material.subjects[worst])], SHOWN),
        "cook": f"{cook[worst, 0]:.2g}",
        "coef": material.fit.design.coef[k],
        "se": f"{abs(found.dfbetas[worst, k]):.2f}",
        "way": "up" if found.dfbetas[worst, k] > 0 else "down",
        "first": "the first" if len(labels) > 1 else "it",
    }
    panel = _ordered("influence: Cook's distance", subject, cook[:, 0], p, limit, out, labels)
    return Outcome(slots, p, size=moved, matters=moved >= RESTS, panels=(panel,))


def leverage(material: Material) -> Outcome | LeftOut:
    """Whether some coefficient is known from few subjects."""
    if not material.fit.design.coef:
        return LeftOut("the model has no fixed effects")
    found = material.simulated
    if not len(found.harder):
        return LeftOut("no data without a subject are simulated of such a response; see fit.influence()")
    j, k = divmod(int(np.nanargmax(found.harder)), found.harder.shape[1])
    size = float(found.harder[j, k])
    slots = {
        "subject": f"{material.who} {material.subjects[j]}",
        "coef": material.fit.design.coef[k],
        "size": f"{size:.2g}",
    }
    if np.isinf(size):
        return Outcome(slots, severity="act", size=size, variant="_lost")
    return Outcome(slots, severity="look" if size >= HARDER else "fine", size=size)


def level2(material: Material) -> Outcome | LeftOut:
    """Whether random effects go along level-2 covariates."""
    found = _along(material, material.simulated.effects)
    if isinstance(found, LeftOut):
        return found
    bands, p = joint_band({key: (own.at.x, own.at.weights @ own.values) for key, own in found.items()})
    key, size, _ = furthest(bands)
    panels = tuple(
        _panel(found[part], band, found[part].values[:, 0], "b of {} (SDs)", 0.0) for part, band in bands.items()
    )
    slots = {"term": found[key].term, "column": found[key].column, "size": f"{size:.2f}"}
    return Outcome(slots, p, size=size, matters=size >= FOLLOWS, panels=panels)


def effect_spread(material: Material) -> Outcome | LeftOut:
    """Whether random effects spread alike along level-2 covariates, around what they are there on average."""
    found = _along(material, material.simulated.evened)
    if isinstance(found, LeftOut):
        return found
    roots = {}
    for key, own in found.items():
        root = np.sqrt(np.abs(own.values - own.at.at_rows(own.at.weights @ own.values)))
        roots[key] = root / root.mean(axis=0)
    bands, p = joint_band({key: (own.at.x, own.at.weights @ roots[key]) for key, own in found.items()})
    key, _, _ = furthest(bands)
    ratio, low, high = spread_ratio(bands[key])
    labels = found[key].at.labels or [f"{v:.3g}" for v in bands[key].x]
    slots = {"term": found[key].term, "column": found[key].column, "ratio": f"{ratio:.2g}"}
    slots |= {"low": labels[low], "high": labels[high]}
    panels = tuple(_panel(found[part], band, roots[part][:, 0], "√|b| of {}", 1.0) for part, band in bands.items())
    return Outcome(slots, p, size=ratio, matters=ratio >= UNEQUAL, panels=panels)


class _Along(NamedTuple):
    """Random effects of a term, (n, S + 1), of subjects that have a value of a column."""

    term: str
    column: str
    at: Places
    values: FloatArray


def _along(material: Material, effects: dict[str, FloatArray]) -> dict[str, _Along] | LeftOut:
    """Random effects along every covariate that is constant within subjects."""
    if not effects:
        return LeftOut(no_effects(material))
    found = {}
    for column, values in material.by_subject.items():
        for term, b in effects.items():
            known = values.notna().to_numpy() & np.any(b != 0.0, axis=1)  # no effects of other groups
            if known.sum() >= FEWEST and (own := places(values[known])) is not None:
                found[f"{term} along {column}"] = _Along(term, str(column), own, b[known])
    if not found and len(material.by_subject.columns) and len(material.by_subject) < FEWEST:
        return LeftOut(f"fewer than {FEWEST} {material.many}: how random effects go along a covariate cannot be told")
    if not found and material.variant:
        return LeftOut("no covariate of the model is constant within its groups")
    return found or LeftOut("there are no level-2 covariates; check(data=...) takes some that the model does not have")


def _panel(own: _Along, band: CurveBand, values: FloatArray, what: str, level: float) -> CheckPanel:
    return CheckPanel(
        f"level 2: {what.format(own.term)}\n{p_text(band.p_value)}",
        own.column,
        np.vstack([own.at.values, values]),
        np.vstack([band.x, band.observed]),
        np.vstack([band.lower, band.upper]),
        level=level,
        ticks=tuple(own.at.labels),
    )


def _largest(values: FloatArray) -> tuple[float, float, IntArray]:
    """p-value of the largest of the data (first column), what 5 % of the simulated ones pass, and who passes it."""
    top = values.max(axis=0)
    limit = float(np.quantile(top, 0.95, method="higher"))
    out = np.flatnonzero(values[:, 0] > limit)
    return float(np.mean(top >= top[0])), limit, out[np.argsort(values[out, 0])[::-1]]


def _ordered(
    title: str, xlabel: str, values: FloatArray, p: float, limit: float, out: IntArray, names: list[str]
) -> CheckPanel:
    points = np.vstack([np.arange(1.0, len(values) + 1.0), values])
    return CheckPanel(
        f"{title}\n{p_text(p)}",
        f"{xlabel}, in order",
        points,
        marked=out.astype(np.intp),
        names=tuple(names),
        limit=limit,
    )
