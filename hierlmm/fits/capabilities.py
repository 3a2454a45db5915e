"""What a kind of fit has not: one table, and one refusal that says what to use instead.

A fit names its tables in ``lacks``; asking it for a name in them raises `NotAvailableError`, for a method when it is
called. What a fit has is asked by ``has_draws``, ``has_likelihood``, ``has_random_effects`` and
``has_working_correlation``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import wraps
from types import FunctionType, MappingProxyType, MethodType
from typing import Any

from hierlmm.errors import NotAvailableError, OtherNameError


@dataclass(frozen=True)
class Lack:
    """Why a kind of fit has no such thing, what to do, and where to read; ``of`` names the kind.

    What to do may name ``{asked}``, and what a fit says of itself in ``_named_in_refusals``. A name in a table of lacks
    is one of a property or method, or of an argument that a method has elsewhere: ``summary(df)``.
    """

    reason: str
    remedy: str
    see: str
    of: str = "a fit by {}"

    def refusal(self, what: str, estimator: str, **named: str) -> NotAvailableError:
        """The error for ``what``, asked of a fit by ``estimator``."""
        remedy = self.remedy.format(asked=what, **named)
        return NotAvailableError(f"{what} of {self.of.format(estimator)}", self.reason, remedy, self.see)


def said_by_help(kind: type) -> None:
    """Let help() say of every property that a class lacks why it is not available."""
    for name, lack in vars(kind).get("lacks", {}).items():
        if isinstance(own := getattr(kind, name, None), property):
            setattr(kind, name, property(own.fget, doc=f"Not available: {lack.reason}."))


def refused(of: Any, name: str, refusal: NotAvailableError) -> MethodType:
    """A method of this name that refuses when it is called.

    Parameters
    ----------
    of : object
        What was asked for it.
    name : str
    refusal : NotAvailableError

    Raises
    ------
    NotAvailableError
        If it is no method.
    """
    method = getattr(type(of), name, None)
    if not isinstance(method, FunctionType):
        raise refusal

    @wraps(method)
    def refuse(self: Any, *args: Any, **options: Any) -> None:
        raise refusal

    return MethodType(refuse, of)


def table(*lacks: tuple[str, Lack]) -> Mapping[str, Lack]:
    """Name -> reason, read-only, from pairs of names (parted by blanks) and reason."""
    return MappingProxyType({name: lack for names, lack in lacks for name in names.split()})


def both(first: Mapping[str, Lack], second: Mapping[str, Lack]) -> Mapping[str, Lack]:
    """What either table names."""
    return MappingProxyType({**first, **second})


LME4 = {
    "fixef": "fit.beta, with standard errors in fit.summary()",
    "ranef": "fit.b, with fit.b_sd",
    "coef": "fit.subject_coef for each subject's own coefficients, fit.beta for the fixed effects",
    "VarCorr": "fit.variance_components(), fit.D and fit.sigma",
    "vcov": "fit.beta_cov",
    "confint": "fit.profile(), fit.bootstrap(), or Wald's intervals in fit.summary() and fit.variance_components()",
    "resid": "fit.residuals()",
    "logLik": "fit.loglik",
    "AIC": "fit.aic",
    "BIC": "fit.bic",
    "nobs": "fit.n_obs",
    "emmeans": "fit.marginal_means()",
    "lsmeans": "fit.marginal_means()",
}
"""What lme4, nlme and emmeans call it -> what it is called here."""


def other_name(kind: str, name: str) -> OtherNameError:
    """The error for a name of `LME4`, asked of a fit of this class."""
    reason, see = "this is the name in R", "docs, page 'Quickstart', section 'Coming from lme4'"
    return OtherNameError(f"{kind}.{name}", reason, f"use {LME4[name]}", see)


NO_DELETION = Lack(
    "it takes subjects out of a likelihood, and this fit has none",
    "use fit_reml(), fit_ml() or fit() of the model: .influence() of these",
    "docs, page 'Checks'",
)
EFFECTS = "D sd_b corr_b b b_sd b_cov subject_coef icc"
MAXIMUM = "criterion n_parameters aic bic information_criteria subject_loglik"
NO_DRAWS = Lack(
    "it reweights draws from a posterior, and this fit has none",
    "use model.fit().loo(); to compare likelihood fits use their AIC (by ML where fixed effects differ)",
    "docs, page 'Posterior fits'",
)
CHAINS = "plot_trace plot_rank plot_energy plot_ess plot_mcse plot_autocorr plot_pair plot_prior_posterior plot_psense"
CHAINS += " psense plot_khat plot_loo_pit plot_diagnostics"
NO_CHAINS = Lack(
    "it shows draws of a sampler, or reweights them, and this fit has none",
    "use model.fit(); fit.to_datatree() has independent draws for ArviZ's other plots",
    "docs, page 'Posterior fits'",
)
NO_REPLICATIONS = Lack(
    "it is made of draws of a posterior, and this fit has none",
    "use model.fit(); to check this fit use plot_residuals(), plot_qq() and hl.semivariogram(fit)",
    "docs, page 'Posterior fits', section 'Predictive checks'",
)
EVIDENCE = "log_marginal_likelihood savage_dickey"
NO_PRIORS = Lack(
    "it averages the likelihood over the priors, and this fit has none",
    "use model.fit() for a posterior; hl.bayes_factor(model, other) needs no fit",
    "docs, page 'Bayes factors'",
)
NO_MAXIMUM = Lack(
    "it fits again by maximum likelihood, and this fit is the maximum of none",
    "use model.fit_reml() or model.fit_ml(); the uncertainty of this fit is in fit.summary()",
    "docs, page 'Intervals'",
)
REPLICATIONS = "ppc plot_ppc posterior_predictive prior_predictive extend for_arviz"
NO_NEW_GROUPS = Lack(
    "with one grouping factor its groups are the subjects of the fit, and new ones have a level of their own",
    "use level='new_subject'",
    "docs, page 'More than two levels'",
)
LIKELIHOOD = table(
    ("predict(new_groups)", NO_NEW_GROUPS),
    ("loo", NO_DRAWS),
    (CHAINS, NO_CHAINS),
    (REPLICATIONS, NO_REPLICATIONS),
    (EVIDENCE, NO_PRIORS),
)
NO_ERRORS = Lack(
    "the draws of a posterior hold the uncertainty of all parameters, and its intervals are quantiles of them",
    "leave it out; model.fit_reml().summary(df='kenward-roger') has degrees of freedom",
    "docs, page 'Posterior fits'",
)
POSTERIOR = table(
    ("bootstrap profile test_covariance test_random_effects", NO_MAXIMUM),
    ("summary(df) summary(se) summary(method)", NO_ERRORS),
    ("predict(new_groups)", NO_NEW_GROUPS),
    (
        f"{MAXIMUM} is_singular",
        Lack(
            "it belongs to the maximum of a likelihood, and a posterior is a distribution",
            "use model.fit_reml() or model.fit_ml(); to compare posteriors use fit.loo()",
            "docs, page 'Posterior fits'",
        ),
    ),
    (
        "blup_variances",
        Lack(
            "the three variances differ in what a likelihood fit takes as known (β, θ); a posterior of b has one "
            "variance, which includes the uncertainty of both",
            "use fit.b_sd ** 2, or model.fit_reml().blup_variances()",
            "docs, page 'Teaching'",
        ),
    ),
)
GEE = table(
    ("bootstrap profile test_covariance test_random_effects", NO_MAXIMUM),
    (
        f"{EFFECTS} intraclass_correlation r_squared variance_components is_singular blup_variances",
        Lack(
            "GEE models the mean over subjects and has no random effects and no variance between subjects",
            "use fit_reml(), fit_ml() or fit(); for the correlation within subjects see fit.correlation_parameters",
            "docs, page 'GEE'",
        ),
    ),
    (
        f"{MAXIMUM} loglik",
        Lack(
            "GEE solves equations for the mean and has no likelihood",
            "use fit_ml(); fit.qic() compares working correlations and means of fits to the same rows",
            "docs, page 'GEE'",
        ),
    ),
    (
        "predict_subject plot_subject_prediction",
        Lack(
            "it assumes no distribution of a subject's measurements, so the first ones say nothing about the next",
            "use fit_reml().predict_subject(history, times), or predict() for the mean over subjects",
            "docs, page 'GEE'",
        ),
    ),
    ("loo", NO_DRAWS),
    ("influence", NO_DELETION),
    (CHAINS, NO_CHAINS),
    (EVIDENCE, NO_PRIORS),
    (REPLICATIONS, NO_REPLICATIONS),
    (
        "compare_marginal",
        Lack(
            "it compares a mixed model with GEE, and this is the GEE",
            "start from the mixed model: model.fit_ml().compare_marginal()",
            "docs, page 'GEE'",
        ),
    ),
)
NOT_GAUSSIAN = Lack(
    "it rests on a response that is normal around the linear predictor",
    "use fit.predict(), fit.fitted() and fit.residuals('pearson')",
    "docs, page 'Families'",
    "a generalised fit by {}",
)
NO_SHARES = Lack(
    "shares of variance need a residual variance, and here that of a measurement follows from its mean",
    "use fit.variance_components(): SDs between subjects on the scale of the link",
    "docs, page 'Families'",
    "a generalised fit by {}",
)
NO_JOINT = Lack(
    "it needs the joint distribution of the subjects' coefficients, which is not normal here",
    "use fit.b with fit.b_sd for each subject given the estimates, fit.predict(level='subject', "
    "interval='confidence') for its mean with the uncertainty of all parameters",
    "docs, page 'Families'",
    "a generalised fit by {}",
)
NOT_BESIDE_GEE = Lack(
    "its table has one line a coefficient, and on a curved scale a coefficient given the random effects and one of the "
    "mean over subjects are two numbers",
    "use hl.compare(fit, model.fit_gee()), which has a block for each, or fit.marginal_coefficients()",
    "docs, page 'GEE'",
    "a generalised fit by {}",
)
NOT_PROFILED = Lack(
    "profile likelihoods are made for a response that is normal around the linear predictor",
    "use fit.bootstrap(), or fit.summary() and fit.variance_components() for Wald's intervals",
    "docs, page 'Intervals'",
    "a generalised fit by {}",
)
NO_DEGREES = Lack(
    "degrees of freedom and errors from scores are made for a response that is normal around the linear predictor",
    "leave it out for Wald's z; with few subjects or groups use fit.bootstrap(), or model.fit() for a posterior",
    "docs, page 'Intervals'",
    "a generalised fit by {}",
)
GENERALISED = table(
    ("profile summary(method) variance_components(method)", NOT_PROFILED),
    ("summary(df) summary(se)", NO_DEGREES),
    ("predict(new_groups)", NO_NEW_GROUPS),
    ("loo", NO_DRAWS),
    (CHAINS, NO_CHAINS),
    (EVIDENCE, NO_PRIORS),
    ("compare_marginal", NOT_BESIDE_GEE),
    (
        "blup_variances implied_marginal marginal_covariance predict_subject plot_subject_prediction "
        "plot_qq plot_residuals plot_separate_lines plot_shrinkage",
        NOT_GAUSSIAN,
    ),
    ("icc intraclass_correlation r_squared", NO_SHARES),
    ("compare_subjects rank_subjects", NO_JOINT),
)
GENERALISED_GEE = both(
    GEE,
    table(
        ("implied_marginal plot_qq plot_residuals plot_separate_lines", NOT_GAUSSIAN),
    ),
)
B_COV = Lack(
    "the random effects of a posterior are draws, which need not be normal",
    "use fit.draws('b'), or fit.b_sd",
    "docs, page 'Families'",
    "a generalised fit by {}",
)
OF_THE_SEARCH = Lack(
    "it describes the search for a maximum, and a posterior is sampled",
    "use fit.convergence() and fit.sample_stats for how it was sampled, or model.fit_ml()",
    "docs, page 'Families'",
    "a generalised fit by {}",
)
NOT_COLLAPSED = Lack(
    "fixed and random effects can be integrated out in closed form only beside a Gaussian response",
    "compare such fits by fit.loo()",
    "docs, page 'Bayes factors'",
    "a generalised fit by {}",
)
GENERALISED_POSTERIOR = both(
    POSTERIOR,
    table(
        ("implied_marginal marginal_covariance predict_subject plot_subject_prediction", NOT_GAUSSIAN),
        ("icc intraclass_correlation r_squared", NO_SHARES),
        (EVIDENCE, NOT_COLLAPSED),
        ("plot_qq plot_residuals plot_separate_lines plot_shrinkage", NOT_GAUSSIAN),
        ("compare_marginal", NOT_BESIDE_GEE),
        ("b_cov", B_COV),
        (
            "criterion_function gradient_norm method n_quadrature optima optimum plot_optima record solution",
            OF_THE_SEARCH,
        ),
    ),
)
NO_EFFECTS = table(
    (
        f"{EFFECTS} plot_random_effects test_random_effects",
        Lack(
            "it describes the mean and the covariance of a subject's rows, not what a subject has of its own",
            "fit a hierarchy, hl.TwoLevelModel, for random effects; fit.marginal_covariance() has the covariance",
            "docs, page 'Hierarchical and marginal models'",
            "a marginal model",
        ),
    )
)
