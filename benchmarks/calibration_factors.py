"""Simulation-based calibration with several grouping factors: nested and crossed, of normal responses and others.

    .venv/bin/python benchmarks/calibration_factors.py [--n 200] [--seed 1] [--only nested]

Parameters, random effects and responses are drawn from the priors; the posterior of each data set is sampled as
``model.fit()`` does. Ranks of what was drawn among thinned draws are uniform if both are right (Talts et al. 2018).
Prints the p-value of a χ² test of uniform ranks for every parameter, and for one random effect of each factor.

Talts, S., Betancourt, M., Simpson, D., Vehtari, A., Gelman, A. (2018). Validating Bayesian inference algorithms with
simulation-based calibration. arXiv:1804.06788.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
from scipy.stats import chisquare

import hierlmm as hl
from hierlmm.bayes.collapsed_factors import factor_posterior
from hierlmm.bayes.generalised import joint_posterior
from hierlmm.bayes.nuts import Settings
from hierlmm.bayes.predictive import family_responses
from hierlmm.bayes.sample_collapsed import sample_theta
from hierlmm.bayes.sample_generalised import run_joint
from hierlmm.bayes.tree import effects_names
from hierlmm.design.factors import own_part
from hierlmm.diagnostics.replicate import drawn_of_factors

PRIORS = hl.Priors(
    intercept=hl.Normal(1.0, 2.0),
    beta=hl.Normal(0.0, 1.0),
    sd_b=hl.HalfNormal(1.0),
    sigma=hl.HalfStudentT(4, 1.0),
)
OTHERS = hl.Priors(intercept=hl.Normal(0.5, 1.0), beta=hl.Normal(0.0, 0.5), sd_b=hl.HalfNormal(0.7))
"""Of families, on the scale of their links: counts stay small."""
KEPT, CELLS = 99, 10
"""Draws that ranks are among, and cells of the test."""


def models() -> dict[str, hl.MultilevelModel]:
    """Small designs; of their responses only that they can be ones matters."""
    rng, n = np.random.default_rng(0), 90
    rows = pd.DataFrame({"school": rng.integers(0, 6, n), "class": rng.integers(0, 3, n), "x": rng.normal(size=n)})
    rows["rater"], rows["y"] = rng.integers(0, 7, n), rng.normal(size=n)
    formulas = {
        "nested": "y ~ x + (1 + x | school) + (1 | school:class)",
        "crossed": "y ~ x + (1 | school) + (1 + x | rater)",
    }
    found = {name: hl.MultilevelModel.from_formula(own, rows, priors=PRIORS) for name, own in formulas.items()}
    rows["yes"], rows["count"] = rng.integers(0, 2, n), rng.poisson(2.0, n)
    others = {"bernoulli": "yes ~ x + (1 | school) + (1 + x | rater)", "poisson": "count ~ x + (1 | school / class)"}
    for family, own in others.items():
        found[family] = hl.MultilevelModel.from_formula(own, rows, family=family, priors=OTHERS)
    return found


def one_rank(model: hl.MultilevelModel, rng: np.random.Generator) -> dict[str, int]:
    """Ranks of what was drawn from the priors among draws from the posterior of its data."""
    design, priors = model.design, model.priors
    q = len(design.term)
    beta = priors.uncentering @ np.array([p.sample(rng, 1)[0] for p in priors.beta])
    sd, L = np.array([p.sample(rng, 1)[0] for p in priors.sd_b]), np.eye(q)
    for block in (b for b in design.blocks if len(b) > 1):
        L[np.ix_(block, block)] = priors.corr_b.sample_cholesky(rng, len(block), 1)[0]
    root = sd[:, None] * L
    truth = dict(zip(design.coef, beta, strict=True))
    truth |= {f"sd({name})": value for name, value in zip(design.term, sd, strict=True)}
    roots = [root[own_part(design, k)] for k in range(len(design.random))]
    sigma = float(priors.sigma.sample(rng, 1)[0]) if design.is_gaussian else 0.0
    y, effects = drawn_of_factors(design, beta, roots, sigma, rng)
    truth |= {name: b[0, 0] for name, b in zip(effects_names(design), effects, strict=True)}
    settings = Settings(draws=4 * KEPT, tune=300, chains=1, seed=int(rng.integers(2**31)), target_accept=0.9)
    if design.is_gaussian:
        truth["sigma"] = sigma
        posterior = factor_posterior(design.with_response(y), priors)
        draws, _ = posterior.recover(sample_theta(posterior, settings)[0][:, 3::4], rng, "draws")
    else:
        y = family_responses(design, y[None], np.empty((1, 0)), rng)[0]
        joint = joint_posterior(design.with_response(y), priors)
        draws, _ = joint.recover(run_joint(joint, settings)[0]["posterior"]["z"].to_numpy()[:, 3::4], rng, "draws")
    found = dict(zip(design.coef, draws["beta"][0].T, strict=True))
    found |= {"sigma": draws["sigma"][0]} if design.is_gaussian else {}
    found |= {f"sd({name})": own for name, own in zip(design.term, draws["sd_b"][0].T, strict=True)}
    found |= {name: draws[name][0, :, 0, 0] for name in effects_names(design)}
    return {name: int(np.sum(found[name] < value)) for name, value in truth.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="Calibration with several grouping factors.")
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", help="one of the models: nested, crossed, bernoulli, poisson")
    options = parser.parse_args()
    for name, model in models().items():
        if options.only not in (None, name):
            continue
        rng = np.random.default_rng(options.seed)
        ranks = pd.DataFrame([one_rank(model, rng) for _ in range(options.n)])
        print(f"{name}: {model.formula}, {options.n} data sets")
        for parameter, own in ranks.items():
            counts = np.bincount(own.to_numpy() * CELLS // (KEPT + 1), minlength=CELLS)
            print(f"  {parameter:32} p = {chisquare(counts).pvalue:.3f}   mean rank {own.mean() / KEPT:.3f}")


if __name__ == "__main__":
    main()
