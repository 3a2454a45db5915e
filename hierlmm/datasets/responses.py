"""Responses of simulated data: the family that is asked for, and draws from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hierlmm.arrays import Rng
from hierlmm.datasets.covariates import Array, finite, refuse, whole
from hierlmm.errors import HierlmmError, SpecificationError
from hierlmm.families.family import Family
from hierlmm.families.gaussian import Gaussian
from hierlmm.families.names import family_of


def stated_family(family: Any, sigma: Any, dispersion: Any, trials: Any) -> tuple[Family, dict[str, float]]:
    """The family and its dispersion parameters, from what was said of them."""
    made = family_of(family)
    if made.has_trials != (trials is not None):
        received = f"trials={trials!r} with {made}"
        reason = "A binomial response needs the number of trials, and others count none."
        raise refuse(received, reason, "Give trials=10 for family='binomial', else leave it out.")
    if trials is not None:
        whole(trials, "trials", least=1)
    return made, stated_dispersion(made, sigma, dispersion)


def stated_dispersion(family: Family, sigma: Any, dispersion: Any) -> dict[str, float]:
    """Dispersion parameters by name, of which sigma may be an argument of its own.

    Raises
    ------
    SpecificationError
        If one is missing, said twice, or not one of the family's.
    """
    natural = {} if dispersion is None else dict(dispersion)
    if sigma is None:
        if family.dispersion == ("sigma",) and not natural:
            reason = f"A {family.title} response is drawn around its mean, and needs to know how far."
            raise refuse("no sigma", reason, "Give the residual standard deviation, such as sigma=1.0.")
    elif "sigma" in natural:
        received = f"sigma={sigma!r} and dispersion={natural!r}"
        raise refuse(received, "sigma is said twice.", "Say it once.")
    elif "sigma" not in family.dispersion:
        own = ", ".join(family.dispersion)
        remedy = f"Leave sigma out; its dispersion is dispersion={{{own!r}: ...}}." if own else "Leave sigma out."
        reason = f"A {family.title} response has no residual standard deviation."
        raise refuse(f"sigma={sigma!r} with {family}", reason, remedy)
    else:
        if finite(sigma, "sigma") <= 0:
            why = "It must be positive. It is the standard deviation of the residuals."
            raise refuse(f"sigma={sigma!r}", why, "Give a positive number, such as sigma=1.0.")
        natural["sigma"] = float(sigma)
    family.psi(natural)  # refused where they are not those of the family
    return natural


def draw_responses(
    rng: Rng, family: Family, eta: Array, natural: Mapping[str, float], trials: int | Array | None
) -> tuple[Array, Array]:
    """Responses at linear predictors, and their means: (N,) each."""
    if isinstance(family, Gaussian) and family.link == "identity":
        return eta + natural["sigma"] * rng.standard_normal(len(eta)), eta
    psi, n = family.psi(natural), np.full(len(eta), 1.0 if trials is None else trials)
    with np.errstate(all="ignore"):
        mu = eta if family.name == "ordinal" else family.mean(eta)
    try:
        y = family.draw(rng, mu, psi, n)
    except HierlmmError:  # a family that says no draws
        raise
    except ValueError as error:  # a mean that is none
        reason = f"Some means of the response are out of its range ({mu.min():.3g} to {mu.max():.3g})."
        remedy = "Use smaller effects and variances, or another link."
        raise SpecificationError(f"a simulation with {family}", reason, remedy) from error
    whole_numbers = np.array_equal(y, np.round(y)) and np.max(np.abs(y), initial=0.0) < 2.0**53
    return y.astype(np.int64) if whole_numbers else y, mu if family.name == "ordinal" else mu * n
