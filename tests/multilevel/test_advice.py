"""What is refused says the true reason, and what to use instead by the names of the fit that was asked."""

from __future__ import annotations

import pytest

import hierlmm as hl
from hierlmm.errors import HierlmmError


def refusal(call) -> HierlmmError:
    with pytest.raises(HierlmmError) as caught:
        call()
    return caught.value


@pytest.fixture(scope="module")
def by_ml(pastes):
    return hl.MultilevelModel.from_formula("strength ~ 1 + (1 | batch / cask)", pastes).fit_ml()


@pytest.fixture(scope="module")
def counts(count_model):
    return count_model.fit_ml()


@pytest.mark.parametrize(
    "ask",
    [
        lambda fit: fit.summary(se="empirical"),
        lambda fit: fit.summary(method="profile"),
        lambda fit: fit.profile(),
        lambda fit: fit.loo(),
    ],
)
def test_degrees_of_freedom_are_advised_that_the_fit_has(ask, nested, by_ml):
    assert "df='satterthwaite'" in refusal(lambda: ask(by_ml)).remedy
    assert "kenward" not in refusal(lambda: ask(by_ml)).remedy
    assert "df='kenward-roger'" in refusal(lambda: ask(nested)).remedy
    assert {"satterthwaite", "kenward-roger"} == {nested.summary(df=df).attrs["df"] for df in ("satterthwaite", "kr")}


def test_factors_are_those_of_the_fit(fit, nested, counts):
    assert "fit.b['school']" in refusal(lambda: fit.subject_coef).remedy
    assert "fit.b['batch']" in refusal(lambda: nested.compare_subjects("a", "b")).remedy
    assert "fit.b['school']" in refusal(lambda: counts.heterogeneity("school")).remedy


@pytest.mark.parametrize("name", ["heterogeneity", "rank_subjects", "check", "influence", "plot_qq", "interpret"])
def test_a_family_refuses_for_its_family(name, counts):
    error = refusal(getattr(counts, name))
    assert "normal" in error.reason and "subject" not in error.reason


def test_arguments_that_a_family_has_not_are_refused_with_the_reason(counts):
    for ask in (lambda: counts.variance_components(method="profile"), lambda: counts.summary(method="profile")):
        assert "profile likelihoods are made for a response that is normal" in refusal(ask).reason
        assert "fit.bootstrap()" in refusal(ask).remedy
    assert "degrees of freedom" in refusal(lambda: counts.summary(df="satterthwaite")).reason
    assert "REML" not in refusal(lambda: counts.anova(df="satterthwaite")).remedy
    assert "gee" not in refusal(lambda: counts.anova(se="empirical")).remedy
    assert "its arguments are ci" in refusal(lambda: counts.summary(dff=1)).remedy


def test_functions_that_take_no_several_factors_say_what_does(model, nested):
    error = refusal(lambda: hl.bayes_factor(model, model))
    assert "bayes_factor()" in error.received and "hl.compare_models" in error.remedy
    assert "hl.anova(m1, m2)" in refusal(lambda: hl.build_random(model)).remedy
    assert "hl.compare_models" in refusal(lambda: hl.drop_terms(model)).remedy
    assert "hl.multilevel_design_analysis" in refusal(lambda: hl.design_analysis(nested, "x")).remedy


def test_shares_with_slopes_point_to_correlations_with_intervals(fit):
    assert "fit.implied_marginal(at=...)" in refusal(fit.intraclass_correlation).remedy


def test_slopes_of_levels_are_said_in_a_formula(pastes):
    levels = {"cask": {"Intercept": "1"}, "batch": "1"}
    remedy = refusal(lambda: hl.MultilevelModel("strength ~ 1", levels, data=pastes)).remedy
    assert "MultilevelModel.from_formula" in remedy and "(1 + x | cask)" in remedy


@pytest.mark.parametrize("family", ["gaussian", "bernoulli"])
def test_levels_by_factor_are_told_by_their_names_with_one(family, pastes):
    rows = pastes.assign(y=pastes["strength"] if family == "gaussian" else (pastes["strength"] > 60).astype(int))
    one = hl.MultilevelModel.from_formula("y ~ 1 + (1 | batch)", rows, family=family).fit_ml()
    for level in ("all", "batch"):
        error = refusal(lambda level=level: one.predict(rows, level=level))
        assert "fit.b is one table" in error.reason
        assert "level='subject'" in error.remedy and "level='new_subject'" in error.remedy
        assert "level='subject'" in refusal(lambda level=level: one.residuals(level=level)).remedy
    assert "one of 'subject'" in refusal(lambda: one.predict(rows, level="cask")).remedy
    assert "level='new_subject'" in refusal(lambda: one.predict(rows, new_groups="allow")).remedy


def test_posteriors_point_to_what_draws_have_not(posterior, count_posterior):
    for name in ("influence", "plot_qq", "plot_residuals"):
        assert f"model.fit_reml().{name}()" in refusal(getattr(posterior, name)).remedy
        assert "normal" in refusal(getattr(count_posterior, name)).reason
    assert posterior.check(simulations=799).left_out["priors"].startswith("it scales the likelihood of independent")
    assert "fit.draws('b_school')" in refusal(lambda: count_posterior.rank_subjects("school")).remedy
    assert "closed form" in refusal(lambda: hl.bayes_factor(count_posterior, count_posterior)).reason
    assert "fit.loo()" in refusal(lambda: hl.bayes_factor(posterior, posterior)).remedy
    assert "quantiles" in refusal(lambda: posterior.summary(df="kenward-roger")).reason
