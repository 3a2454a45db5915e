"""The compiled posterior of other families with several factors: PyMC's density of the same model, and its gradient."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from pymc_density import log_density_of

import hierlmm as hl
from hierlmm.bayes import generalised_whitening, route
from hierlmm.bayes.distributions import Exponential
from hierlmm.bayes.explicit_factors import build_factor_model, determined_factors, factor_draws_of_model
from hierlmm.bayes.generalised import FactorMarginal, joint_posterior
from hierlmm.bayes.tree import effects_names
from hierlmm.covariance.partial import partials_of_correlation
from hierlmm.design.factors import own_part
from hierlmm.errors import SpecificationError

close = np.testing.assert_allclose


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    rng, n = np.random.default_rng(2), 90
    columns = {name: rng.integers(0, k, n) for name, k in (("s", 6), ("c", 3), ("r", 4))}
    frame = pd.DataFrame(columns).assign(x=rng.normal(2, 1, n), hours=rng.uniform(1, 3, n), n=rng.integers(1, 6, n))
    line = 0.4 * (frame["x"] - 2) + rng.normal(size=6)[frame["s"]] + 0.5 * rng.normal(size=4)[frame["r"]]
    p = 1 / (1 + np.exp(-line))
    frame["yes"], frame["right"] = (rng.random(n) < p).astype(int), rng.binomial(frame["n"], p)
    frame["count"], frame["size"] = rng.poisson(np.exp(line) * frame["hours"]), rng.gamma(2.0, np.exp(line))
    frame["grade"] = pd.Categorical.from_codes(rng.integers(0, 3, n), ["low", "mid", "high"], ordered=True)
    return frame


STUDENT = hl.Priors(
    intercept=hl.StudentT(3, 0.5, 1), beta=hl.StudentT(3, 0, 2), sd_b=hl.HalfStudentT(3, 1), dispersion=Exponential(2)
)
CASES = {
    "crossed": ("yes ~ x + (1 | s) + (1 | r)", {"family": "bernoulli"}),
    "nested, a slope": ("count ~ x + (1 + x | s) + (1 | s:c)", {"family": "poisson", "exposure": "hours"}),
    "slopes of the first": ("right ~ x + (1 + x | s) + (1 | r)", {"family": "binomial", "trials": "n"}),
    "three, uncorrelated": (
        "count ~ x + (1 | s / c) + (1 + x || r)",
        {"family": "negative_binomial", "priors": STUDENT},
    ),
    "no fixed effects": ("size ~ 0 + (1 | s) + (1 | r)", {"family": "gamma", "link": "log"}),
    "categories": ("grade ~ x + (1 | s) + (1 | r)", {"family": "ordinal"}),
}


def model_of(rows: pd.DataFrame, case: str, **more: object) -> hl.MultilevelModel:
    formula, options = CASES[case]
    options = dict(options)
    if link := options.pop("link", None):
        options["family"] = hl.families.Gamma(link=link)
    return hl.MultilevelModel.from_formula(formula, rows, **options, **more)


def free_variables(posterior, z):
    """Values of PyMC's free variables at whitened coordinates, and log|∂(these)/∂z| but for constants."""
    model, design, priors = posterior.model, posterior.design, posterior.model.priors
    k, p, names = model.n_phi, len(model.data.K), effects_names(posterior.design)
    phi = posterior.settled(z[None], effects=False)[0]
    found = {name: values[0] for name, values in model.natural(phi).items()}
    A = priors.random_centering
    D = A @ found["D"] @ A.T
    sd = np.sqrt(np.diag(D))

    def standardised(at):
        b = posterior.effects(at[None])
        parts = [(own_part(design, j), b[name][0]) for j, name in enumerate(names)]
        return [np.linalg.solve(np.linalg.cholesky(D[own]), A[own] @ part.T).T for own, part in parts]

    def whole(at):
        """β in working columns and all standardised effects: affine in w and v, given the other parameters."""
        beta = posterior.settled(at[None], effects=False)[0][0, k - p :]
        return np.concatenate([beta, *(part.ravel() for part in standardised(at))])

    origin = z.copy()
    origin[k - p :] = 0.0
    units = np.eye(len(z))[k - p :]
    jacobian = np.linalg.slogdet(np.array([whole(origin + e) - whole(origin) for e in units]))[1]
    scale = model.data.sd_prior[:, -1]
    jacobian += np.sum(np.where(scale > 0.0, np.log(np.where(scale > 0.0, 0.5 * scale, 1.0)), np.log(sd)))
    point = {"sd_b": sd, "sd_b_centered": sd} | {
        f"z{name[1:]}": own for name, own in zip(names, standardised(z), strict=True)
    }
    if p:
        point |= {"beta": found["beta"], "beta_centered": priors.centering @ found["beta"]}
    partial = []
    for block in (np.array(b) for b in design.blocks if len(b) > 1):
        own = np.ix_(block, block)
        c = partials_of_correlation((D / np.outer(sd, sd))[own])[1, 0]
        partial.append(0.5 * (1.0 + c))
        jacobian += np.log(1.0 - c**2)
    point["corr_b_partial"] = np.array(partial)
    for name, value in zip(priors.dispersion_names, model.parts(phi[0])[2], strict=True):
        point[name.replace(" ", "_")] = np.exp(value)
        jacobian += value
    return point, jacobian


@pytest.mark.parametrize("case", CASES)
def test_density_and_gradient(case, rows):
    model = model_of(rows, case)
    posterior, explicit = joint_posterior(model.design, model.priors), log_density_of(model.to_pymc())
    assert len(posterior.names) == posterior.dimension
    apart = []
    for seed in range(3):
        z = 0.5 * np.random.default_rng(seed).normal(size=posterior.dimension)
        point, jacobian = free_variables(posterior, z)
        value, gradient = posterior.log_density(z)
        apart.append(value - jacobian - explicit(point))
    close(apart, apart[0], rtol=0.0, atol=1e-9 * abs(value))
    steps = 1e-5 * np.eye(len(z))
    slopes = [(posterior.log_density(z + e)[0] - posterior.log_density(z - e)[0]) / 2e-5 for e in steps]
    close(gradient, slopes, atol=1e-6 * max(1.0, np.abs(gradient).max()))


def test_the_density_by_laplace_has_its_gradient(rows):
    model = model_of(rows, "nested, a slope")
    posterior = joint_posterior(model.design, model.priors)
    phi = posterior.settled(0.4 * np.ones((1, posterior.dimension)), effects=False)[0][0]
    marginal, steps = FactorMarginal(posterior.model), 1e-5 * np.eye(len(phi))
    slopes = [(marginal.log_density(phi + e)[0] - marginal.log_density(phi - e)[0]) / 2e-5 for e in steps]
    close(marginal.log_density(phi)[1], slopes, atol=1e-6 * np.abs(slopes).max())


@pytest.mark.parametrize("case", ["crossed", "nested, a slope"])
def test_coordinates_are_uncorrelated_at_the_fit(case, rows):
    """Of β and the random effects: the curvature at z = 0 is that of independent standard normals."""
    model = model_of(rows, case)
    posterior = joint_posterior(model.design, model.priors)
    start = posterior.model.n_phi - len(model.design.coef)
    units = 1e-4 * np.eye(posterior.dimension)[start:]
    rise = [posterior.log_density(e)[1][start:] - posterior.log_density(-e)[1][start:] for e in units]
    close(np.array(rise) / -2e-4, np.eye(len(units)), atol=1e-4)


def test_explicit_draws_have_the_names_of_the_model(rows):
    """Centred by factor at the fit by maximum likelihood; thresholds follow from steps."""
    model = model_of(rows, "categories")
    assert set(determined_factors(model.design)) <= {"s", "r"}
    graph = build_factor_model(model.design, model.priors, ("s",))
    assert {"b_s", "z_r", "eta"} <= set(graph.named_vars)
    shapes = {"beta_centered": (2,), "sd_b": (2,), "b_s": (6, 1), "z_r": (4, 1), "step_2": ()}
    assert set(shapes) == {v.name for v in graph.free_RVs}
    raw = {name: np.random.default_rng(1).uniform(0.5, 1.0, (1, 3, *own)) for name, own in shapes.items()}
    found = factor_draws_of_model(model.design, model.priors, raw)
    close(found["threshold_2"], raw["step_2"])
    close(found["b_s"], raw["b_s"])
    close(found["b_r"], raw["z_r"] * raw["sd_b"][..., None, 1:])


def test_routes(rows, monkeypatch):
    """Compiled wherever it can be; else the explicit hierarchy, with the reason; no approximation."""
    monkeypatch.setattr(route, "sample_explicit", lambda design, priors, **given: ("explicit", given["why"]))
    monkeypatch.setattr(route, "sample_joint", lambda design, priors, **given: "joint")
    model = model_of(rows, "crossed")
    monkeypatch.setattr(route, "family_conflicts", lambda design, priors: ())
    from hierlmm.fit.registry import ESTIMATORS

    nuts = ESTIMATORS["nuts"].solve
    assert nuts(model) == "joint"
    assert nuts(model, sampler="explicit") == ("explicit", "as asked for")
    own = model_of(rows, "crossed", priors=hl.Priors(beta=hl.Uniform(-3, 3)))
    assert nuts(own)[0] == "explicit" and "neither normal" in nuts(own)[1]
    for sampler in ("laplace", "collapsed"):
        with pytest.raises(SpecificationError, match=sampler):
            nuts(model, sampler=sampler)
    monkeypatch.setattr(generalised_whitening, "MOST", 3)
    assert nuts(model) == ("explicit", "the compiled density has a matrix of 6 columns, and is made for up to 3")


PYMC = {
    "crossed": {
        "Intercept": (-0.85907, 0.00761),
        "x": (0.56236, 0.00138),
        "sd(Intercept | s)": (1.19992, 0.00693),
        "sd(Intercept | r)": (0.50090, 0.00557),
    },
    "nested, a slope": {
        "Intercept": (-0.46573, 0.01366),
        "x": (0.40529, 0.00151),
        "sd(Intercept | s)": (1.44754, 0.00971),
        "sd(x | s)": (0.23086, 0.00243),
        "sd(Intercept | s:c)": (0.16823, 0.00135),
        "corr(Intercept | s, x | s)": (-0.36336, 0.00319),
    },
}
"""Posterior means and their Monte Carlo standard errors: PyMC's model of ``to_pymc()``, nutpie, 4 × 8,000 draws with a
target of 0.98, no divergences, R-hat at most 1.002."""


@pytest.mark.filterwarnings("ignore::hierlmm.errors.FitWarning")  # one divergence would be one
@pytest.mark.parametrize("case", PYMC)
def test_draws_are_those_of_pymc(case, rows):
    fit = model_of(rows, case).fit(seed=3, progressbar=False)
    table = pd.concat([fit.summary(), fit.variance_components()])
    for name, (mean, error) in PYMC[case].items():
        apart = table.loc[name, "estimate"] - mean
        assert abs(apart) < 4.0 * np.hypot(error, table.loc[name, "mcse"]), name
