"""What a family, trials and exposure cannot be, in four parts; and hard data that must come out right all the same."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.special import logsumexp

import hierlmm as hl

RNG = np.random.default_rng(0)
G = np.repeat(np.arange(12), 6)
DATA = pd.DataFrame({"g": G, "x": RNG.normal(size=72), "count": RNG.poisson(2.0, 72), "n": 6, "years": 1.5})
DATA["wins"], DATA["yes"], DATA["arm"] = RNG.binomial(6, 0.4, 72), RNG.integers(0, 2, 72), np.where(G % 2, "a", "b")


def model(formula="count ~ x + (1 | g)", data=DATA, **options):
    return hl.TwoLevelModel.from_formula(formula, data, **{"family": "poisson", **options})


def marginal(**options):
    return hl.MarginalModel("count ~ x", subject="g", data=DATA, **{"family": "poisson", **options})


def with_nan(column):
    return DATA.assign(**{column: np.where(DATA.index == 3, np.nan, DATA[column])})


REFUSED = {
    "negative counts": (lambda: model(data=DATA.assign(count=DATA["count"] - 3)), "negative values"),
    "fractions": (lambda: model(data=DATA.assign(count=DATA["count"] + 0.5)), "fractions"),
    "only zeros": (lambda: model(data=DATA.assign(count=0)), "only zeros"),
    "truth values": (lambda: model(data=DATA.assign(count=DATA["count"] > 1)), "holds bool values"),
    "text": (lambda: model(data=DATA.assign(count=DATA["count"].astype(str))), "not numbers"),
    "categories": (lambda: model(data=DATA.assign(count=DATA["count"].astype("category"))), "not numbers"),
    "text for amounts": (lambda: model("arm ~ x + (1 | g)", family="gamma"), "not numbers"),
    "successes above": (
        lambda: model("wins ~ 1 + (1 | g)", DATA.assign(n=2), family="binomial", trials="n"),
        "more succ",
    ),
    "missing trials": (
        lambda: model("wins ~ 1 + (1 | g)", with_nan("n"), family="binomial", trials="n"),
        "missing val",
    ),
    "a list of trials": (lambda: model("wins ~ 1 + (1 | g)", family="binomial", trials=[6] * 72), "text is needed"),
    "trials of text": (lambda: model("wins ~ 1 + (1 | g)", family="binomial", trials="arm"), "not numbers"),
    "cbind of R": (lambda: model("cbind(wins, n) ~ 1 + (1 | g)", family="binomial"), "how R says it"),
    "p() of counts": (lambda: model("p(wins, n) ~ 1 + (1 | g)"), "are binomial"),
    "proportions": (lambda: model("x ~ 1 + (1 | g)", family="beta"), "outside"),
    "exposure of zero": (lambda: model(data=DATA.assign(years=0.0), exposure="years"), "not positive"),
    "exposure of text": (lambda: model(exposure="arm"), "not numbers"),
    "a number as exposure": (lambda: model(exposure=2.0), "text is needed"),
    "exposure of a normal response": (lambda: model(family="gaussian", exposure="years"), "needs a log link"),
    "trials of a normal response": (lambda: model(family="gaussian", trials="n"), "counts no trials"),
    "two categories": (lambda: model("yes ~ x + (1 | g)", family="ordinal"), "three or more"),
    "a measurement": (lambda: model("x ~ 1 + (1 | g)", family="ordinal"), "looks like a measurement"),
    "three answers": (lambda: model("wins ~ 1 + (1 | g)", family="bernoulli"), "other than 0 and 1"),
    "a link": (lambda: hl.families.Poisson(link="logit"), "the links of this family"),
    "a family of another case": (lambda: model(family="Poisson"), "Did you mean"),
    "residual structure": (lambda: model(residual=hl.AR1()), "its own distribution"),
    "weights": (lambda: model(weights="years"), "no residual to correlate or to scale"),
    "weights of a fit": (lambda: model().fit_ml(weights="years"), "no argument of this name"),
    "a marginal model of categories": (lambda: marginal(family="ordinal"), "a category has no mean"),
    "a marginal model of heavy tails": (lambda: marginal(family="student_t"), "heavy tails are in neither"),
    "a marginal model with a variance": (lambda: marginal(variance=hl.VarIdent("arm")), "follows from its mean"),
    "a marginal model with a correlation of rows": (lambda: marginal(correlation=hl.AR1()), "no working correlation"),
    "a marginal model with priors": (lambda: marginal(priors=hl.Priors()), "no posterior"),
    "the priors of a marginal model": (lambda: marginal().priors, "no likelihood"),
    "a marginal model by ML": (lambda: marginal().fit_ml(), "no likelihood"),
    "a marginal model by REML": (lambda: marginal().fit_reml(), "no likelihood"),
    "a marginal model by NUTS": (lambda: marginal().fit(), "no likelihood"),
    "a marginal model in PyMC": (lambda: marginal().to_pymc(), "no likelihood"),
    "a marginal model before data": (lambda: marginal().prior_predictive(), "no likelihood"),
    "trials of new rows": (
        lambda: (
            model("wins ~ 1 + (1 | g)", family="binomial", trials="n").fit_ml().predict(DATA.head(3), trials=[1, 2])
        ),
        "3 rows are predicted",
    ),
    "a study by NUTS": (
        lambda: hl.design_analysis(model().fit_ml(), estimator="nuts", simulations=10),
        "every simulated study would take seconds",
    ),
    "a study of another family": (
        lambda: hl.design_analysis(model().fit_ml(), family="gamma", simulations=10),
        "it has its own family",
    ),
    "a study with other trials": (
        lambda: hl.design_analysis(model().fit_ml(), trials=3, simulations=10),
        "with the trials they have",
    ),
    "a study with an exposure of new rows": (
        lambda: hl.design_analysis(model(exposure="years").fit_ml(), times=[0, 1], simulations=10),
        "no offset or exposure",
    ),
    "a study without a dispersion": (
        lambda: hl.design_analysis("y ~ time + (1 | g)", beta={}, D=1, family="gamma", times=[0, 1], simulations=10),
        "parameters are shape",
    ),
    "sigma of counts": (lambda: model().fit_ml().sigma, "no residual standard deviation"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_it_is_refused_in_four_parts(case):
    ask, words = REFUSED[case]
    with pytest.raises(hl.HierlmmError, match=words.replace("(", r"\(")) as raised:
        ask()
    for part in ("Received:", "Why not:", "To do:", "Read:"):
        assert part in str(raised.value)


def by_integration(fit, log_density):
    """The log-likelihood with a random intercept, by brute-force integration of every subject."""
    design, sd, total = fit.design, float(fit.sd_b.iloc[0]), 0.0
    base = design.offset + design.X @ fit.beta.to_numpy()
    for j, (mode, spread) in enumerate(zip(fit.b.iloc[:, 0], fit.b_sd.iloc[:, 0], strict=True)):
        rows = design.subject_index == j

        grid = np.linspace(mode - 10 * spread, mode + 10 * spread, 401)  # the trapezoidal rule is exact for such tails
        own = log_density(design.y[rows], design.trials[rows], base[rows] + grid[:, None])
        heights = own.sum(axis=1) + stats.norm.logpdf(grid, 0, sd)
        total += logsumexp(heights) + np.log(grid[1] - grid[0])
    return total


def hard(seed=1):
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(20), 5)
    x, b = rng.normal(size=100), rng.normal(size=20)[g]
    frame = pd.DataFrame({"g": g, "x": x, "year": 2000.0 + np.tile(np.arange(5), 20), "far": 1e3, "n": 10**7})
    yes = rng.binomial(1, 1 / (1 + np.exp(-0.3 - x - b)))
    frame["yes"] = np.where(g == 3, 1, np.where(g == 5, 0, yes))
    frame["count"] = rng.poisson(np.exp(0.5 + 0.4 * b + 0.1 * (frame["year"] - 2002)))
    frame["many"] = rng.poisson(1e7 * np.exp(0.2 * b + 0.1 * x))
    frame["wins"] = rng.binomial(10**7, 1 / (1 + np.exp(-0.3 * b)))
    frame["tiny"] = rng.gamma(3.0, 1e-6 * np.exp(0.4 * b + 0.2 * x) / 3.0)
    return frame


def gamma(fit):
    shape = fit.dispersion["shape"]
    return lambda y, n, eta: stats.gamma(shape, scale=fit.family.mean(eta) / shape).logpdf(y)


def binomial(fit):
    return lambda y, n, eta: stats.binom(n, fit.family.mean(eta)).logpmf(y)


def poisson(fit):
    return lambda y, n, eta: stats.poisson(np.exp(eta)).logpmf(y)


HARD = {
    "a subject without failures": ("yes ~ x + (1 | g)", {"family": "bernoulli"}, binomial),
    "calendar years": ("count ~ year + (1 | g)", {"family": "poisson"}, poisson),
    "an offset of a thousand": ("count ~ x + offset(far) + (1 | g)", {"family": "poisson"}, poisson),
    "counts of ten million": ("many ~ x + (1 | g)", {"family": "poisson"}, poisson),
    "ten million trials": ("wins ~ x + (1 | g)", {"family": "binomial", "trials": "n"}, binomial),
    "amounts of a millionth": ("tiny ~ x + (1 | g)", {"family": "gamma"}, gamma),
    "their inverse": ("tiny ~ 1 + (1 | g)", {"family": hl.families.Gamma(link="inverse")}, None),
    "as they are": ("tiny ~ 1 + (1 | g)", {"family": hl.families.Gamma(link="identity")}, None),
}


@pytest.mark.parametrize("case", HARD)
def test_hard_data_converge_to_the_integral(case):
    formula, options, density = HARD[case]
    fit = hl.TwoLevelModel.from_formula(formula, hard(), **options).fit_ml(n_quadrature=25)
    assert fit.converged
    assert not fit.is_singular
    assert fit.beta_se.notna().all()
    assert not any("zeros" in told for told in fit.warnings)
    if density is not None:
        assert fit.loglik == pytest.approx(by_integration(fit, density(fit)), abs=1e-6)


def test_a_response_far_from_zero_is_that_of_its_distance():
    """Measurements around a million with a spread of a thousandth, by Student's t."""
    data = hard()
    data["near"] = data["x"] + np.random.default_rng(2).standard_t(5, 100)
    data["off"] = 1e6 + 1e-3 * data["near"]
    near, off = (
        hl.TwoLevelModel.from_formula(f"{y} ~ x + (1 | g)", data, family=hl.families.StudentT(nu=5)).fit_ml()
        for y in ("near", "off")
    )
    assert off.converged
    assert off.loglik == pytest.approx(near.loglik + 100 * np.log(1e3), abs=1e-3)
    assert 1e3 * off.sigma == pytest.approx(near.sigma, rel=1e-4)


def test_one_row_a_subject_is_fitted():
    data = hard().groupby("g").head(1)
    fit = hl.TwoLevelModel.from_formula("count ~ x + (1 | g)", data, family="poisson").fit_ml(n_quadrature=25)
    assert fit.converged
    if not fit.is_singular:
        assert fit.loglik == pytest.approx(by_integration(fit, poisson(fit)), abs=1e-7)


def test_three_random_effects_by_quadrature():
    data = hard().assign(z=np.random.default_rng(5).normal(size=100))
    fits = [
        hl.TwoLevelModel.from_formula("count ~ x + (x + z | g)", data, family="poisson").fit_ml(n_quadrature=k)
        for k in (5, 9)
    ]
    assert fits[0].converged and fits[1].converged
    assert fits[0].loglik == pytest.approx(fits[1].loglik, abs=1e-3)


def test_a_covariate_of_a_hundred_millionth():
    data = hard()
    data["small"] = 1e-8 * data["x"]
    one, other = (
        hl.TwoLevelModel.from_formula(f"count ~ {x} + (1 | g)", data, family="poisson").fit_ml() for x in ("x", "small")
    )
    assert other.loglik == pytest.approx(one.loglik, abs=1e-8)
    assert 1e-8 * other.beta["small"] == pytest.approx(one.beta["x"], rel=1e-6)
