"""Leave-one-out PIT: whether what was left out lies where the others say it should.

The PIT of a subject must be of one number a subject, T(y_i), a function of its rows alone: their mean, their standard
deviation, or the coefficient of the subject's own least-squares regression. Then

    PIT_i = P(T(y_i*) ≤ T(y_i) | y_-i),    y_i* | y_-i ~ ∫ N(X_i β, Z_i D Z_i' + Σ_i) p(β, D, σ | y_-i)

with rows y_i* of a subject that is new but has the covariates of subject i. It is the distribution function of T(y_i*)
at T(y_i), hence uniform where the model is true, for any T (Gelfand, Dey & Chang 1992; the test quantities of Gelman,
Meng & Stern 1996, left out in turn). The posterior without subject i is that of all subjects, reweighted by the
reciprocal of the marginal likelihood of y_i with Pareto smoothing (Vehtari et al. 2017).

PITs of one fit are uniform but not independent: the parameters that they share were estimated from these very subjects,
so that their distribution function follows the uniform one more closely than that of as many independent numbers,
however many subjects there are. A test that takes them as independent (or allows for any dependence, as ArviZ's does)
nearly never rejects a true model, and sees little else. The p-value here is of the same numbers with no subject left
out, at single draws of the posterior (for rows, given the subject's other rows), where they are independent given the
parameters, and combined over the draws as `hierlmm.diagnostics.predictive_checks` combines its PIT values.

A check with draws given b_i, estimated from these very rows, is not uniform: what was observed lies too close to what
is predicted (`benchmarks/loo_pit.py`).

References
----------
Gelfand, A. E., Dey, D. K., Chang, H. (1992). Model determination using predictive distributions with implementation
via sampling-based methods. Bayesian Statistics 4, 147-167.

Gelman, A., Meng, X.-L., Stern, H. (1996). Posterior predictive assessment of model fitness via realized discrepancies.
Statistica Sinica 6, 733-807.

Tesso et al. (2026). LOO-PIT predictive model checking. arXiv:2603.02928 (ArviZ's test).

Vehtari, A., Gelman, A., Gabry, J. (2017). Practical Bayesian model evaluation using leave-one-out cross-validation and
WAIC. Statistics and Computing 27, 1413-1432.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.bayes.family_replications import replicator_of
from hierlmm.bayes.predictive import family_responses, new_effects, posterior_predictive_draws, subject_lines
from hierlmm.bayes.tree import dispersion_variables, response_name
from hierlmm.design.design import Design
from hierlmm.diagnostics.loo import UNITS, Unit, unit_log_likelihood
from hierlmm.diagnostics.predictive_checks import components, pit_check, smooth_p
from hierlmm.errors import NotAvailableError, SpecificationError
from hierlmm.fits.posterior import PosteriorNumbers, flat_parameters
from hierlmm.likelihood.by_subject import covariance_root
from hierlmm.likelihood.crossproducts import subject_rows
from hierlmm.options import checked, choose
from hierlmm.results import Page, Paragraph, Result
from hierlmm.text import p_text, sayer

MOST = 1000
"""Units whose PIT is taken; of more a random sample."""
PIECE = 10_000_000
"""Simulated responses (80 MB) at a time."""
DRAWS, ROW_DRAWS = 200, 50
"""Posterior draws of the p-value."""
REFERENCES = 200
"""Data sets simulated at each of them, unless these are too many values."""
SAY = sayer(__file__)
SEE = "docs, page 'Posterior fits', section 'Left out in turn'"


@checked
@dataclass(frozen=True, eq=False, repr=False)
class LooPit(Result):
    """Leave-one-out PIT of every unit.

    Attributes
    ----------
    pit : Series by unit
        Uniform on (0, 1) where the model is true.
    unit : {"subject", "observation"}
    statistic : str
        Of what: ``"mean"``, ``"sd"`` or a random effect's term; ``"y"`` for observations.
    p : float
        Of a smooth test that allows for what the posterior took from the same data.
    n : int
        Units there are, of which ``pit`` may be a random sample.
    """

    pit: pd.Series
    unit: str
    statistic: str
    p: float
    n: int

    @property
    def table(self) -> pd.DataFrame:
        """``pit`` by unit."""
        return self.pit.to_frame("pit")

    @property
    def verdict(self) -> str:
        """Whether they look uniform."""
        units = f"{self.unit}s"
        said = SAY("pit.uniform" if self.p >= 0.01 else "pit.not_uniform", p=p_text(self.p), units=units)
        if len(self.pit) < self.n:
            said += SAY("pit.sampled", shown=f"{len(self.pit):,}", n=f"{self.n:,}", units=units)
        return said

    def _page(self) -> Page:
        return Page(f"Leave-one-{self.unit}-out PIT ({self.statistic})", [Paragraph(self.verdict)])


def loo_pit(fit: PosteriorNumbers, unit: Unit = "subject", statistic: str = "mean", seed: int | None = 0) -> LooPit:
    """PIT of every subject, or every row, given all others; see `PosteriorFit.plot_loo_pit`."""
    import arviz as az

    choose("unit", unit, UNITS)
    rng = np.random.default_rng(seed)
    tree, labels, n = pit_tree(fit, unit, statistic, rng)
    name = response_name(fit.design)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*Pareto.*", category=UserWarning)  # `loo` says it
        # Ties are broken at random; the tails of whole numbers are no generalised Pareto distributions.
        values = az.loo_pit(tree, pareto_pit=fit.design.is_gaussian)[name]
    p = combined_p(fit, unit, statistic, tree["observed_data"]["unit"].to_numpy(), rng)
    of = statistic if unit == "subject" else "y"
    return LooPit(pd.Series(values.to_numpy(), labels, name="pit"), unit, of, p, n)


def combined_p(fit: PosteriorNumbers, unit: str, statistic: str, chosen: IntArray, rng: np.random.Generator) -> float:
    """p-value of the PITs of the chosen units at draws of the posterior given all of them."""
    if unit == "observation":
        (check,) = pit_check(fit, "mixed", [chosen], ROW_DRAWS, 0.95, int(rng.integers(2**31)))
        return check.p
    quantity, _ = test_quantity(fit.design, statistic)
    replicator, observed = replicator_of(fit.design), quantity(fit.design.y[None])[:, chosen]
    states, found = fit.evenly_kept(DRAWS), []
    M = max(20, min(REFERENCES, PIECE * 6 // (fit.n_obs * len(states))))
    for state in fit.parameter_draws(states):
        replicated = quantity(replicator.replicate(state, "new_subject", rng, M))[:, chosen]
        below, ties = (replicated < observed).sum(axis=0), (replicated == observed).sum(axis=0)
        rank = below + rng.random(len(chosen)) * (ties + 1)  # uniform, as a rank among M + 1
        found.append(components(rank[None] / (M + 1))[0])
    return smooth_p(np.array(found))


def pit_tree(fit: PosteriorNumbers, unit: str, statistic: str, rng: np.random.Generator) -> tuple[Any, pd.Index, int]:
    """Tree for ``az.loo_pit`` with dimension ``unit``; labels of the units; and how many there are in all."""
    import xarray as xr

    design, name = fit.design, response_name(fit.design)
    if unit == "subject":
        quantity, usable = test_quantity(design, statistic)
        observed = quantity(design.y[None])[0]
    else:
        observed, usable = design.y, np.arange(design.n_obs)
    chosen = usable if len(usable) <= MOST else np.sort(rng.choice(usable, MOST, replace=False))
    loglik = unit_log_likelihood(fit, unit, chosen)  # refuses what has no such likelihood, before anything is simulated
    if unit == "subject":
        replicated = new_subjects(fit, quantity, rng)[..., chosen]
    else:
        replicated = fit.posterior_predictive(seed=int(rng.integers(2**31)))["posterior_predictive"][name].to_numpy()
        replicated = replicated[..., chosen]
    posterior = fit.datatree["posterior"].to_dataset()
    names = ("beta", "sd_b", *dispersion_variables(design))
    tree = {"posterior": posterior[[v for v in names if v in posterior]]}
    dims = ("chain", "draw", "unit")
    for group, own, values in (
        ("observed_data", ("unit",), observed[chosen]),
        ("posterior_predictive", dims, replicated),
        ("log_likelihood", dims, loglik),
    ):
        coords = {d: posterior[d].to_numpy() for d in own if d != "unit"} | {"unit": chosen}
        tree[group] = xr.Dataset({name: (own, values)}, coords=coords)
    labels = design.subjects if unit == "subject" else design.frame.index
    return xr.DataTree.from_dict(tree), labels[chosen], len(usable)


def test_quantity(design: Design, statistic: str) -> tuple[Callable[[FloatArray], FloatArray], IntArray]:
    """T(y) of all subjects (S, N) -> (S, J), and the positions of the subjects that have it."""
    order, start = subject_rows(design)
    n = np.diff(start)
    if statistic == "mean":
        return lambda y: np.add.reduceat(y[:, order], start[:-1], axis=1) / n, np.arange(len(n))
    if statistic == "sd":

        def spread(y: FloatArray) -> FloatArray:
            own = y[:, order]
            own = own - np.repeat(np.add.reduceat(own, start[:-1], axis=1) / n, n, axis=1)
            return np.sqrt(np.add.reduceat(own**2, start[:-1], axis=1) / n)

        return spread, _some(np.flatnonzero(n > 1), statistic, "no subject has two rows")
    if statistic not in design.own_term:
        choices = ", ".join(map(repr, ("mean", "sd", *design.own_term)))
        reason = "this is not a number that a subject has"
        raise SpecificationError(f"statistic={statistic!r}", reason, f"use one of {choices}", SEE)
    weights, usable, k = np.zeros(len(order)), [], design.own_term.index(statistic)
    for j, (lo, hi) in enumerate(pairwise(start)):
        Z = design.own_Z[order[lo:hi]]
        if np.linalg.matrix_rank(Z) == Z.shape[1]:
            weights[lo:hi] = np.linalg.pinv(Z)[k]
            usable.append(j)
    found = _some(np.array(usable, dtype=int), statistic, "no subject has rows enough for a regression of its own")
    return lambda y: np.add.reduceat(y[:, order] * weights, start[:-1], axis=1), found


def _some(usable: IntArray, statistic: str, reason: str) -> IntArray:
    if not len(usable):
        raise NotAvailableError(f"statistic={statistic!r}", reason, "use statistic='mean'", SEE)
    return usable


def new_subjects(
    fit: PosteriorNumbers, quantity: Callable[[FloatArray], FloatArray], rng: np.random.Generator
) -> FloatArray:
    """T of new subjects with the covariates of the old ones, (chain, draw, J)."""
    design = fit.design
    beta, D, sigma, eta = flat_parameters(fit)
    root, S = covariance_root(D), len(sigma)
    out = np.empty((S, design.n_subjects))
    step = max(1, PIECE // design.n_obs)
    for lo in range(0, S, step):
        part = slice(lo, min(lo + step, S))
        b = new_effects(design, root[part], rng, len(sigma[part]))
        if design.is_gaussian:
            y = posterior_predictive_draws(design, beta[part], b, sigma[part], rng, eta[part])
        else:
            y = family_responses(design, subject_lines(design, beta[part], b), eta[part], rng)
        out[part] = quantity(y)
    return out.reshape(*fit.draw_shape, -1)
