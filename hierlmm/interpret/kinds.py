"""Who has the coefficients that are asked about: subjects, or with several grouping factors the groups of one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from hierlmm.design.design import Design
from hierlmm.design.factors import coarser, design_from_factors, unknown_factor
from hierlmm.design.formula import parse_formula


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
