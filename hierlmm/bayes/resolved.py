"""Every prior of a model, filled in.

The intercept's prior is that of the *centred* design, ``alpha = beta_0 + sum_k mean(x_k) beta_k``: the expected
response at the average covariates. Likewise a coefficient of the intercept's level-2 equation that has an interaction
with a level-1 covariate beside it (sex beside sex:time) is that at the average of the covariate, ``beta* = (I + S)
beta``, S holding the averages. With normal priors there, the coefficients themselves are jointly normal,
``beta = T (alpha, beta*) ~ N(m0, inv(P0))`` with ``T = (I - S) [[1, -mean(x*)'], [0, I]]``: what a sampler that
integrates beta out needs.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from hierlmm.arrays import FloatArray
from hierlmm.bayes.distribution import Prior
from hierlmm.bayes.distributions import LKJ, Normal
from hierlmm.covariance.random import lowest_corr
from hierlmm.design.formula import INTERCEPT
from hierlmm.errors import NotAvailableError
from hierlmm.options import checked
from hierlmm.results import Page, Result, Table

SEE = "docs, page 'Priors'"
AVERAGE = " (at average covariates)"


def is_intercept(term: str) -> bool:
    """Whether a name in ``term`` is that of a random intercept, of a group or a grouping factor as well."""
    return term == INTERCEPT or term.startswith((f"{INTERCEPT}[", f"{INTERCEPT} | "))


@checked
@dataclass(frozen=True, eq=False, repr=False)
class ResolvedPriors(Result):
    """Every prior of a model.

    Attributes
    ----------
    coef, term : tuple of str
        Names of the fixed coefficients (p) and random effects (q).
    beta : tuple of Prior, length p
        In the order of ``coef``; the intercept's is at the centred design, those that ``shift`` moves at the average
        level-1 covariates.
    sd_b : tuple of Prior, length q
        In the order of ``term``; all the same where ``common_sd``. The intercept's is at ``random_center``.
    corr_b : LKJ or None
        None where no random effects correlate. With the intercept at ``random_center``.
    sigma : Prior or None
        None for a family other than the Gaussian, whose ``sigma``, if it has one, is among ``dispersion``.
    center : (p,)
        Means of the columns of X (I - S); zero for the intercept, and everywhere without one.
    intercept : int or None
        Position of the intercept in ``coef``.
    shift : (p, p)
        S: averages of level-1 covariates by which coefficients are moved to where their priors are stated.
    random_center : (q,)
        Means of the columns of Z that are correlated with a random intercept, zero for all others: where the priors of
        D are stated.
    common_sd : bool
        Whether all random effects share one standard deviation (``covariance="identity"``; with ``corr_b``,
        ``"compound_symmetry"``).
    source : {"default", "bambi", "chosen"}
    residual_names : tuple of str
        Parameters of the residual structure, correlation first.
    residual : tuple of Prior
        Their priors.
    average_row : bool
        Whether the prior of σ is that of the average row's residual SD: under a variance function of a number, σ is the
        SD where the number is zero (or one), which may be far outside the data.
    dispersion_names : tuple of str
        Dispersion parameters of a generalised model's family, in the order of its ψ.
    dispersion : tuple of Prior
        Their priors, on the natural scale.
    n_groups : int
        Levels with a D of their own: ``term`` holds the random effects of one after the other.
    sizes : tuple of int
        Random effects of each grouping factor, where there are several.
    """

    coef: tuple[str, ...]
    term: tuple[str, ...]
    beta: tuple[Prior, ...]
    sd_b: tuple[Prior, ...]
    corr_b: LKJ | None
    sigma: Any
    center: FloatArray
    intercept: int | None
    shift: FloatArray
    random_center: FloatArray
    common_sd: bool
    source: str
    residual_names: tuple[str, ...] = ()
    residual: tuple[Prior, ...] = ()
    average_row: bool = False
    dispersion_names: tuple[str, ...] = ()
    dispersion: tuple[Prior, ...] = ()
    n_groups: int = 1
    sizes: tuple[int, ...] = ()

    @property
    def uncentering(self) -> FloatArray:
        """``T`` of the module's mathematics, (p, p): ``beta = T @ (centred intercept, beta*)``."""
        T = np.eye(len(self.coef))
        if self.intercept is not None:
            T[self.intercept] -= self.center
        return T - self.shift @ T

    @property
    def centering(self) -> FloatArray:
        """Inverse of T: coefficients of the centred design from those of the formula, (p, p)."""
        back = np.eye(len(self.coef)) + self.shift
        if self.intercept is not None:
            back[self.intercept] += self.center @ back
        return back

    @property
    def random_uncentering(self) -> FloatArray:
        """Inverse of ``A``, (q, q): ``b = random_uncentering @ b*``, b* having the prior of D."""
        T = np.eye(len(self.term))
        if np.any(self.random_center):
            for k in self.intercepts:
                T[k, self.beside(k)] -= self.random_center[self.beside(k)]
        return T

    @property
    def n_own(self) -> int:
        """Number of random effects that a subject has, q."""
        return len(self.term) // self.n_groups

    @property
    def intercepts(self) -> tuple[int, ...]:
        """Positions of the random intercept in ``term``: one for each group, or grouping factor."""
        return tuple(k for k, name in enumerate(self.term) if is_intercept(name))

    def beside(self, k: int) -> slice:
        """Random effects of the same group and grouping factor as the one at position k of ``term``."""
        ends = np.cumsum([0, *(self.sizes or (self.n_own,) * self.n_groups)]).tolist()
        return next(slice(lo, hi) for lo, hi in pairwise(ends) if k < hi)

    def log_jacobian(self, sd_b: FloatArray, centred: FloatArray, blocks: Any) -> FloatArray:
        """Log density of D as reported, less that of the centred D which has the priors, from their SDs (..., q).

        The density of a matrix is the same on both sides; that of its SDs and correlations has for every block as many
        factors of each SD as the block has random effects.
        """
        sizes = {k: next(len(block) for block in blocks if k in block) for k in self.intercepts}
        found = [size * np.log(sd_b[..., k] / centred[..., k]) for k, size in sizes.items()]
        return np.stack(found, axis=-1)

    @property
    def random_centering(self) -> FloatArray:
        """``A`` of the module's mathematics, (q, q): ``b* = A @ b`` has the prior of D."""
        return 2 * np.eye(len(self.term)) - self.random_uncentering  # inverse of a shear: the opposite sign

    @property
    def beta_is_normal(self) -> bool:
        """Whether the fixed effects are jointly normal a priori."""
        return all(isinstance(p, Normal) for p in self.beta)

    @property
    def common_corr(self) -> bool:
        """Whether all random effects share one correlation as well (``covariance="compound_symmetry"``)."""
        return self.common_sd and self.corr_b is not None

    def beta_normal(self) -> tuple[FloatArray, FloatArray]:
        """Mean and precision of the fixed effects, ``beta ~ N(m0, inv(P0))``, in the user's (uncentred) coding.

        Returns
        -------
        m0 : (p,)
        P0 : (p, p)

        Raises
        ------
        NotAvailableError
            If a coefficient has a prior that is not normal.
        """
        other = [f"{c}: {p}" for c, p in zip(self.coef, self.beta, strict=True) if not isinstance(p, Normal)]
        if other:
            reason = "the coefficients are jointly normal only if every one of their priors is normal"
            remedy = "use Normal(...) priors for the fixed effects, or the explicit sampler"
            raise NotAvailableError(f"the normal prior of beta, with {other[0]}", reason, remedy, SEE)
        normal = [p for p in self.beta if isinstance(p, Normal)]
        mean = np.array([p.mean for p in normal], dtype=float)
        precision = np.array([p.sd**-2.0 for p in normal], dtype=float)
        back = self.centering
        return self.uncentering @ mean, back.T @ (precision[:, None] * back)

    def logpdf(
        self, beta: FloatArray, sd_b: FloatArray, corr_b: FloatArray, sigma: float | FloatArray, blocks: Any
    ) -> float:
        """Log prior density of one point on the natural scale.

        Parameters
        ----------
        beta : (p,)
            Uncentred coefficients.
        sd_b : (q,)
        corr_b : (q, q)
        sigma : float
        blocks : sequence of sequence of int
            Positions in ``term`` that correlate, as in `Design`.
        """
        sd_b, corr_b = np.asarray(sd_b, dtype=float), np.asarray(corr_b, dtype=float)
        jacobian = 0.0
        if np.any(self.random_center):
            given = sd_b
            sd_b, corr_b = self.centred_random(sd_b, corr_b)
            jacobian = float(self.log_jacobian(given, sd_b, blocks).sum())
        centred = self.centering @ np.asarray(beta, dtype=float)
        total = jacobian + sum(float(p.logpdf(v)) for p, v in zip(self.beta, centred, strict=True))
        sds = list(zip(self.sd_b, sd_b, strict=True))[:: self.n_own if self.common_sd else None]
        total += sum(float(p.logpdf(v)) for p, v in sds) + float(self.sigma.logpdf(sigma))
        if self.common_corr:
            prior: Any = self.corr_b
            firsts = range(0, len(self.term), self.n_own)
            total += sum(float(prior.logpdf_equal(corr_b[k, k + 1], self.n_own)) for k in firsts)
        elif self.corr_b is not None:
            total += sum(float(self.corr_b.logpdf(corr_b[np.ix_(b, b)])) for b in blocks if len(b) > 1)
        return total

    @property
    def stated_coef(self) -> tuple[str, ...]:
        """Names of the coefficients, with where their priors are stated."""
        moved = np.any(self.centering != np.eye(len(self.coef)), axis=1)
        return tuple(f"{c}{AVERAGE}" if there else c for c, there in zip(self.coef, moved, strict=True))

    @property
    def stated_sd(self) -> tuple[str, ...]:
        """Names of the standard deviations, with where their priors are stated."""
        there = [k for k in self.intercepts if np.any(self.random_center[self.beside(k)])]
        return tuple(f"sd({t}){AVERAGE if k in there else ''}" for k, t in enumerate(self.term))

    def centred_random(self, sd_b: FloatArray, corr_b: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Standard deviations (q,) and correlations (q, q) of ``b* = A b``, which have the priors."""
        A = self.random_centering
        D = A @ (corr_b * np.outer(sd_b, sd_b)) @ A.T
        sd = np.sqrt(np.diag(D))
        return sd, D / np.outer(sd, sd)

    def to_frame(self) -> pd.DataFrame:
        """One row per parameter: its name and its prior."""
        moved = np.any(self.random_center)
        rows = [(c, str(p)) for c, p in zip(self.stated_coef, self.beta, strict=True)]
        if self.common_sd:
            rows.append(("sd(all random effects)", str(self.sd_b[0])))
        else:
            rows += [(name, str(p)) for name, p in zip(self.stated_sd, self.sd_b, strict=True)]
        if self.corr_b is not None and self.common_sd:
            low = f"{lowest_corr(self.n_own):.3g}"
            uniform = f", that is Uniform({low}, 1)" if self.corr_b.eta == 1.0 else f" between {low} and 1"
            rows.append(("corr(all random effects)", f"{self.corr_b} with all correlations equal{uniform}"))
        elif self.corr_b is not None:
            rows.append((f"corr{AVERAGE}" if moved else "corr", str(self.corr_b)))
        rows += [(name, str(p)) for name, p in zip(self.residual_names, self.residual, strict=True)]
        rows += [(name, str(p)) for name, p in zip(self.dispersion_names, self.dispersion, strict=True)]
        if self.sigma is not None:
            rows.append(("sigma (of the average row)" if self.average_row else "sigma", str(self.sigma)))
        return pd.DataFrame(rows, columns=["parameter", "prior"]).set_index("parameter")

    @property
    def table(self) -> pd.DataFrame:
        """One row per parameter: its name and its prior."""
        return self.to_frame()

    def _page(self) -> Page:
        frame = self.to_frame()
        width = max(len(str(name)) for name in frame.index)
        lines = [f"  {name!s:<{width}}  {prior}" for name, prior in frame["prior"].items()]
        origin = {"default": "defaults, scaled to the data", "bambi": "Bambi's defaults", "chosen": "as chosen"}
        return Page(f"Priors ({origin[self.source]})", [Table(frame, lines, "Prior of each parameter", index=True)])
