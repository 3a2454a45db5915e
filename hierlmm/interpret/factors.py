"""Sentences on several grouping factors: how much groups differ, where the variance lies, who shares what."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from hierlmm.design.design import Design
from hierlmm.design.factors import coarser, finest_first, relations
from hierlmm.design.formula import INTERCEPT
from hierlmm.fits.components import zero_terms
from hierlmm.implied.sharing import SAME, shared_groups
from hierlmm.interpret.grammar import Sentence
from hierlmm.interpret.words import MAX_SENTENCES, Words
from hierlmm.text import listed, number, percentage

NORMAL = 1.959963984540054
"""97.5 % quantile of the normal distribution."""


def model_sentences(words: Words, section: str) -> Iterator[Sentence]:
    """Rows and groups, and what is nested in what."""
    fit, sizes = words.fit, finest_first(words.fit.design)
    facts = {"rows": fit.n_obs, **sizes}
    groups = listed([f"{n:,} groups of {name}" for name, n in sizes.items()])
    yield words.say(section, "factors.rows", facts, rows=fit.n_obs, groups=groups, **_fitted(words))
    if found := relations(fit.design):
        yield words.say(section, "factors.relations", told="; ".join(found))


def _fitted(words: Words) -> dict[str, str]:
    return {"estimator": words.fit.estimator, "method": words.method}


def between_sentences(words: Words, section: str) -> Iterator[Sentence]:
    """SD of every random effect, and the range of the groups that follows."""
    table = words.fit.variance_components(words.ci)
    own = {term.columns.group: term.columns for term in words.fit.design.random}
    for name in finest_first(words.fit.design):
        for term, column in zip(own[name].names, own[name].columns, strict=True):
            row = table.loc[f"sd({term} | {name})"]
            yield from _spread(words, section, name, term, int(column), row)


def _spread(words: Words, section: str, name: str, term: str, column: int, row: Any) -> Iterator[Sentence]:
    design, sd = words.fit.design, float(row["estimate"])
    (own,) = (other.columns.names for other in design.random if other.columns.group == name)
    effect = _effect(words, term, [other for other in own if other != INTERCEPT])
    if f"{term} | {name}" in zero_terms(words.fit):
        yield words.say(section, "factors.none", factor=name, term=effect)
        return
    told, facts = words.ends(row)
    slots = {"unit": words.sd_unit(None if term == INTERCEPT else term), "factor": name, "term": effect}
    above = coarser(design, name)  # their own spread comes on top, if groups of different ones are compared
    nearest = [own for own in above if not any(own in coarser(design, other) for other in above)]
    around = f"those of one {' and one '.join(nearest)}" if nearest else "all"
    yield words.say(section, "factors.spread", {"sd": sd, **facts}, sd=number(sd), ends=told, **slots)
    half, parts = NORMAL * sd, design.level1_columns[column]
    with_it = [c for c, fixed in enumerate(design.fixed_columns) if set(parts) <= set(fixed.parts)]
    if term == INTERCEPT or len(with_it) != 1:
        yield words.say(section, "factors.range", {"half": half}, half=number(half), around=around, **slots)
        return
    average = float(words.fit.beta.iloc[with_it[0]])
    ends = {"low": average - half, "high": average + half}
    yield words.say(section, "factors.slopes", ends, **{k: number(v) for k, v in ends.items()}, **slots)


def _effect(words: Words, term: str, slopes: Sequence[str]) -> str:
    at = " where " + " and ".join(f"{name} = 0" for name in slopes) if slopes else ""
    return f"their mean of {words.response}{at}" if term == INTERCEPT else f"their coefficient of {term}"


def shares_sentences(words: Words, section: str) -> Iterator[Sentence]:
    """How the variance divides between the factors and the rows, and where most of it lies."""
    if any(own.columns.names != (INTERCEPT,) for own in words.fit.design.random):
        yield words.say(section, "factors.no_shares")
        return
    icc: Any = words.fit.icc
    shares = {f"between groups of {name}": float(icc[name]) for name in finest_first(words.fit.design)}
    shares["within groups of all factors"] = 1.0 - float(icc.sum())
    texts = [f"{percentage(value)} lies {where}" for where, value in shares.items()]
    most = max(shares, key=lambda where: shares[where])
    yield words.say(section, "factors.shares", shares, shares=listed(texts), most=most)


def sharing_sentences(words: Words, section: str) -> Iterator[Sentence]:
    """Correlations of two rows by the groups that they share."""
    fit: Any = words.fit
    found = shared_groups(fit, None, None, words.ci, 0, None)
    design = words.fit.design
    names = list(finest_first(design))
    at = "".join(f" where {name} = {value[0]:.4g}" for name, value in found.at.items() if isinstance(value[0], float))
    for row in found.pairs.iloc[:MAX_SENTENCES].to_dict("records"):
        shared = [name for name in names if row[name] == SAME]
        implied = {above for name in shared for above in coarser(design, name)}
        said = [f"one {name}" for name in shared if name not in implied]
        others = [name for name in names if name not in shared and name not in _needless(design, names, shared)]
        who = f"of {' and '.join(said)}" if said else "that share no group"
        other = f"but not of one {' or '.join(others)}" if said and others else ""
        value = float(row["correlation"])
        slots = {"who": who, "other": other, "value": f"{value:z.2f}", "at": at, "pairs": f"{row['pairs']:,}"}
        yield words.say(section, "factors.sharing", {"correlation": value, "pairs": row["pairs"]}, **slots)
    if len(found.pairs) > MAX_SENTENCES:
        yield words.say(section, "factors.more", n=len(found.pairs) - MAX_SENTENCES)


def _needless(design: Design, names: list[str], shared: list[str]) -> set[str]:
    """Factors whose groups differ because a coarser one's do."""
    apart = [name for name in names if name not in shared]
    return {name for name in apart if set(coarser(design, name)) & set(apart)}
