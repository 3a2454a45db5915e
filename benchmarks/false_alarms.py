"""How often a page of checks, and every check of it, shouts at data that the fitted model has made.

    .venv/bin/python benchmarks/false_alarms.py [data sets of a design] [design]

Every design draws data from a model and fits this very model. Printed are the shares of data sets (percent) in which a
check calls for action, or for a look, and the shares of pages with at least one of these; then the share of p-values at
most 0.05 of each check alone, before the correction for the page.
"""

import sys
import time
import warnings

import numpy as np
import pandas as pd

import hierlmm as hl


def people(n: int, rows: int, rng: np.random.Generator) -> pd.DataFrame:
    """Subjects with two level-2 covariates, measured at common times."""
    frame = pd.DataFrame({"id": np.repeat(np.arange(n), rows), "t": np.tile(np.arange(float(rows)), n)})
    frame["arm"] = np.where(frame["id"] % 2, "drug", "placebo")
    frame["age"] = rng.normal(50.0, 10.0, n)[frame["id"]]
    return frame


def slopes(rng: np.random.Generator, n: int = 40, rows: int = 6) -> hl.LikelihoodFit:
    """Random intercepts and slopes."""
    frame = people(n, rows, rng)
    b = rng.multivariate_normal([0, 0], [[1.0, 0.1], [0.1, 0.2]], n)[frame["id"]]
    frame["y"] = (
        1 + 0.5 * frame["t"] + 0.02 * frame["age"] + b[:, 0] + b[:, 1] * frame["t"] + rng.normal(size=len(frame))
    )
    return hl.TwoLevelModel.from_formula("y ~ t * arm + age + (t | id)", frame).fit_reml()


def few(rng: np.random.Generator) -> hl.LikelihoodFit:
    """Twelve subjects, random intercepts."""
    frame = people(12, 5, rng)
    frame["y"] = frame["t"] + rng.normal(size=12)[frame["id"]] + rng.normal(size=len(frame))
    return hl.TwoLevelModel.from_formula("y ~ t * arm + (1 | id)", frame).fit_reml()


def irregular(rng: np.random.Generator) -> hl.LikelihoodFit:
    """A hundred subjects with 1 to 8 rows at times of their own."""
    sizes = rng.integers(1, 9, 100)
    frame = pd.DataFrame({"id": np.repeat(np.arange(100), sizes), "t": rng.uniform(0, 5, sizes.sum())})
    frame["sex"] = np.where(frame["id"] % 3, "f", "m")
    b = rng.normal(size=(100, 2))[frame["id"]] * [1.0, 0.4]
    frame["y"] = frame["t"] + b[:, 0] + b[:, 1] * frame["t"] + rng.normal(size=len(frame))
    return hl.TwoLevelModel.from_formula("y ~ t + sex + (t | id)", frame).fit_reml()


def serial(rng: np.random.Generator) -> hl.LikelihoodFit:
    """AR(1) residuals of unequal variance beside random intercepts, by ML."""
    frame = people(40, 6, rng)
    lag = np.abs(np.subtract.outer(range(6), range(6)))
    errors = (rng.standard_normal((40, 6)) @ np.linalg.cholesky(0.5**lag).T).ravel()
    errors = errors * np.where(frame["arm"] == "drug", 1.6, 1.0)
    frame["y"] = frame["t"] + 1.5 * rng.normal(size=40)[frame["id"]] + errors
    model = hl.TwoLevelModel.from_formula(
        "y ~ t * arm + (1 | id)", frame, residual=hl.AR1("t"), residual_variance=hl.VarIdent("arm")
    )
    return model.fit_ml()


def marginal(rng: np.random.Generator) -> hl.LikelihoodFit:
    """A marginal model with unstructured residuals."""
    frame = people(60, 4, rng)
    root = np.linalg.cholesky(np.array([[4, 2, 1, 1], [2, 5, 2, 2], [1, 2, 5, 3], [1, 2, 3, 7.0]]))
    frame["y"] = frame["t"] + (rng.standard_normal((60, 4)) @ root.T).ravel()
    correlation = hl.UnstructuredHeterogeneous("t")
    return hl.MarginalModel("y ~ t * arm + age", correlation=correlation, subject="id", data=frame).fit_reml()


def counts(rng: np.random.Generator) -> hl.GeneralisedFit:
    """Poisson counts with random intercepts, by ML."""
    frame = people(50, 5, rng)
    eta = 0.5 + 0.1 * frame["t"] + 0.6 * rng.normal(size=50)[frame["id"]]
    frame["n"] = rng.poisson(np.exp(eta))
    return hl.TwoLevelModel.from_formula("n ~ t * arm + (1 | id)", frame, family="poisson").fit_ml()


def stayed(frame: pd.DataFrame, rng: np.random.Generator, level: float, slope: float) -> pd.DataFrame:
    """Rows up to the first after which a subject drops out, more likely the higher its response was (MAR)."""
    leaves = pd.Series(rng.random(len(frame)) < 1 / (1 + np.exp(level + slope * frame["y"])), index=frame.index)
    gone = leaves.groupby(frame["id"]).cumsum() - leaves
    return frame[gone == 0]


def marginal_dropout(rng: np.random.Generator) -> hl.LikelihoodFit:
    """150 subjects at up to 5 visits, unstructured, who drop out depending on their last response."""
    frame = people(150, 5, rng)
    sd, lag = np.array([4.0, 4.5, 5.0, 5.5, 6.0]), np.abs(np.subtract.outer(range(5), range(5)))
    frame["y"] = rng.multivariate_normal(np.zeros(5), np.outer(sd, sd) * 0.7**lag, 150).ravel()
    frame["y"] += frame["t"] * np.where(frame["arm"] == "drug", 0.8, 0.3)
    frame["visit"] = "V" + frame["t"].astype(int).astype(str)
    correlation = hl.UnstructuredHeterogeneous("visit")
    model = hl.MarginalModel(
        "y ~ arm * visit", correlation=correlation, subject="id", data=stayed(frame, rng, 1.8, 0.3)
    )
    return model.fit_reml()


def slopes_dropout(rng: np.random.Generator) -> hl.LikelihoodFit:
    """100 subjects, up to 6 rows, random slopes, who drop out depending on their last response."""
    frame = people(100, 6, rng)
    b = rng.normal(size=(100, 2))[frame["id"]] * [2.0, 0.6]
    frame["y"] = 0.5 * frame["t"] + b[:, 0] + b[:, 1] * frame["t"] + rng.normal(size=len(frame))
    return hl.TwoLevelModel.from_formula("y ~ t * arm + age + (t | id)", stayed(frame, rng, 1.2, 0.6)).fit_reml()


DESIGNS = {f.__name__: f for f in (slopes, few, irregular, serial, marginal, counts, marginal_dropout, slopes_dropout)}


def main(n: int, names: list[str]) -> None:
    """Print the table of every design."""
    for name in names:
        start, found = time.perf_counter(), []
        for k in range(n):
            fit = DESIGNS[name](np.random.default_rng([7, k]))
            found.append(fit.check(seed=k).table.drop(columns="seen").assign(data=k))
        table = pd.concat(found)
        pages = table.groupby("data")["severity"]
        act, look = (100 * pages.agg(lambda s, w=which: (s == w).any()).mean() for which in ("act", "look"))
        print(f"\n{name}: {DESIGNS[name].__doc__} {n} data sets, {time.perf_counter() - start:.0f} s")
        print(f"pages with something to act on {act:.1f} %, to look at {look:.1f} %")
        by = table.groupby(level=0)
        shown = pd.DataFrame(
            {
                "act": 100 * by["severity"].agg(lambda s: (s == "act").mean()),
                "look": 100 * by["severity"].agg(lambda s: (s == "look").mean()),
                "p <= 0.05": 100 * by["p"].agg(lambda p: (p <= 0.05).mean() if p.notna().any() else np.nan),
            }
        )
        print(shown.round(1).to_string())


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200, sys.argv[2:] or list(DESIGNS))
