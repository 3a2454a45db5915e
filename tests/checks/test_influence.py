"""Fits without one subject: exact at fixed θ, beside fits anew (ours, and lme4's) where θ moves."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import hierlmm as hl

REFERENCE = json.loads((Path(__file__).parent / "reference" / "influence_sleepstudy.json").read_text())
SLOPES = "distance ~ sex * time + (time | subject)"
INTERCEPTS = "distance ~ sex * time + (1 | subject)"


def without_by_definition(fit, left_out):
    """β and its covariance by generalised least squares on the other subjects' rows, V as the fit has it."""
    design, A, a = fit.design, 0.0, 0.0
    for subject in design.subjects:
        if subject != left_out:
            rows = np.flatnonzero(design.subject_index == design.position(subject))
            V, X = fit.marginal_covariance(subject).to_numpy(), design.X[rows]
            A = A + X.T @ np.linalg.solve(V, X)
            a = a + X.T @ np.linalg.solve(V, (design.y - design.offset)[rows])
    return np.linalg.solve(A, a), np.linalg.inv(A)


@pytest.fixture(scope="module")
def serial(dental):
    return hl.TwoLevelModel.from_formula(INTERCEPTS, dental, residual=hl.AR1("time")).fit_ml()


@pytest.fixture(scope="module")
def unstructured(dental):
    return hl.MarginalModel(
        "distance ~ sex * time", correlation=hl.Unstructured("time"), subject="subject", data=dental
    ).fit_reml()


@pytest.fixture(scope="module")
def unequal(dental):
    return hl.TwoLevelModel.from_formula(INTERCEPTS, dental, residual_variance=hl.VarIdent("sex")).fit_reml()


@pytest.mark.parametrize("which", ["dental_reml", "serial", "unstructured", "unequal"])
def test_at_fixed_theta_it_is_exact(which, request):
    fit = request.getfixturevalue(which)
    found = fit.influence("fixed")
    inverse = np.linalg.inv(fit.beta_cov)
    for subject in fit.design.subjects[::9]:
        beta, cov = without_by_definition(fit, subject)
        np.testing.assert_allclose(found.beta.loc[subject], beta, rtol=1e-8)
        change = fit.beta - beta
        np.testing.assert_allclose(found.table.loc[subject, "cook"], change @ inverse @ change / len(beta), rtol=1e-6)
        ratio = np.linalg.det(cov) / np.linalg.det(fit.beta_cov)
        np.testing.assert_allclose(found.table.loc[subject, "covratio"], ratio, rtol=1e-7)
        np.testing.assert_allclose(found.dfbetas.loc[subject], change / fit.beta_se, atol=1e-8)
    assert (found.table["theta"] == 0.0).all()


def near(found, refitted, full):
    """Changes within 5 % of the largest change of the same number over subjects, as fits anew have it."""
    change = np.abs(np.asarray(refitted) - np.asarray(full))
    wrong = np.abs(np.asarray(found) - np.asarray(refitted))
    assert (wrong.max(axis=0) <= 0.05 * change.max(axis=0)).all(), wrong.max(axis=0) / change.max(axis=0)


def test_with_theta_updated_it_is_near_lme4_fitted_anew(sleep_reml):
    found = sleep_reml.influence()
    order = [str(subject) for subject in found.table.index]
    assert order == REFERENCE["subjects"]
    near(found.beta, REFERENCE["beta"], sleep_reml.beta)
    # lme4's order: both standard deviations, the correlation, sigma, as here.
    near(found.components, REFERENCE["components"], sleep_reml.variance_components()["estimate"])
    np.testing.assert_allclose(found.table["cook"], REFERENCE["cook"], rtol=0.05, atol=0.05 * max(REFERENCE["cook"]))


@pytest.mark.parametrize(
    ("formula", "options"),
    [(SLOPES, {}), (INTERCEPTS, {"residual_variance": hl.VarIdent("sex")})],
    ids=["slopes", "unequal variances"],
)
def test_with_theta_updated_it_is_near_fits_anew(dental, formula, options):
    fit = hl.TwoLevelModel.from_formula(formula, dental, **options).fit_reml()
    found = fit.influence()

    def numbers(some):
        own = some.variance_components()["estimate"].drop("sigma", errors="ignore")
        return [*some.beta, *own[[c for c in own.index if c in found.components]], some.sigma]

    some = [s for k, s in enumerate(fit.design.subjects) if k % 2 == 0 or s in (10, 20, 21, 24)]
    anew = [hl.TwoLevelModel.from_formula(formula, dental[dental["subject"] != s], **options).fit_reml() for s in some]
    names = [c for c in found.components if c in fit.variance_components().index and c != "sigma"]
    own = pd.concat([found.beta, found.components[[*names, "sigma"]]], axis=1).loc[some]
    near(own, [numbers(other) for other in anew], numbers(fit))


def thousand():
    rng = np.random.default_rng(1)
    sizes = rng.integers(4, 9, 1000)
    subject = np.repeat(np.arange(1000), sizes)
    frame = pd.DataFrame(
        {"subject": subject, "t": rng.uniform(0, 5, len(subject)), "x": rng.normal(size=1000)[subject]}
    )
    b = rng.multivariate_normal([0, 0], [[1, 0.2], [0.2, 0.3]], 1000)[subject]
    frame["y"] = 1 + 0.5 * frame["t"] + 0.3 * frame["x"] + b[:, 0] + b[:, 1] * frame["t"] + rng.normal(size=len(frame))
    return frame


def test_no_model_is_fitted_anew(monkeypatch):
    """How much faster that is: benchmarks/influence.py."""
    fit = hl.TwoLevelModel.from_formula("y ~ t * x + (t | subject)", thousand()).fit_reml()
    evaluations, evaluate = [], type(fit.criterion_function).evaluate
    monkeypatch.setattr(
        type(fit.criterion_function), "evaluate", lambda *given: evaluations.append(1) or evaluate(*given)
    )
    found = fit.influence()
    assert found.table["cook"].notna().all()
    assert len(evaluations) < 1000  # a fit takes dozens of them, for each of the 1,000 subjects


def test_a_subject_that_alone_has_a_level_is_told(dental):
    frame = dental.assign(site=np.where(dental["subject"] == 3, "b", "a"))
    fit = hl.TwoLevelModel.from_formula("distance ~ time + site + (1 | subject)", frame).fit_reml()
    found = fit.influence()
    assert found.table.index[found.table["cook"].isna()].tolist() == [3]
    assert found.beta.loc[3].isna().all() and found.components.loc[3].isna().all()
    assert "Without 3 (of 1 such subjects)" in str(found)
    assert found.table.drop(index=3).notna().all(axis=None)


def test_on_the_boundary_variances_stay_there(dental):
    flat = dental.assign(distance=np.random.default_rng(3).normal(size=len(dental)))
    fit = hl.TwoLevelModel.from_formula("distance ~ time + (1 | subject)", flat).fit_ml()
    assert fit.is_singular
    found = fit.influence()
    assert (found.components["sd(Intercept)"] == 0.0).all() and found.components["sigma"].std() > 0.0
    assert (found.table["theta"] == 0.0).all()


def test_others_have_none(dental, sleep_nuts):
    gee = hl.TwoLevelModel.from_formula(INTERCEPTS, dental).fit_gee()
    for fit in (sleep_nuts, gee):
        with pytest.raises(hl.NotAvailableError, match=r"cross-products"):
            fit.influence()
    assert all("influence" in kind.lacks for kind in (hl.GeneralisedFit, hl.GeneralisedPosterior))


def test_what_is_printed_is_sorted_and_told(sleep_reml):
    text = str(sleep_reml.influence())
    lines = text.splitlines()
    assert lines[2].split() == ["subject", "rows", "cook", "dfbetas", "coef", "theta", "covratio"]
    assert [line.split()[0] for line in lines[3:6]] == ["309", "335", "337"]
    assert "the subject moves Intercept down by 0.40 standard errors" in " ".join(lines)
    assert "<table>" in sleep_reml.influence()._repr_html_()


def test_it_is_drawn(sleep_reml):
    picture = sleep_reml.influence().plot(backend="none", max_labels=3)
    assert picture.viz["points"] is not None
    picture = sleep_reml.influence("fixed").plot(backend="none")
    assert picture.viz["points"] is not None


def test_d_by_group_is_exact_too(dental):
    fit = hl.TwoLevelModel.from_formula(SLOPES, dental, group="sex").fit_reml()
    found = fit.influence("fixed")
    for subject in (3, 20):
        np.testing.assert_allclose(found.beta.loc[subject], without_by_definition(fit, subject)[0], rtol=1e-8)
    assert {"sd(time[Female])", "sd(time[Male])"} <= set(found.components)


def test_known_weights_of_rows_count(dental):
    weighted = dental.assign(w=np.tile([0.5, 1.0, 2.0, 3.0], 27))
    fit = hl.TwoLevelModel.from_formula(INTERCEPTS, weighted, weights="w").fit_reml()
    np.testing.assert_allclose(fit.influence("fixed").beta.loc[20], without_by_definition(fit, 20)[0], rtol=1e-8)


def test_without_fixed_effects(sleepstudy):
    fit = hl.TwoLevelModel.from_formula("reaction ~ 0 + (1 | subject)", sleepstudy).fit_reml()
    with pytest.raises(hl.NotAvailableError, match="no coefficient moves"):
        fit.influence()
    page = fit.check(simulations=99)
    assert {"leverage", "influential_subjects"} <= set(page.left_out)
