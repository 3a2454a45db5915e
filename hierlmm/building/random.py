"""A ladder of random effects and of residual structures, climbed while the data ask for the next rung.

For a mean structure that is rich enough (text books advise the most elaborate of interest), one question after
another: do intercepts vary, slopes, curvature, do these correlate, do residual variances differ, is there serial
correlation left (Verbeke & Molenberghs 2000, chapter 9; Fitzmaurice, Laird & Ware 2011, chapter 8)? All tests are by
likelihood ratio, by REML where the response is normal, with null distributions that know where the range of a variance
ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from hierlmm.bound import BoundModel
from hierlmm.building.result import SAY, SEE, ModelBuilding, compared, row_of_model
from hierlmm.covariance.composed import stated
from hierlmm.design.design import Design, design_of
from hierlmm.design.formula import parse_rhs
from hierlmm.design.hierarchy import RandomBlock
from hierlmm.design.questions import time_of, time_variable
from hierlmm.equations.residual_symbols import spec_text
from hierlmm.errors import HierlmmError, SpecificationError
from hierlmm.inference.covariance_tests import codes_as_time, serial_term, variance_functions, why_no_serial
from hierlmm.inference.maximum import Maximum, maximise
from hierlmm.inference.simpler import with_blocks, with_correlations, with_residual, without_effects
from hierlmm.options import checked

FEWEST_TIMES = 4
"""Rows of the median subject, and distinct times, from which curvature is asked for."""


@checked
def build_random(model: BoundModel, *, time: str | None = None, alpha: float = 0.05) -> ModelBuilding:
    """Find the random effects, the residual variances and the serial correlation that the data ask for.

    From no random effects upwards: intercepts, slopes in time, curvature (a natural spline with two degrees of
    freedom), their correlations, residual variances that differ by a factor of the model or change with time (of those
    that the data ask for the one with the lowest BIC), a serial correlation of the residuals. Each rung is fitted and
    tested against the last one that was kept, by tests that are not too ready to reject. The fixed effects stay as they
    are: choose them rich, because what the mean misses looks like random effects.

    Parameters
    ----------
    model : TwoLevelModel
        Its fixed effects, residual structures, family and data are used; its random effects are where a ladder begins
        anew.
    time : str, optional
        The column that is the time, where there are several level-1 variables that could be.
    alpha : float
        Level of each test.

    Returns
    -------
    ModelBuilding
        ``.path`` (steps, with reasons), ``.table`` (every model that was fitted), ``.model`` (where it ended) and
        ``.plot()``. Everything that was looked at is printed.

    Raises
    ------
    SpecificationError
        If the model has no subjects' effects to choose, or ``alpha`` is no probability.

    Examples
    --------
    >>> import hierlmm as hl
    >>> model = hl.TwoLevelModel.from_formula("reaction ~ days + (1 | subject)", hl.load_dataset("sleepstudy"))
    >>> hl.build_random(model).path["decision"].to_list()
    ['kept', 'kept', 'kept', 'correlated', 'kept', 'kept']
    """
    design = _checked(model, alpha)
    column = time_of(design, time) if time is not None else time_variable(design)
    ladder = _Ladder(design, alpha)
    ladder.first()
    if column is not None:
        t = parse_rhs(f"0 + {column}")[0]
        ladder.effects("slopes", ((), t), SAY("random.slopes", time=column))
        values = design.frame[column]
        if min(np.median(design.rows_per_subject), values.nunique()) >= FEWEST_TIMES and "slopes" in ladder.kept:
            curve = parse_rhs(f"0 + ns({column}, 2)")[0]
            ladder.effects("curves", ((), curve), SAY("random.curves", time=column))
    ladder.correlations()
    if design.is_gaussian and stated(design.residual_variance) is None:
        ladder.variances(column)
    if design.is_gaussian and design.residual is None:
        ladder.serial(column)
    notes = [SAY("random.selected", k=len(ladder.steps)), SAY("random.mean")]
    if column is None:
        notes.append(SAY("random.no_time"))
    notes += codes_as_time(design, column, time)
    if given := [spec_text(s) for s in (stated(design.residual_variance), design.residual) if s is not None]:
        notes.append(SAY("random.given", given=" and ".join(given)))
    return ladder.result(model, "Random effects, step by step", [*notes, *ladder.failed])


def _checked(model: BoundModel, alpha: float) -> Design:
    design = design_of(model, "build_random")
    if not design.term:
        received, reason = "a marginal model for build_random", "it has no random effects to choose"
        remedy = (
            "fit it and ask fit.test_covariance() for other structures, compare fits of several by "
            "hl.compare_models(...), or use hl.TwoLevelModel for random effects"
        )
        raise SpecificationError(received, reason, remedy, SEE)
    check_alpha(alpha)
    return design


def check_alpha(alpha: float) -> None:
    """Refuse a level that is no probability.

    Raises
    ------
    SpecificationError
    """
    if not 0.0 < alpha < 1.0:
        raise SpecificationError(f"alpha={alpha!r}", "it is the level of a test", "use for example 0.05", SEE)


class _Ladder:
    """The rungs so far."""

    def __init__(self, design: Design, alpha: float) -> None:
        self.base, self.alpha, self.reml = design, alpha, design.is_gaussian
        self.models: dict[str, Maximum] = {}
        self.steps: list[dict[str, Any]] = []
        self.failed: list[str] = []
        self.kept: list[str] = []

    @property
    def name(self) -> str:
        """The model that was kept last."""
        return self.kept[-1]

    def first(self) -> None:
        """No random effects, and intercepts."""
        intercepts = maximise(with_blocks(self.base, [RandomBlock(((),))], "unstructured"), reml=self.reml)
        if self.base.is_gaussian:
            none = maximise(with_blocks(self.base, [], "none"), reml=self.reml)
        else:
            none = without_effects(intercepts)
        self.models["no random effects"] = none
        self.kept = ["no random effects"]
        self.models["intercepts"] = intercepts
        test, p, method = compared(none, intercepts)
        # Rows of a subject belong together by design; without their intercepts no standard error would hold.
        keep = p < self.alpha
        self.kept.append("intercepts")
        reason = SAY("random.better", alpha=self.alpha) if keep else SAY("random.intercepts_stay")
        self.step(SAY("random.intercepts"), "no random effects", "intercepts", test, p, method, "kept", reason)

    def effects(self, name: str, terms: tuple[Any, ...], question: str) -> None:
        """More correlated random effects."""
        self.larger(name, question, partial(with_blocks, self.base, [RandomBlock(terms)], "unstructured"))

    def larger(self, name: str, question: str, make: Callable[[], Design]) -> None:
        """Ask for a larger model."""
        self.largest({name: (question, make)})

    def largest(self, asked: Mapping[str, tuple[str, Callable[[], Design]]]) -> None:
        """Ask for larger models, each against the last one kept; of those asked for by the data keep one, by BIC."""
        small, before = self.models[self.name], self.name
        found = []
        for name, (question, make) in asked.items():
            try:
                large = maximise(make(), reml=self.reml)
                found.append((name, question, large, *compared(small, large)))
            except HierlmmError as problem:
                self.failed.append(SAY("random.failed", name=name, reason=problem.reason))
        wanted = {
            name: large.bic
            for name, _, large, _, p, _ in found
            if p < self.alpha and not (large.is_singular and large.bic > small.bic)
        }
        best = min(wanted, key=lambda name: wanted[name], default=None)
        for name, question, large, test, p, method in found:
            self.models[name] = large
            key = "singular" if p < self.alpha else "no_better"
            if name in wanted:
                key = "better" if name == best else "another"
            reason = SAY(f"random.{key}", alpha=self.alpha, best=best or "")
            self.step(question, before, name, test, p, method, "kept" if name == best else "not kept", reason)
        self.kept += [best] if best is not None else []

    def correlations(self) -> None:
        """Whether correlated effects may be uncorrelated; they stay unless one of them is perfect."""
        large, before = self.models[self.name], self.name
        if large.design.n_own < 2:
            return
        name = f"{before}, uncorrelated"
        small = maximise(with_correlations(large.design, False), reml=self.reml)
        self.models[name] = small
        test, p, method = compared(small, large)
        drop = large.is_singular and p >= self.alpha
        key = "random.uncorrelated" if drop else "random.correlated" if p >= self.alpha else "random.correlation"
        if drop:
            self.kept.append(name)
        decision = "uncorrelated" if drop else "correlated"
        self.step(SAY("random.correlations"), name, before, test, p, method, decision, SAY(key, alpha=self.alpha))

    def variances(self, time: str | None) -> None:
        """Residual variances that differ, beside the random effects."""
        design, before = self.models[self.name].design, self.name
        found = variance_functions(self.base, time)
        if not found:
            self.failed.append(SAY("random.no_variance"))
        self.largest(
            {
                f"{before}, variance {how}": (
                    SAY("random.unequal", how=how),
                    partial(with_residual, design, design.residual, unequal),
                )
                for how, unequal in found.items()
            }
        )

    def serial(self, time: str | None) -> None:
        """A serial correlation beside the random effects."""
        if reason := why_no_serial(self.base, time):
            self.failed.append(SAY("random.failed", name="serial correlation", reason=reason))
            return
        assert time is not None
        design, term = self.models[self.name].design, serial_term(self.base, time)
        question = SAY("random.serial", structure=type(term).__name__)
        own = stated(design.residual_variance)
        self.larger(f"{self.name} + {type(term).__name__}", question, partial(with_residual, design, term, own))

    def step(
        self, question: str, small: str, large: str, test: Any, p: float, method: str, decision: str, reason: str
    ) -> None:
        """Write a step down."""
        row = {"question": question, "smaller": small, "larger": large, "chisq": test.statistic, "df": test.df}
        self.steps.append(row | {"p": p, "method": method, "decision": decision, "reason": reason})

    def result(self, model: BoundModel, title: str, notes: list[str]) -> ModelBuilding:
        """All of it."""
        rows = {name: row_of_model(maximum) for name, maximum in self.models.items()}
        rows[self.name]["chosen"] = True
        table = pd.DataFrame.from_dict(rows, orient="index").rename_axis(index="name")
        made = model.with_design(self.models[self.name].design)
        estimator = "REML" if self.reml else "ML"
        return ModelBuilding(pd.DataFrame(self.steps), table, made, title, estimator, self.alpha, tuple(notes))
