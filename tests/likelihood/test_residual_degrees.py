"""Kenward and Roger's method with residual structures: against N × N matrices in the parameters that SAS names."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from textbook import deviance, generalised_least_squares

import hierlmm as hl


@dataclass(frozen=True)
class Linear(hl.ResidualCorrelation):
    """A user's structure: correlations that fall by a straight line, ``1 - slope |s - t|``."""

    time: str = "time"

    def parameters(self, observed):
        return (hl.Parameter("slope", 0.05, 0.0, 0.15),)

    def matrix(self, t, values):
        return 1.0 - values[0] * np.abs(t[..., :, None] - t[..., None, :])


def lag(data):
    time = data["time"].to_numpy()
    return np.abs(time[:, None] - time[None, :]) / 2.0


def sd(data, male, female):
    return np.where(data["sex"] == "Male", male, female)


# V in SAS's parameters ω, as a matrix for all rows of which those of one subject count; ω from the fit.
def intercept_and_ar1(data, w):
    return w[0] + w[1] * w[2] ** lag(data)


def nugget(data, w):
    return w[0] * np.exp(-2.0 * lag(data) / w[1]) + w[2] * (lag(data) == 0)


def ar1_by_sex(data, w):
    s = sd(data, np.sqrt(w[1]), np.sqrt(w[0]))
    return s[:, None] * s * w[2] ** lag(data)


def power_of_age(data, w):
    s = (data["age"].to_numpy() / np.exp(np.log(data["age"]).mean())) ** w[1]  # w[0] of the average row
    return w[0] * s[:, None] * s * np.where(lag(data) == 0, 1.0, w[2])


def straight(data, w):
    """Linear, if in the slope of the covariance and not in that of the correlation: R is zero."""
    return w[0] - 2.0 * w[1] * lag(data)


def gaussian(data, w):
    return w[0] * np.exp(-((2.0 * lag(data) / w[1]) ** 2))


def heterogeneous_toeplitz(data, w):
    """Four variances by visit, three correlations by lag."""
    s = np.sqrt(np.asarray(w[:4]))[(data["time"].to_numpy() / 2).astype(int)]
    return s[:, None] * s * np.array([1.0, *w[4:]])[lag(data).astype(int)]


def by_weight(data, covariance):
    s = 1.0 / np.sqrt(data["w"].to_numpy())
    return s[:, None] * s * covariance


def ar1_and_weights(data, w):
    return by_weight(data, w[0] * w[1] ** lag(data))


def slope_ar1_and_weights(data, w):
    t = data["time"].to_numpy()
    D = w[0] + w[1] * (t[:, None] + t) + w[2] * t[:, None] * t
    return D + by_weight(data, w[3] * w[4] ** lag(data))


def residual(fit, *names):
    found = fit.residual_estimate.parameters
    return [found[name] for name in names]


CASES = {
    "intercept and AR1": (
        {"random": ["Intercept"], "residual": hl.AR1("occasion")},
        intercept_and_ar1,
        lambda fit: [fit.D.iloc[0, 0], fit.sigma**2, *residual(fit, "rho")],
    ),
    "exponential with nugget": (
        {"correlation": hl.Exponential("time", nugget=True)},
        nugget,
        lambda fit: [
            fit.sigma**2 * (1.0 - residual(fit, "nugget")[0]),
            *residual(fit, "range"),
            fit.sigma**2 * residual(fit, "nugget")[0],
        ],
    ),
    "AR1 with variances by sex": (
        {"correlation": hl.AR1("occasion"), "variance": hl.VarIdent("sex")},
        ar1_by_sex,
        lambda fit: [fit.sigma**2, fit.sigma**2 * residual(fit, "ratio(Male/Female)")[0] ** 2, *residual(fit, "rho")],
    ),
    "equal correlations and a power of age": (
        {"correlation": hl.CompoundSymmetry(), "variance": hl.VarPower("age")},
        power_of_age,
        lambda fit: [fit.solution.whitened_sd**2, *residual(fit, "power", "rho")],
    ),
    "a user's own": (
        {"correlation": Linear()},
        straight,
        lambda fit: [fit.sigma**2, fit.sigma**2 * residual(fit, "slope")[0]],
    ),
    "heterogeneous Toeplitz": (
        {"correlation": hl.Toeplitz("occasion"), "variance": hl.VarIdent("age")},
        heterogeneous_toeplitz,
        lambda fit: [
            fit.sigma**2,
            *(fit.sigma**2 * np.square(list(fit.residual_estimate.variance_parameters.values()))),
            *residual(fit, "rho(1)", "rho(2)", "rho(3)"),
        ],
    ),
    "AR1 and weights": (
        {"correlation": hl.AR1("occasion"), "weights": "w"},
        ar1_and_weights,
        lambda fit: [fit.sigma**2, *residual(fit, "rho")],
    ),
    "slope, AR1 and weights": (
        {"residual": hl.AR1("occasion"), "weights": "w"},
        slope_ar1_and_weights,
        lambda fit: [*fit.D.to_numpy()[np.tril_indices(2)], fit.sigma**2, *residual(fit, "rho")],
    ),
    "gaussian": (
        {"correlation": hl.Gaussian("time")},
        gaussian,
        lambda fit: [fit.sigma**2, *residual(fit, "range")],
    ),
}


def model_of(options, data):
    if "correlation" in options:
        return hl.MarginalModel("distance ~ sex * time", subject="subject", data=data, **options)
    level2 = {"Intercept": "sex", "time": "sex"}
    return hl.TwoLevelModel("distance ~ time", level2, subject="subject", data=data, **options)


def derivatives(function, at):
    """First and second derivatives by differences of fourth order, along pairs of parameters."""
    steps = 2e-3 * np.abs(at)
    unit = np.diag(steps)

    def second(direction):
        weights = {-2: -1 / 12, -1: 4 / 3, 0: -5 / 2, 1: 4 / 3, 2: -1 / 12}
        return sum(w * function(at + k * direction) for k, w in weights.items())

    m = len(at)
    first = [
        sum(w * function(at + k * e) for k, w in {-2: 1 / 12, -1: -2 / 3, 1: 2 / 3, 2: -1 / 12}.items()) / h
        for e, h in zip(unit, steps, strict=True)
    ]
    both = {}
    for a, b in itertools.combinations_with_replacement(range(m), 2):
        mixed = a != b
        found = 0.25 * (second(unit[a] + unit[b]) - second(unit[a] - unit[b])) if mixed else second(unit[a])
        both[a, b] = both[b, a] = found / (steps[a] * steps[b])
    return first, both


TRUTH = {"exponential with nugget": [4.0, 5.0, 2.0], "AR1 and weights": [4.0, 0.5]}
TRUTH |= {"slope, AR1 and weights": [4.0, 0.3, 0.4, 3.0, 0.4]}


def rows_of(name, dental):
    """Unbalanced rows; where a nugget or weights are asked for, a response that has them."""
    if name not in TRUTH:
        keep = np.random.default_rng(5).random(len(dental)) > (0.0 if "power" in name else 0.2)
        return dental[keep].reset_index(drop=True).assign(occasion=lambda d: (d["time"] / 2).astype(int))
    rng = np.random.default_rng(4)
    data = pd.DataFrame(
        {
            "subject": np.repeat(np.arange(30), 7),
            "time": np.tile(2.0 * np.arange(7), 30),
            "sex": ["Male", "Female"] * 105,
        }
    )
    if "weights" in name:
        data = data.assign(w=1.0 + (5 * np.arange(210)) % 7, occasion=data["time"].astype(int) // 2)
        data["sex"] = np.where(data["subject"] % 2, "Male", "Female")
    data = data[rng.random(210) > 0.2].reset_index(drop=True)
    same = data["subject"].to_numpy()[:, None] == data["subject"].to_numpy()
    V = np.where(same, CASES[name][1](data, TRUTH[name]), 0.0)
    return data.assign(distance=20.0 + np.linalg.cholesky(V) @ rng.standard_normal(len(data)))


@pytest.mark.parametrize("name", CASES)
def test_adjusted_covariance_and_degrees_of_freedom_are_the_dense_ones(dental, name):
    """W by the curvature of the criterion as the textbook writes it, second derivatives of V one by one."""
    options, V_of, parameters_of = CASES[name]
    fit = model_of(options, rows_of(name, dental)).fit_reml()
    omega = np.array(parameters_of(fit), dtype=float)
    X, y = fit.design.X, fit.design.y
    same = fit.design.subject_index[:, None] == fit.design.subject_index[None, :]

    def V(w):
        return np.where(same, V_of(fit.design.frame, w), 0.0)

    def criterion(w):
        return deviance(X, y - X @ generalised_least_squares(X, y, V(w))[0], V(w), reml=True)

    m = len(omega)
    _, curvature = derivatives(criterion, omega)
    W = 2.0 * np.linalg.inv([[curvature[a, b] for b in range(m)] for a in range(m)])
    _, Phi, inverse = generalised_least_squares(X, y, V(omega))
    V1, V2 = derivatives(V, omega)
    P = [-X.T @ inverse @ v @ inverse @ X for v in V1]
    Q, R = np.zeros_like(Phi), np.zeros_like(Phi)
    for a, b in itertools.product(range(m), repeat=2):
        Q += W[a, b] * (X.T @ inverse @ V1[a] @ inverse @ V1[b] @ inverse @ X - P[a] @ Phi @ P[b])
        R += W[a, b] * X.T @ inverse @ V2[a, b] @ inverse @ X
    full, linear = fit._wald("kenward-roger"), fit._wald("kenward-roger-linear")
    np.testing.assert_allclose(fit.beta_cov, Phi, rtol=1e-6, atol=1e-9)
    assert name == "a user's own" or np.abs(R).max() > 0.0
    for wald, by in ((full, Q - 0.25 * R), (linear, Q)):
        change = 2.0 * Phi @ by @ Phi
        scale = np.sqrt(np.abs(np.outer(np.diag(change), np.diag(change))))
        np.testing.assert_allclose((wald.cov - Phi) / scale, change / scale, atol=2e-4)
        g = np.array([np.diag(Phi @ p @ Phi) / np.diag(Phi) for p in P])
        np.testing.assert_allclose(wald.rows(np.eye(4))[2], 2.0 / np.einsum("ak,ab,bk->k", g, W, g), rtol=2e-4)


def test_a_zero_variance_beside_a_serial_correlation_is_held_and_said():
    """The degrees of freedom and standard errors are those of the model without it."""
    data = hl.load_dataset("negative_icc")
    options = {"subject": "subject", "data": data, "residual": hl.AR1()}
    fit = hl.TwoLevelModel("y ~ time", {"Intercept": "x"}, random=["Intercept"], **options).fit_reml()
    assert fit.is_singular
    plain = hl.MarginalModel("y ~ time + x", correlation=hl.AR1(), subject="subject", data=data).fit_reml()
    for df in ("kenward-roger", "kenward-roger-linear"):
        table = fit.summary(df=df)
        without = plain.summary(df=df).loc[table.index]
        assert any("given the boundary" in note for note in table.attrs["notes"])
        np.testing.assert_allclose(table["se"], without["se"], rtol=1e-6)
        np.testing.assert_allclose(table["df"], without["df"], rtol=1e-4)


def test_chunks_of_subjects_give_the_same(dental, monkeypatch):
    from hierlmm.likelihood import residual_degrees

    fit = model_of({"correlation": hl.AR1(), "variance": hl.VarIdent("age")}, dental).fit_reml()
    whole = fit._kenward_roger
    monkeypatch.setattr(residual_degrees, "NUMBERS", 300)
    parts = residual_degrees.structured_kenward_roger(fit.large_sample, fit.criterion_function.rows)
    np.testing.assert_allclose(parts.adjusted, whole.adjusted, rtol=1e-10)
    np.testing.assert_allclose(parts.second, whole.second, rtol=1e-8)


def test_several_hypotheses_of_one_row_each_are_the_t_tests(dental):
    fit = model_of({"correlation": hl.Toeplitz(), "variance": hl.VarIdent("age")}, dental).fit_reml()
    for df in ("kenward-roger", "kenward-roger-linear"):
        table, terms = fit.summary(df=df), fit.anova(df)
        np.testing.assert_allclose(terms.loc["sex:time", "F"], table.loc["sex[T.Male]:time", "t"] ** 2, rtol=1e-10)
        assert terms.loc["sex:time", "df2"] == pytest.approx(table.loc["sex[T.Male]:time", "df"])
        test = fit.hypothesis(["sex[T.Male] = 0", "sex[T.Male]:time = 0"], df=df).joint
        assert test.df1 == 2
        assert 5.0 < test.df2 < 60.0


def test_the_adjusted_covariance_needs_reml(dental):
    fit = model_of({"correlation": hl.AR1()}, dental).fit_ml()
    with pytest.raises(hl.NotAvailableError, match="fit by ML"):
        fit.summary(df="kenward-roger-linear")


def test_parameters_of_their_own_for_groups_are_fits_of_their_own(dental):
    """Every sex with its own line and its own covariance: the model of both is the two models."""
    options = {"correlation": hl.UnstructuredHeterogeneous("age"), "subject": "subject"}
    both = hl.MarginalModel("distance ~ sex * time", group="sex", data=dental, **options).fit_reml()
    found = both.slopes("time", by="sex", df="kenward-roger").table.set_index("sex")
    for sex, rows in dental.groupby("sex", observed=True):
        alone = hl.MarginalModel("distance ~ time", data=rows, **options).fit_reml().summary(df="kenward-roger")
        columns = ["estimate", "se", "df"]
        np.testing.assert_allclose(found.loc[sex, columns].astype(float), alone.loc["time", columns], rtol=1e-4)
    serial = hl.MarginalModel(
        "distance ~ sex * time", group="sex", correlation=hl.AR1(), subject="subject", data=dental
    )
    fit = serial.fit_reml()
    assert np.all(fit.summary(df="kenward-roger-linear")["se"] >= fit.beta_se * (1.0 - 1e-9))


def test_a_subject_with_very_many_rows_is_refused(dental, monkeypatch):
    from hierlmm.likelihood import residual_degrees

    fit = model_of({"correlation": hl.AR1()}, dental).fit_reml()
    monkeypatch.setattr(residual_degrees, "MOST_ROWS", 3)
    with pytest.raises(hl.NotAvailableError, match="a subject with 4 rows"):
        fit.summary(df="kr")


def test_a_structure_that_says_two_things_is_refused(dental):
    """Its O(n) form is fitted, and its matrix another one."""

    @dataclass(frozen=True)
    class Twofold(hl.AR1):
        def matrix(self, t, values):
            return super().matrix(t, 0.5 * values)

        def markov(self, gaps, values):
            return hl.AR1.markov(hl.AR1(), gaps, values)

    fit = model_of({"correlation": Twofold()}, dental).fit_reml()
    with pytest.raises(hl.NotAvailableError, match="not the one that was fitted"):
        fit.summary(df="kr")


def few(dental, size, seed):
    subjects = dental["subject"].unique()
    chosen = subjects[np.random.default_rng(seed).choice(len(subjects), size, replace=False)]
    return dental[dental["subject"].isin(chosen)]


def test_second_derivatives_that_change_much_are_said_and_those_that_outweigh_all_else_refused(dental):
    """Few subjects: what was left out of the expansion is no smaller than what is in it."""
    options = {"formula": "distance ~ time", "subject": "subject"}
    fit = hl.MarginalModel(correlation=hl.AR1(), data=few(dental, 3, 0), **options).fit_reml()
    full, linear = fit.summary(df="kenward-roger"), fit.summary(df="kenward-roger-linear")
    assert full.loc["time", "se"] > 1.1 * linear.loc["time", "se"]
    assert any("more than a tenth" in note for note in full.attrs["notes"])
    assert not linear.attrs["notes"]
    fit = hl.MarginalModel(correlation=hl.Exponential("time"), data=few(dental, 5, 0), **options).fit_reml()
    with pytest.raises(hl.NotAvailableError, match="a variance would be negative"):
        fit.anova("kenward-roger")
    assert np.all(fit.summary(df="kenward-roger-linear")["se"] > 0.99 * fit.beta_se)


@pytest.mark.parametrize("residual", [None, hl.AR1("wave")])
@pytest.mark.parametrize("random", ["1 + {x} | school", "1 + {x} + I({x} ** 2) | school"])
def test_the_origin_of_a_random_slope_does_not_matter(random, residual):
    """Years of five waves, and years less 2017: one model, whose D has other entries."""
    rng = np.random.default_rng(3)
    school, wave = np.repeat(np.arange(12), 10), np.tile(np.repeat(np.arange(5), 2), 12)
    data = pd.DataFrame({"school": school, "year": wave + 2015, "x": wave - 2.0, "wave": np.tile(np.arange(10), 12)})
    curved = 0.4 * rng.normal(size=12)[school] * data["x"] ** 2
    data["y"] = (0.7 + 0.5 * rng.normal(size=12)[school]) * data["x"] + curved + rng.normal(size=120)
    degrees = []
    for x in ("x", "year"):
        formula = f"y ~ {x} + I({x} ** 2) + ({random.format(x=x)})"
        fit = hl.TwoLevelModel.from_formula(formula, data, residual=residual).fit_reml()
        degrees.append(fit.anova(df="kenward-roger").iloc[-1])
    assert degrees[1]["df2"] == pytest.approx(degrees[0]["df2"], rel=1e-3)
    assert degrees[1]["F"] == pytest.approx(degrees[0]["F"], rel=1e-4)
