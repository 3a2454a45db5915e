"""Sentences on variation within subjects: residuals, their structure, and how the variance divides."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from hierlmm.design.formula import INTERCEPT
from hierlmm.equations.residual_symbols import formula_of, residual_numbers, spec_text
from hierlmm.interpret.between import covariance_draws, readable
from hierlmm.interpret.coefficients import Coefficient
from hierlmm.interpret.grammar import Sentence
from hierlmm.interpret.judge import has_working_correlation, is_posterior, tails, zero_terms
from hierlmm.interpret.words import MAX_SENTENCES, Words
from hierlmm.text import number, percentage

__all__ = ["marginal_covariance_sentences", "within_sentences"]

FloatArray = NDArray[np.float64]


def within_sentences(words: Words, section: str) -> Iterator[Sentence]:
    """Residual SD, residual structure, and how the variance divides between and within subjects."""
    yield from _residuals(words, section, "within")
    if words.fit.design.has_residual_structure:
        yield words.say(section, "within.structure")
    else:
        yield from _division(words, section)


def marginal_covariance_sentences(words: Words, section: str) -> Iterator[Sentence]:
    """Variance and correlation of rows in a model without random effects."""
    if has_working_correlation(words.fit):
        yield from _working_correlation(words, section, words.fit)
    else:
        yield from _residuals(words, section, "marginal")


def _working_correlation(words: Words, section: str, fit: Any) -> Iterator[Sentence]:
    sd = float(np.sqrt(fit.scale))
    yield words.say(section, "marginal.sd", {"sd": sd}, sd=number(sd), unit=words.sd_unit(), scale="", ends="")
    parameters = dict(fit.correlation_parameters) if len(fit.correlation_parameters) <= MAX_SENTENCES else {}
    values = ", ".join(f"{name} = {number(v)}" for name, v in parameters.items())
    yield words.say(section, "marginal.working", parameters, kind=fit.correlation, values=values)


def _residuals(words: Words, section: str, about: str) -> Iterator[Sentence]:
    """Residual SD, and the parameters of the residual correlation and of the variance function."""
    design = words.fit.design
    table: Any = words.fit.variance_components(words.ci)
    sigma = table.loc["sigma"]
    ends, facts = words.ends(sigma)
    scale = " (at a ratio of 1)" if design.residual_variance is not None else ""
    slots = {"sd": number(sigma["estimate"]), "unit": words.sd_unit(), "scale": scale, "ends": ends}
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
    term = words.fit.design.term
    slopes = [c for c in readable(words) if c.kind == "slope"]
    if term == (INTERCEPT,):
        yield _icc(words, section)
    elif len(term) == 2 and INTERCEPT in term and len(slopes) == 1:
        yield from _both_ends(words, section, slopes[0])
    else:
        yield words.say(section, "within.depends")


def _sigma(fit: Any) -> FloatArray:
    return fit.draws("sigma").reshape(-1) if is_posterior(fit) else np.array([fit.sigma])


def _icc(words: Words, section: str) -> Sentence:
    fit = words.fit
    D, s2 = covariance_draws(fit)[:, 0, 0], _sigma(fit) ** 2
    icc = D / (D + s2)
    estimate, limits = float(icc.mean()), {"lower": np.nan, "upper": np.nan}
    if is_posterior(fit):
        limits = dict(zip(limits, np.quantile(icc, tails(words.ci)), strict=True))
    elif INTERCEPT not in zero_terms(fit):
        limits = dict(zip(limits, _icc_interval(words, estimate), strict=True))
    ends, facts = words.ends(limits)
    facts = {"icc": estimate, "share": estimate, **facts}
    return words.say(section, "within.icc", facts, share=percentage(estimate), icc=number(estimate), ends=ends)


def _icc_interval(words: Words, estimate: float) -> tuple[float, float]:
    """Large-sample interval on the logit scale."""
    fit: Any = words.fit
    se = fit.large_sample.standard_errors(lambda D, sigma: np.atleast_1d(np.log(D[0, 0] / sigma**2)))[1][0]
    reach = float(norm.ppf(0.5 + words.ci / 2.0)) * se
    logit = np.log(estimate / (1.0 - estimate))
    return float(1.0 / (1.0 + np.exp(reach - logit))), float(1.0 / (1.0 + np.exp(-reach - logit)))


def _both_ends(words: Words, section: str, slope: Coefficient) -> Iterator[Sentence]:
    design = words.fit.design
    x, column = words.x(slope), design.X1[:, slope.position]
    low, high = float(column.min()), float(column.max())
    order = [design.term.index(INTERCEPT), design.term.index(slope.name)]
    D, s2 = covariance_draws(words.fit)[:, order][:, :, order], _sigma(words.fit) ** 2
    z = [np.array([1.0, v]) for v in (low, high)]
    between = [np.einsum("a,sab,b->s", v, D, v) for v in z]
    for v, own, end in zip((low, high), between, ("low", "high"), strict=True):
        share, sd = float(np.mean(own / (own + s2))), float(np.mean(np.sqrt(own + s2)))
        facts = {f"at_{end}": v, f"sd_{end}": sd, f"share_{end}": share}
        slots = {"at": number(v), "sd": number(sd), "unit": words.sd_unit(), "share": percentage(share)}
        yield words.say(section, "within.at", facts, x=x, **slots)
    corr = float(np.mean(np.einsum("a,sab,b->s", z[0], D, z[1]) / np.sqrt((between[0] + s2) * (between[1] + s2))))
    facts = {"at_low": low, "at_high": high, "correlation": corr}
    yield words.say(section, "within.two", facts, x=x, low=number(low), high=number(high), value=number(corr))
