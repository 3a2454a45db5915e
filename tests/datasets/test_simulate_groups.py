"""Simulated data with D and sigma by group: what each group has, and that a fit finds it."""

from __future__ import annotations

import numpy as np
import pytest

import hierlmm as hl

D = {"Female": [[4.0, 0.3], [0.3, 0.2]], "Male": [[1.0, -0.2], [-0.2, 0.5]]}
SIGMA = {"Male": 2.0, "Female": 0.5}
OPTIONS = {
    "beta": {"Intercept": 5.0, "time": 1.0},
    "D": D,
    "sigma": SIGMA,
    "group": "sex",
    "residual_group": "sex",
    "level2": {"sex": ["Female", "Male"]},
    "random": ["Intercept", "time"],
    "seed": 3,
}


def test_every_group_has_the_covariance_of_its_rows():
    data, truth = hl.simulate(**OPTIONS, n_subjects=20_000, return_truth=True)
    x = np.column_stack([np.ones(4), np.arange(4.0)])
    for sex in D:
        y = data.loc[data["sex"] == sex, "y"].to_numpy().reshape(-1, 4)
        V = x @ np.array(D[sex]) @ x.T + SIGMA[sex] ** 2 * np.eye(4)
        se = np.sqrt((np.outer(np.diag(V), np.diag(V)) + V**2) / len(y))
        assert np.abs((np.cov(y.T) - V) / se).max() < 4.5
    assert truth.D.loc["Intercept[Male]", "time[Male]"] == -0.2 and truth.D.loc["time[Male]", "time[Female]"] == 0.0
    assert truth.dispersion == {"sigma[Male]": 2.0, "sigma[Female]": 0.5} and "sigma[Male]" in repr(truth)
    assert list(truth.b.columns) == ["Intercept", "time"]


def test_a_fit_with_these_groups_finds_them():
    data, truth = hl.simulate(**OPTIONS, n_subjects=400, return_truth=True)
    model = hl.TwoLevelModel.from_formula("y ~ time + (time | subject)", data, group="sex", residual_group="sex")
    fit = model.fit_reml()
    assert list(fit.D.index) == list(truth.D.index)
    table = fit.variance_components()
    expected = {f"sigma[{level}]": sigma for level, sigma in SIGMA.items()}
    expected |= {f"sd({name})": np.sqrt(truth.D.loc[name, name]) for name in truth.D.index}
    for label, value in expected.items():
        assert abs(table.loc[label, "estimate"] - value) < 4 * table.loc[label, "se"], label


def test_one_value_for_all_levels_draws_what_it_draws_without_groups():
    one = OPTIONS | {"D": D["Male"], "sigma": 1.5}
    plain = one | {"group": None, "residual_group": None}
    assert hl.simulate(**one).equals(hl.simulate(**plain))
    same = one | {"D": dict.fromkeys(D, D["Male"]), "sigma": dict.fromkeys(D, 1.5)}
    np.testing.assert_allclose(hl.simulate(**same)["y"], hl.simulate(**plain)["y"], rtol=1e-12)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"group": None}, r"D as a mapping of Female, Male[\s\S]*group='sex'"),
        ({"residual_group": None}, r"sigma as a mapping of Male, Female[\s\S]*residual_group='sex'"),
        ({"group": "site"}, "names no level-2 covariate with labels"),
        ({"D": {"Female": D["Female"]}}, "they are Female, Male"),
        ({"sigma": {"Female": 1.0, "male": 2.0}}, "they are Female, Male"),
        ({"sigma": {"Female": 1.0, "Male": -2.0}}, "must be positive"),
        ({"D": {"Female": [[1.0]], "Male": D["Male"]}}, "have a covariance matrix of shape"),
        ({"family": "student_t", "dispersion": {"nu": 5.0}}, "Only a Gaussian response has it"),
    ],
)
def test_what_does_not_fit_together(changes, words):
    with pytest.raises(hl.SpecificationError, match=words) as caught:
        hl.simulate(**OPTIONS | changes)
    assert caught.value.remedy and caught.value.see


def test_a_design_is_planned_with_different_hierarchies():
    found = hl.design_analysis(
        "y ~ time + (1 | gr(subject, by = sex))", beta={"Intercept": 5.0, "time": 1.0}, D={"a": 1.0, "b": 9.0},
        sigma=1.0, times=[0, 1, 2], level2={"sex": ["a", "b"]}, n_subjects=24, simulations=10, estimator="reml", seed=1,
        progressbar=False,
    )  # fmt: skip
    assert "time" in str(found)
