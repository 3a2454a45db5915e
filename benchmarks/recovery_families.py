"""Recovery of known parameters: 200 simulated data sets of every family, fitted by maximum likelihood.

For each parameter the mean error (of standard deviations and dispersions that of the logarithm) with its Monte-Carlo
standard error, and the share of 95 % intervals that hold the truth.

    python benchmarks/recovery_families.py            # all families, 200 data sets each
    python benchmarks/recovery_families.py 20 poisson # a look
"""

from __future__ import annotations

import sys
import warnings

import numpy as np
import pandas as pd

import hierlmm as hl

SUBJECTS, TIMES, POINTS = 200, range(6), 7
DISPERSION = {
    "negative_binomial": {"shape": 2.0},
    "gamma": {"shape": 3.0},
    "beta": {"precision": 6.0},
    "ordinal": {"threshold 2": 1.0, "threshold 3": 2.5},
    "student_t": {"sigma": 1.0, "nu": 5.0},
}
TRIALS = {"binomial": 5}
BETA = {"Intercept": 0.3, "time": 0.15, "arm[T.b]": -0.4}
FAMILIES = ("poisson", "negative_binomial", "bernoulli", "binomial", "gamma", "beta", "ordinal", "student_t")


def one(family: str, seed: int) -> pd.DataFrame:
    """Truth, estimate and whether the interval holds the truth, by parameter."""
    dispersion = DISPERSION.get(family, {})
    more = {"dispersion": dispersion, "trials": TRIALS.get(family)}
    data = hl.simulate(
        beta=BETA,
        D=0.49,
        family=family,
        n_subjects=SUBJECTS,
        times=TIMES,
        level2={"arm": ["a", "b"]},
        seed=seed,
        **more,
    )
    trials = "trials" if family in TRIALS else None
    formula = "y ~ arm + time + (1 | subject)"
    fit = hl.TwoLevelModel.from_formula(formula, data, family=family, trials=trials).fit_ml(n_quadrature=POINTS)
    columns = ["estimate", "lower", "upper"]
    table = pd.concat([fit.summary()[columns], fit.variance_components()[columns]])
    truth = np.array([*(BETA[name] for name in fit.beta.index), 0.7, *(dispersion[n] for n in fit.dispersion.index)])
    plain = table.index.isin(fit.beta.index) | table.index.str.startswith("threshold")
    estimate = table["estimate"].to_numpy()
    with np.errstate(all="ignore"):
        error = np.where(plain, estimate - truth, np.log(estimate / truth))
    held = (table["lower"] <= truth) & (truth <= table["upper"])
    return table.assign(truth=truth, error=error, held=held, converged=fit.converged)


def recovery(family: str, sets: int) -> pd.DataFrame:
    """Bias and coverage of every parameter of a family."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", hl.FitWarning)
        found = [one(family, seed) for seed in range(sets)]
    error = np.array([table["error"].to_numpy() for table in found])
    return pd.DataFrame(
        {
            "family": family,
            "parameter": found[0].index,
            "truth": found[0]["truth"].to_numpy(),
            "bias": error.mean(axis=0),
            "MCSE": error.std(axis=0, ddof=1) / np.sqrt(sets),
            "coverage": np.mean([table["held"].to_numpy() for table in found], axis=0),
            "converged": np.mean([table["converged"].iloc[0] for table in found]),
        }
    )


if __name__ == "__main__":
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    for name in sys.argv[2:] or FAMILIES:
        shown = recovery(name, number)
        print(shown.assign(ratio=shown["bias"] / shown["MCSE"]).round(4).to_string(index=False), flush=True)
