"""A table, models of it, and a check that a message has all four parts."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

import hierlmm as hl
from hierlmm.errors import HierlmmError

RNG = np.random.default_rng(5)
SUBJECTS, ROWS = 8, 5
N = SUBJECTS * ROWS
DATA = pd.DataFrame(
    {
        "g": np.repeat([f"s{k}" for k in range(SUBJECTS)], ROWS),
        "t": np.tile(np.arange(ROWS, dtype=float), SUBJECTS),
        "x": RNG.normal(size=N),
        "w": np.repeat(RNG.normal(size=SUBJECTS), ROWS),
        "sex": np.repeat(np.where(np.arange(SUBJECTS) % 2, "F", "M"), ROWS),
        "y": RNG.normal(size=N),
    },
    index=pd.Index(range(100, 100 + N)),
)


def refused(kind, fit, **parts):
    """Run and check that each named part of the message holds its text, and that no part is empty."""
    with warnings.catch_warnings(), pytest.raises(kind) as caught:
        warnings.simplefilter("error")
        fit()
    error = caught.value
    assert isinstance(error, HierlmmError)
    for part in ("received", "reason", "remedy", "see"):
        assert getattr(error, part).strip()
        assert getattr(error, part) in str(error)
    for part, text in parts.items():
        assert text in getattr(error, part)


def formula(text="y ~ t + (t | g)", data=DATA, **options):
    return lambda: hl.TwoLevelModel.from_formula(text, data, **options)


def levels(level1="y ~ t", level2=None, data=DATA, subject="g", **options):
    return lambda: hl.TwoLevelModel(level1, level2, subject=subject, data=data, **options)
