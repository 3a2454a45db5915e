"""Slopes within and between subjects: the split, the comparison, what is refused."""

import re

import numpy as np
import pandas as pd
import pytest

import hierlmm as hl
from hierlmm.errors import DataError, SpecificationError


def two_slopes(seed, within, between, J=200, n=5):
    rng = np.random.default_rng(seed)
    i = np.repeat(np.arange(J), n)
    center = rng.normal(0, 2, J)
    x = center[i] + rng.normal(0, 1, J * n)
    mean = pd.Series(x).groupby(i).transform("mean").to_numpy()
    y = 1 + within * (x - mean) + between * mean + rng.normal(0, 1, J)[i] + rng.normal(0, 1, J * n)
    return pd.DataFrame({"id": i, "x": x, "y": y})


def split_fit(data, formula="y ~ x_within + x_between + (1 | id)"):
    return hl.TwoLevelModel.from_formula(formula, hl.within_between(data, "x", subject="id")).fit_reml()


def test_the_split_is_the_mean_and_the_deviation():
    data = two_slopes(0, 1, 1).sample(frac=1, random_state=1)
    split = hl.within_between(data, "x", subject="id")
    assert split.index.equals(data.index)
    np.testing.assert_allclose(split["x_between"], data.groupby("id")["x"].transform("mean"), rtol=1e-13)
    np.testing.assert_allclose(split["x_within"] + split["x_between"], data["x"], rtol=1e-13, atol=1e-14)
    assert np.abs(split.groupby("id")["x_within"].sum()).max() < 1e-12
    (note,) = split.attrs["within_between"]
    share = 100 * split["x_between"].var(ddof=0) / split["x"].var(ddof=0)
    assert f"{share:.0f} % of the variance" in note and "later ones included" in note
    both = hl.within_between(data, ["x", "y"], subject="id", within="{x}_dev", between="{x}_mean")
    assert list(both.columns) == ["id", "x", "y", "x_mean", "x_dev", "y_mean", "y_dev"]


def test_known_slopes_are_found_and_compared():
    data = two_slopes(1, within=0.5, between=1.5)
    found = hl.test_within_between(split_fit(data), "x_within", "x_between")
    # Balanced: ordinary least squares of deviations (variance 1), and of the means of five (variance 1 + 1/5).
    x = data.groupby("id")["x"]
    assert abs(found.within - 0.5) < 4 / np.sqrt(np.sum((data["x"] - x.transform("mean")) ** 2))
    assert abs(found.between - 1.5) < 4 * np.sqrt((1 + 1 / 5) / np.sum((x.mean() - data["x"].mean()) ** 2))
    assert found.p < 1e-6 and found.lower < 1.0 < found.upper and np.isnan(found.probability)
    assert "The slopes differ" in repr(found) and "p = " in found._repr_html_()


def test_the_difference_is_mundlaks_coefficient():
    data = two_slopes(2, within=0.5, between=0.8)
    found = hl.test_within_between(split_fit(data), "x_within", "x_between", ci=0.9)
    mundlak = split_fit(data, "y ~ x + x_between + (1 | id)")
    assert found.difference == pytest.approx(mundlak.beta["x_between"], rel=1e-6)
    assert found.se == pytest.approx(mundlak.beta_se["x_between"], rel=1e-6)
    assert found.z == pytest.approx(found.difference / found.se)
    assert found.upper - found.lower == pytest.approx(2 * 1.6448536 * found.se)


def test_equal_slopes_are_rejected_as_often_as_they_should_be():
    p = np.array(
        [hl.test_within_between(split_fit(two_slopes(s, 1, 1, J=60)), "x_within", "x_between").p for s in range(60)]
    )
    rate, mcse = np.mean(p < 0.05), np.sqrt(0.05 * 0.95 / len(p))
    assert abs(rate - 0.05) < 3 * mcse
    assert "do not show that the slopes differ" in " ".join(
        repr(
            hl.test_within_between(split_fit(two_slopes(int(np.argmax(p)), 1, 1, J=60)), "x_within", "x_between")
        ).split()
    )


def test_a_posterior_answers_with_a_probability():
    data = hl.within_between(two_slopes(3, within=0.5, between=0.8, J=60), "x", subject="id")
    model = hl.TwoLevelModel.from_formula("y ~ x_within + x_between + (1 | id)", data)
    fit = model.fit(draws=1000, tune=1000, chains=2, seed=1, progressbar=False)
    found, wald = (hl.test_within_between(f, "x_within", "x_between") for f in (fit, model.fit_reml()))
    draws = fit.datatree["posterior"]["beta"]
    gap = (draws.sel(coef="x_between") - draws.sel(coef="x_within")).to_numpy()
    assert found.probability == np.mean(gap > 0)
    assert found.kind == "posterior" and np.isnan(found.p)
    assert abs(found.difference - wald.difference) < 5 * wald.se / np.sqrt(1000)
    assert found.se == pytest.approx(wald.se, rel=0.15)
    assert "probability" in repr(found)


def test_subjects_with_one_row_are_named():
    data = pd.concat([two_slopes(0, 1, 1, J=5), pd.DataFrame({"id": [77], "x": [1.0], "y": [1.0]})])
    with pytest.warns(hl.FitWarning, match="1 of 6 subjects .*77.* have one row"):
        split = hl.within_between(data, "x", subject="id")
    assert split["x_within"].iloc[-1] == 0.0


def test_missing_values_of_the_covariate():
    data = two_slopes(0, 1, 1, J=5)
    data.loc[0, "x"] = np.nan
    with pytest.raises(DataError, match=r"missing values in x \(1\)"):
        hl.within_between(data, "x", subject="id")
    split = hl.within_between(data, "x", subject="id", missing="drop")
    assert split["x_between"].iloc[0] == pytest.approx(data["x"].iloc[1:5].mean())
    assert np.isnan(split["x_within"].iloc[0]) and len(split) == len(data)
    assert "1 missing values" in split.attrs["within_between"][0]


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"x": 1.0}, {}, "the same in all rows of each subject"),
        ({"x": "a"}, {}, "labels have no mean"),
        ({"x": 1j}, {}, "labels have no mean"),
        ({"x": np.inf}, {}, "infinite"),
        ({"x_within": 0}, {}, "already there"),
        ({}, {"within": "y"}, "already there"),
        ({}, {"within": "new", "between": "new"}, "already there"),
        ({}, {"missing": "mean"}, "no such choice"),
        ({"id": None}, {}, "missing in"),
    ],
)
def test_covariates_that_cannot_be_split(change, options, message):
    with pytest.raises((DataError, SpecificationError), match=message):
        hl.within_between(two_slopes(0, 1, 1, J=5).assign(**change), "x", subject="id", **options)


def test_coefficients_that_cannot_be_compared():
    fit = split_fit(two_slopes(0, 1, 1, J=20))
    with pytest.raises(SpecificationError, match="Did you mean 'x_within'"):
        hl.test_within_between(fit, "x_witin", "x_between")
    with pytest.raises(SpecificationError, match="twice"):
        hl.test_within_between(fit, "x_within", "x_within")
    with pytest.raises(SpecificationError, match="probability"):
        hl.test_within_between(fit, "x_within", "x_between", ci=95)


@pytest.mark.parametrize(
    ("within", "between", "message"),
    [
        ("x_between", "t", "'t' as the slope between subjects"),
        ("x_between", "z_between", "constant within every subject"),
        ("t", "x_between", "no deviation from the subject's mean"),
        ("x_within", "g[T.b]", "not the slope of a numeric covariate"),
        ("x_within:t", "x_between", "not the slope of a numeric covariate"),
        ("x_within", "Intercept", "not the slope of a numeric covariate"),
        ("x_within", "z_between", "two covariates, 'x' and 'z'"),
    ],
)
def test_coefficients_of_other_covariates_are_not_compared(within, between, message):
    data = two_slopes(0, 1, 1, J=20).assign(z=lambda d: d["x"] ** 2, g=lambda d: np.where(d["id"] % 2, "a", "b"))
    data = data.assign(t=data.groupby("id").cumcount() + 8.0)
    split = hl.within_between(data, ["x", "z"], subject="id")
    fit = hl.TwoLevelModel.from_formula("y ~ x_within*t + x_between + z_between + g + (1 | id)", split).fit_reml()
    assert hl.test_within_between(fit, "x_within", "x_between").names == ("x_within", "x_between")
    with pytest.raises(SpecificationError, match=re.escape(message)):
        hl.test_within_between(fit, within, between)
