"""A level-1 covariate has two slopes: within subjects and between them.

    x_ij = x̄_i + (x_ij - x̄_i),        y_ij = ... + γ_B x̄_i + γ_W (x_ij - x̄_i) + ...

With x alone in the model its coefficient is a weighted mean of γ_W and γ_B, which answers neither question unless the
two are equal. γ_B - γ_W is the contextual effect: the coefficient of x̄_i in a model that also has x_ij (Mundlak 1978).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy.stats import norm

from hierlmm.design.formula import variables_of
from hierlmm.errors import DataError, SpecificationError, closest, warn
from hierlmm.frames import MISSING_CHOICES, column_names, require_columns, shorten, to_pandas
from hierlmm.options import checked, renamed
from hierlmm.results import Page, Paragraph, Result
from hierlmm.text import fill, span, templates
from hierlmm.timevarying.history import is_real, subject_codes

SEE = "docs, page 'Time-varying covariates', section 'Within and between subjects'"
data_error = partial(DataError, see=SEE)
specification_error = partial(SpecificationError, see=SEE)


@renamed(x="variables")
@checked
def within_between(
    data: Any,
    variables: str | Sequence[str],
    *,
    subject: str,
    within: str = "{x}_within",
    between: str = "{x}_between",
    missing: str = "raise",
) -> pd.DataFrame:
    """Split covariates into the subject's mean (level 2) and the deviation from it (level 1).

    Parameters
    ----------
    data : DataFrame
        Pandas, or anything narwhals reads; one row per measurement. Not changed.
    variables : str or list of str
        Numeric (or true-and-false) columns that vary within subjects.
    subject : str
        Column that names the subject.
    within, between : str
        Names of the new columns; ``{x}`` stands for the covariate.
    missing : {"raise", "drop"}
        Missing values of a covariate are refused, or left out of the mean (their deviation is missing; the rows stay).

    Returns
    -------
    pandas.DataFrame
        The table with two more columns for each covariate; every row of a subject counts equally in the mean.
        ``attrs["within_between"]`` says in words what was done.

    Raises
    ------
    DataError
        If a column is absent, not numeric, infinite, missing, or the same in all rows of every subject.
    SpecificationError
        If a new name is taken.

    Warns
    -----
    FitWarning
        If subjects have one row: their deviation is zero and says nothing about the slope within subjects.

    Notes
    -----
    The mean is over all rows of the subject, later ones included. As a description of the subject this is what the
    level-2 slope is about; as a predictor it looks into the future. The mean so far is
    ``Cumulative("x", average=True)`` in `time_varying`; it changes over time and belongs to level 1.

    If a model then drops rows, for example because the outcome is missing, the mean is still over the rows given here.

    Examples
    --------
    >>> import pandas as pd
    >>> frame = pd.DataFrame({"id": [1, 1, 2, 2], "x": [1.0, 3.0, 5.0, 5.0]})
    >>> within_between(frame, "x", subject="id")
       id    x  x_between  x_within
    0   1  1.0        2.0      -1.0
    1   1  3.0        2.0       1.0
    2   2  5.0        5.0       0.0
    3   2  5.0        5.0       0.0
    """
    if missing not in MISSING_CHOICES:
        received = f"missing={missing!r}"
        raise specification_error(received, "there is no such choice", "use missing='raise' or missing='drop'")
    names = [variables] if isinstance(variables, str) else list(variables)
    if not names:
        received = "no covariate to split"
        raise specification_error(received, "variables is empty", 'name one or more columns, as in variables="dose"')
    rows = to_pandas(data)
    require_columns([subject], column_names(rows), "subject")
    require_columns(names, column_names(rows), "covariate")
    codes, labels = subject_codes(rows[subject], "the data")
    counts = np.bincount(codes, minlength=len(labels))
    added: dict[str, np.ndarray] = {}
    notes = []
    for name in names:
        pair = [between.format(x=name), within.format(x=name)]
        values, n_absent = _numbers(rows[name], missing)
        mean, deviation, share = _split(name, values, codes)
        for new, column in zip(pair, (mean, deviation), strict=True):
            if new in rows or new in added:
                remedy = "choose other names with within= and between= (with {x} in them for several covariates)"
                raise specification_error(f"a new column {new!r}", "a column of this name is already there", remedy)
            added[new] = column
        note = (
            f"{pair[0]} is the mean of {name!r} over all rows of the subject, later ones included; {pair[1]} is the "
            f"deviation from it. {share:z.0f} % of the variance of {name!r} lies between subjects."
        )
        notes.append(note + (f" {n_absent} missing values were left out of the means." if n_absent else ""))
    single = int((counts == 1).sum())
    if single:
        text = (
            f"{single} of {len(labels)} subjects ({subject!r}: {shorten(labels[np.flatnonzero(counts == 1)], 3)}) have "
            "one row: their deviation is zero, and they say nothing about the slope within subjects."
        )
        notes.append(text)
        warn(text)
    result = rows.assign(**added)
    result.attrs["within_between"] = notes
    return result


def _split(name: str, values: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Mean of the subject and deviation from it in every row, and the share of the variance between, in per cent."""
    mean = pd.Series(values).groupby(codes).transform("mean").to_numpy()
    deviation = values - mean
    if not _varies(values, deviation):
        reason = "it is the same in all rows of each subject, so it has no slope within subjects"
        raise data_error(f"the covariate {name!r}", reason, "use it as a level-2 covariate as it is")
    return mean, deviation, 100 * np.nanvar(mean[np.isfinite(values)]) / np.nanvar(values)


def _numbers(column: pd.Series, missing: str) -> tuple[np.ndarray, int]:
    if not is_real(column.dtype):
        remedy = "split the 0/1 columns of its levels, for example data[name] == 'yes'"
        raise data_error(f"the covariate {column.name!r} of type {column.dtype}", "labels have no mean", remedy)
    values = column.to_numpy(np.float64, na_value=np.nan)
    absent = int(np.isnan(values).sum())
    if absent and (missing == "raise" or absent == len(values)):
        received = f"missing values in {column.name} ({absent})"
        remedy = "drop these rows first, or pass missing='drop' to leave them out of the mean"
        raise data_error(received, "the mean of a subject would be over other rows than the model's", remedy)
    if np.isinf(values).any():
        raise data_error(f"infinite values in {column.name!r}", "they have no mean", "correct or drop them")
    return values, absent


def _varies(values: np.ndarray, deviation: np.ndarray) -> bool:
    size = float(np.nanmax(np.abs(values), initial=0.0))
    return bool(np.nanmax(np.abs(deviation), initial=0.0) > 1e-12 * size)


# --- Are the two slopes equal? ----------------------------------------------------------------------------------------


@checked
@dataclass(frozen=True, eq=False, repr=False)
class WithinBetweenTest(Result):
    """The slopes within and between subjects, and whether they are equal.

    Attributes
    ----------
    kind : {"wald", "posterior"}
    within, between : float
        The two slopes (posterior means).
    difference, se : float
        Between minus within, the contextual effect, and its standard error (posterior SD).
    lower, upper : float
        Its interval (equal-tailed for a posterior).
    z, p : float
        Wald statistic and two-sided p value; NaN for a posterior.
    probability : float
        Posterior probability that between exceeds within; NaN otherwise.
    ci : float
    names : (str, str)
        The coefficients compared: within, between.
    estimator : str
    """

    kind: Literal["wald", "posterior"]
    within: float
    between: float
    difference: float
    se: float
    lower: float
    upper: float
    z: float
    p: float
    probability: float
    ci: float
    names: tuple[str, str]
    estimator: str

    @property
    def sentences(self) -> tuple[str, ...]:
        """The result in plain words."""
        w, b = self.names
        slots = {"w": w, "b": b, "ci": f"{100 * self.ci:g}", "span": span(self.lower, self.upper), "p": f"{self.p:.3g}"}
        slots |= {name: f"{getattr(self, name):.4g}" for name in ("within", "between", "difference")}
        slots |= {"z": f"{self.z:z.3f}", "probability": f"{self.probability:z.3f}", "estimator": self.estimator}
        names = ("found", self.kind, "differ" if self.lower > 0 or self.upper < 0 else "open")
        return tuple(fill(templates(__file__)["levels"][name], **slots) for name in names)

    @property
    def frame(self) -> pd.DataFrame:
        """The two slopes and their difference, one row."""
        fields = ("within", "between", "difference", "se", "lower", "upper", "z", "p", "probability")
        return pd.DataFrame({name: [getattr(self, name)] for name in fields})

    def _page(self) -> Page:
        return Page("", [Paragraph(s) for s in self.sentences])


@checked
def test_within_between(fit: Any, within: str, between: str, *, ci: float = 0.95) -> WithinBetweenTest:
    """Test that the slopes within and between subjects are equal.

    Parameters
    ----------
    fit : fit
        Anything with ``beta`` and ``beta_cov``; a fit with draws (``datatree``) gives a posterior answer instead of a
        Wald test. The model must contain both columns of `within_between`.
    within, between : str
        Their coefficients.
    ci : float
        Probability of the interval.

    Returns
    -------
    WithinBetweenTest

    Raises
    ------
    SpecificationError
        If the fit has no such coefficients, or they are not those of the two columns of `within_between`: one that is
        constant within subjects, one that varies around zero within them, of the same covariate.

    Notes
    -----
    Whether two columns belong to one covariate is known only from names as `within_between` gives them (``x_within``,
    ``x_between``); of other names it is taken on trust.

    The Wald test uses the normal distribution, which is too generous with few subjects. In a model of x itself and its
    mean, the coefficient of the mean is the same difference.
    """
    coefs = [str(c) for c in fit.beta.index]
    for name in (within, between):
        if name not in coefs:
            received = f"the coefficient {name!r}"
            remedy = f"fit a model with both columns of within_between; its coefficients are {shorten(coefs)}"
            raise specification_error(received, f"the fit has none of this name.{closest(name, coefs)}", remedy)
    if within == between:
        received = f"{within!r} twice"
        raise specification_error(received, "a slope is equal to itself", "name the slope within and the slope between")
    _check_pair(getattr(fit, "design", None), within, between)
    tail = (1.0 - ci) / 2.0
    if hasattr(fit, "datatree"):
        beta = fit.datatree["posterior"]["beta"]
        w, b = (beta.sel(coef=name).to_numpy().ravel() for name in (within, between))
        gap = b - w
        lower, upper = np.quantile(gap, [tail, 1.0 - tail])
        return WithinBetweenTest(
            "posterior", float(w.mean()), float(b.mean()), float(gap.mean()), float(gap.std(ddof=1)), float(lower),
            float(upper), np.nan, np.nan, float((gap > 0).mean()), ci, (within, between), str(fit.estimator),
        )  # fmt: skip
    w, b = float(fit.beta[within]), float(fit.beta[between])
    cov = fit.beta_cov.loc[[within, between], [within, between]].to_numpy()
    se = float(np.sqrt(cov[0, 0] + cov[1, 1] - 2.0 * cov[0, 1]))
    z = (b - w) / se
    half = float(norm.ppf(1.0 - tail)) * se
    return WithinBetweenTest(
        "wald", w, b, b - w, se, b - w - half, b - w + half, float(z), float(2.0 * norm.sf(abs(z))), np.nan, ci,
        (within, between), str(fit.estimator),
    )  # fmt: skip


def _check_pair(design: Any, within: str, between: str) -> None:
    """Refuse coefficients that are not those of a mean of the subject and a deviation from it."""
    if design is None:
        return
    remedy = "name the coefficients of the two columns of within_between, first the deviation, then the mean"
    columns = {}
    for name in (within, between):
        k = list(design.coef).index(name)
        term = design.fixed_columns[k].term
        if len(term) != 1 or set(variables_of(term[0], list(design.frame.columns))) & set(design.levels.categories):
            reason = "it is not the slope of a numeric covariate (but an intercept, a difference or an interaction)"
            raise specification_error(f"the coefficient {name!r}", reason, remedy)
        columns[name] = design.X[:, k]
    by_subject = {n: pd.Series(c).groupby(design.subject_index).transform("mean") for n, c in columns.items()}
    if _varies(columns[between], columns[between] - by_subject[between].to_numpy()):
        received = f"{between!r} as the slope between subjects"
        raise specification_error(received, "its covariate varies within subjects", remedy)
    if not _varies(columns[within], columns[within] - by_subject[within].to_numpy()):
        received = f"{within!r} as the slope within subjects"
        raise specification_error(received, "its covariate is constant within every subject", remedy)
    if np.sum(by_subject[within] ** 2) > 0.5 * np.sum(columns[within] ** 2):
        reason = "its covariate is no deviation from the subject's mean: the subjects' means of it are far from zero"
        remedy = f"{remedy}; if rows were left out after the split, split the rows that are left"
        raise specification_error(f"{within!r} as the slope within subjects", reason, remedy)
    x, mean = within.removesuffix("_within"), between.removesuffix("_between")
    if x != within and mean != between and x != mean:
        received = f"{within!r} and {between!r}"
        raise specification_error(received, f"they are of two covariates, {x!r} and {mean!r}", remedy)


test_within_between.__test__ = False  # type: ignore[attr-defined]  # its name begins like a test's; pytest must not collect it
