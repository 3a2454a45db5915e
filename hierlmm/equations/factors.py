"""What a model with several grouping factors prints: equations, formula, factors, what is nested in what, rows."""

from __future__ import annotations

import html

from hierlmm.design.design import Design
from hierlmm.design.factors import finest_first, relations
from hierlmm.design.formula import unquoted
from hierlmm.design.rows import RandomTerm
from hierlmm.equations.describe import next_step
from hierlmm.equations.equations import equations
from hierlmm.text import align


def describe_factors(design: Design) -> str:
    """Describe a model as text: its equations, a line for each factor, and how they lie to each other."""
    return "\n\n".join([_title(design), *([equations(design).text] if _written(design) else []), _rows(design)])


def describe_factors_html(design: Design) -> str:
    """Describe a model as self-contained HTML without scripts, for notebooks."""
    title = f"<div><strong>{html.escape(_title(design))}</strong></div>"
    written = f"{title}{equations(design).html if _written(design) else ''}"
    return f'<div class="hierlmm-model">{written}<pre>{html.escape(_rows(design))}</pre></div>'


def _written(design: Design) -> bool:
    """Whether its equations are there."""
    return design.is_gaussian or not design.has_several_factors


def _rows(design: Design) -> str:
    cells = [["factor", "groups", "rows a group", "random effects"], *factor_lines(design)]
    table = [f"  {line}" for line in align(cells, (0, 3))]
    told = [f"  {said}." for said in relations(design)]
    facts = [f"  {line}" for line in align([[name, value] for name, value in factor_facts(design).items()], (0, 1))]
    parts = [f"Formula: {design.hierarchy.formula}", "\n".join(["Grouping factors", *table, *told])]
    if not design.is_gaussian:
        parts.insert(1, f"Family: {design.family}" + (f"; {design.rows.note}" if design.rows.note else ""))
    following = next_step(design) if design.is_gaussian else "Fit with .fit() (NUTS) or .fit_ml()."
    return "\n\n".join([*parts, "\n".join(["Data", *facts]), following])


def _title(design: Design) -> str:
    return f"Multilevel model: {unquoted(design.hierarchy.response)} by {', '.join(finest_first(design))}"


def factor_lines(design: Design) -> list[list[str]]:
    """Factor, groups, rows a group and random effects, the finest factor first."""
    own = {term.columns.group: term for term in design.random}
    found = []
    for name, groups in finest_first(design).items():
        low, high = int(own[name].group.sizes.min()), int(own[name].group.sizes.max())
        sizes = str(low) if low == high else f"{low}-{high}"
        found.append([name, str(groups), sizes, _effects(own[name])])
    return found


def _effects(term: RandomTerm) -> str:
    """Random effects of a factor; those in brackets correlate."""
    names = [[term.columns.names[m] for m in block] for block in term.columns.blocks]
    return ", ".join(own[0] if len(own) == 1 else f"({', '.join(own)})" for own in names)


def factor_facts(design: Design) -> dict[str, str]:
    """What is known of the rows and parameters before fitting, by name."""
    parameters = design.n_random_parameters
    dropped = {"rows dropped": f"{design.n_dropped:,} (missing values)"} if design.n_dropped else {}
    own = ", and σ"
    if not design.is_gaussian:
        psi = len(design.family.first_psi(design.y, design.trials))
        own = f", {psi} of dispersion" if psi else ""
    return {"rows": f"{design.n_obs:,}", **dropped, "parameters": f"{len(design.coef)} fixed, {parameters} in D{own}"}
