"""A fit that was saved and loaded, in another process, gives every answer to the last bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import saved_fits
import walk

import hierlmm as hl

HERE = Path(__file__).parent
SEVERAL = ("reml m unstructured varident", "nuts strange")
OTHERS = tuple(name for name in saved_fits.ALL if name not in SEVERAL)


def in_another_process(folder, names, without=frozenset()):
    """Answers of these fits here, and those of the loaded ones there, but for some methods."""
    here = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", hl.FitWarning)
        for k, name in enumerate(names):
            fit = saved_fits.ALL[name]()
            fit.save(folder / f"{k:02d}.nc")
            here[f"{k:02d}"] = json.loads(json.dumps(walk.answers(fit, without=without)))
    path = os.pathsep.join([str(HERE.parents[1]), str(HERE.parent), str(HERE)])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(HERE / "walk.py"), str(folder), *without],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    there = json.loads((folder / "answers.json").read_text(encoding="utf-8"))
    return {name: (here[f"{k:02d}"], there[f"{k:02d}"]) for k, name in enumerate(names)}


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    return in_another_process(tmp_path_factory.mktemp("several"), SEVERAL)


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    return in_another_process(tmp_path_factory.mktemp("others"), OTHERS, frozenset(walk.COSTLY))


@pytest.mark.parametrize("name", SEVERAL)
def test_every_answer_is_the_same(several, name):
    was, now = several[name]
    assert len(was) > 40
    assert not walk.differing(was, now), "\n".join(walk.differing(was, now)[:20])


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_every_answer_of_the_others_is_the_same(others, name):
    was, now = others[name]
    assert not walk.differing(was, now), "\n".join(walk.differing(was, now)[:20])


def test_the_comparison_sees_the_last_bit():
    assert walk.differing({"a": {"b": walk.exact(1.0)}}, {"a": {"b": walk.exact(1.0 + 2**-52)}})


@pytest.mark.parametrize("rows", [True, False])
def test_units_of_the_data_are_kept(dental_reml, tmp_path, rows):
    dental_reml.save(tmp_path / "fit.nc", data=rows)
    assert hl.load_fit(tmp_path / "fit.nc").design.units == {"age": "years", "time": "years", "distance": "mm"}
