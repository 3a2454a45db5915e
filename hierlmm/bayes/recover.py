"""β and b after θ was sampled: exact draws from their conditional distributions, and Rao-Blackwell summaries.

    β | y, θ ~ N(β̂, H⁻¹),     b_i | y, β, θ ~ N(V M_i⁻ᵀ M_i⁻¹ F_i'(C_i,y - C_i,x β), σ² V M_i⁻ᵀ M_i⁻¹ V')

in working columns, with F_i = R_i Λ, M_i M_i' = I + F_i'F_i and V = B_z⁻¹ Λ. One (β, b) per draw of θ makes the joint
draws exact. Where J times the number of draws is large, the posterior mean and SD of b are averaged over the draws
analytically instead (Rao-Blackwell): E b = E[E(b | θ)], Var b = E[Var(b | θ)] + Var[E(b | θ)].

`recover_residual` does the same where (θ, η) was sampled, with the rows whitened anew for every draw of η:

    β | y, θ, η ~ N(H⁻¹h, H⁻¹),     H = Q_xx + P,  h = Q_xy + P m,     Q from the rows whitened by Σ_i(η)

The whitened rows have the SD σ exp(shift(η)); σ is that where the variance ratio is 1.
"""

from __future__ import annotations

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.bayes.collapsed_kernel import unpack
from hierlmm.bayes.moments import add_moments, averaged, subject_factor
from hierlmm.bayes.posterior import Collapsed, Natural
from hierlmm.compiled import compiled
from hierlmm.errors import DataError
from hierlmm.likelihood.kernel import pattern_sums
from hierlmm.likelihood.residual_rows import ResidualRows, Whitened
from hierlmm.threads import in_threads

FEW = 400_000
"""Number of values of b up to which numpy draws them."""


def recover_beta(posterior: Collapsed, theta: FloatArray, rng: np.random.Generator) -> Natural:
    """Draw β given each θ.

    Parameters
    ----------
    posterior : Collapsed
    theta : (S, m)
    """
    products, p = posterior.products, posterior.products.n_fixed
    S = len(theta)
    sd, factor, sigma = posterior.natural(theta)
    given = posterior.given_beta(theta)
    if given is not None:
        return Natural(products.scaling.beta(given), sd, factor, sigma, given, given, np.zeros((S, p, p)))
    Q = products.S_w + posterior.squares(posterior.relative(sd, factor, sigma)[0])
    Q *= ((products.scaling.y_scale / sigma) ** 2)[:, None, None]
    packed, scaling = unpack(posterior.buffer), products.scaling
    covariance = np.linalg.inv(Q[:, :p, :p] + packed.prior_precision)
    mean = np.einsum("sab,sb->sa", covariance, Q[:, :p, p] + packed.prior_shift)
    noise = rng.standard_normal((S, p))
    working = mean + np.einsum("sab,sb->sa", np.linalg.cholesky(covariance), noise)
    beta = scaling.beta(working) if p else working
    return Natural(beta, sd, factor, sigma, working, mean, covariance)


# Branches: loops over the rows and columns of small matrices, which numba turns into plain code without allocation.
@compiled()
def _draw_b(R, C, Lambda, V, beta, sigma, noise, out, lo, hi) -> None:  # type: ignore[no-untyped-def]
    J, q = out.shape[1], out.shape[2]
    p = C.shape[2] - 1
    F, M, x = np.empty((q, q)), np.zeros((q, q)), np.empty(q)
    for s in range(lo, hi):
        for j in range(J):
            subject_factor(R[j], Lambda[s], F, M)
            for i in range(q):
                x[i] = 0.0
            for k in range(q):  # x = F'(C_y - C_x β)
                r = C[j, k, p]
                for a in range(p):
                    r -= C[j, k, a] * beta[s, a]
                for i in range(q):
                    x[i] += F[k, i] * r
            for i in range(q):  # x = M⁻¹ x + σ ε
                for k in range(i):
                    x[i] -= M[i, k] * x[k]
                x[i] /= M[i, i]
            for i in range(q):
                x[i] += sigma[s] * noise[s - lo, j, i]
            for i in range(q - 1, -1, -1):  # x = M⁻ᵀ x
                for k in range(i + 1, q):
                    x[i] -= M[k, i] * x[k]
                x[i] /= M[i, i]
            for i in range(q):
                total = 0.0
                for k in range(q):
                    total += V[s, i, k] * x[k]
                out[s, j, i] = total


def draw_random_effects(posterior: Collapsed, natural: Natural, rng: np.random.Generator) -> FloatArray:
    """Draw b given each (β, θ): (S, J, q), in the user's units.

    Few draws are made by numpy, many by the compiled loop: the first fit on a machine then waits a second less.
    """
    products = posterior.products
    S, (J, q, _) = len(natural.sigma), products.subject_R.shape
    Lambda, V, sigma = posterior.relative(natural.sd, natural.corr_factor, natural.sigma)
    data = (products.subject_R, products.subject_C, Lambda, V, natural.beta_working, sigma)
    example = np.unique(products.pattern, return_index=True)[1]
    step = max(1, 2_000_000 // max(1, J * q))  # keeps the noise of one piece below 16 MB
    streams = rng.spawn(-(-S // step))
    out = np.empty((S, J, q))

    def pieces(first: int, last: int) -> None:
        for k in range(first, last):
            lo, hi = k * step, min(S, (k + 1) * step)
            noise = streams[k].standard_normal((hi - lo, J, q))
            if S * J * q <= FEW:
                out[:] = _draw_b_numpy(products.subject_R[example], *data[1:], noise, products.pattern)
            else:
                _draw_b(*data, noise, out, lo, hi)

    in_threads(len(streams), pieces)
    return out


def _draw_b_numpy(R, C, Lambda, V, beta, sigma, noise, pattern) -> FloatArray:  # type: ignore[no-untyped-def]
    """What `_draw_b` does, for all draws at once: with M M' = I + F'F, ``V M⁻ᵀ (M⁻¹ F' (C_y - C_x β) + σ ε)``.

    R is that of each pattern.
    """
    (S, q, _), p = V.shape, C.shape[2] - 1
    F = R @ Lambda[:, None]
    transposed = np.swapaxes(F, -1, -2)
    M = np.linalg.cholesky(np.eye(q) + transposed @ F)
    gain = np.moveaxis(np.linalg.solve(M, transposed), 1, -1)  # (S, q, q, patterns)
    back = np.moveaxis(V[:, None] @ np.linalg.inv(np.swapaxes(M, -1, -2)), 1, -1)
    if gain.shape[-1] > 1:
        gain, back = gain[..., pattern], back[..., pattern]
    residual = np.moveaxis(C[:, :, p], 1, 0) - np.tensordot(beta, C[:, :, :p], axes=(1, 2)).swapaxes(1, 2)
    x = sigma[:, None, None] * np.moveaxis(noise, 2, 1)  # (S, q, J)
    out = np.zeros((S, q, len(C)))
    for i in range(q):
        for k in range(q):
            x[:, i] += gain[:, i, k] * residual[:, k]
    for i in range(q):
        for k in range(q):
            out[:, i] += back[:, i, k] * x[:, k]
    return np.moveaxis(out, 1, 2)


STREAMS = 2
"""Streams of random numbers for b, each of an equal share of the draws, however many threads there are."""


def recover_residual(
    posterior: Collapsed, rows: ResidualRows, theta: FloatArray, rng: np.random.Generator, random_effects: str
) -> tuple[Natural, FloatArray | None, tuple[FloatArray, FloatArray] | None]:
    """Draw β and b given each (θ, η), or average b over the draws.

    Parameters
    ----------
    posterior : Collapsed
    rows : ResidualRows
        Whose residual parameters η are.
    theta : (S, m)
        Draws of (θ, η).
    rng : numpy.random.Generator
    random_effects : {"draws", "summary", "none"}

    Returns
    -------
    Natural, and draws of b (S, J, q) or their mean and SD
    """
    S, m = len(theta), posterior.n_theta
    products, packed = posterior.products, unpack(posterior.buffer)
    p, (J, q, _) = products.n_fixed, products.subject_C.shape
    base, eta = np.ascontiguousarray(theta[:, :m]), theta[:, m:]
    sd, factor, sigma = posterior.natural(base)
    Lambda, V, working_sigma = posterior.relative(sd, factor, sigma)
    working, mean, covariance = np.empty((S, p)), np.empty((S, p)), np.zeros((S, p, p))
    given = posterior.given_beta(theta)
    if given is not None:
        working[:] = mean[:] = given
    noise = rng.standard_normal((S, p))
    streams = rng.spawn(STREAMS)
    b = None
    if random_effects == "draws" and q:
        b = np.empty((S, J, q))
        for stream, part in zip(streams, np.split(b, [S // STREAMS]), strict=True):
            stream.standard_normal(out=part)  # deviates, which the draws replace one by one
    summed = random_effects == "summary" and q > 0

    def piece(lo: int, hi: int, *totals: FloatArray) -> None:
        for s in range(lo, hi):
            own, one = _whitened(rows, eta[s]).products, slice(s, s + 1)
            data = (own.subject_R, own.subject_C, Lambda[one], V[one])
            if given is None:
                Q = own.S_w + pattern_sums(own.R, own.C, own.weight, Lambda[s]).G
                Q = Q / working_sigma[s] ** 2
                covariance[s] = np.linalg.inv(Q[:p, :p] + packed.prior_precision)
                mean[s] = covariance[s] @ (Q[:p, p] + packed.prior_shift)
                working[s] = mean[s] + np.linalg.cholesky(covariance[s]) @ noise[s] if p else mean[s]
            if b is not None:
                _draw_b(*data, working[one], working_sigma[one], b[one], b[one], 0, 1)
            elif summed:
                gamma = np.append(-mean[s], 1.0)[None]
                add_moments(*data, gamma, covariance[one], working_sigma[one], 0, 1, *totals)

    first, second = averaged(S, 2 * [(J, q)], piece)
    beta = products.scaling.beta(working) if p else working
    # What was sampled is the SD of the whitened rows; σ is that where the variance ratio is 1.
    shift = np.array([rows.shift(e) for e in eta])
    natural = Natural(beta, sd, factor, sigma * np.exp(-shift), working, mean, covariance)
    if not summed:
        return natural, b, None
    return natural, None, (first, np.sqrt(np.maximum(second - first**2, 0.0)))


def _whitened(rows: ResidualRows, eta: FloatArray) -> Whitened:
    whitened = rows.whiten(eta)
    if whitened is None:
        received = "a draw of the residual parameters at the edge of their range"
        reason = "its residual covariance is not positive definite in floating point"
        remedy = "use a prior that keeps away from the edge: hl.Priors(residual={...})"
        raise DataError(received, reason, remedy, "docs, page 'Residual structures'")
    return whitened
