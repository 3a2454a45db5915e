"""Simulation-based calibration over many data sets: three Gaussian models, and three families.

    .venv/bin/python benchmarks/calibration.py [--n 500] [--seed 1]          or  make bench BENCH=calibration
    .venv/bin/python benchmarks/calibration.py --families --n 300 --cores 1

Prints, for each parameter, the p-value of uniform ranks, whether their ECDF stays inside its simultaneous 95 % band,
and the coverage of intervals; then the wall time. A small study is run first, so that nothing is compiled in the time.
The families are those of 20 subjects with five rows, with a random intercept and the priors of `FAMILIES`.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd

import hierlmm as hl
from hierlmm.diagnostics.calibrate import calibrate

STUDIES = {
    "dyestuff, q = 1": ("yield ~ 1 + (1 | batch)", "dyestuff"),
    "sleepstudy, q = 2, correlated": ("reaction ~ days + (1 + days | subject)", "sleepstudy"),
    "dental, D by sex": ("distance ~ sex * time + (time | gr(subject, by = sex))", "dental"),
}
SHARED = {"intercept": hl.Normal(0.5, 0.7), "beta": hl.Normal(0.0, 0.4), "sd_b": hl.HalfNormal(0.8)}
FAMILIES = {
    "poisson": hl.Priors(**SHARED),
    "negative_binomial": hl.Priors(**SHARED, dispersion={"shape": hl.Gamma(4, 1)}),
    "bernoulli": hl.Priors(**SHARED),
}


def gaussian() -> dict[str, hl.TwoLevelModel]:
    """Models of two data sets, with default priors."""
    return {
        title: hl.TwoLevelModel.from_formula(formula, hl.load_dataset(name))
        for title, (formula, name) in STUDIES.items()
    }


def families() -> dict[str, hl.TwoLevelModel]:
    """Models of 20 subjects with five rows; of their response only that it can be one matters."""
    rows = pd.DataFrame({"subject": np.repeat(np.arange(20), 5), "x": np.tile(np.arange(5.0) - 2.0, 20)})
    rows["y"] = np.arange(100) % 2
    return {
        name: hl.TwoLevelModel.from_formula("y ~ x + (1 | subject)", rows, family=name, priors=priors)
        for name, priors in FAMILIES.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Calibration over many simulated data sets.")
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cores", type=int, default=None)
    parser.add_argument("--families", action="store_true")
    options = parser.parse_args()
    for title, model in (families() if options.families else gaussian()).items():
        calibrate(model, 10, seed=0, progressbar=False)
        result = calibrate(model, options.n, seed=options.seed, cores=options.cores)
        print(f"== {title} ==\n{result}")
        table = result.summary()
        inside = int(table["in_band"].sum())
        covered = table["cover95"].between(0.925, 0.975)
        print(
            f"{inside} of {len(table)} ECDFs inside the band; 95 % intervals cover 92.5 to 97.5 % for "
            f"{int(covered.sum())} of {len(table)}; {result.seconds:.1f} s, "
            f"{1000 * result.seconds / options.n:.0f} ms a data set\n",
            flush=True,
        )


if __name__ == "__main__":
    main()
