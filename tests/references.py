"""Frozen R results and the data they belong to."""

import json
import os
import re
from pathlib import Path

import pandas as pd
import pytest

from hierlmm.datasets import load_dataset

HERE = Path(__file__).parent
FOLDERS = json.loads((HERE / "reference" / "folders.json").read_text())
"""Folder of every set of reference results, below the tests: R and Python find them by this list."""
COLUMNS = {
    "dental": {"subject": "id", "distance": "y"},
    "rats": {"litter": "litterid"},
    "petri": {"dish": "dish_id"},
    "negative_icc": {"subject": "id"},
    "aids": {"subject": "patient"},
}


def references_of(what: str) -> Path:
    """The folder of a set of reference results, beside the tests that look at most of it."""
    return HERE / FOLDERS[what]


IDS = sorted(path.stem for path in references_of("lme4").glob("*.json"))


def data_elsewhere(name: str) -> Path:
    """The file of data that may not ship; a test that needs it is skipped where it is not to be had.

    Its licence forbids to ship it, so that a clone alone cannot have it; `.ci/run` finds it beside the checkout.
    """
    folder = os.environ.get("HIERLMM_DATA")
    if not folder or not (Path(folder) / f"{name}.csv").is_file():
        pytest.skip(f"{name} may not ship; set HIERLMM_DATA to the folder that holds {name}.csv")
    return Path(folder) / f"{name}.csv"


def reference(name: str, what: str = "lme4") -> dict:
    return json.loads((references_of(what) / f"{name}.json").read_text())


def reference_data(ref: dict) -> pd.DataFrame:
    """The data of a reference result, under R's column names."""
    name = ref["data"]
    if name == "aids":
        data_elsewhere(name)
    if name == "text4_clusters":
        return pd.read_csv(HERE / "data" / "text4_clusters.csv")
    if name in ("esoph_old", "esoph_new"):
        data = load_dataset("esoph", coding="1980s" if name == "esoph_old" else None)
    else:
        data = load_dataset(name).rename(columns=COLUMNS.get(name, {}))
    if name == "rat_pups":
        data["sex"] = pd.Categorical(data["sex"].astype(str), ["Male", "Female"])
    if ref["subset"]:
        data = data[data["sex"] == ref["subset"]]
    return data


def formula(ref: dict) -> str:
    return ref["formula"].replace("^", " ** ")


def r_name(name: str) -> frozenset:
    """Our coefficient name in R's spelling, as a set of factors (R may order an interaction the other way)."""
    name = "(Intercept)" if name == "Intercept" else name.replace(" ** ", "^")
    return frozenset(re.sub(r"\[T\.(.*?)\]", r"\1", part) for part in name.split(":"))


def align(values: dict, ours) -> list[float]:
    """R's values in the order of our coefficients."""
    by_name = {frozenset(key.split(":")): value for key, value in values.items()}
    return [by_name[r_name(name)] for name in ours]
