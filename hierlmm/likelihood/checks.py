"""What must be true of a design before anything is fitted to it.

The response varies, and its squares and those of X and Z are numbers; X, and Z within a correlated block, have full
column rank (the columns that follow from others are named); there are N > p rows and J ≥ q subjects; and something is
left over: y is not in the span of X and the subjects' Z while degrees of freedom remain. Refused once, for every
estimator.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from functools import partial

import numpy as np

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.covariance.composed import stated
from hierlmm.covariance.declared import SEE as SEE_RESIDUAL
from hierlmm.covariance.declared import naming_group
from hierlmm.covariance.parameters import refuse_repeated_names
from hierlmm.design.design import Design
from hierlmm.design.formula import INTERCEPT, MULTILEVEL, categorical_arguments, quoted, unquoted
from hierlmm.design.questions import is_label, levels_of, time_variable
from hierlmm.design.terms import SEE_GROUPS
from hierlmm.errors import DataError, SpecificationError
from hierlmm.frames import quote
from hierlmm.likelihood.crossproducts import dependent_columns
from hierlmm.likelihood.kernel import RANK_TOLERANCE
from hierlmm.likelihood.residual_rows import ResidualRows, residual_names, residual_rows
from hierlmm.text import count

SEE = "docs, page 'Errors'"
data_error = partial(DataError, see=SEE)
LARGEST = 1e150
ROUNDING = 4e-15
"""Range, relative to the size of the numbers, of a constant that was computed."""
EXACT = 1e-14
SAMPLE = 5000
MOST_POINTS = 101
MOST_CELLS = 10_000


def check_design(design: Design) -> None:
    """Refuse designs whose parameters are not determined by the data.

    Raises
    ------
    DataError
        Constant response, as many random effects as rows, fewer subjects than random effects, as many level-2
        coefficients as subjects, no residual degrees of freedom, numbers beyond what can be squared, linearly dependent
        columns of X or Z, a covariate too far from zero for its spread, a response that the model reproduces exactly,
        or positions or a covariate that the residual structure cannot use.
    """
    _check_response(design)
    _check_subjects(design)
    _check_level2(design)
    if design.family.name == "ordinal" and design.constant is None:
        reason = "the first threshold between categories is zero, and an intercept moves it"
        remedy = "leave 0 + (or - 1) out of the formula"
        raise data_error("an ordinal response without an intercept", reason, remedy)
    p = len(design.coef)
    if design.n_obs <= p and design.is_gaussian:
        reason = "nothing is left to estimate the residual variance from"
        raise data_error(f"{design.n_obs} rows and {p} fixed effects", reason, "use a smaller model or more data")
    _check_size(design)
    _check_rank(design)
    if design.is_gaussian:
        _check_residual(design)
        _check_structure(design)


def check_quadrature(points: int, design: Design) -> None:
    """Refuse numbers of quadrature points that cannot be used.

    Raises
    ------
    SpecificationError
    """
    received, see = f"n_quadrature={points!r}", "docs, page 'Families'"
    if isinstance(points, bool) or not isinstance(points, int) or not 1 <= points <= MOST_POINTS:
        reason = f"it is a whole number from 1 (Laplace's method) to {MOST_POINTS}"
        raise SpecificationError(received, reason, "use for example n_quadrature=25", see)
    if points > 1 and design.is_gaussian:
        reason = "random effects of a Gaussian model are integrated out exactly"
        raise SpecificationError(received, reason, "leave it out", see)
    if points > 1 and design.has_several_factors:
        reason = "the random effects of all groups hang together: the integral has as many dimensions as there are"
        raise SpecificationError(received, reason, "use Laplace's method, n_quadrature=1", MULTILEVEL)
    if points > 1 and len(design.term) > 3:
        reason = f"with {len(design.term)} random effects each evaluation would need {points}^{len(design.term)} points"
        raise SpecificationError(received, reason, "use Laplace's method, n_quadrature=1", see)


def _check_response(design: Design) -> None:
    y = design.y - design.offset
    largest = float(np.abs(y).max())
    if largest > LARGEST or 0.0 < np.ptp(y) < 1.0 / LARGEST:
        received = f"a response {design.hierarchy.response!r} with values up to {largest:g} in size"
        remedy = f"rescale it: data[{design.hierarchy.response!r}] / {largest:.0e}, for example, or use other units"
        raise data_error(received, "their squares are beyond what a floating-point number can hold", remedy)
    if np.ptp(y) <= 1e-14 * largest:
        received = f"a response {design.hierarchy.response!r} that is {y[0]:g} in every row"
        reason = "without variation there is no variance to divide between the levels"
        raise data_error(received, reason, "check the column, and whether a filter left one value only")


def _check_subjects(design: Design) -> None:
    if design.group:
        _check_groups(design)
        return
    several = design.has_several_factors
    for own in design.random:
        J, q, name = len(own.group.labels), len(own.columns.names), own.columns.group
        who = f"groups of {name!r}" if several else "subjects"
        if q > J:
            received = f"{J} {who} and {q} random effects"
            reason = f"a {q} × {q} covariance between {who} cannot be estimated from {J} of them"
            fewer = f"let fewer coefficients vary: {f'(1 | {name})' if several else "random=['Intercept']"}"
            raise data_error(received, reason, fewer)
        for block in own.columns.blocks:
            if len(block) * J >= design.n_obs and design.is_gaussian:
                names = ", ".join(own.columns.names[m] for m in block)
                raise data_error(
                    f"{len(block)} random effects ({names}) for each of {J} {who}, and {design.n_obs} rows",
                    "there are as many random effects as rows, so they cannot be told apart from the residual",
                    f"let fewer coefficients vary, as in (1 | {name})" if several else _fewer_effects(design),
                )


def _check_groups(design: Design) -> None:
    """Refuse levels with too few subjects, or too few rows, for a D of their own."""
    q, name, subject = design.n_own, design.group, design.hierarchy.subject
    subjects = np.bincount(design.subject_group, minlength=len(design.group_levels))
    rows = np.bincount(design.subject_group[design.subject_index], minlength=len(design.group_levels))
    few = subjects < max(2, q)
    if np.any(few):
        k = int(np.flatnonzero(few)[0])
        effects = f"the {q} × {q} covariance of {q} random effects" if q > 1 else "a variance between subjects"
        raise DataError(
            f"group={name!r} with {count(int(subjects[k]), subject)} of {name} = {quote(design.group_levels[k])}",
            f"{effects} cannot be estimated from {'one' if subjects[k] == 1 else subjects[k]}, and D is its own there",
            f"merge levels of {name!r}, let fewer coefficients vary, or leave group out (one D for all)",
            SEE_GROUPS,
        )
    size = max(len(block) for block in design.blocks)
    crowded = size * subjects >= rows
    if np.any(crowded) and design.is_gaussian:
        k = int(np.flatnonzero(crowded)[0])
        raise DataError(
            f"{size} random effects for each of {subjects[k]} subjects of {name} = {quote(design.group_levels[k])}, "
            f"and {rows[k]} rows",
            "there are as many random effects as rows, so they cannot be told apart from the residual",
            _fewer_effects(design),
            SEE_GROUPS,
        )


def _fewer_effects(design: Design) -> str:
    """What to fit where each subject has as many random effects as rows."""
    subject = design.hierarchy.subject
    remedy = f"let fewer coefficients vary, as in (1 | {quoted(subject)})"
    if (time := time_variable(design)) is None:
        return f"{remedy}, or use covariance='diagonal' with one slope only"
    anything = (
        f"hl.MarginalModel(..., correlation=hl.UnstructuredHeterogeneous({quote(time)}), subject={quote(subject)})"
    )
    return f"{remedy}; or let the occasions have any variances and correlation: {anything}"


def _check_level2(design: Design) -> None:
    """A coefficient that level 2 explains without remainder has no variance (a subject's label as a covariate)."""
    if design.has_several_factors:
        _check_explained(design)
        return
    subject, J = design.hierarchy.subject, design.n_subjects
    for column in dict.fromkeys(design.term_level1.tolist()):
        own = np.flatnonzero(design.coef_level1 == column)
        if len(own) >= J:
            raise data_error(
                f"{len(own)} fixed coefficients for {design.level1[column]!r} ({design.coef[own[0]]}, ..., "
                f"{design.coef[own[-1]]}) and {J} subjects",
                f"level 2 explains {design.level1[column]!r} exactly in every {subject}, and nothing is left to vary",
                f"use fewer level-2 terms (is {subject!r} itself among them?), or let this coefficient not vary",
            )


def _check_explained(design: Design) -> None:
    """Refuse random effects whose columns, one for each group, all follow from the fixed effects."""
    for own in design.random:
        J, index = len(own.group.labels), own.group.index
        for m, name in enumerate(own.columns.names if len(design.coef) >= J else ()):
            columns = np.where(index[:, None] == np.arange(J), own.Z[:, [m]], 0.0)
            left = columns - design.X @ np.linalg.lstsq(design.X, columns, rcond=None)[0]
            if np.abs(left).max() <= 1e-9 * np.abs(columns).max():
                factor = own.columns.group
                raise data_error(
                    f"a random effect {name!r} of {factor!r}, and {len(design.coef)} fixed coefficients",
                    f"they explain {name!r} exactly in each of the {J} groups of {factor!r}, and nothing is left to "
                    "vary",
                    f"use fewer fixed terms (is {factor!r} itself among them?), or leave the random effect out",
                )


def _check_size(design: Design) -> None:
    """Refuse columns of X and Z that cannot be squared; squares of small ones are zero."""
    for names, columns in ((design.coef, design.X), (design.term, design.Z)):
        largest = np.abs(columns).max(axis=0, initial=0.0)
        for name, size in zip(names, largest, strict=True):
            if size > LARGEST or 0.0 < size < 1.0 / LARGEST:
                raise data_error(
                    f"a column {name!r} with values up to {size:.3g} in size",
                    f"their squares are beyond what a floating-point number can hold (sizes from {1.0 / LARGEST:g} to "
                    f"{LARGEST:g} are)",
                    f"rescale it: divide it by {size:.0e}, for example, or use other units",
                )


def _refuse_distant(name: str, column: FloatArray) -> None:
    """Refuse a column that is no constant, but so far from zero that its spread is lost beside the constant."""
    largest, spread = float(np.abs(column).max()), float(np.std(column))
    if np.ptp(column) > ROUNDING * largest and spread <= RANK_TOLERANCE * largest:
        raise data_error(
            f"a column {name!r} with values around {np.mean(column):.3g} and an SD of {spread:.3g}",
            f"beside the constant its variation is lost in rounding: the limit is an SD of {RANK_TOLERANCE:g} times "
            f"the size of the values, here {RANK_TOLERANCE * largest:.2g}",
            "centre it: subtract its mean, or another origin that is near the data",
        )


def _empty_cells(design: Design, dependent: Sequence[int]) -> str:
    """Combinations of levels that no row has, in the first term of these columns that has such."""
    frame = design.frame
    for term in dict.fromkeys(design.fixed_columns[c].term for c in dependent):
        names: list[str] = []
        for factor in map(unquoted, term):
            own = [factor] if factor in frame.columns else list(categorical_arguments(factor))
            names += [v for v in own if v in frame.columns and (v != factor or is_label(design, v))]
        if len(names) < 2:
            continue
        seen = set(frame[names].itertuples(index=False, name=None))
        cells = itertools.islice(itertools.product(*(levels_of(design, name) for name in names)), MOST_CELLS)
        if absent := [cell for cell in cells if cell not in seen]:
            first = " and ".join(f"{name} {quote(label)}" for name, label in zip(names, absent[0], strict=True))
            more = f" (nor {len(absent) - 1} more)" if len(absent) > 1 else ""
            return f": no row has {first}{more}"
    return ""


def _check_rank(design: Design) -> None:
    """Name the columns of X, and of each correlated block of Z, that follow from the others."""
    centres = np.zeros(len(design.coef))
    if design.intercept is not None:
        centres = design.X.mean(axis=0)
        centres[design.intercept] = 0.0
    if not _clearly_independent(design.X, centres):
        dependent = dependent_columns(design.X, centres)
        if dependent:
            if design.intercept is not None:
                _refuse_distant(design.coef[dependent[0]], design.X[:, dependent[0]])
            names = [design.coef[c] for c in dependent]
            spline = any(re.match(r"c[rsc]\(", name) for name in names)
            absent = _empty_cells(design, dependent)
            raise DataError(
                f"a fixed-effects design of {len(design.coef)} columns and rank {len(design.coef) - len(dependent)}",
                f"{', '.join(map(repr, names))} {'is' if len(names) == 1 else 'are'} constant or a linear combination "
                f"of the columns before, so the coefficient is not determined{absent}",
                "the spline and the intercept share the constant: write for example cs(x, df=3, constraints='center')"
                if spline
                else "take the term out, merge levels that never occur together, or recode",
                "docs, page 'Errors', section 'Rank deficiency'",
            )
    for block in design.blocks:
        columns, zero = design.Z[:, block], np.zeros(len(block))
        if not _clearly_independent(columns, zero):
            dependent = dependent_columns(columns, zero)
            if dependent:
                if INTERCEPT in (design.level1[design.term_level1[m]] for m in block):
                    _refuse_distant(design.term[block[dependent[0]]], columns[:, dependent[0]])
                raise DataError(
                    f"random effects {', '.join(design.term[m] for m in block)}",
                    f"{', '.join(repr(design.term[block[m]]) for m in dependent)} follows from the columns before, so "
                    "the variances cannot be told apart",
                    "leave out the redundant random effect",
                    "docs, page 'Errors', section 'Rank deficiency'",
                )


def _check_residual(design: Design) -> None:
    """Refuse a response in the span of X, or of X and the subjects' Z, with degrees of freedom to spare.

    The likelihood then has no maximum: it grows without bound as the residual variance goes to zero. An exact fit of
    all rows is one of some subjects too, so a few of them show in almost every case that there is none.
    """
    y = design.y - design.offset
    spread = float(np.var(y))
    allowed = len(y) * EXACT * (spread + EXACT * float(np.mean(y**2)))  # what rounding leaves of numbers this large
    y = y - y.mean() if design.constant is not None else y
    nothing = (design.Z[:, :0], design.rows.subject, "the fixed effects")
    with_effects = [(own.Z, own.group, "the fixed and random effects") for own in design.random]
    for columns, group, what in (nothing, *with_effects):
        few = np.searchsorted(np.cumsum(group.sizes), SAMPLE) + 1
        for rows in (group.index < few, slice(None)):
            index = group.index[rows]
            remainder, freedom = _remainder(design.X[rows], columns[rows], y[rows], index)
            if remainder > allowed:
                break
        else:
            if freedom > 0:
                raise data_error(
                    f"a response {design.hierarchy.response!r} that the model reproduces exactly",
                    f"{what} leave no remainder, so the residual variance is zero and the likelihood has no maximum",
                    "check for a response computed from a covariate, duplicated columns, or a response that is "
                    f"constant within every {group.labels.name}",
                )
    if design.has_several_factors:
        _check_together(design, y, allowed)


def _check_together(design: Design, y: FloatArray, allowed: float) -> None:
    """Refuse a response that is a sum of effects of several factors without remainder, by sparse least squares."""
    from scipy.sparse import csr_array, hstack
    from scipy.sparse.linalg import lsmr

    rows, parts = np.arange(design.n_obs), [csr_array(np.linalg.qr(design.X)[0])]
    for own in design.random:
        shape, size = (design.n_obs, len(own.group.labels)), np.maximum(np.abs(own.Z).max(axis=0), 1e-300)
        parts += [csr_array((z, (rows, own.group.index)), shape=shape) for z in (own.Z / size).T]
    columns = hstack(parts)
    if columns.shape[1] >= design.n_obs:
        return
    remainder = float(lsmr(columns, y, atol=1e-12, btol=1e-9, maxiter=300)[3]) ** 2
    if remainder <= allowed:
        raise data_error(
            f"a response {design.hierarchy.response!r} that the model reproduces exactly",
            "effects of all factors together leave no remainder, so the residual variance is zero and the likelihood "
            "has no maximum",
            "check for a response computed from covariates and group means; a table of means has no residual",
        )


def _check_structure(design: Design) -> None:
    """Bind the residual structure to its columns, which refuses positions and covariates that it cannot use."""
    if design.has_residual_structure:
        rows = residual_rows(design)
        names = [p.name for p in rows.parameters]
        parts = [type(s).__name__ for s in (design.residual, design.residual_variance) if s is not None]
        refuse_repeated_names(" with ".join(parts), names)
        shown = [name for part in residual_names(rows).values() for name in part]
        refuse_repeated_names(" with ".join(parts), shown)
        _check_occasions(design, rows)


def _check_occasions(design: Design, rows: ResidualRows) -> None:
    """Refuse any correlation of m occasions where it can lose its variance in what no residual shows.

    Coefficients take r of the residual vectors of J subjects (the rank of a'X_i over the subjects, for any combination
    a of the occasions), and J - r < m of them leave a combination without variance. Σ may be singular there, so that
    its likelihood has no bound. With one variance for all occasions the combination must not lie near one occasion
    (no |a_k| above the sum of the others), which holds for one of any two: J - r < m - 1.
    """
    correlation, spec = rows.correlation, design.residual
    if correlation is None or spec is None or not (spec.free and spec.by_occasion):
        return
    m, start, variance = len(rows.rows.labels), rows.start, stated(design.residual_variance)
    own = variance is not None and variance.free and variance.variable == spec.time
    a = np.cos(1.0 + np.arange(m) ** 1.3)[rows.rows.t.astype(np.intp)]  # as good as any
    if rows.variance is not None:  # weights among it
        a *= np.exp(-rows.variance.log_ratio(np.array([p.unconstrained(p.start) for p in rows.variance.parameters])))
    combined = np.add.reduceat(a * rows.M[rows.q : -1], start[:-1], axis=1)
    for level in correlation.levels:
        members = level.rows[start[:-1]]
        J, r = int(members.sum()), int(np.linalg.matrix_rank(combined[:, members & (np.diff(start) == m)]))
        if J - r < m - (not own):
            taken = f"the coefficients can reproduce {r} of them, and " if r else ""
            with naming_group(design.residual_group, level.label):
                raise DataError(
                    f"{J} subjects, {m} occasions of {spec.time!r}, and {type(spec).__name__}"
                    f"{' with a variance for each' if own else ''}",
                    f"{taken}the residuals of {J - r} leave some combination of {m} occasions without variance: the "
                    "likelihood grows without end as their covariance loses it, too",
                    "use a structure with fewer parameters (Toeplitz, AR1 or AnteDependence), or merge occasions",
                    SEE_RESIDUAL,
                )


def _remainder(X: FloatArray, Z: FloatArray, y: FloatArray, index: IntArray) -> tuple[float, int]:
    """Residual sum of squares of y on X and the subjects' own Z (never too small), and its degrees of freedom."""
    p = X.shape[1]
    columns = np.column_stack([X, y])
    freedom = len(y)
    if Z.shape[1]:
        Z = Z / np.maximum(np.sqrt(np.mean(Z**2, axis=0)), 1 / LARGEST)
        values, vectors = np.linalg.eigh(_by_subject(Z, Z, index))
        kept = values > 1e-12 * np.maximum(values[:, -1:], 1e-300)
        freedom -= int(kept[np.bincount(index, minlength=len(kept)) > 0].sum())
        weights = np.where(kept, 1 / np.where(kept, values, 1.0), 0.0)
        inverse = np.einsum("jab,jb,jcb->jac", vectors, weights, vectors)
        for _ in range(2):  # the second round removes the rounding errors of the first
            own = inverse @ _by_subject(Z, columns, index)
            columns = columns - np.einsum("iq,iqc->ic", Z, own[index])
    X_left, y_left = columns[:, :p], columns[:, p]
    norms = np.sqrt(np.einsum("ij,ij->j", X, X))
    X_left = X_left[:, np.sqrt(np.einsum("ij,ij->j", X_left, X_left)) > 1e-9 * norms]
    if X_left.shape[1] == 0:
        return float(y_left @ y_left), freedom
    X_left = X_left / np.sqrt(np.einsum("ij,ij->j", X_left, X_left))
    gram = X_left.T @ X_left
    inverse = np.linalg.pinv(gram, rcond=1e-13, hermitian=True)
    for _ in range(2):
        y_left = y_left - X_left @ (inverse @ (X_left.T @ y_left))
    return float(y_left @ y_left), freedom - int(np.linalg.matrix_rank(gram, tol=1e-13, hermitian=True))


def _by_subject(A: FloatArray, B: FloatArray, index: IntArray) -> FloatArray:
    """Cross-products A'B of each subject: (J, a, b)."""
    sums = [np.bincount(index, A[:, a] * B[:, b]) for a in range(A.shape[1]) for b in range(B.shape[1])]
    return np.stack(sums, axis=1).reshape(-1, A.shape[1], B.shape[1])


def _clearly_independent(columns: FloatArray, centres: FloatArray) -> bool:
    """A cheap sufficient condition: the correlation matrix of the columns is far from singular."""
    centred = columns - centres
    gram = centred.T @ centred
    norms = np.sqrt(np.diag(gram))
    raw = np.sqrt(np.einsum("ij,ij->j", columns, columns))
    if np.any(norms <= 1e-4 * raw):
        return False
    return columns.shape[1] == 0 or bool(np.linalg.eigvalsh(gram / np.outer(norms, norms))[0] > 1e-6)
