"""A fit with several grouping factors by matrices of all rows, from D and σ of the fit."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np


class Dense:
    """y ~ N(Xβ, V), V = Σ_k Z_k (I ⊗ D_k) Z_k' + σ²I."""

    def __init__(self, fit: Any) -> None:
        design = fit.design
        self.y, self.X, self.s2, self.design = design.y - design.offset, design.X, fit.sigma**2, design
        self.D = {name: D.to_numpy() for name, D in fit.D.items()}
        self.Z, self.parts = {}, {}
        for term in design.random:
            name, q = term.columns.group, len(term.columns.names)
            own = np.zeros((design.n_obs, len(term.group.labels), q))
            own[np.arange(design.n_obs), term.group.index] = term.Z
            self.Z[name] = own
            self.parts[name] = np.einsum("ijk,kl,mjl->im", own, self.D[name], own)
        self.V = sum(self.parts.values()) + self.s2 * np.eye(design.n_obs)
        self.W = np.linalg.inv(self.V)

    @cached_property
    def beta_cov(self) -> np.ndarray:
        return np.linalg.inv(self.X.T @ self.W @ self.X)

    @cached_property
    def beta(self) -> np.ndarray:
        return self.beta_cov @ self.X.T @ self.W @ self.y

    @cached_property
    def rest(self) -> np.ndarray:
        return self.y - self.X @ self.beta

    @cached_property
    def P(self) -> np.ndarray:
        return self.W - self.W @ self.X @ self.beta_cov @ self.X.T @ self.W

    def criterion(self, *, reml: bool) -> float:
        N, p = self.X.shape
        value = np.linalg.slogdet(self.V)[1] + self.rest @ self.W @ self.rest
        if not reml:
            return value + N * np.log(2.0 * np.pi)
        return value + np.linalg.slogdet(self.X.T @ self.W @ self.X)[1] + (N - p) * np.log(2.0 * np.pi)

    def b(self, name: str) -> np.ndarray:
        return np.einsum("kl,ijl,i->jk", self.D[name], self.Z[name], self.W @ self.rest)

    def spread(self, name: str, middle: np.ndarray) -> np.ndarray:
        """D − D Z_j'MZ_j D of every group: M = V⁻¹ given β, M = P with the uncertainty of β̂."""
        Z, D = self.Z[name], self.D[name]
        return D - np.einsum("kl,ijl,im,mjn,no->jko", D, Z, middle, Z, D)

    def fitted(self, *names: str) -> np.ndarray:
        return (
            self.design.offset
            + self.X @ self.beta
            + sum((np.einsum("ijk,jk->i", self.Z[name], self.b(name)) for name in names), np.zeros(len(self.y)))
        )
