"""Is a random effect needed? Each term that may be dropped is dropped, and its variance tested.

The null value of a variance is the end of its range, so that χ² is not the null distribution. In this order:

- exact: one variance in all, independent residuals of equal variance (`hierlmm.inference.exact`); any sample size;
- a mixture of χ² (`hierlmm.inference.chibar`), for many subjects, where the smaller model is not itself at a boundary;
- a parametric bootstrap, which assumes nothing but the smaller model;
- the bound of all mixtures that may belong there, where the mixture is not known and no data can be drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import pandas as pd

from hierlmm.errors import NotAvailableError, SpecificationError
from hierlmm.inference.anova import RatioTest, ratio_test
from hierlmm.inference.bootstrap_test import bootstrap_lrt
from hierlmm.inference.chibar import Mixture
from hierlmm.inference.cones import CONE_DRAWS
from hierlmm.inference.exact import DRAWS, MOST_EFFECTS, exact_p, null_draws, spectrum
from hierlmm.inference.maximum import PAGE, Maximum, as_fit, maximise, maximum_of, model_text
from hierlmm.inference.simpler import droppable, name_of, with_blocks, without_effects, without_term
from hierlmm.options import checked
from hierlmm.results import Page, Paragraph, Result, Table
from hierlmm.text import align, probability_text, sayer

SAY = sayer(__file__)
SEE = f"{PAGE}, section 'Tests of random effects and of the covariance'"
Method = Literal["auto", "exact", "mixture", "bootstrap"]


class Judged(NamedTuple):
    """A p-value, its method, its Monte-Carlo standard error (NaN where nothing was simulated), and what it assumes."""

    p: float
    method: str
    mcse: float
    assumes: str


@checked
@dataclass(frozen=True, eq=False, repr=False)
class VarianceTests(Result):
    """Tests of parts of the covariance of a model.

    Attributes
    ----------
    table : DataFrame
        A row for each question: ``chisq``, the likelihood-ratio statistic, ``df``, the parameters tested, ``p_naive``
        by χ² (conservative where a variance is tested), ``p``, its ``method`` and Monte-Carlo error ``mcse``.
    models : mapping of str to str
        For each question the smaller and the larger model.
    model : str
        The model that was asked, in one line.
    title : str
    estimator : {"REML", "ML"}
    notes : tuple of str
        What each method assumes, and what could not be tested.
    """

    table: pd.DataFrame
    models: Mapping[str, str]
    model: str
    title: str
    estimator: str
    notes: tuple[str, ...]

    def _page(self) -> Page:
        shown = self.table.dropna(axis="columns", how="all")
        number = {"chisq": "z.4f", "df": "d", "mcse": ".1g"}
        cells = [["", *map(str, shown.columns)]]
        for label, row in shown.iterrows():
            cells.append([str(label), *(_cell(v, number.get(str(c), "")) for c, v in row.items())])
        left = [0, 1 + list(shown.columns).index("method")] if len(shown) else [0]
        lines = align(cells, left)
        models = [f"{label}: {text}" for label, text in self.models.items()]
        return Page(
            f"{self.title} ({self.estimator})",
            [
                self.model,
                "",
                Table(shown, lines, self.title, index=True, number=".4g") if len(shown) else "Nothing was tested.",
                "",
                *(Paragraph(text, 110, rest="  ") for text in models),
                *([""] if models else []),
                *(Paragraph(note, 110) for note in self.notes),
            ],
        )


def _cell(value: Any, number: str) -> str:
    if isinstance(value, str):
        return value
    if pd.isna(value):
        return ""
    return format(int(value) if number == "d" else value, number) if number else probability_text(float(value))


def judge(
    fit: Any,
    small: Maximum,
    large: Maximum,
    test: RatioTest,
    method: Method,
    n: int,
    seed: int | None,
    progressbar: bool,
) -> Judged:
    """The p-value of one test, by the method asked for or the first that holds.

    Raises
    ------
    NotAvailableError
        If the method asked for has no meaning here.
    """
    exact = has_exact_null(small, large)
    if method == "exact" and not exact:
        reason = "it holds for one variance in all, beside independent residuals of equal variance (normal response)"
        remedy = "use test='mixture' or test='bootstrap'"
        raise NotAvailableError(f"test='exact' for {model_text(large.design)}", reason, remedy, SEE)
    if method == "mixture" and test.mixture is None:
        reason = "no mixture of χ² is known to be the null distribution here"
        raise NotAvailableError(f"test='mixture' for {model_text(large.design)}", reason, "use 'bootstrap'", SEE)
    if method == "exact" or (method == "auto" and exact):
        draws = null_draws(spectrum(large.design), reml=large.reml, seed=seed)
        p, mcse = exact_p(test.statistic, draws)
        return Judged(p, "exact, simulated", mcse, SAY("tests.exact", draws=f"{DRAWS:,}"))
    can_draw = large.design.is_gaussian or bool(small.design.term)
    holds = test.mixture is not None and (not can_draw or not (test.mixture.kind == "bound" or small.is_singular))
    if method == "mixture" or (method == "auto" and holds):
        assert test.mixture is not None
        return _by_mixture(test, test.mixture, large)
    if not can_draw:
        reason = "without random effects the smaller model is no model of this kind, from which data could be drawn"
        raise NotAvailableError("a bootstrap of this test", reason, "use test='mixture'", SEE)
    found = bootstrap_lrt(as_fit(fit, small), as_fit(fit, large), n, seed=seed, progressbar=progressbar)
    return Judged(found.p, f"bootstrap, {n}", found.mcse, SAY("tests.bootstrap", n=n))


def _by_mixture(test: RatioTest, mixture: Mixture, large: Maximum) -> Judged:
    if not test.at_boundary:
        return Judged(test.p, f"χ²({test.df})", float("nan"), SAY("tests.inside"))
    says = SAY(f"tests.{mixture.kind}", n=large.design.n_subjects, mixture=str(mixture), draws=f"{CONE_DRAWS:,}")
    return Judged(mixture.sf(test.statistic), str(mixture), mixture.mcse(test.statistic), says)


def has_exact_null(small: Maximum, large: Maximum) -> bool:
    """Whether the exact null distribution of one variance is that of these two models."""
    a, b = small.design, large.design
    one = b.is_gaussian and not a.term and b.n_random_parameters == 1
    return (
        one
        and not b.has_residual_structure
        and b.n_subjects * len(b.term) <= MOST_EFFECTS
        and len(a.coef) == len(b.coef)
    )


def check_method(method: str) -> None:
    """Refuse an unknown method.

    Raises
    ------
    SpecificationError
    """
    if method not in ("auto", "exact", "mixture", "bootstrap"):
        remedy = "use 'auto', 'exact', 'mixture' or 'bootstrap'"
        raise SpecificationError(f"test={method!r}", "there is no such method", remedy, SEE)


def test_random_effects(
    fit: Any, how: Method = "auto", n: int = 1000, seed: int | None = 0, progressbar: bool = True
) -> VarianceTests:
    """Test every random effect that may be dropped; see `hierlmm.fit.variance_tests`."""
    check_method(how)
    large = maximum_of(fit)
    design = large.design
    terms = droppable(design)
    smaller = {name_of(t): without_term(design, t) for t in terms}
    if not terms:
        smaller = {"all random effects": with_blocks(design, [], "none")}
    rows, models = {}, {}
    assumed: dict[str, None] = {}
    for name, own in smaller.items():
        plain = not design.is_gaussian and not own.term
        small = without_effects(large) if plain else maximise(own, reml=large.reml, points=large.points)
        test = ratio_test(small, large, ("the model without it", "the model"))
        judged = judge(fit, small, large, test, how, n, seed, progressbar)
        rows[name] = row_of(test, judged)
        models[f"without {name}"] = model_text(own)
        assumed[judged.assumes] = None
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis(index="random effect")
    kept = [name_of(t) for b in design.hierarchy.blocks for t in b.terms if name_of(t) not in smaller]
    notes = [SAY("tests.kept", kept=", ".join(kept))] if kept and terms else []
    return VarianceTests(table, models, model_text(design), "Tests of random effects", _name(large), (*assumed, *notes))


test_random_effects.__test__ = False  # type: ignore[attr-defined]  # no test of pytest's


def row_of(test: RatioTest, judged: Judged) -> dict[str, Any]:
    """A row of the table."""
    return {
        "chisq": test.statistic,
        "df": test.df,
        "p_naive": test.p,
        "p": judged.p,
        "method": judged.method,
        "mcse": judged.mcse,
    }


def _name(maximum: Maximum) -> str:
    return "REML" if maximum.reml else "ML"
