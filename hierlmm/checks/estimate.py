"""Checks of the estimate itself: did it converge, does it lie on a boundary, what do the sampler and the priors say."""

from __future__ import annotations

from typing import Any

from hierlmm.checks.material import Material
from hierlmm.checks.outcome import LeftOut, Outcome
from hierlmm.diagnostics.psense import psense
from hierlmm.errors import HierlmmError

OWN = ("The optimiser stopped", "The data support")
"""How notes of a fit begin that other checks here speak of."""


def convergence(material: Material) -> Outcome | LeftOut:
    """Whether the algorithm reached what it was looking for; of a posterior, whether its chains did."""
    fit: Any = material.fit
    if not fit.has_draws:
        norm = f"{fit.gradient_norm:.1e}" if fit.has_likelihood else ""
        return Outcome({"norm": norm, "messages": ""}, severity="fine" if fit.converged else "act")
    found = fit.convergence()
    slots = {"messages": " ".join(found.messages), "norm": ""}
    return Outcome(slots, severity="fine" if found.ok else "act", variant="_draws")


def boundary(material: Material) -> Outcome | LeftOut:
    """Whether the estimate of D has no full rank."""
    fit = material.fit
    if not fit.has_likelihood or not fit.has_random_effects:
        return LeftOut("only a likelihood fit with random effects has an estimate of D on a boundary")
    said = next((w for w in fit.warnings if w.startswith(OWN[1])), "D has no full rank.")
    return Outcome({"message": said}, severity="look" if fit.is_singular else "fine")


def notes(material: Material) -> Outcome | LeftOut:
    """Whether the fit has other notes."""
    fit: Any = material.fit
    known = fit.convergence().messages if fit.has_draws else ()
    found = [w for w in fit.warnings if not w.startswith(OWN) and w not in known]
    return Outcome({"messages": " ".join(found)}, severity="look" if found else "fine")


def priors(material: Material) -> Outcome | LeftOut:
    """Whether priors and data contradict each other."""
    fit: Any = material.fit
    if not fit.has_draws:
        return LeftOut("the fit has no priors")
    try:
        fit.require("psense")
        found = psense(fit)
    except HierlmmError as error:
        return LeftOut(getattr(error, "reason", str(error)))
    return Outcome({"verdict": found.verdict}, severity="fine" if found.ok else "look")
