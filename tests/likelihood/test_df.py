"""Degrees of freedom: against lmerTest and pbkrtest at the same optimum, closed forms, and dense matrices."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import pandas as pd
import pytest
from references import references_of
from scipy import stats
from textbook import deviance, generalised_least_squares, marginal_covariance

import hierlmm as hl
from hierlmm.errors import NotAvailableError, SpecificationError
from hierlmm.likelihood.degrees import KenwardRogerDegrees, _inverse, denominator_df
from hierlmm.likelihood.wald import FixedDegrees, Wald

EFFECTS = references_of("effects")
FORMULAS = {
    "dental_reml": "distance ~ sex * time + (1 + time | subject)",
    "dental_ml": "distance ~ sex * time + (1 + time | subject)",
    "dental_diagonal_reml": "distance ~ sex * time + (1 + time || subject)",
    "petri_reml": "y ~ group + (1 | dish)",
    "rat_pups_reml": "weight ~ treatment * sex + lsize + (1 | litter)",
    "sleepstudy_reml": "reaction ~ days + (1 + days | subject)",
    "sleepstudy_quadratic_reml": "reaction ~ days + I(days ** 2) + (1 + days | subject)",
    "dyestuff2_boundary_reml": "strength ~ half + (1 | batch)",
    "esoph_new_ml": "ncases ~ ncontrols + (1 + ncontrols | agegp)",
}
BY_REML = [name for name in FORMULAS if not name.endswith("ml") or name.endswith("reml")]
METHODS = {"satterthwaite": "satterthwaite", "kenward_roger": "kenward-roger"}


def frozen(name):
    return json.loads((EFFECTS / f"{name}.json").read_text())


@cache
def fitted(name):
    ref = frozen(name)
    data = hl.load_dataset({"esoph_new": "esoph"}.get(ref["data"], ref["data"]))
    if "half" in ref:
        data = data.rename(columns={"yield": "strength"}).assign(half=ref["half"])
    model = hl.TwoLevelModel.from_formula(FORMULAS[name], data)
    return ref, model.fit_reml() if ref["method"] == "REML" else model.fit_ml()


@pytest.mark.parametrize("name", FORMULAS)
def test_satterthwaite_is_lmertests(name):
    ref, fit = fitted(name)
    table = fit.summary(df="satterthwaite")
    theirs = pd.DataFrame(ref["satterthwaite"]).T
    np.testing.assert_allclose(table["df"], theirs["df"], rtol=2e-7)
    np.testing.assert_allclose(table["t"], theirs["t"], rtol=1e-6)
    np.testing.assert_allclose(table["p"], theirs["p"], rtol=1e-5)
    assert table.attrs["df"] == "satterthwaite"
    assert ("D is singular" in "".join(table.attrs["notes"])) == (name == "dyestuff2_boundary_reml")


@pytest.mark.parametrize("name", BY_REML)
def test_kenward_roger_is_pbkrtests(name):
    ref, fit = fitted(name)
    table = fit.summary(df="kenward-roger")
    theirs = pd.DataFrame(ref["kenward_roger"]).T
    np.testing.assert_allclose(fit._kenward_roger.adjusted, ref["vcov_adj"], rtol=2e-7)
    np.testing.assert_allclose(table["se"], theirs["se"], rtol=1e-7)
    np.testing.assert_allclose(table["df"], theirs["df"], rtol=1e-8)
    np.testing.assert_allclose(table["p"], theirs["p"], rtol=1e-5)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["dental_reml", "dental_ml", "dental_diagonal_reml", "petri_reml", "rat_pups_reml"])
def test_several_hypotheses_together(name, method):
    ref, fit = fitted(name)
    if (name, method) == ("dental_ml", "kenward_roger"):
        with pytest.raises(NotAvailableError, match="corrects the REML estimates"):
            fit._wald(METHODS[method])
        return
    stored = [key for key in ("joint", "joint_value") if ref.get(key, {}).get(method)]
    assert stored
    for key in stored:
        test = fit._wald(METHODS[method]).joint(np.array(ref[key]["L"], dtype=float), np.array(ref[key]["rhs"]))
        theirs = ref[key][method]
        assert test.df1 == theirs["df1"]
        np.testing.assert_allclose(test.F, theirs["F"], rtol=1e-7)
        np.testing.assert_allclose(test.df2, theirs["df2"], rtol=1e-7)
        np.testing.assert_allclose(test.p, theirs["p"], rtol=1e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["dental_reml", "dental_diagonal_reml", "petri_reml", "rat_pups_reml"])
def test_type_three_table(name, method):
    ref, fit = fitted(name)
    theirs = pd.DataFrame(ref[f"anova_{method}"]).T
    ours = fit.anova(METHODS[method])
    assert list(ours.index) == list(theirs.index)
    np.testing.assert_allclose(ours["F"], theirs["F value"], rtol=1e-7)
    np.testing.assert_allclose(ours["df2"], theirs["DenDF"], rtol=1e-7)
    np.testing.assert_allclose(ours["p"], theirs["Pr(>F)"], rtol=1e-5)
    assert ours.attrs["df"] == METHODS[method]


def test_tests_of_days_in_sleepstudy_at_lme4s_own_stop():
    """lme4 stops 2e-5 away from the optimum, relative."""
    ref = frozen("sleepstudy_kr_anova")
    _, fit = fitted("sleepstudy_reml")
    for key, method in (("kr", "kenward-roger"), ("satt", "satterthwaite")):
        ours = fit.anova(method).loc["days"]
        np.testing.assert_allclose(ours["F"], ref[key]["days"]["F value"], rtol=3e-5)
        np.testing.assert_allclose(ours["df2"], ref[key]["days"]["DenDF"], rtol=1e-5)


@pytest.mark.parametrize("df", ["satterthwaite", "kenward-roger"])
def test_balanced_groups_of_dishes_are_a_t_test_of_dish_means(df):
    """With equal numbers of rows the mixed ANOVA between dishes is exactly the one of the 30 means, on 27 df."""
    petri = hl.load_dataset("petri")
    fit = hl.TwoLevelModel.from_formula("y ~ group + (1 | dish)", petri).fit_reml()
    means = petri.groupby(["group", "dish"], observed=True)["y"].mean()
    groups = [g.to_numpy() for _, g in means.groupby(level="group", observed=True)]
    classical = stats.f_oneway(*groups)
    pooled = np.sqrt(np.mean([g.var(ddof=1) for g in groups]) * 2 / 10)
    table = fit.summary(df=df)
    np.testing.assert_allclose(table["df"], 27.0, rtol=1e-8)
    np.testing.assert_allclose(table["se"].iloc[1:], pooled, rtol=1e-8)
    np.testing.assert_allclose(fit.anova(df).loc["group", "F"], classical.statistic, rtol=1e-8)
    np.testing.assert_allclose(fit.anova(df).loc["group", "p"], classical.pvalue, rtol=1e-6)


def unbalanced_dental(dental):
    keep = np.random.default_rng(3).random(len(dental)) > 0.25
    return dental[keep].reset_index(drop=True)


def dense_kenward_roger(design, basis, sigma, D):
    """Kenward and Roger (1997) as printed, with N × N matrices."""
    X = design.X
    same = design.subject_index[:, None] == design.subject_index[None, :]
    G = [np.where(same, design.Z @ B @ design.Z.T, 0.0) for B in basis] + [np.eye(design.n_obs)]
    _, Phi, inverse = generalised_least_squares(X, design.y, marginal_covariance(design, D, sigma))
    P = [-X.T @ inverse @ g @ inverse @ X for g in G]
    m = len(G)
    Q = [[X.T @ inverse @ G[r] @ inverse @ G[s] @ inverse @ X for s in range(m)] for r in range(m)]
    info = np.empty((m, m))
    for r in range(m):
        for s in range(m):
            info[r, s] = np.trace(inverse @ G[r] @ inverse @ G[s]) - 2 * np.trace(Phi @ Q[r][s])
            info[r, s] += np.trace(Phi @ P[r] @ Phi @ P[s])
    W = 2 * np.linalg.inv(info)
    U = sum(W[r, s] * (Q[r][s] - P[r] @ Phi @ P[s]) for r in range(m) for s in range(m))
    adjusted = Phi + 2 * Phi @ U @ Phi
    df = []
    for i in range(X.shape[1]):
        g = np.array([(Phi @ p @ Phi)[i, i] / Phi[i, i] for p in P])
        df.append(2 / (g @ W @ g))
    return adjusted, np.array(df)


@pytest.mark.parametrize(
    ("covariance", "basis"),
    [
        ("identity", [np.eye(2)]),
        ("diagonal", [np.diag([1.0, 0.0]), np.diag([0.0, 1.0])]),
        ("unstructured", [np.diag([1.0, 0.0]), np.diag([0.0, 1.0]), np.array([[0.0, 1.0], [1.0, 0.0]])]),
    ],
)
def test_kenward_roger_from_cross_products_is_the_dense_one(dental, covariance, basis):
    data = unbalanced_dental(dental)
    model = hl.TwoLevelModel(
        "distance ~ time",
        {"Intercept": "sex", "time": "sex"},
        subject="subject",
        data=data,
        covariance=covariance,
    )
    fit = model.fit_reml()
    adjusted, df = dense_kenward_roger(fit.design, basis, fit.sigma, fit.D.to_numpy())
    np.testing.assert_allclose(fit._kenward_roger.adjusted, adjusted, rtol=1e-8)
    np.testing.assert_allclose(fit.summary(df="kr")["df"], df, rtol=1e-8)


def conditions():
    """Fourteen subjects under three conditions, one to three times each, with a covariate."""
    rng = np.random.default_rng(11)
    rows = [(j, c) for j in range(14) for c in "abc" for _ in range(rng.integers(1, 4))]
    data = pd.DataFrame(rows, columns=["subject", "cond"]).assign(x=rng.normal(5.0, 2.0, len(rows)))
    own = rng.normal(size=14)[:, None] + rng.normal(scale=0.7, size=(14, 3))
    data["y"] = own[data["subject"], data["cond"].map({"a": 0, "b": 1, "c": 2})] + 0.1 * data["x"]
    return data.assign(y=data["y"] + rng.normal(scale=0.8, size=len(data)))


@pytest.mark.parametrize(
    ("formula", "covariance", "basis"),
    [
        ("y ~ 0 + cond + x + (0 + cond | subject)", "compound_symmetry", [np.eye(3), np.ones((3, 3)) - np.eye(3)]),
        (
            "y ~ cond + x + (1 + x | subject)",
            None,
            [np.diag([1.0, 0.0]), np.diag([0.0, 1.0]), np.array([[0.0, 1.0], [1.0, 0.0]])],
        ),
    ],
)
def test_kenward_roger_where_the_columns_of_z_are_mixed(formula, covariance, basis):
    fit = hl.TwoLevelModel.from_formula(formula, conditions(), covariance=covariance).fit_reml()
    adjusted, df = dense_kenward_roger(fit.design, basis, fit.sigma, fit.D.to_numpy())
    np.testing.assert_allclose(fit._kenward_roger.adjusted, adjusted, rtol=1e-7)
    np.testing.assert_allclose(fit.summary(df="kr")["df"], df, rtol=1e-7)


def ar1_covariance(design, log_tau, log_sigma, z):
    time = design.frame["time"].to_numpy() / 2.0
    same = design.subject_index[:, None] == design.subject_index[None, :]
    serial = np.tanh(z) ** np.abs(time[:, None] - time[None, :])
    return np.where(same, np.exp(2 * log_tau) + np.exp(2 * log_sigma) * serial, 0.0)


def test_satterthwaite_with_a_residual_structure_is_the_dense_one(dental):
    """Another parametrisation, dense matrices, and second differences of the criterion itself."""
    fit = hl.TwoLevelModel(
        "distance ~ time",
        {"Intercept": "sex", "time": "sex"},
        subject="subject",
        data=dental,
        random=["Intercept"],
        residual=hl.AR1(),
    ).fit_reml()
    X, y = fit.design.X, fit.design.y
    rho = float(np.asarray(fit.variance_components().filter(regex="(?i)ar1|phi|rho|corr", axis=0)["estimate"])[0])
    theta = np.array([np.log(fit.sd_b.iloc[0]), np.log(fit.sigma), np.arctanh(rho)])

    def covariance_of_beta(point):
        return generalised_least_squares(X, y, ar1_covariance(fit.design, *point))[1]

    def criterion(point):
        V = ar1_covariance(fit.design, *point)
        return deviance(X, y - X @ generalised_least_squares(X, y, V)[0], V, reml=True)

    np.testing.assert_allclose(covariance_of_beta(theta), fit.beta_cov, rtol=1e-6)
    h, unit = 1e-3, np.eye(3)
    H = np.empty((3, 3))
    for i in range(3):
        for j in range(3):
            corners = [s * t * criterion(theta + h * (s * unit[i] + t * unit[j])) for s in (1, -1) for t in (1, -1)]
            H[i, j] = sum(corners) / (4 * h * h)
    spread = 2 * np.linalg.inv(H)
    L = np.vstack([np.eye(4), [0.0, 1.0, 0.0, 6.0]])
    g = np.array([(covariance_of_beta(theta + h * u) - covariance_of_beta(theta - h * u)) / (2 * h) for u in unit])
    expected = []
    for row in L:
        slope = np.einsum("a,rab,b->r", row, g, row)
        expected.append(2 * (row @ covariance_of_beta(theta) @ row) ** 2 / (slope @ spread @ slope))
    np.testing.assert_allclose(fit._wald("satterthwaite").rows(L)[2], expected, rtol=2e-4)


def test_marginal_compound_symmetry_has_the_degrees_of_freedom_of_the_random_intercept(dental):
    mixed = hl.TwoLevelModel.from_formula("distance ~ sex * time + (1 | subject)", dental).fit_reml()
    marginal = hl.MarginalModel(
        "distance ~ sex * time", correlation=hl.CompoundSymmetry(), subject="subject", data=dental
    ).fit_reml()
    np.testing.assert_allclose(
        marginal.summary(df="satterthwaite")["df"], mixed.summary(df="satterthwaite")["df"], rtol=1e-6
    )


def test_other_methods_and_the_default(dental):
    fit = hl.TwoLevelModel.from_formula("distance ~ sex * time + (1 + time | subject)", dental).fit_reml()
    assert list(fit.summary().columns) == ["estimate", "se", "lower", "upper", "t"]  # Wald's z
    residual, normal = fit.summary(df="residual"), fit.summary(df="inf")
    assert (residual["df"] == 104).all() and np.isinf(normal["df"]).all()
    pd.testing.assert_frame_equal(normal[["estimate", "se", "lower", "upper", "t"]], fit.summary(), check_exact=False)
    np.testing.assert_allclose(normal["p"], 2 * stats.norm.sf(normal["t"].abs()), rtol=1e-12)
    half = (residual["upper"] - residual["lower"]) / 2
    np.testing.assert_allclose(half, stats.t.ppf(0.975, 104) * residual["se"], rtol=1e-12)


def test_subjects_in_chunks_give_the_same(dental, monkeypatch):
    from hierlmm.likelihood import degrees

    fit = hl.TwoLevelModel.from_formula("distance ~ sex * time + (1 + time | subject)", dental).fit_reml()
    whole = fit._kenward_roger
    monkeypatch.setattr(degrees, "CHUNK", 5)
    parts = degrees.kenward_roger(fit.solution)
    np.testing.assert_allclose(parts.adjusted, whole.adjusted, rtol=1e-12)
    np.testing.assert_allclose(parts.W, whole.W, rtol=1e-10, atol=1e-16)


def test_what_a_fit_has_no_degrees_of_freedom_for_is_refused(dental):
    model = hl.TwoLevelModel.from_formula("distance ~ sex * time + (1 + time | subject)", dental)
    ml = model.fit_ml()
    for df in ("kenward-roger", "kenward-roger-linear", "kr"):
        with pytest.raises(NotAvailableError, match=f"df='{df}' for a fit by ML"):
            ml.summary(df=df)
        with pytest.raises(NotAvailableError, match=f"df='{df}' for a fit by ML"):
            ml.contrasts("sex", df=df)
    with pytest.raises(SpecificationError, match="no method for degrees of freedom"):
        model.fit_reml().summary(df="welch")
    serial = hl.TwoLevelModel(
        "distance ~ time", subject="subject", data=dental, random=["Intercept"], residual=hl.AR1()
    ).fit_reml()
    with pytest.raises(NotAvailableError, match=r"(?s)df='kr' and .*standard errors of its own"):
        serial.summary(df="kr", se="empirical")
    with pytest.raises(SpecificationError, match="no kind of standard errors"):
        serial.summary(se="huber")
    with pytest.raises(SpecificationError, match="between 0 and 1"):
        serial.summary(ci=95, df="satterthwaite")


def test_denominator_degrees_of_freedom_of_a_sum_of_squared_t():
    assert denominator_df(np.array([7.0])) == 7.0
    assert denominator_df(np.array([12.0, 12.0, 12.0])) == 12.0
    assert denominator_df(np.array([1.5, 30.0])) == 2.0
    assert np.isinf(denominator_df(np.array([np.inf, np.inf])))
    E = 10 / 8 + 1.0
    assert np.isclose(denominator_df(np.array([10.0, np.inf])), 2 * E / (E - 2))


@pytest.mark.parametrize("r", [2, 3, 5])
@pytest.mark.parametrize("df", [2.0, 2.004, 2.5, 4.0, 4.5, 7.0, 300.0])
def test_kenward_roger_is_exact_where_one_variance_scales_the_covariance(df, r):
    """Φ = cγ with γ̂ ~ γ χ²/df: the F statistic has an F distribution on r and df degrees of freedom, unscaled."""
    rng = np.random.default_rng(r)
    half = rng.normal(size=(6, 6))
    Phi, gamma = half @ half.T, 1.7
    degrees = KenwardRogerDegrees(Phi, Phi, Phi[None] / gamma, np.array([[2.0 * gamma**2 / df]]))
    L = rng.normal(size=(r, 6))
    np.testing.assert_allclose(degrees.of_rows(L), df, rtol=1e-12)
    np.testing.assert_allclose(degrees.of_all(L), (1.0, df), rtol=1e-9)


def test_kenward_roger_with_four_degrees_of_freedom_on_data():
    """Four groups of two subjects, balanced: the classical F test of the subjects' means on 3 and 4 df."""
    rng = np.random.default_rng(2)
    data = pd.DataFrame({"s": np.repeat(np.arange(8), 3), "g": np.repeat(list("abcd"), 6)})
    data["y"] = (3.0 * rng.normal(size=8))[data["s"]] + rng.normal(size=24)
    fit = hl.TwoLevelModel.from_formula("y ~ g + (1 | s)", data).fit_reml()
    means = data.groupby(["g", "s"])["y"].mean()
    classical = stats.f_oneway(*(own for _, own in means.groupby(level="g")))
    found = fit.anova("kr").loc["g", ["F", "df2", "p"]].astype(float)
    np.testing.assert_allclose(found, [classical.statistic, 4.0, classical.pvalue], rtol=1e-7)


def test_parameters_that_cannot_be_told_apart_have_a_generalised_inverse():
    """Of an information vv' it is vv' over |v|⁴ on the scale of the correlations: 1 / (m² v_i v_j)."""
    v = np.array([1.0, 1e3, 1e-4])
    for noise in (0.0, 1e-14):
        found = _inverse(np.outer(v, v) * (1.0 + noise * np.eye(3)))
        np.testing.assert_allclose(found, 1.0 / (9.0 * np.outer(v, v)), rtol=1e-6)
    # Hardly told apart, but told: the inverse itself, (I - 11' / (3 + apart)) / apart.
    for apart in (1e-6, 1e-11):
        exact = (np.eye(3) - 1.0 / (3.0 + apart)) / apart
        found = _inverse(np.outer(v, v) * (1.0 + apart * np.eye(3))) * np.outer(v, v)
        np.testing.assert_allclose(found, exact, rtol=1e-15 / apart)


@pytest.mark.parametrize("scale", [1e-14, 1.0, 1e14])
def test_a_test_does_not_depend_on_the_length_of_its_rows(scale):
    """Rows in other units: F and p stay, what depends on others is left out, and what nearly does is not."""
    wald = Wald("normal", np.array([1.0, 2.0]), np.diag([1.0, 4.0]), FixedDegrees(np.inf))
    L = np.array([[scale, 0.0], [0.0, 1.0]])
    for rows in (L, L[::-1], np.vstack([L, [scale, 2.0]])):
        test = wald.joint(rows)
        assert test.df1 == 2
        np.testing.assert_allclose(test.F, (1.0 / 1.0 + 4.0 / 4.0) / 2, rtol=1e-12)
    near = np.array([[scale, 0.0], [scale, 1e-6 * scale]])
    assert wald.joint(near).df1 == 2
    assert wald.joint(np.array([[scale, scale], [scale, scale * (1.0 + 1e-13)]])).df1 == 1


def test_hypotheses_that_follow_from_others_count_once():
    wald = Wald("normal", np.array([1.0, 2.0, 3.0]), np.diag([1.0, 4.0, 9.0]), FixedDegrees(np.inf))
    L = np.array([[1.0, 0, 0], [0, 1.0, 0], [2.0, -1.0, 0]])
    test = wald.joint(L, np.array([0.0, 1.0, -1.0]))
    assert test.df1 == 2
    np.testing.assert_allclose(test.F, (1.0 + 0.25) / 2)
    np.testing.assert_allclose(test.p, stats.chi2.sf(1.25, 2))
    with pytest.raises(SpecificationError, match="contradicts"):
        wald.joint(L, np.array([0.0, 1.0, 0.0]))
    with pytest.raises(SpecificationError, match="no coefficient is left"):
        wald.joint(np.zeros((1, 3)))
