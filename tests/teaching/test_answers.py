"""Answers of this room stay as they were given, and need no sampler."""

import pickle

import numpy as np
import pytest
from samples import SLEEP

import hierlmm as hl


def test_teaching_loads_no_sampler():
    import subprocess
    import sys

    code = (
        "import sys, hierlmm as hl; data = hl.load_dataset('sleepstudy');"
        f"m = hl.TwoLevelModel.from_formula({SLEEP!r}, data); hl.gls_steps(m); hl.same_marginal(m);"
        "m.fit_reml().blup_variances();"
        "print([p for p in ('pytensor', 'pymc', 'nutpie', 'arviz', 'matplotlib') if p in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("what", ["steps", "implied", "semivariogram", "pair", "check"])
def test_what_is_written_to_an_answer_does_not_change_it(dental, what):
    model = hl.TwoLevelModel.from_formula("distance ~ time + (1 | subject)", dental)
    make, names = {
        "steps": (lambda: hl.gls_steps(model), ("trace", "D", "beta")),
        "implied": (
            lambda: model.fit_reml().implied_marginal(draws=50),
            ("V", "correlation", "variance", "V_lower", "correlation_upper"),
        ),
        "semivariogram": (lambda: hl.semivariogram(model.fit_reml(), simulations=40), ("table",)),
        "pair": (lambda: hl.same_marginal(model), ("last", "b", "loglik")),
        "check": (lambda: hl.is_hierarchical(0.7 * np.eye(4) + 0.3, ["Intercept"]), ("D", "V", "outside")),
    }[what]
    found = make()
    text = repr(found)
    for name in names:
        table = getattr(found, name)
        before = table.to_numpy().copy()
        table.iloc[(0,) * table.ndim] = -99.0
        np.testing.assert_array_equal(getattr(found, name).to_numpy(), before)
    assert repr(found) == text
    again = pickle.loads(pickle.dumps(found))
    assert repr(again) == text
    for one in (found, again):
        arrays = [name for name in vars(one) if isinstance(getattr(one, name), np.ndarray)]
        assert arrays == {"implied": ["x", "draws"], "check": ["eigenvalues"]}.get(what, [])
        for array in arrays:
            with pytest.raises(ValueError, match="read-only"):
                getattr(one, array)[...] = 0.0
