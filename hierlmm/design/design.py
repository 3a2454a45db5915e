"""The design of a two-level model: response, matrices, subject index and names, and the same for new data.

``X[:, c] = X1[:, coef_level1[c]] * W[subject_index, c]``: every column of the combined model is a level-1 column times
a level-2 value. ``Z`` holds the level-1 columns that vary by subject; it is (N, q), never expanded to J*q columns.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.covariance.pair import UnstructuredHeterogeneous
from hierlmm.covariance.random import SPECTRAL
from hierlmm.covariance.residual import ResidualCorrelation
from hierlmm.covariance.variance import VarianceFunction
from hierlmm.design.columns import (
    Column,
    FactorColumns,
    Levels,
    as_fitted_truth_values,
    evaluate_factors,
    evaluate_vector,
    learn_levels,
)
from hierlmm.design.constant import constant_combination
from hierlmm.design.formula import (
    INTERCEPT,
    ParsedFormula,
    Term,
    refuse_response_as_subject,
    term_name,
    unquoted,
    variables_of,
)
from hierlmm.design.hierarchy import Hierarchy, RandomBlock, hierarchy_from_terms, marginal_hierarchy, random_blocks
from hierlmm.errors import DataError, FormulaError, SpecificationError
from hierlmm.frames import column_names, complete_rows, quote, require_columns, shorten, to_pandas
from hierlmm.groups import first_rows

__all__ = [
    "Design",
    "NewData",
    "Prepared",
    "Residual",
    "design_from_fixed",
    "design_from_formula",
    "design_from_hierarchy",
    "design_of",
    "level2_prediction",
    "make_residual",
]

FloatArray = NDArray[np.float64]
SEE = "docs, page 'Formulas and levels'"
ARRAYS = ("y", "offset", "X", "Z", "X1", "W", "subject_index", "coef_level1", "term_level1")


@dataclass(frozen=True)
class Residual:
    """What was said about the level-1 residuals: their correlation within a subject and their variance.

    Attributes
    ----------
    correlation : ResidualCorrelation or None
        None: independent.
    variance : VarianceFunction or None
        None: equal.
    """

    correlation: ResidualCorrelation | None = None
    variance: VarianceFunction | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the data that the structures look at."""
        found = (
            self.correlation.time if self.correlation else None,
            self.variance.variable if self.variance else None,
        )
        return tuple(dict.fromkeys(c for c in found if c is not None))


INDEPENDENT = Residual()


def make_residual(correlation: Any, variance: Any) -> Residual:
    """Check what was given for the residual structure.

    Raises
    ------
    SpecificationError
        If it is of another kind, each is in the place of the other, or one name stands for both and there is another.
    """
    see = "docs, page 'Residual structures'"
    if isinstance(correlation, UnstructuredHeterogeneous):
        if variance is not None:
            raise SpecificationError(
                f"{correlation!r} and {variance!r}",
                "the first is a correlation and a variance function in one, so that the variance is said twice",
                f"leave the second out, or write {correlation.correlation!r} for the correlation alone",
                see,
            )
        correlation, variance = correlation.correlation, correlation.variance
    for name, value, kind, example in (
        ("correlation", correlation, ResidualCorrelation, "hl.AR1() or hl.Exponential('time')"),
        ("variance", variance, VarianceFunction, "hl.VarIdent('sex') or hl.VarPower('time')"),
    ):
        if value is not None and not isinstance(value, kind):
            what = f"{value!r} for the residual {name}"
            if isinstance(value, type):
                raise SpecificationError(
                    what, "a class was given, not a structure", f"write {value.__name__}(...)", see
                )
            raise SpecificationError(what, f"it is no residual {name}", f"use for example {example}", see)
    return Residual(correlation, variance)


@dataclass(frozen=True)
class Prepared:
    """Complete rows of the columns a model needs, and who each row belongs to."""

    frame: pd.DataFrame
    subject_index: NDArray[np.intp]
    subjects: pd.Index
    levels: Levels
    n_dropped: int


@dataclass(frozen=True)
class NewData:
    """Design matrices of new rows; ``subject_index`` is -1 for a subject that was not in the fitted data."""

    frame: pd.DataFrame
    X: FloatArray
    Z: FloatArray
    X1: FloatArray
    offset: FloatArray
    subject_index: NDArray[np.intp] | None


@dataclass(frozen=True)
class Design:
    """Arrays and names of a two-level model. The arrays are read-only: fits share them.

    Attributes
    ----------
    y, offset : (N,)
        Response and offset, in the order of the rows.
    X : (N, p)
        Combined fixed-effects design, columns ``coef``.
    Z : (N, q)
        Random-effects design, columns ``term``.
    X1 : (N, k)
        Level-1 design, columns ``level1``.
    W : (J, p)
        Level-2 values: the multiplier of each fixed coefficient in its subject's level-1 coefficient.
    coef_level1 : (p,), term_level1 : (q,)
        Which level-1 column each fixed coefficient and each random effect belongs to.
    blocks : tuple of tuple of int
        Positions in ``term`` that may correlate.
    subject_index : (N,)
        Position of the row's subject in ``subjects``.
    residual, residual_variance
        Structures of the level-1 residuals; None for independent ones of equal variance.
    variance_fitted : (N,), optional
        Fitted values that a variance function without a covariate depends on.
    """

    hierarchy: Hierarchy
    frame: pd.DataFrame
    y: FloatArray
    offset: FloatArray
    X: FloatArray
    Z: FloatArray
    X1: FloatArray
    W: FloatArray
    coef: tuple[str, ...]
    term: tuple[str, ...]
    level1: tuple[str, ...]
    coef_level1: NDArray[np.intp]
    term_level1: NDArray[np.intp]
    blocks: tuple[tuple[int, ...], ...]
    covariance: str
    subject_index: NDArray[np.intp]
    subjects: pd.Index
    n_dropped: int
    levels: Levels
    factors: FactorColumns
    fixed_columns: tuple[Column, ...]
    level1_columns: tuple[tuple[tuple[str, str], ...], ...]
    residual: ResidualCorrelation | None = None
    residual_variance: VarianceFunction | None = None
    variance_fitted: FloatArray | None = None

    def __post_init__(self) -> None:
        for name in ARRAYS:
            object.__setattr__(self, name, _read_only(getattr(self, name)))

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)  # copies and pickles of an array are writable again
        self.__post_init__()

    @property
    def n_obs(self) -> int:
        """Number of rows, N."""
        return len(self.y)

    @property
    def n_subjects(self) -> int:
        """Number of subjects, J."""
        return len(self.subjects)

    @property
    def rows_per_subject(self) -> NDArray[np.intp]:
        """Rows of each subject, (J,)."""
        return np.bincount(self.subject_index, minlength=self.n_subjects)

    @property
    def intercept(self) -> int | None:
        """Position of the fixed intercept among ``coef``, or None."""
        return self.coef.index(INTERCEPT) if INTERCEPT in self.coef else None

    @cached_property
    def constant(self) -> FloatArray | None:
        """Coefficients e (p,) with ``X e = 1`` (with an intercept its unit vector); None if there are none."""
        if self.intercept is None:
            return constant_combination(self.X)
        return np.eye(len(self.coef))[self.intercept]

    @property
    def has_residual_structure(self) -> bool:
        """Whether the level-1 residuals are correlated or of unequal variance."""
        return self.residual is not None or self.residual_variance is not None

    @property
    def residual_columns(self) -> tuple[str, ...]:
        """Columns of the data that the residual structure looks at."""
        return Residual(self.residual, self.residual_variance).columns

    @property
    def n_random_parameters(self) -> int:
        """Number of parameters of D."""
        if self.covariance in SPECTRAL:
            return 1 if self.covariance == "identity" else 2
        return sum(len(b) * (len(b) + 1) // 2 for b in self.blocks)

    @property
    def variance_covariate(self) -> pd.Series:
        """What the variance function depends on, (N,): its column, or the fitted values (of least squares at first)."""
        assert self.residual_variance is not None
        name = self.residual_variance.variable
        if name is not None:
            return self.frame[name]
        values = self.variance_fitted
        if values is None:
            values = self.offset + self.X @ np.linalg.lstsq(self.X, self.y - self.offset, rcond=None)[0]
        return pd.Series(values, index=self.frame.index, name="fitted value")

    def level2_variables(self) -> list[str]:
        """Columns of the data that explain level-1 coefficients (constant within every subject)."""
        level2 = {f for terms in self.hierarchy.level2_terms for term in terms for f in term}
        found = [v for f in sorted(level2) for v in variables_of(f, list(self.frame.columns))]
        return list(dict.fromkeys(found))

    def level1_variables(self) -> list[str]:
        """Columns of the data that vary within subjects, in the order of level 1."""
        factors = [f for term in self.hierarchy.level1_terms for f in term]
        found = [v for f in factors for v in variables_of(f, list(self.frame.columns))]
        return list(dict.fromkeys(found))

    def position(self, subject: Any) -> int:
        """Position of a subject's label in ``subjects``.

        Raises
        ------
        DataError
            If it is not there.
        """
        at = self.subjects.get_indexer(pd.Index([subject]))[0] if isinstance(subject, Hashable) else -1
        if at < 0:
            raise DataError(
                f"subject {shorten([quote(subject)])}",
                "it is not in the fitted data",
                f"use a label of fit.design.subjects: {shorten(map(quote, self.subjects), 4)}",
            )
        return int(at)

    def with_response(self, y: FloatArray) -> Design:
        """Return the same design with another response (simulation, bootstrap)."""
        return replace(self, y=np.array(y, dtype=np.float64))

    def new(self, data: Any, *, need_subject: bool) -> NewData:
        """Evaluate the same columns on new rows.

        Parameters
        ----------
        data : table
            New rows; the response is not needed.
        need_subject : bool
            Whether the subject column must be there.

        Raises
        ------
        DataError
            If a column is absent, a factor level is new, or a value is missing.
        """
        present = column_names(data)
        needed = _variables([c.term for c in self.fixed_columns], self.hierarchy.offsets, list(self.frame.columns))
        needed += [v for v in self.level1_variables() if v not in needed]
        require_columns(needed, present, "new data without the column", add=True)
        subject = self.hierarchy.subject
        if need_subject:
            require_columns([subject], present, "new data without the subject column", add=True)
        keep = needed + ([subject] if subject in present and subject not in needed else [])
        keep += [c for c in self.residual_columns if c in present and c not in keep]
        frame, _ = complete_rows(to_pandas(data, keep), "raise", new=True)
        frame = as_fitted_truth_values(frame, self.frame)
        coded = self.levels.apply(frame)
        values = self.factors.values(coded[needed])  # a new subject may have a label of another type
        for (factor, name), column in values.items():
            _check_finite(column, name, factor, frame)
        n = len(frame)
        X1 = np.column_stack([_product(values, parts, n) for parts in self.level1_columns])
        X = (
            np.column_stack([_product(values, c.parts, n) for c in self.fixed_columns])
            if self.coef
            else np.empty((n, 0))
        )
        offset = sum((evaluate_vector(o, coded, "offset") for o in self.hierarchy.offsets), np.zeros(n))
        index = self.subjects.get_indexer(pd.Index(frame[subject].to_numpy())) if subject in frame.columns else None
        return NewData(frame, X, X1[:, self.term_level1], X1, offset, index)


def design_of(model: Any, what: str) -> Design:
    """Return the design of a model that was passed to a function.

    Raises
    ------
    SpecificationError
        If it is no model.
    """
    design = getattr(model, "design", None)
    if not isinstance(design, Design) or not hasattr(model, "priors"):
        raise SpecificationError(
            f"a {type(model).__name__} for {what}",
            "it needs a model, with its data",
            f"pass a model, {what}(hl.TwoLevelModel(...), ...)",
            SEE,
        )
    return design


def _read_only[A: NDArray[Any]](values: A) -> A:
    """The array itself, read-only from now on, or a read-only copy of an array that is a view of another."""
    if values.base is not None and values.flags.writeable:
        values = values.copy()
    values.flags.writeable = False
    return values


def level2_prediction(design: Design, beta: FloatArray) -> FloatArray:
    """What level 2 predicts for each subject's level-1 coefficients at b = 0.

    Parameters
    ----------
    design : Design
    beta : (..., p)
        One vector or a stack of draws.

    Returns
    -------
    (..., J, k)
    """
    selector = np.zeros((len(design.coef), len(design.level1)))
    selector[np.arange(len(design.coef)), design.coef_level1] = 1.0
    return np.einsum("jp,...p,pk->...jk", design.W, beta, selector, optimize=True)


def design_from_formula(
    parsed: ParsedFormula,
    data: Any,
    *,
    covariance: str | None = None,
    residual: Residual = INDEPENDENT,
    missing: str = "raise",
) -> Design:
    """Read the levels of the covariates off the data and build the design of a combined formula."""
    if not parsed.random:
        raise FormulaError(
            f"'{parsed.response} ~ {' + '.join(map(term_name, parsed.fixed))}'",
            "the formula has no random effects, so nothing varies between subjects",
            "add them, for example '+ (1 | subject)'; for a model without random effects use hl.MarginalModel",
            SEE,
        )
    subject = parsed.random[0].subject
    blocks = random_blocks(parsed, covariance)
    prepared = _prepare(data, parsed.response, subject, parsed.fixed, blocks, parsed.offsets, missing, residual)
    columns, factors, values = _evaluate(prepared, parsed.fixed, blocks)
    hierarchy = hierarchy_from_terms(parsed, _varying(values, prepared), covariance=covariance)
    return _assemble(hierarchy, prepared, columns, factors, values, residual)


def design_from_fixed(
    parsed: ParsedFormula, subject: str, data: Any, *, residual: Residual = INDEPENDENT, missing: str = "raise"
) -> Design:
    """Build the design of a marginal model: fixed effects, and rows that belong to subjects, without random effects."""
    if parsed.random:
        raise FormulaError(
            f"{term_name(parsed.random[0].terms[0])!r} in a bar of the formula of a marginal model",
            "a marginal model has no random effects: what rows of a subject share is said by its correlation",
            "leave the parenthesis out and choose correlation=..., or use hl.TwoLevelModel.from_formula",
            SEE,
        )
    refuse_response_as_subject(parsed.response, subject)
    prepared = _prepare(data, parsed.response, subject, parsed.fixed, (), parsed.offsets, missing, residual)
    columns, factors, values = _evaluate(prepared, parsed.fixed, ())
    hierarchy = marginal_hierarchy(parsed, subject, _varying(values, prepared))
    return _assemble(hierarchy, prepared, columns, factors, values, residual)


def design_from_hierarchy(
    hierarchy: Hierarchy, data: Any, *, residual: Residual = INDEPENDENT, missing: str = "raise"
) -> Design:
    """Build the design of a stated hierarchy, after checking that every covariate lives on the level it was put on.

    Raises
    ------
    SpecificationError
        If a level-2 covariate varies within a subject (it is named), or a level-1 covariate varies within none.
    """
    prepared = _prepare(
        data,
        hierarchy.response,
        hierarchy.subject,
        hierarchy.fixed_terms + hierarchy.level1_terms,
        hierarchy.blocks,
        hierarchy.offsets,
        missing,
        residual,
    )
    columns, factors, values = _evaluate(prepared, hierarchy.fixed_terms, hierarchy.blocks)
    _check_levels(hierarchy, prepared, values)
    _check_margins(hierarchy, columns[0], _varying(values, prepared))
    return _assemble(hierarchy, prepared, columns, factors, values, residual)


def _prepare(
    data: Any,
    response: str,
    subject: str,
    terms: tuple[Term, ...],
    blocks: tuple[RandomBlock, ...],
    offsets: tuple[str, ...],
    missing: str,
    residual: Residual,
) -> Prepared:
    present = column_names(data)
    require_columns([subject], present, "subject")
    require_columns(list(residual.columns), present, "residual structure")
    if response.isidentifier() or response.startswith("`"):
        require_columns([unquoted(response)], present, "response")
    covariates = _variables([*terms, *(t for b in blocks for t in b.terms)], offsets, present)
    if INTERCEPT in covariates:
        raise DataError(
            f"a column named {INTERCEPT!r} in the formula",
            "the name is reserved for the constant",
            "rename the column",
            SEE,
        )
    responses = list(variables_of(response, present))
    overlap = [v for v in covariates if v in responses]
    if overlap:
        raise FormulaError(
            f"{overlap[0]!r} on both sides of the formula",
            "a response cannot explain itself",
            "remove it from the right-hand side; for the previous measurement make a lagged column",
            SEE,
        )
    if any(c in responses for c in residual.columns):
        raise SpecificationError(
            f"the response {responses[0]!r} in a residual structure",
            "the covariance of the response cannot depend on the response",
            "name another column; a variance that grows with the level is VarPower() of the fitted value",
            "docs, page 'Residual structures'",
        )
    wanted = list(dict.fromkeys([*responses, subject, *covariates, *residual.columns]))
    frame = to_pandas(data, wanted)
    if len(frame) == 0:
        raise DataError("a table without rows", "there is nothing to fit", "check the filters applied to the data")
    frame, n_dropped = complete_rows(frame, missing, subject)
    codes, subjects = _factorise(frame[subject])
    _check_replication(codes, subjects, slopes=any(t for b in blocks for t in b.terms), marginal=not blocks)
    levels = learn_levels(frame, covariates, [f for t in [*terms, *(t for b in blocks for t in b.terms)] for f in t])
    return Prepared(levels.apply(frame), codes, subjects, levels, n_dropped)


def _factorise(column: pd.Series) -> tuple[NDArray[np.intp], pd.Index]:
    """Number the subjects in the order of their labels (of their categories, where there are any)."""
    labels = column.cat.categories.to_series() if isinstance(column.dtype, pd.CategoricalDtype) else column
    kind = pd.api.types.infer_dtype(labels, skipna=True)
    if kind not in ("string", "integer", "floating", "boolean", "datetime64", "datetime", "empty"):
        types = sorted({type(v).__name__ for v in column})
        raise DataError(
            f"a subject column {column.name!r} with labels of type {', '.join(types)}",
            "labels are text, numbers or time stamps of one type (1 and '1' could mean one subject or two)",
            f"make them text: data[{column.name!r}] = data[{column.name!r}].astype(str)",
            SEE,
        )
    codes, subjects = pd.factorize(column, sort=True)
    plain = np.asarray(subjects) if isinstance(column.dtype, pd.CategoricalDtype) else subjects
    return codes.astype(np.intp), pd.Index(plain, name=column.name)


def _check_replication(codes: NDArray[np.intp], subjects: pd.Index, *, slopes: bool, marginal: bool) -> None:
    """Refuse data without two subjects, or without two rows in any subject (before levels are read off them)."""
    J, subject = len(subjects), subjects.name
    if J < 2:
        raise DataError(
            f"{J} {subject}",
            "variation between subjects cannot be seen in one subject",
            f"check that {subject!r} is the grouping column; for one subject use ordinary regression",
            "docs, page 'Errors'",
        )
    if len(codes) == J:
        what = "a random slope" if slopes else "the random effect"
        raise DataError(
            f"one row for each of the {J} values of {subject!r}",
            f"no {subject} is measured twice, so no two rows are correlated"
            if marginal
            else f"{what} cannot be told apart from the residual when no {subject} is measured twice",
            f"check that {subject!r} is the grouping column and that the data are in long format (hl.to_long), "
            "or use ordinary regression",
            "docs, page 'Errors'",
        )


def _variables(terms: list[Term], offsets: tuple[str, ...], present: list[str]) -> list[str]:
    expressions = list(dict.fromkeys([f for term in terms for f in term] + list(offsets)))
    return list(dict.fromkeys(v for e in expressions for v in variables_of(e, present)))


def _evaluate(
    prepared: Prepared, fixed: tuple[Term, ...], blocks: tuple[RandomBlock, ...]
) -> tuple[list[list[Column]], FactorColumns, dict[tuple[str, str], FloatArray]]:
    columns, factors, values = evaluate_factors([fixed, *(b.terms for b in blocks)], prepared.frame)
    for (factor, name), column in values.items():
        _check_finite(column, name, factor, prepared.frame)
    return columns, factors, values


def _check_finite(column: FloatArray, name: str, source: str, frame: pd.DataFrame) -> None:
    bad = np.flatnonzero(~np.isfinite(column))
    if bad.size:
        raise DataError(
            f"{name!r} with {bad.size} infinite or undefined values, first in row {quote(frame.index[bad[0]])}",
            f"{source!r} has no finite value there (division by zero, or the log of zero?)",
            "correct or drop these rows, or use another transformation",
        )


def _varying(values: dict[tuple[str, str], FloatArray], prepared: Prepared) -> frozenset[str]:
    """Factors whose value changes within at least one subject."""
    first = _first_rows(prepared)[prepared.subject_index]
    return frozenset(factor for (factor, _), column in values.items() if np.any(column != column[first]))


def _first_rows(prepared: Prepared) -> NDArray[np.intp]:
    return first_rows(prepared.subject_index, len(prepared.subjects))


def _check_levels(hierarchy: Hierarchy, prepared: Prepared, values: dict[tuple[str, str], FloatArray]) -> None:
    varying = _varying(values, prepared)
    for key, terms in zip(hierarchy.level1_terms, hierarchy.level2_terms, strict=True):
        for factor in [f for term in terms for f in term if f in varying]:
            first = _first_rows(prepared)[prepared.subject_index]
            changes = np.any([v != v[first] for (f, _), v in values.items() if f == factor], axis=0)
            rows = np.flatnonzero(changes)
            culprit = prepared.subject_index[rows[0]]
            label = prepared.subjects[culprit]
            own = np.flatnonzero(prepared.subject_index == culprit)
            raise SpecificationError(
                f"{factor!r} at level 2 (to explain {term_name(key)!r})",
                f"it varies within {hierarchy.subject} {quote(label)} (rows {shorten(prepared.frame.index[own])}), "
                "and level 2 holds only what is constant within every subject",
                f"put {factor!r} into the level-1 formula, or use its mean by {hierarchy.subject} at level 2 "
                f"(data.groupby({hierarchy.subject!r})[...].transform('mean'))",
                SEE,
            )
    for term in hierarchy.level1_terms:
        constant = [f for f in term if f not in varying and any(f == k for k, _ in values)]
        if constant:
            raise SpecificationError(
                f"{constant[0]!r} at level 1",
                f"it is constant within every {hierarchy.subject}, so no {hierarchy.subject} has a regression on it",
                f"move it to level 2, for example level2={{'Intercept': {constant[0]!r}}}",
                SEE,
            )


def _check_margins(hierarchy: Hierarchy, columns: list[Column], varying: frozenset[str]) -> None:
    """Refuse level-2 formulas that the coding of a level-1 factor would carry over to another coefficient.

    ``{"Intercept": "1", "cond": "sex"}`` multiplies out to ``1 + cond + sex:cond``, which has an effect of sex at every
    level of cond, so that the intercept (the level that cond is coded against) would depend on sex as well.
    """
    codings: dict[Term, dict[Parts, set[Parts]]] = {}
    for column in columns:
        own = tuple(f for f in column.term if f in varying)
        level1, level2 = _split_parts(column.parts, varying)
        coding = codings.setdefault(own, {})
        coding.setdefault(level2, set()).add(level1 if tuple(f for f, _ in level1) == own else ())
    for own, coding in codings.items():
        if any(parts != next(iter(coding.values())) for parts in coding.values()):
            others = dict.fromkeys(f for level2 in coding for f, _ in level2)
            name = term_name(own)
            raise SpecificationError(
                f"level2[{name!r}] = {hierarchy.level2[name]!r}",
                f"{name!r} is a factor, coded against a level that the intercept stands for; multiplied out, the "
                f"intercept would depend on {shorten(map(repr, others))} too, and its level-2 formula does not say so",
                "explain the intercept by the same terms, start level 1 with '0 +', or use numeric columns for the "
                "levels of the factor, such as I(cond == 'b')",
                SEE,
            )


def _assemble(
    hierarchy: Hierarchy,
    prepared: Prepared,
    columns: list[list[Column]],
    factors: FactorColumns,
    values: dict[tuple[str, str], FloatArray],
    residual: Residual,
) -> Design:
    fixed, random = columns[0], columns[1:]
    varying = _varying(values, prepared)
    n, first = len(prepared.frame), _first_rows(prepared)
    split = [_split_parts(c.parts, varying) for c in fixed]
    random_parts = [c.parts for block in random for c in block]
    term = [_parts_name(parts) for parts in random_parts]
    level1_parts = list(dict.fromkeys([part for part, _ in split] + random_parts))
    order = {t: i for i, t in enumerate(hierarchy.level1_terms)}
    level1_parts.sort(key=lambda parts: order.get(tuple(f for f, _ in parts), len(order)))
    _check_coding(hierarchy, level1_parts, [part for part, _ in split], random_parts)
    position = {parts: i for i, parts in enumerate(level1_parts)}
    X1 = np.column_stack([_product(values, parts, n) for parts in level1_parts])
    coef_level1 = np.array([position[part] for part, _ in split], dtype=np.intp)
    term_level1 = np.array([position[parts] for parts in random_parts], dtype=np.intp)
    subject_values = {key: column[first] for key, column in values.items()}
    J = len(first)
    W = np.column_stack([_product(subject_values, rest, J) for _, rest in split]) if fixed else np.empty((J, 0))
    X = X1[:, coef_level1] * W[prepared.subject_index]
    y = np.array(evaluate_vector(hierarchy.response, prepared.frame, "response"))  # not the frame's own memory
    _check_finite(y, hierarchy.response, hierarchy.response, prepared.frame)
    offset = sum((evaluate_vector(o, prepared.frame, "offset") for o in hierarchy.offsets), np.zeros(n))
    _check_finite(offset, "offset", " + ".join(hierarchy.offsets), prepared.frame)
    blocks, covariance = _covariance_blocks(hierarchy, random)
    for names in ([c.name for c in fixed], term, [_parts_name(parts) for parts in level1_parts]):
        _check_unique(names)
    return Design(
        hierarchy=replace(
            hierarchy, covariance=covariance, blocks=_canonical_blocks(hierarchy, covariance, prepared.levels)
        ),
        frame=prepared.frame,
        y=y,
        offset=offset,
        X=X,
        Z=np.ascontiguousarray(X1[:, term_level1]),
        X1=X1,
        W=W,
        coef=tuple(c.name for c in fixed),
        term=tuple(term),
        level1=tuple(_parts_name(parts) for parts in level1_parts),
        coef_level1=coef_level1,
        term_level1=term_level1,
        blocks=blocks,
        covariance=covariance,
        subject_index=prepared.subject_index,
        subjects=prepared.subjects,
        n_dropped=prepared.n_dropped,
        levels=prepared.levels,
        factors=factors,
        fixed_columns=tuple(fixed),
        level1_columns=tuple(level1_parts),
        residual=residual.correlation,
        residual_variance=residual.variance,
    )


type Parts = tuple[tuple[str, str], ...]


def _split_parts(parts: Parts, varying: frozenset[str]) -> tuple[Parts, Parts]:
    return tuple(p for p in parts if p[0] in varying), tuple(p for p in parts if p[0] not in varying)


def _parts_name(parts: Parts) -> str:
    return ":".join(name for _, name in parts) if parts else INTERCEPT


def _product(values: dict[tuple[str, str], FloatArray], parts: Parts, n: int) -> FloatArray:
    result = np.ones(n)
    for part in parts:
        result = result * values[part]
    return result


def _check_coding(hierarchy: Hierarchy, level1: list[Parts], fixed: list[Parts], random: list[Parts]) -> None:
    """A factor must be coded alike in the fixed and the random part, or there is no common level-1 regression."""
    by_term: dict[Term, list[Parts]] = {}
    for parts in level1:
        by_term.setdefault(tuple(f for f, _ in parts), []).append(parts)
    for term, group in by_term.items():
        in_fixed = [p for p in group if p in fixed]
        in_random = [p for p in group if p in random]
        if in_fixed and in_random and set(in_fixed) != set(in_random):
            raise SpecificationError(
                f"{term_name(term)!r} coded as {shorten(map(_parts_name, in_fixed))} in the fixed part and as "
                f"{shorten(map(_parts_name, in_random))} in the random part",
                "the hierarchy needs one set of level-1 coefficients",
                f"code both alike: '1 + {term_name(term)}' with '(1 + {term_name(term)} | {hierarchy.subject})', "
                f"or '0 + {term_name(term)}' with '(0 + {term_name(term)} | {hierarchy.subject})'; "
                "and write interactions with their main effects ('a * b', not 'a:b')",
                SEE,
            )


def _check_unique(names: list[str]) -> None:
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise DataError(
            f"two coefficients named {twice[0]!r}",
            "a column of the data has the name that a term of the formula gets",
            f"rename the column {twice[0]!r}",
            SEE,
        )


def _covariance_blocks(hierarchy: Hierarchy, random: list[list[Column]]) -> tuple[tuple[tuple[int, ...], ...], str]:
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


def _canonical_blocks(hierarchy: Hierarchy, covariance: str, levels: Levels) -> tuple[RandomBlock, ...]:
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
