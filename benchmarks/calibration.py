"""Simulation-based calibration over 500 data sets: one random effect, and two correlated ones.

    .venv/bin/python benchmarks/calibration.py [--n 500] [--seed 1]          or  make bench BENCH=calibration

Prints, for each parameter, the p-value of uniform ranks, whether their ECDF stays inside its simultaneous 95 % band,
and the coverage of intervals; then the wall time. A small study is run first, so that nothing is compiled in the time.
"""

from __future__ import annotations

import argparse

import hierlmm as hl
from hierlmm.diagnostics.calibrate import calibrate

STUDIES = {
    "dyestuff, q = 1": ("yield ~ 1 + (1 | batch)", "dyestuff"),
    "sleepstudy, q = 2, correlated": ("reaction ~ days + (1 + days | subject)", "sleepstudy"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Calibration over many simulated data sets.")
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    for title, (formula, name) in STUDIES.items():
        model = hl.TwoLevelModel.from_formula(formula, hl.load_dataset(name))
        calibrate(model, 10, seed=0, progressbar=False)
        result = calibrate(model, options.n, seed=options.seed)
        print(f"== {title} ==\n{result}")
        table = result.summary()
        inside = int(table["in_band"].sum())
        covered = table["cover95"].between(0.925, 0.975)
        print(
            f"{inside} of {len(table)} ECDFs inside the band; 95 % intervals cover 92.5 to 97.5 % for "
            f"{int(covered.sum())} of {len(table)}; {result.seconds:.1f} s, "
            f"{1000 * result.seconds / options.n:.0f} ms a data set\n"
        )


if __name__ == "__main__":
    main()
