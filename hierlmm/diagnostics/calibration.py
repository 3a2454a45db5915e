"""The result of a calibration study: ranks against the uniform distribution, coverage, recovery, and a verdict.

Ranks of one parameter over n data sets are judged by their empirical distribution function at z_k = k/(L + 1). Under
uniformity n F(z_k) is Binomial(n, z_k) at every single point; a band that holds at all points together with probability
95 % uses the pointwise level γ at which 95 % of simulated uniform samples stay inside (Säilynoja, Bürkner & Vehtari
2022). The p-value is the share of uniform samples that stray at least as far, so p > 0.05 means "inside the band".

References
----------
Betancourt, M. (2018). Calibrating model-based inferences and decisions. arXiv:1803.08393 (contraction and z-scores).

Säilynoja, T., Bürkner, P., Vehtari, A. (2022). Graphical test for discrete uniformity and its applications in
goodness-of-fit evaluation and multiple sample comparison. Statistics and Computing 32, 32.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Unpack

import numpy as np
import pandas as pd
from scipy.special import bdtr, betaincinv

from hierlmm.arrays import FloatArray
from hierlmm.bayes.resolved import ResolvedPriors
from hierlmm.design.design import Design
from hierlmm.diagnostics.replicate import Failure, binomial_interval, probability, refuse_unknown
from hierlmm.drawing.figure import Figure, pictured
from hierlmm.errors import NotAvailableError
from hierlmm.frames import shorten
from hierlmm.options import checked, renamed
from hierlmm.results import Page, Paragraph, Result, Table
from hierlmm.text import count, sayer

SAY = sayer(__file__)
LEVELS = (0.5, 0.8, 0.95)
LOGLIK = "log-likelihood"
SIMULATIONS = 10_000
FEW = 200
"""Simulations below which a study says how little it can show."""
ORIGINS = {
    "priors": "the model's priors",
    "other priors": "other priors than the model's",
    "fit": "the estimates of a fit",
}


@dataclass(frozen=True, eq=False)
class EcdfBand:
    """Simultaneous band for the empirical distribution function of n ranks on 0 ... L.

    Attributes
    ----------
    n : int
    z : (L,)
        Points k/(L + 1), k = 1 ... L.
    tail : (n + 1, L)
        Two-sided pointwise tail probability of every count at every point.
    simulated : (SIMULATIONS,)
        Smallest tail probability of each simulated uniform sample, ascending.
    """

    n: int
    z: FloatArray
    tail: FloatArray
    simulated: FloatArray

    def level(self, ci: float) -> float:
        """Pointwise level γ of the band with this simultaneous probability."""
        return float(self.simulated[int((1.0 - ci) * len(self.simulated))])

    def limits(self, ci: float = 0.95) -> tuple[FloatArray, FloatArray]:
        """Lower and upper limit of the distribution function at ``z``: (L,), (L,)."""
        inside = self.tail >= self.level(ci)
        return inside.argmax(axis=0) / self.n, (self.n - inside[::-1].argmax(axis=0)) / self.n

    def p_value(self, ranks: FloatArray) -> float:
        """Share of uniform samples that stray at least as far as these ranks."""
        counts = np.searchsorted(np.sort(ranks), np.arange(1, len(self.z) + 1), side="left")
        strayed = self.tail[counts, np.arange(len(self.z))].min()
        return float(np.searchsorted(self.simulated, strayed, side="right") / len(self.simulated))


@lru_cache(maxsize=16)
def ecdf_band(n: int, n_ranks: int) -> EcdfBand:
    """Simulate the band for n ranks on 0 ... n_ranks (Säilynoja et al. 2022, section 2.2), with a fixed seed."""
    bins = n_ranks + 1
    z = np.arange(1, bins) / bins
    counts = np.arange(n + 1)[:, None]
    below = bdtr(counts, n, z)
    above = 1.0 - np.vstack([np.zeros(len(z)), below[:-1]])
    tail = np.minimum(1.0, 2.0 * np.minimum(below, above))
    samples = np.random.default_rng(214).multinomial(n, np.full(bins, 1.0 / bins), size=SIMULATIONS)
    reached = np.cumsum(samples, axis=1)[:, :-1]
    return EcdfBand(n, z, tail, np.sort(tail[reached, np.arange(len(z))].min(axis=1)))


def mildest_error(n: int) -> float:
    """The coverage closest below 95 % that n simulations tell from it, four times in five.

    At most k of n intervals may hold the truth where the interval of their share excludes 0.95; the coverage c is that
    at which so few do with probability 0.8, ``P(K <= k | n, c) = 1 - I_c(k + 1, n - k) = 0.8``.

    Parameters
    ----------
    n : int
        Number of simulated data sets.
    """
    upper = binomial_interval(np.arange(n + 1.0), np.full(n + 1, float(n)))[1]
    k = int(np.flatnonzero(upper < 0.95).max(initial=-1))
    return float(betaincinv(k + 1.0, n - k, 0.2)) if k >= 0 else 0.0


@checked
@dataclass(frozen=True, eq=False, repr=False)
class Calibration(Result):
    """What `calibrate` found; every table has one row for each data set that was fitted and one column a parameter.

    Attributes
    ----------
    estimator : {"NUTS", "REML", "ML"}
    source : {"priors", "other priors", "fit"}
        What the data were drawn from.
    design, priors
        Of the model that was examined; the priors as they were held fixed.
    simulations : int
        Number of simulated data sets.
    truth, estimate, sd, lower, upper : DataFrame
        True values; posterior means (or estimates), posterior SDs (or standard errors), ends of the 95 % interval.
    pit : DataFrame
        Position of the truth in the posterior (or in the normal distribution behind a Wald interval), between 0 and
        1; a central interval of probability c covers the truth where ``abs(2 * pit - 1) <= c``.
    n_ranks : int
        Draws L among which ranks are taken.
    autocorrelation : Series or None
        Correlation between neighbours among these L draws, averaged over the data sets.
    checks : DataFrame
        Divergences and smallest effective sample size of each fit; or convergence and singularity.
    failures : tuple of Failure
        Data sets that could not be fitted, and why.
    settings : dict
    seconds : float
        Wall time.
    """

    estimator: str
    source: str
    design: Design
    priors: ResolvedPriors
    simulations: int
    truth: pd.DataFrame
    estimate: pd.DataFrame
    sd: pd.DataFrame
    lower: pd.DataFrame
    upper: pd.DataFrame
    pit: pd.DataFrame
    rank_table: pd.DataFrame | None
    n_ranks: int
    autocorrelation: pd.Series | None
    checks: pd.DataFrame
    failures: tuple[Failure, ...]
    settings: dict[str, Any]
    seconds: float

    @property
    def ranks(self) -> pd.DataFrame:
        """Rank of the truth among the L thinned posterior draws, data set × parameter, whole numbers from 0 to L.

        Raises
        ------
        NotAvailableError
            For likelihood fits, which have no draws; ``pit`` is what they have.
        """
        if self.rank_table is None:
            reason = "a rank is a position among posterior draws"
            remedy = "use .pit, the position of the truth in the normal distribution behind each Wald interval"
            raise NotAvailableError(f"ranks of {self.estimator} fits", reason, remedy, "docs, page 'Calibration'")
        return self.rank_table.astype(int)

    @property
    def parameters(self) -> list[str]:
        """Names of the quantities that were followed."""
        return [str(name) for name in self.truth.columns]

    @property
    def band(self) -> EcdfBand:
        """Band that the ranks' empirical distribution functions are held against."""
        return ecdf_band(len(self.ranks), self.n_ranks)

    @property
    def _judged(self) -> bool:
        """Whether uniform ranks are what a correct sampler gives."""
        return self.rank_table is not None and self.source != "fit"

    @cached_property
    def _summary(self) -> pd.DataFrame:
        pit = self.pit.to_numpy()
        used = np.sum(np.isfinite(pit), axis=0).astype(float)
        covered = {c: np.sum(np.abs(2.0 * pit - 1.0) <= c, axis=0).astype(float) for c in LEVELS}
        table = pd.DataFrame(index=self.truth.columns)
        if self._judged:
            table["p_uniform"] = [self.band.p_value(self.ranks[name].to_numpy()) for name in self.parameters]
            table["in_band"] = table["p_uniform"] > 0.05
        for c in LEVELS:
            table[f"cover{round(100 * c)}"] = covered[c] / np.where(used > 0, used, np.nan)
        table["cover95_lower"], table["cover95_upper"] = binomial_interval(covered[0.95], used)
        error = self.estimate - self.truth
        spread = self.sd.where(self.sd > 0)
        table["bias"] = error.mean()
        table["rmse"] = np.sqrt((error**2).mean())
        table["z_mean"], table["z_sd"] = (error / spread).mean(), (error / spread).std()
        if self._judged:
            table["contraction"] = 1.0 - (self.sd**2).mean() / self.truth.var()
            table.loc[table.index == LOGLIK, "contraction"] = np.nan
        table["n_used"] = used.astype(int)
        return table

    @property
    def table(self) -> pd.DataFrame:
        """`summary`."""
        return self._summary

    def summary(self) -> pd.DataFrame:
        """One row for each parameter.

        Returns
        -------
        pandas.DataFrame
            ``p_uniform`` and ``in_band``
                Uniformity of the ranks: p-value, and whether the ECDF stays inside its simultaneous 95 % band.
            ``cover50``, ``cover80``, ``cover95``
                Shares of central intervals that hold the truth; ``cover95_lower`` and ``cover95_upper`` enclose the
                last one with 95 % binomial uncertainty (Wilson).
            ``bias``, ``rmse``
                Of posterior means or estimates.
            ``z_mean``, ``z_sd``
                Of (estimate - truth) / sd: 0 and 1 for an exact posterior.
            ``contraction`` (``estimator="nuts"``)
                1 - mean posterior variance / prior variance: 1 where the data say everything, 0 where nothing.
            ``n_used``
                Data sets with an interval (a Wald interval does not exist on the boundary).
        """
        return self._summary.copy()

    @property
    def ok(self) -> bool:
        """Whether nothing speaks strongly against calibration: ranks (or Wald coverage) over all parameters."""
        return not self._miscalibrated

    @property
    def _miscalibrated(self) -> list[str]:
        """Parameters beyond chance: p below 1 %, Bonferroni-corrected for the number of parameters."""
        table = self._summary
        strict = 0.01 / len(table)
        if self._judged:
            return [str(name) for name in table.index[table["p_uniform"] < strict]]
        n = table["n_used"].to_numpy()
        low, high = binomial_interval(table["cover95"].to_numpy() * n, n, 1.0 - strict)
        return [str(name) for name in table.index[(low > 0.95) | (high < 0.95)]]

    @property
    def verdict(self) -> str:
        """The result in plain words."""
        table, bad, k = self._summary, self._miscalibrated, len(self._summary)
        cover = SAY("calibration.cover", worst=100 * table["cover95"].min(), best=100 * table["cover95"].max())
        if not self._judged and not bad:
            return SAY("calibration.covered", cover=cover)
        if not self._judged:
            named = [f"{b} ({100 * share:z.1f} %)" for b, share in table["cover95"].items() if b in bad]
            return SAY("calibration.not_covered", cover=cover, named=shorten(named))
        if bad:
            shapes = " ".join(f"{name}: {self._shape(name)}" for name in bad[:5])
            why = SAY("calibration.other_priors") if self.source == "other priors" else ""
            return SAY("calibration.bad", names=shorten(bad), cover=cover, shapes=shapes, why=why)
        outside = table.index[~table["in_band"]]
        if len(outside):
            p = table["p_uniform"].min()
            chance = 100 * (1.0 - (1.0 - p) ** k)
            return SAY("calibration.unclear", names=shorten(outside), p=p, k=k, chance=chance, cover=cover)
        n = len(self.checks)
        few = SAY("calibration.few", n=n, mildest=100 * mildest_error(n)) if n < FEW else ""
        return SAY("calibration.good", k=k, cover=cover, few=few)

    def _shape(self, name: str) -> str:
        pit = (self.ranks[name].to_numpy() + 0.5) / (self.n_ranks + 1)
        shift = (pit.mean() - 0.5) * np.sqrt(12.0 * len(pit))
        spread = (pit.var() * 12.0 - 1.0) * np.sqrt(len(pit) * 1.25)  # 1.25 = 1 / (kurtosis of the uniform - 1)
        if abs(shift) >= abs(spread):
            return f"the posterior lies too {'low' if shift > 0 else 'high'}."
        return f"the posterior is too {'narrow' if spread > 0 else 'wide'}."

    def _notes(self) -> list[str]:
        notes, total = [], len(self.checks)
        if self.failures:
            n, first = len(self.failures), self.failures[0]._asdict()
            notes.append(
                SAY("calibration_notes.failures", n=n, are="is" if n == 1 else "are", total=self.simulations, **first)
            )
        if self.estimator == "NUTS":
            diverged = int((self.checks["divergences"] > 0).sum())
            notes.append(SAY("calibration_notes.divergences", n=diverged, total=total))
            if scarce := int((self.checks["ess"] < self.n_ranks).sum()):
                notes.append(SAY("calibration_notes.scarce", sets=count(scarce, "data set"), ranks=self.n_ranks))
            assert self.autocorrelation is not None
            if (strongest := float(self.autocorrelation.max())) > 0.1:
                notes.append(SAY("calibration_notes.correlated", strongest=strongest))
        else:
            stuck, singular = (int(self.checks[c].sum()) for c in ("not converged", "singular"))
            notes.append(SAY("calibration_notes.likelihood", stuck=stuck, singular=singular, total=total))
            without = self._summary["n_used"]
            if (fewest := int(without.min())) < total:
                notes.append(SAY("calibration_notes.boundary", fewest=fewest, parameter=without.idxmin()))
        return notes

    def _page(self) -> Page:
        title = "Simulation-based calibration" if self._judged else "Recovery of known parameters"
        how = self.estimator
        if self.estimator == "NUTS":
            s = self.settings
            how += f" ({s['chains']} × ({s['tune']} + {s['draws']}), ranks among {self.n_ranks} thinned draws)"
        origin = f"{self.simulations} data sets drawn from {ORIGINS[self.source]}"
        head = f"{title}: {self.design.hierarchy.formula}\n{origin}, fitted by {how}; {self.seconds:z.1f} s"
        shown = _display(self._summary)
        table = Table(shown, [shown.to_string()], "By parameter", index=True)
        notes = [Paragraph(f"Note: {note}") for note in self._notes()]
        return Page(head, ["", table, "", Paragraph(self.verdict), *notes])

    # Drawing, with what plots share; imported when called.

    @renamed(prob="ci")
    @pictured
    def plot(
        self,
        parameters: list[str] | str | None = None,
        *,
        ci: float = 0.95,
        **figure: Unpack[Figure],
    ) -> Any:
        """Draw ArviZ's Δ-ECDF of the ranks with the simultaneous band (`arviz.plot_ecdf_pit`).

        A line above zero on the left says that small ranks are too frequent. An arch: the posterior lies too high
        (below zero: too low). An S that rises first: the posterior is too narrow; that falls first: too wide.

        Parameters
        ----------
        parameters : str or list of str, optional
            Which to draw; by default all.
        ci : float
            Simultaneous probability of the band.

        Returns
        -------
        Picture
        """
        from hierlmm.drawing.results import plot_ecdf

        ci, chosen, exact = probability("ci", ci), self._chosen(parameters), self.rank_table is not None
        if exact:  # spread evenly over the bin of each rank, which leaves the ECDF at the bins' edges as it is
            ranks = self.ranks[chosen]
            positions = (ranks + np.random.default_rng(214).uniform(size=ranks.shape)) / (self.n_ranks + 1)
        else:
            positions = self.pit[chosen].dropna()
        band = ecdf_band(len(positions), self.n_ranks)
        xlabel = "rank of the truth, scaled to 1" if exact else "position of the truth in the Wald distribution"
        return plot_ecdf(positions, (band.z, *band.limits(ci)), ci, xlabel, figure)

    @pictured
    def plot_recovery(
        self,
        parameters: list[str] | str | None = None,
        **figure: Unpack[Figure],
    ) -> Any:
        """Draw posterior means (or estimates) and 95 % intervals against the true values.

        Parameters
        ----------
        parameters : str or list of str, optional
            Which to draw; by default all but the log-likelihood.

        Returns
        -------
        Picture
        """
        from hierlmm.drawing.results import plot_recovery

        chosen = [p for p in self.parameters if p != LOGLIK] if parameters is None else self._chosen(parameters)
        return plot_recovery(self, chosen, figure)

    def _chosen(self, parameters: list[str] | str | None) -> list[str]:
        if parameters is None:
            return self.parameters
        chosen = [parameters] if isinstance(parameters, str) else list(parameters)
        for name in chosen:
            received, see = f"parameters={name!r}", "docs, page 'Calibration'"
            refuse_unknown(received, name, self.parameters, "it was not followed.", "use one of: {}", see)
        return chosen


def _display(table: pd.DataFrame) -> pd.DataFrame:
    """The table as people read it."""
    shown = pd.DataFrame(index=table.index.rename(None))
    if "p_uniform" in table:
        shown["p (ranks)"] = table["p_uniform"].map("{:z.3f}".format)
        shown["in band"] = np.where(table["in_band"], "yes", "NO")
    for c in LEVELS:
        shown[f"{round(100 * c)} % covers"] = (100 * table[f"cover{round(100 * c)}"]).map("{:z.1f}".format)
    ends = zip(100 * table["cover95_lower"], 100 * table["cover95_upper"], strict=True)
    shown["95 % covers"] += [f" ({low:z.1f} to {high:z.1f})" for low, high in ends]
    for column, spec in (("bias", ".3g"), ("rmse", ".3g"), ("z_mean", "z.2f"), ("z_sd", "z.2f")):
        shown[column.replace("_", " ")] = [format(v, spec) for v in table[column]]
    if "contraction" in table:
        shown["contraction"] = ["" if np.isnan(v) else f"{v:z.2f}" for v in table["contraction"]]
    return shown
