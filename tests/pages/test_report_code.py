"""The code on a report makes the same model, whatever its kind; what must be known stands first."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

import hierlmm as hl
from hierlmm.pages.code import code_of, versions_of
from hierlmm.pages.report import title_of, warned

GROWTH = "distance ~ sex * time"


def refitted(comparison, table):
    """The fits that the code makes of a table."""
    names = {"table": table}
    exec(code_of(comparison, "table").rsplit("\n", 1)[0], names)
    return [names[name] for name in sorted(names) if name.startswith("fit")]


@pytest.mark.parametrize(
    ("formula", "options"),
    [
        (f"{GROWTH} + (1 + time || subject)", {}),
        (f"{GROWTH} + (1 + time | subject)", {"covariance": "identity"}),
        (f"{GROWTH} + (1 + time | subject)", {"covariance": "diagonal"}),
        (f"{GROWTH} + (1 | subject)", {"residual": hl.CAR1("time"), "residual_variance": hl.VarIdent("sex")}),
        (f"{GROWTH} + (1 | subject)", {"residual_group": "sex", "weights": "age", "group": "sex"}),
    ],
)
def test_code_of_two_levels(formula, options, dental):
    fit = hl.TwoLevelModel.from_formula(formula, dental, **options).fit_ml()
    (again,) = refitted(hl.compare(fit), dental)
    assert again.loglik == fit.loglik


def test_code_of_a_marginal_model_by_two_estimators(dental):
    model = hl.MarginalModel(GROWTH, subject="subject", data=dental, correlation=hl.AR1("time"))
    fits = [model.fit_reml(), model.fit_gee(se="bias_reduced")]
    for fit, again in zip(fits, refitted(hl.compare(*fits), dental), strict=True):
        assert again.summary().equals(fit.summary())


def test_code_of_families_and_factors(patients):
    poisson = hl.families.Poisson("sqrt")
    fit = hl.TwoLevelModel.from_formula("seizures ~ week + (1 | patient)", patients, family=poisson)
    fits = [fit.fit_ml(n_quadrature=5)]
    pastes = hl.load_dataset("pastes")
    fits.append(hl.MultilevelModel.from_formula("strength ~ 1 + (1 | batch / cask)", pastes).fit_reml())
    for fit, table in zip(fits, (patients, pastes), strict=True):
        (again,) = refitted(hl.compare(fit), table)
        assert again.loglik == fit.loglik and str(again.design.family) == str(fit.design.family)


def test_what_must_be_known_stands_first():
    stuck = SimpleNamespace(converged=False, warnings=("R-hat is\n 2.",))
    fits = {"NUTS": stuck, "REML": SimpleNamespace(converged=True, warnings=("D is singular.",))}
    first, *others = warned(SimpleNamespace(fits=fits))
    assert first.startswith("NUTS did not converge")
    assert others == ["NUTS: R-hat is 2.", "REML: D is singular."]


def test_versions_of_a_posterior(dental_like_nuts, dental_reml):
    comparison = hl.compare(dental_like_nuts, dental_reml)
    assert title_of(comparison) == "distance by subject: NUTS, REML"
    assert "fit_2 = model.fit_reml()" in code_of(comparison) and "pymc" in versions_of(comparison)
