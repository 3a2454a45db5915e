"""Leave-one-out PIT of subjects is uniform where the model is true; the check with draws given b is not.

    .venv/bin/python benchmarks/loo_pit.py [--simulations 100] [--subjects 25]

Data: y = 10 + 2 t + b_0 + b_1 t + ε, five rows a subject, sd(b) = (2, 0.5), corr = 0.3, σ = 1. For the mean,
the SD and the slope of a subject's rows: how often the p-value of `loo_pit`, and ArviZ's test of the same PITs, reject
uniformity at 5 % (over the fits), and the SD of all PITs (0.289 if uniform). "given b": the PIT of the mean among draws
given b of the same subject.
"""

from __future__ import annotations

import argparse
import warnings

import numpy as np
import xarray as xr
from psense import D

import hierlmm as hl
from hierlmm.diagnostics.pit import loo_pit, test_quantity

STATISTICS = ("mean", "sd", "time")


def given_b(fit: hl.PosteriorFit, seed: int) -> np.ndarray:
    """PIT of the subjects' means among replications of the same subjects, b from its posterior."""
    mean, _ = test_quantity(fit.design, "mean")
    y = fit.posterior_predictive(seed=seed)["posterior_predictive"]["y"].to_numpy()
    return np.mean(mean(y.reshape(-1, fit.design.n_obs)) <= mean(fit.design.y[None]), axis=0)


def main() -> None:
    """Print shares of rejections and spreads."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--simulations", type=int, default=100)
    parser.add_argument("--subjects", type=int, default=25)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    pits: dict[str, list[np.ndarray]] = {name: [] for name in (*STATISTICS, "given b")}
    own: dict[str, list[float]] = {name: [] for name in STATISTICS}
    arviz: dict[str, list[float]] = {name: [] for name in pits}
    for seed in range(given.simulations):
        frame = hl.simulate(
            beta={"Intercept": 10.0, "time": 2.0},
            D=D,
            sigma=1.0,
            random=["Intercept", "time"],
            n_subjects=given.subjects,
            times=np.arange(5.0),
            seed=seed,
        )
        fit = hl.TwoLevelModel.from_formula("y ~ time + (time | subject)", frame).fit(
            draws=500, tune=500, chains=4, seed=seed, random_effects="draws", progressbar=False
        )
        for name in STATISTICS:
            found = loo_pit(fit, "subject", name, seed)
            pits[name].append(found.pit.to_numpy())
            own[name].append(found.p)
        pits["given b"].append(given_b(fit, seed))
        for name, values in pits.items():
            value = xr.DataArray(values[-1], dims="unit").azstats.uniformity_test(dim=["unit"], method="pot_c")[0]
            arviz[name].append(float(value))
    for name, values in pits.items():
        rejected, all_values = 100 * np.mean(np.array(arviz[name]) < 0.05), np.concatenate(values)
        calibrated = f"{100 * np.mean(np.array(own[name]) < 0.05):.0f} %, " if name in own else ""
        tails = np.mean((all_values < 0.05) | (all_values > 0.95))
        print(
            f"{name:8} rejected at 5 %: {calibrated}by ArviZ's test {rejected:.0f} % of {given.simulations} fits;"
            f" SD of {len(all_values)} PITs {all_values.std():.3f}; in the outer 10 %: {100 * tails:.1f} %"
        )


if __name__ == "__main__":
    main()
