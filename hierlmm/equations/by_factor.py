"""The equations of a model with several grouping factors: nested ones level by level, crossed ones a line a factor.

rows        y_i = β₀[class] + β₁[school]·x_i + e_i,                e_i ~ N(0, σ²)
class       β₀[class] = β₀₀[school] + b₀[class],                   b₀[class] ~ N(0, σ²[class])
school      β₀₀[school] = β₀₀₀ + β₀₀₁·w + b₀₀[school], ...         (b₀₀[school], b₁[school]) ~ N(0, D[school])

i is a row, and [class] what belongs to the row's class, as in ``fit.b["class"]``. A coefficient has an equation at the
levels at which something happens to it, and each gives its number one more digit.

marginal    Cov(y_i, y_j) = Σ_k z_ki' D_k z_kj · 1(same group of factor k),       i ≠ j
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pandas as pd

from hierlmm.design.design import Design
from hierlmm.design.factors import coarser, finest_first
from hierlmm.design.formula import variables_of
from hierlmm.design.terms import Parts
from hierlmm.equations import notation as m
from hierlmm.equations.notation import EQUALS, SIMILAR, Addend, Equation, Markup
from hierlmm.equations.sections import Section, Written
from hierlmm.equations.symbols import SIGMA2, strip_treatment
from hierlmm.groups import groups_above

ROW, OTHER = "i", "j"
RESIDUAL = m.symbol("e", ROW)
SPELLED_OUT = 2
"""Random effects of a factor up to which its part of the marginal covariance is written out."""
TWO_ROWS = Markup(",  i ≠ j", r",\quad i \neq j", ", &nbsp;i ≠ j")


class Item(NamedTuple):
    """One addend of the whole model: what it multiplies, and which fixed or random effect it is."""

    parts: Parts
    coef: int | None = None
    factor: str | None = None
    effect: int = 0


@dataclass(frozen=True, repr=False, kw_only=True)
class FactorEquations(Written):
    """The equations of a model with several grouping factors; every equation has ``.text``, ``.latex`` and ``.html``.

    Attributes
    ----------
    levels : tuple of Section
        Nested factors: the rows and one section for each factor, the finest first. Crossed factors: the rows, and one
        section with a line (and D) for every factor.
    combined : Equation or None
        All levels in one line; None for crossed factors, whose first equation is that line.
    marginal : tuple of Equation
        Mean and variance of a row, covariance of two rows as a sum over the groups that they share, and V.
    estimator : str or None
        Where the estimates come from, if there are any.
    """

    levels: tuple[Section, ...]
    combined: Equation | None
    marginal: tuple[Equation, ...]
    estimator: str | None = None

    @property
    def _source(self) -> str | None:
        return self.estimator

    @property
    def sections(self) -> tuple[Section, ...]:
        """The levels, the combined and the marginal model."""
        says = m.words("All levels in one line: fixed effects, random effects b of every factor, and residual e.")
        combined = [] if self.combined is None else [Section("Combined model", (self.combined,), says)]
        about = m.words("Averaged over b. 1(same ...) is 1 for two rows of one group, and 0 for others.")
        return (*self.levels, *combined, Section("Marginal model", self.marginal, about))


def factor_equations(design: Design, estimates: Any = None) -> FactorEquations:
    """Write down a model with several grouping factors; see `equations.equations`."""
    w = _Writer(design, estimates)
    chain = nested_chain(design)
    rows = w.level(w.items, chain, 0, "") if chain else w.flat()
    errors = Equation(RESIDUAL, SIMILAR, ((m.normal(SIGMA2), *w.spread([w.sigma])),))
    first = Equation(w.y(), EQUALS, m.add_up([*rows, *w.offsets(), Addend.of(RESIDUAL)]))
    about = m.words("i is a row; what stands in brackets belongs to the row's group of this factor.")
    levels = [Section("Level 1: rows" if chain else "Rows", (first, errors), about)]
    for number, name in enumerate(chain, start=2):
        own = (*w.written.get(name, ()), *w.effects(name))
        levels.append(Section(f"Level {number}: {name}", own, _about(design, name, chain[number - 1 :])))
    if not chain:
        lines = [line for name in finest_first(design) for line in w.effects(name)]
        says = m.words("Random effects of different factors are independent.")
        levels.append(Section("Grouping factors", tuple(lines), says))
    whole = Equation(w.y(), EQUALS, m.add_up([*w.flat(), *w.offsets(), Addend.of(RESIDUAL)]))
    return FactorEquations(
        levels=tuple(levels),
        combined=whole if chain else None,
        marginal=w.marginal(),
        estimator=getattr(estimates, "estimator", None),
    )


def nested_chain(design: Design) -> list[str]:
    """The factors, the finest first, where each is nested in the next; else nothing."""
    names = list(finest_first(design))
    return names if all(coarser(design, name) == names[k + 1 :] for k, name in enumerate(names)) else []


def _about(design: Design, name: str, above: Sequence[str]) -> Markup:
    groups = f"{finest_first(design)[name]:,} groups"
    return m.words(f"{groups}, each in one ") + m.code(above[0]) + "." if above else m.words(f"{groups}.")


@dataclass
class _Writer:
    """Names of the coefficients of a model, and its equations as they are written down."""

    design: Design
    estimates: Any
    written: dict[str, list[Equation]] = field(default_factory=dict)
    numbers: dict[tuple[str, int] | int, str] = field(default_factory=dict)
    levels: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        design = self.design
        self.random = {term.columns.group: term.columns for term in design.random}
        self.sigma = None if self.estimates is None else float(self.estimates.sigma)
        fixed = [Item(column.parts, coef=c) for c, column in enumerate(design.fixed_columns)]
        self.items = fixed + [
            Item(design.level1_columns[column], factor=name, effect=r)
            for name, columns in self.random.items()
            for r, column in enumerate(columns.columns)
        ]
        self.wide = len({item.parts for item in self.items}) > 10

    def level(self, items: Sequence[Item], chain: list[str], at: int, number: str) -> list[Addend]:
        """The right side of an equation of level ``at`` (0 the rows), and the equations of the levels above."""
        addends, row = [], "" if at else ROW
        by_own: dict[Parts, list[Item]] = {}
        for item in items:
            own = tuple(part for part in item.parts if self._level(part, chain) == at)
            rest = tuple(part for part in item.parts if part not in own)
            by_own.setdefault(own, []).append(item._replace(parts=rest))
        start = 0 if () in by_own else 1
        for place, (own, inner) in enumerate(sorted(by_own.items(), key=lambda pair: pair[0] != ()), start=start):
            digits = self._joined(number, place)
            above = self._next(inner, chain, at)
            if above is None:
                (item,) = inner
                assert item.coef is not None
                self.numbers[item.coef] = digits
                addends.append(self._fixed(item.coef, own, row))
                continue
            name = chain[above - 1]
            addends.append(Addend.of(m.times(self.of("β", digits, name), self.product(own, row))))
            here = [item for item in inner if item.factor == name]
            self.numbers |= {(name, item.effect): digits for item in here}
            others = self.level([item for item in inner if item not in here], chain, above, digits)
            effects = [Addend.of(self.b(name, item.effect)) for item in here]
            equation = Equation(self.of("β", digits, name), EQUALS, m.add_up([*others, *effects]))
            self.written.setdefault(name, []).append(equation)
        return addends

    def _level(self, part: tuple[str, str], chain: list[str]) -> int:
        """The level of a column: the number of factors, from the finest on, within whose groups it is constant."""
        frame = self.design.frame
        if part[0] not in self.levels:
            groups = {term.columns.group: term.group for term in self.design.random}
            codes = [pd.factorize(frame[name])[0] for name in variables_of(part[0], list(frame.columns))]
            own = [groups[name] for name in chain]
            varies = [any(groups_above(g.index, c, len(g.labels)) is None for c in codes) for g in own]
            self.levels[part[0]] = [*varies, True].index(True)
        return self.levels[part[0]]

    def _next(self, inner: Sequence[Item], chain: list[str], at: int) -> int | None:
        """The next level at which something happens to a coefficient; None where it is one fixed effect."""
        found = [chain.index(item.factor) + 1 for item in inner if item.factor is not None]
        found += [self._level(part, chain) for item in inner for part in item.parts]
        return min(found) if found else None

    def _joined(self, number: str, place: int) -> str:
        return f"{number},{place}" if self.wide and number else f"{number}{place}"

    def flat(self) -> list[Addend]:
        """All addends one after the other; numbers them through where no level has."""
        keys = list(dict.fromkeys(item.parts for item in self.items))
        numbers = {parts: str(n) for n, parts in enumerate(keys, start=0 if () in keys else 1)}
        for item in self.items:
            key = (item.factor, item.effect) if item.factor is not None else item.coef
            assert key is not None
            self.numbers.setdefault(key, numbers[item.parts])
        return [*self.mean(), *(self._random(item) for item in self.items if item.factor is not None)]

    def mean(self) -> list[Addend]:
        """The fixed effects."""
        return [self._fixed(item.coef, item.parts) for item in self.items if item.coef is not None]

    def _fixed(self, c: int, parts: Parts, row: str = ROW) -> Addend:
        covariates = self.product(parts, row)
        if self.estimates is None:
            return Addend.of(m.times(m.symbol("β", self.numbers[c]), covariates))
        value = float(self.estimates.beta.iloc[c])
        return Addend.of(m.times(m.number(value), covariates), negative=value < 0)

    def _random(self, item: Item) -> Addend:
        assert item.factor is not None
        return Addend.of(m.times(self.b(item.factor, item.effect), self.product(item.parts)))

    def b(self, name: str, effect: int) -> Markup:
        """A random effect of the row's group of a factor."""
        return self.of("b", self.numbers[name, effect], name)

    def of(self, letter: str, number: str, factor: str, power: int | None = None) -> Markup:
        """A letter with a number, of a factor: ``b₀[school]``."""
        own, plain = m.symbol(letter, number, power=power), m.symbol(letter)
        name = m.code(factor)
        comma = "," if number else ""
        subscript = f"_{{{number}{comma}{name.latex}}}" + (f"^{{{power}}}" if power else "")
        return Markup(f"{own.text}[{name.text}]", plain.latex + subscript, f"{own.html}[{name.html}]")

    def y(self, row: str = ROW) -> Markup:
        """The response of a row."""
        return m.name_symbol(self.design.hierarchy.response, row)

    def offsets(self) -> list[Addend]:
        """What is added with coefficient 1."""
        return [Addend.of(m.name_symbol(f"offset({o})", ROW)) for o in self.design.hierarchy.offsets]

    def product(self, parts: Parts, row: str = ROW, power: int | None = None) -> Markup | None:
        """Covariates of a row, or of a group of rows; None for the constant."""
        if not parts:
            return None
        return m.times(*(m.name_symbol(strip_treatment(*part), row, power=power) for part in parts))

    def effects(self, name: str) -> list[Equation]:
        """The distribution of the random effects of a factor, and D where there are several."""
        columns, q = self.random[name], len(self.random[name].names)
        b = [self.b(name, r) for r in range(q)]
        spread = [] if self.estimates is None else self.spread([float(s) for s in self.estimates.sd_b[name]])
        if q == 1:
            return [Equation(b[0], SIMILAR, ((m.normal(self.of("σ", "", name, power=2)), *spread),))]
        if q == 2 and spread and len(columns.blocks) == 1:  # one piece: a line of a correlation alone says little
            spread[-1] += m.words(", corr ") + m.two_decimals(float(self.estimates.corr_b[name].iloc[0, 1]))
        D = self.of("D", "", name)
        joint = Equation(m.parenthesise(m.join(b, ", ")), SIMILAR, ((m.normal(D), *spread),))
        if q > m.SHOWN_MATRIX:
            return [joint]
        together = {(r, s) for block in columns.blocks for r in block for s in block}
        cells = [[self._entry(name, r, s) if (r, s) in together else m.integer(0) for s in range(q)] for r in range(q)]
        return [joint, Equation(D, EQUALS, ((m.matrix(cells),),))]

    def spread(self, sd: Sequence[float | None]) -> list[Markup]:
        """``, sd 1.80 and 0.18``; nothing without estimates."""
        known = [m.number(value) for value in sd if value is not None]
        return [m.words(", sd ") + m.enumerate_words(known, limit=len(known))] if known else []

    def _entry(self, name: str, r: int, s: int) -> Markup:
        if self.estimates is not None:
            value = float(self.estimates.D[name].iloc[r, s])
            return m.signed(value, m.number(value))
        return self.of("D", self._joined(str(min(r, s)), max(r, s)), name)

    def marginal(self) -> tuple[Equation, ...]:
        """Mean, variance, covariance of two rows, and V."""
        noise = SIGMA2 if self.sigma is None else m.number(self.sigma**2)
        own = [a for name in self.random for a in self._share(name, ROW, ROW)]
        *groups, last = m.add_up([self._shared(name) for name in self.random])
        rest = noise + ("" if self.sigma is None else m.BLANK) + m.symbol("I")
        Z = m.symbol("Z", "k")
        sum_k = Markup("Σₖ ", r"\sum_k ", "Σ<sub>k</sub> ")
        whole = sum_k + Z + Markup("(I ⊗ Dₖ)", r"(I \otimes D_k)", "(I ⊗ D<sub>k</sub>)") + Z + m.TRANSPOSED
        mean, y = m.add_up([*self.mean(), *self.offsets()] or [Addend.of(m.integer(0))]), self.y()
        return (
            Equation(m.function("E", y), EQUALS, mean),
            Equation(m.function("Var", y), EQUALS, m.add_up([*own, Addend.of(noise)])),
            Equation(m.function("Cov", y, self.y(OTHER)), EQUALS, (*groups, (*last[:-1], last[-1] + TWO_ROWS))),
            Equation(m.symbol("V"), EQUALS, m.add_up([Addend.of(whole), Addend.of(rest)])),
        )

    def _shared(self, name: str) -> Addend:
        addends = self._share(name, ROW, OTHER)
        same = "1(" + m.words("same ") + m.code(name) + ")"
        if len(addends) == 1:
            return Addend.of(m.times(addends[0].pieces[0], same), negative=addends[0].negative)
        pieces = [piece for group in m.add_up(addends) for piece in group]
        pieces[0], pieces[-1] = "(" + pieces[0], m.times(pieces[-1] + ")", same)
        return Addend(tuple(pieces))

    def _share(self, name: str, row: str, other: str) -> list[Addend]:
        """Covariance of two rows (variance of one) by the random effects of a factor."""
        columns, q = self.random[name], len(self.random[name].names)
        parts = [self.design.level1_columns[column] for column in columns.columns]
        if q > SPELLED_OUT:
            z = self.of("z", "", name)
            at = [Markup(f"({row})", f"({row})", f"({row})") for row in (row, other)]
            return [Addend.of(m.join([z + at[0] + m.TRANSPOSED, self.of("D", "", name), z + at[1]], m.BLANK))]
        together = [(r, s) for block in columns.blocks for r in block for s in block if r <= s]
        return [self._product_of(name, r, s, parts, row, other) for r, s in sorted(together)]

    def _product_of(self, name: str, r: int, s: int, parts: Sequence[Parts], row: str, other: str) -> Addend:
        """``D_rs (z_r z_s' + z_s z_r')``, in as few symbols as the rows and the constant allow."""
        same, factor = row == other, 1
        if r == s and same:
            z = [self.product(parts[r], row, 2)]
        elif r == s or same:
            factor = 1 if r == s else 2
            z = [self.product(parts[r], row), self.product(parts[s], other)]
        else:
            rows = (other, row) if not parts[r] else (row, other)
            crossed = [m.times(self.product(parts[r], a), self.product(parts[s], b)) for a, b in (rows, rows[::-1])]
            z = [m.parenthesise(m.join(crossed, " + "))]
        if self.estimates is None:
            lone = len(parts) == 1
            entry = self.of("σ", "", name, power=2) if lone else self._entry(name, r, s)
            return Addend.of(m.times(m.integer(2) if factor == 2 else None, entry, *z))
        value = factor * float(self.estimates.D[name].iloc[r, s])
        return Addend.of(m.times(m.number(value), *z), negative=value < 0)
