"""GEE of other families: against geepack, statsmodels and dense matrices; what is fixed, and what is refused."""

import numpy as np
import pandas as pd
import pytest

import hierlmm as hl
from hierlmm.errors import DataError, NotAvailableError, SpecificationError
from hierlmm.families.names import FAMILIES

EXACT = 1e-9


@pytest.fixture(scope="module")
def rows():
    """Sixty subjects of one to six rows at whole times, in random order, with a response for every family."""
    rng = np.random.default_rng(11)
    sizes = rng.integers(1, 7, 60)
    subject = np.repeat(np.arange(60), sizes)
    time = np.concatenate([np.sort(rng.choice(6, size, replace=False)) for size in sizes]).astype(float)
    x, n = (subject % 2).astype(float), rng.integers(1, 9, len(subject))
    eta = 0.3 + 0.15 * time - 0.5 * x + 0.6 * rng.normal(size=60)[subject]
    p = 1.0 / (1.0 + np.exp(-eta))
    data = pd.DataFrame(
        {
            "subject": subject,
            "time": time,
            "x": x,
            "n": n,
            "hours": rng.uniform(0.5, 2.0, len(subject)),
            "count": rng.poisson(np.exp(eta)),
            "spread": rng.poisson(np.exp(eta) * rng.gamma(1.5, 1 / 1.5, len(subject))),
            "yes": (rng.random(len(subject)) < p).astype(int),
            "hits": rng.binomial(n, p),
            "amount": rng.gamma(3.0, np.exp(eta) / 3.0),
            "rating": rng.integers(1, 4, len(subject)),
            "share": rng.beta(2.0, 3.0, len(subject)),
        }
    )
    return data.sample(frac=1.0, random_state=2).reset_index(drop=True)


RESPONSES = {"poisson": "count", "negative_binomial": "spread", "bernoulli": "yes", "binomial": "hits"}
RESPONSES |= {"gamma": "amount", "gaussian": "amount", "beta": "share"}


def model_of(data, family, link=None, formula="{} ~ time + x + (1 | subject)", **more):
    kind = FAMILIES[family]
    chosen = kind(link) if link else kind()
    more |= {"trials": "n"} if family == "binomial" else {}
    return hl.TwoLevelModel.from_formula(formula.format(RESPONSES[family]), data, family=chosen, **more)


CASES = [
    ("poisson", "log", "exchangeable"),
    ("poisson", "sqrt", "ar1"),
    ("negative_binomial", "log", "exchangeable"),
    ("bernoulli", "logit", "unstructured"),
    ("bernoulli", "cloglog", "independence"),
    ("binomial", "logit", "exchangeable"),
    ("binomial", "probit", "ar1"),
    ("gamma", "log", "exchangeable"),
    ("gamma", "inverse", "independence"),
    ("gaussian", "log", "exchangeable"),
    ("beta", "logit", "exchangeable"),
    ("beta", "cloglog", "ar1"),
]


@pytest.mark.parametrize(("family", "link", "correlation"), CASES)
def test_the_equations_and_the_three_covariances_are_those_of_dense_matrices(rows, family, link, correlation):
    model = model_of(rows, family, link)
    fit = model.fit_gee(correlation, time="time")
    assert fit.converged
    design, kind, psi = model.design, model.design.family, fit.estimate.psi
    beta, n = fit.beta.to_numpy(), design.trials
    eta = design.offset + design.X @ beta
    mu, step = n * kind.mean(eta), 1e-6
    D = design.X * (n * (kind.mean(eta + step) - kind.mean(eta - step)) / (2 * step))[:, None]
    sd, r = np.sqrt(kind.variance(kind.mean(eta), psi, n)), design.y - mu
    assert fit.scale == pytest.approx(np.sum((r / sd) ** 2) / (len(r) - len(beta)), rel=1e-12)
    blocks = []
    for j in range(design.n_subjects):
        own = np.flatnonzero(design.subject_index == j)
        V = fit.marginal_covariance(design.subjects[j]).to_numpy()
        R = fit.working_correlation(design.subjects[j]).to_numpy()
        np.testing.assert_allclose(V, fit.scale * np.outer(sd[own], sd[own]) * R, rtol=1e-12)
        blocks.append((D[own], np.linalg.inv(V), r[own]))
    B = np.linalg.inv(sum(d.T @ W @ d for d, W, _ in blocks))
    assert np.abs(B @ sum(d.T @ W @ e for d, W, e in blocks)).max() < 1e-7 * np.sqrt(np.diag(B)).max()
    robust = B @ sum(np.outer(d.T @ W @ e, d.T @ W @ e) for d, W, e in blocks) @ B
    corrected = [d.T @ W @ np.linalg.solve(np.eye(len(e)) - d @ B @ d.T @ W, e) for d, W, e in blocks]
    reduced = B @ sum(np.outer(s, s) for s in corrected) @ B
    for name, values in (("naive", B), ("robust", robust), ("bias_reduced", reduced)):
        np.testing.assert_allclose(fit.covariance(name), values, rtol=1e-6, atol=1e-9 * np.abs(values).max())
    np.testing.assert_allclose(fit.residuals("pearson"), r / sd / np.sqrt(fit.scale))


def test_an_exchangeable_correlation_is_the_mean_product_of_pearsons_residuals(rows):
    fit = model_of(rows, "binomial").fit_gee(scale="n")
    design = fit.design
    z = fit.residuals("pearson").to_numpy()
    same = np.triu(design.subject_index[:, None] == design.subject_index[None, :], 1)
    assert fit.correlation_parameters["alpha"] == pytest.approx(np.outer(z, z)[same].mean(), rel=1e-7)


@pytest.mark.parametrize(("family", "name"), [("poisson", "Poisson"), ("bernoulli", "Binomial"), ("gamma", "Gamma")])
def test_they_agree_with_statsmodels_own_families(rows, family, name):
    import statsmodels.api as sm

    link = {"gamma": sm.families.links.Log()}.get(family)
    theirs = sm.GEE(
        rows[RESPONSES[family]],
        sm.add_constant(rows[["time", "x"]]),
        groups=rows["subject"],
        family=getattr(sm.families, name)(*([link] if link else [])),
        cov_struct=sm.cov_struct.Independence(),
    ).fit(cov_type="bias_reduced", ctol=1e-12)
    fit = model_of(rows, family).fit_gee("independence")
    np.testing.assert_allclose(fit.beta, theirs.params, rtol=1e-7)
    for kind in ("robust", "bias_reduced"):
        np.testing.assert_allclose(fit.standard_errors()[kind], theirs.standard_errors(kind), rtol=1e-7)
    criterion = {"poisson": 0, "bernoulli": 0}
    if family in criterion:  # theirs keeps terms of y alone: differences between models are the same
        small = model_of(rows, family, formula="{} ~ time + (1 | subject)").fit_gee("independence")
        quasi = fit.qic()["quasi-likelihood"] - small.qic()["quasi-likelihood"]
        deviance = [kind.family.deviance(kind.design.y, kind.fitted().to_numpy(), np.zeros(0)) for kind in (fit, small)]
        assert quasi == pytest.approx(-0.5 * (deviance[0].sum() - deviance[1].sum()), rel=1e-9)


def test_exposure_is_an_offset_of_the_logarithm(rows):
    data = rows.assign(log_hours=np.log(rows["hours"]))
    one = model_of(data, "poisson", exposure="hours").fit_gee()
    two = model_of(data, "poisson", formula="{} ~ time + x + offset(log_hours) + (1 | subject)").fit_gee()
    np.testing.assert_allclose(one.beta, two.beta, rtol=EXACT)
    np.testing.assert_allclose(one.standard_errors(), two.standard_errors(), rtol=EXACT)


def test_the_shape_of_a_negative_binomial_is_stated_or_found_once(rows):
    model = model_of(rows, "negative_binomial")
    apart = model.fit_gee("independence")
    assert apart.scale == pytest.approx(1.0, rel=1e-9)  # what "Pearson's χ² is N − p" says
    found = model.fit_gee()
    assert found.dispersion["shape"] == pytest.approx(apart.dispersion["shape"], rel=1e-9)
    assert "where Pearson's chi-squared of independent rows is N - p" in repr(found)
    stated = model.fit_gee(shape=found.dispersion["shape"])
    np.testing.assert_allclose(stated.beta, found.beta, rtol=1e-9)
    assert "as stated" in repr(stated)
    np.testing.assert_allclose(stated.qic(), found.qic(), rtol=1e-7)
    large, poisson = model.fit_gee(shape=1e9), model_of(rows.assign(count=rows["spread"]), "poisson").fit_gee()
    np.testing.assert_allclose(large.beta, poisson.beta, rtol=1e-6)
    for bad in (0.0, -1.0, np.inf):
        with pytest.raises(SpecificationError, match="shape"):
            model.fit_gee(shape=bad)
    with pytest.raises(SpecificationError, match="no shape"):
        model_of(rows, "poisson").fit_gee(shape=2.0)
    calm = rows.assign(spread=2 + (rows.index % 2))
    with pytest.raises(DataError, match="no more around their means than Poisson"):
        model_of(calm, "negative_binomial").fit_gee()


def test_means_are_predicted_on_both_scales(rows):
    fit = model_of(rows, "binomial").fit_gee()
    new = pd.DataFrame({"time": [0.0, 3.0], "x": [1.0, 0.0]})
    link = fit.predict(new, interval="confidence", scale="link")
    mean = fit.predict(new, interval="confidence")
    for column in ("estimate", "lower", "upper"):
        np.testing.assert_allclose(mean[column], 1.0 / (1.0 + np.exp(-link[column])), rtol=1e-12)
    p = mean["estimate"]
    np.testing.assert_allclose(mean["se"], p * (1 - p) * link["se"], rtol=1e-6)
    np.testing.assert_allclose(fit.predict(new, trials=10)["estimate"], 10 * p)
    np.testing.assert_allclose(fit.predict()["estimate"], fit.fitted())
    np.testing.assert_allclose(fit.fitted(), fit.design.trials * fit.family.mean(fit.fitted(scale="link").to_numpy()))
    assert link.attrs["scale"] == "link" and mean.attrs["scale"] == "response"
    with pytest.raises(NotAvailableError, match="no trials"):
        model_of(rows, "poisson").fit_gee().predict(new, trials=3)


def test_the_print_names_family_link_and_scale(rows):
    text = repr(model_of(rows, "bernoulli").fit_gee())
    for words in ("Family: Bernoulli (logit link)", "mean over subjects (logit scale)", "Pearson's chi-squared"):
        assert words in text
    assert "variance of a row / that of its family" in text


@pytest.mark.parametrize(
    ("family", "y", "words"),
    [
        ("ordinal", "rating", "a category has no mean"),
        ("student_t", "amount", "heavy tails are in neither"),
    ],
)
def test_families_that_are_no_mean_with_a_variance_are_refused(rows, family, y, words):
    model = hl.TwoLevelModel.from_formula(f"{y} ~ time + (1 | subject)", rows, family=family)
    with pytest.raises(NotAvailableError, match=words):
        model.fit_gee()


def test_proportions_are_a_fractional_logit(rows):
    """Their variance is that of a share of successes but for φ (Papke & Wooldridge 1996): statsmodels' Binomial."""
    import statsmodels.api as sm

    theirs = sm.GEE(
        rows["share"],
        sm.add_constant(rows[["time", "x"]]),
        groups=rows["subject"],
        family=sm.families.Binomial(),
        cov_struct=sm.cov_struct.Independence(),
    ).fit()
    fit = model_of(rows, "beta").fit_gee("independence")
    np.testing.assert_allclose(fit.beta, theirs.params, rtol=1e-7)
    np.testing.assert_allclose(fit.standard_errors()["robust"], theirs.bse, rtol=1e-6)
    # The precision of the draws is 5, so that φ is about 1 / 6.
    assert fit.scale == pytest.approx(1 / 6, rel=0.2)
    assert np.isfinite(fit.qic()).all()
    assert fit.dispersion.empty


def test_what_rests_on_a_normal_response_is_refused(rows):
    fit = model_of(rows, "poisson").fit_gee()
    for name in ("sigma", "loglik", "b"):
        with pytest.raises(NotAvailableError):
            getattr(fit, name)
    for name in ("plot_qq", "loo"):
        with pytest.raises(NotAvailableError):
            getattr(fit, name)()
    with pytest.raises(SpecificationError, match="dispersion is positive"):
        fit.qic(scale=0.0)


@pytest.mark.parametrize(("family", "end"), [("bernoulli", 1), ("poisson", 0)])
@pytest.mark.parametrize("correlation", ["independence", "exchangeable"])
def test_separation_is_named_with_a_row(rows, family, end, correlation):
    y = RESPONSES[family]
    data = rows.assign(**{y: np.where(rows["x"] == 1.0, end, rows[y])})
    with pytest.raises(DataError, match=r"(?s)end of their range.*grows without end"):
        model_of(data, family).fit_gee(correlation)


def test_a_link_that_leads_out_of_the_range_is_named(rows):
    data = rows.assign(yes=rows["time"] >= 4)
    with pytest.raises(DataError, match=r"(?s)identity link does not keep.*Bernoulli\(\) has the logit link"):
        model_of(data, "bernoulli", "identity").fit_gee("independence")


def test_draws_are_of_the_coefficients(rows):
    tree = model_of(rows, "poisson").fit_gee().to_datatree(draws=50, chains=2)
    assert tree["posterior"]["beta"].shape == (2, 50, 3)


def test_a_gaussian_response_has_a_qic_too(rows):
    data = rows.assign(y=rows["amount"])
    fit = hl.TwoLevelModel.from_formula("y ~ time + x + (1 | subject)", data).fit_gee(scale="n")
    values = fit.qic(scale=fit.scale)
    rss = float(np.sum(fit.residuals() ** 2))
    assert values["quasi-likelihood"] == pytest.approx(-0.5 * rss / fit.scale, rel=1e-10)
    apart = hl.TwoLevelModel.from_formula("y ~ time + x + (1 | subject)", data).fit_gee("independence", scale="n")
    trace = np.trace(np.linalg.solve(apart.covariance("naive"), fit.covariance("robust")))
    assert values["CIC"] == pytest.approx(trace, rel=1e-9)
    assert values["QIC"] == pytest.approx(-2 * values["quasi-likelihood"] + 2 * trace, rel=1e-12)


def test_little_exposure_is_no_separation(rows):
    rng = np.random.default_rng(1)
    hours = 10.0 ** rng.uniform(-8, 3, len(rows))
    data = rows.assign(hours=hours, count=rng.poisson(hours))
    fit = model_of(data, "poisson", exposure="hours").fit_gee("independence")
    assert fit.converged and abs(fit.beta["Intercept"]) < 0.2


@pytest.mark.parametrize("family", ["bernoulli", "binomial", "negative_binomial"])
def test_a_fit_is_saved_with_and_without_its_rows(rows, family, tmp_path):
    data = rows.assign(yes=np.where(rows["yes"] == 1, "well", "ill"))
    fit, path = model_of(data, family).fit_gee("ar1", time="time"), tmp_path / "fit.nc"
    for with_rows in (True, False):
        fit.save(path, data=with_rows, overwrite=True)
        again = hl.load_fit(path)
        assert repr(again) == repr(fit) and again.beta.equals(fit.beta)
        if not with_rows:
            again = hl.load_fit(path, data=data)
        assert again.predict().equals(fit.predict()) and again.qic().equals(fit.qic())


@pytest.mark.parametrize(("seed", "largest"), [(1, 1e12), (1, 1e6), (0, 1e6)])
def test_an_outlier_among_positive_amounts_is_no_separation(seed, largest):
    rng, g = np.random.default_rng(seed), np.repeat(np.arange(20), 4)
    data = pd.DataFrame({"g": g, "x": rng.normal(size=80), "y": rng.gamma(3.0, size=80)})
    data.loc[5, ["x", "y"]] = 12.0, largest
    model = hl.TwoLevelModel.from_formula("y ~ x + (1 | g)", data, family="gamma")
    with pytest.raises(DataError, match=r"(?s)an outlier .*pulls a coefficient.*look at the largest response"):
        model.fit_gee("independence")
