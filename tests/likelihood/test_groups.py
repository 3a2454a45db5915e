"""D of its own for each level of a factor: against lme4 with dummies and nlme, dense matrices, and differences."""

import numpy as np
import pytest
from differences import relative_central
from references import reference, references_of

import hierlmm as hl
from hierlmm.likelihood.criterion import Criterion
from hierlmm.likelihood.crossproducts import cross_products

CASES = sorted(path.stem for path in references_of("groups").glob("*.json"))


@pytest.fixture(scope="module", params=CASES)
def pair(request):
    ref = reference(request.param, "groups")
    model = hl.TwoLevelModel.from_formula(ref["hierlmm"], hl.load_dataset(ref["data"]))
    return ref, model.fit_reml() if ref["reml"] else model.fit_ml()


def test_likelihood_is_that_of_lme4_and_nlme_and_never_lower(pair):
    ref, fit = pair
    assert fit.converged
    assert fit.loglik == pytest.approx(ref["optimum"]["logLik"], rel=1e-6)
    assert fit.loglik >= ref["optimum"]["logLik"] - 1e-9 * abs(ref["optimum"]["logLik"])
    if "nlme_logLik" in ref:  # nlme stops a little before its optimum
        assert fit.loglik == pytest.approx(ref["nlme_logLik"], abs=2e-4)


def test_estimates_are_those_of_lme4(pair):
    ref, fit = pair
    optimum = ref["optimum"]
    theirs = {name.replace("(Intercept)", "Intercept"): k for k, name in enumerate(optimum["coef"])}
    own = [name.replace("[T.", "").replace("]", "") for name in fit.beta.index]
    order = [theirs[name] for name in own]
    np.testing.assert_allclose(fit.beta, np.array(list(optimum["coef"].values()))[order], rtol=1e-5)
    np.testing.assert_allclose(fit.beta_se, np.array(list(optimum["se"].values()))[order], rtol=1e-5)
    assert fit.sigma == pytest.approx(optimum["sigma"], rel=1e-5)
    D = np.array(optimum["random_cov"]["matrix"])
    places = [by_lme4(fit, name) for name in fit.D.index]
    np.testing.assert_allclose(fit.D, D[np.ix_(places, places)], rtol=1e-4, atol=1e-4 * D.max() * 1e-2)


def by_lme4(fit, name):
    """Where lme4 has a random effect: in the order of the terms of its formula, the groups of which are by alphabet."""
    term, level = name[:-1].split("[")
    levels = sorted(map(str, fit.design.group_levels))
    q = fit.design.n_own
    return levels.index(level) * q + fit.design.own_term.index(term)


@pytest.fixture(scope="module")
def by_sex():
    model = hl.TwoLevelModel("distance ~ time", {"Intercept": "sex"}, subject="subject", data=hl.load_dataset("dental"),
                             group="sex")  # fmt: skip
    return model.fit_reml()


def test_random_effects_are_those_of_each_group_s_own_d(by_sex):
    """BLUPs, conditional variances and what they are made of, subject by subject with q × q matrices."""
    design, sigma = by_sex.design, by_sex.sigma
    residual = design.y - design.X @ by_sex.beta.to_numpy()
    variances = by_sex.blup_variances(covariances=True)["conditional"].to_numpy()
    for j, subject in enumerate(design.subjects):
        rows = design.subject_index == j
        sex = design.frame["sex"][rows].iloc[0]
        names = [f"Intercept[{sex}]", f"time[{sex}]"]
        D = by_sex.D.loc[names, names].to_numpy()
        Z = np.column_stack([np.ones(rows.sum()), design.frame["time"][rows]])
        V = Z @ D @ Z.T + sigma**2 * np.eye(len(Z))
        gain = D @ Z.T @ np.linalg.inv(V)
        np.testing.assert_allclose(by_sex.b.loc[subject], gain @ residual[rows], rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(by_sex.b_sd.loc[subject] ** 2, np.diag(D - gain @ Z @ D), rtol=1e-7)
        np.testing.assert_allclose(variances[j], D - gain @ Z @ D, rtol=1e-6, atol=1e-10)
        np.testing.assert_allclose(by_sex.marginal_covariance(subject), V, rtol=1e-10)
    own = by_sex.b.to_numpy() + np.column_stack([design.W[:, :2] @ by_sex.beta[:2], np.full(27, by_sex.beta["time"])])
    np.testing.assert_allclose(by_sex.subject_coef, own, rtol=1e-12)
    assert list(by_sex.b.columns) == ["Intercept", "time"]


def test_a_new_subject_has_the_spread_of_its_group(by_sex):
    rows = by_sex.design.frame[["sex", "time"]].iloc[[3, 80]].assign(subject=["x", "y"])
    found = by_sex.predict(rows, level="new_subject", interval="prediction")
    line = by_sex.predict(rows, level="population", interval="confidence")
    for k, sex in enumerate(rows["sex"]):
        names = [f"Intercept[{sex}]", f"time[{sex}]"]
        z = np.array([1.0, rows["time"].iloc[k]])
        spread = z @ by_sex.D.loc[names, names].to_numpy() @ z + by_sex.sigma**2
        assert found["se"].iloc[k] ** 2 == pytest.approx(line["se"].iloc[k] ** 2 + spread, rel=1e-9)


@pytest.mark.parametrize("bars", ["time", "time |"])
@pytest.mark.parametrize("reml", [True, False])
def test_gradient_equals_differences(bars, reml):
    formula = f"distance ~ sex + time + ({bars}| gr(subject, by = sex))"
    design = hl.TwoLevelModel.from_formula(formula, hl.load_dataset("dental")).design
    criterion = Criterion(cross_products(design), design.random_structure, reml)
    rng = np.random.default_rng(4)
    for _ in range(3):
        lam = rng.normal(scale=0.7, size=criterion.structure.n_parameters)
        exact = criterion.evaluate(lam).gradient
        np.testing.assert_allclose(exact, relative_central(criterion, lam), rtol=1e-6, atol=1e-6 * np.abs(exact).max())


def test_groups_apart_are_two_fits_with_one_sigma():
    """The likelihood is the sum of the groups' own, at the same σ: by independent fits of each at σ held."""
    dental = hl.load_dataset("dental")
    both = hl.TwoLevelModel.from_formula("distance ~ sex * time + (1 | gr(subject, by = sex))", dental).fit_ml()
    total = 0.0
    for sex, own in dental.groupby("sex", observed=True):
        design = hl.TwoLevelModel.from_formula("distance ~ time + (1 | subject)", own).design
        D = both.sd_b[f"Intercept[{sex}]"] ** 2
        V = D * (design.subject_index[:, None] == design.subject_index) + both.sigma**2 * np.eye(design.n_obs)
        beta = np.linalg.solve(design.X.T @ np.linalg.solve(V, design.X), design.X.T @ np.linalg.solve(V, design.y))
        r = design.y - design.X @ beta
        total -= 0.5 * (r @ np.linalg.solve(V, r) + np.linalg.slogdet(V)[1] + design.n_obs * np.log(2 * np.pi))
    assert both.loglik == pytest.approx(total, rel=1e-10)


def test_global_search_ends_no_higher_than_descents_from_anywhere():
    from scipy.optimize import minimize

    formula = "distance ~ sex * time + (time | gr(subject, by = sex))"
    fit = hl.TwoLevelModel.from_formula(formula, hl.load_dataset("dental")).fit_reml()
    criterion, rng = fit.criterion_function, np.random.default_rng(1)
    starts = rng.normal(size=(30, 6)) * np.exp(rng.uniform(-3.0, 3.0, (30, 6)))
    ends = [minimize(lambda x: (criterion(x), criterion.evaluate(x).gradient), x, jac=True).fun for x in starts]
    assert fit.criterion <= min(ends) + 1e-7


@pytest.mark.parametrize("method", ["fit_reml", "fit_ml"])
@pytest.mark.parametrize("bar", ["time |", "time ||"])
def test_with_variances_of_their_own_groups_are_fits_apart(method, bar):
    """D and σ by sex, and every mean by sex: the criterion is the sum of those of girls and of boys alone."""
    dental = hl.load_dataset("dental")
    both = hl.TwoLevelModel.from_formula(
        f"distance ~ sex * time + ({bar} gr(subject, by = sex))", dental, residual_variance=hl.VarIdent("sex")
    )
    together, total = getattr(both, method)(), 0.0
    for sex, own in dental.groupby("sex", observed=True):
        alone = getattr(hl.TwoLevelModel.from_formula(f"distance ~ time + ({bar} subject)", own), method)()
        total += alone.loglik
        part = together.D.loc[[f"Intercept[{sex}]", f"time[{sex}]"], [f"Intercept[{sex}]", f"time[{sex}]"]]
        np.testing.assert_allclose(part, alone.D, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(together.b.loc[alone.b.index], alone.b, rtol=1e-3, atol=1e-4)
    assert together.loglik == pytest.approx(total, rel=1e-8)


@pytest.mark.parametrize(("family", "response"), [("poisson", "seizures"), ("bernoulli", "cured")])
def test_families_by_group_are_fits_apart(patients, family, response):
    """Without a dispersion nothing is common to groups whose means have nothing in common."""
    both = hl.TwoLevelModel.from_formula(
        f"{response} ~ arm * week + (1 | gr(patient, by = arm))", patients, family=family
    ).fit_ml()
    total = 0.0
    for arm, own in patients.groupby("arm"):
        alone = hl.TwoLevelModel.from_formula(f"{response} ~ week + (1 | patient)", own, family=family).fit_ml()
        total += alone.loglik
        assert both.sd_b[f"Intercept[{arm}]"] == pytest.approx(alone.sd_b["Intercept"], rel=1e-4, abs=1e-5)
        np.testing.assert_allclose(both.b.loc[alone.b.index], alone.b, rtol=1e-3, atol=1e-4)
    assert both.loglik == pytest.approx(total, rel=1e-8)
    assert list(both.compare_groups().table["quantity"]) == ["sd(Intercept)"]
    rows = patients.drop_duplicates("arm")
    found = both.predict(rows, level="marginal")["estimate"]
    assert np.isfinite(found).all()


def test_gee_does_not_look_at_d():
    dental = hl.load_dataset("dental")
    by_sex = hl.TwoLevelModel.from_formula("distance ~ sex * time + (time | gr(subject, by = sex))", dental).fit_gee()
    common = hl.TwoLevelModel.from_formula("distance ~ sex * time + (time | subject)", dental).fit_gee()
    np.testing.assert_array_equal(by_sex.beta, common.beta)
    np.testing.assert_array_equal(by_sex.beta_se, common.beta_se)


def test_structures_by_group_at_their_definition():
    """D of each group has the structure; the best likelihoods are ordered as the structures are nested."""
    dental = hl.load_dataset("dental")
    criteria = {}
    for covariance in ("identity", "compound_symmetry", "diagonal", "unstructured"):
        fit = hl.TwoLevelModel(
            "distance ~ time", {"Intercept": "sex", "time": "sex"}, subject="subject", data=dental,
            covariance=covariance, group="sex",
        ).fit_ml()  # fmt: skip
        D = fit.D.to_numpy()
        np.testing.assert_array_equal(D[:2, 2:], 0.0)
        criteria[covariance] = fit.criterion, fit.n_parameters - 5
        for own in (D[:2, :2], D[2:, 2:]):
            if covariance in ("identity", "compound_symmetry"):
                assert own[0, 0] == pytest.approx(own[1, 1], rel=1e-10)
            if covariance in ("identity", "diagonal"):
                assert own[0, 1] == 0.0
        table = fit.variance_components()
        assert len(table) == {"identity": 5, "compound_symmetry": 5, "diagonal": 5, "unstructured": 7}[covariance]
        common = hl.TwoLevelModel(
            "distance ~ time", {"Intercept": "sex", "time": "sex"}, subject="subject", data=dental,
            covariance=covariance,
        ).fit_ml()  # fmt: skip
        assert fit.criterion <= common.criterion + 1e-9
    assert [n for _, n in criteria.values()] == [2, 4, 4, 6]
    values = {name: value for name, (value, _) in criteria.items()}
    assert values["unstructured"] <= min(values["compound_symmetry"], values["diagonal"]) + 1e-9
    assert max(values["compound_symmetry"], values["diagonal"]) <= values["identity"] + 1e-9
