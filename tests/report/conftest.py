"""A data set as a file."""

from __future__ import annotations

import pytest


@pytest.fixture
def dental_csv(dental, tmp_path):
    path = tmp_path / "growth.csv"
    dental.to_csv(path, index=False)
    return path
