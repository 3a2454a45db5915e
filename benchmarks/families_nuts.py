"""NUTS on families against Bambi with nutpie, in one run: the same posterior, and seconds; and many subjects.

    .venv/bin/python benchmarks/families_nuts.py [--study agree speed large] [--repeats 5]

``agree``: for every family that Bambi has, 30 subjects with 6 rows, random intercept and slope without correlation,
the same priors: the largest distance of posterior means and of posterior standard deviations in Monte-Carlo standard
errors of both, over coefficients, standard deviations, dispersions and random effects. ``speed``: `esoph` (1980s
coding), Poisson, 4 × (1000 + 1000): refits in a warm process with their effective draws a second (the smallest bulk
ESS over coefficients and standard deviations), and new processes from import to summary with warm caches.
``large``: 10,000 subjects with 10 binary rows, random intercept and slope with their correlation, one fit at the
defaults.
"""

from __future__ import annotations

import argparse
import os
import statistics
import warnings
from typing import Any

import arviz as az
import numpy as np
import pandas as pd
from common import fresh_process, timed
from families import binary_rows

import hierlmm as hl
from hierlmm.bayes.bambi import fit_bambi

FORMULA = "y ~ x + (x || g)"
ESOPH = "ncases ~ ncontrols + (ncontrols || agegp)"
OURS = """
import hierlmm as hl
data = hl.load_dataset("esoph", coding="1980s")
model = hl.TwoLevelModel.from_formula("ncases ~ ncontrols + (ncontrols | agegp)", data, family="poisson")
model.fit(seed=1, progressbar=False).summary()
"""
BAMBI = """
import warnings
warnings.simplefilter("ignore")
import bambi as bmb, arviz as az, hierlmm as hl
data = hl.load_dataset("esoph", coding="1980s")
data["agegp"] = data["agegp"].astype(str)
model = bmb.Model("ncases ~ ncontrols + (ncontrols | agegp)", data, family="poisson")
tree = model.fit(draws=1000, tune=1000, chains=4, random_seed=1, inference_method="nutpie", progressbar=False)
az.summary(tree)
"""


def drawn(family: str, seed: int = 11) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Data of a family, by numpy alone, and what else the model is told."""
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(30), 6)
    x = rng.normal(size=len(g))
    b = rng.normal(size=(30, 2)) * [0.7, 0.4]
    eta = 0.3 + 0.5 * x + b[g, 0] + b[g, 1] * x
    p, mean, n = 1.0 / (1.0 + np.exp(-eta)), np.exp(eta), np.full(len(g), 8)
    y = {
        "poisson": lambda: rng.poisson(mean),
        "negative_binomial": lambda: rng.negative_binomial(2.0, 2.0 / (2.0 + mean)),
        "bernoulli": lambda: rng.binomial(1, p),
        "binomial": lambda: rng.binomial(n, p),
        "gamma": lambda: rng.gamma(3.0, mean / 3.0),
        "beta": lambda: np.clip(rng.beta(6.0 * p, 6.0 * (1.0 - p)), 1e-6, 1.0 - 1e-6),
        "student_t": lambda: eta + 0.6 * rng.standard_t(4.0, size=len(g)),
    }[family]()
    frame = pd.DataFrame({"y": y, "x": x, "g": g, "n": n})
    given = {"family": hl.families.Gamma("log") if family == "gamma" else family}
    return frame, given | ({"trials": "n"} if family == "binomial" else {})


def distance(one: Any, other: Any, names: list[str]) -> tuple[float, float]:
    """Largest distances of means and of standard deviations of two posteriors, in Monte-Carlo standard errors."""
    far = {"mean": 0.0, "sd": 0.0}
    for name in names:
        for of, measure in (("mean", np.mean), ("sd", np.std)):
            a, b = one["posterior"][name], other["posterior"][name]
            errors = [az.mcse(v, method=of).to_numpy() for v in (a, b)]
            values = [measure(v.to_numpy(), axis=(0, 1)) for v in (a, b)]
            far[of] = max(far[of], float(np.max(np.abs(values[0] - values[1]) / np.hypot(*errors))))
    return far["mean"], far["sd"]


def agree() -> None:
    print(f"{'family':<20}{'means':>8}{'SDs':>8}{'R-hat':>9}{'min ESS':>9}{'divergences':>13}")
    for family in ("poisson", "negative_binomial", "bernoulli", "binomial", "gamma", "beta", "student_t"):
        data, given = drawn(family)
        model = hl.TwoLevelModel.from_formula(FORMULA, data, priors="bambi", **given)
        ours = model.fit(seed=1, progressbar=False, draws=4000)
        theirs = fit_bambi(model.design, model.priors, seed=2, progressbar=False, draws=4000, target_accept=0.95)
        posterior = ours.datatree["posterior"].to_dataset()
        names = ["beta", "sd_b", "b", *(d.replace(" ", "_") for d in model.priors.dispersion_names)]
        far = distance(ours.datatree, theirs.datatree, names)
        rhat = max(float(az.rhat(posterior[[name]])[name].max()) for name in names)
        ess = min(float(az.ess(posterior[[name]])[name].min()) for name in names)
        divergences = int(ours.datatree["sample_stats"]["diverging"].sum())
        print(f"{family:<20}{far[0]:>8.1f}{far[1]:>8.1f}{rhat:>9.4f}{ess:>9.0f}{divergences:>13}", flush=True)


def smallest(tree: Any) -> float:
    posterior = tree["posterior"].to_dataset()
    return min(float(az.ess(posterior[[name]], method="bulk")[name].min()) for name in ("beta", "sd_b"))


def speed(repeats: int) -> None:
    data = hl.load_dataset("esoph", coding="1980s")
    full = hl.TwoLevelModel.from_formula(ESOPH.replace("||", "|"), data, family="poisson")
    diagonal = hl.TwoLevelModel.from_formula(ESOPH, data, family="poisson", priors="bambi")
    quiet = {"progressbar": False}
    contenders = {
        "hierlmm, correlated": lambda s: full.fit(seed=s, **quiet),
        "hierlmm, diagonal, Bambi's priors": lambda s: diagonal.fit(seed=s, **quiet),
        "Bambi (nutpie), diagonal": lambda s: fit_bambi(diagonal.design, diagonal.priors, seed=s, **quiet),
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for repeat in range(repeats + 1):
        for name, fit in contenders.items():
            seconds, result = timed(lambda fit=fit, repeat=repeat: fit(repeat + 1))
            if repeat:
                found[name].append((seconds, smallest(result.datatree) / seconds))
    print(f"{'refit':<40}{'seconds':>10}{'min bulk ESS/s':>18}")
    for name, pairs in found.items():
        seconds, rate = (statistics.median(values) for values in zip(*pairs, strict=True))
        print(f"{name:<40}{seconds:>10.2f}{rate:>18,.0f}", flush=True)
    whole: dict[str, list[float]] = {"hierlmm": [], "Bambi (nutpie, uncorrelated)": []}
    for repeat in range(repeats + 1):
        for name, code in zip(whole, (OURS, BAMBI), strict=True):
            seconds = fresh_process(code, dict(os.environ))
            if repeat:
                whole[name].append(seconds)
    for name, times in whole.items():
        print(f"fresh process, caches warm: {name:<32}{statistics.median(times):8.2f} s", flush=True)


def large() -> None:
    model = hl.TwoLevelModel.from_formula("y ~ x + (x | g)", binary_rows(), family="bernoulli")
    seconds, fit = timed(lambda: model.fit(seed=1, progressbar=False))
    tree = fit.datatree
    posterior = tree["posterior"].to_dataset()
    rhat = {name: float(az.rhat(posterior[[name]])[name].max()) for name in ("beta", "sd_b", "corr_b")}
    steps, divergences = (tree["sample_stats"][name] for name in ("n_steps", "diverging"))
    print(
        f"10,000 × 10 binary rows: {seconds:.0f} s, R-hat {max(rhat.values()):.4f}, smallest bulk ESS "
        f"{smallest(tree):.0f}, {float(steps.mean()):.1f} steps a draw, {int(divergences.sum())} divergences"
    )
    print(fit)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    studies = ("agree", "speed", "large")
    parser.add_argument("--study", nargs="+", default=studies, choices=studies)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    print(f"{os.cpu_count()} cores")
    for study in given.study:
        {"agree": agree, "speed": lambda: speed(given.repeats), "large": large}[study]()


if __name__ == "__main__":
    main()
