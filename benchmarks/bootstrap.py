"""Refits a second, and how often intervals hold the truth.

.venv/bin/python benchmarks/bootstrap.py              1,000 parametric refits of sleepstudy, and others
.venv/bin/python benchmarks/bootstrap.py --missed     refits against a search for all minima, of the same data
.venv/bin/python benchmarks/bootstrap.py --coverage   Wald, profile and bootstrap intervals of simulated studies
"""

from __future__ import annotations

import argparse
import time
import warnings

import numpy as np
import pandas as pd

import hierlmm as hl
from hierlmm.inference.refits import Refitter, simulator
from hierlmm.likelihood.estimate import maximise_design

MODELS = {
    "sleepstudy, intercept and slope": ("sleepstudy", "reaction ~ days + (days | subject)", {}),
    "dental, intercept and slope": ("dental", "distance ~ sex * time + (1 + time | subject)", {}),
    "dental, two optima": ("dental", "distance ~ sex + (0 + age | subject)", {}),
    "dental, AR(1)": ("dental", "distance ~ sex * time + (1 | subject)", {"residual": hl.AR1()}),
    "dental, exponential": ("dental", "distance ~ sex * time + (1 | subject)", {"residual": hl.Exponential("time")}),
    "dental, variance by sex": (
        "dental",
        "distance ~ sex * time + (1 + time | subject)",
        {"residual_variance": hl.VarIdent("sex")},
    ),
}


def fits() -> dict[str, hl.LikelihoodFit]:
    return {
        name: hl.TwoLevelModel.from_formula(formula, hl.load_dataset(data), **more).fit_reml()
        for name, (data, formula, more) in MODELS.items()
    }


def speed(n: int) -> None:
    print(f"{'model':34} {'kind':11} {'cores':>5} {'seconds':>8} {'failed':>6}")
    for name, fit in fits().items():
        for kind in ("parametric", "subject"):
            fit.bootstrap(2, kind, seed=1, progressbar=False)
            for cores in (1, 2):
                start = time.perf_counter()
                found = fit.bootstrap(n, kind, seed=1, cores=cores, progressbar=False)
                seconds = time.perf_counter() - start
                print(f"{name:34} {kind:11} {cores:5} {seconds:8.2f} {len(found.failures):6}", flush=True)


def missed(n: int) -> None:
    """Refits whose criterion is above that of a search from nothing by more than 1e-4."""
    for name, fit in fits().items():
        draw, refitter, rng = simulator(fit), Refitter(fit), np.random.default_rng(1)
        above = []
        for _ in range(n):
            y = draw(rng)
            thorough = maximise_design(fit.design.with_response(y), reml=True).optimum.value
            above.append(refitter.to_response(y).criterion - thorough)
        print(
            f"{name:34} {np.sum(np.array(above) > 1e-4)} of {n} missed, largest difference {max(above):.1e}", flush=True
        )


def coverage(n: int, refits: int) -> None:
    """Share of 95 % intervals that hold the truth: 24 subjects, 5 occasions."""
    truth = {"Intercept": 5.0, "time": 0.5, "sd(Intercept)": 1.0, "sd(time)": 0.4, "sigma": 1.0}
    truth["corr(Intercept, time)"] = 0.3
    D = [[1.0, 0.12], [0.12, 0.16]]
    held: dict[str, dict[str, list[bool]]] = {}
    for k in range(n):
        data = hl.simulate(
            beta={"Intercept": 5.0, "time": 0.5}, D=D, sigma=1.0, random=["Intercept", "time"],
            n_subjects=24, times=np.arange(5.0), seed=k,
        )  # fmt: skip
        fit = hl.TwoLevelModel.from_formula("y ~ time + (1 + time | subject)", data).fit_reml()
        tables = {"Wald": _both(fit.summary(), fit.variance_components())}
        tables["profile"] = _both(fit.summary(method="profile"), fit.variance_components(method="profile"))
        parametric = fit.bootstrap(refits, seed=k, progressbar=False)
        subject = fit.bootstrap(refits, "subject", seed=k, progressbar=False)
        tables["parametric, percentile"] = parametric.table()
        tables["parametric, basic"] = parametric.table(method="basic")
        tables["subject, percentile"], tables["subject, BCa"] = subject.table(), subject.table(method="bca")
        for label, table in tables.items():
            for name, value in truth.items():
                low, high = table.loc[name, ["lower", "upper"]]
                inside = bool(low <= value <= high) if np.isfinite(low) else np.nan
                held.setdefault(label, {}).setdefault(name, []).append(inside)
    print(f"{n} studies, Monte-Carlo error of a share of 95 %: {100 * np.sqrt(0.95 * 0.05 / n):.1f} %")
    print(" " * 24 + "".join(f"{name:>24}" for name in truth))
    for label, columns in held.items():
        print(f"{label:24}" + "".join(f"{100 * np.nanmean(columns[name]):24.1f}" for name in truth))


def one_way(n: int) -> None:
    """Share of 95 % intervals that hold the ICC of balanced one-way designs, and their mean length."""
    from scipy.stats import f

    J, size = 15, 5
    for rho in (0.1, 0.3, 0.6):
        rng, held = np.random.default_rng(1), {"exact (F)": [], "delta": [], "profile": []}
        for _ in range(n):
            y = np.sqrt(rho) * rng.normal(size=(J, 1)) + np.sqrt(1.0 - rho) * rng.normal(size=(J, size))
            A, E = size * y.mean(axis=1).var(ddof=1), y.var(axis=1, ddof=1).mean()
            F = (A / E) / f.ppf([0.975, 0.025], J - 1, J * (size - 1))
            data = pd.DataFrame({"y": y.ravel(), "subject": np.repeat(np.arange(J), size)})
            fit = hl.TwoLevelModel.from_formula("y ~ 1 + (1 | subject)", data).fit_reml()
            held["exact (F)"].append(np.maximum((F - 1.0) / (F + size - 1.0), 0.0))
            for method in ("delta", "profile"):
                held[method].append(fit.intraclass_correlation(method=method).table[["lower", "upper"]].to_numpy()[0])
        for name, ends in held.items():
            low, high = np.array(ends).T
            known = np.isfinite(low)
            inside = np.mean((low <= rho) & (rho <= high), where=known)
            text = f"holds it {100 * inside:.1f} %, mean length {np.mean(high - low, where=known):.3f}"
            print(f"ICC {rho}: {name:10} {text}, none in {np.mean(~known):.1%} of {n}", flush=True)


def _both(fixed, components):
    return pd.concat([fixed[["lower", "upper"]], components[["lower", "upper"]]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--missed", action="store_true")
    parser.add_argument("--icc", action="store_true")
    parser.add_argument("--coverage", action="store_true")
    parser.add_argument("-n", type=int, default=None)
    parser.add_argument("--refits", type=int, default=400)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    if asked.missed:
        missed(asked.n or 200)
    elif asked.icc:
        one_way(asked.n or 1000)
    elif asked.coverage:
        coverage(asked.n or 400, asked.refits)
    else:
        speed(asked.n or 1000)


if __name__ == "__main__":
    main()
