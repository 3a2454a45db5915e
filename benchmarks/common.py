"""Data and clocks that the benchmarks share."""

from __future__ import annotations

import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import pandas as pd

import hierlmm as hl

PARAMETERS = ("beta", "sd_b", "sigma")


def timed(function: Callable[[], object]) -> tuple[float, object]:
    """Wall time of one call, and what it returned."""
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def median_seconds(function: Callable[[], object], repeats: int) -> float:
    """Median wall time of a call, after one warm-up."""
    function()
    return statistics.median(timed(function)[0] for _ in range(repeats))


def growth(n_subjects: int, *, irregular: bool) -> pd.DataFrame:
    """Ten measurements of each subject, on common days or on days of their own."""
    return hl.simulate(
        beta={"Intercept": 250.0, "time": 10.0},
        D=[[600.0, 10.0], [10.0, 35.0]],
        sigma=25.0,
        random=["Intercept", "time"],
        n_subjects=n_subjects,
        times=np.arange(10.0),
        irregular=irregular,
        seed=1,
    )


def smallest_ess(tree: object) -> float:
    """Smallest bulk ESS over fixed effects, standard deviations and σ (not the random effects)."""
    import arviz as az

    posterior = tree["posterior"].to_dataset()  # type: ignore[index]
    return min(float(az.ess(posterior[[name]], method="bulk")[name].min()) for name in PARAMETERS)


def own_peak_memory() -> float:
    """Peak resident memory of this process, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def fresh_process(code: str, environment: dict[str, str]) -> float:
    """Wall time of a new Python process that runs the code."""
    command = [sys.executable, "-c", code]
    seconds, done = timed(lambda: subprocess.run(command, env=environment, capture_output=True, text=True, check=False))
    if done.returncode != 0:  # type: ignore[attr-defined]
        raise RuntimeError(done.stderr)  # type: ignore[attr-defined]
    return seconds


def have(program: str) -> bool:
    """Whether a program is on the path."""
    return shutil.which(program) is not None
