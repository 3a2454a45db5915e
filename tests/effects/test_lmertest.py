"""Degrees of freedom of every model fitted by lme4, and tests of terms of types I, II and III, against lmerTest."""

from __future__ import annotations

import json
import re

import numpy as np
import pandas as pd
import pytest
from references import align, formula, reference, reference_data, references_of

import hierlmm as hl
from hierlmm.errors import NotAvailableError, SpecificationError

LMER = reference("lmer", "degrees")["fits"]
FAR = ("esoph_new_lmer_ml", "esoph_old_lmer_ml")
"""lme4 says itself that it did not converge; `test_df` has the first at the optimum."""
METHODS = {"satterthwaite": "satterthwaite", "kenward_roger": "kenward-roger"}
ANOVA = sorted(path.stem for path in references_of("anova").glob("*.json"))


@pytest.mark.parametrize("name", [name for name in LMER if name not in FAR])
def test_degrees_of_freedom_at_the_stop_of_lme4(name):
    """lme4 stops up to 1e-4 away from the optimum: df to 1e-3 of their size, p to 1e-4."""
    ref = reference(name)
    model = hl.TwoLevelModel.from_formula(formula(ref), reference_data(ref))
    fit = model.fit_reml() if ref["method"] == "REML" else model.fit_ml()
    for key, block in LMER[name].items():
        table = fit.summary(df=METHODS[key])
        theirs = {what: align({c: row[what] for c, row in block.items()}, table.index) for what in ("df", "p")}
        np.testing.assert_allclose(table["df"], theirs["df"], rtol=1e-3)
        np.testing.assert_allclose(table["p"], theirs["p"], atol=1e-4)
        if key == "kenward_roger":
            se = align({c: row["se"] for c, row in block.items()}, table.index)
            np.testing.assert_allclose(table["se"], se, rtol=1e-4)


@pytest.fixture(scope="module", params=ANOVA)
def terms(request):
    ref = json.loads((references_of("anova") / f"{request.param}.json").read_text())
    data = hl.load_dataset(ref["data"]).drop(index=[row - 1 for row in ref["left_out"]])
    if "large" in ref:
        data["large"] = np.where(data["lsize"] > ref["large"], "yes", "no")
    text = ref["formula"].replace("factor(", "C(").replace("^", "**")
    return ref, hl.TwoLevelModel.from_formula(text, data).fit_reml()


@pytest.mark.parametrize("kind", ["I", "II", "III"])
@pytest.mark.parametrize("method", METHODS)
def test_terms_are_tested_as_lmertest_tests_them(terms, kind, method):
    ref, fit = terms
    ours = fit.anova(df=METHODS[method], type=kind)
    assert (ours.attrs["type"], ours.attrs["df"]) == (kind, METHODS[method])
    theirs = ref[method][kind]
    assert len(ours) == len(theirs)
    for term, row in ours.iterrows():
        name = re.sub(r"C\((.*?)\)", r"factor(\1)", term).replace(" ** ", "^")
        test = next(v for k, v in theirs.items() if frozenset(k.split(":")) == frozenset(name.split(":")))
        assert row["df1"] == test["NumDF"]
        np.testing.assert_allclose(row["F"], test["F value"], rtol=1e-6)
        np.testing.assert_allclose(row["df2"], test["DenDF"], rtol=1e-6)
        np.testing.assert_allclose(row["p"], test["Pr(>F)"], rtol=1e-5)


def test_types_agree_in_what_they_share(terms):
    """The last term is given all others in every type, and what nothing contains is the same in types II and III."""
    _, fit = terms
    one, two, three = (fit.anova("kenward-roger", type=kind) for kind in ("I", "II", "III"))
    np.testing.assert_allclose(one.iloc[-1].astype(float), three.iloc[-1].astype(float), rtol=1e-7)
    np.testing.assert_allclose(two.iloc[-1].astype(float), three.iloc[-1].astype(float), rtol=1e-7)


def test_types_are_called_by_numbers_too(terms):
    for number, kind in enumerate(("I", "II", "III"), 1):
        expected = terms[1].anova(type=kind)
        for name in (number, str(number), np.int64(number)):
            found = terms[1].anova(type=name)
            assert found.attrs["type"] == kind
            pd.testing.assert_frame_equal(found, expected)


@pytest.mark.parametrize("kind", ["IV", 4, "0", "iii"])
def test_what_is_no_type_is_refused(terms, kind):
    with pytest.raises(SpecificationError, match="'III', '1', '2', '3'"):
        terms[1].anova(type=kind)
    with pytest.raises(NotAvailableError, match="standard errors of its own"):
        terms[1].anova(df="kr", se="empirical", type="I")
