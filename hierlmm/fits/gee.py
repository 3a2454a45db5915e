"""The GEE fit of a marginal model, frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, NoReturn, Self, get_args

import numpy as np
import pandas as pd
from scipy.stats import norm

from hierlmm.arrays import FloatArray
from hierlmm.bayes.tree import observed_data
from hierlmm.design.design import Design
from hierlmm.errors import NotAvailableError, SpecificationError
from hierlmm.families.family import Family
from hierlmm.fits.base import Fit
from hierlmm.fits.capabilities import GEE, Lack
from hierlmm.fits.occasions import MOST
from hierlmm.frames import occasions_in_use, quote
from hierlmm.gee.estimate import GEEEstimate
from hierlmm.gee.record import StandardError
from hierlmm.options import check_ci, check_counts, checked, choose

OnScale = Literal["response", "link"]
MarginalLevel = Literal["population", "marginal"]
LEVELS = ("population", "marginal")
SEE = "docs, page 'GEE'"
APPROXIMATION = "beta drawn from a normal distribution with the {} covariance; nothing else is estimated by GEE"


@checked
@dataclass(frozen=True, eq=False, repr=False)
class GEENumbers(Fit):
    """A marginal model fitted by generalised estimating equations.

    Its attributes are described where users meet them: `hierlmm.fit.gee.GEEFit`.
    """

    design: Design
    estimate: GEEEstimate
    time: str | None = None
    se: StandardError = "robust"
    warnings: tuple[str, ...] = ()
    estimator = "GEE"
    lacks: ClassVar[Mapping[str, Lack]] = GEE
    has_working_correlation: ClassVar[bool] = True

    def with_se(self, se: StandardError) -> Self:
        """Return the same fit with another default standard error.

        Parameters
        ----------
        se : {"robust", "naive", "bias_reduced"}
            The standard error.
        """
        self.covariance(se)
        return replace(self, se=se)

    @property
    def beta(self) -> pd.Series:
        """Coefficients of the marginal mean, Series by ``coef``."""
        return pd.Series(self.estimate.beta, index=pd.Index(self.design.coef, name="coef"), name="beta").copy()

    @property
    def beta_cov(self) -> pd.DataFrame:
        """Covariance of the coefficients (``self.se`` says which), ``coef`` × ``coef``."""
        return self.covariance()

    def covariance(self, se: StandardError | None = None) -> pd.DataFrame:
        """Covariance of the coefficients, ``coef`` × ``coef``.

        Parameters
        ----------
        se : {"robust", "naive", "bias_reduced"}, optional
            Sandwich; model-based, right only if the working correlation is; or the sandwich with Mancl and DeRouen's
            correction for few subjects. The fit's own default if left out.

        Raises
        ------
        NotAvailableError
            For ``"bias_reduced"`` where a subject alone determines a coefficient.
        """
        kind = self.se if se is None else se
        choose("se", kind, get_args(StandardError))
        values = getattr(self.estimate, f"cov_{kind}")
        if values is None:
            names = ", ".join(quote(self.design.subjects[i]) for i in self.estimate.alone)
            raise NotAvailableError(
                "bias-reduced standard errors of this fit",
                f"without subject {names} a coefficient would not be determined, and the correction divides by zero",
                "use se='naive', or take the term out that belongs to one subject alone",
                SEE,
            )
        index = pd.Index(self.design.coef, name="coef")
        return pd.DataFrame(values, index=index, columns=index).copy()

    def standard_errors(self) -> pd.DataFrame:
        """Naive, robust and bias-reduced standard errors side by side, by ``coef`` (NaN where one does not exist)."""
        columns = {}
        for kind in ("naive", "robust", "bias_reduced"):
            values = getattr(self.estimate, f"cov_{kind}")
            columns[kind] = np.full(len(self.design.coef), np.nan) if values is None else np.sqrt(np.diag(values))
        return pd.DataFrame(columns, index=pd.Index(self.design.coef, name="coef"))

    def summary(self, ci: float = 0.95, se: StandardError | None = None) -> pd.DataFrame:
        """Coefficients: estimate, se, lower, upper (normal quantiles), z = estimate / se and its two-sided p value.

        Parameters
        ----------
        ci : float
            Probability of the interval.
        se : {"robust", "naive", "bias_reduced"}, optional
            The fit's own default if left out.
        """
        quantile = float(norm.ppf(0.5 + check_ci(ci) / 2.0))
        beta = self.beta
        error = pd.Series(np.sqrt(np.diag(self.covariance(se))), index=beta.index)
        with np.errstate(divide="ignore", invalid="ignore"):
            z = beta / error
        return pd.DataFrame(
            {
                "estimate": beta,
                "se": error,
                "lower": beta - quantile * error,
                "upper": beta + quantile * error,
                "z": z,
                "p": 2.0 * norm.sf(np.abs(z)),
            }
        )

    @property
    def family(self) -> Family:
        """Distribution of the response: its mean and its variance are used."""
        return self.design.family

    @property
    def dispersion(self) -> pd.Series:
        """Shape of a negative binomial, which GEE takes as known; empty for other families (their φ is ``scale``)."""
        found = self.family.natural(self.estimate.psi) if self.family.name == "negative_binomial" else {}
        return pd.Series(found, dtype=float, name="dispersion")

    def qic(self, scale: float = 1.0) -> pd.Series:
        """Quasi-likelihood information criteria (Pan 2001), smaller is better.

        ``QIC`` compares working correlations and means, ``QICu`` means; both are of fits to the same rows.

        Parameters
        ----------
        scale : float
            Dispersion of the quasi-likelihood, the same for all fits that are compared: 1 (R's geepack), or
            ``fit.scale`` of the largest model, which a Gaussian response needs.

        Returns
        -------
        pandas.Series
            ``QIC``, ``QICu``, ``quasi-likelihood``, ``CIC`` (the trace in QIC) and ``parameters``.
        """
        from hierlmm.gee.qic import quasi_information

        if not scale > 0.0:
            raise SpecificationError(f"scale={scale!r}", "a dispersion is positive", "use 1, or fit.scale", SEE)
        return quasi_information(self.design, self.estimate, scale)

    @property
    def correlation(self) -> str:
        """Structure of the working correlation."""
        return self.estimate.correlation

    @property
    def correlation_parameters(self) -> pd.Series:
        """Parameters of the working correlation: ``alpha``, or ``alpha(s, t)`` for every pair of times (or none)."""
        value = self.estimate.moments.parameter
        if self.correlation == "independence":
            return pd.Series(dtype=float, name="correlation")
        if self.correlation != "unstructured":
            return pd.Series({"alpha": float(value)}, name="correlation")
        at = self.estimate.positions
        a, b = np.triu_indices(len(at), 1)
        names = [f"alpha({at[i]}, {at[j]})" for i, j in zip(a, b, strict=True)]
        return pd.Series(np.asarray(value)[a, b], index=names, name="correlation")

    def working_correlation(self, subject: Any = None) -> pd.DataFrame:
        """Working correlation R_i: of all times of an ``"unstructured"`` or ``"ar1"`` one, or of one subject's rows.

        Parameters
        ----------
        subject : optional
            Label of the subject. The default of a correlation without times, or of times that differ between subjects,
            is the subject with most rows.
        """
        if subject is None and (found := self._by_time()) is not None:
            return found
        i = self._subject(subject)
        index = self.design.frame.index[self.design.subject_index == i]
        return pd.DataFrame(self.estimate.working_correlation(i), index=index, columns=index)

    def marginal_covariance(self, subject: Any = None) -> pd.DataFrame:
        """Working covariance ``φ A_i^½ R_i A_i^½`` with the family's variances ``A_i``.

        Parameters
        ----------
        subject : optional
            Label of the subject. By default all times where ``working_correlation()`` has them and the variance is the
            same for all rows (a Gaussian response without weights), else the subject with most rows.
        """
        if subject is None and self.design.is_gaussian and self.design.weights is None:
            return self.scale * self.working_correlation()
        i = self._subject(subject)
        sd = self._row_sd()[self.design.subject_index == i]
        return self.working_correlation(self.design.subjects[i]) * np.outer(sd, sd)

    def _by_time(self) -> pd.DataFrame | None:
        """The working correlation of all times; None where it has none, or they are not planned ones."""
        known, estimate = self.design.frame.get(self.time), self.estimate
        if self.correlation == "unstructured":
            labels = occasions_in_use(pd.Series(estimate.positions) if known is None else known)[0]
            position = np.array([estimate.positions.index(label) for label in labels], dtype=np.float64)
        elif self.correlation == "ar1" and known is not None and known.nunique() <= MOST:
            labels = sorted(known.unique().tolist())
            position = (np.array(labels, dtype=np.float64) - labels[0]) / float(estimate.spacing or 1.0)
        else:
            return None
        index = pd.Index(labels, name=self.time)
        return pd.DataFrame(estimate.moments.matrix(position), index=index, columns=index)

    def _row_sd(self) -> FloatArray:
        """SD of every row around the marginal mean, (N,): √φ times that of its family."""
        design, family = self.design, self.family
        mu = family.mean(design.offset + design.X @ self.estimate.beta)
        return np.sqrt(self.scale * family.variance(mu, self.estimate.psi, design.trials) / design.known_weights)

    def _subject(self, subject: Any) -> int:
        design = self.design
        if subject is None:
            return int(np.argmax(design.rows_per_subject))
        return design.position(subject)

    @property
    def scale(self) -> float:
        """Dispersion φ: the variance of a row around the marginal mean, in units of the family's variance.

        Pearson's χ² (for a Gaussian response the residual sum of squares) divided by N − p or N.
        """
        return self.estimate.scale

    @property
    def sigma(self) -> float:
        """Standard deviation of a row, √scale, if the model has no random effects.

        Raises
        ------
        NotAvailableError
            For a two-level model, whose σ is the standard deviation *within* subjects, and for families without σ.
        """
        if self.family.name != "gaussian":
            self._lacks(
                "sigma",
                f"the variance of a {self.family.title} response follows from its mean",
                "use fit.scale, the factor of that variance",
            )
        if self.design.term:
            self._lacks(
                "sigma",
                "it does not divide the variance between and within subjects; fit.scale is their sum",
                "use fit_reml() for sigma, or fit.scale for the variance of a row",
            )
        return float(np.sqrt(self.scale))

    @property
    def converged(self) -> bool:
        """Whether the estimating equations are solved."""
        return self.estimate.converged

    def fitted(  # type: ignore[override]
        self, level: MarginalLevel = "population", scale: OnScale = "response"
    ) -> pd.Series:
        """Marginal means of the rows used.

        Parameters
        ----------
        level : {"population", "marginal"}
            Two words for the same line.
        scale : {"response", "link"}
            Means (of a binomial response numbers of successes), or linear predictors.
        """
        self._choose_level(level)
        choose("scale", scale, ("response", "link"))
        values = self.design.offset + self.design.X @ self.estimate.beta
        if scale == "response" and not self.design.is_gaussian:
            values = self.family.mean(values) * self.design.trials
        return pd.Series(values, index=self.design.frame.index, name="fitted")

    def residuals(  # type: ignore[override]
        self, kind: Literal["response", "pearson", "normalized"] = "response", level: MarginalLevel = "population"
    ) -> pd.Series:
        """Residuals around the marginal mean.

        Parameters
        ----------
        kind : {"response", "pearson", "normalized"}
            In units of the response; divided by the SD of the row (√φ for a Gaussian response); or with the working
            correlation taken out as well, ``L⁻¹ r_i`` with the working covariance ``L L'``.
        level : {"population", "marginal"}
            Two words for the same line.
        """
        choose("kind", kind, ("response", "pearson", "normalized"))
        residual = self.design.y - self.fitted(level).to_numpy()
        if kind != "response":
            residual = residual / self._row_sd()
        if kind == "normalized":
            order, start = self.estimate.order, self.estimate.moments.rows.start
            for i in range(self.n_subjects):
                own = np.sort(order[start[i] : start[i + 1]])
                L = np.linalg.cholesky(self.estimate.working_correlation(i))
                residual[own] = np.linalg.solve(L, residual[own])
        return pd.Series(residual, index=self.design.frame.index, name=f"{kind} residual")

    @property
    def with_subjects(self) -> str:
        """The estimator of the same model that has subjects: a family has no REML."""
        return "fit_reml" if self.design.is_gaussian else "fit_ml"

    def _choose_level(self, level: str) -> None:
        if level in ("subject", "new_subject"):
            self._lacks(
                f"level={level!r}",
                "it describes the mean over subjects and has no subject's own line",
                f"use level='population' (or 'marginal', the same line), or {self.with_subjects}()",
            )
        choose("level", level, LEVELS)

    def to_datatree(self, draws: int = 1000, chains: int = 4, seed: int | None = 0) -> Any:
        """Draws of β from a normal distribution with the covariance ``se``, so that the fit enters any ArviZ function.

        The tree marks itself: ``attrs["approximation"]``. There are no chains in the sense of MCMC.

        Parameters
        ----------
        draws, chains : int
            Draws of each chain, and number of chains.
        seed : int, optional
            The same draws every time by default; None varies them.

        Returns
        -------
        xarray.DataTree
            Group ``posterior`` with ``beta``.
        """
        import xarray as xr

        check_counts(draws=draws, chains=chains)
        rng = np.random.default_rng(seed)
        if np.isnan(self.beta_cov.to_numpy()).any():
            self._lacks(
                f"draws of β with {self.se} standard errors",
                "some coefficients have none, see fit.warnings",
                "use se='naive' in fit_gee(), or take the term out that belongs to one subject alone",
            )
        values, vectors = np.linalg.eigh(self.beta_cov.to_numpy())
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        noise = rng.standard_normal((chains, draws, len(values)))
        posterior = xr.Dataset(
            {"beta": (("chain", "draw", "coef"), self.estimate.beta + noise @ root.T)},
            coords={"chain": np.arange(chains), "draw": np.arange(draws), "coef": list(self.design.coef)},
            attrs={
                "estimator": self.estimator,
                "approximation": APPROXIMATION.format(self.se),
                "seed": -1 if seed is None else seed,
            },
        )
        tree = xr.DataTree.from_dict({"posterior": posterior, "observed_data": observed_data(self.design)})
        tree.attrs.update(posterior.attrs)
        return tree

    @property
    def b_cov(self) -> FloatArray:
        """Not available: GEE has no random effects."""
        self._absent("b_cov")

    def _lacks(self, what: str, reason: str, remedy: str) -> NoReturn:
        raise Lack(reason, remedy, SEE).refusal(what, "GEE")

    @property
    def _time(self) -> str | None:
        return self.time

    @property
    def has_random_effects(self) -> bool:
        """False: the random effects of the model are dropped."""
        return False
