"""Who has the coefficients that are asked about: subjects, or with several grouping factors the groups of one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from hierlmm.design.build import changes_within, level1_columns, split_parts
from hierlmm.design.design import Design
from hierlmm.design.factors import coarser, design_from_factors, unknown_factor
from hierlmm.design.formula import parse_formula
from hierlmm.design.rows import Grouping
from hierlmm.design.terms import product, stack
from hierlmm.groups import first_rows


@dataclass(frozen=True, eq=False)
class Kind:
    """Those who differ.

    Attributes
    ----------
    design : Design
        In which they are the subjects: level 1 is what varies within them.
    first : int
        Position of their random effects among those of all factors.
    factor : str
        The grouping factor, where there are several.
    above : tuple of str
        Factors that it is nested in.
    """

    design: Design
    first: int = 0
    factor: str = ""
    above: tuple[str, ...] = ()

    @property
    def one(self) -> str:
        """What one of them is called."""
        return "group" if self.factor else "subject"

    @property
    def who(self) -> str:
        """What they are called: subjects, or groups of a factor."""
        return f"groups of {self.factor}" if self.factor else "subjects"

    def places(self, r: int) -> range:
        """Where one of their random effects stands among those of all factors: once for each level of ``group=``."""
        return range(self.first + r, self.first + len(self.design.term), self.design.n_own)


def kind_of(fit: Any, factor: str | None = None) -> Kind:
    """Whose coefficients a fit is asked about.

    Parameters
    ----------
    fit : Fit
    factor : str, optional
        One of several grouping factors.

    Raises
    ------
    DataError
        If the model has several factors, and not this one.
    """
    design: Design = fit.design
    if not design.has_several_factors:
        return Kind(design)
    names = [own.columns.group for own in design.random]
    if factor is None or factor not in names:
        raise unknown_factor(factor, names)
    parsed = parse_formula(design.hierarchy.formula, several=True)
    alone = replace(parsed, random=tuple(bar for bar in parsed.random if bar.subject == factor))
    k = names.index(factor)
    first = sum(len(own.columns.names) for own in design.random[:k])
    return Kind(design_from_factors(alone, design.frame), first, factor, tuple(coarser(design, factor)))


def within_groups(design: Design) -> Design:
    """With several factors: the design whose level 1 is what varies within the groups of every factor.

    The design of such a model has for its level 1 whatever varies within its independent units: the arm of a patient
    as well as the time of a visit. For words a covariate that is constant within the groups of some factor explains the
    coefficients of these groups, unless it is itself multiplied by a random effect. Rows that share all groups are the
    subjects here. Other designs are as they are.
    """
    if not design.has_several_factors:
        return design
    values = design.factors.values(design.levels.apply(design.frame))
    changes = [changes_within(values, own.group) for own in design.random]
    in_random = [design.level1_columns[k] for k in design.term_level1]
    varying = {f for parts in in_random for f, _ in parts}
    varying |= {f for f in changes[0] if all(np.any(own[f]) for own in changes)}
    split = [split_parts(column.parts, varying) for column in design.fixed_columns]
    in_fixed = [within for within, _ in split]
    level1 = level1_columns(design.hierarchy, list(design.fixed_columns), in_fixed, in_random)
    at = {parts: k for k, parts in enumerate(level1)}
    of_random = (np.array([at[design.level1_columns[k]] for k in own.columns]) for own in design.terms.random)
    random = tuple(replace(own, columns=k) for own, k in zip(design.terms.random, of_random, strict=True))
    coef_level1 = np.array([at[parts] for parts in in_fixed], dtype=np.intp)
    terms = replace(design.terms, level1_columns=tuple(level1), coef_level1=coef_level1, random=random)
    _, index = np.unique([own.group.index for own in design.random], axis=1, return_inverse=True)
    cells = Grouping(index.ravel().astype(np.intp), pd.RangeIndex(int(index.max()) + 1))
    first, n = first_rows(cells.index, len(cells.labels)), design.n_obs
    X1 = stack([product(values, parts, n) for parts in level1], n)
    W = stack([product(values, parts, n)[first] for _, parts in split], len(first))
    rows = replace(design.rows, subject=cells, X1=X1, W=W)
    effects = tuple(replace(own, columns=c) for own, c in zip(design.random, random, strict=True))
    return replace(design, terms=terms, rows=rows, random=effects)
