"""What every fit answers, whatever made it.

A subclass supplies point estimates (``beta``, ``sigma``, ``D``, ``b``) and their uncertainty; everything that follows
from these by arithmetic (fitted values, residuals, the subjects' own regressions, the marginal covariance) is here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hierlmm.covariance.estimate import ResidualEstimate
from hierlmm.design.design import Design, level2_prediction
from hierlmm.design.questions import rows_by_subject, rows_of_subject
from hierlmm.errors import NotAvailableError, SpecificationError
from hierlmm.options import checked, choose, renamed

if TYPE_CHECKING:
    from hierlmm.effects.curves import EffectCurves
    from hierlmm.effects.hypothesis import HypothesisTest
    from hierlmm.effects.table import Effects
    from hierlmm.fits.gee import GEEFit
    from hierlmm.implied.marginal import ImpliedMarginal
    from hierlmm.interpret.heterogeneity import Heterogeneity
    from hierlmm.interpret.interpretation import Interpretation
    from hierlmm.interpret.ranking import Ranking
    from hierlmm.interpret.subjects import SubjectComparison

__all__ = ["INTERVALS", "Fit", "Level"]

FloatArray = NDArray[np.float64]
Level = Literal["subject", "population"]
INTERVALS = ("confidence", "credible", "prediction")


@checked
class Fit(ABC):
    """A fitted two-level model (frozen: nothing on it changes after it was made)."""

    design: Design
    estimator: str
    warnings: tuple[str, ...]

    @property
    @abstractmethod
    def beta(self) -> pd.Series:
        """Fixed effects, Series by ``coef``."""

    @property
    @abstractmethod
    def beta_cov(self) -> pd.DataFrame:
        """Covariance of the fixed effects, ``coef`` × ``coef``."""

    @property
    @abstractmethod
    def sigma(self) -> float:
        """Residual standard deviation, in units of the response."""

    @property
    @abstractmethod
    def D(self) -> pd.DataFrame:
        """Covariance of the random effects, ``term`` × ``term``."""

    @property
    @abstractmethod
    def b(self) -> pd.DataFrame:
        """Random effects, ``subject`` × ``term``: BLUPs or posterior means."""

    @property
    @abstractmethod
    def b_sd(self) -> pd.DataFrame:
        """Uncertainty of the random effects, ``subject`` × ``term``."""

    @property
    @abstractmethod
    def converged(self) -> bool:
        """Whether the algorithm reached what it was looking for."""

    @abstractmethod
    def summary(self, ci: float = 0.95) -> pd.DataFrame:
        """Fixed effects with uncertainty and interval."""

    @abstractmethod
    def variance_components(self, ci: float = 0.95) -> pd.DataFrame:
        """Standard deviations and correlations of the random effects and the residual SD."""

    @abstractmethod
    def to_datatree(self) -> Any:
        """Draws in the contract's names and dimensions, for any ArviZ function."""

    @property
    def beta_se(self) -> pd.Series:
        """Standard errors (or posterior SDs) of the fixed effects, Series by ``coef``."""
        return pd.Series(np.sqrt(np.diag(self.beta_cov)), index=self.beta.index, name="se")

    @property
    def sd_b(self) -> pd.Series:
        """Standard deviations of the random effects, Series by ``term``."""
        return pd.Series(np.sqrt(np.diag(self.D)), index=self.D.index, name="sd_b")

    @property
    def corr_b(self) -> pd.DataFrame:
        """Correlations of the random effects; undefined (NaN) where a standard deviation is zero."""
        sd = self.sd_b.to_numpy()
        with np.errstate(divide="ignore", invalid="ignore"):
            corr = self.D.to_numpy() / np.outer(sd, sd)
        corr[np.diag_indices_from(corr)] = 1.0
        return pd.DataFrame(np.clip(corr, -1.0, 1.0), index=self.D.index, columns=self.D.columns)

    @property
    def n_obs(self) -> int:
        """Number of rows."""
        return self.design.n_obs

    @property
    def n_subjects(self) -> int:
        """Number of subjects."""
        return self.design.n_subjects

    @property
    def has_random_effects(self) -> bool:
        """Whether the fit has random effects (GEE has none, whatever its model has)."""
        return len(getattr(self.design, "term", ())) > 0

    @property
    def subject_coef(self) -> pd.DataFrame:
        """Each subject's own level-1 regression, ``subject`` × level-1 coefficient (lme4's ``coef()``)."""
        design = self.design
        values = level2_prediction(design, self.beta.to_numpy())
        values[:, design.term_level1] += self.b.to_numpy()  # every random effect has a level-1 column of its own
        return pd.DataFrame(values, index=design.subjects, columns=list(design.level1))

    def fitted(self, level: Level = "subject") -> pd.Series:
        """Fitted values of the rows used, with the subjects' effects or at b = 0 (``"population"``).

        Parameters
        ----------
        level : {"subject", "population"}
            Given the random effects, or at b = 0.
        """
        choose("level", level, ("subject", "population"))
        design = self.design
        values = design.offset + design.X @ self.beta.to_numpy()
        if level == "subject" and design.term:
            values = values + np.einsum("ij,ij->i", design.Z, self.b.to_numpy()[design.subject_index])
        return pd.Series(values, index=design.frame.index, name="fitted")

    def residuals(
        self, kind: Literal["response", "pearson", "normalized"] = "response", level: Level = "subject"
    ) -> pd.Series:
        """Residuals of the rows used.

        Parameters
        ----------
        kind : {"response", "pearson", "normalized"}
            In units of the response; divided by the row's residual SD (σ, lme4's scaled residuals, times its variance
            function; at the population level by each row's marginal SD); or, ``"normalized"``, with the correlation
            taken out as well: ``L⁻¹ r_i`` with ``Σ_i = L L'`` at the subject level (as in nlme) and ``V_i = L L'`` at
            the population level. With independent residuals, ``"normalized"`` equals ``"pearson"`` for subjects.
        level : {"subject", "population"}
            Around the subject's own line, or around the population line.
        """
        choose("kind", kind, ("response", "pearson", "normalized"))
        residual = self.design.y - self.fitted(level).to_numpy()
        if kind != "response":
            residual = self._by_residual(residual, kind) if level == "subject" else self._by_marginal(residual, kind)
        return pd.Series(residual, index=self.design.frame.index, name=f"{kind} residual")

    @property
    def residual_estimate(self) -> ResidualEstimate | None:
        """Estimated structure of the level-1 residuals; None where they are independent with equal variance."""
        return None

    @property
    def _D_values(self) -> FloatArray:
        """D as an array, (0, 0) without random effects."""
        return self.D.to_numpy()

    def _by_residual(self, residual: FloatArray, kind: str) -> FloatArray:
        """Divide residuals by their SD, or by a factor of Σ_i."""
        structure = self.residual_estimate
        if structure is None:
            return residual / self.sigma
        if kind == "pearson":
            return residual / (self.sigma * structure.sd_ratio(self.design.frame, self.design.variance_fitted))
        from hierlmm.likelihood.residual_rows import whiten_columns

        return whiten_columns(structure, residual[:, None])[0][:, 0] / self.sigma

    def _by_marginal(self, residual: FloatArray, kind: str) -> FloatArray:
        """Divide residuals by their marginal SD, or by a factor of V_i."""
        if not self.design.term:
            return self._by_residual(residual, kind)
        design, D, structure = self.design, self._D_values, self.residual_estimate
        if kind == "pearson":
            ratio = 1.0 if structure is None else structure.sd_ratio(design.frame, design.variance_fitted)
            variance = np.einsum("ij,jk,ik->i", design.Z, D, design.Z) + (self.sigma * ratio) ** 2
            return residual / np.sqrt(variance)
        result = np.empty_like(residual)
        for rows in rows_by_subject(design):
            V = design.Z[rows] @ D @ design.Z[rows].T + self._residual_covariance(rows)
            result[rows] = np.linalg.solve(np.linalg.cholesky(V), residual[rows])
        return result

    def _residual_covariance(self, rows: NDArray[np.intp]) -> FloatArray:
        """Σ_i of the fitted rows of one subject, (n, n)."""
        structure, fitted = self.residual_estimate, self.design.variance_fitted
        if structure is None:
            return self.sigma**2 * np.eye(len(rows))
        own = None if fitted is None else fitted[rows]
        return self.sigma**2 * structure.covariance(self.design.frame.iloc[rows], own)

    def marginal_covariance(self, subject: Any = None) -> pd.DataFrame:
        """Implied marginal covariance ``V_i = Z_i D Z_i' + Σ_i`` of one subject (the first by default).

        Parameters
        ----------
        subject : optional
            Label of the subject.
        """
        design = self.design
        rows = rows_of_subject(design, 0 if subject is None else design.position(subject))
        V = design.Z[rows] @ self._D_values @ design.Z[rows].T + self._residual_covariance(rows)
        index = design.frame.index[rows]
        return pd.DataFrame(V, index=index, columns=index)

    def implied_marginal(self, times: Any = None, **options: Any) -> ImpliedMarginal:
        """Covariance, correlations and variances of one subject's measurements at chosen times, with bands and plots.

        Parameters
        ----------
        times : sequence, optional
            Values of the time variable; by default those in the data, or 25 equally spaced ones.
        **options
            ``at``, ``time``, ``ci``, ``draws``, ``seed``, ``label``, as for
            `hierlmm.implied.marginal.implied_marginal`.

        Returns
        -------
        ImpliedMarginal
            ``.V``, ``.correlation``, ``.variance``; ``.plot_heatmap()``, ``.plot_correlation()``, ``.plot_variance()``.

        Examples
        --------
        >>> import hierlmm as hl
        >>> model = hl.TwoLevelModel.from_formula(
        ...     "distance ~ sex * time + (1 + time | subject)", hl.load_dataset("dental")
        ... )
        >>> model.fit_reml().implied_marginal([0, 3, 6]).variance["variance"].round(2).tolist()
        [4.95, 5.07, 5.77]
        """
        from hierlmm.implied.marginal import implied_marginal

        return implied_marginal(self, times, **options)

    def compare_marginal(
        self,
        correlation: str | GEEFit | None = None,
        *,
        time: Any = None,
        scale: str = "n-p",
        ci: float = 0.95,
        **gee: Any,
    ) -> Any:
        """Set this fit against GEE: estimates; the fit's own, naive, robust and bias-reduced se.

        Parameters
        ----------
        correlation : str or GEEFit, optional
            As in ``TwoLevelModel.fit_gee``: exchangeable by default; for a marginal model its own, where GEE has it. Or
            a GEE fit that there is already, of the same rows and coefficients.
        time, scale, **gee
            As in ``TwoLevelModel.fit_gee``.
        ci : float
            Probability of the intervals.

        Returns
        -------
        MarginalComparison
            ``.table``, a text and HTML view, ``.plot_forest()``.
        """
        from hierlmm.comparison.against_gee import compare_marginal

        return compare_marginal(self, correlation, time=time, scale=scale, ci=ci, **gee)

    def loo(self, unit: Literal["subject", "observation"] = "subject") -> Any:
        """Leave-one-out cross-validation without refitting, for a posterior.

        Parameters
        ----------
        unit : {"subject", "observation"}
            What is left out at a time.

        Raises
        ------
        NotAvailableError
            If the fit is no posterior.
        """
        raise NotAvailableError(
            f"loo of a fit by {self.estimator}",
            "it reweights draws from a posterior, and this fit has none",
            "use model.fit().loo(); to compare likelihood fits use their AIC (by ML where fixed effects differ)",
            "docs, page 'Posterior fits'",
        )

    def blup_variances(self, covariances: bool = False) -> Any:
        """Variance of the BLUPs, conditional variance and prediction-error variance, of a likelihood fit.

        Parameters
        ----------
        covariances : bool
            The whole matrices of each subject instead of their diagonals.

        Raises
        ------
        NotAvailableError
            If the fit is by another estimator.
        """
        raise NotAvailableError(
            f"blup_variances of a fit by {self.estimator}",
            "the three variances differ in what a likelihood fit takes as known (β, θ); a posterior of b has one "
            "variance, which includes the uncertainty of both",
            "use fit.b_sd ** 2, or model.fit_reml().blup_variances()",
            "docs, page 'Teaching'",
        )

    def _no_likelihood(self, what: str) -> NoReturn:
        """Refuse what belongs to the maximum of a likelihood."""
        raise NotAvailableError(
            f"{what} of a fit by {self.estimator}",
            "it belongs to the maximum of a likelihood, and a posterior is a distribution",
            "use model.fit_reml() or model.fit_ml(); to compare posteriors use fit.loo()",
            "docs, page 'Posterior fits'",
        )

    @property
    def criterion(self) -> float:
        """−2 log-likelihood at its maximum, of a likelihood fit; other fits have none."""
        self._no_likelihood("criterion")

    @property
    def n_parameters(self) -> int:
        """Parameters counted by AIC and BIC, of a likelihood fit; other fits have no such count."""
        self._no_likelihood("n_parameters")

    @property
    def aic(self) -> float:
        """AIC of a likelihood fit; other fits have none."""
        self._no_likelihood("aic")

    @property
    def bic(self) -> float:
        """BIC of a likelihood fit; other fits have none."""
        self._no_likelihood("bic")

    def information_criteria(self) -> pd.DataFrame:
        """AIC and BIC of a likelihood fit; other fits have none."""
        self._no_likelihood("information_criteria")

    def subject_loglik(self) -> pd.Series:
        """Log-likelihood of each subject at the maximum, of a likelihood fit; other fits have no maximum."""
        self._no_likelihood("subject_loglik")

    @property
    def is_singular(self) -> bool:
        """Whether the estimate of D has no full rank, of a likelihood fit; other fits have no optimum on a boundary."""
        self._no_likelihood("is_singular")

    @property
    def icc(self) -> float:
        """Share of the intercept variance in the total at the origin of the level-1 covariates, D₀₀ / (D₀₀ + σ²).

        With random slopes the share changes with the covariates; this is its value where they are zero.
        """
        if "Intercept" not in self.D.index:
            raise SpecificationError(
                "icc of a model without a random intercept",
                "the intra-class correlation compares the intercept variance with the total",
                "add a random intercept, or read the correlations off fit.marginal_covariance()",
            )
        k = self.design.term.index("Intercept")
        variance = float(self.D.to_numpy()[k, k])
        return variance / (variance + self.sigma**2)

    # What the fixed effects say: thin doors to hierlmm.effects, which knows fits; imported when called.

    def _wald(self, df: str | None = None) -> Any:
        """What linear functions of β are judged by: normal quantiles, unless the estimator has degrees of freedom."""
        from hierlmm.fits.degrees import normal_wald

        return normal_wald(self, df)

    @renamed(specs="variables")
    def marginal_means(
        self,
        variables: str | Sequence[str] | None = None,
        by: str | Sequence[str] | None = None,
        at: Mapping[str, Any] | None = None,
        *,
        weights: Literal["equal", "proportional"] = "equal",
        df: str | None = None,
        ci: float = 0.95,
        adjust: str = "none",
        simultaneous: bool = False,
    ) -> Effects:
        """Means of the response at levels of factors or values of covariates, averaged over the other factors.

        Parameters
        ----------
        variables : str or sequence of str, optional
            What the rows are: factors (all levels), or numeric covariates (their mean, or the values in ``at``). The
            overall mean by default.
        by : str or sequence of str, optional
            Variables that split the rows into families; contrasts stay within a family.
        at : mapping, optional
            Variable -> value or values, in place of all levels or the mean over the rows.
        weights : {"equal", "proportional"}
            How combinations of the other factors are averaged: as if balanced, or by their number of rows.
        df : {"satterthwaite", "kenward-roger", "residual", "normal"}, optional
            Degrees of freedom of a likelihood fit; Satterthwaite's by default. GEE has normal quantiles only.
        ci : float
            Probability of the intervals.
        adjust : {"none", "bonferroni", "sidak", "mvt"}
            Make the intervals of a likelihood fit hold together within each family.
        simultaneous : bool
            The same for a posterior.

        Returns
        -------
        Effects
            ``.table``, ``.contrasts(...)``, ``.plot()``; a text and HTML view that say how the numbers were made.

        Examples
        --------
        >>> import hierlmm as hl
        >>> model = hl.TwoLevelModel.from_formula(
        ...     "distance ~ sex * time + (1 + time | subject)", hl.load_dataset("dental")
        ... )
        >>> means = model.fit_reml().marginal_means("sex", by="time", at={"time": [0, 6]})
        >>> means.table[["time", "sex", "estimate"]].round(2).to_numpy().tolist()
        [[0.0, 'Female', 21.21], [0.0, 'Male', 22.62], [6.0, 'Female', 24.09], [6.0, 'Male', 27.32]]
        """
        from hierlmm.effects.means import marginal_means

        return marginal_means(
            self, variables, by, at, weights=weights, df=df, ci=ci, adjust=adjust, simultaneous=simultaneous
        )

    @renamed(specs="variables")
    def contrasts(
        self,
        variables: str | Sequence[str],
        method: str | Mapping[str, Any] = "pairwise",
        by: str | Sequence[str] | None = None,
        at: Mapping[str, Any] | None = None,
        *,
        weights: Literal["equal", "proportional"] = "equal",
        adjust: str | None = None,
        reference: Any = None,
        df: str | None = None,
        ci: float = 0.95,
        simultaneous: bool = False,
        rope: float | tuple[float, float] | None = None,
    ) -> Effects:
        """Differences between marginal means, within each family of ``by``.

        Parameters
        ----------
        variables, by, at, weights, df, ci
            As for `marginal_means`.
        method : {"pairwise", "trt.vs.ctrl", "consecutive"} or mapping
            All pairs, the first minus the second; each minus the reference; each minus the one before; or the user's
            own: name -> weights in the order of the means, or name -> {label: weight}.
        adjust : {"none", "tukey", "mvt", "holm", "bonferroni", "sidak", "fdr"}, optional
            Correction for several contrasts in a family. By default Tukey's for all pairs, the family's own
            multivariate t for the other named methods, and none for the user's own.
        reference : optional
            Label of the control; the first mean by default.
        simultaneous : bool
            Posterior: intervals that hold together within each family.
        rope : float or (low, high), optional
            Posterior: region of practical equivalence; adds its probability.

        Returns
        -------
        Effects
        """
        from hierlmm.effects.means import contrasts

        return contrasts(
            self,
            variables,
            method,
            by,
            at,
            weights=weights,
            adjust=adjust,
            reference=reference,
            df=df,
            ci=ci,
            simultaneous=simultaneous,
            rope=rope,
        )

    def slopes(
        self,
        variable: str,
        by: str | Sequence[str] | None = None,
        at: Mapping[str, Any] | None = None,
        *,
        weights: Literal["equal", "proportional"] = "equal",
        df: str | None = None,
        ci: float = 0.95,
        adjust: str = "none",
        simultaneous: bool = False,
    ) -> Effects:
        """Change of the mean per unit of a numeric variable, averaged over the other factors.

        A curve has a slope for every value: at the mean of the variable, or at those given in ``at``. Compare slopes by
        ``fit.slopes("time", by="sex").contrasts()``.

        Parameters
        ----------
        variable : str
            The numeric column whose slope is asked for.
        by, at, weights, df, ci, adjust, simultaneous
            As for `marginal_means`.
        """
        from hierlmm.effects.means import slopes

        return slopes(self, variable, by, at, weights=weights, df=df, ci=ci, adjust=adjust, simultaneous=simultaneous)

    def hypothesis(
        self,
        hypotheses: str | Sequence[str],
        *,
        df: str | None = None,
        ci: float = 0.95,
        rope: float | tuple[float, float] | None = None,
    ) -> HypothesisTest:
        """Test linear hypotheses on the fixed effects, each and all together.

        Parameters
        ----------
        hypotheses : str or sequence of str
            In names of coefficients: ``"sex[T.Male]:time = 0"``, ``"2*a - b = 0.5"``, ``"a > 0"``; several separated
            by commas or as a list.
        df, ci
            As for `marginal_means`.
        rope : float or (low, high), optional
            Posterior: region of practical equivalence of the difference between both sides.

        Returns
        -------
        HypothesisTest
            ``.table``; ``.joint`` (F test of all equalities) or ``.probability`` (posterior).
        """
        from hierlmm.effects.hypothesis import test_hypotheses

        return test_hypotheses(self, hypotheses, df=df, ci=ci, rope=rope)

    def anova(self, df: str | None = None) -> pd.DataFrame:
        """F test of every term of the fixed effects given all others (type III), by term: F, df1, df2, p.

        Parameters
        ----------
        df : {"satterthwaite", "kenward-roger", "residual", "normal"}, optional
            As for `marginal_means`.

        Raises
        ------
        NotAvailableError
            If the fit is a posterior.
        """
        from hierlmm.effects.anova import anova

        return anova(self, df)

    @renamed(focal="variable")
    def effects(
        self,
        variable: str | None = None,
        by: str | Sequence[str] | None = None,
        at: Mapping[str, Any] | None = None,
        *,
        n: int = 101,
        ci: float = 0.95,
        simultaneous: bool | Literal["curve", "all"] = False,
        level: Literal["population", "marginal"] = "population",
        weights: Literal["equal", "proportional"] = "equal",
        df: str | None = None,
        transform: Literal["exp"] | None = None,
        seed: int = 0,
    ) -> EffectCurves:
        """Curves of the mean along a covariate, at stated values of the others, with bands.

        Numbers that are not named are held at their mean over the rows, factors that are not named are averaged over.

        Parameters
        ----------
        variable : str, optional
            The numeric covariate along which the curves run; by default the first one of level 1.
        by : str or sequence of str, optional
            Up to two variables that tell curves apart: factors (all levels) or numbers (the values in ``at``, else all
            values where there are at most 5, else the quartiles over the rows).
        at : mapping, optional
            Variable -> value or values. Several values of a variable that is not in ``by`` make a panel each (plotly:
            a slider); values of ``variable`` are the grid.
        n : int
            Grid points over the range of ``variable`` in the data.
        ci : float
            Probability of the bands.
        simultaneous : bool or {"curve", "all"}
            Add a band that holds for all grid points of each curve together (True, ``"curve"``), or of all curves.
        level : {"population", "marginal"}
            The mean at b = 0, or averaged over b: one curve, with an identity link.
        weights : {"equal", "proportional"}
            How factors are averaged over: as if balanced, or by their number of rows.
        df : {"satterthwaite", "kenward-roger", "residual", "normal"}, optional
            As for `marginal_means`.
        transform : {"exp"}, optional
            Draw a log response on its original scale, whatever the base: the curve is then the median, not the mean.
        seed : int
            Of the directions behind a simultaneous band of an estimate.

        Returns
        -------
        EffectCurves
            ``.table``, ``.plot()``; a text and HTML view that say what was held at which value.

        Raises
        ------
        SpecificationError
            If ``variable`` is unknown, a factor or constant, if ``at`` names no covariate or no level, or if a
            covariate is a function of ``variable`` and cannot be held.
        NotAvailableError
            At level ``"subject"``.

        Examples
        --------
        >>> import hierlmm as hl
        >>> model = hl.TwoLevelModel.from_formula(
        ...     "distance ~ sex * time + (1 + time | subject)", hl.load_dataset("dental")
        ... )
        >>> curves = model.fit_reml().effects("time", by="sex", at={"time": [0, 6]})
        >>> curves.table[["sex", "time", "estimate"]].round(2).to_numpy().tolist()
        [['Female', 0.0, 21.21], ['Female', 6.0, 24.09], ['Male', 0.0, 22.62], ['Male', 6.0, 27.32]]
        """
        from hierlmm.effects.curves import effect_curves

        return effect_curves(
            self,
            variable,
            by,
            at,
            n=n,
            ci=ci,
            simultaneous=simultaneous,
            level=level,
            weights=weights,
            df=df,
            transform=transform,
            seed=seed,
        )

    # What subjects are like, and the fit in words: thin doors to hierlmm.interpret; imported when called.

    def heterogeneity(
        self,
        term: str | None = None,
        at: Mapping[str, Any] | None = None,
        *,
        ci: float = 0.95,
        coverage: float = 0.95,
        above: float = 0.0,
        df: str | None = None,
    ) -> Heterogeneity:
        """How much subjects differ: the range of their coefficients, the share above a value, a new subject.

        Parameters
        ----------
        term : str, optional
            Level-1 coefficient that varies between subjects; all of them by default.
        at : mapping, optional
            Level-2 covariate -> value or values. By default factors stand at all levels, numbers at their mean over
            subjects.
        ci : float
            Probability of the intervals of the estimates.
        coverage : float
            Share of the subjects in the range, and probability of the predictive interval.
        above : float
            Value that the share of subjects is counted from.
        df : {"satterthwaite", "kenward-roger", "residual", "normal"}, optional
            For the interval of the mean, as for `marginal_means`.

        Returns
        -------
        Heterogeneity
            ``.table`` and a text and HTML view.

        Raises
        ------
        NotAvailableError
            If the fit has no random effects (GEE, marginal models).
        """
        from hierlmm.interpret.heterogeneity import heterogeneity

        return heterogeneity(self, term, at, ci=ci, coverage=coverage, above=above, df=df)

    def compare_subjects(self, a: Any, b: Any, term: str | None = None, *, ci: float = 0.95) -> SubjectComparison:
        """Probability that subject A's coefficient is larger than B's (level 2's part and the random effect together).

        Parameters
        ----------
        a, b
            Labels of two subjects in the data.
        term : str, optional
            Level-1 coefficient; may be left out where one varies beside the intercept.
        ci : float
            Probability of the interval of the difference.

        Returns
        -------
        SubjectComparison
            ``probability``, ``mcse``, ``estimate``, ``lower``, ``upper``; a text and HTML view.

        Raises
        ------
        NotAvailableError
            If the fit has no random effects, or gives both subjects the same coefficient.
        """
        from hierlmm.interpret.subjects import compare_subjects

        return compare_subjects(self, a, b, term, ci=ci)

    def rank_subjects(
        self,
        term: str | None = None,
        *,
        top: int | None = None,
        largest_first: bool = True,
        ci: float = 0.95,
        draws: int = 4000,
        seed: int | None = 0,
    ) -> Ranking:
        """Rank the subjects by a coefficient, with the uncertainty of every rank.

        Parameters
        ----------
        term : str, optional
            Level-1 coefficient; may be left out where one varies beside the intercept.
        top : int, optional
            Ranks that count as the top; a tenth of the subjects by default.
        largest_first : bool
            Whether rank 1 is the largest coefficient.
        ci : float
            Probability of the intervals of the ranks.
        draws, seed : int
            Joint draws of a likelihood fit; a posterior uses its own.

        Returns
        -------
        Ranking
            ``.table``, ``.plot()``; a text and HTML view.
        """
        from hierlmm.interpret.ranking import rank_subjects

        return rank_subjects(self, term, top=top, largest_first=largest_first, ci=ci, draws=draws, seed=seed)

    def interpret(self, *, ci: float = 0.95, df: str | None = None, units: Any = None) -> Interpretation:
        """The fit in plain words, warnings first, with the numbers behind every sentence.

        Parameters
        ----------
        ci : float
            Probability of the intervals.
        df : {"satterthwaite", "kenward-roger", "residual", "normal"}, optional
            For means, slopes and differences of a likelihood fit, as for `marginal_means`.
        units : mapping, optional
            Column -> unit: ``{"distance": "mm", "time": "year"}``.

        Returns
        -------
        Interpretation
            ``.sentences``, ``.facts``, ``.text``; a text and HTML view.
        """
        from hierlmm.interpret.interpret import interpret

        return interpret(self, ci=ci, df=df, units=units)

    # Plots: thin doors to hierlmm.plots, which knows fits; imported when called.

    @renamed(focal="variable")
    def plot_effects(
        self,
        variable: str | None = None,
        by: str | Sequence[str] | None = None,
        at: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        """Curves of the mean along a covariate, with bands; see `hierlmm.plots.plot_effects`.

        Parameters
        ----------
        variable, by, at
            As for `effects`.
        **options
            As for `hierlmm.plots.plot_effects`.
        """
        from hierlmm.plots import plot_effects

        return plot_effects(self, variable=variable, by=by, at=at, **options)

    def plot_trajectories(self, **options: Any) -> Any:
        """Data, subject lines and population line; see `hierlmm.plots.plot_trajectories`.

        Parameters
        ----------
        **options
            As for `hierlmm.plots.plot_trajectories`.
        """
        from hierlmm.plots import plot_trajectories

        return plot_trajectories(self, **options)

    def plot_subject_prediction(self, history: Any, times: Any = None, **options: Any) -> Any:
        """Predict a new subject, measurement by measurement; see `hierlmm.plots.plot_subject_prediction`.

        Parameters
        ----------
        history, times
            As for ``predict_subject``.
        **options
            As for `hierlmm.plots.plot_subject_prediction`.
        """
        from hierlmm.plots import plot_subject_prediction

        return plot_subject_prediction(self, history, times, **options)

    def plot_random_effects(self, **options: Any) -> Any:
        """Random effects with intervals, sorted; see `hierlmm.plots.plot_random_effects`.

        Parameters
        ----------
        **options
            As for `hierlmm.plots.plot_random_effects`.
        """
        from hierlmm.plots import plot_random_effects

        return plot_random_effects(self, **options)

    def plot_shrinkage(self, **options: Any) -> Any:
        """Separate, pooled and partially pooled regressions; see `hierlmm.plots.plot_shrinkage`.

        Parameters
        ----------
        **options
            As for `hierlmm.plots.plot_shrinkage`.
        """
        from hierlmm.plots import plot_shrinkage

        return plot_shrinkage(self, **options)

    def plot_forest(self, **options: Any) -> Any:
        """Estimates with intervals; see `hierlmm.plots.plot_forest`.

        Parameters
        ----------
        **options
            As for `hierlmm.plots.plot_forest`.
        """
        from hierlmm.plots import plot_forest

        return plot_forest(self, **options)

    def plot_posterior(self, **options: Any) -> Any:
        """Densities of the parameters; see `hierlmm.plots.plot_posterior`.

        Parameters
        ----------
        **options
            As for `hierlmm.plots.plot_posterior`.
        """
        from hierlmm.plots import plot_posterior

        return plot_posterior(self, **options)
