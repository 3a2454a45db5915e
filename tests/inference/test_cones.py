"""Several new variances with covariances: known probabilities of random matrices, information by definition, bounds."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2

import hierlmm as hl
from hierlmm.inference.anova import ratio_test
from hierlmm.inference.chibar import matrix_weights
from hierlmm.inference.cones import cone_draws, entries
from hierlmm.inference.maximum import maximise, maximum_of
from hierlmm.inference.simpler import with_blocks


def of_weights(weights, x):
    return sum(w * chi2.sf(x, j) for j, w in enumerate(weights) if j)


def close(share, expected, n):
    return share == pytest.approx(expected, abs=4.0 * np.sqrt(expected * (1.0 - expected) / n))


ROOT = np.sqrt(2.0) / (4.0 * np.pi)
KNOWN = {
    2: (0.5 - np.sqrt(0.125), np.sqrt(0.125), np.sqrt(0.125), 0.5 - np.sqrt(0.125)),
    3: (0.25 - 2 * ROOT, ROOT, 2 * ROOT, 0.5 - 2 * ROOT, 2 * ROOT, ROOT, 0.25 - 2 * ROOT),
}
"""Intrinsic volumes of the positive semi-definite matrices of k rows (Amelunxen & Bürgisser 2015); the first is the
probability that a matrix of the Gaussian orthogonal ensemble is negative definite."""


@pytest.mark.parametrize("k", KNOWN)
def test_independent_entries_have_the_known_weights(k):
    """Seen through another basis of the random effects, badly scaled."""
    A = np.random.default_rng(2).normal(size=(k, k)) * 10.0 ** np.arange(k)
    i, j = np.array(entries(k)).T
    unit = np.zeros((len(i), k, k))
    unit[np.arange(len(i)), i, j] = unit[np.arange(len(i)), j, i] = 1.0
    draws = cone_draws(0.5 * np.einsum("aij,jk,bkl,li->ab", unit, A @ A.T, unit, A @ A.T), [k], seed=1)
    for x in (0.1, 1.0, 3.0, 6.0):
        assert close(np.mean(draws > x), of_weights(KNOWN[k], x), len(draws))


def test_simulation_and_weights_agree_and_parts_add_up():
    rng = np.random.default_rng(8)
    A, B = rng.normal(size=(3, 3)), rng.normal(size=(3, 3))
    information = A @ A.T + 0.3 * np.eye(3), B @ B.T + 0.3 * np.eye(3)
    weights = [matrix_weights(own) for own in information]
    draws = cone_draws(information[0], [2])
    both = cone_draws(np.block([[information[0], np.zeros((3, 3))], [np.zeros((3, 3)), information[1]]]), [2, 2])
    one = cone_draws(np.block([[information[0], np.zeros((3, 1))], [np.zeros((1, 3)), np.eye(1)]]), [2, 1])
    for x in (1.0, 3.0, 6.0):
        assert close(np.mean(draws > x), of_weights(weights[0], x), len(draws))
        assert close(np.mean(both > x), of_weights(np.convolve(*weights), x), len(draws))
        assert close(np.mean(one > x), of_weights(np.convolve(weights[0], (0.5, 0.5)), x), len(draws))
        # Even and odd weights add up to one half each: the largest p is that of the two largest degrees of freedom.
        assert np.mean(both > x) < 0.5 * chi2.sf(x, 5) + 0.5 * chi2.sf(x, 6)


@pytest.fixture(scope="module")
def conditions():
    """60 subjects, each three times under two and three conditions, and counts."""
    rng = np.random.default_rng(1)
    n, rows = 60, 6
    data = pd.DataFrame({"g": np.repeat(np.arange(n), rows), "two": np.tile(list("aaabbb"), n)})
    data["three"] = np.tile(list("aabbcc"), n)
    b = rng.normal(size=(n, 3)) * 0.4
    own = b[data["g"], data["three"].map({"a": 0, "b": 1, "c": 2})]
    data["y"] = rng.normal(size=len(data)) + own
    data["count"] = rng.poisson(np.exp(1.0 + 0.3 * own))
    return data


def test_information_on_a_new_matrix_is_that_of_its_entries(conditions):
    """V = σ²I + ZDZ' at D = 0: ½ tr(V⁻¹AV⁻¹B) for the entries of D and σ², and of these what σ² leaves."""
    model = hl.TwoLevelModel.from_formula("y ~ 0 + two + (0 + two | g)", conditions)
    fit = model.fit_reml()
    small = maximise(with_blocks(fit.design, [], "none"), reml=True)
    Z = fit.design.Z[fit.design.subject_index == 0]
    D = [np.diag([1.0, 0.0]), np.diag([0.0, 1.0]), np.array([[0.0, 1.0], [1.0, 0.0]])]
    ways = [Z @ d @ Z.T for d in D] + [np.eye(6)]
    whole = np.array([[0.5 * np.trace(a @ b) for b in ways] for a in ways])
    left = whole[:3, :3] - np.outer(whole[:3, 3], whole[:3, 3]) / whole[3, 3]
    found = ratio_test(small, maximum_of(fit)).mixture
    assert found.weights == pytest.approx(matrix_weights(left, seed=5), abs=0.008)


def test_three_random_effects_with_covariances(conditions):
    fit = hl.TwoLevelModel.from_formula("y ~ 0 + three + (0 + three | g)", conditions).fit_reml()
    found = fit.test_random_effects()
    row = found.table.loc["three"]
    assert row["method"] == "χ²(0) to χ²(6), simulated"
    assert 0.0 < row["mcse"] < 0.005
    assert row["p"] < 0.5 * chi2.sf(row["chisq"], 5) + 0.5 * chi2.sf(row["chisq"], 6) < row["p_naive"]
    assert "no closed form" in repr(found)
    boot = fit.test_random_effects("bootstrap", n=200, progressbar=False).table.loc["three"]
    assert boot["p"] == pytest.approx(row["p"], abs=4.0 * boot["mcse"] + 1 / 200)


def test_families_have_a_bound_where_no_data_can_be_drawn(conditions):
    fit = hl.TwoLevelModel.from_formula("count ~ 0 + two + (0 + two | g)", conditions, family="poisson").fit_ml()
    found = fit.test_random_effects()
    row = found.table.loc["two"]
    assert row["p"] == pytest.approx(0.5 * chi2.sf(row["chisq"], 2) + 0.5 * chi2.sf(row["chisq"], 3))
    assert row["p"] == fit.test_random_effects("mixture").table.loc["two", "p"] < row["p_naive"]
    assert "conservative" in repr(found) and "bound" in row["method"]
    with pytest.raises(hl.NotAvailableError, match="test='mixture'"):
        fit.test_random_effects("bootstrap")


def test_units_of_the_columns_do_not_matter(conditions):
    """Two effects whose columns are in units a million apart have the mixture of the same model in one unit."""
    found = []
    for unit in (1.0, 1e6):
        data = conditions.assign(x=np.tile(np.arange(6.0), 60) * unit, z=np.tile([0.0, 1.0, 0.0, 2.0, 1.0, 0.0], 60))
        fit = hl.TwoLevelModel.from_formula("y ~ 0 + x + z + two + (0 + x + z | g)", data).fit_reml()
        small = maximise(with_blocks(fit.design, [], "none"), reml=True)
        found.append(ratio_test(small, maximum_of(fit)).mixture)
    assert found[0].weights == pytest.approx(found[1].weights, abs=1e-3)
    assert found[1].kind == "mixture"


def test_names_of_subjects_do_not_decide_the_weights_of_many():
    """Half of 900 subjects have two rows: their share of those looked at is that of all."""
    rng = np.random.default_rng(2)
    times = [[0.0, 0.1], [-3.0, -1.0, 1.0, 3.0]]
    rows = [(i, t) for i in range(900) for t in times[int(i >= 450)]]
    frame = pd.DataFrame(rows, columns=["s", "t"])
    frame["y"] = 0.3 * frame["t"] + rng.normal(size=len(frame))
    mixtures = []
    for names in (frame["s"], (frame["s"] + 450) % 900):
        data = frame.assign(s=names)
        flat = hl.MarginalModel("y ~ t", subject="s", data=data).fit_reml()
        lines = hl.TwoLevelModel.from_formula("y ~ t + (t || s)", data).fit_reml()
        mixtures.append(hl.anova(flat, lines).tests[0].mixture.weights)
    np.testing.assert_allclose(mixtures[0], mixtures[1], rtol=1e-10)
