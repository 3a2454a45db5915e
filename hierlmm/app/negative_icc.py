"""Room (d), negative ICC: a random intercept and compound symmetry, one V where the correlation is not negative."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from hierlmm.app.chart import Chart, limits
from hierlmm.app.room import Room, charts, paragraph, say, table
from hierlmm.app.settings import Number
from hierlmm.arrays import FloatArray
from hierlmm.covariance.residual import CompoundSymmetry
from hierlmm.marginal import MarginalModel
from hierlmm.model import TwoLevelModel
from hierlmm.teaching.is_hierarchical import HierarchicalCheck, is_hierarchical

MIXED, MARGINAL = "random intercept", "compound symmetry"
SUBJECTS = 40
SETTINGS = (
    Number("icc", "Correlation within a subject (ICC)", -0.45, 0.9, 0.05, -0.2),
    Number("visits", "Measurements of a subject", 2, 6, 1, 4),
    Number("sd", "SD of a measurement", 0.5, 3.0, 0.1, 1.0),
    Number("seed", "Study (another number, another draw)", 1, 50, 1, 1),
)


@dataclass(frozen=True, eq=False)
class Found:
    """V, the answer of `hl.is_hierarchical`, the data and both fits; no fits where V is no covariance matrix.

    ``table`` has a row for each model: ``icc``, ``loglik`` and standard errors of ``Intercept`` and ``time``.
    """

    icc: float
    V: FloatArray
    check: HierarchicalCheck
    y: FloatArray | None
    table: pd.DataFrame | None


@lru_cache(maxsize=8)
def _models(visits: int) -> tuple[TwoLevelModel, MarginalModel]:
    """Both models of so many visits; their responses are replaced."""
    data = pd.DataFrame({"subject": np.repeat(np.arange(SUBJECTS), visits)})
    data["time"] = np.tile(np.arange(float(visits)), SUBJECTS)
    data["y"] = np.sin(np.arange(len(data)))
    mixed = TwoLevelModel.from_formula("y ~ time + (1 | subject)", data)
    return mixed, MarginalModel("y ~ time", correlation=CompoundSymmetry(), subject="subject", data=data)


def numbers(*, icc: float, visits: int, sd: float, seed: int) -> Found:
    """Draw a study with this V, and fit both models by REML."""
    V = sd**2 * ((1.0 - icc) * np.eye(visits) + icc)
    check = is_hierarchical(V, pd.DataFrame({"Intercept": np.ones(visits)}))
    values, vectors = np.linalg.eigh(V)
    if values[0] < 1e-6 * sd**2:
        return Found(icc, V, check, None, None)
    root = vectors * np.sqrt(values) @ vectors.T
    y = 10.0 + 0.5 * np.arange(visits) + np.random.default_rng(seed).standard_normal((SUBJECTS, visits)) @ root
    mixed, free = (model.with_design(model.design.with_response(y.ravel())).fit_reml() for model in _models(visits))
    rows = {MIXED: mixed, MARGINAL: free}
    found = {name: {"icc": icc_of(fit), "loglik": fit.loglik, **fit.beta_se.to_dict()} for name, fit in rows.items()}
    return Found(icc, V, check, y, pd.DataFrame.from_dict(found, orient="index"))


def icc_of(fit: Any) -> float:
    """Correlation of two measurements of a subject, as a fit implies it."""
    V = fit.marginal_covariance().to_numpy()
    return float(V[0, 1] / V[0, 0])


def show(found: Found) -> str:
    """V, the data, what the random intercept would need, and both fits."""
    n, texts = len(found.V), [str(k + 1) for k in range(len(found.V))]
    heat = Chart("V, what data see", (-0.5, n - 0.5), (-0.5, n - 0.5), "measurement", "measurement")
    heat.cells(found.V, float(np.abs(found.V).max()), ".3g")
    heat.tick([*enumerate(texts)], [(n - 1 - k, text) for k, text in enumerate(texts)])
    lowest = say("negative_icc.lowest", n=n, lowest=-1.0 / (n - 1))
    if found.y is None or found.table is None:
        said = [say("negative_icc.impossible", icc=found.icc, n=n, lowest=-1.0 / (n - 1)), *found.check.reasons]
        return charts([heat.svg()]) + "".join(map(paragraph, said))
    names = {"icc": "estimated ICC", "loglik": "restricted log-likelihood"}
    names |= {"Intercept": "SE of the intercept", "time": "SE of the slope"}
    differ = float(found.table["loglik"].iloc[1] - found.table["loglik"].iloc[0])
    verdict = say("negative_icc.same") if abs(differ) < 1e-6 else say("negative_icc.differ", differ=differ)
    answer = say("negative_icc.yes") if found.check else " ".join(found.check.reasons)
    return (
        charts([heat.svg(), _two_visits(found.y), _estimates(found)])
        + paragraph(f"{say('negative_icc.question')} {answer}", "verdict")
        + table(found.table.rename(columns=names), say("negative_icc.fits", icc=found.icc))
        + paragraph(verdict)
        + paragraph(lowest)
    )


def _two_visits(y: FloatArray) -> str:
    x = y - y.mean(axis=0)
    ends = limits(x[:, :2])
    r = float(np.corrcoef(x[:, 0], x[:, 1])[0, 1])
    chart = Chart(f"Two measurements of each subject, r = {r:.2f}", ends, ends, "first (centred)", "second (centred)")
    chart.rule(0.0)
    chart.line((0.0, 0.0), ends, "rule")
    chart.dots(x[:, 0], x[:, 1], "data")
    return chart.svg()


def _estimates(found: Found) -> str:
    estimates = found.table["icc"] if found.table is not None else pd.Series(dtype=float)
    n = len(found.V)
    chart = Chart("ICC: truth and estimates", limits([-1.0 / (n - 1), found.icc], estimates, [1.0]), (-0.6, 1.6), "ICC")
    chart.line((0.0, 0.0), chart.y, "rule")
    chart.line((found.icc, found.icc), chart.y, "ink dashed", "truth")
    for k, (name, value) in enumerate(estimates.items()):
        chart.dots([value], [k], f"c{k}", str(name), radius=6)
    chart.tick(y=[(k, "") for k in range(len(estimates))])
    return chart.svg()


ROOM = Room("negative_icc", SETTINGS, numbers, show)
