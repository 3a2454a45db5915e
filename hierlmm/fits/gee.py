"""The GEE fit of a marginal model, frozen."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, NoReturn, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import norm

from hierlmm.design.design import Design
from hierlmm.errors import DataError, NotAvailableError, SpecificationError, warn
from hierlmm.fits.base import Fit
from hierlmm.fits.gee_text import gee_html, gee_text
from hierlmm.frames import quote
from hierlmm.gee.estimate import GEEEstimate, Scale, describe_estimate, estimate_gee
from hierlmm.options import check_counts, checked, choose
from hierlmm.predict.lines import linear_prediction

__all__ = ["GEEFit", "StandardError", "fit_gee"]

FloatArray = NDArray[np.float64]
StandardError = Literal["robust", "naive", "bias_reduced"]
MarginalLevel = Literal["population", "marginal"]
LEVELS = ("population", "marginal")
SEE = "docs, page 'GEE'"
APPROXIMATION = "beta drawn from a normal distribution with the {} covariance; nothing else is estimated by GEE"


@checked
@dataclass(frozen=True, eq=False, repr=False)
class GEEFit(Fit):
    """A marginal model fitted by generalised estimating equations (made by ``model.fit_gee()``).

    GEE estimates the mean over subjects. It has a working correlation of the rows of a subject, but no random effects,
    no variance between subjects and no likelihood; asking for these raises a `NotAvailableError` that says so.

    Attributes
    ----------
    design : Design
        The data and matrices that were fitted; of the model's random effects nothing is used.
    estimate : GEEEstimate
        The solution, with the working correlation of every subject.
    time : str or None
        What the working correlation took as time.
    se : {"robust", "naive", "bias_reduced"}
        Which covariance ``beta_se``, ``beta_cov``, ``summary()`` and ``predict()`` use unless told otherwise;
        `with_se` gives the same fit with another.
    warnings : tuple of str
        What must be known before the fit is used, in plain words.
    """

    design: Design
    estimate: GEEEstimate
    time: str | None = None
    se: StandardError = "robust"
    warnings: tuple[str, ...] = ()
    estimator = "GEE"

    def with_se(self, se: StandardError) -> GEEFit:
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
        quantile = _quantile(ci)
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
        """Working correlation R_i of one subject's rows (of the subject with most rows by default).

        Parameters
        ----------
        subject : optional
            Label of the subject.
        """
        i = self._subject(subject)
        index = self.design.frame.index[self.design.subject_index == i]
        return pd.DataFrame(self.estimate.working_correlation(i), index=index, columns=index)

    def marginal_covariance(self, subject: Any = None) -> pd.DataFrame:
        """Working covariance ``φ R_i`` of one subject's rows (of the subject with most rows by default)."""
        return self.scale * self.working_correlation(subject)

    def _subject(self, subject: Any) -> int:
        design = self.design
        if subject is None:
            return int(np.argmax(design.rows_per_subject))
        return design.position(subject)

    @property
    def scale(self) -> float:
        """Dispersion φ: the variance of a row around the marginal mean, residual sum of squares / (N − p) or / N."""
        return self.estimate.scale

    @property
    def sigma(self) -> float:
        """Standard deviation of a row, √scale, if the model has no random effects.

        Raises
        ------
        NotAvailableError
            For a two-level model, whose σ is the standard deviation *within* subjects.
        """
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

    def fitted(self, level: MarginalLevel = "population") -> pd.Series:  # type: ignore[override]
        """Marginal means of the rows used."""
        self._level(level)
        values = self.design.offset + self.design.X @ self.estimate.beta
        return pd.Series(values, index=self.design.frame.index, name="fitted")

    def residuals(  # type: ignore[override]
        self,
        kind: Literal["response", "pearson", "normalized"] = "response",
        level: MarginalLevel = "population",
    ) -> pd.Series:
        """Residuals around the marginal mean.

        Parameters
        ----------
        kind : {"response", "pearson", "normalized"}
            In units of the response; divided by √φ; or with the working correlation taken out as well, ``L⁻¹ r_i``
            with ``φ R_i = L L'``.
        level : {"population", "marginal"}
            Two words for the same line.
        """
        choose("kind", kind, ("response", "pearson", "normalized"))
        residual = self.design.y - self.fitted(level).to_numpy()
        if kind != "response":
            residual = residual / np.sqrt(self.scale)
        if kind == "normalized":
            order, start = self.estimate.order, self.estimate.moments.rows.start
            for i in range(self.n_subjects):
                own = np.sort(order[start[i] : start[i + 1]])
                L = np.linalg.cholesky(self.estimate.working_correlation(i))
                residual[own] = np.linalg.solve(L, residual[own])
        return pd.Series(residual, index=self.design.frame.index, name=f"{kind} residual")

    def predict(
        self,
        newdata: Any = None,
        level: MarginalLevel = "population",
        interval: Literal["confidence", "credible"] | None = None,
        ci: float = 0.95,
        se: StandardError | None = None,
    ) -> pd.DataFrame:
        """Predict the marginal mean.

        Parameters
        ----------
        newdata : table, optional
            Rows to predict; the fitted rows by default. No subject is needed.
        level : {"population", "marginal"}
            Two words for the same line, with an identity link.
        interval : {"confidence"}, optional
            For the mean; normal, from the covariance ``se``. ``"credible"``, the word of posterior fits, means the same
            here.
        ci : float
            Probability of the interval.
        se : {"robust", "naive", "bias_reduced"}, optional
            The fit's own default if left out.

        Returns
        -------
        pandas.DataFrame
            ``estimate``, and with an interval ``se``, ``lower``, ``upper``; index of the rows. ``.attrs`` says in words
            what the interval contains.

        Raises
        ------
        NotAvailableError
            At ``level="subject"`` or ``"new_subject"``, and for ``interval="prediction"``: GEE has no distribution of
            subjects or measurements.
        """
        self._level(level)
        if interval == "prediction":
            self._lacks(
                "a prediction interval",
                "it assumes no distribution of the measurements, only their mean",
                "use interval='confidence' for the mean, or fit_reml().predict(level='new_subject')",
            )
        if interval is not None:
            choose("interval", interval, ("confidence", "credible"))
        return linear_prediction(
            self.design,
            self.estimate.beta,
            self.covariance(se).to_numpy(),
            newdata,
            level,
            interval,
            ci,
            contains=f"the uncertainty of the coefficients ({(se or self.se).replace('_', '-')} covariance)",
        )

    def predict_subject(self, history: Any, times: Any = None, **options: Any) -> pd.DataFrame:
        """Not available: GEE has no distribution of subjects, so a history says nothing about a subject's future.

        Parameters
        ----------
        history, times, **options
            Of the fits that have it.
        """
        self._no_dynamic_prediction("predict_subject")

    def plot_subject_prediction(self, history: Any, times: Any = None, **options: Any) -> Any:
        """Not available: see `predict_subject`."""
        self._no_dynamic_prediction("plot_subject_prediction")

    def _no_dynamic_prediction(self, what: str) -> NoReturn:
        self._lacks(
            what,
            "it assumes no distribution of a subject's measurements, so the first ones say nothing about the next",
            "use fit_reml().predict_subject(history, times), or predict() for the mean over subjects",
        )

    def _level(self, level: str) -> None:
        if level in ("subject", "new_subject"):
            self._lacks(
                f"level={level!r}",
                "it describes the mean over subjects and has no subject's own line",
                "use level='population' (or 'marginal', the same line), or fit_reml()",
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
        observed = xr.Dataset({"y": (("obs",), self.design.y)}, coords={"obs": np.arange(self.design.n_obs)})
        tree = xr.DataTree.from_dict({"posterior": posterior, "observed_data": observed})
        tree.attrs.update(posterior.attrs)
        return tree

    # What GEE does not have.

    def _lacks(self, what: str, reason: str, remedy: str) -> NoReturn:
        raise NotAvailableError(f"{what} of a fit by GEE", reason, remedy, SEE)

    def _no_random_effects(self, what: str) -> NoReturn:
        self._lacks(
            what,
            "GEE models the mean over subjects and has no random effects and no variance between subjects",
            "use fit_reml(), fit_ml() or fit(); for the correlation within subjects see fit.correlation_parameters",
        )

    def _no_likelihood(self, what: str) -> NoReturn:
        self._lacks(
            what,
            "GEE solves equations for the mean and has no likelihood",
            "use fit_ml(); to choose a working correlation compare standard_errors() under several",
        )

    @property
    def has_random_effects(self) -> bool:
        """False: the random effects of the model are dropped."""
        return False

    @property
    def D(self) -> pd.DataFrame:
        """Not available: GEE has no random effects."""
        self._no_random_effects("D")

    @property
    def b(self) -> pd.DataFrame:
        """Not available: GEE has no random effects."""
        self._no_random_effects("b")

    @property
    def b_sd(self) -> pd.DataFrame:
        """Not available: GEE has no random effects."""
        self._no_random_effects("b_sd")

    @property
    def sd_b(self) -> pd.Series:
        """Not available: GEE has no random effects."""
        self._no_random_effects("sd_b")

    @property
    def corr_b(self) -> pd.DataFrame:
        """Not available: GEE has no random effects."""
        self._no_random_effects("corr_b")

    @property
    def icc(self) -> float:
        """Not available: GEE has no random effects (an exchangeable alpha is its nearest relative)."""
        self._no_random_effects("icc")

    @property
    def subject_coef(self) -> pd.DataFrame:
        """Not available: GEE has no line of a subject's own."""
        self._no_random_effects("subject_coef")

    def variance_components(self, ci: float = 0.95) -> pd.DataFrame:
        """Not available: GEE has no random effects.

        Parameters
        ----------
        ci : float
            Of the fits that have it.
        """
        self._no_random_effects("variance_components")

    @property
    def loglik(self) -> float:
        """Not available: GEE has no likelihood."""
        self._no_likelihood("loglik")

    @property
    def is_singular(self) -> bool:
        """Not available: GEE has no random effects."""
        self._no_random_effects("is_singular")

    @property
    def b_cov(self) -> FloatArray:
        """Not available: GEE has no random effects."""
        self._no_random_effects("b_cov")

    def __repr__(self) -> str:
        return gee_text(self)

    def _repr_html_(self) -> str:
        return gee_html(self)


def _quantile(ci: float) -> float:
    if not 0.0 < ci < 1.0:
        raise SpecificationError(
            f"ci={ci!r}", "the probability of an interval lies between 0 and 1", "use ci=0.95 for 95 %"
        )
    return float(norm.ppf(0.5 + ci / 2.0))


@checked
def fit_gee(
    design: Design,
    correlation: str = "exchangeable",
    *,
    time: Any = None,
    scale: Scale = "n-p",
    ar_pairs: Literal["all", "adjacent"] = "all",
    se: StandardError = "robust",
    max_iterations: int = 200,
) -> GEEFit:
    """Fit the marginal model of a design by GEE; the arguments are those of ``TwoLevelModel.fit_gee``.

    Of the design only ``y``, ``X``, ``offset``, ``coef``, ``subject_index``, ``subjects`` and ``frame`` are used.
    """
    choose("se", se, get_args(StandardError))
    times, name = _times(design, time)
    estimate = estimate_gee(
        design.y,
        design.X,
        design.offset,
        design.coef,
        design.subject_index,
        correlation=correlation,
        times=times,
        scale=scale,
        ar_pairs=ar_pairs,
        max_iterations=max_iterations,
        subjects=design.subjects,
    )
    messages = describe_estimate(estimate, design.n_subjects, design.subjects)
    if not estimate.converged:
        warn(messages[0])
    fit = GEEFit(design, estimate, name, se, messages)
    fit.covariance()
    return fit


def _times(design: Design, time: Any) -> tuple[NDArray[np.generic] | None, str | None]:
    """Values of the rows' times and their name, from the name of a column or from one value for each row."""
    if time is None:
        return None, None
    frame = design.frame
    if isinstance(time, str):
        if time not in frame.columns:
            raise DataError(
                f"time={time!r}",
                f"the model keeps only the columns it uses ({', '.join(map(str, frame.columns))})",
                f"use one of these, or pass the values: time=data[{time!r}]",
                SEE,
            )
        values, name = frame[time], time
    else:
        array = np.asarray(time)
        if array.ndim != 1:
            raise DataError(
                f"time of type {type(time).__name__} with {array.ndim} dimensions",
                "every row needs one time",
                "use the name of a column, or one column of values: time=data['week']",
                SEE,
            )
        values = time if isinstance(time, pd.Series) else pd.Series(array)
        name = str(values.name) if values.name is not None else "time"
        if len(values) != len(frame):
            known = isinstance(time, pd.Series) and time.index.is_unique and frame.index.isin(time.index).all()
            if not known:
                raise DataError(
                    f"{len(values)} times for {len(frame)} rows",
                    "every row needs one time",
                    "pass a column of the data that was fitted, as a pandas Series with its index",
                    SEE,
                )
            values = values.loc[frame.index]
        elif isinstance(time, pd.Series) and not time.index.equals(frame.index):
            raise DataError(
                "times whose index is not that of the rows",
                "it is not known which time belongs to which row",
                "pass a column of the data that was fitted, or an array in the order of its rows",
                SEE,
            )
    if values.isna().any():
        raise DataError(
            f"{int(values.isna().sum())} missing values of {name!r}",
            "rows without a time have no place in the working correlation",
            "drop or complete these rows before making the model",
            SEE,
        )
    if isinstance(values.dtype, pd.CategoricalDtype):
        labels = values.cat.categories
        if not pd.api.types.is_numeric_dtype(labels):
            return np.asarray(values.astype(str)), name
        return np.asarray(values.astype(labels.dtype)), name
    return values.to_numpy(), name
