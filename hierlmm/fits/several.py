"""What a fit with several grouping factors has not yet, and what to use instead (`hierlmm.fits.capabilities`)."""

from __future__ import annotations

from collections.abc import Mapping

from hierlmm.design.formula import MULTILEVEL as SEE
from hierlmm.errors import NotAvailableError
from hierlmm.fits.capabilities import (
    CHAINS,
    EVIDENCE,
    GENERALISED_POSTERIOR,
    LIKELIHOOD,
    NO_DEGREES,
    NOT_COLLAPSED,
    POSTERIOR,
    REPLICATIONS,
    Lack,
    both,
    table,
)

OF, OF_MODEL = "a fit by {} with several grouping factors", "a MultilevelModel"
ANSWERED = frozenset(
    {
        "anova",
        "check",
        "compare",
        "compare_models",
        "effect_curves",
        "equations",
        "implied_marginal",
        "influence",
        "interpret",
        "multilevel_design_analysis",
        "plot_effects",
        "plot_forest",
        "plot_optima",
        "plot_qq",
        "plot_residuals",
        "shared_groups",
    }
)
"""Functions and methods of the package that know fits with several grouping factors; all others refuse them."""
ANSWERED_BY_DRAWS = frozenset(
    {
        "check",
        "compare",
        "compare_models",
        "effect_curves",
        "plot_effects",
        "plot_forest",
        "plot_posterior",
        "shared_groups",
    }
)
"""The same of their posteriors."""


def unanswered(
    of: str, remedy: str, functions: Mapping[str, Lack], likelihood: str = ""
) -> staticmethod[[str], NotAvailableError]:
    """A method that makes the refusal of a function, by its name, that is not made for several grouping factors.

    Parameters
    ----------
    of : str
        What the function was given.
    remedy : str
        What to use instead of most functions.
    functions : mapping
        Name -> why and what to use instead of that one.
    likelihood : str
        What to do where a function takes fits by REML and ML.
    """

    def refusal(name: str) -> NotAvailableError:
        if lack := functions.get(name):
            return NotAvailableError(f"{of} in {name}()", lack.reason, lack.remedy, SEE)
        if name in ANSWERED:
            reason = "of several grouping factors it takes fits by REML and ML of a response that is normal"
            return NotAvailableError(f"{of} in {name}()", reason, likelihood or remedy, SEE)
        reason = "this function is made for models with one kind of subject, and has no form for several factors yet"
        return NotAvailableError(f"{of} in {name}()", reason, remedy, SEE)

    return staticmethod(refusal)


def _lack(reason: str, remedy: str, of: str = OF) -> Lack:
    return Lack(reason, remedy, SEE, of)


NO_POSTERIOR = _lack(
    "it needs draws of a posterior, and this fit has none",
    "use model.fit(); or hl.anova(m1, m2), fit.aic and fit.bic to compare models, fit.summary(df='{df}') and "
    "fit.variance_components(method='profile') for intervals",
)
ONE_KIND = "it speaks of one kind of subject, and here rows belong to groups of several factors"
OF_EFFECTS = _lack(ONE_KIND, "use fit.b, fit.b_sd and fit.sd_b, each by factor: fit.b[{factor}]")
OF_ROWS = _lack(ONE_KIND, "use fit.fitted(level=...), fit.residuals(level=...) and fit.predict(rows, level=...)")
OF_COVARIANCE = _lack(ONE_KIND, "use fit.marginal_covariance(rows), which says what any rows share")
OF_UNITS = _lack(
    "it takes the likelihood apart by subjects, and here rows share groups of several factors",
    "use fit.residuals(), and fit.b with fit.b_sd for groups that stand out; fit without single groups to see what "
    "they do",
)
NO_TESTS_OF_D = _lack(
    "it goes through the random effects of one kind of subject",
    "use hl.anova(m1, m2) of fits with and without what is asked about, or hl.anova(m1, m2, test='bootstrap')",
)
NO_PROFILES = _lack(
    "it holds fixed effects by taking cross-products apart subject by subject",
    "use fit.variance_components(method='profile') for variances, fit.summary(df='{df}') for fixed effects",
)
NO_DRAWS_OF_B = _lack(
    "it draws random effects subject by subject",
    "use fit.beta with fit.beta_cov, fit.b with fit.b_cov and fit.variance_components()",
)
NO_COUNT = _lack(ONE_KIND, "use fit.n_groups, by factor, and fit.n_obs")
NOT_ONE_D = _lack(
    "GEE has one grouping of the rows, within which they correlate",
    "use hl.TwoLevelModel with the coarsest factor: its fits have compare_marginal()",
)
SEVERAL = both(
    LIKELIHOOD,
    table(
        (f"loo {CHAINS} {REPLICATIONS} {EVIDENCE} plot_posterior", NO_POSTERIOR),
        (
            "subject_coef compare_subjects compare_groups plot_shrinkage",
            OF_EFFECTS,
        ),
        (
            "predict_subject plot_subject_prediction plot_trajectories plot_separate_lines plot_data",
            OF_ROWS,
        ),
        ("plot_conditional_vs_marginal", OF_COVARIANCE),
        ("subject_loglik", OF_UNITS),
        ("test_covariance test_random_effects", NO_TESTS_OF_D),
        ("profile", NO_PROFILES),
        ("to_datatree", NO_DRAWS_OF_B),
        ("n_subjects", NO_COUNT),
        ("compare_marginal", NOT_ONE_D),
    ),
)
NO_POSTERIOR_OF_FAMILY = _lack(
    "it needs draws of a posterior, and this fit has none",
    "use model.fit(); or hl.anova(m1, m2), fit.aic and fit.bic to compare models, fit.summary() and "
    "fit.variance_components() for intervals",
)
NOT_PROFILED = _lack(
    "profile likelihoods are made for a response that is normal around the linear predictor",
    "use fit.bootstrap(), or fit.summary() and fit.variance_components() for Wald's intervals",
)
NO_NORMAL = _lack(
    "it rests on a response that is normal around the linear predictor",
    "use fit.predict(), fit.fitted(), fit.residuals('pearson') and fit.b with fit.b_sd, by factor",
)
NO_JOINT_NORMAL = _lack(
    "it rests on random effects that are normal given the data, and with another response than a normal one they are "
    "not",
    "use fit.b[{factor}] with fit.b_sd[{factor}], and fit.sd_b[{factor}] with its interval in "
    "fit.variance_components(); on the scale of the link",
)
NO_JUDGE = _lack(
    "with several factors it is made for a response that is normal around the linear predictor so far",
    "use fit.residuals('pearson') and fit.residuals('deviance'), fit.b[{factor}] with fit.b_sd[{factor}] for groups "
    "that stand out, and fit without single groups to see what they do",
)
NO_RESIDUAL_SHARES = _lack(
    "shares of variance need a residual variance, and here that of a measurement follows from its mean",
    "use fit.variance_components(): SDs between groups on the scale of the link",
)
GENERALISED_ANSWERED = frozenset(
    {"anova", "compare", "compare_models", "effect_curves", "plot_effects", "plot_forest", "plot_optima"}
)
"""As `ANSWERED`, of a generalised fit."""
GENERALISED_SEVERAL = both(
    SEVERAL,
    table(
        (f"loo {CHAINS} {REPLICATIONS} {EVIDENCE} plot_posterior", NO_POSTERIOR_OF_FAMILY),
        ("profile summary(method) variance_components(method)", NOT_PROFILED),
        ("summary(df) summary(se)", NO_DEGREES),
        ("check influence", NO_JUDGE),
        ("heterogeneity rank_subjects", NO_JOINT_NORMAL),
        (
            "blup_variances marginal_covariance implied_marginal interpret plot_conditional_vs_marginal plot_residuals "
            "plot_qq",
            NO_NORMAL,
        ),
        ("icc intraclass_correlation r_squared", NO_RESIDUAL_SHARES),
    ),
)
"""The same of a generalised model."""
NO_SCALING = _lack(
    "it scales the likelihood of independent subjects, and here rows share groups of several factors",
    "compare fits with other priors: hl.MultilevelModel.from_formula(..., priors=hl.Priors(...))",
)
NO_REPLICATED = _lack(
    "it replicates subjects, and here rows share groups of several factors",
    "use fit.residuals() and fit.predict(rows, interval='prediction', new_groups='allow')",
)
NO_EVIDENCE = _lack(
    "the integral over the covariance parameters is made for one kind of subject so far",
    "compare fits by hl.compare_models(m1, m2), or posteriors by fit.loo()",
)
NOT_OF_DRAWS = _lack(
    "with several factors it is made for fits by REML and ML, at whose estimates the model is linear",
    "use model.fit_reml().{asked}(); fit.check() looks at rows and groups of a posterior, too",
)
NO_DRAWN_GROUPS = _lack(
    "with several factors it is made for a response that is normal around the linear predictor so far",
    "use fit.b[{factor}] with fit.b_sd[{factor}], or rank its draws, fit.draws({effects}), one by one; on the "
    "scale of the link",
)
SEVERAL_POSTERIOR = both(
    POSTERIOR,
    table(
        (
            "subject_coef compare_subjects compare_groups plot_shrinkage",
            OF_EFFECTS,
        ),
        (
            "predict_subject plot_subject_prediction plot_trajectories plot_separate_lines plot_data",
            OF_ROWS,
        ),
        ("plot_conditional_vs_marginal", OF_COVARIANCE),
        ("influence plot_residuals plot_qq", NOT_OF_DRAWS),
        ("psense plot_psense plot_prior_posterior", NO_SCALING),
        (f"{REPLICATIONS} parameter_draws plot_loo_pit plot_khat", NO_REPLICATED),
        (EVIDENCE, NO_EVIDENCE),
        ("n_subjects", NO_COUNT),
        ("compare_marginal", NOT_ONE_D),
    ),
)
GENERALISED_SEVERAL_POSTERIOR = both(
    both(GENERALISED_POSTERIOR, SEVERAL_POSTERIOR),
    table(
        ("implied_marginal interpret marginal_covariance plot_residuals plot_qq", NO_NORMAL),
        ("check influence", NO_JUDGE),
        ("heterogeneity rank_subjects", NO_DRAWN_GROUPS),
        ("icc intraclass_correlation r_squared", NO_RESIDUAL_SHARES),
        (EVIDENCE, NOT_COLLAPSED),
    ),
)
"""The same of a generalised posterior."""
NO_BAMBI = _lack(
    "a Bambi model is made for one grouping factor only here",
    "use model.to_pymc(); bambi.Model(formula, data) takes the formula of uncorrelated random effects as it is",
    OF_MODEL,
)
NO_PRIOR_DRAWS = _lack(
    "it draws subjects that share nothing, and here rows share groups of several factors",
    "use pymc.sample_prior_predictive(model=model.to_pymc())",
    OF_MODEL,
)
NO_GEE = _lack(
    "estimating equations have one grouping of the rows, within which they correlate",
    "use hl.TwoLevelModel or hl.MarginalModel with the coarsest factor as subject",
    OF_MODEL,
)
NO_STEPS = _lack(
    "it goes step by step through models with one kind of subject",
    "use hl.anova(m1, m2) and hl.compare_models(m1, m2) of fits with and without what is asked about",
)
NO_OTHER_PLAN = _lack(
    "it plans studies with one kind of subject", "use hl.multilevel_design_analysis(formula, sizes=..., D=..., ...)"
)
OF_MODELS = table(
    ("bayes_factor model_probabilities", NO_EVIDENCE),
    ("build_random drop_terms", NO_STEPS),
    ("design_analysis", NO_OTHER_PLAN),
)
OF_FAMILIES = both(OF_MODELS, table(("bayes_factor model_probabilities", NOT_COLLAPSED)))
"""Functions of models and posteriors that have a reason of their own to refuse several grouping factors."""
NO_SUBJECT = _lack(ONE_KIND, "use model.formula and model.design.random; fit.n_groups counts groups", OF_MODEL)
NO_PLANS = _lack(
    ONE_KIND, "use hl.missing_patterns(data, subject=..., time=...) and hl.MarginalModel(...).plot_data()", OF_MODEL
)
MODEL = table(
    ("to_bambi", NO_BAMBI),
    ("prior_predictive plot_prior_predictive", NO_PRIOR_DRAWS),
    ("fit_gee", NO_GEE),
    ("subject", NO_SUBJECT),
    ("missing_data plot_data", NO_PLANS),
)
"""The same of a model."""
NO_LETTERS = _lack(
    "they are written for a response that is normal around the linear predictor so far",
    "use print(model), and model.formula",
    OF_MODEL,
)
GENERALISED_MODEL = table(
    ("implied_marginal", NO_NORMAL),
    ("equations", NO_LETTERS),
)
"""What a generalised model with several factors has not besides."""
