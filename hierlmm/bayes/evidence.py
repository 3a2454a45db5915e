"""The marginal likelihood of a model, p(y) = ∫ p(y | θ) p(θ) dθ, from its collapsed posterior.

β and b are integrated out in closed form (`collapsed_kernel`), so that the integral left is over the few covariance
parameters, here with every standard deviation as its logarithm. With the mode θ̂ and U U' the inverse curvature there, U
upper triangular (the tail of each standard deviation near zero then runs along one axis):

Up to three parameters (two with a residual structure), the trapezoid rule in t, θ = θ̂ + U sinh(t): the integrand is
analytic and vanishes with all its derivatives at both ends, where the error of the rule falls faster than any power of
its step. The step is halved until the value stays; the error is the last change.

More parameters, importance sampling. The proposal is a mixture of Student t's with `NU` degrees of freedom, one at
every mode, with one more that has the mean and covariance found by first rounds; each gives the same number of points
of a scrambled Sobol sequence, and every point is weighted by the density of the whole mixture (Veach and Guibas 1995,
the balance heuristic). The error is that of the mean of `REPLICATES` independent scramblings; Pareto k says whether the
weights have a mean and a variance to speak of.

References
----------
Owen, A. B. (2013). Monte Carlo theory, methods and examples, chapters 9, 10 and 17.

Vehtari, A., Simpson, D., Gelman, A., Yao, Y., Gabry, J. (2024). Pareto smoothed importance sampling. Journal of Machine
Learning Research 25 (72).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import integrate
from scipy.special import gammaln, logsumexp, ndtri
from scipy.stats import chi2, qmc

from hierlmm.arrays import FloatArray
from hierlmm.bayes.collapsed import collapsed_posterior, why_not_collapsed
from hierlmm.bayes.collapsed_kernel import evaluate
from hierlmm.bayes.collapsed_residual import residual_posterior
from hierlmm.bayes.convergence import GOOD_K, pareto_smoothed
from hierlmm.bayes.posterior import Collapsed
from hierlmm.bayes.resolved import ResolvedPriors
from hierlmm.design.design import Design
from hierlmm.errors import NotAvailableError, warn
from hierlmm.likelihood.residual_rows import residual_rows
from hierlmm.options import checked
from hierlmm.results import Page, Paragraph, Result

SEE = "docs, page 'Bayes factors'"
GRID, GRID_OF_ROWS = 3, 2
"""Parameters up to which the integral is by quadrature; where the rows are whitened anew at every point."""
STEPS, TOLERANCE, CELLS = (0.5, 0.25, 0.125, 0.0625), (1e-7, 1e-7, 1e-4), 250_000
"""Steps of t; the change at which halving ends, by the number of parameters (the error left is about its square); and
the most points of a grid."""
FAINT = 1e-13
"""Share of the integral in an outermost slab of the grid that counts no longer."""
FARTHEST = 7.0
"""Largest t: 548 standard deviations from the mode."""
NU, REPLICATES, ROUNDS, ROUND, FEWEST = 5.0, 16, 3, 4096, 64
"""Degrees of freedom of the proposal, scramblings, rounds that shape it and their points, and points of a component and
scrambling at first."""
MOST, MOST_OF_ROWS, PRECISION = 2**17, 2**15, 0.003
"""Most points of importance sampling, and the error at which fewer suffice."""

type Log = Callable[[FloatArray], FloatArray]


@checked
@dataclass(frozen=True, eq=False, repr=False)
class MarginalLikelihood(Result):
    """The log marginal likelihood of a model: how probable its priors made the data. Frozen.

    Attributes
    ----------
    value : float
        log p(y), with all constants.
    error : float
        Of quadrature, its last change; of importance sampling, the Monte-Carlo standard error of ``value``.
    method : {"quadrature", "importance sampling"}
    evaluations : int
        Of the density of the covariance parameters.
    n_parameters : int
        Number of covariance parameters that were integrated numerically; all others in closed form.
    pareto_k : float
        Of the importance weights, NaN for quadrature; above 0.7 value and error cannot be relied on.
    """

    value: float
    error: float
    method: str
    evaluations: int
    n_parameters: int
    pareto_k: float = float("nan")

    def __float__(self) -> float:
        return self.value

    @property
    def table(self) -> pd.DataFrame:
        """One row: all attributes."""
        columns = ["value", "error", "method", "evaluations", "n_parameters", "pareto_k"]
        return pd.DataFrame({name: [getattr(self, name)] for name in columns}, index=["log marginal likelihood"])

    def _page(self) -> Page:
        how = f"{self.method} over {self.n_parameters} covariance parameters, {self.evaluations} evaluations"
        k = "" if math.isnan(self.pareto_k) else f", Pareto k {self.pareto_k:z.2f}"
        title = f"Log marginal likelihood: {self.value:.4f} (error {self.error:.2g})"
        text = f"Fixed and random effects are integrated out in closed form, the rest by {how}{k}."
        return Page(title, [Paragraph(text)])


class _Target(NamedTuple):
    """Log density of z, θ = θ̂ + U z, its modes (M, m), and whether it reads cross-products alone, which is quick."""

    log: Log
    modes: FloatArray
    quick: bool


def log_marginal_likelihood(design: Design, priors: ResolvedPriors, *, seed: int = 0) -> MarginalLikelihood:
    """Log marginal likelihood of a Gaussian model with normal priors of the fixed effects.

    Parameters
    ----------
    design, priors
        The model.
    seed : int
        Of the scramblings.

    Raises
    ------
    NotAvailableError
        If the model is of another family, or its priors have no closed form.

    Warns
    -----
    FitWarning
        If Pareto k is above 0.7.
    """
    refuse_without_integral(design, priors)
    structured = design.has_residual_structure or not design.term
    posterior = (residual_posterior if structured else collapsed_posterior)(design, priors, signed=False)
    target, m = _target(posterior, quick=not structured), len(posterior.mode)
    if m <= (GRID if target.quick else GRID_OF_ROWS):
        found = _by_quadrature(target, m)
    else:
        found = _by_sampling(target, m, seed)
    scale = np.linalg.slogdet(posterior.root)[1] - _log_mass(design, priors)
    if found.pareto_k > GOOD_K:
        warn(
            f"Pareto k of the marginal likelihood is {found.pareto_k:.2f}, above {GOOD_K}: its value and error cannot "
            "be relied on. This happens when the posterior of the covariance parameters has long tails or several "
            "modes. To do: use narrower priors of standard deviations and correlations, or a simpler covariance."
        )
    return replace(found, value=found.value + float(scale))


def refuse_without_integral(design: Design, priors: ResolvedPriors) -> None:
    """Refuse what has no exact marginal likelihood here.

    Raises
    ------
    NotAvailableError
    """
    if not design.is_gaussian:
        received = f"the marginal likelihood with a {design.family.title} response"
        reason = "random effects can be integrated out exactly only beside a Gaussian response"
        raise NotAvailableError(received, reason, "compare such fits by fit.loo()", SEE)
    if obstacle := why_not_collapsed(priors):
        remedy = "use Normal(...) for fixed effects, HalfNormal(...) or HalfStudentT(...) for standard deviations; or "
        raise NotAvailableError("the marginal likelihood", obstacle, f"{remedy}compare by fit.loo()", SEE)


def _target(posterior: Collapsed, *, quick: bool) -> _Target:
    """The density in coordinates in which the tails run along the axes."""
    root = posterior.root
    upper = np.linalg.cholesky((root @ root.T)[::-1, ::-1])[::-1, ::-1]
    turn = np.linalg.solve(root, upper)
    modes = np.linalg.solve(upper, (posterior.modes - posterior.mode).T).T
    compiled = posterior.compiled()
    if compiled is None:
        density = posterior.evaluator()
    else:
        function, numbers = compiled

        def density(z: FloatArray) -> tuple[float, FloatArray]:
            return evaluate(z, numbers, function)

    def log(z: FloatArray) -> FloatArray:
        found = np.array([density(row)[0] for row in z @ turn.T])
        return np.where(np.isfinite(found), found, -np.inf)

    return _Target(log, modes, quick)


def _log_mass(design: Design, priors: ResolvedPriors) -> float:
    """Log probability that the priors of the residual parameters leave to where the parameters can be."""
    if not design.has_residual_structure:
        return 0.0
    total = 0.0
    for parameter, prior in zip(residual_rows(design).parameters, priors.residual, strict=True):
        low, high = prior.support
        lower, upper = max(low, parameter.lower), min(high, parameter.upper)
        if (lower, upper) != (low, high):
            mass = integrate.quad(lambda x, own=prior: math.exp(float(own.logpdf(x))), lower, upper, limit=200)[0]
            total += math.log(mass)
    return total


def _by_quadrature(target: _Target, m: int) -> MarginalLikelihood:
    """Halve the step until the value stays; a coarse grid first finds how far the integrand reaches."""
    low, high = np.full(m, -3.0), np.full(m, 3.0)
    previous, change, spent, value = math.nan, math.inf, 0, math.nan
    for step in STEPS:
        while True:
            axes = [step * np.arange(np.floor(a / step), np.ceil(b / step) + 1) for a, b in zip(low, high, strict=True)]
            cells = math.prod(map(len, axes))
            if cells > CELLS and math.isfinite(previous):
                return MarginalLikelihood(value, change, "quadrature", spent, m)
            t = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
            logs = target.log(np.sinh(t).reshape(-1, m)).reshape(t.shape[:-1]) + np.log(np.cosh(t)).sum(axis=-1)
            spent += cells
            total = logsumexp(logs)
            grown = _fit_range(np.exp(logs - total), axes, low, high)
            if not grown:
                break
        value = float(total + m * math.log(step))
        change, previous = abs(value - previous), value
        if change < TOLERANCE[m - 1]:
            break
    return MarginalLikelihood(value, change, "quadrature", spent, m)


def _fit_range(share: FloatArray, axes: list[FloatArray], low: FloatArray, high: FloatArray) -> bool:
    """Move the ends of the grid to where the integrand counts no longer; whether it was too small."""
    grown = False
    for k, axis in enumerate(axes):
        slabs = share.sum(axis=tuple(j for j in range(len(axes)) if j != k))
        counts = np.flatnonzero(slabs > FAINT)
        step = axis[1] - axis[0]
        if counts[0] == 0 and axis[0] > -FARTHEST:
            low[k], grown = axis[0] - 1.0, True
        else:
            low[k] = axis[max(counts[0] - 1, 0)] - 0.5 * step
        if counts[-1] == len(axis) - 1 and axis[-1] < FARTHEST:
            high[k], grown = axis[-1] + 1.0, True
        else:
            high[k] = axis[min(counts[-1] + 1, len(axis) - 1)] + 0.5 * step
    return grown


class _Student(NamedTuple):
    """A multivariate t with `NU` degrees of freedom: centre (m,), scale factor (m, m)."""

    centre: FloatArray
    half: FloatArray

    def points(self, u: FloatArray) -> FloatArray:
        """Points (n, m) from points (n, m + 1) of the unit cube."""
        u = np.clip(u, 1e-12, 1.0 - 1e-12)
        stretch = np.sqrt(NU / chi2.ppf(u[:, -1:], NU))
        return self.centre + stretch * (ndtri(u[:, :-1]) @ self.half.T)

    def log(self, z: FloatArray) -> FloatArray:
        """Log density at z, (n,)."""
        m = len(self.centre)
        squares = np.sum(np.linalg.solve(self.half, (z - self.centre).T) ** 2, axis=0)
        constant = gammaln(0.5 * (NU + m)) - gammaln(0.5 * NU) - 0.5 * m * math.log(NU * math.pi)
        return constant - np.linalg.slogdet(self.half)[1] - 0.5 * (NU + m) * np.log1p(squares / NU)


def _by_sampling(target: _Target, m: int, seed: int) -> MarginalLikelihood:
    rng = np.random.default_rng(seed)
    parts = [_Student(mode, np.eye(m)) for mode in target.modes]
    spent = 0
    for _ in range(ROUNDS):  # each around the centre and the scale that the one before found
        z, weights = _draw(target.log, parts, ROUND // len(parts), rng)
        spent += len(z)
        parts = [*parts[: len(target.modes)], *_moments(z, weights)]
    most = MOST if target.quick else MOST_OF_ROWS
    n, logs = FEWEST, [np.empty(0) for _ in range(REPLICATES)]
    while True:
        fresh = [_draw(target.log, parts, n, rng)[1] for _ in range(REPLICATES)]
        spent += REPLICATES * n * len(parts)
        logs = [np.concatenate(own) for own in zip(logs, fresh, strict=True)]
        size = len(logs[0])
        each = np.array([logsumexp(own) for own in logs]) - math.log(size)
        value = float(logsumexp(each) - math.log(REPLICATES))
        error = float(np.std(np.exp(each - value), ddof=1) / math.sqrt(REPLICATES))
        finite = np.concatenate(logs)
        k = pareto_smoothed(finite[np.isfinite(finite)])[1]
        if (error < PRECISION and k <= GOOD_K) or 2 * REPLICATES * size > most:
            break
        n = size // len(parts)
    return MarginalLikelihood(value, error, "importance sampling", spent, m, k)


def _draw(log: Log, parts: list[_Student], n: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Points of the mixture, n of each component, and their log weights."""
    n = 2 ** round(math.log2(n))
    m = len(parts[0].centre)
    z = np.concatenate([part.points(qmc.Sobol(m + 1, rng=rng).random(n)) for part in parts])
    mixture = logsumexp([part.log(z) for part in parts], axis=0) - math.log(len(parts))
    return z, log(z) - mixture


def _moments(z: FloatArray, log_weights: FloatArray) -> list[_Student]:
    """A t with the weighted mean and covariance of points; none where a few of them carry all the weight."""
    weight = np.exp(log_weights - logsumexp(log_weights))
    if 1.0 / np.sum(weight**2) < 10.0 * z.shape[1]:
        return []
    mean = weight @ z
    covariance = (weight[:, None] * (z - mean)).T @ (z - mean)
    return [_Student(mean, np.linalg.cholesky(covariance))]
