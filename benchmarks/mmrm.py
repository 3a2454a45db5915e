"""The mixed model of a trial by NUTS, beside REML: seconds, convergence, and how far the estimates lie apart.

HIERLMM_DATA=folder .venv/bin/python benchmarks/mmrm.py     (the folder holds fev.csv of the R package mmrm)
"""

import os
import resource
import time
from pathlib import Path

import pandas as pd

import hierlmm as hl

UN = {"correlation": hl.UnstructuredHeterogeneous("AVISIT")}
ANTE = {"correlation": hl.AnteDependence("AVISIT"), "variance": hl.VarIdent("AVISIT")}
MODELS = {
    "UN": UN,
    "UN by arm": {**UN, "group": "ARMCD"},
    "ANTE(1)": ANTE,
    "ANTE(1) by arm": {**ANTE, "group": "ARMCD"},
}


def processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    data = pd.read_csv(Path(os.environ["HIERLMM_DATA"]) / "fev.csv").dropna(subset="FEV1")
    for name, options in MODELS.items():
        formula = "FEV1 ~ ARMCD * AVISIT + RACE + SEX"
        model = hl.MarginalModel(formula, subject="USUBJID", data=data, **options)
        model.fit(draws=20, tune=20, seed=1, progressbar=False)  # compiled code is loaded
        start, used = time.perf_counter(), processor_seconds()
        fit = model.fit(seed=1, progressbar=False)
        seconds, used = time.perf_counter() - start, processor_seconds() - used
        reml, table, components = model.fit_reml(), fit.summary(), fit.variance_components()
        theirs = reml.variance_components()
        apart = ((fit.beta - reml.beta) / reml.beta_se).abs().max()
        own = ((components["estimate"] - theirs["estimate"]) / theirs["se"]).abs().max()
        print(
            f"{name:16s} {seconds:5.1f} s ({used:.1f} s of processor time)  converged: {fit.converged}  "
            f"R-hat {max(table['r_hat'].max(), components['r_hat'].max()):.3f}  "
            f"ESS {min(table['ess_bulk'].min(), components['ess_bulk'].min()):.0f}  "
            f"from REML: beta {apart:.2f} SE, covariance {own:.2f} SE"
        )


if __name__ == "__main__":
    main()
