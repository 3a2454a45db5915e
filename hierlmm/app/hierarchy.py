"""Room (a), from hierarchy to marginal: sliders of a hierarchy, and the V that follows.

y_ij = β₀ + β₁ t_ij + b_0i + b_1i t_ij + e_ij,    V = Z D Z' + Σ
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from hierlmm.app.chart import Chart, limits
from hierlmm.app.room import Room, charts, paragraph, say, table
from hierlmm.app.settings import Choice, Number
from hierlmm.arrays import FloatArray
from hierlmm.covariance.residual import AR1, Exponential
from hierlmm.datasets.simulate import SimulationTruth, simulate
from hierlmm.model import TwoLevelModel
from hierlmm.teaching.is_hierarchical import HierarchicalCheck, is_hierarchical
from hierlmm.teaching.same_marginal import SameMarginal, same_marginal, subject_hierarchy

BETA = {"Intercept": 10.0, "time": 0.5}
SHOWN = 12
"""Subjects whose lines are drawn."""
INDEPENDENT, BY_VISIT, IN_TIME = "independent", "ar1", "exponential"
EQUAL, GROWING = "equal", "growing"
SETTINGS = (
    Number("sd_intercept", "sd(Intercept)", 0.0, 3.0, 0.1, 1.5),
    Number("sd_slope", "sd(slope)", 0.0, 1.0, 0.05, 0.3),
    Number("correlation", "Correlation of intercept and slope", -0.95, 0.95, 0.05, 0.2),
    Number("sigma", "σ, residual SD", 0.2, 3.0, 0.1, 1.0),
    Choice(
        "errors",
        "Errors of a subject",
        {INDEPENDENT: "independent", BY_VISIT: "AR(1), by visit", IN_TIME: "exponential decay, in time"},
        INDEPENDENT,
    ),
    Number("rho", "Correlation of errors one visit (one time unit) apart", 0.05, 0.95, 0.05, 0.6),
    Number("visits", "Number of visits", 3, 8, 1, 5),
    Choice("spacing", "Visits at", {EQUAL: "0, 1, 2, 3, …", GROWING: "0, 0.5, 1, 2, 4, …"}, EQUAL),
)


@dataclass(frozen=True, eq=False)
class Found:
    """V of a hierarchy and what else could have made it.

    ``lines`` are the subjects' coefficients, ``y`` (subjects, visits) their measurements; ``later``: the same V with
    time counted from the last visit; ``alone``: from a random intercept alone; ``pair``: without subject effects.
    """

    times: FloatArray
    D: FloatArray
    sigma: float
    V: FloatArray
    correlation: FloatArray
    truth: SimulationTruth
    y: FloatArray
    check: HierarchicalCheck
    later: HierarchicalCheck
    alone: HierarchicalCheck
    pair: SameMarginal


def times_of(visits: int, spacing: str) -> list[float]:
    """When the visits are."""
    if spacing == EQUAL:
        return [float(k) for k in range(visits)]
    return [0.0, 0.5, *(float(2**k) for k in range(visits - 2))]


@lru_cache(maxsize=32)
def _model(times: tuple[float, ...]) -> TwoLevelModel:
    """The model whose rows and random effects are needed; its responses are not."""
    data = simulate(beta=BETA, D=[[1.0, 0.0], [0.0, 0.1]], sigma=1.0, n_subjects=4, times=times, seed=1)
    return TwoLevelModel.from_formula("y ~ time + (1 + time | subject)", data)


def numbers(
    *,
    sd_intercept: float,
    sd_slope: float,
    correlation: float,
    sigma: float,
    errors: str,
    rho: float,
    visits: int,
    spacing: str,
) -> Found:
    """Work out V, draw subjects, and ask which other hierarchies have this V."""
    times = np.array(times_of(visits, spacing))
    sd = np.array([sd_intercept, sd_slope])
    D = np.outer(sd, sd) * np.array([[1.0, correlation], [correlation, 1.0]])
    R = np.eye(visits)
    if errors == BY_VISIT:
        R = AR1("visit").matrix(np.arange(float(visits)), np.array([rho]))
    elif errors == IN_TIME:
        R = Exponential("time").matrix(times, np.array([-1.0 / np.log(rho)]))
    asked: dict[str, Any] = {"beta": BETA, "D": D, "times": times, "n_subjects": SHOWN, "seed": 2}
    _, truth = simulate(**asked, random=["Intercept", "time"], sigma=1.0, return_truth=True)
    noise = np.random.default_rng(5).standard_normal((SHOWN, visits)) @ np.linalg.cholesky(sigma**2 * R).T
    stated = subject_hierarchy(
        _model(tuple(times)), beta=list(BETA.values()), D=D, residual=lambda rows: sigma**2 * R, name="as set"
    )
    V = stated.V[0]
    spread = np.sqrt(np.diag(V))
    ones = np.ones(visits)
    late = pd.DataFrame({"Intercept": ones, "time before the last visit": times - times[-1]})
    return Found(
        times=times,
        D=D,
        sigma=sigma,
        V=V,
        correlation=V / np.outer(spread, spread),
        truth=truth,
        y=truth.mu.to_numpy().reshape(SHOWN, visits) + noise,
        check=is_hierarchical(V, pd.DataFrame({"Intercept": ones, "time": times})),
        later=is_hierarchical(V, late),
        alone=is_hierarchical(V, pd.DataFrame({"Intercept": ones})),
        pair=same_marginal(stated),
    )


def show(found: Found) -> str:
    """Pictures, and the hierarchies that have this V."""
    texts = [f"{t:g}" for t in found.times]
    pictures = [_lines(found), _heat("V", found.V, texts, float(np.abs(found.V).max()), ".3g")]
    pictures += [_heat("Correlation", found.correlation, texts, 1.0, ".2f"), _variance(found), _by_lag(found)]
    return charts(pictures) + table(_others(found), say("hierarchy.others")) + paragraph(say("hierarchy.means"))


def _lines(found: Found) -> str:
    t, coef = found.times, found.truth.subject_coef.to_numpy()
    ends = np.array([t[0], t[-1]])
    lines = coef[:, :1] + coef[:, 1:] * ends
    chart = Chart("Subjects: lines, and measurements of two", limits(t), limits(lines, found.y[:2]), "time", "y")
    for line in lines:
        chart.line(ends, line, "data thin", "subjects")
    for k in range(2):
        chart.dots(t, found.y[k], f"c{k}", f"subject {k + 1}")
        chart.line(ends, lines[k], f"c{k}")
    chart.line(ends, BETA["Intercept"] + BETA["time"] * ends, "ink bold", "population")
    return chart.svg()


def _heat(name: str, matrix: FloatArray, texts: list[str], top: float, form: str) -> str:
    n = len(matrix)
    chart = Chart(f"{name} of one subject's measurements", (-0.5, n - 0.5), (-0.5, n - 0.5), "time", "time")
    chart.cells(matrix, top, form)
    chart.tick([*enumerate(texts)], [(n - 1 - k, text) for k, text in enumerate(texts)])
    return chart.svg()


def _variance(found: Found) -> str:
    t, V = found.times, np.diag(found.V)
    chart = Chart("Variance against time", limits(t), (0.0, 1.08 * float(V.max())), "time", "variance")
    chart.line(t, V, "c0 bold", "variance")
    chart.line(t, V - found.sigma**2, "c1 dashed", "of it between subjects")
    chart.dots(t, V, "c0")
    return chart.svg()


def _by_lag(found: Found) -> str:
    t, R = found.times, found.correlation
    first, second = np.triu_indices(len(t), 1)
    low = min(0.0, float(R.min()) - 0.05)
    chart = Chart("Correlation against lag", (0.0, 1.05 * (t[-1] - t[0])), (low, 1.02), "lag", "correlation")
    chart.rule(0.0)
    chart.dots(t[second] - t[first], R[first, second], "data", "all pairs of visits")
    chart.line(t[1:] - t[0], R[0, 1:], "c0 bold", "with the first visit")
    return chart.svg()


def _others(found: Found) -> pd.DataFrame:
    rows = {
        say("hierarchy.same"): found.check,
        say("hierarchy.later"): found.later,
        say("hierarchy.alone"): found.alone,
    }
    cells = {
        name: (say("hierarchy.yes") if check else say("hierarchy.no"), _words(check)) for name, check in rows.items()
    }
    gap = found.pair.V_difference
    cells[say("hierarchy.none")] = (
        say("hierarchy.yes" if found.pair.same else "hierarchy.no"),
        say("hierarchy.gap", gap=gap),
    )
    return pd.DataFrame.from_dict(cells, orient="index", columns=["the same V?", "with, or why not"])


def _words(check: HierarchicalCheck) -> str:
    """D and σ of a hierarchy that has V; else the first reason why none has."""
    if not check:
        return check.reasons[0]
    sd = np.sqrt(np.clip(np.diag(check.D), 0.0, None))
    words = [f"sd({term}) = {value:.3g}" for term, value in zip(check.D.index, sd, strict=True)]
    if len(sd) == 2 and sd.min() > 1e-6:
        words.append(f"correlation {check.D.iloc[0, 1] / (sd[0] * sd[1]):.2f}")
    return ", ".join([*words, f"σ = {np.sqrt(max(check.sigma2, 0.0)):.3g}"])


def _slots(values: Mapping[str, Any]) -> dict[str, Any]:
    residual = {
        INDEPENDENT: "np.eye(len(times))",
        BY_VISIT: f"{values['rho']} ** np.abs(np.subtract.outer(range(len(times)), range(len(times))))",
        IN_TIME: f"{values['rho']} ** np.abs(np.subtract.outer(times, times))",
    }[values["errors"]]
    return {**values, "times": times_of(values["visits"], values["spacing"]), "residual": residual}


ROOM = Room("hierarchy", SETTINGS, numbers, show, _slots)
