"""NUTS on the collapsed posterior: β and b integrated out exactly, only the covariance parameters θ are sampled.

The density is that of `collapsed_kernel`. Sampling starts from its mode θ̂ and moves in whitened coordinates
``θ = θ̂ + S z``, ``S S' = -(∂² log p)⁻¹``, in which a well-determined posterior is close to standard normal:
short trajectories, little to tune. The compiled density is handed to nutpie as a C function, so that chains run in
parallel without Python's lock and no PyTensor graph is built.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import minimize

from hierlmm.arrays import BoolArray, FloatArray, IntArray
from hierlmm.bayes.collapsed_kernel import (
    FACTOR,
    FACTOR_AND_BETA,
    HEADER,
    N_PRIOR,
    compiled_density,
    evaluate,
    unpack,
)
from hierlmm.bayes.moments import summarise_random_effects
from hierlmm.bayes.posterior import Collapsed, Conditional, Density
from hierlmm.bayes.random_theta import random_theta
from hierlmm.bayes.recover import draw_random_effects, recover_beta
from hierlmm.bayes.resolved import ResolvedPriors
from hierlmm.design.design import Design
from hierlmm.likelihood.crossproducts import CrossProducts, cross_products
from hierlmm.likelihood.search import alone, spread

NEAR_ZERO = 5.0
"""Drop of the log density from the mode of a standard deviation to a twentieth of it, below which it may be zero."""
FAINT = 7.0
"""Drop of the log density below the highest mode at which another one counts no longer (a thousandth)."""
BARRIER = 0.05
"""How much lower than a mode the density is half-way to another one."""
POINTS, CLIMBS = 12, 6
QUICK: Any = {"gtol": 1e-2, "maxiter": 60}


def why_not_collapsed(priors: ResolvedPriors) -> str | None:
    """Say why the compiled posterior has not a model's priors, or return None if it has."""
    if not priors.beta_is_normal:
        return "a fixed effect has a prior that is not normal"
    for prior in (*priors.sd_b, priors.sigma):
        if prior.closed_form() is None:
            return f"the prior {prior} of a standard deviation is outside the closed-form set"
    return None


class CollapsedPosterior(Collapsed):
    """The posterior of θ where residuals are independent and there are random effects."""

    def log_density(self, theta: FloatArray) -> tuple[float, FloatArray]:
        """Normalised log density log p(y, θ) and its gradient at θ."""
        value, gradient = evaluate(np.linalg.solve(self.root, theta - self.mode), self.buffer)
        return value, np.linalg.solve(self.root.T, gradient)

    def compiled(self) -> tuple[Any, FloatArray]:
        """See `Collapsed.compiled`."""
        return compiled_density(), self.buffer

    def evaluator(self) -> Density:
        """See `Collapsed.evaluator`."""
        return lambda z: evaluate(z, self.buffer)

    def conditional(
        self, theta: FloatArray, rng: np.random.Generator, random_effects: str, few: Any = slice(None)
    ) -> Conditional:
        """See `Collapsed.conditional`."""
        natural = recover_beta(self, theta, rng)
        b = draw_random_effects(self, natural.at(few), rng) if random_effects == "draws" else None
        summary = summarise_random_effects(self, natural) if random_effects == "summary" else None
        return Conditional(natural, *self.own(b, summary), np.empty((len(theta), 0)), {})


def collapsed_posterior(design: Design, priors: ResolvedPriors, *, signed: bool | None = None) -> CollapsedPosterior:
    """Pack the model, and find the mode of θ and the curvature there.

    Parameters
    ----------
    design, priors
        The model.
    signed : bool, optional
        Hold every standard deviation of the random effects as a signed number (True) or as a logarithm (False). By
        default each is signed if the density of the standard deviation at a twentieth of its mode has not dropped by
        more than `NEAR_ZERO` on the log scale: it may then be zero, where a logarithm has no end.
    """
    products = cross_products(design)
    buffer = pack(design, products, priors)
    negative = negative_of(lambda theta: evaluate(theta, buffer))
    mode, root, modes = find_mode(buffer, negative, everywhere(buffer), signed)
    m = len(mode)
    buffer[HEADER : HEADER + m] = mode
    buffer[HEADER + m : HEADER + m + m * m] = root.ravel()
    return CollapsedPosterior(design, products, buffer, mode, root, modes, priors.random_uncentering)


def find_mode(
    buffer: FloatArray, negative: Density, candidates: FloatArray, signed: bool | None
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Modes of θ and the curvature at the highest; decides which standard deviations are signed (in the buffer).

    Parameters
    ----------
    buffer : (n,)
        Not whitened yet.
    negative : callable
        Minus the log density of θ and its gradient; it reads the buffer.
    candidates : (s, m)
        θ from which the search starts: the best, and those without a better one nearby. Standard deviations come first.
    signed : bool, optional
        As in `collapsed_posterior`.

    Returns
    -------
    mode : (m,)
    root : (m, m)
    modes : (M, m)
    """
    n_sd = int(buffer[6])
    prior = unpack(buffer).sd_prior
    scales = prior[:, -1]
    tops = _climb(negative, candidates)
    mode, root = mode_and_root(negative, tops[0])
    # A gamma prior is zero or infinite at zero, which a signed parameter would have to cross.
    chosen = reaches_zero(negative, mode, n_sd) & (prior[:, 0] == 1.0) if signed is None else np.full(n_sd, signed)
    if np.any(chosen):
        scales[chosen] = np.exp(mode[:n_sd][chosen])
        buffer[7] += float(np.sum(np.log(scales[chosen] / 2.0)))  # ±u share the density of |u|
        start = mode.copy()
        start[:n_sd][chosen] = 1.0
        tops[:, :n_sd][:, chosen] = np.exp(tops[:, :n_sd][:, chosen]) / scales[chosen]
        mode, root = mode_and_root(negative, start)
    return mode, root, _modes(negative, mode, root, tops[1:], np.flatnonzero(chosen))


def everywhere(buffer: FloatArray) -> FloatArray:
    """`starts`, and θ spread evenly over the scales and shapes of D: (s, m)."""
    few = starts(buffer)
    n_sd, m = int(buffer[6]), few.shape[1]
    if n_sd == 0:
        return few
    cube = spread(POINTS * (m - 1), m - 1)
    more = np.empty((len(cube), m))
    more[:, :n_sd] = few[0, :n_sd] - np.log(0.05) + np.log(0.03) + np.log(1000.0) * cube[:, :n_sd]
    more[:, n_sd:-1] = np.arctanh(0.98 * (2.0 * cube[:, n_sd:] - 1.0))
    more[:, -1] = few[0, -1]
    return np.concatenate([few, more])


def _climb(negative: Density, candidates: FloatArray) -> FloatArray:
    """Where quick climbs end from the best candidate and from those without a better one nearby: (s, m), best first."""
    values = np.array([negative(theta)[0] for theta in candidates])
    low, high = candidates.min(axis=0), candidates.max(axis=0)
    chosen = alone((candidates - low) / np.where(high > low, high - low, 1.0), values)[:CLIMBS]
    tops = [minimize(negative, candidates[k], jac=True, method="BFGS", options=QUICK) for k in chosen]
    tops = [t for t in tops if np.isfinite(t.fun)]
    return np.array([t.x for t in sorted(tops, key=lambda t: t.fun)]) if tops else candidates[np.argmin(values)][None]


def _modes(negative: Density, mode: FloatArray, root: FloatArray, tops: FloatArray, signed: IntArray) -> FloatArray:
    """The mode, and the others that starting points lead to: apart from it, and of a density that counts."""
    highest, found = negative(mode)[0], [mode]
    for top in tops:
        if negative(top)[0] > highest + 3.0 * FAINT:
            continue
        at = minimize(negative, top, jac=True, method="BFGS", options={"gtol": 1e-4, "maxiter": 200})
        other = at.x.copy()
        other[signed] = np.abs(other[signed])
        apart = [np.linalg.norm(np.linalg.solve(root, other - own)) > 1.0 for own in found]
        higher = [negative(0.5 * (other + own))[0] > at.fun + BARRIER for own in found]
        if at.fun < highest + FAINT and all(apart) and all(higher):
            found.append(other)
    return np.array(found)


def pack(design: Design, products: CrossProducts, priors: ResolvedPriors) -> FloatArray:
    """Put a model and its cross-products into the vector that `collapsed_kernel` reads, not whitened yet."""
    s, theta = products.scaling.y_scale, random_theta(design, priors)
    coefficients, offset = priors.sigma.closed_form()
    constant = theta.constant + offset + coefficients[0] * np.log(s)
    sigma_prior = np.append(np.array(coefficients) * np.array([1.0, s, s**2, 1.0, s**2]), 0.0)
    head = (theta.size + 1, theta.n_sd, constant, theta.form)
    of_theta = [theta.sd_index, theta.cpc_index.ravel(), theta.alpha.ravel(), theta.sd_prior.ravel(), sigma_prior]
    return _packed(products, head, of_theta, priors.random_uncentering, priors)


def pack_factor(products: CrossProducts, priors: ResolvedPriors | None, uncentering: FloatArray) -> FloatArray:
    """The same with θ the entries of a factor in the user's units and log σ (working units), without their priors.

    It is a factor of the covariance of ``uncentering⁻¹ b``. β has the normal prior of ``priors``; without any it is
    given, in θ before log σ, in working units.
    """
    q, P, _ = products.C.shape
    m = q * q + 1 + (P - 1 if priors is None else 0)
    of_theta = [np.zeros(q), np.full(q * q, -1.0), np.zeros(q * q), np.zeros(N_PRIOR)]
    head = (m, 0, 0.0, FACTOR_AND_BETA if priors is None else FACTOR)
    return _packed(products, head, of_theta, uncentering, priors)


def _packed(
    products: CrossProducts,
    head: tuple[int, int, float, float],
    of_theta: list[FloatArray],
    uncentering: FloatArray,
    priors: ResolvedPriors | None,
) -> FloatArray:
    """The vector from what is said of θ and the prior of β: ``head`` is the size of θ, SDs, a constant and the form."""
    (m, n_sd, constant, form), (q, P, K) = head, products.C.shape
    p, scaling, N = P - 1, products.scaling, products.n_obs
    s = scaling.y_scale
    precision, working_mean = np.zeros((p, p)), np.zeros(p)
    constant += -0.5 * N * np.log(2 * np.pi) - N * np.log(s)
    if p and priors is not None:
        m0, P0 = priors.beta_normal()
        working_mean = scaling.Bx @ (m0 - scaling.shift) / s
        inverse = np.linalg.inv(scaling.Bx) * s
        precision = inverse.T @ P0 @ inverse
        constant += 0.5 * np.linalg.slogdet(precision)[1] - 0.5 * working_mean @ precision @ working_mean
    # D is in the user's units, where the priors are stated, and σ and y in working units.
    of_data = precision, precision @ working_mean, products.S_w, products.weight, products.R, products.C
    of_theta = [np.zeros(m), np.eye(m), *of_theta, scaling.Bz @ uncentering / s]
    flat = np.concatenate([np.zeros(HEADER), *map(np.ravel, (*of_theta, *of_data))])
    flat[:HEADER] = [len(flat), m, q, P, K, N, n_sd, constant, form]
    return flat


def negative_of(density: Density) -> Density:
    """Minus a log density."""

    def function(theta: FloatArray) -> tuple[float, FloatArray]:
        value, gradient = density(theta)
        return -value, -gradient

    return function


def reaches_zero(negative: Density, mode: FloatArray, n_sd: int) -> BoolArray:
    """Which standard deviations (as logarithms) have a density at a twentieth of the mode that still counts."""
    highest, step = -negative(mode)[0], np.log(20.0)
    drops = np.empty(n_sd)
    for k in range(n_sd):
        moved = mode.copy()
        moved[k] -= step
        drops[k] = highest + negative(moved)[0] - step  # the Jacobian of the logarithm is taken back
    return drops < NEAR_ZERO


def starts(buffer: FloatArray) -> FloatArray:
    """A few θ in which every random effect contributes alike to y: (s, m)."""
    m, n_sd = int(buffer[1]), int(buffer[6])
    unit = -np.log(np.abs(np.diag(unpack(buffer).Bz)))[:n_sd]
    found = np.zeros((4 if n_sd else 1, m))
    found[:, :n_sd] = unit + np.log([[0.05], [0.25], [0.5], [1.5]])[: len(found)]
    found[:, -1] = np.log(0.7)
    return found


def mode_and_root(negative: Density, start: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Posterior mode of θ, and a square root of the inverse curvature there."""
    m = len(start)
    best = minimize(negative, start, jac=True, method="BFGS", options={"gtol": 1e-5, "maxiter": 300}).x
    H = np.empty((m, m))
    for j in range(m):
        step = np.zeros(m)
        step[j] = 1e-4
        H[j] = (negative(best + step)[1] - negative(best - step)[1]) / 2e-4
    values, vectors = np.linalg.eigh(0.5 * (H + H.T))
    return best, vectors / np.sqrt(np.maximum(values, 0.05))
