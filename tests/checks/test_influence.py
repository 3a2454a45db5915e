"""Fits without one subject: exact at fixed θ, beside fits anew (ours, and lme4's) where θ moves; of posteriors too."""

import json
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import multivariate_normal

import hierlmm as hl
from hierlmm.fits.posterior import flattened

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


def test_what_has_no_likelihood_has_none(dental, sleep_like_nuts, cured_nuts):
    gee = hl.TwoLevelModel.from_formula(INTERCEPTS, dental).fit_gee()
    with pytest.raises(hl.NotAvailableError, match=r"takes subjects out of a likelihood"):
        gee.influence()
    for fit in (sleep_like_nuts, cured_nuts):
        with pytest.raises(hl.NotAvailableError, match=r"closed form at held covariance parameters"):
            fit.influence("fixed")


def test_subjects_may_be_called_like_a_column_of_the_table(dental):
    for name in ("coef", "rows", "cook"):
        frame = dental.rename(columns={"subject": name})
        found = hl.TwoLevelModel.from_formula(f"distance ~ time + (1 | {name})", frame).fit_reml().influence()
        assert found.table.index.name == f"at {name}"
        assert str(found).splitlines()[2].startswith(f"at {name}") and "<table>" in found._repr_html_()
        assert found.plot(backend="none").viz["points"] is not None


def test_what_is_printed_is_sorted_and_told(sleep_reml):
    text = str(sleep_reml.influence())
    lines = text.splitlines()
    assert lines[2].split() == ["subject", "rows", "cook", "dfbetas", "coef", "theta", "covratio"]
    assert [line.split()[0] for line in lines[3:6]] == ["309", "335", "337"]
    assert "the subject moves Intercept down by 0.40 standard errors" in " ".join(lines)
    assert "<table>" in sleep_reml.influence()._repr_html_()


def test_it_is_drawn(sleep_reml):
    picture = sleep_reml.influence().plot(backend="none", max_labels=3)
    assert np.size(picture.get_viz("standing_out", "influence", panel="")["x"]) <= 3
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


def test_a_variance_near_zero_is_said(dental):
    """Without a subject it may leave zero, which is not followed: nine of twelve fits anew were elsewhere."""
    rng = np.random.default_rng(9)
    frame = pd.DataFrame({"id": np.repeat(np.arange(12), 4), "t": np.tile(np.arange(4.0), 12)})
    frame["y"] = frame["t"] + 0.15 * rng.normal(size=12)[frame["id"]] + rng.normal(size=48)
    fit = hl.TwoLevelModel.from_formula("y ~ t + (1 | id)", frame).fit_reml()
    assert 0.0 < fit.sd_b["Intercept"] < 0.1
    assert "sd(Intercept) is estimated as zero or nearly so" in fit.influence().how
    assert "nearly so" not in fit.influence("fixed").how
    assert "nearly so" not in hl.TwoLevelModel.from_formula(INTERCEPTS, dental).fit_reml().influence().how


def test_without_fixed_effects(sleepstudy):
    fit = hl.TwoLevelModel.from_formula("reaction ~ 0 + (1 | subject)", sleepstudy).fit_reml()
    with pytest.raises(hl.NotAvailableError, match="no coefficient moves"):
        fit.influence()
    page = fit.check(simulations=279)
    assert {"leverage", "influential_subjects"} <= set(page.left_out)


# --- other families ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("formula", "family", "points"),
    [
        ("seizures ~ week * arm + (1 | patient)", "poisson", 1),
        ("cured ~ week + (1 | patient)", "bernoulli", 9),
        ("pain ~ week + (1 | patient)", "ordinal", 1),
    ],
)
def test_of_another_family_it_is_near_fits_anew(patients, formula, family, points):
    fit = hl.TwoLevelModel.from_formula(formula, patients, family=family).fit_ml(n_quadrature=points)
    found, some = fit.influence(), fit.design.subjects[::5]
    anew = [
        hl.TwoLevelModel.from_formula(formula, patients[patients["patient"] != s], family=family).fit_ml(
            n_quadrature=points
        )
        for s in some
    ]
    near(found.beta.loc[some], [other.beta for other in anew], fit.beta)
    components = [other.variance_components()["estimate"] for other in anew]
    near(found.components.loc[some], components, fit.variance_components()["estimate"])
    ratio = [np.linalg.det(other.beta_cov) / np.linalg.det(fit.beta_cov) for other in anew]
    np.testing.assert_allclose(found.table.loc[some, "covratio"], ratio, rtol=0.05)
    assert "by a local search from there" in str(found).replace("\n", " ")


def test_scores_by_subject_add_up(patients):
    fit = hl.TwoLevelModel.from_formula(
        "seizures ~ week + (week | patient)", patients, family="negative_binomial"
    ).fit_ml()
    at = fit.optimum.lam + 0.1 * np.arange(1.0, len(fit.optimum.lam) + 1.0)
    scores = fit.criterion_function.gradients(at)
    np.testing.assert_allclose(scores.sum(axis=0), fit.criterion_function.both(at)[1], rtol=1e-9)
    alone = fit.criterion_function.rows.part(np.array([5]))
    one = replace(fit.criterion_function, rows=alone, first=fit.criterion_function.first[[5]])
    np.testing.assert_allclose(scores[5], one.both(at)[1], rtol=1e-9)


def test_a_level_that_one_subject_has_is_lost_in_another_family(patients):
    frame = patients.assign(site=np.where(patients["patient"] == 4, "b", "a"))
    fit = hl.TwoLevelModel.from_formula("seizures ~ week + site + (1 | patient)", frame, family="poisson").fit_ml()
    found = fit.influence()
    assert found.table.index[found.table["cook"].isna()].tolist() == [4]
    assert found.beta.loc[4].isna().all() and found.components.loc[4].isna().all()
    assert found.table.drop(index=4).notna().all(axis=None)


def test_separation_with_and_without_a_subject(patients):
    """A coefficient that is infinite already, or only without one subject."""
    few = patients["patient"].isin([4, 6])
    frame = patients.assign(few=few.astype(float), cured=patients["cured"].mask(few, "yes"))
    with pytest.raises(hl.NotAvailableError, match="already all subjects together do not determine"):
        hl.TwoLevelModel.from_formula("cured ~ few + (1 | patient)", frame, family="bernoulli").fit_ml().influence()
    frame.loc[frame["patient"] == 6, "cured"] = "no"  # only together they have both
    fit = hl.TwoLevelModel.from_formula("cured ~ few + (1 | patient)", frame, family="bernoulli").fit_ml()
    cook = fit.influence().table["cook"]
    assert cook.index[cook.isna()].tolist() == [4, 6]


# --- posteriors -------------------------------------------------------------------------------------------------------


def test_of_a_posterior_it_is_near_posteriors_anew(sleepstudy, sleep_nuts):
    with pytest.warns(hl.FitWarning, match=r"What is said of 1 subject cannot be relied on .*: 332"):
        found = sleep_nuts.influence()
    assert found.table["pareto_k"].idxmax() == 332
    assert "332" in found.verdict and "importance sampling" in str(found)
    assert found.plot(backend="none").viz["points"] is not None
    sd = sleep_nuts.beta_se
    for subject in (309, 335):
        rest = sleepstudy[sleepstudy["subject"] != subject]
        anew = hl.TwoLevelModel.from_formula("reaction ~ days + (days | subject)", rest).fit(seed=2, progressbar=False)
        # Means of 4,000 draws: 0.02 SDs of error, of weighted ones twice that; the subject moves them by 0.3 to 0.5.
        assert np.abs((found.beta.loc[subject] - anew.beta) / sd).max() < 0.12
        assert found.table.loc[subject, "dfbetas"] == found.dfbetas.loc[subject].loc[found.table.loc[subject, "coef"]]
        assert found.components.loc[subject, "sigma"] == pytest.approx(anew.sigma, rel=0.01)
        ratio = np.linalg.det(anew.beta_cov) / np.linalg.det(sleep_nuts.beta_cov)
        assert found.table.loc[subject, "covratio"] == pytest.approx(ratio, rel=0.25)


def test_weights_are_one_over_the_likelihood_of_the_subject(sleep_like_nuts):
    """By the definition, without smoothing, for a subject whose weights are nearly equal."""
    with pytest.warns(hl.FitWarning, match="332"):
        found = sleep_like_nuts.influence()
    subject = found.table["pareto_k"].idxmin()
    design = sleep_like_nuts.design
    rows = design.subject_index == design.position(subject)
    X, Z, y = design.X[rows], design.Z[rows], design.y[rows]
    beta, D, sigma = (flattened(sleep_like_nuts.draws(name)) for name in ("beta", "D", "sigma"))
    logs = [
        multivariate_normal(X @ b, Z @ d @ Z.T + s**2 * np.eye(len(y))).logpdf(y)
        for b, d, s in zip(beta, D, sigma, strict=True)
    ]
    weight = np.exp(np.min(logs) - logs)
    weight /= weight.sum()
    sd = beta.std(axis=0)
    np.testing.assert_allclose((found.beta.loc[subject] - weight @ beta) / sd, 0.0, atol=0.01)
    assert np.abs((found.beta.loc[subject] - beta.mean(axis=0)) / sd).max() > 0.05
    apart = beta - weight @ beta
    ratio = np.linalg.det(apart.T @ (apart * weight[:, None])) / np.linalg.det(sleep_like_nuts.beta_cov)
    assert found.table.loc[subject, "covratio"] == pytest.approx(ratio, rel=0.02)


def test_of_posteriors_of_other_families_and_marginal_models(pain_nuts, cured_nuts):
    for fit in (pain_nuts, cured_nuts):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", hl.FitWarning)  # 600 draws
            found = fit.influence()
        assert np.isfinite(found.table[["cook", "dfbetas", "theta", "covratio"]]).all(axis=None)
        assert found.components.columns.tolist() == fit.variance_components().index.tolist()
        assert found.good_k == pytest.approx(1.0 - 1.0 / np.log10(600.0))


@pytest.mark.parametrize(
    ("design", "subject"),
    [("unstructured", 3), ("serial", 0), ("unequal", 5)],
)
def test_the_criterion_of_the_others_is_that_of_a_model_of_them(design, subject, dental, request):
    """Its gradient is exact, so that no parameter costs a pass of its own."""
    fit = request.getfixturevalue(design)
    whole, psi = fit.criterion_function, fit.optimum.lam + 0.05
    others = replace(whole, rows=whole.rows.without(subject))
    some = dental[dental["subject"] != fit.design.subjects[subject]]
    if design == "unstructured":
        correlation = hl.Unstructured("time")
        model = hl.MarginalModel("distance ~ sex * time", correlation=correlation, subject="subject", data=some)
    else:
        how = {"residual": hl.AR1("time")} if design == "serial" else {"residual_variance": hl.VarIdent("sex")}
        model = hl.TwoLevelModel.from_formula(INTERCEPTS, some, **how)
    anew = (model.fit_ml() if design == "serial" else model.fit_reml()).criterion_function.evaluate(psi)
    found = others.evaluate(psi)
    np.testing.assert_allclose(found.value, anew.value, rtol=1e-9)
    np.testing.assert_allclose(found.gradient, anew.gradient, rtol=1e-6, atol=1e-7)


def test_many_residual_parameters_cost_few_passes(monkeypatch):
    """Quasi-Newton steps with differences for gradients had 30 passes for every subject that moves far."""
    from hierlmm.likelihood.deletion import SubjectSums

    rng = np.random.default_rng(4)
    frame = pd.DataFrame({"id": np.repeat(np.arange(40), 4), "visit": np.tile(np.arange(4), 40)})
    frame["y"] = 2.0 * rng.normal(size=40)[frame["id"]] + rng.normal(size=160)
    structure = hl.UnstructuredHeterogeneous("visit")
    fit = hl.MarginalModel("y ~ visit", correlation=structure, subject="id", data=frame).fit_reml()
    passes, at = [], SubjectSums.at
    monkeypatch.setattr(SubjectSums, "at", lambda *given: passes.append(1) or at(*given))
    assert (fit.influence().table["theta"] > 0.1).sum() > 20
    m = len(fit.optimum.lam)
    assert len(passes) <= m**2 + m + 1 + 40
