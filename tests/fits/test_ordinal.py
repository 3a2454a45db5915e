"""Ordered categories: probabilities at every level by direct formulas, thresholds, and what has no meaning for them."""

import numpy as np
import pandas as pd
import pytest
from scipy import integrate, stats

import hierlmm as hl

LEVELS = ["none", "some", "much", "all"]


def pains(seed=2, subjects=60, rows=6):
    rng = np.random.default_rng(seed)
    who = np.repeat(np.arange(subjects), rows)
    x = rng.normal(size=len(who))
    eta = 0.4 + 0.9 * rng.normal(size=subjects)[who] + 0.8 * x
    cut = np.digitize(eta + rng.logistic(size=len(who)), [0.0, 1.2, 2.5])
    return pd.DataFrame({"who": who, "x": x, "pain": pd.Categorical.from_codes(cut, LEVELS, ordered=True)})


@pytest.fixture(scope="module")
def data():
    return pains()


@pytest.fixture(scope="module")
def fit(data):
    return hl.TwoLevelModel.from_formula("pain ~ x + (1 | who)", data, family="ordinal").fit_ml(n_quadrature=9)


def by_definition(fit, eta):
    below = stats.logistic.cdf(fit.thresholds.to_numpy() - np.asarray(eta)[:, None])
    n = len(below)
    return np.diff(np.hstack([np.zeros((n, 1)), below, np.ones((n, 1))]), axis=1)


def test_probabilities_of_a_subject_and_of_the_average_subject(fit, data):
    eta = fit.design.X @ fit.beta.to_numpy()
    for level in ("population", "new_subject"):
        np.testing.assert_allclose(fit.probabilities(level=level), by_definition(fit, eta), rtol=1e-12, atol=1e-14)
    own = eta + fit.b["Intercept"].to_numpy()[fit.design.subject_index]
    found = fit.probabilities()
    np.testing.assert_allclose(found, by_definition(fit, own), rtol=1e-12, atol=1e-14)
    assert list(found.columns) == LEVELS
    assert found.columns.name == "category"
    np.testing.assert_allclose(found.sum(axis=1), 1.0, rtol=1e-14)
    rows = data.iloc[[3, 50]]
    pd.testing.assert_frame_equal(fit.probabilities(rows), found.loc[rows.index], rtol=1e-12)


def test_probabilities_over_subjects_are_the_integral(fit, data):
    found = fit.probabilities(data.head(2), level="marginal")
    eta, sd = fit.design.X[:2] @ fit.beta.to_numpy(), fit.sd_b.iloc[0]
    for row in range(2):
        for k in range(len(LEVELS)):
            expected = integrate.quad(
                lambda e, row=row, k=k: by_definition(fit, [eta[row] + e])[0, k] * stats.norm.pdf(e, 0.0, sd), -12, 12
            )[0]
            assert found.iloc[row, k] == pytest.approx(expected, abs=1e-9)


def test_thresholds_are_named_and_in_the_print(fit):
    assert list(fit.thresholds.index) == ["none|some", "some|much", "much|all"]
    assert fit.thresholds.iloc[0] == 0.0
    assert fit.thresholds.is_monotonic_increasing
    assert f"Thresholds: none|some 0, some|much {fit.thresholds.iloc[1]:.5g}" in repr(fit)
    assert "categories: none < some < much < all" in repr(fit)
    assert fit.design.rows.categories == tuple(LEVELS)


def test_numbers_are_categories_too(data):
    coded = data.assign(pain=10 * data["pain"].cat.codes)
    fit = hl.TwoLevelModel.from_formula("pain ~ x + (1 | who)", coded, family="ordinal").fit_ml()
    assert list(fit.probabilities().columns) == [0, 10, 20, 30]
    assert list(fit.thresholds.index) == ["0|10", "10|20", "20|30"]


@pytest.mark.parametrize(
    "ask",
    [
        lambda fit: fit.predict(),
        lambda fit: fit.predict(level="marginal", scale="link"),
        lambda fit: fit.predict(interval="prediction", scale="link"),
        lambda fit: fit.fitted(),
        lambda fit: fit.residuals(),
        lambda fit: fit.marginal_coefficients(),
    ],
)
def test_what_has_no_meaning_says_to_ask_for_probabilities(fit, ask):
    with pytest.raises(hl.NotAvailableError, match=r"fit\.probabilities\("):
        ask(fit)


def test_linear_predictors_are_there(fit):
    assert np.isfinite(fit.predict(scale="link", interval="confidence")).all(axis=None)
    assert np.isfinite(fit.fitted(scale="link")).all()


def test_without_an_intercept_it_is_refused(data):
    with pytest.raises(hl.DataError, match="without an intercept"):
        hl.TwoLevelModel.from_formula("pain ~ 0 + x + (1 | who)", data, family="ordinal")


def test_other_families_have_no_categories(data):
    fit = hl.TwoLevelModel.from_formula("x ~ 1 + (1 | who)", data, family=hl.families.StudentT(nu=5)).fit_ml()
    for ask in (fit.probabilities, lambda: fit.thresholds):
        with pytest.raises(hl.NotAvailableError, match="no ordered categories"):
            ask()
