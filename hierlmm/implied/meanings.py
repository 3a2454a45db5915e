"""Estimates of several fits stacked, with the two meanings of a coefficient kept apart.

On a curved scale a coefficient of a hierarchy is about a subject, given its random effects; one of GEE is about the
mean over subjects. They have one name and are two numbers. So the second stand in rows of their own,
``time (marginal)`` of kind ``marginal``, and hierarchies have both: theirs are averaged over N(0, D)
(`hierlmm.implied.coefficients`). With the identity link the two are one, and nothing is set apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from hierlmm.design.design import Design
from hierlmm.fits.base import Fit
from hierlmm.fits.side_by_side import COLUMNS, estimates
from hierlmm.implied.coefficients import marginal_coefficients, told, with_log_link

KIND = "marginal"
MARKED = " (marginal)"
SATURATING = ("logit", "probit", "cloglog")


def has_two_meanings(design: Design) -> bool:
    """Whether coefficients given the random effects are other numbers than those of the mean over subjects."""
    return bool(design.term) and _is_curved(design)


def _is_curved(design: Design) -> bool:
    """Whether the mean of a mean is another one on the scale of the link."""
    return design.family.link != "identity" and design.family.name != "ordinal"


def stacked(fits: Mapping[str, Fit], ci: float, reference: str | None = None) -> pd.DataFrame:
    """`hierlmm.fits.side_by_side.estimates`, with coefficients of the mean over subjects in rows of their own."""
    table = estimates(fits, ci, reference)
    if not any(has_two_meanings(fit.design) for fit in fits.values()):
        return table
    apart = {label: fit for label, fit in fits.items() if _is_curved(fit.design)}
    averaged = [label for label, fit in apart.items() if not fit.has_random_effects]
    moved = table["estimator"].isin(averaged) & (table["kind"] == "fixed")
    rows = [table[moved]]
    for label, fit in apart.items():
        if fit.has_random_effects:
            own: Any = marginal_coefficients(fit, ci).table[COLUMNS]
            rows.append(own.rename_axis("parameter").reset_index().assign(kind=KIND, estimator=label))
    second = pd.concat(rows, ignore_index=True)[table.columns]
    order = {name: k for k, name in enumerate(next(iter(apart.values())).design.coef)}
    place = second["parameter"].map(order) * len(fits) + second["estimator"].map(
        {label: k for k, label in enumerate(fits)}
    )
    second = second.iloc[place.to_numpy().argsort(kind="stable")]
    second = second.assign(parameter=second["parameter"] + MARKED, kind=KIND)
    first = table[~moved]
    fixed, others = first[first["kind"] == "fixed"], first[first["kind"] != "fixed"]
    return pd.concat([fixed, second, others], ignore_index=True)


def notes_on_meanings(fits: Mapping[str, Fit]) -> tuple[str, ...]:
    """What the two blocks say, and why their numbers differ; nothing where there is one meaning."""
    design = next((fit.design for fit in fits.values() if has_two_meanings(fit.design)), None)
    if design is None:
        return ()
    (one, its, who), link = told(design), design.family.link
    own = [label for label, fit in fits.items() if fit.has_random_effects]
    whose = f" Those of {' and '.join(own)} are conditional ones averaged over N(0, D)." if own else ""
    found = [
        f"Conditional coefficients are about {one}, given {its} random effects: the change of the {link} of {its} "
        f"mean. Marginal ones are about the mean over all of them, which is what GEE estimates.{whose} Compare "
        "estimators within a block, never across."
    ]
    if link in SATURATING:
        found.append(
            "Averaging curves that saturate flattens them: marginal coefficients are closer to zero than conditional "
            f"ones, the more {who} differ (attenuation). Neither is wrong; they answer different questions."
        )
    elif link == "log":
        found.append(with_log_link(max((fit.design for fit in fits.values()), key=lambda own: len(own.term))))
    return tuple(found)
