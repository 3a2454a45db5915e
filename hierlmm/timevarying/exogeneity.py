"""Whether the past outcome predicts the covariate, given the covariate's own past.

A time-varying covariate is exogenous if p{x(t) | H_x(t), H_y(t)} = p{x(t) | H_x(t)}: what was seen of y adds nothing.
The check is one pooled linear regression with past x on the right as well,

    x_ij = α + Σ_l φ_l x_{i,j-l} + φ̄ x̄_{i,<j} + trend(t_ij) + gap terms + Σ_l δ_l y_{i,j-l} + e_ij,      H₀: δ = 0,

with a cluster-robust variance. It has no subject effects on purpose: a random intercept is correlated with x_{i,j-1} by
construction, which biases φ and with it δ in short panels (Nickell 1981). What persists in a subject is carried by the
mean of the subject's past, x̄_{i,<j}, instead.

The variance is the cluster jackknife (CV3): leaving out subject g changes δ̂ by (X'X - X_g'X_g)⁻¹ X_g'e_g, which needs
one k×k solve for each subject and no refit. Statistics are referred to t and F with J - 1 degrees of freedom.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import f as f_distribution
from scipy.stats import t as t_distribution

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.errors import DataError, SpecificationError, warn
from hierlmm.frames import column_names, complete_rows, quote, require_columns, to_pandas
from hierlmm.options import checked, renamed
from hierlmm.results import Page, Paragraph, Result
from hierlmm.text import fill, templates
from hierlmm.timevarying.history import is_real, subject_codes, time_values

SEE = "docs, page 'Time-varying covariates', section 'Does the outcome drive the covariate?'"
data_error = partial(DataError, see=SEE)
specification_error = partial(SpecificationError, see=SEE)
RANK_TOLERANCE = 1e-9
FEW_SUBJECTS = 20


@checked
@dataclass(frozen=True, eq=False, repr=False)
class ExogeneityCheck(Result):
    """Whether past outcomes predict a covariate, given the covariate's own past.

    Attributes
    ----------
    table : pandas.DataFrame
        One row for each lag of the outcome: ``estimate`` (units of x per unit of y), ``se``, ``lower``, ``upper``,
        ``t``, ``p``, and ``standardised`` (SDs of x per SD of y).
    statistic, df1, df2, p : float
        Wald F statistic of all lags of the outcome together, its degrees of freedom, and its p value.
    detectable : float
        The standardised coefficient of the first lag that this test finds with a probability of 0.8.
    coefficients : pandas.DataFrame
        The whole regression: ``estimate`` and ``se``, in the units of the columns (time is centred and scaled).
    n_obs, n_subjects : int
        Rows and subjects in the regression; the first `lags` rows of each subject only serve as past.
    response, variable : str
    alpha : float
        Significance level of the words.
    """

    table: pd.DataFrame
    statistic: float
    df1: int
    df2: int
    p: float
    detectable: float
    coefficients: pd.DataFrame
    n_obs: int
    n_subjects: int
    response: str
    variable: str
    alpha: float

    @property
    def endogenous(self) -> bool:
        """Whether exogeneity is rejected at `alpha`. False does not mean that the covariate is exogenous."""
        return self.p < self.alpha

    @property
    def sentences(self) -> tuple[str, ...]:
        """The finding and what it means for the model, in plain words."""
        first = self.table.iloc[0]
        way, size = "higher" if first["estimate"] > 0 else "lower", f"{abs(first['estimate']):.4g}"
        slots = {"x": repr(self.variable), "y": repr(self.response), "size": size, "way": way}
        slots |= {"se": f"{first['se']:.3g}", "standardised": f"{first['standardised']:z.3f}", "p": f"{self.p:.2g}"}
        slots |= {"statistic": f"{self.statistic:z.2f}", "detectable": f"{self.detectable:z.3f}"}
        slots |= {name: str(getattr(self, name)) for name in ("df1", "df2", "n_obs", "n_subjects")}
        names = ["found", "test", "endogenous" if self.endogenous else "no_evidence"]
        return tuple(fill(text, **slots) for name in names for text in templates(__file__)["exogeneity"][name])

    def _page(self) -> Page:
        head = f"Exogeneity of {self.variable!r} with respect to the past of {self.response!r}"
        return Page(head, [Paragraph(s, rest="  ") for s in self.sentences])


@renamed(covariate="variable", adjust="adjust_for", level="alpha")
@checked
def check_exogeneity(
    data: Any,
    *,
    response: str,
    variable: str,
    subject: str,
    time: str,
    adjust_for: Sequence[str] = (),
    lags: int = 1,
    time_degree: int = 3,
    alpha: float = 0.05,
    missing: str = "raise",
) -> ExogeneityCheck:
    """Check whether past outcomes predict a covariate, given the covariate's own past.

    Parameters
    ----------
    data : DataFrame
        One row per measurement of outcome and covariate together: pandas, or anything narwhals reads.
    response, variable : str
        Numeric columns y and x (make a column of ``log(y)`` if that is what the model has).
    subject, time : str
        Who, and when (a number).
    adjust_for : list of str
        Further columns to hold fixed, at the time of x: treatment, age, ... Numbers or labels.
    lags : int
        How many previous measurements of x and of y; all lags of y are tested together.
    time_degree : int
        Degree of the polynomial in time, lowered where there are too few distinct times.
    alpha : float
        Significance level at which the words say "endogenous".
    missing : {"raise", "drop"}
        Rows with missing values are refused, or left out; the previous measurement is then the previous complete one.

    Returns
    -------
    ExogeneityCheck
        Prints the finding and what it means for the model.

    Raises
    ------
    DataError
        If a column is absent, not numeric or constant (also within every subject); if a subject has several rows at one
        time; if there are too few rows or subjects; if the past of y is an exact linear function of the other terms.
    SpecificationError
        If an option has no meaning.

    Warns
    -----
    FitWarning
        With fewer than 20 subjects in the regression.

    Notes
    -----
    The regression has the previous values of x, the mean of x so far (what persists in a subject), a polynomial in
    time, the time since the previous measurement and its product with the previous x (where it varies), and
    ``adjust_for``. Pooled least squares with cluster-jackknife standard errors; see Pepe, M. S., Anderson, G. L.
    (1994), Communications in Statistics - Simulation and Computation 23, 939-951; Diggle, P. J., Heagerty, P.,
    Liang, K.-Y., Zeger, S. L. (2002), Analysis of Longitudinal Data, 2nd ed., chapter 12; Nickell, S. (1981),
    Econometrica 49, 1417-1426.
    """
    _check_options(lags, time_degree, alpha)
    if response == variable:
        received = f"{response!r} as response and as covariate"
        raise specification_error(received, "a variable is not its own covariate", "name two columns")
    wanted = list(dict.fromkeys([subject, time, response, variable, *adjust_for]))
    table = to_pandas(data)
    roles = [(subject, "subject"), (time, "time"), (response, "response"), (variable, "covariate")]
    for name, role in [*roles, *((name, "column to adjust for") for name in adjust_for)]:
        require_columns([name], column_names(table), role)
    rows, _ = complete_rows(table[wanted], missing, [subject])
    y, x = (_numbers(rows[name]) for name in (response, variable))
    codes, labels = subject_codes(rows[subject], "the data")
    at = time_values(rows[time], "the data")
    order = np.lexsort((at, codes))
    codes, at, x, y, rows = codes[order], at[order], x[order], y[order], rows.iloc[order]
    for name, values in ((variable, x), (response, y)):
        _refuse_constant_within(name, values, codes)
    again = np.flatnonzero((codes[1:] == codes[:-1]) & (at[1:] == at[:-1]))
    if len(again):
        received = f"several rows of subject {quote(labels[codes[again[0]]])} at time {at[again[0]]:g}"
        reason = "which of them came first decides what is past"
        raise data_error(received, reason, "keep one row for each subject and time")
    place = np.asarray(pd.Series(codes).groupby(codes).cumcount(), dtype=np.int64)
    use = np.flatnonzero(place >= lags)
    if not len(use):
        raise _too_few(0, 0, lags, lags + 2)
    panel = _Panel(response, variable, rows, codes, at, x, y, place, use)
    nuisance, tested = _terms(panel, adjust_for, lags, time_degree)
    n_subjects = len(np.unique(codes[use]))
    k = len(nuisance) + len(tested)
    if n_subjects < 5 or len(use) <= 2 * k:
        raise _too_few(len(use), n_subjects, lags, k)
    if n_subjects < FEW_SUBJECTS:
        warn(f"The check rests on {n_subjects} subjects; its p value is rough with fewer than {FEW_SUBJECTS}.")
    return _result(panel, tested, *_jackknife(nuisance, tested, x[use], codes[use]), alpha)


def _too_few(n_rows: int, n_subjects: int, lags: int, n_terms: int) -> DataError:
    received = f"{n_rows} rows of {n_subjects} subjects that have {lags} earlier measurement{'s' if lags > 1 else ''}"
    remedy = "use fewer lags, a lower time_degree or fewer columns to adjust for; or collect more"
    return data_error(received, f"a regression with {n_terms} terms cannot be judged from so few", remedy)


def _check_options(lags: int, time_degree: int, alpha: float) -> None:
    for name, value, least in (("lags", lags, 1), ("time_degree", time_degree, 0)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            reason = f"it must be a whole number, {least} or more"
            raise specification_error(f"{name}={value!r}", reason, f"use {name}={max(least, 1)}")
    if not 0 < alpha < 1:
        raise specification_error(f"alpha={alpha!r}", "it is not between 0 and 1", "use alpha=0.05, for example")


def _numbers(column: pd.Series) -> FloatArray:
    if not is_real(column.dtype):
        received = f"{column.name!r} of type {column.dtype}"
        raise data_error(received, "the check is a linear regression and needs numbers", "code it 0 and 1")
    values = column.to_numpy(np.float64)
    if not np.isfinite(values).all():
        raise data_error(f"infinite values in {column.name!r}", "they cannot be used", "correct or drop them")
    if len(values) and np.ptp(values) == 0:
        raise data_error(f"{column.name!r}, which is constant", "nothing can predict or be predicted by it", "check it")
    return values


def _refuse_constant_within(name: str, values: FloatArray, codes: NDArray[np.int64]) -> None:
    """Refuse a column of level 2: its previous value is its value, and what is left to explain is rounding error."""
    groups = pd.Series(values).groupby(codes)
    widest = float((groups.max() - groups.min()).max())
    if widest <= 1e-12 * float(np.max(np.abs(values))) and len(values) > groups.ngroups:
        received = f"{name!r}, which is the same in all rows of each subject"
        reason = "it does not change over time, so there is nothing that the past could add"
        raise data_error(received, reason, "a level-2 covariate needs no check of this kind: use it as it is")


class _Panel(NamedTuple):
    """Rows sorted by subject and time; ``place`` of each in its subject, ``use``: those with enough rows before."""

    response: str
    variable: str
    rows: pd.DataFrame
    codes: NDArray[np.int64]
    at: FloatArray
    x: FloatArray
    y: FloatArray
    place: NDArray[np.int64]
    use: IntArray


def _terms(
    panel: _Panel, adjust_for: Sequence[str], lags: int, time_degree: int
) -> tuple[dict[str, FloatArray], dict[str, FloatArray]]:
    """Columns of the regression: those held fixed, and the lags of the outcome."""
    response, variable, rows, codes, at, x, y, place, use = panel
    nuisance: dict[str, FloatArray] = {"Intercept": np.ones(len(use))}
    for lag in range(1, lags + 1):
        nuisance[f"{variable}, {_before(lag)}"] = x[use - lag]
    so_far = pd.Series(x - x.mean()).groupby(codes).cumsum().to_numpy() / (place + 1.0) + x.mean()
    nuisance[f"{variable}, mean so far"] = so_far[use - 1]
    when = at[use]
    spread = np.ptp(when)
    scaled = 2.0 * (when - when.min()) / spread - 1.0 if spread > 0 else np.zeros(len(use))
    for degree in range(1, min(time_degree, len(np.unique(when)) - 1) + 1):
        nuisance[f"time ** {degree}" if degree > 1 else "time"] = scaled**degree
    gap = at[use] - at[use - 1]
    if len(use) and np.ptp(gap) > 1e-9 * np.max(gap):
        nuisance["gap"] = gap
        nuisance[f"gap:{variable}, {_before(1)}"] = (gap - gap.mean()) * (x[use - 1] - x.mean())
    for name in adjust_for:
        column = rows[name].iloc[use]
        if is_real(column.dtype):
            nuisance[name] = column.to_numpy(np.float64)
        else:
            dummies = pd.get_dummies(column.astype(str), prefix=name, prefix_sep="=", drop_first=True, dtype=float)
            nuisance |= {str(c): dummies[c].to_numpy() for c in dummies}
    return nuisance, {f"{response}, {_before(lag)}": y[use - lag] for lag in range(1, lags + 1)}


def _before(lag: int) -> str:
    return "previous" if lag == 1 else f"{lag} before"


def _jackknife(
    nuisance: dict[str, FloatArray], tested: dict[str, FloatArray], x: FloatArray, codes: NDArray[np.int64]
) -> tuple[list[str], FloatArray, FloatArray]:
    """Least squares and its cluster-jackknife covariance; nuisance terms that add nothing are left out."""
    X = np.column_stack([*nuisance.values(), *tested.values()])
    names = [*nuisance, *tested]
    scale = np.linalg.norm(X, axis=0)
    scale[scale == 0] = 1.0
    size = np.abs(np.diag(np.linalg.qr(X / scale, mode="r")))  # what each column adds to those before it
    adds = size > RANK_TOLERANCE
    if not adds[len(nuisance) :].all():
        lost = next(n for n, a in zip(tested, adds[len(nuisance) :], strict=True) if not a)
        reason = "it is an exact linear function of past x, time and the columns adjusted for"
        raise data_error(f"{lost}", reason, "check whether one column was computed from another")
    X, names = X[:, adds] / scale[adds], [n for n, a in zip(names, adds, strict=True) if a]
    Q, R = np.linalg.qr(X)  # in an orthonormal basis every X'X below is I
    coef = Q.T @ x
    residual = x - Q @ coef
    _, group = np.unique(codes, return_inverse=True)
    starts = np.flatnonzero(np.diff(group, prepend=-1))  # rows come sorted by subject
    scores = np.add.reduceat(Q * residual[:, None], starts, axis=0)
    inner = np.stack([np.add.reduceat(Q * Q[:, [j]], starts, axis=0) for j in range(Q.shape[1])], axis=1)
    leave = np.eye(Q.shape[1]) - inner
    if np.min(np.linalg.eigvalsh(leave)[:, 0]) < RANK_TOLERANCE:
        received = "a regression that one subject alone decides"
        remedy = "leave out the columns to adjust for that only one subject has, or lower time_degree"
        raise data_error(received, "without that subject some term could not be estimated", remedy)
    change = np.linalg.solve(leave, scores[:, :, None])[:, :, 0]
    change -= change.mean(axis=0)
    back, J = np.linalg.inv(R) / scale[adds][:, None], len(starts)
    return names, back @ coef, back @ ((J - 1.0) / J * change.T @ change) @ back.T


def _result(
    panel: _Panel, tested: dict[str, FloatArray], names: list[str], estimate: FloatArray, cov: FloatArray, alpha: float
) -> ExogeneityCheck:
    n_subjects, at = len(np.unique(panel.codes[panel.use])), [names.index(n) for n in tested]
    delta, V = estimate[at], cov[np.ix_(at, at)]
    se, df = np.sqrt(np.diag(V)), n_subjects - 1
    q = len(at)
    statistic = float(delta @ np.linalg.solve(V, delta)) / q
    half = float(t_distribution.ppf(0.975, df)) * se
    ratio = np.array([np.std(values) for values in tested.values()]) / np.std(panel.x[panel.use])
    columns = {"estimate": delta, "se": se, "lower": delta - half, "upper": delta + half, "t": delta / se}
    columns |= {"p": 2.0 * t_distribution.sf(np.abs(delta / se), df), "standardised": delta * ratio}
    table = pd.DataFrame(columns, index=pd.Index(list(tested), name="past outcome"))
    reach = float(t_distribution.ppf(1.0 - alpha / 2.0, df) + t_distribution.ppf(0.8, df))
    coefficients = pd.DataFrame({"estimate": estimate, "se": np.sqrt(np.diag(cov))}, index=pd.Index(names, name="term"))
    p, detectable = float(f_distribution.sf(statistic, q, df)), float(reach * se[0] * ratio[0])
    about = (len(panel.use), n_subjects, panel.response, panel.variable, alpha)
    return ExogeneityCheck(table, statistic, q, df, p, detectable, coefficients, *about)
