"""Empirical (sandwich) standard errors: against their definition in dense matrices, and deletion of subjects."""

from __future__ import annotations

import numpy as np
import pytest

import hierlmm as hl
from hierlmm.errors import NotAvailableError

KINDS = {"empirical": 0.0, "empirical-bias-reduced": -0.5, "empirical-jackknife": -1.0}


def unbalanced(dental):
    keep = np.random.default_rng(3).random(len(dental)) > 0.25
    return dental[keep].reset_index(drop=True)


@pytest.fixture(scope="module", params=["two-level", "marginal", "ml"])
def fit(request, dental):
    data = unbalanced(dental)
    if request.param == "marginal":
        options = {"correlation": hl.AR1("occasion"), "variance": hl.VarIdent("sex"), "subject": "subject"}
        data = data.assign(occasion=(data["time"] / 2).astype(int))
        return hl.MarginalModel("distance ~ sex * time", data=data, **options).fit_reml()
    model = hl.TwoLevelModel.from_formula("distance ~ sex * time + (1 + time | subject)", data)
    return model.fit_ml() if request.param == "ml" else model.fit_reml()


def power(V, a):
    values, vectors = np.linalg.eigh(V)
    kept = values > 1e-10
    return (vectors[:, kept] * values[kept] ** a) @ vectors[:, kept].T


def whitened(fit):
    """Rows of X and residuals of every subject, with V_i^(-1/2), and (X'V⁻¹X)⁻¹."""
    found, r = [], fit.design.y - fit.design.X @ fit.beta.to_numpy()
    for j, subject in enumerate(fit.design.subjects):
        rows = np.flatnonzero(fit.design.subject_index == j)
        half = power(fit.marginal_covariance(subject).to_numpy(), -0.5)
        found.append((half @ fit.design.X[rows], half @ r[rows]))
    return found, fit.beta_cov.to_numpy()


def by_definition(fit, a):
    """V_E; and g_i (N, p, J), so that the quadratic forms of l are ``Σ_i (l'g_i'e)²`` with e standard normal."""
    subjects, Phi = whitened(fit)
    adjust = [power(np.eye(len(X)) - X @ Phi @ X.T, a) if a else np.eye(len(X)) for X, _ in subjects]
    scores = np.array([X.T @ A @ r for (X, r), A in zip(subjects, adjust, strict=True)])
    everything = np.vstack([X for X, _ in subjects])
    outside = np.eye(len(everything)) - everything @ Phi @ everything.T
    ends = np.cumsum([0, *(len(X) for X, _ in subjects)])
    g = [outside[:, lo:hi] @ A @ X @ Phi for (X, _), A, lo, hi in zip(subjects, adjust, ends, ends[1:], strict=False)]
    return Phi @ scores.T @ scores @ Phi, np.array(g)


@pytest.mark.parametrize("kind", KINDS)
def test_covariance_and_degrees_of_freedom_are_those_of_the_definition(fit, kind):
    cov, g = by_definition(fit, KINDS[kind])
    wald = fit._wald(None, kind)
    np.testing.assert_allclose(wald.cov, cov, rtol=1e-8, atol=1e-12)
    L = np.vstack([np.eye(4), [0.0, 1.0, 0.0, 6.0]])
    df = []
    for row in L:
        u = g @ row
        Gamma = u @ u.T
        df.append(np.trace(Gamma) ** 2 / np.sum(Gamma**2))
    np.testing.assert_allclose(wald.rows(L)[2], df, rtol=1e-8)
    table = fit.summary(se=kind)
    np.testing.assert_allclose(table["df"], df[:4], rtol=1e-8)
    np.testing.assert_allclose(table["se"], np.sqrt(np.diag(cov)), rtol=1e-8)
    assert table.attrs["se"] == kind


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [[1, 3], [0, 1, 2]])
def test_several_hypotheses_have_a_wishart_matrix_with_the_same_variance_of_its_entries(fit, kind, rows):
    cov, g = by_definition(fit, KINDS[kind])
    L = np.eye(4)[rows] + 0.3
    u = g @ L.T  # (J, N, r)
    expected = np.einsum("jns,jnt->st", u, u)
    u = u @ power(expected, -0.5)
    Gamma = np.einsum("ins,jnt->ijst", u, u)
    r = len(L)
    spread = sum(
        np.sum(Gamma[..., s, s] * Gamma[..., t, t] + Gamma[..., s, t] * Gamma[..., t, s])
        for s in range(r)
        for t in range(r)
    )
    eta = r * (r + 1) / spread
    test = fit._wald(None, kind).joint(L)
    beta = L @ fit.beta.to_numpy()
    F = (eta - r + 1) / (eta * r) * beta @ np.linalg.solve(L @ cov @ L.T, beta)
    np.testing.assert_allclose([test.F, test.df1, test.df2], [F, r, eta - r + 1], rtol=1e-7)


def test_the_jackknife_is_the_sum_over_subjects_left_out(fit):
    """At fixed V, what leaving a subject out moves β̂ by, squared and added up."""
    subjects, _ = whitened(fit)
    moves = []
    for j in range(len(subjects)):
        rest = [s for i, s in enumerate(subjects) if i != j]
        moves.append(np.linalg.solve(sum(X.T @ X for X, _ in rest), sum(X.T @ r for X, r in rest)))
    np.testing.assert_allclose(fit._wald(None, "empirical-jackknife").cov, np.array(moves).T @ moves, rtol=1e-7)


def test_bias_reduction_is_unbiased_under_the_model(fit):
    """``Σ_i E u_i u_i'`` is the covariance of the model; without the correction it is smaller."""
    found = {kind: fit._wald(None, kind).degrees for kind in KINDS}
    expected = {
        kind: own.half @ (own.C.sum(axis=0) - np.einsum("jab,jbc->ac", own.B, own.B)) @ own.half.T
        for kind, own in found.items()
    }
    np.testing.assert_allclose(expected["empirical-bias-reduced"], fit.beta_cov, rtol=1e-8, atol=1e-12)
    assert np.all(np.diag(expected["empirical"]) < np.diag(fit.beta_cov))
    assert np.all(np.diag(expected["empirical-jackknife"]) > np.diag(fit.beta_cov))


@pytest.fixture(scope="module")
def alone(dental):
    data = dental.assign(special=np.where(dental["subject"] == dental["subject"].iloc[0], 1.0, 0.0))
    model = hl.MarginalModel("distance ~ special + time", correlation=hl.AR1(), subject="subject", data=data)
    return model.fit_reml()


@pytest.mark.parametrize("kind", KINDS)
def test_a_subject_that_determines_a_coefficient_alone(alone, kind):
    """It has no standard error, whose residuals are fitted away; the others have those of the definition."""
    cov, _ = by_definition(alone, KINDS[kind])
    table = alone.summary(se=kind)
    rest = ["Intercept", "time"]
    np.testing.assert_allclose(table.loc[rest, "se"], np.sqrt(np.diag(cov))[[0, 2]], rtol=1e-6)
    assert table.loc["special", ["se", "lower", "upper", "t", "df", "p"]].isna().all()
    assert table.loc[rest].notna().all(axis=None)
    assert np.isnan(alone.summary(df="normal", se=kind).loc["special", "df"])
    (note,) = table.attrs["notes"]
    assert note.startswith("coefficients that single subjects determine alone, or almost: special (subject 1). ")
    assert note.endswith("use that of the model, se='model'") and "Note: coefficients that single" in repr(table)
    both = alone.hypothesis("special = 0, time = 0", se=kind)
    assert np.isnan(both.joint.F) and "no test, as one of them has no standard error" in str(both)
    assert alone.anova(se=kind)["p"].isna().tolist() == [True, False]
    said = " ".join(str(alone.interpret(se=kind).text).split())
    assert "no standard error is known" in said and "fixed by the model" not in said


def test_two_subjects_are_enough(dental):
    """Of which each has residuals: the same numbers as ever, and no note."""
    data = dental.assign(special=dental["subject"].isin([1, 20]) * 1.0)
    fit = hl.MarginalModel("distance ~ special + time", correlation=hl.AR1(), subject="subject", data=data).fit_reml()
    for kind, power in KINDS.items():
        table = fit.summary(se=kind)
        np.testing.assert_allclose(table["se"], np.sqrt(np.diag(by_definition(fit, power)[0])), rtol=1e-6)
        assert not table.attrs["notes"]


@pytest.mark.parametrize("kind", KINDS)
def test_levels_of_one_subject_are_named(dental, kind):
    """The first level is that of the intercept, and the difference of every other level to it rests on one subject."""
    site = dental["subject"].map({1: "a", 27: "d"}).fillna(dental["subject"].map(lambda s: "b" if s % 2 else "c"))
    model = hl.TwoLevelModel.from_formula("distance ~ site + time + (1 | subject)", dental.assign(site=site))
    fit = model.fit_reml()
    who = "alone, or almost: Intercept, site[T.b], site[T.c], site[T.d] (subject 1, 27)"
    (note,) = fit.summary(se=kind).attrs["notes"]
    assert who in note and who in " ".join(repr(fit.contrasts("site", se=kind)).split())
    compared = fit.contrasts("site", se=kind).table.set_index("contrast")
    known = {name: np.isfinite(se) for name, se in compared["se"].items()}
    assert known == {name: name == "b - c" for name in known} and len(known) == 6
    assert np.isfinite(compared.loc["b - c", "p"])
    assert not fit.summary().attrs.get("notes") and "determine alone" not in repr(fit.contrasts("site"))


def test_too_few_subjects_for_so_many_hypotheses_together(dental):
    few = dental[dental["subject"].isin(list(dental["subject"].unique()[[0, 1, 2, 15, 16]]))]
    fit = hl.MarginalModel("distance ~ sex * C(age)", correlation=hl.AR1(), subject="subject", data=few).fit_reml()
    with pytest.raises(NotAvailableError, match="too few subjects"):
        fit._wald(None, "empirical").joint(np.eye(8)[1:])


def test_other_degrees_of_freedom(fit):
    normal = fit.summary(df="normal", se="empirical")
    assert np.isinf(normal["df"]).all()
    assert (fit.summary(df="residual", se="empirical")["df"] == fit.n_obs - 4).all()
    np.testing.assert_allclose(normal["se"], fit.summary(se="empirical")["se"])


def test_a_refit_of_other_data_has_the_standard_errors_of_a_new_fit(dental):
    """Whose working columns and units are still those of the first data."""
    from hierlmm.inference.refits import Refitter

    formula = "distance ~ sex * time + (1 + time | subject)"
    first = hl.TwoLevelModel.from_formula(formula, unbalanced(dental)).fit_reml()
    y = 100.0 + 3.0 * np.random.default_rng(1).permutation(first.design.y)
    again = hl.TwoLevelModel.from_formula(formula, unbalanced(dental).assign(distance=y)).fit_reml()
    refit = Refitter(first).to_response(y)
    for kind in KINDS:
        np.testing.assert_allclose(refit._wald(None, kind).cov, again._wald(None, kind).cov, rtol=1e-4)
