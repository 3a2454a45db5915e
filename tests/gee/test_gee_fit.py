"""GEE: the fit as an object."""

import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import hierlmm as hl
from hierlmm.errors import DataError, NotAvailableError, SpecificationError


@pytest.fixture(scope="module")
def model(dental):
    return hl.TwoLevelModel.from_formula("distance ~ sex * time + (1 + time | subject)", dental)


@pytest.fixture(scope="module")
def fit(model):
    return model.fit_gee()


@pytest.mark.parametrize(
    "name",
    [
        *("b", "b_sd", "b_cov", "D", "sd_b", "corr_b", "sigma", "icc", "subject_coef", "is_singular"),
        *("loglik", "criterion", "aic", "bic", "n_parameters"),
    ],
)
def test_what_gee_does_not_have_says_why(fit, name):
    with pytest.raises(NotAvailableError, match=f"{name} of a fit by GEE"):
        getattr(fit, name)


def test_methods_that_gee_does_not_have_say_why(fit, model):
    for call, why in (
        (fit.variance_components, "no random effects"),
        (fit.intraclass_correlation, "no random effects"),
        (fit.r_squared, "no random effects"),
        (fit.information_criteria, "no likelihood"),
        (fit.subject_loglik, "no likelihood"),
        (fit.loo, "draws from a posterior"),
        (fit.compare_marginal, "this is the GEE"),
        (lambda: fit.predict(level="subject"), "no subject's own line"),
        (lambda: fit.predict(level="new_subject"), "no subject's own line"),
        (lambda: fit.predict(interval="prediction"), "no distribution of the measurements"),
        (lambda: fit.fitted("subject"), "no subject's own line"),
        (lambda: fit.residuals(level="subject"), "no subject's own line"),
    ):
        with pytest.raises(NotAvailableError, match=why):
            call()


def test_names_and_numbers_are_aligned(fit, model):
    assert tuple(fit.beta.index) == tuple(fit.standard_errors().index) == model.design.coef
    assert list(fit.standard_errors()) == ["naive", "robust", "bias_reduced"]
    assert fit.beta.index.name == "coef"
    for kind in ("naive", "robust", "bias_reduced"):
        other = fit.with_se(kind)
        np.testing.assert_allclose(other.beta_se, fit.standard_errors()[kind])
        np.testing.assert_allclose(other.beta_cov, fit.covariance(kind))
        np.testing.assert_allclose(fit.summary(se=kind)["se"], other.summary()["se"])
    assert fit.se == "robust"
    table = fit.summary(0.9)
    np.testing.assert_allclose(table["upper"] - table["lower"], 2 * 1.6448536269514722 * table["se"])
    np.testing.assert_allclose(table["z"], table["estimate"] / table["se"])
    assert table.loc["time", "p"] < 1e-10
    with pytest.raises(AttributeError):
        fit.se = "naive"


def test_predictions_and_residuals(fit, model, dental):
    new = pd.DataFrame({"sex": ["Male", "Female"], "time": [3.0, 3.0]})
    line = fit.predict(new, interval="confidence")
    x = np.array([1.0, 1.0, 3.0, 3.0])
    assert line["estimate"].iloc[0] == pytest.approx(x @ fit.beta)
    assert line["se"].iloc[0] == pytest.approx(np.sqrt(x @ fit.beta_cov.to_numpy() @ x))
    naive = fit.predict(new, interval="credible", se="naive", ci=0.5)
    assert naive["upper"].iloc[0] - naive["estimate"].iloc[0] == pytest.approx(0.6744897501960817 * naive["se"].iloc[0])
    np.testing.assert_allclose(fit.predict(level="marginal")["estimate"], fit.fitted())
    r = fit.residuals()
    np.testing.assert_allclose(r, model.design.y - fit.fitted())
    assert r @ r / (108 - 4) == pytest.approx(fit.scale)
    np.testing.assert_allclose(fit.residuals("pearson"), r / np.sqrt(fit.scale))
    z = fit.residuals("normalized").to_numpy()
    V = np.kron(np.eye(27), fit.marginal_covariance(1))
    assert z @ z == pytest.approx(r @ np.linalg.solve(V, r))
    with pytest.raises(DataError, match="not in the fitted data"):
        fit.working_correlation("nobody")


def test_an_offset_is_taken_off(dental):
    data = dental.assign(base=2.0 * dental["time"])
    plain = hl.TwoLevelModel.from_formula("distance ~ sex * time + (1 | subject)", data).fit_gee()
    shifted = hl.TwoLevelModel.from_formula("distance ~ sex * time + offset(base) + (1 | subject)", data).fit_gee()
    np.testing.assert_allclose(shifted.beta["time"], plain.beta["time"] - 2.0)
    np.testing.assert_allclose(shifted.fitted(), plain.fitted())
    np.testing.assert_allclose(shifted.standard_errors(), plain.standard_errors(), rtol=1e-9)


def test_a_design_without_random_effects_has_a_sigma(dental, fit):
    from hierlmm.design.build import design_from_fixed
    from hierlmm.design.formula import parse_formula
    from hierlmm.fit.make import fit_of
    from hierlmm.gee.record import fit_gee

    marginal = fit_of(fit_gee(design_from_fixed(parse_formula("distance ~ sex * time"), "subject", dental)))
    assert marginal.sigma == pytest.approx(np.sqrt(fit.scale))
    np.testing.assert_allclose(marginal.standard_errors(), fit.standard_errors())
    assert "dropped" not in repr(marginal)


def test_draws_have_the_covariance_and_mark_themselves(fit):
    tree = fit.with_se("bias_reduced").to_datatree(draws=4000, seed=3)
    assert "bias_reduced" in tree.attrs["approximation"]
    assert list(tree["posterior"].data_vars) == ["beta"]
    draws = tree["posterior"]["beta"].to_numpy().reshape(-1, 4).T
    cov = fit.covariance("bias_reduced").to_numpy()
    sd = np.sqrt(np.diag(cov))
    np.testing.assert_allclose((draws.mean(1) - fit.beta) / sd, 0.0, atol=4 / np.sqrt(16000))
    np.testing.assert_allclose(np.cov(draws) / np.outer(sd, sd), cov / np.outer(sd, sd), atol=0.05)


def test_the_print_says_what_was_done(fit, model):
    text = repr(fit)
    for piece in (
        "Formula: distance ~ 1 + sex + time + sex:time\n",
        "dropped by GEE: random effects (Intercept, time)",
        "exchangeable, alpha = 0.6100",
        "residual sum of squares / (N - p)",
        "groups: subject, 27",
        "robust (sandwich)",
        "bias_reduced",
        "Prefer se='bias_reduced'",
    ):
        assert piece in text
    assert "/ N, as" in repr(model.fit_gee(scale="n"))
    assert "AR(1), alpha = 0.7593 at a distance of 2 in time" in repr(model.fit_gee("ar1", time="time"))
    assert "unstructured over 4 values of time" in repr(model.fit_gee("unstructured", time="time"))
    page = fit._repr_html_()
    assert "(1 + time | subject)" not in page and "bias_reduced" in page
    copy = pickle.loads(pickle.dumps(fit))
    assert repr(copy) == text


def test_side_by_side(model):
    both = model.compare("reml", "gee")
    assert both.labels == ["REML", "GEE"]
    assert both.wide()["GEE"]["estimate"].notna().sum() == 4
    assert "GEE: robust standard errors" in repr(both)
    both.plot_forest(backend="none")
    both.plot_random_effects(backend="none")
    with pytest.raises(SpecificationError, match="no fit with random effects"):
        both.fits["GEE"].plot_random_effects(backend="none")
    comparison = model.fit_reml().compare_marginal("ar1", time="time", se="naive")
    assert comparison.comparison().labels == ["REML", "GEE, naive", "GEE, robust", "GEE, bias-reduced"]
    wide = comparison.comparison().wide()
    np.testing.assert_allclose(wide["GEE, naive"]["se"].dropna(), comparison.table["naive_se"])
    comparison.plot_forest(backend="none")


def test_a_posterior_is_compared_too(dental):
    model = hl.TwoLevelModel.from_formula("distance ~ sex * time + (1 | subject)", dental)
    fit = model.fit(draws=500, tune=500, chains=2, seed=1, progressbar=False)
    table = fit.compare_marginal().table
    np.testing.assert_allclose(table["mixed"], fit.beta)
    np.testing.assert_allclose(table["mixed_se"], fit.beta_se)


def test_the_command_line_knows_it(tmp_path, dental, capsys):
    from hierlmm.cli import main

    dental.to_csv(tmp_path / "dental.csv", index=False)
    formula = "distance ~ sex * time + (1 | subject)"
    out = tmp_path / "out"
    assert main(["fit", str(tmp_path / "dental.csv"), formula, "--estimators", "reml,gee", "--out", str(out)]) == 0
    assert "Marginal model fitted by GEE" in capsys.readouterr().out
    assert "GEE" in (out / "comparison.csv").read_text()


def test_gee_never_loads_pytensor():
    script = (
        "import hierlmm as hl, sys\n"
        "model = hl.TwoLevelModel.from_formula('distance ~ sex * time + (time | subject)', hl.load_dataset('dental'))\n"
        "fit = model.fit_gee(); repr(fit); fit.summary(); repr(model.fit_ml().compare_marginal())\n"
        "assert 'statsmodels' in sys.modules\n"
        "print(sorted({m.split('.')[0] for m in sys.modules} & {'pymc', 'pytensor', 'nutpie', 'matplotlib', 'arviz'}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"


def test_a_gee_fit_that_is_there_already(dental):
    model = hl.TwoLevelModel.from_formula("distance ~ sex * time + (1 + time | subject)", dental)
    gee, reml = model.fit_gee("independence"), model.fit_reml()
    assert reml.compare_marginal(gee).gee is gee
    pd.testing.assert_frame_equal(reml.compare_marginal(gee).table, reml.compare_marginal("independence").table)
    other = hl.TwoLevelModel.from_formula("distance ~ time + (1 | subject)", dental).fit_gee()
    with pytest.raises(hl.SpecificationError, match="different coefficients") as caught:
        reml.compare_marginal(other)
    with pytest.raises(hl.SpecificationError, match="made already"):
        reml.compare_marginal(gee, time="time")
    with pytest.raises(hl.SpecificationError) as caught:
        hl.TwoLevelModel.from_formula(f"distance ~ time + (1 | {'subject'})", dental).fit_gee(correlation=repr(reml))
    assert "\n" not in caught.value.received and len(caught.value.received) <= 300


def test_a_comparison_speaks_of_random_effects_where_the_model_has_some(dental):
    mean = "distance ~ sex * time"
    with_effects = hl.TwoLevelModel.from_formula(f"{mean} + (1 | subject)", dental).compare("reml", "gee")
    without = hl.MarginalModel(mean, correlation=hl.AR1("time"), subject="subject", data=dental).compare("reml", "gee")
    assert "the random effects are not estimated" in " ".join(str(with_effects).split())
    assert "random effects" not in " ".join(str(without).split())


def test_without_fixed_effects_there_are_no_equations(dental):
    model = hl.TwoLevelModel.from_formula("distance ~ 0 + (1 | subject)", dental)
    with pytest.raises(NotAvailableError, match="without fixed effects"):
        model.fit_gee()
