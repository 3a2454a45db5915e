"""The comparison: what it refuses, what the table says, and how it is written out."""

from __future__ import annotations

import copy
import html
import pickle
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from draws import posterior_like
from samples import DENTAL

from hierlmm.bayes.distributions import HalfNormal
from hierlmm.bayes.priors import Priors, resolve_priors
from hierlmm.comparison.compare import Comparison, compare
from hierlmm.comparison.tables import _number
from hierlmm.errors import DataError, MissingPackageError, NotAvailableError, SpecificationError
from hierlmm.fit.likelihood import LikelihoodFit
from hierlmm.model import TwoLevelModel


@pytest.fixture(scope="module")
def reml(dental_reml):
    return dental_reml


@pytest.fixture(scope="module")
def ml(dental):
    return TwoLevelModel.from_formula(DENTAL, dental).fit_ml()


@pytest.fixture(scope="module")
def nuts(dental_like_nuts):
    return dental_like_nuts


@pytest.fixture(scope="module")
def three(nuts, reml, ml):
    return compare(nuts, reml, ml)


def test_table_holds_the_fits_own_numbers(three, nuts, reml):
    table = three.table.set_index(["parameter", "estimator"])
    assert list(three.table.columns) == [
        *("parameter", "kind", "estimator", "estimate", "se", "lower", "upper", "difference", "flag")
    ]
    assert table.loc[("time", "REML"), "estimate"] == reml.beta["time"]
    assert table.loc[("time", "REML"), "upper"] == reml.summary().loc["time", "upper"]
    label = "corr(Intercept, time)"
    assert table.loc[(label, "NUTS"), "se"] == nuts.variance_components().loc[label, "se"]
    assert list(three.table["parameter"].unique()) == [*reml.beta.index, *reml.variance_components().index]
    kinds = three.table.groupby("kind", sort=False)["parameter"].nunique()
    assert dict(kinds) == {"fixed": 4, "sd": 2, "corr": 1, "sigma": 1}


def test_difference_is_in_standard_errors_of_the_reference(reml, ml):
    cmp = compare(reml, ml, flag_above=0.1)
    table = cmp.table.set_index(["parameter", "estimator"])
    components = reml.variance_components()
    expected = (ml.sd_b["Intercept"] - reml.sd_b["Intercept"]) / components.loc["sd(Intercept)", "se"]
    assert table.loc[("sd(Intercept)", "ML"), "difference"] == pytest.approx(expected)
    assert table.loc[("sd(Intercept)", "ML"), "flag"]
    assert not table.xs("REML", level="estimator")["flag"].any()
    assert (table.xs("REML", level="estimator")["difference"] == 0).all()
    assert list(cmp.flagged["parameter"]) == ["sd(Intercept)", "sd(time)", "corr(Intercept, time)"]


def test_a_moved_posterior_is_flagged_and_said(reml):
    cmp = compare(reml, posterior_like(reml, shift=1.0))
    assert set(cmp.flagged["parameter"]) == set(reml.beta.index)
    np.testing.assert_allclose(cmp.flagged["difference"], 1.0, atol=0.15)
    assert "* differs by more than 0.5 standard errors of REML" in " ".join(repr(cmp).split())


def test_reference_can_be_any_fit(nuts, reml, ml):
    cmp = compare(nuts, reml, ml, reference="ML")
    assert cmp.reference == "ML"
    assert (cmp.table.loc[cmp.table["estimator"] == "ML", "difference"] == 0).all()
    with pytest.raises(SpecificationError, match="Did you mean 'REML'"):
        compare(nuts, reml, reference="REM")


def test_labels_are_numbered_or_given(reml, ml):
    assert compare(reml, ml, reml).labels == ["REML 1", "ML", "REML 2"]
    assert compare(reml, reml, labels=["old", "new"]).labels == ["old", "new"]
    with pytest.raises(SpecificationError, match="label of its own"):
        compare(reml, ml, labels=["a", "a"])


def test_only_fits_of_the_same_question(dental, reml):
    additive = TwoLevelModel.from_formula("distance ~ sex + time + (1 + time | subject)", dental).fit_reml()
    with pytest.raises(SpecificationError, match=r"fixed effects \(only the first has sex\[T.Male\]:time\)"):
        compare(reml, additive)
    intercepts = TwoLevelModel.from_formula("distance ~ sex * time + (1 | subject)", dental).fit_reml()
    with pytest.raises(SpecificationError, match="random effects"):
        compare(reml, intercepts)
    fewer = TwoLevelModel.from_formula(DENTAL, dental[dental["time"] > 0]).fit_reml()
    with pytest.raises(DataError, match="108 rows of 27 subjects, and 81 rows of 27"):
        compare(reml, fewer)
    other = TwoLevelModel.from_formula(DENTAL, dental.assign(distance=dental["distance"] * 2)).fit_reml()
    with pytest.raises(DataError, match="with other values of 'distance'"):
        compare(reml, other)
    log = TwoLevelModel.from_formula("log(distance) ~ sex * time + (1 + time | subject)", dental).fit_reml()
    with pytest.raises(SpecificationError, match="responses"):
        compare(reml, log)
    for wrong in ("nuts", [reml]):
        with pytest.raises(SpecificationError, match="only fits can be compared"):
            compare(wrong)
    with pytest.raises(SpecificationError, match="nothing to compare"):
        compare()


CONTINUOUS = "y ~ x1 + x2 + offset(o) + (1 + x1 | g)"


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(3)
    g = np.repeat(np.arange(12), 6)
    frame = pd.DataFrame({"g": g, "x1": rng.normal(size=72), "x2": rng.normal(size=72), "o": rng.normal(size=72)})
    return frame.assign(y=frame["x1"] + frame["o"] + rng.normal(size=12)[g] + rng.normal(size=72))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda t, r: {"x1": r.normal(size=len(t))}, "with other values of 'x1'"),
        (lambda t, r: {"x1": 2 * t["x1"]}, "with other values of 'x1'"),
        (lambda t, r: {"x2": r.permutation(t["x2"])}, "with other values of 'x2'"),
        (lambda t, r: {"x2": t["x2"].where(t.index != 7, t["x2"] + 1e-6)}, "with other values of 'x2'"),
        (lambda t, r: {"o": r.permutation(t["o"])}, "with other values of 'offset'"),
        (lambda t, r: {"y": t["y"] + 1e-6}, "with other values of 'y'"),
        (lambda t, r: {"g": r.permutation(t["g"])}, "with other subjects in the rows \\('g' is not the same"),
        (lambda t, r: {"g": t["g"].replace({3: 99})}, "with other subjects \\(only one of them has 3, 99"),
    ],
)
def test_other_data_are_refused_by_name(table, change, named):
    first = TwoLevelModel.from_formula(CONTINUOUS, table).fit_reml()
    changed = table.assign(**change(table, np.random.default_rng(1)))
    second = TwoLevelModel.from_formula(CONTINUOUS, changed).fit_reml()
    with pytest.raises(DataError, match=named):
        compare(first, second)


def test_rounding_is_no_other_data(table):
    first = TwoLevelModel.from_formula(CONTINUOUS, table).fit_reml()
    rounded = table.assign(x1=table["x1"] * (1 + 4e-16), o=table["o"] + 0.1 - 0.1).sample(frac=1.0, random_state=2)
    again = TwoLevelModel.from_formula(CONTINUOUS, rounded).fit_reml()
    assert again.design.X.shape == first.design.X.shape and compare(first, again).notes == ()


def test_other_priors_are_noted(reml):
    default = posterior_like(reml)
    design = default.design
    priors = [resolve_priors(p, design) for p in (None, None, Priors(sigma=HalfNormal(1.0)))]
    a, b, c = (replace(default, priors=p) for p in priors)
    assert compare(a, b).notes == ()
    (note,) = compare(a, reml, c).notes
    assert note.startswith("priors differ: sigma has HalfNormal(1) in NUTS 2, HalfStudentT(4")
    assert "priors differ" in repr(compare(c, a))


def test_order_of_rows_and_of_terms_does_not_matter(dental, reml):
    shuffled = dental.sample(frac=1.0, random_state=1)
    swapped = TwoLevelModel(
        "distance ~ time",
        {"Intercept": "sex", "time": "sex"},
        subject="subject",
        data=shuffled,
        random=["time", "Intercept"],
    ).fit_reml()
    cmp = compare(reml, swapped)
    assert cmp.table.groupby("parameter").size().eq(2).all()
    np.testing.assert_allclose(cmp.table["difference"], 0.0, atol=1e-5)


def test_another_covariance_is_noted(dental, reml):
    diagonal = TwoLevelModel.from_formula("distance ~ sex * time + (1 + time || subject)", dental).fit_reml()
    cmp = compare(reml, diagonal, labels=["correlated", "independent"])
    assert "not the same model" in cmp.notes[0]
    wide = cmp.wide()
    assert np.isnan(wide.loc["corr(Intercept, time)", ("independent", "estimate")])
    assert "corr(Intercept, time)" in repr(cmp)


def test_boundary_estimates_have_no_interval_and_break_nothing():
    from hierlmm.datasets import load_dataset

    model = TwoLevelModel.from_formula("yield ~ 1 + (1 | batch)", load_dataset("dyestuff2"))
    cmp = compare(model.fit_reml(), model.fit_ml())
    row = cmp.table[cmp.table["parameter"] == "sd(Intercept)"]
    assert row["lower"].isna().all() and not row["flag"].any()
    text = " ".join(repr(cmp).split())
    assert "0.000 (–)" in text
    assert text.count("The data support no variation") == 1
    assert "REML, ML: The data support no variation" in text


def test_a_fit_without_random_effects_is_compared_by_what_it_has(reml):
    class Marginal(LikelihoodFit):
        estimator = "GEE"

        def variance_components(self, ci=0.95):
            raise NotAvailableError("variance_components of GEE", "no random effects", "fit by REML")

        @property
        def D(self):
            raise NotAvailableError("D of GEE", "no random effects", "fit by REML")

        @property
        def loglik(self):
            raise NotAvailableError("loglik of GEE", "no likelihood", "fit by ML")

    marginal = Marginal(reml.design, reml.criterion_function, reml.optimum)
    cmp = compare(reml, marginal)
    assert cmp.wide()["GEE"]["estimate"].notna().sum() == 4
    assert np.isnan(cmp.statistics.loc["logLik", "GEE"])
    assert "GEE" in repr(cmp) and "GEE" in cmp._repr_html_() and "GEE" in cmp.to_latex()


def test_statistics(three, reml, ml):
    stats = three.statistics
    assert stats.loc["AIC", "ML"] == ml.aic
    assert stats.loc["logLik", "REML"] == reml.loglik
    assert stats.loc["max. R-hat", "NUTS"] < 1.02
    assert np.isnan(stats.loc["AIC", "NUTS"])
    assert stats.loc["converged"].all()


def test_wide_round_trips(three):
    wide = three.wide()
    assert list(wide.columns.get_level_values(0).unique()) == ["NUTS", "REML", "ML"]
    long = three.table.set_index(["parameter", "estimator"])["se"]
    for label in three.labels:
        assert wide[label]["se"].tolist() == long.xs(label, level="estimator").loc[wide.index].tolist()


def test_text_keeps_names_with_brackets_and_all_estimators(three):
    text = repr(three)
    assert all(len(line) <= 120 for line in text.splitlines())
    assert "sex[T.Male]:time" in text
    assert re.search(r"NUTS \(reference\) +REML +ML", text)
    assert "21.209 (0.635)" in text and "[19.965, 22.454]" in text
    assert "not comparable with those of ML" in " ".join(text.split())
    assert "\x1b" not in text


def test_nothing_is_minus_zero():
    """What rounds to zero has no sign, what does not keeps it."""
    assert [_number(v, 2) for v in (-0.004, -0.0, 0.004, -0.006, -10.0)] == ["0.00", "0.00", "0.00", "-0.01", "-10.00"]
    assert _number(-0.4, 0) == "0" and _number(-0.6, 0) == "-1"


def test_html_is_escaped_and_self_contained(dental):
    frame = dental.rename(columns={"distance": "size <b>&"})
    fit = TwoLevelModel.from_formula("`size <b>&` ~ time + (1 | subject)", frame).fit_reml()
    cmp = compare(fit, notes=["a <script> note"])
    for page in (cmp._repr_html_(), plain_html(cmp)):
        assert "<b>&" not in page and "<script>" not in page
        assert "&lt;script&gt;" in page
        assert "http" not in page
    assert "great_tables" in type(cmp.to_gt()).__module__


def plain_html(cmp):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "great_tables", None)
        with pytest.raises(MissingPackageError, match="hierlmm"):
            cmp.to_gt()
        return cmp.to_html()


def test_plain_html_has_the_same_numbers(three):
    page = plain_html(three)
    assert "21.209" in page and "sex[T.Male]:time" in page and "[19.965, 22.454]" in page


def test_latex_is_complete(three):
    text = three.to_latex(caption="Growth & sex, 100%")
    assert r"\caption{Growth \& sex, 100\%}" in text
    assert r"\multicolumn{3}{c}{REML}" in text
    assert "$-$0.210" in text
    rows = [line for line in text.splitlines() if line.startswith(r"\quad")]
    assert len(rows) == 8
    assert all(line.count("&") == 9 and line.endswith(r"\\") for line in rows)


def test_rich_prints(three, capsys):
    three.print_rich()
    assert "REML" in capsys.readouterr().out


def test_comparison_is_frozen(three):
    assert isinstance(three, Comparison)
    with pytest.raises(AttributeError):
        three.ci = 0.5
    with pytest.raises(TypeError):
        three.fits["other"] = None
    table = three.table
    table.loc[:, "estimate"] = 0.0
    assert (three.table["estimate"] != 0.0).all()


@pytest.mark.parametrize("again", [copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))])
def test_comparison_is_copied_and_pickled(three, again):
    other = again(three)
    pd.testing.assert_frame_equal(other.table, three.table)
    assert repr(other) == repr(three)
    with pytest.raises(TypeError):
        other.fits["other"] = None
    assert compare(three.fits["REML"], other.fits["REML"]).flagged.empty


def test_ci_and_threshold_are_checked(reml, ml):
    with pytest.raises(SpecificationError, match="between 0 and 1"):
        compare(reml, ml, ci=95)
    with pytest.raises(SpecificationError, match="number of standard errors"):
        compare(reml, ml, flag_above=-1)
    narrow = compare(reml, ml, ci=0.5).wide()["REML"]
    assert (narrow["upper"] < compare(reml, ml).wide()["REML"]["upper"]).all()


def test_import_is_light():
    code = (
        "import sys, hierlmm.comparison.compare, hierlmm.comparison.tables, hierlmm.plots; "
        "print([m for m in ('pymc', 'pytensor', 'arviz', 'arviz_plots', 'matplotlib', 'rich', 'great_tables') "
        "if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


# Tables for print.


def rows_of(table):
    """Label -> cells of the body of a great table."""
    page = re.sub(r"<style.*?</style>", "", table.as_raw_html(), flags=re.S)
    rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.S) for row in re.findall(r"<tr.*?</tr>", page, re.S)]
    text = [[html.unescape(re.sub(r"<[^>]+>", "", cell)).strip() for cell in row] for row in rows]
    return {row[0]: row[1:] for row in text if row}


def test_print_has_reference_rows_of_factors(three):
    found = rows_of(three.to_gt())
    labels = list(found)
    at = labels.index("sex")
    assert labels[at + 1 : at + 3] == ["Female (reference)", "Male"]
    assert set(found["sex"]) == {""} and set(found["Female (reference)"]) == {"–"}
    assert labels.index("sex × time") < labels.index("Male × time")
    at = 3 * three.labels.index("REML")
    assert found["Male"][at : at + 3] == ["1.407", "0.825", "[-0.210, 3.023]"]


def test_print_has_own_names_decimals_and_parameters(three):
    table = three.to_gt(
        rename={"time": "Years", "sex": "Sex", "Male": "Boys", "REML": "Restricted", "Fixed effects": "Means"},
        digits={"time": 1},
        parameters=["fixed", "sd(time)"],
        title="Growth\nof 27 children",
    )
    found = rows_of(table)
    at = 3 * three.labels.index("REML")
    assert found["Years"][at] == "0.5" and found["Boys"][at] == "1.407"
    assert {"Sex", "Boys × Years", "sd(Years)", "Means", "of 27 children"} <= set(found)
    assert "sigma" not in found and "observations" not in found and "sd(Intercept)" not in found
    assert "Restricted" in table.as_raw_html()
    assert rows_of(three.to_gt(digits=1))["Male"][at] == "1.4"
    assert "observations" in rows_of(three.to_gt(parameters=["fixed", "fit"]))


def test_print_notes_speak_of_what_is_shown(three):
    every = " ".join(rows_of(three.to_gt()))
    some = " ".join(rows_of(three.to_gt(parameters="fixed", rename={"time": "Years"})))
    flagged = set(three.flagged["parameter"])
    assert all(name in every for name in flagged) and "logLik" in every
    assert not any(name in some for name in flagged if name not in three.fits["REML"].beta.index)
    assert "logLik" not in some


def test_print_has_p_values(three):
    found = rows_of(three.to_gt(p_values=True))
    reml = three.fits["REML"]
    p = reml.summary(df="satterthwaite")["p"]
    at = 4 * three.labels.index("REML") + 3
    assert found["Male × time"][at] == f"{p['sex[T.Male]:time']:.3f}"
    assert found["Intercept"][at] == "<0.001" and found["sigma"][at] == "–"
    assert any(label.startswith("p: t tests with Satterthwaite") for label in found)


def test_print_refuses_names_that_are_not_there(three):
    with pytest.raises(SpecificationError, match="nothing in the table has this name"):
        three.to_gt(rename={"tme": "Years"})
    with pytest.raises(SpecificationError, match="no parameter has this name"):
        three.to_gt(digits={"tme": 1})
    with pytest.raises(SpecificationError, match="no parameter or kind"):
        three.to_gt(parameters="tme")


def test_print_leaves_splines_and_conditions_as_they_are(dental):
    model = TwoLevelModel.from_formula("distance ~ poly(time, 2) + I(time > 3) + C(sex) + (1 | subject)", dental)
    found = rows_of(compare(model.fit_reml()).to_gt())
    assert sum(label.startswith(("poly(time, 2)[", "I(time > 3)")) for label in found) == 3
    assert "Female (reference)" in found and "Male" in found
