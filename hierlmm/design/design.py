"""The design of a two-level model in its parts: terms, rows and random terms, and the same columns for new data."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from functools import cached_property
from operator import attrgetter
from typing import Any

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.covariance.composed import checked_weights, group_of, weights_of
from hierlmm.covariance.random import RandomCovariance, random_covariance
from hierlmm.covariance.residual import ResidualCorrelation
from hierlmm.covariance.variance import VarianceFunction
from hierlmm.design.columns import Column, FactorColumns
from hierlmm.design.constant import constant_combination
from hierlmm.design.formula import INTERCEPT
from hierlmm.design.hierarchy import Hierarchy
from hierlmm.design.levels import Levels
from hierlmm.design.outcome import GAUSSIAN, Outcome
from hierlmm.design.residual import Residual
from hierlmm.design.rows import RandomTerm, Rows, known_groups
from hierlmm.design.terms import NewData, Parts, Terms
from hierlmm.design.unread import Whole
from hierlmm.errors import DataError, NotAvailableError, SpecificationError
from hierlmm.families.family import Family
from hierlmm.frames import column_names, complete_rows, quote, require_columns, shorten, to_pandas

__all__ = [
    "ARRAYS",
    "D_of_subjects",
    "Design",
    "NewData",
    "design_of",
    "level2_prediction",
    "own_columns",
    "own_covariances",
    "own_effects",
]

LARGE = "docs, page 'Large data'"
ARRAYS = ("y", "offset", "X", "Z", "X1", "W", "subject_index", "coef_level1", "term_level1")


def _part[T](path: str, kind: type[T]) -> T:
    """What is read off a part of the design."""
    return property(attrgetter(path))  # type: ignore[return-value]


@dataclass(frozen=True)
class Design:
    """A two-level model with its data. The arrays are read-only: fits share them.

    Attributes
    ----------
    terms : Terms
        The columns, without rows.
    rows : Rows
        The rows as arrays, and who they belong to.
    random : tuple of RandomTerm
        What varies by which grouping factor: by subject, by several factors, or nothing in a marginal model.
    residual, residual_variance
        Structures of the level-1 residuals; None for independent ones of equal variance.
    variance_fitted : (N,), optional
        Fitted values that a variance function without a covariate depends on.
    outcome : Outcome
        The family of the response, its trials and exposure.
    whole : Whole, optional
        All rows, where they are not in memory and those here are of some subjects.
    y, offset : (N,)
        Response and offset, in the order of the rows.
    X : (N, p)
        Combined fixed-effects design, columns ``coef``.
    Z : (N, q)
        Random-effects design of the subjects, columns ``term``. With a D of its own for each level of ``group`` the
        random effects stand once for each level, q = ``n_own`` times the number of levels; see `design.groups`.
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
    group : str, group_levels : tuple
        Level-2 factor with a D of its own in each level, and its levels; empty without one.
    own_term : tuple of str, own_level1 : (n_own,), own_Z : (N, n_own)
        The random effects that a subject has: their names, level-1 columns and values; ``term``, ``term_level1`` and
        ``Z`` where there is one D. What fits call b is in this order.
    """

    terms: Terms
    rows: Rows
    random: tuple[RandomTerm, ...]
    residual: ResidualCorrelation | None = None
    residual_variance: VarianceFunction | None = None
    variance_fitted: FloatArray | None = None
    outcome: Outcome = GAUSSIAN
    whole: Whole | None = None

    hierarchy = _part("terms.hierarchy", Hierarchy)
    levels = _part("terms.levels", Levels)
    factors = _part("terms.factors", FactorColumns)
    fixed_columns = _part("terms.fixed", tuple[Column, ...])
    level1_columns = _part("terms.level1_columns", tuple[Parts, ...])
    coef = _part("terms.coef", tuple[str, ...])
    level1 = _part("terms.level1", tuple[str, ...])
    coef_level1 = _part("terms.coef_level1", IntArray)

    trials = _part("rows.trials", FloatArray)
    frame = _part("rows.frame", pd.DataFrame)
    y = _part("rows.y", FloatArray)
    offset = _part("rows.offset", FloatArray)
    X = _part("rows.X", FloatArray)
    X1 = _part("rows.X1", FloatArray)
    W = _part("rows.W", FloatArray)
    n_dropped = _part("rows.n_dropped", int)
    subject_index = _part("rows.subject.index", IntArray)
    subjects = _part("rows.subject.labels", pd.Index)
    rows_per_subject = _part("rows.subject.sizes", IntArray)

    term = _part("terms.by_subject.names", tuple[str, ...])
    term_level1 = _part("terms.by_subject.columns", IntArray)
    blocks = _part("terms.by_subject.blocks", tuple[tuple[int, ...], ...])
    covariance = _part("terms.by_subject.covariance", str)
    n_random_parameters = _part("terms.by_subject.n_parameters", int)
    group = _part("terms.by_subject.by", str)
    group_levels = _part("terms.by_subject.levels", tuple[Any, ...])
    n_own = _part("terms.by_subject.n_own", int)

    @property
    def has_several_factors(self) -> bool:
        """Whether there are several grouping factors, nested or crossed; subjects share no group of any then."""
        return len(self.random) > 1

    @cached_property
    def Z(self) -> FloatArray:
        """Random-effects design of the subjects, (N, q); of several grouping factors side by side."""
        if len(self.random) > 1:
            Z = np.concatenate([own.Z for own in self.random], axis=1)
            Z.flags.writeable = False
            return Z
        return self.random[0].Z if self.random else self.X1[:, :0]

    @cached_property
    def own_Z(self) -> FloatArray:
        """What a subject's own random effects are multiplied by, (N, n_own)."""
        return own_columns(self, self.Z)

    @cached_property
    def own_term(self) -> tuple[str, ...]:
        """Names of the random effects that a subject has."""
        return tuple(self.level1[k] for k in self.own_level1) if self.group else self.term

    @property
    def own_level1(self) -> IntArray:
        """Which level-1 column each of them belongs to, (n_own,)."""
        return self.term_level1[: self.n_own]

    @cached_property
    def subject_group(self) -> IntArray:
        """Position of each subject's level among ``group_levels``, (J,); zero where there is one D."""
        if not self.group:
            return np.zeros(self.n_subjects, dtype=np.intp)
        return self.terms.by_subject.who

    @property
    def random_structure(self) -> RandomCovariance:
        """The structure of D for all of ``term``."""
        return random_covariance(self.covariance, self.blocks, self.terms.by_subject.parts)

    @property
    def family(self) -> Family:
        """Distribution of the response."""
        return self.outcome.family

    @property
    def is_gaussian(self) -> bool:
        """Whether the response is normal around the linear predictor."""
        return self.outcome.is_gaussian

    @property
    def n_obs(self) -> int:
        """Number of rows, N."""
        return self.rows.n_obs

    @property
    def units(self) -> dict[str, str]:
        """Units of the columns, by name, where the table knew them."""
        return self.rows.units

    @property
    def n_subjects(self) -> int:
        """Number of subjects, J."""
        return len(self.subjects)

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
    def residual_group(self) -> str | None:
        """Column of the groups with residual parameters of their own; None without any."""
        return group_of(self.residual_variance)

    @property
    def weights(self) -> str | None:
        """Column of the known weights of the rows; None where all count alike."""
        return weights_of(self.residual_variance)

    @property
    def known_weights(self) -> FloatArray:
        """Weights of the rows, (N,): ones where none were given."""
        return np.ones(self.n_obs) if self.weights is None else checked_weights(self.frame[self.weights])

    @property
    def variance_covariate(self) -> Any:
        """What the variance function depends on, N rows: its column(s), or the fitted values (first least squares)."""
        assert self.residual_variance is not None
        values = self.variance_fitted
        if values is None and self.residual_variance.variable is None:
            values = self.offset + self.X @ np.linalg.lstsq(self.X, self.y - self.offset, rcond=None)[0]
        return self.residual_variance.read(self.frame, values)

    def level1_variables(self) -> list[str]:
        """Columns of the data that vary within subjects, in the order of level 1."""
        return self.terms.level1_variables()

    def level2_variables(self) -> list[str]:
        """Columns of the data that explain level-1 coefficients (constant within every subject)."""
        return self.terms.level2_variables()

    def constant_variables(self) -> list[str]:
        """Columns of the data that are constant within every subject: those of level 2, and the factor of D."""
        return list(dict.fromkeys([*self.level2_variables(), *([self.group] if self.group else [])]))

    def position(self, subject: Any) -> int:
        """Position of a subject's label in ``subjects``.

        Raises
        ------
        DataError
            If it is not there.
        """
        at = self.subjects.get_indexer(pd.Index([subject]))[0] if isinstance(subject, Hashable) else -1
        if at < 0:
            remedy = f"use a label of fit.design.subjects: {shorten(map(quote, self.subjects), 4)}"
            raise DataError(f"subject {shorten([quote(subject)])}", "it is not in the fitted data", remedy)
        return int(at)

    def with_response(self, y: FloatArray) -> Design:
        """Return the same design with another response (simulation, bootstrap)."""
        self.refuse_unread("another response for its rows")
        return replace(self, rows=replace(self.rows, y=np.array(y, dtype=np.float64)))

    def like_all(self) -> Design:
        """A design whose columns have the means and covariances of all rows: itself, where they are all there."""
        return self if self.whole is None else self.whole.look_alike(self)

    @property
    def n_obs_in_all(self) -> int:
        """Number of rows, those that are not in memory counted."""
        return self.n_obs if self.whole is None else self.whole.n_obs

    @property
    def n_subjects_in_all(self) -> int:
        """Number of subjects, those that are not in memory counted."""
        return self.n_subjects if self.whole is None else self.whole.n_subjects

    def refuse_unread(self, what: str) -> None:
        """Refuse what needs all rows where they are not in memory.

        Raises
        ------
        NotAvailableError
        """
        if self.whole is not None:
            reason = f"it needs all {self.whole.n_obs:,} rows, and they are not in memory"
            remedy = "read the rows of some hundred subjects into a table, and fit the model to them"
            raise NotAvailableError(f"{what} of a model of {self.whole.label}", reason, remedy, LARGE)

    def without_random(self) -> Design:
        """Return the same design without random effects."""
        self.refuse_unread("the model without random effects")
        return replace(self, terms=replace(self.terms, random=()), random=())

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
        present, subject = column_names(data), self.hierarchy.subject
        by = (subject,) if subject in present else self.hierarchy.subject_columns
        require_columns(self.terms.variables, present, "new data without the column", add=True)
        if need_subject:
            require_columns(by, present, "new data without the subject column", add=True)
        extra = [c for c in (*by, *self.residual_columns) if c in present]
        wanted = list(dict.fromkeys([*self.terms.variables, *extra]))
        frame, _ = complete_rows(to_pandas(data, wanted), "raise", new=True)
        new = self.terms.apply(frame)
        if not set(by) <= set(new.frame.columns):
            return new
        labels, at = known_groups(self.subjects, self.frame, new.frame, by)
        frame = new.frame if subject in new.frame.columns else new.frame.assign(**{subject: labels})
        return replace(new, frame=frame, subject_index=at)


def own_columns(design: Design, Z: FloatArray) -> FloatArray:
    """What the subjects' own random effects are multiplied by: (n, q·G) -> (n, q). Z itself where there is one D."""
    return Z.reshape(len(Z), -1, design.n_own).sum(axis=1) if design.group else Z


def own_effects(design: Design, b: FloatArray, subjects: Any = slice(None)) -> FloatArray:
    """A subject's own random effects among those of all levels: (..., J, q·G) -> (..., J, q).

    Parameters
    ----------
    design : Design
    b : (..., J, q·G)
    subjects : slice or array of int
        Which subjects they are of, if not all.
    """
    if not design.group:
        return b
    group = design.subject_group[subjects]
    return b.reshape(*b.shape[:-1], -1, design.n_own)[..., np.arange(len(group)), group, :]


def own_covariances(design: Design, C: FloatArray) -> FloatArray:
    """Covariances of the subjects' own random effects: (J, q·G, q·G) -> (J, q, q)."""
    if not design.group:
        return C
    positions = design.subject_group[:, None] * design.n_own + np.arange(design.n_own)
    return C[np.arange(len(C))[:, None, None], positions[:, :, None], positions[:, None, :]]


def D_of_subjects(design: Design, D: FloatArray) -> FloatArray:
    """Each subject's own D, (J, q, q), from that of all groups; D itself where there is one."""
    return own_covariances(design, np.broadcast_to(D, (design.n_subjects, *D.shape))) if design.group else D


def design_of(model: Any, what: str) -> Design:
    """Return the design of a model that was passed to a function.

    Raises
    ------
    SpecificationError
        If it is no model.
    """
    design = getattr(model, "design", None)
    if not isinstance(design, Design) or not hasattr(model, "priors"):
        received, reason = f"a {type(model).__name__} for {what}", "it needs a model, with its data"
        remedy = f"pass a model, {what}(hl.TwoLevelModel(...), ...)"
        raise SpecificationError(received, reason, remedy, "docs, page 'Formulas and levels'")
    return design


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
