"""Predictions: coverage of 95 % intervals in simulated studies, and the time of a million rows.

    make bench BENCH=prediction  or  .venv/bin/python benchmarks/prediction.py [--reml 400] [--nuts 100] [--subjects 15]

Each study has 4 measurements of every subject, at times 0 to 3. A new subject's measurements at times 0 to 6 are
predicted before any of its own is seen, and after its first 1, 2 and 3. Truth and interval being known, each study's
coverage is computed exactly, not by counting; in brackets the largest Monte-Carlo standard error of a row.
"""

from __future__ import annotations

import argparse
import tracemalloc
import warnings
from functools import partial

import numpy as np
import pandas as pd
from common import growth, timed
from scipy.stats import norm

import hierlmm as hl
from hierlmm.errors import FitWarning

TIMES = np.arange(7.0)
X = np.column_stack([np.ones(7), TIMES])
BETA = np.array([10.0, 1.0])
WORLDS = {
    "intercepts, sd 1": [[1.0]],
    "intercepts and slopes, sd 1 and 0.5": [[1.0, 0.1], [0.1, 0.25]],
    "intercepts and slopes, sd 2 and 1": [[4.0, 0.0], [0.0, 1.0]],
    "hardly any, sd 0.32 and 0.14": [[0.1, 0.0], [0.0, 0.02]],
}


def study(model: hl.TwoLevelModel, D: np.ndarray, rng: np.random.Generator) -> pd.DataFrame:
    """The data of one study: new random effects and errors for the design of the model (σ = 1)."""
    design = model.design
    b = rng.standard_normal((design.n_subjects, len(D))) @ np.linalg.cholesky(D).T
    line = design.X @ BETA + np.einsum("ij,ij->i", design.Z, b[design.subject_index])
    return design.frame.assign(y=line + rng.standard_normal(design.n_obs))


def newcomer(D: np.ndarray, h: int, rng: np.random.Generator) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """A new subject's first h measurements, and the true mean and SD of a measurement given them."""
    Z = X[:, : len(D)]
    y = X[:h] @ BETA + Z[:h] @ (np.linalg.cholesky(D) @ rng.standard_normal(len(D))) + rng.standard_normal(h)
    gain = Z @ D @ Z[:h].T @ np.linalg.inv(Z[:h] @ D @ Z[:h].T + np.eye(h))
    variance = np.einsum("ia,ab,ib->i", Z, D, Z) - np.einsum("ij,ij->i", gain, Z @ D @ Z[:h].T)
    return pd.DataFrame({"time": TIMES[:h], "y": y}), X @ BETA + gain @ (y - X[:h] @ BETA), np.sqrt(variance + 1.0)


def coverage(table: pd.DataFrame, mean: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """Probability of a measurement between the limits."""
    return np.asarray(norm.cdf((table["upper"] - mean) / sd) - norm.cdf((table["lower"] - mean) / sd))


def simulate(estimator: str, n_subjects: int, D: np.ndarray, n: int) -> dict[str, np.ndarray]:
    """Coverage by what is known of the new subject: (n, 7), times that were measured not a number."""
    random = ["Intercept", "time"][: len(D)]
    data = hl.simulate(
        beta={"Intercept": 10.0, "time": 1.0},
        D=D,
        sigma=1.0,
        random=random,
        n_subjects=n_subjects,
        times=np.arange(4.0),
        seed=0,
    )
    formula = f"y ~ time + (1{' + time' if len(D) > 1 else ''} | subject)"
    base, rng = hl.TwoLevelModel.from_formula(formula, data), np.random.default_rng(1)
    found: dict[str, list[np.ndarray]] = {}
    for seed in range(n):
        model = hl.TwoLevelModel.from_formula(formula, study(base, D, rng))
        if estimator == "REML":
            fit = model.fit_reml()
        else:
            fit = model.fit(draws=500, tune=500, seed=seed, progressbar=False, random_effects="none")
        sd = np.sqrt(np.einsum("ia,ab,ib->i", X[:, : len(D)], D, X[:, : len(D)]) + 1.0)
        table = fit.predict(pd.DataFrame({"time": TIMES}), "new_subject", "prediction")
        found.setdefault("nothing", []).append(coverage(table, X @ BETA, sd))
        if estimator == "REML":
            half = norm.ppf(0.975) * table["se"]
            plain = table.assign(lower=table["estimate"] - half, upper=table["estimate"] + half)
            found.setdefault("nothing, normal quantiles", []).append(coverage(plain, X @ BETA, sd))
        for h in (1, 2, 3):
            history, mean, sd = newcomer(D, h, rng)
            table = fit.predict_subject(history, TIMES[h:], interval="prediction")
            covered = np.append(np.full(h, np.nan), coverage(table, mean[h:], sd[h:]))
            found.setdefault(f"{h} measurement{'s' if h > 1 else ''}", []).append(covered)
    return {known: np.array(rows) for known, rows in found.items()}


def million_rows() -> None:
    """Time of a million rows at each level."""
    data = growth(10_000, irregular=True)
    fit = hl.TwoLevelModel.from_formula("y ~ time + (1 + time | subject)", data).fit_reml()
    rows = pd.concat([data] * 10, ignore_index=True)
    print(f"== {len(rows):,} rows from a REML fit of {fit.n_subjects:,} subjects, seconds ==")
    for level in ("population", "marginal", "new_subject", "subject"):
        fit.predict(rows.head(30_000), level, "prediction")
        seconds = [timed(lambda level=level, i=i: fit.predict(rows, level, i))[0] for i in (None, "prediction")]
        print(f"{level:12s} line {seconds[0]:5.2f}   with prediction interval {seconds[1]:5.2f}")
    posterior = hl.TwoLevelModel.from_formula("y ~ time + (1 + time | subject)", growth(200, irregular=True)).fit(
        seed=1, progressbar=False
    )
    small = rows.head(100_000)
    tracemalloc.start()
    seconds, _ = timed(lambda: posterior.predict(small, "new_subject", "prediction"))
    peak = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    print(f"posterior of 4000 draws, {len(small):,} rows: {seconds:.1f} s, {peak:.0f} MB allocated at the peak\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="Coverage and speed of predictions.")
    parser.add_argument("--reml", type=int, default=400)
    parser.add_argument("--nuts", type=int, default=100)
    parser.add_argument("--subjects", type=int, nargs="*", default=[15])
    options = parser.parse_args()
    warnings.simplefilter("ignore", FitWarning)
    million_rows()
    for estimator, n in (("REML", options.reml), ("NUTS", options.nuts)):
        for n_subjects in options.subjects if n else []:
            for title, D in WORLDS.items():
                seconds, found = timed(partial(simulate, estimator, n_subjects, np.array(D), n))
                print(f"== {estimator}, {n_subjects} subjects; {title}: {n} studies, {seconds:.0f} s ==")
                print("known of the new subject      " + "".join(f"  t = {t:.0f}" for t in TIMES))
                for known, rows in found.items():  # type: ignore[attr-defined]
                    cells = "".join("      –" if np.isnan(v) else f"{v:7.3f}" for v in rows.mean(axis=0))
                    print(f"{known:30s}{cells}  ({np.nanmax(rows.std(axis=0)) / np.sqrt(n):.3f})")
                print(flush=True)


if __name__ == "__main__":
    main()
