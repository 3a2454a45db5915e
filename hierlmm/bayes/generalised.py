"""The posterior of a generalised two-level model for NUTS: where it lies by Laplace's method, and the density itself.

`Marginal` is the density of φ = (θ, ψ, β) with the random effects integrated out by Laplace's method: its mode and
curvature centre and scale what is sampled, and ``sampler="laplace"`` samples it. `JointPosterior` is the exact density
of φ and the random effects, `joint_kernel`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from scipy.optimize import minimize

from hierlmm.arrays import FloatArray, as_rows
from hierlmm.bayes.collapsed import QUICK, mode_and_root, reaches_zero
from hierlmm.bayes.collapsed_kernel import N_PRIOR, evaluate
from hierlmm.bayes.distribution import Prior
from hierlmm.bayes.distributions import Normal, StudentT
from hierlmm.bayes.generalised_whitening import elimination, rows_and_others, whiten_others
from hierlmm.bayes.joint_factors import compiled_factors_joint, settled_factors
from hierlmm.bayes.joint_kernel import HEADER, Joint, compiled_joint, factor_of, log_prior, pull_back, settled, unpack
from hierlmm.bayes.posterior import Density
from hierlmm.bayes.random_theta import random_theta, theta_names
from hierlmm.bayes.resolved import ResolvedPriors
from hierlmm.bayes.tree import dims_of, effects_names, model_coords
from hierlmm.design.design import Design, own_effects
from hierlmm.design.factors import own_part
from hierlmm.families.rows import rowwise
from hierlmm.likelihood.generalised import STARTS, fixed_start
from hierlmm.likelihood.generalised_criterion import (
    GeneralisedCriterion,
    GeneralisedRows,
    free_criterion,
    free_structure,
)
from hierlmm.likelihood.generalised_factors import JointMode, factor_laplace

PIECE = 5_000_000
"""Numbers of the random effects that are worked on at a time."""


def why_not_compiled(priors: ResolvedPriors) -> str | None:
    """Say why the compiled posterior has not a generalised model's priors, or return None if it has."""
    for prior in priors.beta:
        if not isinstance(prior, (Normal, StudentT)):
            return f"the prior {prior} of a fixed effect is neither normal nor Student's t"
    for prior in (*priors.sd_b, *priors.dispersion):
        if prior.closed_form() is None:
            return f"the prior {prior} is outside the closed-form set"
    return None


@dataclass(frozen=True, eq=False)
class GeneralisedModel:
    """A generalised model with its priors, as both densities read it.

    Attributes
    ----------
    design : Design
    priors : ResolvedPriors
    rows : GeneralisedRows
    buffer : (n,)
        What `joint_kernel` reads.
    derivatives : callable
        The family's compiled function, whose address is in the buffer: it must not go before that.
    """

    design: Design
    priors: ResolvedPriors
    rows: GeneralisedRows
    buffer: FloatArray
    derivatives: Any

    @cached_property
    def data(self) -> Joint:
        """Views into the buffer."""
        return unpack(self.buffer)

    @property
    def size(self) -> int:
        """Number of covariance parameters θ."""
        return int(self.buffer[6])

    @property
    def n_phi(self) -> int:
        """Number of parameters φ."""
        return len(self.data.centre)

    @property
    def names(self) -> tuple[str, ...]:
        """Scale and parameter of each number of φ."""
        theta = random_theta(self.design, self.priors)
        signed = list(np.flatnonzero(self.data.sd_prior[:, -1]))
        own = [f"working {c}" for c in self.design.coef]
        return (*theta_names(self.design, signed, theta), *(f"log {d}" for d in self.priors.dispersion_names), *own)

    def parts(self, phi: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """θ, β in working columns and ψ of φ = (θ, ψ, β), (..., k)."""
        ends = self.size, self.size + len(self.data.psi_prior)
        return phi[..., : ends[0]], phi[..., ends[1] :], phi[..., ends[0] : ends[1]]

    def natural(self, phi: FloatArray) -> dict[str, FloatArray]:
        """Draws (S, ...) of β, SDs, correlations, D and dispersion in the user's units, from φ (S, k)."""
        theta, beta, psi = self.parts(phi)
        packed = self.data
        random = random_theta(self.design, self.priors)
        random.sd_prior[:] = packed.sd_prior  # with what is signed
        sd, factor = random.natural(theta)
        corr = factor @ np.swapaxes(factor, 1, 2)
        diagonal = np.arange(corr.shape[1])
        corr[:, diagonal, diagonal] = 1.0
        found = {"sd_b": sd, "corr_b": corr, "D": corr * sd[:, :, None] * sd[:, None, :]}
        if self.design.coef:
            found["beta"] = self.rows.scaling.beta(beta)
        family = self.design.family
        return found | {k.replace(" ", "_"): v for k, v in dispersion_of(family, psi).items()}


def dispersion_of(family: Any, psi: FloatArray) -> dict[str, FloatArray]:
    """Dispersion parameters by name, (S,), from ψ (S, m)."""
    if not psi.shape[1]:
        return {}
    rows = [family.natural(own) for own in psi]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def generalised_model(design: Design, priors: ResolvedPriors) -> GeneralisedModel:
    """Pack a model; φ is neither centred nor scaled yet."""
    rows, own, others, n_others = rows_and_others(design)
    theta, p, m = random_theta(design, priors), len(design.coef), len(priors.dispersion)
    scaling, Z, (N, width), J = rows.scaling, rows.Z[:, own], rows.Z.shape, len(rows.start) - 1
    q = Z.shape[1]
    k, constant = theta.size + p + m, theta.constant + float(np.sum(rows.constant))
    beta_prior, psi_prior = np.zeros((p, 4)), np.zeros((m, N_PRIOR))
    for i, prior in enumerate(priors.beta):
        beta_prior[i] = _form_of(prior)
        constant += float(prior.logpdf(beta_prior[i, 0]))
    beta_prior[:, 0] -= priors.centering @ scaling.shift  # working coefficients are differences from it
    for i, prior in enumerate(priors.dispersion):
        psi_prior[i, :-1], offset = prior.closed_form()  # type: ignore[misc]
        constant += offset
    K = priors.centering @ np.linalg.inv(scaling.Bx) if p else np.zeros((0, 0))
    Bz = scaling.Bz @ priors.random_uncentering
    of_theta = theta.sd_index, theta.cpc_index, theta.alpha, theta.sd_prior
    of_rows = rows.start, rows.y, rows.n, rows.offset, rows.X, Z
    working = *map(np.zeros, ((J, q, q), (J, q, p), (J, q), (p, p), p, N, N)), others
    parts = (np.zeros(HEADER), np.zeros(k), np.eye(k), *of_theta, Bz, K, beta_prior, psi_prior, *of_rows, *working)
    buffer = np.concatenate([np.ravel(part).astype(np.float64) for part in parts])
    derivatives = design.family.derivatives
    sizes = len(buffer), N, J, width, p, m, theta.size, theta.n_sd
    buffer[:HEADER] = [*sizes, theta.form, constant, float(derivatives.address), q, n_others]
    return GeneralisedModel(design, priors, rows, buffer, derivatives)


def _form_of(prior: Prior) -> tuple[float, float, float, float]:
    if isinstance(prior, StudentT):
        return prior.mean, 0.0, prior.nu + 1.0, 1.0 / (prior.nu * prior.scale**2)
    assert isinstance(prior, Normal)
    return prior.mean, prior.sd**-2.0, 0.0, 0.0


@dataclass(frozen=True, eq=False)
class Marginal:
    """The density of φ with the random effects integrated out by Laplace's method, or by quadrature.

    Attributes
    ----------
    model : GeneralisedModel
    points : int
        Quadrature points in each dimension; 1 is Laplace's method.
    """

    model: GeneralisedModel
    points: int = 1

    @cached_property
    def criterion(self) -> GeneralisedCriterion:
        """The likelihood as a function of all entries of Λ, β and ψ."""
        design, q = self.model.design, len(self.model.data.sd_index)
        if design.has_several_factors:
            return replace(factor_laplace(design, self.model.rows), structure=free_structure(q))
        return free_criterion(self.model.rows, q, self.points, len(self.model.data.psi_prior))

    def integrated(self, phi: FloatArray) -> tuple[Any, tuple[FloatArray, ...]]:
        """What the kernel says at φ (k,), and Λ with what it is made of."""
        data, q = self.model.data, len(self.model.data.sd_index)
        theta, beta, psi = self.model.parts(phi)
        made = np.empty(q), np.empty((q, q)), np.empty((q, q)), np.empty((q, q))
        factor_of(np.ascontiguousarray(theta), self.model.buffer[8], data, *made)
        return self.criterion.at(np.concatenate([made[3].ravel(), beta, psi])), made

    def log_density(self, phi: FloatArray) -> tuple[float, FloatArray]:
        """Log density of φ and its gradient."""
        phi = np.ascontiguousarray(phi)
        model, data, gradient = self.model, self.model.data, np.zeros(len(phi))
        with np.errstate(all="ignore"):
            at, (sd, LR, LD, _) = self.integrated(phi)
        if not (at.found and np.all(np.isfinite(at.value))):
            return -np.inf, gradient
        size, m = model.size, len(data.psi_prior)
        value = model.buffer[9] + float(np.sum(at.value))
        value += log_prior(phi, size, data.beta_prior, data.K, data.sd_prior, data.psi_prior, gradient)
        gradient[size : size + m] += at.in_psi
        gradient[size + m :] += model.rows.X.T @ at.e
        theta = np.ascontiguousarray(phi[:size])
        value += pull_back(theta, model.buffer[8], data, sd, LR, LD, np.ascontiguousarray(at.in_Lambda), gradient)
        return (value, gradient) if np.isfinite(value) else (-np.inf, np.zeros(len(phi)))

    def negative(self, phi: FloatArray) -> tuple[float, FloatArray]:
        """Minus the log density, a large number outside its support."""
        value, gradient = self.log_density(phi)
        return (-value, -gradient) if np.isfinite(value) else (1e300, np.zeros(len(phi)))

    def start(self) -> FloatArray:
        """The best of a few φ from which the mode is climbed to."""
        model, data = self.model, self.model.data
        beta, psi = fixed_start(model.rows)
        q, n_sd = len(data.sd_index), int(model.buffer[7])
        size = 1.0 / np.sqrt(np.maximum(np.sum(data.Bz[:, :q] ** 2, axis=0), 1e-300))[:n_sd]
        tries = []
        for share in STARTS:
            theta = np.zeros(model.size)
            theta[:n_sd] = np.log(share * size)
            tries.append(np.concatenate([theta, psi, beta]))
        return min(tries, key=lambda phi: self.negative(phi)[0])

    def settle(self) -> None:
        """Find the mode; decide which SDs are signed; centre, scale and whiten the model's buffer by what is there."""
        model, data = self.model, self.model.data
        n_sd, prior = int(model.buffer[7]), data.sd_prior
        start = minimize(self.negative, self.start(), jac=True, method="BFGS", options=QUICK).x
        mode, root = mode_and_root(self.negative, start)
        chosen = reaches_zero(self.negative, mode, n_sd) & (prior[:, 0] == 1.0)
        if np.any(chosen):
            prior[chosen, -1] = np.exp(mode[:n_sd][chosen])
            model.buffer[9] += float(np.sum(np.log(prior[chosen, -1] / 2.0)))  # ±u share the density of |u|
            start = mode.copy()
            start[:n_sd][chosen] = 1.0
            mode, root = mode_and_root(self.negative, start)
        data.centre[:], data.root[:] = mode, np.linalg.cholesky(root @ root.T)  # its corner is that of (θ, ψ) alone
        self._whiten(mode)

    def _whiten(self, mode: FloatArray) -> None:
        """Working weights and responses at the mode, and what `joint_kernel` makes of them."""
        data, rows = self.model.data, self.model.rows
        at, (*_, Lambda) = self.integrated(mode)
        _, beta, psi = self.model.parts(mode)
        several = isinstance(at, JointMode)
        if several:
            eta = rows.X @ beta + self.criterion.grouped.Z @ at.mean  # type: ignore[attr-defined]
        else:
            index = np.repeat(np.arange(len(rows.start) - 1), np.diff(rows.start))
            eta = rows.X @ beta + np.sum(rows.Z * (at.modes @ Lambda.T)[index], axis=1)
        d = rowwise(rows.family.derivatives, rows.y, rows.n, rows.offset + eta, np.ascontiguousarray(psi), 2)
        w = np.maximum(-d[:, 2], 0.0)
        first, response = rows.start[:-1], w * eta + d[:, 1]
        data.weight[:], data.response[:] = w, response + w * rows.offset
        data.A[:] = np.add.reduceat(w[:, None, None] * data.Z[:, :, None] * data.Z[:, None, :], first)
        precision = data.beta_prior[:, 1] + data.beta_prior[:, 2] * data.beta_prior[:, 3]
        data.P[:] = data.K.T @ (precision[:, None] * data.K)
        if several:
            modes = dict(self.criterion.grouped.parts(at.mean[:, None]))  # type: ignore[attr-defined]
            whiten_others(self.model.design, data, Lambda, beta, modes, d[:, 1])
            return
        data.C[:] = np.add.reduceat(w[:, None, None] * rows.Z[:, :, None] * rows.X[:, None, :], first)
        data.c[:] = np.add.reduceat(rows.Z * response[:, None], first)
        data.P[:] += rows.X.T @ (w[:, None] * rows.X)
        data.h[:] = rows.X.T @ response + data.K.T @ (precision * data.beta_prior[:, 0])


@dataclass(frozen=True, eq=False)
class JointPosterior:
    """The exact density of φ and the random effects, in whitened coordinates: a `Posterior`.

    Attributes
    ----------
    model : GeneralisedModel
        Centred, scaled and whitened.
    """

    model: GeneralisedModel

    @property
    def design(self) -> Design:
        """What was measured."""
        return self.model.design

    @property
    def dimension(self) -> int:
        """Number of coordinates: φ, and what stands for the random effects."""
        return self.model.n_phi + int(self.model.buffer[12]) + self.model.data.c.size

    @property
    def names(self) -> tuple[str, ...]:
        """What is sampled, in order."""
        design = self.design
        return (*self.model.names, *(f"b[{s}, {t}]" for s in design.subjects for t in design.term))

    def log_density(self, theta: FloatArray) -> tuple[float, FloatArray]:
        """Log density (of whitened coordinates, but for log|root|) and its gradient."""
        function, numbers = self.compiled()
        return evaluate(theta, numbers, function)

    def compiled(self) -> tuple[Any, FloatArray]:
        """C function of whitened coordinates and the numbers that it reads."""
        return compiled_joint(self.model.data.c.shape[1]), self.model.buffer

    def evaluator(self) -> Density:
        """The same as a Python function."""
        return self.log_density

    def settled(self, z: FloatArray, *, effects: bool = True) -> tuple[FloatArray, FloatArray]:
        """Parameters φ (S, k) and random effects (S, J, q) in the user's columns, of whitened coordinates (S, n)."""
        model, data = self.model, self.model.data
        J, q, n, k = *data.c.shape, len(data.K), model.n_phi
        free = data.centre[: k - n] + z[:, : k - n] @ data.root[: k - n, : k - n].T
        v = z[:, k:].reshape(len(z), J, q)[:, : J if effects else 0]
        beta, b = np.empty((len(z), n)), np.empty(v.shape)
        w, v = np.ascontiguousarray(z[:, k - n : k]), np.ascontiguousarray(v)
        settled(np.ascontiguousarray(free), w, v, data, model.buffer[8], beta, b)
        phi = np.concatenate([free, beta], axis=1)
        return phi, np.linalg.solve(model.rows.scaling.Bz, b.reshape(-1, q).T).T.reshape(b.shape)

    def recover(
        self, draws: FloatArray, rng: np.random.Generator, random_effects: str
    ) -> tuple[dict[str, FloatArray], dict[str, Any]]:
        """See `Posterior.recover`; draws (chain, draw, n) are whitened coordinates, and nothing is left to chance."""
        phi = self.settled(as_rows(draws), effects=False)[0]
        return recovered(self.model, draws, phi, self.effects, random_effects)

    def effects(self, z: FloatArray) -> dict[str, FloatArray]:
        """Random effects (S, J, q) by variable, of whitened coordinates (S, n)."""
        return {"b": own_effects(self.design, self.settled(z)[1])}


@dataclass(frozen=True, eq=False)
class FactorJointPosterior(JointPosterior):
    """The same of several grouping factors (`joint_factors`)."""

    @property
    def names(self) -> tuple[str, ...]:
        """What is sampled, in order."""
        design, found = self.design, list(self.model.names)
        for k in elimination(design)[::-1]:
            own = design.random[k]
            found += [f"b_{own.columns.group}[{g}, {t}]" for g in own.group.labels for t in own.columns.names]
        return tuple(found)

    def compiled(self) -> tuple[Any, FloatArray]:
        """C function of whitened coordinates and the numbers that it reads."""
        return compiled_factors_joint(self.model.data.c.shape[1]), self.model.buffer

    def settled(self, z: FloatArray, *, effects: bool = True) -> tuple[FloatArray, FloatArray]:
        """Parameters φ (S, k), and the random effects in working columns as they are sampled, (S, T), of z (S, n)."""
        data, k, p = self.model.data, self.model.n_phi, len(self.model.data.K)
        n, ahead = k - p, k + int(self.model.buffer[12])
        free = data.centre[:n] + z[:, :n] @ data.root[:n, :n].T
        beta, b = np.empty((len(z), p)), np.empty((len(z), self.dimension - k if effects else 0))
        w, v = np.ascontiguousarray(z[:, n:ahead]), np.ascontiguousarray(z[:, ahead:])
        settled_factors(np.ascontiguousarray(free), w, v, data, self.model.buffer[8], beta, b)
        return np.concatenate([free, beta], axis=1), b

    def effects(self, z: FloatArray) -> dict[str, FloatArray]:
        """Random effects (S, J, q) by variable, in the user's units."""
        b, at, found = self.settled(z)[1], 0, dict[str, FloatArray]()
        for k in elimination(self.design)[::-1]:
            J, q = len(self.design.random[k].group.labels), self.design.random[k].Z.shape[1]
            own = np.linalg.inv(self.model.rows.scaling.Bz[own_part(self.design, k)])
            found[effects_names(self.design)[k]] = b[:, at : at + J * q].reshape(-1, J, q) @ own.T
            at += J * q
        return found


def recovered(
    model: GeneralisedModel,
    draws: FloatArray,
    phi: FloatArray,
    effects: Callable[[FloatArray], dict[str, FloatArray]],
    random_effects: str,
) -> tuple[dict[str, FloatArray], dict[str, Any]]:
    """What `Posterior.recover` returns.

    Parameters
    ----------
    model : GeneralisedModel
    draws : (chain, draw, n)
        Of the sampled coordinates.
    phi : (S, k)
        Their parameters.
    effects : callable
        From some of the draws (s, n) to random effects (s, J, q) by variable.
    random_effects : str
        What is kept of them.
    """
    flat, found, groups = as_rows(draws), model.natural(phi), dict[str, Any]()
    step = max(1, PIECE // max(model.data.c.size, 1))
    pieces = (effects(flat[lo : lo + step]) for lo in range(0, len(flat), step))
    if random_effects == "draws":
        every = list(pieces)
        found |= {name: np.concatenate([piece[name] for piece in every]) for name in every[0]}
    elif random_effects == "summary":
        groups["random_effects"] = summary_of(model.design, pieces, len(flat))
    return {name: values.reshape(*draws.shape[:2], *values.shape[1:]) for name, values in found.items()}, groups


def summary_of(design: Design, pieces: Iterable[dict[str, FloatArray]], size: int) -> Any:
    """Mean and SD of draws of the random effects that come piece by piece, (s, J, q), as a group of the tree."""
    import xarray as xr

    moments, coords = dict[str, list[FloatArray]](), model_coords(design)
    for piece in pieces:
        for name, b in piece.items():
            shift, total, square = moments.setdefault(name, [b[0], np.zeros(b[0].shape), np.zeros(b[0].shape)])
            total += (b - shift).sum(axis=0)
            square += ((b - shift) ** 2).sum(axis=0)
    parts = dict[str, Any]()
    for name, (shift, total, square) in moments.items():
        mean, dims = total / size, dims_of(design, name)
        sd = np.sqrt(np.maximum(square / size - mean**2, 0.0) * size / max(size - 1, 1))
        parts |= {f"mean{name[1:]}": (dims, shift + mean), f"sd{name[1:]}": (dims, sd)}
    used = {dim for dims, _ in parts.values() for dim in dims}
    return xr.Dataset(parts, coords={dim: coords[dim] for dim in used})


def joint_posterior(design: Design, priors: ResolvedPriors) -> JointPosterior:
    """The posterior of a design and its priors, ready to be sampled."""
    model = generalised_model(design, priors)
    Marginal(model).settle()
    return (FactorJointPosterior if design.has_several_factors else JointPosterior)(model)
