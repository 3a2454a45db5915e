"""Posterior of small data (sleepstudy: 180 rows, 18 subjects) against peers, in one run, alternating; medians.

    make bench BENCH=small_data      or  .venv/bin/python benchmarks/small_data.py [--repeats 5] [--no-cold]

4 chains x (1000 + 1000). "refit" is a call in a warm process that ends with the draws of every parameter and random
effect in a DataTree; "fresh" a new Python process from import to summary, caches on disk warm, or (once) empty.
The last comparison is on the uncorrelated model with Bambi's priors, the one that both can express.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import warnings

from common import fresh_process, have, smallest_ess, timed

import hierlmm as hl
from hierlmm.bayes.bambi import fit_bambi

CORRELATED = "reaction ~ days + (days | subject)"
DIAGONAL = "reaction ~ days + (days || subject)"

OURS = f"""
import hierlmm as hl
model = hl.TwoLevelModel.from_formula("{CORRELATED}", hl.load_dataset("sleepstudy"))
model.fit(seed=1, progressbar=False).summary()
"""
BAMBI = """
import warnings
warnings.simplefilter("ignore")
import bambi as bmb, arviz as az, hierlmm as hl
data = hl.load_dataset("sleepstudy")
model = bmb.Model("reaction ~ days + (days | subject)", data)
tree = model.fit(draws=1000, tune=1000, chains=4, random_seed=1, inference_method="nutpie", progressbar=False)
az.summary(tree)
"""
RSTANARM = """
library(rstanarm); d <- lme4::sleepstudy; options(mc.cores = 2)
print(summary(stan_lmer(Reaction ~ Days + (Days | Subject), d, chains = 4, iter = 2000, refresh = 0)))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--no-cold", action="store_true", help="leave out the runs with empty caches")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    print(f"{os.cpu_count()} cores, medians of {options.repeats} runs after a warm-up\n")
    data = hl.load_dataset("sleepstudy")
    ours = hl.TwoLevelModel.from_formula(CORRELATED, data)
    diagonal = hl.TwoLevelModel.from_formula(DIAGONAL, data, priors="bambi")
    quiet = {"progressbar": False, "seed": 1}
    contenders = {
        "hierlmm, correlated": lambda: ours.fit(**quiet),
        "hierlmm, diagonal, Bambi's priors": lambda: diagonal.fit(**quiet),
        "Bambi (nutpie), diagonal": lambda: fit_bambi(diagonal.design, diagonal.priors, **quiet),
        "explicit PyMC model, diagonal": lambda: diagonal.fit(sampler="explicit", **quiet),
    }
    times: dict[str, list[float]] = {name: [] for name in contenders}
    speeds: dict[str, list[float]] = {name: [] for name in contenders}
    for repeat in range(options.repeats + 1):
        for name, fit in contenders.items():
            seconds, result = timed(fit)
            if repeat:
                times[name].append(seconds)
                speeds[name].append(smallest_ess(result.datatree) / seconds)
    print(f"{'refit':<40}{'seconds':>10}{'min bulk ESS/s':>18}")
    for name in contenders:
        print(f"{name:<40}{statistics.median(times[name]):>10.3f}{statistics.median(speeds[name]):>18,.0f}")
    pair = "hierlmm, diagonal, Bambi's priors", "Bambi (nutpie), diagonal"
    print(f"ESS/s, hierlmm / Bambi: {statistics.median(speeds[pair[0]]) / statistics.median(speeds[pair[1]]):.1f}\n")
    fresh(options)


def fresh(options: argparse.Namespace) -> None:
    """Whole processes, caches warm and (once) empty."""
    codes = {"hierlmm": OURS, "Bambi (nutpie, uncorrelated)": BAMBI}
    warm = {name: [] for name in codes}
    for repeat in range(options.repeats + 1):
        for name, code in codes.items():
            seconds = fresh_process(code, dict(os.environ))
            if repeat:
                warm[name].append(seconds)
    for name, seconds in warm.items():
        print(f"fresh process, caches warm: {name:<32}{statistics.median(seconds):8.2f} s")
    if not options.no_cold:
        for name, code in codes.items():
            with tempfile.TemporaryDirectory() as cache:
                empty = {"NUMBA_CACHE_DIR": f"{cache}/numba", "PYTENSOR_FLAGS": f"base_compiledir={cache}/pytensor"}
                print(f"fresh process, caches empty: {name:<31}{fresh_process(code, {**os.environ, **empty}):8.2f} s")
    if have("Rscript"):
        with tempfile.NamedTemporaryFile("w", suffix=".R") as script:
            script.write(RSTANARM)
            script.flush()
            try:
                code = f"import subprocess; subprocess.run(['Rscript', {script.name!r}], check=True)"
                print(f"fresh process: rstanarm{fresh_process(code, dict(os.environ)):36.2f} s")
            except RuntimeError:
                print("rstanarm is not installed")


if __name__ == "__main__":
    main()
