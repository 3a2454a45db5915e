r"""What all checks look at: residuals and random effects of the data, beside those of data simulated under the fit.

At the fit's covariance parameters residuals are linear functions of the data (`diagnostics.serial_residuals`), so that
data sets drawn from N(Xβ̂, V) go through the same estimation of β as the data did, and their residuals cost a product
of matrices. The data are the first column of every array, and under the model one of exchangeable columns. For another
family the rows are ranked among those of new subjects drawn from the fit (the residuals of DHARMa), and stand as normal
scores of their ranks.

References
----------
Hartig, F. (2024). DHARMa: residual diagnostics for hierarchical regression models. R package.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import ndtri

from hierlmm.arrays import FloatArray, IntArray, Rng
from hierlmm.bayes.family_replications import FamilyReplicator
from hierlmm.bayes.replications import Draw
from hierlmm.checks.places import Places, along_each, places
from hierlmm.design.questions import first_row_of_subjects, has_codes, is_label, numbers_at_level1, rows_by_subject
from hierlmm.diagnostics.normality import LONGEST, effects_of
from hierlmm.diagnostics.serial_residuals import (
    LinearResiduals,
    information,
    known_time,
    linear_residuals,
    positions_of,
)
from hierlmm.drawing.style import evenly
from hierlmm.errors import HierlmmError
from hierlmm.fits.base import Fit
from hierlmm.fits.components import zero_terms
from hierlmm.frames import quote, shorten
from hierlmm.likelihood.by_subject import covariance_root
from hierlmm.likelihood.deletion import UNKNOWN
from hierlmm.text import sayer

SAY = sayer(__file__)

MOST_ROWS = 5000
"""Rows that are looked at; of more those of evenly spaced subjects."""


@dataclass(frozen=True, eq=False)
class Simulated:
    """Rows are those looked at, subject by subject; the first column is of the data.

    Attributes
    ----------
    residual : (n, S + 1)
        Around the subjects' lines, divided by their SDs under the model; of a marginal model around the mean, of
        another family normal scores.
    normalised : (n, S + 1)
        With the fitted correlation taken out.
    ahead, forecast : (n, S + 1)
        What a row differs from its mean given the subject's earlier rows, in SDs, and that mean. Whether a row was
        measured may depend on earlier ones: this has a mean of zero and a variance of one all the same. Of another
        family normal scores, and fitted values (n, 1).
    distance : (J, S + 1)
        Squared Mahalanobis distances of the subjects' marginal residuals; of another family sums of squared scores.
    cook : (J, S + 1), dfbetas : (J, p), harder : (J, p)
        Cook's distance at the fit's covariance parameters, and of the data DFBETAS and by how much standard errors
        grow without the subject; of a normal response.
    effects : dict of str to (J, S + 1)
        Random effects; 0 of subjects that have none.
    evened : dict of str to (J, S + 1)
        The same with one variance for all subjects under the model, see `Material._evened`.
    """

    residual: FloatArray
    normalised: FloatArray
    ahead: FloatArray
    forecast: FloatArray
    distance: FloatArray
    cook: FloatArray
    dfbetas: FloatArray
    harder: FloatArray
    effects: dict[str, FloatArray] = field(default_factory=dict)
    evened: dict[str, FloatArray] = field(default_factory=dict)


class Material:
    """A fit, further columns about its subjects, and what was simulated under it, made when it is asked for.

    Parameters
    ----------
    fit : Fit
    simulations : int
    seed : int, optional
    others : DataFrame by subject, optional
        Covariates that the model does not have.
    time : str, optional
        Column of the order of a subject's rows.
    """

    variant = ""
    """Which sentences speak of what is looked at, where they differ."""
    many = "subjects"
    """What those are called whose effects are looked at."""

    def __init__(
        self,
        fit: Fit,
        simulations: int,
        seed: int | None,
        others: pd.DataFrame | None = None,
        time: str | None = None,
    ) -> None:
        self.fit, self.simulations, self.seed, self.others, self.time = fit, simulations, seed, others, time

    @property
    def who(self) -> str:
        """What a subject is called: its column."""
        return self.fit.design.hierarchy.subject

    @property
    def size(self) -> str:
        """Rows and subjects in words."""
        return f"{self.fit.n_obs:,} rows of {self.fit.n_subjects:,} subjects"

    def name_of_row(self, row: int) -> str:
        """A row in words, with its subject."""
        design = self.fit.design
        return f"row {design.frame.index[row]} ({self.who} {design.subjects[design.subject_index[row]]})"

    @cached_property
    def every(self) -> list[IntArray]:
        """Rows of all subjects, in the order of time where it is known."""
        return rows_by_subject(self.fit.design, self._position)

    @cached_property
    def _position(self) -> FloatArray:
        return positions_of(self.fit, self.time, by_order=True)[0]

    @property
    def order(self) -> list[str]:
        """Where the order of a subject's rows is that of the data and not of a time, in words."""
        design, time = self.fit.design, self.time or known_time(self.fit)
        if self.fit.n_obs == self.fit.n_subjects:
            return []
        if time is None:
            could = numbers_at_level1(design)
            return [SAY("page.order_several" if could else "page.order_unknown", names=shorten(map(quote, could)))]
        codes = [SAY("page.order_codes", time=time)] if self.time is None and has_codes(design, time) else []
        ties = any(len(np.unique(self._position[rows])) < len(rows) for rows in self.every)
        return [*codes, *([SAY("page.order_ties", time=time)] if ties else [])]

    @cached_property
    def kept(self) -> IntArray:
        """Positions of the subjects that are looked at."""
        J, N = self.fit.n_subjects, self.fit.n_obs
        return evenly(J, max(2, int(J * min(1.0, MOST_ROWS / N))))

    @property
    def subjects(self) -> pd.Index:
        """Labels of the subjects that are looked at."""
        return self.fit.design.subjects[self.kept]

    @cached_property
    def rows(self) -> IntArray:
        """Rows that are looked at, (n,)."""
        return np.concatenate([self.every[j] for j in self.kept])

    @cached_property
    def sizes(self) -> IntArray:
        """Rows of each subject looked at."""
        return np.array([len(self.every[j]) for j in self.kept])

    @cached_property
    def frame(self) -> pd.DataFrame:
        """The data of the rows looked at."""
        return self.fit.design.frame.iloc[self.rows]

    @cached_property
    def by_subject(self) -> pd.DataFrame:
        """Level-2 covariates of the subjects looked at: those of the model, and others."""
        design = self.fit.design
        first = design.frame.iloc[first_row_of_subjects(design)[self.kept]]
        found = first[[c for c in design.level2_variables() if c in first]].set_axis(self.subjects)
        if self.others is None:
            return found
        return found.join(self.others.reindex(self.subjects))

    @property
    def too_much(self) -> str:
        """Why nothing is to be simulated; empty where it is."""
        if not self.fit.design.is_gaussian and (not self.fit.design.term or self.fit.has_working_correlation):
            return "means and variances of such a response make no distribution that could be simulated"
        if max(map(len, self.every)) > LONGEST:
            return f"a subject has more than {LONGEST:,} rows"
        return ""

    @cached_property
    def obstacle(self) -> str:
        """Why nothing can be simulated; empty where it can."""
        if self.too_much:
            return self.too_much
        try:
            _ = self.simulated
        except HierlmmError as error:
            return getattr(error, "reason", "") or str(error)
        return ""

    @cached_property
    def simulated(self) -> Simulated:
        """Residuals of the data and of simulated data."""
        rng = np.random.default_rng(self.seed)
        return self._normal(rng) if self.fit.design.is_gaussian else self._ranked(rng)

    @cached_property
    def numeric(self) -> list[tuple[Places, bool]]:
        """Numeric covariates of the model, and whether they vary within subjects."""
        design = self.fit.design
        within = set(design.level1_variables())
        names = dict.fromkeys([*design.level1_variables(), *design.level2_variables()])
        known = [v for v in names if v in self.frame.columns and not is_label(design, v)]
        found = [(places(self.frame[v]), v in within) for v in known]
        return [(place, inside) for place, inside in found if place is not None and len(place.x) > 2]

    @cached_property
    def roots(self) -> FloatArray:
        """Roots of the sizes of the residuals around their own mean along covariates, over their mean.

        A mean that bends is not to be taken for a variance that changes, and a row far out not to make others small.
        """
        found = self.simulated.ahead
        for place, within in self.numeric:
            if within:
                found = found - place.at_rows(place.weights @ found)
        root = np.sqrt(np.abs(found))
        return np.asarray(root / root.mean(axis=0))

    @cached_property
    def along_fitted(self) -> tuple[FloatArray, list[FloatArray]]:
        """Smoothers of the residuals and of the roots of their sizes along fitted values: the places, the curves."""
        found = self.simulated
        return along_each(found.forecast, found.ahead, self.roots)

    def _normal(self, rng: Rng) -> Simulated:
        fit, design, S = self.fit, self.fit.design, self.simulations
        subjects = [self.every[j] for j in self.kept]
        left_out = sorted(set(range(len(self.every))) - set(self.kept.tolist()))
        rest = information(fit, [self.every[j] for j in left_out])
        level = "subject" if fit.has_random_effects else "population"
        linear = linear_residuals(fit, subjects, level, "response", rest)
        mean = design.offset + design.X @ fit.beta.to_numpy()
        data = [
            np.column_stack([(design.y - mean)[rows], L @ rng.standard_normal((len(L), S))])
            for rows, L in zip(subjects, linear.root, strict=True)
        ]
        cross = sum(
            (h.T @ np.linalg.solve(L, v) for h, L, v in zip(linear.half, linear.root, data, strict=True)),
            np.zeros((len(linear.C), S + 1)),
        )
        of_rest = np.column_stack([-cross[:, 0] if left_out else 0.0 * cross[:, 0], linear.drawn_rest(S, rng)])
        beta = linear.C @ (cross + of_rest)
        error = [v - x @ beta for v, x in zip(data, linear.X, strict=True)]
        own = np.concatenate([M @ e for M, e in zip(linear.M, error, strict=True)])
        centre = mean[self.rows][:, None] + np.concatenate(data)
        residual = scaled(own, np.concatenate([np.diag(s) for s in linear.S]))
        normalised = residual
        if fit.residual_estimate is not None or fit.has_working_correlation:
            other = linear_residuals(fit, subjects, level, "normalized", rest)
            found = np.concatenate([M @ e for M, e in zip(other.M, error, strict=True)])
            normalised = scaled(found, np.concatenate([np.diag(s) for s in other.S]))
        white = [np.linalg.solve(L, e) for L, e in zip(linear.root, error, strict=True)]
        innovation = np.concatenate(white)
        step = np.concatenate([np.diag(L) for L in linear.root])[:, None]
        ahead = scaled(
            innovation, np.concatenate([1.0 - np.einsum("ij,jk,ik->i", h, linear.C, h) for h in linear.half])
        )
        distance = np.array([(w**2).sum(axis=0) for w in white])
        effects, evened = self._effects(linear, subjects, error, rng)
        deleted = _deleted(linear, white)
        return Simulated(residual, normalised, ahead, centre - step * innovation, distance, *deleted, effects, evened)

    def _effects(
        self, linear: LinearResiduals, subjects: list[IntArray], error: list[FloatArray], rng: Rng
    ) -> tuple[dict[str, FloatArray], dict[str, FloatArray]]:
        """Random effects that vary, from marginal residuals by subject, and the same with one variance for all.

        Subjects with fewer rows have predictions that vary less. Where those drop out who had low values, neither
        these predictions nor they in their own SDs are normal, but what they would be with more rows is: noise of the
        variance that is missing to that of the subject known best is added.
        """
        zero, found, evened = zero_terms(self.fit), dict[str, FloatArray](), dict[str, FloatArray]()
        design = self.fit.design
        for k, term in enumerate(design.term if self.fit.has_random_effects else ()):
            if term not in zero:
                part = effects_of(self.fit, linear, subjects, k)
                b = np.concatenate([M @ e for M, e in zip(part.M, error, strict=True)])
                variance = np.concatenate([np.diag(s) for s in part.S])[:, None]
                own = variance > 1e-8 * variance.max()
                noise = np.sqrt(np.where(own, variance.max() - variance, 0.0)) * rng.standard_normal(b.shape)
                name = design.own_term[k % design.n_own]
                # Those of other groups are zero in it.
                found[name] = np.where(own, b, 0.0) / np.sqrt(variance.max()) + found.get(name, 0.0)
                evened[name] = np.where(own, b + noise, 0.0) / np.sqrt(variance.max()) + evened.get(name, 0.0)
        return found, evened

    def _ranked(self, rng: Rng) -> Simulated:
        """Normal scores of the ranks of rows among those of new subjects with the same covariates."""
        fit: Any = self.fit
        design = fit.design
        psi = fit.psi_draws().mean(axis=(0, 1)) if fit.has_draws else fit.solution.psi
        draw = Draw(fit.beta.to_numpy(), covariance_root(fit._D_values), 1.0, psi)
        drawn = FamilyReplicator(design).replicate(draw, "new_subject", rng, self.simulations)
        pool = np.column_stack([design.y, drawn.T])[self.rows]
        ascending = np.lexsort((rng.random(pool.shape), pool), axis=1)  # ties at random
        rank = np.argsort(ascending, axis=1)
        score = ndtri((rank + 0.5) / pool.shape[1])
        line = (design.offset + design.X @ fit.beta.to_numpy())[self.rows]
        start = np.concatenate([[0], np.cumsum(self.sizes)[:-1]])
        nothing = np.empty((0, 0))
        return Simulated(
            score, score, score, line[:, None], np.add.reduceat(score**2, start), nothing, nothing, nothing
        )


def scaled(values: FloatArray, variance: FloatArray) -> FloatArray:
    """Divided by their SDs, and 0 where a row is fitted exactly; every column then by its root mean square."""
    sd = np.sqrt(np.maximum(variance, 0.0))
    known = sd > 1e-8 * sd.max()
    found = np.where(known[:, None], values / np.where(known, sd, 1.0)[:, None], 0.0)
    return np.asarray(found / np.sqrt(np.mean(found[known] ** 2, axis=0)))


def _deleted(linear: LinearResiduals, white: list[FloatArray]) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Cook's distances (J, S + 1), and of the data DFBETAS and standard errors without the subject over the fit's.

    ``β̂ - β_(j) = (A - A_j)⁻¹ X_j'V_j⁻¹ r_j`` with ``A = Σ A_j``, ``A_j = X_j'V_j⁻¹X_j``.
    """
    p = len(linear.C)
    if p == 0:  # nothing is estimated that a subject could move
        nothing = np.full((len(white), white[0].shape[1]), np.nan)
        return nothing, np.empty((len(white), 0)), np.empty((len(white), 0))
    A = np.linalg.inv(linear.C)
    se = np.sqrt(np.diag(linear.C))
    cook, dfbetas, harder = [], [], []
    for half, w in zip(linear.half, white, strict=True):
        left, size = A - half.T @ half, np.sqrt(np.diag(A))
        values, vectors = np.linalg.eigh(left / np.outer(size, size))
        if values[0] < UNKNOWN:
            cook.append(np.full(w.shape[1], np.nan))
            dfbetas.append(np.full(p, np.nan))
            harder.append(np.where(np.abs(vectors[:, 0]) > 1e-3, np.inf, np.nan))
            continue
        inverse = np.linalg.inv(left)
        change = inverse @ (half.T @ w)
        cook.append(np.einsum("as,ab,bs->s", change, A, change) / p)
        dfbetas.append(change[:, 0] / se)
        harder.append(np.sqrt(np.diag(inverse)) / se)
    return np.array(cook), np.array(dfbetas), np.array(harder)
