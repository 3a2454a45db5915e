"""The dense block at the end of an elimination: factors that are neither in the chain nor nested in it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache, cached_property
from typing import Any

import numpy as np
from scipy.linalg import lapack
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

from hierlmm.arrays import FloatArray
from hierlmm.likelihood.forest_kernel import mirror
from hierlmm.likelihood.forest_layout import Layout
from hierlmm.likelihood.forest_sums import DIVISIBLE, between


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController()


def one_thread() -> AbstractContextManager[Any]:
    """Matrices by one thread: threads that wait for each other cost more than they bring as soon as others work too."""
    return _blas().limit(limits=1, user_api="blas")


class Singular(np.linalg.LinAlgError):
    """Rounding takes what is left of I + Λ'CΛ after an elimination: Λ is too large for C."""


class Rest:
    """The dense block: log-determinant, Π, conditional means m = Πc, and u = c − C m (r, P) of the factors left over.

    With M = I + Λ'CΛ, Π = ΛM⁻¹Λ'. The diagonal blocks of ``Z'V⁻¹Z = C − CΠC`` are those of Λ⁻ᵀ(I − M⁻¹)Λ⁻¹ as well,
    and ``u = Λ⁻ᵀM⁻¹Λ'c``, which costs nothing but loses digits where Λ is small; there the first form is used.
    """

    def __init__(self, layout: Layout, Lambda: FloatArray, C: FloatArray) -> None:
        self.C, self.Lambda, self.dense, self.log_det = C, np.ascontiguousarray(Lambda), layout.dense, 0.0
        self.blocks = [(k, slice(lo, hi), layout.block(Lambda, k)) for k, lo, hi in layout.rest_spans]
        if not len(C):
            return
        M = between(C, self.Lambda, self.dense, True)
        M[np.diag_indices(len(C))] += 1.0
        # Symmetric: the transpose is the same matrix in the order of columns that LAPACK wants.
        self.L, info = lapack.dpotrf(M.T, lower=1, overwrite_a=1)
        if info:
            raise Singular
        self.log_det = 2.0 * float(np.log(np.diag(self.L)).sum())

    @cached_property
    def inverse(self) -> FloatArray:
        """M⁻¹."""
        inverse: FloatArray = lapack.dpotri(self.L, lower=1)[0].T
        mirror(inverse)
        return inverse

    @cached_property
    def Pi(self) -> FloatArray:
        """Conditional covariance of the random effects of the rest, (r, r)."""
        found: FloatArray = between(self.inverse, self.Lambda, self.dense, False) if len(self.C) else self.C
        return found

    def solve(self, c: FloatArray) -> tuple[FloatArray, FloatArray]:
        """M⁻¹Λ'c and ΛM⁻¹Λ'c: (r, P) each."""
        if not len(c):
            return c, c
        right = self.times(c, transposed=True)
        whitened: FloatArray = lapack.dpotrs(self.L, right, lower=1)[0]
        return whitened, self.times(whitened, transposed=False)

    def times(self, c: FloatArray, *, transposed: bool) -> FloatArray:
        """(I ⊗ Λ) c of the rest, or (I ⊗ Λ)'c: (r, P)."""
        out = np.empty_like(c)
        for _, own, Lam in self.blocks:
            left = Lam.T if transposed else Lam
            out[own] = (left @ c[own].reshape(-1, len(Lam), c.shape[1])).reshape(-1, c.shape[1])
        return out

    def moments(self, c: FloatArray) -> tuple[FloatArray, FloatArray, list[tuple[int, FloatArray, FloatArray]]]:
        """m, u, and by factor Σ_g Z_g'V⁻¹Z_g and the conditional covariances of its groups."""
        r, parts = len(c), list[tuple[int, FloatArray, FloatArray]]()
        mean, u = self.Pi @ c, np.zeros_like(c)
        for k, own, Lam in self.blocks:
            q = len(Lam)
            at = np.arange(own.start, own.stop).reshape(-1, q)
            Pi, here = (A[at[:, :, None], at[:, None, :]] for A in (self.Pi, self.C))
            smallest = np.linalg.svd(Lam, compute_uv=False)[-1] ** 2
            if smallest * np.einsum("gaa->ga", here).min() > DIVISIBLE:
                back = np.linalg.inv(Lam)
                inner = self.inverse[at[:, :, None], at[:, None, :]].sum(axis=0)
                sums = back.T @ (len(at) * np.eye(q) - inner) @ back
                u[own] = (back.T @ (back @ mean[own].reshape(len(at), q, -1))).reshape(len(at) * q, -1)
            else:
                rows = self.C[own].reshape(len(at), q, r)
                sums = here.sum(axis=0) - np.einsum("gar,gbr->ab", rows @ self.Pi, rows)
                u[own] = c[own] - self.C[own] @ mean
            parts.append((k, 0.5 * (sums + sums.T), Pi))
        return mean, u, parts
