"""Priors of the two-level model: what the user chose, and every prior filled in for a design.

The intercept's prior is that of the *centred* design, ``alpha = beta_0 + sum_k mean(x_k) beta_k``: the expected
response at the average covariates. Likewise a coefficient of the intercept's level-2 equation that has an interaction
with a level-1 covariate beside it (sex beside sex:time) is that at the average of the covariate, ``beta* = (I + S)
beta``, S holding the averages. With normal priors there, the coefficients themselves are jointly normal,
``beta = T (alpha, beta*) ~ N(m0, inv(P0))`` with ``T = (I - S) [[1, -mean(x*)'], [0, I]]``: what a sampler that
integrates beta out needs.

Defaults, with standard deviations computed with divisor N as in Bambi (y less its offset):

    alpha      ~ Normal(mean(y), 2.5 sd(y))
    beta_k     ~ Normal(0, 2.5 sd(y) / sd(x_k)),    sd(x_k) with the level-1 covariates centred
    sd(b_k)    ~ HalfNormal(2.5 sd(y) / sd(z_k)),   sd(z) taken as 1 for the intercept
    corr(b)    ~ LKJ(2);   where all correlations are equal, Uniform(-1/(q - 1), 1)
    sigma      ~ HalfStudentT(4, sd(y))

Beside correlated slopes the random intercept, too, is that of centred columns: the priors are those of
``D* = A D A'``, ``A = [[1, mean(z)'], [0, I]]``, in which the intercept is the subject's line at average covariates, so
that the zero of a covariate (a calendar year) says nothing. A prior that the user gives sd(b_0) is of b_0 as written.

Without a fixed intercept coefficients are deviations from zero, not from the mean, so sd(y) and sd(x_k) become
root mean squares for beta (and for sd(b), sigma where the columns of X do not add up to a constant either).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.bayes.distributions import (
    LKJ,
    Distribution,
    Exponential,
    Gamma,
    HalfCauchy,
    HalfNormal,
    HalfStudentT,
    LogNormal,
    Normal,
    Prior,
    ScaledBeta,
    StudentT,
    Uniform,
    number,
)
from hierlmm.covariance.parameters import Parameter
from hierlmm.covariance.random import SPECTRAL, lowest_corr
from hierlmm.design.design import Design
from hierlmm.design.formula import INTERCEPT
from hierlmm.errors import NotAvailableError, SpecificationError, closest
from hierlmm.frames import shorten
from hierlmm.likelihood.residual_rows import residual_rows
from hierlmm.options import checked_with_constructor

__all__ = [
    "LKJ",
    "Exponential",
    "Gamma",
    "HalfCauchy",
    "HalfNormal",
    "HalfStudentT",
    "LogNormal",
    "Normal",
    "Prior",
    "Priors",
    "ResolvedPriors",
    "ScaledBeta",
    "StudentT",
    "Uniform",
    "resolve_priors",
]

FloatArray = NDArray[np.float64]
SEE = "docs, page 'Priors'"
MULTIPLIER = 2.5
AVERAGE = " (at average covariates)"
POSITIVE = "HalfNormal, HalfStudentT, HalfCauchy or Gamma"
REAL = "Normal or StudentT"
RESIDUAL = "Uniform or Normal, or LogNormal for a distance or ratio"


@checked_with_constructor
@dataclass(frozen=True)
class Priors:
    """Priors that replace the defaults; what is None keeps its default.

    Parameters
    ----------
    intercept : Prior, optional
        Of the intercept at the centred design (the expected response at average covariates), in units of the response.
    beta : Prior or mapping of str to Prior, optional
        One prior for all other fixed coefficients, or by coefficient name; of the coefficient as written, also where
        the default is stated at average covariates (sex beside sex:time).
    sd_b : Prior or mapping of str to Prior, optional
        One prior for all random-effect standard deviations, or by term name. The default of a random intercept that is
        correlated with slopes is stated at the average covariates, together with its correlations; one that is given
        here is of the intercept as written, where the covariates are zero, and so are its correlations then. Under
        ``covariance="identity"`` and ``"compound_symmetry"`` there is one standard deviation and so one prior.
    corr_b : LKJ, optional
        Of the correlation matrix of each block of correlated random effects, with the intercept at the average
        covariates unless its standard deviation is given. Under ``"compound_symmetry"`` the density
        of the one correlation r is that of LKJ on the line of equal correlations, ``(1 - r)^((q-1)(eta-1)) (1 +
        (q - 1) r)^(eta-1)``; the default there is ``LKJ(1)``, uniform between -1/(q - 1) and 1.
    sigma : Prior, optional
        Of the residual standard deviation.
    residual : mapping of str to Prior, optional
        Of parameters of the residual structure, by name (``{"rho": Uniform(0, 1)}``); cut off at a parameter's range.

    Raises
    ------
    SpecificationError
        If something is not a prior, or a standard deviation gets a prior that allows negative values.

    Examples
    --------
    >>> import hierlmm as hl
    >>> priors = hl.Priors(beta={"time": hl.Normal(0, 1)}, sd_b=hl.HalfStudentT(4, 2), corr_b=hl.LKJ(1))
    >>> priors.corr_b
    LKJ(eta=1)
    """

    intercept: Prior | None = None
    beta: Prior | Mapping[str, Prior] | None = None
    sd_b: Prior | Mapping[str, Prior] | None = None
    corr_b: LKJ | None = None
    sigma: Prior | None = None
    residual: Any = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Mapping):
                if field.name not in ("beta", "sd_b", "residual"):
                    raise SpecificationError(
                        f"{field.name}={value!r}",
                        f"{field.name!r} is one parameter and takes one prior",
                        f"write Priors({field.name}=...) with a single prior",
                        SEE,
                    )
                for name, prior in value.items():
                    _check_kind(f"{field.name}[{name!r}]", field.name, prior)
            elif value is not None:
                if field.name == "residual":
                    raise SpecificationError(
                        f"residual={value}",
                        "the parameters of a residual structure have different ranges",
                        "name them: Priors(residual={'rho': Uniform(-1, 1)})",
                        SEE,
                    )
                _check_kind(field.name, field.name, value)

    def resolve(self, design: Design) -> ResolvedPriors:
        """Fill in the defaults for a design and check the names.

        Parameters
        ----------
        design : Design
            Of the model: ``model.design``.

        Raises
        ------
        SpecificationError
            If a name is no coefficient or term of the model, or a prior is given for something the model lacks.
        """
        default = _default_priors(design)
        if self.intercept is not None and design.intercept is None:
            raise SpecificationError(
                f"intercept={self.intercept}",
                "the model has no fixed intercept",
                "leave it out, or put the intercept back into the formula",
                SEE,
            )
        slopes = [c for i, c in enumerate(design.coef) if i != design.intercept]
        chosen_beta = _spread(self.beta, slopes, "beta", "fixed coefficient")
        if self.sd_b is not None and not design.term:
            raise SpecificationError(
                "sd_b for a marginal model" if not isinstance(self.sd_b, Distribution) else f"sd_b={self.sd_b}",
                "a marginal model has no random effects",
                "leave sd_b out, or use hl.TwoLevelModel",
                SEE,
            )
        chosen_sd = _spread(self.sd_b, list(design.term), "sd_b", "random effect")
        chosen_residual = _spread(self.residual, list(default.residual_names), "residual", "residual parameter")
        if default.common_sd and isinstance(self.sd_b, Mapping):
            raise SpecificationError(
                f"sd_b={{{', '.join(map(repr, self.sd_b))}}}",
                f"covariance={design.covariance!r} has one standard deviation common to all random effects",
                "give one prior, for example sd_b=HalfNormal(1)",
                SEE,
            )
        if self.corr_b is not None and default.corr_b is None:
            raise SpecificationError(
                f"corr_b={self.corr_b}",
                "the random effects of this model are not correlated",
                "leave it out, or use covariance='unstructured' (a single bar in the formula)",
                SEE,
            )
        if chosen_residual:
            _check_overlap(chosen_residual, residual_rows(design).parameters)
        beta = tuple(chosen_beta.get(c, p) for c, p in zip(design.coef, default.beta, strict=True))
        if design.intercept is not None and self.intercept is not None:
            beta = tuple(self.intercept if i == design.intercept else p for i, p in enumerate(beta))
        # What was given is about the coefficient as written.
        shift = default.shift * np.array([c not in chosen_beta for c in design.coef])[:, None]
        untouched = all(getattr(self, field.name) is None for field in fields(self))
        return ResolvedPriors(
            coef=default.coef,
            term=default.term,
            beta=beta,
            sd_b=tuple(chosen_sd.get(t, p) for t, p in zip(design.term, default.sd_b, strict=True)),
            corr_b=self.corr_b or default.corr_b,
            sigma=self.sigma or default.sigma,
            center=_center(design, shift),
            intercept=default.intercept,
            shift=shift,
            random_center=np.zeros(len(design.term)) if INTERCEPT in chosen_sd else default.random_center,
            common_sd=default.common_sd,
            source="default" if untouched else "chosen",
            residual_names=default.residual_names,
            average_row=default.average_row,
            residual=tuple(
                chosen_residual.get(n, p) for n, p in zip(default.residual_names, default.residual, strict=True)
            ),
        )


@dataclass(frozen=True, eq=False)
class ResolvedPriors:
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
    sigma : Prior
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
    """

    coef: tuple[str, ...]
    term: tuple[str, ...]
    beta: tuple[Prior, ...]
    sd_b: tuple[Prior, ...]
    corr_b: LKJ | None
    sigma: Prior
    center: FloatArray
    intercept: int | None
    shift: FloatArray
    random_center: FloatArray
    common_sd: bool
    source: str
    residual_names: tuple[str, ...] = ()
    residual: tuple[Prior, ...] = ()
    average_row: bool = False

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
            T[self.term.index(INTERCEPT)] -= self.random_center
        return T

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
            raise NotAvailableError(
                f"the normal prior of beta, with {other[0]}",
                "the coefficients are jointly normal only if every one of their priors is normal",
                "use Normal(...) priors for the fixed effects, or the explicit sampler",
                SEE,
            )
        normal = [p for p in self.beta if isinstance(p, Normal)]
        mean = np.array([p.mean for p in normal], dtype=float)
        precision = np.array([p.sd**-2.0 for p in normal], dtype=float)
        back = self.centering
        return self.uncentering @ mean, back.T @ (precision[:, None] * back)

    def logpdf(self, beta: FloatArray, sd_b: FloatArray, corr_b: FloatArray, sigma: float, blocks: Any) -> float:
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
            k, given = self.term.index(INTERCEPT), sd_b
            sd_b, corr_b = self.centred_random(sd_b, corr_b)
            size = next(len(block) for block in blocks if k in block)
            jacobian = size * float(np.log(given[k] / sd_b[k]))  # D* has that of D, which has size factors of each sd
        centred = self.centering @ np.asarray(beta, dtype=float)
        total = jacobian + sum(float(p.logpdf(v)) for p, v in zip(self.beta, centred, strict=True))
        sds = list(zip(self.sd_b, sd_b, strict=True))[: 1 if self.common_sd else None]
        total += sum(float(p.logpdf(v)) for p, v in sds) + float(self.sigma.logpdf(sigma))
        if self.common_corr:
            total += float(self.corr_b.logpdf_equal(corr_b[0, 1], len(self.term)))  # type: ignore[union-attr]
        elif self.corr_b is not None:
            total += sum(float(self.corr_b.logpdf(corr_b[np.ix_(b, b)])) for b in blocks if len(b) > 1)
        return total

    @property
    def stated_coef(self) -> tuple[str, ...]:
        """Names of the coefficients, with where their priors are stated."""
        moved = np.any(self.centering != np.eye(len(self.coef)), axis=1)
        return tuple(f"{c}{AVERAGE}" if there else c for c, there in zip(self.coef, moved, strict=True))

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
            place = {INTERCEPT: AVERAGE} if moved else {}
            rows += [(f"sd({t}){place.get(t, '')}", str(p)) for t, p in zip(self.term, self.sd_b, strict=True)]
        if self.corr_b is not None and self.common_sd:
            low = f"{lowest_corr(len(self.term)):.3g}"
            uniform = f", that is Uniform({low}, 1)" if self.corr_b.eta == 1.0 else f" between {low} and 1"
            rows.append(("corr(all random effects)", f"{self.corr_b} with all correlations equal{uniform}"))
        elif self.corr_b is not None:
            rows.append((f"corr{AVERAGE}" if moved else "corr", str(self.corr_b)))
        rows += [(name, str(p)) for name, p in zip(self.residual_names, self.residual, strict=True)]
        rows.append(("sigma (of the average row)" if self.average_row else "sigma", str(self.sigma)))
        return pd.DataFrame(rows, columns=["parameter", "prior"]).set_index("parameter")

    def __str__(self) -> str:
        frame = self.to_frame()
        width = max(len(str(name)) for name in frame.index)
        lines = [f"  {name!s:<{width}}  {prior}" for name, prior in frame["prior"].items()]
        origin = {"default": "defaults, scaled to the data", "bambi": "Bambi's defaults", "chosen": "as chosen"}
        return "\n".join([f"Priors ({origin[self.source]})", *lines])

    __repr__ = __str__


def resolve_priors(priors: Priors | str | ResolvedPriors | None, design: Design) -> ResolvedPriors:
    """Fill in every prior for a design.

    Parameters
    ----------
    priors : None, Priors, "bambi" or ResolvedPriors
        None for the defaults; ``"bambi"`` for exactly the defaults of Bambi 0.21; priors already resolved are
        returned as they are.
    design : Design

    Raises
    ------
    SpecificationError
    """
    if isinstance(priors, ResolvedPriors):
        return priors
    if priors is None:
        return _default_priors(design)
    if isinstance(priors, Priors):
        return priors.resolve(design)
    if isinstance(priors, str) and priors.lower() == "bambi":
        return _bambi_priors(design)
    raise SpecificationError(
        f"priors={priors!r}",
        f"this is not a set of priors.{closest(priors, ['bambi']) if isinstance(priors, str) else ''}",
        "pass priors=None (defaults), Priors(...) or 'bambi'",
        SEE,
    )


def _default_priors(design: Design) -> ResolvedPriors:
    y = design.y - design.offset
    spread = float(np.std(y))
    has_intercept = design.intercept is not None
    origin = float(np.sqrt(np.mean(y**2)))
    level = spread if design.constant is not None else origin
    _check_varies(y, design)
    shift = _shift_to_averages(design)
    at_average = design.X - design.X @ shift
    sd = np.empty(len(design.coef))
    for k in range(len(design.coef)):
        if k == design.intercept:
            sd[k] = MULTIPLIER * spread
        elif has_intercept:
            sd[k] = MULTIPLIER * spread / _scale(at_average[:, k])
        else:
            sd[k] = MULTIPLIER * origin / float(np.sqrt(np.mean(at_average[:, k] ** 2)))
    beta = [Normal(float(np.mean(y)) if k == design.intercept else 0.0, float(sd[k])) for k in range(len(sd))]
    scales = [1.0 if t == INTERCEPT else _scale(design.Z[:, k]) for k, t in enumerate(design.term)]
    sd_b = [MULTIPLIER * level / s for s in scales]
    return _assemble(design, beta, sd_b, HalfStudentT(4.0, level), "default", shift, _random_center(design))


def _center(design: Design, shift: FloatArray) -> FloatArray:
    """Means of the columns of X at average level-1 covariates, for the intercept of the centred design: (p,)."""
    if design.intercept is None:
        return np.zeros(len(design.coef))
    center = (design.X - design.X @ shift).mean(axis=0)
    center[design.intercept] = 0.0
    return center


def _shift_to_averages(design: Design) -> FloatArray:
    """How coefficients change if the level-1 covariates are centred: ``beta* = (I + shift) beta``, (p, p).

    The mean of a level-1 column times its coefficient goes into the level-2 equation of the intercept, where that holds
    the same level-2 covariate (``sex`` beside ``sex:time``); elsewhere nothing is moved.
    """
    shift = np.zeros((len(design.coef),) * 2)
    if INTERCEPT not in design.level1:
        return shift
    zero = design.level1.index(INTERCEPT)
    own, others = np.flatnonzero(design.coef_level1 == zero), np.flatnonzero(design.coef_level1 != zero)
    if len(own) and len(others):
        a = np.linalg.lstsq(design.W[:, own], design.W[:, others])[0]
        found = np.abs(design.W[:, own] @ a - design.W[:, others]).max(axis=0)
        held = found < 1e-9 * np.abs(design.W[:, others]).max(axis=0)
        moved = design.X1.mean(axis=0)[design.coef_level1[others]] * np.where(np.abs(a) < 1e-9, 0.0, a)
        shift[np.ix_(own, others[held])] = moved[:, held]
    if design.intercept is not None:
        shift[design.intercept] = 0.0  # the centred design's intercept is at the averages anyway
    return shift


def _random_center(design: Design) -> FloatArray:
    """Means of the columns of Z that correlate with a random intercept: (q,)."""
    center = np.zeros(len(design.term))
    if INTERCEPT in design.term and design.covariance not in SPECTRAL:
        k = design.term.index(INTERCEPT)
        others = [m for block in design.blocks if k in block for m in block if m != k]
        center[others] = design.Z[:, others].mean(axis=0)
    return center


def _bambi_priors(design: Design) -> ResolvedPriors:
    """Defaults of Bambi 0.21 (``bambi/priors/scaler.py``): the intercept's scale grows with the slopes' scales."""
    spread, mean = float(np.std(design.y)), float(np.mean(design.y))
    _check_varies(design.y, design)
    slopes = {k: MULTIPLIER * spread / _scale(design.X[:, k]) for k in range(len(design.coef)) if k != design.intercept}
    wide = math.sqrt((MULTIPLIER * spread) ** 2 + sum((s * design.X[:, k].mean()) ** 2 for k, s in slopes.items()))
    beta = [Normal(mean, wide) if k == design.intercept else Normal(0.0, slopes[k]) for k in range(len(design.coef))]
    sd_b = [wide if t == INTERCEPT else MULTIPLIER * spread / _scale(design.Z[:, k]) for k, t in enumerate(design.term)]
    return _assemble(
        design, beta, sd_b, HalfStudentT(4.0, spread), "bambi", np.zeros((len(beta),) * 2), np.zeros(len(design.term))
    )


def _assemble(
    design: Design,
    beta: Any,
    sd_b: list[float],
    sigma: Prior,
    source: str,
    shift: FloatArray,
    random_center: FloatArray,
) -> ResolvedPriors:
    common = design.covariance in SPECTRAL
    if common:  # wide enough for every random effect
        sd_b = [max(sd_b)] * len(sd_b)
    correlated = any(len(b) > 1 for b in design.blocks)
    parameters = residual_rows(design).parameters if design.has_residual_structure else ()
    return ResolvedPriors(
        coef=design.coef,
        term=design.term,
        beta=tuple(beta),
        sd_b=tuple(HalfNormal(s) for s in sd_b),
        corr_b=LKJ(1.0 if common else 2.0) if correlated else None,
        sigma=sigma,
        center=_center(design, shift),
        intercept=design.intercept,
        shift=shift,
        random_center=random_center,
        common_sd=common,
        source=source,
        residual_names=tuple(p.name for p in parameters),
        residual=tuple(residual_prior(p) for p in parameters),
        average_row=design.residual_variance is not None and design.residual_variance.centred,
    )


def residual_prior(parameter: Parameter) -> Prior:
    """Default prior of a residual parameter: symmetric over a bounded range, else around its starting value."""
    if math.isinf(parameter.lower):
        return Normal(parameter.start, parameter.spread)
    if math.isinf(parameter.upper):
        return LogNormal(parameter.start, parameter.spread)
    if parameter.shape == 1.0:
        return Uniform(parameter.lower, parameter.upper)
    return ScaledBeta(parameter.shape, parameter.lower, parameter.upper)


def _varies(column: FloatArray) -> bool:
    """Whether a column's standard deviation is more than rounding: that of a constant is seldom exactly zero."""
    return float(np.std(column)) > 1e-12 * float(np.abs(column).max(initial=0.0))


def _scale(column: FloatArray) -> float:
    return float(np.std(column)) if _varies(column) else float(np.sqrt(np.mean(column**2)))


def _check_varies(y: FloatArray, design: Design) -> None:
    if not _varies(y):
        raise SpecificationError(
            f"the response {design.hierarchy.response!r}, which is constant",
            "the default priors take their scale from its standard deviation, which is zero",
            "check the response; a constant needs no model",
            SEE,
        )


def _check_kind(what: str, role: str, prior: Any) -> None:
    if role == "corr_b":
        if not isinstance(prior, LKJ):
            raise SpecificationError(
                f"{what}={prior}", "correlations take an LKJ prior", "write corr_b=LKJ(2); LKJ(1) is uniform", SEE
            )
        return
    positive = role in ("sd_b", "sigma")
    choices = POSITIVE if positive else RESIDUAL if role == "residual" else REAL
    if not isinstance(prior, Prior):
        raise SpecificationError(f"{what}={prior!r}", "this is not a prior of one number", f"use {choices}", SEE)
    if positive and not prior.is_positive:
        half = {
            "Normal": "HalfNormal(sd)",
            "StudentT": "HalfStudentT(nu, scale)",
            "Uniform": "Uniform(0, upper), of hierlmm.bayes.distributions, or HalfNormal(sd)",
        }.get(type(prior).__name__, "HalfNormal(sd)")
        raise SpecificationError(
            f"{what}={prior}", "a standard deviation cannot be negative, and this prior can", f"use {half}", SEE
        )


def _check_overlap(chosen: Mapping[str, Prior], parameters: tuple[Parameter, ...]) -> None:
    """Refuse a prior without mass inside its parameter's range."""
    for parameter in parameters:
        prior = chosen.get(parameter.name)
        if prior is not None and not max(prior.support[0], parameter.lower) < min(prior.support[1], parameter.upper):
            raise SpecificationError(
                f"residual[{parameter.name!r}]={prior}",
                f"the prior has no mass between {number(parameter.lower)} and {number(parameter.upper)}, the range of "
                f"{parameter.name}",
                "use a prior that overlaps with that range",
                SEE,
            )


def _spread(value: Prior | Mapping[str, Prior] | None, names: list[str], role: str, kind: str) -> dict[str, Prior]:
    """One prior for all, or by name, as a mapping; unknown names raise."""
    if value is None:
        return {}
    if isinstance(value, Distribution):
        return dict.fromkeys(names, value)
    for name in value:
        if name in names:
            continue
        if role == "beta" and name == INTERCEPT:
            raise SpecificationError(
                f"beta[{name!r}]",
                "the intercept's prior is that of the centred design, and has an argument of its own",
                f"write Priors(intercept={value[name]})",
                SEE,
            )
        raise SpecificationError(
            f"{role}[{name!r}]",
            f"the model has no {kind} of this name.{closest(name, names)}",
            f"use one of: {shorten(names)}" if names else f"leave {role} out",
            SEE,
        )
    return dict(value)
