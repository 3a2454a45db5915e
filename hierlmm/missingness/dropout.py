"""Does dropping out depend on what was measured before? A discrete-time hazard model.

At each visit k after the first, of the subjects that are still there (measured at visit k - 1 or later),

    logit P(never measured again from visit k on | still there) = α_k + group + covariates + γ (last response before k)

fitted by maximum likelihood. γ = 0 is tested by the likelihood ratio, and so is that γ is the same in all groups. A
change from baseline tells of the past only together with the baseline, which is why covariates belong to it.
Visits and groups where nobody or everybody drops out say nothing about γ and are left out.

References
----------
Diggle, P. J., Kenward, M. G. (1994). Informative drop-out in longitudinal data analysis. Applied Statistics 43, 49-93.

Ridout, M. S. (1991). Testing for random dropouts in repeated measurement data. Biometrics 47, 1617-1621.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats
from scipy.special import expit, xlogy

from hierlmm.arrays import BoolArray, FloatArray, IntArray
from hierlmm.design.design import Design
from hierlmm.errors import DataError
from hierlmm.frames import apart, column_names, is_number, require_columns, to_pandas
from hierlmm.gee.record import fit_gee
from hierlmm.likelihood.estimate import maximise_design
from hierlmm.missingness.tables import counted
from hierlmm.missingness.visits import SEE, Visits, of_subjects, visits_of
from hierlmm.options import checked
from hierlmm.results import Page, Paragraph, Result
from hierlmm.text import number, probability_text, sayer

SAY = sayer(__file__)
HAZARD_COLUMNS = ("group", "at_risk", "dropped_out", "share", "last_of_dropped", "last_of_staying")
FEWEST = 5
"""Fewest drop-outs that a test can be made of."""
LEVEL = 0.05
STEPS, FAR = 50, 12.0
"""Newton steps, and a coefficient of a standardised covariate beyond which the data are separated."""


class Hazard(NamedTuple):
    """Rows of subjects still there: dropped out (n,), last response (n,), visit and group (n,), covariates (n, c)."""

    out: BoolArray
    previous: FloatArray
    visit: IntArray
    group: IntArray
    other: FloatArray


class Logistic(NamedTuple):
    """A logistic regression: coefficients, their covariance, log-likelihood."""

    coef: FloatArray
    covariance: FloatArray
    loglik: float


@checked
@dataclass(frozen=True, eq=False, repr=False)
class DropoutCheck(Result):
    """Whether dropping out depends on the last response. Frozen.

    Attributes
    ----------
    table : DataFrame
        Odds ratio of dropping out for a last response one SD higher, with 95 % interval (Wald), ``chi2``, ``df`` and
        ``p`` (likelihood ratio): over all, in each group, and whether the groups differ. A copy.
    hazards : DataFrame
        By visit (and group): subjects ``at_risk``, ``dropped_out``, their share, and the mean last response of those
        who dropped out and of those who stayed.
    estimates : DataFrame or None
        Of a model: estimates and standard errors by REML and by GEE with independent working correlation, and their
        ``difference`` in REML's standard errors.
    verdict : str
        What this means for likelihood fits and for GEE.
    sd : float
        SD of the last responses.
    covariates : tuple of str
        What the hazard depends on besides.
    """

    table: pd.DataFrame
    hazards: pd.DataFrame
    estimates: pd.DataFrame | None
    verdict: str
    response: str
    sd: float
    covariates: tuple[str, ...] = ()

    @property
    def p(self) -> float:
        """Of the test that dropping out does not depend on the last response."""
        return float(self.table["p"].iloc[0])

    def _page(self) -> Page:
        parts: list[Any] = ["", counted(self.table, "Odds ratios of dropping out"), ""]
        parts += [counted(self.hazards.reset_index(), "Drop-out by visit"), ""]
        if self.estimates is not None:
            parts += [counted(self.estimates.reset_index(), "Estimates by REML and by GEE"), ""]
        given = f", given {' and '.join(self.covariates)}" if self.covariates else ""
        title = f"Does dropping out depend on the last {self.response}{given}? (per SD, {number(self.sd)})"
        return Page(title, [*parts, Paragraph(self.verdict)])


@checked
def check_dropout(
    data: Any,
    *,
    response: str | None = None,
    subject: str | None = None,
    time: str | None = None,
    by: str | None = None,
    covariates: str | Sequence[str] | None = None,
) -> DropoutCheck:
    """Test whether dropping out depends on the last response, and say what that means for the estimates.

    Parameters
    ----------
    data : TwoLevelModel, MarginalModel, fit or table
        With a model, its estimates by REML and GEE stand side by side.
    response, subject, time : str, optional
        As in `missing_patterns`.
    by : str, optional
        Column that is constant within subjects, such as the treatment: drop-out may differ between its groups, and so
        may its dependence on the last response.
    covariates : str or sequence of str, optional
        Columns that are constant within subjects and that drop-out may depend on besides: by default those of the
        model or fit that are, and none of a table. Of a change from baseline name the baseline.

    Returns
    -------
    DropoutCheck

    Raises
    ------
    DataError
        If fewer than five subjects drop out, or a covariate varies within subjects.
    """
    visits = visits_of(data, response, subject, time, by)
    used, other = _covariates(data, visits, subject, by, covariates)
    rows, names = _rows(visits, other)
    table, sd = _tests(rows, names)
    design = getattr(data, "design", None)
    estimates = _side_by_side(design) if isinstance(design, Design) and design.is_gaussian and design.coef else None
    hazards = _hazards(visits, rows, names)
    p, odds = float(table["p"].iloc[0]), float(table["odds_ratio"].iloc[0])
    slots = {
        "p": "p < 0.0001" if p < 1e-4 else f"p = {probability_text(p)}",
        "odds": number(odds),
        "times": number(max(odds, 1.0 / odds)),
    }
    slots |= {"direction": "higher" if odds > 1.0 else "lower", "response": visits.response}
    verdict = SAY(f"dropout.{'depends' if p < LEVEL else 'open'}", **slots)
    if estimates is not None:
        most = estimates["difference"].abs()
        verdict += " " + SAY("dropout.beside", coef=most.idxmax(), size=float(most.max()))
    return DropoutCheck(table, hazards, estimates, verdict, visits.response, sd, used)


def _covariates(
    data: Any, visits: Visits, subject: str | None, by: str | None, asked: str | Sequence[str] | None
) -> tuple[tuple[str, ...], FloatArray]:
    """Names of the covariates, and their columns by subject (J, c): numbers in SDs, levels as 0 and 1."""
    design = getattr(data, "design", None)
    names = [asked] if isinstance(asked, str) else list(asked or ())
    if isinstance(design, Design):
        source, who = design.frame, design.hierarchy.subject
        if asked is None:
            names = [c for c in design.level2_variables() if c in source.columns]
        reason = "the covariates of a model"
    else:
        source, who, reason = data, str(subject), "covariates of drop-out"
    names = [name for name in dict.fromkeys(names) if name != by]
    require_columns(names, column_names(source), reason)
    frame, columns = to_pandas(source, [who, *names]), []
    for name in names:
        own = of_subjects(frame, who, name, visits.subjects, "covariates")
        if is_number(frame[name]):
            values = own.to_numpy(dtype=float, na_value=np.nan)
            sd = np.nanstd(values)
            columns.append((values - np.nanmean(values)) / (sd if sd > 0.0 else 1.0))
        else:
            code, levels = pd.factorize(own)
            columns += [np.where(code < 0, np.nan, code == k) for k in range(1, len(levels))]
    return tuple(names), np.array(columns).reshape(len(columns), len(visits.subjects)).T


def _rows(visits: Visits, other: FloatArray) -> tuple[Hazard, list[Any]]:
    """Rows of the hazard model, and the groups in order."""
    last, K = visits.last, len(visits.times)
    names = [] if visits.group is None else list(pd.unique(visits.group.dropna()))
    code = np.zeros(len(last), dtype=np.intp)
    if visits.group is not None:
        code = pd.Index(names).get_indexer(visits.group)
    filled = pd.DataFrame(visits.y).ffill(axis=1).to_numpy()
    parts = []
    for k in range(1, K):
        there = (last >= k - 1) & np.isfinite(filled[:, k - 1]) & (code >= 0)
        there &= np.isfinite(other).all(axis=1)
        parts.append((last[there] == k - 1, filled[there, k - 1], np.full(there.sum(), k), code[there], other[there]))
    return Hazard(*(np.concatenate(part) for part in zip(*parts, strict=True))), names


def _tests(rows: Hazard, names: list[Any]) -> tuple[pd.DataFrame, float]:
    """Likelihood-ratio tests and odds ratios, and the SD of the last responses."""
    rows = _informative(rows)
    if rows.out.sum() < FEWEST:
        received = f"{int(rows.out.sum())} subjects that drop out"
        reason = f"a test of what it depends on needs {FEWEST} or more"
        remedy = "see hl.missing_patterns(...): gaps between measurements are no drop-out"
        raise DataError(received, reason, remedy, SEE)
    sd = float(rows.previous.std())
    x = (rows.previous - rows.previous.mean()) / sd
    base = _dummies(rows.visit)
    if len(names) > 1:
        base = np.column_stack([base, _dummies(rows.group)[:, 1:]])
    base = np.column_stack([base, rows.other])
    null, one = logistic(base, rows.out), logistic(np.column_stack([base, x]), rows.out)
    lines = [_line("last response", one, len(one.coef) - 1) | _ratio(one.loglik - null.loglik, 1)]
    present = np.unique(rows.group)
    if len(names) > 1 and len(present) > 1:
        each = x[:, None] * (rows.group[:, None] == present)
        many = logistic(np.column_stack([base, each]), rows.out)
        first = base.shape[1]
        lines += [_line(f"last response, {names[g]}", many, first + k) for k, g in enumerate(present)]
        lines.append({"effect": "groups differ in it"} | _ratio(many.loglik - one.loglik, len(present) - 1))
    columns = ["effect", "odds_ratio", "lower", "upper", "chi2", "df", "p"]
    return pd.DataFrame(lines).reindex(columns=columns), sd


def _informative(rows: Hazard) -> Hazard:
    """Rows of visits, and of groups, in which some drop out and some stay."""
    keep = np.ones(len(rows.out), dtype=bool)
    while True:
        before = keep.sum()
        for label in (rows.visit, rows.group):
            for value in np.unique(label[keep]):
                own = keep & (label == value)
                if rows.out[own].all() or not rows.out[own].any():
                    keep &= label != value
        if keep.sum() == before:
            return Hazard._make(part[keep] for part in rows)


def _dummies(labels: IntArray) -> FloatArray:
    return (labels[:, None] == np.unique(labels)).astype(float)


def _line(effect: str, fit: Logistic, k: int) -> dict[str, Any]:
    at, se = float(fit.coef[k]), float(np.sqrt(fit.covariance[k, k]))
    half = stats.norm.ppf(0.975) * se
    low, high = np.exp(np.clip([at - half, at + half], -700.0, 700.0))
    return {"effect": effect, "odds_ratio": float(np.exp(at)), "lower": float(low), "upper": float(high)}


def _ratio(gain: float, df: int) -> dict[str, float]:
    chi2 = max(2.0 * gain, 0.0)
    return {"chi2": chi2, "df": df, "p": float(stats.chi2.sf(chi2, df))}


def logistic(X: FloatArray, out: BoolArray) -> Logistic:
    """Logistic regression by Newton's method; a separated coefficient stops where the likelihood is flat.

    Parameters
    ----------
    X : (n, p)
    out : (n,)
    """
    coef, y, value = np.zeros(X.shape[1]), out.astype(float), -np.inf

    def loglik(at: FloatArray) -> float:
        return float(np.sum(xlogy(y, expit(X @ at)) + xlogy(1.0 - y, expit(-X @ at))))

    def information(mu: FloatArray) -> FloatArray:
        return np.asarray((X * (mu * (1.0 - mu))[:, None]).T @ X)

    for _ in range(STEPS):
        mu = expit(X @ coef)
        step = np.linalg.lstsq(information(mu), X.T @ (y - mu), rcond=None)[0]
        step *= min(1.0, 4.0 / max(float(np.abs(step).max()), 1e-300))
        while (new := loglik(coef + step)) < value - 1e-12 and np.abs(step).max() > 1e-10:
            step *= 0.5
        coef, gained, value = coef + step, new - value, new
        if gained < 1e-10 or np.abs(coef).max() > FAR:
            break
    return Logistic(coef, np.linalg.pinv(information(expit(X @ coef))), value)


def _hazards(visits: Visits, rows: Hazard, names: list[Any]) -> pd.DataFrame:
    """Who was at risk and who dropped out, by visit and group."""
    lines, label = [], apart([visits.time], HAZARD_COLUMNS)[visits.time]
    for g, name in enumerate(names or ["all"]):
        for k in range(1, len(visits.times)):
            own = (rows.visit == k) & (rows.group == g)
            out = rows.out[own]
            line = {"group": name, label: visits.times[k], "at_risk": int(own.sum())}
            line["dropped_out"] = int(out.sum())
            line["share"] = out.mean() if len(out) else np.nan
            for word, chosen in (("last_of_dropped", out), ("last_of_staying", ~out)):
                line[word] = rows.previous[own][chosen].mean() if chosen.any() else np.nan
            lines.append(line)
    frame = pd.DataFrame(lines).set_index(["group", label])
    return frame if names else frame.droplevel("group")


def _side_by_side(design: Design) -> pd.DataFrame:
    """Estimates by REML and by GEE, and what is between them."""
    reml = maximise_design(design, reml=True).solution
    gee = fit_gee(design, "independence").estimate
    se = np.sqrt(np.diag(reml.beta_cov))
    columns = {"reml": reml.beta, "reml_se": se, "gee": gee.beta, "gee_se": np.sqrt(np.diag(gee.cov_robust))}
    found = pd.DataFrame(columns, index=pd.Index(design.coef, name="coef"))
    return found.assign(difference=(found["gee"] - found["reml"]) / se)
