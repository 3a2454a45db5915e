"""Generalised models in Bambi: the same joint density as ours at corresponding points, for every family that it has."""

import numpy as np
import pytest
from generalised_cases import build
from pymc_density import evaluate

DISPERSION = {"negative_binomial": {"alpha": "shape"}, "gamma": {"alpha": "shape"}, "beta": {"kappa": "precision"}}
DISPERSION["student_t"] = {"sigma": "sigma", "nu": "nu"}


def bambis_logp(model, values):
    """Log density of a built Bambi model at values by name, without Jacobians."""
    import pymc as pm
    from pytensor.compile.mode import Mode

    backend = model.backend.model
    inputs = [backend.rvs_to_values[v] for v in backend.free_RVs]
    forward, start = [], backend.initial_point(0)
    for rv, value_var in zip(backend.free_RVs, inputs, strict=True):
        value = np.broadcast_to(values[rv.name], start[value_var.name].shape).astype(float)
        forward.append(np.log(value) if backend.rvs_to_transforms[rv] is not None else value)
    with backend:
        function = pm.compile(inputs, backend.logp(jacobian=False), mode=Mode(linker="py", optimizer=None))
    return float(function(*forward))


@pytest.mark.parametrize(
    ("name", "link"),
    [
        ("poisson", "log"),
        ("negative_binomial", "log"),
        ("bernoulli", "probit"),
        ("binomial", "logit"),
        ("gamma", "log"),
        ("beta", "logit"),
        ("student_t", "identity"),
    ],
)
def test_same_density_as_ours(name, link):
    model = build(name, link, random="1", priors=None)
    logp, at = evaluate(model.to_pymc(), 1)
    other = model.to_bambi()
    other.build()
    names = {v.name for v in other.backend.model.free_RVs}
    fixed = sorted(n for n in names if n.startswith("x") or n in ("w",))
    values = {
        "Intercept": at["beta_centered"][0],
        **dict(zip(fixed, at["beta_centered"][1:], strict=True)),
        "1|subject_sigma": at["sd_b"][0],
        "1|subject_offset": at["z"][:, 0],
        **{theirs: at[ours] for theirs, ours in DISPERSION.get(name, {}).items()},
    }
    assert names == set(values)
    # Bambi keeps probabilities a rounding error away from 0 and 1.
    assert bambis_logp(other, values) == pytest.approx(logp, rel=1e-8)
