"""What a user does to the answers of a fit does not change it, and what a fit does not have is refused by its name."""

from __future__ import annotations

import copy
import importlib
import inspect
import pickle
import pkgutil
import types
from collections.abc import Mapping
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from draws import posterior_like

import hierlmm
import hierlmm as hl
from hierlmm.bound import BoundModel
from hierlmm.design.design import ARRAYS
from hierlmm.errors import NotAvailableError
from hierlmm.frozen import Frozen
from hierlmm.results import Result

FORMULA = "distance ~ sex * time + (1 + time | subject)"


@pytest.fixture
def model(dental):
    return hl.TwoLevelModel.from_formula(FORMULA, dental)


@pytest.fixture
def fit(model):
    return model.fit_reml()


@pytest.fixture
def posterior(fit):
    return posterior_like(fit, draws=200)


@pytest.mark.parametrize("kind", ["fit", "posterior"])
@pytest.mark.parametrize("name", ["beta", "beta_cov", "beta_se", "D", "sd_b", "corr_b", "b", "b_sd", "subject_coef"])
def test_tables_of_a_fit_are_copies(request, kind, name):
    fit = request.getfixturevalue(kind)
    predicted = fit.predict(interval="confidence") if kind == "fit" else fit.predict()
    before = getattr(fit, name).copy()
    answer = getattr(fit, name)
    answer.loc[...] = 0.0
    answer *= 0.0
    assert (answer == 0.0).all(axis=None)
    same = pd.testing.assert_series_equal if isinstance(before, pd.Series) else pd.testing.assert_frame_equal
    same(getattr(fit, name), before)
    again = fit.predict(interval="confidence") if kind == "fit" else fit.predict()
    pd.testing.assert_frame_equal(again, predicted)


def test_arrays_of_a_fit_are_read_only(fit, posterior):
    with pytest.raises(ValueError, match="read-only"):
        fit.b_cov[...] = 0.0
    draws = posterior.draws("beta")
    with pytest.raises(ValueError, match="read-only"):
        draws -= draws.mean((0, 1))
    assert np.isclose(posterior.draws("beta").mean((0, 1)), fit.beta, atol=0.5).all()


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_of_a_design_are_read_only(model, name):
    other = model.design.with_response(model.design.y + 1.0)
    for design in (model.design, other, pickle.loads(pickle.dumps(other)), copy.deepcopy(other)):
        with pytest.raises(ValueError, match="read-only"):
            getattr(design, name)[...] = 0


def test_a_new_response_stays_the_callers(model):
    y = np.array(model.design.y)
    design = model.design.with_response(y)
    y[:] = 0.0
    np.testing.assert_array_equal(design.y, model.design.y)


def test_data_of_a_model_are_a_copy(dental):
    table = dental.copy()
    model = hl.TwoLevelModel.from_formula(FORMULA, table)
    criterion = model.fit_reml().criterion
    table.loc[:, "distance"] = 0.0
    rows = model.data
    rows.loc[:, "distance"] = 0.0
    assert (model.data["distance"] > 0).all()
    assert model.fit_reml().criterion == criterion


def without_draws_of_b(posterior, *, summary):
    tree = posterior.datatree.copy()
    kept = tree["posterior"].to_dataset()
    tree["posterior"] = xr.DataTree(kept.drop_vars(["b", "subject_coef"]))
    if summary:
        moments = {"mean": kept["b"].mean(("chain", "draw")), "sd": kept["b"].std(("chain", "draw"))}
        tree["random_effects"] = xr.DataTree(xr.Dataset(moments))
    return replace(posterior, datatree=tree)


ASKED = {
    "b": lambda f: f.b,
    "b_sd": lambda f: f.b_sd,
    "subject_coef": lambda f: f.subject_coef,
    "fitted(level='subject')": lambda f: f.fitted(),
    "predict(level='subject')": lambda f: f.predict(),
    "plot_shrinkage": lambda f: f.plot_shrinkage(),
    "plot_random_effects": lambda f: f.plot_random_effects(),
}
NEEDS_DRAWS = {
    "predict(level='subject', interval='credible')": lambda f: f.predict(interval="credible"),
    "posterior_predictive": lambda f: f.posterior_predictive(),
    "draws of 'b'": lambda f: f.draws("b"),
    "draws of 'subject_coef'": lambda f: f.draws("subject_coef"),
}


@pytest.mark.parametrize("asked", [*ASKED, *NEEDS_DRAWS])
def test_random_effects_not_kept_are_refused_by_what_was_asked(posterior, asked):
    none, summary = (without_draws_of_b(posterior, summary=s) for s in (False, True))
    ask = (ASKED | NEEDS_DRAWS)[asked]
    with pytest.raises(NotAvailableError, match="keeps no draws of the random effects") as error:
        ask(none)
    assert error.value.received == asked
    assert "'summary'" in error.value.remedy and "random_effects='draws'" in error.value.remedy
    if asked in NEEDS_DRAWS:
        with pytest.raises(NotAvailableError, match="means and SDs") as error:
            ask(summary)
        assert error.value.received == asked and "random_effects='draws'" in error.value.remedy
    else:
        ask(summary)
    assert len(none.fitted("population")) == len(none.predict(level="population", interval="credible"))


def test_summarised_random_effects_are_copies(posterior):
    fit = without_draws_of_b(posterior, summary=True)
    b = fit.b
    b *= 0.0
    pd.testing.assert_frame_equal(fit.b, posterior.b, check_names=False, check_column_type=False)


def test_loo_of_a_likelihood_fit_says_what_it_needs(fit):
    with pytest.raises(NotAvailableError, match="loo of a fit by REML") as error:
        fit.loo()
    assert "model.fit().loo()" in error.value.remedy


# Every kind of result and of model.


def kinds(base):
    return {base, *(kind for below in base.__subclasses__() for kind in kinds(below))}


for module in pkgutil.walk_packages(hierlmm.__path__, "hierlmm."):
    if module.name != "hierlmm.__main__":
        importlib.import_module(module.name)
OUTER = sorted({k for k in kinds(Frozen) if k.__module__.startswith("hierlmm.")}, key=lambda k: k.__qualname__)


def test_every_result_and_model_is_among_them():
    assert {Result, BoundModel, *kinds(Result), *kinds(BoundModel)} <= set(OUTER)
    shown = {k for k in vars(hl).values() if isinstance(k, type)} | {getattr(hl, name) for name in hl.__all__}
    fits = {"LikelihoodFit", "MarginalFit", "GEEFit", "PosteriorFit", "MarginalPosterior"}
    assert fits | {"TwoLevelModel", "MarginalModel", "Comparison", "Interpretation"} <= {k.__name__ for k in OUTER}
    assert {k for k in shown if isinstance(k, type) and issubclass(k, Result)} <= set(OUTER)


@pytest.mark.parametrize("kind", OUTER, ids=lambda kind: kind.__qualname__)
@pytest.mark.parametrize("name", ["beta", "D", "design", "warnings", "table", "typo", "_design", "__dict__"])
def test_no_attribute_of_a_result_or_model_can_be_set(kind, name):
    made = object.__new__(kind)
    with pytest.raises(FrozenInstanceError, match=name):
        setattr(made, name, 1)
    with pytest.raises(FrozenInstanceError, match=name):
        delattr(made, name)


def test_a_frozen_fit_is_computed_once_copied_replaced_and_pickled(model, fit):
    for name, value in {"beta": 0 * fit.beta, "D": 0, "typo": 1, "warnings": ()}.items():
        with pytest.raises(FrozenInstanceError, match=name):
            setattr(fit, name, value)
    assert fit.large_sample is fit.large_sample  # a cached property
    with pytest.raises(FrozenInstanceError):
        del fit.large_sample
    for other in (copy.copy(fit), copy.deepcopy(fit), pickle.loads(pickle.dumps(fit)), replace(fit, warnings=("a",))):
        pd.testing.assert_series_equal(other.beta, fit.beta)
        with pytest.raises(FrozenInstanceError):
            other.beta = 0
    again = pickle.loads(pickle.dumps(model))
    assert again.fit_reml().criterion == fit.criterion
    both = hl.compare(fit, model.fit_ml())
    pd.testing.assert_frame_equal(pickle.loads(pickle.dumps(both)).table, both.table)


@pytest.mark.parametrize("kind", [k for k in OUTER if "lacks" in dir(k)], ids=lambda kind: kind.__qualname__)
def test_what_a_kind_of_fit_lacks_cannot_be_changed(kind):
    with pytest.raises(AttributeError):
        kind.lacks.clear()
    with pytest.raises(TypeError):
        kind.lacks["beta"] = None


@pytest.mark.parametrize("kind", OUTER, ids=lambda kind: kind.__qualname__)
def test_every_public_method_looks_at_its_arguments(kind):
    methods = {name: inspect.getattr_static(kind, name) for name in dir(kind) if not name.startswith("_")}
    unchecked = {n for n, m in methods.items() if isinstance(m, types.FunctionType) and not hasattr(m, "__wrapped__")}
    assert not unchecked - set(dir(Mapping if issubclass(kind, Mapping) else object))


def test_unknown_arguments_of_methods_of_results_are_refused_in_four_parts(model, fit):
    both = hl.compare(fit, model.fit_ml())
    for ask, words in (
        (lambda: both.wide(digits=3), "Comparison.wide\\(\\) with digits=3"),
        (lambda: both.to_frame(x=1), "Comparison.to_frame\\(\\) with x=1"),
        (lambda: fit.to_frame(x=1), "LikelihoodFit.to_frame\\(\\) with x=1"),
        (lambda: fit.interpret().to_frame(x=1), "Interpretation.to_frame\\(\\) with x=1"),
        (lambda: fit.compare_marginal(blah=3), "fit_gee\\(\\) with blah=3"),
    ):
        with pytest.raises(hl.ArgumentError, match=words) as error:
            ask()
        assert "design" not in error.value.remedy


@pytest.mark.parametrize("kind", [k for k in OUTER if "lacks" in vars(k)], ids=lambda kind: kind.__qualname__)
def test_help_says_what_a_kind_of_fit_lacks(kind):
    for name, lack in kind.lacks.items():
        if isinstance(own := getattr(kind, name, None), property):
            assert own.__doc__ == f"Not available: {lack.reason}."
    for name in {"loo", "blup_variances"} & set(kind.lacks):
        assert "NotAvailableError" in getattr(kind, name).__doc__


def test_help_of_a_structure_says_that_it_needs_a_time():
    for kind in (hl.CAR1, hl.Exponential, hl.Gaussian):
        assert str(inspect.signature(kind).parameters["time"].annotation) == "str"
        with pytest.raises(hl.SpecificationError):
            kind(None)
    assert str(inspect.signature(hl.AR1).parameters["time"].annotation) == "str | None"
