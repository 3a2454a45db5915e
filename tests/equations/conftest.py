"""Fits with residual structures that several files of this room look at, made once."""

from __future__ import annotations

import pytest
from residual_models import marginal, two_level

import hierlmm as hl


@pytest.fixture(scope="session")
def visits(dental):
    return dental.assign(visit=(dental["time"] / 2 + 1).astype(int))


@pytest.fixture(scope="session")
def un(dental):
    return marginal(dental, hl.Unstructured("age"), hl.VarIdent("age")).fit_reml()


@pytest.fixture(scope="session")
def cs(dental):
    return marginal(dental, hl.CompoundSymmetry()).fit_reml()


@pytest.fixture(scope="session")
def intercepts(dental):
    return two_level(dental).fit_reml()


@pytest.fixture(scope="session")
def serial(dental):
    return two_level(dental, residual=hl.AR1(), residual_variance=hl.VarIdent("sex")).fit_reml()
