"""Fits that several files of this room look at, made once."""

import pytest
from samples import SLEEP

import hierlmm as hl


@pytest.fixture(scope="session")
def held_out(sleepstudy):
    """All subjects but one, and the history of that one."""
    return sleepstudy[sleepstudy["subject"] != 372], sleepstudy[sleepstudy["subject"] == 372].reset_index(drop=True)


@pytest.fixture(scope="session")
def without(held_out):
    return hl.TwoLevelModel.from_formula(SLEEP, held_out[0]).fit_reml()


@pytest.fixture(scope="session")
def nuts(held_out):
    return hl.TwoLevelModel.from_formula(SLEEP, held_out[0]).fit(seed=1, progressbar=False)
