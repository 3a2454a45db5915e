"""Every public name of a posterior with several factors is right, by its draws, or refused with a reason."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import arviz as az
import numpy as np
import pandas as pd
import pytest
from settled import FUNCTIONS, call_with, public, refused

import hierlmm as hl
from hierlmm.bayes import sample_collapsed
from hierlmm.errors import DataError

close = np.testing.assert_allclose
FACTORS = ["school", "school:class", "rater"]
OWN = {"school": slice(0, 2), "school:class": slice(2, 3), "rater": slice(3, 4)}


def flat(fit: Any, name: str) -> np.ndarray:
    values = fit.datatree["posterior"][name].to_numpy()
    return values.reshape(-1, *values.shape[2:])


def covariance(fit: Any) -> np.ndarray:
    """D of every draw, from SDs and the one correlation: that of school."""
    sd, D = flat(fit, "sd_b"), np.zeros((4000, 4, 4))
    D[:, range(4), range(4)] = sd**2
    D[:, 0, 1] = D[:, 1, 0] = flat(fit, "corr_b")[:, 0] * sd[:, 0] * sd[:, 1]
    return D


def by_factor(values: Any, expected: Callable[[str], Any]) -> None:
    assert list(values) == FACTORS
    for name, value in values.items():
        close(value, expected(name), rtol=1e-9, atol=1e-12)


def lines(fit: Any, *factors: str) -> np.ndarray:
    """Expected responses at every draw, (S, N)."""
    design = fit.design
    found = flat(fit, "beta") @ design.X.T
    for term in design.random:
        if term.columns.group in factors:
            b = flat(fit, f"b_{term.columns.group}")[:, term.group.index]
            found = found + np.einsum("sij,ij->si", b, term.Z)
    return found


def shares(fit: Any, k: int) -> np.ndarray:
    D, X, Z = covariance(fit), fit.design.X, fit.design.Z
    f = np.var(flat(fit, "beta") @ X.T, axis=1, ddof=1)
    r, e = np.einsum("ij,sjk,ik->s", Z, D, Z) / len(Z), flat(fit, "sigma") ** 2
    return [(f / (f + r + e)).mean(), ((f + r) / (f + r + e)).mean()][k]


def is_loglik(fit: Any) -> None:
    """That of an ML fit is highest at its own estimates, and this is it at the means: by matrices of all rows."""
    design, D = fit.design, covariance(fit).mean(axis=0)
    V = flat(fit, "sigma").mean() ** 2 * np.eye(160)
    for term in design.random:
        V += term.covariance(D[OWN[term.columns.group], OWN[term.columns.group]])
    rest = design.y - design.X @ flat(fit, "beta").mean(axis=0)
    value = np.linalg.slogdet(2 * np.pi * V)[1] + rest @ np.linalg.solve(V, rest)
    assert fit.loglik == pytest.approx(-0.5 * value, rel=1e-10)


def is_prediction(fit: Any) -> None:
    table = fit.predict(interval="credible")
    close(table["estimate"], lines(fit, *FACTORS).mean(axis=0))
    close(table["lower"], np.quantile(lines(fit, *FACTORS), 0.025, axis=0))
    new = fit.design.frame[["x", "kind"]].head(2).assign(school=[0, 99], **{"class": 0}, rater=[0, 1])
    with pytest.raises(DataError, match="school 99"):
        fit.predict(new)
    known = fit.predict(new, level="school", interval="prediction", new_groups="allow")
    D, Z = covariance(fit).mean(axis=0)[:2, :2], np.array([1.0, new["x"].iloc[1]])
    wide = known["se"].iloc[1] ** 2
    assert wide == pytest.approx(Z @ D @ Z + fit.sigma**2 + lines(fit).var(axis=0)[1], rel=0.2)
    close(known["estimate"].iloc[1], fit.predict(new, level="population")["estimate"].iloc[1])


def is_loo(fit: Any) -> None:
    """Rows and groups by the importance weights of ArviZ, from densities of `test_left_out`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of five raters each says a lot about their variance
        rows, raters = fit.loo(), fit.loo("rater")
        own = az.loo(fit.log_likelihood("rater"), reff=1.0)
    assert (rows.n, raters.n) == (160, 5)
    assert raters.table.index.tolist() == list(range(5))
    assert rows.p < 20  # β and θ, not one more for each group
    assert rows.pareto_k.max() < 0.7
    assert raters.elpd == pytest.approx(own.elpd, abs=0.1)
    refused(lambda: fit.loo("chain"))


CHECKS: dict[str, Callable[[Any], None]] = {
    "check": lambda fit: close("outlying(rater)" in fit.check(simulations=299).table.index, True),
    "heterogeneity": lambda fit: close(fit.heterogeneity("school").table["sd"], fit.sd_b["school"]),
    "rank_subjects": lambda fit: close(
        fit.rank_subjects("rater", draws=100).table["coefficient"].sort_index(),
        fit.beta.iloc[0] + fit.b["rater"]["Intercept"],
    ),
    "D": lambda fit: by_factor(fit.D, lambda n: covariance(fit).mean(axis=0)[OWN[n], OWN[n]]),
    "sd_b": lambda fit: by_factor(fit.sd_b, lambda n: flat(fit, "sd_b").mean(axis=0)[OWN[n]]),
    "corr_b": lambda fit: close(fit.corr_b["school"].iloc[0, 1], flat(fit, "corr_b").mean()),
    "b": lambda fit: by_factor(fit.b, lambda n: flat(fit, f"b_{n}").mean(axis=0)),
    "b_sd": lambda fit: by_factor(fit.b_sd, lambda n: flat(fit, f"b_{n}").std(axis=0, ddof=1)),
    "beta": lambda fit: close(fit.beta, flat(fit, "beta").mean(axis=0)),
    "beta_cov": lambda fit: close(fit.beta_cov, np.cov(flat(fit, "beta").T)),
    "beta_se": lambda fit: close(fit.beta_se, flat(fit, "beta").std(axis=0, ddof=1)),
    "sigma": lambda fit: close(fit.sigma, flat(fit, "sigma").mean()),
    "summary": lambda fit: close(fit.summary()["lower"], np.quantile(flat(fit, "beta"), 0.025, axis=0)),
    "frame": lambda fit: close(fit.frame["se"], flat(fit, "beta").std(axis=0, ddof=1)),
    "to_frame": lambda fit: close(fit.to_frame()["se"], flat(fit, "beta").std(axis=0, ddof=1)),
    "variance_components": lambda fit: close(
        fit.variance_components()["estimate"],
        [*flat(fit, "sd_b").mean(axis=0), flat(fit, "corr_b").mean(), flat(fit, "sigma").mean()],
    ),
    "fitted": lambda fit: [
        close(fit.fitted(level), lines(fit, *names).mean(axis=0))
        for level, names in (("all", FACTORS), ("population", []), ("school:class", ["school", "school:class"]))
    ],
    "residuals": lambda fit: close(fit.residuals(), fit.design.y - lines(fit, *FACTORS).mean(axis=0), atol=1e-9),
    "line_draws": lambda fit: close(fit.line_draws("rater").reshape(4000, -1), lines(fit, "rater")),
    "marginal_covariance": lambda fit: close(
        fit.marginal_covariance(3), fit.design.Z[3] @ covariance(fit).mean(axis=0) @ fit.design.Z[3] + fit.sigma**2
    ),
    "icc": lambda fit: close(
        fit.icc,
        np.mean(
            flat(fit, "sd_b")[:, [0, 2, 3]] ** 2
            / ((flat(fit, "sd_b")[:, [0, 2, 3]] ** 2).sum(axis=1) + flat(fit, "sigma") ** 2)[:, None],
            axis=0,
        ),
    ),
    "r_squared": lambda fit: close(fit.r_squared().table["estimate"], [shares(fit, 0), shares(fit, 1)]),
    "loglik": is_loglik,
    "predict": is_prediction,
    "loo": is_loo,
    "log_likelihood": lambda fit: close(
        fit.log_likelihood()["log_likelihood"]["y"].to_numpy().reshape(4000, -1)[:9],
        -0.5 * ((fit.design.y - lines(fit, *FACTORS)) ** 2 / flat(fit, "sigma")[:, None] ** 2)[:9]
        - np.log(flat(fit, "sigma") * np.sqrt(2 * np.pi))[:9, None],
    ),
    "draws": lambda fit: close(fit.draws("D").reshape(-1, 4, 4), covariance(fit), atol=1e-12),
    "evenly_kept": lambda fit: close(fit.evenly_kept(2), [0, 3999]),
    "draw_shape": lambda fit: close(fit.draw_shape, [4, 1000]),
    "hypothesis": lambda fit: close(fit.hypothesis("2*x = 0").table["estimate"], 2 * flat(fit, "beta")[:, 1].mean()),
    "slopes": lambda fit: close(
        fit.slopes("x", at={"kind": "q"}).table["estimate"], flat(fit, "beta")[:, [1, 3]].sum(axis=1).mean()
    ),
    "contrasts": lambda fit: close(
        fit.contrasts("kind", at={"x": 0.0}).table["estimate"], -flat(fit, "beta")[:, 2].mean()
    ),
    "marginal_means": lambda fit: close(
        fit.marginal_means("kind", at={"x": 0.0}).table["estimate"],
        [flat(fit, "beta")[:, 0].mean(), flat(fit, "beta")[:, [0, 2]].sum(axis=1).mean()],
    ),
    "convergence": lambda fit: close(fit.convergence().ok, True),
    "converged": lambda fit: close(fit.converged, True),
    "warnings": lambda fit: close(len(fit.warnings), 0),
    "n_groups": lambda fit: close(fit.n_groups, [24, 8, 5]),
    "n_obs": lambda fit: close(fit.n_obs, 160),
    "estimator": lambda fit: close(fit.estimator == "NUTS", True),
    "residual_estimate": lambda fit: close(fit.residual_estimate is None, True),
    "residual_draws": lambda fit: close(fit.residual_draws().shape, [4, 1000, 0]),
    "sample_stats": lambda fit: close(fit.sample_stats["diverging"].shape, [4, 1000]),
    "to_datatree": lambda fit: close(
        fit.to_datatree()["constant_data"]["rater_index"], fit.design.random[2].group.index
    ),
    "datatree": lambda fit: close(fit.datatree["posterior"]["b_school"].sizes["school_term"], 2),
    "priors": lambda fit: close(len(fit.priors.sd_b), 4),
    "design": lambda fit: close(fit.design.Z.shape, (160, 4)),
    "labeller": lambda fit: close(
        fit.labeller.make_label_flat("sd_b", {"term": "x | school"}, {}) == "sd(x | school)", True
    ),
    "need_effects": lambda fit: fit.need_effects("b", draws=True),
    "lacks": lambda fit: fit.require("D"),
    "require": lambda fit: refused(lambda: fit.require("psense")),
    "has_draws": lambda fit: close(fit.has_draws, True),
    "has_likelihood": lambda fit: close(fit.has_likelihood, False),
    "has_random_effects": lambda fit: close(fit.has_random_effects, True),
    "has_working_correlation": lambda fit: close(fit.has_working_correlation, False),
    "intraclass_correlation": lambda fit: refused(fit.intraclass_correlation),  # with a slope
    "anova": lambda fit: refused(fit.anova),
    "residual_at": lambda fit: close(len(fit.residual_at(np.empty(0)).parameters), 0),
    "save": lambda fit: refused(lambda: fit.save("fit.nc", data=False)),  # with rows: below
    "plot_random_effects": lambda fit: is_picture_of_b(fit),
}
PICTURES = ("trace", "rank", "autocorr", "ess", "mcse", "energy", "pair", "diagnostics", "forest", "posterior")


def is_picture_of_b(fit: Any) -> None:
    drawn = fit.plot_random_effects("school", terms="x", backend="none")
    points = drawn.viz["point_estimate"]["effects"].sel(term="x").to_numpy().ravel()[0]["x"]
    close(points, np.sort(flat(fit, "b_school").mean(axis=0)[:, 1]))


def test_every_name_of_the_posterior_is_settled(posterior):
    names = public(hl.MultilevelPosterior, *vars(posterior))
    drawn = {f"plot_{name}" for name in PICTURES}
    assert set(names) == set(CHECKS) | drawn | (set(posterior.lacks) & set(names))
    assert not set(CHECKS) & set(posterior.lacks)


@pytest.mark.parametrize("name", sorted(CHECKS))
def test_what_a_posterior_has_is_right(name, posterior):
    CHECKS[name](posterior)


@pytest.mark.parametrize("name", sorted(hl.MultilevelPosterior.lacks))
def test_what_a_posterior_has_not_is_refused(name, posterior):
    if hasattr(hl.MultilevelPosterior, name):
        refused(lambda: getattr(posterior, name)())


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_functions_refuse_what_they_are_not_made_for(name, posterior):
    function = FUNCTIONS[name]
    if name in type(posterior)._answered_by:
        return
    refused(lambda: call_with(function, posterior))


@pytest.mark.parametrize("name", PICTURES)
def test_pictures(name, posterior):
    assert getattr(posterior, f"plot_{name}")(backend="none") is not None


def test_prints(posterior):
    text = str(posterior)
    assert "Multilevel model, posterior by NUTS (collapsed)" in text
    assert "Number of obs: 160, groups: school:class, 24; school, 8; rater, 5" in text
    line = next(own for own in text.splitlines() if own.startswith(" school  "))
    assert line.split()[:2] == ["school", "Intercept"]
    assert "NaN" not in posterior._repr_html_()


def test_a_file_gives_the_same_posterior(posterior, tmp_path):
    loaded = hl.load_fit(posterior.save(tmp_path / "fit.nc"))
    assert type(loaded) is hl.MultilevelPosterior
    for name in FACTORS:
        pd.testing.assert_frame_equal(loaded.b[name], posterior.b[name])
    assert loaded.priors.sizes == posterior.priors.sizes
    assert str(loaded) == str(posterior)


def test_effects_are_kept_as_means_where_draws_are_many(model, posterior, monkeypatch):
    monkeypatch.setattr(sample_collapsed, "DRAWS_LIMIT", 4 * 100 * (16 + 24 + 5) - 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", hl.FitWarning)  # few draws
        fit = model.fit(draws=100, tune=300, seed=1, progressbar=False)
    assert fit.datatree.attrs["random_effects"] == "summary"
    for name in FACTORS:
        close(fit.b[name], posterior.b[name], atol=0.3)
        close(fit.b_sd[name], posterior.b_sd[name], rtol=0.3)
    refused(lambda: fit.draws("b_school"))
    refused(fit.log_likelihood)
    assert np.isfinite(fit.loo().elpd)
    close(fit.predict()["estimate"], fit.fitted())
