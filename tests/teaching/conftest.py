"""Data that several files of this room look at."""

import numpy as np
import pytest
from references import data_elsewhere

import hierlmm as hl


@pytest.fixture(scope="session")
def aids():
    data_elsewhere("aids")
    return hl.load_dataset("aids")


@pytest.fixture(scope="session")
def unbalanced(sleepstudy):
    """sleepstudy with rows missing, so that GLS depends on V."""
    return sleepstudy[np.random.default_rng(0).uniform(size=len(sleepstudy)) < 0.6]
