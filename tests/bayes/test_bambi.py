"""The same model in Bambi: the same priors, the same posterior, and a clear word where Bambi has no such model."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from hierlmm.bayes.bambi import build_bambi_model, fit_bambi
from hierlmm.bayes.distributions import HalfStudentT, Normal, StudentT
from hierlmm.bayes.priors import Priors, resolve_priors
from hierlmm.bayes.sample import sample_explicit
from hierlmm.design.build import design_from_formula
from hierlmm.design.formula import parse_formula
from hierlmm.errors import MissingPackageError, SpecificationError
from hierlmm.fit.make import fit_of


def make(formula, data, **keywords):
    return design_from_formula(parse_formula(formula), data, **keywords)


def priors_of(model):
    """Numbers of every prior of a Bambi model by parameter name."""
    component = model.parameters["mu"]
    terms = dict(component.terms)
    out = {}
    for name, term in terms.items():
        if term.prior is None or getattr(term, "kind", "") == "offset":
            continue
        inner = term.prior.args["sigma"]
        out[name] = {k: np.asarray(v) for k, v in (inner.args if hasattr(inner, "args") else term.prior.args).items()}
    sigma = model.parameters["sigma"].prior
    out["sigma"] = {k: np.asarray(v) for k, v in sigma.args.items()}
    return out


@pytest.mark.parametrize(
    "formula",
    [
        "distance ~ sex * time + (1 + time || subject)",
        "distance ~ time + (1 | subject)",
        "distance ~ 0 + sex + (1 | subject)",
        "distance ~ 1 + (0 + time | subject)",
    ],
)
def test_priors_named_bambi_are_bambis_defaults(dental, formula):
    import bambi as bmb

    ours = priors_of(build_bambi_model(make(formula, dental), "bambi"))
    own_formula = formula.replace("(1 + time || subject)", "(time | subject)")
    theirs = priors_of(bmb.Model(own_formula, dental))
    assert ours.keys() == theirs.keys()
    for name, values in theirs.items():
        for parameter, value in values.items():
            np.testing.assert_allclose(ours[name][parameter], value, rtol=1e-12, err_msg=f"{name} {parameter}")


def test_same_density_as_ours(dental):
    """Bambi's joint log density at corresponding points differs from ours by nothing."""
    from pymc_density import evaluate

    from hierlmm.bayes.explicit import build_pymc_model

    design = make("distance ~ sex * time + offset(time) + (1 + time || subject)", dental)
    chosen = Priors(beta={"time": StudentT(4, 1, 2)}, sd_b=HalfStudentT(3, 2), intercept=Normal(20, 5))
    priors = resolve_priors(chosen, design)
    logp, at = evaluate(build_pymc_model(design, priors), 1)
    model = build_bambi_model(design, priors)
    model.build()
    backend = model.backend.model
    values = {
        "sigma": at["sigma"],
        "Intercept": at["beta_centered"][0],
        **dict(zip(("x1", "x2", "x3"), at["beta_centered"][1:], strict=True)),
        "1|subject_sigma": at["sd_b"][0],
        "z1|subject_sigma": at["sd_b"][1],
        "1|subject_offset": at["z"][:, 0],
        "z1|subject_offset": at["z"][:, 1],
    }
    total = 0.0
    import pymc as pm
    from pytensor.compile.mode import Mode

    inputs = [backend.rvs_to_values[v] for v in backend.free_RVs]
    forward, start = [], backend.initial_point(0)
    for rv, value_var in zip(backend.free_RVs, inputs, strict=True):
        value = np.broadcast_to(values[rv.name], start[value_var.name].shape).astype(float)
        forward.append(np.log(value) if backend.rvs_to_transforms[rv] is not None else value)
    with backend:
        function = pm.compile(inputs, backend.logp(jacobian=False), mode=Mode(linker="py", optimizer=None))
    total = float(function(*forward))
    assert total == pytest.approx(logp, rel=1e-9)


def test_users_names_are_kept(dental):
    design = make("distance ~ sex * time + (1 + time || subject)", dental)
    model = build_bambi_model(design, "bambi")
    assert str(model.formula).count("distance ~ 1 + sex + time + sex:time + (1 | subject) + (0 + time | subject)") == 1
    assert "time|subject" in model.parameters["mu"].terms
    assert "distance ~ 1 + sex + time" in str(build_bambi_model(make("distance ~ sex + time + (1 | subject)", dental)))
    # The default prior of sex is at the average time: a column of ours, which no formula of Bambi's makes.
    assert "y ~ 1 + x1 + x2 + x3" in str(build_bambi_model(design))


def test_plain_names_where_formulae_reads_it_differently(dental):
    renamed = dental.rename(columns={"time": "years since 8"})
    by_expression = make("distance ~ cr(`years since 8`, df=3) + (1 | subject)", renamed)
    model = build_bambi_model(by_expression)
    assert "y ~ 1 + x1 + x2" in str(model.formula)
    priors = resolve_priors(None, by_expression)
    assert float(priors_of(model)["x1"]["sigma"]) == pytest.approx(priors.beta[1].sd)


def test_a_term_with_priors_of_two_families_gets_plain_names(dental):
    banded = dental.assign(wave=dental["time"].astype(str))
    design = make("distance ~ wave + (1 | subject)", banded)
    mixed = Priors(beta={design.coef[1]: StudentT(4, 0, 2)})
    assert "x1" in str(build_bambi_model(design, mixed).formula)
    assert "wave" in str(build_bambi_model(design).formula)


def test_what_bambi_lacks_is_said(dental, dental_design):
    with pytest.raises(SpecificationError, match="no correlations") as caught:
        build_bambi_model(dental_design)
    assert "0.10" in str(caught.value)
    assert "diagonal" in str(caught.value)
    identity = make("distance ~ time + (1 + time | subject)", dental, covariance="identity")
    with pytest.raises(SpecificationError, match="cannot share"):
        build_bambi_model(identity)


def test_missing_bambi(dental, monkeypatch):
    monkeypatch.setitem(sys.modules, "bambi", None)
    with pytest.raises(MissingPackageError, match=r"hierlmm\[bambi\]"):
        build_bambi_model(make("distance ~ time + (1 | subject)", dental))


def test_posteriors_agree(sleepstudy):
    design = make("reaction ~ days + (1 + days || subject)", sleepstudy)
    ours = fit_of(sample_explicit(design, "bambi", seed=1, progressbar=False))
    theirs = fit_of(fit_bambi(design, "bambi", seed=2, progressbar=False))
    assert theirs.estimator == "Bambi"
    assert theirs.converged
    for table in ("summary", "variance_components"):
        a, b = getattr(ours, table)(), getattr(theirs, table)()
        assert list(a.index) == list(b.index)
        error = np.sqrt(a["mcse"] ** 2 + b["mcse"] ** 2)
        assert (abs(a["estimate"] - b["estimate"]) < 4 * error).all()
    effects = np.abs(ours.b - theirs.b) / ours.b_sd
    assert effects.to_numpy().max() < 0.25
    assert list(theirs.b.index) == list(design.subjects)
    np.testing.assert_allclose(theirs.D.to_numpy()[0, 1], 0.0)
