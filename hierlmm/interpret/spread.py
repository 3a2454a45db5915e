"""Sentences on variation: between subjects, between intercepts and slopes, and within subjects."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.design.formula import INTERCEPT, unquoted
from hierlmm.equations.residual_symbols import formula_of, residual_numbers, spec_text
from hierlmm.fits.components import COMMON_CORR, correlated_pairs
from hierlmm.frames import shorten
from hierlmm.interpret.average import MAX_SENTENCES, say
from hierlmm.interpret.coefficients import Coefficient, level2_variables
from hierlmm.interpret.heterogeneity import heterogeneity
from hierlmm.interpret.interpretation import Sentence, apart, percentage
from hierlmm.interpret.judge import is_posterior, zero_terms
from hierlmm.interpret.words import Words
from hierlmm.text import number, span

__all__ = ["between_sentences", "correlation_sentences", "marginal_covariance_sentences", "within_sentences"]

FloatArray = NDArray[np.float64]


def _readable(words: Words) -> list[Coefficient]:
    return [c for c in words.coefficients if c.kind != "part" and c.name in words.fit.design.term]


def _what(words: Words, c: Coefficient) -> str:
    """What subjects differ in: their mean at the origin, their slope."""
    quantity = words.fit.design.hierarchy.response
    point, _ = words.origin()
    if c.kind == "intercept" and not (words.fixed_intercept and words.named_origin):
        return f"their deviation from the mean of {quantity}"
    if c.kind == "intercept":
        return f"their mean of {quantity}" + (f" where {point}" if point else "")
    if c.kind == "cell":
        return f"their mean of {quantity} where {c.factor} = {c.label}"
    if c.kind == "difference":
        return f"their difference in {quantity} between {c.factor} = {c.label} and {c.factor} = {c.reference}"
    return f"their slope of {quantity} on {unquoted(words.fit.design.level1_columns[c.position][0][0])}"


def between_sentences(words: Words, section: str) -> Iterator[Sentence]:
    """SD between subjects, reference range and share of positive coefficients, by coefficient and group."""
    fit = words.fit
    readable = _readable(words)
    zero = zero_terms(fit)
    for c in readable:
        x = unquoted(fit.design.level1_columns[c.position][0][0]) if c.kind == "slope" else None
        table = heterogeneity(fit, c.name, ci=words.ci, df=words.df).table
        stated = c.kind != "intercept" or (words.fixed_intercept and words.named_origin)
        if not stated and len(fit.design.term) > 1:
            continue  # a deviation at a point without a name
        if c.name in zero:
            yield say(
                section,
                f"At the estimate subjects do not differ in {_what(words, c)} beyond what level 2 explains: "
                "the SD is estimated as 0, on the boundary. A range of subjects cannot be given; this does not show "
                "that they are alike.",
            )
            continue
        row = table.iloc[0]
        ends = ""
        facts = {"sd": row["sd"]}
        if np.isfinite(row["sd_lower"]):
            ends = f" ({words.interval_name} {span(row['sd_lower'], row['sd_upper'])})"
            facts |= {"lower": row["sd_lower"], "upper": row["sd_upper"]}
        explained = level2_variables(fit.design, c.position)
        around = f"the mean for their {' and '.join(explained)}" if explained else "the mean"
        unit = words.unit(x) if words.plain else ""
        if not stated:
            around = around if explained else "the mean that the fixed effects give them"
            yield say(
                section,
                f"Subjects lie above or below {around}, by the same amount at all values of the level-1 "
                f"variables, with an SD of {number(row['sd'])}{unit}{ends}.",
                **facts,
            )
            continue
        yield say(
            section,
            f"Subjects differ in {_what(words, c)} with an SD of {number(row['sd'])}{unit}{ends} around {around}.",
            **facts,
        )
        if len(table) > MAX_SENTENCES:
            yield say(section, f"Ranges in {len(table)} groups: fit.heterogeneity({c.name!r}).")
            continue
        for record in table.to_dict("records"):
            yield from _range(words, section, c, record, x)
    others = [c for c in words.coefficients if c.kind != "intercept"]
    random = [c for c in others if c.name in fit.design.term]
    through = {v for c in random for v in c.variables}
    common = [c for c in others if c.name not in fit.design.term]
    joint = [c.name for c in common if through & set(c.variables)]
    if joint:
        yield say(
            section,
            f"The coefficients of {shorten(joint)} are common to all subjects beyond what level 2 explains, but "
            f"subjects deviate from that curve through {shorten([c.name for c in random])}.",
        )
    fixed = [c.name for c in common if c.name not in joint]
    if fixed and not any(c.kind == "cell" for c in others):
        one = f"The coefficient of {fixed[0]} does" if len(fixed) == 1 else f"The coefficients of {shorten(fixed)} do"
        yield say(
            section,
            f"{one} not vary between subjects in this model beyond what level 2 explains: an assumption, not a "
            "finding.",
        )


def _range(words: Words, section: str, c: Coefficient, row: dict[Any, Any], x: str | None) -> Iterator[Sentence]:
    known = [float(v) for k, v in row.items() if str(k).startswith(("low", "high", "new_")) and np.isfinite(v)]
    words = words.for_values(*known, level=c.kind in ("intercept", "cell"))
    low, high = words.back(row["low"]), words.back(row["high"])
    who = f"of subjects with {row['group']}" if row["group"] else "of subjects"
    unit = "" if words.base else words.unit(x)
    what = _what(words, c)
    if words.base:
        what = what.replace(words.fit.design.hierarchy.response, words.quantity)
        what = what.replace("their mean", "their geometric mean")
        if c.kind == "slope":
            what = f"their factor of {words.quantity} per unit of {x}"
        elif c.kind == "difference":
            what = what.replace("their difference in", "their ratio of")
    ends, facts = "", {"low": low, "high": high}
    sides = {k: words.back(row[k]) for k in ("low_lower", "low_upper", "high_lower", "high_upper")}
    if np.isfinite(list(sides.values())).all():
        shown = [words.show(v) for v in sides.values()]
        ends = (
            f" (both ends are estimates, {words.interval_name}s {shown[0]} to {shown[1]} and {shown[2]} to {shown[3]})"
        )
        facts |= sides
    yield say(
        section,
        f"95 % {who} are estimated to have {what} between {words.show(low)} and {words.show(high)}{unit}{ends}.",
        **facts,
    )
    if c.kind in ("slope", "difference") and np.any(words.fit.design.coef_level1 == c.position):
        positive = what.replace("their", "a" if words.base else "a positive", 1)
        if words.base:
            positive += " that is greater than 1"
        text, facts = f"{percentage(row['share'])} {who} are estimated to have {positive}", {"share": row["share"]}
        if np.isfinite(row["share_lower"]) and np.isfinite(row["share_upper"]):
            ends = f"{percentage(row['share_lower'])} to {percentage(row['share_upper'])}"
            text += f" ({words.interval_name} {ends})"
            facts |= {"share_lower": row["share_lower"], "share_upper": row["share_upper"]}
        yield say(section, f"{text}.", **facts)
    new = words.back(row["new_low"]), words.back(row["new_high"])
    if np.isfinite(new).all():
        group = f" with {row['group']}" if row["group"] else ""
        one = what.replace("their", "its", 1)
        yield say(
            section,
            f"One new subject{group} is predicted, with probability 95 %, to have {one} between "
            f"{words.show(new[0])} and {words.show(new[1])}{unit}; this interval also carries the uncertainty of the "
            f"mean and the SD.",
            new_low=new[0],
            new_high=new[1],
        )


def correlation_sentences(words: Words, section: str) -> Iterator[Sentence]:
    """What the correlation of intercepts and slopes says, and that it depends on the origin."""
    fit, design = words.fit, words.fit.design
    readable = {c.name: c for c in _readable(words)}
    pairs = [(a, b) for a in range(len(design.term)) for b in range(a + 1, len(design.term))]
    pairs = [(a, b) for a, b in pairs if design.term[a] in readable and design.term[b] in readable]
    if not words.named_origin or not words.fixed_intercept:
        pairs = [(a, b) for a, b in pairs if INTERCEPT not in (design.term[a], design.term[b])]
    if not pairs:
        return
    table: Any = fit.variance_components(words.ci)
    free = set(correlated_pairs(design)) if design.covariance != "compound_symmetry" else set(pairs)
    zero = zero_terms(fit)
    for a, b in pairs:
        one, two = readable[design.term[a]], readable[design.term[b]]
        names = f"{_what(words, one)} and {_what(words, two)}"
        if (a, b) not in free or design.covariance in ("identity", "diagonal"):
            equal = (
                " and to have one SD in common, which depends on the units" if design.covariance == "identity" else ""
            )
            more = ""
            if INTERCEPT in (one.name, two.name):
                more = "; with another origin of the level-1 variables this would be another model"
            yield say(
                section,
                f"{names} are taken as uncorrelated between subjects{equal}: an assumption of the model, not a "
                f"finding{more}.",
            )
            continue
        if {one.name, two.name} & set(zero):
            yield say(
                section,
                f"The correlation of {names} has no meaning here, as one of them does not vary at the estimate.",
            )
            continue
        label = COMMON_CORR if COMMON_CORR in table.index else f"corr({one.name}, {two.name})"
        rho = table.loc[label]
        ends, facts = "", {"correlation": rho["estimate"]}
        if np.isfinite(rho["lower"]) and np.isfinite(rho["upper"]):
            ends = f" ({words.interval_name} {_corr(rho['lower'])} to {_corr(rho['upper'])})"
            facts |= {"lower": rho["lower"], "upper": rho["upper"]}
        same = "" if COMMON_CORR not in table.index else " (one correlation in common to all random effects)"
        given = f", given their {' and '.join(design.level2_variables())}" if design.level2_variables() else ""
        yield say(section, f"Between subjects, {names} correlate {_corr(rho['estimate'])}{ends}{same}{given}.", **facts)
        if one.kind == "intercept" and two.kind == "slope":
            yield from _moved(words, section, (a, b), two)


def _corr(value: float) -> str:
    """A correlation; one that is not ±1 never reads as that."""
    return apart(value, float(np.sign(value)))


def _moved(words: Words, section: str, pair: tuple[int, int], slope: Coefficient) -> Iterator[Sentence]:
    """The same correlation with the origin elsewhere."""
    design = words.fit.design
    x = unquoted(design.level1_columns[slope.position][0][0])
    column = design.X1[:, slope.position]
    middle = float(column.mean())
    if abs(middle) < 0.1 * np.ptp(column):  # as good as the origin itself
        middle = float(column.max())
    D = _D(words.fit)
    a, b = pair
    D = D[:, [a, b]][:, :, [a, b]]
    level = D[:, 0, 0] + 2.0 * middle * D[:, 0, 1] + middle**2 * D[:, 1, 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        moved = float(np.mean((D[:, 0, 1] + middle * D[:, 1, 1]) / np.sqrt(level * D[:, 1, 1])))
    yield say(
        section,
        f"This correlation is that of the level at {x} = 0 with the slope, and depends on where zero is: the level "
        f"at {x} = {number(middle)} correlates {_corr(moved)} with the slope. It is no correlation between "
        f"measurements at two times.",
        at=middle,
        correlation=moved,
    )


def _D(fit: Any) -> FloatArray:
    """D as draws of a posterior, or the estimate, (draws, q, q)."""
    if is_posterior(fit):
        draws = fit.draws("D")
        return np.asarray(draws.reshape(-1, *draws.shape[2:]))
    return np.asarray(fit.D.to_numpy()[None])


def _sigma(fit: Any) -> FloatArray:
    return fit.draws("sigma").reshape(-1) if is_posterior(fit) else np.array([fit.sigma])


def within_sentences(words: Words, section: str) -> Iterator[Sentence]:
    """Residual SD, residual structure, and how the variance divides between and within subjects."""
    fit, design = words.fit, words.fit.design
    table: Any = fit.variance_components(words.ci)
    sigma, unit = table.loc["sigma"], words.unit() if words.plain else ""
    ends = _ends(words, sigma)
    scale = " (at a ratio of 1)" if design.residual_variance is not None else ""
    yield say(
        section,
        f"Measurements scatter around the subject's own regression with a residual SD of "
        f"{number(sigma['estimate'])}{unit}{scale}{ends[0]}.",
        sd=sigma["estimate"],
        **ends[1],
    )
    yield from _structure(words, section, table)
    if not design.has_residual_structure:
        yield from _division(words, section)
    else:
        yield say(
            section,
            "With this residual structure the correlation of two measurements of one subject depends on which two: "
            "fit.marginal_covariance(subject) has their covariance.",
        )


def _ends(words: Words, row: Any) -> tuple[str, dict[str, float]]:
    if not (np.isfinite(row["lower"]) and np.isfinite(row["upper"])):
        return "", {}
    text = f" ({words.interval_name} {span(row['lower'], row['upper'])})"
    return text, {"lower": row["lower"], "upper": row["upper"]}


def _structure(words: Words, section: str, table: Any) -> Iterator[Sentence]:
    """Parameters of the residual correlation and of the variance function."""
    design = words.fit.design
    for spec, parameters, what in zip(
        (design.residual, design.residual_variance),
        residual_numbers(words.fit),
        ("Residuals of one subject are correlated", "The residual SD is not the same in all rows"),
        strict=True,
    ):
        if spec is None:
            continue
        formula = formula_of(spec)
        left = "R[s, t]" if spec is design.residual else "SD"
        how = f"{spec_text(spec)}, {left} = {formula}" if formula else spec_text(spec)
        if len(parameters) > MAX_SENTENCES:
            yield say(section, f"{what}: {how}; its {len(parameters)} parameters are in fit.variance_components().")
            continue
        texts: list[str] = []
        facts: dict[str, float] = {}
        for name, value in parameters.items():
            estimate = float(table.loc[name, "estimate"]) if name in table.index else value
            ends = _ends(words, table.loc[name]) if name in table.index else ("", {})
            texts.append(f"{name} = {number(estimate)}{ends[0]}")
            facts |= {name: estimate} | {f"{name}_{k}": v for k, v in ends[1].items()}
        values = f", with {'; '.join(texts)}" if texts else ""
        yield say(section, f"{what}: {how}{values}.", **facts)


def _division(words: Words, section: str) -> Iterator[Sentence]:
    """ICC of a random intercept; with one random slope, variances and the correlation at both ends of the data."""
    fit, design = words.fit, words.fit.design
    term = design.term
    if term == (INTERCEPT,):
        D, s2 = _D(fit)[:, 0, 0], _sigma(fit) ** 2
        icc = D / (D + s2)
        estimate, lower, upper = float(icc.mean()), np.nan, np.nan
        if is_posterior(fit):
            lower, upper = np.quantile(icc, [0.5 - words.ci / 2.0, 0.5 + words.ci / 2.0])
        elif INTERCEPT not in zero_terms(fit):
            lower, upper = _icc_interval(words, estimate)
        row = pd.Series({"lower": lower, "upper": upper})
        text, facts = _ends(words, row)
        yield say(
            section,
            f"Of the variance that the fixed effects leave, {percentage(estimate)} lies between subjects: the "
            "intra-class correlation, which is the correlation of two measurements of one subject given the "
            f"covariates, is {number(estimate)}{text}.",
            icc=estimate,
            share=estimate,
            **facts,
        )
        return
    slopes = [c for c in _readable(words) if c.kind == "slope"]
    if len(term) != 2 or INTERCEPT not in term or len(slopes) != 1:
        yield say(
            section,
            "The variance between subjects, and the correlation of two measurements of one subject, depend on the "
            "level-1 covariates: fit.marginal_covariance(subject) has them.",
        )
        return
    slope = slopes[0]
    x = unquoted(design.level1_columns[slope.position][0][0])
    column = design.X1[:, slope.position]
    low, high = float(column.min()), float(column.max())
    order = [term.index(INTERCEPT), term.index(slope.name)]
    D = _D(fit)[:, order][:, :, order]
    s2 = _sigma(fit) ** 2
    z = [np.array([1.0, v]) for v in (low, high)]
    between = [np.einsum("a,sab,b->s", v, D, v) for v in z]
    share = [float(np.mean(v / (v + s2))) for v in between]
    sd = [float(np.mean(np.sqrt(v + s2))) for v in between]
    corr = float(np.mean(np.einsum("a,sab,b->s", z[0], D, z[1]) / np.sqrt((between[0] + s2) * (between[1] + s2))))
    unit = words.unit() if words.plain else ""
    for v, own, total, name in zip((low, high), share, sd, ("low", "high"), strict=True):
        yield say(
            section,
            f"At {x} = {number(v)}, measurements of different subjects (with equal level-2 covariates) have an SD "
            f"of {number(total)}{unit}, and {percentage(own)} of their variance lies between subjects.",
            **{f"at_{name}": v, f"sd_{name}": total, f"share_{name}": own},
        )
    yield say(
        section,
        f"Two measurements of one subject, at {x} = {number(low)} and {x} = {number(high)}, correlate "
        f"{number(corr)} given the covariates.",
        at_low=low,
        at_high=high,
        correlation=corr,
    )


def _icc_interval(words: Words, estimate: float) -> tuple[float, float]:
    """Large-sample interval on the logit scale."""
    from scipy.stats import norm

    fit: Any = words.fit
    se = fit.large_sample.standard_errors(lambda D, sigma: np.atleast_1d(np.log(D[0, 0] / sigma**2)))[1][0]
    reach = float(norm.ppf(0.5 + words.ci / 2.0)) * se
    logit = np.log(estimate / (1.0 - estimate))
    return float(1.0 / (1.0 + np.exp(reach - logit))), float(1.0 / (1.0 + np.exp(-reach - logit)))


def marginal_covariance_sentences(words: Words, section: str) -> Iterator[Sentence]:
    """Variance and correlation of rows in a model without random effects."""
    fit: Any = words.fit
    unit = words.unit() if words.plain else ""
    if fit.estimator == "GEE":
        sd = float(np.sqrt(fit.scale))
        yield say(section, f"Measurements scatter around the mean with an SD of {number(sd)}{unit}.", sd=sd)
        parameters = fit.correlation_parameters
        values = ", ".join(f"{name} = {number(v)}" for name, v in parameters.items())
        shown = f", estimated as {values}" if 0 < len(parameters) <= MAX_SENTENCES else ""
        facts = dict(parameters) if shown else {}
        yield say(
            section,
            f"The working correlation of rows of one subject is {fit.correlation}{shown}. It is a working "
            "assumption: robust standard errors do not need it to be right.",
            **facts,
        )
        return
    table: Any = fit.variance_components(words.ci)
    sigma = table.loc["sigma"]
    ends = _ends(words, sigma)
    scale = " (at a ratio of 1)" if fit.design.residual_variance is not None else ""
    yield say(
        section,
        f"Measurements scatter around the mean with an SD of {number(sigma['estimate'])}{unit}{scale}{ends[0]}.",
        sd=sigma["estimate"],
        **ends[1],
    )
    if fit.design.residual is None:
        yield say(section, "Rows of one subject are taken as independent: an assumption of the model.")
    for s in _structure(words, section, table):
        yield say(
            section,
            s.text.replace("Residuals of one subject are", "Measurements of one subject are").replace(
                "The residual SD is", "The SD is"
            ),
            **s.facts,
        )
