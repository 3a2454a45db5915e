"""How much subjects differ, and sentences: numbers recomputed by other means."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from references import reference
from scipy import stats
from textbook import marginal_covariance

import hierlmm as hl
from hierlmm.errors import DataError, NotAvailableError, SpecificationError
from hierlmm.text import apart, number, percentage, probability, span

FORMULA = hl.TwoLevelModel.from_formula
# Words that claim a cause, or that the data show what was assumed.
CAUSAL = re.compile(
    r"\b(effects? of|affects?|caus\w+|leads? to|due to|because|impact|influence[sd]?|improves?|prove[sn]?)\b"
)
SUBJECT_SPECIFIC = re.compile(
    r"\b(subjects? differ|their slope|of its own|new subject|between subjects|over subjects)\b"
)


def optimum_of_r(name):
    """Fixed effects, standard errors and variances of lme4 at the optimum."""
    return reference(name)["optimum"]


def texts(interpretation, section=None):
    return [s.text for s in interpretation.sentences if section is None or s.section == section]


def only(interpretation, *pieces):
    """The one sentence that holds all pieces."""
    found = [s for s in interpretation.sentences if all(p in s.text for p in pieces)]
    assert len(found) == 1, (pieces, [s.text for s in found])
    return found[0]


def numbers_in(text):
    return [float(v) for v in re.findall(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e-?\d+)?(?![\w])", text)]


# --- heterogeneity ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pr_male_ri_reml", "pr_male_rirs_reml", "pr_sextime_rirs_reml"])
def test_ranges_and_shares_from_the_estimates_of_lme4(name, males, sexes):
    """Reference ranges and shares by hand from R's fixed effects and standard deviations."""
    fit = {"pr_male_ri_reml": males["ri"], "pr_male_rirs_reml": males["rirs"], "pr_sextime_rirs_reml": sexes}[name]
    ref = optimum_of_r(name)
    coef = ref["coef"]
    sd = {v["var1"]: v["sdcor"] for v in ref["varcorr"] if v["var2"] is None and v["var1"]}
    table = fit.heterogeneity().table.set_index(["term", "group"])
    groups = {"": 0.0} if "sexMale" not in coef else {"sex = Female": 0.0, "sex = Male": 1.0}
    for term, own in (("Intercept", "(Intercept)"), ("time", "time")):
        if own not in sd:
            assert term not in table.index.get_level_values("term")
            continue
        for group, w in groups.items():
            mean = coef[own] + w * coef.get("sexMale" if term == "Intercept" else "sexMale:time", 0.0)
            row = table.loc[(term, group)]
            z = 1.959963984540054
            wanted = [mean, sd[own], mean - z * sd[own], mean + z * sd[own], stats.norm.cdf(mean / sd[own])]
            assert row[["mean", "sd", "low", "high", "share"]].to_numpy() == pytest.approx(wanted, rel=1e-6)


def test_text_1_by_hand(sexes):
    """0.48 ± 1.96 · 0.18 of the girls, 0.78 ± 1.96 · 0.18 of the boys."""
    table = sexes.heterogeneity("time").table
    assert table[["low", "high"]].round(2).to_numpy().tolist() == [[0.13, 0.83], [0.43, 1.14]]


def test_intervals_of_ranges_and_shares_by_simulation(sexes):
    """Quantiles of a million draws of (mean, log sd): the mean normal, log sd normal."""
    table = sexes.heterogeneity("time", ci=0.9).table
    se = np.sqrt(sexes.beta_cov.loc["time", "time"])
    component = sexes.variance_components().loc["sd(time)"]
    se_log = np.log(component["upper"] / component["estimate"]) / stats.norm.ppf(0.975)
    rng = np.random.default_rng(0)
    m = sexes.beta["time"] + se * rng.standard_normal(1_000_000)
    s = component["estimate"] * np.exp(se_log * rng.standard_normal(1_000_000))
    row, tails = table.iloc[0], [0.05, 0.95]
    for column, values in {
        "sd": s,
        "low": m - 1.96 * s,
        "high": m + 1.96 * s,
        "share": stats.norm.cdf(m / s),
    }.items():
        lower, upper = np.quantile(values, tails)
        assert row[[f"{column}_lower", f"{column}_upper"]].to_numpy() == pytest.approx([lower, upper], abs=3e-3)
    new = np.quantile(m + s * rng.standard_normal(1_000_000), [0.025, 0.975])
    assert row[["new_low", "new_high"]].to_numpy() == pytest.approx(new, abs=4e-3)


def test_interval_of_a_mean_is_that_of_the_slopes(sexes):
    table = sexes.heterogeneity("time").table
    slopes = sexes.slopes("time", by="sex").table
    assert table[["mean_lower", "mean_upper"]].to_numpy() == pytest.approx(
        slopes[["lower", "upper"]].to_numpy(), rel=1e-9
    )


def test_posterior_ranges_are_functions_of_the_draws(posterior):
    beta, sd = posterior.draws("beta"), posterior.draws("sd_b")[..., 1].ravel()
    boys = (beta[..., 2] + beta[..., 3]).ravel()
    row = posterior.heterogeneity("time", above=0.5).table.iloc[1]
    share = stats.norm.sf((0.5 - boys) / sd)
    assert row["share"] == pytest.approx(share.mean(), rel=1e-10)
    assert row["share_lower"] == pytest.approx(np.quantile(share, 0.025), rel=1e-10)
    assert row["low"] == pytest.approx(np.mean(boys - 1.959963984540054 * sd), rel=1e-10)
    assert row["high_upper"] == pytest.approx(np.quantile(boys + 1.959963984540054 * sd, 0.975), rel=1e-10)
    for end, p in (("new_low", 0.025), ("new_high", 0.975)):
        assert stats.norm.cdf((row[end] - boys) / sd).mean() == pytest.approx(p, abs=1e-8)
    assert row["new_low"] < row["low"] and row["new_high"] > row["high"]


def test_level_2_values_of_ones_own(numeric):
    beta = numeric.beta
    table = numeric.heterogeneity("t", at={"iq": [85, 115], "g": 1}).table
    wanted = [beta["t"] + beta["t:g"] + iq * (beta["t:iq"] + beta["t:iq:g"]) for iq in (85, 115)]
    assert table["mean"].to_numpy() == pytest.approx(wanted, rel=1e-10)
    assert table["group"].tolist() == ["iq = 85 and g = 1", "iq = 115 and g = 1"]
    mean = numeric.design.frame.groupby("id")["iq"].first().mean()
    default = numeric.heterogeneity("t").table
    wanted = [beta["t"] + mean * beta["t:iq"] + g * (beta["t:g"] + mean * beta["t:iq:g"]) for g in (0, 1)]
    assert default["mean"].to_numpy() == pytest.approx(wanted, rel=1e-10)


def test_coding_does_not_matter(dental, sexes):
    other = FORMULA("distance ~ C(sex, contr.sum) * time + (1 + time | subject)", dental).fit_reml()
    none = FORMULA("distance ~ 0 + sex + sex:time + (1 + time | subject)", dental).fit_reml()
    wanted = sexes.heterogeneity().table
    for fit in (other, none):
        table = fit.heterogeneity().table
        assert table["group"].tolist() == wanted["group"].tolist()
        numeric = table.columns[2:]
        assert table[numeric].to_numpy() == pytest.approx(wanted[numeric].to_numpy(), rel=2e-4)


def test_no_variation_is_said(singular):
    het = singular.heterogeneity("t")
    row = het.table.iloc[0]
    assert row["sd"] == 0.0 and row["low"] == row["high"] == row["mean"]
    assert np.isnan(row[["sd_lower", "low_lower", "share_lower", "new_low"]].to_numpy(dtype=float)).all()
    assert "the estimated sd is zero" in repr(het)
    with pytest.raises(NotAvailableError, match="share one rank"):
        singular.rank_subjects("t")
    with pytest.raises(NotAvailableError, match="the same coefficient"):
        singular.compare_subjects(0, 1, "t")


# --- sentences -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def all_words(all_fits):
    return {name: fit.interpret() for name, fit in all_fits.items()}


def test_every_number_stands_in_its_sentence_and_no_other(all_words):
    """Facts are in the text, rounded; and the text has no number that is neither a fact nor part of a name."""
    for name, interpretation in all_words.items():
        facts = interpretation.facts
        for position, sentence in enumerate(interpretation.sentences):
            own = facts[facts["sentence"] == position]
            shown = set()
            values = own.set_index("fact")["value"]
            for fact, value in values.items():
                assert np.isfinite(value), (name, sentence.text)
                forms = [number(value), f"{value:.0f}"]
                if fact.endswith(("lower", "upper")):
                    stem = fact[: -len("lower")]
                    forms.append(
                        span(values[f"{stem}lower"], values[f"{stem}upper"]).split(" to ")[fact.endswith("upper")]
                    )
                if fact.startswith(("share", "prob")) or fact == "icc":
                    forms += [percentage(value), probability(value)]
                present = [f for f in forms if f in sentence.text]
                assert present, (name, fact, value, sentence.text)
                shown |= {float(v) for f in forms for v in numbers_in(f)}
            if sentence.section in ("Read this first", "The model", "What this does not say"):
                continue
            allowed = shown | {0.0, 1.0, 95.0, 99.9, 0.1, 0.999, 0.001}
            text = re.sub(r"level[- ][12]", "", sentence.text)
            text = re.sub(r"fit\.\w+\(.*?\)+", "", text)
            text = re.sub(r"\w+(?:\([^)]*\))?\[[^\]]*\]|\w+\.?\w*\([^)]*\d\)", "", text)
            text = re.sub(r"\w+ = [-\w.]+( \(the mean\))?", lambda m: m.group() if "rho" in m.group() else "", text)
            stray = [v for v in numbers_in(text) if v not in allowed]
            assert not stray, (name, stray, sentence.text)


def test_words_that_a_model_does_not_license(all_fits, all_words):
    for name, interpretation in all_words.items():
        for text in texts(interpretation):
            if text in [" ".join(w.split()) for w in all_fits[name].warnings]:
                continue
            assert not CAUSAL.search(text), (name, text)
            if name in ("GEE", "GLS"):
                assert not SUBJECT_SPECIFIC.search(text), (name, text)


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


def test_subjects_need_draws_of_their_effects(dental):
    model = FORMULA("distance ~ time + (1 + time | subject)", dental)
    fit = model.fit(draws=500, tune=500, chains=4, seed=1, random_effects="summary", progressbar=False)
    assert len(fit.heterogeneity().table) == 2
    for ask in (fit.rank_subjects, lambda: fit.compare_subjects(1, 2)):
        with pytest.raises(NotAvailableError, match="not their draws"):
            ask()


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


def test_warnings_stand_first(singular, sexes):
    words = singular.interpret()
    assert words.sentences[0].section == "Read this first"
    assert "no variation" in words.sentences[0].text
    only(words, "At the estimate subjects do not differ in their slope of y on t")
    assert sexes.interpret().sentences[0].section == "The model"


def test_a_fit_that_did_not_converge_says_so_first(sexes):

    broken = replace(sexes, optimum=replace(sexes.optimum, gradient_norm=1.0))
    assert broken.interpret().sentences[0].text.startswith("This fit did not converge")


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


def test_refusals(sexes, males):
    with pytest.raises(SpecificationError, match="between 0 and 1"):
        sexes.interpret(ci=95)
    with pytest.raises(SpecificationError, match="no such level"):
        sexes.heterogeneity(at={"sex": "male"})
    with pytest.raises(SpecificationError, match="no level-2 covariate"):
        sexes.heterogeneity(at={"time": 3})
    with pytest.raises(SpecificationError, match="does not vary between subjects"):
        males["ri"].heterogeneity("time")


def test_views(sexes, posterior):
    for fit in (sexes, posterior):
        for made in (fit.heterogeneity(), fit.compare_subjects(1, 2), fit.rank_subjects(), fit.interpret()):
            assert made._repr_html_().startswith("<div") and repr(made)
    words = sexes.interpret()
    assert words.text.splitlines()[0] == "distance in words (REML)"
    assert set(words.facts.columns) == {"section", "sentence", "fact", "value"}
    with pytest.raises(AttributeError):
        words.title = "other"
    with pytest.raises(TypeError):
        words.sentences[1].facts["rows"] = 1.0


def test_numbers_as_they_are_shown():
    assert [number(v) for v in (21.2091, -0.0030461, 12345.6, 0.0)] == ["21.21", "-0.003046", "12346", "0"]
    assert [percentage(v) for v in (0.9961, 0.99999, 0.0)] == ["99.6 %", "more than 99.9 %", "less than 0.1 %"]
    assert [probability(v) for v in (0.98249, 1.0, 0.0001)] == ["0.982", "more than 0.999", "less than 0.001"]


# --- what a user stumbled on -----------------------------------------------------------------------------------------


def test_no_interval_of_an_sd_in_a_singular_block(dental):
    fit = FORMULA("distance ~ time + I(time ** 2) + (1 + time + I(time ** 2) | subject)", dental).fit_reml()
    assert fit.is_singular and fit.variance_components().loc["sd(time)", ["lower", "upper"]].isna().all()
    het = fit.heterogeneity()
    empty = [c for c in het.table if c.startswith(("sd_", "low_", "high_", "share_", "new_"))]
    assert het.table[empty].isna().to_numpy().all() and len(empty) == 10
    assert het.table[["sd", "low", "mean_lower"]].notna().to_numpy().all()
    assert "this part of D is singular" in repr(het)
    diagonal = FORMULA("distance ~ time + (1 | subject)", dental).fit_reml().heterogeneity().table
    assert diagonal[["sd_lower", "new_high"]].notna().to_numpy().all()


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


def test_wrong_words_are_refused(sexes, dental):
    with pytest.raises(SpecificationError, match="name the column"):
        sexes.interpret(units="mm")
    for above, message in (("0.5", "text"), (None, "None"), (True, "True"), (np.nan, "finite value to count from")):
        with pytest.raises(SpecificationError, match=message):
            sexes.heterogeneity("time", above=above)
    with pytest.raises(SpecificationError, match="no such section"):
        sexes.interpret().section("foo")
    with pytest.raises(DataError, match="it is of type str; the fitted data have 1 of type int") as caught:
        sexes.compare_subjects("1", "2", "time")
    assert "Did you mean" not in str(caught.value)
    spaced = dental.rename(columns={"time": "my time"})
    fit = FORMULA("distance ~ `my time` + (1 + `my time` | subject)", spaced).fit_reml()
    assert fit.heterogeneity("`my time`").table.equals(fit.heterogeneity("my time").table)


def test_convergence_counts_other_quantities():
    from hierlmm.bayes.convergence import _more

    found = [_more(pd.Series(np.zeros(n))) for n in (1, 2, 3)]
    assert found == ["", " and beyond the limit for 1 other quantity", " and beyond the limit for 2 other quantities"]
