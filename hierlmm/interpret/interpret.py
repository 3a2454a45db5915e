"""A fit in plain words: warnings first, then level 1, level 2 and what is left, each number with its uncertainty."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hierlmm.design.formula import unquoted
from hierlmm.errors import SpecificationError
from hierlmm.fits.base import Fit
from hierlmm.frames import shorten
from hierlmm.interpret.average import average_sentences, curve_sentences, difference_sentences, say
from hierlmm.interpret.interpretation import Interpretation, Sentence
from hierlmm.interpret.judge import check_probability
from hierlmm.interpret.spread import (
    between_sentences,
    correlation_sentences,
    marginal_covariance_sentences,
    within_sentences,
)
from hierlmm.interpret.words import Words, words_of

__all__ = ["interpret"]

FIRST = "Read this first"
MODEL = "The model"
LIMITS = "What this does not say"
SEE = "docs, page 'In words'"


def interpret(
    fit: Fit, *, ci: float = 0.95, df: str | None = None, units: Mapping[str, str] | None = None
) -> Interpretation:
    """Put a fit into words; see `hierlmm.fits.base.Fit.interpret`."""
    ci = check_probability("ci", ci)
    if units is not None and not isinstance(units, Mapping):
        raise SpecificationError(
            f"units={units!r}",
            "units are words for columns of the model, each with its own",
            f"name the column: units={{{unquoted(fit.design.hierarchy.response)!r}: 'mm'}}",
            SEE,
        )
    for name, unit in (units or {}).items():
        if name not in fit.design.frame.columns or not isinstance(unit, str) or not unit.strip():
            raise SpecificationError(
                f"units={{{name!r}: {unit!r}}}",
                "units are words for columns of the model",
                f"use names among {shorten(map(repr, fit.design.frame.columns))}: units={{'time': 'year'}}",
                SEE,
            )
    words = words_of(fit, ci, df, units)
    made = [*_warnings(fit), *_model(words)]
    if words.hierarchical:
        made += average_sentences(words, "Level 1: the average regression")
        made += curve_sentences(words, "Level 1: the average regression")
        made += difference_sentences(words, "Level 2: differences between groups of subjects")
        made += between_sentences(words, "Level 2: how much subjects differ")
        made += correlation_sentences(words, "Level 2: do coefficients go together")
        made += within_sentences(words, "Level 1: within subjects")
    else:
        made += average_sentences(words, "The mean")
        made += curve_sentences(words, "The mean")
        made += difference_sentences(words, "Differences in the mean")
        made += marginal_covariance_sentences(words, "Around the mean")
    made += _limits(words)
    return Interpretation(f"{fit.design.hierarchy.response} in words ({fit.estimator})", tuple(made))


def _warnings(fit: Fit) -> Iterator[Sentence]:
    if not fit.converged:
        yield say(
            FIRST,
            "This fit did not converge. The sentences below describe its numbers, which may be wrong; use none of "
            "them before that is solved.",
        )
    for warning in fit.warnings:
        yield say(FIRST, " ".join(warning.split()))


def _model(words: Words) -> Iterator[Sentence]:
    fit, design = words.fit, words.fit.design
    response = design.hierarchy.response
    yield say(
        MODEL,
        f"{fit.n_obs} rows of {fit.n_subjects} subjects ({design.hierarchy.subject}), fitted by {fit.estimator}. "
        f"Intervals of means and slopes: {words.method}.",
        rows=fit.n_obs,
        subjects=fit.n_subjects,
    )
    level2 = design.level2_variables()
    if words.hierarchical:
        inner = [unquoted(t) for t in dict.fromkeys(f for term in design.hierarchy.level1_terms for f in term)]
        own = (
            f"a regression of its own of {response} on {', '.join(inner)}"
            if inner
            else f"a mean of {response} of its own"
        )
        by = f"by {', '.join(level2)} and " if level2 else ""
        yield say(
            MODEL,
            f"Level 1 gives every subject {own}. Level 2 lets its coefficients differ {by}by random deviations, "
            f"taken as normal, of {shorten(design.term)}.",
        )
    else:
        yield say(
            MODEL,
            "The model describes the mean in the population and how rows of one subject vary together. "
            "It holds no line "
            "of any single subject.",
        )
    if words.base:
        base = {10.0: "10", 2.0: "2"}.get(words.base, "e")
        yield say(
            MODEL,
            f"The response is {response}: the model is additive on the log scale (base {base}), hence "
            f"multiplicative for "
            f"{words.quantity}. Coefficients are turned back into ratios and geometric means; SDs stay on the log "
            "scale, as do numbers too far from the data to be turned back.",
        )
    elif not words.plain:
        yield say(
            MODEL,
            f"All numbers are on the scale of {response}; they do not carry over to the scale before the "
            "transformation.",
        )
    if design.hierarchy.offsets:
        names = ", ".join(design.hierarchy.offsets)
        yield say(
            MODEL,
            f"The offset {names} is added to every row with coefficient 1: means, slopes and differences below are "
            f"those of {response} minus the offset.",
        )


def _limits(words: Words) -> Iterator[Sentence]:
    kind = "subjects" if words.hierarchical else "populations"
    yield say(
        LIMITS,
        f"These sentences describe the data under the model. A difference between {kind} is a difference, whatever "
        "brought it about; and a model that fits badly is described as readily as one that fits well.",
    )
