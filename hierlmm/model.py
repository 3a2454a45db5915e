"""The front door: a two-level model, written down once and fitted by any estimator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from hierlmm.bound import OTHER_MODEL
from hierlmm.covariance.residual import ResidualCorrelation, UnstructuredHeterogeneous
from hierlmm.covariance.variance import VarianceFunction
from hierlmm.design.build import design_from_formula, design_from_hierarchy
from hierlmm.design.formula import parse_formula
from hierlmm.design.hierarchy import COVARIANCES, Hierarchy, hierarchy_from_levels
from hierlmm.design.outcome import Outcome, outcome_of
from hierlmm.design.residual import Residual, make_residual
from hierlmm.equations.residual_symbols import spec_text
from hierlmm.errors import NotAvailableError, SpecificationError
from hierlmm.fit.estimators import FittedModel, fit_by
from hierlmm.likelihood.checks import check_quadrature
from hierlmm.options import arguments_of, checked, checked_with_constructor, refuse_arguments
from hierlmm.sources.door import engine_of_any, readable

if TYPE_CHECKING:
    from hierlmm.fit.gee import GEEFit
    from hierlmm.fit.likelihood import LikelihoodFit  # noqa: F401  named in the base of the class
    from hierlmm.fit.posterior import PosteriorFit

SLIPS = {
    "correlation": "residual, the correlation of the level-1 residuals (covariance is that of the random effects)",
    "variance": "residual_variance, the variance of the level-1 residuals",
}


@checked_with_constructor
class TwoLevelModel(FittedModel["LikelihoodFit"]):
    """A two-level hierarchical model, linear or generalised, bound to its data.

    Parameters
    ----------
    level1 : str
        Regression within subjects, ``"distance ~ time"``.
    level2 : mapping of str to str, optional
        For each level-1 coefficient, what explains it between subjects: ``{"Intercept": "sex", "time": "sex"}``.
        Left out: a constant. ``"0"``: nothing fixed, only a random effect.
    subject : str
        Column that says which rows belong together.
    data : table
        Long format, one row per measurement: pandas, polars, pyarrow or anything narwhals reads.
    random : sequence of str, optional
        Level-1 terms whose coefficients vary between subjects; by default all of them. A nested list makes groups
        that do not correlate with each other: ``[["Intercept", "time"], ["dose"]]``.
    covariance : {"unstructured", "diagonal", "identity", "compound_symmetry"}
        Structure of D, the covariance of the random effects. ``"identity"`` has one variance, ``"compound_symmetry"``
        one variance and one correlation, which lies between −1/(q − 1) and 1.
    group : str, optional
        Level-2 factor (constant within every subject) with a D of its own in each of its levels; σ is common.
    residual : ResidualCorrelation or UnstructuredHeterogeneous, optional
        Correlation of the level-1 residuals: ``hl.AR1()``, ``hl.Exponential("time")``, ...; independent by default.
    residual_variance : VarianceFunction, optional
        Variance of the level-1 residuals: ``hl.VarIdent("sex")``, ``hl.VarPower("time")``, ... Equal by default.
    residual_group : str, optional
        Column of a level-2 factor: every group has residual parameters of its own, those of ``residual``, those of
        ``residual_variance``, and its own sigma.
    weights : str, optional
        Column of known weights w > 0 of the rows: the residual variance of a row is divided by its weight (``weights``
        of lme4, ``WEIGHT`` of SAS). A mean of 4 measurements has the weight 4.
    family : str or Family
        Distribution of the response: ``"gaussian"``, ``"poisson"``, ``"negative_binomial"``, ``"bernoulli"``,
        ``"binomial"``, ``"gamma"``, ``"beta"``, ``"ordinal"``, ``"student_t"``; or an object of `hierlmm.families` with
        a link, such as ``hl.families.Bernoulli(link="probit")``.
    trials : str, optional
        Column of the numbers of trials of a binomial response (or write ``p(successes, n) ~ ...``).
    exposure : str, optional
        Column of what counts are per, time or area or people: an offset ``log(exposure)``.
    priors : Priors or "bambi", optional
        Priors for NUTS; data-scaled defaults otherwise.
    missing : {"raise", "drop"}
        Refuse missing values (naming columns and counts), or fit the complete rows and say how many were dropped.

    Raises
    ------
    FormulaError, SpecificationError, DataError
        In four parts: what was received, why it cannot be used, what to do, where to read more.

    Examples
    --------
    >>> import hierlmm as hl
    >>> dental = hl.load_dataset("dental")
    >>> model = hl.TwoLevelModel(
    ...     "distance ~ time", {"Intercept": "sex", "time": "sex"}, subject="subject", data=dental
    ... )
    >>> round(model.fit_reml().criterion, 4)
    432.5817
    """

    def __init__(
        self,
        level1: str,
        level2: Any = None,
        *,
        subject: str,
        data: Any,
        random: str | Sequence[str | Sequence[str]] | None = None,
        covariance: str = "unstructured",
        group: str | None = None,
        residual: ResidualCorrelation | UnstructuredHeterogeneous | None = None,
        residual_variance: VarianceFunction | None = None,
        residual_group: str | None = None,
        weights: str | None = None,
        family: Any = "gaussian",
        trials: str | None = None,
        exposure: str | None = None,
        priors: Any = None,
        missing: str = "raise",
        **unknown: Any,
    ) -> None:
        refuse_arguments("TwoLevelModel", unknown, SLIPS, *OTHER_MODEL, arguments_of(TwoLevelModel))
        outcome = outcome_of(family, trials, exposure)
        structure = make_residual(residual, residual_variance, group=residual_group, weights=weights)
        _only_independent(outcome, structure)
        hierarchy = hierarchy_from_levels(
            level1, level2, subject=subject, random=random, covariance=covariance, group=group
        )
        design = design_from_hierarchy(hierarchy, readable(data), residual=structure, outcome=outcome, missing=missing)
        self._set(design, priors)

    @classmethod
    def from_formula(
        cls,
        formula: str,
        data: Any,
        *,
        covariance: str | None = None,
        group: str | None = None,
        residual: ResidualCorrelation | UnstructuredHeterogeneous | None = None,
        residual_variance: VarianceFunction | None = None,
        residual_group: str | None = None,
        weights: str | None = None,
        family: Any = "gaussian",
        trials: str | None = None,
        exposure: str | None = None,
        priors: Any = None,
        missing: str = "raise",
        **unknown: Any,
    ) -> TwoLevelModel:
        """Read the hierarchy off a combined formula and the data.

        Parameters
        ----------
        formula : str
            ``"distance ~ sex * time + (1 + time | subject)"``. ``(time || subject)`` has uncorrelated random effects
            (every column its own variance); so has ``(1 | g) + (0 + x | g)``. ``(time | gr(subject, by = sex))`` has a
            D of its own for each sex.
        data : table
        covariance : {"unstructured", "diagonal", "identity", "compound_symmetry"}, optional
            Overrides the structure that the bars imply.
        group : str, optional
            Level-2 factor with a D of its own in each of its levels, if the formula does not name it.
        residual, residual_variance, residual_group, weights, family, trials, exposure, priors, missing
            As for `TwoLevelModel`.
        """
        refuse_arguments("TwoLevelModel.from_formula", unknown, SLIPS, *OTHER_MODEL, arguments_of(cls.from_formula))
        outcome = outcome_of(family, trials, exposure)
        structure = make_residual(residual, residual_variance, group=residual_group, weights=weights)
        _only_independent(outcome, structure)
        if covariance is not None and covariance not in COVARIANCES:
            remedy = f"use one of {', '.join(map(repr, COVARIANCES))}"
            raise SpecificationError(f"covariance={covariance!r}", "this is not a structure of D", remedy)
        model = cls.__new__(cls)
        parsed = parse_formula(formula)
        options: dict[str, Any] = {"residual": structure, "outcome": outcome, "missing": missing}
        design = design_from_formula(parsed, readable(data), covariance=covariance, group=group, **options)
        model._set(design, priors)
        return model

    @property
    def hierarchy(self) -> Hierarchy:
        """The hierarchy as data."""
        return self._design.hierarchy

    @property
    def level1(self) -> str:
        """Level 1: the regression within subjects."""
        return self.hierarchy.level1

    @property
    def level2(self) -> dict[str, str]:
        """Level 2: what explains each level-1 coefficient."""
        return self.hierarchy.level2

    @property
    def random(self) -> list[str]:
        """Level-1 terms whose coefficients vary between subjects."""
        return self.hierarchy.random

    @property
    def covariance(self) -> str:
        """Structure of D."""
        return self.hierarchy.covariance

    @property
    def group(self) -> str | None:
        """Level-2 factor with a D of its own in each of its levels; None where there is one D."""
        return self.hierarchy.group

    @property
    def formula(self) -> str:
        """The combined model as one formula; ``from_formula`` makes the same model from it.

        ``covariance="identity"`` and ``covariance="compound_symmetry"`` have no sign in a formula: pass them along.
        """
        return self.hierarchy.formula

    def save_crossproducts(self, path: Any, data: Any = None, *, overwrite: bool = False) -> Any:
        """Write the sums of products that the likelihood needs to a file, from which fits are made without the rows.

        For data that are not in memory: they are read once, if they were not yet.

        Parameters
        ----------
        path : str or path-like
            Name of the file, ending in ``.nc``.
        data : table, optional
            Other subjects in place of the model's own: their sums are written in this model's columns (levels, centres
            and knots), so that `hierlmm.load_crossproducts` can add the two files.
        overwrite : bool
            Whether a file of this name is replaced.

        Returns
        -------
        pathlib.Path
            The file.
        """
        from hierlmm.storage.products import write_products

        engine = None if data is None else engine_of_any(data)
        return write_products(self._design, path, engine, overwrite=overwrite)

    def to_pymc(self, *, centered: bool = False, marginalized: bool = False) -> Any:
        """Build the model as a ``pymc.Model`` with named variables and dims.

        The explicit hierarchy: level 2 is ``subject_coef`` (subject × level1) from ``beta`` (coef) and ``b`` (subject ×
        term); level 1 is ``mu`` (obs) and the observed ``y``; ``sd_b``, ``corr_b`` (pair of terms) and ``sigma`` are
        the covariance parameters.

        Marginalized: b is integrated out, and β where its prior is normal, by a compiled density with exact gradient.
        The covariance parameters remain, under the same names; `hl.recover` draws β and b afterwards.

        Parameters
        ----------
        centered : bool
            Sample b directly (better when every subject has much data) instead of standardised effects.
        marginalized : bool
            Integrate β and b out.
        """
        from hierlmm.bayes.explicit import build_pymc_model
        from hierlmm.bayes.marginalized import build_marginalized_model

        if marginalized and not self._design.is_gaussian:
            received = f"marginalized=True with {self._design.family}"
            reason = "random effects can be integrated out exactly only beside a Gaussian response"
            remedy = "leave marginalized out; fit(sampler='laplace') integrates them out by Laplace's method"
            raise SpecificationError(received, reason, remedy, "docs, page 'Families'")
        if marginalized:
            if centered:
                received, reason = "centered=True with marginalized=True", "no random effect is left to centre"
                raise SpecificationError(received, reason, "leave centered out", "docs, page 'The collapsed posterior'")
            return build_marginalized_model(self._design, self.priors)
        return build_pymc_model(self._design, self.priors, centered=centered)

    def to_bambi(self) -> Any:
        """Build the same model with the same priors in Bambi.

        Raises
        ------
        SpecificationError
            Where Bambi cannot express it (correlated random effects), saying what it lacks.
        MissingPackageError
            If Bambi is not installed.
        """
        from hierlmm.bayes.bambi import build_bambi_model

        return build_bambi_model(self._design, self.priors)

    def fit(
        self,
        draws: int = 1000,
        tune: int | None = None,
        chains: int = 4,
        seed: int | None = None,
        *,
        sampler: str = "auto",
        centered: bool = False,
        target_accept: float | None = None,
        progressbar: bool = True,
        random_effects: str = "auto",
    ) -> PosteriorFit:
        """Sample the posterior by NUTS.

        Parameters
        ----------
        draws, chains : int
            Draws kept of each chain, and the number of chains.
        tune : int, optional
            Tuning steps of each chain. By default 1000; 200 where 2,000 subjects or more make the posterior of the
            covariance parameters nearly normal, which is looked at, so that there is only the step size to tune.
        seed : int, optional
            Makes the draws reproducible on one machine.
        sampler : {"auto", "collapsed", "explicit", "laplace"}
            Route to the posterior. ``"collapsed"`` integrates b out exactly, and β where its prior is normal, samples
            the covariance parameters and draws the rest afterwards from its exact conditional distribution;
            ``"explicit"`` samples everything together on the PyMC model of `to_pymc`. Both have the same posterior.
            ``"auto"`` collapses unless ``centered=True``, and the fit says which route it took. Other families than the
            Gaussian have no exact collapsed route: ``"auto"`` samples parameters and random effects together by
            compiled code, exactly, in coordinates that a Laplace approximation makes nearly independent;
            ``"laplace"`` integrates b out by Laplace's method, and says by Pareto k how good that was.
        centered : bool
            Explicit route: parametrise by b itself instead of standardised effects.
        target_accept : float, optional
            Acceptance probability that the step size is tuned to; closer to 1 is slower and has fewer divergences.
            By default 0.9, with such a nearly normal posterior 0.7; for other families than the Gaussian 0.95, or 0.65
            from 2,000 random effects on.
        progressbar : bool
            Show progress, in a terminal or notebook.
        random_effects : {"auto", "draws", "summary", "none"}
            Collapsed route: keep draws of b; or its posterior mean and SD, averaged over the draws analytically; or
            neither. ``"auto"`` keeps draws up to 10 million values.

        Returns
        -------
        PosteriorFit
            Frozen; its ``warnings`` say whether the sampler converged.
        """
        given = {"draws": draws, "tune": tune, "chains": chains, "seed": seed, "target_accept": target_accept}
        route = {"sampler": sampler, "centered": centered, "random_effects": random_effects}
        return fit_by("nuts", self, **given, **route, progressbar=progressbar)

    def fit_ml(self, *, n_quadrature: int = 1) -> Any:
        """Fit by maximum likelihood (compare models with different fixed effects on this scale).

        Parameters
        ----------
        n_quadrature : int
            Generalised models: points of adaptive Gauss-Hermite quadrature in each dimension, for up to three random
            effects; 1 is Laplace's method. A Gaussian model is integrated exactly and has no use for it.

        Returns
        -------
        LikelihoodFit, or GeneralisedFit for another family than the Gaussian
        """
        check_quadrature(n_quadrature, self.design)
        return fit_by("ml", self, n_quadrature=n_quadrature)

    def fit_gee(
        self,
        correlation: str = "exchangeable",
        *,
        time: Any = None,
        scale: Literal["n-p", "n"] = "n-p",
        ar_pairs: Literal["all", "adjacent"] = "all",
        se: Literal["robust", "naive", "bias_reduced"] = "robust",
        max_iterations: int = 200,
        shape: float | None = None,
    ) -> GEEFit:
        """Fit the mean over subjects by generalised estimating equations (statsmodels).

        The combined fixed part is fitted; the random effects are dropped, and the print says so. With a link other than
        the identity the coefficients are those of the mean over subjects, not of a subject
        (``fit_ml().marginal_coefficients()`` has their counterpart).

        Parameters
        ----------
        correlation : {"exchangeable", "independence", "ar1", "unstructured"}
            Working correlation of the rows of a subject.
        time : str or Series or array, optional
            When each row was measured: a column of the model, or one value for each row. ``"ar1"`` needs numbers
            (they may be irregular), ``"unstructured"`` planned times that subjects share; the others ignore it.
        scale : {"n-p", "n"}
            Divisor of the dispersion, on which naive standard errors depend: N − p (statsmodels, R's gee), with the
            number of pairs less p for an exchangeable correlation; or N and the number of pairs (R's geepack).
        ar_pairs : {"all", "adjacent"}
            AR(1): estimate the correlation from all pairs of rows (geepack) or from neighbours (R's gee).
        se : {"robust", "naive", "bias_reduced"}
            Which standard errors the fit reports by default; `GEEFit.standard_errors` has all three.
        max_iterations : int
        shape : float, optional
            Shape of a negative binomial, which GEE takes as known; by default that at which Pearson's χ² of the same
            mean for independent rows is N − p. The print says which.

        Returns
        -------
        GEEFit

        Raises
        ------
        SpecificationError, DataError
            If the correlation needs times that are not given or repeat, or cannot be estimated from these data.

        Examples
        --------
        >>> import hierlmm as hl
        >>> model = hl.TwoLevelModel.from_formula("distance ~ sex * time + (1 | subject)", hl.load_dataset("dental"))
        >>> model.fit_gee().standard_errors().round(4).loc["time"].to_dict()
        {'naive': 0.095, 'robust': 0.0631, 'bias_reduced': 0.0694}
        """
        chosen = {"scale": scale, "ar_pairs": ar_pairs, "se": se, "max_iterations": max_iterations, "shape": shape}
        return fit_by("gee", self, correlation, time=time, **chosen)


def _only_independent(outcome: Outcome, residual: Residual) -> None:
    """Refuse residual structures beside a response that has no residuals apart from its distribution."""
    if outcome.is_gaussian or (residual.correlation is None and residual.variance is None):
        return
    structure = residual.correlation if residual.correlation is not None else residual.variance
    received = f"residual structure {spec_text(structure)} with {outcome.family}"
    reason = "given its mean, this response has its own distribution, and no residual to correlate or to scale"
    remedy = "let more coefficients vary between subjects, or use family='gaussian' on a transformed response"
    raise NotAvailableError(received, reason, remedy, "docs, page 'Families'")


@checked
def load_crossproducts(*paths: Any) -> TwoLevelModel:
    """Load what ``model.save_crossproducts(path)`` wrote, as a model; several files of disjoint subjects are added.

    Parameters
    ----------
    *paths : str or path-like
        Files of one model: new subjects update a fit without the rows of the old ones.

    Returns
    -------
    TwoLevelModel
        Whose fits are those of all subjects together.

    Raises
    ------
    DataError
        If a file is not there, damaged or something else; or files are of other columns, or share subjects.
    """
    from hierlmm.storage.products import read_products

    if not paths:
        raise SpecificationError("load_crossproducts() without a file", "there is nothing to load", "name one or more")
    model = TwoLevelModel.__new__(TwoLevelModel)
    model._set(read_products(paths), None)
    return model
