"""Models in sentences: numbers recomputed by other means."""

import re

import numpy as np
import pytest
from sentences_found import FORMULA, only, optimum_of_r, texts
from textbook import marginal_covariance

from hierlmm.errors import NotAvailableError, SpecificationError
from hierlmm.text import apart, number


def test_text_1_in_words(sexes):
    words = sexes.interpret(df="normal")
    girls = only(words, "The average slope of distance on time over subjects with sex = Female is")
    assert girls.text == (
        "The average slope of distance on time over subjects with sex = Female is 0.4795 per unit of time "
        "(95 % confidence interval 0.2763 to 0.6828; the interval excludes zero)."
    )
    ref = optimum_of_r("pr_sextime_rirs_reml")
    difference = only(words, "The average slope on time: the difference, sex = Male minus sex = Female")
    value, se = ref["coef"]["sexMale:time"], ref["se"]["sexMale:time"]
    wanted = [value, value - 1.959963984540054 * se, value + 1.959963984540054 * se]
    assert [difference.facts[k] for k in ("estimate", "lower", "upper")] == pytest.approx(wanted, rel=1e-4)
    level = only(words, "Where time = 0, the mean of distance: the difference")
    assert level.facts["estimate"] == pytest.approx(ref["coef"]["sexMale"], rel=1e-6)
    assert "includes zero, so the data leave the sign open" in level.text


def test_boys_slope_has_its_own_standard_error(sexes):
    """The sum of two coefficients, with their covariance."""
    V = sexes.beta_cov
    male = "sex[T.Male]:time"
    se = np.sqrt(V.loc["time", "time"] + V.loc[male, male] + 2 * V.loc["time", male])
    facts = only(sexes.interpret(df="normal"), "average slope of distance on time over subjects with sex = Male").facts
    assert facts["estimate"] == pytest.approx(sexes.beta["time"] + sexes.beta[male], rel=1e-10)
    assert facts["upper"] - facts["lower"] == pytest.approx(2 * 1.959963984540054 * se, rel=1e-9)


def test_correlation_of_intercept_and_slope_depends_on_the_origin(dental, sexes):
    """The model in age is the same model: its correlation at age 8 is that of the model in time at 0."""
    words = sexes.interpret()
    moved = only(words, "depends on where zero is")
    later = FORMULA("distance ~ sex * late + (1 + late | subject)", dental.assign(late=dental["time"] - 3.0)).fit_reml()
    assert moved.facts["at"] == pytest.approx(3.0)
    assert moved.facts["correlation"] == pytest.approx(later.corr_b.loc["Intercept", "late"], abs=2e-5)
    assert "no correlation between measurements at two times" in moved.text
    diagonal = FORMULA("distance ~ sex * time + (1 + time || subject)", dental).fit_reml().interpret()
    assert only(diagonal, "taken as uncorrelated").facts == {}


def test_an_intercept_far_from_the_data_is_called_one(dental):
    words = FORMULA("distance ~ age + (1 | subject)", dental).fit_reml().interpret()
    assert "outside the data (8 to 14)" in only(words, "The point age = 0").text


def test_variance_between_and_within(sexes, males):
    """Against the dense marginal covariance of one subject."""
    V = marginal_covariance(sexes.design, sexes.D.to_numpy(), sexes.sigma)[:4, :4]
    words = sexes.interpret()
    last = only(words, "At time = 6, measurements of different subjects")
    assert last.facts["sd_high"] == pytest.approx(np.sqrt(V[3, 3]), rel=1e-10)
    assert last.facts["share_high"] == pytest.approx(1.0 - sexes.sigma**2 / V[3, 3], rel=1e-10)
    pair = only(words, "Two measurements of one subject")
    assert pair.facts["correlation"] == pytest.approx(V[0, 3] / np.sqrt(V[0, 0] * V[3, 3]), rel=1e-10)
    icc = only(males["ri"].interpret(), "intra-class correlation")
    ref = optimum_of_r("pr_male_ri_reml")
    var = [v["vcov"] for v in ref["varcorr"]]
    assert icc.facts["icc"] == pytest.approx(var[0] / sum(var), rel=1e-5)
    assert 0.0 < icc.facts["lower"] < icc.facts["icc"] < icc.facts["upper"] < 1.0


def test_numbers_at_level_2(numeric):
    """Slopes per unit of a number differ between groups, and differences between groups are given at its mean."""
    words, beta = numeric.interpret(), numeric.beta
    for g in (0, 1):
        own = only(words, "The average slope on t, among subjects with g = " + str(g), "differ by one unit in iq")
        assert own.facts["estimate"] == pytest.approx(beta["t:iq"] + g * beta["t:iq:g"], rel=1e-9)
    mean = numeric.design.frame.groupby("id")["iq"].first().mean()
    group = only(words, "The average slope on t, among subjects with iq = ", "g = 1 minus g = 0")
    assert group.facts["estimate"] == pytest.approx(beta["t:g"] + mean * beta["t:iq:g"], rel=1e-9)


def test_no_statement_per_group_where_the_model_has_none(numeric_data):
    words = FORMULA("y ~ t * iq + g + (1 + t | id)", numeric_data).fit_reml().interpret()
    only(words, "The average slope on t: comparing subjects who differ by one unit in iq")
    only(words, "The average slope on t is taken by the model as the same whatever g is")


def test_a_shifted_number_is_a_straight_line_and_a_square_is_not(numeric_data):
    fit = FORMULA("y ~ t * I(iq - 100) + (1 | id)", numeric_data).fit_reml()
    own = only(fit.interpret(), "The average slope on t: comparing subjects who differ by one unit in iq")
    assert own.facts["estimate"] == pytest.approx(fit.beta["t:I(iq - 100)"], rel=1e-8)
    square = FORMULA("y ~ t + I((iq / 100) ** 2) + (1 | id)", numeric_data).fit_reml().interpret()
    only(square, "iq does not enter as a straight line")


def test_a_slope_without_a_mean_has_no_share(numeric_data):
    words = FORMULA("y ~ 1 + (1 + t | id)", numeric_data).fit_reml().interpret()
    only(words, "its mean over subjects is zero by assumption")
    assert not [t for t in texts(words) if "positive slope" in t]


def test_log_response_is_multiplicative(dental):
    fit = FORMULA("log(distance) ~ sex * time + (1 + time | subject)", dental).fit_reml()
    words = fit.interpret(df="normal")
    girls = only(words, "Over subjects with sex = Female, the geometric mean of distance is multiplied by")
    assert girls.facts["estimate"] == pytest.approx(np.exp(fit.beta["time"]), rel=1e-10)
    ratio = only(words, "The factor per unit of time: the ratio, sex = Male over sex = Female")
    low, high = fit.summary().loc["sex[T.Male]:time", ["lower", "upper"]]
    assert [ratio.facts["lower"], ratio.facts["upper"]] == pytest.approx(np.exp([low, high]), rel=1e-9)
    assert "includes 1" in ratio.text
    range_ = only(words, "95 % of subjects with sex = Male", "factor of distance per unit of time")
    het = fit.heterogeneity("time").table.iloc[1]
    assert range_.facts["low"] == pytest.approx(np.exp(het["low"]), rel=1e-9)
    base = FORMULA("np.log10(distance) ~ time + (1 | subject)", dental).fit_reml()
    own = only(base.interpret(), "is multiplied by")
    assert own.facts["estimate"] == pytest.approx(10.0 ** base.beta["time"], rel=1e-10)


def test_curves_and_products_are_not_read_coefficient_by_coefficient(all_fits, numeric_data):
    spline = all_fits["distance ~ sex * ns(time, 2) + offset(time / 2) + (1 | subject)"].interpret()
    assert "cannot be read one by one" in only(spline, "ns(time, 2)[1], ns(time, 2)[2] belong").text
    assert not [t for t in texts(spline) if "slope of" in t or "slope on" in t]
    assert "minus the offset" in only(spline, "The offset time / 2").text
    square = all_fits["np.sqrt(y) ~ t + I(t ** 2) + (1 | id)"].interpret()
    only(square, "The coefficients of t, I(t ** 2) belong together")
    only(square, "All numbers are on the scale of np.sqrt(y)")
    level2 = all_fits["y ~ t + bs(iq, df=4) + (1 + t | id)"].interpret()
    only(level2, "iq does not enter as a straight line")
    assert not [t for t in texts(level2) if "one unit in iq" in t]
    rng = np.random.default_rng(0)
    product = FORMULA("y ~ t * x + (1 | id)", numeric_data.assign(x=rng.normal(size=len(numeric_data)))).fit_reml()
    only(product.interpret(), "The coefficients of t, x, t:x belong together")


def test_cells_without_an_intercept(all_fits, dental):
    words = all_fits["distance ~ 0 + sex:C(time) + (1 | subject)"].interpret()
    observed = dental[dental["time"] == 4].groupby("sex", observed=True)["distance"].mean()
    for sex in ("Female", "Male"):
        own = only(words, f"Where time = 4, the mean of distance over subjects with sex = {sex} is")
        assert own.facts["estimate"] == pytest.approx(observed[sex], rel=1e-6)  # balanced: the cell's mean
    only(words, "Subjects lie above or below the mean")


def test_within_subject_factor_against_its_reference(dental):
    fit = FORMULA("distance ~ C(time) + (1 | subject)", dental).fit_reml()
    own = only(fit.interpret(), "The difference in distance, time = 6 minus time = 0, averages")
    mean = dental.groupby("time")["distance"].mean()
    assert own.facts["estimate"] == pytest.approx(mean[6] - mean[0], rel=1e-7)


def test_marginal_models_and_gee_speak_of_the_population(all_fits, sexes):
    for name in ("GEE", "GLS"):
        fit = all_fits[name]
        words = fit.interpret()
        own = only(words, "The slope of the mean of distance on time in the population with sex = Male is")
        assert own.facts["estimate"] == pytest.approx(fit.beta["time"] + fit.beta["sex[T.Male]:time"], rel=1e-9)
        for method in (fit.heterogeneity, fit.rank_subjects, lambda fit=fit: fit.compare_subjects(1, 2)):
            with pytest.raises(NotAvailableError, match="no coefficients of a subject's own"):
                method()
    rho = only(all_fits["GLS"].interpret(), "Measurements of one subject are correlated")
    assert rho.facts["rho"] == pytest.approx(all_fits["GLS"].residual_estimate.parameters["rho"], rel=1e-6)
    gee = all_fits["GEE"]
    own = only(gee.interpret(), "The slope of the mean on time: the difference, sex = Male minus sex = Female")
    assert own.facts["lower"] == pytest.approx(gee.summary().loc["sex[T.Male]:time", "lower"], rel=1e-9)


def test_posterior_sentences_are_functions_of_the_draws(posterior):
    words = posterior.interpret()
    beta = posterior.draws("beta")
    own = only(words, "The average slope on time: the difference, sex = Male minus sex = Female")
    assert own.facts["estimate"] == pytest.approx(beta[..., 3].mean(), rel=1e-10)
    assert own.facts["probability"] == pytest.approx((beta[..., 3] > 0).mean(), abs=1e-12)
    assert "posterior probability that it is positive" in own.text and "95 % credible interval" in own.text
    D, sigma = posterior.draws("D"), posterior.draws("sigma")
    first = only(words, "At time = 0, measurements of different subjects")
    assert first.facts["sd_low"] == pytest.approx(np.sqrt(D[..., 0, 0] + sigma**2).mean(), rel=1e-9)


def test_residual_structures_in_words(all_fits):
    fit = all_fits["serial"]
    words = fit.interpret()
    rho = only(words, "Residuals of one subject are correlated: AR1()")
    assert rho.facts["rho"] == pytest.approx(fit.residual_estimate.parameters["rho"], abs=1e-6)
    only(words, "The residual SD is not the same in all rows: VarIdent('g')")
    assert not [t for t in texts(words) if "intra-class" in t]


def test_units(dental):
    fit = FORMULA("distance ~ sex * time + (1 + time | subject)", dental).fit_reml()
    words = fit.interpret(units={"distance": "mm", "time": "year"})
    assert "is 0.4795 mm per year (" in only(words, "over subjects with sex = Female is 0.4795").text
    with pytest.raises(SpecificationError, match="units are words"):
        fit.interpret(units={"weight": "kg"})


def test_numbers_too_far_from_the_data_stay_on_the_log_scale(numeric_data):
    rng = np.random.default_rng(1)
    year = 2000.0 + numeric_data["t"]
    y = np.exp(1.0 - 0.6 * numeric_data["t"] + 0.2 * rng.normal(size=60)[numeric_data["id"]] * numeric_data["t"]
               + 0.3 * rng.normal(size=300))  # fmt: skip
    data = numeric_data.assign(year=year, y=y)
    for formula in ("log(y) ~ year + (1 + year | id)", "log(y) ~ year * g + (1 | id)", "np.log10(y) ~ year + (1 | id)"):
        fit = FORMULA(formula, data).fit_reml()
        words = fit.interpret()
        levels = [s for s in words.sentences if s.text.startswith("Where year = 0, the mean of log")
                  or s.text.startswith("Where year = 0, the mean of np.log10")]  # fmt: skip
        assert levels and not any("geometric mean of y where year = 0" in t for t in texts(words))
        assert all(np.isfinite(words.facts["value"]))
        only(words, "The point year = 0 lies outside the data (2000 to 2004)")
        assert [t for t in texts(words) if "is multiplied by" in t]  # slopes are still factors
    assert levels[0].facts["estimate"] == pytest.approx(fit.beta["Intercept"], rel=1e-10)


def test_names_and_numbers_as_they_are(dental):
    own = dental.assign(t=dental["age"])
    words = FORMULA("distance ~ t + (1 | subject)", own).fit_reml().interpret()
    assert not re.search(r"\bT = ", words.text)
    log = FORMULA("distance ~ log(age) + (1 | subject)", dental).fit_reml().interpret()
    only(log, "The point log(age) = 0 lies outside the data (2.079 to 2.639)")
    assert number(1.00004) == "1" and apart(1.00004, 1.0) == "1.00004" and apart(1.0, 1.0) == "1"
    assert apart(-0.99998, -1.0) == "-0.99998" and apart(0.3, 1.0) == "0.3"
    ratio = FORMULA("log(distance) ~ months + (1 | subject)", dental.assign(months=1e4 * dental["time"])).fit_reml()
    text = only(ratio.interpret(), "is multiplied by").text
    assert "excludes 1" in text and " 1 to " not in text and "multiplied by 1 per" not in text
    far = FORMULA("distance ~ year + (1 + year | subject)", dental.assign(year=2e4 + dental["time"])).fit_reml()
    assert not far.is_singular
    assert "correlate -0.99" in only(far.interpret(), "Between subjects,", "correlate").text


def test_a_curve_with_a_random_slope(dental):
    fit = FORMULA("distance ~ ns(time, 2) + (1 + time | subject)", dental).fit_reml()
    words = fit.interpret()
    level = only(words, "Where time = 0, the mean of distance over all subjects is")
    assert level.facts["estimate"] == pytest.approx(fit.beta["Intercept"], rel=1e-10)
    only(words, "subjects deviate from that curve through time")
    assert not [t for t in texts(words) if "not vary between subjects" in t or "no point that can be named" in t]
    for made in (fit.compare_subjects(1, 2, "time"), fit.rank_subjects("time", draws=200)):
        assert "deviations from the mean regression" in repr(made)
        assert "deviations" not in repr(type(made)) and made.term == "time"
