"""Generalised models with several grouping factors against lme4's glmer, in one run: medians of wall time, and ratios.

    .venv/bin/python benchmarks/generalised_factors.py [--repeats 3] [--skip-large]

Yes or no of persons to items (a random intercept for each), and Poisson counts of pupils in classes in schools with a
random slope between schools. Both programs by Laplace's method, from data frame to a summary with standard errors;
glmer with its defaults. The first call of each is a warm-up, but glmer fits the large data once.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
from common import median_seconds
from families import glmer

import hierlmm as hl


def answers(persons: int, items: int, seed: int = 1) -> pd.DataFrame:
    """Yes or no of every person to every item."""
    rng = np.random.default_rng(seed)
    person, item = np.repeat(np.arange(persons), items), np.tile(np.arange(items), persons)
    age = rng.normal(size=persons)
    eta = 0.3 + 0.5 * age[person] + rng.normal(size=persons)[person] + 0.8 * rng.normal(size=items)[item]
    correct = rng.binomial(1, 1.0 / (1.0 + np.exp(-eta)))
    labels = {"person": [f"p{k}" for k in person], "item": [f"i{k}" for k in item]}
    return pd.DataFrame({"correct": correct, "age": age[person], **labels})


def counts(schools: int = 40, classes: int = 5, pupils: int = 25, seed: int = 1) -> pd.DataFrame:
    """Counts of pupils in classes in schools."""
    rng = np.random.default_rng(seed)
    school = np.repeat(np.arange(schools), classes * pupils)
    group = np.repeat(np.arange(schools * classes), pupils)
    x = rng.normal(size=len(school))
    b = rng.normal(size=(schools, 2))[school] * [0.4, 0.2]
    eta = 0.5 + 0.3 * x + b[:, 0] + b[:, 1] * x + 0.3 * rng.normal(size=schools * classes)[group]
    labels = {"school": [f"s{k}" for k in school], "group": [f"c{k}" for k in group]}
    return pd.DataFrame({"n": rng.poisson(np.exp(eta)), "x": x, **labels})


def ours(formula: str, data: pd.DataFrame, family: str) -> hl.GeneralisedMultilevelFit:
    fit = hl.MultilevelModel.from_formula(formula, data, family=family).fit_ml()
    fit.summary()
    return fit  # type: ignore[no-any-return]


def show(name: str, formula: str, data: pd.DataFrame, families: tuple[str, str], repeats: tuple[int, int]) -> None:
    """One line: seconds and log-likelihoods of both, and their ratio."""
    wall = median_seconds(lambda: ours(formula, data, families[0]), repeats[0])
    line = f"{name:22s} hierlmm {wall:8.2f} s  log-likelihood {ours(formula, data, families[0]).loglik:.5f}"
    peer = glmer(formula, data, families[1], repeats[1])
    if peer is not None:
        line += f"   glmer {peer[0]:8.2f} s  {peer[1]:.5f}   ratio {peer[0] / wall:.1f}"
    print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--skip-large", action="store_true")
    given = parser.parse_args()
    formula, kinds = "correct ~ age + (1 | person) + (1 | item)", ("bernoulli", "binomial")
    for persons, items in ((100, 20), (250, 20)):
        show(f"crossed {persons} x {items}", formula, answers(persons, items), kinds, (given.repeats,) * 2)
    nested = "n ~ x + (x | school) + (1 | group)"
    show("nested 40 x 5 x 25", nested, counts(), ("poisson", "poisson"), (given.repeats,) * 2)
    if not given.skip_large:
        show("crossed 1,000 x 50", formula, answers(1_000, 50), kinds, (1, 1))
        show("some of 2,000 x 500", formula, answers(2_000, 500).sample(50_000, random_state=1), kinds, (1, 1))


if __name__ == "__main__":
    main()
