"""All rows as their sums: cross-products and moments, read once, in the columns that all rows give."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Generator
from dataclasses import replace
from typing import Any

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.design.design import Design
from hierlmm.design.unread import Whole
from hierlmm.likelihood.crossproducts import CrossProducts, subject_rows
from hierlmm.likelihood.kernel import RANK_TOLERANCE, within_subject_qr
from hierlmm.sources.coordinates import Coordinates, final_coordinates
from hierlmm.sources.read import columns_of
from hierlmm.sources.sums import Sums


class SummedRows(Whole):
    """All rows of a model, read once for each set of columns."""

    def __init__(self, n_obs: int, n_subjects: int, n_dropped: int, label: str) -> None:
        self.n_obs, self.n_subjects, self.n_dropped, self.label = n_obs, n_subjects, n_dropped, label
        self._sums: dict[int, tuple[Any, Sums, Coordinates]] = {}
        self._products: dict[int, CrossProducts] = {}

    @abstractmethod
    def read(self, design: Design) -> tuple[Sums, Coordinates]:
        """Read all rows."""

    @abstractmethod
    def batches(self, subject: str) -> Generator[Any]:
        """Rows sorted by subject, as Arrow record batches."""

    def read_once(self, design: Design) -> tuple[Sums, Coordinates]:
        """Sums of all rows; they are read where they were not yet."""
        key = id(design.terms)
        if key not in self._sums:
            self._sums[key] = design.terms, *self.read(design)
        return self._sums[key][1:]

    def cross_products(self, design: Any) -> CrossProducts:
        """See `Whole.cross_products`."""
        sums, coordinates = self.read_once(design)
        key = id(design.terms)
        if key not in self._products:
            self._products[key] = finished(sums, coordinates, design)
        return self._products[key]

    def look_alike(self, design: Any) -> Design:
        """See `Whole.look_alike`."""
        mean, covariance = self.read_once(design)[0].moments()
        rows = recoloured(columns_of(design), mean, covariance)
        p, k = design.X.shape[1], design.X1.shape[1]
        X, X1, Z, y = np.split(rows, [p, p + k, rows.shape[1] - 1], axis=1)
        random = tuple(replace(term, Z=np.ascontiguousarray(Z)) for term in design.random)
        arrays = {"X": X.copy(), "X1": X1.copy(), "y": y[:, 0].copy(), "offset": np.zeros(len(y))}
        return replace(design, rows=replace(design.rows, **arrays), random=random, whole=None)


def recoloured(rows: FloatArray, mean: FloatArray, covariance: FloatArray) -> FloatArray:
    """Rows with these means and covariances, (n, k), from rows with the same linear dependencies."""
    scale = np.sqrt(np.diag(covariance))
    scale = np.where(scale > 0.0, scale, 1.0)
    own = (rows - rows.mean(axis=0)) / scale
    there = _root(own.T @ own / len(own), inverse=True) @ _root(covariance / np.outer(scale, scale))
    return mean + own @ there * scale


def _root(A: FloatArray, *, inverse: bool = False) -> FloatArray:
    """Symmetric square root of a positive semi-definite matrix, or of its pseudo-inverse."""
    values, vectors = np.linalg.eigh(A)
    kept = values > 1e-10 * values.max()
    powers = np.zeros_like(values)
    powers[kept] = values[kept] ** (-0.5 if inverse else 0.5)
    return (vectors * powers) @ vectors.T


def finished(sums: Sums, first: Coordinates, design: Design) -> CrossProducts:
    """Cross-products in the columns that all rows give; by subject those of the subjects of the design."""
    G, squares = sums.products()
    last = final_coordinates(first, G, squares, sums.n_rows, design, design.constant)
    W, B = first.to(last)
    R, C, weight = sums.kernel_rows(W, B)
    order, start = subject_rows(design)
    Z, XY = last.working(design.X[order], (design.y - design.offset)[order], design.Z[order])
    own_R, own_C, _ = within_subject_qr(Z, XY, start, RANK_TOLERANCE)
    return CrossProducts(
        R,
        C,
        weight,
        np.arange(len(own_R)),
        W.T @ sums.S @ W,
        own_R,
        own_C,
        sums.n_rows,
        len(design.coef),
        last.scaling(),
    )
