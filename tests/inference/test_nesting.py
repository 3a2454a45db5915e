"""What is called nested is: the larger model reaches any covariance of the smaller one exactly, and no other.

Subjects come in pairs with opposite responses, and their sum of squares is that of a covariance V: the mean is zero and
the likelihood over all covariances is largest at V, where it is known. A model reaches it if and only if V is one of
its own.
"""

import numpy as np
import pandas as pd
import pytest

import hierlmm as hl
from hierlmm.inference.nesting import NotNested, changes

T = np.array([0.0, 1.0, 2.0, 4.0])
LAG = np.abs(T[:, None] - T)
Z = np.column_stack([np.ones(4), T])
FULL = np.array([[1.0, 0.3], [0.3, 0.5]])
DIFFERENT = np.diag([1.0, 1.5, 0.7, 1.2])
STRUCTURES = {
    "independent": (np.eye(4), {}),
    "cs": (1.2 * np.eye(4) - 0.2, {"correlation": hl.CompoundSymmetry()}),
    "ar1": ((-0.5) ** LAG, {"correlation": hl.AR1("t")}),
    "car1": (0.5**LAG, {"correlation": hl.CAR1("t")}),
    "exponential": (np.exp(-LAG / 1.3), {"correlation": hl.Exponential("t")}),
    "nugget": (0.8 * np.exp(-LAG / 1.3) + 0.2 * np.eye(4), {"correlation": hl.Exponential("t", nugget=True)}),
    "gaussian": (np.exp(-((LAG / 1.2) ** 2)), {"correlation": hl.Gaussian("t")}),
    "toeplitz": (
        np.array([[1, 0.5, 0.1, 0.2], [0.5, 1, 0.5, 0.1], [0.1, 0.5, 1, 0.5], [0.2, 0.1, 0.5, 1]]),
        {"correlation": hl.Toeplitz()},
    ),
    "symmetric": (
        np.array([[1, 0.5, 0.1, 0.2], [0.5, 1, 0.3, 0.4], [0.1, 0.3, 1, 0.6], [0.2, 0.4, 0.6, 1]]),
        {"correlation": hl.Unstructured("t")},
    ),
    "unequal": (DIFFERENT**2, {"variance": hl.VarIdent("t")}),
    "growing": (np.diag(np.exp(0.4 * T)), {"variance": hl.VarExp("t")}),
    "csh": (
        DIFFERENT @ (0.6 * np.eye(4) + 0.4) @ DIFFERENT,
        {"correlation": hl.CompoundSymmetry(), "variance": hl.VarIdent("t")},
    ),
    "un": (
        DIFFERENT @ np.exp(-LAG / 2.0) @ DIFFERENT + 0.3 * np.outer(T, T),
        {"correlation": hl.UnstructuredHeterogeneous("t")},
    ),
    "intercept": (np.eye(4) + 0.7, "(1 | g)"),
    "slope alone": (np.eye(4) + 0.2 * np.outer(T, T), "(0 + t | g)"),
    "diagonal": (np.eye(4) + Z @ np.diag([0.8, 0.3]) @ Z.T, "(t || g)"),
    "both": (np.eye(4) + Z @ FULL @ Z.T, "(t | g)"),
    "both elsewhere": (np.eye(4) + Z @ FULL @ Z.T, "(I(t - 2.0) | g)"),
    "identity": (np.eye(4) + 0.5 * Z @ Z.T, ("(t | g)", "identity")),
    "alike": (np.eye(4) + Z @ np.array([[0.5, 0.2], [0.2, 0.5]]) @ Z.T, ("(t | g)", "compound_symmetry")),
}


def model(name, V):
    half = np.linalg.cholesky(V).T * 2.0
    y = np.concatenate([half, -half])
    frame = pd.DataFrame({"g": np.repeat(np.arange(8), 4), "t": np.tile(T, 8), "y": y.ravel()})
    what = STRUCTURES[name][1]
    if isinstance(what, dict):
        return hl.MarginalModel("y ~ 1", subject="g", data=frame, **what)
    bar, covariance = what if isinstance(what, tuple) else (what, None)
    return hl.TwoLevelModel.from_formula(f"y ~ 1 + {bar}", frame, covariance=covariance)


def said_to_be_nested(small, large):
    V = STRUCTURES[small][0]
    try:
        changes(model(small, V).design, model(large, V).design)
    except NotNested:
        return False
    return True


def reached(large, V):
    best = -4.0 * (4.0 * np.log(2.0 * np.pi) + np.linalg.slogdet(V)[1] + 4.0)
    return model(large, V).fit_ml().loglik == pytest.approx(best, abs=1e-5)


SLOW = {
    ("un", s) for s in ("independent", "car1", "exponential", "nugget", "growing", "slope alone", "identity", "alike")
}
"""Not looked at: the largest model contains everything here, and a few of them say so."""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("large", STRUCTURES)
def test_what_is_called_nested_is_reached_by_the_larger_model(large):
    for small, (V, _) in STRUCTURES.items():
        if (large, small) not in SLOW and said_to_be_nested(small, large):
            assert reached(large, V), (small, large)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("large", ["exponential", "toeplitz", "csh", "diagonal", "intercept"])
def test_what_is_not_called_nested_is_not_reached(large):
    for small, (V, _) in STRUCTURES.items():
        if not said_to_be_nested(small, large):
            assert not reached(large, V), (small, large)


def test_lags_of_the_order_are_not_those_of_the_times():
    # Rows 1, 2, 3, 4 at times 0, 1, 2, 4: one lag in the order is two distances in time.
    assert not said_to_be_nested("exponential", "toeplitz")
    assert said_to_be_nested("exponential", "symmetric")
    assert said_to_be_nested("cs", "toeplitz")
