"""Checks of the columns: do different variables say nearly the same, are they on scales that can be read."""

from __future__ import annotations

import numpy as np

from hierlmm.arrays import FloatArray
from hierlmm.checks.material import Material
from hierlmm.checks.outcome import LeftOut, Outcome
from hierlmm.design.design import Design
from hierlmm.design.formula import variables_of
from hierlmm.design.questions import is_label

INFLATED, MUCH = 5.0, 10.0
"""Inflation of a variance worth a look, and worth acting on."""
SIZES, FAR = 1e4, 100.0
"""Ratio of SDs between columns, and of a mean to its SD, beyond which numbers are hard to read."""


def collinearity(material: Material) -> Outcome | LeftOut:
    """How much other variables inflate the variance of a variable's coefficients.

    The information on the coefficients, ``X'V⁻¹X``, with all columns of one variable together (dummies, powers,
    splines) and against columns without that variable only: powers of a variable are collinear with each other by
    construction, and an interaction with its own parts. For a column alone it is the variance inflation factor, for
    several the generalised one to the power 1/df (Fox & Monette 1992, J. Amer. Statist. Assoc. 87, 178-183).
    """
    design = material.fit.design
    cov = material.fit.beta_cov.to_numpy()
    of = [_variables(design, k) for k in range(len(design.coef))]
    names = sorted({v for own in of for v in own})
    found = {}
    for name in names:
        own = [k for k, v in enumerate(of) if v == {name}]
        others = [k for k, v in enumerate(of) if v and name not in v]
        if own and others:
            found[name] = _inflation(cov, own, others, [k for k, v in enumerate(of) if not v])
    if not found:
        return LeftOut("the mean has one variable only")
    worst = max(found, key=lambda name: found[name][0])
    size, partner = found[worst]
    slots = {
        "name": worst,
        "size": f"{size:.3g}",
        "se": f"{np.sqrt(size):.2g}",
        "partner": " and ".join(sorted(of[partner])),
    }
    return Outcome(slots, severity="act" if size > MUCH else "look" if size > INFLATED else "fine", size=size)


def scaling(material: Material) -> Outcome | LeftOut:
    """Whether numeric covariates are of very different sizes, or far from zero."""
    design, frame = material.fit.design, material.fit.design.frame
    names = dict.fromkeys([*design.level1_variables(), *design.level2_variables()])
    known = [v for v in names if v in frame.columns and not is_label(design, v)]
    if not known:
        return LeftOut("the mean has no numeric covariate")
    sd = {v: float(np.std(frame[v].to_numpy(dtype=np.float64))) for v in known}
    mean = {v: float(np.mean(frame[v].to_numpy(dtype=np.float64))) for v in known}
    far = [v for v in known if abs(mean[v]) > FAR * sd[v] > 0.0]
    small, large = min(known, key=sd.__getitem__), max(known, key=sd.__getitem__)
    ratio = sd[large] / max(sd[small], 1e-300)
    if far:
        slots = {"name": far[0], "mean": f"{mean[far[0]]:.4g}", "sd": f"{sd[far[0]]:.3g}"}
        return Outcome(slots, severity="look", size=abs(mean[far[0]]) / sd[far[0]], variant="_far")
    slots = {"small": small, "large": large, "sd_small": f"{sd[small]:.2g}", "sd_large": f"{sd[large]:.2g}"}
    return Outcome(slots, severity="look" if ratio > SIZES else "fine", size=ratio)


def _variables(design: Design, k: int) -> frozenset[str]:
    """The variables that a column of X is made of; none of the intercept."""
    columns = list(map(str, design.frame.columns))
    return frozenset(v for factor in design.fixed_columns[k].term for v in variables_of(factor, columns))


def _inflation(cov: FloatArray, own: list[int], others: list[int], constant: list[int]) -> tuple[float, int]:
    """Generalised variance inflation to the power 1/df, and the column outside that is most correlated."""
    # The intercept is estimated as well, and swept out; interactions with the variable are left out of the model.
    information = np.linalg.inv(cov)
    every = [*own, *others]
    A = information[np.ix_(every, every)]
    if constant:
        B = information[np.ix_(every, constant)]
        A = A - B @ np.linalg.solve(information[np.ix_(constant, constant)], B.T)
    scale = 1.0 / np.sqrt(np.diag(A))
    R = A * scale[:, None] * scale
    n = len(own)
    log_det = np.linalg.slogdet(R[:n, :n])[1] + np.linalg.slogdet(R[n:, n:])[1] - np.linalg.slogdet(R)[1]
    partner = others[int(np.argmax(np.abs(R[:n, n:]).max(axis=0)))]
    return float(np.exp(log_det / n)), partner
