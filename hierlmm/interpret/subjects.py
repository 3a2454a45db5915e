"""Coefficients of given subjects, compared.

The coefficient of subject i is ``c_i = l_i'β + b_ki``: level 2's part and the random effect. Posterior: the draws of
c_a - c_b. Likelihood: given θ, ``b_i | y, β ~ N(o_i - K_i β, M_i)`` independently over subjects and
``β | y ~ N(β̂, V)``, hence

    c_a - c_b | y, θ ~ N(g'β̂ + o_a - o_b, g'Vg + M_a + M_b),     g = (l_a - K_a) - (l_b - K_b),

with Henderson's prediction-error variance. How the uncertainty of θ enters: `hierlmm.interpret.theta`.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray
from hierlmm.bayes.convergence import diagnostics
from hierlmm.errors import DataError, NotAvailableError, SpecificationError, closest
from hierlmm.fits.base import Fit
from hierlmm.fits.components import constant_terms
from hierlmm.frames import quote
from hierlmm.interpret.coefficients import (
    coefficient_notes,
    need_effects,
    position_of,
    random_effect,
    subject_rows,
    tails,
)
from hierlmm.interpret.grammar import render
from hierlmm.interpret.theta import DRAWS, Difference, difference
from hierlmm.options import checked
from hierlmm.results import Page, Result
from hierlmm.text import span

SEE = "docs, page 'In words'"


@checked
@dataclass(frozen=True, repr=False)
class SubjectComparison(Result):
    """The difference between two subjects' coefficients (made by ``fit.compare_subjects()``). Frozen.

    Attributes
    ----------
    a, b
        The subjects.
    term : str
        The level-1 coefficient.
    coefficient_a, coefficient_b : float
        Their coefficients: level 2's part and the random effect.
    estimate, se, lower, upper : float
        A's coefficient minus B's, its standard deviation and interval of probability ``ci``.
    probability : float
        That A's coefficient is larger than B's.
    mcse : float
        Monte-Carlo standard error of the probability; 0 where it is no simulation, NaN if all draws agree.
    """

    a: Any
    b: Any
    term: str
    coefficient_a: float
    coefficient_b: float
    estimate: float
    se: float
    lower: float
    upper: float
    probability: float
    mcse: float
    ci: float
    estimator: str
    notes: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The comparison in words."""
        shown = "more than 0.999" if self.probability > 0.999 else f"{self.probability:z.3f}"
        slots = {"term": self.term, "a": self.a, "b": self.b, "ci": f"{100 * self.ci:g}"}
        slots |= {name: f"{getattr(self, name):.4g}" for name in ("coefficient_a", "coefficient_b", "estimate")}
        slots |= {"kind": "posterior probability" if "posterior draws" in self.notes[0] else "probability"}
        slots |= {"probability": "less than 0.001" if self.probability < 0.001 else shown}
        slots |= {"span": span(self.lower, self.upper), "mcse": f"{self.mcse:.2g}" if self.mcse > 0.0 else ""}
        return render("subjects.comparison", **slots)

    @property
    def table(self) -> pd.DataFrame:
        """The numbers in one row."""
        names = [f.name for f in fields(self) if f.name not in ("notes", "ci", "estimator")]
        return pd.DataFrame([{name: getattr(self, name) for name in names}])

    def _page(self) -> Page:
        return Page(f"Two subjects ({self.estimator})", [self.text, *self.notes])


def compare_subjects(fit: Fit, a: Any, b: Any, term: str | None = None, *, ci: float = 0.95) -> SubjectComparison:
    """Compare two subjects' coefficients; see `hierlmm.fits.base.Fit.compare_subjects`."""
    need_effects(fit, "compare_subjects")
    design = fit.design
    places = [_place(fit, subject) for subject in (a, b)]
    if places[0] == places[1]:
        raise SpecificationError(f"subject {quote(a)} twice", "a subject does not differ from itself", "name two", SEE)
    k = position_of(design, term, what="compare_subjects")
    _refuse_equal(fit, k, places, a, b)
    mean, draws = _both(fit, k, places)
    if draws is None:
        found = difference(fit, subject_rows(design, k)[places], places, random_effect(design, k), ci)
        notes = [_how(found, fit.is_singular)]
    else:
        found = _of_draws(draws, float(mean[0] - mean[1]), ci)
        notes = [f"Share of {draws.size} posterior draws."]
        if np.isnan(found.mcse):
            notes.append(render("subjects.agree"))
    notes += coefficient_notes(design, k)
    names = (design.level1[k], float(mean[0]), float(mean[1]))
    return SubjectComparison(a, b, *names, *found[:6], ci, fit.estimator, tuple(notes))


def _of_draws(draws: FloatArray, estimate: float, ci: float) -> Difference:
    """A difference by its draws, (chain, draw)."""
    larger = (draws > 0.0).astype(np.float64)
    mcse = float(diagnostics(larger[..., None], ["larger"])["mcse"].iloc[0])
    lower, upper = (float(q) for q in np.quantile(draws, tails(ci)))
    return Difference(estimate, float(draws.std(ddof=1)), lower, upper, float(larger.mean()), mcse, None)


def _how(found: Difference, singular: bool) -> str:
    """How a likelihood fit's interval and probability were made."""
    if found.df is None:
        return render("subjects.averaged", draws=DRAWS, state="singular" if singular else "nearly singular")
    law = "Normal" if np.isinf(found.df) else f"Student's t with {found.df:z.1f} degrees of freedom (Satterthwaite)"
    return render("subjects.law", law=law)


def _both(fit: Any, k: int, places: list[int]) -> tuple[FloatArray, FloatArray | None]:
    """Coefficients of two subjects (2,), and draws of their difference (chain, draw) of a posterior."""
    L, r = subject_rows(fit.design, k)[places], random_effect(fit.design, k)
    if fit.has_draws:
        own = fit.draws("beta") @ L.T + (0.0 if r is None else fit.draws("b")[:, :, places, r])
        return own.mean(axis=(0, 1)), own[..., 0] - own[..., 1]
    return L @ fit.beta.to_numpy() + (0.0 if r is None else fit.b.to_numpy()[places, r]), None


def _refuse_equal(fit: Fit, k: int, places: list[int], a: Any, b: Any) -> None:
    """Refuse where the fit gives both subjects one and the same coefficient."""
    design, name = fit.design, fit.design.level1[k]
    L = subject_rows(design, k)[places]
    if not np.array_equal(L[0], L[1]) or (name in design.own_term and name not in constant_terms(fit)):
        return
    why = (
        "its estimated variance between subjects is zero" if name in design.own_term else "it does not vary by subject"
    )
    received = f"subjects {quote(a)} and {quote(b)} compared in {name!r}"
    reason = f"the fit gives both the same coefficient: {why}, and their level-2 covariates are equal"
    raise NotAvailableError(received, reason, "compare another coefficient, or subjects of different groups", SEE)


def _place(fit: Fit, subject: Any) -> int:
    subjects = fit.design.subjects
    try:
        single = isinstance(subject, Hashable) and not isinstance(subject, tuple)
        found = np.flatnonzero(subjects == subject) if single else np.empty(0, dtype=np.intp)
    except (TypeError, ValueError):
        found = np.empty(0, dtype=np.intp)
    if isinstance(subject, (list, tuple, np.ndarray)) or len(found) != 1:
        same = [s for s in subjects if str(s) == str(subject)]
        reason = f"it is not in the fitted data.{closest(str(subject), map(str, subjects))}"
        remedy = "use a label of fit.b.index"
        if same:
            kinds = [type(v.item() if isinstance(v, np.generic) else v).__name__ for v in (subject, same[0])]
            reason = f"it is of type {kinds[0]}; the fitted data have {quote(same[0])} of type {kinds[1]}"
            remedy = f"use {quote(same[0])}: a label as fit.b.index has it"
        raise DataError(f"subject {quote(subject)}", reason, remedy, SEE)
    return int(found[0])
