"""Small designs with several grouping factors of every shape, for tests of their criteria."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

import hierlmm as hl
from hierlmm.design.design import Design
from hierlmm.design.outcome import outcome_of
from hierlmm.design.rows import RandomTerm, group_by
from hierlmm.design.terms import RandomColumns

SHAPES = {
    "crossed": lambda a, b, c: [a, b],
    "nested": lambda a, b, c: [a * 10 + b, b],
    "three levels": lambda a, b, c: [c, a * 100 + b * 10 + c, b * 10 + c],
    "crossed three": lambda a, b, c: [c, a, b],
    "nested beside crossed": lambda a, b, c: [a * 10 + b, c, b],
    "two chains": lambda a, b, c: [c, a * 10 + b, (a * 7 + 3 * b + c) % 8, b],
}


def several(formula: str, frame: pd.DataFrame, factors: list[tuple[pd.Series, list[str], str]]) -> Design:
    """A design with these random terms: labels of the groups, names of level-1 columns, ``"|"`` or ``"||"``."""
    design = hl.TwoLevelModel.from_formula(formula, frame).design
    random = []
    for labels, names, bar in factors:
        columns = np.array([design.level1.index(name) for name in names])
        together = bar == "|"
        blocks = (tuple(range(len(names))),) if together else tuple((k,) for k in range(len(names)))
        own = RandomColumns(str(labels.name), columns, tuple(names), blocks, "unstructured" if together else "diagonal")
        random.append(RandomTerm(own, group_by(labels), np.ascontiguousarray(design.X1[:, columns])))
    return replace(design, terms=replace(design.terms, random=tuple(r.columns for r in random)), random=tuple(random))


def drawn(shape: str, seed: int) -> Design:
    """A small unbalanced design of one shape, with slopes in some factors."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(25, 70))
    a, b, c = rng.integers(0, 9, n), rng.integers(0, 4, n), rng.integers(0, 3, n)
    frame = pd.DataFrame({"x": rng.normal(size=n), "z": rng.normal(size=n), "one": np.arange(n) % 6})
    frame["y"] = rng.normal(size=n) + 0.5 * frame["x"] + 100.0
    factors = []
    for k, labels in enumerate(SHAPES[shape](a, b, c)):
        most = 1 if seed % 4 == 3 else 3  # now and then intercepts alone, whose rows are summed up by cells
        names = [["Intercept"], ["Intercept", "x"], ["Intercept", "x", "z"]][int(rng.integers(0, most))]
        factors.append((pd.Series(labels, name=f"f{k}"), names, "|" if rng.random() < 0.6 else "||"))
    return several("y ~ x * z + (1 + x + z | one)", frame, factors)


def some_lambda(criterion, rng) -> np.ndarray:
    """A Λ of any size, now and then singular, or zero in one factor."""
    lam = rng.normal(size=criterion.structure.n_parameters) * 10.0 ** rng.uniform(-2, 1.5)
    return np.where(rng.random(len(lam)) < 0.15, 0.0, lam)


def with_family(design: Design, name: str, seed: int) -> Design:
    """The same rows with a response of another family, and an offset."""
    rng, n = np.random.default_rng(seed), design.n_obs
    trials = rng.integers(1, 8, n).astype(float) if name == "binomial" else np.ones(n)
    draws = {
        "bernoulli": lambda: rng.random(n) < 0.5,
        "binomial": lambda: rng.binomial(trials.astype(int), 0.4),
        "poisson": lambda: rng.poisson(np.exp(rng.normal(size=n))),
        "negative_binomial": lambda: rng.poisson(np.exp(rng.normal(size=n))),
        "gamma": lambda: rng.gamma(2.0, size=n),
        "ordinal": lambda: rng.integers(0, 4, n),
    }
    rows = replace(design.rows, y=draws[name]().astype(float), trials=trials, offset=0.1 * rng.normal(size=n))
    return replace(design, rows=rows, outcome=outcome_of(name, "n" if name == "binomial" else None, None))
