"""The collapsed and the explicit sampler on the same models: whether they agree, and what each costs.

    .venv/bin/python benchmarks/collapsed_vs_explicit.py [--draws 2000] [--only sleepstudy]

For every quantity the posterior mean of the one route is compared with that of the other, in units of the Monte-Carlo
standard error of the difference, ``|m_c - m_e| / sqrt(mcse_c² + mcse_e²)``. Where both are right, these are absolute
values of (nearly) standard normal numbers: among n of them the largest is about 2 for n = 20 and 3 for n = 500. The
same is done for posterior standard deviations (b left out). Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import time
import warnings

import arviz as az
import numpy as np

import hierlmm as hl
from hierlmm.errors import FitWarning
from hierlmm.fit.posterior import PosteriorFit

FORMULAS = {
    "dental, random intercept": ("dental", "distance ~ sex * time + (1 | subject)"),
    "dental, correlated slopes": ("dental", "distance ~ sex * time + (1 + time | subject)"),
    "sleepstudy, correlated slopes": ("sleepstudy", "reaction ~ days + (1 + days | subject)"),
    "sleepstudy, uncorrelated slopes": ("sleepstudy", "reaction ~ days + (1 + days || subject)"),
    "dyestuff": ("dyestuff", "`yield` ~ 1 + (1 | batch)"),
    "dyestuff2 (sd near zero)": ("dyestuff2", "`yield` ~ 1 + (1 | batch)"),
    "petri": ("petri", "y ~ group + (1 | dish)"),
    "pbc, 60 patients, q = 3": ("pbc", "log_bili ~ year + (1 + year + year2 | subject)"),
}
GROUPS = ("beta", "sd_b", "corr_b", "sigma", "b")


def data(name: str):
    frame = hl.load_dataset(name)
    if name == "pbc":
        frame = frame[frame["subject"] <= 60]
        decades = frame["year"] / 10
        return frame.assign(log_bili=np.log(frame["bili"]), year=decades, year2=decades**2)
    return frame


def distance(a: PosteriorFit, b: PosteriorFit, name: str, statistic: str) -> float:
    """Largest difference of a statistic, in Monte-Carlo standard errors; NaN if the variable does not vary."""
    worst = []
    x, y = (np.moveaxis(fit.draws(name).reshape(*fit.draws(name).shape[:2], -1), -1, 0) for fit in (a, b))
    for u, v in zip(x, y, strict=True):
        if np.ptp(u) == 0:
            continue
        f = np.mean if statistic == "mean" else np.std
        error = np.hypot(az.mcse(u, method=statistic), az.mcse(v, method=statistic))
        worst.append(abs(f(u) - f(v)) / error)
    return max(worst, default=np.nan)


def fitted(model: hl.TwoLevelModel, sampler: str, draws: int) -> tuple[PosteriorFit, float]:
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        fit = model.fit(draws=draws, seed=1, sampler=sampler, progressbar=False)
    return fit, time.perf_counter() - start


def row(label: str, draws: int) -> str:
    dataset, formula = FORMULAS[label]
    model = hl.TwoLevelModel.from_formula(formula, data(dataset))
    (collapsed, quick), (explicit, slow) = (fitted(model, s, draws) for s in ("collapsed", "explicit"))
    means = [distance(collapsed, explicit, name, "mean") for name in GROUPS]
    sds = max(np.nan_to_num(distance(collapsed, explicit, name, "sd")) for name in GROUPS[:-1])
    ess = [fit.convergence().min_ess_bulk for fit in (collapsed, explicit)]
    divergences = [fit.convergence().divergences for fit in (collapsed, explicit)]
    cells = ["" if np.isnan(v) else f"{v:.1f}" for v in (*means, sds)]
    cells += [f"{ess[0]:.0f} / {ess[1]:.0f}", f"{divergences[0]} / {divergences[1]}", f"{quick:.1f} / {slow:.1f}"]
    return f"| {label} | " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    fitted(hl.TwoLevelModel.from_formula(FORMULAS["dyestuff"][1], data("dyestuff")), "collapsed", 100)  # warm-up
    print("| model | β | sd | corr | σ | b | SDs | smallest ESS | divergences | seconds |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for label in FORMULAS:
        if options.only in label:
            print(row(label, options.draws), flush=True)


if __name__ == "__main__":
    main()
