"""Draws of a generalised model: its dispersion as ψ, the likelihood of rows and of subjects at every draw."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.bayes.predictive import subject_lines
from hierlmm.bayes.tree import dispersion_variables
from hierlmm.design.design import Design
from hierlmm.families.rows import rowwise
from hierlmm.likelihood.generalised_criterion import free_criterion, generalised_rows

POINTS = {1: 15, 2: 9, 3: 5}
"""Quadrature points in each dimension, by number of random effects; Laplace's method beyond."""


def psi_draws(design: Design, draws: Mapping[str, FloatArray]) -> FloatArray:
    """Unconstrained dispersion parameters, (..., m), from draws (...) of the variables of a tree."""
    names = dispersion_variables(design)
    if not names:
        return np.empty((*next(iter(draws.values())).shape[:2], 0))
    values = np.stack([np.asarray(draws[name]) for name in names], axis=-1)
    if design.family.name == "ordinal":
        values = np.diff(values, axis=-1, prepend=0.0)
    return np.log(values)


def family_log_likelihood(design: Design, beta: FloatArray, b: FloatArray, psi: FloatArray) -> FloatArray:
    """Log density of every row given the random effects, (chain, draw, N)."""
    eta = subject_lines(design, beta, b)
    return rows_log_likelihood(design, eta, psi)


def rows_log_likelihood(design: Design, eta: FloatArray, psi: FloatArray) -> FloatArray:
    """Log density of every row at linear predictors (..., N) and ψ (..., m)."""
    family, constant = design.family, design.family.constant(design.y, design.trials)
    found = np.empty(eta.shape)
    flat, own = found.reshape(-1, eta.shape[-1]), eta.reshape(-1, eta.shape[-1])
    psi = np.ascontiguousarray(psi.reshape(len(own), -1))
    for s in range(len(own)):
        flat[s] = rowwise(family.derivatives, design.y, design.trials, own[s], psi[s], 1)[:, 0] + constant
    return found


def family_subject_loglik(design: Design, beta: FloatArray, root: FloatArray, psi: FloatArray) -> FloatArray:
    """Marginal log-likelihood of every subject, (S, J), by quadrature: b integrated out.

    Parameters
    ----------
    design : Design
    beta : (S, p)
    root : (S, q, q)
        D = root root'.
    psi : (S, m)
    """
    rows, q = generalised_rows(design), root.shape[-1]
    criterion = free_criterion(rows, q, POINTS.get(q, 1), psi.shape[-1])
    constant = np.add.reduceat(rows.constant, rows.start[:-1])
    Lambda, working = rows.scaling.Bz @ root, (beta - rows.scaling.shift) @ rows.scaling.Bx.T
    found = np.empty((len(beta), design.n_subjects))
    for s in range(len(beta)):
        at = criterion.at(np.concatenate([Lambda[s].ravel(), working[s], psi[s]]))
        found[s] = at.value + constant
    return found
