"""What the fixed effects say: doors to `hierlmm.effects`, which is imported when it is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from hierlmm.fits.base import Fit
from hierlmm.likelihood.wald import Asked
from hierlmm.options import checked, renamed

if TYPE_CHECKING:
    from hierlmm.effects.curves import EffectCurves
    from hierlmm.effects.hypothesis import HypothesisTest
    from hierlmm.effects.table import Effects


@checked
class EffectVerbs(Fit):
    """Means, contrasts, slopes, tests and curves of the fixed effects."""

    @renamed(specs="variables")
    def marginal_means(
        self,
        variables: str | Sequence[str] | None = None,
        by: str | Sequence[str] | None = None,
        at: Mapping[str, Any] | None = None,
        *,
        weights: Literal["equal", "proportional"] = "equal",
        df: str | None = None,
        se: str | None = None,
        ci: float = 0.95,
        adjust: str = "none",
        simultaneous: bool = False,
        scale: Literal["response", "link"] = "response",
        level: Literal["population", "marginal"] = "population",
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
        df : {"satterthwaite", "kenward-roger", "kenward-roger-linear", "residual", "normal"}, optional
            Degrees of freedom of a likelihood fit; Satterthwaite's by default. GEE has normal quantiles only.
        se : {"model", "empirical", "empirical-jackknife", "empirical-bias-reduced"}, optional
            Standard errors of a likelihood fit: the model's, or from the subjects' scores (sandwich).
        ci : float
            Probability of the intervals.
        adjust : {"none", "bonferroni", "sidak", "mvt"}
            Make the intervals of a likelihood fit hold together within each family.
        simultaneous : bool
            The same for a posterior.
        scale : {"response", "link"}
            Of a model with a family: means of the response, with intervals carried back from the scale of the link, or
            linear predictors. Of an ordinal response probabilities of its categories, which have a column under the
            name of the response; ``at`` may choose some.
        level : {"population", "marginal"}
            At b = 0, for a subject in the middle, or averaged over random effects: the mean over subjects. They are the
            same of a Gaussian response.

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
        from hierlmm.effects.means import Intervals, marginal_means

        asked = Intervals(ci, adjust, simultaneous)
        return marginal_means(self, variables, by, at, weights, Asked(df, se), asked, scale, level)

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
        se: str | None = None,
        ci: float = 0.95,
        simultaneous: bool = False,
        together: bool = False,
        rope: float | tuple[float, float] | None = None,
        scale: Literal["response", "link"] = "response",
        level: Literal["population", "marginal"] = "population",
    ) -> Effects:
        """Differences between marginal means, within each family of ``by``.

        Parameters
        ----------
        variables, by, at, weights, df, se, ci
            As for `marginal_means`.
        method : {"pairwise", "trt.vs.ctrl", "consecutive"} or mapping
            All pairs, the first minus the second; each minus the reference (also called "dunnett"); each minus the one
            before; or the user's own: name -> weights in the order of the means, or name -> {label: weight}.
        adjust : {"none", "tukey", "mvt", "holm", "bonferroni", "sidak", "fdr"}, optional
            Correction for several contrasts in a family. By default Tukey's for all pairs, the family's own
            multivariate t for the other named methods (of comparisons with a control Dunnett's test, "dunnett"), and
            none for the user's own.
        reference : optional
            Label of the control; the first mean by default.
        simultaneous : bool
            Posterior: intervals that hold together within each family.
        together : bool
            Correct over all rows of the table as one family, those of different ``by`` among them (the multivariate t
            of all of them by default; of a posterior ``simultaneous`` intervals over all rows): a treatment at every
            visit, say.
        rope : float or (low, high), optional
            Posterior: region of practical equivalence; adds its probability. Of ratios one number above 1 means
            ``(1/rope, rope)``.
        scale : {"response", "link"}
            Of a model with a family whose link is log, logit or cloglog: ratios of means, of odds or of hazards, or
            differences on the scale of the link. With other links, differences on that scale. Differences of
            probabilities of ordered categories are ``fit.marginal_means(...).contrasts()``.
        level : {"population", "marginal"}
            As for `marginal_means`.

        Returns
        -------
        Effects
        """
        from hierlmm.effects.means import Intervals, marginal_means

        asked = Intervals(ci, "none", False)
        means = marginal_means(self, variables, by, at, weights, Asked(df, se), asked, scale, level, compared=True)
        options: dict[str, Any] = {"simultaneous": simultaneous, "together": together, "rope": rope}
        return means.contrasts(method, adjust=adjust, reference=reference, **options)

    def slopes(
        self,
        variable: str,
        by: str | Sequence[str] | None = None,
        at: Mapping[str, Any] | None = None,
        *,
        weights: Literal["equal", "proportional"] = "equal",
        df: str | None = None,
        se: str | None = None,
        ci: float = 0.95,
        adjust: str = "none",
        simultaneous: bool = False,
    ) -> Effects:
        """Change of the mean per unit of a numeric variable, averaged over the other factors.

        Of a model with a family: of the mean on the scale of the link.

        A curve has a slope for every value: at the mean of the variable, or at those given in ``at``. Compare slopes by
        ``fit.slopes("time", by="sex").contrasts()``.

        Parameters
        ----------
        variable : str
            The numeric column whose slope is asked for.
        by, at, weights, df, se, ci, adjust, simultaneous
            As for `marginal_means`.
        """
        from hierlmm.effects.means import Intervals, slopes

        return slopes(self, variable, by, at, weights, Asked(df, se), Intervals(ci, adjust, simultaneous))

    def hypothesis(
        self,
        hypotheses: str | Sequence[str],
        *,
        df: str | None = None,
        se: str | None = None,
        ci: float = 0.95,
        rope: float | tuple[float, float] | None = None,
    ) -> HypothesisTest:
        """Test linear hypotheses on the fixed effects, each and all together.

        Parameters
        ----------
        hypotheses : str or sequence of str
            In names of coefficients: ``"sex[T.Male]:time = 0"``, ``"2*a - b = 0.5"``, ``"a > 0"``; several separated
            by commas or as a list.
        df, se, ci
            As for `marginal_means`.
        rope : float or (low, high), optional
            Posterior: region of practical equivalence of the difference between both sides.

        Returns
        -------
        HypothesisTest
            ``.table``; ``.joint`` (F test of all equalities) or ``.probability`` (posterior).
        """
        from hierlmm.effects.hypothesis import test_hypotheses

        return test_hypotheses(self, hypotheses, how=Asked(df, se), ci=ci, rope=rope)

    def anova(
        self,
        df: str | None = None,
        se: str | None = None,
        type: Literal["I", "II", "III", "1", "2", "3", 1, 2, 3] = "III",
    ) -> pd.DataFrame:
        """F test of every term of the fixed effects, by term: F, df1, df2, p.

        Of a model with a family: Wald's test on the scale of the link, chi2, df, p.

        Parameters
        ----------
        df, se
            As for `marginal_means`.
        type : {"I", "II", "III"}, or 1, 2, 3
            Each term given those before it; given all that do not contain it; or given all others, main effects at
            equal weights of the levels of the factors that they interact with. As in SAS and in R's lmerTest.

        Raises
        ------
        NotAvailableError
            If the fit is a posterior.
        """
        from hierlmm.effects.anova import anova

        return anova(self, Asked(df, se), type)

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
        se: str | None = None,
        transform: Literal["exp"] | None = None,
        seed: int = 0,
        scale: Literal["response", "link"] = "response",
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
        df, se
            As for `marginal_means`.
        transform : {"exp"}, optional
            Draw a log response on its original scale, whatever the base: the curve is then the median, not the mean.
        seed : int
            Of the directions behind a simultaneous band of an estimate.
        scale : {"response", "link"}
            Of a model with a family: means of the response, with bands carried back from the scale of the link, so that
            they stay in its range; or linear predictors. Of an ordinal response the probability of each category.

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
            se=se,
            transform=transform,
            seed=seed,
            scale=scale,
        )
