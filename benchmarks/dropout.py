"""How often `hl.check_dropout` sees that dropping out depends on the last response, and what that does to estimates.

    .venv/bin/python benchmarks/dropout.py [--simulations 2000]

150 subjects in two arms with four visits, y = 10 + t + b + ε, sd(b) = 1, sd(ε) = 0.5. The log odds of not coming back
are -1.4 + c (last response - its mean): c = 0 is missing completely at random, c < 0 at random given the past. In the
third setting they depend on the response that is then missing (not at random), which no test can tell from the second.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd

import hierlmm as hl


def trial(rng: np.random.Generator, effect: float, *, unseen: bool, n: int = 150, K: int = 4) -> pd.DataFrame:
    """One data set."""
    y = 10.0 + np.arange(K) + rng.normal(size=(n, 1)) + 0.5 * rng.normal(size=(n, K))
    last = np.full(n, K - 1)
    for k in range(1, K):
        at = k if unseen else k - 1
        gone = (last == K - 1) & (rng.random(n) < 1.0 / (1.0 + np.exp(1.4 - effect * (y[:, at] - 10.0 - at))))
        last[gone] = k - 1
    frame = pd.DataFrame({"id": np.repeat(np.arange(n), K), "t": np.tile(np.arange(K), n), "y": y.ravel()})
    frame["arm"] = np.where(frame["id"] % 2, "drug", "placebo")
    return frame[frame["t"].to_numpy() <= np.repeat(last, K)]


def main() -> None:
    """Print rejection rates and mean slopes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--simulations", type=int, default=2000)
    simulations = parser.parse_args().simulations
    settings = {"MCAR": (0.0, False), "MAR": (-0.4, False), "strong MAR": (-1.0, False), "MNAR": (-1.0, True)}
    for name, (effect, unseen) in settings.items():
        rng = np.random.default_rng(1)
        p, differ, slopes = [], [], []
        for s in range(simulations):
            frame = trial(rng, effect, unseen=unseen)
            found = hl.check_dropout(frame, response="y", subject="id", time="t", by="arm")
            p.append(found.p)
            differ.append(found.table["p"].iloc[-1])
            if s < simulations // 10:
                model = hl.TwoLevelModel.from_formula("y ~ t + (1 | id)", frame)
                slopes.append([model.fit_reml().beta["t"], model.fit_gee("independence").beta["t"]])
        rate, error = np.mean(np.array(p) < 0.05), np.sqrt(0.05 * 0.95 / simulations)
        reml, gee = np.mean(slopes, axis=0)
        print(
            f"{name}: p < 0.05 in {100 * rate:.1f} % (± {200 * error:.1f} at 5 %), arms differ in "
            f"{100 * np.mean(np.array(differ) < 0.05):.1f} %; slope (1 in truth) REML {reml:.3f}, GEE {gee:.3f}"
        )


if __name__ == "__main__":
    main()
