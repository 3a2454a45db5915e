"""Names, labels and terms of all sorts: the design that comes of the saved rows is the one that was fitted."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

import hierlmm as hl

RNG = np.random.default_rng(0)
BASE = pd.DataFrame({"s": np.repeat(np.arange(20), 5), "t": np.tile(np.arange(5), 20)})
BASE["x"] = RNG.normal(size=100)
BASE["y"] = RNG.normal(size=20)[BASE["s"]] + BASE["t"] + RNG.normal(size=100)
DAYS = pd.to_timedelta(BASE["s"], "D")
LINE = "y ~ t + (t | s)"
MIXED = "log(y) ~ ns(t, 2) + scale(x) + center(t):x + I(x**2) + np.exp(x / 9) + (1 + center(t) || s)"


def mixed(formula=LINE, frame=BASE, **options):
    return hl.TwoLevelModel.from_formula(formula, frame, **options)


MODELS = {
    "intervals": lambda: mixed("y ~ t + c + (t | s)", BASE.assign(c=pd.cut(BASE["x"], [-9, -0.5, 0.5, 9]))),
    "truth values": lambda: mixed("y ~ t * c + (t | s)", BASE.assign(c=BASE["x"] > 0)),
    "truth values as labels": lambda: mixed("y ~ t + C(c) + (t | s)", BASE.assign(c=BASE["x"] > 0)),
    "integers beyond 64 bits": lambda: mixed(frame=BASE.assign(s=[2**70 + int(k) for k in BASE["s"]])),
    "dates in a zone": lambda: mixed(frame=BASE.assign(s=pd.Timestamp("2024-01-01", tz="Europe/Brussels") + DAYS)),
    "text with a slash": lambda: mixed(frame=BASE.assign(s=BASE["s"].astype(str) + " /é")),
    "categories out of order": lambda: mixed(
        frame=BASE.assign(s=pd.Categorical(BASE["s"].astype(str), [str(k) for k in RNG.permutation(25)]))
    ),
    "names in backticks": lambda: mixed(
        "`the y` ~ t + `a/b: c` + (t | s)", BASE.rename(columns={"x": "a/b: c", "y": "the y"})
    ),
    "two levels of rows": lambda: mixed(frame=BASE.set_index(["s", "t"], drop=False).rename_axis(["i", "j"])),
    "functions": lambda: mixed(MIXED, BASE.assign(y=BASE["y"] + 50)),
    "blocks": lambda: mixed("y ~ t + x + (1 + t | s) + (0 + x | s)"),
    "no fixed effect": lambda: mixed("y ~ 0 + (1 | s)"),
    "identity": lambda: mixed(covariance="identity"),
    "two stated levels": lambda: hl.TwoLevelModel(
        "y ~ t + x",
        {"Intercept": "z", "t": "0"},
        subject="s",
        data=BASE.assign(z=(BASE["s"] % 3).astype(float)),
        random=[["Intercept", "t"], ["x"]],
    ),
    "occasions": lambda: hl.MarginalModel(
        "y ~ t", subject="s", data=BASE.assign(o="v" + BASE["t"].astype(str)), correlation=hl.Unstructured("o")
    ),
}


@pytest.mark.parametrize("rows", ["with", "without"])
@pytest.mark.parametrize("name", MODELS)
def test_the_design_is_the_one_that_was_fitted(name, rows, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", hl.FitWarning)
        model = MODELS[name]()
        fit = model.fit_reml()
    path = fit.save(tmp_path / "fit.nc", data=rows == "with")
    loaded = hl.load_fit(path, data=None if rows == "with" else model.data)
    assert repr(loaded) == repr(fit)
    assert loaded.fitted().equals(fit.fitted())
    design, now = fit.design, loaded.design
    assert design.subjects.equals(now.subjects)
    assert design.subjects.dtype == now.subjects.dtype
    assert (design.coef, design.term, design.level1) == (now.coef, now.term, now.level1)
    assert design.frame.equals(now.frame)
    assert repr(design.hierarchy) == repr(now.hierarchy)
    new = design.frame.iloc[[1, 3]]
    assert loaded.predict(new, level="population").equals(fit.predict(new, level="population"))


def test_a_posterior_without_fixed_effects(tmp_path):
    """Arrays of no column have no place in the file, and come back."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", hl.FitWarning)
        fit = MODELS["no fixed effect"]().fit(draws=40, tune=60, chains=2, seed=1, progressbar=False)
    loaded = hl.load_fit(fit.save(tmp_path / "fit.nc"))
    assert loaded.datatree["constant_data"]["X"].shape == (100, 0)
    assert loaded.datatree.identical(fit.datatree)
    assert repr(loaded) == repr(fit)
