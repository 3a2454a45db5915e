"""Akaike's criterion for the subjects in the data: the conditional AIC.

    cAIC = −2 log p(y | β̂, b̂, σ̂) + 2 (Φ + 1),     Φ = Σ_i ∂ŷ_i/∂y_i,   ŷ = Xβ̂ + Zb̂

Φ, the effective degrees of freedom, counts that θ̂ depends on y as well (Greven & Kneib 2010). With V = I + ZBZ' in
units of σ², P = V⁻¹ − V⁻¹X(X'V⁻¹X)⁻¹X'V⁻¹, e = Py (the conditional residuals), ``a_k = P V_k e`` and ``s_k = e'V_k e``
for the derivatives V_k of V by λ_k, and H the Hessian of the criterion in λ, d its degrees of freedom,

    Φ = tr(I − P) + 2d Σ_kl a_k' H⁻¹_kl (a_l / y'e − s_l e / (y'e)²)

because ŷ = y − e, ∂e/∂λ_k = −a_k, and ∂λ̂/∂y follows from the stationary point. Directions that a boundary holds stay
where they are. ``tr(I − P)`` alone takes θ as known (Vaida & Blanchard 2005); it serves where the residuals have a
structure, whose parameters are counted one each, and, with the working weights of the family, other families.

References
----------
Greven, S., Kneib, T. (2010). On the behaviour of marginal and conditional AIC in linear mixed models. Biometrika 97,
773-789.

Vaida, F., Blanchard, S. (2005). Conditional Akaike information for mixed-effects models. Biometrika 92, 351-370.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.design.design import Design
from hierlmm.families.rows import rowwise
from hierlmm.inference.maximum import Maximum
from hierlmm.likelihood.descent import central_differences
from hierlmm.likelihood.estimate import make_criterion
from hierlmm.likelihood.maximise import SINGULAR_TOLERANCE
from hierlmm.likelihood.residual_rows import whiten_columns
from hierlmm.likelihood.solution import Solution

GREVEN_KNEIB = "Greven and Kneib 2010"
VAIDA_BLANCHARD = "Vaida and Blanchard 2005, θ taken as known"


class ConditionalAIC(NamedTuple):
    """The criterion, the conditional log-likelihood, the number of parameters counted, and by whom."""

    value: float
    loglik: float
    df: float
    method: str


def conditional_aic(maximum: Maximum) -> ConditionalAIC:
    """The conditional AIC of a fit."""
    design = maximum.design
    if not design.is_gaussian:
        loglik, df = _generalised(maximum)
        return ConditionalAIC(2.0 * (df - loglik), loglik, df, VAIDA_BLANCHARD)
    solution = maximum.criterion.solution(maximum.optimum.lam)
    e = _residuals(design, solution)
    known = trace_of_hat(solution)
    extra = len(maximum.criterion.split(maximum.optimum.lam)[1]) if design.has_residual_structure else 0
    method = VAIDA_BLANCHARD
    if not extra and not design.has_residual_structure:
        method = GREVEN_KNEIB
        if design.term:
            known += _of_estimation(maximum, solution, e)
    loglik, df = _conditional_loglik(solution, e, design.n_obs), known + extra + 1.0
    return ConditionalAIC(2.0 * (df - loglik), loglik, df, method)


def _residuals(design: Design, solution: Solution) -> FloatArray:
    """E = y − Xβ̂ − Zb̂, (N,)."""
    e = design.y - design.offset - design.X @ solution.beta
    if design.term:
        e = e - np.einsum("ij,ij->i", design.Z, solution.b[design.subject_index])
    return e


def _conditional_loglik(solution: Solution, e: FloatArray, n: int) -> float:
    log_det = 0.0
    if solution.residual is not None:
        white, dets = whiten_columns(solution.residual, e[:, None])
        e, log_det = white[:, 0], float(dets.sum())
    sigma2 = solution.sigma**2
    return -0.5 * (n * np.log(2.0 * np.pi * sigma2) + log_det + float(e @ e) / sigma2)


def trace_of_hat(solution: Solution) -> float:
    """tr(I − P), of the whitened rows where there is a residual structure."""
    products, p = solution.products, solution.products.n_fixed
    F = products.subject_R @ solution.Lambda
    Cx = products.subject_C[:, :, :p]
    q = F.shape[1]
    T = np.eye(q) + F @ np.swapaxes(F, 1, 2)
    once = np.linalg.solve(T, Cx) if q else Cx
    squared = products.S_w[:p, :p] + np.einsum("jia,jib->ab", once, once)
    of_effects = float(np.sum(q - np.trace(np.linalg.inv(T), axis1=1, axis2=2))) if q else 0.0
    return of_effects + float(np.sum(solution.equations.Qxx_inverse * squared))


def _of_estimation(maximum: Maximum, solution: Solution, e: FloatArray) -> float:
    """What the dependence of θ̂ on y adds to the degrees of freedom."""
    design, criterion, lam = maximum.design, maximum.criterion, maximum.optimum.lam
    free = criterion.structure.filled(lam, SINGULAR_TOLERANCE)
    if not np.any(free):
        return 0.0
    H = central_differences(lambda at: criterion.evaluate(at).gradient, lam)
    H = (0.5 * (H + H.T))[np.ix_(free, free)]
    half = criterion.scaling.factor(solution.Lambda)
    sums = np.zeros((design.n_subjects, len(design.term)))
    np.add.at(sums, design.subject_index, design.Z * e[:, None])
    a, s = [], []
    for E in criterion.structure.basis[free]:
        part = criterion.scaling.factor(E) @ half.T
        moved = np.einsum("ij,ij->i", design.Z, (sums @ (part + part.T))[design.subject_index])
        a.append(_projected(design, moved, maximum))
        s.append(float(e @ moved))
    A, rss = np.array(a), float((design.y - design.offset) @ e)
    values, vectors = np.linalg.eigh(H)
    use = values > 1e-9 * max(float(values.max()), 1e-300)
    inverse = (vectors[:, use] / values[use]) @ vectors[:, use].T
    by_y = 2.0 * criterion.degrees * (A / rss - np.outer(s, e) / rss**2)
    return float(np.einsum("kl,ki,li->", inverse, A, by_y))


def _projected(design: Design, v: FloatArray, maximum: Maximum) -> FloatArray:
    """P v: the conditional residuals of another response at the same λ."""
    other = design.with_response(v + design.offset)
    found = make_criterion(other, reml=maximum.reml).solution(maximum.optimum.lam)
    return _residuals(other, found)


def _generalised(maximum: Maximum) -> tuple[float, float]:
    """Conditional log-likelihood, and the degrees of freedom of the working linear model at the modes."""
    from hierlmm.likelihood.generalised_criterion import GeneralisedSolution

    design, criterion = maximum.design, maximum.criterion
    found = GeneralisedSolution(criterion, maximum.optimum.lam)
    eta = design.offset + design.X @ found.beta + np.einsum("ij,ij->i", design.Z, found.b[design.subject_index])
    family: Any = design.family
    rows = rowwise(family.derivatives, design.y, design.trials, eta, found.psi, 2)
    loglik = float(rows[:, 0].sum() + np.sum(family.constant(design.y, design.trials)))
    w = np.maximum(-rows[:, 2], 0.0)
    p, q = len(design.coef), len(design.term)
    ZF = design.Z @ found.root
    X = design.X / np.maximum(np.linalg.norm(design.X, axis=0), 1e-300)
    J, index = design.n_subjects, design.subject_index
    K, B = np.zeros((J, q, q)), np.zeros((J, p, q))
    np.add.at(K, index, w[:, None, None] * ZF[:, :, None] * ZF[:, None, :])
    np.add.at(B, index, w[:, None, None] * X[:, :, None] * ZF[:, None, :])
    inverse = np.linalg.inv(K + np.eye(q))
    half = B @ inverse
    S = (X * w[:, None]).T @ X - np.einsum("jaq,jbq->ab", half, B)
    penalised = np.trace(inverse, axis1=1, axis2=2).sum()
    penalised += np.einsum("jaq,ab,jbq->", half, np.linalg.pinv(S, hermitian=True), half)
    return loglik, p + J * q - float(penalised) + len(found.psi)
