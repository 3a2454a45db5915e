"""The PyMC model against the same density written in numpy, and its draws against the same arithmetic in numpy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from priors_by_definition import centred_columns
from pymc_density import evaluate
from scipy import stats

from hierlmm.bayes.distributions import LKJ, Exponential, Gamma, HalfNormal, Normal, StudentT
from hierlmm.bayes.explicit import build_pymc_model, draws_of_model
from hierlmm.bayes.priors import Priors, resolve_priors
from hierlmm.bayes.sample import sample_explicit
from hierlmm.design.build import design_from_formula
from hierlmm.design.design import level2_prediction
from hierlmm.design.formula import parse_formula
from hierlmm.errors import FitWarning, SpecificationError
from hierlmm.fit.make import fit_of


@pytest.fixture(scope="module")
def growth():
    """Twenty subjects, irregular times, a level-2 covariate, two level-1 covariates."""
    rng = np.random.default_rng(5)
    subject = np.repeat(np.arange(20), rng.integers(3, 8, 20))
    n = len(subject)
    frame = pd.DataFrame(
        {"subject": subject, "t": rng.normal(size=n), "u": rng.normal(size=n), "w": rng.normal(size=n)}
    )
    frame["group"] = np.where(subject % 2 == 0, "a", "b")
    frame["y"] = 10 + frame["t"] + rng.normal(size=20)[subject] * (1 + frame["u"]) + rng.normal(size=n)
    return frame


CASES = {
    "unstructured": ("y ~ group * t + (1 + t | subject)", None, None),
    "three effects": ("y ~ t + u + (1 + t + u | subject)", None, None),
    "diagonal": ("y ~ t + (1 + t || subject)", None, None),
    "identity": ("y ~ t + (1 + t | subject)", "identity", None),
    "blocks": ("y ~ t + (1 + t | subject) + (0 + u | subject)", None, None),
    "slope varies only": ("y ~ t + u + (0 + u | subject)", None, None),
    "by group": ("y ~ group * t + (1 + t | gr(subject, by = group))", None, None),
    "diagonal by group": ("y ~ t + (1 + t || gr(subject, by = group))", None, None),
    "identity by group": ("y ~ t + (1 + t | gr(subject, by = group))", "identity", None),
    "compound symmetry by group": ("y ~ t + (1 + t | gr(subject, by = group))", "compound_symmetry", None),
    "slope by group": ("y ~ t + u + (0 + u | gr(subject, by = group))", None, None),
    "no intercept": ("y ~ 0 + group + (1 | subject)", None, None),
    "nothing fixed": ("y ~ 0 + (1 + t | subject)", None, None),
    "offset": ("y ~ t + offset(w) + (1 | subject)", None, None),
    "bambi priors": ("y ~ t + (1 | subject)", None, "bambi"),
    "mixed families": (
        "y ~ t + (1 + t | subject)",
        None,
        Priors(beta={"t": StudentT(4, 1, 2)}, sd_b={"t": Gamma(2, 1)}, sigma=Exponential(3), corr_b=LKJ(1.3)),
    ),
}


def make(growth, case):
    formula, covariance, priors = CASES[case]
    design = design_from_formula(parse_formula(formula), growth, covariance=covariance)
    return design, resolve_priors(priors, design)


def log_density(design, priors, at, centered):
    """The posterior density up to a constant, in numpy, on the natural scale of the free variables."""
    beta = at.get("beta", np.empty(0))
    sd, corr, sigma, b = at["sd_b"], at["corr_b"], at["sigma"], at["b"]
    D = at["D"]
    if "sd_b_centered" in at:  # the priors are those of the lines at the average covariates
        A = np.linalg.lstsq(centred_columns(design), design.Z)[0]
        sd = np.sqrt(np.diag(A @ D @ A.T))
        np.testing.assert_allclose(at["sd_b_centered"], sd, rtol=1e-10)
        corr = A @ D @ A.T / np.outer(sd, sd)
        priors = replace(priors, random_center=np.zeros(len(sd)))
    total = priors.logpdf(beta, sd, corr, sigma, design.blocks)
    if priors.corr_b is not None and "corr_b_partial" in at:
        # LKJ on the correlations as the product of Beta densities of partial correlations: swap one for the other
        for block in design.blocks:
            if len(block) > 1:
                total -= float(priors.corr_b.logpdf(corr[np.ix_(block, block)]))
        shapes = [
            priors.corr_b.partial_shapes(len(block))[j]
            for block in design.blocks
            for i in range(len(block))
            for j in range(i)
        ]
        total += stats.beta(shapes, shapes).logpdf(at["corr_b_partial"]).sum()
    units = [name for name in at if name.startswith("corr_b_unit")]
    total += len(units) * np.log(design.n_own / max(design.n_own - 1, 1))  # r = low + (1 - low) u, low = -1/(q - 1)
    if centered:
        own = np.arange(len(sd)) // design.n_own  # of which group each row of D is
        for g in range(own.max() + 1):
            subjects = design.subject_group == g
            total += (
                stats.multivariate_normal(np.zeros(design.n_own), D[own == g][:, own == g]).logpdf(b[subjects]).sum()
            )
    else:
        total += stats.norm.logpdf(at["z"]).sum()
    mu = design.offset + design.X @ beta + np.einsum("ij,ij->i", design.own_Z, b[design.subject_index])
    return total + stats.norm(mu, sigma).logpdf(design.y).sum()


@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_density_equals_numpy(growth, case, centered):
    design, priors = make(growth, case)
    model = build_pymc_model(design, priors, centered=centered)
    for seed in (1, 2):
        logp, at = evaluate(model, seed, design)
        assert logp == pytest.approx(log_density(design, priors, at, centered), rel=1e-9)


@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_levels_follow_from_the_free_variables(growth, case, centered):
    design, priors = make(growth, case)
    _, at = evaluate(build_pymc_model(design, priors, centered=centered), 3, design)
    numpy_route = draws_of_model(
        design, priors, {k: v[None, None] for k, v in at.items() if k not in ("b", "D", "corr_b")}
    )
    for name in ("sd_b", "corr_b", "D", "b", "sigma", *(["beta"] if design.coef else [])):
        np.testing.assert_allclose(numpy_route[name][0, 0], at[name], atol=1e-12, err_msg=name)
    own = level2_prediction(design, at.get("beta", np.empty(0)))
    own[:, design.own_level1] += at["b"]
    np.testing.assert_allclose(at["subject_coef"], own, atol=1e-12)
    mu = design.offset + (design.X1 * own[design.subject_index]).sum(axis=1)
    np.testing.assert_allclose(at["mu"], mu, atol=1e-12)


def test_correlations_only_inside_blocks(growth):
    design, priors = make(growth, "blocks")
    _, at = evaluate(build_pymc_model(design, priors), 4, design)
    corr = at["corr_b"]
    assert corr[0, 1] != 0
    np.testing.assert_array_equal(corr[2, :2], 0.0)
    assert at["corr_b_partial"].shape == (1,)


def test_partial_correlations_give_lkj(growth):
    """Change of variables: the density of R from the Beta densities and the Jacobian equals the LKJ density."""
    design, priors = make(growth, "three effects")
    priors = replace(priors, random_center=np.zeros(3))  # the correlations of the model are then those with the prior
    model = build_pymc_model(design, priors)
    _, at = evaluate(model, 5, design)
    p = at["corr_b_partial"]

    def correlations(p):
        raw = {"sigma": np.ones((1, 1)), "z": at["z"][None, None], "sd_b": at["sd_b"][None, None]}
        raw |= {"beta_centered": at["beta_centered"][None, None], "corr_b_partial": p[None, None]}
        return draws_of_model(design, priors, raw)["corr_b"][0, 0][np.tril_indices(3, -1)]

    step = 1e-6
    columns = [(correlations(p + step * e) - correlations(p - step * e)) / (2 * step) for e in np.eye(3)]
    jacobian = np.linalg.slogdet(np.column_stack(columns))[1]
    shapes = [priors.corr_b.partial_shapes(3)[j] for i in range(3) for j in range(i)]
    implied = stats.beta(shapes, shapes).logpdf(p).sum() - jacobian
    assert implied == pytest.approx(float(priors.corr_b.logpdf(at["corr_b"])), abs=1e-6)


def test_names_dims_and_coordinates(dental_design):
    model = build_pymc_model(dental_design, resolve_priors(None, dental_design))
    dims = {
        "beta": ("coef",),
        "sd_b": ("term",),
        "corr_b": ("pair",),
        "b": ("subject", "term"),
        "subject_coef": ("subject", "level1"),
        "mu": ("obs",),
        "y": ("obs",),
    }
    for name, expected in dims.items():
        assert model.named_vars_to_dims[name] == expected
    assert "sigma" in model.named_vars
    assert model.coords["coef"] == dental_design.coef
    assert list(model.coords["subject"]) == list(dental_design.subjects)
    for priors, name in ((None, "random_coef_centered"), ("bambi", "subject_coef")):
        centred = build_pymc_model(dental_design, resolve_priors(priors, dental_design), centered=True)
        assert name in {v.name for v in centred.free_RVs}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"draws": 0}, "draws"),
        ({"chains": 2.5}, "chains"),
        ({"tune": -1}, "tune"),
        ({"target_accept": 1.0}, "strictly"),
    ],
)
def test_settings_are_checked_before_anything_is_compiled(dental_design, setting, message):
    with pytest.raises(SpecificationError, match=message):
        sample_explicit(dental_design, **setting)


def test_centred_and_non_centred_agree(sleepstudy):
    design = design_from_formula(parse_formula("reaction ~ days + (days || subject)"), sleepstudy)
    fits = [fit_of(sample_explicit(design, seed=s, centered=c, progressbar=False)) for s, c in ((1, False), (2, True))]
    for table in ("summary", "variance_components"):
        a, b = (getattr(fit, table)() for fit in fits)
        error = np.sqrt(a["mcse"] ** 2 + b["mcse"] ** 2)
        assert (abs(a["estimate"] - b["estimate"]) < 4 * error).all()
        np.testing.assert_allclose(a["se"], b["se"], rtol=0.15)
    assert fits[0].datatree.attrs["parametrization"] == "non-centred"
    assert fits[1].datatree.attrs["parametrization"] == "centred"


def test_three_effects_and_blocks_sample(growth):
    design, priors = make(growth, "three effects")
    with pytest.warns(FitWarning):  # too few draws for the checks: that is what they are for
        fit = fit_of(sample_explicit(design, priors, draws=100, tune=200, chains=2, seed=1, progressbar=False))
    assert list(fit.datatree["posterior"]["pair"].to_numpy()) == ["Intercept, t", "Intercept, u", "t, u"]
    assert fit.draws("D").shape == (2, 100, 3, 3)
    assert np.linalg.eigvalsh(fit.draws("D")).min() > 0
    rows = list(fit.variance_components().index)
    assert rows[3:] == ["corr(Intercept, t)", "corr(Intercept, u)", "corr(t, u)", "sigma"]


def test_priors_reach_the_posterior(sleepstudy):
    """A prior far from the data and much sharper must win."""
    design = design_from_formula(parse_formula("reaction ~ days + (1 | subject)"), sleepstudy)
    sharp = Priors(beta={"days": Normal(-3, 0.01)}, sd_b=HalfNormal(1e-3))
    fit = fit_of(sample_explicit(design, sharp, draws=500, tune=500, seed=3, progressbar=False, target_accept=0.95))
    assert fit.beta["days"] == pytest.approx(-3, abs=0.1)
    assert fit.sd_b["Intercept"] < 0.01
