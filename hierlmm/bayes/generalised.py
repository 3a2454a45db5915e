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
from hierlmm.bayes.collapsed_kernel import evaluate
from hierlmm.bayes.generalised_model import GeneralisedModel, generalised_model
from hierlmm.bayes.generalised_whitening import elimination, whiten_others
from hierlmm.bayes.joint_factors import compiled_factors_joint, settled_factors
from hierlmm.bayes.joint_kernel import compiled_joint, factor_of, log_prior, pull_back, settled
from hierlmm.bayes.posterior import Density
from hierlmm.bayes.resolved import ResolvedPriors
from hierlmm.bayes.tree import dims_of, effects_names, model_coords
from hierlmm.design.design import Design, own_effects
from hierlmm.design.factors import own_part
from hierlmm.families.rows import rowwise
from hierlmm.likelihood.generalised import STARTS, fixed_start
from hierlmm.likelihood.generalised_criterion import (
    GeneralisedCriterion,
    free_criterion,
    free_structure,
)
from hierlmm.likelihood.generalised_factors import FactorLaplace, factor_laplace

PIECE = 5_000_000
"""Numbers of the random effects that are worked on at a time."""


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
        data = self.model.data
        return free_criterion(self.model.rows, len(data.sd_index), self.points, len(data.psi_prior))

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
        eta = rows.X @ beta + self._random_line(at, Lambda)
        d = rowwise(rows.family.derivatives, rows.y, rows.n, rows.offset + eta, np.ascontiguousarray(psi), 2)
        w = np.maximum(-d[:, 2], 0.0)
        first, response = rows.start[:-1], w * eta + d[:, 1]
        data.weight[:], data.response[:] = w, response + w * rows.offset
        data.A[:] = np.add.reduceat(w[:, None, None] * data.Z[:, :, None] * data.Z[:, None, :], first)
        precision = data.beta_prior[:, 1] + data.beta_prior[:, 2] * data.beta_prior[:, 3]
        data.P[:] = data.K.T @ (precision[:, None] * data.K)
        self._whiten_fixed(at, Lambda, beta, d[:, 1], response)

    def _random_line(self, at: Any, Lambda: FloatArray) -> FloatArray:
        """Zb of the rows at the mode."""
        rows = self.model.rows
        index = np.repeat(np.arange(len(rows.start) - 1), np.diff(rows.start))
        return np.asarray(np.sum(rows.Z * (at.modes @ Lambda.T)[index], axis=1))

    def _whiten_fixed(
        self, at: Any, Lambda: FloatArray, beta: FloatArray, slope: FloatArray, response: FloatArray
    ) -> None:
        """What takes out how β is correlated with the rest: C, c, P₀ and h₀ of `joint_kernel`."""
        data, rows, first = self.model.data, self.model.rows, self.model.rows.start[:-1]
        w, prior = data.weight, data.beta_prior
        data.C[:] = np.add.reduceat(w[:, None, None] * rows.Z[:, :, None] * rows.X[:, None, :], first)
        data.c[:] = np.add.reduceat(rows.Z * response[:, None], first)
        data.P[:] += rows.X.T @ (w[:, None] * rows.X)
        data.h[:] = rows.X.T @ response + data.K.T @ ((prior[:, 1] + prior[:, 2] * prior[:, 3]) * prior[:, 0])


@dataclass(frozen=True, eq=False)
class FactorMarginal(Marginal):
    """The same of several grouping factors, by Laplace's method."""

    @cached_property
    def criterion(self) -> FactorLaplace:
        """See `Marginal`."""
        found = factor_laplace(self.model.design, self.model.rows)
        return replace(found, structure=free_structure(len(self.model.data.sd_index)))

    def _random_line(self, at: Any, Lambda: FloatArray) -> FloatArray:
        return np.asarray(self.criterion.grouped.Z @ at.mean)

    def _whiten_fixed(
        self, at: Any, Lambda: FloatArray, beta: FloatArray, slope: FloatArray, response: FloatArray
    ) -> None:
        """The matrix of `joint_factors`, and the triangles of the other factors."""
        modes = dict(self.criterion.grouped.parts(at.mean[:, None]))
        whiten_others(self.model.design, self.model.data, Lambda, beta, modes, slope)


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
        return self.model.n_phi + self.model.n_others + self.model.data.c.size

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
        n, ahead = k - p, k + self.model.n_others
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
    if design.has_several_factors:
        FactorMarginal(model).settle()
        return FactorJointPosterior(model)
    Marginal(model).settle()
    return JointPosterior(model)
