"""Is a serial term, an unequal variance, a correlation, a covariance by arm needed? Each is fitted and tested.

What the model has is tested by leaving it out, what it has not by putting it in: correlations of the random effects, a
serial correlation of the residuals, residual variances that differ by a factor or change with time, where subjects
share few occasions a variance and a correlation for each of them, and a D or residual parameters for each level of a
factor that is constant within subjects.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from hierlmm.covariance.composed import group_of, stated
from hierlmm.covariance.random import SPECTRAL
from hierlmm.covariance.residual import AR1, Exponential, Unstructured
from hierlmm.covariance.variance import VarExp, VarIdent
from hierlmm.design.design import Design
from hierlmm.design.questions import has_codes, is_label, levels_of, numbers_at_level1, time_of
from hierlmm.errors import HierlmmError
from hierlmm.frames import shorten
from hierlmm.inference.anova import ratio_test
from hierlmm.inference.maximum import maximise, maximum_of, model_text
from hierlmm.inference.random_effects import SAY, Judged, Method, VarianceTests, check_method, judge, row_of
from hierlmm.inference.simpler import (
    with_blocks,
    with_correlations,
    with_group,
    with_residual,
    with_residual_group,
)

FEWEST_ROWS = 10
"""Rows of a level with a variance of its own."""
FEWEST_SUBJECTS = 10
"""Subjects of a level with a covariance of its own."""
MOST_LEVELS = 8
MOST_OCCASIONS = 6


class Question(NamedTuple):
    """A question: its name, the design of the alternative, and whether that is the smaller model."""

    name: str
    design: Design
    smaller: bool


def test_covariance(
    fit: Any,
    how: Method = "auto",
    n: int = 1000,
    seed: int | None = 0,
    progressbar: bool = True,
    time: str | None = None,
) -> VarianceTests:
    """Test the structures of the covariance; see `hierlmm.fit.variance_tests`."""
    check_method(how)
    own = maximum_of(fit)
    column = time_of(own.design, time)
    rows, models, failed = {}, {}, []
    assumed: dict[str, None] = {}
    for question in questions(own.design, column):
        try:
            other = maximise(question.design, reml=own.reml, points=own.points)
            small, large = (other, own) if question.smaller else (own, other)
            test = ratio_test(small, large)
            asked: Method = "mixture" if how == "auto" and test.mixture is not None else how
            if asked == "auto":  # no mixture is known, and each fit of a bootstrap would be a search
                rows[question.name] = row_of(test, _rough(test.p, test.df))
                assumed[SAY("tests.rough")] = None
            else:
                judged = judge(fit, small, large, test, asked, n, seed, progressbar)
                rows[question.name] = row_of(test, judged)
                assumed[judged.assumes] = None
        except HierlmmError as problem:
            failed.append(SAY("tests.failed", name=question.name, reason=problem.reason))
            continue
        models[question.name] = SAY("tests.against", small=model_text(small.design), large=model_text(large.design))
        if other.is_singular and other.design.term:
            failed.append(SAY("tests.singular", name=question.name))
    columns = ["chisq", "df", "p_naive", "p", "method", "mcse"]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis(index="question")
    several = [SAY("tests.several", k=len(rows))] if len(rows) > 1 else []
    notes = (*assumed, *several, *failed, *not_asked(own.design, column), *codes_as_time(own.design, column, time))
    estimator = "REML" if own.reml else "ML"
    return VarianceTests(table, models, model_text(own.design), "Tests of the covariance", estimator, notes)


test_covariance.__test__ = False  # type: ignore[attr-defined]  # no test of pytest's


def _rough(p: float, df: int) -> Judged:
    return Judged(p, f"χ²({df}), rough", float("nan"), SAY("tests.rough"))


def questions(design: Design, time: str | None) -> Iterator[Question]:
    """Alternatives to the structures of a design."""
    q, own = design.n_own, [b for b in design.blocks if max(b) < design.n_own]
    if q > 1 and design.covariance not in SPECTRAL:
        together = any(len(b) > 1 for b in own)
        if together:
            yield Question("correlation of random effects", with_correlations(design, False), True)
        if len(own) > 1:
            yield Question("all correlations of random effects", with_correlations(design, True), False)
    if design.group:
        yield Question(f"D by {design.group}", with_group(design, None), True)
    for name in [arm for arm, enough in arms_of_d(design).items() if enough]:
        yield Question(f"D by {name}", with_group(design, name), False)
    if not design.is_gaussian:
        return
    yield from _serial(design, time)
    yield from _unequal(design, time)
    yield from _any_covariance(design, time)
    yield from _by_arm(design)


def _by_arm(design: Design) -> Iterator[Question]:
    """Residual parameters for each level of a factor, of residuals that have a structure."""
    if group := group_of(design.residual_variance):
        yield Question(f"residual covariance by {group}", with_residual_group(design, None), True)
    for name in [arm for arm, enough in arms_of_residuals(design).items() if enough]:
        yield Question(f"residual covariance by {name}", with_residual_group(design, name), False)


def arms_of_d(design: Design) -> dict[str, bool]:
    """Factors that D may depend on and does not, and whether their levels have subjects enough."""
    return {} if design.group or not design.term else _arms(design, 3 * design.n_own)


def arms_of_residuals(design: Design) -> dict[str, bool]:
    """The same of residuals that have a structure; an unstructured one asks for more subjects."""
    residual, variance = design.residual, design.residual_variance
    if not design.is_gaussian or group_of(variance) or (residual is None and stated(variance) is None):
        return {}
    free = residual is not None and residual.free and not residual.stationary
    return _arms(design, 3 * int(design.rows_per_subject.max()) if free else 0)


def _arms(design: Design, fewest: int) -> dict[str, bool]:
    between = [name for name in factors(design) if name in design.level2_variables()]
    subjects = {name: design.frame[name].groupby(design.subject_index).first().value_counts() for name in between}
    return {name: bool(own[own > 0].min() >= max(fewest, FEWEST_SUBJECTS)) for name, own in subjects.items()}


def _serial(design: Design, time: str | None) -> Iterator[Question]:
    a, variance = design.residual, stated(design.residual_variance)
    if a is not None:
        yield Question("residual correlation", with_residual(design, None, variance), True)
    elif time is not None and not why_no_serial(design, time):
        yield Question("serial correlation", with_residual(design, serial_term(design, time), variance), False)


def why_no_serial(design: Design, time: str | None) -> str:
    """Why a serial correlation in the time cannot be asked for; empty where it can."""
    if time is None:
        could = numbers_at_level1(design)
        return SAY("no_serial.several" if could else "no_serial.no_time", names=shorten(could))
    if design.rows_per_subject.max() < 3 and design.term:
        return SAY("no_serial.few_rows")
    if pd.DataFrame({"s": design.subject_index, "t": design.frame[time].to_numpy()}).duplicated().any():
        return SAY("no_serial.ties", time=time)
    return ""


def not_asked(design: Design, time: str | None) -> list[str]:
    """What could not be asked, and how to have it asked."""
    few = [name for name, enough in (arms_of_d(design) | arms_of_residuals(design)).items() if not enough]
    arms = [SAY("tests.few", names=shorten(few))] if few else []
    return [*_no_serial(design, time), *arms]


def _no_serial(design: Design, time: str | None) -> list[str]:
    if not design.is_gaussian:
        what, reason = SAY("no_residuals.what"), SAY("no_residuals.reason", family=design.family.title)
        alone = [SAY("no_residuals.alone")] if design.n_own == 1 else []
        return [*alone, SAY("tests.not_asked", what=what, reason=reason, remedy="")]
    if design.residual is not None or not (reason := why_no_serial(design, time)):
        return []
    could = numbers_at_level1(design) if time is None else []
    remedy = SAY("no_serial.name", first=could[0]) if could else ""
    along = time is None and stated(design.residual_variance) is None
    return [SAY("tests.not_asked", what=SAY(f"no_serial.{'both' if along else 'one'}"), reason=reason, remedy=remedy)]


def codes_as_time(design: Design, column: str | None, named: str | None) -> list[str]:
    """Say that the codes of a factor were taken for the time, unless the user named it."""
    if named is not None or not design.is_gaussian or not has_codes(design, column):
        return []
    return [SAY("tests.codes", time=column)]


def serial_term(design: Design, time: str) -> Any:
    """A serial correlation in the time of a design: by its order where occasions are whole numbers a step apart."""
    t = design.frame[time].to_numpy(dtype=np.float64)
    pairs = pd.DataFrame({"s": design.subject_index, "t": t})
    gaps = pairs.sort_values(["s", "t"]).groupby("s")["t"].diff().dropna()
    return AR1(time) if np.all(t == np.round(t)) and gaps.min() == 1.0 else Exponential(time)


def _unequal(design: Design, time: str | None) -> Iterator[Question]:
    a, variance = design.residual, stated(design.residual_variance)
    if variance is not None:
        yield Question("unequal residual variances", with_residual(design, a, None), True)
        return
    for name, unequal in variance_functions(design, time).items():
        yield Question(f"residual variance {name}", with_residual(design, a, unequal), False)


def variance_functions(design: Design, time: str | None) -> dict[str, Any]:
    """Variances that may differ: by a factor of the model, along time."""
    found: dict[str, Any] = {f"by {name}": VarIdent(name) for name in factors(design)}
    return found if time is None else found | {f"along {time}": VarExp(time)}


def factors(design: Design) -> list[str]:
    """Columns of labels in a model, each level with rows enough for a variance of its own."""
    found = []
    for name in dict.fromkeys([*design.level2_variables(), *design.level1_variables()]):
        if name in design.frame.columns and is_label(design, name) and len(levels_of(design, name)) <= MOST_LEVELS:
            sizes = design.frame[name].value_counts()
            if len(sizes) > 1 and sizes[sizes > 0].min() >= FEWEST_ROWS:
                found.append(name)
    return found


def _any_covariance(design: Design, time: str | None) -> Iterator[Question]:
    """Any covariance of the occasions, where subjects share few of them."""
    if time is None or (design.residual is not None and design.residual.free and not design.residual.stationary):
        return
    occasions = design.frame[time].nunique()
    enough = design.n_subjects >= 3 * occasions
    if 2 < occasions <= MOST_OCCASIONS and enough and design.residual_variance is None and not design.group:
        marginal = with_residual(design.without_random(), Unstructured(time), VarIdent(time))
        yield Question("any covariance of the occasions", with_blocks(marginal, [], "none"), False)
