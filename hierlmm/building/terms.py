"""Terms of the mean: interactions and nonlinear terms are tested first, each kind as a whole; what is left is told.

    1. all interactions together; where they are not needed they are left out together,
    2. all nonlinear terms together, against straight lines in the same variables; the same,
    3. every remaining term that no other contains, one at a time: reported, never dropped.

Complex terms as a whole, and main effects not at all, keep the damage of selection small (Harrell 2015, chapter 4).
Likelihood ratios by ML.
"""

from __future__ import annotations

import re
from typing import Any

import pandas as pd

from hierlmm.bound import BoundModel
from hierlmm.building.random import check_alpha
from hierlmm.building.result import SAY, ModelBuilding, compared, row_of_model
from hierlmm.design.build import design_from_fixed, design_from_formula
from hierlmm.design.design import Design, design_of
from hierlmm.design.formula import (
    Bar,
    ParsedFormula,
    Term,
    categorical_arguments,
    parse_rhs,
    term_name,
    variables_of,
)
from hierlmm.design.questions import is_label
from hierlmm.design.residual import Residual
from hierlmm.errors import HierlmmError
from hierlmm.inference.maximum import Maximum, maximise
from hierlmm.inference.nesting import NotNested, changes
from hierlmm.options import checked

PLAIN = re.compile(r"^(`[^`]+`|\w+)$")


@checked
def drop_terms(model: BoundModel, *, alpha: float = 0.05) -> ModelBuilding:
    """Test interactions and nonlinear terms of the mean first, as wholes, and report every term that is left.

    Parameters
    ----------
    model : TwoLevelModel or MarginalModel
        Its random effects and residual structures stay.
    alpha : float
        Level of each test.

    Returns
    -------
    ModelBuilding
        ``.path`` (steps, with reasons), ``.table`` (every model that was fitted), ``.model`` (where it ended) and
        ``.plot()``. Main effects are tested and reported, and stay.

    Raises
    ------
    SpecificationError
        If ``alpha`` is no probability.

    Examples
    --------
    >>> import hierlmm as hl
    >>> model = hl.TwoLevelModel.from_formula("distance ~ sex * time + (1 | subject)", hl.load_dataset("dental"))
    >>> hl.drop_terms(model).path[["smaller", "decision"]].iloc[0].to_list()
    ['without interactions', 'kept']
    """
    check_alpha(alpha)
    design = design_of(model, "drop_terms")
    current = maximise(design, reml=False)
    models, steps, name = {"as stated": current}, [], "as stated"
    failed: list[str] = []
    for what, simpler in (("interactions", _without_interactions), ("nonlinear terms", _straight)):
        label = f"without {what}" if name == "as stated" else f"{name}, {what}"
        small = next((m for t in simpler(current.design) if (m := _inside(current, t, label, failed))), None)
        if small is None:
            continue
        models[label] = small
        row, dropped = _step(SAY(f"terms.{what.split()[0]}"), label, name, small, current, alpha)
        steps.append(row)
        if dropped:
            current, name = small, label
    for term in _marginal_terms(current.design):
        label = f"without {term_name(term)}"
        if label in models:
            continue
        small = _tried(current.design, [t for t in current.design.hierarchy.fixed_terms if t != term], label, failed)
        if small is None:
            continue
        models[label] = small
        row, _ = _step(SAY("terms.one", term=term_name(term)), label, name, small, current, alpha)
        steps.append(row | {"decision": "reported", "reason": SAY("terms.reported")})
    rows = {label: row_of_model(m) for label, m in models.items()}
    rows[name]["chosen"] = True
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis(index="name")
    notes = (SAY("terms.selected", k=len(steps)), *failed)
    columns = ["question", "smaller", "larger", "chisq", "df", "p", "method", "decision", "reason"]
    path = pd.DataFrame(steps, columns=columns)
    made = model.with_design(current.design)
    return ModelBuilding(path, table, made, "Terms of the mean, the complex ones first", "ML", alpha, notes)


def _step(
    question: str, small_name: str, large_name: str, small: Maximum, large: Maximum, alpha: float
) -> tuple[dict[str, Any], bool]:
    test, p, method = compared(small, large)
    dropped = p >= alpha
    reason = SAY("terms.no_worse" if dropped else "terms.worse", alpha=alpha)
    row = {"question": question, "smaller": small_name, "larger": large_name, "chisq": test.statistic, "df": test.df}
    return row | {
        "p": p,
        "method": method,
        "decision": "dropped" if dropped else "kept",
        "reason": reason,
    }, dropped


def _tried(design: Design, terms: list[Term], label: str, failed: list[str]) -> Maximum | None:
    try:
        return maximise(with_fixed(design, terms), reml=False)
    except HierlmmError as problem:
        failed.append(SAY("random.failed", name=label, reason=problem.reason))
        return None


def _inside(large: Maximum, terms: list[Term], label: str, failed: list[str]) -> Maximum | None:
    """A model with these terms at its maximum, if the larger one contains it."""
    small = _tried(large.design, terms, label, failed)
    if small is None or small.n_parameters >= large.n_parameters:
        return None
    try:
        changes(small.design, large.design)
    except NotNested:
        return None
    return small


def with_fixed(design: Design, terms: list[Term]) -> Design:
    """The design with other terms of the mean."""
    h = design.hierarchy
    own = [o for o in h.offsets if o not in design.outcome.offsets]
    bars = tuple(Bar(b.terms, h.subject, b.correlated, h.group) for b in h.blocks)
    parsed = ParsedFormula(h.response, tuple(terms), tuple(own), bars)
    options: dict[str, Any] = {
        "residual": Residual(design.residual, design.residual_variance),
        "outcome": design.outcome,
    }
    if h.blocks:
        structure = None if h.covariance in ("unstructured", "blocks", "diagonal") else h.covariance
        return design_from_formula(parsed, design.frame, covariance=structure, **options)
    return design_from_fixed(parsed, h.subject, design.frame, **options)


def _without_interactions(design: Design) -> list[list[Term]]:
    terms = list(design.hierarchy.fixed_terms)
    simple = [t for t in terms if len(t) < 2]
    return [simple] if len(simple) < len(terms) else []


def _straight(design: Design) -> list[list[Term]]:
    """The terms with functions of a number replaced by the number, or else left out; nothing if all are straight."""
    columns = list(design.frame.columns)

    def plain(factor: str) -> str:
        used = [v for v in variables_of(factor, columns) if not is_label(design, v)]
        labels = bool(categorical_arguments(factor))  # C(site): its numbers are names
        return factor if PLAIN.match(factor) or labels or len(used) != 1 else used[0]

    terms = list(design.hierarchy.fixed_terms)
    left = [t for t in terms if all(plain(f) == f for f in t)]
    if len(left) == len(terms):
        return []
    found: list[Term] = []
    for term in terms:
        straight = tuple(dict.fromkeys(plain(f) for f in term))
        own = parse_rhs("0 + " + ":".join(straight))[0] if straight else ()
        if set(own) not in [set(t) for t in found]:
            found.append(own)
    return [sorted(found, key=len), left]


def _marginal_terms(design: Design) -> list[Term]:
    """Terms but the intercept that no other term contains."""
    terms = [t for t in design.hierarchy.fixed_terms if t]
    return [t for t in terms if not any(set(t) < set(other) for other in terms)]
