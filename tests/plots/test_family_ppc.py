"""Pictures of predictive checks and priors of generalised models, by what they draw."""

from __future__ import annotations

import numpy as np
import pytest

import hierlmm as hl
from hierlmm.errors import SpecificationError
from hierlmm.plots.frequencies import _classes, _frequencies, category_names
from hierlmm.plots.ppc import SUITED, kind_of_response, replications


def lines(picture, panel=0):
    axes = picture.viz["figure"].item().axes[panel]
    return [np.array(line.get_data()) for line in axes.get_lines()]


def test_bars_hang_from_what_is_expected(seizures_nuts):
    y = seizures_nuts.design.y
    picture = seizures_nuts.plot_ppc(draws=100, ci=0.8)
    replicated = replications(seizures_nuts, "new_subject", 100, 0)
    _, outlines, curve = lines(picture)  # after the line at zero
    width = round(curve[0][1] - curve[0][0])
    replicated, y = replicated // width, y // width  # counts that share a bar
    top = np.array([np.mean(np.sum(replicated == k, axis=1)) for k in range(5)]) ** 0.5
    np.testing.assert_allclose(curve[1][:5], top)
    np.testing.assert_allclose(curve[0][:5], width * np.arange(5) + 0.5 * (width - 1))
    np.testing.assert_allclose(outlines[1][1:30:6], top - [np.sum(y == k) ** 0.5 for k in range(5)])
    area = picture.viz["figure"].item().axes[0].collections[0].get_paths()[0].vertices[:, 1]
    low = np.quantile(np.sum(replicated == 0, axis=1) ** 0.5, 0.9)
    assert np.any(np.isclose(area, top[0] - low))


def test_many_counts_share_bars_and_none_is_lost():
    rng = np.random.default_rng(1)
    observed, replicated = rng.negative_binomial(2, 0.01, 80) * 1.0, rng.negative_binomial(2, 0.01, (50, 80)) * 1.0
    classes = _classes(observed, replicated)
    assert len(classes.centre) <= 31
    assert classes.width == np.round(classes.width) > 1
    assert classes.beyond
    found = _frequencies(classes, replicated)
    assert (found.sum(axis=1) == 80).all()
    assert found[3, 1] == np.sum((replicated[3] >= classes.width) & (replicated[3] < 2 * classes.width))


@pytest.mark.parametrize("name", ["cured_nuts", "pain_nuts"])
def test_bars_are_shares(name, request, patients):
    fit = request.getfixturevalue(name)
    drug = (patients["arm"] == "drug").to_numpy() if "arm" in fit.design.frame else np.ones(len(patients), dtype=bool)
    picture = fit.plot_ppc(draws=60)
    replicated = replications(fit, "new_subject", 60, 0)
    labels = category_names(fit.design)
    observed, outer = lines(picture)[:2]
    shares = patients.loc[drug, fit.design.hierarchy.response].value_counts(normalize=True)[labels]
    np.testing.assert_allclose(observed[0][0::3], shares)
    low = [np.quantile(np.mean(replicated == k, axis=1), 0.025) for k in range(len(labels))]
    np.testing.assert_allclose(outer[0][0::3], low)
    axes = picture.viz["figure"].item().axes[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == labels


def test_what_suits_a_response_is_drawn_and_else_refused(seizures_nuts, cured_nuts, pain_nuts, sleep_like_nuts):
    fits = {"counts": seizures_nuts, "yes and no": cured_nuts, "categories": pain_nuts, "measurements": sleep_like_nuts}
    for what, fit in fits.items():
        assert kind_of_response(fit.design) == what
        for kind in SUITED[what] if fit is not sleep_like_nuts else ():
            assert fit.plot_ppc(kind, draws=5, backend="none") is not None
    with pytest.raises(SpecificationError, match="not for counts"):
        seizures_nuts.plot_ppc("density")
    with pytest.raises(SpecificationError, match="not for categories"):
        pain_nuts.plot_ppc("interval")
    with pytest.raises(SpecificationError, match="not for measurements"):
        sleep_like_nuts.plot_ppc("rootogram")


def test_pictures_of_priors_and_of_what_is_left_out(seizures_nuts, cured_nuts, pain_nuts):
    assert "sd(Intercept)" in str(seizures_nuts.plot_prior_posterior(backend="none").viz)
    seizures_nuts.plot_psense("sd", backend="none")
    for kind in ("pit", "interval"):
        assert "left out" in seizures_nuts.plot_loo_pit(kind=kind).viz["figure"].item()._suptitle.get_text()
    with pytest.raises(SpecificationError, match="not a number that a subject has"):
        cured_nuts.plot_loo_pit(statistic="week")
    assert pain_nuts.plot_loo_pit("observation", backend="none") is not None


@pytest.mark.parametrize(("response", "family"), [("seizures", "poisson"), ("cured", "bernoulli"), ("pain", "ordinal")])
def test_priors_as_data(response, family, patients):
    model = hl.TwoLevelModel.from_formula(f"{response} ~ week + (1 | patient)", patients, family=family)
    picture = model.plot_prior_predictive(seed=2, draws=3)
    axes = picture.viz["figure"].item().axes[0]
    drawn = model.prior_predictive(draws=200, seed=2)
    if family == "ordinal":
        y = drawn["prior_predictive"]["pain"].to_numpy()[0]
        low = [np.quantile(np.mean(y == k, axis=1), 0.025) for k in range(3)]
        np.testing.assert_allclose(lines(picture)[1][0][0::3], low)
        return
    (own, *_) = lines(picture)
    own = own[1][np.isfinite(own[1])]
    if family == "poisson":
        y = drawn["prior_predictive"]["seizures"].to_numpy()[0, 0]
        np.testing.assert_allclose(np.sort(own), np.sort(np.log10(1.0 + y)))
        assert axes.get_ylabel() == "log10 of 1 + seizures"
    else:
        eta = drawn["prior"]["beta"].to_numpy()[0, 0] @ model.design.X.T
        eta = eta + drawn["prior"]["b"].to_numpy()[0, 0, model.design.subject_index, 0]
        np.testing.assert_allclose(np.sort(own), np.sort(1.0 / (1.0 + np.exp(-eta))))


def test_a_long_tail_does_not_leave_the_data_in_one_bar():
    observed, replicated = np.array([0.0, 3.0, 17.0]), np.geomspace(1.0, 5000.0, 1000)
    classes = _classes(observed, replicated)
    assert classes.width == 1.0
    assert 17.0 < classes.edges[-1] < 40.0
