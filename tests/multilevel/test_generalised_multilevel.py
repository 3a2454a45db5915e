"""Generalised models with several grouping factors: numbers of glmmTMB and lme4, the door, prints, refusals."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from references import HERE, reference, references_of

import hierlmm as hl
from hierlmm.errors import DataError, NotAvailableError, SpecificationError
from hierlmm.inference.refits import simulator

build = hl.MultilevelModel.from_formula
NAMES = sorted(path.stem for path in references_of("factor_families").glob("*.json"))


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return pd.read_csv(HERE / "data" / "factor_families.csv")


@pytest.fixture(scope="module")
def fits(rows: pd.DataFrame) -> dict[str, hl.GeneralisedMultilevelFit]:
    found = {}
    for name in NAMES:
        formula = re.sub(r"cbind\((\w+), (\w+) - \w+\)", r"p(\1, \2)", reference(name, "factor_families")["formula"])
        formula, exposure = re.subn(r"offset\(log\(hours\)\) \+ ", "", formula)
        family = re.match(r"[a-z]+_binomial|[a-z]+", name)[0]
        found[name] = build(formula, rows, family=family, exposure="hours" if exposure else None).fit_ml()
    return found


def ours(names):
    return ["Intercept" if name == "(Intercept)" else name for name in names]


@pytest.mark.parametrize("name", NAMES)
def test_estimates_are_those_of_r(name, fits):
    """glmmTMB at the optimum of its own criterion; lme4's criterion there is the same for canonical links."""
    fit, ref = fits[name], reference(name, "factor_families")
    assert fit.converged and fit.gradient_norm < 1e-6
    assert fit.loglik == pytest.approx(ref["logLik"], abs=1e-7)
    if "lme4" in ref:
        assert fit.loglik == pytest.approx(ref["lme4"]["logLik"], abs=2e-6)
    beta = fit.beta[ours(ref["coef"])]
    np.testing.assert_allclose(beta, list(ref["coef"].values()), atol=1e-6)
    np.testing.assert_allclose(fit.beta_se[ours(ref["se"])], list(ref["se"].values()), rtol=1e-5)
    if ref.get("dispersion"):
        assert fit.dispersion.iloc[0] == pytest.approx(ref["dispersion"], rel=1e-5)
    for factor, own in ref["factors"].items():
        np.testing.assert_allclose(fit.sd_b[factor], own["sd"], rtol=1e-5, atol=1e-6)
        if own.get("corr") is not None:
            assert fit.corr_b[factor].iloc[0, 1] == pytest.approx(own["corr"], abs=1e-5)
        at = pd.Index(fit.b[factor].index.astype(str)).get_indexer([str(level) for level in own["levels"]])
        np.testing.assert_allclose(fit.b[factor].to_numpy()[at], own["modes"], atol=1e-5)
        np.testing.assert_allclose(fit.b_sd[factor].to_numpy()[at], own["conditional_sd"], atol=1e-5)


def test_nested_and_crossed_models_are_tested(fits, rows):
    small, large = fits["bernoulli_crossed"], fits["bernoulli_nested_crossed"]
    row = hl.anova(small, large).table.iloc[1]
    logliks = [reference(f"bernoulli_{kind}", "factor_families")["logLik"] for kind in ("crossed", "nested_crossed")]
    assert row["chisq"] == pytest.approx(2.0 * (logliks[1] - logliks[0]), abs=1e-6)
    assert row["df"] == 1 and row["p_mixture"] == pytest.approx(row["p"] / 2.0)
    assert hl.compare_models(small, large).table["aic"].tolist() == [small.aic, large.aic]
    two = hl.TwoLevelModel.from_formula("correct ~ x + treat + (1 | pupil)", rows, family="bernoulli").fit_ml()
    assert hl.anova(two, large).table["df"].iloc[1] == 2


def test_averaged_coefficients_name_the_factors(fits):
    """Means over pupils and items by simulation of both, projected on the columns of X."""
    fit, rng = fits["bernoulli_crossed"], np.random.default_rng(5)
    found = fit.marginal_coefficients()
    assert "about groups of pupil and item" in repr(found) and "the more groups differ" in " ".join(repr(found).split())
    sd = np.sqrt(sum(float(own.iloc[0]) ** 2 for own in fit.sd_b.values()))
    eta = fit.fitted("population", "link").to_numpy()
    mean = np.mean(1.0 / (1.0 + np.exp(-(eta[:, None] + sd * rng.normal(size=20_000)))), axis=1)
    expected = np.linalg.lstsq(fit.design.X, np.log(mean / (1.0 - mean)), rcond=None)[0]
    np.testing.assert_allclose(found.table["estimate"], expected, atol=0.02)


def test_data_are_drawn_and_fitted_again(fits):
    """Responses of new groups: their mean over many draws is that over the random effects, μ exp(½ z'Dz) here."""
    fit = fits["poisson_slopes"]
    draw, rng = simulator(fit), np.random.default_rng(0)
    Z = fit.design.Z
    mean = fit.fitted("population") * np.exp(0.5 * np.einsum("ij,jk,ik->i", Z, fit.solution.D, Z))
    assert np.mean([draw(rng).mean() for _ in range(400)]) == pytest.approx(mean.mean(), rel=0.05)
    found = fit.bootstrap(3, seed=1, progressbar=False)
    assert found.draws.shape[0] == 3 and "item" in repr(found)
    np.testing.assert_allclose(found.table()["estimate"].head(3), fit.beta)


def test_a_comparison_has_the_components_by_factor(fits):
    fit = fits["negative_binomial_crossed"]
    found = hl.compare(fit)
    table, said = found.table.set_index("parameter")["estimate"], " ".join(repr(found).split())
    assert "given their random effects" in said and "subject" not in said
    assert ("random slopes" in said) == any("x" in sd.index for sd in fit.sd_b.values())
    for factor in ("pupil", "item"):
        assert table[f"sd(Intercept | {factor})"] == fit.sd_b[factor].iloc[0]
    assert table["shape"] == fit.dispersion["shape"] and table["x"] == fit.beta["x"]


def test_one_factor_is_a_two_level_model(rows):
    formula = "counts ~ x + (1 | pupil)"
    one = build(formula, rows, family="poisson", exposure="hours").fit_ml()
    two = hl.TwoLevelModel.from_formula(formula, rows, family="poisson", exposure="hours").fit_ml()
    assert type(one) is hl.GeneralisedFit and one.criterion == two.criterion


def test_levels_and_trials_are_those_of_a_formula(rows):
    levels = {"pupil": "1", "school": "treat"}
    stated = hl.MultilevelModel("right ~ x", levels, data=rows, family="binomial", trials="trials")
    model = build("p(right, trials) ~ x + treat + (1 | school) + (1 | school:pupil)", rows, family="binomial")
    assert stated.design.family == model.design.family and stated.formula == model.formula
    assert repr(model).endswith("Fit with .fit() (NUTS) or .fit_ml().")
    np.testing.assert_array_equal(stated.design.trials, rows["trials"])


def test_a_variance_of_zero_is_told(rows):
    """Groups drawn at random share nothing."""
    rows = rows.assign(day=np.random.default_rng(4).permutation(len(rows)) % 12)
    fit = build("correct ~ x + (1 | pupil) + (1 | day)", rows, family="bernoulli").fit_ml()
    assert fit.converged and fit.is_singular and fit.sd_b["day"].iloc[0] == 0.0
    assert any("no variation in Intercept | day between their groups" in said for said in fit.warnings)
    assert np.all(fit.b["day"] == 0.0) and fit.variance_components().loc["sd(Intercept | day)", "se":].isna().all()


def test_probabilities_of_ordered_categories(rows):
    rows = rows.assign(grade=np.minimum(rows["counts"], 2))
    fit = build("grade ~ x + (1 | pupil) + (1 | item)", rows, family="ordinal").fit_ml()
    found = fit.probabilities()
    assert list(found.columns) == [0, 1, 2] and np.allclose(found.sum(axis=1), 1.0)
    line = fit.fitted("pupil", "link")
    np.testing.assert_allclose(fit.probabilities(level="pupil")[0], 1.0 / (1.0 + np.exp(line)), rtol=1e-7)
    with pytest.raises(NotAvailableError, match="a category has no mean"):
        fit.predict()


def test_predictions_of_successes_count_trials(fits, rows):
    fit = fits["binomial_rows"]
    np.testing.assert_allclose(fit.predict()["estimate"], fit.fitted(), rtol=1e-12)
    shares = fit.predict(rows, level="pupil", trials=1)["estimate"]
    np.testing.assert_allclose(shares * rows["trials"], fit.predict(rows, level="pupil")["estimate"], rtol=1e-12)
    with pytest.raises(DataError, match="item 'new'"):
        fit.predict(rows.assign(item="new"))


def test_a_saved_fit_comes_back(fits, tmp_path):
    for name in ("poisson_slopes", "binomial_rows"):
        fit = fits[name]
        again = hl.load_fit(fit.save(tmp_path / f"{name}.nc"))
        assert type(again) is hl.GeneralisedMultilevelFit and repr(again) == repr(fit)
        np.testing.assert_array_equal(again.design.offset, fit.design.offset)
        np.testing.assert_allclose(again.b["item"], fit.b["item"], rtol=1e-10)


def test_prints_say_how_random_effects_were_integrated_out(fits):
    text = repr(fits["bernoulli_crossed"])
    assert "Generalised multilevel model fitted by maximum likelihood (Laplace approximation)" in text
    assert "groups: pupil, 45; item, 8" in text and "Family: Bernoulli (logit link)" in text


@pytest.mark.parametrize(
    ("formula", "options", "kind", "match"),
    [
        ("correct ~ x + (1 | row) + (1 | item)", {"family": "bernoulli"}, DataError, "as many groups as rows"),
        ("time ~ x + (1 | pupil) + (1 | item)", {"family": "student_t"}, NotAvailableError, "log-concave"),
        ("time ~ x + (1 | pupil) + (1 | item)", {"exposure": "hours"}, SpecificationError, "needs a log link"),
        ("time ~ x + (1 | pupil) + (1 | item)", {"family": "poisson"}, DataError, "counts are whole numbers"),
        ("right ~ x + (1 | pupil) + (1 | item)", {"family": "binomial"}, SpecificationError, "number of trials"),
        ("p(right, hours) ~ x + (1 | pupil) + (1 | item)", {"family": "binomial"}, DataError, "fractions"),
    ],
)
def test_what_says_no_model_is_refused(formula, options, kind, match, rows):
    with pytest.raises(kind, match=match):
        build(formula, rows, **options)


def test_quadrature_is_of_one_factor(rows):
    with pytest.raises(SpecificationError, match="hang together"):
        build("correct ~ x + (1 | pupil) + (1 | item)", rows, family="bernoulli").fit_ml(n_quadrature=9)
    one = build("correct ~ x + (1 | pupil)", rows, family="bernoulli").fit_ml(n_quadrature=9)
    assert one.n_quadrature == 9


def test_reml_is_of_a_normal_response(rows):
    with pytest.raises(NotAvailableError, match=r"fit_ml\(\)"):
        build("correct ~ x + (1 | pupil) + (1 | item)", rows, family="bernoulli").fit_reml()
