"""Every number that text 1 (Potthoff and Roy's data, three models by lme4) prints, to the printed digit.

Numbers are given as they are printed, so that a test knows how many digits to ask for. lme4 stopped a hair before the
optimum, which the last digit of six numbers shows: `AT_THE_OPTIMUM` has them, and the closed form says who is right.
"""

from decimal import Decimal

import numpy as np
import pytest

import hierlmm as hl

# Fixed effects are named as in text 1, and so is the order.
NAMES = {"Intercept": "Intercept", "time": "time", "sexMale": "sex[T.Male]", "sexMale:time": "sex[T.Male]:time"}

BOYS_INTERCEPTS = {
    "criterion": "273.4",
    "scaled residuals": ["-3.00805", "-0.64069", "0.00783", "0.53448", "3.05295"],
    "variance": {"Intercept": "2.641", "Residual": "2.816"},
    "sd": {"Intercept": "1.625", "Residual": "1.678"},
    "fixed": {"Intercept": ("22.61563", "0.53690", "42.123"), "time": ("0.78438", "0.09382", "8.361")},
    "correlation of fixed effects": {("time", "Intercept"): "-0.524"},
    "rounded": {"Intercept": "22.62", "time": "0.784"},
    "ci": {"Intercept": ("21.56", "23.67"), "time": ("0.601", "0.968")},
    "counts": (64, 16),
}
BOYS_SLOPES = {
    "criterion": "273.1",
    "scaled residuals": ["-2.65543", "-0.59382", "0.01946", "0.57552", "3.15773"],
    "variance": {"Intercept": "3.04625", "time": "0.03562", "Residual": "2.58906"},
    "sd": {"Intercept": "1.7454", "time": "0.1887", "Residual": "1.6091"},
    "correlation": ["-0.34", "-0.339"],
    "fixed": {"Intercept": ("22.6156", "0.5511", "41.041"), "time": ("0.7844", "0.1016", "7.722")},
    "correlation of fixed effects": {("time", "Intercept"): "-0.558"},
    "rounded": {"Intercept": "22.62", "time": "0.784"},
    "ci": {"Intercept": ("21.54", "23.70"), "time": ("0.585", "0.983")},
    "counts": (64, 16),
}
SEX_BY_TIME = {
    "criterion": "432.6",
    "scaled residuals": ["-3.1681", "-0.3859", "0.0071", "0.4452", "3.8495"],
    "variance": {"Intercept": "3.23394", "time": "0.03252", "Residual": "1.71621"},
    "sd": {"Intercept": "1.7983", "time": "0.1803", "Residual": "1.3100"},
    "correlation": ["-0.09", "-0.091"],
    "fixed": {
        "Intercept": ("21.2091", "0.6350", "33.401"),
        "sexMale": ("1.4065", "0.8249", "1.705"),
        "time": ("0.4795", "0.1037", "4.623"),
        "sexMale:time": ("0.3048", "0.1347", "2.262"),
    },
    "correlation of fixed effects": {
        ("sexMale", "Intercept"): "-0.770",
        ("time", "Intercept"): "-0.396",
        ("time", "sexMale"): "0.305",
        ("sexMale:time", "Intercept"): "0.305",
        ("sexMale:time", "sexMale"): "-0.396",
        ("sexMale:time", "time"): "-0.770",
    },
    "rounded": {"Intercept": "21.21", "sexMale": "1.407", "time": "0.480", "sexMale:time": "0.305"},
    "ci": {
        "Intercept": ("19.96", "22.45"),
        "sexMale": ("-0.210", "3.023"),
        "time": ("0.276", "0.683"),
        "sexMale:time": ("0.041", "0.569"),
    },
    "counts": (108, 27),
}
PRINTED = {"boys, intercepts": BOYS_INTERCEPTS, "boys, intercepts and slopes": BOYS_SLOPES, "sex by time": SEX_BY_TIME}

# Printed where lme4 stopped; the data are balanced, so the optimum is known exactly (`test_closed_form`).
AT_THE_OPTIMUM = {
    ("boys, intercepts and slopes", "-0.59382"): -0.5938146,  # scaled residuals, 1Q
    ("boys, intercepts and slopes", "3.15773"): 3.1577231,  # and their maximum
    ("boys, intercepts and slopes", "3.04625"): 3.0462292,  # variance of the intercepts
    ("boys, intercepts and slopes", "1.7454"): 1.7453450,  # and its root
    ("sex by time", "3.23394"): 3.2339648,  # variance of the intercepts
    ("sex by time", "1.71621"): 1.7162037,  # residual variance
}


@pytest.fixture(scope="module")
def fits(dental):
    boys = dental[dental["sex"] == "Male"]
    models = {
        "boys, intercepts": hl.TwoLevelModel("distance ~ time", subject="subject", data=boys, random=["Intercept"]),
        "boys, intercepts and slopes": hl.TwoLevelModel("distance ~ time", subject="subject", data=boys),
        "sex by time": hl.TwoLevelModel(
            "distance ~ time", {"Intercept": "sex", "time": "sex"}, subject="subject", data=dental
        ),
    }
    return {name: model.fit_reml() for name, model in models.items()}


@pytest.fixture(params=PRINTED)
def text_and_fit(request, fits):
    return PRINTED[request.param], fits[request.param], request.param


def same(ours: float, printed: str, model: str | None = None) -> None:
    """Ours is printed like this: within half a unit of the last digit (and rounding error, for 0.784375)."""
    unit = float(Decimal(1).scaleb(int(Decimal(printed).as_tuple().exponent)))
    if (model, printed) in AT_THE_OPTIMUM:
        assert ours == pytest.approx(AT_THE_OPTIMUM[model, printed], abs=1e-7)
        assert 0.5 * unit < abs(ours - float(printed)) < 3 * unit
        return
    assert abs(ours - float(printed)) <= 0.5 * unit * (1 + 1e-9), f"{ours!r} is not printed as {printed}"


def test_criterion(text_and_fit):
    text, fit, model = text_and_fit
    same(fit.criterion, text["criterion"], model)


def test_scaled_residuals(text_and_fit):
    text, fit, model = text_and_fit
    ours = np.quantile(fit.residuals("pearson"), [0, 0.25, 0.5, 0.75, 1])
    for value, printed in zip(ours, text["scaled residuals"], strict=True):
        same(value, printed, model)


def test_variance_components(text_and_fit):
    text, fit, model = text_and_fit
    variance = {**{term: fit.D.loc[term, term] for term in fit.D.index}, "Residual": fit.sigma**2}
    sd = {**fit.sd_b, "Residual": fit.sigma}
    assert list(variance) == list(text["variance"])
    for name in variance:
        same(variance[name], text["variance"][name], model)
        same(sd[name], text["sd"][name], model)
    for printed in text.get("correlation", ()):
        same(fit.corr_b.loc["Intercept", "time"], printed, model)


def test_fixed_effects(text_and_fit):
    text, fit, model = text_and_fit
    table = fit.summary()
    assert sorted(table.index) == sorted(NAMES[name] for name in text["fixed"])
    for name, printed in text["fixed"].items():
        for column, value in zip(("estimate", "se", "t"), printed, strict=True):
            same(table.loc[NAMES[name], column], value, model)
        same(table.loc[NAMES[name], "estimate"], text["rounded"][name], model)


def test_correlation_of_fixed_effects(text_and_fit):
    text, fit, model = text_and_fit
    for (row, column), printed in text["correlation of fixed effects"].items():
        row, column = NAMES[row], NAMES[column]
        same(fit.beta_cov.loc[row, column] / (fit.beta_se[row] * fit.beta_se[column]), printed, model)


def test_wald_intervals(text_and_fit):
    text, fit, model = text_and_fit
    table = fit.summary(ci=0.95)
    for name, (lower, upper) in text["ci"].items():
        same(table.loc[NAMES[name], "lower"], lower, model)
        same(table.loc[NAMES[name], "upper"], upper, model)


def test_counts(text_and_fit):
    text, fit, _ = text_and_fit
    assert (fit.n_obs, fit.n_subjects) == text["counts"]


def test_growth_rates_by_sex(fits):
    """Mean ± 1.96 SD, from the rounded means and SD that text 1 puts in."""
    fit = fits["sex by time"]
    girls, sd = fit.beta["time"], fit.sd_b["time"]
    boys = girls + fit.beta["sex[T.Male]:time"]
    same(girls, "0.48")
    same(boys, "0.78")
    same(sd, "0.18")
    for mean, lower, upper in ((girls, "0.13", "0.83"), (boys, "0.43", "1.13")):
        same(round(mean, 2) - 1.96 * round(sd, 2), lower)
        same(round(mean, 2) + 1.96 * round(sd, 2), upper)
    # Rounded once, at the end, the boys' upper end is 1.14; the other three stay.
    for end, printed in (
        (girls - 1.96 * sd, "0.13"),
        (girls + 1.96 * sd, "0.83"),
        (boys - 1.96 * sd, "0.43"),
        (boys + 1.96 * sd, "1.14"),
    ):
        same(end, printed)


def test_closed_form(fits):
    """Balanced data: σ² is the pooled variance around the subjects' own lines, and D what is left between them."""
    for name in ("boys, intercepts and slopes", "sex by time"):
        fit = fits[name]
        Z = fit.design.Z[fit.design.subject_index == 0]
        Y = fit.design.y[np.argsort(fit.design.subject_index, kind="stable")].reshape(-1, len(Z))
        lines = np.linalg.lstsq(Z, Y.T, rcond=None)[0]  # (2, subjects)
        variance = np.sum((Y.T - Z @ lines) ** 2) / (lines.shape[1] * (len(Z) - 2))
        level2 = np.unique(fit.design.W[:, : 1 if len(fit.beta) == 2 else 2], axis=1)  # constant, and sex
        residual = lines.T - level2 @ np.linalg.lstsq(level2, lines.T, rcond=None)[0]
        between = residual.T @ residual / (len(residual) - level2.shape[1])
        assert fit.sigma**2 == pytest.approx(variance, rel=1e-9)
        np.testing.assert_allclose(fit.D, between - variance * np.linalg.inv(Z.T @ Z), rtol=1e-7)


def test_levels_and_formula_are_the_same_model(dental, fits):
    ours = fits["sex by time"]
    same_model = hl.TwoLevelModel.from_formula("distance ~ sex * time + (1 + time | subject)", dental).fit_reml()
    assert same_model.criterion == pytest.approx(ours.criterion, rel=1e-12)
    np.testing.assert_allclose(same_model.beta[ours.beta.index], ours.beta, rtol=1e-9)
