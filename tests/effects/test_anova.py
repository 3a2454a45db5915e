"""Tests of terms."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import hierlmm as hl
from hierlmm.effects.anova import term_rows
from hierlmm.errors import SpecificationError


def test_terms_are_tested_whatever_the_coding(dental):
    """The test of a main effect at equal weights does not depend on the reference or on the intercept."""
    tests = []
    for data in (dental, dental.assign(sex=dental["sex"].cat.reorder_categories(["Male", "Female"]))):
        for formula in ("distance ~ sex * C(time) + (1 | subject)", "distance ~ C(time) * sex + (1 | subject)"):
            tests.append(hl.TwoLevelModel.from_formula(formula, data).fit_reml().anova().loc[["sex", "C(time)"], "F"])
    for test in tests[1:]:
        np.testing.assert_allclose(test, tests[0], rtol=1e-6)
    fit = hl.TwoLevelModel.from_formula("distance ~ sex * C(time) + (1 | subject)", dental).fit_reml()
    pair = fit.contrasts("sex").table.iloc[0]
    np.testing.assert_allclose(fit.anova().loc["sex", "F"], pair["t"] ** 2, rtol=1e-8)
    without = hl.TwoLevelModel.from_formula("distance ~ 0 + sex + C(time) + (1 | subject)", dental).fit_reml()
    plain = hl.TwoLevelModel.from_formula("distance ~ sex + C(time) + (1 | subject)", dental).fit_reml()
    np.testing.assert_allclose(without.anova().loc["C(time)"], plain.anova().loc["C(time)"], rtol=1e-6)


def test_factors_coded_in_full_hold_the_terms_that_they_contain(dental):
    fit = hl.TwoLevelModel.from_formula("distance ~ 0 + time + C(sex, contr.sum) + (1 | subject)", dental).fit_reml()
    same = hl.TwoLevelModel.from_formula("distance ~ time + sex + (1 | subject)", dental).fit_reml()
    np.testing.assert_allclose(fit.anova().loc["time"], same.anova().loc["time"], rtol=1e-6)
    fit = hl.TwoLevelModel.from_formula("distance ~ 0 + time + time:sex + (1 | subject)", dental).fit_reml()
    assert list(fit.anova().index) == ["time", "time:sex"]


def test_a_term_without_one_that_it_contains_is_not_tested(dental_design):
    alone = replace(dental_design, terms=replace(dental_design.terms, fixed=dental_design.fixed_columns[3:]))
    assert alone.fixed_columns[0].name == "sex[T.Male]:time"
    with pytest.raises(SpecificationError, match="without 'time', which it contains"):
        term_rows(alone)
