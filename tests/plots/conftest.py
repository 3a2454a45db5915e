"""Fits that several files of this room look at, made once; figures are closed after every test."""

from __future__ import annotations

import matplotlib as mpl

mpl.use("Agg")

import numpy as np
import pytest
from cirrhosis_trial import FORMULA
from matplotlib import pyplot as plt
from samples import DENTAL, SLEEP

import hierlmm as hl


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="session")
def sleep_ml(sleepstudy):
    return hl.TwoLevelModel.from_formula(SLEEP, sleepstudy).fit_ml()


@pytest.fixture(scope="session")
def three(sleep_like_nuts, sleep_reml, sleep_ml):
    return hl.compare(sleep_like_nuts, sleep_reml, sleep_ml)


@pytest.fixture(scope="session")
def pbc():
    data = hl.load_dataset("pbc")
    data["sex"] = data["sex"].cat.rename_categories({"Male": "male", "Female": "female"})
    return data.assign(basepro=data.groupby("subject")["protime"].transform("first"))


@pytest.fixture(scope="session")
def cirrhosis(pbc):
    return hl.TwoLevelModel.from_formula(FORMULA, pbc).fit_reml()


@pytest.fixture(scope="session")
def gee(dental):
    return hl.TwoLevelModel.from_formula(DENTAL, dental).fit_gee()


@pytest.fixture(scope="session")
def marginal(dental):
    return hl.MarginalModel("distance ~ sex * time", correlation=hl.CAR1("time"), subject="subject", data=dental)


@pytest.fixture(scope="session")
def between(dental):
    """Two unrelated numbers and a factor of level 2; every subject has its own numbers."""
    rng, subjects = np.random.default_rng(20), dental["subject"].unique()
    iq, ses = (dict(zip(subjects, rng.normal(size=len(subjects)), strict=True)) for _ in range(2))
    return dental.assign(iq=[iq[s] for s in dental["subject"]], ses=[ses[s] for s in dental["subject"]])
