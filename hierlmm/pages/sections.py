"""What stands on a report, in its order: sections, and in each what is asked of a fit or of all.

A new piece is one line of `SECTIONS`. What a fit has nothing for refuses itself, and the report says so at its end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from hierlmm.design.factors import relations
from hierlmm.equations.describe import model_facts
from hierlmm.equations.equations import equations
from hierlmm.equations.factors import factor_facts, factor_lines
from hierlmm.fits.base import Fit
from hierlmm.fits.side_by_side import SideBySide
from hierlmm.likelihood.wald import BY_DEFAULT
from hierlmm.missingness.patterns import missing_patterns
from hierlmm.pages.code import versions_of
from hierlmm.plots import plot_data
from hierlmm.results import Page, Paragraph, Table

INTERVALS = """\
Intervals in this table are by the normal distribution. Those of means and slopes below, in what the fit says, are by \
Student's t and somewhat wider."""
COMMANDS = """\
For whoever has the data: words with brackets or an equals sign, such as fit.plot_qq(), are commands of hierlmm, and \
docs is its documentation."""
MOST_CURVES = 4
MOST_LEVELS = 6


def warnings_of(fit: Fit) -> list[str]:
    """Warnings of a fit, each on one line."""
    return [" ".join(warning.split()) for warning in fit.warnings]


@dataclass(frozen=True)
class Asked:
    """What pieces are made of: all fits, and the one that the piece is about."""

    comparison: SideBySide
    fit: Any
    simulations: int
    kept: dict[str, Any]
    """What several pieces need, made once."""

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """Make something, or hand out what was made."""
        if name not in self.kept:
            self.kept[name] = make()
        return self.kept[name]


@dataclass(frozen=True)
class Piece:
    """A heading and what stands below it.

    Attributes
    ----------
    heading : str
    make : callable
        From `Asked` to something that shows itself: a result, a page, equations, a picture, or several.
    each : bool
        Whether every fit has its own; the reference alone otherwise.
    applies : callable
        From a fit: whether the piece belongs to this kind of fit at all.
    closed : bool
        Whether a reader opens it first.
    """

    heading: str
    make: Callable[[Asked], Any]
    each: bool = False
    applies: Callable[[Any], bool] = lambda fit: True
    closed: bool = False


def _facts(asked: Asked) -> Page:
    """The formula and counts; of several factors a line for each."""
    design = asked.fit.design
    several = design.has_several_factors
    facts = factor_facts(design) if several else model_facts(design)
    found = pd.Series({"formula": design.hierarchy.formula, **facts}, name="value").rename_axis("fact").to_frame()
    parts: list[Any] = [Table(found, caption="Model and data", index=True)]
    if several:
        columns = ["factor", "groups", "rows a group", "random effects"]
        lines = pd.DataFrame(factor_lines(design), columns=columns).set_index("factor")
        parts = [
            Table(lines, caption="Grouping factors", index=True),
            *parts,
            *(f"{said}." for said in relations(design)),
        ]
    return Page("", parts)


def _words(asked: Asked) -> Any:
    """Sentences; warnings stand above everything else already."""
    told, known = asked.fit.interpret(ci=asked.comparison.ci), set(warnings_of(asked.fit))
    return replace(told, sentences=tuple(s for s in told.sentences if s.text not in known))


def _side_by_side(asked: Asked) -> Page:
    """The table of a comparison, and why words about one fit may give other intervals."""
    page, fit = asked.comparison._page(), asked.fit
    wald = not fit.has_draws and not fit.has_working_correlation and fit._wald(*BY_DEFAULT)
    return Page(page.title, [*page.parts, *([Paragraph(INTERVALS)] if wald and "Student" in wald.description else [])])


def _random_effects(asked: Asked) -> Iterator[Any]:
    if not asked.fit.design.has_several_factors:
        yield asked.comparison.plot_random_effects(backend="matplotlib")
        return
    for name in (own.columns.group for own in asked.fit.design.random):
        yield asked.fit.plot_random_effects(name, backend="matplotlib")


def _effects(asked: Asked) -> Iterator[Any]:
    """A curve for each number of the mean, in the colours of its first factor; of factors alone their means."""
    design = asked.fit.design
    named = {name for column in design.fixed_columns for name, _ in column.parts}
    factors = [
        name for name, levels in design.levels.categories.items() if name in named and len(levels) <= MOST_LEVELS
    ]
    variables = [name for name in (*design.level1_variables(), *design.level2_variables()) if name in design.frame]
    numbers = [name for name in variables if name not in design.levels.categories]
    for name in numbers[:MOST_CURVES]:
        yield asked.fit.plot_effects(name, by=factors[:1] or None, backend="matplotlib")
    for name in factors[:MOST_CURVES] if not numbers else ():
        yield asked.fit.marginal_means(name).plot(backend="matplotlib")


def _implied(asked: Asked) -> Iterator[Any]:
    found = asked.once("implied", asked.fit.implied_marginal)
    yield found
    for name in ("plot_correlation", "plot_variance", "plot_heatmap"):
        if hasattr(found, name):
            yield getattr(found, name)(backend="matplotlib")


def _checkup(asked: Asked) -> Any:
    """The checks, made once."""
    return asked.once("check", lambda: asked.fit.check(simulations=asked.simulations))


def _checks(asked: Asked) -> Iterator[Any]:
    found = _checkup(asked)
    yield found
    if any(finding.severity != "fine" for finding in found.findings):
        yield Page("", [Paragraph(COMMANDS)])


def _verdicts(asked: Asked) -> Page:
    table = _checkup(asked).table
    return Page("", [Table(table, caption="All checks and their verdicts", index=True, number=".3g")])


def _convergence(asked: Asked) -> Page:
    found = asked.fit.convergence()
    rows = {
        "largest R-hat": found.max_rhat,
        "smallest bulk ESS": found.min_ess_bulk,
        "smallest tail ESS": found.min_ess_tail,
        "smallest E-BFMI": found.min_bfmi,
        "divergences": found.divergences,
        "draws at the largest tree depth": found.at_max_depth,
    }
    table = pd.Series(rows, name="worst of all").rename_axis("diagnostic").to_frame()
    told = found.messages or ("No check of the chains failed.",)
    return Page("", [Table(table, caption="Convergence of the chains", index=True), *map(Paragraph, told)])


def _versions(asked: Asked) -> Page:
    table = pd.Series(versions_of(asked.comparison), name="version").rename_axis("software").to_frame()
    return Page("", [Table(table, caption="Software that made the fits", index=True)])


def _drawn(name: str) -> Callable[[Asked], Any]:
    """A picture of the fit, by the name of its method."""
    return lambda asked: getattr(asked.fit, name)(backend="matplotlib")


def _by_draws(fit: Any) -> bool:
    return bool(fit.has_draws)


SECTIONS: dict[str, tuple[Piece, ...]] = {
    "Question and data": (
        Piece("Model and counts", _facts),
        Piece("What is missing", lambda a: missing_patterns(a.fit), applies=lambda f: not f.design.has_several_factors),
        Piece("Measurements", lambda a: plot_data(a.fit.design, backend="matplotlib")),
    ),
    "The model in equations": (Piece("", lambda a: equations(a.fit.design)),),
    "Estimates": (
        Piece("Side by side", _side_by_side),
        Piece("Estimates with intervals", lambda a: a.comparison.plot_forest(backend="matplotlib")),
        Piece("With the estimates in the equations", lambda a: equations(a.fit.design, a.fit), each=True, closed=True),
        Piece("As the fit prints itself", lambda a: a.fit, each=True, closed=True),
    ),
    "What the fit says": (Piece("", _words),),
    "Pictures": (
        Piece("Lines of subjects and of the population", _drawn("plot_trajectories")),
        Piece("Random effects", _random_effects, applies=lambda f: f.has_random_effects),
        Piece("Effects", _effects),
        Piece("Implied covariance", _implied),
    ),
    "Can the fit be believed?": (
        Piece("Checks", _checks),
        Piece("All verdicts", _verdicts, closed=True),
        Piece("What the checks looked at", lambda a: _checkup(a).plot(backend="matplotlib")),
        Piece("Residuals", _drawn("plot_residuals")),
        Piece("Quantiles", _drawn("plot_qq")),
        Piece("Convergence", _convergence, each=True, applies=_by_draws),
        Piece("Chains", _drawn("plot_diagnostics"), each=True, applies=_by_draws),
        Piece("Posterior predictive check", _drawn("plot_ppc"), each=True, applies=_by_draws),
    ),
    "Priors": (Piece("", lambda a: a.fit.priors, each=True, applies=_by_draws),),
    "How this was made": (Piece("Software", _versions),),
}
