"""Sentences on differences between subjects: their SD, the range they lie in, and whether coefficients go together.

Then on variation within subjects: residuals, their structure, and how the variance divides.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm

from hierlmm.arrays import FloatArray
from hierlmm.covariance.composed import in_group, stated
from hierlmm.design.design import Design
from hierlmm.design.formula import INTERCEPT
from hierlmm.equations.residual_symbols import formula_of, residual_numbers, spec_text
from hierlmm.fits.components import corr_label, correlated_pairs, zero_terms
from hierlmm.fits.occasions import covariance_by_occasion
from hierlmm.frames import shorten
from hierlmm.interpret.coefficients import Coefficient, level2_variables, tails
from hierlmm.interpret.grammar import Sentence
from hierlmm.interpret.heterogeneity import heterogeneity
from hierlmm.interpret.words import MAX_SENTENCES, Words
from hierlmm.text import apart, number, percentage

GROUPS = 3
"""Most groups whose ranges are told one by one; they differ in their means alone."""


def readable(words: Words) -> list[Coefficient]:
    """Random coefficients that can be read one by one."""
    return [c for c in words.coefficients if c.kind != "part" and c.name in words.fit.design.own_term]


def hierarchies(design: Design) -> list[tuple[int, str, dict[str, Any]]]:
    """Where the random effects of each group start in ``term``, the group in words and as ``at``; else all as one."""
    levels, q = design.group_levels, design.n_own
    found = [(g * q, f"{design.group} = {level}", {design.group: level}) for g, level in enumerate(levels)]
    return found or [(0, "", {})]


def between_sentences(words: Words, section: str) -> Iterator[Sentence]:
    """SD between subjects, reference range and share of positive coefficients, by coefficient and group."""
    for c in readable(words):
        for start, who, at in hierarchies(words.fit.design):
            yield from _spread(words, section, c, start, who, at)
    term = words.fit.design.own_term
    others = [c for c in words.coefficients if c.kind != "intercept"]
    random = [c for c in others if c.name in term]
    through = {v for c in random for v in c.variables}
    common = [c for c in others if c.name not in term]
    joint = [c.name for c in common if through & set(c.variables)]
    if joint:
        deviating = shorten([c.name for c in random])
        yield words.say(section, "between.joint", joint=shorten(joint), random=deviating)
    fixed = [c.name for c in common if c.name not in joint]
    if fixed and not any(c.kind == "cell" for c in others):
        yield words.say(section, "between.fixed_one" if len(fixed) == 1 else "between.fixed", names=shorten(fixed))


def _spread(words: Words, section: str, c: Coefficient, start: int, who: str, at: dict[str, Any]) -> Iterator[Sentence]:
    fit = words.fit
    stated = c.kind != "intercept" or (words.fixed_intercept and words.named_origin)
    if not stated and fit.design.n_own > 1:
        return  # a deviation at a point without a name
    if fit.design.term[start + fit.design.own_term.index(c.name)] in zero_terms(fit):
        yield words.say(section, "between.none", what=words.what(c), who=who)
        return
    table = heterogeneity(fit, c.name, at, ci=words.ci, how=words.how).table
    x = words.x(c) if c.kind == "slope" else None
    sd = table["sd"].iloc[0]
    ends, facts = words.ends(table.iloc[0], "sd_")
    explained = " and ".join(level2_variables(fit.design, c.position))
    slots = {"sd": number(sd), "unit": words.sd_unit(x), "ends": ends, "who": who}
    if not stated:
        of = f"for their {explained}" if explained else "that the fixed effects give them"
        yield words.say(section, "between.deviations", {"sd": sd, **facts}, of=of, **slots)
        return
    yield words.say(section, "between.sd", {"sd": sd, **facts}, what=words.what(c), explained=explained, **slots)
    extremes = table.iloc[list(dict.fromkeys([int(table["mean"].argmin()), int(table["mean"].argmax())]))]
    for record in (table if len(table) <= GROUPS else extremes).to_dict("records"):
        yield from _range(words, section, c, record, x)
    if len(table) > GROUPS:
        yield words.say(section, "between.many", n=len(table), name=repr(c.name))


def _range(words: Words, section: str, c: Coefficient, row: Mapping[Any, Any], x: str | None) -> Iterator[Sentence]:
    """Where the subjects of a group lie, which share has a positive coefficient, where a new one would lie."""
    known = [float(v) for k, v in row.items() if str(k).startswith(("low", "high", "new_")) and np.isfinite(v)]
    level = c.kind in ("intercept", "cell")
    words = words.for_values(*known, level=level)
    level = level and bool(words.base)  # SDs and ranges of other links stay on their scale
    group, unit = row["group"], "" if words.base else words.unit(x)
    who = f"of subjects with {group}" if group else "of subjects"
    facts = {
        k: words.back(row[k], level=level)
        for k in ("low", "high", "low_lower", "low_upper", "high_lower", "high_upper")
    }
    shown, ends = [words.show(v) for v in facts.values()], ""
    if np.isfinite([*facts.values()][2:]).all():
        ends = words.phrase("between.range_ends", **dict(zip("abcd", shown[2:], strict=True)))
    else:
        facts = {k: facts[k] for k in ("low", "high")}
    slots = {"who": who, "low": shown[0], "high": shown[1], "unit": unit, "ends": ends}
    yield words.say(section, "between.range", facts, what=words.what(c, log=True), **slots)
    if c.kind in ("slope", "difference") and np.any(words.fit.design.coef_level1 == c.position):
        limits = {k: row[k] for k in ("share_lower", "share_upper")}
        facts = {"share": row["share"]} | (limits if np.isfinite([*limits.values()]).all() else {})
        share, *shown = (percentage(v) for v in facts.values())
        what = words.what(c, "a" if words.base else "a positive", log=True)
        above = " that is greater than 1" if words.base else ""
        ends = " to ".join(shown)
        yield words.say(section, "between.share", facts, share=share, who=who, what=what, above=above, ends=ends)
    new = {k: words.back(row[k], level=level) for k in ("new_low", "new_high")}
    if np.isfinite([*new.values()]).all():
        slots = {"low": words.show(new["new_low"]), "high": words.show(new["new_high"]), "unit": unit}
        yield words.say(section, "between.new", new, group=group, what=words.what(c, "its", log=True), **slots)


def correlation_sentences(words: Words, section: str) -> Iterator[Sentence]:
    """What the correlation of intercepts and slopes says, and that it depends on the origin."""
    design = words.fit.design
    known = {c.name: c for c in readable(words)}
    named = words.named_origin and words.fixed_intercept
    usable = [i for i, t in enumerate(design.own_term) if t in known and (named or t != INTERCEPT)]
    pairs = list(itertools.combinations(usable, 2))
    if not pairs:
        return
    table = words.fit.variance_components(words.ci)
    free = set(correlated_pairs(design)) if design.covariance != "compound_symmetry" else set(pairs)
    if design.covariance in ("identity", "diagonal"):
        free = set()
    for (start, who, _), (a, b) in itertools.product(hierarchies(design), pairs):
        one, two = known[design.own_term[a]], known[design.own_term[b]]
        first, second = design.term[start + a], design.term[start + b]
        names = f"{words.what(one)} and {words.what(two)}"
        if (a, b) not in free and start:
            continue  # said of the first group
        if (a, b) not in free:
            equal = words.phrase("correlation.equal") if design.covariance == "identity" else ""
            more = words.phrase("correlation.origin") if INTERCEPT in (one.name, two.name) else ""
            yield words.say(section, "correlation.assumed", names=names, equal=equal, more=more)
        elif {first, second} & set(zero_terms(words.fit)):
            yield words.say(section, "correlation.none", names=names, who=who)
        else:
            label = corr_label(design, start + a, start + b)
            yield _correlation(words, section, names, table, label, who)
            if one.kind == "intercept" and two.kind == "slope":
                yield _moved(words, section, [start + a, start + b], two)


def _correlation(words: Words, section: str, names: str, table: Any, label: str, who: str) -> Sentence:
    common, rho = words.fit.design.covariance == "compound_symmetry", table.loc[label]
    facts = {"correlation": rho["estimate"]}
    if np.isfinite(rho["lower"]) and np.isfinite(rho["upper"]):
        facts |= {"lower": rho["lower"], "upper": rho["upper"]}
    slots = dict(zip(("value", "lower", "upper"), [*map(_corr, facts.values()), "", ""], strict=False))
    slots |= {"same": words.phrase("correlation.same") if common else ""}
    slots |= {"level2": " and ".join(words.fit.design.level2_variables())}
    return words.say(section, "correlation.value", facts, names=names, who=who, **slots)


def _corr(value: float) -> str:
    """A correlation; one that is not ±1 never reads as that."""
    return apart(value, float(np.sign(value)))


def _moved(words: Words, section: str, pair: list[int], slope: Coefficient) -> Sentence:
    """The same correlation with the origin elsewhere."""
    column = words.fit.design.X1[:, slope.position]
    middle = float(column.mean())
    if abs(middle) < 0.1 * np.ptp(column):  # as good as the origin itself
        middle = float(column.max())
    D = covariance_draws(words.fit)[:, pair][:, :, pair]
    level = D[:, 0, 0] + 2.0 * middle * D[:, 0, 1] + middle**2 * D[:, 1, 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        moved = float(np.mean((D[:, 0, 1] + middle * D[:, 1, 1]) / np.sqrt(level * D[:, 1, 1])))
    facts = {"at": middle, "correlation": moved}
    return words.say(section, "correlation.moved", facts, x=words.x(slope), at=number(middle), value=_corr(moved))


def covariance_draws(fit: Any) -> FloatArray:
    """D as draws of a posterior, or the estimate, (draws, q, q)."""
    if fit.has_draws:
        draws = fit.draws("D")
        return np.asarray(draws.reshape(-1, *draws.shape[2:]))
    return np.asarray(fit.D.to_numpy()[None])


def within_sentences(words: Words, section: str) -> Iterator[Sentence]:
    """Residual SD, residual structure, and how the variance divides between and within subjects."""
    if not words.fit.design.is_gaussian:
        yield from _distribution(words, section)
        return
    yield from _residuals(words, section, "within")
    if words.fit.design.has_residual_structure:
        yield words.say(section, "within.structure")
    else:
        yield from _division(words, section)


def _distribution(words: Words, section: str) -> Iterator[Sentence]:
    """How rows are distributed around their means, in a model with a family."""
    fit: Any = words.fit
    table = fit.variance_components(words.ci)
    texts: list[str] = []
    facts: dict[str, float] = {}
    for name in fit.dispersion.index:
        ends, own = words.ends(table.loc[name])
        texts.append(f"{name} = {number(table.loc[name, 'estimate'])}{ends}")
        facts |= {name: float(table.loc[name, "estimate"])} | {f"{name}_{k}": v for k, v in own.items()}
    yield words.say(section, "within.family", facts, family=fit.design.family.title, values="; ".join(texts))


def marginal_covariance_sentences(words: Words, section: str) -> Iterator[Sentence]:
    """Variance and correlation of rows in a model without random effects."""
    if words.fit.has_working_correlation:
        yield from _working_correlation(words, section, words.fit)
    elif _planned(words.fit.design) and (V := covariance_by_occasion(words.fit)) is not None:
        yield from _occasions(words, section, V)
    else:
        yield from _residuals(words, section, "marginal")


def _planned(design: Design) -> bool:
    """Whether correlation and variance are told by occasion alone."""
    spec, variance = design.residual, stated(design.residual_variance)
    by = variance is not None and variance.free and spec is not None and variance.variable == spec.time
    return by or (variance is None and spec is not None and spec.by_occasion)


def _occasions(words: Words, section: str, V: pd.DataFrame) -> Iterator[Sentence]:
    """SDs and correlations by occasion, each group for itself."""
    spec, group = words.fit.design.residual, words.fit.design.residual_group
    assert spec is not None
    table = words.fit.variance_components(words.ci)
    blocks = {None: V} if group is None else {level: V.loc[level] for level in V.index.unique(0)}
    names_of = {level: "" if group is None else f"{group} = {level}" for level in blocks}
    labels = [number(v) if isinstance(v, float) else str(v) for v in V.columns]
    for level, own in blocks.items():
        who = names_of[level]
        sds = np.sqrt(np.diag(own.to_numpy()))
        facts = {f"sd({label})": float(sd) for label, sd in zip(labels, sds, strict=False)}
        if stated(words.fit.design.residual_variance) is not None:
            values = ", ".join(f"{number(sd)} at {label}" for label, sd in zip(labels, sds, strict=False))
            yield words.say(section, "marginal.sds", facts, x=spec.time, values=values, who=who, unit=words.sd_unit())
        else:
            ends, limits = words.ends(table.loc["sigma" if group is None else in_group("sigma", level)])
            slots = {"sd": number(sds[0]), "unit": words.sd_unit(), "scale": "", "ends": ends, "who": who}
            yield words.say(section, "marginal.sd", {"sd": float(sds[0]), **limits}, **slots)
    pairs = list(zip(*spec._own_pairs(len(labels)), strict=True)) if spec.by_occasion else []
    correlation, _ = residual_numbers(words.fit)
    if not 0 < len(pairs) <= MAX_SENTENCES:
        yield _structure(words, section, "marginal.correlated", spec, "R[s, t]", correlation, table)
        return
    every = len(pairs) == len(labels) * (len(labels) - 1) // 2
    names = iter(correlation)
    for who in names_of.values():
        texts, facts = [], {}
        for pair, name in zip(pairs, names, strict=False):
            first, second = (labels[k] for k in sorted(map(int, pair)))
            ends, limits = words.ends(table.loc[name])
            facts |= {name: float(table["estimate"][name])} | {f"{name}_{k}": v for k, v in limits.items()}
            texts.append(f"{number(facts[name])} at {first} and {second}{ends}")
        what = "marginal.pairs" if every else "marginal.neighbours"
        yield words.say(section, what, facts, x=spec.time, values="; ".join(texts), who=who)


def _working_correlation(words: Words, section: str, fit: Any) -> Iterator[Sentence]:
    sd = float(np.sqrt(fit.scale))
    if not fit.design.is_gaussian:
        slots = {"family": fit.design.family.title, "phi": number(fit.scale)}
        yield words.say(section, "marginal.scale", {"scale": fit.scale}, **slots)
    else:
        yield words.say(
            section, "marginal.sd", {"sd": sd}, sd=number(sd), unit=words.sd_unit(), scale="", ends="", who=""
        )
    parameters = dict(fit.correlation_parameters) if len(fit.correlation_parameters) <= MAX_SENTENCES else {}
    values = ", ".join(f"{name} = {number(v)}" for name, v in parameters.items())
    yield words.say(section, "marginal.working", parameters, kind=fit.correlation, values=values)


def rest_sentences(words: Words, section: str) -> Iterator[Sentence]:
    """What is left within groups of several factors."""
    yield from _residuals(words, section, "factors")


def _residuals(words: Words, section: str, about: str) -> Iterator[Sentence]:
    """Residual SD, and the parameters of the residual correlation and of the variance function."""
    design = words.fit.design
    table: Any = words.fit.variance_components(words.ci)
    sigma = table.loc["sigma"]
    ends, facts = words.ends(sigma)
    scale = " (at a ratio of 1)" if design.residual_variance is not None else ""
    slots = {"sd": number(sigma["estimate"]), "unit": words.sd_unit(), "scale": scale, "ends": ends, "who": ""}
    yield words.say(section, f"{about}.sd", {"sd": sigma["estimate"], **facts}, **slots)
    if about == "marginal" and design.residual is None:
        yield words.say(section, "marginal.independent")
    correlation, variance = residual_numbers(words.fit)
    if design.residual is not None:
        yield _structure(words, section, f"{about}.correlated", design.residual, "R[s, t]", correlation, table)
    if design.residual_variance is not None:
        yield _structure(words, section, f"{about}.unequal", design.residual_variance, "SD", variance, table)


def _structure(words: Words, section: str, what: str, spec: Any, left: str, parameters: Any, table: Any) -> Sentence:
    formula = formula_of(spec)
    slots = {"what": words.phrase(what), "how": spec_text(spec) + (f", {left} = {formula}" if formula else "")}
    if len(parameters) > MAX_SENTENCES:
        return words.say(section, "within.many", n=len(parameters), **slots)
    texts: list[str] = []
    facts: dict[str, float] = {}
    for name, value in parameters.items():
        known = name in table.index
        estimate = float(table.loc[name, "estimate"]) if known else value
        ends, own = words.ends(table.loc[name]) if known else ("", {})
        texts.append(f"{name} = {number(estimate)}{ends}")
        facts |= {name: estimate} | {f"{name}_{k}": v for k, v in own.items()}
    return words.say(section, "within.parameters", facts, values="; ".join(texts), **slots)


def _division(words: Words, section: str) -> Iterator[Sentence]:
    """ICC of a random intercept; with one random slope, variances and the correlation at both ends of the data."""
    term = words.fit.design.own_term
    slopes = [c for c in readable(words) if c.kind == "slope"]
    for start, who, _ in hierarchies(words.fit.design):
        if term == (INTERCEPT,):
            yield _icc(words, section, start, who)
        elif len(term) == 2 and INTERCEPT in term and len(slopes) == 1:
            yield from _both_ends(words, section, slopes[0], start, who)
        elif start == 0:
            yield words.say(section, "within.depends")


def _sigma(fit: Any) -> FloatArray:
    return fit.draws("sigma").reshape(-1) if fit.has_draws else np.array([fit.sigma])


def _icc(words: Words, section: str, r: int, who: str) -> Sentence:
    fit = words.fit
    D, s2 = covariance_draws(fit)[:, r, r], _sigma(fit) ** 2
    icc = D / (D + s2)
    estimate, limits = float(icc.mean()), {"lower": np.nan, "upper": np.nan}
    if fit.has_draws:
        limits = dict(zip(limits, np.quantile(icc, tails(words.ci)), strict=True))
    elif fit.design.term[r] not in zero_terms(fit):
        limits = dict(zip(limits, _icc_interval(words, estimate, r), strict=True))
    ends, facts = words.ends(limits)
    facts = {"icc": estimate, "share": estimate, **facts}
    return words.say(section, "within.icc", facts, share=percentage(estimate), icc=number(estimate), ends=ends, who=who)


def _icc_interval(words: Words, estimate: float, r: int) -> tuple[float, float]:
    """Large-sample interval on the logit scale."""
    fit: Any = words.fit
    se = fit.large_sample.standard_errors(lambda D, sigma: np.atleast_1d(np.log(D[r, r] / sigma**2)))[1][0]
    reach = float(norm.ppf(0.5 + words.ci / 2.0)) * se
    logit = np.log(estimate / (1.0 - estimate))
    return float(1.0 / (1.0 + np.exp(reach - logit))), float(1.0 / (1.0 + np.exp(-reach - logit)))


def _both_ends(words: Words, section: str, slope: Coefficient, start: int, who: str) -> Iterator[Sentence]:
    design = words.fit.design
    x, column = words.x(slope), design.X1[:, slope.position]
    low, high = float(column.min()), float(column.max())
    order = [start + design.own_term.index(name) for name in (INTERCEPT, slope.name)]
    D, s2 = covariance_draws(words.fit)[:, order][:, :, order], _sigma(words.fit) ** 2
    z = [np.array([1.0, v]) for v in (low, high)]
    between = [np.einsum("a,sab,b->s", v, D, v) for v in z]
    for v, own, end in zip((low, high), between, ("low", "high"), strict=True):
        share, sd = float(np.mean(own / (own + s2))), float(np.mean(np.sqrt(own + s2)))
        facts = {f"at_{end}": v, f"sd_{end}": sd, f"share_{end}": share}
        slots = {"at": number(v), "sd": number(sd), "unit": words.sd_unit(), "share": percentage(share)}
        yield words.say(section, "within.at", facts, x=x, who=who, **slots)
    corr = float(np.mean(np.einsum("a,sab,b->s", z[0], D, z[1]) / np.sqrt((between[0] + s2) * (between[1] + s2))))
    facts = {"at_low": low, "at_high": high, "correlation": corr}
    slots = {"low": number(low), "high": number(high), "value": number(corr), "who": who}
    yield words.say(section, "within.two", facts, x=x, **slots)
