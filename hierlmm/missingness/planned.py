"""All planned rows of a fit: every subject at every visit, with what was measured and the mean and covariance of all.

Under a fitted model a subject's planned responses are normal, y_i ~ N(X_i β, V_i), measured or not. With o the visits
that were measured and m those that were not,

    y_m | y_o ~ N(μ_m + B (y_o - μ_o), V_mm - B V_om),     B = V_mo V_oo⁻¹

is what missing at random means for them. A strategy puts another mean μ in the place of X_i β (`hierlmm.missingness.
strategies`); B and the covariance stay.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from hierlmm.arrays import BoolArray, FloatArray, IntArray
from hierlmm.covariance.variance import VarIdent
from hierlmm.design.design import Design
from hierlmm.drawing.style import evenly
from hierlmm.effects.grid import reference_grid
from hierlmm.errors import DataError, NotAvailableError, SpecificationError
from hierlmm.fits.base import Fit
from hierlmm.fits.posterior import PosteriorNumbers, flat_parameters
from hierlmm.frames import column_names, quote, require_columns, shorten, to_pandas
from hierlmm.missingness.visits import Visits, time_column, visits_of

FEWEST = 10
"""Groups up to this size share the scale of their residuals with the others."""
SEE = "docs, page 'Missing data', section 'If values are not missing at random'"


class Parameters(NamedTuple):
    """Draws of the parameters of a fit: β (S, p), D (S, q, q), σ (S,), residual parameters (S, k)."""

    beta: FloatArray
    D: FloatArray
    sigma: FloatArray
    eta: FloatArray


@dataclass(frozen=True, eq=False)
class Planned:
    """Every subject at every visit.

    Attributes
    ----------
    fit : Fit
    visits : Visits
        What was measured, (J, K).
    frame : DataFrame
        Columns of the model for all J K rows, subject by subject.
    treatment : str
        Empty where the arms are not asked for.
    arm : (J,)
        Position of each subject's arm in ``arms``.
    arms : tuple
        The reference first; without arms one of all subjects.
    visit : str
        Column of the formula that tells the visits apart.
    """

    fit: Fit
    visits: Visits
    frame: pd.DataFrame
    treatment: str
    arm: IntArray
    arms: tuple[Any, ...]
    visit: str

    @property
    def design(self) -> Design:
        """Of the fit."""
        return self.fit.design

    @property
    def shape(self) -> tuple[int, int]:
        """Subjects and visits."""
        return self.visits.y.shape

    @cached_property
    def seen(self) -> BoolArray:
        """Which were measured, (J, K)."""
        return np.isfinite(self.visits.y)

    @cached_property
    def after(self) -> BoolArray:
        """Which lie after the subject's last measurement, (J, K)."""
        return np.arange(self.shape[1]) > self.visits.last[:, None]

    @cached_property
    def X(self) -> FloatArray:
        """Columns of the mean, (J, K, p)."""
        return self._columns(self.frame)

    @cached_property
    def X_reference(self) -> FloatArray:
        """The same if all subjects were in the reference arm, (J, K, p)."""
        column = self.frame[self.treatment]
        moved = pd.Series([self.arms[0]] * len(column), index=column.index).astype(column.dtype)
        return self._columns(self.frame.assign(**{self.treatment: moved}))

    @cached_property
    def offset(self) -> FloatArray:
        """What is added to the mean, (J, K)."""
        return self.design.terms.apply(self.frame).offset.reshape(self.shape)

    def _columns(self, frame: pd.DataFrame) -> FloatArray:
        return self.design.terms.apply(frame).X.reshape(*self.shape, -1)

    @cached_property
    def Z(self) -> FloatArray:
        """Columns of the random effects, (J, K, q)."""
        found = self.design.terms.apply(self.frame).Z
        return found.reshape(*self.shape, found.shape[1])

    @cached_property
    def kinds(self) -> list[IntArray]:
        """Subjects that share what their covariance depends on."""
        columns = [c for c in self.design.residual_columns if c in self.frame]
        codes = [pd.factorize(self.frame[c])[0].reshape(self.shape) for c in columns]
        keys = np.column_stack([np.zeros((self.shape[0], 1)), self.Z.reshape(self.shape[0], -1), *codes])
        _, kind = np.unique(keys, axis=0, return_inverse=True)
        return [np.flatnonzero(kind.ravel() == k) for k in range(kind.max() + 1)]

    @cached_property
    def strata(self) -> list[IntArray]:
        """Subjects of each group that has covariance parameters of its own; all of them, if there is none."""
        first, design = self.frame.iloc[:: self.shape[1]], self.design
        variance = getattr(design.residual_variance, "own", design.residual_variance)
        names = [design.residual_group, design.group, variance.variable if isinstance(variance, VarIdent) else None]
        names = [c for c in dict.fromkeys(names) if c and _constant(self.frame, c, design.hierarchy.subject)]
        code = first.groupby(names, observed=True).ngroup().to_numpy() if names else np.zeros(self.shape[0])
        found = [np.flatnonzero(code == g) for g in np.unique(code)]
        return found if min(map(len, found)) > FEWEST else [np.arange(self.shape[0])]

    @cached_property
    def incomplete(self) -> list[tuple[int, IntArray, IntArray, IntArray]]:
        """Kind, subjects, measured and missing visits of each pattern in which something is missing."""
        found = []
        for number, members in enumerate(self.kinds):
            patterns, which = np.unique(self.seen[members], axis=0, return_inverse=True)
            for p, pattern in enumerate(patterns):
                if pattern.any() and not pattern.all():
                    rows = members[which.ravel() == p]
                    found.append((number, rows, np.flatnonzero(pattern), np.flatnonzero(~pattern)))
        return found

    def covariances(self, at: Parameters, s: int) -> list[FloatArray]:
        """V (K, K) of each of the kinds at one draw."""
        K, found = self.shape[1], []
        structure, Z = self.fit.residual_estimate, self.Z
        for members in self.kinds:
            j = members[0]
            own = self.frame.iloc[j * K : (j + 1) * K]
            V = np.eye(K) if structure is None else replace(structure, eta=at.eta[s]).covariance(own)
            V = at.sigma[s] ** 2 * V
            found.append(V + Z[j] @ at.D[s] @ Z[j].T if Z.shape[2] else V)
        return found


def planned_of(
    fit: Any, treatment: str | None, reference: Any, time: str | None, data: Any, *, caller: str, arms: bool = True
) -> Planned:
    """All planned rows of a fit.

    Parameters
    ----------
    fit : Fit
    treatment : str, optional
        Column of the arms.
    reference : label, optional
        The reference arm; by default the first level.
    time : str, optional
        Column of the visits.
    data : table, optional
        The planned rows with their covariates, where these cannot be read off the measured ones.
    caller : str
        What is asked for.
    arms : bool
        Whether the arms are needed; without them all subjects are one.
    """
    design = _usable(fit, caller)
    time = time or time_column(design)
    own_arms = _arms(design, treatment, reference) if arms or treatment is not None else (None,)
    visits = visits_of(fit, time=time, by=treatment)
    frame = _all_rows(design, visits, time, data)
    own = np.zeros(len(visits.y), dtype=np.intp)
    if treatment is not None:
        own = pd.Index(own_arms).get_indexer(visits.group)
    return Planned(fit, visits, frame, treatment or "", own, own_arms, _visit_column(design, frame, visits))


def _usable(fit: Any, caller: str) -> Design:
    design = getattr(fit, "design", None)
    if not isinstance(fit, Fit) or not isinstance(design, Design):
        received, remedy = f"{caller} of a {type(fit).__name__}", "give a fit: model.fit_reml() or model.fit()"
        raise SpecificationError(received, "missing values are drawn from a fitted distribution", remedy, SEE)
    if not design.is_gaussian or fit.has_working_correlation:
        received, reason = f"{caller} of a fit by {fit.estimator}", "it draws responses from a normal distribution"
        remedy = "use fit_reml(), fit_ml() or fit() of a Gaussian model"
        raise NotAvailableError(received, reason, remedy, SEE)
    if design.residual is not None and design.residual.counts_rows:
        reason = "it counts the rows of a subject, and a missing row moves those behind it"
        remedy = "name the time in the structure, as in hl.AR1('visit')"
        raise NotAvailableError(f"{caller} under residual={design.residual!r}", reason, remedy, SEE)
    if design.residual_variance is not None and design.residual_variance.variable is None:
        reason = "the variance depends on the fitted value, which moves with what is assumed"
        raise NotAvailableError(caller, reason, "let the variance depend on a column", SEE)
    return design


def _arms(design: Design, treatment: str | None, reference: Any) -> tuple[Any, ...]:
    grid = reference_grid(design)  # it knows the factors of C(arm), too, whose column holds numbers
    factors = [c for c in grid.points if c in grid.factors and c in design.level2_variables()]
    if treatment is None or treatment not in factors:
        reason = "it is no factor between subjects of this model" if treatment else "the arms are not known"
        remedy = (
            f"use treatment='...', one of {shorten(map(quote, factors))}" if factors else "put the arm into the model"
        )
        raise SpecificationError(f"treatment={treatment!r}", reason, remedy, SEE)
    levels = list(grid.points[treatment])
    if reference is None:
        return tuple(levels)
    if reference not in levels:
        remedy = f"use one of {shorten(map(quote, levels))}"
        raise SpecificationError(f"reference={reference!r}", f"it is no level of {treatment!r}", remedy, SEE)
    return (reference, *(level for level in levels if level != reference))


def _all_rows(design: Design, visits: Visits, time: str, data: Any) -> pd.DataFrame:
    """The model's columns for every subject and visit."""
    who = design.hierarchy.subject
    columns = [str(c) for c in design.frame.columns]
    source = design.frame
    if data is not None:
        needed = [c for c in columns if c in (who, time) or c not in variables_of_response(design)]
        source = pd.concat([source, _given(design, needed, (who, time), data)], ignore_index=True)
    J, K = visits.y.shape
    keys = pd.MultiIndex.from_product([visits.subjects, visits.times], names=[who, time])
    indexed = source.drop_duplicates([who, time]).set_index([who, time])  # the first are those of the fit
    frame = indexed.reindex(keys).reset_index()
    _check_constant(design, frame)
    for name in columns:
        if name in (who, time):
            continue
        if not frame[name].isna().any() or name in variables_of_response(design):
            continue
        value = design.frame[name]
        if _constant(design.frame, name, who):
            known = design.frame.groupby(who)[name].first().reindex(visits.subjects)
            filled = np.repeat(known.to_numpy(), K)
        elif _constant(design.frame, name, time):
            known = design.frame.groupby(time, observed=True)[name].first().reindex(visits.times)
            filled = np.tile(known.to_numpy(), J)
        else:
            received = f"{name!r}, which varies within subjects and within visits"
            reason = "its values at the visits that are missing are not in the fitted rows"
            remedy = "give the planned rows, with all covariates, as data=..."
            raise DataError(received, reason, remedy, SEE)
        frame[name] = pd.Series(filled, index=frame.index).astype(value.dtype)
    frame[time] = frame[time].astype(design.frame[time].dtype)
    frame[who] = frame[who].astype(design.frame[who].dtype)
    return frame[columns]


def _given(design: Design, needed: list[str], keys: tuple[str, str], data: Any) -> pd.DataFrame:
    """The planned rows that were given, with the categories of the fit in their keys."""
    require_columns(needed, column_names(data), "planned rows without", add=True)
    given = to_pandas(data, needed)
    for key in keys:
        if isinstance(design.frame[key].dtype, pd.CategoricalDtype):
            given[key] = given[key].astype(design.frame[key].dtype)
    given = given[given[keys[0]].isin(design.frame[keys[0]])]
    twice = given.duplicated(list(keys))
    if twice.any():
        at = given.loc[twice].iloc[0]
        received = f"data with two rows of {keys[0]} {quote(at[keys[0]])} at {keys[1]} {quote(at[keys[1]])}"
        raise DataError(received, "a planned row is one of a subject at a visit", "leave one of them out", SEE)
    return given


def _check_constant(design: Design, frame: pd.DataFrame) -> None:
    """Refuse planned rows in which a covariate between subjects varies within one."""
    who = design.hierarchy.subject
    for name in design.level2_variables():
        pairs = frame[[who, name]].dropna().drop_duplicates()
        twice = pairs[who].duplicated()
        if twice.any():
            received = f"data in which {name!r} varies within {who} {quote(pairs.loc[twice, who].iloc[0])}"
            reason = "in the fitted rows it is constant within subjects, and measured rows keep these values"
            raise DataError(received, reason, "give the planned rows of the fitted data", SEE)


def _constant(frame: pd.DataFrame, name: str, within: str) -> bool:
    """Whether a column has one value in each group."""
    return not frame[[within, name]].drop_duplicates()[within].duplicated().any()


def variables_of_response(design: Design) -> set[str]:
    """Columns that only the response uses."""
    used = {*design.terms.variables, design.hierarchy.subject, *design.residual_columns}
    return {str(c) for c in design.frame.columns} - used


def _visit_column(design: Design, frame: pd.DataFrame, visits: Visits) -> str:
    """The variable of the formula that has one value at each visit and different ones at different visits."""
    within = design.level1_variables()
    if visits.time in within:
        return visits.time
    K = len(visits.times)
    for name in within:
        if _constant(frame, name, visits.time) and frame[name].nunique() == K:
            return name
    received = f"the visits {visits.time!r}"
    raise SpecificationError(received, "no variable of the formula tells them apart", "name it: time='...'", SEE)


def parameter_draws(fit: Any, n: int, rng: np.random.Generator) -> Parameters:
    """Draws of the parameters: evenly chosen ones of a posterior; else from their large-sample distribution."""
    if isinstance(fit, PosteriorNumbers):
        size = fit.draws("sigma").size
        if n > size:
            reason = f"the posterior has {size} draws"
            raise SpecificationError(f"n={n}", reason, "use fewer, or fit with more draws", SEE)
        return Parameters(*flat_parameters(fit, evenly(size, n)))
    large = fit.large_sample
    sample = large.sample(n, rng)
    D, sigma = large.split_draws(sample)
    beta = []
    for row in sample:
        at = large.solution(row)
        values, vectors = np.linalg.eigh(at.beta_cov)
        beta.append(at.beta + (vectors * np.sqrt(np.maximum(values, 0.0))) @ rng.standard_normal(len(values)))
    first = fit.criterion_function.structure.n_parameters
    return Parameters(np.array(beta).reshape(n, -1), D, sigma, sample[:, first:-1])


def estimates(fit: Any) -> Parameters:
    """The estimates of a fit as one draw."""
    structure = fit.residual_estimate
    eta = np.empty((1, 0)) if structure is None else structure.eta[None]
    D = fit.D.to_numpy()[None] if fit.design.term else np.empty((1, 0, 0))
    return Parameters(fit.beta.to_numpy()[None], D, np.array([fit.sigma]), eta)
