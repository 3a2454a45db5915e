"""Fits that several test modules of this room look at."""

from __future__ import annotations

import pytest
from samples import SLEEP

from hierlmm.model import TwoLevelModel


@pytest.fixture(scope="session")
def sleep_ml(sleepstudy):
    return TwoLevelModel.from_formula(SLEEP, sleepstudy).fit_ml()


@pytest.fixture(scope="session")
def sleep_intercepts(sleepstudy):
    return TwoLevelModel.from_formula("reaction ~ days + (1 | subject)", sleepstudy).fit_ml()
