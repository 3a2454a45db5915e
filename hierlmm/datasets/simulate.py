"""Drawing data from a two-level model whose every parameter is known.

For subject i with measurements j = 1..n_i, level-1 columns x_k (the constant, the time, ...) and level-2 columns w_l:

    level 1:   y_ij = Σ_k π_ik x_kij + e_ij,            e_ij ~ N(0, σ²)
    level 2:   π_ik = Σ_l β_kl w_li + b_ik,             b_i ~ N(0, D)

With another family level 1 is the linear predictor, and y_ij is drawn from the family at its mean.

A name in ``beta`` says where its coefficient goes: ``"sex[T.Male]:time"`` is the effect of the level-2 column
``sex[T.Male]`` on the slope of ``time``. The subjects' own coefficients π_i are computed first, then the rows.

Every random ingredient has a stream of its own, so changing one (the dropout, say) leaves the others as they were: the
same seed with and without dropout gives the same measurements, some of which are then no longer seen.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Required, TypedDict, Unpack, overload

import numpy as np
import pandas as pd

from hierlmm.datasets.covariates import Array, Column, Columns, Covariate, draw_covariates, finite, refuse, split, whole
from hierlmm.datasets.groups import blocks, by_level, places, sigmas_of_rows
from hierlmm.datasets.responses import draw_responses, stated_family
from hierlmm.families.family import Family
from hierlmm.families.gaussian import Gaussian
from hierlmm.options import checked, renamed


@dataclass(frozen=True)
class SimulationTruth:
    """The truth behind simulated data.

    Attributes
    ----------
    beta : pandas.Series
        Fixed effects, by name, (p,).
    D : pandas.DataFrame
        Covariance of the random effects, (q, q); one block for each group where they differ.
    sigma : float
        Residual standard deviation; NaN for a family that has none, and where it differs by group (see `dispersion`).
    b : pandas.DataFrame
        The subjects' random effects, (J, q): subject × term.
    subject_coef : pandas.DataFrame
        The subjects' own regressions, (J, K): subject × level-1 coefficient.
    mu : pandas.Series
        The conditional mean of every row of the data, given b, (N,); linear predictors of an ordinal response.
    family : Family
    dispersion : dict
        Dispersion parameters of the family, by name.
    """

    beta: pd.Series
    D: pd.DataFrame
    sigma: float
    b: pd.DataFrame
    subject_coef: pd.DataFrame
    mu: pd.Series
    family: Family = field(default_factory=Gaussian)
    dispersion: Mapping[str, float] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Return a short text: sizes and parameters, not J rows of them."""
        return (
            f"SimulationTruth: {len(self.b)} subjects, {len(self.mu)} rows\n"
            f"beta\n{self.beta.to_string()}\nD\n{self.D.to_string()}\n"
            + ("\n".join(f"{name}  {value:g}" for name, value in self.dispersion.items()) or f"{self.family}")
        )


class _Asked(TypedDict, total=False):
    """Arguments of `simulate`, but for ``return_truth``, which decides what it returns."""

    beta: Required[Mapping[str, float] | pd.Series]
    D: Required[Any]
    sigma: float | Mapping[str, float] | None
    group: str | None
    residual_group: str | None
    family: Any
    dispersion: Mapping[str, float] | pd.Series | None
    trials: int | None
    random: Sequence[str] | None
    n_subjects: int
    times: Sequence[float] | Array
    n_times: int | tuple[int, int] | None
    irregular: bool
    level2: Mapping[str, Covariate] | None
    level1: Mapping[str, Covariate] | None
    dropout: float
    response: str
    subject: str
    time: str
    seed: int | np.random.Generator | None


@overload
def simulate(*, return_truth: Literal[False] = ..., **asked: Unpack[_Asked]) -> pd.DataFrame: ...


@overload
def simulate(*, return_truth: Literal[True], **asked: Unpack[_Asked]) -> tuple[pd.DataFrame, SimulationTruth]: ...


@renamed(shape="dispersion={'shape': ...}", precision="dispersion={'precision': ...}", nu="dispersion={'nu': ...}")
@checked
def simulate(
    *,
    beta: Mapping[str, float] | pd.Series,
    D: Any,
    sigma: float | Mapping[str, float] | None = None,
    group: str | None = None,
    residual_group: str | None = None,
    family: Any = "gaussian",
    dispersion: Mapping[str, float] | pd.Series | None = None,
    trials: int | None = None,
    random: Sequence[str] | None = None,
    n_subjects: int = 30,
    times: Sequence[float] | Array = (0, 1, 2, 3),
    n_times: int | tuple[int, int] | None = None,
    irregular: bool = False,
    level2: Mapping[str, Covariate] | None = None,
    level1: Mapping[str, Covariate] | None = None,
    dropout: float = 0.0,
    response: str = "y",
    subject: str = "subject",
    time: str = "time",
    seed: int | np.random.Generator | None = None,
    return_truth: bool = False,
) -> pd.DataFrame | tuple[pd.DataFrame, SimulationTruth]:
    """Draw long data from a two-level model.

    Parameters
    ----------
    beta : mapping or pandas.Series
        Fixed effects by name: ``"Intercept"``, covariates (``"time"``), levels of a categorical covariate against the
        first level (``"sex[T.Male]"``), powers of the time (``"I(time ** 2)"``) and products (``"sex[T.Male]:time"``).
        What is not named is zero.
    D : array_like, shape (q, q)
        Covariance of the random effects, in the order of `random`; a number if there is one. A DataFrame is matched by
        its names. It may be singular: zero variances and perfect correlations are allowed. With `group` a mapping of
        its levels to one matrix each, or one for all.
    sigma : float or mapping
        Residual standard deviation of a Gaussian response, in its unit, or the scale of Student's t; positive. Other
        families have none. With `residual_group` a mapping of its levels to numbers.
    group, residual_group : str, optional
        Level-2 covariates with labels (in `level2`) by whose levels D and sigma differ, as in `TwoLevelModel`.
    family : str or Family
        Distribution of the response, as for `TwoLevelModel`; `beta` and `D` are on the scale of its link.
    dispersion : mapping or pandas.Series, optional
        Dispersion parameters of another family, by name, as ``fit.dispersion`` has them: ``{"shape": 2.0}`` of a
        negative binomial or gamma response, ``{"precision": 5.0}`` of a beta.
    trials : int, optional
        Trials of every row of a binomial response; they are a column ``"trials"`` of the data.
    random : list of str, optional
        The level-1 coefficients that vary by subject, such as ``["Intercept", "time"]``. By default the names of `D` if
        it has any, otherwise the intercept (q = 1) or the intercept and the slope of time (q = 2).
    n_subjects : int
        Number of subjects, J. They are numbered 1 to J.
    times : sequence of float
        The planned occasions, the same for everybody.
    n_times : int or (int, int), optional
        How many occasions a subject has: a number, or the least and the most, drawn uniformly. If this is less than
        ``len(times)``, each subject is seen at a random selection of the occasions. By default all of them.
    irregular : bool
        Give every subject times of its own: `n_times` of them, uniform between the least and the greatest of `times`,
        in ascending order.
    level2 : mapping, optional
        Covariates of the subject, by name. A list of labels is a categorical covariate, the first label being the
        reference, allocated to the subjects in turn; several are crossed, and balanced when `n_subjects` is a multiple
        of the number of combinations. A list of numbers is allocated likewise and is numeric. ``("normal", mean, sd)``
        and ``("uniform", low, high)`` are drawn. A function ``f(rng, n)`` returns n values.
    level1 : mapping, optional
        Covariates that vary within the subject, described in the same way; lists run through the occasions.
    dropout : float
        Probability, at every occasion after the first, that the subject leaves for good: monotone dropout, completely
        at random. In [0, 1). Every subject keeps its first row.
    response, subject, time : str
        Names of these columns.
    seed : int or numpy.random.Generator, optional
        The same seed gives the same data.
    return_truth : bool
        Also return b, the subjects' coefficients and the conditional means.

    Returns
    -------
    pandas.DataFrame
        One row per measurement: subject, level-2 covariates, time, level-1 covariates, response.
    SimulationTruth
        Only with ``return_truth=True``.

    Raises
    ------
    SpecificationError
        If D is not a covariance matrix of the right size, sigma is not positive, dropout is outside [0, 1), a name in
        `beta` or `random` stands for nothing, or names clash.

    Notes
    -----
    The cost is O(N) with array operations only: 100,000 subjects × 10 rows take a fraction of a second. A fit can be
    the starting point: ``simulate(beta=fit.beta, D=fit.D, sigma=fit.sigma, ...)`` draws from its estimates.

    Examples
    --------
    >>> data, truth = simulate(
    ...     beta={"Intercept": 21.2, "sex[T.Male]": 1.4, "time": 0.48, "sex[T.Male]:time": 0.30},
    ...     D=[[3.2, -0.03], [-0.03, 0.03]], random=["Intercept", "time"], sigma=1.3, n_subjects=30, times=[0, 2, 4, 6],
    ...     level2={"sex": ["Female", "Male"]}, response="distance", seed=1, return_truth=True)
    >>> data.shape, list(truth.subject_coef.columns)
    ((120, 4), ['Intercept', 'time'])
    """
    n_subjects = whole(n_subjects, "n_subjects", least=1)
    _check_dropout(dropout)
    sigmas = by_level(sigma, "sigma", residual_group, "residual_group")
    made, natural = next(iter([stated_family(family, own, dispersion, trials) for own in sigmas.values()]))
    level2, level1 = dict(level2 or {}), dict(level1 or {})
    counted = {} if trials is None else {"trials": trials}
    _check_names([subject, time, response, *level2, *level1, *counted])
    occasions, fixed = _occasions(times), stated_coefficients(beta)
    names, covariances = _by_group(D, random, time, group)

    rng_w, rng_t, rng_x, rng_b, rng_e, rng_drop = _streams(seed, 6)

    # Rows of the complete data, subject by subject.
    t, sizes = _draw_times(rng_t, n_subjects, occasions, n_times, irregular)
    who = np.repeat(np.arange(n_subjects), sizes)
    position = np.arange(len(t)) - (np.cumsum(sizes) - sizes)[who]  # 0 for a subject's first measurement
    between = draw_covariates(rng_w, level2, np.arange(n_subjects), "level2")
    within = {**draw_covariates(rng_x, level1, position, "level1"), time: Column(t)}

    b = _draw_effects(rng_b, covariances, group, between, n_subjects)
    coef, eta = _regressions(fixed, dict(zip(names, b.T, strict=True)), within, between, who)
    drawn, natural = sigmas_of_rows(made, natural, sigmas, residual_group, between, who)
    y, mu = draw_responses(rng_e, made, eta, drawn, trials)

    stay = position < _rows_kept(rng_drop, dropout, n_subjects)[who]
    labels = np.arange(1, n_subjects + 1)
    columns: dict[str, Any] = {subject: labels[who[stay]]}
    columns |= {name: column.rows(who[stay]) for name, column in between.items()}
    columns |= {time: t[stay], **{name: within[name].rows(stay) for name in level1}, response: y[stay], **counted}
    data = pd.DataFrame(columns)
    if not return_truth:
        return data
    index, one, D = pd.Index(labels, name=subject), natural.get("sigma", np.nan), blocks(covariances, names)
    effects, own = pd.DataFrame(b, index=index, columns=pd.Index(names, name="term")), pd.DataFrame(coef, index=index)
    stated, means = pd.Series(fixed, name="beta", dtype=float).rename_axis("coef"), pd.Series(mu[stay], name="mu")
    return data, SimulationTruth(stated, D, one, effects, own.rename_axis(columns="coef"), means, made, natural)


def _draw_effects(
    rng: np.random.Generator, covariances: Mapping[str | None, Array], group: str | None, between: Columns, n: int
) -> Array:
    """Return the subjects' random effects, (J, q), with the covariance of their group."""
    b = rng.standard_normal((n, len(next(iter(covariances.values())))))
    for own, members in zip(covariances.values(), places(covariances, "D", group, "group", between), strict=True):
        b[members] = b[members] @ _root(own).T
    return b


def _regressions(
    fixed: Mapping[str, float], random: Mapping[str, Array], within: Columns, between: Columns, who: Array
) -> tuple[dict[str, Array], Array]:
    """Every subject's own coefficients (level 2), by level-1 column, and the means of the rows (level 1)."""
    n = int(who[-1]) + 1
    level1: dict[str, Array | float] = {}
    coef: dict[str, Array] = {}
    parts: list[tuple[str, Array | float, Any]] = []
    for name, value in fixed.items():
        k, x, w = split(name, within, between)
        parts.append((k, x, value * w))
    for name, effects in random.items():
        k, x, _ = split(name, within, {}, between)
        parts.append((k, x, effects))
    for k, x, own in parts:
        level1.setdefault(k, x)
        coef[k] = coef.get(k, np.zeros(n)) + own
    mu = np.zeros(len(who))
    for k, x in level1.items():
        mu += coef[k][who] * x
    return coef, mu


# --- Times ------------------------------------------------------------------------------------------------------------


def _occasions(times: Any) -> Array:
    try:
        t = np.asarray(list(times), dtype=float)
    except (TypeError, ValueError):
        t = np.empty(0)
    if t.ndim != 1 or t.size == 0 or not np.isfinite(t).all() or len(np.unique(t)) < t.size:
        reason = "The planned occasions are different finite numbers, at least one."
        raise refuse(f"times={times!r}", reason, "For example times=[0, 2, 4, 6].")
    return np.sort(t)


def _draw_times(
    rng: np.random.Generator, n: int, occasions: Array, n_times: int | tuple[int, int] | None, irregular: bool
) -> tuple[Array, Array]:
    """Return the times of all rows, subject by subject, (N,), and the number of rows of each subject, (J,)."""
    m = len(occasions)
    bounds = tuple(n_times) if isinstance(n_times, tuple | list) else (n_times, n_times)
    if len(bounds) != 2:
        raise refuse(f"n_times={n_times!r}", "It is neither a number nor a pair.", "Use n_times=(least, most).")
    low, high = (m if v is None else whole(v, "n_times", least=1) for v in bounds)
    if low > high or (high > m and not irregular):
        reason = f"Only {m} occasions are planned, and nobody is measured twice at one of them."
        reason = "The least number of occasions exceeds the most." if low > high else reason
        remedy = "Use n_times=(least, most), plan more times, or set irregular=True."
        raise refuse(f"n_times={n_times!r} with {m} times", reason, remedy)
    if irregular and m < 2:
        received = f"times with the single value {occasions[0]:g} and irregular=True"
        reason = "Irregular times are drawn between the least and the greatest of times."
        raise refuse(received, reason, "Give times at least two values, such as [0, 6].")
    sizes = rng.integers(low, high, size=n, endpoint=True)
    if irregular:
        grid = rng.uniform(occasions[0], occasions[-1], size=(n, high))
        used = np.arange(high) < sizes[:, None]
        grid = np.sort(np.where(used, grid, np.inf), axis=1)
    else:
        grid = np.broadcast_to(occasions, (n, m))
        used = np.ones((n, m), dtype=bool)
        if low != m:  # a random selection of n_i occasions: those whose random rank is below n_i
            used = rng.random((n, m)).argsort(axis=1).argsort(axis=1) < sizes[:, None]
    return grid[used], sizes


def _rows_kept(rng: np.random.Generator, dropout: float, n: int) -> Array:
    """Return how many rows each subject would keep: P(more than k) = (1 - dropout)^k, so at least one."""
    return rng.geometric(dropout, n) if dropout > 0 else np.full(n, np.iinfo(np.int64).max)


# --- Names and parameters ---------------------------------------------------------------------------------------------


def stated_coefficients(beta: Any) -> dict[str, float]:
    """Fixed effects by name, checked."""
    if not hasattr(beta, "items"):
        received = f"beta of type {type(beta).__name__!r}"
        raise refuse(received, "Coefficients need names.", "Use a mapping such as {'Intercept': 10, 'time': 0.5}.")
    return {str(name): finite(value, f"beta[{name!r}]") for name, value in beta.items()}


def _by_group(
    D: Any, random: Sequence[str] | None, time: str, group: str | None
) -> tuple[list[str], dict[str | None, Array]]:
    """Return the names of the random effects, and their covariance by level of the group, under None without any."""
    found = {level: stated_effects(own, random, time) for level, own in by_level(D, "D", group, "group").items()}
    names = next(iter(found.values()))[0]
    if any(own != names for own, _ in found.values()):
        received, reason = "D with other random effects for some levels", "All levels have the same ones."
        raise refuse(received, reason, "Give every matrix the same names, or say random=[...].")
    return names, {level: own for level, (_, own) in found.items()}


def stated_effects(D: Any, random: Sequence[str] | None, time: str = "", what: str = "D") -> tuple[list[str], Array]:
    """Return the names of the random effects and their covariance, checked; ``what`` is its name in messages."""
    names = [random] if isinstance(random, str) else None if random is None else [str(r) for r in random]
    if hasattr(D, "index") and hasattr(D, "columns"):
        labels = [str(v) for v in D.index]
        if labels != [str(v) for v in D.columns] or (names is not None and sorted(names) != sorted(labels)):
            received = f"{what} with rows {', '.join(labels)} and columns {', '.join(map(str, D.columns))}"
            wanted = f": {', '.join(names)}" if names else ""
            reason = f"Its names must be the random effects, in rows as in columns{wanted}."
            raise refuse(received, reason, "Rename them, or pass a plain array in the order of random.")
        names = labels if names is None else names
        order = [labels.index(v) for v in names]
        D = D.to_numpy()[np.ix_(order, order)]
    try:
        matrix = np.array(D, dtype=float, ndmin=2)
    except (TypeError, ValueError):
        reason = "It is not a matrix of numbers."
        raise refuse(f"{what}={D!r}", reason, "For example D=[[3.2, -0.03], [-0.03, 0.03]].") from None
    q = matrix.shape[0]
    if names is None:
        names = {1: ["Intercept"], 2: ["Intercept", time]}.get(q)
        if names is None:
            received = f"{what} of shape {matrix.shape}"
            raise refuse(received, "It is not clear what its rows are.", "Name them in random=[...].")
    if matrix.shape != (len(names), len(names)):
        received = f"{what} of shape {matrix.shape} for {', '.join(names)}"
        reason = f"{len(names)} random effects have a covariance matrix of shape ({len(names)}, {len(names)})."
        raise refuse(received, reason, "Give D a row and a column for every random effect.")
    if len(set(names)) < len(names):
        raise refuse(f"random={names!r}", "A coefficient is named twice.", "Name each random effect once.")
    if not np.isfinite(matrix).all():
        raise refuse(f"{what} with values that are not finite", "Covariances are finite.", "Correct these entries.")
    if not np.allclose(matrix, matrix.T, rtol=1e-8, atol=1e-12 * np.abs(matrix).max()):
        received = f"{what}={matrix.tolist()}"
        raise refuse(received, "It is not symmetric, and a covariance matrix is.", "Make D[i][j] equal to D[j][i].")
    matrix = (matrix + matrix.T) / 2
    # On the correlation scale, so that the units of the coefficients do not matter.
    sd = np.sqrt(np.clip(np.diag(matrix), 0, None))
    scale = np.where(sd > 0, sd, 1.0)
    correlation = matrix / np.outer(scale, scale)
    impossible = (np.diag(matrix) < 0).any() or (correlation[sd == 0] != 0).any()
    if impossible or float(np.linalg.eigvalsh(correlation)[0]) < -1e-8:
        must = "|D[i][j]| must not exceed the product of the standard deviations, and correlations must be compatible."
        why = "It is not positive semi-definite: no random effects have this covariance. Variances must not be negative"
        remedy = "Build it from standard deviations and correlations: D[i][j] = sd[i] * sd[j] * corr[i][j]."
        raise refuse(f"{what}={matrix.tolist()}", f"{why}, {must}", remedy)
    return names, matrix


def _root(matrix: Array) -> Array:
    """Return the lower triangular L with LL' = D; a zero pivot gives a zero column, so D may be singular."""
    q = len(matrix)
    root = np.zeros((q, q))
    for j in range(q):
        pivot = matrix[j, j] - root[j, :j] @ root[j, :j]
        if pivot > 1e-12 * matrix[j, j]:
            root[j, j] = np.sqrt(pivot)
            root[j + 1 :, j] = (matrix[j + 1 :, j] - root[j + 1 :, :j] @ root[j, :j]) / root[j, j]
    return root


def _check_names(names: list[str]) -> None:
    twice = sorted({n for n in names if names.count(n) > 1})
    odd = [n for n in names if n in ("Intercept", "1") or re.search(r"[:\[\]]", n)]
    if twice or odd:
        reason = f"{twice[0]!r} would stand for two columns." if twice else f"{odd[0]!r} cannot name a column."
        remedy = "Give every column a name of its own, without ':', '[' or ']' and other than 'Intercept'."
        raise refuse(f"columns named {', '.join(map(repr, names))}", reason, remedy)


def _check_dropout(dropout: Any) -> None:
    if not 0 <= finite(dropout, "dropout") < 1:
        why = "A probability of leaving at each occasion lies in [0, 1)."
        raise refuse(f"dropout={dropout!r}", why, "Try dropout=0.1.")


def _streams(seed: Any, n: int) -> list[np.random.Generator]:
    try:
        return np.random.default_rng(seed).spawn(n)
    except (TypeError, ValueError):
        raise refuse(f"seed={seed!r}", "A seed is a whole number, 0 or above.", "Try seed=1.") from None
