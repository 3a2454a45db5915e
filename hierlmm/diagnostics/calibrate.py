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
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray, IntArray, Rng
from hierlmm.bayes.nuts import check_settings
from hierlmm.bayes.predictive import family_responses, new_effects, prior_draws_with_eta, subject_lines
from hierlmm.bayes.priors import Priors, resolve_priors
from hierlmm.bayes.resolved import ResolvedPriors
from hierlmm.bayes.route import GENERALISED_TARGET
from hierlmm.design.design import Design, design_of
from hierlmm.diagnostics import recovered, replicate
from hierlmm.diagnostics.calibration import Calibration
from hierlmm.errors import NotAvailableError, SpecificationError
from hierlmm.fits.base import Fit
from hierlmm.frames import quote
from hierlmm.likelihood.residual_rows import residual_rows
from hierlmm.options import checked, choose, renamed

ESTIMATORS = ("nuts", "reml", "ml")
TARGET_ACCEPT = 0.8
SEE = "docs, page 'Calibration'"


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
    target_accept: float | None = None,
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
    target_accept : float, optional
        0.8 by default, of other families than the Gaussian 0.95, as in ``fit``.
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
    n = replicate.whole("simulations", simulations, 10)
    design = design_of(model, "calibrate")
    if target_accept is None:
        target_accept = TARGET_ACCEPT if design.is_gaussian else GENERALISED_TARGET
    options = {"draws": draws, "tune": tune, "chains": chains, "target_accept": target_accept}
    check_settings(draws=draws, tune=tune, chains=chains, target_accept=target_accept)
    bayes = estimator == "nuts"
    if not (bayes or design.is_gaussian):
        _refuse_likelihood_of_family(design, estimator)
    priors: ResolvedPriors = model.priors
    _refuse_own_fitted_values(design)
    if bayes:
        replicate.require_collapsed(priors, "calibrate")
    quantities = recovered.Quantities(design, _positions(design, subjects, bayes), bayes)
    draw, source = _truth_source(design, priors, truth)
    used_seed, seeds = replicate.streams(seed, n)

    def work(k: int) -> recovered.Recovered:
        rng = np.random.default_rng(seeds[k])
        drawn = draw(rng)
        simulated = design.with_response(drawn.y)
        if bayes:
            return recovered.recover_by_nuts(simulated, priors, quantities, drawn, rng, options)
        return recovered.recover_by_likelihood(simulated, quantities, drawn, reml=estimator == "reml")

    started, label = time.perf_counter(), f"Calibration ({estimator.upper()})"
    results, failures = replicate.replicate(work, n, cores=cores, progressbar=progressbar, label=label)
    tables, checks = _tables(results, failures, quantities.labels)
    return Calibration(
        estimator=estimator.upper(),
        source=source,
        design=design,
        priors=priors,
        simulations=n,
        **{field: tables[field] for field in recovered.FIELDS[:6]},
        rank_table=tables["rank"] if bayes else None,
        n_ranks=len(recovered.thinned(chains * draws)),
        autocorrelation=tables["autocorrelation"].mean() if bayes else None,
        checks=checks,
        failures=tuple(failures),
        settings={**(options if bayes else {}), "seed": used_seed},
        seconds=time.perf_counter() - started,
    )


def _tables(
    results: list[recovered.Recovered | None], failures: list[replicate.Failure], labels: list[str]
) -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
    """A table data set × parameter for each of `FIELDS`, and the checks of the fits."""
    good = {k: r for k, r in enumerate(results) if r is not None}
    if not good:
        received = f"{len(results)} simulated data sets, none of which could be fitted"
        remedy = "look at the priors: hl.simulate or fit.prior_predictive show what data they imply"
        raise SpecificationError(received, f"the first one failed because {failures[0].reason}", remedy, SEE)
    index, columns = pd.Index(list(good), name="data set"), pd.Index(labels, name="parameter")
    numbers = np.array([r.numbers for r in good.values()])
    tables = {f: pd.DataFrame(numbers[:, i], index=index, columns=columns) for i, f in enumerate(recovered.FIELDS)}
    return tables, pd.DataFrame([r.checks for r in good.values()], index=index)


def _refuse_likelihood_of_family(design: Design, estimator: str) -> None:
    received = f"estimator={estimator!r} for {design.hierarchy.response!r}, {design.family}"
    reason, remedy = "there is no REML: it is the likelihood of combinations of a normal response", "use 'nuts'"
    if estimator == "ml":
        reason = "whether Wald intervals of generalised models cover is not studied in this way in this version"
        remedy = "use estimator='nuts', or hl.simulate(family=...) and model.fit_ml() in a loop"
    raise NotAvailableError(received, reason, remedy, SEE)


def _refuse_own_fitted_values(design: Design) -> None:
    """Refuse a variance that follows the fitted value: no data are drawn from such a model, and NUTS cannot fit it."""
    variance = design.residual_variance
    if variance is not None and variance.variable is None:
        name = type(variance).__name__
        reason = "the data drawn would have variances that follow the fitted values of other data, not their own means"
        earlier = "on the fitted values of an earlier fit as a column"
        remedy = f"let the variance depend on a column: {name}('time'), or {earlier}"
        raise NotAvailableError(f"calibrate with {name}() of the fitted value", reason, remedy, SEE)


def _positions(design: Design, subjects: Sequence[Any], bayes: bool) -> IntArray:
    wanted = list(subjects) if isinstance(subjects, Sequence) and not isinstance(subjects, str) else [subjects]
    if wanted and not bayes:
        received = f"subjects={subjects!r} with a likelihood estimator"
        reason = "random effects are followed through posterior draws"
        raise SpecificationError(received, reason, "use estimator='nuts', or leave subjects out", SEE)
    if wanted and not design.term:
        received = f"subjects={subjects!r} with a marginal model"
        remedy = "leave subjects out, or calibrate a hierarchy, hl.TwoLevelModel"
        raise SpecificationError(received, "it has no random effects that could be followed", remedy, SEE)
    for label in wanted:
        if label not in design.subjects:
            received, reason = f"subjects=[{quote(label)}]", "the data of the model have no such subject"
            raise SpecificationError(received, reason, f"use labels such as {quote(design.subjects[0])}", SEE)
    return np.array([design.subjects.get_loc(s) for s in wanted], dtype=np.intp)


def _truth_source(design: Design, priors: ResolvedPriors, truth: Any) -> tuple[Callable[[Rng], recovered.Truth], str]:
    """Return a function that draws a data set, and where it draws from: ``"priors"``, ``"other priors"``, ``"fit"``."""
    if isinstance(truth, Fit):
        return _from_fit(design, truth), "fit"
    if truth is None:
        return _from_priors(design, priors), "priors"
    if isinstance(truth, Priors | ResolvedPriors):
        return _from_priors(design, resolve_priors(truth, design)), "other priors"
    received = f"truth of type {type(truth).__name__!r}"
    remedy = "leave it out (the priors of the model), or pass Priors(...) or a fit of the same model"
    raise SpecificationError(received, "data are drawn from priors or from the estimates of a fit", remedy, SEE)


def _from_priors(design: Design, priors: ResolvedPriors) -> Callable[[Rng], recovered.Truth]:
    def draw(rng: Rng) -> recovered.Truth:
        one, eta = prior_draws_with_eta(design, priors, 1, rng)
        sigma = float(one["sigma"][0]) if design.is_gaussian else 1.0
        return recovered.Truth(one["beta"][0], one["D"][0], sigma, one["b"][0], eta[0], one["y"][0])

    return draw


def _from_fit(design: Design, fit: Fit) -> Callable[[Rng], recovered.Truth]:
    own, structure = ((d.residual, d.residual_variance, d.family) for d in (fit.design, design))
    if list(fit.beta.index) != list(design.coef) or fit.design.term != design.term or own != structure:
        received = f"truth: a fit of {fit.design.hierarchy.formula}"
        remedy = "pass a fit of the same model, for example truth=model.fit_reml()"
        raise SpecificationError(received, f"its parameters are not those of {design.hierarchy.formula}", remedy, SEE)
    q = len(design.term)
    beta = fit.beta.to_numpy(dtype=float)
    D = fit.D.to_numpy(dtype=float) if q else np.empty((0, 0))
    root, _ = replicate.eigen_root(D)
    if not design.is_gaussian:
        return _of_family(design, beta, D, root, _psi_of(fit))
    sigma, residual = float(fit.sigma), fit.residual_estimate
    eta = np.empty(0) if residual is None else residual.eta
    colour = None if residual is None else partial(residual_rows(design).colour, eta)

    def draw(rng: Rng) -> recovered.Truth:
        b, y = replicate.drawn_response(design, beta, root, sigma, rng, colour)
        return recovered.Truth(beta, D, sigma, b, eta, y)

    return draw


def _psi_of(fit: Any) -> FloatArray:
    """ψ at the estimates of the dispersion, whose names in a tree have no blanks."""
    names = list(fit.design.family.natural(fit.design.family.first_psi(fit.design.y, fit.design.trials)))
    given = dict(zip(names, fit.dispersion.to_numpy(dtype=float), strict=True))
    return fit.design.family.psi(given) if given else np.empty(0)


def _of_family(
    design: Design, beta: FloatArray, D: FloatArray, root: FloatArray, psi: FloatArray
) -> Callable[[Rng], recovered.Truth]:
    def draw(rng: Rng) -> recovered.Truth:
        b = new_effects(design, root, rng)
        y = family_responses(design, subject_lines(design, beta, b)[None], psi[None], rng)[0]
        return recovered.Truth(beta, D, 1.0, b, psi, y)

    return draw
