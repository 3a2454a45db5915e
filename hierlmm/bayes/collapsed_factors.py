"""The collapsed posterior of several grouping factors: β and the random effects of all factors integrated out.

θ is that of two levels, the standard deviations and partial correlations of one factor after the other and log σ, with
the same density (`collapsed_kernel`); the sums at one Λ come from elimination (`factor_kernel`, or where the dense rest
is large `FactorProducts` with a library for matrices). Given θ, β is drawn as in `recover`, and the random effects of
all factors jointly on the way back from the last group to be eliminated to the first,

    b_g | later ones, y ~ N(K K'(c_g − C_gN b_N), σ² K K'),      K = ΛL⁻ᵀ,  LL' = I + Λ'C_gg Λ.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.bayes.collapsed import everywhere, find_mode, negative_of, pack
from hierlmm.bayes.collapsed_kernel import HEADER, PARTIALS, evaluate, factor_of_theta, unpack
from hierlmm.bayes.factor_draws import drawn_effects
from hierlmm.bayes.factor_kernel import (
    LARGEST,
    compiled_factors,
    density_of_sums,
    room_for_sums,
)
from hierlmm.bayes.posterior import Collapsed, Conditional, Density, Natural
from hierlmm.bayes.recover import recover_beta
from hierlmm.bayes.resolved import ResolvedPriors
from hierlmm.bayes.tree import effects_names, factor_dims, model_coords
from hierlmm.covariance.partial import partials_of_correlation
from hierlmm.design.design import Design
from hierlmm.likelihood.estimate import maximise_design
from hierlmm.likelihood.forest_rest import one_thread
from hierlmm.likelihood.forest_sums import squares_of_draws
from hierlmm.likelihood.several_factors import FactorProducts, factor_products
from hierlmm.threads import in_threads


class FactorPosterior(Collapsed):
    """The posterior of θ of several grouping factors."""

    products: FactorProducts  # type: ignore[assignment]

    @property
    def is_compiled(self) -> bool:
        """Whether the density is one compiled function, or Python with a library for the matrices of the rest."""
        return self.products.rest_is_small

    def compiled(self) -> tuple[Any, FloatArray] | None:
        """See `Collapsed.compiled`."""
        return (compiled_factors(), self.buffer) if self.is_compiled else None

    def evaluator(self) -> Density:
        """See `Collapsed.evaluator`."""
        return density_of(self.products, self.buffer.copy())

    def squares(self, Lambda: FloatArray) -> FloatArray:
        """See `Collapsed.squares`."""
        data, P = self.products, self.products.n_fixed + 1
        found = np.empty((len(Lambda), P, P))

        def sums(lo: int, hi: int) -> None:
            if self.is_compiled:
                squares_of_draws(data.packed, Lambda[lo:hi], found[lo:hi])
                return
            for s in range(lo, hi):
                found[s] = data._gather(Lambda[s]).sums.G

        with one_thread():
            in_threads(len(Lambda), sums)
        return found

    def conditional(
        self, theta: FloatArray, rng: np.random.Generator, random_effects: str, few: Any = slice(None)
    ) -> Conditional:
        """See `Collapsed.conditional`; draws of b are by variable, their mean and SD those of all effects."""
        natural = recover_beta(self, theta, rng)
        b = self._draws(natural.at(few), rng) if random_effects == "draws" else None
        summary = self._moments(natural) if random_effects == "summary" else None
        return Conditional(natural, b, summary, np.empty((len(theta), 0)), {})

    def _draws(self, natural: Natural, rng: np.random.Generator) -> dict[str, FloatArray]:
        """Draws of the random effects by variable, (S, J, q)."""
        Lambda, _, sigma = self.relative(natural.sd, natural.corr_factor, natural.sigma)
        gamma = np.column_stack([-natural.beta_working, np.ones(len(sigma))])
        found = drawn_effects(self.products, Lambda, gamma, sigma, rng)
        return dict(zip(effects_names(self.design), found, strict=True))

    def _moments(self, natural: Natural) -> Any:
        """Posterior mean and SD of all effects by factor, (J, q) each, averaged over β analytically and over θ."""
        data, scaling = self.products, self.products.scaling
        Lambda, _, sigma = self.relative(natural.sd, natural.corr_factor, natural.sigma)
        first = [np.zeros((J, q)) for J, q in zip(data.n_groups, data.sizes, strict=True)]
        second = [np.zeros_like(own) for own in first]
        with one_thread():
            for s, own in enumerate(Lambda):
                found = data._gather(own)
                for k, part in data.parts(found.mean):
                    back = np.linalg.inv(data.block(scaling.Bz, k)) * scaling.y_scale
                    line = back @ part
                    mean = line[..., -1] - line[..., :-1] @ natural.mean_working[s]
                    variance = np.einsum("ab,jbc,ac->ja", back, found.own[k], back) * sigma[s] ** 2
                    variance += np.einsum(
                        "jap,pr,jar->ja", line[..., :-1], natural.covariance_working[s], line[..., :-1]
                    )
                    first[k] += mean / len(Lambda)
                    second[k] += (mean**2 + variance) / len(Lambda)
        return [(m, np.sqrt(np.maximum(v - m**2, 0.0))) for m, v in zip(first, second, strict=True)]

    def _summaries(self, summary: Any) -> Any:
        """See `Collapsed._summaries`: ``mean_batch`` and ``sd_batch`` of every factor."""
        import xarray as xr

        coords, found = model_coords(self.design), dict[str, Any]()
        for name, dims, own in zip(effects_names(self.design), factor_dims(self.design), summary, strict=True):
            found |= {f"{what}{name[1:]}": (dims, part) for what, part in zip(("mean", "sd"), own, strict=True)}
        used = {dim for dims, _ in found.values() for dim in dims}
        return xr.Dataset(found, coords={dim: coords[dim] for dim in used})

    def log_density(self, theta: FloatArray) -> tuple[float, FloatArray]:
        """Normalised log density log p(y, θ) and its gradient at θ."""
        value, gradient = self.evaluator()(np.linalg.solve(self.root, theta - self.mode))
        return value, np.linalg.solve(self.root.T, gradient)


def density_of(products: FactorProducts, buffer: FloatArray) -> Density:
    """Log density and gradient in whitened coordinates; the buffer is read at every call, and work space."""
    if products.rest_is_small:
        function = compiled_factors()
        return lambda z: evaluate(z, buffer, function)
    m, q, P = int(buffer[1]), int(buffer[2]), int(buffer[3])
    packed, gradient, Gamma, Lambda = unpack(buffer), np.empty(m), np.empty((P, P)), np.empty((q, q))

    def density(z: FloatArray) -> tuple[float, FloatArray]:
        theta = packed.centre + packed.root @ z
        sd, LR, L = np.empty(q), np.empty((q, q)), np.empty((q, q))
        scales = packed.sd_prior[:, 5]
        factor_of_theta(theta, PARTIALS, packed.sd_index, packed.cpc_index, scales, sd, LR, L)
        relative = packed.Bz @ L / np.exp(theta[-1])
        if not np.all(np.abs(relative) < LARGEST):
            return -np.inf, np.zeros(m)
        sums = products._gather(relative).sums
        packed.others[:] = np.concatenate([[sums.log_det_T], *(np.ravel(a) for a in (sums.G, sums.EE, sums.U))])
        value = density_of_sums(theta, gradient, buffer, Gamma, Lambda)
        found = packed.root.T @ gradient
        return (float(value), found) if np.isfinite(value) and np.all(np.isfinite(found)) else (-np.inf, np.zeros(m))

    return density


def evaluation_seconds(design: Design) -> float:
    """How long one evaluation takes: the shorter of two, the first of which may compile."""
    data, taken = factor_products(design), []
    Lambda = np.eye(data.at[-1])
    with one_thread():
        for _ in range(2):
            start = time.perf_counter()
            data._gather(Lambda)
            taken.append(time.perf_counter() - start)
    return min(taken)


def factor_posterior(design: Design, priors: ResolvedPriors, *, signed: bool | None = None) -> FactorPosterior:
    """Pack the model, and find the mode of θ and the curvature there.

    Parameters
    ----------
    design, priors
        The model.
    signed : bool, optional
        As in `collapsed_posterior`.
    """
    products = factor_products(design)
    small = products.rest_is_small
    head = pack(design, products, priors)  # type: ignore[arg-type]
    buffer = np.concatenate([head, products.packed if small else room_for_sums(products)])
    buffer[0] = len(buffer)
    negative = negative_of(density_of(products, buffer))
    with one_thread():
        candidates = everywhere(buffer) if products.is_small else _estimate(design, priors, buffer)
        mode, root, modes = find_mode(buffer, negative, candidates, signed)
    m = len(mode)
    buffer[HEADER : HEADER + m] = mode
    buffer[HEADER + m : HEADER + m + m * m] = root.ravel()
    return FactorPosterior(design, products, buffer, mode, root, modes, priors.random_uncentering)  # type: ignore[arg-type]


def _estimate(design: Design, priors: ResolvedPriors, buffer: FloatArray) -> FloatArray:
    """θ of the REML estimate, (1, m): where evaluations are dear, nothing else is tried."""
    found, packed = maximise_design(design, reml=True).solution, unpack(buffer)
    A = priors.random_centering
    D = A @ found.D @ A.T
    sd = np.sqrt(np.diag(D))
    low = 1e-2 * found.sigma / np.sqrt(np.mean(design.Z**2, axis=0))
    theta = np.zeros(int(buffer[1]))
    theta[: len(sd)] = np.log(np.maximum(sd, low))
    theta[-1] = np.log(found.whitened_sd / found.criterion.scaling.y_scale)
    safe = np.maximum(sd, low)
    corr = 0.95 * D / np.outer(safe, safe)
    np.fill_diagonal(corr, 1.0)
    rows, cols = np.nonzero(packed.cpc_index >= 0)
    theta[packed.cpc_index[rows, cols].astype(int)] = np.arctanh(partials_of_correlation(corr)[rows, cols])
    return theta[None]
