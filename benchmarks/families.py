"""Generalised models by maximum likelihood against lme4's glmer, in one run: medians of wall time, and ratios.

    .venv/bin/python benchmarks/families.py [--repeats 7] [--skip-large]

``esoph``: Poisson counts of the 1980s coding, a random intercept and slope, by Laplace's method. ``large``: 10,000
subjects with 10 binary rows, random intercept and slope. Both from data frame to a summary with standard errors; the
first call of every program is a warm-up and not counted, except that glmer fits the large data once.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from common import have
from common import median_seconds as seconds

import hierlmm as hl


def binary_rows(subjects: int = 10_000, rows: int = 10, seed: int = 1) -> pd.DataFrame:
    """Yes or no with a random intercept and slope."""
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(subjects), rows)
    x = rng.normal(size=len(g))
    b = rng.multivariate_normal([0.0, 0.0], [[1.0, 0.2], [0.2, 0.25]], subjects)
    eta = -0.5 + 0.7 * x + b[g, 0] + b[g, 1] * x
    return pd.DataFrame({"y": rng.binomial(1, 1.0 / (1.0 + np.exp(-eta))), "x": x, "g": g})


def ours(formula: str, data: pd.DataFrame, family: str) -> hl.GeneralisedFit:
    fit = hl.TwoLevelModel.from_formula(formula, data, family=family).fit_ml()
    fit.summary()
    return fit


def glmer(formula: str, data: pd.DataFrame, family: str, repeats: int) -> tuple[float, float] | None:
    """Median seconds of glmer() inside R, and its log-likelihood; None without R."""
    if not have("Rscript"):
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.csv"
        data.to_csv(path, index=False)
        warm = "m <- f();" if repeats > 1 else ""
        script = (
            f'suppressMessages(library(lme4)); d <- read.csv("{path}"); f <- function() {{'
            f"m <- glmer({formula}, d, family = {family}); s <- summary(m); m }};{warm}"
            f"t <- sapply(1:{repeats}, function(i) system.time(m <<- f())[['elapsed']]);"
            "cat(median(t), format(as.numeric(logLik(m)), digits = 15))"
        )
        done = subprocess.run(["Rscript", "-e", script], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return None
    wall, loglik = done.stdout.split()[-2:]
    return float(wall), float(loglik)


def show(name: str, formula: str, data: pd.DataFrame, families: tuple[str, str], repeats: tuple[int, int]) -> None:
    """One line: seconds and log-likelihoods of both, and their ratio."""
    wall = seconds(lambda: ours(formula, data, families[0]), repeats[0])
    line = f"{name:8s} hierlmm {1000 * wall:9.1f} ms  log-likelihood {ours(formula, data, families[0]).loglik:.6f}"
    peer = glmer(formula, data, families[1], repeats[1])
    if peer is not None:
        line += f"   glmer {1000 * peer[0]:9.1f} ms  {peer[1]:.6f}   ratio {peer[0] / wall:.1f}"
    print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--skip-large", action="store_true")
    given = parser.parse_args()
    esoph = hl.load_dataset("esoph", coding="1980s")
    formula, kinds = "ncases ~ ncontrols + (ncontrols | agegp)", ("poisson", "poisson")
    show("esoph", formula, esoph, kinds, (given.repeats, given.repeats))
    if not given.skip_large:
        show("large", "y ~ x + (x | g)", binary_rows(), ("bernoulli", "binomial"), (3, 1))


if __name__ == "__main__":
    main()
