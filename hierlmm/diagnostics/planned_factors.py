"""Data with several grouping factors whose every parameter is known: all combinations of planned columns.

    y = Xβ + Σ_k Z_k b_k + σ e,      b_kj ~ N(0, D_k) for every group j of factor k,      e ~ N(0, 1)

With ``sizes={"school": 20, "class": 3}`` the rows are every class number in every school, each so many times. Whether
that is nested or crossed the formula says: ``(1 | school / class)`` makes a group of each combination, ``(1 | school) +
(1 | class)`` takes class 1 of all schools as one group.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray, IntArray, Rng
from hierlmm.datasets.covariates import draw_covariates, n_combinations
from hierlmm.datasets.simulate import stated_coefficients, stated_effects
from hierlmm.design.design import Design
from hierlmm.design.factors import design_from_factors
from hierlmm.design.formula import MULTILEVEL as SEE
from hierlmm.design.formula import ParsedFormula, parse_formula, unquoted
from hierlmm.diagnostics.replicate import drawn_of_factors, eigen_root, refuse_unknown, whole
from hierlmm.errors import SpecificationError, warn
from hierlmm.frames import quote, shorten
from hierlmm.options import checked
from hierlmm.text import align

ROW = "row"
"""What a covariate varies by that belongs to no factor."""


@dataclass(frozen=True, eq=False)
class FactorTruth:
    """The truth behind simulated data with several grouping factors.

    Attributes
    ----------
    beta : pandas.Series
        Fixed effects by ``coef``; zero where none was given.
    D : dict of str to DataFrame
        Covariance of the random effects by factor.
    sigma : float
    b : dict of str to DataFrame
        Random effects by factor: ``group`` × ``term``.
    """

    beta: pd.Series
    D: dict[str, pd.DataFrame]
    sigma: float
    b: dict[str, pd.DataFrame]

    def __repr__(self) -> str:
        cells = [[f"  {name}", f"{value:g}"] for name, value in self.beta.items()]
        cells += [
            [f"  sd({term} | {name})", f"{sd:g}"]
            for name, D in self.D.items()
            for term, sd in zip(D, np.sqrt(np.diag(D)), strict=True)
        ]
        return "\n".join(["FactorTruth", *align([*cells, ["  sigma", f"{self.sigma:g}"]], (0,))])


@dataclass(frozen=True, eq=False)
class FactorPlan:
    """A design whose response is to be drawn, and the truth about it.

    Attributes
    ----------
    frame : DataFrame
        The planned rows, without a response.
    design : Design
        With zeros as response.
    beta : (p,), D : tuple of (q_k, q_k), sigma : float
    """

    frame: pd.DataFrame
    design: Design
    beta: FloatArray
    D: tuple[FloatArray, ...]
    sigma: float

    def draw(self, rng: Rng) -> tuple[FloatArray, list[FloatArray]]:
        """A response (N,), and the random effects of every factor behind it."""
        roots = [eigen_root(own)[0] for own in self.D]
        return drawn_of_factors(self.design, self.beta, roots, self.sigma, rng)


@checked
def simulate_multilevel(
    formula: str,
    *,
    sizes: Mapping[str, int],
    beta: Mapping[str, float] | pd.Series,
    D: Mapping[str, Any],
    sigma: float,
    rows: int = 1,
    covariates: Mapping[str, Mapping[str, Any]] | None = None,
    seed: int | None = None,
    return_truth: bool = False,
) -> Any:
    """Draw data from a linear model with several grouping factors, nested or crossed.

    Parameters
    ----------
    formula : str
        The model, ``"y ~ arm + (1 | school / class)"``, as in `MultilevelModel.from_formula`.
    sizes : mapping of str to int
        How many values each grouping column has: ``{"school": 20, "class": 3}`` are three classes in each of 20
        schools, or, with ``(1 | school) + (1 | class)``, 20 schools crossed with three classes.
    beta : mapping or pandas.Series
        Fixed effects by the names that a fit has; what is not named is zero.
    D : mapping
        Factor -> variance, or covariance matrix of its random effects in the order of the formula (or a DataFrame, with
        their names): ``{"school": 0.5, "school:class": [[1, 0], [0, 0.2]]}``.
    sigma : float
        Residual standard deviation, positive.
    rows : int
        Rows for each combination of the grouping columns.
    covariates : mapping, optional
        What they vary by -> covariates, described as in `simulate`: ``{"school": {"arm": ["control", "treated"]},
        "school:class": {"size": ("normal", 25, 4)}, "row": {"x": ("uniform", 0, 1)}}``. Lists go to groups, or to rows,
        in turn. Where a group holds whole turns the next group starts one later, so that ``{"row": {"cond": ["a",
        "b"]}}`` varies within crossed subjects and within items. What is constant within a factor all the same is a
        warning.
    seed : int, optional
        The same seed gives the same data.
    return_truth : bool
        Also return the parameters and the random effects.

    Returns
    -------
    pandas.DataFrame
        A row for each measurement: grouping columns, covariates, response.
    FactorTruth
        Only with ``return_truth=True``.

    Raises
    ------
    SpecificationError
        If a size, a variance or sigma is absent or impossible, or a name stands for nothing.

    Examples
    --------
    >>> import hierlmm as hl
    >>> data = hl.simulate_multilevel(
    ...     "y ~ arm + (1 | school / class)", sizes={"school": 20, "class": 3}, rows=10,
    ...     beta={"Intercept": 50, "arm[T.treated]": 4}, D={"school": 9, "school:class": 4}, sigma=8,
    ...     covariates={"school": {"arm": ["control", "treated"]}}, seed=1)
    >>> data.shape
    (600, 4)
    """
    of_design, of_response = np.random.default_rng(seed).spawn(2)
    plan = plan_of_factors(formula, sizes, rows, covariates, of_design, beta, D, sigma)
    y, b = plan.draw(of_response)
    frame = plan.frame.assign(**{unquoted(plan.design.hierarchy.response): y})
    if not return_truth:
        return frame
    terms = {term.columns.group: term for term in plan.design.random}
    names = {name: pd.Index(term.columns.names, name="term") for name, term in terms.items()}
    return frame, FactorTruth(
        pd.Series(plan.beta, index=pd.Index(plan.design.coef, name="coef"), name="beta"),
        {name: pd.DataFrame(own, names[name], names[name]) for name, own in zip(terms, plan.D, strict=True)},
        plan.sigma,
        {name: pd.DataFrame(own, terms[name].group.labels, names[name]) for name, own in zip(terms, b, strict=True)},
    )


def plan_of_factors(
    formula: str,
    sizes: Mapping[str, int],
    rows: int,
    covariates: Mapping[str, Mapping[str, Any]] | None,
    rng: Rng,
    beta: Any,
    D: Mapping[str, Any],
    sigma: float,
) -> FactorPlan:
    """The planned rows and the truth about them; see `simulate_multilevel` for the arguments and what is refused."""
    parsed = parse_formula(formula, several=True)
    if not parsed.random:
        reason, remedy = "it has no grouping factor", "write for example y ~ arm + (1 | school / class)"
        raise SpecificationError(repr(formula), reason, remedy, SEE)
    frame = _frame(parsed, sizes, whole("rows", rows, 1), covariates or {}, rng)
    response = unquoted(parsed.response)
    design = design_from_factors(parsed, frame.assign(**{response: np.zeros(len(frame))}))
    return stated_plan(frame, design, beta, D, sigma)


def stated_plan(frame: pd.DataFrame, design: Design, beta: Any, D: Mapping[str, Any], sigma: float) -> FactorPlan:
    """A design with a truth, which is checked.

    Raises
    ------
    SpecificationError
    """
    reason, known = "the model has no such coefficient.", stated_coefficients(beta)
    for name in known:
        refuse_unknown(f"beta[{name!r}]", name, design.coef, reason, "use names among {}", SEE)
    if not (np.isfinite(sigma) and sigma > 0.0):
        raise SpecificationError(f"sigma={sigma!r}", "a residual SD is positive", "for example sigma=1.0", SEE)
    factors = [term.columns.group for term in design.random]
    if sorted(D) != sorted(factors):
        reason = f"the factors of the model are {', '.join(factors)}"
        raise SpecificationError(f"D of {shorten(map(quote, D)) or 'nothing'}", reason, "give D of each of them", SEE)
    matrices = tuple(_covariance(term.columns, D[term.columns.group]) for term in design.random)
    return FactorPlan(frame, design, np.array([known.get(c, 0.0) for c in design.coef]), matrices, float(sigma))


def _covariance(columns: Any, given: Any) -> FloatArray:
    """D of one factor.

    Raises
    ------
    SpecificationError
    """
    names, blocks = columns.names, columns.blocks
    D = stated_effects(given, names, what=f"D[{columns.group!r}]")[1]
    apart = np.ones_like(D, dtype=bool)
    for block in blocks:
        apart[np.ix_(block, block)] = False
    if np.any(D[apart]):
        received, reason = f"D[{columns.group!r}]={D.tolist()}", "the formula keeps some of its random effects apart"
        raise SpecificationError(received, reason, f"give zeros as covariances between the blocks of {names}", SEE)
    return D


def _frame(
    parsed: ParsedFormula, sizes: Mapping[str, int], rows: int, covariates: Mapping[str, Mapping[str, Any]], rng: Rng
) -> pd.DataFrame:
    """All combinations of the grouping columns, so many rows of each, with their covariates."""
    bars = {bar.subject: bar.columns for bar in parsed.random}
    columns = list(dict.fromkeys(c for own in bars.values() for c in own))
    if sorted(sizes) != sorted(columns):
        reason = f"the grouping columns of the formula are {', '.join(columns)}"
        received = f"sizes of {shorten(map(quote, sizes)) or 'nothing'}"
        raise SpecificationError(received, reason, "give the number of values of each of them", SEE)
    counts = [range(1, whole(f"sizes[{c!r}]", sizes[c], 2 if (c,) in bars.values() else 1) + 1) for c in columns]
    cells = pd.DataFrame(list(itertools.product(*counts)), columns=columns)
    frame = cells.loc[cells.index.repeat(rows)].reset_index(drop=True)
    for (name, described), own in zip(covariates.items(), rng.spawn(len(covariates)), strict=True):
        at: Any = np.arange(len(frame))
        if name in bars:
            at = frame.groupby(list(bars[name]), sort=False).ngroup().to_numpy()
        elif name != ROW:
            received, what = f"covariates={{{name!r}: ...}}", f"{', '.join(bars)} or {ROW}"
            raise SpecificationError(received, "there is no such factor", f"say what they vary by: {what}", SEE)
        argument, by = f"covariates[{name!r}]", bars.get(name, columns)
        shape = [len(n) for c, n in zip(columns, counts, strict=True) if c in by] + [rows] * (name not in bars)
        turns = _turns(shape, n_combinations(described, argument))
        drawn = draw_covariates(own, described, turns, argument)
        frame = frame.assign(**{covariate: column.rows(at) for covariate, column in drawn.items()})
        for factor in bars:
            if name not in bars or set(bars[factor]) < set(by):
                _note_constant(frame, list(drawn), factor, list(bars[factor]), name)
    return frame


def _turns(shape: Sequence[int], n: int) -> IntArray:
    """Whose turn it is for each combination of values, n turns being a round: one after the other.

    Where the rows of a value are whole rounds, the next value starts one later: it would meet the same turns again.
    """
    strides = np.cumprod([1, *shape[:0:-1]])[::-1]
    steps = np.where(strides % n == 0, 1, strides)
    return np.asarray(np.tensordot(steps, np.indices(shape), 1).ravel(), dtype=np.intp)


def _note_constant(frame: pd.DataFrame, covariates: list[str], factor: str, by: list[str], name: str) -> None:
    """Say which covariates do not vary within any group of a factor, which was not what was asked for."""
    groups = frame.groupby(by, sort=False)
    for covariate in covariates:
        varies = np.ptp(pd.factorize(frame[covariate])[0]) > 0
        if groups.ngroups < len(frame) and varies and groups[covariate].nunique().max() == 1:
            warn(
                f"{covariate} is constant within {factor}, so that it is judged by the differences between its groups. "
                f"Write covariates={{{factor!r}: {{{covariate!r}: ...}}}} if that is meant; a function of {name!r}, "
                f"lambda rng, n: rng.choice(..., n), draws it by chance."
            )
