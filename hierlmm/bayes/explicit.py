"""The two-level model as an explicit hierarchy in PyMC, every quantity by the name it has on paper.

    level 1   y_ij = offset_ij + sum_k x1_ijk subject_coef_ki + e_ij,      e_i ~ N(0, sigma² I) or a serial structure
    level 2   subject_coef_ki = sum_{c at k} W_ic beta_c + b_ki,           b_i ~ N(0, D)
    D         = diag(sd_b) corr_b diag(sd_b)

Non-centred (default): ``b_i = diag(sd_b) L z_i`` with z_i standard normal and corr_b = L L', which samples well where
each subject has few rows or D is small. Half-normal and half-t SDs are sampled as absolute values of real numbers: the
tail of log(sd) never ends where the data allow an SD of zero. Centred: the subject's coefficients are drawn around
their level-2 prediction directly, which samples well where each subject has much data (Papaspiliopoulos, Roberts &
Sköld 2007).

L comes from partial correlations on the C-vine, independent Beta variables a priori, so that corr_b ~ LKJ(eta) exactly
(Lewandowski, Kurowicka & Joe 2009); the graph is elementwise and compiles faster than a general Cholesky factor.

References
----------
Lewandowski, D., Kurowicka, D., Joe, H. (2009). Generating random correlation matrices based on vines and extended
onion method. Journal of Multivariate Analysis 100, 1989-2001.

Papaspiliopoulos, O., Roberts, G. O., Sköld, M. (2007). A general framework for the parametrization of hierarchical
models. Statistical Science 22, 59-73.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.bayes.distribution import as_pymc_variable
from hierlmm.bayes.distributions import LKJ
from hierlmm.bayes.explicit_family import dispersion_draws, family_response
from hierlmm.bayes.explicit_residual import conditional_moments, refuse_dense, residual_draws, sd_name, sigma_draws
from hierlmm.bayes.resolved import ResolvedPriors
from hierlmm.bayes.tree import corr_pairs, dim_of_D, model_coords, of_groups, pairs_of
from hierlmm.covariance.partial import factor_of_partials
from hierlmm.covariance.random import equal_correlations, lowest_corr, sheared
from hierlmm.design.design import Design, level2_prediction

if TYPE_CHECKING:
    import pymc as pm


def pymc_module() -> Any:
    """Import PyMC without PyTensor's notice about BLAS, which nothing here uses."""
    import pytensor

    pytensor.config.blas__ldflags = ""
    import pymc as pm

    return pm


def build_pymc_model(design: Design, priors: ResolvedPriors, *, centered: bool = False) -> pm.Model:
    """Build the explicit hierarchy.

    Parameters
    ----------
    design : Design
    priors : ResolvedPriors
    centered : bool
        Whether random effects are parametrised by the subjects' coefficients (True) or by standard normal
        deviates (False).

    Returns
    -------
    pymc.Model
        With the variables ``beta`` (coef), ``sd_b`` (term, or term_by_group), ``corr_b`` (pair of terms), ``b``
        (subject, term),
        ``subject_coef`` (subject, level1), ``mu`` (obs), ``sigma`` and the observed ``y`` (obs).
        With a fixed intercept the free variable is ``beta_centered``, coefficients of the centred design, so that
        the intercept's prior is that of the expected response at average covariates. Likewise the free variables
        of a D whose priors are stated there are ``sd_b_centered`` and its partial correlations. A model without
        fixed effects has no ``beta``. Generalised models have the linear predictor as ``eta``, and dispersion
        parameters by name in the place of ``sigma``: see `explicit_family`.
    """
    pm = pymc_module()
    refuse_dense(design, priors)
    with pm.Model(coords=model_coords(design)) as model:
        prediction = _level2_prediction(design, fixed_effects(design, priors))
        random = [int(k) for k in design.own_level1]
        if not random:
            subject_coef = pm.Deterministic("subject_coef", _add(prediction, None, random), dims=("subject", "level1"))
        elif centered:
            factor = random_covariance_variables(design, priors, fold=False)
            subject_coef = _centred(design, prediction, factor, priors.random_uncentering)
        else:
            factor = random_covariance_variables(design, priors, fold=True)
            z = pm.Normal("z", 0.0, 1.0, dims=("subject", "term"))
            own_b = _times(design, factor, z)
            if np.any(priors.random_center):
                own_b = _times(design, priors.random_uncentering, own_b)
            b = pm.Deterministic("b", own_b, dims=("subject", "term"))
            subject_coef = pm.Deterministic("subject_coef", _add(prediction, b, random), dims=("subject", "level1"))
        own = (design.X1 * subject_coef[design.subject_index]).sum(axis=1)
        predictor = design.offset + own if design.hierarchy.offsets else own
        if not design.is_gaussian:
            family_response(design, priors, pm.Deterministic("eta", predictor, dims="obs"))
            return model
        sigma = as_pymc_variable(sd_name(design), [priors.sigma], None, ["sigma"])
        mu = pm.Deterministic("mu", predictor, dims="obs")
        mean, sd = (mu, sigma) if not design.has_residual_structure else conditional_moments(design, priors, mu, sigma)
        pm.Normal("y", mean, sd, observed=design.y, dims="obs")
    return model


def product(A: Any, B: Any, q: int) -> Any:
    """A (m, q) times B (q,) or (q, n), elementwise: q is small, and a call of BLAS takes long to compile."""
    return (A * B).sum(axis=1) if B.ndim == 1 else sum(A[:, k, None] * B[k] for k in range(q))


def fixed_effects(design: Design, priors: ResolvedPriors) -> Any:
    """Declare beta, or what it is of at average covariates; None without fixed effects."""
    import pymc as pm

    if not priors.coef:
        return None
    T, start = priors.uncentering, None
    if priors.intercept is None and design.constant is not None and design.is_gaussian:
        # The response may be far from zero.
        start = float(np.mean(design.y - design.offset)) * (priors.centering @ design.constant)
    if np.array_equal(T, np.eye(len(T))):
        return as_pymc_variable("beta", priors.beta, "coef", priors.coef, start=start)
    centred = as_pymc_variable("beta_centered", priors.beta, "coef", priors.coef, start=start)
    return pm.Deterministic("beta", product(T, centred, len(T)), dims="coef")


def _level2_prediction(design: Design, beta: Any) -> list[Any]:
    """Level-2 prediction of each level-1 coefficient: (J,) variables, or None where level 2 says nothing."""
    columns: list[Any] = []
    for k in range(len(design.level1)):
        members = np.flatnonzero(design.coef_level1 == k)
        columns.append(None if members.size == 0 else (design.W[:, members] * beta[members]).sum(axis=1))
    return columns


def random_covariance_variables(design: Design, priors: ResolvedPriors, *, fold: bool) -> Any:
    """Declare sd_b and corr_b; return a factor of D at `random_center`: (q,) SDs, or a (q, q) lower triangle."""
    import pymc as pm
    import pytensor.tensor as pt

    q = len(design.term)
    if priors.common_sd:
        each = [
            as_pymc_variable(name, priors.sd_b[k : k + 1], None, ["sd"], fold=fold)
            for name, k in zip(of_groups("sd_b_common", design), range(0, q, design.n_own), strict=True)
        ]
        common = each[0] if len(each) == 1 else pt.repeat(pt.stack(each), design.n_own)
        sd = pm.Deterministic("sd_b", common * np.ones(q), dims=dim_of_D(design))
    else:
        name = "sd_b_centered" if np.any(priors.random_center) else "sd_b"
        sd = as_pymc_variable(name, priors.sd_b, dim_of_D(design), design.term, fold=fold)
    blocks = [block for block in design.blocks if len(block) > 1]
    if priors.corr_b is None or not blocks:
        return sd
    if priors.common_corr:
        parts = [_equal_correlation_factor(design.n_own, priors.corr_b, n) for n in of_groups("corr_b_unit", design)]
        L = parts[0] if len(parts) == 1 else pt.linalg.block_diag(*parts)
    else:
        L = _correlation_factor(blocks, q, priors.corr_b)
    lower = sd[:, None] * L
    if np.any(priors.random_center):
        half = product(priors.random_uncentering, lower, q)
        sd = pm.Deterministic("sd_b", pt.sqrt((half**2).sum(axis=1)), dims=dim_of_D(design))
        L = half / sd[:, None]
    pm.Deterministic("corr_b", product(L, L.T, q)[corr_pairs(design)], dims="pair")
    return lower


def _equal_correlation_factor(q: int, prior: LKJ, name: str) -> Any:
    """Cholesky factor for one correlation common to all random effects, `equal_correlation_factor` as a graph."""
    import pymc as pm
    import pytensor.tensor as pt

    a, b = prior.equal_shapes(q)
    low, j = lowest_corr(q), np.arange(q)
    u = pm.Beta(name, alpha=a, beta=b)
    r = low + (1.0 - low) * u
    # 1 - r and 1 + (q - 1) r from u: no cancellation at the limits of r.
    c = 1.0 + j[1:-1] * r
    c = pt.concatenate([pt.constant(np.ones(1)), c, pt.stack([(1.0 - low) * (q - 1) * u])])
    rest = (1.0 - low) * (1.0 - u) * c[1:] / c[:-1]
    diagonal = pt.sqrt(pt.concatenate([pt.constant(np.ones(1)), rest]))
    below = pt.concatenate([diagonal[:-1] * r / c[:-1], pt.constant(np.zeros(1))])
    return pt.constant(np.tril(np.ones((q, q)), -1)) * below[None, :] + pt.diag(diagonal)


def _correlation_factor(blocks: list[tuple[int, ...]], q: int, prior: LKJ) -> Any:
    """Cholesky factor of the correlation matrix, block diagonal, from partial correlations on the C-vine.

    ``L[i, j] = r_ij prod_{k<j} sqrt(1 − r_ik²)``, ``L[i, i] = prod_{k<i} sqrt(1 − r_ik²)``, with r = 2p − 1 and so
    ``1 − r² = 4p(1 − p)``, free of cancellation. Outside the blocks p = 1/2, that is r = 0.
    """
    import pymc as pm
    import pytensor.tensor as pt

    rows, cols = pairs_of(blocks)
    sizes = [len(block) for block in blocks]
    shapes = np.concatenate([prior.partial_shapes(n)[:i] for n in sizes for i in range(1, n)])
    p = pm.Beta("corr_b_partial", alpha=shapes, beta=shapes, dims="pair")
    if q == 2:
        r, s = 2 * p[0] - 1, pt.sqrt(4 * p[0] * (1 - p[0]))
        return pt.stack([pt.stack([pt.constant(1.0), pt.constant(0.0)]), pt.stack([r, s])])
    P = pt.set_subtensor(pt.constant(np.full((q, q), 0.5))[rows, cols], p)
    rest = pt.cumprod(pt.sqrt(4 * P * (1 - P)), axis=1)
    before = pt.concatenate([pt.constant(np.ones((q, 1))), rest[:, :-1]], axis=1)
    return pt.constant(np.tril(np.ones((q, q)))) * (2 * P - 1 + pt.constant(np.eye(q))) * before


def draws_of_model(design: Design, priors: ResolvedPriors, raw: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    """Compute the model's named variables from draws of its free ones, as its Deterministics do.

    Compiling the Deterministics for the sampler takes longer than sampling; this is the same arithmetic in numpy.

    Parameters
    ----------
    design : Design
    priors : ResolvedPriors
    raw : mapping of str to (chain, draw, ...)
        Draws of the free variables of `build_pymc_model`, centred or not.

    Returns
    -------
    dict of str to (chain, draw, ...)
        ``beta`` (absent without fixed effects), ``sd_b``, ``corr_b``, ``D``, ``b``, ``sigma``.
    """
    if not design.is_gaussian:
        level1 = dispersion_draws(design, raw)
    else:
        level1 = {"sigma": raw["sigma"] if "sigma" in raw else sigma_draws(design, raw)}
    q, beta = len(design.term), beta_draws(design, priors, raw)
    extra = residual_draws(design, raw)[0] if design.has_residual_structure else {}
    if not design.term:
        return {"beta": beta, **level1, **extra}
    sd, L = random_covariance_draws(design, priors, raw)
    corr = L @ np.swapaxes(L, -1, -2)
    corr[..., np.arange(q), np.arange(q)] = 1.0
    if "z" in raw:
        b = _times_draws(design, sd[..., None] * L, raw["z"])
    else:
        if "random_coef_centered" in raw:
            own = _times_draws(design, priors.random_uncentering, raw["random_coef_centered"])
        else:
            own = raw["random_coef"] if "random_coef" in raw else raw["subject_coef"]
        b = own - level2_prediction(design, beta)[..., design.own_level1]
    D = corr * sd[..., None] * sd[..., None, :]
    out = {"sd_b": sd, "corr_b": corr, "D": D, "b": b, **level1, **extra}
    return {"beta": beta, **out} if priors.coef else out


def beta_draws(design: Design, priors: ResolvedPriors, raw: Mapping[str, FloatArray]) -> FloatArray:
    """Fixed effects (chain, draw, p) from draws of the free variables."""
    if not priors.coef:
        return np.empty((*next(iter(raw.values())).shape[:2], 0))
    named = any(key == "beta_centered" or key.startswith("beta_centered[") for key in raw)
    beta = _vector(raw, "beta_centered" if named else "beta", priors.coef)
    return beta @ priors.uncentering.T if named else beta


def random_covariance_draws(
    design: Design, priors: ResolvedPriors, raw: Mapping[str, FloatArray]
) -> tuple[FloatArray, FloatArray]:
    """SDs (chain, draw, q) and a factor of the correlations (chain, draw, q, q) from draws of the free variables."""
    q, moved = len(design.term), bool(np.any(priors.random_center))
    common, units = of_groups("sd_b_common", design), of_groups("corr_b_unit", design)
    if common[0] in raw:
        sd = np.repeat(np.stack([raw[name] for name in common], axis=-1), design.n_own, axis=-1)
    else:
        sd = _vector(raw, "sd_b_centered" if moved else "sd_b", priors.term)
    L = np.broadcast_to(np.eye(q), (*sd.shape, q))
    if units[0] in raw:
        low, unit = lowest_corr(design.n_own), np.stack([raw[name] for name in units], axis=-1)
        L = equal_correlations(low + (1.0 - low) * unit, design.terms.by_subject.parts)
    if "corr_b_partial" in raw:
        P = np.full((*sd.shape, q), 0.5)
        rows, cols = pairs_of([block for block in design.blocks if len(block) > 1])
        P[..., rows, cols] = raw["corr_b_partial"]
        L = factor_of_partials(2 * P - 1, np.sqrt(4 * P * (1 - P)))
    return sheared(priors.random_uncentering, sd, L)


def _vector(raw: Mapping[str, FloatArray], name: str, labels: Sequence[str]) -> FloatArray:
    """Draws of a vector, whether it is one random variable or one for each element."""
    return raw[name] if name in raw else np.stack([raw[f"{name}[{label}]"] for label in labels], axis=-1)


def _times(design: Design, factor: Any, z: Any) -> Any:
    """``F_g z_i`` of every subject with the factor of its group: F (q·G, q·G) or the SDs alone, z (J, q)."""
    if not design.group:
        return z * factor if factor.ndim == 1 else product(z, factor.T, design.n_own)
    own = _of_subjects(design, factor)
    return z * own if factor.ndim == 1 else (own * z[:, None, :]).sum(axis=2)


def _of_subjects(design: Design, factor: Any) -> Any:
    """Each subject's part of a factor of D: (J, q) SDs, or (J, q, q)."""
    import pytensor.tensor as pt

    q, parts = design.n_own, design.terms.by_subject.parts
    each = [factor[part[0] : part[0] + q] for part in parts]
    each = [own[:, part[0] : part[0] + q] for own, part in zip(each, parts, strict=True)] if factor.ndim > 1 else each
    return pt.stack(each)[design.subject_group]


def _times_draws(design: Design, factor: FloatArray, z: FloatArray) -> FloatArray:
    """The same from draws: F (..., q·G, q·G) and z (chain, draw, J, q)."""
    out, q = np.empty(z.shape), design.n_own
    for g, part in enumerate(design.terms.by_subject.parts):
        own, block = design.subject_group == g, slice(part[0], part[0] + q)
        out[..., own, :] = z[..., own, :] @ np.swapaxes(factor[..., block, block], -1, -2)
    return out


def _add(prediction: list[Any], b: Any, random: list[int]) -> Any:
    """Level-2 prediction plus random effects, (J, k)."""
    import pytensor.tensor as pt

    columns = []
    for k, fixed in enumerate(prediction):
        effect = b[:, random.index(k)] if k in random else None
        columns.append(fixed if effect is None else effect if fixed is None else fixed + effect)
    return pt.stack(columns, axis=1)


def _centred(design: Design, prediction: list[Any], factor: Any, T: FloatArray) -> Any:
    """Draw the varying coefficients around their level-2 prediction; ``b`` is what is left.

    ``factor`` is one of the covariance matrix of T⁻¹ b.
    """
    import pymc as pm
    import pytensor.tensor as pt

    random = [int(k) for k in design.own_level1]
    zero = np.zeros(design.n_subjects)
    mean = pt.stack([zero if prediction[k] is None else prediction[k] for k in random], axis=1)
    all_vary, dims_of_b = random == list(range(len(design.level1))), ("subject", "term")
    name, dims = ("subject_coef", ("subject", "level1")) if all_vary else ("random_coef", dims_of_b)
    shear = T - np.eye(len(T))
    F = _of_subjects(design, factor) if design.group else factor
    if np.any(shear):
        centre = _times(design, np.eye(len(T)) - shear, mean)
        moved = pm.MvNormal("random_coef_centered", centre, chol=F, dims=dims_of_b)
        own = _times(design, T, moved)
        all_vary = False
    elif factor.ndim == 1:
        own = pm.Normal(name, mean, F, dims=dims)
    else:
        own = pm.MvNormal(name, mean, chol=F, dims=dims)
    b = pm.Deterministic("b", own - mean, dims=dims_of_b)
    if all_vary:
        return own
    return pm.Deterministic("subject_coef", _add(prediction, b, random), dims=("subject", "level1"))
