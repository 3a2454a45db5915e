"""Several grouping factors: from a formula and a table to a design with a random term for each.

    V = Σ_k Z_k (I ⊗ D_k) Z_k' + σ² I,        k: batch, batch:cask, operator, ...

Groups are the values of a column, or the combinations of several. A factor is nested in another where each of its
groups lies in one of the other's, whatever the formula calls it; two of which neither is nested in the other are
crossed.
Rows share nothing, whatever D, where no chain of shared groups leads from one to the other: such *units* are the
subjects of the design. Where a coarsest factor holds all others they are its groups.

What belongs to D = diag(D_1, ..., D_K) is of ``design.term``, whose names have their factor: ``Intercept | batch``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import pairwise, permutations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from hierlmm.arrays import IntArray
from hierlmm.design.build import (
    Learnt,
    arrays_of,
    changes_within,
    check_unique,
    design_from_formula,
    learn_columns,
    level1_columns,
    split_parts,
)
from hierlmm.design.columns import Column
from hierlmm.design.design import Design
from hierlmm.design.formula import MULTILEVEL, Bar, ParsedFormula, quoted
from hierlmm.design.hierarchy import (
    Hierarchy,
    RandomBlock,
    refuse_level2_slopes,
    refuse_repeated_effects,
    split_terms,
)
from hierlmm.design.outcome import GAUSSIAN, Outcome, with_trials
from hierlmm.design.residual import INDEPENDENT
from hierlmm.design.rows import Grouping, RandomTerm, Said, group_by, known_groups, read_rows, with_levels
from hierlmm.design.terms import NewData, RandomColumns, Terms, parts_name
from hierlmm.errors import DataError, FormulaError
from hierlmm.frames import column_names, complete_rows, quote, require_columns, shorten, to_pandas
from hierlmm.groups import groups_above

UNIT = "unit"
"""Name of the units where no factor holds all others."""
ALL, POPULATION = WORDS = ("all", "population")
"""Levels at which a line has the random effects of all factors, or of none."""
OF_ROWS = ("poisson", "binomial")
"""Families whose rows have no variance of their own to be told apart from a random effect: it is overdispersion."""
data_error = partial(DataError, see=MULTILEVEL)


@dataclass(frozen=True, slots=True)
class FactorHierarchy(Hierarchy):
    """A model with several grouping factors, without its data; ``subject`` is what its independent units are called.

    Attributes
    ----------
    bars : tuple of Bar
        The random effects, those of a factor one after the other.
    """

    bars: tuple[Bar, ...] = ()

    @property
    def has_several_factors(self) -> bool:
        """Whether there are several grouping factors, not one whose groups are combinations."""
        return len({bar.subject for bar in self.bars}) > 1

    @property
    def subject_columns(self) -> tuple[str, ...]:
        """Columns of the data that say, together, who a row belongs to, where one factor has such groups."""
        return (self.subject,) if self.has_several_factors else self.bars[0].columns

    @property
    def formula(self) -> str:
        """The model as one formula: ``strength ~ 1 + (1 | batch) + (1 | batch:cask)``."""
        written = [(RandomBlock(bar.terms, bar.correlated), ":".join(map(quoted, bar.columns))) for bar in self.bars]
        return self._with_bars(written)


def design_from_factors(
    parsed: ParsedFormula, data: Any, *, outcome: Outcome = GAUSSIAN, missing: str = "raise"
) -> Design:
    """Build the design of a formula with any number of grouping factors; with one it is that of a two-level model.

    Raises
    ------
    FormulaError, SpecificationError, DataError
        If a factor has one group, or one for each row, or the groups of another, or a slope that it cannot show.
    """
    bars = {name: [bar for bar in parsed.random if bar.subject == name] for name in _names(parsed)}
    if len(bars) < 2:
        return _with_one_factor(parsed, data, outcome, missing)
    if any(bar.group is not None for bar in parsed.random):
        received, remedy = "gr(..., by = ...) beside several grouping factors", "leave by = out, or keep one factor"
        raise FormulaError(received, "a D of its own for each level is there for one factor only", remedy, MULTILEVEL)
    response, outcome = with_trials(parsed.response, outcome)
    parsed = replace(parsed, response=response, offsets=(*parsed.offsets, *outcome.offsets))
    blocks = {name: tuple(RandomBlock(bar.terms, bar.correlated) for bar in own) for name, own in bars.items()}
    columns = tuple(dict.fromkeys(c for bar in parsed.random for c in bar.columns))
    together = tuple(block for own in blocks.values() for block in own)
    for of_factor in blocks.values():
        refuse_repeated_effects(of_factor)
    said = Said(response, "", parsed.fixed, together, parsed.offsets, outcome=outcome, groupings=columns)
    read = read_rows(data, said, INDEPENDENT, missing)
    groups = [_grouping(read.frame, own[0]) for own in bars.values()]
    check_groups(groups, outcome)
    unit = units_of(groups)
    learnt = learn_columns(with_levels(data, said, read, unit), said)
    for group, (name, of_factor) in zip(groups, blocks.items(), strict=True):
        varying = frozenset(f for f, changed in changes_within(learnt.values, group).items() if np.any(changed))
        refuse_level2_slopes(of_factor, varying, name)
    level1, level2 = split_terms(parsed, learnt.varying, [t for block in together for t in block.terms])
    hierarchy = FactorHierarchy(
        parsed.response,
        str(unit.labels.name),
        level1,
        level2,
        (),
        "blocks",
        parsed.offsets,
        parsed.fixed,
        bars=parsed.random,
    )
    return _assemble(hierarchy, learnt, groups, list(blocks.values()), outcome)


def _with_one_factor(parsed: ParsedFormula, data: Any, outcome: Outcome, missing: str) -> Design:
    """The design of a two-level model, whose formula names the columns of its groups."""
    own = parsed.random[0] if parsed.random else None
    data = _with_column(data, own) if own else data
    design = design_from_formula(parsed, data, outcome=outcome, missing=missing)
    if own is None or not own.combined:
        return design
    kept = slice(None) if design.rows.kept is None else design.rows.kept  # predictions look at the columns themselves
    parts = {c: data[c].iloc[kept].to_numpy() for c in own.columns if c not in design.frame}
    design = replace(design, rows=replace(design.rows, frame=design.frame.assign(**parts)))
    known = {f.name: getattr(design.hierarchy, f.name) for f in fields(Hierarchy)}
    said = FactorHierarchy(**known, bars=parsed.random)
    return replace(design, terms=replace(design.terms, hierarchy=said))


def _names(parsed: ParsedFormula) -> list[str]:
    return list(dict.fromkeys(bar.subject for bar in parsed.random))


def _assemble(
    hierarchy: FactorHierarchy,
    learnt: Learnt,
    groups: Sequence[Grouping],
    blocks: Sequence[tuple[RandomBlock, ...]],
    outcome: Outcome,
) -> Design:
    fixed, left = learnt.columns[0], iter(learnt.columns[1:])
    columns = [[next(left) for _ in own] for own in blocks]
    split = [split_parts(c.parts, learnt.varying) for c in fixed]
    in_fixed = [within for within, _ in split]
    in_random = [c.parts for own in columns for block in own for c in block]
    level1 = level1_columns(hierarchy, fixed, in_fixed, in_random)
    at = {parts: k for k, parts in enumerate(level1)}
    random = tuple(
        _random_columns(str(group.labels.name), said, own, at)
        for group, said, own in zip(groups, blocks, columns, strict=True)
    )
    terms = Terms(
        hierarchy=hierarchy,
        levels=learnt.rows.levels,
        factors=learnt.factors,
        fixed=tuple(fixed),
        level1_columns=tuple(level1),
        coef_level1=np.array([at[parts] for parts in in_fixed], dtype=np.intp),
        random=random,
        dtypes=dict(learnt.rows.frame.dtypes),
    )
    rows = arrays_of(terms, learnt, [between for _, between in split], outcome)
    effects = [RandomTerm(own, group, rows.X1[:, own.columns]) for own, group in zip(random, groups, strict=True)]
    return Design(terms, rows, tuple(effects), outcome=outcome)


def _random_columns(
    name: str, blocks: tuple[RandomBlock, ...], columns: list[list[Column]], at: dict[Any, int]
) -> RandomColumns:
    """What varies by one factor: the columns of its blocks one after the other."""
    parts = [c.parts for block in columns for c in block]
    names = tuple(parts_name(own) for own in parts)
    check_unique(names)
    ends = np.cumsum([0, *map(len, columns)]).tolist()
    positions: list[tuple[int, ...]] = []
    for block, (start, end) in zip(blocks, pairwise(ends), strict=True):
        own = tuple(range(start, end))
        positions += [own] if block.correlated else [(m,) for m in own]
    structure = "unstructured" if len(positions) == 1 else "blocks"
    structure = "diagonal" if len(names) > 1 and all(len(p) == 1 for p in positions) else structure
    return RandomColumns(name, np.array([at[own] for own in parts], dtype=np.intp), names, tuple(positions), structure)


def _grouping(frame: pd.DataFrame, bar: Bar) -> Grouping:
    """Groups of the rows: values of a column, or combinations of values, labelled ``A:a`` in the order of their parts.

    Raises
    ------
    DataError
        If two combinations would have one label.
    """
    parts = [group_by(frame[name]) for name in bar.columns]
    if len(parts) == 1:
        return parts[0]
    shape = [len(part.labels) for part in parts]
    present, index = np.unique(np.ravel_multi_index([part.index for part in parts], shape), return_inverse=True)
    own = [part.labels[at].astype(str) for part, at in zip(parts, np.unravel_index(present, shape), strict=True)]
    labels = pd.Index([":".join(values) for values in zip(*own, strict=True)], name=bar.subject)
    if not labels.is_unique:
        twice = labels[labels.duplicated()][0]
        reason = f"two different combinations would both be called {twice!r}"
        remedy = "take ':' out of the labels, for example data[name].str.replace(':', '.')"
        raise data_error(f"groups of {bar.subject!r} with ':' in their labels", reason, remedy)
    return Grouping(index.astype(np.intp), labels)


def _with_column(data: Any, bar: Bar) -> Any:
    """The table with a column of the combinations, where the one grouping factor is not a column already."""
    if not bar.combined:
        return data
    require_columns(bar.columns, column_names(data), "grouping factor")
    frame = to_pandas(data)
    known = frame[list(bar.columns)].notna().all(axis=1).to_numpy()
    group = _grouping(frame.loc[known], bar)
    codes = np.full(len(frame), -1)
    codes[known] = group.index
    column = pd.Categorical.from_codes(codes, categories=group.labels)
    frame = frame.assign(**{bar.subject: column})
    frame.attrs = dict(getattr(data, "attrs", {}))
    return frame


def check_groups(groups: Sequence[Grouping], outcome: Outcome = GAUSSIAN) -> None:
    """Refuse factors that cannot be told apart from the intercept, the residual or each other.

    Raises
    ------
    DataError
    """
    for group in groups:
        name, J, N = group.labels.name, len(group.labels), len(group.index)
        if name in WORDS:
            reason = "predictions and fitted values ask for a level by this word"
            remedy = f"rename the column: data.rename(columns={{{name!r}: '{name}_'}})"
            raise data_error(f"a grouping factor called {name!r}", reason, remedy)
        if J < 2:
            reason = "variation between groups cannot be seen in one group"
            remedy = "leave its random effects out, or check the filters applied to the data"
            raise data_error(f"the grouping factor {name!r} with one group ({quote(group.labels[0])})", reason, remedy)
        if J == N and outcome.family.name not in OF_ROWS:
            reason = "every row is a group of its own, so that its random effect is the residual"
            remedy = f"leave {name!r} out of the formula: sigma is the SD of what single rows have of their own"
            if not outcome.is_gaussian:
                reason = f"every row is a group of its own, and a {outcome.family.title} response says nothing of it"
                remedy = f"leave {name!r} out of the formula"
            raise data_error(f"the grouping factor {name!r} with as many groups as rows ({N})", reason, remedy)
    for k, first in enumerate(groups):
        for second in groups[k + 1 :]:
            if lies_in(first, second) and lies_in(second, first):
                names = f"{first.labels.name!r} and {second.labels.name!r}"
                reason = "both divide the rows into the same groups, so that their variances cannot be told apart"
                raise data_error(f"the grouping factors {names}", reason, "keep one of them")


def lies_in(fine: Grouping, coarse: Grouping) -> bool:
    """Whether each group of a factor lies in one group of another."""
    return groups_above(fine.index, coarse.index, len(fine.labels)) is not None


def units_of(groups: Sequence[Grouping]) -> Grouping:
    """Rows that share groups, directly or through others: a coarsest factor, else numbered units."""
    sizes = [len(group.labels) for group in groups]
    starts = np.cumsum([0, *sizes[:-1]])
    nodes = [start + group.index for start, group in zip(starts, groups, strict=True)]
    first = np.tile(nodes[0], len(groups) - 1)
    edges = coo_array((np.ones(len(first), dtype=bool), (first, np.concatenate(nodes[1:]))), shape=(sum(sizes),) * 2)
    n_units, of_node = connected_components(edges, directed=False)
    for group in groups:
        if len(group.labels) == n_units:
            return group
    index = of_node[nodes[0]].astype(np.intp)
    return Grouping(index, pd.Index(np.arange(1, n_units + 1), name=UNIT))


def coarser(design: Design, name: str) -> list[str]:
    """Factors that a factor is nested in, the finest first."""
    groups = {own.columns.group: own.group for own in design.random}
    above = [other for other in groups if other != name and lies_in(groups[name], groups[other])]
    return sorted(above, key=lambda other: -len(groups[other].labels))


def finest_first(design: Design) -> dict[str, int]:
    """Grouping factors and their numbers of groups, those with the most groups first."""
    sizes = {own.columns.group: len(own.group.labels) for own in design.random}
    return dict(sorted(sizes.items(), key=lambda own: -own[1]))


def own_part(design: Design, k: int) -> tuple[slice, slice]:
    """Where D = diag(D_1, ..., D_K) holds the covariance of factor k."""
    ends = np.cumsum([0, *(len(own.columns.names) for own in design.random)]).tolist()
    return (slice(ends[k], ends[k + 1]),) * 2


def factors_at(design: Design, level: Any) -> list[int]:
    """Positions of the factors whose random effects are part of a line at a level.

    Parameters
    ----------
    design : Design
    level : str
        ``"all"``, ``"population"`` for none, or a factor: itself and those that it is nested in.

    Raises
    ------
    DataError
        If it is none of these.
    """
    names = [own.columns.group for own in design.random]
    if level in WORDS:
        return list(range(len(names))) if level == ALL else []
    if level not in names:
        remedy = f"use {ALL!r}, {POPULATION!r} or one of {', '.join(map(quote, names))}"
        raise data_error(f"level={shorten([quote(level)])}", "there is no such level, and no such factor", remedy)
    return [names.index(name) for name in (level, *coarser(design, level))]


def unknown_factor(name: Any, names: Sequence[str]) -> DataError:
    """The refusal of a name that is no grouping factor of the model, or of none at all."""
    remedy = f"use one of {', '.join(map(quote, names))}"
    if name is None:
        return data_error("no grouping factor", "the model has several", remedy)
    return data_error(f"{shorten([quote(name)])} as a grouping factor", "the model has none of this name", remedy)


class NewGroups(NamedTuple):
    """Groups of new rows: labels, and positions among those that were fitted, -1 for a new group."""

    labels: pd.Index
    at: IntArray


def new_rows(design: Design, data: Any, factors: Sequence[int]) -> tuple[NewData, list[NewGroups]]:
    """Evaluate the columns of a design on new rows, and find their groups of some factors.

    Raises
    ------
    DataError
        If a column is absent, a factor level is new, or a value is missing.
    """
    columns = [columns_of(design, k) for k in factors]
    present, by = column_names(data), list(dict.fromkeys(name for own in columns for name in own))
    require_columns(design.terms.variables, present, "new data without the column", add=True)
    require_columns(by, present, "new data without the grouping column", add=True)
    wanted = list(dict.fromkeys([*design.terms.variables, *by]))
    frame, _ = complete_rows(to_pandas(data, wanted), "raise", new=True)
    return design.terms.apply(frame), [_known(design, k, frame, own) for k, own in zip(factors, columns, strict=True)]


def columns_of(design: Design, k: int) -> tuple[str, ...]:
    """Columns of the data that say which group of factor k a row is in."""
    return _bars(design)[design.random[k].columns.group].columns


def _bars(design: Design) -> dict[str, Bar]:
    """What the formula says of each grouping factor (the last of its bars)."""
    assert isinstance(design.hierarchy, FactorHierarchy)
    return {bar.subject: bar for bar in design.hierarchy.bars}


def _known(design: Design, k: int, frame: pd.DataFrame, columns: tuple[str, ...]) -> NewGroups:
    return NewGroups(*known_groups(design.random[k].group.labels, design.frame, frame, columns))


def relations(design: Design) -> list[str]:
    """What is nested in what, and what is crossed, in words."""
    found, groups = [], [own.group for own in design.random]
    for group in groups:
        above = coarser(design, str(group.labels.name))
        if above:
            found.append(f"{group.labels.name} is nested in {' and in '.join(above)}")
    for k, first in enumerate(groups):
        for second in groups[k + 1 :]:
            if not lies_in(first, second) and not lies_in(second, first):
                pairs = len(np.unique(first.index * len(second.labels) + second.index))
                of = len(first.labels) * len(second.labels)
                share = f"all {of}" if pairs == of else f"{pairs} of {of}"
                found.append(f"{first.labels.name} and {second.labels.name} are crossed: {share} combinations occur")
    return found


def reused_labels(design: Design) -> list[str]:
    """Say where labels look like numbers that start anew in every group of another factor: nested, but not written so.

    They do where every group has the first few labels, and groups have different numbers of them.
    """
    found: list[str] = []
    if not design.has_several_factors:
        return found
    bars = _bars(design)
    plain = [own.group for own in design.random if not bars[own.columns.group].combined]
    for inner, outer in permutations(plain, 2):
        if lies_in(inner, outer) or lies_in(outer, inner):
            continue
        if (n := starts_anew(inner, outer)) is not None and np.ptp(n) > 0:
            one, other = inner.labels.name, outer.labels.name
            labels = shorten(map(str, in_natural_order(inner.labels)), 4)
            found.append(
                f"Every {other} has the first {n.min()} to {n.max()} of the labels of {one} ({labels}), as if they "
                f"started anew in each. They are taken as crossed, as the formula says; write (1 | {other} / {one}) if "
                f"each belongs to its {other} alone."
            )
    return found


def starts_anew(inner: Grouping, outer: Grouping) -> IntArray | None:
    """How many labels of a factor each group of another has, where they are the first so many of all; else None."""
    order = in_natural_order(inner.labels)
    present = np.zeros((len(outer.labels), len(inner.labels)), dtype=bool)
    present[outer.index, order.get_indexer(inner.labels)[inner.index]] = True
    n = present.sum(axis=1)
    return n if np.all(present == (np.arange(len(order)) < n[:, None])) else None


def in_natural_order(labels: pd.Index) -> pd.Index:
    """Labels in their order, numbers in text as numbers."""
    numbers = pd.to_numeric(pd.Series(labels.astype(str)), errors="coerce")
    return labels[np.argsort(numbers.to_numpy(), kind="stable")] if numbers.notna().all() else labels
