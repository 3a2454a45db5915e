"""Draw tests/data/factor_families.csv: pupils in schools, crossed with items, a response of several families.

python factor_families_data.py FILE
"""

import sys

import numpy as np
import pandas as pd


def simulate(seed: int = 20261130) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    pupils, items, schools = 45, 8, 9
    pupil, item = np.repeat(np.arange(pupils), items), np.tile(np.arange(items), pupils)
    seen = rng.random(len(pupil)) < 0.85
    pupil, item = pupil[seen], item[seen]
    school, n = pupil % schools, int(seen.sum())
    x, treat = rng.normal(size=n).round(3), school % 2
    trials, hours = rng.integers(2, 9, n), np.exp(0.3 * rng.normal(size=n)).round(3)
    of_pupil, of_item = rng.normal(size=pupils)[pupil], rng.normal(size=(2, items))[:, item]
    of_school, slope = rng.normal(size=(2, schools))[:, school]
    line = 0.8 * of_pupil + 0.7 * of_item[0] + 0.6 * of_school + 0.5 * x + 0.4 * treat
    counts = 0.3 + 0.5 * (line + 0.6 * slope * x)
    return pd.DataFrame(
        {
            "school": [f"s{k}" for k in school],
            "pupil": [f"p{k:02}" for k in pupil],
            "item": [f"i{k}" for k in item],
            "row": np.arange(n),
            "x": x,
            "treat": treat,
            "trials": trials,
            "hours": hours,
            "correct": (rng.random(n) < 1 / (1 + np.exp(-line))).astype(int),
            "right": rng.binomial(trials, 1 / (1 + np.exp(-(line - 0.5 + 0.7 * rng.normal(size=n))))),
            "counts": rng.poisson(hours * np.exp(counts)),
            "spread": rng.negative_binomial(2.0, 2.0 / (2.0 + np.exp(counts))),
            "time": rng.gamma(4.0, np.exp(0.5 * line) / 4.0).round(4),
        }
    )


if __name__ == "__main__":
    simulate().to_csv(sys.argv[1], index=False)
