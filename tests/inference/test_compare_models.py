"""One table over different models: what is compared, what is blank and why; the conditional AIC by its definition."""

import numpy as np
import pandas as pd
import pytest
from draws import posterior_like
from references import data_elsewhere
from scipy.stats import poisson

import hierlmm as hl
from hierlmm.inference.compare_models import stacking_weights
from hierlmm.inference.conditional_aic import conditional_aic
from hierlmm.inference.maximum import maximise, maximum_of


def ml(formula, data, **options):
    return hl.TwoLevelModel.from_formula(formula, data, **options).fit_ml()


@pytest.fixture(scope="module")
def few(dental):
    children = sorted(dental["subject"].unique())[:8]
    data = dental[dental["subject"].isin(children)].reset_index(drop=True)
    return data.assign(distance=data["distance"] + np.random.default_rng(1).normal(size=len(data)))


@pytest.mark.parametrize("bar", ["1 |", "time |", "time ||"])
def test_the_degrees_of_freedom_are_what_refits_say(few, bar):
    """Σ ∂ŷ_i/∂y_i, every response moved a little in turn and the model fitted again."""
    reml = bar == "time |"
    model = hl.TwoLevelModel.from_formula(f"distance ~ time + ({bar} subject)", few)
    design, fit = model.design, model.fit_reml() if reml else model.fit_ml()
    assert not fit.is_singular

    def fitted(y):
        found = maximise(design.with_response(y), reml=reml)
        at = found.criterion.solution(found.optimum.lam)
        return design.X @ at.beta + np.einsum("ij,ij->i", design.Z, at.b[design.subject_index])

    steps = 1e-4 * np.eye(design.n_obs)
    total = sum((fitted(design.y + e) - fitted(design.y - e))[i] / 2e-4 for i, e in enumerate(steps))
    found = conditional_aic(maximum_of(fit))
    assert found.df == pytest.approx(total + 1.0, abs=1e-6)
    residual = fit.residuals("response", level="subject").to_numpy()
    loglik = -0.5 * np.sum(np.log(2.0 * np.pi * fit.sigma**2) + (residual / fit.sigma) ** 2)
    assert found.value == pytest.approx(2.0 * (total + 1.0) - 2.0 * loglik, abs=1e-5)


def test_at_a_boundary_and_without_random_effects_it_is_that_of_a_regression():
    data = hl.load_dataset("dyestuff2")
    fit = ml("yield ~ 1 + (1 | batch)", data)
    plain = hl.MarginalModel("yield ~ 1", subject="batch", data=data).fit_ml()
    assert fit.is_singular
    for own in (fit, plain):
        found = conditional_aic(maximum_of(own))
        assert found.df == pytest.approx(2.0, abs=1e-9)
        assert found.value == pytest.approx(plain.aic, abs=1e-6)


def test_a_serial_term_and_families_take_theta_as_known(few, patients):
    fit = ml("distance ~ time + (1 | subject)", few, residual=hl.AR1(), residual_variance=hl.VarExp("time"))
    found, design = conditional_aic(maximum_of(fit)), fit.design
    total, loglik = 0.0, 0.0
    V, S = np.zeros((2, design.n_obs, design.n_obs))
    for i in range(design.n_subjects):
        rows = np.flatnonzero(design.subject_index == i)
        own = fit.residual_estimate.covariance(design.frame.iloc[rows]) * fit.sigma**2
        S[np.ix_(rows, rows)] = own
        V[np.ix_(rows, rows)] = own + design.Z[rows] @ fit.D.to_numpy() @ design.Z[rows].T
        e = fit.residuals("response", level="subject").to_numpy()[rows]
        loglik -= 0.5 * (np.linalg.slogdet(2.0 * np.pi * own)[1] + e @ np.linalg.solve(own, e))
    W, X = np.linalg.inv(V), design.X
    P = W - W @ X @ np.linalg.solve(X.T @ W @ X, X.T @ W)
    total = design.n_obs - np.trace(S @ P)
    assert found.df == pytest.approx(total + 2.0 + 1.0, abs=1e-6)  # two residual parameters, and sigma
    assert found.loglik == pytest.approx(loglik, abs=1e-6)

    fit = ml("seizures ~ week + (1 | patient)", patients, family="poisson")
    found, mu = conditional_aic(maximum_of(fit)), fit.fitted().to_numpy()
    Z = np.eye(24)[fit.design.subject_index] * fit.sd_b.iloc[0]
    A = np.column_stack([fit.design.X, Z])
    information = A.T @ (mu[:, None] * A)
    penalty = np.diag([0.0] * 2 + [1.0] * 24)
    assert found.df == pytest.approx(np.trace(np.linalg.solve(information + penalty, information)), abs=1e-5)
    assert found.loglik == pytest.approx(poisson.logpmf(fit.design.y, mu).sum(), abs=1e-8)


def test_information_criteria_by_their_formulas(growth, dental):
    fit = ml("distance ~ sex * time + (1 | subject)", dental)
    other = ml("distance ~ time + (1 | subject)", dental)
    found = hl.compare_models(fit, other, labels=["full", "time"])
    row, k, n = found.table.loc["full"], 6, 108
    assert row["df"] == k
    assert row["aic"] == pytest.approx(2 * k - 2 * fit.loglik)
    assert row["aicc"] == pytest.approx(2 * k - 2 * fit.loglik + 2 * k * (k + 1) / (n - k - 1))
    assert row["bic"] == pytest.approx(k * np.log(n) - 2 * fit.loglik)
    assert found.table["loo_subject"].isna().all()
    gap = fit.subject_loglik() - other.subject_loglik()
    own = found.differences.query("criterion == 'aic' and model == 'time'").iloc[0]
    assert own["difference"] == pytest.approx(found.table["aic"]["time"] - row["aic"])
    assert own["se"] == pytest.approx(2.0 * np.sqrt(27) * gap.std())


@pytest.mark.parametrize("method", ["ml", "reml"])
def test_seven_structures_of_one_mean(method, growth, dental, comparisons):
    """nlme's gls with corCompSymm, corAR1 and corSymm, with and without a variance of its own at every age."""
    variance = hl.VarIdent("age")
    more = {"csh": hl.CompoundSymmetry(), "arh1": hl.AR1(), "symm_homog": hl.Unstructured("age")}
    models = {
        name: hl.MarginalModel(
            "distance ~ sex * time", correlation=own, variance=variance if name.endswith(("h", "1")) else None,
            subject="subject", data=dental,
        )
        for name, own in more.items()
    }  # fmt: skip
    fits = {name: growth[own] for name, own in {"indep": "independent", "cs": "cs", "ar1": "ar1", "un": "un"}.items()}
    if method == "ml":
        fits = {name: maximum_again(fit) for name, fit in fits.items()}
    fits |= {name: model.fit_ml() if method == "ml" else model.fit_reml() for name, model in models.items()}
    table = hl.compare_models(*fits.values(), labels=list(fits), by=["loglik", "df", "aic", "bic"]).table
    frozen = pd.DataFrame(comparisons[f"gls_{method}"]["table"]).T.loc[list(fits)]
    assert (table["df"] == frozen["df"]).all()
    # nlme stops early: never above, and nearly as high.
    assert (table["loglik"] > frozen["loglik"] - 1e-7).all()
    np.testing.assert_allclose(table["loglik"].astype(float), frozen["loglik"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(table["aic"].astype(float), frozen["aic"], rtol=0, atol=2e-4)
    if method == "ml":  # nlme's BIC of REML counts N - p rows
        np.testing.assert_allclose(table["bic"].astype(float), frozen["bic"], rtol=0, atol=2e-4)


def maximum_again(fit):
    """The same model by ML."""
    design = fit.design
    return hl.MarginalModel(
        "distance ~ sex * time", correlation=design.residual, variance=design.residual_variance,
        subject="subject", data=design.frame,
    ).fit_ml()  # fmt: skip


def test_models_that_are_not_nested():
    """anova(S1, S2), lme(log(serbilir) ~ ns(year, 2) * sex) with ~year | id and pdDiag(~ns(year, 2)) | id, by REML."""
    data = pd.read_csv(data_elsewhere("pbc2"))
    fits = [
        hl.TwoLevelModel.from_formula(f"log(serbilir) ~ ns(year, 2) * sex + {bar}", data).fit_reml()
        for bar in ("(year | id)", "(ns(year, 2) || id)")
    ]
    assert hl.compare_models(*fits, by=["aic"]).table["aic"].to_numpy() == pytest.approx(
        [3064.75376, 2897.06213], abs=1e-2
    )


@pytest.mark.filterwarnings("ignore:Pareto k")
def test_what_may_not_be_compared_is_blank_with_the_reason(growth, dental, dental_reml, dental_like_nuts):
    model = hl.TwoLevelModel.from_formula("distance ~ time + (1 | subject)", dental)
    logged = hl.TwoLevelModel.from_formula("log(distance) ~ time + (1 | subject)", dental).fit_reml()
    fewer = hl.TwoLevelModel.from_formula("distance ~ time + (1 | subject)", dental[dental["age"] < 14]).fit_reml()
    names = ["first", "same X", "other X", "ml", "logged", "fewer", "gee", "posterior"]
    fits = [growth["slope"], growth["intercept"], growth["time only"], model.fit_ml(), logged, fewer, model.fit_gee()]
    found = hl.compare_models(*fits, dental_like_nuts, labels=names)
    table, why = found.table, found.reasons.set_index("model")["reason"]
    assert table.loc[["first", "same X"], ["loglik", "df", "aic", "aicc", "bic", "caic"]].notna().all(axis=None)
    for label in ("other X", "ml"):  # densities of y given the effects may be compared, and numbers of parameters
        assert table.loc[label, ["caic", "df"]].notna().all()
        assert table.loc[label, ["loglik", "aic", "aicc", "bic"]].isna().all()
    for label in ("logged", "fewer", "gee"):
        assert table.loc[label].drop("estimator").isna().all()
    assert table.loc["posterior"].drop(["estimator", "loo_subject"]).isna().all()
    expected = {"other X": "different fixed effects", "ml": "by REML and one by ML", "logged": "transformed response"}
    expected |= {"fewer": "same rows", "gee": "no likelihood", "posterior": "no maximum"}
    for label, text in expected.items():
        assert any(text in reason for reason in np.atleast_1d(why[label])), label
    assert "different fixed effects" in " ".join(repr(found).split())


@pytest.mark.filterwarnings("ignore:Pareto k")
def test_posteriors(dental_reml, dental_like_nuts, growth):
    other = posterior_like(growth["intercept"])
    found = hl.compare_models(dental_like_nuts, other, labels=["slope", "intercept"])
    first, second = dental_like_nuts.loo(), other.loo()
    assert found.table["loo_subject"].to_numpy() == pytest.approx([first.elpd, second.elpd])
    rows = found.differences.set_index("model")
    se = np.sqrt(27) * (first.elpd_i.to_numpy() - second.elpd_i.to_numpy()).std(ddof=1)
    assert rows["se"].max() == pytest.approx(se)
    import arviz as az

    weights = az.compare({"slope": first.elpd_data, "intercept": second.elpd_data}, round_to="none")["weight"]
    assert found.table["stacking"].to_numpy() == pytest.approx(weights[["slope", "intercept"]].to_numpy(), abs=1e-3)


def test_stacking_weights_maximise_the_score():
    elpd = np.random.default_rng(4).normal(size=(40, 3))
    w = stacking_weights(elpd)

    def score(w):
        return np.log(np.exp(elpd) @ w).sum()

    assert w.sum() == pytest.approx(1.0)
    for move in np.random.default_rng(5).dirichlet(np.ones(3), size=50):
        assert score(0.999 * w + 0.001 * move) <= score(w) + 1e-9


def test_refusals(growth, dental):
    with pytest.raises(hl.SpecificationError, match=r"no such criterion\. Did you mean 'aic'"):
        hl.compare_models(growth["slope"], growth["intercept"], by=["aicx"])
    with pytest.raises(hl.SpecificationError, match="compares fits"):
        hl.compare_models(growth["slope"], "slope")
    alone = hl.compare_models(growth["slope"], growth["time only"], by=["aic"])
    with pytest.raises(hl.SpecificationError, match="no two models"):
        alone.plot()


def test_the_picture_holds_the_differences(growth):
    found = hl.compare_models(growth["slope"], growth["intercept"], growth["cs"], by=["aic", "caic"])
    picture = found.plot(backend="none")
    assert "point_estimate" in picture.viz.children
    assert set(found.differences["criterion"]) == {"aic", "caic"}


def test_a_marginal_model_has_no_conditional_aic(growth):
    found = hl.compare_models(growth["intercept"], growth["cs"], by=["aic", "caic"])
    assert found.table["aic"].notna().all()
    assert found.table["caic"].isna().tolist() == [False, True]
    assert found.reasons.loc[found.reasons["model"] == "m2", "reason"].str.contains("no effects of them").all()
