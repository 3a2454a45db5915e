"""The two-level hierarchy as data: what was said at level 1, at level 2, and which coefficients vary.

Level 1 is the subject's own regression, ``y_ij = sum_k x1_ijk * beta_ki + e_ij``; level 2 explains its coefficients,
``beta_ki = sum_m w_im * beta_km + b_ki``. Multiplying out gives the combined model, one fixed term ``w_m:x1_k`` for
every pair, and random effects for the level-1 terms that vary. Both forms hold the same information.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from hierlmm.design.brackets import holds_bar, outline
from hierlmm.design.formula import (
    INTERCEPT,
    MULTILEVEL,
    ParsedFormula,
    Term,
    join_terms,
    parse_formula,
    parse_rhs,
    quoted,
    refuse_response_as_subject,
    term_name,
)
from hierlmm.design.formula_limits import check_text
from hierlmm.errors import FormulaError, SpecificationError, closest

COVARIANCES = ("unstructured", "diagonal", "identity", "compound_symmetry")
CORRELATED = ("unstructured", "compound_symmetry")  # all random effects in one block
SEE = "docs, page 'Formulas and levels'"
formula_error = partial(FormulaError, see=SEE)
type Terms = tuple[Term, ...]
type Blocks = tuple[RandomBlock, ...]
specification_error = partial(SpecificationError, see=SEE)


@dataclass(frozen=True, slots=True)
class RandomBlock:
    """Level-1 terms whose random effects are correlated with each other (or not, under ``||``)."""

    terms: tuple[Term, ...]
    correlated: bool = True


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """A two-level model, without its data.

    Attributes
    ----------
    response : str
        The response, a column or an expression such as ``log(bili)``.
    subject : str
        The grouping column.
    level1_terms : tuple of Term
        Terms of the subject's own regression.
    level2_terms : tuple of tuple of Term
        For each level-1 term, what explains it; ``((),)`` is "a constant", ``()`` is "nothing fixed".
    blocks : tuple of RandomBlock
        Which level-1 terms vary by subject, and which of them correlate.
    covariance : str
        Structure of D: ``"unstructured"``, ``"diagonal"``, ``"identity"``, ``"compound_symmetry"`` or ``"blocks"``.
    offsets : tuple of str
        Expressions added to the linear predictor with coefficient 1.
    fixed_terms : tuple of Term
        Terms of the combined model, in the order of its coefficients.
    group : str, optional
        Level-2 factor with a D of its own in each of its levels.
    """

    response: str
    subject: str
    level1_terms: tuple[Term, ...]
    level2_terms: tuple[tuple[Term, ...], ...]
    blocks: tuple[RandomBlock, ...]
    covariance: str
    offsets: tuple[str, ...] = ()
    fixed_terms: tuple[Term, ...] = field(default=(), compare=False)
    group: str | None = None

    @property
    def subject_columns(self) -> tuple[str, ...]:
        """Columns of the data that say who a row belongs to."""
        return (self.subject,)

    @property
    def level1(self) -> str:
        """Level 1 as a formula: ``distance ~ time``."""
        added = [_right_side(self.level1_terms), *(f"offset({o})" for o in self.offsets)]
        return f"{self.response} ~ {' + '.join(added)}"

    @property
    def level2(self) -> dict[str, str]:
        """Level 2 as formulas: ``{"Intercept": "sex", "time": "sex"}``."""
        return {term_name(k): _right_side(w) for k, w in zip(self.level1_terms, self.level2_terms, strict=True)}

    @property
    def random(self) -> list[Any]:
        """Names of the level-1 terms that vary by subject; lists of names, one for each block, if D has blocks."""
        if self.covariance != "blocks":
            return [term_name(t) for block in self.blocks for t in block.terms]
        groups = [[b.terms] if b.correlated else [(t,) for t in b.terms] for b in self.blocks]
        return [[term_name(t) for t in terms] for group in groups for terms in group]

    @property
    def formula(self) -> str:
        """The combined model as one formula: ``distance ~ 1 + sex + time + sex:time + (1 + time | subject)``."""
        subject = quoted(self.subject)
        subject = f"gr({subject}, by = {quoted(self.group)})" if self.group else subject
        return self._with_bars([(block, subject) for block in self.blocks])

    def _with_bars(self, bars: Sequence[tuple[RandomBlock, str]]) -> str:
        fixed = [join_terms(self.fixed_terms) if self.fixed_terms else "0"]
        fixed += [f"offset({o})" for o in self.offsets]
        random = [f"({join_terms(b.terms)} {'|' if b.correlated else '||'} {by})" for b, by in bars]
        return f"{self.response} ~ {' + '.join(fixed + random)}"


def hierarchy_from_levels(
    level1: str,
    level2: Mapping[str, str] | None,
    *,
    subject: str,
    random: str | Sequence[str | Sequence[str]] | None,
    covariance: str,
    group: str | None = None,
) -> Hierarchy:
    """Build a hierarchy from a level-1 formula and level-2 formulas.

    Parameters
    ----------
    level1 : str
        ``"distance ~ time"``.
    level2 : mapping of str to str, optional
        Right-hand sides by level-1 term, ``"1"`` where left out.
    random : sequence, optional
        Names of the level-1 terms that vary (all by default). A nested list makes blocks that do not correlate
        with each other: ``[["Intercept", "time"], ["dose"]]``.
    covariance : str
        One of `COVARIANCES`, or ``"blocks"``, which is what ``"unstructured"`` means for a nested list.
    group : str, optional
        Level-2 factor with a D of its own in each level.

    Raises
    ------
    FormulaError, SpecificationError
    """
    parsed = parse_formula(level1)
    if parsed.random:
        received = repr(level1)
        remedy = "name the coefficients that vary with random=[...], or use TwoLevelModel.from_formula"
        raise formula_error(received, "level 1 is the regression within a subject and holds no random effects", remedy)
    terms = parsed.fixed
    rhs = _level2_by_term(terms, {} if level2 is None else level2, level1)
    blocks = _blocks(terms, random, covariance, level1)
    refuse_response_as_subject(parsed.response, subject)
    return replace(_assemble(parsed, subject, terms, rhs, blocks, covariance, fixed_terms=None), group=group)


def hierarchy_from_terms(parsed: ParsedFormula, varying: frozenset[str], *, covariance: str | None = None) -> Hierarchy:
    """Build a hierarchy from a combined formula, given which factors vary within subjects.

    Parameters
    ----------
    parsed : ParsedFormula
        The combined formula, with at least one random-effects term.
    varying : frozenset of str
        Factor expressions that vary within at least one subject.
    covariance : str, optional
        Overrides the structure that the bars imply.
    """
    subjects = list(dict.fromkeys(r.subject for r in parsed.random))
    if len(subjects) > 1:
        reason = "a two-level model has one grouping; two of them are nested or crossed factors"
        remedy = "keep one of them, or use hl.MultilevelModel.from_formula(formula, data) with this formula"
        raise FormulaError(f"random effects for {' and '.join(subjects)}", reason, remedy, MULTILEVEL)
    blocks = random_blocks(parsed, covariance)
    refuse_level2_slopes(blocks, varying, subjects[0])
    terms, rhs = split_terms(parsed, varying, [t for b in blocks for t in b.terms])
    structure = covariance or ("unstructured" if len(blocks) == 1 and blocks[0].correlated else "blocks")
    return _assemble(parsed, subjects[0], terms, rhs, blocks, structure, fixed_terms=parsed.fixed)


def marginal_hierarchy(parsed: ParsedFormula, subject: str, varying: frozenset[str]) -> Hierarchy:
    """The fixed part of a formula without random effects, split by what varies within subjects."""
    return _assemble(parsed, subject, *split_terms(parsed, varying, []), (), "none", fixed_terms=parsed.fixed)


def split_terms(
    parsed: ParsedFormula, varying: frozenset[str], random_terms: list[Term]
) -> tuple[Terms, tuple[Terms, ...]]:
    """Level-1 terms, and what explains each of them."""
    split = [[tuple(f for f in t if (f in varying) == own) for own in (True, False)] for t in parsed.fixed]
    terms = tuple(sorted(dict.fromkeys([k for k, _ in split] + random_terms), key=len))
    return terms, tuple(tuple(w for k, w in split if k == term) for term in terms)


def random_blocks(parsed: ParsedFormula, covariance: str | None) -> tuple[RandomBlock, ...]:
    """Blocks that the bars of a formula imply, or that ``covariance`` imposes on them."""
    blocks = tuple(RandomBlock(r.terms, r.correlated) for r in parsed.random)
    if covariance is None:
        return blocks
    if covariance not in CORRELATED:
        return tuple(RandomBlock(b.terms, correlated=False) for b in blocks)
    return (RandomBlock(tuple(sorted((t for b in blocks for t in b.terms), key=len))),)


def _assemble(
    parsed: ParsedFormula,
    subject: str,
    level1: Terms,
    level2: tuple[Terms, ...],
    blocks: Blocks,
    covariance: str,
    *,
    fixed_terms: Terms | None,
) -> Hierarchy:
    refuse_repeated_effects(blocks)
    if fixed_terms is None:
        products = [tuple(dict.fromkeys(w + k)) for k, rhs in zip(level1, level2, strict=True) for w in rhs]
        fixed_terms = tuple(sorted(products, key=len))
    return Hierarchy(parsed.response, subject, level1, level2, blocks, covariance, parsed.offsets, fixed_terms)


def refuse_repeated_effects(blocks: Blocks) -> None:
    """Refuse a random effect that a grouping factor has twice.

    Raises
    ------
    FormulaError
    """
    seen = [t for b in blocks for t in b.terms]
    for term in seen:
        if seen.count(term) > 1:
            received = f"the random effect {term_name(term)!r}, twice"
            remedy = "name every random effect once; '(time | g)' includes the intercept, '(0 + time | g)' does not"
            raise formula_error(received, "its variance could not be told apart from that of its copy", remedy)


def _level2_by_term(terms: Terms, level2: Mapping[str, str], level1: str) -> tuple[Terms, ...]:
    if not isinstance(level2, Mapping):
        example = level2 if isinstance(level2, str) else "sex"
        reason = "level 2 needs one formula for each level-1 coefficient that it explains"
        remedy = f"write level2={{'Intercept': {example!r}}}, or name other level-1 terms as keys"
        raise specification_error(f"level2={level2!r}", reason, remedy)
    names = [term_name(t) for t in terms]
    canonical: dict[str, str] = {}
    for given, value in level2.items():
        key = _canonical(given, names)
        if key in canonical:
            remedy = "join them with '+' under one key ('1' and '(Intercept)' mean 'Intercept')"
            raise specification_error(f"level2 with two formulas for {key!r}", "only one of them could be used", remedy)
        if not isinstance(value, str):
            remedy = "write for example {'Intercept': 'sex', 'time': '1'}; '0' means nothing fixed"
            raise specification_error(f"level2[{given!r}] = {value!r}", "a level-2 formula is text", remedy)
        canonical[key] = value
    for key in canonical:
        if key not in names:
            received = f"level2 for {key!r}"
            reason = f"level 1 ({level1!r}) has no coefficient of this name.{closest(key, names)}"
            raise specification_error(received, reason, f"use one of {', '.join(names)}, or add {key!r} to level 1")
    rhs: list[tuple[Term, ...]] = []
    for name in names:
        value = canonical.get(name, "1").strip()
        check_text(value)
        if "~" in outline(value, value) or holds_bar(value, value):
            reason = "a level-2 formula is a right-hand side without '~' or '|'"
            raise formula_error(f"level2[{name!r}] = {value!r}", reason, "write for example {'Intercept': 'sex'}")
        rhs.append(parse_rhs(value))
    return tuple(rhs)


def _canonical(name: str, known: Sequence[str]) -> str:
    """Give a term its canonical spelling (``I(x**2)`` is ``I(x ** 2)``, ``1`` is ``Intercept``)."""
    for spelling in (str(name), quoted(str(name)), str(name).strip()):
        if spelling in known:
            return spelling
    name = str(name).strip()
    if name in ("1", "(Intercept)", "intercept"):
        return INTERCEPT
    try:
        terms = parse_rhs(f"0 + {name}")
    except FormulaError:
        return name
    return term_name(terms[0]) if len(terms) == 1 else name


def _blocks(terms: Terms, random: str | Sequence[str | Sequence[str]] | None, covariance: str, level1: str) -> Blocks:
    nested = random is not None and not isinstance(random, str) and any(not isinstance(c, str) for c in random)
    if covariance == "blocks" and nested:
        covariance = "unstructured"
    if covariance == "blocks":
        received = "covariance='blocks'"
        remedy = "write them as lists of names: random=[['Intercept', 'time'], ['dose']]"
        raise specification_error(received, "which random effects are correlated with each other is not said", remedy)
    if covariance not in COVARIANCES:
        received, remedy = f"covariance={covariance!r}", f"use one of {', '.join(map(repr, COVARIANCES))}"
        raise specification_error(received, f"this is not a structure of D.{closest(covariance, COVARIANCES)}", remedy)
    names = [term_name(t) for t in terms]
    chosen: Sequence[str | Sequence[str]] = names if random is None else [random] if isinstance(random, str) else random
    if len(chosen) == 0 or any(len(c) == 0 for c in chosen):
        reason = "a two-level model needs at least one coefficient that varies between subjects"
        remedy = "leave random out (all level-1 coefficients vary) or write random=['Intercept']"
        raise specification_error(f"random={random!r}", reason, remedy)
    groups = [[c] if isinstance(c, str) else list(c) for c in chosen] if nested else [[str(c) for c in chosen]]
    found = [sorted((_find(n, names, terms, level1) for n in g), key=len) for g in groups]
    if covariance == "unstructured":
        return tuple(RandomBlock(tuple(g)) for g in sorted(found, key=lambda g: len(g[0])))
    return (RandomBlock(tuple(sorted((t for g in found for t in g), key=len)), correlated=covariance in CORRELATED),)


def _find(name: str, names: list[str], terms: tuple[Term, ...], level1: str) -> Term:
    canonical = _canonical(name, names)
    if canonical not in names:
        reason = f"level 1 ({level1!r}) has no coefficient of this name.{closest(name, names)}"
        raise specification_error(f"random effect {name!r}", reason, f"use names of level-1 terms: {', '.join(names)}")
    return terms[names.index(canonical)]


def refuse_level2_slopes(blocks: tuple[RandomBlock, ...], varying: frozenset[str], subject: str) -> None:
    """Refuse random effects of what is constant within every group.

    Raises
    ------
    SpecificationError
    """
    for term in [t for block in blocks for t in block.terms]:
        for name in [f for f in term if f not in varying]:
            reason = f"{name!r} is constant within every {subject}: no {subject} shows its own effect of it"
            remedy = f"take {term_name(term)!r} out of the parenthesis and keep it as a fixed (level-2) term"
            raise specification_error(f"a random effect of {name!r} by {subject!r}", reason, remedy)


def _right_side(terms: Terms) -> str:
    """The terms as a formula in which an intercept that stands beside others is not written."""
    if () not in terms:
        return join_terms(terms)
    return " + ".join(term_name(t) for t in terms if t) or "1"
