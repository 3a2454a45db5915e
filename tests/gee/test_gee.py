"""GEE: against dense matrices (the formulas as they are written), and what is refused where a number would mislead."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from gee_references import data_of
from scipy.optimize import minimize_scalar

import hierlmm as hl
from hierlmm.errors import DataError, FitWarning, NotAvailableError, SpecificationError
from hierlmm.gee import estimate
from hierlmm.gee.correlation import ExchangeableMoments, Rows, UnstructuredMoments


def estimate_gee(y, X, offset, coef, index, *, correlation="exchangeable", times=None):
    """The equations of arrays, in the place of those of a design."""
    subjects = range(int(index.max()) + 1)
    design = SimpleNamespace(
        y=y, X=X, offset=offset, coef=coef, subject_index=index, subjects=subjects, is_gaussian=True, weights=None
    )
    chosen = {"scale": "n-p", "ar_pairs": "all", "max_iterations": 200}
    return estimate.estimate_gee(design, times, correlation=correlation, **chosen)


@pytest.fixture(scope="module")
def uneven():
    """Unequal numbers of rows, irregular times on a grid of planned visits, rows in random order."""
    rng = np.random.default_rng(5)
    rows = []
    for subject in range(60):
        visits = np.sort(rng.choice(5, size=rng.integers(1, 6), replace=False))
        b = rng.normal()
        for v in visits:
            rows.append((subject, v, v + rng.uniform(-0.2, 0.2), subject % 2, b + 0.3 * v + rng.normal()))
    data = pd.DataFrame(rows, columns=["subject", "visit", "time", "x", "y"])
    return data.sample(frac=1.0, random_state=1).reset_index(drop=True)


@pytest.fixture(scope="module")
def uneven_model(uneven):
    return hl.TwoLevelModel.from_formula("y ~ x * time + (1 | subject)", uneven)


STRUCTURES = [
    ("independence", None, "n-p"),
    ("exchangeable", None, "n-p"),
    ("exchangeable", None, "n"),
    ("ar1", "time", "n-p"),
    ("ar1", "visit", "n"),
    ("unstructured", "visit", "n-p"),
]


@pytest.mark.parametrize(("correlation", "time", "scale"), STRUCTURES)
def test_the_three_covariances_are_those_of_dense_matrices(uneven, uneven_model, correlation, time, scale):
    fit = uneven_model.fit_gee(correlation, time=None if time is None else uneven[time], scale=scale)
    design, N, p = uneven_model.design, *uneven_model.design.X.shape
    r = design.y - design.X @ fit.beta.to_numpy()
    phi = r @ r / (N - p if scale == "n-p" else N)
    assert fit.scale == pytest.approx(phi, rel=1e-12)
    blocks = []
    for j in range(design.n_subjects):
        rows = np.flatnonzero(design.subject_index == j)
        R = reference_correlation(fit, r, phi, design, rows, correlation, None if time is None else uneven[time])
        blocks.append((design.X[rows], np.linalg.inv(R), r[rows]))
    A = sum(X.T @ W @ X for X, W, _ in blocks)
    inverse = np.linalg.inv(A)
    score = sum(X.T @ W @ e for X, W, e in blocks)
    assert np.abs(inverse @ score).max() < 1e-8
    robust = inverse @ sum(np.outer(X.T @ W @ e, X.T @ W @ e) for X, W, e in blocks) @ inverse
    corrected = [X.T @ W @ np.linalg.solve(np.eye(len(e)) - X @ inverse @ X.T @ W, e) for X, W, e in blocks]
    reduced = inverse @ sum(np.outer(s, s) for s in corrected) @ inverse
    np.testing.assert_allclose(fit.covariance("naive"), phi * inverse, rtol=1e-7, atol=1e-12)
    np.testing.assert_allclose(fit.covariance("robust"), robust, rtol=1e-7, atol=1e-12)
    np.testing.assert_allclose(fit.covariance("bias_reduced"), reduced, rtol=1e-7, atol=1e-12)


def reference_correlation(fit, r, phi, design, rows, correlation, time):
    """The working correlation of one subject, its parameter estimated anew from the residuals by brute force."""
    n = len(rows)
    same = design.subject_index[:, None] == design.subject_index[None, :]
    pairs = np.triu(same, 1)
    products = np.outer(r, r)
    mean_square = r @ r / len(r)
    if correlation == "independence":
        return np.eye(n)
    if correlation == "exchangeable":
        removed = fit.beta.size if fit.estimate.scale_divisor == "n-p" else 0
        alpha = products[pairs].sum() / (pairs.sum() - removed) / phi
        return np.full((n, n), alpha) + (1 - alpha) * np.eye(n)
    t = time.to_numpy()
    if correlation == "ar1":
        lag, z = np.abs(t[:, None] - t[None, :])[pairs], products[pairs] / mean_square
        best = minimize_scalar(
            lambda a: np.sum((z - a**lag) ** 2), bounds=(0.01, 0.99), method="bounded", options={"xatol": 1e-12}
        )
        alpha = fit.correlation_parameters["alpha"] ** (1 / fit.estimate.spacing)
        assert alpha == pytest.approx(best.x, rel=1e-6)
        return alpha ** np.abs(t[rows][:, None] - t[rows][None, :])
    R = np.eye(n)
    for a in range(n):
        for b in range(n):
            if a != b:
                both = same & (t[:, None] == t[rows[a]]) & (t[None, :] == t[rows[b]])
                R[a, b] = products[both].mean() / mean_square
    return R


def test_the_spacing_is_the_median_gap_of_irregular_times_and_the_shortest_of_regular_ones(uneven, uneven_model):
    """The distance at which the reported correlation holds."""
    for time, pick in (("time", np.median), ("visit", np.min)):
        gaps = np.concatenate([np.diff(np.sort(t)) for _, t in uneven.groupby("subject")[time]])
        fit = uneven_model.fit_gee("ar1", time=uneven[time])
        assert fit.estimate.spacing == pytest.approx(pick(gaps), rel=1e-12)


@pytest.mark.parametrize("size", [3, 6])
def test_moments_outside_are_pulled_to_the_smallest_eigenvalue_that_is_left(size):
    """R = I + α (11' - I) has the smallest eigenvalue 1 + (n - 1) α, which becomes 1e-6; the raw moment is kept."""
    rows = Rows(np.array([0, size, 2 * size]), np.tile(np.arange(float(size)), 2))
    signs = np.where(np.arange(size) % 2, 1.0, -1.0)
    residual = np.tile(signs - signs.mean(), 2)
    moments = ExchangeableMoments(rows, 0)
    moments.update(residual)  # sums of zero within subjects: α = -1 / (n - 1), on the edge
    assert moments.raw == pytest.approx(-1.0 / (size - 1), rel=1e-12)
    assert not moments.inside
    assert np.linalg.eigvalsh(moments.subject_matrix(0))[0] == pytest.approx(1e-6, rel=1e-6)
    table = UnstructuredMoments(rows, 0)
    table.update(residual)
    raw = np.eye(size) + table.raw
    assert np.linalg.eigvalsh(raw)[0] < 1e-8 and not table.inside
    assert np.linalg.eigvalsh(table.subject_matrix(1))[0] == pytest.approx(1e-6, rel=1e-6)
    pulled = table.subject_matrix(1) - np.eye(size)
    np.testing.assert_allclose(pulled, table.raw * (pulled[0, 1] / table.raw[0, 1]), rtol=1e-9)  # towards the identity


def test_the_order_of_the_rows_does_not_matter(uneven, uneven_model):
    data = uneven.sort_values(["time"]).reset_index(drop=True)
    other = hl.TwoLevelModel.from_formula("y ~ x * time + (1 | subject)", data)
    for correlation, time in (("ar1", "time"), ("unstructured", "visit")):
        a = uneven_model.fit_gee(correlation, time=uneven[time])
        b = other.fit_gee(correlation, time=data[time])
        np.testing.assert_allclose(a.beta, b.beta, rtol=1e-9)
        np.testing.assert_allclose(a.standard_errors(), b.standard_errors(), rtol=1e-9)
        own = uneven.index[uneven["subject"] == 7]
        R = a.working_correlation(7)
        assert list(R.index) == list(own)
        if correlation == "ar1":
            t = uneven.loc[own, "time"].to_numpy()
            alpha = a.correlation_parameters["alpha"] ** (1 / a.estimate.spacing)
            np.testing.assert_allclose(R, alpha ** np.abs(t[:, None] - t[None, :]), rtol=1e-12)


def test_exchangeable_agrees_with_statsmodels_own(uneven_model):
    from statsmodels.genmod.cov_struct import Exchangeable
    from statsmodels.genmod.generalized_estimating_equations import GEE

    design = uneven_model.design
    model = GEE(design.y, design.X, groups=design.subject_index, cov_struct=Exchangeable())
    theirs = model.fit(cov_type="bias_reduced", ctol=1e-10)
    fit = uneven_model.fit_gee()
    np.testing.assert_allclose(fit.beta, theirs.params, rtol=1e-9)
    ours = fit.standard_errors()
    for kind in ours:
        np.testing.assert_allclose(ours[kind], theirs.standard_errors(kind), rtol=1e-8)


# Where statsmodels' defaults mislead.


def test_gaps_count_where_statsmodels_counts_rows():
    """statsmodels' AR(1) estimates from time and then correlates neighbouring rows as if no visit were missing."""
    from statsmodels.genmod.cov_struct import Autoregressive
    from statsmodels.genmod.generalized_estimating_equations import GEE

    data, subject, time = data_of("dental_gaps")
    model = hl.TwoLevelModel.from_formula(f"y ~ sex * time + (1 | {subject})", data)
    structure = Autoregressive(grid=False)
    theirs = GEE(
        model.design.y, model.design.X, groups=data["id"], time=data["time"].to_numpy() / 2, cov_struct=structure
    ).fit()
    wrong = structure.covariance_matrix(np.zeros(3), 0)[0]  # subject 3 was seen at waves 0, 2, 3
    assert wrong[0, 1] == pytest.approx(wrong[1, 2])
    fit = model.fit_gee("ar1", time=time, scale="n")
    right = fit.working_correlation(3).to_numpy()
    assert right[0, 1] == pytest.approx(right[1, 2] ** 2, rel=1e-12)
    assert abs(theirs.params[1] - fit.beta.iloc[1]) > 1e-3


def test_units_change_nothing():
    """statsmodels stops on the raw score: after two rounds in tiny units, never in large ones."""
    data, subject, time = data_of("dental_gaps")
    one = hl.TwoLevelModel.from_formula(f"y ~ sex * time + (1 | {subject})", data).fit_gee("ar1", time=time)
    for factor in (1e-9, 1e9):
        scaled = data.assign(y=data["y"] * factor)
        fit = hl.TwoLevelModel.from_formula(f"y ~ sex * time + (1 | {subject})", scaled).fit_gee("ar1", time=time)
        assert fit.converged
        np.testing.assert_allclose(fit.beta / factor, one.beta, rtol=1e-9)
        np.testing.assert_allclose(fit.standard_errors() / factor, one.standard_errors(), rtol=1e-9)
    days = data.assign(day=2e6 + 365.25 * data["time"])
    fit = hl.TwoLevelModel.from_formula(f"y ~ sex * day + (1 | {subject})", days).fit_gee("ar1", time="day")
    assert fit.beta["day"] * 365.25 == pytest.approx(one.beta["time"], rel=1e-7)
    assert fit.beta_se["sex[T.Male]:day"] * 365.25 == pytest.approx(one.beta_se["sex[T.Male]:time"], rel=1e-7)
    assert fit.estimate.spacing == pytest.approx(2 * 365.25)


def test_negative_autocorrelation_is_found():
    """statsmodels' AR(1) searches α ≥ 0 and reports zero."""
    rng = np.random.default_rng(1)
    e = np.empty((200, 6))
    e[:, 0] = rng.normal(size=200)
    for t in range(1, 6):
        e[:, t] = -0.6 * e[:, t - 1] + 0.8 * rng.normal(size=200)
    index, times = np.repeat(np.arange(200), 6), np.tile(np.arange(6.0), 200)
    X, zero = np.ones((1200, 1)), np.zeros(1200)
    fit = estimate_gee(e.ravel(), X, zero, ("Intercept",), index, correlation="ar1", times=times)
    assert fit.moments.parameter == pytest.approx(-0.6, abs=4 * np.sqrt((1 - 0.36) / 1000))
    jitter = times + rng.uniform(-0.2, 0.2, size=1200)
    irregular = estimate_gee(e.ravel(), X, zero, ("Intercept",), index, correlation="ar1", times=jitter)
    assert irregular.moments.parameter == 0.0  # a negative number has no broken powers


def test_a_correlation_outside_its_range_is_refused():
    """statsmodels goes on with a V that is no covariance matrix."""
    from statsmodels.genmod.cov_struct import Exchangeable
    from statsmodels.genmod.generalized_estimating_equations import GEE

    rng = np.random.default_rng(2)
    e = rng.normal(size=40)
    y = np.concatenate([np.column_stack([e, -0.9 * e + 0.3 * rng.normal(size=40)]).ravel(), rng.normal(size=6)])
    index = np.concatenate([np.repeat(np.arange(40), 2), np.full(6, 40)])
    structure = Exchangeable()
    GEE(y, np.ones((86, 1)), groups=index, cov_struct=structure).fit()
    V = structure.covariance_matrix(np.zeros(6), 40)[0]
    assert np.linalg.eigvalsh(V)[0] < -0.1
    with pytest.raises(DataError, match=r"-1/\(6 - 1\) = -0\.2000"):
        estimate_gee(y, np.ones((86, 1)), np.zeros(86), ("Intercept",), index)
    estimate_gee(y[:80], np.ones((80, 1)), np.zeros(80), ("Intercept",), index[:80])  # fine without the large subject


def test_an_unstructured_correlation_that_is_none_is_refused():
    rng = np.random.default_rng(3)
    y = (rng.normal(size=(12, 1)) * np.array([0.1, 0.1, 5.0, 5.0]) + 0.01 * rng.normal(size=(12, 4))).ravel()
    index, times = np.repeat(np.arange(12), 4), np.tile(np.arange(4), 12)
    with pytest.raises(DataError, match="no positive definite correlation matrix"):
        estimate_gee(y, np.ones((48, 1)), np.zeros(48), ("Intercept",), index, correlation="unstructured", times=times)


def test_a_subject_alone_has_no_bias_reduced_standard_error(dental):
    data = dental.assign(only=(dental["subject"] == 3).astype(float))
    fit = hl.TwoLevelModel.from_formula("distance ~ time + only + (1 | subject)", data).fit_gee()
    assert fit.estimate.alone == (2,)
    assert fit.standard_errors()["bias_reduced"].isna().all()
    assert "Without subject 3" in fit.warnings[0]
    with pytest.raises(NotAvailableError, match="without subject 3"):
        fit.with_se("bias_reduced")
    assert "such coefficients (only) have no robust standard error" in fit.warnings[0]
    errors = fit.standard_errors()
    assert list(errors.index[errors["robust"].isna()]) == ["only"] and errors["naive"].notna().all()
    assert fit.summary().loc["only", ["se", "lower", "p"]].isna().all() and fit.anova().loc["time", "p"] > 0.0
    with pytest.raises(NotAvailableError, match="use se='naive'"):
        fit.to_datatree(draws=5)
    without = hl.TwoLevelModel.from_formula("distance ~ time + (1 | subject)", data[data["only"] == 0.0]).fit_gee()
    np.testing.assert_allclose(errors.loc["time", "robust"], without.standard_errors().loc["time", "robust"], rtol=0.1)
    model = hl.TwoLevelModel.from_formula("distance ~ time + only + (1 | subject)", data)
    with pytest.raises(NotAvailableError, match="without subject 3"):
        model.fit_gee(se="bias_reduced")
    assert model.fit_ml().compare_marginal().table["bias_reduced_se"].isna().all()
    assert len(model.fit_ml().compare_marginal().comparison().labels) == 3


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"correlation": "ar"}, SpecificationError, "Did you mean 'ar1'"),
        ({"correlation": "ar1"}, SpecificationError, "without time"),
        ({"correlation": "unstructured"}, SpecificationError, "without time"),
        ({"correlation": "ar1", "time": "age"}, DataError, "keeps only the columns"),
        ({"correlation": "ar1", "time": "sex"}, DataError, "repeated times"),
        ({"correlation": "ar1", "time": [1, 2]}, DataError, "2 times for 108 rows"),
        ({"scale": "N"}, SpecificationError, "scale='N'"),
        ({"ar_pairs": "some"}, SpecificationError, "ar_pairs"),
        ({"se": "sandwich"}, SpecificationError, "se='sandwich'"),
        ({"max_iterations": 0}, SpecificationError, "at least 1"),
    ],
)
def test_what_cannot_be_used_is_said(dental, options, error, message):
    model = hl.TwoLevelModel.from_formula("distance ~ sex * time + (1 | subject)", dental)
    with pytest.raises(error, match=message):
        model.fit_gee(**options)


def test_times_that_do_not_fit_are_refused(dental):
    model = hl.TwoLevelModel.from_formula("distance ~ sex + (1 | subject)", dental)
    with pytest.raises(DataError, match="index is not that of the rows"):
        model.fit_gee("ar1", time=dental["time"].set_axis(range(1, 109)))
    with pytest.raises(DataError, match="1 missing"):
        model.fit_gee("ar1", time=dental["time"].astype(float).where(dental.index != 4))
    with pytest.raises(DataError, match="needs numbers"):
        model.fit_gee("ar1", time=dental["time"].astype(str))
    with pytest.raises(DataError, match="no subject has both"):
        model.fit_gee("unstructured", time=dental["time"] + 0.001 * dental["subject"])
    named = model.fit_gee("unstructured", time=dental["time"].astype(str))
    numbers = model.fit_gee("unstructured", time=dental["time"].to_numpy())
    np.testing.assert_allclose(named.beta, numbers.beta, rtol=1e-12)
    jitter = dental["time"] + 0.1 * np.sin(np.arange(108))
    with pytest.raises(DataError, match="ar_pairs='all'"):
        model.fit_gee("ar1", time=jitter, ar_pairs="adjacent")


def test_too_few_of_something_is_refused():
    y, one, zero = np.array([1.0, 2.0, 4.0, 3.0]), np.ones((4, 1)), np.zeros(4)
    with pytest.raises(DataError, match="2 subjects and 2 coefficients"):
        estimate_gee(y, np.column_stack([one, y**2]), zero, ("a", "b"), np.array([0, 0, 1, 1]))
    with pytest.raises(DataError, match="no subject with two rows"):
        estimate_gee(y, one, zero, ("a",), np.arange(4))
    with pytest.raises(DataError, match="use scale='n'"):
        estimate_gee(y, one, zero, ("a",), np.array([0, 0, 1, 2]))
    with pytest.raises(DataError, match="linear combination"):
        estimate_gee(y, np.column_stack([one, 2 * one]), zero, ("a", "b"), np.array([0, 0, 1, 2]))
    with pytest.raises(DataError, match="reproduce exactly"):
        estimate_gee(one[:, 0] * 3, one, zero, ("a",), np.array([0, 0, 1, 2]), correlation="independence")
    fit = estimate_gee(y, one, zero, ("a",), np.arange(4), correlation="independence")
    assert fit.cov_naive[0, 0] == pytest.approx(np.var(y, ddof=1) / 4)
    assert fit.cov_robust[0, 0] == pytest.approx(np.var(y) / 4)
    # Mancl and DeRouen with one row each: residuals over 1 - 1/4 (HC3).
    assert fit.cov_bias_reduced[0, 0] == pytest.approx(np.sum((y - y.mean()) ** 2) / (0.75 * 4) ** 2)


def test_an_early_stop_is_said(dental):
    data, subject, time = data_of("dental_gaps")
    model = hl.TwoLevelModel.from_formula(f"y ~ sex * time + (1 | {subject})", data)
    with pytest.warns(FitWarning, match="not solved after 2 iterations"):
        fit = model.fit_gee("ar1", time=time, max_iterations=2)
    assert not fit.converged
    assert "NOT CONVERGED" in repr(fit)


def test_few_subjects_make_robust_standard_errors_too_small_and_the_correction_helps():
    """Eight subjects and a coefficient between them: the mean of the squared standard errors against the variance."""
    rng = np.random.default_rng(8)
    J, n, runs = 8, 4, 200
    index = np.repeat(np.arange(J), n)
    X = np.column_stack([np.ones(J * n), np.repeat([0.0, 0, 0, 0, 0, 1, 1, 1], n)])
    estimates, squared = [], []
    for _ in range(runs):
        y = rng.normal(size=J)[index] + rng.normal(size=J * n)
        fit = estimate_gee(y, X, np.zeros(J * n), ("a", "x"), index)
        estimates.append(fit.beta[1])
        squared.append([fit.cov_robust[1, 1], fit.cov_bias_reduced[1, 1]])
    truth = (1 + 1 / n) * (1 / 5 + 1 / 3)
    robust, reduced = np.mean(squared, axis=0) / truth
    # Exact here, a difference of group means: (m - 1)/m in a group of m subjects, and m/(m - 1) when corrected; sums of
    # squares within groups are multiples of χ² with m - 1 degrees of freedom.
    mcse = np.sqrt([2 * 4 / 5**4 + 2 * 2 / 3**4, 2 / 4**3 + 2 / 2**3]) / (1 / 5 + 1 / 3) / np.sqrt(runs)
    assert robust == pytest.approx((4 / 5 / 5 + 2 / 3 / 3) / (1 / 5 + 1 / 3), abs=4 * mcse[0])
    assert reduced == pytest.approx((5 / 4 / 5 + 3 / 2 / 3) / (1 / 5 + 1 / 3), abs=4 * mcse[1])
    assert np.var(estimates) == pytest.approx(truth, rel=4 * np.sqrt(2 / runs))
