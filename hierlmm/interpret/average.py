"""Sentences on means: the intercept, the slopes, what level 2 says of groups, and differences between them."""

from __future__ import annotations

from collections.abc import Iterator
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.design.formula import unquoted, variables_of
from hierlmm.design.questions import is_label
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
from hierlmm.interpret.interpretation import Sentence
from hierlmm.interpret.judge import judged
from hierlmm.interpret.words import Words
from hierlmm.text import number

__all__ = ["average_sentences", "curve_sentences", "difference_sentences", "say"]

FloatArray = NDArray[np.float64]
MAX_SENTENCES = 12
"""Most groups (or differences) of one coefficient that get a sentence of their own."""


def say(section: str, text: str, **facts: float) -> Sentence:
    """A sentence with the numbers that it states."""
    return Sentence(section, text[:1].upper() + text[1:], MappingProxyType({k: float(v) for k, v in facts.items()}))


def where(words: Words) -> str:
    """``where time = 0, `` before a statement on the intercept; empty without another level-1 column."""
    point, _ = words.origin()
    return f"where {point}, " if point else ""


def average_sentences(words: Words, section: str) -> Iterator[Sentence]:
    """Mean of every coefficient that can be read by itself, in each group of subjects."""
    design = words.fit.design
    for c in words.coefficients:
        if c.kind == "part":
            continue
        if c.kind == "intercept" and words.fixed_intercept and not words.named_origin:
            yield say(
                section,
                "The intercept is the mean where every other column of level 1 is zero, which is no point that "
                "can be named: look at fit.marginal_means(...).",
            )
            continue
        if not np.any(design.coef_level1 == c.position):
            if c.kind == "intercept" and any(other.kind == "cell" for other in words.coefficients):
                continue  # the columns of a factor hold the means
            if c.kind == "intercept":
                yield say(
                    section,
                    f"{where(words)}the model has no fixed intercept: the mean of "
                    f"{design.hierarchy.response} is zero there by assumption.",
                )
            else:
                yield say(
                    section, f"The model has no average of {c.name}: its mean over subjects is zero by assumption."
                )
            continue
        keys, L, mean = group_rows(design, c.position)
        if len(L) > MAX_SENTENCES:
            yield say(
                section,
                f"Level 2 gives {c.name} a mean in each of {len(L)} groups ({shorten(keys.columns)}): see "
                "fit.marginal_means(...) and fit.slopes(...).",
            )
            continue
        e = judged(words.fit, L, words.ci, words.df)
        for g, row in enumerate(keys.to_dict("records")):
            yield _average(words, section, c, group_text(row, mean), e, g)
    if not any(c.kind in ("intercept", "cell") for c in words.coefficients):
        yield say(
            section,
            "The model has no intercept: its mean is zero where every column of level 1 is zero, by assumption.",
        )
    yield from _outside(words, section)


def _average(words: Words, section: str, c: Coefficient, group: str, e: Any, g: int) -> Sentence:
    level = c.kind in ("intercept", "cell")
    words = words.for_values(e.estimate[g], e.lower[g], e.upper[g], level=level)
    value = words.back(e.estimate[g])
    interval, facts = words.interval(e, g)
    sign, more = ("", {}) if c.kind in ("intercept", "cell") else words.sign(e, g)
    over = words.over(group)
    log = f" ({number(e.estimate[g])} on the log scale)" if words.base else ""
    facts |= more | {"estimate": value} | ({"log_estimate": float(e.estimate[g])} if words.base else {})
    at = where(words) if c.kind == "intercept" else f"where {c.factor} = {c.label}, " if c.kind == "cell" else ""
    if at:
        return say(section, f"{at}{words.mean} {over} is {words.show(value)}{words.unit()}{log} ({interval}).", **facts)
    if c.kind == "intercept":
        return say(section, f"{words.mean} {over} is {words.show(value)}{words.unit()}{log} ({interval}).", **facts)
    if c.kind == "difference":
        pair = f"{c.factor} = {c.label} minus {c.factor} = {c.reference}"
        if words.base:
            pair = pair.replace(" minus ", " over ")
            return say(
                section,
                f"The ratio of {words.quantity}, {pair}, averages {words.show(value)}{log} {over} ({interval}{sign}).",
                **facts,
            )
        return say(
            section,
            f"The difference in {words.quantity}, {pair}, averages {words.show(value)}{words.unit()} {over} "
            f"({interval}{sign}).",
            **facts,
        )
    x = unquoted(words.fit.design.level1_columns[c.position][0][0])
    if words.base:
        return say(
            section,
            f"{over}, {words.mean} is multiplied by {words.show(value)} per unit of {x}{log} ({interval}{sign}).",
            **facts,
        )
    kind = "the average slope" if words.hierarchical else "the slope of the mean"
    return say(
        section,
        f"{kind} of {words.quantity} on {x} {over} is {words.show(value)}{words.unit(x)} ({interval}{sign}).",
        **facts,
    )


def _outside(words: Words, section: str) -> Iterator[Sentence]:
    """Say so where the intercept is an extrapolation."""
    if not any(c.kind == "intercept" for c in words.coefficients):
        return
    design, names = words.fit.design, words.origin()[1]
    columns = {v: design.frame[v].to_numpy(dtype=np.float64) for v in names}
    if not names:  # the origin is one of expressions, such as log(age) = 0
        slopes = [c for c in words.coefficients if c.kind == "slope"]
        columns = {unquoted(design.level1_columns[c.position][0][0]): design.X1[:, c.position] for c in slopes}
    for v, column in columns.items():
        low, high = float(column.min()), float(column.max())
        if not low <= 0.0 <= high:
            yield say(
                section,
                f"The point {v} = 0 lies outside the data ({number(low)} to {number(high)}): statements about it are "
                f"extrapolations; subtract a value of {v} within the data to move the origin there.",
                low=low,
                high=high,
            )


def curve_sentences(words: Words, section: str) -> Iterator[Sentence]:
    """Name the coefficients that cannot be read one by one, and what to look at instead."""
    design = words.fit.design
    parts = [c for c in words.coefficients if c.kind == "part"]
    if parts:
        names = shorten([c.name for c in parts], 6)
        variables = list(dict.fromkeys(v for c in parts for v in c.variables))
        numbers = [v for v in variables if not acts_as_label(words, v)]
        slopes = f"fit.slopes({numbers[0]!r}, at={{{numbers[0]!r}: [...]}}), " if numbers else ""
        first = variables[0]
        means = f"fit.marginal_means({first!r}" + (f", at={{{first!r}: [...]}})" if first in numbers else ")")
        tail = "" if not words.hierarchical else "; fit.plot_trajectories() draws the subjects' curves"
        yield say(
            section,
            f"The coefficients of {names} belong together (they are parts of a curve, of a product or of a "
            f"coding in {', '.join(variables)}) and cannot be read one by one: look at "
            f"fit.plot_effects({first!r}), {means}, {slopes}or fit.predict(...){tail}.",
        )
    for v in _curved(words):
        yield say(
            section,
            f"The level-2 covariate {v} does not enter as a straight line, so no single number says how "
            f"coefficients change with it: look at fit.marginal_means({v!r}, at={{{v!r}: [...]}}).",
        )
    if parts and design.term and any(c.name in design.term for c in parts):
        yield say(
            section,
            "Subjects differ in these coefficients jointly; their SDs depend on the basis of the curve and "
            "are not stated here: fit.predict(level='subject') and fit.marginal_covariance() do not depend on it.",
        )


def acts_as_label(words: Words, variable: str) -> bool:
    """Whether a column is used as labels."""
    design = words.fit.design
    factors = {f for parts in design.level1_columns for f, _ in parts if is_factor(design, f)}
    columns = list(design.frame.columns)
    return is_label(design, variable) or any(variable in variables_of(f, columns) for f in factors)


def _curved(words: Words) -> list[str]:
    """Level-2 numbers in which a level-1 coefficient is no straight line, over their range in the data."""
    design = words.fit.design
    subjects = by_subject(design)
    found = []
    for c in words.coefficients:
        keys, _, mean = group_rows(design, c.position)
        for v in [str(v) for v in keys.columns if mean[str(v)] and v not in found]:
            low, high = float(subjects[v].min()), float(subjects[v].max())
            points = np.linspace(low, high, 5)
            table = pd.concat([keys.assign(**{v: x}) for x in points], ignore_index=True)
            rows = level2_rows(design, c.position, table).reshape(len(points), len(keys), -1)
            share = np.linspace(0.0, 1.0, 5)[:, None, None]
            line = rows[0] + share * (rows[-1] - rows[0])
            if not np.allclose(rows, line, rtol=1e-9, atol=1e-9 * np.abs(rows).max()):
                found.append(v)
    return found


def difference_sentences(words: Words, section: str) -> Iterator[Sentence]:
    """What level 2 says: differences between groups, and changes per unit of numbers."""
    design = words.fit.design
    level2 = list(dict.fromkeys(v for k in range(len(design.level1)) for v in group_rows(design, k)[0].columns))
    for c in words.coefficients:
        if c.kind == "part" or not np.any(design.coef_level1 == c.position):
            continue
        keys, _, mean = group_rows(design, c.position)
        for v in keys.columns:
            if c.kind == "intercept" and not words.named_origin and not _shift(words, str(v)):
                yield say(
                    section,
                    f"How {v} goes with {words.mean} depends on the level-1 variables: look at "
                    f"fit.contrasts({v!r}, at={{...}}) and fit.marginal_means({v!r}, at={{...}}).",
                )
                continue
            made = list(_of_variable(words, section, c, str(v), keys, mean))
            if len(made) > MAX_SENTENCES:
                how = "fit.contrasts(...)" if c.kind != "slope" else "fit.slopes(..., by=...).contrasts()"
                yield say(section, f"The covariate {v} makes {len(made)} differences in {_name(words, c)}: see {how}.")
            else:
                yield from made
        absent = [v for v in level2 if v not in keys.columns]
        if absent and c.kind != "cell" and (c.kind != "intercept" or words.named_origin):
            yield say(
                section, f"{_name(words, c)} is taken by the model as the same whatever {' and '.join(absent)} is."
            )


def _shift(words: Words, v: str) -> bool:
    """Whether a level-2 variable explains the intercept only, so that its differences are the same everywhere."""
    design = words.fit.design
    return not any(v in level2_variables(design, c.position) for c in words.coefficients if c.kind != "intercept")


def _name(words: Words, c: Coefficient) -> str:
    if c.kind == "intercept" and not words.named_origin:
        return f"at any values of the level-1 variables, {words.mean}"
    if c.kind == "intercept":
        return f"{where(words)}{words.mean}"
    if c.kind == "cell":
        return f"where {c.factor} = {c.label}, {words.mean}"
    if c.kind == "difference":
        return f"the {'ratio' if words.base else 'difference'} {c.factor} = {c.label} against {c.reference}"
    x = unquoted(words.fit.design.level1_columns[c.position][0][0])
    if words.base:
        return f"the factor per unit of {x}"
    return f"the {'average slope' if words.hierarchical else 'slope of the mean'} on {x}"


def _of_variable(
    words: Words, section: str, c: Coefficient, v: str, keys: pd.DataFrame, mean: dict[str, bool]
) -> Iterator[Sentence]:
    """Differences in one level-2 variable, for every combination of the others for which they are not the same."""
    design, k = words.fit.design, c.position
    others = [u for u in keys.columns if u != v]
    number_like = mean[v]
    if number_like and v in _curved(words):
        return
    cells = keys[others].drop_duplicates() if others else pd.DataFrame(index=[0])
    found: list[tuple[str, str, FloatArray, bool]] = []
    subjects = by_subject(design)
    values = list(dict.fromkeys(keys[v])) if not number_like else [float(keys[v].iloc[0])]
    for _, cell in cells.iterrows():
        row = {str(u): cell[u] for u in others}
        group = group_text(row, mean)
        present = values
        if others and not number_like:
            same = np.logical_and.reduce([keys[u] == row[u] for u in others])
            present = [x for x in values if x in set(keys.loc[same, v])]
        pairs = [(present[0] + 1.0, present[0])] if number_like else [(x, present[0]) for x in present[1:]]
        for high, low in pairs:
            both = pd.DataFrame([{**row, v: high}, {**row, v: low}])
            rows = level2_rows(design, k, both[list(keys.columns)])
            label = "" if number_like else f"{_eq(v, high)} minus {_eq(v, low)}"
            d = rows[0] - rows[1]
            # Whether the difference changes with the numbers that stand at their mean here.
            moved = both.assign(**{str(u): float(subjects[u].max()) for u in others if mean[u]})
            elsewhere = level2_rows(design, k, moved[list(keys.columns)])
            depends = not np.allclose(d, elsewhere[0] - elsewhere[1], rtol=1e-10, atol=1e-12)
            found.append((label, group, d, depends))
    for label in dict.fromkeys(f[0] for f in found):
        own = [(group, d, depends) for text, group, d, depends in found if text == label]
        distinct = _distinct([(group, d) for group, d, _ in own])
        stated = len(distinct) > 1 or any(depends for _, _, depends in own)
        for group, d in distinct:
            if not np.any(d):
                continue
            yield _difference(words, section, c, v, label, group if stated else "", d)


def _eq(v: str, value: Any) -> str:
    return f"{v} = {value:.4g}" if isinstance(value, float) else f"{v} = {value}"


def _distinct(own: list[tuple[str, FloatArray]]) -> list[tuple[str, FloatArray]]:
    kept: list[tuple[str, FloatArray]] = []
    for group, d in own:
        if not any(np.allclose(d, other, rtol=1e-10, atol=1e-12) for _, other in kept):
            kept.append((group, d))
    return kept


def _difference(words: Words, section: str, c: Coefficient, v: str, label: str, group: str, d: FloatArray) -> Sentence:
    e = judged(words.fit, d[None, :], words.ci, words.df)
    words = words.for_values(e.estimate[0], e.lower[0], e.upper[0], level=False)
    value = words.back(e.estimate[0])
    interval, facts = words.interval(e, 0)
    sign, more = words.sign(e, 0)
    facts |= more | {"estimate": value} | ({"log_estimate": float(e.estimate[0])} if words.base else {})
    log = f" ({number(e.estimate[0])} on the log scale)" if words.base else ""
    within = f", {'among subjects with' if words.hierarchical else 'in the population with'} {group}" if group else ""
    x = unquoted(words.fit.design.level1_columns[c.position][0][0]) if c.kind == "slope" else None
    name = _name(words, c)
    if label:
        kind = "ratio" if words.base else "difference"
        label = label.replace(" minus ", " over ") if words.base else label
        text = f"{name}{within}: the {kind}, {label}, is {words.show(value)}"
    elif words.base:
        text = f"{name}{within} is multiplied by {words.show(value)} {words.per(v)}"
    else:
        who = (
            "comparing subjects who differ by one" if words.hierarchical else "comparing populations that differ by one"
        )
        text = f"{name}{within}: {who} {words.units.get(v, 'unit')} in {v}, the difference is {words.show(value)}"
    unit = "" if words.base else words.unit(x)
    return say(section, f"{text}{unit}{log} ({interval}{sign}).", **facts)
