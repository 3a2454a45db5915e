"""Fits that several test modules look at, made once."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from draws import posterior_like
from samples import DENTAL, SLEEP, thirty_subjects

from hierlmm.datasets import load_dataset
from hierlmm.design.build import design_from_formula
from hierlmm.design.formula import parse_formula
from hierlmm.errors import FitWarning
from hierlmm.model import TwoLevelModel

# Fixtures, no examples: --doctest-modules would import them a second time, under one name for several folders.
collect_ignore_glob = ["*conftest.py"]


@pytest.fixture(scope="session")
def dental():
    return load_dataset("dental")


@pytest.fixture(scope="session")
def sleepstudy():
    return load_dataset("sleepstudy")


@pytest.fixture(scope="session")
def thirty():
    return thirty_subjects()


@pytest.fixture(scope="session")
def dental_design(dental):
    return design_from_formula(parse_formula(DENTAL), dental)


@pytest.fixture(scope="session")
def dental_posterior(dental_design):
    from hierlmm.bayes.priors import resolve_priors
    from hierlmm.bayes.sample import sample_explicit
    from hierlmm.fit.make import fit_of

    priors = resolve_priors(None, dental_design)
    return fit_of(sample_explicit(dental_design, priors, draws=2000, tune=1000, chains=4, seed=1, progressbar=False))


@pytest.fixture(scope="session")
def dental_reml(dental):
    return TwoLevelModel.from_formula(DENTAL, dental).fit_reml()


@pytest.fixture(scope="session")
def dental_like_nuts(dental_reml):
    return posterior_like(dental_reml)


@pytest.fixture(scope="session")
def sleep_reml(sleepstudy):
    return TwoLevelModel.from_formula(SLEEP, sleepstudy).fit_reml()


@pytest.fixture(scope="session")
def sleep_like_nuts(sleep_reml):
    return posterior_like(sleep_reml)


@pytest.fixture(scope="session")
def sleep_nuts(sleepstudy):
    return TwoLevelModel.from_formula(SLEEP, sleepstudy).fit(seed=1, progressbar=False)


SHORT = {"draws": 300, "tune": 300, "chains": 2, "seed": 1, "progressbar": False}


@pytest.fixture(scope="session")
def patients():
    """Counts that vary more than Poisson's, yes and no, and ordered categories: 24 patients with four rows."""
    rng = np.random.default_rng(2)
    frame = pd.DataFrame({"patient": np.repeat(np.arange(24), 4), "week": np.tile(np.arange(4.0), 24)})
    frame["arm"] = np.where(frame["patient"] % 2, "drug", "placebo")
    eta = 0.8 + 0.2 * frame["week"] + 0.7 * rng.normal(size=24)[frame["patient"]]
    frame["seizures"] = rng.poisson(np.exp(eta) * rng.gamma(1.0, 1.0, len(frame)))
    frame["cured"] = np.where(rng.random(len(frame)) < 1.0 / (1.0 + np.exp(-eta)), "yes", "no")
    felt = np.digitize(eta + rng.logistic(size=len(frame)), [0.5, 1.5])
    frame["pain"] = pd.Categorical.from_codes(felt, ["none", "some", "much"], ordered=True)
    return frame


def _sampled(response, family, patients):
    model = TwoLevelModel.from_formula(f"{response} ~ week + (1 | patient)", patients, family=family)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)  # short chains
        return model.fit(**SHORT)


@pytest.fixture(scope="session")
def seizures_nuts(patients):
    return _sampled("seizures", "negative_binomial", patients)


@pytest.fixture(scope="session")
def cured_nuts(patients):
    return _sampled("cured", "bernoulli", patients)


@pytest.fixture(scope="session")
def pain_nuts(patients):
    return _sampled("pain", "ordinal", patients)


@pytest.fixture
def as_a_reader_has_it(monkeypatch, tmp_path):
    """Without the data that may not ship, without a display, and in a folder of its own."""
    monkeypatch.delenv("HIERLMM_DATA", raising=False)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.chdir(tmp_path)
    import matplotlib.pyplot as plt

    with plt.rc_context():
        plt.switch_backend("Agg")
        yield
    plt.close("all")
