"""Sentences on means: the intercept, the slopes, and the means of groups; and where to look when no number says it.

Then what level 2 says: differences between groups, and changes per unit of numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray
from hierlmm.design.formula import variables_of
from hierlmm.design.questions import is_label
from hierlmm.effects.judge import Estimates
from hierlmm.frames import shorten
from hierlmm.interpret.coefficients import (
    Coefficient,
    by_subject,
    group_rows,
    group_text,
    is_factor,
    level2_rows,
    level2_variables,
)
from hierlmm.interpret.grammar import Sentence
from hierlmm.interpret.words import MAX_SENTENCES, Words
from hierlmm.text import number


def average_sentences(words: Words, section: str) -> Iterator[Sentence]:
    """Mean of every coefficient that can be read by itself, in each group of subjects."""
    kinds = {c.kind for c in words.coefficients}
    for c in words.coefficients:
        if c.kind != "part":
            yield from _averages(words, section, c, "cell" in kinds)
    if not kinds & {"intercept", "cell"}:
        yield words.say(section, "average.no_intercept" if words.family is None else "average.no_intercept_link")
    if "intercept" in kinds:
        yield from _outside(words, section)


def _averages(words: Words, section: str, c: Coefficient, cells: bool) -> Iterator[Sentence]:
    design = words.design
    if c.kind == "intercept" and words.fixed_intercept and not words.named_origin:
        yield words.say(section, "average.unnamed")
        return
    if not np.any(design.coef_level1 == c.position):
        if c.kind != "intercept":
            yield words.say(section, "average.no_average", name=c.name)
        elif not cells:  # the columns of a factor would hold the means
            of = "" if words.family is None else "_link"
            yield words.say(section, f"average.no_fixed_intercept{of}", where=words.where)
        return
    keys, L, mean = group_rows(design, c.position)
    if len(L) > MAX_SENTENCES:
        yield words.say(section, "average.many", name=c.name, n=len(L), keys=shorten(keys.columns))
        return
    level = c.kind in ("intercept", "cell")
    if level and words.in_categories:
        yield from _categories(words, section, c, [group_text(row, mean) for row in keys.to_dict("records")], L)
        return
    e = words.judged(L, level=level)
    for g, row in enumerate(keys.to_dict("records")):
        yield _average(words, section, c, group_text(row, mean), e, g)


def _average(words: Words, section: str, c: Coefficient, group: str, e: Estimates, g: int) -> Sentence:
    level = c.kind in ("intercept", "cell")
    words, slots, facts = words.stated(e, g, level=level, sign=not level)
    slots |= {"over": words.over(group), "mean": words.mean if level else words.moved}
    if level:
        at = words.where if c.kind == "intercept" else f"where {c.factor} = {c.label}, "
        return words.say(section, "average.mean", facts, at=at, unit=words.unit(), **slots)
    if c.kind == "difference":
        pair = words.phrase("pair", factor=c.factor, label=c.label, reference=c.reference)
        return words.say(section, "average_difference", facts, pair=pair, unit=words.unit(), **slots)
    x = words.x(c)
    return words.say(section, "average_slope", facts, x=x, unit=words.unit(x), **slots)


def _categories(words: Words, section: str, c: Coefficient, groups: list[str], L: FloatArray) -> Iterator[Sentence]:
    """Probabilities of the categories of an ordinal response, in each group."""
    names = [str(name) for name in words.fit.design.rows.categories]
    e = words.categories(L)
    for g, group in enumerate(groups):
        texts: list[str] = []
        facts: dict[str, float] = {}
        for name, k in zip(names, range(g * len(names), (g + 1) * len(names)), strict=True):
            own = {"estimate": e.estimate[k], "lower": e.lower[k], "upper": e.upper[k]}
            texts.append(f"{name} {number(own['estimate'])}{words.ends(own)[0]}")
            facts |= {f"{side}, {name}": float(value) for side, value in own.items()}
        at = words.where if c.kind == "intercept" else f"where {c.factor} = {c.label}, "
        yield words.say(section, "average.categories", facts, at=at, over=words.over(group), values=", ".join(texts))


def _outside(words: Words, section: str) -> Iterator[Sentence]:
    """Say so where the intercept is an extrapolation."""
    design, names = words.design, words.origin()[1]
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
    term = words.design.own_term
    parts = [c for c in words.coefficients if c.kind == "part"]
    if parts:
        variables = list(dict.fromkeys(v for c in parts for v in c.variables))
        numbers = [v for v in variables if not _acts_as_label(words, v)]
        slots = {"names": shorten([c.name for c in parts], 6), "variables": ", ".join(variables)}
        slots |= {"first": repr(variables[0]), "slope": repr(numbers[0]) if numbers else ""}
        slots |= {"number": repr(variables[0]) if variables[0] in numbers else ""}
        slots |= {"more": "; fit.plot_trajectories() draws the subjects' curves" if words.hierarchical else ""}
        yield words.say(section, "curve.parts", **slots)
    for v in curved(words):
        yield words.say(section, "curve.level2", variable=v, quoted=repr(v))
    if words.hierarchical and any(c.name in term for c in parts):
        yield words.say(section, "curve.random")


def _acts_as_label(words: Words, variable: str) -> bool:
    """Whether a column is used as labels."""
    design = words.design
    factors = {f for parts in design.level1_columns for f, _ in parts if is_factor(design, f)}
    columns = list(design.frame.columns)
    return is_label(design, variable) or any(variable in variables_of(f, columns) for f in factors)


def curved(words: Words) -> list[str]:
    """Level-2 numbers in which a level-1 coefficient is no straight line, over their range in the data."""
    design = words.design
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


class Difference(NamedTuple):
    """A difference of a coefficient between two values of a level-2 variable, ``d'β``, in one group."""

    pair: str
    group: str
    d: FloatArray
    depends: bool
    """Whether it changes with the numbers that stand at their mean here."""


def difference_sentences(words: Words, section: str) -> Iterator[Sentence]:
    """What level 2 says of every coefficient that can be read by itself."""
    design = words.design
    level2 = list(dict.fromkeys(v for k in range(len(design.level1)) for v in group_rows(design, k)[0].columns))
    for c in words.coefficients:
        if c.kind == "part" or not np.any(design.coef_level1 == c.position):
            continue
        keys, _, mean = group_rows(design, c.position)
        unnamed = c.kind == "intercept" and not words.named_origin
        for v in map(str, keys.columns):
            if unnamed and not _shift(words, v):
                yield words.say(section, "difference.unnamed", variable=v, quoted=repr(v), mean=words.moved)
                continue
            made = list(_of_variable(words, section, c, v, keys, mean))
            if len(made) > MAX_SENTENCES:
                how = "fit.contrasts(...)" if c.kind != "slope" else "fit.slopes(..., by=...).contrasts()"
                yield words.say(section, "difference.many", variable=v, n=len(made), name=_name(words, c), how=how)
            else:
                yield from made
        absent = [v for v in level2 if v not in keys.columns]
        if absent and c.kind != "cell" and not unnamed:
            yield words.say(section, "difference.same", name=_name(words, c), variables=" and ".join(absent))


def _shift(words: Words, v: str) -> bool:
    """Whether a level-2 variable explains the intercept only, so that its differences are the same everywhere."""
    design = words.design
    return not any(v in level2_variables(design, c.position) for c in words.coefficients if c.kind != "intercept")


def _name(words: Words, c: Coefficient) -> str:
    if c.kind == "intercept":
        where = words.where if words.named_origin else "at any values of the level-1 variables, "
        return f"{where}{words.moved}"
    if c.kind == "cell":
        return f"where {c.factor} = {c.label}, {words.moved}"
    if c.kind == "difference":
        return words.phrase("name_difference", factor=c.factor, label=c.label, reference=c.reference)
    return words.phrase("name_slope", x=words.x(c))


def _of_variable(
    words: Words, section: str, c: Coefficient, v: str, keys: pd.DataFrame, mean: dict[str, bool]
) -> Iterator[Sentence]:
    """Differences in one level-2 variable, for every combination of the others for which they are not the same."""
    if mean[v] and v in curved(words):
        return
    found = _differences(words, c, v, keys, mean)
    for pair in dict.fromkeys(own.pair for own in found):
        those = [own for own in found if own.pair == pair]
        distinct: list[Difference] = []
        for own in those:
            if not any(np.allclose(own.d, other.d, rtol=1e-10, atol=1e-12) for other in distinct):
                distinct.append(own)
        stated = len(distinct) > 1 or any(own.depends for own in those)
        for own in distinct:
            if np.any(own.d):
                yield _difference(words, section, c, v, own, own.group if stated else "")


def _differences(words: Words, c: Coefficient, v: str, keys: pd.DataFrame, mean: dict[str, bool]) -> list[Difference]:
    design = words.design
    others = [str(u) for u in keys.columns if u != v]
    most = {u: float(by_subject(design)[u].max()) for u in others if mean[u]}

    def gap(table: pd.DataFrame) -> FloatArray:
        first, second = level2_rows(design, c.position, table)
        return np.asarray(first - second)

    found = []
    for row in keys[others].drop_duplicates().to_dict("records") if others else [{}]:
        present = list(dict.fromkeys(keys[v]))
        if others and not mean[v]:
            same = np.logical_and.reduce([keys[u] == row[u] for u in others])
            present = [x for x in present if x in set(keys.loc[same, v])]
        for high in [present[0] + 1.0] if mean[v] else present[1:]:
            both = pd.DataFrame([{**row, v: high}, {**row, v: present[0]}])[list(keys.columns)]
            d = gap(both)
            depends = not np.allclose(d, gap(both.assign(**most)), rtol=1e-10, atol=1e-12)
            pair = "" if mean[v] else f"{_equal(v, high)} minus {_equal(v, present[0])}"
            found.append(Difference(pair, group_text(row, mean), d, depends))
    return found


def _equal(v: str, value: Any) -> str:
    return f"{v} = {value:.4g}" if isinstance(value, float) else f"{v} = {value}"


def _difference(words: Words, section: str, c: Coefficient, v: str, own: Difference, group: str) -> Sentence:
    e = words.judged(own.d[None, :], level=False)
    words, slots, facts = words.stated(e, 0, level=False, sign=True)
    within, x = words.phrase("within_group", group=group) if group else "", words.x(c) if c.kind == "slope" else None
    slots |= {"name": _name(words, c), "within": within, "unit": "" if words.base else words.unit(x)}
    if own.pair:
        kind = "ratio" if words.base else "difference"
        if words.family is not None and words.base and c.kind in ("intercept", "cell"):
            kind = words.of_family["ratio"]
        pair = own.pair.replace(" minus ", " over ") if words.base else own.pair
        return words.say(section, "difference.of_levels", facts, kind=kind, pair=pair, **slots)
    if words.base:
        return words.say(
            section,
            "difference.factor" if words.family is None else "difference.times",
            facts,
            per=words.per(v),
            **slots,
        )
    who, one = words.phrase("differ_by_one"), words.units.get(v, "unit")
    return words.say(section, "difference.per_unit", facts, who=who, one=one, variable=v, **slots)
