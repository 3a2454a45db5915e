"""Estimates of a generalised model without one subject at a time.

The likelihood is a product over subjects, random effects integrated out. With the score s_j and the information I_j of
subject j at the maximum θ̂ = (λ̂, β̂, ψ̂) and I = Σ I_j, the Newton step on the likelihood of the others is

    θ_(j) = θ̂ - (I - I_j)⁻¹ s_j,

because their scores add up to -s_j. With C, the inverse of I where neither a boundary holds a parameter nor the
likelihood is flat, and zero elsewhere, (I - I_j)⁻¹ is (1 - C I_j)⁻¹ C. Where the step is longer than `FURTHER` standard
errors, `√(δ'(I - I_j) δ)`, the likelihood of the others is maximised from there.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.likelihood.deletion import Deletion, where_known
from hierlmm.likelihood.descent import central_differences
from hierlmm.likelihood.generalised import GeneralisedEstimate, by_gradient
from hierlmm.likelihood.maximise import maximise
from hierlmm.notice import notice_if_slow

UNKNOWN = 1e-6
"""Share of the information on some combination of parameters, left without a subject, below which it is lost."""
FURTHER = 0.1
SLOW = "Searching for the maximum without each subject that moves it far ..."


def delete_subjects_generalised(record: GeneralisedEstimate) -> Deletion:
    """Estimate without each subject in turn.

    Parameters
    ----------
    record : GeneralisedEstimate

    Returns
    -------
    Deletion
        ``psi`` holds all of (λ, β̃, ψ), (J, k); ``sd`` is NaN.

    Notes
    -----
    Costs 2 k + 1 passes over the subjects, k parameters, and a local search for each subject that moves them far.
    """
    with notice_if_slow(SLOW):
        return _deleted(record)


def _deleted(record: GeneralisedEstimate) -> Deletion:
    criterion, at = record.criterion, record.optimum.lam
    J, k, m = len(criterion.rows.start) - 1, len(at), criterion.structure.n_parameters
    beta = slice(m, m + len(criterion.scaling.Bx))
    score = -0.5 * criterion.gradients(at)
    own = 0.5 * central_differences(lambda point: criterion.gradients(point).ravel(), at).reshape(k, J, k)
    own = 0.5 * (own.transpose(1, 0, 2) + own.transpose(1, 2, 0))
    values, vectors = np.linalg.eigh(record.covariance)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    left = np.eye(k) - root.T @ own @ root
    known = np.linalg.eigvalsh(left)[:, 0] > UNKNOWN
    left[~known] = np.eye(k)  # a place to search from
    covariance = root @ np.linalg.solve(left, np.broadcast_to(root.T, (J, k, k)))
    step = -np.einsum("jab,jb->ja", covariance, score)
    length = np.sqrt(np.maximum(-np.einsum("ja,ja->j", step, score), 0.0))
    parameters = at + step
    for j in np.flatnonzero((length > FURTHER) | ~known):
        without = _anew(record, int(j), parameters[j])
        parameters[j], covariance[j] = without.optimum.lam, np.nan_to_num(without.covariance)
        known[j] = without.converged and without.flat.shape[1] == record.flat.shape[1]
    theta = np.delete(np.arange(k), np.arange(k)[beta])
    change, inner = parameters - at, np.linalg.pinv(covariance[np.ix_(range(J), theta, theta)], hermitian=True)
    moved = np.sqrt(np.maximum(np.einsum("ja,jab,jb->j", change[:, theta], inner, change[:, theta]), 0.0))
    B = np.linalg.inv(criterion.scaling.Bx)
    estimates, cov = parameters[:, beta] @ B.T + criterion.scaling.shift, B @ covariance[:, beta, beta] @ B.T
    estimates, cov, parameters, moved = (where_known(known, v) for v in (estimates, cov, parameters, moved))
    return Deletion(estimates, cov, parameters, np.full(J, np.nan), known, moved)


def _anew(record: GeneralisedEstimate, j: int, start: FloatArray) -> GeneralisedEstimate:
    """The estimate without a subject next to a start."""
    criterion = record.criterion
    others = np.delete(np.arange(len(criterion.rows.start) - 1), j)
    first = None if criterion.first is None else criterion.first[others]
    without = replace(criterion, rows=criterion.rows.part(others), first=first)
    found = by_gradient(without, maximise(without, start))  # type: ignore[arg-type]
    return GeneralisedEstimate(record.design, without, found)
