"""V of one subject at chosen times, at the estimates and over draws of its parameters (see `implied.marginal`)."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.covariance.estimate import ResidualEstimate
from hierlmm.covariance.positions import labelled
from hierlmm.drawing.style import evenly
from hierlmm.equations.residual_symbols import spec_text
from hierlmm.errors import DataError, NotAvailableError
from hierlmm.fits.posterior import flat_parameters
from hierlmm.frames import shorten
from hierlmm.implied.grid import SEE, Grid

LIKELIHOOD_DRAWS, POSTERIOR_DRAWS = 1000, 2000


def describe_covariance(fit: Any) -> str:
    """The covariance model in a few words: ``random Intercept, time + AR1('visit')``."""
    design = fit.design
    if fit.has_working_correlation:
        return f"{fit.correlation} working correlation"
    by = f" by {design.group}" if design.group else ""
    parts = [f"random {', '.join(design.own_term)}{by}"] if design.term else []
    parts += [spec_text(s) for s in (design.residual, design.residual_variance) if s is not None]
    words = " + ".join(parts) if parts else "independence"
    structure = design.hierarchy.covariance
    return words + (f" ({structure} D)" if design.n_own > 1 and structure != "unstructured" else "")


def _residual(structure: ResidualEstimate | None, grid: Grid) -> FloatArray:
    """Σ / σ² at the grid."""
    n = len(grid.x)
    if structure is None:
        return np.eye(n)
    R = _correlations(structure, grid)
    g = structure.sd_ratio(grid.frame, grid.fitted)
    return R * g[:, None] * g


def _correlations(structure: ResidualEstimate, grid: Grid) -> FloatArray:
    if structure.correlation is None:
        return np.eye(len(grid.x))
    spec = structure.correlation.spec
    if spec.time is None:
        return structure.at(grid.place, structure.level(grid.frame))
    values = grid.frame[spec.time]
    numbers = spec.integer and not labelled(spec, values)
    if numbers and np.any(values.to_numpy(dtype=np.float64) != np.round(values.to_numpy(dtype=np.float64))):
        received = f"{spec_text(spec)} at values of {spec.time!r} that are no whole numbers"
        raise DataError(received, "it counts occasions", "use whole numbers, or a structure in continuous time", SEE)
    try:
        return structure.correlations(grid.frame)
    except IndexError as error:
        reason, remedy = "it has one correlation for each lag that was seen", "use times within the span of the data"
        raise DataError(f"{spec_text(spec)} and lags beyond those in the data", reason, remedy, SEE) from error


def covariance_at(fit: Any, grid: Grid) -> FloatArray:
    """V at the estimates, (n, n)."""
    if fit.has_working_correlation:
        return fit.scale * _working(fit, grid)
    V = fit.sigma**2 * _residual(fit.residual_estimate, grid)
    return V + grid.Z @ fit._D_values @ grid.Z.T if grid.Z.shape[1] else V


def _working(fit: Any, grid: Grid) -> FloatArray:
    estimate = fit.estimate
    position = grid.x
    if fit.correlation == "ar1":
        position = grid.x / estimate.spacing
    elif fit.correlation == "unstructured":
        known = list(estimate.positions)
        numbers = all(isinstance(p, (int, float, np.integer, np.floating)) for p in known)
        kind, wanted = (float, grid.x) if numbers else (str, grid.index)
        places = {kind(p): k for k, p in enumerate(known)}
        codes = [places.get(kind(v), -1) for v in wanted]
        if min(codes) < 0:
            received = f"{grid.name} {grid.index[codes.index(-1)]}"
            reason = "this occasion was not in the fitted data, so its correlations are unknown"
            raise DataError(received, reason, f"use {shorten(known)}", SEE)
        position = np.array(codes, dtype=np.float64)
    if fit.correlation in ("ar1", "unstructured") and fit.time != grid.name:
        received = f"the working correlation by {grid.name}"
        remedy = "put the time into the model's formula, or use fit.working_correlation(subject)"
        raise NotAvailableError(received, f"its time is {fit.time!r}, which is no column of the model", remedy, SEE)
    return estimate.moments.matrix(position)


def covariance_draws(
    fit: Any, grid: Grid, ci: float, draws: int | None, seed: int | None
) -> tuple[FloatArray | None, str]:
    """Draws of V (S, n, n), and what the bands are."""
    if fit.has_working_correlation:
        return None, "No bands: GEE estimates a working covariance, without a distribution of its parameters."
    posterior = fit.has_draws
    if draws == 0 and not posterior:
        return None, "No bands (draws=0)."
    if posterior:
        parameters = _posterior_parameters(fit, draws if draws else POSTERIOR_DRAWS)
        note = f"Posterior means; bands: {100 * ci:g} %, pointwise and equal-tailed."
    else:
        parameters, note = large_sample_parameters(fit, LIKELIHOOD_DRAWS if draws is None else draws, ci, seed)
    D, sigma, eta = parameters
    structure = fit.residual_estimate
    if structure is None:
        Sigma = np.broadcast_to(_residual(None, grid), (len(sigma), len(grid.x), len(grid.x)))
    else:
        Sigma = np.array([_residual(dataclasses.replace(structure, eta=row), grid) for row in eta])
    V = sigma[:, None, None] ** 2 * Sigma
    if grid.Z.shape[1]:
        V = V + grid.Z @ D @ grid.Z.T
    return V, note


def _posterior_parameters(fit: Any, size: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    _, D, sigma, eta = flat_parameters(fit, evenly(fit.draws("sigma").size, size))
    return D, sigma, eta


def large_sample_parameters(
    fit: Any, size: int, ci: float, seed: int | None, *, logs: bool = False
) -> tuple[tuple[FloatArray, FloatArray, FloatArray], str]:
    """Draws of D, σ and η around their estimates, and what bands of them are; ``logs``: see `on_logs`."""
    large = fit.large_sample
    sample = large.sample(size, np.random.default_rng(seed))
    sample = large.on_logs(sample) if logs else sample
    D, sigma = large.split_draws(sample)
    first = fit.criterion_function.structure.n_parameters
    note = (
        f"Bands: {100 * ci:g} %, pointwise, from {size} draws of the covariance parameters' normal approximation on "
        f"the {'scale of log SDs' if logs else 'unconstrained scale'}."
    )
    if fit.is_singular:
        note += (
            " D is singular at the optimum: directions without variance are held at zero, so the bands are too narrow."
        )
    if large.flat.shape[1]:
        note += " The likelihood is flat in a residual parameter: its uncertainty is not in the bands."
    return (D, sigma, sample[:, first:-1]), note
