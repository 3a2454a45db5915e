"""Draw docs/_static/hero.png, of the README and the first page: the hierarchy, the subjects' lines, five estimators."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")

import matplotlib.pyplot as plt

import hierlmm as hl

TARGET = Path(__file__).parents[1] / "docs" / "_static" / "hero.png"
HIERARCHY = r"""$\mathbf{Level\ 1}$: each child's own line

    $distance_{ij} = \beta_{0i} + \beta_{1i}\,time_{ij} + e_{ij}$

$\mathbf{Level\ 2}$: what explains the lines

    $\beta_{0i} = \beta_{00} + \beta_{01}\,sex_i + b_{0i}$
    $\beta_{1i} = \beta_{10} + \beta_{11}\,sex_i + b_{1i}$

    $(b_{0i}, b_{1i}) \sim N(0, D)$,  $e_{ij} \sim N(0, \sigma^2)$

$\mathbf{Marginal}$: what the data show of it

    $V_i = Z_i D Z_i' + \sigma^2 I$"""


def image(picture: Any) -> np.ndarray:
    """A picture as an array of colours."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture.png"
        picture.savefig(path, dpi=200)
        return np.asarray(plt.imread(path))


def main() -> None:
    """Fit, draw and write."""
    dental = hl.load_dataset("dental")
    model = hl.TwoLevelModel("distance ~ time", {"Intercept": "sex", "time": "sex"}, subject="subject", data=dental)
    reml = model.fit_reml()
    gls = hl.MarginalModel("distance ~ sex * time", correlation=hl.AR1(), subject="subject", data=dental)
    fits = model.fit(seed=1, progressbar=False), reml, model.fit_ml(), model.fit_gee(), gls.fit_reml()
    lines = image(reml.plot_trajectories(title="", figsize=(4.6, 4.0)))
    forest = image(
        hl.compare(*fits, labels=["NUTS", "REML", "ML", "GEE", "GLS"]).plot_forest(
            parameters=["time", "sex[T.Male]:time"], title="", col_wrap=1, figsize=(4.2, 4.0)
        )
    )
    figure, axes = plt.subplots(1, 3, figsize=(12.6, 4.2), width_ratios=[3.4, 4.6, 4.2], layout="constrained")
    axes[0].text(0.0, 0.5, HIERARCHY, va="center", fontsize=12, linespacing=1.35)
    for ax, shown in zip(axes[1:], (lines, forest), strict=True):
        ax.imshow(shown, interpolation="lanczos")
    for ax in axes:
        ax.set_axis_off()
    figure.savefig(TARGET, dpi=130)
    print(f"{TARGET}: {TARGET.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
