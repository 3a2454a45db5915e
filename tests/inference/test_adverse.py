"""Cases in which the rooms of inference once gave a wrong answer, or none."""

import numpy as np
import pandas as pd
import pytest

import hierlmm as hl


def two(formula, data, **options):
    return hl.TwoLevelModel.from_formula(formula, data, **options)


def test_a_limit_where_another_variance_is_zero(sleepstudy):
    """sd(Intercept) is zero at the optimum and not at sd(days) = 0, where the deviance rises by 1.67 only."""
    rng = np.random.default_rng(33)
    noise = rng.normal(size=180) + np.repeat(rng.normal(size=18) * 0.08, 10) * sleepstudy["days"]
    data = sleepstudy.assign(y=noise)
    fit = two("y ~ days + (days || subject)", data).fit_ml()
    without = two("y ~ days + (1 | subject)", data).fit_ml()
    assert without.criterion - fit.criterion < 3.0
    assert fit.variance_components(method="profile").loc["sd(days)", "lower"] == pytest.approx(0.0, abs=1e-6)


def test_a_search_that_leaves_the_numbers(sleepstudy):
    data = sleepstudy.assign(y=np.random.default_rng(0).normal(size=180))
    table = two("y ~ days + (days | subject)", data).fit_reml().profile("corr(Intercept, days)").table()
    assert np.isfinite(table["estimate"]).all() or table["estimate"].isna().all()


def test_two_rows_close_together_and_alike():
    """The decay of a unit of time underflows before that of a short gap; the optimum is that of the exponential."""
    gap, c, rng = 1e-4, 0.9, np.random.default_rng(0)
    e = rng.normal(size=(4, 5))
    e[:, 1] = c * e[:, 0] + np.sqrt(1 - c * c) * e[:, 1]
    data = pd.DataFrame(
        {
            "subject": np.repeat(range(4), 5),
            "t": np.tile([0, gap, 1, 2, 3.0], 4),
            "y": (e + rng.normal(size=(4, 1))).ravel(),
        }
    )
    fits = [two("y ~ t + (1 | subject)", data, residual=own("t")).fit_ml() for own in (hl.CAR1, hl.Exponential)]
    assert fits[0].loglik == pytest.approx(fits[1].loglik, abs=1e-5)


def test_bayes_factors_are_of_the_same_rows(dental):
    models = [two(f, dental) for f in ("distance ~ time + (1 | subject)", "distance ~ sex + time + (1 | subject)")]
    permuted = dental.assign(distance=np.random.default_rng(0).permutation(dental["distance"]))
    with pytest.raises(hl.DataError, match="not the same"):
        hl.bayes_factor(models[0], two("distance ~ time + (1 | subject)", permuted))
    shuffled = two("distance ~ sex + time + (1 | subject)", dental.sample(frac=1, random_state=1))
    assert hl.bayes_factor(models[0], shuffled).log_bf == pytest.approx(hl.bayes_factor(*models).log_bf, abs=1e-6)
    offset = two("distance ~ sex + time + offset(0 * time) + (1 | subject)", dental)
    assert hl.bayes_factor(models[0], offset).log_bf == pytest.approx(hl.bayes_factor(*models).log_bf, abs=1e-6)


def test_other_rows_with_equal_responses_are_seen():
    rng = np.random.default_rng(1)
    data = pd.DataFrame({"id": np.repeat(range(30), 6), "y": rng.integers(0, 2, 180)})
    data = data.assign(x1=rng.normal(size=180), x2=rng.normal(size=180))
    second = next(k for k in range(1, 6) if data["y"][k] == data["y"][k - 1])  # of the first subject
    data.loc[second - 1, "x1"], data.loc[second, "x2"] = np.nan, np.nan
    with pytest.warns(hl.FitWarning):
        fits = [two(f"y ~ {x} + (1 | id)", data, family="bernoulli", missing="drop").fit_ml() for x in ("x1", "x2")]
    assert "dropped 1 rows" in str(hl.compare_models(*fits))


def test_r_squared_in_any_unit(sleepstudy):
    tables = [
        two("y ~ days + (days | subject)", sleepstudy.assign(y=sleepstudy["reaction"] * k)).fit_reml().r_squared().table
        for k in (1.0, 1e-6)
    ]
    numbers = [t.select_dtypes("number").to_numpy() for t in tables]
    np.testing.assert_allclose(numbers[0], numbers[1], rtol=2e-3)


@pytest.mark.parametrize("method", ["test_random_effects", "test_covariance"])
def test_tests_of_variances_need_a_likelihood(dental, dental_like_nuts, method):
    for fit in (two("distance ~ time + (1 | subject)", dental).fit_gee(), dental_like_nuts):
        with pytest.raises(hl.NotAvailableError):
            getattr(fit, method)()


def test_subjects_by_other_names(dental):
    subjects = dental["subject"].unique()
    names = dict(zip(subjects, np.random.default_rng(0).permutation(len(subjects)), strict=True))
    renamed = dental.assign(other=dental["subject"].map(lambda k: f"z{names[k]:03d}"))
    small, large = (two(f"distance ~ {x} + (1 | subject)", dental).fit_ml() for x in ("time", "sex * time"))
    other = two("distance ~ sex * time + (1 | other)", renamed).fit_ml()
    plain, moved = (hl.compare_models(small, fit, by=["aic"]).differences for fit in (large, other))
    np.testing.assert_allclose(plain.select_dtypes("number"), moved.select_dtypes("number"), rtol=1e-6)


def test_any_index_and_labels(sleepstudy):
    plain = two("reaction ~ days + (days | subject)", sleepstudy).fit_reml()
    labelled = sleepstudy.assign(kind=[1 if k % 2 else "one" for k in range(len(sleepstudy))])
    for data in (sleepstudy.set_axis(np.zeros(180, dtype=int)), sleepstudy.rename_axis("days"), labelled):
        fit = two("reaction ~ days + (days | subject)", data).fit_reml()
        for ask in ("intraclass_correlation", "r_squared"):
            found, expected = (getattr(own, ask)().table.select_dtypes("number") for own in (fit, plain))
            np.testing.assert_allclose(found, expected, rtol=1e-6)
    with pytest.raises(hl.SpecificationError, match="nothing would be profiled"):
        plain.profile([])


def test_a_bootstrap_of_reml_fits_with_columns_in_another_order(dental):
    small = two("distance ~ time + sex + (1 | subject)", dental).fit_reml()
    large = two("distance ~ sex + time + (time | subject)", dental).fit_reml()
    found = hl.anova(small, large, test="bootstrap", n=19, progressbar=False)
    assert found.table["p"].notna().any()


def test_bayes_factors_name_structures(dental):
    plain = hl.MarginalModel("distance ~ time", subject="subject", data=dental)
    alike = hl.MarginalModel("distance ~ time", correlation=hl.CompoundSymmetry(), subject="subject", data=dental)
    assert "CompoundSymmetry" in str(hl.bayes_factor(plain, alike))
