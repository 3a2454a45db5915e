"""What a fit costs, counted and not timed: evaluations of the criterion, and rows that the kernel sees."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import hierlmm as hl

# The bound is a tenth above the number on the day it was set: it notices a search that does more than it has to.
EVALUATIONS = {
    "sleepstudy, intercept and slope": ("sleepstudy", "reaction ~ days + (days | subject)", None, 630),
    "sleepstudy, uncorrelated": ("sleepstudy", "reaction ~ days + (days || subject)", None, 2500),
    "sleepstudy, intercept": ("sleepstudy", "reaction ~ days + (1 | subject)", None, 300),
    "dental, two optima": ("dental", "distance ~ sex + (0 + age | subject)", None, 430),
    # Every sheet of minima over ρ is descended from: with fewer points, 8 of 700 small data sets had a wrong optimum.
    "sleepstudy, AR(1) residuals": ("sleepstudy", "reaction ~ days + (1 | subject)", hl.AR1("days"), 2620),
}


@pytest.mark.parametrize("name", EVALUATIONS)
def test_number_of_evaluations(name):
    data, formula, residual, bound = EVALUATIONS[name]
    fit = hl.TwoLevelModel.from_formula(formula, hl.load_dataset(data), residual=residual).fit_reml()
    assert fit.converged
    assert fit.optimum.n_evaluations <= bound


def planned(n_subjects, lengths):
    """Subjects with visits 0, 1, ..., of each length in turn."""
    rng = np.random.default_rng(n_subjects)
    rows = np.resize(lengths, n_subjects)
    subject, time = np.repeat(np.arange(n_subjects), rows), np.concatenate([np.arange(float(n)) for n in rows])
    b = rng.normal(size=(n_subjects, 2))
    y = 1.0 + b[subject, 0] + (0.5 + b[subject, 1]) * time + rng.normal(size=len(time))
    return pd.DataFrame({"y": y, "time": time, "subject": subject})


@pytest.mark.parametrize("lengths", [[4], [4, 3]])
def test_kernel_rows_do_not_depend_on_the_number_of_subjects(lengths):
    """A design pattern is q·P rows (q random terms, P columns of X and the response), however many subjects it has."""
    for n_subjects in (20, 1000):
        model = hl.TwoLevelModel.from_formula("y ~ time + (time | subject)", planned(n_subjects, lengths))
        products = model.fit_ml().criterion_function.products
        assert products.n_patterns == len(lengths)
        assert products.R.shape == (2, 2, len(lengths) * 2 * 3)
        assert products.C.shape == (2, 3, len(lengths) * 2 * 3)
