"""Classes of structures: a matrix is all they need; what they may say of it, inherit and replace."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from own_structures import RHO, decay, lag, model
from scipy.stats import multivariate_normal

import hierlmm as hl
from hierlmm.equations.equations import equations
from hierlmm.errors import SpecificationError
from hierlmm.likelihood.residual_rows import residual_rows


@dataclass(frozen=True)
class Plain(hl.ResidualCorrelation):
    time: str

    def parameters(self, observed):
        return hl.Parameter("rho", 0.5, 0.0, 1.0), hl.Parameter("power", 0.8, 0.01, 2.0)

    def matrix(self, t, values):
        return values[0] ** (lag(t) ** values[1])


@dataclass(frozen=True)
class Said(Plain):
    def formula(self):
        return "rho^(lag^power)"

    def symbols(self, write):
        return write.raised(write.base("rho"), write.raised(write.lag(), write.parameter("power")))

    def words(self):
        return "alike for a while"

    def notes(self, gaps):
        return [f"Distances of {np.unique(gaps[gaps > 0])[0]:g} and more."]

    def working(self):
        return "ar1", self.time


@dataclass(frozen=True)
class Replaced(Said):
    """Another matrix: nothing that was said of the first is true of it."""

    def matrix(self, t, values):
        return super().matrix(t, values) ** 2


def test_a_class_with_a_matrix_is_printed_written_down_and_has_priors():
    own = model(Plain("age"))
    text = repr(own)
    assert "Plain('age'): rho, power" in text
    assert "Corr(distanceᵢⱼ, distanceᵢₖ) = Rᵢ[j, k] = Plain(ageᵢⱼ, ageᵢₖ)" in text
    assert "Rows of a subject are correlated (Plain, by age)" in " ".join(text.split())
    priors = dict(zip(own.priors.residual_names, map(str, own.priors.residual), strict=True))
    assert priors["rho"] == "Uniform(0, 1)"
    assert priors["power"] == "Uniform(0.01, 2)"
    fit = own.fit_reml()
    assert "Residual correlation: Plain('age')\n" in repr(fit)
    assert all(name in repr(fit) for name in ("rho", "power"))
    assert ", with rho = " in " ".join(equations(own.design, fit).text.split())


def test_what_a_class_says_of_its_matrix():
    said = model(Said("age"))
    fit = said.fit_reml()
    assert "Residual correlation: Said('age'), R[s, t] = rho^(lag^power)" in repr(fit)
    assert "= Rᵢ[j, k] = ρ^(|ageᵢⱼ − ageᵢₖ|^power)" in said.equations().text
    assert r"\rho^{|\mathrm{age}_{ij} - \mathrm{age}_{ik}|^{\mathrm{power}}}" in said.equations().latex
    rho, power = (f"{fit.residual_estimate.parameters[name]:.2g}" for name in ("rho", "power"))
    assert f"= {rho}^(|ageᵢⱼ − ageᵢₖ|^{power})" in equations(said.design, fit).text
    assert "Rows of a subject are alike for a while" in said.equations().text
    assert any("Distances of 2 and more." in note for note in fit.warnings)
    assert said.fit_gee().correlation == "ar1"


def test_statements_are_not_inherited_by_another_matrix():
    replaced = model(Replaced("age"))
    assert "= Rᵢ[j, k] = Replaced(ageᵢⱼ, ageᵢₖ)" in replaced.equations().text
    assert "Residual correlation: Replaced('age')\n" in repr(replaced.fit_reml())
    with pytest.raises(SpecificationError, match="no working correlation"):
        replaced.fit_gee()

    class Moved(hl.AR1):
        def matrix(self, t, values):
            return super().matrix(t, values) ** 2

    assert (hl.AR1.kernel, hl.AR1.explicit, Moved.kernel, Moved.explicit) == ("power", True, "", False)
    assert hl.AR1().symbols is not None
    assert Moved.formula is hl.ResidualCorrelation.formula


class Common(hl.ResidualCorrelation):
    """What a user's own structures share: it says something and leaves the matrix open."""

    def formula(self):
        return "my " + type(self).__name__

    def words(self):
        return "of mine"


class Mixin:
    def formula(self):
        return "mixed " + type(self).__name__


def own_matrix(self, t, values):
    return decay(t, values)


@pytest.mark.parametrize("bases", [(Common,), (Mixin, hl.ResidualCorrelation), (Mixin, Common), (Mixin, hl.AR1)])
def test_what_a_common_base_or_a_mixin_says_is_kept(bases):
    body = {"parameters": lambda self, observed: (RHO,), "matrix": own_matrix, "__annotations__": {"time": "str"}}
    own = dataclass(frozen=True)(type("Own", bases, dict(body)))("age")
    said = "mixed Own" if Mixin in bases else "my Own"
    assert own.formula() == said
    assert said in repr(model(own).fit_ml())
    assert (own.words() == "of mine") == (Common in bases)

    class Below(type(own)):
        """Says nothing of its own."""

    assert Below("age").formula() == said.replace("Own", "Below")


def test_what_was_said_of_a_matrix_goes_with_it_in_a_class_below():
    class First(Common):
        time = "age"

        def parameters(self, observed):
            return (RHO,)

        def matrix(self, t, values):
            return decay(t, values)

    class Second(First):
        def matrix(self, t, values):
            return decay(t, values) ** 2

    class Spoken(First):
        def formula(self):
            return "rho^lag"

    class Third(Spoken):
        matrix = Second.matrix

    class Fourth(Mixin, Spoken):
        matrix = Second.matrix

    assert First().formula() == "my First"
    assert Spoken().formula() == "rho^lag"
    assert (Second().formula(), Third().formula()) == ("Second", "Third")
    assert Fourth().formula() == "mixed Fourth"


def test_what_a_common_base_of_variance_functions_says_is_kept():
    class Named(hl.VarianceFunction):
        def formula(self):
            return "my " + type(self).__name__

    @dataclass(frozen=True)
    class Own(Named):
        variable: str

        def prepare(self, column):
            return column.to_numpy(dtype=float), None

        def parameters(self, v, state):
            return (hl.Parameter("rate", 0.1),)

        def log_ratio(self, v, values):
            return values[0] * v

    class Mixed(Mixin, hl.VarExp):
        def log_ratio(self, v, values):
            return values[0] * v**2

    assert Own("age").formula() == "my Own"
    assert Mixed("age").formula() == "mixed Mixed"
    assert not Mixed._linear
    v, values = np.array([1.0, 2.0]), np.array([0.5])
    np.testing.assert_allclose(Mixed("age").derivatives(v, values), [[1.0, 4.0]])  # not those of VarExp


def test_a_decay_that_is_replaced_takes_its_statements_with_it():
    class Slow(hl.CAR1):
        def decay(self, gaps, value):
            return value ** np.sqrt(gaps)

    gaps = np.array([0.0, 2.0, 2.0])
    assert hl.CAR1("age").markov(gaps, np.array([0.5])) is not None
    assert Slow("age").markov(gaps, np.array([0.5])) is None
    assert (Slow.kernel, Slow("age").formula(), Slow("age").working()) == ("", "Slow", None)


@pytest.mark.parametrize("name", ["words", "notes", "symbols", "working", "formula", "report", "kernel", "explicit"])
def test_a_field_with_the_name_of_a_method_is_refused(name):
    with pytest.raises(SpecificationError, match=f"Own with a field '{name}'") as error:
        type("Own", (hl.ResidualCorrelation,), {"__annotations__": {"time": "str", name: "int"}})
    assert "Residual structures" in error.value.see


@pytest.mark.parametrize("name", ["table", "largest", "groups", "linear", "working_hint", "off_diagonal", "mine"])
def test_other_names_are_free_for_fields(name):
    body = {"parameters": lambda self, observed: (RHO,), "matrix": own_matrix}
    body["__annotations__"] = {"time": "str", name: "int"}
    own = dataclass(frozen=True)(type("Own", (hl.ResidualCorrelation,), body))("age", 3)
    assert getattr(model(own).fit_ml().design.residual, name) == 3


def test_fields_of_a_variance_function():
    @dataclass(frozen=True)
    class Power(hl.VarPower):
        groups: int = 3
        linear: bool = False

    with pytest.raises(SpecificationError, match="a field 'symbols'"):
        type("Own", (hl.VarPower,), {"__annotations__": {"symbols": "int"}})
    assert model(None, Power("age")).fit_ml().converged


class Squared(hl.AR1):
    def matrix(self, t, values):
        return hl.AR1.matrix(self, t, values) ** 2


class SquaredGaussian(hl.Gaussian):
    def matrix(self, t, values):
        return hl.Gaussian.matrix(self, t, values) ** 2


class SquaredToeplitz(hl.Toeplitz):
    def matrix(self, t, values):
        return hl.Toeplitz.matrix(self, t, values) ** 2


class SquaredUnstructured(hl.Unstructured):
    def matrix(self, t, values):
        return hl.Unstructured.matrix(self, t, values) ** 2


@pytest.mark.parametrize(
    "own", [Squared("age"), SquaredGaussian("age"), SquaredToeplitz("occasion"), SquaredUnstructured("age")]
)
def test_a_replaced_matrix_is_the_one_that_is_used(own):
    data = hl.load_dataset("dental").assign(occasion=lambda d: (d["age"] - 6) // 2)
    fit = hl.MarginalModel("distance ~ sex * time", subject="subject", data=data, correlation=own).fit_ml()
    rows, design = residual_rows(fit.design), fit.design
    values = rows.correlation.values(fit.optimum.lam)
    assert fit.residual_estimate.parameters == dict(
        zip([p.name for p in rows.parameters], map(float, values), strict=True)
    )
    squared = type(own).__base__.matrix(own, rows.rows.t[:4], values) ** 2
    error = (design.y - design.X @ fit.beta.to_numpy())[rows.rows.order].reshape(-1, 4)  # four ages for every child
    density = multivariate_normal(np.zeros(4), fit.sigma**2 * squared)
    assert fit.loglik == pytest.approx(density.logpdf(error).sum(), abs=1e-9)
    assert fit.optimum.gradient_norm < 1e-5


def test_every_structure_says_whether_it_knows_of_a_nugget():
    assert Plain("age").nugget is None
    assert hl.Toeplitz().nugget is None
    assert hl.AR1().nugget is False
    assert hl.AR1(nugget=True).has_nugget


def test_an_explicit_form_that_is_not_written_is_refused():
    class Promised(hl.AR1):
        explicit_decay = hl.ResidualCorrelation.explicit_form

    with pytest.raises(hl.NotAvailableError, match="writes none"):
        Promised().explicit_form(np.ones(2), [0.5], np)
