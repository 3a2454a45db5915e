"""What the sweeps over posteriors with several factors share: numbers from their draws, and what a name must give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from settled import public, refused, reports

close = np.testing.assert_allclose
FACTORS = ["school", "school:class", "rater"]
OWN = {"school": slice(0, 2), "school:class": slice(2, 3), "rater": slice(3, 4)}
PICTURES = ("trace", "rank", "autocorr", "ess", "mcse", "energy", "pair", "diagnostics", "forest", "posterior")


def flat(fit: Any, name: str) -> np.ndarray:
    """All draws of a variable, (S, ...)."""
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
    """Linear predictors at every draw, (S, N)."""
    found = fit.design.offset + flat(fit, "beta") @ fit.design.X.T
    for term in fit.design.random:
        if term.columns.group in factors:
            b = flat(fit, f"b_{term.columns.group}")[:, term.group.index]
            found = found + np.einsum("sij,ij->si", b, term.Z)
    return found


def is_picture_of_b(fit: Any) -> None:
    drawn = fit.plot_random_effects("school", terms="x", backend="none")
    points = drawn.viz["point_estimate"]["effects"].sel(term="x").to_numpy().ravel()[0]["x"]
    close(points, np.sort(flat(fit, "b_school").mean(axis=0)[:, 1]))


def are_settled(fit: Any, checks: Any) -> None:
    """Every public name is among the checks, the pictures and what the fit lacks, and in one of them only."""
    names = public(type(fit), *vars(fit))
    assert set(names) == set(checks) | {f"plot_{name}" for name in PICTURES} | (set(fit.lacks) & set(names))
    assert not set(checks) & set(fit.lacks)


CHECKS: dict[str, Callable[[Any], None]] = {
    "D": lambda fit: by_factor(fit.D, lambda n: covariance(fit).mean(axis=0)[OWN[n], OWN[n]]),
    "sd_b": lambda fit: by_factor(fit.sd_b, lambda n: flat(fit, "sd_b").mean(axis=0)[OWN[n]]),
    "corr_b": lambda fit: close(fit.corr_b["school"].iloc[0, 1], flat(fit, "corr_b").mean()),
    "b": lambda fit: by_factor(fit.b, lambda n: flat(fit, f"b_{n}").mean(axis=0)),
    "b_sd": lambda fit: by_factor(fit.b_sd, lambda n: flat(fit, f"b_{n}").std(axis=0, ddof=1)),
    "beta": lambda fit: close(fit.beta, flat(fit, "beta").mean(axis=0)),
    "beta_cov": lambda fit: close(fit.beta_cov, np.cov(flat(fit, "beta").T)),
    "beta_se": lambda fit: close(fit.beta_se, flat(fit, "beta").std(axis=0, ddof=1)),
    "summary": lambda fit: close(fit.summary()["lower"], np.quantile(flat(fit, "beta"), 0.025, axis=0)),
    "frame": lambda fit: close(fit.frame["se"], flat(fit, "beta").std(axis=0, ddof=1)),
    "to_frame": lambda fit: close(fit.to_frame()["se"], flat(fit, "beta").std(axis=0, ddof=1)),
    "draws": lambda fit: close(fit.draws("D").reshape(-1, 4, 4), covariance(fit), atol=1e-12),
    "evenly_kept": lambda fit: close(fit.evenly_kept(2), [0, 3999]),
    "draw_shape": lambda fit: close(fit.draw_shape, [4, 1000]),
    "hypothesis": lambda fit: close(fit.hypothesis("2*x = 0").table["estimate"], 2 * flat(fit, "beta")[:, 1].mean()),
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
    "anova": lambda fit: refused(fit.anova),
    "residual_at": lambda fit: close(len(fit.residual_at(np.empty(0)).parameters), 0),
    "report": reports,
    "save": lambda fit: refused(lambda: fit.save("fit.nc", data=False)),
    "plot_random_effects": lambda fit: is_picture_of_b(fit),
}
