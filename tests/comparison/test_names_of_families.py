"""What fits of families are called side by side, and what stands under the table."""

import numpy as np
import pytest

import hierlmm as hl
from hierlmm.drawing.theme import theme


@pytest.fixture(scope="module")
def model(patients):
    named = patients.rename(columns={"seizures": "Seizure Count"})
    return hl.TwoLevelModel.from_formula("`Seizure Count` ~ week + (week | patient)", named, family="poisson")


@pytest.fixture(scope="module")
def both(model):
    return hl.compare(model.fit_ml(), model.fit_ml(n_quadrature=5))


def test_fits_by_ml_are_named_by_how_they_integrate(both):
    assert both.labels == ["ML (Laplace)", "ML (5 points)"]
    look = theme()
    assert look.colours_of(["ML", "ML"])[1] not in [look.colour_of(name) for name in ("ML", "REML", "NUTS", "GEE")]


def test_random_slopes_move_other_coefficients_says_the_footnote(both):
    assert "random slopes move other coefficients as well" in " ".join(repr(both).split())


def test_names_with_blanks_are_printed_without_backticks(both, model):
    fit = both.fits["ML (Laplace)"]
    means = fit.marginal_means("week", at={"week": [0, 1]})
    for shown in (model, fit.interpret(), means, means.contrasts()):
        assert "`" not in repr(shown).split("\n")[0]
    assert "`" not in fit.interpret().text


def test_r_hat_of_a_comparison_counts_all_quantities(seizures_nuts):
    compared = hl.compare(seizures_nuts)
    check = seizures_nuts.convergence()
    assert compared.statistics.loc["max. R-hat", "NUTS"] == check.max_rhat
    assert compared.statistics.loc["min. bulk ESS", "NUTS"] == check.min_ess_bulk
    assert "worst of all quantities" in " ".join(repr(compared).split())
    assert np.isfinite(check.max_rhat)
