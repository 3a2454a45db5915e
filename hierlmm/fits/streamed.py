"""What a fit of data that are not in memory has not, and what it has of some subjects (`hierlmm.fits.capabilities`).

β, D, σ, their errors and the criterion are of all rows. What is shown by row or subject is of the subjects that were
drawn at random when the data were looked through.
"""

from __future__ import annotations

from hierlmm.design.design import LARGE
from hierlmm.errors import NotAvailableError
from hierlmm.fits.capabilities import LIKELIHOOD, POSTERIOR, Lack, both, table

OF = "a fit by {} of data that are not in memory"
ANSWERED = frozenset(
    {
        "compare",
        "implied_marginal",
        "plot_data",
        "plot_forest",
        "plot_optima",
        "plot_posterior",
        "plot_qq",
        "plot_random_effects",
        "plot_residuals",
        "plot_separate_lines",
        "plot_shrinkage",
        "plot_subject_prediction",
        "plot_trajectories",
    }
)
"""Functions of the package that know such fits; all others refuse them."""


def _lack(reason: str, remedy: str) -> Lack:
    return Lack(reason, remedy, LARGE, OF)


SOME = "or fit the model to the rows of some hundred subjects, in memory"
ALL_ROWS = _lack(
    "it needs all rows, and they are not in memory", f"use fit.summary() and fit.variance_components(); {SOME}"
)
AVERAGES = _lack(
    "it averages over the covariates of all rows, and they are not in memory",
    f"use fit.hypothesis(...) of coefficients, and fit.predict(rows, level='population') at values of your own; {SOME}",
)
SUBJECTS = _lack(
    "it goes through all subjects, and they are not in memory", "use fit.write_random_effects(path) for all of them"
)
NORMAL = _lack(
    "degrees of freedom, errors from scores and profiles go through all subjects, and these are not in memory",
    "leave it out: with so many subjects normal quantiles are exact enough",
)
ROWLESS = _lack("a file of a fit holds its rows", "use model.save_crossproducts(path), from which fits are made again")
LACKS = table(
    (
        "anova bootstrap check influence profile subject_loglik r_squared intraclass_correlation test_covariance "
        "test_random_effects compare_marginal plot_conditional_vs_marginal report log_marginal_likelihood "
        "savage_dickey psense plot_psense ppc plot_ppc posterior_predictive prior_predictive plot_loo_pit plot_khat "
        "loo extend for_arviz plot_prior_posterior interpret",
        ALL_ROWS,
    ),
    ("marginal_means effects slopes contrasts plot_effects compare_groups", AVERAGES),
    ("rank_subjects heterogeneity compare_subjects", SUBJECTS),
    ("summary(df) summary(se) summary(method) variance_components(method)", NORMAL),
    ("save", ROWLESS),
)
STREAMED = both(LIKELIHOOD, LACKS)
STREAMED_POSTERIOR = both(POSTERIOR, LACKS)


def unanswered(name: str) -> NotAvailableError:
    """The refusal of a function, by its name, that is not made for data that are not in memory."""
    reason = "it needs all rows, and they are not in memory"
    remedy = "fit the model to the rows of some hundred subjects, in memory"
    return NotAvailableError(f"a model or fit of data that are not in memory in {name}()", reason, remedy, LARGE)
