"""β and b from draws of the covariance parameters: against the compiled posterior, and what a trace must have."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import xarray as xr
from draws import largest_difference
from structures_by_definition import build

import hierlmm as hl
from hierlmm.bayes.tree import matrices
from hierlmm.errors import DataError, SpecificationError


@pytest.fixture(scope="module")
def dental_slopes(dental):
    return hl.TwoLevelModel.from_formula("distance ~ sex * time + (1 + time | subject)", dental)


@pytest.fixture(scope="module")
def sampled(dental_slopes):
    return dental_slopes.fit(draws=2000, tune=1000, chains=2, seed=3, progressbar=False)


def trace_of(fit, *names, **more):
    """A trace with some of a fit's variables, as a sampler of another model may leave them."""
    kept = fit.datatree["posterior"].to_dataset()[list(names)].assign(more)
    return xr.DataTree.from_dict({"posterior": kept, "sample_stats": fit.sample_stats})


@pytest.mark.parametrize("form", ["pairs", "matrix", "D"])
def test_beta_is_drawn_as_the_compiled_posterior_draws_it(dental_slopes, sampled, form):
    """With the same noise the same β; b by another root of D, so that only its distribution is the same."""
    corr, D = matrices(dental_slopes.design, sampled.datatree["posterior"])
    dims = ("chain", "draw", "term", "other")
    more = {
        "pairs": {"corr_b": sampled.datatree["posterior"]["corr_b"]},
        "matrix": {"corr_b": (dims, corr)},
        "D": {"D": (dims, D)},
    }[form]
    names = ("sd_b", "sigma") if form != "D" else ("sigma",)
    fit = hl.recover(dental_slopes, trace_of(sampled, *names, **more), seed=3)
    np.testing.assert_allclose(fit.draws("beta"), sampled.draws("beta"), rtol=1e-7)
    np.testing.assert_allclose(fit.draws("D"), sampled.draws("D"), rtol=1e-8, atol=1e-12)
    assert largest_difference(fit, sampled, "b") < 4.5
    assert largest_difference(fit, sampled, "b", "sd") < 5.0
    attrs = fit.datatree.attrs
    assert (attrs["sampler"], attrs["route"], attrs["random_effects"]) == ("collapsed", "recovered", "draws")
    xr.testing.assert_equal(fit.sample_stats, sampled.sample_stats)
    assert fit.summary().shape == sampled.summary().shape


def test_priors_are_known_only_of_the_models_own_pymc_model(dental_slopes, sampled):
    """A larger model has priors of its own, whatever the model would have had."""
    theirs = hl.recover(dental_slopes, trace_of(sampled, "sd_b", "corr_b", "sigma"), seed=3)
    assert theirs.priors is None
    assert "Priors" not in repr(theirs)
    assert "log_prior" not in theirs.datatree.children
    for ask in (theirs.psense, theirs.plot_prior_posterior):
        with pytest.raises(hl.NotAvailableError, match="not known"):
            ask()
    with dental_slopes.to_pymc(marginalized=True) as own:
        free = {v.name: own.initial_point()[own.rvs_to_values[v].name] for v in own.free_RVs}
    rng = np.random.default_rng(1)
    more = {
        name: (("chain", "draw", f"{name}_0"), rng.uniform(0.4, 0.6, (2, 2000, np.size(v)))) for name, v in free.items()
    }
    more["sigma"] = sampled.datatree["posterior"]["sigma"]
    ours = hl.recover(dental_slopes, trace_of(sampled, "sd_b", "corr_b", **more), seed=3)
    assert str(ours.priors) == str(dental_slopes.priors)


def test_a_beta_in_the_trace_is_kept(dental_slopes, sampled):
    fit = hl.recover(dental_slopes, trace_of(sampled, "beta", "sd_b", "corr_b", "sigma"), seed=1)
    np.testing.assert_allclose(fit.draws("beta"), sampled.draws("beta"), rtol=1e-9)
    assert largest_difference(fit, sampled, "b") < 4.5
    summary = hl.recover(dental_slopes, trace_of(sampled, "beta", "sd_b", "corr_b", "sigma"), random_effects="summary")
    np.testing.assert_allclose(summary.b, sampled.b, atol=0.15 * sampled.b_sd.to_numpy().max())
    np.testing.assert_allclose(summary.b_sd, sampled.b_sd, rtol=0.15)


@pytest.mark.parametrize("q", [0, 1])
def test_residual_parameters(thirty, q):
    model = build(thirty, hl.AR1("occasion"), hl.VarPower("size"), q, "y ~ t")
    with pytest.warns(hl.FitWarning):  # few draws
        sampled = model.fit(draws=60, tune=300, chains=2, seed=3, progressbar=False)
    natural = {
        "residual_rho": sampled.datatree["posterior"]["residual_correlation"][..., 0],
        "residual_power": sampled.datatree["posterior"]["residual_variance"][..., 0],
    }
    names = ("sigma", *(("sd_b",) if q else ()))
    with pytest.warns(hl.FitWarning):
        fit = hl.recover(model, trace_of(sampled, *names, **natural), seed=3)
    for name in ("beta", "sigma", "residual_correlation", "residual_variance"):
        np.testing.assert_allclose(fit.draws(name), sampled.draws(name), rtol=1e-6)
    np.testing.assert_allclose(fit.residual_draws(), sampled.residual_draws(), rtol=1e-6, atol=1e-9)
    with pytest.raises(DataError, match="residual_rho"):
        hl.recover(model, trace_of(sampled, *names))


def test_labels_decide_what_belongs_where(dental_slopes, sampled):
    trace = trace_of(sampled, "beta", "sd_b", "corr_b", "sigma")
    turned = trace.isel(term=[1, 0], coef=[3, 1, 2, 0])
    one, other = (hl.recover(dental_slopes, t, seed=1) for t in (trace, turned))
    for name in ("beta", "D", "b"):
        np.testing.assert_array_equal(one.draws(name), other.draws(name))
    corr, D = matrices(dental_slopes.design, sampled.datatree["posterior"])
    for name, values in {"corr_b": corr, "D": D}.items():  # the second dimension of a matrix is turned with the first
        matrix = xr.DataArray(values, dims=("chain", "draw", "term", "term_bis"))
        named = trace["posterior"].to_dataset()[["beta", "sd_b", "sigma"]].assign({name: matrix})
        labelled = named.assign_coords(term_bis=["Intercept", "time"])
        for own in (
            named.isel(term=[1, 0], term_bis=[1, 0]),
            labelled.isel(term=[1, 0]),
            labelled.isel(term_bis=[1, 0]),
        ):
            again = hl.recover(dental_slopes, xr.DataTree.from_dict({"posterior": own}), seed=1)
            np.testing.assert_allclose(again.draws("D"), D, rtol=1e-9)
    with pytest.raises(DataError, match="recover with a posterior whose term is"):
        other = trace["posterior"].to_dataset().assign_coords(term=["Intercept", "age"])
        hl.recover(dental_slopes, xr.DataTree.from_dict({"posterior": other}))


def test_what_a_trace_lacks(dental, dental_slopes, sampled):
    with pytest.raises(DataError, match="'sigma' is not among them"):
        hl.recover(dental_slopes, trace_of(sampled, "sd_b", "corr_b"))
    with pytest.raises(DataError, match="'corr_b' is not among them"):
        hl.recover(dental_slopes, trace_of(sampled, "sd_b", "sigma"))
    with pytest.raises(SpecificationError, match="type dict"):
        hl.recover(dental_slopes, {"sigma": 1.0})
    priors = hl.Priors(beta=hl.StudentT(4, 0, 3))
    other = hl.TwoLevelModel.from_formula("distance ~ sex * time + (1 + time | subject)", dental, priors=priors)
    with pytest.raises(DataError, match="no draws of beta"):
        hl.recover(other, trace_of(sampled, "sd_b", "corr_b", "sigma"))


MODELS = {
    "intercept": ("dyestuff", "yield ~ 1 + (1 | batch)", {}),
    "slopes": ("sleepstudy", "reaction ~ days + (days | subject)", {}),
    "uncorrelated": ("sleepstudy", "reaction ~ days + (days || subject)", {}),
    "compound symmetry": ("sleepstudy", "reaction ~ days + (days | subject)", {"covariance": "compound_symmetry"}),
    "serial": ("dental", "distance ~ time + (1 | subject)", {"residual": hl.CAR1("time")}),
    "unequal": ("dental", "distance ~ sex * time + (1 | subject)", {"residual_variance": hl.VarIdent("sex")}),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::hierlmm.errors.FitWarning")
@pytest.mark.parametrize(("name", "sampler"), list(zip(MODELS, itertools.cycle(["pymc", "nutpie"]), strict=False)))
def test_every_sampler_agrees_with_the_compiled_posterior(name, sampler):
    """Means and SDs of everything within 4.5 Monte-Carlo standard errors: there are some hundred."""
    import pymc as pm

    dataset, formula, options = MODELS[name]
    model = hl.TwoLevelModel.from_formula(formula, hl.load_dataset(dataset), **options)
    ours = model.fit(draws=1000, seed=1, progressbar=False)
    with model.to_pymc(marginalized=True):
        trace = pm.sample(
            draws=500, tune=500, chains=2, cores=1, random_seed=2, nuts_sampler=sampler, target_accept=0.9,
            progressbar=False, compute_convergence_checks=False,
        )  # fmt: skip
    fit = hl.recover(model, trace, seed=4)
    assert int(fit.sample_stats["diverging"].sum()) <= 10
    variables = [v for v in ours.datatree["posterior"].data_vars if v not in ("b", "subject_coef")]
    for variable in variables:
        assert largest_difference(fit, ours, variable) < 4.5, variable
        assert largest_difference(fit, ours, variable, "sd") < 4.5, variable
    assert largest_difference(fit, ours, "b") < 4.5
