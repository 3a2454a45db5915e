"""Simulation-based calibration: does a fit of this model, on this design, recover what the data were drawn from.

    φ̃ ~ p(φ),   y ~ p(y | φ̃),   φ_1 ... φ_L ~ p(φ | y)       =>       rank = #{φ_l < φ̃} is uniform on 0 ... L

for every quantity φ, if and only if the sampler draws from the posterior of the model that the data were drawn from
(Cook, Gelman & Rubin 2006; Talts et al. 2018). With the log-likelihood log p(y | β, D, σ), b integrated out, among the
quantities, errors that leave the marginal of every parameter intact are seen as well (Modrák et al. 2023).

The design (who was measured when, with which covariates) is the user's own and stays; only y is drawn anew. Default
priors take their scales from the data: they are resolved once, from the data the model holds, and are then part of the
model like any other prior. Resolving them again for every simulated y would let the prior follow the data, and ranks
would not be uniform even if everything were right.

References
----------
Cook, S. R., Gelman, A., Rubin, D. B. (2006). Validation of software for Bayesian models using posterior quantiles.
Journal of Computational and Graphical Statistics 15, 675-692.

Modrák, M., Moon, A. H., Kim, S., Bürkner, P., Huurre, N., Faltejsková, K., Gelman, A., Vehtari, A. (2023).
Simulation-based calibration checking for Bayesian computation: the choice of test quantities shapes sensitivity.
Bayesian Analysis. doi:10.1214/23-BA1404

Talts, S., Betancourt, M., Simpson, D., Vehtari, A., Gelman, A. (2018). Validating Bayesian inference algorithms with
simulation-based calibration. arXiv:1804.06788
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import norm

from hierlmm.bayes.collapsed import why_not_collapsed
from hierlmm.bayes.collapsed_residual import posterior_of
from hierlmm.bayes.nuts import Settings, check_settings
from hierlmm.bayes.predictive import prior_draws_with_eta, subject_lines
from hierlmm.bayes.priors import Priors, ResolvedPriors, resolve_priors
from hierlmm.bayes.sample_collapsed import sample_theta
from hierlmm.covariance.estimate import ResidualEstimate
from hierlmm.design.design import Design, design_of
from hierlmm.diagnostics.calibration import LOGLIK, Calibration
from hierlmm.diagnostics.replicate import replicate, streams, whole
from hierlmm.errors import NotAvailableError, SpecificationError
from hierlmm.fits.base import Fit
from hierlmm.fits.components import component_labels, component_values
from hierlmm.fits.covariance_table import covariance_parameters
from hierlmm.fits.likelihood_tables import LikelihoodNumbers
from hierlmm.frames import quote
from hierlmm.likelihood.by_subject import covariance_root, subject_loglik
from hierlmm.likelihood.estimate import maximise_design
from hierlmm.likelihood.residual_rows import ResidualRows, residual_names, residual_rows
from hierlmm.options import checked, choose, renamed

__all__ = ["ESTIMATORS", "RANKS", "calibrate", "likelihood_of", "require_collapsed"]

FloatArray = NDArray[np.float64]
ESTIMATORS = ("nuts", "reml", "ml")
RANKS = 99
"""Draws that a rank is taken among, nearly independent after thinning: ranks 0 ... 99 fall into bins of equal size."""
SEE = "docs, page 'Calibration'"


class Truth(NamedTuple):
    """The truth behind a data set: ``beta`` (p,), ``D`` (q, q), ``sigma``, ``b`` (J, q), ``eta`` (k,), ``y`` (N,)."""

    beta: FloatArray
    D: FloatArray
    sigma: float
    b: FloatArray
    eta: FloatArray
    y: FloatArray


FIELDS = ("truth", "estimate", "sd", "lower", "upper", "pit", "rank", "autocorrelation")


class Recovered(NamedTuple):
    """One data set: ``numbers`` (8, k) has a row for each of `FIELDS`, ``checks`` are numbers about the fit itself."""

    numbers: FloatArray
    checks: dict[str, float]


@dataclass(frozen=True)
class _Quantities:
    """Which numbers are followed, in order: β, covariance parameters, b of some subjects, log-likelihood."""

    design: Design
    subjects: NDArray[np.intp]
    loglik: bool

    @property
    def components(self) -> list[str]:
        """Labels of the covariance parameters; one standard deviation where all random effects share it."""
        labels = component_labels(self.design)
        if self._common:
            labels = ["sd(all random effects)", *labels[len(self.design.term) :]]
        return [*labels[:-1], *self.residual_labels, labels[-1]]

    @cached_property
    def rows(self) -> ResidualRows | None:
        """The rows of the design with their residual structure; None without one."""
        return residual_rows(self.design) if self.design.has_residual_structure else None

    @property
    def residual_labels(self) -> list[str]:
        """What tables show of the residual structure."""
        return [] if self.rows is None else [n for names in residual_names(self.rows).values() for n in names]

    @property
    def labels(self) -> list[str]:
        design = self.design
        b = [f"b({t}, {design.subjects[j]})" for j in self.subjects for t in design.term]
        return [*design.coef, *self.components, *b, *([LOGLIK] if self.loglik else [])]

    @property
    def _common(self) -> bool:
        return self.design.covariance == "identity"

    def values(self, beta: FloatArray, D: FloatArray, sigma: FloatArray, eta: FloatArray) -> FloatArray:
        """Stack β (S, p), the components of D (S, q, q), what is reported of η (S, k), and σ (S,)."""
        components = component_values(self.design, D, sigma)
        if self._common:
            components = np.delete(components, np.arange(1, len(self.design.term)), axis=-1)
        parts = [beta, components]
        if self.rows is not None:
            reported = np.array([list(self.rows.report(e).values()) for e in eta])
            parts = [beta, components[..., :-1], reported, components[..., -1:]]
        return np.concatenate(parts, axis=-1)


@renamed(n="simulations", method="estimator")
@checked
def calibrate(
    model: Any,
    simulations: int = 500,
    *,
    draws: int = 1000,
    tune: int = 300,
    chains: int = 1,
    seed: int | None = None,
    estimator: str = "nuts",
    truth: Fit | Priors | ResolvedPriors | None = None,
    subjects: Sequence[Any] = (),
    target_accept: float = 0.8,
    cores: int | None = None,
    progressbar: bool = True,
) -> Calibration:
    """Simulate data from a model many times, fit each of them, and compare the fits with the truth.

    Parameters
    ----------
    model : TwoLevelModel or MarginalModel
        Its own design and priors are what is examined; its response is used only where default priors take their
        scale from it.
    simulations : int
        Number of simulated data sets. 500 see an interval that covers 92 instead of 95 %; 100 see gross errors.
    draws, tune, chains : int
        Of the sampler, for each data set.
    seed : int, optional
        Makes the study reproducible on one machine.
    estimator : {"nuts", "reml", "ml"}
        ``"nuts"``: calibration of the posterior. ``"reml"`` and ``"ml"``: how well estimates and their Wald intervals
        recover the truth (normal quantiles, as `LikelihoodFit.summary` gives them; on the log scale for standard
        deviations and Fisher's z scale for correlations). Nothing says that these should be exact.
    truth : fit or Priors, optional
        What the data are drawn from; by default the priors of the model. A fit: the same β, D and σ every time (its
        estimates), which answers how intervals cover *there*; ranks are uniform only on average over the prior, so
        they are not judged. `Priors`: other priors than those the model is fitted with, to see what a wrong prior does.
    subjects : sequence, optional
        Labels of subjects whose random effects are followed as well (``"nuts"`` only).
    target_accept : float
    cores : int, optional
        Data sets fitted at the same time; by default as many as there are processors.
    progressbar : bool
        Show progress, in a terminal or notebook.

    Returns
    -------
    Calibration
        Printing it gives the verdict; ``.ranks``, ``.summary()``, ``.plot()``, ``.plot_recovery()``.

    Raises
    ------
    SpecificationError
        If a setting is out of range, a subject is unknown, the truth is of another model, or the priors cannot be
        collapsed (then a refit takes seconds, not milliseconds).

    Notes
    -----
    Posterior draws are thinned to 99, nearly independent, before ranks are taken; means, standard deviations and
    intervals of parameters use all draws (those of random effects and of the log-likelihood the thinned ones).
    ``.autocorrelation`` says how much correlation thinning leaves.

    500 data sets of 18 subjects with two random effects take about 25 s on two cores.

    References
    ----------
    Talts et al. (2018), arXiv:1804.06788. Modrák et al. (2023), Bayesian Analysis, doi:10.1214/23-BA1404 (the
    log-likelihood as test quantity). Säilynoja, Bürkner & Vehtari (2022), Statistics and Computing 32 (the band).

    Examples
    --------
    >>> import hierlmm as hl
    >>> model = hl.TwoLevelModel.from_formula("reaction ~ days + (1 + days | subject)", hl.load_dataset("sleepstudy"))
    >>> result = calibrate(model, simulations=20, draws=200, tune=200, seed=1)
    >>> result.ranks.shape
    (20, 7)
    """
    choose("estimator", estimator, ESTIMATORS)
    n = whole("simulations", simulations, 10)
    if cores is not None:
        whole("cores", cores, 1)
    check_settings(draws=draws, tune=tune, chains=chains, target_accept=target_accept)
    design = design_of(model, "calibrate")
    priors: ResolvedPriors = model.priors
    bayes = estimator == "nuts"
    _refuse_own_fitted_values(design)
    if bayes:
        require_collapsed(priors, "calibrate")
    quantities = _Quantities(design, _positions(design, subjects, bayes), bayes)
    draw, source = _truth_source(design, priors, truth)
    options = {"draws": draws, "tune": tune, "chains": chains, "target_accept": target_accept}
    used_seed, seeds = streams(seed, n)

    def work(k: int) -> Recovered:
        rng = np.random.default_rng(seeds[k])
        drawn = draw(rng)
        simulated = design.with_response(drawn.y)
        if bayes:
            return _by_nuts(simulated, priors, quantities, drawn, rng, options)
        return _by_likelihood(simulated, quantities, drawn, reml=estimator == "reml")

    started = time.perf_counter()
    label = f"Calibration ({estimator.upper()})"
    results, failures = replicate(work, n, cores=cores, progressbar=progressbar, label=label)
    good = [(k, r) for k, r in enumerate(results) if r is not None]
    if not good:
        raise SpecificationError(
            f"{n} simulated data sets, none of which could be fitted",
            f"the first one failed because {failures[0].reason}",
            "look at the priors: hl.simulate or fit.prior_predictive show what data they imply",
            SEE,
        )
    index = pd.Index([k for k, _ in good], name="data set")
    labels = pd.Index(quantities.labels, name="parameter")

    numbers = np.array([r.numbers for _, r in good])

    def table(field: str) -> pd.DataFrame:
        return pd.DataFrame(numbers[:, FIELDS.index(field)], index=index, columns=labels)

    return Calibration(
        estimator=estimator.upper(),
        source=source,
        design=design,
        priors=priors,
        simulations=n,
        truth=table("truth"),
        estimate=table("estimate"),
        sd=table("sd"),
        lower=table("lower"),
        upper=table("upper"),
        pit=table("pit"),
        rank_table=table("rank") if bayes else None,
        n_ranks=len(_thinned(chains * draws)),
        autocorrelation=table("autocorrelation").mean() if bayes else None,
        checks=pd.DataFrame([r.checks for _, r in good], index=index),
        failures=tuple(failures),
        settings={**({} if not bayes else options), "seed": used_seed},
        seconds=time.perf_counter() - started,
    )


def _refuse_own_fitted_values(design: Design) -> None:
    """Refuse a variance that follows the fitted value: no data are drawn from such a model, and NUTS cannot fit it."""
    variance = design.residual_variance
    if variance is not None and variance.variable is None:
        name = type(variance).__name__
        raise NotAvailableError(
            f"calibrate with {name}() of the fitted value",
            "the data drawn would have variances that follow the fitted values of other data, not their own means",
            f"let the variance depend on a column: {name}('time'), or on the fitted values of an earlier fit as a "
            "column",
            SEE,
        )


def require_collapsed(priors: ResolvedPriors, what: str) -> None:
    """Refuse priors that only the explicit sampler can handle."""
    obstacle = why_not_collapsed(priors)
    if obstacle:
        raise SpecificationError(
            f"{what} with {'this D' if priors.common_corr else 'these priors'}",
            f"{obstacle}, so every refit would need the explicit sampler, some seconds each",
            "use estimator='reml', or covariance='unstructured'"
            if priors.common_corr
            else "use Normal priors for fixed effects and HalfNormal, HalfStudentT, HalfCauchy or Gamma for standard "
            "deviations",
            SEE,
        )


def _positions(design: Design, subjects: Sequence[Any], bayes: bool) -> NDArray[np.intp]:
    wanted = list(subjects) if isinstance(subjects, Sequence) and not isinstance(subjects, str) else [subjects]
    if wanted and not bayes:
        raise SpecificationError(
            f"subjects={subjects!r} with a likelihood estimator",
            "random effects are followed through posterior draws",
            "use estimator='nuts', or leave subjects out",
            SEE,
        )
    if wanted and not design.term:
        raise SpecificationError(
            f"subjects={subjects!r} with a marginal model",
            "it has no random effects that could be followed",
            "leave subjects out, or calibrate a hierarchy, hl.TwoLevelModel",
            SEE,
        )
    for label in wanted:
        if label not in design.subjects:
            raise SpecificationError(
                f"subjects=[{quote(label)}]",
                "the data of the model have no such subject",
                f"use labels such as {quote(design.subjects[0])}",
                SEE,
            )
    return np.array([design.subjects.get_loc(s) for s in wanted], dtype=np.intp)


def _truth_source(
    design: Design, priors: ResolvedPriors, truth: Any
) -> tuple[Callable[[np.random.Generator], Truth], str]:
    """Return a function that draws a data set, and where it draws from: ``"priors"``, ``"other priors"``, ``"fit"``."""
    if isinstance(truth, Fit):
        return _from_fit(design, truth), "fit"
    if truth is None:
        return _from_priors(design, priors), "priors"
    if isinstance(truth, Priors | ResolvedPriors):
        return _from_priors(design, resolve_priors(truth, design)), "other priors"
    raise SpecificationError(
        f"truth of type {type(truth).__name__!r}",
        "data are drawn from priors or from the estimates of a fit",
        "leave it out (the priors of the model), or pass Priors(...) or a fit of the same model",
        SEE,
    )


def _from_priors(design: Design, priors: ResolvedPriors) -> Callable[[np.random.Generator], Truth]:
    def draw(rng: np.random.Generator) -> Truth:
        one, eta = prior_draws_with_eta(design, priors, 1, rng)
        return Truth(one["beta"][0], one["D"][0], float(one["sigma"][0]), one["b"][0], eta[0], one["y"][0])

    return draw


def _from_fit(design: Design, fit: Fit) -> Callable[[np.random.Generator], Truth]:
    if list(fit.beta.index) != list(design.coef) or fit.design.term != design.term or not _same_residual(fit, design):
        raise SpecificationError(
            f"truth: a fit of {fit.design.hierarchy.formula}",
            f"its parameters are not those of {design.hierarchy.formula}",
            "pass a fit of the same model, for example truth=model.fit_reml()",
            SEE,
        )
    q = len(design.term)
    beta, sigma = fit.beta.to_numpy(dtype=float), float(fit.sigma)
    D = fit.D.to_numpy(dtype=float) if q else np.empty((0, 0))
    values, vectors = np.linalg.eigh(D)
    root = vectors * np.sqrt(np.clip(values, 0.0, None))
    residual = fit.residual_estimate
    eta = np.empty(0) if residual is None else residual.eta
    rows = None if residual is None else residual_rows(design)

    def draw(rng: np.random.Generator) -> Truth:
        b = rng.standard_normal((design.n_subjects, q)) @ root.T
        noise = rng.standard_normal(design.n_obs)
        if rows is not None:
            noise = rows.colour(eta, noise)
        return Truth(beta, D, sigma, b, eta, subject_lines(design, beta, b) + sigma * noise)

    return draw


def _same_residual(fit: Fit, design: Design) -> bool:
    own = fit.design
    return (own.residual, own.residual_variance) == (design.residual, design.residual_variance)


def _thinned(size: int) -> NDArray[np.intp]:
    """Positions of at most `RANKS` evenly spaced draws among ``size``."""
    step = max(1, size // RANKS)
    return np.arange(step - 1, size, step)[:RANKS]


def _by_nuts(
    design: Design,
    priors: ResolvedPriors,
    quantities: _Quantities,
    truth: Truth,
    rng: np.random.Generator,
    options: dict[str, Any],
) -> Recovered:
    from arviz_stats.base import array_stats

    posterior = posterior_of(design, priors)
    seed = int(rng.integers(2**32))
    theta, statistics, _ = sample_theta(posterior, Settings(seed=seed, cores=1, progressbar=False, **options))
    effective = min(float(array_stats.ess(theta[:, :, m])) for m in range(theta.shape[2]))
    flat = theta.reshape(-1, theta.shape[2])
    few = _thinned(len(flat))
    blocks = []
    found = posterior.conditional(flat, rng, "draws" if len(quantities.subjects) else "none", few)
    natural, eta, kept = found.natural, found.eta, found.natural.at(few)
    values = quantities.values(natural.beta, natural.D, natural.sigma, eta)
    true = quantities.values(truth.beta[None], truth.D[None], np.array([truth.sigma]), truth.eta[None])[0]
    blocks.append(_compare(values, values[few], true))
    if found.b is not None:
        b = found.b[:, quantities.subjects].reshape(len(kept.sigma), -1)
        blocks.append(_compare(b, b, truth.b[quantities.subjects].ravel()))
    half = kept.sd[:, :, None] * kept.corr_factor
    loglik = _loglik(design, kept.beta, half, kept.sigma, eta[few])
    true_root = covariance_root(truth.D[None])
    true_loglik = _loglik(design, truth.beta[None], true_root, np.array([truth.sigma]), truth.eta[None])
    blocks.append(_compare(loglik[:, None], loglik[:, None], true_loglik))
    checks = {"divergences": float(statistics["diverging"].sum()), "ess": effective}
    return Recovered(np.concatenate(blocks, axis=1), checks)


def _compare(values: FloatArray, kept: FloatArray, truth: FloatArray) -> FloatArray:
    """Rows `FIELDS`, (8, k), from all draws (S, k) and the kept ones (L, k): rank and autocorrelation are of these."""
    lower, upper = np.quantile(values, [0.025, 0.975], axis=0)
    pit = (np.sum(values < truth, axis=0) + 0.5) / (len(values) + 1)
    centred = kept - kept.mean(axis=0)
    lagged = np.sum(centred[1:] * centred[:-1], axis=0) / np.maximum(np.sum(centred**2, axis=0), 1e-300)
    rank = np.sum(kept < truth, axis=0).astype(float)
    return np.stack([truth, values.mean(axis=0), values.std(axis=0, ddof=1), lower, upper, pit, rank, lagged])


def _loglik(design: Design, beta: FloatArray, root: FloatArray, sigma: FloatArray, eta: FloatArray) -> FloatArray:
    """Log p(y | β, D, σ, η) of every draw: β (S, p), a root of D (S, q, q), σ (S,), η (S, k) -> (S,)."""
    residuals = None
    if design.has_residual_structure:
        rows = residual_rows(design)
        residuals = [ResidualEstimate(rows.rows, rows.correlation, rows.variance, own) for own in eta]
    return subject_loglik(design, beta, root, sigma, residuals).sum(axis=1)


def likelihood_of(design: Design, *, reml: bool) -> LikelihoodNumbers:
    """Fit by REML or ML without warnings; what went wrong is read off the fit."""
    found = maximise_design(design, reml=reml)
    return LikelihoodNumbers(found.design, found.criterion, found.optimum)


def _by_likelihood(design: Design, quantities: _Quantities, truth: Truth, *, reml: bool) -> Recovered:
    fit = likelihood_of(design, reml=reml)
    rows = quantities.components
    components = fit.variance_components(0.95)
    if len(rows) < len(components):
        components = components.drop(index=components.index[1 : len(design.term)])
    fixed = fit.summary(0.95)
    columns = ["estimate", "se", "lower", "upper"]
    table = np.vstack([fixed[columns].to_numpy(dtype=float), components[columns].to_numpy(dtype=float)])
    true = quantities.values(truth.beta[None], truth.D[None], np.array([truth.sigma]), truth.eta[None])[0]
    estimate, se, lower, upper = table.T
    z = float(norm.ppf(0.975))
    # Wald intervals are symmetric on the scale they were made on, so their centre and spread follow from their ends.
    low, high, target = (_wald_scale(fit, v, quantities) for v in (lower, upper, true))
    with np.errstate(invalid="ignore", divide="ignore"):
        pit = norm.cdf((target - 0.5 * (low + high)) / ((high - low) / (2.0 * z)))
    nothing = np.full(len(true), np.nan)
    checks = {"not converged": float(not fit.converged), "singular": float(fit.is_singular)}
    return Recovered(np.stack([true, estimate, se, lower, upper, pit, nothing, nothing]), checks)


def _wald_scale(fit: LikelihoodNumbers, values: FloatArray, quantities: _Quantities) -> FloatArray:
    """β as it is, every covariance parameter on the scale of its Wald interval."""
    scales = covariance_parameters(fit)
    if len(scales.labels) > len(quantities.components):  # one standard deviation stands for all
        keep = np.r_[0, len(fit.design.term) : len(scales.labels)]
        scales = replace(scales, labels=quantities.components, lower=scales.lower[keep], upper=scales.upper[keep])
    n = len(values) - len(scales.labels)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.concatenate([values[:n], scales.to_unbounded(values[n:])])
