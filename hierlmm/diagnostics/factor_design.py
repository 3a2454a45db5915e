"""Design analysis with several grouping factors: power and precision from the expected information, or by simulation.

At the assumed truth θ the covariance of β̂ and its uncertainty do not depend on the response: Φ = (X'V⁻¹X)⁻¹, and
Kenward and Roger's standard errors and degrees of freedom ν come from the expected information ½ tr(P V_s P V_t). The
power of a t test of β_c = 0 is then that of Student's t with ν degrees of freedom around β_c / √Φ_cc:

    power = P(|t_ν(β_c / √Φ_cc)| > t_ν(1 - α/2))

exact in balanced designs where the test is exact, but for estimates of variances at zero, which simulation has in it.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy.linalg import block_diag
from scipy.stats import nct, t

from hierlmm.arrays import FloatArray
from hierlmm.design.formula import MULTILEVEL as SEE
from hierlmm.diagnostics.planned_factors import FactorPlan, plan_of_factors, stated_plan
from hierlmm.diagnostics.replicate import Failure, probability, replicate, reported, streams, whole
from hierlmm.diagnostics.study import ALTERNATIVES, Found, judged, summaries
from hierlmm.errors import SpecificationError
from hierlmm.fits.multilevel import MultilevelNumbers
from hierlmm.frames import apart
from hierlmm.likelihood.checks import check_design
from hierlmm.likelihood.degrees import KenwardRogerDegrees, kenward_roger
from hierlmm.likelihood.estimate import make_criterion
from hierlmm.likelihood.maximise import maximise_again
from hierlmm.options import checked, choose
from hierlmm.results import Page, Paragraph, Result, Table
from hierlmm.text import align

SIMULATED = ["power", "power_mcse", "bias", "coverage", "type_s", "type_m", "failed"]
LEAST = 1e-12
"""Of a relative variance, which a factor of D needs to be positive."""


@checked
@dataclass(frozen=True, eq=False, repr=False)
class FactorDesignAnalysis(Result):
    """What a planned study with several grouping factors can be expected to find.

    Attributes
    ----------
    table : DataFrame
        A row for each design and coefficient: the sizes, ``n_obs``, ``coef``, ``true``; ``se`` (of β̂), ``df`` and
        ``power`` from the expected information; with simulations ``simulated`` (the share of studies that reject β =
        0), its Monte-Carlo standard error ``mcse``, ``bias``, ``coverage`` of the intervals, ``type_s`` and ``type_m``
        (share of significant estimates with the wrong sign, and how many times they are too large), ``singular``
        (share of studies with a variance of zero) and ``failed``.
    formula : str
    alpha : float
    alternative : {"two-sided", "greater", "less"}
    simulations : int
    seed : int
    failures : tuple of Failure
    """

    table: pd.DataFrame
    formula: str
    alpha: float
    alternative: str
    simulations: int
    seed: int
    failures: tuple[Failure, ...]

    def _page(self) -> Page:
        shown = self.table.dropna(axis=1, how="all").set_index("coef")
        cells = [[str(name), *(_cell(value) for value in shown[name])] for name in shown]
        names = ["", *map(str, shown.index)]
        lines = align([list(row) for row in zip(names, *cells, strict=True)], (0,))
        rows = Table(shown, ["", *lines, ""], "Designs", index=True, number=".3g")
        test = f"{self.alternative} tests at level {self.alpha:g}"
        notes = [f"power: of {test} with Kenward and Roger's degrees of freedom, from the expected information."]
        if self.simulations:
            notes.append(
                f"simulated: share of {self.simulations} studies drawn and fitted by REML whose test rejects; mcse is "
                "its Monte-Carlo standard error."
            )
        if self.failures:
            first = self.failures[0]
            notes.append(f"{len(self.failures)} studies could not be fitted (the first: {first.reason}).")
        return Page(f"Design analysis: {self.formula}", [rows, *(Paragraph(note) for note in notes)])


def _cell(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


@checked
def multilevel_design_analysis(
    source: Any,
    *,
    sizes: Mapping[str, int | Sequence[int]] | None = None,
    rows: int | Sequence[int] = 1,
    beta: Mapping[str, float] | pd.Series | None = None,
    D: Mapping[str, Any] | None = None,
    sigma: float | None = None,
    covariates: Mapping[str, Mapping[str, Any]] | None = None,
    coefs: str | Sequence[str] | None = None,
    alternative: Literal["two-sided", "greater", "less"] = "two-sided",
    alpha: float = 0.05,
    simulations: int = 0,
    seed: int | None = None,
    cores: int | None = None,
    progressbar: bool = True,
) -> FactorDesignAnalysis:
    """Power and precision of planned studies with several grouping factors, nested or crossed.

    Parameters
    ----------
    source : str or MultilevelFit
        The planned analysis as a formula, ``"y ~ arm + (1 | school / class)"``; or a fit, whose estimates are the
        truth unless others are given.
    sizes : mapping of str to int or sequence of int, optional
        How many values each grouping column has, as in `simulate_multilevel`; every combination of several numbers is
        a design: ``{"school": [10, 20, 40], "class": [2, 4]}``. With a fit they may be left out: then the design is
        that of the data.
    rows : int or sequence of int
        Rows for each combination of the grouping columns.
    beta, D, sigma
        The assumed truth, as for `simulate_multilevel`.
    covariates : mapping, optional
        As for `simulate_multilevel`; those that are drawn are drawn once for each design.
    coefs : str or sequence of str, optional
        Which coefficients to report; by default all but the intercept.
    alternative : {"two-sided", "greater", "less"}
        Alternative to β = 0.
    alpha : float
        Level of the test; intervals have probability 1 - alpha.
    simulations : int
        Studies to draw and fit by REML for each design; 0 leaves it at the expected information.
    seed, cores, progressbar
        As in `design_analysis`.

    Returns
    -------
    FactorDesignAnalysis
        ``.table``.

    Raises
    ------
    SpecificationError
        If parameters are missing or impossible, or names stand for nothing.
    DataError
        If a planned design cannot be fitted.

    Examples
    --------
    >>> import hierlmm as hl
    >>> found = hl.multilevel_design_analysis(
    ...     "y ~ arm + (1 | school / class)", sizes={"school": [10, 20, 40], "class": 3}, rows=10,
    ...     beta={"Intercept": 50, "arm[T.treated]": 4}, D={"school": 9, "school:class": 4}, sigma=8,
    ...     covariates={"school": {"arm": ["control", "treated"]}})
    >>> found.table["power"].round(2).tolist()
    [0.35, 0.67, 0.94]
    """
    choose("alternative", alternative, ALTERNATIVES)
    alpha, n = probability("alpha", alpha), whole("simulations", simulations, 0)
    used, streams_of = streams(seed, 1 + n)
    plans = _plans(source, sizes, rows, beta, D, sigma, covariates, np.random.default_rng(streams_of[0]))
    tables, failures = [], []
    for values, plan in plans:
        check_design(plan.design.with_response(plan.draw(np.random.default_rng(0))[0]))
        names = reported(coefs, plan.design.coef, SEE)
        study = _Study(plan, [plan.design.coef.index(name) for name in names], alpha, alternative)
        own = study.expected(names)
        if n:
            label = ", ".join(f"{size} {name}" for name, size in values.items()) or "the design of the data"
            work = lambda k, study=study: study.run(np.random.default_rng(streams_of[1 + k]))  # noqa: E731
            shown: Any = {"cores": cores, "progressbar": progressbar, "label": f"Studies of {label}"}
            results, failed = replicate(work, n, **shown)
            failures += failed
            own = own.join(_told([r for r in results if r is not None], names, own["true"].to_numpy(), n))
        own = own.reset_index().assign(n_obs=plan.design.n_obs)
        columns = apart(values, own.columns)
        tables.append(pd.DataFrame({columns[name]: size for name, size in values.items()}, own.index).join(own))
    table = pd.concat(tables, ignore_index=True)
    table.insert(len(plans[0][0]), "n_obs", table.pop("n_obs"))
    formula = plans[0][1].design.hierarchy.formula
    return FactorDesignAnalysis(table, formula, alpha, alternative, n, used, tuple(failures))


def _plans(
    source: Any, sizes: Any, rows: Any, beta: Any, D: Any, sigma: Any, covariates: Any, rng: np.random.Generator
) -> list[tuple[dict[str, int], FactorPlan]]:
    """Every combination of sizes with its plan."""
    formula = source
    if isinstance(source, MultilevelNumbers):
        formula = source.design.hierarchy.formula
        beta, sigma = (own if own is not None else getattr(source, k) for k, own in (("beta", beta), ("sigma", sigma)))
        D = source.D if D is None else D
    elif not isinstance(source, str):
        received, reason = f"a source of type {type(source).__name__!r}", "it is planned from a formula or a fit"
        remedy = (
            "use 'y ~ arm + (1 | school / class)', or a fit with several grouping factors; hl.design_analysis has one"
        )
        raise SpecificationError(received, reason, remedy, SEE)
    if missing := [k for k, own in (("beta", beta), ("D", D), ("sigma", sigma)) if own is None]:
        received, reason = f"a design analysis without {' and '.join(missing)}", "the assumed truth is not complete"
        raise SpecificationError(received, reason, "give beta, D and sigma, or pass a fit", SEE)
    if sizes is None:
        if isinstance(source, str):
            reason, remedy = "the planned numbers of groups are not known", "use sizes={'school': 20, 'class': 3}"
            raise SpecificationError("a formula without sizes", reason, remedy, SEE)
        if covariates or rows != 1:
            reason, remedy = "without sizes the design is that of the data, with its rows", "give sizes as well"
            raise SpecificationError("rows or covariates without sizes", reason, remedy, SEE)
        return [({}, stated_plan(source.design.frame, source.design, beta, D, sigma))]
    *listed, counts = ([own] if np.ndim(own) == 0 else list(own) for own in (*sizes.values(), rows))
    (within,) = apart(["rows"], sizes).values()
    found = []
    for *numbers, count in itertools.product(*listed, counts):
        own = dict(zip(sizes, numbers, strict=True))
        plan = plan_of_factors(formula, own, count, covariates, rng, beta, D, sigma)
        found.append(({**own, within: count}, plan))
    if not found:
        received, reason = f"sizes={dict(sizes)!r} and rows={rows!r}", "one of them has no number"
        raise SpecificationError(received, reason, "give at least one number each", SEE)
    return found


def lam_at(criterion: Any, D: FloatArray, sigma: float) -> FloatArray:
    """λ of a criterion at D (Q, Q) and σ."""
    Bz = criterion.scaling.Bz
    relative = Bz @ D @ Bz.T / sigma**2
    relative[np.diag_indices_from(relative)] += LEAST * max(1.0, float(np.trace(relative)))
    return np.asarray(criterion.structure.parameters(relative))


@dataclass(frozen=True, eq=False)
class _Study:
    """A planned study: what is expected of it, and what one draw of it finds."""

    plan: FactorPlan
    position: list[int]
    alpha: float
    alternative: str

    def _drawn(self, rng: np.random.Generator) -> tuple[Any, FloatArray]:
        """The restricted likelihood of a response that is drawn, and λ of the truth."""
        plan = self.plan
        criterion = make_criterion(plan.design.with_response(plan.draw(rng)[0]), reml=True)
        return criterion, lam_at(criterion, block_diag(*plan.D), plan.sigma)

    def expected(self, names: Sequence[str]) -> pd.DataFrame:
        """Standard errors, degrees of freedom and power from the expected information."""
        criterion, lam = self._drawn(np.random.default_rng(0))
        solution = criterion.solution(lam, self.plan.sigma / criterion.scaling.y_scale)
        degrees = kenward_roger(solution)
        true, se = self.plan.beta[self.position], np.sqrt(np.diag(degrees.beta_cov))[self.position]
        df = self._df(degrees)
        return pd.DataFrame(
            {"true": true, "se": se, "df": df, "power": self._power(true / se, df)}, index=pd.Index(names, name="coef")
        )

    def _df(self, degrees: KenwardRogerDegrees) -> FloatArray:
        return degrees.of_rows(np.eye(len(self.plan.beta))[self.position])

    def _power(self, centre: FloatArray, df: FloatArray) -> FloatArray:
        df = np.minimum(df, 1e6)
        if self.alternative == "two-sided":
            end = t.ppf(1.0 - self.alpha / 2.0, df)
            return np.asarray(nct.sf(end, df, centre) + nct.cdf(-end, df, centre))
        end = t.ppf(1.0 - self.alpha, df)
        return np.asarray(nct.sf(end, df, centre) if self.alternative == "greater" else nct.cdf(-end, df, centre))

    def run(self, rng: np.random.Generator) -> Found:
        """Draw a study and fit it by REML."""
        criterion, lam = self._drawn(rng)
        optimum = maximise_again(criterion, lam)
        solution = criterion.solution(optimum.lam)
        degrees, at = kenward_roger(solution), self.position
        estimate, se = solution.beta[at], np.sqrt(np.diag(degrees.adjusted))[at]
        half, reject = judged(estimate, se, self._df(degrees), self.alpha, self.alternative)
        n, singular = self.plan.design.n_obs, optimum.n_boundary > 0
        return Found(estimate, se, estimate - half, estimate + half, reject, n, singular)


def _told(studies: list[Found], names: list[str], true: FloatArray, n: int) -> pd.DataFrame:
    """What many studies say, beside what is expected."""
    found = summaries(studies, names, true, n)[SIMULATED]
    found = found.rename(columns={"power": "simulated", "power_mcse": "mcse"})
    return found.assign(singular=float(np.mean([s.singular for s in studies])) if studies else np.nan)
