"""The two-step iteration by which textbooks explain the fit of a linear mixed model.

    step 0   D = 0, σ² from least squares, so V = σ²I
    step 1   β = (Σ X_i'V_i⁻¹X_i)⁻¹ Σ X_i'V_i⁻¹y_i                    (generalised least squares at the current V)
    step 2   a new V = Z D Z' + σ²I, given β
    repeat until nothing moves

Step 2 maximises over D and σ², with β held,

    ML     -½ [ N log 2π + log|V| + (y - Xβ)'V⁻¹(y - Xβ) ]
    REML   -½ [ (N - p) log 2π + log|V| + log|X'V⁻¹X| + (y - Xβ)'V⁻¹(y - Xβ) ]

Step 1 maximises the same functions over β, and with β maximised out they are the log-likelihood and the restricted one.
So this is coordinate ascent: no step can lower the log-likelihood, and what it ends in is the ML or the REML fit
(Harville 1977, J. Amer. Statist. Assoc. 72, 320-338). It needs few steps because β and V are nearly orthogonal.

``update="em"`` replaces the maximisation of step 2 by one expectation-maximisation step, which also never lowers the
log-likelihood (Laird & Ware 1982, Biometrics 38, 963-974): D is the mean of ``E(b_i b_i' | y)`` and σ² the mean of
``E(e_ij² | y)``; for REML the expectations include the uncertainty of β̂. It is slower, and never arrives where the
optimum is a singular D.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray
from hierlmm.design.design import Design
from hierlmm.drawing.figure import Figure, pictured
from hierlmm.errors import NotAvailableError, SpecificationError
from hierlmm.likelihood.conditional import conditional_effects
from hierlmm.likelihood.criterion import Criterion
from hierlmm.likelihood.crossproducts import cross_products
from hierlmm.likelihood.kernel import PatternSums
from hierlmm.likelihood.maximise import maximise
from hierlmm.likelihood.solution import NormalEquations
from hierlmm.options import checked, choose
from hierlmm.results import Page, Part, Result, Table
from hierlmm.text import sayer

SAY = sayer(__file__)
UPDATES = ("maximise", "em")
START_SCALES = 10.0 ** np.arange(-1.0, 2.2, 0.6)
SEE = "docs, page 'Teaching'"


@checked
@dataclass(frozen=True, eq=False, repr=False)
class GLSSteps(Result):
    """Trace of the two-step iteration.

    Attributes
    ----------
    trace : DataFrame
        One row per iteration, the first of them the start (ordinary least squares): the coefficients by name,
        ``D[a, b]``, ``sigma2``, ``loglik`` (the restricted one for REML) and ``change``, the largest move since the row
        before: of β in standard errors, of D and σ² relative to the residual variance.
    converged : bool
    tolerance : float
        Of ``change``.
    reml : bool
    update : {"maximise", "em"}
        What step 2 does.
    beta, beta_se : Series by ``coef``
    D : DataFrame, term × term
    sigma : float
        The last row.
    design : Design
    """

    trace: pd.DataFrame
    converged: bool
    tolerance: float
    reml: bool
    update: str
    beta: pd.Series
    beta_se: pd.Series
    D: pd.DataFrame
    sigma: float
    design: Design

    @property
    def iterations(self) -> int:
        """How many times both steps were taken."""
        return len(self.trace) - 1

    @property
    def loglik(self) -> float:
        """Log-likelihood where the iteration ended; restricted for REML."""
        return float(self.trace["loglik"].iloc[-1])

    @pictured
    def plot(self, **figure: Unpack[Figure]) -> Any:
        """Plot every parameter, and what the log-likelihood still lacked, against the iteration.

        Returns
        -------
        Picture
        """
        from hierlmm.drawing.results import plot_gls_steps

        return plot_gls_steps(self, figure)

    @property
    def table(self) -> pd.DataFrame:
        """`trace`."""
        return self.trace

    def _page(self) -> Page:
        name = "REML" if self.reml else "ML"
        shown = _trace_cells(self.trace)
        printed, left_out = shown.to_string().splitlines(), len(self.trace) - len(shown)
        if left_out:
            printed.insert(len(printed) - 4, f"... {left_out} more (see .trace)")
        slots: dict[str, Any] = {"name": name, "times": f"{self.iterations} iteration{'s' * (self.iterations > 1)}"}
        slots |= {"last": self.trace["change"].iloc[-1], "tolerance": self.tolerance}
        parts: list[Part] = [
            "Step 1: β by generalised least squares, given V = Z D Zᵀ + σ²I.",
            f"Step 2: {SAY(f'steps.{self.update}')}.",
            "",
            Table(shown, printed, "Every iteration", index=True),
            "",
            SAY("steps.converged" if self.converged else "steps.not_converged", **slots),
        ]
        moved = self.trace[list(self.beta.index)]
        if self.iterations and np.all(np.abs(moved - moved.iloc[0]).max() <= 1e-8 * self.beta_se):
            parts.append(SAY("steps.still"))
        return Page(f"Two-step iteration to the {name} fit: {self.design.hierarchy.formula}", parts)


@checked
def gls_steps(
    model: Any,
    *,
    reml: bool = True,
    update: str = "maximise",
    tolerance: float = 1e-8,
    max_iterations: int | None = None,
) -> GLSSteps:
    """Fit a two-level model by alternating GLS for β and an update of D and σ², and keep every step.

    The fit methods of the model reach the same optimum directly; this is the way there that can be followed by hand.

    Parameters
    ----------
    model : TwoLevelModel
        With independent residuals.
    reml : bool
        Restricted (default) or full maximum likelihood.
    update : {"maximise", "em"}
        Step 2: maximise over D and σ² given β (default), or take one EM step.
    tolerance : float
        Stop when no parameter moves by more (β in standard errors, D and σ² relative to the residual variance, D in
        units of what each random effect contributes to y).
    max_iterations : int, optional
        100 by default, 1000 for EM.

    Returns
    -------
    GLSSteps
        Frozen; ``.trace`` is the table, ``.plot()`` the picture.

    Raises
    ------
    NotAvailableError
        For correlated residuals or residuals of unequal variance.
    SpecificationError

    Examples
    --------
    >>> import hierlmm as hl
    >>> model = hl.TwoLevelModel.from_formula("reaction ~ days + (1 + days | subject)", hl.load_dataset("sleepstudy"))
    >>> steps = hl.gls_steps(model, reml=True)
    >>> steps.converged
    True
    """
    design = _design(model)
    choose("update", update, UPDATES)
    limit = (100 if update == "maximise" else 1000) if max_iterations is None else max_iterations
    if limit < 1 or not tolerance > 0:
        received = f"max_iterations={limit!r}, tolerance={tolerance!r}"
        remedy = "leave them out, or use for example max_iterations=100, tolerance=1e-8"
        raise SpecificationError(received, "at least one iteration and a positive tolerance are needed", remedy, SEE)
    criterion = Criterion(cross_products(design), design.random_structure, reml)
    state = _start(criterion, update)
    rows, change, converged = [_row(criterion, design, state, math.nan)], math.inf, False
    step = _maximised if update == "maximise" else _em
    while len(rows) <= limit and not converged:
        new = step(criterion, design, state)
        change = _change(criterion, design, state, new)
        rows.append(_row(criterion, design, new, change))
        state, converged = new, change <= tolerance
    trace = pd.DataFrame(rows, index=pd.RangeIndex(len(rows), name="iteration"))
    coef, term = pd.Index(design.coef, name="coef"), pd.Index(design.term, name="term")
    beta, cov = _beta(criterion, state)
    return GLSSteps(
        trace=trace,
        converged=converged,
        tolerance=tolerance,
        reml=reml,
        update=update,
        beta=pd.Series(beta, index=coef, name="beta"),
        beta_se=pd.Series(np.sqrt(np.diag(cov)), index=coef, name="se"),
        D=pd.DataFrame(_D(criterion, state), index=term, columns=term),
        sigma=state.sigma,
        design=design,
    )


@dataclass(frozen=True)
class _State:
    """V, as λ and σ (in the user's units), and the GLS solution at it."""

    lam: FloatArray
    sigma: float
    equations: NormalEquations
    first: bool = False


@dataclass(frozen=True)
class _GivenBeta(Criterion):
    """The criterion with β (in working columns) held: of the residual sum of squares only γ'Qγ, γ = (-β, 1)."""

    held: FloatArray | None = None

    def _solve(self, sums: PatternSums) -> NormalEquations:
        found = super()._solve(sums)
        gamma = np.append(-np.asarray(self.held), 1.0)
        rss = float(gamma @ (self.products.S_w + sums.G) @ gamma)
        return found._replace(beta=np.asarray(self.held), rss=rss)


def _design(model: Any) -> Design:
    design = getattr(model, "design", None)
    if not isinstance(design, Design) or not len(design.term):
        received = f"a {type(model).__name__} for gls_steps"
        reason = "the iteration updates D, the covariance of random effects, and this has none"
        raise SpecificationError(received, reason, "pass a TwoLevelModel, hl.gls_steps(model)", SEE)
    if design.has_residual_structure:
        received = "gls_steps of a model with a residual structure"
        remedy = "leave residual= and residual_variance= out, or use model.fit_reml()"
        raise NotAvailableError(received, "step 2 updates D and σ² of V = Z D Z' + σ²I only", remedy, SEE)
    if not len(design.coef):
        reason = "step 1 has no β to estimate"
        raise NotAvailableError("gls_steps of a model without fixed effects", reason, "use model.fit_reml()", SEE)
    return design


def _start(criterion: Criterion, update: str) -> _State:
    """Ordinary least squares. EM cannot leave D = 0 and starts where the random effects vary as much as the errors."""
    structure = criterion.structure
    zero = criterion.normal_equations(np.zeros((structure.q, structure.q)))
    sigma = math.sqrt(zero.rss / criterion.degrees) * criterion.products.scaling.y_scale
    if update == "maximise":
        return _State(np.zeros(structure.n_parameters), sigma, zero, first=True)
    return _at(criterion, structure.parameters(np.eye(structure.q)), sigma / math.sqrt(2.0))


def _at(criterion: Criterion, lam: FloatArray, sigma: float) -> _State:
    """Step 1."""
    return _State(lam, sigma, criterion.normal_equations(criterion.structure.factor(lam)))


def _maximised(criterion: Criterion, design: Design, state: _State) -> _State:
    """Step 2 by maximisation with β held, then step 1."""
    held = _GivenBeta(criterion.products, criterion.structure, criterion.reml, held=state.equations.beta)
    unit = criterion.structure.parameters(np.eye(criterion.structure.q))
    start = min((scale * unit for scale in START_SCALES), key=held) if state.first else state.lam
    lam = maximise(held, start).lam
    rss = held.normal_equations(held.structure.factor(lam)).rss
    return _at(criterion, lam, math.sqrt(rss / held.degrees) * criterion.products.scaling.y_scale)


def _em(criterion: Criterion, design: Design, state: _State) -> _State:
    """Step 2 by one EM step, then step 1."""
    structure, scaling = criterion.structure, criterion.products.scaling
    beta, cov = _beta(criterion, state)
    effects = conditional_effects(criterion.products, structure.factor(state.lam), state.sigma)
    b, index = effects.mean(beta), design.subject_index
    second = np.mean(b[:, :, None] * b[:, None, :] + effects.covariance, axis=0)
    residual = design.y - design.offset - design.X @ beta - np.einsum("ij,ij->i", design.Z, b[index])
    spread = np.einsum("ia,iab,ib->i", design.Z, effects.covariance[index], design.Z)
    if criterion.reml:
        second = second + np.mean(effects.slope @ cov @ np.swapaxes(effects.slope, 1, 2), axis=0)
        x = design.X - np.einsum("iq,iqp->ip", design.Z, effects.slope[index])
        spread = spread + np.einsum("ia,ab,ib->i", x, cov, x)
    sigma = float(np.sqrt(np.mean(residual**2 + spread)))
    return _at(criterion, structure.parameters(scaling.Bz @ second @ scaling.Bz.T / sigma**2), sigma)


def _beta(criterion: Criterion, state: _State) -> tuple[FloatArray, FloatArray]:
    scaling = criterion.products.scaling
    working = state.equations.Qxx_inverse * (state.sigma / scaling.y_scale) ** 2
    return scaling.beta(state.equations.beta), scaling.beta_cov(working)


def _D(criterion: Criterion, state: _State) -> FloatArray:
    half = criterion.products.scaling.factor(criterion.structure.factor(state.lam)) * state.sigma
    return half @ half.T


def _row(criterion: Criterion, design: Design, state: _State, change: float) -> dict[str, float]:
    beta, _ = _beta(criterion, state)
    D, term = _D(criterion, state), design.term
    log_sigma = math.log(state.sigma / criterion.products.scaling.y_scale)
    value, _ = criterion.joint(np.append(state.lam, log_sigma))
    row = dict(zip(design.coef, map(float, beta), strict=True))
    row |= {f"D[{term[a]}, {term[b]}]": float(D[a, b]) for a in range(len(term)) for b in range(a + 1)}
    return row | {"sigma2": state.sigma**2, "loglik": -0.5 * value, "change": change}


def _change(criterion: Criterion, design: Design, old: _State, new: _State) -> float:
    """Largest move between two states, free of units."""
    before, _ = _beta(criterion, old)
    after, cov = _beta(criterion, new)
    size = np.sqrt(np.mean(design.Z**2, axis=0)) / new.sigma
    moved = np.abs(_D(criterion, new) - _D(criterion, old)) * np.outer(size, size)
    parts = [np.max(np.abs(after - before) / np.sqrt(np.diag(cov))), moved.max(), abs(old.sigma**2 / new.sigma**2 - 1)]
    return float(max(parts))


def _trace_cells(trace: pd.DataFrame) -> pd.DataFrame:
    """The trace as text; the middle of a long one left out."""
    shown = trace if len(trace) <= 14 else pd.concat([trace.iloc[:8], trace.iloc[-4:]])
    formats = {"change": ".0e", "loglik": "z.6f"}
    return pd.DataFrame(
        {c: ["" if math.isnan(v) else format(v, formats.get(c, ".6g")) for v in shown[c]] for c in shown.columns},
        index=shown.index,
    )
