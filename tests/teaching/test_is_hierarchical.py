"""Which hierarchy a covariance matrix comes from, if any."""

import numpy as np
import pandas as pd
import pytest

import hierlmm as hl

TIMES = [0, 2, 4, 6]
LINE = np.column_stack([np.ones(4), TIMES])


def exchangeable(n, rho, variance=1.0):
    return variance * ((1 - rho) * np.eye(n) + rho * np.ones((n, n)))


def test_random_intercept_implies_compound_symmetry():
    check = hl.is_hierarchical(exchangeable(4, 0.3, 2.0), ["Intercept"])
    assert check
    assert check.unique
    assert check.D.loc["Intercept", "Intercept"] == pytest.approx(0.6)
    assert check.sigma2 == pytest.approx(1.4)
    assert check.sigma2_interval == pytest.approx((1.4, 1.4))
    assert check.distance < 1e-12


def test_compound_symmetry_does_not_imply_a_random_intercept():
    check = hl.is_hierarchical(exchangeable(4, -0.2), ["Intercept"])
    assert not check
    assert check.is_covariance
    assert check.D.iloc[0, 0] == pytest.approx(-0.2)
    assert len(check.reasons) == 1
    assert "a variance of -0.2 for Intercept, i.e. a negative intra-class correlation of -0.2" in check.reasons[0]
    assert "A marginal model can have this V" in str(check)


def test_below_minus_one_over_n_minus_one_it_is_no_covariance():
    check = hl.is_hierarchical(exchangeable(4, -0.5), ["Intercept"])
    assert not check.is_covariance
    assert "V is no covariance matrix" in check.reasons[0]
    assert "-0.5" in check.reasons[0]  # 1 + 3 (-0.5), the variance of the scaled mean
    assert "A marginal model can have this V" not in str(check)


def test_serial_correlation_is_outside():
    V = 0.6 ** np.abs(np.subtract.outer(range(4), range(4)))
    check = hl.is_hierarchical(V, ["Intercept", "time"], times=TIMES)
    assert not check
    assert check.is_covariance
    # Least squares on the span, the long way.
    basis = [np.eye(4)] + [
        np.outer(LINE[:, a], LINE[:, b]) + np.outer(LINE[:, b], LINE[:, a]) for a in range(2) for b in range(a + 1)
    ]
    A = np.column_stack([m.ravel() for m in basis])
    solution, *_ = np.linalg.lstsq(A, V.ravel(), rcond=None)
    assert check.distance == pytest.approx(np.linalg.norm(V.ravel() - A @ solution))
    assert check.sigma2 == pytest.approx(solution[0])
    assert check.D.iloc[0, 0] == pytest.approx(2 * solution[1])
    assert check.D.iloc[1, 0] == pytest.approx(solution[2])
    np.testing.assert_allclose(check.outside, V - (A @ solution).reshape(4, 4), atol=1e-12)
    assert "outside Z D Zᵀ + σ²I" in check.reasons[0]


def test_the_covariance_of_a_fit_comes_from_its_hierarchy(dental):
    fit = hl.TwoLevelModel.from_formula("distance ~ sex*time + (1 + time | subject)", dental).fit_reml()
    check = hl.is_hierarchical(fit.marginal_covariance(), ["Intercept", "time"], times=TIMES)
    assert check
    np.testing.assert_allclose(check.D, fit.D, rtol=1e-8, atol=1e-10)
    assert check.sigma2 == pytest.approx(fit.sigma**2)
    assert not hl.is_hierarchical(fit.marginal_covariance(), ["Intercept"])


@pytest.mark.parametrize(
    ("D", "words"),
    [
        ([[1, 1.5], [1.5, 1]], "a correlation of 1.5 between Intercept and time"),
        ([[1, 0.2], [0.2, -0.05]], "a variance of -0.05 for time"),
        ([[-1, 0.2], [0.2, -0.05]], "a variance of -1 for Intercept and of -0.05 for time"),
    ],
)
def test_which_part_of_D_fails(D, words):
    Z = pd.DataFrame(LINE, columns=["Intercept", "time"])
    check = hl.is_hierarchical(LINE @ np.array(D) @ LINE.T + 60 * np.eye(4), Z)
    assert check.is_covariance == (np.linalg.eigvalsh(LINE @ np.array(D) @ LINE.T)[0] > -60)
    assert any(words in reason for reason in check.reasons)
    np.testing.assert_allclose(check.D, D, atol=1e-8)


def test_three_effects_name_the_combination():
    t = np.arange(6.0)
    Z = pd.DataFrame({"a": np.ones(6), "b": t, "c": t**2})
    D = np.array([[1, 0.6, 0.6], [0.6, 1, -0.6], [0.6, -0.6, 1]])  # every pair admissible, not all three
    check = hl.is_hierarchical(Z.to_numpy() @ D @ Z.to_numpy().T + 500 * np.eye(6), Z)
    assert "for the combination" in check.reasons[0]
    assert "-0.2" in check.reasons[0]


def test_saturated_designs_leave_sigma_open():
    """Two occasions, intercept and slope: every σ² up to the smallest eigenvalue has its own D."""
    V = np.array([[2.0, 0.5], [0.5, 1.0]])
    check = hl.is_hierarchical(V, ["Intercept", "time"], times=[0, 1])
    assert check
    assert not check.unique
    low, high = check.sigma2_interval
    assert (low, high) == pytest.approx((0, np.linalg.eigvalsh(V)[0]))
    Z = check.Z.to_numpy()
    np.testing.assert_allclose(Z @ check.D.to_numpy() @ Z.T + check.sigma2 * np.eye(2), V, atol=1e-12)
    assert np.linalg.eigvalsh(check.D)[0] > 0
    assert "any value from 0 to" in str(check)
    bad = hl.is_hierarchical(np.array([[1.0, 2.0], [2.0, 1.0]]), ["Intercept", "time"], times=[0, 1])
    assert not bad
    assert bad.sigma2 <= 0


def test_dependent_columns_leave_D_open():
    Z = np.column_stack([np.ones(3), 2 * np.ones(3)])
    check = hl.is_hierarchical(exchangeable(3, 0.5), Z)
    assert check
    assert not check.unique
    assert "linearly dependent" in str(check)
    np.testing.assert_allclose(Z @ check.D.to_numpy() @ Z.T, 0.5, atol=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_random_hierarchies_are_found_again(seed):
    rng = np.random.default_rng(seed)
    n, q = int(rng.integers(3, 9)), int(rng.integers(1, 4))
    Z = rng.normal(size=(n, q)) * 10.0 ** rng.integers(-3, 4, q)
    half = rng.normal(size=(q, q)) / np.abs(Z).max(axis=0)[:, None]
    V = Z @ half @ half.T @ Z.T + rng.uniform(0.1, 2) * np.eye(n)
    check = hl.is_hierarchical(V, Z)
    assert check
    if n > q:
        np.testing.assert_allclose(check.D, half @ half.T, rtol=1e-5, atol=1e-7 * np.abs(half @ half.T).max())
    # One eigenvalue of D turned around: never found.
    values, vectors = np.linalg.eigh(half @ half.T)
    values[-1] = -values[-1]
    if n > q:
        size = np.linalg.norm(Z @ (vectors * values) @ vectors.T @ Z.T)
        check = hl.is_hierarchical(Z @ (vectors * values) @ vectors.T @ Z.T + 2 * size * np.eye(n), Z)
        assert not check
        assert check.is_covariance


def test_rounded_matrices_need_a_tolerance():
    V = np.round(LINE @ np.array([[3.2, -0.03], [-0.03, 0.03]]) @ LINE.T + 1.7 * np.eye(4), 1)
    assert not hl.is_hierarchical(V, LINE)
    assert hl.is_hierarchical(V, LINE, tolerance=0.05)


def test_terms_may_be_expressions():
    check = hl.is_hierarchical(np.eye(4), ["1", "time", "I(time**2)"], times=TIMES)
    assert list(check.Z.columns)[:2] == ["Intercept", "time"]
    np.testing.assert_array_equal(check.Z.iloc[:, 2], np.square(TIMES))
    frame = pd.DataFrame({"week": TIMES})
    assert list(hl.is_hierarchical(np.eye(4), ["Intercept", "week"], times=frame).Z["week"]) == TIMES


@pytest.mark.parametrize(
    ("V", "Z", "options", "words"),
    [
        (np.ones((2, 3)), ["Intercept"], {}, "square"),
        ([[np.nan, 0], [0, 1]], ["Intercept"], {}, "missing or infinite"),
        (np.eye(3), np.ones((2, 1)), {}, "one row for each measurement"),
        (np.eye(3), ["Intercept", "time"], {}, "times=[0, 1, ...]"),
        (np.eye(3), ["Intercept", "time"], {"times": [1, 2]}, "2 times for a V of 3"),
        (np.eye(3), ["dose"], {"times": [1, 2, 3]}, "cannot be evaluated"),
        (np.eye(3), LINE[:3], {"times": [1, 2, 3]}, "leave times out"),
        (np.eye(3), ["Intercept"], {"tolerance": 0}, "small positive number"),
        (np.eye(3), "time~", {"times": [1, 2, 3]}, "cannot be evaluated"),
        ("text", ["Intercept"], {}, "numbers"),
    ],
)
def test_what_is_hierarchical_refuses(V, Z, options, words):
    with pytest.raises(hl.HierlmmError) as caught:
        hl.is_hierarchical(V, Z, **options)
    assert words in str(caught.value)


def test_asymmetric_matrices_are_no_covariances():
    check = hl.is_hierarchical([[1, 0.2], [0.3, 1]], [[1], [1]])
    assert not check
    assert "not symmetric" in check.reasons[0]


def test_distance_counts_what_is_not_symmetric():
    V = np.triu(np.ones((3, 3)))
    check = hl.is_hierarchical(V, ["Intercept"])
    basis = np.array([np.ones((3, 3)).ravel(), np.eye(3).ravel()]).T
    closest = basis @ np.linalg.lstsq(basis, V.ravel(), rcond=None)[0]
    assert check.distance == pytest.approx(np.linalg.norm(V.ravel() - closest), rel=1e-12)
    np.testing.assert_allclose(check.outside.to_numpy().ravel(), V.ravel() - closest, atol=1e-14)


def test_zeros_print_as_zeros():
    for V in (np.eye(4), 2.7 * np.eye(3), exchangeable(5, 0.3), np.ones((3, 3))):
        for Z in (["Intercept"], np.column_stack([np.ones(len(V)), np.arange(len(V))])):
            text = repr(hl.is_hierarchical(V, Z))
            assert "e-1" not in text
            assert "-0" not in text.replace("e-0", "")
