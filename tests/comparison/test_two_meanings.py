"""Conditional and population-averaged coefficients stand in blocks of their own, but for the identity link."""

import numpy as np
import pandas as pd
import pytest

import hierlmm as hl
from hierlmm.errors import NotAvailableError, SpecificationError
from hierlmm.families import Bernoulli, Poisson
from hierlmm.plots import plot_forest


@pytest.fixture(scope="module")
def seen():
    """Yes and no, and counts, of 60 subjects at 5 times."""
    rng = np.random.default_rng(4)
    subject, time = np.repeat(np.arange(60), 5), np.tile(np.arange(5.0), 60)
    group = np.where(subject % 2, "b", "a")
    eta = -1.0 + 0.6 * time + 0.5 * (group == "b") + 1.5 * rng.normal(size=60)[subject]
    yes = (rng.random(300) < 1 / (1 + np.exp(-eta))).astype(int)
    count = rng.poisson(np.exp(0.3 + 0.2 * time + 0.5 * rng.normal(size=60)[subject]))
    return pd.DataFrame({"subject": subject, "time": time, "group": group, "yes": yes, "count": count})


def model_of(data, y, family):
    return hl.TwoLevelModel.from_formula(f"{y} ~ time + group + (1 | subject)", data, family=family)


@pytest.fixture(scope="module")
def logistic(seen):
    model = model_of(seen, "yes", "bernoulli")
    return model, model.compare("ml", "gee")


def test_no_line_has_both_estimands(logistic):
    _, both = logistic
    table = both.table
    assert set(table.loc[table["estimator"] == "GEE", "kind"]) == {"marginal"}
    assert set(table.loc[table["kind"] == "fixed", "estimator"]) == {"ML"}
    assert list(table.loc[table["kind"] == "marginal", "parameter"].unique()) == [
        "Intercept (marginal)",
        "time (marginal)",
        "group[T.b] (marginal)",
    ]
    assert not table["parameter"].duplicated(keep=False)[table["kind"] == "fixed"].any()


def test_the_marginal_rows_are_those_of_the_fits(logistic):
    _, both = logistic
    wide = both.wide()
    ml, gee = both.fits["ML"], both.fits["GEE"]
    own = ml.marginal_coefficients().table
    for name in ml.beta.index:
        row = wide.loc[f"{name} (marginal)"]
        assert row["ML", "estimate"] == pytest.approx(own.loc[name, "estimate"])
        assert row["ML", "se"] == pytest.approx(own.loc[name, "se"])
        assert row["GEE", "estimate"] == pytest.approx(gee.beta[name])
        assert row["GEE", "difference"] == pytest.approx(
            (gee.beta[name] - own.loc[name, "estimate"]) / own.loc[name, "se"]
        )
        assert wide.loc[name, ("ML", "estimate")] == pytest.approx(ml.beta[name])
        assert np.isnan(wide.loc[name, ("GEE", "estimate")])
    assert abs(gee.beta["time"]) < abs(ml.beta["time"])  # attenuation


def test_the_print_names_the_blocks_and_says_why(logistic):
    _, both = logistic
    text = " ".join(repr(both).split())
    assert "Conditional coefficients (given the random effects), logit scale" in text
    assert "Marginal coefficients (of the mean over subjects), logit scale" in text
    assert "Compare estimators within a block, never across" in text and "(attenuation)" in text
    assert "Fixed effects" not in text
    for written in (both._repr_html_(), both.to_latex()):
        assert "Conditional coefficients" in written and "Marginal coefficients" in written
    assert both.to_gt(p_values=True, parameters="marginal") is not None
    assert "Satterthwaite" not in both.to_gt(p_values=True).as_raw_html()


def test_gee_may_be_the_reference(logistic):
    _, both = logistic
    turned = hl.compare(*reversed(both.fits.values()))
    assert turned.reference == "GEE"
    assert list(turned.table["kind"].unique()) == ["fixed", "marginal", "sd"]
    assert turned.table.loc[turned.table["kind"] == "fixed", "difference"].isna().all()


def test_the_forest_has_a_panel_for_each_meaning(logistic):
    _, both = logistic
    for given in (both, list(both.fits.values())):
        picture = plot_forest(given, backend="none")
        panels = picture.viz.dataset["parameter"].to_numpy().tolist()
        assert "time" in panels and "time (marginal)" in panels
        some = plot_forest(given, parameters="marginal", backend="none")
        assert len(some.viz.dataset["parameter"]) == 3


def test_with_a_log_link_only_the_intercept_moves(seen):
    model = model_of(seen, "count", "poisson")
    both = model.compare("ml", "gee")
    wide = both.wide()["ML"]["estimate"]
    assert wide["time (marginal)"] == pytest.approx(wide["time"], rel=1e-8)
    half = 0.5 * float(both.fits["ML"].D.iloc[0, 0])
    assert wide["Intercept (marginal)"] == pytest.approx(wide["Intercept"] + half, rel=1e-8)
    assert "by half its variance" in " ".join(repr(both).split())


def test_with_the_identity_link_nothing_is_apart(seen, dental):
    counts = model_of(seen.assign(count=seen["count"] + 1), "count", Poisson("identity"))
    identity = hl.compare(counts.fit_gee(), counts.fit_gee("independence"))
    assert set(identity.table["kind"]) == {"fixed"}
    gaussian = hl.TwoLevelModel.from_formula("distance ~ time + (1 | subject)", dental).compare("reml", "gee")
    for both in (identity, gaussian):
        assert "marginal" not in set(both.table["kind"])
        assert "Fixed effects" in repr(both) and "Conditional" not in repr(both)


def test_links_are_one_and_families_are_named(seen):
    logit, probit = (model_of(seen, "yes", Bernoulli(link)).fit_gee() for link in ("logit", "probit"))
    with pytest.raises(SpecificationError, match="different links"):
        hl.compare(logit, probit)
    poisson = model_of(seen, "count", "poisson").fit_gee()
    other = model_of(seen, "count", "negative_binomial").fit_gee()
    assert any("a negative binomial response" in note for note in hl.compare(poisson, other).notes)


def test_one_line_a_coefficient_is_refused(logistic):
    _, both = logistic
    with pytest.raises(NotAvailableError, match="are two numbers"):
        both.fits["ML"].compare_marginal()


def test_pictures_of_one_number_say_its_scale(logistic):
    _, both = logistic
    assert "on the logit scale" in both.fits["ML"].plot_posterior(parameters="time", backend="none").title
    picture = both.plot_posterior(backend="none")
    panels = picture.viz.dataset["parameter"].to_numpy().tolist()
    assert panels[:4] == ["Intercept", "time", "group[T.b]", "Intercept (marginal)"]
