"""Whether a stated hierarchy and the columns of its terms agree: levels, codings, names, blocks of D."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from hierlmm.design.columns import Column
from hierlmm.design.formula import Term, term_name, unquoted
from hierlmm.design.hierarchy import Hierarchy, RandomBlock
from hierlmm.design.levels import Levels
from hierlmm.design.rows import Prepared
from hierlmm.design.terms import Parts, parts_name
from hierlmm.errors import DataError, SpecificationError
from hierlmm.frames import quote, shorten

__all__ = [
    "canonical_blocks",
    "check_coding",
    "check_levels",
    "check_margins",
    "check_unique",
    "covariance_blocks",
    "split_parts",
]

SEE = "docs, page 'Formulas and levels'"
specification_error = partial(SpecificationError, see=SEE)


def split_parts(parts: Parts, varying: Iterable[str]) -> tuple[Parts, Parts]:
    """Factor columns of level 1, and those of level 2."""
    return tuple(p for p in parts if p[0] in varying), tuple(p for p in parts if p[0] not in varying)


def check_levels(hierarchy: Hierarchy, rows: Prepared, changes: Mapping[str, NDArray[np.bool_]]) -> None:
    """Refuse level-2 factors that vary within a subject, and level-1 factors that vary within none.

    Parameters
    ----------
    hierarchy : Hierarchy
    rows : Prepared
    changes : mapping
        Factor -> the rows in which it is not what it was in the subject's first.
    """
    subject = hierarchy.subject
    for key, terms in zip(hierarchy.level1_terms, hierarchy.level2_terms, strict=True):
        for factor in [f for term in terms for f in term if f in changes and np.any(changes[f])]:
            culprit = rows.subject.index[np.flatnonzero(changes[factor])[0]]
            own = rows.frame.index[rows.subject.index == culprit]
            raise specification_error(
                f"{factor!r} at level 2 (to explain {term_name(key)!r})",
                f"it varies within {subject} {quote(rows.subject.labels[culprit])} (rows {shorten(own)}), "
                "and level 2 holds only what is constant within every subject",
                f"put {factor!r} into the level-1 formula, or use its mean by {subject} at level 2 "
                f"(data.groupby({subject!r})[...].transform('mean'))",
            )
    for term in hierarchy.level1_terms:
        constant = [f for f in term if f in changes and not np.any(changes[f])]
        if constant:
            reason = f"it is constant within every {subject}, so no {subject} has a regression on it"
            remedy = f"move it to level 2, for example level2={{'Intercept': {constant[0]!r}}}"
            raise specification_error(f"{constant[0]!r} at level 1", reason, remedy)


def check_margins(hierarchy: Hierarchy, columns: list[Column], varying: frozenset[str]) -> None:
    """Refuse level-2 formulas that the coding of a level-1 factor would carry over to another coefficient.

    ``{"Intercept": "1", "cond": "sex"}`` multiplies out to ``1 + cond + sex:cond``, which has an effect of sex at every
    level of cond, so that the intercept (the level that cond is coded against) would depend on sex as well.
    """
    codings: dict[Term, dict[Parts, set[Parts]]] = {}
    for column in columns:
        own = tuple(f for f in column.term if f in varying)
        level1, level2 = split_parts(column.parts, varying)
        coding = codings.setdefault(own, {})
        coding.setdefault(level2, set()).add(level1 if tuple(f for f, _ in level1) == own else ())
    for own, coding in codings.items():
        if any(parts != next(iter(coding.values())) for parts in coding.values()):
            others = dict.fromkeys(f for level2 in coding for f, _ in level2)
            name = term_name(own)
            raise specification_error(
                f"level2[{name!r}] = {hierarchy.level2[name]!r}",
                f"{name!r} is a factor, coded against a level that the intercept stands for; multiplied out, the "
                f"intercept would depend on {shorten(map(repr, others))} too, and its level-2 formula does not say so",
                "explain the intercept by the same terms, start level 1 with '0 +', or use numeric columns for the "
                "levels of the factor, such as I(cond == 'b')",
            )


def check_coding(hierarchy: Hierarchy, level1: list[Parts], fixed: list[Parts], random: list[Parts]) -> None:
    """A factor must be coded alike in the fixed and the random part, or there is no common level-1 regression."""
    by_term: dict[Term, list[Parts]] = {}
    for parts in level1:
        by_term.setdefault(tuple(f for f, _ in parts), []).append(parts)
    for term, group in by_term.items():
        in_fixed = [p for p in group if p in fixed]
        in_random = [p for p in group if p in random]
        if in_fixed and in_random and set(in_fixed) != set(in_random):
            raise specification_error(
                f"{term_name(term)!r} coded as {shorten(map(parts_name, in_fixed))} in the fixed part and as "
                f"{shorten(map(parts_name, in_random))} in the random part",
                "the hierarchy needs one set of level-1 coefficients",
                f"code both alike: '1 + {term_name(term)}' with '(1 + {term_name(term)} | {hierarchy.subject})', "
                f"or '0 + {term_name(term)}' with '(0 + {term_name(term)} | {hierarchy.subject})'; "
                "and write interactions with their main effects ('a * b', not 'a:b')",
            )


def check_unique(names: Sequence[str]) -> None:
    """Refuse two coefficients of one name."""
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        reason = "a column of the data has the name that a term of the formula gets"
        raise DataError(f"two coefficients named {twice[0]!r}", reason, f"rename the column {twice[0]!r}", SEE)


def covariance_blocks(hierarchy: Hierarchy, random: list[list[Column]]) -> tuple[tuple[tuple[int, ...], ...], str]:
    """Positions of the correlated blocks, and the simplest name of the structure."""
    positions: list[tuple[int, ...]] = []
    start = 0
    for block, columns in zip(hierarchy.blocks, random, strict=True):
        members = tuple(range(start, start + len(columns)))
        start += len(columns)
        positions += [members] if block.correlated else [(m,) for m in members]
    if hierarchy.covariance in ("identity", "compound_symmetry") and start > 1:
        return tuple(positions), hierarchy.covariance
    if not positions:
        return (), "none"
    if len(positions) == 1:
        return tuple(positions), "unstructured"
    if all(len(p) == 1 for p in positions):
        return tuple(positions), "diagonal"
    return tuple(positions), "blocks"


def canonical_blocks(hierarchy: Hierarchy, covariance: str, levels: Levels) -> tuple[RandomBlock, ...]:
    """Write equal structures alike: ``(1 | g) + (0 + x | g)`` is ``(1 + x || g)``.

    Not where that would be another model: a factor is coded in full in ``(1 | g) + (0 + cond || g)``.
    """
    if covariance == "none":
        return ()
    if covariance in ("unstructured", "compound_symmetry"):
        return (RandomBlock(hierarchy.blocks[0].terms, correlated=True),)
    merged = tuple(t for b in hierarchy.blocks for t in b.terms)
    factors = any(unquoted(f) in levels.categories or f.startswith("C(") for term in merged for f in term)
    alike = len(hierarchy.blocks) == 1 or (not factors and merged == tuple(sorted(merged, key=len)))
    if covariance in ("diagonal", "identity") and alike:
        return (RandomBlock(merged, correlated=False),)
    return hierarchy.blocks
