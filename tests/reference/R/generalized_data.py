"""Write tests/data/generalized.csv: a two-level design with a response of each family, drawn from its model.

python generalized_data.py FILE

40 groups of 4 to 8 rows; `time` varies within, `treat` between groups. Each response has random intercepts and slopes
of its own. Numbers are rounded before they are written, so that every reader has the same ones. The file is frozen.
"""

import sys

import numpy as np
import pandas as pd
from scipy import stats

SEED = 20261129
GROUPS = 40


def predictor(rng, data: pd.DataFrame, beta, sd, corr: float) -> np.ndarray:
    """Linear predictor with random intercepts and slopes of a response of its own."""
    D = np.array([[sd[0] ** 2, corr * sd[0] * sd[1]], [corr * sd[0] * sd[1], sd[1] ** 2]])
    b = rng.multivariate_normal(np.zeros(2), D, size=GROUPS)[data["group"].str[1:].astype(int).to_numpy() - 1]
    treated = (data["treat"] == "b").to_numpy()
    return beta[0] + b[:, 0] + (beta[1] + b[:, 1]) * data["time"].to_numpy() + beta[2] * treated


def simulate() -> pd.DataFrame:
    rng = np.random.default_rng(SEED)
    sizes = rng.integers(4, 9, size=GROUPS)
    group = np.repeat([f"g{i:02d}" for i in range(1, GROUPS + 1)], sizes)
    data = pd.DataFrame({"group": group})
    n = len(data)
    data["time"] = np.concatenate([np.sort(rng.uniform(-1, 2, size)) for size in sizes]).round(2)
    data["treat"] = np.repeat(np.where(np.arange(GROUPS) % 2, "b", "a"), sizes)
    data["exposure"] = rng.uniform(0.5, 4, n).round(2)
    data["trials"] = rng.integers(4, 13, n)

    def eta(*arguments):
        return predictor(rng, data, *arguments)

    data["count"] = rng.poisson(np.exp(eta([0.9, 0.3, -0.4], [0.6, 0.4], -0.3)))
    data["events"] = rng.poisson(data["exposure"] * np.exp(eta([0.2, 0.25, 0.4], [0.5, 0.4], 0.2)))
    data["count_sqrt"] = rng.poisson(eta([2.6, 0.4, -0.5], [0.5, 0.3], 0.2) ** 2)
    mean = np.exp(eta([1.4, 0.3, -0.5], [0.6, 0.4], -0.2))
    data["overdispersed"] = rng.negative_binomial(2.5, 2.5 / (2.5 + mean))
    data["binary"] = rng.binomial(1, 1 / (1 + np.exp(-eta([-0.3, 0.8, 0.7], [1.2, 0.9], 0.3))))
    data["successes"] = rng.binomial(data["trials"], 1 / (1 + np.exp(-eta([-0.4, 0.5, 0.6], [0.9, 0.6], -0.3))))
    mean = np.exp(eta([1.0, 0.3, 0.5], [0.5, 0.3], 0.3))
    data["positive"] = rng.gamma(4.0, mean / 4.0).round(4)
    mean = 1 / eta([2.5, 0.4, 0.5], [0.4, 0.25], 0.2)
    data["positive_inverse"] = rng.gamma(6.0, mean / 6.0).round(4)
    mean = 1 / (1 + np.exp(-eta([-0.5, 0.4, 0.6], [0.7, 0.4], -0.2)))
    data["fraction"] = rng.beta(8 * mean, 8 * (1 - mean)).round(4)
    data["heavy"] = (eta([2.0, 0.7, -0.5], [0.9, 0.6], 0.3) + 0.6 * stats.t(4).rvs(n, random_state=rng)).round(4)
    latent = eta([0.0, 0.9, -0.6], [1.1, 0.7], 0.2) + rng.logistic(size=n)
    data["rating"] = 1 + np.digitize(latent, [-1.2, 0.3, 1.6])
    data["continuous"] = (eta([2.0, 0.7, -0.5], [0.9, 0.6], 0.3) + 0.8 * rng.normal(size=n)).round(4)
    return data


if __name__ == "__main__":
    simulate().to_csv(sys.argv[1], index=False)
