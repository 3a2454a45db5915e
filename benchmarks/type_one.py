"""Type I error of tests of fixed effects with few subjects, by where standard errors and degrees of freedom come from.

    .venv/bin/python benchmarks/type_one.py [--n 2000] [--seed 1]          or  make bench BENCH=type_one

Data are simulated from a model without the effects that are tested, refitted from their optimum, and tested at 5 %. A
rate of 5 % has a Monte-Carlo standard error of 0.5 points at 2,000 data sets. Every setting has 12 + 12 subjects:

- random intercept: four visits, treatment and time;
- AR(1): six visits, correlation 0.6;
- unstructured: four visits with variances and correlations of their own, 15 % of the rows missing;
- AR(1), truly unstructured: the same data, with a working covariance that is wrong.
"""

from __future__ import annotations

import argparse
import time
import warnings

import numpy as np
import pandas as pd

import hierlmm as hl
from hierlmm.inference.refits import Refitter

METHODS = {
    "z": {"df": "normal"},
    "Satterthwaite": {"df": "satterthwaite"},
    "Kenward-Roger": {"df": "kenward-roger"},
    "Kenward-Roger-linear": {"df": "kenward-roger-linear"},
    "empirical, z": {"df": "normal", "se": "empirical"},
    "empirical": {"se": "empirical"},
    "empirical, bias-reduced": {"se": "empirical-bias-reduced"},
    "empirical, jackknife": {"se": "empirical-jackknife"},
}
COVARIANCE = np.array([[4.0, 2.5, 2.0, 1.0], [2.5, 5.0, 3.5, 3.0], [2.0, 3.5, 6.0, 4.5], [1.0, 3.0, 4.5, 9.0]])


def trial(visits: int, missing: float = 0.0) -> pd.DataFrame:
    """Two arms of 12 subjects with common visits."""
    rows = pd.MultiIndex.from_product([range(24), range(visits)], names=["subject", "visit"]).to_frame(index=False)
    rows["arm"] = np.where(rows["subject"] < 12, "a", "b")
    kept = np.random.default_rng(8).random(len(rows)) >= missing
    return rows[kept].reset_index(drop=True).assign(label=lambda d: "v" + d["visit"].astype(str))


def covariance_of(kind: str, visits: int) -> np.ndarray:
    """The true covariance of a subject with all visits."""
    lag = np.abs(np.subtract.outer(np.arange(visits), np.arange(visits)))
    if kind == "intercept":
        return 2.0 * np.eye(visits) + 1.5
    return 3.0 * 0.6**lag if kind == "ar1" else COVARIANCE


SETTINGS = {
    "random intercept": ("intercept", 4, 0.0, "y ~ arm * visit", None),
    "AR(1)": ("ar1", 6, 0.0, "y ~ arm * visit", hl.AR1("visit")),
    "unstructured": ("unstructured", 4, 0.15, "y ~ arm * label", hl.UnstructuredHeterogeneous("label")),
    "AR(1), truly unstructured": ("unstructured", 4, 0.15, "y ~ arm * label", hl.AR1("visit")),
}


def study(name: str, n: int, seed: int) -> pd.DataFrame:
    """Rates of rejection of one setting, in percent: a t test of the arms, and an F test of their interaction."""
    kind, visits, missing, formula, structure = SETTINGS[name]
    rows = trial(visits, missing)
    V, rng = covariance_of(kind, visits), np.random.default_rng(seed)
    root = np.linalg.cholesky(V)

    def response() -> np.ndarray:
        errors = (rng.standard_normal((24, visits)) @ root.T)[rows["subject"], rows["visit"]]
        return 10.0 + rows["visit"].to_numpy() + errors

    first = rows.assign(y=response())
    if structure is None:
        fit = hl.TwoLevelModel.from_formula(f"{formula} + (1 | subject)", first).fit_reml()
    else:
        fit = hl.MarginalModel(formula, correlation=structure, subject="subject", data=first).fit_reml()
    refitter, terms = Refitter(fit), [c for c in fit.beta.index if ":" in c]
    L = np.array([[float(c == "arm[T.b]") for c in fit.beta.index]])
    both = np.vstack([L, *[[[float(c == term) for c in fit.beta.index]] for term in terms]])
    rejected, refused = np.zeros((len(METHODS), 2)), 0
    for _ in range(n):
        try:
            refit = refitter.to_response(response())
        except hl.HierlmmError:
            refused += 1
            continue
        for m, asked in enumerate(METHODS.values()):
            wald = refit._wald(asked.get("df"), asked.get("se"))
            rejected[m] += [wald.joint(rows_).p < 0.05 for rows_ in (L, both)]
    if refused:
        print(f"{name}: {refused} data sets could not be fitted")
    done = n - refused
    return pd.DataFrame(100.0 * rejected / done, index=list(METHODS), columns=["t", f"F, {len(both)} rows"]).round(1)


def main() -> None:
    """Run all settings."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--setting", choices=list(SETTINGS), default=None)
    asked = parser.parse_args()
    warnings.simplefilter("ignore", hl.FitWarning)
    for name in [asked.setting] if asked.setting else SETTINGS:
        start = time.perf_counter()
        print(f"\n{name}, {asked.n} data sets: rejected at 5 %, in percent")
        print(study(name, asked.n, asked.seed).to_string())
        print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
