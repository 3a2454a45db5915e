"""Are posterior model probabilities calibrated? Data from either of two models, parameters from its priors.

    .venv/bin/python benchmarks/bayes_factors.py [--simulations 500]

Of the data sets in which the larger model gets the probability p, a share p should come from it. Models:
y ~ 1 + (1 | g) and y ~ x + (1 | g), 12 groups of 1 to 5 rows, priors Normal(0, 2) and Normal(0, 0.5), HalfNormal(1).
The second comparison, of a fifth as many data sets, is of y ~ x + (1 | g) and y ~ x + (1 + x || g).
"""

from __future__ import annotations

import argparse
from itertools import pairwise

import numpy as np
import pandas as pd

import hierlmm as hl

PRIORS = {"intercept": hl.Normal(0, 2), "sd_b": hl.HalfNormal(1), "sigma": hl.HalfNormal(1)}
PAIRS = {
    "a fixed effect": ("y ~ 1 + (1 | g)", "y ~ x + (1 | g)"),
    "a random slope": ("y ~ x + (1 | g)", "y ~ x + (1 + x || g)"),
}


def drawn(formula: str, rng: np.random.Generator) -> pd.DataFrame:
    """A data set of a model with parameters from its priors."""
    sizes = rng.integers(1, 6, 12)
    sizes[:6] = 5
    g = np.repeat(np.arange(12), sizes)
    x = rng.normal(size=len(g))
    y = 2.0 * rng.normal() + abs(rng.normal()) * rng.normal(size=12)[g] + abs(rng.normal()) * rng.normal(size=len(g))
    if "~ x" in formula:
        y = y + 0.5 * rng.normal() * (x - x.mean())
    if "||" in formula:
        y = y + abs(rng.normal()) * rng.normal(size=12)[g] * x
    return pd.DataFrame({"y": y, "x": x, "g": g})


def main() -> None:
    """Print the shares by bins of the probability."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--simulations", type=int, default=500)
    simulations = parser.parse_args().simulations
    for name, formulas in PAIRS.items():
        simulations = simulations if name == "a fixed effect" else simulations // 5
        rng, probability, truth = np.random.default_rng(1), [], []
        for _ in range(simulations):
            which = int(rng.random() < 0.5)
            frame = drawn(formulas[which], rng)
            own = [dict(PRIORS), dict(PRIORS)]
            for formula, priors in zip(formulas, own, strict=True):
                if "~ x" in formula:
                    priors["beta"] = hl.Normal(0, 0.5)
            models = [
                hl.TwoLevelModel.from_formula(formula, frame, priors=hl.Priors(**priors))
                for formula, priors in zip(formulas, own, strict=True)
            ]
            probability.append(1.0 - hl.bayes_factor(*models).probability)
            truth.append(which)
        p, t = np.array(probability), np.array(truth)
        print(f"{name}, {simulations} data sets")
        edges = np.quantile(p, np.linspace(0, 1, 6))
        for low, high in pairwise(edges):
            inside = (p >= low) & ((p < high) | (high == edges[-1]))
            error = np.sqrt(np.mean(p[inside] * (1 - p[inside])) / inside.sum())
            print(
                f"  probability {low:.3f} to {high:.3f}: mean {p[inside].mean():.3f}, share {t[inside].mean():.3f} "
                f"(± {2 * error:.3f}, {inside.sum()} sets)"
            )
        z = (t - p).sum() / np.sqrt((p * (1 - p)).sum())
        print(f"  all: mean probability {p.mean():.3f}, share {t.mean():.3f}, z = {z:.2f}")


if __name__ == "__main__":
    main()
