"""Responses of simulated data: the family that is asked for, and draws from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hierlmm.arrays import Rng
from hierlmm.datasets.covariates import Array, finite, refuse, whole
from hierlmm.errors import SpecificationError
from hierlmm.families.family import Family
from hierlmm.families.gaussian import Gaussian
from hierlmm.families.names import family_of


def stated_family(family: Any, sigma: Any, dispersion: Any, trials: Any) -> tuple[Family, dict[str, float]]:
    """The family and its dispersion parameters, from what was said of them."""
    made = family_of(family)
    natural = {} if dispersion is None else dict(dispersion)
    if "sigma" in made.dispersion and (sigma is not None or "sigma" not in natural):
        _check_sigma(sigma)
        natural["sigma"] = float(sigma)
    elif sigma is not None:
        reason = f"A {made.title} response has no residual standard deviation."
        raise refuse(f"sigma={sigma!r} with {made}", reason, "Use sigma=None; see dispersion=.")
    if made.has_trials != (trials is not None):
        received = f"trials={trials!r} with {made}"
        reason = "A binomial response needs the number of trials, and others count none."
        raise refuse(received, reason, "Give trials=10 for family='binomial', else leave it out.")
    if trials is not None:
        whole(trials, "trials", least=1)
    made.psi(natural)  # refused where they are not those of the family
    return made, natural


def draw_responses(
    rng: Rng, family: Family, eta: Array, natural: Mapping[str, float], trials: int | None
) -> tuple[Array, Array]:
    """Responses at linear predictors, and their means: (N,) each."""
    if isinstance(family, Gaussian) and family.link == "identity":
        return eta + natural["sigma"] * rng.standard_normal(len(eta)), eta
    psi, n = family.psi(natural), np.full(len(eta), 1.0 if trials is None else trials)
    with np.errstate(all="ignore"):
        mu = eta if family.name == "ordinal" else family.mean(eta)
    try:
        y = family.draw(rng, mu, psi, n)
    except ValueError as error:  # a mean that is none
        reason = f"Some means of the response are out of its range ({mu.min():.3g} to {mu.max():.3g})."
        remedy = "Use smaller effects and variances, or another link."
        raise SpecificationError(f"a simulation with {family}", reason, remedy) from error
    whole_numbers = np.array_equal(y, np.round(y)) and np.max(np.abs(y), initial=0.0) < 2.0**53
    return y.astype(np.int64) if whole_numbers else y, mu if family.name == "ordinal" else mu * n


def _check_sigma(sigma: Any) -> None:
    if finite(sigma, "sigma") <= 0:
        why = "It must be positive. It is the standard deviation of the residuals."
        raise refuse(f"sigma={sigma!r}", why, "Give a positive number, such as sigma=1.0.")
