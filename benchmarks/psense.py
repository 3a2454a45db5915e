"""How often `fit.psense()` names a prior-data conflict where there is none, and where one was planted.

    .venv/bin/python benchmarks/psense.py [--simulations 100] [--subjects 30]

The threshold is the package's: twice the prior would move the mean by 0.7 posterior SDs.

Data: y = 10 + 2 t + b_0 + b_1 t + ε, five rows a subject, sd(b) = (2, 0.5), corr = 0.3, σ = 1. Clean fits have the
default priors. Planted conflicts: a prior Normal(0, 0.25) on the slope, whose standard error is about 0.11, eight prior
SDs from the truth; and HalfNormal(0.2) on σ, five prior SDs from the truth.
"""

from __future__ import annotations

import argparse
import warnings
from collections import Counter

import numpy as np

import hierlmm as hl
from hierlmm.diagnostics.psense import CONFLICT

D = [[4.0, 0.3], [0.3, 0.25]]


def diagnoses(subjects: int, seed: int, priors: hl.Priors | None) -> set[str]:
    """Diagnoses of one simulated data set, and "ArviZ's rule" where both sensitivities of any parameter exceed 0.05."""
    frame = hl.simulate(
        beta={"Intercept": 10.0, "time": 2.0},
        D=D,
        sigma=1.0,
        random=["Intercept", "time"],
        n_subjects=subjects,
        times=np.arange(5.0),
        seed=seed,
    )
    model = hl.TwoLevelModel.from_formula("y ~ time + (time | subject)", frame, priors=priors)
    fit = model.fit(draws=500, tune=500, chains=4, seed=seed, random_effects="none", progressbar=False)
    table = fit.psense().table
    both = (table[["prior", "likelihood"]] > 0.05).all(axis=1).any()
    return set(table["diagnosis"]) - {""} | ({"ArviZ's rule"} if both else set())


def main() -> None:
    """Print the shares."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--simulations", type=int, default=100)
    parser.add_argument("--subjects", type=int, default=30)
    given = parser.parse_args()
    warnings.simplefilter("ignore", hl.FitWarning)
    planted = {
        "conflict about the slope": hl.Priors(beta={"time": hl.Normal(0.0, 0.25)}),
        "conflict about σ": hl.Priors(sigma=hl.HalfNormal(0.2)),
    }
    for name, priors in {**planted, "clean": None}.items():
        found: Counter[str] = Counter()
        for seed in range(given.simulations):
            found.update(diagnoses(given.subjects, seed, priors))
        said = found[CONFLICT]
        others = ", ".join(f"{k}: {v}" for k, v in sorted(found.items()) if k != CONFLICT)
        print(
            f"{name}, {given.subjects} subjects: conflict named in {said} of {given.simulations} fits ({others})",
            flush=True,
        )


if __name__ == "__main__":
    main()
