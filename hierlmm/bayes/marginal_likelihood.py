"""log p(y | D, σ, η): b integrated out, and β unless it is given, for whoever has priors of D, σ and η elsewhere.

The density is that of `collapsed_kernel`, with θ the entries of any factor F of D = F F' and log σ, smooth wherever D
is, on the boundary too. σ is the SD of the whitened rows (`ResidualPart.shift`), η the unconstrained residual
parameters.
"""

from __future__ import annotations

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.bayes.collapsed import CollapsedPosterior, pack_factor
from hierlmm.bayes.collapsed_residual import ResidualPosterior
from hierlmm.bayes.posterior import Collapsed
from hierlmm.bayes.resolved import ResolvedPriors
from hierlmm.design.design import Design
from hierlmm.likelihood.crossproducts import cross_products
from hierlmm.likelihood.residual_rows import residual_rows


def marginal_likelihood(
    design: Design, priors: ResolvedPriors | None, uncentering: FloatArray | None = None
) -> Collapsed:
    """The density as a function of θ = (F row by row, β in working units if it is given, log σ, η).

    Parameters
    ----------
    design : Design
    priors : ResolvedPriors or None
        Whose normal prior of β is integrated over. None: β is given.
    uncentering : (q, q), optional
        T where F is a factor of the covariance of T⁻¹ b: ``ResolvedPriors.random_uncentering``.
    """
    T = np.eye(len(design.term)) if uncentering is None else uncentering
    if design.term and not design.has_residual_structure:
        products = cross_products(design)
        buffer = pack_factor(products, priors, T)
        return CollapsedPosterior(design, products, buffer, *_unmoved(int(buffer[1])), T)
    rows = residual_rows(design)
    whitened = rows.whiten(np.array([p.unconstrained(p.start) for p in rows.parameters]))
    assert whitened is not None
    buffer = pack_factor(whitened.products, priors, T)
    residual = tuple((p, None) for p in rows.parameters)
    at = _unmoved(int(buffer[1]) + len(residual))
    return ResidualPosterior(design, whitened.products, buffer, *at, T, rows, residual)


def _unmoved(m: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Mode, root and modes of a θ that is not whitened."""
    return np.zeros(m), np.eye(m), np.zeros((1, m))
