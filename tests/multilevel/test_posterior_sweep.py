"""Every public name of a posterior with several factors is right, by its draws, or refused with a reason."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import arviz as az
import by_draws
import numpy as np
import pandas as pd
import pytest
from by_draws import FACTORS, OWN, PICTURES, are_settled, close, covariance, flat, lines
from settled import FUNCTIONS, call_with, refused

import hierlmm as hl
from hierlmm.bayes import sample_collapsed
from hierlmm.errors import DataError


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
    for unit, said in {"rater": "how well a rater not yet seen", "item": "how well an item not yet seen"}.items():
        assert said in " ".join(repr(replace(raters, unit=unit)).split())
    assert rows.p < 20  # β and θ, not one more for each group
    assert rows.pareto_k.max() < 0.7
    assert raters.elpd == pytest.approx(own.elpd, abs=0.1)
    refused(lambda: fit.loo("chain"))


def is_sharing(fit: Any) -> None:
    """Two rows of one school, at x = 0.5 and -1, that share nothing else: by hand from every draw."""
    pairs = fit.implied_marginal({"x": [0.5, -1.0]}, ci=0.9).pairs.set_index(FACTORS)
    first, second = np.array([1.0, 0.5]), np.array([1.0, -1.0])
    D, noise = covariance(fit), flat(fit, "sigma") ** 2 + (flat(fit, "sd_b")[:, 2:] ** 2).sum(axis=1)
    both = first @ D[:, :2, :2] @ second
    total = [np.einsum("i,sij,j->s", z, D[:, :2, :2], z) + noise for z in (first, second)]
    row, r = pairs.loc[("same", "other", "other")], both / np.sqrt(total[0] * total[1])
    close([row["covariance"], row["correlation"]], [both.mean(), r.mean()])
    close([row["lower"], row["upper"]], np.quantile(r, [0.05, 0.95]))
    assert fit.implied_marginal(draws=0).pairs["lower"].isna().all()


def are_curves(fit: Any) -> None:
    own = flat(fit, "beta") @ np.array([[1.0, 1.0], [-1.0, 2.0], [1.0, 1.0], [-1.0, 2.0]])
    table = fit.effects("x", at={"x": [-1.0, 2.0], "kind": "q"}).table
    close(table[["estimate", "lower"]].T, [own.mean(axis=0), np.quantile(own, 0.025, axis=0)])


def is_told(fit: Any) -> None:
    text = " ".join(fit.interpret().text.split())
    low, high = np.quantile(flat(fit, "sd_b")[:, 3], [0.025, 0.975])
    said = f"with an SD of {fit.sd_b['rater'].iloc[0]:.4g} (95 % credible interval "
    assert "fitted by NUTS" in text and said in text
    found = text.split(said)[1].split(")")[0].split(" to ")
    close([float(end) for end in found], [low, high], rtol=0.01)


CHECKS: dict[str, Callable[[Any], None]] = by_draws.CHECKS | {
    "implied_marginal": is_sharing,
    "interpret": is_told,
    "effects": are_curves,
    "plot_effects": lambda fit: close(fit.plot_effects("x", by="kind", data="partial", backend="none") is None, False),
    "loglik": is_loglik,
    "predict": is_prediction,
    "loo": is_loo,
    "check": lambda fit: close("outlying(rater)" in fit.check(simulations=299).table.index, True),
    "heterogeneity": lambda fit: close(fit.heterogeneity("school").table["sd"], fit.sd_b["school"]),
    "rank_subjects": lambda fit: close(
        fit.rank_subjects("rater", draws=100).table["coefficient"].sort_index(),
        fit.beta.iloc[0] + fit.b["rater"]["Intercept"],
    ),
    "sigma": lambda fit: close(fit.sigma, flat(fit, "sigma").mean()),
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
    "log_likelihood": lambda fit: close(
        fit.log_likelihood()["log_likelihood"]["y"].to_numpy().reshape(4000, -1)[:9],
        -0.5 * ((fit.design.y - lines(fit, *FACTORS)) ** 2 / flat(fit, "sigma")[:, None] ** 2)[:9]
        - np.log(flat(fit, "sigma") * np.sqrt(2 * np.pi))[:9, None],
    ),
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
    "intraclass_correlation": lambda fit: refused(fit.intraclass_correlation),  # with a slope
}


def test_every_name_of_the_posterior_is_settled(posterior):
    are_settled(posterior, CHECKS)


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
