"""Design analysis: power against its exact value, and everything that is said about it."""

from __future__ import annotations

from dataclasses import replace

import matplotlib as mpl

mpl.use("Agg")

import numpy as np
import pytest
from matplotlib import pyplot as plt
from scipy.stats import nct, norm, t, ttest_ind

import hierlmm as hl
from hierlmm.datasets import simulate
from hierlmm.design.build import design_from_formula
from hierlmm.design.formula import parse_formula
from hierlmm.diagnostics.design_analysis import design_analysis
from hierlmm.diagnostics.plan import Stated, plan_of
from hierlmm.diagnostics.study import Analysis, between_within_df, by_likelihood

GROUPS = "score ~ group + (1 | subject)"
TWO = {
    "beta": {"Intercept": 10.0, "group[T.b]": 1.5},
    "D": [[4.0]],
    "sigma": 1.0,
    "times": [0, 1, 2],
    "level2": {"group": ["a", "b"]},
    "progressbar": False,
}
GROWTH = "distance ~ sex * time + (1 + time | subject)"
CHILDREN = {
    "beta": {"Intercept": 21.0, "sex[T.Male]": 1.4, "time": 0.5, "sex[T.Male]:time": 0.3},
    "D": [[3.2, 0.0], [0.0, 0.03]],
    "sigma": 1.3,
    "times": [0, 2, 4, 6],
    "level2": {"sex": ["Female", "Male"]},
    "progressbar": False,
}


def exact_power(n_subjects: int, alternative: str = "two-sided") -> float:
    """Power of the t test of two groups' subject means, (D + σ²/m) known to be their variance (noncentral t)."""
    df = n_subjects - 2
    shift = 1.5 / np.sqrt((4.0 + 1.0 / 3.0) * 4.0 / n_subjects)
    if alternative == "greater":
        return float(nct.sf(t.ppf(0.95, df), df, shift))
    bound = t.ppf(0.975, df)
    return float(nct.sf(bound, df, shift) + nct.cdf(-bound, df, shift))


@pytest.fixture(scope="module")
def two_groups():
    return design_analysis(GROUPS, **TWO, n_subjects=(12, 30, 60), simulations=400, seed=1)


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def test_power_is_the_exact_power(two_groups):
    table = two_groups.table.xs("group[T.b]", level="coef")
    for size, row in table.iterrows():
        exact = exact_power(size)
        assert abs(row["power"] - exact) < 3.5 * np.sqrt(exact * (1 - exact) / 400)
        assert abs(row["coverage"] - 0.95) < 3.5 * np.sqrt(0.95 * 0.05 / 400)
        se = np.sqrt((4.0 + 1.0 / 3.0) * 4.0 / size)  # of a difference of two groups' means, exactly
        assert abs(row["bias"]) < 3.5 * se / np.sqrt(400)
        assert row["sd"] == pytest.approx(se, rel=3.5 / np.sqrt(2 * 399))
        assert row["bias_mcse"] == pytest.approx(row["sd"] / np.sqrt(400), rel=1e-12)
        assert row["power_lower"] < row["power"] < row["power_upper"]
        assert row["rows"] == 3 * size
    width = 2 * t.ppf(0.975, 28) * np.sqrt((4 + 1 / 3) * 4 / 30)  # a little less, since E s < σ
    assert 0.95 * width < table.loc[30, "width"] < width


def test_one_sided_power(two_groups):
    one = design_analysis(GROUPS, **TWO, n_subjects=30, simulations=300, alternative="greater", seed=2)
    exact = exact_power(30, "greater")
    assert abs(one.table["power"].iloc[0] - exact) < 3.5 * np.sqrt(exact * (1 - exact) / 300)
    none = design_analysis(GROUPS, **TWO, n_subjects=30, simulations=50, alternative="less", seed=2)
    assert none.table["power"].iloc[0] == 0.0
    assert np.isnan(none.table["type_m"].iloc[0])
    assert "below zero" in repr(none)


def test_normal_quantiles_overstate(two_groups):
    z = design_analysis(GROUPS, **TWO, n_subjects=12, simulations=400, quantiles="z", seed=1)
    assert z.table["power"].iloc[0] > two_groups.table["power"].iloc[0]
    assert z.table["width"].iloc[0] < two_groups.table["width"].iloc[0]
    assert "overstates power" in repr(z)


def test_significant_estimates_of_weak_designs_exaggerate(two_groups):
    table = two_groups.table["type_m"]
    assert table.iloc[0] > 1.5
    assert table.iloc[0] > table.iloc[1] > table.iloc[2] > 0.95
    assert (two_groups.table["type_s"].dropna() < 0.2).all()


def test_no_effect_is_found_at_the_level_of_the_test():
    null = {**TWO, "beta": {"Intercept": 10.0}}
    result = design_analysis(GROUPS, **null, n_subjects=20, simulations=400, seed=3)
    assert abs(result.table["power"].iloc[0] - 0.05) < 3.5 * np.sqrt(0.05 * 0.95 / 400)
    assert np.isnan(result.table["type_s"].iloc[0])
    assert "an effect that is not there" in repr(result)
    assert np.isnan(result.subjects_needed().iloc[0, 0])


def test_subjects_needed(two_groups):
    sizes = np.arange(10, 200)
    exact = sizes[np.argmax(np.array([exact_power(int(s)) for s in sizes]) >= 0.8)]
    row = two_groups.subjects_needed(0.8).loc["group[T.b]"]
    assert abs(row["n_subjects"] - exact) < 0.15 * exact
    assert row["lower"] < row["n_subjects"] < row["upper"]


def test_between_within_df(dental_design):
    np.testing.assert_array_equal(between_within_df(dental_design), [25, 25, 25, 25])
    data = simulate(beta={}, D=[[1.0]], sigma=1.0, n_subjects=10, times=[0, 1, 2], seed=1)
    design = design_from_formula(parse_formula("y ~ time + (1 | subject)"), data)
    np.testing.assert_array_equal(between_within_df(design), [9, 19])  # as nlme counts: 30 - 10 - 1


def test_growth_from_formula_with_dropout_and_slopes():
    full = design_analysis(GROWTH, **CHILDREN, n_subjects=(20, 40), simulations=30, seed=1)
    assert list(full.coefs) == ["sex[T.Male]", "time", "sex[T.Male]:time"]
    assert full.table.shape[0] == 6
    assert full.table["width"].unstack("n_subjects").apply(lambda r: r[20] > r[40], axis=1).all()
    less = design_analysis(GROWTH, **CHILDREN, n_subjects=20, simulations=30, dropout=0.2, coefs="time", seed=1)
    assert less.table["rows"].iloc[0] < 70
    assert less.table["width"].iloc[0] > full.table.loc[(20, "time"), "width"]
    assert "Dropout 0.2" in repr(less)


def test_posterior_intervals():
    result = design_analysis(
        GROUPS, **TWO, n_subjects=30, simulations=80, estimator="nuts", draws=400, tune=200, seed=1
    )
    row = result.table.iloc[0]
    exact = exact_power(30)
    assert abs(row["power"] - exact) < 4 * np.sqrt(exact * (1 - exact) / 80)
    assert abs(row["coverage"] - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 80)
    assert "posterior" in repr(result)
    priors = hl.Priors(beta=hl.Normal(0, 0.05))
    sceptic = design_analysis(
        GROUPS, **TWO, n_subjects=30, simulations=20, estimator="nuts", draws=300, tune=200, seed=1, priors=priors
    )
    assert sceptic.table["estimate"].iloc[0] < 0.3


def test_a_fit_is_a_plan(dental):
    fit = hl.TwoLevelModel.from_formula(GROWTH, dental).fit_reml()
    own = design_analysis(fit, n_subjects=(27, 54), simulations=30, seed=1, coefs="sex[T.Male]:time", progressbar=False)
    assert own.table["true"].iloc[0] == pytest.approx(fit.beta["sex[T.Male]:time"])
    assert own.table["rows"].tolist() == [108, 216]
    # Balanced: the variance of a subject's own slope, over 11 k girls and 16 k boys; up to noise in D (30 studies).
    slope = fit.D.to_numpy()[1, 1] + fit.sigma**2 / 20.0
    for times, se in enumerate(own.table["se"], start=1):
        exact = np.sqrt(slope * (1 / 11 + 1 / 16) / times)
        assert se == pytest.approx(exact, rel=4 / np.sqrt(2 * 30 * 25 * times))
    other = design_analysis(
        fit, n_subjects=20, times=[0, 3, 6], level2={"sex": ["Female", "Male"]}, simulations=10, seed=1
    )
    assert other.table["rows"].iloc[0] == 60
    model = hl.TwoLevelModel.from_formula(GROWTH, dental)
    same = design_analysis(
        model,
        beta=fit.beta,
        D=fit.D,
        sigma=fit.sigma,
        n_subjects=27,
        simulations=10,
        dropout=0.1,
        seed=1,
        progressbar=False,
    )
    assert same.table["rows"].iloc[0] < 108


def test_planned_subjects_are_those_of_the_data_each_as_often(dental):
    """54 planned from 27: every child twice, as two subjects of four rows each."""
    fit = hl.TwoLevelModel.from_formula(GROWTH, dental).fit_reml()
    plan = plan_of(Stated(fit))
    drawn = plan.draw(54, np.random.default_rng(1), 0.0)
    assert drawn.n_subjects == 54 and drawn.rows_per_subject.tolist() == [4] * 54
    boys = drawn.frame["sex"].to_numpy().reshape(54, 4) == "Male"
    assert (boys.all(axis=1) | ~boys.any(axis=1)).all() and boys[:, 0].sum() == 2 * 16
    assert plan.draw(20, np.random.default_rng(1), 0.0).n_subjects == 20


def test_a_study_of_two_groups_is_the_t_test_of_the_subjects_means(dental):
    """Balanced: estimate, standard error, interval, and where significance begins, all as scipy's t test says."""
    means = dental.groupby(["sex", "subject"], observed=True)["distance"].mean()
    boys, girls = means["Male"], means["Female"]
    design = design_from_formula(parse_formula("distance ~ sex + (1 | subject)"), dental)
    for alternative in ("two-sided", "greater"):
        test = ttest_ind(boys, girls, alternative=alternative)
        for factor in (1.0 - 1e-6, 1.0 + 1e-6):
            alpha = float(test.pvalue * factor)
            study = by_likelihood(design, [1], Analysis("reml", alternative, alpha))
            assert study.significant.tolist() == [factor > 1.0]
    study = by_likelihood(design, [1], Analysis("reml", "two-sided", 0.05))
    interval = ttest_ind(boys, girls).confidence_interval(0.95)
    np.testing.assert_allclose([study.lower[0], study.upper[0]], interval, rtol=1e-8)


def test_the_same_seed_gives_the_same_study():
    a, b = (design_analysis(GROUPS, **TWO, n_subjects=(10, 20), simulations=12, seed=5) for _ in range(2))
    assert a.table.equals(b.table)
    first = design_analysis(GROUPS, **TWO, n_subjects=10, simulations=12, seed=5)
    assert first.table.loc[10].equals(a.table.loc[10])


def test_text_html_and_plot(two_groups):
    text = repr(two_groups)
    assert "with 30 subjects the chance to see the effect is" in text
    assert "±" in text
    assert "between-within degrees of freedom" in text
    assert "for a chance of 0.80: about" in text
    assert "too small" not in text
    assert "<table" in two_groups._repr_html_()
    drawn = two_groups.plot(backend="none")
    assert drawn.viz["mean"]["study"].sizes["panel"] == 2
    two_groups.plot(figure_kwargs={"figsize": (6, 3)})


INTERACTION = {"coefs": "sex[T.Male]:time"}


def test_no_number_of_subjects_from_sizes_that_do_not_say():
    weak = design_analysis(GROWTH, **CHILDREN, **INTERACTION, n_subjects=(6, 8), simulations=60, seed=1)
    assert weak.subjects_needed().isna().all(axis=None)
    assert "too small to say; try larger ones, for example n_subjects=(16, 32, 64)" in repr(weak)
    assert "about" not in weak.sentences[-1]
    # A power of about 0.45 at 20, but the answer (44) is beyond twice as many.
    beyond = design_analysis(GROWTH, **CHILDREN, **INTERACTION, n_subjects=20, simulations=200, seed=1)
    assert 0.3 < beyond.table["power"].iloc[0] < 0.6
    assert beyond.subjects_needed().isna().all(axis=None)
    assert "too small to say" in beyond.sentences[-1]


def with_power(analysis, power):
    """The same analysis with other numbers of rejections."""
    table = analysis.table.copy()
    table["power"] = power
    return replace(analysis, table=table)


def probit(power):
    """δ of the power Φ(δ√n - 1.96) of 400 studies at 12, 30 and 60 subjects, and its standard error, on a grid."""
    delta = np.linspace(1e-3, 1.0, 20_001)[:, None]
    p = norm.cdf(delta * np.sqrt([12, 30, 60]) - norm.ppf(0.975))
    loglik = 400 * (np.array(power) * np.log(p) + (1 - np.array(power)) * np.log1p(-p)).sum(axis=1)
    best, h = int(np.argmax(loglik)), 100
    curvature = (loglik[best + h] - 2 * loglik[best] + loglik[best - h]) / (delta[h, 0] - delta[0, 0]) ** 2
    return float(delta[best, 0]), float(np.sqrt(-1.0 / curvature))


def test_subjects_needed_of_a_power_that_follows_the_curve(two_groups):
    """Power exactly Φ(0.4 √n - 1.96): 80 % at ((0.8416 + 1.96) / 0.4)² = 49.05; bounds from probit's information."""
    z, sizes = norm.ppf(0.975), np.array([12, 30, 60])
    x = 0.4 * np.sqrt(sizes) - z
    n, lower, upper = with_power(two_groups, norm.cdf(x)).subjects_needed().iloc[0]
    se = 1.0 / np.sqrt(np.sum(400 * sizes * norm.pdf(x) ** 2 / (norm.cdf(x) * norm.sf(x))))
    exact = [np.ceil(((norm.ppf(0.8) + z) / d) ** 2) for d in (0.4, 0.4 + 1.96 * se, 0.4 - 1.96 * se)]
    assert [n, lower, upper] == exact and exact[0] == 50
    assert probit(norm.cdf(x)) == pytest.approx((0.4, se), rel=0.05)


def test_limits_of_subjects_needed(two_groups):
    near = with_power(two_groups, [0.04, 0.3, 0.6])
    n, lower, upper = near.subjects_needed().iloc[0]
    assert 60 < n <= 120
    assert "outside the sizes tried: check with n_subjects=" in near.sentences[-1]
    # Wider than the simulation alone would have it, since the answer lies outside.
    delta, se = probit([0.04, 0.3, 0.6])
    assert upper - lower > 1.5 * 2.8**2 * ((delta - 1.96 * se) ** -2 - (delta + 1.96 * se) ** -2)
    # What happens at 12 subjects does not pull the estimate from what the larger sizes say.
    rare, never = (with_power(two_groups, [p, 0.5, 0.78]).subjects_needed() for p in (0.29, 0.0))
    assert rare.equals(never)
    # Sizes that disagree make it wider.
    agree, disagree = (with_power(two_groups, p).subjects_needed().iloc[0] for p in ([0, 0.5, 0.8], [0, 0.75, 0.7]))
    assert disagree["upper"] - disagree["lower"] > 1.5 * (agree["upper"] - agree["lower"])
    assert "12 subjects, the fewest tried" in with_power(two_groups, 1.0).sentences[-1]
    assert "between 12 and 30 subjects" in with_power(two_groups, [0.1, 1.0, 1.0]).sentences[-1]


def test_the_t_reference_is_not_called_exact_on_the_boundary(two_groups):
    small = design_analysis(GROWTH, **CHILDREN, **INTERACTION, n_subjects=6, simulations=30, seed=1)
    assert small.singular[6] > 0.05
    notes = " ".join(small.notes())
    assert "exact on balanced data only for studies whose D is not on its boundary" in notes
    assert f"{100 * small.singular[6]:.0f} % with 6 subjects" in notes
    assert "not exact" in notes
    assert two_groups.singular[60] < 0.05
    assert "60 subjects" not in " ".join(two_groups.notes())


def test_studies_that_cannot_be_fitted_are_counted():
    some = design_analysis(GROWTH, **CHILDREN, **INTERACTION, n_subjects=(6, 40), dropout=0.6, simulations=60, seed=1)
    table = some.table.droplevel("coef")
    assert (table["failed"] == 1 - table["n_used"] / 60).all()
    assert 0.5 < table.loc[6, "failed"] < 1.0
    assert np.isfinite(table.loc[6, "power"])
    assert table.loc[40, "failed"] == 1.0
    assert np.isnan(table.loc[40, "power"])
    text = repr(some)
    assert "with 40 subjects no simulated study could be fitted (the first because there are as many random" in text
    assert "lower dropout or more subjects" in text
    assert f"{100 * table.loc[6, 'failed']:.0f} % of the simulated studies could not be fitted" in text
    assert "failed" in some._repr_html_()
    some.plot()
    few = design_analysis(GROWTH, **CHILDREN, **INTERACTION, n_subjects=(2, 12), simulations=10, seed=1)
    assert "with 2 subjects no simulated study could be fitted" in repr(few)
    assert few.table["failed"].tolist() == [1.0, 0.0]


def test_failures_of_a_plan_from_a_fit(dental):
    fit = hl.TwoLevelModel.from_formula(GROWTH, dental).fit_reml()
    some = design_analysis(fit, **INTERACTION, n_subjects=(4, 27), simulations=20, seed=1, progressbar=False)
    assert 0 < some.table["failed"].iloc[0] < 1  # the first subjects drawn are all girls, or only one is
    assert some.table["failed"].iloc[1] == 0


def test_an_error_only_if_every_size_fails():
    with pytest.raises(hl.SpecificationError, match="simulated studies of 20, 30 subjects") as error:
        design_analysis(GROWTH, **CHILDREN, n_subjects=(20, 30), dropout=0.9, simulations=10, seed=1)
    assert "lower dropout" in str(error.value)
    with pytest.raises(hl.SpecificationError, match="simulated studies of 10 subjects cannot be fitted, even complete"):
        design_analysis(GROWTH, **{**CHILDREN, "times": [1.0]}, n_subjects=10, simulations=10, seed=1)


@pytest.mark.parametrize(
    ("source", "options", "part"),
    [
        (GROUPS, {"estimator": "gee"}, "not one of the choices"),
        (GROUPS, {"alternative": "both"}, "not one of the choices"),
        (GROUPS, {"alpha": 5}, "strictly between 0 and 1"),
        (GROUPS, {"simulations": 2}, "at least 10"),
        (GROUPS, {"cores": 0}, "cores is a whole number"),
        (GROUPS, {"n_subjects": []}, "at least one size"),
        (GROUPS, {"n_subjects": (1, 20)}, "at least 2"),
        (GROUPS, {"dropout": 1.0}, "lies in [0, 1)"),
        (GROUPS, {"coefs": "group[T.c]"}, "Did you mean 'group[T.b]'"),
        (GROUPS, {"sigma": None}, "not complete"),
        (GROUPS, {"times": None}, "how often and when"),
        (GROUPS, {"beta": [1.0, 2.0]}, "coefficients need names"),
        ("score ~ group * dose + (1 | subject)", {"level2": None}, "one of them is the time"),
        (3.0, {}, "a formula, a model or a fit"),
        (GROUPS, {"estimator": "nuts", "priors": hl.Priors(beta=hl.StudentT(4, 0, 1))}, "not normal"),
    ],
)
def test_bad_arguments(source, options, part):
    with pytest.raises(hl.HierlmmError) as error:
        design_analysis(source, **{**TWO, "simulations": 10, "n_subjects": 10, **options})
    message = str(error.value)
    assert part in message
    assert all(word in message for word in ("Received:", "Why not:", "To do:", "Read:"))


def test_bad_arguments_with_a_fit(dental):
    fit = hl.TwoLevelModel.from_formula(GROWTH, dental).fit_reml()
    with pytest.raises(hl.SpecificationError, match="Did you mean 'time'"):
        design_analysis(fit, beta={"tme": 1.0}, simulations=10)
    with pytest.raises(hl.SpecificationError, match="covariance matrix of shape"):
        design_analysis(fit, D=[[1.0]], simulations=10)
    with pytest.raises(hl.SpecificationError, match="without times the planned subjects"):
        design_analysis(fit, level2={"sex": ["Female", "Male"]}, simulations=10)


def test_subjects_of_groups_are_those_of_the_data(dental):
    fit = hl.TwoLevelModel.from_formula("distance ~ time + (1 | subject)", dental, group="sex").fit_ml()
    with pytest.raises(hl.NotAvailableError, match="group='sex'"):
        hl.design_analysis(fit, times=[0.0, 1.0, 2.0], n_subjects=20, simulations=20)


def test_residual_structure_of_the_fit_is_drawn_from(dental):
    formula = "distance ~ sex * time + (1 | subject)"
    structure = {"residual": hl.AR1(), "residual_variance": hl.VarIdent("sex")}
    model = hl.TwoLevelModel.from_formula(formula, dental, **structure)
    fit = model.fit_reml()
    plan = plan_of(Stated(fit))
    rng = np.random.default_rng(3)
    drawn = [plan.draw(27, rng, 0.0) for _ in range(300)]
    # Male residual SDs are `ratio` times the female ones, as in the fit.
    spread = {}
    for sex in ("Female", "Male"):
        own = []
        for design in drawn:
            rows = (design.frame["sex"] == sex).to_numpy()
            y = (design.y - design.X @ fit.beta.to_numpy())[rows].reshape(-1, 4)
            own.append(np.var(y - y.mean(axis=1, keepdims=True)))
        spread[sex] = np.mean(own), np.std(own) / np.sqrt(len(own))
    ratio = fit.residual_estimate.parameters["ratio(Male/Female)"] ** 2
    found = spread["Male"][0] / spread["Female"][0]
    error = found * np.hypot(spread["Male"][1] / spread["Male"][0], spread["Female"][1] / spread["Female"][0])
    assert abs(found - ratio) < 4 * error
    with pytest.raises(hl.SpecificationError, match="without values of its parameters"):
        hl.design_analysis(model, simulations=20)
    with pytest.raises(hl.NotAvailableError, match="at their times"):
        hl.design_analysis(fit, simulations=20, times=[0, 1, 2])
    marginal = hl.MarginalModel("distance ~ time", correlation=hl.AR1(), subject="subject", data=dental)
    with pytest.raises(hl.NotAvailableError, match="random effects"):
        hl.design_analysis(marginal.fit_reml(), simulations=20)
