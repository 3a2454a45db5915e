"""Simulated data: the moments of the stated model, determinism, designs, and what is refused."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from hierlmm.datasets import simulate
from hierlmm.datasets.simulate import _root
from hierlmm.errors import SpecificationError

BETA = {"Intercept": 21.2, "sex[T.Male]": 1.4, "time": 0.48, "sex[T.Male]:time": 0.30}
D = np.array([[3.2, -0.2], [-0.2, 0.09]])
SIGMA = 1.3
TIMES = [0, 2, 4, 6]


def draw(**changes):
    arguments = {
        "beta": BETA,
        "D": D,
        "sigma": SIGMA,
        "random": ["Intercept", "time"],
        "n_subjects": 30,
        "times": TIMES,
        "level2": {"sex": ["Female", "Male"]},
        "response": "distance",
        "seed": 1,
    }
    return simulate(**(arguments | changes))


def z_of_covariance(sample, expected):
    """Return (S - V) / se(S) for Gaussian rows: Var(S_ij) = (V_ii V_jj + V_ij²) / (n - 1)."""
    n = len(sample)
    variances = np.diag(expected)
    se = np.sqrt((np.outer(variances, variances) + expected**2) / (n - 1))
    return (np.cov(sample, rowvar=False) - expected) / se


# --- The model that was stated ----------------------------------------------------------------------------------------


def test_the_moments_are_those_of_the_model():
    data = draw(n_subjects=40_000)
    x = np.column_stack([np.ones(4), TIMES])
    v = x @ D @ x.T + SIGMA**2 * np.eye(4)
    for sex, line in {"Female": [21.2, 0.48], "Male": [22.6, 0.78]}.items():
        y = data.loc[data["sex"] == sex, "distance"].to_numpy().reshape(-1, 4)
        assert len(y) == 20_000
        z_mean = (y.mean(axis=0) - x @ line) / np.sqrt(np.diag(v) / len(y))
        assert np.abs(z_mean).max() < 4
        assert np.abs(z_of_covariance(y, v)).max() < 4
        # The check has power: a residual variance 20 per cent off would be seen.
        assert np.abs(z_of_covariance(y, v + 0.2 * SIGMA**2 * np.eye(4))).max() > 4


def test_the_truth_makes_the_data():
    data, truth = draw(n_subjects=5000, return_truth=True)
    assert np.abs(z_of_covariance(truth.b.to_numpy(), D)).max() < 4
    male = (data.drop_duplicates("subject")["sex"] == "Male").to_numpy()
    np.testing.assert_allclose(truth.subject_coef["Intercept"], 21.2 + 1.4 * male + truth.b["Intercept"])
    np.testing.assert_allclose(truth.subject_coef["time"], 0.48 + 0.30 * male + truth.b["time"])
    own = truth.subject_coef.loc[data["subject"]]
    np.testing.assert_allclose(truth.mu, own["Intercept"].to_numpy() + own["time"].to_numpy() * data["time"])
    residual = (data["distance"] - truth.mu) / SIGMA
    n = len(residual)
    assert abs(residual.mean()) < 4 / np.sqrt(n)
    assert abs(residual.var() - 1) < 4 * np.sqrt(2 / n)
    assert truth.b.index.name == "subject"
    assert truth.beta.to_dict() == BETA
    assert truth.sigma == SIGMA
    assert "5000 subjects" in repr(truth)
    with pytest.raises(AttributeError):
        truth.sigma = 1.0


def test_columns_and_reference_level():
    data = draw()
    assert list(data.columns) == ["subject", "sex", "time", "distance"]
    assert data.shape == (120, 4)
    assert data["sex"].cat.categories.tolist() == ["Female", "Male"]
    assert data.drop_duplicates("subject")["sex"].value_counts().to_dict() == {"Female": 15, "Male": 15}
    assert data.groupby("subject")["time"].apply(list).map(lambda t: t == TIMES).all()
    assert data["subject"].unique().tolist() == list(range(1, 31))


def test_the_same_seed_gives_the_same_data():
    pd.testing.assert_frame_equal(draw(seed=7), draw(seed=7))
    assert not draw(seed=7)["distance"].equals(draw(seed=8)["distance"])
    assert not draw(seed=None)["distance"].equals(draw(seed=None)["distance"])
    pd.testing.assert_frame_equal(draw(seed=np.random.default_rng(7)), draw(seed=7))
    generator = np.random.default_rng(7)
    assert not draw(seed=generator)["distance"].equals(draw(seed=generator)["distance"])


def test_the_streams_are_separate():
    """Changing one ingredient leaves the draws of the others alone."""
    complete, truth = draw(return_truth=True)
    seen = draw(dropout=0.4)
    merged = seen.merge(complete, on=["subject", "sex", "time"], suffixes=("", "_complete"))
    assert len(merged) == len(seen) < len(complete)
    assert (merged["distance"] == merged["distance_complete"]).all()
    _, more = draw(n_subjects=60, return_truth=True)
    np.testing.assert_array_equal(more.b.iloc[:30], truth.b)
    _, with_age = draw(level2={"sex": ["Female", "Male"], "age": ("normal", 40, 10)}, return_truth=True)
    np.testing.assert_array_equal(with_age.b, truth.b)


def test_singular_covariances_are_allowed():
    _, truth = draw(D=[[4, 2], [2, 1]], return_truth=True)
    np.testing.assert_allclose(truth.b["Intercept"], 2 * truth.b["time"])
    _, truth = draw(D=[[0, 0], [0, 1]], return_truth=True)
    assert (truth.b["Intercept"] == 0).all()
    assert truth.b["time"].std() > 0
    _, truth = draw(D=np.zeros((2, 2)), return_truth=True)
    assert (truth.b == 0).all(axis=None)


@pytest.mark.parametrize("unit", [1e-12, 1.0, 1e12])
def test_the_root_of_a_covariance_in_any_unit(unit):
    """L L' = D: with correlations of 0.9999999, and of rank one with exact zeros where nothing is left."""
    rng = np.random.default_rng(1)
    half = np.tril(rng.normal(size=(4, 4)))
    near = np.array([[1.0, 1.0 - 1e-7], [1.0 - 1e-7, 1.0]])
    for D in (half @ half.T, near, np.diag([1.0, 1e-20, 4.0])):
        root = _root(unit * D)
        np.testing.assert_allclose(root @ root.T, unit * D, rtol=1e-9, atol=1e-13 * unit * D.max() * (D[0, 1] != 0))
    assert np.linalg.matrix_rank(_root(unit * near)) == 2
    for v in rng.normal(size=(20, 4)):  # rounding leaves pivots of ±1e-17
        np.testing.assert_allclose(_root(unit * np.outer(v, v))[:, 0], np.sqrt(unit) * v * np.sign(v[0]), rtol=1e-12)
        np.testing.assert_array_equal(_root(unit * np.outer(v, v))[:, 1:], 0.0)


def test_the_default_random_effects():
    _, one = simulate(beta={"Intercept": 1}, D=2.0, sigma=1, seed=1, return_truth=True)
    assert one.b.columns.tolist() == ["Intercept"]
    _, two = simulate(beta={"Intercept": 1}, D=D, sigma=1, time="week", seed=1, return_truth=True)
    assert two.b.columns.tolist() == ["Intercept", "week"]
    assert two.subject_coef.columns.tolist() == ["Intercept", "week"]  # a slope that is zero on average


def test_a_labelled_covariance_is_matched_by_name():
    names = ["time", "Intercept"]
    labelled = pd.DataFrame(D[::-1, ::-1], index=names, columns=names)
    pd.testing.assert_frame_equal(draw(D=labelled), draw())
    _, truth = draw(D=labelled, random=None, beta=pd.Series(BETA), return_truth=True)
    assert truth.b.columns.tolist() == names
    with pytest.raises(SpecificationError, match="Its names must be the random effects"):
        draw(D=labelled.rename(index={"time": "age"}, columns={"time": "age"}))


# --- Covariates -------------------------------------------------------------------------------------------------------


def test_level_2_covariates_of_every_kind():
    data, truth = simulate(
        beta={"Intercept": 1, "age": 0.5, "dose": 2, "arm[T.b]:site[T.y]": 3, "visits:time": 0.1},
        D=1,
        sigma=1,
        n_subjects=600,
        level2={
            "age": ("normal", 50, 10),
            "u": ("uniform", -1, 1),
            "dose": [0, 10],
            "arm": ["a", "b"],
            "site": ["x", "y", "z"],
            "visits": lambda rng, n: rng.poisson(3, n),
            "blood": lambda rng, n: rng.choice(["A", "0"], n),
        },
        seed=3,
        return_truth=True,
    )
    people = data.drop_duplicates("subject").set_index("subject")
    assert abs(people["age"].mean() - 50) < 4 * 10 / np.sqrt(600)
    assert abs(people["age"].std() / 10 - 1) < 4 / np.sqrt(2 * 600)
    assert people["u"].between(-1, 1).all()
    assert people["u"].std() == pytest.approx(1 / np.sqrt(3), rel=0.1)
    assert pd.crosstab([people["dose"], people["arm"]], people["site"]).eq(50).all(axis=None)  # crossed and balanced
    assert people["blood"].cat.categories.tolist() == ["0", "A"]
    both = (people["arm"] == "b") & (people["site"] == "y")
    expected = 1 + 0.5 * people["age"] + 2 * people["dose"] + 3 * both + truth.b["Intercept"]
    np.testing.assert_allclose(truth.subject_coef["Intercept"], expected)
    np.testing.assert_allclose(truth.subject_coef["time"], 0.1 * people["visits"])


def test_level_1_covariates_and_powers():
    data, truth = simulate(
        beta={"Intercept": 2, "time": 1, "I(time ** 2)": -0.5, "x": 3, "cond[T.on]": 4, "x:time": 0.2},
        D=np.diag([1.0, 0.5]),
        random=["Intercept", "x"],
        sigma=0.5,
        times=range(6),
        level1={"x": ("normal", 0, 1), "cond": ["off", "on"]},
        seed=4,
        return_truth=True,
    )
    assert list(data.columns) == ["subject", "time", "x", "cond", "y"]
    assert pd.crosstab(data["subject"], data["cond"]).eq(3).all(axis=None)
    b = truth.b.loc[data["subject"]].to_numpy()
    t, x, on = data["time"], data["x"], data["cond"] == "on"
    mu = 2 + t - 0.5 * t**2 + 3 * x + 4 * on + 0.2 * x * t + b[:, 0] + b[:, 1] * x
    np.testing.assert_allclose(truth.mu, mu)


def test_too_few_subjects_to_cross_everything_still_uses_every_level():
    letters = list("abcd")
    data = simulate(beta={"Intercept": 0}, D=1, sigma=1, n_subjects=5, level2={"f": letters, "g": letters}, seed=1)
    assert data["f"].nunique() == data["g"].nunique() == 4


# --- Times and dropout ------------------------------------------------------------------------------------------------


def test_irregular_times():
    data = draw(irregular=True, n_times=(2, 7), n_subjects=400)
    counts = data.groupby("subject").size()
    assert sorted(counts.unique()) == [2, 3, 4, 5, 6, 7]
    expected = 400 / 6
    assert (abs(counts.value_counts() - expected) < 4.5 * np.sqrt(expected)).all()
    assert data["time"].between(0, 6).all()
    assert data["time"].is_unique
    assert data.groupby("subject")["time"].apply(lambda t: t.is_monotonic_increasing).all()
    assert data["time"].mean() == pytest.approx(3, abs=4 * np.sqrt(3 / len(data)))
    assert draw(irregular=True).groupby("subject").size().eq(4).all()


def test_a_random_selection_of_the_occasions():
    data = draw(n_times=2, n_subjects=3000)
    assert data.groupby("subject").size().eq(2).all()
    assert set(data["time"]) == set(TIMES)
    # Each occasion is chosen with probability 1/2.
    assert (abs(data["time"].value_counts() - 1500) < 4 * np.sqrt(3000 / 4)).all()
    assert data.groupby("subject")["time"].apply(lambda t: t.is_monotonic_increasing).all()


def test_dropout_is_monotone_with_the_stated_probability():
    n, p = 4000, 0.25
    data = draw(n_subjects=n, dropout=p)
    counts = data.groupby("subject").size()
    assert len(counts) == n  # everybody keeps the first row
    for k, time in enumerate(TIMES):
        stay = (1 - p) ** k
        seen = (data["time"] == time).sum()
        assert abs(seen - n * stay) <= 4 * np.sqrt(n * stay * (1 - stay))
    # Monotone: a subject with k rows has the first k occasions.
    assert (data.groupby("subject")["time"].max() == counts.map(lambda k: TIMES[k - 1])).all()
    _, truth = draw(n_subjects=n, dropout=p, return_truth=True)
    assert len(truth.mu) == len(data)
    assert truth.mu.index.equals(data.index)


# --- What is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"D": [[1, 0.5], [0.2, 1]]}, "not symmetric"),
        ({"D": [[1, 2], [2, 1]]}, "not positive semi-definite"),
        ({"D": [[-1, 0], [0, 1]]}, "not positive semi-definite"),
        ({"D": [[1e6, 0], [0, -1e-5]]}, "not positive semi-definite"),  # small beside the other variance, still wrong
        ({"D": [[0, 0.1], [0.1, 1]]}, "not positive semi-definite"),
        ({"D": [[1]]}, "shape (2, 2)"),
        ({"D": np.eye(3), "random": None}, "Name them in random"),
        ({"D": [[np.nan, 0], [0, 1]]}, "not finite"),
        ({"D": "big"}, "not a matrix"),
        ({"random": ["time", "time"]}, "named twice"),
        ({"random": ["Intercept", "sex[T.Male]"]}, "does not vary within a subject"),
        ({"random": ["Intercept", "tme"]}, "Did you mean 'time'?"),
        ({"sigma": 0}, "must be positive"),
        ({"sigma": -1}, "must be positive"),
        ({"sigma": float("nan")}, "not a finite number"),
        ({"dropout": 1}, "[0, 1)"),
        ({"dropout": -0.1}, "[0, 1)"),
        ({"beta": {"sx[T.Male]": 1}}, "'sx[T.Male]' is neither"),
        ({"beta": {"tiem": 1}}, "Did you mean 'time'?"),
        ({"beta": {"sex": 1}}, "sex[T.Male]"),
        ({"beta": {"sex[T.Female]": 1}}, "is the reference level"),
        ({"beta": {"sex[T.male]": 1}}, "is not one of its levels"),
        ({"beta": {"time[T.2]": 1}}, "numeric and has no levels"),
        ({"beta": {"time": "fast"}}, "not a finite number"),
        ({"beta": [1, 2]}, "Coefficients need names"),
        ({"n_subjects": 0}, "at least 1"),
        ({"n_subjects": 2.5}, "whole number"),
        ({"times": []}, "at least one"),
        ({"times": [0, 0, 1]}, "different finite numbers"),
        ({"n_times": 5}, "Only 4 occasions"),
        ({"n_times": (3, 2)}, "exceeds"),
        ({"n_times": (1, 2, 3)}, "neither a number nor a pair"),
        ({"times": [3], "irregular": True}, "at least two values"),
        ({"level2": {"sex": []}}, "describes no covariate"),
        ({"level2": {"sex": "Male"}}, "describes no covariate"),
        ({"level2": {"sex": ["Male", 1]}}, "describes no covariate"),
        ({"level2": {"sex": ["Male", "Male"]}}, "describes no covariate"),
        ({"level2": {"sex": ("gamma", 1, 2)}}, "('normal', mean, sd)"),
        ({"level2": {"sex": ("normal", 1, -2)}}, "sd >= 0"),
        ({"level2": {"sex": lambda rng, n: np.zeros(n + 1)}}, "values are needed"),
        ({"level2": {"sex": lambda rng, n: np.full(n, np.nan)}}, "not finite"),
        ({"level2": {"sex": list("abcdef")}, "n_subjects": 4}, "no subject"),
        ({"response": "time"}, "stand for two columns"),
        ({"level2": {"a:b": [0, 1]}}, "cannot name a column"),
    ],
)
def test_what_cannot_be_simulated(changes, message):
    with pytest.raises(SpecificationError, match=re.escape(message)) as caught:
        draw(**changes)
    assert all([caught.value.received, caught.value.reason, caught.value.remedy, caught.value.see])
