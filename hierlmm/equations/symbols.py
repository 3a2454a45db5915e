"""The symbols of one model: its coefficients, covariates and covariances, or the estimates in their place.

β_km: the first index is the level-1 coefficient (0 the intercept), the second its place in the level-2 equation
(0 the constant). D has the numbers of the level-1 coefficients that vary: D_01 belongs to b_0i and b_1i.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd

from hierlmm.covariance.random import SPECTRAL
from hierlmm.design.design import Design
from hierlmm.design.formula import INTERCEPT
from hierlmm.equations.notation import (
    Addend,
    Markup,
    code,
    integer,
    name_symbol,
    number,
    parenthesise,
    signed,
    symbol,
    times,
    words,
)
from hierlmm.equations.residual_symbols import residual_numbers, spec_text
from hierlmm.errors import SpecificationError
from hierlmm.frames import shorten

SIGMA2 = symbol("σ", power=2)


class Estimates(Protocol):
    """What of a fit is put into the equations."""

    @property
    def beta(self) -> pd.Series:
        """Fixed effects by ``coef``."""

    @property
    def D(self) -> pd.DataFrame:
        """Covariance of the random effects, ``term`` × ``term``."""

    @property
    def sd_b(self) -> pd.Series:
        """Standard deviations of the random effects by ``term``."""

    @property
    def corr_b(self) -> pd.DataFrame:
        """Correlations of the random effects, ``term`` × ``term``."""

    @property
    def sigma(self) -> float:
        """Residual standard deviation."""


class Symbols:
    """Names and numbers of a model's coefficients.

    Parameters
    ----------
    design : Design
        The model.
    estimates : Estimates, optional
        Values that take the place of the symbols.

    Attributes
    ----------
    numbers : list of int
        Number of each level-1 coefficient: from 0 with an intercept, from 1 without.
    members : list of list of int
        Positions in ``coef`` of each level-2 equation, in the order in which it is written.
    level2_parts : list of tuple
        The level-2 factor columns that each coefficient multiplies, as ``(factor, column name)``.
    wide : bool
        Whether a number has two digits, so that subscripts need commas.
    q : int
        Number of a subject's random effects; they are counted from 0 here, in every group.
    group : int, optional
        Position of the group whose D is meant, where D differs by group.
    """

    def __init__(self, design: Design, estimates: Estimates | None = None, group: int | None = None) -> None:
        self.design, self.estimates, self.group, self.q = design, estimates, group, design.n_own
        self.mark = "" if group is None else marks(design.group_levels)[group]
        self.start = 0 if group is None else group * self.q
        start = 0 if INTERCEPT in design.level1 else 1
        self.numbers = [start + k for k in range(len(design.level1))]
        self.level2_parts = [
            tuple(part for part in column.parts if part not in design.level1_columns[k])
            for column, k in zip(design.fixed_columns, design.coef_level1, strict=True)
        ]
        self.members: list[list[int]] = []
        self.places: dict[int, int] = {}
        for k in range(len(design.level1)):
            own = [int(c) for c in np.flatnonzero(design.coef_level1 == k)]
            constant = [c for c in own if not self.level2_parts[c]]
            explaining = [c for c in own if self.level2_parts[c]]
            self.members.append(constant + explaining)
            self.places |= dict.fromkeys(constant, 0) | {c: m for m, c in enumerate(explaining, start=1)}
        self.wide = max([*self.numbers, *self.places.values()], default=0) > 9

    def y(self, row: str = "j") -> Markup:
        """Return the response in a row."""
        return name_symbol(self.design.hierarchy.response, f"i{row}")

    def x(self, k: int, row: str = "j", power: int | None = None) -> Markup | None:
        """Return level-1 covariate k in a row; None for the constant."""
        parts = [strip_treatment(*part) for part in self.design.level1_columns[k]]
        if not parts:
            return None
        if len(parts) > 1 and power:
            return parenthesise(times(*(name_symbol(p, f"i{row}") for p in parts))) + symbol("", power=power)
        return times(*(name_symbol(p, f"i{row}", power=power) for p in parts))

    def z(self, r: int, row: str = "j", power: int | None = None) -> Markup | None:
        """Return the covariate of random effect r in a row; None for the constant."""
        return self.x(int(self.design.own_level1[r]), row, power)

    def groups(self) -> list[Symbols]:
        """The symbols of every group, where D differs by group."""
        return [Symbols(self.design, self.estimates, g) for g in range(len(self.design.group_levels))]

    def D(self) -> Markup:
        """Return the symbol of D: of the group meant, or that of the subject's group."""
        if self.group is not None:
            return symbol("D", self.mark)
        if not self.design.group:
            return symbol("D")
        own = code(self.design.group)
        return Markup(f"D_{own.text}(i)", f"D_{{{own.latex}(i)}}", f"D<sub>{own.html}(i)</sub>")

    def where(self) -> Markup:
        """Return ``, sex = Female``, which group is meant; nothing where there is one D."""
        if self.group is None:
            return Markup("", "", "")
        level = words(str(self.design.group_levels[self.group]))
        return words(", ") + code(self.design.group) + " = " + level

    def offsets(self) -> list[Addend]:
        """Return what is added with coefficient 1."""
        return [Addend.of(name_symbol(f"offset({o})", "ij")) for o in self.design.hierarchy.offsets]

    def beta_i(self, k: int) -> Markup:
        """Return level-1 coefficient k of subject i."""
        return symbol("β", self._subscript(self.numbers[k], "i"))

    def fixed(self, c: int) -> Addend:
        """Return coefficient c, or its estimate, times its level-2 covariates."""
        return self._times_covariates(c, self._subscript(self.numbers[self.design.coef_level1[c]], self.places[c]))

    def terms(self) -> list[Addend]:
        """Return the fixed effects of a marginal model, numbered through, times their covariates."""
        start = 0 if INTERCEPT in self.design.coef else 1
        columns = enumerate(self.design.coef_level1)
        return [self._times_covariates(c, str(start + c), self.x(int(k))) for c, k in columns]

    def _times_covariates(self, c: int, subscript: str, level1: Markup | None = None) -> Addend:
        names = [name_symbol(strip_treatment(*part)) for part in self.level2_parts[c]]
        if self.estimates is None:
            return Addend.of(times(symbol("β", subscript), *names, level1))
        value = float(self.estimates.beta[self.design.coef[c]])
        return Addend.of(times(number(value), *names, level1), negative=value < 0)

    def b(self, r: int) -> Markup:
        """Return random effect r of subject i."""
        return symbol("b", self._subscript(self._number(r), "i"))

    def correlated(self, r: int, s: int) -> bool:
        """Whether D has an entry for two random effects."""
        r, s = r + self.start, s + self.start
        return r == s or any(r in block and s in block for block in self.design.blocks)

    def term(self, r: int) -> str:
        """Return the name of a random effect among those of D."""
        return self.design.term[r + self.start]

    def variance(self, r: int) -> Markup:
        """Return the symbol of a random effect's variance: ``σ²_b0``, or the ``σ²_b`` that all have in common."""
        common = self.design.covariance in SPECTRAL
        return symbol("σ", self._marked("b" if common else f"b{self._number(r)}"), power=2)

    def covariance_entry(self, r: int, s: int) -> Markup:
        """Return an entry of D as variance, as correlation and standard deviations, as zero, or as estimate."""
        if not self.correlated(r, s):
            return integer(0)
        if self.estimates is not None:
            return signed(self.covariance_value(r, s), number(self.covariance_value(r, s)))
        if r == s:
            return self.variance(r)
        if self.design.covariance == "compound_symmetry":
            return symbol("ρ", self.mark) + self.variance(r)
        a, b = sorted((self._number(r), self._number(s)))
        rho = symbol("ρ", self._marked(self._subscript(a, b) if self.q > 2 else ""))
        return rho + symbol("σ", self._marked(f"b{a}")) + symbol("σ", self._marked(f"b{b}"))

    def covariance_value(self, r: int, s: int) -> float:
        """Return an estimated entry of D."""
        assert self.estimates is not None
        return float(self.estimates.D[self.term(s)][self.term(r)])

    def covariance_addend(self, r: int, s: int, factor: int, *multipliers: Markup | None) -> Addend:
        """Return ``factor · D_rs · multipliers``; a lone or common variance goes by its own symbol."""
        if self.estimates is not None:
            value = factor * self.covariance_value(r, s)
            return Addend.of(times(number(value), *multipliers), negative=value < 0)
        entry = symbol("D", self._subscript(self._number(r), self._number(s)))
        if self.q == 1 or self.design.covariance in SPECTRAL:
            entry = self.covariance_entry(r, s)
        return Addend.of(times(integer(factor) if factor != 1 else None, entry, *multipliers))

    def residual_variance(self) -> Markup:
        """Return σ² or its estimate."""
        return SIGMA2 if self.estimates is None else number(self.estimates.sigma**2)

    def _number(self, r: int) -> int:
        return self.numbers[self.design.own_level1[r]]

    def _marked(self, subscript: str) -> str:
        return ",".join(part for part in (subscript, self.mark) if part)

    def _subscript(self, *labels: int | str) -> str:
        return ("," if self.wide else "").join(map(str, labels))


def marks(levels: Sequence[Any]) -> list[str]:
    """Short subscripts of groups: as few first letters as tell them apart, or numbers from 1."""
    labels = [str(level) for level in levels]
    for n in (1, 2, 3):
        short = [label[:n] for label in labels]
        if len(set(short)) == len(short) and all(label.isalnum() for label in short):
            return short
    return [str(k + 1) for k in range(len(labels))]


def strip_treatment(factor: str, name: str) -> str:
    """Write a dummy without the mark of treatment coding: ``sex[T.Male]`` is ``sex[Male]``."""
    stem = factor.replace("`", "")
    mark = f"{stem}[T."
    return f"{stem}[{name.removeprefix(mark)}" if name.startswith(mark) else name


def check_estimates(design: Design, estimates: Estimates) -> None:
    """Refuse estimates of another model.

    Raises
    ------
    SpecificationError
    """
    if not all(hasattr(estimates, name) for name in ("beta", "sigma" if design.is_gaussian else "dispersion")):
        received = f"equations with estimates of type {type(estimates).__name__}"
        reason = "the estimates that are put in are those of a fit"
        raise SpecificationError(received, reason, "use equations(fit), with a fit of this model")
    named = design.term and isinstance(estimates.D, pd.DataFrame)  # D of several factors is named by each of them
    terms = estimates.D.index if named else getattr(getattr(estimates, "design", None), "term", ())
    for what, known, wanted in (
        ("fixed effects", estimates.beta.index, design.coef),
        ("random effects", terms, design.term),
    ):
        if sorted(known) != sorted(wanted):
            received, remedy = f"estimates of the {what} {shorten(known) or '(none)'}", "pass a fit of the same model"
            raise SpecificationError(received, f"the model has the {what} {shorten(wanted) or '(none)'}", remedy)
    _check_structure(design, estimates)


def _check_structure(design: Design, estimates: Estimates) -> None:
    """Refuse estimates of another residual structure, or of none (GEE drops it)."""
    own = [spec for spec in (design.residual, design.residual_variance) if spec is not None]
    fitted = getattr(estimates, "design", design)
    theirs = [spec for spec in (fitted.residual, fitted.residual_variance) if spec is not None]
    found = any(residual_numbers(estimates)) or getattr(estimates, "residual_estimate", None) is not None
    if own == theirs and (not own or found):  # known weights have no estimates
        return
    named = [" and ".join(map(spec_text, specs)) or "independent residuals" for specs in (own, theirs)]
    other = f"estimates of a model with {named[1]}"
    received = "estimates without those of the residual structure" if own == theirs else other
    remedy = "pass a fit of the same model, by an estimator that fits its residual structure"
    raise SpecificationError(received, f"the model has {named[0]}", remedy, "docs, page 'Residual structures'")
