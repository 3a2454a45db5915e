"""Two hierarchies, one marginal model.

A hierarchy says ``y_i = X_i β + Z_i b_i + e_i`` with ``b_i ~ N(0, D)`` and ``e_i ~ N(0, Σ_i)``. Its likelihood is that
of the marginal model it implies, ``y_i ~ N(X_i β, V_i)``, ``V_i = Z_i D Z_i' + Σ_i``. Any split of V_i into a part that
belongs to the subject and a part that belongs to the errors has that same likelihood: for every share s between 0 and 1

    b_i ~ N(0, s D),    e_i ~ N(0, Σ_i + (1 - s) Z_i D Z_i')

implies V_i. At s = 1 this is the hierarchy that was fitted; at s = 0 there are no subject effects, and the errors of a
subject are correlated (compound-symmetric, for a random intercept). What differs is what is said about the subject,

    E(b_i | y) = s D Z_i'V_i⁻¹(y_i - X_i β),    Var(b_i | y) = s D - s D Z_i'V_i⁻¹Z_i D s      (β, D, Σ given)

and about its next measurement: with errors that go on as they did, the prediction needs V only and is the same; with
errors drawn anew, it is ``x'β + z'E(b_i | y)``, which is not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray, IntArray
from hierlmm.design.design import Design, design_of
from hierlmm.design.formula import unquoted
from hierlmm.design.questions import rows_by_subject
from hierlmm.errors import DataError, SpecificationError
from hierlmm.fits.base import Fit
from hierlmm.options import checked
from hierlmm.results import Page, Paragraph, Printed, Result, Table
from hierlmm.text import sayer

SAY = sayer(__file__)
SEE = "docs, page 'Teaching'"
EQUAL = 1e-8


@checked
@dataclass(frozen=True, eq=False, repr=False)
class SubjectHierarchy(Result):
    """A hierarchy with numbers for all its parameters.

    Attributes
    ----------
    name : str
    design : Design
        Rows, X, Z and subjects.
    beta : (p,)
    D : (q, q)
        Covariance of the random effects of ``design.term``; all zero: no subject effects.
    residual : tuple of (n_i, n_i)
        Σ_i by subject.
    restricted : bool
        Whether the numbers are estimates by REML.
    """

    name: str
    design: Design
    beta: FloatArray
    D: FloatArray
    residual: tuple[FloatArray, ...]
    restricted: bool = False

    @property
    def table(self) -> pd.DataFrame:
        """`beta` by name."""
        return pd.DataFrame({"beta": self.beta}, index=pd.Index(self.design.coef, name="coef"))

    def _page(self) -> Page:
        D = pd.DataFrame(self.D, index=self.design.term, columns=self.design.term)
        parts = [
            Table(table, [heading, table.to_string(float_format=lambda v: f"{v:.5g}")], heading, index=True)
            for heading, table in (("Fixed effects", self.table.rename_axis(index=None)), ("D", D))
            if table.size
        ]
        return Page(f"Hierarchy with numbers for all parameters: {self.name}", parts)

    @cached_property
    def rows(self) -> list[IntArray]:
        """Rows of each subject."""
        return rows_by_subject(self.design)

    @cached_property
    def V(self) -> list[FloatArray]:
        """Implied marginal covariances V_i = Z_i D Z_i' + Σ_i, by subject."""
        Z = self.design.Z
        return [Z[r] @ self.D @ Z[r].T + S for r, S in zip(self.rows, self.residual, strict=True)]

    @cached_property
    def mean(self) -> FloatArray:
        """Marginal mean Xβ, (N,)."""
        return self.design.offset + self.design.X @ self.beta

    def loglik(self) -> float:
        """Log-likelihood of the data, random effects integrated out."""
        total = 0.0
        for rows, V in zip(self.rows, self.V, strict=True):
            L = np.linalg.cholesky(V)
            z = np.linalg.solve(L, self.design.y[rows] - self.mean[rows])
            total -= 0.5 * (len(rows) * np.log(2 * np.pi) + 2 * np.log(np.diag(L)).sum() + z @ z)
        return float(total)

    def effects(self) -> tuple[FloatArray, FloatArray]:
        """Conditional means (J, q) and covariances (J, q, q) of b given y and the parameters."""
        means, covariances = [], []
        for rows, V in zip(self.rows, self.V, strict=True):
            gain = np.linalg.solve(V, self.design.Z[rows] @ self.D).T
            means.append(gain @ (self.design.y[rows] - self.mean[rows]))
            covariances.append(self.D - gain @ self.design.Z[rows] @ self.D)
        return np.array(means), np.array(covariances)

    def last_measurement(self) -> tuple[FloatArray, FloatArray]:
        """Predict each subject's last row from its earlier ones: with errors that go on, and with errors drawn anew.

        Returns
        -------
        same_errors, new_errors : (J,)
            NaN for subjects with one row.
        """
        y, Z = self.design.y, self.design.Z
        found = np.full((2, len(self.rows)), np.nan)
        for j, (rows, V) in enumerate(zip(self.rows, self.V, strict=True)):
            if len(rows) < 2:
                continue
            early, last = rows[:-1], rows[-1]
            weighted = np.linalg.solve(V[:-1, :-1], y[early] - self.mean[early])
            found[0, j] = self.mean[last] + V[-1, :-1] @ weighted
            found[1, j] = self.mean[last] + Z[last] @ self.D @ Z[early].T @ weighted
        return found[0], found[1]


@checked
@dataclass(frozen=True, eq=False, repr=False)
class SameMarginal(Result):
    """Two hierarchies side by side: what the data see of them, and what only the hierarchies say.

    Attributes
    ----------
    first, second : SubjectHierarchy
    same : bool
        Whether means and V_i are equal to rounding (1e-8 relative): then no data can tell the two apart.
    mean_difference, V_difference : float
        Largest differences of the marginal means (relative to the SD of y) and of the entries of V_i (relative to the
        largest entry).
    loglik : Series, ``A`` (the first) and ``B``
        Full log-likelihood at the parameters given (for a REML fit not its restricted one).
    between : Series, ``A`` and ``B``
        Share of the total variance, tr(Z_i D Z_i') / tr(V_i) summed over subjects, that belongs to subject effects.
    b, b_sd : DataFrame, subject × (hierarchy, term)
        Random effects given the data: mean and SD at these parameters.
    last : DataFrame by subject
        The last row: ``observed``; predicted from the earlier ones when errors go on as they did (``A same errors``),
        and when errors are drawn anew (``A new errors``); ``B`` likewise. NaN for a subject with one row.
    """

    first: SubjectHierarchy
    second: SubjectHierarchy
    same: bool
    mean_difference: float
    V_difference: float
    loglik: pd.Series
    between: pd.Series
    b: pd.DataFrame
    b_sd: pd.DataFrame
    last: pd.DataFrame

    def subject(self, label: Any) -> pd.DataFrame:
        """One subject: posterior mean and SD of its random effects under each hierarchy.

        Parameters
        ----------
        label
            Of the subject.

        Returns
        -------
        DataFrame (hierarchy, term) × ``mean``, ``sd``
        """
        if label not in self.b.index:
            raise DataError(f"subject {label!r}", "it is not in the data", "use a label of .b.index", SEE)
        return pd.DataFrame({"mean": self.b.loc[label], "sd": self.b_sd.loc[label]})

    @property
    def table(self) -> pd.DataFrame:
        """`last`."""
        return self.last

    def _page(self) -> Page:
        a, b = self.first, self.second
        slots = {"V": self.V_difference, "mean": self.mean_difference}
        slots |= {"loglik_a": self.loglik.iloc[0], "loglik_b": self.loglik.iloc[1]}
        said = [SAY("pair.data", a=a.name, b=b.name, **slots)]
        if a.restricted or b.restricted:
            said.append(SAY("pair.restricted"))
        said.append(SAY("pair.same" if self.same else "pair.different"))
        said.append(SAY("pair.hierarchies", a=self.between.iloc[0], b=self.between.iloc[1]))
        label, values = self.b.index[0], self.last.iloc[0].astype(float)
        for letter, one in (("A", a), ("B", b)):
            words = "no subject effects: b is zero for everybody"
            if np.any(one.D):
                rows = self.subject(label).loc[letter]
                words = ", ".join(f"{t} {m:.4g} (sd {s:.3g})" for t, m, s in rows.itertuples())
            said.append(f"  {letter}, b of subject {label}: {words}")
        if np.all(np.isfinite(values)):
            names = ("observed", "same_a", "new_a", "same_b", "new_b")
            said.append(SAY("pair.last", label=label, **dict(zip(names, values, strict=True))))
        said.append(SAY("pair.end"))
        lines = "\n".join(said).split("\n")
        return Page(f"Two hierarchies for {unquoted(a.design.hierarchy.response)}", [Printed(lines), *self._tables()])

    def _tables(self) -> list[Paragraph | Table]:
        """The same for a notebook: a column for each hierarchy."""
        label, last = self.b.index[0], self.last.iloc[0]
        seen = {"full (ML) log-likelihood": [f"{v:z.6f}" for v in self.loglik]}
        say = {"share of subject effects in the variance": [f"{v:.1%}" for v in self.between]}
        terms = list(dict.fromkeys(self.b.columns.get_level_values(1)))
        effects = {
            letter: {t: f"{m:.4g} (sd {s:.3g})" for t, m, s in self.subject(label).loc[letter].itertuples()}
            for letter, one in (("A", self.first), ("B", self.second))
            if np.any(one.D)
        }
        for term in terms:
            say[f"b of subject {label}, {term}"] = [effects.get(letter, {}).get(term, "0") for letter in "AB"]
        if np.all(np.isfinite(last.astype(float))):
            what = f"last measurement of subject {label} (observed {last['observed']:.4g}) from those before it"
            for key, words in (("same", "errors go on as they did"), ("new", "errors drawn anew")):
                say[f"{what}, {words}"] = [f"{last[f'{letter} {key} errors']:.6g}" for letter in "AB"]
        same = "pair.same" if self.same else "pair.different"
        restricted = [SAY("pair.restricted")] if self.first.restricted or self.second.restricted else []
        gaps = f"Largest difference of V_i: {self.V_difference:.1e} of its largest entry; of the mean: "
        gaps += f"{self.mean_difference:.1e} SD of the response."
        captions = ("What the data see (the marginal model)", "What only the hierarchies say")
        first, second = (
            Table(pd.DataFrame.from_dict(rows, orient="index", columns=["A", "B"]), (), caption, index=True)
            for rows, caption in zip((seen, say), captions, strict=True)
        )
        names = [f"{letter}: {one.name}" for letter, one in (("A", self.first), ("B", self.second))]
        texts = [[*names], [gaps, *restricted, SAY(same)], [SAY("pair.end")]]
        before, between, after = ([Paragraph(" ".join(t.split()), 0) for t in part] for part in texts)
        return [*before, first, *between, second, *after]


@checked
def subject_hierarchy(
    model: Any, *, beta: Any, D: Any, residual: float | Callable[[pd.DataFrame], Any], name: str = "stated hierarchy"
) -> SubjectHierarchy:
    """State a hierarchy with all its numbers, on the rows and random effects of a model.

    Parameters
    ----------
    model : TwoLevelModel
        Gives y, X, Z and the subjects.
    beta : (p,)
        In the order of the model's coefficients.
    D : (q, q)
        In the order of its random effects; positive semi-definite.
    residual : float or callable
        σ², or a function from the rows of a subject (DataFrame) to its Σ_i (n_i, n_i).
    name : str

    Raises
    ------
    SpecificationError
        If a shape does not fit, or D or a Σ_i is no covariance matrix.
    """
    design = design_of(model, "subject_hierarchy")
    try:
        numbers = np.asarray(beta, dtype=np.float64).ravel()
        matrix = np.asarray(D, dtype=np.float64)
    except (TypeError, ValueError):
        remedy = f"give beta as numbers for {', '.join(design.coef)} in this order, and D as a matrix"
        raise SpecificationError(f"beta={beta!r} and D={D!r}", "they are no arrays of numbers", remedy, SEE) from None
    if numbers.shape != (len(design.coef),) or matrix.shape != (len(design.term),) * 2:
        reason = f"the model has {len(design.coef)} fixed coefficients and {len(design.term)} random effects"
        remedy = f"give beta for {', '.join(design.coef)} and D for {', '.join(design.term)}"
        raise SpecificationError(f"beta of {numbers.size} and D of shape {matrix.shape}", reason, remedy, SEE)
    _need_covariance("D", matrix)
    parts = []
    for j, label in enumerate(design.subjects):
        frame = design.frame[design.subject_index == j]
        n = len(frame)
        part = residual(frame) if callable(residual) else float(residual) * np.eye(n)
        part = np.asarray(part, dtype=np.float64)
        if part.shape != (n, n):
            remedy = "return an (n_i, n_i) matrix from residual(rows)"
            raise SpecificationError(f"Σ of shape {part.shape} for subject {label!r}", f"it has {n} rows", remedy, SEE)
        _need_covariance(f"Σ of subject {label!r}", part)
        parts.append(part)
    return SubjectHierarchy(name, design, numbers, matrix, tuple(parts))


@checked
def same_marginal(first: Any, second: Any = None, *, share: float = 0.0) -> SameMarginal:
    """Put two hierarchies with one marginal model side by side.

    Parameters
    ----------
    first : fit, TwoLevelModel or SubjectHierarchy
        A model is fitted by REML.
    second : fit, TwoLevelModel or SubjectHierarchy, optional
        Of the same rows. Left out, it is made from the first: only the ``share`` of D stays with the subjects, the rest
        becomes correlation between the errors of a subject.
    share : float
        Between 0 (no subject effects are left, the default) and 1.

    Returns
    -------
    SameMarginal
        ``.same`` says whether the marginal models are equal to rounding.

    Raises
    ------
    DataError, SpecificationError

    Examples
    --------
    A random intercept, against compound-symmetric errors without one:

    >>> import hierlmm as hl
    >>> model = hl.TwoLevelModel.from_formula("distance ~ time + (1 | subject)", hl.load_dataset("dental"))
    >>> pair = hl.same_marginal(model)
    >>> pair.same
    True
    """
    if not 0.0 <= share <= 1.0:
        raise SpecificationError(f"share={share!r}", "it is a share of D", "use a number from 0 to 1", SEE)
    a = _stated(first)
    b = _moved(a, share) if second is None else _stated(second)
    _same_rows(a, b)
    size = max(float(np.abs(V).max()) for V in a.V)
    V_difference = max(float(np.abs(V - U).max()) for V, U in zip(a.V, b.V, strict=True)) / size
    mean_difference = float(np.abs(a.mean - b.mean).max() / np.std(a.design.y))
    names = pd.Index(["A", "B"], name="hierarchy")
    last = pd.DataFrame({"observed": [a.design.y[r[-1]] for r in a.rows]}, index=a.design.subjects)
    frames, spreads = {}, {}
    for letter, one in (("A", a), ("B", b)):
        last[f"{letter} same errors"], last[f"{letter} new errors"] = one.last_measurement()
        mean, covariance = one.effects()
        index = pd.Index(one.design.term, name="term")
        frames[letter] = pd.DataFrame(mean, index=one.design.subjects, columns=index)
        variance = np.clip(np.einsum("jkk->jk", covariance), 0.0, None)
        spreads[letter] = pd.DataFrame(np.sqrt(variance), index=one.design.subjects, columns=index)
    return SameMarginal(
        first=a,
        second=b,
        same=max(V_difference, mean_difference) <= EQUAL,
        mean_difference=mean_difference,
        V_difference=V_difference,
        loglik=pd.Series([a.loglik(), b.loglik()], index=names, name="loglik"),
        between=pd.Series([_between(a), _between(b)], index=names, name="between"),
        b=pd.concat(frames, axis=1, names=["hierarchy", "term"]),
        b_sd=pd.concat(spreads, axis=1, names=["hierarchy", "term"]),
        last=last,
    )


def _stated(given: Any) -> SubjectHierarchy:
    if isinstance(given, SubjectHierarchy):
        return given
    fit = given.fit_reml() if not isinstance(given, Fit) and hasattr(given, "fit_reml") else given
    if not isinstance(fit, Fit):
        remedy = "pass a fit, a TwoLevelModel, or hl.subject_hierarchy(...)"
        raise SpecificationError(f"a {type(given).__name__}", "it is no hierarchy with numbers", remedy, SEE)
    design = fit.design
    D = fit.D.to_numpy() if design.term else np.empty((0, 0))
    random = ", ".join(design.term)
    name = f"random effects ({random}), " if random else "no subject effects, "
    independent = not design.has_residual_structure
    name += "independent errors" if independent else "errors with a structure"
    residual = []
    for j, label in enumerate(design.subjects):
        rows = design.subject_index == j
        if independent:
            residual.append(fit.sigma**2 * np.eye(int(rows.sum())))
        else:
            residual.append(fit.marginal_covariance(label).to_numpy() - design.Z[rows] @ D @ design.Z[rows].T)
    return SubjectHierarchy(name, design, fit.beta.to_numpy(), D, tuple(residual), fit.estimator == "REML")


def _moved(one: SubjectHierarchy, share: float) -> SubjectHierarchy:
    """The share of D stays; the rest of Z D Z' goes to the errors."""
    Z, rest = one.design.Z, (1.0 - share) * one.D
    residual = tuple(S + Z[r] @ rest @ Z[r].T for r, S in zip(one.rows, one.residual, strict=True))
    constant = one.design.term == ("Intercept",) and not one.design.has_residual_structure
    errors = "compound-symmetric errors" if constant else "correlated errors"
    name = f"no subject effects, {errors}" if share == 0.0 else f"{share:.0%} of D left to the subjects, {errors}"
    return SubjectHierarchy(name, one.design, one.beta, share * one.D, residual)


def _between(one: SubjectHierarchy) -> float:
    total = sum(float(np.trace(V)) for V in one.V)
    return 1.0 - sum(float(np.trace(S)) for S in one.residual) / total


def _same_rows(a: SubjectHierarchy, b: SubjectHierarchy) -> None:
    if a.design is b.design:
        return
    # Arrays of other lengths are not equal.
    if not all(np.array_equal(getattr(a.design, name), getattr(b.design, name)) for name in ("subject_index", "y")):
        received, remedy = f"hierarchies for {a.design.n_obs} and {b.design.n_obs} rows", "build both on the same table"
        raise DataError(received, "they are not about the same measurements in the same order", remedy, SEE)


def _need_covariance(what: str, matrix: FloatArray) -> None:
    size = float(np.abs(matrix).max(initial=0.0))
    finite = bool(np.all(np.isfinite(matrix)))
    if not finite or np.abs(matrix - matrix.T).max(initial=0.0) > 1e-10 * size:
        raise SpecificationError(what, "it is not a symmetric matrix of finite numbers", "check its entries", SEE)
    lowest = float(np.linalg.eigvalsh(matrix)[0]) if matrix.size else 0.0
    if lowest < -1e-10 * size:
        received = f"{what} with the eigenvalue {lowest:.4g}"
        reason = "a hierarchy needs covariance matrices: some combination would have a negative variance"
        raise SpecificationError(received, reason, "see hl.is_hierarchical for a V that no hierarchy makes", SEE)
