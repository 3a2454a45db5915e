"""The front door of several grouping factors: numbers of lme4 and lmerTest, prints, predictions, refusals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from references import reference

import hierlmm as hl
from hierlmm.errors import DataError, FormulaError, HierlmmError, NotAvailableError, SpecificationError
from hierlmm.likelihood.several_factors import FactorProducts
from hierlmm.predict.factors import Equations, rows_to_predict

build = hl.MultilevelModel.from_formula


@pytest.fixture(scope="module")
def penicillin():
    return build("diameter ~ 1 + (1 | plate) + (1 | sample)", hl.load_dataset("penicillin")).fit_ml()


@pytest.fixture(scope="module")
def nested_ml(pastes):
    return build("strength ~ 1 + (1 | batch / cask)", pastes).fit_ml()


def test_nested_factors_have_the_numbers_of_lme4(nested):
    ref = reference("pastes_nested_reml", "factors")["optimum"]
    names = {"batch": "batch", "batch:cask": "cask:batch"}
    assert_lme4(nested, ref, names, lambda label: ":".join(reversed(str(label).split(":"))))


def test_crossed_factors_have_the_numbers_of_lme4(penicillin):
    ref = reference("penicillin_crossed_ml", "factors")["optimum"]
    assert_lme4(penicillin, ref, {"plate": "plate", "sample": "sample"}, str)


def assert_lme4(fit, ref, names, label):
    assert fit.loglik == pytest.approx(ref["logLik"], rel=1e-9)
    np.testing.assert_allclose(fit.beta, list(ref["coef"].values()), rtol=1e-7)
    np.testing.assert_allclose(fit.beta_se, list(ref["se"].values()), rtol=1e-6)
    assert fit.sigma == pytest.approx(ref["sigma"], rel=1e-6)
    sds = {row["group"]: row["sdcor"] for row in ref["varcorr"]}
    for name, theirs in names.items():
        assert fit.sd_b[name]["Intercept"] == pytest.approx(sds[theirs], rel=1e-6)
        modes = ref["modes"][theirs]
        at = pd.Index([label(own) for own in fit.b[name].index]).get_indexer(modes["levels"])
        np.testing.assert_allclose(fit.b[name].to_numpy()[at], modes["blup"], atol=1e-6)
        np.testing.assert_allclose(fit.b_cov[name][at], modes["condvar"], rtol=1e-5)
        np.testing.assert_allclose(fit.b_sd[name].to_numpy() ** 2, fit.b_cov[name][:, 0], rtol=1e-12)


def test_degrees_of_freedom_are_those_of_lmertest_and_pbkrtest(nested):
    assert nested.summary(df="satterthwaite")["df"].iloc[0] == pytest.approx(8.99999754, rel=1e-3)
    found = nested.summary(df="kenward-roger").iloc[0]
    assert (found["df"], found["se"]) == (pytest.approx(9.0, rel=1e-4), pytest.approx(0.676870215, rel=1e-4))


def test_profile_intervals_are_those_of_lme4(nested_ml, penicillin):
    """`confint(fit, method="profile")` of lme4 1.1-31; it interpolates, so that it has three or four digits."""
    found = nested_ml.variance_components(method="profile")[["lower", "upper"]]
    expected = [[0.0, 2.94659], [2.15793, 4.05359], [0.652023, 1.085448]]
    np.testing.assert_allclose(found, expected, rtol=1e-3)
    assert list(found.index) == ["sd(Intercept | batch)", "sd(Intercept | batch:cask)", "sigma"]
    found = penicillin.variance_components(method="profile")[["lower", "upper"]]
    expected = [[0.633566, 1.182104], [1.095789, 3.556292], [0.485845, 0.629453]]
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_nested_models_are_tested_as_in_lme4(nested_ml, pastes):
    """``anova(m0, m)`` of lme4; the null value is at the boundary, where half of p belongs."""
    alone = build("strength ~ 1 + (1 | batch:cask)", pastes).fit_ml()
    row = hl.anova(nested_ml, alone).table.iloc[1]
    assert (row["chisq"], row["p"]) == (pytest.approx(0.40723, abs=1e-4), pytest.approx(0.52338, abs=1e-4))
    assert row["p_mixture"] == pytest.approx(0.52338 / 2, abs=1e-4)
    assert hl.compare_models(nested_ml, alone).table["aic"].tolist() == pytest.approx([255.99447, 254.40170], abs=1e-4)
    batch = hl.TwoLevelModel.from_formula("strength ~ 1 + (1 | batch)", pastes).fit_ml()
    assert hl.anova(nested_ml, batch).table["df"].iloc[1] == 1


def test_models_with_other_factors_are_not_nested(pastes, nested_ml, pupils):
    rows = pupils.assign(half=pupils["school"] % 4)
    one = build("y ~ x + (1 | rater) + (1 | half)", rows)
    other = build("y ~ x + (x | school) + (1 | rater) + (1 | school:class)", rows)
    fits = [nearest(model, n) for model, n in ((one, 2), (other, 5))]
    with pytest.raises(SpecificationError, match="half is no grouping factor of the larger"):
        hl.anova(*fits)
    smaller = nearest(build("y ~ x + (1 | rater) + (1 | school)", rows), 2)
    row = hl.anova(smaller, fits[1]).table.iloc[1]
    assert row["df"] == 3 and row["p_mixture"] < row["p"]


def test_one_factor_against_another_is_of_the_same_rows(penicillin):
    """Information criteria, and no likelihood-ratio test of one factor within another."""
    rows = hl.load_dataset("penicillin")
    plate, sample = (build(f"diameter ~ 1 + (1 | {g})", rows).fit_ml() for g in ("plate", "sample"))
    both = penicillin
    found = hl.compare_models(plate, sample, both)
    assert found.table["aic"].tolist() == pytest.approx(
        [2 * f.n_parameters - 2 * f.loglik for f in (plate, sample, both)]
    )
    assert found.differences["se"].isna().all()
    with pytest.raises(SpecificationError, match="none has more to test"):
        hl.anova(plate, sample)
    for small in (plate, sample):
        assert hl.anova(small, both).table["df"].iloc[1] == 1
    slope = rows.assign(x=np.random.default_rng(1).normal(size=len(rows)))
    larger = nearest(build("diameter ~ 1 + (x | sample)", slope), 3)
    with pytest.raises(SpecificationError, match="plate is no grouping factor of the larger"):
        hl.anova(build("diameter ~ 1 + (1 | plate)", slope).fit_reml(), larger)
    with pytest.raises(SpecificationError, match="grouping factors \\(plate and sample\\)"):
        hl.compare(plate, sample)
    serial = hl.MarginalModel("diameter ~ 1", correlation=hl.CompoundSymmetry(), subject="plate", data=rows).fit_ml()
    with pytest.raises(SpecificationError, match="residuals have a structure by plate"):
        hl.anova(serial, both)
    plain = hl.MarginalModel("diameter ~ 1", subject="plate", data=rows).fit_ml()
    assert hl.anova(plain, sample).table["df"].iloc[1] == 1  # without residual structure no group matters
    moved = rows.assign(plate=np.roll(rows["plate"].to_numpy(), 1))
    with pytest.raises(DataError, match="other subjects in the rows, by plate"):
        hl.anova(both, build("diameter ~ 1 + (1 | plate)", moved).fit_ml())


def nearest(model, n):
    from hierlmm.fit.make import fit_of
    from hierlmm.likelihood.estimate import LikelihoodEstimate, make_criterion
    from hierlmm.likelihood.maximise import maximise

    criterion = make_criterion(model.design, reml=True)
    return fit_of(LikelihoodEstimate(model.design, criterion, maximise(criterion, np.ones(n))))


def test_shares_of_variance_by_factor(nested):
    shares = nested.intraclass_correlation(method="profile").table
    assert nested.icc.to_dict() == pytest.approx({"batch": 0.153897, "batch:cask": 0.783145}, abs=1e-5)
    np.testing.assert_allclose(shares["estimate"], nested.icc, rtol=1e-9)
    assert shares["lower"]["batch"] == 0.0 and np.all(shares["lower"] <= shares["estimate"])


def test_levels_and_a_formula_say_the_same_model(pastes, nested):
    model = hl.MultilevelModel("strength ~ 1", {"cask": "1", "batch": "1"}, data=pastes)
    assert model.formula == nested.design.hierarchy.formula == "strength ~ 1 + (1 | batch) + (1 | batch:cask)"
    rows = pastes.assign(temp=pastes["batch"].astype("category").cat.codes % 3, x=np.arange(60) % 7)
    model = hl.MultilevelModel("strength ~ x", {"cask": "1", "batch": "temp"}, data=rows)
    assert model.formula == "strength ~ 1 + x + temp + (1 | batch) + (1 | batch:cask)"
    assert build(model.formula, rows).hierarchy == model.hierarchy


def test_levels_with_the_coarsest_first_are_noticed(pastes):
    """By labels that start anew in every batch, all of them or the first few; labels used once leave no doubt."""
    wrong, right = {"batch": "1", "cask": "1"}, {"cask": "1", "batch": "1"}
    few = pastes[(pastes["cask"] != "c") | (pastes["batch"] != "B")]
    noticed = r"cask \(a, b, c\) start anew in every batch.*{'cask': ..., 'batch': ...}"
    for rows in (pastes, few, few[few["batch"].isin(list("ABC"))]):  # of three batches, B has no cask c
        with pytest.warns(hl.FitWarning, match=noticed):
            hl.MultilevelModel("strength ~ 1", wrong, data=rows)
        assert hl.MultilevelModel("strength ~ 1", right, data=rows)
    own = pastes.assign(cask=pastes["batch"].astype(str) + pastes["cask"].astype(str))
    with pytest.raises(SpecificationError, match=r"each cask lies in one batch(.|\n)*finest first: {'cask'"):
        hl.MultilevelModel("strength ~ 1", wrong, data=own)
    assert hl.MultilevelModel("strength ~ 1", right, data=own)
    twice = pastes.loc[pastes.index.repeat(2)].assign(half=np.arange(120) // 2 % 2, strength=np.arange(120) % 7)
    assert hl.MultilevelModel("strength ~ 1", {"half": "1", **right}, data=twice)


@pytest.mark.parametrize(
    ("response", "levels", "kind", "match"),
    [
        ("strength ~ 1", {"cask": "1", "batch": "x"}, SpecificationError, "varies within batch 'A'"),
        ("strength ~ 1", {"cask": "x", "batch": "1"}, SpecificationError, "varies within cask 'A:a'"),
        ("strength ~ 1", {"cask": "1", "batch": "0 + temp"}, SpecificationError, "no intercept that could vary"),
        ("strength ~ 1", {"cask": 1}, SpecificationError, "which is text"),
        ("strength ~ 1", {}, SpecificationError, "nothing that varies"),
        ("strength ~ 1", {"cask": "1", "btch": "1"}, DataError, "'btch'"),
        ("strength ~ (1 | batch)", {"cask": "1"}, FormulaError, "once more"),
    ],
)
def test_levels_that_say_no_model_are_refused(response, levels, kind, match, pastes):
    rows = pastes.assign(x=np.arange(60) % 7, temp=1.0)
    with pytest.raises(HierlmmError, match=match) as caught:
        hl.MultilevelModel(response, levels, data=rows)
    assert isinstance(caught.value, kind)


def test_one_factor_is_a_two_level_model():
    sleep, formula = hl.load_dataset("sleepstudy"), "reaction ~ days + (days | subject)"
    one, two = build(formula, sleep).fit_reml(), hl.TwoLevelModel.from_formula(formula, sleep).fit_reml()
    assert type(one) is hl.LikelihoodFit and one.criterion == two.criterion
    pd.testing.assert_frame_equal(one.summary(), two.summary())


def test_the_two_level_door_points_here(pastes):
    for formula in ("strength ~ (1 | batch / cask)", "strength ~ (1 | batch) + (1 | cask)"):
        with pytest.raises(FormulaError, match=r"hl\.MultilevelModel\.from_formula"):
            hl.TwoLevelModel.from_formula(formula, pastes)


def test_models_and_fits_print_their_levels(nested, penicillin, pastes):
    lines = repr(nested).splitlines()
    at = lines.index("Random effects:")
    assert lines[at + 1 : at + 6] == [
        " Groups      Name       Variance  Std.Dev.",
        " batch:cask  Intercept    8.4337    2.9041",
        " batch       Intercept    1.6573    1.2874",
        " Residual                  0.678   0.82341",
        "Number of obs: 60, groups: batch:cask, 30; batch, 10",
    ]
    text = repr(build("strength ~ 1 + (1 | batch / cask)", pastes))
    assert "batch:cask is nested in batch." in text and "batch:cask      30             2  Intercept" in text
    assert "plate, 24; sample, 6" in repr(penicillin)
    crossed = build("diameter ~ 1 + (1 | plate) + (1 | sample)", hl.load_dataset("penicillin"))
    assert "plate and sample are crossed: all 144 combinations occur." in repr(crossed)
    assert "<pre>" in crossed._repr_html_() and "batch:cask" in nested._repr_html_()


def test_new_rows_have_the_effects_of_the_groups_that_are_known(nested, pastes):
    """`predict(fit, ..., allow.new.levels = TRUE)` of lme4."""
    rows = pd.DataFrame({"batch": ["A", "A", "Z"], "cask": ["a", "d", "a"]})
    found = nested.predict(rows, new_groups="allow")["estimate"]
    np.testing.assert_allclose(found, [62.6286646387, 60.8539783534, 60.0533333333], rtol=1e-7)
    assert nested.predict(rows[:2], level="batch")["estimate"].tolist() == pytest.approx([60.8539783534] * 2)
    assert nested.predict(rows[["batch"]], level="population")["estimate"].tolist() == pytest.approx(
        [60.0533333333] * 3
    )
    again = nested.predict(pastes)
    pd.testing.assert_series_equal(again["estimate"], nested.fitted(), check_names=False)
    for level, data, match in [
        ("all", rows, "batch:cask 'A:d', 'Z:a' at level='all'|batch 'Z' at level='all'"),
        ("batch", rows, "batch 'Z' at level='batch'"),
        ("all", rows[["batch"]], "'cask'"),
        ("cask", rows, "no such level, and no such factor"),
    ]:
        with pytest.raises(DataError, match=match):
            nested.predict(data, level=level)


@pytest.mark.parametrize(("level", "names"), [("all", 3), ("school:class", 2), ("rater", 1), ("population", 0)])
def test_errors_of_predictions_are_those_of_the_definition(level, names, fit, dense):
    """z'Dz − c'V⁻¹c + (x − X'V⁻¹c)'Φ(x − X'V⁻¹c), c the covariance of a row's random effects with all responses."""
    inside = {3: list(dense.D), 2: ["school", "school:class"], 1: ["rater"], 0: []}[names]
    rows = rows_to_predict(fit.design, None, level, "refuse")
    line, variance = Equations(fit.design).at(fit.solution, rows)
    np.testing.assert_allclose(line, fit.fitted(level), rtol=1e-8)
    c = sum((dense.parts[name] for name in inside), np.zeros_like(dense.V))
    gap = dense.X - c @ dense.W @ dense.X
    expected = np.diag(c) - np.einsum("ij,jk,ik->i", c, dense.W, c)
    expected += np.einsum("ij,jk,ik->i", gap, dense.beta_cov, gap)
    np.testing.assert_allclose(variance, expected, rtol=1e-7)
    table = fit.predict(level=level, interval="confidence")
    assert np.all(table["se"] >= np.sqrt(expected) * (1.0 - 1e-9))
    more = fit.predict(level=level, interval="prediction")
    np.testing.assert_allclose(more["se"] ** 2 - table["se"] ** 2, fit.sigma**2, rtol=1e-7)


def test_intervals_are_those_of_two_levels_where_the_other_factor_has_no_variance(pastes):
    """Subject, population and new subject, with the uncertainty of θ and degrees of freedom."""
    rows = pastes.assign(strength=pastes["strength"] - pastes.groupby("batch")["strength"].transform("mean"))
    fit = build("strength ~ 1 + (1 | batch / cask)", rows).fit_reml()
    two = hl.TwoLevelModel.from_formula("strength ~ 1 + (1 | sample)", rows).fit_reml()
    new = pd.DataFrame({"batch": ["A"], "cask": ["new"]})
    for interval in ("confidence", "prediction"):
        for level, theirs in (("all", "subject"), ("population", "population")):
            found, expected = fit.predict(None, level, interval), two.predict(None, theirs, interval)
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
        found = fit.predict(new, "all", interval, new_groups="allow")
        expected = two.predict(pd.DataFrame(index=[0]), "new_subject", interval)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_labels_of_another_type_are_other_labels(fit, pupils):
    rows = pupils.head(3)
    np.testing.assert_allclose(fit.predict(rows)["estimate"], fit.fitted()[:3])
    with pytest.raises(DataError, match="school:class"):
        fit.predict(rows.assign(**{"class": rows["class"].astype(str)}), level="school:class")


def test_combinations_of_dates_and_categories_are_known_again(pupils):
    rows = pupils.assign(
        day=pd.Timestamp("2026-01-01") + pd.to_timedelta(pupils["school"], unit="D"),
        room=pd.Categorical(pupils["class"].map("abc".__getitem__), categories=list("zcba")),
    )
    fit = nearest(build("y ~ x + (1 | day / room)", rows), 2)
    np.testing.assert_allclose(fit.predict(rows)["estimate"], fit.fitted())


def test_labels_that_start_anew_are_said_to_look_nested():
    rng = np.random.default_rng(2)
    rows = pd.DataFrame({"school": rng.integers(0, 6, 150)})
    rows["class"], rows["y"] = rng.integers(0, 10**6, 150) % (2 + rows["school"] % 3), rng.normal(size=150)
    with pytest.warns(hl.FitWarning, match=r"write \(1 \| school / class\)"):
        build("y ~ (1 | school) + (1 | class)", rows)


def test_a_variance_of_zero_is_said_of_its_factor(pastes):
    rows = pastes.assign(strength=pastes["strength"] - pastes.groupby("batch")["strength"].transform("mean"))
    fit = build("strength ~ 1 + (1 | batch / cask)", rows).fit_reml()
    (said,) = fit.warnings
    assert fit.is_singular and "no variation in Intercept | batch between their groups" in said
    assert "or fit by NUTS" in said and "subject" not in said
    assert fit.sd_b["batch"]["Intercept"] < 1e-6 < fit.sd_b["batch:cask"]["Intercept"]
    assert np.isnan(fit.variance_components().loc["sd(Intercept | batch)", "lower"])
    assert np.all(fit.b["batch"].abs() < 1e-9) and np.all(fit.b_sd["batch"] < 1e-6)


def test_a_search_that_was_not_global_says_so(pastes, nested, monkeypatch):
    monkeypatch.setattr(FactorProducts, "is_small", property(lambda self: False))
    fit = build("strength ~ 1 + (1 | batch / cask)", pastes).fit_reml()
    assert fit.criterion == pytest.approx(nested.criterion, rel=1e-12)
    assert "No global search (it would take long): one descent" in repr(fit) and "Global" in repr(nested)


def test_values_by_factor_are_a_mapping_that_nothing_changes(nested):
    b = nested.b
    assert list(b) == ["batch", "batch:cask"] and len(b) == 2 and "cask" not in b and b.get("cask") is None
    assert b["batch"].shape == (10, 1) and b.get("batch").equals(b["batch"])
    assert "b['batch:cask']\n" in repr(b) and repr(b).endswith("(30 rows)")
    with pytest.raises(DataError, match=r"use one of 'batch', 'batch:cask'"):
        b["cask"]
    own = b["batch"]
    own.iloc[0, 0] = 99.0
    assert nested.b["batch"].iloc[0, 0] != 99.0
    with pytest.raises(ValueError, match="read-only"):
        nested.b_cov["batch"][0, 0, 0] = 1.0
    with pytest.raises(AttributeError):
        b.more = 1


def test_options_that_go_by_subjects_are_refused(nested):
    with pytest.raises(NotAvailableError, match="scores of independent subjects"):
        nested.summary(se="empirical")
    with pytest.raises(NotAvailableError, match="subject by subject"):
        nested.summary(method="profile")
    with pytest.raises(NotAvailableError, match="normalized"):
        nested.residuals("normalized", "batch")
    np.testing.assert_array_equal(nested.residuals("normalized"), nested.residuals("pearson"))
    with pytest.raises(DataError, match="no row that was fitted"):
        nested.marginal_covariance([0, 1000])


def test_other_families_and_arguments_are_refused(pastes):
    formula = "strength ~ 1 + (1 | batch / cask)"
    with pytest.raises(NotAvailableError, match="log-concave"):
        build(formula, pastes, family="student_t")
    with pytest.raises(SpecificationError, match=r"independent with one variance\n.*use hl.TwoLevelModel with one"):
        build(formula, pastes, residual=hl.AR1())
    with pytest.raises(SpecificationError, match=r"use \|\| in the formula"):
        build(formula, pastes, covariance="diagonal")
    with pytest.raises(SpecificationError, match="levels, a right-hand side"):
        hl.MultilevelModel("strength ~ 1", {"batch": "1"}, subject="batch", data=pastes)
    with pytest.raises(DataError, match="called 'all'"):
        build("strength ~ 1 + (1 | all) + (1 | sample)", pastes.assign(all=pastes["batch"]))


def test_a_saved_fit_comes_back(nested, fit, tmp_path):
    for k, own in enumerate((nested, fit)):
        again = hl.load_fit(own.save(tmp_path / f"{k}.nc"))
        assert type(again) is hl.MultilevelFit and repr(again) == repr(own)
        for name in own.b:
            np.testing.assert_array_equal(again.b[name], own.b[name])
    with pytest.raises(NotAvailableError, match="from its rows"):
        nested.save(tmp_path / "rows.nc", data=False)


def test_one_combination_is_saved_with_its_formula(pastes, tmp_path):
    fit = build("strength ~ 1 + (1 | batch:cask)", pastes).fit_ml()
    assert hl.load_fit(fit.save(tmp_path / "one.nc")).design.hierarchy == fit.design.hierarchy
    assert build(fit.design.hierarchy.formula, pastes).formula == "strength ~ 1 + (1 | batch:cask)"


def test_covariates_of_known_groups_are_what_they_were(pastes):
    """As with two levels: the effects of a batch are its departure from what its own covariate predicts."""
    heat = {label: float(k) for k, label in enumerate(pd.unique(pastes["batch"]))}
    rows = pastes.assign(heat=pastes["batch"].map(heat).astype(float))
    fit = build("strength ~ heat + (1 | batch / cask)", rows).fit_ml()
    own = rows.iloc[[0]]
    np.testing.assert_allclose(fit.predict(own)["estimate"], fit.fitted().iloc[0])
    with pytest.raises(DataError, match=r"'heat' = 7\.0 for batch 'A'"):
        fit.predict(own.assign(heat=7.0), level="batch")
    new = own.assign(heat=7.0, batch="Z")
    assert len(fit.predict(new, new_groups="allow")) == 1 and len(fit.predict(own.assign(heat=7.0), "population")) == 1


def test_one_combined_factor_predicts_by_its_columns(pastes, tmp_path):
    """The combination is no column of the table: it is put together as it was for the fit."""
    rows = pastes.assign(cask=pastes["cask"].astype(str), strength=pastes["strength"].where(pastes.index != 3))
    with pytest.warns(UserWarning, match="missing"):
        fit = build("strength ~ 1 + (1 | batch:cask)", rows, missing="drop").fit_reml()
    complete = rows.drop(index=3)
    assert np.array_equal(fit.predict(complete)["estimate"], fit.predict()["estimate"])
    again = hl.load_fit(fit.save(tmp_path / "one.nc"))
    assert np.array_equal(again.predict(complete)["estimate"], fit.predict()["estimate"])
    named = complete.assign(**{"batch:cask": complete["batch"].astype(str) + ":" + complete["cask"]})
    assert np.array_equal(fit.predict(named)["estimate"], fit.predict()["estimate"])
    with pytest.raises(DataError, match="batch:cask 'A:z' at level='subject'"):
        fit.predict(complete.head(1).assign(cask="z"))
    assert len(fit.predict(complete.head(1)[["batch"]], level="new_subject")) == 1
    with pytest.raises(DataError, match="without the subject column 'cask'"):
        fit.predict(complete[["batch"]])
