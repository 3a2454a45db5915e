"""What must be known of a generalised fit before it is used, in plain words.

Whether the search ended and D has full rank, as for every likelihood fit; and what a family brings with it: columns
that separate successes from failures (Albert & Anderson 1984, Biometrika 71, 1-10), more variance or more zeros than
the family has, and a dispersion at the end of its range.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import linprog
from scipy.stats import norm

from hierlmm.arrays import FloatArray
from hierlmm.design.design import Design
from hierlmm.design.formula import INTERCEPT
from hierlmm.likelihood.estimate import singular_message
from hierlmm.likelihood.overdispersion import overdispersion

UNKNOWN_SE = 8.0
"""Standard error of a coefficient of a column of mean square 1, on the scale of a link, that suggests separation."""
MANY_ZEROS, FAR = 1.2, 4.0
EDGE_STEPS = (1e-4, 1e-3, 1e-2)
VANISHED, VANISHING, TIED, FINE = 1e-5, 1e-3, 0.5, 0.25
"""A scale of Student's t that is none, beside the SD of y (and while the search has not ended); the share of ties that
says that responses are rounded, and a scale that is finer than their steps."""
END_OF_SHAPE, END_OF_NU = 2_000.0, 200.0
ROUGH, FAILED = 0.5, 3.0
"""Standard errors between the optima by Laplace's method and by quadrature: half of one, and a 95 % interval holds the
truth in 92 %."""
INEXACT, LOST = 0.1, 0.05
"""The same of points of quadrature, and a change of the log-likelihood."""
POSITIVE = ("poisson", "negative_binomial", "gamma", "bernoulli", "binomial")
OUTSIDE = 1e-3
"""Share of subjects outside of the range of a link, in some row."""


def describe_generalised(estimate: Any) -> tuple[str, ...]:
    """Messages of a `GeneralisedEstimate`."""
    design, optimum = estimate.design, estimate.optimum
    messages: list[str] = []
    family = design.family
    edge = family.link != family.links[0] and at_an_edge(estimate)
    if edge:
        messages.append(
            f"No maximum: the likelihood rises up to parameters at which means of some subjects reach the end of their "
            f"range, which the {family.link} link does not keep, and there it cannot be approximated any more. The "
            f"estimates shown are where the search stopped. Use the {family.links[0]} link, or let less vary between "
            "subjects."
        )
    elif not estimate.converged:
        messages.append(
            f"The optimiser stopped at a gradient norm of {optimum.gradient_norm:.1e} (below 1e-6 is converged). The "
            "estimates may be off in their last digits or more. This happens when parameters are barely determined: "
            "simplify the random effects, rescale covariates, or use a family with fewer parameters."
        )
    messages += _higher_elsewhere(estimate)
    if optimum.n_boundary:
        messages.append(singular_message(design, estimate.criterion, optimum, ""))
    messages += _all_or_none(design) or _approximation(estimate)
    messages += _separation(estimate)
    messages += _end_of_range(estimate)
    fitted = estimate.solution
    eta = fitted.line(design)
    messages += [] if edge else _out_of_range(design, fitted)
    messages += overdispersion(design, eta, fitted.psi, estimate.optimum.lam.size)
    messages += many_zeros(design, eta, fitted.psi)
    return tuple(messages)


def at_an_edge(estimate: Any) -> bool:
    """Whether the search stopped where a step downhill leaves what the link allows, and the criterion is infinite."""
    if estimate.converged or not np.isfinite(estimate.optimum.value):
        return False
    at = estimate.optimum.lam
    gradient = estimate.criterion.both(at)[1]
    downhill = gradient / max(float(np.max(np.abs(gradient))), 1e-300)
    return any(estimate.criterion(at - step * downhill) == np.inf for step in EDGE_STEPS)


def unusable(estimate: Any) -> bool:
    """Whether the estimates must not be used: what is then told must be seen, not only printed."""
    failed = estimate.departure is not None and estimate.departure.far(FAILED)
    return not estimate.converged or failed or bool(_all_or_none(estimate.design))


def _approximation(estimate: Any) -> list[str]:
    """How far Laplace's method, or the points of quadrature, are from the likelihood itself."""
    departure, points = estimate.departure, estimate.criterion.points
    if departure is None or (points > 1 and departure.largest < INEXACT and abs(departure.loglik) < LOST):
        return []
    if points > 1:
        return [
            f"{points} points of quadrature are not exact here: with {departure.points} the log-likelihood changes by "
            f"{departure.loglik:+.3f}, and the optimum by up to {departure.largest:.2g} standard errors. This happens "
            "with very large variances between subjects, and where a subject's random effects can have several modes. "
            f"To go on: fit_ml(n_quadrature={2 * points + 1}), or a posterior."
        ]
    if departure.far(FAILED):
        return [
            "Laplace's method fails here: by quadrature the log-likelihood of this optimum changes by "
            f"{departure.loglik:+.2f}, and the better optimum lies {departure.largest:.1f} standard errors away or "
            "more. This happens with rare events, few rows a subject and much variance between subjects. Do not use "
            "these estimates. To go on: fit_ml(n_quadrature=25), or a posterior."
        ]
    if departure.largest > ROUGH:
        return [
            f"Laplace's method is rough here: by quadrature the optimum lies about {departure.largest:.1f} standard "
            "errors away. This happens with few rows a subject and yes-or-no or rare events. To go on: "
            "fit_ml(n_quadrature=25), or a posterior."
        ]
    return []


def _higher_elsewhere(estimate: Any) -> list[str]:
    """Optima that were not reported although their criterion is lower."""
    optimum = estimate.optimum
    lower = [o for o in optimum.others if o.value < optimum.value]
    if not (estimate.converged and lower):
        return []
    if lower[0].converged:
        return [
            "Laplace's approximation of the log-likelihood has a higher maximum elsewhere "
            f"({-0.5 * lower[0].value:.6g}, here {-0.5 * optimum.value:.6g}), which the likelihood by quadrature has "
            "not. It is not reported (fit.optima lists it). To go on: fit_ml(n_quadrature=25) has no such maximum."
        ]
    compare = " Compare with fit_ml(n_quadrature=5)." if estimate.criterion.has_quadrature else ""
    return [
        "Elsewhere the approximated likelihood is higher, without a maximum (fit.optima): where the random effects of "
        f"a subject can have several modes, Laplace's method may rise without end.{compare}"
    ]


def _all_or_none(design: Design) -> list[str]:
    """Subjects that always succeed or always fail, all of them: nothing holds the variance between them."""
    if design.family.name not in ("bernoulli", "binomial") or INTERCEPT not in design.term:
        return []
    first = np.concatenate([[0], np.cumsum(np.bincount(design.subject_index))[:-1]])
    order = np.argsort(design.subject_index, kind="stable")
    successes, trials = (np.add.reduceat(v[order], first) for v in (design.y, design.trials))
    if np.any((successes > 0) & (successes < trials)):
        return []
    subject = design.hierarchy.subject
    single = bool(np.all(trials == 1))
    why = "has one trial" if single else "has only successes or only failures"
    return [
        f"Every {subject} {why}: the data do not say how much {subject}s differ, and the likelihood rises as the "
        "variance of the random effects goes to infinity, or is flat in it. The coefficients, which are relative to "
        "it, have no estimate either. To go on: leave the random effects out (GEE of the same model), or fit a "
        "posterior, whose prior keeps them finite."
    ]


def _out_of_range(design: Design, fitted: Any) -> list[str]:
    """Links whose linear predictor has a range: the share of subjects whose random effects would leave it."""
    link, family = design.family.link, design.family
    upper = link == "log" and family.name in ("bernoulli", "binomial")
    if not (upper or link in ("inverse", "sqrt") or (link == "identity" and family.name in POSITIVE)):
        return []
    eta = design.offset + design.X @ fitted.beta
    sd = np.sqrt(np.maximum(np.einsum("ij,jk,ik->i", design.Z, fitted.D, design.Z), 0.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        share = float(np.max(np.nan_to_num(norm.sf((-eta if upper else eta) / sd))))
    if share < OUTSIDE:
        return []
    side = "above zero, where means would be above 1" if upper else "below zero"
    what = (
        "where the mean rises again; a subject's rows then have two explanations, and neither Laplace's method nor "
        "quadrature around one of them is exact"
        if link == "sqrt"
        else "which the response cannot have, and normal random effects do not stop there"
    )
    other = "logit" if upper or family.has_trials or family.name == "bernoulli" else "log"
    return [
        f"With the {link} link and these random effects up to {100 * share:.2g} % of subjects would have a linear "
        f"predictor {side}, {what}. The fit is unreliable, and means over subjects are not those of the model. To go "
        f"on: use link={other!r}."
    ]


def _separation(estimate: Any) -> list[str]:
    """Columns that tell successes from failures, or rows with events from rows without."""
    criterion, design = estimate.criterion, estimate.design
    m, p = criterion.structure.n_parameters, len(design.coef)
    if design.family.name not in ("bernoulli", "binomial", "poisson", "negative_binomial", "ordinal") or not p:
        return []
    se = np.sqrt(np.diag(estimate.covariance)[m : m + p])
    if np.all(se < UNKNOWN_SE) and not np.any(estimate.flat[m : m + p]):
        return []
    direction = separating_direction(design)
    if direction is None:
        return []
    names = [design.coef[k] for k in np.flatnonzero(np.abs(direction) > 1e-6)]
    named = f"{len(names)} columns together, among them {names[-1]!r}," if len(names) > 1 else repr(names[0])
    predict = "predict" if len(names) > 1 else "predicts"
    return [
        f"Separation: {named} {predict} the outcome of some rows without exception, so the likelihood has no maximum: "
        "it rises as the coefficient goes to infinity. The estimate shown is where the search stopped, without a "
        "standard error. To go on: merge levels or leave the column out; or fit a posterior, whose prior keeps it "
        "finite."
    ]


def separating_direction(design: Design) -> FloatArray | None:
    """A direction of β along which no row's density falls and some rise, at the largest entry 1; None if none."""
    rising, held = _conditions(design)
    if not len(rising):
        return None
    found = linprog(
        -rising.sum(axis=0),
        A_ub=-rising,
        b_ub=np.zeros(len(rising)),
        A_eq=held if len(held) else None,
        b_eq=np.zeros(len(held)) if len(held) else None,
        bounds=[(-1.0, 1.0)] * rising.shape[1],
    )
    if found.status != 0 or found.fun is None or found.fun > -1e-6:
        return None
    return np.asarray(found.x, dtype=np.float64)[: len(design.coef)]


def _conditions(design: Design) -> tuple[FloatArray, FloatArray]:
    """Rows of a matrix whose products with such a direction must not be negative, and of one where they are zero."""
    y, n, X = design.y, design.trials, design.X / np.sqrt(np.mean(design.X**2, axis=0))
    if design.family.name == "ordinal":  # of (β, thresholds above the first): both ends of a category move apart
        last = int(y.max())
        thresholds = np.eye(last)[:, 1:]
        above, below = y < last, y > 0
        upper = np.hstack([-X[above], thresholds[y[above].astype(int)]])
        lower = np.hstack([X[below], -thresholds[y[below].astype(int) - 1]])
        return np.concatenate([upper, lower]), np.empty((0, 0))
    if design.family.name in ("bernoulli", "binomial"):
        up, down = y == n, y == 0
    else:
        up, down = np.zeros(len(y), dtype=bool), y == 0
    return np.concatenate([X[up], -X[down]]), X[~(up | down)]


def _end_of_range(estimate: Any) -> list[str]:
    """A dispersion parameter that the data push to the end of its range."""
    family = estimate.design.family
    own = family.natural(estimate.solution.psi)
    if family.name == "negative_binomial" and own["shape"] > END_OF_SHAPE * max(1.0, float(np.mean(estimate.design.y))):
        return [
            f"The shape is at the end of its range ({own['shape']:.2g}): the data have no more variance than Poisson "
            "counts, and family='poisson' is the same model with a parameter less."
        ]
    if family.name == "student_t" and (
        why := without_residuals(estimate.design, own["sigma"], VANISHED if estimate.converged else VANISHING)
    ):
        return [
            f"No maximum: the likelihood of Student's t rises without end as sigma goes to zero (here "
            f"{own['sigma']:.2g}), because {why}. The estimates shown are where the search stopped. To go on: use "
            "measurements that are not rounded, family='gaussian', or a posterior with a prior of sigma that has no "
            "mass at zero."
        ]
    if family.name == "student_t" and own.get("nu", 0.0) > END_OF_NU:
        return [
            f"The degrees of freedom nu are at the end of their range ({own['nu']:.2g}): the data have no heavier "
            "tails than the normal distribution, and family='gaussian' is the same model with a parameter less."
        ]
    return []


def without_residuals(design: Design, sigma: float, least: float = VANISHED) -> str | None:
    """Why the scale of Student's t is next to nothing: rows without any residual; None where it is not."""
    values, counts = np.unique(design.y, return_counts=True)
    tied = int(np.sum(counts[counts > 1]))
    if tied >= TIED * len(design.y) and sigma < FINE * float(np.min(np.diff(values), initial=np.inf)):
        return f"{tied} of {len(design.y)} responses are equal to another (are they rounded?)"
    return "rows lie on a line exactly" if sigma < least * float(np.std(design.y)) else None


def many_zeros(design: Design, eta: FloatArray, psi: FloatArray) -> list[str]:
    """Zeros beside what the family expects at the fitted means."""
    family = design.family
    if family.name not in ("poisson", "negative_binomial"):
        return []
    mu = family.mean(eta)
    none = np.exp(-mu) if family.name == "poisson" else (1.0 + mu * np.exp(-psi[0])) ** -np.exp(psi[0])
    expected, seen = float(none.sum()), int(np.sum(design.y == 0))
    if seen < max(1.0, MANY_ZEROS * expected) or seen - expected < FAR * np.sqrt(np.sum(none * (1.0 - none))):
        return []
    remedy = (
        "try family='negative_binomial'" if family.name == "poisson" else "look for rows in which no event can occur"
    )
    return [
        f"More zeros than the model expects: {seen} rows are 0, and {expected:.0f} would be at the fitted means. To go "
        f"on: {remedy}; this package has no zero-inflated family (glmmTMB and brms do)."
    ]
