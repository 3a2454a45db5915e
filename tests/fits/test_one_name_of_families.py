"""A dispersion parameter has one name for users, whatever fitted it; and what is said of families is true of them."""

from __future__ import annotations

import dataclasses
import warnings
from functools import cache

import numpy as np
import pandas as pd
import pytest
from family_posteriors import data_of, posterior_of

import hierlmm as hl
from hierlmm.bayes.convergence import _reparametrise
from hierlmm.diagnostics.loo import _verdict
from hierlmm.equations.families import notes
from hierlmm.errors import DataError, NotAvailableError, SpecificationError
from hierlmm.families import Ordinal
from hierlmm.fits.named_draws import parameter_draws


@cache
def ml_of(name, formula="y ~ x + g + h + (1 | subject)"):
    trials = "n" if name == "binomial" else None
    model = hl.TwoLevelModel.from_formula(formula, data_of(name), family=name, trials=trials)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", hl.FitWarning)
        return model.fit_ml()


def test_a_threshold_is_in_one_row_of_a_comparison():
    posterior, fit = posterior_of("ordinal"), ml_of("ordinal")
    table = hl.compare(posterior, fit).table
    assert list(table.loc[table["parameter"].str.startswith("threshold"), "parameter"]) == ["threshold 2"] * 2
    assert list(posterior.dispersion.index) == list(fit.dispersion.index) == ["threshold 2"]
    np.testing.assert_array_equal(posterior.draws("threshold 2"), posterior.draws("threshold_2"))
    for one in (posterior, fit):
        assert "threshold_2" in one.to_datatree()["posterior"]  # no spaces in a tree
        assert parameter_draws(one)["threshold 2"].ndim == 2


def test_responses_are_simulated_from_the_dispersion_of_a_posterior():
    given = {"beta": {"Intercept": 1.0}, "D": 0.3, "family": "ordinal", "n_subjects": 3, "seed": 1}
    own = posterior_of("ordinal").dispersion
    found = hl.simulate(**given, dispersion=own)
    pd.testing.assert_frame_equal(found, hl.simulate(**given, dispersion={"threshold_2": own["threshold 2"]}))


def test_the_second_threshold_is_the_first_step():
    model = hl.TwoLevelModel.from_formula("y ~ x + (1 | subject)", data_of("ordinal"), family="ordinal")
    names = ("step 2", "threshold 2", "threshold_2")
    found = [str(hl.Priors(dispersion={n: hl.HalfNormal(1)}).resolve(model.design)) for n in names]
    assert found[0] == found[1] == found[2]
    with pytest.raises(SpecificationError, match="'step 3'"):
        hl.Priors(dispersion={"threshold 3": hl.HalfNormal(1)}).resolve(model.design)


def test_dispersion_is_no_random_effect():
    text = str(posterior_of("negative_binomial"))
    line = next(line for line in text.splitlines() if "shape" in line)
    assert line.startswith("Dispersion: shape ")
    assert "[" in line
    assert "Thresholds: threshold 2 " in str(posterior_of("ordinal"))


def test_the_scale_of_students_t_is_no_residual_sd():
    fit = ml_of("student_t")
    gaussian = hl.TwoLevelModel.from_formula("y ~ x + g + h + (1 | subject)", data_of("student_t")).fit_ml()
    table = hl.compare(gaussian, fit).table.set_index(["parameter", "estimator"])
    rows = table[table.index.get_level_values(0).str.contains("sigma")]
    assert set(rows.index.get_level_values(0)) == {"sigma", "scale sigma (Student's t)"}
    assert not rows["flag"].any()
    assert set(rows["kind"]) == {"sigma", "other"}
    alone = hl.compare(fit, ml_of("student_t"), labels=["a", "b"]).table
    assert "scale sigma (Student's t)" not in set(alone["parameter"])


def test_a_new_response_has_no_link():
    for fit in (posterior_of("poisson"), ml_of("poisson")):
        with pytest.raises(NotAvailableError, match="only its mean has"):
            fit.predict(level="population", scale="link", interval="prediction")


def test_left_out_rows_of_a_family_have_its_distribution():
    k = pd.Series([0.9, 0.1], index=["a", "b"])
    said = _verdict("observation", k, 0.7, design_of("poisson"))
    assert "Poisson distribution" in said
    assert "sigma" not in said
    assert "SD: sigma" in _verdict("observation", k, 0.7, design_of("gaussian"))


def design_of(name):
    return hl.TwoLevelModel.from_formula(
        "x ~ 1 + (1 | subject)" if name == "gaussian" else "y ~ 1 + (1 | subject)", data_of("poisson"), family=name
    ).design


def test_no_verb_is_recommended_that_is_refused():
    assert "fit_ml()" in _reparametrise({"sampler": "joint"})
    assert "fit_reml()" in _reparametrise({"sampler": "collapsed"})
    assert "marginal_coefficients" not in str(notes(Ordinal())[1])
    assert "probabilities(level='marginal')" in str(notes(Ordinal())[1])
    both = hl.compare(ml_of("poisson", "y ~ g + (1 | subject)"))
    with pytest.raises(SpecificationError, match=r"marginal_means") as refused:
        both.plot_conditional_vs_marginal()
    assert "one of none" not in str(refused.value)


def test_labels_are_no_counts():
    data = data_of("poisson").assign(y=lambda d: np.where(d["y"] > 1, "many", "few"))
    with pytest.raises(DataError, match="family='bernoulli', ordered ones family='ordinal'") as refused:
        hl.TwoLevelModel.from_formula("y ~ x + (1 | subject)", data, family="poisson")
    assert "needs its own family" not in str(refused.value)


def test_a_family_without_draws_says_so_when_simulated():
    @dataclasses.dataclass(frozen=True)
    class Own(hl.families.Family):
        name = "own"
        links = ("log",)

    with pytest.raises(NotAvailableError, match="draws"):
        hl.simulate(beta={"Intercept": 1.0}, D=0.3, family=Own(), seed=1)


def test_reml_is_not_recommended_to_a_family():
    gee = hl.TwoLevelModel.from_formula("y ~ x + (1 | subject)", data_of("poisson"), family="poisson").fit_gee()
    for asked in ({"level": "subject"}, {"interval": "prediction"}):
        with pytest.raises(NotAvailableError, match=r"fit_ml\(\)"):
            gee.predict(**asked)
    with pytest.raises(SpecificationError) as refused:
        posterior_of("ordinal").variance_components(method="profile")
    assert "reml" not in str(refused.value)
    assert not any("threshold_" in message for message in posterior_of("ordinal").warnings)
