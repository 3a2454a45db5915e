"""REML against its peers, in one run: medians of wall time, and ratios.

    make bench                       or  .venv/bin/python benchmarks/reml.py [--repeats 5] [--skip-large | --million]

Each model is fitted in turn by hierlmm, statsmodels, mixedlm and, if Rscript is found, lme4. The first call of every
program is a warm-up and not counted. "whole" is from data frame to fit; "optimisation" is the maximisation alone, after
the model object was built. Peak memory is that of a fresh process that does the fit.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from common import growth, have, own_peak_memory
from common import median_seconds as seconds

import hierlmm as hl
from hierlmm.covariance.random import random_covariance
from hierlmm.likelihood.criterion import Criterion
from hierlmm.likelihood.crossproducts import cross_products
from hierlmm.likelihood.maximise import maximise

LARGE = 10_000


def ours(formula: str, data: pd.DataFrame) -> hl.LikelihoodFit:
    return hl.TwoLevelModel.from_formula(formula, data).fit_reml()


def mixedlm_seconds(formula: str, data: pd.DataFrame, repeats: int) -> tuple[float, float] | None:
    """Median seconds of mixedlm.lmer(), and its criterion; None if the package is not installed."""
    try:
        import mixedlm
    except ImportError:
        return None
    return seconds(lambda: mixedlm.lmer(formula, data), repeats), float(mixedlm.lmer(formula, data).REMLcrit())


def our_optimiser(formula: str, data: pd.DataFrame) -> Callable[[], object]:
    design = hl.TwoLevelModel.from_formula(formula, data).design
    criterion = Criterion(cross_products(design), random_covariance(design.covariance, design.blocks), reml=True)
    return lambda: maximise(criterion)


def statsmodels_model(response: str, slope: str, group: str, data: pd.DataFrame) -> object:
    import statsmodels.formula.api as smf

    return smf.mixedlm(f"{response} ~ {slope}", data, groups=data[group], re_formula=f"~{slope}")


def lme4(formula: str, data: pd.DataFrame, repeats: int) -> tuple[float, float] | None:
    """Median seconds of lmer() inside R, and its criterion; None without R."""
    if not have("Rscript"):
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.csv"
        data.to_csv(path, index=False)
        script = (
            f'suppressMessages(library(lme4)); d <- read.csv("{path}");'
            f"f <- function() lmer({formula}, d); m <- f();"
            f"t <- sapply(1:{repeats}, function(i) system.time(m <<- f())[['elapsed']]);"
            "cat(median(t), format(REMLcrit(m), digits = 15))"
        )
        done = subprocess.run(["Rscript", "-e", script], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return None
    wall, criterion = done.stdout.split()
    return float(wall), float(criterion)


def peak_memory(irregular: bool) -> float:
    """Peak resident memory, MB, of a fresh process that simulates and fits the large data."""
    child = subprocess.run(
        [sys.executable, __file__, "--child", str(int(irregular))], capture_output=True, text=True, check=True
    )
    return float(child.stdout.split()[-1])


def statsmodels_seconds(columns: tuple[str, str, str], data: pd.DataFrame, repeats: int) -> tuple[float, float]:
    """Median seconds of MixedLM.fit(), the model object built before, and -2 log restricted likelihood."""
    model = statsmodels_model(*columns, data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its convergence notices are not what is measured
        return seconds(lambda: model.fit(reml=True), repeats), -2.0 * model.fit(reml=True).llf


def report(
    name: str,
    formula: str,
    columns: tuple[str, str, str],
    data: pd.DataFrame,
    repeats: int,
    with_statsmodels: bool = True,
) -> None:
    """Time one model, and print every peer's time, criterion and ratio."""
    print(f"\n{name}: {len(data):,} rows, {data[columns[2]].nunique():,} subjects, {formula}", flush=True)
    slow = 1 if len(data) > 10_000 else repeats
    fit = ours(formula, data)
    optimisation = seconds(our_optimiser(formula, data), repeats)
    whole = seconds(lambda: ours(formula, data), repeats)
    peers = {
        "statsmodels, optimisation": statsmodels_seconds(columns, data, slow) if with_statsmodels else None,
        "lme4, whole": lme4(formula, data, slow),
        "mixedlm, whole": mixedlm_seconds(formula, data, slow),
    }
    found = {label: result for label, result in peers.items() if result is not None}
    print(f"  {'hierlmm, optimisation':<28}{optimisation * 1e3:12.2f} ms   criterion {fit.criterion:.6f}")
    print(f"  {'hierlmm, whole':<28}{whole * 1e3:12.2f} ms   gradient norm {fit.gradient_norm:.1e}")
    for label, (wall, criterion) in found.items():
        own = optimisation if label.endswith("optimisation") else whole
        print(f"  {label:<28}{wall * 1e3:12.2f} ms   criterion {criterion:.6f}   ratio {wall / own:,.1f}")
    if found:
        best = min(criterion for _, criterion in found.values())
        print(f"  our criterion minus the best peer's: {fit.criterion - best:+.1e}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--skip-large", action="store_true")
    parser.add_argument("--million", action="store_true", help="also 100,000 irregular subjects x 10 rows")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        ours("y ~ time + (time | subject)", growth(LARGE, irregular=bool(options.child)))
        print(own_peak_memory())
        return
    print(f"{os.cpu_count()} cores, medians of {options.repeats} runs after a warm-up")
    sleepstudy = hl.load_dataset("sleepstudy")
    report(
        "sleepstudy", "reaction ~ days + (days | subject)", ("reaction", "days", "subject"), sleepstudy, options.repeats
    )
    if options.skip_large:
        return
    for irregular in (False, True):
        name = "irregular times" if irregular else "balanced"
        report(
            f"{LARGE:,} subjects, {name}",
            "y ~ time + (time | subject)",
            ("y", "time", "subject"),
            growth(LARGE, irregular=irregular),
            options.repeats,
        )
        print(f"  peak memory of a fresh process: {peak_memory(irregular):.0f} MB")
    if options.million:
        data = growth(10 * LARGE, irregular=True)
        columns = ("y", "time", "subject")
        report("a million rows", "y ~ time + (time | subject)", columns, data, options.repeats, with_statsmodels=False)


if __name__ == "__main__":
    main()
