"""How often likelihood-ratio tests reject a true null hypothesis at a nominal 5 %, over simulated data sets.

    python benchmarks/tests_of_variance.py [data sets]

Every line is a setting without the effect that is tested: the share of p-values below 0.05 by plain χ², and by the
distribution that the package chooses, with its Monte-Carlo standard error.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import chi2

import hierlmm as hl
from hierlmm.inference.anova import ratio_test
from hierlmm.inference.exact import null_draws, spectrum
from hierlmm.inference.maximum import maximum_of
from hierlmm.inference.random_effects import has_exact_null
from hierlmm.inference.refits import simulated_criteria

DATA_SETS = 2000


def layout(groups: int, rows: int, sd: tuple[float, float], correlation: float = 0.0) -> pd.DataFrame:
    """Subjects with rows at times 0, 1, ..., a covariate between them, random intercepts and slopes of these SDs."""
    frame = pd.DataFrame({"g": np.repeat(np.arange(groups), rows), "t": np.tile(np.arange(float(rows)), groups)})
    rng = np.random.default_rng(1)
    C = np.linalg.cholesky([[1.0, correlation], [correlation, 1.0]])
    b = rng.normal(size=(groups, 2)) @ C.T * sd
    y = b[frame["g"], 0] + b[frame["g"], 1] * frame["t"] + rng.normal(size=len(frame))
    return frame.assign(x=rng.normal(size=groups)[frame["g"]], y=y)


def study(name: str, small: Any, large: Any, n: int) -> None:
    """Draw data from the smaller fit, fit both to each, and print how often each p-value is below 0.05."""
    start = time.perf_counter()
    found = simulated_criteria(small, [small, large], n, seed=2, cores=1, progressbar=False, nested=True).criteria
    statistic = found[:, 0] - found[:, 1]
    statistic = np.maximum(statistic[np.isfinite(statistic)], 0.0)
    a, b = maximum_of(small), maximum_of(large)
    test = ratio_test(a, b)
    if has_exact_null(a, b):
        limit = np.quantile(null_draws(spectrum(b.design), reml=b.reml, seed=3), 0.95)
        rejected, how = statistic > max(limit, 1e-9), "exact"
    else:
        assert test.mixture is not None
        mixture = test.mixture
        rejected, how = np.array([mixture.sf(v) < 0.05 for v in statistic]), str(mixture)
    naive, rate = float(np.mean(chi2.sf(statistic, test.df) < 0.05)), float(np.mean(rejected))
    error, took = np.sqrt(rate * (1.0 - rate) / len(statistic)), time.perf_counter() - start
    print(f"{name:52} {100 * naive:5.1f} %  {100 * rate:5.1f} % ({100 * error:.1f})  {took:4.0f} s  {how}", flush=True)


def main() -> None:
    """All settings."""
    n = int(sys.argv[1]) if len(sys.argv) > 1 else DATA_SETS
    print(f"{'':52} {'χ²':>7}  {'chosen':>7}  (se)          {n} data sets")

    def two(formula: str, frame: pd.DataFrame, how: str = "fit_reml", **options: Any) -> Any:
        return getattr(hl.TwoLevelModel.from_formula(formula, frame, **options), how)()

    for groups, rows in ((6, 5), (30, 4)):
        frame = layout(groups, rows, (0.0, 0.0))
        plain = hl.MarginalModel("y ~ t", subject="g", data=frame)
        for how, label in (("fit_reml", "REML"), ("fit_ml", "ML")):
            small, large = getattr(plain, how)(), two("y ~ t + (1 | g)", frame, how)
            study(f"one variance, {groups} x {rows}, {label}", small, large, n)
    for groups in (20, 100):
        frame = layout(groups, 5, (1.0, 0.0))
        study(f"random slope, {groups} x 5", two("y ~ t + (1 | g)", frame), two("y ~ t + (t | g)", frame), n)
    study("random slope, uncorrelated, 100 x 5", two("y ~ t + (1 | g)", frame), two("y ~ t + (t || g)", frame), n)
    curved = two("y ~ t + (t + I(t**2) || g)", frame)
    study("two variances, uncorrelated, 100 x 5", two("y ~ t + (1 | g)", frame), curved, n)
    correlated = two("y ~ t + (t + I(t**2) | g)", frame)
    study("two effects with covariances, 100 x 5", two("y ~ t + (1 | g)", frame), correlated, n)
    frame = layout(60, 5, (1.0, 0.6))
    study("correlation of effects, 60 x 5", two("y ~ t + (t || g)", frame), two("y ~ t + (t | g)", frame), n)
    frame = layout(60, 6, (1.0, 0.0))
    one = two("y ~ t + (1 | g)", frame)
    study("AR(1) beside intercepts, 60 x 6", one, two("y ~ t + (1 | g)", frame, residual=hl.AR1("t")), n)
    unequal = two("y ~ t + (1 | g)", frame, residual_variance=hl.VarIdent("t"))
    study("residual variance by occasion, 60 x 6", one, unequal, n)
    by_ml = [two(f, frame, "fit_ml") for f in ("y ~ t + (1 | g)", "y ~ t + x + (1 | g)")]
    study("a coefficient between subjects, 60 x 6, ML", *by_ml, n)


if __name__ == "__main__":
    main()
