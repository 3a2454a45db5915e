"""One piece of work for many simulated data sets: threads, progress, failures, Monte-Carlo uncertainty, quiet fits.

Every data set has a random stream of its own, so the first hundred of five hundred data sets are the hundred of a
shorter run, in whatever order the threads finish. Compiled code and the sampler release Python's lock. BLAS is held to
one thread meanwhile: its own threads cost more than they bring for matrices of a few columns.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, NamedTuple

import numpy as np

from hierlmm.arrays import FloatArray, IntArray, Rng
from hierlmm.bayes.collapsed import why_not_collapsed
from hierlmm.bayes.collapsed_residual import posterior_of
from hierlmm.bayes.generalised_model import why_not_compiled
from hierlmm.bayes.nuts import Settings
from hierlmm.bayes.posterior import Conditional
from hierlmm.bayes.predictive import new_effects, subject_lines
from hierlmm.bayes.priors import ResolvedPriors
from hierlmm.bayes.sample_collapsed import sample_theta
from hierlmm.design.design import Design
from hierlmm.design.formula import INTERCEPT
from hierlmm.errors import HierlmmError, SpecificationError, closest
from hierlmm.fits.generalised import GeneralisedNumbers
from hierlmm.fits.likelihood_tables import LikelihoodNumbers
from hierlmm.frames import shorten
from hierlmm.likelihood.estimate import maximise_design
from hierlmm.likelihood.generalised import maximise_generalised
from hierlmm.notice import counted, interactive

type Colour = Callable[[FloatArray], FloatArray]
EXPECTED = (HierlmmError, ArithmeticError, np.linalg.LinAlgError, RuntimeError)
"""What a fit to unlucky data may raise; anything else is a mistake of the program and is not caught."""


class Failure(NamedTuple):
    """A data set that could not be fitted."""

    number: int
    reason: str


def replicate[T](
    work: Callable[[int], T], n: int, *, cores: int | None, progressbar: bool, label: str
) -> tuple[list[T | None], list[Failure]]:
    """Call ``work(0) ... work(n - 1)`` in threads.

    Parameters
    ----------
    work : callable
        Must not depend on the order of the calls.
    n : int
    cores : int, optional
        Threads; by default as many as there are processors.
    progressbar : bool
        Show progress, in a terminal or notebook.
    label : str
        Text of the progress bar.

    Returns
    -------
    results : list of length n
        None where the work failed.
    failures : list of Failure
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    threads = available_cores() if cores is None else whole("cores", cores, 1)
    results: list[T | None] = [None] * n
    failures: list[Failure] = []

    def attempt(k: int) -> None:
        try:
            results[k] = work(k)
        except EXPECTED as error:
            failures.append(Failure(k, getattr(error, "reason", None) or str(error) or type(error).__name__))

    with threadpool_limits(1, user_api="blas"), counted(n, label, progressbar and interactive()) as advance:
        attempt(0)  # alone, so that nothing is compiled twice
        advance()
        pool = ThreadPoolExecutor(threads)
        try:
            for future in as_completed([pool.submit(attempt, k) for k in range(1, n)]):
                future.result()
                advance()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    return results, sorted(failures)


def available_cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def streams(seed: int | None, n: int) -> tuple[int, list[np.random.SeedSequence]]:
    """Return the seed (drawn if not given) and one seed sequence for each data set."""
    used = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else int(seed)
    return used, np.random.SeedSequence(used).spawn(n)


def binomial_interval(successes: FloatArray, trials: FloatArray, ci: float = 0.95) -> tuple[FloatArray, FloatArray]:
    """Wilson's (1927) interval of a probability from so many successes in so many trials (NaN without trials)."""
    from statsmodels.stats.proportion import proportion_confint

    n = np.where(np.asarray(trials) > 0, trials, np.nan)
    return proportion_confint(np.asarray(successes), n, alpha=1.0 - ci, method="wilson")


def eigen_root(D: FloatArray) -> tuple[FloatArray, FloatArray]:
    """A root H of a covariance matrix, ``D = H H'``, what rounding made negative set to zero; and the eigenvalues."""
    values, vectors = np.linalg.eigh(D)
    return vectors * np.sqrt(np.clip(values, 0.0, None)), values


def drawn_response(
    design: Design, beta: FloatArray, root: FloatArray, sigma: float, rng: Rng, colour: Colour | None = None
) -> tuple[FloatArray, FloatArray]:
    """Draw b (J, q) and y (N,) from a hierarchy; ``colour`` gives independent residuals of SD 1 their structure."""
    b = new_effects(design, root, rng)
    noise = rng.standard_normal(design.n_obs)
    return b, subject_lines(design, beta, b) + sigma * (noise if colour is None else colour(noise))


def drawn_of_factors(
    design: Design, beta: FloatArray, roots: Sequence[FloatArray], sigma: float, rng: Rng
) -> tuple[FloatArray, list[FloatArray]]:
    """Draw y (N,) of new groups of several factors, with roots H of their D; and the random effects of each factor."""
    y, effects = design.offset + design.X @ beta + sigma * rng.standard_normal(design.n_obs), []
    for term, H in zip(design.random, roots, strict=True):
        b = rng.standard_normal((len(term.group.labels), len(H))) @ H.T
        y += np.einsum("ij,ij->i", term.Z, b[term.group.index])
        effects.append(b)
    return y, effects


def refuse_unknown(received: str, name: str, known: Sequence[str], reason: str, remedy: str, see: str) -> None:
    """Refuse a name that is not known; the nearest one ends the reason, the known ones fill the remedy.

    Raises
    ------
    SpecificationError
    """
    if name not in known:
        raise SpecificationError(received, f"{reason}{closest(name, known)}", remedy.format(shorten(known)), see)


def reported(coefs: str | Sequence[str] | None, known: Sequence[str], see: str) -> list[str]:
    """Coefficients to report, by default all but the intercept.

    Raises
    ------
    SpecificationError
    """
    if coefs is None:
        return [c for c in known if c != INTERCEPT] or list(known)
    wanted = [coefs] if isinstance(coefs, str) else list(coefs)
    for name in wanted:
        reason = "the planned model has no such coefficient."
        refuse_unknown(f"coefs={name!r}", name, known, reason, "use one of: {}", see)
    return wanted


def whole(name: str, value: object, least: int) -> int:
    """Check a whole number."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        reason = f"{name} is a whole number, at least {least}"
        raise SpecificationError(f"{name}={value!r}", reason, f"use for example {name}={least}")
    return int(value)


def probability(name: str, value: object) -> float:
    """Check a number strictly between 0 and 1."""
    if not isinstance(value, int | float | np.floating) or not 0 < value < 1:
        reason = f"{name} is a probability strictly between 0 and 1"
        raise SpecificationError(f"{name}={value!r}", reason, f"use for example {name}=0.05")
    return float(value)


def likelihood_of(design: Design, *, reml: bool) -> Any:
    """Fit by REML or ML (another family: by ML) without warnings; what went wrong is read off the fit."""
    if not design.is_gaussian:
        return GeneralisedNumbers(maximise_generalised(design))
    found = maximise_design(design, reml=reml)
    return LikelihoodNumbers(found.design, found.criterion, found.optimum)


def require_collapsed(priors: ResolvedPriors, what: str) -> None:
    """Refuse priors that the compiled posterior has not.

    Raises
    ------
    SpecificationError
    """
    obstacle = why_not_compiled(priors) if priors.sigma is None else why_not_collapsed(priors)
    if obstacle:
        reason = f"{obstacle}, so every refit would compile a model of its own, some seconds each"
        families = "HalfNormal, HalfStudentT, HalfCauchy or Gamma for standard deviations"
        remedy = f"use Normal priors for fixed effects and {families}"
        raise SpecificationError(f"{what} with these priors", reason, remedy, "docs, page 'Calibration'")


class Sampled(NamedTuple):
    """Draws of one posterior.

    ``theta`` (chains, S, m), the number of divergent ones, and what they say of β, σ, D (``natural``), η and b, the
    last only for the draws asked for.
    """

    theta: FloatArray
    diverging: int
    found: Conditional


def sample_posterior(
    design: Design, priors: ResolvedPriors, rng: Rng, options: Mapping[str, Any], *, effects_of: IntArray | None = None
) -> Sampled:
    """Sample the collapsed posterior of a design and recover β, and b for the flat draws ``effects_of``."""
    posterior = posterior_of(design, priors)
    settings = Settings(seed=int(rng.integers(2**32)), cores=1, progressbar=False, **options)
    theta, statistics, _ = sample_theta(posterior, settings)
    flat = theta.reshape(-1, theta.shape[2])
    which, few = ("none", slice(None)) if effects_of is None else ("draws", effects_of)
    found = posterior.conditional(flat, rng, which, few)
    return Sampled(theta, int(statistics["diverging"].sum()), found)
