"""Default priors of generalised models, on the scale of the link: what differs from Gaussian models.

The centred intercept is Normal around the link of the overall mean (less the offset), with 2.5 times the size of a
linear predictor: 1, or the standard deviation of y where the link is the identity. Slopes, random effects and
correlations follow as in `hierlmm.bayes.default_priors`. Dispersion parameters have priors on their natural scale:

    shape (negative binomial, gamma), precision (beta)   HalfCauchy(5): half below 5, and no end of the tail
    sigma (Student's t)                                  HalfStudentT(4, sd(y))
    nu (Student's t)                                     Gamma(2, 0.1) (Juárez & Steel 2010)
    steps between thresholds (ordered categories)        HalfNormal(2.5)

Bambi 0.21 has HalfCauchy(1) for shape and precision, and for yes-or-no responses with a logit or probit link Normal(0,
1.5) for the intercept and Normal(0, 1 / sd(x)) for slopes, Normal(0, 1) for those of a factor.

References
----------
Juárez, M. A., Steel, M. F. J. (2010). Model-based clustering of non-Gaussian panel data based on skew-t distributions.
Journal of Business & Economic Statistics 28, 52-66.
"""

from __future__ import annotations

import re

import numpy as np

from hierlmm.bayes.distribution import Prior
from hierlmm.bayes.distributions import Gamma, HalfCauchy, HalfNormal, HalfStudentT
from hierlmm.design.design import Design
from hierlmm.errors import NotAvailableError

SEE = "docs, page 'Priors'"
STEP = "step {}"
BRACKET = re.compile(r"\[[^\]]*\]")


def scale_of_predictor(design: Design) -> tuple[float, float, float]:
    """Centre of the linear predictor less its offset, and its size (twice: deviations from the centre, from zero)."""
    family, y, link = design.family, design.y, design.family.function.link
    size = family.scale(y)
    if family.name == "ordinal":  # P(y > lowest) = 1 - F(-η)
        return -float(link(np.array(1.0 - np.mean(y > 0)))), size, size
    if family.link == "log":
        return float(np.log(np.sum(y) / np.sum(design.trials * np.exp(design.offset)))), size, size
    mean = np.sum(y) / np.sum(design.trials)
    return float(link(np.array(mean)) - np.mean(design.offset)), size, size


def dispersion_priors(design: Design, source: str) -> dict[str, Prior]:
    """Priors of the dispersion parameters by name, in the order of ψ."""
    family, spread = design.family, float(np.std(design.y)) or 1.0
    if family.name == "ordinal":
        return {STEP.format(k): HalfNormal(2.5) for k in range(2, len(family.first_psi(design.y, design.trials)) + 2)}
    own: dict[str, Prior] = {"sigma": HalfStudentT(4.0, spread), "nu": Gamma(2.0, 0.1)}
    return {name: own.get(name, HalfCauchy(1.0 if source == "bambi" else 5.0)) for name in family.dispersion}


def bambi_scale(design: Design) -> tuple[float, float]:
    """Centre and size of the linear predictor, as Bambi has them.

    Raises
    ------
    NotAvailableError
        For a family that Bambi has not, or has with other parameters.
    """
    family = design.family
    if "bambi" not in family.elsewhere or family.name == "ordinal":
        reason = "Bambi has no such family"
        if family.name == "ordinal":
            reason = "Bambi's ordinal model has thresholds in the place of the intercept, and priors of these"
        raise NotAvailableError(f"priors='bambi' with {family}", reason, "leave priors out, or name your own", SEE)
    if family.elsewhere["bambi"] in ("t", "gaussian"):
        return float(np.mean(design.y)), float(np.std(design.y)) or 1.0
    return 0.0, 1.0


def bambi_of_probabilities(design: Design) -> dict[int, float]:
    """Standard deviations of the priors of coefficients that Bambi treats in a way of its own, by position."""
    family = design.family
    if not (family.elsewhere.get("bambi") in ("bernoulli", "binomial") and family.link in ("logit", "probit")):
        return {}
    terms = [BRACKET.sub("", c) for c in design.coef]
    found = {}
    for k, name in enumerate(design.coef):
        if k == design.intercept:
            found[k] = 1.5
        elif all("[" in part for part in name.split(":")):
            found[k] = 1.0
        else:
            whole = design.X[:, [i for i, term in enumerate(terms) if term == terms[k]]].sum(axis=1)
            found[k] = 1.0 / float(np.std(whole if ":" in name else design.X[:, k]))
    return found
