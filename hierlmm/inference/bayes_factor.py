"""Bayes factors: how much more probable one model made the data than another, p(y | model 1) / p(y | model 2).

Each marginal likelihood is that of `hierlmm.bayes.evidence`; nothing is sampled for it. With prior probabilities π_k of
the models, the posterior ones are ``π_k p(y | k) / Σ_j π_j p(y | j)``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit, logsumexp

from hierlmm.arrays import FloatArray
from hierlmm.bayes.evidence import GOOD_K, SEE, MarginalLikelihood, log_marginal_likelihood
from hierlmm.bayes.resolved import ResolvedPriors
from hierlmm.design.design import Design
from hierlmm.errors import ArgumentError, DataError, NotAvailableError, SpecificationError
from hierlmm.fits.posterior import PosteriorNumbers
from hierlmm.frames import shorten
from hierlmm.inference.maximum import model_text
from hierlmm.inference.rows import other_kept, same
from hierlmm.options import checked
from hierlmm.results import Page, Paragraph, Result, Table
from hierlmm.text import number, probability_text, table_lines

HARDLY = math.log(3.0)
"""Size of a log Bayes factor below which one data set hardly tells the models apart."""
LOOSE = 0.1
"""Error of a log Bayes factor above which it is said."""
FARTHEST = 700.0
"""Log of the largest factor that is a number."""


@checked
@dataclass(frozen=True, eq=False, repr=False)
class ModelProbabilities(Result):
    """Marginal likelihoods of models of the same response, and the posterior probability of each. Frozen.

    Attributes
    ----------
    table : DataFrame
        One row for each model, a copy: ``log_marginal_likelihood``, its ``error``, ``prior`` and ``probability``, and
        ``log_bf``, the log Bayes factor against the most probable model; ``method``, ``pareto_k``.
    notes : tuple of str
        What the numbers rest on.
    """

    table: pd.DataFrame
    notes: tuple[str, ...]

    def _page(self) -> Page:
        frame = _printed(self.table, ["log_marginal_likelihood", "error", "prior", "probability", "log_bf"])
        table = Table(frame, table_lines(frame, ["model"]), "Marginal likelihoods and probabilities of the models")
        return Page("Posterior probabilities of models", ["", table, "", *map(Paragraph, self.notes)])


class LogFactor(Result):
    """A Bayes factor by its logarithm; ``probability`` is of the model above the line."""

    log_bf: float

    @property
    def bf(self) -> float:
        """The Bayes factor itself."""
        return float(np.exp(min(self.log_bf, FARTHEST)))

    @property
    def probability(self) -> float:
        """Posterior probability of the first of the two, if both were equally probable before."""
        return float(expit(self.log_bf))


@checked
@dataclass(frozen=True, eq=False, repr=False)
class BayesFactor(LogFactor):
    """A Bayes factor of one model against another. Frozen.

    Attributes
    ----------
    log_bf : float
        log p(y | first) - log p(y | second); positive if the data speak for the first.
    error : float
        Numerical error of ``log_bf``.
    bf : float
        Its exponential.
    probability : float
        Of the first model, if both were equally probable before.
    table : DataFrame
        As of `ModelProbabilities`, a copy.
    notes : tuple of str
        What the number rests on.
    """

    log_bf: float
    error: float
    table: pd.DataFrame
    notes: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """The factor in words."""
        first, second = self.table.index
        return told(self.log_bf, f"under {first!r}", f"under {second!r}", repr(first), self.probability)

    def _page(self) -> Page:
        frame = _printed(self.table, ["log_marginal_likelihood", "error", "prior", "probability"])
        table = Table(frame, table_lines(frame, ["model"]), "The two models")
        title = f"Log Bayes factor: {self.log_bf:.3f} (error {self.error:.2g})"
        return Page(title, ["", table, "", Paragraph(self.verdict), *map(Paragraph, self.notes)])


def _printed(table: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """The columns that are printed; of errors two digits suffice."""
    return table[columns].assign(error=[f"{v:.1g}" for v in table["error"]]).reset_index()


def told(log_bf: float, first: str, second: str, who: str, probability: float) -> str:
    """A Bayes factor as a sentence, without a scale of strengths."""
    size = abs(log_bf)
    times = number(math.exp(size)) if size < 14.0 else f"10^{size / math.log(10.0):.1f}"
    more, less = (first, second) if log_bf >= 0.0 else (second, first)
    text = f"The data are {times} times as probable {more} as {less}"
    hardly = ": they hardly tell the two apart" if size < HARDLY else ""
    share = probability_text(probability).replace("<", "below ").replace(">", "above ")
    return f"{text}{hardly}. If both were equally probable before, the probability of {who} is now {share}."


@checked
def bayes_factor(first: Any, second: Any, *, labels: Sequence[str] | None = None, seed: int = 0) -> BayesFactor:
    """Bayes factor of one model against another, from their exact marginal likelihoods.

    Fixed and random effects are integrated out in closed form, the covariance parameters by adaptive quadrature or
    importance sampling: no draws are needed, and a model that was not sampled will do.

    Parameters
    ----------
    first, second : PosteriorFit, TwoLevelModel or MarginalModel
        Of the same rows and response.
    labels : sequence of str, optional
        Names of the two; by default their formulas.
    seed : int
        Of the importance sampling.

    Returns
    -------
    BayesFactor

    Raises
    ------
    DataError
        If they are of different rows or responses.
    NotAvailableError
        If one is no Gaussian model with priors, or its priors have no closed form.

    Examples
    --------
    >>> import hierlmm as hl
    >>> sleep = hl.load_dataset("sleepstudy")
    >>> line = hl.TwoLevelModel.from_formula("reaction ~ days + (1 | subject)", sleep)
    >>> level = hl.TwoLevelModel.from_formula("reaction ~ 1 + (1 | subject)", sleep)
    >>> round(hl.bayes_factor(line, level).log_bf, 2)
    53.89
    """
    found = model_probabilities(first, second, labels=labels, seed=seed)
    table = found.table
    value, error = table["log_marginal_likelihood"].to_numpy(), table["error"].to_numpy()
    return BayesFactor(float(value[0] - value[1]), float(np.hypot(*error)), table, found.notes)


@checked
def model_probabilities(
    *models: Any, prior: Sequence[float] | None = None, labels: Sequence[str] | None = None, seed: int = 0
) -> ModelProbabilities:
    """Posterior probabilities of several models of the same response.

    Parameters
    ----------
    *models : PosteriorFit, TwoLevelModel or MarginalModel
        Two or more, of the same rows and response.
    prior : sequence of float, optional
        Probability of each before the data; equal by default.
    labels : sequence of str, optional
        Names of the models; by default their formulas.
    seed : int
        Of the importance sampling.

    Returns
    -------
    ModelProbabilities

    Raises
    ------
    DataError, NotAvailableError
        As `bayes_factor`.
    SpecificationError
        If there are fewer than two models, or the prior probabilities are none.
    """
    if len(models) < 2:
        reason = "a probability among models needs two or more"
        raise SpecificationError(f"{len(models)} model", reason, "give the models one after another", SEE)
    stated = [_stated(model) for model in models]
    before = _prior(prior, len(models))
    names = _names([design for design, _ in stated], labels)
    for name, (design, _) in zip(names[1:], stated[1:], strict=True):
        _same_response(f"{names[0]} and {name}", stated[0][0], design)
    found = [log_marginal_likelihood(design, priors, seed=seed) for design, priors in stated]
    value = np.array([own.value for own in found])
    with np.errstate(divide="ignore"):
        weight = value + np.log(before)
    columns = {
        "log_marginal_likelihood": value,
        "error": [own.error for own in found],
        "prior": before,
        "probability": np.exp(weight - logsumexp(weight)),
        "log_bf": value - value.max(),
        "method": [own.method for own in found],
        "pareto_k": [own.pareto_k for own in found],
    }
    table = pd.DataFrame(columns, index=pd.Index(names, name="model"))
    return ModelProbabilities(table, _notes(names, [priors for _, priors in stated], found))


def _stated(model: Any) -> tuple[Design, ResolvedPriors]:
    """Design and priors of a posterior fit or a model."""
    design = getattr(model, "design", None)
    if not isinstance(design, Design):
        received, reason = f"an argument of type {type(model).__name__}", "Bayes factors are of models"
        raise ArgumentError(received, reason, "give posterior fits, or the models themselves", SEE)
    fitted = hasattr(model, "beta")
    if fitted and not isinstance(model, PosteriorNumbers):
        received = f"a fit by {model.estimator}"
        reason = "a marginal likelihood averages the likelihood over the priors, and this fit has none"
        raise NotAvailableError(received, reason, "give the model itself, or its posterior by model.fit()", SEE)
    priors = model.priors
    if priors is None:
        reason = "its priors are not known here, and a marginal likelihood is an average over them"
        raise NotAvailableError("a posterior from elsewhere", reason, "give the model itself, with its priors", SEE)
    return design, priors


def _prior(prior: Sequence[float] | None, n: int) -> FloatArray:
    if prior is None:
        return np.full(n, 1.0 / n)
    found = np.asarray(list(prior), dtype=float)
    if len(found) != n or np.any(found < 0.0) or not np.isfinite(found).all() or abs(found.sum() - 1.0) > 1e-6:
        reason = f"prior probabilities of {n} models are {n} numbers from 0 to 1 that sum to 1"
        raise SpecificationError(f"prior={list(prior)!r}", reason, "leave prior out for equal probabilities", SEE)
    return found / found.sum()


def _names(designs: Sequence[Design], labels: Sequence[str] | None) -> list[str]:
    if labels is not None:
        if len(labels) != len(designs) or len(set(labels)) < len(labels):
            reason = f"there are {len(designs)} models, and each needs a name of its own"
            raise SpecificationError(f"labels={list(labels)!r}", reason, "give as many different names", SEE)
        return list(labels)
    formulas = [model_text(design) for design in designs]
    several = len(set(formulas)) < len(formulas)
    return [f"{k}: {formula}" if several else formula for k, formula in enumerate(formulas, 1)]


def _same_response(pair: str, a: Design, b: Design) -> None:
    """Refuse models of other responses or rows: they give probabilities of other data."""
    responses = a.hierarchy.response, b.hierarchy.response
    sizes = f"{pair}: {a.n_obs} rows of {responses[0]}, and {b.n_obs} rows of {responses[1]}"
    reason = "a Bayes factor compares probabilities of the same data, and these are not the same"
    if responses[0] != responses[1]:
        remedy = "write the same response in both (a transformed response has another density)"
        raise SpecificationError(sizes, reason, remedy, SEE)
    if a.n_obs == b.n_obs and not other_kept(a, b) and same(a.y, _in_the_order_of(a, b)):
        return
    remedy = "fit both to the same rows (missing='drop' drops different rows when the covariates differ)"
    raise DataError(sizes, reason, remedy, SEE)


def _in_the_order_of(a: Design, b: Design) -> FloatArray:
    """The response of b, row by row that of a where the rows have the same labels in another order."""
    place = b.frame.index.get_indexer(a.frame.index) if b.frame.index.is_unique else np.arange(b.n_obs)
    return b.y[place] if place.min(initial=0) >= 0 else b.y


def _notes(
    names: Sequence[str], priors: Sequence[ResolvedPriors], found: Sequence[MarginalLikelihood]
) -> tuple[str, ...]:
    """What the numbers rest on: the priors above all."""
    notes = [
        "A Bayes factor depends on the priors of what the models do not share, however many data there are: a prior "
        "ten times as wide makes a coefficient's model up to ten times less probable."
    ]
    if scaled := [name for name, own in zip(names, priors, strict=True) if own.source in ("default", "bambi")]:
        whose = "all models" if len(scaled) == len(names) else shorten(scaled)
        notes.append(
            f"Priors of {whose} are defaults: a coefficient's is 2.5 SDs of the response wide per SD of its column. "
            "That uses the data twice, changes with the columns, and is wider than what most people expect, which "
            "speaks for the smaller model. Set the priors of what is tested with hl.Priors(...)."
        )
    for name, own in zip(names[1:], priors[1:], strict=True):
        first, other = (p.to_frame()["prior"].to_dict() for p in (priors[0], own))
        differ = [key for key in first if key in other and str(first[key]) != str(other[key])]
        if differ:
            each = shorten([f"{key} has {other[key]} there, {first[key]} in the first" for key in differ])
            notes.append(f"Shared parameters have other priors in {name}: {each}. A part of the factor is due to that.")
    if max(own.error for own in found) > LOOSE or any(own.pareto_k > GOOD_K for own in found):
        notes.append("The numerical error is not small: see error and pareto_k in the table.")
    return tuple(notes)
