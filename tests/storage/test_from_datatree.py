"""A posterior that was sampled elsewhere is a fit; PyMC's own evaluation of its Deterministics says what it must be."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import xarray as xr
from four_parts import refused

import hierlmm as hl
from hierlmm.bayes.explicit import pymc_module
from hierlmm.bayes.tree import matrices

GROWTH = "distance ~ sex * time + (1 + time | subject)"
NO_INTERCEPT = "distance ~ time + (0 + time + np.sin(time) | subject)"


@pytest.fixture(autouse=True)
def few_draws():
    """Forty made-up draws have not converged."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", hl.FitWarning)
        yield


def growth(dental, formula=GROWTH, **options):
    return hl.TwoLevelModel.from_formula(formula, dental, **options)


def free_draws(pymc_model, chains=2, draws=20, seed=1):
    """Draws of the free variables from nowhere in particular, as a sampler names them."""
    rng, found = np.random.default_rng(seed), {}
    for variable in pymc_model.free_RVs:
        dims = pymc_model.named_vars_to_dims.get(variable.name) or ()
        shape = (chains, draws, *(len(pymc_model.coords[d]) for d in dims))
        unit = variable.name in ("corr_b_partial", "corr_b_unit") or variable.name in ("residual_rho", "residual_phi")
        positive = "sd" in variable.name or "sigma" in variable.name or variable.name.startswith("residual_r")
        values = rng.normal(size=shape)
        values = rng.uniform(0.1, 0.9, shape) if unit else np.exp(0.3 * values) if positive else values
        found[variable.name] = (("chain", "draw", *dims), values)
    used = {d for dims, _ in found.values() for d in dims[2:]}
    coords = {d: list(pymc_model.coords[d]) for d in used}
    return xr.Dataset(found, coords={"chain": np.arange(chains), "draw": np.arange(draws), **coords})


def tree_of(posterior, **groups):
    return xr.DataTree.from_dict({"posterior": posterior, **groups})


def close(a, b):
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-9, atol=1e-12)


MODELS = {
    "correlated": (lambda d: growth(d), {}),
    "centred": (lambda d: growth(d), {"centered": True}),
    "diagonal": (lambda d: growth(d, "distance ~ sex * time + (1 + time || subject)"), {}),
    "identity": (lambda d: growth(d, NO_INTERCEPT, covariance="identity"), {}),
    "equal": (lambda d: growth(d, NO_INTERCEPT, covariance="compound_symmetry"), {}),
    "serial": (lambda d: growth(d, "distance ~ time + (1 | subject)", residual=hl.CAR1("time")), {}),
    "variance": (lambda d: growth(d, "distance ~ time + (1 | subject)", residual_variance=hl.VarPower("age")), {}),
    "marginal": (
        lambda d: hl.MarginalModel("distance ~ sex * time", subject="subject", data=d, correlation=hl.AR1()),
        {},
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_free_variables_suffice(dental, name):
    """What follows from them is what PyMC computes, and every table stands."""
    make, options = MODELS[name]
    model = make(dental)
    pymc_model = model.to_pymc(**options)
    raw = free_draws(pymc_model)
    expected = pymc_module().compute_deterministics(raw, model=pymc_model, progressbar=False)
    fit = hl.from_datatree(model, tree_of(raw))
    posterior = fit.datatree["posterior"]
    checked = [v for v in ("beta", "sd_b", "corr_b", "b", "sigma", "subject_coef") if v in expected]
    for variable in checked:
        if variable in posterior:
            close(posterior[variable], expected[variable])
    assert "beta" in checked
    assert fit.estimator == "NUTS"
    assert (fit.datatree.attrs["draws"], fit.datatree.attrs["chains"]) == (20, 2)
    assert "centred" in repr(fit)
    if name == "centred":
        assert fit.datatree.attrs["parametrization"] == "centred"
    assert np.isfinite(fit.summary()["estimate"]).all()
    assert np.isfinite(fit.variance_components()["estimate"]).all()
    assert np.isfinite(fit.loglik)
    close(fit.fitted(level="population"), model.design.X @ fit.beta)


def test_everything_of_pm_sample(dental):
    """With the Deterministics in the tree these are what is taken, and sampler statistics come along."""
    model = growth(dental)
    pymc_model = model.to_pymc()
    raw = free_draws(pymc_model)
    everything = xr.merge([raw, pymc_module().compute_deterministics(raw, model=pymc_model, progressbar=False)])
    everything.attrs |= {"tuning_steps": 300, "inference_library": "pymc"}
    diverging = np.zeros((2, 20), dtype=bool)
    diverging[1, 3] = True
    stats = xr.Dataset({"diverging": (("chain", "draw"), diverging)})
    fit = hl.from_datatree(model, tree_of(everything, sample_stats=stats))
    alone = hl.from_datatree(model, tree_of(raw))
    close(fit.summary(), alone.summary())
    close(fit.variance_components(), alone.variance_components())
    close(fit.b, alone.b)
    assert fit.convergence().divergences == 1
    assert "after 300 of warm-up" in repr(fit)
    moved = everything.assign(beta=everything["beta"] + 1.0)
    close(hl.from_datatree(model, tree_of(moved)).beta, fit.beta + 1.0)
    named = everything[["beta", "sd_b", "corr_b", "b", "sigma"]]
    close(hl.from_datatree(model, tree_of(named)).D, fit.D)


def test_labels_decide(dental):
    model = growth(dental)
    raw = free_draws(model.to_pymc())
    everything = (
        pymc_module().compute_deterministics(raw, model=model.to_pymc(), progressbar=False).assign(sigma=raw["sigma"])
    )
    rng = np.random.default_rng(2)
    mixed = everything.isel(subject=rng.permutation(27), coef=[2, 0, 3, 1]).transpose(..., "draw", "chain")
    named = ["beta", "sd_b", "corr_b", "b", "sigma"]
    one, other = (hl.from_datatree(model, tree_of(draws[named])) for draws in (everything, mixed))
    assert (one.b == other.b).all(axis=None)
    assert (one.summary().dropna(axis=1) == other.summary().dropna(axis=1)).all(axis=None)


@pytest.mark.parametrize("kept", ["draws", "summary", "none"])
def test_a_tree_of_this_package(dental, kept):
    model = growth(dental)
    fit = model.fit(draws=40, tune=60, chains=2, seed=1, progressbar=False, random_effects=kept)
    again = hl.from_datatree(model, fit.datatree)
    assert repr(again) == repr(fit)
    assert again.warnings == fit.warnings
    close(again.draws("D"), fit.draws("D"))
    if kept != "none":
        assert (again.b == fit.b).all(axis=None)
        assert (again.b_sd == fit.b_sd).all(axis=None)
    corr = matrices(model.design, again.datatree["posterior"])[0]
    close(corr, fit.draws("corr_b"))


def test_a_tree_of_this_package_with_residual_parameters(dental):
    model = MODELS["serial"][0](dental)
    fit = model.fit(draws=40, tune=60, chains=2, seed=1, progressbar=False)
    again = hl.from_datatree(model, fit.datatree)
    assert repr(again) == repr(fit)
    close(again.residual_draws(), fit.residual_draws())


def test_names_of_bambi(dental):
    """Bambi's names and dimensions, its subjects as text and in another order."""
    pytest.importorskip("bambi")
    model = growth(dental, "distance ~ time + (1 | subject)")
    rng = np.random.default_rng(3)
    subjects = [str(s) for s in rng.permutation(model.design.subjects)]
    b = rng.normal(size=(2, 20, 27))
    posterior = xr.Dataset(
        {
            "Intercept": (("chain", "draw"), rng.normal(20, 1, (2, 20))),
            "time": (("chain", "draw"), rng.normal(1, 1, (2, 20))),
            "1|subject": (("chain", "draw", "subject__factor_dim"), b),
            "1|subject_sigma": (("chain", "draw"), rng.uniform(1, 2, (2, 20))),
            "sigma": (("chain", "draw"), rng.uniform(1, 2, (2, 20))),
        },
        coords={"chain": [0, 1], "draw": np.arange(20), "subject__factor_dim": subjects},
    )
    fit = hl.from_datatree(model, tree_of(posterior))
    assert fit.estimator == "Bambi"
    close(fit.beta, posterior[["Intercept", "time"]].mean().to_array())
    close(fit.b["Intercept"], b.mean(axis=(0, 1))[[subjects.index(str(s)) for s in model.design.subjects]])
    close(fit.sd_b, posterior["1|subject_sigma"].mean())
    assert np.isfinite(fit.loo().elpd)


@pytest.mark.slow
def test_bambis_own_fit(dental):
    """What Bambi samples on the model that it was handed is what comparing with Bambi shows."""
    pytest.importorskip("bambi")
    model = growth(dental, "distance ~ sex * time + (time || subject)")
    given = {"draws": 30, "tune": 100, "chains": 2, "target_accept": 0.9, "progressbar": False}
    tree = model.to_bambi().fit(random_seed=1, inference_method="nutpie", **given)
    from hierlmm.fit.estimators import fit_by

    ours, theirs = hl.from_datatree(model, tree), fit_by("bambi", model, seed=1, **given)
    assert (ours.draws("beta") == theirs.draws("beta")).all()
    assert (ours.b == theirs.b).all(axis=None)


def test_it_is_saved_like_any_other(dental, tmp_path):
    model = growth(dental)
    fit = hl.from_datatree(model, tree_of(free_draws(model.to_pymc())))
    again = hl.load_fit(fit.save(tmp_path / "fit.nc"))
    assert repr(again) == repr(fit)


def test_refusals(dental):
    model = growth(dental)
    raw = free_draws(model.to_pymc())
    other = growth(dental, "distance ~ sex + time + (1 + time | subject)")
    fewer = growth(dental[dental["subject"] < 20])
    without = hl.from_datatree
    refused(lambda: without(model, tree_of(raw.drop_vars("z"))), hl.DataError, "'subject_coef'", "free variables")
    refused(lambda: without(model, tree_of(raw.drop_vars("sigma"))), hl.DataError, "'sigma'")
    refused(lambda: without(other, tree_of(raw)), hl.DataError, "coef is Intercept", "in the model it is")
    refused(lambda: without(fewer, tree_of(raw)), hl.DataError, "subject is")
    with pytest.raises(hl.DataError) as error:
        without(other, tree_of(raw))
    assert str(error.value).count("Received:") == 1  # one message, not one within another
    refused(lambda: without(model, xr.DataTree(raw)), hl.ArgumentError, "with groups (none)", "no group 'posterior'")
    nameless = raw.drop_vars("coef").isel(coef=[0, 1])
    refused(lambda: without(model, tree_of(nameless)), hl.DataError, "other shapes")
    refused(lambda: without(model, raw), hl.ArgumentError, "of type Dataset", "no group 'posterior'")
    refused(lambda: without(model, xr.DataTree.from_dict({"prior": raw})), hl.ArgumentError, "no group 'posterior'")
    stacked = raw.stack(sample=("chain", "draw")).reset_index("sample", drop=True)
    refused(lambda: without(model, tree_of(stacked)), hl.DataError, "'chain' and 'draw'")
    refused(lambda: without("model", tree_of(raw)), hl.SpecificationError, "needs a model")
    fitted = growth(dental, residual_variance=hl.VarPower())
    refused(lambda: without(fitted, tree_of(raw)), hl.NotAvailableError, "fitted value")


IMPOSSIBLE = {
    "none": (lambda p: p.isel(draw=slice(0)), "there are none"),
    "text": (lambda p: p.assign(sigma=p["sigma"].astype(str)), "draws are numbers"),
    "nan": (lambda p: p.assign(beta=p["beta"].where(p["draw"] != 3)), "first in chain 0, draw 3"),
    "negative sigma": (lambda p: p.assign(sigma=-p["sigma"]), "a standard deviation is above zero"),
    "negative sd": (lambda p: p.assign(sd_b=p["sd_b"] - 1e6), "a standard deviation is not below zero"),
    "correlation": (lambda p: p.assign(corr_b=p["corr_b"] * 0.0 - 1.5), "the largest here is -1.5"),
}


@pytest.fixture(scope="module")
def made(dental):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", hl.FitWarning)
        return growth(dental).fit(draws=20, tune=50, chains=2, seed=1, progressbar=False)


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_draws_that_cannot_be(dental, made, case):
    """None of these would stop anything later: they would come out as numbers."""
    change, words = IMPOSSIBLE[case]
    tree = tree_of(change(made.datatree["posterior"].to_dataset()))
    refused(lambda: hl.from_datatree(growth(dental), tree), hl.errors.DataError, words)
    if case != "nan":
        tree = tree_of(tree["posterior"].to_dataset()[["sd_b", "corr_b", "sigma"]])
        refused(lambda: hl.recover(growth(dental), tree), hl.errors.DataError, words)


def test_a_tree_of_other_data_or_with_statistics_of_other_draws(dental, made):
    other = growth(dental.assign(distance=3.0 * dental["distance"]))
    for call in (hl.from_datatree, hl.recover):
        refused(lambda call=call: call(other, made.datatree), hl.errors.DataError, "the data are other ones")
        cut = made.datatree.copy()
        cut["posterior"] = xr.DataTree(cut["posterior"].to_dataset().isel(draw=slice(5)))
        refused(lambda call=call, cut=cut: call(growth(dental), cut), hl.errors.DataError, "2 chains of 5 draws")


def test_a_matrix_of_correlations(dental, made):
    posterior = made.datatree["posterior"].to_dataset()
    matrix = (("chain", "draw", "term", "term_bis"), made.draws("corr_b"))
    again = hl.from_datatree(growth(dental), tree_of(posterior.drop_vars(["corr_b", "pair"]).assign(corr_b=matrix)))
    close(again.D, made.D)


def test_what_is_missing_is_named_as_it_is_asked_for(dental, made):
    for name in ("b", "corr_b", "beta"):
        tree = tree_of(made.datatree["posterior"].to_dataset().drop_vars(name))
        refused(lambda tree=tree: hl.from_datatree(growth(dental), tree), hl.errors.DataError, f"no variable {name!r}")


def test_one_draw_says_nothing(dental, made):
    with pytest.warns(hl.FitWarning, match="Only 1 draw of each chain"):
        one = hl.from_datatree(growth(dental), tree_of(made.datatree["posterior"].to_dataset().isel(draw=[0])))
    assert not one.converged
