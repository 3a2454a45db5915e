"""A fit in plain words: warnings first, then level 1, level 2 and what is left, each number with its uncertainty."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hierlmm.design.formula import unquoted
from hierlmm.design.telling import several
from hierlmm.errors import SpecificationError, closest
from hierlmm.fits.base import Fit
from hierlmm.frames import shorten
from hierlmm.interpret import factors, means, variation
from hierlmm.interpret.coefficients import level2_variables
from hierlmm.interpret.grammar import Sentence, sentence
from hierlmm.interpret.words import Words, words_of
from hierlmm.likelihood.wald import BY_DEFAULT, Asked
from hierlmm.options import checked
from hierlmm.results import Items, Page, Result
from hierlmm.text import number, wrap

FIRST = "Read this first"
MODEL = "The model"
LIMITS = "What this does not say"
SEE = "docs, page 'In words'"
HIERARCHY = (
    (means.average_sentences, "Level 1: the average regression"),
    (means.curve_sentences, "Level 1: the average regression"),
    (means.difference_sentences, "Level 2: differences between groups of subjects"),
    (variation.between_sentences, "Level 2: how much subjects differ"),
    (variation.correlation_sentences, "Level 2: do coefficients go together"),
    (variation.within_sentences, "Level 1: within subjects"),
)
POPULATION = (
    (means.average_sentences, "The mean"),
    (means.curve_sentences, "The mean"),
    (means.difference_sentences, "Differences in the mean"),
    (variation.marginal_covariance_sentences, "Around the mean"),
)
"""What is said of a fit with and without coefficients of subjects, in this order."""
FACTORS = (
    *POPULATION[:-1],
    (factors.between_sentences, "How much groups differ"),
    (factors.shares_sentences, "Where the variance lies"),
    (variation.rest_sentences, "Where the variance lies"),
    (factors.sharing_sentences, "Who shares what"),
)
"""The same with several grouping factors."""


def interpret(
    fit: Fit, *, ci: float = 0.95, how: Asked = BY_DEFAULT, units: Mapping[str, str] | None = None
) -> Interpretation:
    """Put a fit into words; see `hierlmm.fits.base.Fit.interpret`."""
    if units is not None and not isinstance(units, Mapping):
        received = f"units={units!r}"
        remedy = f"name the column: units={{{unquoted(fit.design.hierarchy.response)!r}: 'mm'}}"
        raise SpecificationError(received, "units are words for columns of the model, each with its own", remedy, SEE)
    for name, unit in (units or {}).items():
        if name not in fit.design.frame.columns or not isinstance(unit, str) or not unit.strip():
            received = f"units={{{name!r}: {unit!r}}}"
            remedy = f"use names among {shorten(map(repr, fit.design.frame.columns))}: units={{'time': 'year'}}"
            raise SpecificationError(received, "units are words for columns of the model", remedy, SEE)
    words = words_of(fit, ci, how, units)
    made = [] if fit.converged else [words.say(FIRST, "fit.not_converged")]
    made += [sentence(FIRST, " ".join(warning.split()), {}) for warning in fit.warnings]
    made += _model(words)
    several = fit.design.has_several_factors
    for sentences, section in FACTORS if several else HIERARCHY if words.hierarchical else POPULATION:
        made += sentences(words, section)
    kind = "groups" if several else "subjects" if words.hierarchical else "populations"
    made.append(words.say(LIMITS, "fit.limits", kind=kind))
    return Interpretation(f"{words.response} in words ({fit.estimator})", tuple(made))


def _model(words: Words) -> Iterator[Sentence]:
    fit, hierarchy = words.fit, words.fit.design.hierarchy
    yield from factors.model_sentences(words, MODEL) if fit.design.has_several_factors else _subjects(words)
    if not fit.design.is_gaussian:
        yield words.say(MODEL, "fit.family", family=fit.design.family, told=_told(words))
        if words.hierarchical and fit.design.family.link != "identity":
            yield words.say(MODEL, f"fit.conditional{'_shares' if fit.design.family.name == 'ordinal' else ''}")
    elif words.base:
        yield words.say(MODEL, "fit.log", base={10.0: "10", 2.0: "2"}.get(words.base, "e"))
    elif not words.plain:
        yield words.say(MODEL, "fit.transformed")
    exposure = fit.design.outcome.exposure
    if offsets := [o for o in hierarchy.offsets if o not in fit.design.outcome.offsets]:
        yield words.say(
            MODEL, "fit.offset" if words.family is None else "fit.offset_link", names=", ".join(map(unquoted, offsets))
        )
    if exposure is not None:
        mean = float(fit.design.frame[exposure].mean()) if exposure in fit.design.frame else 1.0
        slots = {"per": words.per(exposure), "exposure": exposure, "quoted": repr(exposure), "at": number(mean)}
        yield words.say(MODEL, "fit.exposure", {"at": mean}, **slots)


def _subjects(words: Words) -> Iterator[Sentence]:
    """Rows and subjects, and what varies between these."""
    fit, hierarchy = words.fit, words.fit.design.hierarchy
    facts = {"rows": fit.n_obs, "subjects": fit.n_subjects}
    names = {"subject": hierarchy.subject, "estimator": fit.estimator, "method": words.method}
    yield words.say(MODEL, "fit.rows", facts, **facts, **names)
    if words.hierarchical:
        inner = [unquoted(t) for t in dict.fromkeys(f for term in hierarchy.level1_terms for f in term)]
        own = f"a mean of {words.response} of its own"
        if inner:
            own = f"a regression of its own of {words.response} on {', '.join(inner)}"
        if words.family is not None:
            own = own.replace(f"of {words.response}", f"of the {words.of_family['line']}")
        terms = shorten(fit.design.own_term)
        yield words.say(MODEL, "fit.hierarchy", own=own, level2=_explained(fit), terms=terms)
    else:
        yield words.say(MODEL, "fit.population")


def _explained(fit: Fit) -> str:
    """Variables of level 2, with the coefficients that each explains where these are not all."""
    design = fit.design
    explained = [k for k in range(len(design.level1)) if np.any(design.coef_level1 == k)]
    texts = []
    for variable in design.level2_variables():
        own = [design.level1[k] for k in explained if variable in level2_variables(design, k)]
        texts.append(variable if len(own) == len(explained) else f"{variable} ({shorten(own)} alone)")
    return ", ".join(texts)


def _told(words: Words) -> str:
    """How coefficients of a model with a family are told."""
    if words.family is None:
        return ""
    return words.phrase("told", ratios=several(words.of_family["ratio"]))


@checked
@dataclass(frozen=True, repr=False)
class Interpretation(Result):
    """A fit in plain words (made by ``fit.interpret()``). Frozen.

    Attributes
    ----------
    title : str
    sentences : tuple of Sentence
        Each with its section and its numbers; ``str(sentence)`` is the text.
    """

    title: str
    sentences: tuple[Sentence, ...]

    @property
    def text(self) -> str:
        """All sentences, by section."""
        return repr(self)

    @property
    def facts(self) -> pd.DataFrame:
        """The numbers, one in a row: ``section``, ``sentence`` (its position), ``fact``, ``value``."""
        rows = [(s.section, i, name, value) for i, s in enumerate(self.sentences) for name, value in s.facts.items()]
        return pd.DataFrame(rows, columns=["section", "sentence", "fact", "value"])

    def section(self, name: str) -> tuple[Sentence, ...]:
        """Sentences of one section, by its title.

        Parameters
        ----------
        name : str
            The title.

        Raises
        ------
        SpecificationError
            If there is no such section.
        """
        titles = list(dict.fromkeys(s.section for s in self.sentences))
        if name not in titles:
            reason = f"these sentences have no such section.{closest(str(name), titles)}"
            remedy = f"use one of {', '.join(map(repr, titles))}"
            raise SpecificationError(f"section {name!r}", reason, remedy, "docs, page 'In words'")
        return tuple(s for s in self.sentences if s.section == name)

    @property
    def frame(self) -> pd.DataFrame:
        """The numbers, as in `facts`."""
        return self.facts

    def _page(self) -> Page:
        parts: list[str | Items] = []
        for section in dict.fromkeys(s.section for s in self.sentences):
            texts = [s.text for s in self.section(section)]
            printed = [section, *wrap(texts, initial_indent="- ", subsequent_indent="  ")]
            parts += ["", Items(section, texts, printed)]
        return Page(self.title, parts)
