"""Structures that a user writes: what no model can use is refused when the model is made, bounds are kept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from own_structures import RHO, decay, lag, model, structure

import hierlmm as hl
from hierlmm.errors import DataError, SpecificationError
from hierlmm.likelihood.residual_rows import residual_rows


@pytest.mark.parametrize(
    ("matrix", "words"),
    [
        (lambda t, v: 4.0 * decay(t, v), "4 on the diagonal"),
        (lambda t, v: np.tril(decay(t, v)), "not symmetric"),
        (lambda t, v: np.full_like(decay(t, v), np.nan), "not finite"),
        (lambda t, v: decay(t, v)[..., 0], "shape"),
        (lambda t, v: decay(t, v).tolist(), "list"),
        (lambda t, v: 2.0 * np.eye(t.shape[-1]) - decay(t, v) ** 0.01, "not positive definite"),
        # right where the search begins, wrong elsewhere
        (lambda t, v: decay(t, v) + (v[0] - 0.5) * np.eye(t.shape[-1]), "on the diagonal"),
    ],
)
def test_a_matrix_that_is_no_correlation_matrix(matrix, words):
    with pytest.raises(SpecificationError, match=words):
        model(structure(matrix))


def test_a_matrix_need_not_be_positive_definite_everywhere():
    banded = structure(lambda t, v: np.where(lag(t) == 0, 1.0, np.where(lag(t) == 2, v[0], 0.0)))
    start = (hl.Parameter("rho", 0.6, 0.0, 1.0),)  # positive definite below 0.618, with four occasions
    model(structure(lambda t, v: banded.matrix(t, v), start))


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        (RHO, "tuple"),
        (None, "tuple"),
        ((0.5,), "tuple"),
        ((hl.Parameter("sigma", 0.5, 0.0, 1.0),), "residual standard deviation"),
        ((RHO, RHO), "two have this name"),
        ((hl.Parameter("", 0.5, 0.0, 1.0),), "has a name"),
        ((hl.Parameter("a", 2.0, 0.0, 1.0),), "not between"),
        ((hl.Parameter("a", -2.0, 0.0),), "not between"),
        ((hl.Parameter("a", 0.0, 0.0, 1.0),), "not between"),
        ((hl.Parameter("a", np.nan),), "not finite"),
        ((hl.Parameter("a", -1.0, upper=0.0),), "needs a lower one"),
        ((hl.Parameter("a", 0.5, 1.0, 0.0),), "no number between"),
        ((hl.Parameter("a", "0.5"),), "are numbers"),
        ((hl.Parameter("a", 0.5, 0.0, unit=0.0),), "positive"),
    ],
)
def test_parameters_that_cannot_be_moved_or_printed(parameters, words):
    with pytest.raises(SpecificationError, match=words):
        model(structure(decay, parameters))


def test_parameters_of_a_variance_function_and_names_across_both():
    @dataclass(frozen=True)
    class Own(hl.VarianceFunction):
        variable: str
        name: str

        def prepare(self, column):
            return column.to_numpy(dtype=float), None

        def parameters(self, v, state):
            return (hl.Parameter(self.name, 0.1),)

        def log_ratio(self, v, values):
            return values[0] * np.log(v)

    model(structure(decay), Own("age", "power"))
    for name, words in (("sigma", "residual standard deviation"), ("rho", "two have this name"), (3, "has a name")):
        with pytest.raises(SpecificationError, match=words):
            model(structure(decay), Own("age", name))


@pytest.mark.parametrize(
    "parameter",
    [
        hl.Parameter("rho", 0.5, 0.0, 1.0),
        hl.Parameter("rho", 0.999, 0.0, 1.0),
        hl.Parameter("rho", 0.0101, 0.01, 2.0),
        hl.Parameter("rho", 5.0001, 5.0),
    ],
)
def test_no_matrix_is_asked_for_outside_the_bounds(parameter):
    """Differences stay inside, so a formula need not be defined elsewhere; and they are right near the ends."""
    seen = []

    def matrix(t, values):
        seen.append(float(values[0]))
        return np.exp(-lag(t) / values[0])

    own = structure(matrix, (parameter,))
    rows = residual_rows(model(own).design).correlation
    t = np.array([8.0, 10.0, 12.0, 14.0])
    for eta in (-17.0, -9.0, -2.0, 0.0, 2.0, 9.0, 17.0):
        value = parameter.natural(eta)
        found = rows.spec.derivatives(t, np.array([value]))[0]
        exact = np.exp(-lag(t) / value) * lag(t) / value**2
        slope = parameter.slope(eta)  # what is used is the derivative by eta
        np.testing.assert_allclose(found * slope, exact * slope, atol=1e-9)
    model(own).fit_reml()
    assert parameter.lower < min(seen)
    assert max(seen) < parameter.upper


@pytest.mark.parametrize("within", [False, True])
@pytest.mark.parametrize("value", [-5.0, -0.5, 0.0, 1e-7, 0.5, 2.0])
def test_differences_where_a_parameter_has_no_bounds(within, value):
    own = structure(lambda t, v: np.exp(-lag(t) * np.exp(v[0])), (hl.Parameter("log_rate", 0.0),))
    spec = residual_rows(model(own).design).correlation.spec if within else own
    t = np.array([8.0, 8.5, 10.0, 14.0])
    rate = lag(t) * np.exp(value)
    np.testing.assert_allclose(spec.derivatives(t, np.array([value]))[0], -rate * np.exp(-rate), atol=1e-7)


@pytest.mark.parametrize("value", [1e-3, 0.4, 3.0, 2e4])
def test_differences_by_a_structure_alone_keep_the_sign_of_a_parameter(value):
    def matrix(t, values):
        assert values[0] > 0
        return np.exp(-lag(t) / values[0])

    t = np.array([8.0, 8.001, 10.0, 14.0])
    found = structure(matrix).derivatives(t, np.array([value]))[0]
    exact = np.exp(-lag(t) / value) * lag(t) / value**2
    np.testing.assert_allclose(value * found, value * exact, atol=1e-7)


def test_groups_in_a_message_are_plain_numbers():
    dental = hl.load_dataset("dental")
    fit = hl.MarginalModel("distance ~ time", subject="subject", data=dental, variance=hl.VarIdent("age")).fit_reml()
    with pytest.raises(DataError) as caught:
        fit.predict(dental.head(1).assign(age=11), interval="prediction")
    assert "np." not in str(caught.value)
    assert "age 11" in str(caught.value)
    one = dental.assign(age=np.where(dental.index == 0, 1, 2))
    with pytest.raises(DataError) as caught:
        hl.MarginalModel("distance ~ time", subject="subject", data=one, variance=hl.VarIdent("age"))
    assert "np." not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "inside", "outside"),
    [
        (lambda start: hl.AR1(start=start), (-0.99, 0.0, 0.99), (-1.0, 1.0)),
        (lambda start: hl.Exponential("t", start=start), (1e-3, 0.5, 1e3), (0.0, -1.0, np.inf)),
        (lambda start: hl.CAR1("t", start=start), (0.01, 0.99), (0.0, 1.0)),
        (lambda start: hl.Gaussian("t", start=start), (1e-3, 0.5, 1e3), (0.0, -1.0, np.inf)),
    ],
    ids=["AR1", "Exponential", "CAR1", "Gaussian"],
)
def test_a_search_may_begin_anywhere_inside_the_range(make, inside, outside):
    assert [make(start).start for start in inside] == list(inside)
    for start in outside:
        with pytest.raises(SpecificationError, match="start"):
            make(start)
