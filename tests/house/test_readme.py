"""The README's blocks run in order, in one namespace, and print what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def names():
    """What the blocks leave behind; ArviZ's pictures are drawn on no screen."""
    import matplotlib.pyplot as plt

    plt.switch_backend("Agg")
    space: dict = {}
    for number, block in enumerate(re.findall(r"^```python\n(.*?)^```$", README, re.S | re.M), start=1):
        exec(compile(block, f"README.md, block {number}", "exec"), space)
    plt.close("all")
    return space


def test_the_table_is_what_the_code_prints(names):
    (table,) = re.findall(r"^```text\n(.*?)^```$", README, re.S | re.M)
    found = names["mm"].fit_reml().variance_components(method="profile")
    printed = found.round(3).to_string(float_format=lambda v: f"{v:.3f}").rstrip()
    assert [line.split() for line in printed.splitlines()] == [line.split() for line in table.rstrip().splitlines()]


def test_the_numbers_in_the_text(names):
    profile = names["sexes"].fit_reml().variance_components(method="profile")
    rho = profile.loc[next(i for i in profile.index if "rho" in str(i))]
    ratio = profile.loc[next(i for i in profile.index if "Male" in str(i))]
    said = [f"{rho[c]:.2f}".replace("-", "−") for c in ("estimate", "lower", "upper")]
    assert "({}, {} to {})".format(*said) in " ".join(README.split())
    said = [f"{ratio[c]:.1f}" for c in ("estimate", "lower", "upper")]
    assert "{} times as much as girls (profile interval {} to {})".format(*said) in README
    slopes = names["reml"].summary(df="satterthwaite")
    row = slopes.loc["sex[T.Male]:time"]
    numbers = f"{row['estimate']:.2f} ({row['lower']:.2f} to {row['upper']:.2f} on {row['df']:.0f} degrees of freedom)"
    assert numbers in " ".join(README.split())
    new = names["reml"].predict_subject(names["pd"].DataFrame(names["new"]), times=[6], interval="prediction").iloc[0]
    assert f"expected at {new['estimate']:.1f} mm" in README
    assert f"give or take {(new['upper'] - new['lower']) / 2:.1f}" in " ".join(README.split())
