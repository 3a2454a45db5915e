"""The front door of models with several grouping factors, nested or crossed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from hierlmm.design.factor_levels import formula_of_levels
from hierlmm.design.factors import design_from_factors, reused_labels
from hierlmm.design.formula import parse_formula
from hierlmm.design.hierarchy import Hierarchy
from hierlmm.design.outcome import Outcome, outcome_of
from hierlmm.errors import NotAvailableError, warn
from hierlmm.fit.estimators import FittedModel, fit_by
from hierlmm.fits.capabilities import Lack, refused, said_by_help
from hierlmm.fits.several import GENERALISED_MODEL, MODEL, OF_MODELS, SEE, unanswered
from hierlmm.likelihood.checks import check_quadrature
from hierlmm.options import arguments_of, checked_with_constructor, refuse_arguments

if TYPE_CHECKING:
    from hierlmm.comparison.compare import Comparison
    from hierlmm.fit.multilevel import MultilevelFit  # noqa: F401  named in the base of the class

OF_ONE_FACTOR = dict.fromkeys(
    ("residual", "residual_variance", "residual_group", "weights", "group"), "hl.TwoLevelModel with one of the factors"
)
SLIPS = OF_ONE_FACTOR | {
    "subject": "levels, a right-hand side for every grouping factor",
    "random": "MultilevelModel.from_formula, which says what varies by which factor",
    "covariance": "MultilevelModel.from_formula, where (1 + x || g) has uncorrelated random effects",
}
IN_FORMULA = OF_ONE_FACTOR | {
    "subject": "a parenthesis for each factor in the formula: (1 | batch)",
    "random": "the formula, which says what varies by which factor: (1 + x | school)",
    "covariance": "|| in the formula for uncorrelated random effects: (1 + x || school)",
}
WHY = "it says of each factor what varies by it, and its residuals are independent with one variance"


@checked_with_constructor
class MultilevelModel(FittedModel["MultilevelFit"]):
    """A model with several grouping factors, linear or generalised, bound to its data: nested ones, level by level.

    Crossed factors, and random slopes, are written as a formula: see `from_formula`.

    Parameters
    ----------
    response : str
        Regression of the rows, ``"strength ~ x"``.
    levels : mapping of str to str
        What explains the intercept at each level, the finest first: ``{"cask": "1", "batch": "temp"}`` has a random
        intercept for every cask in a batch and for every batch, and the fixed effect of ``temp``, which is constant
        within batches. ``"1"``: nothing but the random intercept.
    data : table
        Long format, one row per measurement: pandas, polars, pyarrow or anything narwhals reads.
    family : str or Family
        Distribution of the response, as `TwoLevelModel` takes it: ``"bernoulli"``, ``"binomial"``, ``"poisson"``,
        ``"negative_binomial"``, ``"gamma"``, ``"ordinal"``. Random effects of other families than the Gaussian are
        integrated out by Laplace's method for maximum likelihood, and sampled by NUTS.
    trials : str, optional
        Column of the numbers of trials of a binomial response (or write ``p(successes, n) ~ ...``).
    exposure : str, optional
        Column of what counts are per, time or area or people: an offset ``log(exposure)``.
    priors : Priors or "bambi", optional
        The defaults, or those of Bambi, with what is given in their place. Standard deviations by factor and term:
        ``hl.Priors(sd_b={"batch": hl.HalfNormal(3), "x | school": hl.HalfNormal(1)})``.
    missing : {"raise", "drop"}
        Refuse missing values (naming columns and counts), or fit the complete rows and say how many were dropped.

    Raises
    ------
    FormulaError, SpecificationError, DataError
        In four parts: what was received, why it cannot be used, what to do, where to read more.

    Examples
    --------
    >>> import hierlmm as hl
    >>> model = hl.MultilevelModel("strength ~ 1", {"cask": "1", "batch": "1"}, data=hl.load_dataset("pastes"))
    >>> model.formula
    'strength ~ 1 + (1 | batch) + (1 | batch:cask)'
    >>> round(model.fit_reml().criterion, 4)
    246.9907
    """

    lacks: ClassVar[Mapping[str, Lack]] = MODEL
    _answered_by: ClassVar[frozenset[str]] = frozenset()
    """Functions of the package that take such a model; all others refuse it."""
    _unanswered = unanswered(
        "a MultilevelModel", "use fit(), fit_reml() or fit_ml(); with one factor hl.TwoLevelModel", OF_MODELS
    )

    def __init__(
        self,
        response: str,
        levels: Mapping[str, str],
        *,
        data: Any,
        family: Any = "gaussian",
        trials: str | None = None,
        exposure: str | None = None,
        priors: Any = None,
        missing: str = "raise",
        **unknown: Any,
    ) -> None:
        refuse_arguments("MultilevelModel", unknown, SLIPS, WHY, SEE, arguments_of(MultilevelModel))
        outcome = outcome_of(family, trials, exposure)
        self._read(formula_of_levels(response, levels, data), data, outcome, priors, missing)

    @classmethod
    def from_formula(
        cls,
        formula: str,
        data: Any,
        *,
        family: Any = "gaussian",
        trials: str | None = None,
        exposure: str | None = None,
        priors: Any = None,
        missing: str = "raise",
        **unknown: Any,
    ) -> MultilevelModel:
        """Read factors and levels off a formula and the data.

        Parameters
        ----------
        formula : str
            ``"y ~ x + (1 + x | student) + (1 | instructor)"``: a parenthesis for every factor. Groups are the values of
            a column or, ``(1 | dept:service)``, the combinations of several; ``(1 | batch / cask)`` is
            ``(1 | batch) + (1 | batch:cask)``. ``||`` has uncorrelated random effects.
        data : table
        family, trials, exposure, priors, missing
            As for `MultilevelModel`.
        """
        refuse_arguments("MultilevelModel.from_formula", unknown, IN_FORMULA, WHY, SEE, arguments_of(cls.from_formula))
        model = cls.__new__(cls)
        model._read(formula, data, outcome_of(family, trials, exposure), priors, missing)
        return model

    def _read(self, formula: str, data: Any, outcome: Outcome, priors: Any, missing: str) -> None:
        family = outcome.family
        design = design_from_factors(parse_formula(formula, several=True), data, outcome=outcome, missing=missing)
        if design.has_several_factors and not (outcome.is_gaussian or family.log_concave):
            reason = (
                "its density is not log-concave in the linear predictor, so that random effects can have several "
                "modes, and Laplace's method goes by one"
            )
            links = " or ".join(map(repr, family.concave))
            other = f"link={links}, or " if links else ""
            remedy = f"use {other}hl.TwoLevelModel with one of the factors"
            raise NotAvailableError(f"{family} with several grouping factors", reason, remedy, SEE)
        for message in reused_labels(design):
            warn(message)
        self._set(design, priors)

    def __getattribute__(self, name: str) -> Any:
        lacks = type(self).lacks
        if name in GENERALISED_MODEL and self._is_generalised:
            lacks = GENERALISED_MODEL
        if name not in lacks:
            return super().__getattribute__(name)
        return refused(self, name, lacks[name].refusal(name, ""))

    @property
    def _is_generalised(self) -> bool:
        """Whether it has several factors beside another response than a normal one."""
        return self._design.has_several_factors and not self._design.is_gaussian

    @property
    def hierarchy(self) -> Hierarchy:
        """The model as data."""
        return self._design.hierarchy

    @property
    def formula(self) -> str:
        """The model as one formula, a parenthesis for each factor; `from_formula` makes the same model from it."""
        return self.hierarchy.formula

    def fit(
        self,
        draws: int = 1000,
        tune: int | None = None,
        chains: int = 4,
        seed: int | None = None,
        *,
        sampler: str = "auto",
        target_accept: float | None = None,
        progressbar: bool = True,
        random_effects: str = "auto",
    ) -> Any:
        """Sample the posterior by NUTS.

        Parameters
        ----------
        draws, chains : int
            Draws kept of each chain, and the number of chains.
        tune : int, optional
            Tuning steps of each chain, by default 1000, or 200 as in `TwoLevelModel.fit`.
        seed : int, optional
            Makes the draws reproducible on one machine.
        sampler : {"auto", "collapsed", "explicit"}
            Route to the posterior. ``"collapsed"`` integrates the random effects of all factors out exactly, and β,
            samples the covariance parameters and draws the rest afterwards from its exact conditional distribution;
            ``"explicit"`` samples everything together on the PyMC model of `to_pymc`. Both have the same posterior;
            ``"auto"`` chooses, and the fit says which and why. Another family than the Gaussian has no collapsed
            posterior: ``"auto"`` samples parameters and random effects together by compiled code.
        target_accept : float, optional
            Acceptance probability that the step size is tuned to, by default 0.8 (explicit route: 0.9; other families:
            0.95, or 0.65 with thousands of random effects); closer to 1 is slower and has fewer divergences.
        progressbar : bool
            Show progress, in a terminal or notebook.
        random_effects : {"auto", "draws", "summary", "none"}
            Not on the explicit route: keep draws of b; or its posterior mean and SD (collapsed route: averaged over the
            draws analytically); or neither. ``"auto"`` keeps draws up to 10 million values.

        Returns
        -------
        MultilevelPosterior, or GeneralisedMultilevelPosterior for another family than the Gaussian
            Frozen; its ``warnings`` say whether the sampler converged.
        """
        given = {"draws": draws, "tune": tune, "chains": chains, "seed": seed, "target_accept": target_accept}
        route = {"sampler": sampler, "random_effects": random_effects, "progressbar": progressbar}
        return fit_by("nuts", self, **given, **route)

    def fit_ml(self, *, n_quadrature: int = 1) -> Any:
        """Fit by maximum likelihood (compare models with different fixed effects on this scale).

        Parameters
        ----------
        n_quadrature : int
            1, Laplace's method, for other families than the Gaussian; with one grouping factor more points of adaptive
            Gauss-Hermite quadrature, as for `TwoLevelModel`.

        Returns
        -------
        MultilevelFit, or GeneralisedMultilevelFit for another family than the Gaussian
        """
        check_quadrature(n_quadrature, self._design)
        return fit_by("ml", self, n_quadrature=n_quadrature)

    def fit_gee(self, *args: Any, **options: Any) -> NoReturn:
        """Not there: estimating equations have one grouping of the rows.

        Parameters
        ----------
        *args, **options
            Whatever they are.
        """
        raise self.lacks["fit_gee"].refusal("fit_gee", "")

    def to_pymc(self) -> Any:
        """Build the model as a ``pymc.Model`` with named variables, and dimensions of every grouping factor.

        The explicit hierarchy: ``b_batch`` (batch × batch_term) are the random effects of factor ``batch``, ``mu``
        (obs) is the expected response, ``y`` (obs) the observed one; ``beta`` (coef), ``sd_b`` (term), ``corr_b``
        (pair of terms) and ``sigma``, or the dispersion of another family, are the parameters. Random effects are
        sampled as standardised ones.
        """
        from hierlmm.bayes.explicit_factors import build_factor_model

        if not self._design.has_several_factors:
            from hierlmm.bayes.explicit import build_pymc_model

            return build_pymc_model(self._design, self.priors)
        return build_factor_model(self._design, self.priors)

    def compare(
        self, *estimators: str, ci: float = 0.95, seed: int | None = None, progressbar: bool = True, **fit_options: Any
    ) -> Comparison:
        """Fit by several estimators and put the answers side by side.

        Parameters
        ----------
        *estimators : {"nuts", "reml", "ml"}
            ``"nuts"`` and ``"reml"`` by default; the first is the reference for differences.
        ci : float
            Probability of the intervals.
        seed, progressbar, **fit_options
            For NUTS, as in `fit`.

        Returns
        -------
        Comparison
        """
        for name in estimators:
            if lack := self.lacks.get({"bambi": "to_bambi", "gee": "fit_gee"}.get(name, "")):
                raise lack.refusal(f"compare({name!r})", "")
        return super().compare(*estimators, ci=ci, seed=seed, progressbar=progressbar, **fit_options)

    def implied_marginal(self, fit: Any, *args: Any, **options: Any) -> Any:
        """Covariance of two rows by the groups that they share, as a fit of this model implies it.

        Parameters
        ----------
        fit : Fit
            Of this model, by any estimator.
        *args, **options
            As for ``fit.implied_marginal``.

        Returns
        -------
        SharedGroups, or with one grouping factor ImpliedMarginal
        """
        from hierlmm.implied.marginal import refuse_other_model

        refuse_other_model(self._design, fit)
        return fit.implied_marginal(*args, **options)

    def __repr__(self) -> str:
        from hierlmm.equations.factors import describe_factors

        return describe_factors(self._design)

    def _repr_html_(self) -> str:
        from hierlmm.equations.factors import describe_factors_html

        return describe_factors_html(self._design)


said_by_help(MultilevelModel)
