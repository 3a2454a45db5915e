"""How much subjects differ: numbers recomputed by other means."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy import stats
from sentences_found import FORMULA, optimum_of_r

import hierlmm as hl
from hierlmm.drawing.letters import break_text
from hierlmm.errors import NotAvailableError
from hierlmm.text import wrap


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


def test_subjects_need_draws_of_their_effects(dental):
    model = FORMULA("distance ~ time + (1 + time | subject)", dental)
    fit = model.fit(draws=500, tune=500, chains=4, seed=1, random_effects="summary", progressbar=False)
    assert len(fit.heterogeneity().table) == 2
    for ask in (fit.rank_subjects, lambda: fit.compare_subjects(1, 2)):
        with pytest.raises(NotAvailableError, match="not their draws"):
            ask()


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


def test_long_names_of_groups_leave_room_for_the_densities(dental):
    named = dental.rename(columns={"sex": "Randomised Treatment Arm (as assigned)"})
    formula = "distance ~ `Randomised Treatment Arm (as assigned)` * time + (time | subject)"
    found = hl.TwoLevelModel.from_formula(formula, named).fit_reml().heterogeneity()
    with hl.style("lecture"):
        figure = found.plot().get_viz("figure")
        figure.draw_without_rendering()
    ax = figure.axes[0]
    assert ax.get_window_extent().width > 0.4 * figure.bbox.width
    assert all(max(map(len, text.get_text().split("\n"))) <= 28 for text in ax.get_yticklabels())
    plt.close(figure)


def test_pictures_of_a_family_name_its_scale_and_keep_per_cent_together(patients):
    formula = "seizures ~ arm * week + (1 | patient)"
    found = hl.TwoLevelModel.from_formula(formula, patients, family="poisson").fit_ml().heterogeneity()
    figure = found.plot().get_viz("figure")
    assert figure.axes[0].get_xlabel().replace("\n", " ") == "coefficient of a subject (log scale)"
    assert break_text("interval of 95 % of all", 14, len) == "interval of\n95 % of all"
    assert wrap(["interval of 95 % of all"], 14) == ["interval of", "95 % of all"]
    plt.close(figure)
