"""Sentences on means: the intercept, the slopes, and the means of groups; and where to look when no number says it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from hierlmm.design.formula import variables_of
from hierlmm.design.questions import is_label
from hierlmm.effects.judge import Estimates
from hierlmm.frames import shorten
from hierlmm.interpret.coefficients import Coefficient, by_subject, group_rows, group_text, is_factor, level2_rows
from hierlmm.interpret.grammar import Sentence
from hierlmm.interpret.judge import judged
from hierlmm.interpret.words import MAX_SENTENCES, Words
from hierlmm.text import number

__all__ = ["average_sentences", "curve_sentences", "curved"]


def average_sentences(words: Words, section: str) -> Iterator[Sentence]:
    """Mean of every coefficient that can be read by itself, in each group of subjects."""
    kinds = {c.kind for c in words.coefficients}
    for c in words.coefficients:
        if c.kind != "part":
            yield from _averages(words, section, c, "cell" in kinds)
    if not kinds & {"intercept", "cell"}:
        yield words.say(section, "average.no_intercept")
    if "intercept" in kinds:
        yield from _outside(words, section)


def _averages(words: Words, section: str, c: Coefficient, cells: bool) -> Iterator[Sentence]:
    design = words.fit.design
    if c.kind == "intercept" and words.fixed_intercept and not words.named_origin:
        yield words.say(section, "average.unnamed")
        return
    if not np.any(design.coef_level1 == c.position):
        if c.kind != "intercept":
            yield words.say(section, "average.no_average", name=c.name)
        elif not cells:  # the columns of a factor would hold the means
            yield words.say(section, "average.no_fixed_intercept", where=words.where)
        return
    keys, L, mean = group_rows(design, c.position)
    if len(L) > MAX_SENTENCES:
        yield words.say(section, "average.many", name=c.name, n=len(L), keys=shorten(keys.columns))
        return
    e = judged(words.fit, L, words.ci, words.df)
    for g, row in enumerate(keys.to_dict("records")):
        yield _average(words, section, c, group_text(row, mean), e, g)


def _average(words: Words, section: str, c: Coefficient, group: str, e: Estimates, g: int) -> Sentence:
    level = c.kind in ("intercept", "cell")
    words, slots, facts = words.stated(e, g, level=level, sign=not level)
    slots |= {"over": words.over(group), "mean": words.mean}
    if level:
        at = words.where if c.kind == "intercept" else f"where {c.factor} = {c.label}, "
        return words.say(section, "average.mean", facts, at=at, unit=words.unit(), **slots)
    if c.kind == "difference":
        pair = words.phrase("pair", factor=c.factor, label=c.label, reference=c.reference)
        return words.say(section, "average_difference", facts, pair=pair, unit=words.unit(), **slots)
    x = words.x(c)
    return words.say(section, "average_slope", facts, x=x, unit=words.unit(x), **slots)


def _outside(words: Words, section: str) -> Iterator[Sentence]:
    """Say so where the intercept is an extrapolation."""
    design, names = words.fit.design, words.origin()[1]
    columns = {v: design.frame[v].to_numpy(dtype=np.float64) for v in names}
    if not names:  # the origin is one of expressions, such as log(age) = 0
        columns = {words.x(c): design.X1[:, c.position] for c in words.coefficients if c.kind == "slope"}
    for v, column in columns.items():
        low, high = float(column.min()), float(column.max())
        if not low <= 0.0 <= high:
            facts = {"low": low, "high": high}
            yield words.say(section, "average.outside", facts, variable=v, low=number(low), high=number(high))


def curve_sentences(words: Words, section: str) -> Iterator[Sentence]:
    """Name the coefficients that cannot be read one by one, and what to look at instead."""
    term = words.fit.design.term
    parts = [c for c in words.coefficients if c.kind == "part"]
    if parts:
        variables = list(dict.fromkeys(v for c in parts for v in c.variables))
        numbers = [v for v in variables if not _acts_as_label(words, v)]
        yield words.say(
            section,
            "curve.parts",
            names=shorten([c.name for c in parts], 6),
            variables=", ".join(variables),
            first=repr(variables[0]),
            number=repr(variables[0]) if variables[0] in numbers else "",
            slope=repr(numbers[0]) if numbers else "",
            more="; fit.plot_trajectories() draws the subjects' curves" if words.hierarchical else "",
        )
    for v in curved(words):
        yield words.say(section, "curve.level2", variable=v, quoted=repr(v))
    if any(c.name in term for c in parts):
        yield words.say(section, "curve.random")


def _acts_as_label(words: Words, variable: str) -> bool:
    """Whether a column is used as labels."""
    design = words.fit.design
    factors = {f for parts in design.level1_columns for f, _ in parts if is_factor(design, f)}
    columns = list(design.frame.columns)
    return is_label(design, variable) or any(variable in variables_of(f, columns) for f in factors)


def curved(words: Words) -> list[str]:
    """Level-2 numbers in which a level-1 coefficient is no straight line, over their range in the data."""
    design = words.fit.design
    subjects = by_subject(design)
    found: list[str] = []
    for c in words.coefficients:
        keys, _, mean = group_rows(design, c.position)
        for v in [str(v) for v in keys.columns if mean[str(v)] and v not in found]:
            points = np.linspace(float(subjects[v].min()), float(subjects[v].max()), 5)
            table = pd.concat([keys.assign(**{v: x}) for x in points], ignore_index=True)
            rows = level2_rows(design, c.position, table).reshape(len(points), len(keys), -1)
            line = rows[0] + np.linspace(0.0, 1.0, 5)[:, None, None] * (rows[-1] - rows[0])
            if not np.allclose(rows, line, rtol=1e-9, atol=1e-9 * np.abs(rows).max()):
                found.append(v)
    return found
