"""REML with several grouping factors against lme4, in one run: medians of wall time, and ratios.

    make bench BENCH=several_factors or .venv/bin/python benchmarks/several_factors.py [--repeats 3] [--only nested]

``InstEval`` (73,421 ratings of 1,128 lecturers by 2,972 students in 14 departments) is read from R's lme4; without R
it is left out, as is the peer. "whole" is from data frame to fit; "optimisation" is the maximisation alone. Peak memory
is that of a fresh process that does the fit.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from common import have, median_seconds, own_peak_memory
from reml import lme4

import hierlmm as hl
from hierlmm.likelihood.maximise import maximise
from hierlmm.likelihood.several_factors import factor_criterion

INST_EVAL = "y ~ service + (1 | s) + (1 | d) + (1 | dept)"


def inst_eval() -> pd.DataFrame | None:
    """Ratings of lecturers, from R."""
    if not have("Rscript"):
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.csv"
        script = f'data(InstEval, package = "lme4"); write.csv(InstEval, "{path}", row.names = FALSE)'
        subprocess.run(["Rscript", "-e", script], check=True, capture_output=True)
        found = pd.read_csv(path)
    labels = {name: found[name].map("{:04d}".format) for name in ("s", "d", "dept")}
    return found.assign(**labels, service=found["service"].astype(str))


def crossed() -> pd.DataFrame:
    """100,000 rows of 10,000 persons and 1,000 items."""
    rng = np.random.default_rng(1)
    person, item = rng.integers(10_000, size=100_000), rng.integers(1_000, size=100_000)
    x = rng.normal(size=len(person))
    y = 1.0 + 0.5 * x + rng.normal(size=10_000)[person] + 0.7 * rng.normal(size=1_000)[item] + rng.normal(size=len(x))
    return pd.DataFrame({"y": y, "x": x, "person": _labels("p", person), "item": _labels("i", item)})


def nested() -> pd.DataFrame:
    """200,000 rows: 5 of each of 20 in 20 in 20 in 5 groups."""
    rng, sizes = np.random.default_rng(2), (5, 20, 20, 20)
    row = np.arange(5 * np.prod(sizes))
    y, columns = 3.0 + rng.normal(size=len(row)), {}
    for level, sd in enumerate((0.8, 0.5, 0.7, 1.0)):
        own = row // (len(row) // int(np.prod(sizes[: level + 1])))
        y += sd * rng.normal(size=int(own.max()) + 1)[own]
        columns["abcd"[level]] = _labels("abcd"[level], own % sizes[level])
    x = rng.normal(size=len(row))
    return pd.DataFrame({"y": y + 0.2 * x, "x": x, **columns})


def _labels(letter: str, index: np.ndarray) -> list[str]:
    return [f"{letter}{k:05d}" for k in index]


DESIGNS = {
    "inst_eval": (INST_EVAL, inst_eval),
    "crossed": ("y ~ x + (1 | person) + (1 | item)", crossed),
    "nested": ("y ~ x + (1 | a / b / c / d)", nested),
}


def ours(formula: str, data: pd.DataFrame) -> hl.MultilevelFit:
    return hl.MultilevelModel.from_formula(formula, data).fit_reml()


def report(name: str, repeats: int) -> None:
    """Time one design, and print times, criteria and ratios."""
    formula, make = DESIGNS[name]
    data = make()
    if data is None:
        print(f"\n{name}: needs R")
        return
    fit = ours(formula, data)
    groups = " x ".join(f"{n:,}" for n in fit.n_groups.to_numpy())
    print(f"\n{name}: {len(data):,} rows, {groups} groups, {formula}", flush=True)
    criterion = factor_criterion(fit.design, reml=True)
    optimisation = median_seconds(lambda: maximise(criterion), repeats)
    whole = median_seconds(lambda: ours(formula, data), repeats)
    peak = subprocess.run([sys.executable, __file__, "--child", name], capture_output=True, text=True, check=True)
    print(f"  {'hierlmm, optimisation':<24}{optimisation:10.3f} s   criterion {fit.criterion:.6f}")
    print(f"  {'hierlmm, whole':<24}{whole:10.3f} s   gradient norm {fit.gradient_norm:.1e}")
    print(f"  peak memory of a fresh process: {float(peak.stdout.split()[-1]):.0f} MB", flush=True)
    found = lme4(formula, data, 1)
    if found is not None:
        wall, theirs = found
        print(f"  {'lme4, whole':<24}{wall:10.3f} s   criterion {theirs:.6f}   ratio {wall / whole:,.1f}")
        print(f"  our criterion minus lme4's: {fit.criterion - theirs:+.1e}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=DESIGNS)
    parser.add_argument("--child", choices=DESIGNS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        formula, make = DESIGNS[options.child]
        ours(formula, make())
        print(own_peak_memory())
        return
    print(f"{os.cpu_count()} cores, medians of {options.repeats} runs after a warm-up; lme4 once")
    for name in [options.only] if options.only else DESIGNS:
        report(name, options.repeats)


if __name__ == "__main__":
    main()
