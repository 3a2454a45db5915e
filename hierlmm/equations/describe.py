"""What a model prints: its four parts, its formula, and the data it will use; as text and as HTML."""

from __future__ import annotations

import html
import textwrap
from typing import Any

import numpy as np

from hierlmm.covariance.bind import BoundCorrelation, BoundVariance
from hierlmm.design.design import Design
from hierlmm.design.formula import unquoted
from hierlmm.equations.equations import equations
from hierlmm.equations.notation import WIDTH
from hierlmm.equations.residual_symbols import Binding, bind_structure, same_variance_words, spec_text
from hierlmm.frames import shorten

LEVELS = ("level-1 covariates", "level-2 covariates")


def next_step(design: Design) -> str:
    """How to go on."""
    ways = ".fit() (NUTS), .fit_reml() or .fit_ml()" if design.is_gaussian else ".fit() (NUTS), .fit_ml() or .fit_gee()"
    ways = ways if design.is_gaussian or design.term else ".fit_gee()"
    return f"Fit with {ways}; .equations() gives LaTeX."


def describe_model(design: Design) -> str:
    """Describe a model as text.

    Parameters
    ----------
    design : Design
        The model and its data.

    Returns
    -------
    str
        Level 1, level 2, the combined and the marginal model, the formula, the counts, and how to go on.
    """
    facts = model_facts(design)
    width = max(len(name) for name in facts) + 2
    table = "\n".join(
        textwrap.fill(value, WIDTH, initial_indent="  " + name.ljust(width), subsequent_indent=" " * (width + 2))
        for name, value in facts.items()
    )
    formula = textwrap.fill(design.hierarchy.formula, WIDTH, initial_indent="Formula: ", subsequent_indent=" " * 9)
    return "\n\n".join([_title(design), equations(design).text, formula, f"Data\n{table}", next_step(design)])


def describe_model_html(design: Design) -> str:
    """Describe a model as self-contained HTML without scripts, for notebooks.

    Parameters
    ----------
    design : Design
        The model and its data.

    Returns
    -------
    str
    """
    cell = 'style="text-align:left;font-weight:normal;padding:1px 12px 1px 0"'
    rows = "".join(
        f'<tr style="background:none"><th scope="row" {cell}>{html.escape(name)}</th>'
        f"<td {cell}>{html.escape(value)}</td></tr>"
        for name, value in model_facts(design).items()
    )
    return (
        f'<div class="hierlmm-model"><div><strong>{html.escape(_title(design))}</strong></div>'
        f"{equations(design).html}"
        f'<div style="margin-top:0.5em"><strong>Formula</strong> <code>{html.escape(design.hierarchy.formula)}</code>'
        f'</div><table style="margin:0.5em 0;border-collapse:collapse">{rows}</table>'
        f'<div style="opacity:0.7">{html.escape(next_step(design))}</div></div>'
    )


def model_facts(design: Design) -> dict[str, str]:
    """Return what is known of the data, of D and of the residuals before fitting, by name."""
    rows = design.rows_per_subject
    low, high = int(rows.min()), int(rows.max())
    levels = LEVELS if design.term else ("within-subject covariates", "between-subject covariates")
    bound = bind_structure(design)
    return {
        **_response_facts(design),
        "rows": f"{design.n_obs:,}",
        "subjects": f"{design.n_subjects:,} (column {design.hierarchy.subject})",
        "rows per subject": f"{low} each" if low == high else f"{low}–{high} (median {np.median(rows):g})",
        "rows dropped": f"{design.n_dropped:,} (missing values)" if design.n_dropped else "0",
        levels[0]: ", ".join(design.level1_variables()) or "none",
        levels[1]: ", ".join(design.level2_variables()) or "none",
        "balanced": _balance(design, levels[0]),
        **({"structure of D": _structure(design)} if design.term else {}),
        **_residual_facts(design, bound),
        "covariance parameters": _parameters(design, bound),
    }


def _response_facts(design: Design) -> dict[str, str]:
    """Family, trials and exposure of a generalised model."""
    if design.is_gaussian:
        return {}
    outcome, note = design.outcome, f"; {design.rows.note}" if design.rows.note else ""
    facts = {"family": f"{design.family}{note}"}
    columns = {"trials": outcome.trials, "exposure": outcome.exposure}
    return facts | {name: f"column {column}" for name, column in columns.items() if column is not None}


def is_balanced(design: Design) -> bool:
    """Whether every subject has the same rows of level-1 covariates, in whatever order."""
    rows = design.rows_per_subject
    if rows.min() != rows.max():
        return False
    order = np.lexsort((*design.X1.T, design.subject_index))
    tables = design.X1[order].reshape(design.n_subjects, rows[0], -1)
    return bool(np.all(tables == tables[0]))


def _title(design: Design) -> str:
    hierarchy = design.hierarchy
    kind = "Two-level model" if design.term else "Marginal model"
    kind = kind if design.is_gaussian else f"Generalised {kind[0].lower()}{kind[1:]}"
    return f"{kind}: {unquoted(hierarchy.response)} by {hierarchy.subject}"


def _balance(design: Design, covariates: str) -> str:
    if is_balanced(design):
        return f"yes: every subject has the same values of the {covariates}"
    rows = design.rows_per_subject
    if rows.min() != rows.max():
        return "no: the number of rows differs between subjects"
    return f"no: the values of the {covariates} differ between subjects"


def _structure(design: Design) -> str:
    q, term = design.n_own, design.own_term
    by = f" for each {design.group} ({shorten(map(str, design.group_levels))})" if design.group else ""
    if q == 1:
        return f"one variance ({term[0]}){by}"
    sentence = {
        "unstructured": "unstructured: variances and correlations",
        "diagonal": "diagonal: variances without correlations",
        "identity": "identity: one variance in common, no correlations",
        "compound_symmetry": "compound symmetry: one variance and one correlation in common",
    }.get(design.hierarchy.covariance)
    if sentence is None:
        groups = [", ".join(term[r] for r in block) for block in design.blocks if max(block) < q]
        sentence = "blocks that do not correlate with each other: " + " and ".join(f"({g})" for g in groups)
    return f"{q} × {q}, {sentence}{f'; one D{by}' if by else ''}"


def _residual_facts(design: Design, bound: Binding) -> dict[str, str]:
    """Structures of the residuals with the names of their parameters, as tables print them."""
    if not design.is_gaussian:
        return {}
    independent, equal = ("", "") if design.term else ("none: independent rows", "equal in all rows")
    facts = {
        "residual correlation": _named(design.residual, bound.correlation) or independent,
        "residual variance": _named(design.residual_variance, bound.variance) or same_variance_words(design) or equal,
        "cannot be fitted": " ".join(bound.problem.split()),
    }
    return {name: fact for name, fact in facts.items() if fact}


def _named(spec: Any, structure: BoundCorrelation | BoundVariance | None) -> str:
    if spec is None or structure is None:
        return "" if spec is None else spec_text(spec)
    zeros = np.array([p.unconstrained(p.start) for p in structure.parameters])
    return f"{spec_text(spec)}: {shorten(structure.report(zeros), 6) or 'no parameter'}"


def _parameters(design: Design, bound: Binding) -> str:
    parts, total = [], design.n_random_parameters
    if design.term:
        parts.append(f"{total} in D")
    for structure, what in ((bound.correlation, "residual correlation"), (bound.variance, "residual variance")):
        if structure is not None:
            parts.append(f"{len(structure.parameters)} in the {what}")
            total += len(structure.parameters)
    if bound.problem:
        return "not known: the residual structure does not fit these data"
    if not design.is_gaussian:
        psi = design.family.first_psi(design.y, design.trials)
        own = list(design.family.natural(psi)) if design.term else ["a scale"]
        return f"{total + len(own)} ({', and '.join(', '.join(p) for p in (parts, own) if p)})"
    return f"{total + 1} ({', '.join(parts)}, and σ)" if parts else "1 (σ)"
