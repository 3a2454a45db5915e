"""Fits that several test modules of this room look at."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from samples import SLEEP

import hierlmm as hl
from hierlmm.model import TwoLevelModel

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def sleep_ml(sleepstudy):
    return TwoLevelModel.from_formula(SLEEP, sleepstudy).fit_ml()


@pytest.fixture(scope="session")
def sleep_intercepts(sleepstudy):
    return TwoLevelModel.from_formula("reaction ~ days + (1 | subject)", sleepstudy).fit_ml()


@pytest.fixture(scope="session")
def comparisons():
    """R's comparisons of nested models."""
    return json.loads((HERE / "reference" / "comparisons.json").read_text())


@pytest.fixture(scope="session")
def growth(dental):
    """Fits of the children's jaws by REML, by name."""

    def two(formula, **options):
        return TwoLevelModel.from_formula(formula, dental, **options)

    def marginal(**options):
        return hl.MarginalModel("distance ~ sex * time", subject="subject", data=dental, **options)

    models = {
        "intercept": two("distance ~ sex * time + (1 | subject)"),
        "slope": two("distance ~ sex * time + (time | subject)"),
        "time only": two("distance ~ time + (1 | subject)"),
        "independent": marginal(),
        "cs": marginal(correlation=hl.CompoundSymmetry()),
        "ar1": marginal(correlation=hl.AR1()),
        "exponential": marginal(correlation=hl.Exponential("age")),
        "toeplitz": marginal(correlation=hl.Toeplitz()),
        "un": marginal(correlation=hl.UnstructuredHeterogeneous("age")),
    }
    return {name: model.fit_reml() for name, model in models.items()}
