"""Are the p-values of predictive checks uniform under the model? 500 simulated data sets in each of four studies.

    .venv/bin/python benchmarks/predictive_checks.py [--n 500] [--study fixed] [--level mixed]

``fixed``: 30 subjects with 3 to 6 rows, random intercepts and slopes, true parameters fixed, default priors.
``prior``: 12 subjects with 5 rows, true parameters drawn from the priors of the fit.
``counts``: 20 subjects with 5 Poisson counts, random intercepts, true parameters fixed, default priors.
``serial``: ``fixed`` with errors of serial correlation 0.5 that the fitted model does not have: what is found?

Prints, for every level and statistic, how often p < 0.05; the same for the usual posterior predictive p-value
(two-sided); the p-value of uniformity (Kolmogorov-Smirnov); and the mean absorbed share. Beside the test of the PIT
values stands the Kolmogorov-Smirnov test of the PIT values of the same replications, taken as independent.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy.stats import binom, kstest

import hierlmm as hl
from hierlmm.bayes.replications import LEVELS

FORMULA = "y ~ time + (time | subject)"
COUNTS = "y ~ time + (1 | subject)"
STUDIES = ("fixed", "prior", "counts", "serial")
OPTIONS = {"draws": 300, "tune": 300, "chains": 2, "progressbar": False}
PRIORS = hl.Priors(
    intercept=hl.Normal(55.0, 10.0),
    beta=hl.Normal(0.0, 3.0),
    sd_b={"Intercept": hl.HalfNormal(5.0), "time": hl.HalfNormal(2.0)},
    corr_b=hl.LKJ(2.0),
    sigma=hl.HalfNormal(5.0),
)
TRUTH = {"beta": {"Intercept": 50.0, "time": 2.0}, "D": [[16.0, 1.0], [1.0, 1.5]], "sigma": 3.0}


def fixed(n: int) -> Iterator[tuple[pd.DataFrame, hl.Priors | None]]:
    """Data of fixed parameters."""
    for seed in range(n):
        yield hl.simulate(**TRUTH, n_subjects=30, times=range(6), n_times=(3, 6), seed=seed), None


def counts(n: int) -> Iterator[tuple[pd.DataFrame, hl.Priors | None]]:
    """Poisson counts of fixed parameters, with a mean of about two."""
    for seed in range(n):
        truth = {"beta": {"Intercept": 0.3, "time": 0.1}, "D": 0.4, "sigma": None, "family": "poisson"}
        yield hl.simulate(**truth, n_subjects=20, times=range(5), seed=seed), None


def serial(n: int) -> Iterator[tuple[pd.DataFrame, hl.Priors | None]]:
    """The same subjects, errors with serial correlation 0.5 in place of independent ones."""
    for seed in range(n):
        data, truth = hl.simulate(**TRUTH, n_subjects=30, times=range(6), n_times=(3, 6), seed=seed, return_truth=True)
        rng = np.random.default_rng(10_000 + seed)
        gap = np.abs(np.subtract.outer(data["time"].to_numpy(), data["time"].to_numpy()))
        same = np.equal.outer(data["subject"].to_numpy(), data["subject"].to_numpy())
        root = np.linalg.cholesky(same * 0.5**gap)
        mean = np.asarray(truth.mu)
        yield data.assign(y=mean + TRUTH["sigma"] * root @ rng.standard_normal(len(data))), None


def prior(n: int) -> Iterator[tuple[pd.DataFrame, hl.Priors | None]]:
    """Parameters and data from the priors of the fit."""
    data = hl.simulate(**TRUTH, n_subjects=12, times=range(5), seed=0)
    model = hl.TwoLevelModel.from_formula(FORMULA, data, priors=PRIORS)
    drawn = model.prior_predictive(draws=n, seed=1)["prior_predictive"]["y"].to_numpy()[0]
    for y in drawn:
        yield data.assign(y=y), PRIORS


def one(data: pd.DataFrame, priors: hl.Priors | None, level: str, fit: hl.PosteriorFit) -> dict[str, tuple[float, ...]]:
    """p, usual p and absorbed share of every statistic and of the PIT curve."""
    check = fit.ppc(level)  # type: ignore[arg-type]
    above = (check.replicated >= check.table["observed"]).mean()
    usual = 2.0 * np.minimum(above, 1.0 - above)
    found = {name: (row["p"], usual[name], row["absorbed"]) for name, row in check.table.iterrows()}
    y = fit.posterior_predictive(50, seed=1, level=level)["posterior_predictive"]["y"].to_numpy()  # type: ignore[arg-type]
    pit = (y.reshape(-1, y.shape[-1]) < data["y"].to_numpy()).mean(axis=0)
    return found | {"PIT": (check.pit_p, float(kstest(np.clip(pit, 0, 1), "uniform").pvalue), np.nan)}


def study(name: str, n: int, levels: list[str]) -> None:
    """Print the table of one study."""
    made = {"fixed": fixed, "prior": prior, "counts": counts, "serial": serial}[name](n)
    formula, family = (COUNTS, "poisson") if name == "counts" else (FORMULA, "gaussian")
    start = time.perf_counter()
    rows: dict[tuple[str, str], list[tuple[float, ...]]] = {}
    for seed, (data, priors) in enumerate(made):
        fit = hl.TwoLevelModel.from_formula(formula, data, priors=priors, family=family).fit(seed=seed, **OPTIONS)
        for level in levels:
            for statistic, values in one(data, priors, level, fit).items():
                rows.setdefault((level, statistic), []).append(values)
        if (seed + 1) % 100 == 0 or seed + 1 == n:
            report(f"{name}: {seed + 1} data sets, {time.perf_counter() - start:.0f} s", rows)


def report(title: str, rows: dict[tuple[str, str], list[tuple[float, ...]]]) -> None:
    """Print the table of what has been simulated so far."""
    n = len(next(iter(rows.values())))
    low, high = binom.ppf([0.025, 0.975], n, 0.05) / n
    print(f"== {title}; by chance {low:.3f} to {high:.3f} ==")
    print(f"{'level':12}{'statistic':12}{'p<0.05':>8}{'usual':>8}{'uniform':>9}{'absorbed':>10}")
    for (level, statistic), values in rows.items():
        p, usual, absorbed = np.array(values).T
        uniform = kstest(p, "uniform").pvalue
        print(
            f"{level:12}{statistic:12}{np.mean(p < 0.05):8.3f}{np.mean(usual < 0.05):8.3f}{uniform:9.3f}"
            f"{np.mean(absorbed):10.2f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="Are p-values of predictive checks uniform under the model?")
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--study", choices=STUDIES, nargs="*", default=list(STUDIES))
    parser.add_argument("--level", choices=LEVELS, nargs="*", default=list(LEVELS))
    options = parser.parse_args()
    warnings.simplefilter("ignore", hl.FitWarning)  # short chains say that they are short
    for name in options.study:
        study(name, options.n, options.level)


if __name__ == "__main__":
    main()
