"""What a fit would be without each group of a factor."""

from __future__ import annotations

import numpy as np
import pytest

import hierlmm as hl
from hierlmm.diagnostics.factor_design import lam_at
from hierlmm.errors import DataError, NotAvailableError

build = hl.MultilevelModel.from_formula
close = np.testing.assert_allclose


def test_estimates_without_a_group_are_those_of_a_fit_without_it(nested, pastes):
    found = nested.influence("batch")
    for label in ("A", "E"):
        rest = build("strength ~ 1 + (1 | batch / cask)", pastes[pastes["batch"] != label]).fit_reml()
        close(found.beta.loc[label], rest.beta, rtol=1e-8)
        sds = [rest.sd_b["batch"].iloc[0], rest.sd_b["batch:cask"].iloc[0], rest.sigma]
        close(found.components.loc[label], sds, rtol=1e-4)
        move = float((nested.beta - rest.beta).iloc[0] / nested.beta_se.iloc[0])
        close(found.table.loc[label, ["cook", "dfbetas"]].astype(float), [move**2, move], rtol=1e-6)
        close(found.table.loc[label, "covratio"], (rest.beta_se / nested.beta_se).iloc[0] ** 2, rtol=1e-6)
        step = lam_at(nested.criterion_function, rest.solution.D, rest.sigma) - nested.optimum.lam
        theta = np.sqrt(step @ np.linalg.solve(nested.large_sample.covariance[:-1, :-1], step))
        close(found.table.loc[label, "theta"], theta, rtol=1e-3)
    assert found.table["rows"].eq(6).all()
    said = " ".join(repr(found).split())
    assert "Influence of 10 groups of batch on the fit by REML" in said and "Without batch E" in said
    assert "subject" not in said and found.plot(backend="none") is not None


def test_a_group_that_alone_has_a_level_is_named(pastes):
    rows = pastes.assign(kind=np.where(pastes["batch"] == "C", "new", "old"))
    found = build("strength ~ kind + (1 | batch / cask)", rows).fit_ml().influence("batch")
    assert found.table.index[found.table["cook"].isna()].tolist() == ["C"]
    assert "Without C (of 1 such groups) the others cannot be fitted" in " ".join(repr(found).split())
    halves = pastes.assign(half=pastes["batch"].isin(list("ABCDE")))
    found = build("strength ~ 1 + (1 | half) + (1 | batch)", halves).fit_ml().influence("half")
    assert found.table["cook"].isna().all()  # one group says nothing of a variance


def test_columns_stay_what_they_are(pupils):
    """The mean that is taken off is that of all rows; a coefficient is compared with itself."""
    fit = build("y ~ center(x) + (1 | school) + (1 | rater)", pupils.assign(x=pupils["x"] + 5)).fit_ml()
    found = fit.influence("school")
    rows = pupils.assign(x=pupils["x"] - pupils["x"].mean())
    rest = build("y ~ x + (1 | school) + (1 | rater)", rows[rows["school"] != 3]).fit_ml()
    close(found.beta.loc[3], rest.beta, rtol=1e-5)
    close(found.components.loc[3].iloc[-1], rest.sigma, rtol=1e-5)


def test_many_groups_are_refused(pupils):
    rows = pupils.loc[pupils.index.repeat(2)].reset_index(drop=True)
    rows["seat"] = np.arange(len(rows)) // 1.5 // 1
    fit = build("y ~ x + (1 | school) + (1 | seat)", rows).fit_ml()
    with pytest.raises(NotAvailableError, match="fitted again without each"):
        fit.influence("seat")
    with pytest.raises(DataError, match="no grouping factor"):
        fit.influence()
