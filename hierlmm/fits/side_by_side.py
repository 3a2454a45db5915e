"""What fits have in common and where they differ: labels, the stacked estimates, and whether the question is one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.covariance.random import SPECTRAL
from hierlmm.design.design import Design
from hierlmm.design.factors import finest_first
from hierlmm.equations.residual_symbols import spec_text
from hierlmm.errors import DataError, NotAvailableError, SpecificationError, closest
from hierlmm.fits.base import Fit
from hierlmm.fits.components import correlated_pairs
from hierlmm.frames import quote, shorten
from hierlmm.options import checked
from hierlmm.results import Result

COLUMNS = ["estimate", "se", "lower", "upper"]
SEE = "docs, page 'Comparing estimators'"
MARGINAL_SIGMA = "sigma (marginal)"
"""σ of a model without random effects beside one that has them: the SD of a row, not the SD within a subject."""
SCALE_SIGMA = "scale sigma (Student's t)"
"""σ of Student's t beside another family: no standard deviation."""
TOLERANCE = 1e-10
"""Values of a column that are closer than this, relative to its largest, are taken as equal."""


@checked
@dataclass(frozen=True, eq=False, repr=False)
class SideBySide(Result):
    """Fits by label, the reference among them, and what they say about the same parameters; see `Comparison`."""

    fits: Mapping[str, Fit]
    table: pd.DataFrame
    reference: str
    ci: float
    flag_above: float
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "fits", MappingProxyType(dict(self.fits)))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "fits": dict(self.fits)}  # a read-only mapping cannot be pickled

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__post_init__()

    @property
    def labels(self) -> list[str]:
        """Labels of the fits."""
        return list(self.fits)

    @property
    def flagged(self) -> pd.DataFrame:
        """The rows of `table` whose difference is flagged, largest first."""
        table = self.table
        return table[table["flag"]].sort_values("difference", key=np.abs, ascending=False, ignore_index=True)

    @property
    def statistics(self) -> pd.DataFrame:
        """Sizes, log-likelihood, information criteria and diagnostics, statistic × estimator (NaN where undefined)."""
        rows = {label: fit_statistics(fit) for label, fit in self.fits.items()}
        return pd.DataFrame(rows, dtype=object).rename_axis(index="statistic", columns="estimator").dropna(how="all")

    def wide(self) -> pd.DataFrame:
        """Parameters × (estimator, column), for reading and for export."""
        table, columns = self.table, [*COLUMNS, "difference"]
        parameters = pd.Index(table["parameter"].unique(), name="parameter")
        own = {label: rows.set_index("parameter")[columns] for label, rows in table.groupby("estimator")}
        by_label = {label: own[label].reindex(parameters) for label in self.labels}
        return pd.concat(by_label, axis=1, names=["estimator", None])


def label_fits(fits: Iterable[Fit], labels: Sequence[str] | None = None) -> dict[str, Fit]:
    """Name fits by their estimators (numbered where two are alike), or by ``labels``."""
    fits = tuple(fits)
    for fit in fits:
        if not isinstance(fit, Fit):
            remedy = "pass them one by one, compare(fit, reml); names of estimators go to model.compare('nuts', 'reml')"
            raise SpecificationError(f"a {type(fit).__name__} among the fits", "only fits can be compared", remedy, SEE)
    if not fits:
        raise SpecificationError("no fits", "there is nothing to compare", "pass fits: compare(fit, reml)", SEE)
    if labels is None:
        names = _by_points(fits, _by_kind(fits))
        numbered = [f"{n} {names[: i + 1].count(n)}" if names.count(n) > 1 else n for i, n in enumerate(names)]
        return dict(zip(numbered, fits, strict=True))
    names = [str(label) for label in labels]
    if len(names) != len(fits) or len(set(names)) != len(names):
        received, reason = f"labels={names!r} for {len(fits)} fits", "every fit needs a label of its own"
        raise SpecificationError(received, reason, "give as many different labels as fits, or leave labels out", SEE)
    return dict(zip(names, fits, strict=True))


def _by_kind(fits: Sequence[Fit]) -> list[str]:
    """Estimators, with the kind of model where the same estimator fitted both kinds."""
    names = [fit.estimator for fit in fits]
    marginal = [is_marginal(fit) for fit in fits]
    both = {n for n in names if {m for other, m in zip(names, marginal, strict=True) if other == n} == {True, False}}
    return [f"{n} marginal" if n in both and m else n for n, m in zip(names, marginal, strict=True)]


def _by_points(fits: Sequence[Fit], names: list[str]) -> list[str]:
    """The same, with how the random effects were integrated out where fits by ML differ in it."""
    points = [getattr(fit, "n_quadrature", None) if fit.has_likelihood and not fit.has_draws else None for fit in fits]
    several = {n for n in names if len({p for other, p in zip(names, points, strict=True) if other == n}) > 1}
    return [
        n if n not in several or p is None else f"{n} ({'Laplace' if p == 1 else f'{p} points'})"
        for n, p in zip(names, points, strict=True)
    ]


def is_marginal(fit: Fit) -> bool:
    """Whether the fitted model has no random effects, so that its σ is the SD of a row and not of a subject's rows."""
    return not fit.design.term


def estimates(fits: Mapping[str, Fit], ci: float, reference: str | None = None) -> pd.DataFrame:
    """Stack the estimates of all parameters: parameter, kind, estimator, estimate, se, lower, upper.

    Parameters are in the order of the reference fit (the first by default); those it lacks come last of their kind.
    """
    base = fits[next(iter(fits)) if reference is None else reference]
    spelling = {f"corr({b}, {a})": f"corr({a}, {b})" for a, b in _pairs(base)}
    mixed = any(fit.has_random_effects for fit in fits.values())
    families = len({fit.design.family.name for fit in fits.values()}) > 1
    parts = [_one_fit(fit, ci, spelling, mixed, families).assign(estimator=label) for label, fit in fits.items()]
    stacked = pd.concat(parts, ignore_index=True)
    first = [*_one_fit(base, ci, spelling, mixed, families)["parameter"], *stacked["parameter"]]
    order = {name: i for i, name in enumerate(dict.fromkeys(first))}
    kinds = {"fixed": 0, "sd": 1, "corr": 2, "sigma": 3, "residual": 4, "other": 5}
    rank = stacked["kind"].map(kinds) * (len(order) + 1) + stacked["parameter"].map(order)
    rows = np.argsort(rank.to_numpy(), kind="stable")
    return stacked.iloc[rows][["parameter", "kind", "estimator", *COLUMNS]].reset_index(drop=True)


def _one_fit(fit: Fit, ci: float, spelling: Mapping[str, str], mixed: bool, families: bool) -> pd.DataFrame:
    """Estimates of one fit; ``mixed`` tells σ of a marginal model from that within subjects, ``families`` a scale."""
    fixed = fit.summary(ci)[COLUMNS].astype(float)
    parts = [fixed.rename_axis("parameter").reset_index().assign(kind="fixed")]
    try:
        components = fit.variance_components(ci)[COLUMNS].astype(float)
    except NotAvailableError:
        return parts[0]
    frame = components.rename(index=dict(spelling)).rename_axis("parameter").reset_index()
    frame["kind"] = [_kind(label, fit) for label in frame["parameter"]]
    if mixed and is_marginal(fit):
        frame["parameter"] = frame["parameter"].replace("sigma", MARGINAL_SIGMA)
    elif families and fit.design.family.name == "student_t":
        frame["parameter"] = frame["parameter"].replace("sigma", SCALE_SIGMA)
    parts.append(frame)
    return pd.concat(parts, ignore_index=True)


def _kind(label: str, fit: Fit) -> str:
    if label == "sigma" and fit.design.family.name != "student_t":
        return "sigma"
    other = "residual" if fit.design.has_residual_structure else "other"
    return next((kind for kind in ("sd", "corr") if label.startswith(f"{kind}(")), other)


def _pairs(fit: Fit) -> list[tuple[str, str]]:
    term = fit.design.term
    return [(term[a], term[b]) for a, b in correlated_pairs(fit.design)]


def measure(table: pd.DataFrame, reference: str, flag_above: float) -> pd.DataFrame:
    """Add the difference from the reference in units of its standard error, and whether it is large."""
    if not flag_above >= 0:
        remedy = "use a number of 0 or more, for example 0.5"
        raise SpecificationError(f"flag_above={flag_above!r}", "it is a number of standard errors", remedy, SEE)
    base = table[table["estimator"] == reference].set_index("parameter")
    centre = table["parameter"].map(base["estimate"])
    spread = table["parameter"].map(base["se"]).fillna(table["se"])
    gap = table["estimate"] - centre
    difference = (gap / spread.where(spread > 0)).where(gap != 0, 0.0)
    return table.assign(difference=difference, flag=difference.abs() > flag_above)


def same_question(fits: Mapping[str, Fit], base: str) -> tuple[str, ...]:
    """Refuse fits of different models or rows, and note what differs without harm."""
    first = fits[base]
    notes: list[str] = []
    for label, fit in fits.items():
        pair = f"{base} and {label}"
        a, b = first.design, fit.design
        both_random = first.has_random_effects and fit.has_random_effects
        _alike(pair, "responses", a.hierarchy.response, b.hierarchy.response)
        _alike(pair, "fixed effects", set(a.coef), set(b.coef))
        _alike(pair, "links", a.family.link, b.family.link)
        if a.family != b.family:
            notes.append(
                f"{label} has a {b.family.title} response and {base} a {a.family.title} one: they are not the same "
                "model, and differences are not due to the estimator alone."
            )
        if both_random:
            _alike(pair, "random effects", set(a.own_term), set(b.own_term))
        _same_rows(pair, a, b)
        notes += _other_residuals(label, base, fits)
        if both_random and _structure(first) != _structure(fit):
            has, other = _structure_words(b), _structure_words(a)
            notes.append(
                f"{label} has {has} for the random effects and {base} has {other}: they are not the same model, and "
                "differences are not due to the estimator alone."
            )
    return (*_marginal_notes(fits), *notes, *_other_priors(fits, base))


def _marginal_notes(fits: Mapping[str, Fit]) -> list[str]:
    """Say what it means that some of the fits are of marginal models."""
    marginal = [label for label, fit in fits.items() if is_marginal(fit) and fit.design.is_gaussian]
    if not marginal or not any(fit.has_random_effects for fit in fits.values()):
        return []
    have, their = ("has", "its") if len(marginal) == 1 else ("have", "their")
    return [
        f"{' and '.join(marginal)} {have} no random effects: {their} sigma is the SD of a row around the mean over "
        "subjects (in a row of its own), the SD within a subject elsewhere. The fixed effects mean the same in both."
    ]


def _other_residuals(label: str, base: str, fits: Mapping[str, Fit]) -> list[str]:
    """Note another structure of the residuals, between models of one kind; GEE has a working correlation instead."""
    one, two = fits[base].design, fits[label].design
    if (
        label == base
        or fits[label].has_working_correlation
        or fits[base].has_working_correlation
        or bool(one.term) != bool(two.term)
    ):
        return []
    theirs = [(d.residual, d.residual_variance) for d in (two, one)]
    if theirs[0] == theirs[1]:
        return []
    texts = [" and ".join(spec_text(s) for s in pair if s is not None) or "independent residuals" for pair in theirs]
    return [
        f"{label} has {texts[0]} and {base} has {texts[1]}: they are not the same model, and differences are not due "
        "to the estimator alone."
    ]


def _structure_words(design: Design) -> str:
    words = f"covariance={design.hierarchy.covariance!r}"
    return f"{words} of its own for each {design.group}" if design.group else words


def _structure(fit: Fit) -> tuple[set[frozenset[str]], str]:
    common = fit.design.covariance in SPECTRAL and len(fit.design.term) > 1
    return {frozenset(p) for p in _pairs(fit)}, fit.design.covariance if common else ""


def _other_priors(fits: Mapping[str, Fit], base: str) -> list[str]:
    """One note for each posterior whose priors are not those of the first posterior (the reference, if it is one)."""
    order = [base, *(label for label in fits if label != base)]
    known = {label: _priors(fits[label]) for label in order if getattr(fits[label], "priors", None) is not None}
    notes = []
    for label, priors in list(known.items())[1:]:
        start = next(iter(known))
        other = known[start]
        differ = [name for name in {**other, **priors} if other.get(name) != priors.get(name)]
        if differ:
            each = [
                f"{name} has {priors.get(name, 'none')} in {label}, {other.get(name, 'none')} in {start}"
                for name in differ
            ]
            notes.append(
                f"priors differ: {shorten(each)}. The difference between these fits is not due to the estimator alone."
            )
    return notes


def _priors(fit: Any) -> dict[str, str]:
    return {str(name): str(prior) for name, prior in fit.priors.to_frame()["prior"].items()}


def _alike(pair: str, what: str, a: Any, b: Any) -> None:
    if a == b:
        return
    if isinstance(a, set):
        only = [f"only the first has {shorten(sorted(a - b))}"] * bool(a - b)
        only += [f"only the second has {shorten(sorted(b - a))}"] * bool(b - a)
        detail = "; ".join(only)
    else:
        detail = f"{a} and {b}"
    reason = "they answer different questions, so a difference between their estimates means nothing"
    remedy = "compare estimators of one model; to compare models use their AIC (by ML) or leave-one-subject-out scores"
    raise SpecificationError(f"{pair}: different {what} ({detail})", reason, remedy, SEE)


def _same_rows(pair: str, a: Design, b: Design) -> None:
    """Refuse designs whose rows are not the same set: subject, response, offset and covariates of every row."""
    if a is b:
        return
    sizes = f"{pair}: {a.n_obs} rows of {a.n_subjects} subjects, and {b.n_obs} rows of {b.n_subjects}"
    remedy = "fit both to the same rows (missing='drop' drops different rows when the covariates differ)"
    if a.n_obs == b.n_obs:
        differs = _first_difference(a, b)
        if differs is None:
            return
        if set(a.subjects) != set(b.subjects):
            _alike(pair, "grouping factors", a.hierarchy.subject, b.hierarchy.subject)
        sizes += differs
        remedy = "fit both to the same data"
    raise DataError(sizes, "estimates from different data differ for reasons other than the estimator", remedy, SEE)


def _first_difference(a: Design, b: Design) -> str | None:
    """In words, what first tells the rows of two designs apart, or None: rows are a set, columns go by name."""
    position = a.subjects.get_indexer(pd.Index(b.subjects))
    if len(a.subjects) != len(b.subjects) or np.any(position < 0):
        only = [*(s for s in a.subjects if s not in b.subjects), *(s for s in b.subjects if s not in a.subjects)]
        return f" with other subjects (only one of them has {shorten(map(quote, only))})"
    columns = list(_data_columns(a, b))
    if np.array_equal(a.subject_index, position[b.subject_index]) and all(np.array_equal(x, y) for _, x, y in columns):
        return None
    rows = np.zeros(2 * a.n_obs, dtype=np.intp)  # one number for all rows, of both, that are alike in what was compared
    sign = np.repeat([1.0, -1.0], a.n_obs)
    who = np.concatenate([a.subject_index, position[b.subject_index]])
    for name, left, right in columns:
        rows = _split(rows, _rank(np.concatenate([left, right])))
        if np.any(np.bincount(rows, weights=sign)):
            return f" with other values of {name!r}"
    if np.any(np.bincount(_split(rows, who), weights=sign)):
        return f" with other subjects in the rows ({a.hierarchy.subject!r} is not the same)"
    return None


def _data_columns(a: Design, b: Design) -> Iterator[tuple[str, FloatArray, FloatArray]]:
    yield a.hierarchy.response, a.y, b.y
    yield "offset", a.offset, b.offset
    for i, name in enumerate(a.coef):
        yield name, a.X[:, i], b.X[:, b.coef.index(name)]
    for i, name in enumerate(a.own_term):
        if name in b.own_term and name not in a.coef:
            yield name, a.own_Z[:, i], b.own_Z[:, b.own_term.index(name)]


def _rank(values: FloatArray) -> IntArray:
    """Number the distinct values; what differs only by rounding is one value."""
    order = np.argsort(values)
    ranks = np.empty(len(values), dtype=np.intp)
    steps = np.diff(values[order]) > TOLERANCE * np.abs(values).max()
    ranks[order] = np.concatenate([[0], np.cumsum(steps)])
    return ranks


def _split(rows: IntArray, ranks: IntArray) -> IntArray:
    return np.unique(rows * (ranks.max() + 1) + ranks, return_inverse=True)[1]


def known_label(name: str, label: str, known: list[str]) -> str:
    """Return the label, or raise a `SpecificationError` that names the nearest one."""
    if label not in known:
        reason = f"no fit has this label.{closest(label, known)}"
        raise SpecificationError(f"{name}={label!r}", reason, f"use one of {', '.join(map(repr, known))}", SEE)
    return label


def fit_statistics(fit: Fit) -> dict[str, Any]:
    """Sizes, criteria and diagnostics of one fit; NaN for what its estimator does not have."""
    tree = getattr(fit, "datatree", None)
    diverging = None
    if tree is not None and "sample_stats" in tree.children and "diverging" in tree["sample_stats"].data_vars:
        diverging = int(tree["sample_stats"]["diverging"].sum())
    check = fit.convergence() if fit.has_draws else None  # of all quantities, random effects among them
    return {
        "observations": fit.n_obs,
        **_sizes(fit.design),
        "logLik": _optional(fit, "loglik"),
        "AIC": _optional(fit, "aic"),
        "BIC": _optional(fit, "bic"),
        "max. R-hat": np.nan if check is None else check.max_rhat,
        "min. bulk ESS": np.nan if check is None else check.min_ess_bulk,
        "divergences": np.nan if diverging is None else diverging,
        "converged": fit.converged,
    }


def _sizes(design: Design) -> dict[str, int]:
    """Number of subjects, or of the groups of each of several factors."""
    if design.has_several_factors:
        return {f"groups of {name}": n for name, n in finest_first(design).items()}
    return {"subjects": design.n_subjects}


def _optional(fit: Fit, name: str) -> Any:
    try:
        return getattr(fit, name)
    except (AttributeError, NotAvailableError):
        return np.nan
