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

from hierlmm.covariance.bind import BoundCorrelation, BoundVariance, bind_correlation, bind_variance, make_rows
from hierlmm.covariance.residual import (
    AR1,
    CAR1,
    CompoundSymmetry,
    Exponential,
    Gaussian,
    ResidualCorrelation,
    Toeplitz,
    Unstructured,
)
from hierlmm.covariance.variance import VarExp, VarianceFunction, VarIdent, VarPower
from hierlmm.equations.notation import (
    EQUALS,
    Equation,
    Markup,
    code,
    function,
    integer,
    join,
    matrix,
    name_symbol,
    number,
    parenthesise,
    raised,
    signed,
    symbol,
    times,
    two_decimals,
    words,
)
from hierlmm.errors import DataError

if TYPE_CHECKING:
    from hierlmm.design.design import Design

__all__ = [
    "OTHER_ROW",
    "Binding",
    "ResidualSymbols",
    "bind_structure",
    "correlation_matrix",
    "correlation_words",
    "entry_of",
    "formula_of",
    "residual_numbers",
    "same_variance_words",
    "spec_text",
    "variance_words",
]

BETWEEN = Markup("between", r"\text{ between }", "between")
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
    spec = design.residual
    try:
        column = None if spec is None or spec.time is None else design.frame[spec.time]
        rows = make_rows(spec, column, design.subject_index, design.subjects)
        variance = correlation = None
        if design.residual_variance is not None:
            variance = bind_variance(design.residual_variance, design.variance_covariate, rows)
        if spec is not None:
            y = (design.y - design.offset)[rows.order]
            X = design.X[rows.order]
            residual = y - X @ np.linalg.lstsq(X, y, rcond=None)[0] if design.coef else y
            others = len(design.coef) + 1 + design.n_random_parameters + (len(variance.parameters) if variance else 0)
            correlation = bind_correlation(spec, rows, residual, mixed=bool(design.term), n_parameters=others)
    except DataError as error:
        return Binding(problem=str(error))
    return Binding(correlation, variance)


def residual_numbers(estimates: Any) -> tuple[Mapping[str, float], Mapping[str, float]]:
    """Parameters of the correlation and of the variance function by name, from whatever fit; empty without any.

    A posterior answers with the means of its variables ``residual_correlation`` and ``residual_variance``, as its
    tables do; any other fit with its ``residual_estimate``.
    """
    tree = getattr(estimates, "datatree", None)
    posterior = {} if tree is None else tree["posterior"]
    result: list[Mapping[str, float]] = []
    for name in ("residual_correlation", "residual_variance"):
        if name not in posterior:
            result.append({})
            continue
        mean = posterior[name].mean(("chain", "draw"))
        labels = map(str, mean[f"{name}_parameter"].to_numpy())
        result.append(dict(zip(labels, map(float, mean.to_numpy()), strict=True)))
    if any(result):
        return result[0], result[1]
    found = getattr(estimates, "residual_estimate", None)
    return ({}, {}) if found is None else (found.correlation_parameters, found.variance_parameters)


def spec_text(spec: Any) -> str:
    """Write a structure as a user would: ``AR1()``, ``Exponential('days', nugget=True)``."""
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
    """The structure's ``formula()``, or nothing where it has none of its own.

    A class that inherits ``formula`` but replaces what it describes has none.
    """
    definition = "matrix" if isinstance(spec, ResidualCorrelation) else "log_ratio"
    places = [next(i for i, c in enumerate(type(spec).__mro__) if n in vars(c)) for n in ("formula", definition)]
    base = type(spec).formula in (ResidualCorrelation.formula, VarianceFunction.formula)
    return "" if base or places[0] > places[1] else spec.formula()


def correlation_words(spec: ResidualCorrelation) -> str:
    """What the correlation of two rows depends on, for a sentence."""
    if isinstance(spec, CompoundSymmetry):
        return "equally correlated"
    if isinstance(spec, Unstructured):
        return f"correlated, with a correlation for each pair of values of {spec.time}"
    by = "the order of the rows" if spec.time is None else spec.time
    return f"correlated ({type(spec).__name__}, by {by})"


def variance_words(spec: VarianceFunction) -> str:
    """What the SD of a row depends on, for a sentence."""
    return f"their SD differs with {spec.variable or 'the fitted value'}"


def same_variance_words(design: Design) -> str:
    """What must be known of `Unstructured` with one variance: elsewhere unstructured means variances, too."""
    if type(design.residual) is not Unstructured or design.residual_variance is not None:
        return ""
    return f"one for all occasions; the UN of SAS has one for each, UnstructuredHeterogeneous({design.residual.time!r})"


def correlation_matrix(design: Design, parameters: Mapping[str, float]) -> tuple[list[str], np.ndarray] | None:
    """Labels and matrix of a structure with a correlation for every lag or pair of occasions; None for all others."""
    spec, values = design.residual, list(parameters.values())
    correlations = bool(values) and all(name.startswith("rho(") for name in parameters)
    if not correlations or type(spec) not in (Toeplitz, Unstructured):
        return None
    if isinstance(spec, Toeplitz):
        rho = np.array([1.0, *values])
        at = np.arange(len(rho))
        return [str(i + 1) for i in at], rho[np.abs(at[:, None] - at)]
    bound = bind_structure(design).correlation
    if bound is None:
        return None
    labels = bound.rows.labels
    R = np.eye(len(labels))
    R[np.tril_indices(len(labels), -1)] = values
    return list(labels), R + np.tril(R, -1).T


class ResidualSymbols:
    """Entries of R_i and G_i of one model.

    Parameters
    ----------
    design : Design
    estimates : Fit, optional
        Its residual parameters take the place of the symbols.

    Attributes
    ----------
    who : Markup
        Letter of a row's deviation: e in a hierarchy, the response in a marginal model.
    """

    def __init__(self, design: Design, estimates: Any = None) -> None:
        self.design, self.estimates = design, estimates
        self.correlation, self.variance = design.residual, design.residual_variance
        self.rho, self.delta = residual_numbers(estimates)
        self.who = "e" if design.term else design.hierarchy.response

    def deviation(self, subscript: str) -> Markup:
        """Return what the structure describes: a residual, or in a marginal model the response itself."""
        return symbol("e", subscript) if self.design.term else name_symbol(self.who, subscript)

    def covariance(self) -> Markup:
        """Return ``σ² Gᵢ Rᵢ Gᵢ``, without what the model does not have."""
        G, R = symbol("G", "i"), symbol("R", "i")
        if self.variance is None:
            factors = [R]
        elif self.correlation is None:
            factors = [symbol("G", "i", power=2)]
        else:
            factors = [G, R, G]
        if not self.design.has_residual_structure:
            factors = [symbol("I")]
        return join([symbol("σ", power=2), *factors], Markup(" ", r"\,", " "))

    def equations(self) -> list[Equation]:
        """Return the correlation of two rows and the SD of a row."""
        found = []
        if self.correlation is not None:
            found += self._correlation_equations(self.correlation)
        if self.variance is not None:
            found += self._variance_equations(self.variance)
        return found

    # --- correlation -------------------------------------------------------------------------------------------------

    def _correlation_equations(self, spec: ResidualCorrelation) -> list[Equation]:
        pair = function("Corr", self.deviation("ij"), self.deviation("ik"))
        entry = self.r()
        groups: list[tuple[Markup, ...]] = [(entry_of("R", "jk"),)]
        if entry is not None:
            groups.append((" = " + entry, OTHER_ROW) if self._needs_other_row(spec) else (" = " + entry,))
        elif formula_of(spec):
            groups.append((words(", where R[s, t] = ") + code(formula_of(spec)),))
        else:
            rows = self._position(spec, "j") + ", " + self._position(spec, "k")
            groups.append((" = " + code(type(spec).__name__) + parenthesise(rows),))
        found = [Equation(pair, EQUALS, tuple(groups))]
        table = correlation_matrix(self.design, self.rho)
        if table is not None and len(table[0]) <= SHOWN_OCCASIONS:
            labels, R = table
            cells = [[two_decimals(v) if r != c else integer(1) for c, v in enumerate(row)] for r, row in enumerate(R)]
            left = symbol("R")
            if isinstance(spec, Unstructured):
                listed = join(map(code, labels), ", ")
                in_order = words("the values of ") + code(spec.time) + words(" in order")
                short = code(spec.time) + words(" ") + listed
                left += words(" at ") + (short if len(listed.text) <= LONG_LABELS else in_order)
            found.append(Equation(left, EQUALS, ((matrix(cells),),)))
        elif table is not None:
            values = list(self.rho.values())
            span = (two_decimals(min(values)), words(" and ") + two_decimals(max(values)))
            found.append(Equation(symbol("ρ"), BETWEEN, (span,)))
        elif entry is None and self.rho:
            named = [code(name) + " = " + signed(v, number(v)) for name, v in self.rho.items()]
            found[0] = dataclasses.replace(found[0], groups=(*found[0].groups, (words(", with ") + join(named, ", "),)))
        return found

    def _needs_other_row(self, spec: ResidualCorrelation) -> bool:
        return getattr(spec, "nugget", False) or type(spec) in (CompoundSymmetry, Toeplitz, Unstructured)

    def r(self) -> Markup | None:
        """Return the correlation of rows j and k; None where it has no short form."""
        spec = self.correlation
        kind = type(spec)
        body: Markup | None = None
        if kind is CompoundSymmetry:
            return self._number("rho", symbol("ρ"))
        if kind is Toeplitz:
            return symbol("ρ") + parenthesise(self._lag(spec))
        if kind is Unstructured:
            return symbol("ρ") + parenthesise(self._position(spec, "j") + ", " + self._position(spec, "k"))
        if kind is AR1 or kind is CAR1:
            name, letter = ("rho", "ρ") if kind is AR1 else ("phi", "φ")
            body = raised(self._base(name, symbol(letter)), self._lag(spec))
        elif kind is Exponential or kind is Gaussian:
            ratio = self._lag(spec) + Markup(" / ", " / ", " / ") + self._number("range", code("range"))
            if kind is Gaussian:
                ratio = raised(parenthesise(ratio), integer(2))
            body = _exponential("−", ratio)
        if body is None or not getattr(spec, "nugget", False):
            return body
        if "nugget" in self.rho:
            return times(_share(1.0 - self.rho["nugget"]), body)
        return times(parenthesise(integer(1) + Markup(" − ", " - ", " − ") + code("nugget")), body)

    def _position(self, spec: Any, row: str) -> Markup:
        return Markup(row, row, row) if spec.time is None else name_symbol(spec.time, f"i{row}")

    def _lag(self, spec: Any) -> Markup:
        gap = self._position(spec, "j") + Markup(" − ", " - ", " − ") + self._position(spec, "k")
        return Markup("|", "|", "|") + gap + "|"

    def _number(self, name: str, letter: Markup) -> Markup:
        if name not in self.rho:
            return letter
        value = self.rho[name]
        return signed(value, _share(value) if name in ("rho", "phi") else number(value))

    def _base(self, name: str, letter: Markup) -> Markup:
        base = self._number(name, letter)
        return parenthesise(base) if self.rho.get(name, 0.0) < 0 else base

    # --- variance ----------------------------------------------------------------------------------------------------

    def _variance_equations(self, spec: VarianceFunction) -> list[Equation]:
        left = function("SD", self.deviation("ij"))
        sigma = symbol("σ")
        entry = self.g()
        if entry is None:
            text = formula_of(spec)
            groups: Any = [(code(text) if text else times(sigma, entry_of("G", "jj")),)]
            named = [code(name) + " = " + signed(v, number(v)) for name, v in self.delta.items()]
            if named:
                groups.append((words(", with ") + join(named, ", "),))
            return [Equation(left, EQUALS, tuple(groups))]
        groups = [(times(sigma, entry_of("G", "jj")),), (" = " + times(sigma, entry),)]
        found = [Equation(left, EQUALS, tuple(groups))]
        if type(spec) is VarIdent:
            found += self._ratios(spec)
        return found

    def _ratios(self, spec: VarIdent) -> list[Equation]:
        bound = bind_structure(self.design).variance
        if bound is None:
            return []
        reference, *others = map(str, bound.state)
        first = integer(1) + words(" for ") + code(reference)
        left = code("ratio") + parenthesise(self._covariate("j"))
        if not self.delta:
            return [Equation(left, EQUALS, ((first,),))]
        values = [
            ", " + number(v) + words(" for ") + code(name)
            for name, v in list(zip(others, self.delta.values(), strict=True))[:SHOWN_GROUPS]
        ]
        more = [words(f", … ({len(others) + 1} in all)")] if len(others) > SHOWN_GROUPS else []
        return [Equation(left, EQUALS, tuple((piece,) for piece in (first, *values, *more)))]

    def g(self, row: str = "j", power: int = 1) -> Markup | None:
        """Return the SD of a row over σ, perhaps squared; None where it has no short form."""
        spec = self.variance
        if type(spec) is VarIdent:
            ratio = code("ratio") + parenthesise(self._covariate(row))
            return ratio + symbol("", power=power) if power > 1 else ratio
        if type(spec) is VarPower:
            return raised(Markup("|", "|", "|") + self._covariate(row) + "|", self._delta("power", power))
        if type(spec) is VarExp:
            return _exponential("", times(self._delta("rate", power), self._covariate(row)))
        return None

    def varies_within(self) -> bool:
        """Whether rows of one subject differ in the variance function's covariate."""
        spec = self.variance
        if spec is None or spec.variable is None:
            return spec is not None
        column, design = self.design.frame[spec.variable], self.design
        return bool((column.groupby(design.subject_index).nunique() > 1).any())

    def _covariate(self, row: str) -> Markup:
        assert self.variance is not None
        name = self.variance.variable
        if name is not None:
            return name_symbol(name, f"i{row}" if self.varies_within() else "i")
        fitted = name_symbol(self.design.hierarchy.response, f"i{row}")
        if self.design.term:
            fitted += Markup(" | ", r" \mid ", " | ") + symbol("b", "i")
        return function("E", fitted)

    def _delta(self, name: str, power: int) -> Markup:
        if name in self.delta:
            value = power * self.delta[name]
            return signed(value, number(value))
        return times(integer(power) if power > 1 else None, code(name))


def _exponential(sign: str, exponent: Markup) -> Markup:
    minus = Markup(sign, "-" if sign else "", sign)
    return Markup("exp(", r"\exp(", "exp(") + minus + exponent + ")"


def entry_of(letter: str, rows: str) -> Markup:
    """Return an entry of a subject's matrix: ``Rᵢ[j, k]``."""
    listed = ", ".join(rows)
    left = symbol(letter, "i")
    return Markup(f"{left.text}[{listed}]", rf"({left.latex})_{{{rows}}}", f"{left.html}[{listed}]")


def _share(value: float) -> Markup:
    """Write a number below one so that it is not rounded to one."""
    size = abs(value)
    if not 0.995 <= size < 1.0:
        return number(value)
    digits = min(1 - math.floor(math.log10(1.0 - size)), 12)
    text = f"{size:z.{digits}f}"
    return Markup(text, text, text)
