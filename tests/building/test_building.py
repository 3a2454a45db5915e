"""Ladders: what is asked, what is kept and why, and that everything that was looked at is told."""

import numpy as np
import pandas as pd
import pytest

import hierlmm as hl
from hierlmm.building.terms import with_fixed


def lines(sd_slope, rho=0.0, subjects=60, rows=6, seed=3):
    """Subjects' lines, with residuals of an autoregression."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"g": np.repeat(np.arange(subjects), rows), "t": np.tile(np.arange(float(rows)), subjects)})
    b = rng.normal(size=(subjects, 2)) * [1.5, sd_slope]
    half = np.linalg.cholesky(rho ** np.abs(np.subtract.outer(np.arange(rows), np.arange(rows))))
    e = (rng.normal(size=(subjects, rows)) @ half.T).ravel()
    return frame.assign(y=b[frame["g"], 0] + (0.4 + b[frame["g"], 1]) * frame["t"] + e)


def built(frame, **options):
    return hl.build_random(hl.TwoLevelModel.from_formula("y ~ t + (1 | g)", frame), **options)


def chosen(result):
    return result.table.index[result.table["chosen"]].to_list()


def test_intercepts_are_enough_where_nothing_else_varies():
    result = built(lines(0.0))
    assert chosen(result) == ["intercepts"]
    assert list(result.path["decision"]) == ["kept", "not kept", "not kept", "not kept"]
    assert list(result.path["larger"])[2:] == ["intercepts, variance along t", "intercepts + AR1"]
    assert isinstance(result.model, hl.TwoLevelModel)
    assert result.model.formula == "y ~ 1 + t + (1 | g)"
    # The tests are those of hl.anova, on the same models.
    frame = lines(0.0)
    fits = [hl.TwoLevelModel.from_formula(f"y ~ t + ({bar} | g)", frame).fit_reml() for bar in ("1", "t")]
    row, table = result.path.iloc[1], hl.anova(*fits).table
    assert row["p"] == pytest.approx(table["p_mixture"].iloc[1])
    assert result.table.loc["slopes", "loglik"] == pytest.approx(fits[1].loglik, abs=1e-8)


def test_slopes_and_their_correlation():
    result = built(lines(0.8))
    assert chosen(result) == ["slopes"]
    assert {"no random effects", "intercepts", "slopes", "curves", "slopes, uncorrelated"} <= set(result.table.index)
    assert result.model.formula == "y ~ 1 + t + (1 + t | g)"
    assert result.model.fit_reml().loglik == pytest.approx(result.table.loc["slopes", "loglik"], abs=1e-8)


def test_a_serial_term():
    result = built(lines(0.0, rho=0.7, subjects=80))
    assert result.model.residual == hl.AR1("t")
    assert result.path.iloc[-1]["decision"] == "kept"


def test_residual_variances_are_asked_for(dental):
    """The residual variance of the girls is smaller, and so is that of most girls: both are asked for, one is kept."""
    girls = dental.loc[dental["sex"] == "Female", "subject"].unique()
    data = dental.assign(most=np.where(dental["subject"].isin(girls[:9]), "yes", "no"))
    model = hl.TwoLevelModel.from_formula("distance ~ sex * time + most + (1 | subject)", data)
    result = hl.build_random(model)
    asked = result.path.set_index("larger")
    names = [f"intercepts, variance {how}" for how in ("by sex", "by most", "along time")]
    assert list(asked.loc[names, "decision"]) == ["kept", "not kept", "not kept"]
    assert set(asked.loc[names, "smaller"]) == {"intercepts"}
    assert "intercepts, variance by sex has a lower BIC" in asked.loc[names[1], "reason"]
    assert result.model.residual_variance == hl.VarIdent("sex")
    fits = [m.fit_reml() for m in (model, result.model)]
    assert asked.loc[names[0], "chisq"] == pytest.approx(2.0 * (fits[1].loglik - fits[0].loglik), abs=1e-6)
    given = hl.build_random(result.model)  # what the model states is not asked for again
    assert not any("variance" in name for name in given.table.index)
    assert any("Taken as given: VarIdent('sex')" in note for note in given.notes)


def test_the_time_that_is_named_is_that_of_every_rung():
    frame = lines(0.0, rho=0.7, subjects=80).assign(x=np.random.default_rng(1).normal(size=480))
    model = hl.TwoLevelModel.from_formula("y ~ t + x + (1 | g)", frame)
    unnamed = hl.build_random(model)
    assert any("serial correlation: it is not known which column is the time" in note for note in unnamed.notes)
    assert hl.build_random(model, time="t").model.residual == hl.AR1("t")


def test_nothing_is_silent():
    result = built(lines(0.0))
    text = " ".join(repr(result).split())
    for name in result.table.index:
        assert f"{name}: y ~" in text
    for row in result.path.itertuples():
        assert row.question in text
        assert row.reason in text
    assert "do not know that it was chosen" in text
    assert "<table>" in result._repr_html_()


def test_without_a_time_and_of_a_family(patients):
    data = hl.load_dataset("dyestuff")
    result = hl.build_random(hl.TwoLevelModel.from_formula("yield ~ 1 + (1 | batch)", data))
    assert list(result.table.index) == ["no random effects", "intercepts"]
    assert any("No column is known to be the time" in note for note in result.notes)
    model = hl.TwoLevelModel.from_formula("seizures ~ week + (1 | patient)", patients, family="poisson")
    result = hl.build_random(model)
    assert result.estimator == "ML"
    assert result.model.design.family.name == "poisson"
    assert result.path["method"].iloc[0] == "½χ²(0) + ½χ²(1)"


def test_complex_terms_are_tested_first_and_as_a_whole(dental):
    model = hl.TwoLevelModel.from_formula("distance ~ sex * ns(time, 2) + (1 | subject)", dental)
    result = hl.drop_terms(model)
    assert list(result.path["decision"]) == ["kept", "dropped", "reported"]
    assert result.model.formula == "distance ~ 1 + sex + time + sex:time + (1 | subject)"
    fits = [
        hl.TwoLevelModel.from_formula(f"distance ~ {fixed} + (1 | subject)", dental).fit_ml()
        for fixed in ("sex * ns(time, 2)", "sex + ns(time, 2)", "sex * time")
    ]
    expected = [2.0 * (fits[0].loglik - fit.loglik) for fit in fits[1:]]
    assert result.path["chisq"].iloc[:2].to_list() == pytest.approx(expected, abs=1e-8)


def test_main_effects_stay(dental):
    data = dental.assign(noise=np.random.default_rng(2).normal(size=27)[dental["subject"].to_numpy() - 1])
    result = hl.drop_terms(hl.TwoLevelModel.from_formula("distance ~ sex + time + noise + (1 | subject)", data))
    row = result.path.set_index("smaller").loc["without noise"]
    assert row["p"] > 0.05
    assert row["decision"] == "reported"
    assert "noise" in result.model.formula


def test_a_marginal_model_and_structures_stay(dental):
    structure = {"correlation": hl.CompoundSymmetry(), "variance": hl.VarIdent("sex")}
    model = hl.MarginalModel("distance ~ sex * I(time ** 2) + time", subject="subject", data=dental, **structure)
    result = hl.drop_terms(model)
    assert isinstance(result.model, hl.MarginalModel)
    assert (result.model.correlation, result.model.variance) == tuple(structure.values())
    assert "without nonlinear terms" in result.table.index or "without interactions" in result.table.index
    with pytest.raises(hl.SpecificationError, match=r"no random effects to choose(.|\n)*hl.compare_models"):
        hl.build_random(model)
    with pytest.raises(hl.SpecificationError, match="level of a test"):
        hl.drop_terms(model, alpha=1.5)


@pytest.mark.parametrize("bars", ["(1 | subject)", "(time || subject)", "(1 | subject) + (0 + time | subject)"])
def test_other_fixed_effects_with_the_same_random_effects(dental, bars):
    model = hl.TwoLevelModel.from_formula(f"distance ~ sex * time + {bars}", dental)
    made = with_fixed(model.design, list(model.design.hierarchy.fixed_terms))
    assert made.hierarchy.formula == model.formula
    assert made.covariance == model.design.covariance


def test_terms_with_parentheses_of_their_own_are_dropped_as_wholes(dental):
    model = hl.TwoLevelModel.from_formula("distance ~ sex * I(time + (time - 8)**2) + (1 | subject)", dental)
    path = hl.drop_terms(model).path
    assert list(path["smaller"][:2]) == ["without interactions", "without nonlinear terms"] and len(path) == 3


def test_numbers_that_are_names_are_no_nonlinear_term():
    """C(site): another numbering of the sites is the same model, and a line through their numbers none of interest."""
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"s": np.repeat(np.arange(40), 4), "t": np.tile(np.arange(4.0), 40)})
    site = frame["s"] % 4
    frame["y"] = rng.normal(size=40)[frame["s"]] + 0.4 * np.array([0.0, 3.0, 1.0, 4.0])[site] + rng.normal(size=160)
    for codes in ([0, 1, 2, 3], [0, 2, 1, 3]):
        data = frame.assign(site=np.array(codes)[site])
        found = hl.drop_terms(hl.TwoLevelModel.from_formula("y ~ C(site) + t + (1 | s)", data))
        assert list(found.path["smaller"]) == ["without C(site)", "without t"]
        assert "C(site)" in found.model.formula


def test_the_picture_marks_what_was_chosen():
    path = built(lines(0.0, subjects=20))
    assert {"fitted", "chosen"} <= set(path.plot(backend="none").viz.children)
    aic, bic = path.plot(backend="matplotlib").get_viz("figure").axes
    names = [[text.get_text() for text in axes.get_yticklabels() if text.get_visible()] for axes in (aic, bic)]
    assert names == [list(path.table.index), []]  # once, at the left
    for axes, name in ((aic, "aic"), (bic, "bic")):
        differences = path.table[name] - path.table[name].min()
        written = [text.get_text().strip() for text in axes.texts]
        assert written == [f"{v:.1f}" for v in differences.dropna()]
