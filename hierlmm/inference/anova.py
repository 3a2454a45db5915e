"""Likelihood-ratio tests of nested models, in a table.

    T = 2 (log L_larger − log L_smaller)  ~  χ²_d under the smaller model, d parameters more,

unless the smaller model lies at the boundary of the larger one (`hierlmm.inference.chibar`): then χ²_d is conservative.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy.stats import chi2

from hierlmm.errors import SpecificationError
from hierlmm.inference.bootstrap_test import bootstrap_lrt
from hierlmm.inference.chibar import Mixture, null_distribution
from hierlmm.inference.maximum import SEE, Maximum, as_fit, likelihood_fits, maximise, maximum_of, model_text
from hierlmm.inference.nesting import Change, NotNested, changes, same_fixed
from hierlmm.inference.refits import require_likelihood
from hierlmm.inference.rows import refuse_other_rows, same_subjects
from hierlmm.options import checked
from hierlmm.results import Page, Paragraph, Result, Table
from hierlmm.text import align, number, probability_text, sayer

SAY = sayer(__file__)
ROUNDING = 1e-6
"""A larger model whose log-likelihood is lower by less than this is as good."""


@dataclass(frozen=True, eq=False)
class RatioTest:
    """One likelihood-ratio test.

    Attributes
    ----------
    statistic : float
    df : int
        Parameters that the larger model has more.
    p : float
        By χ² with ``df`` degrees of freedom.
    mixture : ChiBar, SimulatedMixture or None
        The null distribution at a boundary, or a bound of it; None where neither belongs there.
    changes : tuple of Change
        What the larger model adds.
    """

    statistic: float
    df: int
    p: float
    mixture: Mixture | None
    changes: tuple[Change, ...]

    @property
    def at_boundary(self) -> bool:
        """Whether χ² with ``df`` degrees of freedom is not the null distribution."""
        return any(c.where != "inside" for c in self.changes)

    @property
    def p_mixture(self) -> float:
        """By the mixture; NaN where it is not known, or not another."""
        if not self.at_boundary or self.mixture is None:
            return float("nan")
        return self.mixture.sf(self.statistic)

    @property
    def best_p(self) -> float:
        """The p-value to use: by the mixture, where there is one."""
        return self.p if np.isnan(self.p_mixture) else self.p_mixture


def ratio_test(small: Maximum, large: Maximum, labels: tuple[str, str] = ("the smaller", "the larger")) -> RatioTest:
    """Test a model against a larger one that contains it.

    Raises
    ------
    SpecificationError
        If it does not.
    """
    df = large.n_parameters - small.n_parameters
    if df <= 0:
        reason = f"they have {small.n_parameters} and {large.n_parameters} parameters, so that none has more to test"
        remedy = "compare their AIC or BIC: hl.compare_models(m1, m2)"
        raise SpecificationError(f"{labels[0]} and {labels[1]}", reason, remedy, SEE)
    try:
        found = changes(small.design, large.design)
    except NotNested as problem:
        received = f"{labels[0]}: {model_text(small.design)}; {labels[1]}: {model_text(large.design)}"
        reason = f"{labels[0]} is not known to be a special case of {labels[1]}: {problem}"
        remedy = "compare what is not nested by AIC or BIC: hl.compare_models(m1, m2)"
        raise SpecificationError(received, reason, remedy, SEE) from None
    statistic = 2.0 * (large.loglik - small.loglik)
    statistic = 0.0 if abs(statistic) < ROUNDING else statistic
    p = float(chi2.sf(max(statistic, 0.0), df))
    several = small.design.has_several_factors or large.design.has_several_factors
    by_subject = not several and same_subjects(small.design, large.design)
    return RatioTest(statistic, df, p, null_distribution(small, found, df, by_subject=by_subject), tuple(found))


@checked
@dataclass(frozen=True, eq=False, repr=False)
class LikelihoodRatioTests(Result):
    """Nested models, each tested against the one before.

    Attributes
    ----------
    table : DataFrame
        A row for each model, the smallest first: ``npar``, ``loglik``, ``aic``, ``bic``; ``chisq``, ``df`` and ``p`` of
        the test against the row above; ``p_mixture``, where the null value lies at the boundary of the parameter space
        and ``p`` is conservative.
    models : mapping of str to str
        Label -> model in one line.
    method : {"REML", "ML"}
        Which likelihood.
    tests : tuple of RatioTest
        In the order of the rows from the second on.
    notes : tuple of str
        What was refitted, and what holds of each test.
    """

    table: pd.DataFrame
    models: Mapping[str, str]
    method: str
    tests: tuple[RatioTest, ...]
    notes: tuple[str, ...]

    def _page(self) -> Page:
        table = self.table
        empty = {"npar": 0, "df": 0, "loglik": 3, "aic": 2, "bic": 2, "chisq": 4}
        shown = table if table["p_mixture"].notna().any() else table.drop(columns="p_mixture")
        cells = [["", *map(str, shown.columns)]]
        for label, row in shown.iterrows():
            texts = [
                "" if pd.isna(v) else f"{v:z.{empty[c]}f}" if c in empty else probability_text(float(v))
                for c, v in row.items()
            ]
            cells.append([str(label), *texts])
        return Page(
            f"Likelihood-ratio tests ({self.method})",
            [
                *(f"{label}: {text}" for label, text in self.models.items()),
                "",
                Table(shown, align(cells, [0]), "Each model against the one above", index=True, number=".6g"),
                "",
                *(Paragraph(note, 110) for note in self.notes),
            ],
        )


@checked
def anova(
    *fits: Any,
    test: Literal["chisq", "bootstrap"] = "chisq",
    labels: Sequence[str] | None = None,
    n: int = 1000,
    seed: int | None = 0,
    progressbar: bool = True,
) -> LikelihoodRatioTests:
    """Compare nested models by likelihood-ratio tests.

    Models are sorted by their numbers of parameters, and each is tested against the one before, which has to be a
    special case of it: this is checked (columns of fixed effects, random effects, residual structures).

    Parameters
    ----------
    *fits : LikelihoodFit, MultilevelFit, MarginalFit or GeneralisedFit
        Two fits or more, by REML or ML, of models for the same rows. Fits by REML are compared by REML if they have the
        same fixed effects; otherwise they are fitted again by ML, and the print says so.
    test : {"chisq", "bootstrap"}
        Reference distribution: χ², and where a variance is zero under the smaller model the mixture that belongs there.
        ``"bootstrap"`` adds ``p_bootstrap``, from both models fitted to data drawn from the smaller one.
    labels : sequence of str, optional
        Names of the models; ``m1``, ``m2``, ... in the order given by default.
    n : int
        Data sets of a bootstrap.
    seed : int, optional
        Of a bootstrap.
    progressbar : bool
        Of a bootstrap.

    Returns
    -------
    LikelihoodRatioTests
        ``.table`` and a text and HTML view.

    Raises
    ------
    SpecificationError
        If a model is not nested in the next, REML and ML are mixed, responses are not on one scale, or a fit has no
        likelihood.
    DataError
        If the fits are not of the same rows.

    Examples
    --------
    >>> import hierlmm as hl
    >>> dental = hl.load_dataset("dental")
    >>> one = hl.TwoLevelModel.from_formula("distance ~ sex * time + (1 | subject)", dental).fit_reml()
    >>> two = hl.TwoLevelModel.from_formula("distance ~ sex * time + (time | subject)", dental).fit_reml()
    >>> hl.anova(one, two).table.loc["m2", ["chisq", "p", "p_mixture"]].astype(float).round(4).to_dict()
    {'chisq': 1.1756, 'p': 0.5556, 'p_mixture': 0.4169}
    """
    if test not in ("chisq", "bootstrap"):
        reason, remedy = "there is no such reference distribution", "use test='chisq' or test='bootstrap'"
        raise SpecificationError(f"test={test!r}", reason, remedy, SEE)
    named = likelihood_fits(fits, labels, "anova")
    for fit in named.values() if test == "bootstrap" else ():
        require_likelihood(fit, "a bootstrap")
    maxima, notes = _on_one_scale({label: maximum_of(fit) for label, fit in named.items()})
    order = sorted(maxima, key=lambda label: maxima[label].n_parameters)
    pairs = list(itertools.pairwise(order))
    tests = [ratio_test(maxima[a], maxima[b], (a, b)) for a, b in pairs]
    for (a, b), own in zip(pairs, tests, strict=True):
        notes += test_notes(own, (a, b), maxima[a], maxima[b])
    rows = [maxima[label] for label in order]
    nan = float("nan")
    table = pd.DataFrame(
        {
            "npar": [m.n_parameters for m in rows],
            "loglik": [m.loglik for m in rows],
            "aic": [m.aic for m in rows],
            "bic": [m.bic for m in rows],
            "chisq": [nan, *(t.statistic for t in tests)],
            "df": pd.array([None, *(t.df for t in tests)], dtype="Int64"),
            "p": [nan, *(t.p for t in tests)],
            "p_mixture": [nan, *(t.p_mixture for t in tests)],
        },
        index=pd.Index(order, name="model"),
    )
    if test == "bootstrap":
        as_fits = {label: as_fit(named[label], maxima[label]) for label in order}
        shared: dict[str, Any] = {"seed": seed, "progressbar": progressbar}
        table["p_bootstrap"] = [nan, *(bootstrap_lrt(as_fits[a], as_fits[b], n, **shared).p for a, b in pairs)]
        notes.append(SAY("tests.bootstrap", n=n))
    models = {label: model_text(maxima[label].design) for label in order}
    return LikelihoodRatioTests(table, models, "REML" if rows[0].reml else "ML", tuple(tests), tuple(notes))


def _on_one_scale(maxima: dict[str, Maximum]) -> tuple[dict[str, Maximum], list[str]]:
    """Refuse what is about other rows or mixes criteria; fit again by ML where REML likelihoods cannot be compared."""
    first, *others = maxima
    for label in others:
        refuse_other_rows((first, label), maxima[first].design, maxima[label].design)
    kinds = {label: m.reml for label, m in maxima.items()}
    if len(set(kinds.values())) > 1:
        said = ", ".join(f"{label} by {'REML' if reml else 'ML'}" for label, reml in kinds.items())
        reason = "a restricted likelihood is of other numbers than the full one, so that their ratio means nothing"
        remedy = "fit all by ML, or all by REML (anova fits REML fits again by ML where it has to)"
        raise SpecificationError(said, reason, remedy, SEE)
    points = {label: m.points for label, m in maxima.items()}
    if len(set(points.values())) > 1:
        said = ", ".join(f"{label} with {n}" for label, n in points.items())
        reason = "the random effects were integrated out with other accuracy, which a difference would contain"
        remedy = "fit all with the same n_quadrature"
        raise SpecificationError(f"quadrature points: {said}", reason, remedy, SEE)
    reml = maxima[first].reml
    if reml and not all(same_fixed(maxima[first].design, maxima[label].design) for label in others):
        again = {label: maximise(m.design, reml=False) for label, m in maxima.items()}
        return again, [SAY("anova.refitted")]
    return maxima, []


def test_notes(test: RatioTest, labels: tuple[str, str], small: Maximum, large: Maximum) -> list[str]:
    """What holds of one test, in sentences."""
    many = "groups" if large.design.has_several_factors else "subjects"
    slots = {"small": labels[0], "large": labels[1], "many": many}
    notes = []
    if test.statistic < 0.0:
        notes.append(SAY("anova.negative", **slots, by=number(-test.statistic)))
    edges = [c for c in test.changes if c.where != "inside"]
    if edges and test.mixture is not None:
        words = " and ".join(c.words for c in edges)
        key = "bound" if test.mixture.kind == "bound" else "mixture"
        notes.append(SAY(f"anova.{key}", **slots, words=words, df=test.df, mixture=str(test.mixture)))
    elif any(c.where == "unidentified" for c in edges):
        words = " and ".join(c.words for c in edges if c.where == "unidentified")
        notes.append(SAY("anova.unidentified", **slots, words=words))
    if small.is_singular and test.changes:
        notes.append(SAY("anova.singular", **slots))
    return notes


test_notes.__test__ = False  # type: ignore[attr-defined]  # no test of pytest's
