"""Which fits a plot was given, and what of them can be drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hierlmm.design import questions
from hierlmm.design.design import Design
from hierlmm.design.formula import INTERCEPT
from hierlmm.design.telling import scale_text
from hierlmm.drawing.finishing import Entry
from hierlmm.drawing.theme import theme
from hierlmm.errors import NotAvailableError, SpecificationError, closest
from hierlmm.fits.base import Fit
from hierlmm.fits.posterior import PosteriorNumbers
from hierlmm.fits.side_by_side import SideBySide, label_fits


def pick_fits(
    fits: Fit | SideBySide | Mapping[str, Fit] | Sequence[Fit], labels: Sequence[str] | None
) -> dict[str, Fit]:
    """Return label -> fit from one fit, a `Comparison`, a mapping, or a sequence of fits."""
    if isinstance(fits, SideBySide):
        fits = fits.fits
    if isinstance(fits, Mapping):
        return label_fits(fits.values(), list(fits) if labels is None else labels)
    return label_fits([fits] if isinstance(fits, Fit) else fits, labels)


def pick_side_by_side(
    fits: Fit | SideBySide | Mapping[str, Fit] | Sequence[Fit], labels: Sequence[str] | None, ci: float | None
) -> tuple[dict[str, Fit], str, float]:
    """Return the fits by label, which is the reference, and the probability of intervals: a comparison's, or 0.95."""
    named = pick_fits(fits, labels)
    reference, own = next(iter(named)), 0.95
    if isinstance(fits, SideBySide) and labels is None:
        reference, own = fits.reference, fits.ci
    return named, reference, own if ci is None else ci


def colours_of(fits: Mapping[str, Fit]) -> dict[str, str]:
    """The colour of every fit, which is that of its estimator in all pictures."""
    return dict(zip(fits, theme().colours_of([fit.estimator for fit in fits.values()]), strict=True))


def legend_of(colours: Mapping[str, str], **look: Any) -> list[Entry]:
    """Entries of the legend for several fits, which are drawn by these marks; none for one."""
    return [Entry(label, colour, **look) for label, colour in colours.items()] if len(colours) > 1 else []


def one_named(fit: Fit | SideBySide) -> tuple[str, Fit]:
    """Return the fit, or the reference fit of a `Comparison`, and its name."""
    return (fit.reference if isinstance(fit, SideBySide) else fit.estimator), one_fit(fit)


def one_fit(fit: Fit | SideBySide) -> Fit:
    """Return the fit, or the reference fit of a `Comparison`."""
    return fit.fits[fit.reference] if isinstance(fit, SideBySide) else next(iter(label_fits([fit]).values()))


def choose_terms(design: Design, terms: str | Sequence[str] | None, use: str = "use") -> list[str]:
    """Return the random effects that were asked for, all of them by default."""
    known = list(design.own_term)
    wanted = known if terms is None else [terms] if isinstance(terms, str) else list(terms)
    if not wanted:
        raise SpecificationError("terms=[]", "there is nothing to draw", f"{use} {', '.join(map(repr, known))}")
    for term in wanted:
        if term not in known:
            reason = f"no random effect has this name.{closest(term, known)}"
            raise SpecificationError(f"terms={term!r}", reason, f"{use} {', '.join(map(repr, known))}")
    return wanted


def refuse_without_effects(fit: Fit, what: str) -> None:
    """Raise a `NotAvailableError` if the fit has no random effects to draw, or has not kept them."""
    if fit.has_random_effects:
        if isinstance(fit, PosteriorNumbers):
            fit.need_effects(what)
        return
    model = "a marginal model" if not fit.design.term else f"a fit by {fit.estimator}"
    reason = "it has no random effects: nothing in it belongs to one subject"
    remedy = "fit a hierarchy, hl.TwoLevelModel(...).fit_reml(), or draw the mean: plot_trajectories(show='population')"
    raise NotAvailableError(f"{what} of {model}", reason, remedy, "docs, page 'Hierarchical and marginal models'")


def unit_of(design: Design, term: str) -> str:
    """Unit of a level-1 coefficient: ``mm per year`` where units are known, else ``reaction per unit of days``."""
    linked = bool(scale_text(design))
    if not linked and (known := questions.unit_of(design, None if term == INTERCEPT else term)):
        return known
    response = design.hierarchy.response if not linked else f"{design.family.link} scale"
    return response if term == INTERCEPT else f"{response} per unit of {term}"
