"""Words for the quantities of one fit: names, units, scale of the response, intervals.

A response on a log scale makes sums of coefficients products: ``base ** β`` is a ratio of geometric means (and, as the
model is normal on the log scale, of medians).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.design.design import Design
from hierlmm.design.formula import unquoted
from hierlmm.design.questions import is_label, levels_of
from hierlmm.design.telling import YES_OR_NO, link_name, mean_name, ratio_name
from hierlmm.effects.averages import category_rows
from hierlmm.effects.curve_checks import LOG
from hierlmm.effects.judge import Estimates, covariance_of, estimates, judge_of
from hierlmm.effects.scale import scale_of, told_estimates
from hierlmm.families.family import Family
from hierlmm.fits.base import Fit
from hierlmm.interpret.coefficients import Coefficient, coefficients, judged
from hierlmm.interpret.grammar import Sentence, render, sentence
from hierlmm.interpret.kinds import within_groups
from hierlmm.likelihood.wald import Asked, method_name
from hierlmm.text import apart, number, probability, span

MAX_SENTENCES = 12
"""Most groups, differences or parameters of one coefficient that get a sentence of their own."""
MAX_LOG = 30.0
"""Largest distance on the natural log scale that is turned back: a factor of 1e13."""
type Stated = tuple[Words, dict[str, str], dict[str, float]]


@dataclass(frozen=True)
class Words:
    """What the sentences of one fit have in common.

    Attributes
    ----------
    fit : Fit
    ci : float
    how : Asked
        Degrees of freedom and standard errors of a likelihood fit's intervals.
    hierarchical : bool
        Whether subjects have coefficients of their own.
    quantity : str
        What the numbers are about: the response, or what stands in its logarithm.
    base : float or None
        Base of the logarithm; None for other responses. With a link that makes differences ratios, e.
    units : mapping
    design : Design
        Whose levels sentences on means go by, and its coefficients; see `within_groups`.
    family : Family or None
        Of a response that is told through a link; None where numbers of the response are what they are.
    """

    fit: Fit
    ci: float
    how: Asked
    hierarchical: bool
    quantity: str
    base: float | None
    units: Mapping[str, str]
    design: Design
    coefficients: tuple[Coefficient, ...] = field(default=())
    family: Family | None = None

    def say(self, section: str, name: str, facts: Mapping[str, float] | None = None, /, **slots: Any) -> Sentence:
        """A sentence from its template, with the numbers that it states."""
        return sentence(section, self.phrase(name, **slots), facts or {})

    def phrase(self, name: str, /, **slots: Any) -> str:
        """A template with the names of this fit filled in."""
        flags = [flag for flag, holds in (("log", self.base), ("subjects", self.hierarchical)) if holds]
        own = {"response": self.response, "quantity": self.quantity, "interval_name": self.interval_name}
        if self.family is not None:
            flags += [f"latent{'' if self.base else '_line'}"] if self.family.name == "ordinal" else []
            flags += ["ratio" if self.base else "line", *(["middle"] if self.hierarchical else [])]
            own |= self.of_family
        return render(name, flags, **own | slots)

    @property
    def of_family(self) -> dict[str, str]:
        """What the mean, its link and ratios are called."""
        design = self.fit.design
        link, event = design.family.link, mean_name(design).removeprefix("probability of ")
        event = f"a higher {event.removeprefix('mean of ')}" if design.family.name == "ordinal" else event
        event = f"the {event}" if event.startswith("mean of ") else event
        odds = {"logit": f"the odds of {event}", "cloglog": f"the hazard of {event}"}
        moved = odds.get(link, f"the {mean_name(design) if self.base else link_name(design)}")
        mean = link_name(design) if design.family.name == "ordinal" else mean_name(design)
        names = {"mean_of": mean, "line": link_name(design), "moved": moved, "link": link}
        return names | {"be": "are" if link == "logit" else "is", "ratio": ratio_name(design)}

    @property
    def response(self) -> str:
        """The response, as in the formula, a name without its backticks."""
        return unquoted(self.fit.design.hierarchy.response)

    @property
    def plain(self) -> bool:
        """Whether the response is a column of the data, untransformed."""
        return self.response in self.fit.design.frame.columns

    @property
    def mean(self) -> str:
        """``the mean of distance``, or ``the geometric mean of bili``."""
        return self.phrase("mean_phrase")

    @property
    def moved(self) -> str:
        """What differences are of: the mean, or with a family the odds, the hazard or the linear predictor."""
        return self.mean if self.family is None else self.of_family["moved"]

    @property
    def interval_name(self) -> str:
        """``95 % confidence interval`` or ``95 % credible interval``."""
        return f"{100 * self.ci:g} % {'credible' if self.fit.has_draws else 'confidence'} interval"

    @property
    def method(self) -> str:
        """How the intervals of means and slopes are made."""
        if self.fit.has_draws:
            medians = ", of ratios medians" if self.family is not None and self.base else ""
            return f"equal-tailed quantiles of posterior draws; estimates are posterior means{medians}"
        if kind := covariance_of(self.fit):
            return f"normal quantiles with {kind} standard errors"
        return self.fit._wald(*self.how).description.replace("t and F", "t")

    def unit(self, per: str | None = None) -> str:
        """Unit after a number of the response, or of its change per unit of something: `` mm per year``."""
        if self.family is not None and (per is not None or self.family.name in YES_OR_NO):
            return f" {self.per(per)}" if per is not None else ""
        own = self.units.get(self.quantity, "") if self.plain else ""
        text = f" {own}" if own else ""
        return f"{text} {self.per(per)}" if per is not None else text

    def sd_unit(self, per: str | None = None) -> str:
        """The same after an SD, which stays on the scale of the response, or of the link."""
        if self.family is not None:
            return f" on the {self.family.link} scale{f' {self.per(per)}' if per is not None else ''}"
        return self.unit(per) if self.plain else ""

    def per(self, variable: str) -> str:
        """``per year`` or ``per unit of time``."""
        return f"per {self.units[variable]}" if variable in self.units else f"per unit of {variable}"

    def back(self, value: float, *, level: bool = False) -> float:
        """A number on a log scale as a factor, a level of a linear predictor as a mean; others as they are."""
        way = self._way_back(level)
        with np.errstate(over="ignore"):
            return float(value if way is None else way(np.array(value)))

    def _way_back(self, level: bool) -> Callable[[FloatArray], FloatArray] | None:
        if level and self.family is not None:  # a category has no mean
            return None if self.family.name == "ordinal" else self.family.mean
        return partial(np.power, np.float64(self.base)) if self.base else None

    def judged(self, L: FloatArray, *, level: bool) -> Estimates:
        """Estimate and interval of rows of ``L β``; of draws with a family also the estimate as it is told.

        ``level``: as in `for_values`.
        """
        found = judged(self.fit, L, self.ci, self.how)
        if self.family is None or not self.fit.has_draws:
            return found
        middle = np.median if self.base and not level else np.mean  # of ratios the median, as in tables
        way, judge = self._way_back(level), judge_of(self.fit, self.how)
        return found._replace(told=estimates(judge, L, np.zeros(len(L)), self.ci, way, middle=middle).estimate)

    def show(self, value: float) -> str:
        """A number in words; a factor that is not 1 never reads as 1."""
        return apart(value, 1.0) if self.base else number(value)

    def for_values(self, *values: float, level: bool) -> Words:
        """These words, or those of the log scale where numbers are too far from the data to be turned back.

        ``level``: whether they are levels of the response, whose distance counts from its mean, or differences.
        """
        if not self.base or (level and self.family is not None):
            return self
        centre = float(np.mean(self.fit.design.y)) if level and self.family is None else 0.0
        far = np.abs(np.array(values) - centre) * math.log(self.base) > MAX_LOG
        if not far.any():
            return self
        return replace(self, base=None, quantity=self.response)

    @property
    def in_categories(self) -> bool:
        """Whether levels are told as probabilities of categories, of which there are not too many."""
        return self.fit.design.family.name == "ordinal" and len(self.fit.design.rows.categories) <= MAX_SENTENCES

    def categories(self, L: FloatArray) -> Estimates:
        """Probabilities of all categories at ``L β``, those of the first row, then of the next."""
        rows, offset, judge = category_rows(self.fit, L, self.how)
        scale = scale_of(self.fit.design, "response", "marginal means", categories=True)
        return told_estimates(scale, judge, rows, offset, self.ci)

    def stated(self, e: Estimates, g: int, *, level: bool, sign: bool) -> Stated:
        """An estimate in words: the words to use, the slots ``value``, ``log``, ``interval``, ``sign``, and the facts.

        ``level``: as in `for_values`; ``sign``: whether to say what is known of it.
        """
        estimate, low, high = float(e.estimate[g]), float(e.lower[g]), float(e.upper[g])
        words, facts = self.for_values(estimate, low, high, level=level), {}
        value, low, high = (words.back(v, level=level) for v in (estimate, low, high))
        # What is told of draws is a median or a mean, whose logarithm is another number.
        told = e.told if words is self else None
        value = value if told is None else float(told[g])
        low, high = min(low, high), max(low, high)
        known = "no standard error is known" if np.isnan(e.se[g]) else "fixed by the model"
        slots = {"value": words.show(value), "log": "", "interval": known, "sign": ""}
        if e.se[g] > 0.0:
            ends = f"{words.show(low)} to {words.show(high)}" if words.base else span(low, high)
            slots["interval"] = f"{words.interval_name} {ends}"
            facts = {"lower": low, "upper": high}
            if sign and e.positive is not None:
                facts["probability"] = float(e.positive[g])
                slots["sign"] = words.phrase("sign_probability", p=probability(facts["probability"]))
            elif sign:
                slots["sign"] = words.phrase("sign_open" if e.lower[g] <= 0.0 <= e.upper[g] else "sign_known")
        facts["estimate"] = value
        if words.base and told is None:
            facts["log_estimate"] = estimate
            if value != estimate:
                slots["log"] = (
                    f" ({number(estimate)} on the {'log' if words.family is None else words.family.link} scale)"
                )
        return words, slots, facts

    def ends(self, row: Any, stem: str = "") -> tuple[str, dict[str, float]]:
        """`` (95 % confidence interval 0.04 to 0.57)`` and its facts, if there is one."""
        low, high = float(row[f"{stem}lower"]), float(row[f"{stem}upper"])
        if not (np.isfinite(low) and np.isfinite(high)):
            return "", {}
        return f" ({self.interval_name} {span(low, high)})", {"lower": low, "upper": high}

    def over(self, group: str) -> str:
        """``over subjects with sex = Female``, or what a marginal model may say."""
        return self.phrase("over_phrase", group=group) if group else self.phrase("over_all")

    def x(self, c: Coefficient) -> str:
        """The level-1 column of a slope."""
        return unquoted(self.design.level1_columns[c.position][0][0])

    @property
    def where(self) -> str:
        """``where time = 0, `` before a statement on the intercept; empty without another level-1 column."""
        point, _ = self.origin()
        return f"where {point}, " if point else ""

    def what(self, c: Coefficient, whose: str = "their", *, log: bool = False) -> str:
        """What subjects differ in: their mean at the origin, their slope; with ``log`` as ratios of a logarithm."""
        words = self if log else replace(self, base=None)
        named = c.kind != "intercept" or (self.fixed_intercept and self.named_origin)
        slots = {"factor": c.factor, "label": c.label, "reference": c.reference}
        slots |= {"point": self.origin()[0], "x": self.x(c) if c.kind == "slope" else ""}
        return words.phrase(f"what_{c.kind}" if named else "what_unnamed", whose=whose, **slots)

    @property
    def named_origin(self) -> bool:
        """Whether the point at which the intercept is the mean can be named."""
        return bool(self.origin()[0]) or all(c.kind == "intercept" for c in self.coefficients)

    @property
    def fixed_intercept(self) -> bool:
        """Whether the intercept has a mean of its own."""
        design = self.design
        return any(c.kind == "intercept" and c.position in design.coef_level1 for c in self.coefficients)

    def origin(self) -> tuple[str, list[str]]:
        """Where level 1 has its intercept, in words (empty if it is no point one can name), and its numbers at zero.

        There all level-1 columns but the constant are zero.
        """
        design = self.design
        others = [c for c in self.coefficients if c.kind != "intercept"]
        if not others:
            return "", []
        expressions = list(dict.fromkeys(f for c in others for f, _ in design.level1_columns[c.position]))
        columns = design.frame.columns
        arithmetic = all(unquoted(e) in columns or e.startswith(("I(", "{", "C(")) for e in expressions)
        if arithmetic and (point := _zero_point(design, others)):
            numbers = [v for v, x in point.items() if not isinstance(x, str)]
            return " and ".join(f"{v} = {x}" for v, x in point.items()), numbers
        if point := _observed_zero(design, others):
            numbers = [v for v, x in point.items() if not is_label(design, v)]
            return " and ".join(f"{v} = {x:g}" if v in numbers else f"{v} = {x}" for v, x in point.items()), numbers
        if all(c.kind == "slope" for c in others):
            return " and ".join(f"{self.x(c)} = 0" for c in others), []
        return "", []


def words_of(fit: Fit, ci: float, how: Asked, units: Mapping[str, str] | None) -> Words:
    """Words for one fit."""
    response = fit.design.hierarchy.response
    quantity, base = unquoted(response), None
    found = LOG.fullmatch(quantity)
    if found and _balanced(found.group(2)):
        base = {None: math.e, "10": 10.0, "2": 2.0}[found.group(1)]
        quantity = found.group(2)
    if how.df is not None:
        method_name(how.df)
    design, family = within_groups(fit.design), None
    hierarchical = fit.has_random_effects and not fit.design.has_several_factors
    if not fit.design.is_gaussian and fit.design.family.link != "identity":
        family = fit.design.family
        quantity, base = unquoted(response), math.e if ratio_name(fit.design) else None
    return Words(
        fit, ci, how, hierarchical, quantity, base, dict(units or {}), design, tuple(coefficients(design)), family
    )


def _balanced(text: str) -> bool:
    """Whether parentheses close within the text, and it has one argument."""
    depth = 0
    for character in text:
        depth += (character == "(") - (character == ")")
        if depth < 0 or (character == "," and depth == 0):
            return False
    return depth == 0


def _observed_zero(design: Design, others: list[Coefficient]) -> dict[str, Any]:
    """The one point in the data at which all other level-1 columns are zero: the left boundary of a spline."""
    X1 = np.abs(design.X1[:, [c.position for c in others]])
    rows = design.frame[np.isclose(X1 / np.maximum(X1.max(axis=0), 1e-300), 0.0, atol=1e-12).all(axis=1)]
    names = dict.fromkeys(v for c in others for v in c.variables)
    if rows.empty or any(rows[v].nunique() != 1 for v in names):
        return {}
    return {v: rows[v].iloc[0] for v in names}


def _zero_point(design: Design, others: list[Coefficient]) -> dict[str, Any]:
    """Numbers at zero and factors at their reference level, if every level-1 column is zero there."""
    references = {c.factor: c.reference for c in others if c.kind == "difference"}
    point: dict[str, Any] = {}
    shown: dict[str, Any] = {}
    for v in dict.fromkeys(v for c in others for v in c.variables):
        if v in references:
            point[v] = x = references[v]
            shown[v] = f"{x:g}" if isinstance(x, float) else str(x)
        elif is_label(design, v):
            point[v] = levels_of(design, v)[0]
            shown[v] = str(point[v])
        else:
            point[v], shown[v] = 0.0, 0
    row = design.frame.iloc[[0]].reset_index(drop=True).assign(**{v: [x] for v, x in point.items()})
    with np.errstate(divide="ignore", invalid="ignore"):
        values = design.factors.values(design.levels.apply(row))
        if any(math.prod(float(values[p][0]) for p in design.level1_columns[c.position]) != 0.0 for c in others):
            return {}
    return shown
