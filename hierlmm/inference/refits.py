"""A fit made again of other data: of responses simulated from a fit, or of subjects drawn anew.

    y* = X β̂ + Z b* + e*,   b*_i ~ N(0, D̂),   e*_i ~ N(0, Σ̂_i)          (a family: y* ~ family(X β̂ + Z b*))
    y* = X β̂ + Σ_k Z_k b*_k + e*,   b*_kj ~ N(0, D̂_k)                   (several grouping factors)

A refit is a fit of the same class, so that whatever can be asked of a fit can be asked of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from hierlmm.arrays import FloatArray, IntArray, Rng
from hierlmm.bayes.family_replications import FamilyReplicator
from hierlmm.bayes.predictive import drawn_responses
from hierlmm.bayes.replications import Draw, Replicator
from hierlmm.design.design import Design
from hierlmm.design.factors import own_part
from hierlmm.design.taken import take_subjects
from hierlmm.diagnostics.replicate import Failure, drawn_of_factors, eigen_root, replicate, streams
from hierlmm.errors import DataError, NotAvailableError
from hierlmm.fits.base import Fit
from hierlmm.likelihood.generalised import maximise_generalised
from hierlmm.likelihood.maximise import maximise
from hierlmm.likelihood.refit import Refits

SEE = "docs, page 'Intervals'"
MISSED = 1e-6
"""By how much the criterion of a larger model may lie above that of one inside it: rounding."""


def require_likelihood(fit: Fit, what: str) -> None:
    """Refuse a fit that is no maximum of a likelihood.

    Raises
    ------
    NotAvailableError
    """
    if not fit.has_likelihood:
        reason = "it fits data again by maximum likelihood, which this estimator does not do"
        raise NotAvailableError(f"{what} of a fit by {fit.estimator}", reason, "use fit_reml() or fit_ml()", SEE)


def require_gaussian(fit: Fit, what: str) -> None:
    """Refuse a fit that is no maximum of a Gaussian likelihood.

    Raises
    ------
    NotAvailableError
    """
    require_likelihood(fit, what)
    if not fit.design.is_gaussian:
        received, reason = f"{what} of a {fit.design.family.title} response", "it is made for a Gaussian response"
        raise NotAvailableError(received, reason, "use fit.bootstrap()", SEE)


def simulator(fit: Any) -> Callable[[Rng], FloatArray]:
    """A function that draws a response (N,) from a fitted model: of new subjects with the same covariates."""
    at, design = fit.solution, fit.design
    if design.has_several_factors:
        roots = [at.root[own_part(design, k)] for k in range(len(design.random))]
        if design.is_gaussian:
            return lambda rng: drawn_of_factors(design, at.beta, roots, at.sigma, rng)[0]
        return lambda rng: drawn_of_line(design, drawn_of_factors(design, at.beta, roots, 0.0, rng)[0], at.psi, rng)
    if design.is_gaussian:
        eta = fit.criterion_function.split(fit.optimum.lam)[1]
        draw = Draw(at.beta, at.root, at.sigma, eta)
        source: Replicator | FamilyReplicator = Replicator(fit.design)
    else:
        draw = Draw(at.beta, eigen_root(at.D)[0], 1.0, at.psi)
        source = FamilyReplicator(fit.design)
    return lambda rng: source.replicate(draw, "new_subject", rng)[0]


def drawn_of_line(design: Design, eta: FloatArray, psi: FloatArray, rng: Rng) -> FloatArray:
    """A response (N,) of the family of a design at linear predictors."""
    return drawn_responses(design.family, eta[None], psi[None], design.trials, rng)[0]


@dataclass(frozen=True, eq=False)
class Refitter:
    """What makes a fit again of other data."""

    fit: Any

    @cached_property
    def _refits(self) -> Refits:
        fit = self.fit
        return Refits(fit.design, fit.criterion_function, fit.optimum.lam)

    def to_response(self, y: FloatArray) -> Any:
        """The fit of another response (N,).

        Raises
        ------
        HierlmmError
            If these data cannot be fitted.
        """
        if not self.fit.design.is_gaussian:
            return self._generalised(self.fit.design.with_response(y))
        return self._made(self._refits.to_response(y))

    def to_subjects(self, chosen: IntArray) -> Any:
        """The fit of chosen subjects, positions (K,), each as often as it was chosen.

        Raises
        ------
        HierlmmError
            If these data cannot be fitted.
        """
        if not self.fit.design.is_gaussian:
            return self._generalised(take_subjects(self.fit.design, chosen))
        return self._made(self._refits.to_subjects(chosen))

    def _made(self, found: Any) -> Any:
        names = {"design": found.design, "criterion_function": found.criterion, "optimum": found.optimum}
        return replace(self.fit, warnings=(), **names)

    def _generalised(self, design: Any) -> Any:
        return replace(self.fit, record=maximise_generalised(design, self.fit.n_quadrature), warnings=())


def searched_again(fit: Any) -> Any:
    """A refit with all its minima sought, as a fit of new data has."""
    if not fit.design.is_gaussian:
        return fit  # whose search is the same every time
    return replace(fit, optimum=maximise(fit.criterion_function))


class Criteria(NamedTuple):
    """Criteria, −2 log-likelihood, of several models fitted to data simulated from one.

    ``criteria`` (n, k) is NaN where a refit failed, which ``failures`` lists; ``seed`` makes the same data again.
    """

    criteria: FloatArray
    failures: list[Failure]
    seed: int


def simulated_criteria(
    truth: Any,
    fits: Sequence[Any],
    n: int,
    *,
    seed: int | None = None,
    cores: int | None = None,
    progressbar: bool = True,
    nested: bool = False,
    label: str = "Parametric bootstrap",
) -> Criteria:
    """Fit several models to data simulated from a fit.

    Parameters
    ----------
    truth : fit
        What responses are drawn from.
    fits : sequence of fits
        Models of the same rows, each with the optimum at which its refits set out.
    n : int
        Number of simulated data sets. Each has a random stream of its own: the first hundred of a thousand are those
        of a hundred, whatever the number of threads.
    seed : int, optional
    cores : int, optional
        Threads; by default as many as there are processors.
    progressbar : bool
    nested : bool
        The first model is inside all others. Where a larger one then fits worse, an optimum was missed, and all
        minima of both are sought.
    label : str
        Text of the progress bar.

    Returns
    -------
    Criteria
    """
    draw, refitters = simulator(truth), [Refitter(fit) for fit in fits]
    used, own = streams(seed, n)

    def work(k: int) -> list[float]:
        y = draw(np.random.default_rng(own[k]))
        found = [refitter.to_response(y) for refitter in refitters]
        if nested and any(_missed(found[0], other) for other in found[1:]):
            found = [searched_again(fit) for fit in found]
            if any(_missed(found[0], other) for other in found[1:]):
                reason = "the larger model fits worse than the one inside it: its optimum was not found"
                raise DataError("simulated data", reason, "simplify the larger model", SEE)
        if not all(fit.converged for fit in found):
            raise DataError("simulated data", "a refit did not converge", "simplify the model", SEE)
        return [fit.criterion for fit in found]

    results, failures = replicate(work, n, cores=cores, progressbar=progressbar, label=label)
    values = np.array([[np.nan] * len(fits) if row is None else row for row in results])
    return Criteria(values, failures, used)


def _missed(inside: Any, larger: Any) -> bool:
    return bool(larger.criterion > inside.criterion + MISSED * max(1.0, 1e-3 * abs(inside.criterion)))
