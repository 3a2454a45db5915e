"""Refusals of what cannot be a factor by which D differs, and of new rows that it does not know."""

from __future__ import annotations

import numpy as np
import pytest
from refusals import DATA, formula, levels, refused

import hierlmm as hl
from hierlmm.errors import DataError, FormulaError, HierlmmError

PAGE = "Different hierarchies by group"


@pytest.mark.parametrize("model", [formula, lambda data=DATA, **options: levels(data=data, **options)])
def test_a_group_that_varies_within_a_subject(model):
    data = DATA.assign(sex=DATA["sex"].where(DATA.index != 107, "F"))
    data.loc[102, "sex"] = "F"
    refused(DataError, model(data=data, group="sex"), received="group='sex'", reason="varies within g 's0' (rows 100")
    refused(DataError, formula("y ~ t + (t | gr(g, by = x))"), received="group='x'", reason="varies within g 's0'")


def test_a_group_of_one_level_or_unknown():
    refused(DataError, formula(data=DATA.assign(sex="F"), group="sex"), reason="is 'F' in every row", see=PAGE)
    refused(DataError, formula(group="sox"), received="sox", remedy="sex")
    received, reason = "gr(..., by = sex) and group='w'", "two things"
    refused(FormulaError, formula("y ~ t + (t | gr(g, by = sex))", group="w"), received=received, reason=reason)
    refused(FormulaError, formula("y ~ t + (1 | gr(g, by = sex)) + (0 + t | g)"), received="by 'sex' and by no group")


def test_groups_with_too_few_subjects():
    one = DATA.assign(sex=np.where(DATA["g"] == "s3", "F", "M"))
    refused(DataError, formula(data=one, group="sex"), received="1 g of sex = 'F'", reason="2 × 2", see=PAGE)
    refused(DataError, formula("y ~ t + (1 | g)", one, group="sex"), reason="cannot be estimated from one", see=PAGE)
    two = DATA.assign(sex=np.where(DATA["g"].isin(["s3", "s4"]), "F", "M"))
    three = formula("y ~ t + x + (t + x | g)", two, group="sex")
    refused(DataError, three, received="2 gs of sex = 'F'", reason="3 × 3", remedy="leave group out")
    formula("y ~ t + (1 | g)", two, group="sex")()
    rows = DATA[(DATA["sex"] == "M") | (DATA["t"] < 2)]
    crowded = formula(data=rows, group="sex")
    refused(DataError, crowded, received="each of 4 subjects of sex = 'F', and 8 rows", reason="as many random effects")


def test_missing_groups_are_named_and_may_be_dropped():
    data = DATA.assign(sex=DATA["sex"].where(DATA["g"] != "s2"))
    refused(DataError, formula(data=data, group="sex"), received="sex (5)", remedy="missing='drop'")
    with pytest.warns(hl.FitWarning, match="1 of 8 subjects"):
        assert formula(data=data, group="sex", missing="drop")().design.n_subjects == 7


def test_new_rows_need_a_known_group_and_the_subject_s_own():
    fit = formula("y ~ t + (1 | g)", group="sex")().fit_ml()
    new = DATA.head(2)
    refused(DataError, lambda: fit.predict(new.drop(columns="sex")), received="sex")
    other = new.assign(sex="N")
    refused(DataError, lambda: fit.predict(other, level="new_subject"), received="sex = 'N'", reason="D is not known")
    changed = new.assign(sex="F")
    refused(DataError, lambda: fit.predict(changed), received="'sex' = 'F' for g 's0'", reason="it is 'M'")
    fit.predict(changed, level="new_subject", interval="prediction")


@pytest.mark.parametrize("codes", [np.array([0, 1]), np.array([0.0, 1.0]), np.array([False, True])])
def test_numbers_and_truth_values_are_levels(codes):
    """A covariate stays a number in the fixed effects when it is the factor of D as well."""
    data = DATA.assign(male=codes[(DATA["sex"] == "M").astype(int)])
    model = formula("y ~ t + male + (1 | g)", data, group="male")()
    assert model.design.group_levels == tuple(codes.tolist())
    fit, same = model.fit_ml(), formula("y ~ t + sex + (1 | g)", group="sex")().fit_ml()
    assert fit.loglik == pytest.approx(same.loglik, rel=1e-9)
    np.testing.assert_allclose(fit.sd_b.to_numpy(), same.sd_b.to_numpy(), rtol=1e-5, atol=1e-6)
    fit.predict(data.head(3), level="new_subject", interval="prediction")


def test_what_a_fit_by_group_has_not():
    fit = formula("y ~ t + (1 | g)", group="sex")().fit_ml()
    with pytest.raises(HierlmmError, match="one for each of them") as refused_icc:
        _ = fit.icc
    assert "fit.intraclass_correlation()" in str(refused_icc.value)
    assert list(fit.intraclass_correlation().table["sex"]) == ["F", "M"]
    with pytest.raises(HierlmmError, match="one D holds for all"):
        formula("y ~ t + (1 | g)")().fit_ml().compare_groups()
    with pytest.raises(HierlmmError, match="no such level"):
        fit.compare_groups("N")
