"""The residual structure in words and symbols: entries of R_i and G_i, or estimates in their place.

    Σ_i = σ² G_i R_i G_i,     R_i[j, k] = Corr(e_ij, e_ik),     G_i[j, j] = SD(e_ij) / σ

Built-in structures are written out. One of a user's own shows its ``formula()``, or the name of its class.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.covariance.bind import BoundCorrelation, BoundVariance, Level
from hierlmm.covariance.composed import Composed
from hierlmm.covariance.residual import ResidualCorrelation
from hierlmm.covariance.variance import VarianceFunction
from hierlmm.design.bound import bind_residual, structured_rows
from hierlmm.equations import notation as m
from hierlmm.equations.notation import Equation, Markup, code, raised
from hierlmm.errors import DataError

if TYPE_CHECKING:
    from hierlmm.design.design import Design

BETWEEN = Markup("between", r"\text{ between }", "between")
LETTERS = {"rho": "ρ", "phi": "φ"}
"""Parameters that are correlations, and their letters."""
SHOWN_OCCASIONS = 6
SHOWN_GROUPS = 8
LONG_LABELS = 40
OTHER_ROW = Markup(",  j ≠ k", r",\quad j \neq k", ", &nbsp;j ≠ k")


class Binding(NamedTuple):
    """A design's residual structures with the parameters that its data give them, or why they have none."""

    correlation: BoundCorrelation | None = None
    variance: BoundVariance | None = None
    problem: str = ""


def bind_structure(design: Design) -> Binding:
    """Name the parameters of a design's residual structure; its data may turn out to be unfit for it."""
    try:
        rows = structured_rows(design)
        y, X = (design.y - design.offset)[rows.order], design.X[rows.order]
        residual = y - X @ np.linalg.lstsq(X, y, rcond=None)[0] if design.coef else y
        return Binding(*bind_residual(design, rows, residual))
    except DataError as error:
        return Binding(problem=str(error))


def residual_numbers(estimates: Any) -> tuple[Mapping[str, float], Mapping[str, float]]:
    """Parameters of the correlation and of the variance function by name, from whatever fit; empty without any.

    A posterior answers with the means of its variables ``residual_correlation`` and ``residual_variance``, as its
    tables do; any other fit with its ``residual_estimate``.
    """
    tree = getattr(estimates, "datatree", None)
    posterior = {} if tree is None else tree["posterior"]
    means: dict[str, Mapping[str, float]] = {"residual_correlation": {}, "residual_variance": {}}
    for name in [name for name in means if name in posterior]:
        mean = posterior[name].mean(("chain", "draw"))
        labels = map(str, mean[f"{name}_parameter"].to_numpy())
        means[name] = dict(zip(labels, map(float, mean.to_numpy()), strict=True))
    if any(means.values()):
        return means["residual_correlation"], means["residual_variance"]
    found = getattr(estimates, "residual_estimate", None)
    return ({}, {}) if found is None else (found.correlation_parameters, found.variance_parameters)


def spec_text(spec: Any) -> str:
    """Write a structure as a user would: ``AR1()``, ``Exponential('days', nugget=True)``."""
    if isinstance(spec, Composed):
        return spec.said(spec_text)
    name = type(spec).__name__
    if not dataclasses.is_dataclass(spec):
        return name
    parts = []
    for position, field in enumerate(f for f in dataclasses.fields(spec) if f.init):
        value = getattr(spec, field.name)
        if field.name == "start" or (field.default is not dataclasses.MISSING and value == field.default):
            continue
        parts.append(repr(value) if position == 0 else f"{field.name}={value!r}")
    return f"{name}({', '.join(parts)})"


def formula_of(spec: ResidualCorrelation | VarianceFunction) -> str:
    """The structure's ``formula()``, or nothing where it has none of its own."""
    return "" if type(spec).formula in (ResidualCorrelation.formula, VarianceFunction.formula) else spec.formula()


def variance_words(spec: VarianceFunction) -> str:
    """What the SD of a row depends on, for a sentence."""
    if isinstance(spec, Composed):
        parts = []
        if spec.own is not None:
            parts.append(f"with {spec.own.variable or 'the fitted value'}")
        if spec.group is not None:
            parts.append(f"between groups of {spec.group}, each with residual parameters of its own")
        if spec.weights is not None:
            parts.append(f"with the known weights {spec.weights}")
        return f"their SD differs {' and '.join(parts)}"
    return f"their SD differs with {spec.variable or 'the fitted value'}"


def same_variance_words(design: Design) -> str:
    """What must be known of a structure with one variance, where others mean variances, too."""
    return "" if design.residual is None or design.residual_variance is not None else design.residual._variance_words()


class CorrelationTable(NamedTuple):
    """Correlations of a structure with one for every lag or pair of occasions: group (None: all), labels, matrix."""

    group: Any
    labels: list[str]
    matrix: FloatArray


def correlation_matrices(design: Design, parameters: Mapping[str, float]) -> list[CorrelationTable]:
    """The matrix of a structure with a correlation for every lag or pair of occasions, by group; else none."""
    spec = design.residual
    if spec is None or not parameters or not all(name.startswith("rho(") for name in parameters):
        return []
    labels: tuple[str, ...] = ()
    by_group: dict[Any, list[float]] = {None: list(parameters.values())}
    if spec.by_occasion or design.residual_group is not None:
        bound = bind_structure(design).correlation
        if bound is None:
            return []
        labels = bound.rows.labels
        by_group = {level.label: _of_level(level, bound, parameters) for level in bound.levels}
    tables = {group: spec._table(values, labels) for group, values in by_group.items()}
    return [CorrelationTable(group, *table) for group, table in tables.items() if table is not None]


def _of_level(level: Level, bound: BoundCorrelation, parameters: Mapping[str, float]) -> list[float]:
    """Values by the names that the level gives: one label may end in another."""
    starts = np.array([p.start for p in bound.parameters[level.own]])
    return [parameters[level.name(name)] for name in level.spec.report(level.observed, starts)]


class _Writer:
    """What structures write their symbols with: rows of a design, and parameters or their estimates."""

    def __init__(self, design: Design, values: Mapping[str, float]) -> None:
        self.design, self.values = design, values

    code, raised, letter = staticmethod(code), staticmethod(raised), staticmethod(m.symbol)

    def powered(self, body: Markup, power: int) -> Markup:
        """Return a whole power."""
        return body + m.symbol("", power=power) if power > 1 else body


class _CorrelationWriter(_Writer):
    """See `hierlmm.covariance.residual.base.Writer`."""

    def parameter(self, name: str) -> Markup:
        """Return a parameter by its letter or its name, or its estimate."""
        letter = LETTERS.get(name)
        if name not in self.values:
            return m.symbol(letter) if letter else code(name)
        value = self.values[name]
        return m.signed(value, _share(value) if letter else m.number(value))

    def base(self, name: str) -> Markup:
        """Return the same, in parentheses if negative."""
        base = self.parameter(name)
        return m.parenthesise(base) if self.values.get(name, 0.0) < 0 else base

    def position(self, row: str) -> Markup:
        """Return the position of a row."""
        time = self.design.residual.time if self.design.residual else None
        return Markup(row, row, row) if time is None else m.name_symbol(time, f"i{row}")

    def lag(self) -> Markup:
        """Return the distance of rows j and k."""
        return "|" + (self.position("j") + m.LESS + self.position("k")) + "|"

    def exponential(self, exponent: Markup) -> Markup:
        """Return ``exp(-exponent)``."""
        return _exponential(m.MINUS + exponent)

    def measured(self, body: Markup) -> Markup:
        """Return ``(1 - nugget)`` times the body."""
        if "nugget" in self.values:
            return m.times(_share(1.0 - self.values["nugget"]), body)
        return m.times(m.parenthesise(m.integer(1) + m.LESS + code("nugget")), body)


class _VarianceWriter(_Writer):
    """See `hierlmm.covariance.variance.Writer`."""

    def parameter(self, name: str, times_: int = 1) -> Markup:
        """Return a parameter or its estimate, times a whole number."""
        if name in self.values:
            value = times_ * self.values[name]
            return m.signed(value, m.number(value))
        return m.times(m.integer(times_) if times_ > 1 else None, code(name))

    def exponential(self, *factors: Markup) -> Markup:
        """Return ``exp`` of a product."""
        return _exponential(m.times(*factors))

    def varies_within(self) -> bool:
        """Whether rows of one subject differ in the variance function's covariate."""
        spec = self.design.residual_variance
        if spec is None or spec.variable is None:
            return spec is not None
        return any(map(self._changes, spec.columns))

    def _changes(self, column: str) -> bool:
        return bool((self.design.frame[column].groupby(self.design.subject_index).nunique() > 1).any())

    def covariate(self, row: str) -> Markup:
        """Return the covariate, or the fitted value, of a row."""
        assert self.design.residual_variance is not None
        name = self.design.residual_variance.variable
        if name is not None:
            return self.column(name, row)
        fitted = m.name_symbol(self.design.hierarchy.response, f"i{row}")
        if self.design.term:
            fitted += Markup(" | ", r" \mid ", " | ") + m.symbol("b", "i")
        return m.function("E", fitted)

    def column(self, name: str, row: str) -> Markup:
        """Return a column of the data in a row, or of a subject."""
        return m.name_symbol(name, f"i{row}" if self._changes(name) else "i")

    def product(self, *factors: Markup) -> Markup:
        """Return a product."""
        return m.times(*factors)


class ResidualSymbols:
    """Entries of R_i and G_i of one model.

    Parameters
    ----------
    design : Design
    estimates : Fit, optional
        Its residual parameters take the place of the symbols.
    """

    def __init__(self, design: Design, estimates: Any = None) -> None:
        self.design = design
        self.correlation, self.variance = design.residual, design.residual_variance
        self.rho, self.delta = residual_numbers(estimates)
        self.rows, self.sizes = _CorrelationWriter(design, self.rho), _VarianceWriter(design, self.delta)

    def deviation(self, subscript: str) -> Markup:
        """Return what the structure describes: a residual, or in a marginal model the response itself."""
        if self.design.term:
            return m.symbol("e", subscript)
        return m.name_symbol(self.design.hierarchy.response, subscript)

    def covariance(self) -> Markup:
        """Return ``σ² Gᵢ Rᵢ Gᵢ``, without what the model does not have."""
        G, R = m.symbol("G", "i"), m.symbol("R", "i")
        if not self.design.has_residual_structure:
            factors = [m.symbol("I")]
        elif self.variance is None:
            factors = [R]
        else:
            factors = [m.symbol("G", "i", power=2)] if self.correlation is None else [G, R, G]
        return m.join([m.symbol("σ", power=2), *factors], m.BLANK)

    def equations(self) -> list[Equation]:
        """Return the correlation of two rows and the SD of a row."""
        found = [] if self.correlation is None else self._correlation_equations(self.correlation)
        return found if self.variance is None else found + self._variance_equations(self.variance)

    def r(self) -> Markup | None:
        """Return the correlation of rows j and k; None where it has no short form."""
        return None if self.correlation is None else self.correlation.symbols(self.rows)

    def g(self, row: str = "j", power: int = 1) -> Markup | None:
        """Return the SD of a row over σ, perhaps squared; None where it has no short form."""
        return None if self.variance is None else self.variance.symbols(self.sizes, row, power)

    def _correlation_equations(self, spec: ResidualCorrelation) -> list[Equation]:
        pair = m.function("Corr", self.deviation("ij"), self.deviation("ik"))
        entry, formula = self.r(), formula_of(spec)
        groups: list[tuple[Markup, ...]] = [(entry_of("R", "jk"),)]
        if entry is not None:
            groups.append((" = " + entry, OTHER_ROW) if spec._off_diagonal or spec.has_nugget else (" = " + entry,))
        elif formula:
            groups.append((m.words(", where R[s, t] = ") + code(formula),))
        else:
            places = self.rows.position("j") + ", " + self.rows.position("k")
            groups.append((" = " + code(type(spec).__name__) + m.parenthesise(places),))
        tables = correlation_matrices(self.design, self.rho)
        if not tables and self.rho and (entry is None or self.design.residual_group is not None):
            groups += _named(self.rho)
        found = [Equation(pair, m.EQUALS, tuple(groups))]
        return found + [self._table_equation(spec, table) for table in tables]

    def _table_equation(self, spec: ResidualCorrelation, table: CorrelationTable) -> Equation:
        """The correlations as a matrix, or between which values they lie."""
        labels, R = table.labels, table.matrix
        who = Markup("", "", "") if table.group is None else m.words(" for ") + code(str(table.group))
        if len(labels) > SHOWN_OCCASIONS:
            values = R[np.tril_indices(len(R), -1)]
            span = (m.two_decimals(values.min()), m.words(" and ") + m.two_decimals(values.max()))
            return Equation(m.symbol("ρ") + who, BETWEEN, (span,))
        cells = [[m.two_decimals(v) if r != c else m.integer(1) for c, v in enumerate(row)] for r, row in enumerate(R)]
        left = m.symbol("R")
        if spec.by_occasion:
            listed = m.join(map(code, labels), ", ")
            in_order = m.words("the values of ") + code(spec.time or "") + m.words(" in order")
            short = code(spec.time or "") + m.words(" ") + listed
            left += m.words(" at ") + (short if len(listed.text) <= LONG_LABELS else in_order)
        return Equation(left + who, m.EQUALS, ((m.matrix(cells),),))

    def _variance_equations(self, spec: VarianceFunction) -> list[Equation]:
        left = m.function("SD", self.deviation("ij"))
        G, entry, text = m.times(m.symbol("σ"), entry_of("G", "jj")), self.g(), formula_of(spec)
        if entry is not None:
            groups: list[tuple[Markup, ...]] = [(G,), (" = " + m.times(m.symbol("σ"), entry),)]
        else:
            groups = [(code(text) if text else G,), *(_named(self.delta) if self.delta else [])]
        if entry is not None and self.delta and self.design.residual_group is not None:
            groups += _named(self.delta)
        found = [Equation(left, m.EQUALS, tuple(groups))]
        bound = bind_structure(self.design).variance if entry is not None else None
        return found + self._ratios(bound.groups) if bound is not None and bound.groups else found

    def _ratios(self, groups: tuple[str, ...]) -> list[Equation]:
        reference, *others = groups
        first = m.integer(1) + m.words(" for ") + code(reference)
        left = code("ratio") + m.parenthesise(self.sizes.covariate("j"))
        if not self.delta:
            return [Equation(left, m.EQUALS, ((first,),))]
        values = [
            ", " + m.number(v) + m.words(" for ") + code(name)
            for name, v in list(zip(others, self.delta.values(), strict=True))[:SHOWN_GROUPS]
        ]
        more = [m.words(f", … ({len(groups)} in all)")] if len(others) > SHOWN_GROUPS else []
        return [Equation(left, m.EQUALS, tuple((piece,) for piece in (first, *values, *more)))]


def _named(values: Mapping[str, float]) -> list[tuple[Markup, ...]]:
    """``, with rho = 0.61, power = 1.2``, in pieces of two."""
    named = [code(name) + " = " + m.signed(v, m.number(v)) for name, v in values.items()]
    pairs = [m.join(named[k : k + 2], ", ") for k in range(0, len(named), 2)]
    return [((m.words(", with ") if k == 0 else m.words(", ")) + pair,) for k, pair in enumerate(pairs)]


def _exponential(exponent: Markup) -> Markup:
    return Markup("exp(", r"\exp(", "exp(") + exponent + ")"


def entry_of(letter: str, rows: str) -> Markup:
    """Return an entry of a subject's matrix: ``Rᵢ[j, k]``."""
    listed = ", ".join(rows)
    left = m.symbol(letter, "i")
    return Markup(f"{left.text}[{listed}]", rf"({left.latex})_{{{rows}}}", f"{left.html}[{listed}]")


def _share(value: float) -> Markup:
    """Write a number below one so that it is not rounded to one."""
    size = abs(value)
    if not 0.995 <= size < 1.0:
        return m.number(value)
    digits = min(1 - math.floor(math.log10(1.0 - size)), 12)
    text = f"{size:z.{digits}f}"
    return Markup(text, text, text)
