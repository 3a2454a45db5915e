"""Coverage of the bands of ``fit.implied_marginal()`` by REML.

    .venv/bin/python benchmarks/implied_marginal.py [studies]

Random intercepts and slopes, 5 occasions, 20 or 60 subjects; share of the true variances and correlations that lie in
their 95 % bands, with its Monte-Carlo error.
"""

import sys

import numpy as np
import pandas as pd

import hierlmm as hl

TIMES = np.arange(5.0)
D = np.array([[2.0, 0.3], [0.3, 0.5]])


def main(studies: int) -> None:
    """Print one line for each number of subjects."""
    rng = np.random.default_rng(4)
    Z = np.column_stack([np.ones(5), TIMES])
    V = Z @ D @ Z.T + np.eye(5)
    root, sd, above = np.linalg.cholesky(V), np.sqrt(np.diag(V)), np.triu_indices(5, 1)
    R = V / np.outer(sd, sd)
    for subjects in (20, 60):
        frame = pd.DataFrame({"id": np.repeat(np.arange(subjects), 5), "t": np.tile(TIMES, subjects)})
        hits = []
        for k in range(studies):
            frame["y"] = (rng.standard_normal((subjects, 5)) @ root.T).ravel()
            fit = hl.TwoLevelModel.from_formula("y ~ t + (1 + t | id)", frame).fit_reml()
            found = fit.implied_marginal(draws=500, seed=k)
            low, high = (found.variance[c].to_numpy() for c in ("lower", "upper"))
            r_low, r_high = found.correlation_lower.to_numpy(), found.correlation_upper.to_numpy()
            variance = np.mean((low < sd**2) & (sd**2 < high))
            hits.append((variance, np.mean(((r_low < R) & (r_high > R))[above])))
        mean, error = np.mean(hits, axis=0), np.std(hits, axis=0) / np.sqrt(studies)
        words = [
            f"{what} {m:.3f} ({e:.3f})" for what, m, e in zip(("variances", "correlations"), mean, error, strict=True)
        ]
        print(f"{subjects} subjects: {', '.join(words)}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300)
