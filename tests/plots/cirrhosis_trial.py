"""The cirrhosis trial: a model with splines, and the copy that R's files were made with."""

from __future__ import annotations

import pandas as pd
from references import data_elsewhere

FORMULA = "log(bili) ~ ns(year, 2) * sex + (age + basepro) * sex + (ns(year, 2) | subject)"
HELD = {"age": 49, "basepro": 10.6}


def published_copy():
    """The copy that R read."""
    data = pd.read_csv(data_elsewhere("pbc2")).rename(columns={"id": "subject", "serbilir": "bili"})
    data["sex"] = pd.Categorical(data["sex"], ["male", "female"])
    return data.assign(basepro=data.groupby("subject")["prothrombin"].transform("first"))
