"""How often semivariogram and autocorrelation call out a fitted model, when it is true and when it lacks a serial term.

    .venv/bin/python benchmarks/serial_diagnostics.py [studies]

Studies of 30 subjects with 6 occasions each. Every row of the output: the model that is true, the model that is fitted,
and the share of studies with p <= 0.05 for each statistic and level (199 simulated data sets each).
"""

import sys

import numpy as np
import pandas as pd

import hierlmm as hl

SUBJECTS, OCCASIONS = 30, 6
CASES = {
    "random intercept": ("(1 | id)", None),
    "random intercept and slope": ("(1 + t | id)", None),
    "random intercept, exponential": ("(1 | id)", hl.Exponential("t")),
}


def study(truth: str, rng: np.random.Generator) -> pd.DataFrame:
    """Data of one study."""
    frame = pd.DataFrame(
        {"id": np.repeat(np.arange(SUBJECTS), OCCASIONS), "t": np.tile(np.arange(float(OCCASIONS)), SUBJECTS)}
    )
    errors = rng.standard_normal((SUBJECTS, OCCASIONS))
    if "exponential" in truth:
        lag = np.abs(np.subtract.outer(range(OCCASIONS), range(OCCASIONS)))
        errors = errors @ np.linalg.cholesky(np.exp(-lag / 1.5)).T
    slopes = rng.normal(0, 0.4, SUBJECTS)[frame["id"]] * frame["t"] if "slope" in truth else 0.0
    intercepts = rng.standard_normal(SUBJECTS)[frame["id"]]
    return frame.assign(y=1 + 0.5 * frame["t"] + intercepts + slopes + errors.ravel())


def main(studies: int) -> None:
    """Print the table."""
    rng = np.random.default_rng(7)
    pairs = [(name, name) for name in CASES] + [("random intercept, exponential", "random intercept")]
    for truth, fitted in pairs:
        bars, residual = CASES[fitted]
        found: dict[str, list[bool]] = {}
        for k in range(studies):
            model = hl.TwoLevelModel.from_formula(f"y ~ t + {bars}", study(truth, rng), residual=residual)
            fit = model.fit_reml()
            for function in (hl.semivariogram, hl.autocorrelation):
                for level in ("subject", "population"):
                    check = function(fit, level=level, simulations=199, seed=k)
                    name = f"{function.__name__}, {level}"
                    found.setdefault(name, []).append(check.p_value <= 0.05)
                    found.setdefault(f"{name}, stands out", []).append(check.stands_out)
        print(f"true: {truth}; fitted: {fitted}")
        for name, values in found.items():
            print(f"  {name:40} {np.mean(values):.3f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300)
