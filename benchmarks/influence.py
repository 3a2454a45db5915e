"""Fits without one subject from cross-products, beside fits anew: how near, and how fast.

    .venv/bin/python benchmarks/influence.py

Of each data set: the largest error of a coefficient, standard deviation, correlation or residual parameter over the
subjects, in units of the largest change of the same number by leaving a subject out. Then 1,000 subjects with 4 to 8
rows each at irregular times, with independent residuals and with AR(1); fits anew are timed on five of them.
"""

import time
import warnings

import numpy as np
import pandas as pd

import hierlmm as hl


def numbers(fit: hl.LikelihoodFit) -> np.ndarray:
    """β, standard deviations, residual parameters and σ."""
    solution = fit.solution
    return np.array([*fit.beta, *np.sqrt(np.diag(solution.D)), *solution.residual_parameters.values(), fit.sigma])


def accuracy() -> None:
    """Print the errors on data sets."""
    sleep, dental = hl.load_dataset("sleepstudy"), hl.load_dataset("dental")

    def two_level(formula, data, **options):
        return lambda rows: hl.TwoLevelModel.from_formula(formula, data[rows(data)], **options).fit_reml()

    unstructured = {"correlation": hl.Unstructured("time"), "subject": "subject"}
    cases = {
        "sleepstudy, slopes": (two_level("reaction ~ days + (days | subject)", sleep), sleep),
        "dental, slopes": (two_level("distance ~ sex * time + (time | subject)", dental), dental),
        "dental, variances by sex": (
            two_level("distance ~ sex * time + (1 | subject)", dental, residual_variance=hl.VarIdent("sex")),
            dental,
        ),
        "dental, unstructured": (
            lambda rows: hl.MarginalModel(
                "distance ~ sex * time", data=dental[rows(dental)], **unstructured
            ).fit_reml(),
            dental,
        ),
    }
    for name, (fitted, _) in cases.items():
        full = fitted(lambda d: np.ones(len(d), dtype=bool))
        found = full.influence()
        own = pd.concat([found.beta, found.components], axis=1)
        sds = [c for c in own if str(c).startswith("sd(")]
        rest = list(full.solution.residual_parameters)
        own = own[[*full.beta.index, *sds, *rest, "sigma"]].to_numpy()
        anew = np.array([numbers(fitted(lambda d, s=s: d["subject"] != s)) for s in full.design.subjects])
        error = np.abs(own - anew).max(axis=0) / np.abs(anew - numbers(full)).max(axis=0)
        print(f"{name:28} {len(anew):3} subjects   largest error {100 * error.max():.2f} % of the largest change")


def speed() -> None:
    """Print the times for 1,000 subjects."""
    rng = np.random.default_rng(1)
    sizes = rng.integers(4, 9, 1000)
    subject = np.repeat(np.arange(1000), sizes)
    frame = pd.DataFrame({"subject": subject, "t": rng.uniform(0, 5, len(subject))}).sort_values(["subject", "t"])
    frame["x"] = rng.normal(size=1000)[subject]
    b = rng.multivariate_normal([0, 0], [[1, 0.2], [0.2, 0.3]], 1000)[subject]
    frame["y"] = 1 + 0.5 * frame["t"] + 0.3 * frame["x"] + b[:, 0] + b[:, 1] * frame["t"] + rng.normal(size=len(frame))
    for name, formula, options in (
        ("independent", "y ~ t * x + (t | subject)", {}),
        ("AR(1)", "y ~ t * x + (1 | subject)", {"residual": hl.AR1()}),
    ):
        fit = hl.TwoLevelModel.from_formula(formula, frame, **options).fit_reml()
        seconds = {}
        for theta in ("fixed", "updated"):
            fit.influence(theta)
            start = time.perf_counter()
            fit.influence(theta)
            seconds[theta] = time.perf_counter() - start
        start = time.perf_counter()
        for left_out in range(5):
            hl.TwoLevelModel.from_formula(formula, frame[frame["subject"] != left_out], **options).fit_reml()
        anew = (time.perf_counter() - start) * 200
        print(
            f"{name:12} fixed {seconds['fixed']:.3f} s   updated {seconds['updated']:.2f} s   fits anew {anew:.0f} s"
            f"   ({anew / seconds['updated']:.0f} times as long)"
        )


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    accuracy()
    speed()
