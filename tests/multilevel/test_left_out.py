"""Rows of a group given all others, with several grouping factors: by matrices of all rows, and without the group."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import multivariate_normal

import hierlmm as hl
from hierlmm.design.design import Design
from hierlmm.design.factors import own_part
from hierlmm.errors import NotAvailableError
from hierlmm.likelihood import left_out
from hierlmm.likelihood.several_factors import marginal_log_likelihood

FORMULAS = [
    "y ~ x + offset(start) + (1 | s / c) + (1 + x | r) + (1 + x || w)",
    "y ~ x + offset(start) + (1 + x | s:c) + (1 | r)",
    "y ~ 1 + (1 | s / c / w)",
]


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    columns = {name: rng.integers(0, k, 130) for name, k in (("s", 7), ("c", 3), ("r", 5), ("w", 4))}
    frame = pd.DataFrame(columns).assign(x=rng.normal(3, 1, 130), start=rng.normal(5, 1, 130))
    return frame.assign(y=frame["x"] + frame["start"] + rng.normal(size=7)[frame["s"]] + rng.normal(size=130))


def parameters(design: Design) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two draws of β, D and σ; of the second a random effect has no variance."""
    rng, Q = np.random.default_rng(2), len(design.term)
    D = np.zeros((2, Q, Q))
    for k, term in enumerate(design.random):
        root = np.tril(rng.normal(size=(len(term.columns.names),) * 2))
        root = root if len(term.columns.blocks) == 1 else np.diag(np.diag(root))
        D[(slice(None), *own_part(design, k))] = root @ root.T
    D[1, 0], D[1, :, 0] = 0.0, 0.0
    return rng.normal(size=(2, design.X.shape[1])), D, np.array([0.7, 1.4])


def units(design: Design) -> dict[str, np.ndarray]:
    return {"rows": np.arange(design.n_obs)} | {t.columns.group: t.group.index for t in design.random}


@pytest.mark.parametrize("formula", FORMULAS)
def test_against_matrices_of_all_rows(formula, rows):
    design = hl.MultilevelModel.from_formula(formula, rows).design
    beta, D, sigma = parameters(design)
    for index in units(design).values():
        groups = np.unique(index)[:: 1 + index.max() // 5]
        found = left_out.left_out_loglik(design, index, groups, beta, D, sigma)
        for s in range(2):
            V = sigma[s] ** 2 * np.eye(len(rows))
            V += sum(term.covariance(D[(s, *own_part(design, k))]) for k, term in enumerate(design.random))
            rest = design.y - design.offset - design.X @ beta[s]
            for at, g in enumerate(groups):
                own = index == g
                gain = np.linalg.solve(V[np.ix_(~own, ~own)], V[np.ix_(~own, own)]).T
                given = multivariate_normal(gain @ rest[~own], V[np.ix_(own, own)] - gain @ V[np.ix_(~own, own)])
                assert found[s, at] == pytest.approx(given.logpdf(rest[own]), rel=1e-9)


def test_against_the_model_without_the_group(rows):
    formula = FORMULAS[0]
    design = hl.MultilevelModel.from_formula(formula, rows).design
    given = tuple(own[:1] for own in parameters(design))
    at = tuple(own[0] for own in given)
    for name in ("s:c", "r"):
        index = units(design)[name]
        found = left_out.left_out_loglik(design, index, np.array([2]), *given)
        others = hl.MultilevelModel.from_formula(formula, rows[index != 2]).design
        expected = marginal_log_likelihood(design, *at) - marginal_log_likelihood(others, *at)
        assert found[0, 0] == pytest.approx(expected, rel=1e-9)


def test_in_pieces_and_in_any_order(rows, monkeypatch):
    design = hl.MultilevelModel.from_formula(FORMULAS[0], rows).design
    given, index = parameters(design), design.random[0].group.index
    whole = left_out.left_out_loglik(design, index, np.arange(7), *given)
    monkeypatch.setattr(left_out, "PIECE", 1)
    np.testing.assert_allclose(left_out.left_out_loglik(design, index, np.array([4, 1]), *given), whole[:, [4, 1]])


def test_what_takes_hours_is_refused(rows, monkeypatch):
    design = hl.MultilevelModel.from_formula(FORMULAS[0], rows).design
    for index in units(design).values():
        left_out.refuse_too_much(design, index, "r", 4000)
    monkeypatch.setattr(left_out, "MOST_WORK", 1e6)
    for unit, remedy in (("r", "whose groups have fewer rows"), ("observation", "az.loo")):
        with pytest.raises(NotAvailableError, match=f"one {unit} at a time, at 4,000 draws") as caught:
            left_out.refuse_too_much(design, units(design).get(unit, np.arange(130)), unit, 4000)
        assert remedy in caught.value.remedy
