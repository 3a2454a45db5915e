"""Every public name of a fit and of a model with several factors is right, or refused with a reason.

And so is every function of the package that is given one: whatever is new is refused here until it is looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from dense_factors import Dense
from settled import FUNCTIONS, call_with, public, refused, reports

import hierlmm as hl
from hierlmm.errors import DataError
from hierlmm.fits.several import ANSWERED

close = np.testing.assert_allclose


def by_factor(values: Any, expected: Callable[[str], Any], tolerance: float = 1e-6) -> None:
    assert list(values) == ["school", "school:class", "rater"]
    for name, value in values.items():
        wanted = np.asarray(expected(name))
        close(value, wanted, rtol=tolerance, atol=tolerance * max(np.abs(wanted).max(), 1e-12))


def corr(D: np.ndarray) -> np.ndarray:
    sd = np.sqrt(np.diag(D))
    return D / np.outer(sd, sd)


def is_summary(table: pd.DataFrame, dense: Dense) -> None:
    close(table["estimate"], dense.beta, rtol=1e-7)
    close(table["se"], np.sqrt(np.diag(dense.beta_cov)), rtol=1e-7)


def is_blup_variances(found: Any, dense: Dense) -> None:
    for name, table in found.items():
        D = dense.D[name]
        given, error = dense.spread(name, dense.W), dense.spread(name, dense.P)
        expected = {"blup": dense.b(name), "var_of_blup": D - error, "conditional": given, "prediction_error": error}
        for column, value in expected.items():
            value = value if value.ndim == 2 else np.einsum("jkk->jk", value)
            close(table[column], value.ravel(), rtol=1e-6, atol=1e-9)


def is_criterion(fit: hl.MultilevelFit, dense: Dense, value: float) -> None:
    assert value == pytest.approx(dense.criterion(reml=True), rel=1e-10)


def is_linear(effects: Any, L: np.ndarray, dense: Dense) -> None:
    close(effects.table["estimate"], L @ dense.beta, rtol=1e-7)
    close(effects.table["se"], np.sqrt(np.einsum("ij,jk,ik->i", L, dense.beta_cov, L)), rtol=1e-7)


def shares_of_rows(fit: hl.MultilevelFit, dense: Dense) -> list[float]:
    """Marginal and conditional R² by the definition: variances averaged over rows."""
    f = float(np.var(dense.X @ dense.beta, ddof=1))
    r, e = float(np.mean(np.diag(sum(dense.parts.values())))), dense.s2
    return [f / (f + r + e), (f + r) / (f + r + e)]


def is_picture_of_b(fit: hl.MultilevelFit, dense: Dense) -> None:
    """Points and ends of the intervals of one factor, sorted."""
    drawn = fit.plot_random_effects("school", terms="x", backend="none")
    points = drawn.viz["point_estimate"]["effects"].sel(term="x").to_numpy().ravel()[0]["x"]
    close(points, np.sort(dense.b("school")[:, 1]), rtol=1e-6)
    with pytest.raises(DataError, match="use one of 'school', 'school:class', 'rater'"):
        fit.plot_random_effects()


def unknown_factor(call: Callable[[], Any]) -> None:
    with pytest.raises(DataError, match="use one of 'school', 'school:class', 'rater'"):
        call()


# Coefficients: Intercept, x, kind[T.q], x:kind[T.q].
CHECKS: dict[str, Callable[[Any, Dense], None]] = {
    "check": lambda fit, dense: close("outlying(rater)" in fit.check(simulations=299).table.index, True),
    "heterogeneity": lambda fit, dense: close(
        fit.heterogeneity("school").table["sd"], np.sqrt(np.diag(dense.D["school"]))
    ),
    "rank_subjects": lambda fit, dense: close(
        fit.rank_subjects("rater", draws=100).table["coefficient"].sort_index(),
        dense.beta[0] + dense.b("rater")[:, 0],
        rtol=1e-6,
    ),
    "D": lambda fit, d: by_factor(fit.D, lambda name: d.D[name]),
    "sd_b": lambda fit, d: by_factor(fit.sd_b, lambda name: np.sqrt(np.diag(d.D[name]))),
    "corr_b": lambda fit, d: by_factor(fit.corr_b, lambda name: corr(d.D[name])),
    "b": lambda fit, d: by_factor(fit.b, d.b),
    "b_cov": lambda fit, d: by_factor(fit.b_cov, lambda name: d.spread(name, d.W)),
    "b_sd": lambda fit, d: by_factor(fit.b_sd, lambda n: np.sqrt(np.einsum("jkk->jk", d.spread(n, d.W)))),
    "blup_variances": lambda fit, d: is_blup_variances(fit.blup_variances(), d),
    "beta": lambda fit, d: close(fit.beta, d.beta, rtol=1e-7),
    "beta_cov": lambda fit, d: close(fit.beta_cov, d.beta_cov, rtol=1e-7),
    "beta_se": lambda fit, d: close(fit.beta_se, np.sqrt(np.diag(d.beta_cov)), rtol=1e-7),
    "summary": lambda fit, d: is_summary(fit.summary(), d),
    "frame": lambda fit, d: is_summary(fit.frame, d),
    "to_frame": lambda fit, d: is_summary(fit.to_frame(), d),
    "criterion": lambda fit, d: is_criterion(fit, d, fit.criterion),
    "loglik": lambda fit, d: is_criterion(fit, d, -2.0 * fit.loglik),
    "aic": lambda fit, d: is_criterion(fit, d, fit.aic - 2.0 * 10),
    "bic": lambda fit, d: is_criterion(fit, d, fit.bic - np.log(160) * 10),
    "information_criteria": lambda fit, d: is_criterion(fit, d, fit.information_criteria()["value"].iloc[0] - 2.0 * 10),
    "optima": lambda fit, d: is_criterion(fit, d, fit.optima["criterion"].iloc[0]),
    "sigma": lambda fit, d: close(fit.sigma**2, d.rest @ d.W @ d.rest / 156 * d.s2),  # the REML estimate given Λ
    "fitted": lambda fit, d: [
        close(fit.fitted(level), d.fitted(*names))
        for level, names in (
            ("all", d.D),
            ("population", []),
            ("school:class", ["school", "school:class"]),
            ("rater", ["rater"]),
        )
    ],
    "residuals": lambda fit, d: [
        close(fit.residuals(), d.y - d.fitted(*d.D), atol=1e-7),
        close(fit.residuals("pearson"), (d.y - d.fitted(*d.D)) / fit.sigma, atol=1e-7),
        close(fit.residuals("pearson", "population"), (d.y - d.fitted()) / np.sqrt(np.diag(d.V)), atol=1e-7),
        close(
            fit.residuals("pearson", "school"),
            (d.y - d.fitted("school")) / np.sqrt(np.diag(d.V - d.parts["school"])),
            atol=1e-7,
        ),
    ],
    "predict": lambda fit, d: close(fit.predict()["estimate"], d.fitted(*d.D)),
    "marginal_covariance": lambda fit, d: [
        close(fit.marginal_covariance(list(range(160))), d.V, atol=1e-12),
        close(fit.marginal_covariance(), d.V[:20, :20], atol=1e-12),
        close(fit.marginal_covariance(3), d.V[3:4, 3:4], atol=1e-12),
    ],
    "bootstrap": lambda fit, _: refused(lambda: fit.bootstrap(2, "subject")),  # drawn: see test_factor_bootstrap
    "implied_marginal": lambda fit, d: close(fit.implied_marginal(rows=[0, 1, 2], draws=0).V, d.V[:3, :3], atol=1e-12),
    "influence": lambda fit, _: unknown_factor(lambda: fit.influence("pupil")),  # see test_group_influence
    "interpret": lambda fit, _: close(len(fit.interpret(ci=0.9).sentences) > 10, True),  # see test_factor_words
    "icc": lambda fit, d: close(
        fit.icc, np.array([D[0, 0] for D in d.D.values()]) / (sum(D[0, 0] for D in d.D.values()) + d.s2)
    ),
    "r_squared": lambda fit, d: close(fit.r_squared().table["estimate"], shares_of_rows(fit, d), rtol=1e-7),
    "variance_components": lambda fit, d: close(
        fit.variance_components()["estimate"],
        [*(v for D in d.D.values() for v in np.sqrt(np.diag(D))), corr(d.D["school"])[0, 1], np.sqrt(d.s2)],
        rtol=1e-7,
    ),
    "n_groups": lambda fit, d: close(fit.n_groups, [d.Z[n].shape[1] for n in ("school:class", "school", "rater")]),
    "n_obs": lambda fit, d: close(fit.n_obs, len(d.y)),
    "n_parameters": lambda fit, d: close(fit.n_parameters, 4 + 3 + 1 + 1 + 1),
    "estimator": lambda fit, d: close(fit.estimator == "REML", True),
    "reml": lambda fit, d: close(fit.reml, True),
    "converged": lambda fit, d: close(fit.converged, True),
    "gradient_norm": lambda fit, d: close(fit.gradient_norm, 0.0, atol=1e-6),
    "is_singular": lambda fit, d: close(fit.is_singular, min(np.linalg.det(D) for D in d.D.values()) < 1e-9),
    "warnings": lambda fit, d: close(len(fit.warnings), 0),
    "residual_estimate": lambda fit, d: close(fit.residual_estimate is None, True),
    "solution": lambda fit, d: close(fit.solution.beta, d.beta, rtol=1e-7),
    "optimum": lambda fit, d: is_criterion(fit, d, fit.optimum.value),
    "criterion_function": lambda fit, d: is_criterion(fit, d, fit.criterion_function(fit.optimum.lam)),
    "large_sample": lambda fit, _: close(fit.large_sample.split(fit.large_sample.centre)[0], fit.solution.D, rtol=1e-8),
    "hypothesis": lambda fit, d: is_linear(fit.hypothesis("2*x - kind[T.q] = 0"), np.array([[0, 2.0, -1, 0]]), d),
    "slopes": lambda fit, d: is_linear(fit.slopes("x", by="kind"), np.array([[0, 1.0, 0, 0], [0, 1, 0, 1]]), d),
    "contrasts": lambda fit, d: is_linear(fit.contrasts("kind", at={"x": 0.0}), np.array([[0, 0.0, -1, 0]]), d),
    "marginal_means": lambda fit, d: is_linear(
        fit.marginal_means("kind", at={"x": 0.5}), np.array([[1, 0.5, 0, 0], [1, 0.5, 1, 0.5]]), d
    ),
    "effects": lambda fit, d: is_linear(
        fit.effects("x", at={"kind": "q", "x": [0, 1]}), np.array([[1, 0.0, 1, 0], [1, 1, 1, 1]]), d
    ),
    "plot_effects": lambda fit, _: fit.plot_effects("x", by="kind", data="partial", backend="none"),
    "anova": lambda fit, d: close(fit.anova().loc["x:kind", "F"], d.beta[3] ** 2 / d.beta_cov[3, 3], rtol=1e-6),
    "intraclass_correlation": lambda fit, _: refused(fit.intraclass_correlation),  # with a slope; see test_multilevel
    "plot_forest": lambda fit, _: fit.plot_forest(backend="none"),
    "plot_residuals": lambda fit, _: fit.plot_residuals(simulations=9, backend="none"),  # see test_factor_residuals
    "plot_qq": lambda fit, _: fit.plot_qq(simulations=19, backend="none"),
    "plot_random_effects": lambda fit, d: is_picture_of_b(fit, d),
    "plot_optima": lambda fit, _: refused(fit.plot_optima),  # one optimum only
    "report": lambda fit, _: reports(fit),
    "save": lambda fit, _: refused(lambda: fit.save("fit.nc", data=False)),  # with rows: see test_multilevel
    "design": lambda fit, d: close(fit.design.Z.shape, (160, 4)),
    "lacks": lambda fit, _: fit.require("D"),
    "require": lambda fit, _: refused(lambda: fit.require("profile")),
    "has_draws": lambda fit, d: close(fit.has_draws, False),
    "has_likelihood": lambda fit, d: close(fit.has_likelihood, True),
    "has_random_effects": lambda fit, d: close(fit.has_random_effects, True),
    "has_working_correlation": lambda fit, d: close(fit.has_working_correlation, False),
}
MODEL_RIGHT = [
    "compare",
    "data",
    "design",
    "equations",
    "fit",
    "fit_ml",
    "fit_reml",
    "formula",
    "from_formula",
    "hierarchy",
    "implied_marginal",
    "lacks",
    "priors",
    "residual",
    "residual_group",
    "residual_variance",
    "to_pymc",
    "weights",
    "with_design",
]


def test_every_name_of_the_fit_is_settled(fit):
    names = public(hl.MultilevelFit, *vars(fit))
    assert set(names) == set(CHECKS) | (set(fit.lacks) & set(names))
    assert not set(CHECKS) & set(fit.lacks)


@pytest.mark.parametrize("name", sorted(CHECKS))
def test_what_a_fit_has_is_right(name, fit, dense):
    CHECKS[name](fit, dense)


@pytest.mark.parametrize("name", sorted(hl.MultilevelFit.lacks))
def test_what_a_fit_has_not_is_refused(name, fit):
    def ask() -> None:
        found = getattr(fit, name)
        found()

    if hasattr(hl.MultilevelFit, name):
        refused(ask)


@pytest.mark.parametrize("name", public(hl.MultilevelModel))
def test_what_a_model_has_is_right_or_refused(name, model):
    if name in MODEL_RIGHT:
        assert name not in model.lacks
        getattr(model, name)
    else:
        refused(lambda: getattr(model, name)())


TAKE_FITS = ANSWERED


@pytest.mark.parametrize("kind", ["fit", "model"])
@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_functions_refuse_what_they_are_not_made_for(name, kind, request):
    thing, function = request.getfixturevalue(kind), FUNCTIONS[name]
    if kind == "fit" and name in TAKE_FITS:
        return
    refused(lambda: call_with(function, thing))
