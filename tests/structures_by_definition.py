"""What each residual structure is, written down a second time, and models that have one."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pytest

import hierlmm as hl
from hierlmm.covariance.composed import Composed
from hierlmm.covariance.parameters import Parameter
from hierlmm.covariance.variance import VarianceFunction

COVARIANCE = {0: None, 1: "(1 | id)", 2: "(1 + t | id)"}


@dataclass(frozen=True)
class Damped(hl.ResidualCorrelation):
    """A structure that a user adds, without derivatives: rho ** (lag ** power)."""

    time: str

    def parameters(self, observed):
        return Parameter("rho", 0.4, 0.0, 1.0), Parameter("power", 0.8, 0.0)

    def matrix(self, t, values):
        lag = np.abs(t[..., :, None] - t[..., None, :])
        return values[0] ** (lag ** values[1])


@dataclass(frozen=True)
class VarConstPower(VarianceFunction):
    """A variance function that a user adds, without derivatives: SD = σ (1 + const |v|)."""

    variable: str

    def prepare(self, column):
        return column.to_numpy(dtype=float), None

    def parameters(self, v, state):
        return (Parameter("const", 0.2, 0.0),)

    def log_ratio(self, v, values):
        return np.log1p(values[0] * np.abs(v))


def lags(t):
    return np.abs(np.subtract.outer(t, t))


def with_nugget(R, nugget):
    return np.where(np.eye(len(R), dtype=bool), 1.0, (1.0 - nugget) * R)


def product_between(v, a, b):
    return np.prod([v[f"rho({k}, {k + 1})"] for k in range(a, b)])


def of_group(values, x):
    """Parameters of one group, by their names without groups; all of them where there are no groups."""
    own = {name.removesuffix(f"[{x}]"): value for name, value in values.items() if name.endswith(f"[{x}]")}
    return own or values


# What each structure is, written down a second time: positions and reported parameters -> correlation matrix.
CORRELATIONS = {
    "independent": (None, None),
    "AR1": (hl.AR1("occasion"), lambda t, v: v["rho"] ** lags(t)),
    "AR1, order": (hl.AR1(), lambda t, v: v["rho"] ** lags(t)),
    "AR1, nugget": (hl.AR1("occasion", nugget=True), lambda t, v: with_nugget(v["rho"] ** lags(t), v["nugget"])),
    "CAR1": (hl.CAR1("t"), lambda t, v: v["phi"] ** lags(t)),
    "CAR1, nugget": (hl.CAR1("t", nugget=True), lambda t, v: with_nugget(v["phi"] ** lags(t), v["nugget"])),
    "Exponential": (hl.Exponential("t"), lambda t, v: np.exp(-lags(t) / v["range"])),
    "Exponential, nugget": (
        hl.Exponential("t", nugget=True),
        lambda t, v: with_nugget(np.exp(-lags(t) / v["range"]), v["nugget"]),
    ),
    "Gaussian": (hl.Gaussian("t"), lambda t, v: np.exp(-((lags(t) / v["range"]) ** 2))),
    "Gaussian, nugget": (
        hl.Gaussian("t", nugget=True),
        lambda t, v: with_nugget(np.exp(-((lags(t) / v["range"]) ** 2)), v["nugget"]),
    ),
    "CompoundSymmetry": (hl.CompoundSymmetry(), lambda t, v: np.where(np.eye(len(t), dtype=bool), 1.0, v["rho"])),
    "Toeplitz": (
        hl.Toeplitz("occasion"),
        lambda t, v: np.array([1.0, *v.values()])[lags(t).astype(int)],
    ),
    "Unstructured": (
        hl.Unstructured("occasion"),
        lambda t, v: np.array([[1.0 if a == b else v[f"rho({min(a, b):g}, {max(a, b):g})"] for b in t] for a in t]),
    ),
    "AnteDependence": (
        hl.AnteDependence("occasion"),
        lambda t, v: np.array([[product_between(v, *sorted((int(a), int(b)))) for b in t] for a in t]),
    ),
    "Damped": (Damped("t"), lambda t, v: v["rho"] ** (lags(t) ** v["power"])),
}
VARIANCES = {
    "equal": (None, None),
    "VarIdent": (
        hl.VarIdent("group"),
        lambda d, v: np.array([1.0 if g == "a" else v[f"ratio({g}/a)"] for g in d["group"]]),
    ),
    "VarPower": (hl.VarPower("size"), lambda d, v: np.abs(d["size"].to_numpy()) ** v["power"]),
    "VarExp": (hl.VarExp("size"), lambda d, v: np.exp(v["rate"] * d["size"].to_numpy())),
    "weights": (Composed(weights="size"), lambda d, v: 1.0 / np.sqrt(d["size"].to_numpy())),
    "VarIdent, weights": (
        Composed(hl.VarIdent("group"), weights="size"),
        lambda d, v: (
            np.array([1.0 if g == "a" else v[f"ratio({g}/a)"] for g in d["group"]]) / np.sqrt(d["size"].to_numpy())
        ),
    ),
    "group": (Composed(group="x"), lambda d, v: np.where(d["x"] == 1, v["ratio(1/0)"], 1.0)),
    "VarExp by group, weights": (
        Composed(hl.VarExp("t"), "x", "size"),
        lambda d, v: (
            np.where(d["x"] == 1, v["ratio(1/0)"], 1.0)
            * np.exp(d["t"].to_numpy() * np.where(d["x"] == 1, v["rate[1]"], v["rate[0]"]))
            / np.sqrt(d["size"].to_numpy())
        ),
    ),
    "VarIdent by group": (
        Composed(hl.VarIdent("group"), "x"),
        lambda d, v: np.array(
            [
                (v["ratio(1/0)"] if x else 1.0) * (1.0 if g == "a" else v[f"ratio({g}/a)[{x}]"])
                for g, x in zip(d["group"], d["x"], strict=True)
            ]
        ),
    ),
    "VarConstPower": (VarConstPower("size"), lambda d, v: 1.0 + v["const"] * np.abs(d["size"].to_numpy())),
}
PAIRS = [(c, "equal") for c in CORRELATIONS] + [
    ("independent", "VarIdent"),
    ("independent", "VarPower"),
    ("independent", "VarExp"),
    ("independent", "VarConstPower"),
    ("independent", "weights"),
    ("AR1, nugget", "VarIdent"),
    ("Unstructured", "VarIdent"),
    ("AnteDependence", "VarIdent"),
    ("Toeplitz", "VarPower"),
    ("Exponential", "VarExp"),
    ("Exponential", "VarIdent, weights"),
    ("independent", "VarIdent by group"),
    ("AR1, nugget", "group"),
    ("Exponential", "VarExp by group, weights"),
    ("CompoundSymmetry", "group"),
    ("Gaussian, nugget", "group"),
    ("Toeplitz", "group"),
    ("Unstructured", "group"),
    ("AnteDependence", "group"),
]
# Unstructured correlations by group have no highest likelihood on the few rows of thirty subjects.
STRUCTURED = [pair for pair in PAIRS if pair not in (("independent", "equal"), ("Unstructured", "group"))]
WITH_EFFECTS = [
    pytest.param(p, q, id=f"{q}-{' + '.join(p)}") for p in PAIRS for q in range(3) if p in STRUCTURED or not q
]
IN_NO_ORDER = pytest.mark.filterwarnings("ignore:AR1 without a column takes the order:hierlmm.errors.FitWarning")


def build(data, correlation, variance, q, formula="y ~ t * x"):
    if q == 0:
        return hl.MarginalModel(formula, correlation=correlation, variance=variance, subject="id", data=data)
    return hl.TwoLevelModel.from_formula(
        f"{formula} + {COVARIANCE[q]}", data, residual=correlation, residual_variance=variance
    )


def second_definition(pair, design, report):
    """Σ / σ² of all rows, (N, N), from the definitions above."""
    (spec, matrix), (_, ratio) = CORRELATIONS[pair[0]], VARIANCES[pair[1]]
    frame, N = design.frame, design.n_obs
    residual = np.zeros((N, N))
    correlations = {k: v for k, v in report.items() if re.split(r"[(\[]", k)[0] in ("rho", "phi", "range", "nugget")}
    if pair[0] == "Damped":
        correlations = report
    for j in range(design.n_subjects):
        rows = np.flatnonzero(design.subject_index == j)
        t = np.arange(len(rows)) if spec is None or spec.time is None else frame[spec.time].to_numpy()[rows]
        own = of_group(correlations, frame["x"].iloc[rows[0]] if "x" in frame else None)
        residual[np.ix_(rows, rows)] = np.eye(len(rows)) if matrix is None else matrix(t, own)
    g = np.ones(N) if ratio is None else ratio(frame, report)
    return residual * g[:, None] * g


def same(first, second, *, rel=1e-7):
    assert first.loglik == pytest.approx(second.loglik, rel=1e-10)
    np.testing.assert_allclose(first.beta, second.beta, rtol=rel, atol=1e-9)
    np.testing.assert_allclose(first.beta_se, second.beta_se, rtol=rel)
    assert first.sigma == pytest.approx(second.sigma, rel=rel)
    assert first.converged and second.converged
