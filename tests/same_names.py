"""Public names with their arguments, for `same_numbers.py`."""

from __future__ import annotations

import inspect
from typing import Any

from freezing import public
from same_models import fit, model

import hierlmm as hl

USERS = {"TwoLevelModel", "MarginalModel", "Priors", "Parameter", "LKJ", "AR1", "CAR1", "CompoundSymmetry", "Toeplitz"}
USERS |= {"Exponential", "Gaussian", "Unstructured", "UnstructuredHeterogeneous", "VarIdent", "VarPower", "VarExp"}
USERS |= {"Normal", "StudentT", "HalfNormal", "HalfStudentT", "HalfCauchy", "Gamma", "Uniform", "LogNormal"}
USERS |= {"CurrentValue", "LastValue", "Lag", "Interpolate", "Cumulative", "TimeSince", "Comparison"}
ONLY_TESTS_CALL = {"points_text"}  # public by oversight; nothing in the package or the documentation uses it


def signature(f: Any) -> str:
    """Names, kinds and defaults of the arguments."""
    plain = [p.replace(annotation=inspect.Parameter.empty) for p in inspect.signature(f).parameters.values()]
    return str(inspect.Signature(plain))


def members(value: Any) -> dict[str, str]:
    """Public names of an object or class: methods with their arguments, others without."""
    out = {}
    for name in public(value):
        if name not in ONLY_TESTS_CALL:
            static = inspect.getattr_static(value, name, None)
            method = static.__func__ if isinstance(static, staticmethod | classmethod) else static
            out[name] = signature(method) if inspect.isfunction(method) else ""
    return out


def of_names() -> dict[str, Any]:
    out: dict[str, Any] = {"__all__": dict.fromkeys(hl.__all__, "")}
    for name in hl.__all__:
        value = getattr(hl, name)
        if inspect.isclass(value):
            out[name] = members(value) | ({"()": signature(value)} if name in USERS else {})
        elif callable(value):
            out[name] = {"()": signature(value)}
    f, g = fit("reml dental"), fit("gee dental")
    curves = f.effects("time", by="sex", n=5)
    reached = [f, g, fit("reml m ar1"), fit("nuts dental"), model("dental"), model("m ar1"), curves, f.contrasts("sex")]
    reached += [f.marginal_means("sex"), f.slopes("time"), f.hypothesis("time = 0"), f.anova(), f.interpret()]
    reached += [f.heterogeneity(), f.compare_subjects(1, 2), f.rank_subjects(), f.implied_marginal()]
    reached += [fit("nuts dental").loo(), hl.compare(f, g), f.compare_marginal(), hl.semivariogram(f, simulations=20)]
    reached += [hl.autocorrelation(f, simulations=20), hl.same_marginal(model("dental parallel"))]
    reached += [hl.compare_implied(f, g), hl.gls_steps(model("dyestuff")), f.summary(), model("dental").equations()]
    reached += [f.variance_components(), model("dental").priors, f.residual_estimate]
    reached += [fit("reml m ar1").residual_estimate, model("dental").hierarchy, f.information_criteria()]
    for value in reached:
        if type(value).__module__.startswith("hierlmm"):
            name = type(value).__name__
            out[name if name in hl.__all__ else f"of {name}"] = out.get(name, {}) | members(value)
    return out
