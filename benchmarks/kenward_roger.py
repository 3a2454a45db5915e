"""Seconds of Kenward and Roger's adjustment and of empirical standard errors, beside those of the fit.

    .venv/bin/python benchmarks/kenward_roger.py          or  make bench BENCH=kenward_roger

200 and 2,000 subjects with four visits, a tenth of the rows missing, means by arm and visit with a covariate.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from common import median_seconds, timed

import hierlmm as hl
from hierlmm.likelihood.degrees import satterthwaite_degrees
from hierlmm.likelihood.empirical import empirical
from hierlmm.likelihood.large_sample import large_sample
from hierlmm.likelihood.residual_degrees import structured_kenward_roger

STRUCTURES = {
    "unstructured": hl.UnstructuredHeterogeneous("visit"),
    "AR(1)": hl.AR1("number"),
    "Toeplitz": hl.Toeplitz("number"),
}


def trial(n_subjects: int) -> pd.DataFrame:
    """A trial of two arms."""
    rng = np.random.default_rng(3)
    rows = pd.MultiIndex.from_product([range(n_subjects), range(4)], names=["id", "number"]).to_frame(index=False)
    rows["visit"] = "v" + rows["number"].astype(str)
    rows["arm"] = np.where(rows["id"] % 2 == 0, "a", "b")
    rows["x"] = rng.standard_normal(n_subjects)[rows["id"]]
    rows["y"] = 40.0 + rows["number"] + rows["x"] + rng.standard_normal((n_subjects, 4)).cumsum(axis=1).ravel()
    return rows[rng.random(len(rows)) > 0.1].reset_index(drop=True)


def main() -> None:
    """Print a line for each structure and number of subjects; the first fit, which compiles, is not counted."""
    for n_subjects in (200, 2000):
        for name, structure in STRUCTURES.items():
            model = hl.MarginalModel("y ~ arm * visit + x", correlation=structure, subject="id", data=trial(n_subjects))
            fit = model.fit_reml()
            seconds, _ = timed(model.fit_reml)
            criterion, at, rows = fit.criterion_function, fit.solution, fit.criterion_function.rows
            clocks = {
                "Hessian": lambda c=criterion, f=fit: large_sample(c, f.optimum.lam, f.solution.whitened_sd),
                "Satterthwaite": lambda f=fit: satterthwaite_degrees(f.large_sample),
                "Kenward-Roger": lambda f=fit, r=rows: structured_kenward_roger(f.large_sample, r),
                "empirical": lambda f=fit, a=at: empirical(f.design, a, "empirical-bias-reduced"),
            }
            told = ", ".join(f"{what} {median_seconds(ask, 5):.3f}" for what, ask in clocks.items())
            print(f"{n_subjects} subjects, {name}, {len(rows.parameters) + 1} parameters: fit {seconds:.2f} s, {told}")


if __name__ == "__main__":
    main()
