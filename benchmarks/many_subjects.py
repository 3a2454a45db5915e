"""Posterior of many subjects x 10 rows, correlated intercepts and slopes, against Bambi (uncorrelated), in one run.

    make bench BENCH=many_subjects   or  .venv/bin/python benchmarks/many_subjects.py [--no-peers] [--largest 100000]

hierlmm: 4 chains of 1000 draws, tuned as by default, warm process. Bambi: nutpie, few draws (its time grows in
proportion). ESS is the smallest bulk ESS over fixed effects, standard deviations and σ.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
import warnings

from common import growth, own_peak_memory, smallest_ess, timed

import hierlmm as hl
from hierlmm.bayes.bambi import fit_bambi

FORMULA = "y ~ time + (time | subject)"


def ours(data: object) -> tuple[float, float]:
    """Seconds from data frame to fit, and ESS per second."""

    def fit() -> object:
        return hl.TwoLevelModel.from_formula(FORMULA, data).fit(seed=1, progressbar=False)

    fit()
    seconds, result = timed(fit)
    return seconds, smallest_ess(result.datatree) / seconds


def bambi(data: object, draws: int) -> tuple[float, float]:
    """The same for Bambi, its compilation included."""
    model = hl.TwoLevelModel.from_formula(FORMULA.replace("|", "||"), data, priors="bambi")
    seconds, result = timed(
        lambda: fit_bambi(model.design, model.priors, draws=draws, tune=draws, chains=2, seed=1, progressbar=False)
    )
    return seconds, smallest_ess(result.datatree) / seconds


def bambi_in_a_process(n_subjects: int, irregular: bool, draws: int) -> tuple[float, float] | None:
    """Bambi in a process of its own (it needs many gigabytes); None if it does not survive."""
    arguments = ["--bambi-child", str(int(irregular)), "--subjects", str(n_subjects), "--bambi-draws", str(draws)]
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        print(f"  Bambi ended with code {done.returncode}: {(done.stderr.strip().splitlines() or ['killed'])[-1]}")
        return None
    seconds, speed = done.stdout.split()[-2:]
    return float(seconds), float(speed)


def largest(n_subjects: int) -> None:
    """One fit of the largest data in this process: time and peak memory."""
    data = growth(n_subjects, irregular=True)
    begun = time.process_time()
    seconds, fit = timed(lambda: hl.TwoLevelModel.from_formula(FORMULA, data).fit(seed=1, progressbar=False))
    found, attrs, steps = fit.convergence(), fit.datatree.attrs, int(fit.sample_stats["n_steps"].sum())
    print(
        f"sampling {attrs['sampling_seconds']:.1f} s, then β and b {attrs['recovery_seconds']:.1f} s; "
        f"{time.process_time() - begun:.0f} s of processor time in all; {attrs['tune']} tuning steps, "
        f"{steps:,} evaluations of the density for the draws kept, {steps / found.min_ess_bulk:.1f} per effective draw"
    )
    print(
        f"{n_subjects:,} irregular subjects, {len(data):,} rows: {seconds:.1f} s, peak memory {own_peak_memory():.0f} "
        f"MB, random effects as {fit.datatree.attrs['random_effects']}; min bulk ESS {found.min_ess_bulk:.0f}, "
        f"max R-hat {found.max_rhat:.4f}, {found.divergences} divergences"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--subjects", type=int, default=10_000)
    parser.add_argument("--largest", type=int, default=100_000)
    parser.add_argument("--bambi-draws", type=int, default=100)
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--bambi-child", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.child:
        largest(options.child)
        return
    if options.bambi_child is not None:
        print(*bambi(growth(options.subjects, irregular=bool(options.bambi_child)), options.bambi_draws))
        return
    print(f"{os.cpu_count()} cores")
    for irregular in (False, True):
        data = growth(options.subjects, irregular=irregular)
        name = "irregular times" if irregular else "balanced"
        seconds, speed = ours(data)
        print(f"{options.subjects:,} subjects, {name}: hierlmm {seconds:.2f} s, {speed:,.0f} ESS/s", flush=True)
        if not options.no_peers:
            found = bambi_in_a_process(options.subjects, irregular, options.bambi_draws)
            if found is None:
                continue
            theirs, their_speed = found
            print(
                f"  Bambi, 2 x ({options.bambi_draws} + {options.bambi_draws}): {theirs:.1f} s, "
                f"{their_speed:.3f} ESS/s; ratio {speed / their_speed:,.0f}",
                flush=True,
            )
    if options.largest:
        subprocess.run([sys.executable, __file__, "--child", str(options.largest)], check=True)


if __name__ == "__main__":
    main()
