"""Families by name."""

from __future__ import annotations

from typing import Any

from hierlmm.errors import SpecificationError, closest
from hierlmm.families.binary import Bernoulli, Binomial
from hierlmm.families.counts import NegativeBinomial, Poisson
from hierlmm.families.family import SEE, Family
from hierlmm.families.gaussian import Gaussian
from hierlmm.families.heavy_tails import StudentT
from hierlmm.families.ordinal import Ordinal
from hierlmm.families.positive import Gamma
from hierlmm.families.proportions import Beta

FAMILIES: dict[str, type[Family]] = {
    kind.name: kind
    for kind in (Gaussian, Poisson, NegativeBinomial, Bernoulli, Binomial, Gamma, Beta, Ordinal, StudentT)
}
"""Name -> family."""
ELSEWHERE = {
    "normal": "gaussian",
    "nbinom": "negative_binomial",
    "nbinom2": "negative_binomial",
    "negativebinomial": "negative_binomial",
    "logistic": "bernoulli",
    "binary": "bernoulli",
    "cumulative": "ordinal",
    "t": "student_t",
    "student": "student_t",
}
"""What other programs call a family."""


def family_named(name: str, link: str | None = None) -> Family:
    """The family of a name with a link; by default its first one.

    Raises
    ------
    SpecificationError
    """
    found = family_of(name)
    return found if link is None else type(found)(link=link)


def family_of(given: Any) -> Family:
    """The family of a name, a class or an object.

    Raises
    ------
    SpecificationError
    """
    if isinstance(given, Family):
        return given
    if isinstance(given, type) and issubclass(given, Family):
        return given()
    if isinstance(given, str) and given in FAMILIES:
        return FAMILIES[given]()
    remedy = f"use one of {', '.join(map(repr, FAMILIES))}, or an object of hl.families with a link"
    near = _meant(given.lower()) if isinstance(given, str) else ""
    raise SpecificationError(f"family={given!r}", f"there is no such family.{near}", remedy, SEE)


def _meant(given: str) -> str:
    """A hint at the family that another program calls so, or that is spelled nearly so."""
    return f" Did you mean {ELSEWHERE[given]!r}?" if given in ELSEWHERE else closest(given, FAMILIES)
