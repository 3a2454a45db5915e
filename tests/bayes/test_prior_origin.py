"""Default priors do not depend on where a level-1 covariate has its zero."""

import numpy as np
import pandas as pd
import pytest
from pymc_density import evaluate
from scipy import stats

import hierlmm as hl
from hierlmm.bayes.collapsed import collapsed_posterior
from hierlmm.bayes.collapsed_residual import residual_posterior
from hierlmm.bayes.explicit import build_pymc_model
from hierlmm.bayes.priors import resolve_priors

ORIGINS = {"time": 0.0, "time - 8": -8.0, "year": 1990.0}
FORMULA = "y ~ sex * t + (1 + t | g)"


@pytest.fixture(scope="module")
def growth():
    """Twenty-five subjects over thirty years, at times of their own, sex between subjects."""
    rng = np.random.default_rng(7)
    g = np.repeat(np.arange(25), rng.integers(3, 7, 25))
    t = rng.integers(0, 31, len(g)).astype(float)
    b = rng.normal(size=(25, 2)) @ np.array([[3.0, 0.1], [0.0, 0.2]])
    y = 20 + b[g, 0] + (0.3 + b[g, 1]) * t + (g % 2) + rng.normal(size=len(g))
    return pd.DataFrame({"g": g, "t": t, "sex": np.where(g % 2, "f", "m"), "y": y})


def at(growth, origin):
    return growth.assign(t=growth["t"] + ORIGINS[origin])


@pytest.mark.parametrize("origin", ["time - 8", "year"])
@pytest.mark.parametrize("formula", [FORMULA, "y ~ 0 + sex + t + (1 + t | g)", "y ~ t + (1 + t + z | g)"])
@pytest.mark.parametrize("residual", [None, hl.CAR1("w")])
def test_the_collapsed_density_is_the_same_at_every_origin(growth, origin, formula, residual):
    growth = growth.assign(z=np.cos(growth["t"]), w=growth["t"] + 1e-3 * np.arange(len(growth)))
    densities = []
    for frame in (growth, at(growth, origin)):
        model = hl.TwoLevelModel.from_formula(formula, frame, residual=residual)
        make = collapsed_posterior if residual is None else residual_posterior
        densities.append(make(model.design, model.priors, signed=False))
    rng = np.random.default_rng(1)
    for _ in range(4):
        theta = densities[0].mode + rng.normal(scale=0.7, size=len(densities[0].mode))
        (value, slope), (moved, moved_slope) = (d.log_density(theta) for d in densities)
        assert moved == pytest.approx(value, abs=1e-9 * max(1.0, abs(value)))
        np.testing.assert_allclose(moved_slope, slope, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize("origin", ["time - 8", "year"])
def test_the_explicit_density_is_the_same_at_every_origin(growth, origin, centered):
    found = []
    for frame in (growth, at(growth, origin)):
        model = hl.TwoLevelModel.from_formula(FORMULA, frame)
        pymc_model = build_pymc_model(model.design, model.priors, centered=centered)
        found.append(evaluate(pymc_model, 3, model.design))
    (value, point), (moved, moved_point) = found
    assert moved == pytest.approx(value, rel=1e-9)
    Z = [np.column_stack([np.ones(len(growth)), growth["t"] + o]) for o in (0.0, ORIGINS[origin])]
    V = [z @ p["D"] @ z.T for z, p in zip(Z, (point, moved_point), strict=True)]
    np.testing.assert_allclose(V[1], V[0], rtol=1e-8, atol=1e-8 * np.abs(V[0]).max())


@pytest.mark.slow
def test_posterior_of_V_and_slopes_is_the_same_at_every_origin(growth):
    """Means of the marginal variances over time and of the slopes, within Monte-Carlo error (4 MCSE of 12 numbers)."""
    import arviz as az

    found = {}
    for k, origin in enumerate(ORIGINS):  # of the explicit model the densities are compared above
        model = hl.TwoLevelModel.from_formula(FORMULA, at(growth, origin))
        fit = model.fit(seed=k, progressbar=False)
        assert not fit.warnings
        D, sigma, beta = fit.draws("D"), fit.draws("sigma"), fit.draws("beta")
        Z = np.column_stack([np.ones(4), np.array([0.0, 10.0, 20.0, 30.0]) + ORIGINS[origin]])
        V = np.einsum("ia,csab,ib->csi", Z, D, Z) + sigma[..., None] ** 2
        slopes = beta[..., [c != "Intercept" and c.endswith("t") for c in model.design.coef]]
        numbers = np.concatenate([np.log(V), slopes, fit.draws("sd_b")[..., 1:]], axis=-1)
        mcse = [float(az.mcse(numbers[..., j])) for j in range(numbers.shape[-1])]
        found[origin] = numbers.mean(axis=(0, 1)), np.array(mcse)
    mean, error = found["time"]
    for other in found.keys() - {"time"}:
        z = (found[other][0] - mean) / np.hypot(found[other][1], error)
        assert np.abs(z).max() < 4.0


def test_the_density_on_the_natural_scale_is_a_change_of_variables(growth):
    """log p(sd, corr, ...) = log p*(sd*, corr*, ...) + log|∂(sd*, corr*)/∂(sd, corr)|, the derivative numerically."""
    design = hl.TwoLevelModel.from_formula("y ~ 1 + (1 + t + z | g)", growth.assign(z=np.cos(growth["t"]))).design
    priors = resolve_priors(None, design)
    A = np.eye(3)
    A[0, 1:] = design.Z[:, 1:].mean(axis=0)

    def stated(values):
        sd, corr = values[:3], np.eye(3)
        corr[[1, 2, 2], [0, 0, 1]] = corr[[0, 0, 1], [1, 2, 2]] = values[3:]
        D = A @ (corr * np.outer(sd, sd)) @ A.T
        moved = np.sqrt(np.diag(D))
        return np.append(moved, (D / np.outer(moved, moved))[[1, 2, 2], [0, 0, 1]])

    point = np.array([2.0, 0.3, 0.5, -0.4, 0.2, 0.1])
    steps = 1e-5 * np.eye(6)
    jacobian = np.column_stack([(stated(point + h) - stated(point - h)) / 2e-5 for h in steps])
    there = stated(point)
    corr = np.eye(3)
    corr[[1, 2, 2], [0, 0, 1]] = corr[[0, 0, 1], [1, 2, 2]] = there[3:]
    expected = sum(stats.halfnorm(scale=p.sd).logpdf(v) for p, v in zip(priors.sd_b, there[:3], strict=True))
    expected += float(hl.LKJ(2).logpdf(corr)) + np.linalg.slogdet(jacobian)[1]
    expected += float(priors.beta[0].logpdf(1.0)) + float(priors.sigma.logpdf(1.5))
    written = np.eye(3)
    written[[1, 2, 2], [0, 0, 1]] = written[[0, 0, 1], [1, 2, 2]] = point[3:]
    value = priors.logpdf(np.ones(1), point[:3], written, 1.5, design.blocks)
    assert value == pytest.approx(expected, rel=1e-7)


def test_draws_from_the_prior_are_of_lines_at_the_average_covariates(growth):
    frame = at(growth, "year")
    model = hl.TwoLevelModel.from_formula("y ~ t + (1 + t | g)", frame)
    from hierlmm.bayes.predictive import prior_draws

    drawn = prior_draws(model.design, model.priors, 4000, np.random.default_rng(2))
    line = np.array([1.0, frame["t"].mean()])
    sd_at_average = np.sqrt(np.einsum("a,sab,b->s", line, drawn["D"], line))
    scale = 2.5 * frame["y"].std(ddof=0)
    assert stats.kstest(sd_at_average, stats.halfnorm(scale=scale).cdf).pvalue > 1e-4
    np.testing.assert_allclose(drawn["sd_b"] ** 2, np.diagonal(drawn["D"], axis1=1, axis2=2))


def test_which_priors_are_stated_where(growth):
    def of(formula, priors=None, **more):
        return hl.TwoLevelModel.from_formula(formula, at(growth, "year"), priors=priors, **more).priors

    text = str(of(FORMULA))
    assert "sd(Intercept) (at average covariates)" in text
    assert "corr (at average covariates)" in text
    assert "sd(t) (at" not in text
    for same in (
        of("y ~ t + (1 + t || g)"),
        of("y ~ t + (1 | g)"),
        of("y ~ t + (0 + t | g)"),
        of(FORMULA, "bambi"),
        of(FORMULA, covariance="compound_symmetry"),
        of(FORMULA, hl.Priors(sd_b={"Intercept": hl.HalfNormal(3)})),
        of(FORMULA, hl.Priors(sd_b=hl.HalfNormal(3))),
    ):
        assert not np.any(same.random_center)
        assert "sd(Intercept) (at" not in str(same)
    for moved in (of(FORMULA, hl.Priors(corr_b=hl.LKJ(1))), of(FORMULA, hl.Priors(sd_b={"t": hl.HalfNormal(3)}))):
        np.testing.assert_allclose(moved.random_center, [0.0, at(growth, "year")["t"].mean()])
