"""Data made at random that several test files look at."""

import numpy as np
import pandas as pd

from hierlmm.design.build import design_from_formula
from hierlmm.design.formula import parse_formula

DENTAL = "distance ~ sex * time + (1 + time | subject)"
SLEEP = "reaction ~ days + (1 + days | subject)"


def random_design(seed, q, p, n_subjects, rows, structure="unstructured", balanced=False):
    """Random columns: q random effects among p fixed effects, irregular or balanced."""
    rng = np.random.default_rng(seed)
    counts = np.full(n_subjects, rows) if balanced else rng.integers(1, 2 * rows, n_subjects)
    if not balanced:
        counts[0] = max(counts[0], 2 * q)  # enough rows for every column to vary within a subject
    N = int(counts.sum())
    subject = np.repeat(np.arange(n_subjects), counts)
    columns = {f"x{k}": rng.normal(3.0, 2.0, N) for k in range(1, q)}
    if balanced:
        columns = {f"x{k}": np.tile(rng.normal(3.0, 2.0, rows), n_subjects) for k in range(1, q)}
    columns |= {f"w{m}": rng.normal(size=n_subjects)[subject] for m in range(max(0, p - q))}
    data = pd.DataFrame({"subject": subject, **columns})
    data["y"] = rng.normal(50.0, 5.0, N)
    names = list(columns)
    inner = " + ".join(["1", *(f"x{k}" for k in range(1, q))])
    bar = "|" if structure == "unstructured" else "||"
    formula = f"y ~ {' + '.join(['1', *names])} + ({inner} {bar} subject)"
    return design_from_formula(
        parse_formula(formula), data, covariance="identity" if structure == "identity" and q > 1 else None
    )


def thirty_subjects():
    """Thirty subjects, missed occasions, irregular times, one subject with a single row, rows in no order."""
    rng = np.random.default_rng(7)
    rows = []
    for i in range(30):
        occasions = [0] if i == 13 else sorted(rng.choice(4, size=rng.integers(2, 5), replace=False))
        b = rng.normal(size=2)
        for o in occasions:
            t = o + rng.uniform(-0.3, 0.3)
            rows.append((f"s{i:02d}", o, t, "abc"[int(rng.integers(3))], rng.uniform(0.5, 3.0), i % 2, b[0] + b[1] * t))
    frame = pd.DataFrame(rows, columns=["id", "occasion", "t", "group", "size", "x", "y"])
    frame["y"] = 50.0 + 4.0 * frame["y"] + frame["t"] + 2.0 * frame["x"] + rng.normal(scale=2.0, size=len(frame))
    return frame.sample(frac=1.0, random_state=3)
