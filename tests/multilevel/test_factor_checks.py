"""`fit.check()` of several factors: by matrices of all rows, and with something planted."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import hierlmm as hl
from hierlmm.checks import factor_material
from hierlmm.checks.factor_material import FactorMaterial
from hierlmm.errors import NotAvailableError

close = np.testing.assert_allclose


@pytest.fixture(scope="module")
def material(fit: hl.MultilevelFit) -> FactorMaterial:
    return FactorMaterial(fit, 9, 0, None, None)


def test_coefficients_without_a_group_are_those_of_the_other_rows(material, dense):
    """At the fit's D and σ, which generalised least squares of the other rows finds anew."""
    for own in material.groups.values():
        found = own.simulated
        for j in (0, len(own.subjects) - 1):
            rest = own.term.group.index != j
            X, W = dense.X[rest], np.linalg.inv(dense.V[np.ix_(rest, rest)])
            cov = np.linalg.inv(X.T @ W @ X)
            moved = dense.beta - cov @ X.T @ W @ dense.y[rest]
            se = np.sqrt(np.diag(dense.beta_cov))
            close(found.dfbetas[j], moved / se, rtol=1e-5, atol=1e-7)
            close(found.cook[j, 0], moved @ np.linalg.solve(dense.beta_cov, moved) / 4, rtol=1e-5)
            close(found.harder[j], np.sqrt(np.diag(cov)) / se, rtol=1e-6)


def test_effects_are_divided_by_their_own_sd(material, dense):
    for name, own in material.groups.items():
        variance = dense.D[name] - dense.spread(name, dense.P)
        for r, term in enumerate(own.term.columns.names):
            close(own.effects[term][:, 0], dense.b(name)[:, r] / np.sqrt(variance[:, r, r]), rtol=1e-4, atol=1e-6)
        expected = np.einsum("jq,jqr,jr->j", dense.b(name), np.linalg.inv(variance), dense.b(name))
        close(own.simulated.distance[:, 0], expected, rtol=1e-4)
        assert own.sizes.tolist() == [len(own.term.columns.names)] * len(own.subjects)


def test_residuals_are_divided_by_their_own_sd(material, dense):
    sd = dense.s2 * np.sqrt(np.diag(dense.P))
    expected = (dense.y - dense.fitted(*dense.Z)) / sd
    close(material.simulated.residual[:, 0], expected / np.sqrt(np.mean(expected**2)), rtol=1e-5, atol=1e-7)


def test_nothing_is_to_act_on_where_the_model_is_true(fit):
    page = fit.check()
    assert page.ok
    text = str(page)
    assert "160 rows, groups: 24 school:class, 8 school, 5 rater" in text
    assert "serial: rows of groups of several factors have no one order" in text
    assert "level2(rater): no covariate of the model is constant within its groups" in text
    assert "rows or groups of a check together" in " ".join(text.split())
    assert "subject" not in text.replace("new subjects are drawn for models with one kind of subject", "")
    assert page.plot(backend="none") is not None


@pytest.fixture(scope="module")
def planted(pupils: pd.DataFrame) -> pd.DataFrame:
    """A row far out, a rater far out, a bend along x, and classes that follow a covariate of theirs."""
    rows = pd.concat([pupils.assign(school=pupils["school"] + 8 * k, rater=pupils["rater"] + 5 * k) for k in range(2)])
    rows = rows.reset_index(drop=True)
    rows["size"] = ((3 * rows["school"] + rows["class"]) % 7) / 2.0
    rng = np.random.default_rng(3)
    rows["y"] = 0.7 * rows["x"] ** 2 + 1.2 * (rows["size"] - 1.5) ** 2 + rng.normal(size=len(rows))
    rows["y"] += np.where(rows["rater"] == 3, 6.0, 0.0) + rng.normal(size=10)[rows["rater"]] * 0.3
    rows.loc[17, "y"] += 9.0
    return rows


def test_what_was_planted_is_found(planted):
    fit = hl.MultilevelModel.from_formula("y ~ x + size + (1 | school / class) + (1 | rater)", planted).fit_reml()
    page = fit.check(simulations=339)
    expected = {"outlying_rows": "row 17 (1 row", "outlying(rater)": "random effects of rater 3 (1 group"}
    expected |= {"mean": "most along x", "level2(school:class)": "Random effects of Intercept go along size"}
    for name, words in expected.items():
        assert page[name].severity == "act"
        assert words in page[name].seen
    assert "fit.plot_random_effects('rater')" in page["outlying(rater)"].do


def test_without_a_group_a_coefficient_may_be_lost(pupils):
    rows = pupils.assign(own=(pupils["rater"] == 2).astype(float))
    fit = hl.MultilevelModel.from_formula("y ~ own + (1 | school) + (1 | rater)", rows).fit_ml()
    found = fit.check(simulations=299)["leverage(rater)"]
    assert (found.severity, found.seen) == ("act", "Without rater 2 the other rows do not determine own.")


def test_posterior_is_checked_at_its_means(posterior):
    own = FactorMaterial(posterior, 9, 0, None, None)
    close(own.linear.state.D, posterior._D_values, rtol=1e-5, atol=1e-6)
    assert own.linear.state.sigma == pytest.approx(posterior.sigma)
    page = posterior.check(simulations=299)
    assert page.ok
    assert page["convergence"].seen == "chains agree and have enough draws"


def test_what_cannot_be_checked(fit, monkeypatch):
    for options in ({"data": fit.design.frame}, {"time": "x"}):
        with pytest.raises(NotAvailableError, match="with several grouping factors"):
            fit.check(**options)
    monkeypatch.setattr(factor_material, "MOST_ROWS", 100)
    page = fit.check()
    assert page.left_out["outlying_rows"] == page.left_out["influential(school)"] == "there are more than 100 rows"
