"""What is assumed of the responses after drop-out: the same as before, a shift, or the course of a reference arm.

With μ_i the subject's mean in its own arm, ρ_i that in the reference arm, L its last measured visit and k > L:

    at random            μ_k
    jump to reference    ρ_k
    copy increments      μ_L + ρ_k - ρ_L
    copy reference       ρ at all visits, also in y_o - ρ_o

(Carpenter, Roger & Kenward 2013). The covariance stays the subject's own. Gaps before L are filled at random always. A
delta is added to what a strategy gives, at every visit after drop-out.

References
----------
Carpenter, J. R., Roger, J. H., Kenward, M. G. (2013). Analysis of longitudinal trials with protocol deviation: a
framework for relevant, accessible assumptions, and inference via multiple imputation. Journal of Biopharmaceutical
Statistics 23, 1352-1371.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.errors import SpecificationError
from hierlmm.frames import quote, shorten
from hierlmm.missingness.planned import SEE, Parameters, Planned

STRATEGIES = {
    "at random": "missing at random",
    "jump to reference": "jump to reference",
    "copy increments": "copy increments in reference",
    "copy reference": "copy reference",
}
SHORT = {"mar": "at random", "j2r": "jump to reference", "cir": "copy increments", "cr": "copy reference"}


@dataclass(frozen=True)
class Assumption:
    """What is assumed of the visits after drop-out."""

    strategy: str = "at random"
    delta: float | Mapping[Any, float] = 0.0
    each_visit: bool = False

    def __post_init__(self) -> None:
        values = list(self.delta.values()) if isinstance(self.delta, Mapping) else [self.delta]
        if not values or not all(_is_finite(v) for v in values):
            remedy = "use a number, or one for each arm: delta={'new': -5.0}"
            raise SpecificationError(f"delta={self.delta!r}", "what is added is a finite number", remedy, SEE)

    def shifts(self, planned: Planned) -> FloatArray:
        """What is added at every subject and visit, (J, K)."""
        by_arm = _by_arm(self.delta, planned.arms)
        size = by_arm[planned.arm][:, None] * planned.after
        visits = np.arange(planned.shape[1]) - planned.visits.last[:, None]
        return size * np.maximum(visits, 0) if self.each_visit else size

    @property
    def text(self) -> str:
        """In words."""
        said = STRATEGIES[self.strategy]
        if self.delta == 0.0:
            return said
        each = " at each further visit" if self.each_visit else ""
        by_arm = self.delta.items() if isinstance(self.delta, Mapping) else ()
        shift = shorten(f"{v:+g} in {a}" for a, v in by_arm) or f"{self.delta:+g}"
        return f"{said}, then {shift}{each}"


def strategy_named(name: str) -> str:
    """The strategy of a name or its usual abbreviation.

    Raises
    ------
    SpecificationError
    """
    found = SHORT.get(name.lower(), name.lower().replace("_", " "))
    if found not in STRATEGIES:
        choices = ", ".join(f"{full!r} ({short})" for short, full in SHORT.items())
        raise SpecificationError(f"strategy={name!r}", "no strategy has this name", f"use one of {choices}", SEE)
    return found


def _is_finite(value: Any) -> bool:
    number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    return number and bool(np.isfinite(value))


def _by_arm(delta: float | Mapping[Any, float], arms: tuple[Any, ...]) -> FloatArray:
    """A delta for each arm; a number is of all arms but the reference."""
    if not isinstance(delta, Mapping):
        found = np.full(len(arms), float(delta))
        found[0] = 0.0
    else:
        unknown = [a for a in delta if a not in arms]
        if unknown:
            remedy = f"use the arms: {shorten(map(quote, arms))}"
            raise SpecificationError(f"delta for {unknown[0]!r}", "it is no arm", remedy, SEE)
        found = np.array([float(delta.get(a, 0.0)) for a in arms])
    return found


def means(planned: Planned, beta: FloatArray, strategy: str) -> tuple[FloatArray, FloatArray]:
    """Means to which measured responses are compared, and means of what follows after drop-out, (J, K) each."""
    own = planned.X @ beta + planned.offset
    if strategy == "at random":
        return own, own
    reference = planned.X_reference @ beta + planned.offset
    if strategy == "copy reference":
        return reference, reference
    if strategy == "jump to reference":
        return own, reference
    last = np.maximum(planned.visits.last, 0)[:, None]
    step = np.take_along_axis(own, last, axis=1) - np.take_along_axis(reference, last, axis=1)
    return own, reference + step


def conditional(
    planned: Planned, at: Parameters, s: int, *assumptions: Assumption, noise: FloatArray | None = None
) -> FloatArray:
    """Responses under each assumption, (A, J, K): what is missing filled with its conditional mean, or with a draw.

    Parameters
    ----------
    planned : Planned
    at : Parameters
    s : int
        Which of their draws.
    *assumptions : Assumption
        What they share, the regression on what was measured, is worked out once.
    noise : (J, K), optional
        Standard normal, for a draw.
    """
    mar = planned.X @ at.beta[s] + planned.offset
    means_of = [(*means(planned, at.beta[s], own.strategy), own.shifts(planned)) for own in assumptions]
    y, V = np.repeat(planned.visits.y[None], len(assumptions), axis=0), planned.covariances(at, s)
    for kind, rows, o, m in planned.incomplete:
        own, measured, missing = V[kind], np.ix_(rows, o), np.ix_(rows, m)
        gain = np.linalg.solve(own[np.ix_(o, o)], own[np.ix_(o, m)]).T
        given, drawn = planned.visits.y[measured], np.zeros(1)
        if noise is not None:
            drawn = noise[missing] @ np.linalg.cholesky(own[np.ix_(m, m)] - gain @ own[np.ix_(o, m)]).T
        at_random = mar[missing] + (given - mar[measured]) @ gain.T
        for filled, (base, after, shift) in zip(y, means_of, strict=True):
            assumed = after[missing] + (given - base[measured]) @ gain.T + shift[missing]
            filled[missing] = np.where(planned.after[missing], assumed, at_random) + drawn
    return y
