"""Refits of a design to other responses, or to other subjects: only what depends on them is worked out anew.

With the thin QR decomposition ``Z̃_i = U_i R_i`` and ``X_w``, what the subjects' Z do not reach of X̃, a response ỹ
enters the cross-products through

    c_i = U_i'ỹ_i (a column of C_i),   ỹ_w = ỹ - U c,   S_w[x, y] = X_w'ỹ_w,   S_w[y, y] = ỹ_w'ỹ_w

in one pass over the rows; subjects enter as they are (R_i, C_i and their share of S_w), each as often as it was chosen.
With a residual structure the working rows stay, but for the one of y. A refit sets out from the optimum of the original
data and from a few points all over the space (`maximise_again`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.design.design import Design
from hierlmm.design.taken import take_subjects
from hierlmm.errors import DataError
from hierlmm.likelihood.criterion import Criterion
from hierlmm.likelihood.crossproducts import CrossProducts, pattern_rows, patterns_of, subject_rows, working_columns
from hierlmm.likelihood.estimate import LikelihoodEstimate, make_criterion, maximise_design
from hierlmm.likelihood.kernel import RANK_TOLERANCE, within_subject_qr
from hierlmm.likelihood.maximise import maximise_again
from hierlmm.likelihood.residual_criterion import ResidualCriterion
from hierlmm.likelihood.residual_messages import refuse_divergence, refuse_extreme_sigma
from hierlmm.likelihood.solution import AnyCriterion

LOST = 1e-9
"""Smallest eigenvalue of X̃'X̃, which is the identity for the original rows, of subjects that show all columns."""


@dataclass(frozen=True, eq=False)
class _Rows:
    """Working rows sorted by subject: U (q, N), [X_w, y_w] (P, N), where subjects start (J + 1,), the order (N,)."""

    U: FloatArray
    XY: FloatArray
    start: NDArray[np.int64]
    order: IntArray


@dataclass(frozen=True, eq=False)
class Refits:
    """What the refits of one fitted design share.

    Attributes
    ----------
    design : Design
    criterion : Criterion or ResidualCriterion
        That of the original data.
    start : (m,)
        Its optimum.
    """

    design: Design
    criterion: AnyCriterion
    start: FloatArray

    def to_response(self, y: FloatArray) -> LikelihoodEstimate:
        """Fit another response (N,) of the same rows.

        Raises
        ------
        HierlmmError
            If these data cannot be fitted.
        """
        design = self.design.with_response(y)
        if self._alternates:
            return maximise_design(design, reml=self.criterion.reml)
        if design.has_several_factors:
            return self._refitted(design, make_criterion(design, reml=self.criterion.reml))
        working = (y - design.offset - self._y_centre) / self.criterion.scaling.y_scale
        return self._refitted(design, self._of_response(design, working))

    def to_subjects(self, chosen: IntArray) -> LikelihoodEstimate:
        """Fit chosen subjects, positions (K,) in ``design.subjects``, each as often as it was chosen.

        Raises
        ------
        HierlmmError
            If these data cannot be fitted.
        """
        design = take_subjects(self.design, chosen)
        if len(np.unique(design.subject_group)) < len(design.group_levels):
            reason = f"a level of {design.group!r} does not occur among them, and its D is its own"
            raise DataError(f"{len(chosen)} subjects drawn from the data", reason, "use more subjects")
        if self._alternates:
            return maximise_design(design, reml=self.criterion.reml)
        if isinstance(self.criterion, Criterion):
            criterion: AnyCriterion = replace(self.criterion, products=self._products_of(chosen))
        else:
            criterion = make_criterion(design, reml=self.criterion.reml)
            if criterion.structure.n_parameters + len(criterion.rows.parameters) != len(self.start):
                reason = "a group or an occasion of the residual structure does not occur among them"
                raise DataError(f"{len(chosen)} subjects drawn from the data", reason, "use more subjects")
        return self._refitted(design, criterion)

    def _refitted(self, design: Design, criterion: AnyCriterion) -> LikelihoodEstimate:
        found = LikelihoodEstimate(design, criterion, maximise_again(criterion, self.start))
        refuse_divergence(design, criterion, found.optimum.lam)
        refuse_extreme_sigma(design, found.solution.shift)
        return found

    @cached_property
    def _alternates(self) -> bool:
        """Whether the variance depends on fitted values, which every refit has to find."""
        return self.design.residual_variance is not None and self.design.residual_variance.variable is None

    @cached_property
    def _y_centre(self) -> float:
        design = self.design
        return 0.0 if design.constant is None else float(np.mean(design.y - design.offset))

    @cached_property
    def _rows(self) -> _Rows:
        order, start = subject_rows(self.design)
        U, XY, _ = working_columns(self.design, order)
        within_subject_qr(U, XY, start, RANK_TOLERANCE)  # in place
        return _Rows(U, XY, start, order)

    def _of_response(self, design: Design, working: FloatArray) -> AnyCriterion:
        if isinstance(self.criterion, Criterion):
            return replace(self.criterion, products=self._products_for(working))
        if isinstance(self.criterion, ResidualCriterion):
            rows = self.criterion.rows
            M = rows.M.copy()
            M[-1] = working[rows.rows.order]
            return replace(self.criterion, rows=replace(rows, M=M))
        return make_criterion(design, reml=self.criterion.reml)

    def _products_for(self, working: FloatArray) -> CrossProducts:
        """Cross-products of another response."""
        old, rows = self.criterion.data, self._rows
        assert isinstance(old, CrossProducts)
        y = working[rows.order]
        c = np.add.reduceat(rows.U * y, rows.start[:-1], axis=1)
        left = y - np.einsum("kn,kn->n", rows.U, np.repeat(c, np.diff(rows.start), axis=1))
        C, S_w = old.subject_C.copy(), old.S_w.copy()
        C[:, :, -1] = c.T
        S_w[-1, :-1] = S_w[:-1, -1] = np.einsum("an,n->a", rows.XY[:-1], left)
        S_w[-1, -1] = np.einsum("n,n->", left, left)
        R, rows_C, weight = pattern_rows(old.subject_R, C, self._patterns)
        return replace(old, R=R, C=rows_C, weight=weight, S_w=S_w, subject_C=C)

    @cached_property
    def _patterns(self):  # type: ignore[no-untyped-def]
        return patterns_of(self.criterion.data.subject_R)  # type: ignore[union-attr]

    @cached_property
    def _shares(self) -> FloatArray:
        """What every subject adds to S_w: (J, P, P)."""
        rows = self._rows
        return np.add.reduceat(rows.XY[:, None] * rows.XY, rows.start[:-1], axis=2).transpose(2, 0, 1)

    def _products_of(self, chosen: IntArray) -> CrossProducts:
        """Cross-products of chosen subjects."""
        old = self.criterion.data
        assert isinstance(old, CrossProducts)
        R, C = old.subject_R[chosen], old.subject_C[chosen]
        S_w = self._shares[chosen].sum(axis=0)
        all_x = (S_w + np.einsum("jka,jkb->ab", C, C))[:-1, :-1]
        if len(all_x) and not np.linalg.eigvalsh(all_x)[0] > LOST:
            reason = "columns of the fixed effects are dependent among them, such as a level that nobody has"
            raise DataError(f"{len(chosen)} subjects drawn from the data", reason, "use more subjects")
        found = patterns_of(R)
        size = int(np.diff(self._rows.start)[chosen].sum())
        return CrossProducts(
            *pattern_rows(R, C, found), found.pattern, S_w, R, C, size, old.n_fixed, old.scaling, old.log_det
        )
