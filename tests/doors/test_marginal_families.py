"""Marginal models of other families: the GEE of a two-level model's fixed part, stated without a hierarchy."""

import numpy as np
import pandas as pd
import pytest

import hierlmm as hl


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(4)
    g = np.repeat(np.arange(50), 4)
    b = 0.7 * rng.normal(size=50)[g]
    data = pd.DataFrame({"g": g, "t": np.tile(np.arange(4.0), 50), "arm": np.where(g % 2, "b", "a")})
    data["n"], data["years"] = rng.integers(2, 7, 200), rng.uniform(0.5, 2.0, 200)
    data["events"] = rng.poisson(data["years"] * np.exp(0.3 + 0.1 * data["t"] + b))
    data["wins"] = rng.binomial(data["n"], 1 / (1 + np.exp(-b)))
    return data


CASES = {
    "counts": (
        "events ~ t * arm",
        {"family": "poisson", "exposure": "years"},
        hl.CompoundSymmetry(),
        "exchangeable",
        None,
    ),
    "successes": ("p(wins, n) ~ t", {"family": "binomial"}, hl.CAR1("t"), "ar1", "t"),
    "trials": ("wins ~ t", {"family": "binomial", "trials": "n"}, hl.Unstructured("t"), "unstructured", "t"),
    "rows": ("events ~ arm", {"family": "negative_binomial"}, None, "independence", None),
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_the_gee_of_the_fixed_part(rows, case):
    formula, options, correlation, working, time = CASES[case]
    model = hl.MarginalModel(formula, subject="g", data=rows, correlation=correlation, **options)
    fit = model.fit_gee()
    mixed = hl.TwoLevelModel.from_formula(f"{formula} + (1 | g)", rows, **options)
    other = mixed.fit_gee(working, time=time)
    assert fit.correlation == working
    pd.testing.assert_series_equal(fit.beta, other.beta)
    pd.testing.assert_frame_equal(fit.covariance(), other.covariance())
    assert "dropped by GEE" not in str(fit)
    assert not model.design.term and model.design.family == mixed.design.family


def test_it_prints_a_mean_and_a_variance_and_no_distribution(rows):
    model = hl.MarginalModel("p(wins, n) ~ t", subject="g", data=rows, family="binomial", correlation=hl.CAR1("t"))
    text = str(model)
    for words in (
        "logit μᵢⱼ = β₀ + β₁·tᵢⱼ",
        "Var(winsᵢⱼ) = scale·nᵢⱼ·μᵢⱼ(1 − μᵢⱼ)",
        "Corr(winsᵢⱼ, winsᵢₖ)",
        "No distribution is assumed",
        "Fit with .fit_gee()",
        "2 (1 in the residual correlation, and a scale)",
    ):
        assert words in text
    assert "~ N(" not in text
    assert r"\mathrm{logit}\, \mu_{ij}" in model.equations().latex


@pytest.mark.parametrize(
    ("family", "words"),
    [
        ("poisson", "scale·μᵢⱼ\n"),
        ("negative_binomial", "scale·(μᵢⱼ + μᵢⱼ² / shape)"),
        ("bernoulli", "scale·μᵢⱼ(1 − μᵢⱼ)"),
        ("gamma", "scale·μᵢⱼ²"),
        ("beta", "scale·μᵢⱼ(1 − μᵢⱼ)"),
    ],
)
def test_the_variance_is_that_of_the_family(rows, family, words):
    rng = np.random.default_rng(1)
    y = {"gamma": rng.gamma(2.0, 1.0, 200), "beta": rng.beta(2.0, 2.0, 200), "bernoulli": rng.integers(0, 2, 200)}
    data = rows.assign(y=y.get(family, rows["events"]))
    assert words in str(hl.MarginalModel("y ~ t", subject="g", data=data, family=family))


def test_beside_a_hierarchy_it_stands_with_the_marginal_coefficients(rows):
    """Its coefficients were put among those given the random effects, and said to mean the same."""
    marginal = hl.MarginalModel("events ~ t", subject="g", data=rows, family="poisson").fit_gee()
    mixed = hl.TwoLevelModel.from_formula("events ~ t + (1 | g)", rows, family="poisson").fit_ml()
    for fits in ((mixed, marginal), (marginal, mixed)):
        table = hl.compare(*fits).table
        kinds = table.groupby("estimator")["kind"].unique().map(set)
        assert kinds["GEE"] == {"marginal"}
        assert kinds["ML"] >= {"fixed", "marginal"}
        text = " ".join(str(hl.compare(*fits)).split())
        assert "mean the same in both" not in text
        assert "within a block, never across" in text
